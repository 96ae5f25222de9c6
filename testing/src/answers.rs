//! A strict reader of what a server sends: it takes nothing that RFC 9112 does not allow one to send,
//! and says at which byte of the grammar it stands.

use std::fmt;

/// One final answer, with the interim ones before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The version is HTTP/1.1. Behind an HTTP/1.0 answer the connection ends, unless it says otherwise.
    pub is_11: bool,
    /// The body as far as it has come, chunks decoded.
    pub body: Vec<u8>,
    /// The trailer fields of a chunked body.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// All that was announced is there. A body that ends with the connection is always complete.
    pub complete: bool,
    /// The body ends with the connection.
    pub until_close: bool,
    /// The interim answers (1xx) before it.
    pub interim: Vec<Interim>,
    /// The bytes after the head that are this answer's, framing and all.
    pub framed: u64,
}

/// An answer that goes before the final one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interim {
    /// The status code.
    pub status: u16,
    /// The fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Answer {
    /// The first field of this name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The same as text; empty where there is no such field.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.field(name).map_or("", |value| std::str::from_utf8(value).unwrap_or("?"))
    }

    /// Whether the connection ends after it (RFC 9112 section 9.3).
    #[must_use]
    pub fn closes(&self) -> bool {
        let connection = self.field("Connection").unwrap_or_default();
        let says = |option: &[u8]| {
            connection.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(option))
        };
        says(b"close") || self.until_close || (!self.is_11 && !says(b"keep-alive"))
    }

    fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }
}

/// Fields of which an answer has one at most.
const SINGLE: &[&str] = &[
    "Connection",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Last-Modified",
    "Location",
    "Server",
    "Transfer-Encoding",
];

/// Where the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before or in a head.
    #[default]
    Head,
    /// In a body of which so much is missing.
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Behind a 101: no more HTTP.
    Raw,
}

/// Reads answers as their bytes come, in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    state: State,
    /// The head or line that is not complete.
    line: Vec<u8>,
    /// The answer whose head is complete.
    current: Option<Answer>,
    interim: Vec<Interim>,
    /// The last complete answer was the last one of the connection.
    ended: bool,
    /// Bodies are not kept.
    forgets: bool,
}

impl Reader {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Reader {
        Reader::default()
    }

    /// The same, for whom bodies do not matter.
    #[must_use]
    pub fn without_bodies() -> Reader {
        Reader { forgets: true, ..Reader::default() }
    }

    /// The answer whose head is complete, and perhaps the rest.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.current.as_ref()
    }

    /// Takes that answer out: what comes next is another one.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = self.current.take()?;
        if self.state != State::Raw {
            self.state = State::Head;
            self.ended = answer.closes() || !answer.complete;
        }
        Some(answer)
    }

    /// Bytes of a head, or of interim answers without a final one, that are not yet an answer.
    #[must_use]
    pub fn rest(&self) -> usize {
        match self.state {
            State::Head => self.line.len().max(self.interim.len()),
            _ => 0,
        }
    }

    /// Takes in `bytes`, to the end of an answer, and says how many it took. `bodiless`: the request was a
    /// HEAD.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn feed(&mut self, bytes: &[u8], bodiless: bool) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && !self.is_complete() {
            at += self.step(&bytes[at..], bodiless)?;
        }
        Ok(at)
    }

    /// Takes in `len` bytes of a body whose text nobody knows.
    ///
    /// # Errors
    /// If no body has so many bytes here.
    pub fn skip(&mut self, len: u64) -> Result<(), String> {
        let left = match &mut self.state {
            State::Length(left) | State::ChunkData(left) => left,
            State::UntilClose | State::Raw => &mut u64::MAX.clone(),
            state => return Err(format!("{len} bytes of a file, at {state:?}")),
        };
        let short = || format!("{len} bytes of a file, where {left} are left of the body");
        *left = left.checked_sub(len).ok_or_else(short)?;
        self.took(len);
        self.end_of_data();
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.current.as_ref().is_some_and(|answer| answer.complete)
            && !matches!(self.state, State::UntilClose | State::Raw)
    }

    fn step(&mut self, bytes: &[u8], bodiless: bool) -> Result<usize, String> {
        match self.state {
            State::Head => self.head(bytes, bodiless),
            State::UntilClose | State::Raw => Ok(self.data(bytes, u64::MAX)),
            State::Length(left) => {
                let n = self.data(bytes, left);
                self.state = State::Length(left - n as u64);
                self.end_of_data();
                Ok(n)
            }
            State::ChunkData(left) => {
                let n = self.data(bytes, left);
                self.state = State::ChunkData(left - n as u64);
                self.end_of_data();
                Ok(n)
            }
            State::ChunkEnd => {
                let wanted = b"\r\n"[self.line.len()];
                if bytes[0] != wanted {
                    return Err(format!("no CR LF behind a chunk: {}", shown(bytes)));
                }
                self.line.push(wanted);
                if self.line.len() == 2 {
                    self.line.clear();
                    self.state = State::ChunkSize;
                }
                self.took(1);
                Ok(1)
            }
            State::ChunkSize => {
                let n = self.line_until(bytes, b"\r\n");
                self.took(n as u64);
                let hex = |line: &[u8]| line.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'\r' | b'\n'));
                if !hex(&self.line) || self.line.len() > 18 {
                    return Err(format!("chunk size: {}", shown(&self.line)));
                }
                if let Some(line) = self.line.strip_suffix(b"\r\n") {
                    let text = std::str::from_utf8(line).unwrap_or_default();
                    let size = u64::from_str_radix(text, 16).map_err(|_| format!("chunk size: {}", shown(line)))?;
                    self.line.clear();
                    self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                }
                Ok(n)
            }
            State::Trailers => {
                let n = self.line_until(bytes, b"\r\n");
                self.took(n as u64);
                if let Some(line) = self.line.strip_suffix(b"\r\n") {
                    if line.is_empty() {
                        self.answered().complete = true;
                    } else {
                        let field = field(line)?;
                        self.answered().trailers.push(field);
                    }
                    self.line.clear();
                }
                Ok(n)
            }
        }
    }

    /// Moves bytes into `line` up to and with `end`.
    fn line_until(&mut self, bytes: &[u8], end: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            self.line.push(byte);
            if self.line.ends_with(end) {
                return at + 1;
            }
        }
        bytes.len()
    }

    fn answered(&mut self) -> &mut Answer {
        self.current.as_mut().expect("a body has a head")
    }

    fn took(&mut self, n: u64) {
        if let Some(answer) = &mut self.current {
            answer.framed += n;
        }
    }

    fn data(&mut self, bytes: &[u8], left: u64) -> usize {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.took(n as u64);
        if !self.forgets {
            self.answered().body.extend_from_slice(&bytes[..n]);
        }
        n
    }

    fn end_of_data(&mut self) {
        match self.state {
            State::Length(0) => self.answered().complete = true,
            State::ChunkData(0) => self.state = State::ChunkEnd,
            _ => {}
        }
    }

    fn head(&mut self, bytes: &[u8], bodiless: bool) -> Result<usize, String> {
        if self.ended {
            return Err(format!("bytes behind an answer that closes: {}", shown(bytes)));
        }
        let n = self.line_until(bytes, b"\r\n\r\n");
        let start = b"HTTP/1.";
        let known = self.line.len().min(start.len());
        if self.line[..known] != start[..known] {
            return Err(format!("no head: {}", shown(&self.line)));
        }
        let Some(text) = self.line.strip_suffix(b"\r\n\r\n") else { return Ok(n) };
        let answer = head(text)?;
        self.line.clear();
        if answer.status < 200 && answer.status != 101 {
            self.interim.push(Interim { status: answer.status, fields: answer.fields });
            return Ok(n);
        }
        let mut answer = Answer { interim: std::mem::take(&mut self.interim), ..answer };
        self.state = framing(&mut answer, bodiless)?;
        self.current = Some(answer);
        Ok(n)
    }
}

/// RFC 9112 section 6.3: how long the body is.
fn framing(answer: &mut Answer, bodiless: bool) -> Result<State, String> {
    if answer.status == 101 {
        answer.complete = true;
        return Ok(State::Raw);
    }
    if bodiless || matches!(answer.status, 204 | 205 | 304) {
        answer.complete = true;
        return Ok(State::Length(0));
    }
    if let Some(value) = answer.field("Transfer-Encoding") {
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(format!("coding {}", shown(value)));
        }
        return Ok(State::ChunkSize);
    }
    let Some(length) = answer.field("Content-Length") else {
        answer.until_close = true;
        let says = answer.text("Connection").eq_ignore_ascii_case("close") || !answer.is_11;
        answer.complete = true;
        return if says {
            Ok(State::UntilClose)
        } else {
            Err("a body without length, and no Connection: close".into())
        };
    };
    let text = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let length = text.and_then(|text| text.parse().ok()).ok_or("Content-Length is no number")?;
    answer.complete = length == 0;
    Ok(State::Length(length))
}

fn head(text: &[u8]) -> Result<Answer, String> {
    let mut lines = split_crlf(text)?.into_iter();
    let line = lines.next().unwrap_or_default();
    let (status, reason) = status_line(line).ok_or_else(|| format!("status line: {}", shown(line)))?;
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let answer = Answer { status, reason, fields, is_11: line.starts_with(b"HTTP/1.1"), ..Answer::default() };
    if let Some(name) = SINGLE.iter().find(|name| answer.count(name) > 1) {
        return Err(format!("{name} {} times", answer.count(name)));
    }
    let (length, coding) = (answer.count("Content-Length"), answer.count("Transfer-Encoding"));
    if length + coding > 1 {
        return Err("Content-Length with Transfer-Encoding".into());
    }
    // RFC 9110 section 8.6 and RFC 9112 section 6.1.
    if (status < 200 || status == 204) && length + coding > 0 {
        return Err(format!("{status} with a length"));
    }
    if !answer.is_11 && coding > 0 {
        return Err("Transfer-Encoding in HTTP/1.0".into());
    }
    // RFC 9110 section 6.6.1: an origin server with a clock sends it with all answers but 1xx and 5xx.
    if (200..500).contains(&status) && answer.count("Date") == 0 {
        return Err("no Date".into());
    }
    Ok(answer)
}

fn status_line(line: &[u8]) -> Option<(u16, String)> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (code, reason) = (rest.get(..3)?, rest.get(3..)?.strip_prefix(b" ")?);
    let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    let fits = (100..1000).contains(&code) && reason.iter().all(|b| matches!(b, b' '..=b'~'));
    fits.then(|| (code, String::from_utf8_lossy(reason).into_owned()))
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let wrong = || format!("field: {}", shown(line));
    let colon = line.iter().position(|&byte| byte == b':').ok_or_else(wrong)?;
    let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]));
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let visible = |b: &u8| (*b >= b' ' && *b != 0x7f) || *b == b'\t';
    if name.is_empty() || !name.iter().all(token) || !value.iter().all(visible) || value != value.trim_ascii() {
        return Err(wrong());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

/// Lines that end with CR LF, and no other CR or LF.
pub(super) fn split_crlf(text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    match lines.iter().find(|line| line.contains(&b'\r') || line.contains(&b'\n')) {
        Some(line) => Err(format!("bare CR or LF: {}", shown(line))),
        None => Ok(lines),
    }
}

/// What stands in a stream of answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those whose head is there; only the last one may be incomplete.
    pub all: Vec<Answer>,
    /// Bytes of a head, or interim answers, that stand after them and are not complete.
    pub rest: usize,
}

/// Reads a whole stream. `bodiless(n)` says whether the `n`th answer, from 0, is to a HEAD.
///
/// # Errors
/// What is wrong with it.
pub fn read(mut bytes: &[u8], bodiless: impl Fn(usize) -> bool) -> Result<Answers, String> {
    let mut reader = Reader::new();
    let mut all = Vec::new();
    loop {
        let n = reader.feed(bytes, bodiless(all.len()))?;
        bytes = &bytes[n..];
        let rest = reader.rest();
        all.extend(reader.take());
        if bytes.is_empty() {
            return Ok(Answers { all, rest });
        }
    }
}

/// Bytes for a message, shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    format!("{}{}", short.escape_ascii(), if short.len() < bytes.len() { ".." } else { "" })
}

/// Status, reason and body, for a message.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { status, reason, body, complete, .. } = self;
        let missing = if *complete { "" } else { ", incomplete" };
        write!(f, "{status} {reason}, a body of {} bytes{missing}: \"{}\"", body.len(), shown(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn one(head: &str, body: &str) -> Result<Answer, String> {
        let text = format!("{head}{DATE}\r\n{body}");
        let whole = read(text.as_bytes(), |_| false)?;
        // However it is cut, it is the same.
        let mut reader = Reader::new();
        for byte in text.as_bytes() {
            reader.feed(std::slice::from_ref(byte), false)?;
        }
        assert_eq!(reader.take().as_ref(), whole.all.first());
        Ok(whole.all[0].clone())
    }

    #[test]
    fn bodies_of_every_framing() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let answer = one(&format!("{ok}Content-Length: 3\r\n"), "abc").unwrap();
        assert_eq!((answer.body.as_slice(), answer.complete, answer.framed), (&b"abc"[..], true, 3));
        let chunks = "2\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n";
        let answer = one(&format!("{ok}Transfer-Encoding: chunked\r\n"), chunks).unwrap();
        assert_eq!((answer.body.as_slice(), answer.complete, answer.framed), (&b"abc"[..], true, 24));
        assert_eq!(answer.trailers, [("X".to_string(), b"y".to_vec())]);
        let answer = one(&format!("{ok}Connection: close\r\n"), "abc").unwrap();
        assert!(answer.until_close && answer.closes() && answer.body == b"abc");
        let answer = one(&format!("{ok}Content-Length: 4\r\n"), "abc").unwrap();
        assert!(!answer.complete);
        let answer = one(&format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{ok}Content-Length: 0\r\n"), "").unwrap();
        assert_eq!((answer.status, answer.interim.len()), (200, 1));
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for (head, body) in [
            ("HTTP/2 200 OK\r\n", ""),
            ("HTTP/1.1 20 OK\r\n", ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n", ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "a"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", "a"),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", ""),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "g\r\n"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "1\r\nab"),
            (ok, "a body without an end"),
        ] {
            assert!(one(head, body).is_err(), "{head}");
        }
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", |_| false).is_err(), "no Date");
        let closed = format!("{ok}{DATE}Connection: close\r\nContent-Length: 0\r\n\r\n{ok}");
        assert!(read(closed.as_bytes(), |_| false).is_err());
    }
}

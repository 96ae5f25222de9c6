//! A strict parser of responses: it accepts nothing that RFC 9112 does not permit a server to send, and reports the
//! position in the grammar. Whether a response is the right one is not checked here.

use std::fmt;

/// A final response, with the interim responses before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Whether the version is HTTP/1.1. An HTTP/1.0 response closes the connection, unless it declares otherwise.
    pub is_11: bool,
    /// The body as far as it has arrived, with chunks decoded.
    pub body: Vec<u8>,
    /// The trailer fields of a chunked body.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Whether the response is complete. A body that ends with the connection always counts as complete.
    pub complete: bool,
    /// Whether the body ends with the connection.
    pub until_close: bool,
    /// The interim responses (1xx) before it.
    pub interim: Vec<Interim>,
    /// The number of bytes after the head that belong to this response, including framing.
    pub framed: u64,
}

/// An interim response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interim {
    /// The status code.
    pub status: u16,
    /// The fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Answer {
    /// The first field with this name, ignoring case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The value of [`field`](Self::field) as text; empty if there is no such field.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.field(name).map_or("", |value| std::str::from_utf8(value).unwrap_or("?"))
    }

    /// Whether the connection closes after this response (RFC 9112 section 9.3).
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

/// Fields that must not be repeated in a response.
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

/// The position of the parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before or within a head.
    #[default]
    Head,
    /// Within a body of which this many bytes are missing.
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// After a 101: no more HTTP.
    Raw,
}

/// Parses responses incrementally, in any pieces.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    state: State,
    /// The incomplete head or line.
    line: Vec<u8>,
    /// The response whose head is complete.
    current: Option<Answer>,
    interim: Vec<Interim>,
    /// Whether the last complete response was the last one of the connection.
    ended: bool,
    /// Whether bodies are discarded.
    discards_bodies: bool,
}

impl Reader {
    /// Creates a parser.
    #[must_use]
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Creates a parser that discards bodies.
    #[must_use]
    pub fn without_bodies() -> Reader {
        Reader { discards_bodies: true, ..Reader::default() }
    }

    /// The response whose head is complete, and perhaps the body.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.current.as_ref()
    }

    /// Takes the response. The next bytes belong to another one.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = self.current.take()?;
        if self.state != State::Raw {
            self.state = State::Head;
            self.ended = answer.closes() || !answer.complete;
        }
        Some(answer)
    }

    /// The number of bytes of an incomplete head, or of interim responses without a final one.
    #[must_use]
    pub fn rest(&self) -> usize {
        match self.state {
            State::Head => self.line.len().max(self.interim.len()),
            _ => 0,
        }
    }

    /// Parses `bytes` up to the end of a response, and returns how many bytes were parsed. `bodiless`: the request was
    /// a HEAD.
    ///
    /// # Errors
    /// A description of the error.
    pub fn feed(&mut self, bytes: &[u8], bodiless: bool) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && !self.is_complete() {
            at += self.step(&bytes[at..], bodiless)?;
        }
        Ok(at)
    }

    /// Skips `len` bytes of a body whose contents are not known.
    ///
    /// # Errors
    /// If there are no `len` bytes of a body at this position.
    pub fn skip(&mut self, len: u64) -> Result<(), String> {
        let left = match &mut self.state {
            State::Length(left) | State::ChunkData(left) => left,
            State::UntilClose | State::Raw => &mut u64::MAX.clone(),
            state => return Err(format!("{len} bytes of a file, at {state:?}")),
        };
        let short = || format!("{len} bytes of a file, but the body only has {left} more");
        *left = left.checked_sub(len).ok_or_else(short)?;
        self.count_framed(len);
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
                let expected = b"\r\n"[self.line.len()];
                if bytes[0] != expected {
                    return Err(format!("no CR LF after a chunk: {}", shown(bytes)));
                }
                self.line.push(expected);
                if self.line.len() == 2 {
                    self.line.clear();
                    self.state = State::ChunkSize;
                }
                self.count_framed(1);
                Ok(1)
            }
            State::ChunkSize => {
                let n = self.line_until(bytes, b"\r\n");
                self.count_framed(n as u64);
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
                self.count_framed(n as u64);
                if let Some(line) = self.line.strip_suffix(b"\r\n") {
                    if line.is_empty() {
                        self.current_mut().complete = true;
                    } else {
                        let field = field(line)?;
                        self.current_mut().trailers.push(field);
                    }
                    self.line.clear();
                }
                Ok(n)
            }
        }
    }

    /// Moves bytes into `line`, up to and including `end`.
    fn line_until(&mut self, bytes: &[u8], end: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            self.line.push(byte);
            if self.line.ends_with(end) {
                return at + 1;
            }
        }
        bytes.len()
    }

    fn current_mut(&mut self) -> &mut Answer {
        self.current.as_mut().expect("a body has a head")
    }

    fn count_framed(&mut self, n: u64) {
        if let Some(answer) = &mut self.current {
            answer.framed += n;
        }
    }

    fn data(&mut self, bytes: &[u8], left: u64) -> usize {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.count_framed(n as u64);
        if !self.discards_bodies {
            self.current_mut().body.extend_from_slice(&bytes[..n]);
        }
        n
    }

    fn end_of_data(&mut self) {
        match self.state {
            State::Length(0) => self.current_mut().complete = true,
            State::ChunkData(0) => self.state = State::ChunkEnd,
            _ => {}
        }
    }

    fn head(&mut self, bytes: &[u8], bodiless: bool) -> Result<usize, String> {
        if self.ended {
            return Err(format!("bytes after a response that closes the connection: {}", shown(bytes)));
        }
        let n = self.line_until(bytes, b"\r\n\r\n");
        let start = b"HTTP/1.";
        let known = self.line.len().min(start.len());
        if self.line[..known] != start[..known] {
            return Err(format!("not a head: {}", shown(&self.line)));
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

/// The length of the body (RFC 9112 section 6.3).
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
            Err("a body without a length, but no Connection: close".into())
        };
    };
    let text = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let length = text.and_then(|text| text.parse().ok()).ok_or("Content-Length is not a number")?;
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
    // RFC 9110 section 8.6, RFC 9112 section 6.1: "A server MUST NOT send a Transfer-Encoding header field in any
    // response with a status code of 1xx (Informational) or 204 (No Content)."
    if (status < 200 || status == 204) && length + coding > 0 {
        return Err(format!("{status} with a length"));
    }
    if !answer.is_11 && coding > 0 {
        return Err("Transfer-Encoding in HTTP/1.0".into());
    }
    // RFC 9110 section 6.6.1: "An origin server with a clock MUST generate a Date header field in all 2xx (Successful),
    // 3xx (Redirection), and 4xx (Client Error) responses".
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

/// Splits at CR LF. Any other CR or LF is an error.
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

/// The responses in a byte stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The responses whose head is complete. Only the last one may be incomplete.
    pub all: Vec<Answer>,
    /// The number of bytes after them, of an incomplete head or of interim responses.
    pub rest: usize,
}

/// Parses a whole stream. `bodiless(n)` returns whether the `n`th response, from 0, is to a HEAD.
///
/// # Errors
/// A description of the error.
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

/// Formats bytes for a message, truncated.
pub(super) fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    format!("{}{}", short.escape_ascii(), if short.len() < bytes.len() { ".." } else { "" })
}

/// Formats status, reason and body for a message.
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
        // The result must not depend on how the bytes are split.
        let mut reader = Reader::new();
        for byte in text.as_bytes() {
            reader.feed(std::slice::from_ref(byte), false)?;
        }
        assert_eq!(reader.take().as_ref(), whole.all.first());
        Ok(whole.all[0].clone())
    }

    #[test]
    fn every_framing_is_parsed() {
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
    fn invalid_responses_are_refused() {
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

//! A strict reader of what a server sends: it takes nothing that RFC 9112 does not allow one to send,
//! and nothing that `docs/python.md` does not have.

/// One final answer, with the interim ones before it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub fields: Vec<(String, Vec<u8>)>,
    /// Of an HTTP/1.0 answer the connection ends, unless it says otherwise.
    pub is_11: bool,
    /// As it is framed: a chunked body decoded.
    pub body: Vec<u8>,
    /// All that was announced is there.
    pub complete: bool,
    /// The body ends with the connection.
    pub until_close: bool,
    /// `100 Continue`s before it.
    pub interim: usize,
    /// The bytes behind the head that are this answer's, framing and all.
    pub raw: u64,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    pub fn text(&self, name: &str) -> &str {
        self.field(name).map_or("", |value| std::str::from_utf8(value).unwrap_or("?"))
    }

    pub fn closes(&self) -> bool {
        let connection = self.field("Connection");
        connection == Some(b"close") || (!self.is_11 && connection != Some(b"keep-alive"))
    }
}

/// What stands in a stream of answers.
#[derive(Debug, Default)]
pub struct Stream {
    pub answers: Vec<Answer>,
    /// Bytes of a head, or of an interim answer, that is not complete.
    pub rest: usize,
}

/// Reads a stream. `bodiless(n)` says whether the `n`th answer is to a HEAD.
pub fn read(mut bytes: &[u8], bodiless: impl Fn(usize) -> bool) -> Result<Stream, String> {
    let mut stream = Stream::default();
    let mut interim = 0;
    while !bytes.is_empty() {
        if stream.answers.last().is_some_and(Answer::closes) {
            return Err(format!("bytes behind an answer that closes: {}", shown(bytes)));
        }
        let Some((mut answer, rest)) = head(bytes)? else {
            stream.rest = bytes.len();
            break;
        };
        bytes = rest;
        if answer.status == 100 {
            if !answer.fields.is_empty() {
                return Err("100 Continue with fields".into());
            }
            interim += 1;
            continue;
        }
        answer.interim = std::mem::take(&mut interim);
        let rest = body(&mut answer, bytes, bodiless(stream.answers.len()))?;
        answer.raw = (bytes.len() - rest.len()) as u64;
        bytes = rest;
        stream.answers.push(answer);
    }
    if interim > 0 {
        stream.rest = stream.rest.max(1);
    }
    Ok(stream)
}

/// The head; `None` if it is not complete.
fn head(bytes: &[u8]) -> Result<Option<(Answer, &[u8])>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        let start = b"HTTP/1.";
        let n = bytes.len().min(start.len());
        return if bytes[..n] == start[..n] { Ok(None) } else { Err(format!("no head: {}", shown(bytes))) };
    };
    let text = &bytes[..end];
    let mut lines = split_crlf(text)?.into_iter();
    let line = lines.next().unwrap_or_default();
    let (status, reason) = status_line(line).ok_or_else(|| format!("status line: {}", shown(line)))?;
    let mut fields = Vec::new();
    for line in lines {
        let wrong = || format!("field: {}", shown(line));
        let colon = line.iter().position(|&byte| byte == b':').ok_or_else(wrong)?;
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").ok_or_else(wrong)?);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let visible = |b: u8| b >= b' ' && b != 0x7f;
        if name.is_empty() || !name.iter().all(|&b| token(b)) || !value.iter().all(|&b| visible(b)) {
            return Err(wrong());
        }
        if value.is_empty() || value != value.trim_ascii() {
            return Err(wrong());
        }
        fields.push((String::from_utf8(name.to_vec()).expect("tokens are ASCII"), value.to_vec()));
    }
    let answer = Answer {
        status,
        reason,
        fields,
        is_11: line.starts_with(b"HTTP/1.1"),
        body: Vec::new(),
        complete: false,
        until_close: false,
        interim: 0,
        raw: 0,
    };
    check_fields(&answer)?;
    Ok(Some((answer, &bytes[end + 4..])))
}

fn status_line(line: &[u8]) -> Option<(u16, String)> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (code, reason) = (rest.get(..3)?, rest.get(3..)?.strip_prefix(b" ")?);
    let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    let fits = (100..600).contains(&code) && reason.iter().all(|b| matches!(b, b' '..=b'~'));
    fits.then(|| (code, String::from_utf8_lossy(reason).into_owned()))
}

/// Lines that end with CR LF, and no other CR or LF.
fn split_crlf(text: &[u8]) -> Result<Vec<&[u8]>, String> {
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

fn check_fields(answer: &Answer) -> Result<(), String> {
    let count = |name: &str| answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    if answer.status == 100 {
        return Ok(());
    }
    for once in ["Server", "Date"] {
        if count(once) != 1 {
            return Err(format!("{once} {} times", count(once)));
        }
    }
    for (name, _) in &answer.fields {
        if count(name) != 1 {
            return Err(format!("{name} {} times", count(name)));
        }
    }
    if count("Content-Length") > 0 && count("Transfer-Encoding") > 0 {
        return Err("Content-Length with Transfer-Encoding".into());
    }
    // No content, and so no length, for these.
    if matches!(answer.status, 204 | 304) && (count("Content-Length") > 0 || count("Transfer-Encoding") > 0) {
        return Err(format!("{} with a length", answer.status));
    }
    let due: &[&str] = match answer.status {
        301 => &["Location"],
        206 | 416 if !answer.text("Content-Type").starts_with("multipart/") => &["Content-Range"],
        405 => &["Allow"],
        _ => &[],
    };
    match due.iter().find(|name| count(name) == 0) {
        Some(name) => Err(format!("{} without {name}", answer.status)),
        None => Ok(()),
    }
}

fn body<'b>(answer: &mut Answer, bytes: &'b [u8], bodiless: bool) -> Result<&'b [u8], String> {
    if bodiless || matches!(answer.status, 204 | 205 | 304) {
        answer.complete = true;
        return Ok(bytes);
    }
    if let Some(value) = answer.field("Transfer-Encoding") {
        if value != b"chunked" {
            return Err(format!("coding {}", shown(value)));
        }
        return chunked(answer, bytes);
    }
    let Some(length) = answer.field("Content-Length") else {
        if !answer.closes() {
            return Err("a body without length, and no Connection: close".into());
        }
        answer.until_close = true;
        answer.complete = true;
        answer.body = bytes.to_vec();
        return Ok(&[]);
    };
    let text = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let length: usize = text.and_then(|text| text.parse().ok()).ok_or("Content-Length is no number")?;
    let there = length.min(bytes.len());
    answer.body = bytes[..there].to_vec();
    answer.complete = there == length;
    Ok(&bytes[there..])
}

fn chunked<'b>(answer: &mut Answer, mut bytes: &'b [u8]) -> Result<&'b [u8], String> {
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            let plausible = bytes.iter().all(|b| b.is_ascii_hexdigit() || *b == b'\r') && bytes.len() < 18;
            return if plausible { Ok(&bytes[bytes.len()..]) } else { Err(format!("chunk: {}", shown(bytes))) };
        };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("chunk size: {}", shown(&bytes[..end])))?;
        let data = &bytes[end + 2..];
        let there = size.min(data.len());
        answer.body.extend_from_slice(&data[..there]);
        let behind = &data[there..];
        if there < size || behind.len() < 2 {
            let whole = there == size && !b"\r\n".starts_with(behind);
            return if whole { Err("no CR LF behind a chunk".into()) } else { Ok(&[]) };
        }
        bytes = behind.strip_prefix(b"\r\n").ok_or("no CR LF behind a chunk")?;
        if size == 0 {
            answer.complete = true;
            return Ok(bytes);
        }
    }
}

/// The parts of a `multipart/byteranges` answer: first, last, length of the whole, bytes.
pub type Part = (u64, u64, u64, Vec<u8>);

/// Reads a 206, single or multipart, into its parts.
pub fn parts(answer: &Answer) -> Result<Vec<Part>, String> {
    let kind = answer.text("Content-type");
    let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") else {
        let (first, last, len) = content_range(answer.text("Content-Range"))?;
        return Ok(vec![(first, last, len, answer.body.clone())]);
    };
    if answer.field("Content-Range").is_some() {
        return Err("multipart with Content-Range".into());
    }
    let mut parts = Vec::new();
    let mut rest = answer.body.as_slice();
    let (open, close) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    while rest != close.as_bytes() {
        rest = rest.strip_prefix(open.as_bytes()).ok_or_else(|| format!("no boundary: {}", shown(rest)))?;
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").ok_or("a part without head")?;
        let lines = split_crlf(&rest[..end])?;
        let range = lines.iter().find_map(|line| line.strip_prefix(b"Content-Range: ")).ok_or("no Content-Range")?;
        if !lines.iter().any(|line| line.starts_with(b"Content-Type: ")) || lines.len() != 2 {
            return Err("the fields of a part".into());
        }
        let (first, last, len) = content_range(&String::from_utf8_lossy(range))?;
        let size = usize::try_from(last - first + 1).map_err(|_| "a part too large")?;
        let data = rest.get(end + 4..end + 4 + size).ok_or("a part too short")?;
        parts.push((first, last, len, data.to_vec()));
        rest = &rest[end + 4 + size..];
    }
    Ok(parts)
}

fn content_range(text: &str) -> Result<(u64, u64, u64), String> {
    let read = || {
        let (range, len) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, len) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
        (first <= last && last < len).then_some((first, last, len))
    };
    read().ok_or_else(|| format!("Content-Range: {text}"))
}

/// Bytes for a message, shortened.
pub fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    format!("{}{}", short.escape_ascii(), if short.len() < bytes.len() { ".." } else { "" })
}

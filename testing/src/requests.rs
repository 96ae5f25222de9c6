//! A second parser of requests, written from RFC 9112 and independent of the core: it finds where each request begins
//! and ends. It only understands plain requests. At anything that could be refused it gives up (`is_odd`), and the
//! judge checks less from there on. All other requests are well-formed and within the limits, so they must not be
//! refused.

use std::collections::VecDeque;

use sanserve_core::Limits;

/// The relevant properties of a request whose head is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_head: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// The length of the trailers so far.
    Trailers(usize),
    /// The connection closes after the last request: nothing more is read as one.
    Ended,
    Odd,
}

/// Parses what a client sends, in any pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    limits: Limits,
    state: State,
    /// The total size of the chunks of the last body.
    chunks: u64,
    /// The incomplete head or line.
    line: Vec<u8>,
    /// The number of empty lines before a head.
    blank: u64,
    /// Whether the connection closes after the last request.
    ends: bool,
    /// The number of bytes after the last head, including framing.
    pub(super) after_head: u64,
    /// The number of complete heads.
    pub(super) heads: u64,
    /// The requests that are not finished, in order.
    asked: VecDeque<Asked>,
}

impl Requests {
    pub(super) fn within(limits: &Limits) -> Requests {
        Requests { limits: limits.clone(), ..Requests::default() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let [byte, after_head @ ..] = rest {
            match &mut self.state {
                State::Ended | State::Odd => return,
                State::Length(left) | State::ChunkData(left) => {
                    let n = (rest.len() as u64).min(*left);
                    *left -= n;
                    self.after_head += n;
                    rest = &rest[usize::try_from(n).expect("no more than there is")..];
                    match self.state {
                        State::Length(0) => self.end(),
                        State::ChunkData(0) => self.state = State::ChunkEnd,
                        _ => {}
                    }
                }
                _ => {
                    rest = after_head;
                    self.line.push(*byte);
                    self.after_head += 1;
                    self.process_line();
                }
            }
        }
    }

    /// The oldest request that is not finished.
    pub(super) fn first(&self) -> Option<&Asked> {
        self.asked.front()
    }

    /// Whether the request in progress, or the one whose head is arriving, is a HEAD.
    pub(super) fn is_head(&self) -> bool {
        self.first().map_or(self.line.starts_with(b"HEAD "), |asked| asked.is_head)
    }

    /// Removes the oldest request.
    pub(super) fn finish(&mut self) {
        self.asked.pop_front();
    }

    /// The number of requests with a complete head that are not finished.
    pub(super) fn in_progress(&self) -> usize {
        self.asked.len()
    }

    /// Whether the oldest request is incomplete.
    pub(super) fn is_body_open(&self) -> bool {
        let in_body = matches!(
            self.state,
            State::Length(_) | State::ChunkSize | State::ChunkData(_) | State::ChunkEnd | State::Trailers(_)
        );
        in_body && self.asked.len() <= 1
    }

    /// Whether a part of a head has arrived.
    pub(super) fn is_partial(&self) -> bool {
        self.state == State::Head && (!self.line.is_empty() || self.blank > 0)
    }

    /// Whether everything that has arrived of the oldest request is certainly well-formed and within the limits: its
    /// head is complete, and no line of its body is incomplete.
    pub(super) fn is_valid(&self) -> bool {
        !self.asked.is_empty()
            && !self.is_odd()
            && (self.asked.len() > 1 || self.line.is_empty() || !self.is_body_open())
    }

    /// Whether it is uncertain what the client requests.
    pub(super) fn is_odd(&self) -> bool {
        self.state == State::Odd
    }

    /// Whether the client has declared that nothing follows its last request.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Processes the current line, which has grown by a byte.
    fn process_line(&mut self) {
        if self.is_too_long() {
            self.state = State::Odd;
        }
        if !self.line.ends_with(b"\n") {
            return;
        }
        match self.state {
            State::Head if self.line == b"\r\n" => {
                self.line.clear();
                self.blank += 1;
                if self.blank > self.limits.blank_lines as u64 {
                    self.state = State::Odd;
                }
            }
            State::Head if self.line.ends_with(b"\r\n\r\n") => {
                let line = std::mem::take(&mut self.line);
                match head(&line[..line.len() - 4], &self.limits) {
                    Some(head) => {
                        self.heads += 1;
                        (self.blank, self.after_head) = (0, 0);
                        self.chunks = 0;
                        self.ends = head.ends;
                        self.asked.push_back(Asked { is_head: head.is_head });
                        self.state = head.state;
                        if self.state == State::Length(0) {
                            self.end();
                        }
                    }
                    None => {
                        // The beginning of the line is still needed.
                        self.line = line;
                        self.state = State::Odd;
                    }
                }
            }
            State::Head if !self.line.ends_with(b"\r\n") => self.state = State::Odd,
            State::ChunkSize => {
                let size = self.line.strip_suffix(b"\r\n").and_then(chunk_size);
                self.state = match size {
                    Some(0) => State::Trailers(0),
                    Some(size) if self.chunks.saturating_add(size) <= self.limits.body => State::ChunkData(size),
                    _ => State::Odd,
                };
                self.chunks = self.chunks.saturating_add(size.unwrap_or(0));
                self.line.clear();
            }
            State::ChunkEnd => {
                self.state = if self.line == b"\r\n" { State::ChunkSize } else { State::Odd };
                self.line.clear();
            }
            State::Trailers(before) => {
                let line = std::mem::take(&mut self.line);
                self.state = State::Trailers(before + line.len());
                match line.strip_suffix(b"\r\n") {
                    Some(b"") => self.end(),
                    Some(line) if field(line).is_some() => {}
                    _ => self.state = State::Odd,
                }
            }
            _ => {}
        }
    }

    /// Whether an incomplete head or line may be refused for its length.
    fn is_too_long(&self) -> bool {
        let len = self.line.len();
        match self.state {
            State::Head => len > self.limits.head,
            State::ChunkSize => len > self.limits.chunk_line,
            State::Trailers(before) => before + len > self.limits.trailers,
            _ => false,
        }
    }

    fn end(&mut self) {
        self.state = if self.ends { State::Ended } else { State::Head };
    }
}

struct Head {
    is_head: bool,
    ends: bool,
    state: State,
}

/// Returns `None` if the head may be refused.
fn head(text: &[u8], limits: &Limits) -> Option<Head> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.split("\r\n");
    if lines.clone().skip(1).count() > limits.fields
        || lines.clone().skip(1).any(|line| line.len() + 2 > limits.field_line)
    {
        return None;
    }
    let mut words = lines.next().filter(|line| line.len() + 2 <= limits.request_line)?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let plain = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase()) && target.starts_with('/');
    if words.next().is_some() || !plain || target.bytes().any(|b| b <= b' ' || b >= 0x7f) {
        return None;
    }
    let is_11 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let (mut state, mut ends, mut hosts) = (State::Length(0), !is_11, 0);
    for line in lines {
        let (name, value) = field(line.as_bytes())?;
        match name.to_ascii_lowercase().as_slice() {
            b"host" if is_plain_host(value) => hosts += 1,
            b"host" => return None,
            b"content-length" | b"transfer-encoding" if state != State::Length(0) => return None,
            b"content-length" if value.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(value).ok()?.parse().ok()?;
                state = Some(State::Length(length)).filter(|_| length <= limits.body)?;
            }
            b"transfer-encoding" if is_11 && value.eq_ignore_ascii_case(b"chunked") => state = State::ChunkSize,
            b"content-length" | b"transfer-encoding" | b"upgrade" => return None,
            b"connection" if value.eq_ignore_ascii_case(b"close") => ends = true,
            b"connection" if value.eq_ignore_ascii_case(b"keep-alive") => ends = false,
            b"connection" => return None,
            _ => {}
        }
    }
    let hosts_fit = hosts == 1 || (hosts == 0 && !is_11);
    hosts_fit.then_some(Head { is_head: method == "HEAD", ends, state })
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let visible = |b: &u8| (b' '..0x7f).contains(b);
    (!name.is_empty() && name.iter().all(is_token_byte) && value.iter().all(visible)).then_some((name, value))
}

fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// A name or an address, with an optional port.
fn is_plain_host(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |&byte| byte == b':');
    let name = parts.next().unwrap_or_default();
    let is_port = |port: &[u8]| !port.is_empty() && port.len() < 6 && port.iter().all(u8::is_ascii_digit);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
    !name.is_empty() && name.iter().all(plain) && parts.next().is_none_or(is_port)
}

/// The size in a line whose extensions are `;name` or `;name=token` (RFC 9112 section 7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let mut parts = line.split(|&byte| byte == b';');
    let size = parts.next()?;
    let fits = !size.is_empty() && size.len() <= 15 && size.iter().all(u8::is_ascii_hexdigit);
    let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(is_token_byte);
    let plain = parts.all(|part| part.splitn(2, |&byte| byte == b'=').all(is_token));
    u64::from_str_radix(std::str::from_utf8(size).ok().filter(|_| fits && plain)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_requests_are_found() {
        let text = "\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
                    HEAD /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\nGET";
        for piece in [1, 7, 1_000] {
            let mut requests = Requests::default();
            text.as_bytes().chunks(piece).for_each(|bytes| requests.feed(bytes));
            assert_eq!((requests.heads, requests.is_partial(), requests.is_odd()), (3, true, false), "{piece}");
            assert!(!requests.is_body_open() && !requests.first().unwrap().is_head);
            requests.finish();
            requests.finish();
            assert!(requests.is_head());
        }
    }

    #[test]
    fn unusual_requests_are_odd() {
        for text in [
            "GET /a HTTP/1.1\nHost: x\n\n",
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "get /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x y\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\na\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\r\na\r\n",
        ] {
            let mut requests = Requests::default();
            requests.feed(text.as_bytes());
            assert!(requests.is_odd(), "{text}");
        }
    }

    /// Requests beyond a limit may be refused.
    #[test]
    fn requests_beyond_the_limits_are_odd() {
        let limits = Limits::default()
            .with_request_line(40)
            .with_field_line(40)
            .with_fields(3)
            .with_head(200)
            .with_blank_lines(2)
            .with_chunk_line(20)
            .with_trailers(30)
            .with_body(10);
        let chunked = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (text, odd) in [
            ("\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n".into(), false),
            ("\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n".into(), true),
            (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(50)), true),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(50)), true),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nA: b\r\n\r\n".into(), false),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nA: b\r\nA: b\r\n\r\n".into(), true),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".into(), false),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n".into(), true),
            (format!("{chunked}5;a=b;c\r\nhello\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"), false),
            (format!("{chunked}5\r\nhello\r\n6\r\n"), true),
            (format!("{chunked}5;{}\r\n", "a".repeat(20)), true),
            (format!("{chunked}0\r\nA: {}\r\n", "b".repeat(30)), true),
        ] {
            let mut requests = Requests::within(&limits);
            requests.feed(text.as_bytes());
            assert_eq!(requests.is_odd(), odd, "{text}");
        }
    }
}

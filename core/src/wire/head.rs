//! Request heads: a scan finds the end and looks at each byte once, then the head is parsed once, into spans. What a
//! field means is decided in `framing` and by the users of [`Head`].

use httparse::{EMPTY_HEADER, Header, Status as Parsed};

use crate::config::Limits;
use crate::error::Violation;
use crate::grammar::{is_host, is_token_byte};
use crate::tables::byte_table;

/// The progress of the search for the end of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where the current line begins.
    line: u32,
    /// The current line has no line end before this position.
    at: u32,
    /// The number of complete lines, including the request line.
    lines: u16,
    /// The number of empty lines that were skipped before the request line.
    blank: u8,
    /// Whether the request line was checked before the head was complete.
    line_checked: bool,
}

impl Scan {
    /// Whether no byte of the head has been examined.
    pub(crate) fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Searches for the end of the head at the beginning of `bytes`. Returns its length, or `None` if more bytes are
    /// needed. The caller has to skip empty lines first, see [`Scan::blank_line`].
    ///
    /// The result does not depend on how the bytes arrive: each violation is reported at the byte that makes it
    /// certain, and nothing after that byte is examined.
    #[inline(always)]
    pub(crate) fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Violation> {
        let bytes = &bytes[..bytes.len().min(limits.head.saturating_add(1))];
        let from = self.at as usize;
        for found in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let lf = from + found;
            let line = self.line as usize;
            let next = lf + 1;
            self.check_line(next - line, limits)?;
            if lf == line || bytes[lf - 1] != b'\r' {
                return Err(Violation::BareLf);
            }
            if next > limits.head {
                return Err(Violation::HeadTooLarge);
            }
            if lf - line == 1 {
                return Ok(Some(next));
            }
            self.lines += 1;
            if usize::from(self.lines) > limits.fields.saturating_add(1) {
                return Err(Violation::TooManyFields);
            }
            self.line = span_index(next);
        }
        self.at = span_index(bytes.len());
        self.check_line(bytes.len() - self.line as usize, limits)?;
        if bytes.len() > limits.head { Err(Violation::HeadTooLarge) } else { Ok(None) }
    }

    /// Whether `bytes` begins with an empty line.
    /// RFC 9112 section 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
    /// empty line (CRLF) received prior to the request-line."
    pub(crate) fn blank_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Violation> {
        match bytes {
            [b'\r', b'\n', ..] if usize::from(self.blank) < limits.blank_lines => {
                // The search starts again after it.
                *self = Scan { blank: self.blank + 1, ..Scan::default() };
                Ok(true)
            }
            [b'\r', b'\n', ..] => Err(Violation::BlankLines),
            [b'\r', _, ..] => Err(Violation::BareCr),
            _ => Ok(false),
        }
    }

    /// Whether the request line has become complete. Returns true only once.
    pub(crate) fn line_is_new(&mut self) -> bool {
        self.lines > 0 && !std::mem::replace(&mut self.line_checked, true)
    }

    fn check_line(&self, len: usize, limits: &Limits) -> Result<(), Violation> {
        match self.lines {
            0 if len > limits.request_line => Err(Violation::LineTooLong),
            1.. if len > limits.field_line => Err(Violation::FieldLineTooLong),
            _ => Ok(()),
        }
    }
}

/// A part of a head, as a range of positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The positions fit `u32`: [`Scan`] and [`Head::parse`] refuse a head of 4 GiB or more.
    pub(crate) fn new(start: usize, end: usize) -> Span {
        debug_assert!(u32::try_from(start.max(end)).is_ok());
        Span { start: start as u32, end: end as u32 }
    }

    /// The span of `part`, which is a part of `whole`.
    fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Span::new(start, start + part.len())
    }

    pub(crate) fn end(&self) -> usize {
        self.end as usize
    }

    pub(crate) fn of_bytes<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

fn span_index(at: usize) -> u32 {
    u32::try_from(at).expect("heads are far smaller than 4 GiB")
}

/// The methods that are treated specially.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Options,
    Trace,
    Connect,
    #[default]
    Other,
}

/// The four forms of a target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/path?query`
    #[default]
    Origin,
    /// `scheme://authority/path?query`; `path` is where the path begins.
    Absolute { authority: Span, path: u32 },
    /// `*`
    Asterisk,
    /// `host:port`, only with CONNECT.
    Authority,
}

/// The fields that affect framing, policy or files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Known {
    #[default]
    None,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Expect,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfRange,
    Range,
}

impl Known {
    fn of(name: &[u8]) -> Known {
        let (text, known) = match name.len() {
            4 if name == b"Host" => return Known::Host,
            4 => ("host", Known::Host),
            5 => ("range", Known::Range),
            6 => ("expect", Known::Expect),
            8 if name[3].eq_ignore_ascii_case(&b'm') => ("if-match", Known::IfMatch),
            8 => ("if-range", Known::IfRange),
            10 => ("connection", Known::Connection),
            13 => ("if-none-match", Known::IfNoneMatch),
            14 => ("content-length", Known::ContentLength),
            17 if name[0].eq_ignore_ascii_case(&b'i') => ("if-modified-since", Known::IfModifiedSince),
            17 => ("transfer-encoding", Known::TransferEncoding),
            19 => ("if-unmodified-since", Known::IfUnmodifiedSince),
            _ => return Known::None,
        };
        // Most names of the same length differ in their first letter.
        let may_be = name[0].eq_ignore_ascii_case(&text.as_bytes()[0]);
        if may_be && name.eq_ignore_ascii_case(text.as_bytes()) { known } else { Known::None }
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    known: Known,
}

/// A parsed head: spans into the bytes that it was parsed from, or into a copy of them.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// The request line without its line end.
    pub(crate) line: Span,
    pub(crate) method_name: Span,
    pub(crate) method: Method,
    pub(crate) target_text: Span,
    pub(crate) target: Target,
    /// Where the path ends in the target: at a `?` or a `#`, or at the end.
    pub(crate) path_end: u32,
    pub(crate) version: Span,
    /// Whether the request is HTTP/1.1 or later; otherwise, it is HTTP/1.0.
    pub(crate) is_11: bool,
    pub(crate) fields: Vec<Field>,
    /// The set of known fields that are present, one bit each.
    present: u16,
}

impl Head {
    /// Clears the head, but keeps its memory.
    pub(crate) fn clear(&mut self) {
        let fields = std::mem::take(&mut self.fields);
        *self = Head { fields, ..Head::default() };
        self.fields.clear();
    }

    /// Parses the head at the beginning of `bytes` in one pass, and returns its length. `None` if it is incomplete,
    /// exceeds a limit, or is unusual: then [`Scan::find_end`] and [`parse`](Self::parse) must be used, which give the
    /// same result for other heads.
    pub(crate) fn parse_at_once(&mut self, bytes: &[u8], limits: &Limits) -> Option<usize> {
        span_index(bytes.len());
        let from = self.parse_plain_line(bytes)?;
        self.fields.clear();
        self.present = 0;
        let Ok(Parsed::Complete(used)) = self.parse_few_fields(bytes, from) else { return None };
        let len = from + used;
        let is_within = len <= limits.head.min(limits.request_line).min(limits.field_line);
        // httparse also accepts LF alone as the end of a line.
        let ends_line = |field: &Field| bytes[..field.name.start as usize].ends_with(b"\r\n");
        (is_within
            && self.fields.len() <= limits.fields
            && self.fields.iter().all(ends_line)
            && bytes[..len].ends_with(b"\r\n\r\n"))
        .then_some(len)
    }

    /// Parses a complete head. After an error, the request line is available as far as it was parsed.
    pub(crate) fn parse(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        span_index(bytes.len());
        self.fields.clear();
        self.present = 0;
        let line_end = self.parse_line(bytes)?;
        self.parse_fields(bytes, line_end)
    }

    /// Parses only the request line; returns where the field lines begin.
    pub(crate) fn parse_line(&mut self, bytes: &[u8]) -> Result<usize, HeadError> {
        match self.parse_plain_line(bytes) {
            Some(from) => Ok(from),
            None => self.parse_any_line(bytes),
        }
    }

    fn parse_any_line(&mut self, bytes: &[u8]) -> Result<usize, HeadError> {
        let lf = memchr::memchr(b'\n', bytes).expect("the scan has found a line end");
        let line = &bytes[..lf - 1];
        self.line = Span::of(line, bytes);
        // Fields that are not reached must not keep values of another line.
        let fields = std::mem::take(&mut self.fields);
        *self = Head { line: self.line, present: self.present, fields, ..Head::default() };
        let refused = |violation, text| HeadError { violation, text: Span::of(text, bytes) };

        // RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version"
        let words = line.split(|&byte| byte == b' ').count();
        let malformed = refused(Violation::MalformedLine, line);
        if words < 3 {
            return Err(malformed);
        }
        let first = memchr::memchr(b' ', line).expect("three words have two spaces");
        let last = memchr::memrchr(b' ', line).expect("three words have two spaces");
        let (method, target, version) = (&line[..first], &line[first + 1..last.max(first + 1)], &line[last + 1..]);
        self.method_name = Span::of(method, bytes);
        self.target_text = Span::of(target, bytes);
        self.version = Span::of(version, bytes);
        self.is_11 = parse_version(version).map_err(|violation| {
            let number = if violation == Violation::UnsupportedVersion { &version[5..] } else { version };
            refused(violation, number)
        })?;
        if words != 3 || method.is_empty() || !method.iter().copied().all(is_token_byte) || target.is_empty() {
            return Err(malformed);
        }
        if target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(malformed);
        }
        self.method = match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        self.target = parse_target(target, self.method, bytes).ok_or(refused(Violation::MalformedTarget, target))?;
        self.path_end = span_index(memchr::memchr2(b'?', b'#', target).unwrap_or(target.len()));
        Ok(lf + 1)
    }

    /// Parses the most common form of a request line: a usual method, a path, HTTP/1.1. The general code would find the
    /// same, but takes longer. Returns where the field lines begin.
    #[inline(always)]
    fn parse_plain_line(&mut self, bytes: &[u8]) -> Option<usize> {
        const AFTER: &[u8] = b" HTTP/1.1\r\n";
        let (start, method) = match bytes {
            [b'G', b'E', b'T', b' ', b'/', ..] => (4, Method::Get),
            [b'H', b'E', b'A', b'D', b' ', b'/', ..] => (5, Method::Head),
            [b'P', b'O', b'S', b'T', b' ', b'/', ..] => (5, Method::Post),
            _ => return None,
        };
        let mut found = 0;
        let is_after_target = |&byte: &u8| {
            found |= TARGET_BYTES[usize::from(byte)];
            found & FORBIDDEN != 0
        };
        let end = start + bytes[start..].iter().position(is_after_target)?;
        if !bytes[end..].starts_with(AFTER) {
            return None;
        }
        let target = &bytes[start..end];
        let path_end = if found & ENDS_PATH == 0 { None } else { memchr::memchr2(b'?', b'#', target) };
        let line_end = end + AFTER.len() - 2;
        self.line = Span::new(0, line_end);
        self.path_end = span_index(path_end.unwrap_or(target.len()));
        self.method = method;
        self.method_name = Span::new(0, start - 1);
        self.target = Target::Origin;
        self.target_text = Span::new(start, end);
        self.version = Span::new(end + 1, line_end);
        self.is_11 = true;
        Some(line_end + 2)
    }

    fn parse_fields(&mut self, bytes: &[u8], from: usize) -> Result<(), HeadError> {
        let parsed = match self.parse_few_fields(bytes, from) {
            Err(httparse::Error::TooManyHeaders) => {
                let lines = memchr::memchr_iter(b'\n', &bytes[from..]).count();
                self.parse_fields_into(&mut vec![EMPTY_HEADER; lines], bytes, from)
            }
            parsed => parsed,
        };
        match parsed {
            Ok(Parsed::Complete(used)) if from + used == bytes.len() => Ok(()),
            _ => Err(diagnose(bytes, from)),
        }
    }

    /// Most heads have few fields, and initializing room for many would cost more than it saves.
    #[inline(always)]
    fn parse_few_fields(&mut self, bytes: &[u8], from: usize) -> httparse::Result<usize> {
        match bytes.len() - from {
            0..=128 => self.parse_fields_into(&mut [EMPTY_HEADER; 6], bytes, from),
            129..=1024 => self.parse_fields_into(&mut [EMPTY_HEADER; 24], bytes, from),
            _ => self.parse_fields_into(&mut [EMPTY_HEADER; 104], bytes, from),
        }
    }

    fn parse_fields_into<'b>(
        &mut self,
        room: &mut [Header<'b>],
        bytes: &'b [u8],
        from: usize,
    ) -> httparse::Result<usize> {
        let Parsed::Complete((used, fields)) = httparse::parse_headers(&bytes[from..], room)? else {
            return Ok(Parsed::Partial);
        };
        for field in fields {
            let known = Known::of(field.name.as_bytes());
            self.present |= 1 << known as u8;
            // An empty slice may point anywhere.
            let value = if field.value.is_empty() { Span::default() } else { Span::of(field.value, bytes) };
            self.fields.push(Field { name: Span::of(field.name.as_bytes(), bytes), value, known });
        }
        Ok(Parsed::Complete(used))
    }

    /// Whether a field is present.
    pub(crate) fn has(&self, known: Known) -> bool {
        self.present & (1 << known as u8) != 0
    }

    /// Whether any of these fields is present.
    pub(crate) fn has_any<const N: usize>(&self, known: [Known; N]) -> bool {
        self.present & known.iter().fold(0, |bits, &known| bits | 1 << known as u8) != 0
    }

    /// The values of a field, in order.
    pub(crate) fn values<'h>(&'h self, known: Known, bytes: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
        let fields = if self.has(known) { self.fields.as_slice() } else { &[] };
        fields.iter().filter(move |field| field.known == known).map(|field| field.value.of_bytes(bytes))
    }

    /// The value of a field that occurs exactly once.
    pub(crate) fn single<'h>(&'h self, known: Known, bytes: &'h [u8]) -> Option<&'h [u8]> {
        let mut values = self.values(known, bytes);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    pub(crate) fn shrink(&mut self) {
        self.fields.shrink_to(32);
    }
}

impl Clone for Head {
    fn clone(&self) -> Head {
        Head { fields: self.fields.clone(), ..*self }
    }

    /// Keeps the memory of the fields.
    fn clone_from(&mut self, other: &Head) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clone_from(&other.fields);
        *self = Head { fields, ..*other };
    }
}

/// Properties of a byte in a target: it is not permitted, or it ends the path.
const FORBIDDEN: u8 = 1;
const ENDS_PATH: u8 = 2;
static TARGET_BYTES: [u8; 256] = byte_table!(byte => match byte {
    0..=b' ' | 0x7f => FORBIDDEN,
    b'?' | b'#' => ENDS_PATH,
    _ => 0,
});

/// Why a head was refused, and the text that the message quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadError {
    pub(crate) violation: Violation,
    pub(crate) text: Span,
}

/// Returns true for 1.1 or later, and false for 1.0.
fn parse_version(version: &[u8]) -> Result<bool, Violation> {
    let number = version.strip_prefix(b"HTTP/").ok_or(Violation::MalformedVersion)?;
    match number {
        [b'1', b'.', b'0'] => return Ok(false),
        // RFC 9110 section 2.5: a request with a higher minor version is processed as the highest supported minor
        // version.
        [b'1', b'.', b'1'..=b'9'] => return Ok(true),
        _ => {}
    }
    let mut parts = number.split(|&byte| byte == b'.');
    let is_number =
        |part: Option<&[u8]>| part.is_some_and(|p| (1..=10).contains(&p.len()) && p.iter().all(u8::is_ascii_digit));
    let major = parts.next();
    if !is_number(major) || !is_number(parts.next()) || parts.next().is_some() {
        return Err(Violation::MalformedVersion);
    }
    let major = major.unwrap_or_default();
    let significant = major.iter().position(|&digit| digit != b'0').map_or(&[][..], |at| &major[at..]);
    match significant {
        [] | [b'1'] => Err(Violation::MalformedVersion),
        _ => Err(Violation::UnsupportedVersion),
    }
}

fn parse_target(target: &[u8], method: Method, bytes: &[u8]) -> Option<Target> {
    if method == Method::Connect {
        return Some(Target::Authority);
    }
    match target {
        [b'/', ..] => return Some(Target::Origin),
        b"*" => return (method == Method::Options).then_some(Target::Asterisk),
        _ => {}
    }
    let colon = memchr::memmem::find(target, b"://")?;
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = &target[colon + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    // RFC 9110 section 4.2.1: an empty host is invalid. Section 4.2.4: userinfo should be treated as an error.
    if !is_host(authority) || authority.is_empty() || authority.starts_with(b":") {
        return None;
    }
    Some(Target::Absolute { authority: Span::of(authority, bytes), path: span_index(colon + 3 + end) })
}

/// Finds out what is wrong with field lines that httparse has refused.
fn diagnose(bytes: &[u8], from: usize) -> HeadError {
    let refused = |violation, line| HeadError { violation, text: Span::of(line, bytes) };
    for line in bytes[from..].split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let [b' ' | b'\t', ..] = line {
            return refused(Violation::ObsFold, line);
        }
        if line.is_empty() {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { return refused(Violation::MalformedField, line) };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if let [name @ .., b' ' | b'\t'] = name {
            if name.trim_ascii_end().iter().copied().all(is_token_byte) {
                return refused(Violation::SpaceBeforeColon, line);
            }
        }
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return refused(Violation::MalformedField, line);
        }
        if value.contains(&b'\r') {
            return refused(Violation::BareCr, line);
        }
        if value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return refused(Violation::MalformedValue, line);
        }
    }
    refused(Violation::MalformedField, &bytes[from..from])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Head, Violation> {
        let limits = Limits::default();
        let mut scan = Scan::default();
        let end = scan.find_end(bytes, &limits)?.expect("complete");
        let mut head = Head::default();
        head.parse(&bytes[..end]).map_err(|refused| refused.violation)?;
        Ok(head)
    }

    #[test]
    fn a_head_is_parsed_into_spans() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost:  x \r\nif-none-MATCH: *\r\nEmpty:\r\n\r\n";
        let head = parse(bytes).unwrap();
        assert_eq!(head.line.of_bytes(bytes), b"GET /a?b HTTP/1.1");
        assert_eq!(head.target_text.of_bytes(bytes), b"/a?b");
        assert_eq!(head.single(Known::Host, bytes), Some(&b"x"[..]));
        assert_eq!(head.values(Known::IfNoneMatch, bytes).collect::<Vec<_>>(), [b"*"]);
        assert!(head.is_11 && !head.has(Known::Range));
        assert_eq!(head.fields[2].value.of_bytes(bytes), b"");
    }

    #[test]
    fn any_number_of_fields_is_parsed() {
        for count in (0..30).chain(95..110).chain([500]) {
            for line in ["A:\r\n", "Accept: something\r\n"] {
                let text = format!("GET / HTTP/1.1\r\n{}\r\n", line.repeat(count));
                let mut head = Head::default();
                head.parse(text.as_bytes()).unwrap();
                assert_eq!(head.fields.len(), count);
            }
        }
    }

    /// Parses with the general code only.
    fn parse_long(bytes: &[u8], limits: &Limits) -> Result<(usize, Head), Violation> {
        let len = Scan::default().find_end(bytes, limits)?.expect("complete");
        let mut head = Head::default();
        let parsed = head.parse_any_line(&bytes[..len]).and_then(|from| head.parse_fields(&bytes[..len], from));
        parsed.map(|()| (len, head)).map_err(|refused| refused.violation)
    }

    #[test]
    fn the_fast_path_finds_what_the_general_code_finds() {
        let heads = [
            "GET / HTTP/1.1\r\n\r\n",
            "GET //a?b#c HTTP/1.1\r\nHost:  x \r\nif-none-MATCH: *\r\nEmpty:\r\nX:\ty\t\r\n\r\n",
            "POST /a%20\u{e4} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        ];
        let mut taken = 0;
        for head in heads {
            for at in 0..=head.len() {
                for odd in [&b""[..], b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\xff", b"?", b"x"] {
                    for replaced in 0..=2 {
                        let rest = head.as_bytes().get(at + replaced..).unwrap_or_default();
                        // A blank line at the end, so that the general code finds an end or refuses the head.
                        let bytes = [&head.as_bytes()[..at], odd, rest, b"\r\n\r\n"].concat();
                        let mut plain = Head::default();
                        let Some(len) = plain.parse_at_once(&bytes, &Limits::default()) else { continue };
                        taken += 1;
                        let (end, long) = parse_long(&bytes, &Limits::default()).expect("it is right");
                        assert_eq!((len, format!("{plain:?}")), (end, format!("{long:?}")), "{}", bytes.escape_ascii());
                    }
                }
            }
        }
        assert!(taken > 1000, "{taken}");
    }

    #[test]
    fn the_fast_path_applies_the_limits() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
        let exact = Limits { head: 30, fields: 2, ..Limits::default() };
        assert_eq!(Head::default().parse_at_once(bytes, &exact), Some(30));
        for less in [
            Limits { head: 29, ..exact.clone() },
            Limits { fields: 1, ..exact.clone() },
            Limits { request_line: 15, ..exact.clone() },
            Limits { field_line: 5, ..exact },
        ] {
            assert_eq!(Head::default().parse_at_once(bytes, &less), None, "{less:?}");
            assert!(parse_long(bytes, &less).is_err());
        }
    }

    #[test]
    fn each_byte_of_a_head_is_searched_once() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut scan = Scan::default();
        for end in 0..bytes.len() {
            assert_eq!(scan.find_end(&bytes[..end], &Limits::default()), Ok(None));
            assert_eq!(scan.at as usize, end);
        }
        assert_eq!(scan.find_end(bytes, &Limits::default()), Ok(Some(bytes.len())));
    }

    #[test]
    fn malformed_heads_are_refused() {
        use Violation::*;
        for (bytes, violation) in [
            (&b"GET\r\n\r\n"[..], MalformedLine),
            (b"GET /\r\n\r\n", MalformedLine),
            (b"GET  / HTTP/1.1\r\n\r\n", MalformedLine),
            (b"GET / a HTTP/1.1\r\n\r\n", MalformedLine),
            (b" GET / HTTP/1.1\r\n\r\n", MalformedLine),
            (b"GET /\tHTTP/1.1\r\n\r\n", MalformedLine),
            (b"GET /\0 HTTP/1.1\r\n\r\n", MalformedLine),
            (b"GET /\r HTTP/1.1\r\n\r\n", MalformedLine),
            (b"G@T / HTTP/1.1\r\n\r\n", MalformedLine),
            (b"GET / HTTP/1.1 \r\n\r\n", MalformedVersion),
            (b"GET / http/1.1\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/1\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/0.9\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/1.10\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/+1.1\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/9.9.9\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/909876543210.0\r\n\r\n", MalformedVersion),
            (b"GET / HTTP/2.0\r\n\r\n", UnsupportedVersion),
            (b"GET / HTTP/9.9\r\n\r\n", UnsupportedVersion),
            (b"GET a HTTP/1.1\r\n\r\n", MalformedTarget),
            (b"GET * HTTP/1.1\r\n\r\n", MalformedTarget),
            (b"GET ftp://x/ HTTP/1.1\r\n\r\n", MalformedTarget),
            (b"GET http:///a HTTP/1.1\r\n\r\n", MalformedTarget),
            (b"GET http://u@x/ HTTP/1.1\r\n\r\n", MalformedTarget),
            (b"GET / HTTP/1.1\n\r\n", BareLf),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n", BareLf),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", BareCr),
            (b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n", BareCr),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", ObsFold),
            (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", ObsFold),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", SpaceBeforeColon),
            (b"GET / HTTP/1.1\r\nA\t: b\r\n\r\n", SpaceBeforeColon),
            (b"GET / HTTP/1.1\r\nA\r\n\r\n", MalformedField),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", MalformedField),
            (b"GET / HTTP/1.1\r\nA(: b\r\n\r\n", MalformedField),
            (b"GET / HTTP/1.1\r\n\xc3\xa4: b\r\n\r\n", MalformedField),
            (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", MalformedValue),
            (b"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", MalformedValue),
        ] {
            assert_eq!(parse(bytes).err(), Some(violation), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn valid_heads_are_accepted() {
        for bytes in [
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            b"GET / HTTP/1.9\r\nA:b\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\n\r\n",
            b"GET http://x HTTP/1.1\r\n\r\n",
            b"GET HTTP://[::1]:80?q HTTP/1.1\r\n\r\n",
            b"GET /\xff\"<> HTTP/1.1\r\nA: \xff\t \r\n\r\n",
        ] {
            assert!(parse(bytes).is_ok(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_one_below_at_and_one_above() {
        let limits = Limits { request_line: 20, field_line: 8, fields: 2, head: 40, ..Limits::default() };
        let find = |text: &[u8]| Scan::default().find_end(text, &limits);
        assert_eq!(find(b"GET /aaa HTTP/1.1\r\n\r\n"), Ok(Some(21)));
        assert_eq!(find(b"GET /aaaa HTTP/1.1\r\n\r\n"), Ok(Some(22)));
        assert_eq!(find(b"GET /aaaaa HTTP/1.1\r\n\r\n"), Err(Violation::LineTooLong));
        assert_eq!(find(&[b'a'; 20]), Ok(None));
        assert_eq!(find(&[b'a'; 21]), Err(Violation::LineTooLong));
        assert_eq!(find(b"G / HTTP/1.1\r\nA: 456\r\n\r\n"), Ok(Some(24)));
        assert_eq!(find(b"G / HTTP/1.1\r\nA: 4567\r\n\r\n"), Err(Violation::FieldLineTooLong));
        assert_eq!(find(b"G / HTTP/1.1\r\nA:1\r\nB:2\r\n\r\n"), Ok(Some(26)));
        assert_eq!(find(b"G / HTTP/1.1\r\nA:1\r\nB:2\r\nC:3\r\n\r\n"), Err(Violation::TooManyFields));
        let limits = Limits { head: 24, ..limits };
        assert_eq!(Scan::default().find_end(b"G / HTTP/1.1\r\nA: 456\r\n\r\n", &limits), Ok(Some(24)));
        assert_eq!(
            Scan::default().find_end(b"G / HTTP/1.1\r\nA: 4567\r\n\r\n", &limits),
            Err(Violation::FieldLineTooLong)
        );
        let limits = Limits { head: 23, ..limits };
        assert_eq!(Scan::default().find_end(b"G / HTTP/1.1\r\nA: 456\r\n\r\n", &limits), Err(Violation::HeadTooLarge));
    }
}

//! Parses the head that a script prints (RFC 3875 section 6). It is strict about what is sent to the client, and
//! lenient about how scripts write it.
//!
//! An invalid field line is dropped and reported in the log; the rest is the head. The script only fails if nothing can
//! be used. Framing is never copied: the length is parsed as a number, and the server frames the response itself.

use crate::credentials::secret_in;
use crate::grammar::{digits, is_field_value, is_one_of, is_token_byte};
use crate::status::StatusCode;
use crate::text::scrub;

/// The number of remarks about one head. Further ones are only counted.
const MAX_REMARKS: usize = 16;

/// The number of bytes of a line that a remark shows.
const SHOWN: usize = 256;

/// Fields with a single value. The last one applies, as for a program that sets a default first.
const ONCE: &str = "Access-Control-Allow-Credentials Access-Control-Allow-Origin Access-Control-Max-Age Age \
    Content-Disposition Content-Location Content-Range Content-Type ETag Expires Last-Modified Location Refresh \
    Retry-After Strict-Transport-Security";

/// Fields that concern the server, that frame the message, or that belong to the connection.
const OURS: &str = "Status Content-Length Transfer-Encoding Connection Keep-Alive Proxy-Connection TE Trailer Upgrade";

/// The length of the head at the beginning of `bytes`, including its empty line, or `None` if more is needed. `scanned`
/// is where the search continues.
pub(super) fn find_end(bytes: &[u8], scanned: &mut u32) -> Option<usize> {
    let from = *scanned as usize;
    for found in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let lf = from + found;
        let line = memchr::memrchr(b'\n', &bytes[..lf]).map_or(0, |before| before + 1);
        if bytes[line..lf].iter().all(|&byte| byte == b'\r') {
            return Some(lf + 1);
        }
    }
    *scanned = u32::try_from(bytes.len()).expect("windows are far smaller than 4 GiB");
    None
}

/// What ends the part that may contain a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// An empty line.
    Empty,
    /// The end of the output.
    Eof,
    /// The limit `limits.script_head`.
    Limit,
}

/// The meaning of the part that may contain a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Printed<'h> {
    /// A head of this length.
    Head(ScriptHead<'h>, usize),
    /// The head of an interim response, of this length (RFC 9110 section 15.2).
    Interim(usize),
    /// No head: after this length, everything is content.
    Content(usize),
    /// It ends before anything can be used.
    Incomplete,
    /// Nothing in it can be used.
    Invalid,
}

/// The head of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScriptHead<'h> {
    /// The fields that are sent to the client, in order.
    pub(super) fields: Vec<(&'h [u8], &'h [u8])>,
    /// The code from the `Status` field or a status line, and the phrase if it is valid.
    pub(super) status: Option<(StatusCode, Option<&'h [u8]>)>,
    pub(super) location: Option<&'h [u8]>,
    pub(super) length: Option<u64>,
    /// Whether the content is chunked, which is only permitted for a script that writes the complete response.
    pub(super) is_chunked: bool,
}

/// A line, including its continuation lines.
#[derive(Debug)]
struct Line {
    /// Where it begins in the output.
    at: usize,
    /// Where it is in the unfolded text.
    from: usize,
    to: usize,
}

/// The output with folded lines joined (RFC 9112 section 5.2).
#[derive(Debug, Default)]
pub(super) struct Unfolded {
    text: Vec<u8>,
    lines: Vec<Line>,
}

impl Unfolded {
    pub(super) fn new(printed: &[u8]) -> Unfolded {
        let mut unfolded = Unfolded { text: Vec::with_capacity(printed.len()), lines: Vec::new() };
        let mut at = 0;
        for whole in printed.split_inclusive(|&byte| byte == b'\n') {
            // A byte order mark, which some editors write, is not part of a name.
            let mark = if at == 0 && whole.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let line = trim(&whole[mark..]);
            let is_folded = matches!(whole.first(), Some(b' ' | b'\t'));
            match unfolded.lines.last_mut() {
                Some(last) if is_folded => {
                    if !line.is_empty() {
                        unfolded.text.push(b' ');
                        unfolded.text.extend_from_slice(line);
                        last.to = unfolded.text.len();
                    }
                }
                _ if line.is_empty() => {}
                _ => {
                    let from = unfolded.text.len();
                    unfolded.text.extend_from_slice(line);
                    unfolded.lines.push(Line { at, from, to: unfolded.text.len() });
                }
            }
            at += whole.len();
        }
        unfolded
    }

    fn line(&self, line: &Line) -> &[u8] {
        &self.text[line.from..line.to]
    }
}

/// Interprets the output. `raw` means that the script writes the complete response itself, with a status line (RFC 3875
/// section 5), which is required then.
pub(super) fn interpret<'h>(
    printed: &[u8],
    end: End,
    raw: bool,
    unfolded: &'h Unfolded,
    remarks: &mut Remarks<'_>,
) -> Printed<'h> {
    let has_status_line = unfolded.lines.first().is_some_and(|line| unfolded.line(line).starts_with(b"HTTP/"));
    let is_head_line = |n: usize, line: &Line| n == 0 && has_status_line || split(unfolded.line(line)).is_some();
    let last = unfolded.lines.iter().enumerate().rposition(|(n, line)| is_head_line(n, line));
    if raw && (!has_status_line || end != End::Empty) {
        let may_come = end == End::Eof
            && (printed.is_empty() || b"HTTP/".starts_with(&printed[..printed.len().min(5)]) || has_status_line);
        return if may_come { Printed::Incomplete } else { Printed::Invalid };
    }
    let Some(last) = last else { return without_fields(printed, end, unfolded) };
    // The content begins after the last field, if the empty line is missing.
    let content = unfolded.lines.get(last + 1).filter(|line| {
        let is_markup = unfolded.line(line).starts_with(b"<");
        !raw && (is_markup || end == End::Eof && printed.ends_with(b"\n"))
    });
    let len = match (content, end) {
        (Some(line), _) => {
            remarks.say(format_args!("an empty line is missing before its content"), Some(unfolded.line(line)));
            line.at
        }
        (None, End::Limit) => return Printed::Invalid,
        (None, _) => printed.len(),
    };
    let head = match ScriptHead::read(unfolded, len, raw, has_status_line, remarks) {
        Ok(Some(head)) => head,
        Ok(None) => return Printed::Interim(len),
        Err(Invalid) => return Printed::Invalid,
    };
    // Without an empty line, the head is only sufficient if it determines the response.
    let is_sufficient = (head.status.is_some() || head.location.is_some()) && printed.ends_with(b"\n");
    if end == End::Eof && content.is_none() && !is_sufficient {
        return Printed::Incomplete;
    }
    Printed::Head(head, len)
}

/// Interprets output without any field.
fn without_fields<'h>(printed: &[u8], end: End, unfolded: &Unfolded) -> Printed<'h> {
    if printed.iter().any(|byte| matches!(byte, 0..=7 | 11 | 14..=26 | 28..=31 | 127)) {
        return Printed::Invalid;
    }
    match end {
        // The head is empty, and is followed by content or nothing.
        End::Empty if unfolded.lines.is_empty() => Printed::Content(printed.len()),
        // It may be the beginning of a field.
        End::Eof if trim(printed).iter().copied().all(is_token_byte) && !printed.ends_with(b"\n") => {
            Printed::Incomplete
        }
        End::Eof if unfolded.lines.is_empty() => Printed::Incomplete,
        _ => Printed::Content(0),
    }
}

/// Output that cannot be used.
struct Invalid;

impl<'h> ScriptHead<'h> {
    /// Parses the lines before `len`. `None` if it is the head of an interim response.
    fn read(
        unfolded: &'h Unfolded,
        len: usize,
        raw: bool,
        has_status_line: bool,
        remarks: &mut Remarks<'_>,
    ) -> Result<Option<ScriptHead<'h>>, Invalid> {
        let mut head = ScriptHead::default();
        let mut lines = unfolded.lines.iter().filter(|line| line.at < len).map(|line| unfolded.line(line));
        if has_status_line {
            let line = lines.next().unwrap_or_default();
            match status_line(line) {
                Some((status, _)) if status.code() == 101 => return Err(Invalid),
                Some((status, _)) if status.code() < 200 => return Ok(None),
                None if raw => return Err(Invalid),
                None => remarks.dropped(line, "it is no status line"),
                status => head.status = status,
            }
        }
        let mut lengths = Lengths::None;
        for line in lines {
            head.read_line(line, raw, &mut lengths, remarks)?;
        }
        head.length = match lengths {
            Lengths::One(length) => Some(length),
            Lengths::None => None,
            Lengths::Wrong if raw => return Err(Invalid),
            Lengths::Wrong => None,
        };
        if head.is_chunked && head.length.is_some() {
            return Err(Invalid);
        }
        let location = head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"Location"));
        head.location = location.map(|&(_, value)| value);
        Ok(Some(head))
    }

    fn read_line(
        &mut self,
        line: &'h [u8],
        raw: bool,
        lengths: &mut Lengths,
        remarks: &mut Remarks<'_>,
    ) -> Result<(), Invalid> {
        let Some((name, value)) = split(line) else {
            remarks.dropped(line, "it is not \"Name: value\"");
            return Ok(());
        };
        let is = |other: &str| other.as_bytes().eq_ignore_ascii_case(name);
        if !is_field_value(value) {
            remarks.dropped(line, "its value has a control character");
            if raw && (is("Content-Length") || is("Transfer-Encoding")) {
                return Err(Invalid);
            }
        } else if is("Status") {
            match parse_status(value).filter(|(status, _)| status.code() >= 200) {
                _ if raw => {}
                None => remarks.dropped(line, "its status is not one of 200 to 599"),
                status => self.status = status,
            }
        } else if is("Content-Length") {
            lengths.add(value, line, remarks);
        } else if is("Transfer-Encoding") && !raw {
            remarks.dropped(line, "the server frames the answer");
        } else if is("Transfer-Encoding") && value.eq_ignore_ascii_case(b"chunked") && !self.is_chunked {
            self.is_chunked = true;
        } else if is("Transfer-Encoding") {
            return if value.eq_ignore_ascii_case(b"identity") { Ok(()) } else { Err(Invalid) };
        } else if is("Location") && value.is_empty() {
            remarks.dropped(line, "it has no value");
        } else if is_one_of(OURS.split(' '), name) || !raw && (is("Server") || is("Date")) {
            // The server adds its own.
        } else if is_one_of(ONCE.split(' '), name) || raw && (is("Server") || is("Date")) {
            self.set(name, value, remarks);
        } else {
            self.fields.push((name, value));
        }
        Ok(())
    }

    /// Sets a field. The last value applies, at the position of the first one.
    fn set(&mut self, name: &'h [u8], value: &'h [u8], remarks: &mut Remarks<'_>) {
        match self.fields.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, other)) => {
                if *other != value {
                    let line = [name, b": ", *other].concat();
                    remarks.dropped(&line, "a later line replaces it");
                }
                *other = value;
            }
            None => self.fields.push((name, value)),
        }
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The path and query of a local redirect: the response is the one to a request for that path (RFC 3875 section
    /// 6.2.2). With a `Status`, the client is redirected instead.
    pub(super) fn local_redirect(&self) -> Option<&'h [u8]> {
        let location = self.location.filter(|_| self.status.is_none())?;
        // `//host/` would be another host.
        (location.starts_with(b"/") && !location.starts_with(b"//")).then_some(location)
    }

    /// The status of the response, and the phrase if the script has one.
    pub(super) fn answer(&self) -> (StatusCode, Option<&'h [u8]>) {
        let default = if self.location.is_some() { StatusCode::FOUND } else { StatusCode::OK };
        self.status.unwrap_or((default, None))
    }
}

/// The announced lengths. If they contradict each other, none of them is used (RFC 9112 section 6.3).
#[derive(Clone, Copy)]
enum Lengths {
    None,
    One(u64),
    Wrong,
}

impl Lengths {
    fn add(&mut self, value: &[u8], line: &[u8], remarks: &mut Remarks<'_>) {
        // RFC 9110 section 8.6: a list of identical values counts as one.
        for member in value.split(|&byte| byte == b',') {
            *self = match (*self, digits(member.trim_ascii())) {
                (Lengths::None, Some(length)) => Lengths::One(length),
                (Lengths::One(one), Some(length)) if one == length => Lengths::One(one),
                (Lengths::One(_), Some(_)) => {
                    remarks.dropped(line, "it contradicts another Content-Length, and none of them counts");
                    Lengths::Wrong
                }
                (Lengths::Wrong, Some(_)) => Lengths::Wrong,
                (_, None) => {
                    remarks.dropped(line, "it is no length");
                    Lengths::Wrong
                }
            };
        }
    }
}

/// `HTTP/1.1 404 Not Found`.
fn status_line(line: &[u8]) -> Option<(StatusCode, Option<&[u8]>)> {
    match line.strip_prefix(b"HTTP/1.")? {
        [b'0'..=b'9', b' ', rest @ ..] => parse_status(rest.trim_ascii_start()),
        _ => None,
    }
}

/// `404`, `404 Not Found`, `404: Not Found`.
fn parse_status(value: &[u8]) -> Option<(StatusCode, Option<&[u8]>)> {
    let (code, rest) = value.split_at_checked(3)?;
    let code = StatusCode::new(u16::try_from(digits(code)?).ok()?).filter(|status| status.code() < 600)?;
    let phrase = match rest {
        [] => rest,
        [b' ' | b'\t' | b':', phrase @ ..] => phrase.trim_ascii(),
        [letter, ..] if letter.is_ascii_alphabetic() => rest,
        _ => return None,
    };
    let is_valid = !phrase.is_empty() && phrase.iter().all(|byte| matches!(byte, b' '..=b'~'));
    Some((code, is_valid.then_some(phrase)))
}

/// The name and the value of a field. The colon may follow white space.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (line[..colon].trim_ascii_end(), trim(&line[colon + 1..]));
    (!name.is_empty() && name.iter().copied().all(is_token_byte)).then_some((name, value))
}

fn trim(line: &[u8]) -> &[u8] {
    let is_visible = |byte: &u8| !b" \t\r\n".contains(byte);
    let start = line.iter().position(is_visible).unwrap_or(line.len());
    let end = line.iter().rposition(is_visible).map_or(start, |last| last + 1);
    &line[start..end]
}

/// Remarks for the log about the head of a script: complete lines, bounded, with the path of the script.
#[derive(Debug)]
pub(super) struct Remarks<'r> {
    script: &'r [u8],
    lines: &'r mut Vec<u8>,
    count: usize,
}

impl<'r> Remarks<'r> {
    /// `script` is the path below the root.
    pub(super) fn new(script: &'r [u8], lines: &'r mut Vec<u8>) -> Remarks<'r> {
        Remarks { script, lines, count: 0 }
    }

    fn dropped(&mut self, line: &[u8], why: &str) {
        self.say(format_args!("a line of its head is dropped, since {why}"), Some(line));
    }

    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>, line: Option<&[u8]>) {
        use std::io::Write;
        self.count += 1;
        if self.count > MAX_REMARKS {
            return;
        }
        self.lines.push(b'/');
        scrub(self.lines, self.script);
        write!(self.lines, ": {what}").expect("writing to a Vec does not fail");
        if let Some(line) = line {
            self.lines.extend_from_slice(b": ");
            // More people can read a log than should know a credential.
            let shown = secret_in(line).unwrap_or(line.len()).min(SHOWN);
            scrub(self.lines, &line[..shown]);
            let left = line.len() - shown;
            if left > 0 {
                write!(self.lines, ".. and {left} bytes more").expect("writing to a Vec does not fail");
            }
        }
        self.lines.push(b'\n');
    }
}

impl Drop for Remarks<'_> {
    fn drop(&mut self) {
        let left = self.count.saturating_sub(MAX_REMARKS);
        if left > 0 {
            self.count = 0;
            self.say(format_args!("{left} more such lines"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_with_any_line_ends_and_splits() {
        for (text, end) in [
            ("A: b\n\nbody\n\n", Some(6)),
            ("A: b\r\n\r\nbody", Some(8)),
            ("A: b\r\n\nbody", Some(7)),
            ("A: b\n\r\n", Some(7)),
            ("A: b\r\r\n\r\r\nbody", Some(10)),
            ("\nbody", Some(1)),
            ("\r\n", Some(2)),
            ("A: b\n\r", None),
            ("A: b\n", None),
            ("", None),
        ] {
            let mut scanned = 0;
            assert_eq!(find_end(text.as_bytes(), &mut scanned), end, "{text:?}");
            let mut scanned = 0;
            let found = (0..=text.len()).find_map(|n| find_end(&text.as_bytes()[..n], &mut scanned));
            assert_eq!(found, end, "{text:?}");
        }
    }

    /// Summarizes the interpretation of `text`: status, fields, length, then what follows the head, and the remarks.
    fn read(text: &str, raw: bool) -> (String, String) {
        let mut scanned = 0;
        let (len, end) = match find_end(text.as_bytes(), &mut scanned) {
            Some(len) => (len, End::Empty),
            None if text.len() >= 500 => (500, End::Limit),
            None => (text.len(), End::Eof),
        };
        let printed = &text.as_bytes()[..len];
        let unfolded = Unfolded::new(printed);
        let mut lines = Vec::new();
        let mut remarks = Remarks::new(b"cgi-bin/x", &mut lines);
        let what = match interpret(printed, end, raw, &unfolded, &mut remarks) {
            Printed::Head(head, len) => {
                let (status, phrase) = head.answer();
                let phrase = phrase.map(|phrase| format!(" {}", phrase.escape_ascii())).unwrap_or_default();
                let mut what = format!("{}{phrase}", status.code());
                for (name, value) in &head.fields {
                    what += &format!("|{}:{}", name.escape_ascii(), value.escape_ascii());
                }
                let length = head.length.map(|length| format!("|={length}")).unwrap_or_default();
                what + &length + if head.is_chunked { "|chunked" } else { "" } + " > " + &text[len..]
            }
            Printed::Interim(len) => format!("interim > {}", &text[len..]),
            Printed::Content(len) => format!("content > {}", &text[len..]),
            other => format!("{other:?}"),
        };
        drop(remarks);
        (what, String::from_utf8(lines).unwrap())
    }

    fn check(cases: &[(&str, &str, usize)], raw: bool) {
        for (text, what, remarks) in cases {
            let found = read(text, raw);
            assert_eq!(found.0, *what, "{text:?}");
            assert_eq!(found.1.lines().count(), *remarks, "{text:?}: {}", found.1);
        }
    }

    #[test]
    fn an_invalid_line_is_dropped_and_the_rest_is_the_head() {
        check(
            &[
                ("A: b\n\nx", "200|A:b > x", 0),
                ("A: b\nno colon\n\nx", "200|A:b > x", 1),
                ("no colon\nA: b\n\nx", "200|A:b > x", 1),
                ("A: b\na b: c\n: d\n\nx", "200|A:b > x", 2),
                ("A: \u{1}\n\nx", "200 > x", 1),
                ("A: \0\nB: c\n\nx", "200|B:c > x", 1),
                ("A: a\rB: b\nC: d\n\nx", "200|C:d > x", 1),
                ("A : b\nB\t:c\n\nx", "200|A:b|B:c > x", 0),
                ("A:b\r\nB: c\nC: d\r\r\n\r\nx", "200|A:b|B:c|C:d > x", 0),
                ("A: b\n folded\n\t too\n  \nB: c\n\nx", "200|A:b folded too|B:c > x", 0),
                (" A: b\n\nx", "200|A:b > x", 0),
                ("no colon\n A: b\nB: c\n\nx", "200|B:c > x", 1),
                ("A:\n\nx", "200|A: > x", 0),
                ("A: \u{e9}\n\nx", "200|A:\\xc3\\xa9 > x", 0),
                ("\u{feff}A: b\n\nx", "200|A:b > x", 0),
                ("<!--: spam\nContent-Type: text/html\n\n<body>", "200|Content-Type:text/html > <body>", 1),
                ("Connection: x\nUpgrade: y\nDate: z\nServer: w\nTE: t\n\nx", "200 > x", 0),
                ("Transfer-Encoding: chunked\n\nx", "200 > x", 1),
            ],
            false,
        );
    }

    #[test]
    fn the_last_of_several_values_applies() {
        check(
            &[
                ("Content-Type: a\ncontent-type: a\n\n", "200|Content-Type:a > ", 0),
                ("Content-Type: a\nB: c\ncontent-type: b\n\n", "200|Content-Type:b|B:c > ", 1),
                ("ETag: a\nETag: b\nETag: c\n\n", "200|ETag:c > ", 2),
                (
                    "Set-Cookie: a\nSet-Cookie: a\nLink: b\nLink: c\n\n",
                    "200|Set-Cookie:a|Set-Cookie:a|Link:b|Link:c > ",
                    0,
                ),
                ("Location: /a\nLocation: http://b/\n\n", "302|Location:http://b/ > ", 1),
                ("Location:\n\nx", "200 > x", 1),
                ("Content-Length: 5\nContent-Length: 5\n\n", "200|=5 > ", 0),
                ("Content-Length: 5, 5\n\n", "200|=5 > ", 0),
                ("Content-Length: 5\nContent-Length: 6\n\n", "200 > ", 1),
                ("Content-Length: 5, 6\n\n", "200 > ", 1),
                ("Content-Length: -1\n\n", "200 > ", 1),
                ("Content-Length: +1\n\n", "200 > ", 1),
                ("Content-Length:\n\n", "200 > ", 1),
                ("Content-Length: 18446744073709551615\n\n", "200|=18446744073709551615 > ", 0),
                ("Content-Length: 18446744073709551616\n\n", "200 > ", 1),
            ],
            false,
        );
    }

    #[test]
    fn statuses_are_parsed() {
        for (status, what, remarks) in [
            ("Status: 404", "404", 0),
            ("Status:404 Not Found", "404 Not Found", 0),
            ("Status: 404: Not Found", "404 Not Found", 0),
            ("Status: 404Not Found", "404 Not Found", 0),
            ("status: 500 \u{e9}", "500", 0),
            ("Status: 404 Not here\nStatus: 403", "403", 0),
            ("Status: abc", "200", 1),
            ("Status:", "200", 1),
            ("Status: 99", "200", 1),
            ("Status: 100 Continue", "200", 1),
            ("Status: 101", "200", 1),
            ("Status: 103", "200", 1),
            ("Status: 600", "200", 1),
            ("Status: 1000", "200", 1),
            ("Status: -404", "200", 1),
            ("Status: 404;x", "200", 1),
            ("HTTP/1.1 404 Not Found", "404 Not Found", 0),
            ("HTTP/1.0 200", "200", 0),
            ("HTTP/1.1 404 Not Found\nStatus: 403 No", "403 No", 0),
            ("Status: 403 No\nHTTP/1.1 404 Not Found", "403 No", 1),
            ("HTTP/1.1 abc", "200", 1),
            ("HTTP/2 404", "200", 1),
        ] {
            let found = read(&format!("{status}\nA: b\n\nx"), false);
            assert_eq!((found.0, found.1.lines().count()), (format!("{what}|A:b > x"), remarks), "{status:?}");
        }
        check(
            &[
                ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", "interim > HTTP/1.1 200 OK\r\n\r\nx", 0),
                ("HTTP/1.1 101 Switching\r\n\r\nx", "Invalid", 0),
            ],
            false,
        );
    }

    #[test]
    fn output_without_a_head_is_content() {
        let long = "y".repeat(600);
        let longer = format!("Content-Type: a/b\nX: {long}");
        check(
            &[
                ("hello, world", "content > hello, world", 0),
                ("hello\n", "content > hello\n", 0),
                ("Traceback (most recent call last)\n\nx", "content > Traceback (most recent call last)\n\nx", 0),
                ("<p>\n\n</p>", "content > <p>\n\n</p>", 0),
                ("\nx", "content > x", 0),
                (&long, &format!("content > {long}"), 0),
                (&longer, "Invalid", 0),
                // It may be the beginning of a field.
                ("Content-Ty", "Incomplete", 0),
                ("", "Incomplete", 0),
                ("\u{0}\u{1}ELF\n\n", "Invalid", 0),
                ("Content-Type: a/b", "Incomplete", 0),
                ("Content-Type: a/b\n", "Incomplete", 0),
                ("Content-Type: a/b\r\n\r", "Incomplete", 0),
                ("Content-Type: a/b\nStatus: 404", "Incomplete", 0),
                ("Status: 404\n", "404 > ", 0),
                ("Location: /a\n", "302|Location:/a > ", 0),
                ("Content-Type: a/b\nhello, world\n", "200|Content-Type:a/b > hello, world\n", 1),
                ("Content-Type: a/b\nhello, wor", "Incomplete", 1),
                ("Content-Type: a/b\n<p>hello</p>\n\n", "200|Content-Type:a/b > <p>hello</p>\n\n", 1),
                ("Content-Type: a/b\n<p>\nC: d\n\nx", "200|Content-Type:a/b|C:d > x", 1),
            ],
            false,
        );
    }

    #[test]
    fn complete_responses_are_parsed_strictly() {
        check(
            &[
                (
                    "HTTP/1.1 418 Teapot\r\nX: y\r\nDate: d\r\nServer: s\r\n\r\nz",
                    "418 Teapot|X:y|Date:d|Server:s > z",
                    0,
                ),
                ("HTTP/1.0 200\nContent-Length: 3\nConnection: keep-alive\n\nabc", "200|=3 > abc", 0),
                ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", "200 OK|chunked > ", 0),
                ("HTTP/1.1 200 OK\nno colon\nX: y\n\nz", "200 OK|X:y > z", 1),
                ("HTTP/1.1 100 Continue\n\nHTTP", "interim > HTTP", 0),
                ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n", "Invalid", 0),
                ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", "Invalid", 0),
                ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 3\n\n", "Invalid", 0),
                ("HTTP/1.1 200 OK\nTransfer-Encoding: \u{b}chunked\n\n", "Invalid", 1),
                ("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4\n\n", "Invalid", 1),
                ("HTTP/1.1 200 OK\nContent-Length: x\n\n", "Invalid", 1),
                ("HTTP/1.1 101 Switching\n\n", "Invalid", 0),
                ("HTTP/1.1 abc\n\n", "Invalid", 0),
                ("HTTP/2 200\n\n", "Invalid", 0),
                ("Content-Type: a/b\n\nz", "Invalid", 0),
                ("hello", "Invalid", 0),
                ("HT", "Incomplete", 0),
                ("HTTP/1.1 200 OK\nX: y\n", "Incomplete", 0),
                ("", "Incomplete", 0),
            ],
            true,
        );
    }

    #[test]
    fn remarks_are_bounded_and_escaped() {
        let head = format!("A: b\n\u{1b}[31m\n{}\n{}\n", "z".repeat(300), "w\n".repeat(20));
        let (what, remarks) = read(&head, false);
        assert_eq!(what, "200|A:b > ");
        let lines: Vec<&str> = remarks.lines().collect();
        let why = "/cgi-bin/x: a line of its head is dropped, since it is not \"Name: value\": ";
        assert_eq!(lines[0], format!("{why}\\x1b[31m"));
        assert_eq!(lines[1], format!("{why}{}.. and 44 bytes more", "z".repeat(SHOWN)));
        assert_eq!((lines.len(), lines[MAX_REMARKS]), (MAX_REMARKS + 1, "/cgi-bin/x: 6 more such lines"));
    }

    /// A remark about a dropped line does not reveal credentials.
    #[test]
    fn remarks_do_not_contain_credentials() {
        let (_, remarks) = read("A: b\nSET-Cookie : a=\x00secret\nAuthorization\x01: secret\n\n", false);
        assert!(remarks.contains("SET-Cookie :.. and 10 bytes more") && !remarks.contains("secret"), "{remarks}");
    }

    #[test]
    fn a_path_without_a_status_is_a_local_redirect() {
        for (text, local, status) in [
            ("Location: /a?b\n\n", Some("/a?b"), 302),
            ("Location: /\n\n", Some("/"), 302),
            ("Location: /a\nStatus: 303\n\n", None, 303),
            ("Location: http://h/\n\n", None, 302),
            ("Location: //h/\n\n", None, 302),
            ("Location: a\n\n", None, 302),
            ("Content-Type: a\n\n", None, 200),
        ] {
            let (unfolded, mut lines) = (Unfolded::new(text.as_bytes()), Vec::new());
            let mut remarks = Remarks::new(b"", &mut lines);
            let Printed::Head(head, _) = interpret(text.as_bytes(), End::Empty, false, &unfolded, &mut remarks) else {
                panic!("{text:?}");
            };
            assert_eq!(head.local_redirect(), local.map(str::as_bytes), "{text:?}");
            assert_eq!(head.answer().0.code(), status, "{text:?}");
        }
    }
}

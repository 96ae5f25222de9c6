//! The head of a script's answer (RFC 3875 section 6): lines that end with LF or CR LF, then an empty one.

use crate::head_writer::is_field_value;
use crate::status::Status;
use crate::wire::{digits, is_token_byte};

/// The length of the head that `bytes` begins with, with its empty line; `None`: more must come.
/// `scanned` is where the search goes on.
pub(super) fn find_end(bytes: &[u8], scanned: &mut u32) -> Option<usize> {
    let from = *scanned as usize;
    for found in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let lf = from + found;
        let line = memchr::memrchr(b'\n', &bytes[..lf]).map_or(0, |before| before + 1);
        if matches!(&bytes[line..lf], b"" | b"\r") {
            return Some(lf + 1);
        }
    }
    *scanned = u32::try_from(bytes.len()).expect("windows are far smaller than 4 GiB");
    None
}

/// A head that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScriptHead<'h> {
    bytes: &'h [u8],
    /// What the `Status` field says: the code, and the phrase where one is there and fit.
    pub(super) status: Option<(Status, Option<&'h [u8]>)>,
    pub(super) location: Option<&'h [u8]>,
    pub(super) length: Option<u64>,
}

/// What a script says is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl<'h> ScriptHead<'h> {
    /// Parses a head that [`find_end`] has found.
    pub(super) fn parse(bytes: &'h [u8]) -> Result<ScriptHead<'h>, Invalid> {
        let mut head = ScriptHead { bytes, status: None, location: None, length: None };
        let (mut fields, mut kinds) = (0, 0);
        for line in lines(bytes) {
            let (name, value) = split(line)?;
            fields += 1;
            // RFC 3875 section 6.3: "There MUST NOT be more than one of each".
            let repeated = if name.eq_ignore_ascii_case(b"Status") {
                head.status.replace(parse_status(value)?).is_some()
            } else if name.eq_ignore_ascii_case(b"Location") {
                head.location.replace(value).is_some()
            } else if name.eq_ignore_ascii_case(b"Content-Length") {
                head.length.replace(digits(value).ok_or(Invalid)?).is_some()
            } else if name.eq_ignore_ascii_case(b"Content-Type") {
                kinds += 1;
                kinds > 1
            } else {
                false
            };
            if repeated {
                return Err(Invalid);
            }
        }
        if fields == 0 || head.location == Some(b"") { Err(Invalid) } else { Ok(head) }
    }

    /// The fields that go to the peer: all but those that say something to the server alone, that frame
    /// the message or belong to the connection, and that the server writes itself.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'h [u8], &'h [u8])> + use<'h> {
        const OURS: [&str; 12] = [
            "Status",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Server",
            "Date",
            "Location",
        ];
        let is_ours = |name: &[u8]| OURS.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(name));
        lines(self.bytes).filter_map(|line| split(line).ok()).filter(move |(name, _)| !is_ours(name))
    }

    /// The path and query of a local redirect: the request is answered as if it had been for that (RFC
    /// 3875 section 6.2.2). A `Status` beside it says that the peer is to be redirected.
    pub(super) fn local_redirect(&self) -> Option<&'h [u8]> {
        let location = self.location.filter(|_| self.status.is_none())?;
        // `//host/` is somewhere else.
        (location.starts_with(b"/") && !location.starts_with(b"//")).then_some(location)
    }

    /// The status of the answer, and its phrase if the script has one.
    pub(super) fn answer(&self) -> (Status, Option<&'h [u8]>) {
        let default = if self.location.is_some() { Status::FOUND } else { Status::OK };
        self.status.unwrap_or((default, None))
    }
}

/// The status in the first line of the answer of a script that writes all of it itself.
pub(super) fn status_line(line: &[u8]) -> Result<Status, Invalid> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(Invalid)?;
    match rest {
        [b'0'..=b'9', b' ', code @ ..] => parse_status(code).map(|(status, _)| status),
        _ => Err(Invalid),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.take_while(|line| !line.is_empty())
}

fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Invalid> {
    let colon = memchr::memchr(b':', line).ok_or(Invalid)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let is_right = !name.is_empty() && name.iter().copied().all(is_token_byte) && is_field_value(value);
    if is_right { Ok((name, value)) } else { Err(Invalid) }
}

/// `404`, or `404 Not Found`; an interim status is no answer.
fn parse_status(value: &[u8]) -> Result<(Status, Option<&[u8]>), Invalid> {
    let (code, phrase) = value.split_at_checked(3).ok_or(Invalid)?;
    let code = digits(code).and_then(|code| Status::new(u16::try_from(code).ok()?)).ok_or(Invalid)?;
    let phrase = match phrase {
        [] => b"",
        [b' ', phrase @ ..] => phrase.trim_ascii(),
        _ => return Err(Invalid),
    };
    let is_fit = !phrase.is_empty() && phrase.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if code.code() < 200 { Err(Invalid) } else { Ok((code, is_fit.then_some(phrase))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_lines_end_and_arrive() {
        for (text, end) in [
            ("A: b\n\nbody\n\n", Some(6)),
            ("A: b\r\n\r\nbody", Some(8)),
            ("A: b\r\n\nbody", Some(7)),
            ("A: b\n\r\n", Some(7)),
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

    #[test]
    fn heads() {
        let head =
            ScriptHead::parse(b"Content-Type: a/b\nstatus: 404 Not here\nX-A:  b \nConnection: close\nDate: x\n\n");
        let head = head.unwrap();
        assert_eq!(head.answer(), (Status::NOT_FOUND, Some(&b"Not here"[..])));
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [(&b"Content-Type"[..], &b"a/b"[..]), (b"X-A", b"b")]);
        assert_eq!(ScriptHead::parse(b"A: b\r\nContent-Length: 7\r\n\r\n").unwrap().length, Some(7));
        for bad in [
            "\n",
            "no colon\n\n",
            "a b: c\n\n",
            ": c\n\n",
            "A : b\n\n",
            "A: b\n folded\n\n",
            "A: \x01\n\n",
            "Status: 99\n\n",
            "Status: 100 Continue\n\n",
            "Status: 2000\n\n",
            "Status: abc\n\n",
            "Status:\n\n",
            "Status: 200\nStatus: 200\n\n",
            "Location:\n\n",
            "Location: /a\nLocation: /a\n\n",
            "Content-Length: -1\n\n",
            "Content-Length: 1\nContent-Length: 1\n\n",
            "Content-Type: a\nContent-Type: a\n\n",
            "HTTP/1.0 200 OK\nContent-Type: a\n\n",
        ] {
            assert_eq!(ScriptHead::parse(bad.as_bytes()), Err(Invalid), "{bad:?}");
        }
    }

    #[test]
    fn redirects() {
        for (text, local, status) in [
            ("Location: /a?b\n\n", Some("/a?b"), 302),
            ("Location: /\n\n", Some("/"), 302),
            ("Location: /a\nStatus: 303\n\n", None, 303),
            ("Location: http://h/\n\n", None, 302),
            ("Location: //h/\n\n", None, 302),
            ("Location: a\n\n", None, 302),
            ("Content-Type: a\n\n", None, 200),
        ] {
            let head = ScriptHead::parse(text.as_bytes()).unwrap();
            assert_eq!(head.local_redirect(), local.map(str::as_bytes), "{text:?}");
            assert_eq!(head.answer().0.code(), status, "{text:?}");
        }
    }

    #[test]
    fn status_lines_of_scripts_that_write_their_own() {
        assert_eq!(status_line(b"HTTP/1.1 204 No Content"), Ok(Status::NO_CONTENT));
        assert_eq!(status_line(b"HTTP/1.0 200"), Ok(Status::OK));
        for bad in ["HTTP/2 200", "Content-Type: a", "HTTP/1.1 100 Continue", "HTTP/1.1  200", ""] {
            assert_eq!(status_line(bad.as_bytes()), Err(Invalid), "{bad}");
        }
    }
}

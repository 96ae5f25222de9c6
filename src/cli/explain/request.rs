//! Turns the arguments of the command line into the bytes of a request. Whether the request is valid is for the
//! server to decide; only what cannot be one request is rejected here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A request as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// All lines of its head, without line terminators.
    pub(crate) lines: Vec<Vec<u8>>,
    /// Whether the last line is a Host field that was not given.
    pub(crate) has_our_host: bool,
}

/// The Host field for a request that has none.
const HOST: &[u8] = b"Host: localhost";

impl Request {
    /// Makes a request. `text` is a request line, a method and a target, or just a target.
    ///
    /// # Errors
    /// Says what is wrong: an argument is empty, or has more than one line.
    pub(crate) fn of<'f>(text: &OsStr, fields: impl Iterator<Item = &'f OsString>) -> Result<Request, String> {
        let line = request_line(checked("the request", text.as_bytes())?);
        let is_old = line.ends_with(b" HTTP/1.0");
        let mut lines = vec![line];
        for field in fields {
            lines.push(checked("a field", field.as_bytes())?.to_vec());
        }
        let has_host = lines[1..].iter().any(|line| is_host(line));
        let has_our_host = !has_host && !is_old;
        lines.extend(has_our_host.then(|| HOST.to_vec()));
        Ok(Request { lines, has_our_host })
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.lines.join(&b"\r\n"[..]);
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    }
}

/// Rejects line terminators, which would make two lines or even two requests, and an empty line, which would end the
/// head.
fn checked<'t>(what: &str, text: &'t [u8]) -> Result<&'t [u8], String> {
    match text {
        [] => Err(format!("{what} is empty")),
        text if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) => {
            Err(format!("{what} contains a line terminator: it must be a single line"))
        }
        text => Ok(text),
    }
}

fn request_line(text: &[u8]) -> Vec<u8> {
    const VERSION: &[u8] = b" HTTP/1.1";
    let last = text.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    if !text.contains(&b' ') {
        [b"GET ", text, VERSION].concat()
    } else if last.starts_with(b"HTTP/") {
        text.to_vec()
    } else {
        [text, VERSION].concat()
    }
}

fn is_host(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    name.trim_ascii_end().eq_ignore_ascii_case(b"host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str, fields: &[&str]) -> Result<String, String> {
        let fields: Vec<OsString> = fields.iter().map(OsString::from).collect();
        let request = Request::of(OsStr::new(text), fields.iter())?;
        Ok(String::from_utf8(request.bytes()).unwrap())
    }

    #[test]
    fn missing_parts_are_added() {
        for (text, fields, expected) in [
            ("/a", &[][..], "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ("HEAD /a", &[], "HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ("HEAD /a HTTP/1.0", &[], "HEAD /a HTTP/1.0\r\n\r\n"),
            ("GET /a b", &["X: y"], "GET /a b HTTP/1.1\r\nX: y\r\nHost: localhost\r\n\r\n"),
            ("GET /a HTTP/3", &["hOST : z"], "GET /a HTTP/3\r\nhOST : z\r\n\r\n"),
            ("*", &["host:"], "GET * HTTP/1.1\r\nhost:\r\n\r\n"),
        ] {
            assert_eq!(request(text, fields).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_of_several_lines_is_refused() {
        for (text, fields) in [
            ("", &[][..]),
            ("/a\r\nX: y", &[]),
            ("/a\n", &[]),
            ("/a", &["X: y\r\n\r\nGET /b HTTP/1.1"]),
            ("/a", &["X: y\rZ: z"]),
            ("/a", &[""]),
        ] {
            assert!(request(text, fields).is_err(), "{text:?} {fields:?}");
        }
    }
}

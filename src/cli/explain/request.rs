//! From the words of the command line to the bytes of a request. What is wrong with them is for the
//! server to say; only what could not be meant as one request is refused here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A request as it would be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// All lines of its head, without their ends.
    pub(crate) lines: Vec<Vec<u8>>,
    /// The last of them is a Host that was not asked for.
    pub(crate) has_our_host: bool,
}

/// The Host of a request that names none.
const HOST: &[u8] = b"Host: localhost";

impl Request {
    /// `text` is a request line, a method and a target, or a target alone.
    ///
    /// # Errors
    /// What is wrong, for people: nothing, or more than one line where one should be.
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

/// A line end would make two lines of it, or even two requests; nothing would end the head.
fn checked<'t>(what: &str, text: &'t [u8]) -> Result<&'t [u8], String> {
    match text {
        [] => Err(format!("{what} is empty")),
        text if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) => Err(format!("{what} has a line end in it")),
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
    fn what_is_left_out_is_added() {
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
    fn more_than_one_line_is_refused() {
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

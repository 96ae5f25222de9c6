//! The access-log entry of an exchange, and the format of its lines.

use std::io::Write;
use std::time::Duration;

use crate::peer::Peer;
use crate::request::Request;
use crate::secured::TlsVersion;
use crate::text::scrub_within;
use crate::wire::Head;

/// The access-log entry of a finished exchange.
///
/// ```
/// use std::io::Write;
/// use sanserve_core::{Entry, Policy, scrub};
///
/// /// `127.0.0.1 200 1024 Mozilla/5.0`
/// struct Short;
///
/// impl Policy for Short {
///     fn log(&self, entry: &Entry<'_>, _time: &str, out: &mut Vec<u8>) {
///         // Writing to a `Vec` does not fail.
///         let _ = write!(out, "{} {} {} ", entry.peer, entry.status, entry.sent);
///         scrub(out, entry.agent().unwrap_or(b"-"));
///         out.push(b'\n');
///     }
/// }
///
/// # let peer = sanserve_core::Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
/// let mut line = Vec::new();
/// Short.log(&Entry::new(peer, b"GET / HTTP/1.1").with_response(200, 1_024), "", &mut line);
/// assert_eq!(line, b"127.0.0.1 200 1024 -\n");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The peer of the connection.
    pub peer: Peer,
    /// The request line without its line end, as received; empty if none was.
    pub line: &'a [u8],
    /// The status of the response; 0 if there was none.
    pub status: u16,
    /// The number of bytes of the body that were sent, including chunk framing.
    pub sent: u64,
    /// The number of bytes of the request's body that were read, including chunk framing and trailers.
    pub received: u64,
    /// The time from the first byte of the request until the end of the response was passed to the system, in
    /// milliseconds; of a request that waited for the response to an earlier one, since it was read.
    pub duration: Duration,
    /// The message of an error response.
    pub error: Option<&'a [u8]>,
    /// Why the response was cut short, if it was.
    pub cut: Option<&'static str>,
    /// Why the handler failed, if it did, such as `the handler failed: out of memory`. The client does not see it.
    pub failure: Option<&'a [u8]>,
    /// What the handler has called the exchange ([`Reply::tag`](crate::Reply::tag)): for a policy that logs it.
    pub tag: Option<&'a [u8]>,
    /// The version of TLS; `None`: the connection is not secured. Its [request](Self::request) does not tell.
    pub tls: Option<TlsVersion>,
    pub(crate) head: Option<(&'a Head, &'a [u8])>,
}

impl<'a> Entry<'a> {
    /// Creates the entry of a request with this line that has no response.
    #[must_use]
    pub fn new(peer: Peer, line: &'a [u8]) -> Entry<'a> {
        Entry {
            peer,
            line,
            status: 0,
            sent: 0,
            received: 0,
            duration: Duration::ZERO,
            error: None,
            cut: None,
            failure: None,
            tag: None,
            tls: None,
            head: None,
        }
    }

    /// The request, if its head was valid. It has no fields any more after a response that took long enough for its
    /// head to be dropped, such as a large download of a slow client; the [line](Self::line) is kept.
    #[must_use]
    pub fn request(&self) -> Option<Request<'a>> {
        self.head.map(|(head, bytes)| Request { head, bytes, peer: self.peer, secured: None })
    }

    /// The `Referer` of the request.
    #[must_use]
    pub fn referer(&self) -> Option<&'a [u8]> {
        self.request()?.field("Referer")
    }

    /// The `User-Agent` of the request.
    #[must_use]
    pub fn agent(&self) -> Option<&'a [u8]> {
        self.request()?.field("User-Agent")
    }

    /// Sets the [status](Self::status) of the response, and how much of its body was [sent](Self::sent).
    #[must_use]
    pub fn with_response(self, status: u16, sent: u64) -> Entry<'a> {
        Entry { status, sent, ..self }
    }

    /// Sets how much of the request's body was [received](Self::received).
    #[must_use]
    pub fn with_received(self, received: u64) -> Entry<'a> {
        Entry { received, ..self }
    }

    /// Sets how long the exchange [took](Self::duration).
    #[must_use]
    pub fn with_duration(self, duration: Duration) -> Entry<'a> {
        Entry { duration, ..self }
    }

    /// Sets the message of an [error](Self::error).
    #[must_use]
    pub fn with_error(self, message: &'a [u8]) -> Entry<'a> {
        Entry { error: Some(message), ..self }
    }

    /// Sets why the handler [failed](Self::failure).
    #[must_use]
    pub fn with_failure(self, why: &'a [u8]) -> Entry<'a> {
        Entry { failure: Some(why), ..self }
    }

    /// Appends the lines of this entry: `code 404, message File not found` for an error, `"GET / HTTP/1.1" 200 1024`,
    /// why the response was cut, and why the handler failed. `open` is called to write the prefix of each line.
    ///
    /// The format is that of Python's `log_error` and `log_request`, except that the size, which is always `-` in
    /// Python, is the number of bytes sent. A request line is truncated to 8,000 bytes; `\...` marks the place.
    pub fn write(&self, out: &mut Vec<u8>, open: impl Fn(&mut Vec<u8>)) {
        if let Some(message) = self.error {
            open(out);
            write!(out, "code {}, message ", self.status).expect("writing to a Vec does not fail");
            scrub_within(out, message, MAX_TEXT);
            out.push(b'\n');
        }
        if self.status != 0 {
            open(out);
            self.write_line(MAX_TEXT, out);
            writeln!(out, " {} {}", self.status, self.sent).expect("writing to a Vec does not fail");
        }
        if let Some(reason) = self.cut {
            open(out);
            self.write_line(MAX_TEXT, out);
            writeln!(out, " cut after {} bytes: {reason}", self.sent).expect("writing to a Vec does not fail");
        }
        if let Some(why) = self.failure {
            open(out);
            self.write_line(MAX_TEXT / 2, out);
            out.extend_from_slice(b": ");
            scrub_within(out, why, MAX_TEXT / 2);
            out.push(b'\n');
        }
    }

    /// Appends the request line in quotation marks, at most `most` bytes of it.
    fn write_line(&self, most: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        scrub_within(out, self.line, most);
        out.push(b'"');
    }
}

/// The number of bytes that are written of a text, so that a line is shorter than 8 KiB.
const MAX_TEXT: usize = 8_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_truncated_at_a_character_boundary() {
        let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        for line in [&[b'a'; 65_536][..], &[0xff; 65_536], &b"\\".repeat(65_536), "\u{202e}é".repeat(9_000).as_bytes()]
        {
            for extra in 0..12 {
                let line = &line[..line.len() - extra];
                let entry = Entry { cut: Some("why"), ..Entry::new(peer, line) };
                let entry = entry.with_response(414, 7).with_error(line).with_failure(line);
                let mut out = Vec::new();
                entry.write(&mut out, |_| {});
                let text = String::from_utf8(out).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                assert_eq!(lines.len(), 4);
                assert!(lines.iter().all(|line| line.len() < 8_192 && line.contains("\\...")));
                assert!(lines[1].ends_with("\\...\" 414 7"), "{}", lines[1]);
                let (text, _) = lines[1].split_once("\\...").unwrap();
                assert!(text.len() > 7_980, "{}", text.len());
            }
        }
        let line = [b'a'; 8_000];
        let entry = Entry::new(peer, &line).with_response(200, 7);
        let mut out = Vec::new();
        entry.write(&mut out, |_| {});
        assert_eq!(out, [b"\"", &line[..], b"\" 200 7\n"].concat());
    }
}

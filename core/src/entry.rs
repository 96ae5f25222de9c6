//! The access-log entry of one exchange, and how its lines read.

use std::io::Write;

use crate::peer::Peer;
use crate::text::scrub_within;

/// What is known of a finished exchange.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The other end.
    pub peer: Peer,
    /// The request line without its line end, as it came; empty where none was read.
    pub line: &'a [u8],
    /// The status of the answer; 0 if none was begun.
    pub status: u16,
    /// Bytes of the body that went out, with the framing of its chunks where it has any.
    pub sent: u64,
    /// The message of an error answer.
    pub error: Option<&'a [u8]>,
    /// Why the answer was cut short, if it was.
    pub cut: Option<&'static str>,
}

impl<'a> Entry<'a> {
    /// The entry of a request by its line, of which no response was begun.
    #[must_use]
    pub fn new(peer: Peer, line: &'a [u8]) -> Entry<'a> {
        Entry { peer, line, status: 0, sent: 0, error: None, cut: None }
    }

    /// The same with a response: its [`status`](Self::status), and how much of its body was [sent](Self::sent).
    #[must_use]
    pub fn with_response(self, status: u16, sent: u64) -> Entry<'a> {
        Entry { status, sent, ..self }
    }

    /// Sets the message of an [error](Self::error).
    #[must_use]
    pub fn with_error(self, message: &'a [u8]) -> Entry<'a> {
        Entry { error: Some(message), ..self }
    }

    /// Appends the messages of this entry, each with `open` before it and a line end after:
    /// `code 404, message File not found` for an error, `"GET / HTTP/1.1" 200 1024`, and why it was cut.
    ///
    /// The form is that of Python's `log_error` and `log_request`; its size, always `-` there, is
    /// the number of body bytes sent. A request line of which more than 8,000 bytes would be written is cut, and
    /// `\...` stands for the rest.
    pub fn write(&self, out: &mut Vec<u8>, open: impl Fn(&mut Vec<u8>)) {
        if let Some(message) = self.error {
            open(out);
            write!(out, "code {}, message ", self.status).expect("a Vec takes all");
            scrub_within(out, message, MAX_TEXT);
            out.push(b'\n');
        }
        if self.status != 0 {
            open(out);
            out.push(b'"');
            scrub_within(out, self.line, MAX_TEXT);
            writeln!(out, "\" {} {}", self.status, self.sent).expect("a Vec takes all");
        }
        if let Some(reason) = self.cut {
            open(out);
            out.push(b'"');
            scrub_within(out, self.line, MAX_TEXT);
            writeln!(out, "\" cut after {} bytes: {reason}", self.sent).expect("a Vec takes all");
        }
    }
}

/// What is written of one text: with the rest of its line that is less than 8 KiB.
const MAX_TEXT: usize = 8_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_where_a_character_ends() {
        let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        for line in [&[b'a'; 65_536][..], &[0xff; 65_536], &b"\\".repeat(65_536), "\u{202e}é".repeat(9_000).as_bytes()]
        {
            for extra in 0..12 {
                let line = &line[..line.len() - extra];
                let entry = Entry { peer, line, status: 414, sent: 7, error: Some(line), cut: Some("why") };
                let mut out = Vec::new();
                entry.write(&mut out, |_| {});
                let text = String::from_utf8(out).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                assert_eq!(lines.len(), 3);
                assert!(lines.iter().all(|line| line.len() < 8_192 && line.contains("\\...")));
                assert!(lines[1].ends_with("\\...\" 414 7"), "{}", lines[1]);
                let (text, _) = lines[1].split_once("\\...").unwrap();
                assert!(text.len() > 7_980, "{}", text.len());
            }
        }
        let line = [b'a'; 8_000];
        let entry = Entry { peer, line: &line, status: 200, sent: 7, error: None, cut: None };
        let mut out = Vec::new();
        entry.write(&mut out, |_| {});
        assert_eq!(out, [b"\"", &line[..], b"\" 200 7\n"].concat());
    }
}

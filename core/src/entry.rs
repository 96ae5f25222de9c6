//! The access-log entry of one exchange, and how its lines read.

use std::io::Write;

use crate::context::Peer;

/// What is known of a finished exchange.
#[derive(Clone, Copy, Debug)]
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

impl Entry<'_> {
    /// Appends the messages of this entry, each with `open` before it and a line end behind:
    /// `code 404, message File not found` for an error, `"GET / HTTP/1.1" 200 1024`, and why it was cut.
    ///
    /// The form is that of Python's `log_error` and `log_request`; its size, always `-` there, is
    /// the number of body bytes sent.
    pub fn write(&self, out: &mut Vec<u8>, open: impl Fn(&mut Vec<u8>)) {
        if let Some(message) = self.error {
            open(out);
            write!(out, "code {}, message ", self.status).expect("a Vec takes all");
            scrub(out, message);
            out.push(b'\n');
        }
        if self.status != 0 {
            open(out);
            out.push(b'"');
            scrub(out, self.line);
            writeln!(out, "\" {} {}", self.status, self.sent).expect("a Vec takes all");
        }
        if let Some(reason) = self.cut {
            open(out);
            out.push(b'"');
            scrub(out, self.line);
            writeln!(out, "\" cut after {} bytes: {reason}", self.sent).expect("a Vec takes all");
        }
    }
}

/// Appends `text` so that no terminal acts on it: control characters (U+0000 to U+001F, U+007F to
/// U+009F) and bytes that are not UTF-8 become `\xNN`, a backslash is doubled.
pub fn scrub(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.extend_from_slice(b"\\\\"),
                '\0'..='\x1f' | '\x7f'..='\u{9f}' => hex(out, c as u8),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &byte in chunk.invalid() {
            hex(out, byte);
        }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(text: &[u8]) -> String {
        let mut out = Vec::new();
        scrub(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_reaches_a_terminal_as_a_control_character() {
        assert_eq!(scrubbed(b"a\x1b[31m\x00\x7f\r\n\\"), "a\\x1b[31m\\x00\\x7f\\x0d\\x0a\\\\");
        assert_eq!(scrubbed("é\u{85}ö".as_bytes()), "é\\x85ö");
        assert_eq!(scrubbed(b"\xff\x9b"), "\\xff\\x9b");
    }
}

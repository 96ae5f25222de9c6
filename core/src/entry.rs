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
    /// the number of body bytes sent. A request line of which more than 8,000 bytes would be written is cut, and
    /// `\...` stands for the rest.
    pub fn write(&self, out: &mut Vec<u8>, open: impl Fn(&mut Vec<u8>)) {
        if let Some(message) = self.error {
            open(out);
            write!(out, "code {}, message ", self.status).expect("a Vec takes all");
            scrub_within(out, message, MOST_TEXT);
            out.push(b'\n');
        }
        if self.status != 0 {
            open(out);
            out.push(b'"');
            scrub_within(out, self.line, MOST_TEXT);
            writeln!(out, "\" {} {}", self.status, self.sent).expect("a Vec takes all");
        }
        if let Some(reason) = self.cut {
            open(out);
            out.push(b'"');
            scrub_within(out, self.line, MOST_TEXT);
            writeln!(out, "\" cut after {} bytes: {reason}", self.sent).expect("a Vec takes all");
        }
    }
}

/// What is written of one text: with the rest of its line that is less than 8 KiB.
const MOST_TEXT: usize = 8_000;

/// What stands where the rest of a text was left out. No text is written like this.
const CUT: &[u8] = b"\\...";

/// Appends `text` so that no terminal acts on it and that it can be read in one way only, also between quotation
/// marks: `"` and `\` become `\"` and `\\`; control characters of ASCII and bytes that are not UTF-8 become `\xNN`;
/// other control characters (U+0080 to U+009F), and those that are not seen but change how a line is read, such as the
/// bidirectional controls and the line separator, become `\u{202e}`.
pub fn scrub(out: &mut Vec<u8>, text: &[u8]) {
    scrub_within(out, text, usize::MAX);
}

/// The same, up to `most` bytes; `\...` stands for what is left out.
fn scrub_within(out: &mut Vec<u8>, text: &[u8], most: usize) {
    let most = out.len().saturating_add(most);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let before = out.len();
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\0'..='\x1f' | '\x7f' => hex(out, c as u8),
                // Not as a byte: U+009B is none, and 0x9b is no U+009B.
                _ if c.is_control() || is_deceptive(c) => {
                    write!(out, "{}", c.escape_unicode()).expect("a Vec takes all")
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            if out.len() > most {
                return cut_off(out, before);
            }
        }
        for &byte in chunk.invalid() {
            let before = out.len();
            hex(out, byte);
            if out.len() > most {
                return cut_off(out, before);
            }
        }
    }
}

fn cut_off(out: &mut Vec<u8>, len: usize) {
    out.truncate(len);
    out.extend_from_slice(CUT);
}

/// Whether a character is not seen, but changes how the text around it is shown or read: bidirectional controls,
/// line and paragraph separators, what has no width, and tags. Control characters are not among them.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
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
        assert_eq!(scrubbed("é\u{85}ö".as_bytes()), "é\\u{85}ö");
        assert_eq!(scrubbed(b"\xff\x9b\xc2"), "\\xff\\x9b\\xc2", "not as U+009B");
        assert_eq!(scrubbed("\u{9b}".as_bytes()), "\\u{9b}");
    }

    #[test]
    fn what_is_quoted_ends_where_it_seems_to() {
        assert_eq!(scrubbed(br#"GET /" 200 5" HTTP/1.1"#), r#"GET /\" 200 5\" HTTP/1.1"#);
        assert_eq!(scrubbed(br#"\""#), r#"\\\""#);
    }

    #[test]
    fn nothing_changes_how_a_line_is_read() {
        for c in
            "\u{ad}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}"
                .chars()
        {
            assert_eq!(scrubbed(format!("a{c}b").as_bytes()), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
        assert_eq!(scrubbed("é\u{5d0}\u{1f600}".as_bytes()), "é\u{5d0}\u{1f600}", "what is seen stays");
    }

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

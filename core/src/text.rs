//! Makes untrusted text safe to show in a log, on a terminal, in a page, or in a URI.

use std::io::Write;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

/// Appends `text` so that it has no effect on a terminal and is unambiguous, even between quotation marks: `"` and `\`
/// become `\"` and `\\`; ASCII control characters and bytes that are not UTF-8 become `\xNN`; other control characters
/// (U+0080 to U+009F), and invisible ones that change how a line is read, such as bidirectional controls and the line
/// separator, become `\u{202e}`.
pub fn scrub(out: &mut Vec<u8>, text: &[u8]) {
    scrub_within(out, text, usize::MAX);
}

/// Like [`scrub`], but at most `most` bytes, with `\...` for the rest.
pub(crate) fn scrub_within(out: &mut Vec<u8>, text: &[u8], most: usize) {
    // Most text needs no escaping.
    let plain = text.iter().take(most).take_while(|&&byte| is_plain(byte)).count();
    let (plain, text) = text.split_at(plain);
    let most = out.len().saturating_add(most);
    out.extend_from_slice(plain);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let before = out.len();
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\0'..='\x1f' | '\x7f' => hex(out, c as u8),
                // Not as a byte: the character U+009B is different from the byte 0x9b.
                _ if c.is_control() || is_deceptive(c) => {
                    write!(out, "{}", c.escape_unicode()).expect("writing to a Vec does not fail")
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

/// Whether a byte is copied as it is, whatever its neighbours are.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn cut_off(out: &mut Vec<u8>, len: usize) {
    out.truncate(len);
    out.extend_from_slice(CUT);
}

/// Whether a character is invisible, but changes how the text around it is displayed or read: bidirectional controls,
/// line and paragraph separators, zero-width characters, and tags. Does not include control characters.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a Vec does not fail");
}

/// Marks where text was truncated. Escaped text cannot contain it.
const CUT: &[u8] = b"\\...";

/// Appends `text` with `&`, `<` and `>` escaped, which is safe between tags (Python's `quote=False`). Bytes that are
/// not UTF-8, and invisible characters as for [`escape`], become U+FFFD.
pub(crate) fn escape_text(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, false);
}

/// Appends `text` escaped for any place in HTML. Bytes that are not UTF-8 become U+FFFD. So do control characters,
/// since a page may be shown on a terminal, and characters that change how the text around them is displayed
/// ([`is_deceptive`]).
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, true);
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// The bytes that are not copied as they are, or that have to be decoded first.
static SPECIAL: [bool; 256] = {
    let mut special = [true; 256];
    let mut byte = 0;
    while byte < 128 {
        let is = byte as u8;
        special[byte] = is.is_ascii_control() || matches!(is, b'&' | b'<' | b'>' | b'"' | b'\'');
        byte += 1;
    }
    special
};

fn escape_with(text: &[u8], out: &mut Vec<u8>, quotes: bool) {
    if !text.iter().any(|&byte| SPECIAL[usize::from(byte)]) {
        return out.extend_from_slice(text);
    }
    // Nearly all text is valid UTF-8, which is faster to check at once.
    if let Ok(text) = std::str::from_utf8(text) {
        return escape_visible(text, out, quotes);
    }
    for chunk in text.utf8_chunks() {
        escape_visible(chunk.valid(), out, quotes);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(REPLACEMENT);
        }
    }
}

/// Escapes visible characters, and replaces invisible ones.
fn escape_visible(text: &str, out: &mut Vec<u8>, quotes: bool) {
    let mut rest = text;
    let is_invisible = |&(_, c): &(usize, char)| is_deceptive(c) || (!c.is_ascii() && c.is_control());
    // Most text is ASCII, or has no character of this kind.
    let first = |rest: &str| if rest.is_ascii() { None } else { rest.char_indices().find(is_invisible) };
    while let Some((at, c)) = first(rest) {
        escape_valid(&rest[..at], out, quotes);
        out.extend_from_slice(REPLACEMENT);
        rest = &rest[at + c.len_utf8()..];
    }
    escape_valid(rest, out, quotes);
}

fn escape_valid(text: &str, out: &mut Vec<u8>, quotes: bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte.is_ascii() && SPECIAL[usize::from(byte)]) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'"' if quotes => b"&quot;",
            b'\'' if quotes => b"&#x27;",
            b'"' => b"\"",
            b'\'' => b"'",
            _ => REPLACEMENT,
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The characters that need no percent-encoding in a path (Python's `quote`).
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// Appends a decoded path so that it is valid in a URI.
pub(crate) fn encode_path(path: &[u8], out: &mut Vec<u8>) {
    percent_encode(path, PATH).for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Appends a part of a target so that it is a valid URI reference: bytes that are not permitted in one (RFC 3986
/// section 2) are percent-encoded, and all others are kept. A backslash is encoded too, because browsers treat it as a
/// slash.
pub(crate) fn encode_uri(text: &[u8], out: &mut Vec<u8>) {
    const KEEP: &AsciiSet =
        &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');
    percent_encode(text, KEEP).for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_truncated_at_a_character_boundary() {
        let within = |text: &str, most| {
            let mut out = b"> ".to_vec();
            scrub_within(&mut out, text.as_bytes(), most);
            String::from_utf8(out).unwrap()
        };
        for (text, most, shown) in [
            ("GET /", 6, "> GET /"),
            ("GET /", 5, "> GET /"),
            ("GET /", 4, "> GET \\..."),
            ("GET /", 0, "> \\..."),
            ("GET \"/", 7, "> GET \\\"/"),
            ("GET \"/", 6, "> GET \\\"\\..."),
            ("GET \"/", 5, "> GET \\..."),
            ("\u{e9}tude", 6, "> \u{e9}tude"),
            ("\u{e9}tude", 1, "> \\..."),
            ("", 0, "> "),
        ] {
            assert_eq!(within(text, most), shown, "{text} within {most}");
        }
    }

    fn scrubbed(text: &[u8]) -> String {
        let mut out = Vec::new();
        scrub(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scrub_escapes_control_characters() {
        assert_eq!(scrubbed(b"a\x1b[31m\x00\x7f\r\n\\"), "a\\x1b[31m\\x00\\x7f\\x0d\\x0a\\\\");
        assert_eq!(scrubbed("é\u{85}ö".as_bytes()), "é\\u{85}ö");
        assert_eq!(scrubbed(b"\xff\x9b\xc2"), "\\xff\\x9b\\xc2", "not as U+009B");
        assert_eq!(scrubbed("\u{9b}".as_bytes()), "\\u{9b}");
    }

    #[test]
    fn scrub_escapes_quotation_marks() {
        assert_eq!(scrubbed(br#"GET /" 200 5" HTTP/1.1"#), r#"GET /\" 200 5\" HTTP/1.1"#);
        assert_eq!(scrubbed(br#"\""#), r#"\\\""#);
    }

    #[test]
    fn scrub_escapes_deceptive_characters() {
        for c in
            "\u{ad}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}"
                .chars()
        {
            assert_eq!(scrubbed(format!("a{c}b").as_bytes()), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
        assert_eq!(scrubbed("é\u{5d0}\u{1f600}".as_bytes()), "é\u{5d0}\u{1f600}", "visible characters are kept");
    }

    #[test]
    fn markup_in_messages_is_escaped() {
        let mut out = Vec::new();
        escape_text(b"<b>&'\xff", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "&lt;b&gt;&amp;'\u{fffd}");
    }

    #[test]
    fn control_characters_are_replaced_in_html() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte, b'b'];
            let (mut strict, mut plain) = (Vec::new(), Vec::new());
            escape(&text, &mut strict);
            escape_text(&text, &mut plain);
            let (strict, plain) = (String::from_utf8(strict).unwrap(), String::from_utf8(plain).unwrap());
            assert!(!strict.contains(char::is_control) && !plain.contains(char::is_control));
            if byte.is_ascii_control() || !byte.is_ascii() {
                assert_eq!((strict.as_str(), plain.as_str()), ("a\u{fffd}b", "a\u{fffd}b"));
            }
        }
        let mut out = Vec::new();
        escape("é\u{202e}<\u{2028}\u{85}\u{5d0}\u{200f}".as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "é\u{fffd}&lt;\u{fffd}\u{fffd}\u{5d0}\u{fffd}");
        let mut out = Vec::new();
        escape("\x1b[31m\u{e4}\r\n\t<\x7f\"'".as_bytes(), &mut out);
        escape(b"\x1b\xe2\x82&\xff", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\u{fffd}[31m\u{e4}\u{fffd}\u{fffd}\u{fffd}&lt;\u{fffd}&quot;&#x27;\u{fffd}\u{fffd}&amp;\u{fffd}"
        );
    }
}

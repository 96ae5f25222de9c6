//! Makes untrusted text safe to show in a log, on a terminal, in a page, or in a URI.

use std::io::Write;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use crate::tables::byte_table;

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
        let valid = chunk.valid().chars().map(Ok);
        for each in valid.chain(chunk.invalid().iter().copied().map(Err)) {
            let before = out.len();
            scrub_one(out, each);
            if out.len() > most {
                out.truncate(before);
                return out.extend_from_slice(CUT);
            }
        }
    }
}

/// Appends a character, or a byte that is not UTF-8.
fn scrub_one(out: &mut Vec<u8>, each: Result<char, u8>) {
    let written = match each {
        Ok(c @ ('"' | '\\')) => write!(out, "\\{c}"),
        Ok(c @ ('\0'..='\x1f' | '\x7f')) => write!(out, "\\x{:02x}", c as u8),
        // Not as a byte: the character U+009B is different from the byte 0x9b.
        Ok(c) if c.is_control() || is_deceptive(c) => write!(out, "{}", c.escape_unicode()),
        Ok(c) => return out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        Err(byte) => write!(out, "\\x{byte:02x}"),
    };
    written.expect("writing to a Vec does not fail");
}

/// Whether a byte is copied as it is, whatever its neighbours are.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Whether a character is invisible, but changes how the text around it is displayed or read: bidirectional controls,
/// line and paragraph separators, zero-width characters, and tags. Does not include control characters.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
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

const REPLACEMENT: &str = "\u{fffd}";

/// The bytes that are not copied as they are, or that have to be decoded first.
static SPECIAL: [bool; 256] = byte_table!(byte => {
    !byte.is_ascii() || byte.is_ascii_control() || matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')
});

fn escape_with(text: &[u8], out: &mut Vec<u8>, quotes: bool) {
    if !text.iter().any(|&byte| SPECIAL[usize::from(byte)]) {
        return out.extend_from_slice(text);
    }
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((at, c, escaped)) = first_escaped(rest, quotes) {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            out.extend_from_slice(escaped.as_bytes());
            rest = &rest[at + c.len_utf8()..];
        }
        out.extend_from_slice(rest.as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(REPLACEMENT.as_bytes());
        }
    }
}

/// The first character that is not copied as it is, with its place, and what replaces it.
fn first_escaped(text: &str, quotes: bool) -> Option<(usize, char, &'static str)> {
    text.char_indices().find_map(|(at, c)| {
        let escaped = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' if quotes => "&quot;",
            '\'' if quotes => "&#x27;",
            _ if c.is_control() || is_deceptive(c) => REPLACEMENT,
            _ => return None,
        };
        Some((at, c, escaped))
    })
}

/// The characters that need no percent-encoding in a path (Python's `quote`).
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// Appends a decoded path so that it is valid in a URI.
pub(crate) fn encode_path(path: &[u8], out: &mut Vec<u8>) {
    percent_encode(path, PATH).for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Bytes that no URI contains (RFC 3986 section 2). A backslash is one of them, which browsers treat as a slash.
pub(crate) const NOT_IN_URIS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// Appends a part of a target so that it is a valid URI reference: bytes that are not permitted in one are
/// percent-encoded, and all others are kept.
pub(crate) fn encode_uri(text: &[u8], out: &mut Vec<u8>) {
    percent_encode(text, NOT_IN_URIS).for_each(|part| out.extend_from_slice(part.as_bytes()));
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

//! The page of an error, byte for byte that of Python 3.14, and HTML escaping.

use crate::entry::is_deceptive;
use crate::status::Status;

/// What an error page says.
#[derive(Clone, Copy, Debug)]
pub struct ErrorPage<'a> {
    /// The status of the answer.
    pub status: Status,
    /// What went wrong; not escaped.
    pub message: &'a [u8],
    /// What the status means; not escaped.
    pub explanation: &'a str,
}

/// Appends the default page.
pub fn write(page: &ErrorPage<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"<!DOCTYPE HTML>\n<html lang=\"en\">\n    <head>\n        <meta charset=\"utf-8\">\n        \
          <style type=\"text/css\">\n            :root {\n                color-scheme: light dark;\n            }\n        \
          </style>\n        <title>Error response</title>\n    </head>\n    <body>\n        <h1>Error response</h1>\n        ",
    );
    let mut digits = itoa::Buffer::new();
    let code = digits.format(page.status.code()).as_bytes();
    out.extend_from_slice(b"<p>Error code: ");
    out.extend_from_slice(code);
    out.extend_from_slice(b"</p>\n        <p>Message: ");
    escape_text(page.message, out);
    out.extend_from_slice(b".</p>\n        <p>Error code explanation: ");
    out.extend_from_slice(code);
    out.extend_from_slice(b" - ");
    escape_text(page.explanation.as_bytes(), out);
    out.extend_from_slice(b".</p>\n    </body>\n</html>\n");
}

/// Appends `text` with `&`, `<` and `>` escaped: safe between tags (Python's `quote=False`). What is
/// not UTF-8 becomes U+FFFD, and so does each character that is not seen, as for [`escape`].
fn escape_text(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, false);
}

/// Appends `text` escaped for any place in HTML. What is not UTF-8 becomes U+FFFD, and so does each
/// control character, since a page may end up on a terminal, and each character that would change how the text
/// around it is shown ([`is_deceptive`]).
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, true);
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// The bytes that may not stand in a page as they are.
static SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let is = byte as u8;
        special[byte] = is.is_ascii_control() || matches!(is, b'&' | b'<' | b'>' | b'"' | b'\'');
        byte += 1;
    }
    special
};

fn escape_with(text: &[u8], out: &mut Vec<u8>, quotes: bool) {
    // Nearly all text is UTF-8, which is checked faster as a whole.
    if let Ok(text) = str::from_utf8(text) {
        return escape_seen(text, out, quotes);
    }
    for chunk in text.utf8_chunks() {
        escape_seen(chunk.valid(), out, quotes);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(REPLACEMENT);
        }
    }
}

/// Escapes what is seen, and replaces what is not.
fn escape_seen(text: &str, out: &mut Vec<u8>, quotes: bool) {
    let mut rest = text;
    // Most text is ASCII, or has no character of this kind.
    while !rest.is_ascii()
        && let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_deceptive(c) || (!c.is_ascii() && c.is_control()))
    {
        escape_valid(&rest[..at], out, quotes);
        out.extend_from_slice(REPLACEMENT);
        rest = &rest[at + c.len_utf8()..];
    }
    escape_valid(rest, out, quotes);
}

fn escape_valid(text: &str, out: &mut Vec<u8>, quotes: bool) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| SPECIAL[usize::from(byte)]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_pythons() {
        let mut out = Vec::new();
        write(
            &ErrorPage {
                status: Status::NOT_FOUND,
                message: b"File not found",
                explanation: Status::NOT_FOUND.explanation(),
            },
            &mut out,
        );
        let expected = "<!DOCTYPE HTML>
<html lang=\"en\">
    <head>
        <meta charset=\"utf-8\">
        <style type=\"text/css\">
            :root {
                color-scheme: light dark;
            }
        </style>
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: 404</p>
        <p>Message: File not found.</p>
        <p>Error code explanation: 404 - Nothing matches the given URI.</p>
    </body>
</html>
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn messages_are_escaped() {
        let mut out = Vec::new();
        escape_text(b"<b>&'\xff", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "&lt;b&gt;&amp;'\u{fffd}");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
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

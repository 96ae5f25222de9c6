//! The page of an error, byte for byte that of Python 3.14, and HTML escaping.

use std::io::Write;

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
    let code = page.status.code();
    write!(out, "<p>Error code: {code}</p>\n        <p>Message: ").expect("a Vec takes all");
    escape_text(page.message, out);
    write!(out, ".</p>\n        <p>Error code explanation: {code} - ").expect("a Vec takes all");
    escape_text(page.explanation.as_bytes(), out);
    out.extend_from_slice(b".</p>\n    </body>\n</html>\n");
}

/// Appends `text` with `&`, `<` and `>` escaped: safe between tags (Python's `quote=False`).
fn escape_text(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, false);
}

/// Appends `text` escaped for any place in HTML; what is not UTF-8 becomes U+FFFD.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    escape_with(text, out, true);
}

fn escape_with(text: &[u8], out: &mut Vec<u8>, quotes: bool) {
    for chunk in text.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'&' => out.extend_from_slice(b"&amp;"),
                b'<' => out.extend_from_slice(b"&lt;"),
                b'>' => out.extend_from_slice(b"&gt;"),
                b'"' if quotes => out.extend_from_slice(b"&quot;"),
                b'\'' if quotes => out.extend_from_slice(b"&#x27;"),
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
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
}

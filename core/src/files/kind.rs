//! Media types by extension (Python's `guess_type`), the same on every machine.

/// What comes before the general table: Python's `extensions_map`, its suffix map, and what
/// mime_guess has otherwise than Python. No Content-Encoding is ever sent, so a compressed file is
/// what it is.
const FIRST: &[(&str, &str)] = &[
    ("html", "text/html"),
    ("js", "text/javascript"),
    ("mjs", "text/javascript"),
    ("gz", "application/gzip"),
    ("z", "application/octet-stream"),
    ("bz2", "application/x-bzip2"),
    ("xz", "application/x-xz"),
    ("tgz", "application/x-tar"),
    ("svgz", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("py", "text/x-python"),
];

/// The type of what has no known extension.
const UNKNOWN: &str = "application/octet-stream";

/// The media type for a path, without parameters.
#[must_use]
pub fn media_type(path: &[u8]) -> &'static str {
    let Some(extension) = extension(path) else { return UNKNOWN };
    if extension == "html" {
        return FIRST[0].1;
    }
    if let Some((_, kind)) = FIRST.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)) {
        return kind;
    }
    mime_guess::from_ext(extension).first_raw().unwrap_or(UNKNOWN)
}

/// What follows the last dot of the last component, as Python's `splitext` has it: leading dots
/// begin no extension.
fn extension(path: &[u8]) -> Option<&str> {
    let mark = path.iter().rposition(|byte| matches!(byte, b'.' | b'/'))?;
    let (before, extension) = (&path[..mark], &path[mark + 1..]);
    let starts_name = |at: &[u8]| matches!(at, [] | [.., b'/']);
    let leading = before.iter().rev().take_while(|&&byte| byte == b'.').count();
    if path[mark] == b'/' || starts_name(&before[..before.len() - leading]) {
        return None;
    }
    std::str::from_utf8(extension).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (path, kind) in [
            ("a.txt", "text/plain"),
            ("d.d/a", UNKNOWN),
            ("a.HTML", "text/html"),
            ("a.tar.gz", "application/gzip"),
            ("a.Z", UNKNOWN),
            ("a.tgz", "application/x-tar"),
            ("a.svgz", "image/svg+xml"),
            ("a.svg", "image/svg+xml"),
            ("a.js", "text/javascript"),
            ("a.wasm", "application/wasm"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.no-such-thing", UNKNOWN),
            (".html", UNKNOWN),
            ("x/..html", UNKNOWN),
            ("x/.a.html", "text/html"),
            ("x/a..html", "text/html"),
            ("a.html/b", UNKNOWN),
            ("a.", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(media_type(path.as_bytes()), kind, "{path}");
        }
        assert_eq!(media_type(b"a.\xff"), UNKNOWN);
    }
}

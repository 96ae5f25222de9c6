//! Media types by extension (Python's `guess_type`), the same on every machine.

use crate::reason::{Reasons, Rule};

/// What comes before the general table: Python's `extensions_map`, its suffix map, and what
/// mime_guess has otherwise than Python. No Content-Encoding is ever sent, so a compressed file is
/// what it is.
const FIRST: &[(&str, &str, Rule)] = &[
    ("html", "text/html", Rule::TypeOfExtension),
    ("js", "text/javascript", Rule::TypeOfPython),
    ("mjs", "text/javascript", Rule::TypeOfPython),
    ("gz", "application/gzip", Rule::TypeOfCompressed),
    ("z", "application/octet-stream", Rule::TypeOfCompressed),
    ("bz2", "application/x-bzip2", Rule::TypeOfCompressed),
    ("xz", "application/x-xz", Rule::TypeOfCompressed),
    ("tgz", "application/x-tar", Rule::TypeOfCompressed),
    ("svgz", "image/svg+xml", Rule::TypeOfCompressed),
    ("wasm", "application/wasm", Rule::TypeOfPython),
    ("py", "text/x-python", Rule::TypeOfPython),
];

/// The type of what has no known extension.
const UNKNOWN: &str = "application/octet-stream";

/// The media type for a path, without parameters.
#[must_use]
pub fn media_type(path: &[u8]) -> &'static str {
    find(path).0
}

/// The media type for a path, and by which rule.
fn find(path: &[u8]) -> (&'static str, Rule) {
    let Some(extension) = extension(path) else { return (UNKNOWN, Rule::TypeWithoutExtension) };
    if extension == FIRST[0].0 {
        return (FIRST[0].1, FIRST[0].2);
    }
    if let Some((_, kind, rule)) = FIRST.iter().find(|(known, ..)| known.eq_ignore_ascii_case(extension)) {
        return (kind, *rule);
    }
    match mime_guess::from_ext(extension).first_raw() {
        Some(kind) => (kind, Rule::TypeOfExtension),
        None => (UNKNOWN, Rule::TypeUnknown),
    }
}

/// Notes by which rule `kind` is the type for `path`.
pub(super) fn explain(path: &[u8], kind: &str, reasons: &mut Reasons) {
    let (ours, rule) = find(path);
    reasons.note(if ours == kind { rule } else { Rule::TypeOfSite }, kind.as_bytes());
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

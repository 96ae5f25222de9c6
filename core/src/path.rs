//! From the path of a target to a path below the root (Python's `translate_path`). Which path of several is the same
//! one is decided here too; nothing is looked up in a file system.

use percent_encoding::percent_decode;

use crate::reason::{Reasons, Rule};
use crate::request::{Request, split_path};

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forbidden {
    /// It contains an encoded NUL, which no file name can contain.
    Nul,
}

/// Appends the path below the root that `path` refers to: decoded once, with `.`, `..` and empty segments resolved,
/// without leading or trailing slash. `..` at the root stays at the root. Invalid escapes are kept, `+` has no special
/// meaning, and the bytes need not be UTF-8. The result contains no NUL if `path` does not.
///
/// # Errors
/// [`Forbidden::Nul`] for an encoded NUL.
pub fn translate(path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
    match plain(path) {
        Some(plain) => out.extend_from_slice(plain),
        None => _ = translate_with_steps(path, out)?,
    }
    Ok(())
}

/// What the translation of a path required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    /// The number of escapes that were decoded.
    escapes: usize,
    /// Whether a segment was `.` or `..`.
    dots: bool,
    /// Whether there was a `..` at the root.
    clamped: bool,
    /// Whether a segment before the last one was empty.
    empty: bool,
}

/// Translates a path, and returns what that required.
fn translate_with_steps(path: &[u8], out: &mut Vec<u8>) -> Result<Steps, Forbidden> {
    let start = out.len();
    // Decoded and resolved in the output, so that nothing is allocated.
    let mut escapes = 0;
    if memchr::memchr(b'%', path).is_none() {
        out.extend_from_slice(path);
    } else {
        out.extend(percent_decode(path));
        escapes = (path.len() - (out.len() - start)) / 2;
        if memchr::memchr(0, &out[start..]).is_some() {
            return Err(Forbidden::Nul);
        }
    }
    Ok(Steps { escapes, ..resolve_in_place(start, out) })
}

/// Records the part of a target that follows the path.
pub(crate) fn explain_rest(request: &Request<'_>, reasons: &mut Reasons) {
    let rest = split_path(request.path_and_query()).1;
    match rest {
        [b'?', ..] => reasons.note(Rule::QueryCut, rest),
        [b'#', ..] => reasons.note(Rule::FragmentCut, rest),
        _ => {}
    }
}

/// Records how the path of a request became `result`.
pub(crate) fn explain_path(request: &Request<'_>, result: &[u8], reasons: &mut Reasons) {
    if split_path(request.path_and_query()).0.is_empty() {
        reasons.note(Rule::EmptyPath, request.path());
    }
    let path = request.path();
    let mut ours = Vec::new();
    // A forbidden path is recorded as a violation.
    let Ok(steps) = translate_with_steps(path, &mut ours) else { return };
    if ours != result {
        return reasons.note(Rule::PolicyTranslated, or_dot(result));
    }
    if steps.escapes > 0 {
        reasons.note_with(Rule::Decoded, |out| out.extend(percent_decode(path)));
    }
    if memchr::memchr_iter(b'%', path).count() > steps.escapes {
        reasons.note(Rule::BadEscape, path);
    }
    let rules = [
        (steps.dots, Rule::DotSegments),
        (steps.clamped, Rule::Clamped),
        (steps.empty, Rule::EmptySegments),
        (has_trailing_slash(path), Rule::TrailingSlash),
    ];
    for (_, rule) in rules.iter().filter(|(applies, _)| *applies) {
        reasons.note(*rule, b"");
    }
    reasons.note(Rule::PathBelowRoot, or_dot(result));
}

fn or_dot(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// Whether a segment of `path`, decoded and resolved, begins with a dot.
pub(crate) fn names_dotfile(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|name| name.starts_with(b"."))
}

/// The path itself, if nothing has to be decoded or resolved: no `%`, no `//`, no segment that begins with a dot, no
/// slash at the end.
fn plain(path: &[u8]) -> Option<&[u8]> {
    // Most bytes of a path are letters, which are greater than the special ones.
    let is_odd = |at, byte| match byte {
        b'0'.. => false,
        b'%' => true,
        b'/' => matches!(path.get(at + 1), None | Some(b'/' | b'.')),
        _ => false,
    };
    if path.iter().enumerate().any(|(at, &byte)| is_odd(at, byte)) { None } else { path.strip_prefix(b"/") }
}

/// Resolves the segments of the path in `out` from `start` on.
fn resolve_in_place(start: usize, out: &mut Vec<u8>) -> Steps {
    let (mut read, mut write) = (start, start);
    let end = out.len();
    let mut steps = Steps::default();
    while read < end {
        let len = out[read..end].iter().position(|&byte| byte == b'/').unwrap_or(end - read);
        match &out[read..read + len] {
            // The segment before the first slash is always empty.
            b"" => steps.empty |= read > start,
            b"." => steps.dots = true,
            b".." => {
                steps.dots = true;
                steps.clamped |= write == start;
                let parent = out[start..write].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                write = start + parent;
            }
            _ => {
                if write > start {
                    out[write] = b'/';
                    write += 1;
                }
                out.copy_within(read..read + len, write);
                write += len;
            }
        }
        read += len + 1;
    }
    out.truncate(write);
    steps
}

/// Whether a path ends with a slash, encoded or not, so that it refers to a directory.
pub(crate) fn has_trailing_slash(path: &[u8]) -> bool {
    matches!(path, [.., b'/'] | [.., b'%', b'2', b'f' | b'F'])
}

/// Whether two paths are equivalent, even if they are spelled differently (RFC 3986 section 6.2.2). Only allocates if a
/// path contains escapes, dots or empty segments.
#[inline(never)]
pub(crate) fn is_same_path(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    if has_trailing_slash(one) != has_trailing_slash(other) || (plain(one).is_some() && plain(other).is_some()) {
        return false;
    }
    let (mut here, mut there) = (Vec::new(), Vec::new());
    translate(one, &mut here).is_ok() && translate(other, &mut there).is_ok() && here == there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_paths_are_recognized() {
        for same in ["/a/b", "/a/%62", "/%61%2Fb", "//a/./b", "/x/../a//b", "/../a/b"] {
            assert!(is_same_path(same.as_bytes(), b"/a/b") && is_same_path(b"/a/b", same.as_bytes()), "{same}");
        }
        for other in ["/a/b/", "/a/b%2f", "/a/B", "/a%2562", "/a/%2562", "/a", "/", "/a/b%00", "/a/b/c", "*"] {
            assert!(!is_same_path(other.as_bytes(), b"/a/b"), "{other}");
        }
        assert!(is_same_path(b"/%C3%A9", b"/%c3%a9") && is_same_path(b"/a/%2e%2e/", b"/"));
    }

    fn translated(path: &[u8]) -> Vec<u8> {
        let mut out = b"kept".to_vec();
        translate(path, &mut out).unwrap();
        assert_eq!(&out[..4], b"kept");
        out.split_off(4)
    }

    #[test]
    fn dot_segments_are_resolved_and_clamped() {
        for (path, expected) in [
            (&b""[..], &b""[..]),
            (b"/", b""),
            (b"/a/b", b"a/b"),
            (b"//a///b/", b"a/b"),
            (b"/a/./b/../c", b"a/c"),
            (b"/../../a", b"a"),
            (b"/a/..", b""),
            (b"/a/../../..", b""),
            (b"/..%2f..%2fetc/passwd", b"etc/passwd"),
            (b"/%2e%2E/a", b"a"),
            (b"/%252e%252e/a", b"%2e%2e/a"),
            (b"/a%2Fb", b"a/b"),
            (b"/%2f%2fa%2f", b"a"),
            (b"/a%20b+c", b"a b+c"),
            (b"/a%zz%4", b"a%zz%4"),
            (b"/%ff\xfe", b"\xff\xfe"),
            (b"/...%2f....", b".../...."),
            (b"/a/b%2f..%2f../%2e/c", b"c"),
            (b"/x%2fa/..\\..\\b", b"x/a/..\\..\\b"),
        ] {
            assert_eq!(translated(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn an_encoded_nul_is_refused() {
        assert_eq!(translate(b"/a%00b", &mut Vec::new()), Err(Forbidden::Nul));
        assert_eq!(translate(b"/a%00/../b", &mut Vec::new()), Err(Forbidden::Nul));
    }

    #[test]
    fn encoded_and_plain_paths_resolve_alike() {
        let parts: [&[u8]; 7] = [b"a", b"..", b".", b"", b"bc", b"...", b"/"];
        for n in 0..7_usize.pow(4) {
            let path: Vec<u8> = (0..4).flat_map(|i| [b"/", parts[n / 7_usize.pow(i) % 7]].concat()).collect();
            let mut encoded = path.clone();
            encoded.extend_from_slice(b"/%61");
            let mut plain = path;
            plain.extend_from_slice(b"/a");
            assert_eq!(translated(&encoded), translated(&plain), "{}", plain.escape_ascii());
        }
    }

    #[test]
    fn resolving_does_not_change_a_plain_path() {
        for path in ["/a", "/a/b.c", "/a/b", "/", "/a/", "//a", "/a//b", "/.a", "/a/..", "/a%20", "a", ""] {
            let mut resolved = path.as_bytes().to_vec();
            resolve_in_place(0, &mut resolved);
            if let Some(plain) = plain(path.as_bytes()) {
                assert_eq!(plain, resolved, "{path}");
            }
        }
        assert_eq!(plain(b"/a/b.c"), Some(&b"a/b.c"[..]));
    }

    #[test]
    fn the_steps_of_a_translation_are_returned() {
        let steps = |path: &[u8]| translate_with_steps(path, &mut Vec::new()).unwrap();
        let none = Steps::default();
        for (path, expected) in [
            (&b"/a/b"[..], none),
            (b"/a/", none),
            (b"/", none),
            (b"/a//b", Steps { empty: true, ..none }),
            (b"/a%2f/", Steps { empty: true, escapes: 1, ..none }),
            (b"/a/./b", Steps { dots: true, ..none }),
            (b"/a/..", Steps { dots: true, ..none }),
            (b"/a/../..", Steps { dots: true, clamped: true, ..none }),
            (b"/%2e%2e/%41%zz%", Steps { dots: true, clamped: true, escapes: 3, ..none }),
        ] {
            assert_eq!(steps(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn a_trailing_slash_may_be_encoded() {
        assert!(has_trailing_slash(b"/a/") && has_trailing_slash(b"/a%2F") && has_trailing_slash(b"/a%2f"));
        assert!(!has_trailing_slash(b"/a") && !has_trailing_slash(b"") && !has_trailing_slash(b"/a/%2e"));
    }
}

//! From the path of a target to a path below the root (Python's `translate_path`).

use percent_encoding::percent_decode;

/// Why a path is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// It holds an encoded NUL, which no file name can.
    Nul,
}

/// Appends the path below the root that `path` means: decoded once, `.`, `..` and empty components
/// resolved, `..` clamped at the root, no leading or trailing slash. Invalid escapes stay as they
/// are, `+` is itself, and the bytes need not be UTF-8. The result holds no NUL, for `path` has none.
pub fn translate(path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
    let start = out.len();
    if let Some(plain) = plain(path) {
        out.extend_from_slice(plain);
        return Ok(());
    }
    if memchr::memchr(b'%', path).is_none() {
        resolve(path, start, out);
        return Ok(());
    }
    // Decoded and resolved where the result will stand, so that nothing is allocated.
    out.extend(percent_decode(path));
    if memchr::memchr(0, &out[start..]).is_some() {
        return Err(Forbidden::Nul);
    }
    resolve_in_place(start, out);
    Ok(())
}

/// Whether a component of `path`, decoded and resolved, begins with a dot.
pub(crate) fn names_dotfile(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|name| name.starts_with(b"."))
}

/// The path itself, where nothing is to be decoded or resolved: no `%`, no `//`, no component that
/// begins with a dot, no slash at its end.
fn plain(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let mut before = b'/';
    for &byte in rest {
        if byte == b'%' || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return None;
        }
        before = byte;
    }
    (before != b'/').then_some(rest)
}

/// Appends the components of `path`.
fn resolve(path: &[u8], start: usize, out: &mut Vec<u8>) {
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => pop(start, out),
            name => {
                if out.len() > start {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
            }
        }
    }
}

/// The same for a path that stands in `out` from `start` on.
fn resolve_in_place(start: usize, out: &mut Vec<u8>) {
    let (mut read, mut write) = (start, start);
    let end = out.len();
    while read < end {
        let len = out[read..end].iter().position(|&byte| byte == b'/').unwrap_or(end - read);
        match &out[read..read + len] {
            b"" | b"." => {}
            b".." => {
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
}

fn pop(start: usize, out: &mut Vec<u8>) {
    let parent = out[start..].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    out.truncate(start + parent);
}

/// Whether a path asks for a directory: it ends with a slash, as it is or encoded.
pub(crate) fn has_trailing_slash(path: &[u8]) -> bool {
    matches!(path, [.., b'/'] | [.., b'%', b'2', b'f' | b'F'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(path: &[u8]) -> Vec<u8> {
        let mut out = b"kept".to_vec();
        translate(path, &mut out).unwrap();
        assert_eq!(&out[..4], b"kept");
        out.split_off(4)
    }

    #[test]
    fn resolves_and_clamps() {
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
    fn refuses_nul() {
        assert_eq!(translate(b"/a%00b", &mut Vec::new()), Err(Forbidden::Nul));
        assert_eq!(translate(b"/a%00/../b", &mut Vec::new()), Err(Forbidden::Nul));
    }

    #[test]
    fn both_ways_agree() {
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
    fn a_plain_path_is_what_resolving_makes_of_it() {
        for path in ["/a", "/a/b.c", "/a/b", "/", "/a/", "//a", "/a//b", "/.a", "/a/..", "/a%20", "a", ""] {
            let mut resolved = Vec::new();
            resolve(path.as_bytes(), 0, &mut resolved);
            if let Some(plain) = plain(path.as_bytes()) {
                assert_eq!(plain, resolved, "{path}");
            }
        }
        assert_eq!(plain(b"/a/b.c"), Some(&b"a/b.c"[..]));
    }

    #[test]
    fn trailing_slashes() {
        assert!(has_trailing_slash(b"/a/") && has_trailing_slash(b"/a%2F") && has_trailing_slash(b"/a%2f"));
        assert!(!has_trailing_slash(b"/a") && !has_trailing_slash(b"") && !has_trailing_slash(b"/a/%2e"));
    }
}

//! Which targets mean a script: Python's path collapse and its search for a CGI directory.

use percent_encoding::percent_decode;

use crate::files::{Forbidden, translate};

/// The path of a target, decoded once and resolved, in two parts with one slash between them: the
/// directory, and the last component, which is empty where the path ends with a slash (Python's
/// `_url_collapse_path`). The directory of a path at the root is `/`, so `/a` becomes `//a`. `path` has
/// no query; `..` is clamped at the root.
///
/// # Errors
/// If the path holds an encoded NUL.
pub fn collapse_path(path: &[u8]) -> Result<Vec<u8>, Forbidden> {
    let mut collapsed = b"/".to_vec();
    collapse(path, &mut collapsed)?;
    Ok(collapsed)
}

/// Appends the same behind the slash that `out` ends with.
pub(super) fn collapse(path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
    let start = out.len();
    translate(path, out)?;
    if ends_with_directory(path) {
        out.push(b'/');
    } else if memchr::memchr(b'/', &out[start..]).is_none() {
        out.insert(start, b'/');
    }
    Ok(())
}

/// Whether the last component of a path is empty, `.` or `..`, as it is or encoded.
fn ends_with_directory(path: &[u8]) -> bool {
    let from = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let decoded: Vec<u8> = percent_decode(&path[from..]).collect();
    let last = decoded.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..")
}

/// The length of the directory of scripts that a collapsed path begins with; the shortest that is
/// followed by a slash wins (Python's `is_cgi`; only that `/` is really all paths). `None`: it means no
/// script.
#[must_use]
pub fn is_cgi(collapsed: &[u8], directories: &[String]) -> Option<usize> {
    if directories.iter().any(|directory| directory == "/") {
        // Everything: its name ends before the slash that all the others begin with.
        return Some(if collapsed.starts_with(b"//") { 1 } else { 0 });
    }
    let slashes = collapsed.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/');
    slashes.map(|(at, _)| at).find(|&at| directories.iter().any(|directory| directory.as_bytes() == &collapsed[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPython's own (`test_url_collapse_path`); where it raises an error, `..` is clamped.
    #[test]
    fn collapses_as_python_does() {
        for (path, collapsed) in [
            ("", "//"),
            ("..", "//"),
            ("/.//..", "//"),
            ("/", "//"),
            ("//", "//"),
            ("/\\", "//\\"),
            ("/.//", "//"),
            ("cgi-bin/file1.py", "/cgi-bin/file1.py"),
            ("/cgi-bin/file1.py", "/cgi-bin/file1.py"),
            ("a", "//a"),
            ("/a", "//a"),
            ("//a", "//a"),
            ("./a", "//a"),
            ("./C:/", "/C:/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/c/..", "/a/b/"),
            ("/a/b/c/../d", "/a/b/d"),
            ("/a/b/c/../d/e/../f", "/a/b/d/f"),
            ("/a/b/c/../d/e/../../f", "/a/b/f"),
            ("/a/b/c/../d/e/.././././..//f", "/a/b/f"),
            ("../a/b/c/../d/e/.././././..//f", "/a/b/f"),
            ("/a/b/c/../d/e/../../../f", "/a/f"),
            ("/a/b/c/../d/e/../../../../f", "//f"),
            ("/a/b/c/../d/e/../../../../../f", "//f"),
            ("/a/b/c/../d/e/../../../../f/..", "//"),
            ("/a/b/c/../d/e/../../../../f/../.", "//"),
            ("/%63gi-bin/x", "/cgi-bin/x"),
            ("/cgi-bin%2fx", "/cgi-bin/x"),
            ("/cgi-bin/x%2f", "/cgi-bin/x/"),
            ("/cgi-bin/x/%2e%2e", "/cgi-bin/"),
            ("/%252e", "//%2e"),
        ] {
            assert_eq!(
                collapse_path(path.as_bytes()).unwrap().escape_ascii().to_string(),
                collapsed.replace('\\', "\\\\"),
                "{path}"
            );
        }
        assert_eq!(collapse_path(b"/a%00"), Err(Forbidden::Nul));
    }

    #[test]
    fn finds_the_shortest_directory() {
        let directories: Vec<String> = ["/cgi-bin", "/cgi-bin/sub", "/a/b"].map(String::from).into();
        for (path, found) in [
            ("/cgi-bin/x", Some(8)),
            ("/cgi-bin/", Some(8)),
            ("/cgi-bin/sub/x", Some(8)),
            ("//cgi-bin", None),
            ("/cgi-binx/y", None),
            ("/CGI-BIN/x", None),
            ("/a/b/c", Some(4)),
            ("/a/b", None),
            ("//", None),
        ] {
            assert_eq!(is_cgi(path.as_bytes(), &directories), found, "{path}");
        }
        assert_eq!(is_cgi(b"//x", &["/".to_owned()]), Some(1));
        assert_eq!(is_cgi(b"/a/x", &["/".to_owned()]), Some(0));
        assert_eq!(is_cgi(b"/cgi-bin/x", &[]), None);
    }
}

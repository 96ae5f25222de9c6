//! Which targets mean a script: Python's path collapse and its search for a CGI directory.

use percent_encoding::percent_decode;

use crate::path::{Forbidden, translate};

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

/// Appends the same after the slash that `out` ends with.
pub(crate) fn collapse(path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
    let start = out.len();
    translate(path, out)?;
    if ends_with_directory(path) {
        out.push(b'/');
    } else if memchr::memchr(b'/', &out[start..]).is_none() {
        out.insert(start, b'/');
    }
    Ok(())
}

/// Appends what follows the script in the path of a target: `PATH_INFO` (RFC 3875 section 4.1.5), decoded once. Dot
/// segments are resolved, but empty ones are kept there, for they are data, such as those of a URL. So many
/// `components` of the collapsed path name the script.
///
/// A `..` takes the last component that is not empty, so that without empty components the path is the same that led
/// to the script.
pub(crate) fn append_info(path: &[u8], components: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let decoded: Vec<u8> = percent_decode(path).collect();
    // Each component with the slash before it.
    for component in decoded.strip_prefix(b"/").unwrap_or(&decoded).split(|&byte| byte == b'/') {
        match component {
            b"." => {}
            b".." => {
                while out.len() > start && out.last() == Some(&b'/') {
                    out.pop();
                }
                let parent = out[start..].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                out.truncate(start + parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(component);
            }
        }
    }
    if matches!(decoded.rsplit(|&byte| byte == b'/').next(), Some(b"." | b"..")) {
        out.push(b'/');
    }
    let mut rest = &out[start..];
    for _ in 0..components {
        let begin = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
        let end = memchr::memchr(b'/', &rest[begin..]).map_or(rest.len(), |len| begin + len);
        rest = &rest[end..];
    }
    let info = out.len() - rest.len();
    out.drain(start..info);
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

    fn info(path: &str, script: &str) -> String {
        let mut out = b"kept".to_vec();
        append_info(path.as_bytes(), script.split('/').count(), &mut out);
        String::from_utf8(out).unwrap().strip_prefix("kept").unwrap().to_owned()
    }

    #[test]
    fn empty_components_behind_the_script_are_kept() {
        for (path, expected) in [
            ("/c/x", ""),
            ("/c/x/", "/"),
            ("/c/x//", "//"),
            ("/c/x/a", "/a"),
            ("/c/x/a/", "/a/"),
            ("/c/x/http://a.example//b", "/http://a.example//b"),
            ("/c/x/http:%2f%2Fa.example/%2f", "/http://a.example//"),
            ("/c/x///a///b///", "///a///b///"),
            ("//c///x//a", "//a"),
            ("/c/./y/..//x/a", "/a"),
            ("/c/x/./a/./b/.", "/a/b/"),
            ("/c/x/a/..", "/"),
            ("/c/x/a/../b", "/b"),
            ("/c/x/a//b/../c/", "/a//c/"),
            ("/c/x/a//../b", "/b"),
            ("/c/x/%2e%2E/x/%2e/a", "/a"),
            ("/c/x//a/%2e%2e//b", "///b"),
            ("/c/x/..//x//a", "//a"),
            ("/c/x/../../..//../c/x//", "//"),
            ("/%63/%78/%61%252f", "/a%2f"),
            ("/c%2fx%2f%2fa", "//a"),
            ("/c/x/.../..a/.b", "/.../..a/.b"),
        ] {
            assert_eq!(info(path, "c/x"), expected, "{path}");
        }
        assert_eq!(info("/x//a", "x"), "//a");
        assert_eq!(info("/c//sub//x//a", "c/sub/x"), "//a");
    }

    /// Whatever is written, the script and what follows it are the collapsed path and no more, but for empty components.
    #[test]
    fn what_follows_the_script_is_the_rest_of_the_collapsed_path() {
        let parts = ["a", "..", ".", "", "x", "%2f", "%2e."];
        for n in 0..7_usize.pow(5) {
            let path: String = (0..5).map(|i| format!("/{}", parts[n / 7_usize.pow(i) % 7])).collect();
            let collapsed = collapse_path(path.as_bytes()).unwrap();
            let collapsed = String::from_utf8(collapsed).unwrap();
            let collapsed = collapsed.trim_start_matches('/');
            for (at, _) in collapsed.match_indices('/').chain([(collapsed.len(), "")]) {
                let (script, rest) = collapsed.split_at(at);
                let mut info = info(&path, script);
                while info.contains("//") {
                    info = info.replace("//", "/");
                }
                if !script.is_empty() {
                    assert_eq!(info, rest, "{path} of {script}");
                }
            }
        }
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

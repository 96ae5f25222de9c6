//! Patterns that select files by their path or name.

use super::InvalidRule;

/// A pattern with `*` for any characters. It is compared with the whole path if it begins with a slash, else with the
/// last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Pattern, InvalidRule> {
        let is_path = text.starts_with('/');
        let why = match text {
            "" => "it is empty",
            _ if !is_path && text.contains('/') => "it begins with / or has no /",
            _ if text.contains('=') => "it has no =; * can stand for it",
            _ if text.contains(|c: char| c.is_control()) || text.trim() != text => {
                "it has no control characters or spaces around it"
            }
            _ => return Ok(Pattern(text.to_owned())),
        };
        Err(InvalidRule(format!("not a pattern, such as *.css or /assets/*: {text:?}: {why}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the pattern of this path, which has no slash at its beginning.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self.0.strip_prefix('/') {
            Some(pattern) => glob(pattern.as_bytes(), path),
            None => glob(self.0.as_bytes(), &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..]),
        }
    }
}

/// Compares a text with a pattern. Takes at most as many steps as the product of their lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and how much of the text it stands for.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((behind, end)) = star else { return false };
                (p, t) = (behind, end + 1);
                star = Some((behind, t));
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, path) in [
            ("*.css", "a.css"),
            ("*.css", "b/.css"),
            ("a*b*c", "x/aXbYbZc"),
            ("sw.js", "deep/er/sw.js"),
            ("*", ""),
            ("/*", "a/b"),
            ("/", ""),
            ("/v2/*/manifests/*", "v2/library/alpine/manifests/latest"),
            ("/assets/*", "assets/"),
            ("/**/x", "a/b/x"),
            ("/caf\u{e9}", "caf\u{e9}"),
        ] {
            assert!(Pattern::new(pattern).unwrap().matches(path.as_bytes()), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.css", "a.css/b"),
            ("*.css", "a.CSS"),
            ("css", "a.css"),
            ("/assets/*", "assets"),
            ("/assets/*", "x/assets/a"),
            ("/a", "a/b"),
            ("a*b", "ab/"),
        ] {
            assert!(!Pattern::new(pattern).unwrap().matches(path.as_bytes()), "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        assert!(!glob("*a".repeat(200).as_bytes(), &[b'a'; 199]));
        assert!(!glob(&[b"*a".repeat(200), b"b".to_vec()].concat(), &[b'a'; 10_000]));
    }

    #[test]
    fn patterns_are_checked() {
        for wrong in ["", "a/b", "*/b", "/a=b", " a", "a\n", "/a\t"] {
            assert!(Pattern::new(wrong).is_err(), "{wrong:?}");
        }
    }
}

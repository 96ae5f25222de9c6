//! Redirects of single paths and of everything below a path.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::{InvalidRule, below};
use crate::text::{encode_path, encode_uri};

/// A redirect. Both sides may stand for everything below them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Decoded, without slashes around it.
    from: Vec<u8>,
    /// Whether it stands for what is below `from`.
    is_tree: bool,
    /// Before a query and a fragment, as it is sent; it ends with a slash if it keeps what follows in the path.
    to: String,
    keeps_rest: bool,
    /// The path of `to` as that of `from`; `None`: it is on another server.
    local: Option<Vec<u8>>,
    /// With `?`.
    query: String,
    /// With `#`.
    fragment: String,
    /// As it was set.
    text: (String, String),
}

impl Redirect {
    pub(super) fn new(from: &str, to: &str) -> Result<Redirect, InvalidRule> {
        let (tree, plain) = (from.strip_suffix('*').filter(|start| start.ends_with('/')), from);
        if from.contains('=') {
            return Err(InvalidRule(format!("a path that is redirected has no =: {from:?}")));
        }
        let (rest, fragment) = to.find('#').map_or((to, ""), |at| to.split_at(at));
        let (target, query) = rest.find('?').map_or((rest, ""), |at| rest.split_at(at));
        let start = target.strip_suffix('*').filter(|start| start.ends_with('/'));
        let keeps_rest = start.is_some();
        let wrong = |why: &str| Err(InvalidRule(format!("{why}: {to:?}")));
        if keeps_rest && tree.is_none() {
            return wrong("only a redirect of a path with /* at its end has a target with /*");
        }
        let target = start.unwrap_or(target);
        if to.contains(|c: char| c.is_control()) {
            return wrong("a target has no control characters");
        }
        let is_elsewhere = ["http://", "https://"].iter().any(|scheme| {
            let host = target.strip_prefix(scheme).map(|rest| rest.split('/').next().unwrap_or_default());
            host.is_some_and(|host| !host.is_empty())
        });
        let local = if is_elsewhere { None } else { Some(plain_path(target)?) };
        Ok(Redirect {
            from: plain_path(tree.unwrap_or(plain))?,
            is_tree: tree.is_some(),
            to: encoded(target),
            keeps_rest,
            local,
            query: encoded(query),
            fragment: encoded(fragment),
            text: (from.to_owned(), to.to_owned()),
        })
    }

    pub(super) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// What follows in a path that is redirected.
    pub(super) fn rest<'p>(&self, path: &'p [u8], has_slash: bool) -> Option<&'p [u8]> {
        let rest = below(path, &self.from)?;
        // `/a/*` stands for `/a/`, but not for `/a`.
        let is_meant = if self.is_tree {
            !rest.is_empty() || has_slash || self.from.is_empty()
        } else {
            rest.is_empty() && path.len() == self.from.len()
        };
        is_meant.then_some(rest)
    }

    /// Whether a client that follows this redirect may be sent on by the other one. A slash that the redirect of a
    /// directory adds makes no difference.
    pub(super) fn leads_to(&self, other: &Redirect) -> bool {
        let Some(to) = self.local.as_deref() else { return false };
        let is_below = other.is_tree && below(to, &other.from).is_some();
        let is_above = self.keeps_rest && below(&other.from, to).is_some();
        is_below || is_above || to == other.from
    }

    /// Appends the target.
    pub(super) fn append_location(&self, rest: &[u8], has_slash: bool, query: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to.as_bytes());
        if self.keeps_rest {
            encode_path(rest, out);
            if has_slash && !rest.is_empty() {
                out.push(b'/');
            }
        }
        out.extend_from_slice(self.query.as_bytes());
        if let Some(query) = query {
            out.push(if self.query.is_empty() { b'?' } else { b'&' });
            encode_uri(query, out);
        }
        out.extend_from_slice(self.fragment.as_bytes());
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.text.0, self.text.1)
    }
}

fn encoded(text: &str) -> String {
    let mut out = Vec::new();
    encode_uri(text.as_bytes(), &mut out);
    String::from_utf8(out).expect("encoded as ASCII")
}

/// Decodes a path of a target that is resolved already, and removes the slashes around it.
pub(super) fn plain_path(text: &str) -> Result<Vec<u8>, InvalidRule> {
    let path: Vec<u8> = percent_decode_str(text).collect();
    let inner = path.strip_prefix(b"/").map(|path| path.strip_suffix(b"/").unwrap_or(path));
    let is_control = |byte: u8| byte < b' ' || byte == 0x7f;
    let is_plain = |path: &&[u8]| {
        let mut parts = path.split(|&byte| byte == b'/');
        let is_resolved = path.is_empty() || parts.all(|part| !matches!(part, b"" | b"." | b".."));
        is_resolved && !text.contains(['?', '#']) && !path.iter().any(|&byte| is_control(byte))
    };
    match inner.filter(is_plain) {
        Some(path) => Ok(path.to_vec()),
        None => Err(InvalidRule(format!("not a path, such as /docs, without empty, . and .. segments: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    fn location(rules: &Rules, path: &str, query: Option<&str>) -> Option<String> {
        let (plain, has_slash) = path.strip_suffix('/').map_or((path, false), |plain| (plain, true));
        let mut out = Vec::new();
        let found = rules.redirect(plain.as_bytes(), has_slash, query.map(str::as_bytes), &mut out);
        found.then(|| String::from_utf8(out).unwrap())
    }

    fn rules(all: &[(&str, &str)]) -> Result<Rules, InvalidRule> {
        all.iter().try_fold(Rules::new(), |rules, (from, to)| rules.with_redirect(from, to))
    }

    #[test]
    fn paths_are_redirected_with_their_query() {
        let rules = rules(&[
            ("/old", "/new"),
            ("/a%20b/", "/caf\u{e9}?x=1#top"),
            ("/docs/*", "/manual/*"),
            ("/gone/*", "/"),
            ("/away/*", "https://other.example/base/*?v"),
            ("/to", "http://other.example"),
        ])
        .unwrap();
        for (path, query, expected) in [
            ("old", None, "/new"),
            ("old/", Some("a=1"), "/new?a=1"),
            ("a b", None, "/caf%C3%A9?x=1#top"),
            ("a b", Some("y=2"), "/caf%C3%A9?x=1&y=2#top"),
            ("docs/", None, "/manual/"),
            ("docs/a b/c", Some("q"), "/manual/a%20b/c?q"),
            ("docs/a/", None, "/manual/a/"),
            ("docs/x\r\ny", Some("\"<\x7f"), "/manual/x%0D%0Ay?%22%3C%7F"),
            ("gone/a/b", None, "/"),
            ("away/", None, "https://other.example/base/?v"),
            ("away/x", Some("w"), "https://other.example/base/x?v&w"),
            ("to", None, "http://other.example"),
        ] {
            assert_eq!(location(&rules, path, query).as_deref(), Some(expected), "{path}");
        }
        for path in ["", "new", "older", "old/x", "docs", "docsx/y", "x/old", "away"] {
            assert_eq!(location(&rules, path, None), None, "{path}");
        }
    }

    #[test]
    fn the_whole_site_can_be_moved() {
        let rules = rules(&[("/*", "https://new.example/*")]).unwrap();
        for (path, expected) in [("", "/"), ("a", "/a"), ("a/b/", "/a/b/")] {
            assert_eq!(location(&rules, path, None).unwrap(), format!("https://new.example{expected}"));
        }
        let root = Rules::new().with_redirect("/", "/app/").unwrap();
        assert_eq!((location(&root, "", None).as_deref(), location(&root, "a", None)), (Some("/app/"), None));
    }

    #[test]
    fn the_prefix_is_part_of_targets_on_this_server() {
        let rules = rules(&[("/a", "/b"), ("/c", "https://x.example/")]).unwrap().with_route_prefix("/base").unwrap();
        assert_eq!(location(&rules, "a", None).unwrap(), "/base/b");
        assert_eq!(location(&rules, "c", None).unwrap(), "https://x.example/");
    }

    #[test]
    fn nobody_is_sent_in_a_circle() {
        for circle in [
            &[("/a", "/a")][..],
            &[("/a", "/a/")],
            &[("/a/", "/%61?x")],
            &[("/a", "/b"), ("/b", "/a")],
            &[("/a", "/b"), ("/b", "/c")],
            &[("/b", "/c"), ("/a", "/b/")],
            &[("/*", "/new/*")],
            &[("/*", "/new")],
            &[("/a/*", "/a/b/*")],
            &[("/a/b/*", "/a/*")],
            &[("/a/*", "/b/*"), ("/b/c", "/d")],
            &[("/a/*", "/b/*"), ("/b", "/d")],
            &[("/a", "/b/c"), ("/b/*", "/d")],
            &[("/a/*", "/b/c/*"), ("/b/*", "https://x.example/*")],
            &[("/a/*", "/a")],
        ] {
            let error = rules(circle).expect_err("a circle").to_string();
            assert!(error.contains(" leads to "), "{circle:?}: {error}");
        }
        for line in [
            &[("/a", "/b"), ("/c", "/b")][..],
            &[("/a/*", "/b/*"), ("/c/*", "/b/*")],
            &[("/a", "/ab"), ("/a/*", "/abc/*")],
            &[("/a", "https://x.example/a")],
            &[("/a/b", "/a"), ("/a/c", "/a/d")],
            &[("/", "/a")],
        ] {
            assert!(rules(line).is_ok(), "{line:?}: {:?}", rules(line));
        }
    }

    #[test]
    fn both_sides_are_checked() {
        for (from, to) in [
            ("a", "/b"),
            ("/a", "b"),
            ("/a", ""),
            ("/a", "//evil.example/"),
            ("/a", "/\\evil.example/../x"),
            ("/a", "ftp://x.example"),
            ("/a", "https://"),
            ("/a", "https:///x"),
            ("/a", "javascript:alert(1)"),
            ("/a", "/b/*"),
            ("/a?x", "/b"),
            ("/a/../b", "/c"),
            ("/a", "/c/%2e%2e/a"),
            ("/a=b", "/c"),
            ("/a", "/b\r\nX: y"),
            ("/a", "https://x.example/\r\nX: y"),
            ("/a\n", "/b"),
        ] {
            assert!(Redirect::new(from, to).is_err(), "{from:?} {to:?}");
        }
    }
}

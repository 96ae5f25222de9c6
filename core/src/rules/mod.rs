//! The rules of a site: which fields its responses have, which paths are redirected, and what is served for a path that
//! names no file. They are data that is checked when it is set; nothing is looked up, sent or recorded here. `exchange`
//! and `files` apply them.

mod field;
mod order;
mod pattern;
mod redirect;
mod sharing;
mod text;

pub use field::Cache;
pub use order::Stage;
pub use sharing::Isolation;

use std::borrow::Cow;
use std::fmt;

use crate::grammar::list_items;
use crate::status::StatusCode;
use crate::text::encode_path;
use field::FieldRule;
use redirect::{Redirect, plain_path};
use sharing::Cors;

/// The statuses whose pages can be replaced: those that a request for a file may have.
const PAGES: [StatusCode; 3] =
    [StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// The extension that clean URLs omit.
pub(crate) const HTML: &[u8] = b".html";

/// The rules of a site. Without any, which is the default, files are served as Python does.
///
/// Every value is checked when it is set. In which order rules apply is listed by [`Stage`].
///
/// ```
/// use std::time::Duration;
/// use sanserve_core::{Cache, Config, InvalidRule, Rules};
///
/// # fn main() -> Result<(), InvalidRule> {
/// let rules = Rules::new()
///     .with_header("X-Frame-Options", "DENY")?
///     .with_header_for("/v2/*/manifests/*", "Content-Type", "application/vnd.oci.image.index.v1+json")?
///     .with_cache(Cache::For(Duration::from_secs(60)))
///     .with_cache_for("/assets/*", Cache::Immutable)?
///     .with_spa("index.html")?
///     .with_redirect("/old/*", "/new/*")?;
/// let config = Config::default().with_rules(rules);
/// assert!(config.rules.is_some());
///
/// assert!(Rules::new().with_header("Content-Length", "3").is_err());
/// assert!(Rules::new().with_redirect("/a", "/a/").is_err());
/// # Ok(())
/// # }
/// ```
///
/// A **pattern** selects files by their path below the directory that is served, decoded. If it begins with `/`, it is
/// compared with the whole path, else with the name alone. `*` stands for any characters, also for slashes. A directory
/// that is listed has a slash at its end. Without a file (a script, a handler, an error), the path of the request is
/// compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    fields: Vec<FieldRule>,
    nosniff: bool,
    isolation: Option<Isolation>,
    cors: Option<Cors>,
    /// Decoded, without slashes around it.
    prefix: Vec<u8>,
    redirects: Vec<Redirect>,
    index: Vec<Cow<'static, str>>,
    clean_urls: bool,
    spa: Option<String>,
    no_listing: bool,
    error_pages: Vec<(StatusCode, String)>,
}

impl Rules {
    /// No rules.
    #[must_use]
    pub fn new() -> Rules {
        Rules::default()
    }

    /// Serves the directory beneath this path, such as `/docs`: it is removed from the paths of requests and is part of
    /// every redirect. Requests for other paths get a 404. For a server behind a proxy that passes paths on unchanged.
    /// Scripts and handlers see complete paths. Default: none.
    ///
    /// # Errors
    /// If it does not begin with `/`, or has empty, `.` or `..` segments, a query or a fragment.
    pub fn with_route_prefix(self, prefix: &str) -> Result<Rules, InvalidRule> {
        Ok(Rules { prefix: plain_path(prefix)?, ..self })
    }

    /// Redirects a path permanently (308), with and without a slash at its end. The query is kept. `to` is a path on
    /// this server, or a URL that begins with `http://` or `https://`. If both end with `/*`, what follows in the path
    /// is kept too. The first redirect whose path is that of the request applies; with a
    /// [route prefix](Self::with_route_prefix), paths are those beneath it.
    ///
    /// # Errors
    /// If a path is not valid, or if the target is redirected itself, so that clients are never sent in a circle.
    pub fn with_redirect(mut self, from: &str, to: &str) -> Result<Rules, InvalidRule> {
        let redirect = Redirect::new(from, to)?;
        let meets = |other: &&Redirect| redirect.leads_to(other) || other.leads_to(&redirect);
        if let Some(other) = self.redirects.iter().chain([&redirect]).find(meets) {
            let (first, second) = if redirect.leads_to(other) { (&redirect, other) } else { (other, &redirect) };
            return Err(InvalidRule(format!("{first} leads to {second}: redirect to the final target at once")));
        }
        self.redirects.push(redirect);
        Ok(self)
    }

    /// Adds an index page, in order of preference. The first one replaces [`Policy::index_pages`](crate::Policy).
    ///
    /// # Errors
    /// If it is not the name of a file.
    pub fn with_index(mut self, name: &str) -> Result<Rules, InvalidRule> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(InvalidRule(format!("not the name of a file: {name:?}")));
        }
        self.index.push(Cow::Owned(name.to_owned()));
        Ok(self)
    }

    /// Serves `about.html` at `/about`, if there is no such file, and redirects `/about.html` there (308), and the first
    /// index page to its directory. A path that is also that of a directory refers to the page, and with a slash at its
    /// end to the directory. Default: no.
    #[must_use]
    pub fn with_clean_urls(self) -> Rules {
        Rules { clean_urls: true, ..self }
    }

    /// Serves this file, a path below the directory, with 200 where nothing else is found, if the request is a
    /// navigation: GET or HEAD, `Accept` lists `text/html`, and the last segment of the path has no dot. So a missing
    /// script stays a 404. Default: none.
    ///
    /// # Errors
    /// If it is not a path.
    pub fn with_spa(self, file: &str) -> Result<Rules, InvalidRule> {
        Ok(Rules { spa: Some(plain_file(file)?), ..self })
    }

    /// Responds with 404 instead of listing a directory. Default: directories without an index page are listed.
    #[must_use]
    pub fn without_listing(self) -> Rules {
        Rules { no_listing: true, ..self }
    }

    /// Sends this file, a path below the directory, as the page of responses with this status, which is kept. For
    /// requests for files; the errors of scripts and handlers, and those of invalid requests, have the usual page. So
    /// has an error whose file does not exist, is not served, or is longer than
    /// [`Limits::error_page`](crate::Limits).
    ///
    /// # Errors
    /// If it is not a path, or the status is none that a request for a file may have: 404, 500 and 503.
    pub fn with_error_page(mut self, status: StatusCode, file: &str) -> Result<Rules, InvalidRule> {
        if !PAGES.contains(&status) {
            let message = format!("a page for {} is not possible, only for 404, 500 and 503", status.code());
            return Err(InvalidRule(message));
        }
        let file = plain_file(file)?;
        self.error_pages.retain(|(other, _)| *other != status);
        self.error_pages.push((status, file));
        Ok(self)
    }

    /// The part of a path, decoded and resolved, below the prefix. `None`: it is not below it.
    pub(crate) fn below_prefix<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        if self.prefix.is_empty() { Some(path) } else { below(path, &self.prefix) }
    }

    /// Whether there is a prefix.
    pub(crate) fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Appends a path of this server, with the prefix: `path` is decoded and has no slash at its beginning.
    pub(crate) fn append_location(&self, path: &[u8], out: &mut Vec<u8>) {
        if self.has_prefix() {
            out.push(b'/');
            encode_path(&self.prefix, out);
        }
        out.push(b'/');
        encode_path(path, out);
    }

    /// Appends where a path is redirected to, with the query of the request. `path` is below the prefix, decoded and
    /// without slashes around it. Returns `false` if it is not redirected.
    pub(crate) fn redirect(&self, path: &[u8], has_slash: bool, query: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        let found = self.redirects.iter().find_map(|redirect| Some((redirect, redirect.rest(path, has_slash)?)));
        let Some((redirect, rest)) = found else { return false };
        if redirect.is_local() && self.has_prefix() {
            out.push(b'/');
            encode_path(&self.prefix, out);
        }
        redirect.append_location(rest, has_slash, query, out);
        true
    }

    pub(crate) fn has_redirects(&self) -> bool {
        !self.redirects.is_empty()
    }

    /// Whether a path is redirected.
    pub(crate) fn redirects(&self, path: &[u8], has_slash: bool) -> bool {
        self.redirects.iter().any(|redirect| redirect.rest(path, has_slash).is_some())
    }

    /// The names of index pages; empty: those of the policy.
    pub(crate) fn index(&self) -> &[Cow<'static, str>] {
        &self.index
    }

    pub(crate) fn has_clean_urls(&self) -> bool {
        self.clean_urls
    }

    pub(crate) fn lists(&self) -> bool {
        !self.no_listing
    }

    /// The page of the application, for a path that may be one of its own.
    pub(crate) fn spa(&self, path: &[u8]) -> Option<&str> {
        let name = &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
        self.spa.as_deref().filter(|_| memchr::memchr(b'.', name).is_none())
    }

    /// The file for the page of an error.
    pub(crate) fn error_page(&self, status: StatusCode) -> Option<&str> {
        self.error_pages.iter().find(|(of, _)| *of == status).map(|(_, file)| file.as_str())
    }
}

/// Whether an `Accept` field lists HTML by its name, as those of navigations do (RFC 9110 section 12.5.1).
pub(crate) fn accepts_html(accept: &[u8]) -> bool {
    let is_html = |item: &[u8]| {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
        is_named && !parts.any(|part| matches!(part, b"q=0" | b"Q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
    };
    list_items(accept).any(is_html)
}

/// The part of a path below a directory; both are decoded and have no slashes around them.
fn below<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(directory)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// A path below the directory that is served, with or without a slash at its beginning.
fn plain_file(file: &str) -> Result<String, InvalidRule> {
    let name = file.strip_prefix('/').unwrap_or(file);
    let is_plain = !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_plain { Ok(name.to_owned()) } else { Err(InvalidRule(format!("not a path below the directory: {file:?}"))) }
}

/// Why a rule is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRule(String);

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidRule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_accepted_by_name_only() {
        for accept in
            ["text/html", "text/html,application/xhtml+xml,*/*;q=0.8", "a/b , TEXT/HTML;q=0.9", "text/html;q=0.001"]
        {
            assert!(accepts_html(accept.as_bytes()), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "text/htmlx", "application/json", "text/html;q=0", "text/html; q=0.000"] {
            assert!(!accepts_html(accept.as_bytes()), "{accept}");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        let rules = Rules::new().with_route_prefix("/a%20b/c/").unwrap();
        for (path, below) in [
            ("a b/c", Some("")),
            ("a b/c/d/e", Some("d/e")),
            ("a b/cd", None),
            ("a b", None),
            ("", None),
            ("x/a b/c", None),
        ] {
            assert_eq!(rules.below_prefix(path.as_bytes()), below.map(str::as_bytes), "{path}");
        }
        let mut out = Vec::new();
        rules.append_location(b"x y", &mut out);
        assert_eq!(out, b"/a%20b/c/x%20y");
        for wrong in ["", "a", "/a//b", "/a/../b", "/a/.", "/a?b", "/a#b", "/a\n", "/%00", "/%2e%2e"] {
            assert!(Rules::new().with_route_prefix(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Rules::new().with_route_prefix("/"), Ok(Rules::new()));
    }

    #[test]
    fn paths_of_an_application_have_no_extension() {
        let rules = Rules::new().with_spa("/app/index.html").unwrap();
        assert_eq!([rules.spa(b""), rules.spa(b"a.b/users")], [Some("app/index.html"); 2]);
        assert_eq!([rules.spa(b"app.js"), rules.spa(b"users/.env"), Rules::new().spa(b"")], [None; 3]);
    }

    #[test]
    fn names_of_files_are_checked() {
        for wrong in ["", "/", "..", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(Rules::new().with_spa(wrong).is_err(), "{wrong:?}");
            assert!(Rules::new().with_error_page(StatusCode::NOT_FOUND, wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(Rules::new().with_index(wrong).is_err(), "{wrong:?}");
        }
        for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::RANGE_NOT_SATISFIABLE] {
            assert!(Rules::new().with_error_page(status, "a").is_err_and(|error| error.0.contains("404, 500 and 503")));
        }
        let rules = Rules::new().with_error_page(StatusCode::NOT_FOUND, "a").unwrap();
        let rules = rules.with_error_page(StatusCode::NOT_FOUND, "b").unwrap();
        assert_eq!(rules.error_page(StatusCode::NOT_FOUND), Some("b"));
        assert_eq!(rules.error_page(StatusCode::INTERNAL_SERVER_ERROR), None);
    }
}

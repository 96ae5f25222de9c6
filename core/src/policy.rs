//! The decisions that people override in Python's `BaseHTTPRequestHandler` and
//! `SimpleHTTPRequestHandler`. Every method is pure and defaults to what Python does.

use std::borrow::Cow;
use std::io::Write;

use crate::entry::Entry;
use crate::fields::Fields;
use crate::listing::{EntryKind, listing_row};
use crate::media_type::media_type;
use crate::page::{self, ErrorPage};
use crate::path::{Forbidden, translate};
use crate::request::Request;
use crate::script_path;
use crate::status::StatusCode;

/// Who answers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// The handler if there is one ([`Config::handled`](crate::Config)), else the files.
    #[default]
    Usual,
    /// The files below the root, and the scripts, if there are any.
    Files,
    /// The embedder's handler.
    Handler,
}

/// Who has sent a request, as far as a policy has verified it: see [`Policy::authenticated`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authenticated {
    /// How: a scheme such as `Basic` (RFC 9110 section 11.1). A script's `AUTH_TYPE`.
    pub scheme: Cow<'static, str>,
    /// The name. A script's `REMOTE_USER`.
    pub user: String,
}

impl Authenticated {
    /// This user, verified by this scheme.
    #[must_use]
    pub fn new(scheme: impl Into<Cow<'static, str>>, user: impl Into<String>) -> Authenticated {
        Authenticated { scheme: scheme.into(), user: user.into() }
    }
}

/// What a policy decides. Implement it on a type of your own to change one thing; the rest stays.
///
/// ```
/// use sanserve_core::{Fields, Policy, Request, Route, StatusCode};
///
/// struct Mine;
///
/// impl Policy for Mine {
///     fn route(&self, request: &Request<'_>) -> Route {
///         if request.path().starts_with(b"/api/") { Route::Handler } else { Route::Files }
///     }
///
///     fn fields(&self, _: &Request<'_>, status: StatusCode, fields: &mut Fields<'_>) {
///         if status == StatusCode::OK {
///             // It fails only for what no field can be.
///             let _ = fields.add("Cache-Control", b"no-cache");
///         }
///     }
/// }
/// # fn main() {
/// # let _: &dyn Policy = &Mine;
/// # }
/// ```
pub trait Policy {
    /// Who answers. Default: the handler if there is one, else the files.
    fn route(&self, request: &Request<'_>) -> Route {
        let _ = request;
        Route::Usual
    }

    /// The value of the `Server` field (Python's `version_string`). Default: `sanserve/{version}`.
    fn server(&self) -> &str {
        concat!("sanserve/", env!("CARGO_PKG_VERSION"))
    }

    /// The names that stand for a directory, first match wins (Python's `index_pages`).
    fn index_pages(&self) -> &[Cow<'static, str>] {
        const PAGES: &[Cow<'static, str>] = &[Cow::Borrowed("index.html"), Cow::Borrowed("index.htm")];
        PAGES
    }

    /// The media type of a file, by its path below the root (Python's `guess_type`).
    fn media_type(&self, path: &[u8]) -> Cow<'static, str> {
        Cow::Borrowed(media_type(path))
    }

    /// The charset that `text/*` types without parameters are given. Default: `utf-8`.
    fn charset(&self) -> Option<&str> {
        Some("utf-8")
    }

    /// Adds fields to an answer before its head ends (what people override `end_headers` for).
    fn fields(&self, request: &Request<'_>, status: StatusCode, fields: &mut Fields<'_>) {
        let _ = (request, status, fields);
    }

    /// Whether a request body announced by `Expect: 100-continue` is welcome (Python's
    /// `handle_expect_100`). `Err` is the final status instead.
    fn expect_continue(&self, request: &Request<'_>) -> Result<(), StatusCode> {
        let _ = request;
        Ok(())
    }

    /// The length of the directory of scripts that a collapsed path begins with, `None` for a path that
    /// means no script (Python's `is_cgi`). `path` is that of [`collapse_path`](crate::collapse_path), `directories`
    /// are those of the [`Cgi`](crate::Cgi) in the configuration. Whatever is no script is a file, and its text is
    /// sent to whoever asks.
    fn is_cgi(&self, path: &[u8], directories: &[String]) -> Option<usize> {
        script_path::is_cgi(path, directories)
    }

    /// Who has sent a request that a script answers, for its `AUTH_TYPE` and `REMOTE_USER` (RFC 3875 sections 4.1.1
    /// and 4.1.11). Default: nobody, for nobody has verified anything.
    ///
    /// Whoever implements this verifies the credentials here, in every call: what a peer only claims must not be
    /// returned, since scripts act on it. [`Request::basic_credentials`] reads what it claims. It is asked once
    /// for each script that is run, also after a local redirect. A name or scheme that is empty or holds control
    /// characters sets neither variable. To turn a request away, send it to a handler
    /// ([`route`](Policy::route)) and answer 401 there.
    ///
    /// ```
    /// use sanserve_core::{Authenticated, Policy, Request};
    ///
    /// struct Ours;
    ///
    /// impl Policy for Ours {
    ///     fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
    ///         let (user, password) = request.basic_credentials()?;
    ///         // A real one compares hashes, in constant time.
    ///         let is_right = user == b"ada" && password == b"Lovelace1815";
    ///         is_right.then(|| Authenticated::new("Basic", "ada"))
    ///     }
    /// }
    /// # fn main() {
    /// # let _: &dyn Policy = &Ours;
    /// # }
    /// ```
    fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
        let _ = request;
        None
    }

    /// Writes the page of an error (Python's `error_message_format`).
    fn error_page(&self, page: &ErrorPage<'_>, out: &mut Vec<u8>) {
        page::write(page, out);
    }

    /// The media type of that page (Python's `error_content_type`).
    fn error_type(&self) -> &str {
        "text/html;charset=utf-8"
    }

    /// Appends the lines of the log for an exchange that is over, each with its line end (Python's
    /// `log_request`, `log_error` and `log_message`). `time` is what Python's `log_date_time_string` gives.
    /// Default: Python's lines. What is written here is nobody's to escape but yours ([`scrub`](crate::scrub)).
    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        entry.write(out, |out| {
            // A Vec takes all.
            let _ = write!(out, "{} - - [{time}] ", entry.peer.ip());
        });
    }

    /// Writes one row of a directory listing.
    fn listing_row(&self, name: &[u8], kind: EntryKind, out: &mut Vec<u8>) {
        listing_row(name, kind, out);
    }

    /// Appends the path below the root that a target's path means (Python's `translate_path`).
    /// `path` has no query; the result obeys the rules of [`Action::Open`](crate::Action::Open).
    fn translate(&self, path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
        translate(path, out)
    }
}

/// The policy that changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultPolicy;

impl Policy for DefaultPolicy {}

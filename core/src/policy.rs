//! The decisions that are customized by overriding methods of Python's `BaseHTTPRequestHandler` and
//! `SimpleHTTPRequestHandler`. Every method is pure, and its default is what Python does. Limits, timeouts and media
//! types by extension are configuration instead ([`Config`](crate::Config)).

use std::borrow::Cow;
use std::io::Write;

use crate::entry::Entry;
use crate::fields::Fields;
#[cfg(feature = "files")]
use crate::listing::{EntryKind, listing_row};
#[cfg(feature = "files")]
use crate::media_type::media_type;
use crate::page::{self, ErrorPage};
use crate::path::{Forbidden, translate};
use crate::request::Request;
#[cfg(feature = "cgi")]
use crate::script_path;
use crate::status::StatusCode;

/// What responds to a request.
///
/// ```
/// use sanserve_core::{Policy, Request, Route};
///
/// /// The handler has what is below `/api/`, also the paths that files have.
/// struct Api;
///
/// impl Policy for Api {
///     fn route(&self, request: &Request<'_>) -> Route {
///         if request.path().starts_with(b"/api/") { Route::Handler } else { Route::Files }
///     }
/// }
/// # let _: &dyn Policy = &Api;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// The handler if there is one ([`Config::handled`](crate::Config)), otherwise files and scripts.
    #[default]
    Usual,
    /// Files below the root, and scripts, if there are any.
    Files,
    /// The handler of the embedder.
    Handler,
}

/// The user who sent a request, if a policy has verified it: see [`Policy::authenticated`].
///
/// ```
/// use sanserve_core::{Authenticated, Policy, Request};
///
/// /// A proxy has verified the user.
/// struct BehindProxy;
///
/// impl Policy for BehindProxy {
///     fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
///         let user = std::str::from_utf8(request.field("X-Remote-User")?).ok()?;
///         Some(Authenticated::new("Basic", user))
///     }
/// }
/// # let _: &dyn Policy = &BehindProxy;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authenticated {
    /// The authentication scheme, such as `Basic` (RFC 9110 section 11.1). Scripts receive it as `AUTH_TYPE`.
    pub scheme: Cow<'static, str>,
    /// The name of the user. Scripts receive it as `REMOTE_USER`.
    pub user: String,
}

impl Authenticated {
    /// A user that was verified with this scheme.
    #[must_use]
    pub fn new(scheme: impl Into<Cow<'static, str>>, user: impl Into<String>) -> Authenticated {
        Authenticated { scheme: scheme.into(), user: user.into() }
    }
}

/// Decisions about requests and responses. Implement it to change some of them; all methods have defaults.
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
///             // This only fails for an invalid field.
///             let _ = fields.append("Cache-Control", b"no-cache");
///         }
///     }
/// }
/// # fn main() {
/// # let _: &dyn Policy = &Mine;
/// # }
/// ```
pub trait Policy {
    /// Chooses what responds to a request. Default: the handler if there is one, otherwise files and scripts.
    fn route(&self, request: &Request<'_>) -> Route {
        let _ = request;
        Route::Usual
    }

    /// The value of the `Server` field (Python's `version_string`). Default: `sanserve/{version}`.
    fn server(&self) -> &str {
        concat!("sanserve/", env!("CARGO_PKG_VERSION"))
    }

    /// The names of index pages, in order of preference (Python's `index_pages`). Default: `index.html`, `index.htm`.
    #[cfg(feature = "files")]
    fn index_pages(&self) -> &[Cow<'static, str>] {
        const PAGES: &[Cow<'static, str>] = &[Cow::Borrowed("index.html"), Cow::Borrowed("index.htm")];
        PAGES
    }

    /// The media type of a file, by its path below the root (Python's `guess_type`). Default:
    /// [`media_type`](crate::media_type).
    #[cfg(feature = "files")]
    fn media_type(&self, path: &[u8]) -> Cow<'static, str> {
        Cow::Borrowed(media_type(path))
    }

    /// The charset of `text/*` types without parameters. Default: `utf-8`.
    #[cfg(feature = "files")]
    fn charset(&self) -> Option<&str> {
        Some("utf-8")
    }

    /// Adds, replaces or removes fields of a response before its head ends (Python's `end_headers`). Default: none.
    fn fields(&self, request: &Request<'_>, status: StatusCode, fields: &mut Fields<'_>) {
        let _ = (request, status, fields);
    }

    /// Whether a request with `Expect: 100-continue` is accepted (Python's `handle_expect_100`). It is called for every
    /// request with this field, except for HTTP/1.0, as soon as its head has been read and whether a body follows or not.
    /// `Err` contains the final status: the request then has neither a handler nor anything else that responds. If it is
    /// accepted, `100 Continue` is sent when the body is about to be read. Default: accepted.
    fn expect_continue(&self, request: &Request<'_>) -> Result<(), StatusCode> {
        let _ = request;
        Ok(())
    }

    /// The length of the directory of scripts at the beginning of a collapsed path, or `None` if the path is not that
    /// of a script (Python's `is_cgi`). `path` has the form that [`collapse_path`](crate::collapse_path) returns;
    /// `directories` are those of [`Cgi`](crate::Cgi) in the configuration. A script that is not recognized is served
    /// as a file: its source is sent to the client.
    #[cfg(feature = "cgi")]
    fn is_cgi(&self, path: &[u8], directories: &[String]) -> Option<usize> {
        script_path::is_cgi(path, directories)
    }

    /// The user who sent a request for a script, for `AUTH_TYPE` and `REMOTE_USER` (RFC 3875 sections 4.1.1 and
    /// 4.1.11). Default: `None`, since nothing has been verified.
    ///
    /// An implementation must verify the credentials in every call. It must not return what a client merely claims,
    /// since scripts rely on it. [`Request::basic_credentials`] returns the claim. The method is called once for each
    /// script that is run, including after a local redirect. A name or scheme that is empty or contains control
    /// characters sets neither variable. To refuse a request, route it to a handler ([`route`](Policy::route)) that
    /// responds with 401.
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
    #[cfg(feature = "cgi")]
    fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
        let _ = request;
        None
    }

    /// Writes the page of an error (Python's `error_message_format`). [`ErrorPage::request`] is the request, so that the
    /// page may depend on it. A page that begins like the default one also has its `Content-Security-Policy` and
    /// `X-Content-Type-Options`; any other page has neither.
    ///
    /// ```
    /// use std::io::Write;
    /// use sanserve_core::{ErrorPage, Policy, Request, write_error_page};
    ///
    /// /// Errors are JSON for clients that ask for it.
    /// struct Ours;
    ///
    /// fn wants_json(request: Option<&Request<'_>>) -> bool {
    ///     request.and_then(|request| request.field("Accept")) == Some(b"application/json")
    /// }
    ///
    /// impl Policy for Ours {
    ///     fn error_page(&self, page: &ErrorPage<'_>, out: &mut Vec<u8>) {
    ///         if wants_json(page.request.as_ref()) {
    ///             let _ = write!(out, "{{\"status\":{}}}", page.status.code());
    ///         } else {
    ///             write_error_page(page, out);
    ///         }
    ///     }
    ///
    ///     fn error_type(&self, request: Option<&Request<'_>>) -> &str {
    ///         if wants_json(request) { "application/json" } else { "text/html;charset=utf-8" }
    ///     }
    /// }
    /// # fn main() {
    /// # let _: &dyn Policy = &Ours;
    /// # }
    /// ```
    fn error_page(&self, page: &ErrorPage<'_>, out: &mut Vec<u8>) {
        page::write(page, out);
    }

    /// The media type of that page (Python's `error_content_type`). `request` is `None` if its head was not valid.
    fn error_type(&self, request: Option<&Request<'_>>) -> &str {
        let _ = request;
        "text/html;charset=utf-8"
    }

    /// Appends the log lines of a finished exchange, each with its line end (Python's `log_request`, `log_error` and
    /// `log_message`). `time` is formatted as by Python's `log_date_time_string`. Default: the lines that Python
    /// writes. An implementation must escape untrusted text itself ([`scrub`](crate::scrub)).
    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        entry.write(out, |out| {
            // Writing to a Vec does not fail.
            let _ = write!(out, "{} - - [{time}] ", entry.peer);
        });
    }

    /// Appends one row of a directory listing. The `Content-Security-Policy` of the page permits styles in it and pictures
    /// of this server, but no scripts; [`fields`](Policy::fields) can change that.
    #[cfg(feature = "files")]
    fn listing_row(&self, name: &[u8], kind: EntryKind, out: &mut Vec<u8>) {
        listing_row(name, kind, out);
    }

    /// Appends the path below the root that the path of a target refers to (Python's `translate_path`). `path` has no
    /// query; the result must conform to [`Action::Open`](crate::Action::Open).
    ///
    /// # Errors
    /// If the path is not permitted, which is answered with 400.
    fn translate(&self, path: &[u8], out: &mut Vec<u8>) -> Result<(), Forbidden> {
        translate(path, out)
    }
}

/// The policy with all defaults.
///
/// ```
/// use sanserve_core::{DefaultPolicy, Policy};
///
/// assert_eq!(DefaultPolicy.index_pages(), ["index.html", "index.htm"]);
/// assert_eq!(DefaultPolicy.media_type(b"a/b.png"), "image/png");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultPolicy;

impl Policy for DefaultPolicy {}

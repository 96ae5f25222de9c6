//! Applies the rules of a site to a response as a whole: its fields, and responses that need no task.

use std::borrow::Cow;

use super::{PathOf, ResponseBuilder};
use crate::buffers::Scratch;
use crate::fields::Fields;
use crate::path::{has_trailing_slash, translate};
use crate::reason::{Reasons, Rule};
use crate::request::Request;
use crate::rules::Rules;
use crate::status::StatusCode;
use crate::wire::Method;

/// How long browsers may remember the response to a preflight request, in seconds.
const PREFLIGHT_AGE: u64 = 600;

/// A response that the rules of the site prescribe, whatever is at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// To a preflight request of an origin that is allowed.
    Preflight,
    /// To this location.
    Redirect(Vec<u8>),
}

impl ResponseBuilder<'_> {
    /// What the rules prescribe for the request.
    #[inline(always)]
    pub(crate) fn ruling(&self) -> Option<Ruling> {
        ruling(self.cx.config.applied_rules()?, &self.request())
    }

    /// Responds as the rules prescribe. The body of the request has been settled.
    pub(crate) fn respond_ruling(&mut self, ruling: &Ruling) {
        match ruling {
            Ruling::Redirect(location) => {
                self.buf.reasons.note(Rule::Redirected, location);
                self.empty(StatusCode::PERMANENT_REDIRECT, |head, _| {
                    head.field("Location: ", location).number("Content-Length: ", 0);
                });
            }
            Ruling::Preflight => {
                let origin = self.request().field("Origin").unwrap_or_default().to_vec();
                self.buf.reasons.note(Rule::Preflight, &origin);
                let config = self.cx.config;
                self.exchange.is_script = config.handled || !config.cgi.directories.is_empty();
                let methods = self.allow();
                self.empty(StatusCode::NO_CONTENT, |head, _| {
                    head.field("Access-Control-Allow-Methods: ", methods)
                        .field("Access-Control-Allow-Headers: ", b"*, Authorization")
                        .number("Access-Control-Max-Age: ", PREFLIGHT_AGE);
                });
            }
        }
    }
}

#[inline(never)]
fn ruling(rules: &Rules, request: &Request<'_>) -> Option<Ruling> {
    if request.head.method == Method::Options && rules.has_cors() {
        let is_preflight = request.field("Access-Control-Request-Method").is_some();
        let origin = request.field("Origin").filter(|_| is_preflight);
        if origin.is_some_and(|origin| rules.allows_origin(origin)) {
            return Some(Ruling::Preflight);
        }
    }
    if !rules.has_redirects() {
        return None;
    }
    let mut location = Vec::new();
    let path = below_prefix(rules, request)?;
    rules.redirect(&path, has_trailing_slash(request.path()), request.query(), &mut location);
    (!location.is_empty()).then_some(Ruling::Redirect(location))
}

/// The path of a request below the prefix, decoded and resolved. `None`: it is not below it.
fn below_prefix(rules: &Rules, request: &Request<'_>) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    if !request.path().starts_with(b"/") {
        return None;
    }
    translate(request.path(), &mut path).ok()?;
    rules.below_prefix(&path).map(<[u8]>::to_vec)
}

/// Adds the fields of the rules to a response. `request` is `None` if its head is not valid.
#[inline(never)]
pub(super) fn add_fields(
    rules: &Rules,
    status: StatusCode,
    request: Option<&Request<'_>>,
    path_of: PathOf,
    scratch: &Scratch,
    out: &mut Fields<'_>,
    reasons: &mut Reasons,
) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let path: Option<Cow<'_, [u8]>> = match path_of {
        PathOf::File | PathOf::Spa => Some((&scratch.path[..]).into()),
        PathOf::Directory => Some(directory(&scratch.path).into()),
        PathOf::Nothing | PathOf::Health => request.and_then(|request| {
            let path = below_prefix(rules, request)?;
            Some(if has_trailing_slash(request.path()) { directory(&path).into() } else { path.into() })
        }),
    };
    rules.add_sharing(request.and_then(|request| request.field("Origin")), out, reasons);
    // RFC 9110 section 12.5.5: "An origin server SHOULD generate a Vary header field on a cacheable response when it
    // wishes that response to be selectively reused for subsequent requests."
    let is_unasked = status == StatusCode::NOT_FOUND && path.as_ref().is_some_and(|path| rules.spa(path).is_some());
    if path_of == PathOf::Spa || is_unasked {
        out.append("Vary", b"Accept").expect("a valid field");
    }
    let is_success = matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    let is_usual = is_success && path_of != PathOf::Health;
    rules.add_fields(status, is_usual, path.as_deref(), out, reasons);
}

/// The path of a directory, with a slash at its end.
fn directory(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { Vec::new() } else { [path, b"/"].concat() }
}

//! Status codes, with the reason phrase and the explanation that Python's `http.HTTPStatus` has for each.

use std::fmt;

/// A status code, 100 to 999. Each assigned code of the [IANA registry] has a constant.
///
/// A handler that returns one as its error responds with the page of that status: see
/// [`HandlerError`](crate::HandlerError).
///
/// ```
/// use sanserve_core::StatusCode;
///
/// # fn main() -> Result<(), sanserve_core::InvalidStatusCode> {
/// assert_eq!(StatusCode::try_from(415)?, StatusCode::UNSUPPORTED_MEDIA_TYPE);
/// assert_eq!(StatusCode::NOT_FOUND.to_string(), "404 Not Found");
/// assert!(StatusCode::try_from(99).is_err());
/// # Ok(())
/// # }
/// ```
///
/// [IANA registry]: https://www.iana.org/assignments/http-status-codes/http-status-codes.xhtml
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    /// Creates a status code; `None` unless it has three digits.
    #[must_use]
    pub const fn new(code: u16) -> Option<StatusCode> {
        if code >= 100 && code <= 999 { Some(StatusCode(code)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The reason phrase; `???` for an unknown code.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        self.row().map_or("???", |row| row.1)
    }

    /// The explanation for an error page; `???` for an unknown code.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        self.row().map_or("???", |row| row.2)
    }

    /// Whether a response with this status has no content, for any request (RFC 9110 section 6.4.1; 205 by section
    /// 15.3.6).
    #[must_use]
    pub const fn is_bodiless(self) -> bool {
        matches!(self.0, 100..=199 | 204 | 205 | 304)
    }

    fn row(self) -> Option<&'static (u16, &'static str, &'static str)> {
        TABLE.binary_search_by_key(&self.0, |row| row.0).ok().map(|at| &TABLE[at])
    }
}

impl fmt::Display for StatusCode {
    /// `404 Not Found`, or the number alone if the code is unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some((code, phrase, _)) => write!(f, "{code} {phrase}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = InvalidStatusCode;

    fn try_from(code: u16) -> Result<StatusCode, InvalidStatusCode> {
        StatusCode::new(code).ok_or(InvalidStatusCode(code))
    }
}

impl From<StatusCode> for u16 {
    fn from(status: StatusCode) -> u16 {
        status.0
    }
}

/// A number that is not a status code, since it does not have three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStatusCode(u16);

impl fmt::Display for InvalidStatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a status code: it would be from 100 to 999", self.0)
    }
}

impl std::error::Error for InvalidStatusCode {}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.phrase())
    }
}

macro_rules! named {
    ($($name:ident = $code:literal),* $(,)?) => {
        impl StatusCode {
            $(#[doc = concat!("Status ", $code, ".")] pub const $name: StatusCode = StatusCode($code);)*
        }

        #[cfg(test)]
        const NAMED: [StatusCode; [$($code),*].len()] = [$(StatusCode($code)),*];
    };
}

named! {
    CONTINUE = 100,
    SWITCHING_PROTOCOLS = 101,
    PROCESSING = 102,
    EARLY_HINTS = 103,
    OK = 200,
    CREATED = 201,
    ACCEPTED = 202,
    NON_AUTHORITATIVE_INFORMATION = 203,
    NO_CONTENT = 204,
    RESET_CONTENT = 205,
    PARTIAL_CONTENT = 206,
    MULTI_STATUS = 207,
    ALREADY_REPORTED = 208,
    IM_USED = 226,
    MULTIPLE_CHOICES = 300,
    MOVED_PERMANENTLY = 301,
    FOUND = 302,
    SEE_OTHER = 303,
    NOT_MODIFIED = 304,
    USE_PROXY = 305,
    TEMPORARY_REDIRECT = 307,
    PERMANENT_REDIRECT = 308,
    BAD_REQUEST = 400,
    UNAUTHORIZED = 401,
    PAYMENT_REQUIRED = 402,
    FORBIDDEN = 403,
    NOT_FOUND = 404,
    METHOD_NOT_ALLOWED = 405,
    NOT_ACCEPTABLE = 406,
    PROXY_AUTHENTICATION_REQUIRED = 407,
    REQUEST_TIMEOUT = 408,
    CONFLICT = 409,
    GONE = 410,
    LENGTH_REQUIRED = 411,
    PRECONDITION_FAILED = 412,
    CONTENT_TOO_LARGE = 413,
    URI_TOO_LONG = 414,
    UNSUPPORTED_MEDIA_TYPE = 415,
    RANGE_NOT_SATISFIABLE = 416,
    EXPECTATION_FAILED = 417,
    IM_A_TEAPOT = 418,
    MISDIRECTED_REQUEST = 421,
    UNPROCESSABLE_CONTENT = 422,
    LOCKED = 423,
    FAILED_DEPENDENCY = 424,
    TOO_EARLY = 425,
    UPGRADE_REQUIRED = 426,
    PRECONDITION_REQUIRED = 428,
    TOO_MANY_REQUESTS = 429,
    FIELDS_TOO_LARGE = 431,
    UNAVAILABLE_FOR_LEGAL_REASONS = 451,
    INTERNAL_SERVER_ERROR = 500,
    NOT_IMPLEMENTED = 501,
    BAD_GATEWAY = 502,
    SERVICE_UNAVAILABLE = 503,
    GATEWAY_TIMEOUT = 504,
    VERSION_NOT_SUPPORTED = 505,
    VARIANT_ALSO_NEGOTIATES = 506,
    INSUFFICIENT_STORAGE = 507,
    LOOP_DETECTED = 508,
    NOT_EXTENDED = 510,
    NETWORK_AUTHENTICATION_REQUIRED = 511,
}

/// Code, phrase and explanation, ordered by code. If Python has no explanation, it is taken from RFC 9110.
const TABLE: &[(u16, &str, &str)] = &[
    (100, "Continue", "Request received, please continue"),
    (101, "Switching Protocols", "Switching to new protocol; obey Upgrade header"),
    (102, "Processing", "Server is processing the request"),
    (103, "Early Hints", "Server is likely to send a final response with these fields"),
    (200, "OK", "Request fulfilled, document follows"),
    (201, "Created", "Document created, URL follows"),
    (202, "Accepted", "Request accepted, processing continues off-line"),
    (203, "Non-Authoritative Information", "Request fulfilled from cache"),
    (204, "No Content", "Request fulfilled, nothing follows"),
    (205, "Reset Content", "Clear input form for further input"),
    (206, "Partial Content", "Partial content follows"),
    (207, "Multi-Status", "Response carries several statuses"),
    (208, "Already Reported", "Members have been listed already"),
    (226, "IM Used", "Response is the result of instance manipulations"),
    (300, "Multiple Choices", "Object has several resources -- see URI list"),
    (301, "Moved Permanently", "Object moved permanently -- see URI list"),
    (302, "Found", "Object moved temporarily -- see URI list"),
    (303, "See Other", "Object moved -- see Method and URL list"),
    (304, "Not Modified", "Document has not changed since given time"),
    (305, "Use Proxy", "You must use proxy specified in Location to access this resource"),
    (307, "Temporary Redirect", "Object moved temporarily -- see URI list"),
    (308, "Permanent Redirect", "Object moved permanently -- see URI list"),
    (400, "Bad Request", "Bad request syntax or unsupported method"),
    (401, "Unauthorized", "No permission -- see authorization schemes"),
    (402, "Payment Required", "No payment -- see charging schemes"),
    (403, "Forbidden", "Request forbidden -- authorization will not help"),
    (404, "Not Found", "Nothing matches the given URI"),
    (405, "Method Not Allowed", "Specified method is invalid for this resource"),
    (406, "Not Acceptable", "URI not available in preferred format"),
    (407, "Proxy Authentication Required", "You must authenticate with this proxy before proceeding"),
    (408, "Request Timeout", "Request timed out; try again later"),
    (409, "Conflict", "Request conflict"),
    (410, "Gone", "URI no longer exists and has been permanently removed"),
    (411, "Length Required", "Client must specify Content-Length"),
    (412, "Precondition Failed", "Precondition in headers is false"),
    (413, "Content Too Large", "Entity is too large"),
    (414, "URI Too Long", "URI is too long"),
    (415, "Unsupported Media Type", "Entity body in unsupported format"),
    (416, "Range Not Satisfiable", "Cannot satisfy request range"),
    (417, "Expectation Failed", "Expect condition could not be satisfied"),
    (418, "I'm a Teapot", "Server refuses to brew coffee because it is a teapot."),
    (421, "Misdirected Request", "Server is not able to produce a response"),
    (422, "Unprocessable Content", "Server understands the content but cannot process it"),
    (423, "Locked", "Resource is locked"),
    (424, "Failed Dependency", "Another request on which this one depends has failed"),
    (425, "Too Early", "Server is unwilling to process a request that might be replayed"),
    (426, "Upgrade Required", "Client must switch to another protocol"),
    (428, "Precondition Required", "The origin server requires the request to be conditional"),
    (429, "Too Many Requests", "The user has sent too many requests in a given amount of time (\"rate limiting\")"),
    (
        431,
        "Request Header Fields Too Large",
        "The server is unwilling to process the request because its header fields are too large",
    ),
    (
        451,
        "Unavailable For Legal Reasons",
        "The server is denying access to the resource as a consequence of a legal demand",
    ),
    (500, "Internal Server Error", "Server got itself in trouble"),
    (501, "Not Implemented", "Server does not support this operation"),
    (502, "Bad Gateway", "Invalid responses from another server/proxy"),
    (503, "Service Unavailable", "The server cannot process the request due to a high load"),
    (504, "Gateway Timeout", "The gateway server did not receive a timely response"),
    (505, "HTTP Version Not Supported", "Cannot fulfill request"),
    (506, "Variant Also Negotiates", "Server has an internal configuration error"),
    (507, "Insufficient Storage", "Server cannot store what the request needs"),
    (508, "Loop Detected", "Server found an endless loop"),
    (510, "Not Extended", "Request needs further extensions"),
    (511, "Network Authentication Required", "The client needs to authenticate to gain network access"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_and_each_of_its_codes_has_a_constant() {
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0));
        assert_eq!(NAMED.map(|status| status.0).to_vec(), TABLE.iter().map(|row| row.0).collect::<Vec<_>>());
    }

    #[test]
    fn a_status_code_has_three_digits() {
        for (code, is_one) in [(0, false), (99, false), (100, true), (999, true), (1000, false)] {
            assert_eq!(StatusCode::try_from(code).is_ok(), is_one, "{code}");
        }
        assert_eq!(u16::from(StatusCode::IM_A_TEAPOT), 418);
        let error = StatusCode::try_from(42).unwrap_err();
        assert_eq!(error.to_string(), "42 is not a status code: it would be from 100 to 999");
        assert_eq!(StatusCode(799).to_string(), "799");
    }
}

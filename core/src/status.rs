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

macro_rules! statuses {
    ($($name:ident = $code:literal, $phrase:literal, $explanation:literal;)*) => {
        impl StatusCode {
            $(#[doc = concat!("Status ", $code, ": ", $phrase, ".")] pub const $name: StatusCode = StatusCode($code);)*
        }

        /// Code, reason phrase and explanation.
        const TABLE: &[(u16, &str, &str)] = &[$(($code, $phrase, $explanation)),*];
    };
}

// Ordered by code. If Python has no explanation, it is taken from RFC 9110.
statuses! {
    CONTINUE = 100, "Continue", "Request received, please continue";
    SWITCHING_PROTOCOLS = 101, "Switching Protocols", "Switching to new protocol; obey Upgrade header";
    PROCESSING = 102, "Processing", "Server is processing the request";
    EARLY_HINTS = 103, "Early Hints", "Server is likely to send a final response with these fields";
    OK = 200, "OK", "Request fulfilled, document follows";
    CREATED = 201, "Created", "Document created, URL follows";
    ACCEPTED = 202, "Accepted", "Request accepted, processing continues off-line";
    NON_AUTHORITATIVE_INFORMATION = 203, "Non-Authoritative Information", "Request fulfilled from cache";
    NO_CONTENT = 204, "No Content", "Request fulfilled, nothing follows";
    RESET_CONTENT = 205, "Reset Content", "Clear input form for further input";
    PARTIAL_CONTENT = 206, "Partial Content", "Partial content follows";
    MULTI_STATUS = 207, "Multi-Status", "Response carries several statuses";
    ALREADY_REPORTED = 208, "Already Reported", "Members have been listed already";
    IM_USED = 226, "IM Used", "Response is the result of instance manipulations";
    MULTIPLE_CHOICES = 300, "Multiple Choices", "Object has several resources -- see URI list";
    MOVED_PERMANENTLY = 301, "Moved Permanently", "Object moved permanently -- see URI list";
    FOUND = 302, "Found", "Object moved temporarily -- see URI list";
    SEE_OTHER = 303, "See Other", "Object moved -- see Method and URL list";
    NOT_MODIFIED = 304, "Not Modified", "Document has not changed since given time";
    USE_PROXY = 305, "Use Proxy", "You must use proxy specified in Location to access this resource";
    TEMPORARY_REDIRECT = 307, "Temporary Redirect", "Object moved temporarily -- see URI list";
    PERMANENT_REDIRECT = 308, "Permanent Redirect", "Object moved permanently -- see URI list";
    BAD_REQUEST = 400, "Bad Request", "Bad request syntax or unsupported method";
    UNAUTHORIZED = 401, "Unauthorized", "No permission -- see authorization schemes";
    PAYMENT_REQUIRED = 402, "Payment Required", "No payment -- see charging schemes";
    FORBIDDEN = 403, "Forbidden", "Request forbidden -- authorization will not help";
    NOT_FOUND = 404, "Not Found", "Nothing matches the given URI";
    METHOD_NOT_ALLOWED = 405, "Method Not Allowed", "Specified method is invalid for this resource";
    NOT_ACCEPTABLE = 406, "Not Acceptable", "URI not available in preferred format";
    PROXY_AUTHENTICATION_REQUIRED = 407, "Proxy Authentication Required",
        "You must authenticate with this proxy before proceeding";
    REQUEST_TIMEOUT = 408, "Request Timeout", "Request timed out; try again later";
    CONFLICT = 409, "Conflict", "Request conflict";
    GONE = 410, "Gone", "URI no longer exists and has been permanently removed";
    LENGTH_REQUIRED = 411, "Length Required", "Client must specify Content-Length";
    PRECONDITION_FAILED = 412, "Precondition Failed", "Precondition in headers is false";
    CONTENT_TOO_LARGE = 413, "Content Too Large", "Entity is too large";
    URI_TOO_LONG = 414, "URI Too Long", "URI is too long";
    UNSUPPORTED_MEDIA_TYPE = 415, "Unsupported Media Type", "Entity body in unsupported format";
    RANGE_NOT_SATISFIABLE = 416, "Range Not Satisfiable", "Cannot satisfy request range";
    EXPECTATION_FAILED = 417, "Expectation Failed", "Expect condition could not be satisfied";
    IM_A_TEAPOT = 418, "I'm a Teapot", "Server refuses to brew coffee because it is a teapot.";
    MISDIRECTED_REQUEST = 421, "Misdirected Request", "Server is not able to produce a response";
    UNPROCESSABLE_CONTENT = 422, "Unprocessable Content", "Server understands the content but cannot process it";
    LOCKED = 423, "Locked", "Resource is locked";
    FAILED_DEPENDENCY = 424, "Failed Dependency", "Another request on which this one depends has failed";
    TOO_EARLY = 425, "Too Early", "Server is unwilling to process a request that might be replayed";
    UPGRADE_REQUIRED = 426, "Upgrade Required", "Client must switch to another protocol";
    PRECONDITION_REQUIRED = 428, "Precondition Required", "The origin server requires the request to be conditional";
    TOO_MANY_REQUESTS = 429, "Too Many Requests",
        "The user has sent too many requests in a given amount of time (\"rate limiting\")";
    FIELDS_TOO_LARGE = 431, "Request Header Fields Too Large",
        "The server is unwilling to process the request because its header fields are too large";
    UNAVAILABLE_FOR_LEGAL_REASONS = 451, "Unavailable For Legal Reasons",
        "The server is denying access to the resource as a consequence of a legal demand";
    INTERNAL_SERVER_ERROR = 500, "Internal Server Error", "Server got itself in trouble";
    NOT_IMPLEMENTED = 501, "Not Implemented", "Server does not support this operation";
    BAD_GATEWAY = 502, "Bad Gateway", "Invalid responses from another server/proxy";
    SERVICE_UNAVAILABLE = 503, "Service Unavailable", "The server cannot process the request due to a high load";
    GATEWAY_TIMEOUT = 504, "Gateway Timeout", "The gateway server did not receive a timely response";
    VERSION_NOT_SUPPORTED = 505, "HTTP Version Not Supported", "Cannot fulfill request";
    VARIANT_ALSO_NEGOTIATES = 506, "Variant Also Negotiates", "Server has an internal configuration error";
    INSUFFICIENT_STORAGE = 507, "Insufficient Storage", "Server cannot store what the request needs";
    LOOP_DETECTED = 508, "Loop Detected", "Server found an endless loop";
    NOT_EXTENDED = 510, "Not Extended", "Request needs further extensions";
    NETWORK_AUTHENTICATION_REQUIRED = 511, "Network Authentication Required",
        "The client needs to authenticate to gain network access";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_and_each_of_its_codes_has_a_constant() {
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0));
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

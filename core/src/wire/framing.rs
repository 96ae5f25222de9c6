//! What a head determines about its message and its connection: the end of the body, the host, persistence and
//! expectations (RFC 9112 sections 3.2, 6 and 9, RFC 9110 sections 7.2 and 10.1.1). How a violation is answered is
//! decided elsewhere.

use super::head::{Head, Known, Target};
use crate::config::Limits;
use crate::error::Violation;
use crate::grammar::{digits, is_host, is_token_byte, list_items};
use crate::reason::Rule;

/// What a head determines about its message and its connection. Each part is independent; a head is valid if no part is
/// a violation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) host: Result<(), Violation>,
    pub(crate) framing: Result<Framing, Violation>,
    pub(crate) persistence: Persistence,
    pub(crate) expectation: Expectation,
}

impl Terms {
    pub(crate) fn of(head: &Head, bytes: &[u8], limits: &Limits) -> Terms {
        Terms {
            host: check_host(head, bytes),
            framing: Framing::of(head, bytes, limits),
            persistence: Persistence::of(head, bytes),
            expectation: Expectation::of(head, bytes),
        }
    }
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    /// RFC 9112 section 6.3, without the choices that it leaves to a recipient: everything that two recipients could
    /// interpret differently is refused.
    pub(crate) fn of(head: &Head, bytes: &[u8], limits: &Limits) -> Result<Framing, Violation> {
        if head.has(Known::TransferEncoding) {
            if head.has(Known::ContentLength) {
                return Err(Violation::LengthWithCoding);
            }
            if !head.is_11 {
                return Err(Violation::CodingOnOldVersion);
            }
            return coding(head, bytes).map(|()| Framing::Chunked);
        }
        let mut length = None;
        for value in head.values(Known::ContentLength, bytes) {
            if length.is_some_and(|first| first != value) {
                return Err(Violation::LengthsDiffer);
            }
            length = Some(value);
        }
        match length.map(digits) {
            None | Some(Some(0)) => Ok(Framing::None),
            Some(None) => Err(Violation::MalformedLength),
            Some(Some(length)) if length > limits.body => Err(Violation::BodyTooLarge),
            Some(Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Succeeds if the only transfer coding is `chunked`.
fn coding(head: &Head, bytes: &[u8]) -> Result<(), Violation> {
    let mut chunked = 0;
    let mut last_is_chunked = false;
    let mut unknown = false;
    for value in head.values(Known::TransferEncoding, bytes) {
        for item in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            last_is_chunked = item.eq_ignore_ascii_case(b"chunked");
            if last_is_chunked {
                chunked += 1;
                continue;
            }
            let name = item.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
            if name.is_empty() || !name.iter().copied().all(is_token_byte) || name.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::MalformedCoding);
            }
            unknown = true;
        }
    }
    match (chunked, unknown) {
        (1, false) => Ok(()),
        (0, true) => Err(Violation::UnknownCoding),
        (1, true) if last_is_chunked => Err(Violation::UnknownCoding),
        _ => Err(Violation::MalformedCoding),
    }
}

/// RFC 9112 section 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
/// that lacks a Host header field and to any request message that contains more than one Host header field line or a
/// Host header field with an invalid field value."
fn check_host(head: &Head, bytes: &[u8]) -> Result<(), Violation> {
    let mut values = head.values(Known::Host, bytes);
    match (values.next(), values.next()) {
        (None, _) if head.is_11 => Err(Violation::HostMissing),
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err(Violation::HostRepeated),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(Violation::HostMalformed),
    }
}

/// The host of a request.
/// RFC 9112 section 3.2.2: "When an origin server receives a request with an absolute-form of request-target, the
/// origin server MUST ignore the received Host header field (if any) and instead use the host information of the
/// request-target."
pub(crate) fn host<'b>(head: &'b Head, bytes: &'b [u8]) -> Option<&'b [u8]> {
    match head.target {
        Target::Absolute { authority, .. } => Some(authority.of_bytes(bytes)),
        _ => head.single(Known::Host, bytes),
    }
}

/// Whether the client permits the connection to persist, and why (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// HTTP/1.1 without a `close` option.
    Default,
    /// HTTP/1.0 with a `keep-alive` option.
    Asked,
    /// A `close` option.
    Close,
    /// HTTP/1.0 without a `keep-alive` option.
    Old,
}

impl Persistence {
    pub(crate) fn of(head: &Head, bytes: &[u8]) -> Persistence {
        let mut persistence = if head.is_11 { Persistence::Default } else { Persistence::Old };
        if !head.has(Known::Connection) {
            return persistence;
        }
        for item in head.values(Known::Connection, bytes).flat_map(list_items) {
            if item.eq_ignore_ascii_case(b"close") {
                return Persistence::Close;
            }
            if !head.is_11 && item.eq_ignore_ascii_case(b"keep-alive") {
                persistence = Persistence::Asked;
            }
        }
        persistence
    }

    pub(crate) fn keeps_alive(self) -> bool {
        matches!(self, Persistence::Default | Persistence::Asked)
    }

    pub(crate) fn rule(self) -> Rule {
        match self {
            Persistence::Default => Rule::Persists,
            Persistence::Asked => Rule::PersistsAsked,
            Persistence::Close => Rule::CloseAsked,
            Persistence::Old => Rule::CloseOfOld,
        }
    }
}

/// What the client expects before it sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    None,
    Continue,
    Unknown,
}

impl Expectation {
    /// RFC 9110 section 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore
    /// that expectation."
    pub(crate) fn of(head: &Head, bytes: &[u8]) -> Expectation {
        let mut expectation = Expectation::None;
        if head.is_11 && head.has(Known::Expect) {
            for item in head.values(Known::Expect, bytes).flat_map(list_items) {
                if !item.eq_ignore_ascii_case(b"100-continue") {
                    return Expectation::Unknown;
                }
                expectation = Expectation::Continue;
            }
        }
        expectation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str, version: &str) -> (Head, Vec<u8>) {
        let bytes = format!("POST / HTTP/{version}\r\n{fields}\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        (head, bytes)
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        use Violation::*;
        for (fields, framing) in [
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::None)),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(LengthsDiffer)),
            ("Content-Length: 5\r\nContent-Length: 05\r\n", Err(LengthsDiffer)),
            ("Content-Length: 5, 5\r\n", Err(MalformedLength)),
            ("Content-Length: +5\r\n", Err(MalformedLength)),
            ("Content-Length: -5\r\n", Err(MalformedLength)),
            ("Content-Length: 0x5\r\n", Err(MalformedLength)),
            ("Content-Length: 5 5\r\n", Err(MalformedLength)),
            ("Content-Length:\r\n", Err(MalformedLength)),
            ("Content-Length: 18446744073709551616\r\n", Err(MalformedLength)),
            ("Content-Length: 1073741824\r\n", Ok(Framing::Length(1 << 30))),
            ("Content-Length: 1073741825\r\n", Err(BodyTooLarge)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(LengthWithCoding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(UnknownCoding)),
            ("Transfer-Encoding: identity\r\n", Err(UnknownCoding)),
            ("Transfer-Encoding: xchunked\r\n", Err(UnknownCoding)),
            ("Transfer-Encoding: chunked;a=b\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(MalformedCoding)),
            ("Transfer-Encoding:\r\n", Err(MalformedCoding)),
        ] {
            let (head, bytes) = head(fields, "1.1");
            assert_eq!(Framing::of(&head, &bytes, &Limits::default()), framing, "{fields}");
        }
        let (head, bytes) = head("Transfer-Encoding: chunked\r\n", "1.0");
        assert_eq!(Framing::of(&head, &bytes, &Limits::default()), Err(CodingOnOldVersion));
    }

    #[test]
    fn hosts_are_validated() {
        for good in ["", "x", "localhost:8000", "127.0.0.1", "[::1]", "[::1]:80", "a-b_c.example:", "%41", "[v1.a:b]"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a/b", "a@b", "x:port", "x:1:2", "[::1", "[::1]x", "[]", "[1]", "[:::::]", ":80", "%4", "a,b c",
            "x:123456", "<x>", "[v.a]",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn persistence_and_expectation_are_determined() {
        for (fields, version, keep) in [
            ("", "1.1", true),
            ("", "1.0", false),
            ("Connection: Keep-Alive\r\n", "1.0", true),
            ("Connection: x, close , y\r\n", "1.1", false),
            ("Connection: keep-alive\r\nConnection: close\r\n", "1.1", false),
            ("Connection: closed\r\n", "1.1", true),
        ] {
            let (head, bytes) = head(fields, version);
            assert_eq!(Persistence::of(&head, &bytes).keeps_alive(), keep, "{fields}{version}");
        }
        for (fields, version, expectation) in [
            ("", "1.1", Expectation::None),
            ("Expect: 100-Continue\r\n", "1.1", Expectation::Continue),
            ("Expect: 100-continue\r\n", "1.0", Expectation::None),
            ("Expect: 100-continue, x\r\n", "1.1", Expectation::Unknown),
            ("Expect: x\r\n", "1.0", Expectation::None),
        ] {
            let (head, bytes) = head(fields, version);
            assert_eq!(Expectation::of(&head, &bytes), expectation, "{fields}{version}");
        }
    }
}

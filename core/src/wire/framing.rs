//! How a request says where it ends, who it is for, and what becomes of the connection:
//! RFC 9112 sections 3.2, 6 and 9, RFC 9110 sections 7.2 and 10.1.1.

use super::head::{Head, Known, Target};
use crate::config::Limits;
use crate::error::Violation;
use crate::grammar::{digits, is_host, is_token_byte, list_items};
use crate::reason::Rule;

/// What a head says about its message and its connection. Each part is decided by itself; a head is right if no part
/// is a violation.
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

/// The body that a request announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    /// RFC 9112 section 6.3, without the choices that it leaves a recipient: whatever two parties
    /// could read differently is refused.
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

/// `Ok` where the transfer codings are `chunked` and nothing else.
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

/// RFC 9112 section 3.2: exactly one valid Host on HTTP/1.1, at most one on HTTP/1.0.
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

/// The host of a request: the authority of an absolute target, else the Host field (RFC 9112
/// section 3.2.2).
pub(crate) fn host<'b>(head: &'b Head, bytes: &'b [u8]) -> Option<&'b [u8]> {
    match head.target {
        Target::Absolute { authority, .. } => Some(authority.of_bytes(bytes)),
        _ => head.single(Known::Host, bytes),
    }
}

/// Whether the peer would keep the connection, and by which rule (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It has not said otherwise.
    Usual,
    /// It asks for it, on HTTP/1.0.
    Asked,
    /// It asks for the end.
    Close,
    /// It speaks HTTP/1.0 and has not asked.
    Old,
}

impl Persistence {
    pub(crate) fn of(head: &Head, bytes: &[u8]) -> Persistence {
        let mut persistence = if head.is_11 { Persistence::Usual } else { Persistence::Old };
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
        matches!(self, Persistence::Usual | Persistence::Asked)
    }

    pub(crate) fn rule(self) -> Rule {
        match self {
            Persistence::Usual => Rule::Persists,
            Persistence::Asked => Rule::PersistsAsked,
            Persistence::Close => Rule::CloseAsked,
            Persistence::Old => Rule::CloseOfOld,
        }
    }
}

/// What the peer expects before it sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    None,
    Continue,
    Unknown,
}

impl Expectation {
    /// RFC 9110 section 10.1.1: an HTTP/1.0 request has none, whatever it says.
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
    fn framing_is_unambiguous_or_refused() {
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
    fn hosts() {
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
    fn persistence_and_expectation() {
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

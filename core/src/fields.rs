//! Fields that an embedder adds to a head or a trailer section. They are validated, so that no injected line reaches
//! the wire.

use std::ops::Range;

use crate::grammar::{is_field_value, is_token_byte};

/// Adds fields to a head, after validating them.
pub struct Fields<'o> {
    out: &'o mut Vec<u8>,
}

/// Fields that determine where a message or a connection ends, so that only the server writes them.
const FRAMING: [&str; 3] = ["Content-Length", "Transfer-Encoding", "Connection"];

/// Fields that must not be in a trailer section.
/// RFC 9110 section 6.5.1: "Many fields cannot be processed outside the header section because their evaluation is
/// necessary prior to receiving the content, such as those that describe message framing, routing, authentication,
/// request modifiers, response controls, or content format."
const NOT_IN_TRAILERS: [&str; 16] = [
    "Age",
    "Authorization",
    "Cache-Control",
    "Content-Encoding",
    "Content-Range",
    "Content-Type",
    "Date",
    "Expires",
    "Host",
    "Location",
    "Retry-After",
    "Set-Cookie",
    "TE",
    "Trailer",
    "Vary",
    "WWW-Authenticate",
];

impl<'o> Fields<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Fields<'o> {
        Fields { out }
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`Misuse::Field`] if the name is not a token or the value contains a control character,
    /// [`Misuse::ReservedHeader`] for a field that only the server may write.
    pub fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        let name_fits = !name.is_empty() && name.bytes().all(is_token_byte);
        if !name_fits || !is_field_value(value) {
            return Err(Misuse::Field);
        }
        if is_one_of(&FRAMING, name) {
            return Err(Misuse::ReservedHeader);
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Adds a field to a trailer section.
    pub(crate) fn add_trailer(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        if is_one_of(&NOT_IN_TRAILERS, name) {
            return Err(Misuse::ReservedHeader);
        }
        self.add(name, value)
    }
}

/// Whether some field lines contain a field with that name.
pub(crate) fn has_field(lines: &[u8], name: &str) -> bool {
    lines_named(lines, name).next().is_some()
}

/// Where the lines of the fields with that name are, each with its line end.
fn lines_named(lines: &[u8], name: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    lines.split_inclusive(|&byte| byte == b'\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let is_named = line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
        is_named.then_some(start..at)
    })
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Why a call of a handler failed: an incorrect use of the API, or a lack of memory. Nothing is sent because of such a
/// call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A field name that is not a token, or a value with CR, LF, NUL or another control character.
    Field,
    /// A field that frames the message or closes the connection. Only the server may write it.
    ReservedHeader,
    /// A second head, or a body before the head.
    HeadOrder,
    /// An interim status (1xx) for a response, or another status for an interim response.
    Interim,
    /// More body than the announced length, a body for a response without one, or less body than announced at its end.
    LengthMismatch,
    /// The request did not ask to change the protocol, or has not been read to its end.
    Upgrade,
    /// The exchange has ended, or another task produces its response.
    ExchangeEnded,
    /// The server has no memory for a complete body of this length ([`Memory`](crate::Memory)). The handler may still
    /// respond, for example by [writing](crate::Reply::write) the body in parts. If it gives up instead, the response is
    /// 503.
    OutOfMemory,
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misuse::Field => "invalid character in a field name or value",
            Misuse::ReservedHeader => "a field that frames the message can only be written by the server",
            Misuse::HeadOrder => "a second head, or a body before the head",
            Misuse::Interim => "an interim status (1xx) cannot be the status of a response, nor another one that of an interim response",
            Misuse::LengthMismatch => "the body is longer or shorter than announced",
            Misuse::Upgrade => "the request did not ask to change the protocol, or has a body",
            Misuse::ExchangeEnded => "the exchange has ended",
            Misuse::OutOfMemory => "no memory for a body of this length, which may be written in parts instead",
        })
    }
}

impl std::error::Error for Misuse {}

impl From<Misuse> for std::io::Error {
    fn from(misuse: Misuse) -> std::io::Error {
        let kind = match misuse {
            Misuse::OutOfMemory => std::io::ErrorKind::OutOfMemory,
            _ => std::io::ErrorKind::InvalidInput,
        };
        std::io::Error::new(kind, misuse)
    }
}

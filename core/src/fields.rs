//! Fields that an embedder writes, each checked: what must not stand in a head never reaches the wire.

use crate::grammar::{is_field_value, is_token_byte};

/// Adds fields to a head, after checking them.
pub struct Fields<'o> {
    out: &'o mut Vec<u8>,
}

/// Fields that say where a message ends or a connection does.
const FRAMING: [&str; 3] = ["Content-Length", "Transfer-Encoding", "Connection"];

/// Fields that must not stand in a trailer section (RFC 9110 section 6.5.1): what they say is needed
/// before the content, or by others than the recipient.
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
    /// [`Misuse::Field`] for a name that is no token or a value with a control character,
    /// [`Misuse::ReservedHeader`] for a field that is the server's to write.
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

    /// The same in a trailer section.
    pub(crate) fn add_trailer(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        if is_one_of(&NOT_IN_TRAILERS, name) {
            return Err(Misuse::ReservedHeader);
        }
        self.add(name, value)
    }
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Something a handler must not do. Nothing of it reaches the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A field name that is no token, or a value with CR, LF, NUL or another control character.
    Field,
    /// A field that frames the message or ends the connection is not the handler's to write.
    ReservedHeader,
    /// A second head, or a body before the head.
    HeadOrder,
    /// An interim status (1xx) is no answer, and only an interim status informs.
    Interim,
    /// More body than the length that was announced, or a body where there is none; or less when it ends.
    LengthMismatch,
    /// The request did not ask to change the protocol, or is not read to its end.
    Upgrade,
    /// The exchange is over, or another task answers it.
    ExchangeEnded,
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misuse::Field => "a field name or value with a character that it cannot have",
            Misuse::ReservedHeader => "a field that frames the message is not the handler's to write",
            Misuse::HeadOrder => "a second head, or a body before the head",
            Misuse::Interim => "an interim status is no answer, and no other one informs",
            Misuse::LengthMismatch => "more body than was announced, or less",
            Misuse::Upgrade => "the request did not ask to change the protocol, or has a body",
            Misuse::ExchangeEnded => "the exchange is over",
        })
    }
}

impl std::error::Error for Misuse {}

impl From<Misuse> for std::io::Error {
    fn from(misuse: Misuse) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, misuse)
    }
}

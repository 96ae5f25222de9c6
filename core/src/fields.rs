//! Fields that an embedder adds to a head or a trailer section. They are validated, so that no injected line reaches
//! the wire.

use std::ops::Range;

use crate::grammar::{is_field_value, is_one_of, is_token_byte};

/// The fields of a head that is being written. What is added is validated.
///
/// ```
/// use sanserve_core::{Fields, Policy, Request, StatusCode};
///
/// struct Ours;
///
/// impl Policy for Ours {
///     fn fields(&self, request: &Request<'_>, _: StatusCode, fields: &mut Fields<'_>) {
///         // These only fail for an invalid field.
///         let _ = fields.remove("Server");
///         if !fields.has("Cache-Control") {
///             let _ = fields.append("Cache-Control", b"no-cache");
///         }
///         if request.path().ends_with(b".wasm") {
///             let _ = fields.set("Content-Type", b"application/wasm");
///         }
///     }
/// }
/// # fn main() {
/// # let _: &dyn Policy = &Ours;
/// # }
/// ```
pub struct Fields<'o> {
    out: &'o mut Vec<u8>,
    /// Where the fields begin.
    from: usize,
}

/// Fields that determine where a message or a connection ends, so that only the server writes them.
const FRAMING: [&str; 3] = ["Content-Length", "Transfer-Encoding", "Connection"];

/// Fields that must not be in a trailer section.
/// RFC 9110 section 6.5.1: "Many fields cannot be processed outside the header section because their evaluation is
/// necessary prior to receiving the content, such as those that describe message framing, routing, authentication,
/// request modifiers, response controls, or content format."
const NOT_IN_TRAILERS: &str = "Age Authorization Cache-Control Content-Encoding Content-Range Content-Type Date Expires \
    Host Location Retry-After Set-Cookie TE Trailer Vary WWW-Authenticate";

impl<'o> Fields<'o> {
    /// The fields that begin at `from`.
    pub(crate) fn new(out: &'o mut Vec<u8>, from: usize) -> Fields<'o> {
        Fields { out, from }
    }

    /// Whether there is a field with that name, ignoring case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        has_field(&self.out[self.from..], name)
    }

    /// Replaces all fields with that name by one, which comes last.
    ///
    /// # Errors
    /// As [`append`](Self::append). Nothing is changed then.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        let end = self.out.len();
        self.append(name, value)?;
        self.remove_before(end, name);
        Ok(())
    }

    /// Removes all fields with that name.
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`] for a field that only the server may write.
    pub fn remove(&mut self, name: &str) -> Result<(), Misuse> {
        if is_one_of(FRAMING, name.as_bytes()) {
            return Err(Misuse::ReservedHeader);
        }
        self.remove_before(self.out.len(), name);
        Ok(())
    }

    fn remove_before(&mut self, mut end: usize, name: &str) {
        loop {
            let found = lines_named(&self.out[self.from..end], name).next();
            let Some(line) = found else { return };
            end -= line.len();
            self.out.drain(self.from + line.start..self.from + line.end);
        }
    }

    /// Adds a field, after those with the same name.
    ///
    /// # Errors
    /// [`Misuse::Field`] if the name is not a token or the value contains a control character,
    /// [`Misuse::ReservedHeader`] for a field that only the server may write.
    pub fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        let name_fits = !name.is_empty() && name.bytes().all(is_token_byte);
        if !name_fits || !is_field_value(value) {
            return Err(Misuse::Field);
        }
        if is_one_of(FRAMING, name.as_bytes()) {
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
        if is_one_of(NOT_IN_TRAILERS.split(' '), name.as_bytes()) {
            return Err(Misuse::ReservedHeader);
        }
        self.append(name, value)
    }
}

/// Whether some field lines contain a field with that name.
pub(crate) fn has_field(lines: &[u8], name: &str) -> bool {
    lines_named(lines, name).next().is_some()
}

/// The field lines, each with its line end.
pub(crate) fn field_lines(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split_inclusive(|&byte| byte == b'\n')
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

/// Why a call of a handler failed: an incorrect use of the API, or a lack of memory. Nothing is sent because of such a
/// call.
///
/// ```
/// use sanserve_core::{Misuse, ResponseHead, StatusCode};
///
/// let head = || ResponseHead::new(StatusCode::OK);
/// assert_eq!(head().field("X-User", "Ada\r\nSet-Cookie: a=b").err(), Some(Misuse::Field));
/// assert_eq!(head().field("Content-Length", "7").err(), Some(Misuse::ReservedHeader));
/// ```
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"HTTP/1.1 200 OK\r\nServer: a\r\nX-A: 1\r\nContent-Length: 3\r\nx-a: 2\r\nX-AB: 3\r\n";

    /// The fields after `change`, without the status line.
    fn after(change: impl FnOnce(&mut Fields<'_>)) -> String {
        let mut out = LINES.to_vec();
        change(&mut Fields::new(&mut out, 17));
        assert_eq!(out[..17], LINES[..17]);
        String::from_utf8(out[17..].to_vec()).unwrap()
    }

    #[test]
    fn fields_are_set_removed_and_found_ignoring_case() {
        let set = after(|fields| fields.set("X-a", b"9").unwrap());
        assert_eq!(set, "Server: a\r\nContent-Length: 3\r\nX-AB: 3\r\nX-a: 9\r\n");
        let removed = after(|fields| fields.remove("SERVER").and_then(|()| fields.remove("none")).unwrap());
        assert_eq!(removed, "X-A: 1\r\nContent-Length: 3\r\nx-a: 2\r\nX-AB: 3\r\n");
        after(|fields| {
            assert_eq!([fields.has("x-ab"), fields.has("x-"), fields.has("HTTP/1.1 200 OK")], [true, false, false])
        });
    }

    #[test]
    fn fields_of_the_server_and_invalid_ones_change_nothing() {
        let same = after(|fields| {
            assert_eq!(fields.set("content-length", b"4"), Err(Misuse::ReservedHeader));
            assert_eq!(fields.remove("Content-Length"), Err(Misuse::ReservedHeader));
            assert_eq!(fields.set("X-A", b"4\r\nB: c"), Err(Misuse::Field));
        });
        assert_eq!(same.as_bytes(), &LINES[17..]);
    }
}

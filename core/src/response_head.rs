//! The head of a response as a value. Every part is validated when it is added, without a connection.

use std::fmt;

use crate::fields::{Fields, Misuse};
use crate::status::StatusCode;

/// The head of a response: its status, its fields, and the length of the body. Invalid values are refused when they are
/// added, so that they cannot reach the wire.
///
/// [`Reply::send_head`](crate::Reply::send_head) sends it, any number of times. The server adds `Date`, `Server`,
/// `Connection` and the framing of the body.
///
/// ```
/// use sanserve_core::{Misuse, Reply, ResponseHead, StatusCode};
///
/// # fn main() -> Result<(), Misuse> {
/// let json = ResponseHead::new(StatusCode::OK).field("Content-Type", "application/json")?.length(2);
///
/// let answer = move |reply: &mut Reply<'_>| {
///     reply.send_head(&json)?;
///     reply.write(b"{}")?;
///     reply.finish()
/// };
/// # let _: &dyn Fn(&mut Reply<'_>) -> Result<(), Misuse> = &answer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a head does nothing until it is sent"]
pub struct ResponseHead {
    status: StatusCode,
    reason: Option<Vec<u8>>,
    /// The field lines, each with its line end.
    fields: Vec<u8>,
    length: Option<u64>,
    pub(crate) own: Own,
}

/// Which of the fields that are added to a head are not to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    /// The embedder has set `Server`.
    pub(crate) server: bool,
    /// The embedder has set `Date`.
    pub(crate) date: bool,
    /// Neither the rules of the site nor the policy add any.
    pub(crate) site: bool,
}

impl ResponseHead {
    /// Creates a head without fields, with the default reason phrase of the status.
    pub fn new(status: StatusCode) -> ResponseHead {
        ResponseHead { status, reason: None, fields: Vec::new(), length: None, own: Own::default() }
    }

    /// Replaces the reason phrase of the status (the `message` of Python's `send_response`): visible ASCII characters
    /// and spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(mut self, reason: &str) -> Result<Self, Misuse> {
        if !reason.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Misuse::Field);
        }
        self.reason = Some(reason.as_bytes().to_vec());
        Ok(self)
    }

    /// Adds a field (Python's `send_header`). The value is sent as it is: for Latin-1, pass bytes in Latin-1. `Server`
    /// and `Date` replace those that the server would add.
    ///
    /// # Errors
    /// [`Misuse::Field`] if the name is not a token or the value contains a control character,
    /// [`Misuse::ReservedHeader`] for a field that only the server may write.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, Misuse> {
        Fields::new(&mut self.fields, 0).append(name, value.as_ref())?;
        self.own.server |= name.eq_ignore_ascii_case("Server");
        self.own.date |= name.eq_ignore_ascii_case("Date");
        Ok(self)
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the connection for HTTP/1.0.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The phrase that replaces the one of the status.
    pub(crate) fn own_reason(&self) -> Option<&[u8]> {
        self.reason.as_deref()
    }

    /// The field lines.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.fields
    }

    /// The announced length of the body.
    pub(crate) fn body_length(&self) -> Option<u64> {
        self.length
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseHead({} {})", self.status.code(), self.fields.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> ResponseHead {
        ResponseHead::new(StatusCode::OK)
    }

    #[test]
    fn invalid_values_are_refused_when_they_are_added() {
        for (name, value, misuse) in [
            ("", "a", Misuse::Field),
            ("A b", "c", Misuse::Field),
            ("A:", "c", Misuse::Field),
            ("A", "b\r\nC: d", Misuse::Field),
            ("A", "b\0", Misuse::Field),
            ("content-length", "3", Misuse::ReservedHeader),
            ("Transfer-Encoding", "chunked", Misuse::ReservedHeader),
            ("CONNECTION", "close", Misuse::ReservedHeader),
        ] {
            assert_eq!(head().field(name, value).err(), Some(misuse), "{name}: {value:?}");
        }
        for reason in ["a\r\nB: c", "caf\u{e9}", "\t"] {
            assert_eq!(head().reason(reason).err(), Some(Misuse::Field), "{reason:?}");
        }
    }

    #[test]
    fn fields_keep_their_order() {
        let head = head().field("B", b"caf\xe9").unwrap().field("a", "").unwrap().reason("So be it").unwrap().length(3);
        assert_eq!((head.lines(), head.own_reason()), (&b"B: caf\xe9\r\na: \r\n"[..], Some(&b"So be it"[..])));
        assert_eq!((head.status(), head.body_length()), (StatusCode::OK, Some(3)));
        assert_eq!(format!("{head:?}"), r"ResponseHead(200 B: caf\xe9\r\na: \r\n)");
    }

    #[test]
    fn server_and_date_may_be_replaced() {
        let own = |name: &str| {
            let Own { server, date, .. } = head().field(name, "x").unwrap().own;
            (server, date)
        };
        assert_eq!([own("sERVER"), own("Date"), own("X-Date")], [(true, false), (false, true), (false, false)]);
    }
}

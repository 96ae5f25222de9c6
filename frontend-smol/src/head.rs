//! The head of an answer, written part by part.

use std::io;

use sanserve_core::{self as core, Misuse, Reply, ResponseHead, StatusCode};

use crate::exchange::Exchange;

/// The head of an answer that is being written, by
/// [`Exchange::respond`] or [`Exchange::inform`]. Each part is checked at once; nothing goes out
/// before [`send`](Self::send), nor if that is not called.
#[must_use = "nothing goes out before `send`"]
#[derive(Debug)]
pub struct HeadWriter<'x> {
    exchange: &'x Exchange<'x>,
    begin: Begin,
    head: ResponseHead,
}

/// How [`Reply`] begins a head.
type Begin = for<'r> fn(&'r mut Reply<'_>, StatusCode) -> Result<core::HeadWriter<'r>, Misuse>;

impl<'x> HeadWriter<'x> {
    /// Sees to it that `begin` is permitted.
    pub(crate) fn new(exchange: &'x Exchange<'x>, begin: Begin, status: StatusCode) -> io::Result<HeadWriter<'x>> {
        HeadWriter { exchange, begin, head: ResponseHead::new(status) }.with(Ok)
    }

    /// Adds a part, if a head may be begun still: the exchange may have ended since the part before.
    fn with(self, add: impl FnOnce(ResponseHead) -> Result<ResponseHead, Misuse>) -> io::Result<Self> {
        let HeadWriter { exchange, begin, head } = self;
        exchange.reply(|reply| begin(reply, head.status()).map(drop))?;
        Ok(HeadWriter { exchange, begin, head: add(head)? })
    }

    /// Replaces the status's own phrase (the `message` of Python's `send_response`): visible ASCII and
    /// spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(self, reason: &str) -> io::Result<Self> {
        self.with(|head| head.reason(reason))
    }

    /// Adds a field (Python's `send_header`). The value is bytes: text that is not ASCII goes out as it is
    /// encoded, so a value in Latin-1 is a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`] for a name that is no token or a value with a control character,
    /// [`Misuse::ReservedHeader`] for a field that is the server's to write.
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        self.with(|head| head.field(name, value))
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the
    /// connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { head: self.head.length(length), ..self }
    }

    /// Ends the head, and the answer with all of its body: its length is announced, and there is no limit to it, since
    /// it is in memory already. Where the answer has none (to a HEAD, with 204 and 304), it is dropped, and may be
    /// empty though a length was announced.
    ///
    /// It waits for nothing, so there is nothing to await.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if another [`length`](Self::length) was announced, [`Misuse::Interim`] for a status below
    /// 200. Nothing is sent then. As [`send`](Self::send), if another head was sent meanwhile.
    pub fn body(self, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.exchange.send_response(&self.head, body)
    }

    /// Ends the head (Python's `end_headers`). It goes out when the handler waits for anything.
    ///
    /// # Errors
    /// [`Misuse`], if another head was sent meanwhile.
    pub fn send(self) -> io::Result<()> {
        self.exchange.send_head(&self.head)
    }
}

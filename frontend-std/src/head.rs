//! The head of an answer, written part by part, by a handler that blocks.

use std::io;

use sanserve_core::{ResponseHead, StatusCode};

use crate::driver::Line;

/// The head of an answer that is being written. Each part is checked at once; nothing goes out before
/// [`send`](Self::send).
#[must_use = "nothing goes out before it is sent"]
pub struct HeadWriter<'e> {
    line: &'e mut Line,
    head: ResponseHead,
}

impl<'e> HeadWriter<'e> {
    pub(crate) fn new(line: &'e mut Line, status: StatusCode) -> HeadWriter<'e> {
        HeadWriter { line, head: ResponseHead::new(status) }
    }

    /// Replaces the status's own phrase: visible ASCII and spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`](sanserve_core::Misuse) for any other character.
    pub fn reason(self, reason: &str) -> io::Result<Self> {
        Ok(HeadWriter { head: self.head.reason(reason)?, ..self })
    }

    /// Adds a field (Python's `send_header`). The value is bytes: one in Latin-1 is a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`](sanserve_core::Misuse) for a name that is no token or a value with a control character, `Misuse::ReservedHeader` for a
    /// field that is the server's to write.
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        Ok(HeadWriter { head: self.head.field(name, value)?, ..self })
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { head: self.head.length(length), ..self }
    }

    /// Ends the head, and the answer with all of its body: its length is announced, and there is no limit to it, since
    /// it is in memory already. Where the answer has none (to a HEAD, with 204 and 304), it is dropped, and may be
    /// empty though a length was announced.
    ///
    /// # Errors
    /// `Misuse::LengthMismatch` if another [`length`](Self::length) was announced, `Misuse::Interim` for a status below 200.
    /// Nothing is sent then.
    pub fn body(self, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.send_response(&self.head, body.as_ref())
    }

    /// Ends the head (Python's `end_headers`). It goes out with the first of the body; an interim one goes out at once.
    ///
    /// # Errors
    /// If the exchange is over.
    pub fn send(self) -> io::Result<()> {
        self.line.send_head(&self.head)
    }
}

impl Line {
    /// Sends a whole response.
    pub(crate) fn send_response(&mut self, head: &ResponseHead, body: &[u8]) -> io::Result<()> {
        self.not_the_peers_time();
        self.act(|reply| reply.send_response(head, body))
    }

    /// Sends a head. An interim one is pushed out.
    pub(crate) fn send_head(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.not_the_peers_time();
        self.act(|reply| reply.send_head(head))?;
        if head.status().code() < 200 { self.push_out() } else { Ok(()) }
    }
}

//! The head of an answer, written part by part into the exchange that it is for.

use crate::exchange::ResponseBuilder;
use crate::fields::Misuse;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;

/// The head of an answer that is being written. Nothing goes out before [`send`](Self::send).
///
/// A head that is made without an exchange, or sent more than once, is a [`ResponseHead`].
#[must_use = "nothing goes out before it is sent"]
pub struct HeadWriter<'r> {
    response: ResponseBuilder<'r>,
    head: ResponseHead,
}

impl<'r> HeadWriter<'r> {
    pub(crate) fn new(response: ResponseBuilder<'r>, status: StatusCode) -> HeadWriter<'r> {
        HeadWriter { response, head: ResponseHead::new(status) }
    }

    /// Replaces the status's own phrase.
    ///
    /// # Errors
    /// As [`ResponseHead::reason`].
    pub fn reason(self, reason: &str) -> Result<Self, Misuse> {
        Ok(HeadWriter { head: self.head.reason(reason)?, ..self })
    }

    /// Adds a field (Python's `send_header`).
    ///
    /// # Errors
    /// As [`ResponseHead::field`].
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, Misuse> {
        Ok(HeadWriter { head: self.head.field(name, value)?, ..self })
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
    /// # Errors
    /// [`Misuse::LengthMismatch`] if another [`length`](Self::length) was announced, [`Misuse::Interim`] for a status below
    /// 200. Nothing is sent then.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.response.send_response(&self.head, body.as_ref())
    }

    /// Ends the head (Python's `end_headers`). It goes out with the first of the body.
    ///
    /// # Errors
    /// None at present.
    pub fn send(mut self) -> Result<(), Misuse> {
        self.response.send_head(&self.head);
        Ok(())
    }
}

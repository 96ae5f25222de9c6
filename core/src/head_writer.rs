//! Writes the head of a response part by part into its exchange.

use crate::exchange::ResponseBuilder;
use crate::fields::Misuse;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;

/// Writes the head of a response. Nothing is sent before [`send`](Self::send) or [`body`](Self::body).
///
/// To create a head without an exchange, or to send it more than once, use [`ResponseHead`].
///
/// ```
/// use sanserve_core::{Misuse, Reply, StatusCode};
///
/// fn created(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     let head = reply.respond(StatusCode::CREATED)?.field("Location", "/users/7")?;
///     head.field("Content-Type", "application/json")?.body("{}")
/// }
///
/// fn log_in(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     reply.respond(StatusCode::UNAUTHORIZED)?.field("WWW-Authenticate", "Basic realm=\"here\"")?.error(None, None)
/// }
/// # let _: [fn(&mut Reply<'_>) -> Result<(), Misuse>; 2] = [created, log_in];
/// ```
#[must_use = "nothing is sent before `send`, `body` or `error` is called"]
pub struct HeadWriter<'r> {
    response: ResponseBuilder<'r>,
    head: ResponseHead,
}

impl<'r> HeadWriter<'r> {
    pub(crate) fn new(response: ResponseBuilder<'r>, status: StatusCode) -> HeadWriter<'r> {
        HeadWriter { response, head: ResponseHead::new(status) }
    }

    /// Replaces the reason phrase of the status.
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

    /// Announces the length of the body. Without it, the body is chunked, or ends with the connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { head: self.head.length(length), ..self }
    }

    /// Sends the head and the whole body, and ends the response. The length of the body is announced. It may be of
    /// any size, but the server keeps a copy until it is sent, which counts against its [`Memory`](crate::Memory) if it
    /// does not fit in 4 KiB. If the response has no content (to HEAD, or with 204 or 304), the body is discarded, and
    /// may be empty although a length was announced.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if another [`length`](Self::length) was announced, [`Misuse::Interim`] for a status
    /// below 200, [`Misuse::OutOfMemory`] if the server has no memory for the body. Nothing is sent in these cases.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.response.send_response(&self.head, body.as_ref())
    }

    /// Responds with an error page that has the fields of this head, such as `WWW-Authenticate` for 401 or `Allow` for
    /// 405. `None` stands for the usual text of the status.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if a [`length`](Self::length) was announced, [`Misuse::ReservedHeader`] if the head has
    /// a `Content-Type`, which is [that of the page](crate::Policy::error_type), [`Misuse::Interim`] for a status below
    /// 200. Nothing is sent in these cases.
    pub fn error(mut self, message: Option<&str>, explanation: Option<&str>) -> Result<(), Misuse> {
        self.response.send_error(&self.head, message, explanation)
    }

    /// Ends the head (Python's `end_headers`). It is sent together with the beginning of the body.
    ///
    /// # Errors
    /// None at present.
    pub fn send(mut self) -> Result<(), Misuse> {
        self.response.send_head(&self.head);
        Ok(())
    }
}

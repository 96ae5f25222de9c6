//! Writing the head of a response part by part, in a blocking handler.

use std::io;

use sanserve_core::{ResponseHead, StatusCode};

use crate::driver::Line;

/// The head of a response that is being written. Each part is checked immediately; nothing is sent before
/// [`send`](Self::send).
///
/// ```
/// use std::io::{self, Write};
/// use sanserve_std::{Exchange, StatusCode};
///
/// fn created(x: &mut Exchange<'_>) -> io::Result<()> {
///     x.respond(StatusCode::CREATED)?.field("Location", "/users/7")?.body("created\n")
/// }
///
/// fn count(x: &mut Exchange<'_>) -> io::Result<()> {
///     x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
///     (0..1_000).try_for_each(|n| writeln!(x, "{n}"))
/// }
/// # let _: [fn(&mut Exchange<'_>) -> io::Result<()>; 2] = [created, count];
/// ```
#[must_use = "nothing is sent before `send`, `body` or `error` is called"]
pub struct HeadWriter<'e> {
    line: &'e mut Line,
    head: ResponseHead,
}

impl<'e> HeadWriter<'e> {
    pub(crate) fn new(line: &'e mut Line, status: StatusCode) -> HeadWriter<'e> {
        HeadWriter { line, head: ResponseHead::new(status) }
    }

    /// Replaces the reason phrase of the status. It consists of visible ASCII characters and spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`](sanserve_core::Misuse) for any other character.
    pub fn reason(self, reason: &str) -> io::Result<Self> {
        Ok(HeadWriter { head: self.head.reason(reason)?, ..self })
    }

    /// Adds a field (Python's `send_header`). The value consists of bytes: for Latin-1, pass a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`](sanserve_core::Misuse) for a name that is not a token or a value with a control character,
    /// `Misuse::ReservedHeader` for a field that only the server may write.
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        Ok(HeadWriter { head: self.head.field(name, value)?, ..self })
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { head: self.head.length(length), ..self }
    }

    /// Ends the head, and the response with its complete body. The length is announced. The body may be of any size,
    /// but the server keeps a copy until it is sent, which counts against its memory if it does not fit in 4 KiB. If the
    /// response has no body (to a HEAD, and with 204 and 304), the body is discarded, and may be empty even if a length
    /// was announced.
    ///
    /// # Errors
    /// `Misuse::LengthMismatch` if a different [`length`](Self::length) was announced, `Misuse::Interim` for a status
    /// below 200, `Misuse::OutOfMemory` if the server has no memory for the body. Nothing is sent then. If the handler
    /// returns the last one, the response is 503.
    pub fn body(self, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.send_response(&self.head, body.as_ref())
    }

    /// Responds with an error page that has the fields of this head, such as `WWW-Authenticate` for 401 or `Allow` for
    /// 405. `None` stands for the usual text of the status.
    ///
    /// # Errors
    /// `Misuse::LengthMismatch` if a [`length`](Self::length) was announced, `Misuse::ReservedHeader` if the head has a
    /// `Content-Type`, which is [that of the page](sanserve_core::Policy::error_type), `Misuse::Interim` for a status
    /// below 200. Nothing is sent then.
    pub fn error(self, message: Option<&str>, explanation: Option<&str>) -> io::Result<()> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.send_error(&self.head, message, explanation))
    }

    /// Ends the head (Python's `end_headers`). It is sent with the first bytes of the body; an interim one is sent
    /// immediately.
    ///
    /// # Errors
    /// If the exchange is over.
    pub fn send(self) -> io::Result<()> {
        self.line.send_head(&self.head)
    }
}

impl Line {
    /// Sends a complete response.
    pub(crate) fn send_response(&mut self, head: &ResponseHead, body: &[u8]) -> io::Result<()> {
        self.not_the_peers_time();
        self.act(|reply| reply.send_response(head, body))
    }

    /// Sends a head. An interim one is flushed.
    pub(crate) fn send_head(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.not_the_peers_time();
        self.act(|reply| reply.send_head(head))?;
        if head.status().code() < 200 { self.push_out() } else { Ok(()) }
    }
}

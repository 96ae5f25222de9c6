//! Writing the head of a response part by part.

use std::fmt;
use std::io;
use std::sync::Mutex;

use sanserve_core::{self as core, Misuse, Reply, ResponseHead, StatusCode};

use crate::driver::{Driver, lock};

/// The head of a response that is being written, from [`Exchange::respond`](crate::Exchange::respond) or
/// [`Exchange::inform`](crate::Exchange::inform). Each part is checked immediately; nothing is sent before
/// [`send`](Self::send), nor without it.
///
/// ```
/// use sanserve_smol::smol::io::AsyncWriteExt;
/// use sanserve_smol::{Exchange, StatusCode};
///
/// async fn count(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     if x.path() != b"/count" {
///         return x.respond(StatusCode::SEE_OTHER)?.field("Location", "/count")?.body("");
///     }
///     x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
///     for n in 0..1_000 {
///         x.write_all(format!("{n}\n").as_bytes()).await?;
///     }
///     Ok(())
/// }
/// # let _ = count;
/// ```
#[must_use = "nothing is sent before `send`, `body` or `error` is called"]
pub struct HeadWriter<'x> {
    driver: &'x Mutex<Driver>,
    begin: Begin,
    head: ResponseHead,
}

/// How [`Reply`] begins a head.
type Begin = for<'r> fn(&'r mut Reply<'_>, StatusCode) -> Result<core::HeadWriter<'r>, Misuse>;

impl<'x> HeadWriter<'x> {
    /// Checks that `begin` is permitted.
    pub(crate) fn new(driver: &'x Mutex<Driver>, begin: Begin, status: StatusCode) -> io::Result<HeadWriter<'x>> {
        HeadWriter { driver, begin, head: ResponseHead::new(status) }.with(Ok)
    }

    /// Adds a part, if a head may still be begun: the exchange may have ended meanwhile.
    fn with(self, add: impl FnOnce(ResponseHead) -> Result<ResponseHead, Misuse>) -> io::Result<Self> {
        let HeadWriter { driver, begin, head } = self;
        lock(driver).reply(|reply| begin(reply, head.status()).map(drop))?;
        Ok(HeadWriter { driver, begin, head: add(head)? })
    }

    /// Replaces the reason phrase of the status (the `message` of Python's `send_response`). It consists of visible
    /// ASCII characters and spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(self, reason: &str) -> io::Result<Self> {
        self.with(|head| head.reason(reason))
    }

    /// Adds a field (Python's `send_header`). The value consists of bytes: for Latin-1, pass a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`] for a name that is not a token or a value with a control character,
    /// [`Misuse::ReservedHeader`] for a field that only the server may write.
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        self.with(|head| head.field(name, value))
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the
    /// connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { head: self.head.length(length), ..self }
    }

    /// Ends the head, and the response with its complete body. The length is announced. The body may be of any size,
    /// but the server keeps a copy until it is sent, which counts against its memory if it does not fit in 4 KiB. If the
    /// response has no body (to a HEAD, and with 204 and 304), the body is discarded, and may be empty even if a length
    /// was announced.
    ///
    /// It never waits, so it is not `async`.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if a different [`length`](Self::length) was announced, [`Misuse::Interim`] for a
    /// status below 200, [`Misuse::OutOfMemory`] if the server has no memory for the body. Nothing is sent then. If the
    /// handler returns the last one, the response is 503. Like [`send`](Self::send), if another head was sent meanwhile.
    pub fn body(self, body: impl AsRef<[u8]>) -> io::Result<()> {
        Ok(lock(self.driver).reply(|reply| reply.send_response(&self.head, body))?)
    }

    /// Responds with an error page that has the fields of this head, such as `WWW-Authenticate` for 401 or `Allow` for
    /// 405. `None` stands for the usual text of the status. It never waits, so it is not `async`.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if a [`length`](Self::length) was announced, [`Misuse::ReservedHeader`] if the head
    /// has a `Content-Type`, which is [that of the page](sanserve_core::Policy::error_type), [`Misuse::Interim`] for a
    /// status below 200. Nothing is sent then. Like [`send`](Self::send), if another head was sent meanwhile.
    pub fn error(self, message: Option<&str>, explanation: Option<&str>) -> io::Result<()> {
        Ok(lock(self.driver).reply(|reply| reply.send_error(&self.head, message, explanation))?)
    }

    /// Ends the head (Python's `end_headers`). It is sent when the handler waits for anything.
    ///
    /// # Errors
    /// [`Misuse`], if another head was sent meanwhile.
    pub fn send(self) -> io::Result<()> {
        Ok(lock(self.driver).reply(|reply| reply.send_head(&self.head))?)
    }
}

impl fmt::Debug for HeadWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadWriter").field("head", &self.head).finish_non_exhaustive()
    }
}

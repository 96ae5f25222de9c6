//! One request and its answer, as an asynchronous handler has them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use sanserve_core::{
    Entry, Misuse, Peer, Policy, Received, Reply, Request, RequestBuf, ResponseHead, StatusCode, scrub,
};
use sanserve_server::Draining;
use smol::io::{AsyncRead, AsyncWrite};

use crate::Shared;
use crate::driver::{Driver, lock};
use crate::handler_task::Stage;
use crate::head::HeadWriter;
use crate::upgrade::Upgraded;

/// One request and its answer.
///
/// It is the request's body, as an [`AsyncRead`], and the answer's, as an [`AsyncWrite`]: everything of
/// `smol::io` works on it. Framing is nobody's business here: the body is read without it, and
/// written with what the head announced, or chunked.
///
/// ```
/// use sanserve_smol::{Exchange, StatusCode};
/// use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// /// Sends the body back in capitals, while it comes.
/// async fn shout(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
///     let mut room = [0; 4096];
///     loop {
///         let n = x.read(&mut room).await?;
///         if n == 0 {
///             return x.finish().await;
///         }
///         room.make_ascii_uppercase();
///         x.write_all(&room[..n]).await?;
///     }
/// }
/// ```
///
/// **Reading** for the first time lets a peer continue that waits for `100 Continue`. A body that breaks
/// off is an error of kind `UnexpectedEof`, one that comes too slowly of kind `TimedOut`, a malformed one
/// of kind `InvalidData`; the peer has its answer then, and the handler need do no more than return.
///
/// **Writing** waits while the peer does not take what was written before (`limits.output` bytes are kept). What
/// was written goes out whenever the handler waits for anything; `flush` waits until all of it is out.
pub struct Exchange<'x> {
    pub(crate) driver: &'x Mutex<Driver>,
    known: &'x Known,
}

/// What is known of an exchange for good.
pub(crate) struct Known {
    request: RequestBuf,
    /// The trailer section, once the body has been read to its end.
    trailers: OnceLock<Vec<u8>>,
    pub(crate) shared: Arc<Shared>,
}

impl Known {
    pub(crate) fn new(request: RequestBuf, shared: &Arc<Shared>) -> Known {
        Known { request, trailers: OnceLock::new(), shared: Arc::clone(shared) }
    }
}

/// The request.
impl<'x> Exchange<'x> {
    pub(crate) fn new(driver: &'x Mutex<Driver>, known: &'x Known) -> Exchange<'x> {
        Exchange { driver, known }
    }

    /// The same exchange, for somebody else.
    pub(crate) fn again(&mut self) -> Exchange<'x> {
        Exchange { driver: self.driver, known: self.known }
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> Request<'x> {
        self.known.request.as_request()
    }

    /// The method, case-sensitive (Python's `command`).
    #[must_use]
    pub fn method(&self) -> &'x [u8] {
        self.request().method()
    }

    /// The path of the target, without query, not decoded.
    #[must_use]
    pub fn path(&self) -> &'x [u8] {
        self.request().path()
    }

    /// The target as it came (Python's `path`).
    #[must_use]
    pub fn target(&self) -> &'x [u8] {
        self.request().target()
    }

    /// The query of the target without the `?`, not decoded.
    #[must_use]
    pub fn query(&self) -> Option<&'x [u8]> {
        self.request().query()
    }

    /// The value of the first field with that name, whatever its case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'x [u8]> {
        self.request().field(name)
    }

    /// The other end (Python's `client_address`).
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.request().peer()
    }

    /// The trailer fields that came after a chunked body, once that has been read to its end (RFC 9110
    /// section 6.5). They are what the peer says, and no part of the head.
    pub fn trailers(&self) -> impl Iterator<Item = (&'x [u8], &'x [u8])> + use<'x> {
        let text = self.known.trailers.get().map(Vec::as_slice).unwrap_or_default();
        text.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }
}

/// The answer.
impl Exchange<'_> {
    /// Begins the answer (Python's `send_response`); [`HeadWriter::send`] ends its head.
    ///
    /// # Errors
    /// [`Misuse`], as an error of kind `InvalidInput`: for a status below 200, and for a second head.
    pub fn respond(&self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        HeadWriter::new(self, |reply, status| reply.respond(status), status)
    }

    /// Begins an interim answer, such as 103, that goes before the final one: at once when the handler waits
    /// for anything. It is not sent to an HTTP/1.0 client.
    ///
    /// # Errors
    /// [`Misuse`]: for any other status, and after the head.
    pub fn inform(&self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        HeadWriter::new(self, |reply, status| reply.inform(status), status)
    }

    /// Sends a head that was made before: that of the answer, or an interim one. It goes out when the handler waits for
    /// anything.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for the statuses 100 and 101, [`Misuse::HeadOrder`] after the head of the answer.
    pub fn send_head(&self, head: &ResponseHead) -> io::Result<()> {
        self.reply(|reply| reply.send_head(head))
    }

    /// Sends a head that was made before and all of a body, and ends the answer: [`HeadWriter::body`] for a head that
    /// is sent more than once.
    ///
    /// # Errors
    /// As [`respond`](Self::respond) and [`HeadWriter::body`].
    pub fn send_response(&self, head: &ResponseHead, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.send_response(head, body))
    }

    /// Answers with an error page (Python's `send_error`). What is not given is the status's own.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub async fn error(&self, status: StatusCode, message: Option<&str>, explanation: Option<&str>) -> io::Result<()> {
        self.reply(|reply| reply.error(status, message, explanation))
    }

    /// Answers with all of a body.
    ///
    /// # Errors
    /// As [`respond`](Self::respond), and [`Misuse::Field`] for a media type that no field can hold.
    pub async fn answer(&self, status: StatusCode, media_type: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.answer(status, media_type, body))
    }

    /// Answers 501 `Unsupported method ('PUT')`, as Python does.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn unsupported(&self) -> io::Result<()> {
        let message = format!("Unsupported method ('{}')", self.method().escape_ascii());
        self.reply(|reply| reply.error(StatusCode::NOT_IMPLEMENTED, Some(&message), None))
    }

    /// Sends a part of a file as a part of the body, without reading it here (`sendfile`), and waits
    /// until the peer's system or ours has taken it. `..` is all of the file.
    ///
    /// # Errors
    /// If the file does not reach that far or cannot be asked; [`Misuse`] before the head and beyond the
    /// length that was announced.
    pub async fn send_file(&mut self, file: File, range: impl RangeBounds<u64> + Send) -> io::Result<()> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let len = file.metadata()?.len();
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => len,
        };
        if start > end || end > len {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the file does not reach that far"));
        }
        let mut file = Some(file).filter(|_| start < end);
        poll_fn(|cx| {
            let mut driver = lock(self.driver);
            // Nothing of a file can be offered, not even nothing, before the last one is out.
            while driver.reply(|reply| reply.offer_file(0, 0))? {
                let Some(file) = file.take() else { return Poll::Ready(Ok(())) };
                if let Some(lease) = driver.lease.as_deref_mut() {
                    let none = lease.space.slot.attach(Box::new(file));
                    debug_assert!(none.is_none(), "a slot takes files");
                }
                driver.reply(|reply| reply.offer_file(start, end - start))?;
            }
            driver.waits_to_write(cx)
        })
        .await
    }

    /// Adds a field that follows a chunked body; announce it with a `Trailer` field in the head. It is dropped
    /// where the body is not chunked because the request is a HEAD or HTTP/1.0.
    ///
    /// # Errors
    /// [`Misuse`]: for a field that a trailer section must not have, or after an announced length.
    pub fn trailer(&self, name: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.trailer(name, value))
    }

    /// Ends the body and waits until it is out. A handler that returns need not call it.
    ///
    /// # Errors
    /// [`Misuse`]: before the head, and if less was written than announced; then the answer is cut.
    pub async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_close(cx)).await
    }

    /// Lets the files, or a script, answer instead. The exchange is over for the handler.
    ///
    /// # Errors
    /// [`Misuse`] after the head.
    pub fn decline(&self) -> io::Result<()> {
        let mut driver = lock(self.driver);
        driver.reply(|reply| reply.decline())?;
        driver.leave();
        Ok(())
    }

    /// Lets the connection end after this answer (Python's `close_connection`). To be said before the head.
    pub fn close(&mut self) {
        lock(self.driver).tell(|reply| reply.close());
    }

    /// Whether the server is going down: an answer without end should come to one before the grace is over.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        lock(self.driver).is_draining()
    }

    /// Tells when the server goes down: `x.draining().begun()` is a future that is ready then, to be raced with what a
    /// handler waits for.
    #[must_use]
    pub fn draining(&self) -> Draining {
        lock(self.driver).shared.site.draining().clone()
    }

    /// Gives the exchange up: 500 where nothing of an answer has gone out yet, else the connection is cut.
    /// It is over for the handler.
    pub fn abort(&self) {
        let mut driver = lock(self.driver);
        driver.tell(|reply| reply.abort());
        driver.leave();
    }

    /// Answers 101 with `fields`, and gives the connection away: after it, both ends speak `protocol`.
    ///
    /// The handler may speak it itself, or give the socket to a task of its own. While it does itself,
    /// the connection counts as one in progress when the server shuts down.
    ///
    /// # Errors
    /// [`Misuse`]: if the request does not offer `protocol`, has a body that is not read yet, or is HTTP/1.0.
    pub async fn upgrade(&mut self, protocol: &str, fields: &[(&str, &str)]) -> io::Result<Upgraded> {
        self.reply(|reply| {
            let mut head = reply.upgrade(protocol)?;
            for (name, value) in fields {
                head = head.field(name, value)?;
            }
            head.send()
        })?;
        poll_fn(|cx| {
            let mut driver = lock(self.driver);
            let Some(talk) = driver.talk.as_deref_mut() else { return Poll::Ready(Err(gone())) };
            if let Some(upgraded) = talk.upgraded.take() {
                return Poll::Ready(upgraded);
            }
            if talk.closed {
                return Poll::Ready(Err(gone()));
            }
            driver.waits_to_write(cx)
        })
        .await
    }

    /// Writes a line to the log (Python's `log_message`): `{ip} - - [{time}] {message}`, with what a
    /// terminal would act on made harmless.
    pub fn log(&self, message: fmt::Arguments<'_>) {
        let shared = &self.known.shared;
        let line = Line(message);
        let entry = Entry { peer: self.peer(), line: b"", status: 0, sent: 0, error: None, cut: None };
        let mut driver = lock(self.driver);
        match driver.lease.as_deref_mut() {
            Some(lease) => lease.log.write(&entry, &line, lease.now.wall),
            None => shared.site.log().logger().write(&entry, &line, shared.clock.now().wall),
        }
    }

    pub(crate) fn reply<T>(&self, act: impl FnOnce(&mut Reply<'_>) -> Result<T, Misuse>) -> io::Result<T> {
        Ok(lock(self.driver).reply(act)?)
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("request", &self.request()).finish_non_exhaustive()
    }
}

fn gone() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the connection ended before it changed to another protocol")
}

/// A line of the log that is no exchange's.
struct Line<'m>(fmt::Arguments<'m>);

impl Policy for Line<'_> {
    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        let mut text = format!("{} - - [{time}] ", entry.peer.ip());
        // Only a `Display` of the caller's own could fail.
        let _ = write!(text, "{}", self.0);
        scrub(out, text.as_bytes());
        out.push(b'\n');
    }
}

impl Driver {
    /// The handler waits for room, or until all is out.
    fn waits_to_write<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if let Some(talk) = self.talk.as_deref_mut() {
            talk.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The exchange is the handler's no longer.
    fn leave(&mut self) {
        if let Some(talk) = self.talk.as_deref_mut().filter(|talk| talk.stage == Stage::Speaking) {
            talk.stage = Stage::Over;
        }
    }

    /// Whether the exchange is the handler's still.
    fn is_speaking(&self) -> bool {
        self.talk.as_deref().is_some_and(|talk| talk.stage == Stage::Speaking)
    }

    /// The time, for what the handler does next.
    pub(crate) fn freshen(&mut self) {
        if let Some(lease) = &mut self.lease {
            self.shared.clock.read(&mut lease.now);
        }
    }
}

/// What reading the body has come to.
enum Found {
    Bytes(usize),
    Nothing,
    End(Vec<u8>),
    Broken,
}

fn read(reply: &mut Reply<'_>, room: &mut [u8]) -> Found {
    let found = match reply.receive() {
        Received::Data(data) => {
            let n = data.len().min(room.len());
            room[..n].copy_from_slice(&data[..n]);
            reply.consume(n);
            Found::Bytes(n)
        }
        Received::Pending => Found::Nothing,
        Received::End => {
            let mut trailers = Vec::new();
            for (name, value) in reply.trailers() {
                trailers.extend([name, b":", value, b"\n"].concat());
            }
            Found::End(trailers)
        }
        Received::Broken => Found::Broken,
    };
    match found {
        // It has been answered: why it is broken is known when that is out.
        Found::Broken if !reply.is_unanswered() && !reply.is_answering() => Found::Nothing,
        found => found,
    }
}

impl AsyncRead for Exchange<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let trailers = &self.known.trailers;
        if room.is_empty() || trailers.get().is_some() {
            return Poll::Ready(Ok(0));
        }
        let mut driver = lock(self.driver);
        let found = if driver.is_speaking() {
            driver.reply(|reply| Ok(read(reply, room))).unwrap_or(Found::Broken)
        } else {
            Found::Broken
        };
        let Some(talk) = driver.talk.as_deref_mut() else { return Poll::Ready(Ok(0)) };
        Poll::Ready(match found {
            Found::Bytes(n) => Ok(n),
            Found::End(text) => {
                let _ = trailers.set(text);
                Ok(0)
            }
            Found::Broken => Err(talk.broken_body()),
            Found::Nothing => {
                talk.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        })
    }
}

impl AsyncWrite for Exchange<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut driver = lock(self.driver);
        match driver.reply(|reply| reply.write(data))? {
            0 if !data.is_empty() => driver.waits_to_write(cx),
            n => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut driver = lock(self.driver);
        // What is complete is on its way without the handler.
        if !driver.is_speaking() || driver.is_all_out() {
            return Poll::Ready(Ok(()));
        }
        if let Some(talk) = driver.talk.as_deref_mut() {
            talk.flushes = true;
        }
        driver.waits_to_write(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut driver = lock(self.driver);
            if driver.is_speaking() {
                driver.reply(|reply| match (reply.is_unanswered(), reply.is_answering()) {
                    (true, _) => Err(Misuse::HeadOrder),
                    (_, true) => reply.finish(),
                    _ => Ok(()),
                })?;
            }
        }
        self.poll_flush(cx)
    }
}

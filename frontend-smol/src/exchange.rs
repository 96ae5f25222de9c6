//! One request and its response, for asynchronous code.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::ops::{Bound, RangeBounds};
use std::pin::{Pin, pin};
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Poll};

use sanserve_core::{
    Entry, Misuse, Peer, Policy, Received, Reply, Request, RequestBuf, ResponseHead, StatusCode, Validators, scrub,
};
use sanserve_server::Draining;
use smol::io::{AsyncRead, AsyncWrite};

use crate::driver::{Driver, Stage, lock};
use crate::head::HeadWriter;
use crate::upgrade::Upgraded;

/// A request and its response.
///
/// Reading from it ([`AsyncRead`]) gives the decoded body of the request, and writing to it ([`AsyncWrite`]) sends
/// the body of the response, so everything in `smol::io` works with it. Framing is done by the server: the response
/// is sent with the announced length, or chunked.
///
/// ```
/// use sanserve_smol::{Exchange, StatusCode};
/// use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// /// Sends the body back in capitals, while it arrives.
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
/// **Reading** for the first time sends `100 Continue` to a peer that waits for it. A body that ends early is an
/// error of kind `UnexpectedEof`, one that arrives too slowly of kind `TimedOut`, a malformed one of kind
/// `InvalidData`. The peer already gets the matching response, so the handler only needs to return.
///
/// **Writing** waits while the peer does not accept the data written before (up to `limits.output` bytes are
/// buffered). Buffered data is sent whenever the handler waits for anything; `flush` waits until everything is sent.
pub struct Exchange<'x> {
    driver: &'x Mutex<Driver>,
    known: &'x Known,
}

/// The fixed properties of an exchange.
pub(crate) struct Known {
    request: RequestBuf,
    /// The trailer section, once the body has been read to its end.
    trailers: OnceLock<Vec<u8>>,
}

impl Known {
    pub(crate) fn new(request: RequestBuf) -> Known {
        Known { request, trailers: OnceLock::new() }
    }

    /// The request.
    pub(crate) fn request(&self) -> Request<'_> {
        self.request.as_request()
    }
}

/// The request.
impl<'x> Exchange<'x> {
    pub(crate) fn new(driver: &'x Mutex<Driver>, known: &'x Known) -> Exchange<'x> {
        Exchange { driver, known }
    }

    /// Another reference to the same exchange.
    pub(crate) fn again(&mut self) -> Exchange<'x> {
        Exchange { driver: self.driver, known: self.known }
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> Request<'x> {
        self.known.request()
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

    /// The target as received (Python's `path`).
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

    /// The address of the peer (Python's `client_address`).
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.request().peer()
    }

    /// The trailer fields of a chunked body, once it has been read to its end (RFC 9110 section 6.5). They are not
    /// merged into the fields of the head.
    pub fn trailers(&self) -> impl Iterator<Item = (&'x [u8], &'x [u8])> + use<'x> {
        let text = self.known.trailers.get().map(Vec::as_slice).unwrap_or_default();
        text.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }
}

/// The response.
impl Exchange<'_> {
    /// Begins the response (Python's `send_response`); [`HeadWriter::send`] ends its head.
    ///
    /// # Errors
    /// [`Misuse`], as an error of kind `InvalidInput`: for a status below 200, and for a second head.
    pub fn respond(&self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        HeadWriter::new(self.driver, |reply, status| reply.respond(status), status)
    }

    /// Begins an interim response, such as 103, which is sent before the final one, when the handler waits for
    /// anything. It is not sent to an HTTP/1.0 client.
    ///
    /// # Errors
    /// [`Misuse`]: for a status that is not interim, and after the head.
    pub fn inform(&self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        HeadWriter::new(self.driver, |reply, status| reply.inform(status), status)
    }

    /// Sends a prepared head: that of the response, or an interim one. It is sent when the handler waits for
    /// anything.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for the statuses 100 and 101, [`Misuse::HeadOrder`] after the head of the response.
    pub fn send_head(&self, head: &ResponseHead) -> io::Result<()> {
        self.reply(|reply| reply.send_head(head))
    }

    /// Sends a prepared head and a complete body, and ends the response. Like [`HeadWriter::body`], for a head that
    /// is sent more than once.
    ///
    /// # Errors
    /// As [`respond`](Self::respond) and [`HeadWriter::body`].
    pub fn send_response(&self, head: &ResponseHead, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.send_response(head, body))
    }

    /// Responds with an error page (Python's `send_error`). `None` stands for the usual text of the status.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn error(&self, status: StatusCode, message: Option<&str>, explanation: Option<&str>) -> io::Result<()> {
        self.reply(|reply| reply.error(status, message, explanation))
    }

    /// Responds with a complete body.
    ///
    /// # Errors
    /// As [`respond`](Self::respond), and [`Misuse::Field`] for a media type that is not a valid field value.
    pub fn answer(&self, status: StatusCode, media_type: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.answer(status, media_type, body))
    }

    /// Sends content that the handler has made, by the rules of files: 304 or 412 for a condition of the client, 206 or
    /// 416 for ranges, `ETag`, `Last-Modified` and `Accept-Ranges`. The rules are for GET and HEAD; the response to any
    /// other method is that of [`answer`](Self::answer). It never waits, so it is not `async`.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub fn answer_entity(&self, validators: &Validators, media_type: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.answer_entity(validators, media_type, body))
    }

    /// Like [`answer_entity`](Self::answer_entity), with a prepared head. A status other than 200 is sent as it is.
    ///
    /// # Errors
    /// As for [`send_response`](Self::send_response); [`Misuse::ReservedHeader`] if the head has
    /// one of the fields that are written for an entity (`ETag`, `Last-Modified`, `Accept-Ranges`, `Content-Range`).
    pub fn send_entity(&self, head: &ResponseHead, validators: &Validators, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.send_entity(head, validators, body))
    }

    /// Sends the embedded asset that the path of the request names, by the rules of files: conditions, ranges, HEAD, and
    /// precompressed variants by `Accept-Encoding`. Returns `false`, and sends nothing, if there is no such asset: then
    /// send an error, or [`decline`](Self::decline). See [`Reply::send_asset`](sanserve_core::Reply::send_asset) for the
    /// details. It never waits, so it is not `async`.
    ///
    /// ```
    /// use sanserve_smol::{Assets, Exchange, StatusCode};
    ///
    /// async fn answer(x: &mut Exchange<'_>, assets: &Assets) -> std::io::Result<()> {
    ///     if x.send_asset(assets)? { Ok(()) } else { x.error(StatusCode::NOT_FOUND, None, None) }
    /// }
    /// # let _ = answer;
    /// ```
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`](sanserve_core::Misuse) if the response has begun, `Misuse::OutOfMemory` if the server has no
    /// memory for a copy of the content.
    #[cfg(feature = "files")]
    pub fn send_asset(&self, assets: &sanserve_core::Assets) -> io::Result<bool> {
        self.reply(|reply| reply.send_asset(assets))
    }

    /// Sends the asset with this path, whatever the path of the request: for an application whose pages are all the same
    /// `index.html`. Otherwise like [`send_asset`](Self::send_asset).
    ///
    /// # Errors
    /// As for [`send_asset`](Self::send_asset).
    #[cfg(feature = "files")]
    pub fn send_asset_at(&self, assets: &sanserve_core::Assets, path: &str) -> io::Result<bool> {
        self.reply(|reply| reply.send_asset_at(assets, path))
    }

    /// Sends a prepared head and a body of unknown length, which is read to its end, and ends the response. Returns the
    /// length of the body. What was read so far may be on its way when reading fails: the connection is then cut if the
    /// handler returns the error.
    ///
    /// A body that is not sent, for HEAD and statuses such as 204 and 304, is not read: its length is 0.
    ///
    /// # Errors
    /// Those of [`send_head`](Self::send_head), of `body`, and of writing.
    pub async fn send_stream(&mut self, head: &ResponseHead, body: impl AsyncRead + Send) -> io::Result<u64> {
        self.send_head(head)?;
        // A body without an end would be read for ever, since no peer that goes away ends it.
        let is_sent = self.method() != b"HEAD" && !head.status().is_bodiless();
        let length = if is_sent { smol::io::copy(pin!(body), &mut *self).await? } else { 0 };
        self.finish().await?;
        Ok(length)
    }

    /// Responds with `501 Unsupported method ('PUT')`, as Python does.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn unsupported(&self) -> io::Result<()> {
        let message = format!("Unsupported method ('{}')", self.method().escape_ascii());
        self.reply(|reply| reply.error(StatusCode::NOT_IMPLEMENTED, Some(&message), None))
    }

    /// Sends a part of a file as a part of the body, without reading it here (`sendfile`), and waits until it is
    /// sent. `..` is the whole file.
    ///
    /// # Errors
    /// If the file is shorter, or its length cannot be read; [`Misuse`] before the head, and beyond the announced
    /// length.
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
            return Err(io::Error::new(ErrorKind::InvalidInput, "the file ends before the end of the range"));
        }
        let mut file = Some(file).filter(|_| start < end);
        poll_fn(|cx| {
            let mut driver = lock(self.driver);
            // A file can only be offered once the previous one is sent, and so can an empty part.
            while driver.reply(|reply| reply.offer_file(0, 0))? {
                let Some(file) = file.take() else { return Poll::Ready(Ok(())) };
                if let Some(lease) = driver.lease.as_deref_mut() {
                    lease.space.slot.attach(file);
                }
                driver.reply(|reply| reply.offer_file(start, end - start))?;
            }
            driver.waits_to_write(cx)
        })
        .await
    }

    /// Adds a trailer field to a chunked body. Announce it with a `Trailer` field in the head. It is dropped if the
    /// body is not chunked because the request is a HEAD or HTTP/1.0.
    ///
    /// # Errors
    /// [`Misuse`]: for a field that is not allowed in trailers, or if a length was announced.
    pub fn trailer(&self, name: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        self.reply(|reply| reply.trailer(name, value))
    }

    /// Ends the body and waits until it is sent. A handler that returns need not call it.
    ///
    /// # Errors
    /// [`Misuse`]: before the head, and if the body is shorter than its announced length; the response is then cut.
    pub async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_close(cx)).await
    }

    /// Leaves the response to the files, or a script. The exchange is over for the handler.
    ///
    /// # Errors
    /// [`Misuse`] after the head.
    pub fn decline(&self) -> io::Result<()> {
        let mut driver = lock(self.driver);
        driver.reply(|reply| reply.decline())?;
        driver.leave();
        Ok(())
    }

    /// Closes the connection after this response (Python's `close_connection`). Call it before the head is sent.
    pub fn close(&mut self) {
        lock(self.driver).modify(|reply| reply.close());
    }

    /// Whether the server is shutting down. An endless response should end then, before the grace has passed.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        lock(self.driver).is_draining()
    }

    /// Reports when the server shuts down: `x.draining().begun()` is a future for that, which can be raced with what
    /// the handler waits for.
    #[must_use]
    pub fn draining(&self) -> Draining {
        lock(self.driver).shared.site.draining().clone()
    }

    /// Aborts the exchange: the peer gets a 500 if nothing of the response was sent yet, else the connection is cut.
    /// The exchange is over for the handler.
    pub fn abort(&self) {
        let mut driver = lock(self.driver);
        driver.modify(|reply| reply.abort());
        driver.leave();
    }

    /// Responds with 101 and `fields`, and takes over the connection: from here on, it uses `protocol`.
    ///
    /// The handler may use the connection itself, or pass the socket to a task of its own. As long as the handler
    /// runs, the connection counts as an exchange in progress when the server shuts down.
    ///
    /// # Errors
    /// [`Misuse`]: if the request does not offer `protocol`, has a body that was not read yet, or is HTTP/1.0.
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
            let Some(handler_task) = driver.handler_task.as_deref_mut() else { return Poll::Ready(Err(gone())) };
            if let Some(upgraded) = handler_task.upgraded.take() {
                return Poll::Ready(upgraded);
            }
            if handler_task.closed {
                return Poll::Ready(Err(gone()));
            }
            driver.waits_to_write(cx)
        })
        .await
    }

    /// Names the exchange for the log: [`Entry::tag`](sanserve_core::Entry), which
    /// [`Policy::log`](sanserve_core::Policy::log) may write.
    pub fn tag(&self, tag: impl AsRef<[u8]>) {
        lock(self.driver).modify(|reply| reply.tag(tag));
    }

    /// Writes a line to the log (Python's `log_message`): `{ip} - - [{time}] {message}`, with control characters
    /// escaped.
    pub fn log(&self, message: fmt::Arguments<'_>) {
        let line = Line(message);
        let entry = Entry::new(self.peer(), b"");
        let mut driver = lock(self.driver);
        let Driver { shared, lease, .. } = &mut *driver;
        match lease.as_deref_mut() {
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
    io::Error::new(ErrorKind::BrokenPipe, "the connection ended before it switched to another protocol")
}

/// A line of the log that belongs to no exchange.
struct Line<'m>(fmt::Arguments<'m>);

impl Policy for Line<'_> {
    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        let mut text = format!("{} - - [{time}] ", entry.peer);
        // Only a `Display` implementation of the caller could fail.
        let _ = write!(text, "{}", self.0);
        scrub(out, text.as_bytes());
        out.push(b'\n');
    }
}

impl Driver {
    /// Registers that the handler waits for room, or until everything is sent.
    fn waits_to_write<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if let Some(handler_task) = self.handler_task.as_deref_mut() {
            handler_task.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the handler's access to the exchange.
    fn leave(&mut self) {
        if let Some(handler_task) =
            self.handler_task.as_deref_mut().filter(|handler_task| handler_task.stage == Stage::Active)
        {
            handler_task.stage = Stage::Over;
        }
    }

    /// Whether the exchange still belongs to the handler.
    fn is_speaking(&self) -> bool {
        self.handler_task.as_deref().is_some_and(|handler_task| handler_task.stage == Stage::Active)
    }

    /// Updates the time, for the next action of the handler.
    pub(crate) fn freshen(&mut self) {
        if let Some(lease) = &mut self.lease {
            self.shared.clock.read(&mut lease.now);
        }
    }
}

/// The result of reading the body.
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
        // The response is already complete, so the reason is known once that is sent.
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
        let Some(handler_task) = driver.handler_task.as_deref_mut() else { return Poll::Ready(Ok(0)) };
        Poll::Ready(match found {
            Found::Bytes(n) => Ok(n),
            Found::End(text) => {
                let _ = trailers.set(text);
                Ok(0)
            }
            Found::Broken => Err(handler_task.broken_body()),
            Found::Nothing => {
                handler_task.reader = Some(cx.waker().clone());
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
        // A complete response is sent without the handler.
        if !driver.is_speaking() || driver.is_all_out() {
            return Poll::Ready(Ok(()));
        }
        if let Some(handler_task) = driver.handler_task.as_deref_mut() {
            handler_task.flushes = true;
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

//! One request and its response, for blocking code.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use sanserve_core::{
    Close, Entry, Misuse, Peer, Policy, Received, Request, ResponseHead, StatusCode, Validators, scrub,
};
use sanserve_server::{Draining, Upgraded};

use crate::driver::{Driver, ExchangeState, Line, Progress};
use crate::head::HeadWriter;

/// A request and its response, for a [`Handler`](crate::Handler).
///
/// **Reading** ([`Read`], Python's `rfile`) gives the decoded body of the request, limited by `limits.body` and
/// `timeouts.body`. A peer that waits for `100 Continue` gets it with the first read.
///
/// **Writing** ([`Write`], Python's `wfile`) sends the body of the response, after a head that
/// [`respond`](Exchange::respond) has begun. Writes are buffered (64 KiB, `limits.output`), and sent when the buffer
/// is full, when more of the request is read, at [`flush`](Write::flush), and at the end. While the socket is full, a
/// write blocks. Each write to a chunked body is a chunk: for tiny writes, use a `BufWriter`.
///
/// Reads and writes may alternate in any order. If a call cannot succeed any more, it returns an error:
/// `UnexpectedEof` for a body that ended early, `TimedOut` for a peer that was too slow, `InvalidData` for a body
/// that is malformed or that the policy refused, `ConnectionReset` or `BrokenPipe` if the peer has closed the
/// connection, `ConnectionAborted` if the server shuts down, and `InvalidInput` with a
/// [`Misuse`](sanserve_core::Misuse) inside if the handler has made a mistake. A handler can pass on all of them with
/// `?`.
///
/// ```no_run
/// use std::io::Write;
/// use sanserve_std::{Exchange, Server, Site, StatusCode};
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
/// let server = server.with_handler(|| |x: &mut Exchange<'_>| {
///     x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
///     for n in 0..1_000_000 {
///         writeln!(x, "{n}")?;
///     }
///     Ok(())
/// });
/// server.run()
/// # }
/// ```
pub struct Exchange<'x> {
    line: &'x mut Line,
    request: Request<'x>,
}

impl<'x> Exchange<'x> {
    pub(crate) fn new(line: &'x mut Line, request: Request<'x>) -> Exchange<'x> {
        Exchange { line, request }
    }
}

/// The request.
impl<'x> Exchange<'x> {
    /// The request, with its complete head.
    #[must_use]
    pub fn request(&self) -> Request<'x> {
        self.request
    }

    /// The method (Python's `command`).
    #[must_use]
    pub fn method(&self) -> &'x [u8] {
        self.request.method()
    }

    /// The path of the target, without query, not decoded.
    #[must_use]
    pub fn path(&self) -> &'x [u8] {
        self.request.path()
    }

    /// The target (Python's `path`).
    #[must_use]
    pub fn target(&self) -> &'x [u8] {
        self.request.target()
    }

    /// The query without the `?`, not decoded; `None` if there is none.
    #[must_use]
    pub fn query(&self) -> Option<&'x [u8]> {
        self.request.query()
    }

    /// The value of the first field with that name, whatever its case (Python's `headers`).
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'x [u8]> {
        self.request.field(name)
    }

    /// The address of the peer (Python's `client_address`).
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.request.peer()
    }

    /// The trailer fields of a chunked body, once the body was read to its end.
    pub fn trailers(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.line.reply(|reply| reply.trailers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
    }
}

/// The response.
impl<'x> Exchange<'x> {
    /// Begins the response (Python's `send_response`). [`HeadWriter::send`] ends its head.
    ///
    /// # Errors
    /// [`Misuse::Interim`](sanserve_core::Misuse) for a status below 200, `Misuse::HeadOrder` for a second head.
    pub fn respond(&mut self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        self.line.act(|reply| reply.respond(status).map(drop))?;
        Ok(HeadWriter::new(self.line, status))
    }

    /// Begins an interim response, such as 103, which is sent immediately, before the final one. It is not sent to an
    /// HTTP/1.0 client.
    ///
    /// # Errors
    /// [`Misuse::Interim`](sanserve_core::Misuse) for a status of 200 or above, `Misuse::HeadOrder` after the head.
    pub fn inform(&mut self, status: StatusCode) -> io::Result<HeadWriter<'_>> {
        self.line.act(|reply| reply.inform(status).map(drop))?;
        Ok(HeadWriter::new(self.line, status))
    }

    /// Sends a prepared head: that of the response, or an interim one, which is sent immediately.
    ///
    /// # Errors
    /// [`Misuse::Interim`](sanserve_core::Misuse) for the statuses 100 and 101, `Misuse::HeadOrder` after the head of
    /// the response.
    pub fn send_head(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.line.send_head(head)
    }

    /// Sends a prepared head and a complete body, and ends the response. Like [`HeadWriter::body`], for a head that
    /// is sent more than once.
    ///
    /// # Errors
    /// As [`respond`](Self::respond) and [`HeadWriter::body`].
    pub fn send_response(&mut self, head: &ResponseHead, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.send_response(head, body.as_ref())
    }

    /// Responds with an error page (Python's `send_error`). `None` stands for the usual text of the status.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn error(&mut self, status: StatusCode, message: Option<&str>, explanation: Option<&str>) -> io::Result<()> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.error(status, message, explanation))
    }

    /// Responds with a complete body.
    ///
    /// # Errors
    /// As [`respond`](Self::respond), and [`Misuse::Field`](sanserve_core::Misuse) for a media type that is not a
    /// valid field value.
    pub fn answer(&mut self, status: StatusCode, media_type: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.answer(status, media_type, body))
    }

    /// Sends content that the handler has made, by the rules of files: 304 or 412 for a condition of the client, 206 or
    /// 416 for ranges, `ETag`, `Last-Modified` and `Accept-Ranges`. The rules are for GET and HEAD; the response to any
    /// other method is that of [`answer`](Self::answer).
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub fn answer_entity(
        &mut self,
        validators: &Validators,
        media_type: &str,
        body: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.answer_entity(validators, media_type, body))
    }

    /// Like [`answer_entity`](Self::answer_entity), with a prepared head. A status other than 200 is sent as it is.
    ///
    /// # Errors
    /// As for [`send_response`](Self::send_response); [`Misuse::ReservedHeader`](sanserve_core::Misuse) if the head has
    /// one of the fields that are written for an entity (`ETag`, `Last-Modified`, `Accept-Ranges`, `Content-Range`).
    pub fn send_entity(
        &mut self,
        head: &ResponseHead,
        validators: &Validators,
        body: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.send_entity(head, validators, body))
    }

    /// Sends the embedded asset that the path of the request names, by the rules of files: conditions, ranges, HEAD, and
    /// precompressed variants by `Accept-Encoding`. Returns `false`, and sends nothing, if there is no such asset: then
    /// send an error, or [`decline`](Self::decline). See [`Reply::send_asset`](sanserve_core::Reply::send_asset) for the
    /// details.
    ///
    /// ```
    /// use sanserve_std::{Assets, Exchange, StatusCode};
    ///
    /// fn answer(x: &mut Exchange<'_>, assets: &Assets) -> std::io::Result<()> {
    ///     if x.send_asset(assets)? { Ok(()) } else { x.error(StatusCode::NOT_FOUND, None, None) }
    /// }
    /// # let _ = answer;
    /// ```
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`](sanserve_core::Misuse) if the response has begun, `Misuse::OutOfMemory` if the server has no
    /// memory for a copy of the content.
    #[cfg(feature = "files")]
    pub fn send_asset(&mut self, assets: &sanserve_core::Assets) -> io::Result<bool> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.send_asset(assets))
    }

    /// Sends the asset with this path, whatever the path of the request: for an application whose pages are all the same
    /// `index.html`. Otherwise like [`send_asset`](Self::send_asset).
    ///
    /// # Errors
    /// As for [`send_asset`](Self::send_asset).
    #[cfg(feature = "files")]
    pub fn send_asset_at(&mut self, assets: &sanserve_core::Assets, path: &str) -> io::Result<bool> {
        self.line.not_the_peers_time();
        self.line.act(|reply| reply.send_asset_at(assets, path))
    }

    /// Sends a prepared head and a body of unknown length, which is read to its end, and ends the response. Returns the
    /// length of the body. What was read so far may be on its way when reading fails: the connection is then cut if the
    /// handler returns the error.
    ///
    /// A body that is not sent, for HEAD and statuses such as 204 and 304, is not read: its length is 0.
    ///
    /// ```
    /// use std::process::{Command, Stdio};
    /// use sanserve_std::{Exchange, ResponseHead, StatusCode};
    ///
    /// fn list(x: &mut Exchange<'_>) -> std::io::Result<()> {
    ///     let mut child = Command::new("ls").stdout(Stdio::piped()).spawn()?;
    ///     let head = ResponseHead::new(StatusCode::OK).field("Content-Type", "text/plain")?;
    ///     let output = child.stdout.take().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    ///     x.send_stream(&head, output)?;
    ///     child.wait().map(drop)
    /// }
    /// # let _: fn(&mut Exchange<'_>) -> std::io::Result<()> = list;
    /// ```
    ///
    /// # Errors
    /// Those of [`send_head`](Self::send_head), of `body`, and of writing.
    pub fn send_stream(&mut self, head: &ResponseHead, mut body: impl Read) -> io::Result<u64> {
        self.send_head(head)?;
        // A body without an end would be read for ever, since no peer that goes away ends it.
        let is_sent = self.method() != b"HEAD" && !head.status().is_bodiless();
        let length = if is_sent { io::copy(&mut body, self)? } else { 0 };
        self.finish()?;
        Ok(length)
    }

    /// Refuses the method, as Python does: `501 Unsupported method ('PUT')`.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn unsupported(&mut self) -> io::Result<()> {
        let message = format!("Unsupported method ('{}')", String::from_utf8_lossy(self.method()));
        self.error(StatusCode::NOT_IMPLEMENTED, Some(&message), None)
    }

    /// Appends a part of a file to the body, without copying it (`sendfile`). The part may not be sent yet when this
    /// returns; the next write waits for it. `file` may be closed immediately.
    ///
    /// # Errors
    /// As [`write`](Write::write); `InvalidInput` if the file ends before `range` does.
    pub fn send_file(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file ends before the end of the range"));
        }
        let file = file.try_clone()?;
        while !self.line.act(|reply| reply.offer_file(range.start, range.end - range.start))? {
            self.line.go_on(io::ErrorKind::BrokenPipe)?;
        }
        // The previous part is sent, and the one just announced is looked up when it is sent.
        self.line.driver.space.slot.attach(file);
        Ok(())
    }

    /// Adds a trailer field to a chunked body. Announce it with a `Trailer` field in the head. It is dropped if the
    /// body is not chunked because the request is a HEAD or HTTP/1.0.
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`](sanserve_core::Misuse) for a field that is not allowed in trailers, or if a length
    /// was announced.
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        self.line.act(|reply| reply.trailer(name, value))
    }

    /// Ends the body. Returning from the handler does so too.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`](sanserve_core::Misuse) if the body is shorter than its announced length. The
    /// connection is then cut.
    pub fn finish(&mut self) -> io::Result<()> {
        self.line.act(|reply| reply.finish())
    }

    /// Leaves the response to the files, or a script, when the handler returns.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`](sanserve_core::Misuse) after the head.
    pub fn decline(&mut self) -> io::Result<()> {
        self.line.act(|reply| reply.decline())
    }

    /// Closes the connection after this response (Python's `close_connection`). Call it before the head is sent, so
    /// that the head says so.
    pub fn close(&mut self) {
        if self.line.is_answerable() {
            self.line.reply(|reply| reply.close());
        }
    }

    /// Whether the server is shutting down. An endless response should end then, before the grace has passed.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.line.driver.shared.site.draining().has_begun()
    }

    /// Reports when the server shuts down, for a handler that waits for something else meanwhile: use
    /// [`Draining::wait`] in place of a sleep, and [`Draining::when_begun`] if the handler blocks on a channel.
    #[must_use]
    pub fn draining(&self) -> Draining {
        self.line.driver.shared.site.draining().clone()
    }

    /// Whether the response has begun and not ended.
    pub(crate) fn is_answering(&mut self) -> bool {
        self.line.state == ExchangeState::Open && self.line.reply(|reply| reply.is_answering())
    }

    /// Aborts the exchange: the peer gets a 500 if nothing of the response was sent yet, else the connection is cut.
    pub fn abort(&mut self) {
        if self.line.is_answerable() {
            self.line.reply(|reply| reply.abort());
            self.line.state = ExchangeState::Aborted;
        }
    }

    /// Responds with 101 and takes over the socket, with the bytes already read: from here on, the connection uses
    /// `protocol`. The socket is in blocking mode. It may be passed to another thread; the thread of this connection
    /// serves others once the handler has returned. Until then, a shutdown of the server closes the socket.
    ///
    /// # Errors
    /// [`Misuse::Upgrade`](sanserve_core::Misuse) if the request does not ask for the protocol, is not HTTP/1.1, or
    /// has a body that was not read; others as [`HeadWriter::field`].
    pub fn upgrade(&mut self, protocol: &str, fields: &[(&str, &str)]) -> io::Result<Upgraded> {
        self.line.not_the_peers_time();
        self.line.act(|reply| {
            let head = reply.upgrade(protocol)?;
            fields.iter().try_fold(head, |head, (name, value)| head.field(name, value))?.send()
        })?;
        self.line.finish_upgrade()?;
        self.line.give_away()
    }

    /// Names the exchange for the log: [`Entry::tag`](sanserve_core::Entry), which
    /// [`Policy::log`](sanserve_core::Policy::log) may write.
    pub fn tag(&mut self, tag: impl AsRef<[u8]>) {
        if self.line.state == ExchangeState::Open {
            self.line.reply(|reply| reply.tag(tag));
        }
    }

    /// Writes a line to the log (Python's `log_message`): `{ip} - - [{time}] {message}`, with control characters
    /// escaped.
    pub fn log(&self, message: fmt::Arguments<'_>) {
        let entry = Entry::new(self.peer(), b"");
        let message = Message(message.to_string());
        let Driver { log, shared, .. } = &self.line.driver;
        let mut log = log.borrow_mut();
        log.write(&entry, &message, shared.clock.now().wall);
        log.flush();
    }
}

impl Line {
    /// Drives the connection until the head of the upgrade is sent and logged.
    fn finish_upgrade(&mut self) -> io::Result<()> {
        let live = Arc::clone(&self.live);
        loop {
            match self.go(live.stream.as_fd()) {
                Progress::Done | Progress::Pushed | Progress::Call(_) => {}
                Progress::End(Close::Upgraded) => {
                    self.state = ExchangeState::Upgraded;
                    return Ok(());
                }
                Progress::End(_) => {
                    self.state = ExchangeState::Over;
                    return Err(self.lost(io::ErrorKind::BrokenPipe));
                }
            }
        }
    }
}

impl Read for Exchange<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let can_wait = self.line.is_answerable();
            let found = self.line.act(|reply| {
                Ok(match reply.receive() {
                    Received::Data(data) => {
                        let n = data.len().min(into.len());
                        into[..n].copy_from_slice(&data[..n]);
                        reply.consume(n);
                        Some(n)
                    }
                    Received::End => Some(0),
                    Received::Pending if can_wait => None,
                    Received::Pending => return Err(Misuse::ExchangeEnded),
                    Received::Broken => return Ok(Some(usize::MAX)),
                })
            })?;
            match found {
                Some(usize::MAX) => return Err(self.line.lost(io::ErrorKind::ConnectionReset)),
                Some(n) => return Ok(n),
                None => self.line.go_on(io::ErrorKind::ConnectionReset)?,
            }
        }
    }
}

impl Write for Exchange<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        loop {
            let taken = self.line.act(|reply| reply.write(data))?;
            if taken > 0 || data.is_empty() {
                return Ok(taken);
            }
            self.line.go_on(io::ErrorKind::BrokenPipe)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.push_out()
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("request", &self.request).finish_non_exhaustive()
    }
}

/// A log message of a handler, in the form of a policy that logs nothing else.
struct Message(String);

impl Policy for Message {
    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{} - - [{time}] ", entry.peer).as_bytes());
        scrub(out, self.0.as_bytes());
        out.push(b'\n');
    }
}

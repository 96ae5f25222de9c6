//! The interface for handlers: a view of the connection that never blocks. If something is not possible yet, the method
//! returns that, and the handler is called again when it is. When a handler is called is decided in `handler_task`.

use std::any::Any;
use std::fmt::Display;
use std::io::Write;
use std::task::Waker;

use super::{Connection, Life, Task};
use crate::buffers::Buffers;
use crate::conditional::Validators;
use crate::config::Protocol;
use crate::context::Context;
use crate::exchange::{FilePart, Passthrough, ResponseBuilder, check_final};
use crate::fields::{Fields, Misuse};
use crate::grammar::list_items;
use crate::handler_error::HandlerError;
use crate::handler_task::HandlerTask;
use crate::handover::{FileHandle, UpgradeState};
use crate::head_writer::HeadWriter;
use crate::input::{Fault, Input};
use crate::request::Request;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;
use crate::wire::{Cycle, Encoder, Inbound, Outbound, begin_chunk, chunk};

/// The result of [`Reply::receive`].
///
/// ```
/// use sanserve_core::{Received, Reply};
///
/// /// Appends what has arrived of a body. Returns whether it is complete.
/// fn collect(reply: &mut Reply<'_>, body: &mut Vec<u8>) -> bool {
///     loop {
///         match reply.receive() {
///             Received::Data(data) => {
///                 let n = data.len();
///                 body.extend_from_slice(data);
///                 reply.consume(n);
///             }
///             Received::Pending | Received::Broken => return false,
///             Received::End => return true,
///         }
///     }
/// }
/// # let _ = collect;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'r> {
    /// Some bytes of the body. Consume them with [`Reply::consume`].
    Data(&'r [u8]),
    /// Nothing yet: the handler is called with `Call::Body` when more is available.
    Pending,
    /// The body is complete, or there is none.
    End,
    /// The body will never be complete: it was malformed or too slow, or the client went away. No response can be sent
    /// any more.
    Broken,
}

/// A connection, as seen by its handler during a call.
///
/// ```
/// use sanserve_core::{Misuse, Reply, StatusCode};
///
/// /// Responds in chunks, with a trailer.
/// fn count(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     reply.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.field("Trailer", "X-Lines")?.send()?;
///     for line in ["one\n", "two\n"] {
/// // A few bytes always fit.
///         reply.write(line.as_bytes())?;
///     }
///     reply.trailer("X-Lines", "2")?;
///     reply.finish()
/// }
/// # fn main() {
/// # let _: fn(&mut Reply<'_>) -> Result<(), Misuse> = count;
/// # }
/// ```
pub struct Reply<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) buf: &'a mut Buffers,
    pub(super) cx: &'a Context<'a>,
    pub(super) waker: Option<&'a dyn Fn() -> Waker>,
}

/// The request.
impl<'a> Reply<'a> {
    /// The current request.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request {
            head: &self.buf.head,
            bytes: self.buf.head_bytes(),
            peer: self.connection.peer,
            secured: self.connection.secured.as_ref(),
        }
    }

    /// Returns the available part of the request's body.
    pub fn receive(&mut self) -> Received<'_> {
        if let Inbound::Body(_) = self.connection.cycle.inbound {
            self.connection.response(self.buf, self.cx).send_continue();
        }
        match (self.connection.body_available(self.buf, self.cx), self.connection.cycle.inbound) {
            (0, Inbound::Body(_)) => {
                if let Some(task) = self.connection.handler() {
                    task.wait_for_body();
                }
                Received::Pending
            }
            (0, Inbound::Closed) => Received::Broken,
            (0, _) => Received::End,
            (n, _) => Received::Data(&self.buf.input.unread()[..n]),
        }
    }

    /// Consumes `n` bytes that [`receive`](Self::receive) returned.
    ///
    /// # Panics
    /// If `n` is larger than what is available.
    pub fn consume(&mut self, n: usize) {
        let available = self.connection.body_available(self.buf, self.cx);
        assert!(n <= available, "consumed more than was received");
        self.connection.response(self.buf, self.cx).took(n);
    }

    /// The trailer fields after a chunked body, available once [`receive`](Self::receive) has returned `End` (RFC 9110
    /// section 6.5). They come from the client, and are not merged with the fields of the head.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.buf.trailers.split(|&byte| byte == b'\n');
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// A waker for this connection, which causes a call with `Call::Wake`. It may be kept and used on any thread. After
    /// the end of the exchange, waking has no effect. Nor has it if the driver provides no waker, as in most tests.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.map_or_else(|| Waker::noop().clone(), |waker| waker())
    }

    /// Sets the function that creates wakers. For drivers.
    #[must_use]
    pub fn with_waker(self, waker: &'a dyn Fn() -> Waker) -> Reply<'a> {
        Reply { waker: Some(waker), ..self }
    }
}

/// The response.
impl Reply<'_> {
    /// Begins the response (Python's `send_response`). The head is sent together with the beginning of the body.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for a status below 200, [`Misuse::HeadOrder`] for a second head, [`Misuse::ExchangeEnded`]
    /// if the response is complete.
    pub fn respond(&mut self, status: StatusCode) -> Result<HeadWriter<'_>, Misuse> {
        let response = self.begin()?;
        check_final(status)?;
        Ok(HeadWriter::new(response, status))
    }

    /// Begins an interim response before the final one, such as 103 (RFC 8297). It is not sent to an HTTP/1.0 client.
    /// 100 is sent by [`receive`](Self::receive), and 101 by [`upgrade`](Self::upgrade).
    ///
    /// # Errors
    /// [`Misuse::Interim`] for any other status, [`Misuse::HeadOrder`] after the head.
    pub fn inform(&mut self, status: StatusCode) -> Result<HeadWriter<'_>, Misuse> {
        let response = self.begin()?;
        check_interim(status)?;
        Ok(HeadWriter::new(response, status))
    }

    /// Sends a prepared head. Its status decides whether it begins the final response, like [`respond`](Self::respond),
    /// or is an interim response, like [`inform`](Self::inform).
    ///
    /// # Errors
    /// [`Misuse::Interim`] for the statuses 100 and 101, [`Misuse::HeadOrder`] after the head of the response.
    pub fn send_head(&mut self, head: &ResponseHead) -> Result<(), Misuse> {
        let (mut response, status) = (self.begin()?, head.status());
        check_final(status).or_else(|_| check_interim(status))?;
        response.send_head(head);
        Ok(())
    }

    /// Begins the response 101. After it, the connection speaks `protocol`, and its owner gets the socket, together
    /// with the bytes that were already read ([`Close::Upgraded`](crate::Close)).
    ///
    /// # Errors
    /// [`Misuse::Upgrade`] if the request is not HTTP/1.1, does not offer `protocol` in its `Upgrade` field, or has a
    /// body that has not been read.
    pub fn upgrade(&mut self, protocol: &str) -> Result<HeadWriter<'_>, Misuse> {
        self.check_upgrade(protocol)?;
        let status = StatusCode::SWITCHING_PROTOCOLS;
        HeadWriter::new(self.connection.response(self.buf, self.cx), status).field("Upgrade", protocol)
    }

    fn check_upgrade(&mut self, protocol: &str) -> Result<(), Misuse> {
        self.check_head()?;
        let request = self.request();
        let offers = |field: &str, wanted: &str| {
            let mut values = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(field.as_bytes()));
            values.any(|(_, value)| list_items(value).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes())))
        };
        let asked = self.buf.head.is_11 && offers("Connection", "upgrade") && offers("Upgrade", protocol);
        let may = self.cx.config.protocol == Protocol::Http11 && self.connection.cycle.inbound == Inbound::Done;
        if asked && may { Ok(()) } else { Err(Misuse::Upgrade) }
    }

    /// As [`upgrade`](Self::upgrade), and hands `state` to the code that speaks `protocol`: it is part of what the
    /// driver passes on with the socket.
    ///
    /// # Errors
    /// As [`upgrade`](Self::upgrade).
    pub fn upgrade_with(&mut self, protocol: &str, state: impl Any + Send) -> Result<HeadWriter<'_>, Misuse> {
        self.check_upgrade(protocol)?;
        self.buf.handover.upgrade = Some(UpgradeState::new(state));
        self.upgrade(protocol)
    }

    /// Responds with an error page (Python's `send_error`).
    ///
    /// # Errors
    /// As for [`respond`](Self::respond).
    pub fn error(
        &mut self,
        status: StatusCode,
        message: Option<&str>,
        explanation: Option<&str>,
    ) -> Result<(), Misuse> {
        self.send_error(&ResponseHead::new(status), message, explanation)
    }

    /// Responds with an error page whose head is prepared: with the fields of `head`, such as `WWW-Authenticate` for 401
    /// or `Allow` for 405. Like [`HeadWriter::error`], for a head that is sent more than once.
    ///
    /// # Errors
    /// As for [`respond`](Self::respond); [`Misuse::LengthMismatch`] if `head` announces a length, [`Misuse::ReservedHeader`] if it
    /// has a `Content-Type`, which is [that of the page](crate::Policy::error_type).
    pub fn send_error(
        &mut self,
        head: &ResponseHead,
        message: Option<&str>,
        explanation: Option<&str>,
    ) -> Result<(), Misuse> {
        self.begin()?.send_error(head, message, explanation)
    }

    /// Ends the exchange because of an error of the handler, as if the handler had returned it. The client gets the
    /// error page of its status if nothing of the response was sent yet; otherwise, the connection is cut. It is closed
    /// after a 500, and after a page that replaces a response that had begun. A complete response is sent as it is. The [reason](HandlerError::reason) of the error is written to the log.
    pub fn fail(&mut self, error: impl Into<HandlerError>) {
        let error = error.into();
        if let Some(reason) = error.reason() {
            self.note_failure(format_args!("the handler failed: {reason}"));
        }
        if self.check_head().is_ok() {
            // What else may be wrong with the handler of this connection is unknown.
            if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
                self.close();
            }
            self.connection.response(self.buf, self.cx).failed(&error);
        } else if self.connection.handler().is_some() && self.connection.cycle.is_answering() {
            self.buf.scratch.failed = Some(Box::new(error));
            self.connection.fail_handler();
        }
    }

    /// Names the exchange for the log: [`Entry::tag`](crate::Entry), such as the number of the request or the user.
    /// [`Policy::log`](crate::Policy::log) decides whether it is written. A later tag replaces an earlier one.
    pub fn tag(&mut self, tag: impl AsRef<[u8]>) {
        if self.connection.exchange.is_open() {
            self.buf.scratch.tag.clear();
            self.buf.scratch.tag.extend_from_slice(tag.as_ref());
        }
    }

    /// Records why the handler failed, for the log entry of the exchange ([`Entry::failure`](crate::Entry)). Returns
    /// whether there is an exchange. For drivers; a handler calls [`fail`](Self::fail).
    pub fn note_failure(&mut self, why: impl Display) -> bool {
        if !self.connection.exchange.is_open() {
            return false;
        }
        let failure = &mut self.buf.scratch.failure;
        if failure.is_empty() {
            // Writing to a Vec only fails if `why` does.
            let _ = write!(failure, "{why}");
        }
        true
    }

    /// Sends a complete response with a body.
    ///
    /// # Errors
    /// As for [`respond`](Self::respond) and [`HeadWriter::body`]; [`Misuse::Field`] if `media_type` cannot be the value
    /// of a field.
    pub fn answer(&mut self, status: StatusCode, media_type: &str, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.respond(status)?.field("Content-Type", media_type)?.body(body)
    }

    /// Sends content that the handler has made, by the rules of files: 304 or 412 for a condition of the client, 206 or
    /// 416 for ranges, `ETag`, `Last-Modified` and `Accept-Ranges`. The rules are for GET and HEAD; the response to any
    /// other method is that of [`answer`](Self::answer).
    ///
    /// ```
    /// use sanserve_core::{Misuse, Reply, Validators};
    ///
    /// fn news(reply: &mut Reply<'_>, version: u64, json: &str) -> Result<(), Misuse> {
    ///     reply.answer_entity(&Validators::version(version), "application/json", json)
    /// }
    /// # let _: fn(&mut Reply<'_>, u64, &str) -> Result<(), Misuse> = news;
    /// ```
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub fn answer_entity(
        &mut self,
        validators: &Validators,
        media_type: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<(), Misuse> {
        let head = ResponseHead::new(StatusCode::OK).field("Content-Type", media_type)?;
        self.send_entity(&head, validators, body)
    }

    /// Like [`answer_entity`](Self::answer_entity), with a prepared head. A status other than 200 is sent as it is, as
    /// by [`send_response`](Self::send_response), since conditions and ranges are for successful responses.
    ///
    /// # Errors
    /// As for [`send_response`](Self::send_response); [`Misuse::ReservedHeader`] if the head has one of the fields that
    /// are written for an entity (`ETag`, `Last-Modified`, `Accept-Ranges`, `Content-Range`).
    pub fn send_entity(
        &mut self,
        head: &ResponseHead,
        validators: &Validators,
        body: impl AsRef<[u8]>,
    ) -> Result<(), Misuse> {
        self.begin()?.send_entity(head, validators, body.as_ref())
    }

    /// Sends a prepared head and a complete body, and ends the response. Like [`HeadWriter::body`], for a head that is
    /// sent more than once.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for a status below 200, [`Misuse::HeadOrder`] for a second head, and as for
    /// [`HeadWriter::body`].
    pub fn send_response(&mut self, head: &ResponseHead, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.begin()?.send_response(head, body.as_ref())
    }

    /// Appends as much of `data` to the body as there is room for, and returns how much that was. If it was not
    /// everything, the handler is called with `Call::Room` later.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] before the head, [`Misuse::LengthMismatch`] beyond the announced length,
    /// [`Misuse::ExchangeEnded`] after the end of the exchange.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Misuse> {
        let limit = self.buf.output_room_for(data.len(), self.cx.config.limits.output_room());
        let is_after_file = self.connection.sends_named();
        let (encoder, task) = self.connection.body()?;
        let out = &mut self.buf.output.bytes;
        let n = if is_after_file { 0 } else { data.len().min(limit.saturating_sub(out.len())) };
        task.wants_room = n < data.len();
        if n == 0 {
            return Ok(0);
        }
        match encoder {
            Encoder::Length(left) => {
                left.take(n as u64).ok_or(Misuse::LengthMismatch)?;
                out.extend_from_slice(&data[..n]);
            }
            Encoder::Chunked => chunk(&data[..n], out),
            Encoder::Close => out.extend_from_slice(&data[..n]),
            // For HEAD, the content of the response to GET is discarded.
            Encoder::None => {}
        }
        Ok(n)
    }

    /// Attaches an open file, in place of one that was attached before: [`offer_file`](Self::offer_file) sends parts
    /// of it. A part of another file that is still being sent is completed first. The drivers of sanserve take a
    /// `std::fs::File`.
    pub fn attach_file(&mut self, file: impl Into<FileHandle>) {
        self.buf.handover.file = Some(file.into());
    }

    /// Appends `len` bytes of the [attached](Self::attach_file) file to the body, starting at `offset`. They are sent
    /// without being copied (`sendfile`). Returns `false` if a part of a file is still being sent; then the handler is
    /// called with `Call::Room` when it has been sent.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn offer_file(&mut self, offset: u64, len: u64) -> Result<bool, Misuse> {
        let is_after_file = self.connection.sends_named();
        let (encoder, task) = self.connection.body()?;
        if is_after_file {
            task.wants_room = true;
            return Ok(false);
        }
        let framed = match encoder {
            Encoder::Length(left) => {
                left.take(len).ok_or(Misuse::LengthMismatch)?;
                false
            }
            Encoder::Chunked if len > 0 => {
                begin_chunk(usize::try_from(len).unwrap_or(usize::MAX), &mut self.buf.output.bytes);
                true
            }
            Encoder::Chunked | Encoder::Close => false,
            Encoder::None => return Ok(true),
        };
        self.connection.file = FilePart { offset, left: len };
        self.connection.relay.tail = if framed { Passthrough::TAIL.len() as u8 } else { 0 };
        Ok(true)
    }

    /// Adds a field after a chunked body. It is discarded if the body is not chunked because the request is a HEAD or
    /// HTTP/1.0. Announce it with a `Trailer` field in the head.
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`] for a field that is not permitted in a trailer section, or after an announced length;
    /// otherwise as for [`HeadWriter::field`].
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Misuse> {
        let (cycle, _) = self.connection.sending().ok_or(Misuse::ExchangeEnded)?;
        let outbound = cycle.outbound;
        if let Outbound::Body(Encoder::Length(_)) = outbound {
            return Err(Misuse::ReservedHeader);
        }
        Fields::new(&mut self.buf.trailing, 0).add_trailer(name, value.as_ref())
    }

    /// Ends the body. If it is shorter than announced, the response is a 500 if none of it has been sent yet;
    /// otherwise, the connection is cut.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] in that case, [`Misuse::HeadOrder`] before the head.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        let is_after_file = self.connection.sends_named();
        let (cycle, task) = self.connection.sending().ok_or(Misuse::ExchangeEnded)?;
        match cycle.outbound {
            Outbound::Body(Encoder::Length(left)) if left.get() > 0 => {
                self.connection.fail_handler();
                return Err(Misuse::LengthMismatch);
            }
            Outbound::Body(_) if is_after_file => {
                task.finish();
            }
            Outbound::Body(_) => self.connection.response(self.buf, self.cx).end_body(),
            _ => return Err(Misuse::HeadOrder),
        }
        Ok(())
    }

    /// Declines the request: files or a script respond instead.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] after the head.
    pub fn decline(&mut self) -> Result<(), Misuse> {
        self.check_head()?;
        self.connection.handler().ok_or(Misuse::ExchangeEnded)?.decline();
        Ok(())
    }

    /// Closes the connection after this response (Python's `close_connection`).
    pub fn close(&mut self) {
        self.connection.exchange.close();
    }

    /// Aborts the exchange: with 500 if none of the response has been sent yet, or 503 after
    /// [`Misuse::OutOfMemory`]; otherwise, the connection is cut.
    pub fn abort(&mut self) {
        // A complete response is sent as it is.
        if self.connection.handler().is_some() && self.connection.cycle.is_answering() {
            self.connection.fail_handler();
        }
    }

    /// Whether some of the response has not been sent yet.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.connection.has_unsent(self.buf)
    }

    /// Whether a head may still be sent.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.connection.cycle.outbound == Outbound::Owed
    }

    /// Whether the request was [declined](Self::decline).
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(&self.connection.task, Task::Handler(task) if task.has_declined())
    }

    /// Whether the response has begun and not ended.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        matches!(self.connection.cycle.outbound, Outbound::Body(_))
    }

    /// Whether the client has half-closed: it sends nothing more, and may have gone away altogether.
    #[must_use]
    pub fn is_peer_done(&self) -> bool {
        self.connection.notes.eof
    }

    /// Whether the server is shutting down. A response without an end, such as a stream of events, should end before
    /// the grace period is over.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.connection.is_draining()
    }

    /// The response, before its head.
    fn begin(&mut self) -> Result<ResponseBuilder<'_>, Misuse> {
        self.check_head()?;
        Ok(self.connection.response(self.buf, self.cx))
    }

    fn check_head(&mut self) -> Result<(), Misuse> {
        if self.connection.handler().is_none() {
            return Err(Misuse::ExchangeEnded);
        }
        match self.connection.cycle.outbound {
            Outbound::Owed => Ok(()),
            Outbound::Body(_) => Err(Misuse::HeadOrder),
            _ => Err(Misuse::ExchangeEnded),
        }
    }
}

fn check_interim(status: StatusCode) -> Result<(), Misuse> {
    if (102..200).contains(&status.code()) { Ok(()) } else { Err(Misuse::Interim) }
}

impl Connection {
    /// The task of the handler, while it may respond.
    pub(super) fn handler(&mut self) -> Option<&mut HandlerTask> {
        self.sending().map(|(_, task)| task)
    }

    /// The task of the handler, with the state of the response.
    fn sending(&mut self) -> Option<(&mut Cycle, &mut HandlerTask)> {
        match &mut self.task {
            Task::Handler(task) if self.life == Life::Open && task.may_answer() => Some((&mut self.cycle, task)),
            _ => None,
        }
    }

    /// The framing of the body that the handler may append to.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] before the head, [`Misuse::ExchangeEnded`] after the end.
    fn body(&mut self) -> Result<(&mut Encoder, &mut HandlerTask), Misuse> {
        let (cycle, task) = self.sending().ok_or(Misuse::ExchangeEnded)?;
        match &mut cycle.outbound {
            Outbound::Body(encoder) if !task.is_finishing() => Ok((encoder, task)),
            Outbound::Owed => Err(Misuse::HeadOrder),
            _ => Err(Misuse::ExchangeEnded),
        }
    }

    /// Whether a part of a file is being sent, so that nothing can be appended.
    fn sends_named(&self) -> bool {
        self.file.left > 0 || self.relay != Passthrough::default()
    }

    /// How much of the body is available at the front of the window, without framing.
    fn body_available(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> usize {
        self.response(buf, cx).available().unwrap_or_else(|violation| {
            self.body_violation(violation, buf, cx);
            0
        })
    }

    /// Records that the handler cannot complete the response that its head has announced.
    fn fail_handler(&mut self) {
        self.note(Input::Broken(Fault::Handler));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::date::Now;
    use crate::peer::Peer;
    use crate::policy::DefaultPolicy;
    use crate::share::Bound;
    use crate::step::{Call, Step};
    use crate::time::{Tick, Wall};

    /// A page that replaces a failed head has the fields that the head had set itself.
    #[test]
    fn a_page_in_place_of_a_head_has_server_and_date() {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        let mut buf = Buffers::new();
        buf.input.fill(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(matches!(connection.poll(&mut buf, &cx), Step::Call(Call::Request)));
        let mut reply = connection.reply(&mut buf, &cx);
        let head = reply.respond(StatusCode::OK).and_then(|head| head.field("Server", "mine"));
        head.and_then(|head| head.field("Date", "now")).and_then(HeadWriter::send).unwrap();
        reply.abort();
        let Step::Send(transmit) = connection.poll(&mut buf, &cx) else { panic!("a page is due") };
        let head = String::from_utf8_lossy(transmit.head);
        assert!(head.starts_with("HTTP/1.1 500 ") && head.contains("\r\nServer: sanserve/"), "{head}");
        assert!(head.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{head}");
    }

    /// Polls a new connection with a request until its handler is called, calls it, and sends the response. Returns the
    /// result of the handler, what was sent, and the memory that was left during the exchange and after it.
    fn answered(
        method: &str,
        memory: usize,
        handler: impl FnOnce(&mut Reply<'_>) -> Result<(), Misuse>,
    ) -> (Result<(), Misuse>, Vec<u8>, [usize; 2]) {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        let memory = Arc::new(Bound::of(memory));
        let mut buf = Buffers::within(memory.clone());
        buf.input.fill(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert!(matches!(connection.poll(&mut buf, &cx), Step::Call(Call::Request)));
        let mut reply = connection.reply(&mut buf, &cx);
        let outcome = handler(&mut reply);
        if outcome.is_err() {
            reply.abort();
        }
        let (mut sent, mut during) = (Vec::new(), usize::MAX);
        loop {
            let n = match connection.poll(&mut buf, &cx) {
                Step::Send(transmit) => {
                    // The last byte is sent alone, so that the memory can be observed shortly before the end.
                    let n = transmit.len().saturating_sub(1).max(1);
                    sent.extend_from_slice(&transmit.head[..usize::try_from(n).unwrap()]);
                    during = memory.left();
                    n
                }
                Step::Call(Call::Over) | Step::Finished(_) => continue,
                Step::Wait(_) | Step::Shut => return (outcome, sent, [during, memory.left()]),
                step => panic!("{step:?}"),
            };
            connection.handle(Input::Sent(n));
        }
    }

    #[test]
    fn a_complete_body_is_within_the_memory_of_the_server() {
        const LEN: usize = 100_000;
        let answer = |reply: &mut Reply<'_>| reply.answer(StatusCode::OK, "a/b", [b'x'; LEN]);
        for memory in [LEN, LEN + 1] {
            let (outcome, sent, left) = answered("GET", memory, answer);
            assert_eq!((outcome, left), (Ok(()), [memory - LEN, memory]));
            assert!(sent.starts_with(b"HTTP/1.1 200 ") && sent.ends_with(&[b'x'; LEN]));
        }
        let (outcome, sent, left) = answered("GET", LEN - 1, answer);
        assert_eq!((outcome, left), (Err(Misuse::OutOfMemory), [LEN - 1; 2]));
        assert!(sent.starts_with(b"HTTP/1.1 503 No memory for a response of this size\r\n"), "{}", sent.escape_ascii());
        // Nothing is reserved for what is small, or not sent.
        let (outcome, sent, _) = answered("GET", 0, |reply| reply.answer(StatusCode::OK, "a/b", [b'x'; 4096]));
        assert!(outcome.is_ok() && sent.ends_with(&[b'x'; 4096]));
        assert_eq!(
            answered("GET", 0, |reply| reply.answer(StatusCode::OK, "a/b", [0; 4097])).0,
            Err(Misuse::OutOfMemory)
        );
        let (outcome, sent, _) = answered("HEAD", 0, answer);
        assert!(outcome.is_ok() && sent.ends_with(b"\r\nContent-Length: 100000\r\n\r\n"), "{}", sent.escape_ascii());
        // The handler may respond in another way.
        let (outcome, sent, _) = answered("GET", 0, |reply| {
            assert_eq!(answer(reply), Err(Misuse::OutOfMemory));
            reply.answer(StatusCode::OK, "a/b", "less")
        });
        assert!(outcome.is_ok() && sent.ends_with(b"\r\n\r\nless"), "{}", sent.escape_ascii());
    }

    #[test]
    fn a_range_needs_memory_for_the_range_alone() {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        for (range, memory, expected) in [
            ("0-9999", 10_000, Ok(())),
            ("0-9999", 9_999, Err(Misuse::OutOfMemory)),
            ("200000-", 0, Ok(())),
            // Of several ranges, a copy is made; and the whole may be sent.
            ("0-9999,20000-29999", 200_000, Ok(())),
            ("0-9999,20000-29999", 199_999, Err(Misuse::OutOfMemory)),
        ] {
            let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
            let mut buf = Buffers::within(Arc::new(Bound::of(memory)));
            buf.input.fill(format!("GET / HTTP/1.1\r\nHost: x\r\nRange: bytes={range}\r\n\r\n").as_bytes());
            assert!(matches!(connection.poll(&mut buf, &cx), Step::Call(Call::Request)));
            let mut reply = connection.reply(&mut buf, &cx);
            let outcome = reply.answer_entity(&Validators::version(1), "a/b", [b'x'; 200_000]);
            assert_eq!(outcome, expected, "{range} within {memory} bytes");
        }
    }

    /// The page of an error that came too late for it is that of no other client, and neither are tag and reason.
    #[test]
    fn nothing_of_a_failed_exchange_is_left_for_another_connection() {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut buf = Buffers::new();
        let begun = |buf: &mut Buffers| {
            let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
            buf.input.fill(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(matches!(connection.poll(buf, &cx), Step::Call(Call::Request)));
            let mut reply = connection.reply(buf, &cx);
            reply.respond(StatusCode::OK).and_then(HeadWriter::send).and_then(|()| reply.write(b"x")).unwrap();
            connection
        };
        let mut first = begun(&mut buf);
        let Step::Send(transmit) = first.poll(&mut buf, &cx) else { panic!("the head is due") };
        let sent = transmit.len();
        first.handle(Input::Sent(sent));
        let error = StatusCode::UNAUTHORIZED.because("secret").with_message("For Ada");
        let mut reply = first.reply(&mut buf, &cx);
        reply.tag("ada");
        reply.fail(error.with_field("X-Secret", "1").unwrap());
        // The driver drops the connection.
        drop(first);
        buf.recycle();

        let mut second = begun(&mut buf);
        second.reply(&mut buf, &cx).abort();
        let Step::Send(transmit) = second.poll(&mut buf, &cx) else { panic!("a page is due") };
        let page = String::from_utf8_lossy(transmit.head).into_owned();
        assert!(page.starts_with("HTTP/1.1 500 ") && !page.contains("Ada") && !page.contains("X-Secret"), "{page}");
        let entry = second.entry(&buf, &cx);
        assert_eq!((entry.tag, entry.failure), (None, None));
    }

    #[test]
    fn the_parts_of_content_are_not_kept() {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        let mut buf = Buffers::new();
        buf.input.fill(b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=0-99999,100002-\r\n\r\n");
        assert!(matches!(connection.poll(&mut buf, &cx), Step::Call(Call::Request)));
        let mut reply = connection.reply(&mut buf, &cx);
        reply.answer_entity(&Validators::version(1), "a/b", [b'x'; 200_000]).unwrap();
        assert!(buf.output.bytes.starts_with(b"HTTP/1.1 206 ") && buf.output.bytes.len() > 199_000);
        assert_eq!(buf.scratch.page.capacity(), 0);
    }
}

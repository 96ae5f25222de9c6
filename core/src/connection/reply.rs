//! How a handler answers: a view of the connection that never waits. What cannot be done now says
//! so, and the handler is called again when it can.

use std::any::Any;
use std::task::Waker;

use super::{Connection, Life, Task};
use crate::buffers::Buffers;
use crate::config::Protocol;
use crate::context::Context;
use crate::exchange::{FilePart, Page, Passthrough};
use crate::fields::{Fields, Misuse};
use crate::grammar::list_items;
use crate::handler_task::HandlerTask;
use crate::head_writer::HeadWriter;
use crate::input::{Fault, Input};
use crate::request::Request;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;
use crate::wire::{Cycle, Encoder, Inbound, Outbound, begin_chunk, chunk};

/// What [`Reply::receive`] found of the request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'r> {
    /// These bytes; take them with [`Reply::consume`].
    Data(&'r [u8]),
    /// Nothing yet: the handler is called with `Call::Body` when there is.
    Pending,
    /// The body is complete, or there was none.
    End,
    /// The body will never be complete: the peer broke the rules, was too slow or went away. There
    /// is nothing left to answer.
    Broken,
}

/// A connection while its handler is called.
///
/// ```
/// use sanserve_core::{Misuse, Reply, StatusCode};
///
/// /// Answers in chunks, with a trailer.
/// fn count(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     reply.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.field("Trailer", "X-Lines")?.send()?;
///     for line in ["one\n", "two\n"] {
///         // A few bytes always find room.
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
    /// The request.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request { head: &self.buf.head, bytes: self.buf.head_bytes(), peer: self.connection.peer }
    }

    /// What has come of the request's body.
    pub fn receive(&mut self) -> Received<'_> {
        if let Inbound::Body(_) = self.connection.cycle.inbound {
            let response = &mut self.connection.response(self.buf, self.cx);
            if response.may_continue() {
                response.send_continue();
            }
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

    /// Takes `n` bytes of what [`receive`](Self::receive) found.
    ///
    /// # Panics
    /// If that is more than was found.
    pub fn consume(&mut self, n: usize) {
        let available = self.connection.body_available(self.buf, self.cx);
        assert!(n <= available, "consumed more than was received");
        self.connection.response(self.buf, self.cx).took(n);
    }

    /// The trailer fields that came after a chunked body, once [`receive`](Self::receive) has said `End`
    /// (RFC 9110 section 6.5). They are what the peer says, and no part of the head.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.buf.trailers.split(|&byte| byte == b'\n');
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// Something that wakes this connection from anywhere: its handler is then called with `Call::Wake`.
    /// It is `Send` and may be kept; where the exchange is over when it is woken, nothing happens. It
    /// does nothing where the driver has none, as in most tests.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.map_or_else(|| Waker::noop().clone(), |waker| waker())
    }

    /// Lets [`waker`](Self::waker) give what `waker` makes: for drivers.
    #[must_use]
    pub fn with_waker(self, waker: &'a dyn Fn() -> Waker) -> Reply<'a> {
        Reply { waker: Some(waker), ..self }
    }
}

/// The answer.
impl Reply<'_> {
    /// Begins the answer (Python's `send_response`). The head goes out with the first of its body.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for a status below 200, [`Misuse::HeadOrder`] for a second head.
    pub fn respond(&mut self, status: StatusCode) -> Result<HeadWriter<'_>, Misuse> {
        self.check_head()?;
        check_final(status)?;
        Ok(HeadWriter::new(self.connection.response(self.buf, self.cx), status))
    }

    /// Begins an interim answer, such as 103 (RFC 8297), that goes before the final one. It is not sent to an
    /// HTTP/1.0 client. 100 is [`receive`](Self::receive)'s to send, 101 is [`upgrade`](Self::upgrade)'s.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for any other status, [`Misuse::HeadOrder`] after the head.
    pub fn inform(&mut self, status: StatusCode) -> Result<HeadWriter<'_>, Misuse> {
        self.check_head()?;
        check_interim(status)?;
        Ok(HeadWriter::new(self.connection.response(self.buf, self.cx), status))
    }

    /// Sends a head that was made before: that of the answer, as [`respond`](Self::respond) begins it, or an interim one,
    /// as [`inform`](Self::inform) does. Its status says which.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for the statuses 100 and 101, [`Misuse::HeadOrder`] after the head of the answer.
    pub fn send_head(&mut self, head: &ResponseHead) -> Result<(), Misuse> {
        self.check_head()?;
        let status = head.status();
        check_final(status).or_else(|_| check_interim(status))?;
        self.connection.response(self.buf, self.cx).send_head(head);
        Ok(())
    }

    /// Begins the answer 101: after it the connection speaks `protocol`, and whoever drives it gets the
    /// socket, with the bytes that were read already ([`Close::Upgraded`](crate::Close)).
    ///
    /// # Errors
    /// [`Misuse::Upgrade`] if the request is not HTTP/1.1, does not offer `protocol` in its `Upgrade` field, or
    /// has a body that is not read yet.
    pub fn upgrade(&mut self, protocol: &str) -> Result<HeadWriter<'_>, Misuse> {
        self.check_head()?;
        let request = self.request();
        let offers = |field: &str, wanted: &str| {
            let mut values = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(field.as_bytes()));
            values.any(|(_, value)| list_items(value).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes())))
        };
        let asked = self.buf.head.is_11 && offers("Connection", "upgrade") && offers("Upgrade", protocol);
        let may = self.cx.config.protocol == Protocol::Http11 && self.connection.cycle.inbound == Inbound::Done;
        if !asked || !may {
            return Err(Misuse::Upgrade);
        }
        let status = StatusCode::SWITCHING_PROTOCOLS;
        HeadWriter::new(self.connection.response(self.buf, self.cx), status).field("Upgrade", protocol)
    }

    /// Answers with an error page (Python's `send_error`).
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn error(
        &mut self,
        status: StatusCode,
        message: Option<&str>,
        explanation: Option<&str>,
    ) -> Result<(), Misuse> {
        self.check_head()?;
        check_final(status)?;
        let answer = &mut self.connection.response(self.buf, self.cx);
        answer.buf.scratch.message.clear();
        answer.buf.scratch.message.extend_from_slice(message.unwrap_or(status.phrase()).as_bytes());
        answer.error_page(status, &Page { explanation, quotes_peer: false }, |_, _| {});
        Ok(())
    }

    /// Answers at once, with all of a body (for what needs no more).
    ///
    /// # Errors
    /// As [`respond`](Self::respond); [`Misuse::Field`] for a media type that no field can hold.
    pub fn answer(&mut self, status: StatusCode, media_type: &str, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.respond(status)?.field("Content-Type", media_type)?.body(body)
    }

    /// Sends a head that was made before and all of a body, and ends the answer: [`HeadWriter::body`] for a head that
    /// is sent more than once.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for a status below 200, [`Misuse::HeadOrder`] for a second head, and as [`HeadWriter::body`].
    pub fn send_response(&mut self, head: &ResponseHead, body: impl AsRef<[u8]>) -> Result<(), Misuse> {
        self.check_head()?;
        check_final(head.status())?;
        self.connection.response(self.buf, self.cx).send_response(head, body.as_ref())
    }

    /// Appends to the body as much of `data` as there is room for, and says how much that was. If
    /// it was not all, the handler is called with `Call::Room` later.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] before the head, [`Misuse::LengthMismatch`] beyond the length that was announced,
    /// [`Misuse::ExchangeEnded`] when the exchange is over.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Misuse> {
        let limit = self.buf.output_room_for(data.len(), self.cx.config.limits.output_room());
        let is_behind_file = self.connection.sends_named();
        let (encoder, task) = self.connection.body()?;
        let out = &mut self.buf.output.bytes;
        let n = if is_behind_file { 0 } else { data.len().min(limit.saturating_sub(out.len())) };
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
            // HEAD: what a GET would send is taken and dropped.
            Encoder::None => {}
        }
        Ok(n)
    }

    /// Gives something to the driver that calls the handler. The drivers of sanserve understand a
    /// `std::fs::File`: it is what [`offer_file`](Self::offer_file) then sends.
    pub fn attach(&mut self, thing: Box<dyn Any + Send>) {
        self.buf.attached = Some(thing);
    }

    /// Appends to the body `len` bytes of the file that was [attached](Self::attach), from `offset` on. They are
    /// sent from where they lie (`sendfile`). `false`: a file that was offered before is still on its
    /// way, and the handler is called with `Call::Room` when it is out.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn offer_file(&mut self, offset: u64, len: u64) -> Result<bool, Misuse> {
        let is_behind_file = self.connection.sends_named();
        let (encoder, task) = self.connection.body()?;
        if is_behind_file {
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

    /// Adds a field that follows a chunked body. It is dropped where the body is not chunked because the
    /// request is a HEAD or HTTP/1.0. Announce it with a `Trailer` field in the head.
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`] for a field that a trailer section must not have, or after an announced
    /// length; the others as [`HeadWriter::field`].
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), Misuse> {
        let (cycle, _) = self.connection.sending().ok_or(Misuse::ExchangeEnded)?;
        let outbound = cycle.outbound;
        if let Outbound::Body(Encoder::Length(_)) = outbound {
            return Err(Misuse::ReservedHeader);
        }
        Fields::new(&mut self.buf.trailing).add_trailer(name, value.as_ref())
    }

    /// Ends the body. If less came than was announced, the answer is a 500 where none of it has gone
    /// out yet, else the connection is cut.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] in that case, [`Misuse::HeadOrder`] before the head.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        let is_behind_file = self.connection.sends_named();
        let (cycle, task) = self.connection.sending().ok_or(Misuse::ExchangeEnded)?;
        match cycle.outbound {
            Outbound::Body(Encoder::Length(left)) if left.get() > 0 => {
                self.connection.fail_handler();
                return Err(Misuse::LengthMismatch);
            }
            Outbound::Body(_) if is_behind_file => {
                task.finish();
            }
            Outbound::Body(_) => self.connection.response(self.buf, self.cx).end_body(),
            _ => return Err(Misuse::HeadOrder),
        }
        Ok(())
    }

    /// Lets the files, or a script, answer instead.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] after the head.
    pub fn decline(&mut self) -> Result<(), Misuse> {
        self.check_head()?;
        self.connection.handler().ok_or(Misuse::ExchangeEnded)?.decline();
        Ok(())
    }

    /// Lets the connection end after this answer (Python's `close_connection`).
    pub fn close(&mut self) {
        self.connection.exchange.close();
    }

    /// Gives the exchange up: 500 where nothing of an answer has gone out yet, else the connection is cut.
    pub fn abort(&mut self) {
        // What is complete goes out as it is.
        if self.connection.handler().is_some() && self.connection.cycle.is_answering() {
            self.connection.fail_handler();
        }
    }

    /// Whether some of what was offered has not gone out yet.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.connection.has_unsent(self.buf)
    }

    /// Whether a head may still be written.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.connection.cycle.outbound == Outbound::Owed
    }

    /// Whether the request was [declined](Self::decline).
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(&self.connection.task, Task::Handler(task) if task.has_declined())
    }

    /// Whether the answer has a head and not yet an end.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        matches!(self.connection.cycle.outbound, Outbound::Body(_))
    }

    /// Whether the peer has half-closed: it sends nothing more, and may have gone away altogether.
    #[must_use]
    pub fn is_peer_done(&self) -> bool {
        self.connection.notes.eof
    }

    /// Whether the server is going down: an answer without end, such as a stream of events, should come to
    /// one before the grace is over.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.connection.is_draining()
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

fn check_final(status: StatusCode) -> Result<(), Misuse> {
    if status.code() < 200 { Err(Misuse::Interim) } else { Ok(()) }
}

fn check_interim(status: StatusCode) -> Result<(), Misuse> {
    if (102..200).contains(&status.code()) { Ok(()) } else { Err(Misuse::Interim) }
}

impl Connection {
    /// The task of a handler while it may still answer.
    pub(super) fn handler(&mut self) -> Option<&mut HandlerTask> {
        self.sending().map(|(_, task)| task)
    }

    /// The same, with the state of the answer.
    fn sending(&mut self) -> Option<(&mut Cycle, &mut HandlerTask)> {
        match &mut self.task {
            Task::Handler(task) if self.life == Life::Open && task.may_answer() => Some((&mut self.cycle, task)),
            _ => None,
        }
    }

    /// The framing of the body that the handler may add to.
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

    /// Whether a part of a file is on its way, after which nothing can be put.
    fn sends_named(&self) -> bool {
        self.file.left > 0 || self.relay != Passthrough::default()
    }

    /// How much of the body lies unread at the front of the window, framing removed.
    fn body_available(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> usize {
        self.response(buf, cx).available().unwrap_or_else(|violation| {
            self.body_violation(violation, buf, cx);
            0
        })
    }

    /// The handler cannot keep what its head promised.
    fn fail_handler(&mut self) {
        self.note(Input::Broken(Fault::Handler));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::Config;
    use crate::date::Now;
    use crate::peer::Peer;
    use crate::policy::DefaultPolicy;
    use crate::step::{Call, Step};
    use crate::time::{Tick, Wall};

    /// What a failed head had of its own is not missing from the page that takes its place.
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
}

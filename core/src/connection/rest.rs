//! Reduces the memory of connections that are idle between two exchanges, or that wait for their handler or for a slow
//! peer.

use super::{Connection, Life, Notes};
use crate::buffers::{Account, Buffers};
use crate::context::Context;
use crate::exchange::{Exchange, FilePart, Passthrough, Server};
use crate::peer::Peer;
use crate::task::Task;
use crate::time::Tick;
use crate::timer::ReadTimer;
use crate::wire::{Cycle, Inbound, Span};

/// An idle connection between two exchanges, in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resting {
    peer: Peer,
    notes: RestingNotes,
    ticket: u32,
    since: Tick,
}

const _: () = assert!(size_of::<Resting>() <= 32);

/// What a connection between two exchanges knows, in a byte.
#[derive(Clone, Copy, Debug)]
struct RestingNotes(u8);

impl RestingNotes {
    const SERVED: u8 = 1;
    const LEAVING: u8 = 2;

    /// `served`: it has had a response. `leaving`: the server is about to leave.
    fn new(served: bool, leaving: bool) -> RestingNotes {
        RestingNotes(u8::from(served) * Self::SERVED + u8::from(leaving) * Self::LEAVING)
    }

    fn has(self, note: u8) -> bool {
        self.0 & note != 0
    }
}

/// What is kept of the buffers of a connection that waits for its handler, or for a slow peer; see
/// [`Connection::pack`].
#[derive(Clone, Debug)]
pub struct Packed {
    /// The head of the request, or its first line, and after it the tag for the log.
    bytes: Box<[u8]>,
    /// The length of the first of these.
    head: usize,
    /// Whether it is the first line only.
    is_line: bool,
    account: Account,
}

impl Packed {
    /// The length of the longest head that is packed, which fits into new buffers. With a longer one, the buffers are
    /// kept.
    const MOST: usize = 4 * 1024;
}

impl Resting {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: Peer, cx: &Context<'_>) -> Resting {
        Resting { peer, notes: RestingNotes::new(false, false), ticket: 0, since: cx.now.tick }
    }

    /// Since when it has been idle.
    #[must_use]
    pub fn since(&self) -> Tick {
        self.since
    }

    /// When to resume and poll the connection at the latest.
    #[must_use]
    pub fn deadline(&self, cx: &Context<'_>) -> Tick {
        let awaited = ReadTimer::Request { since: self.since };
        awaited.deadline(&cx.config.timeouts, false).expect("waiting for a request has a deadline")
    }

    /// Restores the connection.
    #[must_use]
    pub fn resume(self) -> Connection {
        Connection {
            peer: self.peer,
            secured: None,
            notes: Notes {
                server: if self.notes.has(RestingNotes::LEAVING) { Server::Leaves } else { Server::Stays },
                ..Notes::default()
            },
            life: Life::Open,
            served: self.notes.has(RestingNotes::SERVED),
            ticket: self.ticket,
            cycle: Cycle::new(),
            task: Task::None,
            exchange: Exchange::default(),
            file: FilePart::default(),
            relay: Passthrough::default(),
            awaited: ReadTimer::Request { since: self.since },
            stalled: None,
            sent: 0,
            arrived: 0,
            observed: None,
        }
    }
}

impl Connection {
    /// What must be kept of a connection that has just returned `Wait { idle: true }`; `None` for any other connection,
    /// for one that is observed, and for one that is secured. A driver with many idle connections keeps this instead of the connection.
    #[must_use]
    pub fn rest(&self) -> Option<Resting> {
        if self.is_observed() {
            return None;
        }
        let ReadTimer::Request { since } = self.awaited else { return None };
        let idle = self.cycle.is_new()
            && self.life == Life::Open
            && self.notes == Notes { server: self.notes.server, ..Notes::default() }
            && !self.notes.is_draining();
        idle.then_some(Resting {
            peer: self.peer,
            notes: RestingNotes::new(self.served, self.is_leaving()),
            ticket: self.ticket,
            since,
        })
    }

    /// Since when the connection has been idle: between two exchanges, or before the first one, without a byte of the
    /// next request.
    #[must_use]
    pub fn idle_since(&self) -> Option<Tick> {
        match self.awaited {
            ReadTimer::Request { since } => Some(since),
            _ => None,
        }
    }

    /// Since when the connection has waited for the client although no response is due: the handshake or the head of a
    /// request is incomplete, or the connection is lingering. `None` for any other connection, including an idle one.
    ///
    /// If a server has reached its limit on connections and none is idle, it may [cut](crate::Input::Cut) such a
    /// connection after a while to make room for a new one.
    #[must_use]
    pub fn unfinished_since(&self) -> Option<Tick> {
        match self.awaited {
            ReadTimer::Head { since } | ReadTimer::Handshake { since } => Some(since),
            ReadTimer::End(progress) => Some(progress.since()),
            _ => None,
        }
    }

    /// Reduces a waiting connection to a few bytes: one whose handler has nothing to send for now, such as a stream
    /// between two events, or one that only has a part of a file left to send. Returns `None` if it holds more than can
    /// be packed.
    ///
    /// A driver with many connections that wait for [`Need::handler`](crate::Need) or [`Need::write`](crate::Need), or
    /// for their next turn, keeps the result instead of `buf`, and calls [`unpack`](Self::unpack) before any other
    /// method of the connection.
    pub fn pack(&mut self, buf: &mut Buffers) -> Option<Packed> {
        if self.sent > 0 && self.stalled.is_none() && !self.notes.blocked && self.sends_file() {
            // The write timer does not run, so it does not matter when this is counted.
            let sent = std::mem::take(&mut self.sent);
            self.absorb_sent(sent, buf);
        }
        let is_line = self.sends_file();
        let waits = is_line || (self.waits_for_handler() && !self.has_unsent(buf));
        let is_drained =
            buf.output.unsent().is_empty() && buf.input.unread().is_empty() && !self.exchange.answer.is_error();
        let plain = buf.trailers.is_empty() && buf.trailing.is_empty() && buf.handover.is_empty();
        let own = buf.moved.is_empty() && !buf.reasons.are_wanted();
        if !(waits && is_drained && plain && own && self.sent == 0) {
            return None;
        }
        let head = if is_line { buf.head.line.of_bytes(buf.input.head()) } else { buf.input.head() };
        if head.len() > Packed::MOST {
            return None;
        }
        let (bytes, head) = ([head, &buf.scratch.tag].concat().into(), head.len());
        buf.input.unpin();
        buf.scratch.tag.clear();
        Some(Packed { bytes, head, is_line, account: buf.account })
    }

    /// Whether it only waits for its handler.
    fn waits_for_handler(&self) -> bool {
        matches!(self.task, Task::Handler(_)) && self.cycle.is_answering() && self.life == Life::Open
    }

    /// Whether only a part of a file is left to send.
    fn sends_file(&self) -> bool {
        let is_named = matches!(&self.task, Task::Files(files) if files.is_written()) && self.file.left > 0;
        is_named && self.cycle.inbound == Inbound::Done && self.life == Life::Open
    }

    /// Restores what was packed into `buf`, which must be empty.
    pub fn unpack(&mut self, packed: &Packed, buf: &mut Buffers) {
        let Packed { bytes, head, is_line, account } = packed;
        let (head, tag) = bytes.split_at(*head);
        buf.scratch.tag.extend_from_slice(tag);
        buf.account = *account;
        buf.input.fill(head);
        buf.input.pin(head.len());
        if *is_line {
            // The head was parsed before, and only the log still needs it.
            buf.head.clear();
            buf.head.line = Span::new(0, head.len());
        } else {
            buf.head.parse(head).expect("it was parsed before");
            // Restores the same room as before, since packing must not change how much is read at once.
            self.widen_for_body(buf);
            buf.input.make_room(usize::MAX, &mut buf.share);
        }
        self.arrived = buf.input.arrived() as u32;
        if let Some(observed) = &mut self.observed {
            observed.unpacked(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::connection::Received;
    use crate::date::Now;
    use crate::input::{Completion, Input, Kind, Opened};
    use crate::policy::DefaultPolicy;
    use crate::status::StatusCode;
    use crate::step::{Body, Call, Need, Step, Transmit, Wait};
    use crate::time::Wall;

    /// Without room, a driver would read 0 bytes and take that for the end of input.
    #[test]
    fn a_body_has_room_after_a_packed_head_of_any_length() {
        let config = Config { handled: true, ..Config::default() };
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        for (head_len, body_len) in [(4_095, 5), (4_096, 5), (4_096, 100_000), (200, 100_000)] {
            let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
            let mut buf = Buffers::new();
            let start = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {body_len}\r\nX: ");
            let head = format!("{start}{}\r\n\r\n", "x".repeat(head_len - start.len() - 4));
            assert_eq!((buf.input.fill(head.as_bytes()), head.len()), (head_len, head_len));
            assert!(matches!(connection.poll(&mut buf, &cx), Step::Call(_)));
            assert!(matches!(connection.reply(&mut buf, &cx).receive(), Received::Pending));
            assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(wait) if wait.need.read));
            let room = buf.input.spare().len();
            let packed = connection.pack(&mut buf).expect("only the head has to be kept");
            let mut buf = Buffers::new();
            connection.unpack(&packed, &mut buf);
            assert!(room > 0);
            assert_eq!(buf.input.spare().len(), room, "{head_len}, {body_len}");
        }
    }

    /// The tag, the bytes of the body, and the time from the first byte on, also where that was slow,
    /// and with the time that a handler has blocked for.
    #[test]
    fn what_is_counted_of_an_exchange_is_kept_while_it_waits() {
        let config = Config::default().with_handled(true);
        let at = |tick| Now::new(Tick(tick), Wall(784_111_777));
        let mut now = at(7);
        fn cx<'c>(config: &'c Config, now: &'c Now) -> Context<'c> {
            Context { config, policy: &DefaultPolicy, now }
        }
        let mut buf = Buffers::new();
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx(&config, &now));
        for (tick, bytes) in [(100, &b"POST / HTTP/1.1\r\nHost: x\r\n"[..]), (400, b"Content-Length: 3\r\n\r\nabc")] {
            buf.input.fill(bytes);
            now = at(tick);
            if let Step::Wait(wait) = connection.poll(&mut buf, &cx(&config, &now)) {
                assert!(wait.need.read && tick == 100);
            }
        }
        let cx_now = cx(&config, &now);
        let mut reply = connection.reply(&mut buf, &cx_now);
        reply.tag("ada");
        assert!(matches!(reply.receive(), Received::Data(b"abc")));
        reply.consume(3);
        assert!(matches!(reply.receive(), Received::End));
        assert!(matches!(connection.poll(&mut buf, &cx_now), Step::Wait(_)));
        let packed = connection.pack(&mut buf).expect("it waits for its handler");
        buf.recycle();
        let mut buf = Buffers::new();
        connection.unpack(&packed, &mut buf);
        let mut later = at(600);
        later.lag = 2_000;
        let cx_later = cx(&config, &later);
        connection.reply(&mut buf, &cx_later).answer(StatusCode::OK, "text/plain", "x").unwrap();
        let entry = loop {
            match connection.poll(&mut buf, &cx_later) {
                Step::Send(transmit) => {
                    let sent = transmit.len();
                    connection.handle(Input::Sent(sent));
                }
                Step::Call(Call::Over) => {}
                Step::Finished(entry) => break entry,
                step => panic!("{step:?}"),
            }
        };
        assert_eq!((entry.tag, entry.sent, entry.received), (Some(&b"ada"[..]), 1, 3));
        assert_eq!(entry.duration, Duration::from_millis(2_500));
    }

    /// What the log says of a download is the same, and so is the request after it.
    #[test]
    fn a_download_that_waits_keeps_the_line_of_its_request() {
        download_after_packing(true);
        download_after_packing(false);
    }

    /// Packs a download while its socket is full, or between two turns.
    fn download_after_packing(is_full: bool) {
        let config = Config::default();
        let now = Now::new(Tick(0), Wall(784_111_777));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        let mut buf = Buffers::new();
        let head = format!("GET /large HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(10_000));
        let mut rest = head.as_bytes();
        let opened = Opened { kind: Kind::File, len: 100_000, modified: 5, modified_nanos: 0, digest: None };
        loop {
            match connection.poll(&mut buf, &cx) {
                Step::Wait(wait) if wait.need.read => rest = &rest[buf.input.fill(rest)..],
                Step::Act(ticket, _) => connection.handle(Input::Done(ticket, Completion::Opened(Ok(opened)))),
                Step::Send(Transmit { head, body: Body::File { .. }, .. }) => {
                    let sent = head.len() as u64 + 60_000;
                    assert!(connection.pack(&mut buf).is_none(), "the head is not sent yet");
                    connection.handle(Input::Sent(sent));
                    break;
                }
                step => panic!("{step:?}"),
            }
        }
        if is_full {
            connection.handle(Input::Blocked);
            assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(Wait { need: Need { write: true, .. }, .. })));
        }
        let packed = connection.pack(&mut buf).expect("it has nothing but its line");
        assert_eq!(&*packed.bytes, b"GET /large HTTP/1.1");
        let mut buf = Buffers::new();
        connection.unpack(&packed, &mut buf);
        if is_full {
            connection.handle(Input::Writable);
        }
        let Step::Send(Transmit { body: Body::File { offset: 60_000, len: 40_000 }, .. }) =
            connection.poll(&mut buf, &cx)
        else {
            panic!("the rest is sent");
        };
        connection.handle(Input::Sent(40_000));
        let later = Now::new(Tick(1_500), Wall(784_111_778));
        let cx = Context { now: &later, ..cx };
        let Step::Finished(entry) = connection.poll(&mut buf, &cx) else { panic!("all is sent") };
        assert_eq!((entry.line, entry.status, entry.sent), (&b"GET /large HTTP/1.1"[..], 200, 100_000));
        assert_eq!(entry.duration, Duration::from_millis(1_500));
        assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(Wait { idle: true, .. })));
    }
}

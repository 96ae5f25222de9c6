//! Reduces the memory of connections that are idle between two exchanges, or that wait for their handler.

use super::{Connection, Life, Notes};
use crate::buffers::Buffers;
use crate::context::Context;
use crate::exchange::{Exchange, FilePart, Passthrough, Server};
use crate::peer::Peer;
use crate::task::Task;
use crate::time::Tick;
use crate::timer::ReadTimer;
use crate::wire::Cycle;

/// An idle connection between two exchanges, in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resting {
    peer: Peer,
    served: bool,
    /// Whether the server is about to leave.
    leaving: bool,
    ticket: u32,
    since: Tick,
}

const _: () = assert!(size_of::<Resting>() <= 32);

/// What is kept of the buffers of a connection that waits for its handler; see [`Connection::pack`].
#[derive(Clone, Debug)]
pub struct Packed {
    head: Box<[u8]>,
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
        Resting { peer, served: false, leaving: false, ticket: 0, since: cx.now.tick }
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
            notes: Notes { server: if self.leaving { Server::Leaves } else { Server::Stays }, ..Notes::default() },
            life: Life::Open,
            served: self.served,
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
    /// and for one that is observed. A driver with many idle connections keeps this instead of the connection.
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
            served: self.served,
            leaving: self.is_leaving(),
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

    /// Since when the connection has waited for the client although no response is due: the head of a request is
    /// incomplete, or the connection is lingering. `None` for any other connection, including an idle one.
    ///
    /// If a server has reached its limit on connections and none is idle, it may [cut](crate::Input::Cut) such a
    /// connection after a while to make room for a new one.
    #[must_use]
    pub fn unfinished_since(&self) -> Option<Tick> {
        match self.awaited {
            ReadTimer::Head { since } => Some(since),
            ReadTimer::End(progress) => Some(progress.since()),
            _ => None,
        }
    }

    /// Reduces a connection whose handler has nothing to send for now, such as a stream between two events, to a few
    /// bytes. Returns `None` if it holds more than can be packed.
    ///
    /// A driver with many connections that wait for [`Need::handler`](crate::Need) keeps the result instead of `buf`,
    /// and calls [`unpack`](Self::unpack) before any other method of the connection.
    pub fn pack(&mut self, buf: &mut Buffers) -> Option<Packed> {
        let waits = matches!(self.task, Task::Handler(_)) && self.cycle.is_answering() && self.life == Life::Open;
        let is_drained = !self.has_unsent(buf) && buf.input.unread().is_empty() && !self.exchange.answer.is_error();
        let plain = buf.trailers.is_empty() && buf.trailing.is_empty() && buf.attached.is_none();
        if !(waits && is_drained && plain && self.sent == 0 && buf.input.head().len() <= Packed::MOST) {
            return None;
        }
        let head = Box::from(buf.input.head());
        buf.input.unpin();
        Some(Packed { head })
    }

    /// Restores what was packed into `buf`, which must be empty.
    pub fn unpack(&mut self, packed: &Packed, buf: &mut Buffers) {
        buf.input.fill(&packed.head);
        buf.input.pin(packed.head.len());
        buf.head.parse(&packed.head).expect("it was parsed before");
        // Restores the same room as before, since packing must not change how much is read at once.
        self.widen_for_body(buf);
        buf.input.make_room(usize::MAX, &mut buf.share);
        self.arrived = buf.input.arrived();
        if let Some(observed) = &mut self.observed {
            observed.unpacked(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::Config;
    use crate::connection::Received;
    use crate::date::Now;
    use crate::policy::DefaultPolicy;
    use crate::step::Step;
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
}

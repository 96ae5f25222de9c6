//! A connection as the event loop stores it, in as little memory as its state permits.
//!
//! A connection between two exchanges takes a few bytes; one whose handler has nothing to send for now, or whose peer
//! receives a file slowly, a few hundred ([`Away`]); a busy one leases buffers ([`Busy`]).

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::ioctl_fionbio;
use sanserve_core::{Connection, Context, Handler, Resting, Tick};
use sanserve_os::has_arrived;
use sanserve_server::{Draining, Env, PutAway, Session, Site, Transport, Upgraded};

use crate::pool::{Busy, Pool};
use crate::script::Role;
use crate::waker::{ConnWaker, ExchangeWaker};

/// A connection as the event loop stores it.
pub(crate) struct Parked {
    pub(crate) socket: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) state: State,
    /// Made at the first call, and kept for the life of the connection.
    pub(crate) handler: Option<Box<dyn Handler + Send>>,
    /// The connection is in the queue of turns.
    pub(crate) queued: bool,
    /// Conditions that the next turn must know of, and that are rare.
    pub(crate) flags: Flags,
}

/// Invariant: an idle connection is cheap.
const _: () = assert!(size_of::<Parked>() <= 80);

/// Most connections rest most of the time, so this state is small.
pub(crate) enum State {
    Resting(Resting),
    Away(Box<Away>),
    Busy(Box<Busy>),
    /// A placeholder, while one state is converted to another.
    Moving,
}

/// What is kept of a connection that waits for its handler or for its peer, or that rests and is recorded or secured.
pub(crate) struct Away {
    session: Session,
    /// `None`: it rests.
    put_away: Option<PutAway>,
    conn_waker: OnceCell<ExchangeWaker>,
}

/// Conditions, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The peer has reset the connection.
    pub(crate) const BROKEN: u8 = 1;
    /// The handler was woken.
    pub(crate) const WOKEN: u8 = 2;
    /// The request is incomplete, or the connection waits for the peer to close.
    pub(crate) const UNFINISHED: u8 = 4;
    /// The connection is to be closed to make room for another.
    pub(crate) const LEAVES: u8 = 8;
    /// The socket is registered with the loop.
    pub(crate) const REGISTERED: u8 = 16;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn add(&mut self, flag: u8) {
        self.0 |= flag;
    }

    /// Clears a flag. Returns whether it was set.
    pub(crate) fn take(&mut self, flag: u8) -> bool {
        let had = self.has(flag);
        self.0 &= !flag;
        had
    }
}

impl Parked {
    pub(crate) fn new(socket: OwnedFd, resting: Resting) -> Parked {
        Parked::of(socket, State::Resting(resting))
    }

    /// A connection that is recorded from its first poll on.
    pub(crate) fn recorded(socket: OwnedFd, connection: Connection) -> Parked {
        let session = Session::new(connection);
        Parked::of(socket, State::Away(Box::new(Away { session, put_away: None, conn_waker: OnceCell::new() })))
    }

    fn of(socket: OwnedFd, state: State) -> Parked {
        let transport = Transport::edge_triggered();
        Parked { socket, transport, state, handler: None, queued: false, flags: Flags::default() }
    }

    /// Registers the socket with the loop, unless it is. What the socket is ready for by then is an event, too.
    pub(crate) fn register(&mut self, at: u32, registry: &Registry) -> io::Result<()> {
        if !self.flags.has(Flags::REGISTERED) {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut SourceFd(&self.socket.as_raw_fd()), Role::Socket.token(at), interest)?;
            self.flags.add(Flags::REGISTERED);
        }
        Ok(())
    }

    /// Since when the connection has been idle. `None`: it is not idle.
    pub(crate) fn idle_since(&self) -> Option<Tick> {
        match &self.state {
            State::Resting(resting) => Some(resting.since()),
            State::Away(away) if away.put_away.is_none() => away.session.connection.idle_since(),
            _ => None,
        }
    }

    /// Since when the connection has been unfinished.
    pub(crate) fn unfinished_since(&self) -> Option<Tick> {
        match &self.state {
            State::Busy(busy) => busy.session.connection.unfinished_since(),
            _ => None,
        }
    }

    /// Whether bytes of the peer have arrived that were not read yet.
    pub(crate) fn has_arrived(&self) -> bool {
        has_arrived(self.socket.as_fd())
    }

    /// Leases the memory that a turn needs.
    pub(crate) fn lease(&mut self, pool: &mut Pool, site: &Site) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Resting(resting) => State::Busy(pool.take(Session::new(resting.resume()), site)),
            State::Away(away) => {
                let Away { session, put_away, conn_waker } = *away;
                let mut busy = pool.take(session, site);
                if let Some(put_away) = put_away {
                    busy.session.take_out(put_away, &mut busy.space);
                }
                busy.conn_waker = conn_waker;
                State::Busy(busy)
            }
            as_it_is => as_it_is,
        };
    }

    /// Records an event of the script. Returns whether the connection waits for it.
    pub(crate) fn script_became_ready(&mut self, role: Role, event: &Event) -> bool {
        match &mut self.state {
            State::Busy(busy) => busy.script.became_ready(role, event, &mut busy.session),
            _ => false,
        }
    }

    /// Records that the current exchange was woken, if the waker belongs to it. Returns whether it does.
    pub(crate) fn was_woken_by(&mut self, conn_waker: &Arc<ConnWaker>) -> bool {
        if let State::Busy(busy) = &self.state {
            // A disk has answered: what it has to say is found in the turn.
            if busy.disk_waker.get().is_some_and(|own| own.was_woken_by(conn_waker)) {
                return true;
            }
        }
        let own = match &self.state {
            State::Busy(busy) => busy.conn_waker.get(),
            State::Away(away) => away.conn_waker.get(),
            _ => None,
        };
        let is_woken = own.is_some_and(|own| own.was_woken_by(conn_waker));
        if is_woken {
            self.flags.add(Flags::WOKEN);
        }
        is_woken
    }

    /// Gives back the leased memory if the connection rests now.
    pub(crate) fn rest(&mut self, cx: &Context<'_>) -> Option<Box<Busy>> {
        let State::Busy(busy) = &mut self.state else { return None };
        let Some(resting) = busy.session.connection.rest() else {
            // It is recorded, or has more to keep than fits, as a secured one has.
            let session = take(&mut busy.session, cx);
            return self.swap(State::Away(Box::new(Away { session, put_away: None, conn_waker: OnceCell::new() })));
        };
        self.swap(State::Resting(resting))
    }

    /// Gives back the leased memory if the connection only waits for its handler or its peer, and what it holds can be
    /// put away.
    pub(crate) fn put_away(&mut self, cx: &Context<'_>) -> Option<Box<Busy>> {
        let State::Busy(busy) = &mut self.state else { return None };
        let put_away = Some(busy.session.put_away(&mut busy.space)?);
        let session = take(&mut busy.session, cx);
        let conn_waker = std::mem::take(&mut busy.conn_waker);
        self.swap(State::Away(Box::new(Away { session, put_away, conn_waker })))
    }

    /// Gives back the leased memory, and drops the connection.
    pub(crate) fn end(mut self) -> Option<Box<Busy>> {
        self.swap(State::Moving)
    }

    /// Takes the socket, and the bytes read from it, away from the loop. `None`: that failed, and the socket is
    /// closed.
    pub(crate) fn upgrade(mut self, registry: &Registry, pool: &mut Pool, draining: Draining) -> Option<Upgraded> {
        let mut busy = self.swap(State::Moving)?;
        let peer = busy.session.connection.peer();
        let read = busy.space.buffers.input.unread().to_vec();
        let state = busy.space.buffers.take_upgrade_state();
        pool.give_back(busy);
        if self.flags.has(Flags::REGISTERED) {
            registry.deregister(&mut SourceFd(&self.socket.as_raw_fd())).ok()?;
        }
        ioctl_fionbio(&self.socket, false).ok()?;
        let secure = self.transport.take_secure();
        Some(Upgraded::new(self.socket, read, peer, state, draining).with_secure(secure))
    }

    fn swap(&mut self, state: State) -> Option<Box<Busy>> {
        match std::mem::replace(&mut self.state, state) {
            State::Busy(busy) => Some(busy),
            _ => None,
        }
    }

    /// Reads once, and passes the result to the connection.
    pub(crate) fn read(&mut self, env: &Env<'_>) {
        let State::Busy(busy) = &mut self.state else { return };
        let io = &mut self.transport.over(self.socket.as_fd());
        busy.session.receive(&mut busy.space.buffers, io, env, false);
    }
}

/// Takes a session out of its lease, and leaves an unused one in its place.
fn take(session: &mut Session, cx: &Context<'_>) -> Session {
    let nobody = Resting::new(session.connection.peer(), cx).resume();
    std::mem::replace(session, Session::new(nobody))
}

//! A connection as the event loop holds it, in as little memory as its state allows.
//!
//! One that rests between two exchanges takes a few bytes; one whose handler has nothing to send for now,
//! a few hundred ([`Away`]); a busy one leases all that it needs ([`Busy`]).

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::Registry;
use mio::event::Event;
use mio::net::TcpStream;
use rustix::fd::AsFd;
use rustix::net::RecvFlags;
use sanserve_core::{Buffers, Connection, Context, Fault, Handler, Input, Packed, Resting, Tick};
use sanserve_os::has_arrived;
use sanserve_server::{Draining, InHand, Local, Service, Slot, Upgraded};

use crate::alarm::{Alarm, Own};
use crate::pool::Pool;
use crate::script::{Role, Watch};

/// A connection as the event loop holds it.
pub(crate) struct Parked {
    pub(crate) socket: TcpStream,
    pub(crate) state: State,
    /// Made with the first call, kept for the connection's life.
    pub(crate) handler: Option<Box<dyn Handler + Send>>,
    pub(crate) ready: Ready,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Parked>() <= 80);

/// Most connections rest most of the time, and those are kept small.
pub(crate) enum State {
    Resting(Resting),
    Away(Box<Away>),
    Busy(Box<Busy>),
    /// None of these, while one is made of another.
    Moving,
}

/// What is kept of a connection that waits for its handler, or that is recorded and rests.
pub(crate) struct Away {
    connection: Connection,
    packed: Option<Packed>,
    alarm: OnceCell<Own>,
    in_hand: Option<InHand>,
}

/// A busy connection and the memory that it leases.
pub(crate) struct Busy {
    pub(crate) connection: Connection,
    /// Made when the handler of the exchange in hand asks for a waker.
    pub(crate) alarm: OnceCell<Own>,
    pub(crate) buffers: Buffers,
    pub(crate) slot: Slot,
    pub(crate) script: Watch,
    /// The exchange in hand counts while the server goes down.
    pub(crate) in_hand: Option<InHand>,
}

impl Busy {
    pub(crate) fn new(connection: Connection, buffers: Buffers) -> Busy {
        let slot = Slot::new();
        Busy { connection, alarm: OnceCell::new(), buffers, slot, script: Watch::default(), in_hand: None }
    }
}

/// What is known of the socket and of the loop's plans, a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    /// Bytes, or the end, may be there: no read has come up short since the last event.
    pub(crate) readable: bool,
    /// The socket may take bytes: no write has come up short since the last event.
    pub(crate) writable: bool,
    /// The peer will send nothing more, so a short read is not the end.
    pub(crate) read_closed: bool,
    /// It stands in the queue.
    pub(crate) queued: bool,
    /// It waits for bytes.
    pub(crate) needs_read: bool,
    /// It waits for the socket to take more.
    pub(crate) needs_write: bool,
    /// What its next turn is to know, and what is rarely so.
    pub(crate) flags: Flags,
}

/// Some of what is known, a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The peer has reset the connection.
    pub(crate) const BROKEN: u8 = 1;
    /// Its handler was woken.
    pub(crate) const WOKEN: u8 = 2;
    /// Its request is not complete, or it waits for the peer's end.
    pub(crate) const UNFINISHED: u8 = 4;
    /// It gives way to another.
    pub(crate) const LEAVES: u8 = 8;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn add(&mut self, flag: u8) {
        self.0 |= flag;
    }

    /// Takes it away; whether it was there.
    pub(crate) fn take(&mut self, flag: u8) -> bool {
        let had = self.has(flag);
        self.0 &= !flag;
        had
    }
}

impl Parked {
    pub(crate) fn new(socket: TcpStream, resting: Resting) -> Parked {
        let ready = Ready { writable: true, needs_read: true, ..Ready::default() };
        Parked { socket, state: State::Resting(resting), handler: None, ready }
    }

    /// One that is recorded, from its first poll on.
    pub(crate) fn recorded(socket: TcpStream, connection: Connection) -> Parked {
        let away = Away { connection, packed: None, alarm: OnceCell::new(), in_hand: None };
        let ready = Ready { writable: true, ..Ready::default() };
        Parked { socket, state: State::Away(Box::new(away)), handler: None, ready }
    }

    /// Whether bytes are there, and are what the connection waits for.
    pub(crate) fn is_to_read(&self) -> bool {
        self.ready.needs_read && self.ready.readable
    }

    /// Since when it has been idle; `None`: it is not.
    pub(crate) fn idle_since(&self) -> Option<Tick> {
        match &self.state {
            State::Resting(resting) => Some(resting.since()),
            State::Away(away) if away.packed.is_none() => away.connection.idle_since(),
            _ => None,
        }
    }

    /// Since when it has been unfinished.
    pub(crate) fn unfinished_since(&self) -> Option<Tick> {
        match &self.state {
            State::Busy(busy) => busy.connection.unfinished_since(),
            _ => None,
        }
    }

    /// Whether there is something of the peer that nobody has read.
    pub(crate) fn has_arrived(&self) -> bool {
        has_arrived(self.socket.as_fd())
    }

    /// Leases what a turn needs.
    pub(crate) fn lease(&mut self, pool: &mut Pool, service: &Service) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Resting(resting) => State::Busy(pool.take(resting.resume(), service)),
            State::Away(away) => {
                let Away { connection, packed, alarm, in_hand } = *away;
                let mut busy = pool.take(connection, service);
                if let Some(packed) = packed {
                    busy.connection.unpack(&packed, &mut busy.buffers);
                }
                busy.alarm = alarm;
                busy.in_hand = in_hand;
                State::Busy(busy)
            }
            as_it_is => as_it_is,
        };
    }

    /// Notes that something has happened to the script; whether the connection waits for it.
    pub(crate) fn script_became_ready(&mut self, role: Role, event: &Event) -> bool {
        match &mut self.state {
            State::Busy(busy) => busy.script.became_ready(role, event),
            _ => false,
        }
    }

    /// Notes that the exchange in hand was woken, if the waker is still its own.
    pub(crate) fn hears(&mut self, alarm: &Arc<Alarm>) -> bool {
        let own = match &self.state {
            State::Busy(busy) => busy.alarm.get(),
            State::Away(away) => away.alarm.get(),
            _ => None,
        };
        let hears = own.is_some_and(|own| own.hears(alarm));
        if hears {
            self.ready.flags.add(Flags::WOKEN);
        }
        hears
    }

    /// Gives back what was leased, if the connection rests now.
    pub(crate) fn rest(&mut self, cx: &Context<'_>) -> Option<Box<Busy>> {
        let State::Busy(busy) = &mut self.state else { return None };
        if busy.connection.is_observed() {
            let connection = take(&mut busy.connection, cx);
            return self.swap(State::Away(Box::new(Away {
                connection,
                packed: None,
                alarm: OnceCell::new(),
                in_hand: None,
            })));
        }
        let resting = busy.connection.rest()?;
        self.swap(State::Resting(resting))
    }

    /// Gives back what was leased, if the connection waits for its handler and for nothing else that is
    /// there.
    pub(crate) fn pack(&mut self, cx: &Context<'_>) -> Option<Box<Busy>> {
        let State::Busy(busy) = &mut self.state else { return None };
        if !busy.slot.is_empty() {
            return None;
        }
        let packed = busy.connection.pack(&mut busy.buffers)?;
        let connection = take(&mut busy.connection, cx);
        let alarm = std::mem::take(&mut busy.alarm);
        let in_hand = busy.in_hand.take();
        self.swap(State::Away(Box::new(Away { connection, packed: Some(packed), alarm, in_hand })))
    }

    /// Gives back what was leased, with the connection.
    pub(crate) fn end(mut self) -> Option<Box<Busy>> {
        self.swap(State::Moving)
    }

    /// Takes the socket and what was read from it away from the loop. `None`: it cannot be, and is closed.
    pub(crate) fn upgrade(mut self, registry: &Registry, pool: &mut Pool, draining: Draining) -> Option<Upgraded> {
        let mut busy = self.swap(State::Moving)?;
        let peer = busy.connection.peer();
        let read = busy.buffers.input.unread().to_vec();
        let attached = busy.buffers.take_attached();
        pool.give_back(busy);
        registry.deregister(&mut self.socket).ok()?;
        let stream = std::net::TcpStream::from(self.socket);
        stream.set_nonblocking(false).ok()?;
        Some(Upgraded { stream, read, peer: SocketAddr::new(peer.ip(), peer.port()), attached, draining })
    }

    fn swap(&mut self, state: State) -> Option<Box<Busy>> {
        match std::mem::replace(&mut self.state, state) {
            State::Busy(busy) => Some(busy),
            _ => None,
        }
    }

    /// Reads once into the window, and tells the connection what came.
    pub(crate) fn read(&mut self, files: &Local) {
        let State::Busy(busy) = &mut self.state else { return };
        let spare = busy.buffers.input.spare();
        let room = spare.len();
        debug_assert!(room > 0, "reading nothing would look like the end");
        match rustix::io::retry_on_intr(|| rustix::net::recv(self.socket.as_fd(), &mut *spare, RecvFlags::empty())) {
            Ok((_, 0)) => {
                self.ready.readable = false;
                busy.connection.handle(Input::Eof);
            }
            Ok((_, n)) => {
                files.arrived();
                busy.buffers.input.commit(n);
                // Edge-triggered: a short read has emptied the socket, and more makes a new event.
                self.ready.readable = n == room || self.ready.read_closed;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready.readable = false,
            Err(_) => {
                self.ready.readable = false;
                busy.connection.handle(Input::Broken(Fault::Peer));
            }
        }
    }
}

/// Takes a connection out of its lease; in its place is left one that nobody needs.
fn take(connection: &mut Connection, cx: &Context<'_>) -> Connection {
    let nobody = Resting::new(connection.peer(), cx).resume();
    std::mem::replace(connection, nobody)
}

//! One turn of one connection: carry out its steps until it waits, closes, or has had its share.

use std::io;
use std::task::Waker;

use mio::Registry;
use mio::event::Event;
use mio::net::TcpStream;
use rustix::fd::AsFd;
use rustix::net::RecvFlags;
use sanserve_core::{Action, Buffers, Connection, Fault, Handler, Input, Need, Now, Resting, Step, Tick};
use sanserve_os::{Caller, Desk, Flush, Local, Logger, ScriptRead, Service, Slot};

use crate::pool::Pool;
use crate::script::{Role, Watch};

/// Steps a turn may take before others have theirs; far more than a request needs.
const TURN_STEPS: u32 = 128;
/// What a batch of directory entries counts as.
const LIST_STEPS: u32 = 32;
/// What running a script counts as.
const SPAWN_STEPS: u32 = 64;
/// Bytes a turn may send before others have theirs.
const TURN_BYTES: u64 = 2 << 20;

/// A connection as the event loop holds it.
pub(crate) struct Parked {
    pub(crate) socket: TcpStream,
    state: State,
    /// Made with the first call, kept for the connection's life.
    handler: Option<Box<dyn Handler + Send>>,
    pub(crate) ready: Ready,
}

/// Most connections rest most of the time, and those are kept small.
enum State {
    Resting(Resting),
    Busy(Box<Busy>),
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
}

/// A busy connection and the memory that it leases.
pub(crate) struct Busy {
    connection: Connection,
    pub(crate) buffers: Buffers,
    pub(crate) slot: Slot,
    script: Watch,
}

/// What all turns of an event loop share.
pub(crate) struct Shared<'w> {
    pub(crate) service: &'w Service,
    pub(crate) files: &'w Local,
    pub(crate) log: &'w mut Logger,
    pub(crate) now: &'w Now,
    /// Where the loop is told what to wait for.
    pub(crate) registry: &'w Registry,
    /// The number of the connection.
    pub(crate) at: u32,
    /// The server is going down.
    pub(crate) draining: bool,
    /// The bound of going down has passed.
    pub(crate) cut: bool,
}

impl Shared<'_> {
    fn desk(&mut self) -> Desk<'_> {
        Desk {
            files: self.files,
            scripts: &self.service.scripts,
            site: &*self.service.site,
            log: self.log,
            wall: self.now.wall,
        }
    }
}

/// How a turn ended.
pub(crate) enum After {
    /// It waits, until the deadline at the latest.
    Wait { deadline: Option<Tick>, idle: bool },
    /// It has had its share and goes to the back of the queue.
    Again,
    /// It is closed.
    Closed,
}

impl Parked {
    pub(crate) fn new(socket: TcpStream, resting: Resting) -> Parked {
        let ready = Ready { writable: true, needs_read: true, ..Ready::default() };
        Parked { socket, state: State::Resting(resting), handler: None, ready }
    }

    /// Leases what a turn needs, and reads if bytes are what the connection waits for.
    pub(crate) fn wake(&mut self, pool: &mut Pool, files: &Local) {
        if let State::Resting(resting) = self.state {
            let connection = resting.resume();
            self.state = State::Busy(match pool.take() {
                Some(mut busy) => {
                    busy.connection = connection;
                    busy
                }
                None => {
                    Box::new(Busy { connection, buffers: Buffers::new(), slot: Slot::new(), script: Watch::default() })
                }
            });
        }
        if self.ready.needs_read && self.ready.readable {
            self.read(files);
        }
    }

    /// Notes that something has happened to the script; whether the connection waits for it.
    pub(crate) fn script_became_ready(&mut self, role: Role, event: &Event) -> bool {
        match &mut self.state {
            State::Busy(busy) => busy.script.became_ready(role, event),
            State::Resting(_) => false,
        }
    }

    /// Gives back what was leased, if the connection rests now.
    pub(crate) fn rest(&mut self) -> Option<Box<Busy>> {
        let State::Busy(busy) = &self.state else { return None };
        let resting = busy.connection.rest()?;
        match std::mem::replace(&mut self.state, State::Resting(resting)) {
            State::Busy(busy) => Some(busy),
            State::Resting(_) => None,
        }
    }

    /// Gives back what was leased, with the connection.
    pub(crate) fn end(self) -> Option<Box<Busy>> {
        match self.state {
            State::Busy(busy) => Some(busy),
            State::Resting(_) => None,
        }
    }

    /// Reads once into the window, and tells the connection what came.
    fn read(&mut self, files: &Local) {
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

    /// Carries out steps until the connection waits, closes, or has had its share.
    pub(crate) fn turn(&mut self, shared: &mut Shared<'_>) -> After {
        let cx = shared.service.context(shared.now);
        let (mut steps, mut bytes) = (0, 0);
        self.note(Need::default());
        self.tell(shared);
        while steps < TURN_STEPS && bytes < TURN_BYTES {
            steps += 1;
            let Parked { socket, state: State::Busy(busy), handler, ready } = self else { return After::Again };
            let Busy { connection, buffers, slot, script } = &mut **busy;
            match connection.poll(buffers, &cx) {
                Step::Wait(wait) => {
                    if flush(slot, socket, connection, ready) {
                        continue;
                    }
                    if wait.need.write && ready.writable {
                        connection.handle(Input::Writable);
                    } else if wait.need.read && ready.readable {
                        self.read(shared.files);
                    } else if wait.need.script_read && script.output_ready {
                        match slot.read_script(&mut buffers.script) {
                            ScriptRead::Bytes(_) => {}
                            ScriptRead::Blocked => script.output_ready = false,
                            ScriptRead::End => connection.handle(Input::ScriptEof),
                        }
                    } else if wait.need.script_write && script.input_ready {
                        connection.handle(Input::Feedable);
                    } else if script.wait(wait.need, shared.at, slot.script(), shared.registry).is_err() {
                        // The loop cannot hear of it: its time would pass without a word.
                        connection.handle(Input::Broken(Fault::Handler));
                    } else {
                        self.note(wait.need);
                        return After::Wait { deadline: wait.deadline, idle: wait.idle };
                    }
                }
                Step::Close(_) => {
                    if !flush(slot, socket, connection, ready) {
                        return After::Closed;
                    }
                }
                Step::Call(call) => {
                    let caller = Caller { handler, slot, waker: &|| Waker::noop().clone(), service: shared.service };
                    caller.call(call, connection, buffers, &cx);
                    // A handler may change files: what was checked before it is to be checked again.
                    shared.files.arrived();
                }
                Step::Shut => {
                    if !flush(slot, socket, connection, ready) {
                        let desk = &mut shared.desk();
                        slot.carry_out(Step::Shut, socket.as_fd(), desk);
                    }
                }
                step => {
                    match step {
                        Step::Act(_, Action::List { .. }) => steps += LIST_STEPS,
                        Step::Act(_, Action::Spawn(_)) => {
                            steps += SPAWN_STEPS;
                            *script = Watch::spawned();
                        }
                        _ => {}
                    }
                    let desk = &mut shared.desk();
                    let answer = slot.carry_out(step, socket.as_fd(), desk);
                    match &answer {
                        Some(Input::Sent(n)) => bytes += n,
                        Some(Input::Blocked) => ready.writable = false,
                        Some(Input::Fed(n)) => bytes += n,
                        Some(Input::FeedBlocked) => script.input_ready = false,
                        _ => {}
                    }
                    if let Some(input) = answer {
                        connection.handle(input);
                    }
                }
            }
        }
        After::Again
    }

    fn tell(&mut self, shared: &Shared<'_>) {
        if let (State::Busy(busy), true) = (&mut self.state, shared.draining) {
            busy.connection.handle(if shared.cut { Input::Cut } else { Input::Drain });
        }
    }

    fn note(&mut self, need: Need) {
        self.ready.needs_read = need.read;
        self.ready.needs_write = need.write;
    }
}

/// Sends what the slot has batched. `true`: the connection was told something and must be polled again.
fn flush(slot: &mut Slot, socket: &TcpStream, connection: &mut Connection, ready: &mut Ready) -> bool {
    if !slot.has_batch() || !ready.writable {
        // What is not writable was said to be blocked when it became so.
        return false;
    }
    match slot.flush(socket.as_fd()) {
        Flush::Done => false,
        Flush::Blocked => {
            ready.writable = false;
            connection.handle(Input::Blocked);
            true
        }
        Flush::Broken => {
            connection.handle(Input::Broken(Fault::Peer));
            true
        }
    }
}

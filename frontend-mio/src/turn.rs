//! One turn of one connection: carry out its steps until it waits, closes, or has had its share.

use std::sync::Arc;
use std::task::Waker;

use mio::Registry;
use mio::net::TcpStream;
use rustix::fd::AsFd;
use sanserve_core::{Action, Close, Connection, Fault, Input, Need, Now, Step, Wait};
use sanserve_server::{Caller, Desk, Flush, Local, Logger, ScriptRead, Service, Slot};

use crate::alarm::{Bell, Own};
use crate::parked::{Busy, Flags, Parked, Ready, State};
use crate::script::Watch;

/// Steps a turn may take before others have theirs; far more than a request needs.
const TURN_STEPS: u32 = 128;
/// Bytes a turn may send before others have theirs.
const TURN_BYTES: u64 = 2 << 20;

/// What all turns of an event loop share.
pub(crate) struct Shared<'w> {
    pub(crate) service: &'w Service,
    pub(crate) files: &'w Local,
    pub(crate) log: &'w mut Logger,
    pub(crate) now: &'w Now,
    /// Where the loop is told what to wait for.
    pub(crate) registry: &'w Registry,
    /// What wakers ring.
    pub(crate) bell: &'w Arc<Bell>,
    /// The number of the connection.
    pub(crate) at: u32,
    /// Nobody else waits for a turn.
    pub(crate) alone: bool,
    /// The server is about to leave.
    pub(crate) leaving: bool,
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
    /// It waits.
    Wait(Wait),
    /// It has had its share and goes to the back of the queue.
    Again,
    /// It goes on with something that takes far longer than other steps: a script that it is about to run, or the
    /// next part of a listing.
    Slow,
    /// It is closed.
    Closed,
    /// It speaks another protocol from here on.
    Upgraded,
}

impl Parked {
    /// Carries out steps until the connection waits, closes, or has had its share.
    pub(crate) fn turn(&mut self, shared: &mut Shared<'_>) -> After {
        let cx = shared.service.context(shared.now);
        let (mut steps, mut bytes) = (0, 0);
        self.note(Need::default());
        self.tell(shared);
        while steps < TURN_STEPS && bytes < TURN_BYTES {
            steps += 1;
            let Parked { socket, state: State::Busy(busy), handler, ready } = self else { return After::Again };
            let Busy { connection, alarm, buffers, slot, script, in_hand } = &mut **busy;
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
                            ScriptRead::Failed(error) => connection.handle(Input::ScriptFailed(error)),
                        }
                    } else if wait.need.script_write && script.input_ready {
                        connection.handle(Input::Feedable);
                    } else if script.wait(wait.need, shared.at, slot.script(), shared.registry).is_err() {
                        // The loop cannot hear of it: its time would pass without a word.
                        connection.handle(Input::Broken(Fault::Handler));
                    } else {
                        self.note(wait.need);
                        return After::Wait(wait);
                    }
                }
                Step::Close(close) => {
                    if !flush(slot, socket, connection, ready) {
                        // What could not be sent is given up, and who does not get the 101 speaks nothing else.
                        let upgraded = close == Close::Upgraded && !slot.has_batch();
                        return if upgraded { After::Upgraded } else { After::Closed };
                    }
                }
                Step::Call(call) => {
                    let own = || alarm.get_or_init(|| Own::new(shared.bell, shared.at));
                    let waker = || Waker::from(Arc::clone(own()));
                    let caller = Caller { handler, slot, waker: &waker, service: shared.service };
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
                    let finds = matches!(step, Step::Act(_, Action::Find { .. }));
                    let is_slow = step.is_long() || (finds && !shared.alone);
                    let probes = matches!(step, Step::Probe(_));
                    match step {
                        Step::Act(_, Action::Spawn(_)) => {
                            script.end(slot.script(), shared.registry);
                            *script = Watch::spawned();
                        }
                        Step::Finished(_) => {
                            script.end(slot.script(), shared.registry);
                            drop(alarm.take());
                            *in_hand = None;
                        }
                        _ => {}
                    }
                    let desk = &mut shared.desk();
                    let answer = slot.carry_out(step, socket.as_fd(), desk);
                    if probes {
                        // There may be more than was read, and what was read came after the files were looked at.
                        ready.readable = true;
                        shared.files.arrived();
                    }
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
                    if is_slow {
                        return After::Slow;
                    }
                }
            }
        }
        After::Again
    }

    fn tell(&mut self, shared: &Shared<'_>) {
        let State::Busy(busy) = &mut self.state else { return };
        if self.ready.flags.take(Flags::BROKEN) {
            busy.connection.handle(Input::Broken(Fault::Peer));
        }
        if self.ready.flags.take(Flags::WOKEN) {
            busy.connection.handle(Input::Wake);
        }
        if self.ready.flags.take(Flags::LEAVES) {
            busy.connection.handle(Input::Cut);
        }
        if shared.draining {
            if !busy.connection.is_draining() && busy.connection.has_exchange() {
                busy.in_hand = Some(shared.service.draining.hold());
            }
            busy.connection.handle(if shared.cut { Input::Cut } else { Input::Drain });
        } else if shared.leaving {
            busy.connection.handle(Input::Leave);
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

//! The turn of a connection, the same on every frontend.
//!
//! A [`Session`] is a connection and what it has been told. [`Session::turn`] polls the connection and carries out its
//! steps until it waits, closes, calls its handler, or has had its share. How to wait for what it then needs is the
//! frontend's, and so is what wakes the handler. What a busy connection takes in memory is a [`Workspace`], which a
//! frontend may give to another connection while this one is idle.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use sanserve_core::{
    Action, Buffers, Call, Close, Completion, Connection, Context, Fault, Handler, Input, Reply, SpawnError, Step, Wait,
};

use crate::cache::Files;
use crate::lifecycle::{Draining, InProgress, Phase};
use crate::log::Logger;
use crate::script::{ScriptFds, ScriptRead};
use crate::site::Site;
use crate::slot::{Flush, Slot, SlotEnv};
use crate::transport::{Io, Received};

/// A connection, and what it has been told of the server and of its script.
#[derive(Debug)]
pub struct Session {
    /// The protocol.
    pub connection: Connection,
    told: Phase,
    script: ScriptReady,
}

/// What is known of a script's pipes.
#[derive(Clone, Copy, Debug, Default)]
struct ScriptReady {
    /// Bytes, or the end, may be there.
    output: bool,
    /// It may take more.
    input: bool,
}

/// The memory of a busy connection, to be used again for another one.
#[derive(Debug)]
pub struct Workspace {
    /// The connection's buffers.
    pub buffers: Buffers,
    /// What it holds of the system.
    pub slot: Slot,
    /// The exchange in progress counts while the server goes down.
    pub in_progress: Option<InProgress>,
}

impl Workspace {
    /// For connections of this server, which share its memory.
    #[must_use]
    pub fn new(site: &Site) -> Workspace {
        Workspace { buffers: site.buffers(), slot: Slot::new(), in_progress: None }
    }

    /// Lets go of everything that belongs to a connection.
    pub fn clear(&mut self) {
        self.buffers.recycle();
        self.slot.clear();
        self.in_progress = None;
    }
}

/// What a turn takes beside its connection, the same for all connections of a thread.
pub struct Env<'e> {
    /// The server's site.
    pub site: &'e Site,
    /// The rules and the time.
    pub cx: Context<'e>,
    /// Opens files.
    pub files: &'e dyn Files,
    /// Takes the lines of finished exchanges; the frontend flushes it before it waits.
    pub log: &'e mut Logger,
}

impl<'e> Env<'e> {
    /// The environment of a turn by the rules of `site`.
    pub fn new(site: &'e Site, cx: Context<'e>, files: &'e dyn Files, log: &'e mut Logger) -> Env<'e> {
        Env { site, cx, files, log }
    }

    fn env(&mut self) -> SlotEnv<'_> {
        SlotEnv {
            files: self.files,
            scripts: self.site.scripts(),
            policy: self.cx.policy,
            log: self.log,
            wall: self.cx.now.wall,
        }
    }
}

/// How much a turn may do before others have theirs. What is left of it stays for the same turn's next part.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Steps.
    pub steps: u32,
    /// Bytes that go to the peer or to a script. The last step may exceed it.
    pub bytes: u64,
    /// A step that leads to a script counts as one that takes long.
    pub scripts_are_slow: bool,
}

/// How a turn ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The connection waits for this.
    Wait(Wait),
    /// The handler is to be called, or told; then the turn goes on.
    Call(Call),
    /// An exchange has ended whose end [`Frontend::finished`] wanted to know; then the turn goes on.
    Finished,
    /// It has had its share: others first.
    Yield,
    /// It goes on with something that takes far longer than other steps: others first, and one of those at a time.
    Slow,
    /// It is over. [`Close::Upgraded`]: the socket is somebody else's from here on.
    Closed(Close),
}

/// What a frontend attaches to an exchange: what it waits for its script with, and what wakes its handler.
pub trait Frontend {
    /// The descriptors of a script are about to be closed, if there is one.
    fn end_script(&mut self, _fds: Option<ScriptFds<'_>>) {}

    /// The input of a script is about to be closed.
    fn end_script_input(&mut self) {}

    /// A script runs.
    ///
    /// # Errors
    /// If it cannot be waited for: then it is killed, and the peer is told to try again later.
    fn begin_script(&mut self, _fds: ScriptFds<'_>) -> io::Result<()> {
        Ok(())
    }

    /// An exchange has ended with this status, or with 0 if there was none: wakers that were made for it do nothing
    /// from here on. `true`: the turn is to end with [`Turn::Finished`].
    fn finished(&mut self, _status: u16) -> bool {
        false
    }
}

/// Attaches nothing.
impl Frontend for () {}

impl Session {
    /// A connection that has been told nothing.
    #[must_use]
    pub fn new(connection: Connection) -> Session {
        Session { connection, told: Phase::Running, script: ScriptReady::default() }
    }

    /// How far the connection knows the server to be.
    #[must_use]
    pub fn told(&self) -> Phase {
        self.told
    }

    /// Tells the connection how far the server is, once. Whether that was news. An exchange that is in progress while
    /// the server goes down counts from here on.
    pub fn tell(&mut self, space: &mut Workspace, draining: &Draining) -> bool {
        let is_news = self.tell_phase(draining);
        if is_news && self.told == Phase::Draining && self.connection.has_exchange() {
            space.in_progress = Some(draining.hold());
        }
        is_news
    }

    fn tell_phase(&mut self, draining: &Draining) -> bool {
        let phase = draining.phase();
        if phase <= self.told {
            return false;
        }
        self.told = phase;
        self.connection.handle(match phase {
            Phase::Running | Phase::Leaving => Input::Leave,
            Phase::Draining => Input::Drain,
            Phase::Cut => Input::Cut,
        });
        true
    }

    /// The script's output, or its end, may be there; it may take more. Whether the next turn makes use of it is the
    /// connection's to say.
    pub fn script_became_ready(&mut self, output: bool, input: bool) {
        self.script.output |= output;
        self.script.input |= input;
    }

    /// The connection is beyond use. If that is because it was cut, the log is to say so.
    pub fn broken(&mut self, fault: Fault, io: &mut Io<'_>, draining: &Draining) {
        if fault == Fault::Peer {
            if draining.phase() == Phase::Cut && self.tell_phase(draining) {
                return;
            }
            io.transport.was_reset();
        }
        self.connection.handle(Input::Broken(fault));
    }

    /// Reads once and tells the connection what came. Blocks only if the socket does and `waits`. `false`: nothing came.
    pub fn receive(&mut self, buffers: &mut Buffers, io: &mut Io<'_>, env: &Env<'_>, waits: bool) -> bool {
        let received = io.receive(&mut buffers.input, waits);
        self.received(received, io, env)
    }

    /// Tells the connection what came of reading. `false`: nothing did.
    pub fn received(&mut self, received: Received, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        let draining = env.site.draining();
        match received {
            Received::Nothing => return false,
            Received::Bytes(_) => env.files.arrived(),
            // Whoever cuts may do so by shutting the socket.
            Received::End if draining.phase() == Phase::Cut && self.tell_phase(draining) => {}
            Received::End => self.connection.handle(Input::Eof),
            Received::Broken => self.broken(Fault::Peer, io, draining),
        }
        true
    }

    /// Carries out steps until the connection waits, closes, calls its handler, or has had its share.
    pub fn turn(
        &mut self,
        space: &mut Workspace,
        io: &mut Io<'_>,
        frontend: &mut impl Frontend,
        env: &mut Env<'_>,
        budget: &mut Budget,
    ) -> Turn {
        io.transport.wait_for(sanserve_core::Need::default());
        while budget.steps > 0 && budget.bytes > 0 {
            budget.steps -= 1;
            let Workspace { buffers, slot, in_progress } = &mut *space;
            match self.connection.poll(buffers, &env.cx) {
                Step::Wait(wait) => {
                    if self.flush(slot, io, env) && !self.advance(wait, space, io, env) {
                        io.transport.wait_for(wait.need);
                        return Turn::Wait(wait);
                    }
                }
                Step::Close(close) => {
                    if self.flush(slot, io, env) {
                        // What could not be sent is given up, and who does not get the 101 speaks nothing else.
                        let is_lost = close == Close::Upgraded && slot.has_batch();
                        return Turn::Closed(if is_lost { Close::Broken } else { close });
                    }
                }
                Step::Shut => {
                    if self.flush(slot, io, env) {
                        slot.carry_out(Step::Shut, io, &mut env.env());
                    }
                }
                Step::Call(call) => return Turn::Call(call),
                step => {
                    let is_long = step.is_long()
                        || (budget.scripts_are_slow && matches!(step, Step::Act(_, Action::Find { .. })));
                    if let Step::Finished(_) = step {
                        *in_progress = None;
                    }
                    if let Some(turn) = self.carry_out(step, slot, io, frontend, env, budget) {
                        return turn;
                    }
                    if is_long {
                        return Turn::Slow;
                    }
                }
            }
        }
        Turn::Yield
    }

    /// Carries out a step that is answered at once.
    fn carry_out(
        &mut self,
        step: Step<'_>,
        slot: &mut Slot,
        io: &mut Io<'_>,
        frontend: &mut impl Frontend,
        env: &mut Env<'_>,
        budget: &mut Budget,
    ) -> Option<Turn> {
        let (mut is_probe, mut turn) = (false, None);
        match &step {
            Step::Finished(entry) => {
                self.script = ScriptReady::default();
                frontend.end_script(slot.script());
                turn = frontend.finished(entry.status).then_some(Turn::Finished);
            }
            Step::Probe(_) => is_probe = true,
            Step::Act(_, Action::Spawn(_)) => {
                frontend.end_script(slot.script());
                // It has said nothing yet, and its pipe is empty.
                self.script = ScriptReady { output: false, input: true };
            }
            Step::Act(_, Action::EndInput) => frontend.end_script_input(),
            _ => {}
        }
        let mut answer = slot.carry_out(step, io, &mut env.env());
        if let Some(Input::Done(ticket, Completion::Spawned(spawned @ Ok(())))) = &mut answer {
            if let Some(fds) = slot.script() {
                if frontend.begin_script(fds).is_err() {
                    let killed = slot.carry_out(Step::Act(*ticket, Action::Kill), io, &mut env.env());
                    debug_assert_eq!(killed, None);
                    *spawned = Err(SpawnError::Exhausted);
                }
            }
        }
        if is_probe {
            // There may be more than was read, and what was read came after the files were looked at.
            io.transport.was_probed();
            env.files.arrived();
        }
        match answer {
            Some(Input::Broken(fault)) => {
                self.broken(fault, io, env.site.draining());
                return turn;
            }
            Some(Input::Sent(n) | Input::Fed(n)) => budget.bytes = budget.bytes.saturating_sub(n),
            Some(Input::Blocked) => io.transport.became_full(),
            Some(Input::FeedBlocked) => self.script.input = false,
            _ => {}
        }
        if let Some(input) = answer {
            self.connection.handle(input);
        }
        turn
    }

    /// Sends what is batched. `false`: the connection was told something and must be polled again.
    fn flush(&mut self, slot: &mut Slot, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        if !slot.has_batch() || io.transport.is_full() {
            // That it is full was said when it became so.
            return true;
        }
        match slot.flush(io) {
            Flush::Done => return true,
            Flush::Blocked => {
                io.transport.became_full();
                self.connection.handle(Input::Blocked);
            }
            Flush::Broken => self.broken(Fault::Peer, io, env.site.draining()),
        }
        false
    }

    /// Makes use of something that is both needed and possible. `false`: there is no such thing.
    fn advance(&mut self, wait: Wait, space: &mut Workspace, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        let Workspace { buffers, slot, .. } = space;
        let need = wait.need;
        if need.write && !io.transport.is_full() {
            self.connection.handle(Input::Writable);
        } else if need.read && io.transport.is_readable() {
            self.receive(buffers, io, env, false);
        } else if need.script_read && (self.script.output || slot.is_script_over()) {
            self.script.output &= io.transport.is_edge();
            self.read_script(space);
        } else if need.script_write && self.script.input {
            self.connection.handle(Input::Feedable);
        } else {
            return false;
        }
        true
    }

    /// Reads once from the script and tells the connection what came. `false`: nothing came.
    pub fn read_script(&mut self, space: &mut Workspace) -> bool {
        match space.slot.read_script(&mut space.buffers.script) {
            ScriptRead::Bytes(_) => {}
            ScriptRead::Blocked => {
                self.script.output = false;
                return false;
            }
            ScriptRead::End => self.connection.handle(Input::ScriptEof),
            ScriptRead::Failed(error) => self.connection.handle(Input::ScriptFailed(error)),
        }
        true
    }

    /// Sends what is batched without going on, for a handler that waits for it while the connection may not be polled.
    /// `false`: the socket takes no more of it.
    pub fn push(&mut self, slot: &mut Slot, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        self.flush(slot, io, env);
        !slot.has_batch()
    }

    /// What a handler sees of the connection.
    pub fn reply<'r>(&'r mut self, buffers: &'r mut Buffers, cx: &'r Context<'r>) -> Reply<'r> {
        self.connection.reply(buffers, cx)
    }

    /// Calls the portable handler, which is made with the first call. If it panics, that is logged, the connection is
    /// told, and the next exchange gets a new one. `waker` makes what wakes the connection.
    pub fn call(
        &mut self,
        call: Call,
        handler: &mut Option<Box<dyn Handler + Send>>,
        waker: &dyn Fn() -> Waker,
        space: &mut Workspace,
        env: &Env<'_>,
    ) {
        let Session { connection, .. } = self;
        let Workspace { buffers, slot, .. } = space;
        let Env { site, cx, files, .. } = env;
        if call == Call::Over && handler.is_none() {
            // One that has panicked is gone, and no other needs to hear of its end.
            return;
        }
        let called = catch_unwind(AssertUnwindSafe(|| {
            let Some(make) = site.handler_factory() else { return false };
            handler.get_or_insert_with(make).call(call, &mut connection.reply(buffers, cx).with_waker(waker));
            true
        }));
        // It may change files: what was checked before is to be checked again.
        files.arrived();
        let failure = match called {
            Ok(true) => None,
            Ok(false) => Some("a request was routed to a handler, and there is none".to_owned()),
            Err(panic) => {
                *handler = None;
                Some(format!("the handler panicked: {}", panic_message(&*panic)))
            }
        };
        let attached = buffers.take_attached().and_then(|thing| slot.attach(thing));
        match attached.map(|thing| thing.downcast::<Failure>()) {
            Some(Ok(failure)) => {
                site.log().error(format_args!("{:?}: the handler failed: {}", connection.peer(), failure.0))
            }
            // What an upgrade takes along stays where it is.
            Some(Err(thing)) => buffers.attach(thing),
            None => {}
        }
        if let Some(failure) = failure {
            site.log().error(format_args!("{:?}: {failure}", connection.peer()));
            connection.handle(Input::Broken(Fault::Handler));
        }
    }
}

/// What went wrong in a handler, for the log: to be [attached](sanserve_core::Reply::attach) to the answer before
/// it is aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

/// What a panic said.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

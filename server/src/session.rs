//! The turn of a connection, which is the same on every frontend.
//!
//! A [`Session`] is a connection together with its inputs from the server and from a script. [`Session::turn`] polls
//! the connection and carries out its steps until it waits, closes, calls its handler, or has used its budget. The
//! frontend then waits for what the connection needs, and wakes the handler. The memory of a busy connection is its
//! [`Workspace`], which a frontend may reuse for other connections while this one is idle.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use sanserve_core::{
    Action, Buffers, Call, Close, Completion, Connection, Context, Fault, Handler, Input, Peer, Reply, SpawnError,
    Step, Wait,
};

use crate::cache::Files;
use crate::failure::panic_message;
use crate::io_pool::IoPool;
use crate::lifecycle::{Draining, InProgress, Phase};
use crate::log::Logger;
use crate::script_io::{ScriptFds, ScriptRead};
use crate::site::Site;
use crate::slot::{Flush, Slot, SlotEnv};
use crate::transport::{Io, Received};

/// A connection, and its inputs from the server and from a script.
#[derive(Debug)]
pub struct Session {
    /// The protocol.
    pub connection: Connection,
    /// The last phase of the server that was passed to the connection.
    phase: Phase,
    script: ScriptReady,
}

/// The readiness of a script's pipes.
#[derive(Clone, Copy, Debug, Default)]
struct ScriptReady {
    /// Output, or its end, may be available.
    output: bool,
    /// The input may accept more.
    input: bool,
}

/// The buffers and system resources of a busy connection, which can be reused for another one.
#[derive(Debug)]
pub struct Workspace {
    /// The buffers of the core.
    pub buffers: Buffers,
    /// The system resources.
    pub slot: Slot,
    /// Counts the exchange in progress while the server shuts down.
    pub in_progress: Option<InProgress>,
}

impl Workspace {
    /// A workspace for connections of `site`, which counts against its memory limit.
    #[must_use]
    pub fn new(site: &Site) -> Workspace {
        Workspace { buffers: site.buffers(), slot: Slot::new(), in_progress: None }
    }

    /// Frees its memory, for a connection that has been idle for a while and keeps it. It is allocated again when it is
    /// used.
    pub fn free(&mut self) {
        debug_assert!(self.slot.is_empty() && self.in_progress.is_none());
        self.buffers.free();
        self.slot.free();
    }

    /// Releases everything that belongs to a connection.
    pub fn clear(&mut self) {
        self.buffers.recycle();
        self.slot.clear();
        self.in_progress = None;
    }
}

/// What a turn needs in addition to its connection; the same for all connections of a thread.
pub struct Env<'e> {
    /// The site of the server.
    pub site: &'e Site,
    /// The configuration, the policy and the time.
    pub cx: Context<'e>,
    /// Opens files.
    pub files: &'e dyn Files,
    /// The threads that wait for disks. `None`: the turn itself waits.
    pub io: Option<&'e IoPool>,
    /// The log for finished exchanges. The frontend flushes it before it waits.
    pub log: &'e mut Logger,
}

impl<'e> Env<'e> {
    /// The environment of a turn with the configuration of `site`.
    pub fn new(site: &'e Site, cx: Context<'e>, files: &'e dyn Files, log: &'e mut Logger) -> Env<'e> {
        Env { site, cx, files, io: None, log }
    }

    /// Has threads of the site wait for disks, if it has any: for a frontend that wakes a connection with
    /// [`Slot::wake_when_done`].
    #[must_use]
    pub fn with_io_pool(self) -> Env<'e> {
        Env { io: self.site.io_pool(), ..self }
    }

    /// The environment of a step that sends at most `most` bytes of a file.
    fn env(&mut self, most: u64) -> SlotEnv<'_> {
        SlotEnv {
            files: self.files,
            io: self.io,
            scripts: self.site.scripts(),
            policy: self.cx.policy,
            log: self.log,
            wall: self.cx.now.wall,
            most,
        }
    }
}

/// How much a turn may do before other connections have theirs. Each call of [`Session::turn`] consumes a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Steps.
    pub steps: u32,
    /// Bytes sent to the peer or to a script. No more than this is sent of a file; a last step that sends something
    /// else may exceed it.
    pub bytes: u64,
    /// A send of this many bytes ends the turn in any case, for a frontend that reads the clock after it.
    pub large: u64,
    /// Whether starting a script counts as a slow step.
    pub scripts_are_slow: bool,
}

/// How a turn ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The connection waits for this.
    Wait(Wait),
    /// The handler must be called; then the turn continues.
    Call(Call),
    /// An exchange has ended, and [`Frontend::finished`] returned `true`; then the turn continues.
    Finished,
    /// The budget is used up: other connections first.
    Yield,
    /// The next step takes much longer than others: other connections first, and only one such step at a time.
    Slow,
    /// The connection is over. [`Close::Upgraded`]: the socket must be passed on.
    Closed(Close),
}

/// What a frontend keeps for an exchange: how it waits for the script, and what wakes the handler.
pub trait Frontend {
    /// Called before the descriptors of a script are closed, if there is one.
    fn end_script(&mut self, _fds: Option<ScriptFds<'_>>) {}

    /// Called before the input of a script is closed.
    fn end_script_input(&mut self) {}

    /// Called when a script was started.
    ///
    /// # Errors
    /// If the frontend cannot wait for it. The script is then killed, and the peer gets a response that it may try
    /// again later.
    fn begin_script(&mut self, _fds: ScriptFds<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Called when an exchange has ended with this status, or with 0 if there was none. Wakers that were made for it
    /// must have no effect from here on. `true`: the turn ends with [`Turn::Finished`].
    fn finished(&mut self, _status: u16) -> bool {
        false
    }
}

/// Keeps nothing.
impl Frontend for () {}

/// Ends the turn with [`Turn::Finished`] after each exchange.
#[derive(Clone, Copy, Debug)]
pub struct EachExchange;

impl Frontend for EachExchange {
    fn finished(&mut self, _status: u16) -> bool {
        true
    }
}

impl Session {
    /// A session with no inputs yet.
    #[must_use]
    pub fn new(connection: Connection) -> Session {
        Session { connection, phase: Phase::Running, script: ScriptReady::default() }
    }

    /// A session of a new connection with `peer`, which is recorded and traced if the site [says so](Site::observe).
    /// `runtime` is the name of the frontend in recordings.
    #[must_use]
    pub fn begin(peer: Peer, site: &Site, cx: &Context<'_>, runtime: &str) -> Session {
        let mut connection = Connection::new(peer, cx);
        site.observe(&mut connection, cx, runtime);
        Session::new(connection)
    }

    /// The last phase of the server that was passed to the connection.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Passes the phase of the server to the connection, once. Returns whether it has changed. An exchange that is in
    /// progress while the server shuts down is counted from here on.
    pub fn follow_phase(&mut self, space: &mut Workspace, draining: &Draining) -> bool {
        let has_changed = self.pass_phase(draining);
        if has_changed && self.phase == Phase::Draining && self.connection.has_exchange() {
            space.in_progress = Some(draining.hold());
        }
        has_changed
    }

    fn pass_phase(&mut self, draining: &Draining) -> bool {
        let phase = draining.phase();
        if phase <= self.phase {
            return false;
        }
        self.phase = phase;
        self.connection.handle(match phase {
            Phase::Running | Phase::Leaving => Input::Leave,
            Phase::Draining => Input::Drain,
            Phase::Cut => Input::Cut,
        });
        true
    }

    /// Records that the script's output, or its end, may be available, and that its input may accept more. The
    /// connection decides whether the next turn uses that.
    pub fn script_became_ready(&mut self, output: bool, input: bool) {
        self.script.output |= output;
        self.script.input |= input;
    }

    /// Records that the connection has failed, or, if the server has cut it, that.
    pub fn broken(&mut self, fault: Fault, io: &mut Io<'_>, draining: &Draining) {
        if fault == Fault::Peer {
            if draining.phase() == Phase::Cut && self.pass_phase(draining) {
                return;
            }
            io.transport.was_reset();
        }
        self.connection.handle(Input::Broken(fault));
    }

    /// Reads once, and passes the result to the connection. Blocks only if the socket does and `waits` is set.
    /// `false`: nothing has arrived.
    pub fn receive(&mut self, buffers: &mut Buffers, io: &mut Io<'_>, env: &Env<'_>, waits: bool) -> bool {
        self.choose_layer(io, env.site);
        let received = io.receive(&mut buffers.input, waits);
        self.received(received, io, env)
    }

    /// Passes the result of a read to the connection. `false`: nothing has arrived.
    pub fn received(&mut self, received: Received, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        let draining = env.site.draining();
        self.tell_news(io);
        match received {
            Received::Nothing => return false,
            Received::Bytes(_) => env.files.arrived(),
            // A cut may have been done by shutting the socket down.
            Received::End if draining.phase() == Phase::Cut && self.pass_phase(draining) => {}
            Received::End => self.connection.handle(Input::Eof),
            Received::Broken => self.broken(Fault::Peer, io, draining),
        }
        true
    }

    /// In the first turn: the connection learns whether it begins with a handshake.
    #[inline]
    fn choose_layer(&mut self, io: &mut Io<'_>, site: &Site) {
        if let Some(input) = io.transport.choose_layer(site) {
            self.connection.handle(input);
        }
    }

    /// Passes what the layer for TLS has to tell to the connection. Returns whether there was anything.
    #[inline]
    fn tell_news(&mut self, io: &mut Io<'_>) -> bool {
        let mut is_news = false;
        while let Some(input) = io.transport.take_news() {
            self.connection.handle(input);
            is_news = true;
        }
        is_news
    }

    /// Carries out steps until the connection waits, closes, calls its handler, or has used its budget.
    pub fn turn(
        &mut self,
        space: &mut Workspace,
        io: &mut Io<'_>,
        frontend: &mut impl Frontend,
        env: &mut Env<'_>,
        budget: &mut Budget,
    ) -> Turn {
        self.choose_layer(io, env.site);
        io.transport.wait_for(sanserve_core::Need::default());
        space.slot.time_passed();
        while budget.steps > 0 && budget.bytes > 0 {
            budget.steps -= 1;
            let Workspace { buffers, slot, in_progress } = &mut *space;
            match self.connection.poll(buffers, &env.cx) {
                Step::Wait(wait) => {
                    if self.flush(slot, io, env) && !self.advance(wait, space, io, env) {
                        io.transport.wait_for(wait.need);
                        io.transport.rest();
                        return Turn::Wait(wait);
                    }
                }
                Step::Close(close) => {
                    if self.flush(slot, io, env) {
                        // Unsent bytes are discarded, and a peer that did not get the 101 cannot use the other
                        // protocol.
                        let is_lost = close == Close::Upgraded && (slot.has_batch() || io.transport.has_unsent());
                        if !matches!(close, Close::Upgraded | Close::Broken) {
                            io.close();
                        }
                        return Turn::Closed(if is_lost { Close::Broken } else { close });
                    }
                }
                Step::Shut => {
                    if self.flush(slot, io, env) {
                        slot.carry_out(Step::Shut, io, &mut env.env(0));
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

    /// Carries out a step whose result is available immediately.
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
                // The script has no output yet, and its input pipe is empty.
                self.script = ScriptReady { output: false, input: true };
            }
            Step::Act(_, Action::EndInput) => frontend.end_script_input(),
            _ => {}
        }
        let mut answer = slot.carry_out(step, io, &mut env.env(budget.bytes));
        if let Some(Input::Done(ticket, Completion::Spawned(spawned @ Ok(())))) = &mut answer {
            if let Some(fds) = slot.script() {
                if frontend.begin_script(fds).is_err() {
                    let killed = slot.carry_out(Step::Act(*ticket, Action::Kill), io, &mut env.env(0));
                    debug_assert_eq!(killed, None);
                    *spawned = Err(SpawnError::Exhausted);
                }
            }
        }
        if is_probe {
            self.tell_news(io);
            // There may be more bytes than were read, and those that were read arrived after the files were checked.
            io.transport.was_probed();
            env.files.arrived();
        }
        match answer {
            Some(Input::Broken(fault)) => {
                self.broken(fault, io, env.site.draining());
                return turn;
            }
            Some(Input::Sent(n) | Input::Fed(n)) => {
                let spent = if n < budget.large { n } else { budget.bytes };
                budget.bytes = budget.bytes.saturating_sub(spent);
            }
            Some(Input::Blocked) => io.transport.became_full(),
            Some(Input::FeedBlocked) => self.script.input = false,
            _ => {}
        }
        if let Some(input) = answer {
            self.connection.handle(input);
        }
        turn
    }

    /// Sends the batch. `false`: the connection has a new input and must be polled again.
    fn flush(&mut self, slot: &mut Slot, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        if self.tell_news(io) {
            return false;
        }
        if !(slot.has_batch() || io.transport.has_unsent()) || io.transport.is_full() {
            // The connection already has the input `Blocked`.
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

    /// Does something that is both needed and possible. `false`: there is nothing.
    fn advance(&mut self, wait: Wait, space: &mut Workspace, io: &mut Io<'_>, env: &mut Env<'_>) -> bool {
        let Workspace { buffers, slot, .. } = space;
        let need = wait.need;
        if need.completion {
            if let Some(input) = slot.take_done(&env.env(u64::MAX)) {
                self.connection.handle(input);
                return true;
            }
        }
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

    /// Reads once from the script, and passes the result to the connection. `false`: nothing has arrived.
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

    /// Sends the batch without polling, for a handler that waits for it while the connection must not be polled.
    /// `false`: the socket is full.
    pub fn push(&mut self, slot: &mut Slot, io: &mut Io<'_>, env: &Env<'_>) -> bool {
        self.flush(slot, io, env);
        !slot.has_batch() && !io.transport.has_unsent()
    }

    /// The handler's view of the connection.
    pub fn reply<'r>(&'r mut self, buffers: &'r mut Buffers, cx: &'r Context<'r>) -> Reply<'r> {
        self.connection.reply(buffers, cx)
    }

    /// Calls the portable handler, which is made at the first call. If it panics, that is logged, the exchange is
    /// aborted, and the next exchange gets a new handler. `waker` makes the waker of the connection.
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
            // A handler that has panicked was dropped, and no other needs to be notified of the end.
            return;
        }
        let is_sending = connection.is_sending_file();
        let called = catch_unwind(AssertUnwindSafe(|| {
            let Some(make) = site.handler_factory() else { return false };
            handler.get_or_insert_with(|| make()).drive(call, &mut connection.reply(buffers, cx).with_waker(waker));
            true
        }));
        // The handler may modify files, so that earlier checks are no longer valid.
        files.arrived();
        let mut failure = match called {
            Ok(true) => None,
            Ok(false) => Some("a request was routed to a handler, and there is none".to_owned()),
            Err(panic) => {
                *handler = None;
                Some(format!("the handler panicked: {}", panic_message(&*panic)))
            }
        };
        // The rest of a part is of the file that it began with; the next call comes when it has been sent.
        let file = if is_sending { None } else { buffers.take_file() };
        match file.map(|file| file.downcast::<File>()) {
            Some(Ok(file)) => slot.attach(file),
            Some(Err(_)) => {
                failure = failure.or(Some("the handler attached a file that is no std::fs::File".to_owned()))
            }
            None => {}
        }
        if let Some(failure) = failure {
            connection.reply(buffers, cx).note_failure(failure);
            connection.handle(Input::Broken(Fault::Handler));
        }
    }
}

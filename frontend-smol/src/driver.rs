//! One connection as a task: the loop that polls the core, carries out its steps, and waits.
//!
//! [`Driver::turn`] runs the core until it has nothing to do, and never waits. [`Driver::poll_wait`] waits for what
//! the core then needs, and passes it in. All state is in the driver, so that either its task or the handler that
//! runs in that task can continue (`handler_task`).
//!
//! A socket is registered with the reactor only when it is waited for, so a connection whose request has already
//! arrived, and that ends after the response, is never registered. A read that did not fill the buffer has emptied
//! the socket, so the next read waits without trying.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use sanserve_core::{Close, Fault, Handler, Input, Misuse, Need, Peer, Reply, RequestBuf, Tick, Wait};
use sanserve_os::{Clock, is_reset};
use sanserve_server::{
    Budget, Env, Files as _, Frontend, Io, Phase, PutAway, ScriptFds, Secure, Session, Site, Transport, Turn, Upgraded,
    Workspace,
};

use crate::lane::{Lane, Pass};
use crate::pool::{Lease, MAX_POOLED, Pool};
use crate::runner;
use crate::script::Pipes;
use crate::socket::Socket;
use crate::turn_cache::TurnFiles;
use crate::wake_flag::WakeFlag;
use crate::watch::{DeadlineHandle, UpgradedPlace, Watch};

/// The most steps of a turn.
const TURN_STEPS: u32 = 256;

/// How often a connection that waits for neither side of its socket checks it, in milliseconds.
const LOOK: u64 = 1_000;

/// The most bytes sent in the turn of a connection that has something new: a file of a megabyte with its head. In
/// several pieces it would take half as much processor time again.
const FRESH_BYTES: u64 = (1 << 20) + 64 * 1024;

/// The most bytes sent in the turn of a connection that continues a transfer.
const BULK_BYTES: u64 = 512 * 1024;

pub(crate) struct Driver {
    pub(crate) session: Session,
    socket: Socket,
    transport: Transport,
    deadline: DeadlineHandle,
    pub(crate) shared: Arc<Shared>,
    /// The state shared with the handler, since the first call.
    pub(crate) handler_task: Option<Box<HandlerTask>>,
    /// The buffers and other memory of a busy connection.
    pub(crate) lease: Option<Box<Lease>>,
    /// What is kept instead of it while the connection waits for its handler or its peer, and holds little.
    ///
    /// Invariant: there is only one of the two.
    aside: Option<Box<SetAside>>,
    /// The wait in progress, unless a turn is due.
    waiting: Option<Waiting>,
}

/// Invariant: an idle connection is cheap.
// The transport is larger if another crate turns TLS on, whatever the features of this one are.
const _: () = assert!(size_of::<Driver>() <= 360 + size_of::<Transport>());

/// The part of a lease that is kept when it is given back during an exchange.
struct SetAside {
    put_away: PutAway,
    wake_flag: Option<Arc<WakeFlag>>,
    /// The connection's place in a queue.
    pass: Option<Pass>,
}

/// The lease with what was set aside of it, or a fresh one.
fn hold<'l>(
    lease: &'l mut Option<Box<Lease>>,
    aside: &mut Option<Box<SetAside>>,
    session: &mut Session,
    shared: &Shared,
) -> &'l mut Lease {
    let lease = lease.get_or_insert_with(|| shared.pool.lease(&shared.site, &shared.clock));
    if let Some(aside) = aside.take() {
        let SetAside { put_away, wake_flag, pass } = *aside;
        session.take_out(put_away, &mut lease.space);
        lease.wake_flag = wake_flag;
        lease.pass = pass;
    }
    lease
}

/// A wait in progress. Its deadline is in the handle of the watch.
#[derive(Clone, Copy)]
struct Waiting {
    need: Need,
    idle: bool,
    /// The wake-up of the task is arranged.
    asked: bool,
}

/// A handler as its connection sees it. The public [`Handler`](crate::Handler) is built on this.
pub(crate) trait Erased: Send {
    fn handle<'h>(&'h mut self, driver: &'h Mutex<Driver>, request: RequestBuf) -> HandlerFuture<'h>;
}

/// The future of a handler.
pub(crate) type HandlerFuture<'h> = Pin<Box<dyn Future<Output = Result<(), Box<Failed>>> + Send + 'h>>;

/// The error of a handler, with the line of the request, which is dropped with the handler's future.
pub(crate) struct Failed {
    pub(crate) error: io::Error,
    pub(crate) line: Vec<u8>,
}

/// Makes the handler of a connection.
pub(crate) type Make = Box<dyn Fn() -> Box<dyn Erased> + Send + Sync>;

/// The state that the tasks of a server share.
pub(crate) struct Shared {
    pub(crate) watch: Arc<Watch>,
    pub(crate) site: Arc<Site>,
    /// Makes asynchronous handlers, which take precedence over the site's.
    pub(crate) make: Option<Make>,
    pub(crate) files: sanserve_server::Shared,
    pub(crate) pool: Pool,
    /// The queue of tasks with long steps.
    pub(crate) slow: Arc<Lane>,
    /// The queue of tasks that continue a transfer that one turn was not enough for.
    pub(crate) bulk: Arc<Lane>,
    pub(crate) clock: Clock,
}

/// The state that a connection and its handler share.
#[derive(Default)]
pub(crate) struct HandlerTask {
    /// The portable handler, if the site has one. Made at the first call.
    pub(crate) portable: Option<Box<dyn Handler + Send>>,
    /// The asynchronous handler, while it is not running. Made at the first request.
    pub(crate) handler: Option<Box<dyn Erased>>,
    pub(crate) stage: Stage,
    /// The exchange has ended before the response was complete, so the handler is dropped.
    pub(crate) died: bool,
    /// The next request for the handler has arrived.
    pub(crate) next: bool,
    /// The connection is closed, or is no longer HTTP.
    pub(crate) closed: bool,
    /// The peer had closed its side when the exchange ended.
    pub(crate) ended_early: bool,
    /// The status of the response.
    pub(crate) status: u16,
    /// The handler got an error because the request's body is broken, so its own failure is not its fault.
    pub(crate) is_body_broken: bool,
    /// The tasks that wait to read the body, and to write.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// The writer waits until everything is sent.
    pub(crate) flushes: bool,
    /// The result of an upgrade, for which the handler waits.
    pub(crate) upgraded: Option<io::Result<crate::upgrade::Upgraded>>,
}

/// The state of the handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The handler is not running.
    #[default]
    Idle,
    /// The handler is processing the current exchange.
    Active,
    /// The exchange is over, or no longer the handler's, but the handler has not returned yet.
    Over,
}

/// The parts of its task that an exchange uses.
struct Attached<'a> {
    script: &'a mut Option<Pipes>,
    wake_flag: &'a mut Option<Arc<WakeFlag>>,
    handler_task: Option<&'a mut HandlerTask>,
}

impl Frontend for Attached<'_> {
    fn end_script(&mut self, _fds: Option<ScriptFds<'_>>) {
        *self.script = None;
    }

    fn end_script_input(&mut self) {
        self.script.iter_mut().for_each(Pipes::end_input);
    }

    fn begin_script(&mut self, fds: ScriptFds<'_>) -> io::Result<()> {
        *self.script = Some(Pipes::new(fds)?);
        Ok(())
    }

    fn finished(&mut self, status: u16) -> bool {
        *self.wake_flag = None;
        self.handler_task.as_deref_mut().is_some_and(|handler_task| handler_task.finished(status))
    }
}

/// What the driver cannot do by itself.
pub(crate) enum Event {
    /// The handler must be called, or the event that it waits for has happened.
    Call,
    /// The connection is over.
    Over(Close),
}

/// Locks the driver, for its task and for the handler that runs in it. Neither ever waits for the other.
pub(crate) fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(crate) fn new(socket: OwnedFd, peer: Peer, deadline: DeadlineHandle, shared: &Arc<Shared>) -> Driver {
        let now = shared.clock.now();
        let cx = shared.site.context(&now);
        let session = Session::begin(peer, &shared.site, &cx, "smol");
        let mut transport = Transport::edge_triggered();
        // The request may have arrived already.
        transport.became_readable();
        Driver {
            session,
            socket: Socket::Bare(socket),
            transport,
            deadline,
            shared: Arc::clone(shared),
            handler_task: None,
            lease: None,
            aside: None,
            waiting: None,
        }
    }

    /// Drives the connection until it is over or the handler must be called.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.deadline.set_waker(cx.waker());
        loop {
            if let Some(waiting) = self.waiting {
                if let Err(error) = ready!(self.poll_wait(cx)) {
                    // The reactor is out of memory or watches.
                    self.shared.site.log().error(format_args!("cannot wait for a connection: {error}"));
                    return Poll::Ready(Event::Over(Close::Broken));
                }
                self.waiting = None;
                if waiting.need.write && !waiting.need.read && !self.transport.is_full() {
                    // There is room for more of a transfer.
                    self.enter_bulk(cx);
                }
            }
            self.deadline.is_busy();
            // After another wake-up it continues to wait, unless all connections are cut.
            let pass = match (&self.aside, &self.lease) {
                (Some(aside), _) => aside.pass.as_ref(),
                (None, lease) => lease.as_ref().and_then(|lease| lease.pass.as_ref()),
            };
            if pass.is_some_and(|pass| !pass.is_granted()) && !self.is_cut() {
                return Poll::Pending;
            }
            let bytes = if pass.is_some() { BULK_BYTES } else { FRESH_BYTES };
            let turn = self.turn(cx.waker(), bytes);
            let Driver { shared, lease, .. } = &mut *self;
            if let Some(lease) = lease {
                if lease.pass.take().is_some() {
                    runner::takes_long();
                }
                if turn == Turn::Slow {
                    lease.pass = Some(shared.slow.enter(cx.waker()));
                }
            }
            match turn {
                Turn::Wait(wait) => self.begin_wait(wait),
                Turn::Yield => {
                    self.enter_bulk(cx);
                    // However many continue a transfer, only so many keep their leases until their next turn.
                    if self.shared.bulk.len() > MAX_POOLED {
                        self.set_aside();
                    }
                    return Poll::Pending;
                }
                Turn::Slow => return Poll::Pending,
                Turn::Call(_) | Turn::Finished => return Poll::Ready(Event::Call),
                Turn::Closed(close) => return Poll::Ready(Event::Over(close)),
            }
        }
    }

    /// Begins to wait, unless the peer has reset the connection and no event would tell that.
    fn begin_wait(&mut self, Wait { need, deadline, idle }: Wait) {
        let now = self.lease.as_deref().map_or(Tick(0), |lease| lease.now.tick);
        match self.session.connection.unfinished_since() {
            Some(since) => self.deadline.is_unfinished(since),
            None if idle => self.deadline.idles(now),
            None => {}
        }
        let blind = !need.read && !need.write;
        if blind && is_reset(self.socket.as_fd()) {
            return self.broken();
        }
        // There would be no event for a disconnect, so the socket is checked regularly.
        let look = blind.then(|| now.after(LOOK));
        if let Some(deadline) = [deadline, look].into_iter().flatten().min() {
            self.deadline.arm(deadline, now);
        }
        self.waiting = Some(Waiting { need, idle, asked: false });
    }

    /// Queues the connection behind others that continue a transfer.
    fn enter_bulk(&mut self, cx: &Context<'_>) {
        let Driver { session, shared, lease, aside, .. } = self;
        let pass = Some(shared.bulk.enter(cx.waker()));
        match aside {
            Some(aside) => aside.pass = pass,
            None => hold(lease, aside, session, shared).pass = pass,
        }
    }

    /// Accesses the handler's view of the connection, while the exchange belongs to the handler.
    ///
    /// # Errors
    /// Those of `act`, and [`Misuse::ExchangeEnded`].
    pub(crate) fn reply<T>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> Result<T, Misuse>) -> Result<T, Misuse> {
        // This may change what the connection waits for.
        self.waiting = None;
        self.inspect(act).unwrap_or(Err(Misuse::ExchangeEnded))
    }

    /// Like [`reply`](Self::reply), for actions that cannot fail. Does nothing if the exchange is over.
    pub(crate) fn modify(&mut self, act: impl FnOnce(&mut Reply<'_>)) {
        self.waiting = None;
        let _ = self.inspect(act);
    }

    /// Like [`reply`](Self::reply), for reading only.
    pub(crate) fn inspect<T>(&mut self, see: impl FnOnce(&mut Reply<'_>) -> T) -> Option<T> {
        if self.handler_task.as_deref()?.stage != Stage::Active {
            return None;
        }
        if self.aside.is_some() {
            let lease = hold(&mut self.lease, &mut self.aside, &mut self.session, &self.shared);
            self.shared.clock.read(&mut lease.now);
        }
        let lease = self.lease.as_deref_mut()?;
        let cx = self.shared.site.context(&lease.now);
        Some(see(&mut self.session.reply(&mut lease.space.buffers, &cx)))
    }

    /// Processes a wake-up for the connection. Call it before any other action on the connection, because a new wait
    /// would not report the event that ended this one.
    pub(crate) fn wake_up(&mut self, cx: &mut Context<'_>) {
        // An error is reported again by the next wait.
        if self.is_waiting() && self.poll_wait(cx).is_ready() {
            self.waiting = None;
        }
    }

    /// Whether the task will be woken for the connection, and there is nothing to do until then.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some_and(|waiting| waiting.asked)
    }

    /// Sends the batch while the core must not be polled.
    pub(crate) fn push_out(&mut self, cx: &mut Context<'_>) {
        self.with_env(|session, space, _, env| session.follow_phase(space, env.site.draining()));
        loop {
            if self.waiting.is_some() && self.poll_wait(cx).is_pending() {
                return;
            }
            self.waiting = None;
            if !self.is_held_back() {
                return;
            }
            let is_out = self.with_env(|session, space, io, env| {
                env.log.flush();
                session.push(&mut space.slot, io, env)
            });
            if is_out {
                return;
            }
            let need = Need { write: true, ..Need::default() };
            self.waiting = Some(Waiting { need, idle: false, asked: false });
        }
    }

    /// Whether bytes that count as sent wait for the socket.
    fn is_held_back(&self) -> bool {
        self.transport.has_unsent() || self.lease.as_deref().is_some_and(|lease| lease.space.slot.has_batch())
    }

    /// Whether all written bytes were sent.
    pub(crate) fn is_all_out(&mut self) -> bool {
        !self.is_held_back() && !self.inspect(|reply| reply.has_unsent()).unwrap_or(false)
    }

    /// Whether the server is shutting down.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.site.draining().phase() >= Phase::Draining
    }

    /// Whether the server cuts all connections.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.site.draining().phase() == Phase::Cut
    }

    /// Takes the socket of a connection that is over, and the bytes read after the last request.
    pub(crate) fn take_socket(&mut self) -> (Socket, Vec<u8>, Option<Secure>) {
        let read = self.lease.as_deref().map(|lease| lease.space.buffers.input.unread().to_vec());
        let secure = self.transport.take_secure();
        (mem::replace(&mut self.socket, Socket::Lost), read.unwrap_or_default(), secure)
    }

    /// Passes the socket to the site's hook for upgrades.
    pub(crate) fn hand_over(&mut self) {
        let state = self.lease.as_deref_mut().and_then(|lease| lease.space.buffers.take_upgrade_state());
        let peer = self.session.connection.peer();
        let (socket, read, secure) = self.take_socket();
        let draining = self.shared.site.draining().clone();
        let upgraded = socket.into_blocking();
        let upgraded = upgraded.map(|stream| Upgraded::new(stream, read, peer, state, draining).with_secure(secure));
        let site = &self.shared.site;
        match upgraded {
            Ok(upgraded) if site.takes_upgrades() => {
                site.hand_over(upgraded, UpgradedPlace::take(&self.shared.watch));
            }
            Ok(_) => {}
            Err(error) => site.log().error(format_args!("cannot hand over a connection: {error}")),
        }
    }
}

/// A turn.
impl Driver {
    /// Runs until the connection waits or closes, or others should have their turn. `waker` wakes the task.
    fn turn(&mut self, waker: &Waker, bytes: u64) -> Turn {
        let Driver { session, socket, transport, shared, handler_task, lease, aside, .. } = self;
        let Shared { site, files, clock, make, .. } = &**shared;
        let Lease { space, script, wake_flag, log, recent, now, .. } = hold(lease, aside, session, shared);
        let files = TurnFiles::new(files, recent);
        clock.read(now);
        session.follow_phase(space, site.draining());
        let io = &mut transport.over(socket.as_fd());
        let env = &mut Env::new(site, site.context(now), &files, log).with_io_pool();
        let mut budget = Budget { steps: TURN_STEPS, bytes, large: u64::MAX, scripts_are_slow: true };
        loop {
            let mut attached = Attached { script, wake_flag, handler_task: handler_task.as_deref_mut() };
            match session.turn(space, io, &mut attached, env, &mut budget) {
                Turn::Call(call) if make.is_some() => {
                    files.arrived();
                    if handler_task
                        .get_or_insert_default()
                        .concerns_handler(call, &session.reply(&mut space.buffers, &env.cx))
                    {
                        return Turn::Call(call);
                    }
                }
                Turn::Call(call) => {
                    let handler = &mut handler_task.get_or_insert_default().portable;
                    let wake_flag = RefCell::new(&mut *wake_flag);
                    let waker = &|| WakeFlag::waker(&mut wake_flag.borrow_mut(), waker);
                    session.call(call, handler, waker, space, env);
                }
                turn => {
                    if let Turn::Wait(_) = turn {
                        env.log.flush();
                    }
                    return turn;
                }
            }
        }
    }

    /// Accesses the connection between its turns.
    fn with_env<R>(&mut self, act: impl FnOnce(&mut Session, &mut Workspace, &mut Io<'_>, &mut Env<'_>) -> R) -> R {
        let Driver { session, socket, transport, shared, lease, aside, .. } = self;
        let Shared { site, files, .. } = &**shared;
        let Lease { space, log, now, .. } = hold(lease, aside, session, shared);
        let env = &mut Env::new(site, site.context(now), files, log);
        act(session, space, &mut transport.over(socket.as_fd()), env)
    }

    /// Records that the connection has failed.
    fn broken(&mut self) {
        self.with_env(|session, _, io, env| session.broken(Fault::Peer, io, env.site.draining()));
    }

    /// Gives the lease back during an exchange, if the connection holds little.
    fn set_aside(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        if let Some(put_away) = self.session.put_away(&mut lease.space) {
            self.aside =
                Some(Box::new(SetAside { put_away, wake_flag: lease.wake_flag.take(), pass: lease.pass.take() }));
            self.give_back();
        }
    }

    /// Returns the lease, if there is one.
    pub(crate) fn give_back(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.script = None;
            lease.wake_flag = None;
            lease.pass = None;
            lease.space.clear();
            self.shared.pool.give_back(lease);
        }
    }
}

/// Waiting.
impl Driver {
    /// Waits for an event that the next turn passes to the core.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = &mut self.waiting {
            let Waiting { need, idle, asked } = *waiting;
            waiting.asked = !asked;
            let is_done = need.completion && self.is_disk_done(cx);
            if is_done
                || self.shared.site.draining().phase() != self.session.phase()
                || self.is_woken()
                || self.leaves()
            {
                break;
            }
            if !asked {
                if idle {
                    self.give_back();
                }
                if self.await_event(need, cx)?.is_pending() {
                    if (need.handler || need.write) && !need.completion {
                        self.set_aside();
                    }
                    return Poll::Pending;
                }
                self.waiting = Some(Waiting { need, idle, asked: false });
            } else if self.deadline.is_due(self.shared.clock.tick()) {
                // `async-io` is not asked for the event: it does not report an event that another thread was already
                // waiting for, and would wait for a new one.
                break;
            }
            // Not `||`: each of the two that is needed is tried.
            if (need.read && self.receive())
                | (need.write && self.transport.became_writable())
                | (need.script_read && self.with_env(|session, space, _, _| session.read_script(space)))
                | need.script_write
            {
                self.session.script_became_ready(false, need.script_write);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a thread has done what the connection waits for; if not, the task is woken when it has.
    fn is_disk_done(&self, cx: &Context<'_>) -> bool {
        self.lease.as_deref().is_some_and(|lease| lease.space.slot.wake_when_done(cx.waker()))
    }

    /// Whether the connection must be closed to make room for another. The core gets an input for that, unless bytes
    /// of the peer have arrived.
    fn leaves(&mut self) -> bool {
        let leaves = self.deadline.leaves();
        if leaves {
            if self.receive() {
                self.deadline.stays();
            } else {
                self.session.connection.handle(Input::Cut);
            }
        }
        leaves
    }

    /// Whether the handler was woken. If so, the core gets an input for it.
    fn is_woken(&mut self) -> bool {
        let wake_flag = match (&self.lease, &self.aside) {
            (Some(lease), _) => lease.wake_flag.as_ref(),
            (None, aside) => aside.as_ref().and_then(|aside| aside.wake_flag.as_ref()),
        };
        let nudged = wake_flag.is_some_and(|wake_flag| wake_flag.take());
        if nudged {
            self.session.connection.handle(Input::Wake);
        }
        nudged
    }

    /// Arranges that the task is woken. `Ready`: trying may already succeed.
    fn await_event(&mut self, need: Need, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.register()?;
        // An immediate `Ready` is the event that ended an earlier wait. When polled again, `async-io` waits for a new
        // event, which it also reports if the socket is already ready.
        if need.read && socket.poll_readable(cx)?.is_ready() && socket.poll_readable(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if need.write && socket.poll_writable(cx)?.is_ready() && socket.poll_writable(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if need.script_read || need.script_write {
            let pipes = self.lease.as_deref().and_then(|lease| lease.script.as_ref());
            match pipes {
                Some(pipes) if !pipes.wait(need, cx)? => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
        Poll::Pending
    }

    /// Reads available bytes. `false`: there are none.
    fn receive(&mut self) -> bool {
        self.with_env(|session, space, io, env| session.receive(&mut space.buffers, io, env, false))
    }
}

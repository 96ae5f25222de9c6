//! One connection as a task: the loop that polls the core, obeys it and waits.
//!
//! [`Driver::turn`] runs the core until it has nothing to do; it never waits. [`Driver::poll_wait`] waits
//! for what the core then needs, and hands it in. All that they remember is in the driver, so that
//! whoever has it can go on: its task, or the handler that runs in that task ([`talk`]).
//!
//! A socket is registered with the reactor only when it is waited for, so a connection that brings its
//! request along and ends after the answer never is. A read that did not fill the room has emptied
//! the socket, so the next one waits without trying.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use sanserve_core::{Close, Connection, Fault, Input, Misuse, Need, Peer, Reply, Tick, Wait};
use sanserve_os::is_reset;
use sanserve_server::{
    Budget, Env, Files as _, Frontend, Io, Phase, ScriptFds, Session, Transport, Turn, Upgraded, Workspace,
};
use smol::Executor;
use smol::future::FutureExt as _;

use crate::Shared;
use crate::handler_task::{self, HandlerTask, Stage};
use crate::lane::Pass;
use crate::pool::Lease;
use crate::script::Pipes;
use crate::socket::Socket;
use crate::turn_cache::TurnFiles;
use crate::wake_flag::WakeFlag;
use crate::watch::DeadlineHandle;

/// Steps of one turn.
const TURN_STEPS: u32 = 256;

/// Milliseconds after which a connection that waits for neither side of its socket looks at it.
const LOOK: u64 = 1_000;

/// Bytes sent in one turn; the last step may exceed it.
const TURN_BYTES: u64 = 1 << 20;

pub(crate) struct Driver {
    pub(crate) session: Session,
    socket: Socket,
    transport: Transport,
    deadline: DeadlineHandle,
    pub(crate) shared: Arc<Shared>,
    /// What the connection and its handler know of each other, since the first call.
    pub(crate) talk: Option<Box<HandlerTask>>,
    /// Held while busy.
    pub(crate) lease: Option<Box<Lease>>,
    /// What is waited for, unless a turn is due.
    waiting: Option<Waiting>,
    /// Its place among those that go on with something that takes long.
    pass: Option<Pass>,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Driver>() <= 368);

/// A wait that is under way. Its deadline is the seat's.
#[derive(Clone, Copy)]
struct Waiting {
    need: Need,
    idle: bool,
    /// It was seen to that the task is woken.
    asked: bool,
}

/// What an exchange has of its task.
struct Attached<'a> {
    script: &'a mut Option<Pipes>,
    wake_flag: &'a mut Option<Arc<WakeFlag>>,
    talk: Option<&'a mut HandlerTask>,
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
        self.talk.as_deref_mut().is_some_and(|talk| talk.finished(status))
    }
}

/// What the driver cannot do alone.
pub(crate) enum Event {
    /// The handler is called, or what it waits for has happened.
    Call,
    /// The connection is over.
    Over(Close),
}

/// The driver, for its task and for the handler that runs in it. They never wait for each other.
pub(crate) fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, deadline: DeadlineHandle, shared: &Arc<Shared>) -> Driver {
        let now = shared.clock.now();
        let cx = shared.site.context(&now);
        let mut connection = Connection::new(Peer::from(peer), &cx);
        shared.site.observe(&mut connection, &cx, "smol");
        let mut transport = Transport::edge_triggered();
        // It may have brought its request along.
        transport.became_readable();
        Driver {
            session: Session::new(connection),
            socket: Socket::Bare(stream),
            transport,
            deadline,
            shared: Arc::clone(shared),
            talk: None,
            lease: None,
            waiting: None,
            pass: None,
        }
    }

    /// Makes it a task.
    pub(crate) fn spawn(self, executor: &Executor<'_>) {
        let task = async move {
            let shared = Arc::clone(&self.shared);
            let peer = self.session.connection.peer();
            let mut driver = Mutex::new(self);
            // A policy that panics, or a bug, ends its connection and nothing else.
            if let Err(panic) = AssertUnwindSafe(drive(&mut driver)).catch_unwind().await {
                shared.site.log_panic(peer, &*panic);
            }
        };
        executor.spawn(task).detach();
    }

    /// Drives the connection until it is over or there is something for the handler.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.deadline.sit(cx.waker());
        loop {
            if self.waiting.is_some() {
                if let Err(error) = ready!(self.poll_wait(cx)) {
                    // The reactor is out of memory or of watches.
                    self.shared.site.log().error(format_args!("cannot wait for a connection: {error}"));
                    return Poll::Ready(Event::Over(Close::Broken));
                }
                self.waiting = None;
            }
            self.deadline.is_busy();
            // Who is woken by something else goes on waiting, unless all is to end.
            if self.pass.as_ref().is_some_and(|pass| !pass.is_granted()) && !self.is_cut() {
                return Poll::Pending;
            }
            let turn = self.turn(cx.waker());
            self.pass = None;
            match turn {
                Turn::Wait(Wait { need, deadline, idle }) => {
                    let now = self.lease.as_deref().map_or(Tick(0), |lease| lease.now.tick);
                    match self.session.connection.unfinished_since() {
                        Some(since) => self.deadline.is_unfinished(since),
                        None if idle => self.deadline.idles(now),
                        None => {}
                    }
                    let blind = !need.read && !need.write;
                    if blind && is_reset(self.socket.as_fd()) {
                        self.broken();
                        continue;
                    }
                    // Nothing would tell that the peer has gone, so it is looked at now and then.
                    let look = blind.then(|| now.after(LOOK));
                    if let Some(deadline) = [deadline, look].into_iter().flatten().min() {
                        self.deadline.arm(deadline, now);
                    }
                    self.waiting = Some(Waiting { need, idle, asked: false });
                }
                Turn::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Slow => {
                    self.pass = Some(self.shared.lane.enter(cx.waker()));
                    return Poll::Pending;
                }
                Turn::Call(_) | Turn::Finished => return Poll::Ready(Event::Call),
                Turn::Closed(close) => return Poll::Ready(Event::Over(close)),
            }
        }
    }

    /// The handler's view of the connection, while the exchange is the handler's.
    ///
    /// # Errors
    /// Those of `act`, and [`Misuse::ExchangeEnded`].
    pub(crate) fn reply<T>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> Result<T, Misuse>) -> Result<T, Misuse> {
        // Whatever it does may change what is waited for.
        self.waiting = None;
        self.look(act).unwrap_or(Err(Misuse::ExchangeEnded))
    }

    /// The same, for what cannot fail, and does nothing where the exchange is over.
    pub(crate) fn tell(&mut self, act: impl FnOnce(&mut Reply<'_>)) {
        self.waiting = None;
        let _ = self.look(act);
    }

    /// The same, for what changes nothing.
    pub(crate) fn look<T>(&mut self, see: impl FnOnce(&mut Reply<'_>) -> T) -> Option<T> {
        let talk = self.talk.as_deref()?;
        let lease = self.lease.as_deref_mut().filter(|_| talk.stage == Stage::Speaking)?;
        let cx = self.shared.site.context(&lease.now);
        Some(see(&mut self.session.reply(&mut lease.space.buffers, &cx)))
    }

    /// What a wake-up means for the connection. To be asked before anything else is done with it: a wait that is
    /// begun anew would not be told of what has woken this one.
    pub(crate) fn wake_up(&mut self, cx: &mut Context<'_>) {
        // An error comes again when the wait does.
        if self.is_waiting() && self.poll_wait(cx).is_ready() {
            self.waiting = None;
        }
    }

    /// Whether the task will be woken for the connection, and nothing is to be done until then.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some_and(|waiting| waiting.asked)
    }

    /// Sends what is batched while the core must not go on.
    pub(crate) fn push_out(&mut self, cx: &mut Context<'_>) {
        self.with_env(|session, space, _, env| session.tell(space, env.site.draining()));
        loop {
            if self.waiting.is_some() && self.poll_wait(cx).is_pending() {
                return;
            }
            self.waiting = None;
            if !self.lease.as_deref().is_some_and(|lease| lease.space.slot.has_batch()) {
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

    /// Whether all that was written has left for the system.
    pub(crate) fn is_all_out(&mut self) -> bool {
        let is_batched = self.lease.as_deref().is_some_and(|lease| lease.space.slot.has_batch());
        !is_batched && !self.look(|reply| reply.has_unsent()).unwrap_or(false)
    }

    /// The server goes down.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.site.draining().phase() >= Phase::Draining
    }

    /// The server ends every connection now.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.site.draining().phase() == Phase::Cut
    }

    /// The socket of a connection that is over, and what was read of it beyond the last request.
    pub(crate) fn take_socket(&mut self) -> (Socket, Vec<u8>) {
        let read = self.lease.as_deref().map(|lease| lease.space.buffers.input.unread().to_vec());
        (mem::replace(&mut self.socket, Socket::Lost), read.unwrap_or_default())
    }

    /// Gives the socket to the site's hook for upgrades.
    fn hand_over(&mut self) {
        let attached = self.lease.as_deref_mut().and_then(|lease| lease.space.buffers.take_attached());
        let peer = self.session.connection.peer();
        let (socket, read) = self.take_socket();
        let upgraded = socket.into_blocking().map(|stream| Upgraded {
            stream,
            read,
            peer: SocketAddr::new(peer.ip(), peer.port()),
            attached,
            draining: self.shared.site.draining().clone(),
        });
        let site = &self.shared.site;
        match upgraded {
            Ok(upgraded) if site.takes_upgrades() => site.hand_over(upgraded, ()),
            Ok(_) => {}
            Err(error) => site.log().error(format_args!("cannot hand over a connection: {error}")),
        }
    }
}

async fn drive(driver: &mut Mutex<Driver>) {
    loop {
        let event = poll_fn(|cx| driver.get_mut().unwrap_or_else(PoisonError::into_inner).next(cx)).await;
        let close = match event {
            Event::Call => {
                // On the heap, so that a connection without handler is small.
                Box::pin(handler_task::converse(driver)).await;
                continue;
            }
            Event::Over(close) => close,
        };
        let driver = driver.get_mut().unwrap_or_else(PoisonError::into_inner);
        if close == Close::Upgraded {
            driver.hand_over();
        }
        return driver.give_back();
    }
}

/// A turn.
impl Driver {
    /// Goes on until the connection waits or closes, or others should have their turn. `waker` is the task's.
    fn turn(&mut self, waker: &Waker) -> Turn {
        let Driver { session, socket, transport, shared, talk, lease, .. } = self;
        let Shared { site, files, clock, pool, make, .. } = &**shared;
        let lease = lease.get_or_insert_with(|| pool.lease(site, clock));
        let Lease { space, script, wake_flag, log, recent, now } = &mut **lease;
        let files = TurnFiles::new(files, recent);
        clock.read(now);
        session.tell(space, site.draining());
        let io = &mut transport.over(socket.as_fd());
        let env = &mut Env::new(site, site.context(now), &files, log);
        let mut budget = Budget { steps: TURN_STEPS, bytes: TURN_BYTES, scripts_are_slow: false };
        loop {
            let mut attached = Attached { script, wake_flag, talk: talk.as_deref_mut() };
            match session.turn(space, io, &mut attached, env, &mut budget) {
                Turn::Call(call) if make.is_some() => {
                    files.arrived();
                    if talk.get_or_insert_default().concerns_handler(call, &session.reply(&mut space.buffers, &env.cx))
                    {
                        return Turn::Call(call);
                    }
                }
                Turn::Call(call) => {
                    let handler = &mut talk.get_or_insert_default().portable;
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

    /// Does something to the connection between its turns.
    fn with_env<R>(&mut self, act: impl FnOnce(&mut Session, &mut Workspace, &mut Io<'_>, &mut Env<'_>) -> R) -> R {
        let Driver { session, socket, transport, shared, lease, .. } = self;
        let Shared { site, files, clock, pool, .. } = &**shared;
        let lease = lease.get_or_insert_with(|| pool.lease(site, clock));
        let Lease { space, log, now, .. } = &mut **lease;
        let env = &mut Env::new(site, site.context(now), files, log);
        act(session, space, &mut transport.over(socket.as_fd()), env)
    }

    /// The peer has gone.
    fn broken(&mut self) {
        self.with_env(|session, _, io, env| session.broken(Fault::Peer, io, env.site.draining()));
    }

    /// Gives the lease back, if there is one.
    fn give_back(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.script = None;
            lease.wake_flag = None;
            lease.space.clear();
            self.shared.pool.give_back(lease);
        }
    }
}

/// Waiting.
impl Driver {
    /// Waits for something that the core is told by the next turn.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = &mut self.waiting {
            let Waiting { need, idle, asked } = *waiting;
            waiting.asked = !asked;
            if self.shared.site.draining().phase() != self.session.told() || self.is_woken() || self.leaves() {
                break;
            }
            if !asked {
                if idle {
                    self.give_back();
                }
                ready!(self.await_event(need, cx)?);
                self.waiting = Some(Waiting { need, idle, asked: false });
            } else if self.deadline.is_due(self.shared.clock.tick()) {
                // What woke it is not asked of `async-io`: it disowns an event that another thread was
                // waiting for already, and would have it all over again.
                break;
            }
            // Not `||`: each of the two that is needed has its try.
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

    /// Whether it is to be closed to make room for another. It is told so, unless something of its peer has come.
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

    /// Whether the handler was woken, which the connection is then told.
    fn is_woken(&mut self) -> bool {
        let nudged =
            self.lease.as_deref().and_then(|lease| lease.wake_flag.as_ref()).is_some_and(|wake_flag| wake_flag.take());
        if nudged {
            self.session.connection.handle(Input::Wake);
        }
        nudged
    }

    /// Sees to it that the task is woken; `Ready` if it may be worth a try already.
    fn await_event(&mut self, need: Need, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.register()?;
        // `Ready` at once is the event that ended an earlier wait. Asked again, `async-io` waits for a
        // new one, and is told again of what is there already.
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

    /// Reads what has come. `false`: nothing has.
    fn receive(&mut self) -> bool {
        self.with_env(|session, space, io, env| session.receive(&mut space.buffers, io, env, false))
    }
}

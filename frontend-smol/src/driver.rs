//! One connection as a task: the loop that polls the core, obeys it and waits.
//!
//! [`Driver::turn`] runs the core until it has nothing to do; it never waits. [`Driver::wait`] waits for
//! what the core then needs, and hands it in.
//!
//! A socket is registered with the reactor only when it is waited for, so a connection that brings its
//! request along and ends behind the answer never is. A read that did not fill the room has emptied
//! the socket, so the next one waits without trying.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_io::Async;
use sanserve_core::{Action, Connection, Fault, Handler, Input, Peer, Step, Tick, Wait};
use sanserve_os::{Caller, Desk, Flush, ScriptRead};
use smol::Executor;
use smol::future::{FutureExt as _, yield_now};

use crate::Shared;
use crate::pool::Lease;
use crate::recent::TurnFiles;
use crate::script::Pipes;
use crate::watch::{Phase, Seat};

/// Steps of one turn.
const TURN_STEPS: u32 = 256;

/// Bytes sent in one turn; the last step may exceed it.
const TURN_BYTES: u64 = 1 << 20;

pub(crate) struct Driver {
    connection: Connection,
    socket: Socket,
    seat: Seat,
    shared: Arc<Shared>,
    /// One a connection, made with its first call.
    handler: Option<Box<dyn Handler + Send>>,
    /// Held while busy.
    lease: Option<Box<Lease>>,
    /// What the connection knows of the server's life.
    told: Phase,
    /// The socket may have bytes: it is worth a try before waiting.
    more: bool,
    /// `Blocked` was handed in, and `Writable` not since.
    blocked: bool,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Driver>() <= 352);

/// How a turn ended.
enum Turn {
    Wait(Wait, Tick),
    /// It took long enough; the others first.
    Yield,
    Over,
}

/// A step that what is batched must go out before.
enum Pause {
    Wait(Wait),
    Shut,
    Close,
}

/// What ended a wait.
enum Event {
    /// Something woke the task, most likely the socket.
    Woken,
    /// The deadline, or the next phase of the server: the turn will see.
    Due,
}

impl Driver {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, seat: Seat, shared: &Arc<Shared>) -> Driver {
        Driver {
            connection: Connection::new(Peer::from(peer), &shared.service.context(&shared.clock.now())),
            socket: Socket::Bare(stream),
            seat,
            shared: Arc::clone(shared),
            handler: None,
            lease: None,
            told: Phase::Running,
            more: true,
            blocked: false,
        }
    }

    /// Makes it a task.
    pub(crate) fn spawn(mut self, executor: &Executor<'_>) {
        let task = async move {
            // A site that panics, or a bug, ends its connection and nothing else.
            if AssertUnwindSafe(self.drive()).catch_unwind().await.is_err() {
                self.shared.service.log.error("a connection panicked and was closed");
            }
        };
        executor.spawn(task).detach();
    }

    async fn drive(&mut self) {
        poll_fn(|cx| {
            self.seat.sit(cx.waker());
            Poll::Ready(())
        })
        .await;
        loop {
            match self.turn() {
                Turn::Wait(wait, now) => {
                    if let Err(error) = self.wait(wait, now).await {
                        // The reactor is out of memory or of watches.
                        return self.shared.service.log.error(format_args!("cannot wait for a connection: {error}"));
                    }
                }
                Turn::Yield => yield_now().await,
                Turn::Over => return self.give_back(),
            }
        }
    }
}

/// A turn.
impl Driver {
    /// Runs the core until it waits or closes, or others should have their turn.
    fn turn(&mut self) -> Turn {
        self.tell_phase();
        let Shared { service, files, clock, pool, .. } = &*self.shared;
        let connection = &mut self.connection;
        let lease = self.lease.get_or_insert_with(|| pool.lease(&service.log, clock));
        let Lease { buffers, slot, script, log, recent, now } = &mut **lease;
        let files = TurnFiles::new(files, recent);
        clock.read(now);
        let cx = service.context(now);
        let socket = self.socket.as_fd();
        let (mut steps, mut sent) = (0, 0);
        while steps < TURN_STEPS && sent < TURN_BYTES {
            steps += 1;
            let pause = match connection.poll(buffers, &cx) {
                Step::Wait(wait) => Pause::Wait(wait),
                Step::Shut => Pause::Shut,
                // The server cuts, or the core has lost patience with a socket that is full.
                Step::Close(_) if self.told == Phase::Cut || self.blocked => return Turn::Over,
                Step::Close(_) => Pause::Close,
                Step::Call(call) => {
                    files.forget();
                    let caller = Caller { handler: &mut self.handler, slot, waker: &|| Waker::noop().clone(), service };
                    caller.call(call, connection, buffers, &cx);
                    continue;
                }
                step => {
                    match &step {
                        Step::Finished(_) | Step::Act(_, Action::Spawn(_)) => *script = None,
                        Step::Act(_, Action::EndInput) => {
                            script.iter_mut().for_each(Pipes::end_input);
                        }
                        _ => {}
                    }
                    let mut desk =
                        Desk { files: &files, scripts: &service.scripts, site: &*service.site, log, wall: now.wall };
                    if let Some(input) = slot.carry_out(step, socket, &mut desk) {
                        match input {
                            Input::Blocked => self.blocked = true,
                            Input::Sent(n) | Input::Fed(n) => sent += n,
                            _ => {}
                        }
                        connection.handle(input);
                    }
                    continue;
                }
            };
            // A socket known to be full is not tried again before it is writable.
            match if self.blocked { Flush::Done } else { slot.flush(socket) } {
                Flush::Done => match pause {
                    Pause::Wait(wait) => {
                        log.flush();
                        return Turn::Wait(wait, now.tick);
                    }
                    Pause::Shut => {
                        let mut desk = Desk {
                            files: &files,
                            scripts: &service.scripts,
                            site: &*service.site,
                            log,
                            wall: now.wall,
                        };
                        let none = slot.carry_out(Step::Shut, socket, &mut desk);
                        debug_assert_eq!(none, None);
                    }
                    Pause::Close => return Turn::Over,
                },
                Flush::Blocked => {
                    self.blocked = true;
                    connection.handle(Input::Blocked);
                }
                Flush::Broken => connection.handle(Input::Broken(Fault::Peer)),
            }
        }
        Turn::Yield
    }

    /// Tells the connection when the server goes down.
    fn tell_phase(&mut self) {
        let phase = self.shared.watch.phase();
        if phase != self.told {
            self.told = phase;
            self.connection.handle(if phase == Phase::Cut { Input::Cut } else { Input::Drain });
        }
    }

    /// Gives the lease back, if there is one.
    fn give_back(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.script = None;
            lease.slot.clear();
            self.shared.pool.give_back(lease);
        }
    }
}

/// Waiting.
impl Driver {
    /// Waits for something that the core is told by the next turn.
    async fn wait(&mut self, wait: Wait, mut now: Tick) -> io::Result<()> {
        if wait.need.read && self.more && self.receive() {
            return Ok(());
        }
        loop {
            if wait.idle {
                self.give_back();
            }
            let come = match self.event(wait, now).await? {
                // Not `||`: each of the two that is needed has its try.
                Event::Woken => {
                    (wait.need.read && self.receive())
                        | (wait.need.write && self.resume())
                        | (wait.need.script_read && self.hear())
                        | (wait.need.script_write && self.feed())
                }
                Event::Due => true,
            };
            if come {
                return Ok(());
            }
            now = self.shared.clock.tick();
        }
    }

    async fn event(&mut self, wait: Wait, now: Tick) -> io::Result<Event> {
        let mut first = true;
        poll_fn(|cx| {
            if self.shared.watch.phase() != self.told {
                return Poll::Ready(Ok(Event::Due));
            }
            if mem::take(&mut first) {
                return self.await_event(&wait, now, cx);
            }
            // What woke it is not asked of `async-io`: it disowns an event that another thread was
            // waiting for already, and would have it all over again.
            let due = wait.deadline.is_some_and(|deadline| deadline <= self.shared.clock.tick());
            Poll::Ready(Ok(if due { Event::Due } else { Event::Woken }))
        })
        .await
    }

    /// Sees to it that the task is woken.
    fn await_event(&mut self, wait: &Wait, now: Tick, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        if let Some(deadline) = wait.deadline {
            if deadline <= now {
                return Poll::Ready(Ok(Event::Due));
            }
            self.seat.arm(deadline, now);
        }
        let socket = self.socket.register()?;
        // `Ready` at once is the event that ended an earlier wait. Asked again, `async-io` waits for a
        // new one, and is told again of what is there already.
        if wait.need.read && socket.poll_readable(cx)?.is_ready() && socket.poll_readable(cx)?.is_ready() {
            return Poll::Ready(Ok(Event::Woken));
        }
        if wait.need.write && socket.poll_writable(cx)?.is_ready() && socket.poll_writable(cx)?.is_ready() {
            return Poll::Ready(Ok(Event::Woken));
        }
        if wait.need.script_read || wait.need.script_write {
            let Some(Lease { slot, script, .. }) = self.lease.as_deref_mut() else {
                return Poll::Ready(Ok(Event::Woken));
            };
            let pipes = match (script, slot.script()) {
                (Some(pipes), _) => pipes,
                (script, Some(fds)) => script.insert(Pipes::new(fds)?),
                (None, None) => return Poll::Ready(Ok(Event::Woken)),
            };
            if pipes.wait(wait.need, cx)? {
                return Poll::Ready(Ok(Event::Woken));
            }
        }
        Poll::Pending
    }

    /// Reads what the script has said. `false`: nothing.
    fn hear(&mut self) -> bool {
        let Some(lease) = &mut self.lease else { return false };
        match lease.slot.read_script(&mut lease.buffers.script) {
            ScriptRead::Bytes(_) => {}
            ScriptRead::Blocked => return false,
            ScriptRead::End => self.connection.handle(Input::ScriptEof),
        }
        true
    }

    /// The script may take more.
    fn feed(&mut self) -> bool {
        self.connection.handle(Input::Feedable);
        true
    }

    /// Reads what has come. `false`: nothing has.
    fn receive(&mut self) -> bool {
        let Shared { service, clock, pool, .. } = &*self.shared;
        let lease = self.lease.get_or_insert_with(|| pool.lease(&service.log, clock));
        let spare = lease.buffers.input.spare();
        debug_assert!(!spare.is_empty());
        let room = spare.len();
        let received = loop {
            match self.socket.stream().read(spare) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.more = matches!(received, Ok(n) if n == room);
        match received {
            Ok(0) => self.connection.handle(Input::Eof),
            Ok(n) => lease.buffers.input.commit(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.connection.handle(Input::Broken(Fault::Peer)),
        }
        true
    }

    /// The socket takes bytes again: sends what is batched. `false`: it is full already.
    fn resume(&mut self) -> bool {
        let flushed = match &mut self.lease {
            Some(lease) => lease.slot.flush(self.socket.as_fd()),
            None => Flush::Done,
        };
        match flushed {
            Flush::Blocked => return false,
            Flush::Done => {
                self.blocked = false;
                self.connection.handle(Input::Writable);
            }
            Flush::Broken => self.connection.handle(Input::Broken(Fault::Peer)),
        }
        true
    }
}

/// A socket, registered with the reactor since it was first waited for.
enum Socket {
    Bare(TcpStream),
    Registered(Async<TcpStream>),
    /// The reactor did not take it, which ends the task.
    Lost,
}

impl Socket {
    fn stream(&self) -> &TcpStream {
        match self {
            Socket::Bare(stream) => stream,
            Socket::Registered(stream) => stream.get_ref(),
            Socket::Lost => unreachable!("a task goes on without its socket"),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }

    fn register(&mut self) -> io::Result<&Async<TcpStream>> {
        if let Socket::Bare(_) = self
            && let Socket::Bare(stream) = mem::replace(self, Socket::Lost)
        {
            *self = Socket::Registered(Async::new_nonblocking(stream)?);
        }
        match self {
            Socket::Registered(stream) => Ok(stream),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }
}

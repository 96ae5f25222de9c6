//! The loop around one connection: what the core wants is done, and what it waits for is waited for
//! (`waiting`). [`Line::run`] does it to the connection's end; a handler that blocks does it from within,
//! by [`Line::turn`], to the event that it blocks for (`attending`).
//!
//! **The socket blocks** while only the peer is waited for, so that one `recv` is all it takes. It
//! does not block where a `sendfile` may come, which knows no flag for that, nor when it is new; then
//! a wait is poll(2). Sends carry `MSG_DONTWAIT`.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sanserve_core::{
    Body, Buffers, Call, Close, Connection, Context, Fault, FsError, Handler, Input, Now, Opened, RequestBuf, Step,
    Tick,
};
use sanserve_server::{Caller, Desk, Files, Flush, Held, InHand, Logger, Slot, panic_message};

use crate::handler::{Blocking, Handler as BlockingHandler};
use crate::patience::Patience;
use crate::shared::{Enrolled, Live, Phase, Shared};
use crate::upgrade;
use crate::waking::Bell;

/// What a thread needs to drive connections, one after the other.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) blocking: Option<Arc<Blocking>>,
    pub(crate) buf: Buffers,
    pub(crate) slot: Slot,
    /// In a cell, so that a handler may quote in a message what it borrows of the exchange.
    pub(crate) log: RefCell<Logger>,
    pub(crate) files: Watched,
    /// Room for a request while a handler that blocks has it. Made for the first one.
    pub(crate) request: Option<Box<RequestBuf>>,
    /// Where others wait while this thread drives a connection, if it drives all: one that is idle gives way to them.
    pub(crate) door: Option<TcpListener>,
}

impl Driver {
    pub(crate) fn new(shared: &Arc<Shared>, blocking: Option<Arc<Blocking>>) -> Driver {
        Driver {
            shared: Arc::clone(shared),
            blocking,
            buf: shared.service.buffers(),
            slot: Slot::new(),
            log: RefCell::new(shared.service.log.logger()),
            files: Watched { shared: Arc::clone(shared), uncached: Cell::new(false) },
            request: None,
            door: None,
        }
    }

    /// Drives a connection to its end. A panic is the end of that connection alone.
    pub(crate) fn serve(self, enrolled: &Enrolled) -> Driver {
        let mut line = Line::new(self, Arc::clone(&enrolled.live));
        let outcome = catch_unwind(AssertUnwindSafe(|| line.run()));
        let parting = catch_unwind(AssertUnwindSafe(|| drop((line.attendant.take(), line.handler.take()))));
        let mut driver = line.driver;
        driver.buf.recycle();
        driver.slot.clear();
        let log = driver.log.get_mut();
        log.flush();
        for panic in [outcome, parting].into_iter().filter_map(Result::err) {
            let (log, peer) = (log.log(), enrolled.live.peer);
            log.error(format_args!("{peer:?}: the connection panicked: {}", panic_message(&*panic)));
        }
        driver
    }
}

/// One connection and the state of its socket.
pub(crate) struct Line {
    pub(crate) driver: Driver,
    pub(crate) live: Arc<Live>,
    pub(crate) connection: Connection,
    /// The portable handler, made when it is first called.
    pub(crate) handler: Option<Box<dyn Handler + Send>>,
    /// The handler that blocks, likewise.
    pub(crate) attendant: Option<Box<dyn BlockingHandler>>,
    /// What wakes the portable handler, made when it asks for it.
    pub(crate) bell: OnceCell<Arc<Bell>>,
    /// The time, but for what handlers that block took of it, which is no peer's fault.
    pub(crate) now: Now,
    /// How long that was.
    pub(crate) lag: u64,
    /// The deadline of the last wait.
    pub(crate) deadline: Option<Tick>,
    /// How the exchange of the handler that blocks stands.
    pub(crate) stand: Stand,
    /// It is enough to be rid of what is to be sent: no other wait is meant.
    pub(crate) pushing: bool,
    /// What the connection was told of the server's end.
    pub(crate) told: Phase,
    /// The exchange in hand counts while the server goes down.
    pub(crate) in_hand: Option<InHand>,
    /// The peer has reset the connection.
    pub(crate) reset: bool,
    /// The socket was full, and has not become writable since.
    pub(crate) full: bool,
    /// Whether the socket blocks. [`sanserve_os::accept`] gives one that does not.
    pub(crate) blocking: bool,
    /// It does not block and probably need not the next time either: wait with poll(2).
    pub(crate) poll_once: bool,
    /// It blocks, and the peer has not sent anything for as long as a `recv` may: wait with poll(2).
    pub(crate) is_slow: bool,
    pub(crate) patience: Patience,
}

/// How the exchange of a handler that blocks stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It goes on.
    Open,
    /// It has ended by itself.
    Over,
    /// The handler has given it up.
    Aborted,
    /// The handler has the socket.
    Upgraded,
}

/// What came of a [`Line::turn`].
pub(crate) enum Turn {
    /// A step was carried out, or something was waited for.
    Done,
    /// Nothing is left to be sent, and that is all that was asked for.
    Pushed,
    /// The handler is to be called.
    Call(Call),
    /// The connection closes.
    End(Close),
}

impl Line {
    fn new(driver: Driver, live: Arc<Live>) -> Line {
        let now = driver.shared.clock.now();
        let cx = context(&driver.shared, driver.blocking.as_deref(), &now);
        let mut connection = Connection::new(live.peer, &cx);
        driver.shared.service.observe(&mut connection, &cx, "std");
        Line {
            driver,
            live,
            connection,
            handler: None,
            attendant: None,
            bell: OnceCell::new(),
            now,
            lag: 0,
            deadline: None,
            stand: Stand::Open,
            pushing: false,
            told: Phase::Serving,
            in_hand: None,
            reset: false,
            full: false,
            blocking: false,
            poll_once: true,
            is_slow: false,
            patience: Patience::default(),
        }
    }

    fn run(&mut self) {
        let live = Arc::clone(&self.live);
        let socket = live.stream.as_fd();
        loop {
            match self.turn(socket) {
                Turn::Done | Turn::Pushed => {}
                Turn::Call(call) if self.driver.blocking.is_some() => {
                    if call == Call::Request {
                        self.attend();
                    }
                }
                Turn::Call(call) => self.call(call),
                Turn::End(Close::Upgraded) => {
                    if self.stand != Stand::Upgraded {
                        upgrade::pass_on(self);
                    }
                    return;
                }
                Turn::End(_) => return,
            }
        }
    }

    /// Carries out one step, or waits.
    pub(crate) fn turn(&mut self, socket: BorrowedFd<'_>) -> Turn {
        let Driver { shared, blocking, buf, slot, log, files, .. } = &mut self.driver;
        let cx = context(shared, blocking.as_deref(), &self.now);
        match self.connection.poll(buf, &cx) {
            Step::Wait(wait) if self.pushing && !wait.need.write => {
                if self.flush(socket) {
                    return Turn::Pushed;
                }
            }
            Step::Wait(wait) => {
                self.deadline = wait.deadline;
                self.wait(wait, socket);
                self.read_clock();
                // Before anything is done with what has come.
                self.tell_phase();
            }
            Step::Call(call) => return Turn::Call(call),
            // Patience with a socket that is full is over, and what it has not taken is given up.
            Step::Close(close) if self.full => {
                return Turn::End(if close == Close::Upgraded { Close::Broken } else { close });
            }
            Step::Close(close) => {
                if self.flush(socket) {
                    return Turn::End(close);
                }
            }
            step => {
                if let Step::Shut = step
                    && slot.has_batch()
                {
                    match slot.flush(socket) {
                        Flush::Done => {}
                        // Shut comes again when it is writable.
                        Flush::Blocked => {
                            self.full = true;
                            self.connection.handle(Input::Blocked);
                            return Turn::Done;
                        }
                        Flush::Broken => {
                            self.broken(Fault::Peer);
                            return Turn::Done;
                        }
                    }
                }
                if let Step::Finished(_) = &step {
                    // Who rings it later rings in vain.
                    self.bell.take();
                    self.in_hand = None;
                }
                let reads_file =
                    matches!(&step, Step::Send(t) if matches!(t.body, Body::File { .. })) && files.uncached.get();
                if reads_file {
                    if std::mem::take(&mut self.blocking) && self.live.stream.set_nonblocking(true).is_err() {
                        self.broken(Fault::Peer);
                        return Turn::Done;
                    }
                    self.poll_once = true;
                }
                let mut desk = Desk {
                    files: &*files,
                    scripts: &shared.service.scripts,
                    site: &*shared.service.site,
                    log: log.get_mut(),
                    wall: self.now.wall,
                };
                match slot.carry_out(step, socket, &mut desk) {
                    Some(Input::Broken(fault)) => self.broken(fault),
                    Some(input) => {
                        self.full |= input == Input::Blocked;
                        self.connection.handle(input);
                    }
                    None => {}
                }
                if reads_file {
                    // A disk may take its time, and a turn may send many megabytes.
                    self.read_clock();
                }
            }
        }
        Turn::Done
    }

    /// Calls the portable handler. A panic of it is the end of its exchange.
    fn call(&mut self, call: Call) {
        let Line { connection, handler, driver, bell, now, .. } = self;
        let Driver { shared, buf, slot, files, .. } = driver;
        // What it attaches is read while it is sent.
        files.uncached.set(true);
        let cx = shared.service.context(now);
        let caller = Caller { handler, slot, waker: &|| Bell::waker(bell), service: &shared.service };
        caller.call(call, connection, buf, &cx);
        // Who knows how long that took.
        self.read_clock();
    }

    pub(crate) fn read_clock(&mut self) {
        self.driver.shared.clock.read(&mut self.now);
        self.now.tick = Tick(self.now.tick.0.saturating_sub(self.lag));
    }

    /// Sends what is batched, and tells the connection if that is not possible. `true`: nothing is left.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> bool {
        match self.driver.slot.flush(socket) {
            Flush::Done => return true,
            Flush::Blocked => {
                self.full = true;
                self.connection.handle(Input::Blocked);
            }
            Flush::Broken => self.broken(Fault::Peer),
        }
        false
    }

    /// The connection is beyond use. If that is because it was cut, the log is to say so.
    pub(crate) fn broken(&mut self, fault: Fault) {
        if fault == Fault::Peer && self.driver.shared.phase() == Phase::Cutting {
            self.told = Phase::Cutting;
            self.connection.handle(Input::Cut);
        } else {
            self.reset |= fault == Fault::Peer;
            self.connection.handle(Input::Broken(fault));
        }
    }

    /// Tells the connection once that the server drains, and once that it cuts.
    pub(crate) fn tell_phase(&mut self) -> bool {
        let phase = self.driver.shared.phase();
        if phase <= self.told {
            return false;
        }
        self.told = phase;
        self.connection.handle(match phase {
            Phase::Serving | Phase::Leaving => Input::Leave,
            Phase::Draining => Input::Drain,
            Phase::Cutting => Input::Cut,
        });
        if phase >= Phase::Draining {
            if self.connection.has_exchange() {
                self.in_hand = Some(self.driver.shared.service.draining.hold());
            }
            self.live.is_told.store(true, Ordering::SeqCst);
        }
        true
    }
}

/// The rules of a connection: with a handler that blocks, requests go there.
pub(crate) fn context<'s>(shared: &'s Shared, blocking: Option<&'s Blocking>, now: &'s Now) -> Context<'s> {
    let cx = shared.service.context(now);
    Context { config: blocking.map_or(cx.config, |blocking| &blocking.config), ..cx }
}

/// Opens through the cache, and remembers whether the last file has to be read while it is sent.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    pub(crate) uncached: Cell<bool>,
}

impl Watched {
    fn note(&self, found: Result<(Opened, Held), FsError>) -> Result<(Opened, Held), FsError> {
        self.uncached.set(matches!(found, Ok((_, Held::File(_) | Held::Changing(_)))));
        found
    }
}

impl Files for Watched {
    fn open(&self, path: &[u8]) -> Result<(Opened, Held), FsError> {
        self.note(self.shared.files.open(path))
    }

    fn open_file(&self, path: &[u8]) -> Result<(Opened, Held), FsError> {
        self.note(self.shared.files.open_file(path))
    }
}

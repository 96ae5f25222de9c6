//! Driving one connection: carrying out what the core wants, and waiting for what it needs (`waiting`). [`Line::run`]
//! drives the connection to its end. A blocking handler drives it from within, by [`Line::go`], to the event that it
//! waits for (`blocking`).
//!
//! **The socket is blocking** while only the peer is waited for, so that one `recv` does both. It is non-blocking
//! when a `sendfile` may follow, which has no flag for that, and when it is new; waits then use poll(2). Sends use
//! `MSG_DONTWAIT`.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sanserve_core::{Call, Close, Config, Context, Fault, Handler, Now, Request, RequestBuf, Tick};
use sanserve_server::{
    Budget, Env, Frontend, Io, Listener, Logger, Phase, Session, Transport, Turn, WakeFd, Workspace,
};

use crate::recv_timeout::RecvTimeout;
use crate::shared::{ConnHandle, Enrolled, Shared};
use crate::waker::waker;

/// The most bytes sent in the turn of a connection that has something new: a file of a megabyte with its head. In
/// several pieces it would take half as much processor time again.
const FRESH_BYTES: u64 = (1 << 20) + 64 * 1024;

/// The most bytes sent in the turn of a connection that continues a transfer.
const BULK_BYTES: u64 = 512 * 1024;

/// A send of this many bytes ends a turn, so that the clock is read. Sending less takes no time.
const LARGE_SEND: u64 = 64 * 1024;

/// A blocking handler as the connection sees it. The public [`Handler`](crate::Handler) is built on this.
pub(crate) trait BlockingHandler {
    fn handle(&mut self, line: &mut Line, request: Request<'_>) -> io::Result<()>;
}

/// The factory of blocking handlers, and the configuration for them.
pub(crate) struct Blocking {
    /// Makes a handler.
    pub(crate) make: Box<dyn Fn() -> Box<dyn BlockingHandler> + Send + Sync>,
    /// The configuration of the site, with requests routed to the handler.
    config: Config,
}

impl Blocking {
    pub(crate) fn new<H>(make: impl Fn() -> H + Send + Sync + 'static, config: &Config) -> Blocking
    where
        H: BlockingHandler + 'static,
    {
        Blocking { make: Box::new(move || Box::new(make())), config: config.clone().with_handled(true) }
    }
}

/// What a thread needs to drive connections, one after the other.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) blocking: Option<Arc<Blocking>>,
    /// Boxed: a driver is moved from connection to connection, and each copy of it would take room on the stack.
    pub(crate) space: Box<Workspace>,
    /// In a cell, so that a handler can log text that it borrows from the exchange.
    pub(crate) log: RefCell<Logger>,
    /// Storage for a request while a blocking handler has it. Made for the first one.
    pub(crate) request: Option<Box<RequestBuf>>,
    /// The listener, if this thread drives all connections: if another connection is pending, an idle one is closed
    /// to make room.
    pub(crate) listener: Option<Listener>,
}

impl Driver {
    pub(crate) fn new(shared: &Arc<Shared>, blocking: Option<Arc<Blocking>>) -> Driver {
        Driver {
            shared: Arc::clone(shared),
            blocking,
            space: Box::new(Workspace::new(&shared.site)),
            log: RefCell::new(shared.site.log().logger()),
            request: None,
            listener: None,
        }
    }

    /// Drives a connection to its end. A panic only ends this connection.
    pub(crate) fn serve(self, enrolled: &Enrolled) -> Driver {
        let mut line = Line::new(self, Arc::clone(&enrolled.live));
        let outcome = catch_unwind(AssertUnwindSafe(|| line.run()));
        let parting = catch_unwind(AssertUnwindSafe(|| drop((line.blocking_handler.take(), line.handler.take()))));
        let mut driver = line.driver;
        driver.space.clear();
        driver.log.get_mut().flush();
        for panic in [outcome, parting].into_iter().filter_map(Result::err) {
            driver.shared.site.log_panic(enrolled.live.peer, &*panic);
        }
        driver
    }
}

/// One connection and the state of its socket.
pub(crate) struct Line {
    pub(crate) driver: Driver,
    pub(crate) live: Arc<ConnHandle>,
    pub(crate) session: Session,
    pub(crate) transport: Transport,
    /// The portable handler, made at the first call.
    pub(crate) handler: Option<Box<dyn Handler + Send>>,
    /// The blocking handler, likewise.
    pub(crate) blocking_handler: Option<Box<dyn BlockingHandler>>,
    /// The waker of the portable handler, made when the handler asks for it.
    pub(crate) conn_waker: OnceCell<Arc<WakeFd>>,
    /// The time without that spent in blocking handlers, which is not the fault of the peer.
    pub(crate) now: Now,
    /// The time spent in blocking handlers.
    pub(crate) lag: u64,
    /// The deadline of the last wait.
    pub(crate) deadline: Option<Tick>,
    /// The state of a blocking handler's exchange.
    pub(crate) state: ExchangeState,
    /// The next step is a long one.
    pub(crate) is_long: bool,
    /// The next turn continues a transfer.
    pub(crate) is_bulk: bool,
    /// Only sending the pending bytes is waited for, and nothing else.
    pub(crate) pushing: bool,
    /// The socket is non-blocking, and need not be blocking for the next wait: use poll(2).
    pub(crate) poll_once: bool,
    /// The socket is blocking, but the peer has sent nothing for as long as a `recv` may block: use poll(2).
    pub(crate) is_slow: bool,
    pub(crate) recv_timeout: RecvTimeout,
}

/// The state of a blocking handler's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeState {
    /// In progress.
    Open,
    /// Ended for another reason.
    Over,
    /// Aborted by the handler.
    Aborted,
    /// The handler has taken the socket.
    Upgraded,
}

/// The result of [`Line::go`].
pub(crate) enum Progress {
    /// The connection has progressed, or has waited.
    Done,
    /// All pending bytes were sent, and that was all that was asked for.
    Pushed,
    /// The handler must be called.
    Call(Call),
    /// The connection closes.
    End(Close),
}

impl Line {
    fn new(driver: Driver, live: Arc<ConnHandle>) -> Line {
        let now = driver.shared.clock.now();
        let cx = context(&driver.shared, driver.blocking.as_deref(), &now);
        let session = Session::begin(live.peer, &driver.shared.site, &cx, "std");
        let mut transport = Transport::level_triggered();
        // It may have brought its request along: it is read from before it is waited for.
        transport.became_readable();
        Line {
            driver,
            live,
            session,
            transport,
            handler: None,
            blocking_handler: None,
            conn_waker: OnceCell::new(),
            now,
            lag: 0,
            deadline: None,
            state: ExchangeState::Open,
            is_long: false,
            is_bulk: false,
            pushing: false,
            poll_once: true,
            is_slow: false,
            recv_timeout: RecvTimeout::default(),
        }
    }

    fn run(&mut self) {
        let live = Arc::clone(&self.live);
        let socket = live.stream.as_fd();
        loop {
            match self.go(socket) {
                Progress::Done | Progress::Pushed => {}
                Progress::Call(call) if self.driver.blocking.is_some() => {
                    if call == Call::Request {
                        self.call_blocking();
                    }
                }
                Progress::Call(call) => self.call(call),
                Progress::End(Close::Upgraded) => {
                    if self.state != ExchangeState::Upgraded {
                        self.pass_on();
                    }
                    return;
                }
                Progress::End(_) => return,
            }
        }
    }

    /// Runs the connection until it has to wait, and waits.
    pub(crate) fn go(&mut self, socket: BorrowedFd<'_>) -> Progress {
        let (is_long, is_bulk) = (std::mem::take(&mut self.is_long), std::mem::take(&mut self.is_bulk));
        let shared = (is_long || is_bulk).then(|| Arc::clone(&self.driver.shared));
        // Returned before anything is waited for.
        let permit = shared.as_ref().map(|shared| {
            let permit = if is_long { shared.long_steps.enter() } else { shared.bulk_sends.enter() };
            self.read_clock();
            permit
        });
        let conn_waker = &mut self.conn_waker;
        let mut attached = Attached { conn_waker };
        // Disks may be slow, and a turn may send many megabytes, so the clock is read again after each large send.
        let bytes = if is_bulk { BULK_BYTES } else { FRESH_BYTES };
        let mut budget = Budget { steps: u32::MAX, bytes, large: LARGE_SEND, scripts_are_slow: false };
        let Driver { shared, blocking, space, log, .. } = &mut self.driver;
        let cx = context(shared, blocking.as_deref(), &self.now);
        let env = &mut Env::new(&shared.site, cx, &shared.files, log.get_mut());
        let io = &mut self.transport.over(socket);
        let turn = self.session.turn(space, io, &mut attached, env, &mut budget);
        drop(permit);
        self.poll_once |= self.transport.take_sent_file();
        match turn {
            Turn::Wait(wait) if self.pushing && !wait.need.write => return Progress::Pushed,
            Turn::Wait(wait) => {
                self.deadline = wait.deadline;
                self.wait(wait, socket);
                self.is_bulk = wait.need.write && !self.transport.is_full();
                self.read_clock();
                // Before any received bytes are processed.
                self.follow_phase();
            }
            Turn::Call(call) => return Progress::Call(call),
            Turn::Closed(close) => return Progress::End(close),
            Turn::Slow => {
                self.is_long = true;
                self.read_clock();
            }
            Turn::Yield | Turn::Finished => {
                self.is_bulk = true;
                self.read_clock();
            }
        }
        Progress::Done
    }

    /// Calls the portable handler. A panic only ends its exchange.
    fn call(&mut self, call: Call) {
        let Line { session, handler, driver, conn_waker, now, .. } = self;
        let Driver { shared, space, log, .. } = driver;
        let env = &Env::new(&shared.site, shared.site.context(now), &shared.files, log.get_mut());
        session.call(call, handler, &|| waker(conn_waker), space, env);
        // The handler may have taken any time.
        self.read_clock();
    }

    /// Accesses the connection between its turns.
    pub(crate) fn with_env<R>(
        &mut self,
        socket: BorrowedFd<'_>,
        act: impl FnOnce(&mut Session, &mut Workspace, &mut Io<'_>, &mut Env<'_>) -> R,
    ) -> R {
        let Driver { shared, blocking, space, log, .. } = &mut self.driver;
        let cx = context(shared, blocking.as_deref(), &self.now);
        let env = &mut Env::new(&shared.site, cx, &shared.files, log.get_mut());
        act(&mut self.session, space, &mut self.transport.over(socket), env)
    }

    pub(crate) fn read_clock(&mut self) {
        self.driver.shared.clock.read(&mut self.now);
        self.now.tick = Tick(self.now.tick.0.saturating_sub(self.lag));
    }

    /// Records that the connection has failed.
    pub(crate) fn broken(&mut self, socket: BorrowedFd<'_>) {
        self.with_env(socket, |session, _, io, env| session.broken(Fault::Peer, io, env.site.draining()));
    }

    /// Passes the phase of the server to the connection. Returns whether it has changed.
    pub(crate) fn follow_phase(&mut self) -> bool {
        let has_changed = self.session.follow_phase(&mut self.driver.space, self.driver.shared.site.draining());
        if self.session.phase() >= Phase::Draining {
            self.live.is_informed.store(true, Ordering::SeqCst);
        }
        has_changed
    }
}

/// The parts of its thread that an exchange uses.
struct Attached<'a> {
    conn_waker: &'a mut OnceCell<Arc<WakeFd>>,
}

impl Frontend for Attached<'_> {
    fn finished(&mut self, _status: u16) -> bool {
        self.conn_waker.take();
        false
    }
}

/// The context of a connection. With a blocking handler, requests are routed to it.
pub(crate) fn context<'s>(shared: &'s Shared, blocking: Option<&'s Blocking>, now: &'s Now) -> Context<'s> {
    let cx = shared.site.context(now);
    Context { config: blocking.map_or(cx.config, |blocking| &blocking.config), ..cx }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use sanserve_server::{Log, Site};

    use super::*;

    #[test]
    fn a_request_that_came_with_its_connection_is_answered_without_waiting() {
        let site = Site::new(".").unwrap().with_log(Log::quiet());
        let shared = Arc::new(Shared::new(site).unwrap());
        let listener = sanserve_os::bind(([127, 0, 0, 1], 0).into(), false).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(b"GET /Cargo.toml HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let (stream, address) = sanserve_os::accept(&listener).unwrap();
        let enrolled = shared.enroll(stream.into(), address.into()).unwrap();
        let mut line = Line::new(Driver::new(&shared, None), Arc::clone(&enrolled.live));
        // Whatever is waited for is waited for at the end of a call, which then does not say that it is over.
        assert!(matches!(line.go(enrolled.live.stream.as_fd()), Progress::End(Close::Done)));
        drop((line, enrolled));
        let mut answer = String::new();
        peer.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("name = \"sanserve-std\""), "{answer}");
    }
}

//! The loop around one connection: what the core wants is done, and what it waits for is waited for.
//!
//! **The socket blocks** while only the peer is waited for, so that one `recv` is all it takes. It
//! does not block where a `sendfile` may come, which knows no flag for that, nor when it is new; then
//! a wait is poll(2). Sends carry `MSG_DONTWAIT`.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use sanserve_core::{
    Body, Buffers, Call, Connection, Fault, FsError, Handler, Input, Need, Now, Opened, Step, Wait, Window,
};
use sanserve_os::{self as os, Caller, Desk, Files, Flush, Held, Logger, ScriptRead, Slot, panic_message};

use crate::patience::{Patience, timespec};
use crate::shared::{Enrolled, Live, Phase, Shared};

/// What a thread needs to drive connections, one after the other.
pub(crate) struct Driver<'s> {
    shared: &'s Shared,
    buf: Buffers,
    slot: Slot,
    log: Logger,
    files: Watched<'s>,
}

impl<'s> Driver<'s> {
    pub(crate) fn new(shared: &'s Shared) -> Driver<'s> {
        Driver {
            shared,
            buf: Buffers::new(),
            slot: Slot::new(),
            log: shared.service.log.logger(),
            files: Watched { files: &shared.files, uncached: Cell::new(false) },
        }
    }

    /// Drives a connection to its end. A panic is the end of that connection alone.
    pub(crate) fn serve(&mut self, enrolled: Enrolled) {
        let outcome = catch_unwind(AssertUnwindSafe(|| Line::new(self, &enrolled.live).run()));
        self.buf.recycle();
        self.slot.clear();
        self.log.flush();
        if let Err(panic) = outcome {
            let peer = enrolled.live.peer;
            self.shared
                .service
                .log
                .error(format_args!("{peer:?}: the connection panicked: {}", panic_message(&*panic)));
        }
    }
}

/// One connection and the state of its socket.
struct Line<'d, 's> {
    driver: &'d mut Driver<'s>,
    live: &'d Live,
    connection: Connection,
    /// Made when it is first called.
    handler: Option<Box<dyn Handler + Send>>,
    now: Now,
    /// What the connection was told of the server's end.
    told: Phase,
    /// Whoever drains has shut the reading side: an end of input is none of the peer's.
    woken: bool,
    /// Whether the socket blocks. [`sanserve_os::accept`] gives one that does not.
    blocking: bool,
    /// It does not block and probably need not the next time either: wait with poll(2).
    poll_once: bool,
    patience: Patience,
}

impl<'d, 's> Line<'d, 's> {
    fn new(driver: &'d mut Driver<'s>, live: &'d Live) -> Line<'d, 's> {
        let now = driver.shared.clock.now();
        let connection = Connection::new(live.peer, &driver.shared.service.context(&now));
        Line {
            driver,
            live,
            connection,
            handler: None,
            now,
            told: Phase::Serving,
            woken: false,
            blocking: false,
            poll_once: true,
            patience: Patience::default(),
        }
    }

    fn run(&mut self) {
        let shared = self.driver.shared;
        let socket = self.live.stream.as_fd();
        loop {
            let cx = shared.service.context(&self.now);
            let Driver { buf, slot, log, files, .. } = &mut *self.driver;
            match self.connection.poll(buf, &cx) {
                Step::Wait(wait) => {
                    self.wait(wait, socket);
                    shared.clock.read(&mut self.now);
                }
                Step::Call(call) => {
                    self.call(call);
                    // Who knows how long that took.
                    shared.clock.read(&mut self.now);
                }
                Step::Close(_) => {
                    if self.flush(socket) {
                        return;
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
                                self.connection.handle(Input::Blocked);
                                continue;
                            }
                            Flush::Broken => {
                                self.broken(Fault::Peer);
                                continue;
                            }
                        }
                    }
                    let reads_file =
                        matches!(&step, Step::Send(t) if matches!(t.body, Body::File { .. })) && files.uncached.get();
                    if reads_file {
                        if std::mem::take(&mut self.blocking) && self.live.stream.set_nonblocking(true).is_err() {
                            self.broken(Fault::Peer);
                            continue;
                        }
                        self.poll_once = true;
                    }
                    let mut desk = Desk {
                        files: &*files,
                        scripts: &shared.service.scripts,
                        site: &*shared.service.site,
                        log,
                        wall: self.now.wall,
                    };
                    match slot.carry_out(step, socket, &mut desk) {
                        Some(Input::Broken(fault)) => self.broken(fault),
                        Some(input) => self.connection.handle(input),
                        None => {}
                    }
                    if reads_file {
                        // A disk may take its time, and a turn may send many megabytes.
                        shared.clock.read(&mut self.now);
                    }
                }
            }
        }
    }

    /// Calls the handler. A panic of it is the end of its exchange.
    fn call(&mut self, call: Call) {
        let shared = self.driver.shared;
        let cx = shared.service.context(&self.now);
        let Line { connection, handler, driver, .. } = self;
        let Driver { buf, slot, .. } = &mut **driver;
        let caller = Caller { handler, slot, waker: &|| Waker::noop().clone(), service: &shared.service };
        caller.call(call, connection, buf, &cx);
    }

    /// Sends what is batched, and tells the connection if that is not possible. `true`: nothing is left.
    fn flush(&mut self, socket: BorrowedFd<'_>) -> bool {
        match self.driver.slot.flush(socket) {
            Flush::Done => return true,
            Flush::Blocked => self.connection.handle(Input::Blocked),
            Flush::Broken => self.broken(Fault::Peer),
        }
        false
    }

    /// The connection is beyond use. If that is because it was cut, the log is to say so.
    fn broken(&mut self, fault: Fault) {
        if fault == Fault::Peer && self.driver.shared.phase() == Phase::Cutting {
            self.told = Phase::Cutting;
            self.connection.handle(Input::Cut);
        } else {
            self.connection.handle(Input::Broken(fault));
        }
    }

    /// Tells the connection once that the server drains, and once that it cuts.
    fn tell_phase(&mut self) -> bool {
        let phase = self.driver.shared.phase();
        if phase <= self.told {
            return false;
        }
        self.told = phase;
        self.connection.handle(if phase == Phase::Cutting { Input::Cut } else { Input::Drain });
        true
    }
}

/// Waiting.
impl Line<'_, '_> {
    fn wait(&mut self, wait: Wait, socket: BorrowedFd<'_>) {
        // If it waits for the socket to take bytes, what is batched has been tried.
        if !wait.need.write && !self.flush(socket) {
            return;
        }
        self.driver.log.flush();
        if self.tell_phase() {
            return;
        }
        let left = wait.deadline.map(|deadline| deadline.since(self.now.tick));
        match wait.need {
            Need { script_read: true, .. } | Need { script_write: true, .. } => {
                self.watch_script(wait.need, left, socket);
            }
            Need { read: true, write: true, .. } | Need { read: false, .. } => self.watch(wait.need, left, socket),
            _ if wait.idle => {
                self.driver.buf.recycle();
                let live = self.live;
                let (got, woken) = live.while_idle(self.driver.shared, || self.receive(left, socket));
                self.woken |= woken;
                match got {
                    // The phase has changed meanwhile.
                    None | Some(Ok(Some(0))) if self.tell_phase() => {}
                    None => {}
                    Some(got) => self.received(got),
                }
            }
            _ => {
                let got = self.receive(left, socket);
                self.received(got);
            }
        }
    }

    /// Blocks until there are bytes or the time is over; `None`: nothing came.
    fn receive(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Result<Option<usize>, Errno> {
        if !self.blocking && !std::mem::take(&mut self.poll_once) {
            self.live.stream.set_nonblocking(false).map_err(|_| Errno::NOTCONN)?;
            self.blocking = true;
        }
        if self.blocking {
            self.patience.arrange(&self.live.stream, left).map_err(|_| Errno::NOTCONN)?;
            fill(&mut self.driver.buf.input, socket, RecvFlags::empty())
        } else if poll_socket(socket, PollFlags::IN, left)?.is_empty() {
            Ok(None)
        } else {
            fill(&mut self.driver.buf.input, socket, RecvFlags::DONTWAIT)
        }
    }

    /// Tells the connection what came of reading. Bytes are in its window already.
    fn received(&mut self, got: Result<Option<usize>, Errno>) {
        match got {
            Ok(Some(0)) if self.tell_phase_if_cut() => {}
            // The rest of a request that began to arrive at the very moment of the drain is lost.
            Ok(Some(0)) if self.woken => self.connection.handle(Input::Cut),
            Ok(Some(0)) => self.connection.handle(Input::Eof),
            Ok(_) => {}
            Err(_) => self.broken(Fault::Peer),
        }
    }

    fn tell_phase_if_cut(&mut self) -> bool {
        self.driver.shared.phase() == Phase::Cutting && self.tell_phase()
    }

    /// Waits with poll(2) for everything that is not merely the next bytes: room in the socket, or
    /// nothing but the peer's going away and the time.
    fn watch(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        match poll_socket(socket, flags(need.read, need.write), left) {
            Ok(ready) => self.became_ready(ready, need, socket),
            Err(_) => self.broken(Fault::Peer),
        }
    }

    /// The same with a script beside the socket.
    fn watch_script(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let Driver { slot, buf, .. } = &mut *self.driver;
        let script = slot.script();
        let output = script.and_then(|fds| fds.output).filter(|_| need.script_read);
        let exit = script.and_then(|fds| fds.exit).filter(|_| need.script_read);
        let input = script.and_then(|fds| fds.input).filter(|_| need.script_write);
        // The socket stands in for what is not waited for, with nothing to wait for.
        let wanted = |fd: Option<BorrowedFd<'_>>, flags| fd.map_or(PollFlags::empty(), |_| flags);
        let mut fds = [
            PollFd::from_borrowed_fd(socket, flags(need.read, need.write)),
            PollFd::from_borrowed_fd(output.unwrap_or(socket), wanted(output, PollFlags::IN)),
            PollFd::from_borrowed_fd(exit.unwrap_or(socket), wanted(exit, PollFlags::IN)),
            PollFd::from_borrowed_fd(input.unwrap_or(socket), wanted(input, PollFlags::OUT)),
        ];
        // A script that is over already has nothing more to wait for.
        let left = if need.script_read && output.is_none() { Some(0) } else { left };
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.broken(Fault::Peer),
        }
        let [ready, output, exit, input] = fds.map(|fd| fd.revents());
        let is_over = need.script_read && left == Some(0);
        if need.script_read && (is_over || !output.is_empty() || !exit.is_empty()) {
            match slot.read_script(&mut buf.script) {
                ScriptRead::Bytes(_) | ScriptRead::Blocked => {}
                ScriptRead::End => self.connection.handle(Input::ScriptEof),
            }
        }
        if need.script_write && !input.is_empty() {
            self.connection.handle(Input::Feedable);
        }
        self.became_ready(ready, need, socket);
    }

    /// Does what the socket is ready for.
    fn became_ready(&mut self, ready: PollFlags, need: Need, socket: BorrowedFd<'_>) {
        let gone = ready.intersects(PollFlags::ERR | PollFlags::HUP);
        if need.write && (gone || ready.contains(PollFlags::OUT)) {
            match self.driver.slot.flush(socket) {
                Flush::Done => self.connection.handle(Input::Writable),
                Flush::Blocked => {}
                Flush::Broken => self.broken(Fault::Peer),
            }
        }
        if need.read && (gone || ready.contains(PollFlags::IN)) {
            let got = fill(&mut self.driver.buf.input, socket, RecvFlags::DONTWAIT);
            self.received(got);
        }
        if gone && !need.read && !need.write {
            self.broken(Fault::Peer);
        }
    }
}

/// Reads once into the window. `None`: there was nothing, in time.
fn fill(window: &mut Window, socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<usize>, Errno> {
    match recv(socket, window.spare(), flags) {
        Ok((_, n)) => {
            window.commit(n);
            Ok(Some(n))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn flags(read: bool, write: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    flags
}

/// Waits for the socket; empty: nothing happened, in time.
fn poll_socket(socket: BorrowedFd<'_>, flags: PollFlags, left: Option<u64>) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(socket, flags)];
    match poll(&mut fds, timespec(left).as_ref()) {
        Ok(_) => Ok(fds[0].revents()),
        Err(Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error),
    }
}

/// Opens through the cache, and remembers whether the last file has to be read while it is sent.
struct Watched<'s> {
    files: &'s os::Shared,
    uncached: Cell<bool>,
}

impl Watched<'_> {
    fn note(&self, found: Result<(Opened, Held), FsError>) -> Result<(Opened, Held), FsError> {
        self.uncached.set(matches!(found, Ok((_, Held::File(_)))));
        found
    }
}

impl Files for Watched<'_> {
    fn open(&self, path: &[u8]) -> Result<(Opened, Held), FsError> {
        self.note(self.files.open(path))
    }

    fn open_file(&self, path: &[u8]) -> Result<(Opened, Held), FsError> {
        self.note(self.files.open_file(path))
    }
}

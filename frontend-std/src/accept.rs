//! Accepting connections, and the threads that they are given to.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sanserve_server as server;
use sanserve_server::{Accepted, Acceptor, Phase};

use crate::driver::Driver;
use crate::handler::Blocking;
use crate::recv_timeout::timespec;
use crate::shared::{Employment, Enrolled, Shared};

/// The stack of a thread. The deepest path of a debug build, a directory listing on a socket that
/// sends without `sendfile`, takes less than half of it.
const STACK: usize = 256 * 1024;

/// The same where somebody else's handler is called: what Rust gives by default, since nobody knows
/// what that needs. Only what is touched is memory.
const STACK_WITH_HANDLER: usize = 2 * 1024 * 1024;

/// Serves each connection on a thread of its own, of which there are at most `most`.
pub(crate) fn threaded(serving: &Serving, listeners: Vec<TcpListener>, most: usize) -> io::Result<()> {
    // Without any thread nobody would ever be served.
    server::probe_resources(1, 0)?;
    let admit = |listener: &TcpListener| {
        let mut incoming = Incoming::new(serving, listener);
        let outcome = incoming.pass_on(most);
        serving.shared.enter(Phase::Draining);
        outcome.and(incoming.empty(|incoming| incoming.pass_on(most)))
    };
    let outcome = thread::scope(|scope| {
        let (first, others) = listeners.split_first().expect("there is one");
        for other in others {
            let helper = Builder::new().name("sanserve-accept".into()).stack_size(STACK);
            if let Err(error) = helper.spawn_scoped(scope, || admit(other)) {
                serving.shared.enter(Phase::Draining);
                return Err(error);
            }
        }
        admit(first)
    });
    // From here on, who connects is refused and not left waiting.
    drop(listeners);
    serving.shared.close_down();
    outcome
}

/// Serves one connection after the other on this thread.
pub(crate) fn one_at_a_time(serving: &Serving, listener: TcpListener) -> io::Result<()> {
    let shared = &serving.shared;
    shared.listen();
    thread::scope(|scope| {
        // This thread is busy with a connection when the server is to end.
        let closer = Builder::new().name("sanserve-end".into()).stack_size(STACK);
        closer.spawn_scoped(scope, || {
            shared.wait_for_end();
            shared.close_down();
        })?;
        let mut incoming = Incoming::new(serving, &listener);
        let mut outcome = incoming.serve();
        shared.enter(Phase::Draining);
        outcome = outcome.and(incoming.empty(Incoming::serve));
        drop(listener);
        shared.stop_listening();
        outcome
    })
}

/// Serves the next connection on this thread, if it comes in time.
pub(crate) fn one(serving: &Serving, listener: &TcpListener, timeout: Option<Duration>) -> io::Result<bool> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let Some(enrolled) = Incoming::new(serving, listener).next(until)? else { return Ok(false) };
    drop(serving.driver().serve(&enrolled));
    Ok(true)
}

/// What a server serves with.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) shared: Arc<Shared>,
    /// Makes the handlers that block.
    pub(crate) blocking: Option<Arc<Blocking>>,
}

impl Serving {
    fn driver(&self) -> Driver {
        Driver::new(&self.shared, self.blocking.clone())
    }

    fn stack(&self) -> usize {
        let has_handler = self.blocking.is_some() || self.shared.site.has_handler();
        if has_handler { STACK_WITH_HANDLER } else { STACK }
    }

    /// How many connections there may be, each with a thread of its own.
    pub(crate) fn most_threads(&self) -> usize {
        self.shared.site.connection_bound().min(server::threads_within_memory(self.stack()))
    }
}

/// Where connections come in.
struct Incoming<'s> {
    serving: &'s Serving,
    shared: &'s Arc<Shared>,
    listener: &'s TcpListener,
    acceptor: Acceptor,
    /// The server goes down, and the listener is emptied until then.
    until: Option<Instant>,
}

impl<'s> Incoming<'s> {
    fn new(serving: &'s Serving, listener: &'s TcpListener) -> Incoming<'s> {
        Incoming { serving, shared: &serving.shared, listener, acceptor: Acceptor::default(), until: None }
    }

    /// The server goes down: whoever has connected by now is still let in, by `accept`. How long a listener may be
    /// filled anew while it is emptied is bounded.
    fn empty(&mut self, accept: impl FnOnce(&mut Incoming<'s>) -> io::Result<()>) -> io::Result<()> {
        self.until = Some(Instant::now() + self.shared.listens_on());
        accept(self)
    }

    fn pass_on(&mut self, most: usize) -> io::Result<()> {
        while let Some(enrolled) = self.next(None)? {
            // Only for one that is there does another give way. If the server goes down meanwhile, it is served still.
            self.shared.make_room(most);
            if self.shared.queue(enrolled) {
                self.start_thread();
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut driver = self.serving.driver();
        driver.door = Some(self.listener.try_clone()?);
        while let Some(enrolled) = self.next(None)? {
            driver = driver.serve(&enrolled);
        }
        Ok(())
    }

    /// Starts a thread that takes what is queued. If the system has none to give, tries again later
    /// and accepts nothing meanwhile.
    fn start_thread(&mut self) {
        let stack = self.serving.stack();
        loop {
            let builder = Builder::new().name("sanserve".into()).stack_size(stack);
            let serving = self.serving.clone();
            let Err(error) = builder.spawn(move || work(&serving)) else { return };
            let shared = &self.shared;
            let pause = self.acceptor.pause("cannot start a thread", &error, &shared.site, shared.clock.tick());
            if !self.shared.wait_for_thread(Duration::from_millis(pause)) {
                return;
            }
        }
    }

    /// The next connection; `None`: the server goes down, or none comes in time.
    fn next(&mut self, until: Option<Instant>) -> io::Result<Option<Enrolled>> {
        while self.goes_on() {
            let accepted = self.acceptor.accept(self.listener, &self.shared.site, self.shared.clock.tick());
            let pause = match accepted {
                Accepted::Peer(stream, address) => return Ok(self.shared.enroll(stream, address.into())),
                Accepted::Again => continue,
                Accepted::Nobody => None,
                Accepted::Pause(millis) => Some(millis),
            };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            // Rounded up: waking early would only be for nothing.
            let left = left.map(|left| u64::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX));
            match pause {
                _ if self.until.is_some() => break,
                None => self.wait(Some(self.listener.as_fd()), left)?,
                Some(millis) => self.wait(None, Some(left.map_or(millis, |left| left.min(millis))))?,
            }
        }
        Ok(None)
    }

    fn goes_on(&self) -> bool {
        match self.until {
            None => self.shared.phase() < Phase::Draining,
            Some(until) => self.shared.phase() < Phase::Cut && Instant::now() < until,
        }
    }

    /// Waits until there is a connection, or the server goes down, or the time is over.
    fn wait(&self, listener: Option<BorrowedFd<'_>>, most: Option<u64>) -> io::Result<()> {
        let latch = self.shared.latch().as_fd();
        let mut fds = [latch, listener.unwrap_or(latch)].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, timespec(most).as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The life of a thread: one connection after the other, for as long as there are some.
fn work(serving: &Serving) {
    let _employment = Employment(&serving.shared);
    let mut driver = serving.driver();
    while let Some(enrolled) = serving.shared.next_work() {
        driver = driver.serve(&enrolled);
    }
}

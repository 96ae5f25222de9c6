//! Accepting connections, and the threads that serve them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::ioctl_fionbio;
use sanserve_server as server;
use sanserve_server::{Accepted, Acceptor, Listener, Phase, Stream, poll};

use crate::driver::{Blocking, Driver};
use crate::shared::{CountedThread, Enrolled, Shared};

/// The stack size of a thread in bytes. The deepest call path of a debug build, a directory listing on a socket that
/// sends without `sendfile`, needs less than half of it.
const STACK: usize = 256 * 1024;

/// The stack size of a thread that calls a foreign handler: the default of Rust, since the need of the handler is
/// unknown. Only the touched part takes memory.
const STACK_WITH_HANDLER: usize = 2 * 1024 * 1024;

/// Serves each connection on a thread of its own, with at most `most` threads.
pub(crate) fn threaded(serving: &Serving, listeners: Vec<Listener>, most: usize) -> io::Result<()> {
    // Without a single thread, no connection could ever be served.
    server::probe_resources(1, 0)?;
    let admit = |listener: &Listener| {
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
    // From here on, new connections are refused, rather than left waiting.
    drop(listeners);
    serving.shared.close_down();
    outcome
}

/// Serves one connection after the other on this thread.
pub(crate) fn one_at_a_time(serving: &Serving, listener: Listener) -> io::Result<()> {
    let shared = &serving.shared;
    shared.listen();
    thread::scope(|scope| {
        // A separate thread begins the shutdown, because this one may be busy with a connection.
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

/// Serves the next connection on this thread, if one arrives in time.
pub(crate) fn one(serving: &Serving, listener: &Listener, timeout: Option<Duration>) -> io::Result<bool> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let Some(enrolled) = Incoming::new(serving, listener).next(until)? else { return Ok(false) };
    drop(serving.driver().serve(&enrolled));
    Ok(true)
}

/// Serves a connection that was accepted elsewhere, on this thread.
pub(crate) fn given(serving: &Serving, stream: Stream) -> io::Result<()> {
    let (socket, peer) = stream.into_parts();
    ioctl_fionbio(&socket, true)?;
    let enrolled = serving.shared.enroll(socket, peer).ok_or(io::ErrorKind::ConnectionAborted)?;
    drop(serving.driver().serve(&enrolled));
    Ok(())
}

/// What the threads of a server need in order to serve.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) shared: Arc<Shared>,
    /// Makes the blocking handlers, if the server has them.
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

    /// The limit of connections, and of threads, since each connection has one.
    pub(crate) fn most_threads(&self) -> usize {
        self.shared.site.connection_bound().min(server::threads_within_memory(self.stack()))
    }
}

/// The source of new connections.
struct Incoming<'s> {
    serving: &'s Serving,
    shared: &'s Arc<Shared>,
    listener: &'s Listener,
    acceptor: Acceptor,
    /// Set when the server shuts down: pending connections are accepted until then.
    until: Option<Instant>,
}

impl<'s> Incoming<'s> {
    fn new(serving: &'s Serving, listener: &'s Listener) -> Incoming<'s> {
        Incoming { serving, shared: &serving.shared, listener, acceptor: Acceptor::default(), until: None }
    }

    /// Accepts the connections that are already pending when the server shuts down, with `accept`. The time is
    /// limited, since clients may continue to connect.
    fn empty(&mut self, accept: impl FnOnce(&mut Incoming<'s>) -> io::Result<()>) -> io::Result<()> {
        self.until = Some(Instant::now() + self.shared.listens_on());
        accept(self)
    }

    fn pass_on(&mut self, most: usize) -> io::Result<()> {
        while let Some(enrolled) = self.next(None)? {
            // Room is made only for a connection that was accepted. It is served even if the server shuts down
            // meanwhile.
            self.shared.make_room(most);
            if self.shared.queue(enrolled) {
                self.start_thread();
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut driver = self.serving.driver();
        driver.listener = Some(self.listener.try_clone()?);
        while let Some(enrolled) = self.next(None)? {
            driver = driver.serve(&enrolled);
        }
        Ok(())
    }

    /// Starts a thread for the queue. If the system refuses, tries again later, and accepts nothing meanwhile.
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

    /// The next connection. `None`: the server is shutting down, or none has arrived in time.
    fn next(&mut self, until: Option<Instant>) -> io::Result<Option<Enrolled>> {
        while self.goes_on() {
            let accepted = self.acceptor.accept(self.listener, &self.shared.site, self.shared.clock.tick());
            let pause = match accepted {
                Accepted::Peer(stream, address) => return Ok(self.shared.enroll(stream, address)),
                Accepted::Again => continue,
                Accepted::Nobody => None,
                Accepted::Pause(millis) => Some(millis),
            };
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            // Rounded up, since waking early would be useless.
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

    /// Waits until a connection is pending, the server shuts down, or the time is up.
    fn wait(&self, listener: Option<BorrowedFd<'_>>, most: Option<u64>) -> io::Result<()> {
        let latch = self.shared.latch().as_fd();
        let mut fds = [latch, listener.unwrap_or(latch)].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll(&mut fds, most)
    }
}

/// The body of a thread: serves connections from the queue until there are none.
fn work(serving: &Serving) {
    let _thread = CountedThread(&serving.shared);
    let mut driver = serving.driver();
    while let Some(enrolled) = serving.shared.next_work() {
        driver = driver.serve(&enrolled);
    }
}

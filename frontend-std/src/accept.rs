//! Accepting connections, and the threads that they are given to.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sanserve_os::{AcceptBackoff, AfterError};

use crate::driver::Driver;
use crate::patience::timespec;
use crate::shared::{Employment, Enrolled, Phase, Shared};

/// The stack of a thread. The deepest path of a debug build, a directory listing on a socket that
/// sends without `sendfile`, takes less than half of it.
const STACK: usize = 256 * 1024;

/// The same where somebody else's handler is called: what Rust gives by default, since nobody knows
/// what that needs. Only what is touched is memory.
const STACK_WITH_HANDLER: usize = 2 * 1024 * 1024;

/// Serves each connection on a thread of its own, of which there are at most `most`.
pub(crate) fn threaded(shared: &Arc<Shared>, listener: TcpListener, most: usize) -> io::Result<()> {
    let mut gate = Gate { shared, listener, backoff: AcceptBackoff::default() };
    let outcome = gate.pass_on(most);
    // From here on, who connects is refused and not left waiting.
    drop(gate);
    shared.enter(Phase::Draining);
    shared.close_down();
    outcome
}

/// Serves one connection after the other on this thread.
pub(crate) fn one_at_a_time(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    thread::scope(|scope| {
        // This thread is busy with a connection when the server is to end.
        let closer = Builder::new().name("sanserve-end".into()).stack_size(STACK);
        closer.spawn_scoped(scope, || {
            shared.wait_for_end();
            shared.close_down();
        })?;
        let mut gate = Gate { shared, listener, backoff: AcceptBackoff::default() };
        let outcome = gate.serve();
        shared.enter(Phase::Draining);
        outcome
    })
}

/// Where connections come in.
struct Gate<'s> {
    shared: &'s Arc<Shared>,
    listener: TcpListener,
    backoff: AcceptBackoff,
}

impl Gate<'_> {
    fn pass_on(&mut self, most: usize) -> io::Result<()> {
        while self.shared.wait_for_room(most) {
            let Some(enrolled) = self.next()? else { break };
            if self.shared.queue(enrolled) {
                self.start_thread();
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let shared = Arc::clone(self.shared);
        let mut driver = Driver::new(&shared);
        while let Some(enrolled) = self.next()? {
            driver.serve(enrolled);
        }
        Ok(())
    }

    /// Starts a thread that takes what is queued. If the system has none to give, tries again later
    /// and accepts nothing meanwhile.
    fn start_thread(&mut self) {
        let stack = if self.shared.service.handler.is_some() { STACK_WITH_HANDLER } else { STACK };
        loop {
            let builder = Builder::new().name("sanserve".into()).stack_size(stack);
            let shared = Arc::clone(self.shared);
            let Err(error) = builder.spawn(move || work(&shared)) else { return };
            let pause = self.pause_after(&error, "cannot start a thread");
            if !self.shared.wait_for_thread(pause) {
                return;
            }
        }
    }

    /// The next connection; `None`: the server goes down.
    fn next(&mut self) -> io::Result<Option<Enrolled>> {
        while self.shared.phase() == Phase::Serving {
            let error = match sanserve_os::accept(&self.listener) {
                Ok((stream, address)) => {
                    self.backoff.succeeded();
                    return Ok(self.shared.enroll(stream, address.into()));
                }
                Err(error) => error,
            };
            match self.backoff.failed(&error, self.shared.clock.tick()) {
                AfterError::Retry => {}
                AfterError::Wait => self.wait(Some(self.listener.as_fd()), None)?,
                AfterError::Pause { millis, log } => {
                    if log {
                        self.shared.service.log.error(format_args!("cannot accept: {error}"));
                    }
                    self.wait(None, Some(millis))?;
                }
            }
        }
        Ok(None)
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

    /// How long to wait after a failure that is not one of `accept`.
    fn pause_after(&mut self, error: &io::Error, what: &str) -> Duration {
        // As an error without number it is one of the system, whatever it would mean to `accept`.
        let unnumbered = io::Error::from(io::ErrorKind::OutOfMemory);
        match self.backoff.failed(&unnumbered, self.shared.clock.tick()) {
            AfterError::Pause { millis, log } => {
                if log {
                    self.shared.service.log.error(format_args!("{what}: {error}"));
                }
                Duration::from_millis(millis)
            }
            AfterError::Retry | AfterError::Wait => Duration::from_millis(1),
        }
    }
}

/// The life of a thread: one connection after the other, for as long as there are some.
fn work(shared: &Shared) {
    let _employment = Employment(shared);
    let mut driver = Driver::new(shared);
    while let Some(enrolled) = shared.next_work() {
        driver.serve(enrolled);
    }
}

//! Driving a connection while its blocking handler runs: the calls of the handler drive the connection, until the
//! event that the handler waits for.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sanserve_core::{Call, Entry, Fault, HandlerError, Input, Misuse, Now, Reply};
use sanserve_server::{Phase, panic_message};

use crate::driver::{Driver, ExchangeState, Line, Progress, context};

/// The exchange has ended for a reason outside of the handler, which is logged elsewhere.
#[derive(Debug)]
struct Ended(&'static str);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Ended {}

/// What is missing from a response when the handler returns.
enum Left {
    Nothing,
    /// The handler has not responded.
    Answer,
    /// The body is not finished.
    End,
}

impl Line {
    /// Calls the handler for the current request.
    pub(crate) fn call_blocking(&mut self) {
        self.state = ExchangeState::Open;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.ask_handler()));
        self.pushing = false;
        self.not_the_peers_time();
        let left = self.left();
        match outcome {
            Ok(Ok(())) => match left {
                Left::Nothing => {}
                Left::Answer => self.fail("it did not answer".into()),
                Left::End => {
                    if let Err(misuse) = self.reply(|reply| reply.finish()) {
                        self.fail(misuse.into());
                    }
                }
            },
            Ok(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<Ended>()) => {}
            Ok(Err(error)) => self.fail(error.into()),
            Err(panic) => {
                self.blocking_handler = None;
                self.note_failure(&format!("the handler panicked: {}", panic_message(&*panic)));
                if !matches!(left, Left::Nothing) {
                    self.session.connection.handle(Input::Broken(Fault::Handler));
                }
            }
        }
    }

    /// Ends the exchange because of an error of the handler.
    fn fail(&mut self, error: HandlerError) {
        if let Some(reason) = error.reason() {
            self.note_failure(&format!("the handler failed: {reason}"));
        }
        if self.state == ExchangeState::Open {
            self.reply(|reply| reply.fail(error));
        }
    }

    /// Has the log say why the handler failed: with the exchange, or on its own if that is over.
    fn note_failure(&mut self, why: &str) {
        if !self.reply(|reply| reply.note_failure(why)) {
            let Driver { log, shared, request, .. } = &self.driver;
            let line = request.as_deref().map_or(&b""[..], |request| request.as_request().line());
            let entry = Entry::new(self.live.peer, line).with_failure(why.as_bytes());
            log.borrow_mut().write(&entry, shared.site.policy(), self.now.wall);
        }
    }

    fn ask_handler(&mut self) -> io::Result<()> {
        let Some(blocking) = self.driver.blocking.clone() else { return Ok(()) };
        let mut blocking_handler = self.blocking_handler.take().unwrap_or_else(|| (blocking.make)());
        // A copy, because the connection continues while the handler has the request.
        let kept = self.driver.request.take();
        let request = self.reply(|reply| match kept {
            Some(mut kept) => {
                reply.request().copy_into(&mut kept);
                kept
            }
            None => Box::new(reply.request().to_buf()),
        });
        let outcome = blocking_handler.handle(self, request.as_request());
        self.driver.request = Some(request);
        self.blocking_handler = Some(blocking_handler);
        outcome
    }

    fn left(&mut self) -> Left {
        if self.state != ExchangeState::Open {
            return Left::Nothing;
        }
        self.reply(|reply| match () {
            () if reply.is_answering() => Left::End,
            () if reply.is_unanswered() && !reply.is_declined() => Left::Answer,
            () => Left::Nothing,
        })
    }

    /// Whether the response can still be begun or continued.
    pub(crate) fn is_answerable(&mut self) -> bool {
        !matches!(self.left(), Left::Nothing)
    }

    /// Passes the handler's view of the connection to `act`.
    pub(crate) fn reply<R>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> R) -> R {
        let Line { session, driver: Driver { shared, blocking, space, .. }, now, .. } = self;
        act(&mut session.reply(&mut space.buffers, &context(shared, blocking.as_deref(), now)))
    }

    /// Like `reply`, with the errors that a handler sees: for a misuse, and if the exchange is over.
    pub(crate) fn act<R>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> Result<R, Misuse>) -> io::Result<R> {
        if self.state != ExchangeState::Open {
            return Err(self.lost(io::ErrorKind::BrokenPipe));
        }
        Ok(self.reply(act)?)
    }

    /// The time that the handler took is not counted as a delay of the peer. It only counts for the date.
    pub(crate) fn not_the_peers_time(&mut self) {
        let Now { tick, .. } = self.now;
        self.read_clock();
        self.lag += self.now.tick.since(tick);
        (self.now.tick, self.now.lag) = (tick, self.lag);
    }

    /// Drives the connection until there is an event for the handler. If the exchange is over, returns an error, of
    /// the kind `gone` if the peer has reset the connection.
    pub(crate) fn go_on(&mut self, gone: io::ErrorKind) -> io::Result<()> {
        let live = Arc::clone(&self.live);
        self.not_the_peers_time();
        while self.state == ExchangeState::Open {
            match self.go(live.stream.as_fd()) {
                Progress::Done => {}
                Progress::Call(Call::Over) | Progress::End(_) => self.state = ExchangeState::Over,
                Progress::Pushed | Progress::Call(_) => return Ok(()),
            }
        }
        Err(self.lost(gone))
    }

    /// Drives the connection until everything written is sent.
    pub(crate) fn push_out(&mut self) -> io::Result<()> {
        self.pushing = true;
        let outcome = loop {
            // A call means that the handler may continue with what it waited for before.
            match self.go_on(io::ErrorKind::BrokenPipe) {
                Ok(())
                    if self.transport.has_unsent()
                        || self.driver.space.slot.has_batch()
                        || self.reply(|reply| reply.has_unsent()) => {}
                outcome => break outcome,
            }
        };
        self.pushing = false;
        outcome
    }

    /// Why nothing more can be read or written.
    pub(crate) fn lost(&mut self, gone: io::ErrorKind) -> io::Error {
        let (kind, what) = if self.state == ExchangeState::Upgraded {
            (io::ErrorKind::NotConnected, "the connection has switched to another protocol")
        } else if self.state == ExchangeState::Aborted {
            (io::ErrorKind::NotConnected, "the exchange was aborted")
        } else if self.session.phase() == Phase::Cut {
            (io::ErrorKind::ConnectionAborted, "the server shut down")
        } else if self.transport.is_reset() {
            (gone, "the peer went away")
        } else if self.deadline.is_some_and(|deadline| deadline <= self.now.tick) {
            (io::ErrorKind::TimedOut, "the peer was too slow")
        } else if self.reply(|reply| reply.is_peer_done()) {
            (io::ErrorKind::UnexpectedEof, "the request's body broke off")
        } else {
            (io::ErrorKind::InvalidData, "the request's body was refused")
        };
        io::Error::new(kind, Ended(what))
    }
}

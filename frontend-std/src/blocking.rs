//! What a connection does while its handler blocks: it goes on by itself, from within the handler's call, to
//! the event that the handler waits for.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sanserve_core::{Call, Fault, Input, Misuse, Now, Reply};
use sanserve_server::{Phase, panic_message};

use crate::driver::{Driver, ExchangeState, Line, Progress, context};
use crate::exchange::Exchange;

/// The exchange has come to an end that is none of the handler's doing. The log tells of it elsewhere.
#[derive(Debug)]
struct Ended(&'static str);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Ended {}

/// What a handler has left undone.
enum Left {
    Nothing,
    /// It has not answered.
    Answer,
    /// Its body has no end yet.
    End,
}

impl Line {
    /// Lets the handler answer the request that is there.
    pub(crate) fn attend(&mut self) {
        self.state = ExchangeState::Open;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.ask_handler()));
        self.pushing = false;
        self.not_the_peers_time();
        let left = self.left();
        let failure = match outcome {
            Ok(Ok(())) => match left {
                Left::Nothing => None,
                Left::Answer => Some("the handler failed: it did not answer".to_owned()),
                Left::End => {
                    let ended = self.reply(|reply| reply.finish());
                    ended.err().map(|misuse| format!("the handler failed: {misuse}"))
                }
            },
            Ok(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<Ended>()) => None,
            Ok(Err(error)) => Some(format!("the handler failed: {error}")),
            Err(panic) => {
                self.blocking_handler = None;
                Some(format!("the handler panicked: {}", panic_message(&*panic)))
            }
        };
        if let Some(failure) = failure {
            self.driver.shared.site.log().error(format_args!("{:?}: {failure}", self.live.peer));
            if !matches!(left, Left::Nothing) {
                self.session.connection.handle(Input::Broken(Fault::Handler));
            }
        }
    }

    fn ask_handler(&mut self) -> io::Result<()> {
        let Some(blocking) = self.driver.blocking.clone() else { return Ok(()) };
        let mut blocking_handler = self.blocking_handler.take().unwrap_or_else(|| (blocking.make)());
        // A copy, since the connection goes on while the handler has the request.
        let kept = self.driver.request.take();
        let request = self.reply(|reply| match kept {
            Some(mut kept) => {
                reply.request().copy_into(&mut kept);
                kept
            }
            None => Box::new(reply.request().to_buf()),
        });
        let outcome = blocking_handler.handle(&mut Exchange::new(self, request.as_request()));
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

    /// Whether the answer can still be begun or go on.
    pub(crate) fn is_answerable(&mut self) -> bool {
        !matches!(self.left(), Left::Nothing)
    }

    /// The handler's side of the connection.
    pub(crate) fn reply<R>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> R) -> R {
        let Line { session, driver: Driver { shared, blocking, space, .. }, now, .. } = self;
        act(&mut session.reply(&mut space.buffers, &context(shared, blocking.as_deref(), now)))
    }

    /// The same for a handler: a misuse is its error, and when the exchange is over, so is that.
    pub(crate) fn act<R>(&mut self, act: impl FnOnce(&mut Reply<'_>) -> Result<R, Misuse>) -> io::Result<R> {
        if self.state != ExchangeState::Open {
            return Err(self.lost(io::ErrorKind::BrokenPipe));
        }
        Ok(self.reply(act)?)
    }

    /// The time that has passed in the handler is no delay of the peer's: it counts for the date alone.
    pub(crate) fn not_the_peers_time(&mut self) {
        let Now { tick, .. } = self.now;
        self.read_clock();
        self.lag += self.now.tick.since(tick);
        self.now.tick = tick;
    }

    /// Goes on until there is something new for the handler. When the exchange is over, that is an error, of
    /// the kind `gone` where the peer has reset the connection.
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

    /// Goes on until all that was said is out.
    pub(crate) fn push_out(&mut self) -> io::Result<()> {
        self.pushing = true;
        let outcome = loop {
            // A call only says that the handler may go on with what it waited for before.
            match self.go_on(io::ErrorKind::BrokenPipe) {
                Ok(()) if self.driver.space.slot.has_batch() || self.reply(|reply| reply.has_unsent()) => {}
                outcome => break outcome,
            }
        };
        self.pushing = false;
        outcome
    }

    /// Why there is nothing more to read, or nobody to write to.
    pub(crate) fn lost(&mut self, gone: io::ErrorKind) -> io::Error {
        let (kind, what) = if self.state == ExchangeState::Upgraded {
            (io::ErrorKind::NotConnected, "the connection speaks another protocol")
        } else if self.state == ExchangeState::Aborted {
            (io::ErrorKind::NotConnected, "the exchange was given up")
        } else if self.session.told() == Phase::Cut {
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

//! Running a connection and its handler in one task.
//!
//! [`converse`] polls the future of the handler and the driver in turns, since the driver produces the events that
//! the handler waits for. Neither waits while it holds the lock of the driver, so the lock is never contended; it
//! exists because both use the driver, one after the other.
//!
//! While the handler waits for something else, the driver continues: it sends pending data, observes deadlines, and
//! notices a shutdown or a disconnect.

use std::any::Any;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use sanserve_core::{Call, Close, Reply, RequestBuf};
use sanserve_server::panic_message;
use smol::future::FutureExt as _;

use crate::driver::{Driver, Erased, Event, HandlerTask, Stage, lock};
use crate::spawn::Spawn;
use crate::upgrade::Upgraded;

/// How often handler and driver alternate before other tasks have their turn.
const ROUNDS: u32 = 32;

impl HandlerTask {
    /// Whether the handler must be polled for this call.
    pub(crate) fn concerns_handler(&mut self, call: Call, reply: &Reply<'_>) -> bool {
        match (call, self.stage) {
            (Call::Request, _) => self.next = true,
            (Call::Over, Stage::Speaking) => {
                self.ended_early = reply.is_peer_done();
                self.died = reply.is_unanswered() || reply.is_answering();
                return self.died;
            }
            // An asynchronous handler queries this with `Exchange::draining`.
            (Call::Over, _) | (Call::Drain, _) => return false,
            (Call::Body | Call::Room | Call::Wake, stage) => return stage == Stage::Speaking,
        }
        true
    }

    /// Records the end of an exchange. Returns whether the handler must be polled.
    pub(crate) fn finished(&mut self, status: u16) -> bool {
        let speaking = self.stage == Stage::Speaking;
        if speaking {
            (self.stage, self.status) = (Stage::Over, status);
        }
        speaking
    }

    /// The reason why the body cannot be read any further.
    pub(crate) fn broken_body(&mut self) -> io::Error {
        self.is_body_broken = true;
        match self.status {
            _ if self.ended_early => io::Error::new(ErrorKind::UnexpectedEof, "the request's body broke off"),
            408 => io::Error::new(ErrorKind::TimedOut, "the request's body was too slow"),
            417 => io::Error::new(ErrorKind::PermissionDenied, "the request's body was refused"),
            _ => io::Error::new(ErrorKind::InvalidData, "the request's body is broken, or was not wanted"),
        }
    }

    /// Wakes the handler. It is polled in any case; its parts may have wakers of their own.
    fn wake(&mut self, task: &Waker) {
        self.flushes = false;
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            if !waker.will_wake(task) {
                waker.wake();
            }
        }
    }
}

/// What to do with the handler next.
enum Attended {
    /// Poll it: something has happened.
    Again,
    /// Drop it.
    Dead,
}

/// How the handler's future ended.
type Outcome = Result<io::Result<()>, Box<dyn Any + Send>>;

impl Driver {
    fn talk(&mut self) -> &mut HandlerTask {
        self.talk.get_or_insert_default()
    }

    /// Like [`poll`](Driver::poll), also after the handler has run.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.talk.as_deref() {
            Some(HandlerTask { closed: true, .. }) => Poll::Ready(Event::Over(Close::Broken)),
            Some(HandlerTask { next: true, .. }) => Poll::Ready(Event::Call),
            _ => self.poll(cx),
        }
    }

    /// Drives the connection while the handler waits. `Pending`: both wait.
    fn attend(&mut self, cx: &mut Context<'_>) -> Poll<Attended> {
        let is_cut = self.is_cut();
        let talk = self.talk();
        if talk.closed || talk.next {
            if !talk.closed {
                self.push_out(cx);
            }
            return if is_cut { Poll::Ready(Attended::Dead) } else { Poll::Pending };
        }
        // A wait that the handler has not touched continues: the wake-up was not for it.
        let event = if self.is_waiting() { Poll::Pending } else { self.poll(cx) };
        let is_out = event.is_pending() && self.talk().flushes && self.is_all_out();
        let talk = self.talk();
        match event {
            Poll::Pending if is_out => {}
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Event::Call) if talk.died => return Poll::Ready(Attended::Dead),
            Poll::Ready(Event::Call) => {}
            Poll::Ready(Event::Over(close)) => {
                talk.closed = true;
                if talk.stage == Stage::Speaking {
                    return Poll::Ready(Attended::Dead);
                }
                self.part(close);
            }
        }
        self.talk().wake(cx.waker());
        Poll::Ready(Attended::Again)
    }

    /// Handles the end of a connection whose handler is still running: the handler gets the socket if it has asked
    /// for it, else the socket is closed.
    fn part(&mut self, close: Close) {
        let (socket, read) = self.take_socket();
        if close == Close::Upgraded {
            let upgraded = socket.into_fd().and_then(|socket| Upgraded::new(socket, read));
            self.talk().upgraded = Some(upgraded);
        }
    }

    /// Finishes the exchange after the handler has ended.
    fn settle(&mut self, outcome: Option<Outcome>) {
        let is_open = self.look(|reply| (reply.is_unanswered(), reply.is_answering()));
        let failure = match (&outcome, is_open) {
            (None, _) => None,
            (Some(Err(panic)), _) => Some(format!("the handler panicked: {}", panic_message(&**panic))),
            (Some(Ok(Err(_))), _) if self.talk().is_body_broken => None,
            (Some(Ok(Err(error))), _) => Some(format!("the handler failed: {error}")),
            (Some(Ok(Ok(()))), Some((true, _))) => Some("the handler failed: it did not answer".to_owned()),
            (Some(Ok(Ok(()))), Some((_, true))) => self
                .reply(|reply| reply.finish())
                .err()
                .map(|_| "the handler failed: its answer is shorter than it announced".to_owned()),
            (Some(Ok(Ok(()))), _) => None,
        };
        if let Some(failure) = failure {
            self.shared.site.log().error(format_args!("{:?}: {failure}", self.session.connection.peer()));
        }
        let is_whole = matches!(outcome, Some(Ok(Ok(()))));
        if let Some((unanswered, answering)) = is_open {
            if unanswered || (answering && !is_whole) {
                self.tell(|reply| reply.abort());
            }
        }
    }
}

impl Driver {
    /// Spawns the task.
    pub(crate) fn spawn(self, executor: &impl Spawn) {
        let task = async move {
            let shared = Arc::clone(&self.shared);
            let peer = self.session.connection.peer();
            let mut driver = Mutex::new(self);
            // A panic of the policy, or a bug, only ends this connection.
            if let Err(panic) = AssertUnwindSafe(drive(&mut driver)).catch_unwind().await {
                shared.site.log_panic(peer, &*panic);
            }
        };
        executor.spawn_detached(task);
    }
}

async fn drive(driver: &mut Mutex<Driver>) {
    loop {
        let event = poll_fn(|cx| driver.get_mut().unwrap_or_else(PoisonError::into_inner).next(cx)).await;
        let close = match event {
            Event::Call => {
                // Boxed, so that a connection without a handler is small.
                Box::pin(converse(driver)).await;
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

/// Runs the handler for the current request, and finishes the exchange.
async fn converse(driver: &Mutex<Driver>) {
    let Some((request, mut handler)) = begin(driver) else { return };
    let shared = Arc::clone(&lock(driver).shared);
    let outcome = {
        let speech = async {
            let handler = match (&mut handler, &shared.make) {
                (Some(handler), _) => handler,
                (none, Some(make)) => none.insert(make()),
                (None, None) => unreachable!("no handler for this request"),
            };
            handler.handle(driver, request).await
        };
        let mut speech = pin!(AssertUnwindSafe(speech).catch_unwind());
        let mut is_begun = false;
        poll_fn(|cx| {
            // Events of the connection come before the handler is polled.
            if mem::replace(&mut is_begun, true) {
                let mut driver = lock(driver);
                driver.wake_up(cx);
                if let Poll::Ready(Attended::Dead) = driver.attend(cx) {
                    return Poll::Ready(None);
                }
            }
            lock(driver).freshen();
            for _ in 0..ROUNDS {
                if let Poll::Ready(outcome) = speech.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                match lock(driver).attend(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Attended::Again) => {}
                    Poll::Ready(Attended::Dead) => return Poll::Ready(None),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    };
    let mut driver = lock(driver);
    let panicked = matches!(outcome, Some(Err(_)));
    driver.settle(outcome);
    let talk = driver.talk();
    let (next, closed) = (talk.next, talk.closed);
    *talk = HandlerTask { handler: handler.filter(|_| !panicked), next, closed, ..HandlerTask::default() };
}

/// The current request, and the handler, if it was made before.
fn begin(driver: &Mutex<Driver>) -> Option<(RequestBuf, Option<Box<dyn Erased>>)> {
    let mut driver = lock(driver);
    let talk = driver.talk();
    talk.next = false;
    talk.stage = Stage::Speaking;
    let handler = talk.handler.take();
    let request = driver.look(|reply| reply.request().to_buf())?;
    Some((request, handler))
}

//! Running a connection and its handler in one task.
//!
//! [`run_handler`] polls the future of the handler and the driver in turns, since the driver produces the events that
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

use sanserve_core::{Call, Close, Entry, HandlerError, Reply, RequestBuf};
use sanserve_server::panic_message;
use smol::future::FutureExt as _;

use crate::driver::{Driver, Erased, Event, Failed, HandlerTask, Stage, lock};
use crate::spawn::Spawn;
use crate::upgrade::Upgraded;

/// How often handler and driver alternate before other tasks have their turn.
const ROUNDS: u32 = 32;

impl HandlerTask {
    /// Whether the handler must be polled for this call.
    pub(crate) fn concerns_handler(&mut self, call: Call, reply: &Reply<'_>) -> bool {
        match (call, self.stage) {
            (Call::Request, _) => self.next = true,
            (Call::Over, Stage::Active) => {
                self.ended_early = reply.is_peer_done();
                self.died = reply.is_unanswered() || reply.is_answering();
                return self.died;
            }
            // An asynchronous handler queries this with `Exchange::draining`.
            (Call::Over, _) | (Call::Drain, _) => return false,
            (Call::Body | Call::Room | Call::Wake, stage) => return stage == Stage::Active,
        }
        true
    }

    /// Records the end of an exchange. Returns whether the handler must be polled.
    pub(crate) fn finished(&mut self, status: u16) -> bool {
        let active = self.stage == Stage::Active;
        if active {
            (self.stage, self.status) = (Stage::Over, status);
        }
        active
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
enum HandlerAction {
    /// Poll it: something has happened.
    Continue,
    /// Drop it.
    Drop,
}

/// How the handler's future ended.
type Outcome = Result<Result<(), Box<Failed>>, Box<dyn Any + Send>>;

impl Driver {
    fn handler_task(&mut self) -> &mut HandlerTask {
        self.handler_task.get_or_insert_default()
    }

    /// Like [`poll`](Driver::poll), also after the handler has run.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.handler_task.as_deref() {
            Some(HandlerTask { closed: true, .. }) => Poll::Ready(Event::Over(Close::Broken)),
            Some(HandlerTask { next: true, .. }) => Poll::Ready(Event::Call),
            _ => self.poll(cx),
        }
    }

    /// Drives the connection while the handler waits. `Pending`: both wait.
    fn drive_for_handler(&mut self, cx: &mut Context<'_>) -> Poll<HandlerAction> {
        let is_cut = self.is_cut();
        let handler_task = self.handler_task();
        if handler_task.closed || handler_task.next {
            if !handler_task.closed {
                self.push_out(cx);
            }
            return if is_cut { Poll::Ready(HandlerAction::Drop) } else { Poll::Pending };
        }
        // A wait that the handler has not touched continues: the wake-up was not for it.
        let event = if self.is_waiting() { Poll::Pending } else { self.poll(cx) };
        let is_out = event.is_pending() && self.handler_task().flushes && self.is_all_out();
        let handler_task = self.handler_task();
        match event {
            Poll::Pending if is_out => {}
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Event::Call) if handler_task.died => return Poll::Ready(HandlerAction::Drop),
            Poll::Ready(Event::Call) => {}
            Poll::Ready(Event::Over(close)) => {
                handler_task.closed = true;
                if handler_task.stage == Stage::Active {
                    return Poll::Ready(HandlerAction::Drop);
                }
                self.part(close);
            }
        }
        self.handler_task().wake(cx.waker());
        Poll::Ready(HandlerAction::Continue)
    }

    /// Handles the end of a connection whose handler is still running: the handler gets the socket if it has asked
    /// for it, else the socket is closed.
    fn part(&mut self, close: Close) {
        let (socket, read, secure) = self.take_socket();
        if close == Close::Upgraded {
            let upgraded = socket.into_fd().and_then(|socket| Upgraded::new(socket, read, secure));
            self.handler_task().upgraded = Some(upgraded);
        }
    }

    /// Finishes the exchange after the handler has ended.
    fn settle(&mut self, outcome: Option<Outcome>) {
        match outcome {
            None => self.modify(|reply| {
                if reply.is_unanswered() || reply.is_answering() {
                    reply.abort();
                }
            }),
            Some(Err(panic)) => {
                self.note_failure(&format!("the handler panicked: {}", panic_message(&*panic)), b"");
                self.modify(|reply| reply.abort());
            }
            Some(Ok(Err(_))) if self.handler_task().is_body_broken => self.modify(|reply| reply.abort()),
            Some(Ok(Err(failed))) => self.fail(failed.error.into(), &failed.line),
            Some(Ok(Ok(()))) => match self.inspect(|reply| (reply.is_unanswered(), reply.is_answering())) {
                Some((true, _)) => self.fail("it did not answer".into(), b""),
                Some((_, true)) if self.reply(|reply| reply.finish()).is_err() => {
                    self.fail("its answer is shorter than it announced".into(), b"");
                }
                _ => {}
            },
        }
    }

    /// Ends the exchange because of an error of the handler.
    fn fail(&mut self, error: HandlerError, line: &[u8]) {
        if let Some(reason) = error.reason() {
            self.note_failure(&format!("the handler failed: {reason}"), line);
        }
        self.modify(|reply| reply.fail(error));
    }

    /// Has the log say why the handler failed: with the exchange, or on its own if that is over.
    fn note_failure(&mut self, why: &str, line: &[u8]) {
        if self.inspect(|reply| reply.note_failure(why)) != Some(true) {
            let entry = Entry::new(self.session.connection.peer(), line).with_failure(why.as_bytes());
            let Driver { shared, lease, .. } = self;
            match lease.as_deref_mut() {
                Some(lease) => lease.log.write(&entry, shared.site.policy(), lease.now.wall),
                None => shared.site.log().logger().write(&entry, shared.site.policy(), shared.clock.now().wall),
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
                Box::pin(run_handler(driver)).await;
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
async fn run_handler(driver: &Mutex<Driver>) {
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
                if let Poll::Ready(HandlerAction::Drop) = driver.drive_for_handler(cx) {
                    return Poll::Ready(None);
                }
            }
            lock(driver).freshen();
            for _ in 0..ROUNDS {
                if let Poll::Ready(outcome) = speech.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                match lock(driver).drive_for_handler(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(HandlerAction::Continue) => {}
                    Poll::Ready(HandlerAction::Drop) => return Poll::Ready(None),
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
    let handler_task = driver.handler_task();
    let (next, closed) = (handler_task.next, handler_task.closed);
    *handler_task = HandlerTask { handler: handler.filter(|_| !panicked), next, closed, ..HandlerTask::default() };
}

/// The current request, and the handler, if it was made before.
fn begin(driver: &Mutex<Driver>) -> Option<(RequestBuf, Option<Box<dyn Erased>>)> {
    let mut driver = lock(driver);
    let handler_task = driver.handler_task();
    handler_task.next = false;
    handler_task.stage = Stage::Active;
    let handler = handler_task.handler.take();
    let request = driver.inspect(|reply| reply.request().to_buf())?;
    Some((request, handler))
}

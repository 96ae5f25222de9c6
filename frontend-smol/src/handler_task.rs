//! A connection and its handler in one task.
//!
//! [`converse`] polls the handler's future, then lets the driver go on, and so in turn: what the handler
//! waits for, the driver brings about. Neither waits while it holds the driver's lock, so that
//! is never contended; it is there because both have the driver, one after the other.
//!
//! While the handler waits for something of its own, the driver goes on all the same: it sends what is
//! there, keeps deadlines, notes the end of the server, and sees a peer go away.

use std::any::Any;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use sanserve_core::{Call, Close, Handler, Reply};
use sanserve_server::panic_message;
use smol::future::FutureExt as _;

use crate::driver::{Driver, Event, lock};
use crate::exchange::{Exchange, Known};
use crate::handler::Erased;
use crate::socket::Socket;
use crate::upgrade::Upgraded;

/// How often handler and driver take turns before the other tasks have theirs.
const ROUNDS: u32 = 32;

/// What a connection and its handler know of each other.
#[derive(Default)]
pub(crate) struct HandlerTask {
    /// The site's own handler, if it is that which is called. Made with the first call.
    pub(crate) portable: Option<Box<dyn Handler + Send>>,
    /// The asynchronous one, while it does not handle. Made with the first request.
    pub(crate) handler: Option<Box<dyn Erased>>,
    pub(crate) stage: Stage,
    /// The exchange ended before its answer was complete: nobody waits for the handler.
    died: bool,
    /// The next request for the handler is there.
    next: bool,
    /// The connection is closed, or is no longer HTTP.
    pub(crate) closed: bool,
    /// The peer had ended its side when the exchange ended.
    ended_early: bool,
    /// With what the exchange was answered.
    status: u16,
    /// The handler was told that the request's body is broken, so what it fails with is not its fault.
    pub(crate) is_body_broken: bool,
    /// Who waits for the body, and who waits to write it.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// The writer waits until all is out.
    pub(crate) flushes: bool,
    /// The handler waits for the connection itself.
    pub(crate) upgraded: Option<io::Result<Upgraded>>,
}

/// How far the handler is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It does not handle.
    #[default]
    Silent,
    /// It handles the current exchange.
    Speaking,
    /// That exchange is over, or no longer its own, and it has not returned yet.
    Over,
}

impl HandlerTask {
    /// Whether it takes the handler to go on.
    pub(crate) fn hears(&mut self, call: Call, reply: &Reply<'_>) -> bool {
        match (call, self.stage) {
            (Call::Request, _) => self.next = true,
            (Call::Over, Stage::Speaking) => {
                self.ended_early = reply.is_peer_done();
                self.died = reply.is_unanswered() || reply.is_answering();
                return self.died;
            }
            // It asks by itself: `Exchange::draining`.
            (Call::Over, _) | (Call::Drain, _) => return false,
            (Call::Body | Call::Room | Call::Wake, stage) => return stage == Stage::Speaking,
        }
        true
    }

    /// An exchange is over. Whether that is for the handler to know.
    pub(crate) fn finished(&mut self, status: u16) -> bool {
        let speaking = self.stage == Stage::Speaking;
        if speaking {
            (self.stage, self.status) = (Stage::Over, status);
        }
        speaking
    }

    /// Why there is no more of the body.
    pub(crate) fn broken_body(&mut self) -> io::Error {
        self.is_body_broken = true;
        match self.status {
            _ if self.ended_early => io::Error::new(ErrorKind::UnexpectedEof, "the request's body broke off"),
            408 => io::Error::new(ErrorKind::TimedOut, "the request's body was too slow"),
            417 => io::Error::new(ErrorKind::PermissionDenied, "the request's body was refused"),
            _ => io::Error::new(ErrorKind::InvalidData, "the request's body is broken, or was not wanted"),
        }
    }

    /// What the handler waits for may be there. It is polled in any case; its parts may have wakers of
    /// their own.
    fn wake(&mut self, task: &Waker) {
        self.flushes = false;
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            if !waker.will_wake(task) {
                waker.wake();
            }
        }
    }
}

/// What becomes of the handler next.
enum Attended {
    /// It is polled: something has happened.
    Again,
    /// It is dropped.
    Dead,
}

/// How the handler's future ended.
type Outcome = Result<io::Result<()>, Box<dyn Any + Send>>;

impl Driver {
    fn talk(&mut self) -> &mut HandlerTask {
        self.talk.get_or_insert_default()
    }

    /// As [`poll`](Driver::poll), after a conversation too.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.talk.as_deref() {
            Some(HandlerTask { closed: true, .. }) => Poll::Ready(Event::Over(Close::Broken)),
            Some(HandlerTask { next: true, .. }) => Poll::Ready(Event::Call),
            _ => self.poll(cx),
        }
    }

    /// Goes on while the handler waits. `Pending`: so does the driver.
    fn attend(&mut self, cx: &mut Context<'_>) -> Poll<Attended> {
        let is_cut = self.is_cut();
        let talk = self.talk();
        if talk.closed || talk.next {
            if !talk.closed {
                self.push_out(cx);
            }
            return if is_cut { Poll::Ready(Attended::Dead) } else { Poll::Pending };
        }
        // A wait that the handler has left alone goes on: what has woken the task is no news to it.
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

    /// The connection is over and the handler is not: it gets the socket if it has asked for it, else
    /// that is closed.
    fn part(&mut self, close: Close) {
        let (socket, read) = self.take_socket();
        if close == Close::Upgraded {
            let stream = Socket::into_async(socket);
            self.talk().upgraded = Some(stream.map(|stream| Upgraded { stream, read }));
        }
    }

    /// The handler has ended; what it left open is closed.
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

/// Lets the handler handle the request that is there, and settles how it ends.
pub(crate) async fn converse(driver: &Mutex<Driver>) {
    let Some((known, mut handler)) = begin(driver) else { return };
    let mut exchange = Exchange::new(driver, &known);
    let outcome = {
        let speech = async {
            let handler = match (&mut handler, &known.shared.make) {
                (Some(handler), _) => handler,
                (none, Some(make)) => none.insert(make()),
                (None, None) => unreachable!("a conversation without handler"),
            };
            handler.handle(&mut exchange).await
        };
        let mut speech = pin!(AssertUnwindSafe(speech).catch_unwind());
        let mut is_begun = false;
        poll_fn(|cx| {
            // What has happened meanwhile comes before what the handler makes of it.
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

/// What is known of the current exchange, and the handler, if that has been made before.
fn begin(driver: &Mutex<Driver>) -> Option<(Known, Option<Box<dyn Erased>>)> {
    let mut driver = lock(driver);
    let talk = driver.talk();
    talk.next = false;
    talk.stage = Stage::Speaking;
    let handler = talk.handler.take();
    let request = driver.look(|reply| reply.request().to_buf())?;
    Some((Known::new(request, &driver.shared), handler))
}

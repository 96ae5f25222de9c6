//! Waking connections from any thread. Each loop has a [`LoopWaker`], and an exchange has a [`ConnWaker`], made when
//! its handler asks for a waker. Connections that never ask pay nothing.
//!
//! A `ConnWaker` belongs to one exchange, and the loop recognizes it by its address. So a waker that is kept for too
//! long wakes neither the next exchange nor the next connection with the same number.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use mio::{Registry, Token, Waker};

/// Interrupts a loop that waits, and collects the connections to wake.
#[derive(Debug)]
pub(crate) struct LoopWaker {
    waker: Waker,
    /// The connections to wake; `None` when the loop has ended.
    woken: Mutex<Option<Vec<Arc<ConnWaker>>>>,
}

impl LoopWaker {
    /// The waker of a loop. A poll can have only one.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<LoopWaker> {
        Ok(LoopWaker { waker: Waker::new(registry, token)?, woken: Mutex::new(Some(Vec::new())) })
    }

    /// Interrupts the loop, without waking a connection.
    pub(crate) fn wake(&self) {
        // Fails only if the loop is gone, and then there is nothing to wake.
        let _ = self.waker.wake();
    }

    /// Moves the connections that were woken since the last call to `woken`, which is empty. The next wake-up
    /// interrupts the loop again.
    pub(crate) fn take_woken(&self, woken: &mut Vec<Arc<ConnWaker>>) {
        if let Some(pending) = &mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner) {
            std::mem::swap(pending, woken);
        }
    }

    /// The loop has ended.
    pub(crate) fn close(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One interruption suffices for all connections that are woken until the loop takes them.
    fn wake_connection(&self, conn_waker: Arc<ConnWaker>) {
        let is_first = match &mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(woken) => {
                woken.push(conn_waker);
                woken.len() == 1
            }
            None => false,
        };
        if is_first {
            self.wake();
        }
    }
}

/// The state behind a waker.
#[derive(Debug)]
pub(crate) struct ConnWaker {
    loop_waker: Arc<LoopWaker>,
    /// The number of the connection.
    at: u32,
    /// The loop was already interrupted for this exchange, or need not be, because the exchange is over.
    set: AtomicBool,
}

impl ConnWaker {
    pub(crate) fn at(&self) -> u32 {
        self.at
    }
}

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        if !self.set.swap(true, Ordering::AcqRel) {
            let loop_waker = Arc::clone(&self.loop_waker);
            loop_waker.wake_connection(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.set.swap(true, Ordering::AcqRel) {
            self.loop_waker.wake_connection(Arc::clone(self));
        }
    }
}

/// The waker of the current exchange. When the exchange is over, its wakers have no effect.
pub(crate) struct ExchangeWaker(Arc<ConnWaker>);

impl ExchangeWaker {
    pub(crate) fn new(loop_waker: &Arc<LoopWaker>, at: u32) -> ExchangeWaker {
        ExchangeWaker(Arc::new(ConnWaker { loop_waker: Arc::clone(loop_waker), at, set: AtomicBool::new(false) }))
    }

    /// Consumes a wake-up if it was meant for this exchange. Returns whether it was.
    pub(crate) fn was_woken_by(&self, conn_waker: &Arc<ConnWaker>) -> bool {
        // The swap synchronizes with the waking thread, even if the flag was already set: everything it did before is
        // visible.
        Arc::ptr_eq(&self.0, conn_waker) && self.0.set.swap(false, Ordering::AcqRel)
    }
}

impl Deref for ExchangeWaker {
    type Target = Arc<ConnWaker>;

    fn deref(&self) -> &Arc<ConnWaker> {
        &self.0
    }
}

impl Drop for ExchangeWaker {
    fn drop(&mut self) {
        self.0.set.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const TOKEN: Token = Token(7);

    fn loop_waker() -> (Poll, Arc<LoopWaker>) {
        let poll = Poll::new().unwrap();
        let loop_waker = Arc::new(LoopWaker::new(poll.registry(), TOKEN).unwrap());
        (poll, loop_waker)
    }

    fn is_interrupted(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().any(|event| event.token() == TOKEN)
    }

    fn taken(loop_waker: &LoopWaker) -> Vec<Arc<ConnWaker>> {
        let mut woken = Vec::new();
        loop_waker.take_woken(&mut woken);
        woken
    }

    #[test]
    fn one_interruption_per_batch() {
        let (mut poll, loop_waker) = loop_waker();
        let own: Vec<ExchangeWaker> = (0..100).map(|at| ExchangeWaker::new(&loop_waker, at)).collect();
        assert!(!is_interrupted(&mut poll));
        own.iter().for_each(|own| Arc::clone(own).wake());
        own.iter().for_each(|own| own.wake_by_ref());
        assert!(is_interrupted(&mut poll) && !is_interrupted(&mut poll));
        let woken = taken(&loop_waker);
        assert_eq!(woken.iter().map(|conn_waker| conn_waker.at()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(own.iter().zip(&woken).all(|(own, conn_waker)| own.was_woken_by(conn_waker)));
        own[3].wake_by_ref();
        assert!(is_interrupted(&mut poll));
        assert_eq!(taken(&loop_waker).len(), 1);
    }

    #[test]
    fn wakers_of_finished_exchanges_have_no_effect() {
        let (mut poll, loop_waker) = loop_waker();
        let own = ExchangeWaker::new(&loop_waker, 5);
        let (early, late) = (Arc::clone(&own), Arc::clone(&own));
        early.wake();
        drop(own);
        let next = ExchangeWaker::new(&loop_waker, 5);
        assert!(is_interrupted(&mut poll));
        assert!(
            taken(&loop_waker).iter().all(|conn_waker| !next.was_woken_by(conn_waker)),
            "the number is the same, the exchange is not"
        );
        late.wake();
        assert!(!is_interrupted(&mut poll));
        next.wake_by_ref();
        assert!(is_interrupted(&mut poll));
    }

    #[test]
    fn a_loop_that_has_ended_collects_nothing() {
        let (_, loop_waker) = loop_waker();
        let own = ExchangeWaker::new(&loop_waker, 5);
        own.wake_by_ref();
        loop_waker.close();
        assert_eq!(Arc::strong_count(&own), 1);
        let other = ExchangeWaker::new(&loop_waker, 6);
        other.wake_by_ref();
        assert_eq!(Arc::strong_count(&other), 1);
    }
}

//! Waking connections from any thread: each loop has a bell, and a connection an alarm, made when its
//! handler asks for a waker. Connections that never ask pay nothing.
//!
//! An alarm is one exchange's. The loop knows it by where it lies in memory, so a waker that is kept for
//! too long wakes neither the next exchange nor the next connection with the same number.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use mio::{Registry, Token, Waker};

/// Interrupts the waiting of a loop, and says for whom.
#[derive(Debug)]
pub(crate) struct LoopWaker {
    waker: Waker,
    /// Who is to be woken; `None` when the loop has ended.
    rung: Mutex<Option<Vec<Arc<ConnWaker>>>>,
}

impl LoopWaker {
    /// The bell of a loop; a poll can have one only.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<LoopWaker> {
        Ok(LoopWaker { waker: Waker::new(registry, token)?, rung: Mutex::new(Some(Vec::new())) })
    }

    /// Interrupts the loop, for nobody in particular.
    pub(crate) fn ring(&self) {
        // It fails only if the loop is gone, and then there is nobody to wake.
        let _ = self.waker.wake();
    }

    /// Moves to `woken`, which is empty, who was woken since the last time. The first after that rings again.
    pub(crate) fn answer(&self, woken: &mut Vec<Arc<ConnWaker>>) {
        if let Some(rung) = &mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner) {
            std::mem::swap(rung, woken);
        }
    }

    /// Nobody answers any more.
    pub(crate) fn silence(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One interruption suffices for all that are woken until it is answered.
    fn ring_for(&self, conn_waker: Arc<ConnWaker>) {
        let is_first = match &mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(rung) => {
                rung.push(conn_waker);
                rung.len() == 1
            }
            None => false,
        };
        if is_first {
            self.ring();
        }
    }
}

/// What a waker is made of.
#[derive(Debug)]
pub(crate) struct ConnWaker {
    loop_waker: Arc<LoopWaker>,
    /// The number of the connection.
    at: u32,
    /// The bell has been rung for it, or need not be: the exchange is over.
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
            loop_waker.ring_for(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.set.swap(true, Ordering::AcqRel) {
            self.loop_waker.ring_for(Arc::clone(self));
        }
    }
}

/// The alarm of the current exchange. When that is over, its wakers do nothing.
pub(crate) struct ExchangeWaker(Arc<ConnWaker>);

impl ExchangeWaker {
    pub(crate) fn new(loop_waker: &Arc<LoopWaker>, at: u32) -> ExchangeWaker {
        ExchangeWaker(Arc::new(ConnWaker { loop_waker: Arc::clone(loop_waker), at, set: AtomicBool::new(false) }))
    }

    /// Takes note of a wake-up if it was meant for this exchange.
    pub(crate) fn hears(&self, conn_waker: &Arc<ConnWaker>) -> bool {
        // Reading what was written sees all that the waking thread did before, even where it found it set already.
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

    fn rings(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().any(|event| event.token() == TOKEN)
    }

    fn answer(loop_waker: &LoopWaker) -> Vec<Arc<ConnWaker>> {
        let mut woken = Vec::new();
        loop_waker.answer(&mut woken);
        woken
    }

    #[test]
    fn one_interruption_a_batch() {
        let (mut poll, loop_waker) = loop_waker();
        let own: Vec<ExchangeWaker> = (0..100).map(|at| ExchangeWaker::new(&loop_waker, at)).collect();
        assert!(!rings(&mut poll));
        own.iter().for_each(|own| Arc::clone(own).wake());
        own.iter().for_each(|own| own.wake_by_ref());
        assert!(rings(&mut poll) && !rings(&mut poll));
        let woken = answer(&loop_waker);
        assert_eq!(woken.iter().map(|conn_waker| conn_waker.at()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(own.iter().zip(&woken).all(|(own, conn_waker)| own.hears(conn_waker)));
        own[3].wake_by_ref();
        assert!(rings(&mut poll));
        assert_eq!(answer(&loop_waker).len(), 1);
    }

    #[test]
    fn wakers_of_what_is_over_do_nothing() {
        let (mut poll, loop_waker) = loop_waker();
        let own = ExchangeWaker::new(&loop_waker, 5);
        let (early, late) = (Arc::clone(&own), Arc::clone(&own));
        early.wake();
        drop(own);
        let next = ExchangeWaker::new(&loop_waker, 5);
        assert!(rings(&mut poll));
        assert!(
            answer(&loop_waker).iter().all(|conn_waker| !next.hears(conn_waker)),
            "the number is the same, the exchange is not"
        );
        late.wake();
        assert!(!rings(&mut poll));
        next.wake_by_ref();
        assert!(rings(&mut poll));
    }

    #[test]
    fn nothing_is_kept_for_a_loop_that_has_ended() {
        let (_, loop_waker) = loop_waker();
        let own = ExchangeWaker::new(&loop_waker, 5);
        own.wake_by_ref();
        loop_waker.silence();
        assert_eq!(Arc::strong_count(&own), 1);
        let other = ExchangeWaker::new(&loop_waker, 6);
        other.wake_by_ref();
        assert_eq!(Arc::strong_count(&other), 1);
    }
}

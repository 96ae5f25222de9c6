//! A bound on the threads that carry out long steps at the same time: sorting a batch of directory entries, formatting a
//! piece of a listing, or sending the next piece of a large file.
//!
//! The system shares the processors among all threads that can run. With thirty listings or downloads at once, a thread
//! that has a small file to send would be one of thirty-one. With the bound, it competes with few.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a thread waits for a permit to continue a listing while none is returned. Then it continues without one: the
/// permits may be held by threads that wait for a disk that does not respond, which must not delay listings of other
/// disks.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// The same for the next piece of a file, which takes far less time to send if it is in memory. So a slow disk hardly
/// delays downloads from elsewhere.
const MAX_WAIT_TO_SEND: Duration = Duration::from_millis(2);

/// Permits for long steps. A permit that is returned while threads are waiting goes to the one that has waited for
/// longest, and the thread that has returned it has to wait for the next one. So a thread with many long steps does not
/// keep the processor from one that was just woken.
#[derive(Debug)]
pub(crate) struct LongSteps {
    permits: Mutex<Permits>,
    max_wait: Duration,
}

#[derive(Debug)]
struct Permits {
    free: usize,
    /// The threads that wait, while none is free.
    queue: VecDeque<Arc<Waiter>>,
    /// How often one was returned.
    returns: u64,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    /// Changed with the lock.
    has_permit: AtomicBool,
}

/// The permission to carry out one long step. Returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'p>(&'p LongSteps);

impl LongSteps {
    /// For listings: one permit for two processors, and at least one, so that a processor is left for other threads.
    pub(crate) fn new() -> LongSteps {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        LongSteps::with_permits(processors.div_ceil(2), MAX_WAIT)
    }

    /// For pieces of files: one permit for each processor.
    pub(crate) fn to_send() -> LongSteps {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        LongSteps::with_permits(processors, MAX_WAIT_TO_SEND)
    }

    fn with_permits(free: usize, max_wait: Duration) -> LongSteps {
        LongSteps { permits: Mutex::new(Permits { free, queue: VecDeque::new(), returns: 0 }), max_wait }
    }

    /// Waits for a permit; `None` if none was returned for too long.
    pub(crate) fn enter(&self) -> Option<Permit<'_>> {
        let mut permits = self.permits();
        if permits.free > 0 {
            permits.free -= 1;
            return Some(Permit(self));
        }
        let mut returns = permits.returns;
        let waiter = Arc::new(Waiter { thread: thread::current(), has_permit: AtomicBool::new(false) });
        permits.queue.push_back(Arc::clone(&waiter));
        drop(permits);
        let mut until = Instant::now() + self.max_wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            }
            if waiter.has_permit.load(Ordering::Acquire) {
                return Some(Permit(self));
            }
            if left.is_zero() {
                let mut permits = self.permits();
                if waiter.has_permit.load(Ordering::Acquire) {
                    return Some(Permit(self));
                }
                if permits.returns == returns {
                    permits.queue.retain(|other| !Arc::ptr_eq(other, &waiter));
                    return None;
                }
                returns = permits.returns;
                until = Instant::now() + self.max_wait;
            }
        }
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut permits = self.0.permits();
        permits.returns += 1;
        let next = permits.queue.pop_front();
        match &next {
            Some(next) => next.has_permit.store(true, Ordering::Release),
            None => permits.free += 1,
        }
        drop(permits);
        if let Some(next) = next {
            next.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn permits_are_limited() {
        let (steps, held, entered) = (LongSteps::with_permits(2, MAX_WAIT), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let Some(permit) = steps.enter() else { continue };
                        assert!(held.fetch_add(1, Ordering::SeqCst) < 2);
                        thread::yield_now();
                        held.fetch_sub(1, Ordering::SeqCst);
                        entered.fetch_add(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(entered.into_inner() > 0);
        assert_eq!(steps.permits().free, 2);
    }

    #[test]
    fn a_permit_goes_to_whoever_has_waited_for_longest() {
        let (steps, order) = (LongSteps::with_permits(1, Duration::from_secs(60)), Mutex::new(Vec::new()));
        let waiting = || steps.permits().queue.len();
        let first = steps.enter().expect("the first permit");
        thread::scope(|scope| {
            for n in 0..4 {
                let (steps, order) = (&steps, &order);
                scope.spawn(move || {
                    let permit = steps.enter().expect("in time");
                    order.lock().unwrap().push(n);
                    drop(permit);
                });
                while waiting() <= n {
                    thread::yield_now();
                }
            }
            drop(first);
            // It comes last: the others have been waiting before.
            let last = steps.enter().expect("in time");
            order.lock().unwrap().push(9);
            drop(last);
        });
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 9]);
        assert_eq!(waiting(), 0);
        assert_eq!(steps.permits().free, 1);
    }

    #[test]
    fn a_permit_that_is_not_returned_does_not_block_others() {
        let steps = LongSteps::with_permits(1, MAX_WAIT_TO_SEND);
        let held = steps.enter().expect("the first permit");
        assert!(steps.enter().is_none());
        drop(held);
        assert!(steps.enter().is_some());
    }
}

//! A bound on the threads that carry out long steps at the same time: sorting a batch of directory entries, or
//! formatting a piece of a listing.
//!
//! The system shares the processors among all threads that can run. With thirty listings at once, a thread that has a
//! small file to send would be one of thirty-one. With the bound, it competes with few.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for a permit while none is returned. Then it goes on without one: the permits may be held
/// by threads that wait for a disk that does not answer, and listings of other disks must not wait for that.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Permits for long steps.
#[derive(Debug)]
pub(crate) struct LongSteps {
    permits: Mutex<Permits>,
    returned: Condvar,
}

#[derive(Debug)]
struct Permits {
    free: usize,
    /// How often one was returned.
    returns: u64,
}

/// The permission to carry out one long step. Returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'p>(&'p LongSteps);

impl LongSteps {
    /// One permit for each two processors, and at least one: others find a processor at once.
    pub(crate) fn new() -> LongSteps {
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        LongSteps::with_permits(processors.div_ceil(2))
    }

    fn with_permits(permits: usize) -> LongSteps {
        LongSteps { permits: Mutex::new(Permits { free: permits, returns: 0 }), returned: Condvar::new() }
    }

    /// Waits for a permit; `None` if none was returned for [`MAX_WAIT`].
    pub(crate) fn enter(&self) -> Option<Permit<'_>> {
        let mut permits = self.permits();
        while permits.free == 0 {
            let returns = permits.returns;
            let (woken, timeout) =
                self.returned.wait_timeout(permits, MAX_WAIT).unwrap_or_else(PoisonError::into_inner);
            permits = woken;
            if timeout.timed_out() && permits.returns == returns && permits.free == 0 {
                return None;
            }
        }
        permits.free -= 1;
        Some(Permit(self))
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut permits = self.0.permits();
        permits.free += 1;
        permits.returns += 1;
        drop(permits);
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn permits_are_limited() {
        let (steps, held, entered) = (LongSteps::with_permits(2), AtomicUsize::new(0), AtomicUsize::new(0));
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
    fn a_permit_that_is_not_returned_does_not_block_others() {
        let steps = LongSteps::with_permits(1);
        let held = steps.enter().expect("the first permit");
        assert!(steps.enter().is_none());
        drop(held);
        assert!(steps.enter().is_some());
    }
}

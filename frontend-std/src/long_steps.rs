//! A bound on the threads that carry out long steps at the same time: sorting a batch of directory entries, or
//! formatting a piece of a listing.
//!
//! The system shares the processors among all threads that can run. With thirty listings at once, a thread that has a
//! small file to send would be one of thirty-one. With the bound, it competes with few.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for a permit. Then it goes on without one: a permit may be held by a thread that waits for
/// a disk that does not answer, and listings of other disks must not wait for that.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Permits for long steps.
#[derive(Debug)]
pub(crate) struct LongSteps {
    free: Mutex<usize>,
    returned: Condvar,
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
        LongSteps { free: Mutex::new(permits), returned: Condvar::new() }
    }

    /// Waits for a permit; `None` if all of them were held for [`MAX_WAIT`].
    pub(crate) fn enter(&self) -> Option<Permit<'_>> {
        let waited = self.returned.wait_timeout_while(self.free(), MAX_WAIT, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_more_permits_are_held_than_there_are() {
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
        assert_eq!(*steps.free(), 2);
    }

    #[test]
    fn a_permit_that_is_not_returned_holds_nobody_up() {
        let steps = LongSteps::with_permits(1);
        let held = steps.enter().expect("the first permit");
        assert!(steps.enter().is_none());
        drop(held);
        assert!(steps.enter().is_some());
    }
}

//! Limiting how many tasks carry out long steps at the same time: batches of a listing, pieces of its page, or pieces
//! of a large file.
//!
//! An executor polls each task that is woken. So with thirty listings or downloads at the same time, a request for a small
//! file would wait for a batch or a piece of each. Here, these tasks wait in a queue, and no more of them are woken at the
//! same time than there are threads: everything else waits for one batch or piece.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The queue of a server.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many more tasks may continue.
    free: usize,
    waiting: VecDeque<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    lane: Arc<Lane>,
    task: Waker,
    /// The task may continue. Changed under the lock.
    granted: AtomicBool,
}

/// The place of a task in the queue. When it is dropped, the next task may continue.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Entry>);

impl Lane {
    /// A queue for `most` tasks at a time, at least one.
    pub(crate) fn new(most: usize) -> Lane {
        Lane { state: Mutex::new(State { free: most.max(1), waiting: VecDeque::new() }) }
    }

    /// Appends a task to the queue. `task` is woken when it may continue: immediately, if no other task waits.
    pub(crate) fn enter(self: &Arc<Lane>, task: &Waker) -> Pass {
        let entry = Arc::new(Entry { lane: Arc::clone(self), task: task.clone(), granted: AtomicBool::new(false) });
        let mut state = self.state();
        state.waiting.push_back(Arc::clone(&entry));
        let next = state.grant();
        drop(state);
        next.into_iter().for_each(|next| next.task.wake_by_ref());
        Pass(entry)
    }

    /// The number of tasks that wait.
    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the next task continue, if one may.
    fn grant(&mut self) -> Option<Arc<Entry>> {
        if self.free == 0 {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.free -= 1;
        next.granted.store(true, Ordering::Release);
        Some(next)
    }
}

impl Pass {
    /// Whether the task may continue.
    pub(crate) fn is_granted(&self) -> bool {
        self.0.granted.load(Ordering::Acquire)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.lane.state();
        if self.is_granted() {
            state.free += 1;
        } else {
            // The task leaves the queue before its turn, which is rare.
            state.waiting.retain(|entry| !Arc::ptr_eq(entry, &self.0));
        }
        let next = state.grant();
        drop(state);
        next.into_iter().for_each(|next| next.task.wake_by_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn turns_are_limited_and_fair() {
        for most in [1, 2, 3] {
            let lane = Arc::new(Lane::new(most));
            let woken = Arc::new(Count::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut turns = [0; 30];
            let mut passes: Vec<(usize, Pass)> = (0..30).map(|n| (n, lane.enter(&waker))).collect();
            assert_eq!(woken.0.load(Ordering::SeqCst), most, "waiting tasks are not woken");
            for _ in 0..300 {
                assert_eq!(passes.iter().filter(|(_, pass)| pass.is_granted()).count(), most);
                let at = passes.iter().position(|(_, pass)| pass.is_granted()).unwrap();
                let (n, pass) = passes.remove(at);
                turns[n] += 1;
                drop(pass);
                passes.push((n, lane.enter(&waker)));
            }
            assert_eq!(turns, [10; 30]);
            assert_eq!(woken.0.load(Ordering::SeqCst), 300 + most, "one wake-up per turn");
        }
    }

    #[test]
    fn a_task_that_leaves_does_not_block_others() {
        let lane = Arc::new(Lane::new(1));
        let waker = Waker::noop();
        let (first, second, third) = (lane.enter(waker), lane.enter(waker), lane.enter(waker));
        drop(second);
        assert!(first.is_granted() && !third.is_granted());
        drop(first);
        assert!(third.is_granted());
        drop(third);
        assert!(lane.enter(waker).is_granted());
    }
}

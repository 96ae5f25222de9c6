//! Taking turns with what takes long: a batch of a listing, or a piece of its page.
//!
//! An executor gives each task that is woken its turn, whatever it does with it. So with thirty listings at once, a small
//! file would wait for a batch of each. Here those tasks stand in a queue of their own, from which as many
//! are woken at once as there are threads: whatever else is to be done waits for one batch.

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
    /// So many more may go on.
    free: usize,
    waiting: VecDeque<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    lane: Arc<Lane>,
    task: Waker,
    /// It is its turn. Changed with the lock.
    granted: AtomicBool,
}

/// A task's place in the queue. When it is dropped, the next one has its turn.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Entry>);

impl Lane {
    /// So many at once, at least one.
    pub(crate) fn new(most: usize) -> Lane {
        Lane { state: Mutex::new(State { free: most.max(1), waiting: VecDeque::new() }) }
    }

    /// Stands at the end of the queue. `task` is woken when it is its turn, at once if nobody else waits.
    pub(crate) fn enter(self: &Arc<Lane>, task: &Waker) -> Pass {
        let entry = Arc::new(Entry { lane: Arc::clone(self), task: task.clone(), granted: AtomicBool::new(false) });
        let mut state = self.state();
        state.waiting.push_back(Arc::clone(&entry));
        let next = state.grant();
        drop(state);
        next.into_iter().for_each(|next| next.task.wake_by_ref());
        Pass(entry)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the next one go on, if one may.
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
    /// Whether it is its turn.
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
            // It leaves before its turn, which is rare.
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
    fn no_more_than_may_have_a_turn_at_once_and_each_has_as_many() {
        for most in [1, 2, 3] {
            let lane = Arc::new(Lane::new(most));
            let woken = Arc::new(Count::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut turns = [0; 30];
            let mut passes: Vec<(usize, Pass)> = (0..30).map(|n| (n, lane.enter(&waker))).collect();
            assert_eq!(woken.0.load(Ordering::SeqCst), most, "who waits is not woken");
            for _ in 0..300 {
                assert_eq!(passes.iter().filter(|(_, pass)| pass.is_granted()).count(), most);
                let at = passes.iter().position(|(_, pass)| pass.is_granted()).unwrap();
                let (n, pass) = passes.remove(at);
                turns[n] += 1;
                drop(pass);
                passes.push((n, lane.enter(&waker)));
            }
            assert_eq!(turns, [10; 30]);
            assert_eq!(woken.0.load(Ordering::SeqCst), 300 + most, "once for each turn");
        }
    }

    #[test]
    fn who_leaves_holds_up_nobody() {
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

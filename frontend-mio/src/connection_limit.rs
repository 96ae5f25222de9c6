//! The limit of open connections, which all workers share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sanserve_core::Tick;
use sanserve_server::{IDLE_GRACE, UNFINISHED_GRACE};

use crate::waker::LoopWaker;

/// Counts the connections of a server. A worker takes a place before it accepts, and gives it back when the
/// connection has closed. Requests do not touch this type.
///
/// If all places are taken, the connection that has been idle for longest, among those of all workers, is closed to
/// make room for a new one. In each round, each worker publishes since when its oldest connection has been idle. A
/// worker that needs a place asks the worker with the oldest connection, and is woken when a place is given back.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    pub(crate) most: usize,
    taken: AtomicUsize,
    /// The number of workers with pending clients and no place for them.
    pub(crate) waiting: AtomicUsize,
    workers: Box<[Worker]>,
    loop_wakers: OnceLock<Arc<[Arc<LoopWaker>]>>,
}

/// The state that a worker publishes. Each has a cache line to itself.
#[derive(Debug)]
#[repr(align(64))]
struct Worker {
    /// Since when its oldest idle connection has been idle, as a tick; [`NONE`] if no connection is idle.
    idle: AtomicU64,
    /// The same for unfinished connections.
    unfinished: AtomicU64,
    /// 1: the worker was asked to close one of its connections.
    asked: AtomicUsize,
}

/// No tick.
const NONE: u64 = u64::MAX;

/// The tick since which a connection has been in a state.
pub(crate) type Since = Option<Tick>;

impl ConnectionLimit {
    pub(crate) fn new(most: usize, workers: usize) -> ConnectionLimit {
        let workers = (0..workers).map(|_| Worker {
            idle: AtomicU64::new(NONE),
            unfinished: AtomicU64::new(NONE),
            asked: AtomicUsize::new(0),
        });
        ConnectionLimit {
            most,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            workers: workers.collect(),
            loop_wakers: OnceLock::new(),
        }
    }

    /// Sets the wakers of the workers.
    pub(crate) fn reach(&self, loop_wakers: &Arc<[Arc<LoopWaker>]>) {
        let _ = self.loop_wakers.set(Arc::clone(loop_wakers));
    }

    /// Takes a place, if one is free. Returns whether it was.
    pub(crate) fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Whether there may be too few places for all workers to take one.
    pub(crate) fn are_scarce(&self) -> bool {
        self.taken.load(Ordering::Acquire) + self.workers.len() > self.most
    }

    /// The number of places taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// Publishes since when the oldest connections of this worker have been idle and unfinished.
    pub(crate) fn publish(&self, worker: usize, idle: Since, unfinished: Since) {
        let worker = &self.workers[worker];
        worker.idle.store(idle.map_or(NONE, |since| since.0), Ordering::Release);
        worker.unfinished.store(unfinished.map_or(NONE, |since| since.0), Ordering::Release);
    }

    /// The worker with the oldest connection that may be closed now, the asking worker first. `None`: no connection
    /// may be closed.
    pub(crate) fn with_oldest(&self, asking: usize, now: Tick) -> Option<usize> {
        let oldest = |age: &dyn Fn(&Worker) -> u64, grace: u64| {
            let (n, since) = (0..self.workers.len())
                .map(|n| (n, age(&self.workers[n])))
                .min_by_key(|&(n, since)| (since, n != asking))?;
            (since != NONE && now.since(Tick(since)) >= grace).then_some(n)
        };
        let idle = oldest(&|worker| worker.idle.load(Ordering::Acquire), IDLE_GRACE);
        idle.or_else(|| oldest(&|worker| worker.unfinished.load(Ordering::Acquire), UNFINISHED_GRACE))
    }

    /// Asks another worker to close one of its connections, unless it was asked already.
    pub(crate) fn ask(&self, worker: usize) {
        if self.workers[worker].asked.swap(1, Ordering::AcqRel) == 0 {
            self.wake(worker);
        }
    }

    /// Whether this worker was asked to close a connection since the last call.
    pub(crate) fn take_asked(&self, worker: usize) -> bool {
        self.workers[worker].asked.swap(0, Ordering::AcqRel) != 0
    }

    /// Wakes the other workers, if one of them waits for a place.
    pub(crate) fn notify_others(&self, worker: usize) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            (0..self.workers.len()).filter(|&n| n != worker).for_each(|n| self.wake(n));
        }
    }

    fn wake(&self, worker: usize) {
        if let Some(loop_wakers) = self.loop_wakers.get() {
            loop_wakers[worker].wake();
        }
    }
}

/// A place that is given back on drop.
pub(crate) struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionPermit {
    /// Takes ownership of a place that was taken.
    pub(crate) fn new(connection_limit: Arc<ConnectionLimit>) -> ConnectionPermit {
        ConnectionPermit(connection_limit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited() {
        let connection_limit = ConnectionLimit::new(2, 1);
        assert_eq!(
            [connection_limit.take(), connection_limit.take(), connection_limit.take(), connection_limit.take()],
            [true, true, false, false]
        );
        connection_limit.give_back();
        assert_eq!([connection_limit.take(), connection_limit.take()], [true, false]);
    }

    #[test]
    fn the_oldest_connection_of_all_workers_is_closed() {
        let connection_limit = ConnectionLimit::new(2, 3);
        let now = Tick(5_000);
        assert_eq!(connection_limit.with_oldest(1, now), None);
        connection_limit.publish(0, Some(Tick(4_950)), Some(Tick(4_500)));
        assert_eq!(connection_limit.with_oldest(1, now), None, "the grace of neither has passed");
        connection_limit.publish(0, Some(Tick(4_950)), Some(Tick(4_000)));
        assert_eq!(connection_limit.with_oldest(1, now), Some(0));
        connection_limit.publish(2, Some(Tick(4_800)), None);
        assert_eq!(connection_limit.with_oldest(1, now), Some(2), "idle connections are closed first");
        connection_limit.publish(1, Some(Tick(4_800)), None);
        assert_eq!([0, 1, 2].map(|n| connection_limit.with_oldest(n, now)), [Some(1), Some(1), Some(2)]);
        connection_limit.ask(2);
        connection_limit.ask(2);
        assert_eq!(
            [connection_limit.take_asked(2), connection_limit.take_asked(2), connection_limit.take_asked(1)],
            [true, false, false]
        );
    }
}

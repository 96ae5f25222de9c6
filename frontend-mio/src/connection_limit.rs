//! The bound on connections, which all workers share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sanserve_core::Tick;
use sanserve_server::{IDLE_GRACE, UNFINISHED_GRACE};

use crate::waker::LoopWaker;

/// The places of all connections of a server. A worker takes one before it accepts and gives it
/// back when the connection has closed; requests do not come here.
///
/// Where all are taken, a connection is closed to make room for a new one: of all workers' the one that has been idle for longest. Each
/// worker says here, in each round, since when its own oldest one is; whoever needs a place asks the worker that has
/// the oldest, and is woken when places are given back.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    pub(crate) most: usize,
    taken: AtomicUsize,
    /// Workers with clients at the door and no place for them.
    pub(crate) waiting: AtomicUsize,
    workers: Box<[Worker]>,
    loop_wakers: OnceLock<Arc<[Arc<LoopWaker>]>>,
}

/// What the others know of a worker. Each has a cache line to itself.
#[derive(Debug)]
#[repr(align(64))]
struct Worker {
    /// Since when its oldest idle connection is so, as a tick; [`NOBODY`] if none is.
    idle: AtomicU64,
    /// The same of the unfinished ones.
    unfinished: AtomicU64,
    /// 1: one of its connections is to be closed to make room.
    asked: AtomicUsize,
}

/// Stands for no time.
const NOBODY: u64 = u64::MAX;

/// Since when something has been so.
pub(crate) type Since = Option<Tick>;

impl ConnectionLimit {
    pub(crate) fn new(most: usize, workers: usize) -> ConnectionLimit {
        let workers = (0..workers).map(|_| Worker {
            idle: AtomicU64::new(NOBODY),
            unfinished: AtomicU64::new(NOBODY),
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

    /// By these the workers are woken.
    pub(crate) fn reach(&self, loop_wakers: &Arc<[Arc<LoopWaker>]>) {
        let _ = self.loop_wakers.set(Arc::clone(loop_wakers));
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Whether there may be none for each worker that takes one.
    pub(crate) fn are_scarce(&self) -> bool {
        self.taken.load(Ordering::Acquire) + self.workers.len() > self.most
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// Since when the oldest ones of this worker are as they are.
    pub(crate) fn publish(&self, worker: usize, idle: Since, unfinished: Since) {
        let worker = &self.workers[worker];
        worker.idle.store(idle.map_or(NOBODY, |since| since.0), Ordering::Release);
        worker.unfinished.store(unfinished.map_or(NOBODY, |since| since.0), Ordering::Release);
    }

    /// The worker that has the oldest one that may be let go by now, the asking one first; `None`: there is none.
    pub(crate) fn with_oldest(&self, asking: usize, now: Tick) -> Option<usize> {
        let oldest = |age: &dyn Fn(&Worker) -> u64, grace: u64| {
            let (n, since) = (0..self.workers.len())
                .map(|n| (n, age(&self.workers[n])))
                .min_by_key(|&(n, since)| (since, n != asking))?;
            (since != NOBODY && now.since(Tick(since)) >= grace).then_some(n)
        };
        let idle = oldest(&|worker| worker.idle.load(Ordering::Acquire), IDLE_GRACE);
        idle.or_else(|| oldest(&|worker| worker.unfinished.load(Ordering::Acquire), UNFINISHED_GRACE))
    }

    /// Asks another worker to let one of its connections go, unless it is about to.
    pub(crate) fn ask(&self, worker: usize) {
        if self.workers[worker].asked.swap(1, Ordering::AcqRel) == 0 {
            self.ring(worker);
        }
    }

    /// Whether this worker was asked to let one go since the last time.
    pub(crate) fn take_asked(&self, worker: usize) -> bool {
        self.workers[worker].asked.swap(0, Ordering::AcqRel) != 0
    }

    /// Wakes the other workers, if one of them waits for a place.
    pub(crate) fn tell_others(&self, worker: usize) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            (0..self.workers.len()).filter(|&n| n != worker).for_each(|n| self.ring(n));
        }
    }

    fn ring(&self, worker: usize) {
        if let Some(loop_wakers) = self.loop_wakers.get() {
            loop_wakers[worker].ring();
        }
    }
}

/// A place that is given back when this is dropped.
pub(crate) struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionPermit {
    /// Looks after a place that was taken.
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
    fn no_more_places_than_there_are() {
        let connection_limit = ConnectionLimit::new(2, 1);
        assert_eq!(
            [connection_limit.take(), connection_limit.take(), connection_limit.take(), connection_limit.take()],
            [true, true, false, false]
        );
        connection_limit.give_back();
        assert_eq!([connection_limit.take(), connection_limit.take()], [true, false]);
    }

    #[test]
    fn the_oldest_of_all_workers_gives_way() {
        let connection_limit = ConnectionLimit::new(2, 3);
        let now = Tick(5_000);
        assert_eq!(connection_limit.with_oldest(1, now), None);
        connection_limit.publish(0, Some(Tick(4_950)), Some(Tick(4_500)));
        assert_eq!(connection_limit.with_oldest(1, now), None, "either may go on in a moment");
        connection_limit.publish(0, Some(Tick(4_950)), Some(Tick(4_000)));
        assert_eq!(connection_limit.with_oldest(1, now), Some(0));
        connection_limit.publish(2, Some(Tick(4_800)), None);
        assert_eq!(connection_limit.with_oldest(1, now), Some(2), "who is idle goes first");
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

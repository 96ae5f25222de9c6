//! The standing of a connection: which connection is closed to make room when the limit is reached and a new client
//! waits.
//!
//! The connection that has been idle for longest is closed first. If none is idle, it is the one that has been
//! unfinished for longest. A connection with an exchange in progress is never closed.

use std::sync::atomic::{AtomicU64, Ordering};

use sanserve_core::Tick;

use crate::accept::{IDLE_GRACE, UNFINISHED_GRACE};

/// Whether a connection may be closed to make room, and since when. Its driver sets it, and other threads read it,
/// without locks.
#[derive(Debug, Default)]
pub struct Standing(AtomicU64);

/// The position of a connection in the order in which connections are closed to make room: the least is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// Whether this is the rank of an idle connection. All others come after those.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self.0 < Standing::UNFINISHED
    }
}

impl Standing {
    /// The connection has an exchange in progress.
    const BUSY: u64 = 0;
    /// The connection has been chosen to be closed.
    const LEAVES: u64 = u64::MAX;
    /// Added to the tick since which the connection is unfinished. Smaller values are those of idle connections: the
    /// tick and a number.
    const UNFINISHED: u64 = 1 << 62;
    /// The bits of the number.
    const NUMBER: u32 = 20;

    /// Marks the connection idle since a tick; `number` orders connections that became idle in the same millisecond.
    /// Returns whether the connection had been chosen to be closed.
    pub fn idles(&self, since: Tick, number: u64) -> bool {
        self.set((since.0 << Self::NUMBER | number & ((1 << Self::NUMBER) - 1)).max(1))
    }

    /// Marks the connection [unfinished](sanserve_core::Connection::unfinished_since) since a tick. Returns whether
    /// it had been chosen to be closed.
    pub fn is_unfinished(&self, since: Tick) -> bool {
        self.set(since.0 | Self::UNFINISHED)
    }

    /// Marks the connection busy, so that it cannot be chosen. Returns whether it had been chosen already.
    pub fn is_busy(&self) -> bool {
        self.set(Self::BUSY)
    }

    /// Whether the connection has been chosen to be closed.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::LEAVES
    }

    /// The rank of the connection, or `None` if it may not be closed now.
    #[must_use]
    pub fn rank(&self, now: Tick) -> Option<Rank> {
        let standing = self.0.load(Ordering::SeqCst);
        let may_go = match standing {
            Self::BUSY | Self::LEAVES => false,
            Self::UNFINISHED.. => now.since(Tick(standing & !Self::UNFINISHED)) >= UNFINISHED_GRACE,
            _ => now.since(Tick(standing >> Self::NUMBER)) >= IDLE_GRACE,
        };
        may_go.then_some(Rank(standing))
    }

    /// Chooses the connection to be closed, if its rank is still the same. Returns whether it was.
    pub fn leave(&self, rank: Rank) -> bool {
        self.0.compare_exchange(rank.0, Self::LEAVES, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn set(&self, standing: u64) -> bool {
        self.0.swap(standing, Ordering::SeqCst) == Self::LEAVES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_is_closed_first_and_a_busy_one_never() {
        let all: Vec<Standing> = (0..5).map(|_| Standing::default()).collect();
        let order = |now| {
            let mut order: Vec<_> = (0..5).filter_map(|n| Some((all[n].rank(Tick(now))?, n))).collect();
            order.sort_unstable();
            order.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(order(1 << 40), []);
        all[0].is_unfinished(Tick(0));
        all[1].idles(Tick(900), 8);
        all[2].idles(Tick(900), 7);
        all[3].idles(Tick(899), 9);
        assert_eq!(order(998), []);
        assert_eq!(order(999), [3], "the grace of the others has not passed");
        assert_eq!(order(1_000), [3, 2, 1, 0]);
        let rank = all[2].rank(Tick(1_000)).unwrap();
        assert!(rank.is_idle() && !all[0].rank(Tick(1_000)).unwrap().is_idle());
        all[2].idles(Tick(950), 10);
        assert!(!all[2].leave(rank), "the rank has changed meanwhile");
        assert!(all[3].leave(all[3].rank(Tick(1_000)).unwrap()) && all[3].leaves());
        assert_eq!(order(1_100), [1, 2, 0], "a chosen connection has no rank");
        assert!(all[3].is_busy() && !all[3].is_busy() && !all[3].leaves());
    }
}

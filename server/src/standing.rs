//! Which connection is closed when the limit is reached and a new client waits: how one stands, as others see it.
//!
//! The one goes first that has been idle for longest; where none is idle, the one that has been unfinished for longest.
//! One with an exchange in progress never goes.

use std::sync::atomic::{AtomicU64, Ordering};

use sanserve_core::Tick;

use crate::accept::{IDLE_GRACE, UNFINISHED_GRACE};

/// Whether a connection could be closed to make room, and since when. Its driver says so, and others look; nobody waits.
#[derive(Debug, Default)]
pub struct Standing(AtomicU64);

/// Where a connection stands in the order in which they are closed to make room: the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// Whether it is that of an idle connection, which all others come after.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self.0 < Standing::UNFINISHED
    }
}

impl Standing {
    /// It has an exchange in progress.
    const BUSY: u64 = 0;
    /// It is to be closed to make room.
    const LEAVES: u64 = u64::MAX;
    /// It is unfinished since the tick that is added. Less is one that is idle: since when, and a number.
    const UNFINISHED: u64 = 1 << 62;
    /// The bits of that number.
    const NUMBER: u32 = 20;

    /// It has been idle since then; `number` orders those of the same millisecond. Whether it was to be closed to make room.
    pub fn idles(&self, since: Tick, number: u64) -> bool {
        self.set((since.0 << Self::NUMBER | number & ((1 << Self::NUMBER) - 1)).max(1))
    }

    /// It has been [unfinished](sanserve_core::Connection::unfinished_since) since then. Whether it was to be closed to make room.
    pub fn is_unfinished(&self, since: Tick) -> bool {
        self.set(since.0 | Self::UNFINISHED)
    }

    /// It is not closed to make room from here on. Whether it was to.
    pub fn is_busy(&self) -> bool {
        self.set(Self::BUSY)
    }

    /// Whether it is to be closed to make room.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::LEAVES
    }

    /// Where it stands. `None`: it is not closed by now.
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

    /// Has it give way, if it still stands there.
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
    fn who_is_idle_for_longest_goes_first_and_who_is_busy_never() {
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
        assert_eq!(order(999), [3], "the others may go on in a moment");
        assert_eq!(order(1_000), [3, 2, 1, 0]);
        let rank = all[2].rank(Tick(1_000)).unwrap();
        assert!(rank.is_idle() && !all[0].rank(Tick(1_000)).unwrap().is_idle());
        all[2].idles(Tick(950), 10);
        assert!(!all[2].leave(rank), "it has been busy meanwhile");
        assert!(all[3].leave(all[3].rank(Tick(1_000)).unwrap()) && all[3].leaves());
        assert_eq!(order(1_100), [1, 2, 0], "one that is to go is not asked again");
        assert!(all[3].is_busy() && !all[3].is_busy() && !all[3].leaves());
    }
}

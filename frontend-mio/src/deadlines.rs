//! Deadlines: a hashed timing wheel whose entries cost nothing to move and nothing to forget.
//!
//! Every connection has at most one entry. A deadline that moves later, as keep-alive does with
//! each request, leaves the entry where it is: when its time comes the connection is polled, says
//! that it is not due yet, and is entered anew. So a request never touches the wheel.

use sanserve_core::Tick;

/// Milliseconds a slot covers; a deadline is seen up to twice as much late.
const UNIT: u64 = 32;
/// Slots; what lies further ahead than all of them waits in the last and is entered again.
const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

/// The links of one connection, by its number.
#[derive(Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    /// The unit of time under which it is entered; `NONE` if it is not.
    unit: u32,
}

/// The deadlines of all connections of an event loop.
pub(crate) struct Deadlines {
    links: Vec<Link>,
    heads: Box<[u32; SLOTS]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; SLOTS / 64],
    /// Everything before this unit has been taken out.
    from: u32,
}

impl Deadlines {
    pub(crate) fn new(now: Tick) -> Deadlines {
        Deadlines { links: Vec::new(), heads: Box::new([NONE; SLOTS]), occupied: [0; SLOTS / 64], from: unit(now) }
    }

    /// Sees to it that connection `at` is due no later than `deadline`.
    pub(crate) fn enter(&mut self, at: u32, deadline: Tick) {
        let index = at as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { next: NONE, previous: NONE, unit: NONE });
        }
        // Rounded up: at the slot's time the deadline has passed.
        let furthest = self.from + SLOTS as u32 - 1;
        let unit = (unit(deadline) + 1).clamp(self.from, furthest);
        if self.links[index].unit <= unit {
            return;
        }
        self.forget(at);
        let slot = unit as usize % SLOTS;
        let next = self.heads[slot];
        self.links[index] = Link { next, previous: NONE, unit };
        if next != NONE {
            self.links[next as usize].previous = at;
        }
        self.heads[slot] = at;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Takes a connection out.
    pub(crate) fn forget(&mut self, at: u32) {
        let Some(link) = self.links.get(at as usize).copied() else { return };
        if link.unit == NONE {
            return;
        }
        self.links[at as usize].unit = NONE;
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        if link.previous != NONE {
            self.links[link.previous as usize].next = link.next;
            return;
        }
        let slot = link.unit as usize % SLOTS;
        self.heads[slot] = link.next;
        if link.next == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Takes out one connection whose time has come.
    pub(crate) fn due(&mut self, now: Tick) -> Option<u32> {
        let (unit, slot) = self.first()?;
        if unit > self::unit(now) {
            return None;
        }
        self.from = unit;
        let at = self.heads[slot];
        self.forget(at);
        Some(at)
    }

    /// Lets the wheel follow the time; to be called when nothing is due any more.
    pub(crate) fn follow(&mut self, now: Tick) {
        self.from = self.from.max(unit(now));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.first().map(|(unit, _)| Tick(u64::from(unit) * UNIT))
    }

    /// The first unit that has an entry, and its slot.
    fn first(&self) -> Option<(u32, usize)> {
        let start = self.from as usize % SLOTS;
        // The word in which the wheel begins is looked at twice: its upper part first, its lower last.
        for word in 0..=self.occupied.len() {
            let index = (start / 64 + word) % self.occupied.len();
            let mut bits = self.occupied[index];
            if word == 0 {
                bits &= u64::MAX << (start % 64);
            } else if word == self.occupied.len() {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some((self.from + ahead as u32, slot));
            }
        }
        None
    }
}

fn unit(tick: Tick) -> u32 {
    u32::try_from(tick.0 / UNIT).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(deadlines: &mut Deadlines, now: u64) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| deadlines.due(Tick(now))).collect();
        deadlines.follow(Tick(now));
        all.sort_unstable();
        all
    }

    #[test]
    fn each_is_due_once_and_not_before_its_time() {
        let mut deadlines = Deadlines::new(Tick(1_000));
        assert_eq!(deadlines.next(), None);
        for at in 0..100 {
            deadlines.enter(at, Tick(1_000 + 10 * u64::from(at)));
        }
        let mut seen = Vec::new();
        let mut now = 1_000;
        while let Some(next) = deadlines.next() {
            assert!(next.0 > now || next.0 <= now + UNIT);
            now = next.0;
            for at in due(&mut deadlines, now) {
                let deadline = 1_000 + 10 * u64::from(at);
                assert!(now >= deadline && now <= deadline + 2 * UNIT, "{at} at {now}");
                seen.push(at);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn later_changes_nothing_and_earlier_moves() {
        let mut deadlines = Deadlines::new(Tick(0));
        deadlines.enter(7, Tick(500));
        let first = deadlines.next();
        deadlines.enter(7, Tick(10_000));
        assert_eq!(deadlines.next(), first);
        deadlines.enter(7, Tick(100));
        assert!(deadlines.next() < first);
        assert_eq!(due(&mut deadlines, 200), [7]);
        assert_eq!(due(&mut deadlines, 100_000), []);
    }

    #[test]
    fn what_is_forgotten_is_not_due() {
        let mut deadlines = Deadlines::new(Tick(0));
        for at in 0..5 {
            deadlines.enter(at, Tick(100));
        }
        for at in [2, 0, 4, 4, 99] {
            deadlines.forget(at);
        }
        assert_eq!(due(&mut deadlines, 1_000), [1, 3]);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn far_deadlines_are_seen_early_and_entered_again() {
        let mut deadlines = Deadlines::new(Tick(0));
        deadlines.enter(0, Tick(100_000));
        let mut now = 0;
        let mut looks = 0;
        while now < 100_000 {
            now = deadlines.next().expect("entered").0;
            assert_eq!(due(&mut deadlines, now), [0]);
            looks += 1;
            if now < 100_000 {
                deadlines.enter(0, Tick(100_000));
            }
        }
        assert!(looks <= 5 && now <= 100_000 + 2 * UNIT, "{looks} {now}");
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut deadlines = Deadlines::new(Tick(0));
        deadlines.enter(0, Tick(50));
        deadlines.enter(1, Tick(31_000));
        assert_eq!(due(&mut deadlines, 1_000_000), [0, 1]);
        deadlines.enter(2, Tick(1_000_050));
        assert_eq!(due(&mut deadlines, 1_000_200), [2]);
    }
}

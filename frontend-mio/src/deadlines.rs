//! Deadlines: a hashed timing wheel in which moving or forgetting an entry is nearly free.
//!
//! Every connection has at most one entry. When a deadline moves later, as keep-alive does with each request, the
//! entry stays in place. When the entry is due, the connection is polled, turns out not to be due, and gets a new
//! entry. So a request never touches the wheel.

use sanserve_core::Tick;

/// Milliseconds that a slot covers. A deadline is noticed up to twice as much late.
const UNIT: u64 = 32;
/// The number of slots. A deadline that is further ahead is put into the last one, and entered again when that is
/// due.
const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

/// The links of the entry of one connection, by its number.
#[derive(Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    /// The unit of time that it is entered under; `NONE` if it is not entered.
    unit: u32,
}

/// The deadlines of all connections of an event loop.
pub(crate) struct Deadlines {
    links: Vec<Link>,
    heads: Box<[u32; SLOTS]>,
    /// One bit per slot, set if the slot is not empty.
    occupied: [u64; SLOTS / 64],
    /// All entries before this unit have been removed.
    from: u32,
}

impl Deadlines {
    pub(crate) fn new(now: Tick) -> Deadlines {
        Deadlines { links: Vec::new(), heads: Box::new([NONE; SLOTS]), occupied: [0; SLOTS / 64], from: unit(now) }
    }

    /// Ensures that connection `at` is due no later than `deadline`.
    pub(crate) fn enter(&mut self, at: u32, deadline: Tick) {
        let index = at as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { next: NONE, previous: NONE, unit: NONE });
        }
        // Rounded up, so that the deadline has passed when the slot is due.
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

    /// Removes the entry of a connection.
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

    /// Removes and returns one connection whose entry is due.
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

    /// Advances the wheel to `now`. Call it when no entry is due any more.
    pub(crate) fn follow(&mut self, now: Tick) {
        self.from = self.from.max(unit(now));
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.first().map(|(unit, _)| Tick(u64::from(unit) * UNIT))
    }

    /// The first unit that has an entry, and its slot.
    fn first(&self) -> Option<(u32, usize)> {
        let start = self.from as usize % SLOTS;
        // The word in which the wheel begins is checked twice: its upper part first, its lower part last.
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
    fn each_deadline_is_due_once_and_not_too_early() {
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
    fn a_later_deadline_changes_nothing_and_an_earlier_one_moves_the_entry() {
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
    fn a_forgotten_entry_is_not_due() {
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
    fn far_deadlines_are_due_early_and_entered_again() {
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

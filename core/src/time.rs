//! Points of time. Time is an argument here: nothing in this crate reads a clock. A driver reads it once a turn and
//! passes it in, so a test can pass any time it likes.

/// A point of monotonic time in milliseconds since some start that the driver chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `millis` later; saturates.
    #[must_use]
    pub fn after(self, millis: u64) -> Tick {
        Tick(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`, 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point of calendar time in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

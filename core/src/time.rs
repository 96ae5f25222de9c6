//! Points in time. Nothing in this crate reads a clock: time is an argument. A driver reads the clock once per turn,
//! and a test may pass any time.

use std::ops::Add;
use std::time::Duration;

/// A point of monotonic time in milliseconds since some start that the driver chooses.
///
/// ```
/// use std::time::Duration;
/// use sanserve_core::Tick;
///
/// assert_eq!(Tick(1_000) + Duration::from_secs(2), Tick(3_000));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// Adds `millis` milliseconds, saturating.
    #[must_use]
    pub fn after(self, millis: u64) -> Tick {
        Tick(self.0.saturating_add(millis))
    }

    /// The milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Adds a time, rounded up to milliseconds; saturating.
impl Add<Duration> for Tick {
    type Output = Tick;

    fn add(self, time: Duration) -> Tick {
        self.after(millis(time))
    }
}

/// Converts to milliseconds, rounded up, so that a timeout never expires too early.
pub(crate) const fn millis(time: Duration) -> u64 {
    let rest = if time.subsec_nanos() % 1_000_000 == 0 { 0 } else { 1 };
    time.as_secs().saturating_mul(1_000).saturating_add(time.subsec_millis() as u64 + rest)
}

/// A point of calendar time in seconds since the Unix epoch.
///
/// ```
/// use sanserve_core::{Wall, date_time_string};
///
/// assert_eq!(date_time_string(Wall(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_to_milliseconds_and_saturate() {
        for (time, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(1), 1),
            (Duration::from_nanos(1_000_001), 2),
            (Duration::from_secs(20), 20_000),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(millis(time), expected, "{time:?}");
        }
        assert_eq!(Tick(7) + Duration::MAX, Tick(u64::MAX));
    }
}

//! The clock that supplies the core with the time. Read once per turn, without a system call on common systems.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sanserve_core::{Now, Tick, Wall};

/// A clock that counts milliseconds from its start. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The calendar at the start, in milliseconds since the Unix epoch.
    calendar: i64,
}

/// A difference between the two clocks that is ignored, in milliseconds: they cannot be read at the same moment.
const SAME: u64 = 100;

impl Clock {
    /// Starts at a tick below 1,000, chosen so that each thousand of ticks begins with a second of the calendar. A
    /// recording then only contains the calendar time at its beginning, and when the system clock has been set.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now(), calendar: calendar() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Now {
        let tick = self.tick();
        Now::new(tick, self.wall(tick))
    }

    /// Sets `now` to the current time.
    pub fn read(&self, now: &mut Now) {
        let tick = self.tick();
        now.advance(tick, self.wall(tick));
    }

    /// The monotonic time alone.
    #[must_use]
    pub fn tick(&self) -> Tick {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Tick(passed.saturating_add(self.calendar.rem_euclid(1000).unsigned_abs()))
    }

    /// The calendar time in seconds. It is derived from the ticks unless the system clock was set.
    fn wall(&self, tick: Tick) -> Wall {
        let whole = self.calendar - self.calendar.rem_euclid(1000);
        let expected = whole.saturating_add(i64::try_from(tick.0).unwrap_or(i64::MAX));
        let shown = calendar();
        let millis = if shown.abs_diff(expected) < SAME { expected } else { shown };
        Wall(millis.div_euclid(1000))
    }
}

/// The calendar time, in milliseconds since the Unix epoch.
fn calendar() -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_forwards() {
        let clock = Clock::start();
        let mut now = clock.now();
        let before = now;
        clock.read(&mut now);
        assert!(now.tick >= before.tick && now.wall >= before.wall);
        assert!(now.tick < Tick(60_000), "ticks count from the start");
        assert_eq!(
            now.tick.0 / 1000 + 1,
            (now.wall.0 - (before.wall.0 - 1)).cast_unsigned(),
            "both clocks advance together"
        );
        assert!(now.wall > Wall(1_700_000_000), "the wall clock counts from 1970");
    }
}

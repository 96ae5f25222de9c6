//! The clock: what the core is told of time. Read once a turn; no system call on common systems.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sanserve_core::{Now, Tick, Wall};

/// Counts milliseconds from its start. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The calendar at the start, in milliseconds since the Unix epoch.
    calendar: i64,
}

/// So much closer together, both clocks show the same, in milliseconds: they cannot be read at the same moment.
const SAME: u64 = 100;

impl Clock {
    /// Starts before tick 1,000: a second of the calendar and a thousand of ticks begin together, until somebody sets
    /// the calendar. So a recording has to say what the calendar shows only at its beginning, and when it is set.
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

    /// Moves `now` to the time now.
    pub fn read(&self, now: &mut Now) {
        let tick = self.tick();
        now.advance(tick, self.wall(tick));
    }

    /// Monotonic time alone.
    #[must_use]
    pub fn tick(&self) -> Tick {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Tick(passed.saturating_add(self.calendar.rem_euclid(1000).unsigned_abs()))
    }

    /// The second of the calendar. It follows the ticks while that is right.
    fn wall(&self, tick: Tick) -> Wall {
        let whole = self.calendar - self.calendar.rem_euclid(1000);
        let expected = whole.saturating_add(i64::try_from(tick.0).unwrap_or(i64::MAX));
        let shown = calendar();
        let millis = if shown.abs_diff(expected) < SAME { expected } else { shown };
        Wall(millis.div_euclid(1000))
    }
}

/// What the calendar shows, in milliseconds since the Unix epoch.
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
        assert_eq!(now.tick.0 / 1000 + 1, (now.wall.0 - (before.wall.0 - 1)).cast_unsigned(), "they keep step");
        assert!(now.wall > Wall(1_700_000_000), "the wall clock counts from 1970");
    }
}

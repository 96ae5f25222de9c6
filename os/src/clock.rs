//! The clock: what the core is told of time. Read once a turn; no system call on common systems.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sanserve_core::{Now, Tick, Wall};

/// Counts milliseconds from its start. Copies count from the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at tick 0.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now::new(self.tick(), wall())
    }

    /// Moves `now` to the time now.
    pub fn read(&self, now: &mut Now) {
        now.advance(self.tick(), wall());
    }

    /// Monotonic time alone.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

fn wall() -> Wall {
    let seconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds - 1),
    };
    Wall(seconds)
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
        assert!(now.wall > Wall(1_700_000_000), "the wall clock counts from 1970");
    }
}

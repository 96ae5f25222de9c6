//! The two clocks of a connection: one for what is awaited from the peer, one for what it takes.

use std::num::NonZeroU64;

use crate::config::{Pace, Timeouts};
use crate::context::Tick;

/// What is awaited from the peer, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing: the peer is not to blame for any delay.
    Nothing,
    /// The first byte of a head.
    Request { since: Tick },
    /// The rest of a head.
    Head { since: Tick },
    /// A body that is wanted.
    Body(Progress),
    /// The end of what a closing connection still sends.
    End(Progress),
}

impl Awaited {
    /// When patience ends.
    pub(crate) fn deadline(&self, timeouts: &Timeouts) -> Option<Tick> {
        match self {
            Awaited::Nothing => None,
            Awaited::Request { since } => Some(since.after(timeouts.keep_alive.max(1))),
            Awaited::Head { since } => Some(since.after(timeouts.head.max(1))),
            Awaited::Body(progress) => Some(progress.deadline(&timeouts.body)),
            Awaited::End(progress) => {
                let linger = Pace { silence: timeouts.linger_silence, grace: timeouts.linger, rate: u64::MAX };
                Some(progress.deadline(&linger))
            }
        }
    }
}

/// How something that should go on goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    since: Tick,
    last: Tick,
    /// One more than went through: so an `Option` of this is no larger.
    count: NonZeroU64,
}

impl Progress {
    pub(crate) fn start(now: Tick) -> Progress {
        Progress { since: now, last: now, count: NonZeroU64::MIN }
    }

    /// `bytes` more went through.
    pub(crate) fn made(&mut self, bytes: u64, now: Tick) {
        if bytes > 0 {
            self.last = now;
            self.count = self.count.saturating_add(bytes);
        }
    }

    /// The same, begun so many milliseconds later.
    pub(crate) fn later(self, millis: u64) -> Progress {
        Progress { since: self.since.after(millis), last: self.last.after(millis), ..self }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.count.get() - 1
    }

    /// When it has been silent for too long, or is below the least rate after the grace.
    pub(crate) fn deadline(&self, pace: &Pace) -> Tick {
        let silent = self.last.after(pace.silence.max(1));
        if pace.rate == 0 {
            return silent;
        }
        let earned = self.bytes().saturating_mul(1000) / pace.rate;
        silent.min(self.since.after(pace.grace.max(1).saturating_add(earned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { silence: 10, grace: 100, rate: 1000 };

    #[test]
    fn silence_ends_patience_whatever_was_earned() {
        let mut progress = Progress::start(Tick(0));
        assert_eq!(progress.deadline(&PACE), Tick(10));
        progress.made(1_000_000, Tick(5));
        assert_eq!(progress.deadline(&PACE), Tick(15));
        progress.made(0, Tick(9));
        assert_eq!(progress.deadline(&PACE), Tick(15));
    }

    #[test]
    fn a_drip_below_the_rate_ends_after_the_grace() {
        let mut progress = Progress::start(Tick(0));
        let mut now = 0;
        while now < progress.deadline(&PACE).0 {
            now += 5;
            progress.made(1, Tick(now));
        }
        assert!((100..200).contains(&now), "{now}");
        let mut honest = Progress::start(Tick(0));
        for now in (5..10_000).step_by(5) {
            assert!(honest.deadline(&PACE) > Tick(now));
            honest.made(5, Tick(now));
        }
    }

    #[test]
    fn a_timeout_of_nothing_is_still_in_the_future() {
        let pace = Pace { silence: 0, grace: 0, rate: 0 };
        assert!(Progress::start(Tick(7)).deadline(&pace) > Tick(7));
    }
}

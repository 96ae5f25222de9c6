//! The two timers of a connection: one for what is expected from the peer, one for what the peer reads. What happens
//! when one of them fires is decided by the connection.

use std::num::NonZeroU64;

use crate::config::{Pace, Timeouts};
use crate::time::Tick;

/// What is expected from the peer, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadTimer {
    /// Nothing: a delay is not the fault of the peer.
    Nothing,
    /// The end of the TLS handshake.
    Handshake { since: Tick },
    /// The first byte of a head.
    Request { since: Tick },
    /// The first byte of the first head, while the server drains.
    First { since: Tick },
    /// The rest of a head.
    Head { since: Tick },
    /// A body that is used.
    Body(Transfer),
    /// The end of what the peer sends on a closing connection.
    End(Transfer),
}

impl ReadTimer {
    /// When the timeout expires. `draining`: the server is shutting down.
    pub(crate) fn deadline(&self, timeouts: &Timeouts, draining: bool) -> Option<Tick> {
        match self {
            ReadTimer::Nothing => None,
            ReadTimer::Handshake { since } => {
                let most = if draining { timeouts.drain_silence } else { u64::MAX };
                Some(since.after(timeouts.handshake.min(most).max(1)))
            }
            ReadTimer::Request { since } => Some(since.after(timeouts.keep_alive.max(1))),
            ReadTimer::First { since } => Some(since.after(timeouts.drain_silence.max(1))),
            ReadTimer::Head { since } => Some(since.after(timeouts.head.max(1))),
            ReadTimer::Body(progress) => Some(progress.deadline(&timeouts.body)),
            ReadTimer::End(progress) => Some(progress.deadline(&linger(timeouts, draining))),
        }
    }

    /// The deadline of each rule.
    pub(crate) fn timers(&self, timeouts: &Timeouts, draining: bool) -> Vec<Timer> {
        let one = |rule, since| self.deadline(timeouts, draining).map(|deadline| Timer { rule, since, deadline });
        match self {
            ReadTimer::Nothing => Vec::new(),
            ReadTimer::Handshake { since } => one("handshake", *since).into_iter().collect(),
            ReadTimer::Request { since } => one("keep-alive", *since).into_iter().collect(),
            ReadTimer::First { since } => one("drain-silence", *since).into_iter().collect(),
            ReadTimer::Head { since } => one("head", *since).into_iter().collect(),
            ReadTimer::Body(progress) => progress.timers("body-silence", "body-rate", &timeouts.body).collect(),
            ReadTimer::End(progress) => {
                progress.timers("linger-silence", "linger", &linger(timeouts, draining)).collect()
            }
        }
    }
}

/// The limits for a closing connection: silence, and a total time that further bytes do not extend. While the server
/// drains, it waits no longer for such a connection than for one without a request.
fn linger(timeouts: &Timeouts, draining: bool) -> Pace {
    let most = if draining { timeouts.drain_silence } else { u64::MAX };
    Pace { silence: timeouts.linger_silence.min(most), grace: timeouts.linger.min(most), rate: u64::MAX }
}

/// The progress of a transfer, for timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    since: Tick,
    last: Tick,
    /// One more than the number of bytes, so that an `Option` of this type needs no more memory.
    count: NonZeroU64,
}

impl Transfer {
    pub(crate) fn start(now: Tick) -> Transfer {
        Transfer { since: now, last: now, count: NonZeroU64::MIN }
    }

    /// Records that `bytes` more were transferred.
    pub(crate) fn made(&mut self, bytes: u64, now: Tick) {
        if bytes > 0 {
            self.last = now;
            self.count = self.count.saturating_add(bytes);
        }
    }

    /// The same progress, shifted by `millis`.
    pub(crate) fn later(self, millis: u64) -> Transfer {
        Transfer { since: self.since.after(millis), last: self.last.after(millis), ..self }
    }

    pub(crate) fn since(&self) -> Tick {
        self.since
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.count.get() - 1
    }

    /// When the transfer has stalled for too long, or is below the minimum rate after the grace period.
    pub(crate) fn deadline(&self, pace: &Pace) -> Tick {
        let silent = self.silent_at(pace);
        self.slow_at(pace).map_or(silent, |slow| silent.min(slow))
    }

    fn silent_at(&self, pace: &Pace) -> Tick {
        self.last.after(pace.silence.max(1))
    }

    /// `None` if there is no minimum rate.
    fn slow_at(&self, pace: &Pace) -> Option<Tick> {
        let credit = self.bytes().saturating_mul(1000).checked_div(pace.rate)?;
        Some(self.since.after(pace.grace.max(1).saturating_add(credit)))
    }

    /// The deadlines of both rules.
    pub(crate) fn timers(&self, silence: &'static str, rate: &'static str, pace: &Pace) -> impl Iterator<Item = Timer> {
        let silent = Timer { rule: silence, since: self.last, deadline: self.silent_at(pace) };
        let slow = self.slow_at(pace).map(|deadline| Timer { rule: rate, since: self.since, deadline });
        [Some(silent), slow].into_iter().flatten()
    }
}

/// A running timer, as shown by [`State`](crate::State).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timer {
    /// The field of [`Timeouts`] that sets it, named as in transcripts: `handshake`, `keep-alive`, `drain-silence`, `head`,
    /// `body-silence`, `body-rate`, `linger-silence`, `linger`, `write-silence`, `write-rate`, `script`,
    /// `script-silence`, `script-drain`.
    pub rule: &'static str,
    /// When it was started.
    pub since: Tick,
    /// When it fires, unless something happens before.
    pub deadline: Tick,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { silence: 10, grace: 100, rate: 1000 };

    #[test]
    fn a_stalled_transfer_times_out_despite_its_average_rate() {
        let mut progress = Transfer::start(Tick(0));
        assert_eq!(progress.deadline(&PACE), Tick(10));
        progress.made(1_000_000, Tick(5));
        assert_eq!(progress.deadline(&PACE), Tick(15));
        progress.made(0, Tick(9));
        assert_eq!(progress.deadline(&PACE), Tick(15));
    }

    #[test]
    fn a_transfer_below_the_rate_times_out_after_the_grace() {
        let mut progress = Transfer::start(Tick(0));
        let mut now = 0;
        while now < progress.deadline(&PACE).0 {
            now += 5;
            progress.made(1, Tick(now));
        }
        assert!((100..200).contains(&now), "{now}");
        let mut steady = Transfer::start(Tick(0));
        for now in (5..10_000).step_by(5) {
            assert!(steady.deadline(&PACE) > Tick(now));
            steady.made(5, Tick(now));
        }
    }

    #[test]
    fn a_timeout_of_zero_is_still_in_the_future() {
        let pace = Pace { silence: 0, grace: 0, rate: 0 };
        assert!(Transfer::start(Tick(7)).deadline(&pace) > Tick(7));
    }
}

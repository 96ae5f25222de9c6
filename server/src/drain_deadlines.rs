//! The deadlines of a shutdown, for an event loop.

use sanserve_core::Tick;

use crate::lifecycle::Phase;
use crate::site::Site;

/// When an event loop stops listening, and when it cuts its connections, once the server shuts down.
///
/// ```
/// use std::time::Duration;
/// use sanserve_core::Tick;
/// use sanserve_server::{DrainDeadlines, Log, Phase, Site};
///
/// let site = Site::without_files().with_log(Log::quiet()).with_grace(Duration::from_secs(5));
/// let mut deadlines = DrainDeadlines::default();
/// assert_eq!(deadlines.follow(&site, Tick(100), 1), None);
/// site.draining().begin();
/// // Each connection gets a turn, in which it learns of the new phase.
/// assert_eq!(deadlines.follow(&site, Tick(100), 1), Some(Phase::Draining));
/// assert_eq!(deadlines.next(), Some(Tick(1_100)), "pending connections are accepted for a second");
/// deadlines.stop_listening();
/// assert_eq!(deadlines.follow(&site, Tick(5_099), 1), None);
/// assert_eq!(deadlines.follow(&site, Tick(5_100), 1), Some(Phase::Cut));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainDeadlines {
    listens_until: Option<Tick>,
    cut_at: Option<Tick>,
}

impl DrainDeadlines {
    /// Follows the phase of the server: call this before each wait, at the time `now`. `Some`: a phase has begun, and
    /// each connection needs a turn, in which [`Session::follow_phase`](crate::Session::follow_phase) informs it. From
    /// the end of the grace on, that is so at each call. `connections` is their number, for the log.
    pub fn follow(&mut self, site: &Site, now: Tick, connections: usize) -> Option<Phase> {
        // The phase is read once: a stop between two reads would cut connections for ever, and continue to accept.
        let phase = site.draining().phase();
        let begins = self.cut_at.is_none() && phase >= Phase::Draining;
        if begins {
            self.listens_until = Some(now + site.config().timeouts.drain_silence());
            self.cut_at = Some(now + site.grace());
        }
        if phase == Phase::Cut || self.cut_at.is_some_and(|at| at <= now) {
            self.cut_at = Some(now);
            self.listens_until = None;
            site.cut(connections);
            return Some(Phase::Cut);
        }
        begins.then_some(Phase::Draining)
    }

    /// Until when connections are accepted that were pending when the shutdown began: the listener closes as soon as
    /// there is none, or at this time. `None`: the server is running, or has stopped listening.
    #[must_use]
    pub fn listens_until(&self) -> Option<Tick> {
        self.listens_until
    }

    /// Records that the listener is closed.
    pub fn stop_listening(&mut self) {
        self.listens_until = None;
    }

    /// The next of these deadlines, at which the loop has to wake up.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        [self.listens_until, self.cut_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;

    #[test]
    fn a_stop_cuts_at_once_and_at_each_call() {
        let site = Site::without_files().with_log(Log::quiet());
        let mut deadlines = DrainDeadlines::default();
        assert_eq!((deadlines.next(), deadlines.listens_until()), (None, None));
        site.draining().enter(Phase::Cut);
        for now in [7, 9] {
            assert_eq!(deadlines.follow(&site, Tick(now), 0), Some(Phase::Cut));
            assert_eq!((deadlines.next(), deadlines.listens_until()), (Some(Tick(now)), None));
        }
    }
}

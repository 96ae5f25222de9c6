//! When each timeout expires, from what the peer did and `Timeouts` alone.

use std::time::Duration;

use sanserve_core::{Config, Pace, Timeouts};

use super::millis;

/// A bound on time that has ended something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Silence between requests.
    KeepAlive,
    /// Silence of one that has not asked for anything, when the server drains.
    Drain,
    /// A head that took too long.
    Head,
    /// A body that was silent or slow.
    Body,
    /// A peer that took nothing, or little.
    Write,
    /// A closing connection that went on.
    Linger,
}

impl Timer {
    /// Each with its name, in the order in which they are written.
    pub const TABLE: &[(&str, Timer)] = &[
        ("keep-alive", Timer::KeepAlive),
        ("drain", Timer::Drain),
        ("head", Timer::Head),
        ("body", Timer::Body),
        ("write", Timer::Write),
        ("linger", Timer::Linger),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Timer::TABLE.iter().find(|row| row.1 == self).map_or("?", |row| row.0)
    }
}

/// Something that should go on. How many bytes went through is not always known to the byte.
#[derive(Clone, Copy, Debug)]
struct Progress {
    since: u64,
    last: u64,
    least: u64,
    most: u64,
}

impl Progress {
    fn start(now: u64) -> Progress {
        Progress { since: now, last: now, least: 0, most: 0 }
    }

    fn made(&mut self, bytes: u64, now: u64) {
        if bytes > 0 {
            self.last = now;
            self.least += bytes;
            self.most += bytes;
        }
    }

    /// When it has been silent for too long or, with so many bytes, below the least rate.
    fn limit(&self, pace: &Pace, bytes: u64) -> u64 {
        let silent = self.last + millis(pace.silence()).max(1);
        match pace.rate() {
            0 => silent,
            rate => {
                silent.min((self.since + millis(pace.grace()).max(1)).saturating_add(bytes.saturating_mul(1000) / rate))
            }
        }
    }
}

/// How a turn has ended, as far as it matters here.
pub(super) struct Turn {
    pub(super) now: u64,
    /// Between requests, with nothing of the next.
    pub(super) idle: bool,
    /// The same, of one that has not asked for anything, when the server drains.
    pub(super) first: bool,
    /// With a part of the next head.
    pub(super) partial: bool,
    /// A body is awaited.
    pub(super) body: bool,
    /// The peer is read from, and so much at most came of that in this turn.
    pub(super) read: u64,
    /// Some of it may have come after the turn had begun to wait.
    pub(super) afterwards: bool,
}

/// The clocks of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    idle_since: Option<u64>,
    first_since: Option<u64>,
    head_since: Option<u64>,
    body: Option<Progress>,
    blocked: bool,
    /// Since the socket took no more, until all is out.
    stalled: Option<Progress>,
    linger: Option<Progress>,
    /// The server goes down.
    draining: bool,
    /// Those whose time had come when something last happened.
    due: Vec<Timer>,
}

impl Timers {
    pub(super) fn accepted(now: u64) -> Timers {
        Timers { idle_since: Some(now), ..Timers::default() }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn lingered(&self) -> u64 {
        self.linger.map_or(0, |progress| progress.most)
    }

    /// Something happens at `now`: which timers may fire in the turn that follows.
    pub(super) fn look(&mut self, now: u64, timeouts: &Timeouts) {
        for (_, timer) in Timer::TABLE {
            if self.limit(*timer, timeouts, false).is_some_and(|limit| limit <= now) && !self.due.contains(timer) {
                self.due.push(*timer);
            }
        }
    }

    /// The first of these that may fire now.
    pub(super) fn fire(&self, among: &[Timer]) -> Option<Timer> {
        among.iter().copied().find(|timer| self.due.contains(timer))
    }

    pub(super) fn block(&mut self, now: u64) {
        self.blocked = true;
        self.stalled.get_or_insert(Progress::start(now));
    }

    /// The socket takes bytes again, or has taken them; `all`: nothing is left, and nothing follows at once.
    pub(super) fn unblock(&mut self, all: bool) {
        self.blocked = false;
        if all {
            self.stalled = None;
        }
    }

    pub(super) fn sent(&mut self, bytes: u64, now: u64) {
        if let Some(stalled) = &mut self.stalled {
            stalled.made(bytes, now);
        }
    }

    /// The server goes down from now on, which may end something at once.
    pub(super) fn drain(&mut self, now: u64, timeouts: &Timeouts) {
        self.draining = true;
        self.look(now, timeouts);
    }

    pub(super) fn linger(&mut self, now: u64) {
        self.linger = Some(Progress::start(now));
    }

    /// An exchange is over.
    pub(super) fn finished(&mut self) {
        (self.idle_since, self.first_since, self.head_since, self.body) = (None, None, None, None);
        if !self.blocked {
            self.stalled = None;
        }
    }

    /// A turn has ended: which clocks run on, and which begin.
    pub(super) fn turned(&mut self, turn: &Turn) {
        self.due.clear();
        self.idle_since = turn.idle.then(|| self.idle_since.unwrap_or(turn.now));
        self.first_since = turn.first.then(|| self.first_since.unwrap_or(turn.now));
        self.head_since = turn.partial.then(|| self.head_since.unwrap_or(turn.now));
        self.body = match (turn.body, self.body) {
            (false, _) => None,
            (true, Some(mut progress)) => {
                progress.made(turn.read, turn.now);
                Some(progress)
            }
            // Some of it may have been read before anybody waited for it.
            (true, None) => {
                Some(Progress { most: if turn.afterwards { turn.read } else { 0 }, ..Progress::start(turn.now) })
            }
        };
        if let Some(progress) = &mut self.linger {
            progress.made(turn.read, turn.now);
        }
    }

    /// A timer whose time has come and that did not fire, or whose time would be missed.
    /// Of an `unknown` one nothing is said.
    pub(super) fn late(
        &self,
        timeouts: &Timeouts,
        now: u64,
        deadline: Option<u64>,
        unknown: Option<Timer>,
    ) -> Option<(Timer, u64)> {
        let timers = Timer::TABLE.iter().map(|row| row.1).filter(|timer| Some(*timer) != unknown);
        timers.filter_map(|timer| Some((timer, self.limit(timer, timeouts, true)?))).find(|(_, limit)| {
            let in_time = deadline.is_some_and(|deadline| deadline <= *limit);
            *limit <= now || !in_time
        })
    }

    /// When the first of those that run may fire.
    pub(super) fn soonest(&self, config: &Config) -> Option<u64> {
        Timer::TABLE.iter().filter_map(|row| self.limit(row.1, &config.timeouts, false)).min()
    }

    /// What runs, for a message.
    pub(super) fn shown(&self, config: &Config) -> String {
        let timers = Timer::TABLE.iter().filter_map(|(name, timer)| {
            let limit = self.limit(*timer, &config.timeouts, false)?;
            Some(format!("; patience with {name} ends at {limit}"))
        });
        timers.collect()
    }

    /// When a timer fires: at the latest, or at the earliest.
    fn limit(&self, timer: Timer, timeouts: &Timeouts, latest: bool) -> Option<u64> {
        let paced = |progress: &Option<Progress>, pace: &Pace| {
            progress.map(|progress| progress.limit(pace, if latest { progress.most } else { progress.least }))
        };
        match timer {
            Timer::KeepAlive => self.idle_since.map(|since| since + millis(timeouts.keep_alive()).max(1)),
            Timer::Drain => self.first_since.map(|since| since + millis(timeouts.drain_silence()).max(1)),
            Timer::Head => self.head_since.map(|since| since + millis(timeouts.head()).max(1)),
            Timer::Body => paced(&self.body, &timeouts.body()),
            Timer::Write => paced(&self.stalled, &timeouts.write()).filter(|_| self.blocked),
            Timer::Linger => {
                // Who only closes does not hold up the end of a server.
                let most = if self.draining { timeouts.drain_silence() } else { Duration::MAX };
                let (silence, grace) = (timeouts.linger_silence().min(most), timeouts.linger().min(most));
                let pace = Pace::new(silence, grace, u64::MAX);
                paced(&self.linger, &pace)
            }
        }
    }
}

//! When each timeout expires, computed only from the behavior of the client and the `Timeouts`.

use std::time::Duration;

use sanserve_core::{Config, Pace, Timeouts};

use super::millis;

/// A timeout that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A TLS handshake that took too long.
    Handshake,
    /// Silence between requests.
    KeepAlive,
    /// Silence of a client without a request, while the server drains.
    Drain,
    /// A head that took too long.
    Head,
    /// A body that stalled or was slow.
    Body,
    /// A client that read nothing, or too little.
    Write,
    /// A closing connection on which the client did not stop sending.
    Linger,
}

impl Timer {
    /// All timers with their names, in canonical order.
    pub const TABLE: &[(&str, Timer)] = &[
        ("handshake", Timer::Handshake),
        ("keep-alive", Timer::KeepAlive),
        ("drain", Timer::Drain),
        ("head", Timer::Head),
        ("body", Timer::Body),
        ("write", Timer::Write),
        ("linger", Timer::Linger),
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Timer::TABLE.iter().find(|row| row.1 == self).map_or("?", |row| row.0)
    }
}

/// The progress of a transfer. The exact number of bytes is not always known.
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

    /// When the transfer has stalled for too long, or is below the minimum rate with this number of bytes.
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

/// The end of a turn, as far as it matters here.
pub(super) struct Turn {
    pub(super) now: u64,
    /// Between requests, without a byte of the next one.
    pub(super) idle: bool,
    /// Like `idle`, without any request so far, while the server drains.
    pub(super) first: bool,
    /// Some of the next head has arrived.
    pub(super) partial: bool,
    /// A body is expected.
    pub(super) body: bool,
    /// The maximum number of bytes that were read in this turn, if the client is read from.
    pub(super) read: u64,
    /// Whether some of it may have arrived after the turn had begun to wait.
    pub(super) afterwards: bool,
}

/// The timers of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    handshake_since: Option<u64>,
    idle_since: Option<u64>,
    first_since: Option<u64>,
    head_since: Option<u64>,
    body: Option<Progress>,
    blocked: bool,
    /// Since when the socket was full, until everything has been sent.
    stalled: Option<Progress>,
    linger: Option<Progress>,
    /// Whether the server drains.
    draining: bool,
    /// The timers that had expired at the last input.
    due: Vec<Timer>,
}

impl Timers {
    pub(super) fn accepted(now: u64) -> Timers {
        Timers { idle_since: Some(now), ..Timers::default() }
    }

    /// A handshake begins, and is to be complete in time since the connection was accepted.
    pub(super) fn handshake(&mut self) {
        self.handshake_since = self.idle_since.take();
        self.due.clear();
    }

    pub(super) fn end_handshake(&mut self) {
        self.handshake_since = None;
        self.due.clear();
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn lingered(&self) -> u64 {
        self.linger.map_or(0, |progress| progress.most)
    }

    /// Records which timers may fire in the turn that begins at `now`.
    pub(super) fn begin_turn(&mut self, now: u64, timeouts: &Timeouts) {
        for (_, timer) in Timer::TABLE {
            if self.limit(*timer, timeouts, false).is_some_and(|limit| limit <= now) && !self.due.contains(timer) {
                self.due.push(*timer);
            }
        }
    }

    /// The first of these timers that may fire now.
    pub(super) fn fire(&self, among: &[Timer]) -> Option<Timer> {
        among.iter().copied().find(|timer| self.due.contains(timer))
    }

    pub(super) fn block(&mut self, now: u64) {
        self.blocked = true;
        self.stalled.get_or_insert(Progress::start(now));
    }

    /// The socket is writable again, or has accepted bytes. `all`: nothing is left, and nothing follows immediately.
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

    /// The server drains from now on, which may expire a timer at once.
    pub(super) fn drain(&mut self, now: u64, timeouts: &Timeouts) {
        self.draining = true;
        self.begin_turn(now, timeouts);
    }

    pub(super) fn linger(&mut self, now: u64) {
        self.linger = Some(Progress::start(now));
    }

    /// An exchange is finished.
    pub(super) fn finished(&mut self) {
        (self.idle_since, self.first_since, self.head_since, self.body) = (None, None, None, None);
        if !self.blocked {
            self.stalled = None;
        }
    }

    /// A turn has ended: decides which timers continue and which start.
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
            // Some of it may have been read before it was expected.
            (true, None) => {
                Some(Progress { most: if turn.afterwards { turn.read } else { 0 }, ..Progress::start(turn.now) })
            }
        };
        if let Some(progress) = &mut self.linger {
            progress.made(turn.read, turn.now);
        }
    }

    /// A timer that has expired but did not fire, or that the deadline would miss. Nothing is known about `unknown`.
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

    /// When the first running timer may fire.
    pub(super) fn earliest(&self, config: &Config) -> Option<u64> {
        Timer::TABLE.iter().filter_map(|row| self.limit(row.1, &config.timeouts, false)).min()
    }

    /// The running timers, for a message.
    pub(super) fn shown(&self, config: &Config) -> String {
        let timers = Timer::TABLE.iter().filter_map(|(name, timer)| {
            let limit = self.limit(*timer, &config.timeouts, false)?;
            Some(format!("; the {name} timeout expires at {limit}"))
        });
        timers.collect()
    }

    /// When a timer fires, at the latest or at the earliest.
    fn limit(&self, timer: Timer, timeouts: &Timeouts, latest: bool) -> Option<u64> {
        let paced = |progress: &Option<Progress>, pace: &Pace| {
            progress.map(|progress| progress.limit(pace, if latest { progress.most } else { progress.least }))
        };
        match timer {
            Timer::Handshake => self.handshake_since.map(|since| {
                let most = if self.draining { timeouts.drain_silence() } else { Duration::MAX };
                since + millis(timeouts.handshake().min(most)).max(1)
            }),
            Timer::KeepAlive => self.idle_since.map(|since| since + millis(timeouts.keep_alive()).max(1)),
            Timer::Drain => self.first_since.map(|since| since + millis(timeouts.drain_silence()).max(1)),
            Timer::Head => self.head_since.map(|since| since + millis(timeouts.head()).max(1)),
            Timer::Body => paced(&self.body, &timeouts.body()),
            Timer::Write => paced(&self.stalled, &timeouts.write()).filter(|_| self.blocked),
            Timer::Linger => {
                // A connection that only closes does not delay the shutdown of a server.
                let most = if self.draining { timeouts.drain_silence() } else { Duration::MAX };
                let (silence, grace) = (timeouts.linger_silence().min(most), timeouts.linger().min(most));
                let pace = Pace::new(silence, grace, u64::MAX);
                paced(&self.linger, &pace)
            }
        }
    }
}

//! The result of a world: the summary of a successful run, or a failure.

use std::collections::BTreeMap;
use std::fmt;

use sanserve_core::Close;
use sanserve_transcript::Transcript;

use super::hash::Fnv;
use super::judge::{Tally, Timer};

/// The summary of a world. It is the same for the same seed and configuration, byte for byte, on any machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// The virtual milliseconds from the start to the end of the last connection.
    pub lasted: u64,
    /// The number of connections.
    pub connections: u64,
    /// The number of finished exchanges.
    pub requests: u64,
    /// The number of exchanges by status; 0: there was no response.
    pub statuses: BTreeMap<u16, u64>,
    /// The number of expired timeouts by timer.
    pub timeouts: BTreeMap<Timer, u64>,
    /// The number of closed connections by reason, named as in transcripts.
    pub closes: BTreeMap<&'static str, u64>,
    /// The number of bytes from the clients.
    pub bytes_in: u64,
    /// The number of bytes to the clients.
    pub bytes_out: u64,
    /// The maximum memory of all connections at a time, in bytes: the windows and texts of their `Buffers`, 256 for
    /// each busy connection and 32 for each resting one, and unread bytes in sockets. Pooled buffers and the overhead
    /// of allocators are not counted.
    pub peak_memory: u64,
    /// The number of inputs and steps of all connections.
    pub events: u64,
    /// The hash of all events, in order: each as `NUMBER LINE`, the number of the connection and the event in the
    /// canonical form of transcripts. Of a `send` that was not accepted completely, only the accepted bytes are
    /// included.
    pub hash: Fnv,
}

impl Summary {
    pub(super) fn new(seed: u64) -> Summary {
        Summary {
            seed,
            lasted: 0,
            connections: 0,
            requests: 0,
            statuses: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            closes: BTreeMap::new(),
            bytes_in: 0,
            bytes_out: 0,
            peak_memory: 0,
            events: 0,
            hash: Fnv::new(),
        }
    }

    /// Adds a connection that has ended.
    pub(super) fn ended(&mut self, tally: &Tally, close: Close) {
        self.requests += tally.statuses.len() as u64;
        for status in &tally.statuses {
            *self.statuses.entry(*status).or_default() += 1;
        }
        for timer in &tally.fired {
            *self.timeouts.entry(*timer).or_default() += 1;
        }
        *self.closes.entry(close.name()).or_default() += 1;
        self.bytes_in += tally.bytes_in;
        self.bytes_out += tally.bytes_out;
    }
}

/// Formats a table with one number per line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<22} {value:>14}");
        row("seed", &self.seed)?;
        row("virtual time", &clock(self.lasted))?;
        row("connections", &self.connections)?;
        row("requests", &self.requests)?;
        for (status, count) in &self.statuses {
            row(&format!("  status {status}"), count)?;
        }
        for (name, timer) in Timer::TABLE {
            row(&format!("timeout {name}"), self.timeouts.get(timer).unwrap_or(&0))?;
        }
        for (name, count) in &self.closes {
            row(&format!("close {name}"), count)?;
        }
        row("bytes in", &self.bytes_in)?;
        row("bytes out", &self.bytes_out)?;
        row("peak memory", &self.peak_memory)?;
        row("events", &self.events)?;
        writeln!(f, "hash {:>32}", self.hash)
    }
}

/// Formats hours, minutes, seconds and milliseconds.
fn clock(millis: u64) -> String {
    let (seconds, minutes, hours) = (millis / 1_000 % 60, millis / 60_000 % 60, millis / 3_600_000);
    format!("{hours}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}

/// A rule that was broken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the world; `None` if a transcript was replayed.
    pub seed: Option<u64>,
    /// The number of the connection in its world, from 0.
    pub connection: u64,
    /// The name of the rule, and how it was broken.
    pub what: String,
    /// The shortest history of the connection that was found to break the rule.
    /// [`Server::replay`](super::Server::replay) replays it.
    pub transcript: Transcript,
    /// Whether `transcript` breaks the rule by itself. If not, the failure depends on other connections, and the
    /// history is complete.
    pub is_alone: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            write!(f, "seed {seed}, connection {}: ", self.connection)?;
        }
        writeln!(f, "{}", self.what)?;
        let how = if self.is_alone { "minimized" } else { "complete, since it breaks no rule by itself" };
        write!(f, "Its history, {how}:\n\n{}", self.transcript.to_text())
    }
}

impl std::error::Error for Failure {}

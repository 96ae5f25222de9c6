//! What a world came to: when it went well, and when it did not.

use std::collections::BTreeMap;
use std::fmt;

use sanserve_core::Close;
use sanserve_transcript::Transcript;

use super::hash::Fnv;
use super::judge::{Tally, Timer};

/// What has happened in a world. The same seed and the same rules give the same summary, to the byte, on any
/// machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Virtual milliseconds from the start to the end of the last connection.
    pub lasted: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Exchanges that were finished.
    pub requests: u64,
    /// How many of them had which status; 0: none was sent.
    pub statuses: BTreeMap<u16, u64>,
    /// The timers that have fired.
    pub timeouts: BTreeMap<Timer, u64>,
    /// Why connections were closed, by the words of transcripts.
    pub closes: BTreeMap<&'static str, u64>,
    /// Bytes from the clients.
    pub bytes_in: u64,
    /// Bytes to the clients.
    pub bytes_out: u64,
    /// The most bytes that all connections held at a time: the windows and texts of their `Buffers`, 256 for
    /// a connection that is busy and 32 for one that rests, and what a socket held unread. What is kept in
    /// reserve for others, and allocators, are not counted.
    pub peak_memory: u64,
    /// Inputs and steps of all connections.
    pub events: u64,
    /// Of all of them, in order: each as `NUMBER LINE`, the number of the connection and the event's line in
    /// the canonical form of transcripts. Of a `send` that was not taken whole it has what was taken.
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

    /// A connection has ended.
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

/// A table, one number a line.
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

/// Hours, minutes, seconds and milliseconds.
fn clock(millis: u64) -> String {
    let (seconds, minutes, hours) = (millis / 1_000 % 60, millis / 60_000 % 60, millis / 3_600_000);
    format!("{hours}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}

/// A rule that was broken in a world.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The world's; none of a transcript that was replayed.
    pub seed: Option<u64>,
    /// The number of the connection in its world, from 0.
    pub connection: u64,
    /// What is wrong with it: the name of the rule, then what has happened.
    pub what: String,
    /// The shortest history of that connection that was found to break the rule.
    /// [`Server::replay`](super::Server::replay) plays it.
    pub transcript: Transcript,
    /// `transcript` breaks the rule by itself. If not, it depends on other connections, and this is all that
    /// has happened to this one.
    pub is_alone: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            write!(f, "seed {seed}, connection {}: ", self.connection)?;
        }
        writeln!(f, "{}", self.what)?;
        let how = if self.is_alone { "made short" } else { "whole: alone, it breaks no rule" };
        write!(f, "Its history, {how}:\n\n{}", self.transcript.to_text())
    }
}

impl std::error::Error for Failure {}

//! Exercise 5. A state machine with timeouts.
//!
//! It reads a line, which has to be complete 20 seconds after its first byte. Before that, the peer may be silent for
//! 60 seconds. It has no clock: its driver passes the time. It seems to work, but one client in the test keeps it
//! waiting forever.
//!
//! `LEARN=mine cargo test -q --test learn exercise_5`

/// How long a line may take from its first byte, in milliseconds.
pub const LINE: u64 = 20_000;

/// How long the peer may be silent before the first byte, in milliseconds.
pub const SILENCE: u64 = 60_000;

/// What the machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes, or to be polled at this time.
    Wait {
        /// In milliseconds, and later than now.
        until: u64,
    },
    /// A line is complete.
    Line(Vec<u8>),
    /// A timeout expired.
    TimedOut,
}

/// Reads one line.
pub struct Reader {
    line: Vec<u8>,
    since: u64,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(now: u64) -> Reader {
        Reader { line: Vec::new(), since: now }
    }

    /// Bytes have arrived.
    pub fn handle(&mut self, bytes: &[u8], now: u64) {
        self.line.extend(bytes);
        self.since = now;
    }

    /// Returns what to do now.
    pub fn poll(&mut self, now: u64) -> Step {
        if let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            return Step::Line(self.line[..end].to_vec());
        }
        let until = self.since + if self.line.is_empty() { SILENCE } else { LINE };
        if now >= until { Step::TimedOut } else { Step::Wait { until } }
    }
}

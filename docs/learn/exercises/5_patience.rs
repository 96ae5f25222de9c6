//! Exercise 5. A machine of your own, with a time-out.
//!
//! It reads a line, which has to be complete 20 seconds after its first byte, and before which the peer may be
//! silent for 60 seconds. It has no clock: whoever drives it says what time it is. It works with every client
//! that was tried, and one client in the test keeps it waiting for ever.
//!
//! `LEARN=mine cargo test -q --test learn exercise_5`

/// Milliseconds to a complete line, from its first byte.
pub const LINE: u64 = 20_000;

/// Milliseconds of silence before it.
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
    /// The peer was given up.
    TimedOut,
}

/// Reads one line.
pub struct Reader {
    line: Vec<u8>,
    since: u64,
}

impl Reader {
    /// Nothing was read yet.
    pub fn new(now: u64) -> Reader {
        Reader { line: Vec::new(), since: now }
    }

    /// Bytes came in.
    pub fn handle(&mut self, bytes: &[u8], now: u64) {
        self.line.extend(bytes);
        self.since = now;
    }

    /// What to do now.
    pub fn poll(&mut self, now: u64) -> Step {
        if let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            return Step::Line(self.line[..end].to_vec());
        }
        let until = self.since + if self.line.is_empty() { SILENCE } else { LINE };
        if now >= until { Step::TimedOut } else { Step::Wait { until } }
    }
}

//! The shared parts of the tests over real sockets: a strict client, servers to start, trees to serve.
//!
//! This crate does not depend on a frontend or on the command. The command is started as a process and is reached
//! through its flags, its sockets and `/proc`. Every wait has a timeout, so a server that hangs fails its test, and
//! does not block others.

pub mod browser;
pub mod client;
pub mod embedded;
pub mod page;
pub mod process;
pub mod response;
pub mod scripts;
pub mod server;
pub mod text;
pub mod traced;
pub mod tree;

pub use client::Client;
pub use embedded::{Bound, Embedded, LogSink};
pub use response::Response;
pub use server::Server;
pub use tree::Tree;

use std::time::{Duration, Instant};

/// The timeout of every single wait of a test.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a test checks that nothing happens.
pub const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The values of `sanserve --runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One event loop.
    Mio,
    /// Blocking threads.
    Std,
    /// Tasks.
    Smol,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Runtime; 3] = [Runtime::Mio, Runtime::Std, Runtime::Smol];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Mio => "mio",
            Runtime::Std => "std",
            Runtime::Smol => "smol",
        }
    }

    /// The flags for a single event loop or executor thread that serves all connections. On std, each connection has
    /// its own thread.
    pub fn alone(self) -> &'static [&'static str] {
        if self == Runtime::Std { &[] } else { &["--workers", "1"] }
    }
}

/// Waits until `condition` holds. Panics with `what` after [`TIMEOUT`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out after {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pseudo-random numbers (xorshift64*), the same in every run.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence for `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() >> 33).expect("31 bits") % end
    }

    /// `count` different positions inside of `len` bytes, in order; fewer if there is no room.
    pub fn cuts(&mut self, len: usize, count: usize) -> Vec<usize> {
        if len < 2 {
            return Vec::new();
        }
        let mut cuts: Vec<usize> = (0..count).map(|_| 1 + self.below(len - 1)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

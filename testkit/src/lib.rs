//! What the tests over real sockets share: a client that trusts nothing, servers to start, trees to serve.
//!
//! It does not depend on a frontend or on the command. The command is started as a process and is reached through its
//! flags, its sockets and `/proc`. Every wait has a bound, so a server that hangs fails its test and holds up no other.

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

/// No single wait of a test takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test watches that nothing happens.
pub const GLANCE: Duration = Duration::from_millis(100);

/// What `sanserve --runtime` takes.
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

    /// The flags for one loop or thread that serves all connections, where there is such a thing:
    /// what stops it stops everybody. On std, each connection has its thread.
    pub fn alone(self) -> &'static [&'static str] {
        if self == Runtime::Std { &[] } else { &["--workers", "1"] }
    }
}

/// Waits until `condition` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Numbers that look random and are the same in every run (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence that belongs to `seed`.
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

    /// `count` different places in the middle of something `len` long, in order; fewer where there
    /// is no room.
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

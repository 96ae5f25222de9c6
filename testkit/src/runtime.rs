//! The runtimes of the command.

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

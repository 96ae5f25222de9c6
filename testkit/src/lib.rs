//! The shared parts of the tests over real sockets: a strict client, servers to start, trees to serve.
//!
//! This crate does not depend on a frontend or on the command. The command is started as a process and is reached
//! through its flags, its sockets and `/proc`. Every wait has a timeout, so a server that hangs fails its test, and
//! does not block others.

mod assets;
pub mod browser;
pub mod client;
mod dice;
pub mod embedded;
pub mod handlers;
pub mod page;
pub mod process;
pub mod response;
mod runtime;
pub mod scripts;
pub mod server;
pub mod text;
pub mod traced;
pub mod tree;
mod wait;

pub use assets::{assets, check_assets};
pub use client::Client;
pub use dice::Dice;
pub use embedded::{Bound, Embedded, LogSink};
pub use response::Response;
pub use runtime::Runtime;
pub use server::Server;
pub use tree::Tree;
pub use wait::{QUIET_PERIOD, TIMEOUT, eventually};

/// The programs in README.md and docs/embedding.md. They are compiled with the tests, and the one that terminates is run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../../docs/embedding.md")]
struct Pages;

//! Deterministic tests of handlers and policies, without sockets and without waiting.
//!
//! - [`Server`] is what is tested: your [`Policy`](sanserve_core::Policy), your portable
//!   [`Handler`](sanserve_core::Handler), a virtual [`Disk`], a configuration.
//! - [`Peer`] is one connection under your control: you send, let time pass, and state what you expect.
//! - [`Server::everywhere`] sends the same bytes cut at every position, and takes the responses in small pieces.
//! - [`World`] simulates many clients with a faulty network and disk, determined by a seed.
//!
//! Everything is checked while it happens. A failure contains a [transcript](sanserve_transcript), which
//! [`Server::replay`] replays. `docs/testing.md` has examples.
//!
//! ```
//! use sanserve_testing::{Faults, Server, World};
//! use sanserve_core::{Call, HandlerError, Reply, StatusCode};
//!
//! fn shout(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
//!     if call == Call::Request {
//!         let text = reply.request().path().to_ascii_uppercase();
//!         reply.answer(StatusCode::OK, "text/plain", text)?;
//!     }
//!     Ok(())
//! }
//!
//! let server = Server::new().handler(|| shout);
//! server.everywhere("GET /abc HTTP/1.1\r\nHost: x\r\n\r\n").expect_answer(200, "/ABC");
//! World::new(1).serving(server).faults(Faults::SPLIT | Faults::RESET).run();
//! ```
//!
//! The blocking handlers of `sanserve-std` and the async handlers of `sanserve-smol` are not supported, since they need
//! their runtimes. Nothing in this crate reads a clock, opens a file or prints.

mod answers;
mod clients;
mod disk;
mod driver;
mod everywhere;
mod faults;
mod hash;
mod holding;
mod judge;
mod parts;
mod peer;
mod quiet;
mod random;
mod replay;
mod requests;
mod script;
mod server;
mod summary;
mod world;

pub use answers::{Answer, Answers, Interim, Reader, read as read_answers};
pub use disk::{Disk, File, Node, START};
pub use faults::{Faults, NoSuchFault};
pub use hash::Fnv;
pub use judge::{Timer, judge};
pub use parts::{Part, parts};
pub use peer::Peer;
pub use random::{Random, mix};
pub use script::Script;
pub use server::Server;
pub use summary::{Failure, Summary};
pub use world::World;

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

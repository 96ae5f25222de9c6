//! What you need to test a handler or a policy without sockets and without waiting.
//!
//! - [`Server`] is what is under test: your [`Policy`](sanserve_core::Policy), your portable
//!   [`Handler`](sanserve_core::Handler), a virtual [`Disk`], the rules.
//! - [`Peer`] is one connection by hand: you send, you let time pass, you say what you expect.
//! - [`Server::everywhere`] sends the same bytes cut in every place, and takes the answers in dribs.
//! - [`World`] is many clients with a faulty network and disk, determined by a seed.
//!
//! Everything is checked while it happens, and every failure ends with a [transcript](sanserve_transcript) that
//! [`Server::replay`] plays again. `docs/testing.md` shows each in use.
//!
//! ```
//! use sanserve_testing::{Faults, Server, World};
//! use sanserve_core::{Call, Reply, StatusCode};
//!
//! fn shout(call: Call, reply: &mut Reply<'_>) {
//!     if call == Call::Request {
//!         let text = reply.request().path().to_ascii_uppercase();
//!         reply.answer(StatusCode::OK, "text/plain", text).unwrap();
//!     }
//! }
//!
//! let server = Server::new().handler(|| shout);
//! server.everywhere("GET /abc HTTP/1.1\r\nHost: x\r\n\r\n").expect_answer(200, "/ABC");
//! World::new(1).serving(server).faults(Faults::SPLIT | Faults::RESET).run();
//! ```
//!
//! What it leaves out: the blocking handlers of `sanserve-std` and the async ones of `sanserve-smol`, which
//! need their runtimes. Nothing in here reads a clock, opens a
//! file or prints.

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

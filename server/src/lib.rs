//! What the frontends of sanserve share above system calls.
//!
//! The core decides what to do next ([`Step`](sanserve_core::Step)); a frontend waits and calls handlers;
//! `sanserve-os` makes one system call at a time. This crate contains what lies in between: the configuration of a
//! server ([`Site`]), the cache of small files, the code that carries out steps ([`Slot`]), scripts and their
//! supervision, the log, recordings, and the limit on memory. Nothing here waits for a connection, except [`poll`], for
//! frontends that wait with it.
//!
//! This is the loop of a frontend, for one connection over one end of a socket pair:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//! use std::sync::Arc;
//! use std::task::Waker;
//!
//! use sanserve_core::{Peer, StatusCode};
//! use sanserve_os::Clock;
//! use sanserve_server::{Budget, Env, Local, Log, Session, Site, Transport, Turn, Workspace};
//!
//! # fn main() -> std::io::Result<()> {
//! let site = Site::without_files().with_log(Log::quiet());
//! let site = site.with_answer(|reply| reply.answer(StatusCode::OK, "text/plain", "hello\n"));
//! let (mut client, socket) = UnixStream::pair()?;
//! socket.set_nonblocking(true)?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
//!
//! let (now, mut log) = (Clock::start().now(), site.log().logger());
//! let files = Local::new(Arc::clone(site.root()), site.cache().clone());
//! let mut env = Env::new(&site, site.context(&now), &files, &mut log);
//! let mut session = Session::begin(Peer::unix(), &site, &env.cx, "example");
//! let (mut space, mut transport, mut handler) = (Workspace::new(&site), Transport::level_triggered(), None);
//! loop {
//!     let mut budget = Budget { steps: 64, bytes: 1 << 20, large: u64::MAX, scripts_are_slow: false };
//!     let io = &mut transport.over(socket.as_fd());
//!     match session.turn(&mut space, io, &mut (), &mut env, &mut budget) {
//!         Turn::Call(call) => {
//!             session.call(call, &mut handler, &|| Waker::noop().clone(), &mut space, &mut env);
//!         }
//!         // A frontend waits here for what is needed. The request has arrived already.
//!         Turn::Wait(_) => _ = transport.became_readable(),
//!         Turn::Closed(_) => break,
//!         Turn::Finished | Turn::Yield | Turn::Slow => {}
//!     }
//! }
//! drop(socket);
//! let mut response = String::new();
//! client.read_to_string(&mut response)?;
//! assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nhello\n"));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod cache;
mod drain_deadlines;
mod failure;
mod io_pool;
mod lifecycle;
mod log;
mod memory;
#[cfg(feature = "recording")]
mod observed;
mod poll_waker;
mod put_away;
mod readiness;
#[cfg(feature = "recording")]
mod record;
mod running;
#[cfg(feature = "cgi")]
mod script;
#[cfg(not(feature = "cgi"))]
#[path = "script/absent.rs"]
mod script;
mod script_io;
mod secure;
mod session;
mod site;
mod slot;
mod standing;
#[cfg(feature = "tls-no-provider")]
mod tls_layer;
#[cfg(feature = "recording")]
mod trace;
mod transport;
mod upgraded;
mod workers;

pub use accept::{Accepted, Acceptor, IDLE_GRACE, UNFINISHED_GRACE};
pub use cache::{Attempt, CacheLimits, Cached, DiskFile, Files, Local, OpenFile, OpenJob, OpenOutcome, Shared};
pub use drain_deadlines::DrainDeadlines;
pub use failure::panic_message;
pub use io_pool::{DEFAULT_IO_THREADS, DiskGate, DiskRequest, IoPool};
pub use lifecycle::{Announce, DrainWatch, Draining, Handle, InProgress, Phase};
pub use log::{Log, Logger};
pub use memory::{default_memory, has_address_limit, threads_within_memory};
pub use poll_waker::{PollWaker, WakeFd};
pub use put_away::PutAway;
pub use readiness::{poll, socket_flags, watched};
#[cfg(feature = "recording")]
pub use record::Recording;
pub use running::{Running, first_ip};
pub use sanserve_os::{ListenAddr, Listener, Root, Stream, StreamSender, Symlinks};
/// TLS, for [`Site::with_tls`].
#[cfg(feature = "tls-no-provider")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
pub use sanserve_tls as tls;
#[cfg(feature = "recording")]
pub use sanserve_transcript::Secrets;
pub use script::Scripts;
#[cfg(feature = "cgi")]
pub use script::{Launcher, ScriptRules};
pub use script_io::{ScriptFds, ScriptRead};
pub use secure::Secure;
pub use session::{Budget, EachExchange, Env, Frontend, Session, Turn, Workspace};
pub use site::{HandlerFactory, SharedPolicy, Site, UpgradeHook, VerifyHook};
pub use slot::{BATCH, Flush, Slot, SlotEnv};
pub use standing::{Rank, Standing};
#[cfg(feature = "recording")]
pub use trace::{Trace, wants_colors};
pub use transport::{Io, Received, Transport};
pub use upgraded::Upgraded;
pub use workers::{Full, Job, Panicked, Workers, probe_memory, probe_resources};

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! The pure core of sanserve: an HTTP/1.x server as a state machine.
//!
//! A driver passes events to a [`Connection`] ([`Connection::handle`]) and asks it what to do next
//! ([`Connection::poll`]). The connection opens no socket and no file, reads no clock, and starts no thread: bytes and
//! time go in, bytes and actions come out. `sanserve-std`, `sanserve-mio` and `sanserve-smol` are three drivers.
//!
//! ```
//! use sanserve_core::{Buffers, Config, Connection, Context, DefaultPolicy, Now, Peer, Step, Tick, Wall};
//!
//! let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
//! let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
//! let mut buf = Buffers::new();
//! let mut connection = Connection::new(Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
//!
//! buf.input.fill(b"GET /a.txt HTTP/1.1\r\nHost: example\r\n\r\n");
//! let Step::Act(_, sanserve_core::Action::Open { path }) = connection.poll(&mut buf, &cx) else { panic!() };
//! assert_eq!(path, b"a.txt");
//! ```
//!
//! Everything that waits or makes system calls is left to the driver: see `sanserve-os`, `sanserve-server` and the
//! frontends.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The tasks share more than a build without some of them uses.
#![cfg_attr(not(feature = "cgi"), allow(dead_code, unused_imports))]

#[cfg(feature = "files")]
mod assets;
mod buffers;
#[cfg(feature = "cgi")]
mod cgi;
#[cfg(not(feature = "cgi"))]
#[path = "cgi/absent.rs"]
mod cgi;
mod coding;
mod conditional;
mod config;
mod connection;
mod context;
mod credentials;
mod date;
mod entry;
mod error;
mod exchange;
mod fields;
#[cfg(feature = "files")]
mod files;
#[cfg(not(feature = "files"))]
#[path = "files/absent.rs"]
mod files;
mod grammar;
mod handler;
mod handler_error;
mod handler_task;
mod handover;
mod head_writer;
mod input;
#[cfg(feature = "http")]
mod interop;
mod listing;
#[cfg(feature = "files")]
mod media_type;
mod media_types;
mod observer;
mod page;
mod path;
mod peer;
mod policy;
mod range;
mod reason;
mod request;
mod response_head;
mod rules;
mod script_path;
mod secured;
mod share;
mod status;
mod step;
mod tables;
mod task;
mod text;
mod time;
mod timer;
mod wire;

#[cfg(feature = "files")]
pub use assets::{Asset, Assets};
pub use buffers::{Buffers, Window};
pub use coding::ContentCoding;
pub use conditional::Validators;
pub use config::{Cgi, Chunked, Config, Etag, Limits, Pace, Protocol, Timeouts};
pub use connection::{Connection, Packed, Received, Reply, Resting, State};
pub use context::Context;
pub use credentials::CREDENTIALS;
pub use date::{Now, date_time_string};
pub use entry::Entry;
pub use error::{After, Violation};
pub use fields::{Fields, Misuse};
pub use handler::Handler;
pub use handler_error::HandlerError;
pub use handover::{FileHandle, UpgradeState};
pub use head_writer::HeadWriter;
pub use input::{Completion, Fault, Found, FsError, Input, Kind, Listed, Opened, ScriptFile, SpawnError, Ticket};
pub use listing::{EntryKind, Listing, listing_row};
#[cfg(feature = "files")]
pub use media_type::media_type;
pub use media_types::{InvalidMediaType, MediaTypes};
pub use observer::Observer;
pub use page::{ErrorPage, write as write_error_page};
pub use path::{Forbidden, translate};
pub use peer::Peer;
pub use policy::{Authenticated, DefaultPolicy, Policy, Route};
pub use reason::{Cause, Reason, Rule, Topic};
pub use request::{Request, RequestBuf};
pub use response_head::ResponseHead;
pub use rules::{Cache, InvalidRule, Isolation, Rules, Stage};
pub use script_path::{collapse_path, is_cgi};
pub use secured::{Secured, TlsVersion};
pub use share::Memory;
pub use status::{InvalidStatusCode, StatusCode};
pub use step::{Action, Body, Call, Close, Need, Script, ScriptInput, Step, Transmit, Wait};
pub use text::{escape, is_deceptive, scrub};
pub use time::{Tick, Wall};
pub use timer::Timer;
pub use wire::{COUPLING, INBOUND, Move, OUTBOUND, Tracker, Transition};

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

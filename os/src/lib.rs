//! What the frontends of sanserve share of the operating system.
//!
//! The core says what is to be done ([`Step`](sanserve_core::Step)); a frontend waits and calls
//! handlers; this crate does the rest: it opens files beneath a root, keeps small ones in memory,
//! sends, runs scripts, logs, binds, accepts, catches signals and reads the clock. It carries out one
//! thing at a time and never loops or waits, but for [`Signals::wait`] and the ends of things.

mod beneath;
mod cache;
mod call;
mod clock;
mod digest;
mod directory;
mod draining;
mod find;
#[cfg(target_os = "linux")]
mod init;
mod listen;
mod log;
mod memory;
mod record;
mod script;
mod send;
mod service;
mod signal;
mod slot;
mod trace;
mod walk;
mod workers;

pub use beneath::{Identity, Root, Symlinks};
pub use cache::{CacheLimits, Cached, Files, Held, Local, Shared};
pub use call::{Caller, Failure, panic_message};
pub use clock::Clock;
pub use directory::Directory;
pub use draining::{DrainWatch, Draining, InHand};
#[cfg(target_os = "linux")]
pub use init::leave_process_1;
pub use listen::{
    AcceptBackoff, AfterError, IDLE_GRACE, UNFINISHED_GRACE, accept, bind, bind_all, bind_many, has_arrived,
    is_acceptable, raise_nofile_limit, resolve, resolve_all,
};
pub use log::{Log, Logger};
pub use memory::{default_memory, has_address_limit, threads_within_memory};
pub use record::Recording;
pub use script::{Launcher, ScriptFds, ScriptRead, ScriptRules, Scripts};
pub use send::{MOST_OF_FILE, Stopped, is_reset, send, send_file, send_vectored};
pub use service::{HandlerFactory, Service, SharedSite, UpgradeHook, Upgraded, VerifyHook};
pub use signal::{Signal, Signals};
pub use slot::{BATCH, Desk, Flush, Slot};
pub use trace::{Trace, wants_colors};
pub use workers::{Full, Job, Panicked, Workers, probe_memory, probe_resources};

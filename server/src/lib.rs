//! What the frontends of sanserve share above system calls.
//!
//! The core says what is to be done ([`Step`](sanserve_core::Step)); a frontend waits and calls
//! handlers; `sanserve-os` makes one system call at a time. This crate is what stands between: what is served and by
//! which rules ([`Site`]), small files in memory, how steps are carried out ([`Slot`]), scripts and who looks after
//! them, the log, recordings, and the bounds on memory. It never loops or waits, but for the ends of things.

mod accept;
mod cache;
mod lifecycle;
mod log;
mod memory;
mod record;
mod script;
mod session;
mod site;
mod slot;
mod standing;
mod trace;
mod transport;
mod workers;

pub use accept::{Accepted, Acceptor, IDLE_GRACE, UNFINISHED_GRACE};
pub use cache::{CacheLimits, Cached, Files, Local, OpenFile, Shared};
pub use lifecycle::{Announce, DrainWatch, Draining, Handle, InProgress, Phase};
pub use log::{Log, Logger};
pub use memory::{default_memory, has_address_limit, threads_within_memory};
pub use record::Recording;
pub use sanserve_os::{Root, Symlinks};
pub use sanserve_transcript::Secrets;
pub use script::{Launcher, ScriptFds, ScriptRead, ScriptRules, Scripts};
pub use session::{Budget, Env, Failure, Frontend, Session, Turn, Workspace, panic_message};
pub use site::{HandlerFactory, SharedPolicy, Site, UpgradeHook, Upgraded, VerifyHook};
pub use slot::{BATCH, Flush, Slot, SlotEnv};
pub use standing::{Rank, Standing};
pub use trace::{Trace, wants_colors};
pub use transport::{Io, Received, Transport};
pub use workers::{Full, Job, Panicked, Workers, probe_memory, probe_resources};

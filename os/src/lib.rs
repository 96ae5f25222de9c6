//! The system calls of sanserve, one at a time.
//!
//! This crate opens files beneath a root, lists directories, finds scripts, binds, accepts, sends, catches signals
//! and reads the clock. What is served, and how the steps of a connection are carried out, is decided in
//! `sanserve-server`. Nothing here loops or waits, except for `Signals::wait`.
//!
//! ```
//! use sanserve_os::{Listener, Root, Symlinks, bind};
//!
//! # fn main() -> std::io::Result<()> {
//! let root = Root::open(".".as_ref(), Symlinks::Inside)?;
//! let (_file, opened, _id) = root.open_at(b"Cargo.toml").expect("the manifest of this crate");
//! assert!(opened.len > 0);
//!
//! let listener = Listener::from(bind(([127, 0, 0, 1], 0).into(), false)?);
//! listener.set_nonblocking(true)?;
//! assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("sanserve-os and what depends on it need Unix; sanserve-core compiles for any target");

mod beneath;
mod clock;
#[cfg(feature = "files")]
pub mod digest;
#[cfg(not(feature = "files"))]
#[path = "digest/absent.rs"]
pub mod digest;
mod directory;
mod find;
mod identity;
#[cfg(all(feature = "signals", target_os = "linux"))]
mod init;
mod listen;
mod listener;
mod pipe;
mod send;
#[cfg(feature = "signals")]
mod signal;
mod storage;
mod stream;
mod walk;

pub use beneath::{Root, Symlinks, fs_error};
pub use clock::Clock;
pub use directory::Directory;
pub use find::Checked;
pub use identity::{FileId, RECORDING, Withheld, examine};
#[cfg(all(feature = "signals", target_os = "linux"))]
pub use init::leave_process_1;
pub use listen::{
    SharedListener, accept, addresses_of, bind, bind_all, bind_all_shared, has_arrived, inherited_nofile_limit,
    is_acceptable, nofile_limit, raise_nofile_limit, resolve, resolve_all,
};
pub use listener::{ListenAddr, Listener, StreamSender};
pub use pipe::pipe;
pub use send::{MAX_SENDFILE, Stopped, is_reset, send, send_file, send_vectored};
#[cfg(feature = "signals")]
pub use signal::{Signal, Signals};
pub use storage::{NotInMemory, Storage, read_in_memory};
pub use stream::{Stream, is_unix, set_nonblocking};

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

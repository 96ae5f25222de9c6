//! sanserve: an HTTP/1.x file server, and an embeddable one, on a runtime of your choice.
//!
//! This crate is the command and a thin facade. [`core`] is the pure state machine, [`server`] is what the
//! frontends share, [`os`] wraps the system calls, and each frontend is enabled by the feature of its name.
//!
//! ```no_run
//! # #[cfg(feature = "mio")]
//! # fn main() -> std::io::Result<()> {
//! let site = sanserve::server::Site::new(".")?;
//! sanserve::mio::Server::bind("127.0.0.1:8000", site)?.run()
//! # }
//! # #[cfg(not(feature = "mio"))]
//! # fn main() {}
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use sanserve_core as core;
pub use sanserve_core::{Call, HandlerError, Misuse, Received, Reply, Request, StatusCode, Validators};
#[cfg(feature = "mio")]
pub use sanserve_mio as mio;
pub use sanserve_os as os;
pub use sanserve_server as server;
pub use sanserve_server::{Log, Site, Upgraded, Workers};
#[cfg(feature = "smol")]
pub use sanserve_smol as smol;
#[cfg(feature = "std")]
pub use sanserve_std as std;
#[cfg(feature = "testing")]
pub use sanserve_testing as testing;
pub use sanserve_transcript as transcript;

/// The programs in the README and in docs/embedding.md are compiled with the tests. The one that terminates is also run.
#[cfg(all(doctest, feature = "mio", feature = "std", feature = "smol"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/embedding.md")]
struct Readme;

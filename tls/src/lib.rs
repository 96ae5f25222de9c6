//! The server's side of TLS for sanserve, as a state machine without input and output, on
//! [rustls](https://docs.rs/rustls) 0.23.
//!
//! Nothing here opens a socket, reads a file or starts a thread. TLS 1.2 and 1.3 are supported.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod error;
mod failure;
pub mod identity;
mod machine;
mod outgoing;
mod provider;
mod server_name;

pub use config::{Config, ConfigError};
pub use error::NoProvider;
pub use failure::Failure;
pub use machine::{Machine, Read, Secured};
pub use provider::provider;

/// The version of rustls whose types this crate has in its interface.
pub use rustls;

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

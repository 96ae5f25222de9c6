//! The suite over real sockets. Each case is written once, for any runtime.

#![allow(unreachable_pub, reason = "a test program exports nothing: `pub` is for its other modules")]

pub mod bodies;
pub mod cgi_answers;
pub mod cgi_bodies;
pub mod cgi_forms;
pub mod cgi_processes;
pub mod cgi_programs;
pub mod cgi_requests;
pub mod conditional;
pub mod draining;
pub mod errors;
pub mod files;
pub mod freshness;
pub mod hostile;
pub mod limits;
pub mod listing;
pub mod log;
pub mod pace;
pub mod paths;
pub mod persistence;
pub mod pipelining;
pub mod ranges;
pub mod redirect;
pub mod resources;
pub mod root;
pub mod rules;
pub mod shutdown;
pub mod smuggling;
pub mod timeouts;

//! Asynchronous handlers over real sockets.

mod answers;
mod bodies;
mod endings;
mod support;
mod upgrades;

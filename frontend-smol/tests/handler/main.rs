//! Asynchronous handlers over real sockets.

mod answers;
mod bench;
mod bodies;
mod endings;
mod upgrades;

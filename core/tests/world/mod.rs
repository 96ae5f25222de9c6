//! What the nets (`explore`, `properties`, `simulate`) and `fuzz/` share: a driver that does one thing at a time (`rig`), a
//! reference reader of requests (`model`) and of what scripts say (`hops`), a verdict over both, and the bodies of the
//! fuzz targets. The worlds are the library's; here is what is put into them (`worlds`, `requests`), and the verdict
//! judges them as well. Nothing in here waits or is random by itself.

#![allow(dead_code, reason = "each net uses its part of the world")]
#![allow(unreachable_pub, missing_docs, reason = "the fuzz targets include this module by path")]

pub mod answers;
pub mod bodies;
pub mod disk;
pub mod handlers;
pub mod hops;
pub mod model;
pub mod random;
pub mod requests;
pub mod rig;
pub mod verdict;
pub mod worlds;

/// A time of the configuration, as ticks count it.
pub fn millis(time: std::time::Duration) -> u64 {
    (sanserve_core::Tick(0) + time).0
}

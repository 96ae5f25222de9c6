//! What `explore`, `properties`, `simulate` and `fuzz/` share: a driver that performs one operation at a time (`rig`),
//! reference parsers of requests (`model`) and of the output of scripts (`hops`), a verdict that compares both, and the
//! bodies of the fuzz targets. The simulated worlds are those of the library, with disks, scripts and requests from
//! here (`worlds`, `requests`); the verdict also checks their connections. Nothing here blocks or is random by itself.

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

//! A world to run connections in: a driver that carries out steps on a virtual disk, a strict reader
//! of answers, a reference reader of requests, scripts, and the bodies of the fuzz targets. The nets
//! (`explore`, `properties`, `simulate`) and `fuzz/` share it; nothing in it waits or is random by
//! itself.

#![allow(dead_code, reason = "each net uses its part of the world")]
#![allow(unreachable_pub, missing_docs, reason = "the fuzz targets include this module by path")]

pub mod answers;
pub mod bodies;
pub mod clients;
pub mod disk;
pub mod handlers;
pub mod hops;
pub mod model;
pub mod network;
pub mod random;
pub mod rig;
pub mod scripts;
pub mod verdict;

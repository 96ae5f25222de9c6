//! Parity with Python: the requests, the comparison of responses, and the permitted differences.

#![allow(unreachable_pub, reason = "a test program exports nothing: `pub` is for its other modules")]

pub mod answers;
pub mod cases;
pub mod differences;
pub mod scripts;

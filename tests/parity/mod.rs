//! Parity with Python: what is asked, how answers are compared, what may differ.

#![allow(unreachable_pub, reason = "a test program exports nothing: `pub` is for its other modules")]

pub mod answers;
pub mod cases;
pub mod differences;
pub mod scripts;

//! Chance that is the same every time: the library's.

pub use sanserve_testing::Random;

//! Deterministic random numbers, from the library.

pub use sanserve_testing::Random;

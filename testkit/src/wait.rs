//! Waiting for conditions, within bounds.

use std::time::{Duration, Instant};

/// The timeout of every single wait of a test.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a test checks that nothing happens.
pub const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// Waits until `condition` holds. Panics with `what` after [`TIMEOUT`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out after {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

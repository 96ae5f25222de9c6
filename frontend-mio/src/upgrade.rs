//! Handing over connections that speak another protocol.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use sanserve_server::{Service, Upgraded, panic_message};

use crate::places::Place;

/// Calls the embedder's hook on a thread of its own, where it may block for as long as it likes. The place
/// of the connection is given back when that thread ends, or if there is none to be had.
pub(crate) fn hand_over(upgraded: Upgraded, service: &Arc<Service>, place: Place) {
    let shared = Arc::clone(service);
    let thread = thread::Builder::new().name("sanserve-upgraded".into()).spawn(move || {
        let _place = place;
        let Some(take) = &shared.upgrade else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| take(upgraded))) {
            shared.log.error(format_args!("an upgraded connection panicked: {}", panic_message(&*panic)));
        }
    });
    if let Err(error) = thread {
        service.log.error(format_args!("no thread for an upgraded connection: {error}"));
    }
}

//! Connections that speak another protocol from here on.

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use async_io::Async;
use sanserve_server::panic_message;

use crate::Shared;

/// A connection that speaks another protocol from here on; what
/// [`Exchange::upgrade`](crate::Exchange::upgrade) gives.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, registered with the reactor. `stream.into_inner()?` and `set_nonblocking(false)` make one
    /// that blocks.
    pub stream: Async<TcpStream>,
    /// What the peer has sent already: it comes before what `stream` gives.
    pub read: Vec<u8>,
}

/// Calls the service's hook, which may block, on a thread of its own; without one, the connection closes.
pub(crate) fn hand_over(shared: &Arc<Shared>, upgraded: io::Result<sanserve_server::Upgraded>) {
    if shared.service.upgrade.is_none() {
        return;
    }
    let given = Arc::clone(shared);
    let outcome = upgraded.and_then(|upgraded| {
        let take = move || {
            let Some(hook) = &given.service.upgrade else { return };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(upgraded))) {
                given.service.log.error(format_args!("an upgrade panicked: {}", panic_message(&*panic)));
            }
        };
        thread::Builder::new().name("sanserve-upgrade".into()).spawn(take)
    });
    if let Err(error) = outcome {
        shared.service.log.error(format_args!("cannot hand over a connection: {error}"));
    }
}

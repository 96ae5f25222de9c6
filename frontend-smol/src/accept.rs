//! Accepting connections, up to the limit, without spinning on errors.

use std::sync::Arc;
use std::time::Duration;

use async_io::{Async, Timer};
use sanserve_server::{Accepted, Acceptor, Listener, Phase};
use smol::future::{FutureExt as _, yield_now};

use crate::driver::{Driver, Shared};
use crate::spawn::Spawn;
use crate::watch::DeadlineHandle;

/// The most connections accepted before the other tasks of the thread have their turn.
const MAX_AT_ONCE: usize = 64;

/// How often to check again whether a connection may be closed to make room.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Accepts until the server shuts down, then accepts the connections that are already pending, and drops the
/// listener.
pub(crate) async fn accept_all(shared: &Arc<Shared>, listener: Async<Listener>, executor: &impl Spawn) {
    accept_before(Phase::Draining, shared, &listener, executor).await;
    // Clients may continue to connect meanwhile, so the time is limited.
    let in_time = Timer::after(shared.site.config().timeouts.drain_silence());
    let rest = accept_before(Phase::Cut, shared, &listener, executor);
    rest.or(async {
        in_time.await;
    })
    .await;
}

/// Accepts until the server is in this phase; while it drains, only until no connection is pending.
async fn accept_before(end: Phase, shared: &Arc<Shared>, listener: &Async<Listener>, executor: &impl Spawn) {
    let Shared { watch, site, clock, .. } = &**shared;
    let bound = site.connection_bound();
    let goes_down = || site.draining().phase() >= end;
    let mut acceptor = Acceptor::default();
    let mut in_a_row = 0;
    loop {
        make_room(end, shared, listener, bound).await;
        if goes_down() {
            return;
        }
        match acceptor.accept(listener.get_ref(), site, clock.tick()) {
            Accepted::Peer(stream, peer) => {
                Driver::new(stream, peer, DeadlineHandle::take(watch), shared).spawn(executor);
                in_a_row += 1;
                if in_a_row == MAX_AT_ONCE {
                    in_a_row = 0;
                    yield_now().await;
                }
            }
            Accepted::Again => {}
            Accepted::Nobody | Accepted::Pause(_) if end == Phase::Cut => return,
            Accepted::Nobody => {
                in_a_row = 0;
                let waiting = async {
                    // `accept` would return the same error, and logs it.
                    let _ = listener.readable().await;
                };
                waiting.or(watch.until(goes_down)).await;
            }
            Accepted::Pause(millis) => {
                let pause = async {
                    Timer::after(Duration::from_millis(millis)).await;
                };
                pause.or(watch.until(goes_down)).await;
            }
        }
    }
}

/// Waits until there is room for another connection, or the server is in this phase. For a pending client, the
/// connection that has been idle for longest is closed.
async fn make_room(end: Phase, shared: &Shared, listener: &Async<Listener>, bound: usize) {
    let Shared { watch, site, clock, .. } = shared;
    let is_over = || watch.taken() < bound || site.draining().phase() >= end;
    while !is_over() {
        let waiting = async {
            if listener.get_ref().is_acceptable() {
                // The connection is about to close, or has an exchange in progress after all; or no connection may be
                // closed yet.
                watch.close_one(bound - 1, clock.tick());
                Timer::after(LOOK_AGAIN).await;
            } else {
                // `accept` would return the same error, and logs it.
                let _ = listener.readable().await;
            }
        };
        waiting.or(watch.until(is_over)).await;
    }
}

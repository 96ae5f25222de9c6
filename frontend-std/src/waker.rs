//! Waking a portable handler from another thread: a descriptor for poll(2), which is only made for handlers that ask
//! for a waker.

use std::cell::OnceCell;
use std::sync::Arc;
use std::task::Waker;

use sanserve_server::WakeFd;

/// The waker for the descriptor in `place`, which is made if it does not exist yet.
///
/// # Panics
/// If the system is out of descriptors: a handler that cannot be woken would wait for ever.
pub(crate) fn waker(place: &OnceCell<Arc<WakeFd>>) -> Waker {
    let wake_fd = place.get_or_init(|| Arc::new(WakeFd::new().expect("a descriptor for the waker")));
    Waker::from(Arc::clone(wake_fd))
}

//! Waking the connection of a portable handler, from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Belongs to one exchange. When that is over, the driver does not check it any more.
pub(crate) struct WakeFlag {
    woken: AtomicBool,
    /// Wakes the task of the connection.
    task: Waker,
}

impl WakeFlag {
    /// A waker for the connection of `place`, whose task is woken by `task`.
    pub(crate) fn waker(place: &mut Option<Arc<WakeFlag>>, task: &Waker) -> Waker {
        let wake_flag =
            place.get_or_insert_with(|| Arc::new(WakeFlag { woken: AtomicBool::new(false), task: task.clone() }));
        Waker::from(Arc::clone(wake_flag))
    }

    /// Whether the flag was set since the last call.
    pub(crate) fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake_by_ref();
    }
}

//! What a portable handler wakes its connection with, from anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Of one exchange: when that is over, the driver looks at it no more.
pub(crate) struct WakeFlag {
    woken: AtomicBool,
    /// Wakes the connection's task.
    task: Waker,
}

impl WakeFlag {
    /// Wakes the connection of `place`, whose task is woken by `task`.
    pub(crate) fn waker(place: &mut Option<Arc<WakeFlag>>, task: &Waker) -> Waker {
        let wake_flag =
            place.get_or_insert_with(|| Arc::new(WakeFlag { woken: AtomicBool::new(false), task: task.clone() }));
        Waker::from(Arc::clone(wake_flag))
    }

    /// Whether it was woken since this was asked last.
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

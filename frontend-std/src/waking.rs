//! Waking a portable handler from another thread: something that poll(2) sees, made only for who asks.

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Wakes the thread of one connection during one exchange.
pub(crate) struct Bell {
    /// It was rung, and the thread has not heard it yet.
    rung: AtomicBool,
    ringing: UnixStream,
    hearing: UnixStream,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let (ringing, hearing) = UnixStream::pair()?;
        Ok(Bell { rung: AtomicBool::new(false), ringing, hearing })
    }

    /// What rings the bell in `place`, which is made if it is not there yet.
    ///
    /// # Panics
    /// If the system has none to give: a handler that nobody can wake would wait for ever.
    pub(crate) fn waker(place: &OnceCell<Arc<Bell>>) -> Waker {
        let bell = place.get_or_init(|| Arc::new(Bell::new().expect("the system has something to wake by")));
        Waker::from(Arc::clone(bell))
    }

    /// To be called when it is readable, before the handler looks for what has changed.
    pub(crate) fn silence(&self) {
        // There is exactly one byte. In this order none is lost: who rings from here on writes another.
        let _ = (&self.hearing).read(&mut [0]);
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hearing.as_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _ = (&self.ringing).write(&[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_once_however_often_it_is_rung() {
        let place = OnceCell::new();
        let (one, other) = (Bell::waker(&place), Bell::waker(&place));
        let bell = place.get().unwrap();
        bell.hearing.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            one.wake_by_ref();
            other.wake_by_ref();
            bell.silence();
            assert!((&bell.hearing).read(&mut [0]).is_err(), "a second byte");
        }
    }
}

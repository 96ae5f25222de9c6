//! Waking a portable handler from another thread: a descriptor for poll(2), which is only made for handlers that ask
//! for a waker.

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Wakes the thread of one connection during one exchange.
pub(crate) struct ConnWaker {
    /// A wake-up was sent that the thread has not received yet.
    is_woken: AtomicBool,
    sender: UnixStream,
    receiver: UnixStream,
}

impl ConnWaker {
    fn new() -> io::Result<ConnWaker> {
        let (sender, receiver) = UnixStream::pair()?;
        Ok(ConnWaker { is_woken: AtomicBool::new(false), sender, receiver })
    }

    /// The waker for the descriptor in `place`, which is made if it does not exist yet.
    ///
    /// # Panics
    /// If the system is out of descriptors: a handler that cannot be woken would wait for ever.
    pub(crate) fn waker(place: &OnceCell<Arc<ConnWaker>>) -> Waker {
        let conn_waker = place.get_or_init(|| Arc::new(ConnWaker::new().expect("a descriptor for the waker")));
        Waker::from(Arc::clone(conn_waker))
    }

    /// Consumes the wake-up. Call it when the descriptor is readable, before the handler checks what has changed.
    pub(crate) fn consume(&self) {
        // There is exactly one byte. Since it is read before the flag is cleared, no wake-up is lost: the next one
        // writes another byte.
        let _ = (&self.receiver).read(&mut [0]);
        self.is_woken.store(false, Ordering::SeqCst);
    }
}

impl AsFd for ConnWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl Wake for ConnWaker {
    fn wake(self: Arc<ConnWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<ConnWaker>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            let _ = (&self.sender).write(&[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_wake_ups_are_one() {
        let place = OnceCell::new();
        let (one, other) = (ConnWaker::waker(&place), ConnWaker::waker(&place));
        let conn_waker = place.get().unwrap();
        conn_waker.receiver.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            one.wake_by_ref();
            other.wake_by_ref();
            conn_waker.consume();
            assert!((&conn_waker.receiver).read(&mut [0]).is_err(), "a second byte");
        }
    }
}

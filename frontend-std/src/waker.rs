//! Waking a portable handler from another thread: something that poll(2) sees, made only for who asks.

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Wakes the thread of one connection during one exchange.
pub(crate) struct ConnWaker {
    /// It was rung, and the thread has not heard it yet.
    rung: AtomicBool,
    ringing: UnixStream,
    hearing: UnixStream,
}

impl ConnWaker {
    fn new() -> io::Result<ConnWaker> {
        let (ringing, hearing) = UnixStream::pair()?;
        Ok(ConnWaker { rung: AtomicBool::new(false), ringing, hearing })
    }

    /// What rings the bell in `place`, which is made if it is not there yet.
    ///
    /// # Panics
    /// If the system has none to give: a handler that nobody can wake would wait for ever.
    pub(crate) fn waker(place: &OnceCell<Arc<ConnWaker>>) -> Waker {
        let conn_waker = place.get_or_init(|| Arc::new(ConnWaker::new().expect("the system has something to wake by")));
        Waker::from(Arc::clone(conn_waker))
    }

    /// To be called when it is readable, before the handler looks for what has changed.
    pub(crate) fn silence(&self) {
        // There is exactly one byte. In this order none is lost: who rings from here on writes another.
        let _ = (&self.hearing).read(&mut [0]);
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for ConnWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hearing.as_fd()
    }
}

impl Wake for ConnWaker {
    fn wake(self: Arc<ConnWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<ConnWaker>) {
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
        let (one, other) = (ConnWaker::waker(&place), ConnWaker::waker(&place));
        let conn_waker = place.get().unwrap();
        conn_waker.hearing.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            one.wake_by_ref();
            other.wake_by_ref();
            conn_waker.silence();
            assert!((&conn_waker.hearing).read(&mut [0]).is_err(), "a second byte");
        }
    }
}

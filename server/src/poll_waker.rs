//! Waking a thread that waits with `poll(2)`: by a descriptor that becomes readable.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use crate::lifecycle::{Announce, Phase};

/// A descriptor that any thread can make readable. Wakers made of it (`Arc<WakeFd>` is a [`Wake`]) wake the one thread
/// that polls it.
///
/// It takes two descriptors of the process.
#[derive(Debug)]
pub struct WakeFd {
    /// A wake-up was sent that the thread has not received yet.
    is_woken: AtomicBool,
    sender: UnixStream,
    receiver: UnixStream,
}

impl WakeFd {
    /// A descriptor that is not readable yet.
    ///
    /// # Errors
    /// If the system is out of descriptors.
    pub fn new() -> io::Result<WakeFd> {
        let (sender, receiver) = UnixStream::pair()?;
        Ok(WakeFd { is_woken: AtomicBool::new(false), sender, receiver })
    }

    /// Makes the descriptor readable, unless it is.
    pub fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            let _ = (&self.sender).write(&[1]);
        }
    }

    /// Consumes the wake-up. Call it when the descriptor is readable, before checking what has changed.
    pub fn consume(&self) {
        // Since the byte is read before the flag is cleared, no wake-up is lost: the next one writes another byte.
        let _ = (&self.receiver).read(&mut [0; 8]);
        self.is_woken.store(false, Ordering::SeqCst);
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl Wake for WakeFd {
    fn wake(self: Arc<WakeFd>) {
        WakeFd::wake(&self);
    }

    fn wake_by_ref(self: &Arc<WakeFd>) {
        WakeFd::wake(self);
    }
}

/// Interrupts an event loop that waits with `poll(2)`, and collects the exchanges that were woken.
///
/// An exchange has a number that no other exchange of the loop has. A handler may keep a waker for longer than its
/// exchange lasts: such a waker reports a number that the loop does not find any more.
///
/// ```
/// use std::os::fd::AsFd;
/// use sanserve_server::PollWaker;
///
/// # fn main() -> std::io::Result<()> {
/// let waker = PollWaker::new()?;
/// let of_exchange = waker.for_exchange(7);
/// std::thread::spawn(move || of_exchange.wake()).join().unwrap();
/// // The loop polls this descriptor, which is readable now.
/// let _ = waker.as_fd();
/// assert_eq!(waker.take_woken(), [7]);
/// assert_eq!(waker.take_woken(), []);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PollWaker {
    fd: WakeFd,
    woken: Mutex<Vec<u64>>,
}

impl PollWaker {
    /// The waker of a loop.
    ///
    /// # Errors
    /// If the system is out of descriptors.
    pub fn new() -> io::Result<Arc<PollWaker>> {
        let fd = WakeFd::new()?;
        // The loop may have been woken by something else, just before the byte is written.
        fd.receiver.set_nonblocking(true)?;
        Ok(Arc::new(PollWaker { fd, woken: Mutex::default() }))
    }

    /// A waker for the exchange with this number, which must be unique in the loop.
    #[must_use]
    pub fn for_exchange(self: &Arc<PollWaker>, number: u64) -> Waker {
        Waker::from(Arc::new(ExchangeWaker { waker: Arc::clone(self), number }))
    }

    /// Takes the numbers of the exchanges that were woken since the last call. The next wake-up interrupts the loop
    /// again.
    #[must_use]
    pub fn take_woken(&self) -> Vec<u64> {
        self.fd.consume();
        std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for PollWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Announce for PollWaker {
    fn announce(&self, _phase: Phase) {
        self.fd.wake();
    }
}

struct ExchangeWaker {
    waker: Arc<PollWaker>,
    number: u64,
}

impl Wake for ExchangeWaker {
    fn wake(self: Arc<ExchangeWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<ExchangeWaker>) {
        self.waker.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.waker.fd.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_wake_ups_are_one() {
        let fd = Arc::new(WakeFd::new().unwrap());
        let (one, other) = (Waker::from(Arc::clone(&fd)), Waker::from(Arc::clone(&fd)));
        fd.receiver.set_nonblocking(true).unwrap();
        for _ in 0..3 {
            one.wake_by_ref();
            other.wake_by_ref();
            assert_eq!((&fd.receiver).read(&mut [0; 8]).unwrap(), 1);
            fd.consume();
        }
        assert!((&fd.receiver).read(&mut [0]).is_err(), "there is no further byte");
    }

    #[test]
    fn wake_ups_of_exchanges_interrupt_the_loop_and_are_taken_once() {
        let waker = PollWaker::new().unwrap();
        let is_readable = || sanserve_os::has_arrived(waker.as_fd());
        assert!(!is_readable());
        let (one, two) = (waker.for_exchange(1), waker.for_exchange(2));
        two.wake_by_ref();
        one.wake();
        assert!(is_readable());
        assert_eq!(waker.take_woken(), [2, 1]);
        assert!(!is_readable() && waker.take_woken().is_empty());
        waker.announce(Phase::Draining);
        assert!(is_readable(), "a new phase interrupts the loop");
        assert!(waker.take_woken().is_empty() && !is_readable());
        two.wake();
        assert_eq!(waker.take_woken(), [2]);
    }
}

//! The timeout of a blocking `recv`. Changing `SO_RCVTIMEO` costs a system call, so it is only changed when
//! necessary: waking early is harmless, because the core returns `Wait` again.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The longest wait in milliseconds, which every system accepts.
const LONGEST: u64 = 24 * 60 * 60 * 1_000;

/// The timeout of a socket, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecvTimeout {
    /// The current value; a new socket has none.
    set: Option<u64>,
}

impl RecvTimeout {
    /// How long a `recv` may block at most, in milliseconds, because it does not notice that the server shuts down.
    pub(crate) const BLIND: u64 = 100;

    /// Ensures that a `recv` does not block for longer than `left`.
    pub(crate) fn arrange(&mut self, socket: BorrowedFd<'_>, left: Option<u64>) -> io::Result<()> {
        if let Some(millis) = self.change(left) {
            set_socket_timeout(socket, Timeout::Recv, Some(Duration::from_millis(millis)))?;
            self.set = Some(millis);
        }
        Ok(())
    }

    /// The value to set, if the current one would miss the deadline, or cause too many early wake-ups.
    fn change(self, left: Option<u64>) -> Option<u64> {
        let left = left?.clamp(1, LONGEST);
        let fits = self.set.is_some_and(|set| (left / 4..=left).contains(&set));
        (!fits).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_what_would_miss_the_deadline_or_wake_too_often() {
        let fresh = RecvTimeout::default();
        assert_eq!(fresh.change(None), None);
        assert_eq!(fresh.change(Some(15_000)), Some(15_000));
        let usual = RecvTimeout { set: Some(15_000) };
        assert_eq!(usual.change(Some(15_000)), None);
        assert_eq!(usual.change(Some(20_000)), None);
        assert_eq!(usual.change(Some(14_999)), Some(14_999));
        assert_eq!(usual.change(Some(0)), Some(1));
        assert_eq!(RecvTimeout { set: Some(3) }.change(Some(15_000)), Some(15_000));
        assert_eq!(fresh.change(Some(u64::MAX)), Some(LONGEST));
    }
}

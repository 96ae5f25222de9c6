//! What a connection waits for with `poll(2)`, and what was found.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use sanserve_core::{Fault, Need};

use crate::lifecycle::Draining;
use crate::script_io::ScriptFds;
use crate::session::Session;
use crate::transport::Io;

/// The longest wait in milliseconds, which every system accepts.
const LONGEST: u64 = 24 * 60 * 60 * 1_000;

/// Waits until one of `fds` is ready, for at most `millis` milliseconds, with `poll(2)`. What was found are their
/// `revents`: nothing, if a signal has interrupted the wait, or the time is up. The wait ends after a day in any case.
///
/// # Errors
/// If the system is out of memory.
pub fn poll(fds: &mut [PollFd<'_>], millis: Option<u64>) -> io::Result<()> {
    match rustix::event::poll(fds, timespec(millis).as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn timespec(millis: Option<u64>) -> Option<Timespec> {
    let time = Duration::from_millis(millis?.min(LONGEST));
    Some(Timespec::try_from(time).expect("a day is in range"))
}

/// The descriptors to pass to `poll(2)` for a connection that needs `need`: its socket, and the output, the exit and the
/// input of its script. The exit is a descriptor of its own, since a script may leave a child behind that keeps the
/// pipe open. In the place of one that is not needed, or does not exist, is the socket without events.
#[must_use]
pub fn watched<'f>(need: Need, socket: BorrowedFd<'f>, script: Option<ScriptFds<'f>>) -> [PollFd<'f>; 4] {
    let watch = |fd: Option<BorrowedFd<'f>>, is_needed: bool, flags: PollFlags| match fd.filter(|_| is_needed) {
        Some(fd) => PollFd::from_borrowed_fd(fd, flags),
        None => PollFd::from_borrowed_fd(socket, PollFlags::empty()),
    };
    [
        PollFd::from_borrowed_fd(socket, socket_flags(need)),
        watch(script.and_then(|script| script.output), need.script_read, PollFlags::IN),
        watch(script.and_then(|script| script.exit), need.script_read, PollFlags::IN),
        watch(script.and_then(|script| script.input), need.script_write, PollFlags::OUT),
    ]
}

/// The events of its socket that a connection needs.
#[must_use]
pub fn socket_flags(need: Need) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, need.read);
    flags.set(PollFlags::OUT, need.write);
    flags
}

impl Session {
    /// Records what `poll(2)` has found of the descriptors that are [`watched`], or of the socket alone. Returns whether
    /// the connection needs a turn.
    ///
    /// A broken socket is reported even without events. A connection that reads or writes will notice; for any other, it
    /// is recorded here.
    pub fn became_ready(&mut self, found: &[PollFlags], need: Need, io: &mut Io<'_>, draining: &Draining) -> bool {
        let found = |at: usize| found.get(at).copied().unwrap_or(PollFlags::empty());
        let is_gone = found(0).intersects(PollFlags::ERR | PollFlags::HUP);
        let reads = need.read && (is_gone || found(0).contains(PollFlags::IN));
        let writes = need.write && (is_gone || found(0).contains(PollFlags::OUT));
        let is_unnoticed = is_gone && !need.read && !need.write;
        let output = need.script_read && !(found(1) | found(2)).is_empty();
        let input = need.script_write && !found(3).is_empty();
        if reads {
            io.transport.became_readable();
        }
        if writes {
            io.transport.became_writable();
        }
        if is_unnoticed {
            self.broken(Fault::Peer, io, draining);
        }
        self.script_became_ready(output, input);
        reads || writes || is_unnoticed || output || input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_no_timeout() {
        assert_eq!(timespec(None), None);
        assert_eq!(timespec(Some(1_500)), Some(Timespec { tv_sec: 1, tv_nsec: 500_000_000 }));
        assert_eq!(timespec(Some(u64::MAX)).unwrap().tv_sec, 86_400);
    }
}

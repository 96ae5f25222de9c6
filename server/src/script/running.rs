//! What an exchange holds of the script that runs for it: the ends of its pipes.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, read, write};
use sanserve_core::{Input, SpawnError, Window};

use super::launcher::{self, Ending};
use super::reaper::{Intake, Leader, Shared};
use super::sort;

/// A script that was spawned. When it is dropped, its input is closed, and the reaper looks after what is left: it
/// reads the output, if that is not over, and reaps the leader, if that has not exited.
#[derive(Debug)]
pub(crate) struct Running {
    /// By which the reaper knows it.
    pub(crate) id: u64,
    pub(super) leader: Arc<Leader>,
    pub(super) shared: Arc<Shared>,
    pub(super) input: Option<OwnedFd>,
    /// How that comes.
    pub(super) intake: Option<Arc<Intake>>,
    /// It takes no more. The descriptor stays open, so that a driver can still deregister it.
    pub(super) full: bool,
    /// Until it is let go.
    pub(super) output: Option<OwnedFd>,
    /// All of the output was read.
    pub(super) over: bool,
    /// It was not run after all.
    pub(super) is_refused: bool,
    /// Readable when the leader of its process group has exited.
    pub(super) exit: OwnedFd,
}

/// How one reading of a script's output ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptRead {
    /// So many bytes were committed.
    Bytes(usize),
    /// There is nothing for now.
    Blocked,
    /// The output is complete. To be passed on as [`Input::ScriptEof`].
    End,
    /// The script was not run after all, or its place was needed for another before it had its input. To be passed on as [`Input::ScriptFailed`].
    Failed(SpawnError),
}

/// The descriptors of a script that a driver may wait for. They stay open until the next step
/// `EndInput` (the input), `Spawn` or `Finished` is carried out or the slot is cleared; what is not
/// worth waiting for any more is `None`. A driver has to be done with them by then: the output may stay open.
#[derive(Clone, Copy, Debug)]
pub struct ScriptFds<'s> {
    /// Readable when there is something for [`Slot::read_script`](crate::Slot::read_script).
    pub output: Option<BorrowedFd<'s>>,
    /// Writable when the script takes more ([`Input::Feedable`]).
    pub input: Option<BorrowedFd<'s>>,
    /// Readable when the script has exited, which ends its output, whoever else holds the pipe. Then
    /// [`Slot::read_script`](crate::Slot::read_script) is to be called until it says `End`.
    pub exit: Option<BorrowedFd<'s>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_input();
        self.shared.let_go();
        if !self.over && !self.leader.is_asked() {
            // It may have more to say, of which nothing can be sent.
            self.shared.leave(self.id, self.output.take());
        } else if self.over && !self.is_refused && self.has_exited() {
            // The reaper may be far behind when many scripts end at once.
            self.bury(if self.leader.is_launched() { launcher::ending(&self.exit) } else { None });
        }
    }
}

impl Running {
    /// The script's input is complete.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
        if self.intake.take().is_some() {
            self.shared.taken_in(self.id);
        }
    }

    /// Writes to the script's input.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Input {
        let Some(input) = self.input.as_ref().filter(|_| !self.full) else { return Input::FeedEnd };
        loop {
            return match write(input, bytes) {
                Ok(n) => {
                    self.intake.iter().for_each(|intake| intake.took(n));
                    Input::Fed(n as u64)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.intake.iter().for_each(|intake| intake.is_full());
                    Input::FeedBlocked
                }
                Err(_) => {
                    self.full = true;
                    Input::FeedEnd
                }
            };
        }
    }

    /// Reads once.
    pub(crate) fn read(&mut self, window: &mut Window) -> ScriptRead {
        if self.over {
            return ScriptRead::End;
        }
        let read = match self.read_once(window) {
            // What it has written, it wrote before it exited: after that there is nothing to come.
            ScriptRead::Blocked if self.has_exited() => match self.read_once(window) {
                ScriptRead::Blocked => ScriptRead::End,
                read => read,
            },
            read => read,
        };
        if read == ScriptRead::End {
            self.over = true;
            if self.leader.is_turned_out() {
                return ScriptRead::Failed(SpawnError::Busy);
            }
            if let Some(error) = self.refused() {
                return ScriptRead::Failed(error);
            }
        }
        read
    }

    /// Why it was not run, if it was not.
    fn refused(&mut self) -> Option<SpawnError> {
        if !self.leader.is_launched() {
            return self.leader.ending().and_then(sort);
        }
        let told = launcher::ending(&self.exit);
        let refused = told.and_then(sort);
        if refused.is_some() {
            // The reaper says why as long as its file is the same, and its place is taken until then.
            self.is_refused = true;
        } else {
            self.bury(told);
        }
        refused
    }

    /// Reaps it if it has exited, or notes that the launcher has done so.
    fn bury(&self, told: Option<Ending>) {
        if self.leader.bury(told) {
            self.shared.dismiss();
        }
    }

    fn read_once(&self, window: &mut Window) -> ScriptRead {
        let Some(output) = &self.output else { return ScriptRead::End };
        let room = window.spare();
        if room.is_empty() {
            debug_assert!(false, "read only where there is room");
            return ScriptRead::Blocked;
        }
        loop {
            return match read(output, &mut *room) {
                Ok(0) => ScriptRead::End,
                Ok(n) => {
                    window.commit(n);
                    ScriptRead::Bytes(n)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => ScriptRead::Blocked,
                Err(_) => ScriptRead::End,
            };
        }
    }

    fn has_exited(&self) -> bool {
        is_ready(&self.exit)
    }

    pub(crate) fn fds(&self) -> ScriptFds<'_> {
        ScriptFds {
            output: self.output.as_ref().filter(|_| !self.over).map(AsFd::as_fd),
            input: self.input.as_ref().filter(|_| !self.full).map(AsFd::as_fd),
            exit: (!self.over).then(|| self.exit.as_fd()),
        }
    }
}

/// Whether reading from `fd` would tell something now.
pub(super) fn is_ready(fd: &OwnedFd) -> bool {
    let now = Timespec::try_from(Duration::ZERO).expect("zero fits");
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

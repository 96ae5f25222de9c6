//! The part of a running script that its exchange holds: the ends of its pipes.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use sanserve_core::{Input, SpawnError, Window};

use super::launcher::{self, Ending};
use super::reaper::{Intake, Leader, Shared};
use super::sort;
use crate::script_io::{ScriptFds, ScriptRead};

/// A running script. When it is dropped, its input is closed, and the reaper takes over the rest: it reads the output
/// if that has not ended, and reaps the leader if that has not exited.
#[derive(Debug)]
pub(crate) struct Running {
    /// Identifies the script to the reaper.
    pub(crate) id: u64,
    pub(super) leader: Arc<Leader>,
    pub(super) shared: Arc<Shared>,
    pub(super) input: Option<OwnedFd>,
    /// The progress of the input.
    pub(super) intake: Option<Arc<Intake>>,
    /// The input accepts no more. The descriptor stays open, so that a driver can still deregister it.
    pub(super) full: bool,
    /// `None` once it was released.
    pub(super) output: Option<OwnedFd>,
    /// The output was read to its end.
    pub(super) over: bool,
    /// The script could not be run.
    pub(super) is_refused: bool,
    /// Readable when the leader of its process group has exited.
    pub(super) exit: OwnedFd,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_input();
        self.shared.released();
        if !self.over && !self.leader.was_signalled() {
            // There may be more output, which cannot be sent.
            self.shared.drain_output(self.id, self.output.take());
        } else if self.over && !self.is_refused && self.has_exited() {
            // The reaper may be far behind when many scripts end at once.
            self.reap(if self.leader.is_launched() { launcher::ending(&self.exit) } else { None });
        }
    }
}

impl Running {
    /// Ends the input of the script.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
        if self.intake.take().is_some() {
            self.shared.end_intake(self.id);
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
                    self.intake.iter().for_each(|intake| intake.became_full());
                    Input::FeedBlocked
                }
                Err(_) => {
                    self.full = true;
                    Input::FeedEnd
                }
            };
        }
    }

    /// Reads the output once.
    pub(crate) fn read(&mut self, window: &mut Window) -> ScriptRead {
        if self.over {
            return ScriptRead::End;
        }
        let read = match self.read_once(window) {
            // Everything was written before the exit, so there is nothing more to come.
            ScriptRead::Blocked if self.has_exited() => match self.read_once(window) {
                ScriptRead::Blocked => ScriptRead::End,
                read => read,
            },
            read => read,
        };
        if read == ScriptRead::End {
            self.over = true;
            if self.leader.was_evicted() {
                return ScriptRead::Failed(SpawnError::Busy);
            }
            if let Some(error) = self.refused() {
                return ScriptRead::Failed(error);
            }
        }
        read
    }

    /// Why the script could not be run, if so.
    fn refused(&mut self) -> Option<SpawnError> {
        if !self.leader.is_launched() {
            return self.leader.ending().and_then(sort);
        }
        let told = launcher::ending(&self.exit);
        let refused = told.and_then(sort);
        if refused.is_some() {
            // The reaper logs the reason while the file is still the same, and its place is taken until then.
            self.is_refused = true;
        } else {
            self.reap(told);
        }
        refused
    }

    /// Reaps the script if it has exited, or records that the launcher has done so.
    fn reap(&self, told: Option<Ending>) {
        if self.leader.reap(told) {
            self.shared.release_place();
        }
    }

    fn read_once(&self, window: &mut Window) -> ScriptRead {
        let Some(output) = &self.output else { return ScriptRead::End };
        let room = window.spare();
        if room.is_empty() {
            debug_assert!(false, "the window has room");
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

/// Whether a read from `fd` would not block.
pub(super) fn is_ready(fd: &OwnedFd) -> bool {
    let now = Timespec::try_from(Duration::ZERO).expect("zero fits");
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

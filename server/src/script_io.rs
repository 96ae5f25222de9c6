//! What a driver waits for while a script runs, and what it reads.

use rustix::fd::BorrowedFd;
use sanserve_core::SpawnError;

/// The result of reading a script's output once.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptRead {
    /// This many bytes were added to the window.
    Bytes(usize),
    /// No output is available for now.
    Blocked,
    /// The output is complete. Pass this on as [`Input::ScriptEof`](sanserve_core::Input::ScriptEof).
    End,
    /// The script could not be run, or its place was needed for another before its input had arrived. Pass this on as
    /// [`Input::ScriptFailed`](sanserve_core::Input::ScriptFailed).
    Failed(SpawnError),
}

/// The descriptors of a script that a driver may wait for. They stay open until the next step `EndInput` (the input),
/// `Spawn` or `Finished` is carried out, or the slot is cleared. Descriptors that need not be waited for any more are
/// `None`. A driver must have deregistered them by then, since the output may stay open.
#[derive(Clone, Copy, Debug)]
pub struct ScriptFds<'s> {
    /// Readable when there is output for [`Slot::read_script`](crate::Slot::read_script).
    pub output: Option<BorrowedFd<'s>>,
    /// Writable when the script accepts more ([`Input::Feedable`](sanserve_core::Input::Feedable)).
    pub input: Option<BorrowedFd<'s>>,
    /// Readable when the script has exited, which ends its output even if other processes hold the pipe. Then call
    /// [`Slot::read_script`](crate::Slot::read_script) until it returns `End`.
    pub exit: Option<BorrowedFd<'s>>,
}

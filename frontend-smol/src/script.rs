//! The script of a connection, registered with the reactor while the connection waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use async_io::Async;
use sanserve_core::Need;
use sanserve_server::ScriptFds;

/// The pipes of a script, and its exit. They are duplicates: the slot owns the descriptors themselves, and the script
/// gets the end of its input only when the duplicate is closed too.
#[derive(Debug)]
pub(crate) struct Pipes {
    output: Option<Async<OwnedFd>>,
    exit: Option<Async<OwnedFd>>,
    input: Option<Async<OwnedFd>>,
}

impl Pipes {
    pub(crate) fn new(fds: ScriptFds<'_>) -> io::Result<Pipes> {
        let register = |fd: Option<BorrowedFd<'_>>| match fd {
            Some(fd) => Async::new_nonblocking(fd.as_fd().try_clone_to_owned()?).map(Some),
            None => Ok(None),
        };
        Ok(Pipes { output: register(fds.output)?, exit: register(fds.exit)?, input: register(fds.input)? })
    }

    /// Ends the input of the script.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Ensures that the task is woken. An immediate `Ready` is the event that ended an earlier wait; when polled
    /// again, `async-io` waits for a new event, which it also reports if the descriptor is already ready.
    pub(crate) fn wait(&self, need: Need, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut ready = false;
        if need.script_read {
            for source in [&self.output, &self.exit].into_iter().flatten() {
                ready |= twice(|cx| source.poll_readable(cx), cx)?;
            }
        }
        if let (true, Some(input)) = (need.script_write, &self.input) {
            ready |= twice(|cx| input.poll_writable(cx), cx)?;
        }
        Ok(ready)
    }
}

fn twice(poll: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>, cx: &mut Context<'_>) -> io::Result<bool> {
    for _ in 0..2 {
        match poll(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
    }
    Ok(true)
}

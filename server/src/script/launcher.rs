//! The launcher: a process of one thread that starts scripts for a server.
//!
//! The server has many threads and much memory. To start a script from there is slow, since the kernel copies the
//! server's tables for each, and what a new process may do before it becomes the script is little: no session of
//! its own, no other limits, nothing that Rust could say without `unsafe`. So the server's program is started once
//! more, as the launcher. It has no threads, no memory to speak of, and no descriptor of anybody's, so its children
//! may do all that and are made quickly. The server sends it an order (a [`Packet`]) and the descriptors in [`DESCRIPTORS`] over
//! a socket and goes on at once; how a script has ended comes back over two pipes, one for its exchange, one for the
//! reaper.
//!
//! The launcher is the parent of its scripts: it reaps them, it alone signals them, and it takes in and reaps what
//! they leave behind ([`set_child_subreaper`](rustix::process::set_child_subreaper)). It ends with its server, and
//! scripts end with it. If it is killed, the next script gets another one.

#[cfg(target_os = "linux")]
mod handle;
mod message;
#[cfg(target_os = "linux")]
mod process;
#[cfg(test)]
mod tests;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::OwnedFd;
use rustix::fs::Stat;
use rustix::io::read;

#[cfg(target_os = "linux")]
pub(super) use handle::Process;
use message::Report;
pub(super) use message::{Ending, HasNul, Packet};

/// The first argument of a program that is to be a launcher.
const ASK: &str = "launch-cgi-scripts";

/// The longest request: arguments and environment of a script.
const PACKET: usize = 512 * 1024;

/// What comes with an order; a script's input may follow.
const DESCRIPTORS: [&str; 4] = ["directory", "output", "stderr", "exit"];

/// This program's `main` has called [`Launcher::run_if_asked`].
static IS_OWN: AtomicBool = AtomicBool::new(false);

/// Which process starts scripts.
///
/// Only with a launcher a script has a session of its own (and so no controlling terminal), the limit on
/// descriptors that the server was started with, and none of the descriptors that the server's parent has left open;
/// and only then is what a script leaves behind reaped. It is also much faster where the server is large. Launchers
/// exist on Linux only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// This program, started once more. Its `main` has to call [`Launcher::run_if_asked`] first; if it has not, no
    /// script is run.
    Own,
    /// Another program whose `main` does so, such as the command `sanserve` of the same version.
    Program(PathBuf),
    /// None: the server itself starts scripts.
    None,
}

impl Default for Launcher {
    /// [`Launcher::Own`] if that can be, else [`Launcher::None`].
    fn default() -> Launcher {
        let is_own = cfg!(target_os = "linux") && IS_OWN.load(Ordering::Relaxed);
        if is_own { Launcher::Own } else { Launcher::None }
    }
}

impl Launcher {
    /// To be called by a program that serves scripts, first of all in its `main`, before it starts a thread. If a
    /// server has started this process as its launcher, it is that and never returns; otherwise it costs nothing.
    pub fn run_if_asked() {
        if env::args_os().nth(1).is_some_and(|argument| argument == ASK) {
            #[cfg(target_os = "linux")]
            process::run();
        }
        IS_OWN.store(true, Ordering::Relaxed);
    }

    /// What is to be run. `None`: there is to be none.
    fn command(&self) -> io::Result<Option<Command>> {
        if *self == Launcher::Own && !IS_OWN.load(Ordering::Relaxed) && !cfg!(test) {
            // The program would do once more whatever it does.
            return Err(io::Error::other("the program's main has not called Launcher::run_if_asked"));
        }
        let mut command = match self {
            // By this name it is the program that runs, even if another one has been put in its place.
            Launcher::Own => Command::new("/proc/self/exe"),
            Launcher::Program(path) => Command::new(path),
            Launcher::None => return Ok(None),
        };
        command.arg(ASK);
        #[cfg(test)]
        if *self == Launcher::Own {
            command = tests::command();
        }
        Ok(Some(command))
    }
}

/// How a script has ended, if its exchange was told so by now.
pub(super) fn ending(exit: &OwnedFd) -> Option<Ending> {
    let mut bytes = [0; Report::LEN];
    match read(exit, &mut bytes) {
        Ok(0) => Some(Ending::Unknown),
        Ok(n) => Report::from_bytes(&bytes[..n]).map(|report| report.ending),
        Err(_) => None,
    }
}

/// What a file is known by.
#[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between systems")]
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// There is none on this system.
#[cfg(not(target_os = "linux"))]
pub(super) use absent::Process;

#[cfg(not(target_os = "linux"))]
mod absent {
    use std::io;

    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::io::Errno;
    use rustix::process::Signal;

    use super::{Ending, Launcher, Packet};

    #[derive(Debug)]
    pub(in crate::script) struct Process {
        pub(in crate::script) refusals: OwnedFd,
    }

    impl Process {
        pub(in crate::script) fn start(launcher: &Launcher) -> io::Result<Option<Process>> {
            match launcher.command()? {
                Some(_) => Err(io::ErrorKind::Unsupported.into()),
                None => Ok(None),
            }
        }

        pub(in crate::script) fn spawn(&self, _: &Packet, _: &[BorrowedFd<'_>]) -> Result<(), Errno> {
            Err(Errno::NOSYS)
        }

        pub(in crate::script) fn signal(&self, _: u64, _: Signal) {}

        pub(in crate::script) fn read_reports(&self, _: impl FnMut(u64, Ending)) -> bool {
            false
        }

        pub(in crate::script) fn fds(&self) -> [BorrowedFd<'_>; 2] {
            [self.refusals.as_fd(), self.refusals.as_fd()]
        }
    }
}

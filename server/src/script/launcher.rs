//! The launcher: a process of one thread that starts scripts for a server.
//!
//! A script needs another user, session and limits than the server, and none of its descriptors. A new process of a
//! server with threads can change little of that before it becomes the script, nothing without `unsafe` in Rust, and
//! `fork` copies the page tables of all its memory. So the program of the server is started once more, as the
//! launcher. It becomes what scripts are to be, and starts each of them with `posix_spawn`, for which the kernel copies
//! no memory. The server sends an order (a [`Packet`]) and the descriptors in [`DESCRIPTORS`] over a socket, and
//! continues immediately. The end of a script is reported over two pipes, one for its exchange, one for the reaper.
//!
//! The launcher is the parent of its scripts: it alone reaps and signals them, and it adopts and reaps their orphans
//! ([`set_child_subreaper`](rustix::process::set_child_subreaper)). It ends with its server, and scripts end with it,
//! even if it is killed: its own parent is the [`guard`]. The next script then gets another launcher.

#[cfg(target_os = "linux")]
mod guard;
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

/// The first argument that makes a program a launcher.
const ASK: &str = "launch-cgi-scripts";

/// The limit of a request in bytes, which contains the arguments and environment of a script.
const PACKET: usize = 512 * 1024;

/// The descriptors of an order; a script's input may follow.
const DESCRIPTORS: [&str; 4] = ["directory", "output", "stderr", "exit"];

/// The `main` of this program has called [`Launcher::run_if_asked`].
static IS_OWN: AtomicBool = AtomicBool::new(false);

/// Which process starts scripts.
///
/// With a launcher, scripts have another session (and so no controlling terminal), the limit of descriptors that the
/// server was started with, and none of the descriptors that the server's parent has left open, and its orphans
/// are reaped. Without one, none of this holds. With a launcher, starting a script is also much faster if the server
/// is large. Launchers exist on Linux only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// This program, started once more. Its `main` must call [`Launcher::run_if_asked`] first; otherwise no script is
    /// run.
    Own,
    /// Another program whose `main` does so, such as the command `sanserve` of the same version.
    Program(PathBuf),
    /// No launcher: the server itself starts scripts.
    None,
}

impl Default for Launcher {
    /// [`Launcher::Own`] where launchers exist, else [`Launcher::None`].
    fn default() -> Launcher {
        let is_own = cfg!(target_os = "linux") && IS_OWN.load(Ordering::Relaxed);
        if is_own { Launcher::Own } else { Launcher::None }
    }
}

impl Launcher {
    /// Becomes the launcher if a server has started this process as one, and then never returns; otherwise does
    /// nothing. A program that serves scripts must call this first in its `main`, before it starts a thread.
    pub fn run_if_asked() {
        if env::args_os().nth(1).is_some_and(|argument| argument == ASK) {
            #[cfg(target_os = "linux")]
            process::run();
        }
        IS_OWN.store(true, Ordering::Relaxed);
    }

    /// The command that starts the launcher. `None`: there is none.
    fn command(&self) -> io::Result<Option<Command>> {
        if *self == Launcher::Own && !IS_OWN.load(Ordering::Relaxed) && !cfg!(test) {
            // The program would only run as a second instance of itself.
            return Err(io::Error::other("the program's main has not called Launcher::run_if_asked"));
        }
        let mut command = match self {
            // This path is the running program, even if its file was replaced.
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

/// How a script has ended, if that was reported to its exchange by now.
pub(super) fn ending(exit: &OwnedFd) -> Option<Ending> {
    let mut bytes = [0; Report::LEN];
    match read(exit, &mut bytes) {
        Ok(0) => Some(Ending::Unknown),
        Ok(n) => Report::from_bytes(&bytes[..n]).map(|report| report.ending),
        Err(_) => None,
    }
}

/// The identity of a file.
#[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between systems")]
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Launchers do not exist on this system.
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
        pub(in crate::script) fn start(launcher: &Launcher, _: Option<(u32, u32)>) -> io::Result<Option<Process>> {
            match launcher.command()? {
                Some(_) => Err(io::ErrorKind::Unsupported.into()),
                None => Ok(None),
            }
        }

        pub(in crate::script) fn user(&self) -> Option<(u32, u32)> {
            None
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

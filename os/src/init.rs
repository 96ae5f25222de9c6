//! The duties of process 1, such as the entry point of a container. A process whose parent has ended becomes a child
//! of process 1, and remains a zombie unless process 1 reaps it.

use std::ffi::c_int;
use std::io;
use std::process::exit;

use fork::Fork;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use signal_hook::consts as signals;

/// Signals that are forwarded to the server. A signal such as `SIGPIPE` concerns only the process that receives it.
const FORWARDED: [c_int; 9] = [
    signals::SIGHUP,
    signals::SIGINT,
    signals::SIGQUIT,
    signals::SIGTERM,
    signals::SIGUSR1,
    signals::SIGUSR2,
    signals::SIGALRM,
    signals::SIGWINCH,
    signals::SIGCONT,
];

/// If this is process 1, forks: the child returns from this function, and this process stays behind to do the duties
/// of process 1.
///
/// The child gets a session of its own, and the signals that process 1 receives are forwarded to it. Orphaned
/// processes are reaped. When the child ends, process 1 ends too: with the exit code of the child, or with 128 plus
/// the number of the signal that terminated it. Call this before any thread is started.
///
/// # Errors
/// If the process cannot fork, or cannot catch signals.
pub fn leave_process_1() -> io::Result<()> {
    if getpid().as_raw() != 1 {
        return Ok(());
    }
    // Caught before the fork, so that no signal is lost.
    let mut caught = signal_hook::iterator::Signals::new(FORWARDED.into_iter().chain([signals::SIGCHLD]))?;
    match fork::fork()? {
        Fork::Child => {
            drop(caught);
            // Without a session of its own, the child would receive Ctrl-C twice: from the terminal and from process
            // 1.
            rustix::process::setsid()?;
            Ok(())
        }
        Fork::Parent(server) => {
            let server = Pid::from_raw(server);
            loop {
                if let Some(code) = reap(server) {
                    exit(code);
                }
                for signal in caught.wait().filter(|signal| *signal != signals::SIGCHLD) {
                    let _ = Signal::try_from(signal).map(|signal| kill(server, signal));
                }
            }
        }
    }
}

/// Reaps children that have exited. Returns the exit code if the server was one of them.
fn reap(server: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == server => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == server => code = Some(128 + signal as i32),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::EINTR) => {}
            _ => return code,
        }
    }
}

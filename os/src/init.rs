//! The duties of process 1, such as a container's entry point: whose parents are gone becomes its child, and stays a
//! zombie for ever if it is not reaped.

use std::ffi::c_int;
use std::io;
use std::process::exit;

use fork::Fork;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use signal_hook::consts as signals;

/// What is passed on to the server. `SIGPIPE` and the like are of whoever gets them.
const PASSED_ON: [c_int; 9] = [
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

/// If this is process 1, does its duties from here on, and returns in a child that is not.
///
/// The child has a session of its own. It is sent the signals that process 1 gets, all others whose parents have ended
/// are reaped, and when the child ends, so does process 1: with its exit code, or with 128 and the number of the signal
/// that has ended it. To be called before a thread is started.
///
/// # Errors
/// If the system makes no process, or catches no signals.
pub fn leave_process_1() -> io::Result<()> {
    if getpid().as_raw() != 1 {
        return Ok(());
    }
    // Caught before there is somebody to pass them on to, so that none is lost.
    let mut caught = signal_hook::iterator::Signals::new(PASSED_ON.into_iter().chain([signals::SIGCHLD]))?;
    match fork::fork()? {
        Fork::Child => {
            drop(caught);
            // Else a terminal's Ctrl-C would come twice: from the terminal and from process 1.
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

/// Reaps who has exited. The exit code, if that was the server.
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

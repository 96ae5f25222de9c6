//! The guard: the parent of the launcher, which ends what the launcher leaves behind.
//!
//! The launcher ends its scripts when the server has ended. If the launcher itself is killed, its scripts become
//! children of the guard, which kills them. If the guard is killed, the launcher notices it, and ends. The guard keeps
//! the privileges of the server, so scripts can neither kill it nor keep it from killing them.

use std::fs;
use std::io;
use std::process::exit;

use fork::Fork;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group, set_child_subreaper};
use rustix::stdio::dup2_stdin;

/// Returns in a new process, the launcher, with a descriptor that is readable when the guard has ended. This process
/// becomes the guard, and exits when the launcher and its scripts have ended.
pub(super) fn fork((): ()) -> io::Result<OwnedFd> {
    let (ends, held) = sanserve_os::pipe()?;
    match fork::fork()? {
        Fork::Child => {
            drop(held);
            Ok(ends)
        }
        Fork::Parent(launcher) => {
            drop(ends);
            let code = guard(nix::unistd::Pid::from_raw(launcher)).unwrap_or(1);
            drop(held);
            exit(code)
        }
    }
}

/// Waits for the launcher, and returns its exit code.
fn guard(launcher: nix::unistd::Pid) -> io::Result<i32> {
    // Requests are for the launcher alone: if it is gone, the server must notice it when it sends one.
    dup2_stdin(openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    // Orphans of the launcher become children of the guard.
    let _ = set_child_subreaper(Some(getpid()));
    if let WaitStatus::Exited(_, 0) = wait(launcher)? {
        // It has killed its scripts.
        return Ok(0);
    }
    loop {
        let orphans = orphans();
        if orphans.is_empty() {
            return Ok(1);
        }
        // Until they are reaped, their numbers are not reused.
        for &pid in &orphans {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
        for pid in orphans {
            let _ = wait(nix::unistd::Pid::from_raw(pid.as_raw_pid()));
        }
    }
}

fn wait(pid: nix::unistd::Pid) -> io::Result<WaitStatus> {
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED) {
            Err(nix::errno::Errno::EINTR) => {}
            status => return Ok(status?),
        }
    }
}

/// The children of this process that are in its session. Daemons that a script has started have another one.
fn orphans() -> Vec<Pid> {
    let own = getpid().as_raw_pid();
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?;
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        // After the name in parentheses: the state, the parent, the group, the session.
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_whitespace().skip(1);
        let (parent, session) = (fields.next()?.parse(), fields.nth(1)?.parse());
        (parent == Ok(own) && session == Ok(own)).then_some(pid)
    });
    pids.collect()
}

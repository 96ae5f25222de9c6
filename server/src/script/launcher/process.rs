//! The process of the launcher. It has one thread and little memory, so that it can fork cheaply, and its children
//! may do anything before they become scripts.

use std::ffi::c_int;
use std::fs;
use std::hint::black_box;
use std::io::{self, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fork::Fork;
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, stat, statat};
use rustix::io::{Errno, write};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{
    Pid, Resource, Signal, fchdir, getpid, getrlimit, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{Gid, Uid, set_name, set_thread_gid, set_thread_groups, set_thread_uid};
use signal_hook::consts as signals;

use super::message::{Ending, Order, Report, Request, VERSION};
use super::{DESCRIPTORS, PACKET};

/// Signals that may have been set to be ignored by the parent of the server. A handler is not inherited by a script,
/// so all of them have their default effect in scripts. In the launcher itself they do nothing: it ends with its
/// server.
const HANDLED: [c_int; 23] = [
    signals::SIGHUP,
    signals::SIGINT,
    signals::SIGQUIT,
    signals::SIGTERM,
    signals::SIGUSR1,
    signals::SIGUSR2,
    signals::SIGALRM,
    signals::SIGPIPE,
    signals::SIGTSTP,
    signals::SIGTTIN,
    signals::SIGTTOU,
    signals::SIGXFSZ,
    signals::SIGXCPU,
    signals::SIGVTALRM,
    signals::SIGPROF,
    signals::SIGWINCH,
    signals::SIGURG,
    signals::SIGIO,
    signals::SIGSYS,
    signals::SIGCONT,
    signals::SIGTRAP,
    signals::SIGABRT,
    signals::SIGCHLD,
];

/// The delay before a signal is tried again for a child that does not lead its group yet.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// In the test program, other threads get SIGCHLD.
const IS_TEST: bool = cfg!(test);

/// What is written atomically to the pipe for reports: complete reports, and no more than `PIPE_BUF`.
const PIECE: usize = 128 * Report::LEN;

/// How long ends of scripts do not wake the launcher after it has started one: if scripts keep arriving, it checks
/// for those that have ended whenever it starts another.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Starts scripts for the server at the other end of standard input, until the server has ended.
pub(super) fn run() -> ! {
    let code = match Launcher::new().and_then(Launcher::serve) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sanserve: the launcher of CGI scripts failed: {error}");
            1
        }
    };
    exit(code)
}

struct Launcher {
    children: Vec<Child>,
    /// Readable when a child may have exited.
    exits: SignalFd,
    reports: OwnedFd,
    /// For reports that a script could not be run.
    refusals: OwnedFd,
    /// Reports that were not written yet.
    unsent: Vec<u8>,
    /// The input of a script that has none.
    nothing: OwnedFd,
    nofile: u64,
    packet: Vec<u8>,
    /// This is a child of the launcher, which signals may terminate.
    is_script: Arc<AtomicBool>,
}

/// A running script.
struct Child {
    id: u64,
    pid: Pid,
    /// A signal to send as soon as it leads its group.
    pending: Option<Signal>,
    /// Reports to its exchange that it has exited.
    exit: OwnedFd,
}

impl Launcher {
    fn new() -> io::Result<Launcher> {
        // It does not lead a group yet.
        setsid()?;
        close_inherited();
        let is_script = Arc::new(AtomicBool::new(false));
        for signal in HANDLED {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&is_script))?;
        }
        // SIGPIPE adds nothing to the error of the write.
        let blocked = SigSet::from_iter([Number::SIGCHLD, Number::SIGPIPE]);
        blocked.thread_block()?;
        let child = SigSet::from_iter([Number::SIGCHLD]);
        let exits = SignalFd::with_flags(&child, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let nothing = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // Orphans of scripts become children of the launcher, and are reaped.
        let _ = set_child_subreaper(Some(getpid()));
        let _ = set_name(c"sanserve-cgi");
        let _ = rustix::process::chdir("/");
        let mut packet = vec![0; PACKET];
        let protocol = || io::Error::new(io::ErrorKind::InvalidData, "this is not a server of the same version");
        match receive(&mut packet)? {
            Some((Request::Hello { version: VERSION, nofile }, [Some(reports), Some(refusals), None, ..])) => {
                Ok(Launcher {
                    children: Vec::new(),
                    exits,
                    reports,
                    refusals,
                    unsent: Vec::new(),
                    nothing,
                    nofile,
                    packet,
                    is_script,
                })
            }
            _ => Err(protocol()),
        }
    }

    fn serve(mut self) -> io::Result<()> {
        let mut packet = mem::take(&mut self.packet);
        let mut naps = false;
        loop {
            let bound = match self.send_pending() {
                false => Some(&SOON),
                true if naps || IS_TEST => Some(&NAP),
                true => None,
            };
            let stdin = io::stdin();
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.exits, PollFlags::IN)];
            match poll(&mut fds[..if naps { 1 } else { 2 }], bound) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [asked, exited] = fds.map(|fd| !fd.revents().is_empty());
            if exited {
                // The signal is pending at most once.
                let _ = self.exits.read_signal();
            }
            if exited || naps || IS_TEST {
                self.reap();
            }
            naps = false;
            if asked {
                match receive(&mut packet)? {
                    Some((Request::Spawn(order), fds)) => {
                        self.spawn(&order, fds);
                        naps = !order.is_urgent;
                    }
                    Some((Request::Signal { id, signal }, _)) => self.signal(id, signal),
                    Some((Request::Hello { .. }, _)) => {}
                    None => {
                        // The server has ended in some way.
                        for child in &self.children {
                            let _ = kill_process_group(child.pid, Signal::KILL);
                        }
                        return Ok(());
                    }
                }
            }
        }
    }

    fn spawn(&mut self, order: &Order<'_>, fds: Descriptors) {
        let [Some(directory), Some(output), Some(stderr), Some(exit), input] = fds else {
            // There was no room for the descriptors. The exchange notices it by the end of the pipe.
            let ending = Ending::Refused(Errno::MFILE.raw_os_error());
            let _ = write(&self.refusals, &Report { id: order.id, ending }.to_bytes());
            return;
        };
        // The child shares this memory copy-on-write. Memory that it will allocate is allocated here before, so that
        // fewer pages are copied.
        let lists = [order.arguments.len(), order.environment.len()];
        drop(black_box(lists.map(|len| Vec::<*const u8>::with_capacity(len + 1))));
        match fork::fork() {
            Ok(Fork::Child) => {
                let input = input.as_ref().unwrap_or(&self.nothing);
                // The closure must not return in the child: there would be two launchers.
                let prepare = || self.become_script(order, &directory, [input, &output, &stderr]);
                let ending = catch_unwind(AssertUnwindSafe(prepare));
                let ending = ending.unwrap_or(Ending::Refused(Errno::IO.raw_os_error()));
                self.refuse(&exit, Report { id: order.id, ending });
                std::process::exit(127)
            }
            Ok(Fork::Parent(pid)) => {
                let Some(pid) = Pid::from_raw(pid) else { return };
                self.children.push(Child { id: order.id, pid, pending: None, exit });
            }
            Err(error) => {
                let ending = Ending::Refused(error.raw_os_error().unwrap_or_default());
                self.refuse(&exit, Report { id: order.id, ending });
            }
        }
    }

    /// Reports to the exchange and the server that a script could not be run.
    fn refuse(&self, exit: &OwnedFd, report: Report) {
        let bytes = report.to_bytes();
        let _ = write(exit, &bytes);
        let _ = write(&self.refusals, &bytes);
    }

    /// In the child: becomes the script, or returns why not.
    fn become_script(&self, order: &Order<'_>, directory: &OwnedFd, [input, output, stderr]: [&OwnedFd; 3]) -> Ending {
        let refused = |error: Errno| Ending::Refused(error.raw_os_error());
        let prepare = || {
            self.is_script.store(true, Ordering::SeqCst);
            // No controlling terminal. From here on, the child can be sent signals.
            setsid()?;
            let mut limit = getrlimit(Resource::Nofile);
            limit.current = (self.nofile != u64::MAX).then_some(self.nofile);
            setrlimit(Resource::Nofile, limit)?;
            fchdir(directory)?;
            dup2_stdin(input)?;
            dup2_stdout(output)?;
            dup2_stderr(stderr)?;
            if let Some((user, group)) = order.user {
                set_thread_groups(&[])?;
                set_thread_gid(Gid::from_raw(group))?;
                set_thread_uid(Uid::from_raw(user))?;
            }
            // A change of the user resets this.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            SigSet::empty().thread_set_mask().map_err(|error| Errno::from_raw_os_error(error as i32))
        };
        if let Err(error) = prepare() {
            return refused(error);
        }
        // The directory was entered by its descriptor, which needs no permission on the way.
        if order.user.is_some() && matches!(stat(order.place), Err(Errno::ACCESS)) {
            return Ending::Unreachable;
        }
        match statat(CWD, order.name, AtFlags::empty()) {
            Ok(stat) if super::identity(&stat) == order.file => {}
            Ok(_) => return Ending::Replaced,
            Err(error) => return refused(error),
        }
        match nix::unistd::execve(order.name, &order.arguments, &order.environment) {
            Err(error) => Ending::Refused(error as i32),
        }
    }

    fn signal(&mut self, id: u64, signal: i32) {
        if let Some(child) = self.children.iter_mut().find(|child| child.id == id) {
            child.pending = Signal::from_named_raw(signal);
        }
        self.send_pending();
    }

    /// Sends the signals that are due. `false`: a child does not lead its group yet.
    fn send_pending(&mut self) -> bool {
        let mut all = true;
        for child in &mut self.children {
            if let Some(signal) = child.pending {
                match kill_process_group(child.pid, signal) {
                    Err(Errno::SRCH) => all = false,
                    Ok(()) | Err(_) => child.pending = None,
                }
            }
        }
        all
    }

    /// Reaps children that have exited, and reports those that were scripts.
    fn reap(&mut self) {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let (pid, code) = match waitid(Id::All, look) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, -(signal as i32)),
                Err(nix::errno::Errno::EINTR) => continue,
                _ => break,
            };
            let at = self.children.iter().position(|child| child.pid.as_raw_pid() == pid.as_raw());
            if let Some(at) = at {
                // Until it is reaped, its number is that of its group.
                let _ = kill_process_group(self.children[at].pid, Signal::KILL);
            }
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            if let Some(at) = at {
                let child = self.children.swap_remove(at);
                let report = Report { id: child.id, ending: Ending::Exited(code) }.to_bytes();
                let _ = write(&child.exit, &report);
                self.unsent.extend_from_slice(&report);
            }
        }
        for whole in self.unsent.chunks(PIECE) {
            let _ = write(&self.reports, whole);
        }
        self.unsent.clear();
    }
}

/// The descriptors of a request, in the order of [`DESCRIPTORS`], and the input.
type Descriptors = [Option<OwnedFd>; DESCRIPTORS.len() + 1];

/// Receives a request. `None`: the server has ended. A packet that is too long or malformed is an error, because no
/// server sends it.
fn receive(packet: &mut [u8]) -> io::Result<Option<(Request<'_>, Descriptors)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS.len() + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(io::stdin(), &mut [IoSliceMut::new(packet)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The end of a socket whose peer has left packets unread.
            Err(Errno::CONNRESET) => return Ok(None),
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Descriptors::default();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(those) = message {
            fds.iter_mut().zip(those).for_each(|(place, fd)| *place = Some(fd));
        }
    }
    let whole = !received.flags.intersects(ReturnFlags::TRUNC);
    match Request::read(&packet[..received.bytes]).filter(|_| whole) {
        Some(request) => Ok(Some((request, fds))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a malformed request")),
    }
}

/// Closes all descriptors but the first three: descriptors that the parent of the server has left open would be
/// inherited by scripts.
fn close_inherited() {
    let listed = fs::read_dir("/proc/self/fd").map(|entries| {
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<c_int>().ok());
        numbers.collect::<Vec<_>>()
    });
    // The descriptor of the listing itself is already closed.
    for fd in listed.unwrap_or_else(|_| (3..1024).collect()).into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}

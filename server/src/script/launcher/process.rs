//! The process of the launcher. It prepares itself once as its scripts should be: their user, no terminal, no foreign
//! descriptors. So nothing is left to do between the creation of a child and its `exec` but what `posix_spawn` does,
//! which is as fast as `vfork`: no memory is copied, and the launcher continues when the child has become the script.

use std::ffi::c_int;
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::process::exit;
use std::sync::Arc;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, stat, statat};
use rustix::io::{Errno, write};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, chdir, fchdir, getpid, getrlimit, kill_process_group, set_child_subreaper,
    setrlimit, setsid,
};
use rustix::thread::{Gid, Uid, set_name, set_thread_gid, set_thread_groups, set_thread_uid};
use signal_hook::consts as signals;

use super::guard;
use super::message::{Ending, Order, Report, Request, VERSION};
use super::{DESCRIPTORS, PACKET};

/// What is written atomically to the pipe for reports: complete reports, and no more than `PIPE_BUF`.
const PIECE: usize = 128 * Report::LEN;

/// How long ends of scripts do not wake the launcher after it has started one: if scripts keep arriving, it checks
/// for those that have ended whenever it starts another.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Starts scripts for the server at the other end of standard input, until the server has ended.
pub(super) fn run() -> ! {
    let code = match prepare().and_then(guard::fork).and_then(Launcher::new).and_then(Launcher::serve) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sanserve: the launcher of CGI scripts failed: {error}");
            1
        }
    };
    exit(code)
}

/// What the launcher and its guard have in common.
fn prepare() -> io::Result<()> {
    // It does not lead a group yet. From here on there is no terminal, and scripts cannot get one: only the leader of
    // the session could.
    setsid()?;
    close_inherited();
    // It ends with its server, and signals are for that.
    SigSet::all().thread_block()?;
    // A parent of the server may have had it ignored, and then children would not wait to be reaped.
    signal_hook::flag::register(signals::SIGCHLD, Arc::default())?;
    let _ = set_name(c"sanserve-cgi");
    Ok(chdir("/")?)
}

struct Launcher {
    children: Vec<Child>,
    /// Readable when a child may have exited.
    exits: SignalFd,
    /// Readable when the guard has ended.
    guard: OwnedFd,
    reports: OwnedFd,
    /// For reports that a script could not be run.
    refusals: OwnedFd,
    /// Reports that were not written yet.
    unsent: Vec<u8>,
    /// The input of a script that has none.
    nothing: OwnedFd,
    /// The limits of descriptors of the launcher, and of scripts.
    nofile: [Rlimit; 2],
    /// The launcher has switched to another user for scripts.
    is_other_user: bool,
    /// The signals and the process group of scripts.
    attributes: PosixSpawnAttr,
    packet: Vec<u8>,
}

/// A running script.
struct Child {
    id: u64,
    pid: Pid,
    /// Reports to its exchange that it has exited.
    exit: OwnedFd,
}

impl Launcher {
    fn new(guard: OwnedFd) -> io::Result<Launcher> {
        let child = SigSet::from_iter([Number::SIGCHLD]);
        let exits = SignalFd::with_flags(&child, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let nothing = openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // Orphans of scripts become children of the launcher, and are reaped.
        let _ = set_child_subreaper(Some(getpid()));
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        // Also those that the parent of the server has had ignored.
        attributes.set_sigdefault(&SigSet::all())?;
        let mut packet = vec![0; PACKET];
        let protocol = || io::Error::new(io::ErrorKind::InvalidData, "this is not a server of the same version");
        match receive(&mut packet)? {
            Some((Request::Hello { version: VERSION, nofile, user }, [Some(reports), Some(refusals), None, ..])) => {
                if let Some((user, group)) = user {
                    set_thread_groups(&[])?;
                    set_thread_gid(Gid::from_raw(group))?;
                    set_thread_uid(Uid::from_raw(user))?;
                }
                let limit = getrlimit(Resource::Nofile);
                let of_scripts = Rlimit { current: (nofile != u64::MAX).then_some(nofile), ..limit };
                Ok(Launcher {
                    children: Vec::new(),
                    exits,
                    guard,
                    reports,
                    refusals,
                    unsent: Vec::new(),
                    nothing,
                    nofile: [limit, of_scripts],
                    is_other_user: user.is_some(),
                    attributes,
                    packet,
                })
            }
            _ => Err(protocol()),
        }
    }

    fn serve(mut self) -> io::Result<()> {
        let mut packet = mem::take(&mut self.packet);
        let mut naps = false;
        loop {
            let stdin = io::stdin();
            let mut fds = [
                PollFd::new(&stdin, PollFlags::IN),
                PollFd::new(&self.guard, PollFlags::IN),
                PollFd::new(&self.exits, PollFlags::IN),
            ];
            match poll(&mut fds[..if naps { 2 } else { 3 }], naps.then_some(&NAP)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [asked, unguarded, exited] = fds.map(|fd| !fd.revents().is_empty());
            if exited {
                // The signal is pending at most once.
                let _ = self.exits.read_signal();
            }
            if exited || naps {
                self.reap();
            }
            naps = false;
            let request = match asked {
                true => receive(&mut packet)?,
                false if unguarded => None,
                false => continue,
            };
            match request {
                Some((Request::Spawn(order), fds)) => {
                    self.spawn(&order, fds);
                    naps = !order.is_urgent;
                }
                Some((Request::Signal { id, signal }, _)) => self.signal(id, signal),
                Some((Request::Hello { .. }, _)) => {}
                None => {
                    // The server or the guard has ended in some way.
                    for child in &self.children {
                        let _ = kill_process_group(child.pid, Signal::KILL);
                    }
                    return Ok(());
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
        let input = input.as_ref().unwrap_or(&self.nothing);
        match self.start(order, &directory, [input, &output, &stderr]) {
            Ok(pid) => self.children.push(Child { id: order.id, pid, exit }),
            Err(ending) => {
                // To the exchange, and to the server.
                let report = Report { id: order.id, ending }.to_bytes();
                let _ = write(&exit, &report);
                let _ = write(&self.refusals, &report);
            }
        }
    }

    /// Starts the script, or returns why not.
    fn start(&self, order: &Order<'_>, directory: &OwnedFd, stdio: [&OwnedFd; 3]) -> Result<Pid, Ending> {
        let refused = |error: Errno| Ending::Refused(error.raw_os_error());
        let failed = |error: nix::errno::Errno| Ending::Refused(error as i32);
        // The child begins in the directory of its parent.
        fchdir(directory).map_err(refused)?;
        // The directory was entered by its descriptor, which needs no permission on the way.
        if self.is_other_user && matches!(stat(order.place), Err(Errno::ACCESS)) {
            return Err(Ending::Unreachable);
        }
        match statat(CWD, order.name, AtFlags::empty()) {
            Ok(stat) if super::identity(&stat) == order.file => {}
            Ok(_) => return Err(Ending::Replaced),
            Err(error) => return Err(refused(error)),
        }
        let mut actions = PosixSpawnFileActions::init().map_err(failed)?;
        for (fd, number) in stdio.into_iter().zip(0..) {
            // All other descriptors are closed by the `exec`.
            actions.add_dup2(fd.as_raw_fd(), number).map_err(failed)?;
        }
        let [of_launcher, of_scripts] = self.nofile;
        setrlimit(Resource::Nofile, of_scripts).map_err(refused)?;
        let spawned = posix_spawn(order.name, &actions, &self.attributes, &order.arguments, &order.environment);
        let _ = setrlimit(Resource::Nofile, of_launcher);
        // So that no directory of a script stays in use.
        let _ = chdir("/");
        let pid = spawned.map_err(failed)?;
        Pid::from_raw(pid.as_raw()).ok_or(refused(Errno::SRCH))
    }

    fn signal(&self, id: u64, signal: i32) {
        let child = self.children.iter().find(|child| child.id == id);
        if let Some((child, signal)) = child.zip(Signal::from_named_raw(signal)) {
            let _ = kill_process_group(child.pid, signal);
        }
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

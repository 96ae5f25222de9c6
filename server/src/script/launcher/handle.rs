//! The server's side of a launcher.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, ioctl_fionbio, read};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::Signal;

use super::message::{Ending, Packet, Report, Request, VERSION};
use super::{DESCRIPTORS, Launcher, PACKET};
use sanserve_os::inherited_nofile_limit;

/// How long a launcher may take to accept a request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A running launcher, from the view of its server.
#[derive(Debug)]
pub(in crate::script) struct Process {
    /// The launcher ends when its requests end, so this is dropped before `child`.
    requests: OwnedFd,
    /// Reports of how scripts have ended.
    reports: OwnedFd,
    /// Reports of why scripts could not be run.
    pub(in crate::script) refusals: OwnedFd,
    /// The user and the group of its scripts, if not those of the server.
    user: Option<(u32, u32)>,
    #[allow(dead_code, reason = "it is there to be dropped")]
    child: Reaped,
}

impl Process {
    /// Starts a launcher whose scripts run as this user and group. `None`: the configuration has none.
    pub(in crate::script) fn start(launcher: &Launcher, user: Option<(u32, u32)>) -> io::Result<Option<Process>> {
        let Some(mut command) = launcher.command()? else { return Ok(None) };
        let (requests, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&requests, Timeout::Send, Some(TIMEOUT))?;
        // As large as the system allows.
        let _ = set_socket_send_buffer_size(&requests, PACKET);
        let (reports, report) = sanserve_os::pipe()?;
        let (refusals, refuse) = sanserve_os::pipe()?;
        ioctl_fionbio(&reports, true)?;
        ioctl_fionbio(&refusals, true)?;
        command.arg0("sanserve-cgi").stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let child = command.spawn()?;
        let process = Process { requests, reports, refusals, user, child: Reaped(child) };
        let nofile = inherited_nofile_limit().unwrap_or(u64::MAX);
        let hello = Request::Hello { version: VERSION, nofile, user };
        process.ask(&hello, &[report.as_fd(), refuse.as_fd()])?;
        Ok(Some(process))
    }

    /// The user and the group of its scripts, if not those of the server.
    pub(in crate::script) fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// Orders a script to be run.
    pub(in crate::script) fn spawn(&self, order: &Packet, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.send(order.bytes(), fds)
    }

    /// Orders a signal to the group of a script.
    pub(in crate::script) fn signal(&self, id: u64, signal: Signal) {
        let _ = self.ask(&Request::Signal { id, signal: signal.as_raw() }, &[]);
    }

    fn ask(&self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        self.send(&bytes, fds)
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS.len() + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.requests, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads reports, and calls `each` with the number and the ending of each script.
    /// `false`: the launcher is gone.
    pub(in crate::script) fn read_reports(&self, mut each: impl FnMut(u64, Ending)) -> bool {
        // Reports are written atomically, and their length divides that of the buffer.
        let mut rooms = [[0; 256 * Report::LEN]; 2];
        let mut lens = [0; 2];
        for ((fd, room), len) in self.fds().into_iter().zip(&mut rooms).zip(&mut lens) {
            match read(fd, room) {
                Ok(0) => return false,
                Ok(n) => *len = n,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        for (room, len) in rooms.iter().zip(lens) {
            let reports = room[..len].chunks_exact(Report::LEN).filter_map(Report::from_bytes);
            reports.for_each(|report| each(report.id, report.ending));
        }
        true
    }

    /// Readable when there are reports for [`read_reports`](Self::read_reports).
    pub(in crate::script) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.refusals.as_fd(), self.reports.as_fd()]
    }

    /// The process id of the guard.
    #[cfg(test)]
    pub(in crate::script) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child.0)
    }
}

/// Reaps the child on drop.
#[derive(Debug)]
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

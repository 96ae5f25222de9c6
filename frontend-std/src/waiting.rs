//! The waiting of a connection: for its peer, a script, whoever wakes its handler, and the time.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use sanserve_core::{Fault, Input, Need, Wait, Window};
use sanserve_server::{Flush, ScriptRead};

use crate::driver::{Driver, Line};
use crate::patience::{Patience, timespec};
use crate::shared::Phase;

/// Waiting.
impl Line {
    pub(crate) fn wait(&mut self, wait: Wait, socket: BorrowedFd<'_>) {
        // If it waits for the socket to take bytes, what is batched has been tried.
        if !wait.need.write && !self.flush(socket) {
            return;
        }
        self.driver.log.get_mut().flush();
        if self.tell_phase() {
            return;
        }
        let left = wait.deadline.map(|deadline| deadline.since(self.now.tick));
        match wait.need {
            Need { script_read: true, .. } | Need { script_write: true, .. } => {
                self.watch_script(wait.need, left, socket);
            }
            Need { handler: true, .. } if self.bell.get().is_some() => self.watch_bell(wait.need, left, socket),
            Need { read: true, write: true, .. } | Need { read: false, .. } => self.watch(wait.need, left, socket),
            _ if wait.idle => {
                self.driver.buf.recycle();
                self.live.lie_down(&self.driver.shared);
                let got = self.receive_or_leave(left, socket);
                let leaves = self.live.get_up();
                if leaves && got != Ok(Some(0)) {
                    self.live.stay();
                }
                match got {
                    Ok(Some(0)) if leaves => self.connection.handle(Input::Cut),
                    got => self.received(got),
                }
            }
            _ => {
                let unfinished = self.connection.unfinished_since();
                if let Some(since) = unfinished {
                    self.live.linger(since);
                }
                let got = self.receive(left, socket);
                match got {
                    Ok(Some(0)) if unfinished.is_some() && self.live.get_up() => {
                        self.connection.handle(Input::Cut);
                    }
                    got => {
                        if unfinished.is_some() {
                            self.live.get_up();
                            self.live.stay();
                        }
                        self.received(got);
                    }
                }
            }
        }
    }

    /// The same as [`receive`](Self::receive) for one that is idle. If this thread drives all connections and another
    /// one waits at the door, gives way.
    fn receive_or_leave(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Result<Option<usize>, Errno> {
        let Some(door) = &self.driver.door else { return self.receive(left, socket) };
        let latch = self.driver.shared.latch();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::new(door, PollFlags::IN),
            PollFd::new(latch, PollFlags::IN),
        ];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(error) => return Err(error),
        }
        if fds[0].revents().is_empty() {
            if !fds[1].revents().is_empty() {
                self.connection.handle(Input::Cut);
            }
            return Ok(None);
        }
        fill(&mut self.driver.buf.input, socket, RecvFlags::DONTWAIT)
    }

    /// Waits until there are bytes, the server goes down or the time is over; `None`: nothing came.
    ///
    /// Whoever blocks in `recv` sees nothing else, so it does so for a moment only, and then waits with poll(2). A
    /// client that asks without a pause is served with one system call for each of its requests.
    fn receive(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Result<Option<usize>, Errno> {
        if !self.blocking && !std::mem::take(&mut self.poll_once) {
            self.live.stream.set_nonblocking(false).map_err(|_| Errno::NOTCONN)?;
            self.blocking = true;
        }
        if self.blocking && !std::mem::take(&mut self.is_slow) {
            let left = Some(left.unwrap_or(Patience::BLIND).min(Patience::BLIND));
            self.patience.arrange(&self.live.stream, left).map_err(|_| Errno::NOTCONN)?;
            let got = fill(&mut self.driver.buf.input, socket, RecvFlags::empty());
            self.is_slow = got == Ok(None);
            return got;
        }
        let latch = self.latch();
        let [ready, _] = poll_both((socket, PollFlags::IN), (latch, PollFlags::IN), left)?;
        if ready.is_empty() { Ok(None) } else { fill(&mut self.driver.buf.input, socket, RecvFlags::DONTWAIT) }
    }

    /// What becomes readable when the server goes down, until the connection has been told so.
    fn latch(&self) -> Option<BorrowedFd<'_>> {
        (self.told < Phase::Draining).then(|| self.driver.shared.latch().as_fd())
    }

    /// Tells the connection what came of reading. Bytes are in its window already.
    fn received(&mut self, got: Result<Option<usize>, Errno>) {
        match got {
            Ok(Some(0)) if self.tell_phase_if_cut() => {}
            Ok(Some(0)) => self.connection.handle(Input::Eof),
            Ok(_) => {}
            Err(_) => self.broken(Fault::Peer),
        }
    }

    fn tell_phase_if_cut(&mut self) -> bool {
        self.driver.shared.phase() == Phase::Cutting && self.tell_phase()
    }

    /// Waits with poll(2) for everything that is not merely the next bytes: room in the socket, or
    /// nothing but the peer's going away and the time.
    fn watch(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        match poll_both((socket, flags(need.read, need.write)), (self.latch(), PollFlags::IN), left) {
            Ok([ready, _]) => self.became_ready(ready, need, socket),
            Err(_) => self.broken(Fault::Peer),
        }
    }

    /// The same with a handler that may be woken.
    fn watch_bell(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let Some(bell) = self.bell.get() else { return };
        let wanted = |fd: Option<BorrowedFd<'_>>, flags| fd.map_or(PollFlags::empty(), |_| flags);
        let latch = self.latch();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, flags(need.read, need.write)),
            PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(latch.unwrap_or(socket), wanted(latch, PollFlags::IN)),
        ];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.broken(Fault::Peer),
        }
        let [ready, rung, _] = fds.map(|fd| fd.revents());
        if !rung.is_empty() {
            bell.silence();
            self.connection.handle(Input::Wake);
        }
        self.became_ready(ready, need, socket);
    }

    /// The same with a script beside the socket.
    fn watch_script(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let tells = self.told < Phase::Draining;
        let Driver { slot, buf, shared, .. } = &mut self.driver;
        let latch = tells.then(|| shared.latch().as_fd());
        let script = slot.script();
        let output = script.and_then(|fds| fds.output).filter(|_| need.script_read);
        let exit = script.and_then(|fds| fds.exit).filter(|_| need.script_read);
        let input = script.and_then(|fds| fds.input).filter(|_| need.script_write);
        // The socket stands in for what is not waited for, with nothing to wait for.
        let wanted = |fd: Option<BorrowedFd<'_>>, flags| fd.map_or(PollFlags::empty(), |_| flags);
        let mut fds = [
            PollFd::from_borrowed_fd(socket, flags(need.read, need.write)),
            PollFd::from_borrowed_fd(output.unwrap_or(socket), wanted(output, PollFlags::IN)),
            PollFd::from_borrowed_fd(exit.unwrap_or(socket), wanted(exit, PollFlags::IN)),
            PollFd::from_borrowed_fd(input.unwrap_or(socket), wanted(input, PollFlags::OUT)),
            PollFd::from_borrowed_fd(latch.unwrap_or(socket), wanted(latch, PollFlags::IN)),
        ];
        // A script that is over already has nothing more to wait for.
        let left = if need.script_read && output.is_none() { Some(0) } else { left };
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.broken(Fault::Peer),
        }
        let [ready, output, exit, input, _] = fds.map(|fd| fd.revents());
        let is_over = need.script_read && left == Some(0);
        if need.script_read && (is_over || !output.is_empty() || !exit.is_empty()) {
            match slot.read_script(&mut buf.script) {
                ScriptRead::Bytes(_) | ScriptRead::Blocked => {}
                ScriptRead::End => self.connection.handle(Input::ScriptEof),
                ScriptRead::Failed(error) => self.connection.handle(Input::ScriptFailed(error)),
            }
        }
        if need.script_write && !input.is_empty() {
            self.connection.handle(Input::Feedable);
        }
        self.became_ready(ready, need, socket);
    }

    /// Does what the socket is ready for.
    fn became_ready(&mut self, ready: PollFlags, need: Need, socket: BorrowedFd<'_>) {
        let gone = ready.intersects(PollFlags::ERR | PollFlags::HUP);
        if need.write && (gone || ready.contains(PollFlags::OUT)) {
            match self.driver.slot.flush(socket) {
                Flush::Done => {
                    self.full = false;
                    self.connection.handle(Input::Writable);
                }
                Flush::Blocked => {}
                Flush::Broken => self.broken(Fault::Peer),
            }
        }
        if need.read && (gone || ready.contains(PollFlags::IN)) {
            let got = fill(&mut self.driver.buf.input, socket, RecvFlags::DONTWAIT);
            self.received(got);
        }
        if gone && !need.read && !need.write {
            self.broken(Fault::Peer);
        }
    }
}

/// Reads once into the window. `None`: there was nothing, in time.
fn fill(window: &mut Window, socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<usize>, Errno> {
    match recv(socket, window.spare(), flags) {
        Ok((_, n)) => {
            window.commit(n);
            Ok(Some(n))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn flags(read: bool, write: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    flags
}

/// Waits for the socket and for something else, if there is such; empty: nothing happened, in time.
fn poll_both(
    (socket, flags): (BorrowedFd<'_>, PollFlags),
    (other, other_flags): (Option<BorrowedFd<'_>>, PollFlags),
    left: Option<u64>,
) -> Result<[PollFlags; 2], Errno> {
    let mut fds = [
        PollFd::from_borrowed_fd(socket, flags),
        PollFd::from_borrowed_fd(other.unwrap_or(socket), other.map_or(PollFlags::empty(), |_| other_flags)),
    ];
    let n = 1 + usize::from(other.is_some());
    match poll(&mut fds[..n], timespec(left).as_ref()) {
        Ok(_) => Ok(fds.map(|fd| fd.revents())),
        Err(Errno::INTR) => Ok([PollFlags::empty(); 2]),
        Err(error) => Err(error),
    }
}

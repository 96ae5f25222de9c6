//! Waiting on behalf of a connection: for its peer, a script, a wake-up of its handler, and deadlines.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sanserve_core::{Input, Need, Wait};
use sanserve_server::{Phase, Received, socket_flags, watched};

use crate::driver::{Driver, Line};
use crate::recv_timeout::{RecvTimeout, timespec};

/// Waiting.
impl Line {
    pub(crate) fn wait(&mut self, wait: Wait, socket: BorrowedFd<'_>) {
        self.driver.log.get_mut().flush();
        if self.tell() {
            return;
        }
        let left = wait.deadline.map(|deadline| deadline.since(self.now.tick));
        match wait.need {
            Need { script_read: true, .. } | Need { script_write: true, .. } => {
                self.watch_script(wait.need, left, socket);
            }
            Need { handler: true, .. } if self.conn_waker.get().is_some() => self.watch_waker(wait.need, left, socket),
            Need { read: true, write: true, .. } | Need { read: false, .. } => self.watch(wait.need, left, socket),
            _ if wait.idle => {
                if self.is_slow {
                    // It is waited for with poll(2), which needs no buffer.
                    self.driver.space.free();
                } else {
                    self.driver.space.buffers.recycle();
                }
                let since = self.session.connection.idle_since().unwrap_or(self.now.tick);
                self.live.became_idle(since, &self.driver.shared);
                let got = self.receive_or_leave(left, socket);
                let leaves = self.live.became_busy();
                if leaves && got != Received::End {
                    self.live.stay();
                }
                match got {
                    Received::End if leaves => self.session.connection.handle(Input::Cut),
                    got => self.received(got, socket),
                }
            }
            _ => {
                let unfinished = self.session.connection.unfinished_since();
                if let Some(since) = unfinished {
                    self.live.became_unfinished(since);
                }
                let got = self.receive(left, socket);
                match got {
                    Received::End if unfinished.is_some() && self.live.became_busy() => {
                        self.session.connection.handle(Input::Cut);
                    }
                    got => {
                        if unfinished.is_some() {
                            self.live.became_busy();
                            self.live.stay();
                        }
                        self.received(got, socket);
                    }
                }
            }
        }
    }

    /// Like [`receive`](Self::receive), for an idle connection. If this thread drives all connections and another one
    /// is pending, this one is closed.
    fn receive_or_leave(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Received {
        let Some(door) = &self.driver.door else { return self.receive(left, socket) };
        let latch = self.driver.shared.latch();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::new(door, PollFlags::IN),
            PollFd::new(latch, PollFlags::IN),
        ];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Broken,
        }
        if fds[0].revents().is_empty() {
            if !fds[1].revents().is_empty() {
                self.session.connection.handle(Input::Cut);
            }
            return Received::Nothing;
        }
        self.transport.over(socket).receive(&mut self.driver.space.buffers.input, false)
    }

    /// Waits until bytes have arrived, the server shuts down, or the time is up. `None`: nothing has arrived.
    ///
    /// A thread that is blocked in `recv` notices nothing else. So it blocks there for a moment only, and then waits
    /// with poll(2). A client that sends requests without pauses is served with one system call per request.
    fn receive(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Received {
        let (window, io) = (&mut self.driver.space.buffers.input, &mut self.transport.over(socket));
        if !std::mem::take(&mut self.poll_once) && io.set_blocking(true).is_err() {
            return Received::Broken;
        }
        if self.transport.is_blocking() && !std::mem::take(&mut self.is_slow) {
            let left = Some(left.unwrap_or(RecvTimeout::BLIND).min(RecvTimeout::BLIND));
            if self.recv_timeout.arrange(socket, left).is_err() {
                return Received::Broken;
            }
            let got = self.transport.over(socket).receive(window, true);
            self.is_slow = got == Received::Nothing;
            return got;
        }
        match poll_both((socket, PollFlags::IN), (self.latch(), PollFlags::IN), left) {
            Ok([ready, _]) if ready.is_empty() => Received::Nothing,
            Ok(_) => self.transport.over(socket).receive(&mut self.driver.space.buffers.input, false),
            Err(_) => Received::Broken,
        }
    }

    /// A descriptor that becomes readable when the server shuts down, until the connection has processed that.
    fn latch(&self) -> Option<BorrowedFd<'_>> {
        (self.session.told() < Phase::Draining).then(|| self.driver.shared.latch().as_fd())
    }

    /// Passes the result of reading to the connection. The bytes are already in its window.
    fn received(&mut self, got: Received, socket: BorrowedFd<'_>) {
        self.with_env(socket, |session, _, io, env| session.received(got, io, env));
    }

    /// Waits with poll(2) for everything but the next bytes: for room in the socket, or only for the peer to
    /// disconnect and for the deadline.
    fn watch(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        match poll_both((socket, socket_flags(need)), (self.latch(), PollFlags::IN), left) {
            Ok([ready, _]) => self.became_ready(&[ready], need, socket),
            Err(_) => self.broken(socket),
        }
    }

    /// Like `watch`, with a handler that may be woken.
    fn watch_waker(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let Some(conn_waker) = self.conn_waker.get() else { return };
        let wanted = |fd: Option<BorrowedFd<'_>>, flags| fd.map_or(PollFlags::empty(), |_| flags);
        let latch = self.latch();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, socket_flags(need)),
            PollFd::from_borrowed_fd(conn_waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(latch.unwrap_or(socket), wanted(latch, PollFlags::IN)),
        ];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.broken(socket),
        }
        let [ready, woken, _] = fds.map(|fd| fd.revents());
        if !woken.is_empty() {
            conn_waker.consume();
            self.session.connection.handle(Input::Wake);
        }
        self.became_ready(&[ready], need, socket);
    }

    /// Like `watch`, with a script in addition to the socket.
    fn watch_script(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let tells = self.session.told() < Phase::Draining;
        let Driver { space, shared, .. } = &mut self.driver;
        let [ready, output, exit, input] = watched(need, socket, space.slot.script());
        let latch = PollFd::new(shared.latch(), if tells { PollFlags::IN } else { PollFlags::empty() });
        let mut fds = [ready, output, exit, input, latch];
        match poll(&mut fds, timespec(left).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return self.broken(socket),
        }
        let [found @ .., _] = fds.map(|fd| fd.revents());
        self.became_ready(&found, need, socket);
    }

    /// Records what was found of the socket, and of the script.
    fn became_ready(&mut self, found: &[PollFlags], need: Need, socket: BorrowedFd<'_>) {
        self.with_env(socket, |session, _, io, env| session.became_ready(found, need, io, env.site.draining()));
    }
}

/// Waits for the socket and for another descriptor, if there is one. Empty flags: nothing happened in time.
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

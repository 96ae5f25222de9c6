//! Waiting on behalf of a connection: for its peer, a script, a wake-up of its handler, and deadlines.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use sanserve_core::{Input, Need, Wait};
use sanserve_server::{Phase, Received, poll, watched};

use crate::driver::Line;
use crate::recv_timeout::RecvTimeout;

/// Waiting.
impl Line {
    pub(crate) fn wait(&mut self, wait: Wait, socket: BorrowedFd<'_>) {
        self.driver.log.get_mut().flush();
        if self.follow_phase() {
            return;
        }
        let left = wait.deadline.map(|deadline| deadline.since(self.now.tick));
        match wait.need {
            Need { read: false, .. }
            | Need { write: true, .. }
            | Need { script_read: true, .. }
            | Need { script_write: true, .. } => self.watch(wait.need, left, socket),
            Need { handler: true, .. } if self.conn_waker.get().is_some() => self.watch(wait.need, left, socket),
            _ if wait.idle => self.wait_idle(left, socket),
            _ => self.wait_for_more(left, socket),
        }
    }

    /// Waits for a request. Meanwhile, the connection may be closed to make room for another.
    fn wait_idle(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) {
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

    /// Waits for the rest of a head or a body, or for the peer to close. If the connection is unfinished, it may be
    /// closed meanwhile to make room for another.
    fn wait_for_more(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) {
        let unfinished = self.session.connection.unfinished_since();
        if let Some(since) = unfinished {
            self.live.became_unfinished(since);
        }
        let got = self.receive(left, socket);
        if unfinished.is_some() {
            let leaves = self.live.became_busy();
            if leaves && got == Received::End {
                return self.session.connection.handle(Input::Cut);
            }
            self.live.stay();
        }
        self.received(got, socket);
    }

    /// Like [`receive`](Self::receive), for an idle connection. If this thread drives all connections and another one
    /// is pending, this one is closed.
    fn receive_or_leave(&mut self, left: Option<u64>, socket: BorrowedFd<'_>) -> Received {
        let Some(listener) = &self.driver.listener else { return self.receive(left, socket) };
        let latch = self.driver.shared.latch();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(latch, PollFlags::IN),
        ];
        if poll(&mut fds, left).is_err() {
            return Received::Broken;
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
        let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN), self.latch(socket)];
        match poll(&mut fds, left) {
            Ok(()) if fds[0].revents().is_empty() => Received::Nothing,
            Ok(()) => self.transport.over(socket).receive(&mut self.driver.space.buffers.input, false),
            Err(_) => Received::Broken,
        }
    }

    /// For poll(2): readable when the server shuts down, until the connection has processed that.
    fn latch<'f>(&'f self, socket: BorrowedFd<'f>) -> PollFd<'f> {
        let latch = (self.session.phase() < Phase::Draining).then(|| self.driver.shared.latch().as_fd());
        readable(latch, socket)
    }

    /// Passes the result of reading to the connection. The bytes are already in its window.
    fn received(&mut self, got: Received, socket: BorrowedFd<'_>) {
        self.with_env(socket, |session, _, io, env| session.received(got, io, env));
    }

    /// Waits with poll(2) for everything but the next bytes: for room in the socket, for a script, for a wake-up of the
    /// handler, or only for the peer to disconnect and for the deadline.
    fn watch(&mut self, need: Need, left: Option<u64>, socket: BorrowedFd<'_>) {
        let wake_fd = self.conn_waker.get().filter(|_| need.handler);
        let [ready, output, exit, input] = watched(need, socket, self.driver.space.slot.script());
        let woken = readable(wake_fd.map(|wake_fd| wake_fd.as_fd()), socket);
        let mut fds = [ready, output, exit, input, woken, self.latch(socket)];
        if poll(&mut fds, left).is_err() {
            return self.broken(socket);
        }
        let [found @ .., woken, _] = fds.map(|fd| fd.revents());
        if let (Some(wake_fd), false) = (wake_fd, woken.is_empty()) {
            wake_fd.consume();
            self.session.connection.handle(Input::Wake);
        }
        self.became_ready(&found, need, socket);
    }

    /// Records what was found of the socket, and of the script.
    fn became_ready(&mut self, found: &[PollFlags], need: Need, socket: BorrowedFd<'_>) {
        self.with_env(socket, |session, _, io, env| session.became_ready(found, need, io, env.site.draining()));
    }
}

/// For poll(2): whether `fd` is readable. Without it, the socket takes its place, without events.
fn readable<'f>(fd: Option<BorrowedFd<'f>>, socket: BorrowedFd<'f>) -> PollFd<'f> {
    let flags = if fd.is_some() { PollFlags::IN } else { PollFlags::empty() };
    PollFd::from_borrowed_fd(fd.unwrap_or(socket), flags)
}

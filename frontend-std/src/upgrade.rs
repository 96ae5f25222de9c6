//! Passing on the socket of a connection that switches to another protocol.

use std::io;

use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use sanserve_server::Upgraded;

use crate::driver::Line;

impl Line {
    /// Passes the socket to the hook of the site, on this thread. Without a hook, the socket is closed.
    pub(crate) fn pass_on(&mut self) {
        if !self.driver.shared.site.takes_upgrades() {
            return;
        }
        let upgraded = self.give_away();
        let site = &self.driver.shared.site;
        match upgraded {
            Ok(upgraded) => site.upgrade(upgraded),
            Err(error) => site.log().error(format_args!("{:?}: cannot be upgraded: {error}", self.live.peer)),
        }
    }

    /// The socket, in the mode in which it was accepted, and the bytes already read. The connection keeps a reference
    /// to the socket, so that a shutdown can close it.
    pub(crate) fn give_away(&mut self) -> io::Result<Upgraded> {
        let stream = self.live.stream.try_clone()?;
        ioctl_fionbio(&stream, false)?;
        set_socket_timeout(&stream, Timeout::Recv, None)?;
        self.driver.log.get_mut().flush();
        let peer = self.live.peer;
        let buf = &mut self.driver.space.buffers;
        let (read, state) = (buf.input.unread().to_vec(), buf.take_upgrade_state());
        let upgraded = Upgraded::new(stream, read, peer, state, self.driver.shared.site.draining().clone());
        Ok(upgraded.with_secure(self.transport.take_secure()))
    }
}

//! Passing on the socket of a connection that switches to another protocol.

use std::io;
use std::net::SocketAddr;

use sanserve_server::Upgraded;

use crate::driver::Line;

/// Passes the socket to the hook of the site, on this thread. Without a hook, the socket is closed.
pub(crate) fn pass_on(line: &mut Line) {
    if !line.driver.shared.site.takes_upgrades() {
        return;
    }
    let upgraded = give(line);
    let site = &line.driver.shared.site;
    match upgraded {
        Ok(upgraded) => site.upgrade(upgraded),
        Err(error) => site.log().error(format_args!("{:?}: cannot be upgraded: {error}", line.live.peer)),
    }
}

/// The socket, in the mode in which it was accepted, and the bytes already read. The connection keeps a reference to
/// the socket, so that a shutdown can close it.
pub(crate) fn give(line: &mut Line) -> io::Result<Upgraded> {
    let stream = line.live.stream.try_clone()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(None)?;
    line.driver.log.get_mut().flush();
    let peer = line.live.peer;
    let buf = &mut line.driver.space.buffers;
    Ok(Upgraded {
        stream,
        read: buf.input.unread().to_vec(),
        peer: SocketAddr::new(peer.ip(), peer.port()),
        attached: buf.take_attached(),
        draining: line.driver.shared.site.draining().clone(),
    })
}

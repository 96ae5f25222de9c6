//! Connected sockets of any kind.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, getsockname};
use sanserve_core::Peer;

/// Whether a socket is a Unix socket.
#[must_use]
pub fn is_unix(socket: BorrowedFd<'_>) -> bool {
    getsockname(socket).is_ok_and(|address| address.address_family() == AddressFamily::UNIX)
}

/// Sets whether reads and writes of a socket return immediately.
///
/// # Errors
/// Errors of the system.
pub fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    Ok(ioctl_fionbio(socket, nonblocking)?)
}

/// A connected stream socket, and its other end: TCP, or Unix, from a listener or one end of a pair.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use sanserve_os::{Listener, Stream};
///
/// # fn main() -> std::io::Result<()> {
/// let (streams, listener) = Listener::channel()?; // the listener goes to a server
/// let (_client, server) = UnixStream::pair()?;
/// streams.send(Stream::from(server))?;
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    peer: Peer,
}

impl Stream {
    /// A socket with an address for its peer other than its own, such as one that a proxy has reported.
    #[must_use]
    pub fn new(socket: impl Into<OwnedFd>, peer: Peer) -> Stream {
        Stream { fd: socket.into(), peer }
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The socket and the other end.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Peer) {
        (self.fd, self.peer)
    }
}

impl From<TcpStream> for Stream {
    /// If the client has already disconnected, its address may be unknown. It is then 0.0.0.0, with port 0.
    fn from(stream: TcpStream) -> Stream {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let peer = Peer::from(stream.peer_addr().unwrap_or(unknown));
        Stream::new(stream, peer)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::new(stream, Peer::unix())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

//! A connection that has switched to another protocol, for its new owner.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use sanserve_core::{Peer, UpgradeState};
use sanserve_os::{is_unix, send};

use crate::lifecycle::Draining;
use crate::secure::Secure;

/// A connection that has switched to another protocol. Reads and writes block.
///
/// Reading begins with the bytes that the peer has sent already. [`into_tcp`](Self::into_tcp) and
/// [`into_unix`](Self::into_unix) return the socket.
///
/// ```
/// use std::io::{Read, Write};
/// use sanserve_core::{Misuse, Reply};
/// use sanserve_server::{Site, Upgraded};
///
/// fn shake_hands(reply: &mut Reply<'_>) -> Result<(), Misuse> {
///     reply.upgrade_with("shout", "hello\n".to_owned())?.send()
/// }
///
/// fn shout(mut upgraded: Upgraded) -> std::io::Result<()> {
///     let greeting: String = upgraded.take_state().unwrap_or_default();
///     upgraded.write_all(greeting.as_bytes())?;
///     let mut text = Vec::new();
///     upgraded.read_to_end(&mut text)?;
///     upgraded.write_all(&text.to_ascii_uppercase())
/// }
///
/// let site = Site::without_files().with_answer(shake_hands).with_upgrade(|upgraded| drop(shout(upgraded)));
/// # assert!(site.takes_upgrades());
/// ```
#[derive(Debug)]
pub struct Upgraded {
    stream: Stream,
    /// The bytes that the peer has sent already, and how many of them were read.
    read: (Vec<u8>, usize),
    peer: Peer,
    state: Option<UpgradeState>,
    draining: Draining,
}

/// The socket.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TlsStream),
}

/// A socket with its TLS.
#[derive(Debug)]
struct TlsStream {
    /// Locked for moments, since a shutdown needs no exclusive access.
    secure: Mutex<Secure>,
    socket: OwnedFd,
}

impl TlsStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let TlsStream { secure, socket } = self;
        secure.get_mut().unwrap_or_else(PoisonError::into_inner).read(out, |incoming| {
            Ok(rustix::io::retry_on_intr(|| rustix::io::read(&*socket, spare_capacity(incoming)))?)
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let TlsStream { secure, socket } = self;
        let secure = secure.get_mut().unwrap_or_else(PoisonError::into_inner);
        secure.write(data, |bytes| Ok(rustix::io::retry_on_intr(|| rustix::io::write(&*socket, bytes))?))
    }

    fn flush(&mut self) -> io::Result<()> {
        let TlsStream { secure, socket } = self;
        let secure = secure.get_mut().unwrap_or_else(PoisonError::into_inner);
        secure.flush(|bytes| Ok(rustix::io::retry_on_intr(|| rustix::io::write(&*socket, bytes))?))
    }

    /// Announces the end of what is sent, as far as the socket accepts that without blocking.
    fn close(&self) {
        let mut secure = self.secure.lock().unwrap_or_else(PoisonError::into_inner);
        secure.close();
        let _ = secure.flush(|bytes| send(self.socket.as_fd(), bytes, false).map_err(|_| ErrorKind::WouldBlock.into()));
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.close();
    }
}

impl Upgraded {
    /// A connection over a blocking socket, from which the bytes `read` were already read. For frontends.
    #[must_use]
    pub fn new(
        socket: OwnedFd,
        read: Vec<u8>,
        peer: Peer,
        state: Option<UpgradeState>,
        draining: Draining,
    ) -> Upgraded {
        let stream = if is_unix(socket.as_fd()) { Stream::Unix(socket.into()) } else { Stream::Tcp(socket.into()) };
        Upgraded { stream, read: (read, 0), peer, state, draining }
    }

    /// Sets the TLS of the connection, if it is secured. For frontends.
    #[must_use]
    pub fn with_secure(self, secure: Option<Secure>) -> Upgraded {
        let Some(secure) = secure else { return self };
        let socket = match self.stream {
            Stream::Tcp(stream) => stream.into(),
            Stream::Unix(stream) => stream.into(),
            Stream::Tls(_) => return self,
        };
        Upgraded { stream: Stream::Tls(TlsStream { secure: Mutex::new(secure), socket }), ..self }
    }

    /// Whether the connection is secured by TLS. Then it is read and written as any other, but has no socket to take.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The address of the peer.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Reports when the server shuts down. The server does not wait for this connection.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// Takes the state that the handler has passed to [`Reply::upgrade_with`](sanserve_core::Reply::upgrade_with).
    /// `None`: there is none, it is of another type, or it was taken already.
    pub fn take_state<T: Any>(&mut self) -> Option<T> {
        match self.state.take()?.downcast() {
            Ok(state) => Some(state),
            Err(other) => {
                self.state = Some(other);
                None
            }
        }
    }

    /// Sets how long one read may block. `None`, the default: for ever.
    ///
    /// # Errors
    /// As [`TcpStream::set_read_timeout`].
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
            Stream::Tls(stream) => set_timeout(stream, Timeout::Recv, timeout),
        }
    }

    /// Sets how long one write may block. `None`, the default: for ever.
    ///
    /// # Errors
    /// As [`TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
            Stream::Tls(stream) => set_timeout(stream, Timeout::Send, timeout),
        }
    }

    /// Shuts one or both directions down.
    ///
    /// # Errors
    /// As [`TcpStream::shutdown`].
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
            Stream::Tls(stream) => {
                let how = match how {
                    Shutdown::Read => rustix::net::Shutdown::Read,
                    Shutdown::Write => rustix::net::Shutdown::Write,
                    Shutdown::Both => rustix::net::Shutdown::Both,
                };
                if how != rustix::net::Shutdown::Read {
                    stream.close();
                }
                Ok(rustix::net::shutdown(&stream.socket, how)?)
            }
        }
    }

    /// The socket, and the bytes that the peer has sent already and that were not read yet.
    ///
    /// # Errors
    /// If the connection is not plain TCP, it is returned.
    pub fn into_tcp(self) -> Result<(TcpStream, Vec<u8>), Upgraded> {
        match self {
            Upgraded { stream: Stream::Tcp(stream), read: (mut read, start), .. } => {
                read.drain(..start);
                Ok((stream, read))
            }
            other => Err(other),
        }
    }

    /// Like [`into_tcp`](Self::into_tcp), for a connection over a Unix socket.
    ///
    /// # Errors
    /// If the connection is not over a Unix socket, it is returned.
    pub fn into_unix(self) -> Result<(UnixStream, Vec<u8>), Upgraded> {
        match self {
            Upgraded { stream: Stream::Unix(stream), read: (mut read, start), .. } => {
                read.drain(..start);
                Ok((stream, read))
            }
            other => Err(other),
        }
    }
}

impl Read for Upgraded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (read, start) = &mut self.read;
        let mut rest = &read[*start..];
        if !rest.is_empty() {
            let n = rest.read(out)?;
            *start += n;
            return Ok(n);
        }
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(out),
            Stream::Unix(stream) => stream.read(out),
            Stream::Tls(stream) => stream.read(out),
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(data),
            Stream::Unix(stream) => stream.write(data),
            Stream::Tls(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

fn set_timeout(stream: &TlsStream, which: Timeout, timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(set_socket_timeout(&stream.socket, which, timeout)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_was_read_already_comes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, from) = listener.accept().unwrap();
        let state = Some(UpgradeState::new(7_u8));
        let mut upgraded =
            Upgraded::new(stream.into(), b"early".to_vec(), Peer::from(from), state, Draining::default());
        assert_eq!(upgraded.take_state::<String>(), None, "of another type");
        assert_eq!(upgraded.take_state::<u8>(), Some(7));
        assert_eq!(upgraded.take_state::<u8>(), None, "once");
        client.write_all(b" and late").unwrap();
        let mut text = [0; 8];
        upgraded.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"early an");
        upgraded.write_all(b"ok").unwrap();
        upgraded.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ok");
        drop(client);
        let (mut stream, read) = upgraded.into_tcp().unwrap();
        assert!(read.is_empty());
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "d late");
    }

    #[test]
    fn a_unix_socket_is_not_tcp() {
        let (mut client, stream) = UnixStream::pair().unwrap();
        let upgraded = Upgraded::new(stream.into(), b"early".to_vec(), Peer::unix(), None, Draining::default());
        let mut upgraded = upgraded.into_tcp().unwrap_err();
        upgraded.write_all(b"hi").unwrap();
        let mut text = [0; 2];
        client.read_exact(&mut text).unwrap();
        upgraded.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ea");
        assert_eq!(upgraded.into_unix().unwrap().1, b"rly");
    }
}

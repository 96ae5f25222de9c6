//! A connection that has switched to another protocol, as its new owner gets it.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use sanserve_core::{Peer, UpgradeState};
use sanserve_os::is_unix;

use crate::lifecycle::Draining;

/// A connection that has switched to another protocol. Reads and writes block.
///
/// Reading begins with what the peer has sent already. Where a socket is needed, [`into_tcp`](Self::into_tcp) and
/// [`into_unix`](Self::into_unix) give it.
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
    /// What the peer has sent already, and how much of it was read.
    read: (Vec<u8>, usize),
    peer: Peer,
    state: Option<UpgradeState>,
    draining: Draining,
}

/// What carries the bytes.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Upgraded {
    /// A connection over a socket that blocks, with what was `read` of it already. For a frontend.
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

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Reports when the server shuts down. The server does not wait for this connection.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// What the handler has handed over with [`Reply::upgrade_with`](sanserve_core::Reply::upgrade_with), once.
    /// `None`: nothing, or nothing of this type.
    pub fn take_state<T: Any>(&mut self) -> Option<T> {
        match self.state.take()?.downcast() {
            Ok(state) => Some(state),
            Err(other) => {
                self.state = Some(other);
                None
            }
        }
    }

    /// The longest time that one read may wait; `None`, the default, is for ever.
    ///
    /// # Errors
    /// As [`TcpStream::set_read_timeout`].
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// The longest time that one write may wait; `None`, the default, is for ever.
    ///
    /// # Errors
    /// As [`TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// As [`TcpStream::shutdown`].
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    /// The socket, and what the peer has sent already and nobody has read.
    ///
    /// # Errors
    /// A connection that is not plain TCP comes back.
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
    /// A connection that is not over a Unix socket comes back.
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
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(data),
            Stream::Unix(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
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

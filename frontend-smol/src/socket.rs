//! The socket of a connection.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use async_io::Async;

/// A socket. It is registered with the reactor at the first wait.
pub(crate) enum Socket {
    Bare(TcpStream),
    Registered(Async<TcpStream>),
    /// The registration failed, or the socket no longer belongs to the connection.
    Lost,
}

impl Socket {
    pub(crate) fn stream(&self) -> &TcpStream {
        match self {
            Socket::Bare(stream) => stream,
            Socket::Registered(stream) => stream.get_ref(),
            Socket::Lost => unreachable!("the task has no socket any more"),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }

    pub(crate) fn register(&mut self) -> io::Result<&Async<TcpStream>> {
        if let Socket::Bare(_) = self {
            if let Socket::Bare(stream) = mem::replace(self, Socket::Lost) {
                *self = Socket::Registered(Async::new_nonblocking(stream)?);
            }
        }
        match self {
            Socket::Registered(stream) => Ok(stream),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The stream, registered with the reactor.
    pub(crate) fn into_async(mut self) -> io::Result<Async<TcpStream>> {
        self.register()?;
        match self {
            Socket::Registered(stream) => Ok(stream),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The stream in blocking mode.
    pub(crate) fn into_blocking(self) -> io::Result<TcpStream> {
        let stream = match self {
            Socket::Bare(stream) => stream,
            Socket::Registered(stream) => stream.into_inner()?,
            Socket::Lost => return Err(ErrorKind::NotConnected.into()),
        };
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

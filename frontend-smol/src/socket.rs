//! The socket of a connection.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use async_io::Async;

/// A socket, registered with the reactor since it was first waited for.
pub(crate) enum Socket {
    Bare(TcpStream),
    Registered(Async<TcpStream>),
    /// The reactor did not take it, or it is no longer the connection's.
    Lost,
}

impl Socket {
    pub(crate) fn stream(&self) -> &TcpStream {
        match self {
            Socket::Bare(stream) => stream,
            Socket::Registered(stream) => stream.get_ref(),
            Socket::Lost => unreachable!("a task goes on without its socket"),
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

    /// The stream, made to block.
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

//! The socket of a connection.

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use async_io::Async;
use sanserve_os::set_nonblocking;

/// A socket. It is registered with the reactor at the first wait.
pub(crate) enum Socket {
    Bare(OwnedFd),
    Registered(Async<OwnedFd>),
    /// The registration failed, or the socket no longer belongs to the connection.
    Lost,
}

impl Socket {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Bare(stream) => stream.as_fd(),
            Socket::Registered(stream) => stream.as_fd(),
            Socket::Lost => unreachable!("the task has no socket any more"),
        }
    }

    pub(crate) fn register(&mut self) -> io::Result<&Async<OwnedFd>> {
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

    /// The socket, no longer registered with the reactor. It is non-blocking.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Socket::Bare(stream) => Ok(stream),
            Socket::Registered(stream) => stream.into_inner(),
            Socket::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The socket in blocking mode.
    pub(crate) fn into_blocking(self) -> io::Result<OwnedFd> {
        let stream = self.into_fd()?;
        set_nonblocking(stream.as_fd(), false)?;
        Ok(stream)
    }
}

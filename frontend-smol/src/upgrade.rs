//! Connections that have switched to another protocol.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_io::Async;
use smol::io::{AsyncRead, AsyncWrite};

/// A connection that has switched to another protocol, as returned by
/// [`Exchange::upgrade`](crate::Exchange::upgrade).
///
/// Reading begins with what the peer has sent already. Where a socket is needed, [`into_tcp`](Self::into_tcp) gives it.
#[derive(Debug)]
pub struct Upgraded {
    stream: Stream,
    /// What the peer has sent already, and how much of it was read.
    read: (Vec<u8>, usize),
}

/// What carries the bytes.
#[derive(Debug)]
enum Stream {
    Tcp(Async<TcpStream>),
}

impl Stream {
    fn pin(&mut self) -> Pin<&mut Async<TcpStream>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream),
        }
    }
}

impl Upgraded {
    pub(crate) fn new(stream: Async<TcpStream>, read: Vec<u8>) -> Upgraded {
        Upgraded { stream: Stream::Tcp(stream), read: (read, 0) }
    }

    /// The socket, registered with the reactor, and what the peer has sent already and nobody has read.
    /// `stream.into_inner()?` and `set_nonblocking(false)` make a socket that blocks.
    ///
    /// # Errors
    /// A connection that is not plain TCP comes back. Today all are plain TCP.
    pub fn into_tcp(self) -> Result<(Async<TcpStream>, Vec<u8>), Upgraded> {
        let Upgraded { stream: Stream::Tcp(stream), read: (mut read, start) } = self;
        read.drain(..start);
        Ok((stream, read))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let (read, start) = &mut self.read;
        let mut rest = &read[*start..];
        if !rest.is_empty() {
            let n = io::Read::read(&mut rest, out)?;
            *start += n;
            return Poll::Ready(Ok(n));
        }
        self.stream.pin().poll_read(cx, out)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.pin().poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.pin().poll_flush(cx)
    }

    /// Ends the direction to the peer.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.pin().poll_close(cx)
    }
}

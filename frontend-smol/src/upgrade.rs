//! Connections that have switched to another protocol.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_io::Async;
use sanserve_os::is_unix;
use sanserve_server::Secure;
use smol::io::{AsyncRead, AsyncWrite};

/// A connection that has switched to another protocol, as returned by
/// [`Exchange::upgrade`](crate::Exchange::upgrade).
///
/// Reading begins with what the peer has sent already. Where a socket is needed, [`into_tcp`](Self::into_tcp) and
/// [`into_unix`](Self::into_unix) give it.
///
/// ```
/// use sanserve_smol::Exchange;
/// use sanserve_smol::smol::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// A protocol by which the server shouts back.
/// async fn shout(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     let mut upgraded = x.upgrade("shout", &[]).await?;
///     let mut text = Vec::new();
///     upgraded.read_to_end(&mut text).await?;
///     upgraded.write_all(&text.to_ascii_uppercase()).await
/// }
/// # let _ = shout;
/// ```
#[derive(Debug)]
pub struct Upgraded {
    stream: Stream,
    secure: Option<Secure>,
    /// What the peer has sent already, and how much of it was read.
    read: (Vec<u8>, usize),
}

/// What carries the bytes.
#[derive(Debug)]
enum Stream {
    Tcp(Async<TcpStream>),
    Unix(Async<UnixStream>),
}

impl Upgraded {
    /// The socket is non-blocking.
    pub(crate) fn new(socket: OwnedFd, read: Vec<u8>, secure: Option<Secure>) -> io::Result<Upgraded> {
        let stream = if is_unix(socket.as_fd()) {
            Stream::Unix(Async::new_nonblocking(socket.into())?)
        } else {
            Stream::Tcp(Async::new_nonblocking(socket.into())?)
        };
        Ok(Upgraded { stream, secure, read: (read, 0) })
    }

    /// The socket, registered with the reactor, and the bytes that the peer has sent already and that were not read yet.
    /// `stream.into_inner()?` and `set_nonblocking(false)` make a socket that blocks.
    ///
    /// # Errors
    /// If the connection is not plain TCP, it is returned.
    pub fn into_tcp(self) -> Result<(Async<TcpStream>, Vec<u8>), Upgraded> {
        match self {
            Upgraded { stream: Stream::Tcp(stream), secure: None, read: (mut read, start) } => {
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
    pub fn into_unix(self) -> Result<(Async<UnixStream>, Vec<u8>), Upgraded> {
        match self {
            Upgraded { stream: Stream::Unix(stream), secure: None, read: (mut read, start) } => {
                read.drain(..start);
                Ok((stream, read))
            }
            other => Err(other),
        }
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
        let Upgraded { stream, secure, .. } = &mut *self;
        match secure {
            None => stream.poll_read(cx, out),
            Some(secure) => as_poll(secure.read(out, |incoming| {
                let len = incoming.len();
                incoming.resize(incoming.capacity(), 0);
                let received = as_result(stream.poll_read(cx, &mut incoming[len..]));
                incoming.truncate(len + received.as_ref().map_or(0, |n| *n));
                received
            })),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Upgraded { stream, secure, .. } = &mut *self;
        match secure {
            None => stream.poll_write(cx, data),
            Some(secure) => as_poll(secure.write(data, |bytes| as_result(stream.poll_write(cx, bytes)))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Upgraded { stream, secure, .. } = &mut *self;
        if let Some(secure) = secure {
            ready!(as_poll(secure.flush(|bytes| as_result(stream.poll_write(cx, bytes)))))?;
        }
        match stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends the direction to the peer.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Upgraded { stream, secure, .. } = &mut *self;
        if let Some(secure) = secure {
            secure.close();
            ready!(as_poll(secure.flush(|bytes| as_result(stream.poll_write(cx, bytes)))))?;
        }
        match stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_close(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }
}

/// A result of a socket that does not block, for [`Secure`].
fn as_result<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// The reverse. The waker was passed on where the socket would have blocked.
fn as_poll<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

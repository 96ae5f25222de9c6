//! Connections that have switched to another protocol.

use std::net::TcpStream;

use async_io::Async;

/// A connection that has switched to another protocol, from [`Exchange::upgrade`](crate::Exchange::upgrade).
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, registered with the reactor. `stream.into_inner()?` and `set_nonblocking(false)` give a blocking
    /// socket.
    pub stream: Async<TcpStream>,
    /// Bytes that the peer has already sent. They come before those read from `stream`.
    pub read: Vec<u8>,
}

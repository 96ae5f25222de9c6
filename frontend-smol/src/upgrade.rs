//! Connections that speak another protocol from here on.

use std::net::TcpStream;

use async_io::Async;

/// A connection that speaks another protocol from here on; what
/// [`Exchange::upgrade`](crate::Exchange::upgrade) gives.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, registered with the reactor. `stream.into_inner()?` and `set_nonblocking(false)` make one
    /// that blocks.
    pub stream: Async<TcpStream>,
    /// What the peer has sent already: it comes before what `stream` gives.
    pub read: Vec<u8>,
}

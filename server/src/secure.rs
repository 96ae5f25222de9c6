//! The TLS of a connection that has switched to another protocol, between its new owner and the socket.

use std::io;

#[cfg(feature = "tls-no-provider")]
use crate::tls_layer::Tls;

/// The TLS of a connection that has switched to another protocol: decrypts what is received and encrypts what is sent.
/// How that is done on a socket is an argument, so that it may block or not; [`WouldBlock`](io::ErrorKind::WouldBlock)
/// is passed on. For frontends: a [`Transport`](crate::Transport) has one if the connection is secured.
#[derive(Debug)]
pub struct Secure {
    #[cfg(feature = "tls-no-provider")]
    tls: Box<Tls>,
    #[cfg(not(feature = "tls-no-provider"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "tls-no-provider")]
impl Secure {
    pub(crate) fn new(tls: Box<Tls>) -> Secure {
        Secure { tls }
    }

    /// Reads into `out`. `receive` appends what it has received to its argument, within its capacity, and returns how
    /// much that is; 0 is the end.
    ///
    /// # Errors
    /// Those of `receive`; [`InvalidData`](io::ErrorKind::InvalidData) if the peer violates TLS;
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the connection ends without the announcement that TLS requires,
    /// so that something may have been cut off.
    pub fn read(
        &mut self,
        out: &mut [u8],
        receive: impl FnMut(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.tls.read(out, receive)
    }

    /// Encrypts the beginning of `data`, and sends it. Returns how much was taken; [`flush`](Self::flush) sends what the
    /// socket did not accept of it.
    ///
    /// # Errors
    /// Those of `send`, if nothing was taken; [`InvalidData`](io::ErrorKind::InvalidData) if the connection has failed.
    pub fn write(&mut self, data: &[u8], send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.tls.write(data, send)
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn flush(&mut self, send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        self.tls.flush_with(send)
    }

    /// Announces the end of what is sent, for the next [`flush`](Self::flush).
    pub fn close(&mut self) {
        self.tls.announce_close();
    }
}

#[cfg(not(feature = "tls-no-provider"))]
#[expect(missing_docs, reason = "there is no value of this type")]
impl Secure {
    pub fn read(&mut self, _: &mut [u8], _: impl FnMut(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<usize> {
        match self.never {}
    }

    pub fn write(&mut self, _: &[u8], _: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        match self.never {}
    }

    pub fn flush(&mut self, _: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        match self.never {}
    }

    pub fn close(&mut self) {
        match self.never {}
    }
}

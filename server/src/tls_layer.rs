//! The layer for TLS between a connection and its socket.
//!
//! It lies below [`Io`](crate::Io): what is received is decrypted, and what is sent is encrypted, so that a session and
//! a frontend do not know of it. Ciphertext that the socket does not accept stays here, bounded by the machine. Nothing
//! here waits.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use sanserve_core::{Input, Secured, TlsVersion, Window};
use sanserve_os::{MAX_SENDFILE, Stopped, send};
use sanserve_tls::{Config, Failure, Machine, Read};

/// What is read of a file at once, to be encrypted: a few records of the longest kind.
const PIECE: usize = 64 * 1024;

/// Ciphertext is sent when there is this much of it, even if more follows immediately.
const ENOUGH: usize = 16 * 1024;

/// The TLS of one connection.
#[derive(Debug)]
pub(crate) struct Tls {
    machine: Machine,
    /// The socket did not accept all ciphertext, and the connection was not told.
    blocked: bool,
    /// The socket has failed, and whatever waits for it is discarded.
    broken: bool,
}

/// What [`Tls::receive`] has found.
pub(crate) enum Got {
    /// Something has arrived, and this many bytes of plaintext were added to the window.
    Bytes(usize),
    Nothing,
    End,
    Broken,
    /// The peer speaks plain HTTP, and this is what has arrived of it.
    PlainHttp(Vec<u8>),
}

/// What is known of the socket after a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Emptied {
    /// The socket was read.
    pub(crate) was_read: bool,
    /// It may have more.
    pub(crate) may_have_more: bool,
}

impl Tls {
    pub(crate) fn new(config: &Config) -> Result<Tls, Failure> {
        Ok(Tls { machine: Machine::new(config)?, blocked: false, broken: false })
    }

    /// Reads the socket once, unless there is something left of earlier reads, and decrypts into the window.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, window: &mut Window, flags: RecvFlags) -> (Got, Emptied) {
        let spare = window.spare();
        let mut emptied = Emptied::default();
        if !self.machine.has_unread() {
            // If it turns out to be plain HTTP, it must fit into the window.
            let incoming = self.machine.incoming(spare.len());
            let (before, room) = (incoming.len(), incoming.capacity() - incoming.len());
            emptied.was_read = true;
            match retry_on_intr(|| recv(socket, spare_capacity(incoming), flags)) {
                Ok((_, 0)) => self.machine.ended(),
                Ok(_) => emptied.may_have_more = incoming.len() - before == room,
                Err(Errno::AGAIN) => {
                    self.machine.shrink();
                    return (Got::Nothing, emptied);
                }
                Err(_) => return (Got::Broken, emptied),
            }
        }
        let read = self.machine.read(spare);
        // The handshake, and alerts.
        if self.flush_some(socket).is_err() {
            return (Got::Broken, emptied);
        }
        let got = match read {
            Ok(Read::Plain(n)) => {
                window.commit(n);
                Got::Bytes(n)
            }
            Ok(Read::More) => Got::Bytes(0),
            // "Servers SHOULD be prepared to receive an incomplete closure from the client" (RFC 9112 section 9.8). A
            // request that was cut off is incomplete by the framing of HTTP.
            Ok(Read::Closed | Read::Truncated) => Got::End,
            Ok(Read::PlainHttp) => Got::PlainHttp(self.machine.take_incoming()),
            Err(_) => Got::Broken,
        };
        (got, emptied)
    }

    /// Whether a read may find something without anything more having arrived.
    pub(crate) fn has_unread(&self) -> bool {
        self.machine.has_unread()
    }

    /// What the connection has to be told.
    pub(crate) fn take_news(&mut self) -> Option<Input> {
        let Some(agreed) = self.machine.take_secured() else {
            return std::mem::take(&mut self.blocked).then_some(Input::Blocked);
        };
        let mut secured = Secured::new(if agreed.is_13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 });
        secured.server_name = agreed.server_name.map(Into::into);
        secured.alpn = agreed.alpn.map(Into::into);
        Some(Input::Secured(Arc::new(secured.with_client_certificates(agreed.client_certificates))))
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.broken && !self.machine.unsent().is_empty()
    }

    /// Sends ciphertext until none is left.
    ///
    /// # Errors
    /// If the socket is full, or the connection has failed.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Stopped> {
        while self.has_unsent() {
            match send(socket, self.machine.unsent(), false) {
                Ok(n) => self.machine.sent(n),
                Err(stopped) => {
                    self.broken = stopped != Stopped::Blocked;
                    return Err(stopped);
                }
            }
        }
        if self.broken { Err(Stopped::Peer) } else { Ok(()) }
    }

    /// Like [`flush`](Tls::flush), where a full socket is for the connection to be told later.
    fn flush_some(&mut self, socket: BorrowedFd<'_>) -> Result<(), Stopped> {
        match self.flush(socket) {
            Err(Stopped::Blocked) => {
                self.blocked = true;
                Ok(())
            }
            flushed => flushed,
        }
    }

    /// Encrypts the pieces, and sends them if no more follows or there is enough. Returns how many bytes were taken;
    /// what the socket does not accept of them is sent by [`flush`](Tls::flush).
    pub(crate) fn send<'p>(
        &mut self,
        socket: BorrowedFd<'_>,
        pieces: impl Iterator<Item = &'p [u8]>,
        more: bool,
    ) -> Result<usize, Stopped> {
        let mut taken = 0;
        for mut piece in pieces {
            while !piece.is_empty() {
                let n = self.machine.write(piece).map_err(|_| Stopped::Peer)?;
                taken += n;
                piece = &piece[n..];
                if n == 0 {
                    match self.flush(socket) {
                        Ok(()) => {}
                        Err(Stopped::Blocked) if taken > 0 => return Ok(taken),
                        Err(stopped) => return Err(stopped),
                    }
                }
            }
        }
        if !more || self.machine.unsent().len() >= ENOUGH {
            self.flush_some(socket)?;
        }
        Ok(taken)
    }

    /// Reads a part of a file, encrypts and sends it, until the socket is full. At most [`MAX_SENDFILE`] of it.
    pub(crate) fn send_file(
        &mut self,
        socket: BorrowedFd<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<u64, Stopped> {
        let len = len.min(MAX_SENDFILE);
        let (mut sent, mut plain) = (0, Vec::new());
        while sent < len {
            // What is read is taken, so no more is read than that.
            match self.flush(socket) {
                Ok(()) => {}
                Err(Stopped::Blocked) if sent > 0 => break,
                Err(stopped) => return Err(stopped),
            }
            let most = usize::try_from(len - sent).map_or(PIECE, |rest| rest.min(PIECE));
            plain.clear();
            plain.reserve_exact(most);
            let read = retry_on_intr(|| pread(file, spare_capacity(&mut plain), offset + sent));
            match read {
                Ok(0) => break,
                Ok(_) => plain.truncate(most),
                Err(_) if sent > 0 => break,
                Err(_) => return Err(Stopped::File),
            }
            let mut rest = &plain[..];
            while !rest.is_empty() {
                let n = self.machine.write(rest).map_err(|_| Stopped::Peer)?;
                if n == 0 {
                    break;
                }
                rest = &rest[n..];
            }
            sent += (plain.len() - rest.len()) as u64;
        }
        self.flush_some(socket)?;
        Ok(sent)
    }

    /// Reads for the owner of an upgraded connection.
    pub(crate) fn read(
        &mut self,
        out: &mut [u8],
        mut receive: impl FnMut(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.machine.has_unread() && receive(self.machine.incoming(usize::MAX))? == 0 {
                self.machine.ended();
            }
            match self.machine.read(out).map_err(|failure| io::Error::new(ErrorKind::InvalidData, failure))? {
                Read::Plain(n) => return Ok(n),
                Read::More => {}
                Read::Closed => return Ok(0),
                Read::Truncated => return Err(ErrorKind::UnexpectedEof.into()),
                Read::PlainHttp => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Writes for the owner of an upgraded connection.
    pub(crate) fn write(&mut self, data: &[u8], mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        // What waits already may leave no room.
        let flushed = self.flush_with(&mut send);
        let n = self.machine.write(data).map_err(|failure| io::Error::new(ErrorKind::InvalidData, failure))?;
        match flushed.and_then(|()| self.flush_with(send)) {
            Err(error) if n == 0 || error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(n),
        }
    }

    /// Sends everything that waits.
    pub(crate) fn flush_with(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while self.has_unsent() {
            match send(self.machine.unsent())? {
                0 => return Err(ErrorKind::WriteZero.into()),
                n => self.machine.sent(n),
            }
        }
        Ok(())
    }

    /// The direction to the peer is closed by the next flush.
    pub(crate) fn announce_close(&mut self) {
        self.machine.close();
    }

    /// Closes the direction to the peer, as far as the socket accepts the alert for that.
    pub(crate) fn close(&mut self, socket: BorrowedFd<'_>) {
        self.machine.close();
        let _ = self.flush(socket);
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.machine.shrink();
    }
}

//! The transport of a connection: sending and receiving through its socket, and the readiness of the socket.
//!
//! A frontend owns the socket, in the type of its runtime, and a [`Transport`]. Everything that is sent or received
//! goes through both, so that a frontend does not need to know about layers between a connection and its socket.
//! Waiting is the task of the frontend.

use std::io::IoSlice;

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use sanserve_core::{Need, Window};
use sanserve_os::Stopped;

/// The layer between a connection and its socket, and the readiness of the socket.
///
/// A frontend reports events of its runtime ([`became_readable`](Transport::became_readable),
/// [`became_writable`](Transport::became_writable)). A [`Session`](crate::Session) reads and writes accordingly, and
/// records when a read or a write comes up short.
#[derive(Debug)]
pub struct Transport {
    layer: Layer,
    /// Events are edge-triggered, so reading continues until a read comes up short.
    is_edge: bool,
    readable: bool,
    writable: bool,
    /// The peer sends nothing more, so a short read does not empty the socket.
    read_closed: bool,
    /// The peer has reset the connection.
    is_reset: bool,
    mode: Mode,
    /// What the connection waits for.
    needs_read: bool,
    needs_write: bool,
}

/// Invariant: an idle connection is cheap.
const _: () = assert!(size_of::<Transport>() <= 8);

/// Whether reads of the socket block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Blocks,
    DoesNot,
    /// Non-blocking, and a file was sent since the last query, which requires this mode.
    SentFile,
}

/// The layer that transforms the bytes. TLS would be another one.
#[derive(Debug)]
enum Layer {
    /// The bytes are sent unchanged.
    Plain,
}

/// The result of reading.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes were added to the window.
    Bytes(usize),
    /// Nothing has arrived in time.
    Nothing,
    /// The peer sends nothing more.
    End,
    /// The connection has failed.
    Broken,
}

impl Transport {
    /// For edge-triggered events: reading continues until a read comes up short. The socket is non-blocking.
    #[must_use]
    pub fn edge_triggered() -> Transport {
        Transport { is_edge: true, ..Transport::level_triggered() }
    }

    /// For level-triggered events: each event permits one read. The socket is non-blocking until
    /// [`Io::set_blocking`].
    #[must_use]
    pub fn level_triggered() -> Transport {
        Transport {
            layer: Layer::Plain,
            is_edge: false,
            readable: false,
            writable: true,
            read_closed: false,
            is_reset: false,
            mode: Mode::DoesNot,
            needs_read: true,
            needs_write: false,
        }
    }

    /// Combines this transport with the socket of the connection, for sending and receiving.
    pub fn over<'t>(&'t mut self, socket: BorrowedFd<'t>) -> Io<'t> {
        Io { socket, transport: self }
    }

    /// Records that the socket may be readable. Returns whether the connection waits for that.
    pub fn became_readable(&mut self) -> bool {
        self.readable = true;
        self.needs_read
    }

    /// Records that the socket may be writable. Returns whether the connection waits for that.
    pub fn became_writable(&mut self) -> bool {
        self.writable = true;
        self.needs_write
    }

    /// The peer sends nothing more.
    pub fn became_closed(&mut self) {
        self.read_closed = true;
    }

    /// Whether the socket may be readable, and the connection waits for that.
    #[must_use]
    pub fn is_to_read(&self) -> bool {
        self.readable && self.needs_read
    }

    /// Whether the socket was full, and has not been reported writable since.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.writable
    }

    /// Whether a send or a receive has found that the connection has failed.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Whether the socket blocks.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.mode == Mode::Blocks
    }

    /// Whether a file was sent since the last call, which requires a non-blocking socket.
    pub fn take_sent_file(&mut self) -> bool {
        let sent = self.mode == Mode::SentFile;
        if sent {
            self.mode = Mode::DoesNot;
        }
        sent
    }

    /// Records what the connection waits for.
    pub(crate) fn wait_for(&mut self, need: Need) {
        self.needs_read = need.read;
        self.needs_write = need.write;
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(crate) fn is_edge(&self) -> bool {
        self.is_edge
    }

    pub(crate) fn became_full(&mut self) {
        self.writable = false;
    }

    pub(crate) fn was_reset(&mut self) {
        self.is_reset = true;
    }

    /// There may be more bytes than were read.
    pub(crate) fn was_probed(&mut self) {
        self.readable |= self.is_edge;
    }
}

/// A socket and its [`Transport`].
#[derive(Debug)]
pub struct Io<'t> {
    pub(crate) socket: BorrowedFd<'t>,
    pub(crate) transport: &'t mut Transport,
}

impl Io<'_> {
    /// Sets whether reads of the socket block. Writes never do.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_blocking(&mut self, blocks: bool) -> Result<(), Errno> {
        if self.transport.is_blocking() != blocks {
            ioctl_fionbio(self.socket, !blocks)?;
            self.transport.mode = if blocks { Mode::Blocks } else { Mode::DoesNot };
        }
        Ok(())
    }

    /// Reads once into the window, which must have room. Blocks only if the socket does and `waits` is set.
    pub fn receive(&mut self, window: &mut Window, waits: bool) -> Received {
        let Layer::Plain = self.transport.layer;
        let spare = window.spare();
        let room = spare.len();
        debug_assert!(room > 0, "an empty read would look like the end");
        let flags = if self.transport.is_blocking() && !waits { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        self.transport.readable = false;
        match retry_on_intr(|| recv(self.socket, &mut *spare, flags)) {
            Ok((_, 0)) => Received::End,
            Ok((_, n)) => {
                window.commit(n);
                // A short read has emptied the socket, and more bytes cause a new event.
                self.transport.readable = self.transport.is_edge && (n == room || self.transport.read_closed);
                Received::Bytes(n)
            }
            Err(Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::Broken,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8], more: bool) -> Result<usize, Stopped> {
        let Layer::Plain = self.transport.layer;
        sanserve_os::send(self.socket, bytes, more)
    }

    pub(crate) fn send_vectored(&mut self, pieces: &[IoSlice<'_>], more: bool) -> Result<usize, Stopped> {
        let Layer::Plain = self.transport.layer;
        sanserve_os::send_vectored(self.socket, pieces, more)
    }

    pub(crate) fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64, Stopped> {
        let Layer::Plain = self.transport.layer;
        // `sendfile` has no flag for that.
        self.set_blocking(false).map_err(|_| Stopped::Peer)?;
        self.transport.mode = Mode::SentFile;
        sanserve_os::send_file(self.socket, file, offset, len)
    }

    /// Half-closes the socket.
    pub(crate) fn shut(&mut self) {
        let Layer::Plain = self.transport.layer;
        // Fails only if the peer has disconnected, which the next read reports.
        let _ = shutdown(self.socket, Shutdown::Write);
    }
}

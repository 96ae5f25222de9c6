//! How the bytes of a connection get through its socket, and what is known of that socket.
//!
//! A frontend has the socket, in whatever type its runtime waits for, and a [`Transport`] beside it. Whatever is sent or
//! received goes through both, so that what lies between a connection and its socket is not the frontend's concern.
//! Leaves out waiting.

use std::io::IoSlice;

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use sanserve_core::{Need, Window};
use sanserve_os::Stopped;

/// What lies between a connection and its socket, and what is known of the socket.
///
/// A frontend notes what its runtime says ([`became_readable`](Transport::became_readable),
/// [`became_writable`](Transport::became_writable)); a [`Session`](crate::Session) makes use of it and notes when a read
/// or a write comes up short.
#[derive(Debug)]
pub struct Transport {
    layer: Layer,
    /// The frontend is told of changes alone, so reading goes on until it comes up short.
    is_edge: bool,
    readable: bool,
    writable: bool,
    /// The peer will send nothing more, so a short read is not the end.
    read_closed: bool,
    /// The peer has reset the connection.
    is_reset: bool,
    mode: Mode,
    /// What the connection waits for.
    needs_read: bool,
    needs_write: bool,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Transport>() <= 8);

/// Whether the socket blocks where it is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Blocks,
    DoesNot,
    /// It does not, and a file went out since anybody asked, for which it must not.
    SentFile,
}

/// What is made of the bytes on their way. TLS is to stand here, too.
#[derive(Debug)]
enum Layer {
    /// Nothing.
    Plain,
}

/// What came of reading.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes are in the window.
    Bytes(usize),
    /// Nothing has come, in time.
    Nothing,
    /// The peer sends nothing more.
    End,
    /// The peer is gone.
    Broken,
}

impl Transport {
    /// For a frontend that is told once when bytes arrive or there is room: reading goes on until it comes up short.
    /// The socket does not block.
    #[must_use]
    pub fn edge_triggered() -> Transport {
        Transport { is_edge: true, ..Transport::level_triggered() }
    }

    /// For a frontend that is told for as long as there are bytes or there is room: each time is good for one read. The
    /// socket does not block, until [`Io::set_blocking`].
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

    /// To send and receive with, over this connection's socket.
    pub fn over<'t>(&'t mut self, socket: BorrowedFd<'t>) -> Io<'t> {
        Io { socket, transport: self }
    }

    /// Bytes, or the end, may be there. Whether the connection waits for them.
    pub fn became_readable(&mut self) -> bool {
        self.readable = true;
        self.needs_read
    }

    /// There may be room for more. Whether the connection waits for it.
    pub fn became_writable(&mut self) -> bool {
        self.writable = true;
        self.needs_write
    }

    /// The peer sends nothing more.
    pub fn became_closed(&mut self) {
        self.read_closed = true;
    }

    /// Whether bytes may be there, and are what the connection waits for.
    #[must_use]
    pub fn is_to_read(&self) -> bool {
        self.readable && self.needs_read
    }

    /// Whether the socket was full, and nobody has said since that there is room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.writable
    }

    /// Whether sending or receiving has found that the peer is gone.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Whether the socket blocks.
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.mode == Mode::Blocks
    }

    /// Whether a file went out since this was last asked that the socket must not block for.
    pub fn take_sent_file(&mut self) -> bool {
        let sent = self.mode == Mode::SentFile;
        if sent {
            self.mode = Mode::DoesNot;
        }
        sent
    }

    /// Notes what the connection waits for.
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

    /// More may be there than was read.
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
    /// Has the socket block where it is read from, or not. Writing never blocks.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn set_blocking(&mut self, blocks: bool) -> Result<(), Errno> {
        if self.transport.is_blocking() != blocks {
            ioctl_fionbio(self.socket, !blocks)?;
            self.transport.mode = if blocks { Mode::Blocks } else { Mode::DoesNot };
        }
        Ok(())
    }

    /// Reads once into the window, which has room. Blocks only if the socket does and `waits`.
    pub fn receive(&mut self, window: &mut Window, waits: bool) -> Received {
        let Layer::Plain = self.transport.layer;
        let spare = window.spare();
        let room = spare.len();
        debug_assert!(room > 0, "reading nothing would look like the end");
        let flags = if self.transport.is_blocking() && !waits { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        self.transport.readable = false;
        match retry_on_intr(|| recv(self.socket, &mut *spare, flags)) {
            Ok((_, 0)) => Received::End,
            Ok((_, n)) => {
                window.commit(n);
                // A short read has emptied the socket, and more makes a new event.
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
        // `sendfile` knows no flag for it.
        self.set_blocking(false).map_err(|_| Stopped::Peer)?;
        self.transport.mode = Mode::SentFile;
        sanserve_os::send_file(self.socket, file, offset, len)
    }

    /// Half-closes the socket.
    pub(crate) fn shut(&mut self) {
        let Layer::Plain = self.transport.layer;
        // It fails only where the peer has gone, and then reading will tell.
        let _ = shutdown(self.socket, Shutdown::Write);
    }
}

//! The transport of a connection: sending and receiving through its socket, and the readiness of the socket.
//!
//! A frontend owns the socket, in the type of its runtime, and a [`Transport`]. Everything that is sent or received
//! goes through both, so that a frontend does not need to know about layers between a connection and its socket.
//! Waiting is the task of the frontend.

use std::io::IoSlice;

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use sanserve_core::{Input, Need, Window};
use sanserve_os::Stopped;

use crate::secure::Secure;
use crate::site::Site;
#[cfg(feature = "tls-no-provider")]
use crate::tls_layer::{Emptied, Got, Tls};

/// The layer between a connection and its socket, and the readiness of the socket.
///
/// A frontend reports events of its runtime ([`became_readable`](Transport::became_readable),
/// [`became_writable`](Transport::became_writable)). A [`Session`](crate::Session) reads and writes accordingly, and
/// records when a read or a write comes up short.
#[derive(Debug)]
pub struct Transport {
    layer: Layer,
    #[cfg(feature = "tls-no-provider")]
    tls: Option<Box<Tls>>,
    /// Events are edge-triggered, so reading continues until a read comes up short.
    is_edge: bool,
    readable: bool,
    writable: bool,
    peer: Peer,
    mode: Mode,
    /// What the connection waits for.
    needs_read: bool,
    needs_write: bool,
}

/// Invariant: an idle connection is cheap.
/// Only TLS needs a pointer.
const _: () = assert!(size_of::<Transport>() <= if cfg!(feature = "tls-no-provider") { 16 } else { 8 });

/// Whether reads of the socket block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Blocks,
    DoesNot,
    /// Non-blocking, and a file was sent since the last query, which requires this mode.
    SentFile,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Present,
    /// It sends nothing more, so a short read does not empty the socket.
    ReadClosed,
    /// It has reset the connection.
    Reset,
}

/// The layer that transforms the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// It is chosen in the first turn.
    New,
    /// The bytes are sent unchanged, unless there is a [`Tls`].
    Chosen,
    /// The peer speaks plain HTTP in place of TLS, and the connection was not told.
    #[cfg(feature = "tls-no-provider")]
    Unsecured,
}

/// The result of reading.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Something has arrived, and this many bytes were added to the window: none if it belongs to TLS.
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
            layer: Layer::New,
            #[cfg(feature = "tls-no-provider")]
            tls: None,
            is_edge: false,
            readable: false,
            writable: true,
            peer: Peer::Present,
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
        if self.peer == Peer::Present {
            self.peer = Peer::ReadClosed;
        }
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
        self.peer == Peer::Reset
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
        self.peer = Peer::Reset;
    }

    /// Whether bytes that were passed to [`Io`] as sent wait in the layer for the socket.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &self.tls {
            return tls.has_unsent();
        }
        false
    }

    /// Chooses the layer, once. Returns what the connection has to be told of it.
    #[inline]
    pub(crate) fn choose_layer(&mut self, site: &Site) -> Option<Input> {
        if self.layer == Layer::New { self.choose_layer_of(site) } else { None }
    }

    #[cfg(feature = "tls-no-provider")]
    fn choose_layer_of(&mut self, site: &Site) -> Option<Input> {
        self.layer = Layer::Chosen;
        match Tls::new(site.tls()?) {
            Ok(tls) => {
                self.tls = Some(Box::new(tls));
                Some(Input::Handshake)
            }
            Err(failure) => {
                site.log().error(format_args!("cannot begin a TLS handshake: {failure}"));
                Some(Input::Broken(sanserve_core::Fault::Peer))
            }
        }
    }

    #[cfg(not(feature = "tls-no-provider"))]
    fn choose_layer_of(&mut self, _: &Site) -> Option<Input> {
        self.layer = Layer::Chosen;
        None
    }

    /// What the layer has to tell the connection: call it until it returns `None`.
    #[inline]
    pub(crate) fn take_news(&mut self) -> Option<Input> {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.tls {
            let news = tls.take_news();
            if news == Some(Input::Blocked) {
                self.writable = false;
            }
            return news;
        } else if self.layer == Layer::Unsecured {
            self.layer = Layer::Chosen;
            return Some(Input::Unsecured);
        }
        None
    }

    /// Frees what an idle connection does not need.
    #[inline]
    pub(crate) fn rest(&mut self) {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.tls {
            tls.rest();
        }
    }

    /// Takes the TLS of a connection that switches to another protocol, if it is secured.
    pub fn take_secure(&mut self) -> Option<Secure> {
        #[cfg(feature = "tls-no-provider")]
        return self.tls.take().map(Secure::new);
        #[cfg(not(feature = "tls-no-provider"))]
        None
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
        let flags = if self.transport.is_blocking() && !waits { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            let (got, emptied) = tls.receive(self.socket, window, flags);
            return self.received(got, emptied, window);
        }
        let spare = window.spare();
        let room = spare.len();
        debug_assert!(room > 0, "an empty read would look like the end");
        self.transport.readable = false;
        match retry_on_intr(|| recv(self.socket, &mut *spare, flags)) {
            Ok((_, 0)) => Received::End,
            Ok((_, n)) => {
                window.commit(n);
                // A short read has emptied the socket, and more bytes cause a new event.
                self.transport.readable = self.transport.is_edge && (n == room || self.transport.peer != Peer::Present);
                Received::Bytes(n)
            }
            Err(Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::Broken,
        }
    }

    /// Records what was received through TLS.
    #[cfg(feature = "tls-no-provider")]
    fn received(&mut self, got: Got, emptied: Emptied, window: &mut Window) -> Received {
        let Transport { layer, tls, is_edge, readable, peer, .. } = &mut *self.transport;
        if emptied.was_read {
            *readable = *is_edge && (emptied.may_have_more || *peer != Peer::Present);
        }
        // The socket has no event for what was read from it already.
        *readable |= tls.as_ref().is_some_and(|tls| tls.has_unread());
        match got {
            Got::Bytes(n) => Received::Bytes(n),
            Got::Nothing => Received::Nothing,
            Got::End => Received::End,
            Got::Broken => Received::Broken,
            Got::PlainHttp(bytes) => {
                (*layer, *tls) = (Layer::Unsecured, None);
                match window.fill(&bytes) {
                    n if n == bytes.len() => Received::Bytes(n),
                    _ => Received::Broken,
                }
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8], more: bool) -> Result<usize, Stopped> {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            return tls.send(self.socket, [bytes].into_iter(), more);
        }
        sanserve_os::send(self.socket, bytes, more)
    }

    pub(crate) fn send_vectored(&mut self, pieces: &[IoSlice<'_>], more: bool) -> Result<usize, Stopped> {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            return tls.send(self.socket, pieces.iter().map(|piece| &**piece), more);
        }
        sanserve_os::send_vectored(self.socket, pieces, more)
    }

    pub(crate) fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64, Stopped> {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            return tls.send_file(self.socket, file, offset, len);
        }
        // `sendfile` has no flag for that.
        self.set_blocking(false).map_err(|_| Stopped::Peer)?;
        self.transport.mode = Mode::SentFile;
        sanserve_os::send_file(self.socket, file, offset, len)
    }

    /// Sends what waits in the layer.
    pub(crate) fn flush(&mut self) -> Result<(), Stopped> {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            return tls.flush(self.socket);
        }
        Ok(())
    }

    /// Says goodbye to the peer, if the layer has a way to, before the socket is closed.
    pub(crate) fn close(&mut self) {
        #[cfg(feature = "tls-no-provider")]
        if let Some(tls) = &mut self.transport.tls {
            // "Servers MUST attempt to initiate an exchange of closure alerts with the client before closing the
            // connection" (RFC 9112 section 9.8). Where earlier bytes are discarded, it would not be understood.
            if !tls.has_unsent() {
                tls.close(self.socket);
            }
        }
    }

    /// Half-closes the socket.
    pub(crate) fn shut(&mut self) {
        self.close();
        // Fails only if the peer has disconnected, which the next read reports.
        let _ = shutdown(self.socket, Shutdown::Write);
    }
}

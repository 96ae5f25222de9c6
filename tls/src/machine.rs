//! The server's side of one TLS connection: ciphertext goes in, plaintext comes out, and the other way round.
//!
//! A [`Machine`] makes no system call. Whoever drives it puts what has arrived into [`Machine::incoming`], takes the
//! plaintext with [`Machine::read`], passes plaintext to [`Machine::write`], and sends what is in [`Machine::unsent`]:
//! a read may produce something to send (the handshake, alerts, tickets), and reads several records at once may leave
//! plaintext in the machine while the peer is silent ([`Machine::has_unread`]).
//!
//! It is built on the unbuffered interface of rustls, so that a connection which is idle holds no buffers.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{HandshakeKind, ProtocolVersion};

use crate::config::Config;
use crate::failure::Failure;
use crate::outgoing::Outgoing;
use crate::server_name::{ServerName, noted};

/// The longest record: a header of 5 bytes, and 2^14 bytes of plaintext with at most 2048 bytes around them.
const RECORD: usize = 5 + (1 << 14) + 2048;

/// The room that is made for a read: a record of the usual overhead.
const READ: usize = 5 + (1 << 14) + 256;

/// The most ciphertext that is kept unprocessed. A handshake message may be 64 KiB long, in several records; rustls
/// refuses a longer one.
const MAX_INCOMING: usize = 64 * 1024 + 2 * RECORD;

/// Plaintext that is sealed at once: records of the longest kind.
const WRITE: usize = 4 << 14;

/// The server's side of one TLS connection.
pub struct Machine {
    tls: UnbufferedServerConnection,
    /// What has arrived and was not decrypted. Freed while it is empty and nothing is read.
    incoming: Vec<u8>,
    /// What was decrypted and did not fit into what [`read`](Machine::read) was given, and how much of it was taken.
    plain: (Vec<u8>, usize),
    outgoing: Outgoing,
    stage: Stage,
    server_name: Option<ServerName>,
    is_ended: bool,
    is_closed: bool,
}

/// How far a connection has come.
#[derive(Clone, Debug)]
enum Stage {
    /// Not a byte has arrived.
    New,
    Handshake,
    /// [`Machine::take_secured`] was not called since.
    Secured,
    Open,
    Failed(Failure),
}

/// What [`Machine::read`] has found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes of plaintext. There may be more.
    Plain(usize),
    /// Nothing until more has arrived.
    More,
    /// The peer has closed its direction with a close_notify alert, and everything before it was read.
    Closed,
    /// The transport has ended without a close_notify alert, so that what was read may have been cut off by an
    /// attacker. HTTP has its own ends of messages.
    Truncated,
    /// The peer speaks plain HTTP. [`Machine::take_incoming`] has what it said.
    PlainHttp,
}

/// What was agreed on in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secured {
    /// Whether it is TLS 1.3, rather than 1.2.
    pub is_13: bool,
    /// The name that the client has asked for (SNI).
    pub server_name: Option<String>,
    /// The application protocol (ALPN), if both sides have one.
    pub alpn: Option<Vec<u8>>,
    /// The certificates of the client, its own first, in DER. Empty unless the configuration asks for them and they
    /// were verified.
    pub client_certificates: Vec<Vec<u8>>,
    /// Whether a session was resumed.
    pub is_resumed: bool,
}

impl Machine {
    /// A connection that was just accepted.
    ///
    /// # Errors
    /// If the configuration is one that rustls refuses for every connection.
    pub fn new(config: &Config) -> Result<Machine, Failure> {
        Ok(Machine {
            tls: UnbufferedServerConnection::new(Arc::clone(config.rustls()))?,
            incoming: Vec::new(),
            plain: (Vec::new(), 0),
            outgoing: Outgoing::default(),
            stage: Stage::New,
            server_name: None,
            is_ended: false,
            is_closed: false,
        })
    }

    /// Where ciphertext from the peer is to be appended, as much as there is spare capacity: a record at least, unless
    /// too much waits to be [read](Machine::read) already. The first time, there is room for `first` bytes, which limits
    /// what has arrived if it turns out to be plain HTTP.
    pub fn incoming(&mut self, first: usize) -> &mut Vec<u8> {
        let most = if matches!(self.stage, Stage::New) { first.min(READ) } else { READ };
        let room = most.min(MAX_INCOMING.saturating_sub(self.incoming.len()));
        self.incoming.reserve_exact(room);
        &mut self.incoming
    }

    /// Frees what is not in use, before the peer is waited for.
    pub fn shrink(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        } else if self.incoming.capacity() - self.incoming.len() > READ / 4 {
            self.incoming.shrink_to_fit();
        }
        self.outgoing.shrink();
    }

    /// Records that the transport has ended: nothing more will arrive.
    pub fn ended(&mut self) {
        self.is_ended = true;
    }

    /// Decrypts into `into`, as far as there is room. Produces what has to be sent in the handshake and after an error.
    ///
    /// # Errors
    /// If the peer violates the protocol, or nothing can be agreed on with it. An alert for it is in
    /// [`unsent`](Machine::unsent).
    pub fn read(&mut self, into: &mut [u8]) -> Result<Read, Failure> {
        if matches!(self.stage, Stage::New) {
            match self.incoming.first() {
                None => {}
                Some(first) if first.is_ascii_alphabetic() => return Ok(Read::PlainHttp),
                Some(_) => self.stage = Stage::Handshake,
            }
        }
        let mut turn = Turn {
            tls: &mut self.tls,
            incoming: &mut self.incoming,
            outgoing: &mut self.outgoing,
            sink: Sink { into, taken: 0, rest: &mut self.plain },
        };
        turn.sink.take_rest();
        // What does not fit is taken next time, and what comes after it stays encrypted until then.
        while !turn.sink.is_full() && !self.is_closed && !matches!(self.stage, Stage::Failed(_)) {
            let moved = turn.take(Then::Nothing);
            if let Some(name) = noted() {
                self.server_name = Some(name);
            }
            match moved {
                // "Any data received after a closure alert has been received MUST be ignored." (RFC 8446 section 6.1)
                Ok(Moved::Closed) => {
                    self.is_closed = true;
                    *turn.incoming = Vec::new();
                }
                Ok(Moved::On | Moved::Done) => {}
                Ok(Moved::Stalled) if turn.incoming.len() >= MAX_INCOMING => {
                    self.stage = Stage::Failed(Failure::too_much());
                }
                Ok(Moved::Stalled) => break,
                Err(failure) => {
                    turn.end();
                    self.stage = Stage::Failed(failure);
                }
            }
        }
        let taken = turn.sink.taken;
        if matches!(self.stage, Stage::Handshake) && !self.tls.is_handshaking() {
            self.stage = Stage::Secured;
        }
        match &self.stage {
            _ if taken > 0 => Ok(Read::Plain(taken)),
            Stage::Failed(failure) => Err(failure.clone()),
            _ if self.is_closed => Ok(Read::Closed),
            _ if self.is_ended => Ok(Read::Truncated),
            _ => Ok(Read::More),
        }
    }

    /// Whether [`read`](Machine::read) may find something without anything more having arrived.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        let has_plain = self.plain.1 < self.plain.0.len();
        let is_over = self.is_closed || self.is_ended || matches!(self.stage, Stage::Failed(_));
        has_plain || is_over || record_is_complete(&self.incoming)
    }

    /// Encrypts the beginning of `plain`, as far as there is room for ciphertext that waits to be sent. Returns how much
    /// of it: nothing before the handshake is complete.
    ///
    /// # Errors
    /// If the connection has failed, or so much was sent with its keys that they must not be used any more.
    pub fn write(&mut self, plain: &[u8]) -> Result<usize, Failure> {
        if let Stage::Failed(failure) = &self.stage {
            return Err(failure.clone());
        }
        let room = WRITE.saturating_sub(self.outgoing.len());
        let plain = &plain[..plain.len().min(room)];
        if plain.is_empty() || self.is_handshaking() {
            return Ok(0);
        }
        Ok(if self.put(Then::Write(plain))? { plain.len() } else { 0 })
    }

    /// Closes this direction: a close_notify alert is sent after everything that was written. The other direction stays
    /// open. Does nothing before the handshake is complete, after an error, and the second time.
    pub fn close(&mut self) {
        if matches!(self.stage, Stage::Secured | Stage::Open) {
            // An error means that the connection has failed, and then there is an alert already.
            let _ = self.put(Then::Close);
        }
    }

    /// Returns whether it was done.
    fn put(&mut self, then: Then<'_>) -> Result<bool, Failure> {
        let mut turn = Turn {
            tls: &mut self.tls,
            incoming: &mut self.incoming,
            outgoing: &mut self.outgoing,
            sink: Sink { into: &mut [], taken: 0, rest: &mut self.plain },
        };
        match turn.put(then) {
            Ok((is_done, is_closed)) => {
                self.is_closed |= is_closed;
                Ok(is_done)
            }
            Err(failure) => {
                turn.end();
                self.stage = Stage::Failed(failure.clone());
                Err(failure)
            }
        }
    }

    /// Ciphertext that has to be sent.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        self.outgoing.unsent()
    }

    /// Records that so many bytes of [`unsent`](Machine::unsent) were sent.
    pub fn sent(&mut self, n: usize) {
        self.outgoing.sent(n);
    }

    /// Whether the handshake is not complete, and has not failed.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Handshake)
    }

    /// What was agreed on, once after the handshake is complete.
    pub fn take_secured(&mut self) -> Option<Secured> {
        if !matches!(self.stage, Stage::Secured) {
            return None;
        }
        self.stage = Stage::Open;
        let chain = self.tls.peer_certificates().unwrap_or_default();
        Some(Secured {
            is_13: self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            server_name: self.server_name.take().map(Into::into),
            alpn: self.tls.alpn_protocol().map(<[u8]>::to_vec),
            client_certificates: chain.iter().map(|one| one.to_vec()).collect(),
            is_resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// What has arrived, after [`Read::PlainHttp`].
    #[must_use]
    pub fn take_incoming(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.incoming)
    }

    /// The bytes of memory that it holds in buffers.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.incoming.capacity() + self.plain.0.capacity() + self.outgoing.capacity()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("stage", &self.stage)
            .field("incoming", &self.incoming.len())
            .field("unsent", &self.outgoing.len())
            .finish_non_exhaustive()
    }
}

/// Whether a complete record has arrived. A handshake message that continues in the next record may need more.
fn record_is_complete(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

/// Where decrypted bytes go.
struct Sink<'s> {
    into: &'s mut [u8],
    taken: usize,
    rest: &'s mut (Vec<u8>, usize),
}

impl Sink<'_> {
    fn is_full(&self) -> bool {
        self.taken == self.into.len() && !self.into.is_empty()
    }

    /// Takes what was left the last time.
    fn take_rest(&mut self) {
        let (rest, start) = &mut *self.rest;
        let n = (rest.len() - *start).min(self.into.len());
        self.into[..n].copy_from_slice(&rest[*start..*start + n]);
        self.taken += n;
        *start += n;
        if *start == rest.len() {
            (*rest, *start) = (Vec::new(), 0);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.into.len() - self.taken);
        self.into[self.taken..self.taken + n].copy_from_slice(&bytes[..n]);
        self.taken += n;
        if n < bytes.len() {
            self.rest.0.extend_from_slice(&bytes[n..]);
        }
    }
}

/// What to do once rustls has processed everything that has arrived.
#[derive(Clone, Copy)]
enum Then<'p> {
    Nothing,
    Write(&'p [u8]),
    Close,
}

/// The outcome of one call of rustls.
enum Moved {
    /// Something was processed.
    On,
    /// More has to arrive.
    Stalled,
    /// The peer has closed its direction.
    Closed,
    /// [`Then`] was done.
    Done,
}

/// What a call of rustls works on, and where its results go.
struct Turn<'t, 's> {
    tls: &'t mut UnbufferedServerConnection,
    incoming: &'t mut Vec<u8>,
    outgoing: &'t mut Outgoing,
    sink: Sink<'s>,
}

impl Turn<'_, '_> {
    /// Processes what has arrived, to the next event.
    fn take(&mut self, then: Then<'_>) -> Result<Moved, Failure> {
        let Turn { tls, incoming, outgoing, sink } = self;
        let UnbufferedStatus { mut discard, state } = tls.process_tls_records(incoming);
        let moved = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Moved::On),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        sink.push(record.payload);
                    }
                    Some(Err(error)) => break Err(error.into()),
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                outgoing.put(0, |room| match data.encode(room) {
                    Ok(n) => Ok(n),
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => Err(required_size),
                    Err(EncodeError::AlreadyEncoded) => Ok(0),
                });
                Ok(Moved::On)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Moved::On)
            }
            // 0-RTT is refused: no configuration permits it.
            Ok(ConnectionState::ReadEarlyData(mut early)) => {
                while let Some(record) = early.next_record() {
                    discard += record.map_or(0, |record| record.discard);
                }
                Ok(Moved::On)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match then {
                Then::Nothing => Ok(Moved::Stalled),
                Then::Write(plain) => {
                    // With what each record has around its plaintext.
                    let likely = plain.len() + 64 * (1 + plain.len() / (1 << 14));
                    put(outgoing, likely, |room| traffic.encrypt(plain, room))
                }
                Then::Close => put(outgoing, 64, |room| traffic.queue_close_notify(room)),
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Moved::Closed),
            Ok(_) => Ok(Moved::Stalled),
            Err(error) => Err(error.into()),
        };
        incoming.drain(..discard);
        moved
    }

    /// Encrypts or closes. rustls can do that in one state only, which comes after everything that has arrived. Returns
    /// whether it was done, and whether the peer has closed its direction.
    fn put(&mut self, then: Then<'_>) -> Result<(bool, bool), Failure> {
        let mut is_closed = false;
        loop {
            match self.take(then)? {
                Moved::On => {}
                // It is reported once, and then both directions may be closed.
                Moved::Closed if !is_closed => is_closed = true,
                Moved::Done => return Ok((true, is_closed)),
                Moved::Stalled | Moved::Closed => return Ok((false, is_closed)),
            }
        }
    }

    /// After an error: the alert that describes it is to be sent, and nothing else is read.
    fn end(&mut self) {
        // What has arrived must not be processed again.
        while self.tls.wants_write() && matches!(self.take(Then::Nothing), Ok(Moved::On)) {}
        *self.incoming = Vec::new();
    }
}

fn put(
    outgoing: &mut Outgoing,
    likely: usize,
    mut make: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<Moved, Failure> {
    let mut moved = Ok(Moved::Done);
    outgoing.put(likely, |room| match make(room) {
        Ok(n) => Ok(n),
        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => Err(required_size),
        Err(EncryptError::EncryptExhausted) => {
            moved = Err(Failure::exhausted());
            Ok(0)
        }
    });
    moved
}

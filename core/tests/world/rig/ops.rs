//! The operations of a rig, and the small types that it uses.

use sanserve_core::{Body, Close, Fault, FsError, Transmit, Wait};

use super::super::disk::Node;

/// Something that happens to a connection, or that its driver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes arrive.
    Recv(Vec<u8>),
    Eof,
    /// At most this number of bytes are sent.
    Take(u64),
    Blocked,
    Writable,
    /// The file has to be read before more of it can be sent.
    Pending,
    /// The file has been read.
    Ready,
    /// The action in progress completes according to the disk.
    Complete,
    /// The action in progress fails with this error.
    Fail(FsError),
    /// The path of the action in progress is a directory.
    Directory,
    /// A result is passed for an action that already has one.
    Stale,
    /// Milliseconds pass.
    Pass(u64),
    /// Time advances to the deadline, or this much beyond it.
    Due(u64),
    Drain,
    Cut,
    Broken(Fault),
    Wake,
    /// The open file becomes as short as this.
    Shrink(u64),
    /// The disk changes: the path has this entry from now on, or none.
    Change(Vec<u8>, Option<Node>),
    /// At the next `Shut` or `Close`, the driver still holds bytes and the socket is full.
    Hold,
    /// The script writes these bytes, as far as there is room.
    Script(Vec<u8>),
    /// The script's output is complete.
    ScriptEof,
    /// At most this number of the offered bytes are read.
    Fed(u64),
    FeedBlocked,
    Feedable,
    FeedEnd,
    /// The first operation, and then the second before the connection has its turn.
    Both(Box<(Op, Op)>),
}

/// Where a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Send,
    Feed,
    Wait(Wait),
    Close(Close),
}

/// What has to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) head: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) file: Option<(u64, u64)>,
    pub(super) tail: Vec<u8>,
}

impl Outgoing {
    pub(super) fn of(transmit: &Transmit<'_>) -> Outgoing {
        assert!(!transmit.is_empty(), "nothing to send");
        let (bytes, file) = match transmit.body {
            Body::None => (Vec::new(), None),
            Body::Bytes(bytes) => (bytes.to_vec(), None),
            Body::File { offset, len } => (Vec::new(), Some((offset, len))),
        };
        assert!(file.is_none_or(|(_, len)| len > 0), "an empty part of a file");
        Outgoing { head: transmit.head.to_vec(), bytes, file, tail: transmit.tail.to_vec() }
    }

    pub(super) fn len(&self) -> u64 {
        (self.head.len() + self.bytes.len() + self.tail.len()) as u64 + self.file.map_or(0, |(_, len)| len)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Open(Vec<u8>),
    OpenIn(Vec<u8>),
    List,
    Find,
    Spool,
    Spawn,
}

/// A finished exchange.
#[derive(Clone, PartialEq, Eq)]
pub struct Done {
    pub line: Vec<u8>,
    pub status: u16,
    pub sent: u64,
    pub error: bool,
    pub cut: Option<String>,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Done { line, status, sent, error, cut } = self;
        write!(f, "{:?} {status} {sent}{} {cut:?}", line.escape_ascii().to_string(), if *error { " error" } else { "" })
    }
}

/// What was opened for an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The number of the exchange.
    pub exchange: usize,
    pub path: Vec<u8>,
    pub node: Node,
}

/// Events that excuse an early end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// Whether time, faults, a drain or the end of input may have ended it.
    pub any: bool,
}

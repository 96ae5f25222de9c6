//! What can happen to a rig, and the small things that it holds.

use sanserve_core::{Body, Close, Fault, FsError, Transmit, Wait};

use super::super::disk::Node;

/// Something that happens to a connection, or that its driver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes arrive.
    Recv(Vec<u8>),
    Eof,
    /// So many of the bytes to send go out; all if there are not so many.
    Take(u64),
    Blocked,
    Writable,
    /// The file has to be read before more of it goes out.
    Pending,
    /// It is read.
    Ready,
    /// The action under way ends as the disk has it.
    Complete,
    /// It ends with this error.
    Fail(FsError),
    /// It says that there is a directory.
    Directory,
    /// An answer to an action that is long answered.
    Stale,
    /// Milliseconds pass.
    Pass(u64),
    /// Time moves to the deadline, or this much past it.
    Due(u64),
    Drain,
    Cut,
    Broken(Fault),
    Wake,
    /// The file that is held becomes as short as this.
    Shrink(u64),
    /// The disk changes: this is at the path from now on, or nothing.
    Change(Vec<u8>, Option<Node>),
    /// The next `Shut` or `Close` finds that the driver still holds bytes and the socket is full.
    Hold,
    /// The script writes these bytes, as far as there is room for them.
    Script(Vec<u8>),
    /// The script's output is complete.
    ScriptEof,
    /// So many of the bytes that are fed are taken; all if there are not so many.
    Fed(u64),
    FeedBlocked,
    Feedable,
    FeedEnd,
    /// The first, and before the connection has its turn, the second.
    Both(Box<(Op, Op)>),
}

/// Where a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Send,
    Feed,
    Wait(Wait),
    Close(Close),
}

/// What there is to send.
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

/// An exchange that was finished.
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

/// Which things that excuse an early end have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// Time, faults, a drain or the end of input may have ended it.
    pub any: bool,
}

//! What a driver passes to a connection.

use std::sync::Arc;

use crate::secured::Secured;

/// An event that a driver passes to a connection. Bytes from the peer or a script are not inputs: they are read into
/// [`Window::spare`](crate::Window::spare) and committed.
///
/// It is exhaustive on purpose, like [`Step`](crate::Step): code that replays or checks a connection must handle every
/// input.
///
/// ```
/// use sanserve_core::{Buffers, Config, Connection, Context, DefaultPolicy, Input, Now, Peer, Step, Tick, Wall};
///
/// let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
/// let (mut connection, mut buf) = (Connection::new(peer, &cx), Buffers::new());
///
/// // The server shuts down. It looks once whether a request has just arrived, and closes the connection.
/// connection.handle(Input::Drain);
/// let later = Now::new(Tick(60_000), Wall(784_111_837));
/// let cx = Context { now: &later, ..cx };
/// assert!(matches!(connection.poll(&mut buf, &cx), Step::Probe(_)));
/// connection.handle(Input::Probed);
/// assert!(matches!(connection.poll(&mut buf, &cx), Step::Close(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The connection begins with a TLS handshake, which the driver carries out. Until
    /// [`Secured`](Input::Secured) it receives nothing else, and has `timeouts.handshake`, from when it was accepted.
    Handshake,
    /// The handshake is complete, and what arrives from now on was decrypted.
    Secured(Arc<Secured>),
    /// The peer speaks plain HTTP in place of a handshake. What arrives from now on is plain text. The first request is
    /// answered with a redirect to `https` if it names its host; in any other case, the connection closes without a
    /// response.
    Unsecured,
    /// The peer has half-closed the connection: no more bytes will arrive.
    Eof,
    /// The socket was read because of [`Probe`](crate::Step::Probe). If bytes were available, they are in the window.
    Probed,
    /// This number of bytes of the last [`Transmit`](crate::Transmit) were accepted, counted over head, body and tail.
    Sent(u64),
    /// This number of bytes of the last `Feed` were written to the script.
    Fed(u64),
    /// The socket is full.
    Blocked,
    /// The next bytes of the file are not in memory, and the driver reads them. Nothing is sent until
    /// [`FileReady`](Input::FileReady), and no timeout runs against the peer.
    FilePending,
    /// The next bytes of the file are available now.
    FileReady,
    /// The input of the script is full.
    FeedBlocked,
    /// The socket is writable again.
    Writable,
    /// The input of the script is writable again.
    Feedable,
    /// The script accepts no more input: it has closed its input or exited, or the disk is full.
    FeedEnd,
    /// The temporary files for request bodies have reached their total limit.
    SpoolFull,
    /// The output of the script is complete.
    ScriptEof,
    /// The script that was reported as spawned could not be run after all. It has written nothing.
    ScriptFailed(SpawnError),
    /// An action has completed. A ticket that is not the latest one is ignored.
    Done(Ticket, Completion),
    /// The handler asks to be called, because something that it waited for has happened.
    Wake,
    /// The connection cannot continue: it was reset, or the file became shorter.
    Broken(Fault),
    /// No memory is available ([`Memory`](crate::Memory)): no buffer grows in the next poll. Used to replay recordings.
    /// Other drivers set the memory of the [`Buffers`](crate::Buffers) and need not pass this.
    Scarce,
    /// The server is about to shut down, but continues for now: [`Config::health`](crate::Config::health) reports 503.
    Leave,
    /// The server is shutting down: finish the current exchange, then close.
    Drain,
    /// The grace period of a shutdown is over, or the connection is closed to make room for another one: close now.
    Cut,
}

/// Identifies an action of a connection, so that a late result cannot affect another exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket(pub(crate) u32);

impl Ticket {
    /// Restores a ticket from a recording.
    #[must_use]
    pub fn numbered(number: u32) -> Ticket {
        Ticket(number)
    }

    /// The number of the ticket, for a recording.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Why a connection cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer reset the connection or disappeared.
    Peer,
    /// The file became shorter than the announced length.
    FileShrank,
    /// The file was modified while it was sent.
    FileChanged,
    /// The system failed to read the file.
    File,
    /// The handler failed after it had sent the head of its response.
    Handler,
}

/// How an [`Action`](crate::Action) ended.
///
/// It is exhaustive on purpose, like [`Action`](crate::Action): code that carries out or replays actions must handle
/// all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The result of `Open` and `OpenIn`.
    Opened(Result<Opened, FsError>),
    /// The result of `List`.
    Listed(Result<Listed, FsError>),
    /// The result of `Find`.
    Found(Result<Found, FsError>),
    /// The result of `Spool`.
    Spooled(Result<(), FsError>),
    /// The result of `Spawn`.
    Spawned(Result<(), SpawnError>),
}

/// What a path in a directory of scripts refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The length of the part of the path that names the script; the rest is `PATH_INFO`.
    pub len: usize,
    /// What the path refers to.
    pub what: ScriptFile,
}

/// What a path in a directory of scripts refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptFile {
    /// An executable regular file.
    Runnable,
    /// Nothing.
    Missing,
    /// A directory, or a special file.
    NotPlain,
    /// A regular file that is not executable.
    NotExecutable,
}

/// Why a script could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// The limit on running scripts is reached: try again later.
    Busy,
    /// Out of descriptors, processes or memory: try again later.
    Exhausted,
    /// The system does not permit it, or privileges could not be dropped.
    Denied,
    /// The system cannot execute it, for example because its interpreter is missing.
    Failed,
}

/// What was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A regular file or a directory. For anything else, drivers return [`FsError::NotFound`].
    pub kind: Kind,
    /// The length in bytes.
    pub len: u64,
    /// The modification time, in seconds since the Unix epoch.
    pub modified: i64,
    /// The nanoseconds of the modification time.
    pub modified_nanos: u32,
    /// The first 96 bits of a cryptographic hash of the content, if [`Etag::Content`](crate::Etag) requires it and the
    /// driver knows it. If `None`, no entity tag is sent.
    pub digest: Option<[u8; 12]>,
}

/// The kinds of file that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// The progress of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Some entries were pushed; there may be more.
    More,
    /// All entries were pushed.
    End,
}

/// Why an action failed, as far as the response depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsError {
    /// No such file, or one that is never served, such as a FIFO or a device.
    NotFound,
    /// Permission denied, by the system or by the rule for symbolic links. Unlike `NotFound` for an index page, this
    /// prevents the listing of the directory.
    Denied,
    /// Out of descriptors or memory: try again later.
    Exhausted,
    /// Anything else.
    Failed,
}

//! What a driver tells a connection.

/// Something that happened. Bytes from the peer are no input of their own: they are written to
/// [`Window::spare`](crate::Window::spare) and committed; bytes from a script likewise.
///
/// It is exhaustive on purpose, as [`Step`](crate::Step) is: what replays or judges a connection must know every input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The peer has half-closed: nothing more will arrive.
    Eof,
    /// The socket was read as [`Probe`](crate::Step::Probe) asks, and what was there, if anything, is in the window.
    Probed,
    /// So many bytes of the last [`Transmit`](crate::Transmit) went out, counted over head, body and tail.
    Sent(u64),
    /// So many bytes of the last `Feed` went to the script.
    Fed(u64),
    /// The socket takes no more for now.
    Blocked,
    /// The next bytes of the file are not in memory, and the driver has them read: nothing is sent until
    /// [`FileReady`](Input::FileReady), and the peer is not to blame for the time that takes.
    FilePending,
    /// They are there.
    FileReady,
    /// The script takes no more for now.
    FeedBlocked,
    /// The socket takes bytes again.
    Writable,
    /// The script takes bytes again.
    Feedable,
    /// The script takes no more at all: it has closed its input or is gone, or the disk is full.
    FeedEnd,
    /// The bodies that are kept for scripts take all the room that they may.
    SpoolFull,
    /// The script's output is complete: it has closed it, or it has ended and nothing is left to read.
    ScriptEof,
    /// The script that counted as spawned was not run after all. It has said nothing.
    ScriptFailed(SpawnError),
    /// An action is done. A ticket that is not the latest one is ignored.
    Done(Ticket, Completion),
    /// The handler wants to be called: something that it waited for has happened.
    Wake,
    /// The connection is beyond use: it was reset, or the file ran short.
    Broken(Fault),
    /// There is no memory to be had ([`Memory`](crate::Memory)): in the next poll, nothing grows. Told by who plays a
    /// recording; a driver gives the memory to the connection's [`Buffers`](crate::Buffers) and need not tell.
    Scarce,
    /// The server will go down and goes on until then: [`Config::health`](crate::Config::health) is answered 503.
    Leave,
    /// The server is going down: finish the current exchange, then close.
    Drain,
    /// The bound of a shutdown has passed, or the connection is closed to make room for another: close now.
    Cut,
}

/// Names one action of one connection, so that a late answer cannot hit another exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket(pub(crate) u32);

impl Ticket {
    /// The ticket of this number, from a record of what happened.
    #[must_use]
    pub fn numbered(number: u32) -> Ticket {
        Ticket(number)
    }

    /// The bare number, for a record of what happened.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Why a connection is beyond use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer reset the connection or went away.
    Peer,
    /// The file became shorter than the length that was announced.
    FileShrank,
    /// The file was rewritten while it was sent.
    FileChanged,
    /// The system failed to read the file.
    File,
    /// The handler failed after its head had gone out.
    Handler,
}

/// How an [`Action`](crate::Action) ended.
///
/// It is exhaustive on purpose, as [`Action`](crate::Action) is: whoever answers or replays actions must know all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Of `Open` and `OpenIn`.
    Opened(Result<Opened, FsError>),
    /// Of `List`.
    Listed(Result<Listed, FsError>),
    /// Of `Find`.
    Found(Result<Found, FsError>),
    /// Of `Spool`.
    Spooled(Result<(), FsError>),
    /// Of `Spawn`.
    Spawned(Result<(), SpawnError>),
}

/// What a path leads to below a directory of scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How much of the path names the script; what is left is `PATH_INFO`.
    pub len: usize,
    /// What stands there.
    pub what: ScriptFile,
}

/// What stands where a script should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptFile {
    /// A regular file that may be executed.
    Runnable,
    /// Nothing.
    Missing,
    /// A directory, or something that is no file.
    NotPlain,
    /// A regular file that may not be executed.
    NotExecutable,
}

/// Why a script does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// As many scripts run as may: try again later.
    Busy,
    /// Out of descriptors, processes or memory: try again later.
    Exhausted,
    /// The system does not permit it, or privileges could not be given up.
    Denied,
    /// The system cannot execute it, for instance because its interpreter is missing.
    Failed,
}

/// What was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A regular file or a directory; drivers answer anything else with [`FsError::NotFound`].
    pub kind: Kind,
    /// Length in bytes.
    pub len: u64,
    /// Time of the last modification: seconds since the Unix epoch.
    pub modified: i64,
    /// Time of the last modification: nanoseconds of the second.
    pub modified_nanos: u32,
    /// The first 96 bits of a cryptographic hash of the content, where [`Etag::Content`](crate::Etag) asks for one
    /// and the driver knows it. `None`: there is no entity tag then.
    pub digest: Option<[u8; 12]>,
}

/// The two kinds of file that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// How far a listing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Some entries were pushed; there may be more.
    More,
    /// All entries were pushed.
    End,
}

/// Why an action failed, as far as an answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsError {
    /// No such file, or not one that is served: a FIFO, a device.
    NotFound,
    /// It may not be read: the system denies it, or the rule for symbolic links does. Unlike with `NotFound`, a
    /// page that stands for a directory is there, so that the directory is not listed.
    Denied,
    /// Out of descriptors or memory: try again later.
    Exhausted,
    /// Anything else.
    Failed,
}

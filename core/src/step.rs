//! What a connection asks its driver to do.

use std::time::Duration;

use crate::buffers::Window;
use crate::entry::Entry;
use crate::input::Ticket;
use crate::listing::Listing;
use crate::tables::named;
use crate::time::Tick;

/// The next thing that a driver has to do. `Send`, `Feed`, `Probe` and `Wait` are repeated until the driver passes a
/// result; the others are returned once.
///
/// It is exhaustive on purpose: a driver cannot skip a step that it does not know, so the compiler should report it.
///
/// ```
/// use sanserve_core::{Buffers, Config, Connection, Context, DefaultPolicy, Now, Peer, Step, Tick, Wall};
///
/// let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
/// let (mut connection, mut buf) = (Connection::new(peer, &cx), Buffers::new());
///
/// // Nothing has arrived: the driver has to wait for bytes, until the deadline at most.
/// let Step::Wait(wait) = connection.poll(&mut buf, &cx) else { panic!() };
/// assert!(wait.need.read && wait.deadline.is_some());
///
/// // A request without a host is refused. The driver has to send the response, and to say how much of it was accepted.
/// buf.input.fill(b"GET / HTTP/1.1\r\n\r\n");
/// let Step::Send(transmit) = connection.poll(&mut buf, &cx) else { panic!() };
/// assert!(transmit.head.starts_with(b"HTTP/1.1 400 "));
/// ```
#[must_use]
#[derive(Debug)]
pub enum Step<'a> {
    /// Send to the socket. Pass `Sent`, `Blocked` or `Broken`, or `FilePending` if the body is a part of a file that
    /// has to be read first.
    Send(Transmit<'a>),
    /// Write to the input of the script, or to the file that was created for `Spool`. Pass `Fed`, `FeedBlocked` or
    /// `FeedEnd`.
    Feed(&'a [u8]),
    /// Carry out an action on the file system or a process. Pass `Done(ticket, ..)`, unless the action has no result.
    Act(Ticket, Action<'a>),
    /// Call the handler with this and the [`Reply`](crate::Reply) of the connection.
    Call(Call),
    /// An exchange is finished: log it, and release its file, directory and script.
    Finished(Entry<'a>),
    /// Read the socket once, without blocking, into this window, which has room. Pass [`Probed`](crate::Input::Probed),
    /// with or without new bytes, `Eof` or `Broken`.
    ///
    /// Returned before a timer that waits for the peer fires, and before a draining connection closes, so that bytes
    /// that have arrived by then count even if the driver is late.
    Probe(&'a mut Window),
    /// Wait until something happens. The only step that ends a turn.
    Wait(Wait),
    /// Half-close the socket for writing and keep reading.
    /// RFC 9112 section 9.6: "servers typically close a connection in stages. First, the server performs a half-close
    /// by closing only the write side of the read/write connection."
    Shut,
    /// Close the connection. No step follows.
    Close(Close),
}

impl Step<'_> {
    /// Whether the step, or the poll after it, takes much longer than others: a batch of directory entries has to be
    /// sorted, or the next piece of a page has to be made. A driver of many connections carries out such a step for one
    /// connection at a time and lets the others go first, so that a small request waits for at most one of them,
    /// however many listings are requested at once.
    #[must_use]
    pub fn is_long(&self) -> bool {
        match self {
            Step::Act(_, Action::List { .. }) => true,
            Step::Send(transmit) => transmit.more && transmit.body == Body::None,
            _ => false,
        }
    }
}

/// Bytes to send, in this order: `head`, `body`, `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The first part.
    pub head: &'a [u8],
    /// The second part.
    pub body: Body<'a>,
    /// The third part.
    pub tail: &'a [u8],
    /// More will follow immediately (for `MSG_MORE`).
    pub more: bool,
}

impl Transmit<'_> {
    /// The total number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        let body = match self.body {
            Body::None => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { len, .. } => len,
        };
        self.head.len() as u64 + body + self.tail.len() as u64
    }

    /// Whether there is nothing to send. Never true in a step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The middle of a [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A part of the file that the driver opened for this exchange.
    File {
        /// Where it begins.
        offset: u64,
        /// Its length; never 0.
        len: u64,
    },
}

/// Something only a driver can do.
///
/// It is exhaustive on purpose, like [`Step`].
#[derive(Debug)]
pub enum Action<'a> {
    /// Open a file or directory below the root and keep it open until `Finished`. The path has no leading `/`, no
    /// empty, `.` or `..` segment, and no NUL; it is empty for the root itself.
    Open {
        /// The path: any bytes except NUL.
        path: &'a [u8],
    },
    /// Open a regular file in the open directory. For anything else, the result is
    /// [`FsError::NotFound`](crate::FsError::NotFound).
    OpenIn {
        /// The path relative to that directory.
        path: &'a [u8],
    },
    /// Push some entries of the open directory.
    List {
        /// The listing to push to.
        into: &'a mut Listing,
    },
    /// Find the script that a path refers to: descend while segments are directories. The first segment that is not a
    /// directory is the script, or does not exist. Nothing is kept open.
    Find {
        /// The path below the root, resolved. It may end with a slash.
        path: &'a [u8],
        /// Where the first segment to look at begins. The part before it is a directory, or does not exist.
        from: usize,
    },
    /// Create a temporary file without a name. The bytes of `Feed` are written to it, and the script that is spawned
    /// next reads it.
    Spool,
    /// Run a script, and keep it until `Finished` or until another one is run.
    Spawn(Script<'a>),
    /// The whole body has been fed: close the input of the script. Has no result.
    EndInput,
    /// Write these lines to the log of the server: errors in what a script has printed. Each begins with the path of
    /// the script, ends with LF, and contains no control characters; at most 17 lines of some 400 bytes for each
    /// script. Has no result.
    Log {
        /// The lines.
        lines: &'a [u8],
    },
    /// Terminate the script and its children: SIGTERM, then SIGKILL after the `grace` of the script. Has no result.
    Kill,
}

/// A script to run (RFC 3875).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Script<'a> {
    /// The path below the root, as found by `Find`. Its directory becomes the working directory.
    pub path: &'a [u8],
    /// Where its input comes from.
    pub input: ScriptInput,
    /// The time limit for the script. `poll` enforces it; if the exchange ends before the script does, the owner of the
    /// process has to enforce it.
    pub time: Duration,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The number of bytes that the script may print after its exchange has ended, when they can no longer be sent. The
    /// owner of the process terminates a script that prints more.
    pub drain: u64,
    /// The path below the root that `PATH_INFO` refers to: `PATH_TRANSLATED` is this path appended to the root. It
    /// preserves empty segments and a final slash of `PATH_INFO`.
    pub translated: Option<&'a [u8]>,
    pub(crate) arguments: &'a [u8],
    pub(crate) environment: &'a [u8],
}

impl<'a> Script<'a> {
    /// The arguments after the name of the script (RFC 3875 section 4.4).
    pub fn arguments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        items(self.arguments)
    }

    /// The variables (RFC 3875 section 4.1, and those that other servers set) with their values, except for those that
    /// only the driver knows: `PATH_TRANSLATED`, `DOCUMENT_ROOT`, `SCRIPT_FILENAME` and `SERVER_ADDR`. `SERVER_NAME` is
    /// missing if neither the request nor [`Config::server_name`](crate::Config) specifies it, or if the latter is a
    /// wildcard address. Then it is `SERVER_ADDR`, with an IPv6 address in brackets.
    pub fn environment(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        items(self.environment).map(|item| {
            let equals = memchr::memchr(b'=', item).unwrap_or(item.len());
            (&item[..equals], item.get(equals + 1..).unwrap_or_default())
        })
    }
}

impl std::fmt::Debug for Script<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({}, {:?})", self.path.escape_ascii(), self.input)
    }
}

fn items(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == 0).map(|item| item.strip_suffix(b"\0").unwrap_or(item))
}

/// Where a script reads its input from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptInput {
    /// It has no input.
    Empty,
    /// From `Feed`, as it arrives.
    Piped,
    /// From the file that was created for `Spool`, from its start.
    Spooled,
}

named! {
    /// Why a handler is called.
    ///
    /// It is exhaustive on purpose: a handler may ignore a call, but should do so explicitly.
    ///
    /// ```
    /// use sanserve_core::{Call, HandlerError, Reply, StatusCode};
    ///
    /// /// Waits for a `Wake`, or for the server to shut down.
    /// fn news(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    ///     match call {
    ///         Call::Request => { /* hands `reply.waker()` to whoever has the news */ }
    ///         Call::Wake if reply.is_unanswered() => reply.answer(StatusCode::OK, "text/plain", "news\n")?,
    ///         Call::Drain => reply.answer(StatusCode::OK, "text/plain", "no news\n")?,
    ///         Call::Wake | Call::Body | Call::Room | Call::Over => {}
    ///     }
    ///     Ok(())
    /// }
    /// # let _: fn(Call, &mut Reply<'_>) -> Result<(), HandlerError> = news;
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    Call {
        /// A request has arrived. Once per exchange, first.
        Request = "request",
        /// [`Reply::receive`](crate::Reply::receive) returned `Pending`, and now more of the body, or its end, is
        /// available.
        Body = "body",
        /// [`Reply::write`](crate::Reply::write) accepted only a part, and now there is room.
        Room = "room",
        /// The driver passed an [`Input::Wake`](crate::Input::Wake).
        Wake = "wake",
        /// The server is shutting down: a response that waits for something else, or has no end, should end before the
        /// grace period is over. Once per exchange: when draining begins, or, if it has begun already, immediately after
        /// `Request`, unless the response is complete by then.
        Drain = "drain",
        /// The exchange has ended, for any reason. Once per exchange, last, unless the handler has passed the request on.
        /// The reply accepts nothing more.
        Over = "over",
    }
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The events that matter. Other inputs may be passed too; they are recorded.
    pub need: Need,
    /// When to poll again at the latest. It is later than now.
    pub deadline: Option<Tick>,
    /// Whether the connection is between exchanges and nothing is buffered, so that the [`Buffers`](crate::Buffers) may
    /// serve other connections meanwhile.
    pub idle: bool,
}

/// The events that a waiting connection needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes from the peer: there is room in `Buffers::input`.
    pub read: bool,
    /// Room in the socket.
    pub write: bool,
    /// Bytes from the script, for `Buffers::script`, or the end of them.
    pub script_read: bool,
    /// Room in the script's input.
    pub script_write: bool,
    /// The result of an action, or [`Input::FileReady`](crate::Input::FileReady).
    pub completion: bool,
    /// The handler: [`Input::Wake`](crate::Input::Wake).
    pub handler: bool,
}

named! {
    /// Why a connection closes. More reasons may be added.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    Close {
        /// The last response is complete, and the peer or the response asked to close.
        Done = "done",
        /// The peer was silent between exchanges for longer than `timeouts.keep_alive`.
        Idle = "idle",
        /// The peer was too slow, or did not stop sending.
        Timeout = "timeout",
        /// The connection broke, or a response could not be completed.
        Broken = "broken",
        /// The server is shutting down.
        Drained = "drained",
        /// The response was 101: the socket belongs to the handler now, together with the unread bytes in `Buffers::input`
        /// (RFC 9110 section 7.8). It must not be closed.
        Upgraded = "upgraded",
    }
}

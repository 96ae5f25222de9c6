//! What a connection wants of its driver.

use std::time::Duration;

use crate::buffers::Window;
use crate::entry::Entry;
use crate::input::Ticket;
use crate::listing::Listing;
use crate::time::Tick;

/// The next thing to do. `Send`, `Feed`, `Probe` and `Wait` repeat until they are answered; the others come once.
///
/// It is exhaustive on purpose: a driver that does not know a step cannot go on, so its compiler is to say so.
#[must_use]
#[derive(Debug)]
pub enum Step<'a> {
    /// Send to the socket; answer with `Sent`, `Blocked` or `Broken`, or with `FilePending` if the body is a part of a
    /// file that has to be read first.
    Send(Transmit<'a>),
    /// Write to the script's input, or to the file that `Spool` made; answer with `Fed`, `FeedBlocked`
    /// or `FeedEnd`.
    Feed(&'a [u8]),
    /// Do something with the file system or a process; answer with `Done(ticket, ..)` unless it has no answer.
    Act(Ticket, Action<'a>),
    /// Call the handler with this and the connection's [`Reply`](crate::Reply).
    Call(Call),
    /// An exchange is over: log it, release its file, directory and script.
    Finished(Entry<'a>),
    /// Read the socket once, without waiting, into this window, which has room. Answer with
    /// [`Probed`](crate::Input::Probed) whether bytes came or not, with `Eof` or with `Broken`.
    ///
    /// It comes before a timer that waits for the peer fires, and before a connection closes because the server
    /// drains: what has arrived by then is seen, however late the driver is.
    Probe(&'a mut Window),
    /// Nothing to do until something happens. The only step that ends a turn.
    Wait(Wait),
    /// Half-close the socket for writing and go on reading (RFC 9112 section 9.6).
    Shut,
    /// Close the connection. Nothing comes after it.
    Close(Close),
}

impl Step<'_> {
    /// Whether it stands for far more work than others, in itself or in the poll after it: a batch of directory
    /// entries, which is sorted, and a piece of a page, after which the next piece is made. A driver of many connections
    /// lets the others go first after it, and carries out such steps of one connection at a time, so that a
    /// small request waits for one of them at most, however many listings are asked for at once.
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
    /// First.
    pub head: &'a [u8],
    /// Second.
    pub body: Body<'a>,
    /// Third.
    pub tail: &'a [u8],
    /// More will follow at once (for `MSG_MORE`).
    pub more: bool,
}

impl Transmit<'_> {
    /// The number of bytes in all three parts.
    #[must_use]
    pub fn len(&self) -> u64 {
        let body = match self.body {
            Body::None => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { len, .. } => len,
        };
        self.head.len() as u64 + body + self.tail.len() as u64
    }

    /// Whether there is nothing to send. Never so in a step.
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
        /// How long it is; never 0.
        len: u64,
    },
}

/// Something only a driver can do.
///
/// It is exhaustive on purpose, as [`Step`] is.
#[derive(Debug)]
pub enum Action<'a> {
    /// Open a file or directory beneath the root and hold it until `Finished`. The path has no
    /// leading `/`, no empty, `.` or `..` component, no NUL; it is empty for the root itself.
    Open {
        /// The path: any bytes but NUL.
        path: &'a [u8],
    },
    /// Open a regular file in the directory that is held; anything else is [`FsError::NotFound`](crate::FsError::NotFound).
    OpenIn {
        /// The path below that directory.
        path: &'a [u8],
    },
    /// Push some entries of the directory that is held.
    List {
        /// Where they go.
        into: &'a mut Listing,
    },
    /// Find the script that a path leads to: descend while components are directories; the first
    /// one that is not is the script, or nothing at all. Nothing is opened for good.
    Find {
        /// The path below the root, resolved; it may end with a slash.
        path: &'a [u8],
        /// Where the first component to look at begins; what stands before it is a directory or nothing.
        from: usize,
    },
    /// Make a temporary file without a name. What `Feed` brings goes there, and the script that is
    /// spawned next reads it.
    Spool,
    /// Run a script, and hold what it takes until `Finished` or until another one is run.
    Spawn(Script<'a>),
    /// The whole body has been fed: close the script's input. Has no answer.
    EndInput,
    /// Write these lines to the server's log: what is wrong with what a script has printed. Each begins with the
    /// script's path and ends with LF, and none has a control character in it; 17 lines of some 400 bytes at most for
    /// one script. Has no answer.
    Log {
        /// The lines.
        lines: &'a [u8],
    },
    /// End the script and its children: SIGTERM, and SIGKILL after the script's `grace`. Has no answer.
    Kill,
}

/// A script to be run (RFC 3875).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Script<'a> {
    /// The path below the root, as `Find` has found it. Its directory is to be the working directory.
    pub path: &'a [u8],
    /// Where its input comes from.
    pub input: ScriptInput,
    /// The longest time that it may live. `poll` ends it in time; if its exchange ends before it
    /// does, whoever holds the process does.
    pub time: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Bytes that it may go on to print when its exchange has let go of it, and nothing of them can be sent; then
    /// whoever holds the process ends it.
    pub drain: u64,
    /// The path below the root that `PATH_INFO` means: `PATH_TRANSLATED` is that path beneath the
    /// root's own. Empty components of it are `PATH_INFO`'s, and so is a slash at its end.
    pub translated: Option<&'a [u8]>,
    pub(crate) arguments: &'a [u8],
    pub(crate) environment: &'a [u8],
}

impl<'a> Script<'a> {
    /// `arguments` and `environment` hold items that each end with NUL.
    pub(crate) fn new(path: &'a [u8], arguments: &'a [u8], environment: &'a [u8]) -> Script<'a> {
        Script {
            path,
            input: ScriptInput::Empty,
            time: Duration::ZERO,
            grace: Duration::ZERO,
            drain: 0,
            translated: None,
            arguments,
            environment,
        }
    }

    /// The arguments after the script's own name (RFC 3875 section 4.4).
    pub fn arguments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        items(self.arguments)
    }

    /// The variables (RFC 3875 section 4.1, and what other servers set), name and value, but for those that only the
    /// driver knows: `PATH_TRANSLATED`, `DOCUMENT_ROOT`, `SCRIPT_FILENAME` and `SERVER_ADDR`. `SERVER_NAME` is missing
    /// where neither the request nor [`Config::server_name`](crate::Config) names the server, or only as all of its
    /// addresses: it is `SERVER_ADDR` then, an IPv6 address in brackets.
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

/// Where a script's input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptInput {
    /// There is none.
    Empty,
    /// From `Feed`, as it arrives.
    Piped,
    /// From the file that `Spool` made, from its start.
    Spooled,
}

/// Why a handler is called.
///
/// It is exhaustive on purpose: a handler may ignore a call, but should do so knowingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A request is there. Once per exchange, first.
    Request,
    /// [`Reply::receive`](crate::Reply::receive) said `Pending`, and now there is more of the body, or its end.
    Body,
    /// [`Reply::write`](crate::Reply::write) took less than all, and now there is room.
    Room,
    /// The driver passed on an [`Input::Wake`](crate::Input::Wake).
    Wake,
    /// The server goes down: what waits for something else, or has no end, should come to one before the grace is
    /// over. Once per exchange: when that begins, or, where it has begun already, right after `Request`, if the
    /// answer is not complete by then.
    Drain,
    /// The exchange is over, in whatever way. Once per exchange, last, unless the handler has passed it
    /// on; the reply takes nothing more.
    Over,
}

/// Invariant: the table has all of them in their order.
const _: () = {
    let mut at = 0;
    while at < Call::TABLE.len() {
        assert!(Call::TABLE[at].1 as usize == at);
        at += 1;
    }
};

impl Call {
    /// Each with the word for it in transcripts.
    pub const TABLE: &[(&'static str, Call)] = &[
        ("request", Call::Request),
        ("body", Call::Body),
        ("room", Call::Room),
        ("wake", Call::Wake),
        ("drain", Call::Drain),
        ("over", Call::Over),
    ];

    /// The word for it in transcripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        Call::TABLE[self as usize].0
    }
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The events that matter. Others may be told too; they are noted.
    pub need: Need,
    /// When to poll again at the latest; later than now.
    pub deadline: Option<Tick>,
    /// Between exchanges, with nothing buffered: the [`Buffers`](crate::Buffers) may serve others meanwhile.
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
    /// An answer to an action, or [`Input::FileReady`](crate::Input::FileReady).
    pub completion: bool,
    /// The handler: [`Input::Wake`](crate::Input::Wake).
    pub handler: bool,
}

/// Why a connection closes. There will be more reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// All is said: the peer or the answer asked for it.
    Done,
    /// The peer was silent between exchanges for longer than `timeouts.keep_alive`.
    Idle,
    /// The peer was too slow, or did not stop sending.
    Timeout,
    /// The connection broke, or an answer could not be completed.
    Broken,
    /// The server goes down.
    Drained,
    /// The answer was 101: the socket is the handler's from here on, together with what lies unread in
    /// `Buffers::input` (RFC 9110 section 7.8). It is not to be closed.
    Upgraded,
}

/// Invariant: the table has all of them in their order.
const _: () = {
    let mut at = 0;
    while at < Close::TABLE.len() {
        assert!(Close::TABLE[at].1 as usize == at);
        at += 1;
    }
};

impl Close {
    /// Each with the word for it in transcripts.
    pub const TABLE: &[(&'static str, Close)] = &[
        ("done", Close::Done),
        ("idle", Close::Idle),
        ("timeout", Close::Timeout),
        ("broken", Close::Broken),
        ("drained", Close::Drained),
        ("upgraded", Close::Upgraded),
    ];

    /// The word for it in transcripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        Close::TABLE[self as usize].0
    }
}

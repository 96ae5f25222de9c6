//! A transcript and its events, as values.

use sanserve_core::{
    Action, Body, Call, Close, EntryKind, Fault, Found, FsError, Input, Listed, Opened, ScriptInput, SpawnError, Step,
    Wait, Wall,
};

use crate::settings::Settings;

/// One connection, from its first poll to its last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// The comments before the first event or setting, without their `#`.
    pub about: Vec<String>,
    /// The configuration and environment, as far as they differ from the defaults.
    pub settings: Settings,
    /// What happened, in order.
    pub lines: Vec<Line>,
}

/// One line, including its continuation lines.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An empty line.
    Blank,
    /// A comment, without its `#`.
    Comment(String),
    /// An event.
    Event(Event),
}

/// An event at a point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The time in milliseconds, monotonic.
    pub at: u64,
    /// Whether an input arrived in the middle of a turn: since the previous input, the connection was only polled for
    /// the steps between the two. Without any steps, both inputs arrived together.
    pub joined: bool,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Input: bytes arrived. They are read when a step asks for them.
    Recv(Vec<u8>),
    /// Not an input: time has passed, and the driver polls.
    Tick,
    /// Not an input: the calendar is set to this second. Also used if the seconds of a driver's calendar do not begin
    /// at multiples of 1,000 ticks.
    Clock(Wall),
    /// Any other input. `Eof` takes effect after the bytes that were received before.
    Input(Input),
    /// Step: bytes to send, and how many the socket accepted.
    Send(Sending),
    /// Step: open a file below the root, and the result.
    Open {
        /// The path: any bytes except NUL.
        path: Vec<u8>,
        /// Whether it is relative to the open directory (`open-in`).
        inside: bool,
        /// The result; `None` if it comes later.
        answer: Option<Result<Opened, FsError>>,
    },
    /// Step: list the open directory, and the result.
    List {
        /// The entries that are pushed immediately.
        entries: Vec<(Vec<u8>, EntryKind)>,
        /// The result; `None` if it comes later.
        answer: Option<Result<Listed, FsError>>,
    },
    /// Input: bytes arrived from the script. They are read when a step asks for them.
    Script(Vec<u8>),
    /// Step: find a script, and the result.
    Find {
        /// The path below the root.
        path: Vec<u8>,
        /// Where the first segment to look at begins.
        from: usize,
        /// The result; `None` if it comes later.
        answer: Option<Result<Found, FsError>>,
    },
    /// Step: create a file for the body, and the result.
    Spool {
        /// The result; `None` if it comes later.
        answer: Option<Result<(), FsError>>,
    },
    /// Step: run a script, and the result.
    Spawn {
        /// The arguments of the spawn.
        told: Told,
        /// The result; `None` if it comes later.
        answer: Option<Result<(), SpawnError>>,
    },
    /// Step: bytes for the script, and how many it read.
    Feed {
        /// The bytes.
        bytes: Vec<u8>,
        /// How many of them it read; `None` for all.
        taken: Option<u64>,
        /// What happened next.
        then: FeedThen,
    },
    /// Step: close the input of the script.
    EndInput,
    /// Step: terminate the script.
    Kill,
    /// Step: lines for the log of the server.
    Log(Vec<u8>),
    /// Step: call the handler.
    Call(Call),
    /// Step: an exchange is finished.
    Finished(Finish),
    /// Step: read the socket once, without blocking.
    Probe {
        /// The bytes that were available.
        bytes: Vec<u8>,
        /// What happened next.
        then: ProbeThen,
    },
    /// Step: wait.
    Wait(Wait),
    /// Step: half-close.
    Shut {
        /// Whether the driver could not, because it still held bytes that the socket did not accept.
        blocked: bool,
    },
    /// Step: close the connection.
    Close {
        /// The reason.
        close: Close,
        /// Whether the driver could not yet, as for `Shut`.
        blocked: bool,
    },
}

/// A `Send` step, and how much of it the socket accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// The first part.
    pub head: Vec<u8>,
    /// The second part.
    pub body: Middle,
    /// The third part.
    pub tail: Vec<u8>,
    /// Whether more follows immediately.
    pub more: bool,
    /// How much the socket accepted.
    pub taken: Taken,
    /// If set, only this status is compared, as in `send 400 ..`. It stands for any step that begins a response with
    /// this status. The bytes are present after a replay, but not after parsing.
    pub elided: Option<u16>,
}

/// The middle of a [`Sending`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Middle {
    /// Nothing.
    #[default]
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A part of the file that the driver has opened.
    File {
        /// Where it begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
}

/// How much of a `Send` the socket accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The number of bytes; `None` for all of them.
    pub bytes: Option<u64>,
    /// What happened next.
    pub then: Then,
}

/// How a script is spawned. Its time limits are in [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The path below the root.
    pub path: Vec<u8>,
    /// Where its input comes from.
    pub input: ScriptInput,
    /// The part of `PATH_TRANSLATED` below the root.
    pub translated: Option<Vec<u8>>,
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The environment, as `NAME=VALUE`.
    pub environment: Vec<Vec<u8>>,
}

impl From<sanserve_core::Script<'_>> for Told {
    fn from(script: sanserve_core::Script<'_>) -> Told {
        Told {
            path: script.path.to_vec(),
            input: script.input,
            translated: script.translated.map(<[u8]>::to_vec),
            arguments: script.arguments().map(<[u8]>::to_vec).collect(),
            environment: script.environment().map(|(name, value)| [name, b"=", value].concat()).collect(),
        }
    }
}

/// What happened after the script had read some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedThen {
    /// The driver polls again.
    #[default]
    Poll,
    /// `FeedBlocked`.
    Blocked,
    /// `FeedEnd`.
    End,
    /// `SpoolFull`.
    Full,
}

/// What happened after the socket had accepted some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// The driver polls again.
    #[default]
    Poll,
    /// `Blocked`.
    Blocked,
    /// `FilePending`.
    Pending,
    /// `Broken`.
    Broken(Fault),
}

/// What happened after a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeThen {
    /// The driver polls again.
    #[default]
    Poll,
    /// No result yet: `Probed` comes later.
    Later,
    /// `Eof`.
    Eof,
    /// `Broken`.
    Broken(Fault),
}

/// An owned log entry, without the peer, which is in [`Settings`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// The status; 0 if there was no response.
    pub status: u16,
    /// The number of bytes of the body that were sent.
    pub sent: u64,
    /// The request line.
    pub line: Vec<u8>,
    /// The message of an error response.
    pub error: Option<Vec<u8>>,
    /// Why the response was cut short.
    pub cut: Option<String>,
}

impl Transcript {
    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        self.lines.push(Line::Event(event));
    }

    /// The events, without comments.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.lines.iter().filter_map(|line| match line {
            Line::Event(event) => Some(event),
            _ => None,
        })
    }

    /// All comments.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        let inside = self.lines.iter().filter_map(|line| match line {
            Line::Comment(text) => Some(text.as_str()),
            _ => None,
        });
        self.about.iter().map(String::as_str).chain(inside)
    }
}

impl What {
    /// Whether this is an input of the connection; otherwise it is a step.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, What::Recv(_) | What::Script(_) | What::Tick | What::Clock(_) | What::Input(_))
    }

    /// The event of a step that was completely accepted, without its result. The entries of a listing are not known
    /// yet.
    #[must_use]
    pub fn of(step: &Step<'_>) -> What {
        match step {
            Step::Send(transmit) => What::Send(Sending {
                head: transmit.head.to_vec(),
                body: match transmit.body {
                    Body::None => Middle::None,
                    Body::Bytes(bytes) => Middle::Bytes(bytes.to_vec()),
                    Body::File { offset, len } => Middle::File { offset, len },
                },
                tail: transmit.tail.to_vec(),
                more: transmit.more,
                taken: Taken::default(),
                elided: None,
            }),
            Step::Feed(bytes) => What::Feed { bytes: bytes.to_vec(), taken: None, then: FeedThen::Poll },
            Step::Act(_, action) => match action {
                Action::Open { path } => What::Open { path: path.to_vec(), inside: false, answer: None },
                Action::OpenIn { path } => What::Open { path: path.to_vec(), inside: true, answer: None },
                Action::Find { path, from } => What::Find { path: path.to_vec(), from: *from, answer: None },
                Action::Spool => What::Spool { answer: None },
                Action::Spawn(script) => What::Spawn { told: (*script).into(), answer: None },
                Action::EndInput => What::EndInput,
                Action::Kill => What::Kill,
                Action::Log { lines } => What::Log(lines.to_vec()),
                Action::List { .. } => What::List { entries: Vec::new(), answer: None },
            },
            Step::Call(call) => What::Call(*call),
            Step::Finished(entry) => What::Finished(Finish {
                status: entry.status,
                sent: entry.sent,
                line: entry.line.to_vec(),
                error: entry.error.map(<[u8]>::to_vec),
                cut: entry.cut.map(str::to_owned),
            }),
            Step::Probe(_) => What::Probe { bytes: Vec::new(), then: ProbeThen::Poll },
            Step::Wait(wait) => What::Wait(*wait),
            Step::Shut => What::Shut { blocked: false },
            Step::Close(close) => What::Close { close: *close, blocked: false },
        }
    }

    /// Whether both are the same kind of step.
    #[must_use]
    pub fn is_like(&self, other: &What) -> bool {
        match (self, other) {
            (What::Open { inside: a, .. }, What::Open { inside: b, .. }) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

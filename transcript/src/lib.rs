//! Transcripts: the whole history of one connection of `sanserve-core` as text that people read and diff and that
//! machines play. A unit test, a bug report, a recording and a fuzz seed are all the same thing.
//!
//! [`Transcript::parse`] and [`Transcript::to_text`] are inverse; [`perform`] plays the inputs of a
//! transcript to a fresh connection and says what really happened; [`check`] compares the two.
//! [`Script`] plays the same bytes split in any way, [`trace`] shows how the connection stands after each event, and
//! [`record`] makes a transcript of a connection while it lives. `docs/transcripts.md` describes the format.
//!
//! ```
//! use sanserve_core::{Call, DefaultPolicy, Reply};
//! use sanserve_transcript::{Transcript, check};
//!
//! let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close done\n";
//! let transcript = Transcript::parse(text).unwrap();
//! check(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| {}).unwrap();
//! ```
//!
//! What it leaves out: files, sockets and clocks. The disk's answers stand in the transcript.

pub mod driving;
mod mask;
mod play;
mod read;
mod recorder;
mod script;
mod settings;
mod states;
mod write;

use std::fmt;

pub use mask::Secrets;
pub use play::{Difference, Replayed, check, perform};
pub use read::SyntaxError;
pub use recorder::{Recorder, record};
pub use script::{Script, Spoken, Take};
pub use settings::Settings;
pub use states::{Seen, Trace, trace};

use sanserve_core::{
    Action, Body, Call, Close, EntryKind, Fault, Found, FsError, Input, Listed, Opened, ScriptFile, ScriptInput,
    SpawnError, Step, Wait, Wall,
};

/// The first line of every transcript: the format and its version.
pub const FIRST_LINE: &str = "sanserve transcript 1";

/// One connection, from its first poll to its last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// The comments before the first line that is none, without their `#`.
    pub about: Vec<String>,
    /// The rules and the world, as far as they are not the default.
    pub settings: Settings,
    /// What happened, in order.
    pub lines: Vec<Line>,
}

/// One line, with those that continue it.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An empty line.
    Blank,
    /// A comment, without its `#`.
    Comment(String),
    /// Something happened.
    Event(Event),
}

/// Something that happened at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Monotonic milliseconds.
    pub at: u64,
    /// An input that found the connection in the middle of a turn: since the input before it, it was polled for
    /// the steps that stand between them and no further. Without any, both came together.
    pub joined: bool,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Input: bytes arrived. They are read as soon as a step says so.
    Recv(Vec<u8>),
    /// No input: time has passed, and the driver polls.
    Tick,
    /// No input either: the calendar was set to this second. (So it looks, too, if a driver's ticks and its calendar
    /// do not begin their seconds together.)
    Clock(Wall),
    /// Any other input. `Eof` takes effect after the bytes that were received before it.
    Input(Input),
    /// Step: bytes to send, and how the socket took them.
    Send(Sending),
    /// Step: open a file beneath the root, and the disk's answer.
    Open {
        /// Any bytes but NUL.
        path: Vec<u8>,
        /// In the directory that is held (`open-in`).
        inside: bool,
        /// What the disk said; `None`: it says it later.
        answer: Option<Result<Opened, FsError>>,
    },
    /// Step: list the directory that is held, and the disk's answer.
    List {
        /// What is pushed at once.
        entries: Vec<(Vec<u8>, EntryKind)>,
        /// What the disk said; `None`: it says it later.
        answer: Option<Result<Listed, FsError>>,
    },
    /// Input: bytes came from the script. They are read as soon as a step says so.
    Script(Vec<u8>),
    /// Step: find a script, and the disk's answer.
    Find {
        /// The path below the root.
        path: Vec<u8>,
        /// Where the first component to look at begins.
        from: usize,
        /// What the disk said; `None`: it says it later.
        answer: Option<Result<Found, FsError>>,
    },
    /// Step: make a file for the body, and the disk's answer.
    Spool {
        /// What the disk said; `None`: it says it later.
        answer: Option<Result<(), FsError>>,
    },
    /// Step: run a script, and the system's answer.
    Spawn {
        /// What it is told.
        told: Told,
        /// What the system said; `None`: it says it later.
        answer: Option<Result<(), SpawnError>>,
    },
    /// Step: bytes for the script, and how it took them.
    Feed {
        /// The bytes.
        bytes: Vec<u8>,
        /// How many of them it took; `None`: all.
        taken: Option<u64>,
        /// And then.
        then: FeedThen,
    },
    /// Step: close the script's input.
    EndInput,
    /// Step: kill the script.
    Kill,
    /// Step: lines for the server's log.
    Log(Vec<u8>),
    /// Step: the handler is called.
    Call(Call),
    /// Step: an exchange is over.
    Finished(Finish),
    /// Step: read the socket once, without waiting.
    Probe {
        /// What was there.
        bytes: Vec<u8>,
        /// And then.
        then: ProbeThen,
    },
    /// Step: nothing to do.
    Wait(Wait),
    /// Step: half-close.
    Shut {
        /// The driver could not: it still held bytes that the socket did not take.
        blocked: bool,
    },
    /// Step: close.
    Close {
        /// Why.
        close: Close,
        /// The driver could not yet, as above.
        blocked: bool,
    },
}

/// A `Send` step, and how the socket took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// First.
    pub head: Vec<u8>,
    /// Second.
    pub body: Middle,
    /// Third.
    pub tail: Vec<u8>,
    /// More follows at once.
    pub more: bool,
    /// How much of it went out.
    pub taken: Taken,
    /// Only this status is told, and the rest is not the point: `send 400 ..`. It stands for every step that begins an
    /// answer of this status. The bytes are there in what was played, and not in what was read.
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
    /// A part of the driver's file.
    File {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

/// How the socket took a `Send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many bytes; `None`: all of them.
    pub bytes: Option<u64>,
    /// And then.
    pub then: Then,
}

/// What a script is told. How long it may live stands in [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its path below the root.
    pub path: Vec<u8>,
    /// Where its input comes from.
    pub input: ScriptInput,
    /// What `PATH_TRANSLATED` is made of.
    pub translated: Option<Vec<u8>>,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Its environment: `NAME=VALUE`.
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

/// What came after the bytes that a script took.
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

/// What came after the bytes that were taken.
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

/// What came after the bytes that a probe has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeThen {
    /// The driver polls again.
    #[default]
    Poll,
    /// Nothing yet: `Probed` comes later.
    Later,
    /// `Eof`.
    Eof,
    /// `Broken`.
    Broken(Fault),
}

/// A log entry that owns its text; the peer stands in [`Settings`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// The status; 0 if no answer was begun.
    pub status: u16,
    /// Bytes of the body that went out.
    pub sent: u64,
    /// The request line.
    pub line: Vec<u8>,
    /// The message of an error answer.
    pub error: Option<Vec<u8>>,
    /// Why the answer was cut.
    pub cut: Option<String>,
}

impl Transcript {
    /// Reads a transcript.
    pub fn parse(text: &str) -> Result<Transcript, SyntaxError> {
        read::parse(text)
    }

    /// Writes it in its one canonical form.
    #[must_use]
    pub fn to_text(&self) -> String {
        write::transcript(self)
    }

    /// Adds an event after all others.
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

    /// The comments, wherever they stand.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        let inside = self.lines.iter().filter_map(|line| match line {
            Line::Comment(text) => Some(text.as_str()),
            _ => None,
        });
        self.about.iter().map(String::as_str).chain(inside)
    }
}

impl Event {
    /// Appends it in canonical form, without an end of line.
    pub fn write(&self, out: &mut String) {
        write::event(self, out);
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl What {
    /// Whether this is told to the connection; otherwise the connection tells it.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, What::Recv(_) | What::Script(_) | What::Tick | What::Clock(_) | What::Input(_))
    }

    /// What a step is, all of it taken and nothing answered. What is listed is not known yet.
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

// The tables of words: each is written once and serves reading and writing.

const FAULTS: &[(&str, Fault)] = &[
    ("peer", Fault::Peer),
    ("file-shrank", Fault::FileShrank),
    ("file-changed", Fault::FileChanged),
    ("file", Fault::File),
    ("handler", Fault::Handler),
];

const FS_ERRORS: &[(&str, FsError)] = &[
    ("not-found", FsError::NotFound),
    ("denied", FsError::Denied),
    ("exhausted", FsError::Exhausted),
    ("failed", FsError::Failed),
];

const LISTED: &[(&str, Listed)] = &[("more", Listed::More), ("end", Listed::End)];

const INPUTS: &[(&str, Input)] = &[
    ("eof", Input::Eof),
    ("probed", Input::Probed),
    ("blocked", Input::Blocked),
    ("writable", Input::Writable),
    ("file-pending", Input::FilePending),
    ("file-ready", Input::FileReady),
    ("wake", Input::Wake),
    ("scarce", Input::Scarce),
    ("leave", Input::Leave),
    ("drain", Input::Drain),
    ("cut", Input::Cut),
    ("feed-blocked", Input::FeedBlocked),
    ("feedable", Input::Feedable),
    ("feed-end", Input::FeedEnd),
    ("spool-full", Input::SpoolFull),
    ("script-eof", Input::ScriptEof),
    ("script-busy", Input::ScriptFailed(SpawnError::Busy)),
    ("script-exhausted", Input::ScriptFailed(SpawnError::Exhausted)),
    ("script-denied", Input::ScriptFailed(SpawnError::Denied)),
    ("script-failed", Input::ScriptFailed(SpawnError::Failed)),
];

const SCRIPT_FILES: &[(&str, ScriptFile)] = &[
    ("runnable", ScriptFile::Runnable),
    ("missing", ScriptFile::Missing),
    ("not-plain", ScriptFile::NotPlain),
    ("not-executable", ScriptFile::NotExecutable),
];

const SCRIPT_INPUTS: &[(&str, ScriptInput)] =
    &[("empty", ScriptInput::Empty), ("piped", ScriptInput::Piped), ("spooled", ScriptInput::Spooled)];

const SPAWN_ERRORS: &[(&str, SpawnError)] = &[
    ("busy", SpawnError::Busy),
    ("exhausted", SpawnError::Exhausted),
    ("denied", SpawnError::Denied),
    ("failed", SpawnError::Failed),
];

const MARKS: &[(&str, EntryKind)] = &[
    ("", EntryKind::File),
    ("/", EntryKind::Directory),
    ("@", EntryKind::Link { directory: false }),
    ("@/", EntryKind::Link { directory: true }),
];

fn named<T: Clone>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|row| row.0 == word).map(|row| row.1.clone())
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|row| row.1 == *value).map_or("?", |row| row.0)
}

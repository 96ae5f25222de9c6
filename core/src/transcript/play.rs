//! Playing a transcript: a driver whose socket, disk and clock stand in the text.

use std::fmt;

use super::{Event, FeedThen, Finish, Line, Middle, Sending, Taken, Then, Transcript, What, write};
use crate::buffers::Buffers;
use crate::connection::Connection;
use crate::context::{Context, Now, Peer, Tick, Wall};
use crate::handler::Handler;
use crate::input::{Completion, Found, FsError, Input, Listed, ScriptFile};
use crate::site::Site;
use crate::step::{Action, Body, Step, Ticket};

/// More steps than any input can cause.
const MOST_STEPS: usize = 100_000;

/// The first line that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its number in the canonical text.
    pub line: usize,
    /// What the transcript says.
    pub expected: String,
    /// What happened.
    pub actual: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}\n  expected: {}\n  actual:   {}", self.line, self.expected, self.actual)
    }
}

impl std::error::Error for Difference {}

/// Plays the inputs and the answers of a transcript to a fresh connection. The result has the same
/// inputs, answers and comments, and the steps that were really taken.
///
/// Behind each input the connection is polled until it waits; an input that is `joined` to the one
/// before it comes without a poll between them. An action that has no answer in the transcript
/// finds nothing, and a `Send` without one is taken whole.
pub fn perform(transcript: &Transcript, site: &dyn Site, handler: &mut dyn Handler) -> Transcript {
    let mut play = Play::new(transcript, site, handler);
    let mut lines = transcript.lines.as_slice();
    loop {
        let end = next_input(lines);
        let (steps, rest) = lines.split_at(end);
        let joins = matches!(rest.first(), Some(Line::Event(event)) if event.joined);
        play.run(steps, joins);
        let Some((Line::Event(event), rest)) = rest.split_first() else { break };
        if play.closed {
            break;
        }
        play.input(event);
        lines = rest;
    }
    Transcript { lines: play.out, ..transcript.clone() }
}

/// Plays a transcript and compares: the first difference is the error.
pub fn check(transcript: &Transcript, site: &dyn Site, handler: &mut dyn Handler) -> Result<(), Difference> {
    match transcript.first_difference(&perform(transcript, site, handler)) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

impl Transcript {
    /// The first line in which what happened differs from what this says.
    #[must_use]
    pub fn first_difference(&self, actual: &Transcript) -> Option<Difference> {
        let (expected, actual) = (self.to_text(), actual.to_text());
        let (mut expected, mut actual) = (expected.lines(), actual.lines());
        let text = |side: Option<&str>| side.unwrap_or("(the end)").trim_start().to_owned();
        (1..).find_map(|line| match (expected.next(), actual.next()) {
            (Some(e), Some(a)) if e == a => None,
            (None, None) => Some(None),
            (e, a) => Some(Some(Difference { line, expected: text(e), actual: text(a) })),
        })?
    }
}

/// How many lines come before the next input.
fn next_input(lines: &[Line]) -> usize {
    let is_input = |line: &Line| matches!(line, Line::Event(event) if event.what.is_input());
    lines.iter().position(is_input).unwrap_or(lines.len())
}

struct Play<'p> {
    transcript: &'p Transcript,
    site: &'p dyn Site,
    handler: &'p mut dyn Handler,
    connection: Connection,
    buf: Buffers,
    now: Now,
    /// Received and not yet read.
    pending: Vec<u8>,
    eof: bool,
    reads: bool,
    /// Said by the script and not yet read.
    said: Vec<u8>,
    script_eof: bool,
    hears: bool,
    closed: bool,
    out: Vec<Line>,
}

impl<'p> Play<'p> {
    fn new(transcript: &'p Transcript, site: &'p dyn Site, handler: &'p mut dyn Handler) -> Play<'p> {
        let settings = &transcript.settings;
        let now = Now::new(Tick(0), settings.wall);
        let cx = Context { config: &settings.config, site, now: &now };
        let connection = Connection::new(Peer::from(settings.peer), &cx);
        Play {
            transcript,
            site,
            handler,
            connection,
            buf: Buffers::new(),
            now,
            pending: Vec::new(),
            eof: false,
            reads: true,
            said: Vec::new(),
            script_eof: false,
            hears: false,
            closed: false,
            out: Vec::new(),
        }
    }

    fn input(&mut self, event: &Event) {
        self.out.push(Line::Event(event.clone()));
        let tick = Tick(event.at.max(self.now.tick.0));
        let wall = self.transcript.settings.wall.0 + i64::try_from(tick.0 / 1000).unwrap_or(i64::MAX);
        self.now.advance(tick, Wall(wall));
        match &event.what {
            What::Recv(bytes) => self.pending.extend_from_slice(bytes),
            What::Input(Input::Eof) => self.eof = true,
            What::Script(bytes) => self.said.extend_from_slice(bytes),
            What::Input(Input::ScriptEof) => self.script_eof = true,
            What::Input(input) => self.connection.handle(input.clone()),
            _ => {}
        }
        self.read();
    }

    /// Hands in what was received, as a driver that was told to read.
    fn read(&mut self) {
        if self.reads && !self.pending.is_empty() {
            let n = self.buf.input.fill(&self.pending);
            self.pending.drain(..n);
        }
        if self.pending.is_empty() && std::mem::take(&mut self.eof) {
            self.connection.handle(Input::Eof);
        }
        if self.hears && !self.said.is_empty() {
            let n = self.buf.script.fill(&self.said);
            self.said.drain(..n);
        }
        if self.said.is_empty() && std::mem::take(&mut self.script_eof) {
            self.connection.handle(Input::ScriptEof);
        }
    }

    /// Whether nothing more can be handed in before the next input.
    fn is_idle(&self) -> bool {
        (self.pending.is_empty() || !self.reads) && (self.said.is_empty() || !self.hears)
    }

    /// Polls until the connection waits; `steps` are what the transcript says about it.
    fn run(&mut self, steps: &[Line], joins: bool) {
        let mut script = Steps { lines: steps };
        for _ in 0..MOST_STEPS {
            if joins || self.closed {
                break;
            }
            let (what, ticket) = self.poll(&mut script);
            let ends = match &what {
                What::Wait(wait) => {
                    self.reads = wait.need.read;
                    self.hears = wait.need.script_read;
                    if wait.idle {
                        // They may serve others meanwhile.
                        self.buf = Buffers::new();
                    } else if let Some(packed) = self.connection.pack(&mut self.buf) {
                        self.buf = Buffers::new();
                        self.connection.unpack(&packed, &mut self.buf);
                    }
                    self.is_idle()
                }
                What::Close { blocked, .. } => {
                    self.closed = !blocked;
                    false
                }
                _ => false,
            };
            self.answer(&what, ticket);
            if let What::Wait(_) = what {
                self.read();
            }
            self.out.push(Line::Event(Event { at: self.now.tick.0, joined: false, what }));
            if ends {
                break;
            }
        }
        script.rest(&mut self.out);
    }

    /// One poll, and the answer that the transcript gives.
    fn poll(&mut self, script: &mut Steps<'_>) -> (What, Ticket) {
        let Play { connection, buf, now, out, .. } = self;
        let cx = Context { config: &self.transcript.settings.config, site: self.site, now };
        let mut acted = Ticket::default();
        let mut listing = None;
        let mut what = match connection.poll(buf, &cx) {
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
            }),
            Step::Feed(bytes) => What::Feed { bytes: bytes.to_vec(), taken: None, then: FeedThen::Poll },
            Step::Act(ticket, action) => {
                acted = ticket;
                let not_found = Some(Err(FsError::NotFound));
                match action {
                    Action::Open { path } => What::Open { path: path.to_vec(), inside: false, answer: not_found },
                    Action::OpenIn { path } => What::Open { path: path.to_vec(), inside: true, answer: not_found },
                    Action::Find { path, from } => {
                        let missing = Found { len: path.len(), what: ScriptFile::Missing };
                        What::Find { path: path.to_vec(), from, answer: Some(Ok(missing)) }
                    }
                    Action::Spool => What::Spool { answer: Some(Ok(())) },
                    Action::Spawn(script) => What::Spawn { told: script.into(), answer: Some(Ok(())) },
                    Action::EndInput => What::EndInput,
                    Action::Kill => What::Kill,
                    Action::List { into } => {
                        listing = Some(into);
                        What::List { entries: Vec::new(), answer: Some(Ok(Listed::End)) }
                    }
                }
            }
            Step::Call(call) => What::Call(call),
            Step::Finished(entry) => What::Finished(Finish {
                status: entry.status,
                sent: entry.sent,
                line: entry.line.to_vec(),
                error: entry.error.map(<[u8]>::to_vec),
                cut: entry.cut.map(str::to_owned),
            }),
            Step::Wait(wait) => What::Wait(wait),
            Step::Shut => What::Shut { blocked: false },
            Step::Close(close) => What::Close { close, blocked: false },
        };
        if let Some(told) = script.next_like(&what, out) {
            what.take_answer(told);
        }
        if let (Some(into), What::List { entries, .. }) = (listing, &what) {
            for (name, kind) in entries {
                if !into.push(name, *kind) {
                    break;
                }
            }
        }
        if let What::Call(call) = what {
            self.handler.call(call, &mut connection.reply(buf, &cx));
        }
        (what, acted)
    }

    /// Hands in the answer to a step.
    fn answer(&mut self, what: &What, ticket: Ticket) {
        let connection = &mut self.connection;
        match what {
            What::Send(sending) => {
                connection.handle(Input::Sent(sending.taken.bytes.unwrap_or(sending.len())));
                match sending.taken.then {
                    Then::Poll => {}
                    Then::Blocked => connection.handle(Input::Blocked),
                    Then::Broken(fault) => connection.handle(Input::Broken(fault)),
                }
            }
            What::Open { answer: Some(answer), .. } => {
                connection.handle(Input::Done(ticket, Completion::Opened(*answer)));
            }
            What::List { answer: Some(answer), .. } => {
                connection.handle(Input::Done(ticket, Completion::Listed(*answer)));
            }
            What::Find { answer: Some(answer), .. } => {
                connection.handle(Input::Done(ticket, Completion::Found(*answer)));
            }
            What::Spool { answer: Some(answer) } => {
                connection.handle(Input::Done(ticket, Completion::Spooled(*answer)));
            }
            What::Spawn { answer: Some(answer), .. } => {
                connection.handle(Input::Done(ticket, Completion::Spawned(*answer)));
            }
            What::Feed { bytes, taken, then } => {
                connection.handle(Input::Fed(taken.unwrap_or(bytes.len() as u64)));
                match then {
                    FeedThen::Poll => {}
                    FeedThen::Blocked => connection.handle(Input::FeedBlocked),
                    FeedThen::End => connection.handle(Input::FeedEnd),
                }
            }
            What::Shut { blocked: true } | What::Close { blocked: true, .. } => connection.handle(Input::Blocked),
            _ => {}
        }
    }
}

impl Sending {
    /// The number of bytes in all three parts.
    #[must_use]
    pub fn len(&self) -> u64 {
        let body = match &self.body {
            Middle::None => 0,
            Middle::Bytes(bytes) => bytes.len() as u64,
            Middle::File { len, .. } => *len,
        };
        self.head.len() as u64 + body + self.tail.len() as u64
    }

    /// Whether there is nothing to send. Never so in a step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl What {
    /// Takes the answer over from what a transcript tells.
    pub(crate) fn take_answer(&mut self, told: &What) {
        match (self, told) {
            (What::Send(sending), What::Send(told)) => {
                // No socket takes more than it is given.
                let bytes = told.taken.bytes.filter(|&bytes| bytes < sending.len());
                sending.taken = Taken { bytes, ..told.taken };
            }
            (What::Open { answer, .. }, What::Open { answer: told, .. }) => *answer = *told,
            (What::List { entries, answer }, What::List { entries: told_entries, answer: told }) => {
                entries.clone_from(told_entries);
                *answer = *told;
            }
            (What::Find { answer, .. }, What::Find { answer: told, .. }) => *answer = *told,
            (What::Spool { answer }, What::Spool { answer: told }) => *answer = *told,
            (What::Spawn { answer, .. }, What::Spawn { answer: told, .. }) => *answer = *told,
            (What::Feed { bytes, taken, then }, What::Feed { taken: told, then: told_then, .. }) => {
                *taken = told.filter(|&n| n < bytes.len() as u64);
                *then = *told_then;
            }
            (What::Shut { blocked }, What::Shut { blocked: told }) => *blocked = *told,
            (What::Close { blocked, .. }, What::Close { blocked: told, .. }) => *blocked = *told,
            _ => {}
        }
    }
}

/// What a transcript says between two inputs.
struct Steps<'s> {
    lines: &'s [Line],
}

impl<'s> Steps<'s> {
    /// The next step of the same kind. Comments before it are copied.
    fn next_like(&mut self, what: &What, out: &mut Vec<Line>) -> Option<&'s What> {
        let found =
            self.lines.iter().position(|line| matches!(line, Line::Event(event) if event.what.is_like(what)))?;
        let (before, rest) = self.lines.split_at(found);
        out.extend(before.iter().filter(|line| !matches!(line, Line::Event(_))).cloned());
        let (line, rest) = rest.split_first()?;
        self.lines = rest;
        match line {
            Line::Event(event) => Some(&event.what),
            _ => None,
        }
    }

    /// Copies the comments that are left.
    fn rest(&self, out: &mut Vec<Line>) {
        out.extend(self.lines.iter().filter(|line| !matches!(line, Line::Event(_))).cloned());
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write::event(self, &mut text);
        f.write_str(&text)
    }
}

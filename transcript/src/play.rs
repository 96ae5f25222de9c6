//! Playing a transcript: a driver whose socket, disk and clock stand in the text.

use std::fmt;

use sanserve_core::{Buffers, Connection, Context, Handler, Input, Now, Peer, Policy, Tick, Ticket};

use super::{Event, Line, Middle, Sending, Taken, Transcript, What};
use crate::driving::{self, Calendar};
use crate::mask::Mask;

/// More steps than any input can cause, but for those that the transcript has itself.
const MAX_STEPS: usize = 100_000;

/// The first line that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Its number in the canonical text.
    pub line: usize,
    /// The number of the first line of the event that it belongs to.
    pub event_line: usize,
    /// That line: when it was and what.
    pub event: String,
    /// What the transcript says.
    pub expected: String,
    /// What happened.
    pub actual: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if self.event_line < self.line {
            write!(f, ", in line {}: {}", self.event_line, self.event)?;
        }
        write!(f, "\n  expected: {}\n  actual:   {}", self.expected, self.actual)
    }
}

impl std::error::Error for Difference {}

/// Plays the inputs and the answers of a transcript to a fresh connection. The result has the same
/// inputs, answers and comments, and the steps that were really taken.
///
/// Behind each input the connection is polled until it waits, or, before an input that is `joined`, for as many
/// steps as stand between the two. An action that has no answer in the transcript finds nothing, and a
/// `Send` without one is taken whole.
pub fn perform(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Transcript {
    observe(transcript, policy, handler, &mut |_, _, _| {})
}

/// Who looks at the connection after each event.
pub(super) type Observer<'o> = dyn FnMut(&mut Connection, &Buffers, &Context<'_>) + 'o;

/// The same, and lets somebody look at the connection after each event: at an input when it is noted, at a
/// step when it is answered.
pub(super) fn observe(
    transcript: &Transcript,
    policy: &dyn Policy,
    handler: &mut dyn Handler,
    observer: &mut Observer<'_>,
) -> Transcript {
    let mut play = Play::new(transcript, policy, handler, observer);
    let mut lines = transcript.lines.as_slice();
    loop {
        let (steps, joins, rest) = driving::next_turn(lines);
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
pub fn check(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Result<(), Difference> {
    match transcript.first_difference(&perform(transcript, policy, handler)) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// A recording that has played the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many steps were compared.
    pub steps: usize,
    /// It reaches to the connection's end. Otherwise the recording was cut, or the server was.
    pub complete: bool,
}

impl Transcript {
    /// Plays a recording and compares, as [`check`] does, as far as it goes.
    ///
    /// # Errors
    /// The first difference.
    pub fn replay(&self, policy: &dyn Policy, handler: &mut dyn Handler) -> Result<Replayed, Difference> {
        let last = self.lines.iter().rposition(|line| matches!(line, Line::Event(_)));
        let told = Transcript { lines: self.lines[..last.map_or(0, |last| last + 1)].to_vec(), ..self.clone() };
        let mut actual = perform(&told, policy, handler);
        let is_end = |event: &Event| matches!(event.what, What::Close { blocked: false, .. });
        let complete = told.events().last().is_some_and(is_end);
        if !complete {
            // What would come next is not known.
            actual.lines.truncate(told.lines.len());
        }
        match told.first_difference(&actual) {
            Some(difference) => Err(difference),
            None => Ok(Replayed { steps: told.events().filter(|event| !event.what.is_input()).count(), complete }),
        }
    }

    /// The first line in which what happened differs from what this says.
    #[must_use]
    pub fn first_difference(&self, actual: &Transcript) -> Option<Difference> {
        let (expected, actual) = (self.to_text(), actual.to_text());
        let (mut expected, mut actual) = (expected.lines(), actual.lines());
        let text = |side: Option<&str>| side.unwrap_or("(the end)").trim_start().to_owned();
        let mut event = (0, "");
        (1..).find_map(|line| {
            let (expected, actual) = (expected.next(), actual.next());
            // Behind the end, an event has begun that is not expected.
            if let Some(begun) = expected.or(actual).filter(|text| text.starts_with('@')) {
                event = (line, begun);
            }
            match (expected, actual) {
                (Some(e), Some(a)) if e == a => None,
                (None, None) => Some(None),
                (e, a) => Some(Some(Difference {
                    line,
                    event_line: event.0,
                    event: event.1.to_owned(),
                    expected: text(e),
                    actual: text(a),
                })),
            }
        })?
    }
}

struct Play<'p> {
    transcript: &'p Transcript,
    policy: &'p dyn Policy,
    handler: &'p mut dyn Handler,
    connection: Connection,
    /// Blanks out what was blanked out in the recording, so that both are the same.
    mask: Option<Mask>,
    buf: Buffers,
    now: Now,
    calendar: Calendar,
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
    observer: &'p mut Observer<'p>,
}

impl<'p> Play<'p> {
    fn new(
        transcript: &'p Transcript,
        policy: &'p dyn Policy,
        handler: &'p mut dyn Handler,
        observer: &'p mut Observer<'p>,
    ) -> Play<'p> {
        let settings = &transcript.settings;
        let now = Now::new(Tick(0), settings.wall);
        let cx = Context { config: &settings.config, policy, now: &now };
        let connection = Connection::new(Peer::from(settings.peer), &cx);
        Play {
            transcript,
            policy,
            handler,
            connection,
            mask: settings.masked.then(|| Mask::new(&settings.config.limits)),
            buf: Buffers::new(),
            now,
            calendar: Calendar::starting(settings.wall, settings.wall_millis),
            pending: Vec::new(),
            eof: false,
            reads: true,
            said: Vec::new(),
            script_eof: false,
            hears: false,
            closed: false,
            out: Vec::new(),
            observer,
        }
    }

    /// Something has happened.
    fn tell(&mut self, event: Event) {
        self.out.push(Line::Event(event));
        let cx = Context { config: &self.transcript.settings.config, policy: self.policy, now: &self.now };
        (self.observer)(&mut self.connection, &self.buf, &cx);
    }

    fn input(&mut self, event: &Event) {
        let tick = Tick(event.at.max(self.now.tick.0));
        if let What::Clock(wall) = event.what {
            self.calendar.set(tick.0, wall);
        }
        self.now.advance(tick, self.calendar.at(tick.0));
        match &event.what {
            What::Recv(bytes) => self.pending.extend_from_slice(bytes),
            What::Input(Input::Eof) => self.eof = true,
            What::Script(bytes) => self.said.extend_from_slice(bytes),
            What::Input(Input::ScriptEof) => self.script_eof = true,
            What::Input(input) => self.connection.handle(input.clone()),
            _ => {}
        }
        self.read();
        self.tell(event.clone());
    }

    /// Hands in what was received, as a driver that was told to read.
    fn read(&mut self) {
        if self.reads && !self.pending.is_empty() {
            let n = self.buf.input.fill(&self.pending);
            let mut read: Vec<u8> = self.pending.drain(..n).collect();
            if let Some(mask) = &mut self.mask {
                mask.input(&mut read);
            }
        }
        if self.pending.is_empty() && std::mem::take(&mut self.eof) {
            self.connection.handle(Input::Eof);
        }
        if self.hears && !self.said.is_empty() {
            let n = self.buf.script.fill(&self.said);
            let mut heard: Vec<u8> = self.said.drain(..n).collect();
            if let Some(mask) = &mut self.mask {
                mask.script(&mut heard);
            }
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
        let most = driving::count_events(steps) + if joins { 0 } else { MAX_STEPS };
        for _ in 0..most {
            if self.closed {
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
                    self.closed = !blocked && !joins;
                    false
                }
                _ => false,
            };
            if let What::Probe { .. } = what {
                let reads = std::mem::replace(&mut self.reads, true);
                self.read();
                self.reads = reads;
            }
            driving::hand_in(&mut self.connection, &what, ticket);
            if let Some(mask) = &mut self.mask {
                mask.settled(&what);
            }
            if let What::Wait(_) = what {
                self.read();
            }
            self.tell(Event { at: self.now.tick.0, joined: false, what });
            if ends {
                break;
            }
        }
        script.rest(&mut self.out);
    }

    /// One poll, and the answer that the transcript gives.
    fn poll(&mut self, script: &mut Steps<'_>) -> (What, Ticket) {
        let Play { connection, mask, buf, now, out, .. } = self;
        let cx = Context { config: &self.transcript.settings.config, policy: self.policy, now };
        let (mut what, ticket) = driving::poll(connection, buf, &cx, &mut |what, _| {
            if let Some(told) = script.next_like(what, out) {
                what.take_answer(told);
            }
        });
        if let Some(mask) = mask {
            mask.step(&mut what, buf.script.unread().len());
            if let What::Probe { bytes, .. } = &what {
                mask.input(&mut bytes.clone());
            }
        }
        if let What::Call(call) = what {
            self.handler.call(call, &mut connection.reply(buf, &cx));
        }
        (what, ticket)
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

    /// The status in its head, if it begins an answer.
    fn status(&self) -> Option<u16> {
        let rest = self.head.strip_prefix(b"HTTP/1.").filter(|rest| rest.get(1) == Some(&b' '))?;
        std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
    }

    /// Whether there is nothing to send. Never so in a step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl What {
    /// Takes the answer over from what a transcript tells.
    pub fn take_answer(&mut self, told: &What) {
        match (self, told) {
            (What::Send(sending), What::Send(told)) => {
                // No socket takes more than it is given.
                let bytes = told.taken.bytes.filter(|&bytes| bytes < sending.len());
                sending.taken = Taken { bytes, ..told.taken };
                sending.elided = told.elided.filter(|&status| sending.status() == Some(status));
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
            (What::Probe { bytes, then }, What::Probe { bytes: told, then: told_then }) => {
                bytes.clone_from(told);
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

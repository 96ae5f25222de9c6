//! Replays transcripts: a driver whose socket, disk and clock are in the text.

use std::fmt;

use sanserve_core::{Buffers, Connection, Context, Handler, Now, Policy, Tick, Ticket};

use crate::driving::{self, Arrivals, Calendar};
use crate::event::{Event, Line, Middle, Sending, Taken, Transcript, What};
use crate::mask::Mask;

/// More steps than any input can cause, not counting those in the transcript itself.
const MAX_STEPS: usize = 100_000;

/// The first line that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The number of the line in the canonical text.
    pub line: usize,
    /// The number of the first line of its event.
    pub event_line: usize,
    /// The first line of its event.
    pub event: String,
    /// What the transcript has.
    pub expected: String,
    /// What really happened.
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

/// Replays the inputs and results of a transcript to a new connection. The returned transcript has the same inputs,
/// results and comments, but the steps that really happened.
///
/// After each input, the connection is polled until it waits, or, before a `joined` input, for as many steps as there
/// are between the two. An action without a result in the transcript finds nothing, and a `Send` without one is
/// accepted completely.
pub fn perform(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Transcript {
    observe(transcript, policy, handler, &mut |_, _, _| {})
}

/// Called with the connection after each event.
pub(super) type Observer<'o> = dyn FnMut(&mut Connection, &Buffers, &Context<'_>) + 'o;

/// Like [`perform`], and calls `observer` with the connection after each event: after an input is recorded, or after
/// the result of a step is passed.
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

/// Replays a transcript and compares.
///
/// # Errors
/// The first difference.
pub fn check(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Result<(), Difference> {
    match transcript.first_difference(&perform(transcript, policy, handler)) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// A recording that was replayed identically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The number of steps that were compared.
    pub steps: usize,
    /// Whether the recording reaches the end of the connection. Otherwise, the recording or the server was interrupted.
    pub complete: bool,
}

impl Transcript {
    /// Replays a recording and compares it, like [`check`], but permits it to be incomplete.
    ///
    /// # Errors
    /// The first difference.
    pub fn replay(&self, policy: &dyn Policy, handler: &mut dyn Handler) -> Result<Replayed, Difference> {
        let last = self.lines.iter().rposition(|line| matches!(line, Line::Event(_)));
        let recorded = Transcript { lines: self.lines[..last.map_or(0, |last| last + 1)].to_vec(), ..self.clone() };
        let mut actual = perform(&recorded, policy, handler);
        let is_end = |event: &Event| matches!(event.what, What::Close { blocked: false, .. });
        let complete = recorded.events().last().is_some_and(is_end);
        if !complete {
            // Later events are not known.
            actual.lines.truncate(recorded.lines.len());
        }
        match recorded.first_difference(&actual) {
            Some(difference) => Err(difference),
            None => Ok(Replayed { steps: recorded.events().filter(|event| !event.what.is_input()).count(), complete }),
        }
    }

    /// The first line that differs from what really happened.
    #[must_use]
    pub fn first_difference(&self, actual: &Transcript) -> Option<Difference> {
        let (expected, actual) = (self.to_text(), actual.to_text());
        let (mut expected, mut actual) = (expected.lines(), actual.lines());
        let text = |side: Option<&str>| side.unwrap_or("(the end)").trim_start().to_owned();
        let mut event = (0, "");
        (1..).find_map(|line| {
            let (expected, actual) = (expected.next(), actual.next());
            // At the end of the transcript, an unexpected event may begin.
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
    /// Masks credentials as in the recording, so that both are equal.
    mask: Option<Mask>,
    buf: Buffers,
    now: Now,
    calendar: Calendar,
    arrivals: Arrivals,
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
        let connection = Connection::new(settings.peer, &cx);
        Play {
            transcript,
            policy,
            handler,
            connection,
            mask: settings.masked.then(|| Mask::new(&settings.config.limits)),
            buf: Buffers::new(),
            now,
            calendar: Calendar::starting(settings.wall, settings.wall_millis),
            arrivals: Arrivals::default(),
            closed: false,
            out: Vec::new(),
            observer,
        }
    }

    /// Appends an event.
    fn push(&mut self, event: Event) {
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
        self.arrivals.input(&event.what, &mut self.connection);
        self.read(false);
        self.push(event.clone());
    }

    /// Fills the windows, like a driver that reads.
    fn read(&mut self, probes: bool) {
        let Play { arrivals, connection, buf, mask, .. } = self;
        let (mut from_peer, mut from_script) = arrivals.read(probes, connection, || buf);
        if let Some(mask) = mask {
            mask.input(&mut from_peer);
            mask.script(&mut from_script);
        }
    }

    /// Polls until the connection waits; `steps` are the steps of the transcript for this turn.
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
                    self.arrivals.wait(*wait);
                    if wait.idle {
                        // Other connections may use the buffers meanwhile.
                        self.buf = Buffers::new();
                    } else if let Some(packed) = self.connection.pack(&mut self.buf) {
                        self.buf = Buffers::new();
                        self.connection.unpack(&packed, &mut self.buf);
                    }
                    self.arrivals.is_idle()
                }
                What::Close { blocked, .. } => {
                    self.closed = !blocked && !joins;
                    false
                }
                _ => false,
            };
            if let What::Probe { .. } = what {
                self.read(true);
            }
            driving::hand_in(&mut self.connection, &what, ticket);
            if let Some(mask) = &mut self.mask {
                mask.settled(&what);
            }
            if let What::Wait(_) = what {
                self.read(false);
            }
            self.push(Event { at: self.now.tick.0, joined: false, what });
            if ends {
                break;
            }
        }
        script.rest(&mut self.out);
    }

    /// Polls once, with the result from the transcript.
    fn poll(&mut self, script: &mut Steps<'_>) -> (What, Ticket) {
        let Play { connection, mask, buf, now, out, .. } = self;
        let cx = Context { config: &self.transcript.settings.config, policy: self.policy, now };
        let (mut what, ticket) = driving::poll(connection, buf, &cx, &mut |what, _| {
            if let Some(recorded) = script.next_like(what, out) {
                what.take_answer(recorded);
            }
        });
        if let Some(mask) = mask {
            mask.step(&mut what, buf.script.unread().len());
            if let What::Probe { bytes, .. } = &what {
                mask.input(&mut bytes.clone());
            }
        }
        if let What::Call(call) = what {
            self.handler.drive(call, &mut connection.reply(buf, &cx));
        }
        (what, ticket)
    }
}

impl Sending {
    /// The total number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        let body = match &self.body {
            Middle::None => 0,
            Middle::Bytes(bytes) => bytes.len() as u64,
            Middle::File { len, .. } => *len,
        };
        self.head.len() as u64 + body + self.tail.len() as u64
    }

    /// The status in the head, if it begins a response.
    fn status(&self) -> Option<u16> {
        let rest = self.head.strip_prefix(b"HTTP/1.").filter(|rest| rest.get(1) == Some(&b' '))?;
        std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
    }

    /// Whether there is nothing to send. Never true in a step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl What {
    /// Copies the result from an event of a transcript.
    pub fn take_answer(&mut self, recorded: &What) {
        match (self, recorded) {
            (What::Send(sending), What::Send(recorded)) => {
                // A socket cannot accept more than was sent.
                let bytes = recorded.taken.bytes.filter(|&bytes| bytes < sending.len());
                sending.taken = Taken { bytes, ..recorded.taken };
                sending.elided = recorded.elided.filter(|&status| sending.status() == Some(status));
            }
            (What::Open { answer, .. }, What::Open { answer: recorded, .. }) => *answer = *recorded,
            (What::List { entries, answer }, What::List { entries: recorded_entries, answer: recorded }) => {
                entries.clone_from(recorded_entries);
                *answer = *recorded;
            }
            (What::Find { answer, .. }, What::Find { answer: recorded, .. }) => *answer = *recorded,
            (What::Spool { answer }, What::Spool { answer: recorded }) => *answer = *recorded,
            (What::Spawn { answer, .. }, What::Spawn { answer: recorded, .. }) => *answer = *recorded,
            (What::Feed { bytes, taken, then }, What::Feed { taken: recorded, then: recorded_then, .. }) => {
                *taken = recorded.filter(|&n| n < bytes.len() as u64);
                *then = *recorded_then;
            }
            (What::Probe { bytes, then }, What::Probe { bytes: recorded, then: recorded_then }) => {
                bytes.clone_from(recorded);
                *then = *recorded_then;
            }
            (What::Shut { blocked }, What::Shut { blocked: recorded }) => *blocked = *recorded,
            (What::Close { blocked, .. }, What::Close { blocked: recorded, .. }) => *blocked = *recorded,
            _ => {}
        }
    }
}

/// The lines of a transcript between two inputs.
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

    /// Copies the remaining comments.
    fn rest(&self, out: &mut Vec<Line>) {
        out.extend(self.lines.iter().filter(|line| !matches!(line, Line::Event(_))).cloned());
    }
}

//! What all drivers that replay a connection have in common: the calendar, a poll that becomes an event, and the result
//! of a step. Use it to write another one.

use sanserve_core::{
    Action, Buffers, Completion, Connection, Context, Found, FsError, Input, Listed, ScriptFile, Step, Ticket, Wait,
    Wall,
};

use crate::event::{FeedThen, Line, ProbeThen, Then, What};

/// Calendar time that advances with the ticks, until it is set.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// When second 0 was, in milliseconds relative to tick 0.
    epoch: i64,
}

impl Calendar {
    /// Creates a calendar in which `passed` milliseconds of the second `wall` have passed at tick 0.
    pub fn starting(wall: Wall, passed: u16) -> Calendar {
        let mut calendar = Calendar { epoch: 0 };
        calendar.set(0, wall);
        calendar.epoch = calendar.epoch.saturating_sub(passed.into());
        calendar
    }

    /// The second at `at` milliseconds.
    pub fn at(&self, at: u64) -> Wall {
        Wall(millis(at).saturating_sub(self.epoch).div_euclid(1000))
    }

    /// Lets the second `wall` begin at `at` milliseconds.
    pub fn set(&mut self, at: u64, wall: Wall) {
        self.epoch = millis(at).saturating_sub(wall.0.saturating_mul(1000));
    }
}

fn millis(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// What has arrived for a connection, and whether the connection reads it.
#[derive(Debug)]
pub struct Arrivals {
    received: Vec<u8>,
    eof: bool,
    reads: bool,
    printed: Vec<u8>,
    script_eof: bool,
    reads_script: bool,
}

impl Default for Arrivals {
    /// Nothing has arrived, and the connection reads from its peer.
    fn default() -> Arrivals {
        let (received, printed) = (Vec::new(), Vec::new());
        Arrivals { received, eof: false, reads: true, printed, script_eof: false, reads_script: false }
    }
}

impl Arrivals {
    /// Stores bytes and ends until they are read. Passes any other input to the connection.
    pub fn input(&mut self, what: &What, connection: &mut Connection) {
        match what {
            What::Recv(bytes) => self.received.extend_from_slice(bytes),
            What::Input(Input::Eof) => self.eof = true,
            What::Script(bytes) => self.printed.extend_from_slice(bytes),
            What::Input(Input::ScriptEof) => self.script_eof = true,
            What::Input(input) => connection.handle(input.clone()),
            _ => {}
        }
    }

    /// From now on, the connection reads what it needs.
    pub fn wait(&mut self, wait: Wait) {
        (self.reads, self.reads_script) = (wait.need.read, wait.need.script_read);
    }

    /// Whether nothing more can be read before the next input.
    pub fn is_idle(&self) -> bool {
        (self.received.is_empty() || !self.reads) && (self.printed.is_empty() || !self.reads_script)
    }

    /// The number of bytes that have not been read.
    pub fn unread(&self) -> usize {
        self.received.len() + self.printed.len()
    }

    /// Fills the windows, like a driver that reads, and reports the ends. Returns what was read: from the peer, and from
    /// the script. `probes`: also from a peer that the connection does not wait for. `buf` is only called if there is
    /// something to read.
    pub fn read<'b>(
        &mut self,
        probes: bool,
        connection: &mut Connection,
        buf: impl FnOnce() -> &'b mut Buffers,
    ) -> (Vec<u8>, Vec<u8>) {
        let (mut from_peer, mut from_script) = (Vec::new(), Vec::new());
        let reads = (self.reads || probes) && !self.received.is_empty();
        let reads_script = self.reads_script && !self.printed.is_empty();
        if reads || reads_script {
            let buf = buf();
            if reads {
                from_peer = self.received.drain(..buf.input.fill(&self.received)).collect();
            }
            if reads_script {
                from_script = self.printed.drain(..buf.script.fill(&self.printed)).collect();
            }
        }
        if self.received.is_empty() && std::mem::take(&mut self.eof) {
            connection.handle(Input::Eof);
        }
        if self.printed.is_empty() && std::mem::take(&mut self.script_eof) {
            connection.handle(Input::ScriptEof);
        }
        (from_peer, from_script)
    }
}

/// The lines before the next input, whether that input is [joined](crate::Event), and the lines from that input on.
pub fn next_turn(lines: &[Line]) -> (&[Line], bool, &[Line]) {
    let is_input = |line: &Line| matches!(line, Line::Event(event) if event.what.is_input());
    let (steps, rest) = lines.split_at(lines.iter().position(is_input).unwrap_or(lines.len()));
    (steps, matches!(rest.first(), Some(Line::Event(event)) if event.joined), rest)
}

/// The number of events in these lines.
pub fn count_events(lines: &[Line]) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Event(_))).count()
}

/// Polls once. The event already has the simplest result; `answer` may replace it.
pub fn poll(
    connection: &mut Connection,
    buf: &mut Buffers,
    cx: &Context<'_>,
    answer: &mut dyn FnMut(&mut What, Ticket),
) -> (What, Ticket) {
    let mut acted = Ticket::default();
    let mut listing = None;
    let mut window = None;
    let step = connection.poll(buf, cx);
    let mut what = What::of(&step).answered();
    match step {
        Step::Act(ticket, action) => {
            acted = ticket;
            if let Action::List { into } = action {
                listing = Some(into);
            }
        }
        Step::Probe(into) => window = Some(into),
        _ => {}
    }
    answer(&mut what, acted);
    if let (Some(into), What::List { entries, .. }) = (listing, &what) {
        for (name, kind) in entries {
            if !into.push(name, *kind) {
                break;
            }
        }
    }
    if let (Some(window), What::Probe { bytes, .. }) = (window, &mut what) {
        let room = window.fill(bytes);
        bytes.truncate(room);
    }
    (what, acted)
}

/// Passes the result of a step to the connection.
pub fn hand_in(connection: &mut Connection, what: &What, ticket: Ticket) {
    match what {
        What::Send(sending) => {
            connection.handle(Input::Sent(sending.taken.bytes.unwrap_or(sending.len())));
            match sending.taken.then {
                Then::Poll => {}
                Then::Blocked => connection.handle(Input::Blocked),
                Then::Pending => connection.handle(Input::FilePending),
                Then::Broken(fault) => connection.handle(Input::Broken(fault)),
            }
        }
        What::Feed { bytes, taken, then } => {
            connection.handle(Input::Fed(taken.unwrap_or(bytes.len() as u64)));
            match then {
                FeedThen::Poll => {}
                FeedThen::Blocked => connection.handle(Input::FeedBlocked),
                FeedThen::End => connection.handle(Input::FeedEnd),
                FeedThen::Full => connection.handle(Input::SpoolFull),
            }
        }
        What::Probe { then, .. } => match then {
            ProbeThen::Poll => connection.handle(Input::Probed),
            ProbeThen::Later => {}
            ProbeThen::Eof => connection.handle(Input::Eof),
            ProbeThen::Broken(fault) => connection.handle(Input::Broken(*fault)),
        },
        What::Shut { blocked: true } | What::Close { blocked: true, .. } => connection.handle(Input::Blocked),
        _ => {
            if let Some(completion) = what.completion() {
                connection.handle(Input::Done(ticket, completion));
            }
        }
    }
}

impl What {
    /// Adds the result that applies if the transcript has none.
    fn answered(mut self) -> What {
        match &mut self {
            What::Open { answer, .. } => *answer = Some(Err(FsError::NotFound)),
            What::List { answer, .. } => *answer = Some(Ok(Listed::End)),
            What::Find { path, answer, .. } => {
                *answer = Some(Ok(Found { len: path.len(), what: ScriptFile::Missing }));
            }
            What::Spool { answer } => *answer = Some(Ok(())),
            What::Spawn { answer, .. } => *answer = Some(Ok(())),
            _ => {}
        }
        self
    }

    /// The result of an action, unless it comes later or the action has none.
    fn completion(&self) -> Option<Completion> {
        match self {
            What::Open { answer, .. } => answer.map(Completion::Opened),
            What::List { answer, .. } => answer.map(Completion::Listed),
            What::Find { answer, .. } => answer.map(Completion::Found),
            What::Spool { answer } => answer.map(Completion::Spooled),
            What::Spawn { answer, .. } => answer.map(Completion::Spawned),
            _ => None,
        }
    }
}

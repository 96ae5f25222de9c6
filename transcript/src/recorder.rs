//! Records a connection, so that it can be replayed.
//!
//! Everything that is reported to an [`Observer`] becomes an [`Event`] of a transcript, in an order that can be
//! replayed. So a recording is complete with any driver.
//!
//! What a handler does is not recorded: it is either a function of its calls, or cannot be replayed. Where the events
//! go is decided by the [`Recorder`].

use sanserve_core::{
    Action, Completion, Connection, Context, EntryKind, Input, Now, Observer, Step, Tick, Ticket, Wait,
};

use crate::driving::Calendar;
use crate::event::{Event, FeedThen, ProbeThen, Taken, Then, What};
use crate::mask::{Mask, Secrets};

/// Receives the events of one connection, in order. It is dropped with the connection.
///
/// It is called on the thread that drives the connection, so it must neither block nor panic.
///
/// ```
/// use sanserve_core::{Buffers, Config, Connection, Context, DefaultPolicy, Now, Peer, Step, Tick, Wall};
/// use sanserve_transcript::{Event, Recorder, Secrets, record};
///
/// struct Lines(std::sync::mpsc::Sender<String>);
///
/// impl Recorder for Lines {
///     fn event(&mut self, event: Event) {
///         let _ = self.0.send(event.to_string());
///     }
/// }
///
/// let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// let mut connection = Connection::new(Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
/// let (sender, lines) = std::sync::mpsc::channel();
/// record(&mut connection, Box::new(Lines(sender)), Secrets::Masked, &cx);
/// assert!(matches!(connection.poll(&mut Buffers::new(), &cx), Step::Wait(_)));
/// assert_eq!(lines.recv().unwrap(), "@0 wait read until 15000 idle");
/// ```
pub trait Recorder: Send {
    /// An event has happened.
    fn event(&mut self, event: Event);

    /// The connection waits: there will be no event for a while. Return `false` to end the recording.
    fn waits(&mut self) -> bool {
        true
    }
}

/// Records everything that happens to a connection. Call it before the first poll.
///
/// The recording ends with the connection, or when the recorder ends it.
pub fn record(connection: &mut Connection, recorder: Box<dyn Recorder>, secrets: Secrets, cx: &Context<'_>) {
    connection.observe(Box::new(Transcriber::new(recorder, secrets, cx)));
}

/// The state of a recording.
struct Transcriber {
    recorder: Box<dyn Recorder>,
    mask: Option<Mask>,
    /// Times are relative to this.
    start: Tick,
    /// The calendar of a replay.
    calendar: Calendar,
    /// The time of the last poll.
    at: u64,
    /// The inputs since the last poll.
    inputs: Vec<What>,
    /// The step whose result is expected.
    step: Option<Pending>,
    /// The wait that ended the last turn, if the last step did.
    waits: Option<Wait>,
    /// Whether the current poll began with `Scarce`.
    is_scarce: bool,
    /// Whether the current poll has no cause except perhaps the time. It is only recorded if it does not return the
    /// same wait again.
    idle_poll: bool,
}

/// A step whose result is not known yet.
struct Pending {
    what: What,
    ticket: Ticket,
}

impl Transcriber {
    fn new(recorder: Box<dyn Recorder>, secrets: Secrets, cx: &Context<'_>) -> Transcriber {
        let now = cx.now;
        Transcriber {
            recorder,
            mask: (secrets == Secrets::Masked).then(|| Mask::new(&cx.config.limits)),
            start: now.tick,
            calendar: Calendar::starting(now.wall, (now.tick.0 % 1000) as u16),
            at: 0,
            inputs: Vec::new(),
            step: None,
            waits: None,
            is_scarce: false,
            idle_poll: false,
        }
    }

    /// The event that sets the calendar of a replay, if it would be wrong.
    fn clock(&mut self, now: &Now) -> Option<What> {
        if self.calendar.at(self.at) == now.wall {
            return None;
        }
        self.calendar.set(self.at, now.wall);
        Some(What::Clock(now.wall))
    }

    fn event(&mut self, what: What) {
        self.recorder.event(Event { at: self.at, joined: false, what });
    }

    /// Records the last step, with the result that it has.
    fn settle(&mut self) {
        if let Some(step) = self.step.take() {
            if let Some(mask) = &mut self.mask {
                mask.settled(&step.what);
            }
            self.event(step.what);
        }
    }
}

impl Observer for Transcriber {
    /// Either the result of the last step, or an input.
    fn input(&mut self, input: &Input) {
        let is_answer = self.step.as_mut().is_some_and(|step| step.takes(input));
        if !is_answer {
            self.inputs.push(What::Input(input.clone()));
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some(mask) = &mut self.mask {
            mask.input(&mut bytes);
        }
        match self.step.as_mut().map(|step| &mut step.what) {
            Some(What::Probe { bytes: probed, .. }) => *probed = bytes,
            _ => self.inputs.push(What::Recv(bytes)),
        }
    }

    fn script_said(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some(mask) = &mut self.mask {
            mask.script(&mut bytes);
        }
        self.inputs.push(What::Script(bytes));
    }

    fn listed(&mut self, name: &[u8], kind: EntryKind) {
        if let Some(Pending { what: What::List { entries, .. }, .. }) = &mut self.step {
            entries.push((name.to_vec(), kind));
        }
    }

    fn polled(&mut self, now: &Now) {
        self.settle();
        let at = now.tick.since(self.start);
        let moved = at != self.at;
        self.at = at;
        let clock = self.clock(now);
        let mut inputs = std::mem::take(&mut self.inputs);
        self.is_scarce = inputs.contains(&What::Input(Input::Scarce));
        // A driver may poll a connection at any time.
        self.idle_poll = inputs.is_empty() && clock.is_none() && self.waits.is_some();
        if self.idle_poll {
            return;
        }
        if inputs.is_empty() && clock.is_none() && moved {
            inputs.push(What::Tick);
        }
        // After a wait, the first input begins a turn; all others are joined.
        let mut joined = self.waits.take().is_none();
        // Bytes come before their end.
        let eof = |what: &What| matches!(what, What::Input(Input::Eof | Input::ScriptEof | Input::ScriptFailed(_)));
        let (ends, others): (Vec<What>, Vec<What>) = inputs.drain(..).partition(eof);
        for what in clock.into_iter().chain(others).chain(ends) {
            self.recorder.event(Event { at, joined, what });
            joined = true;
        }
        self.inputs = inputs;
    }

    /// A replay has to refuse the memory as well.
    fn refused(&mut self) {
        if !self.is_scarce {
            let joined = !std::mem::take(&mut self.idle_poll) || self.waits.take().is_none();
            self.recorder.event(Event { at: self.at, joined, what: What::Input(Input::Scarce) });
        }
    }

    fn step(&mut self, step: &Step<'_>, script_unread: usize) -> bool {
        let waits = match step {
            Step::Wait(wait) => {
                Some(Wait { deadline: wait.deadline.map(|deadline| Tick(deadline.since(self.start))), ..*wait })
            }
            _ => None,
        };
        if std::mem::take(&mut self.idle_poll) {
            if waits == self.waits {
                return true;
            }
            self.waits = None;
            self.event(What::Tick);
        }
        if let Some(wait) = waits {
            self.waits = waits;
            self.event(What::Wait(wait));
            return self.recorder.waits();
        }
        let mut what = What::of(step);
        if let Some(mask) = &mut self.mask {
            mask.step(&mut what, script_unread);
        }
        match step {
            // These have no result.
            Step::Call(_)
            | Step::Finished(_)
            | Step::Wait(_)
            | Step::Act(_, Action::EndInput | Action::Kill | Action::Log { .. }) => {
                self.event(what);
            }
            Step::Send(_) | Step::Feed(_) | Step::Act(..) | Step::Probe(_) | Step::Shut | Step::Close(_) => {
                let ticket = if let Step::Act(ticket, _) = step { *ticket } else { Ticket::default() };
                self.step = Some(Pending { what: what.unanswered(), ticket });
            }
        }
        true
    }
}

impl Drop for Transcriber {
    fn drop(&mut self) {
        self.settle();
        if std::mem::take(&mut self.idle_poll) {
            // The poll has not returned: it panics.
            self.waits = None;
            self.event(What::Tick);
        }
        let at = self.at;
        for (n, what) in std::mem::take(&mut self.inputs).into_iter().enumerate() {
            let joined = n > 0 || self.waits.is_none();
            self.recorder.event(Event { at, joined, what });
        }
    }
}

impl Pending {
    /// Whether this is a part of the result, which is then added.
    fn takes(&mut self, input: &Input) -> bool {
        match (&mut self.what, input) {
            (What::Send(sending), Input::Sent(n)) if sending.taken == NONE => {
                let all = *n == sending.len();
                sending.taken.bytes = if all { None } else { Some(*n) };
            }
            (What::Send(sending), Input::Blocked) if sending.taken.then == Then::Poll => {
                sending.taken.then = Then::Blocked;
            }
            (What::Send(sending), Input::FilePending) if sending.taken.then == Then::Poll => {
                sending.taken.then = Then::Pending;
            }
            (What::Send(sending), Input::Broken(fault)) if sending.taken.then == Then::Poll => {
                sending.taken.then = Then::Broken(*fault);
            }
            (What::Feed { taken: taken @ Some(0), then: FeedThen::Poll, bytes }, Input::Fed(n)) => {
                *taken = if *n == bytes.len() as u64 { None } else { Some(*n) };
            }
            (What::Feed { then: then @ FeedThen::Poll, .. }, Input::FeedBlocked) => *then = FeedThen::Blocked,
            (What::Feed { then: then @ FeedThen::Poll, .. }, Input::FeedEnd) => *then = FeedThen::End,
            (What::Probe { then: then @ ProbeThen::Later, .. }, Input::Probed) => *then = ProbeThen::Poll,
            (What::Probe { then: then @ ProbeThen::Later, .. }, Input::Eof) => *then = ProbeThen::Eof,
            (What::Probe { then: then @ ProbeThen::Later, .. }, Input::Broken(fault)) => {
                *then = ProbeThen::Broken(*fault);
            }
            (What::Feed { then: then @ FeedThen::Poll, .. }, Input::SpoolFull) => *then = FeedThen::Full,
            (
                What::Shut { blocked: blocked @ false } | What::Close { blocked: blocked @ false, .. },
                Input::Blocked,
            ) => {
                *blocked = true;
            }
            (what, Input::Done(ticket, completion)) if *ticket == self.ticket => match (what, completion) {
                (What::Open { answer: answer @ None, .. }, Completion::Opened(opened)) => *answer = Some(*opened),
                (What::List { answer: answer @ None, .. }, Completion::Listed(listed)) => *answer = Some(*listed),
                (What::Find { answer: answer @ None, .. }, Completion::Found(found)) => *answer = Some(*found),
                (What::Spool { answer: answer @ None }, Completion::Spooled(spooled)) => *answer = Some(*spooled),
                (What::Spawn { answer: answer @ None, .. }, Completion::Spawned(spawned)) => *answer = Some(*spawned),
                _ => return false,
            },
            _ => return false,
        }
        true
    }
}

/// Nothing has been accepted so far.
const NONE: Taken = Taken { bytes: Some(0), then: Then::Poll };

impl What {
    /// The event with no result.
    fn unanswered(mut self) -> What {
        match &mut self {
            What::Send(sending) => sending.taken = NONE,
            What::Feed { taken, .. } => *taken = Some(0),
            What::Probe { then, .. } => *then = ProbeThen::Later,
            What::Open { answer, .. } => *answer = None,
            What::List { answer, .. } => *answer = None,
            What::Find { answer, .. } => *answer = None,
            What::Spool { answer } => *answer = None,
            What::Spawn { answer, .. } => *answer = None,
            _ => {}
        }
        self
    }
}

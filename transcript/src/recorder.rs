//! Recording a connection while it lives, so that it can be played again.
//!
//! What a connection shows an [`Observer`] becomes the [`Event`]s of a transcript, in an order in which they can be
//! played. No driver can forget a part of it.
//!
//! What it leaves out: what a handler does, which is a function of what it is told, or is not replayed; and
//! where events go, which is the [`Recorder`]'s.

use sanserve_core::{
    Action, Completion, Connection, Context, EntryKind, Input, Now, Observer, Step, Tick, Ticket, Wait,
};

use crate::driving::Calendar;
use crate::mask::Mask;
use crate::{Event, FeedThen, ProbeThen, Secrets, Taken, Then, What};

/// Takes the events of one connection, in order. It is dropped with the connection.
///
/// It is called by whoever drives the connection, so it must neither wait nor panic.
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
    /// Something has happened.
    fn event(&mut self, event: Event);

    /// The connection waits: there will be no event for a while. `false`: no more of it is wanted.
    fn waits(&mut self) -> bool {
        true
    }
}

/// Has everything recorded that happens to a connection from here on; to be called before the first poll.
///
/// It ends with the connection, or when the recorder wants no more.
pub fn record(connection: &mut Connection, recorder: Box<dyn Recorder>, secrets: Secrets, cx: &Context<'_>) {
    connection.observe(Box::new(Transcriber::new(recorder, secrets, cx)));
}

/// What was recorded last, and what is about to be.
struct Transcriber {
    recorder: Box<dyn Recorder>,
    mask: Option<Mask>,
    /// Times are counted from here.
    start: Tick,
    /// That of a player.
    calendar: Calendar,
    /// The time of the last poll.
    at: u64,
    /// What was told and what has arrived since the last poll.
    told: Vec<What>,
    /// The step that is being answered.
    step: Option<Answering>,
    /// The last step ended the turn: it was this wait.
    waits: Option<Wait>,
    /// The poll under way was told that memory is scarce.
    was_told_scarce: bool,
    /// A poll for no reason but perhaps the time: it counts only if it does not say the same wait once more.
    idle_poll: bool,
}

/// A step whose answer is not known yet.
struct Answering {
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
            told: Vec::new(),
            step: None,
            waits: None,
            was_told_scarce: false,
            idle_poll: false,
        }
    }

    /// What sets a player's calendar, if it would be wrong by now.
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

    /// The last step has all the answer that it gets.
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
    /// It is the answer to the last step, or a thing of its own.
    fn input(&mut self, input: &Input) {
        let is_answer = self.step.as_mut().is_some_and(|step| step.takes(input));
        if !is_answer {
            self.told.push(What::Input(input.clone()));
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some(mask) = &mut self.mask {
            mask.input(&mut bytes);
        }
        match self.step.as_mut().map(|step| &mut step.what) {
            Some(What::Probe { bytes: probed, .. }) => *probed = bytes,
            _ => self.told.push(What::Recv(bytes)),
        }
    }

    fn script_said(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some(mask) = &mut self.mask {
            mask.script(&mut bytes);
        }
        self.told.push(What::Script(bytes));
    }

    fn listed(&mut self, name: &[u8], kind: EntryKind) {
        if let Some(Answering { what: What::List { entries, .. }, .. }) = &mut self.step {
            entries.push((name.to_vec(), kind));
        }
    }

    fn polled(&mut self, now: &Now) {
        self.settle();
        let at = now.tick.since(self.start);
        let moved = at != self.at;
        self.at = at;
        let clock = self.clock(now);
        let mut inputs = std::mem::take(&mut self.told);
        self.was_told_scarce = inputs.contains(&What::Input(Input::Scarce));
        // A driver may look at a connection as often as it likes.
        self.idle_poll = inputs.is_empty() && clock.is_none() && self.waits.is_some();
        if self.idle_poll {
            return;
        }
        if inputs.is_empty() && clock.is_none() && moved {
            inputs.push(What::Tick);
        }
        // Behind a wait the first input begins a turn; all others find the connection in the middle of one.
        let mut joined = self.waits.take().is_none();
        // Bytes before their end.
        let eof = |what: &What| matches!(what, What::Input(Input::Eof | Input::ScriptEof | Input::ScriptFailed(_)));
        let (ends, others): (Vec<What>, Vec<What>) = inputs.drain(..).partition(eof);
        for what in clock.into_iter().chain(others).chain(ends) {
            self.recorder.event(Event { at, joined, what });
            joined = true;
        }
        self.told = inputs;
    }

    /// A player is to refuse it, too.
    fn refused(&mut self) {
        if !self.was_told_scarce {
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
            // They have no answer.
            Step::Call(_)
            | Step::Finished(_)
            | Step::Wait(_)
            | Step::Act(_, Action::EndInput | Action::Kill | Action::Log { .. }) => {
                self.event(what);
            }
            Step::Send(_) | Step::Feed(_) | Step::Act(..) | Step::Probe(_) | Step::Shut | Step::Close(_) => {
                let ticket = if let Step::Act(ticket, _) = step { *ticket } else { Ticket::default() };
                self.step = Some(Answering { what: what.unanswered(), ticket });
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
        for (n, what) in std::mem::take(&mut self.told).into_iter().enumerate() {
            let joined = n > 0 || self.waits.is_none();
            self.recorder.event(Event { at, joined, what });
        }
    }
}

impl Answering {
    /// Whether this is a part of the answer, which is then taken over.
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

/// Nothing was taken so far.
const NONE: Taken = Taken { bytes: Some(0), then: Then::Poll };

impl What {
    /// As long as nothing is known of its answer.
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

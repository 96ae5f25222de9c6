//! The connection: the only machine that a driver touches, and the place of all policy.
//!
//! [`Connection::handle`] notes what happened; [`Connection::poll`] acts on it and names the next
//! step. Everything in here is one of four: absorbing what was noted, firing timers, finding the
//! step that is due, or moving on to where a step is due.

mod reply;
mod request;
mod rest;
mod state;
mod wait;

pub use reply::{Received, Reply};
pub use rest::{Packed, Resting};
pub use state::State;

use crate::buffers::Buffers;
use crate::cgi;
use crate::context::Context;
use crate::entry::Entry;
use crate::error::Violation;
use crate::exchange::{Answer, Cut, Exchange, FilePart, Passthrough, ResponseBuilder, Server, Then};
use crate::files::PendingAction;
use crate::input::{Fault, Input, Ticket};
use crate::observer::{Behind, Observed, Observer};
use crate::peer::Peer;
use crate::status::StatusCode;
use crate::step::{Action, Body, Call, Close, Step, Transmit, Wait};
use crate::task::Task;
use crate::time::Tick;
use crate::timer::{ReadTimer, Transfer};
use crate::wire::{Cycle, Encoder, Ended, Inbound, InboundEvent, Outbound, OutboundEvent, Span};

/// More moves than any poll can need before a step is due.
const MAX_MOVES: usize = 64;

/// One connection: bytes and time in, bytes and actions out.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    notes: Notes,
    life: Life,
    /// A request has come on it.
    served: bool,
    /// The number of the last action.
    ticket: u32,
    cycle: Cycle,
    task: Task,
    exchange: Exchange,
    file: FilePart,
    relay: Passthrough,
    awaited: ReadTimer,
    /// Since the socket took no more, until all is sent.
    stalled: Option<Transfer>,
    /// Bytes that went out since the last poll.
    sent: u64,
    /// What the window had seen arrive at the last poll.
    arrived: u64,
    /// Where somebody wants to see what happens. Boxed: few connections are observed, and all are to be small.
    observed: Option<Box<Observed>>,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Connection>() <= 256);

/// What was noted and not yet acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notes {
    eof: bool,
    /// The socket takes no more for now.
    blocked: bool,
    /// The next bytes of the file are being read.
    file_pending: bool,
    server: Server,
    probe: Probe,
    order: Order,
    fault: Option<Fault>,
    given: Given,
}

/// What the next poll is to reckon with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    None,
    /// There is no memory to be had.
    Scarce,
    /// It is over, and needs none.
    Cut,
}

impl Notes {
    fn is_draining(&self) -> bool {
        self.server == Server::Drains
    }
}

/// A step that was given and that is taken for carried out by the next poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Given {
    #[default]
    Nothing,
    /// The next poll begins anew.
    Finished,
    /// If the driver could do it, the next poll lingers.
    Shut,
}

/// Whether the socket was looked at, where something depends on what has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probe {
    #[default]
    No,
    /// It is to be, since the server drains.
    Due,
    /// It is to be, since a timer is due.
    DueOfTimer,
    /// It was, since the last poll.
    Answered,
    /// The same, and the timer fires if it is still due.
    AnsweredOfTimer,
    /// It was, and nothing was read by other means since.
    Done,
}

/// How the connection as a whole stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// It closes as soon as its exchange is finished.
    Ending(Close),
    /// All is said since the server drains. It closes if nothing more has arrived, or else half-closes.
    Parting,
    /// A half-close is due.
    Shut,
    /// Half-closed: what still comes is read and dropped, so that no reset overtakes the answer
    /// (RFC 9112 section 9.6).
    Lingering,
    /// It closes.
    Close(Close),
}

/// A step that borrows nothing yet.
enum Next {
    Send,
    Feed(usize),
    Act(Act),
    Call(Call),
    Finished,
    Probe,
    Wait(Wait),
    Shut,
    Close(Close),
}

/// An action that borrows nothing yet.
enum Act {
    Files(PendingAction),
    Cgi(cgi::PendingAction),
    Log,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: Peer, cx: &Context<'_>) -> Connection {
        Resting::new(peer, cx).resume()
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Shows an observer everything that happens from here on; to be called before the first poll. `Reply`s are not
    /// shown: a handler is a part of the connection's world that says the same each time, or cannot be repeated.
    ///
    /// It ends with the connection, or when the observer wants no more.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observed = Some(Box::new(Observed::new(observer)));
    }

    /// Drops its observer.
    pub fn end_observation(&mut self) {
        self.observed = None;
    }

    /// Whether it has an observer.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed.is_some()
    }

    /// Notes what happened. Cheap, and right in any state: what does not fit is ignored.
    pub fn handle(&mut self, input: Input) {
        if let Some(observed) = &mut self.observed {
            observed.input(&input);
        }
        self.note(input);
    }

    /// The same, where it is the connection itself that knows.
    #[inline]
    fn note(&mut self, input: Input) {
        if matches!(input, Input::Probed | Input::Eof | Input::Broken(_)) {
            self.notes.probe = match self.notes.probe {
                Probe::Due => Probe::Answered,
                Probe::DueOfTimer => Probe::AnsweredOfTimer,
                as_it_is => as_it_is,
            };
        }
        match input {
            Input::Probed => {}
            Input::Eof => self.notes.eof = true,
            Input::Sent(n) => self.sent += n,
            Input::Blocked => self.notes.blocked = true,
            Input::Writable => self.notes.blocked = false,
            Input::FilePending => self.notes.file_pending = self.file.left > 0,
            Input::FileReady => self.notes.file_pending = false,
            Input::Done(ticket, completion) => match &mut self.task {
                _ if ticket.0 != self.ticket => {}
                Task::Files(files) => files.complete(completion),
                Task::Cgi(cgi) => cgi.complete(&completion),
                Task::None | Task::Handler(_) => {}
            },
            Input::Wake => {
                if let Some(handler) = self.handler() {
                    handler.woken = true;
                }
            }
            Input::Broken(fault) => self.notes.fault = self.notes.fault.or(Some(fault)),
            Input::Drain => self.notes.server = Server::Drains,
            Input::Leave => self.notes.server = self.notes.server.max(Server::Leaves),
            Input::Cut => self.notes.order = Order::Cut,
            Input::Scarce if self.notes.order == Order::None => self.notes.order = Order::Scarce,
            Input::Scarce => {}
            Input::Fed(_)
            | Input::FeedBlocked
            | Input::Feedable
            | Input::FeedEnd
            | Input::SpoolFull
            | Input::ScriptEof
            | Input::ScriptFailed(_) => {
                if let Task::Cgi(cgi) = &mut self.task {
                    cgi.handle(&input);
                }
            }
        }
    }

    /// Fires the timers that are due and names the next step. Call it until it says
    /// [`Step::Wait`] or [`Step::Close`].
    ///
    /// If several steps are due, they come in this order: `Close` (only when no exchange is
    /// unfinished), `Finished`, `Probe`, `Send`, `Feed`, `Act`, `Call`, `Shut`, `Wait`. A script of an exchange that was
    /// given up is killed before `Finished`.
    ///
    /// A driver that answers `Sent` for bytes which it only holds flushes them before it obeys
    /// `Wait`, `Shut` or `Close`; if the socket takes no more, it hands in [`Input::Blocked`] and
    /// polls again: `Shut` and `Close` then come again when the socket is writable. A `Close` that
    /// comes while the socket is still full means that the write timeout has expired, and what is held is given up.
    /// Unless `Blocked` is handed in, `Shut` counts as done.
    pub fn poll<'a>(&mut self, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        if let Some(observed) = &mut self.observed {
            observed.before(buf, cx.now);
        }
        buf.share.deny(self.notes.order == Order::Scarce);
        let next = self.next(buf, cx);
        if buf.share.take_refused() {
            if let Some(observed) = &mut self.observed {
                observed.refused();
            }
        }
        if self.observed.is_none() {
            // Returned as it is made: a step is not small, and is not to be copied.
            return self.step(next, buf, cx);
        }
        self.observed_step(next, buf, cx)
    }

    #[cold]
    fn observed_step<'a>(&mut self, next: Next, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        let behind = Behind::of(buf);
        let step = self.step(next, buf, cx);
        self.observed.take_if(|observed| !observed.step(&step, behind));
        step
    }

    // Once a poll, as `next` is: what they make is not to be copied.
    #[inline(always)]
    fn step<'a>(&mut self, next: Next, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        match next {
            Next::Send => Step::Send(self.transmit(buf)),
            Next::Feed(n) => Step::Feed(&buf.input.unread()[..n]),
            Next::Act(act) => {
                self.ticket = self.ticket.wrapping_add(1);
                let action = match act {
                    Act::Files(pending) => self.action(pending, buf),
                    Act::Cgi(pending) => match &self.task {
                        Task::Cgi(cgi) => cgi.action(pending, buf, cx),
                        _ => Action::Kill,
                    },
                    Act::Log => Action::Log { lines: &buf.scratch.remarks },
                };
                Step::Act(Ticket(self.ticket), action)
            }
            Next::Call(call) => Step::Call(call),
            Next::Finished => Step::Finished(self.entry(buf)),
            Next::Probe => Step::Probe(&mut buf.input),
            Next::Wait(wait) => Step::Wait(wait),
            Next::Shut => Step::Shut,
            Next::Close(close) => Step::Close(close),
        }
    }

    /// The handler's side of the connection, for [`Step::Call`].
    pub fn reply<'a>(&'a mut self, buf: &'a mut Buffers, cx: &'a Context<'a>) -> Reply<'a> {
        if let Some(observed) = &mut self.observed {
            observed.arrived(buf);
        }
        Reply { connection: self, buf, cx, waker: None }
    }

    #[inline(always)]
    fn next(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Next {
        self.absorb(buf, cx);
        self.fire_timers(buf, cx);
        for _ in 0..MAX_MOVES {
            if let Some(next) = self.due(buf, cx) {
                return next;
            }
            if !self.advance(buf, cx) {
                return Next::Wait(self.wait(buf, cx));
            }
        }
        unreachable!("a poll that moves for ever: {self:?}")
    }

    // What was noted.

    fn absorb(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let sent = std::mem::take(&mut self.sent);
        if sent > 0 {
            self.absorb_sent(sent, buf);
        }
        self.absorb_blocked(sent, buf, cx.now.tick);
        if matches!(self.task, Task::Cgi(_)) {
            if let (Task::Cgi(cgi), mut response) = self.parts(buf, cx) {
                cgi.absorb(sent > 0, &mut response);
            }
        }
        match self.notes.given {
            Given::Nothing => {}
            Given::Finished => {
                self.notes.given = Given::Nothing;
                self.begin_anew(buf);
            }
            Given::Shut => {
                self.notes.given = Given::Nothing;
                if !self.notes.blocked {
                    self.life = Life::Lingering;
                    self.awaited = ReadTimer::End(Transfer::start(cx.now.tick));
                }
            }
        }
        self.absorb_arrived(buf, cx.now.tick);
        if let Some(fault) = self.notes.fault {
            self.notes.fault = None;
            self.absorb_fault(fault, buf, cx);
        }
        if self.notes.order != Order::None && std::mem::take(&mut self.notes.order) == Order::Cut {
            self.cut(Cut::Shutdown, Close::Drained, buf);
        }
    }

    fn absorb_sent(&mut self, sent: u64, buf: &mut Buffers) {
        let formatted = (buf.output.unsent().len() as u64).min(sent);
        buf.output.sent(usize::try_from(formatted).expect("no more than there is"));
        let of_file = (sent - formatted).min(self.file.left);
        self.file.offset += of_file;
        self.file.left -= of_file;
        self.notes.file_pending &= self.file.left > 0;
        self.absorb_relayed(sent - formatted - of_file, buf);
        let of_head = u64::from(self.exchange.head_left).min(sent);
        self.exchange.head_left -= u32::try_from(of_head).expect("no more than there is");
        self.exchange.body_sent += sent - of_head;
        let of_interim = u64::from(self.exchange.interim_left).min(sent);
        self.exchange.interim_left -= u32::try_from(of_interim).expect("no more than there is");
        self.exchange.is_out |= sent > of_interim;
    }

    /// Runs the clock of what the peer takes, from when the socket takes no more until all is sent.
    fn absorb_blocked(&mut self, sent: u64, buf: &Buffers, now: Tick) {
        let Some(stalled) = &mut self.stalled else {
            if self.notes.blocked {
                self.stalled = Some(Transfer::start(now));
            }
            return;
        };
        stalled.made(sent, now);
        // A handler may take its time, and so may a disk; all else that files send is there at once.
        let others_turn = (!self.has_unsent(buf) && !matches!(self.task, Task::Files(_))) || self.awaits_file();
        if !self.notes.blocked && others_turn {
            self.stalled = None;
        }
    }

    fn absorb_relayed(&mut self, sent: u64, buf: &mut Buffers) {
        let of_script = u64::from(self.relay.left).min(sent);
        let of_tail = u64::from(self.relay.tail).min(sent - of_script);
        buf.script.consume(of_script as usize);
        self.relay.left -= of_script as u32;
        self.relay.tail -= of_tail as u8;
    }

    fn absorb_arrived(&mut self, buf: &Buffers, now: Tick) {
        let arrived = buf.input.arrived();
        let bytes = arrived.wrapping_sub(self.arrived);
        self.arrived = arrived;
        self.notes.probe = match self.notes.probe {
            Probe::Answered => Probe::Done,
            Probe::Done if bytes > 0 => Probe::No,
            as_it_is => as_it_is,
        };
        match &mut self.awaited {
            ReadTimer::Body(progress) | ReadTimer::End(progress) => progress.made(bytes, now),
            // The head's timer runs from its first byte.
            ReadTimer::Request { .. } | ReadTimer::First { .. } if !buf.input.unread().is_empty() => {
                self.awaited = ReadTimer::Head { since: now }
            }
            _ => {}
        }
    }

    fn absorb_fault(&mut self, fault: Fault, buf: &mut Buffers, cx: &Context<'_>) {
        let unseen = self.cycle.is_answering() && !self.exchange.is_out;
        let is_handlers = !matches!(self.task, Task::Files(_));
        let is_complete = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose);
        if fault == Fault::Handler && is_complete && self.exchange.is_open() && self.life == Life::Open {
            // It had said all there is to say before it failed: the answer is none the worse for that.
            self.cycle.spoil();
        } else if fault == Fault::Handler && is_handlers && unseen && self.life == Life::Open {
            if let Outbound::Body(_) = self.cycle.outbound {
                self.cycle.answer(OutboundEvent::TakenBack);
            }
            (self.file, self.relay) = (FilePart::default(), Passthrough::default());
            self.notes.file_pending = false;
            // What is left of an interim answer has to go out whole.
            buf.output.keep(self.exchange.interim_left as usize);
            self.exchange.head_left = self.exchange.interim_left;
            self.response(buf, cx).give_up_body();
            if let Task::Cgi(cgi) = &mut self.task {
                cgi.give_up();
            }
            self.response(buf, cx).error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        } else {
            self.cut(Cut::Fault(fault), Close::Broken, buf);
        }
    }

    /// Gives up what is under way.
    fn cut(&mut self, why: Cut, close: Close, buf: &mut Buffers) {
        if let Life::Close(_) = self.life {
            // Bytes that the driver still holds are given up too.
            self.notes.blocked = false;
            return;
        }
        if self.exchange.is_open() {
            let complete = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose) && !self.has_unsent(buf);
            if !complete {
                self.exchange.cut = Some(why);
            }
        }
        buf.output.clear();
        self.file = FilePart::default();
        self.relay = Passthrough::default();
        self.notes.blocked = false;
        self.notes.file_pending = false;
        self.awaited = ReadTimer::Nothing;
        self.life = Life::Ending(close);
    }

    // Timers.

    fn fire_timers(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let (now, timeouts) = (cx.now.tick, &cx.config.timeouts);
        let is_due = match &self.awaited {
            ReadTimer::Nothing => false,
            awaited => awaited.deadline(timeouts, self.notes.is_draining()).is_some_and(|deadline| deadline <= now),
        };
        if self.may_fire(is_due, buf, cx) {
            match std::mem::replace(&mut self.awaited, ReadTimer::Nothing) {
                ReadTimer::Nothing => {}
                ReadTimer::Request { .. } => self.life = Life::Close(Close::Idle),
                ReadTimer::First { .. } => self.life = Life::Close(Close::Drained),
                // Its time is not prolonged by what has come, but a head that is complete has come in time.
                ReadTimer::Head { .. } if self.cycle.outbound == Outbound::Idle && self.read_head(buf, cx) => {}
                ReadTimer::Head { .. } => self.refuse_head(Violation::HeadTimeout, Span::default(), buf, cx),
                ReadTimer::Body(_) => self.body_violation(Violation::BodyTimeout, buf, cx),
                ReadTimer::End(_) => self.life = Life::Close(Close::Timeout),
            }
        }
        if let (Task::Cgi(_), Life::Open) = (&self.task, self.life) {
            let may_be_gone = self.may_be_gone(buf);
            if let (Task::Cgi(cgi), mut response) = self.parts(buf, cx) {
                let progress = cgi.expire(may_be_gone, &mut response);
                self.follow(progress, buf, cx);
            }
        }
        let too_slow = |stalled: &Transfer| stalled.deadline(&timeouts.write) <= now;
        if self.notes.blocked && self.stalled.as_ref().is_some_and(too_slow) {
            self.cut(Cut::Slow, Close::Timeout, buf);
        }
    }

    /// Whether the timer of what is awaited fires: only when the socket has been looked at since it is due. What
    /// has arrived by then came in time, even if the driver is late.
    fn may_fire(&mut self, is_due: bool, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        match self.notes.probe {
            Probe::AnsweredOfTimer => self.notes.probe = Probe::Done,
            _ if is_due => self.probe(Probe::DueOfTimer, buf, cx),
            _ => {}
        }
        is_due && self.notes.probe == Probe::Done
    }

    /// Has the socket looked at, if there is room for what comes.
    fn probe(&mut self, due: Probe, buf: &mut Buffers, cx: &Context<'_>) {
        let room = buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share);
        self.notes.probe = if room && !self.notes.eof { due } else { Probe::Done };
    }

    /// Whether what has arrived is to be known now: the server drains, and what has arrived is answered.
    fn wants_probe(&self) -> bool {
        if !self.notes.is_draining() || self.notes.probe != Probe::No {
            return false;
        }
        match self.life {
            Life::Open => match self.cycle.outbound {
                Outbound::Idle => !self.notes.blocked,
                Outbound::Owed => self.cycle.inbound == Inbound::Done && self.exchange.answer == Answer::None,
                _ => false,
            },
            Life::Parting => true,
            _ => false,
        }
    }

    // The step that is due.

    fn due(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Option<Next> {
        if self.is_between() {
            return None;
        }
        if let (Life::Close(close), false) = (self.life, self.notes.blocked) {
            return Some(Next::Close(close));
        }
        let unsent = self.has_unsent(buf);
        if self.exchange.is_open() && self.has_ended(unsent) {
            if std::mem::take(&mut self.exchange.has_remarks) {
                return Some(Next::Act(Act::Log));
            }
            if let Task::Cgi(cgi) = &mut self.task {
                if self.exchange.cut.is_some() {
                    cgi.abandon();
                }
                if let Some(kill) = cgi.take_kill() {
                    return Some(Next::Act(Act::Cgi(kill)));
                }
            }
            if let Task::Handler(handler) = &mut self.task {
                if let Some(call) = handler.take_last_call() {
                    return Some(Next::Call(call));
                }
            }
            self.notes.given = Given::Finished;
            return Some(Next::Finished);
        }
        if self.wants_probe() {
            self.probe(Probe::Due, buf, cx);
        }
        if matches!(self.notes.probe, Probe::Due | Probe::DueOfTimer)
            && matches!(self.life, Life::Open | Life::Parting | Life::Lingering)
        {
            return Some(Next::Probe);
        }
        if unsent && !self.notes.blocked && !self.awaits_file() {
            return Some(Next::Send);
        }
        if self.exchange.has_remarks {
            self.exchange.has_remarks = false;
            return Some(Next::Act(Act::Log));
        }
        let act = match &mut self.task {
            Task::Files(files) => files.take_pending().map(Act::Files),
            Task::Cgi(cgi) if cgi.offered() > 0 && self.cycle.is_answering() => return Some(Next::Feed(cgi.offered())),
            Task::Cgi(cgi) => cgi.take_pending().map(Act::Cgi),
            Task::None | Task::Handler(_) => None,
        };
        if let Some(act) = act {
            return Some(Next::Act(act));
        }
        if let Task::Handler(handler) = &mut self.task {
            if let Some(call) = handler.take_call(self.cycle.is_answering(), self.notes.is_draining(), !unsent) {
                return Some(Next::Call(call));
            }
        }
        if let (Life::Shut, false) = (self.life, self.notes.blocked) {
            self.notes.given = Given::Shut;
            return Some(Next::Shut);
        }
        None
    }

    /// Whether nothing is owed to anybody: no request is there, and the connection goes on.
    fn is_between(&self) -> bool {
        let is_idle = self.life == Life::Open && self.cycle.outbound == Outbound::Idle;
        is_idle && self.notes.probe == Probe::No && !self.notes.is_draining()
    }

    /// Whether the exchange is over: answered and read, or given up.
    fn has_ended(&self, unsent: bool) -> bool {
        matches!(self.life, Life::Ending(_)) || (!unsent && self.cycle.ended().is_some())
    }

    fn has_unsent(&self, buf: &Buffers) -> bool {
        !buf.output.unsent().is_empty() || self.file.left > 0 || self.relay != Passthrough::default()
    }

    /// Whether nothing can be sent before the driver has read more of the file.
    fn awaits_file(&self) -> bool {
        self.notes.file_pending && self.file.left > 0
    }

    fn transmit<'a>(&self, buf: &'a Buffers) -> Transmit<'a> {
        let FilePart { offset, left: len } = self.file;
        let body = match self.relay.left as usize {
            _ if len > 0 => Body::File { offset, len },
            0 => Body::None,
            relayed => Body::Bytes(&buf.script.unread()[..relayed]),
        };
        let more = matches!(&self.task, Task::Files(files) if !files.is_written());
        Transmit { head: buf.output.unsent(), body, tail: self.relay.tail(), more }
    }

    fn action<'a>(&self, pending: PendingAction, buf: &'a mut Buffers) -> Action<'a> {
        match (pending, &self.task) {
            (PendingAction::OpenIn(_), Task::Files(files)) => {
                Action::OpenIn { path: files.index_name(&buf.scratch.path) }
            }
            (PendingAction::List, _) => Action::List { into: &mut buf.scratch.listing },
            _ => Action::Open { path: &buf.scratch.path },
        }
    }

    fn entry<'a>(&self, buf: &'a Buffers) -> Entry<'a> {
        Entry {
            peer: self.peer,
            line: if buf.moved.is_empty() {
                buf.head.line.of_bytes(buf.input.head())
            } else {
                first_line(buf.input.head())
            },
            status: self.exchange.answer.status().map_or(0, StatusCode::code),
            sent: self.exchange.body_sent,
            error: self.exchange.answer.is_error().then_some(buf.scratch.message.as_slice()),
            cut: self.exchange.cut.map(Cut::reason),
        }
    }

    /// After `Finished`: the next exchange, or the end.
    fn begin_anew(&mut self, buf: &mut Buffers) {
        buf.input.unpin();
        buf.moved.clear();
        buf.trailers.clear();
        buf.trailing.clear();
        buf.reasons.clear();
        buf.end_exchange();
        let then = self.exchange.then;
        self.exchange = Exchange::default();
        self.task = Task::None;
        self.notes.file_pending = false;
        self.notes.probe = Probe::No;
        if !self.notes.blocked {
            self.stalled = None;
        }
        self.life = match self.life {
            Life::Ending(close) => Life::Close(close),
            // While the server drains too: a request that has arrived is answered.
            _ if self.cycle.ended() == Some(Ended::Next) => {
                self.cycle.receive(InboundEvent::Next);
                self.cycle.answer(OutboundEvent::Next);
                return;
            }
            _ if then == Then::Upgrade => {
                self.cycle.stop_receiving();
                self.cycle.answer(OutboundEvent::Stop);
                Life::Close(Close::Upgraded)
            }
            _ => {
                let all_read = self.cycle.inbound == Inbound::Done && buf.input.unread().is_empty();
                self.cycle.stop_receiving();
                self.cycle.answer(OutboundEvent::Stop);
                if self.notes.eof || (all_read && then == Then::PeerCloses) {
                    Life::Close(Close::Done)
                } else if all_read && self.notes.is_draining() && then != Then::KeepAlive {
                    Life::Parting
                } else {
                    Life::Shut
                }
            }
        };
    }

    // Moving on.

    fn advance(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        match self.life {
            Life::Ending(close) => {
                self.life = Life::Close(close);
                true
            }
            Life::Parting => {
                let all_read = buf.input.unread().is_empty();
                self.life = if all_read || self.notes.eof { Life::Close(Close::Drained) } else { Life::Shut };
                true
            }
            Life::Shut | Life::Close(_) => false,
            Life::Lingering => self.linger(buf, cx),
            // Until the driver is rid of what it holds, no further request is begun.
            Life::Open if self.cycle.outbound == Outbound::Idle => !self.notes.blocked && self.read_head(buf, cx),
            Life::Open => self.advance_task(buf, cx) || self.drain(buf, cx),
        }
    }

    fn linger(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let unread = buf.input.unread().len();
        buf.input.consume(unread);
        let too_much = matches!(&self.awaited, ReadTimer::End(progress) if progress.bytes() > cx.config.limits.linger);
        if self.notes.eof || too_much {
            self.life = Life::Close(if too_much { Close::Timeout } else { Close::Done });
            return true;
        }
        false
    }

    /// The exchange, for a task that goes on with it.
    fn response<'t>(&'t mut self, buf: &'t mut Buffers, cx: &'t Context<'t>) -> ResponseBuilder<'t> {
        self.parts(buf, cx).1
    }

    /// The same, with the task.
    fn parts<'t>(&'t mut self, buf: &'t mut Buffers, cx: &'t Context<'t>) -> (&'t mut Task, ResponseBuilder<'t>) {
        let Connection { task, exchange, cycle, file, relay, peer, notes, .. } = self;
        let Notes { server, eof, .. } = *notes;
        (task, ResponseBuilder { exchange, cycle, file, relay, buf, cx, peer: *peer, server, eof })
    }

    /// Whether it was told that the server goes down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.notes.is_draining()
    }

    /// Whether the peer has half-closed without having said that it would, so that it may have gone away: TCP
    /// does not tell which. One that has announced its last request (`Connection: close`, or HTTP/1.0 without
    /// keep-alive) has only kept its word, one that has sent further requests waits for their answers, and one
    /// whose answer is out has what it wants.
    fn may_be_gone(&self, buf: &Buffers) -> bool {
        let sent_more = || {
            let unread = buf.input.unread();
            self.cycle.inbound == Inbound::Done && unread.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
        };
        let awaits = self.cycle.outbound != Outbound::Body(Encoder::None);
        self.notes.eof && awaits && self.exchange.then != Then::PeerCloses && !sent_more()
    }

    /// Whether an exchange is in progress: begun, and not finished.
    #[must_use]
    pub fn has_exchange(&self) -> bool {
        self.exchange.is_open()
    }

    /// Whether the server is about to leave, or goes down.
    fn is_leaving(&self) -> bool {
        self.notes.server > Server::Stays
    }
}

/// The first line of a head, without its end.
fn first_line(head: &[u8]) -> &[u8] {
    &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())]
}

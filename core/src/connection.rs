//! The connection: the state machine that a driver uses, and the place of all policy.
//!
//! [`Connection::handle`] records inputs; [`Connection::poll`] processes them and returns the next step. A poll does
//! four things: it absorbs the inputs, fires timers, looks for the step that is due, and advances until one is. What a
//! task does is in the modules of the tasks.

mod reply;
mod request;
mod rest;
mod state;
mod wait;

pub use reply::{Received, Reply};
pub use rest::{Packed, Resting};
pub use state::State;

use std::sync::Arc;
use std::time::Duration;

use crate::buffers::Buffers;
use crate::cgi;
use crate::context::Context;
use crate::entry::Entry;
use crate::error::Violation;
use crate::exchange::{Answer, Asked, Cut, Exchange, FilePart, Passthrough, ResponseBuilder, Server, Then};
use crate::files;
use crate::input::{Fault, Input, Ticket};
use crate::observer::{Behind, Observed, Observer};
use crate::peer::Peer;
use crate::secured::Secured;
use crate::status::StatusCode;
use crate::step::{Action, Body, Call, Close, Step, Transmit, Wait};
use crate::task::Task;
use crate::time::Tick;
use crate::timer::{ReadTimer, Transfer};
use crate::wire::{Cycle, Encoder, Ended, Inbound, InboundEvent, Outbound, OutboundEvent, Span};

/// More moves than any poll needs before a step is due.
const MAX_MOVES: usize = 64;

/// A connection: bytes and time go in, bytes and actions come out.
///
/// ```
/// use sanserve_core::{Action, Buffers, Config, Connection, Context, DefaultPolicy, Now, Peer, Step, Tick, Wall};
///
/// let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
/// let (mut connection, mut buf) = (Connection::new(peer, &cx), Buffers::new());
///
/// buf.input.fill(b"GET /a.txt HTTP/1.1\r\nHost: example\r\n\r\n");
/// let Step::Act(_, Action::Open { path }) = connection.poll(&mut buf, &cx) else { panic!() };
/// assert_eq!(path, b"a.txt");
/// ```
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    secured: Option<Arc<Secured>>,
    notes: Notes,
    life: Life,
    /// Whether it has received a request.
    served: bool,
    /// The number of the last action.
    ticket: u32,
    cycle: Cycle,
    task: Task,
    exchange: Exchange,
    file: FilePart,
    relay: Passthrough,
    awaited: ReadTimer,
    /// Since when the socket was full, until everything has been sent.
    stalled: Option<Transfer>,
    /// Bytes that were sent since the last poll.
    sent: u64,
    /// The number of bytes that had arrived at the last poll, modulo 2^32: less arrives between two polls.
    arrived: u32,
    /// The observer, if there is one. Boxed, since few connections are observed, and all should be small.
    observed: Option<Box<Observed>>,
}

/// Invariant: an idle connection is cheap.
const _: () = assert!(size_of::<Connection>() <= 256);

/// Inputs that were recorded and not processed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notes {
    security: Security,
    eof: bool,
    /// The socket is full.
    blocked: bool,
    /// The driver is reading the next bytes of the file.
    file_pending: bool,
    server: Server,
    probe: Probe,
    order: Order,
    fault: Option<Fault>,
    given: Given,
}

/// Whether the connection is secured by TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Security {
    /// It need not be.
    #[default]
    Plain,
    /// The handshake is in progress.
    Handshake,
    Secured,
    /// It should be, and the peer speaks plain HTTP.
    Unsecured,
}

/// What the next poll has to take into account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    None,
    /// No memory is available.
    Scarce,
    /// The connection has to close.
    Cut,
}

impl Notes {
    fn is_draining(&self) -> bool {
        self.server == Server::Drains
    }
}

/// A step that was returned, and that the next poll treats as carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Given {
    #[default]
    Nothing,
    /// The next poll begins the next exchange.
    Finished,
    /// If the driver was able to, the next poll lingers.
    Shut,
}

/// Whether the socket was read, if something depends on what has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probe {
    #[default]
    No,
    /// It has to be read, because the server drains.
    Due,
    /// It has to be read, because a timer is due.
    DueOfTimer,
    /// It was read since the last poll.
    Answered,
    /// It was read since the last poll, and the timer fires if it is still due.
    AnsweredOfTimer,
    /// It was read, and no bytes have arrived since.
    Done,
}

/// The life cycle of the connection as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// It closes as soon as its exchange is finished.
    Ending(Close),
    /// Everything has been sent, and the server drains. It closes if nothing more has arrived, or else half-closes.
    Parting,
    /// A half-close is due.
    Shut,
    /// Half-closed. What still arrives is read and discarded, so that no reset destroys the last response.
    /// RFC 9112 section 9.6: "To avoid the TCP reset problem, servers typically close a connection in stages."
    Lingering,
    /// It closes.
    Close(Close),
}

/// A step that does not borrow anything yet.
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

/// An action that does not borrow anything yet.
enum Act {
    Files(files::PendingAction),
    Cgi(cgi::PendingAction),
    Log,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: Peer, cx: &Context<'_>) -> Connection {
        Resting::new(peer, cx).resume()
    }

    /// The address of the client.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sets an observer for everything that happens from now on. Call it before the first poll. Calls of [`Reply`] are
    /// not observed: what a handler does is either a function of its calls, or cannot be repeated.
    ///
    /// The observation ends with the connection, or when the observer ends it.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observed = Some(Box::new(Observed::new(observer)));
    }

    /// Drops the observer.
    pub fn end_observation(&mut self) {
        self.observed = None;
    }

    /// Whether there is an observer.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed.is_some()
    }

    /// Records an input. It is cheap, and valid in any state: an input that does not fit is ignored.
    pub fn handle(&mut self, input: Input) {
        if let Some(observed) = &mut self.observed {
            observed.input(&input);
        }
        self.note(input);
    }

    /// Like [`handle`](Self::handle), for inputs of the connection itself.
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
            Input::Handshake | Input::Secured(_) | Input::Unsecured => self.note_security(input),
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

    #[cold]
    fn note_security(&mut self, input: Input) {
        match (input, self.notes.security, self.awaited) {
            (Input::Handshake, Security::Plain, ReadTimer::Request { since }) if !self.served => {
                self.notes.security = Security::Handshake;
                self.awaited = ReadTimer::Handshake { since };
            }
            (Input::Secured(secured), Security::Handshake, _) => {
                self.notes.security = Security::Secured;
                self.secured = Some(secured);
                self.end_handshake();
            }
            (Input::Unsecured, Security::Handshake, _) => {
                self.notes.security = Security::Unsecured;
                self.end_handshake();
            }
            _ => {}
        }
    }

    /// What is expected next is determined when nothing is left to do.
    fn end_handshake(&mut self) {
        if let ReadTimer::Handshake { .. } = self.awaited {
            self.awaited = ReadTimer::Nothing;
        }
    }

    /// Processes the inputs, fires the timers that are due, and returns the next step. Call it until it returns
    /// [`Step::Wait`] or [`Step::Close`].
    ///
    /// If several steps are due, they come in this order: `Close` (only when no exchange is unfinished), `Finished`,
    /// `Probe`, `Send`, `Feed`, `Act`, `Call`, `Shut`, `Wait`. A script whose exchange was given up is killed before
    /// `Finished`.
    ///
    /// A driver that passes `Sent` for bytes that it only holds must flush them before it carries out `Wait`, `Shut` or
    /// `Close`. If the socket is full, it passes [`Input::Blocked`] and polls again: `Shut` and `Close` are then
    /// repeated when the socket is writable. A `Close` that comes while the socket is still full means that the write
    /// timeout has expired, and the bytes are discarded. Unless `Blocked` is passed, `Shut` counts as carried out.
    pub fn poll<'a>(&mut self, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        if let Some(observed) = &mut self.observed {
            // What was refused to another connection is not shown.
            buf.share.take_refused();
            observed.before(buf, cx.now);
        }
        buf.share.deny(self.notes.order == Order::Scarce);
        let next = self.next(buf, cx);
        if self.observed.is_none() {
            // Returned directly, so that the step is not copied.
            return self.step(next, buf, cx);
        }
        self.observed_step(next, buf, cx)
    }

    #[cold]
    fn observed_step<'a>(&mut self, next: Next, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        if let (true, Some(observed)) = (buf.share.take_refused(), &mut self.observed) {
            observed.refused();
        }
        let behind = Behind::of(buf);
        let step = self.step(next, buf, cx);
        self.observed.take_if(|observed| !observed.step(&step, behind));
        step
    }

    // Inlined, like `next`, because it is called once per poll and its result should not be copied.
    #[inline(always)]
    fn step<'a>(&mut self, next: Next, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        match next {
            Next::Send => Step::Send(self.transmit(buf)),
            Next::Feed(n) => Step::Feed(&buf.input.unread()[..n]),
            Next::Act(act) => {
                self.ticket = self.ticket.wrapping_add(1);
                let action = match (act, &self.task) {
                    (Act::Files(pending), Task::Files(files)) => files.action(pending, &mut buf.scratch),
                    (Act::Cgi(pending), Task::Cgi(cgi)) => cgi.action(pending, buf, cx),
                    // The task is the one that was asked for its action.
                    (Act::Files(_) | Act::Cgi(_), _) => Action::Kill,
                    (Act::Log, _) => Action::Log { lines: &buf.scratch.remarks },
                };
                Step::Act(Ticket(self.ticket), action)
            }
            Next::Call(call) => Step::Call(call),
            Next::Finished => Step::Finished(self.entry(buf, cx)),
            Next::Probe => Step::Probe(&mut buf.input),
            Next::Wait(wait) => Step::Wait(wait),
            Next::Shut => Step::Shut,
            Next::Close(close) => Step::Close(close),
        }
    }

    /// The view of the connection for a handler, for [`Step::Call`].
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
        unreachable!("a poll that does not end: {self:?}")
    }

    // Absorbing inputs.

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

    pub(super) fn absorb_sent(&mut self, sent: u64, buf: &mut Buffers) {
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

    /// Updates the write timer, which runs from when the socket is full until everything has been sent.
    fn absorb_blocked(&mut self, sent: u64, buf: &Buffers, now: Tick) {
        let Some(stalled) = &mut self.stalled else {
            if self.notes.blocked {
                self.stalled = Some(Transfer::start(now));
            }
            return;
        };
        stalled.made(sent, now);
        // A handler or a disk may be slow. Otherwise, what files send is always available.
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
        let arrived = buf.input.arrived() as u32;
        let bytes = u64::from(arrived.wrapping_sub(self.arrived));
        self.arrived = arrived;
        self.notes.probe = match self.notes.probe {
            Probe::Answered => Probe::Done,
            Probe::Done if bytes > 0 => Probe::No,
            as_it_is => as_it_is,
        };
        match &mut self.awaited {
            ReadTimer::Body(progress) | ReadTimer::End(progress) => progress.made(bytes, now),
            // The timer of a head runs from its first byte, which may arrive when the time for it is over
            // (`timeout-keep-alive-arrived`, `shutdown-asked-at-end`). `await_peer` starts it for a head behind
            // another request.
            ReadTimer::Request { .. } | ReadTimer::First { .. } if !buf.input.unread().is_empty() => {
                self.awaited = ReadTimer::Head { since: now }
            }
            _ => {}
        }
    }

    fn absorb_fault(&mut self, fault: Fault, buf: &mut Buffers, cx: &Context<'_>) {
        // If it is too late for the page, it is the page of no later exchange.
        let failed = buf.scratch.failed.take();
        let unseen = self.cycle.is_answering() && !self.exchange.is_out;
        let is_handlers = !matches!(self.task, Task::Files(_));
        let is_complete = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose);
        if fault == Fault::Handler && is_complete && self.exchange.is_open() && self.life == Life::Open {
            // The response was complete before the failure, so it is still valid.
            self.cycle.spoil();
        } else if fault == Fault::Handler && is_handlers && unseen && self.life == Life::Open {
            if let Outbound::Body(_) = self.cycle.outbound {
                self.cycle.answer(OutboundEvent::TakenBack);
            }
            self.drop_body();
            // The rest of an interim response has to be sent completely.
            buf.output.keep(self.exchange.interim_left as usize);
            self.exchange.head_left = self.exchange.interim_left;
            self.response(buf, cx).give_up_body();
            if let Task::Cgi(cgi) = &mut self.task {
                cgi.give_up();
            }
            if buf.output.is_refused {
                let message = "No memory for a response of this size";
                self.response(buf, cx).error(StatusCode::SERVICE_UNAVAILABLE, message);
            } else {
                let failed = failed.map_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into(), |failed| *failed);
                self.response(buf, cx).failed(&failed);
            }
        } else {
            self.cut(Cut::Fault(fault), Close::Broken, buf);
        }
    }

    /// Gives up the exchange in progress.
    fn cut(&mut self, why: Cut, close: Close, buf: &mut Buffers) {
        if let Life::Close(_) = self.life {
            // Bytes that the driver still holds are discarded too.
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
        self.drop_body();
        self.notes.blocked = false;
        self.awaited = ReadTimer::Nothing;
        self.life = Life::Ending(close);
    }

    /// Drops what is still to be sent of a file or of a script's output.
    fn drop_body(&mut self) {
        (self.file, self.relay) = (FilePart::default(), Passthrough::default());
        self.notes.file_pending = false;
    }

    // Timers.

    fn fire_timers(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let (now, timeouts) = (cx.now.tick, &cx.config.timeouts);
        let deadline = self.awaited.deadline(timeouts, self.notes.is_draining());
        let is_due = deadline.is_some_and(|deadline| deadline <= now);
        if self.may_fire(is_due, buf, cx) {
            match std::mem::replace(&mut self.awaited, ReadTimer::Nothing) {
                ReadTimer::Nothing => {}
                // Whatever is not sent of it is discarded.
                ReadTimer::Handshake { .. } => self.cut(Cut::Slow, Close::Timeout, buf),
                ReadTimer::Request { .. } => self.life = Life::Close(Close::Idle),
                ReadTimer::First { .. } => self.life = Life::Close(Close::Drained),
                // More bytes do not extend the timeout, but a complete head has arrived in time.
                head @ ReadTimer::Head { .. } => {
                    // Its log entry says since when.
                    self.awaited = head;
                    if self.cycle.outbound != Outbound::Idle || !self.read_head(buf, cx) {
                        self.refuse_head(Violation::HeadTimeout, Span::default(), buf, cx);
                    }
                }
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

    /// Whether the read timer fires: only after the socket has been read since the timer is due. Bytes that have
    /// arrived by then count, even if the driver is late.
    fn may_fire(&mut self, is_due: bool, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        match self.notes.probe {
            Probe::AnsweredOfTimer => self.notes.probe = Probe::Done,
            _ if is_due => self.probe(Probe::DueOfTimer, buf, cx),
            _ => {}
        }
        is_due && self.notes.probe == Probe::Done
    }

    /// Has the socket read, if there is room for bytes.
    fn probe(&mut self, due: Probe, buf: &mut Buffers, cx: &Context<'_>) {
        let room = buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share);
        self.notes.probe = if room && !self.notes.eof { due } else { Probe::Done };
    }

    /// Whether the socket has to be read, because the server drains and has to respond to what has arrived.
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

    // Finding the step that is due.

    fn due(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Option<Next> {
        if self.is_between() {
            return None;
        }
        if let (Life::Close(close), false) = (self.life, self.notes.blocked) {
            return Some(Next::Close(close));
        }
        let unsent = self.has_unsent(buf);
        if self.exchange.is_open() && self.has_ended(unsent) {
            return Some(self.due_at_end());
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
        if std::mem::take(&mut self.exchange.has_remarks) {
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

    /// The steps at the end of an exchange.
    fn due_at_end(&mut self) -> Next {
        if std::mem::take(&mut self.exchange.has_remarks) {
            return Next::Act(Act::Log);
        }
        if let Task::Cgi(cgi) = &mut self.task {
            if self.exchange.cut.is_some() {
                cgi.abandon();
            }
            if let Some(kill) = cgi.take_kill() {
                return Next::Act(Act::Cgi(kill));
            }
        }
        if let Task::Handler(handler) = &mut self.task {
            if let Some(call) = handler.take_last_call() {
                return Next::Call(call);
            }
        }
        self.notes.given = Given::Finished;
        Next::Finished
    }

    /// Whether the connection is open and no response is due.
    fn is_between(&self) -> bool {
        let is_idle = self.life == Life::Open && self.cycle.outbound == Outbound::Idle;
        is_idle && self.notes.probe == Probe::No && !self.notes.is_draining()
    }

    /// Whether the exchange has ended: the response is sent and the request read, or it was given up.
    fn has_ended(&self, unsent: bool) -> bool {
        matches!(self.life, Life::Ending(_)) || (!unsent && self.cycle.ended().is_some())
    }

    fn has_unsent(&self, buf: &Buffers) -> bool {
        !buf.output.unsent().is_empty() || self.file.left > 0 || self.relay != Passthrough::default()
    }

    /// Whether the driver has to read more of the file before anything can be sent.
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

    fn entry<'a>(&self, buf: &'a Buffers, cx: &Context<'_>) -> Entry<'a> {
        Entry {
            peer: self.peer,
            line: if buf.moved.is_empty() {
                buf.head.line.of_bytes(buf.input.head())
            } else {
                first_line(buf.input.head())
            },
            status: self.exchange.answer.status().map_or(0, StatusCode::code),
            sent: self.exchange.body_sent,
            received: buf.account.received,
            duration: Duration::from_millis(cx.now.real().since(buf.account.began)),
            error: self.exchange.answer.is_error().then_some(buf.scratch.message.as_slice()),
            cut: self.exchange.cut.map(Cut::reason),
            failure: (!buf.scratch.failure.is_empty()).then_some(buf.scratch.failure.as_slice()),
            tag: (!buf.scratch.tag.is_empty()).then_some(buf.scratch.tag.as_slice()),
            tls: self.secured.as_ref().map(|secured| secured.version),
            head: (self.exchange.asked == Asked::Request).then(|| (&buf.head, buf.head_bytes())),
        }
    }

    /// Begins the next exchange after `Finished`, or ends the connection.
    fn begin_anew(&mut self, buf: &mut Buffers) {
        buf.input.unpin();
        buf.moved.clear();
        buf.trailers.clear();
        buf.trailing.clear();
        buf.reasons.clear();
        buf.scratch.failure.clear();
        buf.scratch.tag.clear();
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
            // Even if the server drains: a request that has arrived has a response.
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

    // Advancing.

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
            // No further request is begun while the driver still holds bytes.
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

    /// The exchange, as the interface for a task.
    fn response<'t>(&'t mut self, buf: &'t mut Buffers, cx: &'t Context<'t>) -> ResponseBuilder<'t> {
        self.parts(buf, cx).1
    }

    /// The task, and the exchange as its interface.
    fn parts<'t>(&'t mut self, buf: &'t mut Buffers, cx: &'t Context<'t>) -> (&'t mut Task, ResponseBuilder<'t>) {
        let Connection { task, exchange, cycle, file, relay, peer, secured, notes, .. } = self;
        let Notes { server, eof, .. } = *notes;
        (
            task,
            ResponseBuilder {
                exchange,
                cycle,
                file,
                relay,
                buf,
                cx,
                peer: *peer,
                secured: secured.as_ref(),
                server,
                eof,
            },
        )
    }

    /// Whether the connection began with a TLS handshake ([`Input::Handshake`]), complete or not.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.notes.security != Security::Plain
    }

    /// Whether the server is shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.notes.is_draining()
    }

    /// Whether the client has half-closed without having announced it, so that it may have gone away, which TCP cannot
    /// distinguish. A client that has announced its last request (`Connection: close`, or HTTP/1.0 without keep-alive)
    /// has only done what it announced, one that has sent further requests waits for their responses, and one with a
    /// complete response has what it wants.
    fn may_be_gone(&self, buf: &Buffers) -> bool {
        let sent_more = || {
            let unread = buf.input.unread();
            self.cycle.inbound == Inbound::Done && unread.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
        };
        let awaits = self.cycle.outbound != Outbound::Body(Encoder::None);
        self.notes.eof && awaits && self.exchange.then != Then::PeerCloses && !sent_more()
    }

    /// Whether an exchange has begun and is not finished.
    #[must_use]
    pub fn has_exchange(&self) -> bool {
        self.exchange.is_open()
    }

    /// Whether a part of a file is being sent.
    #[must_use]
    pub fn is_sending_file(&self) -> bool {
        self.file.left > 0
    }

    /// Whether the server is about to leave, or is shutting down.
    fn is_leaving(&self) -> bool {
        self.notes.server > Server::Stays
    }
}

/// The first line of a head, without its line end.
fn first_line(head: &[u8]) -> &[u8] {
    &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())]
}

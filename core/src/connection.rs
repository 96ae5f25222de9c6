//! The connection: the only machine that a driver touches, and the place of all policy.
//!
//! [`Connection::handle`] notes what happened; [`Connection::poll`] acts on it and names the next
//! step. Everything in here is one of four: absorbing what was noted, firing timers, finding the
//! step that is due, or moving on to where a step is due.

use crate::buffers::Buffers;
use crate::cgi::{self, Cgi};
use crate::config::Protocol;
use crate::context::{Context, Peer, Tick};
use crate::entry::Entry;
use crate::error::{After, Violation};
use crate::exchange::{Answering, Cut, Exchange, FilePart, Relay};
use crate::files::{Deed, Files};
use crate::handler::Call;
use crate::input::{Fault, Input};
use crate::reply::{Handling, Reply};
use crate::request::Request;
use crate::site::Route;
use crate::status::Status;
use crate::step::{Action, Body, Close, Need, Step, Ticket, Transmit, Wait};
use crate::timer::{Awaited, Progress};
use crate::wire::{self, Cycle, Decoder, Expectation, Framing, Inbound, Method, Outbound, Refused, Scan, Span};

/// More moves than any poll can need before a step is due.
const MOST_MOVES: usize = 64;

/// One connection: bytes and time in, bytes and actions out.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    notes: Notes,
    life: Life,
    /// The number of the last action.
    ticket: u32,
    pub(crate) cycle: Cycle,
    pub(crate) task: Task,
    exchange: Exchange,
    pub(crate) file: FilePart,
    pub(crate) relay: Relay,
    awaited: Awaited,
    /// Since the socket took no more, until all is sent.
    stalled: Option<Progress>,
    /// Bytes that went out since the last poll.
    sent: u64,
    /// What the window had seen arrive at the last poll.
    arrived: u64,
}

/// A property that must hold: an idle connection is cheap.
const _: () = assert!(size_of::<Connection>() <= 256);

/// A connection between two exchanges, in a few bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resting {
    peer: Peer,
    ticket: u32,
    since: Tick,
}

const _: () = assert!(size_of::<Resting>() <= 32);

/// What is kept of the buffers of a connection that waits for its handler; see [`Connection::pack`].
#[derive(Clone, Debug)]
pub struct Packed {
    head: Box<[u8]>,
}

impl Packed {
    /// The longest head that is packed, which fits into fresh buffers. A longer one keeps them.
    const MOST: usize = 8 * 1024;
}

impl Resting {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: Peer, cx: &Context<'_>) -> Resting {
        Resting { peer, ticket: 0, since: cx.now.tick }
    }

    /// When to resume and poll it at the latest.
    #[must_use]
    pub fn deadline(&self, cx: &Context<'_>) -> Tick {
        let awaited = Awaited::Request { since: self.since };
        awaited.deadline(&cx.config.timeouts).expect("a request is not awaited for ever")
    }

    /// The connection, as it was.
    #[must_use]
    pub fn resume(self) -> Connection {
        Connection {
            peer: self.peer,
            notes: Notes::default(),
            life: Life::Open,
            ticket: self.ticket,
            cycle: Cycle::new(),
            task: Task::None,
            exchange: Exchange::default(),
            file: FilePart::default(),
            relay: Relay::default(),
            awaited: Awaited::Request { since: self.since },
            stalled: None,
            sent: 0,
            arrived: 0,
        }
    }
}

/// What was noted and not yet acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notes {
    eof: bool,
    /// The socket takes no more for now.
    blocked: bool,
    drain: bool,
    cut: bool,
    fault: Option<Fault>,
    /// `Finished` was given: the next poll begins anew.
    finished: bool,
    /// `Shut` was given: if the driver could do it, the next poll lingers.
    shut: bool,
}

/// How the connection as a whole stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// It closes as soon as its exchange is finished.
    Ending(Close),
    /// A half-close is due.
    Shut,
    /// Half-closed: what still comes is read and dropped, so that no reset overtakes the answer
    /// (RFC 9112 section 9.6).
    Lingering,
    /// It closes.
    Close(Close),
}

/// What answers the request.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    None,
    Files(Files),
    /// Boxed: a script costs far more, and a connection without one is to be small.
    Cgi(Box<Cgi>),
    Handler(Handling),
}

/// A step that borrows nothing yet.
enum Next {
    Send,
    Feed(usize),
    Act(Act),
    Call(Call),
    Finished,
    Wait(Wait),
    Shut,
    Close(Close),
}

/// An action that borrows nothing yet.
enum Act {
    Files(Deed),
    Cgi(cgi::Deed),
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

    /// Notes what happened. Cheap, and right in any state: what does not fit is ignored.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Eof => self.notes.eof = true,
            Input::Sent(n) => self.sent += n,
            Input::Blocked => self.notes.blocked = true,
            Input::Writable => self.notes.blocked = false,
            Input::Done(ticket, completion) => match &mut self.task {
                _ if ticket.0 != self.ticket => {}
                Task::Files(files) => files.complete(completion),
                Task::Cgi(cgi) => cgi.complete(&completion),
                Task::None | Task::Handler(_) => {}
            },
            Input::Wake => {
                if let Some(handling) = self.handling() {
                    handling.woken = true;
                }
            }
            Input::Broken(fault) => self.notes.fault = self.notes.fault.or(Some(fault)),
            Input::Drain => self.notes.drain = true,
            Input::Cut => self.notes.cut = true,
            Input::Fed(_) | Input::FeedBlocked | Input::Feedable | Input::FeedEnd | Input::ScriptEof => {
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
    /// unfinished), `Finished`, `Send`, `Feed`, `Act`, `Call`, `Shut`, `Wait`. A script of an exchange that was
    /// given up is killed before `Finished`.
    ///
    /// A driver that answers `Sent` for bytes which it only holds flushes them before it obeys
    /// `Wait`, `Shut` or `Close`; if the socket takes no more, it hands in [`Input::Blocked`] and
    /// polls again: `Shut` and `Close` then come again when the socket is writable. A `Close` that
    /// comes while the socket is still full means that patience is over, and what is held is given up.
    /// Unless `Blocked` is handed in, `Shut` counts as done.
    pub fn poll<'a>(&'a mut self, buf: &'a mut Buffers, cx: &Context<'_>) -> Step<'a> {
        match self.next(buf, cx) {
            Next::Send => Step::Send(self.transmit(buf)),
            Next::Feed(n) => Step::Feed(&buf.input.unread()[..n]),
            Next::Act(act) => {
                self.ticket = self.ticket.wrapping_add(1);
                let action = match act {
                    Act::Files(deed) => self.action(deed, buf),
                    Act::Cgi(deed) => self.cgi_action(deed, buf, cx),
                };
                Step::Act(Ticket(self.ticket), action)
            }
            Next::Call(call) => Step::Call(call),
            Next::Finished => Step::Finished(self.entry(buf)),
            Next::Wait(wait) => Step::Wait(wait),
            Next::Shut => Step::Shut,
            Next::Close(close) => Step::Close(close),
        }
    }

    /// The handler's side of the connection, for [`Step::Call`].
    pub fn reply<'a>(&'a mut self, buf: &'a mut Buffers, cx: &'a Context<'a>) -> Reply<'a> {
        Reply { connection: self, buf, cx, waker: None }
    }

    /// What must be kept of a connection that has just said `Wait { idle: true }`; `None` for any
    /// other. A driver with many idle connections keeps this instead of the whole.
    #[must_use]
    pub fn rest(&self) -> Option<Resting> {
        let Awaited::Request { since } = self.awaited else { return None };
        let idle = self.cycle == Cycle::new() && self.life == Life::Open && self.notes == Notes::default();
        idle.then_some(Resting { peer: self.peer, ticket: self.ticket, since })
    }

    /// Takes down to a few bytes what a connection holds whose handler has nothing to send for now, for
    /// instance between two events of a stream. `None`: it holds more than can be put away.
    ///
    /// A driver with many connections that wait for [`Need::handler`](Need) keeps this instead of `buf`, and calls
    /// [`unpack`](Self::unpack) before anything else of the connection is called.
    pub fn pack(&mut self, buf: &mut Buffers) -> Option<Packed> {
        let waits = matches!(self.task, Task::Handler(_)) && self.cycle.is_answering() && self.life == Life::Open;
        let bare = !self.has_unsent(buf) && buf.input.unread().is_empty() && !self.exchange.is_error;
        let plain = buf.trailers.is_empty() && buf.trailing.is_empty() && buf.attached.is_none();
        if !(waits && bare && plain && self.sent == 0 && buf.input.head().len() <= Packed::MOST) {
            return None;
        }
        let head = Box::from(buf.input.head());
        buf.input.unpin();
        Some(Packed { head })
    }

    /// Puts what was packed into `buf`, which is empty.
    pub fn unpack(&mut self, packed: &Packed, buf: &mut Buffers) {
        buf.input.fill(&packed.head);
        buf.input.pin(packed.head.len());
        buf.head.parse(&packed.head).expect("it was right before");
        self.arrived = buf.input.arrived();
    }

    fn next(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Next {
        self.absorb(buf, cx);
        self.fire_timers(buf, cx);
        for _ in 0..MOST_MOVES {
            if let Some(next) = self.due(buf) {
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
        let sent = self.sent > 0;
        self.absorb_sent(buf, cx.now.tick);
        self.absorb_script(buf, sent, cx.now.tick);
        if std::mem::take(&mut self.notes.finished) {
            self.begin_anew(buf);
        }
        if std::mem::take(&mut self.notes.shut) && !self.notes.blocked {
            self.life = Life::Lingering;
            self.awaited = Awaited::End(Progress::start(cx.now.tick));
        }
        self.absorb_arrived(buf, cx.now.tick);
        if let Some(fault) = self.notes.fault.take() {
            self.absorb_fault(fault, buf, cx);
        }
        if std::mem::take(&mut self.notes.cut) {
            self.cut(Cut::Shutdown, Close::Drained, buf);
        }
        if self.notes.drain && self.exchange.status.is_none() {
            self.exchange.keep_alive = false;
        }
    }

    fn absorb_sent(&mut self, buf: &mut Buffers, now: Tick) {
        let sent = std::mem::take(&mut self.sent);
        if sent > 0 {
            let formatted = (buf.output.unsent().len() as u64).min(sent);
            buf.output.sent(usize::try_from(formatted).expect("no more than there is"));
            let of_file = (sent - formatted).min(self.file.left);
            self.file.offset += of_file;
            self.file.left -= of_file;
            self.absorb_relayed(sent - formatted - of_file, buf);
            let of_head = u64::from(self.exchange.head_left).min(sent);
            self.exchange.head_left -= u32::try_from(of_head).expect("no more than there is");
            self.exchange.body_sent += sent - of_head;
            let of_interim = u64::from(self.exchange.interim_left).min(sent);
            self.exchange.interim_left -= u32::try_from(of_interim).expect("no more than there is");
            self.exchange.is_out |= sent > of_interim;
        }
        if let Some(stalled) = &mut self.stalled {
            stalled.made(sent, now);
        }
        if self.notes.blocked {
            self.stalled.get_or_insert(Progress::start(now));
        } else if !self.has_unsent(buf) && !matches!(self.task, Task::Files(_)) {
            // A handler may take its time; what files send is always there at once.
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
        match &mut self.awaited {
            Awaited::Body(progress) | Awaited::End(progress) => progress.made(bytes, now),
            // The head's timer runs from its first byte.
            Awaited::Request { .. } if !buf.input.unread().is_empty() => self.awaited = Awaited::Head { since: now },
            _ => {}
        }
    }

    fn absorb_fault(&mut self, fault: Fault, buf: &mut Buffers, cx: &Context<'_>) {
        let unseen = matches!(self.cycle.outbound, Outbound::Owed | Outbound::Body(_)) && !self.exchange.is_out;
        let is_handlers = !matches!(self.task, Task::Files(_));
        if fault == Fault::Handler && is_handlers && unseen && self.life == Life::Open {
            if let Outbound::Body(_) = self.cycle.outbound {
                self.cycle.outbound_to(Outbound::Owed);
            }
            (self.file, self.relay) = (FilePart::default(), Relay::default());
            // What is left of an interim answer has to go out whole.
            buf.output.keep(self.exchange.interim_left as usize);
            self.exchange.head_left = self.exchange.interim_left;
            self.give_up_body();
            if let Task::Cgi(cgi) = &mut self.task {
                cgi.abandon();
                self.end_cgi();
            }
            self.answering(buf, cx).error(Status::INTERNAL_SERVER_ERROR, "Internal Server Error");
        } else {
            self.cut(Cut::Fault(fault), Close::Broken, buf);
        }
    }

    /// Gives up what is under way.
    pub(crate) fn cut(&mut self, why: Cut, close: Close, buf: &mut Buffers) {
        if let Life::Close(_) = self.life {
            // Bytes that the driver still holds are given up too.
            self.notes.blocked = false;
            return;
        }
        if self.exchange.open {
            let complete = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose) && !self.has_unsent(buf);
            if !complete {
                self.exchange.cut = Some(why);
            }
        }
        buf.output.clear();
        self.file = FilePart::default();
        self.relay = Relay::default();
        self.notes.blocked = false;
        self.awaited = Awaited::Nothing;
        self.life = Life::Ending(close);
    }

    // Timers.

    fn fire_timers(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let (now, timeouts) = (cx.now.tick, &cx.config.timeouts);
        if self.awaited.deadline(timeouts).is_some_and(|deadline| deadline <= now) {
            match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
                Awaited::Nothing => {}
                Awaited::Request { .. } => self.life = Life::Close(Close::Idle),
                Awaited::Head { .. } => self.refuse_head(Violation::HeadTimeout, Span::default(), buf, cx),
                Awaited::Body(_) => self.body_violation(Violation::BodyTimeout, buf, cx),
                Awaited::End(_) => self.life = Life::Close(Close::Timeout),
            }
        }
        if self.life == Life::Open {
            self.fire_script_timer(buf, cx);
        }
        let too_slow = |stalled: &Progress| stalled.deadline(&timeouts.write) <= now;
        if self.notes.blocked && self.stalled.as_ref().is_some_and(too_slow) {
            self.cut(Cut::Slow, Close::Timeout, buf);
        }
    }

    // The step that is due.

    fn due(&mut self, buf: &Buffers) -> Option<Next> {
        if let (Life::Close(close), false) = (self.life, self.notes.blocked) {
            return Some(Next::Close(close));
        }
        if self.exchange.open && self.has_ended(buf) {
            if let Task::Cgi(cgi) = &mut self.task {
                if self.exchange.cut.is_some() {
                    cgi.abandon();
                }
                if let Some(kill) = cgi.take_kill() {
                    return Some(Next::Act(Act::Cgi(kill)));
                }
            }
            if let Some(call) = self.take_call(buf, true) {
                return Some(Next::Call(call));
            }
            self.notes.finished = true;
            return Some(Next::Finished);
        }
        if self.has_unsent(buf) && !self.notes.blocked {
            return Some(Next::Send);
        }
        let act = match &mut self.task {
            Task::Files(files) => files.take_deed().map(Act::Files),
            Task::Cgi(cgi) if cgi.offered() > 0 && self.cycle.is_answering() => return Some(Next::Feed(cgi.offered())),
            Task::Cgi(cgi) => cgi.take_deed().map(Act::Cgi),
            Task::None | Task::Handler(_) => None,
        };
        if let Some(act) = act {
            return Some(Next::Act(act));
        }
        if let Some(call) = self.take_call(buf, false) {
            return Some(Next::Call(call));
        }
        if let (Life::Shut, false) = (self.life, self.notes.blocked) {
            self.notes.shut = true;
            return Some(Next::Shut);
        }
        None
    }

    /// Whether the exchange is over: answered and read, or given up.
    fn has_ended(&self, buf: &Buffers) -> bool {
        if let Life::Ending(_) = self.life {
            return true;
        }
        let read = matches!(self.cycle.inbound, Inbound::Done | Inbound::Closed);
        match self.cycle.outbound {
            Outbound::Done => read && !self.has_unsent(buf),
            Outbound::MustClose => !self.has_unsent(buf),
            _ => false,
        }
    }

    pub(crate) fn has_unsent(&self, buf: &Buffers) -> bool {
        self.file.left > 0 || self.relay != Relay::default() || !buf.output.unsent().is_empty()
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

    fn action<'a>(&self, deed: Deed, buf: &'a mut Buffers) -> Action<'a> {
        match (deed, &self.task) {
            (Deed::OpenIn(_), Task::Files(files)) => Action::OpenIn { path: files.index_name(&buf.path) },
            (Deed::List, _) => Action::List { into: &mut buf.listing },
            _ => Action::Open { path: &buf.path },
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
            status: self.exchange.status.map_or(0, Status::code),
            sent: self.exchange.body_sent,
            error: self.exchange.is_error.then_some(buf.message.as_slice()),
            cut: self.exchange.cut.map(Cut::reason),
        }
    }

    /// After `Finished`: the next exchange, or the end.
    fn begin_anew(&mut self, buf: &mut Buffers) {
        buf.input.unpin();
        buf.moved.clear();
        buf.trailers.clear();
        buf.trailing.clear();
        let exchange = std::mem::take(&mut self.exchange);
        self.task = Task::None;
        if !self.notes.blocked {
            self.stalled = None;
        }
        self.life = match self.life {
            Life::Ending(close) => Life::Close(close),
            _ if self.cycle.outbound == Outbound::Done && self.cycle.inbound == Inbound::Done && !self.notes.drain => {
                self.cycle.inbound_to(Inbound::Head(Scan::default()));
                self.cycle.outbound_to(Outbound::Idle);
                return;
            }
            _ if exchange.upgrades => {
                self.cycle.close_inbound();
                self.cycle.outbound_to(Outbound::Closed);
                Life::Close(Close::Upgraded)
            }
            _ => {
                let all_read = self.cycle.inbound == Inbound::Done && buf.input.unread().is_empty();
                self.cycle.close_inbound();
                self.cycle.outbound_to(Outbound::Closed);
                if self.notes.eof || (all_read && exchange.peer_closes) {
                    Life::Close(Close::Done)
                } else if all_read && self.notes.drain && !exchange.keep_alive {
                    Life::Close(Close::Drained)
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
            Life::Shut | Life::Close(_) => false,
            Life::Lingering => self.linger(buf, cx),
            // Until the driver is rid of what it holds, no further request is begun.
            Life::Open if self.cycle.outbound == Outbound::Idle => !self.notes.blocked && self.read_head(buf, cx),
            Life::Open if matches!(self.task, Task::Cgi(_)) => self.advance_cgi(buf, cx) || self.drain(buf, cx),
            Life::Open => {
                self.answer(buf, cx) || self.drain(buf, cx) || self.find_body(buf, cx) || self.finish_handler(buf, cx)
            }
        }
    }

    fn linger(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let unread = buf.input.unread().len();
        buf.input.consume(unread);
        let too_much = matches!(&self.awaited, Awaited::End(progress) if progress.bytes() > cx.config.limits.linger);
        if self.notes.eof || too_much {
            self.life = Life::Close(if too_much { Close::Timeout } else { Close::Done });
            return true;
        }
        false
    }

    /// Reads the next head, if it is there.
    fn read_head(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let limits = &cx.config.limits;
        let Inbound::Head(mut scan) = self.cycle.inbound else { return false };
        let found = loop {
            let unread = buf.input.unread();
            match scan.blank_line(unread, limits) {
                Ok(true) => buf.input.consume(2),
                Ok(false) if unread.first().is_some_and(|&byte| !is_plausible(byte)) => {
                    break Err(Violation::MalformedLine);
                }
                Ok(false) => break scan.find_end(unread, limits),
                Err(violation) => break Err(violation),
            }
        };
        let new_line = scan.line_is_new();
        self.cycle.inbound = Inbound::Head(scan);
        match found {
            Ok(Some(len)) => self.begin(len, buf, cx),
            // A line that can never be right is refused before the rest has come, and before
            // anything that is wrong with the rest.
            _ if new_line && let Err(refused) = buf.head.parse_line(buf.input.unread()) => {
                self.refuse_head(refused.violation, refused.text, buf, cx);
            }
            Err(violation) => {
                // Of a line that cannot be one, what is quoted must not depend on how much has come.
                let first = if violation == Violation::MalformedLine { 1 } else { 0 };
                self.refuse_head(violation, Span::new(0, first), buf, cx);
            }
            Ok(None) if buf.input.unread().is_empty() => return self.end_between(),
            Ok(None) if self.notes.eof => self.refuse_head(Violation::IncompleteHead, Span::default(), buf, cx),
            Ok(None) => return false,
        }
        true
    }

    /// Between two exchanges, with nothing of the next: whether it ends here.
    fn end_between(&mut self) -> bool {
        if self.notes.eof {
            self.life = Life::Close(Close::Done);
        } else if self.notes.drain {
            self.life = Life::Close(Close::Drained);
        }
        self.life != Life::Open
    }

    /// Begins an exchange with the head of `len` bytes that has been read.
    fn begin(&mut self, len: usize, buf: &mut Buffers, cx: &Context<'_>) {
        buf.input.pin(len);
        self.awaited = Awaited::Nothing;
        self.exchange = Exchange { open: true, ..Exchange::default() };
        self.cycle.outbound_to(Outbound::Owed);
        if let Err(refused) = self.understand(buf, cx) {
            self.answering(buf, cx).refuse(refused.violation, refused.text);
            return;
        }
        let request = Request { head: &buf.head, bytes: buf.input.head(), peer: self.peer };
        match cx.site.route(&request) {
            Route::Usual if !cx.config.handled => self.serve(buf, cx),
            Route::Handler | Route::Usual => self.task = Task::Handler(Handling::default()),
            Route::Files => self.serve(buf, cx),
        }
    }

    /// Parses the head and decides about framing and persistence.
    fn understand(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Result<(), Refused> {
        let bytes = buf.input.head();
        let head = &mut buf.head;
        let parsed = head.parse(bytes);
        self.exchange.is_head = is_head(bytes);
        self.exchange.is_11 = head.is_11;
        parsed?;
        self.exchange.parsed = true;
        let refused = |violation| Refused { violation, text: Span::default() };
        wire::check_host(head, bytes).map_err(refused)?;
        let limits = &cx.config.limits;
        let body = match Framing::of(head, bytes, limits).map_err(refused)? {
            Framing::None => Inbound::Done,
            Framing::Length(length) => Inbound::Body(Decoder::Length(length)),
            Framing::Chunked => Inbound::Body(Decoder::chunked(limits)),
        };
        self.cycle.inbound_to(body);
        let wanted = wire::wants_keep_alive(head, bytes);
        self.exchange.peer_closes = !wanted;
        self.exchange.keep_alive = wanted && cx.config.protocol == Protocol::Http11 && !self.notes.drain;
        match Expectation::of(head, bytes) {
            Expectation::None => Ok(()),
            Expectation::Continue => {
                self.exchange.continue_due = body != Inbound::Done;
                Ok(())
            }
            Expectation::Unknown => {
                // Whether a body follows is in doubt.
                self.exchange.keep_alive &= body == Inbound::Done;
                if body != Inbound::Done {
                    self.cycle.close_inbound();
                }
                Err(refused(Violation::UnknownExpectation))
            }
        }
    }

    /// Lets a script answer, or the files, which want no body. A small one is read first, so that the
    /// answer does not depend on how much of it has come; a large one ends the connection.
    pub(crate) fn serve(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        self.task = Task::None;
        let (method, name) = (buf.head.method, buf.head.method_name);
        let script = self.find_cgi(buf, cx).unwrap_or_default();
        self.exchange.is_script = script.is_some();
        let script = script.filter(|_| matches!(method, Method::Get | Method::Head | Method::Post));
        // The body of a request that was redirected here has had its reader.
        let is_wanted = script.is_some() && buf.moved.is_empty();
        if !is_wanted && !self.settle_body(cx) {
            return;
        }
        if let Some(from) = script {
            return self.start_cgi(from, cx);
        }
        let mut answer = self.answering(buf, cx);
        match method {
            Method::Get | Method::Head => {
                if let Some(files) = Files::start(&mut answer) {
                    self.task = Task::Files(files);
                }
            }
            Method::Options => {
                let allow = answer.allow();
                answer.empty(Status::NO_CONTENT, |head| {
                    head.field("Allow", allow);
                });
            }
            Method::Post if !cx.config.cgi.directories.is_empty() => {
                answer.refuse(Violation::PostToFile, Span::default());
            }
            Method::Post | Method::Connect | Method::Other => answer.refuse(Violation::UnsupportedMethod, name),
        }
    }

    /// Whether a body that nobody wants stands no longer in the way of an answer.
    pub(crate) fn settle_body(&mut self, cx: &Context<'_>) -> bool {
        let Inbound::Body(decoder) = self.cycle.inbound else { return true };
        // A peer that waits for 100 gets its final answer instead; whether it then sends the body is its
        // choice (RFC 9110 section 10.1.1), so the connection cannot go on.
        if self.exchange.continue_due || decoder.at_least() > cx.config.limits.drain {
            self.give_up_body();
            return true;
        }
        self.exchange.unwanted = true;
        false
    }

    /// What is left of the body is not read, and the connection ends behind the answer.
    pub(crate) fn give_up_body(&mut self) {
        self.exchange.keep_alive = false;
        self.exchange.unwanted = false;
        self.cycle.close_inbound();
    }

    /// Refuses a head that is not, or never will be, complete and right; the message quotes `text`.
    fn refuse_head(&mut self, violation: Violation, text: Span, buf: &mut Buffers, cx: &Context<'_>) {
        let unread = buf.input.unread();
        let line = match violation {
            Violation::LineTooLong => 0,
            Violation::MalformedLine => text.end(),
            _ => memchr::memchr2(b'\r', b'\n', unread).unwrap_or(unread.len()).max(text.end()).min(unread.len()),
        };
        let is_head = is_head(unread);
        buf.input.pin(line);
        buf.head.clear();
        buf.head.line = Span::new(0, line);
        self.awaited = Awaited::Nothing;
        self.exchange = Exchange { open: true, is_11: true, is_head, ..Exchange::default() };
        self.cycle.outbound_to(Outbound::Owed);
        let text = if line == 0 { Span::default() } else { text };
        self.answering(buf, cx).refuse(violation, text);
    }

    /// Something is wrong with the body: says so if there is no answer yet.
    pub(crate) fn body_violation(&mut self, violation: Violation, buf: &mut Buffers, cx: &Context<'_>) {
        debug_assert_eq!(violation.row().1, After::Close);
        self.give_up_body();
        match self.cycle.outbound {
            Outbound::Owed => {
                match &mut self.task {
                    Task::Files(_) => self.task = Task::None,
                    Task::Cgi(cgi) => {
                        cgi.abandon();
                        self.end_cgi();
                    }
                    Task::None | Task::Handler(_) => {}
                }
                self.answering(buf, cx).refuse(violation, Span::default());
            }
            Outbound::Done => self.cycle.outbound = Outbound::MustClose,
            // An answer that was made of half a request must not look like one made of the whole.
            Outbound::Body(_) if violation == Violation::BodyTimeout => self.cut(Cut::Slow, Close::Timeout, buf),
            Outbound::Body(_) => self.cut(Cut::Body, Close::Broken, buf),
            _ => {}
        }
    }

    /// Lets the task go on with the answer.
    fn answer(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let owed = matches!(self.cycle.outbound, Outbound::Owed | Outbound::Body(_));
        if !owed || self.exchange.unwanted || self.has_unsent(buf) {
            return false;
        }
        match self.task {
            Task::Files(mut files) => {
                let moved = files.advance(&mut self.answering(buf, cx));
                self.task = Task::Files(files);
                moved
            }
            Task::Handler(Handling { passed: true, .. }) => {
                self.serve(buf, cx);
                true
            }
            Task::Handler(_) | Task::Cgi(_) => false,
            Task::None if self.cycle.outbound == Outbound::Owed => {
                self.serve(buf, cx);
                true
            }
            Task::None => false,
        }
    }

    /// Reads and drops a body that nobody wants, as far as `limits.drain`.
    fn drain(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let answered = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose);
        if !(self.exchange.unwanted || answered) || !matches!(self.cycle.inbound, Inbound::Body(_)) {
            return false;
        }
        let limits = &cx.config.limits;
        while let Inbound::Body(mut decoder) = self.cycle.inbound {
            // No further than one byte beyond the limit, so that it does not matter how much has come.
            let unread = buf.input.unread();
            let most = usize::try_from(limits.drain.saturating_sub(self.exchange.drained)).unwrap_or(usize::MAX);
            let piece = match decoder.decode(&unread[..unread.len().min(most.saturating_add(1))], limits) {
                Ok(piece) => piece,
                Err(violation) => {
                    self.body_violation(violation, buf, cx);
                    return true;
                }
            };
            buf.input.consume(piece.skip + piece.data);
            if piece.data > 0 {
                decoder.took(piece.data);
            }
            self.cycle.inbound = Inbound::Body(decoder);
            self.exchange.drained += (piece.skip + piece.data) as u64;
            if self.exchange.drained > limits.drain {
                self.give_up_body();
                return true;
            }
            if piece.end && piece.data == 0 {
                self.cycle.inbound_to(Inbound::Done);
                self.exchange.unwanted = false;
                return true;
            }
            if piece.data == 0 {
                break;
            }
        }
        if self.notes.eof {
            self.body_violation(Violation::IncompleteBody, buf, cx);
            return true;
        }
        false
    }

    // Waiting.

    fn wait(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Wait {
        let now = cx.now.tick;
        let (read, idle) = self.await_peer(buf, cx);
        let write_deadline = match &self.stalled {
            Some(stalled) if self.notes.blocked => Some(stalled.deadline(&cx.config.timeouts.write)),
            _ => None,
        };
        let script_deadline = match &self.task {
            Task::Cgi(cgi) if self.life == Life::Open => cgi.deadline(self.notes.eof, cx),
            _ => None,
        };
        let deadlines = [self.awaited.deadline(&cx.config.timeouts), write_deadline, script_deadline];
        let deadline = deadlines.into_iter().flatten().min();
        // Invariant: a driver that polls at the deadline makes progress.
        assert!(deadline.is_none_or(|deadline| deadline > now), "a deadline that does not advance: {self:?}");
        let need = Need {
            read,
            write: self.notes.blocked,
            script_read: self.hears_script(buf, cx),
            script_write: matches!(&self.task, Task::Cgi(cgi) if cgi.is_full()) && self.cycle.is_answering(),
            completion: match &self.task {
                Task::Files(files) => files.is_waiting(),
                Task::Cgi(cgi) => cgi.is_waiting(),
                Task::None | Task::Handler(_) => false,
            },
            handler: matches!(&self.task, Task::Handler(_))
                && matches!(self.cycle.outbound, Outbound::Owed | Outbound::Body(_)),
        };
        Wait { need, deadline, idle }
    }

    /// Decides what is awaited from the peer: whether to read, and whether the connection is idle.
    fn await_peer(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> (bool, bool) {
        let now = cx.now.tick;
        let mut idle = false;
        let next = match (self.life, self.cycle.inbound, self.cycle.outbound) {
            (Life::Lingering, ..) => self.awaited,
            (Life::Open, Inbound::Head(scan), Outbound::Idle) if !self.notes.blocked => {
                idle = scan == Scan::default() && buf.input.is_empty();
                match self.awaited {
                    Awaited::Request { .. } if idle => self.awaited,
                    Awaited::Head { .. } if !idle => self.awaited,
                    _ if idle => Awaited::Request { since: now },
                    _ => Awaited::Head { since: now },
                }
            }
            (Life::Open, Inbound::Body(_), outbound) if self.wants_body(outbound) => match self.awaited {
                Awaited::Body(_) => self.awaited,
                _ => Awaited::Body(Progress::start(now)),
            },
            _ => Awaited::Nothing,
        };
        self.awaited = next;
        let works = match &self.task {
            Task::Cgi(_) => true,
            Task::Handler(_) => !matches!(self.cycle.inbound, Inbound::Body(_)),
            Task::None | Task::Files(_) => false,
        };
        if works && self.life == Life::Open && next == Awaited::Nothing && !self.notes.eof {
            // Nothing is awaited of the peer, but it may go away, and nobody is to work for nobody.
            return (buf.input.make_room(0), idle);
        }
        let read = next != Awaited::Nothing && !self.notes.eof;
        if read {
            let room = buf.input.make_room(cx.config.limits.head.saturating_add(1));
            debug_assert!(room, "limits end a head before the window does");
        }
        (read, idle)
    }

    fn wants_body(&self, outbound: Outbound) -> bool {
        match &self.task {
            Task::Handler(handling) => handling.wants_body || matches!(outbound, Outbound::Done),
            Task::Cgi(cgi) if cgi.wants_body() && self.cycle.is_answering() => true,
            _ => self.exchange.unwanted || matches!(outbound, Outbound::Done),
        }
    }

    /// Whether the script is to be read from: what it said before is on its way, and there is room.
    fn hears_script(&self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let hears = matches!(&self.task, Task::Cgi(cgi) if cgi.is_heard());
        hears && !self.has_unsent(buf) && buf.script.make_room(cx.config.limits.script_head)
    }

    pub(crate) fn answering<'t>(&'t mut self, buf: &'t mut Buffers, cx: &'t Context<'t>) -> Answering<'t> {
        let Connection { exchange, cycle, file, peer, .. } = self;
        Answering { exchange, cycle, file, buf, cx, peer: *peer }
    }

    /// Whether nothing has put an end to it.
    pub(crate) fn is_open(&self) -> bool {
        self.life == Life::Open
    }

    /// Whether the peer has half-closed.
    pub(crate) fn is_at_end(&self) -> bool {
        self.notes.eof
    }

    pub(crate) fn cycle(&self) -> &Cycle {
        &self.cycle
    }

    pub(crate) fn exchange_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}

/// The first line of a head, without its end.
fn first_line(head: &[u8]) -> &[u8] {
    &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())]
}

/// Whether a request is a HEAD, even where its line is not right.
fn is_head(head: &[u8]) -> bool {
    head.starts_with(b"HEAD ")
}

/// Whether a request line can begin with this byte.
fn is_plausible(byte: u8) -> bool {
    wire::is_token_byte(byte) || matches!(byte, b'\r' | b'\n')
}

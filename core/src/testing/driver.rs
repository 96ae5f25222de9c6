//! Driving one connection: its steps become the lines of a transcript, and the world says what comes of
//! each. It does what [`perform`](crate::transcript::perform) does, and checks on the way what only a driver
//! can see: that steps repeat, that an idle connection can be put away, that memory stays within its bounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use super::disk::File;
use super::judge::Wrong;
use super::server::Server;
use crate::buffers::Buffers;
use crate::connection::Connection;
use crate::context::{Context, Now, Peer, Tick, Wall};
use crate::handler::Handler;
use crate::input::Input;
use crate::step::{Action, Body, Close, Step, Ticket, Transmit, Wait};
use crate::transcript::{Event, Middle, Sending, Then, What};

/// More steps than any turn takes.
const MOST_STEPS: usize = 100_000;

/// What a busy connection counts for beside its buffers: the bound that the core holds it to.
const CONNECTION: u64 = 256;
/// What one between two exchanges counts for.
const RESTING: u64 = 32;

/// Buffers that are leased while a connection is busy.
pub(super) type Pool = Rc<RefCell<Vec<Buffers>>>;

/// What is outside of a connection: its socket, its disk, and whoever looks on.
pub(super) trait Outside {
    /// The world's answer to a step, in the places that a transcript has for it.
    fn answer(&mut self, what: &mut What, ticket: Ticket);

    /// The handler has given a file to send.
    fn attached(&mut self, file: File);

    /// Something has happened, and everything before it has been told.
    fn happened(&mut self, event: &Event) -> Result<(), Wrong>;
}

/// One connection and what its driver holds for it.
pub(super) struct Driver<'s> {
    server: Server<'s>,
    handler: Box<dyn Handler + 's>,
    connection: Connection,
    /// None while it rests.
    buf: Option<Buffers>,
    pool: Pool,
    now: Now,
    /// Calendar time at tick 0; it goes on with the ticks.
    wall: i64,
    /// Received and not yet read.
    pending: Vec<u8>,
    eof: bool,
    reads: bool,
    alarm: Arc<Alarm>,
    /// What it waits for.
    pub(super) wait: Option<Wait>,
    pub(super) closed: Option<Close>,
    /// Whether a handler that nothing will ever call again breaks a rule.
    pub(super) forbids_hanging: bool,
    /// The most that it has held since somebody asked.
    held: u64,
}

/// Rung by wakers.
#[derive(Debug, Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'s> Driver<'s> {
    /// A connection that is accepted at tick 0, which is `wall`. It has had no turn yet.
    pub(super) fn accept(server: &Server<'s>, peer: std::net::SocketAddr, wall: Wall, pool: Pool) -> Driver<'s> {
        let server = server.clone();
        let now = Now::new(Tick(0), wall);
        let cx = Context { config: &server.config, site: &*server.site, now: &now };
        let connection = Connection::new(Peer::from(peer), &cx);
        Driver {
            handler: server.make_handler(),
            server,
            connection,
            buf: None,
            pool,
            now,
            wall: wall.0,
            pending: Vec::new(),
            eof: false,
            reads: true,
            alarm: Arc::default(),
            wait: None,
            closed: None,
            forbids_hanging: false,
            held: RESTING,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now.tick.0
    }

    /// Whether a waker of its handler was used since this was last asked.
    pub(super) fn is_woken(&self) -> bool {
        self.alarm.0.swap(false, Ordering::SeqCst)
    }

    /// The most memory that it has held since this was last asked, see [`Summary`](super::Summary).
    pub(super) fn take_held(&mut self) -> u64 {
        let now = self.holds();
        std::mem::replace(&mut self.held, now).max(now)
    }

    fn holds(&self) -> u64 {
        self.buf.as_ref().map_or(RESTING, |buf| CONNECTION + buf.held()) + self.pending.len() as u64
    }

    /// Something happens at `at`; no turn yet.
    pub(super) fn input(&mut self, at: u64, joined: bool, what: What, outside: &mut dyn Outside) -> Result<(), Wrong> {
        let at = at.max(self.now());
        let event = Event { at, joined, what };
        outside.happened(&event)?;
        let passed = i64::try_from(at / 1000).unwrap_or(i64::MAX);
        self.now.advance(Tick(at), Wall(self.wall.saturating_add(passed)));
        match event.what {
            What::Recv(bytes) => self.pending.extend_from_slice(&bytes),
            What::Input(Input::Eof) => self.eof = true,
            What::Input(input) => self.connection.handle(input),
            _ => {}
        }
        self.read();
        Ok(())
    }

    /// Something happens, and the connection has its turn.
    pub(super) fn happen(&mut self, at: u64, what: What, outside: &mut dyn Outside) -> Result<(), Wrong> {
        if self.closed.is_some() {
            return Ok(());
        }
        self.input(at, false, what, outside)?;
        self.turn(outside)
    }

    fn buf(&mut self) -> &mut Buffers {
        let Driver { buf, pool, .. } = self;
        buf.get_or_insert_with(|| pool.borrow_mut().pop().unwrap_or_default())
    }

    /// Hands in what was received, as a driver that was told to read.
    fn read(&mut self) {
        if self.reads && !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let n = self.buf().input.fill(&pending);
            self.pending = pending;
            self.pending.drain(..n);
        }
        if self.pending.is_empty() && std::mem::take(&mut self.eof) {
            self.connection.handle(Input::Eof);
        }
    }

    /// Polls until the connection waits, or closes.
    pub(super) fn turn(&mut self, outside: &mut dyn Outside) -> Result<(), Wrong> {
        self.wait = None;
        for _ in 0..MOST_STEPS {
            if self.closed.is_some() {
                return Ok(());
            }
            let (what, ticket) = self.poll(outside)?;
            self.held = self.held.max(self.holds());
            let mut ends = false;
            match &what {
                What::Wait(wait) => {
                    self.reads = wait.need.read;
                    ends = self.pending.is_empty() || !self.reads;
                    self.put_away(*wait)?;
                }
                What::Close { close, blocked: false } => self.closed = Some(*close),
                _ => {}
            }
            self.hand_in(&what, ticket);
            if let What::Wait(wait) = &what {
                if ends {
                    self.wait = Some(*wait);
                }
                self.read();
            }
            outside.happened(&Event { at: self.now(), joined: false, what })?;
            if ends {
                return self.check_hanging();
            }
        }
        Err(Wrong::new("turn", format!("{MOST_STEPS} steps without an end")))
    }

    /// Whether somebody, somewhere, holds what wakes the handler.
    pub(super) fn has_waker(&self) -> bool {
        Arc::strong_count(&self.alarm) > 1 || self.alarm.0.load(Ordering::SeqCst)
    }

    fn check_hanging(&self) -> Result<(), Wrong> {
        let hangs = self.wait.is_some_and(|wait| wait.need.handler && wait.deadline.is_none());
        if hangs && self.forbids_hanging && !self.has_waker() {
            let what = "it has not finished, and waits neither for the body nor for room, and kept no waker";
            return Err(Wrong::new("handler", what));
        }
        Ok(())
    }

    /// One poll, and the world's answer.
    fn poll(&mut self, outside: &mut dyn Outside) -> Result<(What, Ticket), Wrong> {
        self.buf();
        let Driver { connection, buf, now, server, handler, alarm, .. } = self;
        let buf = buf.as_mut().expect("just made");
        let cx = Context { config: &server.config, site: &*server.site, now };
        let mut acted = Ticket::default();
        let mut listing = None;
        let step = connection.poll(buf, &cx);
        // There are no scripts here, so none is found.
        let mut what = What::of(&step).answered();
        if let Step::Act(ticket, action) = step {
            acted = ticket;
            if let Action::List { into } = action {
                listing = Some(into);
            }
        }
        outside.answer(&mut what, acted);
        if let (Some(into), What::List { entries, .. }) = (listing, &what) {
            for (name, kind) in entries {
                if !into.push(name, *kind) {
                    break;
                }
            }
        }
        match &what {
            What::Call(call) => {
                let make = || Waker::from(alarm.clone());
                handler.call(*call, &mut connection.reply(buf, &cx).with_waker(&make));
                if let Some(thing) = buf.take_attached() {
                    // Of a file of the system only the offsets are known here.
                    outside.attached(thing.downcast().map_or_else(|_| File::new(0, u64::MAX), |file| *file));
                }
            }
            What::Wait(wait) => match connection.poll(buf, &cx) {
                Step::Wait(again) if again == *wait => {}
                step => return Err(Wrong::new("repeat", format!("a second poll says {step:?} behind {wait:?}"))),
            },
            What::Send(sent) => match connection.poll(buf, &cx) {
                Step::Send(again) if is_same(sent, &again) => {}
                step => return Err(Wrong::new("repeat", format!("a second poll says {step:?} behind a Send"))),
            },
            _ => {}
        }
        Ok((what, acted))
    }

    /// A connection that waits is put away as far as it can be, and taken out again.
    fn put_away(&mut self, wait: Wait) -> Result<(), Wrong> {
        let Driver { connection, buf, pool, now, server, .. } = self;
        let leased = buf.as_mut().expect("it was polled");
        let window = leased.input.held() as u64;
        let most = (2 * (server.config.limits.head as u64 + 1)).max(16 * 1024);
        if window > most {
            return Err(Wrong::new("memory", format!("an input window of {window} bytes, beyond {most}")));
        }
        if wait.idle {
            let cx = Context { config: &server.config, site: &*server.site, now };
            let resting = connection.rest().filter(|resting| Some(resting.deadline(&cx)) == wait.deadline);
            let Some(resting) = resting.filter(|_| leased.input.unread().is_empty()) else {
                return Err(Wrong::new("idle", "an idle connection that cannot rest"));
            };
            *connection = resting.resume();
            leased.recycle();
            pool.borrow_mut().extend(buf.take());
        } else if let Some(packed) = connection.pack(leased) {
            leased.recycle();
            connection.unpack(&packed, leased);
        }
        Ok(())
    }

    /// Hands in the answer to a step.
    fn hand_in(&mut self, what: &What, ticket: Ticket) {
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
            What::Shut { blocked: true } | What::Close { blocked: true, .. } => connection.handle(Input::Blocked),
            What::Feed { bytes, .. } => connection.handle(Input::Fed(bytes.len() as u64)),
            _ => {
                if let Some(completion) = what.completion() {
                    connection.handle(Input::Done(ticket, completion));
                }
            }
        }
    }
}

fn is_same(sending: &Sending, transmit: &Transmit<'_>) -> bool {
    let body = match (&sending.body, transmit.body) {
        (Middle::None, Body::None) => true,
        (Middle::Bytes(a), Body::Bytes(b)) => a == b,
        (Middle::File { offset, len }, Body::File { offset: o, len: l }) => (*offset, *len) == (o, l),
        _ => false,
    };
    body && sending.head == transmit.head && sending.tail == transmit.tail
}

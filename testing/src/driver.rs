//! Driving one connection: its steps become the lines of a transcript, and the world says what comes of
//! each. It does what [`perform`](sanserve_transcript::perform) does, and checks on the way what only a driver
//! can see: that steps repeat, that an idle connection can be put away, that memory stays within its bounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use sanserve_core::{
    Body, Buffers, Close, Connection, Context, Handler, Input, Now, Peer, Step, Tick, Ticket, Transmit, Wait, Wall,
};
use sanserve_transcript::{
    Event, Middle, Sending, Taken, What,
    driving::{self, Calendar},
};

use super::disk::File;
use super::judge::Wrong;
use super::server::Server;

/// More steps than any turn takes, but for those of which the socket takes a part only.
const MAX_STEPS: usize = 100_000;

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
    calendar: Calendar,
    /// Received and not yet read.
    pending: Vec<u8>,
    eof: bool,
    reads: bool,
    /// Said by the script and not yet read.
    said: Vec<u8>,
    script_eof: bool,
    hears: bool,
    waker: Arc<ConnWaker>,
    /// What it waits for.
    pub(super) wait: Option<Wait>,
    pub(super) closed: Option<Close>,
    /// Whether a handler that nothing will ever call again breaks a rule.
    pub(super) forbids_hanging: bool,
    /// The most that it has held since somebody asked.
    held: u64,
}

/// How it stands after a step.
enum After {
    /// There is more to do.
    Goes,
    /// There is more of the same: the socket has taken a part.
    GoesOn,
    Waits,
    Closes(Close),
}

/// Rung by wakers.
#[derive(Debug, Default)]
struct ConnWaker(AtomicBool);

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'s> Driver<'s> {
    /// A connection that is accepted at tick 0, which is `wall`: the second, and milliseconds of it that have passed. It
    /// has had no turn yet.
    pub(super) fn accept(server: &Server<'s>, peer: std::net::SocketAddr, wall: (Wall, u16), pool: Pool) -> Driver<'s> {
        let server = server.clone();
        let now = Now::new(Tick(0), wall.0);
        let cx = Context { config: &server.config, policy: &*server.policy, now: &now };
        let connection = Connection::new(Peer::from(peer), &cx);
        Driver {
            handler: server.make_handler(),
            server,
            connection,
            buf: None,
            pool,
            now,
            calendar: Calendar::starting(wall.0, wall.1),
            pending: Vec::new(),
            eof: false,
            reads: true,
            said: Vec::new(),
            script_eof: false,
            hears: false,
            waker: Arc::default(),
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
        self.waker.0.swap(false, Ordering::SeqCst)
    }

    /// The most memory that it has held since this was last asked, see [`Summary`](super::Summary).
    pub(super) fn take_held(&mut self) -> u64 {
        let now = self.holds();
        std::mem::replace(&mut self.held, now).max(now)
    }

    fn holds(&self) -> u64 {
        self.buf.as_ref().map_or(RESTING, |buf| CONNECTION + buf.held()) + (self.pending.len() + self.said.len()) as u64
    }

    /// Something happens at `at`; no turn yet.
    pub(super) fn input(&mut self, at: u64, joined: bool, what: What, outside: &mut dyn Outside) -> Result<(), Wrong> {
        let at = at.max(self.now());
        let event = Event { at, joined, what };
        outside.happened(&event)?;
        if let What::Clock(wall) = event.what {
            self.calendar.set(at, wall);
        }
        self.now.advance(Tick(at), self.calendar.at(at));
        match event.what {
            What::Recv(bytes) => self.pending.extend_from_slice(&bytes),
            What::Input(Input::Eof) => self.eof = true,
            What::Script(bytes) => self.said.extend_from_slice(&bytes),
            What::Input(Input::ScriptEof) => self.script_eof = true,
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
        if self.hears && !self.said.is_empty() {
            let said = std::mem::take(&mut self.said);
            let n = self.buf().script.fill(&said);
            self.said = said;
            self.said.drain(..n);
        }
        if self.said.is_empty() && std::mem::take(&mut self.script_eof) {
            self.connection.handle(Input::ScriptEof);
        }
    }

    /// Polls until the connection waits, or closes.
    pub(super) fn turn(&mut self, outside: &mut dyn Outside) -> Result<(), Wrong> {
        self.wait = None;
        let mut steps = 0;
        while steps < MAX_STEPS {
            if self.closed.is_some() {
                return Ok(());
            }
            match self.step(outside)? {
                After::Goes => steps += 1,
                After::GoesOn => {}
                After::Waits => return self.check_hanging(),
                After::Closes(close) => self.closed = Some(close),
            }
        }
        Err(Wrong::new("turn", format!("{MAX_STEPS} steps without an end")))
    }

    /// Polls for so many steps: what comes next finds the connection in the middle of its turn.
    pub(super) fn part(&mut self, steps: usize, outside: &mut dyn Outside) -> Result<(), Wrong> {
        (0..steps).try_for_each(|_| self.step(outside).map(drop))
    }

    /// One step.
    fn step(&mut self, outside: &mut dyn Outside) -> Result<After, Wrong> {
        let (what, ticket) = self.poll(outside)?;
        self.held = self.held.max(self.holds());
        if let What::Probe { .. } = what {
            let reads = std::mem::replace(&mut self.reads, true);
            self.read();
            self.reads = reads;
        }
        driving::hand_in(&mut self.connection, &what, ticket);
        let after = match what {
            What::Wait(wait) => {
                self.reads = wait.need.read;
                self.hears = wait.need.script_read;
                let ends = (self.pending.is_empty() || !self.reads) && (self.said.is_empty() || !self.hears);
                self.put_away(wait)?;
                self.wait = ends.then_some(wait);
                self.read();
                if ends { After::Waits } else { After::Goes }
            }
            What::Close { close, blocked: false } => After::Closes(close),
            What::Send(Sending { taken: Taken { bytes: Some(1..), .. }, .. }) => After::GoesOn,
            _ => After::Goes,
        };
        outside.happened(&Event { at: self.now(), joined: false, what })?;
        Ok(after)
    }

    /// Whether somebody, somewhere, holds what wakes the handler.
    pub(super) fn has_waker(&self) -> bool {
        Arc::strong_count(&self.waker) > 1 || self.waker.0.load(Ordering::SeqCst)
    }

    fn check_hanging(&self) -> Result<(), Wrong> {
        let waits_alone = |wait: Wait| wait.need.handler && !wait.need.completion && wait.deadline.is_none();
        let hangs = self.wait.is_some_and(waits_alone);
        if hangs && self.forbids_hanging && !self.has_waker() {
            let what = "it has not finished, and waits neither for the body nor for room, and kept no waker";
            return Err(Wrong::new("handler", what));
        }
        Ok(())
    }

    /// One poll, and the world's answer.
    fn poll(&mut self, outside: &mut dyn Outside) -> Result<(What, Ticket), Wrong> {
        self.buf();
        let Driver { connection, buf, now, server, handler, waker, .. } = self;
        let buf = buf.as_mut().expect("just made");
        let cx = Context { config: &server.config, policy: &*server.policy, now };
        let (what, ticket) = driving::poll(connection, buf, &cx, &mut |what, ticket| outside.answer(what, ticket));
        match &what {
            What::Call(call) => {
                let make = || Waker::from(waker.clone());
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
        Ok((what, ticket))
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
            let cx = Context { config: &server.config, policy: &*server.policy, now };
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

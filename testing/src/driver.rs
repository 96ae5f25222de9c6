//! Drives one connection: its steps become the events of a transcript, and the environment provides their results. In
//! addition to what [`perform`](sanserve_transcript::perform) does, it checks what only a driver can see: that steps
//! repeat, that an idle connection can rest, and that memory stays within its limits. Whether the history is correct is
//! checked by the judge.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use sanserve_core::{
    Body, Buffers, Close, Connection, Context, Handler, Now, Peer, Step, Tick, Ticket, Transmit, Wait, Wall,
};
use sanserve_transcript::{
    Event, Middle, Sending, Taken, What,
    driving::{self, Arrivals, Calendar},
};

use super::disk::File;
use super::judge::Wrong;
use super::server::Server;

/// More steps than any turn takes, not counting those of which the socket accepts a part.
const MAX_STEPS: usize = 100_000;

/// The memory of a busy connection without its buffers, as asserted in the core.
const CONNECTION: u64 = 256;
/// The memory of a resting connection.
const RESTING: u64 = 32;

/// Buffers that busy connections share.
pub(super) type Pool = Rc<RefCell<Vec<Buffers>>>;

/// The environment of a connection: its socket, its disk, and its observer.
pub(super) trait Environment {
    /// Sets the result of a step.
    fn answer(&mut self, what: &mut What, ticket: Ticket);

    /// The handler has attached a file to send.
    fn attached(&mut self, file: File);

    /// An event has happened. All earlier events have been reported.
    fn happened(&mut self, event: &Event) -> Result<(), Wrong>;
}

/// A connection with the state of its driver.
pub(super) struct Driver<'s> {
    server: Server<'s>,
    handler: Box<dyn Handler + 's>,
    connection: Connection,
    /// None while the connection rests.
    buf: Option<Buffers>,
    pool: Pool,
    now: Now,
    calendar: Calendar,
    arrivals: Arrivals,
    waker: Arc<ConnWaker>,
    /// The last wait, if the turn has ended.
    pub(super) wait: Option<Wait>,
    pub(super) closed: Option<Close>,
    /// Whether it is an error if a handler will never be called again.
    pub(super) forbids_hanging: bool,
    /// The maximum memory since the last call of `take_held`.
    held: u64,
}

/// What follows after a step.
enum After {
    /// More steps.
    Goes,
    /// More steps of the same kind: the socket has accepted a part.
    GoesOn,
    Waits,
    Closes(Close),
}

/// Records that a waker was used.
#[derive(Debug, Default)]
struct ConnWaker(AtomicBool);

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'s> Driver<'s> {
    /// Accepts a connection at tick 0. `wall` is the second, and how many milliseconds of it have passed. The first
    /// turn has not happened yet.
    pub(super) fn accept(server: &Server<'s>, peer: Peer, wall: (Wall, u16), pool: Pool) -> Driver<'s> {
        let server = server.clone();
        let now = Now::new(Tick(0), wall.0);
        let cx = Context { config: &server.config, policy: &*server.policy, now: &now };
        let connection = Connection::new(peer, &cx);
        Driver {
            handler: server.make_handler(),
            server,
            connection,
            buf: None,
            pool,
            now,
            calendar: Calendar::starting(wall.0, wall.1),
            arrivals: Arrivals::default(),
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

    /// Whether a waker of the handler was used since the last call.
    pub(super) fn is_woken(&self) -> bool {
        self.waker.0.swap(false, Ordering::SeqCst)
    }

    /// The maximum memory since the last call, see [`Summary`](super::Summary).
    pub(super) fn take_held(&mut self) -> u64 {
        let now = self.holds();
        std::mem::replace(&mut self.held, now).max(now)
    }

    fn holds(&self) -> u64 {
        self.buf.as_ref().map_or(RESTING, |buf| CONNECTION + buf.held()) + self.arrivals.unread() as u64
    }

    /// Passes an input at `at`, without a turn.
    pub(super) fn input(
        &mut self,
        at: u64,
        joined: bool,
        what: What,
        environment: &mut dyn Environment,
    ) -> Result<(), Wrong> {
        let at = at.max(self.now());
        let event = Event { at, joined, what };
        environment.happened(&event)?;
        if let What::Clock(wall) = event.what {
            self.calendar.set(at, wall);
        }
        self.now.advance(Tick(at), self.calendar.at(at));
        self.arrivals.input(&event.what, &mut self.connection);
        self.read(false);
        Ok(())
    }

    /// Passes an input, and lets the connection have its turn.
    pub(super) fn input_and_turn(
        &mut self,
        at: u64,
        what: What,
        environment: &mut dyn Environment,
    ) -> Result<(), Wrong> {
        if self.closed.is_some() {
            return Ok(());
        }
        self.input(at, false, what, environment)?;
        self.turn(environment)
    }

    /// Fills the windows, like a driver that reads.
    fn read(&mut self, probes: bool) {
        let Driver { arrivals, connection, buf, pool, .. } = self;
        arrivals.read(probes, connection, || lease(buf, pool));
    }

    /// Polls until the connection waits or closes.
    pub(super) fn turn(&mut self, environment: &mut dyn Environment) -> Result<(), Wrong> {
        self.wait = None;
        let mut steps = 0;
        while steps < MAX_STEPS {
            if self.closed.is_some() {
                return Ok(());
            }
            match self.step(environment)? {
                After::Goes => steps += 1,
                After::GoesOn => {}
                After::Waits => return self.check_hanging(),
                After::Closes(close) => self.closed = Some(close),
            }
        }
        Err(Wrong::new("turn", format!("{MAX_STEPS} steps without an end")))
    }

    /// Polls for this many steps: the next input is joined.
    pub(super) fn part(&mut self, steps: usize, environment: &mut dyn Environment) -> Result<(), Wrong> {
        (0..steps).try_for_each(|_| self.step(environment).map(drop))
    }

    /// Takes one step.
    fn step(&mut self, environment: &mut dyn Environment) -> Result<After, Wrong> {
        let (what, ticket) = self.poll(environment)?;
        self.held = self.held.max(self.holds());
        if let What::Probe { .. } = what {
            self.read(true);
        }
        driving::hand_in(&mut self.connection, &what, ticket);
        let after = match what {
            What::Wait(wait) => {
                self.arrivals.wait(wait);
                let ends = self.arrivals.is_idle();
                self.put_away(wait)?;
                self.wait = ends.then_some(wait);
                self.read(false);
                if ends { After::Waits } else { After::Goes }
            }
            What::Close { close, blocked: false } => After::Closes(close),
            What::Send(Sending { taken: Taken { bytes: Some(1..), .. }, .. }) => After::GoesOn,
            _ => After::Goes,
        };
        environment.happened(&Event { at: self.now(), joined: false, what })?;
        Ok(after)
    }

    /// Whether a waker of the handler exists or was used.
    pub(super) fn has_waker(&self) -> bool {
        Arc::strong_count(&self.waker) > 1 || self.waker.0.load(Ordering::SeqCst)
    }

    fn check_hanging(&self) -> Result<(), Wrong> {
        let waits_alone = |wait: Wait| wait.need.handler && !wait.need.completion && wait.deadline.is_none();
        let hangs = self.wait.is_some_and(waits_alone);
        if hangs && self.forbids_hanging && !self.has_waker() {
            let what = "it has not finished, and it waits neither for the body nor for room, nor has it kept a waker";
            return Err(Wrong::new("handler", what));
        }
        Ok(())
    }

    /// Polls once, and gets the result from the environment.
    fn poll(&mut self, environment: &mut dyn Environment) -> Result<(What, Ticket), Wrong> {
        let Driver { connection, buf, pool, now, server, handler, waker, .. } = self;
        let buf = lease(buf, pool);
        let cx = Context { config: &server.config, policy: &*server.policy, now };
        let (what, ticket) = driving::poll(connection, buf, &cx, &mut |what, ticket| environment.answer(what, ticket));
        match &what {
            What::Call(call) => {
                let make = || Waker::from(waker.clone());
                handler.drive(*call, &mut connection.reply(buf, &cx).with_waker(&make));
                if let Some(file) = buf.take_file() {
                    // Of a file of the system only the offsets are known here.
                    environment.attached(file.downcast().unwrap_or_else(|_| File::new(0, u64::MAX)));
                }
            }
            What::Wait(wait) => match connection.poll(buf, &cx) {
                Step::Wait(again) if again == *wait => {}
                step => return Err(Wrong::new("repeat", format!("a second poll returns {step:?} after {wait:?}"))),
            },
            What::Send(sent) => match connection.poll(buf, &cx) {
                Step::Send(again) if is_same(sent, &again) => {}
                step => return Err(Wrong::new("repeat", format!("a second poll returns {step:?} after a Send"))),
            },
            _ => {}
        }
        Ok((what, ticket))
    }

    /// Stores a waiting connection in its smallest form, and restores it.
    fn put_away(&mut self, wait: Wait) -> Result<(), Wrong> {
        let Driver { connection, buf, pool, now, server, .. } = self;
        let leased = buf.as_mut().expect("it was polled");
        let window = leased.input.held() as u64;
        let most = (2 * (server.config.limits.head as u64 + 1)).max(16 * 1024);
        if window > most {
            return Err(Wrong::new("memory", format!("an input window of {window} bytes, beyond {most}")));
        }
        if wait.idle && connection.uses_tls() {
            // What was agreed on in the handshake is kept with the connection.
            leased.recycle();
            pool.borrow_mut().extend(buf.take());
        } else if wait.idle {
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

/// The buffers of a connection, which it leases if it has none.
fn lease<'b>(buf: &'b mut Option<Buffers>, pool: &Pool) -> &'b mut Buffers {
    buf.get_or_insert_with(|| pool.borrow_mut().pop().unwrap_or_default())
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

//! One connection of a world: its client, the bytes in transit, the server's side, and what is planned.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use sanserve_core::{Completion, Fault, Input, Ticket, Wait};
use sanserve_transcript::{Event, FeedThen, Line as Row, Middle, Sending, Settings, Taken, Then, Transcript, What};

use super::super::clients::{Client, Requests, Sent};
use super::super::disk::File;
use super::super::driver::{Driver, Environment, Pool};
use super::super::faults::Faults;
use super::super::holding::{Holding, brief, postpone};
use super::super::judge::{Judge, Wrong};
use super::super::random::Random;
use super::super::server::Server;

/// A planned event of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Planned {
    /// The connection is made.
    Start,
    /// The client acts.
    Client,
    /// The first bytes in transit arrive.
    Arrival,
    /// The client reads.
    Read,
    /// The disk returns a result.
    Disk,
    /// The handler is woken.
    Wake,
    /// The script writes.
    Script,
    /// The script reads.
    Feed,
    /// The deadline of the turn with this number.
    Timer(u64),
}

/// The history of a connection, which is available even after a panic.
pub(super) type Record = Rc<RefCell<Transcript>>;

/// A connection.
pub(super) struct Line<'s> {
    pub(super) driver: Driver<'s>,
    pub(super) environment: Side,
    /// The memory that it held when it was last queried.
    pub(super) held: u64,
    client: Client,
    is_handled: bool,
    /// When it was made. Its own time begins there.
    since: u64,
    turn: u64,
    /// The turn whose deadline is planned.
    armed: Option<u64>,
    /// The number of responses that the client has seen.
    answered: u64,
    /// When the client acts next.
    client_at: Option<u64>,
    /// For which time that is planned.
    client_due: Option<u64>,
    arrival_due: bool,
    read_due: bool,
    wake_due: bool,
    script_due: bool,
    feed_due: bool,
}

/// The environment of the connection.
pub(super) struct Side {
    pub(super) judge: Judge,
    /// The history, if it is recorded.
    pub(super) record: Option<Record>,
    /// The history, for the hash.
    pub(super) text: String,
    pub(super) events: u64,
    number: u64,
    holding: Holding,
    faults: Faults,
    random: Random,
    /// The capacity of the socket, and what the client has not read.
    socket: u64,
    unread: u64,
    finished: u64,
    /// The pending result of the disk, and after how many milliseconds it arrives.
    later: Option<(Ticket, Completion)>,
    delay: Option<u64>,
    /// Whether the file that is being sent has to be read first, or was read.
    reading: Reading,
    /// The milliseconds for which the driver has blocked on the disk in this turn, if it does so.
    waits_itself: bool,
    pub(super) waited: u64,
    /// The script takes no more for now.
    is_full: bool,
}

/// The state of the next part of a file that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Unknown,
    /// The disk is reading it.
    Under,
    Done,
}

impl Environment for Side {
    fn answer(&mut self, what: &mut What, ticket: Ticket) {
        if let What::Feed { bytes, .. } = what {
            let len = bytes.len();
            let most = if self.faults.has(Faults::SPLIT) { self.random.size(len as u64) as usize } else { len };
            self.holding.feed(what, most);
            let pauses = self.faults.has(Faults::SLOW) && self.random.one_in(8);
            if let What::Feed { then: then @ FeedThen::Poll, .. } = what {
                if pauses {
                    *then = FeedThen::Blocked;
                    self.is_full = true;
                }
            }
        }
        if let Some(millis) = self.holding.act(what) {
            let millis = millis + self.disk_takes();
            if self.waits_itself {
                self.waited += millis;
            } else if millis > 0 {
                self.later = postpone(what).map(|completion| (ticket, completion));
                self.delay = Some(millis);
            }
        }
        if let What::Send(sending) = what {
            if self.must_read(sending) {
                sending.taken = Taken { bytes: Some(0), then: Then::Pending };
                return;
            }
            if let Middle::File { offset, len } = sending.body {
                if self.faults.has(Faults::SHRINK_FILE) && self.random.one_in(40) {
                    self.holding.shrink(offset + self.random.below(len));
                }
            }
            let room = self.socket.saturating_sub(self.unread);
            // A socket may accept fewer bytes than it has room for.
            let most = if self.faults.has(Faults::SPLIT) && room > 0 { self.random.size(room) } else { room };
            self.holding.transmit(sending, most, most == room, None);
            self.unread = self.unread.saturating_add(sending.taken.bytes.unwrap_or(sending.len()));
        }
    }

    fn attached(&mut self, file: File) {
        self.holding.attach(file);
    }

    fn happened(&mut self, event: &Event) -> Result<(), Wrong> {
        self.events += 1;
        let brief = brief(event);
        writeln!(self.text, "{} {brief}", self.number).expect("writing to a String does not fail");
        self.holding.happened(&event.what);
        if let What::Finished(_) = &event.what {
            self.finished += 1;
            self.is_full = false;
            (self.later, self.reading) = (None, Reading::Unknown);
        }
        if let Some(record) = &mut self.record {
            record.borrow_mut().lines.push(Row::Event(brief));
        }
        self.judge.see(event)
    }
}

impl Side {
    /// Sets the number of the connection, and whether the driver blocks on the disk.
    pub(super) fn begin(&mut self, number: u64, waits_itself: bool) {
        (self.number, self.waits_itself) = (number, waits_itself);
    }

    /// The duration of an action.
    fn disk_takes(&mut self) -> u64 {
        let mut millis = 0;
        if self.faults.has(Faults::SLOW) {
            millis += match self.random.below(20) {
                0 => self.random.within(1_000, 5_000),
                1..=9 => self.random.within(1, 10),
                _ => 0,
            };
        }
        if self.faults.has(Faults::SLOW_DISK) {
            millis += self.slow_disk_takes();
        }
        millis
    }

    fn slow_disk_takes(&mut self) -> u64 {
        match self.random.below(30) {
            0 => self.random.within(10_000, 60_000),
            1..=14 => self.random.within(1, 500),
            _ => 0,
        }
    }

    /// Whether a part of a file has to be sent that is not in memory.
    fn must_read(&mut self, sending: &Sending) -> bool {
        let is_file = matches!(sending.body, Middle::File { .. });
        if !is_file || !self.faults.has(Faults::SLOW_DISK) || self.reading == Reading::Done {
            self.reading = Reading::Unknown;
            return false;
        }
        match self.slow_disk_takes() {
            0 => false,
            millis if self.waits_itself => {
                self.waited += millis;
                false
            }
            millis => {
                self.reading = Reading::Under;
                self.delay = Some(millis);
                true
            }
        }
    }
}

impl<'s> Line<'s> {
    pub(super) fn new(
        server: &Server<'s>,
        settings: &Settings,
        since: u64,
        pool: Pool,
        faults: Faults,
        mut random: Random,
    ) -> Line<'s> {
        let client = Client::new(faults, &mut random);
        let mut driver = Driver::accept(server, settings.peer, (settings.wall, settings.wall_millis), pool);
        driver.forbids_hanging = true;
        let environment = Side {
            judge: Judge::new(server.config.clone()),
            record: None,
            text: String::new(),
            events: 0,
            number: 0,
            holding: Holding::of(server.disk.clone()),
            faults,
            random,
            socket: client.socket,
            unread: 0,
            finished: 0,
            later: None,
            delay: None,
            reading: Reading::Unknown,
            waits_itself: false,
            waited: 0,
            is_full: false,
        };
        Line {
            driver,
            environment,
            held: 0,
            client,
            is_handled: server.is_handled(),
            since,
            turn: 0,
            armed: None,
            answered: 0,
            client_at: Some(since),
            client_due: None,
            arrival_due: false,
            read_due: false,
            wake_due: false,
            script_due: false,
            feed_due: false,
        }
    }

    /// Runs the first turn.
    pub(super) fn start(&mut self) -> Result<(), Wrong> {
        self.driver.turn(&mut self.environment)
    }

    /// Handles a planned event.
    pub(super) fn happen(&mut self, now: u64, planned: Planned, requests: &Requests<'_>) -> Result<(), Wrong> {
        match planned {
            Planned::Start => Ok(()),
            Planned::Client => {
                if self.client_at.is_some_and(|at| at <= now) {
                    self.client_at = self.client.act(now, self.answered, requests, &mut self.environment.random);
                }
                Ok(())
            }
            Planned::Arrival => {
                self.arrival_due = false;
                match self.client.outbox.pop_front() {
                    Some((_, Sent::Bytes(bytes))) => self.input(now, What::Recv(bytes)),
                    Some((_, Sent::Eof)) => self.input(now, What::Input(Input::Eof)),
                    Some((_, Sent::Reset)) => self.input(now, What::Input(Input::Broken(Fault::Peer))),
                    None => Ok(()),
                }
            }
            Planned::Read => {
                self.read_due = false;
                self.environment.unread = self.environment.unread.saturating_sub(self.client.reads.0);
                let is_blocked = self.driver.wait.is_some_and(|wait| wait.need.write);
                if is_blocked { self.input(now, What::Input(Input::Writable)) } else { Ok(()) }
            }
            Planned::Disk if self.environment.reading == Reading::Under => {
                self.environment.reading = Reading::Done;
                self.input(now, What::Input(Input::FileReady))
            }
            Planned::Disk => match self.environment.later.take() {
                Some((ticket, completion)) => self.input(now, What::Input(Input::Done(ticket, completion))),
                None => Ok(()),
            },
            Planned::Wake => {
                self.wake_due = false;
                self.input(now, What::Input(Input::Wake))
            }
            Planned::Script => {
                self.script_due = false;
                let reads_script = self.driver.wait.is_some_and(|wait| wait.need.script_read);
                match Some(&mut self.environment.holding).filter(|_| reads_script).and_then(Holding::script_output) {
                    Some(output) => self.input(now, output),
                    None => Ok(()),
                }
            }
            Planned::Feed => {
                self.feed_due = false;
                match std::mem::take(&mut self.environment.is_full) {
                    true => self.input(now, What::Input(Input::Feedable)),
                    false => Ok(()),
                }
            }
            Planned::Timer(turn) if turn == self.turn => self.input(now, What::Tick),
            Planned::Timer(_) => Ok(()),
        }
    }

    /// Passes an input.
    pub(super) fn input(&mut self, now: u64, what: What) -> Result<(), Wrong> {
        self.turn += 1;
        self.driver.input_and_turn(now - self.since, what, &mut self.environment)
    }

    /// The maximum memory since the last query, and the current memory.
    pub(super) fn take_held(&mut self) -> (u64, u64) {
        let peak = self.driver.take_held();
        (peak, self.driver.take_held())
    }

    /// The events to plan, with their times.
    pub(super) fn plans(&mut self) -> Vec<(u64, Planned)> {
        let mut plans = Vec::new();
        let Some(wait) = self.driver.wait else { return plans };
        let now = self.since + self.driver.now();
        let Line { environment, client, .. } = self;
        if environment.finished > self.answered {
            self.answered = environment.finished;
            self.client_at = Some(now + client.pause(&mut environment.random));
        }
        if let Some(at) = self.client_at.filter(|_| self.client_due != self.client_at) {
            self.client_due = Some(at);
            plans.push((at, Planned::Client));
        }
        if let Some((at, _)) = client.outbox.front() {
            if !self.arrival_due {
                self.arrival_due = true;
                plans.push((*at, Planned::Arrival));
            }
        }
        if environment.unread > 0 && client.reads.0 > 0 && !self.read_due {
            self.read_due = true;
            plans.push((now + client.reads.1, Planned::Read));
        }
        if let Some(delay) = environment.delay.take() {
            plans.push((now + delay, Planned::Disk));
        }
        self.plan_wake(now, wait, &mut plans);
        self.plan_script(now, wait, &mut plans);
        if let Some(deadline) = wait.deadline {
            if self.armed.replace(self.turn) != Some(self.turn) {
                // A driver may be late.
                let late = self.environment.faults.has(Faults::SLOW) && self.environment.random.one_in(4);
                let late = if late { self.environment.random.below(5) } else { 0 };
                plans.push((self.since + deadline.0 + late, Planned::Timer(self.turn)));
            }
        }
        plans
    }

    fn plan_script(&mut self, now: u64, wait: Wait, plans: &mut Vec<(u64, Planned)>) {
        let pause = self.environment.holding.script_pause().filter(|_| wait.need.script_read && !self.script_due);
        if let Some(pause) = pause {
            self.script_due = true;
            plans.push((now + pause, Planned::Script));
        }
        if self.environment.is_full && wait.need.script_write && !self.feed_due {
            self.feed_due = true;
            plans.push((now + self.environment.random.within(1, 500), Planned::Feed));
        }
    }

    fn plan_wake(&mut self, now: u64, wait: Wait, plans: &mut Vec<(u64, Planned)>) {
        let waits = self.is_handled && wait.need.handler && self.driver.has_waker();
        if waits && !self.wake_due {
            self.wake_due = true;
            let soon = self.driver.is_woken();
            let delay = if soon { 0 } else { self.environment.random.within(1, 500) };
            plans.push((now + delay, Planned::Wake));
        }
    }
}

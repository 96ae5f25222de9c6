//! One connection of a world: its client, the bytes under way, the server's side, and what is planned.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use sanserve_core::{Completion, Fault, Input, Ticket, Wait};
use sanserve_transcript::{Event, FeedThen, Line as Row, Middle, Sending, Settings, Taken, Then, Transcript, What};

use super::super::clients::{Client, Requests, Sent};
use super::super::disk::File;
use super::super::driver::{Driver, Outside, Pool};
use super::super::faults::Faults;
use super::super::holding::{Holding, brief, postpone};
use super::super::judge::{Judge, Wrong};
use super::super::random::Random;
use super::super::server::Server;

/// Something that is going to happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    /// It is made.
    Start,
    /// The client goes on.
    Client,
    /// What is first on its way arrives.
    Arrival,
    /// The client reads.
    Read,
    /// The disk answers.
    Disk,
    /// Somebody wakes the handler.
    Wake,
    /// The script says something.
    Script,
    /// The script reads on.
    Feed,
    /// The deadline of the turn with that number.
    Timer(u64),
}

/// The history of a connection, kept even where the world breaks down.
pub(super) type Record = Rc<RefCell<Transcript>>;

/// One connection.
pub(super) struct Line<'s> {
    pub(super) driver: Driver<'s>,
    pub(super) outside: Side,
    /// What it held when it was last asked.
    pub(super) held: u64,
    client: Client,
    is_handled: bool,
    /// When it was made: its own time begins there.
    since: u64,
    turn: u64,
    /// The turn whose deadline was put on the way.
    armed: Option<u64>,
    /// How many answers the client knows of.
    answered: u64,
    /// When the client wants its turn.
    client_at: Option<u64>,
    /// When that was put on the way for.
    client_due: Option<u64>,
    arrival_due: bool,
    read_due: bool,
    wake_due: bool,
    script_due: bool,
    feed_due: bool,
}

/// What is outside of the connection.
pub(super) struct Side {
    pub(super) judge: Judge,
    /// What has happened, where somebody wants to know it.
    pub(super) record: Option<Record>,
    /// What has happened, for the hash.
    pub(super) text: String,
    pub(super) events: u64,
    number: u64,
    holding: Holding,
    faults: Faults,
    random: Random,
    /// The room in the socket, and what the client has not read.
    socket: u64,
    unread: u64,
    finished: u64,
    /// What the disk will say, and after how many milliseconds.
    later: Option<(Ticket, Completion)>,
    delay: Option<u64>,
    /// The file that is being sent has to be read first, or was.
    reading: Reading,
    /// The driver waits for the disk itself, and so many milliseconds of its turn went by with that.
    waits_itself: bool,
    pub(super) waited: u64,
    /// The script takes no more for now.
    is_full: bool,
}

/// What is known of the next part of a file that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Unknown,
    /// The disk is at it.
    Under,
    Done,
}

impl Outside for Side {
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
            // A socket takes as much as it likes.
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
        writeln!(self.text, "{} {brief}", self.number).expect("a String takes all");
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
    /// The connection with this number is made, by a driver that may wait for the disk itself.
    pub(super) fn begin(&mut self, number: u64, waits_itself: bool) {
        (self.number, self.waits_itself) = (number, waits_itself);
    }

    /// What an action takes.
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

    /// Whether what is to be sent is a part of a file that is not in memory.
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
        let outside = Side {
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
            outside,
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

    /// Its first turn.
    pub(super) fn start(&mut self) -> Result<(), Wrong> {
        self.driver.turn(&mut self.outside)
    }

    /// Something that was planned happens.
    pub(super) fn happen(&mut self, now: u64, thing: Thing, requests: &Requests<'_>) -> Result<(), Wrong> {
        match thing {
            Thing::Start => Ok(()),
            Thing::Client => {
                if self.client_at.is_some_and(|at| at <= now) {
                    self.client_at = self.client.go_on(now, self.answered, requests, &mut self.outside.random);
                }
                Ok(())
            }
            Thing::Arrival => {
                self.arrival_due = false;
                match self.client.outbox.pop_front() {
                    Some((_, Sent::Bytes(bytes))) => self.told(now, What::Recv(bytes)),
                    Some((_, Sent::Eof)) => self.told(now, What::Input(Input::Eof)),
                    Some((_, Sent::Reset)) => self.told(now, What::Input(Input::Broken(Fault::Peer))),
                    None => Ok(()),
                }
            }
            Thing::Read => {
                self.read_due = false;
                self.outside.unread = self.outside.unread.saturating_sub(self.client.reads.0);
                let is_blocked = self.driver.wait.is_some_and(|wait| wait.need.write);
                if is_blocked { self.told(now, What::Input(Input::Writable)) } else { Ok(()) }
            }
            Thing::Disk if self.outside.reading == Reading::Under => {
                self.outside.reading = Reading::Done;
                self.told(now, What::Input(Input::FileReady))
            }
            Thing::Disk => match self.outside.later.take() {
                Some((ticket, completion)) => self.told(now, What::Input(Input::Done(ticket, completion))),
                None => Ok(()),
            },
            Thing::Wake => {
                self.wake_due = false;
                self.told(now, What::Input(Input::Wake))
            }
            Thing::Script => {
                self.script_due = false;
                let hears = self.driver.wait.is_some_and(|wait| wait.need.script_read);
                match Some(&mut self.outside.holding).filter(|_| hears).and_then(Holding::script_says) {
                    Some(said) => self.told(now, said),
                    None => Ok(()),
                }
            }
            Thing::Feed => {
                self.feed_due = false;
                match std::mem::take(&mut self.outside.is_full) {
                    true => self.told(now, What::Input(Input::Feedable)),
                    false => Ok(()),
                }
            }
            Thing::Timer(turn) if turn == self.turn => self.told(now, What::Tick),
            Thing::Timer(_) => Ok(()),
        }
    }

    /// The connection is told something.
    pub(super) fn told(&mut self, now: u64, what: What) -> Result<(), Wrong> {
        self.turn += 1;
        self.driver.happen(now - self.since, what, &mut self.outside)
    }

    /// What it held at most since it was last asked, and what it holds.
    pub(super) fn take_held(&mut self) -> (u64, u64) {
        let peak = self.driver.take_held();
        (peak, self.driver.take_held())
    }

    /// What is going to happen, and when.
    pub(super) fn plans(&mut self) -> Vec<(u64, Thing)> {
        let mut plans = Vec::new();
        let Some(wait) = self.driver.wait else { return plans };
        let now = self.since + self.driver.now();
        let Line { outside, client, .. } = self;
        if outside.finished > self.answered {
            self.answered = outside.finished;
            self.client_at = Some(now + client.pause(&mut outside.random));
        }
        if let Some(at) = self.client_at.filter(|_| self.client_due != self.client_at) {
            self.client_due = Some(at);
            plans.push((at, Thing::Client));
        }
        if let Some((at, _)) = client.outbox.front() {
            if !self.arrival_due {
                self.arrival_due = true;
                plans.push((*at, Thing::Arrival));
            }
        }
        if outside.unread > 0 && client.reads.0 > 0 && !self.read_due {
            self.read_due = true;
            plans.push((now + client.reads.1, Thing::Read));
        }
        if let Some(delay) = outside.delay.take() {
            plans.push((now + delay, Thing::Disk));
        }
        self.plan_wake(now, wait, &mut plans);
        self.plan_script(now, wait, &mut plans);
        if let Some(deadline) = wait.deadline {
            if self.armed.replace(self.turn) != Some(self.turn) {
                // A driver is not always in time.
                let late = self.outside.faults.has(Faults::SLOW) && self.outside.random.one_in(4);
                let late = if late { self.outside.random.below(5) } else { 0 };
                plans.push((self.since + deadline.0 + late, Thing::Timer(self.turn)));
            }
        }
        plans
    }

    fn plan_script(&mut self, now: u64, wait: Wait, plans: &mut Vec<(u64, Thing)>) {
        let pause = self.outside.holding.script_pause().filter(|_| wait.need.script_read && !self.script_due);
        if let Some(pause) = pause {
            self.script_due = true;
            plans.push((now + pause, Thing::Script));
        }
        if self.outside.is_full && wait.need.script_write && !self.feed_due {
            self.feed_due = true;
            plans.push((now + self.outside.random.within(1, 500), Thing::Feed));
        }
    }

    fn plan_wake(&mut self, now: u64, wait: Wait, plans: &mut Vec<(u64, Thing)>) {
        let waits = self.is_handled && wait.need.handler && self.driver.has_waker();
        if waits && !self.wake_due {
            self.wake_due = true;
            let soon = self.driver.is_woken();
            let delay = if soon { 0 } else { self.outside.random.within(1, 500) };
            plans.push((now + delay, Thing::Wake));
        }
    }
}

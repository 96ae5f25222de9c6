//! A client of one connection, and its clock, under the control of a test.

use std::fmt::Write as _;

use sanserve_core::{Close, Completion, Fault, Input, Ticket, Wait};
use sanserve_transcript::{Event, Finish, Line, Settings, Transcript, What};

use super::answers::{self, Answer};
use super::disk::File;
use super::driver::{Driver, Environment, Pool};
use super::holding::{Holding, postpone};
use super::judge::{Judge, Wrong};
use super::server::Server;

/// More wakes than any handler requests without another event.
const MAX_WAKES: usize = 1_000;

/// A client of one connection, in virtual time.
///
/// It does what the test calls, and reads whatever arrives unless it [stops](Peer::stop_reading). Time only advances in
/// [`pass`](Peer::pass), which fires all timers on the way. Everything that a [`World`](super::World) checks is checked
/// here too, such as the framing of responses, the times of timers and the log; an error panics. Every panic message
/// ends with the [transcript](sanserve_transcript) of the connection, which can be saved as a test.
///
/// For example, a slowloris attack, which takes no real time:
///
/// ```
/// use sanserve_testing::Peer;
///
/// let mut peer = Peer::new();
/// for byte in b"GET / HTTP/1.1\r\nHost: example\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaa" {
///     peer.send([*byte]).pass(1_000);
/// }
/// peer.expect_status(408).expect_closed();
/// ```
pub struct Peer<'s> {
    driver: Driver<'s>,
    side: Side,
    time: u64,
    /// How much the expectations have consumed: bytes, responses, events.
    passed: (usize, usize, usize),
}

/// The environment of the connection.
struct Side {
    holding: Holding,
    judge: Judge,
    /// How much the socket still accepts, and how much at a time.
    room: u64,
    piece: u64,
    received: Vec<u8>,
    /// The pending result of the disk, and when it is passed.
    later: Option<(u64, Ticket, Completion)>,
    /// When the script writes next.
    script_at: Option<u64>,
    now: u64,
    events: Vec<Event>,
    log: Vec<Finish>,
    settings: Settings,
}

impl Environment for Side {
    fn answer(&mut self, what: &mut What, ticket: Ticket) {
        self.holding.feed(what, usize::MAX);
        if let Some(millis) = self.holding.act(what).filter(|&millis| millis > 0) {
            self.later = postpone(what).map(|completion| (self.now + millis, ticket, completion));
        }
        if let What::Send(sending) = what {
            let most = self.room.min(self.piece);
            let before = self.received.len();
            self.holding.transmit(sending, most, most == self.room, Some(&mut self.received));
            self.room = self.room.saturating_sub((self.received.len() - before) as u64).max(self.endless());
        }
    }

    fn attached(&mut self, file: File) {
        self.holding.attach(file);
    }

    fn happened(&mut self, event: &Event) -> Result<(), Wrong> {
        self.now = event.at;
        self.holding.happened(&event.what);
        match &event.what {
            What::Finished(finish) => {
                self.log.push(finish.clone());
                (self.later, self.script_at) = (None, None);
            }
            What::Kill => self.script_at = None,
            _ => {}
        }
        self.events.push(event.clone());
        self.judge.see(event)
    }
}

impl Side {
    /// Unlimited room does not shrink.
    fn endless(&self) -> u64 {
        if self.room == u64::MAX { u64::MAX } else { 0 }
    }

    fn transcript(&self) -> Transcript {
        let lines = self.events.iter().cloned().map(Line::Event).collect();
        Transcript { about: Vec::new(), settings: self.settings.clone(), lines }
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n\n{}", self.transcript().to_text());
    }
}

impl Peer<'_> {
    /// A client of a server with an empty disk and without a handler: every valid request gets 404. Use
    /// [`Server::connect`] for other servers.
    #[must_use]
    pub fn new() -> Peer<'static> {
        Server::new().connect()
    }
}

impl Default for Peer<'_> {
    fn default() -> Self {
        Server::new().connect()
    }
}

impl<'s> Server<'s> {
    /// Accepts a new client.
    #[must_use]
    pub fn connect(&self) -> Peer<'s> {
        let settings = self.settings();
        let mut peer = Peer {
            driver: Driver::accept(self, settings.peer, (settings.wall, settings.wall_millis), Pool::default()),
            side: Side {
                holding: Holding::of(self.disk.clone()),
                judge: Judge::new(self.config.clone()),
                room: u64::MAX,
                piece: u64::MAX,
                received: Vec::new(),
                later: None,
                script_at: None,
                now: 0,
                events: Vec::new(),
                log: Vec::new(),
                settings,
            },
            time: 0,
            passed: (0, 0, 0),
        };
        peer.turn();
        peer
    }
}

/// Actions of the client.
impl Peer<'_> {
    /// Sends bytes. After the end of the connection, they are lost, as on a real network.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        if bytes.as_ref().is_empty() {
            return self;
        }
        self.happen(What::Recv(bytes.as_ref().to_vec()))
    }

    /// Sends bytes one by one, each followed by `millis` milliseconds.
    #[track_caller]
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>, millis: u64) -> &mut Self {
        for byte in bytes.as_ref() {
            self.send([*byte]).pass(millis);
        }
        self
    }

    /// Half-closes: the client sends nothing more, but keeps reading.
    #[track_caller]
    pub fn eof(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Eof))
    }

    /// Resets the connection.
    #[track_caller]
    pub fn reset(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Broken(Fault::Peer)))
    }

    /// Stops reading. The socket is full at once.
    pub fn stop_reading(&mut self) -> &mut Self {
        self.side.room = 0;
        self
    }

    /// Reads this number of bytes, and then stops.
    #[track_caller]
    pub fn read(&mut self, bytes: u64) -> &mut Self {
        let room = if self.side.room == u64::MAX { 0 } else { self.side.room };
        self.side.room = room.saturating_add(bytes);
        self.writable()
    }

    /// Reads everything from now on.
    #[track_caller]
    pub fn read_on(&mut self) -> &mut Self {
        self.side.room = u64::MAX;
        self.writable()
    }

    /// Limits how many bytes the socket accepts at a time.
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn dribble(&mut self, bytes: u64) -> &mut Self {
        assert!(bytes > 0, "use stop_reading for a socket that accepts nothing");
        self.side.piece = bytes;
        self
    }

    /// Lets time pass, in milliseconds. Timers fire, and results of the disk arrive, at their times.
    #[track_caller]
    pub fn pass(&mut self, millis: u64) -> &mut Self {
        let end = self.time + millis;
        if self.driver.is_woken() {
            self.wake();
        }
        while self.driver.closed.is_none() {
            let disk = self.side.later.as_ref().map_or(u64::MAX, |later| later.0);
            let timer = self.driver.wait.and_then(|wait| wait.deadline).map_or(u64::MAX, |deadline| deadline.0);
            let script = self.script_due().unwrap_or(u64::MAX);
            let next = disk.min(timer).min(script);
            if next > end {
                break;
            }
            self.time = next.max(self.time);
            if script < disk.min(timer) {
                self.script_writes();
                continue;
            }
            match self.side.later.take_if(|_| disk <= timer) {
                Some((_, ticket, completion)) => self.happen(What::Input(Input::Done(ticket, completion))),
                None => self.happen(What::Tick),
            };
        }
        self.time = end;
        self
    }
}

/// Actions of others.
impl Peer<'_> {
    /// Wakes the handler. Wakers that the handler has kept work by themselves.
    #[track_caller]
    pub fn wake(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Wake))
    }

    /// Drains: the server shuts down after the exchange in progress.
    #[track_caller]
    pub fn drain(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Drain))
    }

    /// Cuts: the grace period of the shutdown is over.
    #[track_caller]
    pub fn cut(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Cut))
    }

    /// Truncates the file that is being sent.
    pub fn shrink_file(&mut self, len: u64) -> &mut Self {
        self.side.holding.shrink(len);
        self
    }
}

/// Results.
impl Peer<'_> {
    /// The virtual milliseconds since the connection was accepted.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.time
    }

    /// All received bytes.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.side.received
    }

    /// The received responses, parsed strictly.
    #[must_use]
    #[track_caller]
    pub fn answers(&self) -> Vec<Answer> {
        let log = &self.side.log;
        let is_head = |n: usize| match log.get(n) {
            Some(finish) => finish.line.starts_with(b"HEAD "),
            None => self.side.judge.is_head(),
        };
        match answers::read(&self.side.received, is_head) {
            Ok(answers) => answers.all,
            Err(what) => self.side.fail(&what),
        }
    }

    /// The log entries so far.
    #[must_use]
    pub fn log(&self) -> &[Finish] {
        &self.side.log
    }

    /// What the connection waits for; `None` if it is closed.
    #[must_use]
    pub fn waits(&self) -> Option<Wait> {
        self.driver.wait
    }

    /// Why the connection was closed, if it was.
    #[must_use]
    pub fn closed(&self) -> Option<Close> {
        self.driver.closed
    }

    /// The complete history.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.side.transcript()
    }
}

/// Expectations. Each applies to what follows the previous one.
impl Peer<'_> {
    /// Expects that these bytes were received.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (bytes, rest) = (bytes.as_ref(), &self.side.received[self.passed.0..]);
        let found = if bytes.is_empty() { Some(0) } else { rest.windows(bytes.len()).position(|part| part == bytes) };
        match found {
            Some(at) => self.passed.0 += at + bytes.len(),
            None => {
                let mut what = format!("expected \"{}\"", bytes.escape_ascii());
                write!(what, " in \"{}\"", rest.escape_ascii()).expect("writing to a String does not fail");
                self.side.fail(&what)
            }
        }
        self
    }

    /// Expects that nothing more was received.
    #[track_caller]
    pub fn expect_nothing(&mut self) -> &mut Self {
        let rest = &self.side.received[self.passed.0..];
        if !rest.is_empty() {
            self.side.fail(&format!("expected nothing, received \"{}\"", rest.escape_ascii()));
        }
        self
    }

    /// Expects that the next response is complete and has this status.
    #[track_caller]
    pub fn expect_status(&mut self, status: u16) -> &mut Self {
        let answer = self.next_answer(&status.to_string());
        if answer.status != status || !answer.complete {
            self.side.fail(&format!("expected {status}, received {answer}"));
        }
        self
    }

    /// Expects that the next response is complete and has this status and body.
    #[track_caller]
    pub fn expect_answer(&mut self, status: u16, body: impl AsRef<[u8]>) -> &mut Self {
        let body = body.as_ref();
        let answer = self.next_answer(&status.to_string());
        if answer.status != status || !answer.complete || answer.body != body {
            self.side.fail(&format!("expected {status} with \"{}\", received {answer}", body.escape_ascii()));
        }
        self
    }

    /// Expects an event of the transcript that begins with this text, such as `send`, `open a.txt` or `finished 200`.
    #[track_caller]
    pub fn expect_step(&mut self, begins: &str) -> &mut Self {
        let line = |event: &Event| event.to_string().split_once(' ').map_or(String::new(), |(_, text)| text.into());
        let rest = &self.side.events[self.passed.2..];
        match rest.iter().position(|event| line(event).starts_with(begins)) {
            Some(at) => self.passed.2 += at + 1,
            None => self.side.fail(&format!("expected the step: {begins}")),
        }
        self
    }

    /// Expects that the connection is open.
    #[track_caller]
    pub fn expect_open(&mut self) -> &mut Self {
        if let Some(close) = self.driver.closed {
            self.side.fail(&format!("expected an open connection, but it was closed: {}", close.name()));
        }
        self
    }

    /// Expects that the connection is closed, for any reason.
    #[track_caller]
    pub fn expect_closed(&mut self) -> &mut Self {
        if self.driver.closed.is_none() {
            self.side.fail(&format!("expected a closed connection at {}, but it is open", self.time));
        }
        self
    }

    /// Expects that the connection was closed for this reason.
    #[track_caller]
    pub fn expect_close(&mut self, close: Close) -> &mut Self {
        self.expect_closed();
        if let Some(other) = self.driver.closed.filter(|&other| other != close) {
            self.side.fail(&format!("expected the reason {}, but it was closed: {}", close.name(), other.name()));
        }
        self
    }

    #[track_caller]
    fn next_answer(&mut self, expected: &str) -> Answer {
        let answers = self.answers();
        let Some(answer) = answers.get(self.passed.1).cloned() else {
            let rest = &self.side.received[self.passed.0..];
            self.side.fail(&format!("expected {expected}, received \"{}\"", rest.escape_ascii()))
        };
        self.passed.1 += 1;
        if answers.len() == self.passed.1 {
            self.passed.0 = self.side.received.len();
        }
        answer
    }
}

impl Peer<'_> {
    #[track_caller]
    fn happen(&mut self, what: What) -> &mut Self {
        if self.driver.closed.is_some() {
            return self;
        }
        if let Err(wrong) = self.driver.input(self.time, false, what, &mut self.side) {
            self.side.fail(&wrong.to_string());
        }
        self.turn();
        self
    }

    #[track_caller]
    fn turn(&mut self) {
        for _ in 0..MAX_WAKES {
            if let Err(wrong) = self.driver.turn(&mut self.side) {
                self.side.fail(&wrong.to_string());
            }
            if self.driver.closed.is_some() {
                return;
            }
            if self.script_due().is_some_and(|at| at <= self.time) {
                return self.script_writes();
            }
            if !self.driver.is_woken() {
                return;
            }
            if let Err(wrong) = self.driver.input(self.time, false, What::Input(Input::Wake), &mut self.side) {
                self.side.fail(&wrong.to_string());
            }
        }
        self.side.fail("the handler wakes itself endlessly");
    }

    /// When the script writes, if its output is read.
    fn script_due(&mut self) -> Option<u64> {
        let pause =
            self.side.holding.script_pause().filter(|_| self.driver.wait.is_some_and(|wait| wait.need.script_read))?;
        let now = self.time;
        Some(*self.side.script_at.get_or_insert(now + pause))
    }

    #[track_caller]
    fn script_writes(&mut self) {
        self.side.script_at = None;
        if let Some(output) = self.side.holding.script_output() {
            self.happen(output);
        }
    }

    #[track_caller]
    fn writable(&mut self) -> &mut Self {
        let is_blocked = self.driver.wait.is_some_and(|wait| wait.need.write);
        if is_blocked && self.side.room > 0 { self.happen(What::Input(Input::Writable)) } else { self }
    }
}

//! One connection by hand: you are the client, and the clock.

use std::fmt::Write as _;

use sanserve_core::{Close, Completion, Fault, Input, Ticket, Wait};
use sanserve_transcript::{Event, Finish, Line, Settings, Transcript, What};

use super::answers::{self, Answer};
use super::disk::File;
use super::driver::{Driver, Outside, Pool};
use super::holding::{Holding, postpone};
use super::judge::{Judge, Wrong};
use super::server::Server;

/// More times than any handler wakes itself without anything else happening.
const MAX_WAKES: usize = 1_000;

/// A client of one connection, in virtual time.
///
/// It does what you say when you say it, reads whatever comes unless it [stops](Peer::stop_reading), and keeps
/// all that has happened. Time stands still but for [`pass`](Peer::pass), which fires every timer on the way.
/// An answer that is framed wrong, a timer that fires early or late, a log entry that does not match: all that a
/// [`World`](super::World) checks is checked here too, and is a panic. Every panic ends with the
/// [transcript](sanserve_transcript) of the connection, ready to be kept.
///
/// A slowloris, which takes no real time:
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
    /// How far the expectations have come: bytes, answers, lines of the history.
    passed: (usize, usize, usize),
}

/// What is outside of the connection.
struct Side {
    holding: Holding,
    judge: Judge,
    /// How much the socket still takes, and how much at a time.
    room: u64,
    piece: u64,
    received: Vec<u8>,
    /// What the disk will say, and when.
    later: Option<(u64, Ticket, Completion)>,
    /// When the script says something.
    script_at: Option<u64>,
    now: u64,
    events: Vec<Event>,
    log: Vec<Finish>,
    settings: Settings,
}

impl Outside for Side {
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
    /// Room that never ends does not shrink.
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
    /// A client of a server with an empty disk and without a handler: every request is a 404, or worse.
    /// Others come from [`Server::connect`].
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
    /// A client that has just been accepted.
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

/// What the client does.
impl Peer<'_> {
    /// Sends bytes. What comes after the end of the connection is lost, as it would be.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        if bytes.as_ref().is_empty() {
            return self;
        }
        self.happen(What::Recv(bytes.as_ref().to_vec()))
    }

    /// Sends bytes one by one, each `millis` after the last.
    #[track_caller]
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>, millis: u64) -> &mut Self {
        for byte in bytes.as_ref() {
            self.send([*byte]).pass(millis);
        }
        self
    }

    /// Half-closes: it sends nothing more, and goes on reading.
    #[track_caller]
    pub fn eof(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Eof))
    }

    /// Resets the connection.
    #[track_caller]
    pub fn reset(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Broken(Fault::Peer)))
    }

    /// Reads nothing more, and the socket is full at once.
    pub fn stop_reading(&mut self) -> &mut Self {
        self.side.room = 0;
        self
    }

    /// Reads so many bytes more, and then stops.
    #[track_caller]
    pub fn read(&mut self, bytes: u64) -> &mut Self {
        let room = if self.side.room == u64::MAX { 0 } else { self.side.room };
        self.side.room = room.saturating_add(bytes);
        self.writable()
    }

    /// Reads all that there is and will be.
    #[track_caller]
    pub fn read_on(&mut self) -> &mut Self {
        self.side.room = u64::MAX;
        self.writable()
    }

    /// The socket takes so many bytes at a time, from now on.
    ///
    /// # Panics
    /// If that is none.
    pub fn dribble(&mut self, bytes: u64) -> &mut Self {
        assert!(bytes > 0, "a socket that takes nothing is one whose peer stops reading");
        self.side.piece = bytes;
        self
    }

    /// Lets milliseconds pass. Timers fire, and the disk answers, at their time.
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
                self.script_speaks();
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

/// What others do.
impl Peer<'_> {
    /// Somebody wakes the handler. Its own wakers work by themselves.
    #[track_caller]
    pub fn wake(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Wake))
    }

    /// The server goes down: it finishes what is in progress.
    #[track_caller]
    pub fn drain(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Drain))
    }

    /// The bound of going down has passed: it cuts what is in progress.
    #[track_caller]
    pub fn cut(&mut self) -> &mut Self {
        self.happen(What::Input(Input::Cut))
    }

    /// The file that is being sent becomes as short as this.
    pub fn shrink_file(&mut self, len: u64) -> &mut Self {
        self.side.holding.shrink(len);
        self
    }
}

/// What came of it.
impl Peer<'_> {
    /// Virtual milliseconds since the connection was accepted.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.time
    }

    /// Every byte that was received.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.side.received
    }

    /// What was received, read strictly.
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

    /// What the connection waits for; `None`: it is closed.
    #[must_use]
    pub fn waits(&self) -> Option<Wait> {
        self.driver.wait
    }

    /// Why it was closed, if it was.
    #[must_use]
    pub fn closed(&self) -> Option<Close> {
        self.driver.closed
    }

    /// All that has happened.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.side.transcript()
    }
}

/// Expectations. Each holds for what came after the one before it.
impl Peer<'_> {
    /// These bytes were received.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let (bytes, rest) = (bytes.as_ref(), &self.side.received[self.passed.0..]);
        let found = if bytes.is_empty() { Some(0) } else { rest.windows(bytes.len()).position(|part| part == bytes) };
        match found {
            Some(at) => self.passed.0 += at + bytes.len(),
            None => {
                let mut what = format!("expected \"{}\"", bytes.escape_ascii());
                write!(what, " in \"{}\"", rest.escape_ascii()).expect("a String takes all");
                self.side.fail(&what)
            }
        }
        self
    }

    /// Nothing more was received.
    #[track_caller]
    pub fn expect_nothing(&mut self) -> &mut Self {
        let rest = &self.side.received[self.passed.0..];
        if !rest.is_empty() {
            self.side.fail(&format!("expected nothing, received \"{}\"", rest.escape_ascii()));
        }
        self
    }

    /// The next answer is complete and has this status.
    #[track_caller]
    pub fn expect_status(&mut self, status: u16) -> &mut Self {
        let answer = self.next_answer(&status.to_string());
        if answer.status != status || !answer.complete {
            self.side.fail(&format!("expected {status}, received {answer}"));
        }
        self
    }

    /// The next answer is complete and has this status and body.
    #[track_caller]
    pub fn expect_answer(&mut self, status: u16, body: impl AsRef<[u8]>) -> &mut Self {
        let body = body.as_ref();
        let answer = self.next_answer(&status.to_string());
        if answer.status != status || !answer.complete || answer.body != body {
            self.side.fail(&format!("expected {status} with \"{}\", received {answer}", body.escape_ascii()));
        }
        self
    }

    /// A line of the transcript that begins so, as `send`, `open a.txt` or `finished 200`.
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

    /// The connection is open.
    #[track_caller]
    pub fn expect_open(&mut self) -> &mut Self {
        if let Some(close) = self.driver.closed {
            self.side.fail(&format!("expected it to be open, and it was closed: {}", close.name()));
        }
        self
    }

    /// The connection is closed, for whatever reason.
    #[track_caller]
    pub fn expect_closed(&mut self) -> &mut Self {
        if self.driver.closed.is_none() {
            self.side.fail(&format!("expected it to be closed at {}, and it is open", self.time));
        }
        self
    }

    /// The connection was closed for this reason.
    #[track_caller]
    pub fn expect_close(&mut self, close: Close) -> &mut Self {
        self.expect_closed();
        if let Some(other) = self.driver.closed.filter(|&other| other != close) {
            self.side.fail(&format!("expected it to be closed as {}, and it was as {}", close.name(), other.name()));
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
                return self.script_speaks();
            }
            if !self.driver.is_woken() {
                return;
            }
            if let Err(wrong) = self.driver.input(self.time, false, What::Input(Input::Wake), &mut self.side) {
                self.side.fail(&wrong.to_string());
            }
        }
        self.side.fail("the handler wakes itself without end");
    }

    /// When the script says something, if somebody reads it.
    fn script_due(&mut self) -> Option<u64> {
        let pause =
            self.side.holding.script_pause().filter(|_| self.driver.wait.is_some_and(|wait| wait.need.script_read))?;
        let now = self.time;
        Some(*self.side.script_at.get_or_insert(now + pause))
    }

    #[track_caller]
    fn script_speaks(&mut self) {
        self.side.script_at = None;
        if let Some(said) = self.side.holding.script_says() {
            self.happen(said);
        }
    }

    #[track_caller]
    fn writable(&mut self) -> &mut Self {
        let is_blocked = self.driver.wait.is_some_and(|wait| wait.need.write);
        if is_blocked && self.side.room > 0 { self.happen(What::Input(Input::Writable)) } else { self }
    }
}

//! A world of clients, a network, a disk and a server in virtual time, all of which its seed determines.

mod line;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sanserve_core::{Config, Handler, Input, Policy};
use sanserve_transcript::{Transcript, What};

use super::clients::{self, Requests};
use super::disk::Disk;
use super::driver::Pool;
use super::faults::Faults;
use super::judge::Wrong;
use super::quiet::{quietly, text};
use super::random::{Random, mix};
use super::replay::{replay, shorten};
use super::server::Server;
use super::summary::{Failure, Summary};
use line::{Line, Record, Thing};

/// Between the end of a world's time and the end of its last connections.
const GRACE: u64 = 30_000;

/// Many clients of one server, with a network and a disk that are as bad as you like.
///
/// The clients are spread over the time of the world. Whatever they do, it is checked that every answer is
/// framed right, is whole, and is logged as it was sent; that every request is answered; that none is refused
/// which is well-formed and within the limits; that each timer fires
/// when the peer's behaviour and the `Timeouts` say so, neither earlier nor later; that each exchange is
/// finished once and each connection ends; that memory stays within its limits and is let go between
/// requests; that nobody waits for a disk that another connection has asked; and that your handler neither panics nor leaves anybody waiting for ever.
///
/// ```
/// use sanserve_testing::{Faults, Random, World};
/// use sanserve_core::{Call, Reply, StatusCode};
///
/// let hello = |call: Call, reply: &mut Reply<'_>| {
///     if call == Call::Request {
///         reply.answer(StatusCode::OK, "text/plain", "hello\n").unwrap();
///     }
/// };
/// let summary = World::new(7).connections(20).faults(Faults::all()).lasting(60_000).handler(|| hello).run();
/// assert_eq!(summary.connections, 20);
/// ```
///
/// A handler that waits for something keeps [`Reply::waker`](sanserve_core::Reply::waker); the world wakes it after a
/// while. A connection that is still open at the end of the time is told that the server goes down, and is
/// cut 30 seconds later.
#[must_use]
pub struct World<'s> {
    seed: u64,
    server: Server<'s>,
    connections: u64,
    faults: Faults,
    millis: u64,
    waits_for_disk: bool,
    requests: Option<Box<Requests<'s>>>,
}

impl<'s> World<'s> {
    /// The world of a seed: 20 connections in 10 minutes, all faults, a server with an empty disk.
    pub fn new(seed: u64) -> World<'s> {
        World {
            seed,
            server: Server::new(),
            connections: 20,
            faults: Faults::all(),
            millis: 600_000,
            waits_for_disk: false,
            requests: None,
        }
    }

    /// With so many connections in all.
    pub fn connections(self, connections: u64) -> World<'s> {
        World { connections, ..self }
    }

    /// With these faults and no others.
    pub fn faults(self, faults: Faults) -> World<'s> {
        World { faults, ..self }
    }

    /// In so many milliseconds connections are made.
    pub fn lasting(self, millis: u64) -> World<'s> {
        World { millis, ..self }
    }

    /// With a driver that waits for its disk in the turn of a connection, as an event loop without threads for the disk
    /// does. Then all others wait too, which breaks a rule: this is to show that it does.
    pub fn waiting_for_disk(self) -> World<'s> {
        World { waits_for_disk: true, ..self }
    }

    /// With this server.
    pub fn serving(self, server: Server<'s>) -> World<'s> {
        World { server, ..self }
    }

    /// With this policy, see [`Server::policy`].
    pub fn policy(self, policy: impl Policy + 's) -> World<'s> {
        World { server: self.server.policy(policy), ..self }
    }

    /// With a handler for each connection, see [`Server::handler`].
    pub fn handler<H: Handler + 's>(self, make: impl Fn() -> H + 's) -> World<'s> {
        World { server: self.server.handler(make), ..self }
    }

    /// With these files, see [`Server::disk`].
    pub fn disk(self, disk: Disk) -> World<'s> {
        World { server: self.server.disk(disk), ..self }
    }

    /// With these rules, see [`Server::config`].
    pub fn config(self, config: Config) -> World<'s> {
        World { server: self.server.config(config), ..self }
    }

    /// Clients send these. Each is one request, or what is meant to be one. Default: requests for what is on the
    /// disk, and for what is not.
    pub fn requests(self, make: impl Fn(&mut Random) -> Vec<u8> + 's) -> World<'s> {
        World { requests: Some(Box::new(make)), ..self }
    }

    /// Lives through it.
    ///
    /// # Panics
    /// If a rule is broken: with the seed, the rule, and the history of the connection, made short.
    #[track_caller]
    pub fn run(self) -> Summary {
        match self.try_run() {
            Ok(summary) => summary,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// The same, and says what went wrong.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn try_run(self) -> Result<Summary, Box<Failure>> {
        let current = Cell::new(0);
        let wrong = match self.live(None, &current) {
            Ok(summary) => return Ok(summary),
            Err(wrong) => wrong,
        };
        // The same again, and this time somebody writes down what happens to that connection.
        let connection = current.get();
        let record = Record::default();
        let again = self.live(Some((connection, record.clone())), &current);
        let history = record.take();
        let index = connection as u64;
        let fail = |what: String, mut transcript: Transcript, is_alone| {
            transcript.about = vec![format!(" seed {}, connection {index}: {what}", self.seed)];
            Err(Box::new(Failure { seed: Some(self.seed), connection: index, what, transcript, is_alone }))
        };
        if !again.is_err_and(|again| again.rule == wrong.rule) {
            return fail(format!("{wrong}; and not so a second time: more than the seed matters"), history, false);
        }
        let Some(short) = shorten(&self.server, &history, wrong.rule) else {
            return fail(wrong.to_string(), history, false);
        };
        // The same once more, with all that was offered and did not go out.
        match quietly(|| replay(&self.server, &short, false)) {
            (whole, Some(wrong)) => fail(wrong.to_string(), whole, true),
            (_, None) => fail(wrong.to_string(), short, true),
        }
    }

    /// Lives through it; what goes wrong is the `current` connection's affair. What happens to one of them may
    /// be `recorded`.
    fn live(&self, recorded: Option<(usize, Record)>, current: &Cell<usize>) -> Result<Summary, Wrong> {
        let mut life = Life {
            world: self,
            summary: Summary::new(self.seed),
            lines: Vec::new(),
            things: BinaryHeap::new(),
            serial: 0,
            now: 0,
            busy_until: 0,
            held: 0,
            pool: Pool::default(),
            recorded,
            current,
        };
        match quietly(|| catch_unwind(AssertUnwindSafe(|| life.run()))) {
            Ok(outcome) => outcome.map(|()| life.summary),
            Err(panic) => Err(Wrong::new("panic", text(&*panic))),
        }
    }

    fn request(&self, random: &mut Random) -> Vec<u8> {
        match &self.requests {
            Some(make) => make(random),
            None => clients::for_disk(&self.server.disk, random),
        }
    }
}

/// A world that is being lived through.
struct Life<'w, 's> {
    world: &'w World<'s>,
    summary: Summary,
    /// By number; none before it begins and after its end.
    lines: Vec<Option<Box<Line<'s>>>>,
    things: BinaryHeap<Reverse<(u64, u64, usize, Thing)>>,
    serial: u64,
    now: u64,
    /// The driver is in a turn until then.
    busy_until: u64,
    /// What all connections hold.
    held: u64,
    pool: Pool,
    recorded: Option<(usize, Record)>,
    current: &'w Cell<usize>,
}

impl Life<'_, '_> {
    fn run(&mut self) -> Result<(), Wrong> {
        let World { connections, millis, seed, .. } = *self.world;
        let mut random = Random::new(seed);
        let mut at = 0;
        for n in 0..usize::try_from(connections).unwrap_or(usize::MAX) {
            // Some come together.
            at = if n > 0 && random.one_in(3) { at } else { random.below(millis.max(1)) };
            self.lines.push(None);
            self.schedule(at, n, Thing::Start);
        }
        let mut end = [Some((millis, Input::Drain)), Some((millis.saturating_add(GRACE), Input::Cut))];
        while let Some(Reverse((at, _, n, thing))) = self.things.pop() {
            for (due, input) in end.iter_mut().filter_map(|due| due.take_if(|due| due.0 <= at)) {
                self.now = due;
                self.all(&input)?;
            }
            self.current.set(n);
            if at < self.busy_until {
                let late = self.busy_until - at;
                let what = format!("it waits {late} ms for what another connection asked of the disk");
                return Err(Wrong::new("turn", what));
            }
            self.now = at;
            if thing == Thing::Start {
                self.start(n)?;
            } else if let Some(mut line) = self.lines[n].take() {
                let outcome = line.happen(self.now, thing, &|random| self.world.request(random));
                let waited = std::mem::take(&mut line.outside.waited);
                if waited > 0 {
                    self.busy_until = self.now + waited;
                }
                self.lines[n] = Some(line);
                outcome?;
                self.settle(n)?;
            }
        }
        if let Some(n) = self.lines.iter().position(Option::is_some) {
            self.current.set(n);
            return Err(Wrong::new("end", "it lives for ever"));
        }
        Ok(())
    }

    fn schedule(&mut self, at: u64, line: usize, thing: Thing) {
        self.serial += 1;
        self.things.push(Reverse((at, self.serial, line, thing)));
    }

    fn start(&mut self, n: usize) -> Result<(), Wrong> {
        let number = n as u64;
        let mut settings = self.world.server.settings();
        settings.wall.0 += i64::try_from(self.now / 1000).unwrap_or(0);
        settings.peer = ([10, 0, (number >> 8) as u8, number as u8], 4000).into();
        let random = Random::new(mix(self.world.seed) ^ mix(number.wrapping_add(1)));
        let World { server, faults, .. } = self.world;
        let mut line = Box::new(Line::new(server, &settings, self.now, self.pool.clone(), *faults, random));
        line.outside.begin(number, self.world.waits_for_disk);
        let recorded = self.recorded.as_ref().filter(|of| of.0 == n).map(|of| of.1.clone());
        line.outside.record = recorded.or_else(|| self.world.server.rule.as_ref().map(|_| Record::default()));
        if let Some(record) = &line.outside.record {
            record.borrow_mut().settings = settings;
        }
        self.summary.connections += 1;
        let outcome = line.start();
        self.lines[n] = Some(line);
        outcome?;
        self.settle(n)
    }

    /// Something happens to every connection.
    fn all(&mut self, input: &Input) -> Result<(), Wrong> {
        for n in 0..self.lines.len() {
            self.current.set(n);
            if let Some(mut line) = self.lines[n].take() {
                let outcome = line.told(self.now, What::Input(input.clone()));
                self.lines[n] = Some(line);
                outcome?;
                self.settle(n)?;
            }
        }
        Ok(())
    }

    /// What has come of it: what is to happen next, what was held and said, and whether it has ended.
    fn settle(&mut self, n: usize) -> Result<(), Wrong> {
        let Some(line) = &mut self.lines[n] else { return Ok(()) };
        for (at, thing) in line.plans() {
            self.serial += 1;
            self.things.push(Reverse((at.max(self.now), self.serial, n, thing)));
        }
        self.summary.events += std::mem::take(&mut line.outside.events);
        self.summary.hash.write(line.outside.text.as_bytes());
        line.outside.text.clear();
        let (peak, held) = line.take_held();
        self.held = self.held - line.held + peak;
        self.summary.peak_memory = self.summary.peak_memory.max(self.held);
        self.held = self.held - peak + held;
        line.held = held;
        if let Some(close) = line.driver.closed {
            line.outside.judge.end()?;
            if let Some(record) = &line.outside.record {
                self.world.server.breaks_rule(&record.borrow()).map_or(Ok(()), Err)?;
            }
            self.summary.ended(&line.outside.judge.tally, close);
            self.summary.lasted = self.now;
            self.held -= line.held;
            self.lines[n] = None;
        }
        Ok(())
    }
}

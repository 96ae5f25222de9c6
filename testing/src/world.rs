//! A simulation of clients, a network, a disk and a server in virtual time, determined by a seed.

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
use line::{Line, Planned, Record};

/// The milliseconds between the end of a world's duration and the cut of its last connections.
const GRACE: u64 = 30_000;

/// Simulates many clients of one server, with a faulty network and disk.
///
/// The clients connect at random times. These properties are checked, whatever the clients do: every response is framed
/// correctly, complete, and logged as it was sent; every request has a response; no request that is well-formed and
/// within the limits is refused; each timer fires exactly when the behavior of the client and the `Timeouts` require
/// it; each exchange is finished once, and each connection ends; memory stays within its limits and is released between
/// requests; no connection waits for the disk on behalf of another one; and your handler neither panics nor leaves a
/// client waiting forever.
///
/// ```
/// use sanserve_testing::{Faults, Random, World};
/// use sanserve_core::{Call, Reply, StatusCode};
///
/// let hello = |call: Call, reply: &mut Reply<'_>| {
///     if call == Call::Request {
///         reply.answer(StatusCode::OK, "text/plain", "hello\n")?;
///     }
///     Ok(())
/// };
/// let summary = World::new(7).connections(20).faults(Faults::all()).lasting(60_000).handler(|| hello).run();
/// assert_eq!(summary.connections, 20);
/// ```
///
/// A handler that waits for something keeps [`Reply::waker`](sanserve_core::Reply::waker), and the world wakes it after
/// a while. A connection that is still open at the end is drained, and is cut 30 seconds later.
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
    /// Creates the world of a seed: 20 connections in 10 minutes, all faults, a server with an empty disk.
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

    /// Sets the number of connections.
    pub fn connections(self, connections: u64) -> World<'s> {
        World { connections, ..self }
    }

    /// Sets the faults.
    pub fn faults(self, faults: Faults) -> World<'s> {
        World { faults, ..self }
    }

    /// Sets the time in which connections are made, in milliseconds.
    pub fn lasting(self, millis: u64) -> World<'s> {
        World { millis, ..self }
    }

    /// Simulates a driver that blocks on the disk in the turn of a connection, like an event loop without threads for
    /// the disk. Then all other connections wait too, which breaks a rule. For tests of this rule.
    pub fn waiting_for_disk(self) -> World<'s> {
        World { waits_for_disk: true, ..self }
    }

    /// Sets the server.
    pub fn serving(self, server: Server<'s>) -> World<'s> {
        World { server, ..self }
    }

    /// Sets the policy, see [`Server::policy`].
    pub fn policy(self, policy: impl Policy + 's) -> World<'s> {
        World { server: self.server.policy(policy), ..self }
    }

    /// Sets the handler, see [`Server::handler`].
    pub fn handler<H: Handler + 's>(self, make: impl Fn() -> H + 's) -> World<'s> {
        World { server: self.server.handler(make), ..self }
    }

    /// Sets the disk, see [`Server::disk`].
    pub fn disk(self, disk: Disk) -> World<'s> {
        World { server: self.server.disk(disk), ..self }
    }

    /// Sets the configuration, see [`Server::config`].
    pub fn config(self, config: Config) -> World<'s> {
        World { server: self.server.config(config), ..self }
    }

    /// Sets the requests of clients. Each call of `make` returns one request, which may be malformed. Default: requests
    /// for files on the disk, and for missing files.
    pub fn requests(self, make: impl Fn(&mut Random) -> Vec<u8> + 's) -> World<'s> {
        World { requests: Some(Box::new(make)), ..self }
    }

    /// Runs the simulation.
    ///
    /// # Panics
    /// If a rule is broken. The message has the seed, the rule, and the minimized history of the connection.
    #[track_caller]
    pub fn run(self) -> Summary {
        match self.try_run() {
            Ok(summary) => summary,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Runs the simulation, and returns a failure instead of panicking.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn try_run(self) -> Result<Summary, Box<Failure>> {
        let current = Cell::new(0);
        let wrong = match self.simulate(None, &current) {
            Ok(summary) => return Ok(summary),
            Err(wrong) => wrong,
        };
        // Runs it again, and records what happens to that connection.
        let connection = current.get();
        let record = Record::default();
        let again = self.simulate(Some((connection, record.clone())), &current);
        let history = record.take();
        let index = connection as u64;
        let fail = |what: String, mut transcript: Transcript, is_alone| {
            transcript.about = vec![format!(" seed {}, connection {index}: {what}", self.seed)];
            Err(Box::new(Failure { seed: Some(self.seed), connection: index, what, transcript, is_alone }))
        };
        if !again.is_err_and(|again| again.rule == wrong.rule) {
            return fail(format!("{wrong}; but not in a second run: it depends on more than the seed"), history, false);
        }
        let Some(short) = shorten(&self.server, &history, wrong.rule) else {
            return fail(wrong.to_string(), history, false);
        };
        // Replays it once more, this time with all bytes that were offered.
        match quietly(|| replay(&self.server, &short, false)) {
            (whole, Some(wrong)) => fail(wrong.to_string(), whole, true),
            (_, None) => fail(wrong.to_string(), short, true),
        }
    }

    /// Runs the simulation. A failure belongs to the connection `current`. One connection may be `recorded`.
    fn simulate(&self, recorded: Option<(usize, Record)>, current: &Cell<usize>) -> Result<Summary, Wrong> {
        let mut simulation = Simulation {
            world: self,
            summary: Summary::new(self.seed),
            lines: Vec::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            now: 0,
            busy_until: 0,
            held: 0,
            pool: Pool::default(),
            recorded,
            current,
        };
        match quietly(|| catch_unwind(AssertUnwindSafe(|| simulation.run()))) {
            Ok(outcome) => outcome.map(|()| simulation.summary),
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

/// The state of a simulation.
struct Simulation<'w, 's> {
    world: &'w World<'s>,
    summary: Summary,
    /// The connections by number; `None` before they begin and after they end.
    lines: Vec<Option<Box<Line<'s>>>>,
    queue: BinaryHeap<Reverse<(u64, u64, usize, Planned)>>,
    serial: u64,
    now: u64,
    /// Until when the driver is in a turn.
    busy_until: u64,
    /// The memory of all connections.
    held: u64,
    pool: Pool,
    recorded: Option<(usize, Record)>,
    current: &'w Cell<usize>,
}

impl Simulation<'_, '_> {
    fn run(&mut self) -> Result<(), Wrong> {
        let World { connections, millis, seed, .. } = *self.world;
        let mut random = Random::new(seed);
        let mut at = 0;
        for n in 0..usize::try_from(connections).unwrap_or(usize::MAX) {
            // Some clients connect at the same time.
            at = if n > 0 && random.one_in(3) { at } else { random.below(millis.max(1)) };
            self.lines.push(None);
            self.schedule(at, n, Planned::Start);
        }
        let mut end = [Some((millis, Input::Drain)), Some((millis.saturating_add(GRACE), Input::Cut))];
        while let Some(Reverse((at, _, n, planned))) = self.queue.pop() {
            for (due, input) in end.iter_mut().filter_map(|due| due.take_if(|due| due.0 <= at)) {
                self.now = due;
                self.all(&input)?;
            }
            self.current.set(n);
            if at < self.busy_until {
                let late = self.busy_until - at;
                let what = format!("it waits {late} ms for the disk on behalf of another connection");
                return Err(Wrong::new("turn", what));
            }
            self.now = at;
            if planned == Planned::Start {
                self.start(n)?;
            } else if let Some(mut line) = self.lines[n].take() {
                let outcome = line.happen(self.now, planned, &|random| self.world.request(random));
                let waited = std::mem::take(&mut line.environment.waited);
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
            return Err(Wrong::new("end", "a connection does not end"));
        }
        Ok(())
    }

    fn schedule(&mut self, at: u64, line: usize, planned: Planned) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, line, planned)));
    }

    fn start(&mut self, n: usize) -> Result<(), Wrong> {
        let number = n as u64;
        let mut settings = self.world.server.settings();
        settings.wall.0 += i64::try_from(self.now / 1000).unwrap_or(0);
        settings.peer = ([10, 0, (number >> 8) as u8, number as u8], 4000).into();
        let random = Random::new(mix(self.world.seed) ^ mix(number.wrapping_add(1)));
        let World { server, faults, .. } = self.world;
        let mut line = Box::new(Line::new(server, &settings, self.now, self.pool.clone(), *faults, random));
        line.environment.begin(number, self.world.waits_for_disk);
        let recorded = self.recorded.as_ref().filter(|of| of.0 == n).map(|of| of.1.clone());
        line.environment.record = recorded.or_else(|| self.world.server.rule.as_ref().map(|_| Record::default()));
        if let Some(record) = &line.environment.record {
            record.borrow_mut().settings = settings;
        }
        self.summary.connections += 1;
        let outcome = line.start();
        self.lines[n] = Some(line);
        outcome?;
        self.settle(n)
    }

    /// Passes an input to every connection.
    fn all(&mut self, input: &Input) -> Result<(), Wrong> {
        for n in 0..self.lines.len() {
            self.current.set(n);
            if let Some(mut line) = self.lines[n].take() {
                let outcome = line.input(self.now, What::Input(input.clone()));
                self.lines[n] = Some(line);
                outcome?;
                self.settle(n)?;
            }
        }
        Ok(())
    }

    /// Updates the schedule and the summary after an event, and removes a connection that has ended.
    fn settle(&mut self, n: usize) -> Result<(), Wrong> {
        let Some(line) = &mut self.lines[n] else { return Ok(()) };
        for (at, planned) in line.plans() {
            self.serial += 1;
            self.queue.push(Reverse((at.max(self.now), self.serial, n, planned)));
        }
        self.summary.events += std::mem::take(&mut line.environment.events);
        self.summary.hash.write(line.environment.text.as_bytes());
        line.environment.text.clear();
        let (peak, held) = line.take_held();
        self.held = self.held - line.held + peak;
        self.summary.peak_memory = self.summary.peak_memory.max(self.held);
        self.held = self.held - peak + held;
        line.held = held;
        if let Some(close) = line.driver.closed {
            line.environment.judge.end()?;
            if let Some(record) = &line.environment.record {
                self.world.server.breaks_rule(&record.borrow()).map_or(Ok(()), Err)?;
            }
            self.summary.ended(&line.environment.judge.tally, close);
            self.summary.lasted = self.now;
            self.held -= line.held;
            self.lines[n] = None;
        }
        Ok(())
    }
}

//! A world of clients, a network, a disk and a server in virtual time. Every connection is a [`Rig`],
//! and all that happens to it is kept as a history of operations, which can be replayed alone and
//! made short.

mod scripted;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use sanserve_core::{Buffers, Cgi, Chunked, Config, EntryKind, Fault, FsError, Protocol, Wait};

use super::clients::{Kind, Plan, Sent};
use super::disk::{self, Disk, File, Node};
use super::random::Random;
use super::rig::{At, Op, Rig};
use super::scripts::Program;
use super::verdict;

/// More than any world needs.
const MOST_EVENTS: usize = 1_000_000;

/// More replays than it takes to shorten a history well.
const MOST_REPLAYS: usize = 1_000;

/// What happened to a connection, and when.
pub type History = Vec<(u64, Op)>;

/// Something that is going to happen to a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Read,
    Disk,
    Wake,
    /// The script writes, or comes to its end.
    Script,
    /// The script reads on.
    Feed,
    /// The deadline of the turn with that number.
    Timer(u64),
}

/// One connection: its client, the bytes under way, the server's side.
struct Line {
    plan: Plan,
    rig: Rig,
    history: History,
    /// Arrived, and not yet read by the server.
    inbox: VecDeque<Sent>,
    /// Sent, and not yet read by the client.
    unread: u64,
    turn: u64,
    /// The turn whose deadline was put on the way.
    armed: Option<u64>,
    disk_due: bool,
    wake_due: bool,
    read_due: bool,
    script_due: bool,
    feed_due: bool,
    /// The script that runs; the number of its hop.
    program: Option<(usize, Program)>,
    /// Milliseconds that the disk and scripts took in all.
    excused: u64,
    honest: bool,
    closed: bool,
}

/// A world that its seed determines.
pub struct World {
    random: Random,
    config: Config,
    lines: Vec<Line>,
    events: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    serial: u64,
    now: u64,
    /// The line that something is being done to.
    current: usize,
    drain: Option<u64>,
    /// The disk may fail.
    faulty: bool,
}

/// What went wrong.
pub struct Failure {
    pub what: String,
    pub history: History,
    pub config: Config,
}

/// Lives through the world of a seed. How many milliseconds it lasted, and how many answers there were.
pub fn live(seed: u64) -> Result<(u64, usize), Box<Failure>> {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let what = match outcome {
        Ok(Ok(())) => return Ok((world.now, world.lines.iter().map(|line| line.rig.finished.len()).sum())),
        Ok(Err(what)) => what,
        Err(panic) => text(&*panic),
    };
    let line = &world.lines[world.current];
    let what = format!("{what} ({:?})", line.plan.kind);
    // The many panics of the search are of no interest.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let history = shorten(&world.config, &line.history);
    std::panic::set_hook(hook);
    Err(Box::new(Failure { what, history, config: world.config }))
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Leaves out of a history what is not needed for it to go wrong.
fn shorten(config: &Config, history: &History) -> History {
    let fails = |history: &History| catch_unwind(AssertUnwindSafe(|| replay(config, history))).is_err();
    let mut short = history.clone();
    if !fails(&short) {
        return short;
    }
    let mut size = short.len().div_ceil(2);
    let mut replays = 0;
    loop {
        let mut at = 0;
        while at < short.len() && replays < MOST_REPLAYS {
            replays += 1;
            let mut tried = short.clone();
            tried.drain(at..(at + size).min(short.len()));
            if fails(&tried) { short = tried } else { at += size }
        }
        if size == 1 || replays >= MOST_REPLAYS {
            return short;
        }
        size = size.div_ceil(2);
    }
}

/// Does to a new connection what was done; panics if it goes wrong. What is not possible is left out.
pub fn replay(config: &Config, history: &History) {
    let mut rig = Rig::new(config.clone(), disk());
    for (at, op) in history {
        rig.set_time((*at).max(rig.now.tick.0));
        rig.turn();
        rig.apply(op);
    }
    rig.trouble.any = true;
    verdict::check(&rig, false).unwrap_or_else(|wrong| panic!("{wrong}"));
    rig.outlast();
    verdict::check(&rig, true).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// The disk as every world finds it.
fn disk() -> Disk {
    let mut disk = disk::small();
    disk.nodes.insert(b"big.bin".to_vec(), Node::File(File::new(3, 30_000)));
    disk.nodes.insert(b"mid".to_vec(), Node::File(File::new(6, 3_000)));
    disk
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let mut config = Config::default();
        config.limits.output = 1 << random.within(9, 16);
        config.limits.body = 4_000;
        if random.one_in(8) {
            config.protocol = Protocol::Http10;
        }
        let hours = random.one_in(2);
        let scripts = random.one_in(2);
        let faulty = random.one_in(2);
        if scripts {
            config.cgi = Cgi::python();
            config.limits.redirects = 2;
            config.limits.script_head = *random.pick(&[200, 65_536]);
            config.timeouts.script = *random.pick(if faulty { &[2_000, 10_000] } else { &[30_000, 300_000] });
            if faulty && random.one_in(4) {
                config.cgi.chunked = Chunked::Refuse;
            }
        }
        let pool = Rc::new(RefCell::new((0..3).map(|_| Buffers::new()).collect::<Vec<_>>()));
        let mut world = World {
            drain: random.one_in(4).then(|| random.within(100, 20_000)),
            faulty,
            random,
            config,
            lines: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            now: 0,
            current: 0,
        };
        for n in 0..world.random.within(1, 10) {
            let starts = world.random.below(if hours { 3 * 3_600_000 } else { 2_000 });
            let plan = Plan::new(starts, scripts, &mut world.random, &world.config.timeouts);
            let mut rig = Rig::new(world.config.clone(), disk());
            rig.pool = Some(pool.clone());
            rig.trouble.any = true;
            let honest = plan.is_kind() && world.drain.is_none() && !world.faulty;
            let line = Line {
                plan,
                rig,
                history: Vec::new(),
                inbox: VecDeque::new(),
                unread: 0,
                turn: 0,
                armed: None,
                disk_due: false,
                wake_due: false,
                read_due: false,
                script_due: false,
                feed_due: false,
                program: None,
                excused: 0,
                honest,
                closed: false,
            };
            world.lines.push(line);
            let n = usize::try_from(n).expect("few");
            // It is accepted when its client comes: a clock of its own would have to begin then.
            world.lines[n].rig.accept(starts);
            for (at, _) in world.lines[n].plan.arrivals.clone() {
                world.schedule(at, n, Event::Arrival);
            }
            world.lines[n].plan.arrivals.reverse();
            world.arm(n);
        }
        world
    }

    fn schedule(&mut self, at: u64, line: usize, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, line, event)));
    }

    fn run(&mut self) -> Result<(), String> {
        let mut drained = false;
        let mut cut = false;
        let mut count = 0;
        while let Some(Reverse((at, _, n, event))) = self.events.pop() {
            count += 1;
            if count > MOST_EVENTS {
                return Err(format!(
                    "no end of events: {event:?} at {at}, {} waiting, {:?}",
                    self.events.len(),
                    self.lines
                        .iter()
                        .map(|l| (l.plan.kind, l.turn, l.history.len(), l.closed, l.rig.at))
                        .collect::<Vec<_>>()
                ));
            }
            self.now = self.now.max(at);
            if !drained && self.drain.is_some_and(|drain| drain <= self.now) {
                drained = true;
                self.all(&Op::Drain)?;
            }
            if !cut && self.drain.is_some_and(|drain| drain + 10_000 <= self.now) {
                cut = true;
                self.all(&Op::Cut)?;
                if let Some(open) = self.lines.iter().position(|line| !line.closed) {
                    self.current = open;
                    return Err(format!("open behind the cut: {:?}", self.lines[open].rig.connection));
                }
            }
            if self.random.one_in(200) {
                self.change()?;
            }
            self.happen(n, event)?;
        }
        for n in 0..self.lines.len() {
            self.current = n;
            if !self.lines[n].closed {
                return Err(format!("it lives for ever: {:?}", self.lines[n].rig.connection));
            }
        }
        Ok(())
    }

    fn all(&mut self, op: &Op) -> Result<(), String> {
        for n in 0..self.lines.len() {
            if !self.lines[n].closed {
                self.act(n, op.clone());
                self.flow(n)?;
            }
        }
        Ok(())
    }

    /// Somebody works on the disk.
    fn change(&mut self) -> Result<(), String> {
        let path = *self.random.pick(&["a", "mid", "r.txt", "empty"]);
        let version = self.random.within(10, 1_000);
        let len = self.random.size(5_000);
        let change = match self.random.below(4) {
            0 => Op::Change(path.into(), None),
            1 => Op::Change(
                b"d".to_vec(),
                Some(Node::Directory(vec![(format!("n{version}").into(), EntryKind::File); 1])),
            ),
            _ => Op::Change(path.into(), Some(Node::File(File::new(version, len)))),
        };
        self.all(&change)?;
        // A file that somebody reads becomes shorter.
        let n = usize::try_from(self.random.below(self.lines.len() as u64)).expect("an index");
        if self.faulty && !self.lines[n].closed {
            let len = self.random.below(3_000);
            self.act(n, Op::Shrink(len));
            self.flow(n)?;
        }
        Ok(())
    }

    fn happen(&mut self, n: usize, event: Event) -> Result<(), String> {
        self.current = n;
        if self.lines[n].closed {
            return Ok(());
        }
        let line = &mut self.lines[n];
        let bound = line.plan.bound + line.excused + 1_000;
        if self.now > bound && line.plan.kind != Kind::Rude {
            return Err(format!("alive at {}, its bound was {bound}: {:?}", self.now, line.rig.connection));
        }
        match event {
            Event::Arrival => {
                let (_, sent) = line.plan.arrivals.pop().expect("one arrival for each event");
                line.inbox.push_back(sent);
            }
            Event::Read => {
                line.read_due = false;
                line.unread = line.unread.saturating_sub(line.plan.reads.0);
                if matches!(line.rig.at, At::Wait(wait) if wait.need.write) {
                    self.act(n, Op::Writable);
                }
            }
            Event::Disk => {
                line.disk_due = false;
                let fails = self.faulty && self.random.one_in(10);
                let error =
                    *self.random.pick(&[FsError::NotFound, FsError::Denied, FsError::Exhausted, FsError::Failed]);
                if self.random.one_in(6) {
                    self.act(n, Op::Stale);
                }
                self.act(n, if fails { Op::Fail(error) } else { Op::Complete });
            }
            Event::Wake => {
                line.wake_due = false;
                self.act(n, Op::Wake);
            }
            Event::Script => {
                line.script_due = false;
                self.run_script(n);
            }
            Event::Feed => {
                line.feed_due = false;
                self.act(n, Op::Feedable);
            }
            Event::Timer(turn) => {
                if line.turn == turn {
                    self.act(n, Op::Pass(0));
                }
            }
        }
        self.flow(n)
    }

    fn act(&mut self, n: usize, op: Op) {
        self.current = n;
        let line = &mut self.lines[n];
        line.history.push((self.now, op.clone()));
        line.rig.set_time(self.now);
        if line.rig.apply(&op) {
            line.turn += 1;
        } else {
            line.history.pop();
        }
    }

    /// Everything that needs no waiting.
    fn flow(&mut self, n: usize) -> Result<(), String> {
        for _ in 0..MOST_EVENTS {
            let line = &mut self.lines[n];
            if line.inbox.front() == Some(&Sent::Reset) && !matches!(line.rig.at, At::Close(_)) {
                self.act(n, Op::Broken(Fault::Peer));
                self.lines[n].inbox.clear();
                continue;
            }
            match line.rig.at {
                At::Send => {
                    let room = line.plan.socket.saturating_sub(line.unread);
                    let before = line.rig.wire.len();
                    // A socket takes as much as it likes.
                    let take = if room > 0 { self.random.size(room) } else { 0 };
                    self.act(n, if take > 0 { Op::Take(take) } else { Op::Blocked });
                    let line = &mut self.lines[n];
                    line.unread += (line.rig.wire.len() - before) as u64;
                    if line.unread > 0 && !line.read_due && line.plan.reads.0 > 0 {
                        line.read_due = true;
                        let at = self.now + line.plan.reads.1;
                        self.schedule(at, n, Event::Read);
                    }
                }
                At::Feed => self.feed(n),
                At::Wait(wait) if wait.need.read && !line.inbox.is_empty() => match line.inbox.pop_front() {
                    Some(Sent::Bytes(mut bytes)) => {
                        // What has arrived is one stream; a read takes as much of it as it likes.
                        while let Some(Sent::Bytes(more)) = line.inbox.front() {
                            bytes.extend_from_slice(more);
                            line.inbox.pop_front();
                        }
                        let all = bytes.len() as u64;
                        let got = if self.random.one_in(2) { all } else { self.random.size(all) };
                        let got = usize::try_from(got).expect("memory");
                        let rest = bytes.split_off(got);
                        if !rest.is_empty() {
                            line.inbox.push_front(Sent::Bytes(rest));
                        }
                        let before = line.rig.got.len();
                        self.act(n, Op::Recv(bytes.clone()));
                        // What there was no room for is still on its way.
                        let line = &mut self.lines[n];
                        let rest = bytes.split_off(line.rig.got.len() - before);
                        if !rest.is_empty() {
                            line.inbox.push_front(Sent::Bytes(rest));
                        }
                    }
                    Some(Sent::Eof) => self.act(n, Op::Eof),
                    Some(Sent::Reset) | None => {}
                },
                At::Wait(wait) => {
                    self.wait(n, wait);
                    return Ok(());
                }
                At::Close(_) => {
                    let line = &mut self.lines[n];
                    line.closed = true;
                    line.rig.trouble.any = true;
                    verdict::check(&line.rig, true)?;
                    return if line.honest { self.check_honest(n) } else { Ok(()) };
                }
            }
        }
        Err("a turn without end".into())
    }

    fn wait(&mut self, n: usize, wait: Wait) {
        self.await_script(n, wait);
        let line = &mut self.lines[n];
        if line.rig.is_asked() && !line.disk_due {
            line.disk_due = true;
            let delay = if self.random.one_in(20) { self.random.within(1_000, 5_000) } else { self.random.below(10) };
            line.excused += delay;
            self.schedule(self.now + delay, n, Event::Disk);
        }
        let line = &mut self.lines[n];
        if wait.need.handler && !line.wake_due {
            line.wake_due = true;
            let delay = self.random.within(1, 500);
            if wait.deadline.is_none() {
                line.excused += delay;
            }
            self.schedule(self.now + delay, n, Event::Wake);
        }
        self.arm(n);
    }

    fn arm(&mut self, n: usize) {
        let line = &mut self.lines[n];
        if let At::Wait(Wait { deadline: Some(deadline), .. }) = line.rig.at
            && line.armed.replace(line.turn) != Some(line.turn)
        {
            // A driver is not always in time.
            let late = if self.random.one_in(4) { self.random.below(5) } else { 0 };
            let turn = line.turn;
            self.schedule(deadline.0 + late, n, Event::Timer(turn));
        }
    }

    /// Who did everything right has an answer to everything.
    fn check_honest(&self, n: usize) -> Result<(), String> {
        let line = &self.lines[n];
        let sent = &line.rig.got;
        let model = super::model::read(sent, &self.config.limits);
        let asked =
            if self.config.protocol == Protocol::Http10 { model.requests.len().min(1) } else { model.requests.len() };
        let good = line.rig.finished.iter().filter(|done| done.cut.is_none()).count();
        let all_arrived = line.inbox.is_empty() && line.plan.arrivals.is_empty();
        if good != asked || (!all_arrived && self.config.protocol == Protocol::Http11) {
            return Err(format!("{good} answers to {asked} requests of an honest client: {:?}", line.rig.finished));
        }
        Ok(())
    }
}

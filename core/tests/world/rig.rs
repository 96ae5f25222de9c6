//! A connection with a driver that performs one operation at a time and checks every step. Everything that can happen
//! to a connection is an [`Op`].

mod ops;
mod turn;
mod watched;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;

use sanserve_core::{
    Buffers, Completion, Config, Connection, Context, EntryKind, Fault, FsError, Input, Kind, Limits, Listed, Now,
    Opened, Peer, Tick, Ticket, Wait, Wall,
};

use super::disk::{self, Disk, File, Node, START};
use super::handlers::{BIG, Echo, Routed};
use super::hops::{self, Hops};
use ops::{Asked, Outgoing};
pub use ops::{At, Done, Op, Served, Trouble};
pub use turn::check_path;

/// A connection with the state of its driver.
#[derive(Debug)]
pub struct Rig {
    pub config: Config,
    pub disk: Disk,
    pub now: Now,
    pub connection: Connection,
    pub buf: Buffers,
    pub at: At,
    /// Whether new buffers are used whenever that is permitted.
    pub swaps: bool,
    /// All bytes that arrived.
    pub got: Vec<u8>,
    /// All bytes that were sent.
    pub wire: Vec<u8>,
    pub finished: Vec<Done>,
    pub trouble: Trouble,
    pub shut: bool,
    pub served: Vec<Served>,
    /// The scripts that were looked for.
    pub hops: Hops,
    /// Buffers that other connections have used.
    pub pool: Option<Rc<RefCell<Vec<Buffers>>>>,
    /// The open file, and its real length.
    pub held: Option<(File, u64)>,
    directory: Option<Vec<u8>>,
    listed: usize,
    eof: bool,
    outgoing: Outgoing,
    /// Whether more of the file is being read; `None` if it is not known whether that still matters.
    reading: Option<bool>,
    /// How much of it has not been sent.
    unsent: u64,
    asked: Option<(Ticket, Asked)>,
    spent: Option<Ticket>,
    holds: bool,
    handler: Echo,
}

/// Limits that are small enough to be reached.
pub fn small_limits() -> Limits {
    Limits::default()
        .with_head(2_000)
        .with_body(5_000)
        .with_drain(20)
        .with_listing(4_000)
        .with_output(1_000)
        .with_ranges(4)
}

impl Rig {
    pub fn new(config: Config, disk: Disk) -> Rig {
        let now = Now::new(Tick(0), Wall(START));
        let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let connection = Connection::new(peer, &Context { config: &config, policy: &Routed, now: &now });
        let mut rig = Rig {
            config,
            disk,
            now,
            connection,
            buf: Buffers::new(),
            at: At::Send,
            swaps: true,
            got: Vec::new(),
            wire: Vec::new(),
            finished: Vec::new(),
            trouble: Trouble::default(),
            shut: false,
            served: Vec::new(),
            hops: Hops::default(),
            pool: None,
            held: None,
            directory: None,
            listed: 0,
            eof: false,
            outgoing: Outgoing::default(),
            reading: Some(false),
            unsent: 0,
            asked: None,
            spent: None,
            holds: false,
            handler: Echo::default(),
        };
        rig.turn();
        rig
    }

    /// Starts a new connection at another time.
    pub fn accept(&mut self, tick: u64) {
        self.set_time(tick);
        let cx = Context { config: &self.config, policy: &Routed, now: &self.now };
        self.connection = Connection::new(self.connection.peer(), &cx);
        self.turn();
    }

    /// Creates a rig with small limits and the small disk.
    pub fn small() -> Rig {
        Rig::new(Config::default().with_limits(small_limits()), disk::small())
    }

    /// Performs an operation and lets the connection have its turn. Returns `false` if the operation is not possible
    /// here.
    pub fn apply(&mut self, op: &Op) -> bool {
        if !self.can(op) {
            return false;
        }
        self.perform(op);
        // The connection is not informed of a change of the disk.
        if !matches!(op, Op::Change(..)) {
            self.turn();
        }
        true
    }

    /// Performs an operation, without a turn.
    fn perform(&mut self, op: &Op) {
        match op {
            Op::Recv(bytes) => self.receive(bytes),
            Op::Eof => {
                self.eof = true;
                self.trouble.any = true;
                self.input(Input::Eof);
            }
            Op::Take(n) => self.take(*n),
            Op::Blocked => self.input(Input::Blocked),
            Op::Writable => self.input(Input::Writable),
            Op::Pending => {
                self.reading = Some(true);
                self.input(Input::FilePending);
            }
            Op::Ready => {
                self.reading = Some(false);
                self.input(Input::FileReady);
            }
            Op::Complete => self.complete(),
            Op::Fail(error) => self.fail(*error),
            Op::Directory => {
                let Some((_, Asked::Open(path))) = self.asked.clone() else { unreachable!() };
                self.directory = Some(path.clone());
                self.listed = 0;
                self.serve(path, Node::Directory(Vec::new()));
                let opened = Opened { kind: Kind::Directory, len: 0, modified: START, modified_nanos: 0, digest: None };
                self.answer(Completion::Opened(Ok(opened)));
            }
            Op::Stale => self.stale(),
            Op::Pass(millis) => self.pass(*millis),
            Op::Due(late) => {
                let At::Wait(Wait { deadline: Some(deadline), .. }) = self.at else { unreachable!() };
                self.pass(deadline.since(self.now.tick) + late);
            }
            Op::Drain => {
                self.trouble.any = true;
                self.input(Input::Drain);
            }
            Op::Cut => {
                self.trouble.any = true;
                self.input(Input::Cut);
            }
            Op::Broken(fault) => {
                self.trouble.any = true;
                // After a failure of the handler, the response may be another one without the file.
                self.reading = self.reading.filter(|reading| !(*reading && *fault == Fault::Handler));
                self.input(Input::Broken(*fault));
            }
            Op::Wake => self.input(Input::Wake),
            Op::Shrink(len) => {
                let (_, real) = self.held.as_mut().expect("a file is held");
                *real = (*real).min(*len);
            }
            Op::Change(path, node) => {
                _ = match node {
                    Some(node) => self.disk.nodes.insert(path.clone(), node.clone()),
                    None => self.disk.nodes.remove(path),
                };
            }
            Op::Hold => self.holds = true,
            Op::Script(bytes) => self.read_script(bytes),
            Op::ScriptEof => {
                self.hops.current().eof = true;
                self.input(Input::ScriptEof);
            }
            Op::Fed(n) => {
                let n = self.hops.current().take(*n);
                self.input(Input::Fed(n));
            }
            Op::FeedBlocked => {
                self.hops.current().full = true;
                self.input(Input::FeedBlocked);
            }
            Op::Feedable => {
                self.hops.current().full = false;
                self.input(Input::Feedable);
            }
            Op::FeedEnd => {
                self.hops.current().close_input();
                self.input(Input::FeedEnd);
            }
            Op::Both(ops) => {
                self.perform(&ops.0);
                if self.can(&ops.1) {
                    self.perform(&ops.1);
                }
            }
        }
    }

    fn can(&self, op: &Op) -> bool {
        match op {
            Op::Recv(_) => !self.eof && matches!(self.at, At::Wait(wait) if wait.need.read),
            Op::Eof => !self.eof,
            Op::Take(_) => self.at == At::Send,
            // A driver that was asked to close has closed.
            Op::Blocked => !self.blocked() && !matches!(self.at, At::Close(_)),
            Op::Writable => self.blocked(),
            Op::Pending => self.at == At::Send && self.outgoing.file.is_some(),
            Op::Ready => self.reading == Some(true),
            Op::Complete | Op::Fail(_) => self.asked.is_some(),
            Op::Directory => matches!(self.asked, Some((_, Asked::Open(_)))),
            Op::Stale => self.spent.is_some(),
            Op::Due(_) => matches!(self.at, At::Wait(wait) if wait.deadline.is_some()),
            Op::Wake => self.handler.open,
            Op::Shrink(_) => self.held.is_some(),
            Op::Change(..) => true,
            Op::Hold => !self.holds && !matches!(self.at, At::Close(_)),
            Op::Script(_) => matches!(self.at, At::Wait(wait) if wait.need.script_read),
            Op::ScriptEof => self.hops.in_progress().is_some_and(|hop| hop.is_alive() && !hop.eof),
            Op::Fed(n) => self.at == At::Feed && *n > 0,
            Op::FeedBlocked => self.at == At::Feed,
            Op::Feedable => self.hops.in_progress().is_some_and(|hop| hop.full && hop.may_be_fed()),
            Op::FeedEnd => self.hops.in_progress().is_some_and(hops::Hop::may_be_fed),
            Op::Both(ops) => self.can(&ops.0),
            // While it starts a script, a driver has nothing else that could fail.
            Op::Broken(Fault::Handler) => !matches!(self.asked, Some((_, Asked::Find | Asked::Spool | Asked::Spawn))),
            Op::Pass(_) | Op::Drain | Op::Cut | Op::Broken(_) => true,
        }
    }

    fn blocked(&self) -> bool {
        matches!(self.at, At::Wait(wait) if wait.need.write)
    }

    /// Whether an action is in progress.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether a handler has a request in progress.
    pub fn is_handling(&self) -> bool {
        self.handler.open
    }

    /// How many bytes there are to send.
    pub fn to_send(&self) -> u64 {
        if self.at == At::Send { self.outgoing.len() } else { 0 }
    }

    pub fn input(&mut self, input: Input) {
        self.connection.handle(input);
    }

    /// Lets time pass, without a turn.
    pub fn pass(&mut self, millis: u64) {
        self.trouble.any |= millis > 0;
        self.set_time(self.now.tick.0 + millis);
    }

    pub fn set_time(&mut self, tick: u64) {
        self.now.advance(Tick(tick), Wall(START + i64::try_from(tick / 1000).expect("a short time")));
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        loop {
            let n = self.fill(bytes);
            bytes = &bytes[n..];
            if bytes.is_empty() {
                return;
            }
            self.turn();
            if !self.can(&Op::Recv(Vec::new())) {
                return;
            }
        }
    }

    fn read_script(&mut self, mut bytes: &[u8]) {
        loop {
            let n = self.buf.script.fill(bytes);
            assert!(n > 0 || bytes.is_empty(), "need.script_read without room");
            self.hops.current().written.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if bytes.is_empty() {
                return;
            }
            self.turn();
            if !self.can(&Op::Script(Vec::new())) {
                return;
            }
        }
    }

    /// Fills the window as far as there is room; no turn.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let n = self.buf.input.fill(bytes);
        assert!(n > 0 || bytes.is_empty(), "need.read without room");
        self.got.extend_from_slice(&bytes[..n]);
        n
    }

    /// Sends at most `most` bytes; no turn.
    pub fn take(&mut self, most: u64) {
        assert_eq!(self.at, At::Send);
        let mut left = most.min(self.outgoing.len());
        let mut sent = 0;
        let mut part = |bytes: &[u8], wire: &mut Vec<u8>, left: &mut u64| {
            let n = left.min(&mut (bytes.len() as u64)).to_owned();
            wire.extend_from_slice(&bytes[..usize::try_from(n).expect("memory")]);
            *left -= n;
            sent += n;
        };
        part(&self.outgoing.head, &mut self.wire, &mut left);
        part(&self.outgoing.bytes, &mut self.wire, &mut left);
        if let Some((offset, len)) = self.outgoing.file
            && left > 0
        {
            let (file, real) = self.held.as_ref().expect("a file to send is held");
            assert!(offset + len <= file.len, "beyond the end of the file: {offset}+{len} of {}", file.len);
            let n = left.min(len).min(real.saturating_sub(offset));
            if n == 0 {
                return self.input(Input::Broken(Fault::FileShrank));
            }
            file.read(offset, n, &mut self.wire);
            sent += n;
            left = if n < len { 0 } else { left - n };
        }
        let mut part = |bytes: &[u8], wire: &mut Vec<u8>, left: u64| {
            let n = left.min(bytes.len() as u64);
            wire.extend_from_slice(&bytes[..usize::try_from(n).expect("memory")]);
            sent += n;
        };
        part(&self.outgoing.tail, &mut self.wire, left);
        self.unsent -= sent;
        self.input(Input::Sent(sent));
    }

    fn answer(&mut self, completion: Completion) {
        let (ticket, _) = self.asked.take().expect("an action in progress");
        self.spent = Some(ticket);
        self.input(Input::Done(ticket, completion));
    }

    /// Completes the action in progress according to the disk; no turn.
    pub fn complete(&mut self) {
        let asked = self.asked.as_ref().expect("an action in progress").1.clone();
        let completion = match asked {
            Asked::Open(path) => Completion::Opened(self.open(&path)),
            Asked::OpenIn(name) => {
                let mut path = self.directory.clone().expect("a directory is held");
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&name);
                let opened = self.open_file(&path);
                Completion::Opened(opened)
            }
            Asked::List => {
                let end = self.entries().len() <= self.listed;
                Completion::Listed(Ok(if end { Listed::End } else { Listed::More }))
            }
            Asked::Find => Completion::Found(Ok(self.hops.current().find())),
            Asked::Spool => {
                self.hops.current().spools = true;
                Completion::Spooled(Ok(()))
            }
            Asked::Spawn => {
                self.hops.current().since = Some(self.now.tick.0);
                Completion::Spawned(Ok(()))
            }
        };
        self.answer(completion);
    }

    fn fail(&mut self, error: FsError) {
        let asked = self.asked.as_ref().expect("an action in progress").1.clone();
        let completion = match asked {
            Asked::Open(_) | Asked::OpenIn(_) => Completion::Opened(Err(error)),
            Asked::List => Completion::Listed(Err(error)),
            Asked::Find => self.hops.current().fail_find(error),
            Asked::Spool => self.hops.current().fail_spool(error),
            Asked::Spawn => self.hops.current().fail_spawn(error),
        };
        self.answer(completion);
    }

    fn open(&mut self, path: &[u8]) -> Result<Opened, FsError> {
        match self.disk.find(path)? {
            Node::File(_) => self.open_file(path),
            _ => {
                self.directory = Some(path.to_vec());
                self.listed = 0;
                self.serve(path.to_vec(), Node::Directory(Vec::new()));
                Ok(Opened { kind: Kind::Directory, len: 4096, modified: START - 5, modified_nanos: 0, digest: None })
            }
        }
    }

    fn open_file(&mut self, path: &[u8]) -> Result<Opened, FsError> {
        match self.disk.find(path)? {
            Node::File(file) => {
                let file = file.clone();
                self.held = Some((file.clone(), file.len));
                self.serve(path.to_vec(), Node::File(file.clone()));
                Ok(file.opened())
            }
            _ => Err(FsError::NotFound),
        }
    }

    fn serve(&mut self, path: Vec<u8>, node: Node) {
        self.served.push(Served { exchange: self.finished.len(), path, node });
    }

    fn entries(&self) -> Vec<(Vec<u8>, EntryKind)> {
        let path = self.directory.as_ref().expect("a directory is held");
        match self.disk.find(path) {
            Ok(Node::Directory(entries)) => entries.clone(),
            _ => Vec::new(),
        }
    }

    fn stale(&mut self) {
        let before = format!("{:?}", self.connection);
        let ticket = self.spent.expect("a spent ticket");
        let opened = Opened { kind: Kind::File, len: 66, modified: START - 66, modified_nanos: 66, digest: None };
        self.input(Input::Done(ticket, Completion::Opened(Ok(opened))));
        self.input(Input::Done(ticket, Completion::Spawned(Ok(()))));
        assert_eq!(format!("{:?}", self.connection), before, "a stale ticket changed something");
    }

    /// Cooperates until the connection waits for the client: results are passed, and output is taken.
    pub fn settle(&mut self) {
        for _ in 0..self.most_steps() {
            let op = match self.at {
                At::Send => Op::Take(u64::MAX),
                At::Feed => Op::Fed(u64::MAX),
                At::Close(_) => return,
                At::Wait(_) if self.asked.is_some() => Op::Complete,
                At::Wait(_) if self.reading == Some(true) => Op::Ready,
                At::Wait(wait) if wait.need.write => Op::Writable,
                At::Wait(wait) if wait.need.handler && wait.deadline.is_none() => Op::Wake,
                At::Wait(wait) if wait.need.script_write => Op::Feedable,
                At::Wait(wait) if wait.need.script_read => match self.hops.current().written.is_empty() {
                    true => Op::Script(b"X-Script: kind\n\nkind".to_vec()),
                    false => Op::ScriptEof,
                },
                At::Wait(_) => return,
            };
            assert!(self.apply(&op), "{op:?} is not possible");
        }
        panic!("the connection does not settle: {:?}", self.connection);
    }

    /// More steps than everything that has arrived can cause: no request is shorter than this, and each response may be
    /// sent in pieces of the size of the output.
    fn most_steps(&self) -> usize {
        const SHORTEST: usize = "GET / HTTP/1.0\r\n\r\n".len();
        2_000 + self.got.len() / SHORTEST * (20 + 2 * BIG / self.config.limits.output.max(1))
    }

    /// Does nothing but wait from here on: the connection must end.
    pub fn outlast(&mut self) {
        for _ in 0..8 {
            self.settle();
            match self.at {
                At::Close(_) => return,
                At::Wait(Wait { deadline: Some(_), .. }) => assert!(self.apply(&Op::Due(0))),
                at => panic!("the connection waits forever: {at:?} {:?}", self.connection),
            }
        }
        panic!("the connection does not end: {:?}", self.connection);
    }

    /// Identifies the state: two rigs with the same fingerprint behave identically.
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        write!(text, "{:?}{:?}{:?}{:?}", self.connection, self.at, self.outgoing, self.asked).expect("a String");
        write!(text, "{:?}{:?}{:?}", self.spent, self.now.tick, self.handler).expect("a String");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.buf.input.unread().hash(&mut hasher);
        (self.trouble, self.eof, self.holds, self.shut, self.finished.len()).hash(&mut hasher);
        // What the current exchange and the verdict depend on.
        self.got.hash(&mut hasher);
        self.wire.hash(&mut hasher);
        (&self.directory, self.listed, self.unsent, self.reading).hash(&mut hasher);
        if !self.hops.all.is_empty() {
            format!("{:?}", self.hops).hash(&mut hasher);
            self.hops.all.iter().for_each(|hop| (&hop.written, &hop.fed).hash(&mut hasher));
            self.buf.script.unread().hash(&mut hasher);
        }
        hasher.finish()
    }
}

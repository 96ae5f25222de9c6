//! A connection with a driver around it that does one thing at a time and checks every step: what a
//! net can do to a connection is an [`Op`].

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

/// One connection and what its driver holds for it.
#[derive(Debug)]
pub struct Rig {
    pub config: Config,
    pub disk: Disk,
    pub now: Now,
    pub connection: Connection,
    pub buf: Buffers,
    pub at: At,
    /// Fresh buffers are put in whenever that is allowed.
    pub swaps: bool,
    /// All that arrived.
    pub got: Vec<u8>,
    /// All that was sent.
    pub wire: Vec<u8>,
    pub finished: Vec<Done>,
    pub trouble: Trouble,
    pub shut: bool,
    pub served: Vec<Served>,
    /// The scripts that were looked for.
    pub hops: Hops,
    /// Buffers that other connections have used.
    pub pool: Option<Rc<RefCell<Vec<Buffers>>>>,
    /// The file that is held, and how long it really is.
    pub held: Option<(File, u64)>,
    directory: Option<Vec<u8>>,
    listed: usize,
    eof: bool,
    outgoing: Outgoing,
    /// More of the file is being read; `None`: whether that still matters will be seen.
    reading: Option<bool>,
    /// How much of it has not gone out.
    unsent: u64,
    asked: Option<(Ticket, Asked)>,
    spent: Option<Ticket>,
    holds: bool,
    handler: Echo,
}

/// Limits small enough to be met.
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

    /// Begins anew at another time.
    pub fn accept(&mut self, tick: u64) {
        self.set_time(tick);
        let cx = Context { config: &self.config, policy: &Routed, now: &self.now };
        self.connection = Connection::new(self.connection.peer(), &cx);
        self.turn();
    }

    /// With small limits and the small disk.
    pub fn small() -> Rig {
        Rig::new(Config::default().with_limits(small_limits()), disk::small())
    }

    /// Does it and takes the connection's turn. `false`: it cannot happen here.
    pub fn apply(&mut self, op: &Op) -> bool {
        if !self.can(op) {
            return false;
        }
        self.perform(op);
        // Nobody tells the connection that the disk has changed.
        if !matches!(op, Op::Change(..)) {
            self.turn();
        }
        true
    }

    /// Does it, without a turn.
    fn perform(&mut self, op: &Op) {
        match op {
            Op::Recv(bytes) => self.receive(bytes),
            Op::Eof => {
                self.eof = true;
                self.trouble.any = true;
                self.tell(Input::Eof);
            }
            Op::Take(n) => self.take(*n),
            Op::Blocked => self.tell(Input::Blocked),
            Op::Writable => self.tell(Input::Writable),
            Op::Pending => {
                self.reading = Some(true);
                self.tell(Input::FilePending);
            }
            Op::Ready => {
                self.reading = Some(false);
                self.tell(Input::FileReady);
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
                self.tell(Input::Drain);
            }
            Op::Cut => {
                self.trouble.any = true;
                self.tell(Input::Cut);
            }
            Op::Broken(fault) => {
                self.trouble.any = true;
                // A handler that fails may have another answer, without the file.
                self.reading = self.reading.filter(|reading| !(*reading && *fault == Fault::Handler));
                self.tell(Input::Broken(*fault));
            }
            Op::Wake => self.tell(Input::Wake),
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
            Op::Script(bytes) => self.hear(bytes),
            Op::ScriptEof => {
                self.hops.hand().eof = true;
                self.tell(Input::ScriptEof);
            }
            Op::Fed(n) => {
                let n = self.hops.hand().take(*n);
                self.tell(Input::Fed(n));
            }
            Op::FeedBlocked => {
                self.hops.hand().full = true;
                self.tell(Input::FeedBlocked);
            }
            Op::Feedable => {
                self.hops.hand().full = false;
                self.tell(Input::Feedable);
            }
            Op::FeedEnd => {
                self.hops.hand().stop_listening();
                self.tell(Input::FeedEnd);
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
            // Who was told to close has closed.
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
            // While it makes a script run, a driver has nothing else that could fail.
            Op::Broken(Fault::Handler) => !matches!(self.asked, Some((_, Asked::Find | Asked::Spool | Asked::Spawn))),
            Op::Pass(_) | Op::Drain | Op::Cut | Op::Broken(_) => true,
        }
    }

    fn blocked(&self) -> bool {
        matches!(self.at, At::Wait(wait) if wait.need.write)
    }

    /// An action is under way.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// A handler has a request in progress.
    pub fn is_handling(&self) -> bool {
        self.handler.open
    }

    /// How much there is to send.
    pub fn to_send(&self) -> u64 {
        if self.at == At::Send { self.outgoing.len() } else { 0 }
    }

    pub fn tell(&mut self, input: Input) {
        self.connection.handle(input);
    }

    /// Lets time pass, without a turn.
    pub fn pass(&mut self, millis: u64) {
        self.trouble.any |= millis > 0;
        self.set_time(self.now.tick.0 + millis);
    }

    pub fn set_time(&mut self, tick: u64) {
        self.now.advance(Tick(tick), Wall(START + i64::try_from(tick / 1000).expect("not that long")));
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

    fn hear(&mut self, mut bytes: &[u8]) {
        loop {
            let n = self.buf.script.fill(bytes);
            assert!(n > 0 || bytes.is_empty(), "need.script_read without room");
            self.hops.hand().written.extend_from_slice(&bytes[..n]);
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

    /// As much as there is room for arrives; no turn.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let n = self.buf.input.fill(bytes);
        assert!(n > 0 || bytes.is_empty(), "need.read without room");
        self.got.extend_from_slice(&bytes[..n]);
        n
    }

    /// So much goes out; no turn.
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
                return self.tell(Input::Broken(Fault::FileShrank));
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
        self.tell(Input::Sent(sent));
    }

    fn answer(&mut self, completion: Completion) {
        let (ticket, _) = self.asked.take().expect("an action under way");
        self.spent = Some(ticket);
        self.tell(Input::Done(ticket, completion));
    }

    /// The action under way ends as the disk has it; no turn.
    pub fn complete(&mut self) {
        let asked = self.asked.as_ref().expect("an action under way").1.clone();
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
            Asked::Find => Completion::Found(Ok(self.hops.hand().find())),
            Asked::Spool => {
                self.hops.hand().spools = true;
                Completion::Spooled(Ok(()))
            }
            Asked::Spawn => {
                self.hops.hand().since = Some(self.now.tick.0);
                Completion::Spawned(Ok(()))
            }
        };
        self.answer(completion);
    }

    fn fail(&mut self, error: FsError) {
        let asked = self.asked.as_ref().expect("an action under way").1.clone();
        let completion = match asked {
            Asked::Open(_) | Asked::OpenIn(_) => Completion::Opened(Err(error)),
            Asked::List => Completion::Listed(Err(error)),
            Asked::Find => self.hops.hand().fail_find(error),
            Asked::Spool => self.hops.hand().fail_spool(error),
            Asked::Spawn => self.hops.hand().fail_spawn(error),
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
        self.tell(Input::Done(ticket, Completion::Opened(Ok(opened))));
        self.tell(Input::Done(ticket, Completion::Spawned(Ok(()))));
        assert_eq!(format!("{:?}", self.connection), before, "a stale ticket changed something");
    }

    /// From here on everybody is kind: what is asked is answered, what is sent is taken.
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
                At::Wait(wait) if wait.need.script_read => match self.hops.hand().written.is_empty() {
                    true => Op::Script(b"X-Script: kind\n\nkind".to_vec()),
                    false => Op::ScriptEof,
                },
                At::Wait(_) => return,
            };
            assert!(self.apply(&op), "{op:?} is not possible");
        }
        panic!("it does not settle: {:?}", self.connection);
    }

    /// More steps than all that has arrived can cause: no request is shorter than this, and each has an answer that may go
    /// out in pieces as long as the output may be.
    fn most_steps(&self) -> usize {
        const SHORTEST: usize = "GET / HTTP/1.0\r\n\r\n".len();
        2_000 + self.got.len() / SHORTEST * (20 + 2 * BIG / self.config.limits.output.max(1))
    }

    /// From here on nobody does anything but wait: it must come to an end.
    pub fn outlast(&mut self) {
        for _ in 0..8 {
            self.settle();
            match self.at {
                At::Close(_) => return,
                At::Wait(Wait { deadline: Some(_), .. }) => assert!(self.apply(&Op::Due(0))),
                at => panic!("it waits for ever: {at:?} {:?}", self.connection),
            }
        }
        panic!("it does not end: {:?}", self.connection);
    }

    /// Stands for the state: two rigs with the same go on in the same way.
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

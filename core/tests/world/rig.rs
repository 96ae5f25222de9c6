//! A connection with a driver around it that does one thing at a time and checks every step: what a
//! net can do to a connection is an [`Op`].

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;

use sanserve_core::{
    Action, Body, Buffers, Close, Completion, Config, Connection, Context, EntryKind, Fault, FsError, Handler, Input,
    Kind, Limits, Listed, Now, Opened, Peer, Step, Tick, Ticket, Transmit, Wait, Wall,
};

use super::disk::{Disk, File, Node, START};
use super::handlers::{Echo, Routed};

/// More steps than any turn takes without sending or waiting.
const MOST_STEPS: usize = 12;

/// Something that happens to a connection, or that its driver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes arrive.
    Recv(Vec<u8>),
    Eof,
    /// So many of the bytes to send go out; all if there are not so many.
    Take(u64),
    Blocked,
    Writable,
    /// The action under way ends as the disk has it.
    Complete,
    /// It ends with this error.
    Fail(FsError),
    /// It says that there is a directory.
    Directory,
    /// An answer to an action that is long answered.
    Stale,
    /// Milliseconds pass.
    Pass(u64),
    /// Time moves to the deadline, or this much past it.
    Due(u64),
    Drain,
    Cut,
    Broken(Fault),
    Wake,
    /// The file that is held becomes as short as this.
    Shrink(u64),
    /// The disk changes: this is at the path from now on, or nothing.
    Change(Vec<u8>, Option<Node>),
    /// The next `Shut` or `Close` finds that the driver still holds bytes and the socket is full.
    Hold,
}

/// Where a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Send,
    Wait(Wait),
    Close(Close),
}

/// What there is to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outgoing {
    head: Vec<u8>,
    bytes: Vec<u8>,
    file: Option<(u64, u64)>,
    tail: Vec<u8>,
}

impl Outgoing {
    fn of(transmit: &Transmit<'_>) -> Outgoing {
        assert!(!transmit.is_empty(), "nothing to send");
        let (bytes, file) = match transmit.body {
            Body::None => (Vec::new(), None),
            Body::Bytes(bytes) => (bytes.to_vec(), None),
            Body::File { offset, len } => (Vec::new(), Some((offset, len))),
        };
        assert!(file.is_none_or(|(_, len)| len > 0), "an empty part of a file");
        Outgoing { head: transmit.head.to_vec(), bytes, file, tail: transmit.tail.to_vec() }
    }

    fn len(&self) -> u64 {
        (self.head.len() + self.bytes.len() + self.tail.len()) as u64 + self.file.map_or(0, |(_, len)| len)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Deed {
    Open(Vec<u8>),
    OpenIn(Vec<u8>),
    List,
}

/// An exchange that was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub line: Vec<u8>,
    pub status: u16,
    pub sent: u64,
    pub error: bool,
    pub cut: Option<&'static str>,
}

/// What was opened for an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The number of the exchange.
    pub exchange: usize,
    pub path: Vec<u8>,
    pub node: Node,
}

/// Which things that excuse an early end have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// Time, faults, a drain or the end of input may have ended it.
    pub any: bool,
}

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
    /// Buffers that other connections have used.
    pub pool: Option<Rc<RefCell<Vec<Buffers>>>>,
    /// The file that is held, and how long it really is.
    pub held: Option<(File, u64)>,
    directory: Option<Vec<u8>>,
    listed: usize,
    eof: bool,
    outgoing: Outgoing,
    asked: Option<(Ticket, Deed)>,
    spent: Option<Ticket>,
    holds: bool,
    handler: Echo,
}

/// Limits small enough to be met.
pub fn small_limits() -> Limits {
    Limits { head: 2_000, body: 5_000, drain: 20, listing: 4_000, output: 1_000, ranges: 4, ..Limits::default() }
}

impl Rig {
    pub fn new(config: Config, disk: Disk) -> Rig {
        let now = Now::new(Tick(0), Wall(START));
        let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let connection = Connection::new(peer, &Context { config: &config, site: &Routed, now: &now });
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
            pool: None,
            held: None,
            directory: None,
            listed: 0,
            eof: false,
            outgoing: Outgoing::default(),
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
        let cx = Context { config: &self.config, site: &Routed, now: &self.now };
        self.connection = Connection::new(self.connection.peer(), &cx);
        self.turn();
    }

    /// With small limits and the small disk.
    pub fn small() -> Rig {
        Rig::new(Config { limits: small_limits(), ..Config::default() }, Disk::small())
    }

    /// Does it and takes the connection's turn. `false`: it cannot happen here.
    pub fn apply(&mut self, op: &Op) -> bool {
        if !self.can(op) {
            return false;
        }
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
            Op::Complete => self.complete(),
            Op::Fail(error) => {
                let (error, list) = (*error, matches!(self.asked, Some((_, Deed::List))));
                self.answer(if list { Completion::Listed(Err(error)) } else { Completion::Opened(Err(error)) });
            }
            Op::Directory => {
                let Some((_, Deed::Open(path))) = self.asked.clone() else { unreachable!() };
                self.directory = Some(path.clone());
                self.listed = 0;
                self.serve(path, Node::Directory(Vec::new()));
                let opened = Opened { kind: Kind::Directory, len: 0, modified: START, modified_nanos: 0 };
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
                // Nobody tells the connection.
                return true;
            }
            Op::Hold => self.holds = true,
        }
        self.turn();
        true
    }

    fn can(&self, op: &Op) -> bool {
        match op {
            Op::Recv(_) => !self.eof && matches!(self.at, At::Wait(wait) if wait.need.read),
            Op::Eof => !self.eof,
            Op::Take(_) => self.at == At::Send,
            // Who was told to close has closed.
            Op::Blocked => !self.blocked() && !matches!(self.at, At::Close(_)),
            Op::Writable => self.blocked(),
            Op::Complete | Op::Fail(_) => self.asked.is_some(),
            Op::Directory => matches!(self.asked, Some((_, Deed::Open(_)))),
            Op::Stale => self.spent.is_some(),
            Op::Due(_) => matches!(self.at, At::Wait(wait) if wait.deadline.is_some()),
            Op::Wake => self.handler.open,
            Op::Shrink(_) => self.held.is_some(),
            Op::Change(..) => true,
            Op::Hold => !self.holds && !matches!(self.at, At::Close(_)),
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

    /// A handler has a request in hand.
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
            let (file, real) = self.held.expect("a file to send is held");
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
        self.tell(Input::Sent(sent));
    }

    fn answer(&mut self, completion: Completion) {
        let (ticket, _) = self.asked.take().expect("an action under way");
        self.spent = Some(ticket);
        self.tell(Input::Done(ticket, completion));
    }

    /// The action under way ends as the disk has it; no turn.
    pub fn complete(&mut self) {
        let deed = self.asked.as_ref().expect("an action under way").1.clone();
        let completion = match deed {
            Deed::Open(path) => Completion::Opened(self.open(&path)),
            Deed::OpenIn(name) => {
                let mut path = self.directory.clone().expect("a directory is held");
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&name);
                let opened = self.open_file(&path);
                Completion::Opened(opened)
            }
            Deed::List => {
                let end = self.entries().len() <= self.listed;
                Completion::Listed(Ok(if end { Listed::End } else { Listed::More }))
            }
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
                Ok(Opened { kind: Kind::Directory, len: 4096, modified: START - 5, modified_nanos: 0 })
            }
        }
    }

    fn open_file(&mut self, path: &[u8]) -> Result<Opened, FsError> {
        match self.disk.find(path)? {
            Node::File(file) => {
                let file = *file;
                self.held = Some((file, file.len));
                self.serve(path.to_vec(), Node::File(file));
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
        let opened = Opened { kind: Kind::File, len: 66, modified: START - 66, modified_nanos: 66 };
        self.tell(Input::Done(ticket, Completion::Opened(Ok(opened))));
        assert_eq!(format!("{:?}", self.connection), before, "a stale ticket changed something");
    }

    /// Polls until there is something to send, to wait for, or the end; carries out what comes before.
    pub fn turn(&mut self) {
        for _ in 0..MOST_STEPS {
            if self.step() {
                return;
            }
        }
        panic!("{MOST_STEPS} steps without an end of the turn: {:?}", self.connection);
    }

    /// One poll. `true`: the turn ends here.
    fn step(&mut self) -> bool {
        let was_closed = matches!(self.at, At::Close(_));
        let entries = self.directory.is_some().then(|| self.entries());
        let Rig { connection, buf, config, now, .. } = self;
        let cx = Context { config, site: &Routed, now };
        let step = connection.poll(buf, &cx);
        assert!(!was_closed || matches!(step, Step::Close(_)), "after Close: {step:?}");
        match step {
            Step::Send(transmit) => {
                assert!(!self.shut, "a Send behind Shut");
                self.outgoing = Outgoing::of(&transmit);
                if let Step::Send(again) = self.connection.poll(&mut self.buf, &cx) {
                    assert_eq!(Outgoing::of(&again), self.outgoing, "Send does not repeat");
                } else {
                    panic!("Send does not repeat");
                }
                if let Some((offset, len)) = self.outgoing.file {
                    let (file, _) = self.held.as_ref().expect("a file to send is held");
                    assert!(offset + len <= file.len, "beyond the end of the file");
                }
                let most = self.config.limits.output + self.config.limits.head * 8 + 8_192;
                assert!(self.outgoing.head.len() < most, "{} bytes of output", self.outgoing.head.len());
                self.at = At::Send;
                return true;
            }
            Step::Feed(_) => panic!("there are no scripts"),
            Step::Act(ticket, action) => {
                assert!(self.asked.is_none(), "an action while one is under way");
                let deed = match action {
                    Action::Find { .. } | Action::Spool | Action::Spawn(_) | Action::EndInput | Action::Kill => {
                        panic!("there are no scripts")
                    }
                    Action::Open { path } => {
                        check_path(path);
                        Deed::Open(path.to_vec())
                    }
                    Action::OpenIn { path } => {
                        check_path(path);
                        assert!(entries.is_some(), "OpenIn without a directory");
                        Deed::OpenIn(path.to_vec())
                    }
                    Action::List { into } => {
                        let entries = entries.expect("List without a directory");
                        // Two entries a batch.
                        for (name, kind) in entries.iter().skip(self.listed).take(2) {
                            if !into.push(name, *kind) {
                                break;
                            }
                            let Some(Served { node: Node::Directory(rows), .. }) = self.served.last_mut() else {
                                panic!("List without a directory");
                            };
                            rows.push((name.clone(), *kind));
                        }
                        self.listed += 2;
                        Deed::List
                    }
                };
                self.asked = Some((ticket, deed));
            }
            Step::Call(call) => {
                let mut reply = connection.reply(buf, &cx);
                self.handler.call(call, &mut reply);
            }
            Step::Finished(entry) => {
                assert!(!self.handler.open, "finished, and the handler was not told");
                let done = Done {
                    line: entry.line.to_vec(),
                    status: entry.status,
                    sent: entry.sent,
                    error: entry.error.is_some(),
                    cut: entry.cut,
                };
                self.finished.push(done);
                self.held = None;
                self.directory = None;
                if let Some((ticket, _)) = self.asked.take() {
                    self.spent = Some(ticket);
                }
            }
            Step::Wait(wait) => {
                self.check_wait(wait);
                self.at = At::Wait(wait);
                return true;
            }
            Step::Shut => {
                if std::mem::take(&mut self.holds) {
                    self.tell(Input::Blocked);
                } else {
                    assert!(!self.shut, "Shut twice");
                    self.shut = true;
                }
            }
            Step::Close(close) => {
                if std::mem::take(&mut self.holds) && !was_closed {
                    self.tell(Input::Blocked);
                    return false;
                }
                assert!(self.asked.is_none() && !self.handler.open, "Close, and an exchange is not finished");
                self.at = At::Close(close);
                return true;
            }
        }
        false
    }

    fn check_wait(&mut self, wait: Wait) {
        let cx = Context { config: &self.config, site: &Routed, now: &self.now };
        if wait.idle {
            assert!(self.buf.input.unread().is_empty(), "idle with bytes");
            assert!(self.asked.is_none() && !self.handler.open && self.held.is_none(), "idle in an exchange");
            let resting = self.connection.rest().expect("an idle connection can rest");
            assert_eq!(Some(resting.deadline(&cx)), wait.deadline, "resting has another deadline");
            if self.swaps {
                self.connection = resting.resume();
                self.buf = match &self.pool {
                    None => Buffers::new(),
                    Some(pool) => {
                        let mut pool = pool.borrow_mut();
                        pool.push(std::mem::take(&mut self.buf));
                        pool.swap_remove(0)
                    }
                };
            }
        }
        match self.connection.poll(&mut self.buf, &cx) {
            Step::Wait(again) => assert_eq!(again, wait, "Wait does not repeat"),
            step => panic!("Wait does not repeat: {step:?}"),
        }
        let need = wait.need;
        assert_eq!(need.completion, self.asked.is_some(), "need.completion");
        assert!(!need.script_read && !need.script_write, "there are no scripts");
        assert!(!need.handler || self.handler.open, "need.handler");
        assert!(need.read || need.write || need.completion || need.handler || wait.deadline.is_some(), "stuck");
        // The peer is never awaited for ever.
        assert!(!(need.read || need.write) || wait.deadline.is_some(), "no timer is armed: {:?}", self.connection);
        let longest = self.longest();
        assert!(wait.deadline.is_none_or(|d| d > self.now.tick && d.since(self.now.tick) <= longest), "deadline");
        let (unread, room) = (self.buf.input.unread().len(), self.buf.input.spare().len());
        assert!(!need.read || room > 0, "need.read without room");
        let most = (2 * (self.config.limits.head + 1)).max(16 * 1024);
        assert!(unread + room <= most, "a window of {}", unread + room);
    }

    /// No deadline is farther than this.
    pub fn longest(&self) -> u64 {
        let t = &self.config.timeouts;
        [t.head, t.keep_alive, t.body.silence, t.write.silence, t.linger_silence, t.linger].into_iter().max().unwrap()
    }

    /// From here on everybody is kind: what is asked is answered, what is sent is taken.
    pub fn settle(&mut self) {
        for _ in 0..2_000 {
            let op = match self.at {
                At::Send => Op::Take(u64::MAX),
                At::Close(_) => return,
                At::Wait(_) if self.asked.is_some() => Op::Complete,
                At::Wait(wait) if wait.need.write => Op::Writable,
                At::Wait(wait) if wait.need.handler && !wait.need.read => Op::Wake,
                At::Wait(_) => return,
            };
            assert!(self.apply(&op), "{op:?} is not possible");
        }
        panic!("it does not settle: {:?}", self.connection);
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
        // What the exchange in hand and the verdict depend on.
        self.got.hash(&mut hasher);
        self.wire.hash(&mut hasher);
        (&self.directory, self.listed).hash(&mut hasher);
        hasher.finish()
    }
}

/// The rules of [`Action::Open`].
pub fn check_path(path: &[u8]) {
    let shown = path.escape_ascii();
    assert!(!path.contains(&0), "NUL in a path: {shown}");
    if !path.is_empty() {
        for component in path.split(|&byte| byte == b'/') {
            assert!(!matches!(component, b"" | b"." | b".."), "path: {shown}");
        }
    }
}

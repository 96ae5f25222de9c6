//! A frontend for a runtime of your own: one thread, and poll(2). `docs/write-a-frontend.md` walks through it.
//!
//! `cargo run --example polling_frontend -- --cgi examples`, then `curl localhost:8000/hello`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sanserve::core::{
    Buffers, Call, Cgi, Config, Connection, Fault, Handler, Input, Need, Now, Peer, Reply, Status, Step, Tick, Wait,
};
use sanserve::os::{self, AcceptBackoff, AfterError, Clock, Signals};
use sanserve::server::{Caller, Desk, Flush, Local, Logger, ScriptRead, Service, Slot};

/// A connection, what carries out its steps, and what it waits for.
struct Line {
    number: u64,
    stream: TcpStream,
    connection: Connection,
    buffers: Buffers,
    slot: Slot,
    handler: Option<Box<dyn Handler + Send>>,
    wait: Wait,
    /// What poll(2) has found to be possible.
    ready: Need,
    /// The socket takes no more of what the slot has gathered.
    full: bool,
}

/// For a connection that has more to do at once.
const AT_ONCE: Wait = Wait { need: NOTHING, deadline: Some(Tick(0)), idle: false };
const NOTHING: Need =
    Need { read: false, write: false, script_read: false, script_write: false, completion: false, handler: false };

impl Line {
    fn new(number: u64, stream: TcpStream, peer: SocketAddr, server: &Server) -> Line {
        let cx = server.service.context(&server.now);
        let mut connection = Connection::new(Peer::from(peer), &cx);
        server.service.observe(&mut connection, &cx, "polling");
        let (buffers, slot, ready) = (Buffers::new(), Slot::new(), Need { read: true, ..NOTHING });
        Line { number, stream, connection, buffers, slot, handler: None, wait: AT_ONCE, ready, full: false }
    }

    /// Carries out steps until there is something to wait for. `false`: the connection is over.
    fn turn(&mut self, server: &mut Server) -> bool {
        let (service, now) = (Arc::clone(&server.service), server.now);
        let cx = service.context(&now);
        // No more than this, so that the others have their turn.
        for _ in 0..64 {
            let Line { connection, buffers, slot, handler, stream, .. } = self;
            match connection.poll(buffers, &cx) {
                Step::Wait(wait) => {
                    let is_flushed = wait.need.write || self.flush();
                    if is_flushed && !self.advance(wait.need, &server.files) {
                        self.wait = wait;
                        return true;
                    }
                }
                Step::Close(_) => {
                    if self.full || self.flush() {
                        return false;
                    }
                }
                Step::Shut => {
                    if self.flush() {
                        let _ = self.stream.shutdown(Shutdown::Write);
                    }
                }
                Step::Call(call) => {
                    let bell = Bell { line: Some(self.number), ..server.bell.clone() };
                    let waker = || Waker::from(Arc::new(bell.clone()));
                    let caller = Caller { handler, slot, waker: &waker, service: &service };
                    caller.call(call, connection, buffers, &cx);
                    server.files.arrived();
                }
                step => {
                    let (files, scripts, site) = (&server.files, &*service.scripts, &*service.site);
                    let mut desk = Desk { files, scripts, log: &mut server.log, site, wall: now.wall };
                    if let Some(input) = slot.carry_out(step, stream.as_fd(), &mut desk) {
                        connection.handle(input);
                    }
                }
            }
        }
        self.wait = AT_ONCE;
        true
    }

    /// Sends what the slot has gathered. `false`: it cannot, and the connection was told so.
    fn flush(&mut self) -> bool {
        let flushed = self.slot.flush(self.stream.as_fd());
        self.full = flushed == Flush::Blocked;
        match flushed {
            Flush::Done => return true,
            Flush::Blocked => self.connection.handle(Input::Blocked),
            Flush::Broken => self.connection.handle(Input::Broken(Fault::Peer)),
        }
        false
    }

    /// Makes use of what is both needed and ready. `false`: there is no such thing.
    fn advance(&mut self, need: Need, files: &Local) -> bool {
        let ready = std::mem::replace(&mut self.ready, NOTHING);
        // A script that has ended has no descriptor left that could be ready.
        let is_over = self.slot.script().is_none_or(|script| script.output.is_none());
        let now = Need {
            read: need.read && ready.read,
            write: need.write && ready.write,
            script_read: need.script_read && (ready.script_read || is_over),
            script_write: need.script_write && ready.script_write,
            ..NOTHING
        };
        if now.write && self.flush() {
            self.connection.handle(Input::Writable);
        }
        if now.read {
            match self.stream.read(self.buffers.input.spare()) {
                Ok(0) => self.connection.handle(Input::Eof),
                Ok(n) => {
                    self.buffers.input.commit(n);
                    files.arrived();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.connection.handle(Input::Broken(Fault::Peer)),
            }
        }
        if now.script_read && self.slot.read_script(&mut self.buffers.script) == ScriptRead::End {
            self.connection.handle(Input::ScriptEof);
        }
        if now.script_write {
            self.connection.handle(Input::Feedable);
        }
        now != NOTHING
    }

    /// What poll(2) is to watch: the socket, and the output, the end and the input of the script.
    fn watched<'l>(&'l self, nothing: &'l UnixStream) -> [PollFd<'l>; 4] {
        let (need, script) = (self.wait.need, self.slot.script());
        let output = script.and_then(|script| script.output).filter(|_| need.script_read);
        let exit = script.and_then(|script| script.exit).filter(|_| need.script_read);
        let input = script.and_then(|script| script.input).filter(|_| need.script_write);
        let mut socket = PollFlags::empty();
        socket.set(PollFlags::IN, need.read);
        socket.set(PollFlags::OUT, need.write);
        let all = [
            (Some(self.stream.as_fd()), socket),
            (output, PollFlags::IN),
            (exit, PollFlags::IN),
            (input, PollFlags::OUT),
        ];
        all.map(|watched| match watched {
            (Some(fd), flags) => PollFd::from_borrowed_fd(fd, flags),
            (None, _) => PollFd::new(nothing, PollFlags::empty()),
        })
    }

    /// Notes what poll(2) has found.
    fn became_ready(&mut self, found: &[PollFlags]) {
        let gone = found[0].intersects(PollFlags::HUP | PollFlags::ERR);
        self.ready.read |= gone || found[0].contains(PollFlags::IN);
        self.ready.write |= gone || found[0].contains(PollFlags::OUT);
        self.ready.script_read |= !found[1].is_empty() || !found[2].is_empty();
        self.ready.script_write |= !found[3].is_empty();
        if gone && !self.wait.need.read && !self.wait.need.write {
            self.tell(Input::Broken(Fault::Peer));
        }
    }

    /// Tells the connection something that it did not ask for.
    fn tell(&mut self, input: Input) {
        self.connection.handle(input);
        self.wait = AT_ONCE;
    }
}

/// The loop, and what all connections share.
pub struct Server {
    service: Arc<Service>,
    files: Local,
    log: Logger,
    clock: Clock,
    now: Now,
    listener: Option<TcpListener>,
    backoff: AcceptBackoff,
    /// Nothing is accepted before this.
    accept_at: Tick,
    /// When a shutdown ends.
    cut_at: Option<Tick>,
    bell: Bell,
    rung: mpsc::Receiver<Option<u64>>,
    /// Readable when the bell was rung.
    hammer: UnixStream,
}

/// Wakes a connection, or, without a number, ends the server; from any thread.
#[derive(Clone)]
struct Bell {
    line: Option<u64>,
    rung: mpsc::Sender<Option<u64>>,
    rope: Arc<UnixStream>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.rung.send(self.line);
        // If there is no room, it was rung already.
        let _ = (&*self.rope).write(b"!");
    }
}

impl Server {
    /// Serves whom `listener` accepts.
    pub fn new(listener: TcpListener, service: Service) -> io::Result<Server> {
        let ((hammer, rope), (post, rung)) = (UnixStream::pair()?, mpsc::channel());
        listener.set_nonblocking(true)?;
        hammer.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        let (service, clock) = (Arc::new(service.bound_to(listener.local_addr()?)), Clock::start());
        Ok(Server {
            files: Local::new(Arc::clone(&service.root), service.cache.clone()),
            log: service.log.logger(),
            service,
            now: clock.now(),
            clock,
            listener: Some(listener),
            backoff: AcceptBackoff::default(),
            accept_at: Tick(0),
            cut_at: None,
            bell: Bell { line: None, rung: post, rope: Arc::new(rope) },
            rung,
            hammer,
        })
    }

    /// Ends the server: woken once, it lets the exchanges in hand finish; woken twice, it cuts them.
    pub fn end(&self) -> Waker {
        Waker::from(Arc::new(self.bell.clone()))
    }

    /// Serves until it is ended and all connections are over.
    pub fn run(mut self) -> io::Result<()> {
        let mut lines: Vec<Line> = Vec::new();
        while self.listener.is_some() || !lines.is_empty() {
            self.log.flush();
            let found = self.watch(&lines)?;
            self.clock.read(&mut self.now);
            lines.iter_mut().zip(found.chunks(4)).for_each(|(line, found)| line.became_ready(found));
            self.answer_bell(&mut lines);
            self.accept(&mut lines);
            let now = self.now.tick;
            let is_due = |line: &Line| line.ready != NOTHING || line.wait.deadline.is_some_and(|at| at <= now);
            lines.retain_mut(|line| !is_due(line) || line.turn(&mut self));
        }
        Ok(())
    }

    /// Waits until something is ready or due.
    fn watch(&self, lines: &[Line]) -> io::Result<Vec<PollFlags>> {
        let mut fds: Vec<PollFd<'_>> = lines.iter().flat_map(|line| line.watched(&self.hammer)).collect();
        fds.push(PollFd::new(&self.hammer, PollFlags::IN));
        let now = self.clock.tick();
        let accept_at = Some(self.accept_at).filter(|&at| at > now);
        let has_room = lines.len() < self.service.connection_bound();
        fds.extend(
            self.listener.iter().filter(|_| accept_at.is_none() && has_room).map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        let deadlines = lines.iter().filter_map(|line| line.wait.deadline);
        let next = deadlines.chain(self.cut_at).chain(accept_at).min();
        let left = next.and_then(|next| Timespec::try_from(Duration::from_millis(next.since(now))).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(fds.iter().map(PollFd::revents).collect()),
            Err(error) => Err(error.into()),
        }
    }

    fn answer_bell(&mut self, lines: &mut [Line]) {
        let _ = self.hammer.read(&mut [0; 64]);
        for rung in self.rung.try_iter() {
            if let Some(number) = rung {
                lines.iter_mut().filter(|line| line.number == number).for_each(|line| line.tell(Input::Wake));
            } else if self.listener.take().is_some() {
                self.cut_at = Some(self.now.tick.after(self.service.grace.as_millis() as u64));
                lines.iter_mut().for_each(|line| line.tell(Input::Drain));
            } else {
                self.cut_at = Some(self.now.tick);
            }
        }
        if self.cut_at.is_some_and(|at| at <= self.now.tick) {
            lines.iter_mut().for_each(|line| line.tell(Input::Cut));
        }
    }

    fn accept(&mut self, lines: &mut Vec<Line>) {
        while self.accept_at <= self.now.tick && lines.len() < self.service.connection_bound() {
            let Some(listener) = &self.listener else { return };
            match os::accept(listener) {
                Ok((stream, peer)) if self.service.welcomes(peer) => {
                    let number = lines.last().map_or(0, |line| line.number + 1);
                    lines.push(Line::new(number, stream, peer, self));
                    self.backoff.succeeded();
                }
                Ok(_) => {}
                Err(error) => match self.backoff.failed(&error, self.now.tick) {
                    AfterError::Retry => {}
                    AfterError::Wait => return,
                    AfterError::Pause { millis, .. } => self.accept_at = self.now.tick.after(millis),
                },
            }
        }
    }
}

/// A portable handler: says hello, and leaves everything else to the files and scripts.
pub fn hello(call: Call, reply: &mut Reply<'_>) {
    if call == Call::Request {
        let done = match reply.request().path() {
            b"/hello" => reply.answer(Status::OK, "text/plain", "hello\n"),
            _ => reply.pass(),
        };
        done.expect("nothing was answered before");
    }
}

/// Serves a directory on port 8000, with scripts if the first argument is `--cgi`.
pub fn main() -> io::Result<()> {
    os::raise_nofile_limit();
    let (flags, rest): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg == "--cgi");
    let cgi = if flags.is_empty() { Cgi::default() } else { Cgi::python() };
    let service = Service::new(rest.first().map_or(".", |directory| directory))?;
    let service = service.with_config(Config { cgi, ..Config::default() }).with_handler(|| hello);
    let server = Server::new(os::bind(([127, 0, 0, 1], 8000).into(), false)?, service)?;
    let (end, mut signals) = (server.end(), Signals::new()?);
    std::thread::spawn(move || {
        loop {
            signals.wait();
            end.wake_by_ref();
        }
    });
    server.run()
}

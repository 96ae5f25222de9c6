//! A frontend for a runtime of your own: one thread, and poll(2). `docs/write-a-frontend.md` walks through it.
//!
//! `cargo run --example polling_frontend -- --cgi examples`, then `curl localhost:8000/hello`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sanserve::core::{Call, Cgi, Config, Connection, Fault, Handler, Input, Now, Peer, Reply, Status, Tick, Wait};
use sanserve::os::{self, Clock, Signals};
use sanserve::server::{
    Accepted, Acceptor, Announce, Budget, Env, Frontend, Handle, Local, Logger, Phase, Service, Session, Transport,
    Turn, Workspace,
};

/// A connection, what it takes, and what it waits for.
struct Line {
    session: Session,
    space: Workspace,
    socket: TcpStream,
    transport: Transport,
    handler: Option<Box<dyn Handler + Send>>,
    /// Of the exchange in progress. No two have the same.
    number: u64,
    /// `None`: it has more to do at once.
    wait: Option<Wait>,
}

/// Gives each exchange a number, so that a waker that is kept for too long wakes nobody.
struct Numbers<'l> {
    number: &'l mut u64,
    next: &'l mut u64,
}

impl Frontend for Numbers<'_> {
    fn finished(&mut self, _status: u16) -> bool {
        *self.next += 1;
        *self.number = *self.next;
        false
    }
}

impl Line {
    fn new(socket: TcpStream, peer: SocketAddr, server: &mut Server) -> Line {
        let (service, now) = (&server.service, server.now);
        let mut connection = Connection::new(Peer::from(peer), &service.context(&now));
        service.observe(&mut connection, &service.context(&now), "polling");
        let (session, space) = (Session::new(connection), Workspace::new(service));
        server.next += 1;
        let (transport, number) = (Transport::level_triggered(), server.next);
        Line { session, space, socket, transport, handler: None, number, wait: None }
    }

    /// Goes on until there is something to wait for. `false`: the connection is over.
    fn turn(&mut self, server: &mut Server) -> bool {
        let Line { session, space, socket, transport, handler, number, wait } = self;
        let Server { service, now, files, log, next, bell, .. } = server;
        let env = &mut Env::new(service, service.context(now), files, log);
        let io = &mut transport.over(socket.as_fd());
        session.tell(space, &service.draining);
        // No more than this, so that the others have their turn.
        let mut budget = Budget { steps: 64, bytes: 1 << 20, scripts_are_slow: false };
        loop {
            match session.turn(space, io, &mut Numbers { number, next }, env, &mut budget) {
                Turn::Call(call) => {
                    let waker = || Waker::from(Arc::new(Bell { exchange: Some(*number), ..bell.clone() }));
                    session.call(call, handler, &waker, space, env);
                }
                Turn::Wait(what) => {
                    *wait = Some(what);
                    return true;
                }
                Turn::Closed(_) => return false,
                Turn::Yield | Turn::Slow | Turn::Finished => {
                    *wait = None;
                    return true;
                }
            }
        }
    }

    /// Whether it is time for a turn.
    fn is_due(&self, now: Tick) -> bool {
        self.wait.is_none_or(|wait| wait.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// What poll(2) is to watch: the socket, and the output, the end and the input of the script.
    fn watched<'l>(&'l self, nothing: &'l UnixStream) -> [PollFd<'l>; 4] {
        let (need, script) = (self.wait.map(|wait| wait.need).unwrap_or_default(), self.space.slot.script());
        let output = script.and_then(|script| script.output).filter(|_| need.script_read);
        let exit = script.and_then(|script| script.exit).filter(|_| need.script_read);
        let input = script.and_then(|script| script.input).filter(|_| need.script_write);
        let mut socket = PollFlags::empty();
        socket.set(PollFlags::IN, need.read);
        socket.set(PollFlags::OUT, need.write);
        let all = [
            (Some(self.socket.as_fd()), socket),
            (output, PollFlags::IN),
            (exit, PollFlags::IN),
            (input, PollFlags::OUT),
        ];
        all.map(|watched| match watched {
            (Some(fd), flags) => PollFd::from_borrowed_fd(fd, flags),
            (None, _) => PollFd::new(nothing, PollFlags::empty()),
        })
    }

    /// Notes what poll(2) has found, and whether that is a reason for a turn.
    fn became_ready(&mut self, found: &[PollFlags], server: &Server) {
        let gone = found[0].intersects(PollFlags::HUP | PollFlags::ERR);
        let mut is_news = gone;
        if gone || found[0].contains(PollFlags::IN) {
            is_news |= self.transport.became_readable();
        }
        if gone || found[0].contains(PollFlags::OUT) {
            is_news |= self.transport.became_writable();
        }
        let (output, input) = (!found[1].is_empty() || !found[2].is_empty(), !found[3].is_empty());
        self.session.script_became_ready(output, input);
        if gone && self.wait.is_some_and(|wait| !wait.need.read && !wait.need.write) {
            let io = &mut self.transport.over(self.socket.as_fd());
            self.session.broken(Fault::Peer, io, &server.service.draining);
        }
        if is_news || output || input {
            self.wait = None;
        }
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
    acceptor: Acceptor,
    /// Nothing is accepted before this.
    accept_at: Tick,
    /// When a shutdown ends.
    cut_at: Option<Tick>,
    /// The number of the last exchange.
    next: u64,
    bell: Bell,
    woken: mpsc::Receiver<u64>,
    /// Readable when the bell was rung.
    hammer: UnixStream,
}

/// Wakes an exchange, or without a number only the loop; from any thread.
#[derive(Clone)]
struct Bell {
    exchange: Option<u64>,
    woken: mpsc::Sender<u64>,
    rope: Arc<UnixStream>,
}

impl Bell {
    fn ring(&self) {
        // If there is no room, it was rung already.
        let _ = (&*self.rope).write(b"!");
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.exchange.into_iter().for_each(|number| _ = self.woken.send(number));
        self.ring();
    }
}

impl Announce for Bell {
    fn announce(&self, _phase: Phase) {
        self.ring();
    }
}

impl Server {
    /// Serves whom `listener` accepts.
    pub fn new(listener: TcpListener, service: Service) -> io::Result<Server> {
        let ((hammer, rope), (sender, woken)) = (UnixStream::pair()?, mpsc::channel());
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
            acceptor: Acceptor::default(),
            accept_at: Tick(0),
            cut_at: None,
            next: 0,
            bell: Bell { exchange: None, woken: sender, rope: Arc::new(rope) },
            woken,
            hammer,
        })
    }

    /// Ends the server.
    pub fn handle(&self) -> Handle {
        Handle::new(self.service.draining.clone(), Arc::new(self.bell.clone()))
    }

    /// Serves until it is ended and all connections are over.
    pub fn run(mut self) -> io::Result<()> {
        let mut lines: Vec<Line> = Vec::new();
        while self.listener.is_some() || !lines.is_empty() {
            self.log.flush();
            let found = self.watch(&lines)?;
            self.clock.read(&mut self.now);
            lines.iter_mut().zip(found.chunks(4)).for_each(|(line, found)| line.became_ready(found, &self));
            self.answer_bell(&mut lines);
            self.accept(&mut lines);
            let now = self.now.tick;
            lines.retain_mut(|line| !line.is_due(now) || line.turn(&mut self));
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
        let deadlines = lines.iter().filter_map(|line| line.wait.map_or(Some(now), |wait| wait.deadline));
        let next = deadlines.chain(self.cut_at).chain(accept_at).min();
        let left = next.and_then(|next| Timespec::try_from(Duration::from_millis(next.since(now))).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(fds.iter().map(PollFd::revents).collect()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells exchanges that were woken, and everybody when the server goes down.
    fn answer_bell(&mut self, lines: &mut [Line]) {
        let _ = self.hammer.read(&mut [0; 64]);
        for number in self.woken.try_iter() {
            for line in lines.iter_mut().filter(|line| line.number == number) {
                line.session.connection.handle(Input::Wake);
                line.wait = None;
            }
        }
        let draining = &self.service.draining;
        if draining.has_begun() && self.listener.take().is_some() {
            self.cut_at = Some(self.now.tick.after(self.service.grace.as_millis() as u64));
            lines.iter_mut().for_each(|line| line.wait = None);
        }
        if draining.phase() == Phase::Cut || self.cut_at.is_some_and(|at| at <= self.now.tick) {
            self.service.cut(lines.len());
            lines.iter_mut().for_each(|line| line.wait = None);
        }
    }

    fn accept(&mut self, lines: &mut Vec<Line>) {
        while self.accept_at <= self.now.tick && lines.len() < self.service.connection_bound() {
            let Some(listener) = &self.listener else { return };
            match self.acceptor.accept(listener, &self.service, self.now.tick) {
                Accepted::Peer(stream, peer) => lines.push(Line::new(stream, peer, self)),
                Accepted::Again => {}
                Accepted::Nobody => return,
                Accepted::Pause(millis) => self.accept_at = self.now.tick.after(millis),
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
    let (handle, mut signals) = (server.handle(), Signals::new()?);
    std::thread::spawn(move || {
        signals.wait();
        handle.shutdown();
        signals.wait();
        handle.stop();
    });
    server.run()
}

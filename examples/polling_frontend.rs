//! A frontend for a runtime of your own: one thread, and poll(2). `docs/write-a-frontend.md` explains it.
//!
//! `cargo run --example polling_frontend -- --cgi examples`, then `curl localhost:8000/hello`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sanserve_core::{
    Call, Cgi, Config, Connection, Handler, HandlerError, Input, Now, Peer, Reply, StatusCode, Tick, Wait,
};
use sanserve_os as os;
use sanserve_os::{Clock, Signals};
use sanserve_server::{
    Accepted, Acceptor, Announce, Budget, EachExchange, Env, Handle, Listener, Local, Logger, Phase, Session, Site,
    Transport, Turn, Workspace, watched,
};

/// A connection with its resources, and what it waits for.
struct Client {
    session: Session,
    space: Workspace,
    socket: OwnedFd,
    transport: Transport,
    handler: Option<Box<dyn Handler + Send>>,
    /// The number of the exchange in progress, unique in this server.
    number: u64,
    /// What the connection waits for, or `None` if it can continue at once.
    wait: Option<Wait>,
}

impl Client {
    fn new(socket: OwnedFd, peer: Peer, server: &mut Server) -> Client {
        let (site, now) = (&server.site, server.now);
        let mut connection = Connection::new(peer, &site.context(&now));
        site.observe(&mut connection, &site.context(&now), "polling");
        let (session, space) = (Session::new(connection), Workspace::new(site));
        server.next += 1;
        let (transport, number) = (Transport::level_triggered(), server.next);
        Client { session, space, socket, transport, handler: None, number, wait: None }
    }

    /// Runs the connection until it has to wait. Returns `false` if it is closed.
    fn turn(&mut self, server: &mut Server) -> bool {
        let Client { session, space, socket, transport, handler, number, wait } = self;
        let Server { site, now, files, log, next, loop_waker, .. } = server;
        let env = &mut Env::new(site, site.context(now), files, log);
        let io = &mut transport.over(socket.as_fd());
        session.tell(space, site.draining());
        // Bounded, so that the other connections get their turn.
        let mut budget = Budget { steps: 64, bytes: 1 << 20, large: u64::MAX, scripts_are_slow: false };
        loop {
            match session.turn(space, io, &mut EachExchange, env, &mut budget) {
                Turn::Call(call) => {
                    let waker = || Waker::from(Arc::new(LoopWaker { exchange: Some(*number), ..loop_waker.clone() }));
                    session.call(call, handler, &waker, space, env);
                }
                Turn::Wait(what) => {
                    *wait = Some(what);
                    return true;
                }
                // The waker of an earlier exchange must not wake a later one.
                Turn::Finished => {
                    *next += 1;
                    *number = *next;
                }
                Turn::Closed(_) => return false,
                Turn::Yield | Turn::Slow => {
                    *wait = None;
                    return true;
                }
            }
        }
    }

    /// Whether the connection needs a turn.
    fn is_due(&self, now: Tick) -> bool {
        self.wait.is_none_or(|wait| wait.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// The descriptors for poll(2).
    fn watched(&self) -> [PollFd<'_>; 4] {
        let need = self.wait.map(|wait| wait.need).unwrap_or_default();
        watched(need, self.socket.as_fd(), self.space.slot.script())
    }

    /// Records what poll(2) has found. If anything has changed, the connection needs a turn.
    fn became_ready(&mut self, found: &[PollFlags], server: &Server) {
        let Some(wait) = self.wait else { return };
        let io = &mut self.transport.over(self.socket.as_fd());
        if self.session.became_ready(found, wait.need, io, server.site.draining()) {
            self.wait = None;
        }
    }
}

/// The event loop, and what all connections share.
pub struct Server {
    site: Arc<Site>,
    files: Local,
    log: Logger,
    clock: Clock,
    now: Now,
    listener: Option<Listener>,
    acceptor: Acceptor,
    /// When to accept again after an error.
    accept_at: Tick,
    /// When the grace period of a shutdown ends.
    cut_at: Option<Tick>,
    /// The number of the last exchange.
    next: u64,
    loop_waker: LoopWaker,
    woken: mpsc::Receiver<u64>,
    /// Readable when a waker has written to it.
    wakes: UnixStream,
}

/// Wakes the loop from any thread, and an exchange if it has a number.
#[derive(Clone)]
struct LoopWaker {
    exchange: Option<u64>,
    woken: mpsc::Sender<u64>,
    writer: Arc<UnixStream>,
}

impl LoopWaker {
    fn wake_loop(&self) {
        // If the buffer is full, the loop will wake up anyway.
        let _ = (&*self.writer).write(b"!");
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.exchange.into_iter().for_each(|number| _ = self.woken.send(number));
        self.wake_loop();
    }
}

impl Announce for LoopWaker {
    fn announce(&self, _phase: Phase) {
        self.wake_loop();
    }
}

impl Server {
    /// A server for the connections of `listener`.
    pub fn new(listener: impl Into<Listener>, site: Site) -> io::Result<Server> {
        let listener = listener.into();
        let ((wakes, writer), (sender, woken)) = (UnixStream::pair()?, mpsc::channel());
        listener.set_nonblocking(true)?;
        wakes.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let (site, clock) = (Arc::new(site.bound_to(listener.address().to_ip())), Clock::start());
        Ok(Server {
            files: Local::new(Arc::clone(site.root()), site.cache().clone()),
            log: site.log().logger(),
            site,
            now: clock.now(),
            clock,
            listener: Some(listener),
            acceptor: Acceptor::default(),
            accept_at: Tick(0),
            cut_at: None,
            next: 0,
            loop_waker: LoopWaker { exchange: None, woken: sender, writer: Arc::new(writer) },
            woken,
            wakes,
        })
    }

    /// Returns a handle that shuts the server down.
    pub fn handle(&self) -> Handle {
        Handle::new(self.site.draining().clone(), Arc::new(self.loop_waker.clone()))
    }

    /// Serves until it is shut down and all connections are closed.
    pub fn run(mut self) -> io::Result<()> {
        let mut clients: Vec<Client> = Vec::new();
        while self.listener.is_some() || !clients.is_empty() {
            self.log.flush();
            let found = self.watch(&clients)?;
            self.clock.read(&mut self.now);
            clients.iter_mut().zip(found.chunks(4)).for_each(|(client, found)| client.became_ready(found, &self));
            self.handle_wakes(&mut clients);
            self.accept(&mut clients);
            let now = self.now.tick;
            clients.retain_mut(|client| !client.is_due(now) || client.turn(&mut self));
        }
        Ok(())
    }

    /// Waits until a descriptor is ready or a deadline has passed.
    fn watch(&self, clients: &[Client]) -> io::Result<Vec<PollFlags>> {
        let mut fds: Vec<PollFd<'_>> = clients.iter().flat_map(Client::watched).collect();
        fds.push(PollFd::new(&self.wakes, PollFlags::IN));
        let now = self.clock.tick();
        let accept_at = Some(self.accept_at).filter(|&at| at > now);
        let has_room = clients.len() < self.site.connection_bound();
        fds.extend(
            self.listener.iter().filter(|_| accept_at.is_none() && has_room).map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        let deadlines = clients.iter().filter_map(|client| client.wait.map_or(Some(now), |wait| wait.deadline));
        let next = deadlines.chain(self.cut_at).chain(accept_at).min();
        let left = next.and_then(|next| Timespec::try_from(Duration::from_millis(next.since(now))).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(fds.iter().map(PollFd::revents).collect()),
            Err(error) => Err(error.into()),
        }
    }

    /// Wakes exchanges, and all connections when the server shuts down.
    fn handle_wakes(&mut self, clients: &mut [Client]) {
        let _ = self.wakes.read(&mut [0; 64]);
        for number in self.woken.try_iter() {
            for client in clients.iter_mut().filter(|client| client.number == number) {
                client.session.connection.handle(Input::Wake);
                client.wait = None;
            }
        }
        let draining = self.site.draining();
        if draining.has_begun() && self.listener.take().is_some() {
            self.cut_at = Some(self.now.tick.after(self.site.grace().as_millis() as u64));
            clients.iter_mut().for_each(|client| client.wait = None);
        }
        if draining.phase() == Phase::Cut || self.cut_at.is_some_and(|at| at <= self.now.tick) {
            self.site.cut(clients.len());
            clients.iter_mut().for_each(|client| client.wait = None);
        }
    }

    fn accept(&mut self, clients: &mut Vec<Client>) {
        while self.accept_at <= self.now.tick && clients.len() < self.site.connection_bound() {
            let Some(listener) = &self.listener else { return };
            match self.acceptor.accept(listener, &self.site, self.now.tick) {
                Accepted::Peer(stream, peer) => clients.push(Client::new(stream, peer, self)),
                Accepted::Again => {}
                Accepted::Nobody => return,
                Accepted::Pause(millis) => self.accept_at = self.now.tick.after(millis),
            }
        }
    }
}

/// A portable handler: responds to `/hello`, and leaves everything else to the files and scripts.
pub fn hello(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        match reply.request().path() {
            b"/hello" => reply.answer(StatusCode::OK, "text/plain", "hello\n")?,
            _ => reply.decline()?,
        }
    }
    Ok(())
}

/// Serves a directory on port 8000, with scripts if the first argument is `--cgi`.
pub fn main() -> io::Result<()> {
    os::raise_nofile_limit();
    let (flags, rest): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg == "--cgi");
    let cgi = if flags.is_empty() { Cgi::default() } else { Cgi::python() };
    let site = Site::new(rest.first().map_or(".", |directory| directory))?;
    let site = site.with_config(Config::default().with_cgi(cgi)).with_handler(|| hello);
    let server = Server::new(os::bind(([127, 0, 0, 1], 8000).into(), false)?, site)?;
    let (handle, mut signals) = (server.handle(), Signals::new()?);
    std::thread::spawn(move || {
        signals.wait();
        handle.shutdown();
        signals.wait();
        handle.stop();
    });
    server.run()
}

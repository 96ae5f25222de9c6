//! A frontend for a runtime of your own: one thread, and poll(2). `docs/write-a-frontend.md` explains it.
//!
//! `cargo run --example polling_frontend -- --cgi examples`, then `curl localhost:8000/hello`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use sanserve_core::{Call, Cgi, Config, Handler, HandlerError, Input, Now, Peer, Reply, StatusCode, Tick, Wait};
use sanserve_os as os;
use sanserve_os::{Clock, Signals};
use sanserve_server::{
    Accepted, Acceptor, Budget, DrainDeadlines, EachExchange, Env, Handle, Listener, Local, Logger, PollWaker, Session,
    Site, Transport, Turn, Workspace, poll, watched,
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
        let session = Session::begin(peer, &server.site, &server.site.context(&server.now), "polling");
        let (space, transport) = (Workspace::new(&server.site), Transport::level_triggered());
        server.next += 1;
        Client { session, space, socket, transport, handler: None, number: server.next, wait: None }
    }

    /// Runs the connection until it has to wait. Returns `false` if it is closed.
    fn turn(&mut self, server: &mut Server) -> bool {
        let Client { session, space, socket, transport, handler, number, wait } = self;
        let Server { site, now, files, log, next, waker, .. } = server;
        let env = &mut Env::new(site, site.context(now), files, log);
        let io = &mut transport.over(socket.as_fd());
        session.follow_phase(space, site.draining());
        // Bounded, so that the other connections get their turn.
        let mut budget = Budget { steps: 64, bytes: 1 << 20, large: u64::MAX, scripts_are_slow: false };
        *wait = None;
        loop {
            match session.turn(space, io, &mut EachExchange, env, &mut budget) {
                Turn::Call(call) => session.call(call, handler, &|| waker.for_exchange(*number), space, env),
                // The waker of an earlier exchange must not wake a later one.
                Turn::Finished => {
                    *next += 1;
                    *number = *next;
                }
                Turn::Wait(what) => {
                    *wait = Some(what);
                    return true;
                }
                Turn::Yield | Turn::Slow => return true,
                Turn::Closed(_) => return false,
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
    drain_deadlines: DrainDeadlines,
    /// The number of the last exchange.
    next: u64,
    waker: Arc<PollWaker>,
}

impl Server {
    /// A server for the connections of `listener`.
    pub fn new(listener: impl Into<Listener>, site: Site) -> io::Result<Server> {
        let listener = listener.into();
        listener.set_nonblocking(true)?;
        let (site, clock) = (Arc::new(site.bound_to(listener.address().to_ip())), Clock::start());
        Ok(Server {
            files: Local::new(Arc::clone(site.root()), site.cache().clone()),
            log: site.log().logger(),
            site,
            now: clock.now(),
            clock,
            listener: Some(listener),
            acceptor: Acceptor::default(),
            drain_deadlines: DrainDeadlines::default(),
            next: 0,
            waker: PollWaker::new()?,
        })
    }

    /// Returns a handle that shuts the server down.
    pub fn handle(&self) -> Handle {
        Handle::new(self.site.draining().clone(), self.waker.clone())
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
        let now = self.clock.tick();
        let mut fds: Vec<PollFd<'_>> = clients.iter().flat_map(Client::watched).collect();
        fds.push(PollFd::new(&self.waker, PollFlags::IN));
        let paused_until = self.acceptor.paused_until(now);
        let accepts = paused_until.is_none() && clients.len() < self.site.connection_bound();
        fds.extend(self.listener.iter().filter(|_| accepts).map(|listener| PollFd::new(listener, PollFlags::IN)));
        let deadlines = clients.iter().filter_map(|client| client.wait.map_or(Some(now), |wait| wait.deadline));
        let next = deadlines.chain(self.drain_deadlines.next()).chain(paused_until).min();
        poll(&mut fds, next.map(|next| next.since(now)))?;
        Ok(fds.iter().map(PollFd::revents).collect())
    }

    /// Wakes exchanges, and all connections when the server shuts down.
    fn handle_wakes(&mut self, clients: &mut [Client]) {
        for number in self.waker.take_woken() {
            for client in clients.iter_mut().filter(|client| client.number == number) {
                client.session.connection.handle(Input::Wake);
                client.wait = None;
            }
        }
        if self.drain_deadlines.follow(&self.site, self.now.tick, clients.len()).is_some() {
            self.listener = None;
            self.drain_deadlines.stop_listening();
            clients.iter_mut().for_each(|client| client.wait = None);
        }
    }

    fn accept(&mut self, clients: &mut Vec<Client>) {
        while self.acceptor.paused_until(self.now.tick).is_none() && clients.len() < self.site.connection_bound() {
            let Some(listener) = &self.listener else { return };
            match self.acceptor.accept(listener, &self.site, self.now.tick) {
                Accepted::Peer(stream, peer) => clients.push(Client::new(stream, peer, self)),
                Accepted::Again => {}
                Accepted::Nobody | Accepted::Pause(_) => return,
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

//! Exercise 6, solved: all threads poll the latch, and the server waits for them to finish.
//!
//! `cargo run -q --example learn_runtime_solved -- DIRECTORY PORT`

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use sanserve_core::{Config, Input, Need, Peer, Tick, Timeouts};
use sanserve_os as os;
use sanserve_os::{Clock, Signals};
use sanserve_server::{Budget, Env, Local, Logger, Recording, Session, Site, Transport, Turn, Workspace, poll};

/// What all threads share.
struct Shared {
    site: Site,
    clock: Clock,
    /// Readable for all threads once the server is to shut down: the other end is closed then.
    latch: UnixStream,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    trigger: Option<UnixStream>,
}

impl Server {
    /// A server for the connections of `listener`, which must be non-blocking.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn new(listener: TcpListener, site: Site) -> io::Result<Server> {
        let (latch, trigger) = UnixStream::pair()?;
        let site = site.bound_to(listener.local_addr()?);
        Ok(Server { listener, shared: Arc::new(Shared { site, clock: Clock::start(), latch }), trigger: Some(trigger) })
    }

    /// Returns a guard that shuts the server down when it is dropped. It can be taken once.
    pub fn end(&mut self) -> Option<UnixStream> {
        self.trigger.take()
    }

    /// Serves until it is shut down and the exchanges in progress are finished.
    ///
    /// # Errors
    /// If waiting fails.
    pub fn run(self) -> io::Result<()> {
        let mut clients: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.shared.latch, PollFlags::IN)];
            poll(&mut fds, None)?;
            if !fds[1].revents().is_empty() {
                break;
            }
            clients.retain(|client| !client.is_finished());
            while let Ok((stream, peer)) = os::accept(&self.listener) {
                let shared = Arc::clone(&self.shared);
                clients.push(thread::spawn(move || Client::new(stream, peer, &shared).run()));
            }
        }
        // Stop accepting.
        drop(self.listener);
        for client in clients {
            let _ = client.join();
        }
        Ok(())
    }
}

/// A connection with its resources.
struct Client<'s> {
    shared: &'s Shared,
    socket: TcpStream,
    transport: Transport,
    session: Session,
    space: Workspace,
    files: Local,
    log: Logger,
    /// The connection knows that the server shuts down.
    draining: bool,
}

impl Client<'_> {
    fn new(socket: TcpStream, peer: SocketAddr, shared: &Shared) -> Client<'_> {
        let (site, now) = (&shared.site, shared.clock.now());
        let session = Session::begin(Peer::from(peer), site, &site.context(&now), "a runtime of my own");
        let files = Local::new(Arc::clone(site.root()), site.cache().clone());
        let (space, log) = (Workspace::new(site), site.log().logger());
        Client { shared, socket, transport: Transport::level_triggered(), session, space, files, log, draining: false }
    }

    /// Runs the connection until it is closed.
    fn run(mut self) {
        let mut now = self.shared.clock.now();
        loop {
            let site = &self.shared.site;
            let mut env = Env::new(site, site.context(&now), &self.files, &mut self.log);
            let io = &mut self.transport.over(self.socket.as_fd());
            let mut budget = Budget { steps: 64, bytes: 1 << 20, large: u64::MAX, scripts_are_slow: false };
            match self.session.turn(&mut self.space, io, &mut (), &mut env, &mut budget) {
                Turn::Wait(wait) => {
                    self.log.flush();
                    self.wait(wait.need, wait.deadline);
                }
                Turn::Closed(_) => return,
                Turn::Call(_) => unreachable!("there is no handler"),
                Turn::Yield | Turn::Slow | Turn::Finished => {}
            }
            self.shared.clock.read(&mut now);
        }
    }

    /// Waits for what is needed or for the deadline, and records what is possible.
    fn wait(&mut self, need: Need, deadline: Option<Tick>) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, need.read);
        flags.set(PollFlags::OUT, need.write);
        let left = deadline.map(|at| at.since(self.shared.clock.tick()));
        let mut fds = [PollFd::new(&self.socket, flags), PollFd::new(&self.shared.latch, PollFlags::IN)];
        // The latch stays readable, so it is polled only until it was seen.
        let watched = if self.draining { 1 } else { 2 };
        if poll(&mut fds[..watched], left).is_err() {
            return;
        }
        if !self.draining && !fds[1].revents().is_empty() {
            self.draining = true;
            self.session.connection.handle(Input::Drain);
        }
        let found = fds[0].revents();
        let is_gone = found.intersects(PollFlags::HUP | PollFlags::ERR);
        if is_gone || found.contains(PollFlags::IN) {
            self.transport.became_readable();
        }
        if is_gone || found.contains(PollFlags::OUT) {
            self.transport.became_writable();
        }
    }
}

/// `DIRECTORY PORT [RECORDINGS]`: serves until SIGTERM or Ctrl-C.
pub fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve(&arguments)
}

/// Serves with these arguments.
///
/// # Errors
/// If an argument is wrong, or a system call fails.
pub fn serve(arguments: &[String]) -> io::Result<()> {
    let [directory, port, recordings @ ..] = arguments else {
        return Err(io::Error::other("usage: learn_runtime_solved DIRECTORY PORT [RECORDINGS]"));
    };
    // Requests that are typed by hand take a while.
    let hour = Duration::from_secs(3_600);
    let timeouts = Timeouts::default().with_keep_alive(hour).with_head(hour);
    let config = Config::default().with_timeouts(timeouts);
    let mut site = Site::new(directory)?.with_config(config);
    if let Some(recordings) = recordings.first() {
        let recording = Recording::to(recordings, site.log().clone())?;
        site = site.with_recording(recording);
    }
    let port = port.parse().map_err(io::Error::other)?;
    let listener = os::bind(([127, 0, 0, 1], port).into(), false)?;
    listener.set_nonblocking(true)?;
    let mut server = Server::new(listener, site)?;
    let (trigger, mut signals) = (server.end(), Signals::new()?);
    thread::spawn(move || {
        signals.wait();
        drop(trigger);
        println!("Shutting down");
    });
    println!("Serving HTTP on 127.0.0.1 port {port} ...");
    server.run()
}

//! Exercise 6, solved: everybody looks at the bell, and the server waits for those who have heard it.
//!
//! `cargo run -q --example learn_runtime_solved -- DIRECTORY PORT`

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sanserve::core::{Buffers, Config, Connection, Fault, Input, Need, Peer, Step, Tick};
use sanserve::os::{self, Clock, Signals};
use sanserve::server::{Desk, Flush, Local, Logger, Recording, Service, Slot};

/// What all threads share.
struct Shared {
    service: Service,
    clock: Clock,
    /// Readable, for whoever looks, once the server is to end: the other side of it is closed then.
    bell: UnixStream,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    rope: Option<UnixStream>,
}

impl Server {
    /// Serves whom `listener` accepts. It must not block.
    ///
    /// # Errors
    /// If the system refuses what it needs.
    pub fn new(listener: TcpListener, service: Service) -> io::Result<Server> {
        let (bell, rope) = UnixStream::pair()?;
        let service = service.bound_to(listener.local_addr()?);
        Ok(Server { listener, shared: Arc::new(Shared { service, clock: Clock::start(), bell }), rope: Some(rope) })
    }

    /// Ends the server when it is dropped. It can be taken once.
    pub fn end(&mut self) -> Option<UnixStream> {
        self.rope.take()
    }

    /// Serves until it is ended and the exchanges in hand are over.
    ///
    /// # Errors
    /// If it cannot wait.
    pub fn run(self) -> io::Result<()> {
        let mut lines: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.shared.bell, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !fds[1].revents().is_empty() {
                break;
            }
            lines.retain(|line| !line.is_finished());
            while let Ok((stream, peer)) = os::accept(&self.listener) {
                let shared = Arc::clone(&self.shared);
                lines.push(thread::spawn(move || Line::new(stream, peer, &shared).run()));
            }
        }
        // Nobody is accepted from here on.
        drop(self.listener);
        for line in lines {
            let _ = line.join();
        }
        Ok(())
    }
}

/// A connection, what carries out its steps, and where it comes from.
struct Line<'s> {
    shared: &'s Shared,
    stream: TcpStream,
    connection: Connection,
    buffers: Buffers,
    slot: Slot,
    files: Local,
    log: Logger,
    /// The socket takes no more of what the slot has gathered.
    full: bool,
    /// It was told that the server ends.
    drains: bool,
}

impl Line<'_> {
    fn new(stream: TcpStream, peer: SocketAddr, shared: &Shared) -> Line<'_> {
        let (service, now) = (&shared.service, shared.clock.now());
        let mut connection = Connection::new(Peer::from(peer), &service.context(&now));
        service.observe(&mut connection, &service.context(&now), "a runtime of my own");
        let files = Local::new(Arc::clone(&service.root), service.cache.clone());
        let log = service.log.logger();
        let (buffers, slot) = (Buffers::new(), Slot::new());
        Line { shared, stream, connection, buffers, slot, files, log, full: false, drains: false }
    }

    /// Carries out steps to the connection's end.
    fn run(mut self) {
        let mut now = self.shared.clock.now();
        loop {
            let service = &self.shared.service;
            let cx = service.context(&now);
            match self.connection.poll(&mut self.buffers, &cx) {
                Step::Wait(wait) => {
                    if wait.need.write || self.flush() {
                        self.log.flush();
                        self.wait(wait.need, wait.deadline);
                        self.shared.clock.read(&mut now);
                    }
                }
                Step::Close(_) => {
                    if self.full || self.flush() {
                        return;
                    }
                }
                Step::Shut => {
                    if self.flush() {
                        let _ = self.stream.shutdown(Shutdown::Write);
                    }
                }
                Step::Call(_) => unreachable!("there is no handler"),
                step => {
                    let (files, scripts, site) = (&self.files, &*service.scripts, &*service.site);
                    let mut desk = Desk { files, scripts, log: &mut self.log, site, wall: now.wall };
                    if let Some(input) = self.slot.carry_out(step, self.stream.as_fd(), &mut desk) {
                        self.connection.handle(input);
                    }
                }
            }
        }
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

    /// Waits for what is needed or for the deadline, and tells the connection what has come.
    fn wait(&mut self, need: Need, deadline: Option<Tick>) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, need.read);
        flags.set(PollFlags::OUT, need.write);
        let left = deadline.map(|at| Duration::from_millis(at.since(self.shared.clock.tick())));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(&self.stream, flags), PollFd::new(&self.shared.bell, PollFlags::IN)];
        // Whoever has heard the bell looks at it no more: it goes on ringing.
        let watched = if self.drains { 1 } else { 2 };
        if poll(&mut fds[..watched], left.as_ref()).is_err() {
            return;
        }
        let found = fds[0].revents();
        if !self.drains && !fds[1].revents().is_empty() {
            self.drains = true;
            self.connection.handle(Input::Drain);
        }
        let is_gone = found.intersects(PollFlags::HUP | PollFlags::ERR);
        if need.write && (is_gone || found.contains(PollFlags::OUT)) && self.flush() {
            self.connection.handle(Input::Writable);
        }
        if need.read && (is_gone || found.contains(PollFlags::IN)) {
            match self.stream.read(self.buffers.input.spare()) {
                Ok(0) => self.connection.handle(Input::Eof),
                Ok(n) => self.buffers.input.commit(n),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.connection.handle(Input::Broken(Fault::Peer)),
            }
        }
    }
}

/// `DIRECTORY PORT [RECORDINGS]`: serves until SIGTERM or Ctrl-C.
pub fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve(&arguments)
}

/// The same with these arguments.
///
/// # Errors
/// If one of them is wrong, or the system refuses.
pub fn serve(arguments: &[String]) -> io::Result<()> {
    let [directory, port, recordings @ ..] = arguments else {
        return Err(io::Error::other("usage: learn_runtime_solved DIRECTORY PORT [RECORDINGS]"));
    };
    // Whoever types requests by hand takes their time.
    let mut config = Config::default();
    (config.timeouts.keep_alive, config.timeouts.head) = (3_600_000, 3_600_000);
    let mut service = Service::new(directory)?.with_config(config);
    if let Some(recordings) = recordings.first() {
        let recording = Recording::to(recordings, service.log.clone())?;
        service = service.with_recording(recording);
    }
    let port = port.parse().map_err(io::Error::other)?;
    let listener = os::bind(([127, 0, 0, 1], port).into(), false)?;
    listener.set_nonblocking(true)?;
    let mut server = Server::new(listener, service)?;
    let (rope, mut signals) = (server.end(), Signals::new()?);
    thread::spawn(move || {
        signals.wait();
        drop(rope);
        println!("Told to end");
    });
    println!("Serving HTTP on 127.0.0.1 port {port} ...");
    server.run()
}

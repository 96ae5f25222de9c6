//! sanserve on a mio event loop: one loop per worker, each with a listener of its own.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let site = sanserve_mio::Site::new(".")?;
//! sanserve_mio::Server::bind("127.0.0.1:8000", site)?.run()
//! # }
//! ```
//!
//! # Handlers
//!
//! A handler is called by the event loop of its connection, while hundreds of others wait. It does what can be done
//! immediately, and returns:
//!
//! - It must not **sleep, hold or wait for a lock for long, query a database, look up a name** or compute for more
//!   than a few milliseconds. Reading and writing ordinary files is usually as fast as memory; where it is not (a
//!   slow disk, a network file system), it is work for [`Workers`].
//! - Data that is not available yet comes later: [`Reply::receive`] returns `Pending`, [`Reply::write`] accepts only
//!   a part, and the handler is called again when there is more data, or room.
//! - Other events wake the connection: [`Reply::waker`] returns a [`Waker`](std::task::Waker) that can be kept and
//!   used on any thread. The handler is then called with [`Call::Wake`], and checks what has changed. Several
//!   wake-ups before that are one call. When the exchange is over, its wakers have no effect, neither on the next
//!   exchange nor on the next connection.
//! - Blocking work is submitted to [`Workers`], with such a waker. Their queue is bounded; a handler that finds it
//!   full responds with 503.
//!
//! A connection whose handler waits, and that has nothing to send, gives its buffers back: ten thousand event streams
//! take well below 1 KiB each, apart from the memory of the handlers and of the sockets in the kernel.
//!
//! A handler lives as long as its connection, a waker as long as its exchange. A panic of a handler only ends its
//! exchange. A handler decides by itself what it does when the server shuts down; exchanges that have not ended when
//! `site.grace` has passed are cut.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use sanserve_mio::{Call, Reply, Server, Site, StatusCode};
//!
//! // Responds when another thread has the result.
//! let site = Site::without_files().with_handler(|| {
//!     let mut answer = None;
//!     move |call: Call, reply: &mut Reply<'_>| {
//!         match call {
//!             Call::Request => {
//!                 let (sender, receiver) = std::sync::mpsc::channel();
//!                 answer = Some(receiver);
//!                 let waker = reply.waker();
//!                 std::thread::spawn(move || {
//!                     let _ = sender.send("done\n");
//!                     waker.wake();
//!                 });
//!             }
//!             Call::Wake => {
//!                 if let Some(text) = answer.as_ref().and_then(|receiver| receiver.try_recv().ok()) {
//!                     reply.answer(StatusCode::OK, "text/plain", text)?;
//!                 }
//!             }
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//! });
//! let server = Server::bind("127.0.0.1:0", site)?;
//! # let (address, handle) = (server.local_addr(), server.handle());
//! # let client = std::thread::spawn(move || {
//! #     use std::io::{Read, Write};
//! #     let mut stream = std::net::TcpStream::connect(address).unwrap();
//! #     stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
//! #     let mut answer = String::new();
//! #     stream.read_to_string(&mut answer).unwrap();
//! #     handle.shutdown();
//! #     answer
//! # });
//! server.run()?;
//! # assert!(client.join().unwrap().ends_with("done\n"));
//! # Ok(())
//! # }
//! ```
//!
//! # Other protocols
//!
//! A connection that a handler has [upgraded](Reply::upgrade) leaves the loop: the hook of [`Site::with_upgrade`]
//! gets its socket, on a thread of its own, and may block. The connection counts towards the limit of connections
//! until the hook returns. A server that shuts down does not wait for it.
//!
//! This crate only waits and calls handlers. All policy is in `sanserve-core`; system calls on files and sockets are
//! in `sanserve-server` and `sanserve-os`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection_limit;
mod deadlines;
mod event_loop;
mod leaving;
mod parked;
mod pool;
mod script;
mod slab;
mod turn;
mod waker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use sanserve_core as core;
#[cfg(feature = "files")]
pub use sanserve_core::{Asset, Assets};
pub use sanserve_core::{
    Call, Config, Etag, Handler, HandlerError, Limits, Misuse, Pace, Peer, Policy, Protocol, Received, Reply, Request,
    RequestBuf, ResponseHead, Route, Rules, StatusCode, Timeouts, Validators,
};
use sanserve_os::{Clock, SharedListener, addresses_of, bind_all_shared};
pub use sanserve_server as server;
#[cfg(feature = "recording")]
pub use sanserve_server::Recording;
/// TLS, for [`Site::with_tls`].
#[cfg(feature = "tls-no-provider")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
pub use sanserve_server::tls;
use sanserve_server::{Announce, Phase, first_ip};
pub use sanserve_server::{
    Draining, Full, Handle, Job, ListenAddr, Listener, Log, Panicked, Running, Site, Stream, StreamSender, Upgraded,
    Workers,
};
#[cfg(feature = "cgi")]
pub use {sanserve_core::Cgi, sanserve_server::ScriptRules};

use connection_limit::ConnectionLimit;
use event_loop::EventLoop;
use waker::LoopWaker;

/// The default number of workers is the available parallelism, but no more than suffice to saturate a network.
const MAX_WORKERS: usize = 4;

/// A server that is bound, but not serving yet.
///
/// ```no_run
/// use sanserve_mio::{Server, Site, StatusCode};
///
/// fn main() -> std::io::Result<()> {
///     let site = Site::without_files()
///         .with_answer(|reply| reply.answer(StatusCode::OK, "text/plain", "Hello, world!\n"));
///     Server::bind("127.0.0.1:8000", site)?.run()
/// }
/// ```
pub struct Server {
    addresses: Vec<ListenAddr>,
    listeners: Listeners,
    workers: usize,
    site: Site,
    loop_wakers: Arc<LoopWakers>,
    /// Why that many workers could not be bound.
    failed: Option<io::Error>,
}

/// The listeners of the workers.
#[derive(Default)]
struct Listeners {
    /// For each address, one listener per worker.
    shared: Vec<SharedListener>,
    /// Others, each for one more worker. If there are no shared ones, all workers have the first of these.
    given: Vec<Listener>,
}

impl Server {
    /// Listens on `address`: a [`SocketAddr`], text such as `"127.0.0.1:8000"` or `"localhost:8000"`, or all
    /// addresses of a slice, on one port. A name stands for all addresses that it resolves to; the lookup blocks.
    /// Port 0 selects a free one. Connections wait in the queue of the system until [`run`](Server::run).
    ///
    /// # Errors
    /// Errors of the system, such as an address in use, which name the address (`cannot listen on [::1]:80: Permission
    /// denied`), or a name that does not resolve.
    pub fn bind(address: impl ToSocketAddrs, site: Site) -> io::Result<Server> {
        let listeners = bind_all_shared(&addresses_of(address)?)?;
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS));
        let addresses = listeners.iter().map(|listener| ListenAddr::Ip(listener.local_addr())).collect();
        let listeners = Listeners { shared: listeners, given: Vec::new() };
        let mut server = Server::new(addresses, listeners, site).workers(workers);
        server.failed.take().map_or(Ok(server), Err)
    }

    /// Serves on a listener that is already bound, with one worker. With [more workers](Server::workers), all of them
    /// are woken for each client.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn from_listener(listener: impl Into<Listener>, site: Site) -> io::Result<Server> {
        let listener = listener.into();
        listener.set_nodelay();
        let addresses = vec![listener.address()];
        Ok(Server::new(addresses, Listeners { shared: Vec::new(), given: vec![listener] }, site))
    }

    fn new(addresses: Vec<ListenAddr>, listeners: Listeners, site: Site) -> Server {
        let site = site.bound_to(addresses.iter().find_map(ListenAddr::to_ip));
        Server { addresses, listeners, workers: 1, site, loop_wakers: Arc::default(), failed: None }
    }

    /// Listens on a Unix socket at `path`, with one worker. [`Listener::unix`] says who may connect, and what happens if
    /// the file exists; the file is removed when the server ends.
    ///
    /// # Errors
    /// As [`Listener::unix`].
    pub fn bind_unix(path: impl AsRef<Path>, site: Site) -> io::Result<Server> {
        Server::from_listener(Listener::unix(path)?, site)
    }

    /// Serves another listener too, on a worker of its own: a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener), or a [`Listener`] for anything else. All listeners share the
    /// site and its limits.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<Listener>) -> Server {
        let listener = listener.into();
        listener.set_nodelay();
        self.addresses.push(listener.address());
        self.listeners.given.push(listener);
        self
    }

    /// Runs on `n` event loops, each with a thread of its own; at least 1. Default: the available parallelism, at
    /// most 4. For each address, each loop has a socket of its own that shares the address (`SO_REUSEPORT`). The
    /// sockets are bound now; if that fails, [`run`](Server::run) returns the error.
    #[must_use]
    pub fn workers(mut self, n: usize) -> Server {
        self.workers = n.max(1);
        let shared = &mut self.listeners.shared;
        self.failed = shared.iter_mut().try_for_each(|listener| listener.reserve(self.workers)).err();
        self
    }

    /// The bound address, with the actual port; if there are several, the first.
    ///
    /// # Panics
    /// If the server listens on no IP address, only on Unix sockets. See [`addresses`](Self::addresses).
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        first_ip(&self.addresses)
    }

    /// The addresses of all listeners.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// A handle to shut the server down, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.site.draining().clone(), self.loop_wakers.clone())
    }

    /// Serves until the server is shut down and every connection has ended, then kills the remaining scripts.
    ///
    /// # Errors
    /// If the system fails to wait, to listen or to start a thread. The other workers are then stopped.
    pub fn run(self) -> io::Result<()> {
        let (handle, scripts) = (self.handle(), Arc::clone(self.site.scripts()));
        let result = self.loops().and_then(|loops| run_loops(loops, &handle));
        // Scripts that have outlived their exchanges do not outlive the server.
        scripts.end();
        result
    }

    /// Serves in the background, on threads of its own. What is returned has the address, and stops the server when it is
    /// dropped.
    ///
    /// ```
    /// use sanserve_mio::{Server, Site};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let running = Server::bind("127.0.0.1:0", Site::without_files())?.spawn()?;
    /// println!("listening on {}", running.local_addr());
    /// running.shutdown()
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the thread cannot be started. Other errors are returned by [`Running::join`].
    pub fn spawn(self) -> io::Result<Running> {
        Running::start(self.addresses.clone(), self.handle(), move || self.run())
    }

    /// Creates the workers, and connects them to the handle. Phases entered before are seen when they begin.
    fn loops(self) -> io::Result<Vec<EventLoop>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut listeners = Vec::new();
        let Listeners { shared, given } = self.listeners;
        if let (true, Some(first)) = (shared.is_empty(), given.first()) {
            for _ in 1..self.workers {
                listeners.push(first.try_clone()?);
            }
        }
        for each in shared {
            listeners.extend(each.listen()?.into_iter().map(Listener::from));
        }
        listeners.extend(given);
        let connection_limit = Arc::new(ConnectionLimit::new(self.site.connection_bound(), listeners.len()));
        let site = Arc::new(self.site);
        let clock = Clock::start();
        let loops = listeners
            .into_iter()
            .enumerate()
            .map(|(n, listener)| EventLoop::new(n, listener, Arc::clone(&site), Arc::clone(&connection_limit), clock))
            .collect::<io::Result<Vec<_>>>()?;
        let loop_wakers: Arc<[Arc<LoopWaker>]> =
            loops.iter().map(|event_loop| Arc::clone(event_loop.loop_waker())).collect();
        connection_limit.reach(&loop_wakers);
        *self.loop_wakers.0.lock().unwrap_or_else(PoisonError::into_inner) = loop_wakers;
        Ok(loops)
    }
}

fn run_loops(mut loops: Vec<EventLoop>, handle: &Handle) -> io::Result<()> {
    let own = loops.remove(0);
    let mut others = Vec::new();
    for (n, event_loop) in (2..).zip(loops) {
        let stop_all = StopAll(Some(handle.clone()));
        let worker = thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
            let result = event_loop.run();
            if result.is_ok() {
                stop_all.disarm();
            }
            result
        });
        match worker {
            Ok(worker) => others.push(worker),
            Err(error) => {
                handle.stop();
                return Err(error);
            }
        }
    }
    let mut result = own.run();
    if result.is_err() {
        handle.stop();
    }
    for other in others {
        let ended = other.join().unwrap_or_else(|_| Err(io::Error::other("a worker failed")));
        result = result.and(ended);
    }
    result
}

/// Stops all workers when one fails, so that the server does not continue in part.
struct StopAll(Option<Handle>);

impl StopAll {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.iter().for_each(Handle::stop);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Interrupts all loops, which then read the phase. Before the server runs, there are none.
#[derive(Default)]
struct LoopWakers(Mutex<Arc<[Arc<LoopWaker>]>>);

impl Announce for LoopWakers {
    fn announce(&self, _phase: Phase) {
        let loop_wakers = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        loop_wakers.iter().for_each(|loop_waker| loop_waker.wake());
    }
}

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

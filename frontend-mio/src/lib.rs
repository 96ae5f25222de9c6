//! sanserve on a mio event loop: one loop a worker, each with a listener of its own.
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
//! A handler is called by the loop that its connection lives on, and hundreds of others wait meanwhile. It does
//! what can be done at once and returns:
//!
//! - It must not **sleep, take a lock that is held for long, ask a database, look up a name** or compute for more
//!   than a few milliseconds. Reading and writing ordinary files is as fast as memory most of the time; if it
//!   must never hold anybody up (a slow disk, a network file system), it is work for [`Workers`].
//! - What is not there yet comes later: [`Reply::receive`] says `Pending`, [`Reply::write`] takes less than all,
//!   and the handler is called again when there is more, or room.
//! - What comes from elsewhere wakes the connection: [`Reply::waker`] gives a [`Waker`](std::task::Waker) that may
//!   be kept and used on any thread. The handler is then called with [`Call::Wake`] and looks for itself what
//!   there is. Several wake-ups before that are one call. When the exchange is over, its wakers do nothing: not
//!   to the next exchange, and not to the next connection.
//! - What blocks is handed to [`Workers`], with that waker. Their queue is bounded; a handler that finds it
//!   full answers 503.
//!
//! A connection whose handler waits, and has nothing on its way, gives its buffers back: ten thousand streams of
//! events take well below 1 KiB each, beside what the handler itself keeps and what the system keeps of a socket.
//!
//! A handler's value lives as long as its connection, a waker as long as its exchange. A handler that panics
//! takes down its own exchange only. What it does when the server goes down is up to it: exchanges that
//! have not ended when `site.grace` has passed are cut.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use sanserve_mio::{Call, Reply, Server, Site, StatusCode};
//!
//! // Answers when another thread has the answer.
//! let site = Site::without_files().with_handler(|| {
//!     let mut answer = None;
//!     move |call: Call, reply: &mut Reply<'_>| match call {
//!         Call::Request => {
//!             let (tell, told) = std::sync::mpsc::channel();
//!             answer = Some(told);
//!             let waker = reply.waker();
//!             std::thread::spawn(move || {
//!                 let _ = tell.send("at last\n");
//!                 waker.wake();
//!             });
//!         }
//!         Call::Wake => {
//!             if let Some(text) = answer.as_ref().and_then(|told| told.try_recv().ok()) {
//!                 reply.answer(StatusCode::OK, "text/plain", text).expect("the first answer");
//!             }
//!         }
//!         _ => {}
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
//! # assert!(client.join().unwrap().ends_with("at last\n"));
//! # Ok(())
//! # }
//! ```
//!
//! # Other protocols
//!
//! A connection that a handler has [upgraded](Reply::upgrade) leaves the loop: the hook of
//! [`Site::with_upgrade`] gets its socket, on a thread of its own, and may block. It keeps its place in the
//! bound on connections until the hook returns. A server that goes down does not wait for it.
//!
//! What it leaves out: all policy, which is the core's, and all system calls on files and sockets,
//! which are `sanserve-server`'s and `sanserve-os`'s. It only waits, and calls handlers.

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
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use sanserve_core as core;
pub use sanserve_core::{
    Call, Cgi, Config, Etag, Handler, Limits, Misuse, Pace, Peer, Policy, Protocol, Received, Reply, Request,
    RequestBuf, ResponseHead, Route, StatusCode, Timeouts,
};
use sanserve_os::{Clock, SharedListener, addresses_of, bind_all_shared};
pub use sanserve_server as server;
use sanserve_server::{Announce, Phase};
pub use sanserve_server::{
    Draining, Full, Handle, Job, Log, Panicked, Recording, ScriptRules, Site, Upgraded, Workers,
};

use connection_limit::ConnectionLimit;
use event_loop::EventLoop;
use waker::LoopWaker;

/// Workers by default: as many as there are processors, but no more than suffice to fill a network.
const MAX_WORKERS: usize = 4;

/// A server that is bound and not yet running.
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
    address: SocketAddr,
    listeners: Listeners,
    workers: usize,
    site: Site,
    loop_wakers: Arc<LoopWakers>,
    /// Why there cannot be that many workers.
    failed: Option<io::Error>,
}

/// What workers accept from.
enum Listeners {
    /// Of each address, a listener for each worker.
    Shared(Vec<SharedListener>),
    /// All from one.
    Given(TcpListener),
}

impl Server {
    /// Listens on `address`: a [`SocketAddr`], text such as `"127.0.0.1:8000"` or `"localhost:8000"`, or all addresses of a
    /// slice, on one port. Of a name, all addresses that it resolves to; that lookup blocks. Port 0 is a free one.
    /// Connections wait in the system's queue until [`run`](Server::run).
    ///
    /// # Errors
    /// As the system says, such as an address in use or a name that does not resolve.
    pub fn bind(address: impl ToSocketAddrs, site: Site) -> io::Result<Server> {
        let listeners = bind_all_shared(&addresses_of(address)?)?;
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_WORKERS));
        let address = listeners[0].local_addr();
        let mut server = Server::new(address, Listeners::Shared(listeners), site).workers(workers);
        server.failed.take().map_or(Ok(server), Err)
    }

    /// Serves on a listener that is bound already, with one worker. If there are to be [more](Server::workers), all are
    /// woken for each client.
    ///
    /// # Errors
    /// As the system says.
    pub fn from_listener(listener: TcpListener, site: Site) -> io::Result<Server> {
        Ok(Server::new(listener.local_addr()?, Listeners::Given(listener), site))
    }

    fn new(address: SocketAddr, listeners: Listeners, site: Site) -> Server {
        let site = site.bound_to(address);
        Server { address, listeners, workers: 1, site, loop_wakers: Arc::default(), failed: None }
    }

    /// Runs on `n` event loops, each with a thread of its own, at least 1; of each address, so many. Default: the
    /// available parallelism, at most 4. Each has a socket of its own that shares the address (`SO_REUSEPORT`); it is
    /// bound now, and if that fails, [`run`](Server::run) says so.
    #[must_use]
    pub fn workers(mut self, n: usize) -> Server {
        self.workers = n.max(1);
        if let Listeners::Shared(listeners) = &mut self.listeners {
            self.failed = listeners.iter_mut().try_for_each(|listener| listener.reserve(self.workers)).err();
        }
        self
    }

    /// The address that it is bound to, with the real port; of several, the first.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Something to shut it down with, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.site.draining().clone(), self.loop_wakers.clone())
    }

    /// Serves until it is shut down and every connection has ended; then kills the scripts that are left.
    ///
    /// # Errors
    /// If the system refuses to wait, to listen or to start a thread; the other workers are then stopped.
    pub fn run(self) -> io::Result<()> {
        let (handle, scripts) = (self.handle(), Arc::clone(self.site.scripts()));
        let result = self.loops().and_then(|loops| run_loops(loops, &handle));
        // Those that have outlived their exchanges do not outlive the server.
        scripts.end();
        result
    }

    /// All workers, whom the handle reaches from now on. What it has said before, they see when they begin.
    fn loops(self) -> io::Result<Vec<EventLoop>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut listeners = Vec::new();
        match self.listeners {
            Listeners::Shared(shared) => {
                for each in shared {
                    listeners.append(&mut each.listen()?);
                }
            }
            Listeners::Given(listener) => {
                for _ in 1..self.workers {
                    listeners.push(listener.try_clone()?);
                }
                listeners.push(listener);
            }
        }
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
        let stop_all = StopAll(handle.clone());
        let worker = thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
            let result = event_loop.run();
            if result.is_ok() {
                std::mem::forget(stop_all);
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

/// Stops all workers when one fails: half a server is none.
struct StopAll(Handle);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// Interrupts all loops, which look at the phase then. There are none before the server runs.
#[derive(Default)]
struct LoopWakers(Mutex<Arc<[Arc<LoopWaker>]>>);

impl Announce for LoopWakers {
    fn announce(&self, _phase: Phase) {
        let loop_wakers = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        loop_wakers.iter().for_each(|loop_waker| loop_waker.ring());
    }
}

//! sanserve on blocking threads: one thread a connection, as Python's `ThreadingHTTPServer`, or one
//! connection at a time, as its `HTTPServer`.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use sanserve_std::{Server, Site};
//!
//! let server = Server::bind("127.0.0.1:8000", Site::new(".")?)?;
//! let handle = server.handle(); // another thread may end the server with it
//! server.run()
//! # }
//! ```
//!
//! A [`Handler`] answers in plain blocking code, with an [`Exchange`] to read from and to write to:
//!
//! ```no_run
//! use sanserve_std::{Exchange, Server, Site, StatusCode};
//!
//! fn main() -> std::io::Result<()> {
//!     let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
//!     let hello = |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "Hello, world!\n");
//!     server.with_handler(move || hello).run()
//! }
//! ```
//!
//! All policy is in `sanserve-core`, and what touches the system but does not wait is in
//! `sanserve-server` and `sanserve-os`. This crate waits and calls handlers: [`Server::run`] accepts (`accept`), each
//! connection is driven by a thread of its own (`driver`, `waiting`), or by its handler while that
//! blocks (`blocking`), and what they have in common, foremost the way to end them all, is in `shared`.
//!
//! Since the socket blocks while a connection waits for its peer, a request on a connection that is
//! kept alive costs one `recv` and one `send`, beside what its file takes.

mod accept;
mod blocking;
mod driver;
mod exchange;
mod handler;
mod head;
mod long_steps;
mod recv_timeout;
mod shared;
mod upgrade;
mod waiting;
mod waker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

pub use sanserve_core as core;
pub use sanserve_core::{
    Cgi, Config, Etag, Limits, Misuse, Pace, Peer, Policy, Protocol, Request, RequestBuf, ResponseHead, Route,
    StatusCode, Timeouts,
};
pub use sanserve_server as server;
pub use sanserve_server::{Draining, Handle, Log, Recording, ScriptRules, Site, Upgraded};

pub use crate::exchange::Exchange;
pub use crate::handler::Handler;
pub use crate::head::HeadWriter;

use crate::accept::Serving;
use crate::handler::Blocking;
use crate::shared::Shared;

/// How many threads there are at most, unless [`Server::workers`] says otherwise.
const THREADS: usize = 4_096;

/// A server that is bound and does not serve yet.
///
/// ```
/// use std::time::Duration;
/// use sanserve_std::{Exchange, Server, Site, StatusCode};
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
/// let hello = |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "hello\n");
/// let mut server = server.with_handler(move || hello).workers(64);
/// println!("listening on {}", server.local_addr());
/// assert!(!server.handle_request(Some(Duration::ZERO))?, "nobody came");
/// # Ok(())
/// # }
/// ```
pub struct Server {
    listener: TcpListener,
    /// Those of other addresses.
    others: Vec<TcpListener>,
    address: SocketAddr,
    threads: ThreadModel,
    serving: Serving,
}

/// Who drives connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadModel {
    /// The thread that accepts.
    Accepting,
    /// At most so many threads, one a connection.
    Threads(usize),
}

impl Server {
    /// Listens on `address`: a [`SocketAddr`], text such as `"127.0.0.1:8000"` or `"localhost:8000"`, or all addresses of a
    /// slice, on one port. Of a name, all addresses that it resolves to; that lookup blocks. Port 0 is a free one.
    /// Connections wait in the system's queue until [`run`](Server::run).
    ///
    /// A server that serves [one at a time](Server::one_at_a_time), or by [`handle_request`](Server::handle_request),
    /// listens on the first address alone.
    ///
    /// # Errors
    /// As the system says, such as an address in use or a name that does not resolve.
    pub fn bind(address: impl ToSocketAddrs, site: Site) -> io::Result<Server> {
        let mut listeners = sanserve_os::bind_all(&sanserve_os::addresses_of(address)?)?;
        let others = listeners.split_off(1);
        others.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        let first = listeners.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Server { others, ..Server::from_listener(first, site)? })
    }

    /// Serves on a listener that is already bound. It is made non-blocking, and what it accepts
    /// sends without delay.
    ///
    /// # Errors
    /// As the system says.
    pub fn from_listener(listener: TcpListener, site: Site) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it where it is not set on each; without it they are only slower.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&listener, true);
        let address = listener.local_addr()?;
        Ok(Server {
            listener,
            others: Vec::new(),
            address,
            threads: ThreadModel::Threads(THREADS),
            serving: Serving { shared: Arc::new(Shared::new(site.bound_to(address))?), blocking: None },
        })
    }

    /// The address that is bound, with its real port; of several, the first.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The name by which it calls itself where a request names none (Python's `server_name`).
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.serving.shared.site.config().server_name
    }

    /// The port that is bound (Python's `server_port`).
    #[must_use]
    pub fn server_port(&self) -> u16 {
        self.address.port()
    }

    /// Gives each connection a handler of its own that may block; see [`Handler`]. Every request goes to it,
    /// unless the policy's [`route`](sanserve_core::Policy::route) says otherwise. It goes before a handler of the
    /// [`Site`], which is then not called.
    #[must_use]
    pub fn with_handler<H: Handler + 'static>(mut self, make: impl Fn() -> H + Send + Sync + 'static) -> Server {
        self.serving.blocking = Some(Arc::new(Blocking::new(make, self.serving.shared.site.config())));
        self
    }

    /// Serves one connection at a time, on the thread that [`run`](Server::run)s, as Python's
    /// `HTTPServer` does. The others wait in the system's queue until it ends; how long it may take
    /// is bounded by [`Timeouts`], and `keep_alive` among them is what an
    /// idle one costs everybody.
    #[must_use]
    pub fn one_at_a_time(self) -> Server {
        Server { threads: ThreadModel::Accepting, others: Vec::new(), ..self }
    }

    /// Bounds the number of threads that serve, one a connection, and so of connections served at once; beyond that, none is
    /// accepted until one has ended. Default 4,096. Never more than [`Site::connection_bound`], nor than have room for
    /// their stacks ([`threads_within_memory`](sanserve_server::threads_within_memory)), and at least 1.
    #[must_use]
    pub fn workers(self, most: usize) -> Server {
        Server { threads: ThreadModel::Threads(most.max(1)), ..self }
    }

    /// What ends this server. It may be used before [`run`](Server::run), too.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.serving.shared.site.draining().clone(), self.serving.shared.clone())
    }

    /// Serves until it is shut down, and returns when all connections have ended or were cut.
    ///
    /// A thread that is still in a handler a second after its connection was cut is left behind.
    ///
    /// # Errors
    /// If the system cannot wait for connections. That one cannot be accepted is no such error: the
    /// server pauses, says so in the log, and goes on.
    pub fn run(self) -> io::Result<()> {
        let Server { listener, mut others, threads, serving, .. } = self;
        let outcome = match threads {
            ThreadModel::Accepting => accept::one_at_a_time(&serving, listener),
            ThreadModel::Threads(most) => {
                let most = most.min(serving.most_threads());
                others.insert(0, listener);
                accept::threaded(&serving, others, most)
            }
        };
        // Those that have outlived their exchanges do not outlive the server.
        serving.shared.site.scripts().end();
        outcome
    }

    /// Accepts one connection and serves it to its end, on this thread (Python's `handle_request`). `false`: none
    /// came in time, or the server was shut down.
    ///
    /// A [shutdown](Handle::shutdown) lets the current exchange finish, however long that takes; a
    /// [stop](Handle::stop) cuts it.
    ///
    /// # Errors
    /// If the system cannot wait for connections.
    pub fn handle_request(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.others.clear();
        accept::one(&self.serving, &self.listener, timeout)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).field("threads", &self.threads).finish_non_exhaustive()
    }
}

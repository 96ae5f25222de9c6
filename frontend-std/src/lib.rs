//! sanserve on blocking threads: one thread a connection, as Python's `ThreadingHTTPServer`, or one
//! connection at a time, as its `HTTPServer`.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use sanserve_std::{Server, Service};
//!
//! let server = Server::bind(([127, 0, 0, 1], 8000).into(), Service::new(".")?)?;
//! let handle = server.handle(); // another thread may end the server with it
//! server.run()
//! # }
//! ```
//!
//! All policy is in `sanserve-core`, and what touches the system but does not wait is in
//! `sanserve-os`. This crate waits and calls handlers: [`Server::run`] accepts (`accept`), each
//! connection is driven by a thread of its own (`driver`), and what they have in common, foremost
//! the way to end them all, is in `shared`.
//!
//! Since the socket blocks while a connection waits for its peer, a request on a connection that is
//! kept alive costs one `recv` and one `send`, beside what its file takes.

mod accept;
mod driver;
mod patience;
mod shared;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

pub use sanserve_os::Service;

use crate::shared::{Phase, Shared};

/// How many threads there are at most, unless [`Server::threads`] says otherwise.
const THREADS: usize = 4_096;

/// A server that is bound and does not serve yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    crew: Crew,
    shared: Arc<Shared>,
}

/// Who drives connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crew {
    /// The thread that accepts.
    Accepting,
    /// At most so many threads, one a connection.
    Threads(usize),
}

impl Server {
    /// Binds `address`; port 0 is a free one. Connections wait in the system's queue until
    /// [`run`](Server::run).
    ///
    /// # Errors
    /// As the system says, such as an address in use.
    pub fn bind(address: SocketAddr, service: Service) -> io::Result<Server> {
        Server::from_listener(sanserve_os::bind(address, false)?, service)
    }

    /// Serves on a listener that is already bound. It is made non-blocking, and what it accepts
    /// sends without delay.
    ///
    /// # Errors
    /// As the system says.
    pub fn from_listener(listener: TcpListener, service: Service) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it where it is not set on each; without it they are only slower.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&listener, true);
        let address = listener.local_addr()?;
        Ok(Server {
            listener,
            address,
            crew: Crew::Threads(THREADS),
            shared: Arc::new(Shared::new(service.bound_to(address))?),
        })
    }

    /// The address that is bound, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves one connection at a time, on the thread that [`run`](Server::run)s, as Python's
    /// `HTTPServer` does. The others wait in the system's queue until it ends; how long it may take
    /// is bounded by [`Timeouts`](sanserve_core::Timeouts), and `keep_alive` among them is what an
    /// idle one costs everybody.
    #[must_use]
    pub fn one_at_a_time(self) -> Server {
        Server { crew: Crew::Accepting, ..self }
    }

    /// Bounds the number of threads, and so of connections served at once; beyond that, none is
    /// accepted until one has ended. Default 4,096. Never more than
    /// [`Service::connection_bound`], and at least 1.
    #[must_use]
    pub fn threads(self, most: usize) -> Server {
        Server { crew: Crew::Threads(most.max(1)), ..self }
    }

    /// What ends this server. It may be used before [`run`](Server::run), too.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until it is shut down, and returns when all connections have ended or were cut.
    ///
    /// A thread that is still in a handler a second after its connection was cut is left behind.
    ///
    /// # Errors
    /// If the system cannot wait for connections. That one cannot be accepted is no such error: the
    /// server pauses, says so in the log, and goes on.
    pub fn run(self) -> io::Result<()> {
        let Server { listener, crew, shared, .. } = self;
        match crew {
            Crew::Accepting => accept::one_at_a_time(&shared, listener),
            Crew::Threads(most) => {
                let most = most.min(shared.service.connection_bound());
                accept::threaded(&shared, listener, most)
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).field("crew", &self.crew).finish_non_exhaustive()
    }
}

/// Ends a [`Server`], from any thread. Neither call waits: that is what [`Server::run`] does.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Accepts no more, ends connections that are idle, and lets the exchanges in hand finish;
    /// after [`Service::grace`](sanserve_os::Service::grace) the rest is cut, and the log says so.
    pub fn shutdown(&self) {
        self.shared.enter(Phase::Draining);
    }

    /// Accepts no more and cuts every connection now.
    pub fn stop(&self) {
        self.shared.enter(Phase::Cutting);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("phase", &self.shared.phase()).finish_non_exhaustive()
    }
}

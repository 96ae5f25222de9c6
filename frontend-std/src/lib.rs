//! sanserve on blocking threads: one thread per connection, like Python's `ThreadingHTTPServer`, or one connection at
//! a time, like its `HTTPServer`.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use sanserve_std::{Server, Site};
//!
//! let server = Server::bind("127.0.0.1:8000", Site::new(".")?)?;
//! let handle = server.handle(); // another thread can shut the server down with it
//! server.run()
//! # }
//! ```
//!
//! A [`Handler`] responds in plain blocking code, with an [`Exchange`] to read from and to write to:
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
//! All policy is in `sanserve-core`; system calls that do not wait are in `sanserve-server` and `sanserve-os`. This
//! crate waits and calls handlers: [`Server::run`] accepts (`accept`), and each connection is driven by a thread of
//! its own (`driver`, `waiting`), or by its handler while that runs (`blocking`). The state that threads share, which
//! includes the shutdown, is in `shared`.
//!
//! Since the socket blocks while a connection waits for its peer, a request on a persistent connection costs one
//! `recv` and one `send`, apart from the calls for its file.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod blocking;
mod driver;
mod exchange;
mod handler;
mod head;
mod long_steps;
mod recv_timeout;
mod requests;
mod shared;
mod upgrade;
mod waiting;
mod waker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

pub use sanserve_core as core;
#[cfg(feature = "files")]
pub use sanserve_core::{Asset, Assets};
pub use sanserve_core::{
    Config, Etag, HandlerError, Limits, Misuse, Pace, Peer, Policy, Protocol, Request, RequestBuf, ResponseHead, Route,
    Rules, StatusCode, Timeouts, Validators,
};
pub use sanserve_server as server;
#[cfg(feature = "recording")]
pub use sanserve_server::Recording;
use sanserve_server::first_ip;
/// TLS, for [`Site::with_tls`].
#[cfg(feature = "tls-no-provider")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
pub use sanserve_server::tls;
pub use sanserve_server::{Draining, Handle, ListenAddr, Listener, Log, Running, Site, Stream, StreamSender, Upgraded};
#[cfg(feature = "cgi")]
pub use {sanserve_core::Cgi, sanserve_server::ScriptRules};

pub use crate::exchange::Exchange;
pub use crate::handler::Handler;
pub use crate::head::HeadWriter;
pub use crate::requests::{IncomingRequest, PendingResponse, Requests, RequestsIter, ResponseWriter};

use crate::accept::Serving;
use crate::driver::Blocking;
use crate::requests::{Pulled, Queue};
use crate::shared::Shared;

/// The default limit of threads; see [`Server::workers`].
const THREADS: usize = 4_096;

/// A server that is bound, but not serving yet.
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
/// assert!(!server.handle_request(Some(Duration::ZERO))?, "no connection arrived");
/// # Ok(())
/// # }
/// ```
pub struct Server {
    listener: Listener,
    /// The listeners of the other addresses.
    others: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    threads: ThreadModel,
    serving: Serving,
}

/// Which threads drive connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ThreadModel {
    /// The thread that accepts.
    Accepting,
    /// At most this many threads, one per connection.
    Threads(usize),
}

impl Server {
    /// Listens on `address`: a [`SocketAddr`], text such as `"127.0.0.1:8000"` or `"localhost:8000"`, or all
    /// addresses of a slice, on one port. A name stands for all addresses that it resolves to; the lookup blocks.
    /// Port 0 selects a free one. Connections wait in the queue of the system until [`run`](Server::run).
    ///
    /// A server that serves [one at a time](Server::one_at_a_time), or by [`handle_request`](Server::handle_request),
    /// only listens on the first address.
    ///
    /// # Errors
    /// Errors of the system, such as an address in use, which name the address (`cannot listen on [::1]:80: Permission
    /// denied`), or a name that does not resolve.
    pub fn bind(address: impl ToSocketAddrs, site: Site) -> io::Result<Server> {
        let mut listeners = sanserve_os::bind_all(&sanserve_os::addresses_of(address)?)?.into_iter();
        let first = listeners.next().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(listeners.fold(Server::from_listener(first, site)?, Server::listen))
    }

    /// Listens on a Unix socket at `path`. [`Listener::unix`] says who may connect, and what happens if the file exists;
    /// the file is removed when the server ends.
    ///
    /// # Errors
    /// As [`Listener::unix`].
    pub fn bind_unix(path: impl AsRef<Path>, site: Site) -> io::Result<Server> {
        Server::from_listener(Listener::unix(path)?, site)
    }

    /// Serves another listener too: a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener), or a [`Listener`] for anything else. All listeners share the
    /// site and its limits; each has a thread that accepts.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<Listener>) -> Server {
        let listener = listener.into();
        listener.set_nodelay();
        self.addresses.push(listener.address());
        self.others.push(listener);
        self
    }

    /// Serves on a listener that is already bound. The listener becomes non-blocking, and `TCP_NODELAY` is set on
    /// accepted sockets.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn from_listener(listener: impl Into<Listener>, site: Site) -> io::Result<Server> {
        let listener = listener.into();
        listener.set_nonblocking(true)?;
        listener.set_nodelay();
        let address = listener.address();
        let site = site.bound_to(address.to_ip());
        Ok(Server {
            listener,
            others: Vec::new(),
            addresses: vec![address],
            threads: ThreadModel::Threads(THREADS),
            serving: Serving { shared: Arc::new(Shared::new(site)?), blocking: None },
        })
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

    /// The name of the server for requests that contain none (Python's `server_name`).
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.serving.shared.site.config().server_name
    }

    /// The port that is bound (Python's `server_port`). On a Unix socket, the port of the configuration, usually 80.
    #[must_use]
    pub fn server_port(&self) -> u16 {
        self.serving.shared.site.config().server_port
    }

    /// Gives each connection a blocking handler of its own; see [`Handler`]. All requests are routed to it, unless
    /// the policy's [`route`](sanserve_core::Policy::route) decides otherwise. It takes precedence over a handler of
    /// the [`Site`], which is then not called.
    #[must_use]
    pub fn with_handler<H: Handler + 'static>(mut self, make: impl Fn() -> H + Send + Sync + 'static) -> Server {
        self.serving.blocking = Some(Arc::new(Blocking::new(make, self.serving.shared.site.config())));
        self
    }

    /// Has one function respond to all requests, on the threads of all connections: a handler without a state of its
    /// connection. Takes precedence like [`with_handler`](Self::with_handler).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use sanserve_std::{Server, Site, StatusCode};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let requests = AtomicU64::new(0);
    /// let server = Server::bind("127.0.0.1:0", Site::without_files())?.with_fn(move |x| {
    ///     let number = requests.fetch_add(1, Ordering::Relaxed);
    ///     x.answer(StatusCode::OK, "text/plain", format!("{number}\n"))
    /// });
    /// # drop(server);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_fn<F>(self, answer: F) -> Server
    where
        F: Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        self.with_handler(move || {
            let answer = Arc::clone(&answer);
            move |x: &mut Exchange<'_>| answer(x)
        })
    }

    /// Serves one connection at a time, on the thread that calls [`run`](Server::run), like Python's `HTTPServer`.
    /// Other connections wait in the queue of the system until it ends. How long that takes is limited by
    /// [`Timeouts`]; an idle connection delays the others by `keep_alive`.
    #[must_use]
    pub fn one_at_a_time(mut self) -> Server {
        self.addresses.truncate(1);
        Server { threads: ThreadModel::Accepting, others: Vec::new(), ..self }
    }

    /// Limits the number of threads, and so of connections served at the same time, since each has its thread. If the
    /// limit is reached, no connection is accepted until one has ended. Default 4,096. The number never exceeds
    /// [`Site::connection_bound`], nor the number of stacks that fit into memory
    /// ([`threads_within_memory`](sanserve_server::threads_within_memory)), and it is at least 1.
    #[must_use]
    pub fn workers(self, most: usize) -> Server {
        Server { threads: ThreadModel::Threads(most.max(1)), ..self }
    }

    /// A handle to shut this server down. It may be used before [`run`](Server::run), too.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.serving.shared.site.draining().clone(), self.serving.shared.clone())
    }

    /// Serves until the server is shut down, and returns when all connections have ended or were cut.
    ///
    /// If a thread is still in a handler one second after its connection was cut, `run` returns without waiting for
    /// it.
    ///
    /// # Errors
    /// If the system cannot wait for connections. A failure to accept one is not an error: the server pauses, logs
    /// it, and continues.
    pub fn run(self) -> io::Result<()> {
        let Server { listener, mut others, threads, serving, .. } = self;
        others.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        let outcome = match threads {
            ThreadModel::Accepting => accept::one_at_a_time(&serving, listener),
            ThreadModel::Threads(most) => {
                let most = most.min(serving.most_threads());
                others.insert(0, listener);
                accept::threaded(&serving, others, most)
            }
        };
        // Scripts that have outlived their exchanges do not outlive the server.
        serving.shared.site.scripts().end();
        outcome
    }

    /// Serves in the background, on threads of its own. What is returned has the address, and stops the server when it is
    /// dropped.
    ///
    /// ```
    /// use sanserve_std::{Server, Site};
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

    /// Serves in the background, and returns the requests: a loop over them replaces the handler. Each request is an
    /// [owned value](IncomingRequest), which any thread may answer, in any order.
    ///
    /// ```
    /// use sanserve_std::{Server, Site, StatusCode};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let requests = Server::bind("127.0.0.1:0", Site::without_files())?.requests()?;
    /// println!("listening on {}", requests.local_addr());
    /// # requests.handle().shutdown(); // or it would run for ever
    /// for request in &requests {
    ///     std::thread::spawn(move || {
    ///         // A client that has gone is no reason to stop.
    ///         let _ = request.answer(StatusCode::OK, "text/plain", "hello\n");
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the thread that accepts cannot be started.
    pub fn requests(self) -> io::Result<Requests> {
        let queue = Arc::new(Queue::default());
        let (pulled, ended) = (Arc::clone(&queue), EndQueue(Arc::clone(&queue)));
        let server = self.with_handler(move || Pulled(Arc::clone(&pulled)));
        let running = Running::start(server.addresses.clone(), server.handle(), move || {
            let _ended = ended;
            server.run()
        })?;
        Ok(Requests::new(queue, running))
    }

    /// Serves until `answer` returns a value, at most for `timeout`, then shuts the server down gracefully: a program
    /// that waits for one request, such as the redirect at the end of an OAuth login. All other requests need a response
    /// too, for instance a 404, and `None`. `answer` is called for one request at a time; a connection without a request
    /// delays no other.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use sanserve_std::{Server, Site, StatusCode};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
    /// println!("redirect_uri=http://{}/callback", server.local_addr());
    /// let code = server.wait_for_request(Duration::from_secs(300), |x| {
    ///     let code = x.request().query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
    ///     match &code {
    ///         Some(_) => x.answer(StatusCode::OK, "text/plain", "You may close this window.\n")?,
    ///         None => x.error(StatusCode::NOT_FOUND, None, None)?,
    ///     }
    ///     Ok(code)
    /// })?;
    /// # drop(code);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if no value was returned in time, and those of [`run`](Server::run). An error of
    /// `answer` concerns its request only: the client gets a 500, and it is logged.
    pub fn wait_for_request<T, F>(self, timeout: Duration, answer: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Exchange<'_>) -> io::Result<Option<T>> + Send + 'static,
    {
        let (sender, found) = mpsc::channel();
        let answer = Arc::new(Mutex::new(answer));
        let server = self.with_handler(move || {
            let (answer, sender) = (Arc::clone(&answer), sender.clone());
            move |x: &mut Exchange<'_>| {
                let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(value) = answer(x)? {
                    // Only the first value is wanted.
                    let _ = sender.send(value);
                }
                io::Result::Ok(())
            }
        });
        let running = server.spawn()?;
        match found.recv_timeout(timeout) {
            Ok(value) => running.shutdown().map(|()| value),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                drop(running);
                Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                running.join()?;
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server was shut down"))
            }
        }
    }

    /// Serves a connection that this process has already, to its end, on this thread: a
    /// [`TcpStream`](std::net::TcpStream), or one end of a [`UnixStream::pair`](std::os::unix::net::UnixStream::pair).
    /// A server that does nothing else can be made with a [channel](Listener::channel), which also passes streams to a
    /// server that runs.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// use sanserve_std::{Exchange, Listener, Server, Site, StatusCode};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = Server::from_listener(Listener::channel()?.1, Site::without_files())?;
    /// let hello = |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "hello\n");
    /// let server = server.with_handler(move || hello);
    ///
    /// let (mut client, stream) = UnixStream::pair()?;
    /// client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    /// server.serve_stream(stream)?;
    /// let mut response = String::new();
    /// client.read_to_string(&mut response)?;
    /// assert!(response.ends_with("hello\n"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the socket cannot become non-blocking, or the server is [stopped](Handle::stop).
    pub fn serve_stream(&self, stream: impl Into<Stream>) -> io::Result<()> {
        accept::given(&self.serving, stream.into())
    }

    /// Accepts one connection and serves it to its end, on this thread (Python's `handle_request`). Returns `false`
    /// if none arrived in time, or the server was shut down.
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

/// Ends the loop over requests with the server, however it ends.
struct EndQueue(Arc<Queue>);

impl Drop for EndQueue {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

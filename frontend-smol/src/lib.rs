//! sanserve on smol: one task per connection, on one or several executor threads.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use sanserve_smol::{Server, Site};
//!
//! let server = Server::bind("127.0.0.1:8000", Site::new(".")?)?;
//! let handle = server.handle(); // `handle.shutdown()` shuts the server down
//! # drop(handle);
//! server.run()
//! # }
//! ```
//!
//! [`Server::run`] has its own executor; [`Server::serve`] uses yours. What is served, and by which rules, is decided
//! by the [`Site`] and `sanserve-core`; this crate only waits.
//!
//! **Requests that are not for files** go to a [`Handler`] ([`Server::with_handler`]): asynchronous code in the task
//! of the connection. Portable handlers of the site, which are the same on every runtime, work too.
//!
//! **Files are opened and sent on the thread that polls the task** if they are in memory: a thread pool would cost each
//! request more than it saves. Otherwise a thread of a small pool waits for the disk
//! ([`Site::with_io_threads`]), and the task for its result, so that a slow disk does not hold up other connections.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod driver;
mod exchange;
mod handler;
mod handler_task;
mod head;
mod lane;
mod pool;
mod runner;
mod script;
mod socket;
mod spawn;
mod turn_cache;
mod upgrade;
mod wake_flag;
mod watch;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use async_io::{Async, Timer, block_on};
use sanserve_os::Clock;
use sanserve_server::{Shared as Files, probe_resources};
use smol::future::FutureExt as _;
use smol::{Executor, channel};

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
/// TLS, for [`Site::with_tls`].
#[cfg(feature = "tls-no-provider")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
pub use sanserve_server::tls;
use sanserve_server::{Announce as _, Phase, first_ip};
pub use sanserve_server::{Draining, Handle, ListenAddr, Listener, Log, Running, Site, Stream, StreamSender};
/// The version of `smol` whose traits, timers and executors this crate works with.
pub use smol;
#[cfg(feature = "cgi")]
pub use {sanserve_core::Cgi, sanserve_server::ScriptRules};

pub use crate::exchange::Exchange;
pub use crate::handler::{Answer, AnswerWith, BoxedAnswer, Handler, handler_fn};
pub use crate::head::HeadWriter;
pub use crate::spawn::Spawn;
pub use crate::upgrade::Upgraded;

use crate::driver::{Make, Shared};
use crate::handler::WithState;
use crate::lane::Lane;
use crate::pool::Pool;
use crate::watch::Watch;

/// The default limit of threads; more have not been seen to help.
const MAX_THREADS: usize = 4;

/// Descriptors that the reactor of `async-io` needs: epoll, an event, a timer, and one to spare.
const REACTOR: usize = 4;
/// Threads in addition to those of the executor: that of `async-io`, and one for blocking work.
const LEAST_THREADS: usize = 2;

/// A server that is bound, but not serving yet.
///
/// ```
/// use sanserve_smol::{Exchange, Server, Site, StatusCode};
///
/// async fn hello(x: &mut Exchange<'_>) -> std::io::Result<()> {
///     x.answer(StatusCode::OK, "text/plain", "Hello!\n")
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?.with_handler(|| hello);
/// # server.handle().shutdown(); // or it would run for ever
/// server.run()
/// # }
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    site: Site,
    make: Option<Make>,
    threads: usize,
    watch: Arc<Watch>,
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
        let mut listeners = sanserve_os::bind_all(&sanserve_os::addresses_of(address)?)?;
        let mut server = Server::from_listener(listeners.remove(0), site)?;
        server.listeners.extend(listeners.into_iter().map(Listener::from));
        Ok(server)
    }

    /// Serves the connections that `listener` accepts.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn from_listener(listener: impl Into<Listener>, site: Site) -> io::Result<Server> {
        let listener = listener.into();
        listener.set_nodelay();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let site = site.bound_to(listener.address().to_ip());
        Ok(Server { listeners: vec![listener], site, make: None, threads, watch: Arc::default() })
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
    /// site and its limits.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<Listener>) -> Server {
        let listener = listener.into();
        listener.set_nodelay();
        self.listeners.push(listener);
        self
    }

    /// The bound address; if there are several, the first.
    ///
    /// # Panics
    /// If the server listens on no IP address, only on Unix sockets. See [`addresses`](Self::addresses).
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        first_ip(&self.addresses())
    }

    /// The addresses of all listeners.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Runs on `n` executor threads, at least 1. Default: the available parallelism, at most 4. Has no effect on
    /// [`serve`](Server::serve).
    #[must_use]
    pub fn workers(self, n: usize) -> Server {
        Server { threads: n.max(1), ..self }
    }

    /// Gives each connection a [`Handler`] of its own, made by `make` at the first request (Python's `setup`) and
    /// dropped when the connection ends (`finish`). All requests are routed to it, unless the policy's `route`
    /// decides otherwise. It takes precedence over a handler of the site.
    #[must_use]
    pub fn with_handler<H, F>(mut self, make: F) -> Server
    where
        H: Handler + 'static,
        F: Fn() -> H + Send + Sync + 'static,
    {
        self.site = self.site.handled();
        Server { make: Some(Box::new(move || Box::new(make()))), ..self }
    }

    /// Has one function respond to all requests: an `async fn`, or an `async` closure. Each connection gets a clone of
    /// it. A closure that needs a state gets it by [`with_state`](Self::with_state).
    ///
    /// ```
    /// use sanserve_smol::{Exchange, Server, Site, StatusCode};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
    /// let server = server.with_fn(async |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "Hi!\n"));
    /// # drop(server);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_fn<F>(self, answer: F) -> Server
    where
        F: for<'x> Answer<'x> + Clone + Send + Sync + 'static,
    {
        self.with_handler(move || answer.clone())
    }

    /// Like [`with_fn`](Self::with_fn), for a function with a state. Each call gets a clone of `state`, so it is an
    /// `Arc`, or cheap to clone like one.
    ///
    /// The state is an argument, because the future of an `async` closure may not borrow what the closure has captured.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use sanserve_smol::{Exchange, Server, Site, StatusCode};
    ///
    /// async fn count(x: &mut Exchange<'_>, requests: Arc<AtomicU64>) -> std::io::Result<()> {
    ///     let number = requests.fetch_add(1, Ordering::Relaxed);
    ///     x.answer(StatusCode::OK, "text/plain", format!("{number}\n"))
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
    /// let server = server.with_state(Arc::new(AtomicU64::new(0)), count);
    /// # drop(server);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_state<S, F>(self, state: S, answer: F) -> Server
    where
        S: Clone + Send + Sync + 'static,
        F: for<'x> AnswerWith<'x, S> + Clone + Send + Sync + 'static,
    {
        self.with_handler(move || WithState { answer: answer.clone(), state: state.clone() })
    }

    /// A handle to shut the server down, from any thread, before or while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.site.draining().clone(), self.watch.clone())
    }

    /// Serves on an executor of its own until the server is shut down and every connection has ended. Blocks.
    ///
    /// # Errors
    /// If the listener cannot be registered, or a thread cannot be started. Once the server serves, no error ends it.
    pub fn run(self) -> io::Result<()> {
        // `async-io` panics if it cannot start its thread or has no descriptors, so their availability is checked
        // first.
        probe_resources(self.threads.saturating_add(LEAST_THREADS), REACTOR)?;
        let executor = Arc::new(Executor::new());
        let helpers = self.threads - 1;
        let log = self.site.log().clone();
        // A task, so that it is polled when it is woken, and not with each event.
        let serving = executor.spawn({
            let executor = Arc::clone(&executor);
            async move { self.serve(&executor).await }
        });
        // Held until serving is over: the helpers run until it is dropped.
        let (running, over) = channel::bounded::<()>(1);
        thread::scope(|scope| {
            let running = running;
            for n in 0..helpers {
                let (executor, over, log) = (&*executor, over.clone(), &log);
                let help = move || persist(log, || block_on(runner::run(executor, over.recv())));
                thread::Builder::new().name(format!("sanserve-smol-{}", n + 1)).spawn_scoped(scope, help)?;
            }
            let mut serving = serving;
            let outcome = persist(&log, || block_on(runner::run(&executor, &mut serving)));
            drop(running);
            outcome
        })
    }

    /// Serves in the background, on threads of its own. What is returned has the address, and stops the server when it is
    /// dropped.
    ///
    /// ```
    /// use sanserve_smol::{Server, Site};
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
        Running::start(self.addresses(), self.handle(), move || self.run())
    }

    /// Serves on `executor` until the server is shut down and every connection has ended: an
    /// [`Executor`], a [`LocalExecutor`](smol::LocalExecutor), or what else implements [`Spawn`]. Each
    /// connection is a task of its own there. The caller drives the executor. Dropping the future is the same as
    /// [`Handle::stop`].
    ///
    /// # Errors
    /// If the listener cannot be registered. Once the server serves, no error ends it.
    pub async fn serve(self, executor: &impl Spawn) -> io::Result<()> {
        let _stop = StopOnDrop(self.handle());
        // With a foreign executor, the resources may not have been checked yet.
        probe_resources(LEAST_THREADS, REACTOR)?;
        let listeners = self.listeners.into_iter().map(Async::new).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            watch: Arc::clone(&self.watch),
            files: Files::new(Arc::clone(self.site.root()), self.site.cache().clone()),
            pool: Pool::default(),
            slow: Arc::new(Lane::new(self.threads)),
            bulk: Arc::new(Lane::new(self.threads)),
            clock: Clock::start(),
            site: Arc::new(self.site),
            make: self.make,
        });
        let serving = async {
            let accept = |listener| Box::pin(accept::accept_all(&shared, listener, executor));
            join_all(listeners.into_iter().map(accept).collect()).await;
            drain(&shared).await;
        };
        serving.or(self.watch.keep(shared.clock)).await;
        // Scripts that have outlived their exchanges do not outlive the server.
        shared.site.scripts().end();
        Ok(())
    }
}

/// Waits for all of these. Each is polled whenever one of them is woken: there are few.
async fn join_all<F: Future<Output = ()> + Unpin>(mut all: Vec<F>) {
    poll_fn(|cx| {
        all.retain_mut(|each| Pin::new(each).poll(cx).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses())
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Waits until every connection has ended, and cuts those that are left after the grace.
async fn drain(shared: &Shared) {
    let Shared { watch, site, .. } = shared;
    let in_time = async {
        watch.until(|| watch.connections() == 0 || site.draining().phase() == Phase::Cut).await;
        true
    };
    let too_late = async {
        Timer::after(site.grace()).await;
        false
    };
    if !in_time.or(too_late).await {
        site.cut(watch.connections());
        watch.announce(Phase::Cut);
    }
    watch.until(|| watch.connections() == 0).await;
}

/// Runs an executor. Tasks catch their own panics; a panic in a waker, or in the drop of a future, ends up here.
fn persist<T>(log: &sanserve_server::Log, mut run: impl FnMut() -> T) -> T {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut run)) {
            Ok(outcome) => return outcome,
            Err(_) => log.error("a task panicked on its executor"),
        }
    }
}

struct StopOnDrop(Handle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The program in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

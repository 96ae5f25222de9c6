//! The configuration that all connections of a server share, on every frontend.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use sanserve_core::{
    Buffers, Call, Config, Connection, Context, DefaultPolicy, Handler, HandlerError, Now, Peer, Policy, Received,
    Reply, Rules, StatusCode,
};
#[cfg(feature = "recording")]
use sanserve_transcript::Secrets;

use crate::cache::CacheLimits;
use crate::failure::panic_message;
use crate::io_pool::{DEFAULT_IO_THREADS, DiskGate, IoPool};
use crate::lifecycle::{Draining, Phase};
use crate::log::Log;
use crate::memory::{Budget, connections_within_memory, default_memory};
#[cfg(feature = "recording")]
use crate::observed::Observation;
#[cfg(feature = "recording")]
use crate::record::Recording;
#[cfg(feature = "cgi")]
use crate::script::ScriptRules;
use crate::script::Scripts;
#[cfg(feature = "recording")]
use crate::trace::Trace;
use crate::upgraded::Upgraded;
use sanserve_os::Root;
use sanserve_os::nofile_limit;

/// Makes the handler of a connection. It is called once for each connection.
pub type HandlerFactory = Arc<dyn Fn() -> Box<dyn Handler + Send> + Send + Sync>;

/// A policy that can be shared between threads.
pub type SharedPolicy = Arc<dyn Policy + Send + Sync>;

/// Takes over the sockets of connections that switch to another protocol.
pub type UpgradeHook = Arc<dyn Fn(Upgraded) + Send + Sync>;

/// Decides whether a peer is served.
pub type VerifyHook = Arc<dyn Fn(Peer) -> bool + Send + Sync>;

/// Calls the function of [`Site::with_answer`].
fn call_answer<E: Into<HandlerError>>(
    answer: impl Fn(&mut Reply<'_>) -> Result<(), E>,
    reply: &mut Reply<'_>,
) -> Result<(), HandlerError> {
    answer(reply).map_err(Into::into)?;
    let is_open = reply.is_answering() || (reply.is_unanswered() && !reply.is_declined());
    if is_open { Err("it left its response unfinished".into()) } else { Ok(()) }
}

/// Appends what has arrived of a body of at most `limit` bytes. Returns whether it is complete.
fn collect(reply: &mut Reply<'_>, limit: usize, body: &mut Vec<u8>) -> Result<bool, HandlerError> {
    if !reply.is_unanswered() {
        return Ok(false);
    }
    // A client that expects `100 Continue` does not send a body that is too long.
    if reply.request().content_length().is_some_and(|length| length > limit as u64) {
        return Err(StatusCode::CONTENT_TOO_LARGE.into());
    }
    loop {
        match reply.receive() {
            Received::Data(data) if data.len() > limit - body.len() => return Err(StatusCode::CONTENT_TOO_LARGE.into()),
            Received::Data(data) => {
                let n = data.len();
                body.extend_from_slice(data);
                reply.consume(n);
            }
            Received::Pending | Received::Broken => return Ok(false),
            Received::End => return Ok(true),
        }
    }
}

/// A server without its sockets: what is served, by which rules, and where the log goes.
///
/// Begin with [`Site::new`] or [`Site::beneath`], and call the methods for everything that should differ from the
/// defaults. The order of the calls does not matter.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use sanserve_os::{Root, Symlinks};
/// use sanserve_server::{Log, Site};
///
/// let root = Root::open(".".as_ref(), Symlinks::Inside)?;
/// let site = Site::beneath(root).with_log(Log::quiet()).with_grace(Duration::from_secs(5));
/// # assert!(site.connection_bound() > 0);
/// # Ok(())
/// # }
/// ```
pub struct Site {
    /// Limits, timeouts and protocol version of every connection.
    config: Config,
    /// The decisions that an embedder may override. Default [`DefaultPolicy`].
    policy: SharedPolicy,
    /// The root directory of all served files.
    root: Arc<Root>,
    /// Runs and supervises scripts, which are beneath the same root. `config.cgi` decides which paths are scripts; by
    /// default none are.
    scripts: Arc<Scripts>,
    /// The log. Default stderr.
    log: Log,
    /// Makes the handler of each connection. Without it, no request is routed to a handler.
    handler: Option<HandlerFactory>,
    /// Takes over the sockets of connections that switch to another protocol. Without it, they are closed.
    upgrade: Option<UpgradeHook>,
    /// Secures all connections. Without it, none are.
    #[cfg(feature = "tls-no-provider")]
    tls: Option<sanserve_tls::Config>,
    /// Decides which peers are served, before anything is read (`verify_request` in Python). Default: all.
    verify: Option<VerifyHook>,
    /// Limits of each small-file cache. There is one per event-loop thread, or one that threads share.
    cache: CacheLimits,
    /// The limit of open connections. If it is reached, the connection that has been idle for longest is closed to
    /// make room. If each connection has an exchange in progress, none is accepted until one has closed. Default
    /// 16,384. See [`Site::connection_bound`] for the limit that the resources of the system permit.
    connections: usize,
    /// The memory that all connections may hold together, in bytes, beyond the small amount that each has in any
    /// case: heads longer than 4 KiB, the entries of listings, buffered output. Beyond it, a request is refused with
    /// 503, or its response is sent in smaller pieces, and a line is logged. Default:
    /// [`default_memory`](crate::default_memory).
    memory: u64,
    /// The number of connections that the available memory permits.
    of_memory: usize,
    /// The budget for that memory, once the server is bound.
    budget: Option<Arc<Budget>>,
    /// The threads that wait for disks.
    io: IoPool,
    /// The same for all clones of this site, made when the first of them is bound.
    common_budget: Arc<OnceLock<Arc<Budget>>>,
    /// Reports when the server shuts down. Each server has one of its own.
    draining: Draining,
    /// How long exchanges in progress may take when the server shuts down. Default 30 s.
    grace: Duration,
    /// What records connections and prints their events. Default: nothing.
    #[cfg(feature = "recording")]
    observation: Observation,
}

impl Site {
    /// Serves the files beneath `directory` with all defaults, following symbolic links.
    ///
    /// # Errors
    /// If `directory` is not a directory, or cannot be read.
    #[cfg(feature = "files")]
    pub fn new(directory: impl AsRef<std::path::Path>) -> std::io::Result<Site> {
        Ok(Site::beneath(Root::open(directory.as_ref(), sanserve_os::Symlinks::Follow)?))
    }

    /// Serves the files beneath `root` with all defaults.
    #[cfg(feature = "files")]
    #[must_use]
    pub fn beneath(root: Root) -> Site {
        Site::over(root)
    }

    fn over(root: Root) -> Site {
        let root = Arc::new(root);
        Site {
            config: Config::default(),
            policy: Arc::new(DefaultPolicy),
            scripts: Arc::new(Scripts::beneath(Arc::clone(&root))),
            root,
            log: Log::stderr(),
            handler: None,
            upgrade: None,
            #[cfg(feature = "tls-no-provider")]
            tls: None,
            verify: None,
            cache: CacheLimits::default(),
            connections: 16_384,
            memory: default_memory(),
            of_memory: connections_within_memory(),
            budget: None,
            io: IoPool::new(DEFAULT_IO_THREADS),
            common_budget: Arc::default(),
            draining: Draining::default(),
            grace: Duration::from_secs(30),
            #[cfg(feature = "recording")]
            observation: Observation::default(),
        }
    }

    /// Serves no files. This is for a handler that responds to everything; requests that it passes on get a 404.
    #[must_use]
    pub fn without_files() -> Site {
        Site::over(Root::nothing())
    }

    /// Sets the limits, timeouts and protocol version.
    #[must_use]
    pub fn with_config(self, config: Config) -> Site {
        let handled = config.handled || self.handler.is_some();
        let rules = config.rules.clone().or(self.config.rules);
        let mut config = config.with_handled(handled);
        config.rules = rules;
        Site { config, ..self }
    }

    /// Sets the rules of the site: fields of its responses, redirects, and what is served for a path that names no file.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use sanserve_core::{Cache, Rules, StatusCode};
    /// use sanserve_server::Site;
    ///
    /// let rules = Rules::new()
    ///     .with_header("X-Frame-Options", "DENY")?
    ///     .with_cache_for("/assets/*", Cache::Immutable)?
    ///     .with_spa("index.html")?
    ///     .with_error_page(StatusCode::NOT_FOUND, "404.html")?;
    /// let site = Site::new(".")?.with_rules(rules);
    /// # assert!(site.config().rules.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Site {
        Site { config: self.config.with_rules(rules), ..self }
    }

    /// Sets the policy.
    #[must_use]
    pub fn with_policy(self, policy: impl Policy + Send + Sync + 'static) -> Site {
        Site { policy: Arc::new(policy), ..self }
    }

    /// Gives each connection a handler of its own. It is made by `make` at the first request, and dropped when the
    /// connection ends (so it replaces Python's `setup` and `finish`). All requests are routed to it, unless the
    /// `route` of the policy decides otherwise.
    #[must_use]
    pub fn with_handler<H, F>(mut self, make: F) -> Site
    where
        H: Handler + Send + 'static,
        F: Fn() -> H + Send + Sync + 'static,
    {
        self.config.handled = true;
        Site { handler: Some(Arc::new(move || Box::new(make()))), ..self }
    }

    /// A simple handler: `answer` is called for each request, and gives the complete response. The error is anything
    /// that becomes a [`HandlerError`]: a [`Misuse`](sanserve_core::Misuse), a [`StatusCode`](sanserve_core::StatusCode),
    /// an `io::Error`, or the `HandlerError` itself, which a function with several kinds of errors returns. The peer gets
    /// the status of the error, and a 500 if the response is left unfinished.
    ///
    /// ```
    /// use sanserve_core::{HandlerError, Reply, StatusCode};
    /// use sanserve_server::Site;
    ///
    /// fn api(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    ///     if reply.request().field("Content-Type") != Some(b"application/json") {
    ///         return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into());
    ///     }
    ///     Ok(reply.answer(StatusCode::OK, "application/json", "{}")?)
    /// }
    ///
    /// let site = Site::without_files().with_answer(api);
    /// # assert!(site.has_handler());
    /// ```
    #[must_use]
    pub fn with_answer<F, E>(self, answer: F) -> Site
    where
        F: Fn(&mut Reply<'_>) -> Result<(), E> + Send + Sync + 'static,
        E: Into<HandlerError> + 'static,
    {
        let answer = Arc::new(answer);
        self.with_handler(move || {
            let answer = Arc::clone(&answer);
            move |call: Call, reply: &mut Reply<'_>| {
                if call == Call::Request { call_answer(&*answer, reply) } else { Ok(()) }
            }
        })
    }

    /// A handler that sends embedded assets ([`Reply::send_asset`]). What is none of them is left to the files of the
    /// site, or is 404 without files.
    ///
    /// ```
    /// use sanserve_core::{Asset, Assets};
    /// use sanserve_server::Site;
    ///
    /// let assets = Assets::new([Asset::new("index.html", "<h1>Hello</h1>".as_bytes())]);
    /// let site = Site::without_files().with_assets(&assets);
    /// # assert!(site.has_handler());
    /// ```
    #[cfg(feature = "files")]
    #[must_use]
    pub fn with_assets(self, assets: &sanserve_core::Assets) -> Site {
        let assets = assets.clone();
        self.with_answer(move |reply| if reply.send_asset(&assets)? { Ok(()) } else { reply.decline() })
    }

    /// Like [`with_answer`](Self::with_answer), for requests with a small body: `answer` is called when the body is
    /// complete, and gets it. The response to a longer one is 413. Each connection holds at most `limit` bytes of a body,
    /// until its exchange has ended.
    ///
    /// ```
    /// use sanserve_core::{HandlerError, Reply, StatusCode};
    /// use sanserve_server::Site;
    ///
    /// fn shout(reply: &mut Reply<'_>, body: &[u8]) -> Result<(), HandlerError> {
    ///     let text = std::str::from_utf8(body).map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
    ///     Ok(reply.answer(StatusCode::OK, "text/plain", text.to_uppercase())?)
    /// }
    ///
    /// let site = Site::without_files().with_body_answer(65_536, shout);
    /// # assert!(site.has_handler());
    /// ```
    #[must_use]
    pub fn with_body_answer<F, E>(self, limit: usize, answer: F) -> Site
    where
        F: Fn(&mut Reply<'_>, &[u8]) -> Result<(), E> + Send + Sync + 'static,
        E: Into<HandlerError> + 'static,
    {
        let answer = Arc::new(answer);
        self.with_handler(move || {
            let (answer, mut body) = (Arc::clone(&answer), Vec::new());
            move |call: Call, reply: &mut Reply<'_>| match call {
                Call::Request | Call::Body => match collect(reply, limit, &mut body)? {
                    true => call_answer(|reply: &mut Reply<'_>| answer(reply, &body), reply),
                    false => Ok(()),
                },
                Call::Over => {
                    body = Vec::new();
                    Ok(())
                }
                Call::Room | Call::Wake | Call::Drain => Ok(()),
            }
        })
    }

    /// Passes the sockets of connections that switch to another protocol to `take` ([`Reply::upgrade`]). `take` may
    /// block: it is called on a thread of its own.
    #[must_use]
    pub fn with_upgrade(self, take: impl Fn(Upgraded) + Send + Sync + 'static) -> Site {
        Site { upgrade: Some(Arc::new(take)), ..self }
    }

    /// Serves only peers for which `verify` returns `true` (`verify_request` in Python). Other connections are closed
    /// immediately. `verify` is called by the thread that accepts, so it must not block.
    #[must_use]
    pub fn with_verify(self, verify: impl Fn(Peer) -> bool + Send + Sync + 'static) -> Site {
        Site { verify: Some(Arc::new(verify)), ..self }
    }

    /// Calls the verify hook: whether to serve this peer.
    #[must_use]
    pub fn welcomes(&self, peer: Peer) -> bool {
        self.verify.as_ref().is_none_or(|verify| verify(peer))
    }

    /// Speaks TLS on every connection: HTTPS. [`Request::secured`](sanserve_core::Request::secured) tells handlers what
    /// was agreed on. A client that speaks plain HTTP is redirected, and gets nothing else. Default: plain HTTP.
    ///
    /// The certificates can be replaced while the server runs
    /// ([`Identities::replace`](sanserve_tls::identity::Identities::replace)).
    #[cfg(feature = "tls-no-provider")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
    #[must_use]
    pub fn with_tls(self, tls: sanserve_tls::Config) -> Site {
        Site { tls: Some(tls), ..self }
    }

    /// What secures the connections; `None`: they are not secured.
    #[cfg(feature = "tls-no-provider")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
    #[must_use]
    pub fn tls(&self) -> Option<&sanserve_tls::Config> {
        self.tls.as_ref()
    }

    /// Sets the rules for scripts.
    #[cfg(feature = "cgi")]
    #[must_use]
    pub fn with_scripts(self, rules: ScriptRules) -> Site {
        let scripts = Arc::new(Scripts::new(rules, Arc::clone(&self.root)));
        Site { scripts, ..self }
    }

    /// Sets the log.
    #[must_use]
    pub fn with_log(self, log: Log) -> Site {
        Site { log, common_budget: Arc::default(), ..self }
    }

    /// Sets the limits of the cache.
    #[cfg(feature = "files")]
    #[must_use]
    pub fn with_cache(self, cache: CacheLimits) -> Site {
        Site { cache, ..self }
    }

    /// Sets the limit of open connections.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Site {
        Site { connections, ..self }
    }

    /// Sets the limit of the memory that all connections hold together, in bytes.
    #[must_use]
    pub fn with_memory(self, memory: u64) -> Site {
        Site { memory, common_budget: Arc::default(), ..self }
    }

    /// Sets the limit on the threads that wait for disks on mio and smol, where a connection that needs a file which is
    /// not in memory must not hold up the others. They are started when they are needed and end when they are idle.
    /// A file system that does not answer occupies at most half of them. With 0, event loops wait for disks themselves;
    /// std always does, since each connection has its own thread. Default: 32.
    #[must_use]
    pub fn with_io_threads(self, threads: usize) -> Site {
        Site { io: IoPool::new(threads), ..self }
    }

    /// Puts a gate before the disk, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_disk_gate(self, gate: Arc<dyn DiskGate>) -> Site {
        Site { io: self.io.with_gate(gate), ..self }
    }

    /// The threads that wait for disks. `None`: there are none, and disks are waited for where they are needed.
    #[must_use]
    pub fn io_pool(&self) -> Option<&IoPool> {
        (self.io.threads() > 0).then_some(&self.io)
    }

    /// Limits, timeouts and protocol version of every connection.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The decisions that an embedder may override.
    #[must_use]
    pub fn policy(&self) -> &(dyn Policy + Send + Sync) {
        &*self.policy
    }

    /// The root directory of all served files.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Runs and supervises scripts.
    #[must_use]
    pub fn scripts(&self) -> &Arc<Scripts> {
        &self.scripts
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Limits of each cache of small files.
    #[must_use]
    pub fn cache(&self) -> &CacheLimits {
        &self.cache
    }

    /// How long exchanges in progress may take when the server shuts down.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Reports when the server shuts down, for code that waits on its own.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// The recording, if connections are recorded.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn recording(&self) -> Option<&Recording> {
        self.observation.recording.as_ref()
    }

    /// Whether the site has a [handler](Self::with_handler).
    #[must_use]
    pub fn has_handler(&self) -> bool {
        self.handler.is_some()
    }

    pub(crate) fn handler_factory(&self) -> Option<&HandlerFactory> {
        self.handler.as_ref()
    }

    /// Whether there is a [hook](Self::with_upgrade) for connections that switch to another protocol.
    #[must_use]
    pub fn takes_upgrades(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Passes a socket to the [hook](Self::with_upgrade), on this thread. Without a hook, the socket is closed. For
    /// frontends.
    pub fn upgrade(&self, upgraded: Upgraded) {
        if let Some(take) = &self.upgrade {
            take(upgraded);
        }
    }

    /// Routes requests to a handler of the frontend, as [`with_handler`](Self::with_handler) does to one of the site.
    /// For frontends.
    #[must_use]
    pub fn handled(mut self) -> Site {
        self.config.handled = true;
        self
    }

    /// Buffers for a connection of this server, which count against its memory limit. For frontends, with a site that
    /// is [bound](Self::bound_to).
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        match &self.budget {
            Some(budget) => Buffers::within(Arc::<Budget>::clone(budget)),
            None => Buffers::new(),
        }
    }

    /// Sets how long exchanges in progress may take when the server shuts down.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Site {
        Site { grace, ..self }
    }

    /// Records connections. The responses of a portable handler depend only on its calls, so they can be replayed
    /// with the handler. Recorded responses of a blocking or `async` handler can be read, but not replayed.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn with_recording(mut self, recording: Recording) -> Site {
        self.observation.recording = Some(recording);
        self
    }

    /// Prints the events of connections.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn with_trace(mut self, trace: Trace) -> Site {
        self.observation.trace = Some(trace);
        self
    }

    /// Sets how credentials in recordings and traces are treated. Default: they are masked.
    #[cfg(feature = "recording")]
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Site {
        self.observation.secrets = secrets;
        self
    }

    /// Whether connections are recorded, or their events printed.
    #[must_use]
    pub fn observes(&self) -> bool {
        #[cfg(feature = "recording")]
        return self.observation.is_on();
        #[cfg(not(feature = "recording"))]
        false
    }

    /// Begins to record a connection and to print its events, if configured. A frontend named `runtime` calls this
    /// before it polls the connection for the first time.
    pub fn observe(&self, connection: &mut Connection, cx: &Context<'_>, runtime: &str) {
        #[cfg(feature = "recording")]
        if self.observation.is_on() {
            self.observation.begin(connection, cx, runtime);
        }
        #[cfg(not(feature = "recording"))]
        let _ = (connection, cx, runtime);
    }

    /// Completes the configuration with the address that the server listens on: the port, and, unless a name is
    /// configured, the address as the name of the server. Without an address, as on a Unix socket, the name is
    /// `localhost`, and the port stays as it is configured (default 80, so that no link contains it).
    #[must_use]
    pub fn bound_to(mut self, address: impl Into<Option<SocketAddr>>) -> Site {
        #[cfg(feature = "files")]
        if self.config.etag == sanserve_core::Etag::Content {
            self.root.hash_content();
        }
        let budget = self.common_budget.get_or_init(|| Arc::new(Budget::new(self.memory, self.log.clone())));
        self.io.limit_memory(budget);
        self.budget = Some(Arc::clone(budget));
        self.draining = Draining::default();
        let address = address.into();
        if let Some(address) = address {
            self.config.server_port = address.port();
        }
        if self.config.server_name.is_empty() {
            self.config.server_name = match address.map(|address| address.ip()) {
                Some(IpAddr::V6(ip)) => format!("[{ip}]"),
                Some(IpAddr::V4(ip)) => ip.to_string(),
                None => "localhost".to_owned(),
            };
        }
        self
    }

    /// Cuts every connection, because the grace has passed, and logs how many connections were left.
    pub fn cut(&self, left: usize) {
        if self.draining.enter(Phase::Cut) && left > 0 {
            let (grace, s, are) = (self.grace, if left == 1 { "" } else { "s" }, if left == 1 { "is" } else { "are" });
            self.log.error(format_args!("shutdown: {left} connection{s} not done after {grace:?} {are} cut"));
        }
    }

    /// Passes a connection that has switched to another protocol to the hook of the site, on a thread of its own, so
    /// that the hook may block. Without a hook, the connection is closed. `place` is dropped when the hook returns.
    pub fn hand_over(self: &Arc<Site>, upgraded: Upgraded, place: impl Send + 'static) {
        let site = Arc::clone(self);
        let thread = thread::Builder::new().name("sanserve-upgraded".into()).spawn(move || {
            let _place = place;
            let Some(take) = &site.upgrade else { return };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| take(upgraded))) {
                site.log.error(format_args!("an upgraded connection panicked: {}", panic_message(&*panic)));
            }
        });
        if let Err(error) = thread {
            self.log.error(format_args!("no thread for an upgraded connection: {error}"));
        }
    }

    /// Logs that a connection has ended with a panic outside of a handler.
    pub fn log_panic(&self, peer: Peer, panic: &(dyn Any + Send)) {
        self.log.error(format_args!("{peer:?}: the connection panicked: {}", panic_message(panic)));
    }

    /// The context for polling a connection at the time `now`.
    #[must_use]
    pub fn context<'s>(&'s self, now: &'s Now) -> Context<'s> {
        Context { config: &self.config, policy: &*self.policy, now }
    }

    /// The limit of open connections, reduced to what the descriptors and the memory of the process permit. At least 1.
    /// Call this after
    /// [`raise_nofile_limit`](sanserve_os::raise_nofile_limit).
    ///
    /// A connection takes one descriptor, and a second one while it sends a file that is not cached or lists a directory.
    /// A quarter of the descriptors, at most 1,024, is reserved for those; if all are in use, such a request is answered
    /// with 503. The server itself has another 32, and each script that may run ([`ScriptRules::most`](crate::ScriptRules))
    /// has 8, if there are scripts. A quarter of the memory is for connections, at 8 KiB each.
    #[must_use]
    pub fn connection_bound(&self) -> usize {
        let of_scripts = if self.config.cgi.directories.is_empty() { 0 } else { self.scripts.descriptors() };
        let of_descriptors = connections_within(nofile_limit().saturating_sub(of_scripts));
        self.connections.min(of_descriptors).min(self.of_memory).max(1)
    }
}

/// The most descriptors that are reserved for files and directories: as many connections may have one open in addition to
/// their socket.
const FILES: usize = 1_024;
/// Descriptors that are reserved for the server itself: listeners, event loops, the log.
const OWN: usize = 32;

fn connections_within(descriptors: usize) -> usize {
    descriptors.saturating_sub((descriptors / 4).min(FILES) + OWN)
}

impl Clone for Site {
    /// Another site with the same configuration, for another server. This is cheap. Both share the policy, the
    /// handlers, the log, the recording, the root directory and the [memory limit](Site::with_memory). Each server has
    /// its own limit of connections, cache, scripts and shutdown; to share those too, give one server
    /// [several listeners](sanserve_os::Listener).
    fn clone(&self) -> Site {
        Site {
            config: self.config.clone(),
            policy: Arc::clone(&self.policy),
            root: Arc::clone(&self.root),
            scripts: Arc::new(self.scripts.for_another_server()),
            log: self.log.clone(),
            handler: self.handler.clone(),
            upgrade: self.upgrade.clone(),
            #[cfg(feature = "tls-no-provider")]
            tls: self.tls.clone(),
            verify: self.verify.clone(),
            cache: self.cache.clone(),
            connections: self.connections,
            memory: self.memory,
            of_memory: self.of_memory,
            budget: self.budget.clone(),
            io: self.io.for_another_server(),
            common_budget: Arc::clone(&self.common_budget),
            draining: Draining::default(),
            grace: self.grace,
            #[cfg(feature = "recording")]
            observation: self.observation.clone(),
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("config", &self.config)
            .field("root", &self.root)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_reserves_descriptors_for_files() {
        assert_eq!(connections_within(1024), 736);
        assert_eq!([4_095, 4_096, 4_100].map(connections_within), [3_040, 3_040, 3_044]);
        assert_eq!(connections_within(20_000), 18_944);
        assert_eq!(connections_within(20), 0);
        assert_eq!(connections_within(usize::MAX), usize::MAX - 1_056);
        let site = Site::new(".").unwrap();
        assert_eq!(site.with_connections(0).connection_bound(), 1);
    }

    #[test]
    fn a_site_can_be_shared_between_threads() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Site>();
    }

    #[test]
    fn clones_share_the_memory_limit_and_not_the_shutdown() {
        let site = Site::without_files().with_memory(1 << 20).with_log(Log::quiet());
        let (one, other) = (site.clone().bound_to(None), site.bound_to(SocketAddr::from(([127, 0, 0, 1], 81))));
        let budget = |site: &Site| Arc::clone(site.budget.as_ref().unwrap());
        assert!(Arc::ptr_eq(&budget(&one), &budget(&other)));
        assert!(!Arc::ptr_eq(&budget(&one), &budget(&one.clone().with_memory(1).bound_to(None))));
        assert_eq!((&*one.config.server_name, one.config.server_port), ("localhost", 80));
        assert_eq!((&*other.config.server_name, other.config.server_port), ("127.0.0.1", 81));
        one.draining.begin();
        assert!(!other.draining.has_begun() && !one.clone().draining.has_begun());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Site::new(dir.path().join("nope")).is_err());
    }
}

//! What every connection of a server shares, whatever the frontend.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sanserve_core::{
    Buffers, Call, Config, Connection, Context, DefaultPolicy, Etag, Handler, Misuse, Now, Peer, Policy, Reply,
};
use sanserve_transcript::{Event, Recorder, Secrets, Settings, record};

use crate::cache::CacheLimits;
use crate::lifecycle::{Draining, Phase};
use crate::log::Log;
use crate::memory::{Budget, connections_within_memory, default_memory};
use crate::record::Recording;
use crate::script::{ScriptRules, Scripts};
use crate::session::{Failure, panic_message};
use crate::trace::Trace;
use sanserve_os::nofile_limit;
use sanserve_os::{Root, Symlinks};

/// Makes the handler of a connection, one value each.
pub type HandlerFactory = Box<dyn Fn() -> Box<dyn Handler + Send> + Send + Sync>;

/// A policy that threads share.
pub type SharedPolicy = Box<dyn Policy + Send + Sync>;

/// Takes the sockets of connections that change to another protocol.
pub type UpgradeHook = Box<dyn Fn(Upgraded) + Send + Sync>;

/// Says whether a peer is served.
pub type VerifyHook = Box<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Two recorders of one connection, until neither wants more.
struct Both(Option<Box<dyn Recorder>>, Option<Box<dyn Recorder>>);

impl Recorder for Both {
    fn event(&mut self, event: Event) {
        match (&mut self.0, &mut self.1) {
            (Some(one), Some(other)) => {
                one.event(event.clone());
                other.event(event);
            }
            (Some(one), None) | (None, Some(one)) => one.event(event),
            (None, None) => {}
        }
    }

    fn waits(&mut self) -> bool {
        for each in [&mut self.0, &mut self.1] {
            each.take_if(|recorder| !recorder.waits());
        }
        self.0.is_some() || self.1.is_some()
    }
}

/// A connection that speaks another protocol from here on.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket; it blocks.
    pub stream: TcpStream,
    /// What the peer has sent already: it comes before what `stream` gives.
    pub read: Vec<u8>,
    /// The peer.
    pub peer: SocketAddr,
    /// What the handler has [attached](Reply::attach), if it has.
    pub attached: Option<Box<dyn Any + Send>>,
    /// Tells when the server goes down: it does not wait for this connection.
    pub draining: Draining,
}

/// Calls an answer of [`Site::with_answer`].
fn answer_at_once(answer: impl Fn(&mut Reply<'_>) -> Result<(), Misuse>, reply: &mut Reply<'_>) {
    let outcome = answer(reply);
    let is_open = reply.is_answering() || (reply.is_unanswered() && !reply.is_declined());
    let failure = match outcome {
        Err(misuse) => misuse.to_string(),
        Ok(()) if is_open => "it left its answer open".to_owned(),
        Ok(()) => return,
    };
    reply.attach(Box::new(Failure(failure)));
    reply.abort();
}

/// A server but for its sockets: what is served, by which rules, and where the log goes.
///
/// Begin with [`Site::new`] or [`Site::beneath`] and change what should differ. Whatever the order of the calls, none undoes another.
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
    /// What everything served lies beneath.
    root: Arc<Root>,
    /// Runs scripts and looks after them. They lie beneath the same root. Which paths are scripts is
    /// for `config.cgi` to say; none, by default.
    scripts: Arc<Scripts>,
    /// Where lines go. Default stderr.
    log: Log,
    /// Makes the handler of each connection; without one, no request is routed to a handler.
    handler: Option<HandlerFactory>,
    /// Gets the sockets of connections that change to another protocol. Without it, they are closed.
    upgrade: Option<UpgradeHook>,
    /// Says whom to serve, before anything is read (Python's `verify_request`). Default: everybody.
    verify: Option<VerifyHook>,
    /// Bounds on each small-file cache: one per event-loop thread, or one that threads share.
    cache: CacheLimits,
    /// Connections at once; beyond that, the one that has been idle longest is closed to make room. Where each has an exchange,
    /// none is accepted until one has closed. Default 16,384. See
    /// [`Site::connection_bound`] for what the system leaves of it.
    connections: usize,
    /// What all connections may hold together, in bytes, beyond the little that each has in any case: a longer head
    /// than 4 KiB, the entries of a listing, output ahead of the socket. Beyond it, a request is refused with 503, or
    /// answered in smaller pieces, and a line in the log says so. Default: [`default_memory`](crate::default_memory).
    memory: u64,
    /// The connections for which the memory that there is suffices.
    of_memory: usize,
    /// That memory, once the server is bound.
    budget: Option<Arc<Budget>>,
    /// Tells whoever waits by himself that the server goes down. Each server has one of its own.
    draining: Draining,
    /// How long the exchanges in progress may take when the server goes down. Default 30 s.
    grace: Duration,
    /// Records connections. Default: none is recorded.
    recording: Option<Recording>,
    /// Prints what happens to connections. Default: nothing is printed.
    trace: Option<Trace>,
    /// What becomes of credentials in recordings and traces. Default: they are blanked out.
    secrets: Secrets,
}

impl Site {
    /// Serves the files beneath `directory` with every default, symbolic links followed.
    ///
    /// # Errors
    /// If it is not a directory that can be read.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<Site> {
        Ok(Site::beneath(Root::open(directory.as_ref(), Symlinks::Follow)?))
    }

    /// Serves the files beneath `root` with every default.
    #[must_use]
    pub fn beneath(root: Root) -> Site {
        let root = Arc::new(root);
        Site {
            config: Config::default(),
            policy: Box::new(DefaultPolicy),
            scripts: Arc::new(Scripts::new(ScriptRules::default(), Arc::clone(&root))),
            root,
            log: Log::stderr(),
            handler: None,
            upgrade: None,
            verify: None,
            cache: CacheLimits::default(),
            connections: 16_384,
            memory: default_memory(),
            of_memory: connections_within_memory(),
            budget: None,
            draining: Draining::default(),
            grace: Duration::from_secs(30),
            recording: None,
            trace: None,
            secrets: Secrets::default(),
        }
    }

    /// Serves no files: for a handler that answers everything. What it passes on is 404.
    #[must_use]
    pub fn without_files() -> Site {
        Site::beneath(Root::nothing())
    }

    /// Obeys `config`.
    #[must_use]
    pub fn with_config(self, config: Config) -> Site {
        let handled = config.handled || self.handler.is_some();
        Site { config: Config { handled, ..config }, ..self }
    }

    /// Lets `policy` decide.
    #[must_use]
    pub fn with_policy(self, policy: impl Policy + Send + Sync + 'static) -> Site {
        Site { policy: Box::new(policy), ..self }
    }

    /// Gives each connection a handler of its own, made by `make` with its first request and dropped when
    /// it ends (what Python's `setup` and `finish` are for). Every request goes to it, unless the
    /// site's `route` says otherwise.
    #[must_use]
    pub fn with_handler<H, F>(mut self, make: F) -> Site
    where
        H: Handler + Send + 'static,
        F: Fn() -> H + Send + Sync + 'static,
    {
        self.config.handled = true;
        Site { handler: Some(Box::new(move || Box::new(make()))), ..self }
    }

    /// The simple case of a handler: `answer` is called with each request, and says all that there is to
    /// say at once. If it fails or leaves the answer open, that is logged, and the peer gets a 500.
    #[must_use]
    pub fn with_answer<F>(self, answer: F) -> Site
    where
        F: Fn(&mut Reply<'_>) -> Result<(), Misuse> + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        self.with_handler(move || {
            let answer = Arc::clone(&answer);
            move |call: Call, reply: &mut Reply<'_>| {
                if call == Call::Request {
                    answer_at_once(&*answer, reply);
                }
            }
        })
    }

    /// Gives away the sockets of connections that change to another protocol
    /// ([`Reply::upgrade`]). `take` may block: it is called on a thread that serves nobody else.
    #[must_use]
    pub fn with_upgrade(self, take: impl Fn(Upgraded) + Send + Sync + 'static) -> Site {
        Site { upgrade: Some(Box::new(take)), ..self }
    }

    /// Serves only those for whom `verify` is `true` (Python's `verify_request`); the others' connections
    /// are closed at once. It is called by whoever accepts, so it must not block.
    #[must_use]
    pub fn with_verify(self, verify: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Site {
        Site { verify: Some(Box::new(verify)), ..self }
    }

    /// Whether to serve this peer.
    #[must_use]
    pub fn welcomes(&self, peer: SocketAddr) -> bool {
        self.verify.as_ref().is_none_or(|verify| verify(peer))
    }

    /// Runs scripts by `rules`.
    #[must_use]
    pub fn with_scripts(self, rules: ScriptRules) -> Site {
        let scripts = Arc::new(Scripts::new(rules, Arc::clone(&self.root)));
        Site { scripts, ..self }
    }

    /// Writes to `log`.
    #[must_use]
    pub fn with_log(self, log: Log) -> Site {
        Site { log, ..self }
    }

    /// Bounds the cache.
    #[must_use]
    pub fn with_cache(self, cache: CacheLimits) -> Site {
        Site { cache, ..self }
    }

    /// Bounds the number of connections.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Site {
        Site { connections, ..self }
    }

    /// Bounds what all connections hold together, in bytes.
    #[must_use]
    pub fn with_memory(self, memory: u64) -> Site {
        Site { memory, ..self }
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

    /// What everything served lies beneath.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Runs scripts and looks after them.
    #[must_use]
    pub fn scripts(&self) -> &Arc<Scripts> {
        &self.scripts
    }

    /// Where lines go.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Bounds on each cache of small files.
    #[must_use]
    pub fn cache(&self) -> &CacheLimits {
        &self.cache
    }

    /// How long exchanges in progress may take when the server goes down.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Tells whoever waits by himself that the server goes down.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// What records connections, if they are recorded.
    #[must_use]
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
    }

    /// Whether it has a [handler](Self::with_handler).
    #[must_use]
    pub fn has_handler(&self) -> bool {
        self.handler.is_some()
    }

    pub(crate) fn handler_factory(&self) -> Option<&HandlerFactory> {
        self.handler.as_ref()
    }

    /// Whether somebody takes the sockets of connections that change to another protocol.
    #[must_use]
    pub fn takes_upgrades(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Gives a socket to whoever [takes](Self::with_upgrade) it, on this thread; if there is nobody, it closes. For a
    /// frontend.
    pub fn upgrade(&self, upgraded: Upgraded) {
        if let Some(take) = &self.upgrade {
            take(upgraded);
        }
    }

    /// Routes requests to a handler of the frontend's own, as [`with_handler`](Self::with_handler) does to one of the
    /// site's. For a frontend.
    #[must_use]
    pub fn handled(mut self) -> Site {
        self.config.handled = true;
        self
    }

    /// Buffers for a connection of this server, which share its memory. For a frontend, of a site that is
    /// [bound](Self::bound_to).
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        match &self.budget {
            Some(budget) => Buffers::within(Arc::<Budget>::clone(budget)),
            None => Buffers::new(),
        }
    }

    /// Bounds a shutdown.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Site {
        Site { grace, ..self }
    }

    /// Records connections. What a portable handler answers is a function of what it is told, and can be played
    /// again with it; what one that blocks or is `async` has said can be read, but not played.
    #[must_use]
    pub fn with_recording(self, recording: Recording) -> Site {
        Site { recording: Some(recording), ..self }
    }

    /// Prints what happens to connections.
    #[must_use]
    pub fn with_trace(self, trace: Trace) -> Site {
        Site { trace: Some(trace), ..self }
    }

    /// Says what becomes of credentials in recordings and traces.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Site {
        Site { secrets, ..self }
    }

    /// Whether connections are recorded, or what happens to them is printed.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.recording.is_some() || self.trace.is_some()
    }

    /// Has a connection recorded and its events printed, if that is wanted. To be called by a frontend, whose name
    /// is `runtime`, before it polls the connection for the first time.
    pub fn observe(&self, connection: &mut Connection, cx: &Context<'_>, runtime: &str) {
        if !self.observes() {
            return;
        }
        let peer = connection.peer();
        let recorder = self.recording.as_ref().and_then(|recording| {
            let settings = Settings {
                config: cx.config.clone(),
                peer: SocketAddr::new(peer.ip(), peer.port()),
                masked: self.secrets == Secrets::Masked,
                ..Settings::default().starting(cx.now)
            };
            recording.begin(settings, format!(" Recorded by sanserve {} on {runtime}.", env!("CARGO_PKG_VERSION")))
        });
        let lines = self.trace.as_ref().map(|trace| trace.begin(peer));
        let recorder = match (recorder, lines) {
            (Some(recorder), Some(lines)) => Box::new(Both(Some(recorder), Some(lines))),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        record(connection, recorder, self.secrets, cx);
    }

    /// Tells the configuration where the server listens: the port, and, unless it has a name already,
    /// the address as its name.
    #[must_use]
    pub fn bound_to(mut self, address: SocketAddr) -> Site {
        if self.config.etag == Etag::Content {
            self.root.hash_content();
        }
        self.config.server_port = address.port();
        self.budget = Some(Arc::new(Budget::new(self.memory, self.log.clone())));
        self.draining = Draining::default();
        if self.config.server_name.is_empty() {
            self.config.server_name = match address.ip() {
                IpAddr::V6(ip) => format!("[{ip}]"),
                IpAddr::V4(ip) => ip.to_string(),
            };
        }
        self
    }

    /// Has every connection cut, because the grace is over. The log is told of those that are left.
    pub fn cut(&self, left: usize) {
        if self.draining.enter(Phase::Cut) && left > 0 {
            let (grace, s, are) = (self.grace, if left == 1 { "" } else { "s" }, if left == 1 { "is" } else { "are" });
            self.log.error(format_args!("shutdown: {left} connection{s} not done after {grace:?} {are} cut"));
        }
    }

    /// Gives a connection that speaks another protocol to the site's hook, which may block, on a thread of its own.
    /// Without one, the connection is closed. `place` is dropped when the hook returns.
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

    /// Says in the log that a connection has ended with a panic that no handler's was.
    pub fn log_panic(&self, peer: Peer, panic: &(dyn Any + Send)) {
        self.log.error(format_args!("{peer:?}: the connection panicked: {}", panic_message(panic)));
    }

    /// What a machine is told at the time `now`.
    #[must_use]
    pub fn context<'s>(&'s self, now: &'s Now) -> Context<'s> {
        Context { config: &self.config, policy: &*self.policy, now }
    }

    /// The bound on connections that descriptors and memory suffice for. A part of the descriptors is kept for the
    /// files that connections send, for scripts if there are any, and for the server itself; of the memory, a quarter
    /// is for what each connection has in any case, 8 KiB. At least 1. To be asked after
    /// [`raise_nofile_limit`](sanserve_os::raise_nofile_limit).
    #[must_use]
    pub fn connection_bound(&self) -> usize {
        let of_scripts = if self.config.cgi.directories.is_empty() { 0 } else { self.scripts.descriptors() };
        let of_descriptors = connections_within(nofile_limit().saturating_sub(of_scripts));
        self.connections.min(of_descriptors).min(self.of_memory).max(1)
    }
}

fn connections_within(descriptors: usize) -> usize {
    descriptors.saturating_sub(descriptors / 4 + 32)
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
    fn the_bound_leaves_descriptors_for_files() {
        assert_eq!(connections_within(1024), 736);
        assert_eq!(connections_within(20), 0);
        assert_eq!(connections_within(usize::MAX), usize::MAX - usize::MAX / 4 - 32);
        let site = Site::new(".").unwrap();
        assert_eq!(site.with_connections(0).connection_bound(), 1);
    }

    #[test]
    fn threads_can_share_it() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Site>();
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Site::new(dir.path().join("nope")).is_err());
    }
}

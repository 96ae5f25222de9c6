//! Serving: binds, prints the banner, and serves until a signal ends it.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use sanserve_os as os;
use sanserve_os::{Root, Signal, Signals};
use sanserve_server as server;
use sanserve_server::{Handle, ListenAddr, Listener, Log, Recording, Scripts, Site, Trace};
use sanserve_tls::identity::Identities;
use sanserve_transcript::Secrets;

use super::flags::{Bind, Flags, Invite, Kept, Runtime, Source, Tls};
use super::https::Https;
use super::local_ca::Store;
use super::tls::Reloader;
use super::urls::{Scheme, certify, interfaces, lan_lines, lan_urls, local_url};
use super::{browser, plain, print_error, qr, redirect, visible};

/// How long printing, or writing the last lines of the log, may take.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Descriptors that every server needs, in addition to those of its workers.
const MIN_DESCRIPTORS: usize = 12;
/// Descriptors that each worker needs.
const DESCRIPTORS_PER_WORKER: usize = 4;
/// Threads other than workers: for signals, the log, recordings, the time zone, and blocking calls.
const MIN_THREADS: usize = 6;

/// Why the server could not start, or stopped: a message of one line.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Serves until SIGINT or SIGTERM, then until the exchanges in progress are finished.
pub(crate) fn serve(flags: Flags) -> Result<(), Refusal> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_addresses();
    #[cfg(target_os = "linux")]
    os::leave_process_1().map_err(|error| Refusal(format!("cannot be process 1: {}", plain(&error))))?;
    os::raise_nofile_limit();
    let site = observe(site(&flags)?, &flags)?;
    let log = site.log().clone();
    let recording = site.recording().cloned();
    let mut ending = Ending {
        root: Arc::clone(site.root()),
        scripts: Arc::clone(site.scripts()),
        log: log.clone(),
        recording: recording.clone(),
        delay: flags.drain_delay,
        certificates: None,
        redirect: None,
    };
    let inherited = inherited()?;
    let addresses = Addresses::of(&flags, inherited.is_empty())?;
    let ips: Vec<IpAddr> = addresses.ip.iter().map(SocketAddr::ip).collect();
    let https = match &flags.tls {
        Some(tls) => {
            check_secrets(tls, &flags)?;
            Some(Https::prepare(tls, &ips).map_err(Refusal)?)
        }
        None => None,
    };
    let site = match &https {
        Some(https) => secure(site, https)?,
        None => site,
    };
    let mut invitation = Invitation::of(&flags, https.as_ref());
    // Check for the least that a server needs: some of it would otherwise fail later, where it cannot be handled.
    let workers = match flags.runtime {
        Runtime::Std => 1,
        Runtime::Mio | Runtime::Smol => {
            flags.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from).min(4))
        }
    };
    // On mio, each Unix socket has a worker of its own.
    let workers = workers + inherited.len() + addresses.unix.len();
    let workers = workers + flags.tls.iter().filter_map(|tls| tls.redirect).count();
    // With HTTPS, one thread renews or reloads certificates.
    let threads = workers + MIN_THREADS + usize::from(flags.tls.is_some());
    let descriptors = workers * DESCRIPTORS_PER_WORKER + MIN_DESCRIPTORS;
    server::probe_memory(threads).and_then(|()| server::probe_resources(threads, descriptors)).map_err(|error| {
        Refusal(format!("cannot start {workers} workers: not enough memory, threads or descriptors: {}", plain(&error)))
    })?;
    if let Some(https) = https {
        let started = https.keep_fresh(log.clone());
        ending.certificates = Some(started.map_err(|error| cannot_start_a_thread("certificates", &error))?);
    }
    let signals = Signals::new().map_err(|error| Refusal(format!("cannot catch signals: {}", plain(&error))))?;
    let mut redirecting = None;
    // The servers of the runtimes have the same methods, and no trait.
    macro_rules! serve_with {
        ($server:ty) => {{
            let mut others = inherited.into_iter().chain(addresses.listen_unix(flags.socket_mode)?);
            let first = if addresses.ip.is_empty() { others.next() } else { None };
            let server = match first {
                Some(listener) => <$server>::from_listener(listener, site),
                None => <$server>::bind(&addresses.ip[..], site),
            };
            let mut server = others.fold(server.map_err(|error| addresses.refuse(&error))?, <$server>::listen);
            addresses.check(&server.addresses()[..])?;
            if let Some(workers) = flags.workers {
                server = server.workers(workers);
            }
            let bound = server.addresses();
            if let Some(port) = flags.tls.as_ref().and_then(|tls| tls.redirect) {
                let site = redirect::site(addresses.secure_port(&bound)?, log.clone(), flags.grace);
                let server = <$server>::bind(&addresses.with_port(port)[..], site);
                let server = server.map_err(|error| addresses.refuse_port(port, &error))?;
                let server = server.workers(redirect::workers(flags.runtime));
                invitation.redirect = server.addresses().to_vec();
                ending.redirect = Some(server.handle());
                let handle = server.handle();
                let started = thread::Builder::new().name("redirect".into()).spawn(move || server.run());
                let thread = started.map_err(|error| cannot_start_a_thread("redirections", &error))?;
                redirecting = Some((handle, thread));
            }
            handle_signals(signals, ending, server.handle())?;
            invitation.print(&bound[..]);
            server.run()
        }};
    }
    let outcome = match flags.runtime {
        Runtime::Mio => serve_with!(sanserve_mio::Server),
        Runtime::Std => serve_with!(sanserve_std::Server),
        Runtime::Smol => serve_with!(sanserve_smol::Server),
    };
    if let Some((handle, thread)) = redirecting {
        handle.shutdown();
        let _ = thread.join();
    }
    while IS_CUT.load(Ordering::SeqCst) {
        thread::park();
    }
    if let Some(recording) = recording {
        recording.flush_within(PRINT_TIMEOUT);
    }
    // Threads that are stuck in a handler may still hold the log, so its writer would not end by itself.
    log.flush_within(PRINT_TIMEOUT);
    outcome.map_err(|error| Refusal(format!("the server failed: {}", plain(&error))))
}

/// The sockets that systemd, or whatever has started this process, has opened for it: `LISTEN_FDS` of them, from
/// descriptor 3 on, if `LISTEN_PID` is this process.
fn inherited() -> Result<Vec<Listener>, Refusal> {
    let mut fds = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    let count = fds.len();
    for at in 0..count {
        let refuse = |error: io::Error| {
            let what = format!("cannot listen on socket {} of {count} in LISTEN_FDS", at + 1);
            Refusal(format!("{what}: {}", plain(&error)))
        };
        let fd = match fds.take_tcp_listener(at) {
            Ok(listener) => listener.map(OwnedFd::from),
            Err(_) => fds.take_unix_listener(at).map_err(refuse)?.map(OwnedFd::from),
        };
        if let Some(fd) = fd {
            listeners.push(Listener::try_from(fd).map_err(refuse)?);
        }
    }
    Ok(listeners)
}

/// Where to listen.
struct Addresses {
    port: u16,
    /// Each host as it was given, with its addresses.
    hosts: Vec<(String, Vec<SocketAddr>)>,
    /// The addresses of all hosts, without duplicates.
    ip: Vec<SocketAddr>,
    /// Paths of Unix sockets.
    unix: Vec<PathBuf>,
}

impl Addresses {
    /// Looks up the hosts. `by_default`: without one, it listens on all interfaces.
    fn of(flags: &Flags, by_default: bool) -> Result<Addresses, Refusal> {
        let mut addresses = Addresses { port: flags.port, hosts: Vec::new(), ip: Vec::new(), unix: Vec::new() };
        for bind in &flags.bind {
            match bind {
                Bind::Unix(path) => addresses.unix.push(path.clone()),
                Bind::Host(host) => addresses.add_host(Some(host))?,
            }
        }
        if flags.bind.is_empty() && by_default {
            addresses.add_host(None)?;
        }
        Ok(addresses)
    }

    /// `None` stands for all interfaces.
    fn add_host(&mut self, host: Option<&str>) -> Result<(), Refusal> {
        let shown = host.unwrap_or("*");
        let found = os::resolve_all(host, self.port).map_err(|error| self.refuse_host(shown, &error))?;
        for &address in &found {
            if !self.ip.contains(&address) {
                self.ip.push(address);
            }
        }
        self.hosts.push((shown.to_owned(), found));
        Ok(())
    }

    fn listen_unix(&self, mode: Option<u32>) -> Result<Vec<Listener>, Refusal> {
        let listen = |path: &PathBuf| {
            let listener = match mode {
                Some(mode) => Listener::unix_with_mode(path, mode),
                None => Listener::unix(path),
            };
            listener.map_err(|error| Refusal(error.to_string()))
        };
        self.unix.iter().map(listen).collect()
    }

    /// Of the addresses of a name, those that this machine does not have are skipped. Each host must have one left.
    fn check(&self, bound: &[ListenAddr]) -> Result<(), Refusal> {
        let bound: Vec<IpAddr> = bound.iter().filter_map(|address| Some(address.to_ip()?.ip())).collect();
        match self.hosts.iter().find(|(_, wanted)| !wanted.iter().any(|address| bound.contains(&address.ip()))) {
            Some((host, _)) => Err(self.refuse_host(host, &io::ErrorKind::AddrNotAvailable.into())),
            None => Ok(()),
        }
    }

    /// Why not all of the hosts can be listened on.
    fn refuse(&self, error: &io::Error) -> Refusal {
        if error.get_ref().is_some() {
            // It says so, and which address it was.
            return Refusal(error.to_string());
        }
        let hosts: Vec<&str> = self.hosts.iter().map(|(host, _)| host.as_str()).collect();
        self.refuse_host(&hosts.join(", "), error)
    }

    fn refuse_host(&self, host: &str, error: &io::Error) -> Refusal {
        Refusal(format!("cannot listen on {host} port {}: {}", self.port, plain(error)))
    }

    /// The same IP addresses with another port.
    fn with_port(&self, port: u16) -> Vec<SocketAddr> {
        self.ip.iter().map(|address| SocketAddr::new(address.ip(), port)).collect()
    }

    fn refuse_port(self, port: u16, error: &io::Error) -> Refusal {
        Addresses { port, ..self }.refuse(error)
    }

    /// The port to which plain HTTP is redirected.
    fn secure_port(&self, bound: &[ListenAddr]) -> Result<u16, Refusal> {
        let port = bound.iter().find_map(|address| Some(address.to_ip()?.port()));
        port.ok_or_else(|| Refusal("cannot redirect: the server listens only on Unix sockets".into()))
    }
}

/// glibc reserves 64 MiB of address space for each thread that allocates, whether it needs it or not. Under a limit of
/// the address space (`RLIMIT_AS`) that would soon use all of it, and the next allocation would abort the process.
/// glibc reads this setting from the environment only, so the program executes itself again. If that fails, it
/// continues as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_addresses() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    if !server::has_address_limit() || env::var_os(ARENAS).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let mut arguments = env::args_os();
        let mut again = Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        let _ = again.args(arguments).env(ARENAS, "1").exec();
    }
}

fn cannot_start_a_thread(what: &str, error: &io::Error) -> Refusal {
    Refusal(format!("cannot start a thread for {what}: {}", plain(error)))
}

/// Refuses to serve the key of the local CA, and warns of other keys that are served: as with Python, they may be in
/// the current directory.
fn check_secrets(tls: &Tls, flags: &Flags) -> Result<(), Refusal> {
    let served = flags.directory.display();
    let is_served = |path: &Path| {
        let (Ok(path), Ok(root)) = (real_path(path), flags.directory.canonicalize()) else { return false };
        let is_hidden = |part: Component<'_>| part.as_os_str().as_bytes().starts_with(b".");
        path.strip_prefix(root).is_ok_and(|rest| !flags.config.hide_dotfiles || !rest.components().any(is_hidden))
    };
    match &tls.source {
        Source::Local(Kept::Once) => {}
        Source::Local(Kept::Kept) => {
            let path = Store::of_user().map_err(Refusal)?.authority_path();
            if is_served(&path) {
                let path = path.display();
                let instead = "use --hide-dotfiles, --https=once, or another XDG_DATA_HOME";
                return Err(Refusal(format!(
                    "cannot keep a local CA in {path}: it is inside {served}, which is served; {instead}"
                )));
            }
        }
        Source::Files(pairs) => {
            for path in
                pairs.iter().map(|pair| pair.key.as_ref().unwrap_or(&pair.certificate)).filter(|path| is_served(path))
            {
                print_error(format_args!(
                    "warning: the private key in {} is served: it is inside {served}",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// The path without symbolic links. What does not exist yet is as it is written.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound && path.is_absolute() => {
            Ok(real_path(parent)?.join(name))
        }
        (found, ..) => found,
    }
}

/// Sets up HTTPS.
fn secure(site: Site, https: &Https) -> Result<Site, Refusal> {
    let config = sanserve_tls::Config::new(https.identities.clone());
    let config = config.map_err(|error| Refusal(format!("cannot serve HTTPS: {error}")))?;
    Ok(site.with_tls(config))
}

fn site(flags: &Flags) -> Result<Site, Refusal> {
    let directory = flags.directory.display();
    let root = Root::open(&flags.directory, flags.symlinks)
        .map_err(|error| Refusal(format!("cannot serve {directory}: {}", plain(&error))))?;
    let mut site = Site::beneath(root)
        .with_config(flags.config.clone())
        .with_scripts(flags.scripts.clone())
        .with_grace(flags.grace);
    if let Some(path) = &flags.log_file {
        let shown = path.display();
        let log = Log::to_file(path, flags.quiet)
            .map_err(|error| Refusal(format!("cannot log to {shown}: {}", plain(&error))))?;
        site = site.with_log(log);
    } else if flags.quiet {
        site = site.with_log(Log::quiet());
    }
    if let Some(connections) = flags.connections {
        site = site.with_connections(connections);
    }
    if let Some(memory) = flags.memory {
        site = site.with_memory(memory);
    }
    if let Some(threads) = flags.io_threads {
        site = site.with_io_threads(threads);
    }
    Ok(site)
}

/// Sets up recording and tracing.
fn observe(site: Site, flags: &Flags) -> Result<Site, Refusal> {
    let mut site = site.with_secrets(flags.secrets);
    if flags.trace {
        site = site.with_trace(Trace::stderr());
    }
    let Some(record) = &flags.record else { return Ok(site) };
    let shown = record.directory.display();
    let mut recording = Recording::to(&record.directory, site.log().clone())
        .map_err(|error| Refusal(format!("cannot record in {shown}: {}", plain(&error))))?;
    if let Some(most) = record.most {
        recording = recording.with_most(most);
    }
    if let Some(size) = record.size {
        recording = recording.with_size(size);
    }
    if let Some(rate) = record.rate {
        recording = recording.with_rate(rate);
    }
    if is_beneath(&record.directory, &flags.directory) {
        // This server does not serve its recordings, but another one of the same directory would.
        if flags.secrets == Secrets::Kept {
            let served = flags.directory.display();
            return Err(Refusal(format!("cannot record secrets in {shown}: it is inside {served}, which is served")));
        }
        if same(&record.directory, &flags.directory) {
            return Err(Refusal(format!("cannot record in {shown}: it is served; use a separate directory")));
        }
    }
    Ok(site.with_recording(recording))
}

/// Whether `inner` is `outer` or lies inside it. Both exist.
fn is_beneath(inner: &Path, outer: &Path) -> bool {
    match (inner.canonicalize(), outer.canonicalize()) {
        (Ok(inner), Ok(outer)) => inner.starts_with(outer),
        _ => false,
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// What a shutdown needs.
struct Ending {
    root: Arc<Root>,
    scripts: Arc<Scripts>,
    log: Log,
    recording: Option<Recording>,
    /// How long to keep serving after the signal.
    delay: Duration,
    certificates: Option<Reloader>,
    /// The server that redirects plain HTTP.
    redirect: Option<Handle>,
}

/// How long it may take until every connection knows of the shutdown.
const NOTIFY_TIMEOUT: Duration = Duration::from_millis(250);

/// A second signal has arrived. The thread that handles signals will exit the process.
static IS_CUT: AtomicBool = AtomicBool::new(false);

/// How long cutting all connections may take before the process exits.
const CUT_TIMEOUT: Duration = Duration::from_millis(50);

/// Handles signals: the first that ends the server shuts it down gracefully, a second one at once.
fn handle_signals(mut signals: Signals, ending: Ending, handle: Handle) -> Result<(), Refusal> {
    // Two threads: one waits for signals, the other for a signal or a timeout.
    let (sender, ends) = mpsc::channel();
    let (log, root, certificates) = (ending.log.clone(), Arc::clone(&ending.root), ending.certificates.clone());
    let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let started = thread::Builder::new().name(name.into()).spawn(run);
        started.map(drop).map_err(|error| cannot_start_a_thread("signals", &error))
    };
    start("ending", Box::new(move || obey(&ends, &ending, &handle)))?;
    let wait = move || {
        loop {
            let signal = signals.wait();
            if !handle_signal(signal, &log, &root, certificates.as_ref()) && sender.send(signal).is_err() {
                return;
            }
        }
    };
    start("signals", Box::new(wait))
}

/// What people learn of the server when it has started.
struct Invitation {
    scheme: Scheme,
    invite: Invite,
    bind: Vec<Bind>,
    /// Where plain HTTP is redirected.
    redirect: Vec<ListenAddr>,
    identities: Option<Identities>,
    /// Lines about the certificate.
    certificate: String,
}

impl Invitation {
    fn of(flags: &Flags, https: Option<&Https>) -> Invitation {
        Invitation {
            scheme: if https.is_some() { Scheme::Https } else { Scheme::Http },
            invite: flags.invite,
            bind: flags.bind.clone(),
            redirect: Vec::new(),
            identities: https.map(|https| https.identities.clone()),
            certificate: https.map(|https| https.about.clone()).unwrap_or_default(),
        }
    }

    /// Prints the banner, and what `--lan` and `--qr` add to it, and opens a browser if `--open` asks for one.
    fn print(&self, bound: &[ListenAddr]) {
        let mut text: String = bound.iter().map(|address| banner(self.scheme, address)).collect();
        for address in self.redirect.iter().filter_map(ListenAddr::to_ip) {
            let (host, port) = (address.ip(), address.port());
            text.push_str(&format!("Redirecting HTTP on {host} port {port} to HTTPS\n"));
        }
        text.push_str(&self.certificate);
        if self.invite.lan {
            let mut urls = lan_urls(self.scheme, bound, &interfaces());
            if let Some(identities) = &self.identities {
                let identities = identities.current();
                certify(&mut urls, |ip| identities.iter().any(|identity| identity.is_for(&ip.to_string())));
            }
            text.push_str(&lan_lines(&urls, bound));
            if let Some(first) = urls.first().filter(|_| self.invite.qr) {
                text.extend(qr::draw(&first.url, io::stdout().is_terminal()));
            }
        }
        print(&text);
        if self.invite.open {
            match local_url(self.scheme, bound, &self.bind) {
                Some(url) => browser::open(url),
                None => print_error("cannot open a browser: the server listens only on Unix sockets"),
            }
        }
    }
}

/// The line that says where the server listens, as Python's.
fn banner(scheme: Scheme, address: &ListenAddr) -> String {
    let (title, scheme) = (scheme.title(), scheme.name());
    match address.to_ip() {
        Some(address) => {
            let (host, port) = (address.ip(), address.port());
            // With the brackets of an IPv6 address, and without its zone, which no URL has.
            let authority = SocketAddr::new(host, port);
            format!("Serving {title} on {host} port {port} ({scheme}://{authority}/) ...\n")
        }
        None => format!("Serving {title} on {} ...\n", visible(&address.to_string())),
    }
}

/// Ends the server in the steps that the signals ask for.
fn obey(more: &mpsc::Receiver<Signal>, ending: &Ending, handle: &Handle) {
    let Ok(first) = more.recv() else { return };
    if first == Signal::Interrupt {
        print("\nKeyboard interrupt received, exiting.\n");
    }
    if !ending.delay.is_zero() {
        handle.leave();
        // A second signal ends the delay, and the next one the server.
        let _ = more.recv_timeout(ending.delay);
    }
    handle.shutdown();
    if let Some(redirect) = &ending.redirect {
        redirect.shutdown();
    }
    let mut second = more.recv_timeout(NOTIFY_TIMEOUT).ok();
    if second.is_none() {
        let active = handle.in_progress();
        if first == Signal::Interrupt && active > 0 {
            let what = if active == 1 { "1 request".to_owned() } else { format!("{active} requests") };
            print(&format!("Finishing {what} in progress; press Ctrl-C again to stop at once.\n"));
        }
        second = more.recv().ok();
    }
    // The exit codes that a shell reports for a process killed by the signal.
    let code = match second {
        Some(Signal::Terminate) => 143,
        Some(Signal::Quit) => 131,
        _ => 130,
    };
    // Cut connections before scripts: the truncated output of a script must not look complete.
    IS_CUT.store(true, Ordering::SeqCst);
    handle.stop();
    thread::sleep(CUT_TIMEOUT);
    ending.scripts.end();
    if let Some(recording) = &ending.recording {
        recording.flush_within(CUT_TIMEOUT);
    }
    ending.log.flush_within(CUT_TIMEOUT);
    std::process::exit(code);
}

/// Handles a signal that does not end the server. Returns whether it was one.
fn handle_signal(signal: Signal, log: &Log, root: &Root, certificates: Option<&Reloader>) -> bool {
    match signal {
        Signal::Hangup => {
            if let Some(certificates) = certificates {
                certificates.reload();
            }
            root.look_up_soon();
            log.reopen();
        }
        Signal::User1 => log.reopen(),
        Signal::User2 => {}
        Signal::Interrupt | Signal::Terminate | Signal::Quit => return false,
    }
    true
}

/// Prints to stdout and flushes. The reader may be gone or stuck, so it ignores errors and gives up after a second.
fn print(text: &str) {
    let text = text.to_owned();
    let (printed, wait) = mpsc::channel();
    let printer = thread::Builder::new().spawn(move || {
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let _ = printed.send(());
    });
    if printer.is_ok() {
        let _ = wait.recv_timeout(PRINT_TIMEOUT);
    }
}

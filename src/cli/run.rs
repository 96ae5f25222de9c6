//! Serving: bind, say so, serve until a signal.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::os::unix::process::CommandExt;
use std::path::Path;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use sanserve::os::{self, Root, Signal, Signals};
use sanserve::server::{self, Log, Recording, Scripts, Service, Trace};
use sanserve::transcript::Secrets;

use super::flags::{Flags, Runtime};
use super::plain;

/// What anything printed, or the last lines of the log, may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Descriptors without which no server can serve anybody, beside those of its workers.
const LEAST_DESCRIPTORS: usize = 12;
/// What each worker takes of them.
const DESCRIPTORS_OF_WORKER: usize = 4;
/// Threads beside the workers: for signals, the log, recordings, a lookup of the time zone, and what blocks.
const LEAST_THREADS: usize = 6;

/// Why there is no server: one line for people.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Serves until SIGINT or SIGTERM has come and the exchanges in hand are done.
pub(crate) fn serve(flags: Flags) -> Result<(), Refusal> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_addresses();
    #[cfg(target_os = "linux")]
    os::leave_process_1().map_err(|error| Refusal(format!("cannot be process 1: {}", plain(&error))))?;
    os::raise_nofile_limit();
    let mut service = service(&flags)?;
    observe(&mut service, &flags)?;
    let log = service.log.clone();
    let recording = service.recording.clone();
    let ending = Ending {
        root: Arc::clone(&service.root),
        scripts: Arc::clone(&service.scripts),
        log: log.clone(),
        recording: recording.clone(),
        delay: flags.drain_delay,
    };
    let shown = flags.bind.as_deref().unwrap_or("*");
    let listening =
        |error: io::Error| Refusal(format!("cannot listen on {shown} port {}: {}", flags.port, plain(&error)));
    let addresses = os::resolve_all(flags.bind.as_deref(), flags.port).map_err(listening)?;
    // What a server takes at least; some of it is otherwise found out where there is no way back.
    let workers = match flags.runtime {
        Runtime::Std => 1,
        Runtime::Mio | Runtime::Smol => {
            flags.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from).min(4))
        }
    };
    let (threads, descriptors) = (workers + LEAST_THREADS, workers * DESCRIPTORS_OF_WORKER + LEAST_DESCRIPTORS);
    server::probe_memory(threads)
        .and_then(|()| server::probe_resources(threads, descriptors))
        .map_err(|error| Refusal(format!("cannot start: no memory, threads or descriptors: {}", plain(&error))))?;
    let signals = Signals::new().map_err(|error| Refusal(format!("cannot catch signals: {}", plain(&error))))?;
    let outcome = match flags.runtime {
        Runtime::Mio => {
            let server = sanserve::mio::Server::bind_all(&addresses, service, flags.workers).map_err(listening)?;
            let handle = server.handle();
            announce(server.local_addr(), signals, ending, move |end| {
                match end {
                    End::Leave => handle.leave(),
                    End::Gently => handle.shutdown(),
                    End::Now => handle.stop(),
                }
                handle.in_hand()
            })?;
            server.run()
        }
        Runtime::Std => {
            let mut server = sanserve::std::Server::bind_all(&addresses, service).map_err(listening)?;
            if let Some(workers) = flags.workers {
                server = server.threads(workers);
            }
            let handle = server.handle();
            announce(server.local_addr(), signals, ending, move |end| {
                match end {
                    End::Leave => handle.leave(),
                    End::Gently => handle.shutdown(),
                    End::Now => handle.stop(),
                }
                handle.in_hand()
            })?;
            server.run()
        }
        Runtime::Smol => {
            let mut server = sanserve::smol::Server::bind_all(&addresses, service).map_err(listening)?;
            if let Some(workers) = flags.workers {
                server = server.threads(workers);
            }
            let handle = server.handle();
            announce(server.local_addr(), signals, ending, move |end| {
                match end {
                    End::Leave => handle.leave(),
                    End::Gently => handle.shutdown(),
                    End::Now => handle.stop(),
                }
                handle.in_hand()
            })?;
            server.run()
        }
    };
    while IS_CUT.load(Ordering::SeqCst) {
        thread::park();
    }
    if let Some(recording) = recording {
        recording.flush_within(LAST_WORDS);
    }
    // Threads that are stuck in a handler may hold the log, so that its end does not come by itself.
    log.flush_within(LAST_WORDS);
    outcome.map_err(|error| Refusal(format!("the server failed: {}", plain(&error))))
}

/// glibc sets 64 MiB of addresses aside for each thread that allocates, whether it needs them or not. Where addresses
/// are limited (`RLIMIT_AS`), there would soon be none for anybody else, and whoever then allocates is aborted. This can
/// be told to it only from outside, so the program begins once more. Where that fails, it goes on as it is.
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

fn service(flags: &Flags) -> Result<Service, Refusal> {
    let directory = flags.directory.display();
    let root = Root::open(&flags.directory, flags.symlinks)
        .map_err(|error| Refusal(format!("cannot serve {directory}: {}", plain(&error))))?;
    let mut service = Service::beneath(root)
        .with_config(flags.config.clone())
        .with_scripts(flags.scripts.clone())
        .with_grace(flags.grace);
    if let Some(path) = &flags.log_file {
        let shown = path.display();
        let log = Log::to_file(path, flags.quiet)
            .map_err(|error| Refusal(format!("cannot log to {shown}: {}", plain(&error))))?;
        service = service.with_log(log);
    } else if flags.quiet {
        service = service.with_log(Log::quiet());
    }
    if let Some(connections) = flags.connections {
        service = service.with_connections(connections);
    }
    if let Some(memory) = flags.memory {
        service = service.with_memory(memory);
    }
    Ok(service)
}

/// Has connections recorded and printed, as the flags say.
fn observe(service: &mut Service, flags: &Flags) -> Result<(), Refusal> {
    service.secrets = flags.secrets;
    service.trace = flags.trace.then(Trace::stderr);
    let Some(record) = &flags.record else { return Ok(()) };
    let shown = record.directory.display();
    let mut recording = Recording::to(&record.directory, service.log.clone())
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
        // They are not served by us, but perhaps by others.
        if flags.secrets == Secrets::Kept {
            let served = flags.directory.display();
            return Err(Refusal(format!("will not record secrets in {shown}, which is served with {served}")));
        }
        if same(&record.directory, &flags.directory) {
            return Err(Refusal(format!(
                "will not record in {shown}, which is served: a directory of its own is needed"
            )));
        }
    }
    service.recording = Some(recording);
    Ok(())
}

/// Whether everything in `inner` can be reached through `outer`. Both are there.
fn is_beneath(inner: &Path, outer: &Path) -> bool {
    match (inner.canonicalize(), outer.canonicalize()) {
        (Ok(inner), Ok(outer)) => inner.starts_with(outer),
        _ => false,
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// How a server ends.
#[derive(Clone, Copy)]
enum End {
    /// Not yet, but it says so where it is asked for its health.
    Leave,
    /// The exchanges in hand finish.
    Gently,
    /// Every connection is cut.
    Now,
}

/// What the end of a server needs.
struct Ending {
    root: Arc<Root>,
    scripts: Arc<Scripts>,
    log: Log,
    recording: Option<Recording>,
    /// How long it serves on.
    delay: Duration,
}

/// How long it may take until every connection has heard that the server goes down.
const HEARING: Duration = Duration::from_millis(250);

/// A second signal has come, and whoever waits for that ends the process.
static IS_CUT: AtomicBool = AtomicBool::new(false);

/// How long cutting all connections may take before the process ends.
const CUTTING: Duration = Duration::from_millis(50);

/// Prints the banner at once, and obeys signals: the first that ends the server does so gracefully, a second one at
/// once. `end` carries that out, and says how many exchanges are in hand.
fn announce(
    address: SocketAddr,
    mut signals: Signals,
    ending: Ending,
    end: impl Fn(End) -> usize + Send + 'static,
) -> Result<(), Refusal> {
    let (host, port) = (address.ip(), address.port());
    let url_host = match host {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    // Two threads: one waits for signals, one for them and for the time.
    let (sender, ends) = mpsc::channel();
    let (log, root) = (ending.log.clone(), Arc::clone(&ending.root));
    let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let started = thread::Builder::new().name(name.into()).spawn(run);
        started.map(drop).map_err(|error| Refusal(format!("cannot start a thread for signals: {}", plain(&error))))
    };
    start("ending", Box::new(move || obey(&ends, &ending, &end)))?;
    let wait = move || {
        loop {
            let signal = signals.wait();
            if !heed(signal, &log, &root) && sender.send(signal).is_err() {
                return;
            }
        }
    };
    start("signals", Box::new(wait))?;
    say(&format!("Serving HTTP on {host} port {port} (http://{url_host}:{port}/) ...\n"));
    Ok(())
}

/// Ends the server as the signals say that ask for it.
fn obey(more: &mpsc::Receiver<Signal>, ending: &Ending, end: &impl Fn(End) -> usize) {
    let Ok(first) = more.recv() else { return };
    if first == Signal::Interrupt {
        say("\nKeyboard interrupt received, exiting.\n");
    }
    if !ending.delay.is_zero() {
        end(End::Leave);
        // Another signal ends the delay, and the one behind it the server.
        let _ = more.recv_timeout(ending.delay);
    }
    end(End::Gently);
    let mut second = more.recv_timeout(HEARING).ok();
    if second.is_none() {
        let in_hand = end(End::Gently);
        if first == Signal::Interrupt && in_hand > 0 {
            let what = if in_hand == 1 { "1 exchange".to_owned() } else { format!("{in_hand} exchanges") };
            say(&format!("Finishing {what} in progress; press Ctrl-C again to end at once.\n"));
        }
        second = more.recv().ok();
    }
    // The codes that a shell would show for a process that the signal has ended.
    let code = match second {
        Some(Signal::Terminate) => 143,
        Some(Signal::Quit) => 131,
        _ => 130,
    };
    // Connections first: what a script leaves unsaid must not look complete.
    IS_CUT.store(true, Ordering::SeqCst);
    end(End::Now);
    thread::sleep(CUTTING);
    ending.scripts.end();
    if let Some(recording) = &ending.recording {
        recording.flush_within(CUTTING);
    }
    ending.log.flush_within(CUTTING);
    std::process::exit(code);
}

/// Does what a signal asks for that does not end a server; whether it is one.
fn heed(signal: Signal, log: &Log, root: &Root) -> bool {
    match signal {
        Signal::Hangup => {
            root.look_up_soon();
            log.reopen();
        }
        Signal::User1 => log.reopen(),
        Signal::User2 => {}
        Signal::Interrupt | Signal::Terminate | Signal::Quit => return false,
    }
    true
}

/// Prints and flushes. Nobody may be listening, so it neither fails nor takes longer than a second.
fn say(text: &str) {
    let text = text.to_owned();
    let (said, wait) = mpsc::channel();
    let speaker = thread::Builder::new().spawn(move || {
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let _ = said.send(());
    });
    if speaker.is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS);
    }
}

//! A `sanserve` process on a free port of the loopback interface. Its connections are recorded, and replaying them
//! must give the same result. Tests get this check without doing anything.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::Signal;
use sanserve_core::{Call, DefaultPolicy, Reply};
use sanserve_transcript::Transcript;
use tempfile::TempDir;

use crate::client::Client;
use crate::process::Process;
use crate::response::Response;
use crate::runtime::Runtime;

/// The program under test: the command that cargo has built for the current test.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let named = std::env::var_os("CARGO_BIN_EXE_sanserve").map(PathBuf::from);
        // Older versions of cargo only set the variable at compile time. The program is in the parent of the
        // directory of the tests.
        let program = named.unwrap_or_else(|| {
            let test = std::env::current_exe().expect("this program has a path");
            test.ancestors().nth(2).expect("it lies in `deps`").join("sanserve")
        });
        assert!(program.is_file(), "{} is not built: cargo build", program.display());
        program.into_os_string().into_string().expect("a path of UTF-8")
    });
    &PROGRAM
}

/// How long a server may take to end by itself after its test.
const FAREWELL: Duration = Duration::from_millis(300);

/// A running server. Dropping it stops it, and replays the recordings of its connections.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
    recordings: Option<TempDir>,
}

impl Server {
    /// Serves `directory` with the defaults.
    #[track_caller]
    pub fn start(runtime: Runtime, directory: &Path) -> Server {
        Server::with(runtime, directory, &[])
    }

    /// Serves `directory` with more flags.
    #[track_caller]
    pub fn with(runtime: Runtime, directory: &Path, flags: &[&str]) -> Server {
        let recordings = tempfile::tempdir().expect("a temporary directory");
        let mut command = command(runtime, directory, flags);
        // Limits that no test reaches, since a truncated recording is not replayed to its end.
        command.args(["--record-size=16777216", "--record-rate=1073741824", "--record"]).arg(recordings.path());
        let mut server = Server::of(Process::start(&mut command));
        server.recordings = Some(recordings);
        server
    }

    /// Like [`with`](Self::with), without recordings: for tests that count or measure.
    #[track_caller]
    pub fn unrecorded(runtime: Runtime, directory: &Path, flags: &[&str]) -> Server {
        Server::of(Process::start(&mut command(runtime, directory, flags)))
    }

    /// Like [`with`](Self::with), for a server that never runs as root, so that unreadable files are unreadable.
    #[track_caller]
    pub fn unprivileged(runtime: Runtime, directory: &Path, flags: &[&str]) -> Server {
        const NOBODY: u32 = 65_534;
        if !rustix::process::geteuid().is_root() {
            return Server::unrecorded(runtime, directory, flags);
        }
        // The program may be in a directory that only root can search.
        let folder = tempfile::tempdir().expect("a temporary directory");
        let everybody = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions can be changed")
        };
        let copy = folder.path().join("sanserve");
        fs::copy(program(), &copy).expect("a copy");
        [folder.path(), &copy, directory, directory.parent().expect("a folder")].into_iter().for_each(everybody);
        let mut command = Command::new(&copy);
        arguments(&mut command, runtime, directory, flags).uid(NOBODY).gid(NOBODY);
        Server::of(Process::start(&mut command))
    }

    /// Waits for the banner of a server that was just started.
    #[track_caller]
    pub fn of(process: Process) -> Server {
        let banner = process.stdout.line("the banner", |line| line.starts_with("Serving HTTP"));
        let port = banner.split(' ').skip_while(|word| *word != "port").nth(1).and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {banner:?}"));
        Server { process, port, recordings: None }
    }

    /// The process of the server.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process of the server, for waiting.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Opens a connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Sends a GET on a connection of its own that closes after it.
    #[track_caller]
    pub fn get(&self, target: impl AsRef<[u8]>) -> Response {
        self.ask([b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat())
    }

    /// Sends `request` on a connection of its own, half-closes, and receives the one response.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let mut client = self.connect();
        client.send(request);
        client.half_close_if_open();
        let response = client.response_to(request);
        client.ends();
        response
    }

    /// Waits for a log line.
    #[track_caller]
    pub fn log_line(&self, what: &str, wanted: impl FnMut(&str) -> bool) -> String {
        self.process.stderr.line(what, wanted)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.process.kill();
        }
        if self.recordings.is_some() && self.process.runs() {
            // The last events are written when it ends by itself.
            self.process.signal(Signal::TERM);
            self.process.wait_within(FAREWELL);
        }
        self.process.kill();
        // The server catches panics, so that they only end one connection. Here they fail the test.
        let lines = self.process.stderr.so_far();
        let panic = lines.iter().find(|line| line.contains("panicked"));
        assert!(panic.is_none(), "the server panicked: {}", lines.join("\n"));
        if let Some(recordings) = &self.recordings {
            replay(recordings.path());
        }
    }
}

fn command(runtime: Runtime, directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(program());
    arguments(&mut command, runtime, directory, flags);
    command
}

fn arguments<'c>(command: &'c mut Command, runtime: Runtime, directory: &Path, flags: &[&str]) -> &'c mut Command {
    let more = MORE_FLAGS.with(Cell::get);
    command.args(["--runtime", runtime.name(), "-b", "127.0.0.1", "-d"]).arg(directory).args(more).args(flags).arg("0")
}

thread_local! {
    /// More flags for all servers that this thread starts.
    static MORE_FLAGS: Cell<&'static [&'static str]> = const { Cell::new(&[]) };
}

/// Calls `act`, which starts its servers on this thread, with more flags for all of them.
pub fn with_more_flags(flags: &'static [&'static str], act: impl FnOnce()) {
    MORE_FLAGS.set(flags);
    act();
    MORE_FLAGS.set(&[]);
}

/// Replays the recordings.
#[track_caller]
fn replay(recordings: &Path) {
    for entry in fs::read_dir(recordings).expect("recordings") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a recording");
        if text.is_empty() {
            // The server was killed before it wrote anything.
            continue;
        }
        let recorded = Transcript::parse(&text).unwrap_or_else(|error| panic!("a recording: {error}\n{text}"));
        if let Err(difference) = recorded.replay(&DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())) {
            let kept = std::env::temp_dir().join(format!("sanserve-differs-{}.txt", std::process::id()));
            fs::write(&kept, &text).expect("a temporary file");
            panic!("the recording {} plays differently: {difference}", kept.display());
        }
    }
}

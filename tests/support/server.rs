//! A `sanserve` process on a free port of the loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use super::process::Process;
use super::{Client, Response, Runtime};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sanserve");

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
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
        let mut command = Command::new(PROGRAM);
        command.args(["--runtime", runtime.name(), "-b", "127.0.0.1", "-d"]).arg(directory).args(flags).arg("0");
        Server::of(Process::start(&mut command))
    }

    /// Waits for the banner of a server just started.
    #[track_caller]
    pub fn of(process: Process) -> Server {
        let banner = process.stdout.line("the banner", |line| line.starts_with("Serving HTTP on "));
        let port = banner.split(' ').skip_while(|word| *word != "port").nth(1).and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {banner:?}"));
        Server { process, port }
    }

    /// The process behind it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process behind it, to wait for.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own that closes behind it.
    #[track_caller]
    pub fn get(&self, target: impl AsRef<[u8]>) -> Response {
        self.ask([b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat())
    }

    /// Sends `request` on a connection of its own, half-closes, and takes the one answer.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let mut client = self.connect();
        client.send(request);
        client.half_close();
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

/// A panic inside the server is caught there and costs one connection; here it fails the test.
impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill();
        if !std::thread::panicking() {
            let lines = self.process.stderr.so_far();
            let panic = lines.iter().find(|line| line.contains("panicked"));
            assert!(panic.is_none(), "the server panicked: {}", lines.join("\n"));
        }
    }
}

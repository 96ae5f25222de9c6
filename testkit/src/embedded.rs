//! Running a server in this process, on a thread of its own.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::Client;
use crate::response::Response;
use crate::tree::Tree;

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Arc<Mutex<Vec<u8>>>);

impl LogSink {
    /// The text written so far.
    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("a log is UTF-8")
    }
}

impl Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server that is bound, but not running yet. [`bound!`](crate::bound) makes one of the `Server` of any frontend.
pub struct Bound {
    address: SocketAddr,
    shutdown: Box<dyn Fn() + Send + Sync>,
    stop: Box<dyn Fn() + Send + Sync>,
    run: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

impl Bound {
    /// Made of its parts: the address, a graceful shutdown, an immediate stop, and the function that runs it.
    pub fn new(
        address: SocketAddr,
        shutdown: impl Fn() + Send + Sync + 'static,
        stop: impl Fn() + Send + Sync + 'static,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Bound {
        Bound { address, shutdown: Box::new(shutdown), stop: Box::new(stop), run: Box::new(run) }
    }
}

/// A [`Bound`] of the `Server` of a frontend. A macro, because the servers have the same methods, but no common
/// trait.
#[macro_export]
macro_rules! bound {
    ($server:expr) => {{
        let server = $server;
        let (address, shutdown, stop) = (server.local_addr(), server.handle(), server.handle());
        $crate::embedded::Bound::new(address, move || shutdown.shutdown(), move || stop.stop(), move || server.run())
    }};
}

/// A running server. Dropping it stops it.
pub struct Embedded {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The files that it serves, if any.
    pub tree: Tree,
    /// The log.
    pub log: LogSink,
    shutdown: Box<dyn Fn() + Send + Sync>,
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Embedded {
    /// Runs the server that `bind` makes of a directory and a log.
    #[track_caller]
    pub fn start(tree: Tree, bind: impl FnOnce(&Path, LogSink) -> Bound) -> Embedded {
        let log = LogSink::default();
        let Bound { address, shutdown, stop, run } = bind(tree.root(), log.clone());
        Embedded { address, tree, log, shutdown, stop, thread: Some(thread::spawn(run)) }
    }

    /// Opens a connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: impl AsRef<[u8]>) -> Response {
        self.connect().get(target)
    }

    /// Begins a graceful shutdown.
    pub fn shutdown(&self) {
        (self.shutdown)();
    }

    /// Stops the server immediately.
    pub fn stop(&self) {
        (self.stop)();
    }

    /// Whether the server is still running.
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until the server has ended.
    #[track_caller]
    pub fn join(&mut self) {
        let thread = self.thread.take().expect("join is called once");
        thread.join().expect("the server panicked").expect("the server failed");
    }

    /// Waits until the server has ended, and returns its log.
    #[track_caller]
    pub fn ended(mut self) -> String {
        self.join();
        self.log.text()
    }

    /// Shuts the server down gracefully, and returns its log.
    #[track_caller]
    pub fn end(self) -> String {
        self.shutdown();
        self.ended()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
        if self.thread.is_some() && !thread::panicking() {
            self.join();
        }
    }
}

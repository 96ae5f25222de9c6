//! A server in this process, on a thread of its own.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::{Client, Response, Tree};

/// A log that is kept in memory.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Arc<Mutex<Vec<u8>>>);

impl LogSink {
    /// What has been written so far.
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

/// A server that is bound and does not run yet. [`bound!`](crate::bound) makes one of any frontend's `Server`.
pub struct Bound {
    address: SocketAddr,
    shutdown: Box<dyn Fn() + Send + Sync>,
    stop: Box<dyn Fn() + Send + Sync>,
    run: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

impl Bound {
    /// Of its parts: where it listens, what ends it gracefully, what ends it at once, and what runs it.
    pub fn new(
        address: SocketAddr,
        shutdown: impl Fn() + Send + Sync + 'static,
        stop: impl Fn() + Send + Sync + 'static,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Bound {
        Bound { address, shutdown: Box::new(shutdown), stop: Box::new(stop), run: Box::new(run) }
    }
}

/// A [`Bound`] of a frontend's `Server`. The frontends have no type in common, only names.
#[macro_export]
macro_rules! bound {
    ($server:expr) => {{
        let server = $server;
        let (address, shutdown, stop) = (server.local_addr(), server.handle(), server.handle());
        $crate::Bound::new(address, move || shutdown.shutdown(), move || stop.stop(), move || server.run())
    }};
}

/// A running server; stopped when dropped.
pub struct Embedded {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves, if it serves files.
    pub tree: Tree,
    /// What it has logged.
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

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: impl AsRef<[u8]>) -> Response {
        self.connect().get(target)
    }

    /// Begins a graceful end.
    pub fn shutdown(&self) {
        (self.shutdown)();
    }

    /// Has it end at once.
    pub fn stop(&self) {
        (self.stop)();
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn join(&mut self) {
        let thread = self.thread.take().expect("nobody has waited for it before");
        thread.join().expect("the server does not panic").expect("the server does not fail");
    }

    /// Waits until it has ended; its log.
    #[track_caller]
    pub fn ended(mut self) -> String {
        self.join();
        self.log.text()
    }

    /// Ends it gracefully; its log.
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

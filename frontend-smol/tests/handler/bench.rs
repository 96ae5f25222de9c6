//! A server that runs, and a peer that talks to it.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sanserve_smol::{Handle, Handler, Log, Server, Service};
use tempfile::TempDir;

/// Longer than anything here takes, shorter than anybody's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Bench {
    _dir: TempDir,
    address: SocketAddr,
    pub(crate) handle: Handle,
    running: Option<JoinHandle<io::Result<()>>>,
    log: Lines,
}

impl Bench {
    pub(crate) fn new<H: Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Bench {
        Bench::with(|service| service, move |server| server.with_handler(make))
    }

    pub(crate) fn with(change: impl FnOnce(Service) -> Service, build: impl FnOnce(Server) -> Server) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "a file").unwrap();
        let log = Lines::default();
        let service = change(Service::new(dir.path()).unwrap().with_log(Log::to(log.clone())));
        let server = build(Server::bind(([127, 0, 0, 1], 0).into(), service).unwrap().threads(2));
        let (address, handle) = (server.local_addr(), server.handle());
        let running = Some(thread::spawn(|| server.run()));
        Bench { _dir: dir, address, handle, running, log }
    }

    pub(crate) fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Peer { stream, unread: Vec::new() }
    }

    /// The answer to one request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut peer = self.connect();
        peer.send(request);
        peer.answer()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// The log of the server, which is shut down for it.
    pub(crate) fn ended(mut self) -> String {
        self.handle.shutdown();
        self.join();
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until `run` has returned.
    pub(crate) fn join(&mut self) {
        self.running.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(running) = self.running.take() {
            let outcome = running.join();
            if !thread::panicking() {
                outcome.unwrap().unwrap();
            }
        }
    }
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Vec<u8>,
}

/// An answer taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.answer()
    }

    /// The same connection, for another thread.
    pub(crate) fn twin(&self) -> Peer {
        Peer { stream: self.stream.try_clone().unwrap(), unread: Vec::new() }
    }

    pub(crate) fn end(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until there are `n` bytes.
    pub(crate) fn need(&mut self, n: usize) {
        let mut room = [0; 65_536];
        while self.unread.len() < n {
            let got = self.stream.read(&mut room).unwrap();
            assert!(got > 0, "the connection ended: {:?}", String::from_utf8_lossy(&self.unread));
            self.unread.extend_from_slice(&room[..got]);
        }
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.need(self.unread.len() + 1);
        }
    }

    /// A head, as Latin-1.
    pub(crate) fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").into_iter().map(char::from).collect()
    }

    /// Some bytes of a body.
    pub(crate) fn take(&mut self, n: usize) -> Vec<u8> {
        self.need(n);
        self.unread.drain(..n).collect()
    }

    /// A chunk, empty for the last one.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let line = String::from_utf8(self.until(b"\r\n")).unwrap();
        let len = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let chunk = self.take(len);
        if len > 0 {
            assert_eq!(self.take(2), b"\r\n");
        }
        chunk
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer { head: self.head(), body: Vec::new(), trailers: String::new() };
        if let Some(length) = answer.field("Content-Length") {
            answer.body = self.take(length.parse().unwrap());
        } else if answer.field("Transfer-Encoding").is_some() {
            loop {
                match &*self.chunk() {
                    [] => break,
                    chunk => answer.body.extend_from_slice(chunk),
                }
            }
            while !answer.trailers.ends_with("\r\n\r\n") && answer.trailers != "\r\n" {
                answer.trailers.push_str(std::str::from_utf8(&self.until(b"\r\n")).unwrap());
            }
        }
        answer
    }

    /// Everything up to the end of the connection; a reset counts as one.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.unread);
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => rest,
        }
    }
}

//! A server under test, and a client that reads answers.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sanserve_server::Log;
use sanserve_std::{Handle, Server, Service};
use tempfile::TempDir;

/// Longer than anything here may take; a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a test watches that nothing happens.
pub(crate) const GLANCE: Duration = Duration::from_millis(100);

/// The log of a server under test.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server that runs, with its directory.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) lines: Lines,
    pub(crate) dir: TempDir,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Runs a server on a directory with `a.txt`, `sub/` and `big` (64 MiB).
pub(crate) fn run(change: impl FnOnce(Service) -> Service, shape: impl FnOnce(Server) -> Server) -> Running {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "hello\n").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::File::create(dir.path().join("big")).unwrap().set_len(64 << 20).unwrap();
    let lines = Lines::default();
    let service = change(Service::new(dir.path()).unwrap().with_log(Log::to(lines.clone())));
    let server = shape(Server::bind((Ipv4Addr::LOCALHOST, 0).into(), service).unwrap());
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, lines, dir, thread: Some(thread::spawn(|| server.run())) }
}

/// One with every default.
pub(crate) fn plain() -> Running {
    run(|service| service, |server| server)
}

impl Running {
    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    /// Waits until `run` has returned.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    /// Shuts down gracefully and returns the log.
    pub(crate) fn end(mut self) -> String {
        self.handle.shutdown();
        self.join();
        self.lines.text()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

pub(crate) struct Client {
    pub(crate) reader: BufReader<TcpStream>,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(&request(target));
        self.answer()
    }

    /// The head of an answer and the length of its body.
    pub(crate) fn head(&mut self) -> (String, u64) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.reader.read_line(&mut head).unwrap(), 0, "ended in a head: {head:?}");
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        (head, length)
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let (head, length) = self.head();
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.reader.read_exact(&mut body).unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, body }
    }

    /// Whether the server has closed, with nothing more said.
    pub(crate) fn ended(&mut self) -> bool {
        match self.reader.read(&mut [0; 1]) {
            Ok(0) => true,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Ok(_) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Has an exchange that goes on until [`release`](Self::release): no idle connection, which would give way. The
    /// server says that it has begun.
    pub(crate) fn occupy(&mut self) {
        self.send(
            "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n",
        );
        assert_eq!(self.answer().status, 200);
    }

    /// Ends what [`occupy`](Self::occupy) has begun.
    pub(crate) fn release(&mut self) {
        self.send("x");
        assert_eq!(self.answer().status, 200);
    }

    /// Whether nothing comes for a while.
    pub(crate) fn silent(&mut self) -> bool {
        self.stream().set_read_timeout(Some(GLANCE)).unwrap();
        let silent = matches!(self.reader.fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

pub(crate) fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

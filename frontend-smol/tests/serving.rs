//! The frontend over real sockets. What all frontends have in common is tested by the suite of the
//! root package; here is what it takes to trust this one alone.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sanserve_core::{Call, Config, Pace, Reply, Request, Route, Site, Status, Timeouts};
use sanserve_server::{Log, Service};
use sanserve_smol::{Handle, Server};
use tempfile::TempDir;

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
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

/// A server that runs, with the directory it serves.
struct Bench {
    dir: TempDir,
    address: SocketAddr,
    handle: Handle,
    running: Option<JoinHandle<io::Result<()>>>,
    log: Lines,
}

const LARGE: usize = 20 << 20;

/// Bytes that tell where they belong.
fn large() -> Vec<u8> {
    (0..LARGE as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|service| service)
    }

    fn with(change: impl FnOnce(Service) -> Service) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "hello\n").unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/b.txt"), "b").unwrap();
        let log = Lines::default();
        let service = change(Service::new(dir.path()).unwrap().with_log(Log::to(log.clone())));
        let server = Server::bind(([127, 0, 0, 1], 0).into(), service).unwrap().threads(2);
        let (address, handle) = (server.local_addr(), server.handle());
        let running = Some(thread::spawn(|| server.run()));
        Bench { dir, address, handle, running, log }
    }

    fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer { stream, unread: Vec::new() }
    }

    fn get(&self, path: &str) -> (String, Vec<u8>) {
        let mut peer = self.connect();
        peer.ask(path);
        peer.answer()
    }

    /// Waits until `run` has returned.
    fn join(&mut self) {
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

struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }

    /// Reads more, and says whether there was more.
    fn more(&mut self, most: usize) -> bool {
        let mut room = vec![0; most];
        let n = self.stream.read(&mut room).unwrap();
        self.unread.extend_from_slice(&room[..n]);
        n > 0
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.more(4096), "the head is incomplete");
        }
    }

    fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let length = length.parse().unwrap();
        while self.unread.len() < length {
            assert!(self.more(65_536), "the body is incomplete");
        }
        (head, self.unread.drain(..length).collect())
    }

    /// Everything up to the end of the connection; a reset counts as one.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.unread);
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => rest,
        }
    }
}

#[test]
fn serves_a_file_a_listing_and_what_is_missing() {
    let bench = Bench::new();
    let (head, body) = bench.get("/a.txt");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, b"hello\n");
    let (head, body) = bench.get("/sub/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("<a href=\"b.txt\">b.txt</a>"));
    assert!(bench.get("/nope").0.starts_with("HTTP/1.1 404 "));
    assert!(bench.get("/sub").0.starts_with("HTTP/1.1 301 "));
}

#[test]
fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let bench = Bench::new();
    for n in 0..50 {
        fs::write(bench.dir.path().join(format!("{n}.txt")), n.to_string()).unwrap();
    }
    let mut peer = bench.connect();
    for round in 0..3 {
        let requests: String = (0..50).map(|n| format!("GET /{n}.txt HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        peer.send(&requests);
        for n in 0..50 {
            assert_eq!(peer.answer().1, n.to_string().as_bytes(), "round {round}");
        }
    }
    for byte in "GET /7.txt HTTP/1.1\r\nHost: x\r\n\r\n".chars() {
        peer.send(&byte.to_string());
    }
    assert_eq!(peer.answer().1, b"7");
}

#[test]
fn a_peer_that_half_closes_gets_its_answer() {
    let bench = Bench::new();
    let mut peer = bench.connect();
    peer.ask("/a.txt");
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(peer.answer().1, b"hello\n");
    assert!(peer.rest().is_empty());
}

#[test]
fn a_large_file_arrives_whole() {
    let bench = Bench::new();
    let content = large();
    fs::write(bench.dir.path().join("large"), &content).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(bench.get("/large").1 == content, "other bytes"));
        }
    });
}

#[test]
fn a_slow_reader_gets_all_of_it_and_stops_nobody() {
    let bench = Bench::new();
    let content = large();
    fs::write(bench.dir.path().join("large"), &content).unwrap();
    let mut slow = bench.connect();
    // Small answers behind a large one, so that the batch meets a full socket too.
    slow.send(&"GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    slow.send(&"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
    let head = slow.head();
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert_eq!(bench.get("/a.txt").1, b"hello\n");
    while slow.unread.len() < LARGE {
        assert!(slow.more(3000));
    }
    let rest = slow.unread.split_off(LARGE);
    assert!(slow.unread == content, "other bytes");
    slow.unread = rest;
    assert!(slow.answer().1 == content, "other bytes");
    for _ in 0..20 {
        assert_eq!(slow.answer().1, b"hello\n");
    }
}

#[test]
fn idle_connections_end_at_once_and_a_download_in_flight_is_finished() {
    let mut bench = Bench::new();
    let content = large();
    fs::write(bench.dir.path().join("large"), &content).unwrap();
    let mut idle = bench.connect();
    idle.ask("/a.txt");
    idle.answer();
    let mut silent = bench.connect();
    let mut busy = bench.connect();
    busy.ask("/large");
    assert!(busy.head().starts_with("HTTP/1.1 200 "));
    // `silent` was accepted before, for there is one backlog.
    let before = Instant::now();
    bench.handle.shutdown();
    assert!(idle.rest().is_empty());
    assert!(silent.rest().is_empty());
    assert!(before.elapsed() < Duration::from_secs(5), "they did not wait for a timeout");
    assert!(!bench.running.as_ref().unwrap().is_finished(), "a download is in flight");
    assert!(busy.rest() == content, "the download is whole");
    drop(busy);
    bench.join();
    assert!(!bench.log.text().contains("shutdown:"), "{}", bench.log.text());
    assert!(TcpStream::connect(bench.address).is_err(), "nobody listens any more");
}

#[test]
fn what_is_left_at_the_bound_is_cut_and_the_log_says_so() {
    let mut bench = Bench::with(|service| service.with_grace(Duration::from_millis(50)));
    fs::write(bench.dir.path().join("large"), large()).unwrap();
    let mut busy = bench.connect();
    busy.ask("/large");
    busy.head();
    let before = Instant::now();
    bench.handle.shutdown();
    bench.join();
    assert!(before.elapsed() >= Duration::from_millis(50));
    assert!(busy.rest().len() < LARGE);
    let log = bench.log.text();
    assert!(log.contains("sanserve: shutdown: 1 connection"), "{log}");
    assert!(log.contains("\"GET /large HTTP/1.1\" cut after "), "{log}");
}

#[test]
fn stop_cuts_at_once_even_before_it_runs() {
    let mut bench = Bench::new();
    fs::write(bench.dir.path().join("large"), large()).unwrap();
    let mut busy = bench.connect();
    busy.ask("/large");
    busy.head();
    bench.handle.stop();
    bench.join();
    assert!(busy.rest().len() < LARGE);
    for end in [Handle::shutdown, Handle::stop] {
        let service = Service::new(bench.dir.path()).unwrap().with_log(Log::quiet());
        let server = Server::bind(([127, 0, 0, 1], 0).into(), service).unwrap();
        end(&server.handle());
        server.run().unwrap();
    }
}

#[test]
fn no_more_connections_than_the_bound() {
    let bench = Bench::with(|service| service.with_connections(1));
    let mut first = bench.connect();
    first.ask("/a.txt");
    // It has an exchange that goes on: an idle connection would give way.
    first.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n");
    first.answer();
    let mut second = bench.connect();
    second.ask("/sub/b.txt");
    second.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let waiting = second.stream.read(&mut [0]).unwrap_err();
    assert!(matches!(waiting.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waiting}");
    first.send("x");
    first.answer();
    drop(first);
    second.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.answer().1, b"b");
}

/// Sends everything below `/h` to the handler, and panics where told.
struct Handled;

impl Site for Handled {
    fn route(&self, request: &Request<'_>) -> Route {
        assert!(!request.target().starts_with(b"/panic-in-site"), "as the test wants");
        if request.target().starts_with(b"/h") { Route::Handler } else { Route::Files }
    }
}

fn hello(call: Call, reply: &mut Reply<'_>) {
    if call == Call::Request {
        assert!(reply.request().target() != b"/h/panic", "as the test wants");
        reply.respond(Status::OK).unwrap().length(5).send().unwrap();
        assert_eq!(reply.offer(b"hello"), Ok(5));
        reply.finish().unwrap();
    }
}

#[test]
fn a_handler_answers_and_its_panics_are_its_own() {
    let bench = Bench::with(|service| service.with_site(Handled).with_handler(|| hello));
    let mut peer = bench.connect();
    for _ in 0..3 {
        peer.ask("/h/x");
        let (head, body) = peer.answer();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, b"hello");
    }
    peer.ask("/h/panic");
    assert!(peer.answer().0.starts_with("HTTP/1.1 500 "));
    assert!(peer.rest().is_empty());
    let mut other = bench.connect();
    other.ask("/panic-in-site");
    assert!(other.rest().is_empty());
    assert_eq!(bench.get("/h/y").1, b"hello");
    assert_eq!(bench.get("/a.txt").1, b"hello\n");
    let log = bench.log.text();
    assert!(log.contains("the handler panicked") && log.contains("a connection panicked"), "{log}");
}

#[test]
fn without_a_handler_its_routes_are_errors() {
    let bench = Bench::with(|service| service.with_site(Handled));
    assert!(bench.get("/h").0.starts_with("HTTP/1.1 500 "));
    assert_eq!(bench.get("/a.txt").1, b"hello\n");
}

#[test]
fn silence_and_drips_time_out() {
    let timeouts = Timeouts { head: 200, keep_alive: 100, ..Timeouts::default() };
    let bench = Bench::with(|service| service.with_config(Config { timeouts, ..Config::default() }));
    let before = Instant::now();
    assert!(bench.connect().rest().is_empty(), "nothing was asked");
    assert!(before.elapsed() >= Duration::from_millis(100));
    let mut peer = bench.connect();
    peer.ask("/a.txt");
    peer.answer();
    let mut slow = bench.connect();
    slow.send("GET /a.txt HT");
    assert!(peer.rest().is_empty(), "nothing more was asked");
    assert!(slow.answer().0.starts_with("HTTP/1.1 408 "));
    assert!(slow.rest().is_empty());
}

#[test]
fn a_peer_that_reads_nothing_is_cut() {
    let write = Pace { silence: 100, grace: 100_000, rate: 0 };
    let timeouts = Timeouts { write, ..Timeouts::default() };
    let mut bench = Bench::with(|service| service.with_config(Config { timeouts, ..Config::default() }));
    fs::write(bench.dir.path().join("large"), large()).unwrap();
    let mut file = bench.connect();
    file.ask("/large");
    file.head();
    // So many small answers that they fill the socket, and the batch with them.
    let mut batch = bench.connect();
    batch.ask("/a.txt");
    batch.answer();
    batch.stream.set_nonblocking(true).unwrap();
    let requests = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    while batch.stream.write(requests.as_bytes()).is_ok() {}
    // Only when both are gone does the server end by itself.
    bench.handle.shutdown();
    bench.join();
    let log = bench.log.text();
    assert!(log.contains("\"GET /large HTTP/1.1\" cut after "), "{log}");
    assert!(!log.contains("shutdown:"), "{log}");
    drop((file, batch));
}

#[test]
fn an_embedder_brings_the_executor() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "mine").unwrap();
    let service = Service::new(dir.path()).unwrap().with_log(Log::quiet());
    let server = Server::bind(([127, 0, 0, 1], 0).into(), service).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /a.txt HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        handle.shutdown();
        answer
    });
    let executor = smol::Executor::new();
    smol::block_on(executor.run(server.serve(&executor))).unwrap();
    assert!(client.join().unwrap().ends_with("\r\n\r\nmine"));
}

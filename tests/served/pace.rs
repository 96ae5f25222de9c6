//! Slow and idle clients that are not malicious.

use std::time::{Duration, Instant};

use testkit::tree::Pattern;
use testkit::{Client, Runtime, Server, Tree};

/// A client with a tiny window, for which the server has to wait repeatedly.
pub fn a_slow_reader(rt: Runtime) {
    const SIZE: u64 = 10_000_000;
    let tree = Tree::plain();
    tree.patterned("big.bin", SIZE);
    let server = Server::start(rt, tree.root());
    let mut slow = Client::connect_narrow(server.address());
    slow.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut other = server.connect();
    let pattern = Pattern::new();
    let (mut at, mut next) = (0, 0);
    let head = slow.receive(false, |bytes| {
        pattern.check(at, bytes);
        at += bytes.len() as u64;
        if at >= next {
            // While this client does not read, another one is served.
            assert_eq!(other.get("/a.txt").body, b"alpha\n");
            next += 500_000;
        }
    });
    assert_eq!((head.status, at), (200, SIZE));
    assert_eq!(slow.get("/a.txt").body, b"alpha\n");
}

/// A generated page, not a file, for a slow reader.
pub fn a_slow_reader_of_a_listing(rt: Runtime) {
    let tree = Tree::new();
    for n in 0..3000 {
        tree.file(format!("a-name-that-is-rather-long-so-that-the-page-is-too-{n:05}"), "");
    }
    let server = Server::start(rt, tree.root());
    let mut quick = server.connect();
    let whole = quick.get("/");
    let mut slow = Client::connect_narrow(server.address());
    slow.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut received = Vec::new();
    slow.receive(false, |bytes| {
        received.extend_from_slice(bytes);
        if received.len() % 7 == 0 {
            quick.get("/none");
        }
    });
    assert!(received == whole.body, "the page differs");
}

/// A thousand idle connections do not slow down the next one, and stay open.
pub fn a_thousand_idle_connections(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--max-connections", "4000", "--keep-alive", "120"]);
    let mut idle: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    for client in idle.iter_mut().step_by(2) {
        assert_eq!(client.get("/a.txt").status(), 200);
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.get("/a.txt").body, b"alpha\n");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "20 requests took {:?}", start.elapsed());
    for client in &mut idle {
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
    }
}

/// A client that sends its requests byte by byte is served like any other.
pub fn single_bytes_beside_others(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let (mut slow, mut quick) = (server.connect(), server.connect());
    for byte in b"GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n" {
        slow.send([*byte]);
        assert_eq!(quick.get("/a.txt").body, b"alpha\n");
    }
    assert_eq!(slow.response().body, b"<p>beta</p>\n");
}

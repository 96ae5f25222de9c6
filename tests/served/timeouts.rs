//! Every wait for a peer ends. The timeouts are short here, and that they can be set is part of the test.

use std::time::{Duration, Instant};

use testkit::page::check_any_error;
use testkit::{Client, Runtime, Server, Tree, eventually};

/// The least and the most that a timeout of 0.3 s or a little more may take; the upper bound is for loaded machines.
const AT_LEAST: Duration = Duration::from_millis(250);
const AT_MOST: Duration = Duration::from_secs(10);

#[track_caller]
fn check(start: Instant) {
    let took = start.elapsed();
    assert!((AT_LEAST..AT_MOST).contains(&took), "it took {took:?}");
}

/// A head that does not end: 408, and the connection ends.
pub fn a_head_without_an_end(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--head-timeout", "0.3"]);
    for beginning in ["G", "GET /a.txt HTTP/1.1", "GET /a.txt HTTP/1.1\r\nHost: x\r\n", "\r\nG"] {
        let start = Instant::now();
        let mut client = server.connect();
        client.send(beginning);
        let response = client.response();
        check_any_error(&response, 408);
        assert!(response.head.closes());
        client.ends();
        check(start);
    }
}

/// Single bytes do not extend the timeout.
pub fn a_dripping_head(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--head-timeout", "0.5", "--keep-alive", "30"]);
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    let start = Instant::now();
    client.send("GET /a.txt HTTP/1.1\r\nX: ");
    while !client.is_readable() {
        assert!(start.elapsed() < AT_MOST, "the head has not timed out");
        std::thread::sleep(Duration::from_millis(20));
        if client.try_send("x").is_err() {
            break;
        }
    }
    check(start);
    check_any_error(&client.response(), 408);
    client.ends();
}

/// A connection without a request is closed without a response, before the first request and between two.
pub fn keep_alive(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--keep-alive", "0.8"]);
    let start = Instant::now();
    server.connect().ends();
    check(start);
    let mut client = server.connect();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(client.get("/a.txt").status(), 200, "each request restarts the timeout");
    }
    let start = Instant::now();
    client.ends();
    check(start);
}

/// The timeout of a head does not include the idle time before it.
pub fn keep_alive_is_not_the_head_timeout(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--keep-alive", "30", "--head-timeout", "0.3"]);
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(client.get("/a.txt").status(), 200);
}

/// A body that does not arrive: at most one response, and the end.
pub fn a_body_without_an_end(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--body-timeout", "0.3"]);
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        for (method, status) in [("GET", 200), ("POST", 501)] {
            let start = Instant::now();
            let mut client = server.connect();
            client.send(format!("{method} /a.txt HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5"));
            let response = client.response();
            assert!([status, 408].contains(&response.status()), "{:?}", response.head);
            client.ends();
            assert!(start.elapsed() < AT_MOST);
        }
    }
}

/// A peer that does not read its response is cut.
pub fn a_response_that_is_not_read(rt: Runtime) {
    const SIZE: u64 = 64 << 20;
    let tree = Tree::plain();
    tree.sparse("big.bin", SIZE);
    let server = Server::with(rt, tree.root(), &["--write-timeout", "0.3"]);
    assert_eq!(server.get("/a.txt").status(), 200);
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let start = Instant::now();
    server.log_line("of the cut download", |line| line.contains("\"GET /big.bin HTTP/1.1\" "));
    check(start);
    let (received, _) = client.rest_however();
    assert!((received.len() as u64) < SIZE, "{} bytes", received.len());
}

/// While many connections wait, and after that, others are served.
pub fn timers_of_many_connections(rt: Runtime) {
    let tree = Tree::plain();
    let server =
        Server::with(rt, tree.root(), &["--head-timeout", "0.4", "--keep-alive", "0.4", "--max-connections", "2000"]);
    assert_eq!(server.get("/a.txt").status(), 200);
    let mut waiting: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for client in waiting.iter_mut().step_by(2) {
        client.send("GET /");
    }
    for _ in 0..20 {
        assert_eq!(server.get("/a.txt").status(), 200);
    }
    for (at, client) in waiting.iter_mut().enumerate() {
        if at % 2 == 0 {
            check_any_error(&client.response(), 408);
        }
        client.ends();
    }
    drop(waiting);
    eventually("only the listening sockets are left", || server.process().descriptors() < 60);
}

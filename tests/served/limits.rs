//! Limits: the largest size that passes, and the smallest that does not.

use std::time::{Duration, Instant};

use testkit::page::{check_any_error, check_error};
use testkit::{Runtime, Server, Tree};

/// A request line of 65,536 bytes, including its line terminator, is accepted; one of 65,537 is a 414.
pub fn the_request_line(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let request = |length: usize| {
        let around = "GET /a.txt? HTTP/1.1\r\n".len();
        format!("GET /a.txt?{} HTTP/1.1\r\nHost: x\r\n\r\n", "q".repeat(length - around))
    };
    for length in [65_535, 65_536] {
        let mut client = server.connect();
        assert_eq!(client.ask(request(length)).body, b"alpha\n", "{length}");
        assert_eq!(client.ask(request(length)).body, b"alpha\n", "{length}, on the same connection");
        client.send_cut(request(length).as_bytes(), &[1, 4095, 4096, 30_000, 65_000, length - 1, length]);
        assert_eq!(client.response().body, b"alpha\n", "{length}, in pieces");
    }
    for length in [65_537, 65_538, 70_000, 140_000] {
        let response = server.ask(request(length));
        check_error(&response, 414, "URI Too Long");
        assert!(response.head.closes(), "{length}");
    }
    // Without an end: the response does not wait for one.
    let mut client = server.connect();
    client.send(format!("GET /{}", "a".repeat(65_536)));
    check_error(&client.response(), 414, "URI Too Long");
    client.ends();
}

/// A method without an end is refused as soon as the line is too long, and quickly (gh-87979).
pub fn a_huge_method(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("A".repeat(70_000));
    let response = client.response();
    assert!([400, 414, 501].contains(&response.status()), "{:?}", response.head);
    assert!(response.head.closes());
    client.ends();
}

/// A field line of 65,536 bytes, including its line terminator, is accepted; one of 65,537 is a 431.
pub fn a_field_line(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let request = |length: usize| {
        let value = "v".repeat(length - "X: \r\n".len());
        format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nX: {value}\r\n\r\n")
    };
    for length in [65_535, 65_536] {
        let mut client = server.connect();
        assert_eq!(client.ask(request(length)).body, b"alpha\n", "{length}");
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "{length}");
    }
    for length in [65_537, 65_538, 120_000] {
        let response = server.ask(request(length));
        check_error_431(&response, "Line too long");
    }
    let mut client = server.connect();
    client.send(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nX: {}", "v".repeat(65_536)));
    check_error_431(&client.response(), "Line too long");
    client.ends();
}

/// 99 fields are accepted; 100 are a 431.
pub fn the_number_of_fields(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let request = |fields: usize| {
        let others: String = (1..fields).map(|n| format!("X-{n}: {n}\r\n")).collect();
        format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{others}\r\n")
    };
    for fields in [98, 99] {
        let mut client = server.connect();
        assert_eq!(client.ask(request(fields)).body, b"alpha\n", "{fields}");
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "{fields}");
    }
    for fields in [100, 101, 200, 5000] {
        let response = server.ask(request(fields));
        check_error_431(&response, "Too many headers");
    }
}

/// The head as a whole is limited too.
pub fn the_whole_head(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let request = |length: usize| {
        let start = "GET /a.txt HTTP/1.1\r\nHost: x\r\n";
        let field = format!("X: {}\r\n", "v".repeat(995));
        let mut request = start.to_owned() + &field.repeat(90);
        let left = length - request.len() - "Y: \r\n\r\n".len();
        request += &format!("Y: {}\r\n\r\n", "v".repeat(left));
        assert_eq!(request.len(), length);
        request
    };
    for length in [100_000, 131_072] {
        assert_eq!(server.ask(request(length)).body, b"alpha\n", "{length}");
    }
    for length in [131_073, 150_000] {
        let response = server.ask(request(length));
        check_any_error(&response, 431);
        assert!(response.head.closes(), "{length}");
    }
}

/// The lines of a chunked body and its trailers are limited.
pub fn chunk_lines_and_trailers(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let start = "GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let next = "GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n";
    let many: String = (0..100).map(|n| format!("T-{n}: {n}\r\n")).collect();
    let bodies = [
        (format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(900)), true),
        (format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(1 << 20)), false),
        (format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(1 << 20)), false),
        ("0\r\nT: t\r\n\r\n".to_owned(), true),
        (format!("0\r\nT: {}\r\n\r\n", "t".repeat(1 << 20)), false),
        (format!("0\r\n{}\r\n", many.repeat(50)), false),
    ];
    for (body, fine) in bodies {
        let mut client = server.connect();
        client.send(format!("{start}{body}{next}"));
        client.half_close();
        let first = client.response();
        let shown = &body[..20.min(body.len())];
        if fine {
            assert_eq!(first.body, b"alpha\n", "{shown:?}");
            assert_eq!(client.response().body, b"<p>beta</p>\n", "{shown:?}");
        } else {
            assert!([200, 400, 431].contains(&first.status()), "{shown:?}: {:?}", first.head);
        }
        client.ends();
    }
}

/// More empty lines before a request than occur by mistake are refused.
pub fn blank_lines(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let request = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(server.ask("\r\n".repeat(4) + request).status(), 200);
    let mut client = server.connect();
    client.send("\r\n".repeat(100_000) + request);
    check_any_error(&client.response(), 400);
    client.ends();
}

/// The limit of connections: if each has an exchange in progress, a further client waits, and is served once there is
/// room.
pub fn connections(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 64 << 20);
    let server = Server::with(rt, tree.root(), &[rt.alone(), &["--max-connections", "8"]].concat());
    let mut held: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut held {
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        client.skip(1_000);
    }
    let mut above = server.connect();
    above.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for client in &mut held {
        client.skip(8 << 20);
    }
    assert!(!above.is_readable(), "a connection with an exchange was closed");
    held.truncate(4);
    assert_eq!(above.response().body, b"alpha\n");
    above.ends();
    for client in &mut held {
        client.skip(8 << 20);
    }
}

/// At the limit of connections, the one that has been idle longest is closed to make room, and each new client is
/// served immediately. A connection counts as idle since its last request, or since it was opened.
pub fn idle_connections_are_closed_to_make_room(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 64 << 20);
    for workers in ["1", "3"] {
        let workers: &[&str] = if rt == Runtime::Std { &[] } else { &["--workers", workers] };
        let server = Server::with(rt, tree.root(), &[workers, &["--max-connections", "6"]].concat());
        let mut busy = server.connect();
        busy.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        busy.skip(1_000);
        let silent = server.connect();
        let mut held: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for client in &mut held {
            assert_eq!(client.get("/a.txt").status(), 200);
            // Ages are measured in milliseconds.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(held[0].get("/a.txt").status(), 200, "it is now the least idle");
        std::thread::sleep(Duration::from_millis(20));
        let mut order = [Some(silent)].into_iter().chain([1, 2, 3, 0].map(|_| None)).collect::<Vec<_>>();
        let mut rest: Vec<_> = held.into_iter().map(Some).collect();
        for (at, n) in [(1, 1), (2, 2), (3, 3), (4, 0)] {
            order[at] = rest[n].take();
        }
        let mut order: Vec<_> = order.into_iter().flatten().collect();
        let mut new = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let mut client = server.connect();
            assert_eq!(client.get("/a.txt").status(), 200);
            assert!(start.elapsed() < Duration::from_secs(5), "it has waited for {:?}", start.elapsed());
            order.remove(0).ends();
            assert!(order.iter().all(|other| !other.is_readable()), "another connection was closed");
            new.push(client);
            std::thread::sleep(Duration::from_millis(20));
        }
        busy.skip(8 << 20);
        // The next ones are those that were opened later.
        assert_eq!(server.get("/a.txt").status(), 200);
        new.remove(0).ends();
    }
}

/// A request that has arrived before its connection would be closed to make room is answered.
pub fn no_request_is_lost_to_a_new_client(rt: Runtime) {
    let tree = Tree::plain();
    for _ in 0..10 {
        let server = Server::with(rt, tree.root(), &["--max-connections", "8"]);
        let mut held: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut held {
            assert_eq!(client.get("/a.txt").status(), 200);
        }
        for client in &mut held {
            client.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        // The connections that were just idle have an exchange in progress now, whether the server has noticed or
        // not.
        let mut other = server.connect();
        other.send("GET /b.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        for client in &mut held {
            assert_eq!(client.response().body, b"alpha\n");
        }
        assert_eq!(other.response().body, b"<p>beta</p>\n");
    }
}

/// Connections with incomplete heads do not keep their places for long if other clients wait.
pub fn unfinished_heads_are_closed_to_make_room(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--max-connections", "8"]);
    let mut slow: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET /a.txt HTTP/1.1\r\nHost: ");
    }
    let start = Instant::now();
    // These connections stay open, so each takes a place.
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect();
        assert_eq!(client.get("/a.txt").status(), 200);
        others.push(client);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "not before the head timeout: {:?}", start.elapsed());
}

/// All connections share one limit of memory: long heads beyond it are a 503 and a line in the log, and requests that
/// need little are served.
pub fn memory(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--max-memory", "1M"]);
    let head = format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nA: {}\r\nB: {}", "a".repeat(60_000), "b".repeat(40_000));
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        // A refused connection may have been reset already.
        let _ = client.try_send(&head);
    }
    assert_eq!(server.get("/a.txt").body, b"alpha\n");
    let line = server.log_line("the limit", |line| line.contains("--max-memory"));
    assert!(line.starts_with("sanserve: connections hold ") && line.contains(" of the 1048576 bytes "), "{line}");
    let (mut served, mut refused) = (0, 0);
    for client in &mut clients {
        let _ = client.try_send("\r\n\r\n");
        let (answer, _) = client.rest_after_half_close();
        match answer {
            _ if answer.starts_with(b"HTTP/1.1 200 ") => served += 1,
            _ if answer.starts_with(b"HTTP/1.1 503 No memory for a head of this size\r\n") => refused += 1,
            // A peer that keeps sending may be reset before it has read the error.
            _ => assert!(answer.is_empty(), "{}", answer.escape_ascii()),
        }
    }
    // The numbers depend on how far each head has grown when the others arrive.
    assert!(served >= 2 && refused >= 5, "{served} were served, {refused} refused");
    // All memory was returned.
    let mut client = server.connect();
    assert_eq!(client.ask(head.clone() + "\r\n\r\n").status(), 200);
}

/// Listings share the limit.
pub fn memory_of_listings(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("many");
    for n in 0..3_000 {
        tree.file(format!("many/a-name-that-is-not-short-{n:05}"), "");
    }
    let server = Server::with(rt, tree.root(), &["--max-memory", "512K"]);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /many/ HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status()).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert_eq!(server.get("/many/").status(), 200, "all memory was returned");
}

#[track_caller]
fn check_error_431(response: &testkit::Response, message: &str) {
    check_error(response, 431, message);
    assert!(response.head.closes());
}

//! SIGTERM and SIGINT: the exchanges in progress are finished, within the grace.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use testkit::tree::Pattern;
use testkit::{Client, Runtime, Server, Tree, eventually};

const PROMPT: Duration = Duration::from_secs(5);

/// SIGTERM during a download of 100 MB: it arrives completely, then the server ends with exit code 0.
pub fn a_download_is_finished(rt: Runtime) {
    const SIZE: u64 = 100_000_000;
    let tree = Tree::plain();
    tree.patterned("big.bin", SIZE);
    let mut server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt").status(), 200);
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let pattern = Pattern::new();
    let mut at = 0;
    let head = client.receive(false, |bytes| {
        if at == 0 {
            server.process().signal(Signal::TERM);
            idle.ends();
            eventually("no connection is accepted any more", || TcpStream::connect(server.address()).is_err());
        }
        pattern.check(at, bytes);
        at += bytes.len() as u64;
    });
    assert_eq!((head.status, at), (200, SIZE));
    client.ends();
    assert_eq!(server.process_mut().ended().code(), Some(0));
    let logged = format!("\"GET /big.bin HTTP/1.1\" 200 {SIZE}");
    assert!(server.process().stderr.so_far().iter().any(|line| line.ends_with(&logged)));
}

/// Without an exchange in progress, the server ends immediately, with or without idle connections.
pub fn nothing_in_progress(rt: Runtime) {
    let tree = Tree::plain();
    for connections in [0, 50] {
        let mut server = Server::start(rt, tree.root());
        let mut clients: Vec<Client> = (0..connections).map(|_| server.connect()).collect();
        for client in clients.iter_mut().step_by(2) {
            assert_eq!(client.get("/a.txt").status(), 200);
        }
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
        for client in &mut clients {
            let (rest, _) = client.rest_however();
            assert_eq!(rest, b"");
        }
    }
}

/// A client that does not read delays the end by no more than the grace, and the cut is logged.
pub fn a_stalled_client_is_cut(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 100 << 20);
    let mut server = Server::with(rt, tree.root(), &["--grace", "0.5"]);
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    client.skip(1);
    let start = Instant::now();
    server.process().signal(Signal::TERM);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(450), "the grace is used: {:?}", start.elapsed());
    let lines = server.process().stderr.so_far();
    assert!(lines.iter().any(|line| line.contains("/big.bin") && line.contains("cut")), "{lines:?}");
    let is_logged = |line: &&String| line.contains("shutdown: 1 connection not done after 500ms is cut");
    assert_eq!(lines.iter().filter(is_logged).count(), 1, "{lines:?}");
    let (rest, _) = client.rest_however();
    assert!(rest.len() < 100 << 20);
}

/// A request that has arrived in part may be completed too, but does not delay the end for long.
pub fn half_a_request(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::with(rt, tree.root(), &["--grace", "0.5"]);
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHo");
    assert_eq!(server.get("/a.txt").status(), 200);
    server.process().signal(Signal::TERM);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    let (rest, _) = client.rest_however();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4") || rest.starts_with(b"HTTP/1.1 503"));
}

/// Ctrl-C does the same as SIGTERM, with the messages of Python.
pub fn interrupt(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    assert_eq!(server.get("/a.txt").status(), 200);
    server.process().signal(Signal::INT);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    let written = String::from_utf8(server.process().stdout.bytes()).expect("text");
    let (banner, words) = written.split_once('\n').expect("a banner");
    assert!(banner.starts_with("Serving HTTP on "));
    assert_eq!(words, "\nKeyboard interrupt received, exiting.\n");
}

/// A second signal, of either kind, ends the server immediately.
pub fn a_second_signal(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 100 << 20);
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut server = Server::with(rt, tree.root(), &["--grace", "60"]);
        let mut client = Client::connect_narrow(server.address());
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        client.skip(1);
        server.process().signal(first);
        eventually("no connection is accepted any more", || TcpStream::connect(server.address()).is_err());
        assert!(server.process_mut().runs(), "the download is still in progress");
        server.process().signal(second);
        server.process_mut().ended_within(PROMPT);
    }
}

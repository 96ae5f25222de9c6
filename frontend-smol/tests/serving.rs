//! The frontend over real sockets. The common behaviour of all frontends is tested by the suite of the root package;
//! here are the tests that this frontend needs on its own.

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use sanserve_core::{Call, Config, HandlerError, Pace, Policy, Reply, Request, Route, StatusCode, Timeouts};
use sanserve_server::{Log, Site};
use sanserve_smol::{Handle, Server};
use testkit::{Client, Embedded, Tree, bound};

const LARGE: usize = 20 << 20;

/// Bytes in which any shift is visible.
fn large() -> Vec<u8> {
    (0..LARGE as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Runs a server of two threads on a directory with `a.txt` and `sub/b.txt`.
fn run(change: impl FnOnce(Site) -> Site) -> Embedded {
    let tree = Tree::new();
    tree.file("a.txt", "hello\n").folder("sub").file("sub/b.txt", "b");
    Embedded::start(tree, |root, log| {
        let site = change(Site::new(root).unwrap().with_log(Log::to(log)));
        bound!(Server::bind("127.0.0.1:0", site).unwrap().workers(2))
    })
}

/// A server with all defaults.
fn plain() -> Embedded {
    run(|site| site)
}

/// Requests a path.
fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
}

#[test]
fn serves_a_file_a_listing_and_a_404() {
    let server = plain();
    let file = server.get("/a.txt");
    assert!(file.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", file.head);
    assert_eq!(file.body, b"hello\n");
    let listing = server.get("/sub/");
    assert!(listing.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", listing.head);
    assert!(listing.body_text().contains("<a href=\"b.txt\">b.txt</a>"));
    assert!(server.get("/nope").head.starts_with("HTTP/1.1 404 "));
    assert!(server.get("/sub").head.starts_with("HTTP/1.1 301 "));
}

#[test]
fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let server = plain();
    for n in 0..50 {
        fs::write(server.tree.path(format!("{n}.txt")), n.to_string()).unwrap();
    }
    let mut peer = server.connect();
    for round in 0..3 {
        let requests: String = (0..50).map(|n| format!("GET /{n}.txt HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        peer.send(&requests);
        for n in 0..50 {
            assert_eq!(peer.response().body, n.to_string().as_bytes(), "round {round}");
        }
    }
    peer.dribble("GET /7.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(peer.response().body, b"7");
}

#[test]
fn a_peer_that_half_closes_gets_its_response() {
    let server = plain();
    let mut peer = server.connect();
    ask(&mut peer, "/a.txt");
    peer.half_close();
    assert_eq!(peer.response().body, b"hello\n");
    assert!(peer.rest_however().0.is_empty());
}

#[test]
fn a_large_file_arrives_complete() {
    let server = plain();
    let content = large();
    fs::write(server.tree.path("large"), &content).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(server.get("/large").body == content, "the bytes differ"));
        }
    });
}

#[test]
fn a_slow_reader_gets_everything_and_delays_no_other_client() {
    let server = plain();
    let content = large();
    fs::write(server.tree.path("large"), &content).unwrap();
    let mut slow = server.connect();
    // Small responses after a large one, so that the batch meets a full socket too.
    slow.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    slow.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
    let head = slow.head();
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.get("/a.txt").body, b"hello\n");
    for expected in content.chunks(3000) {
        assert!(slow.take(expected.len()) == expected, "the bytes differ");
    }
    assert!(slow.response().body == content, "the bytes differ");
    for _ in 0..20 {
        assert_eq!(slow.response().body, b"hello\n");
    }
}

#[test]
fn idle_connections_end_immediately_and_a_download_in_progress_is_finished() {
    let mut server = plain();
    let content = large();
    fs::write(server.tree.path("large"), &content).unwrap();
    let mut idle = server.connect();
    ask(&mut idle, "/a.txt");
    idle.response();
    let mut silent = server.connect();
    let mut busy = server.connect();
    ask(&mut busy, "/large");
    assert!(busy.head().starts_with("HTTP/1.1 200 "));
    // `silent` was accepted before, since both were in the same queue.
    let before = Instant::now();
    server.shutdown();
    assert!(idle.rest_however().0.is_empty());
    assert!(silent.rest_however().0.is_empty());
    assert!(before.elapsed() < Duration::from_secs(5), "idle connections have waited for a timeout");
    assert!(server.runs(), "a download is in progress");
    assert!(busy.rest_however().0 == content, "the download is complete");
    drop(busy);
    server.join();
    assert!(!server.log.text().contains("shutdown:"), "{}", server.log.text());
    assert!(TcpStream::connect(server.address).is_err(), "the listener is closed");
}

#[test]
fn unfinished_exchanges_are_cut_and_logged_after_the_grace() {
    let mut server = run(|site| site.with_grace(Duration::from_millis(50)));
    fs::write(server.tree.path("large"), large()).unwrap();
    let mut busy = server.connect();
    ask(&mut busy, "/large");
    busy.head();
    let before = Instant::now();
    server.shutdown();
    server.join();
    assert!(before.elapsed() >= Duration::from_millis(50));
    assert!(busy.rest_however().0.len() < LARGE);
    let log = server.log.text();
    assert!(log.contains("sanserve: shutdown: 1 connection"), "{log}");
    assert!(log.contains("\"GET /large HTTP/1.1\" cut after "), "{log}");
}

#[test]
fn stop_cuts_immediately_even_before_the_server_runs() {
    let mut server = plain();
    fs::write(server.tree.path("large"), large()).unwrap();
    let mut busy = server.connect();
    ask(&mut busy, "/large");
    busy.head();
    server.stop();
    server.join();
    assert!(busy.rest_however().0.len() < LARGE);
    for end in [Handle::shutdown, Handle::stop] {
        let site = Site::new(server.tree.root()).unwrap().with_log(Log::quiet());
        let server = Server::bind("127.0.0.1:0", site).unwrap();
        end(&server.handle());
        server.run().unwrap();
    }
}

#[test]
fn connections_are_limited() {
    let server = run(|site| site.with_connections(1));
    let mut first = server.connect();
    first.occupy();
    let mut second = server.connect();
    ask(&mut second, "/sub/b.txt");
    assert!(second.is_silent());
    first.release();
    drop(first);
    assert_eq!(second.response().body, b"b");
}

/// Routes everything below `/h` to the handler, and panics for some paths.
struct Handled;

impl Policy for Handled {
    fn route(&self, request: &Request<'_>) -> Route {
        assert!(!request.target().starts_with(b"/panic-in-site"), "on purpose");
        if request.target().starts_with(b"/h") { Route::Handler } else { Route::Files }
    }
}

fn hello(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        assert!(reply.request().target() != b"/h/panic", "on purpose");
        reply.respond(StatusCode::OK).unwrap().length(5).send().unwrap();
        assert_eq!(reply.write(b"hello"), Ok(5));
        reply.finish().unwrap();
    }
    Ok(())
}

#[test]
fn a_handler_responds_and_its_panics_end_only_its_exchange() {
    let server = run(|site| site.with_policy(Handled).with_handler(|| hello));
    let mut peer = server.connect();
    for _ in 0..3 {
        ask(&mut peer, "/h/x");
        let answer = peer.response();
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
        assert_eq!(answer.body, b"hello");
    }
    ask(&mut peer, "/h/panic");
    assert!(peer.response().head.starts_with("HTTP/1.1 500 "));
    assert!(peer.rest_however().0.is_empty());
    let mut other = server.connect();
    ask(&mut other, "/panic-in-site");
    assert!(other.rest_however().0.is_empty());
    assert_eq!(server.get("/h/y").body, b"hello");
    assert_eq!(server.get("/a.txt").body, b"hello\n");
    let log = server.log.text();
    assert!(log.contains("the handler panicked") && log.contains("the connection panicked"), "{log}");
}

#[test]
fn routes_to_a_missing_handler_are_errors() {
    let server = run(|site| site.with_policy(Handled));
    assert!(server.get("/h").head.starts_with("HTTP/1.1 500 "));
    assert_eq!(server.get("/a.txt").body, b"hello\n");
}

#[test]
fn silent_and_slow_peers_time_out() {
    let timeouts =
        Timeouts::default().with_head(Duration::from_millis(200)).with_keep_alive(Duration::from_millis(100));
    let server = run(|site| site.with_config(Config::default().with_timeouts(timeouts)));
    let before = Instant::now();
    assert!(server.connect().rest_however().0.is_empty(), "no request was sent");
    assert!(before.elapsed() >= Duration::from_millis(100));
    let mut peer = server.connect();
    ask(&mut peer, "/a.txt");
    peer.response();
    let mut slow = server.connect();
    slow.send("GET /a.txt HT");
    assert!(peer.rest_however().0.is_empty(), "no further request was sent");
    assert!(slow.response().head.starts_with("HTTP/1.1 408 "));
    assert!(slow.rest_however().0.is_empty());
}

#[test]
fn a_peer_that_reads_nothing_is_cut() {
    let write = Pace::new(Duration::from_millis(100), Duration::from_secs(100), 0);
    let timeouts = Timeouts::default().with_write(write);
    let mut server = run(|site| site.with_config(Config::default().with_timeouts(timeouts)));
    fs::write(server.tree.path("large"), large()).unwrap();
    let mut file = server.connect();
    ask(&mut file, "/large");
    file.head();
    // So many small responses that they fill the socket, and the batch with them.
    let mut batch = server.connect();
    ask(&mut batch, "/a.txt");
    batch.response();
    batch.send_while_taken("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000).as_bytes());
    // The server only ends by itself when both connections have ended.
    server.shutdown();
    server.join();
    let log = server.log.text();
    assert!(log.contains("\"GET /large HTTP/1.1\" cut after "), "{log}");
    assert!(!log.contains("shutdown:"), "{log}");
    drop((file, batch));
}

#[test]
fn an_embedder_provides_the_executor() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "mine").unwrap();
    let site = Site::new(dir.path()).unwrap().with_log(Log::quiet());
    let server = Server::bind("127.0.0.1:0", site).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let client = thread::spawn(move || {
        let answer = Client::connect(address).ask("GET /a.txt HTTP/1.0\r\n\r\n");
        handle.shutdown();
        answer.body
    });
    let executor = smol::Executor::new();
    smol::block_on(executor.run(server.serve(&executor))).unwrap();
    assert_eq!(client.join().unwrap(), b"mine");
}

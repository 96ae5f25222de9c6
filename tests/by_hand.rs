//! The drivers for readers, over real sockets: the examples of the core, and the frontend over poll(2), whose code
//! must agree with its page in the documentation.

#[path = "../core/examples/blocking.rs"]
#[allow(dead_code, unreachable_pub, reason = "its `main` is not run")]
mod blocking;
#[path = "../core/examples/in_memory.rs"]
#[allow(unreachable_pub, reason = "it is a program")]
mod in_memory;
#[path = "../examples/polling_frontend.rs"]
#[allow(dead_code, unreachable_pub, reason = "its `main` is not run")]
mod polling_frontend;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use sanserve_core::{Call, Cgi, Config, HandlerError, Pace, Reply, Timeouts};
use sanserve_server::{Log, Site};
use testkit::tree::Tree;
use testkit::{Bound, Client, Embedded};

#[test]
fn in_memory() {
    in_memory::main();
    // In pieces, the result is the same.
    let sent = in_memory::exchange(b"HEAD /x HTTP/1.0\r\n\r\n", &mut in_memory::hello);
    assert!(sent.starts_with(b"HTTP/1.1 200 OK\r\n") && sent.ends_with(b"\r\n\r\n"));
}

#[test]
fn over_blocking_sockets() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = Client::connect(listener.local_addr().unwrap());
    let server = thread::spawn(move || blocking::serve(listener.accept().unwrap().0, Instant::now()));
    for _ in 0..3 {
        let page = client.get("/");
        assert_eq!((page.status(), page.body_text()), (200, "<!DOCTYPE html><title>Hello</title>\n"));
        assert_eq!(client.get("/index.html").body, page.body);
        assert_eq!(client.get("/none").status(), 404);
    }
    let part = client.ask("GET /index.html HTTP/1.1\r\nHost: a\r\nRange: bytes=1-8\r\n\r\n");
    assert_eq!((part.status(), part.body_text()), (206, "!DOCTYPE"));
    client.half_close();
    client.ends();
    server.join().unwrap().unwrap();
}

/// Prints its query, then its input.
const SCRIPT: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s\\n' \"$QUERY_STRING\"\nexec cat\n";

/// Runs the frontend over poll(2) on a thread.
fn start(timeouts: Timeouts) -> Embedded {
    let tree = Tree::new();
    tree.file("a.txt", "hello\n").file("big", vec![b'x'; 8 << 20]);
    tree.folder("cgi-bin");
    // If this is root, scripts run as nobody.
    fs::set_permissions(tree.outside(), fs::Permissions::from_mode(0o755)).unwrap();
    testkit::scripts::install(&tree, "cgi-bin", &[("echo", SCRIPT)]);
    Embedded::start(tree, |root, log| {
        let site = Site::new(root)
            .unwrap()
            .with_log(Log::to(log))
            .with_config(Config::default().with_cgi(Cgi::python()).with_timeouts(timeouts))
            .with_grace(Duration::from_secs(10))
            .with_handler(|| handler);
        let listener = sanserve_os::bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let server = polling_frontend::Server::new(listener, site).unwrap();
        let (gently, at_once) = (server.handle(), server.handle());
        Bound::new(address, move || gently.shutdown(), move || at_once.stop(), || server.run())
    })
}

/// Wakers of finished exchanges.
static STALE: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

/// The handler of the example, and one that waits for a wake-up.
fn handler(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    match (call, reply.request().path()) {
        (Call::Request, b"/later") => {
            let waker = reply.waker();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                waker.wake();
            });
        }
        (Call::Request, b"/stale") => {
            reply.answer(sanserve_core::StatusCode::OK, "text/plain", "kept\n").unwrap();
            STALE.lock().unwrap().push(reply.waker());
        }
        // A handler that is woken without a waker reports it.
        (Call::Wake, b"/waits") => {
            reply.answer(sanserve_core::StatusCode::OK, "text/plain", "woken by another exchange\n").unwrap();
        }
        (Call::Request, b"/waits") => {
            thread::spawn(|| STALE.lock().unwrap().drain(..).for_each(Waker::wake));
        }
        (Call::Drain, b"/waits") => {
            reply.answer(sanserve_core::StatusCode::OK, "text/plain", "not woken\n").unwrap();
        }
        (Call::Wake, b"/later") => {
            reply.answer(sanserve_core::StatusCode::OK, "text/plain", "woken\n").unwrap();
        }
        _ => polling_frontend::hello(call, reply)?,
    }
    Ok(())
}

#[test]
fn the_polling_frontend_serves_files_handlers_and_scripts() {
    let server = start(Timeouts::default());
    let mut client = Client::connect(server.address);
    assert_eq!(client.get("/a.txt").body_text(), "hello\n");
    assert!(client.get("/").body_text().contains("a.txt"));
    let part = client.ask("GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n");
    assert_eq!((part.status(), part.body_text()), (206, "el"));
    assert_eq!(client.get("/none").status(), 404);
    assert_eq!(client.get("/hello").body_text(), "hello\n");
    assert_eq!(client.get("/later").body_text(), "woken\n");
    assert_eq!(client.get("/big").body.len(), 8 << 20);
    assert_eq!(client.get("/cgi-bin/echo?q").body_text(), "q\n");
    let body = vec![b'y'; 1 << 20];
    let request = testkit::scripts::request("POST", "/cgi-bin/echo?p", "", &body);
    let mut twin = client.twin();
    let sending = thread::spawn(move || twin.send(request));
    let echoed = client.response();
    sending.join().unwrap();
    assert_eq!((echoed.status(), &echoed.body[..2], &echoed.body[2..]), (200, &b"p\n"[..], &body[..]));
    let chunked = [
        b"POST /cgi-bin/echo?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
        &testkit::scripts::chunked(b"in pieces", 2),
    ];
    assert_eq!(client.ask(chunked.concat()).body_text(), "c\nin pieces");
    server.shutdown();
    client.ends();
    let log = server.ended();
    assert_eq!(log.matches("\" 200 ").count(), 8, "{log}");
}

#[test]
fn the_polling_frontend_serves_many_connections() {
    let server = start(Timeouts::default());
    // A client that does not read does not delay the others.
    let mut slow = Client::connect_narrow(server.address);
    slow.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(server.address)).collect();
    for target in ["/a.txt", "/hello", "/cgi-bin/echo?x", "/none"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        clients.iter_mut().for_each(|client| client.send(request.repeat(if target.contains("cgi") { 1 } else { 4 })));
        for client in &mut clients {
            let status = if target == "/none" { 404 } else { 200 };
            for _ in 0..if target.contains("cgi") { 1 } else { 4 } {
                assert_eq!(client.response().status(), status, "{target}");
            }
        }
    }
    // Exchanges in progress are finished, and no other client is served.
    server.shutdown();
    clients.iter_mut().for_each(Client::ends);
    assert_eq!(slow.response().body.len(), 8 << 20);
    slow.ends();
    server.ended();
}

#[test]
fn the_polling_frontend_has_timeouts_and_can_be_cut() {
    let server =
        start(Timeouts::default().with_keep_alive(Duration::from_millis(100)).with_head(Duration::from_millis(100)));
    let (mut silent, mut half) = (Client::connect(server.address), Client::connect(server.address));
    half.send("GET / HTTP/1.1\r\n");
    silent.ends();
    assert_eq!(half.response().status(), 408);
    let mut slow = Client::connect_narrow(server.address);
    slow.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    server.stop();
    assert!(slow.rest_however().0.len() < 8 << 20);
    let log = server.ended();
    assert!(log.contains("cut after"), "{log}");
}

#[test]
fn a_stale_waker_has_no_effect_on_the_polling_frontend() {
    let server = start(Timeouts::default());
    // The exchanges of one connection, and those of other connections in between: each has a number of its own.
    let (mut client, mut other) = (Client::connect(server.address), Client::connect(server.address));
    assert_eq!(other.get("/stale").body_text(), "kept\n");
    drop(other);
    assert_eq!(client.get("/stale").body_text(), "kept\n");
    client.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut late = Client::connect(server.address);
    late.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    testkit::eventually("the stale wakers were used", || STALE.lock().unwrap().is_empty());
    // One iteration of the loop later, they would have been called.
    assert_eq!(Client::connect(server.address).get("/hello").body_text(), "hello\n");
    server.shutdown();
    assert_eq!(client.response().body_text(), "not woken\n");
    assert_eq!(late.response().body_text(), "not woken\n");
    server.ended();
}

#[test]
fn the_polling_frontend_cuts_a_client_that_never_reads() {
    let write = Pace::new(Duration::from_millis(200), Duration::from_millis(200), 0);
    let server = start(Timeouts::default().with_write(write));
    let mut greedy = Client::connect_narrow(server.address);
    greedy.send_while_taken(&b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    testkit::eventually("the connection is cut", || server.log.text().contains("too slow"));
    server.shutdown();
    let start = Instant::now();
    server.ended();
    assert!(start.elapsed() < Duration::from_secs(5), "no connection is left to wait for");
    drop(greedy);
}

/// Each block of code in `docs/write-a-frontend.md` is part of the example, apart from its indentation.
#[test]
fn the_page_shows_the_example() {
    let bare = |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let example = bare(include_str!("../examples/polling_frontend.rs"));
    let page = include_str!("../docs/write-a-frontend.md");
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 10, "the page contains code");
    for block in blocks {
        assert!(example.contains(&bare(block)), "not in the example:\n{block}");
    }
}

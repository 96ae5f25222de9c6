//! Requests that have arrived before a server begins to shut down are answered. The process is stopped while they are
//! sent, so that they are certainly in the kernel when the signal arrives.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use testkit::tree::Pattern;
use testkit::{Client, Runtime, Server, Tree, eventually};

const PROMPT: Duration = Duration::from_secs(5);
const REQUEST: &str = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";

/// Stops the server until [`resume`], whatever arrives.
fn stop(server: &Server) {
    server.process().signal(Signal::STOP);
    // This takes effect when each of its threads has stopped.
    let state = format!("/proc/{}/stat", server.process().pid().as_raw_nonzero());
    eventually("the server is stopped", || {
        std::fs::read_to_string(&state)
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    });
}

fn resume_with(server: &Server, signal: Signal) {
    server.process().signal(signal);
    server.process().signal(Signal::CONT);
}

/// 20 requests each on persistent connections, on accepted connections without a request so far, and on connections
/// that are not accepted yet: all 60 are answered.
pub fn requests_that_have_arrived(rt: Runtime) {
    let tree = Tree::plain();
    for (workers, signal) in [("1", Signal::TERM), ("4", Signal::TERM), ("4", Signal::INT)] {
        // On std, each connection has its thread.
        let flags: &[&str] = if rt == Runtime::Std { &[] } else { &["--workers", workers] };
        let mut server = Server::with(rt, tree.root(), flags);
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients[..20] {
            assert_eq!(client.get("/a.txt").status(), 200);
        }
        // These connections were accepted later than the others, so each worker is likely to have had a turn.
        for _ in 0..20 {
            assert_eq!(server.get("/a.txt").status(), 200);
        }
        stop(&server);
        clients.extend((0..20).map(|_| server.connect()));
        for client in &mut clients {
            client.send(REQUEST);
        }
        resume_with(&server, signal);
        for (n, client) in clients.iter_mut().enumerate() {
            let answer = client.response();
            assert_eq!((answer.status(), &answer.body[..]), (200, &b"alpha\n"[..]), "connection {n}");
            client.ends();
        }
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    }
}

/// Pipelined requests are all answered, and only the last response may have `Connection: close`.
pub fn a_pipeline_that_has_arrived(rt: Runtime) {
    let tree = Tree::plain();
    for (asked, count) in [(false, 3), (true, 3), (true, 600)] {
        let mut server = Server::start(rt, tree.root());
        let mut client = server.connect();
        if asked {
            assert_eq!(client.get("/a.txt").status(), 200);
        }
        stop(&server);
        client.send(REQUEST.repeat(count));
        resume_with(&server, Signal::TERM);
        for n in 1..=count {
            let answer = client.response();
            // They may be answered before the signal is handled.
            assert!(answer.status() == 200 && (n == count || !answer.head.closes()), "{n} of {count}");
        }
        client.ends();
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    }
}

/// A request of which a part has arrived may be completed, on any connection.
pub fn a_part_that_has_arrived(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    assert_eq!(clients[0].get("/a.txt").status(), 200);
    stop(&server);
    clients.push(server.connect());
    let (part, rest) = REQUEST.split_at(20);
    for client in &mut clients {
        client.send(part);
    }
    resume_with(&server, Signal::TERM);
    eventually("no connection is accepted any more", || TcpStream::connect(server.address()).is_err());
    std::thread::sleep(Duration::from_millis(300));
    for client in &mut clients {
        client.send(rest);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.response();
        assert_eq!((answer.status(), answer.head.closes()), (200, true), "connection {n}");
        client.ends();
    }
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// A body that was being sent arrives, with or without `100 Continue`, and its response has `Connection: close`.
pub fn a_body_on_its_way(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na");
    assert_eq!(server.get("/a.txt").status(), 200);
    server.process().signal(Signal::TERM);
    eventually("no connection is accepted any more", || TcpStream::connect(server.address()).is_err());
    client.send("bc");
    let answer = client.response();
    assert_eq!((answer.status(), answer.head.closes()), (200, true));
    client.ends();
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// A connection without a request so far gets about a second to send one; a connection that was served before gets
/// none.
pub fn a_moment_for_the_silent(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let (mut kept, mut silent, mut late) = (server.connect(), server.connect(), server.connect());
    assert_eq!(kept.get("/a.txt").status(), 200);
    assert_eq!(server.get("/a.txt").status(), 200);
    let start = Instant::now();
    server.process().signal(Signal::TERM);
    kept.ends();
    assert!(
        start.elapsed() < Duration::from_millis(800),
        "a persistent connection ends immediately: {:?}",
        start.elapsed()
    );
    std::thread::sleep(Duration::from_millis(300));
    let answer = late.ask(REQUEST);
    assert_eq!((answer.status(), answer.head.closes()), (200, true));
    late.ends();
    silent.ends();
    let waited = start.elapsed();
    assert!((900..4_000).contains(&waited.as_millis()), "about a second: {waited:?}");
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// A slow download is finished. After it, the server ends even if the peer neither sends anything nor closes.
pub fn a_peer_that_stays(rt: Runtime) {
    let tree = Tree::plain();
    tree.patterned("big.bin", 12_000_000);
    let mut server = Server::start(rt, tree.root());
    let mut slow = Client::connect_narrow(server.address());
    slow.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    // A connection that is lingering already.
    let mut lingers = server.connect();
    assert_eq!(lingers.ask("GET  / HTTP/1.1\r\n\r\n").status(), 400);
    server.process().signal(Signal::TERM);
    eventually("no connection is accepted any more", || TcpStream::connect(server.address()).is_err());
    let start = Instant::now();
    let rest = slow.rest();
    assert_eq!(rest.len(), 12_000_000);
    Pattern::new().check(0, &rest);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    drop(lingers);
}

/// The server ends even if a peer keeps sending an unwanted body: it is read for about a second.
pub fn a_peer_that_goes_on(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let answer = client.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    assert_eq!((answer.status(), answer.head.closes()), (501, true));
    let start = Instant::now();
    server.process().signal(Signal::TERM);
    while server.process_mut().runs() {
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        let _ = client.try_send("more");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// Without a grace, exchanges are cut immediately.
pub fn no_grace(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 100 << 20);
    let mut server = Server::with(rt, tree.root(), &["--grace", "0"]);
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    client.skip(1);
    let start = Instant::now();
    server.process().signal(Signal::TERM);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

/// Before the keep-alive timeout fires, the socket is read once more, so a request that arrives while the server is
/// stopped is answered, however late.
pub fn at_the_end_of_keep_alive(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--keep-alive", "0.4", "--head-timeout", "0.4"]);
    let mut kept: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    let mut parts: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/a.txt").status(), 200);
    }
    for client in &mut parts {
        client.send(&REQUEST[..20]);
    }
    stop(&server);
    for client in &mut kept {
        client.send(REQUEST);
    }
    for client in &mut parts {
        client.send(&REQUEST[20..]);
    }
    // The timeout has passed when the server runs again.
    std::thread::sleep(Duration::from_millis(600));
    server.process().signal(Signal::CONT);
    for client in kept.iter_mut().chain(&mut parts) {
        assert_eq!(client.response().status(), 200);
    }
}

/// Other signals do not cut a download, and a log file that was renamed is created again.
pub fn signals_that_do_not_end(rt: Runtime) {
    let tree = Tree::plain();
    tree.patterned("big.bin", 12_000_000);
    let logs = tempfile::tempdir().expect("a temporary directory");
    let (now, then) = (logs.path().join("now.log"), logs.path().join("then.log"));
    let mut server = Server::with(rt, tree.root(), &["--log-file", now.to_str().expect("text")]);
    let mut slow = Client::connect_narrow(server.address());
    slow.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    for (n, signal) in [Signal::HUP, Signal::USR1, Signal::USR2].into_iter().enumerate() {
        let moves = signal != Signal::USR2;
        if moves {
            std::fs::rename(&now, &then).expect("the path exists");
        }
        server.process().signal(signal);
        if moves {
            eventually("the log exists again", || now.exists());
        }
        let target = format!("/a.txt?{n}");
        assert_eq!(server.get(&target).status(), 200);
        let text = || std::fs::read_to_string(&now).unwrap_or_default();
        eventually("the line is in the new file", || text().contains(&target));
    }
    slow.skip(12_000_000);
    assert!(server.process_mut().runs());
    server.process().signal(Signal::QUIT);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// After SIGHUP, the name of the served directory is looked up immediately, not within a second.
pub fn hangup_looks_the_root_up(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("one").folder("two");
    tree.file("one/f.txt", "one\n").file("two/f.txt", "two\n").link("served", "one");
    let log = tree.path("log");
    let flags = ["--log-file", log.to_str().expect("text")];
    let server = Server::with(rt, &tree.path("served"), &flags);
    let mut client = server.connect();
    assert_eq!(client.get("/f.txt").body, b"one\n");
    tree.link("next", "two");
    std::fs::rename(tree.path("next"), tree.path("served")).expect("a link can be turned");
    std::fs::remove_file(&log).expect("the path exists");
    server.process().signal(Signal::HUP);
    eventually("the signal is handled", || log.exists());
    assert_eq!(client.get("/f.txt").body, b"two\n");
}

/// A log that blocks, such as a FIFO without a reader or with a stopped one, delays neither requests nor the
/// shutdown.
pub fn a_log_that_hangs(rt: Runtime) {
    let tree = Tree::plain();
    tree.fifo("fifo");
    let fifo = tree.path("fifo");
    let target = format!("/a.txt?{}", "x".repeat(2_000));
    for is_open in [true, false] {
        let reader = is_open
            .then(|| std::fs::File::options().read(true).write(true).open(&fifo).expect("the FIFO can be opened"));
        let mut server = Server::with(rt, tree.root(), &["--log-file", fifo.to_str().expect("text")]);
        let mut client = server.connect();
        // More than a pipe holds.
        for _ in 0..100 {
            assert_eq!(client.get(&target).status(), 200);
        }
        server.process().signal(Signal::HUP);
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
        drop(reader);
    }
}

/// Ctrl-C prints how many exchanges are in progress, if any, and what a second Ctrl-C does.
pub fn exchanges_in_progress_are_printed(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 100 << 20);
    for (count, line) in [
        (1, "Finishing 1 request in progress; press Ctrl-C again to stop at once."),
        (3, "Finishing 3 requests in progress; press Ctrl-C again to stop at once."),
    ] {
        let mut server = Server::with(rt, tree.root(), &["--grace", "60"]);
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect_narrow(server.address())).collect();
        for client in &mut clients {
            client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
            client.skip(1);
        }
        let (_silent, mut kept) = (server.connect(), server.connect());
        assert_eq!(kept.get("/a.txt").status(), 200);
        server.process().signal(Signal::INT);
        server.process().stdout.line("the exchanges in progress", |said| said == line);
        server.process().signal(Signal::INT);
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(130));
    }
}

/// A load balancer is informed before any connection is refused: the health check fails, and everything else
/// continues.
pub fn health_and_delay(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("up").file("up/health", "a file that is never served\n");
    let mut server = Server::with(rt, tree.root(), &["--health", "/up/health", "--drain-delay", "60"]);
    let mut kept = server.connect();
    let answer = kept.get("/up/health?x");
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"ok\n"[..]));
    assert_eq!(answer.head.text("Cache-Control"), Some("no-store"));
    for spelling in ["/up/he%61lth", "/up%2fhealth", "/up/./health", "/a/../up/health?x", "/up//health"] {
        assert_eq!(kept.get(spelling).body, b"ok\n", "{spelling}");
    }
    assert_eq!(kept.get("/up/health/").status(), 404);
    let head = kept.ask("HEAD /up/health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.status(), head.head.text("Content-Length"), head.body.len()), (200, Some("3"), 0));
    assert_eq!(kept.ask("POST /up/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").status(), 501);
    server.process().signal(Signal::TERM);
    eventually("the health check fails", || server.get("/up/health").status() == 503);
    // On an earlier connection too, and neither is closed by it.
    let answer = kept.get("/up/health");
    assert_eq!((answer.status(), answer.head.closes()), (503, false));
    assert_eq!((kept.get("/a.txt").status(), server.get("/a.txt").status()), (200, 200));
    assert!(server.process_mut().runs());
    // A second signal ends the delay, and cuts no exchange in progress.
    server.process().signal(Signal::TERM);
    kept.ends();
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

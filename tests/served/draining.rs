//! What has arrived when a server begins to go down is answered. The process is stopped while the requests are sent, so
//! that they lie in the kernel for certain when the signal comes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use testkit::{Client, Runtime, Server, Tree, eventually};

const PROMPT: Duration = Duration::from_secs(5);
const REQUEST: &str = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";

/// Nothing runs in the server until [`resume`], whatever arrives.
fn stop(server: &Server) {
    server.process().signal(Signal::STOP);
    // It takes effect when each of its threads has seen it.
    let state = format!("/proc/{}/stat", server.process().pid().as_raw_nonzero());
    eventually("the server stands still", || {
        std::fs::read_to_string(&state)
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    });
}

fn resume_with(server: &Server, signal: Signal) {
    server.process().signal(signal);
    server.process().signal(Signal::CONT);
}

/// 20 requests each on connections that are kept, that have been accepted and never asked, and that nobody has
/// accepted: all 60 are answered.
pub fn requests_that_have_arrived(rt: Runtime) {
    let tree = Tree::plain();
    for (workers, signal) in [("1", Signal::TERM), ("4", Signal::TERM), ("4", Signal::INT)] {
        // The workers of std are its threads.
        let flags: &[&str] = if rt == Runtime::Std { &[] } else { &["--workers", workers] };
        let mut server = Server::with(rt, tree.root(), flags);
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients[..20] {
            assert_eq!(client.get("/a.txt").status(), 200);
        }
        // Whoever connects later and is answered was accepted later, and some of the workers have had their turn.
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

/// Requests after one another on one connection are answered, each of them, and none says before the last that it is.
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
            // They may be answered before the signal is seen.
            assert!(answer.status() == 200 && (n == count || !answer.head.closes()), "{n} of {count}");
        }
        client.ends();
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    }
}

/// A part of a request that has arrived may be completed, on whatever connection.
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
    eventually("nobody is let in any more", || TcpStream::connect(server.address()).is_err());
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

/// A body that was on its way arrives, with or without 100 Continue, and its answer says that it is the last.
pub fn a_body_on_its_way(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na");
    assert_eq!(server.get("/a.txt").status(), 200);
    server.process().signal(Signal::TERM);
    eventually("nobody is let in any more", || TcpStream::connect(server.address()).is_err());
    client.send("bc");
    let answer = client.response();
    assert_eq!((answer.status(), answer.head.closes()), (200, true));
    client.ends();
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// Who has connected and asked nothing yet gets about a second for it; who was answered before gets none.
pub fn a_moment_for_the_silent(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let (mut kept, mut silent, mut late) = (server.connect(), server.connect(), server.connect());
    assert_eq!(kept.get("/a.txt").status(), 200);
    assert_eq!(server.get("/a.txt").status(), 200);
    let start = Instant::now();
    server.process().signal(Signal::TERM);
    kept.ends();
    assert!(start.elapsed() < Duration::from_millis(800), "a kept connection ends at once: {:?}", start.elapsed());
    std::thread::sleep(Duration::from_millis(300));
    let answer = late.ask(REQUEST);
    assert_eq!((answer.status(), answer.head.closes()), (200, true));
    late.ends();
    silent.ends();
    let waited = start.elapsed();
    assert!((900..4_000).contains(&waited.as_millis()), "about a second: {waited:?}");
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

/// The last answer may be followed by nothing more from the peer, which need not close for the server to end.
pub fn a_peer_that_stays(rt: Runtime) {
    let tree = Tree::plain();
    tree.patterned("big.bin", 12_000_000);
    let mut server = Server::start(rt, tree.root());
    let mut slow = Client::connect_narrow(server.address());
    slow.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    // One that was told to go before, and stays.
    let mut lingers = server.connect();
    assert_eq!(lingers.ask("GET  / HTTP/1.1\r\n\r\n").status(), 400);
    server.process().signal(Signal::TERM);
    eventually("nobody is let in any more", || TcpStream::connect(server.address()).is_err());
    let start = Instant::now();
    assert_eq!(slow.rest().len(), 12_000_000);
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    drop(lingers);
}

/// Nor does one that goes on sending what nobody wants: it is closing, and read for about a second.
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

/// Without grace nobody is waited for.
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

/// The same look before keep-alive ends: a request that arrives while the server cannot look is answered, however late.
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
    // Their time is over when it runs again.
    std::thread::sleep(Duration::from_millis(600));
    server.process().signal(Signal::CONT);
    for client in kept.iter_mut().chain(&mut parts) {
        assert_eq!(client.response().status(), 200);
    }
}

/// Signals that have another meaning do not cut a download, and a log file that was moved away is made anew.
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
            std::fs::rename(&now, &then).expect("it is there");
        }
        server.process().signal(signal);
        if moves {
            eventually("the log is there again", || now.exists());
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

/// SIGHUP has the name of the served directory looked up at once, not within the second.
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
    std::fs::remove_file(&log).expect("it is there");
    server.process().signal(Signal::HUP);
    eventually("the signal is seen", || log.exists());
    assert_eq!(client.get("/f.txt").body, b"two\n");
}

/// A log that takes nothing, a FIFO whose reader sleeps or that has none, holds up neither requests nor the end.
pub fn a_log_that_hangs(rt: Runtime) {
    let tree = Tree::plain();
    tree.fifo("fifo");
    let fifo = tree.path("fifo");
    let target = format!("/a.txt?{}", "x".repeat(2_000));
    for is_open in [true, false] {
        let reader = is_open.then(|| std::fs::File::options().read(true).write(true).open(&fifo).expect("it opens"));
        let mut server = Server::with(rt, tree.root(), &["--log-file", fifo.to_str().expect("text")]);
        let mut client = server.connect();
        // More than a pipe takes.
        for _ in 0..100 {
            assert_eq!(client.get(&target).status(), 200);
        }
        server.process().signal(Signal::HUP);
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
        drop(reader);
    }
}

/// Ctrl-C says how many exchanges it waits for, if it waits for some; and what a second one does.
pub fn what_is_in_progress_is_said(rt: Runtime) {
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
        server.process().stdout.line("what it waits for", |said| said == line);
        server.process().signal(Signal::INT);
        assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(130));
    }
}

/// A load balancer is told before anybody is refused: the health check fails, and everything else goes on.
pub fn health_and_delay(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("up").file("up/health", "a file that nobody sees\n");
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
    eventually("it says that it is about to leave", || server.get("/up/health").status() == 503);
    // On a connection that was there before, too; and neither is closed for it.
    let answer = kept.get("/up/health");
    assert_eq!((answer.status(), answer.head.closes()), (503, false));
    assert_eq!((kept.get("/a.txt").status(), server.get("/a.txt").status()), (200, 200));
    assert!(server.process_mut().runs());
    // A second signal ends the delay, and nothing in hand is cut by it.
    server.process().signal(Signal::TERM);
    kept.ends();
    assert_eq!(server.process_mut().ended_within(PROMPT).code(), Some(0));
}

//! The library from the view of an embedder: one suite, mounted once for the `Server` of each runtime.

use std::fs;
use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Waker;
use std::time::Duration;

use sanserve_core::{
    Authenticated, Cache, Call, Cgi, Config, DefaultPolicy, Entry, HandlerError, Isolation, Misuse, Peer, Policy,
    Received, Reply, Request, ResponseHead, Route, Rules, StatusCode, Timeouts,
};
use sanserve_server::{Launcher, Log, ScriptRules, Site, Upgraded};
use testkit::{Bound, Client, Embedded, TIMEOUT, Tree, bound};

/// Routes `/api/` to the handler, and everything else to the files.
struct Api;

impl Policy for Api {
    fn route(&self, request: &Request<'_>) -> Route {
        let handled = [&b"/api/"[..], b"/cgi-bin/handled"];
        if handled.iter().any(|start| request.path().starts_with(start)) { Route::Handler } else { Route::Files }
    }

    fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
        let (user, password) = request.basic_credentials()?;
        let is_right = user == b"ada" && password == b"Lovelace1815";
        is_right.then(|| Authenticated::new("Basic", "ada"))
    }

    fn server(&self) -> &str {
        "embedded/1"
    }

    fn expect_continue(&self, request: &Request<'_>) -> Result<(), StatusCode> {
        if request.path() == b"/api/unexpected" { Err(StatusCode::EXPECTATION_FAILED) } else { Ok(()) }
    }

    fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
        DefaultPolicy.log(entry, time, out);
        if let Some(tag) = entry.tag {
            let shown = |text: Option<&[u8]>| String::from_utf8_lossy(text.unwrap_or(b"-")).into_owned();
            let (referer, agent) = (shown(entry.referer()), shown(entry.agent()));
            out.extend_from_slice(format!("{} {} {referer} {agent}\n", shown(Some(tag)), entry.status).as_bytes());
            if entry.duration >= DELAY {
                let (received, sent) = (entry.received, entry.sent);
                out.extend_from_slice(format!("slow, {received} bytes received and {sent} sent\n").as_bytes());
            }
        }
    }
}

/// How long some responses take.
const DELAY: Duration = Duration::from_millis(300);

/// More than any buffer holds.
const LARGE: usize = 3_000_000;

/// More than any socket holds, and more than half of [`MEMORY`].
const WHOLE: usize = 12 << 20;

/// The memory that the connections of a server may hold.
const MEMORY: u64 = 16 << 20;

/// An interim head and the head of a response, prepared before any connection.
static PREPARED: LazyLock<[ResponseHead; 2]> = LazyLock::new(|| {
    let hint = ResponseHead::new(StatusCode::EARLY_HINTS).field("Link", "</a.css>; rel=preload");
    let head = ResponseHead::new(StatusCode::CREATED).field("X-A", "1");
    [hint.expect("a valid head"), head.expect("a valid head").length(2)]
});

/// Responds by path; echoes what is posted to `/api/echo`.
fn answer(call: Call, reply: &mut Reply<'_>) -> Result<(), Misuse> {
    match (call, reply.request().path()) {
        (Call::Over, _) => Ok(()),
        (Call::Request, b"/api/tagged") => {
            reply.tag("first");
            reply.tag("order-7");
            reply.answer(StatusCode::OK, "text/plain", "tagged")
        }
        (_, b"/api/hello") => {
            reply.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.length(5).send()?;
            reply.write(b"hello")?;
            reply.finish()
        }
        (Call::Request, b"/api/later" | b"/api/measured") => {
            if reply.request().path() == b"/api/measured" {
                reply.tag("measured");
            }
            let waker = reply.waker();
            std::thread::spawn(move || {
                // The clock of the connection may be late by a turn.
                std::thread::sleep(2 * DELAY);
                waker.wake();
            });
            Ok(())
        }
        (_, b"/api/measured") => loop {
            match reply.receive() {
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => return reply.answer(StatusCode::OK, "text/plain", "measured"),
                Received::Data(data) => {
                    let n = data.len();
                    reply.consume(n);
                }
            }
        },
        (_, b"/api/unexpected") => panic!("it is refused before"),
        (_, b"/api/later") => reply.answer(StatusCode::OK, "text/plain", "later"),
        (Call::Request, b"/api/echo") => {
            reply.respond(StatusCode::OK)?.send()?;
            echo(reply)
        }
        (_, b"/api/echo") => echo(reply),
        (_, b"/api/file" | b"/cgi-bin/handled") => reply.decline(),
        (_, b"/api/teapot") => {
            reply.error(StatusCode::new(418).expect("three digits"), Some("Short <and> stout"), None)
        }
        (_, b"/api/prepared") => {
            assert_eq!(reply.send_head(&ResponseHead::new(StatusCode::CONTINUE)), Err(Misuse::Interim));
            assert_eq!(reply.send_head(&ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS)), Err(Misuse::Interim));
            reply.send_head(&PREPARED[0])?;
            reply.send_head(&PREPARED[1])?;
            assert_eq!(reply.send_head(&PREPARED[0]), Err(Misuse::HeadOrder));
            assert_eq!(reply.send_head(&PREPARED[1]), Err(Misuse::HeadOrder));
            reply.write(b"ok")?;
            reply.finish()?;
            assert_eq!(reply.send_head(&PREPARED[1]), Err(Misuse::ExchangeEnded));
            Ok(())
        }
        (_, b"/api/large") => {
            let large = || vec![b'x'; LARGE];
            assert_eq!(reply.respond(StatusCode::OK)?.length(1).body(large()), Err(Misuse::LengthMismatch));
            assert_eq!(reply.inform(StatusCode::EARLY_HINTS)?.body(large()), Err(Misuse::Interim));
            assert_eq!(reply.send_response(&PREPARED[0], large()), Err(Misuse::Interim));
            let head = reply.respond(StatusCode::OK)?.field("Content-Type", "a/b")?.field("X-A", "1")?;
            head.length(LARGE as u64).body(large())?;
            assert_eq!(reply.send_response(&PREPARED[1], "ok"), Err(Misuse::ExchangeEnded));
            Ok(())
        }
        (_, b"/api/whole") => match reply.answer(StatusCode::OK, "a/b", vec![b'x'; WHOLE]) {
            Err(Misuse::OutOfMemory) => {
                reply.fail(Misuse::OutOfMemory);
                Ok(())
            }
            other => other,
        },
        (_, b"/api/prepared-whole") => reply.send_response(&PREPARED[1], "ok"),
        (_, b"/api/no-content") => reply.respond(StatusCode::NO_CONTENT)?.field("X-A", "1")?.body("dropped"),
        (Call::Request, b"/api/short") => {
            reply.respond(StatusCode::OK)?.length(100_000).send()?;
            reply.write(&[b'.'; 100_000]).map(|taken| assert!(taken < 100_000))
        }
        (_, b"/api/short") => reply.finish(),
        (_, b"/api/none") => {
            reply.respond(StatusCode::OK)?.length(10).send()?;
            reply.finish()
        }
        (_, b"/api/misuse") => {
            assert_eq!(reply.respond(StatusCode::OK)?.field("A", "b\r\nC: d").err(), Some(Misuse::Field));
            assert_eq!(reply.respond(StatusCode::OK)?.field("Content-Length", "3").err(), Some(Misuse::ReservedHeader));
            assert_eq!(reply.write(b"no head"), Err(Misuse::HeadOrder));
            assert_eq!(reply.respond(StatusCode::CONTINUE).err(), Some(Misuse::Interim));
            reply.respond(StatusCode::NO_CONTENT)?.send()?;
            assert_eq!(reply.respond(StatusCode::OK).err(), Some(Misuse::HeadOrder));
            reply.finish()
        }
        _ => panic!("the handler fails on purpose"),
    }
}

fn echo(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    loop {
        let data = match reply.receive() {
            Received::End => return reply.finish(),
            Received::Pending | Received::Broken => return Ok(()),
            Received::Data(data) => data.to_vec(),
        };
        match reply.write(&data)? {
            0 => return Ok(()),
            taken => reply.consume(taken),
        }
    }
}

const BIG: usize = 32 << 20;

fn start(grace: Duration, bind: impl FnOnce(Site) -> Bound) -> Embedded {
    let tree = Tree::new();
    tree.file("a.txt", "a file").folder("api").file("api/file", "passed").file("big", vec![b'b'; BIG]);
    // A separate process writes the executable: a descriptor of this process could be inherited by a process of
    // another test.
    let script = "printf 'Content-Type: text/plain\\n\\n%s %s' \"${AUTH_TYPE-nobody}\" \"${REMOTE_USER-}\"";
    let commands = "chmod 755 . ..; mkdir cgi-bin; cd cgi-bin; for name in who handled; do
        printf '#!/bin/sh\\n%s\\n' \"$1\" > $name; done
        printf '#!/bin/sh\\necho Location: /cgi-bin/who\\necho\\n' > moved; chmod 755 *";
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-ec", commands, "sh", script]).current_dir(tree.root());
    assert!(shell.status().unwrap().success());
    let timeouts = Timeouts::default().with_script_silence(Duration::from_millis(50));
    let config = Config::default().with_cgi(Cgi::python()).with_timeouts(timeouts);
    Embedded::start(tree, |root, log| {
        let site = Site::new(root).unwrap().with_policy(Api).with_config(config).with_log(Log::to(log));
        let site = site.with_memory(MEMORY);
        let handler = || {
            |call: Call, reply: &mut Reply<'_>| {
                let _ = answer(call, reply);
                Ok(())
            }
        };
        bind(site.with_grace(grace).with_handler(handler))
    })
}

fn hello_error_and_pass(server: Embedded) {
    let mut client = server.connect();
    for _ in 0..3 {
        let hello = client.get("/api/hello");
        assert_eq!((hello.status(), hello.body_text()), (200, "hello"));
        assert_eq!(hello.text("Server"), Some("embedded/1"));
        assert_eq!(client.get("/a.txt").body_text(), "a file");
        assert_eq!(client.get("/api/file").body_text(), "passed");
        let teapot = client.get("/api/teapot");
        assert_eq!(teapot.status(), 418);
        assert!(teapot.body_text().contains("<p>Message: Short &lt;and&gt; stout.</p>"));
        assert_eq!(client.get("/api/misuse").status(), 204);
    }
    server.shutdown();
    client.ends();
    server.ended();
}

fn a_prepared_head_can_be_sent_many_times(server: Embedded) {
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET /api/prepared HTTP/1.1\r\nHost: x\r\n\r\n");
        let hint = client.head();
        assert_eq!((hint.status, hint.text("Link")), (103, Some("</a.css>; rel=preload")));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text("X-A"), answer.body_text()), (201, Some("1"), "ok"));
        assert_eq!(answer.text("Content-Length"), Some("2"));
    }
    let old = client.ask("GET /api/prepared HTTP/1.0\r\n\r\n");
    assert_eq!((old.status(), old.body_text()), (201, "ok"), "HTTP/1.0 clients get no interim response");
    server.shutdown();
    server.ended();
}

fn a_complete_body_of_any_length_is_sent_with_fields(server: Embedded) {
    let mut client = server.connect();
    for _ in 0..2 {
        let large = client.get("/api/large");
        assert_eq!((large.status(), large.text("X-A"), large.text("Content-Type")), (200, Some("1"), Some("a/b")));
        assert_eq!((large.head.length(), large.body.len()), (Some(LARGE as u64), LARGE));
        assert!(large.body.iter().all(|&byte| byte == b'x'));
        client.send("HEAD /api/large HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().length(), Some(LARGE as u64));
        let whole = client.get("/api/prepared-whole");
        assert_eq!((whole.status(), whole.text("X-A"), whole.body_text()), (201, Some("1"), "ok"));
        let none = client.get("/api/no-content");
        assert_eq!((none.status(), none.text("X-A"), none.head.length(), none.body_text()), (204, Some("1"), None, ""));
    }
    server.shutdown();
    server.ended();
}

fn complete_bodies_share_the_memory_of_the_server(server: Embedded) {
    let mut slow = Client::connect_narrow(server.address);
    slow.send("GET /api/whole HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(slow.head().length(), Some(WHOLE as u64));
    let refused = server.get("/api/whole");
    assert_eq!(refused.status(), 503);
    assert!(refused.body_text().contains("No memory for a response of this size"), "{}", refused.body_text());
    assert_eq!(server.get("/api/hello").body_text(), "hello", "what is small needs no memory");
    slow.skip(WHOLE);
    // The response to the next request comes after the end of the first exchange, which returns the memory.
    assert_eq!(slow.get("/api/hello").body_text(), "hello");
    assert_eq!(server.get("/api/whole").body.len(), WHOLE);
    server.shutdown();
    let log = server.ended();
    assert!(log.contains("the handler failed: no memory for a body of this length"), "{log}");
    assert!(log.contains("(--max-memory)") && log.contains("\"GET /api/whole HTTP/1.1\" 503"), "{log}");
}

fn a_script_gets_the_verified_user(server: Embedded) {
    if rustix::process::geteuid().is_root() && fs::File::open("/dev/tty").is_ok() {
        eprintln!("this is root at a terminal, which scripts must not share; nothing is tested");
        return;
    }
    let mut client = server.connect();
    for path in ["/cgi-bin/who", "/cgi-bin/handled", "/cgi-bin/moved"] {
        for (credentials, expected) in [
            ("Basic YWRhOkxvdmVsYWNlMTgxNQ==", "Basic ada"),
            ("Basic YWRhOng=", "nobody "),
            ("Basic bWFsbG9yeTpMb3ZlbGFjZTE4MTU=", "nobody "),
            ("Bearer ada", "nobody "),
        ] {
            let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials}\r\n\r\n"));
            assert_eq!(answer.body_text(), expected, "{path} {credentials}");
        }
    }
    server.shutdown();
    client.ends();
    server.ended();
}

fn a_body_is_echoed_with_any_framing(server: Embedded) {
    let mut client = server.connect();
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut chunked = b"POST /api/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7_001) {
        chunked.extend_from_slice(format!("{:x} ; ext = \"a;\\\"b\"\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nTrailer: t\r\n\r\n");
    let mut plain =
        format!("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    plain.extend_from_slice(&body);
    for request in [&chunked, &plain, &chunked] {
        let mut sender = client.twin();
        let request = request.clone();
        let sending = std::thread::spawn(move || sender.send(&request));
        let response = client.response();
        sending.join().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.body == body, "{} of {} bytes came back", response.body.len(), body.len());
    }
    let response = client.ask("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((response.status(), response.body.len()), (200, 0));
    server.stop();
    server.ended();
}

fn a_peer_that_waits_gets_100_continue(server: Embedded) {
    let mut client = server.connect();
    client.send("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 200, "the head of this echo is sent first, and announces the close");
    client.send("body");
    server.stop();
    server.ended();
}

fn a_log_entry_has_the_request_and_the_tag_of_the_handler(server: Embedded) {
    let mut client = server.connect();
    let asked = "GET /api/tagged HTTP/1.1\r\nHost: x\r\nReferer: /a\r\nUser-Agent: test/1\r\n\r\n";
    assert_eq!(client.ask(asked).body_text(), "tagged");
    assert_eq!(client.get("/api/tagged").body_text(), "tagged");
    assert_eq!(client.get("/api/hello").body_text(), "hello");
    server.shutdown();
    let log = server.ended();
    assert!(log.contains("\norder-7 200 /a test/1\n") && log.contains("\norder-7 200 - -\n"), "{log}");
    assert_eq!(log.matches("order-7").count(), 2, "a tag is for one exchange: {log}");
}

/// The time from the first byte of the request to the end of its response, and the bytes of both bodies.
fn a_log_entry_says_how_long_and_how_much(server: Embedded) {
    let mut client = server.connect();
    assert_eq!(client.get("/api/measured").body_text(), "measured");
    let body = "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n";
    let head = "POST /api/measured HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(client.ask(format!("{head}{body}")).body_text(), "measured");
    server.shutdown();
    let log = server.ended();
    for received in [0, body.len()] {
        let expected = format!("\nmeasured 200 - -\nslow, {received} bytes received and 8 sent\n");
        assert!(log.contains(&expected), "{received}: {log}");
    }
}

/// As Python's `handle_expect_100`, before anything else: whether there is a body or not, and whether it is read or not.
fn a_handler_is_not_called_if_an_expectation_is_refused(server: Embedded) {
    for (method, framing) in [("GET", ""), ("POST", "Content-Length: 3\r\n"), ("POST", "Content-Length: 0\r\n")] {
        let mut client = server.connect();
        let head = format!("{method} /api/unexpected HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{framing}\r\n");
        assert_eq!(client.ask(head).status(), 417, "{method} {framing}");
    }
    server.shutdown();
    let log = server.ended();
    assert!(!log.contains("panicked"), "{log}");
}

fn an_expectation_without_a_body_is_asked_about(server: Embedded) {
    let mut client = server.connect();
    let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.ask(asked("/api/unexpected")).status(), 417);
    let mut client = server.connect();
    assert_eq!(client.ask(asked("/api/hello")).body_text(), "hello");
    server.shutdown();
    server.ended();
}

fn a_failing_handler_affects_no_other_connection(server: Embedded) {
    let mut other = server.connect();
    assert_eq!(other.get("/a.txt").status(), 200);
    let mut client = server.connect();
    let failed = client.get("/api/fails");
    assert_eq!(failed.status(), 500);
    assert!(failed.head.closes());
    client.ends();
    assert_eq!(server.connect().get("/api/none").status(), 500, "nothing of the response was sent");
    let mut client = server.connect();
    client.send("GET /api/short HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert!(client.rest_however().0.len() < 100_000, "a truncated response must not look complete");
    assert_eq!(other.get("/api/hello").body_text(), "hello");
    server.shutdown();
    let log = server.ended();
    assert!(log.contains("the handler panicked: the handler fails on purpose"), "{log}");
    assert!(log.contains("\"GET /api/fails HTTP/1.1\" 500"), "{log}");
    assert!(log.contains("bytes: the handler failed"), "{log}");
}

fn a_shutdown_finishes_exchanges_in_progress(server: Embedded) {
    let mut idle = server.connect();
    assert_eq!(idle.get("/a.txt").status(), 200);
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.head();
    assert_eq!(head.length(), Some(BIG as u64));
    server.shutdown();
    idle.ends();
    client.skip(BIG);
    client.ends();
    let log = server.ended();
    assert!(log.contains(&format!("\"GET /big HTTP/1.1\" 200 {BIG}")), "{log}");
    assert!(!log.contains("cut after"), "{log}");
}

fn a_shutdown_is_bounded_by_its_grace(server: Embedded) {
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    server.shutdown();
    let log = server.ended();
    assert!(log.contains("bytes: the server shut down"), "{log}");
}

/// A half-close does not cut the time of the handler, and all requests are answered.
fn a_half_close_does_not_end_the_connection(server: Embedded) {
    let request = |fields: &str| format!("GET /api/later HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let clients = [
        ("GET /api/later HTTP/1.0\r\n\r\n".to_owned(), 1),
        (request("Connection: close\r\n"), 1),
        (request(""), 1),
        (request("").repeat(3), 3),
        (request("").repeat(2) + &request("Connection: close\r\n"), 3),
    ];
    let clients = clients.map(|(requests, answers)| {
        let mut client = Client::connect(server.address);
        client.send(&requests);
        client.half_close();
        (client, answers)
    });
    for (mut client, answers) in clients {
        for _ in 0..answers {
            assert_eq!(client.response().body, b"later");
        }
        client.ends();
    }
    server.shutdown();
    server.ended();
}

fn a_stop_cuts_immediately(server: Embedded) {
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    server.stop();
    let log = server.ended();
    assert!(log.contains("bytes: the server shut down"), "{log}");
}

/// A runtime.
struct On {
    krate: &'static str,
    bind: fn(Site) -> Bound,
}

impl On {
    /// Runs a server without files.
    fn start(&self, change: impl FnOnce(Site) -> Site) -> Embedded {
        Embedded::start(Tree::new(), |_, log| (self.bind)(change(Site::without_files().with_log(Log::to(log)))))
    }
}

/// Responds to `/sync`; `false` for any other path.
fn answers_sync(reply: &mut Reply<'_>) -> Result<bool, Misuse> {
    let is_sync = reply.request().path() == b"/sync";
    if is_sync {
        reply.close();
        reply.answer(StatusCode::OK, "text/plain", "synced")?;
    }
    Ok(is_sync)
}

fn upgrades(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    if answers_sync(reply)? {
        return Ok(());
    }
    reply.upgrade_with("shout", "from the handler")?.field("X-Way", "up")?.send()
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";

fn an_upgraded_connection_loses_no_byte_and_keeps_its_place(on: On) {
    // On std, the hook has the thread of the connection.
    let thread = if on.krate == "sanserve_std" { "sanserve" } else { "sanserve-upgraded" };
    let order = Arc::new(Mutex::new(Vec::new()));
    let (record, other) = (Arc::clone(&order), Arc::clone(&order));
    let take = move |mut upgraded: Upgraded| {
        let state: Option<&str> = upgraded.take_state();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        writeln!(upgraded, "{state:?} {:?} {name}", upgraded.peer()).unwrap();
        let mut all = Vec::new();
        upgraded.read_to_end(&mut all).unwrap();
        all.make_ascii_uppercase();
        record.lock().unwrap().push("the hook ends");
        upgraded.write_all(&all).unwrap();
    };
    let answer = move |reply: &mut Reply<'_>| {
        other.lock().unwrap().push("a request");
        upgrades(reply)
    };
    let server = on.start(|site| site.with_answer(answer).with_upgrade(take).with_connections(1));
    for _ in 0..3 {
        let mut client = server.connect();
        let me = client.local();
        client.send(format!("{UPGRADE}early, "));
        assert_eq!(
            String::from_utf8(client.head().raw)
                .unwrap()
                .lines()
                .filter(|line| !line.starts_with("Date") && !line.starts_with("Server"))
                .collect::<Vec<_>>(),
            ["HTTP/1.1 101 Switching Protocols", "Upgrade: shout", "X-Way: up", "Connection: Upgrade", ""]
        );
        let hello = String::from_utf8(client.through(b"\n")).unwrap();
        assert_eq!(hello, format!("Some(\"from the handler\") {me} {thread}\n"));
        // The only place is taken, so this one is served when the hook has ended.
        let mut second = server.connect();
        second.send("GET /sync HTTP/1.1\r\nHost: x\r\n\r\n");
        client.send("late");
        client.half_close();
        assert_eq!(client.rest_however().0, b"EARLY, LATE");
        assert_eq!(second.response().body, b"synced");
    }
    assert_eq!(*order.lock().unwrap(), ["a request", "the hook ends", "a request"].repeat(3));
    server.end();
}

fn an_upgrade_without_a_working_hook_is_closed(on: On) {
    let server = on.start(|site| site.with_answer(upgrades));
    let mut client = server.connect();
    client.send(UPGRADE);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.rest_however().0, b"");
    server.end();
    let panics = |_| panic!("on purpose");
    let server = on.start(|site| site.with_answer(upgrades).with_upgrade(panics).with_connections(1));
    for _ in 0..2 {
        let mut client = server.connect();
        client.send(UPGRADE);
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        assert_eq!(client.rest_however().0, b"");
    }
    assert_eq!(server.get("/sync").body, b"synced");
    let log = server.end();
    let what = if on.krate == "sanserve_std" { "the connection" } else { "an upgraded connection" };
    assert_eq!(log.matches(&format!("{what} panicked: on purpose")).count(), 2, "{log}");
}

fn only_verified_peers_are_served(on: On) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let ports = Arc::clone(&asked);
    let verify = move |peer: Peer| {
        assert!(peer.is_local());
        let count = {
            let mut ports = ports.lock().unwrap();
            ports.push(peer.port().unwrap());
            ports.len()
        };
        match count {
            1 | 2 => false,
            3 => panic!("on purpose"),
            _ => true,
        }
    };
    let sync = |reply: &mut Reply<'_>| answers_sync(reply).map(drop);
    let server = on.start(|site| site.with_answer(sync).with_verify(verify).with_connections(1));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        clients.push(server.connect());
        assert_eq!(clients.last_mut().unwrap().rest_however().0, b"", "no response to a refused peer");
    }
    clients.push(server.connect());
    assert_eq!(clients[3].get("/sync").body, b"synced");
    assert_eq!(*asked.lock().unwrap(), clients.iter().map(|client| client.local().port()).collect::<Vec<_>>());
    assert!(server.end().contains("verifying the peer panicked: on purpose"));
}

/// Rules are for handlers too, whose own fields count more for sharing. The order of the builders does not matter.
fn rules_apply_to_files_and_handlers(on: On) {
    let rules = || {
        let rules = Rules::new().with_header("X-Rule", "1").and_then(|rules| rules.with_redirect("/old", "/api/new"));
        let rules = rules.and_then(|rules| rules.with_cache_for("/api/*", Cache::Never)).expect("valid rules");
        rules.with_cors().with_isolation(Isolation::RequireCorp)
    };
    let answer = |reply: &mut Reply<'_>| {
        let path = reply.request().path().to_vec();
        match &path[..] {
            b"/api/open" => reply
                .respond(StatusCode::OK)?
                .field("Access-Control-Allow-Origin", "https://own.example")?
                .field("Cache-Control", "private")?
                .body("open"),
            b"/api/created" => reply.answer(StatusCode::CREATED, "text/plain", "created"),
            _ => reply.decline(),
        }
    };
    for is_config_last in [true, false] {
        let server = on.start(|site| {
            let config = Config::default().with_hide_dotfiles(true);
            let site = site.with_answer(answer);
            if is_config_last {
                site.with_rules(rules()).with_config(config)
            } else {
                site.with_config(config).with_rules(rules())
            }
        });
        let open = server.get("/api/open");
        assert_eq!((open.status(), open.head.all("Access-Control-Allow-Origin")), (200, vec!["https://own.example"]));
        assert_eq!((open.head.all("Cache-Control"), open.text("X-Rule")), (vec!["no-store"], Some("1")));
        assert_eq!(open.text("Cross-Origin-Opener-Policy"), Some("same-origin"));
        let created = server.get("/api/created");
        assert_eq!((created.status(), created.text("X-Rule"), created.text("Cache-Control")), (201, None, None));
        let moved = server.get("/old?q");
        assert_eq!((moved.status(), moved.text("Location")), (308, Some("/api/new?q")));
        let mut client = server.connect();
        let preflight = client.ask(
            "OPTIONS /api/open HTTP/1.1\r\nHost: x\r\nOrigin: http://o\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
        );
        assert_eq!((preflight.status(), preflight.text("Access-Control-Allow-Origin")), (204, Some("*")));
        assert!(preflight.text("Access-Control-Allow-Methods").is_some_and(|methods| methods.contains("PUT")));
        assert_eq!((server.get("/.hidden").status(), server.get("/none").status()), (404, 404));
    }
}

fn a_small_body_is_complete_when_the_handler_is_called(on: On) {
    let answer = |reply: &mut Reply<'_>, body: &[u8]| -> Result<(), HandlerError> {
        match reply.request().path() {
            b"/decline" => Ok(reply.decline()?),
            b"/fail" => Err(StatusCode::CONFLICT.into()),
            b"/nothing" => Ok(()),
            _ => Ok(reply.answer(StatusCode::OK, "text/plain", body.to_ascii_uppercase())?),
        }
    };
    let server = on.start(|site| site.with_body_answer(10, answer));
    let mut client = server.connect();
    assert_eq!(client.get("/").body_text(), "");
    let post =
        |path: &str, field: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n{body}");
    assert_eq!(client.ask(post("/", "Content-Length: 10", "abcdefghij")).body_text(), "ABCDEFGHIJ");
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    let parts = post("/", CHUNKED, "5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n");
    client.dribble(&parts);
    assert_eq!(client.response().body_text(), "ABCDEFGHIJ");
    // The next body does not begin with this one.
    assert_eq!(client.ask(post("/", "Content-Length: 1", "z")).body_text(), "Z");
    assert_eq!(client.ask(post("/fail", "Content-Length: 1", "z")).status(), 409);
    assert_eq!(client.ask(post("/decline", "Content-Length: 1", "z")).status(), 501, "left to the files");
    let too_long = [
        post("/", "Content-Length: 11", "abcdefghijk"),
        post("/", CHUNKED, "5\r\nabcde\r\n6\r\nfghijk\r\n0\r\n\r\n"),
        // It is refused before it is sent.
        post("/", "Content-Length: 11\r\nExpect: 100-continue", ""),
    ];
    for request in too_long {
        assert_eq!(server.connect().ask(request).status(), 413);
    }
    assert_eq!(server.connect().get("/nothing").status(), 500);
    assert!(server.end().contains("it left its response unfinished"));
}

/// Responds when another thread wakes it.
fn a_handler_is_woken_from_another_thread(on: On) {
    type Handed = (Waker, Arc<Mutex<Option<String>>>);
    let (hand, handed) = channel::<Handed>();
    let hand = Mutex::new(hand);
    let server = on.start(|site| {
        site.with_handler(move || {
            let hand = hand.lock().unwrap().clone();
            let result = Arc::new(Mutex::new(None::<String>));
            move |call: Call, reply: &mut Reply<'_>| {
                match call {
                    Call::Request => hand.send((reply.waker(), result.clone())).unwrap(),
                    Call::Wake => {
                        if let Some(text) = result.lock().unwrap().take() {
                            reply.answer(StatusCode::OK, "text/plain", text)?;
                        }
                    }
                    _ => {}
                }
                Ok(())
            }
        })
    });
    let mut client = server.connect();
    let mut stale: Vec<Waker> = Vec::new();
    for n in 0..50 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let (waker, result) = handed.recv_timeout(TIMEOUT).unwrap();
        stale.iter().for_each(Waker::wake_by_ref);
        // After a wake-up without a result, it continues to wait.
        waker.wake_by_ref();
        *result.lock().unwrap() = Some(format!("answer {n}"));
        waker.wake_by_ref();
        assert_eq!(client.response().body, format!("answer {n}").as_bytes());
        stale.push(waker);
    }
    // A handler that waits for a wake-up notices a disconnect, and the shutdown.
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let _kept = handed.recv_timeout(TIMEOUT).unwrap();
    server.stop();
    client.ends();
    let log = server.end();
    assert_eq!(log.matches("\" 200 ").count(), 50, "{log}");
    // Wakers have no effect when the server has ended.
    stale.into_iter().for_each(Waker::wake);
}

/// A program whose `main` has not called `Launcher::run_if_asked` would only run as a second instance of itself.
#[test]
fn a_program_without_launcher_support_is_not_started_as_one() {
    let rules = ScriptRules::default().with_launcher(Launcher::Own);
    let server = start(Duration::from_secs(20), |site| {
        bound!(sanserve_mio::Server::bind("127.0.0.1:0", site.with_scripts(rules)).unwrap())
    });
    assert_eq!(server.get("/cgi-bin/who").status(), 503);
    let log = server.end();
    assert!(log.contains("the program's main has not called Launcher::run_if_asked"), "{log}");
}

macro_rules! mount {
    ($($module:ident $krate:ident)+) => { $(
        mod $module {
            use std::time::Duration;

            fn start(grace: Duration) -> testkit::Embedded {
                super::start(grace, |site| {
                    testkit::bound!($krate::Server::bind("127.0.0.1:0", site).unwrap())
                })
            }

            mount!(@cases
                hello_error_and_pass 20_000
                a_complete_body_of_any_length_is_sent_with_fields 20_000
                a_prepared_head_can_be_sent_many_times 20_000
                complete_bodies_share_the_memory_of_the_server 20_000
                a_script_gets_the_verified_user 20_000
                a_body_is_echoed_with_any_framing 20_000
                a_peer_that_waits_gets_100_continue 20_000
                a_failing_handler_affects_no_other_connection 20_000
                a_log_entry_has_the_request_and_the_tag_of_the_handler 20_000
                a_log_entry_says_how_long_and_how_much 20_000
                an_expectation_without_a_body_is_asked_about 20_000
                a_handler_is_not_called_if_an_expectation_is_refused 20_000
                a_shutdown_finishes_exchanges_in_progress 20_000
                a_shutdown_is_bounded_by_its_grace 200
                a_stop_cuts_immediately 20_000
                a_half_close_does_not_end_the_connection 20_000
            );
            mount!(@bound $krate
                an_upgraded_connection_loses_no_byte_and_keeps_its_place
                an_upgrade_without_a_working_hook_is_closed
                only_verified_peers_are_served
                a_small_body_is_complete_when_the_handler_is_called
                a_handler_is_woken_from_another_thread
                rules_apply_to_files_and_handlers
            );
        }
    )+ };
    (@cases $($case:ident $grace:literal)+) => { $(
        #[test]
        fn $case() {
            super::$case(start(Duration::from_millis($grace)));
        }
    )+ };
    (@bound $krate:ident $($case:ident)+) => { $(
        #[test]
        fn $case() {
            let bind = |site| testkit::bound!($krate::Server::bind("127.0.0.1:0", site).unwrap());
            super::$case(super::On { krate: stringify!($krate), bind });
        }
    )+ };
}

mount!(on_mio sanserve_mio on_std sanserve_std on_smol sanserve_smol);

//! Request bodies for scripts and their output: every size, both directions at once, and no endless waits.

use std::thread;

use testkit::page::{check_any_error, check_error};
use testkit::scripts::{Gateway, chunked, request, written};
use testkit::tree::Pattern;
use testkit::{Client, Runtime, eventually};

/// The memory limit of a server, whatever passes through it.
const MEMORY: u64 = 40 << 20;

fn patterned(size: usize) -> Vec<u8> {
    let pattern = Pattern::new();
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let part = pattern.at(bytes.len() as u64);
        bytes.extend_from_slice(&part[..part.len().min(size - bytes.len())]);
    }
    bytes
}

/// Sends `size` bytes of the pattern in another thread, and compares the response with it.
#[track_caller]
fn echo(client: &mut Client, size: usize) {
    let mut other = client.twin();
    let writer = thread::spawn(move || {
        other.send(format!("POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
        let pattern = Pattern::new();
        let mut at = 0;
        while at < size {
            let part = pattern.at(at as u64);
            let part = &part[..part.len().min(size - at)];
            other.send(part);
            at += part.len();
        }
    });
    let pattern = Pattern::new();
    let mut at = 0;
    let head = client.receive(false, |bytes| {
        pattern.check(at, bytes);
        at += bytes.len() as u64;
    });
    assert_eq!((head.status, at), (200, size as u64));
    writer.join().expect("everything is sent");
}

/// A body with a length reaches the script completely, whatever its size and however it arrives.
pub fn uploads(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for size in [1, 70 << 10, 5 << 20] {
        let answer = client.ask(request("POST", "/cgi-bin/count", "", patterned(size)));
        assert_eq!(answer.body_text(), format!("{size} {size}\n"));
        let answer = client.ask(request("GET", "/cgi-bin/count", "", patterned(size)));
        assert_eq!(answer.body_text(), format!("{size} {size}\n"), "a GET may have one too");
        echo(&mut client, size);
    }
    let sent = request("POST", "/cgi-bin/echo", "", patterned(3000));
    for cut in [1, 60, sent.len() - 3000, sent.len() - 2999, sent.len() - 1] {
        client.send_cut(&sent, &[cut]);
        Pattern::new().check(0, &client.response().body);
    }
    // Without a body, no length is passed (RFC 3875 section 4.1.2), unless the request has one.
    assert_eq!(gateway.get("/cgi-bin/count").body_text(), " 0\n");
    assert_eq!(gateway.post("/cgi-bin/count", "").body_text(), "0 0\n");
    echo(&mut client, 0);
    drop(client);
    gateway.settle();
}

/// A script that writes while it reads, for a client that reads while it writes, at any size.
pub fn full_duplex(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for size in [100, 65_535, 65_536, 65_537, 1 << 20, 48 << 20] {
        echo(&mut client, size);
    }
    let clients: Vec<_> = (0..4)
        .map(|at| {
            let mut client =
                if at % 2 == 0 { gateway.connect() } else { Client::connect_narrow(gateway.server.address()) };
            thread::spawn(move || echo(&mut client, 2 << 20))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("everything is echoed"));
    let peak = gateway.server.process().peak();
    assert!(peak < MEMORY, "{peak} bytes were resident");
    drop(client);
    gateway.settle();
}

/// Uploads and downloads that are far larger than the memory limit.
pub fn much_in_little_memory(rt: Runtime) {
    const SIZE: usize = 256 << 20;
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    client.send(format!("POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"));
    let piece = vec![b'a'; 1 << 20];
    (0..SIZE >> 20).for_each(|_| client.send(&piece));
    assert_eq!(client.response().body_text(), format!("{SIZE} {SIZE}\n"));
    client.send(format!("GET /cgi-bin/zeros?{SIZE} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut received = 0;
    client.receive(false, |bytes| received += bytes.len());
    assert_eq!(received, SIZE);
    let peak = gateway.server.process().peak();
    assert!(peak < MEMORY, "{peak} bytes were resident");
    drop(client);
    gateway.settle();
}

/// A chunked body is decoded, and its length passed, before the script runs.
pub fn chunked_uploads(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let head =
        |script: &str| format!("POST /cgi-bin/{script} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut client = gateway.connect();
    for (size, piece) in [(0, 1), (1, 1), (5_000, 7), (70 << 10, 70 << 10), (5 << 20, 8_191)] {
        let body = patterned(size);
        client.send(head("count"));
        client.send(chunked(&body, piece));
        assert_eq!(client.response().body_text(), format!("{size} {size}\n"));
        client.send(head("echo"));
        client.send(chunked(&body, piece));
        assert!(client.response().body == body, "{size}");
    }
    client.send(head("count"));
    client.send("3;a=b\r\nabc\r\n002\r\nde\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(client.response().body_text(), "5 5\n");
    client.send(head("echo"));
    client.send("3 ; a = b\r\nabc\r\n2;a=\"\\\";\"\t;b\r\nde\r\n0 ;a\r\n\r\n");
    assert_eq!(client.response().body_text(), "abcde");
    // The client disconnects while the body is spooled.
    client.send(head("count"));
    client.send("3\r\nabc\r\n");
    client.reset();
    let broken_extensions = ["3;\r\nabc\r\n", "3;=\r\nabc\r\n", "3;a=\"b\r\nabc\r\n", "3 \r\nabc\r\n"];
    for broken in ["x\r\n", "3\r\nabcd\r\n", "3\r\nab"].into_iter().chain(broken_extensions) {
        let answer = gateway.server.ask(head("count") + broken);
        check_any_error(&answer, 400);
        assert!(answer.head.closes(), "{broken:?}");
    }
    gateway.settle();
    assert_eq!(gateway.remarks("count"), [""; 0]);
}

/// `--cgi-chunked=refuse`: a length is required.
pub fn chunked_refused(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-chunked=refuse"]);
    let head = "POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
    for fields in ["", "Expect: 100-continue\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("{head}{fields}\r\n"));
        let answer = client.response();
        check_error(&answer, 411, "Length Required");
        assert!(answer.head.closes());
    }
    assert_eq!(gateway.post("/cgi-bin/count", "abc").body_text(), "3 3\n");
    gateway.settle();
}

/// `--max-body`: a body that is too long is refused before a script runs, announced or not.
pub fn too_large(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--max-body", "1000"]);
    assert_eq!(gateway.post("/cgi-bin/count", vec![b'x'; 1000]).body_text(), "1000 1000\n");
    check_error(&gateway.post("/cgi-bin/never", vec![b'x'; 1001]), 413, "Content Too Large");
    let head = "POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = gateway.server.ask([head.as_bytes(), &chunked(&[b'x'; 1000], 7)].concat());
    assert_eq!(answer.body_text(), "1000 1000\n");
    for size in [1001, 5 << 20] {
        let head = head.replace("count", "never");
        let answer = gateway.server.ask([head.as_bytes(), &chunked(&vec![b'x'; size], 7777)].concat());
        check_error(&answer, 413, "Content Too Large");
    }
    gateway.settle();
}

/// `Expect: 100-continue`: 100 if a script reads the body, else only the final response.
pub fn expectations(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for framing in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
        for _ in 0..2 {
            client
                .send(format!("POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"));
            assert_eq!(client.head().status, 100, "{framing}");
            client.send(if framing.starts_with('C') { "abc" } else { "3\r\nabc\r\n0\r\n\r\n" });
            assert_eq!(client.response().body_text(), "3 3\n", "{framing}");
        }
    }
    for (target, status) in [("/cgi-bin/none", 404), ("/cgi-bin/text", 403), ("/cgi-bin/", 403), ("/a.txt", 501)] {
        let mut client = gateway.connect();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"));
        let answer = client.response();
        check_any_error(&answer, status);
        assert!(answer.head.closes(), "{target}");
        client.ends();
    }
    drop(client);
    gateway.settle();
}

/// A script may respond without reading: the response arrives completely, however much the client sends.
pub fn an_early_answer(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-read-first", "0"]);
    let check = |client: &mut Client| {
        let answer = client.response();
        assert_eq!((answer.status(), answer.body_text()), (403, "no"));
    };
    // A short rest of the body is read, so that the connection continues.
    let mut client = gateway.connect();
    for size in [1, 1000, 60_000] {
        client.send(request("POST", "/cgi-bin/refuse", "", vec![b'x'; size]));
        check(&mut client);
        assert_eq!(client.get("/cgi-bin/hello").body, b"hello\n", "{size}");
    }
    // The response arrives while most of the body is still to be sent.
    client.send("POST /cgi-bin/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc");
    check(&mut client);
    client.send("x".repeat(4997));
    assert_eq!(client.get("/cgi-bin/hello").body, b"hello\n");
    drop(client);
    let mut client = gateway.connect();
    client.send("POST /cgi-bin/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc");
    check(&mut client);
    drop(client);
    // Everything is sent before anything is read.
    for size in [300_000, 20 << 20] {
        let mut client = gateway.connect();
        client.send(request("POST", "/cgi-bin/refuse", "", vec![b'x'; size]));
        check(&mut client);
        client.ends();
    }
    gateway.settle();
}

/// A client that does not read stops its script, and the server holds little.
pub fn a_client_that_does_not_read(rt: Runtime) {
    let gateway = Gateway::with(rt, rt.alone());
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect_narrow(gateway.server.address())).collect();
    for client in &mut clients {
        client.send("GET /cgi-bin/flood HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().status, 200);
    }
    let scripts = gateway.wait_for(clients.len());
    eventually("all scripts are flooding", || gateway.processes().iter().all(|found| found.name == "cat"));
    let mut before = Vec::new();
    let mut still = 0;
    eventually("the scripts are stopped", || {
        let now: Vec<u64> = scripts.iter().map(written).collect();
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still == 40
    });
    assert!(before.iter().all(|&bytes| bytes < 16 << 20), "{before:?} bytes were written");
    let peak = gateway.server.process().peak();
    assert!(peak < MEMORY, "{peak} bytes were resident");
    // They continue when their output is read.
    clients[0].skip(16 << 20);
    assert_eq!(gateway.get("/a.txt").body, b"alpha\n", "others are served");
    drop(clients);
    gateway.settle();
}

/// A script that does not read stops its client, and does not fill the memory of the server.
pub fn a_script_that_does_not_read(rt: Runtime) {
    let gateway = Gateway::with(rt, &[rt.alone(), &["--cgi-timeout", "2"]].concat());
    let mut client = gateway.connect();
    client.send("POST /cgi-bin/never HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    client.send_while_taken(&[b'x'; 1 << 16]);
    let peak = gateway.server.process().peak();
    assert!(peak < MEMORY, "{peak} bytes were resident");
    assert_eq!(gateway.get("/a.txt").body, b"alpha\n", "others are served");
    check_error(&client.response(), 504, "CGI script took too long ('/cgi-bin/never')");
    drop(client);
    gateway.settle();
}

/// A reset is noticed even if no bytes are transferred.
pub fn a_reset_while_nothing_moves(rt: Runtime) {
    let gateway = Gateway::with(rt, rt.alone());
    let mut client = gateway.connect();
    client.send("POST /cgi-bin/never HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    client.send_while_taken(&[b'x'; 1 << 16]);
    client.reset();
    gateway.settle();
}

/// A body that ends early: the script must not take it for complete.
pub fn half_a_body(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-read-first", "0"]);
    let head = "POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc";
    check_error(&gateway.server.ask(head), 400, "Incomplete request body");
    let mut client = gateway.connect();
    client.send(head.replace("say", "echo"));
    assert_eq!(client.head().status, 200);
    client.half_close();
    let (rest, _) = client.rest_however();
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "a complete response to half a request: {:?}",
        rest.escape_ascii().to_string()
    );
    gateway.server.log_line("of the cut", |line| line.contains("the request's body broke off"));
    gateway.settle();
    let gateway = Gateway::with(rt, &["--body-timeout", "0.3"]);
    let mut client = gateway.connect();
    client.send(head);
    check_any_error(&client.response(), 408);
    client.ends();
    gateway.settle();
}

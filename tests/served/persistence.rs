//! When a connection continues and when it ends, and how the responses announce it.

use testkit::{Runtime, Server, Tree};

/// An HTTP/1.1 connection continues until one side announces `close`.
pub fn http_1_1(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for _ in 0..100 {
        let response = client.get("/a.txt");
        assert_eq!((response.status(), response.text("Connection")), (200, None));
        assert_eq!(client.get("/none").status(), 404);
        assert_eq!(client.get("/folder").status(), 301);
    }
    for value in
        ["close", "Close", "CLOSE", "x, close", "close,x", " ,close , keep-alive", "keep-alive\r\nConnection: close"]
    {
        let mut client = server.connect();
        let request = format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: {value}\r\n\r\n");
        let response = client.ask(request);
        assert_eq!((response.status(), response.text("Connection")), (200, Some("close")), "{value:?}");
        client.ends();
    }
    for value in ["keep-alive", "x", "closed", "x-close", "upgrade"] {
        let mut client = server.connect();
        let response = client.ask(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: {value}\r\n\r\n"));
        assert!(!response.head.closes(), "{value:?}");
        assert_eq!(client.get("/a.txt").status(), 200, "{value:?}");
    }
}

/// An HTTP/1.0 connection ends unless the client asks to keep it open.
pub fn http_1_0(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for target in ["/a.txt", "/none", "/folder", "/"] {
        let mut client = server.connect();
        let response = client.ask(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert!(response.text("Content-Length").is_some(), "{target}");
        assert_eq!(response.text("Connection"), Some("close"), "{target}");
        client.ends();
    }
    let mut client = server.connect();
    for value in ["keep-alive", "Keep-Alive", "x, keep-alive"] {
        for target in ["/a.txt", "/none", "/folder", "/"] {
            let response = client.ask(format!("GET {target} HTTP/1.0\r\nConnection: {value}\r\n\r\n"));
            assert_eq!(response.text("Connection"), Some("keep-alive"), "{target} {value}");
        }
    }
    let response = client.ask("GET /a.txt HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n");
    assert_eq!(response.text("Connection"), Some("close"));
    client.ends();
}

/// `-p HTTP/1.0` behaves like Python by default: HTTP/1.0 in every status line, and the connection ends after each
/// response.
pub fn the_protocol_flag(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["-p", "HTTP/1.0"]);
    for fields in ["", "Connection: keep-alive\r\n"] {
        for version in ["1.0", "1.1"] {
            for target in ["/a.txt", "/none", "/folder", "/"] {
                let mut client = server.connect();
                let response = client.ask(format!("GET {target} HTTP/{version}\r\nHost: x\r\n{fields}\r\n"));
                assert_eq!(response.head.version, "HTTP/1.0", "{target} {version} {fields}");
                client.ends();
            }
        }
    }
    let server = Server::with(rt, tree.root(), &["--protocol=HTTP/1.1"]);
    assert_eq!(server.get("/a.txt").head.version, "HTTP/1.1");
}

/// A client that half-closes after its request still gets the complete response.
pub fn half_close(rt: Runtime) {
    let tree = Tree::plain();
    tree.patterned("big.bin", 3_000_000);
    let server = Server::start(rt, tree.root());
    for target in ["/a.txt", "/big.bin", "/none", "/", "/folder"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.half_close();
        let response = client.response();
        assert_eq!(Some(response.body.len() as u64), response.head.length(), "{target}");
        client.ends();
    }
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    client.half_close();
    client.ends();
}

/// A connection that ends before or within a head is not a request.
pub fn an_end_without_a_request(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for start in [
        "",
        "\r\n",
        "G",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r",
    ] {
        let mut client = server.connect();
        client.send(start);
        client.half_close();
        let (answer, _) = client.rest_however();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{start:?}: {}", answer.escape_ascii());
        assert_eq!(server.get("/a.txt").body, b"alpha\n", "bytes of {start:?} are left for the next connection");
    }
}

/// A head may arrive byte by byte.
pub fn single_bytes(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for _ in 0..3 {
        let request = "\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
        client.dribble(request);
        assert_eq!(client.response().body, b"alpha\n");
        let request =
            "GET /b.html HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: t\r\n\r\n";
        client.dribble(request);
        assert_eq!(client.response().body, b"<p>beta</p>\n");
        client.dribble("HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response_to(b"HEAD ").status(), 404);
    }
}

/// Empty lines before a request line are ignored (RFC 9112 section 2.2).
pub fn blank_lines_before_a_request(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for _ in 0..3 {
        client.send("\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().body, b"alpha\n");
    }
}

/// `Upgrade` is ignored, whatever it offers.
pub fn upgrade_is_ignored(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (connection, upgrade) in [("Upgrade", "websocket"), ("Upgrade, HTTP2-Settings", "h2c"), ("x", "HTTP/2.0")] {
        let request = format!(
            "GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        );
        assert_eq!(client.ask(request).body, b"alpha\n", "{upgrade}");
    }
}

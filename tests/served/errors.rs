//! Error responses: status, page, fields, and the effect on the connection.

use testkit::page::{check_any_error, check_error};
use testkit::response::Response;
use testkit::{Runtime, Server, Tree};

/// All kinds of 404 keep the connection open.
pub fn not_found(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for target in ["/none", "/folder/none", "/a.txt/", "/a.txt/more", "/empty/", "/%ff", "/none?x#y"] {
        let response = client.get(target);
        check_error(&response, 404, "File not found");
        assert_eq!(
            response.head.names(),
            ["Server", "Date", "Content-Type", "Content-Length", "X-Content-Type-Options", "Content-Security-Policy"],
            "{target}"
        );
    }
    assert_eq!(client.get("/a.txt").status(), 200);
    let long = client.get(format!("/{}", "n".repeat(300)));
    check_error(&long, 404, "File not found");
    let deep = client.get("/d".repeat(3000));
    check_error(&deep, 404, "File not found");
    assert_eq!(client.get("/a.txt").status(), 200);
}

/// The order of the fields of an error that ends the connection.
pub fn the_fields_of_a_closing_error(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let response = server.ask("GET / HTTP/2.0\r\nHost: x\r\n\r\n");
    check_error(&response, 505, "Invalid HTTP version (2.0)");
    let names = ["Server", "Date", "Connection", "Content-Type", "Content-Length", "X-Content-Type-Options"];
    assert_eq!(response.head.names(), [&names[..], &["Content-Security-Policy"]].concat());
    assert_eq!(response.text("Connection"), Some("close"));
}

/// Methods that a static server does not support: 501 with `Allow`, and the connection continues.
pub fn other_methods(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for method in
        ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "get", "Get", "GETT", "G", "HEADS", "X-!#$%&*+.^_`|~9"]
    {
        let response = client.ask(format!("{method} /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        check_error(&response, 501, &format!("Unsupported method ('{method}')"));
        check_allow(&response);
    }
    assert_eq!(client.get("/a.txt").status(), 200);
    let response = server.ask("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    check_error(&response, 501, "Unsupported method ('CONNECT')");
    check_allow(&response);
}

/// OPTIONS for a path and for the server.
pub fn options(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for target in ["/a.txt", "/", "*", "/none", "/folder"] {
        let response = client.ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(response.status(), 204, "{target}");
        check_allow(&response);
        assert!(response.text("Allow").expect("checked").contains("OPTIONS"), "{target}");
    }
    assert_eq!(client.get("/a.txt").status(), 200);
}

fn check_allow(response: &Response) {
    let allow = response.text("Allow").unwrap_or_else(|| panic!("no Allow in {:?}", response.head));
    let methods: Vec<&str> = allow.split(", ").collect();
    assert!(methods.contains(&"GET") && methods.contains(&"HEAD") && !methods.contains(&"POST"), "{allow}");
}

/// Versions: supported, unsupported, and malformed.
pub fn versions(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for version in ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
        let response = server.ask(format!("GET /a.txt {version}\r\nHost: x\r\n\r\n"));
        assert_eq!((response.status(), response.head.version.as_str()), (200, "HTTP/1.1"), "{version}");
        assert_eq!(response.body, b"alpha\n");
    }
    let response = server.ask("GET /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!((response.status(), response.head.version.as_str()), (200, "HTTP/1.1"));
    for version in ["2.0", "2.1", "3.0", "9.9"] {
        let response = server.ask(format!("GET /a.txt HTTP/{version}\r\nHost: x\r\n\r\n"));
        check_error(&response, 505, &format!("Invalid HTTP version ({version})"));
        assert!(response.head.closes(), "{version}");
    }
    for version in ["HTTP/1", "HTTP/11", "HTTP/1.x", "http/1.1", "Http/1.1", "HTTQ/1.1", "HTTP-1.1", "HTTP/+1.1", "1.1"]
    {
        let response = server.ask(format!("GET /a.txt {version}\r\nHost: x\r\n\r\n"));
        check_error(&response, 400, &format!("Bad request version ('{version}')"));
        assert!(response.head.closes(), "{version}");
    }
}

/// Malformed request lines; each page contains the error, escaped.
pub fn malformed_request_lines(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for line in
        ["GET", "GET /", "GET  /a.txt HTTP/1.1", "GET /a.txt  HTTP/1.1", "GET /a b HTTP/1.1", "GET\t/\tHTTP/1.1"]
    {
        let response = server.ask(format!("{line}\r\nHost: x\r\n\r\n"));
        check_any_error(&response, 400);
        assert!(response.head.closes(), "{line:?}");
    }
    for line in
        [" GET / HTTP/1.1", "G@T / HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/1.1 x", "G\u{e9}T / HTTP/1.1", "<b> & x"]
    {
        let response = server.ask(format!("{line}\r\nHost: x\r\n\r\n"));
        check_any_error(&response, 400);
        assert!(response.head.closes(), "{line:?}");
    }
    let response = server.ask("GET /<b>&amp; x\r\nHost: x\r\n\r\n");
    let message = check_any_error(&response, 400);
    assert!(!message.contains('<'), "{message}");
    let response = server.ask("GET /\r\n\r\n");
    check_error(&response, 400, "Bad request syntax ('GET /')");
}

/// `Host` on HTTP/1.1: exactly one, and a valid one (RFC 9112 section 3.2).
pub fn host(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a@b\r\n",
        "Host: [::1\r\n",
        "Host: a:port\r\n",
    ] {
        let response = server.ask(format!("GET /a.txt HTTP/1.1\r\n{fields}\r\n"));
        check_any_error(&response, 400);
        assert!(response.head.closes(), "{fields:?}");
    }
    for fields in [
        "Host: a\r\n",
        "Host:a\r\n",
        "Host:\r\n",
        "host: a:80\r\n",
        "HOST: [::1]:8000\r\n",
        "Host: 127.0.0.1:\r\n",
        "Host: \t a \t\r\n",
    ] {
        let response = server.ask(format!("GET /a.txt HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(response.status(), 200, "{fields:?}");
    }
    assert_eq!(server.ask("GET /a.txt HTTP/1.0\r\n\r\n").status(), 200, "HTTP/1.0 does not need it");
}

/// The forms of a target (RFC 9112 section 3.2).
pub fn targets(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for target in ["/a.txt", "/a.txt?q", "http://x/a.txt", "http://x:80/a.txt?q", "HTTP://X/a.txt", "/a.txt#fragment"] {
        assert_eq!(server.get(target).body, b"alpha\n", "{target}");
    }
    assert!(server.get("http://x").body_text().contains("Directory listing for /<"));
    assert!(server.get("http://x?q").body_text().contains("Directory listing for /<"));
    for target in ["*", "a.txt", "./a.txt", "?q", "x:80"] {
        check_any_error(&server.get(target), 400);
    }
}

/// The known expectation, and unknown ones.
pub fn expectations(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for value in ["nothing", "100-continu", "100-continue, x", "200-ok"] {
        let response = server.ask(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nExpect: {value}\r\n\r\n"));
        check_any_error(&response, 417);
    }
    let response = server.ask("GET /a.txt HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(response.body, b"alpha\n", "without a body there is nothing to wait for");
}

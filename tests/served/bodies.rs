//! Request bodies that are not needed: they are discarded, or the response is sent so that it arrives.

use testkit::page::{check_any_error, check_error};
use testkit::{Runtime, Server, Tree};

/// A body before a pipelined request is not taken for a request.
pub fn a_body_is_passed_over(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let bait = "GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = bait.len();
    let chunked = format!("{length:x}\r\n{bait}\r\n0\r\n\r\n");
    let extended =
        format!("{length:X};name=value;q=\"a;b\"\r\n{bait}\r\n000;last\r\nTrailer-Field: GET / HTTP/1.1\r\n\r\n");
    let mut client = server.connect();
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        for (framing, body) in [
            (format!("Content-Length: {length}"), bait),
            (format!("Content-Length: {length}\r\nContent-Length: {length}"), bait),
            (format!("Content-Length: 000{length}"), bait),
            ("Transfer-Encoding: chunked".to_owned(), &chunked),
            ("Transfer-Encoding: Chunked".to_owned(), &extended),
        ] {
            let request = format!("{method} /a.txt HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}");
            client.send(format!("{request}GET /folder/inner.txt HTTP/1.1\r\nHost: x\r\n\r\n"));
            let expected = match method {
                "POST" => 501,
                "OPTIONS" => 204,
                _ => 200,
            };
            let first = client.response_to(request.as_bytes());
            assert_eq!((first.status(), first.head.closes()), (expected, false), "{request:?}");
            assert_eq!(client.response().body, b"inner\n", "{request:?}");
        }
    }
    client.half_close();
    client.ends();
}

/// A body that arrives later than its head.
pub fn a_late_body(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (framing, body) in [
        ("Content-Length: 30000", "a".repeat(30_000)),
        ("Transfer-Encoding: chunked", "5\r\nabcde\r\n".repeat(3000) + "0\r\n\r\n"),
    ] {
        client.send(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
        for piece in body.as_bytes().chunks(7001) {
            client.send(piece);
        }
        assert_eq!(client.response().body, b"alpha\n", "{framing}");
        assert_eq!(client.get("/b.html").body, b"<p>beta</p>\n", "{framing}");
    }
}

/// An unwanted body of 10 MB: the page of the 501 arrives completely, without a reset before it.
pub fn a_large_unwanted_body(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for framing in ["Content-Length: 10000000", "Transfer-Encoding: chunked"] {
        let mut sender = server.connect();
        sender.send(format!("POST /a.txt HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
        for _ in 0..100 {
            let piece = vec![b'x'; 100_000];
            let piece = if framing.starts_with('C') { piece } else { [b"186A0\r\n", &piece[..], b"\r\n"].concat() };
            sender.send(&piece);
        }
        check_error(&sender.response(), 501, "Unsupported method ('POST')");
        sender.ends();
    }
    assert_eq!(server.get("/a.txt").status(), 200);
}

/// The same with a client that reads only after its last byte, and does not finish the body.
pub fn an_announced_gigabyte(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("PUT /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    client.send(vec![b'x'; 1_000_000]);
    let response = client.response();
    check_error(&response, 501, "Unsupported method ('PUT')");
    assert!(response.head.closes());
    client.ends();
}

/// `Expect: 100-continue` with a final response: only that response is sent, without a 100 before it.
pub fn no_continue_for_nothing(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for (method, target, status) in [
        ("POST", "/a.txt", 501),
        ("PUT", "/none", 501),
        ("GET", "/a.txt", 200),
        ("GET", "/none", 404),
        ("HEAD", "/", 200),
    ] {
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let mut client = server.connect();
            let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
            let response = client.ask(&request);
            assert_eq!(response.status(), status, "{request:?}");
        }
    }
}

/// A client that expects 100 and gets a final response may send the body or not (RFC 9110 section 10.1.1). In either
/// case, no part of the body is taken for a request.
pub fn after_a_refused_expectation(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let bait = "GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = server.connect();
    let length = bait.len();
    let response =
        client.ask(format!("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(response.status(), 501);
    if response.head.closes() {
        client.ends();
    } else {
        client.send(bait);
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
    }
}

/// A malformed body: it is refused, and nothing after it is answered.
pub fn broken_chunks(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let next = "GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n";
    for body in [
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "5 \r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdeXX0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "\r\n5\r\nabcde\r\n0\r\n\r\n",
        ";x\r\nabcde\r\n0\r\n\r\n",
        "g\r\nabcde\r\n0\r\n\r\n",
        "5g\r\nabcde\r\n0\r\n\r\n",
        "1_0\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "ffffffffffffffff5\r\nabcde\r\n0\r\n\r\n",
        "5;x\ny\r\nabcde\r\n0\r\n\r\n",
        "5;x\ry\r\nabcde\r\n0\r\n\r\n",
        "5;\0\r\nabcde\r\n0\r\n\r\n",
        "5;\r\nabcde\r\n0\r\n\r\n",
        "5; \r\nabcde\r\n0\r\n\r\n",
        "5;a;\r\nabcde\r\n0\r\n\r\n",
        "5;=a\r\nabcde\r\n0\r\n\r\n",
        "5;a b\r\nabcde\r\n0\r\n\r\n",
        "5;a=\r\nabcde\r\n0\r\n\r\n",
        "5;a=\"b\r\nabcde\r\n0\r\n\r\n",
        "5;a=\"\x01\"\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde\r\n0;\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nT : t\r\n\r\n",
        "0\r\nT: t\n\r\n",
    ] {
        let request = format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{next}");
        let mut client = server.connect();
        client.send(&request);
        client.half_close();
        let response = client.response();
        // The response may have been sent before the body was known to be malformed. In any case there is one
        // response to one request.
        if response.status() == 200 {
            assert_eq!(response.body, b"alpha\n", "{body:?}");
        } else {
            check_any_error(&response, 400);
            assert!(response.head.closes(), "{body:?}");
        }
        let rest = client.rest();
        assert!(rest.is_empty(), "{body:?}: {}", rest.escape_ascii());
    }
}

/// White space is permitted around the delimiters of chunk extensions (RFC 9112 section 7.1.1): the body is
/// discarded, and the connection continues.
pub fn chunk_extensions(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for extensions in [" ;a", "; a", " ; a = b", "\t;\ta\t=\t\"b\"", ";a=\"\\\";\\\\ \" ;b", ";a;b=c ; d"] {
        let body = format!("5{extensions}\r\nabcde\r\n0{extensions}\r\n\r\n");
        client.send(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert_eq!(client.response().body, b"alpha\n", "{extensions:?}");
    }
    assert_eq!(client.get("/a.txt").body, b"alpha\n");
}

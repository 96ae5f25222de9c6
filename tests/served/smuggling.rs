//! Heads that two servers could read differently: they are refused, the connection is closed, and nothing after them
//! is answered.

use testkit::page::check_any_error;
use testkit::response::Response;
use testkit::{Runtime, Server, Tree};

/// Sends `shape` with a request after it that must not be answered.
#[track_caller]
fn refused(server: &Server, shape: &[u8], status: u16) -> Response {
    let mut client = server.connect();
    client.send([shape, b"GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    client.half_close();
    let response = client.response();
    check_any_error(&response, status);
    assert!(response.head.closes(), "{}", shape.escape_ascii());
    client.ends();
    response
}

fn with_fields(fields: &str, body: &str) -> Vec<u8> {
    format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}").into_bytes()
}

/// Two framings, or a malformed length (RFC 9112 section 6.3).
pub fn lengths(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5, 6",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5a",
        "Content-Length: 5.0",
        "Content-Length: \u{665}",
        "Content-Length: 18446744073709551621",
        "Content-Length: 99999999999999999999999999999999",
    ] {
        refused(&server, &with_fields(fields, "0\r\n\r\n"), 400);
    }
}

/// Transfer codings: `chunked` once, last, on HTTP/1.1; an unknown coding is a 501.
pub fn codings(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for fields in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,chunked,",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked\u{b}",
    ] {
        let mut client = server.connect();
        client.send([&with_fields(fields, "0\r\n\r\n")[..], b"GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
        client.half_close();
        let response = client.response();
        assert!([400, 501].contains(&response.status()) && response.head.closes(), "{fields:?}: {:?}", response.head);
        client.ends();
    }
    refused(&server, &with_fields("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), 400);
    refused(&server, &with_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400);
    for fields in [
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
    ] {
        refused(&server, &with_fields(fields, "0\r\n\r\n"), 501);
    }
    refused(&server, b"GET /a.txt HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

/// Malformed fields (RFC 9112 section 5).
pub fn fields(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for fields in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        "X: a\r\n Content-Length: 5",
        " X: first",
        "X",
        ": no name",
        "X\u{e9}: y",
        "(X): y",
        "X: a\0b",
        "X: a\x01b",
        "X: a\x7fb",
        "X: a\x1b[0mb",
        "X: a\x0bb",
    ] {
        refused(&server, &with_fields(fields, ""), 400);
    }
    refused(&server, b"GET /a.txt HTTP/1.1\r\n Host: x\r\n\r\n", 400);
}

/// Line terminators: only CR LF, and for a bare LF a page that explains it.
pub fn line_ends(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let shapes: &[&[u8]] = &[
        b"GET /a.txt HTTP/1.1\nHost: x\n\n",
        b"GET /a.txt HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\n\n",
        b"GET /a.txt HTTP/1.1\r\nX: a\nContent-Length: 5\r\nHost: x\r\n\r\n",
        b"\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\rHost: x\r\r",
        b"GET /a.txt HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nX: a\rContent-Length: 5\r\nHost: x\r\n\r\n",
        b"GET /a.txt\r HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\r\n\r\n",
    ];
    for shape in shapes {
        refused(&server, shape, 400);
    }
    for shape in &shapes[..3] {
        let page = refused(&server, shape, 400);
        let text = page.body_text();
        assert!(
            text.contains("LF") && text.contains("nc") && text.contains("-C"),
            "the page does not say what to do: {text}"
        );
    }
}

/// A bare LF is refused when it arrives, not when the head ends.
pub fn a_lone_newline_is_answered_at_once(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.0\n\n");
    check_any_error(&client.response(), 400);
    client.ends();
}

/// Bytes that are not permitted in a request line.
pub fn request_lines(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let shapes: &[&[u8]] = &[
        b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\x01b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a\x7fb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\0\r\nHost: x\r\n\r\n",
        b"\0GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\x0b/a.txt\x0bHTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\x0b\r\nHost: x\r\n\r\n",
    ];
    for shape in shapes {
        refused(&server, shape, 400);
    }
    refused(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

/// A refusal in the middle of a pipeline: earlier requests are answered, later ones are not.
pub fn in_a_pipeline(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let good = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = server.connect();
    client.send([good, good, "GET /a.txt HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", good, good].concat());
    assert_eq!(client.response().body, b"alpha\n");
    assert_eq!(client.response().body, b"alpha\n");
    check_any_error(&client.response(), 400);
    client.ends();
}

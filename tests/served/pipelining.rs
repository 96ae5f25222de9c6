//! Many requests that are sent together are answered one by one, in order.

use testkit::tree::STAMP;
use testkit::{Client, Dice, Runtime, Server, Tree};

const COUNT: usize = 50;

/// A request and the expected response.
struct Exchange {
    request: String,
    status: u16,
    body: Option<Vec<u8>>,
}

fn tree() -> Tree {
    let tree = Tree::plain();
    for n in 0..COUNT {
        tree.file(format!("{n}.txt"), format!("file {n}\n").repeat(n)).stamp(format!("{n}.txt"), STAMP);
    }
    tree
}

fn plain(n: usize) -> Exchange {
    Exchange {
        request: format!("GET /{n}.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
        status: 200,
        body: Some(format!("file {n}\n").repeat(n).into_bytes()),
    }
}

/// All kinds of responses in turn.
fn mixed(n: usize) -> Exchange {
    let Exchange { body, .. } = plain(n);
    let get = format!("GET /{n}.txt HTTP/1.1\r\nHost: x\r\n");
    let (request, status, body) = match n % 9 {
        0 => (format!("{get}\r\n"), 200, body),
        1 => (format!("GET /none-{n} HTTP/1.1\r\nHost: x\r\n\r\n"), 404, None),
        2 => (format!("{get}If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"), 304, Some(Vec::new())),
        3 => (format!("HEAD /{n}.txt HTTP/1.1\r\nHost: x\r\n\r\n"), 200, Some(Vec::new())),
        4 => (format!("{get}Content-Length: 9\r\n\r\nGET / HTT"), 200, body),
        5 => (format!("GET /folder?{n} HTTP/1.1\r\nHost: x\r\n\r\n"), 301, Some(Vec::new())),
        6 => (format!("{get}Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n"), 200, body),
        7 => (format!("POST /{n}.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"), 501, None),
        _ => ("GET /folder/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200, None),
    };
    Exchange { request, status, body }
}

#[track_caller]
fn check(client: &mut Client, exchanges: &[Exchange]) {
    for (n, exchange) in exchanges.iter().enumerate() {
        let response = client.response_to(exchange.request.as_bytes());
        assert_eq!(response.status(), exchange.status, "answer {n} to {:?}", exchange.request);
        if let Some(body) = &exchange.body {
            assert_eq!(&response.body, body, "answer {n} to {:?}", exchange.request);
        }
    }
}

fn bytes(exchanges: &[Exchange]) -> Vec<u8> {
    exchanges.iter().flat_map(|exchange| exchange.request.bytes()).collect()
}

/// Fifty GETs in one write, twice on one connection.
pub fn fifty_in_order(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let exchanges: Vec<Exchange> = (0..COUNT).map(plain).collect();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(bytes(&exchanges));
        check(&mut client, &exchanges);
    }
    client.half_close();
    client.ends();
}

/// The same with every kind of response in between, and with a half-close right after.
pub fn fifty_mixed(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let exchanges: Vec<Exchange> = (0..COUNT).map(mixed).collect();
    let mut client = server.connect();
    client.send(bytes(&exchanges));
    client.half_close();
    check(&mut client, &exchanges);
    client.ends();
}

/// However the bytes are split, the responses are the same.
pub fn fifty_split_at_random(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let exchanges: Vec<Exchange> = (0..COUNT).map(mixed).collect();
    let all = bytes(&exchanges);
    for seed in 0..10 {
        let mut client = server.connect();
        client.send_cut(&all, &Dice::new(seed).cuts(all.len(), 20));
        check(&mut client, &exchanges);
        client.half_close();
        client.ends();
    }
}

/// Requests after one that closes the connection are not answered.
pub fn nothing_after_a_close(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let next = "GET /1.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    for last in ["GET /2.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /2.txt HTTP/1.0\r\n\r\n"] {
        let mut client = server.connect();
        client.send([next, next, last, next, next].concat());
        for expected in ["file 1\n", "file 1\n", "file 2\nfile 2\n"] {
            assert_eq!(client.response().body_text(), expected);
        }
        client.ends();
    }
}

/// Pipelined requests for large files, read slowly: the server does not buffer them.
pub fn large_responses_in_a_pipeline(rt: Runtime) {
    const SIZE: u64 = 1_000_003;
    let tree = Tree::new();
    tree.patterned("big.bin", SIZE);
    let server = Server::start(rt, tree.root());
    let mut client = Client::connect_narrow(server.address());
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8));
    client.half_close();
    let pattern = testkit::tree::Pattern::new();
    for _ in 0..8 {
        let mut at = 0;
        client.receive(false, |bytes| {
            pattern.check(at, bytes);
            at += bytes.len() as u64;
        });
        assert_eq!(at, SIZE);
    }
    client.ends();
}

/// More requests than any buffer holds, sent before any response is read, are all answered.
pub fn ten_thousand_requests(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut sender = server.connect();
    let mut receiver = sender.twin();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..100 {
                sender.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100));
            }
            sender.half_close();
        });
        for _ in 0..10_000 {
            assert_eq!(receiver.response().body, b"alpha\n");
        }
        receiver.ends();
    });
}

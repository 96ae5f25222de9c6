//! Three hundred slow clients of each of three kinds (Slowloris), while an ordinary client is served.

use std::time::{Duration, Instant};

use testkit::{Client, Runtime, Server, Tree};

const COUNT: usize = 300;

fn server(rt: Runtime) -> (Tree, Server) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 64 << 20);
    let server = Server::with(rt, tree.root(), &["--quiet", "--max-connections", "4000"]);
    (tree, server)
}

/// Sends requests on connections of their own, between calls of `harm`. Their median time must be that of an idle
/// server.
#[track_caller]
fn an_ordinary_client_is_served(server: &Server, mut harm: impl FnMut(usize)) {
    let mut times: Vec<Duration> = (0..21)
        .map(|round| {
            harm(round);
            let start = Instant::now();
            assert_eq!(server.get("/a.txt").body, b"alpha\n");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
    assert!(times[20] < Duration::from_secs(5), "{times:?}");
}

/// Heads that arrive byte by byte and never end.
pub fn dripping_heads(rt: Runtime) {
    let (_tree, server) = server(rt);
    let mut drips: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    for drip in &mut drips {
        drip.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    }
    an_ordinary_client_is_served(&server, |_| {
        for drip in &mut drips {
            drip.send("x");
        }
    });
    for mut drip in drips {
        drip.send("\r\n\r\n");
        assert_eq!(drip.response().body, b"alpha\n", "a slow head is served once it is complete");
    }
}

/// Bodies that arrive byte by byte.
pub fn dripping_bodies(rt: Runtime) {
    let (_tree, server) = server(rt);
    let mut drips: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    for (n, drip) in drips.iter_mut().enumerate() {
        let method = ["GET", "POST", "PUT"][n % 3];
        drip.send(format!("{method} /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"));
    }
    an_ordinary_client_is_served(&server, |_| {
        for drip in &mut drips {
            drip.send("x");
        }
    });
}

/// Chunk lines that arrive byte by byte.
pub fn dripping_chunks(rt: Runtime) {
    let (_tree, server) = server(rt);
    let mut drips: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    for drip in &mut drips {
        drip.send("GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
    an_ordinary_client_is_served(&server, |round| {
        for drip in &mut drips {
            drip.send([b"1\r\nx\r\n"[round % 6]]);
        }
    });
}

/// Responses that are not read.
pub fn responses_that_are_not_read(rt: Runtime) {
    let (_tree, server) = server(rt);
    let mut deaf: Vec<Client> = (0..COUNT).map(|_| Client::connect_narrow(server.address())).collect();
    for client in &mut deaf {
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    an_ordinary_client_is_served(&server, |_| ());
}

/// Endless pipelines whose responses are not read: the server stops reading, and its memory is bounded.
pub fn pipelines_that_are_not_read(rt: Runtime) {
    let (tree, _) = server(rt);
    let server = Server::unrecorded(rt, tree.root(), &["--quiet"]);
    assert_eq!(server.get("/a.txt").status(), 200);
    let before = server.process().resident();
    let mut deaf: Vec<Client> = (0..12).map(|_| Client::connect_narrow(server.address())).collect();
    let flood = "GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    for client in &mut deaf {
        client.send_while_taken(flood.as_bytes());
    }
    an_ordinary_client_is_served(&server, |_| ());
    let grown = server.process().resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

/// Connections that are opened and closed as fast as possible.
pub fn a_flood_of_connections(rt: Runtime) {
    let (_tree, server) = server(rt);
    an_ordinary_client_is_served(&server, |_| {
        for n in 0..100 {
            let client = server.connect();
            if n % 2 == 0 {
                client.reset();
            }
        }
    });
}

/// Random bytes, with and without the beginning of a request: there is a well-formed response or none, and the server
/// continues.
pub fn noise(rt: Runtime) {
    let (_tree, server) = server(rt);
    let mut dice = testkit::Dice::new(7);
    let starts: [&[u8]; 5] = [
        b"",
        b"GET /a.txt HTTP/1.1\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /",
    ];
    for round in 0..400 {
        let noise: Vec<u8> = (0..dice.below(300))
            .map(|_| {
                let byte = dice.roll().to_le_bytes()[3];
                if dice.below(4) == 0 { b"\r\n :;,/%0123456789abcdef\0"[usize::from(byte) % 25] } else { byte }
            })
            .collect();
        let mut client = server.connect();
        client.send([starts[round % starts.len()], &noise].concat());
        client.half_close();
        let (answer, orderly) = client.rest_however();
        assert!(orderly, "a reset after {}", noise.escape_ascii());
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{}", answer.escape_ascii());
    }
    assert_eq!(server.get("/a.txt").body, b"alpha\n");
}

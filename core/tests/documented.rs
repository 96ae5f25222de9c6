//! The programs of `docs/testing.md`. The last test compares them with the page.

use sanserve_core::{Call, Cgi, Config, Handler, HandlerError, Misuse, Received, Reply, StatusCode};
use sanserve_testing::{Disk, Faults, Peer, Random, Script, Server, World};

#[test]
fn slowloris() {
    let mut peer = Peer::new();
    for byte in b"GET / HTTP/1.1\r\nHost: example\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaa" {
        peer.send([*byte]).pass(1_000);
    }
    peer.expect_status(408).expect_closed();
}

/// Says how long a body is.
#[derive(Default)]
struct Count(u64);

impl Handler for Count {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if matches!(call, Call::Request | Call::Body) {
            self.go_on(reply)?;
        }
        Ok(())
    }
}

impl Count {
    fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        loop {
            match reply.receive() {
                Received::Data(data) => {
                    let n = data.len();
                    self.0 += n as u64;
                    reply.consume(n);
                }
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => {
                    let length = std::mem::take(&mut self.0);
                    return reply.answer(StatusCode::OK, "text/plain", length.to_string());
                }
            }
        }
    }
}

#[test]
fn counts() {
    let mut peer = Server::new().handler(Count::default).connect();
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel").expect_nothing();
    peer.pass(19_999).send("lo").expect_answer(200, "5");
    peer.pass(15_000).expect_closed();
}

#[test]
fn counts_however_it_comes() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    Server::new().handler(Count::default).everywhere(request).expect_answer(200, "5");
}

#[test]
fn a_slow_disk() {
    let disk = Disk::new().file("docs/a.txt", "hello\n").slow("docs/a.txt", 300);
    let mut peer = Server::new().disk(disk).connect();
    peer.send("GET /docs/a.txt HTTP/1.1\r\nHost: x\r\n\r\n").pass(299).expect_nothing();
    peer.pass(1).expect_answer(200, "hello\n");
}

#[test]
fn a_script_answers() {
    let script = Script::printing("Content-Type: text/plain\n\nYou said: ").echoing().slowly(100, 50);
    let config = Config::default().with_cgi(Cgi::python());
    let mut peer = Server::new().disk(Disk::new().script("cgi-bin/say", script)).config(config).connect();
    peer.send("POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").expect_nothing();
    peer.pass(100).expect_answer(200, "You said: hi");
}

#[test]
fn counts_in_a_bad_world() {
    let requests = |random: &mut Random| {
        let size = random.size(5_000);
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
        [head.into_bytes(), random.bytes(size)].concat()
    };
    for seed in 0..10 {
        World::new(seed).handler(Count::default).requests(requests).faults(Faults::all()).run();
    }
}

#[test]
fn the_page_shows_these_programs() {
    let (page, code) = (include_str!("../../docs/testing.md"), include_str!("documented.rs"));
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 5, "{} blocks", blocks.len());
    for block in blocks {
        assert!(code.contains(block), "this is not in core/tests/documented.rs:\n{block}");
    }
}

//! A running server from the view of a client: files, handlers, timeouts.

mod support;

use std::fs;
use std::time::Duration;

use sanserve_core::{Call, Config, HandlerError, Pace, Policy, Reply, Request, Route, StatusCode, Timeouts};
use sanserve_std::Server;

use support::{plain, request, run};

/// Content in which any shift is visible.
fn content(len: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| (n * n).to_le_bytes()).take(len).collect()
}

#[test]
fn serves_files_and_listings_on_one_connection() {
    let server = plain();
    let mut client = server.connect();
    for _ in 0..3 {
        let file = client.get("/a.txt");
        assert_eq!((file.status(), file.body.as_slice()), (200, &b"hello\n"[..]));
        let listing = client.get("/");
        assert_eq!(listing.status(), 200);
        assert!(listing.body_text().contains("<a href=\"sub/\">sub/</a>"));
        assert_eq!(client.get("/sub").status(), 301);
        assert_eq!(client.get("/none").status(), 404);
    }
    drop(client);
    let log = server.end();
    assert_eq!(log.lines().filter(|line| line.ends_with("\"GET /a.txt HTTP/1.1\" 200 6")).count(), 3, "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("code 404, message File not found")).count(), 3, "{log}");
}

#[test]
fn a_file_that_was_rewritten_is_served_in_its_new_version() {
    let server = plain();
    let mut client = server.connect();
    for n in 0..50 {
        let text = format!("version {n}");
        fs::write(server.tree.path("a.txt"), &text).unwrap();
        assert_eq!(client.get("/a.txt").body, text.as_bytes());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = plain();
    let mut client = server.connect();
    client.send([request("/a.txt"), request("/none"), request("/sub/")].concat().repeat(50));
    for _ in 0..50 {
        assert_eq!(client.response().body, b"hello\n");
        assert_eq!(client.response().status(), 404);
        assert_eq!(client.response().status(), 200);
    }
    client.half_close();
    assert!(client.ended());
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = plain();
    let mut client = server.connect();
    client.dribble(request("/a.txt"));
    assert_eq!(client.response().body, b"hello\n");
}

#[test]
fn files_of_every_size_arrive_whole() {
    let server = plain();
    let mut client = server.connect();
    for len in [0, 1, 15_000, 17_000, 65_536, 65_537, 300_000, 20_000_000] {
        let content = content(len);
        fs::write(server.tree.path("file"), &content).unwrap();
        // With small files in between, so that the socket changes its mode back and forth.
        for _ in 0..2 {
            assert!(client.get("/file").body == content, "{len} bytes differ");
            assert_eq!(client.get("/a.txt").body, b"hello\n");
        }
    }
}

/// The client does not read until it has requested far more than any socket buffers.
#[test]
fn a_slow_reader_gets_everything() {
    let server = plain();
    let mut client = server.connect();
    let content = content(40_000);
    fs::write(server.tree.path("file"), &content).unwrap();
    let mut twin = client.twin();
    let wish = [request("/file"), request("/a.txt")].concat().repeat(400);
    client.send(request("/big"));
    let asking = std::thread::spawn(move || twin.send(wish));
    let mut received = 0;
    client.receive(false, |bytes| received += bytes.len());
    assert_eq!(received, 64 << 20);
    for _ in 0..400 {
        assert!(client.response().body == content);
        assert_eq!(client.response().body, b"hello\n");
    }
    asking.join().unwrap();
}

/// Routes everything but `/a.txt` to the handler.
struct Handled;

impl Policy for Handled {
    fn route(&self, request: &Request<'_>) -> Route {
        match request.path() {
            b"/a.txt" => Route::Files,
            b"/site-panics" => panic!("the site"),
            _ => Route::Handler,
        }
    }
}

fn handle(count: &mut u32, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    match call {
        Call::Request => *count += 1,
        Call::Room => panic!("too late"),
        Call::Body | Call::Wake | Call::Drain | Call::Over => return Ok(()),
    }
    match reply.request().path() {
        b"/panic" => panic!("on purpose"),
        b"/late" => {
            reply.respond(StatusCode::OK).unwrap().length(1_000_000).send().unwrap();
            // More than there is room for.
            assert!(reply.write(&[b'x'; 100_000]).unwrap() < 100_000);
        }
        b"/pass" => reply.decline().unwrap(),
        _ => {
            let text = format!("hello {count}");
            reply.respond(StatusCode::OK).unwrap().length(text.len() as u64).send().unwrap();
            reply.write(text.as_bytes()).unwrap();
            reply.finish().unwrap();
        }
    }
    Ok(())
}

fn handled() -> testkit::Embedded {
    let handler = || {
        let mut count = 0;
        move |call: Call, reply: &mut Reply<'_>| handle(&mut count, call, reply)
    };
    run(|site| site.with_policy(Handled).with_handler(handler), |server| server)
}

#[test]
fn each_connection_has_a_handler_of_its_own() {
    let server = handled();
    for _ in 0..2 {
        let mut client = server.connect();
        assert_eq!(client.get("/").body, b"hello 1");
        assert_eq!(client.get("/a.txt").body, b"hello\n");
        assert_eq!(client.get("/").body, b"hello 2");
        assert_eq!(client.get("/pass").status(), 404);
    }
}

#[test]
fn a_panic_ends_one_connection_and_not_the_server() {
    let server = handled();
    let mut client = server.connect();
    assert_eq!(client.get("/").body, b"hello 1");
    assert_eq!(client.get("/panic").status(), 500);
    client.half_close();
    assert!(client.ended());

    let mut client = server.connect();
    client.send(request("/late"));
    assert_eq!(client.head().length(), Some(1_000_000));
    let (body, _) = client.rest_however();
    assert!(
        body.len() < 1_000_000 && body.iter().all(|&byte| byte == b'x'),
        "the body is cut, and contains nothing else"
    );

    let mut client = server.connect();
    client.send([request("/site-panics"), request("/a.txt")].concat());
    assert!(client.ended());

    assert_eq!(server.connect().get("/").body, b"hello 1");
    let log = server.end();
    assert!(log.contains("the handler panicked: on purpose"), "{log}");
    assert!(log.contains("bytes: the handler failed"), "{log}");
    assert!(log.contains("the handler panicked: too late"), "{log}");
    assert!(log.contains("the connection panicked: the site"), "{log}");
}

#[test]
fn a_handler_that_is_missing_is_an_error_of_the_server() {
    let server = run(|site| site.with_policy(Handled), |server| server);
    assert_eq!(server.connect().get("/").status(), 500);
    assert!(server.end().contains("there is none"));
}

/// Bytes left by one peer are not part of the next connection's requests on the same thread.
#[test]
fn no_connection_reads_bytes_of_another() {
    let server = run(|site| site, |server| server.workers(1));
    for _ in 0..5 {
        let mut gone = server.connect();
        gone.send([request("/big"), request("/none")].concat());
        gone.head();
        drop(gone);
        assert_eq!(server.connect().get("/a.txt").body, b"hello\n");
    }
}

fn with_timeouts(timeouts: Timeouts) -> testkit::Embedded {
    let config = Config::default().with_timeouts(timeouts);
    run(|site| site.with_config(config), Server::one_at_a_time)
}

#[test]
fn a_silent_connection_ends() {
    let server = with_timeouts(Timeouts::default().with_keep_alive(Duration::from_millis(50)));
    assert!(server.connect().ended());
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    assert!(client.ended());
}

#[test]
fn an_incomplete_head_times_out() {
    let server = with_timeouts(
        Timeouts::default().with_head(Duration::from_millis(50)).with_linger_silence(Duration::from_millis(50)),
    );
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    client.send("GET / HT");
    assert_eq!(client.response().status(), 408);
    assert!(client.ended());
}

#[test]
fn a_peer_that_does_not_read_is_cut() {
    let write = Pace::new(Duration::from_millis(50), Duration::from_millis(50), 256);
    let server = with_timeouts(Timeouts::default().with_write(write));
    let mut stuck = server.connect();
    stuck.send(request("/big"));
    // It is served once the other one has been cut.
    let mut next = server.connect();
    assert_eq!(next.get("/a.txt").status(), 200);
    drop((next, stuck));
    let log = server.end();
    assert!(log.contains("bytes: the peer was too slow"), "{log}");
}

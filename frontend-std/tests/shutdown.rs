//! Shutting down.

mod support;

use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use sanserve_core::{Call, Policy, Reply, Request, Route};
use sanserve_server::Site;
use sanserve_std::Server;
use support::{plain, request, run};
use testkit::{Client, TIMEOUT};

const LONG: Duration = Duration::from_secs(3_600);

fn with_long_timeouts(site: Site) -> Site {
    site.with_grace(LONG)
}

#[test]
fn idle_connections_end_at_once() {
    let mut server = run(with_long_timeouts, |server| server);
    let fresh = (0..20).map(|_| server.connect());
    let used = (0..20).map(|_| {
        let mut client = server.connect();
        assert_eq!(client.get("/a.txt").status(), 200);
        client
    });
    // A connection that was sent a file from its descriptor waits in another way.
    let polled = (0..20).map(|_| {
        let mut client = server.connect();
        client.send(request("/big"));
        let len = client.head().length().unwrap();
        assert_eq!(client.count(len), len);
        client
    });
    let mut clients: Vec<_> = fresh.chain(used).chain(polled).collect();
    let begin = Instant::now();
    server.shutdown();
    server.join();
    assert!(clients.iter_mut().all(Client::ended));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(TcpStream::connect(server.address).is_err(), "the listener is closed");
    assert!(!server.log.text().contains("cut"));
}

#[test]
fn a_download_in_progress_is_finished() {
    for shape in [|server| server, Server::one_at_a_time] {
        let mut server = run(with_long_timeouts, shape);
        let mut client = server.connect();
        client.send(request("/big"));
        let len = client.head().length().unwrap();
        server.shutdown();
        assert_eq!(client.count(len), 64 << 20);
        assert!(client.ended());
        server.join();
        let log = server.log.text();
        assert!(log.ends_with("\"GET /big HTTP/1.1\" 200 67108864\n"), "{log}");
    }
}

#[test]
fn unfinished_exchanges_are_cut_and_logged() {
    for shape in [|server| server, Server::one_at_a_time] {
        let mut server = run(|site| site.with_grace(Duration::from_millis(100)), shape);
        let mut stuck = server.connect();
        stuck.send(request("/big"));
        let len = stuck.head().length().unwrap();
        server.shutdown();
        server.join();
        let log = server.log.text();
        assert!(log.contains("bytes: the server shut down"), "{log}");
        assert!(stuck.count(len) < len);
    }
}

/// Threads that block in `recv` in the middle of a request are cut too.
#[test]
fn half_a_request_does_not_outlive_the_grace() {
    let mut server = run(|site| site.with_grace(Duration::from_millis(50)), |server| server);
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").status(), 200);
    client.send("GET /a.txt HTTP/1.1\r\n");
    server.shutdown();
    server.join();
    assert!(client.ended());
}

#[test]
fn stop_cuts_immediately() {
    for shape in [|server| server, Server::one_at_a_time] {
        let mut server = run(with_long_timeouts, shape);
        let mut stuck = server.connect();
        stuck.send(request("/big"));
        stuck.head();
        server.shutdown();
        server.stop();
        server.join();
        assert!(server.log.text().contains("bytes: the server shut down"));
    }
}

#[test]
fn a_server_may_be_shut_down_before_it_runs() {
    for shape in [|server| server, Server::one_at_a_time] {
        let site = Site::new(".").unwrap();
        let server = shape(Server::bind("127.0.0.1:0", site).unwrap());
        server.handle().shutdown();
        server.run().unwrap();
    }
}

#[test]
fn a_server_at_the_thread_limit_shuts_down_too() {
    let mut server = run(with_long_timeouts, |server| server.workers(1));
    let mut held = server.connect();
    held.send(request("/big"));
    held.head();
    let mut waiting = server.connect();
    waiting.send(request("/a.txt"));
    assert!(waiting.is_silent());
    server.shutdown();
    // The pending connection is served, even though there was no thread for it.
    assert_eq!(waiting.response().status(), 200);
    assert!(waiting.ended());
    server.stop();
    server.join();
}

/// A request and the shutdown arrive at the same time, in either order: the request gets a complete response, or the
/// connection ends, and the server never waits for its grace.
#[test]
fn a_request_at_the_moment_of_shutdown_is_answered_or_dropped() {
    for _ in 0..100 {
        let mut server = run(with_long_timeouts, |server| server);
        let mut client = server.connect();
        assert_eq!(client.get("/a.txt").status(), 200);
        thread::scope(|scope| {
            scope.spawn(|| server.shutdown());
            client.send(request("/a.txt"));
            // A reset is possible, because the request may arrive at a closed socket.
            let (text, _) = client.rest_however();
            assert!(text.is_empty() || text.ends_with(b"\r\n\r\nhello\n"), "{:?}", text.escape_ascii().to_string());
        });
        server.join();
    }
}

struct ToHandler;

impl Policy for ToHandler {
    fn route(&self, _: &Request<'_>) -> Route {
        Route::Handler
    }
}

/// A handler that neither responds nor waits holds its connection until it is cut.
#[test]
fn a_handler_that_never_responds_is_cut() {
    let (called, calls) = channel();
    let handler = move || {
        let called = called.clone();
        move |call: Call, _: &mut Reply<'_>| {
            called.send(call).unwrap();
            Ok(())
        }
    };
    let change = |site: Site| site.with_policy(ToHandler).with_handler(handler);
    let mut server = run(|site| change(site.with_grace(Duration::from_millis(500))), |server| server);
    let mut client = server.connect();
    client.send(request("/"));
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok(Call::Request));
    server.shutdown();
    server.join();
    assert!(client.ended());
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok(Call::Drain));
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok(Call::Over));
    assert!(server.log.text().contains("the server shut down"), "{}", server.log.text());
}

/// A thread that is blocked in a handler does not block the server.
#[test]
fn a_handler_that_blocks_is_left_behind() {
    let (called, calls) = channel();
    let (release, released) = channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let handler = move || {
        let (called, released) = (called.clone(), released.clone());
        move |call: Call, _: &mut Reply<'_>| {
            called.send(call).unwrap();
            let _ = released.lock().unwrap().recv();
            Ok(())
        }
    };
    let mut server = run(|site| site.with_policy(ToHandler).with_handler(handler), |server| server);
    let mut client = server.connect();
    client.send(request("/"));
    assert_eq!(calls.recv_timeout(TIMEOUT), Ok(Call::Request));
    server.stop();
    server.join();
    assert!(server.log.text().contains("1 connections are stuck in a handler"));
    drop(release);
    assert!(client.ended());
}

#[test]
fn a_second_shutdown_has_no_effect() {
    let mut server = plain();
    server.shutdown();
    server.shutdown();
    server.join();
    server.stop();
}

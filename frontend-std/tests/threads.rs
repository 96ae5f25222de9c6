//! The number of connections served at once.

mod support;

use sanserve_std::Server;
use support::{plain, run};

#[test]
fn one_at_a_time_serves_one_connection() {
    let server = run(|site| site, Server::one_at_a_time);
    let mut first = server.connect();
    first.occupy();
    let mut second = server.connect();
    second.send(support::request("/a.txt"));
    assert!(second.is_silent());
    first.release();
    drop(first);
    assert_eq!(second.response().status(), 200);
}

#[test]
fn at_the_limit_a_connection_waits_for_another_to_end() {
    let server = run(|site| site, |server| server.workers(2));
    let mut held = [server.connect(), server.connect()];
    held.iter_mut().for_each(testkit::Client::occupy);
    let mut third = server.connect();
    third.send(support::request("/a.txt"));
    assert!(third.is_silent());
    drop(held);
    assert_eq!(third.response().status(), 200);
}

#[test]
fn the_limit_of_the_site_applies_too() {
    let server = run(|site| site.with_connections(1), |server| server.workers(100));
    let mut first = server.connect();
    first.occupy();
    let mut second = server.connect();
    second.send(support::request("/a.txt"));
    assert!(second.is_silent());
    drop(first);
    assert_eq!(second.response().status(), 200);
}

#[test]
fn many_connections_are_served_while_all_are_open() {
    let server = plain();
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/a.txt").body, b"hello\n"));
    }
    drop(clients);
    server.end();
}

#[test]
fn threads_are_reused() {
    let server = run(|site| site, |server| server.workers(1));
    for _ in 0..100 {
        assert_eq!(server.connect().get("/a.txt").status(), 200);
    }
}

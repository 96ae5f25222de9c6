//! Other protocols, and the methods of `Server`.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use sanserve_server::Log;
use sanserve_std::{Exchange, Server, Site, StatusCode, Upgraded};
use testkit::{Client, LogSink, TIMEOUT};

use crate::support::{request, run};
use crate::{ask, serve};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: shout\r\n";

/// A protocol that sends everything back in capitals.
fn shout(mut upgraded: Upgraded) -> io::Result<()> {
    let mut piece = [0; 100];
    loop {
        let n = upgraded.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        upgraded.write_all(&piece[..n].to_ascii_uppercase())?;
    }
}

fn speak(mut client: Client) -> Client {
    // Bytes after the request already belong to the other protocol.
    client.send(format!("{}already ", ask("GET", "/shout", UPGRADE)));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nUpgrade: shout\r\n") && head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    for (say, hear) in [("", "ALREADY "), ("and more", "AND MORE")] {
        client.send(say);
        assert_eq!(client.take(hear.len()), hear.as_bytes());
    }
    client
}

#[test]
fn an_upgrade_continues_in_the_handler_or_elsewhere() {
    for elsewhere in [false, true] {
        let server = run(
            |site| site,
            |server| {
                let answer = move |x: &mut Exchange<'_>| {
                    if x.path() != b"/shout" {
                        return x.answer(StatusCode::OK, "text/plain", "free");
                    }
                    let upgraded = x.upgrade("shout", &[("X-More", "1")])?;
                    assert!(x.write_all(b"no HTTP any more").is_err());
                    assert_eq!(x.path(), b"/shout");
                    if elsewhere {
                        thread::spawn(move || shout(upgraded).unwrap());
                        return Ok(());
                    }
                    shout(upgraded)
                };
                server.with_handler(move || answer).workers(1)
            },
        );
        let mut speaker = speak(server.connect());
        if elsewhere {
            assert_eq!(server.connect().get("/").body, b"free", "the only thread is free for others");
            speaker.send("x");
            assert_eq!(speaker.take(1), b"X");
        }
        drop(speaker);
        assert_eq!(server.connect().get("/").body, b"free");
        assert!(server.end().contains("\"GET /shout HTTP/1.1\" 101 0\n"));
    }
}

#[test]
fn a_stop_ends_upgraded_connections_too() {
    let server = serve(|| |x: &mut Exchange<'_>| shout(x.upgrade("shout", &[])?));
    let mut speaker = speak(server.connect());
    server.stop();
    assert!(speaker.ended());
    server.end();
}

#[test]
fn one_connection_is_served_at_a_time_by_hand() {
    let log = LogSink::default();
    let site = Site::without_files().with_log(Log::to(log.clone()));
    let mut server = Server::bind((Ipv4Addr::LOCALHOST, 0), site).unwrap();
    assert_eq!((server.server_name(), server.server_port()), ("127.0.0.1", server.local_addr().port()));
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap());
    assert!(!server.handle_request(Some(Duration::from_millis(5))).unwrap(), "no connection arrived in time");
    let address = server.local_addr();
    // The handler is made and used on this thread, so it need not be `Send`.
    let mut server = server.with_handler(|| {
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        move |x: &mut Exchange<'_>| {
            count.set(count.get() + 1);
            x.answer(StatusCode::OK, "text/plain", count.get().to_string())
        }
    });
    for _ in 0..2 {
        let mut client = Client::connect(address);
        client.send(format!("{}{}", request("/"), ask("GET", "/", "Connection: close\r\n")));
        let reading = thread::spawn(move || String::from_utf8(client.rest()).unwrap());
        assert!(server.handle_request(Some(TIMEOUT)).unwrap());
        let all = reading.join().unwrap();
        assert!(all.contains("\r\n\r\n1HTTP/1.1 200") && all.ends_with("\r\n\r\n2"), "{all}");
    }
    // An idle connection does not delay the shutdown.
    let handle = server.handle();
    let mut idle = Client::connect(address);
    idle.send(request("/"));
    let ending = thread::spawn(move || {
        assert_eq!(idle.response().status(), 200);
        handle.shutdown();
        idle.ends();
    });
    assert!(server.handle_request(None).unwrap());
    ending.join().unwrap();
    assert!(!server.handle_request(None).unwrap(), "the server is shut down");
    assert_eq!(log.text().matches("\" 200 1\n").count(), 5);
}

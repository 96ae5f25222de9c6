//! Other protocols, and portable handlers that are woken.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::task::Waker;
use std::thread;

use sanserve_core::{Call, Reply};
use sanserve_smol::{Exchange, Status};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::Bench;

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n";

async fn parrot(x: &mut Exchange<'_>) -> std::io::Result<()> {
    let refused = x.upgrade("cat", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    if x.field("Upgrade").is_none() {
        return x.error(Status::new(426).unwrap(), None, None).await;
    }
    let mut upgraded = x.upgrade("parrot", &[("X-Bird", "grey")]).await?;
    assert!(x.respond(Status::OK).is_err(), "the exchange is over");
    upgraded.stream.write_all(&upgraded.read).await?;
    let mut room = [0; 100];
    loop {
        match upgraded.stream.read(&mut room).await? {
            0 => return Ok(()),
            n => upgraded.stream.write_all(&room[..n]).await?,
        }
    }
}

/// Talks to a parrot.
fn talks(bench: &Bench) {
    let mut peer = bench.connect();
    peer.send(format!("{REQUEST}already"));
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nUpgrade: parrot\r\n") && head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    assert_eq!(peer.take(7), b"already");
    peer.send("more");
    assert_eq!(peer.take(4), b"more");
    peer.end();
    assert!(peer.rest().is_empty());
}

#[test]
fn a_handler_gets_the_connection_and_what_was_read_of_it() {
    let bench = Bench::new(|| parrot);
    talks(&bench);
    talks(&bench);
    assert_eq!(bench.get("/").status(), 426);
    let log = bench.ended();
    assert_eq!(log.matches("\"GET /chat HTTP/1.1\" 101 0").count(), 2, "{log}");
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn one_that_talks_on_ends_with_the_server() {
    let mut bench = Bench::new(|| parrot);
    let mut peer = bench.connect();
    peer.send(REQUEST);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.send("x");
    assert_eq!(peer.take(1), b"x");
    bench.handle.stop();
    bench.join();
    assert!(peer.rest().is_empty());
}

fn portable(call: Call, reply: &mut Reply<'_>) {
    if call == Call::Request {
        reply.attach(Box::new("cracker".to_owned()));
        reply.upgrade("parrot").unwrap().send().unwrap();
    }
}

#[test]
fn the_services_hook_gets_what_a_portable_handler_upgrades() {
    let bench = Bench::with(
        |service| {
            service.with_handler(|| portable).with_upgrade(|mut upgraded| {
                assert!(upgraded.peer.ip().is_loopback());
                let attached = upgraded.attached.take().unwrap();
                assert_eq!(*attached.downcast::<String>().unwrap(), "cracker");
                upgraded.stream.write_all(&upgraded.read).unwrap();
                let mut room = [0; 100];
                loop {
                    match upgraded.stream.read(&mut room).unwrap() {
                        0 => break,
                        n => upgraded.stream.write_all(&room[..n]).unwrap(),
                    }
                }
            })
        },
        |server| server,
    );
    talks(&bench);
    let without = Bench::with(|service| service.with_handler(|| portable), |server| server);
    let mut peer = without.connect();
    peer.send(REQUEST);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    assert!(peer.rest().is_empty());
}

#[test]
fn a_portable_handler_is_woken_from_another_thread() {
    let (give, given) = mpsc::channel::<Waker>();
    let bench = Bench::with(
        |service| {
            service.with_handler(move || {
                let give = give.clone();
                let mut wakes = 0;
                move |call: Call, reply: &mut Reply<'_>| match call {
                    Call::Request => give.send(reply.waker()).unwrap(),
                    Call::Wake if wakes < 2 => {
                        wakes += 1;
                        give.send(reply.waker()).unwrap();
                    }
                    Call::Wake => {
                        wakes = 0;
                        reply.answer(Status::OK, "text/plain", "awake").unwrap();
                    }
                    _ => {}
                }
            })
        },
        |server| server,
    );
    let wakers = thread::spawn(move || given.into_iter().inspect(Waker::wake_by_ref).collect::<Vec<_>>());
    let mut peer = bench.connect();
    for _ in 0..20 {
        assert_eq!(peer.get("/").text(), "awake");
    }
    drop(peer);
    drop(bench);
    let wakers = wakers.join().unwrap();
    assert_eq!(wakers.len(), 60);
    // Of exchanges that are over.
    wakers.into_iter().for_each(Waker::wake);
}

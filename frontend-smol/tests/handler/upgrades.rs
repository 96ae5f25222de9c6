//! Upgrades, and portable handlers that are woken.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::task::Waker;
use std::thread;

use sanserve_core::{Call, HandlerError, Reply};
use sanserve_smol::{Exchange, StatusCode};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use testkit::Embedded;

use crate::support::{run, serve};

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n";

async fn parrot(x: &mut Exchange<'_>) -> std::io::Result<()> {
    let refused = x.upgrade("cat", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    if x.field("Upgrade").is_none() {
        return x.error(StatusCode::new(426).unwrap(), None, None).await;
    }
    let mut upgraded = x.upgrade("parrot", &[("X-Bird", "grey")]).await?;
    assert!(x.respond(StatusCode::OK).is_err(), "the exchange is over");
    let mut room = [0; 100];
    loop {
        match upgraded.read(&mut room).await? {
            0 => return Ok(()),
            n => upgraded.write_all(&room[..n]).await?,
        }
    }
}

/// Uses the protocol `parrot`.
fn talks(server: &Embedded) {
    let mut peer = server.connect();
    peer.send(format!("{REQUEST}already"));
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nUpgrade: parrot\r\n") && head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    assert_eq!(peer.take(7), b"already");
    peer.send("more");
    assert_eq!(peer.take(4), b"more");
    peer.half_close();
    assert!(peer.rest_however().0.is_empty());
}

#[test]
fn a_handler_gets_the_socket_and_the_bytes_already_read() {
    let server = serve(|| parrot);
    talks(&server);
    talks(&server);
    assert_eq!(server.get("/").status(), 426);
    let log = server.end();
    assert_eq!(log.matches("\"GET /chat HTTP/1.1\" 101 0").count(), 2, "{log}");
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn an_upgraded_connection_in_a_handler_ends_with_the_server() {
    let mut server = serve(|| parrot);
    let mut peer = server.connect();
    peer.send(REQUEST);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.send("x");
    assert_eq!(peer.take(1), b"x");
    server.stop();
    server.join();
    assert!(peer.rest_however().0.is_empty());
}

fn portable(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        reply.upgrade_with("parrot", "cracker".to_owned())?.send()?;
    }
    Ok(())
}

#[test]
fn the_hook_of_the_site_gets_portable_upgrades() {
    let server = run(
        |site| {
            site.with_handler(|| portable).with_upgrade(|mut upgraded| {
                assert!(upgraded.peer().is_local());
                assert_eq!(upgraded.take_state::<String>().unwrap(), "cracker");
                let mut room = [0; 100];
                loop {
                    match upgraded.read(&mut room).unwrap() {
                        0 => break,
                        n => upgraded.write_all(&room[..n]).unwrap(),
                    }
                }
            })
        },
        |server| server,
    );
    talks(&server);
    let without = run(|site| site.with_handler(|| portable), |server| server);
    let mut peer = without.connect();
    peer.send(REQUEST);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    assert!(peer.rest_however().0.is_empty());
}

#[test]
fn a_portable_handler_is_woken_from_another_thread() {
    let (give, given) = mpsc::channel::<Waker>();
    let server = run(
        |site| {
            site.with_handler(move || {
                let give = give.clone();
                let mut wakes = 0;
                move |call: Call, reply: &mut Reply<'_>| {
                    match call {
                        Call::Request => give.send(reply.waker()).unwrap(),
                        Call::Wake if wakes < 2 => {
                            wakes += 1;
                            give.send(reply.waker()).unwrap();
                        }
                        Call::Wake => {
                            wakes = 0;
                            reply.answer(StatusCode::OK, "text/plain", "awake")?;
                        }
                        _ => {}
                    }
                    Ok(())
                }
            })
        },
        |server| server,
    );
    let wakers = thread::spawn(move || given.into_iter().inspect(Waker::wake_by_ref).collect::<Vec<_>>());
    let mut peer = server.connect();
    for _ in 0..20 {
        assert_eq!(peer.get("/").body_text(), "awake");
    }
    drop(peer);
    drop(server);
    let wakers = wakers.join().unwrap();
    assert_eq!(wakers.len(), 60);
    // The exchanges of these wakers are over.
    wakers.into_iter().for_each(Waker::wake);
}

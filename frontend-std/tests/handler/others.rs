//! Other protocols, wakers, and the methods of `Server`.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use sanserve_core::{Call, Reply};
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
fn a_portable_upgrade_is_passed_to_the_hook_of_the_site() {
    let upgrade = |site: Site| {
        site.with_answer(|reply| {
            if reply.request().path() == b"/shout" {
                return reply.upgrade_with("shout", 7_u8)?.send();
            }
            reply.answer(StatusCode::OK, "text/plain", "plain")
        })
    };
    let server = run(
        |site| {
            upgrade(site).with_upgrade(|mut upgraded| {
                assert_eq!(upgraded.take_state::<u8>(), Some(7));
                assert_eq!(upgraded.peer().ip(), Some([127, 0, 0, 1].into()));
                shout(upgraded).unwrap();
            })
        },
        |server| server.workers(1),
    );
    drop(speak(server.connect()));
    assert_eq!(server.connect().get("/").body, b"plain");
    drop(server);

    let server = run(upgrade, |server| server);
    let mut client = server.connect();
    client.send(ask("GET", "/shout", UPGRADE));
    assert!(client.head().starts_with("HTTP/1.1 101"));
    assert!(client.ended(), "there is no hook");
}

/// Responds when another thread wakes it.
#[test]
fn a_portable_handler_is_woken_from_another_thread() {
    type Handed = (Waker, Arc<Mutex<Option<String>>>);
    let (hand, handed) = channel::<Handed>();
    let hand = Mutex::new(hand);
    let server = run(
        move |site| {
            site.with_handler(move || {
                let hand = hand.lock().unwrap().clone();
                let result = Arc::new(Mutex::new(None::<String>));
                move |call: Call, reply: &mut Reply<'_>| {
                    match call {
                        Call::Request => hand.send((reply.waker(), result.clone())).unwrap(),
                        Call::Wake => {
                            if let Some(text) = result.lock().unwrap().take() {
                                reply.answer(StatusCode::OK, "text/plain", text)?;
                            }
                        }
                        _ => {}
                    }
                    Ok(())
                }
            })
        },
        |server| server,
    );
    let mut client = server.connect();
    let mut stale: Vec<Waker> = Vec::new();
    for n in 0..50 {
        client.send(request("/"));
        let (waker, result) = handed.recv_timeout(TIMEOUT).unwrap();
        stale.iter().for_each(Waker::wake_by_ref);
        // After a wake-up without a result, it continues to wait.
        waker.wake_by_ref();
        *result.lock().unwrap() = Some(format!("answer {n}"));
        waker.wake_by_ref();
        assert_eq!(client.response().body, format!("answer {n}").as_bytes());
        stale.push(waker);
    }
    // A handler that waits for a wake-up notices a disconnect, and the shutdown.
    client.send(request("/"));
    let _kept = handed.recv_timeout(TIMEOUT).unwrap();
    server.stop();
    assert!(client.ended());
    let log = server.end();
    assert_eq!(log.matches("\" 200 ").count(), 50, "{log}");
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

#[test]
fn only_verified_peers_are_served() {
    let unwelcome = Arc::new(Mutex::new(None));
    let server = run(
        |site| {
            let unwelcome = unwelcome.clone();
            site.with_verify(move |peer| {
                let who = *unwelcome.lock().unwrap();
                assert_ne!(who, Some(0), "the peer is not known");
                who != peer.port()
            })
        },
        |server| server.with_handler(|| |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "welcome")),
    );
    assert_eq!(server.connect().get("/").body, b"welcome");
    // No connection is accepted between the connect and the lock.
    let mut who = unwelcome.lock().unwrap();
    let mut client = server.connect();
    *who = Some(client.local().port());
    drop(who);
    assert!(client.ended());
    *unwelcome.lock().unwrap() = Some(0);
    assert!(server.connect().ended());
    *unwelcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    assert!(server.end().contains("verifying the peer panicked"));
}

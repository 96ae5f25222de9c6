//! Other protocols, waking, and the server's own surface.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use sanserve_core::{Call, Reply};
use sanserve_server::Log;
use sanserve_std::{Exchange, Server, Service, Status, Upgraded};

use crate::support::{Lines, PATIENCE, request, run};
use crate::{ask, serve};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: shout\r\n";

/// Speaks another protocol: what comes goes back in capitals.
fn shout(mut upgraded: Upgraded) -> io::Result<()> {
    assert_eq!(upgraded.peer, upgraded.stream.peer_addr()?);
    let mut text = upgraded.read;
    let mut piece = [0; 100];
    loop {
        upgraded.stream.write_all(&text.to_ascii_uppercase())?;
        let n = upgraded.stream.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        text = piece[..n].to_vec();
    }
}

fn speak(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // What is pipelined behind the request is the other protocol's already.
    stream.write_all(format!("{}already ", ask("GET", "/shout", UPGRADE)).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nUpgrade: shout\r\n") && head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    for (say, hear) in [("", "ALREADY "), ("and more", "AND MORE")] {
        stream.write_all(say.as_bytes()).unwrap();
        let mut heard = vec![0; hear.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, hear.as_bytes());
    }
    stream
}

#[test]
fn an_upgrade_goes_on_in_the_handler_or_elsewhere() {
    for elsewhere in [false, true] {
        let server = run(
            |service| service,
            |server| {
                let answer = move |x: &mut Exchange<'_>| {
                    if x.path() != b"/shout" {
                        return x.answer(Status::OK, "text/plain", "free");
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
                server.with_handler(move || answer).threads(1)
            },
        );
        let mut stream = speak(server.address);
        if elsewhere {
            assert_eq!(server.client().get("/").body, b"free", "the only thread serves others");
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        drop(stream);
        assert_eq!(server.client().get("/").body, b"free");
        assert!(server.end().contains("\"GET /shout HTTP/1.1\" 101 0\n"));
    }
}

#[test]
fn a_stop_ends_other_protocols_too() {
    let server = serve(|| |x: &mut Exchange<'_>| shout(x.upgrade("shout", &[])?));
    let mut stream = speak(server.address);
    server.handle.stop();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    server.end();
}

#[test]
fn a_portable_upgrade_goes_to_the_services_hook() {
    let upgrade = |service: Service| {
        service.with_answer(|reply| {
            if reply.request().path() == b"/shout" {
                reply.attach(Box::new(7_u8));
                return reply.upgrade("shout")?.send();
            }
            reply.answer(Status::OK, "text/plain", "plain")
        })
    };
    let server = run(
        |service| {
            upgrade(service).with_upgrade(|mut upgraded| {
                let attached = upgraded.attached.take().and_then(|thing| thing.downcast::<u8>().ok());
                assert_eq!(attached.as_deref(), Some(&7));
                shout(upgraded).unwrap();
            })
        },
        |server| server.threads(1),
    );
    drop(speak(server.address));
    assert_eq!(server.client().get("/").body, b"plain");
    drop(server);

    let server = run(upgrade, |server| server);
    let mut client = server.client();
    client.send(&ask("GET", "/shout", UPGRADE));
    assert!(client.head().0.starts_with("HTTP/1.1 101"));
    assert!(client.ended(), "nobody takes it");
}

/// Answers when another thread says so.
#[test]
fn a_portable_handler_is_woken_from_another_thread() {
    type Handed = (Waker, Arc<Mutex<Option<String>>>);
    let (hand, handed) = channel::<Handed>();
    let hand = Mutex::new(hand);
    let server = run(
        move |service| {
            service.with_handler(move || {
                let hand = hand.lock().unwrap().clone();
                let result = Arc::new(Mutex::new(None::<String>));
                move |call: Call, reply: &mut Reply<'_>| match call {
                    Call::Request => hand.send((reply.waker(), result.clone())).unwrap(),
                    Call::Wake => {
                        if let Some(text) = result.lock().unwrap().take() {
                            reply.answer(Status::OK, "text/plain", text).unwrap();
                        }
                    }
                    _ => {}
                }
            })
        },
        |server| server,
    );
    let mut client = server.client();
    let mut stale: Vec<Waker> = Vec::new();
    for n in 0..50 {
        client.send(&request("/"));
        let (waker, result) = handed.recv_timeout(PATIENCE).unwrap();
        stale.iter().for_each(Waker::wake_by_ref);
        // Woken for nothing, it waits on.
        waker.wake_by_ref();
        *result.lock().unwrap() = Some(format!("answer {n}"));
        waker.wake_by_ref();
        assert_eq!(client.answer().body, format!("answer {n}").as_bytes());
        stale.push(waker);
    }
    // One that waits to be woken sees its peer go away, and the server end.
    client.send(&request("/"));
    let _kept = handed.recv_timeout(PATIENCE).unwrap();
    server.handle.stop();
    assert!(client.ended());
    let log = server.end();
    assert_eq!(log.matches("\" 200 ").count(), 50, "{log}");
}

#[test]
fn one_connection_is_served_at_a_time_by_hand() {
    let lines = Lines::default();
    let service = Service::without_files().with_log(Log::to(lines.clone()));
    let mut server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), service).unwrap();
    assert_eq!((server.server_name(), server.server_port()), ("127.0.0.1", server.local_addr().port()));
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap());
    assert!(!server.handle_request(Some(Duration::from_millis(5))).unwrap(), "nobody came in time");
    let address = server.local_addr();
    // It is made and used on this thread, so it need not be `Send`.
    let mut server = server.with_handler(|| {
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        move |x: &mut Exchange<'_>| {
            count.set(count.get() + 1);
            x.answer(Status::OK, "text/plain", count.get().to_string())
        }
    });
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("{}{}", request("/"), ask("GET", "/", "Connection: close\r\n")).as_bytes()).unwrap();
        let reading = thread::spawn(move || {
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            all
        });
        assert!(server.handle_request(Some(PATIENCE)).unwrap());
        let all = reading.join().unwrap();
        assert!(all.contains("\r\n\r\n1HTTP/1.1 200") && all.ends_with("\r\n\r\n2"), "{all}");
    }
    // An idle connection does not hold up who ends the server.
    let handle = server.handle();
    let mut idle = TcpStream::connect(address).unwrap();
    idle.write_all(request("/").as_bytes()).unwrap();
    let ending = thread::spawn(move || {
        idle.read_exact(&mut [0; 100]).unwrap();
        handle.shutdown();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).unwrap();
    });
    assert!(server.handle_request(None).unwrap());
    ending.join().unwrap();
    assert!(!server.handle_request(None).unwrap(), "the server is shut down");
    assert_eq!(lines.text().matches("\" 200 1\n").count(), 5);
}

#[test]
fn only_verified_peers_are_served() {
    let unwelcome = Arc::new(Mutex::new(None));
    let server = run(
        |service| {
            let unwelcome = unwelcome.clone();
            service.with_verify(move |peer| {
                let who = *unwelcome.lock().unwrap();
                assert_ne!(who, Some(0), "cannot tell");
                who != Some(peer.port())
            })
        },
        |server| server.with_handler(|| |x: &mut Exchange<'_>| x.answer(Status::OK, "text/plain", "welcome")),
    );
    assert_eq!(server.client().get("/").body, b"welcome");
    // Nobody is accepted between the connection and the lock.
    let mut who = unwelcome.lock().unwrap();
    let mut client = server.client();
    *who = Some(client.stream().local_addr().unwrap().port());
    drop(who);
    assert!(client.ended());
    *unwelcome.lock().unwrap() = Some(0);
    assert!(server.client().ended());
    *unwelcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    assert!(server.end().contains("verifying the peer panicked"));
}

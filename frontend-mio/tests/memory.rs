//! The memory that handlers take. There is one test, because the memory of the whole process is measured.

#![cfg(target_os = "linux")]

mod support;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use sanserve_mio::{Call, Handler, HandlerError, Misuse, Received, Reply, Site, StatusCode};

use support::{ask, end, start};
use testkit::{Client, TIMEOUT};

/// The number of connections.
const WATCHERS: usize = 1_000;
/// The number of events; odd.
const EVENTS: u64 = 51;
/// The length of the echoed body.
const BODY: u64 = 64 << 20;

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The event that all connections watch.
#[derive(Default)]
struct News {
    count: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

/// Sends every event since the first, in order.
struct Watcher {
    news: Arc<News>,
    told: u64,
    over: Sender<()>,
}

impl Watcher {
    fn go_on(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match call {
            Call::Request => {
                self.told = self.news.count.load(Ordering::Acquire);
                reply.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?;
                self.news.wakers.lock().unwrap().push(reply.waker());
            }
            Call::Drain => {}
            Call::Over => self.over.send(()).unwrap(),
            Call::Wake | Call::Room | Call::Body => {
                while self.told < self.news.count.load(Ordering::Acquire) && !reply.has_unsent() {
                    self.told += 1;
                    reply.write(format!("data: {}\n\n", self.told).as_bytes())?;
                    if self.told < self.news.count.load(Ordering::Acquire) {
                        // The next one follows when this one is being sent.
                        reply.waker().wake();
                    }
                }
            }
        }
        Ok(())
    }
}

impl Handler for Watcher {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        self.go_on(call, reply).unwrap();
        Ok(())
    }
}

fn streams_of_events() {
    let news = Arc::new(News::default());
    let (shared, (over, ended)) = (Arc::clone(&news), channel());
    let over = Mutex::new(over);
    let server = start(Site::without_files().with_handler(move || Watcher {
        news: Arc::clone(&shared),
        told: 0,
        over: over.lock().unwrap().clone(),
    }));
    let watch = || {
        let mut client = server.connect();
        ask(&mut client, "/");
        assert!(client.head().starts_with("HTTP/1.1 200 OK"));
        client
    };
    let tell = |n: u64| {
        news.count.store(n, Ordering::Release);
        news.wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    };
    let hear = |clients: &mut [Client], n: u64| {
        for client in clients {
            assert_eq!(client.chunk().unwrap(), format!("data: {n}\n\n").into_bytes());
        }
    };
    // Memory that all share, such as the leases of connections that are woken together, is allocated first.
    let mut clients: Vec<Client> = (0..100).map(|_| watch()).collect();
    tell(1);
    hear(&mut clients, 1);
    let before = memory("VmRSS");
    clients.extend((clients.len()..WATCHERS).map(|_| watch()));
    for n in (2..EVENTS).step_by(2) {
        // Every other time, all clients wait for all events; in between, events arrive as they may.
        tell(n);
        tell(n + 1);
        hear(&mut clients, n);
        hear(&mut clients, n + 1);
    }
    let each = memory("VmRSS").saturating_sub(before) / (WATCHERS - 100) as u64;
    println!("{each} bytes per stream, for both ends");
    assert!(each < 2048, "{each} bytes per stream");
    for client in clients {
        client.reset();
        ended.recv_timeout(TIMEOUT).expect("each stream ends");
    }
    // These connections have ended, except for the last.
    let mut last = [watch()];
    tell(EVENTS + 1);
    hear(&mut last, EVENTS + 1);
    end(server);
}

fn echo(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    let mut piece = [0; 8 * 1024];
    loop {
        let n = match reply.receive() {
            Received::Data(data) => {
                let n = data.len().min(piece.len());
                piece[..n].copy_from_slice(&data[..n]);
                n
            }
            Received::End => return reply.finish(),
            Received::Pending | Received::Broken => return Ok(()),
        };
        match reply.write(&piece[..n])? {
            0 => return Ok(()),
            taken => reply.consume(taken),
        }
    }
}

/// The byte of the body at an offset.
fn byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

fn echoed_body() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let server = start(Site::without_files().with_handler(move || {
        let count = Arc::clone(&count);
        move |call: Call, reply: &mut Reply<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            match call {
                Call::Drain | Call::Over => {}
                Call::Request => reply.respond(StatusCode::OK).and_then(|head| head.send()).and(echo(reply)).unwrap(),
                _ => echo(reply).unwrap(),
            }
            Ok(())
        }
    }));
    let mut client = server.connect();
    let mut sender = client.twin();
    let before = memory("VmRSS");
    let sending = std::thread::spawn(move || {
        sender.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut at = 0;
        while at < BODY {
            // Chunks of many sizes, so that they cross the boundaries of all buffers.
            let len = (at % 70_001 + 1).min(BODY - at);
            let mut chunk = format!("{len:x}\r\n").into_bytes();
            chunk.extend((at..at + len).map(byte));
            chunk.extend_from_slice(b"\r\n");
            sender.send(&chunk);
            at += len;
        }
        sender.send("0\r\n\r\n");
    });
    assert!(client.head().starts_with("HTTP/1.1 200 OK"));
    let (mut at, mut most) = (0, before);
    while let Some(chunk) = client.chunk() {
        assert!((at..).map(byte).zip(&chunk).all(|(expected, got)| expected == *got), "wrong after {at}");
        if at >> 20 != (at + chunk.len() as u64) >> 20 {
            most = most.max(memory("VmRSS"));
        }
        at += chunk.len() as u64;
    }
    assert_eq!((at, client.line()), (BODY, String::new()));
    sending.join().unwrap();
    println!("{} bytes more for an echo of 64 MiB in {calls:?} calls", most - before);
    assert!(most - before < 4 << 20, "{} bytes more", most - before);
    // The connection continues.
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    assert_eq!(client.response().body, b"hi");
    client.ends();
    end(server);
}

#[test]
fn memory_is_bounded() {
    streams_of_events();
    echoed_body();
}

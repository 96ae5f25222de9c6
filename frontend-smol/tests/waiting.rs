//! What a connection costs whose handler waits, measured in this process, which nothing else runs in meanwhile: one
//! test.

#![cfg(target_os = "linux")]

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use sanserve_smol::core::{Call, Handler, HandlerError, Reply};
use sanserve_smol::{Exchange, Log, Server, Site, StatusCode};
use smol::channel::{Receiver, unbounded};
use smol::io::AsyncWriteExt as _;
use testkit::{Client, Embedded, Tree, bound};

/// Connections that wait, and those that began before anything was measured.
const WAITING: usize = 1_000;
const FIRST: usize = 100;

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAccept: text/event-stream\r\n\r\n";

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Sends the head of its answer, and the rest when it is woken.
struct Waits(Arc<Mutex<Vec<Waker>>>);

impl Handler for Waits {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => {
                reply.respond(StatusCode::OK)?.send()?;
                self.0.lock().unwrap().push(reply.waker());
            }
            Call::Wake => {
                reply.write(b"woken").unwrap();
                reply.finish().unwrap();
            }
            Call::Body | Call::Room | Call::Drain | Call::Over => {}
        }
        Ok(())
    }
}

/// The same with `await`.
struct Awaits(Receiver<()>);

impl sanserve_smol::Handler for Awaits {
    async fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.send()?;
        // An error is the end of the channel, which everybody is waiting for.
        let _ = self.0.recv().await;
        x.write_all(b"woken").await
    }
}

/// Has many handlers wait, wakes them, and returns the bytes that each took, with both ends of its connection.
fn measure(server: &Embedded, wake: impl FnOnce()) -> usize {
    let begin = || {
        let mut client = server.connect();
        client.send(REQUEST);
        assert_eq!(client.head().status, 200);
        client
    };
    let mut clients: Vec<Client> = Vec::with_capacity(WAITING);
    clients.extend((0..FIRST).map(|_| begin()));
    let before = resident();
    clients.extend((FIRST..WAITING).map(|_| begin()));
    let each = resident().saturating_sub(before) / (WAITING - FIRST);
    wake();
    for client in &mut clients {
        assert_eq!(client.chunk().as_deref(), Some(&b"woken"[..]));
        assert_eq!((client.chunk(), &*client.trailers()), (None, "\r\n"));
        // The connection goes on with its next request.
    }
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(client.head().status, 200);
    }
    each
}

#[test]
fn a_handler_that_waits_takes_little() {
    sanserve_os::raise_nofile_limit();
    let site = || Site::without_files().with_log(Log::quiet());
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let server = Embedded::start(Tree::new(), |_, _| {
        let wakers = Arc::clone(&wakers);
        let site = site().with_handler(move || Waits(Arc::clone(&wakers)));
        bound!(Server::bind("127.0.0.1:0", site).unwrap())
    });
    let portable = measure(&server, || wakers.lock().unwrap().drain(..).for_each(Waker::wake));
    server.stop();
    drop(server);

    let (end, until) = unbounded::<()>();
    let server = Embedded::start(Tree::new(), |_, _| {
        bound!(Server::bind("127.0.0.1:0", site()).unwrap().with_handler(move || Awaits(until.clone())))
    });
    let asynchronous = measure(&server, || {
        end.close();
    });
    server.stop();
    println!("{portable} bytes for a portable handler, {asynchronous} for an asynchronous one, with the client's end");
    // 2 KiB, and an eighth of that since memory is counted in pages.
    assert!(portable <= 2_304, "{portable} bytes for a portable handler that waits");
    assert!(asynchronous <= 2_304, "{asynchronous} bytes for an asynchronous handler that waits");
}

//! How handlers end: by themselves, by failing, with their connection, with the server.

use std::io;
use std::sync::mpsc;

use sanserve_smol::{Exchange, Handler, Status, handler_fn};
use smol::channel;
use smol::future;
use smol::io::AsyncWriteExt;

use crate::bench::Bench;

/// Fails as the path says.
async fn failing(x: &mut Exchange<'_>) -> io::Result<()> {
    match x.path() {
        b"/panic" => panic!("as the test wants"),
        b"/error" => return Err(io::Error::other("as the test wants, too")),
        b"/nothing" => return Ok(()),
        b"/done" => {
            x.answer(Status::OK, "text/plain", "all of it").await?;
            return Err(io::Error::other("too late to matter"));
        }
        b"/unsent" => {
            x.respond(Status::OK)?.length(3).send()?;
            return Err(io::Error::other("nothing was out"));
        }
        b"/long" => {
            x.respond(Status::OK)?.length(3).send()?;
            return x.write_all(b"four").await;
        }
        b"/abort" => {
            x.abort();
            return Ok(());
        }
        _ => {}
    }
    x.respond(Status::OK)?.length(10).send()?;
    x.write_all(b"some").await?;
    x.flush().await?;
    match x.path() {
        b"/late-panic" => panic!("behind the head"),
        b"/late-error" => Err(io::Error::other("behind the head")),
        b"/short" => Ok(()),
        _ => x.write_all(b" more!").await,
    }
}

#[test]
fn a_handler_that_fails_is_answered_for_and_stops_nobody() {
    let bench = Bench::new(|| failing);
    let mut other = bench.connect();
    assert_eq!(other.get("/fine").text(), "some more!");
    for path in ["/panic", "/error", "/nothing", "/unsent", "/long", "/abort"] {
        let mut peer = bench.connect();
        assert_eq!(peer.get(path).status(), 500, "{path}");
        assert!(peer.rest().is_empty());
    }
    for path in ["/late-panic", "/late-error", "/short"] {
        let mut peer = bench.connect();
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(peer.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(peer.rest(), b"some", "{path}");
    }
    assert_eq!(bench.get("/done").text(), "all of it");
    assert_eq!(other.get("/fine").text(), "some more!");
    let log = bench.ended();
    for line in [
        ": the handler panicked: as the test wants\n",
        ": the handler failed: as the test wants, too\n",
        ": the handler failed: it did not answer\n",
        ": the handler failed: too late to matter\n",
        ": the handler failed: nothing was out\n",
        ": the handler failed: more body than was announced, or less\n",
        ": the handler panicked: behind the head\n",
        ": the handler failed: behind the head\n",
        ": the handler failed: its answer is shorter than it announced\n",
        "\"GET /short HTTP/1.1\" cut after 4 bytes: the handler failed\n",
    ] {
        assert!(log.contains(line), "{line}{log}");
    }
    assert_eq!(log.matches("127.0.0.1:").count(), 9, "{log}");
}

/// Tells when it is dropped.
struct Guard(mpsc::Sender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send("dropped").unwrap();
    }
}

/// Answers a little and then waits for ever.
fn sleeping(tell: mpsc::Sender<&'static str>) -> impl Handler {
    handler_fn(move |x| {
        let guard = Guard(tell.clone());
        Box::pin(async move {
            x.respond(Status::OK)?.send()?;
            x.write_all(b"a little").await?;
            x.flush().await?;
            guard.0.send("sleeps").unwrap();
            future::pending::<()>().await;
            Ok(())
        })
    })
}

#[test]
fn a_handler_that_sleeps_is_dropped_when_the_peer_resets() {
    let (tell, told) = mpsc::channel();
    let bench = Bench::new(move || sleeping(tell.clone()));
    let mut peer = bench.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told.recv().unwrap(), "sleeps");
    // What is closed with something unread is reset.
    peer.stream.peek(&mut [0]).unwrap();
    drop(peer);
    assert_eq!(told.recv().unwrap(), "dropped");
    let log = bench.ended();
    assert!(log.contains("the peer went away"), "{log}");
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn a_handler_that_sleeps_is_dropped_when_the_server_stops() {
    let (tell, told) = mpsc::channel();
    let mut bench = Bench::new(move || sleeping(tell.clone()));
    let mut peer = bench.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told.recv().unwrap(), "sleeps");
    bench.handle.stop();
    bench.join();
    assert_eq!(told.recv().unwrap(), "dropped");
    assert!(!peer.rest().ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_stream_can_end_when_the_server_does() {
    let mut bench = Bench::new(|| {
        handler_fn(|x| {
            Box::pin(async move {
                x.respond(Status::OK)?.send()?;
                while !x.is_draining() {
                    x.write_all(b"tick").await?;
                    x.flush().await?;
                }
                x.write_all(b"end").await
            })
        })
    });
    let mut peer = bench.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.head();
    bench.handle.shutdown();
    assert!(peer.rest().ends_with(b"3\r\nend\r\n0\r\n\r\n"));
    bench.join();
}

#[test]
fn a_shutdown_waits_for_the_handler_in_hand() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = channel::bounded::<()>(1);
    let mut bench = Bench::new(move || {
        let (tell, gone) = (tell.clone(), gone.clone());
        handler_fn(move |x| {
            let (tell, gone) = (tell.clone(), gone.clone());
            Box::pin(async move {
                tell.send(()).unwrap();
                gone.recv().await.unwrap();
                x.answer(Status::OK, "text/plain", "in hand").await
            })
        })
    });
    let mut idle = bench.connect();
    let mut peer = bench.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    told.recv().unwrap();
    bench.handle.shutdown();
    assert!(idle.rest().is_empty());
    go.send_blocking(()).unwrap();
    assert_eq!(peer.answer().text(), "in hand");
    assert!(peer.rest().is_empty());
    bench.join();
}

#[test]
fn behind_its_answer_a_handler_goes_on_to_its_end() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = channel::bounded::<()>(1);
    let bench = Bench::new(move || {
        let (tell, gone) = (tell.clone(), gone.clone());
        handler_fn(move |x| {
            let (tell, gone) = (tell.clone(), gone.clone());
            Box::pin(async move {
                x.answer(Status::OK, "text/plain", x.path()).await?;
                gone.recv().await.unwrap();
                tell.send(x.path().to_vec()).unwrap();
                Ok(())
            })
        })
    });
    let mut peer = bench.connect();
    peer.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(peer.answer().text(), "/1");
    assert!(told.try_recv().is_err());
    go.send_blocking(()).unwrap();
    assert_eq!(told.recv().unwrap(), b"/1", "the next request waits for its end");
    assert_eq!(peer.answer().text(), "/2");
    assert!(peer.rest().is_empty(), "the connection does not wait for the handler");
    drop(peer);
    go.send_blocking(()).unwrap();
    assert_eq!(told.recv().unwrap(), b"/2");
}

#[test]
fn who_is_not_welcome_is_not_served() {
    let hello = async |x: &mut Exchange<'_>| x.answer(Status::OK, "text/plain", "hello").await;
    let bench = Bench::with(|service| service.with_verify(|_| false), move |server| server.with_handler(move || hello));
    assert!(bench.connect().rest().is_empty());
    assert!(bench.connect().rest().is_empty());
    let bench = Bench::with(
        |service| service.with_verify(|peer| peer.ip().is_loopback()),
        move |server| server.with_handler(move || hello),
    );
    assert_eq!(bench.get("/").text(), "hello");
    let bench = Bench::with(|service| service.with_verify(|_| panic!("as the test wants")), |server| server);
    assert!(bench.connect().rest().is_empty());
    assert!(bench.ended().contains("whether to serve it panicked: as the test wants"));
}

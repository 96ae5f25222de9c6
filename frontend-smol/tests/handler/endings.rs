//! How handlers end: by returning, by failing, with their connection, with the server.

use std::io;
use std::sync::mpsc;

use sanserve_smol::{Exchange, Handler, HandlerError, StatusCode, handler_fn};
use smol::channel;
use smol::future;
use smol::io::AsyncWriteExt;
use testkit::handlers::{check_errors, check_errors_in};

use crate::support::serve;

/// Fails in the way that the path names.
async fn failing(x: &mut Exchange<'_>) -> io::Result<()> {
    match x.path() {
        b"/panic" => panic!("on purpose"),
        b"/error" => return Err(io::Error::other("for a reason")),
        b"/nothing" => return Ok(()),
        b"/done" => {
            x.answer(StatusCode::OK, "text/plain", "all of it")?;
            return Err(io::Error::other("too late to matter"));
        }
        b"/unsent" => {
            x.respond(StatusCode::OK)?.length(3).send()?;
            return Err(io::Error::other("nothing was sent"));
        }
        b"/long" => {
            x.respond(StatusCode::OK)?.length(3).send()?;
            return x.write_all(b"four").await;
        }
        b"/abort" => {
            x.abort();
            return Ok(());
        }
        _ => {}
    }
    x.respond(StatusCode::OK)?.length(10).send()?;
    x.write_all(b"some").await?;
    x.flush().await?;
    match x.path() {
        b"/late-panic" => panic!("after the head"),
        b"/late-error" => Err(io::Error::other("after the head")),
        b"/short" => Ok(()),
        _ => x.write_all(b" more!").await,
    }
}

#[test]
fn a_failing_handler_gets_a_response_and_affects_no_other_connection() {
    let server = serve(|| failing);
    let mut other = server.connect();
    assert_eq!(other.get("/fine").body_text(), "some more!");
    for path in ["/panic", "/error", "/nothing", "/unsent", "/long", "/abort"] {
        let mut peer = server.connect();
        assert_eq!(peer.get(path).status(), 500, "{path}");
        assert!(peer.rest_however().0.is_empty());
    }
    for path in ["/late-panic", "/late-error", "/short"] {
        let mut peer = server.connect();
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(peer.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(peer.rest_however().0, b"some", "{path}");
    }
    assert_eq!(server.get("/done").body_text(), "all of it");
    assert_eq!(other.get("/fine").body_text(), "some more!");
    let log = server.end();
    for line in [
        ": the handler panicked: on purpose\n",
        ": the handler failed: for a reason\n",
        ": the handler failed: it did not answer\n",
        ": the handler failed: too late to matter\n",
        ": the handler failed: nothing was sent\n",
        ": the handler failed: the body is longer or shorter than announced\n",
        ": the handler panicked: after the head\n",
        ": the handler failed: after the head\n",
        ": the handler failed: its answer is shorter than it announced\n",
        "\"GET /short HTTP/1.1\" cut after 4 bytes: the handler failed\n",
    ] {
        assert!(log.contains(line), "{line}{log}");
    }
    let failures = log.lines().filter(|line| line.starts_with("127.0.0.1 - - [") && line.contains("\": the handler "));
    assert_eq!(failures.count(), 9, "{log}");
}

/// Ends with the status that the path names.
async fn statuses(x: &mut Exchange<'_>) -> io::Result<()> {
    match x.path() {
        b"/media" => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into()),
        b"/allow" => Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET, PUT")?.into()),
        b"/number" => {
            let parsed =
                "x".parse::<u8>().map_err(|error| StatusCode::BAD_REQUEST.because(error).with_message("No digit"));
            x.answer(StatusCode::OK, "text/plain", [parsed?])
        }
        b"/begun" => {
            x.respond(StatusCode::OK)?.send()?;
            Err(StatusCode::CONFLICT.into())
        }
        b"/out" => {
            x.respond(StatusCode::OK)?.send()?;
            x.write_all(b"out").await?;
            x.flush().await?;
            Err(StatusCode::CONFLICT.because("it is too late").into())
        }
        _ => x.answer(StatusCode::OK, "text/plain", "fine"),
    }
}

#[test]
fn an_error_of_the_handler_is_a_status() {
    let server = serve(|| statuses);
    check_errors(&mut server.connect());
    let mut client = server.connect();
    client.send("GET /out HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.rest_however().0, b"3\r\nout\r\n");
    let log = server.end();
    assert!(log.contains("\"GET /out HTTP/1.1\": the handler failed: it is too late\n"), "{log}");
    check_errors_in(&log, 1);
}

/// Reports when it is dropped.
struct Guard(mpsc::Sender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send("dropped").unwrap();
    }
}

/// Sends a part of a response, then waits for ever.
fn sleeping(tell: mpsc::Sender<&'static str>) -> impl Handler {
    handler_fn(move |x| {
        let guard = Guard(tell.clone());
        Box::pin(async move {
            x.respond(StatusCode::OK)?.send()?;
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
    let server = serve(move || sleeping(tell.clone()));
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told.recv().unwrap(), "sleeps");
    peer.reset();
    assert_eq!(told.recv().unwrap(), "dropped");
    let log = server.end();
    assert!(log.contains("the peer went away"), "{log}");
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn a_handler_that_sleeps_is_dropped_when_the_server_stops() {
    let (tell, told) = mpsc::channel();
    let mut server = serve(move || sleeping(tell.clone()));
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(told.recv().unwrap(), "sleeps");
    server.stop();
    server.join();
    assert_eq!(told.recv().unwrap(), "dropped");
    assert!(!peer.rest_however().0.ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_stream_can_end_at_a_shutdown() {
    let mut server = serve(|| {
        handler_fn(|x| {
            Box::pin(async move {
                x.respond(StatusCode::OK)?.send()?;
                while !x.is_draining() {
                    x.write_all(b"tick").await?;
                    x.flush().await?;
                }
                x.write_all(b"end").await
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.head();
    server.shutdown();
    assert!(peer.rest_however().0.ends_with(b"3\r\nend\r\n0\r\n\r\n"));
    server.join();
}

#[test]
fn a_shutdown_waits_for_the_handler_in_progress() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = channel::bounded::<()>(1);
    let mut server = serve(move || {
        let (tell, gone) = (tell.clone(), gone.clone());
        handler_fn(move |x| {
            let (tell, gone) = (tell.clone(), gone.clone());
            Box::pin(async move {
                tell.send(()).unwrap();
                gone.recv().await.unwrap();
                x.answer(StatusCode::OK, "text/plain", "in progress")
            })
        })
    });
    let mut idle = server.connect();
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    told.recv().unwrap();
    server.shutdown();
    assert!(idle.rest_however().0.is_empty());
    go.send_blocking(()).unwrap();
    assert_eq!(peer.response().body_text(), "in progress");
    assert!(peer.rest_however().0.is_empty());
    server.join();
}

#[test]
fn a_handler_runs_to_its_end_after_its_response() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = channel::bounded::<()>(1);
    let server = serve(move || {
        let (tell, gone) = (tell.clone(), gone.clone());
        handler_fn(move |x| {
            let (tell, gone) = (tell.clone(), gone.clone());
            Box::pin(async move {
                x.answer(StatusCode::OK, "text/plain", x.path())?;
                gone.recv().await.unwrap();
                tell.send(x.path().to_vec()).unwrap();
                Ok(())
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(peer.response().body_text(), "/1");
    assert!(told.try_recv().is_err());
    go.send_blocking(()).unwrap();
    assert_eq!(told.recv().unwrap(), b"/1", "the next request waits for its end");
    assert_eq!(peer.response().body_text(), "/2");
    assert!(peer.rest_however().0.is_empty(), "the connection does not wait for the handler");
    drop(peer);
    go.send_blocking(()).unwrap();
    assert_eq!(told.recv().unwrap(), b"/2");
}

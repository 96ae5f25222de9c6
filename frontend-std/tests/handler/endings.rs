//! Handlers that fail, and the lifetime of handler values.

use std::io::{self, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

use sanserve_core::{Entry, Policy};
use sanserve_std::{Exchange, Handler, HandlerError, StatusCode};
use testkit::TIMEOUT;
use testkit::handlers::{check_errors, check_errors_in};

use crate::support::{request, run};
use crate::{answer_with, serve};

/// Fails in the way that the path names.
fn fail(x: &mut Exchange<'_>) -> io::Result<()> {
    let path = String::from_utf8_lossy(x.path()).into_owned();
    let (when, how) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match when {
        "before" => {}
        "gathered" => {
            x.respond(StatusCode::OK)?.send()?;
            x.write_all(b"not out yet")?;
        }
        "behind" => {
            x.respond(StatusCode::OK)?.send()?;
            x.write_all(b"out")?;
            x.flush()?;
        }
        _ => return x.answer(StatusCode::OK, "text/plain", "fine"),
    }
    match how {
        "panic" => panic!("on purpose"),
        "err" => Err(io::Error::other("for a reason")),
        "abort" => {
            x.abort();
            assert!(x.write_all(b"more").is_err());
            Ok(())
        }
        _ => unreachable!(),
    }
}

#[test]
fn a_failure_is_a_500_or_a_cut_and_affects_no_other_connection() {
    let server = answer_with(fail);
    let mut other = server.connect();
    assert_eq!(other.get("/").body, b"fine");
    for how in ["panic", "err", "abort"] {
        for when in ["before", "gathered"] {
            let mut client = server.connect();
            assert_eq!(client.get(format!("/{when}/{how}")).status(), 500);
            assert!(client.ended());
        }
        let mut client = server.connect();
        client.send(request(&format!("/behind/{how}")));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(
            client.rest_however().0,
            b"3\r\nout\r\n",
            "the body has no end, so that it is not taken as complete"
        );
    }
    assert_eq!(other.get("/").body, b"fine");
    let peer = other.local().ip();
    drop(other);
    let log = server.end();
    assert_eq!(log.matches(": the handler panicked: on purpose").count(), 3, "{log}");
    assert_eq!(log.matches(": the handler failed: for a reason").count(), 3, "{log}");
    assert_eq!(log.matches("cut after 8 bytes: the handler failed").count(), 3, "{log}");
    for line in ["GET /before/err HTTP/1.1", "GET /behind/panic HTTP/1.1"] {
        let is_one =
            |text: &&str| text.starts_with(&format!("{peer} - - [")) && text.contains(&format!("\"{line}\": the"));
        assert_eq!(log.lines().filter(is_one).count(), 1, "{line}\n{log}");
    }
}

#[test]
fn an_error_of_the_handler_is_a_status() {
    let server = answer_with(|x| match x.path() {
        b"/media" => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into()),
        b"/allow" => Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET, PUT")?.into()),
        b"/number" => {
            let parsed =
                "x".parse::<u8>().map_err(|error| StatusCode::BAD_REQUEST.because(error).with_message("No digit"));
            x.answer(StatusCode::OK, "text/plain", [parsed?])
        }
        b"/begun" => {
            x.respond(StatusCode::OK)?.send()?;
            x.write_all(b"not out yet")?;
            Err(StatusCode::CONFLICT.into())
        }
        b"/out" => {
            x.respond(StatusCode::OK)?.send()?;
            x.write_all(b"out")?;
            x.flush()?;
            Err(StatusCode::CONFLICT.because("it is too late").into())
        }
        _ => x.answer(StatusCode::OK, "text/plain", "fine"),
    });
    check_errors(&mut server.connect());
    let mut client = server.connect();
    client.send(request("/out"));
    assert_eq!(client.head().status, 200);
    assert_eq!(client.rest_however().0, b"3\r\nout\r\n");
    let log = server.end();
    assert!(log.contains("\"GET /out HTTP/1.1\": the handler failed: it is too late\n"), "{log}");
    check_errors_in(&log, 1);
}

#[test]
fn a_missing_response_or_a_wrong_length_is_logged() {
    let server = answer_with(|x| match x.path() {
        b"/none" => Ok(()),
        b"/short" => {
            x.respond(StatusCode::OK)?.length(10).send()?;
            x.write_all(b"123")
        }
        b"/cut" => {
            x.respond(StatusCode::OK)?.length(10).send()?;
            x.write_all(b"123")?;
            x.flush()
        }
        _ => {
            x.respond(StatusCode::OK)?.length(2).send()?;
            x.write_all(b"12")?;
            x.flush()?;
            x.write_all(b"3")
        }
    });
    for target in ["/none", "/short"] {
        let mut client = server.connect();
        assert_eq!(client.get(target).status(), 500);
        assert!(client.ended());
    }
    for (target, body) in [("/cut", "123"), ("/long", "12")] {
        let mut client = server.connect();
        client.send(request(target));
        client.head();
        assert_eq!(client.rest_however().0, body.as_bytes());
    }
    let log = server.end();
    assert!(log.contains("the handler failed: it did not answer"), "{log}");
    assert_eq!(log.matches("the handler failed: the body is longer or shorter than announced").count(), 3, "{log}");
}

#[test]
fn a_handler_lives_as_long_as_its_connection() {
    struct Told(std::sync::mpsc::Sender<&'static str>);
    impl Handler for Told {
        fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "")
        }
    }
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send("dropped").unwrap();
            panic!("in a drop: the thread goes on");
        }
    }
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let server = run(
        |site| site,
        |server| {
            let make = move || {
                let tell = tell.lock().unwrap().clone();
                tell.send("made").unwrap();
                Told(tell)
            };
            server.with_handler(make).workers(1)
        },
    );
    for _ in 0..2 {
        let mut client = server.connect();
        client.get("/");
        client.get("/");
        drop(client);
        assert_eq!([told.recv_timeout(TIMEOUT).unwrap(), told.recv_timeout(TIMEOUT).unwrap()], ["made", "dropped"]);
    }
    drop(server.connect());
    assert!(server.end().contains("the connection panicked: in a drop"));
    assert!(told.recv().is_err(), "without a request no handler is made");
}

#[test]
fn a_stream_can_end_at_a_shutdown() {
    let server = answer_with(|x| {
        x.respond(StatusCode::OK)?.send()?;
        while !x.is_draining() {
            x.write_all(b"tick")?;
            x.flush()?;
            std::thread::yield_now();
        }
        x.write_all(b"end")
    });
    let mut client = server.connect();
    client.send(request("/"));
    client.head();
    server.shutdown();
    assert!(client.rest_however().0.ends_with(b"3\r\nend\r\n0\r\n\r\n"));
    server.end();
}

#[test]
fn a_shutdown_lets_a_handler_finish_and_a_stop_cuts_it() {
    for stops in [false, true] {
        let at_work = Arc::new(Barrier::new(2));
        let server = serve({
            let at_work = at_work.clone();
            move || {
                let at_work = at_work.clone();
                move |x: &mut Exchange<'_>| {
                    x.respond(StatusCode::OK)?.length(20 << 20).send()?;
                    x.write_all(b"begun")?;
                    x.flush()?;
                    at_work.wait();
                    x.write_all(&vec![b'x'; (20 << 20) - 5]).inspect_err(|error| {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
                    })
                }
            }
        });
        let mut client = server.connect();
        client.send(request("/"));
        client.head();
        if stops {
            at_work.wait();
            server.stop();
            assert!(client.rest_however().0.len() < 20 << 20);
            let log = server.end();
            assert!(log.contains("bytes: the server shut down") && !log.contains("the handler"), "{log}");
        } else {
            server.shutdown();
            at_work.wait();
            assert_eq!(client.rest_however().0.len(), 20 << 20);
            assert!(server.end().contains(&format!("200 {}\n", 20 << 20)));
        }
    }
}

#[test]
fn log_lines_come_from_the_policy_and_the_handler() {
    struct Terse;
    impl Policy for Terse {
        fn log(&self, entry: &Entry<'_>, _: &str, out: &mut Vec<u8>) {
            writeln!(out, "{} gave {}", entry.line.escape_ascii(), entry.status).unwrap();
        }
    }
    let server = run(
        |site| site.with_policy(Terse),
        |server| {
            server.with_handler(|| {
                |x: &mut Exchange<'_>| {
                    x.log(format_args!("asked for {}\x1b[31m\n", String::from_utf8_lossy(x.path())));
                    x.answer(StatusCode::OK, "text/plain", "")
                }
            })
        },
    );
    server.connect().get("/a");
    let log = server.end();
    let (first, second) = log.split_once('\n').unwrap();
    assert!(first.starts_with("127.0.0.1 - - [") && first.ends_with("] asked for /a\\x1b[31m\\x0a"), "{log}");
    assert_eq!(second, "GET /a HTTP/1.1 gave 200\n");
}

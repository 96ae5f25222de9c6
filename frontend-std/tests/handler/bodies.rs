//! Request bodies, and transfers in both directions at once.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sanserve_core::{Config, Entry, Pace, Policy, Request, Timeouts};
use sanserve_std::{Exchange, StatusCode};
use testkit::{Client, Embedded, TIMEOUT};

use crate::support::run;
use crate::{answer_with, ask, serve};

/// Echoes the body as it arrives, with the framing of the request.
fn echo(x: &mut Exchange<'_>) -> io::Result<()> {
    let length = x.request().content_length();
    let head = x.respond(StatusCode::OK)?;
    match length {
        Some(length) => head.length(length).send()?,
        None => head.send()?,
    }
    let mut piece = [0; 10_000];
    loop {
        match x.read(&mut piece)? {
            0 => return Ok(()),
            n => x.write_all(&piece[..n])?,
        }
    }
}

fn content(len: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| (n * n).to_le_bytes()).take(len).collect()
}

#[test]
fn an_echo_of_any_size_is_complete() {
    let server = answer_with(echo);
    let mut client = server.connect();
    for len in [0, 1, 9_999, 65_535, 65_537, 200_000, 5_000_000] {
        let content = content(len);
        for is_chunked in [false, true] {
            let framing =
                if is_chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {len}") };
            let mut twin = client.twin();
            let body = content.clone();
            let sending = thread::spawn(move || {
                twin.send(ask("POST", "/", &format!("{framing}\r\n")));
                if is_chunked {
                    for piece in body.chunks(7_001) {
                        twin.send(format!("{:x}\r\n", piece.len()));
                        twin.send(piece);
                        twin.send("\r\n");
                    }
                    twin.send("0\r\n\r\n");
                } else {
                    twin.send(&body);
                }
            });
            let echoed = client.response().body;
            sending.join().unwrap();
            assert!(echoed == content, "{len} bytes, chunked: {is_chunked}");
        }
    }
}

/// Each piece is echoed before the next one is sent: neither side holds anything back.
#[test]
fn reading_and_writing_alternate() {
    let server = answer_with(echo);
    let mut client = server.connect();
    client.send(ask("POST", "/", "Content-Length: 300\r\n"));
    client.head();
    for n in 0..100_u8 {
        client.send([n; 3]);
        assert_eq!(client.take(3), [n; 3]);
    }
    assert_eq!(client.get("/next").status(), 200);
}

#[test]
fn the_first_read_sends_100_continue() {
    let server = answer_with(|x| {
        if x.path() == b"/refused" {
            return x.error(StatusCode::CONTENT_TOO_LARGE, None, None);
        }
        let mut body = String::new();
        x.read_to_string(&mut body)?;
        x.answer(StatusCode::OK, "text/plain", body)
    });
    let mut client = server.connect();
    client.send(ask("POST", "/", "Content-Length: 4\r\nExpect: 100-continue\r\n"));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    assert_eq!(client.response().body, b"body");
    client.send(ask("POST", "/refused", "Content-Length: 4\r\nExpect: 100-continue\r\n"));
    assert_eq!(client.response().status(), 413);
    assert!(client.ended());
}

/// A server whose handler reports the error of a failed read.
fn reporting(config: Config, policy: impl Policy + Send + Sync + 'static) -> (Embedded, Receiver<io::Error>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let make = move || {
        let tell: Sender<io::Error> = tell.lock().unwrap().clone();
        move |x: &mut Exchange<'_>| {
            if x.path() == b"/answers-first" {
                x.respond(StatusCode::OK)?.send()?;
                x.flush()?;
            }
            let error = x.read_to_end(&mut Vec::new()).unwrap_err();
            tell.send(error).unwrap();
            assert!(x.respond(StatusCode::OK).is_err(), "the exchange is over");
            x.read(&mut [0]).map(drop)
        }
    };
    (run(|site| site.with_config(config).with_policy(policy), |server| server.with_handler(make)), told)
}

#[test]
fn the_policy_may_refuse_a_body_before_it_is_sent() {
    struct Refuses;
    impl Policy for Refuses {
        fn expect_continue(&self, request: &Request<'_>) -> Result<(), StatusCode> {
            Err(if request.path() == b"/417" { StatusCode::EXPECTATION_FAILED } else { StatusCode::CONTENT_TOO_LARGE })
        }
    }
    let (server, told) = reporting(Config::default(), Refuses);
    for (target, status) in [("/417", 417), ("/413", 413)] {
        let mut client = server.connect();
        client.send(ask("POST", target, "Content-Length: 4\r\nExpect: 100-continue\r\n"));
        assert_eq!(client.response().status(), status);
        assert!(client.ended());
    }
    drop(server);
    assert!(told.recv().is_err(), "the handler is not called");
}

#[test]
fn each_broken_body_has_its_error_kind() {
    let body = Pace::new(Duration::from_millis(50), Duration::from_millis(50), 256);
    let config = Config::default().with_timeouts(Timeouts::default().with_body(body));
    let (server, told) = reporting(config, sanserve_core::DefaultPolicy);
    type Misdeed = fn(&mut Client);
    let misdeeds: [(Misdeed, &str, ErrorKind, u16); 3] = [
        (|client| client.half_close(), "Content-Length: 9", ErrorKind::UnexpectedEof, 400),
        (|_| {}, "Content-Length: 9", ErrorKind::TimedOut, 408),
        (|client| client.send("zz\r\n"), "Transfer-Encoding: chunked", ErrorKind::InvalidData, 400),
    ];
    for (misdeed, framing, kind, status) in misdeeds {
        let mut client = server.connect();
        client.send(ask("POST", "/", &format!("{framing}\r\n")));
        misdeed(&mut client);
        assert_eq!(told.recv_timeout(TIMEOUT).unwrap().kind(), kind);
        assert_eq!(client.response().status(), status);
        assert!(client.ended());

        let mut client = server.connect();
        client.send(ask("POST", "/answers-first", &format!("{framing}\r\n")));
        client.head();
        misdeed(&mut client);
        assert_eq!(told.recv_timeout(TIMEOUT).unwrap().kind(), kind);
        assert!(client.ended(), "a response to half a request is not complete");
    }
    let log = server.end();
    assert!(!log.contains("the handler failed:"), "only the access log contains the error: {log}");
}

/// The time that the handler takes is not a delay of the peer.
#[test]
fn a_slow_handler_is_not_a_slow_peer() {
    let body = Pace::new(Duration::from_millis(50), Duration::from_millis(50), 1 << 20);
    let config = Config::default().with_timeouts(Timeouts::default().with_body(body));
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let make = move || {
        let wait = wait.clone();
        move |x: &mut Exchange<'_>| {
            let mut body = [0; 2];
            x.read_exact(&mut body[..1])?;
            wait.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
            x.read_exact(&mut body[1..])?;
            x.answer(StatusCode::OK, "text/plain", body)
        }
    };
    let server = run(|site| site.with_config(config), |server| server.with_handler(make));
    let mut client = server.connect();
    client.send(ask("POST", "/", "Content-Length: 2\r\n"));
    client.send("a");
    assert!(client.is_silent());
    client.send("b");
    go.send(()).unwrap();
    assert_eq!(client.response().body, b"ab");
}

/// No timeout counts it, but the log entry does.
#[test]
fn the_duration_of_an_exchange_includes_its_handler() {
    struct Durations;
    impl Policy for Durations {
        fn log(&self, entry: &Entry<'_>, _: &str, out: &mut Vec<u8>) {
            let _ = writeln!(out, "{} took {}", entry.status, entry.duration.as_millis());
        }
    }
    const DELAY: Duration = Duration::from_millis(200);
    let make = || {
        |x: &mut Exchange<'_>| {
            if x.path() == b"/slow" {
                // The clock of the connection may be late by a turn.
                thread::sleep(2 * DELAY);
            }
            x.answer(StatusCode::OK, "text/plain", "done")
        }
    };
    let server = run(|site| site.with_policy(Durations), |server| server.with_handler(make));
    let mut client = server.connect();
    for path in ["/slow", "/", "/slow"] {
        assert_eq!(client.get(path).body_text(), "done");
    }
    let log = server.end();
    let took = log.lines().map(|line| line.strip_prefix("200 took ").unwrap().parse().unwrap());
    let took: Vec<Duration> = took.map(Duration::from_millis).collect();
    assert!(matches!(took[..], [first, _, third] if first >= DELAY && third >= DELAY), "{log}");
}

/// A half-close does not cut the time of the handler, and all requests are answered.
#[test]
fn a_half_close_does_not_end_the_connection() {
    let config = Config::default().with_timeouts(Timeouts::default().with_script_silence(Duration::from_millis(50)));
    let make = || {
        |x: &mut Exchange<'_>| {
            std::thread::sleep(std::time::Duration::from_millis(150));
            x.answer(StatusCode::OK, "text/plain", "late")
        }
    };
    let server = run(|site| site.with_config(config), |server| server.with_handler(make));
    let last = ask("GET", "/", "Connection: close\r\n");
    for (requests, answers) in
        [("GET / HTTP/1.0\r\n\r\n".to_owned(), 1), (ask("GET", "/", ""), 1), (ask("GET", "/", "").repeat(2) + &last, 3)]
    {
        let mut client = server.connect();
        client.send(&requests);
        client.half_close();
        for _ in 0..answers {
            assert_eq!(client.response().body, b"late", "{requests}");
        }
        assert!(client.ended());
    }
}

#[test]
fn a_reset_is_an_error_for_reads_and_writes() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let server = serve(move || {
        let tell = tell.lock().unwrap().clone();
        move |x: &mut Exchange<'_>| {
            x.respond(StatusCode::OK)?.send()?;
            let outcome = loop {
                if let Err(error) = x.write_all(&[b'x'; 10_000]).and_then(|()| x.flush()) {
                    break error;
                }
            };
            tell.send(outcome.kind()).unwrap();
            Err(outcome)
        }
    });
    let mut client = server.connect();
    client.send(crate::support::request("/"));
    client.head();
    drop(client);
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), ErrorKind::BrokenPipe);
    let log = server.end();
    assert!(log.contains("bytes: the peer went away") && !log.contains("the handler"), "{log}");
}

/// While the client does not read, the handler blocks: it cannot be further ahead than the sockets buffer.
#[test]
fn a_slow_reader_blocks_the_writer() {
    let written = Arc::new(Mutex::new(0_usize));
    let server = serve({
        let written = written.clone();
        move || {
            let written = written.clone();
            move |x: &mut Exchange<'_>| {
                x.respond(StatusCode::OK)?.length(64 << 20).send()?;
                for n in 1..=1024 {
                    x.write_all(&[b'x'; 64 << 10])?;
                    *written.lock().unwrap() = n * (64 << 10);
                }
                Ok(())
            }
        }
    });
    let mut client = server.connect();
    client.send(crate::support::request("/"));
    assert_eq!(client.head().length(), Some(64 << 20));
    let mut read = 1 << 16;
    loop {
        let ahead = written.lock().unwrap().saturating_sub(read);
        assert!(ahead < 32 << 20, "{ahead} bytes ahead");
        match client.piece().len() {
            0 => break,
            n => read += n,
        }
        if read >= 64 << 20 {
            break;
        }
    }
    drop(client);
    server.end();
    assert_eq!(*written.lock().unwrap(), 64 << 20);
}

#[test]
fn trailers_are_received_and_sent() {
    let server = answer_with(|x| {
        io::copy(x, &mut io::sink())?;
        let came = x.trailers();
        assert_eq!(came, [(b"X-Sum".to_vec(), b"7".to_vec())]);
        x.respond(StatusCode::OK)?.field("Trailer", "X-Back")?.send()?;
        x.write_all(b"body")?;
        assert!(x.trailer("Content-Type", "a/b").is_err());
        x.trailer("X-Back", &came[0].1)
    });
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(ask("POST", "/", "Transfer-Encoding: chunked\r\n"));
        client.send("1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n");
        client.head();
        assert_eq!(client.chunks(), (b"body".to_vec(), "X-Back: 7\r\n\r\n".to_owned()));
    }
}

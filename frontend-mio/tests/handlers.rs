//! Handlers of an embedder, over real sockets: waking, packing, bodies, files, upgrades, failures.

mod support;

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use sanserve_core::{Config, Pace, Timeouts};
use sanserve_mio::{
    Call, Full, Handler, HandlerError, Job, Misuse, Panicked, Received, Reply, Site, StatusCode, Workers,
};

use support::{answers_sync, ask, end, start, start_with, sync};
use testkit::handlers::{check_errors, check_errors_in};
use testkit::{Client, Response, TIMEOUT};

/// What a handler reports to the test.
#[derive(Debug)]
enum Heard {
    Request(Waker),
    Wake,
    Over,
}

/// Reports its calls, and responds to a wake-up with the path and `X-Mark`.
struct Waits(Sender<Heard>, bool);

impl Handler for Waits {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request => {
                self.1 = answers_sync(reply).unwrap();
                if !self.1 {
                    self.0.send(Heard::Request(reply.waker())).unwrap();
                }
            }
            Call::Wake => {
                self.0.send(Heard::Wake).unwrap();
                let request = reply.request();
                let mut text = request.path().to_vec();
                text.extend_from_slice(request.field("X-Mark").unwrap_or_default());
                reply.answer(StatusCode::OK, "text/plain", text).unwrap();
            }
            Call::Over if !self.1 => self.0.send(Heard::Over).unwrap(),
            _ => {}
        }
        Ok(())
    }
}

fn waits() -> (Site, Receiver<Heard>) {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let make = move || Waits(tell.lock().unwrap().clone(), false);
    (Site::without_files().with_handler(make), heard)
}

fn next(heard: &Receiver<Heard>) -> Heard {
    heard.recv_timeout(TIMEOUT).expect("the handler is called")
}

#[track_caller]
fn waker(heard: &Receiver<Heard>) -> Waker {
    match next(heard) {
        Heard::Request(waker) => waker,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waker_works_on_any_thread() {
    let (site, heard) = waits();
    let server = start(site);
    let mut client = server.connect();
    for n in 0..3 {
        client.send(format!("GET /later HTTP/1.1\r\nHost: x\r\nX-Mark: {n}\r\n\r\n"));
        let waker = waker(&heard);
        std::thread::spawn(move || {
            waker.wake_by_ref();
            waker.wake();
        });
        assert_eq!(client.response().body, format!("/later{n}").into_bytes());
        assert!(matches!((next(&heard), next(&heard)), (Heard::Wake, Heard::Over)));
    }
    end(server);
}

#[test]
fn a_waker_kept_for_too_long_has_no_effect() {
    let (site, heard) = waits();
    let server = start(site);
    let mut client = server.connect();
    ask(&mut client, "/one");
    let one = waker(&heard);
    one.wake_by_ref();
    assert_eq!(client.response().body, b"/one");
    assert!(matches!((next(&heard), next(&heard)), (Heard::Wake, Heard::Over)));
    // First, no exchange is in progress; then it is the next exchange.
    one.wake_by_ref();
    sync(&server);
    ask(&mut client, "/two");
    let two = waker(&heard);
    one.wake_by_ref();
    sync(&server);
    assert!(heard.try_recv().is_err());
    two.wake_by_ref();
    assert_eq!(client.response().body, b"/two");
    assert!(matches!((next(&heard), next(&heard)), (Heard::Wake, Heard::Over)));
    // Nor has it an effect when the server has ended.
    end(server);
    one.wake();
    two.wake();
}

#[test]
fn a_waker_does_not_wake_the_next_connection_with_its_number() {
    let (site, heard) = waits();
    let server = start(site);
    let mut client = server.connect();
    ask(&mut client, "/first");
    let first = waker(&heard);
    client.reset();
    assert!(matches!(next(&heard), Heard::Over));
    // The only free place is that of the first connection.
    let mut client = server.connect();
    ask(&mut client, "/second");
    let second = waker(&heard);
    first.wake();
    sync(&server);
    assert!(heard.try_recv().is_err());
    second.wake();
    assert_eq!(client.response().body, b"/second");
    end(server);
}

#[test]
fn bytes_that_arrive_while_a_handler_waits_are_not_lost() {
    let (site, heard) = waits();
    let server = start(site);
    let mut client = server.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\nX-Mark: a\r\n\r\n");
    let one = waker(&heard);
    sync(&server);
    client.send("GET /2 HTTP/1.1\r\nHost: x\r\nX-Mark: b\r\n\r\nGET /3 HT");
    sync(&server);
    client.send("TP/1.1\r\nHost: x\r\nX-Mark: c\r\n\r\n");
    one.wake();
    for text in ["/1a", "/2b", "/3c"] {
        if text != "/1a" {
            waker(&heard).wake();
        }
        assert_eq!(client.response().body, text.as_bytes());
        assert!(matches!((next(&heard), next(&heard)), (Heard::Wake, Heard::Over)));
    }
    end(server);
}

#[test]
fn a_waiting_handler_is_notified_of_a_disconnect() {
    let (site, heard) = waits();
    let server = start(site);
    for _ in 0..3 {
        let mut client = server.connect();
        ask(&mut client, "/");
        let waker = waker(&heard);
        sync(&server);
        client.reset();
        assert!(matches!(next(&heard), Heard::Over));
        waker.wake();
    }
    // Also if so much was pipelined that nothing more is read.
    let mut client = server.connect();
    ask(&mut client, "/");
    let _waker = waker(&heard);
    client.send_while_taken(&[b'x'; 64 * 1024]);
    client.reset();
    assert!(matches!(next(&heard), Heard::Over));
    // A peer that has only half-closed still gets its response.
    let mut client = server.connect();
    ask(&mut client, "/half");
    let waker = waker(&heard);
    client.half_close();
    sync(&server);
    waker.wake();
    assert_eq!(client.response().body, b"/half");
    end(server);
}

#[test]
fn a_shutdown_cuts_waiting_handlers_after_its_grace() {
    let (site, heard) = waits();
    let server = start(site.with_grace(Duration::from_millis(50)));
    let mut client = server.connect();
    ask(&mut client, "/");
    let _waker = waker(&heard);
    server.shutdown();
    assert!(matches!(next(&heard), Heard::Over));
    assert_eq!(client.rest_however().0, b"");
    end(server);
}

/// A site with this function as its handler. `Err` aborts the exchange.
fn calls(answer: impl Fn(Call, &mut Reply<'_>) -> Result<(), Misuse> + Send + Sync + 'static) -> Site {
    let answer = Arc::new(answer);
    Site::without_files().with_handler(move || {
        let answer = Arc::clone(&answer);
        move |call: Call, reply: &mut Reply<'_>| {
            if answer(call, reply).is_err() {
                reply.abort();
            }
            Ok(())
        }
    })
}

#[test]
fn a_client_that_does_not_read_stops_the_handler_and_is_cut() {
    let taken = Arc::new(AtomicUsize::new(0));
    let (tell, over) = channel();
    let (count, tell) = (Arc::clone(&taken), Mutex::new(tell));
    let pace = Pace::new(Duration::from_millis(200), Duration::from_millis(200), 256);
    let timeouts = Timeouts::default().with_write(pace);
    let site = calls(move |call, reply| {
        match call {
            Call::Request => reply.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?,
            Call::Over => return tell.lock().unwrap().send(()).map_err(|_| Misuse::ExchangeEnded),
            _ => {}
        }
        // Endless events, as fast as they are accepted.
        match reply.write(&[b'e'; 4096])? {
            0 => {}
            n => {
                count.fetch_add(n, Ordering::Relaxed);
                reply.waker().wake();
            }
        }
        Ok(())
    });
    let server = start(site.with_config(Config::default().with_timeouts(timeouts)));
    let mut client = Client::connect_narrow(server.address);
    ask(&mut client, "/");
    over.recv_timeout(TIMEOUT).expect("the connection is cut");
    assert!(taken.load(Ordering::Relaxed) < 8 << 20, "the handler was not stopped");
    let log = end(server);
    assert!(log.contains("the peer was too slow"), "{log}");
}

#[test]
fn trailers_go_both_ways() {
    let server = start(calls(|call, reply| {
        if call == Call::Over {
            return Ok(());
        }
        loop {
            match reply.receive() {
                Received::Data(data) => {
                    let n = data.len();
                    reply.consume(n);
                }
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => break,
            }
        }
        let sum = reply.trailers().find(|(name, _)| name == b"X-Sum").map(|(_, value)| value.to_vec());
        reply.respond(StatusCode::OK)?.field("Trailer", "X-Seen")?.send()?;
        reply.write(b"body")?;
        reply.trailer("X-Seen", sum.unwrap_or_default())?;
        assert_eq!(reply.trailer("Content-Length", "3"), Err(Misuse::ReservedHeader));
        assert_eq!(reply.trailer("X-Bad", "a\r\nb"), Err(Misuse::Field));
        reply.finish()
    }));
    let mut client = server.connect();
    for pieces in
        [&["5\r\nhello\r\n0\r\nX-Sum: 99\r\n\r\n"][..], &["5\r\nhel", "lo\r\n", "0\r\nX-Su", "m: 99\r\n", "\r\n"]]
    {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in pieces {
            client.send(piece);
            // Another request in between, so that the connection is packed.
            let mut other = server.connect();
            ask(&mut other, "/");
            assert!(other.head().starts_with("HTTP/1.1 200 OK"));
        }
        assert!(client.head().contains("\r\nTrailer: X-Seen\r\n"));
        assert_eq!(client.chunk().as_deref(), Some(&b"body"[..]));
        assert_eq!(client.chunk(), None);
        assert_eq!((client.line(), client.line()), ("X-Seen: 99".to_owned(), String::new()));
    }
    end(server);
}

#[test]
fn hints_are_sent_before_the_response() {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let server = start(calls(move |call, reply| match call {
        Call::Request => {
            reply.inform(StatusCode::EARLY_HINTS)?.field("Link", "</a.css>; rel=preload")?.send()?;
            tell.lock().unwrap().send(Heard::Request(reply.waker())).map_err(|_| Misuse::ExchangeEnded)
        }
        Call::Wake => reply.answer(StatusCode::OK, "text/plain", "answer"),
        _ => Ok(()),
    }));
    let mut client = server.connect();
    ask(&mut client, "/");
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    waker(&heard).wake();
    assert_eq!(client.response().body, b"answer");
    end(server);
}

#[test]
fn ranges_of_files_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("content");
    let content: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &content).unwrap();
    const RANGE: std::ops::Range<usize> = 1_000..7_001_001;
    let server = start(calls(move |call, reply| {
        if call == Call::Request {
            reply.attach_file(File::open(&path).unwrap());
            let is_chunked = reply.request().path() == b"/chunked";
            let head = reply.respond(StatusCode::OK)?;
            if is_chunked {
                head.send()?
            } else {
                head.length(RANGE.len() as u64).send()?
            }
            assert!(reply.offer_file(RANGE.start as u64, RANGE.len() as u64)?);
            assert!(!reply.offer_file(0, 1)?, "only one file at a time");
            reply.finish()?;
        }
        Ok(())
    }));
    let mut client = server.connect();
    for path in ["/", "/chunked", "/"] {
        let Response { head, body } = client.get(path);
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(body == content[RANGE], "{path}: {} bytes", body.len());
    }
    end(server);
}

/// Submits a job, and responds with its result.
struct Asks {
    workers: Arc<Workers>,
    gate: Arc<Mutex<Receiver<()>>>,
    job: Option<Job<String>>,
}

impl Handler for Asks {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Request if answers_sync(reply).unwrap() => {}
            Call::Request => {
                let gate = Arc::clone(&self.gate);
                let path = String::from_utf8_lossy(reply.request().path()).into_owned();
                let work = move || match path.as_str() {
                    "/panics" => panic!("a job that fails"),
                    "/waits" => gate.lock().unwrap().recv().map(|()| path).unwrap(),
                    _ => path,
                };
                match self.workers.run(reply.waker(), work) {
                    Ok(job) => self.job = Some(job),
                    Err(Full) => reply.error(StatusCode::SERVICE_UNAVAILABLE, None, None).unwrap(),
                }
            }
            Call::Wake => match self.job.as_mut().and_then(Job::take) {
                Some(Ok(text)) => reply.answer(StatusCode::OK, "text/plain", text).unwrap(),
                Some(Err(Panicked(why))) => {
                    reply.error(StatusCode::INTERNAL_SERVER_ERROR, Some(&why), None).unwrap();
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn workers_run_blocking_jobs() {
    let (open, gate) = channel();
    let (workers, gate) = (Arc::new(Workers::with_queue(1, 1).unwrap()), Arc::new(Mutex::new(gate)));
    let site = Site::without_files().with_handler(move || Asks {
        workers: Arc::clone(&workers),
        gate: Arc::clone(&gate),
        job: None,
    });
    let server = start(site);
    let mut client = server.connect();
    assert_eq!(client.get("/plain").body, b"/plain");
    assert!(client.get("/panics").head.starts_with("HTTP/1.1 500 a job that fails\r\n"));
    let mut client = server.connect();
    assert_eq!(client.get("/again").body, b"/again", "the thread has survived");
    // One job runs and one waits, or the first has not begun and the second is refused: that depends on the thread.
    // The loop serves other connections meanwhile, and there is never room for a third job.
    let mut waiting = [server.connect(), server.connect(), server.connect()];
    for client in &mut waiting {
        ask(client, "/waits");
        sync(&server);
    }
    assert!(server.connect().get("/waits").head.starts_with("HTTP/1.1 503 "));
    let mut statuses = Vec::new();
    (0..2).for_each(|_| open.send(()).unwrap());
    waiting.iter_mut().for_each(|client| statuses.push(client.response().status()));
    statuses.sort();
    assert!(statuses == [200, 200, 503] || statuses == [200, 503, 503], "{statuses:?}");
    end(server);
}

#[test]
fn a_handler_that_panics_or_aborts_fails_alone() {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let server = start(calls(move |call, reply| {
        let path = reply.request().path().to_vec();
        match (call, path.as_slice()) {
            (Call::Request, b"/panic") => panic!("at once"),
            (Call::Request, b"/late") => {
                tell.lock().unwrap().send(Heard::Request(reply.waker())).unwrap();
                Ok(())
            }
            (Call::Wake, b"/late") => panic!("when woken"),
            (Call::Request, b"/abort") => {
                reply.abort();
                assert_eq!(reply.write(b"x"), Err(Misuse::HeadOrder));
                Ok(())
            }
            (Call::Request, b"/cut") => {
                reply.respond(StatusCode::OK)?.length(100_000).send()?;
                reply.write(&[b'.'; 100_000]).map(drop)
            }
            (Call::Room, b"/cut") => {
                reply.abort();
                Ok(())
            }
            (Call::Over, _) => Ok(()),
            _ => answers_sync(reply).map(drop),
        }
    }));
    let mut other = server.connect();
    ask(&mut other, "/late");
    let waker = waker(&heard);
    for path in ["/panic", "/abort"] {
        let mut client = server.connect();
        let head = client.get(path).head;
        assert!(head.starts_with("HTTP/1.1 500 ") && head.contains("\r\nConnection: close\r\n"), "{path}: {head}");
        assert_eq!(client.rest_however().0, b"");
    }
    let mut client = server.connect();
    ask(&mut client, "/cut");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert!(client.rest_however().0.len() < 100_000);
    waker.wake();
    assert!(other.response().head.starts_with("HTTP/1.1 500 "));
    sync(&server);
    let log = end(server);
    assert_eq!(log.matches("the handler panicked: ").count(), 2, "{log}");
}

/// Ends with the status that the path names.
fn statuses(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    match reply.request().path() {
        b"/media" => return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into()),
        b"/allow" => return Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET, PUT")?),
        b"/number" => {
            let parsed =
                "x".parse::<u8>().map_err(|error| StatusCode::BAD_REQUEST.because(error).with_message("No digit"));
            reply.answer(StatusCode::OK, "text/plain", [parsed?])?;
        }
        b"/begun" => {
            reply.respond(StatusCode::OK)?.send()?;
            reply.write(b"not out yet")?;
            return Err(StatusCode::CONFLICT.into());
        }
        b"/page" => reply.respond(StatusCode::UNAUTHORIZED)?.field("WWW-Authenticate", "Basic")?.error(None, None)?,
        _ => reply.answer(StatusCode::OK, "text/plain", "fine")?,
    }
    Ok(())
}

#[test]
fn an_error_of_the_handler_is_a_status() {
    let server = start(Site::without_files().with_answer(statuses));
    check_errors(&mut server.connect());
    let page = server.connect().get("/page");
    assert_eq!((page.status(), page.text("WWW-Authenticate")), (401, Some("Basic")));
    check_errors_in(&end(server), 0);
}

/// Once the head is out, the connection is cut.
#[test]
fn an_error_after_the_head_cuts_the_connection() {
    let server = start(Site::without_files().with_handler(|| {
        |call: Call, reply: &mut Reply<'_>| match call {
            Call::Request => {
                reply.respond(StatusCode::OK)?.length(100_000).send()?;
                reply.write(&[b'.'; 100_000])?;
                Ok(())
            }
            Call::Room => Err(StatusCode::CONFLICT.because("it is too late")),
            _ => Ok(()),
        }
    }));
    let mut client = server.connect();
    ask(&mut client, "/");
    assert_eq!(client.head().status, 200);
    assert!(client.rest_however().0.len() < 100_000);
    let log = end(server);
    assert!(log.contains("\"GET / HTTP/1.1\": the handler failed: it is too late\n"), "{log}");
}

#[test]
fn nothing_of_a_misuse_is_sent() {
    let server = start(calls(|call, reply| {
        if call != Call::Request {
            return Ok(());
        }
        assert_eq!(reply.write(b"no head"), Err(Misuse::HeadOrder));
        assert_eq!(reply.offer_file(0, 1), Err(Misuse::HeadOrder));
        assert_eq!(reply.finish(), Err(Misuse::HeadOrder));
        assert_eq!(reply.respond(StatusCode::CONTINUE).err(), Some(Misuse::Interim));
        assert_eq!(reply.inform(StatusCode::OK).err(), Some(Misuse::Interim));
        assert_eq!(reply.upgrade("any").err(), Some(Misuse::Upgrade));
        for (name, value) in [("A", "b\r\nEvil: 1"), ("A\r\nEvil", "1"), ("", "1"), ("A", "\0"), ("A b", "1")] {
            assert_eq!(reply.respond(StatusCode::OK)?.field(name, value).err(), Some(Misuse::Field));
        }
        for name in ["Content-Length", "transfer-encoding", "Connection"] {
            assert_eq!(reply.respond(StatusCode::OK)?.field(name, "1").err(), Some(Misuse::ReservedHeader));
        }
        assert_eq!(reply.respond(StatusCode::OK)?.reason("a\r\nEvil: 1").err(), Some(Misuse::Field));
        drop(reply.respond(StatusCode::OK)?.field("X-Evil", "never sent")?);
        reply.respond(StatusCode::OK)?.length(4).send()?;
        assert_eq!(reply.respond(StatusCode::OK).err(), Some(Misuse::HeadOrder));
        assert_eq!(reply.inform(StatusCode::EARLY_HINTS).err(), Some(Misuse::HeadOrder));
        assert_eq!(reply.write(b"Evil!"), Err(Misuse::LengthMismatch));
        assert_eq!(reply.write(b"good")?, 4);
        assert_eq!(reply.write(b"Evil"), Err(Misuse::LengthMismatch));
        assert_eq!(reply.trailer("X-Evil", "1"), Err(Misuse::ReservedHeader));
        reply.finish()?;
        assert_eq!(reply.write(b"Evil").err(), Some(Misuse::ExchangeEnded));
        Ok(())
    }));
    let mut client = server.connect();
    for _ in 0..3 {
        let Response { head, body } = client.get("/");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("vil"), "{head}");
        assert_eq!(body, b"good");
    }
    let log = end(server);
    assert!(!log.contains("panicked"), "{log}");
}

/// Many workers, each with wakers of its own.
#[test]
fn wakers_wake_the_loop_of_their_connection() {
    let (site, heard) = waits();
    let server = start_with(site, 4);
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    for round in 0..10 {
        clients.iter_mut().for_each(|client| ask(client, &format!("/{round}")));
        let mut woken = 0;
        while woken < clients.len() {
            if let Heard::Request(waker) = next(&heard) {
                waker.wake();
                woken += 1;
            }
        }
        clients.iter_mut().for_each(|client| assert_eq!(client.response().body, format!("/{round}").into_bytes()));
    }
    end(server);
}

#[test]
fn content_of_a_handler_has_conditions_and_ranges() {
    let version = sanserve_core::Validators::version(7);
    let site =
        Site::without_files().with_answer(move |reply| reply.answer_entity(&version, "text/plain", "0123456789"));
    let server = start(site);
    testkit::handlers::check_entity(&mut server.connect());
    end(server);
}

#[test]
fn embedded_assets_are_sent_like_files() {
    let assets = testkit::assets();
    let site = Site::without_files().with_answer(move |reply| {
        if reply.send_asset(&assets)? { Ok(()) } else { reply.error(StatusCode::NOT_FOUND, Some("nothing here"), None) }
    });
    let server = start(site);
    testkit::check_assets(&mut server.connect());
    end(server);
    // What is no asset is left to the files, of which there are none; and one asset may stand for everything.
    let server = start(Site::without_files().with_assets(&testkit::assets()));
    assert_eq!(server.connect().get("/app.js").body_text(), "0123456789");
    assert_eq!(server.connect().get("/app").status(), 404);
    end(server);
    let assets = testkit::assets();
    let site = Site::without_files().with_answer(move |reply| {
        assert!(!reply.send_asset_at(&assets, "app")?);
        reply.send_asset_at(&assets, "/index.html").map(|found| assert!(found))
    });
    let server = start(site);
    assert_eq!(server.connect().get("/any/thing?").body_text(), "<h1>Home</h1>");
    end(server);
}

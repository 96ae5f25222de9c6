//! The loop over requests: they are taken one by one, and answered from any thread in any order.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use sanserve_std::{Exchange, Requests, ResponseHead, Server, Site, StatusCode};
use testkit::{Client, LogSink, Tree};

/// A test counts the threads of this process, so the tests run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(change: impl FnOnce(Site) -> Site) -> (Requests, LogSink) {
    let log = LogSink::default();
    let site = change(Site::without_files()).with_log(sanserve_server::Log::to(log.clone()));
    (Server::bind("127.0.0.1:0", site).unwrap().requests().unwrap(), log)
}

fn connect(requests: &Requests) -> Client {
    Client::connect(requests.local_addr())
}

fn send(client: &mut Client, request: &str) {
    client.send(request.replace('\n', "\r\n"));
}

const GET: &str = "GET /a?b HTTP/1.1\nHost: x\nAccept: text/plain\n\n";

#[test]
fn requests_are_answered_from_any_thread_in_any_order() {
    let _alone = alone();
    let (requests, _) = start(|site| site);
    let mut clients: Vec<_> = (0..8).map(|_| connect(&requests)).collect();
    clients.iter_mut().for_each(|client| send(client, GET));
    let mut taken: VecDeque<_> = (&requests).into_iter().take(8).collect();
    assert!(requests.try_recv().is_none());
    let request = &taken[0];
    assert_eq!((request.method(), request.path(), request.query()), (&b"GET"[..], &b"/a"[..], Some(&b"b"[..])));
    assert_eq!((request.target(), request.field("accept")), (&b"/a?b"[..], Some(&b"text/plain"[..])));
    thread::scope(|scope| {
        while let Some(request) = taken.pop_back() {
            scope.spawn(move || {
                let peer = request.peer().to_string();
                request.answer(StatusCode::OK, "text/plain", peer).unwrap();
            });
        }
    });
    for client in &mut clients {
        let response = client.response();
        assert_eq!((response.head.status, &response.body[..]), (200, &b"127.0.0.1"[..]));
        // The connection persists.
        send(client, GET);
    }
    for request in (&requests).into_iter().take(8) {
        request.error(StatusCode::NOT_FOUND, Some("Nothing")).unwrap();
    }
    assert!(clients.iter_mut().all(|client| client.response().head.status == 404));
    requests.shutdown().unwrap();
}

#[test]
fn bodies_are_streamed_in_both_directions() {
    let _alone = alone();
    let (requests, _) = start(|site| site);
    let mut client = connect(&requests);
    let mut twin = client.twin();
    send(&mut client, "POST / HTTP/1.1\nHost: x\nContent-Length: 300000\n\n");
    let sender = thread::spawn(move || twin.send(vec![b'x'; 300_000]));
    let mut request = requests.recv().unwrap();
    let mut body = Vec::new();
    assert_eq!(request.read_to_end(&mut body).unwrap(), 300_000);
    sender.join().unwrap();
    let mut writer = request.respond(StatusCode::OK).field("X-Test", "1").unwrap().writer().unwrap();
    writer.write_all(&body).unwrap();
    writer.flush().unwrap();
    writer.write_all(b"the end").unwrap();
    writer.finish().unwrap();
    let response = client.response();
    assert_eq!((response.body.len(), response.head.text("X-Test")), (300_007, Some("1")));

    send(&mut client, GET);
    let request = requests.recv().unwrap();
    let tree = Tree::new();
    tree.file("a.txt", "hello\n");
    let file = fs::File::open(tree.root().join("a.txt")).unwrap();
    request.respond(StatusCode::OK).file(file).unwrap();
    assert_eq!(client.response().body, b"hello\n");

    send(&mut client, GET);
    requests.recv().unwrap().respond(StatusCode::CREATED).body(vec![7; 200_000]).unwrap();
    let response = client.response();
    assert_eq!(
        (response.head.status, response.body.len(), response.head.text("Content-Length")),
        (201, 200_000, Some("200000"))
    );

    send(&mut client, GET);
    let count = requests.recv().unwrap().with_exchange(|x| {
        x.answer(StatusCode::OK, "text/plain", "from its own thread")?;
        Ok(x.request().fields().count())
    });
    assert_eq!(count.unwrap(), 2);
    assert_eq!(client.response().body, b"from its own thread");
}

#[test]
fn a_dropped_request_or_a_panic_is_a_500_and_the_server_continues() {
    let _alone = alone();
    let (requests, log) = start(|site| site);
    let mut client = connect(&requests);
    send(&mut client, GET);
    drop(requests.recv().unwrap());
    assert_eq!(client.response().head.status, 500);

    let mut client = connect(&requests);
    send(&mut client, GET);
    let request = requests.recv().unwrap();
    assert!(request.respond(StatusCode::OK).field("Content-Length", "5").is_err());
    assert_eq!(client.response().head.status, 500);

    let mut client = connect(&requests);
    send(&mut client, GET);
    let mut request = requests.recv().unwrap();
    let failed = request.with_exchange(|_| -> io::Result<()> { panic!("on purpose") });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(request.answer(StatusCode::OK, "text/plain", "").is_err());
    assert_eq!(client.response().head.status, 500);

    // A client that disconnects.
    let mut client = connect(&requests);
    send(&mut client, "POST / HTTP/1.1\nHost: x\nContent-Length: 10\n\nabc");
    let mut request = requests.recv().unwrap();
    client.reset();
    assert!(request.read_to_end(&mut Vec::new()).is_err());
    drop(request);

    // A writer whose thread panics cuts the connection.
    let mut client = connect(&requests);
    send(&mut client, GET);
    let request = requests.recv().unwrap();
    let panicked = thread::spawn(move || {
        let mut writer = request.respond(StatusCode::OK).writer().unwrap();
        writer.write_all(b"a part").unwrap();
        writer.flush().unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(client.head().status, 200);
    assert!(!String::from_utf8_lossy(&client.rest()).contains("0\r\n\r\n"), "the body does not look complete");

    // A call that fails in the middle of a body does as well, unless a later call completes the body.
    let half = |x: &mut Exchange<'_>| -> io::Result<()> {
        x.send_head(&ResponseHead::new(StatusCode::OK))?;
        x.write_all(b"a part")?;
        x.flush()?;
        Err(io::Error::other("on purpose"))
    };
    for is_completed in [false, true] {
        let mut client = connect(&requests);
        send(&mut client, GET);
        let mut request = requests.recv().unwrap();
        assert_eq!(request.with_exchange(half).unwrap_err().to_string(), "on purpose");
        if is_completed {
            request.with_exchange(|x| x.finish()).unwrap();
        }
        drop(request);
        assert_eq!(client.head().status, 200);
        client.half_close();
        assert_eq!(client.rest().ends_with(b"0\r\n\r\n"), is_completed);
    }

    let mut client = connect(&requests);
    send(&mut client, GET);
    requests.recv().unwrap().answer(StatusCode::OK, "text/plain", "still here").unwrap();
    assert_eq!(client.response().body, b"still here");
    requests.shutdown().unwrap();
    assert!(log.text().contains("the handler panicked: on purpose"), "{}", log.text());
}

#[test]
fn waiting_ends_when_it_is_unblocked_or_the_server_ends() {
    let _alone = alone();
    let (requests, _) = start(|site| site);
    assert!(requests.recv_timeout(Duration::from_millis(1)).is_none() && !requests.has_ended());
    requests.unblock();
    assert!(requests.recv().is_none());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| (&requests).into_iter().count())).collect();
        requests.handle().shutdown();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 0));
    });
    assert!(requests.has_ended() && requests.recv().is_none());
}

#[test]
fn a_shutdown_lets_taken_requests_finish_and_refuses_the_others() {
    let _alone = alone();
    let (requests, _) = start(|site| site);
    let (mut first, mut second) = (connect(&requests), connect(&requests));
    send(&mut first, GET);
    let request = requests.recv().unwrap();
    send(&mut second, GET);
    let is_queued = || requests.queued() == 1;
    while !is_queued() {
        thread::yield_now();
    }
    let (sender, begun) = mpsc::channel();
    let watch = requests.handle().draining().when_begun(move || sender.send(()).unwrap_or_default());
    let ends = thread::spawn(move || requests.shutdown());
    begun.recv().unwrap();
    assert_eq!(second.response().head.status, 503);
    request.answer(StatusCode::OK, "text/plain", "late").unwrap();
    let response = first.response();
    assert_eq!((&response.body[..], response.head.closes()), (&b"late"[..], true));
    ends.join().unwrap().unwrap();
    drop(watch);
}

#[test]
fn a_stop_ends_requests_that_no_one_answers() {
    let _alone = alone();
    // Only threads of the server are counted, since the test harness starts and ends threads as well.
    let threads = || {
        let all = fs::read_dir("/proc/self/task").unwrap();
        let names = all.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.starts_with("sanserve")).count()
    };
    let before = threads();
    let (requests, _) = start(|site| site);
    let mut clients: Vec<_> = (0..50).map(|_| connect(&requests)).collect();
    clients.iter_mut().for_each(|client| send(client, GET));
    let taken: Vec<_> = (&requests).into_iter().take(50).collect();
    requests.handle().stop();
    drop(requests);
    assert!(taken.into_iter().all(|request| request.answer(StatusCode::OK, "text/plain", "late").is_err()));
    for _ in 0..500 {
        if threads() <= before {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{before} threads before, {} after", threads());
}

#[test]
fn files_respond_to_declined_requests() {
    let _alone = alone();
    let tree = Tree::new();
    tree.file("a", "hello\n");
    let site = Site::new(tree.root()).unwrap().with_log(sanserve_server::Log::quiet());
    let requests = Server::bind("127.0.0.1:0", site).unwrap().requests().unwrap();
    let mut client = connect(&requests);
    send(&mut client, GET);
    requests.recv().unwrap().decline().unwrap();
    assert_eq!(client.response().body, b"hello\n");
}

#[test]
fn a_server_can_wait_for_one_request() {
    let _alone = alone();
    let server = || Server::bind("127.0.0.1:0", Site::without_files().with_log(sanserve_server::Log::quiet())).unwrap();
    let waits = server();
    let address = waits.local_addr();
    let browser = thread::spawn(move || {
        let _idle = Client::connect(address);
        let (mut icon, mut redirect) = (Client::connect(address), Client::connect(address));
        let other = icon.get("/favicon.ico").head.status;
        (other, redirect.get("/callback?code=x%20y").body)
    });
    let code = waits.wait_for_request(Duration::from_secs(600), |x| {
        if x.path() != b"/callback" {
            x.error(StatusCode::NOT_FOUND, None, None)?;
            return Ok(None);
        }
        let code = x.request().query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
        x.answer(StatusCode::OK, "text/plain", "You may close this window.\n")?;
        Ok(code)
    });
    assert_eq!(code.unwrap(), "x y");
    assert_eq!(browser.join().unwrap(), (404, b"You may close this window.\n".to_vec()));
    let late = server().wait_for_request(Duration::from_millis(1), |_| Ok(Some(())));
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// The figure in the documentation of `Requests`.
#[test]
#[cfg(target_os = "linux")]
fn a_thousand_unanswered_requests_take_bounded_memory() {
    let _alone = alone();
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let (requests, _) = start(|site| site);
    let before = resident();
    let mut clients: Vec<_> = (0..1_000).map(|_| connect(&requests)).collect();
    clients.iter_mut().for_each(|client| send(client, GET));
    let taken: Vec<_> = (&requests).into_iter().take(1_000).collect();
    let grown = resident() - before;
    assert!(grown < 60_000, "{grown} KiB for 1,000 requests");
    taken.into_iter().for_each(|request| request.answer(StatusCode::OK, "text/plain", "").unwrap());
    assert!(clients.iter_mut().all(|client| client.response().head.status == 200));
}

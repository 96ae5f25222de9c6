//! Uses `sanserve_testing` like an embedder: peers, all ways to split, worlds, and their reports about incorrect
//! handlers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use sanserve_core::{
    Call, Cgi, Close, Config, DefaultPolicy, ErrorPage, FsError, Handler, HandlerError, Limits, Misuse, Pace, Policy,
    Protocol, Received, Reply, Request, Route, SpawnError, StatusCode, Timeouts, write_error_page,
};
use sanserve_testing::{Answer, Disk, Faults, File, Node, Peer, Random, Script, Server, Summary, World, judge};
use sanserve_transcript::{Transcript, perform};

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

/// Reads a body, then returns it in upper case. `/late` waits for a waker first.
#[derive(Default)]
struct Shout {
    body: Vec<u8>,
    waker: Option<Waker>,
}

impl Handler for Shout {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Over => *self = Shout::default(),
            Call::Request if reply.request().path() == b"/late" => self.waker = Some(reply.waker()),
            Call::Wake if self.waker.take().is_some() => reply.answer(StatusCode::OK, "text/plain", "late").unwrap(),
            Call::Wake | Call::Drain => {}
            Call::Request | Call::Body | Call::Room => self.read(reply).unwrap(),
        }
        Ok(())
    }
}

impl Shout {
    fn read(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        loop {
            match reply.receive() {
                Received::Data(data) => {
                    let n = data.len();
                    self.body.extend(data.to_ascii_uppercase());
                    reply.consume(n);
                }
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => return reply.answer(StatusCode::OK, "text/plain", &self.body),
            }
        }
    }
}

fn post(body: &str) -> String {
    format!("POST /shout HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Requests for [`Shout`].
fn shouts(random: &mut Random) -> Vec<u8> {
    let size = usize::try_from(random.size(2_000)).unwrap();
    match random.below(4) {
        0 => b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        1 => {
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{size:x}\r\n{}\r\n0\r\n\r\n", "c".repeat(size)).into_bytes()
        }
        _ => post(&"b".repeat(size)).into_bytes(),
    }
}

fn disk() -> Disk {
    Disk::new()
        .file("a", "hello\n")
        .file("d/b.txt", "x".repeat(100))
        .file("index/index.html", "hi")
        .with("big", Node::File(File::new(1, 300_000)))
        .fails("denied", FsError::Denied)
        .fails("busy", FsError::Exhausted)
}

// One connection.

#[test]
fn slowloris() {
    let mut peer = Peer::new();
    for byte in b"GET / HTTP/1.1\r\nHost: example\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaa" {
        peer.send([*byte]).pass(1_000);
    }
    peer.expect_status(408).expect_closed();
}

#[test]
fn a_peer_controls_a_handler() {
    let mut peer = Server::new().handler(Shout::default).connect();
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    peer.expect("HTTP/1.1 100 Continue\r\n\r\n").expect_nothing().expect_step("call request");
    peer.drip("hello", 1_000).expect_answer(200, "HELLO").expect_step("call over").expect_open();
    peer.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n").pass(60_000).expect_nothing();
    peer.wake().expect_answer(200, "late").pass(14_999).expect_open().pass(1).expect_close(Close::Idle);
    assert_eq!(peer.log().iter().map(|done| done.status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(peer.now(), 80_000);
}

#[test]
fn a_kept_waker_wakes_the_handler() {
    let waker = std::cell::RefCell::new(None);
    let handler = |call: Call, reply: &mut Reply<'_>| {
        match call {
            Call::Request => *waker.borrow_mut() = Some(reply.waker()),
            Call::Wake => reply.answer(StatusCode::OK, "text/plain", "woken")?,
            _ => {}
        }
        Ok(())
    };
    let mut peer = Server::new().handler(|| handler).connect();
    peer.send(GET).expect_nothing();
    waker.take().unwrap().wake();
    peer.pass(1).expect_answer(200, "woken");
}

#[test]
fn a_peer_simulates_a_slow_disk_a_full_socket_and_a_shrinking_file() {
    let server = Server::new().disk(disk().slow("big", 300));
    let get = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut peer = server.connect();
    peer.send(get).expect_nothing().pass(299).expect_nothing().pass(1);
    let Ok(Node::File(file)) = disk().find(b"big").cloned() else { panic!() };
    let mut bytes = Vec::new();
    file.read(0, file.len, &mut bytes);
    peer.expect_answer(200, &bytes);

    let mut peer = server.connect();
    peer.stop_reading().read(1_000).send(get).pass(300).expect_step("send").pass(119_999).expect_open();
    peer.pass(1).expect_close(Close::Timeout);
    assert_eq!(peer.log()[0].cut.as_deref(), Some("the peer was too slow"));

    let mut peer = server.connect();
    peer.stop_reading().read(1_000).send(get).pass(300).shrink_file(500).read_on().expect_close(Close::Broken);
    assert!(!peer.answers()[0].complete);
}

#[test]
fn connections_end_for_the_expected_reasons() {
    let server = Server::new().disk(disk());
    server.connect().send(GET).eof().expect_status(200).expect_close(Close::Done);
    server.connect().send(GET).drain().expect_status(200).expect_close(Close::Drained);
    server.connect().send("GET /").cut().expect_nothing().expect_close(Close::Drained);
    server.connect().send("GET /").reset().expect_close(Close::Broken);
    server.connect().send("GET /").eof().expect_status(400).expect_closed();
    // What is sent after a reset is lost.
    server.connect().reset().send(GET).pass(5).expect_nothing();
    let mut peer = server.connect();
    peer.send("bad\r\n\r\n").expect_status(400).expect_step("shut").expect_open().pass(2_000);
    peer.expect_close(Close::Timeout);
}

#[test]
fn the_configuration_of_the_server_applies() {
    let config = Config::default().with_timeouts(Timeouts::default().with_keep_alive(Duration::from_millis(70)));
    Server::new().config(config.clone()).connect().pass(69).expect_open().pass(1).expect_close(Close::Idle);
    // A handler remains, even if the configuration is set later.
    let server = Server::new().handler(Shout::default).config(config);
    server.connect().send(post("x")).expect_answer(200, "X").pass(70).expect_closed();
}

#[test]
fn a_failed_expectation_shows_the_transcript() {
    let server = Server::new().disk(disk());
    let failing: [&dyn Fn(&mut Peer<'_>); 7] = [
        &|peer| _ = peer.expect_status(404),
        &|peer| _ = peer.expect_answer(200, "hello"),
        &|peer| _ = peer.expect("no such text"),
        &|peer| _ = peer.expect_nothing(),
        &|peer| _ = peer.expect_closed(),
        &|peer| _ = peer.expect_step("open b"),
        &|peer| _ = peer.eof().expect_open(),
    ];
    for (n, expects) in failing.iter().enumerate() {
        let mut peer = server.connect();
        peer.send(GET);
        let panic = catch_unwind(AssertUnwindSafe(|| expects(&mut peer))).expect_err("the expectation fails");
        let text = panic.downcast_ref::<String>().expect("a text");
        let (what, transcript) = text.split_once("\n\n").expect("both");
        assert!(what.starts_with("expected"), "{n}: {what}");
        assert_eq!(Transcript::parse(transcript).unwrap(), peer.transcript(), "{n}");
    }
}

#[test]
fn the_transcript_of_a_peer_replays_identically() {
    let server = Server::new().handler(Shout::default).disk(disk());
    let mut peer = server.connect();
    peer.send(post("one")).dribble(7).drip(post("two"), 10).stop_reading().read(20).send(post("three")).pass(50);
    peer.read_on().send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n").pass(9).wake().pass(20_000).expect_closed();
    let transcript = Transcript::parse(&peer.transcript().to_text()).expect("a written transcript can be parsed");
    assert_eq!(perform(&transcript, &sanserve_core::DefaultPolicy, &mut Shout::default()), transcript);
    assert_eq!(server.replay(&transcript).unwrap(), transcript);
    assert_eq!(judge(&transcript), Ok(()));
}

// Every way to split.

#[test]
fn splitting_does_not_change_the_outcome() {
    let server = Server::new().handler(Shout::default);
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    server.everywhere(format!("{}{chunked}bad\r\n", post("hi"))).expect_answer(200, "HI").expect_answer(200, "ABCDE");
    Server::new().disk(disk()).everywhere(format!("{GET}HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n{GET}"));
}

#[test]
fn a_handler_that_assumes_a_complete_body_is_found() {
    /// Assumes that the body has arrived completely.
    fn hasty(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if call == Call::Request {
            let body = if let Received::Data(data) = reply.receive() { data.to_vec() } else { Vec::new() };
            reply.answer(StatusCode::OK, "text/plain", body)?;
        }
        Ok(())
    }
    let panic = catch_unwind(|| Server::new().handler(|| hasty).everywhere(post("hello"))).err().expect("it differs");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert!(
        text.starts_with("cut ") && text.contains("as a whole") && text.contains("sanserve transcript 1"),
        "{text}"
    );
}

// Worlds.

#[test]
fn a_world_without_faults_succeeds() {
    let world = || World::new(3).faults(Faults::none()).disk(disk()).connections(50);
    let summary = world().run();
    assert_eq!(summary, world().run());
    assert!(summary.requests > 100 && summary.connections == 50, "{summary}");
    let is_quiet = summary.timeouts.keys().all(|timer| timer.name() == "keep-alive");
    assert!(is_quiet && !summary.statuses.contains_key(&408) && !summary.closes.contains_key("broken"), "{summary}");
    assert_ne!(summary.hash, World::new(4).faults(Faults::none()).disk(disk()).connections(50).run().hash);
}

#[test]
fn every_fault_has_an_effect() {
    let live = |faults| World::new(5).faults(faults).disk(disk()).connections(150).run();
    let none = live(Faults::none());
    let names = |summary: &Summary| summary.timeouts.keys().map(|timer| timer.name()).collect::<Vec<_>>();
    assert!(live(Faults::RESET).closes.contains_key("broken"));
    assert_eq!(names(&live(Faults::SLOW)), ["keep-alive", "head", "body", "write", "linger"]);
    assert!(live(Faults::SPLIT).events > 2 * none.events);
    assert!(live(Faults::HALF_CLOSE | Faults::SPLIT).statuses.contains_key(&400));
    let shrunk = live(Faults::SHRINK_FILE | Faults::SPLIT);
    assert!(shrunk.closes.contains_key("broken") && !none.closes.contains_key("broken"), "{shrunk}");
    assert_ne!(live(Faults::PIPELINE).hash, none.hash);
}

#[test]
fn a_correct_handler_passes_many_worlds() {
    for seed in 0..10 {
        let summary = World::new(seed).handler(Shout::default).requests(shouts).connections(30).run();
        assert!(summary.requests > 10, "{summary}");
    }
}

/// Other versions, small limits, and short timeouts.
#[test]
fn worlds_with_other_configurations_succeed() {
    let limits = Limits::default().with_body(900).with_drain(50).with_output(700).with_head(300).with_linger(40);
    let pace = Pace::new(Duration::from_millis(700), Duration::from_millis(1500), 100);
    let hasty = Timeouts::default()
        .with_head(Duration::from_millis(900))
        .with_keep_alive(Duration::from_millis(40))
        .with_body(pace)
        .with_write(pace)
        .with_linger(Duration::from_millis(600));
    let rules = [
        Config::default().with_protocol(Protocol::Http10),
        Config::default().with_limits(limits.clone()),
        Config::default().with_timeouts(hasty.clone()),
        Config::default().with_protocol(Protocol::Http10).with_limits(limits).with_timeouts(hasty),
    ];
    let requests = |random: &mut Random| match random.below(3) {
        0 => b"GET /big HTTP/1.1\r\nHost: x\r\nRange: bytes=1-9,20-2000\r\n\r\n".to_vec(),
        1 => b"GET /d/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        _ => shouts(random),
    };
    for config in rules {
        for seed in 0..5 {
            let world = World::new(seed).policy(Both).handler(Shout::default).disk(disk()).requests(requests);
            let summary = world.config(config.clone()).connections(50).run();
            assert!(summary.requests > 30 && summary.timeouts.len() > 2, "{summary}");
        }
    }
}

/// A custom policy in a world.
struct Both;

impl Policy for Both {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.method() == b"POST" { Route::Handler } else { Route::Files }
    }
}

/// A slow disk only delays the connection that waits for it. A driver that blocks on the disk is found.
#[test]
fn a_slow_disk_does_not_delay_other_connections() {
    let live = |seed| World::new(seed).faults(Faults::SLOW_DISK | Faults::PIPELINE).lasting(30_000).connections(30);
    let read_first = std::cell::Cell::new(0);
    let count = |transcript: &Transcript| {
        read_first.set(read_first.get() + transcript.to_text().matches(" pending\n").count());
        Ok(())
    };
    for seed in 0..20 {
        let summary = live(seed).serving(Server::new().disk(disk()).rule(count)).run();
        let fired = |name| summary.timeouts.iter().any(|(timer, times)| timer.name() == name && *times > 0);
        assert!(!["head", "body", "write"].into_iter().any(fired), "a client is blamed for the disk: {summary}");
    }
    assert!(read_first.get() > 100, "{} parts of files were read first", read_first.get());
    let failure = live(1).disk(disk()).waiting_for_disk().try_run().expect_err("other connections wait");
    assert!(failure.what.starts_with("turn: it waits "), "{failure}");
}

/// The judge reports a connection that does not wait for its file, or that blames its client for the time.
#[test]
fn a_connection_waits_while_its_file_is_read() {
    let start = "sanserve transcript 1\n@0 wait read until 15000 idle\n@0 recv\n    \"GET /a HTTP/1.1\\r\\n\"\n    \
                 \"Host: x\\r\\n\"\n    \"\\r\\n\"\n@0 open a -> file 9\n@0 send \"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n\"\n    \
                 file 0+9\n    -> 0 pending\n";
    let end = "@0 send \"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n\"\n    file 0+9\n";
    for (then, verdict) in [
        ("@0 wait completion\n", None),
        ("@0 wait completion\n@9000000 file-ready\n", None),
        ("@0 wait read until 5\n", Some("need: not what is in progress")),
        ("@0 wait completion until 30000\n", Some("disk: a timer runs while it only waits for the disk")),
        (end, Some("disk: a part of the file is sent while it is being read")),
        ("@0 wait completion\n@0 cut\n@0 wait completion\n", Some("open: open after the end")),
    ] {
        let transcript = Transcript::parse(&format!("{start}{then}")).unwrap();
        let found = judge(&transcript).err();
        let is_right = match (&found, verdict) {
            (Some(found), Some(verdict)) => found.starts_with(verdict),
            (found, verdict) => found.is_none() && verdict.is_none(),
        };
        assert!(is_right, "{then}: {found:?}, expected {verdict:?}");
    }
}

/// The same seed gives the same history on every machine, and so the same hash. If the core, its pages or the worlds
/// change on purpose, the hashes change: take the new ones from the failure of this test, and explain the change in the
/// commit message.
#[test]
fn the_hashes_of_histories_do_not_change() {
    let quick_disk =
        Faults::SPLIT | Faults::SLOW | Faults::RESET | Faults::HALF_CLOSE | Faults::PIPELINE | Faults::SHRINK_FILE;
    for (faults, seed, hash) in [
        (quick_disk, 1, "4f4898973fe50e4590c72a93cbebc379"),
        (quick_disk, 2, "5a0432b7c92624d8d7568e866bd249e0"),
        (Faults::all(), 1, "3bd4f1b4233f09f8c18e8c6d34e1c88b"),
        (Faults::all(), 2, "189acbbd562bffafea29d7abd394a4cd"),
    ] {
        let requests = |random: &mut Random| if random.one_in(2) { shouts(random) } else { GET.into() };
        let world =
            World::new(seed).policy(Both).handler(Shout::default).disk(disk()).requests(requests).faults(faults);
        let summary = world.connections(40).lasting(3_600_000).run();
        assert_eq!(summary.hash.to_string(), hash, "{faults}, seed {seed}\n{summary}");
    }
}

/// A custom rule is checked for every connection, and a history that breaks it is minimized.
#[test]
fn a_custom_rule_is_checked() {
    let has_secret = |transcript: &Transcript| {
        let found = transcript.events().any(|event| event.to_string().contains("finished 200 6 \"GET /secret"));
        if found { Err("the secret was served".to_owned()) } else { Ok(()) }
    };
    let disk = Disk::new().file("a", "hello\n").file("secret", "xyzzy\n");
    let world = |rule: fn(&Transcript) -> Result<(), String>| {
        World::new(3).faults(Faults::none()).disk(disk.clone()).serving(Server::new().disk(disk.clone()).rule(rule))
    };
    assert!(world(|_| Ok(())).try_run().is_ok());
    let failure = world(has_secret).try_run().unwrap_err();
    assert_eq!((failure.what.as_str(), failure.is_alone), ("rule: the secret was served", true), "{failure}");
    let sent = |event: &&sanserve_transcript::Event| matches!(event.what, sanserve_transcript::What::Recv(_));
    assert_eq!(failure.transcript.events().filter(sent).count(), 1, "{failure}");
}

/// Scripts that read, print, pause, hang, or do not exist.
fn scripted() -> Server<'static> {
    let disk = Disk::new()
        .script("cgi-bin/hello", Script::printing("Content-Type: text/plain\n\nhello"))
        .script("cgi-bin/echo", Script::printing("X-Script: yes\n\n").echoing().slowly(700, 20))
        .script("cgi-bin/deaf", Script::printing("Content-Length: 2\n\nno").deaf())
        .script("cgi-bin/hangs", Script::printing("X-Script: yes\n\nsome").hanging())
        .script("cgi-bin/moves", Script::printing("Location: /cgi-bin/hello\n\n"))
        .script("cgi-bin/odd", Script::printing(""))
        .script("cgi-bin/busy", Script::refused(SpawnError::Busy))
        .file("cgi-bin/plain", "no script")
        .file("a", "a file");
    let timeouts = Timeouts::default().with_script(Duration::from_secs(5));
    Server::new().disk(disk).config(Config::default().with_cgi(Cgi::python()).with_timeouts(timeouts))
}

#[test]
fn a_peer_gets_responses_of_scripts() {
    let get = |name: &str| format!("GET /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut peer = scripted().connect();
    peer.send(get("hello")).expect_answer(200, "hello");
    peer.send("POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1400\r\n\r\n");
    peer.send("a".repeat(1_400)).expect_nothing().pass(100).expect_answer(200, "a".repeat(1_400));
    peer.send("POST /cgi-bin/deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").expect_answer(200, "no");
    peer.send(get("moves")).expect_answer(200, "hello");
    peer.send(get("none")).expect_status(404);
    peer.send(get("plain")).expect_status(403);
    peer.send(get("busy")).expect_status(503);
    peer.send(get("odd")).expect_status(502);
    peer.send(get("hangs")).expect("some").pass(5_000).expect_step("kill").expect_closed();
    let played = scripted().replay(&peer.transcript()).unwrap();
    assert_eq!(played, peer.transcript());
    let slow = "POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\necho\r\n0\r\n\r\n";
    scripted().connect().send(slow).pass(1_000).expect_answer(200, "echo").expect_open();
    scripted().everywhere(get("hello")).expect_answer(200, "hello").expect_nothing();
}

/// Worlds have scripts, too, which are fed in pieces, print in pieces, are cut and terminated.
#[test]
fn worlds_run_scripts() {
    let requests = |random: &mut Random| {
        let name = *random.pick(&["hello", "echo", "echo", "deaf", "hangs", "moves", "odd", "busy", "none", "plain"]);
        let size = random.size(30_000);
        match random.below(3) {
            0 => format!("GET /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            1 => {
                let body = vec![*random.pick(b"abc"); usize::try_from(size).unwrap()];
                let head = format!("POST /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
                [head.as_bytes(), &body].concat()
            }
            _ => {
                let body = vec![*random.pick(b"abc"); usize::try_from(size).unwrap()];
                let head = format!("POST /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
                [head.as_bytes(), format!("{size:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
            }
        }
    };
    let mut statuses = std::collections::BTreeMap::new();
    for seed in 0..20 {
        let world = World::new(seed).serving(scripted()).requests(requests).connections(20);
        let summary = world.run();
        for (status, count) in summary.statuses {
            *statuses.entry(status).or_insert(0) += count;
        }
    }
    for status in [200, 403, 404, 502, 503] {
        assert!(statuses.get(&status).is_some_and(|count| *count > 20), "{status}: {statuses:?}");
    }
}

/// A large response is completed, however little the socket accepts at a time, and so is its transcript.
#[test]
fn a_turn_may_be_as_long_as_its_response() {
    let server = Server::new().disk(Disk::new().with("big", Node::File(File::new(1, 101_000))));
    let mut peer = server.connect();
    peer.dribble(1).send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n").expect_status(200);
    let transcript = peer.transcript();
    assert!(transcript.events().count() > 101_000);
    assert_eq!(server.replay(&transcript).unwrap(), transcript);
    assert_eq!(
        perform(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())).lines.len(),
        transcript.lines.len()
    );
}

/// Runs worlds until one fails, with at most 100 seeds.
fn fails<H: Handler>(make: impl Fn() -> H + Copy) -> (u64, sanserve_testing::Failure) {
    let world = |seed| World::new(seed).handler(make).requests(shouts).connections(10);
    let found = (0..100).find_map(|seed| Some((seed, world(seed).try_run().err()?)));
    let (seed, failure) = found.expect("a world that shows it");
    assert_eq!(failure.seed, Some(seed));
    (seed, *failure)
}

/// Checks that a failure can be parsed, is short, and fails in the same way when it is replayed.
fn check_failure<H: Handler>(failure: &sanserve_testing::Failure, make: impl Fn() -> H + Copy) {
    let text = failure.to_string();
    let (what, transcript) = text.split_once("\n\n").expect("both");
    assert!(what.contains("seed ") && what.contains(&failure.what), "{what}");
    let transcript = Transcript::parse(transcript).expect("a written transcript can be parsed");
    assert_eq!(transcript, failure.transcript);
    assert!(failure.is_alone && transcript.lines.len() <= 10, "{text}");
    let again = Server::new().handler(make).replay(&transcript).expect_err("it fails again");
    assert_eq!((again.what, again.transcript.lines), (failure.what.clone(), transcript.lines));
}

#[test]
fn a_handler_that_panics_is_found() {
    let make = || {
        |call: Call, reply: &mut Reply<'_>| {
            if call == Call::Request {
                let here = if let Received::Data(data) = reply.receive() { data.len() } else { 0 };
                assert_ne!(here, 1, "a body of one byte");
                reply.answer(StatusCode::OK, "text/plain", "")?;
            }
            Ok(())
        }
    };
    let (_, failure) = fails(make);
    assert!(failure.what.contains("a body of one byte"), "{failure}");
    check_failure(&failure, make);
}

#[test]
fn a_handler_that_never_responds_is_found() {
    let make = || {
        |call: Call, reply: &mut Reply<'_>| {
            if call == Call::Request && reply.request().path() != b"/late" {
                reply.answer(StatusCode::OK, "text/plain", "")?;
            }
            Ok(())
        }
    };
    let (_, failure) = fails(make);
    assert!(failure.what.starts_with("handler: it has not finished"), "{failure}");
    check_failure(&failure, make);
}

#[test]
fn a_handler_that_depends_on_more_than_the_seed_is_reported() {
    let calls = std::cell::Cell::new(0);
    let make = || {
        |call: Call, reply: &mut Reply<'_>| {
            if call == Call::Request {
                calls.set(calls.get() + 1);
                assert_ne!(calls.get(), 20, "the twentieth");
                reply.answer(StatusCode::OK, "text/plain", "")?;
            }
            Ok(())
        }
    };
    let failure = World::new(1).handler(make).requests(shouts).try_run().expect_err("the twentieth");
    assert!(failure.what.contains("the twentieth") && failure.what.contains("more than the seed"), "{failure}");
    assert!(!failure.is_alone && Transcript::parse(&failure.transcript.to_text()).is_ok());
}

/// A recording has what a hand-written transcript seldom has: time that advances within a turn, and a calendar that is
/// not in step. A server under test replays it like `perform`.
#[test]
fn a_recording_is_replayed_as_recorded() {
    let text = "sanserve transcript 1\n@1 + tick\n@1 wait read until 15000 idle\n@300 clock 784111778\n@300 + recv\n    \
                \"GET /a HTTP/1.1\\r\\n\"\n    \"Host: x\\r\\n\"\n    \"\\r\\n\"\n@300 open a -> denied\n@302 + tick\n";
    let transcript = Transcript::parse(text).unwrap();
    let performed = perform(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()));
    let played = Server::new().replay(&transcript).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(played.to_text(), performed.to_text());
    assert!(performed.to_text().contains("08:49:38 GMT") && performed.to_text().contains("@302 send"));
}

/// The last response that a peer has received.
fn last(peer: &mut Peer<'_>) -> Answer {
    peer.answers().pop().expect("a response")
}

/// Its body.
fn page(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("a text")
}

/// An error of a handler is a status, before and after it has begun to respond.
#[test]
fn an_error_of_the_handler_is_a_status() {
    let make = || {
        |call: Call, reply: &mut Reply<'_>| {
            if call == Call::Request {
                if reply.request().path() == b"/begun" {
                    reply.respond(StatusCode::OK)?.field("X-A", "b")?.send()?;
                    reply.write(b"begun")?;
                }
                return Err(HandlerError::new(StatusCode::CONFLICT)
                    .with_field("X-Why", "taken")?
                    .with_message("Taken"));
            }
            Ok(())
        }
    };
    let mut peer = Server::new().handler(make).connect();
    let asked = "GET /new HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..2 {
        let answer = last(peer.send(asked));
        assert_eq!((answer.status, answer.text("X-Why"), answer.closes()), (409, "taken", false));
        assert!(page(&answer).contains("<p>Message: Taken.</p>"), "{}", page(&answer));
    }
    let answer = last(peer.send("GET /begun HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!((answer.status, answer.text("X-Why"), answer.closes()), (409, "taken", true));
    assert_eq!(answer.field("X-A"), None, "nothing of the first head is left");
}

/// The page of an error, and its type, may depend on the request.
#[test]
fn error_pages_see_the_request() {
    struct Json;
    fn wants(request: Option<&Request<'_>>) -> bool {
        request.and_then(|request| request.field("Accept")) == Some(b"application/json")
    }
    impl Policy for Json {
        fn error_page(&self, page: &ErrorPage<'_>, out: &mut Vec<u8>) {
            if wants(page.request.as_ref()) {
                out.extend_from_slice(format!("{{\"status\":{}}}", page.status.code()).as_bytes());
            } else {
                write_error_page(page, out);
            }
        }

        fn error_type(&self, request: Option<&Request<'_>>) -> &str {
            if wants(request) { "application/json" } else { "text/html" }
        }
    }
    let ask = |request: &str| last(Server::new().policy(Json).connect().send(request));
    let json = ask("GET /none HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    assert_eq!((page(&json), json.text("Content-Type")), ("{\"status\":404}", "application/json"));
    for request in ["GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/9\r\nAccept: application/json\r\n\r\n"] {
        let html = ask(request);
        assert_eq!(html.text("Content-Type"), "text/html", "{request}");
        assert!(page(&html).starts_with("<!DOCTYPE"), "{request}");
    }
}

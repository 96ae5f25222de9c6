//! Recordings: whatever happens to a connection, a recording of it replays identically, with or without masked
//! credentials.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test has a console, files and an environment"
)]

mod corpus;
mod world;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use sanserve_core::{
    Buffers, Cgi, Config, Connection, Context, Fault, FsError, Input, Now, Peer, Policy, Request, Route, Step, Tick,
    Wall,
};
use sanserve_transcript::{Event, Recorder, Secrets, Settings, Transcript, What, check, record};
use world::disk::{self, START};
use world::handlers::{Echo, Routed};
use world::random::Random;
use world::rig::{At, Op, Rig, small_limits};

/// The number of connections.
const SEEDS: u64 = 600;

struct Tape(Sender<Event>);

impl Recorder for Tape {
    fn event(&mut self, event: Event) {
        self.0.send(event).expect("the receiver exists");
    }
}

/// Creates a rig whose connection is recorded from its first poll.
fn recorded(config: Config, secrets: Secrets, starts: u64) -> (Rig, Receiver<Event>) {
    let mut rig = Rig::new(config, disk::small());
    rig.set_time(starts);
    let cx = Context { config: &rig.config, policy: &Routed, now: &rig.now };
    let (sender, events) = channel();
    rig.connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
    record(&mut rig.connection, Box::new(Tape(sender)), secrets, &cx);
    rig.turn();
    (rig, events)
}

/// The recording of a rig that has ended.
fn transcript(rig: Rig, events: Receiver<Event>, secrets: Secrets, starts: u64) -> Transcript {
    let wall = Wall(START + i64::try_from(starts / 1000).expect("a short time"));
    let masked = secrets == Secrets::Masked;
    let now = Now::new(Tick(starts), wall);
    let settings = Settings::default().starting(&now).with_config(rig.config.clone()).with_masked(masked);
    drop(rig);
    let mut transcript = Transcript { settings, ..Transcript::default() };
    events.into_iter().for_each(|event| transcript.push(event));
    transcript
}

/// A random operation.
fn op(random: &mut Random) -> Op {
    let requests = [
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /d/ HTTP/1.1\r\nHost: x\r\nCookie: a=1; b=2\r\nAuthorization: Basic QWxhZGRpbjpvcGVu\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2,5-\r\n\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nin the body\r\nCookie: c=ookie\r\n.",
        "POST /h/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\nCook\r\n5\r\nie: x\r\n0\r\n\r\n",
        "GET /h/late HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /h/big HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer abc\r\n\r\n",
        "GET /cgi-bin/good HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nCookie: b\r\nAuthorization: Basic YTpi\r\n\r\n",
        "POST /cgi-bin/good HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n\r\nCookie: seven\r\n",
        "POST /cgi-bin/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\nCoo\r\n7\r\nkie: s!\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nCookie : bad\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nCookie: a\x01b\r\n folded\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: a\nX: y\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
        "\r\nGARBAGE\r\n\r\n",
    ];
    match random.below(22) {
        0..=4 => {
            let text = random.pick(&requests).as_bytes();
            let end = if random.one_in(3) {
                usize::try_from(random.size(text.len() as u64)).expect("memory")
            } else {
                text.len()
            };
            Op::Recv(text[..end].to_vec())
        }
        5..=7 => Op::Take(random.size(40_000)),
        8 => Op::Blocked,
        9 => random.pick(&[Op::Writable, Op::Pending, Op::Ready]).clone(),
        10 | 11 => Op::Complete,
        12 => Op::Pass(random.size(4_000)),
        13 => Op::Wake,
        14 => Op::Script(
            random
                .pick(&[&b"X-Script: y\n\nSet-Cookie: b\n"[..], b"Set-Cookie: a=b\n", b"Location: /a\n\n", b"\nrest"])
                .to_vec(),
        ),
        15 => random.pick(&[Op::Fed(5), Op::Fed(u64::MAX), Op::FeedBlocked, Op::Feedable, Op::ScriptEof]).clone(),
        16 => random.pick(&[Op::Stale, Op::Hold, Op::Directory, Op::Eof]).clone(),
        17 => Op::Both(Box::new((Op::Take(random.size(9)), random.pick(&[Op::Eof, Op::Blocked, Op::Drain]).clone()))),
        18 if random.one_in(5) => Op::Due(random.below(3)),
        19 if random.one_in(9) => Op::Broken(*random.pick(&[Fault::Peer, Fault::Handler, Fault::FileChanged])),
        20 if random.one_in(9) => random.pick(&[Op::Drain, Op::Cut, Op::FeedEnd]).clone(),
        21 if random.one_in(5) => Op::Fail(*random.pick(&[FsError::NotFound, FsError::Denied, FsError::Exhausted])),
        _ => Op::Complete,
    }
}

#[test]
fn recordings_replay_identically() {
    let mut verbs = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let secrets = *random.pick(&[Secrets::Masked, Secrets::Kept]);
        let config = Config::default().with_limits(small_limits()).with_cgi(Cgi::python());
        let starts = random.below(5_000);
        let (mut rig, events) = recorded(config, secrets, starts);
        rig.swaps = random.one_in(2);
        rig.trouble.any = true;
        for _ in 0..random.within(5, 60) {
            rig.apply(&op(&mut random));
        }
        if !matches!(rig.at, At::Close(_)) {
            rig.outlast();
        }
        let recorded = transcript(rig, events, secrets, starts);
        let text = recorded.to_text();
        let read = Transcript::parse(&text).expect("a written transcript can be parsed");
        assert_eq!(read, recorded, "seed {seed}");
        check(&read, &Routed, &mut Echo::default()).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        for line in text.lines().filter(|line| line.starts_with('@')) {
            let verb = line.split(' ').find(|word| !word.starts_with(['@', '+'])).expect("a verb");
            *verbs.entry(verb.to_owned()).or_insert(0) += 1;
        }
    }
    println!("{verbs:?}");
    let known = "recv eof tick blocked writable wake drain cut script script-eof fed feedable open open-in list find spool \
        spawn feed end-input kill send call finished wait shut close";
    // `fed` is the result of a `feed`, and is always written on the same line.
    for verb in known.split(' ').filter(|verb| *verb != "fed") {
        assert!(verbs.contains_key(verb), "{verb} never happened");
    }
}

/// A transcript that is recorded while it is replayed contains the same steps.
#[test]
fn a_recording_of_a_transcript_has_the_same_steps() {
    let mut count = 0;
    for case in corpus::load() {
        let Some(mut transcript) = case.play() else { continue };
        count += 1;
        let (policy, mut handler) = corpus::world(&transcript.settings.site);
        transcript.settings.masked = true;
        let masked = sanserve_transcript::perform(&transcript, &*policy, &mut *handler);
        let (policy, mut handler) = corpus::world(&transcript.settings.site);
        check(&masked, &*policy, &mut *handler).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let secret = |text: &str| text.contains("Authorization: B") || text.contains("Set-Cookie: a");
        let says = |event: &&Event| matches!(&event.what, What::Send(sending) if secret(&String::from_utf8_lossy(&sending.head)));
        assert_eq!(masked.events().find(says), None, "{}", case.name);
    }
    assert!(count > 100, "{count} transcripts");
}

/// A driver may poll a connection at any time: a poll that returns the same wait again is not recorded.
#[test]
fn polls_without_news_are_not_recorded() {
    let config = Config::default();
    let mut now = Now::new(Tick(0), Wall(START));
    let (sender, events) = channel();
    let mut buf = Buffers::new();
    let cx = Context { config: &config, policy: &Routed, now: &now };
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
    record(&mut connection, Box::new(Tape(sender)), Secrets::Kept, &cx);
    for at in [0, 100, 100, 1_500, 14_998] {
        now.advance(Tick(at), Wall(START + i64::try_from(at / 1000).expect("a short time")));
        let cx = Context { config: &config, policy: &Routed, now: &now };
        assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(_)));
    }
    connection.handle(Input::Eof);
    now.advance(Tick(14_999), Wall(START + 14));
    let cx = Context { config: &config, policy: &Routed, now: &now };
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Close(_)));
    drop(connection);
    let lines: Vec<String> = events.into_iter().map(|event| event.to_string()).collect();
    assert_eq!(lines, ["@0 wait read until 15000 idle", "@14999 eof", "@14999 close done"]);
}

/// The cause of a panic of the core is the last event of the recording.
#[test]
fn a_panic_is_recorded_up_to_its_cause() {
    struct Panics;

    impl Policy for Panics {
        fn route(&self, _: &Request<'_>) -> Route {
            panic!("a bug");
        }
    }

    let (config, now) = (Config::default(), Now::new(Tick(0), Wall(START)));
    let cx = Context { config: &config, policy: &Panics, now: &now };
    let (sender, events) = channel();
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
    record(&mut connection, Box::new(Tape(sender)), Secrets::Masked, &cx);
    let mut buf = Buffers::new();
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(_)));
    buf.input.fill(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let polled = catch_unwind(AssertUnwindSafe(|| drop(connection.poll(&mut buf, &cx))));
    assert!(polled.is_err());
    drop(connection);
    let lines: Vec<String> = events.into_iter().map(|event| event.to_string()).collect();
    assert_eq!(lines[0], "@0 wait read until 15000 idle");
    assert!(lines[1].starts_with("@0 recv\n    \"GET / HTTP/1.1") && lines.len() == 2, "{lines:?}");
}

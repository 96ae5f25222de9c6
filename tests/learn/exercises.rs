//! The checks of the course's exercises. Each is there twice: as given, which must fail, so that there is something
//! to find, and solved. With `LEARN=mine`, the reader's solution must pass.

#[path = "../../docs/learn/exercises/2_edges.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod edges;
#[path = "../../docs/learn/solutions/2_edges.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod edges_solved;
#[path = "../../docs/learn/exercises/6_runtime.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
pub(crate) mod runtime;
#[path = "../../docs/learn/solutions/6_runtime.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own")]
pub(crate) mod runtime_solved;
#[path = "../../docs/learn/exercises/1_sleeper.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod sleeper;
#[path = "../../docs/learn/solutions/1_sleeper.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod sleeper_solved;
#[path = "../../docs/learn/exercises/4_stream.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod stream;
#[path = "../../docs/learn/solutions/4_stream.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod stream_solved;
#[path = "../../docs/learn/exercises/5_timeout.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod timeout;
#[path = "../../docs/learn/solutions/5_timeout.rs"]
#[allow(unreachable_pub, reason = "it is a program of its own")]
mod timeout_solved;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sanserve_core::{Call, Config, Connection, Context, DefaultPolicy, Handler, Now, Peer, Reply, Tick, Wall};
use sanserve_server::{Log, Site};
use sanserve_testing::Server as Bench;
use sanserve_transcript::{Transcript, check};

use testkit::Client;
use testkit::tree::Tree;

/// The exercise must fail, and the solution pass; or the solution of the reader.
fn judge(given: fn(), solved: fn()) {
    if std::env::var_os("LEARN").is_some_and(|whose| whose == "mine") {
        return given();
    }
    solved();
    assert!(catch_unwind(given).is_err(), "the exercise already passes");
}

/// A slow job does not delay other clients.
#[test]
fn exercise_1() {
    fn serves_others(site: fn(sleeper::Work) -> Site) {
        let ((open, gate), (begin, begun)) = (mpsc::channel(), mpsc::channel());
        let gate = Mutex::new(gate);
        // Only the job itself can produce this text.
        let secret = format!("{:?} {}", thread::current().id(), std::process::id());
        let known = secret.clone();
        let site = site(Arc::new(move || {
            begin.send(()).expect("the test waits for this");
            let opened = gate.lock().expect("one at a time").recv_timeout(Duration::from_secs(3));
            format!(
                "{}, says {known}\n",
                if opened.is_ok() { "the others were served" } else { "no one else was served" }
            )
        }));
        let site = site.with_log(Log::quiet());
        let server = sanserve_mio::Server::bind((Ipv4Addr::LOCALHOST, 0), site);
        let server = server.expect("a port").workers(1);
        let (address, handle) = (server.local_addr(), server.handle());
        let serving = thread::spawn(move || server.run());
        let (mut slow, mut quick) = (Client::connect(address), Client::connect(address));
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        begun.recv_timeout(Duration::from_secs(10)).expect("the job begins");
        let answer = quick.get("/");
        // It may be too late for that: then the job did not run at all.
        let _ = open.send(());
        let worked = slow.response();
        handle.stop();
        serving.join().expect("no panic").expect("the server ends without an error");
        assert_eq!(answer.body_text(), "at once\n");
        let (said, who) = worked.body_text().trim_end().split_once(", says ").expect("the result of the job");
        assert_eq!(said, "the others were served", "other clients during the job");
        assert_eq!(who, secret, "the response is the result of the job");
    }
    judge(|| serves_others(sleeper::site), || serves_others(sleeper_solved::site));
}

/// A socket with many bytes to read, and one edge for all of them.
struct Socket {
    unread: VecDeque<u8>,
    ended: bool,
    /// It has returned `WouldBlock`, and there was no edge since.
    empty: bool,
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!self.empty, "it was read again after WouldBlock, although nothing had arrived");
        // At most this much at a time, however large the window is.
        let n = into.len().min(1_000);
        match self.unread.read(&mut into[..n])? {
            0 if n > 0 && !self.ended => {
                self.empty = true;
                Err(ErrorKind::WouldBlock.into())
            }
            n => Ok(n),
        }
    }
}

macro_rules! answers_all {
    ($edges:ident) => {{
        let (config, now) = (Config::default().with_handled(true), Now::new(Tick(0), Wall(784_111_777)));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let peer = Peer::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)));
        let mut line = $edges::Line::new(Connection::new(peer, &cx));
        let mut socket = Socket { unread: VecDeque::new(), ended: false, empty: false };
        let answers = |line: &$edges::Line| {
            let heads = line.sent.windows(15).filter(|part| part == b"HTTP/1.1 200 OK").count();
            assert_eq!(
                line.sent.windows(7).filter(|part| part == b"\nhello\n").count(),
                heads,
                "not only complete responses"
            );
            heads
        };
        let mut asked = 0;
        for requests in [100, 1, 3_000, 7] {
            asked += requests;
            (socket.unread, socket.empty) = (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(requests).into(), false);
            line.edge(&mut socket, &cx).expect("nothing fails");
            assert_eq!(answers(&line), asked, "responses to {asked} requests, after one edge");
            assert!(!line.closed, "the connection was closed too early");
        }
        (socket.ended, socket.empty) = (true, false);
        line.edge(&mut socket, &cx).expect("nothing fails");
        assert!(line.closed && answers(&line) == asked, "the end is an edge too");
    }};
}

/// One edge announces everything that has arrived.
#[test]
fn exercise_2() {
    judge(|| answers_all!(edges), || answers_all!(edges_solved));
}

/// The transcript is what happens.
#[test]
fn exercise_3() {
    const GIVEN: &str = "sanserve transcript 1
@5 recv
    \"GET /a.txt HTTP/1.1\\r\\n\"
    \"Host: example\\r\\n\"
    \"Content-Length: 37\\r\\n\"
    \"Transfer-Encoding: chunked\\r\\n\"
    \"\\r\\n\"
    \"0\\r\\n\"
    \"\\r\\n\"
    \"GET /b.txt HTTP/1.1\\r\\n\"
    \"Host: a\\r\\n\"
    \"\\r\\n\"
";
    fn is_so(text: &str) {
        let transcript = Transcript::parse(text).expect("a transcript");
        let inputs = |transcript: &Transcript| {
            transcript.events().filter(|event| event.what.is_input()).cloned().collect::<Vec<_>>()
        };
        let given = Transcript::parse(GIVEN).expect("a transcript");
        assert_eq!(inputs(&transcript), inputs(&given), "the input is given and must not be changed");
        assert_eq!(transcript.settings, given.settings, "the settings are given and must not be changed");
        if let Err(difference) = check(&transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())) {
            panic!("{difference}");
        }
    }
    judge(
        || is_so(include_str!("../../docs/learn/exercises/3_pipelined.txt")),
        || is_so(include_str!("../../docs/learn/solutions/3_pipelined.txt")),
    );
}

/// Output that is not read is not produced.
#[test]
fn exercise_4() {
    const ROWS: usize = 50_000;
    fn keeps_pace<H: Handler + 'static>(make: fn(Box<dyn Iterator<Item = String>>) -> H) {
        let made = Arc::new(AtomicUsize::new(0));
        let rows = {
            let made = Arc::clone(&made);
            move || -> Box<dyn Iterator<Item = String>> {
                let made = Arc::clone(&made);
                Box::new((0..ROWS).map(move |n| {
                    let row = format!("row {n}\n");
                    made.fetch_add(row.len(), Ordering::Relaxed);
                    row
                }))
            }
        };
        let whole: usize = (0..ROWS).map(|n| format!("row {n}\n").len()).sum();
        let mut peer = Bench::new().handler(move || make(rows())).connect();
        peer.stop_reading().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        // How much may be formatted ahead of a socket, `Limits::output`.
        let most = Config::default().limits.output;
        let so_far = made.load(Ordering::Relaxed);
        assert!(so_far <= most, "{so_far} bytes were made for a client that reads nothing; {most} are enough");
        while peer.received().len() < whole {
            peer.read(10_000);
            let ahead = made.load(Ordering::Relaxed).saturating_sub(peer.received().len());
            assert!(ahead <= most, "{ahead} bytes are made ahead of the client, and {most} are enough");
        }
        peer.read_on().expect_answer(200, (0..ROWS).map(|n| format!("row {n}\n")).collect::<String>());
    }
    judge(|| keeps_pace(stream::Table::new), || keeps_pace(stream_solved::Table::new));
}

macro_rules! times_out {
    ($timeout:ident) => {{
        use $timeout::{LINE, Reader, SILENCE, Step};
        // In one piece, in two pieces, and never.
        let mut reader = Reader::new(7);
        assert_eq!(reader.poll(7), Step::Wait { until: 7 + SILENCE });
        reader.handle(b"hello\nmore", 50_000);
        assert_eq!(reader.poll(50_000), Step::Line(b"hello".to_vec()));
        let mut reader = Reader::new(0);
        reader.handle(b"hel", 59_999);
        assert_eq!(reader.poll(59_999), Step::Wait { until: 59_999 + LINE });
        reader.handle(b"lo\n", 79_998);
        assert_eq!(reader.poll(79_998), Step::Line(b"hello".to_vec()));
        assert_eq!(Reader::new(0).poll(SILENCE), Step::TimedOut);
        // One byte every ten seconds, for a day.
        let (mut reader, mut now) = (Reader::new(0), 0);
        reader.handle(b"a", now);
        while let Step::Wait { until } = reader.poll(now) {
            assert!(until > now, "a deadline in the past would be waited for again and again");
            assert!(now < 86_400_000, "after a day, it still waits for the end of the line");
            now = until.min(now + 10_000);
            if now % 10_000 == 0 && now < LINE {
                reader.handle(b"a", now);
            } else if now % 10_000 == 0 {
                reader.handle(b"b", now);
            }
        }
        assert_eq!((reader.poll(now), now), (Step::TimedOut, LINE), "the timeout of the line");
        // An empty input is not a first byte.
        let mut reader = Reader::new(0);
        reader.handle(b"", 30_000);
        assert_eq!(reader.poll(30_000), Step::Wait { until: SILENCE });
    }};
}

/// Single bytes now and then are not a line.
#[test]
fn exercise_5() {
    judge(|| times_out!(timeout), || times_out!(timeout_solved));
}

macro_rules! finishes {
    ($runtime:ident) => {{
        let tree = Tree::new();
        tree.file("a.txt", "hello\n").file("large", vec![b'x'; 8 << 20]);
        let site = Site::new(tree.root()).expect("a directory").with_log(Log::quiet());
        let listener = sanserve_os::bind((Ipv4Addr::LOCALHOST, 0).into(), false).expect("a port");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("the server listens");
        let mut server = $runtime::Server::new(listener, site).expect("a server");
        let end = server.end();
        let serving = thread::spawn(|| server.run());
        // One client has sent half a request, one is receiving a large response, and one is idle.
        let (mut asking, mut idle) = (Client::connect(address), Client::connect(address));
        assert_eq!(idle.get("/a.txt").body_text(), "hello\n");
        let mut reading = Client::connect_narrow(address);
        reading.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(reading.head().status, 200);
        // Bytes that arrive together are read together: with this response, the half was read.
        asking.send("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /a.txt HTTP/1.1\r\n");
        assert_eq!(asking.response().status(), 200);
        drop(end);
        asking.send("Host: a\r\n\r\n");
        let last = asking.response();
        assert_eq!((last.status(), last.text("connection")), (200, Some("close")), "the last response has Connection");
        asking.ends();
        idle.ends();
        assert!(!serving.is_finished(), "it has ended while a client is being served");
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < end, "connections are still accepted");
        }
        assert_eq!(reading.rest().len(), 8 << 20, "the download is not complete");
        serving.join().expect("no panic").expect("the server ends without an error");
    }};
}

/// Exchanges that have begun are finished.
#[test]
fn exercise_6() {
    judge(|| finishes!(runtime), || finishes!(runtime_solved));
}

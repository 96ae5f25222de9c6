//! The core alone, in memory: the cost of one keep-alive exchange, compared with httparse on the same head as the lower
//! bound. `cargo bench --bench core` prints nanoseconds. With a case and a count as arguments it only runs that case,
//! for an instruction counter (see `benches/instructions.txt`).

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use sanserve_core::{
    Action, Buffers, Completion, Config, Connection, Context, DefaultPolicy, FsError, Input, Kind, Now, Opened, Peer,
    Step, Tick, Wall,
};

const SHORT: &[u8] = b"GET /1k.html HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const BROWSER: &[u8] = b"GET /4k.html HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br\r\nDNT: 1\r\nUpgrade-Insecure-Requests: 1\r\nCookie: a=1; b=2; session=0123456789abcdef\r\n\r\n";
const NOT_MODIFIED: &[u8] =
    b"GET /1k.html HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n";
const MISSING: &[u8] = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n";

/// A request for all ranges of an iterator, within the 1,024 bytes of the file.
fn ranges(next: impl Iterator<Item = String>) -> &'static [u8] {
    let ranges: Vec<String> = next.collect();
    let head = format!("GET /1k.html HTTP/1.1\r\nHost: x\r\nRange: bytes={}\r\n\r\n", ranges.join(","));
    Box::leak(head.into_bytes().into_boxed_slice())
}

/// A number of separate ranges, as zsync requests them.
fn parts(count: u32) -> &'static [u8] {
    ranges((0..count).rev().map(|n| format!("{}-{0}", 3 * n)))
}

/// An attack: the most ranges, and then, up to the limit on a field, ranges that coalesce with the last of them.
fn overlap() -> &'static [u8] {
    ranges((0..255).map(|n| format!("{}-{0}", 3 * n)).chain((0..12_000).map(|n| format!("{}-", 765 + n % 200))))
}

/// Only httparse on a head.
fn httparse(head: &'static [u8]) -> impl FnMut() {
    move || {
        let mut fields = [httparse::EMPTY_HEADER; 24];
        let mut request = httparse::Request::new(&mut fields);
        assert!(request.parse(black_box(head)).is_ok_and(|status| status.is_complete()));
        black_box(&request);
    }
}

/// Whole turns of one connection: head in, `Open` answered, head and body out, entry, wait.
fn turn(head: &'static [u8]) -> impl FnMut() {
    let (config, now) = (Config::default(), Now::new(Tick(0), Wall(1_800_000_000)));
    let mut buf = Buffers::new();
    let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
    move || {
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        buf.input.fill(black_box(head));
        let input = loop {
            let input = match connection.poll(&mut buf, &cx) {
                Step::Act(ticket, Action::Open { path: b"none" }) => {
                    Input::Done(ticket, Completion::Opened(Err(FsError::NotFound)))
                }
                Step::Act(ticket, _) => {
                    let opened = Opened {
                        kind: Kind::File,
                        len: 1024,
                        modified: 1_700_000_000,
                        modified_nanos: 0,
                        digest: None,
                    };
                    Input::Done(ticket, Completion::Opened(Ok(opened)))
                }
                Step::Send(transmit) => Input::Sent(black_box(transmit).len()),
                Step::Finished(entry) => {
                    black_box(entry);
                    continue;
                }
                Step::Wait(wait) => break wait,
                other => panic!("{other:?}"),
            };
            connection.handle(input);
        };
        assert!(input.idle);
    }
}

/// A case: its name, the code to run once, and the number of runs.
type Case = (&'static str, Box<dyn FnMut()>, u32);

const OFTEN: u32 = 20_000;
const SELDOM: u32 = 500;

fn cases() -> Vec<Case> {
    vec![
        ("httparse-short", Box::new(httparse(SHORT)), OFTEN),
        ("turn-short", Box::new(turn(SHORT)), OFTEN),
        ("httparse-browser", Box::new(httparse(BROWSER)), OFTEN),
        ("turn-browser", Box::new(turn(BROWSER)), OFTEN),
        ("turn-not-modified", Box::new(turn(NOT_MODIFIED)), OFTEN),
        ("turn-missing", Box::new(turn(MISSING)), OFTEN),
        ("httparse-20-ranges", Box::new(httparse(parts(20))), OFTEN),
        ("turn-20-ranges", Box::new(turn(parts(20))), OFTEN),
        ("httparse-256-ranges", Box::new(httparse(parts(256))), SELDOM),
        ("turn-256-ranges", Box::new(turn(parts(256))), SELDOM),
        ("httparse-overlap", Box::new(httparse(overlap())), SELDOM),
        ("turn-overlap", Box::new(turn(overlap())), SELDOM),
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [name, count] = arguments.as_slice() {
        let count: u32 = count.parse().expect("a number of runs");
        let mut case = cases().into_iter().find(|case| case.0 == name).expect("a case of this program").1;
        (0..count).for_each(|_| case());
        return;
    }
    println!("{:20} {:>8}", "case", "ns");
    for (name, mut case, times) in cases() {
        (0..times / 2).for_each(|_| case());
        // The best of several rounds, since disturbances only add time.
        let best = (0..20).map(|_| {
            let start = Instant::now();
            (0..times).for_each(|_| case());
            start.elapsed().as_nanos() as f64 / f64::from(times)
        });
        println!("{name:20} {:>8.1}", best.fold(f64::INFINITY, f64::min));
    }
}

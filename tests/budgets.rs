//! The cost of a request, counted rather than timed: system calls on each runtime, by strace, and instructions in the
//! core, by callgrind. Allocations and sizes are checked in `core/tests/budget.rs`.
//!
//! Without strace or valgrind, or if strace may not trace, a test reports that and passes, except in CI. The count of
//! instructions builds an optimized program, so it runs only if `CI` or `SANSERVE_INSTRUCTIONS` is set;
//! `SANSERVE_INSTRUCTIONS=record` updates `benches/instructions.txt`.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::traced::{Traced, call, cannot_trace, runs, settled_tree, skip};
use testkit::{Client, Runtime, Server};

// ---- System calls ----

/// How often a system call may happen per request.
#[derive(Clone, Copy, Debug)]
enum Times {
    /// Exactly this often.
    Exactly(usize),
    /// At most this often on average, because waiting depends on what arrives together.
    AtMost(f64),
}
use Times::{AtMost, Exactly};

/// Calls that are not listed must not happen at all.
type Budget = &'static [(&'static str, Times)];

/// Requests of the shorter of two runs. The longer has twice as many, so that the difference does not contain calls
/// that happen once.
const REQUESTS: usize = 100;

#[test]
fn a_cached_file_costs_a_read_a_stat_and_a_write() {
    hold(
        Runtime::Mio,
        one("512"),
        &[("recvfrom", Exactly(1)), ("newfstatat", STAT), ("sendto", Exactly(1)), ("epoll_wait", AtMost(1.1))],
    );
    hold(Runtime::Std, one("512"), &[("recvfrom", Exactly(1)), ("newfstatat", STAT), ("sendto", Exactly(1))]);
    hold(
        Runtime::Smol,
        one("512"),
        &[
            ("recvfrom", AtMost(1.1)),
            ("newfstatat", STAT),
            ("sendto", Exactly(1)),
            REACTOR[0],
            REACTOR[1],
            REACTOR[2],
            REACTOR[3],
            REACTOR[4],
            REACTOR[5],
        ],
    );
}

#[test]
fn pipelined_responses_are_sent_together() {
    let sixteen = |client: &mut Client, _: &Server| {
        let request = b"GET /512 HTTP/1.1\r\nHost: x\r\n\r\n";
        client.send(request.repeat(16));
        (0..16).for_each(|_| assert_eq!(client.response().body.len(), 512));
    };
    hold(
        Runtime::Mio,
        sixteen,
        &[("recvfrom", Exactly(1)), ("newfstatat", STAT), ("sendto", Exactly(1)), ("epoll_wait", AtMost(1.1))],
    );
    // On std, threads share the cache, so it is validated each time.
    hold(Runtime::Std, sixteen, &[("recvfrom", Exactly(1)), ("newfstatat", AtMost(16.1)), ("sendto", Exactly(1))]);
}

#[test]
fn a_large_file_is_opened_and_sent_by_the_kernel() {
    hold(
        Runtime::Mio,
        one("100k"),
        &[
            ("recvfrom", Exactly(1)),
            ("openat2", Exactly(1)),
            ("fstat", Exactly(1)),
            ("sendmsg", Exactly(1)),
            ("sendfile", AtMost(3.0)), // in parts, if the socket is full
            ("close", Exactly(1)),
            ("epoll_wait", AtMost(4.0)),
        ],
    );
}

#[test]
fn a_range_of_a_large_file_costs_the_same() {
    let range = |client: &mut Client, _: &Server| {
        let response = client.ask("GET /100k HTTP/1.1\r\nHost: x\r\nRange: bytes=1000-2999\r\n\r\n");
        assert_eq!((response.head.status, response.body.len()), (206, 2_000));
    };
    hold(
        Runtime::Mio,
        range,
        &[
            ("recvfrom", Exactly(1)),
            ("openat2", Exactly(1)),
            ("fstat", Exactly(1)),
            ("sendmsg", Exactly(1)),
            ("sendfile", Exactly(1)),
            ("close", Exactly(1)),
            ("epoll_wait", AtMost(2.0)),
        ],
    );
}

#[test]
fn a_missing_file_costs_one_open() {
    /// Requests that arrive together: the name of the root is looked up once per some milliseconds, not for each of
    /// them.
    const TOGETHER: usize = 20;
    let missing = |client: &mut Client, _: &Server| {
        let kinds = ["GET /none", "HEAD /none", "GET /none/", "GET /none/none"];
        let requests = kinds.map(|line| format!("{line} HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\"\r\n\r\n"));
        client.send(requests.concat().repeat(TOGETHER / kinds.len()));
        for request in requests.iter().cycle().take(TOGETHER) {
            assert_eq!(client.response_to(request.as_bytes()).head.status, 404);
        }
    };
    const OPENS: (&str, Times) = ("openat", Exactly(TOGETHER));
    /// The same call on an event loop, which must not wait for a disk.
    const OPENS_IN_MEMORY: (&str, Times) = ("openat2", Exactly(TOGETHER));
    // One look-up per 5 ms, which is far less than one per request even if tracing makes a request take milliseconds.
    const LOOKS: (&str, Times) = ("newfstatat", AtMost(TOGETHER as f64 / 2.0));
    const SENDS: (&str, Times) = ("sendto", AtMost(3.0));
    hold(
        Runtime::Mio,
        missing,
        &[OPENS_IN_MEMORY, LOOKS, SENDS, ("recvfrom", AtMost(2.0)), ("epoll_wait", AtMost(3.0))],
    );
    hold(Runtime::Std, missing, &[OPENS, LOOKS, SENDS, ("recvfrom", AtMost(2.0))]);
    hold(
        Runtime::Smol,
        missing,
        &[
            OPENS_IN_MEMORY,
            LOOKS,
            SENDS,
            ("recvfrom", AtMost(2.0)),
            REACTOR[0],
            REACTOR[1],
            REACTOR[2],
            REACTOR[3],
            REACTOR[4],
            REACTOR[5],
        ],
    );
}

#[test]
fn a_new_connection_costs_the_minimum() {
    let connection = |_: &mut Client, server: &Server| drop(server.get("/512"));
    hold(
        Runtime::Mio,
        connection,
        &[
            ("accept4", AtMost(2.0)), // the last one of each batch finds no connection
            // The first read finds nothing, and the connection is waited for, if the request has not come yet.
            ("epoll_ctl", AtMost(1.1)),
            ("recvfrom", AtMost(2.1)),
            ("newfstatat", STAT),
            ("sendto", Exactly(1)),
            ("close", Exactly(1)),
            ("shutdown", AtMost(1.0)),
            ("epoll_wait", AtMost(5.0)),
        ],
    );
}

/// One `stat` of the file per request, and one look-up of the root's name per second.
const STAT: Times = AtMost(1.1);

/// What `async-io` adds for a connection that waits. Two threads may use the reactor in turns, so the numbers vary a
/// little.
const REACTOR: [(&str, Times); 6] = [
    ("epoll_ctl", AtMost(4.0)),
    ("epoll_wait", AtMost(2.0)),
    ("timerfd_settime", AtMost(2.0)),
    ("read", AtMost(2.0)),
    ("write", AtMost(2.0)),
    ("futex", AtMost(20.0)),
];

/// One request for a file, on an open connection.
fn one(name: &'static str) -> impl Fn(&mut Client, &Server) {
    move |client, _| assert_eq!(client.get(format!("/{name}")).head.status, 200)
}

/// Counts the system calls of `act`, and compares them with the budget.
#[track_caller]
fn hold(runtime: Runtime, act: impl Fn(&mut Client, &Server), budget: Budget) {
    if let Some(reason) = cannot_trace() {
        return skip(&reason);
    }
    let tree = settled_tree();
    let traced = Traced::start(runtime, tree.root());
    let mut client = traced.server.connect();
    // A mark is a request for a file that does not exist, which the trace contains.
    let mut marker = traced.server.connect();
    let mut mark = |name: &str| assert_eq!(marker.get(format!("/mark-{name}")).head.status, 404);
    let mut run = |times| (0..times).for_each(|_| act(&mut client, &traced.server));
    run(8);
    mark("first");
    run(REQUESTS);
    mark("second");
    run(2 * REQUESTS);
    mark("end");
    let trace = traced.end();
    let (shorter, longer) = (count(&trace, "first", "second"), count(&trace, "second", "end"));
    let times = |name: &str| {
        let of = |counts: &BTreeMap<&str, usize>| counts.get(name).copied().unwrap_or(0);
        of(&longer).saturating_sub(of(&shorter))
    };
    let names: BTreeSet<&str> = longer.keys().copied().chain(budget.iter().map(|(name, _)| *name)).collect();
    let wrong: Vec<String> = names
        .into_iter()
        .filter_map(|name| {
            let (times, allowed) =
                (times(name), budget.iter().find(|(named, _)| *named == name).map(|(_, times)| *times));
            let holds = match allowed {
                // A read that waits while a mark is made may be counted on either side of it.
                Some(Exactly(n)) => times.abs_diff(n * REQUESTS) <= 2,
                Some(AtMost(mean)) => times as f64 <= mean * REQUESTS as f64,
                // Other threads of the server may make a few calls.
                None => times <= REQUESTS / 20,
            };
            (!holds).then(|| format!("{name}: {times} times in {REQUESTS} requests, allowed {allowed:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}: {}", runtime.name(), wrong.join("; "));
}

/// How often each call began between two marks.
fn count<'t>(trace: &'t str, from: &str, to: &str) -> BTreeMap<&'t str, usize> {
    let at = |mark: &str| {
        let mark = format!("GET /mark-{mark} ");
        trace.lines().position(|line| line.contains(&mark)).unwrap_or_else(|| panic!("no {mark} in the trace"))
    };
    let mut counts = BTreeMap::new();
    for line in trace.lines().take(at(to)).skip(at(from) + 1) {
        if let Some((name, _)) = call(line) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

// ---- Instructions ----

/// How much a count may exceed the recorded one.
const MARGIN: f64 = 1.1;

#[test]
fn the_core_needs_no_more_instructions_than_recorded() {
    let asked = std::env::var("SANSERVE_INSTRUCTIONS").ok();
    if asked.is_none() && std::env::var_os("CI").is_none() {
        return skip("neither CI nor SANSERVE_INSTRUCTIONS is set");
    }
    if !runs(Command::new("valgrind").arg("--version")) {
        return skip("valgrind is not installed; on Debian: apt-get install valgrind");
    }
    let program = bench_program();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let recorded = fs::read_to_string(&file).expect("benches/instructions.txt");
    let comments: String =
        recorded.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let rows: Vec<(&str, u64)> = recorded
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(char::is_whitespace).expect("a case and a count"))
        .map(|(case, count)| (case, count.trim().parse().expect("a number")))
        .collect();
    let counted: Vec<(&str, u64, u64)> =
        rows.into_iter().map(|(case, recorded)| (case, recorded, instructions(&program, case))).collect();
    for (case, recorded, now) in &counted {
        println!("{case:20} {now:>6} instructions, recorded {recorded}");
    }
    if asked.as_deref() == Some("record") {
        let lines: String = counted.iter().map(|(case, _, now)| format!("{case:20} {now}\n")).collect();
        return fs::write(&file, comments + &lines).expect("benches/instructions.txt can be written");
    }
    let worse: Vec<String> = counted
        .iter()
        .filter(|(_, recorded, now)| *now as f64 > *recorded as f64 * MARGIN)
        .map(|(case, recorded, now)| format!("{case} takes {now}, recorded are {recorded}"))
        .collect();
    assert!(
        worse.is_empty(),
        "more than a tenth too many instructions: {}; if the increase is justified, record it",
        worse.join("; ")
    );
}

/// Instructions of one turn: the difference between many and few, so that instructions that happen once do not count.
fn instructions(program: &Path, case: &str) -> u64 {
    const FEW: u64 = 100;
    const MANY: u64 = 1100;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let run = |times: u64| {
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", folder.path().join("out").display()));
        let output = command.arg(program).args([case, &times.to_string()]).output().expect("valgrind runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let collected =
            said.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind prints the count").1;
        collected.trim().parse::<u64>().expect("a number")
    };
    (run(MANY) - run(FEW)) / (MANY - FEW)
}

/// Builds `benches/core.rs` with optimization, and returns its path.
fn bench_program() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["bench", "--bench", "core", "--no-run", "--message-format=json", "--manifest-path"]);
    let output = command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("JSON");
    let is_core = |line: &&str| line.contains("\"kind\":[\"bench\"]") && line.contains("\"name\":\"core\"");
    let message = messages.lines().find(is_core).expect("cargo names the program");
    let path = message.split_once("\"executable\":\"").expect("an executable").1;
    path.split_once('"').expect("a closing quote").0.into()
}

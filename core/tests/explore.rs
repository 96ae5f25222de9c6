//! Exhaustive exploration: every sequence of operations up to a small depth, checked against invariants. The rig checks
//! each step, and the verdict checks the result. Every sequence is also continued cooperatively (everything must be
//! answered) and then without further input (everything must end).
//!
//! Sequences that lead to the same state are only continued once.

#![allow(clippy::disallowed_macros, reason = "a test has a console")]

mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sanserve_core::{Cgi, Config, Fault, FsError, Protocol};
use world::disk::{self, Disk};
use world::rig::{At, Op, Rig, small_limits};
use world::verdict;

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

fn recv(text: &str) -> Op {
    Op::Recv(text.into())
}

/// Explores all sequences of at most `depth` operations from `ops`, after `start`.
fn explore(start: &[Op], ops: &[Op], depth: usize) {
    explore_with(&Config::default().with_limits(small_limits()), start, ops, depth);
}

fn explore_with(config: &Config, start: &[Op], ops: &[Op], depth: usize) {
    let disk = disk::small();
    let mut seen = BTreeSet::new();
    let mut frontier = vec![start.to_vec()];
    let mut count = 0;
    for level in 0..=depth {
        let mut next = Vec::new();
        for path in frontier {
            let more: &[Op] = if level < depth { ops } else { &[] };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let mut rig = replay(config, &disk, &path)?;
                if !seen.insert(rig.fingerprint()) {
                    return None;
                }
                count += 1;
                judge(&mut rig, &path);
                Some(())
            }));
            match outcome {
                Ok(Some(())) => next.extend(more.iter().map(|op| [&path[..], std::slice::from_ref(op)].concat())),
                Ok(None) => {}
                Err(panic) => {
                    eprintln!("the sequence:");
                    path.iter().for_each(|op| eprintln!("    {}", show(op)));
                    std::panic::resume_unwind(panic);
                }
            }
        }
        frontier = next;
    }
    println!("{count} states");
}

/// Returns `None` if the last operation is not possible in its state.
fn replay(config: &Config, disk: &Disk, path: &[Op]) -> Option<Rig> {
    let mut rig = Rig::new(config.clone(), disk.clone());
    rig.swaps = path.len() % 2 == 0;
    path.iter().all(|op| rig.apply(op)).then_some(rig)
}

fn judge(rig: &mut Rig, path: &[Op]) {
    let expect = |what: Result<(), String>| what.unwrap_or_else(|error| panic!("{error}"));
    expect(verdict::check(rig, false));
    rig.settle();
    expect(verdict::check(rig, true));
    if !matches!(rig.at, At::Close(_)) {
        rig.outlast();
        expect(verdict::check(rig, true));
    }
    assert!(path.len() < 100);
}

fn show(op: &Op) -> String {
    match op {
        Op::Recv(bytes) => format!("Recv {}", bytes.escape_ascii()),
        Op::Script(bytes) => format!("Script {}", bytes.escape_ascii()),
        op => format!("{op:?}"),
    }
}

#[test]
fn requests_arrive_in_pieces() {
    let ops = [
        recv(GET),
        recv("GET /a HT"),
        recv("TP/1.1\r\nHost: x\r"),
        recv("\n\r\n"),
        recv("\r\n"),
        recv("\0garbage"),
        recv("GET /empty HTTP/1.1\r\nHost: x\r\n\r\nHEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"),
        recv("GET /a HTTP/1.0\r\n\r\n"),
        Op::Complete,
        Op::Take(1),
        Op::Take(u64::MAX),
        Op::Eof,
        Op::Drain,
    ];
    explore(&[], &ops, 4);
}

#[test]
fn anything_happens_while_a_file_is_served() {
    let ops = [
        Op::Complete,
        Op::Fail(FsError::NotFound),
        Op::Fail(FsError::Exhausted),
        Op::Directory,
        Op::Stale,
        Op::Take(1),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Pending,
        Op::Ready,
        Op::Eof,
        Op::Pass(1),
        Op::Due(0),
        Op::Due(7),
        Op::Drain,
        Op::Cut,
        Op::Broken(Fault::Peer),
        Op::Hold,
        recv(GET),
    ];
    explore(&[recv(GET)], &ops, 4);
}

#[test]
fn a_directory_is_listed_despite_stale_tickets() {
    let ops = [
        Op::Complete,
        Op::Stale,
        Op::Fail(FsError::Denied),
        Op::Take(300),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Cut,
        recv(GET),
    ];
    for path in ["/d/", "/index/", "/d", "/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n{GET}");
        explore(&[recv(&request)], &ops, 6);
    }
}

#[test]
fn bodies_are_read_in_any_way() {
    let ops = [
        recv("5\r\nhello\r\n"),
        recv("5\r\nhel"),
        recv("lo\r\n"),
        recv("0\r\n\r\n"),
        recv("X"),
        recv(GET),
        Op::Complete,
        Op::Take(u64::MAX),
        Op::Take(3),
        Op::Blocked,
        Op::Writable,
        Op::Eof,
        Op::Due(0),
        Op::Cut,
        Op::Drain,
        Op::Broken(Fault::Handler),
    ];
    for target in ["/h/echo", "/h/stream", "/h/pass", "/a", "/h/big"] {
        for framing in [
            "Transfer-Encoding: chunked",
            "Content-Length: 13",
            "Content-Length: 21",
            "Expect: 100-continue\r\nContent-Length: 10",
        ] {
            let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
            let head = if target == "/a" { head.replace("POST", "GET") } else { head };
            explore(&[recv(&head)], &ops, 3);
        }
    }
    let head = "POST /h/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    explore(&[recv(head), Op::Take(u64::MAX)], &ops, 4);
}

#[test]
fn handlers_respond_in_any_way() {
    let ops = [
        Op::Wake,
        Op::Take(100),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Eof,
        Op::Due(0),
        Op::Drain,
        Op::Cut,
        Op::Broken(Fault::Handler),
        Op::Complete,
        recv(GET),
    ];
    for target in ["/h/late", "/h/short", "/h/big", "/h/pass"] {
        for method in ["GET", "HEAD"] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n{GET}");
            explore(&[recv(&head)], &ops, 4);
        }
    }
    explore(&[recv("GET /h/big HTTP/1.0\r\n\r\n")], &ops, 4);
}

#[test]
fn nothing_after_a_violation_is_answered() {
    let bad = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
        "HEAD /a HTTP/3.0\r\nHost: x\r\n\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5001\r\n\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\nx",
        "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\nabc",
        "GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n15\r\nabcdefghijklmnopqrstu\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let ops = [
        recv(GET),
        Op::Complete,
        Op::Take(1),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Eof,
        Op::Due(0),
        Op::Due(1),
        Op::Hold,
        Op::Cut,
    ];
    for bad in bad {
        let request = format!("{bad}{GET}");
        explore(&[recv(&request)], &ops, 3);
        explore(&[recv(GET), recv(&request)], &ops, 2);
    }
}

#[test]
fn ranges_are_sent_in_small_pieces() {
    let ops = [
        Op::Take(1),
        Op::Take(150),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Pending,
        Op::Ready,
        Op::Complete,
        Op::Cut,
        Op::Eof,
        Op::Broken(Fault::Handler),
    ];
    for range in ["0-9", "-5", "0-9,90-99", "50-,0-0,20-30", "100-", "0-0,2-2,4-4,6-6,8-8"] {
        let request = format!("GET /r.txt HTTP/1.1\r\nHost: x\r\nRange: bytes={range}\r\n\r\n{GET}");
        explore(&[recv(&request), Op::Complete], &ops, 5);
    }
}

#[test]
fn http_10_closes_each_connection() {
    let config = Config::default().with_protocol(Protocol::Http10).with_limits(small_limits());
    let ops = [
        recv(GET),
        recv("GET /h/big HTTP/1.1\r\nHost: x\r\n\r\n"),
        recv("x"),
        Op::Complete,
        Op::Take(1),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Eof,
        Op::Due(0),
    ];
    explore_with(&config, &[], &ops, 5);
}

const POST: &str = "POST /cgi-bin/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
const CHUNKED: &str = "POST /cgi-bin/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

fn script(text: &str) -> Op {
    Op::Script(text.into())
}

/// A configuration with scripts and small limits.
fn scripts() -> Config {
    let limits = small_limits().with_script_head(60).with_redirects(1);
    let mut config = Config::default().with_limits(limits).with_cgi(Cgi::python());
    config.timeouts = config.timeouts.with_script(Duration::from_secs(30));
    config
}

/// What can happen to a running script.
fn script_ops() -> Vec<Op> {
    vec![
        script("Content-Type: a/b\n"),
        script("X-Script: b\n\nbody"),
        script("X-Script: c\nContent-Length: 3\n\nabcd"),
        script("X-Script: d\n\n"),
        Op::ScriptEof,
        Op::Take(3),
        Op::Take(u64::MAX),
        Op::Blocked,
        Op::Writable,
        Op::Eof,
        Op::Due(0),
        Op::Drain,
        Op::Cut,
        Op::Broken(Fault::Peer),
        Op::Broken(Fault::Handler),
    ]
}

/// Two operations without a turn in between.
fn both(first: Op, second: Op) -> Op {
    Op::Both(Box::new((first, second)))
}

#[test]
fn anything_happens_while_a_script_is_fed() {
    let mut ops = script_ops();
    let fed = [Op::Fed(1), Op::Fed(u64::MAX), Op::FeedBlocked, Op::Feedable, Op::FeedEnd];
    let pieces = [recv("he"), recv("lloGET /a HT")];
    ops.extend([&fed[..], &pieces].concat());
    // The script runs, and nothing of the body has arrived.
    let start = [recv(POST), Op::Complete, Op::Complete];
    explore_with(&scripts(), &start, &ops, 3);
    let few = [script("X-Script: b\n\nbody"), Op::ScriptEof, Op::Take(u64::MAX), Op::Due(0), Op::Eof];
    explore_with(&scripts(), &start, &[&fed[..], &pieces, &few].concat(), 5);
    let waits = POST.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    explore_with(&scripts(), &[recv(&waits), Op::Complete, Op::Complete], &ops, 3);
}

#[test]
fn anything_happens_while_a_body_is_spooled() {
    let mut ops = script_ops();
    ops.extend([Op::Complete, Op::Fail(FsError::Exhausted), Op::Stale]);
    ops.extend([Op::Fed(u64::MAX), Op::FeedBlocked, Op::Feedable, Op::FeedEnd]);
    ops.extend([recv("5\r\nhello\r\n"), recv("0\r\n\r\n"), recv("X")]);
    explore_with(&scripts(), &[recv(CHUNKED), Op::Complete], &ops, 3);
    // Half of the body is in the file.
    let start = [recv(CHUNKED), Op::Complete, Op::Complete, recv("5\r\nhello\r\n"), Op::Fed(2)];
    explore_with(&scripts(), &start, &ops, 3);
}

#[test]
fn anything_happens_while_a_script_is_started_or_redirects() {
    let mut ops = script_ops();
    ops.extend([script("Location: /a\n\n"), script("Location: /cgi-bin/y\n\n"), script("no head\n\n")]);
    ops.extend([Op::Complete, Op::Fail(FsError::NotFound), Op::Fail(FsError::Failed), Op::Stale]);
    ops.extend([both(Op::Complete, Op::Cut), both(Op::Complete, Op::Broken(Fault::Peer)), both(Op::Complete, Op::Eof)]);
    for path in ["x", "nph-x", "missing"] {
        let request = format!("GET /cgi-bin/{path} HTTP/1.1\r\nHost: x\r\n\r\n{GET}");
        explore_with(&scripts(), &[recv(&request)], &ops, 4);
        explore_with(&scripts(), &[recv(&request.replacen("GET", "HEAD", 1)), Op::Complete], &ops, 3);
    }
    // Half of the body has been read when it redirects.
    ops.extend([recv("lo"), Op::Fed(u64::MAX), Op::FeedBlocked]);
    let start = [recv(&format!("{POST}hel")), Op::Complete, Op::Complete, Op::Fed(2)];
    explore_with(&scripts(), &start, &ops, 3);
}

//! The system calls on the page of `sanserve trace` are compared with those of the servers: for two requests on a new
//! connection, from accepting it to closing it, on each runtime.
//!
//! If strace is missing or may not trace, this reports that and passes, except in CI.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use testkit::server::program;
use testkit::traced::{Traced, call, cannot_trace, settled_tree, skip};
use testkit::{Runtime, eventually};

/// The same connection as a transcript.
const TOLD: &str = r#"sanserve transcript 1
@0 wait read until 15000 idle
@5 recv "GET /512 HTTP/1.1\r\nHost: x\r\n\r\n"
@5 open 512 -> file 512 @784111700
@5 send "HTTP/1.1 200 OK\r\n\r\n"
    file 0+512
@5 finished 200 512 "GET /512 HTTP/1.1"
@5 wait read until 15005 idle
@9 recv "GET /512 HTTP/1.1\r\nHost: x\r\n\r\n"
@9 open 512 -> file 512 @784111700
@9 send "HTTP/1.1 200 OK\r\n\r\n"
    file 0+512
@9 finished 200 512 "GET /512 HTTP/1.1"
@9 wait read until 15009 idle
@12 eof
@12 close done
"#;

/// Calls of threads, allocators and reactors that do not depend on the connection.
const OF_THEIR_OWN: &[&str] = &[
    "brk",
    "clone3",
    "exit",
    "futex",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "prctl",
    "read",
    "rseq",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "sigaltstack",
    "write",
];

#[test]
fn the_calls_on_the_page_are_those_of_the_servers() {
    if let Some(reason) = cannot_trace() {
        return skip(&reason);
    }
    let page = page();
    let tree = settled_tree();
    for runtime in Runtime::ALL {
        let traced = Traced::start(runtime, tree.root());
        let descriptors = format!("/proc/{}/fd", traced.pid.as_raw_nonzero());
        let open = || fs::read_dir(&descriptors).expect("the server runs").count();
        // A request on another connection ends only when the server is done with this one.
        let mut other = traced.server.connect();
        let mut rest = || (0..3).for_each(|_| assert_eq!(other.get("/512").head.status, 200));
        rest();
        let before = open();
        let mut client = traced.server.connect();
        for _ in 0..2 {
            rest();
            assert_eq!(client.get("/512").head.status, 200);
        }
        rest();
        drop(client);
        eventually("the connection is closed", || open() == before);
        assert_eq!(seen(&traced.end()), told(&page, runtime), "{}", runtime.name());
    }
}

/// The calls from accepting the last connection to closing it.
fn seen(trace: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = trace.lines().collect();
    let is_accepted = |line: &&str| line.contains("accept4") && line.contains("sa_family");
    let from = lines.iter().rposition(is_accepted).expect("a connection was accepted");
    let fd = lines[from].rsplit_once("= ").expect("a result").1;
    let close = format!("close({fd}");
    let lines = &lines[from..];
    let to = lines.iter().position(|line| line.contains(&close)).expect("the connection was closed");
    let names = lines[..=to].iter().filter_map(|line| call(line)).map(|(name, _)| name);
    names.chain(["accept4"]).filter(|name| !OF_THEIR_OWN.contains(name)).map(str::to_owned).collect()
}

/// The calls on the page for all of its steps.
fn told(page: &str, runtime: Runtime) -> BTreeSet<String> {
    let strings = |list: &str| -> Vec<String> {
        let list = list.split_once(']').expect("a list ends").0;
        list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let keys: BTreeSet<String> = page.split(r#""operations":["#).skip(2).flat_map(strings).collect();
    assert!(keys.contains("flush") && keys.contains("close"), "{keys:?}");
    let mut names = BTreeSet::new();
    for key in keys {
        let (_, row) = page.split_once(&format!(r#"{{"key":"{key}","#)).unwrap_or_else(|| panic!("no row {key}"));
        let (_, calls) = row.split_once(&format!(r#""{}":{{"calls":["#, runtime.name())).expect("each runtime");
        names.extend(strings(calls).iter().map(|call| call.split_once('(').expect("a call").0.to_owned()));
    }
    names.into_iter().map(|name| if name == "epoll_pwait" { "epoll_wait".into() } else { name }).collect()
}

fn page() -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("get.txt");
    fs::write(&file, TOLD).expect("a file can be written");
    // The heads in the transcript are not those of the core, because only the work of drivers is compared.
    let output = Command::new(program()).arg("trace").arg(&file).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

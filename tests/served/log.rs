//! The log: its format, its order, and no control characters in it.

use std::io::Read;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sanserve_core::is_deceptive;

use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Server, Tree};

/// Splits `127.0.0.1 - - [21/Nov/2026 12:44:46] message`, checking all but the message.
#[track_caller]
fn message(line: &str) -> &str {
    let rest = line.strip_prefix("127.0.0.1 - - [").unwrap_or_else(|| panic!("the peer in {line:?}"));
    let (date, message) = rest.split_once("] ").unwrap_or_else(|| panic!("the date in {line:?}"));
    let form: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let known = months.iter().any(|month| form == format!("00/{month}/0000 00:00:00"));
    assert!(known, "the date in {line:?}");
    message
}

/// One line per request, with the number of body bytes sent; before it, one line for an error.
pub fn the_form(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 3_000_000);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let page = client.get("/none").body.len();
    for target in ["/a.txt", "/a.txt?q=%20", "/big.bin", "/empty", "/folder"] {
        client.get(target);
    }
    client.ask("HEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    client.ask("GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n");
    client.ask("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let put = client.ask("PUT /x HTTP/1.1\r\nHost: x\r\n\r\n").body.len();
    client.get("/last");
    server.log_line("the last one", |line| line.contains("\"GET /last HTTP/1.1\" 404 "));
    let lines = server.process().stderr.so_far();
    let messages: Vec<&str> = lines.iter().map(|line| message(line)).collect();
    assert_eq!(
        messages[..13],
        [
            "code 404, message File not found",
            &format!("\"GET /none HTTP/1.1\" 404 {page}"),
            "\"GET /a.txt HTTP/1.1\" 200 6",
            "\"GET /a.txt?q=%20 HTTP/1.1\" 200 6",
            "\"GET /big.bin HTTP/1.1\" 200 3000000",
            "\"GET /empty HTTP/1.1\" 200 0",
            "\"GET /folder HTTP/1.1\" 301 0",
            "\"HEAD /a.txt HTTP/1.1\" 200 0",
            "\"GET /a.txt HTTP/1.1\" 304 0",
            "\"GET /a.txt HTTP/1.0\" 200 6",
            "code 501, message Unsupported method ('PUT')",
            &format!("\"PUT /x HTTP/1.1\" 501 {put}"),
            "code 404, message File not found",
        ]
    );
}

/// No bytes of a client reach a terminal as control characters, or forge a line.
pub fn control_characters(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let lines: [(&[u8], &str); 10] = [
        (b"GET /esc-\x1b[31m-red HTTP/1.1", "esc-\\x1b[31m-red"),
        (b"GET /nul-\x00-\x07-bell HTTP/1.1", "nul-\\x00-\\x07-bell"),
        (b"GET /del-\x7f-x HTTP/1.1", "del-\\x7f-x"),
        (b"GET /back\\slash\\x1b HTTP/1.1", "back\\\\slash\\\\x1b"),
        (b"GET /c1-\xc2\x9b31m HTTP/1.1", "c1-\\u{9b}31m"),
        (b"GET /raw-\x9b31m HTTP/1.1", "raw-\\x9b31m"),
        (b"GET /quote\" 200 5 HTTP/1.1", "\"GET /quote\\\" 200 5 HTTP/1.1\" 400 "),
        ("GET /bidi-\u{202e}x\u{2066}-\u{200f} HTTP/1.1".as_bytes(), "bidi-\\u{202e}x\\u{2066}-\\u{200f} "),
        ("GET /line-\u{2028}-\u{85}x HTTP/1.1".as_bytes(), "line-\\u{2028}-\\u{85}x "),
        (b"GET /cr-\r127.0.0.1 - - forged HTTP/1.1", "cr-\\x0d127.0.0.1 - - forged"),
    ];
    for (line, shown) in lines {
        let mut client = server.connect();
        client.send([line, b"\r\nHost: x\r\n\r\n"].concat());
        client.half_close();
        client.response();
        server.log_line(shown, |line| line.contains(shown));
    }
    for target in ["/line%0a127.0.0.1%20-%20forged", "/esc%1b[2J"] {
        server.get(target);
        server.log_line(target, |line| line.contains(&format!("\"GET {target} HTTP/1.1\" 404 ")));
    }
    server.get("/last");
    server.log_line("the last one", |line| line.contains("/last"));
    let written = server.process().stderr.bytes();
    let text = std::str::from_utf8(&written).expect("the log is UTF-8");
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || is_deceptive(c)), "{text:?}");
    for line in text.lines() {
        message(line);
    }
}

/// The longest lines that a client can cause do not displace those of others.
pub fn long_lines(rt: Runtime) {
    let tree = Tree::plain();
    let mut server = Server::start(rt, tree.root());
    let long = [b"GET /", &[0xff; 65_000][..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    for n in 0..40 {
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(&long));
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 404));
        server.get(format!("/a.txt?{n}"));
    }
    server.process().signal(Signal::TERM);
    server.process_mut().ended();
    let lines = server.process().stderr.so_far();
    assert_eq!(lines.iter().filter(|line| line.contains("/a.txt?")).count(), 40);
    let long: Vec<&String> = lines.iter().filter(|line| line.contains("\\xff")).collect();
    assert_eq!(long.len(), 160, "each request is in the log");
    for line in long {
        assert!(line.len() < 8 * 1024 && message(line).contains("\\...\" 404 "), "{}", line.len());
    }
}

/// The lines of concurrent requests do not mix, and there is one for each.
pub fn parallel_requests(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                for n in 0..100 {
                    client.get(format!("/a.txt?{thread}-{n}"));
                }
            });
        }
    });
    for thread in 0..8 {
        server.log_line("the last of a thread", |line| {
            line.ends_with(&format!("\"GET /a.txt?{thread}-99 HTTP/1.1\" 200 6"))
        });
    }
    let mut lines = server.process().stderr.so_far();
    assert_eq!(lines.len(), 800);
    for line in &mut lines {
        *line = message(line).to_owned();
    }
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 800, "one line per request");
}

/// `--quiet` writes no access log.
pub fn quiet(rt: Runtime) {
    let tree = Tree::plain();
    for flag in ["-q", "--quiet"] {
        let mut server = Server::with(rt, tree.root(), &[flag]);
        assert_eq!(server.get("/a.txt").status(), 200);
        assert_eq!(server.connect().get("/a.txt").status(), 200);
        server.process().signal(rustix::process::Signal::TERM);
        server.process_mut().ended();
        let lines = server.process().stderr.so_far();
        assert!(!lines.iter().any(|line| line.contains("GET")), "{lines:?}");
    }
}

/// A client that disconnects is an ordinary event: it causes at most one line, and never a panic.
pub fn no_panic_and_no_trace(rt: Runtime) {
    let tree = Tree::plain();
    tree.sparse("big.bin", 64 << 20);
    let server = Server::start(rt, tree.root());
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        client.skip(1000);
        client.reset();
    }
    server.get("/last");
    server.log_line("the last one", |line| line.contains("/last"));
    for line in server.process().stderr.so_far() {
        assert!(!line.contains("panicked") && line.starts_with(&Ipv4Addr::LOCALHOST.to_string()), "{line}");
    }
}

/// A log that is not read, with a full pipe, delays neither responses nor the shutdown; lines that have room are
/// kept, and the others are counted.
pub fn a_pipe_that_is_not_read(rt: Runtime) {
    const PROMPT: Duration = Duration::from_secs(8);
    let tree = Tree::plain();
    for requests in [1_000, 16_000] {
        let (pipe, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        let mut pipe = std::fs::File::from(pipe);
        let fd = format!("/proc/{}/fd/{}", std::process::id(), rustix::fd::AsRawFd::as_raw_fd(&theirs));
        let mut shell = Command::new("sh");
        // `Process` reads the pipes that it makes, so this test makes its own.
        shell.args(["-c", "exec 2>\"$0\" \"$@\"", &fd, program(), "--runtime", rt.name(), "-b", "127.0.0.1", "-d"]);
        shell.arg(tree.root()).arg("0");
        let mut server = Server::of(Process::start(&mut shell));
        drop(theirs);
        let start = Instant::now();
        let mut client = server.connect();
        // With this name a line is about 230 bytes long, and the pipe is full after 300 of them.
        let target = format!("/a.txt?{}", "x".repeat(150));
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        for _ in 0..requests / 50 {
            client.send(request.repeat(50));
            (0..50).for_each(|_| assert_eq!(client.response().body, b"alpha\n"));
        }
        assert_eq!(server.get("/a.txt").status(), 200, "other clients are served too");
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        if requests == 1_000 {
            // Pending lines are written at the end, as far as the pipe accepts them.
            server.process().signal(Signal::TERM);
            assert_eq!(server.process_mut().ended_within(Duration::from_secs(5)).code(), Some(0));
            continue;
        }
        // When the pipe is read, the log contains the number of lost lines.
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).expect("text");
            text
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.get("/a.txt?last").status(), 200);
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended_within(Duration::from_secs(5)).code(), Some(0));
        let text = reader.join().expect("the log has ended");
        let (about, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("sanserve: "));
        for line in &lines {
            message(line);
        }
        let [about] = about[..] else { panic!("not one line about lost lines: {about:?}") };
        let lost = about.strip_prefix("sanserve: ").and_then(|rest| rest.strip_suffix(" log lines were lost"));
        let lost: usize = lost.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("a number in {about:?}"));
        assert_eq!(lines.len() + lost, requests + 2, "each line is written or counted");
        assert!(lines.last().is_some_and(|line| line.contains("/a.txt?last")));
    }
}

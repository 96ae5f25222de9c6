//! The processes of scripts: how they end, and that nothing of them is left.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use testkit::page::check_error;
use testkit::scripts::{Gateway, end, request};
use testkit::{Client, Runtime, eventually};

/// The upper bound is for loaded machines.
const PROMPT: Duration = Duration::from_secs(10);

const QUIET: [&str; 0] = [];

/// Scripts are started before their bodies have arrived.
const AT_ONCE: [&str; 2] = ["--cgi-read-first", "0"];

/// The head of a request for a script, with no body.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A script that ends before its head is complete is a 502.
pub fn a_crash_before_the_head(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let message = |script: &str| format!("CGI script ended before its head was complete ('/cgi-bin/{script}')");
    let mut client = gateway.connect();
    for code in ["0", "1", "127"] {
        check_error(&client.get(format!("/cgi-bin/exit-silent?{code}")), 502, &message("exit-silent"));
    }
    for signal in ["KILL", "SEGV", "TERM"] {
        check_error(&client.get(format!("/cgi-bin/signal-silent?{signal}")), 502, &message("signal-silent"));
    }
    assert_eq!(client.get("/cgi-bin/hello").body, b"hello\n", "the connection continues");
    drop(client);
    gateway.settle();
}

/// The reason is logged.
pub fn a_crash_before_the_head_is_logged(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for _ in 0..10 {
        assert_eq!(gateway.get("/cgi-bin/exit-silent?7").status(), 502);
    }
    gateway.settle();
    eventually("each crash is in the log", || gateway.remarks("exit-silent").len() == 10);
    assert_eq!(gateway.remarks("exit-silent"), ["CGI script exit code 7"; 10]);
}

/// A script that fails after a complete response is only logged.
pub fn exit_codes(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for (script, code) in [("exit?3", "3"), ("exit?255", "255"), ("signal?KILL", "-9"), ("signal?SEGV", "-11")] {
        let answer = gateway.get(format!("/cgi-bin/{script}"));
        assert_eq!((answer.status(), answer.body_text()), (200, "done"), "{script}");
        let name = script.split('?').next().expect("at least one part");
        gateway.remark(name, &format!("CGI script exit code {code}"));
    }
    assert_eq!(gateway.get("/cgi-bin/exit?0").body_text(), "done");
    gateway.settle();
    assert_eq!(gateway.remarks("exit").len() + gateway.remarks("signal").len(), 4);
    assert_eq!(gateway.remarks("hello"), QUIET);
}

/// A script that takes too long: 504 before its head, and a cut after it.
pub fn timeouts(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-timeout", "0.5"]);
    for script in ["never", "endless-head", "family"] {
        let start = Instant::now();
        let mut client = gateway.connect();
        let answer = client.get(format!("/cgi-bin/{script}"));
        check_error(&answer, 504, &format!("CGI script took too long ('/cgi-bin/{script}')"));
        let took = start.elapsed();
        assert!((Duration::from_millis(450)..PROMPT).contains(&took), "it took {took:?}");
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "the connection continues");
    }
    for script in ["begun", "flood", "family?flood"] {
        let mut client = Client::connect_narrow(gateway.server.address());
        client.send(get(&format!("/cgi-bin/{script}")));
        assert_eq!(client.head().status, 200, "{script}");
        gateway.server.log_line("of the cut", |line| line.contains(script) && line.contains("200"));
        let (rest, _) = client.rest_however();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{script}: the response is cut, not ended");
    }
    gateway.settle();
    // A request body for a script that does not read it.
    let mut client = gateway.connect();
    client.send("POST /cgi-bin/never HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc");
    check_error(&client.response(), 504, "CGI script took too long ('/cgi-bin/never')");
    drop(client);
    gateway.settle();
}

/// A script that ignores SIGTERM is killed.
pub fn a_stubborn_script(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-timeout", "0.4"]);
    let start = Instant::now();
    let mut client = gateway.connect();
    client.send(get("/cgi-bin/stubborn"));
    assert_eq!(client.head().status, 200);
    client.rest_however();
    gateway.settle();
    assert!(start.elapsed() > Duration::from_secs(2), "the script had its grace");
}

/// A script that closes its output has responded, but may run until its time is up.
pub fn output_closed(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-timeout", "2"]);
    let start = Instant::now();
    let answer = gateway.connect().get("/cgi-bin/aside");
    assert_eq!((answer.status(), answer.body_text()), (200, "done"));
    assert!(!gateway.processes().is_empty() || start.elapsed() > Duration::from_secs(2), "the script is still running");
    gateway.settle();
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Processes that a script leaves in its group do not delay the response, although they hold the pipe, and are killed
/// with the script.
pub fn left_behind(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    for _ in 0..5 {
        let start = Instant::now();
        let answer = client.get("/cgi-bin/leaver");
        assert_eq!((answer.status(), answer.body_text()), (200, "done"));
        assert!(start.elapsed() < PROMPT);
    }
    drop(client);
    gateway.settle();
    // With a session of its own, a process is meant to survive.
    let answer = gateway.get("/cgi-bin/daemon");
    assert_eq!((answer.status(), answer.body_text()), (200, "done"));
    eventually("only this process is left", || matches!(&gateway.processes()[..], [one] if one.name == "sleep"));
    gateway.processes().iter().for_each(end);
    gateway.settle();
}

/// Much output on stderr neither blocks a script nor fills the log.
pub fn a_noisy_script(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let answer = gateway.get("/cgi-bin/noisy");
    assert_eq!((answer.status(), answer.body_text()), (200, "done"));
    gateway.remark("noisy", "CGI script exit code 3");
    let remarks = gateway.remarks("noisy");
    let (last, before) = remarks.split_last().expect("there is one");
    let (lost, lines) = before.split_last().expect("there are some");
    assert_eq!(last, "CGI script exit code 3");
    assert_eq!(lost, &format!("{} bytes of its stderr were not logged", 1_000_000 - (64 << 10)));
    assert_eq!(lines.len(), (64_usize << 10).div_ceil(10));
    assert!(lines[..lines.len() - 1].iter().all(|line| line == "123456789"));
    gateway.settle();
    let script = "#!/bin/sh\nprintf '\\033[31mred\\n\\n127.0.0.1 - - forged\\n' >&2\nprintf 'X: y\\n\\n'\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("rude", script)]);
    assert_eq!(gateway.get("/cgi-bin/rude").status(), 200);
    gateway.remark("rude", "127.0.0.1 - - forged");
    assert_eq!(gateway.remarks("rude"), ["\\x1b[31mred", "127.0.0.1 - - forged"]);
    gateway.settle();
}

/// 200 scripts run at the same time, and all respond.
pub fn two_hundred_at_once(rt: Runtime) {
    let gateway = Gateway::with(rt, &AT_ONCE);
    let mut clients: Vec<Client> = (0..200).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    }
    gateway.wait_for(200);
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(format!("{at:03}"));
    }
    for (at, client) in clients.iter_mut().enumerate() {
        let answer = client.response();
        assert_eq!((answer.status(), answer.body_text()), (200, format!("abc{at:03}").as_str()));
    }
    drop(clients);
    gateway.settle();
}

/// While scripts run, and while many respond, files are served without delay.
pub fn others_are_served(rt: Runtime) {
    let gateway = Gateway::with(rt, rt.alone());
    let mut clients: Vec<Client> = (0..50).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(get("/cgi-bin/never"));
    }
    gateway.wait_for(50);
    let mut client = gateway.connect();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
        assert_eq!(gateway.get("/cgi-bin/hello").body, b"hello\n");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    let before = gateway.server.process().processor_ticks();
    thread::sleep(Duration::from_millis(400));
    let used = gateway.server.process().processor_ticks() - before;
    assert!(used < 15, "waiting for scripts has used {used} hundredths of a second in 40");
    clients.into_iter().for_each(Client::reset);
    drop(client);
    gateway.settle();
}

/// `--cgi-max`: one more script is a 503, until there is room.
pub fn no_more_than(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-max", "2"]);
    let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nuntil [ -e ../go ]; do sleep 0.05; done\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("held", script)]);
    let mut held: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut held {
        client.send(get("/cgi-bin/held"));
        assert_eq!(client.head().status, 200);
    }
    let mut client = gateway.connect();
    for _ in 0..3 {
        let answer = client.get("/cgi-bin/hello");
        check_error(&answer, 503, "Too many CGI scripts");
        assert_eq!(answer.text("Retry-After"), Some("1"));
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
    }
    check_error(&client.ask(request("POST", "/cgi-bin/hello", "", "abc")), 503, "Too many CGI scripts");
    held.pop().expect("there are two").reset();
    eventually("there is room", || client.get("/cgi-bin/hello").status() == 200);
    gateway.tree.file("go", "");
    let mut held = held.pop().expect("there is one left");
    held.half_close();
    assert!(held.rest().ends_with(b"0\r\n\r\n"), "the other script responds");
    drop((held, client));
    gateway.settle();
}

/// With one place, a request that follows the response of another script waits for that script to exit. If requests did
/// not wait, most would be refused at least once.
pub fn one_after_another(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-max", "1"]);
    let mut client = gateway.connect();
    let mut refused = 0;
    for _ in 0..100 {
        loop {
            let answer = client.get("/cgi-bin/hello");
            if answer.status() == 200 {
                break;
            }
            check_error(&answer, 503, "Too many CGI scripts");
            refused += 1;
        }
    }
    assert!(refused < 50, "{refused} requests were refused");
    drop(client);
    gateway.settle();
}

/// As many POSTs as there are places, with no body or with half of a small one, take no place.
pub fn bodies_that_do_not_come(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-max", "2"]);
    let mut silent: Vec<Client> = (0..6).map(|_| gateway.connect()).collect();
    for (client, (length, sent)) in
        silent.iter_mut().zip([(6, ""), (6, "abc"), (65_536, "abc"), (1_000_000, "")].iter().cycle())
    {
        client.send(format!("POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{sent}"));
    }
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/cgi-bin/hello").status(), 200);
    }
    gateway.wait_for_none();
    silent[1].send("def");
    assert_eq!(silent[1].response().body_text(), "abcdef", "the request is complete");
    silent.into_iter().for_each(Client::reset);
    drop(client);
    gateway.settle();
}

/// Spooled bodies share one limit: a further body is a 503, until there is room.
pub fn spools_share_their_room(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-spool-total", "1000"]);
    let head = "POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut first = gateway.connect();
    first.send(format!("{head}320\r\n{}\r\n", "x".repeat(800)));
    eventually("the first body is kept", || gateway.spools() == [800]);
    let mut second = gateway.connect();
    second.send(format!("{head}12c\r\n{}\r\n0\r\n\r\n", "x".repeat(300)));
    let answer = second.response();
    check_error(&answer, 503, "Too many bodies are waiting for CGI scripts");
    assert_eq!(answer.text("Retry-After"), Some("1"));
    eventually("a body that fits is accepted", || {
        second.send(format!("{head}c8\r\n{}\r\n0\r\n\r\n", "x".repeat(200)));
        second.response().body_text() == "200 200\n"
    });
    first.send("0\r\n\r\n");
    assert_eq!(first.response().body_text(), "800 800\n");
    gateway.wait_for_none();
    eventually("there is room again", || {
        second.send(format!("{head}384\r\n{}\r\n0\r\n\r\n", "x".repeat(900)));
        second.response().status() == 200
    });
    drop((first, second));
    gateway.settle();
}

/// A script must not get the terminal, the limits and the descriptors of the server, and must get its own standard
/// streams, by name too.
pub fn no_privileges(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let script = "#!/bin/sh\nprintf 'X: y\\n\\n'\n(: </dev/tty) 2>/dev/null || echo no terminal\n\
                  cut -d' ' -f 5 /proc/$$/stat | grep -qx $$ && echo a group\nls -m /proc/$$/fd\n\
                  cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("bare", script)]);
    let answer = gateway.post("/cgi-bin/bare", "in\n");
    // The shell has its script open as descriptor 10.
    assert_eq!(answer.body_text(), "no terminal\na group\n0, 1, 10, 2\nin\nout\n");
    gateway.remark("bare", "err");
    gateway.settle();
}

/// While the root is replaced by another tree and back, every response is of one tree: no script of one tree runs in
/// the directory of the other.
pub fn another_tree_in_place_of_the_root(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let script = |who: &str| format!("#!/bin/sh\nprintf 'X: y\\n\\n'; echo {who}; cat who.txt\n");
    let root = gateway.tree.root();
    let (other, aside) = (gateway.tree.outside().join("other"), gateway.tree.outside().join("aside"));
    let place = other.join("cgi-bin");
    std::fs::create_dir_all(&place).expect("a fresh directory");
    std::fs::write(root.join("cgi-bin/who.txt"), "one\n").expect("a file can be written");
    std::fs::write(place.join("who.txt"), "two\n").expect("a file can be written");
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("who", &script("one"))]);
    testkit::scripts::install_in(&place, &[("who", &script("two"))]);
    for _ in 0..20 {
        std::fs::rename(root, &aside).expect("the path exists");
        std::fs::rename(&other, root).expect("the path exists");
        let answer = gateway.get("/cgi-bin/who");
        std::fs::rename(root, &other).expect("the path exists");
        std::fs::rename(&aside, root).expect("the path exists");
        let text = answer.body_text();
        let of_one_tree = text == "one\none\n" || text == "two\ntwo\n";
        assert!(answer.status() != 200 || of_one_tree, "{text}");
        assert_eq!(gateway.get("/cgi-bin/who").status(), 200);
    }
    gateway.settle();
}

/// If the launcher or its guard is killed, the running scripts end, and nothing else.
pub fn the_launcher_is_killed(rt: Runtime) {
    let gateway = Gateway::start(rt);
    for kills_guard in [false, true] {
        let mut client = gateway.connect();
        client.send(get("/cgi-bin/begun"));
        assert_eq!(client.head().status, 200);
        let pids = [gateway.launcher(), gateway.guard()].map(|pid| pid.expect("a script runs"));
        let killed = rustix::process::Pid::from_raw(pids[usize::from(kills_guard)]).expect("a process");
        rustix::process::kill_process(killed, Signal::KILL).expect("the process exists");
        gateway.wait_for_none();
        drop(client);
        eventually("there is another launcher", || gateway.get("/cgi-bin/hello").status() == 200);
        assert!(gateway.launcher().is_none_or(|launcher| !pids.contains(&launcher)));
    }
}

/// The client resets the connection at every stage: the script and its children are killed.
pub fn the_client_is_gone(rt: Runtime) {
    let gateway = Gateway::with(rt, &AT_ONCE);
    for (what, sent, reads, processes) in [
        ("before the head", get("/cgi-bin/family"), 0, 3),
        ("in the head", get("/cgi-bin/endless-head"), 0, 1),
        ("after the head", get("/cgi-bin/family?head"), 1, 3),
        ("in the download", get("/cgi-bin/family?flood"), 1 << 20, 4),
        ("before the body", format!("{}Content-Length: 9\r\n\r\n", &get("/cgi-bin/family").trim_end()), 0, 3),
        ("in the upload", format!("{}Content-Length: 9\r\n\r\nabc", &get("/cgi-bin/family").trim_end()), 0, 3),
    ] {
        let sent = sent.replace("xContent", "x\r\nContent");
        for _ in 0..2 {
            let mut client = gateway.connect();
            client.send(&sent);
            client.skip(reads);
            gateway.wait_for(processes);
            client.reset();
            gateway.wait_for_none();
        }
        assert_eq!(gateway.get("/cgi-bin/hello").body, b"hello\n", "{what}");
    }
    gateway.settle();
    // In the middle of a large upload to a script that reads, and to one that does not.
    for script in ["count", "never"] {
        let mut client = gateway.connect();
        client.send(format!("POST /cgi-bin/{script} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"));
        client.send([b'x'; 50_000]);
        gateway.wait_for(1);
        client.reset();
        gateway.wait_for_none();
    }
    gateway.settle();
}

/// A client that closes without a reset may have only half-closed: its script gets 2 s.
pub fn the_client_is_silent(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let mut gone: Vec<Client> = (0..4).map(|_| gateway.connect()).collect();
    gone[0].send(get("/cgi-bin/family"));
    gone[1].send(get("/cgi-bin/family?head"));
    gone[2].send(get("/cgi-bin/stubborn"));
    gone[3].send(request("POST", "/cgi-bin/never", "", "abc"));
    gateway.wait_for(8);
    let start = Instant::now();
    drop(gone);
    gateway.settle();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

/// A client that has half-closed, and reads, gets its response.
pub fn half_closed(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let clients = [("/cgi-bin/slow", "slow"), ("/cgi-bin/drip", "12345"), ("/cgi-bin/hello", "hello\n")];
    let clients = clients.map(|(target, body)| {
        let mut client = gateway.connect();
        client.send(get(target));
        client.half_close();
        (client, body)
    });
    for (mut client, body) in clients {
        assert_eq!(client.response().body_text(), body);
        client.ends();
    }
    gateway.settle();
}

/// If a client has announced its last request, or sent further ones, a half-close does not end the connection: its
/// script has its whole time.
pub fn half_closed_for_long(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-half-close", "0.2"]);
    let close = "GET /cgi-bin/late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned();
    let clients = [
        ("GET /cgi-bin/late HTTP/1.0\r\n\r\n".to_owned(), 1),
        (close.clone(), 1),
        (format!("{}{close}", get("/cgi-bin/late")), 2),
        (format!("{}{}{close}", get("/cgi-bin/late"), get("/a.txt")), 3),
        // Without an announcement, the shorter timeout applies after the last request.
        (get("/cgi-bin/late"), 0),
        (format!("{}{}", get("/cgi-bin/late"), get("/cgi-bin/late")), 1),
        ("GET /cgi-bin/late HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), 0),
    ];
    let clients = clients.map(|(requests, answers)| {
        let mut client = gateway.connect();
        client.send(&requests);
        client.half_close();
        (client, requests, answers)
    });
    for (mut client, requests, answers) in clients {
        let (rest, _) = client.rest_however();
        let found = String::from_utf8_lossy(&rest).matches(" 200 OK\r\n").count();
        assert_eq!(found, answers, "{requests:?}: {:?}", String::from_utf8_lossy(&rest));
    }
    gateway.settle();
    // A reset ends the script.
    for version in ["1.0", "1.1"] {
        let mut client = gateway.connect();
        client.send(format!("GET /cgi-bin/never HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        client.half_close();
        gateway.wait_for(1);
        client.reset();
        gateway.wait_for_none();
    }
    gateway.settle();
}

/// If no output of a script can be sent any more, it is killed if it continues.
pub fn nothing_can_be_sent(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let start = Instant::now();
    let mut client = gateway.connect();
    for script in ["flood", "flood-on", "begun"] {
        let answer = client.ask(format!("HEAD /cgi-bin/{script} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((answer.status(), answer.body.len()), (200, 0), "{script}");
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "the connection continues");
        gateway.wait_for_none();
        assert_eq!(gateway.remarks(script), QUIET, "its end is not logged");
    }
    for status in ["204", "304"] {
        let answer = client.get(format!("/cgi-bin/flood-on?{status}"));
        assert_eq!((answer.status().to_string(), answer.body.len()), (status.to_owned(), 0));
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "the connection continues");
        gateway.wait_for_none();
    }
    assert!(start.elapsed() < 2 * PROMPT, "{:?}", start.elapsed());
    // A script that prints no more than others ends by itself, and so does one that still works.
    let answer = client.ask("HEAD /cgi-bin/slow-exit HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status(), 200);
    gateway.remark("slow-exit", "CGI script exit code 7");
    drop(client);
    gateway.settle();
}

/// A script that has responded, and ignores that its further output is not read, does not run until its time is up.
pub fn output_is_not_read(rt: Runtime) {
    let gateway = Gateway::start(rt);
    let script = "#!/bin/sh\ntrap '' PIPE\n\
                  case $QUERY_STRING in\n\
                  length) printf 'Content-Length: 2\\n\\nhi';;\n\
                  redirect) printf 'Location: /a.txt\\n\\n';;\n\
                  esac\n\
                  while :; do printf '%01000d' 0 2>/dev/null; done\n";
    let works = "#!/bin/sh\nprintf 'Content-Length: 2\\n\\nhi, and more'\nsleep 0.3\nprintf 'still more'\nexit 7\n";
    testkit::scripts::install(&gateway.tree, "cgi-bin", &[("deaf", script), ("works", works)]);
    let mut client = gateway.connect();
    for (query, body) in [("length", "hi"), ("redirect", "alpha\n")] {
        assert_eq!(client.get(format!("/cgi-bin/deaf?{query}")).body_text(), body);
        gateway.wait_for_none();
    }
    assert_eq!(client.get("/cgi-bin/works").body_text(), "hi");
    gateway.remark("works", "CGI script exit code 7");
    drop(client);
    gateway.settle();
}

/// Clients that send large bodies very slowly do not prevent others from running scripts.
pub fn places_for_others(rt: Runtime) {
    let gateway = Gateway::with(rt, &["--cgi-max", "3"]);
    let begin = |script: &str, sent: &str| {
        let mut client = gateway.connect();
        client.send(format!("POST /cgi-bin/{script} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{sent}"));
        client
    };
    let mut silent = begin("say", "a");
    gateway.wait_for(1);
    let mut answered = begin("echo", "a");
    assert_eq!(answered.head().status, 200);
    let sent = 900_000;
    let mut quick = begin("count", &"a".repeat(sent));
    gateway.wait_for(3);
    let mut client = gateway.connect();
    eventually("there is room", || client.get("/cgi-bin/hello").status() == 200);
    check_error(&silent.response(), 503, "Too many CGI scripts");
    gateway.remark("say", "CGI script ended: its client is slow with the body, and others need its place");
    let mut held = gateway.connect();
    held.send(get("/cgi-bin/never"));
    eventually("the place is taken", || gateway.processes().iter().any(|found| found.name == "sleep"));
    eventually("there is room", || client.get("/cgi-bin/hello").status() == 200);
    let (rest, _) = answered.rest_however();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the response looks complete: {}", rest.escape_ascii());
    // No other client is slow.
    quick.send("a".repeat(1_000_000 - sent));
    assert_eq!(quick.response().body_text().trim_end(), "1000000 1000000");
    held.reset();
    drop((silent, answered, quick, client));
    gateway.settle();
}

/// A server that shuts down lets scripts respond.
pub fn shutdown(rt: Runtime) {
    let mut gateway = Gateway::with(rt, &AT_ONCE);
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    clients[0].send("POST /cgi-bin/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    clients[1].send("POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nX: y\n");
    let head = "POST /cgi-bin/count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
    clients[2].send(format!("{head}Expect: 100-continue\r\n\r\n"));
    assert_eq!(clients[2].head().status, 100, "it has no script yet, but is in progress");
    clients[2].send("3\r\nabc\r\n");
    gateway.wait_for(2);
    let address = gateway.server.address();
    gateway.server.process().signal(Signal::TERM);
    eventually("no connection is accepted any more", || std::net::TcpStream::connect(address).is_err());
    clients[0].send("def");
    assert_eq!(clients[0].response().body_text(), "abcdef");
    clients[1].send("\nbody");
    let answer = clients[1].response();
    assert_eq!((answer.body_text(), answer.head.closes()), ("body", true));
    clients[2].send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(clients[2].response().body_text(), "6 6\n");
    clients.iter_mut().for_each(Client::ends);
    assert_eq!(gateway.server.process_mut().ended_within(PROMPT).code(), Some(0));
    gateway.wait_for_none();
    gateway.no_temporary_files();
}

/// A script that has responded and is still running does not outlive the server.
pub fn a_running_script_ends_with_the_server(rt: Runtime) {
    let mut gateway = Gateway::start(rt);
    assert_eq!(gateway.get("/cgi-bin/aside").body_text(), "done");
    gateway.wait_for(1);
    gateway.server.process().signal(Signal::TERM);
    assert_eq!(gateway.server.process_mut().ended_within(PROMPT).code(), Some(0));
    gateway.wait_for_none();
}

/// Scripts that take longer than the grace are killed.
pub fn shutdown_is_bounded(rt: Runtime) {
    let mut gateway = Gateway::with(rt, &["--grace", "0.3"]);
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.connect()).collect();
    for (client, script) in clients.iter_mut().zip(["family", "stubborn", "begun", "aside"]) {
        client.send(get(&format!("/cgi-bin/{script}")));
    }
    gateway.wait_for(6);
    for client in &mut clients[1..] {
        assert_eq!(client.head().status, 200);
    }
    let start = Instant::now();
    gateway.server.process().signal(Signal::TERM);
    assert_eq!(gateway.server.process_mut().ended_within(PROMPT).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(250), "the grace is used: {:?}", start.elapsed());
    gateway.wait_for_none();
    gateway.no_temporary_files();
    for client in &mut clients[..3] {
        let (rest, _) = client.rest_however();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "the response is cut, not ended");
    }
}

/// A second signal ends everything immediately.
pub fn a_second_signal(rt: Runtime) {
    let mut gateway = Gateway::start(rt);
    let mut client = gateway.connect();
    client.send(get("/cgi-bin/begun"));
    assert_eq!(client.head().status, 200);
    gateway.server.process().signal(Signal::TERM);
    let address = gateway.server.address();
    eventually("no connection is accepted any more", || std::net::TcpStream::connect(address).is_err());
    gateway.server.process().signal(Signal::TERM);
    gateway.server.process_mut().ended_within(PROMPT);
    let (rest, _) = client.rest_however();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the response is cut, not ended");
    for left in gateway.processes() {
        end(&left);
    }
    gateway.wait_for_none();
}

/// Whatever number of descriptors is left, a script responds or the response is a 503, and the server continues.
pub fn out_of_descriptors(rt: Runtime) {
    let gateway = Gateway::with(rt, rt.alone());
    let mut client = gateway.connect();
    assert_eq!(client.get("/cgi-bin/hello").status(), 200);
    gateway.wait_for_none();
    let open = gateway.server.process().descriptors() as u64;
    let mut statuses = Vec::new();
    for left in (0..16).rev() {
        gateway.server.process().bound_descriptors(open + left);
        for request in
            [&b"GET /cgi-bin/hello HTTP/1.1\r\nHost: x\r\n\r\n"[..], &request("POST", "/cgi-bin/say", "", "X: y\n\n")]
        {
            let answer = client.ask(request);
            if answer.status() != 200 {
                check_error(&answer, 503, "Too many CGI scripts");
                assert_eq!(answer.text("Retry-After"), Some("1"));
                assert!(!answer.head.closes());
            }
            statuses.push(answer.status());
            gateway.wait_for_none();
        }
    }
    assert_eq!((statuses[0], statuses[statuses.len() - 1]), (200, 503), "{statuses:?}");
    eventually("all descriptors are closed", || gateway.server.process().descriptors() as u64 <= open);
}

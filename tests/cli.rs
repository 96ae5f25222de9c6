//! The command line: usage, errors, exit codes, the banner.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use testkit::process::Process;
use testkit::server::program;
use testkit::{Client, Runtime, Server, TIMEOUT, Tree, eventually};

/// The result of a command that has ended by itself.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[track_caller]
fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Ended {
    let mut process = Process::start(Command::new(program()).args(arguments));
    let status = process.ended();
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: status.code(), stdout: text(process.stdout.bytes()), stderr: text(process.stderr.bytes()) }
}

#[track_caller]
fn usage_error(arguments: &[&str]) {
    let ended = run(arguments);
    assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
    assert!(ended.stderr.starts_with("usage: "), "{arguments:?}: {}", ended.stderr);
    let errors = ended.stderr.lines().filter(|line| line.contains("error: ")).count();
    assert_eq!(errors, 1, "not one line for {arguments:?}: {}", ended.stderr);
    assert!(ended.stderr.lines().last().expect("checked").contains("error: "), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "{arguments:?}");
}

#[track_caller]
fn system_error(arguments: &[&str], says: &str) {
    let ended = run(arguments);
    assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "not one line for {arguments:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{arguments:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{arguments:?}");
}

/// Starts a server with exactly these arguments, which must make it listen on the loopback interface.
#[track_caller]
fn serve(arguments: &[&str]) -> (Server, String) {
    let server = Server::of(Process::start(Command::new(program()).args(arguments)));
    let banner = server.process().stdout.so_far().remove(0);
    (server, banner)
}

fn path(tree: &Tree) -> &str {
    tree.root().to_str().expect("a temporary path is text")
}

#[test]
fn usage_errors() {
    for arguments in [
        &["--no-such-flag"][..],
        &["-z"],
        &["eighty"],
        &["80", "81"],
        &["65536"],
        &["100000000000000000000"],
        &["-1"],
        &["--", "-1"],
        &["80 "],
        &[""],
        &["-b"],
        &["-d"],
        &["--bind"],
        &["-b", "unix:", "0"],
        &["-b", "/run/http.sock", "0"],
        &["-b", "unix:s", "--socket-mode", "0888", "0"],
        &["-b", "unix:s", "--socket-mode", "1777", "0"],
        &["-b", "unix:s", "--socket-mode", "rw", "0"],
        &["-b", "127.0.0.1", "--socket-mode", "0660", "0"],
        &["-p", "HTTP/2.0", "0"],
        &["-p", "HTTP/0.9", "0"],
        &["-p", "1.1", "0"],
        &["--protocol=", "0"],
        &["--runtime", "tokio", "0"],
        &["--runtime=", "0"],
        &["--workers", "0", "0"],
        &["--workers", "many", "0"],
        &["--workers=-1", "0"],
        &["--io-threads", "many", "0"],
        &["--io-threads=-1", "0"],
        &["--max-connections", "0", "0"],
        &["--handshake-timeout", "0", "0"],
        &["--head-timeout", "soon", "0"],
        &["--head-timeout=-1", "0"],
        &["--keep-alive", "", "0"],
        &["--body-timeout", "nan", "0"],
        &["--write-timeout", "1w", "0"],
        &["--write-timeout", "1 s", "0"],
        &["--grace", "inf", "0"],
        &["--grace", "1e400", "0"],
        &["--symlinks", "maybe", "0"],
        &["--cgi=yes", "0"],
        &["--cgi-max", "2", "0"],
        &["--cgi-dir", "/x", "0"],
        &["--cgi-timeout", "1", "0"],
        &["--cgi", "--cgi-max", "0", "0"],
        &["--cgi", "--cgi-max", "many", "0"],
        &["--cgi", "--cgi-timeout", "0", "0"],
        &["--cgi-half-close", "1", "0"],
        &["--cgi", "--cgi-half-close", "0", "0"],
        &["--cgi", "--cgi-timeout", "soon", "0"],
        &["--cgi", "--cgi-chunked", "maybe", "0"],
        &["--cgi", "--cgi-dir", "a/../b", "0"],
        &["--cgi", "--cgi-env", "=x", "0"],
        &["--max-body", "-1", "0"],
        &["--max-body", "1x", "0"],
        &["--max-body", "1.5", "0"],
        &["--max-body", "nan", "0"],
        &["--max-body", "16777216T", "0"],
        &["--record", "x", "--record-size", "0K", "0"],
        &["--quiet=yes", "0"],
        &["--h"],
        &["--wr", "0"],
        &["--w=1", "0"],
        &["--version=1"],
    ] {
        usage_error(arguments);
    }
}

/// A usage error suggests what is right, if that can be guessed.
#[test]
fn usage_errors_help() {
    let tree = Tree::new();
    tree.folder("site");
    for (arguments, says) in [
        (&["./"][..], "to serve a directory: -d ./"),
        (&["."], "to serve a directory: -d ."),
        (&["site"], "to serve a directory: -d site"),
        (&["site", "8000"], "to serve a directory: -d site"),
        (&["8000", "site"], "to serve a directory: -d site"),
        (&["-q", "./", "8000"], "to serve a directory: -d ./"),
        (&["../no/such"], "to serve a directory: -d ../no/such"),
        (&["repaly", "x"], "did you mean the command `replay`?"),
        (&["repaly", "--emit-test", "x"], "did you mean the command `replay`?"),
        (&["trase", "x"], "did you mean the command `trace`?"),
        (&["explian", "/"], "did you mean the command `explain`?"),
        (&["smi"], "did you mean the command `sim`?"),
        (&["confrom", "x"], "did you mean the command `conform`?"),
        (&["hlep"], "did you mean the command `help`?"),
        (&["help", "repaly"], "did you mean the command `replay`?"),
        (&["-q", "replay", "x"], "a command must come before all flags"),
        (&["80", "81"], "unexpected argument '81'"),
        (&["65536"], "the highest is 65535"),
        (&["eighty"], "neither a port, 0 to 65535, nor a command"),
        (&["--bnd", "x"], "did you mean `--bind`?"),
        (&["-H", "Content-Length: 3"], "the server itself writes the fields that frame a message"),
        (&["-H", "*.css=Connection: close"], "the server itself writes the fields that frame a message"),
        (&["--header-always", "ETag: x"], "the server itself writes the dates and tags of files"),
        (&["-H", "X-A: b\r\nX-B: c"], "the value of a field has no control characters"),
        (&["-H", "X-A: b\n\nX-B: c"], "the value of a field has no control characters"),
        (&["-H", "X-A"], "not a field, such as 'X-Name: value'"),
        (&["-H", "a/b=X-A: b"], "it begins with / or has no /"),
        (&["--cache", "soon"], "not a number of seconds, never or immutable"),
        (&["--cors=app.example"], "such as https://app.example"),
        (&["--isolate=yes"], "neither nothing nor credentialless"),
        (&["--redirect", "/a"], "not of the form /OLD=/NEW"),
        (&["--redirect", "/a=/b", "--redirect", "/b=/c"], "/a=/b leads to /b=/c"),
        (&["--route-prefix", "docs"], "not a path, such as /docs"),
        (&["--error-page", "400=a.html"], "only for 404, 500 and 503"),
        (&["explain", "/", "--response-header", "X-A: b\nc"], "the value of a field has no control characters"),
        (&["explain", "/", "--redirect", "/a=/a"], "/a=/a leads to /a=/a"),
        (&["-b", "unix:"], "such as unix:/run/http.sock"),
        (&["-b", "/run/http.sock"], "for a Unix socket: unix:/run/http.sock"),
        (&["-b", "unix:s", "--socket-mode", "u=rw"], "such as 0660"),
        (&["--socket-mode", "0660"], "needs a Unix socket: --bind unix:PATH"),
        (&["replay", "--emti-test", "x"], "did you mean `--emit-test`?"),
        (&["trace", "--uotput", "x", "y"], "did you mean `--output`?"),
        (&["explain", "--direcotry", ".", "/"], "did you mean `--directory`?"),
        (&["sim", "--fualts", "all"], "did you mean `--faults`?"),
        (&["conform", "--vrebose", "x"], "did you mean `--verbose`?"),
        (&["--max-body", "10X"], "such as 4096, 64K or 1.5GiB"),
        (&["--record-rate", "-1", "--record", "x"], "unexpected argument '-1'"),
        (&["--grace", "1y"], "such as 90, 1.5s or 5m"),
        (&["--workers", "many"], "a whole number from 1 to"),
    ] {
        let mut process = Process::start(Command::new(program()).args(arguments).current_dir(tree.root()));
        assert_eq!(process.ended().code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(process.stderr.bytes()).expect("text");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.contains("error: ") && last.contains(says), "{arguments:?}: {stderr}");
    }
}

/// If a command cannot read its input, it prints one line and writes nothing.
#[test]
fn unreadable_inputs_of_commands() {
    let tree = Tree::plain();
    tree.file("empty.txt", "").file("bin.txt", [0xff, 0, 1, 2]).file("other.txt", "HTTP/1.1 200 OK\n");
    tree.folder("nothing")
        .folder("bad")
        .file("bad/a.txt", "sanserve transcript 9\n")
        .folder("self")
        .link("self/a.txt", "a.txt");
    for (arguments, code, says) in [
        (&["replay", "no/such"][..], 2, "cannot read no/such: No such file or directory"),
        (&["replay", "nothing"], 2, "nothing: no transcripts"),
        (&["replay", "empty.txt"], 2, "empty.txt: not a transcript: it is empty"),
        (&["replay", "bin.txt"], 2, "bin.txt: not a transcript: byte 0 is not UTF-8 text"),
        (&["replay", "other.txt"], 2, "other.txt: line 1: "),
        (&["replay", "bad"], 2, "bad/a.txt: line 1: "),
        (&["replay", "self"], 2, "cannot read self/a.txt: "),
        (&["replay", "-"], 2, "standard input: not a transcript: it is empty"),
        (&["replay", "--emit-test", "no/such"], 2, "cannot read no/such"),
        (&["trace", "no/such"], 2, "cannot read no/such: No such file or directory"),
        (&["trace", "nothing"], 2, "cannot read nothing: Is a directory"),
        (&["trace", "empty.txt"], 2, "empty.txt: not a transcript: it is empty"),
        (&["trace", "bin.txt"], 2, "bin.txt: not a transcript: byte 0 is not UTF-8 text"),
        (&["trace", "-"], 2, "standard input: not a transcript: it is empty"),
        (&["conform", "no/such"], 2, "cannot read no/such: No such file or directory"),
        (&["replay", "/dev/zero"], 2, "/dev/zero: line 1: "),
        (&["trace", "/dev/zero"], 2, "/dev/zero: line 1: "),
        (&["conform", "-"], 2, "standard input is not a directory"),
        (&["conform", "a.txt"], 2, "cannot read a.txt: Not a directory"),
        (&["conform", "nothing"], 2, "nothing: no transcripts"),
        (&["conform", "bad"], 2, "bad/a.txt: line 1: "),
        (&["explain", "/", "-d", "no/such"], 1, "cannot serve no/such: No such file or directory"),
        (&["explain", "/", "-d", "a.txt"], 1, "cannot serve a.txt: Not a directory"),
    ] {
        let mut process = Process::start(Command::new(program()).args(arguments).current_dir(tree.root()));
        let status = process.ended().code();
        let (stdout, stderr) = (process.stdout.bytes(), String::from_utf8_lossy(&process.stderr.bytes()).into_owned());
        assert_eq!((status, stdout.as_slice()), (Some(code), &b""[..]), "{arguments:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

/// A transcript may come through a pipe.
#[test]
fn commands_read_standard_input() {
    let transcript = concat!(env!("CARGO_MANIFEST_DIR"), "/core/tests/transcripts/timeout-keep-alive.txt");
    for (arguments, says) in [
        (&["replay", "-"][..], "standard input: same, "),
        (&["replay", "--emit-test", "-"], "fn recorded_stdin() {\n"),
        (&["trace", "-"], "<title>standard input - sanserve trace</title>"),
    ] {
        let mut command = Command::new(program());
        command.args(arguments).stdin(fs::File::open(transcript).expect("a transcript of the corpus"));
        let output = command.output().expect("the program runs");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains(says), "{arguments:?}: {stdout}");
    }
}

/// Two recordings of the same name get different tests.
#[test]
fn emitted_tests_have_different_names() {
    let transcript = include_str!("../core/tests/transcripts/timeout-keep-alive.txt");
    let tree = Tree::new();
    for folder in ["one", "two", "two/one"] {
        tree.folder(folder).file(format!("{folder}/000001.txt"), transcript);
    }
    tree.file("one/a__b.txt", transcript).file("one/a-B.txt", transcript);
    let mut process = Process::start(
        Command::new(program()).args(["replay", "--emit-test", "one", "two", "two/one"]).current_dir(tree.root()),
    );
    assert_eq!(process.ended().code(), Some(0));
    let text = String::from_utf8(process.stdout.bytes()).expect("text");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("fn ")?.strip_suffix("() {")).collect();
    let expected = [
        "recorded_one_000001",
        "recorded_one_a_b",
        "recorded_one_a_b_2",
        "recorded_two_000001",
        "recorded_one_000001_2",
    ];
    assert_eq!(names, expected);
    let needs = |name: &str| format!("// sanserve-{name} = {{ path = \"{}/{name}\" }}", env!("CARGO_MANIFEST_DIR"));
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("// sanserve-")).collect();
    assert_eq!(said, [needs("core"), needs("transcript")]);
}

/// Sizes and times may have units.
#[test]
fn units() {
    let tree = Tree::plain();
    let (server, _) = serve(&[
        "-b",
        "127.0.0.1",
        "-d",
        path(&tree),
        "--max-body=1.5KiB",
        "--grace=5m",
        "--head-timeout",
        "1h30m",
        "--keep-alive=500ms",
        "0",
    ]);
    for (length, status) in [(1536, 501), (1537, 413)] {
        let mut client = server.connect();
        let body = "x".repeat(length);
        client.send(format!("POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(client.response().status(), status, "{length}");
    }
}

/// `--lan` and `--qr` print how other devices reach the server, below the banner, which stays as it is.
#[test]
fn urls_for_other_devices() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let arguments = ["-b", "127.0.0.1", "-d", path(&tree), "--runtime", runtime.name(), "--lan", "0"];
        let (server, banner) = serve(&arguments);
        let port = server.address().port();
        assert_eq!(banner, format!("Serving HTTP on 127.0.0.1 port {port} (http://127.0.0.1:{port}/) ..."));
        let line = server
            .process()
            .stdout
            .line("about the network", |line| line.contains("network") || line.contains("Other"));
        assert!(line.starts_with("Other devices cannot reach this server: it listens only on loopback"), "{line}");
    }
    let (server, _) = serve(&["-d", path(&tree), "--qr", "0"]);
    let port = server.address().port();
    let line = server.process().stdout.line("about the network", |line| line.contains("network"));
    if line.starts_with("Other devices") {
        assert!(line.contains("no address on a network"), "{line}");
        return;
    }
    assert!(line.starts_with("On the network (") && line.ends_with(&format!(":{port}/")), "{line}");
    // The output is a pipe, so the code has no colors.
    let drawn = server.process().stdout.line("a QR code", |line| line.starts_with("████"));
    assert!(drawn.chars().count() >= 29 && drawn.chars().all(|c| c == '█'), "{drawn}");
}

/// `--open` runs the system's opener, which neither delays nor ends the server.
#[test]
fn a_browser_is_opened() {
    let tree = Tree::plain();
    let tools = tempfile::tempdir().expect("a temporary directory");
    let opener = tools.path().join(if cfg!(target_os = "macos") { "open" } else { "xdg-open" });
    let opened = tools.path().join("opened");
    let script = |text: &str| {
        fs::write(&opener, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).expect("executable");
    };
    let start = |runtime: Runtime| {
        let mut command = Command::new(program());
        command.args(["-b", "127.0.0.1", "-d", path(&tree), "--runtime", runtime.name(), "--open", "0"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", tools.path().display()));
        Server::of(Process::start(&mut command))
    };
    let is_served = |server: &Server| {
        let mut client = server.connect();
        client.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    };
    let wait = "exec sleep 3600";
    for runtime in Runtime::ALL {
        // An opener that becomes the browser, and does not end.
        script(&format!("echo \"$@\" > {0}.part; mv {0}.part {0}; echo noise; {wait}", opened.display()));
        let mut server = start(runtime);
        is_served(&server);
        eventually("the opener has run", || opened.exists());
        let url = fs::read_to_string(&opened).expect("text");
        assert_eq!(url, format!("http://127.0.0.1:{}/\n", server.address().port()));
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended().code(), Some(0));
        assert_eq!(server.process().stdout.so_far().len(), 1, "the output of the opener is not that of the server");
        fs::remove_file(&opened).expect("it was written");

        // One that fails.
        script("exit 3");
        let server = start(runtime);
        let line = server.process().stderr.line("an error", |line| line.contains("browser"));
        assert!(
            line.starts_with("sanserve: cannot open http://127.0.0.1:") && line.contains("exit status: 3"),
            "{line}"
        );
        is_served(&server);
    }
    // None at all.
    fs::remove_file(&opener).expect("it was written");
    let mut command = Command::new(program());
    command.args(["-b", "127.0.0.1", "-d", path(&tree), "--open", "0"]).env("PATH", tools.path());
    let server = Server::of(Process::start(&mut command));
    let line = server.process().stderr.line("an error", |line| line.contains("browser"));
    assert!(line.ends_with("-open: No such file or directory") || line.ends_with("open: No such file or directory"));
    is_served(&server);
}

/// The directory for recordings is created, but not its parents.
#[test]
fn the_directory_for_recordings_is_created() {
    let tree = Tree::plain();
    let at = |name| tree.outside().join(name).to_str().expect("text").to_owned();
    let (typo, deep) = (at("typo"), at("typo/x/y"));
    for runtime in Runtime::ALL {
        let arguments = ["-b", "127.0.0.1", "-d", path(&tree), "--runtime", runtime.name(), "--record", &deep, "0"];
        system_error(&arguments, "typo/x");
        assert!(fs::symlink_metadata(&typo).is_err());
    }
    let file = tree.path("a.txt");
    let file = file.to_str().expect("text");
    system_error(&["-b", "127.0.0.1", "-d", path(&tree), "--record", file, "0"], &format!("{file}: Not a directory"));
    std::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    let ended = ["-b", "127.0.0.1", "-d", path(&tree), "--record", &at("dangling"), "0"];
    system_error(&ended, "it is a symbolic link whose target does not exist");
    for made in ["made", "made", "made/", "made/.", "dotted/."].map(at) {
        serve(&["-b", "127.0.0.1", "-d", path(&tree), "--record", &made, "0"]);
        assert_eq!(fs::metadata(&made).expect("made").permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn arguments_that_are_not_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let ended = run(&[OsStr::from_bytes(b"\xff")]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let ended = run(&[OsStr::new("-b"), OsStr::from_bytes(b"\xff"), OsStr::new("0")]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let ended = run(&[OsStr::new("-d"), OsStr::from_bytes(b"/no/such/\xff"), OsStr::new("0")]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}

#[test]
fn a_directory_that_is_not_utf_8_is_served() {
    let tree = Tree::new();
    tree.folder(b"\xff").file(b"\xff/a.txt", "alpha\n");
    let server = Server::start(Runtime::Mio, &tree.path(b"\xff"));
    assert_eq!(server.get("/a.txt").body, b"alpha\n");
}

#[test]
fn system_errors() {
    let tree = Tree::plain();
    system_error(&["-b", "127.0.0.1", "-d", "/no/such/directory", "0"], "/no/such/directory");
    let file = tree.path("a.txt");
    let file = file.to_str().expect("a temporary path is text");
    system_error(&["-b", "127.0.0.1", "-d", file, "0"], file);
    for runtime in Runtime::ALL {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port().to_string();
        let arguments = ["-b", "127.0.0.1", "-d", path(&tree), "--runtime", runtime.name(), &port];
        system_error(&arguments, &port);
    }
    system_error(&["-b", "no-such-host.invalid", "-d", path(&tree), "0"], "no-such-host.invalid");
    system_error(&["-b", "192.0.2.1", "-d", path(&tree), "0"], "192.0.2.1");
}

/// Two servers on one port: `SO_REUSEPORT` must not let the second one take over connections.
#[test]
fn a_port_is_not_shared_with_another_server() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let server = Server::start(runtime, tree.root());
        let port = server.address().port().to_string();
        for second in Runtime::ALL {
            let arguments = ["-b", "127.0.0.1", "-d", path(&tree), "--runtime", second.name(), &port];
            system_error(&arguments, &port);
        }
        assert_eq!(server.get("/a.txt").status(), 200);
    }
}

#[test]
fn version() {
    let ended = run(&["--version"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout, concat!("sanserve ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(run(&["-V"]).stdout, ended.stdout);
}

/// Each help page can be requested in two ways, and fits a terminal.
#[test]
fn pages_of_help() {
    let commands = ["replay", "trace", "explain", "sim", "conform"];
    let mut pages = vec![run(&["help"])];
    assert_eq!(pages[0].stdout, run(&["--help"]).stdout);
    assert_eq!(pages[0].stdout, run(&["help", "--help"]).stdout);
    for name in commands {
        assert!(pages[0].stdout.contains(&format!("\n  {name} ")), "{name}");
        let page = run(&["help", name]);
        assert_eq!(page.stdout, run(&[name, "--help"]).stdout);
        pages.push(page);
    }
    for heading in [
        "Commands",
        "Arguments",
        "Options",
        "Rules of the site",
        "Limits",
        "Timeouts",
        "CGI scripts",
        "Recording and tracing",
    ] {
        assert!(pages[0].stdout.contains(&format!("\n{heading}:\n")), "{heading}");
    }
    for page in pages {
        assert_eq!((page.code, page.stderr.as_str()), (Some(0), ""));
        for line in page.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn help_mentions_every_flag() {
    let long = run(&["--help"]);
    assert_eq!((long.code, long.stderr.as_str()), (Some(0), ""));
    assert!(long.stdout.to_lowercase().contains("usage: sanserve "), "{}", long.stdout);
    for flag in [
        "-h",
        "--help",
        "-b",
        "--bind",
        "unix:PATH",
        "--socket-mode",
        "-d",
        "--directory",
        "-p",
        "--protocol",
        "--runtime",
        "mio",
        "std",
        "smol",
        "--workers",
        "--io-threads",
        "-q",
        "--quiet",
        "--version",
        "port",
        "--head-timeout",
        "--keep-alive",
        "--body-timeout",
        "--write-timeout",
        "--grace",
        "--max-connections",
        "--max-body",
        "--cgi",
        "--cgi-dir",
        "--cgi-env",
        "--cgi-max",
        "--cgi-timeout",
        "--cgi-half-close",
        "--cgi-chunked",
        "-H",
        "--header <[PATTERN=]FIELD>",
        "--header-always",
        "--cache",
        "--cors[=<ORIGIN>]",
        "--isolate[=<credentialless>]",
        "--nosniff",
        "--route-prefix",
        "--redirect",
        "--index",
        "--clean-urls",
        "--spa[=<FILE>]",
        "--no-listing",
        "--error-page",
    ] {
        assert!(long.stdout.contains(flag), "{flag} in {}", long.stdout);
    }
    assert_eq!(run(&["-h"]).stdout, long.stdout);
}

#[test]
fn the_banner_of_ipv4() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let (server, banner) = serve(&["-b", "127.0.0.1", "-d", path(&tree), "--runtime", runtime.name(), "0"]);
        let port = server.address().port();
        assert_ne!(port, 0);
        assert_eq!(banner, format!("Serving HTTP on 127.0.0.1 port {port} (http://127.0.0.1:{port}/) ..."));
        assert_eq!(server.get("/a.txt").status(), 200);
    }
}

/// Only the URL contains brackets.
#[test]
fn the_banner_of_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no IPv6 loopback; nothing is tested");
        return;
    }
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        let (server, banner) = serve(&["-b", "::1", "-d", path(&tree), "--runtime", runtime.name(), "0"]);
        let port = server.address().port();
        assert_eq!(banner, format!("Serving HTTP on ::1 port {port} (http://[::1]:{port}/) ..."));
        let mut client = Client::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
        server.log_line("with the IPv6 peer", |line| line.starts_with("::1 - - ["));
    }
}

/// All interfaces, both address families. A peer of IPv4 is logged as such.
#[test]
fn the_banner_of_all_interfaces() {
    let tree = Tree::plain();
    let ipv6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    for runtime in Runtime::ALL {
        let (server, banner) = serve(&["-d", path(&tree), "--runtime", runtime.name(), "0"]);
        let port = server.address().port();
        let host = if ipv6 { ["::", "[::]"] } else { ["0.0.0.0", "0.0.0.0"] };
        assert_eq!(banner, format!("Serving HTTP on {} port {port} (http://{}:{port}/) ...", host[0], host[1]));
        assert_eq!(server.get("/a.txt").status(), 200);
        server.log_line("with the IPv4 peer", |line| line.starts_with("127.0.0.1 - - ["));
        let (server, banner) = serve(&["-b", "0.0.0.0", "-d", path(&tree), "--runtime", runtime.name(), "0"]);
        let port = server.address().port();
        assert_eq!(banner, format!("Serving HTTP on 0.0.0.0 port {port} (http://0.0.0.0:{port}/) ..."));
        assert_eq!(server.get("/a.txt").status(), 200);
    }
}

/// The response to a GET on a Unix socket, with its head.
#[track_caller]
fn get_over_unix(socket: &Path) -> String {
    let mut client = UnixStream::connect(socket).expect("the server accepts connections");
    client.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    client.write_all(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is read");
    let mut text = String::new();
    client.read_to_string(&mut text).expect("a response");
    text
}

/// Starts a server on this Unix socket alone.
#[track_caller]
fn serve_unix(runtime: Runtime, tree: &Tree, socket: &Path, flags: &[&str]) -> Process {
    let bind = format!("unix:{}", socket.display());
    let mut command = Command::new(program());
    command.args(["--runtime", runtime.name(), "-b", &bind, "-d", path(tree)]).args(flags);
    let process = Process::start(&mut command);
    let banner = process.stdout.line("the banner", |line| line.starts_with("Serving HTTP on "));
    assert_eq!(banner, format!("Serving HTTP on {bind} ..."));
    process
}

/// Serving on a Unix socket: its permissions, its name in the log, and that it is removed at the end, however the server
/// is told to end.
#[test]
fn a_unix_socket_is_served_and_removed() {
    let (tree, sockets) = (Tree::plain(), Tree::new());
    tree.sparse("big.bin", 64 << 20);
    for runtime in Runtime::ALL {
        let socket = sockets.path("s");
        let mut server = serve_unix(runtime, &tree, &socket, &["--socket-mode", "0620"]);
        assert_eq!(fs::metadata(&socket).expect("bound").permissions().mode() & 0o777, 0o620);
        assert!(get_over_unix(&socket).ends_with("\r\n\r\nalpha\n"));
        server.stderr.line("without an address", |line| line.starts_with("unix: - - [") && line.contains("/a.txt"));
        server.signal(Signal::TERM);
        assert_eq!(server.ended().code(), Some(0), "{runtime:?}");
        assert!(!socket.exists(), "{runtime:?}");

        // A second signal ends it while a request is in progress.
        let mut server = serve_unix(runtime, &tree, &socket, &[]);
        let mut client = UnixStream::connect(&socket).expect("the server accepts connections");
        client.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is read");
        client.read_exact(&mut [0]).expect("the response has begun");
        assert!(get_over_unix(&socket).starts_with("HTTP/1.1 200 "));
        server.signal(Signal::INT);
        server.stdout.line("what is in progress", |line| line.starts_with("Finishing 1 request in progress"));
        server.signal(Signal::INT);
        assert_eq!(server.ended().code(), Some(130), "{runtime:?}");
        assert!(!socket.exists(), "{runtime:?}");
    }
}

/// A socket that was left behind is replaced. A socket in use, or any other file, is not.
#[test]
fn only_a_unix_socket_that_was_left_behind_is_replaced() {
    let (tree, sockets) = (Tree::plain(), Tree::new());
    for runtime in Runtime::ALL {
        let socket = sockets.path("s");
        let mut server = serve_unix(runtime, &tree, &socket, &[]);
        server.signal(Signal::KILL);
        server.ended();
        assert!(socket.exists(), "a process that is killed leaves its socket behind");
        let mut server = serve_unix(runtime, &tree, &socket, &[]);
        let bind = format!("unix:{}", socket.display());
        let arguments = ["--runtime", runtime.name(), "-d", path(&tree), "-b", &bind];
        system_error(&arguments, &format!("cannot listen on {bind}: address in use"));
        assert!(get_over_unix(&socket).ends_with("\r\n\r\nalpha\n"));
        server.signal(Signal::TERM);
        assert_eq!(server.ended().code(), Some(0));

        fs::write(&socket, "precious").expect("the socket is removed");
        system_error(&arguments, &format!("cannot listen on {bind}: the file exists and is not a socket"));
        assert_eq!(fs::read(&socket).expect("it is still there"), b"precious");
        fs::remove_file(&socket).expect("it is there");
        let long = format!("unix:{}", "x".repeat(200));
        system_error(&["-d", path(&tree), "-b", &long], "the path of a Unix socket is too long");
        // What was bound is removed if another address cannot be bound.
        let other = format!("unix:{}", sockets.path("no/s").display());
        system_error(&[&arguments[..], &["-b", &other]].concat(), &other);
        system_error(&[&arguments[..], &["-b", "192.0.2.1", "0"]].concat(), "192.0.2.1");
        assert!(!socket.exists(), "{runtime:?}");
    }
}

/// Starts the command as systemd does, with these descriptors as 3 and 4.
fn activate(descriptors: Vec<OwnedFd>, pid: &str, arguments: &[&str]) -> Child {
    let count = descriptors.len();
    let script = format!("exec 3<&0 4>&1 </dev/null >&2; LISTEN_FDS={count} LISTEN_PID={pid} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, program()]).args(arguments).stderr(Stdio::piped());
    let mut descriptors = descriptors.into_iter();
    command.stdin(descriptors.next().expect("one at least"));
    command.stdout(descriptors.next().map_or_else(Stdio::null, Stdio::from));
    command.spawn().expect("a shell")
}

/// Sockets that systemd has opened are served, instead of those that are the default, and in addition to `--bind`.
#[test]
fn sockets_from_systemd() {
    let (tree, sockets) = (Tree::plain(), Tree::new());
    for runtime in Runtime::ALL {
        let socket = sockets.path("s");
        let (tcp, unix) =
            (TcpListener::bind("127.0.0.1:0").expect("a port"), UnixListener::bind(&socket).expect("new"));
        let address = tcp.local_addr().expect("bound");
        let other = sockets.path("other");
        let bind = format!("unix:{}", other.display());
        let arguments = ["--runtime", runtime.name(), "-d", path(&tree), "-b", &bind];
        let mut server = activate(vec![tcp.into(), unix.into()], "$$", &arguments);
        let mut lines = BufReader::new(server.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        let port = address.port();
        for expected in [
            format!("Serving HTTP on 127.0.0.1 port {port} (http://127.0.0.1:{port}/) ..."),
            format!("Serving HTTP on unix:{} ...", socket.display()),
            format!("Serving HTTP on {bind} ..."),
        ] {
            assert_eq!(lines.next(), Some(expected), "{runtime:?}");
        }
        assert_eq!(Client::connect(address).get("/a.txt").body, b"alpha\n");
        for socket in [&socket, &other] {
            assert!(get_over_unix(socket).ends_with("\r\n\r\nalpha\n"), "{runtime:?}");
        }
        kill_process(Pid::from_child(&server), Signal::TERM).expect("it runs");
        assert_eq!(server.wait().expect("a status").code(), Some(0), "{runtime:?}");
        assert!(socket.exists() && !other.exists(), "who has made a file removes it");
        fs::remove_file(&socket).expect("it is there");
    }
}

/// What is no listening socket is named, and what is for another process is left alone.
#[test]
fn wrong_sockets_from_systemd() {
    let tree = Tree::plain();
    let (accepted, _other) = UnixStream::pair().expect("a pair");
    let file = File::open("/dev/null").expect("a file");
    let tcp = || TcpListener::bind("127.0.0.1:0").expect("a port");
    for (descriptors, expected) in [
        (
            vec![OwnedFd::from(accepted)],
            "cannot listen on socket 1 of 1 in LISTEN_FDS: it is not a socket that listens",
        ),
        (vec![tcp().into(), file.into()], "cannot listen on socket 2 of 2 in LISTEN_FDS: fd 4 is not a socket"),
    ] {
        let server = activate(descriptors, "$$", &["-d", path(&tree)]);
        let output = server.wait_with_output().expect("a status");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let inherited = tcp();
    let port = inherited.local_addr().expect("bound").port();
    let mut server = activate(vec![inherited.into()], "1", &["-d", path(&tree), "-b", "127.0.0.1", "0"]);
    let mut banner = String::new();
    BufReader::new(server.stderr.take().expect("a pipe")).read_line(&mut banner).expect("a banner");
    kill_process(Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("a status").code(), Some(0));
    assert!(banner.starts_with("Serving HTTP on 127.0.0.1 port ") && !banner.contains(&port.to_string()), "{banner}");
}

/// An address that cannot be listened on is named.
#[test]
fn an_address_in_use() {
    let tree = Tree::plain();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    for runtime in Runtime::ALL {
        let port = address.port().to_string();
        let arguments = ["--runtime", runtime.name(), "-d", path(&tree), "-b", "127.0.0.1", &port];
        system_error(&arguments, &format!("cannot listen on {address}: Address already in use"));
    }
}

/// Each `--bind` is served and announced. All IP addresses have one port.
#[test]
fn several_addresses() {
    let (tree, sockets) = (Tree::plain(), Tree::new());
    let socket = sockets.path("s");
    let bind = format!("unix:{}", socket.display());
    for runtime in Runtime::ALL {
        let arguments = ["--runtime", runtime.name(), "-d", path(&tree)];
        let addresses = ["-b", "127.0.0.1", "-b", &bind, "-b", "127.0.0.2", "--bind", "127.0.0.1", "0"];
        let (mut server, _) = serve(&[&arguments[..], &addresses].concat());
        let port = server.address().port();
        server.process().stdout.line("the last banner", |line| line == format!("Serving HTTP on {bind} ..."));
        let ip = |ip: &str| format!("Serving HTTP on {ip} port {port} (http://{ip}:{port}/) ...");
        let banners = [ip("127.0.0.1"), ip("127.0.0.2"), format!("Serving HTTP on {bind} ...")];
        assert_eq!(server.process().stdout.so_far(), banners);
        assert_eq!(server.get("/a.txt").body, b"alpha\n");
        let mut second = Client::connect(SocketAddr::from(([127, 0, 0, 2], port)));
        assert_eq!(second.get("/a.txt").body, b"alpha\n");
        assert!(get_over_unix(&socket).ends_with("\r\n\r\nalpha\n"));
        server.process().signal(Signal::TERM);
        assert_eq!(server.process_mut().ended().code(), Some(0));
        assert!(!socket.exists(), "{runtime:?}");

        // An address that this machine does not have is not skipped because it has another one.
        system_error(&[&arguments[..], &["-b", "127.0.0.1", "-b", "192.0.2.1", "0"]].concat(), "192.0.2.1");
        let taken = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port().to_string();
        system_error(&[&arguments[..], &["-b", "127.0.0.1", "-b", "127.0.0.2", &port]].concat(), "127.0.0.2");
    }
}

#[test]
fn flags_may_be_written_in_several_ways() {
    let tree = Tree::plain();
    let directory = path(&tree);
    let joined = format!("--directory={directory}");
    let glued = format!("-d{directory}");
    for arguments in [
        &["--bind=127.0.0.1", joined.as_str(), "--protocol=HTTP/1.1", "--runtime=std", "--workers=2", "0"][..],
        &["0", "--bind", "127.0.0.1", "--directory", directory],
        &["-b", "127.0.0.1", "0", "-d", directory, "-q"],
        &["-b127.0.0.1", &glued, "0"],
        &["-qb", "127.0.0.1", "-d", directory, "0"],
        &["-b", "127.0.0.1", "-d", directory, "--", "0"],
        &["-b", "localhost", "-d", directory, "--head-timeout", "1.5", "--keep-alive=.5", "--grace", "2", "0"],
    ] {
        let (server, _) = serve(arguments);
        let mut client = if arguments.contains(&"localhost") {
            let addresses = [SocketAddr::from((Ipv6Addr::LOCALHOST, server.address().port())), server.address()];
            let open = addresses.into_iter().find(|address| std::net::TcpStream::connect(address).is_ok());
            Client::connect(open.expect("one of the two"))
        } else {
            server.connect()
        };
        assert_eq!(client.get("/a.txt").body, b"alpha\n", "{arguments:?}");
    }
}

/// As in Python's argparse, the last of several occurrences of a flag counts, unless it may be repeated, and names may
/// be abbreviated.
#[test]
fn repeated_and_abbreviated_flags() {
    let tree = Tree::plain();
    let directory = path(&tree);
    for arguments in [
        &["-d", "/no/such/directory", "-d", directory, "-b127.0.0.1", "0"][..],
        &["--directory=/no/such/directory", "--bind", "127.0.0.1", "0", "-d", directory],
        &["-p", "HTTP/1.0", "--protocol=HTTP/1.1", "-q", "-q", "-b", "127.0.0.1", "-d", directory, "0"],
        &["--dir", directory, "--bi=127.0.0.1", "--prot", "HTTP/1.1", "--run=std", "--work", "3", "--qui", "0"],
    ] {
        let (server, _) = serve(arguments);
        assert_eq!(server.connect().get("/a.txt").body, b"alpha\n", "{arguments:?}");
    }
    assert_eq!(run(&["--vers"]).stdout, run(&["--version"]).stdout);
}

/// The limit of connections is that of the server: no client waits for a full worker while another has room.
#[test]
fn workers_share_the_limit_of_connections() {
    let tree = Tree::plain();
    tree.sparse("big.bin", 64 << 20);
    for workers in ["1", "2", "4"] {
        let server = Server::with(Runtime::Mio, tree.root(), &["--workers", workers, "--max-connections", "8"]);
        for _ in 0..5 {
            let mut held: Vec<Client> = (0..8).map(|_| server.connect()).collect();
            for client in &mut held {
                client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
                client.skip(1_000);
            }
            let mut others: Vec<Client> = (0..8).map(|_| server.connect()).collect();
            for client in &mut others {
                client.send("GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n");
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!others.iter_mut().any(|client| client.is_readable()), "{workers}: the limit is exceeded");
            drop(held);
            for client in &mut others {
                assert_eq!(client.response().body, b"<p>beta</p>\n", "{workers}");
            }
        }
    }
}

/// The current directory is served by default, and `-d` may be relative to it.
#[test]
fn directories() {
    let tree = Tree::plain();
    for (arguments, target) in [
        (&["-b", "127.0.0.1", "0"][..], "/a.txt"),
        (&["-b", "127.0.0.1", "-d", "folder", "0"], "/inner.txt"),
        (&["-b", "127.0.0.1", "-d", "folder/..", "0"], "/a.txt"),
    ] {
        let server = Server::of(Process::start(Command::new(program()).args(arguments).current_dir(tree.root())));
        assert_eq!(server.get(target).status(), 200, "{arguments:?}");
    }
}

/// Any number of workers serves the same files. On std, it is the number of concurrent connections.
#[test]
fn workers() {
    let tree = Tree::plain();
    for runtime in Runtime::ALL {
        for (workers, connections) in [("1", 1), ("2", 2), ("5", 5)] {
            let mut server = Server::with(runtime, tree.root(), &["--workers", workers]);
            for _ in 0..5 {
                let mut clients: Vec<Client> = (0..connections).map(|_| server.connect()).collect();
                for client in &mut clients {
                    assert_eq!(client.get("/a.txt").body, b"alpha\n", "{runtime:?} {workers}");
                }
            }
            server.process().signal(Signal::TERM);
            assert_eq!(server.process_mut().ended().code(), Some(0), "{runtime:?} {workers}");
        }
    }
}

/// One worker of std serves one connection at a time, as Python's `HTTPServer` does. The next one waits until it has
/// ended.
#[test]
fn one_at_a_time() {
    let tree = Tree::plain();
    let server = Server::with(Runtime::Std, tree.root(), &["--workers", "1"]);
    let mut first = server.connect();
    assert_eq!(first.get("/a.txt").status(), 200);
    let mut second = server.connect();
    second.send("GET /b.html HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(first.get("/a.txt").status(), 200);
    assert!(!second.is_readable(), "the second connection is served");
    drop(first);
    assert_eq!(second.response().body, b"<p>beta</p>\n");
}

/// `--cgi`, also abbreviated where that is unambiguous, runs scripts; without it they are files.
#[test]
fn scripts() {
    let tree = Tree::new();
    tree.folder("cgi-bin").folder("htbin").folder("other");
    // The user of the scripts must be able to reach them.
    fs::set_permissions(tree.outside(), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
    let text = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n%s %s' \"$SCRIPT_NAME\" \"$OF_CALLER\"\n";
    for folder in ["cgi-bin", "htbin", "other"] {
        testkit::scripts::install(&tree, folder, &[("x", text)]);
    }
    let directory = path(&tree);
    let all = ["/cgi-bin/x", "/htbin/x", "/other/x"];
    for (flags, run) in [
        (&[][..], &[][..]),
        (&["--cgi"], &all[..2]),
        (&["--cgi", "--cgi"], &all[..2]),
        (&["--cgi", "--cgi-dir", "other"], &all[2..]),
        (
            &["--cgi-dir=/other/", "--cgi", "--cgi-di", "/cgi-bin", "--cgi-t=9", "--cgi-c=spool"],
            &["/other/x", "/cgi-bin/x"],
        ),
        (&["--cgi", "--cgi-env", "OF_CALLER"], &all[..2]),
    ] {
        let mut command = Command::new(program());
        command.args(["-b", "127.0.0.1", "-d", directory]).args(flags).arg("0").env("OF_CALLER", "known");
        let server = Server::of(Process::start(&mut command));
        let known = if flags.contains(&"OF_CALLER") { "known" } else { "" };
        for target in all {
            let answer = server.get(target);
            let expected = if run.contains(&target) { format!("{target} {known}") } else { text.to_owned() };
            assert_eq!((answer.status(), answer.body_text()), (200, expected.as_str()), "{target} with {flags:?}");
        }
    }
}

/// Output that is not read, or is closed, does not stop the server.
#[test]
fn closed_output() {
    let tree = Tree::plain();
    let mut shell = Command::new("sh");
    let script = "exec \"$0\" \"$@\" 2>&-";
    let server =
        Server::of(Process::start(shell.args(["-c", script, program(), "-b", "127.0.0.1", "-d", path(&tree), "0"])));
    for _ in 0..10 {
        assert_eq!(server.get("/a.txt").body, b"alpha\n");
    }
}

/// As the entry point of a container: orphans are reaped, signals are forwarded, and the exit code is that of the
/// server. Without permission for a name space of its own, nothing is tested.
#[cfg(target_os = "linux")]
#[test]
fn process_1() {
    let own = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new("unshare").args(own).arg("true").status().is_ok_and(|status| status.success()) {
        return;
    }
    let tree = Tree::new();
    let orphans = "#!/bin/sh\nsetsid sleep 0.05 <&- >&- 2>&- &\nsh -c 'sleep 0.05 & setsid sleep 0.1 &' <&- >&- 2>&-\n\
                   printf 'X: y\\n\\n'\n";
    let processes = "#!/bin/sh\nprintf 'X: y\\n\\n'\ncat /proc/[0-9]*/stat\nexit 0\n";
    fs::create_dir(tree.root().join("cgi-bin")).expect("a fresh directory");
    testkit::scripts::install(&tree, "cgi-bin", &[("orphans", orphans), ("processes", processes)]);
    for runtime in ["mio", "std", "smol"] {
        let mut command = Command::new("unshare");
        command.args(own).arg(program()).args([
            "--cgi",
            "-b",
            "127.0.0.1",
            "--runtime",
            runtime,
            "-d",
            path(&tree),
            "0",
        ]);
        let mut server = Server::of(Process::start(&mut command));
        for _ in 0..5 {
            assert_eq!(server.get("/cgi-bin/orphans").status(), 200);
        }
        testkit::eventually("no zombie is left", || {
            let answer = server.get("/cgi-bin/processes");
            let all = answer.body_text();
            assert!(all.lines().any(|line| line.starts_with("1 (sanserve) ")), "{all}");
            !all.contains(") Z ") && !all.contains("(sleep)")
        });
        let unshare = server.process().pid().as_raw_pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("the path exists");
        let first = rustix::process::Pid::from_raw(children.trim().parse().expect("one child")).expect("a number");
        rustix::process::kill_process(first, Signal::TERM).expect("the process exists");
        assert_eq!(server.process_mut().ended().code(), Some(0), "{runtime}");
    }
}

/// A server that cannot start reports why in one line, on every runtime.
#[test]
fn too_few_resources_to_start() {
    let tree = Tree::plain();
    for runtime in ["mio", "std", "smol"] {
        // Enough for the program itself, but too little for a server: descriptors, or KiB of address space.
        let descriptors = (4..16).map(|n| format!("ulimit -n {n}"));
        for limit in descriptors.chain([20, 24, 28, 32].map(|n| format!("ulimit -v {}", n * 1024))) {
            let command = format!("{limit}; exec \"$0\" \"$@\"");
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &command, program(), "--runtime", runtime, "-b", "127.0.0.1", "-d"])
                .arg(tree.root())
                .arg("0");
            let output = shell.stdin(std::process::Stdio::null()).output().expect("a shell");
            let text = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{runtime} with {limit}: {text}");
            assert!(text.starts_with("sanserve: ") && text.lines().count() == 1, "{runtime} with {limit}: {text}");
        }
    }
}

/// Many clients with long heads in little memory: other requests are answered, and nothing is aborted.
#[test]
fn many_heads_in_little_memory() {
    let tree = Tree::plain();
    let head = [b"GET /a.txt HTTP/1.1\r\nHost: x\r\nX: ", &[b'x'; 60_000][..]].concat();
    for runtime in ["mio", "std", "smol"] {
        for limit in ["ulimit -v 204800", "ulimit -d 204800"] {
            let command = format!("{limit}; exec \"$0\" \"$@\"");
            let mut shell = Command::new("sh");
            shell.args(["-c", &command, program(), "--runtime", runtime, "-b", "127.0.0.1", "-d", path(&tree), "0"]);
            let mut server = Server::of(Process::start(&mut shell));
            let clients: Vec<_> = (0..900)
                .map(|_| {
                    let client = std::net::TcpStream::connect(server.address()).expect("the server listens");
                    client.set_nonblocking(true).expect("a socket");
                    // As much as the socket accepts, without waiting.
                    let _ = (&client).write(&head);
                    client
                })
                .collect();
            assert_eq!(server.get("/a.txt").status(), 200, "{runtime}, {limit}");
            drop(clients);
            assert_eq!(server.get("/a.txt").status(), 200, "{runtime}, {limit}");
            rustix::process::kill_process(server.process().pid(), Signal::TERM).expect("the process exists");
            assert_eq!(server.process_mut().ended().code(), Some(0), "{runtime}, {limit}");
        }
    }
}

/// With few descriptors, there are more connections than files that may be open: what finds none is 503, and once others
/// have ended, the next one is served.
#[test]
fn more_downloads_than_descriptors() {
    let tree = Tree::plain();
    tree.sparse("big", 16 << 20);
    for runtime in Runtime::ALL {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "ulimit -n 200; exec \"$0\" \"$@\"",
            program(),
            "--runtime",
            runtime.name(),
            "-b",
            "127.0.0.1",
        ]);
        let server = Server::of(Process::start(shell.args(["-d", path(&tree), "0"])));
        // Of 200, 50 are kept back for files and 32 for the server itself.
        let mut clients: Vec<_> = (0..118).map(|_| Client::connect_narrow(server.address())).collect();
        // Otherwise the first files could take the descriptors of the last connections, which would have to wait.
        let descriptors = format!("/proc/{}/fd", server.process().pid().as_raw_pid());
        eventually("all are accepted", || fs::read_dir(&descriptors).is_ok_and(|open| open.count() > 118 + 4));
        clients.iter_mut().for_each(|client| client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n"));
        let heads: Vec<_> = clients.iter_mut().map(Client::head).collect();
        let count = |status| heads.iter().filter(|head| head.status == status).count();
        let (served, refused) = (count(200), count(503));
        assert_eq!(served + refused, 118, "{runtime:?}");
        assert!(served >= 50 && refused > 0, "{runtime:?}: {served} are served");
        drop(clients);
        eventually("descriptors are free again", || {
            let mut client = Client::connect_narrow(server.address());
            client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
            client.head().status == 200
        });
    }
}

/// On runtimes without a thread for each connection, a client that reads a file slowly takes little memory.
#[test]
fn slow_readers_take_little_memory() {
    let tree = Tree::plain();
    tree.sparse("big", 16 << 20);
    for runtime in [Runtime::Mio, Runtime::Smol] {
        let server = Server::unrecorded(runtime, tree.root(), runtime.alone());
        let resident = || {
            let status = fs::read_to_string(format!("/proc/{}/status", server.process().pid().as_raw_pid()));
            let status = status.expect("the server runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
        };
        let read_slowly = |count| {
            let mut clients: Vec<_> = (0..count).map(|_| Client::connect_narrow(server.address())).collect();
            clients.iter_mut().for_each(|client| client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n"));
            clients.iter_mut().for_each(|client| assert_eq!(client.head().status, 200));
            clients
        };
        let first = read_slowly(100);
        let before = resident();
        let others = read_slowly(500);
        let each = resident().saturating_sub(before) / others.len();
        assert!(each <= 2 * 1024, "{runtime:?}: {each} bytes for each");
        // Their downloads continue.
        for mut client in first.into_iter().chain(others).step_by(400) {
            assert_eq!(client.count(16 << 20), 16 << 20, "{runtime:?}");
        }
    }
}

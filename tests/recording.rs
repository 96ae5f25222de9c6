//! `--record`, `--trace` and `replay` from the view of a user, on every runtime.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use sanserve_transcript::{Transcript, What};
use tempfile::TempDir;
use testkit::process::Process;
use testkit::server::program;
use testkit::{Client, Runtime, Server, Tree, eventually};

/// Runs a command, and returns its exit code and its output.
fn run(arguments: &[&str], files: &[&Path]) -> (i32, String, String) {
    let mut process = Process::start(Command::new(program()).args(arguments).args(files));
    let status = process.ended();
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("no signal"), text(process.stdout.bytes()), text(process.stderr.bytes()))
}

/// A server that records in a directory of its own.
struct Bench {
    server: Server,
    recordings: TempDir,
    _tree: Tree,
}

impl Bench {
    fn new(rt: Runtime, flags: &[&str]) -> Bench {
        let tree = Tree::plain();
        tree.patterned("1m.bin", 1_000_003);
        let recordings = tempfile::tempdir().expect("a temporary directory");
        let directory = recordings.path().to_str().expect("text");
        let flags = [&["--record", directory], flags].concat();
        let server = Server::unrecorded(rt, tree.root(), &flags);
        Bench { server, recordings, _tree: tree }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.recordings.path()).expect("recordings");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
    }

    /// Shuts the server down as a user would.
    fn end(&mut self) {
        self.server.process().signal(Signal::TERM);
        self.server.process_mut().ended();
    }

    /// The recordings, after the server has ended.
    fn texts(&self) -> Vec<String> {
        self.files().iter().map(|path| fs::read_to_string(path).expect("a recording")).collect()
    }
}

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";

/// Exchanges of several kinds, each on a connection of its own; the last one stays open.
fn traffic(server: &Server) -> Client {
    assert_eq!(server.get("/a.txt").status(), 200);
    assert_eq!(server.get("/folder/").status(), 200);
    assert_eq!(server.get("/1m.bin").status(), 200);
    assert_eq!(server.ask("GET / HTTP/1.1\r\nHost: x\r\nBad : x\r\n\r\n").status(), 400);
    assert_eq!(server.ask("POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").status(), 501);
    let mut client = server.connect();
    for byte in GET.repeat(2).as_bytes() {
        client.send([*byte]);
    }
    for _ in 0..2 {
        assert_eq!(client.response_to(GET.as_bytes()).status(), 200);
    }
    client
}

#[test]
fn recordings_of_every_runtime_replay_the_same() {
    for rt in Runtime::ALL {
        let mut bench = Bench::new(rt, &[]);
        let client = traffic(&bench.server);
        bench.end();
        drop(client);
        let files = bench.files();
        assert_eq!(files.len(), 6, "one recording per connection");
        for (path, text) in files.iter().zip(bench.texts()) {
            assert!(text.contains(&format!(" on {}.\n", rt.name())), "{text}");
            let (code, stdout, stderr) = run(&["replay"], &[path]);
            assert!(stdout.ends_with(" steps\n") && stdout.contains(": same, "), "{stdout}{stderr}{text}");
            assert_eq!((code, stderr.as_str()), (0, ""));
        }
        let (code, stdout, _) = run(&["replay"], &[bench.recordings.path()]);
        assert_eq!((code, stdout.lines().count()), (0, 6), "a directory stands for its files");
        let (code, stdout, stderr) = run(&["conform"], &[bench.recordings.path()]);
        assert_eq!((code, stdout.lines().last()), (0, Some("same")), "{stdout}{stderr}");
        assert!(stdout.starts_with("mio ") && !stdout.contains(" 0 transcripts"), "{stdout}");
    }
}

#[test]
fn the_first_step_that_differs_is_shown_with_both_sides() {
    let mut bench = Bench::new(Runtime::Mio, &[]);
    let client = traffic(&bench.server);
    bench.end();
    drop(client);
    let path = bench.files().pop().expect("a recording");
    let text = fs::read_to_string(&path).expect("text");
    // As if the current core had a different byte in the second response of a pipeline.
    let (at, _) = text.match_indices("Accept-Ranges").nth(1).expect("a second answer");
    let other = [&text[..at], "accept", &text[at + 6..]].concat();
    fs::write(&path, &other).expect("a file");
    let (code, stdout, stderr) = run(&["replay"], &[&path]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    let line = other[..at].lines().count();
    let begin = other[..at].rfind("\n@").expect("an event") + 1;
    let step = other[begin..].lines().next().expect("a line");
    assert!(step.ends_with(" send"), "{step}");
    let expected = format!(
        "{}: differs in line {line}\n  line {}: {step}\n  recorded: \"accept-Ranges: bytes\\r\\n\"\n  now:      \
         \"Accept-Ranges: bytes\\r\\n\"\n",
        path.display(),
        other[..begin].lines().count() + 1,
    );
    assert_eq!(stdout, expected);
}

#[test]
fn a_server_that_is_killed_leaves_usable_recordings() {
    for rt in Runtime::ALL {
        let mut bench = Bench::new(rt, &[]);
        let client = traffic(&bench.server);
        // The recording grows while the connection is open.
        let last = || bench.texts().pop().unwrap_or_default();
        eventually("two answers are recorded", || last().matches(" finished 200 ").count() == 2);
        bench.server.process_mut().kill();
        drop(client);
        let path = bench.files().pop().expect("a recording");
        let (code, stdout, stderr) = run(&["replay"], &[&path]);
        assert!(stdout.ends_with("steps, as far as it was recorded\n"), "{stdout}{stderr}");
        assert_eq!(code, 0);
    }
}

#[test]
fn credentials_are_masked_unless_they_are_requested() {
    let request = "GET /a.txt HTTP/1.1\r\nHost: x\r\nCookie: one=secret\r\nAuthorization: Basic c2VjcmV0OnNlY3JldA==\r\n\
                   Proxy-Authorization: secret\r\nConnection: close\r\n\r\n";
    for rt in Runtime::ALL {
        for flags in [&["--trace"][..], &["--trace", "--secrets"]] {
            let mut bench = Bench::new(rt, flags);
            assert_eq!(bench.server.ask(request).status(), 200);
            bench.end();
            let trace = bench.server.process().stderr.so_far().join("\n");
            for text in [bench.texts().remove(0), trace] {
                assert_eq!(text.contains("one=secret") || text.contains("c2Vj"), flags.len() == 2, "{text}");
            }
            assert_eq!(run(&["replay"], &[bench.recordings.path()]).0, 0);
        }
    }
}

#[test]
fn recordings_are_bounded_in_number_and_size() {
    for rt in Runtime::ALL {
        let mut bench = Bench::new(rt, &["--record-max", "3", "--record-size", "4000"]);
        for _ in 0..8 {
            assert_eq!(bench.server.get("/a.txt").status(), 200);
            // Each connection ends before the next begins, so that all can be recorded.
            eventually("the recording is complete", || {
                bench.texts().last().is_some_and(|text| text.contains(" close "))
            });
        }
        let mut client = bench.server.connect();
        for _ in 0..20 {
            client.send(GET);
            assert_eq!(client.response_to(GET.as_bytes()).status(), 200);
        }
        drop(client);
        bench.end();
        let texts = bench.texts();
        assert_eq!(texts.len(), 3);
        assert!(bench.files()[2].ends_with("000009.txt"), "{:?}", bench.files());
        assert!(texts[2].len() < 4_200 && texts[2].ends_with("it is longer than 4000 bytes.\n"), "{}", texts[2]);
        let (code, stdout, _) = run(&["replay"], &[bench.recordings.path()]);
        assert_eq!(code, 0, "{stdout}");
        assert!(stdout.ends_with("as far as it was recorded\n"), "{stdout}");
    }
}

#[test]
fn a_trace_has_a_line_for_each_event() {
    for rt in Runtime::ALL {
        let tree = Tree::plain();
        let mut server = Server::unrecorded(rt, tree.root(), &["--trace", "--quiet"]);
        assert_eq!(server.ask(GET).status(), 200);
        server.log_line("the end", |line| line.contains("close"));
        server.process().signal(Signal::TERM);
        server.process_mut().ended();
        let lines = server.process().stderr.so_far();
        let verbs: Vec<&str> = lines.iter().map(|line| line.split_ascii_whitespace().nth(2).expect("a verb")).collect();
        let known = ["accept", "wait", "recv", "open", "send", "finished", "close"];
        assert!(known.iter().all(|verb| verbs.contains(verb)), "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("#1  ") && line.len() <= 160 && line.is_ascii()), "{lines:?}");
        // Each verb begins in the same column.
        let column = lines[0].find("accept").expect("a verb");
        assert!(lines.iter().zip(&verbs).all(|(line, verb)| line[column..].starts_with(verb)), "{lines:?}");
    }
}

#[test]
fn the_emitted_test_passes_in_an_empty_crate() {
    let mut bench = Bench::new(Runtime::Std, &[]);
    let client = traffic(&bench.server);
    bench.end();
    drop(client);
    let (code, tests, stderr) = run(&["replay", "--emit-test"], &[bench.recordings.path()]);
    assert_eq!((code, stderr.as_str(), tests.matches("#[test]").count()), (0, "", 6));
    let krate = tempfile::tempdir().expect("a temporary directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(krate.path().join("src")).expect("a directory");
    fs::write(krate.path().join("src/lib.rs"), &tests).expect("a file");
    // The lines that the command prints for the manifest.
    let needs = tests.lines().filter_map(|line| Some(format!("sanserve-{}\n", line.strip_prefix("// sanserve-")?)));
    let needs: String = needs.collect();
    assert_eq!(needs.lines().count(), 2, "{needs}");
    let manifest = format!("[package]\nname = \"empty\"\nedition = \"2024\"\n[workspace]\n[dev-dependencies]\n{needs}");
    fs::write(krate.path().join("Cargo.toml"), manifest).expect("a file");
    // The versions that this program was built with are available.
    fs::copy(root.join("Cargo.lock"), krate.path().join("Cargo.lock")).expect("a file");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--offline", "--quiet", "--target-dir"])
        .arg(target)
        .current_dir(krate.path())
        .output()
        .expect("cargo runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("6 passed"), "{stdout}{stderr}");
}

#[test]
fn errors_of_replay_are_one_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        path
    };
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("a directory");
    for (path, says) in [
        (file("a.txt", ""), "not a transcript: it is empty"),
        (file("b.txt", "sanserve transcript 2\n"), "line 1: the first line is not"),
        (file("c.txt", "sanserve transcript 1\n@0 jump\n"), "line 2: unknown verb: jump"),
        (file("d.txt", "sanserve transcript 1\nsite mine\n@0 tick\n"), "made with the site \"mine\""),
        (dir.path().join("nothing"), "No such file or directory"),
        (empty, "no transcripts (NAME.txt)"),
    ] {
        let (code, stdout, stderr) = run(&["replay"], &[&path]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{stderr}");
        assert!(stderr.starts_with("sanserve: ") && stderr.contains(says), "{stderr}");
    }
    // A path that no driver can have found.
    let wrong = "sanserve transcript 1\ncgi /c\n@0 recv \"GET /c/x HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"\n\
                 @0 find c/x from 2 -> runnable 99\n";
    let (code, stdout, stderr) = run(&["replay"], &[&file("wrong.txt", wrong)]);
    assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
}

#[test]
fn directories_that_cannot_be_recorded_in() {
    let tree = Tree::plain();
    let root = tree.root().to_str().expect("text");
    let file = format!("{root}/a.txt");
    for (arguments, says) in [
        (&["--record", &file, "-d", root, "0"][..], "cannot record in"),
        (&["--record", root, "--secrets", "-d", root, "0"], "cannot record secrets"),
        (&["--record", root, "-d", root, "0"], "it is served; use a separate directory"),
    ] {
        let (code, stdout, stderr) = run(arguments, &[]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

/// Recordings below the served directory are neither served, under any name, nor listed.
#[test]
fn recordings_are_not_served() {
    for rt in [Runtime::Mio, Runtime::Std, Runtime::Smol] {
        for is_there in [false, true] {
            let tree = Tree::plain();
            if is_there {
                tree.folder("recordings");
            }
            tree.link("link", "recordings");
            tree.link("file-link", "recordings/000001.txt");
            let recordings = tree.root().join("recordings");
            let server = Server::unrecorded(rt, tree.root(), &["--record", recordings.to_str().expect("text")]);
            assert_eq!(server.get("/a.txt").status(), 200);
            let first = recordings.join("000001.txt");
            eventually("the connection is recorded", || fs::metadata(&first).is_ok_and(|file| file.len() > 0));
            fs::hard_link(&first, tree.root().join("hard.txt")).expect("another name");
            for target in [
                "/recordings",
                "/recordings/",
                "/recordings/000001.txt",
                "/%72ecordings/%30%30%30%30%30%31.txt",
                "/folder/../recordings//./000001.txt",
                "/link/",
                "/link/000001.txt",
                "/file-link",
                "/hard.txt",
            ] {
                let response = server.get(target);
                assert_eq!(response.status(), 404, "{rt:?} {is_there} {target}");
            }
            assert!(!fs::read_to_string(&first).expect("its owner may read it").is_empty());
        }
    }
}

/// A recording only contains what a replay needs: for a download, no bytes of the file.
#[test]
fn a_recording_of_a_download_is_small() {
    let mut bench = Bench::new(Runtime::Mio, &[]);
    assert_eq!(bench.server.get("/1m.bin").status(), 200);
    bench.end();
    let text = bench.texts().remove(0);
    assert!(text.len() < 4_000, "{text}");
    let transcript = Transcript::parse(&text).expect("a transcript");
    assert!(transcript.events().any(|event| matches!(event.what, What::Send(_))));
}

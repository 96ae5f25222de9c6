//! The five programs of `docs/from-tiny-http.md`, for tiny_http and for sanserve: both are compiled as they stand on the
//! page, outside the workspace, and respond to the same requests. Those for sanserve are not longer.
//!
//! tiny_http is no dependency of the workspace, since it has vulnerabilities that nobody fixes. Where cargo does not have
//! it, only the programs for sanserve are run.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::{TIMEOUT, Tree};

const PAGE: &str = include_str!("../docs/from-tiny-http.md");

/// The headings of the programs, with their names here.
const PROGRAMS: [(&str, &str); 5] = [
    ("The redirect of an OAuth login", "oauth"),
    ("Metrics of a program that does something else", "metrics"),
    ("A mock of another service, for a test", "mock"),
    ("A control socket", "control"),
    ("A server for development: files and an API", "development"),
];

/// The two programs below a heading: for tiny_http, and for sanserve.
fn programs(heading: &str) -> [&'static str; 2] {
    let section = PAGE.split(&format!("\n### {heading}\n")).nth(1).expect("the page has the heading");
    let section = section.split("\n### ").next().expect("a section");
    let blocks: Vec<&str> = section.split("```rust").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [before, after] = blocks[..] else { panic!("{heading}: {} programs", blocks.len()) };
    let (before, after) = (before.strip_prefix(",ignore\n").expect("not compiled"), after.trim_start());
    assert!(before.contains("use tiny_http::") && after.contains("use sanserve_std::"), "{heading}");
    [before, after]
}

/// Lines that are neither empty nor a comment.
fn length(program: &str) -> usize {
    program.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn the_programs_for_sanserve_are_not_longer() {
    let headings =
        PAGE.lines().skip_while(|line| *line != "## Five programs").filter_map(|line| line.strip_prefix("### "));
    assert_eq!(headings.collect::<Vec<_>>(), PROGRAMS.map(|(heading, _)| heading));
    for (heading, _) in PROGRAMS {
        let [before, after] = programs(heading).map(length);
        assert!(after <= before, "{heading}: {after} lines for sanserve, {before} for tiny_http");
    }
}

/// Compiles the programs with this index in a crate of their own, and returns where they are. `None`: cargo has no
/// tiny_http.
fn compiled(kind: usize, dependencies: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(["before_sanserve", "after_tiny_http"][kind]);
    fs::create_dir_all(directory.join("src/bin")).unwrap();
    let manifest =
        format!("[package]\nname = \"programs\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{dependencies}");
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    // The versions that this workspace is built with are available.
    fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    for (heading, name) in PROGRAMS {
        // Any port that is free.
        let source =
            programs(heading)[kind].replace("127.0.0.1:8000", "127.0.0.1:0").replace("127.0.0.1:9100", "127.0.0.1:0");
        fs::write(directory.join(format!("src/bin/{name}.rs")), source).unwrap();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--offline"])
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .current_dir(&directory)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && errors.contains("no matching package named `tiny_http`") {
        assert!(std::env::var_os("CI").is_none(), "CI needs tiny_http; `.ci/provision` fetches it");
        eprintln!("tiny_http is not available: its programs are not compared");
        return None;
    }
    assert!(output.status.success(), "{errors}");
    Some(directory.join("target/debug"))
}

/// A program that runs until it is dropped.
struct Program {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(programs: &Path, name: &str, argument: Option<&Path>) -> Program {
        let mut command = Command::new(programs.join(name));
        let mut child = command.args(argument).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Program { child, output }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    /// The address in the next line that it prints, which ends with `http://ADDRESS/PATH`.
    fn address(&mut self) -> String {
        let line = self.line();
        let (_, rest) = line.rsplit_once("http://").expect(&line);
        rest.split('/').next().expect("an address").to_owned()
    }

    /// Waits for its end, which is a success.
    fn ends(mut self) {
        testkit::eventually("the program ends", || {
            self.child.try_wait().expect("a child").is_some_and(|status| {
                assert!(status.success(), "{status}");
                true
            })
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The response to one request: its status, and all of it.
fn ask(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    write!(stream, "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let response = String::from_utf8_lossy(&response).into_owned();
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{response:?}")), response)
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn oauth(programs: &Path) {
    let mut program = Program::start(programs, "oauth", None);
    let address = program.address();
    assert_eq!(ask(tcp(&address), "GET /favicon.ico").0, 404);
    assert_eq!(ask(tcp(&address), "GET /callback?error=denied").0, 400);
    let (status, response) = ask(tcp(&address), "GET /callback?state=1&code=a%2Fb+c");
    assert!(status == 200 && response.ends_with("You may close this window.\n"), "{response}");
    assert_eq!(program.line(), "code: a/b c");
    program.ends();
}

fn metrics(programs: &Path) {
    let mut program = Program::start(programs, "metrics", None);
    let address = program.address();
    testkit::eventually("a job is counted", || {
        let (status, response) = ask(tcp(&address), "GET /metrics");
        assert!(status == 200 && response.contains("Content-Type: text/plain; version=0.0.4\r\n"), "{response}");
        assert!(response.contains("\r\n\r\n# TYPE jobs_total counter\njobs_total "), "{response}");
        !response.ends_with("jobs_total 0\n")
    });
    assert_eq!(ask(tcp(&address), "GET /").0, 404);
}

fn mock(programs: &Path) {
    let mut program = Program::start(programs, "mock", None);
    assert_eq!(program.line(), "passed");
    program.ends();
}

fn control(programs: &Path) {
    let tree = Tree::new();
    let path = tree.root().join("control.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut program = Program::start(programs, "control", Some(&path));
    assert_eq!(program.line(), "listening");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    };
    let (status, response) = ask(connect(), "GET /status");
    assert!(status == 200 && response.contains("up for "), "{response}");
    assert_eq!(ask(connect(), "GET /stop").0, 404);
    let (status, response) = ask(connect(), "POST /stop");
    assert!(status == 200 && response.ends_with("stopping\n"), "{response}");
    program.ends();
    assert!(!path.exists());
}

fn development(programs: &Path) {
    let tree = Tree::new();
    tree.folder("site");
    tree.file("site/index.html", "<h1>Home</h1>");
    tree.file("site/app.js", "alert(1)");
    tree.file("secret", "secret");
    let mut program = Program::start(programs, "development", Some(&tree.root().join("site")));
    let address = program.address();
    for (request, status, media_type, body) in [
        ("GET /", 200, "text/html; charset=utf-8", "<h1>Home</h1>"),
        ("GET /app.js?v=1", 200, "text/javascript; charset=utf-8", "alert(1)"),
        ("GET /api/hello", 200, "application/json", r#"{"hello":"world"}"#),
    ] {
        let (code, response) = ask(tcp(&address), request);
        assert!(code == status && response.ends_with(body), "{request}: {response}");
        assert!(response.contains(&format!("Content-Type: {media_type}\r\n")), "{request}: {response}");
    }
    for missing in ["GET /none", "GET /../secret", "GET /%2e%2e/secret"] {
        let (status, response) = ask(tcp(&address), missing);
        assert!(status == 404 && !response.ends_with("secret"), "{missing}: {response}");
    }
}

fn check(programs: &Path) {
    oauth(programs);
    metrics(programs);
    mock(programs);
    control(programs);
    development(programs);
}

#[test]
fn the_programs_for_sanserve_do_what_they_should() {
    let frontend = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend-std");
    check(&compiled(1, &format!("sanserve-std = {{ path = {frontend:?} }}\n")).expect("they are compiled"));
}

#[test]
fn the_programs_for_tiny_http_do_the_same() -> io::Result<()> {
    if let Some(programs) = compiled(0, "tiny_http = \"0.12\"\nform_urlencoded = \"1\"\n") {
        check(&programs);
    }
    Ok(())
}

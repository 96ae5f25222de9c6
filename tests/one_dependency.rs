//! A program outside the workspace needs one dependency, the crate of its runtime: the programs of the pages compile
//! in that way, and nothing of the command or of another runtime is compiled with them. Without the default features, a
//! server that only has a handler is small.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The pages whose programs are compiled.
const PAGES: [&str; 6] = [
    include_str!("../README.md"),
    include_str!("../docs/handlers.md"),
    include_str!("../docs/embedding.md"),
    include_str!("../docs/cgi.md"),
    include_str!("../docs/from-tiny-http.md"),
    include_str!("../docs/write-a-frontend.md"),
];

/// The programs of the pages, each with its `main`, that use the crate and no other.
fn programs(krate: &str) -> Vec<&'static str> {
    let blocks = PAGES.iter().flat_map(|page| page.split("```rust").skip(1));
    let programs = blocks.filter_map(|rest| rest.split_once('\n')?.1.split("```").next());
    let uses = |program: &str, name: &str| program.contains(&format!("use {name}::"));
    let others =
        ["sanserve_core", "sanserve_mio", "sanserve_server", "sanserve_smol", "sanserve_std", "smol", "tiny_http"];
    let programs = programs.filter(|program| program.contains("\nfn main()") && uses(program, krate));
    programs.filter(|program| others.iter().all(|other| *other == krate || !uses(program, other))).collect()
}

/// Runs cargo in a directory and returns what it printed. `target` is the name of the directory for what it builds.
fn cargo(directory: &Path, target: &str, arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target);
    let output = Command::new(cargo)
        .args(arguments)
        .arg("--offline")
        .env("CARGO_TARGET_DIR", target)
        .current_dir(directory)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A package outside the workspace that depends on the crate of a runtime, with `settings` for that dependency.
fn outside(runtime: &str, settings: &str) -> TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let krate = tempfile::tempdir().expect("a temporary directory");
    let path = root.join(format!("frontend-{runtime}"));
    let manifest = format!(
        "[package]\nname = \"outside\"\nedition = \"2024\"\n[workspace]\n[profile.release]\nstrip = true\n\
         [dependencies]\nsanserve-{runtime} = {{ path = {path:?}{settings} }}\n"
    );
    fs::write(krate.path().join("Cargo.toml"), manifest).expect("a file");
    // The versions that this workspace is built with are available.
    fs::copy(root.join("Cargo.lock"), krate.path().join("Cargo.lock")).expect("a file");
    krate
}

/// Compiles the programs for a runtime, of which there are at least so many. No crate in `absent` is compiled.
fn check(runtime: &str, at_least: usize, absent: &[&str]) {
    let programs = programs(&format!("sanserve_{runtime}"));
    assert!(programs.len() >= at_least, "{} programs for {runtime}", programs.len());
    let (with_tls, plain): (Vec<_>, Vec<_>) = programs.iter().partition(|program| program.contains("::tls::"));
    if !with_tls.is_empty() {
        compile(&outside(runtime, ", features = [\"tls\"]"), &with_tls);
    }
    let krate = outside(runtime, "");
    compile(&krate, &plain);
    let tree =
        cargo(krate.path(), "one_dependency", &["tree", "--edges=normal,build", "--prefix=none", "--format={p}"]);
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&&*format!("sanserve-{runtime}")), "{tree}");
    for name in ["sanserve", "sanserve-testing", "sanserve-tls", "clap", "http"].iter().chain(absent) {
        assert!(!names.contains(name), "{name} is compiled for {runtime}:\n{tree}");
    }
}

/// Compiles programs in a package.
fn compile(krate: &TempDir, programs: &[&&str]) {
    fs::create_dir_all(krate.path().join("src/bin")).expect("a directory");
    for (at, program) in programs.iter().enumerate() {
        fs::write(krate.path().join(format!("src/bin/program_{at}.rs")), program).expect("a file");
    }
    cargo(krate.path(), "one_dependency", &["check", "--quiet"]);
}

/// One test, because cargo builds one thing at a time in a directory.
#[test]
fn a_program_needs_one_dependency() {
    check("mio", 5, &["sanserve-std", "sanserve-smol", "smol"]);
    check("std", 5, &["sanserve-mio", "sanserve-smol", "mio", "smol"]);
    check("smol", 3, &["sanserve-mio", "sanserve-std", "mio"]);
}

const LEAN_STD: &str = r#"
use sanserve_std::{Exchange, Server, Site, StatusCode};

fn main() -> std::io::Result<()> {
    let server = Server::bind("127.0.0.1:0", Site::without_files())?;
    println!("{}", server.local_addr());
    let hello = |x: &mut Exchange<'_>| {
        if x.path() != b"/" {
            return x.decline();
        }
        x.answer(StatusCode::OK, "text/plain", "hello\n")
    };
    server.with_handler(move || hello).run()
}
"#;

const LEAN_MIO: &str = r#"
use sanserve_mio::{Server, Site, StatusCode};

fn main() -> std::io::Result<()> {
    let site = Site::without_files().with_answer(|reply| {
        if reply.request().path() != b"/" {
            return reply.decline();
        }
        reply.answer(StatusCode::OK, "text/plain", "hello\n")
    });
    let server = Server::bind("127.0.0.1:0", site)?;
    println!("{}", server.local_addr());
    server.run()
}
"#;

/// Builds a server without the default features, as small as a release gets without special settings. The crates that
/// it is made of, except for the program itself, and its bytes do not exceed these numbers. Its time is UTC.
fn check_lean(runtime: &str, program: &str, most_crates: usize, most_bytes: u64) {
    let krate = outside(runtime, ", default-features = false");
    fs::create_dir(krate.path().join("src")).expect("a directory");
    fs::write(krate.path().join("src/main.rs"), program).expect("a file");
    let tree = cargo(krate.path(), "lean", &["tree", "--edges=normal", "--prefix=none", "--format={p}", "--no-dedupe"]);
    let crates: BTreeSet<_> = tree.lines().filter(|line| !line.starts_with("outside ")).collect();
    assert!(crates.len() <= most_crates, "{} crates: {crates:#?}", crates.len());
    cargo(krate.path(), "lean", &["build", "--quiet", "--release"]);
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lean/release/outside");
    let bytes = fs::metadata(&binary).expect("the program").len();
    assert!(bytes <= most_bytes, "{bytes} bytes on {runtime}");

    let mut server = Command::new(&binary);
    server.env("TZ", "<+05>-5").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = server.spawn().expect("the program runs");
    let mut address = String::new();
    BufReader::new(server.stdout.take().expect("stdout")).read_line(&mut address).expect("the address");
    let get = |path: &str| {
        let mut response = String::new();
        let mut client = TcpStream::connect(address.trim()).expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).expect("sent");
        client.read_to_string(&mut response).expect("received");
        response
    };
    let [response, missing, refused] = ["/", "/file", "/file%00"].map(get);
    let mut line = String::new();
    BufReader::new(server.stderr.take().expect("stderr")).read_line(&mut line).expect("the log");
    server.kill().and_then(|()| server.wait()).expect("ended");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nhello\n"), "{response}");
    assert!(missing.starts_with("HTTP/1.1 404 ") && missing.contains("File not found"), "{missing}");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    // The seconds may differ.
    let date = response.split_once("Date: ").and_then(|(_, rest)| rest.split_once("\r\n")).expect("a date").0;
    let [_, day, month, year, time, _] = *date.split(' ').collect::<Vec<_>>() else { panic!("{date}") };
    let (hour, _) = time.split_once(':').expect("a time");
    let logged = format!("127.0.0.1 - - [{day}/{month}/{year} {hour}:");
    assert!(line.starts_with(&logged) && line.ends_with("] \"GET / HTTP/1.1\" 200 6\n"), "{line} after {date}");
}

#[test]
fn a_server_with_only_a_handler_is_small() {
    check_lean("std", LEAN_STD, 15, 1_000_000);
    check_lean("mio", LEAN_MIO, 17, 1_000_000);
}

//! A program outside the workspace needs one dependency, the crate of its runtime: the programs of the pages compile
//! in that way, and nothing of the command or of another runtime is compiled with them.

use std::fs;
use std::path::Path;
use std::process::Command;

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

/// Runs cargo in a directory and returns what it printed.
fn cargo(directory: &Path, arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("one_dependency");
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

/// Compiles the programs for a runtime, of which there are at least so many. No crate in `absent` is compiled.
fn check(runtime: &str, at_least: usize, absent: &[&str]) {
    let programs = programs(&format!("sanserve_{runtime}"));
    assert!(programs.len() >= at_least, "{} programs for {runtime}", programs.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let krate = tempfile::tempdir().expect("a temporary directory");
    let path = root.join(format!("frontend-{runtime}"));
    let manifest = format!(
        "[package]\nname = \"outside\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         sanserve-{runtime} = {{ path = {path:?} }}\n"
    );
    fs::write(krate.path().join("Cargo.toml"), manifest).expect("a file");
    // The versions that this workspace is built with are available.
    fs::copy(root.join("Cargo.lock"), krate.path().join("Cargo.lock")).expect("a file");
    fs::create_dir_all(krate.path().join("src/bin")).expect("a directory");
    for (at, program) in programs.iter().enumerate() {
        fs::write(krate.path().join(format!("src/bin/program_{at}.rs")), program).expect("a file");
    }
    cargo(krate.path(), &["check", "--quiet"]);
    let tree = cargo(krate.path(), &["tree", "--edges=normal,build", "--prefix=none", "--format={p}"]);
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&&*format!("sanserve-{runtime}")), "{tree}");
    for name in ["sanserve", "sanserve-testing", "clap", "http"].iter().chain(absent) {
        assert!(!names.contains(name), "{name} is compiled for {runtime}:\n{tree}");
    }
}

/// One test, because cargo builds one thing at a time in a directory.
#[test]
fn a_program_needs_one_dependency() {
    check("mio", 5, &["sanserve-std", "sanserve-smol", "smol"]);
    check("std", 5, &["sanserve-mio", "sanserve-smol", "mio", "smol"]);
    check("smol", 3, &["sanserve-mio", "sanserve-std", "mio"]);
}

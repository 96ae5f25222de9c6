//! Parity with `python3 -m http.server -p HTTP/1.1`, and for scripts with `--cgi`: the same requests are sent to both
//! servers, with the same tree.
//!
//! Each difference must be in the tables of `parity/differences.rs` with its reason, each entry of the tables must be
//! a difference, and `docs/python.md` must explain each reason. Without a `python3` a test reports that and passes,
//! unless the environment variable `CI` is set.

mod parity;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use parity::answers::{Answer, statuses, take_apart};
use parity::cases::{Case, cases, tree};
use parity::differences::{
    GENERAL, General, OF_SCRIPT, OF_SCRIPTS, PARTICULAR, Particular, TYPES, TYPES_UP_TO, reasons,
};
use parity::scripts;
use testkit::process::Process;
use testkit::server::program;
use testkit::{Client, Runtime, Server, Tree};

/// The version of Python, if it is installed.
fn python_version() -> Option<(u32, u32)> {
    let script = "import sys; print(*sys.version_info[:2])";
    let output = Command::new("python3").args(["-c", script]).stderr(Stdio::null()).output().ok()?;
    let (major, minor) = std::str::from_utf8(&output.stdout).ok()?.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Like [`python_version`]. Without Python, a test reports that and passes, except in CI.
fn python_here() -> Option<(u32, u32)> {
    let version = python_version();
    if version.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs python3");
        eprintln!("python3 is not installed; parity is not tested");
    }
    version
}

fn start_python(tree: &Tree, flags: &[&str]) -> Server {
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "-b", "127.0.0.1"]).args(flags).arg("-d").arg(tree.root()).arg("0");
    command.env("LC_ALL", "C.UTF-8").env("OF_SERVER", "known");
    Server::of(Process::start(&mut command))
}

fn ask(server: &Server, case: &Case) -> Vec<Answer> {
    let mut client = Client::connect(server.address());
    let _ = client.try_send(&case.request);
    // The server may have responded and closed already.
    client.half_close_if_open();
    let (bytes, _) = client.rest_however();
    take_apart(&bytes, case.request.starts_with(b"HEAD "))
}

/// The differences between two responses to one request: the name and both values.
fn differences(python: &[Answer], ours: &[Answer]) -> Vec<(String, String, String)> {
    if statuses(python) != statuses(ours) {
        let what = format!("{} -> {}", statuses(python), statuses(ours));
        return vec![(what, String::new(), String::new())];
    }
    let mut found = Vec::new();
    for (python, ours) in python.iter().zip(ours) {
        let names: BTreeSet<&String> = python.0.keys().chain(ours.0.keys()).collect();
        for name in names {
            let value = |answer: &Answer| answer.0.get(name).cloned().unwrap_or_default();
            let (python, ours) = (value(python), value(ours));
            if python != ours {
                found.push((name.clone(), python, ours));
            }
        }
    }
    found
}

#[test]
fn every_difference_is_known() {
    let Some(version) = python_here() else { return };
    let tree = tree();
    let python = start_python(&tree, &["-p", "HTTP/1.1"]);
    let ours = Server::start(Runtime::Mio, tree.root());
    let cases = cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    compare(&cases, version, [&python, &ours], GENERAL, PARTICULAR);
}

/// All types that Python's `mimetypes` contains by itself, without the tables of this machine.
#[test]
fn every_difference_of_media_types_is_known() {
    const SCRIPT: &str = "
import mimetypes
mimetypes.knownfiles = []
mimetypes.init()
from http.server import SimpleHTTPRequestHandler as handler
for extension in sorted({*mimetypes.types_map, *mimetypes.suffix_map, *mimetypes.encodings_map}):
    print(extension, handler.guess_type(handler, '/x' + extension))
";
    let Some(version) = python_here() else { return };
    let output = Command::new("python3").args(["-c", SCRIPT]).output().expect("there is a python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("types are text");
    let mut unknown = Vec::new();
    for (extension, theirs) in text.lines().filter_map(|line| line.split_once(' ')) {
        let ours = sanserve_core::media_type(format!("x{extension}").as_bytes());
        let row = TYPES.iter().find(|row| row.0 == extension);
        if ours != theirs && row.is_none_or(|row| row.1 != ours) {
            unknown.push(format!("{extension}: Python {theirs}, ours {ours}"));
        }
    }
    assert!(text.lines().count() > 100, "{text}");
    if version > TYPES_UP_TO {
        eprintln!("this python3 is newer than the table of media types; new types: {unknown:?}");
        return;
    }
    assert!(unknown.is_empty(), "differences that are in no table:\n{}", unknown.join("\n"));
}

/// With HTTP/1.0, because with HTTP/1.1 Python does not mark the end of a script's response.
#[test]
fn every_difference_of_scripts_is_known() {
    let Some(version) = python_here() else { return };
    if !((3, 11)..(3, 15)).contains(&version) {
        eprintln!("this python3 is too old, or has no --cgi any more; parity of scripts is not tested");
        return;
    }
    let tree = scripts::tree();
    let python = start_python(&tree, &["--cgi"]);
    let mut command = Command::new(program());
    command
        .args(["-b", "127.0.0.1", "-p", "HTTP/1.0", "--cgi", "-d"])
        .arg(tree.root())
        .arg("0")
        .env("OF_SERVER", "known");
    let ours = Server::of(Process::start(&mut command));
    compare(&scripts::cases(), version, [&python, &ours], OF_SCRIPTS, OF_SCRIPT);
}

/// Sends all cases to both servers. A difference that is in no table fails the test, and so does an entry of a table
/// that is not a difference.
fn compare(
    cases: &[Case],
    version: (u32, u32),
    [python, ours]: [&Server; 2],
    every: &[General],
    single: &[Particular],
) {
    let applies = |until: Option<(u32, u32)>| until.is_none_or(|until| version < until);
    let mut used_general = BTreeSet::new();
    let mut used_particular = BTreeSet::new();
    let mut unknown = Vec::new();
    for case in cases {
        let (theirs, ours) = (ask(python, case), ask(ours, case));
        for (what, theirs, ours) in differences(&theirs, &ours) {
            let general = every
                .iter()
                .position(|rule| applies(rule.until) && rule.what == what && (rule.explains)(&theirs, &ours));
            let row = single.iter().position(|row| applies(row.until) && row.case == case.name && row.what == what);
            match (general, row) {
                (_, Some(row)) => _ = used_particular.insert(row),
                (Some(rule), None) => _ = used_general.insert(rule),
                (None, None) => unknown.push(format!("{} | {what}\n  python {theirs:?}\n  ours   {ours:?}", case.name)),
            }
        }
    }
    assert!(unknown.is_empty(), "{} differences are in no table:\n{}", unknown.len(), unknown.join("\n"));
    for (at, rule) in every.iter().enumerate() {
        assert!(used_general.contains(&at) || !applies(rule.until), "no case shows {} of {}", rule.reason, rule.what);
    }
    for (at, row) in single.iter().enumerate() {
        assert!(
            used_particular.contains(&at) || !applies(row.until),
            "{} of {} is not a difference",
            row.what,
            row.case
        );
    }
}

#[test]
fn every_reason_is_explained() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/python.md");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let missing: Vec<&str> = reasons().into_iter().filter(|reason| !text.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/python.md does not explain {missing:?}");
}

#[test]
fn cases_and_tables_are_in_order() {
    for (cases, rows) in [(cases(), PARTICULAR), (scripts::cases(), OF_SCRIPT)] {
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len(), "the names of cases are not unique");
        for row in rows {
            assert!(names.contains(row.case), "there is no case {}", row.case);
        }
    }
    for reason in reasons() {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(!reason.is_empty() && reason.bytes().all(good), "a short slug: {reason}");
    }
}

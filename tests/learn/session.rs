//! A shell that executes the commands of a chapter as printed, one after the other, in a directory of its own.
//!
//! Two things are changed in a command. The ports 8000 to 8003 are replaced by free ones, and `cargo` is a script
//! that builds nothing, since this test program contains what it would run. For a quick reader nothing sleeps: a
//! server in the background is awaited by its banner, and a command that only queries is repeated until its output
//! matches the chapter. A slow reader pauses after each command, with servers whose default timeouts are shortened
//! accordingly.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use testkit::server::program;

/// The timeout of every command.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long a command that only queries is repeated.
const LOOKING: Duration = Duration::from_secs(15);

/// Commands that change nothing, so that they can be repeated.
const LOOKS: &[&str] = &[
    "cat ",
    "grep ",
    "sed ",
    "head ",
    "tail ",
    "ls",
    "wc ",
    "cut ",
    "diff ",
    "sanserve replay ",
    "sanserve trace ",
    "sanserve conform ",
    "cmp ",
    "./calls ",
];

/// The ports in the text.
const PORTS: [&str; 4] = ["8000", "8001", "8002", "8003"];

/// Marks the end of a command's output, which never contains it.
const MARK: u8 = 0x1e;

/// The replacement for cargo. `cargo test` and `cargo run --example` run this test program.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
"build"|"build -q --example "*)
    exit 0 ;;
"test -q --test learn "*)
    shift 4
    cd "$LEARN_PACKAGE" && exec "$LEARN_PROGRAM" -q "$@" ;;
"run -q --example "*)
    LEARN_RUN=$4; shift 5; LEARN_ARGUMENTS=$*
    export LEARN_RUN LEARN_ARGUMENTS
    exec "$LEARN_PROGRAM" -q --exact --nocapture stands_in_for_an_example ;;
*)
    echo "the test of the course does not know: cargo $*"
    exit 9 ;;
esac
"#;

/// A reader of the course.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Types the next command immediately.
    Quick,
    /// Reads on for [`PAUSE`] after each command.
    Slow,
}

/// How long a slow reader pauses, which is longer than any scaled timeout.
const PAUSE: Duration = Duration::from_millis(450);

/// The replacement for sanserve with a slow reader: defaults that are shorter than a pause, and after them, so that
/// they take precedence, the flags of the chapter.
const SHORT_TIMEOUTS: &str = r#"#!/bin/sh
case "$1" in
replay|trace|explain|sim|conform|-V|--version) exec "$LEARN_SERVER" "$@" ;;
esac
exec "$LEARN_SERVER" --head-timeout 0.4 --keep-alive 0.4 --body-timeout 0.4 --write-timeout 0.4 --cgi \
    --cgi-timeout 0.4 "$@"
"#;

pub(crate) struct Session {
    reader: Reader,
    shell: Child,
    input: ChildStdin,
    output: Receiver<u8>,
    ports: [String; 4],
    _directory: TempDir,
}

impl Session {
    /// A shell in a directory that looks like a fresh clone.
    pub(crate) fn start(reader: Reader) -> Session {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // If this is root, scripts run as nobody.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
        let clone = directory.path().join("clone");
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir(&clone).expect("a directory");
        for entry in fs::read_dir(package).expect("a package") {
            let entry = entry.expect("an entry");
            if entry.file_name() != "target" {
                symlink(entry.path(), clone.join(entry.file_name())).expect("a link");
            }
        }
        let tools = directory.path().join("tools");
        fs::create_dir(&tools).expect("a directory");
        let tool = |name: &str, text: &str| {
            fs::write(tools.join(name), text).expect("a script");
            fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).expect("a script");
        };
        tool("cargo", CARGO);
        if reader == Reader::Slow {
            tool("sanserve", SHORT_TIMEOUTS);
        }
        let server = Path::new(program()).parent().expect("a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        // The shell leads a process group, so that all of it can be killed.
        let mut shell = std::process::Command::new("bash");
        shell.args(["--norc", "--noprofile", "-s"]).current_dir(&clone).process_group(0);
        shell.env("PATH", format!("{}:{}:{path}", tools.display(), server.display())).env("LC_ALL", "C");
        shell
            .env("LEARN_SERVER", program())
            .env("LEARN_PROGRAM", std::env::current_exe().expect("this program"))
            .env("LEARN_PACKAGE", package);
        shell.env("no_proxy", "*").env_remove("LEARN").env_remove("BASH_ENV").env_remove("RUST_BACKTRACE");
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there: the course is written for it");
        let (mut said, input) = (shell.stdout.take().expect("piped"), shell.stdin.take().expect("piped"));
        let (send, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = said.read(&mut buffer) {
                if buffer[..n].iter().any(|&byte| send.send(byte).is_err()) {
                    return;
                }
            }
        });
        let mut session = Session { reader, shell, input, output, ports: free_ports(), _directory: directory };
        session.tell("exec 2>&1");
        session
    }

    /// Runs a command, and returns its output. A command that only queries is repeated until `fits`.
    pub(crate) fn run(&mut self, command: &str, fits: impl Fn(&str) -> bool) -> String {
        let (start, printed) = (Instant::now(), printed_by_server(command));
        if let Some(file) = printed {
            // The output of an earlier server must not be taken for that of this one.
            self.tell(&format!("rm -f {file}"));
        }
        loop {
            let mut text = command.to_owned();
            for (printed, port) in PORTS.iter().zip(&self.ports) {
                text = replace_word(&text, printed, port);
            }
            let mut output = self.tell(&text);
            for (printed, port) in PORTS.iter().zip(&self.ports) {
                output = replace_word(&output, port, printed);
            }
            let limit = if updates() { Duration::from_secs(1) } else { LOOKING };
            if !only_looks(command) || fits(&output) || start.elapsed() > limit {
                if let Some(file) = printed {
                    self.wait_for_banner(file);
                }
                if self.reader == Reader::Slow {
                    thread::sleep(PAUSE);
                }
                return output;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn tell(&mut self, text: &str) -> String {
        // In braces, so that no command reads the input of the shell; a newline ends a here-document.
        let whole = format!("{{ {text}\n}} </dev/null\nprintf '\\036'\n");
        self.input.write_all(whole.as_bytes()).unwrap_or_else(|error| panic!("{text}: the shell is gone: {error}"));
        let (end, mut output) = (Instant::now() + TIMEOUT, Vec::new());
        loop {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(MARK) => return String::from_utf8_lossy(&output).into_owned(),
                Ok(byte) => output.push(byte),
                Err(reason) => {
                    let what = if reason == RecvTimeoutError::Timeout { "does not end" } else { "ends the shell" };
                    panic!("`{text}` {what}; it says:\n{}", String::from_utf8_lossy(&output));
                }
            }
        }
    }

    /// Waits until a server in the background has printed its banner.
    fn wait_for_banner(&mut self, file: &str) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let said = self.tell(&format!("cat {file}"));
            if said.contains("Serving HTTP on ") {
                return;
            }
            assert!(Instant::now() < end, "no server prints to {file}: {said}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Kills all processes: servers, clients, and the shell, which leads their group.
impl Drop for Session {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}

/// Whether a command can be repeated. One that reads from a connection cannot, nor one that writes.
pub(crate) fn only_looks(command: &str) -> bool {
    LOOKS.iter().any(|look| command.starts_with(look)) && !command.contains("<&") && !command.contains('>')
}

/// The file that a server in the background prints to, if the command starts one.
fn printed_by_server(command: &str) -> Option<&str> {
    let serves = ["sanserve ", "./traced ", "cargo run "].iter().any(|server| command.starts_with(server));
    if !serves || !command.trim_end().ends_with('&') {
        return None;
    }
    let file = command.split_once(" >").and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    Some(file.unwrap_or_else(|| panic!("`{command}`: where does it print?")))
}

/// Whether the chapters are being updated.
pub(crate) fn updates() -> bool {
    std::env::var_os("UPDATE_LEARN").is_some()
}

/// Unused ports below the range of the system.
fn free_ports() -> [String; 4] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = (std::process::id() % 1_000) as u16 * 10;
    std::array::from_fn(|_| {
        loop {
            let port = 20_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
            match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
                Ok(_) => return port.to_string(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
            }
        }
    })
}

/// Replaces a number that is a word of its own.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let is_alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.')
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        out.push_str(before);
        out.push_str(if is_alone { to } else { from });
        rest = after;
    }
    out + rest
}

//! Running a server under strace, and parsing the trace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;
use crate::runtime::Runtime;
use crate::server::{Server, program};
use crate::tree::Tree;
use crate::wait::eventually;

/// A server under strace.
pub struct Traced {
    /// The server. Its process is that of strace.
    pub server: Server,
    /// The process id of the server itself.
    pub pid: Pid,
    trace: PathBuf,
    _folder: tempfile::TempDir,
}

impl Traced {
    /// Serves `directory` without a log.
    pub fn start(runtime: Runtime, directory: &Path) -> Traced {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let trace = folder.path().join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "64", "-o"]).arg(&trace).arg(program());
        command.args(["--runtime", runtime.name(), "-q", "-b", "127.0.0.1", "-d"]).arg(directory).args(runtime.alone());
        let server = Server::of(Process::start(command.arg("0")));
        let pid = child_of(server.process().pid()).expect("strace runs the server");
        Traced { server, pid, trace, _folder: folder }
    }

    /// Kills the server, and returns the trace.
    pub fn end(mut self) -> String {
        kill_process(self.pid, Signal::KILL).expect("the server runs");
        // strace ends with the server, and has written everything by then.
        self.server.process_mut().ended();
        fs::read_to_string(&self.trace).expect("strace wrote it")
    }
}

/// Kills the server first, since it would survive strace.
impl Drop for Traced {
    fn drop(&mut self) {
        if self.server.process_mut().runs() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

fn child_of(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    let pids =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_ascii_whitespace().nth(1) == Some(parent.as_str()))
    })
    .find_map(Pid::from_raw)
}

/// A tree of files that are old enough to be cached. The time of the last change cannot be set back, so this waits.
pub fn settled_tree() -> Tree {
    let tree = Tree::new();
    tree.file("512", [b'x'; 512]).file("100k", [b'x'; 100 << 10]);
    let changed = fs::metadata(tree.path("100k")).expect("the file exists").ctime();
    eventually("the files are three seconds old", || {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        now >= Duration::from_secs(changed.unsigned_abs() + 3)
    });
    tree
}

/// Why system calls cannot be counted on this machine.
pub fn cannot_trace() -> Option<String> {
    if !runs(Command::new("strace").arg("-V")) {
        return Some("strace is not installed; on Debian: apt-get install strace".into());
    }
    let traced = runs(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]));
    assert!(traced || std::env::var_os("CI").is_none(), "strace is installed but may not trace; CI must permit it");
    (!traced).then(|| "strace may not trace on this machine".into())
}

/// The name and the arguments of the call that begins in a line of a trace. `4711  sendto(9, ...` begins a call;
/// `4711  <... sendto resumed>` and `--- SIG` do not.
pub fn call(line: &str) -> Option<(&str, &str)> {
    let call = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    let (name, arguments) = call.split_once('(')?;
    // A debug build of the standard library checks that a descriptor is open before it closes it.
    let checked = cfg!(debug_assertions) && name == "fcntl" && arguments.contains("F_GETFD");
    if checked || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    // Some architectures only have the latter.
    Some((if name == "epoll_pwait" { "epoll_wait" } else { name }, arguments))
}

/// Whether a program exists and runs.
pub fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Reports that a test is skipped.
pub fn skip(reason: &str) {
    eprintln!("nothing was counted: {reason}");
}

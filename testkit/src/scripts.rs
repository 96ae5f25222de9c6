//! CGI scripts for tests, and checks that none of them leaves anything behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::client::Client;
use crate::process::Process;
use crate::response::Response;
use crate::runtime::Runtime;
use crate::server::{Server, program};
use crate::tree::Tree;
use crate::wait::{TIMEOUT, eventually};

/// The scripts below `cgi-bin`. Most are a few lines for `sh`; `say` prints the request body as its output.
const SCRIPTS: &[(&str, &str)] = &[
    ("say", "#!/bin/sh\nexec cat\n"),
    ("hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello\\n'\n"),
    ("sub/hello", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello below in %s\\n' \"$PWD\"\n"),
    ("two words", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s\\n' \"$SCRIPT_NAME\"\n"),
    ("echo", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec cat\n"),
    ("count", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s ' \"$CONTENT_LENGTH\"\nexec wc -c\n"),
    (
        "echo-method",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s %s ' \"$REQUEST_METHOD\" \"$CONTENT_LENGTH\"\nexec cat\n",
    ),
    ("zeros", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec head -c \"$QUERY_STRING\" /dev/zero\n"),
    ("flood", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec cat /dev/zero\n"),
    ("refuse", "#!/bin/sh\nprintf 'Status: 403\\nContent-Type: text/plain\\n\\nno'\n"),
    ("env", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\ncat /proc/$$/environ\n"),
    (
        "about",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\npwd\nprintf '%s\\n' \"$0\"\n\
         for a; do printf '[%s]\\n' \"$a\"; done\n",
    ),
    (
        "path",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s|%s|%s|%s' \"$SCRIPT_NAME\" \"$PATH_INFO\" \
         \"$PATH_TRANSLATED\" \"$QUERY_STRING\"\n",
    ),
    ("exit", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ndone'\nexit \"$QUERY_STRING\"\n"),
    ("exit-silent", "#!/bin/sh\nexit \"$QUERY_STRING\"\n"),
    ("signal", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ndone'\nkill -\"$QUERY_STRING\" $$\n"),
    ("signal-silent", "#!/bin/sh\nkill -\"$QUERY_STRING\" $$\n"),
    ("never", "#!/bin/sh\nexec sleep 600\n"),
    ("endless-head", "#!/bin/sh\nprintf 'Content-Type: text/plain\\nX: '\nexec sleep 600\n"),
    ("begun", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nsome'\nexec sleep 600\n"),
    ("stubborn", "#!/bin/sh\ntrap '' TERM\nprintf 'Content-Type: text/plain\\n\\nsome'\nexec sleep 600\n"),
    ("late", "#!/bin/sh\nsleep 1\nprintf 'Content-Type: text/plain\\nContent-Length: 4\\n\\nlate'\n"),
    (
        "flood-on",
        "#!/bin/sh\ntrap '' PIPE\nprintf 'Status: %s\\nContent-Type: text/plain\\n\\n' \"${QUERY_STRING:-200}\"\n\
         while :; do echo more 2>/dev/null; done\n",
    ),
    ("slow-exit", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nsome'\nsleep 0.2\nprintf more\nexit 7\n"),
    ("slow", "#!/bin/sh\nsleep 0.3\nprintf 'Content-Type: text/plain\\n\\nslow'\n"),
    (
        "drip",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n\
         for n in 1 2 3 4 5; do sleep 0.5; printf $n; done\n",
    ),
    ("aside", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ndone'\nexec >&-\nexec sleep 600\n"),
    ("leaver", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ndone'\nsleep 600 &\n"),
    (
        "daemon",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\ndone'\nsetsid sleep 600 &\n\
         until grep -q sleep /proc/$!/comm; do sleep 0.02; done\n",
    ),
    (
        "family",
        "#!/bin/sh\nsleep 600 &\nsleep 600 &\ncase $QUERY_STRING in\n\
         head) printf 'Content-Type: text/plain\\n\\nsome' ;;\n\
         flood) printf 'Content-Type: text/plain\\n\\n'; cat /dev/zero ;;\nesac\nwait\n",
    ),
    (
        "noisy",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n\
         yes 123456789 | head -c 1000000 >&2\nprintf 'done'\nexit 3\n",
    ),
    ("nph-say", "#!/bin/sh\nexec cat\n"),
    ("who", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nid -u\n"),
    ("no-interpreter", "#!/no/such/interpreter\n"),
    ("cr-lf", "#!/bin/sh\r\necho\r\n"),
    ("interpreter-directory", "#!/bin\n"),
    ("fields.py", include_str!("../scripts/fields.py")),
    ("fields.pl", include_str!("../scripts/fields.pl")),
    ("fields.php", include_str!("../scripts/fields.php")),
    ("server.php", include_str!("../scripts/server.php")),
];

/// A server with scripts. They are below `cgi-bin`, beside the files of [`Tree::plain`].
#[derive(Debug)]
pub struct Gateway {
    /// The server.
    pub server: Server,
    /// The files that it serves.
    pub tree: Tree,
    /// The number of descriptors that an idle server has open.
    rest: usize,
}

/// A process that was started by a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its process id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The fields of `/proc/PID/stat` after the name: state, parent, process group and so on.
    pub state: String,
}

impl Gateway {
    /// Starts a server with `--cgi`.
    #[track_caller]
    pub fn start(runtime: Runtime) -> Gateway {
        Gateway::with(runtime, &[])
    }

    /// Starts a server with `--cgi` and more flags.
    #[track_caller]
    pub fn with(runtime: Runtime, flags: &[&str]) -> Gateway {
        let tree = scripts();
        let temporary = tree.outside().join("tmp");
        fs::create_dir(&temporary).expect("a fresh directory");
        let mut command = Command::new(program());
        command.args(["--runtime", runtime.name(), "-b", "127.0.0.1", "--cgi", "--cgi-env"]).arg(mark(&tree));
        command.arg("-d").arg(tree.root()).args(flags).arg("0");
        command.env("TMPDIR", &temporary).env("NOT_FOR_SCRIPTS", "secret").env("FOR_SCRIPTS", "known");
        let server = Server::of(Process::start(&mut command));
        let mut gateway = Gateway { server, tree, rest: usize::MAX };
        // Descriptors that a server keeps after the first script and the first file are not a leak.
        if !flags.contains(&"--cgi-dir") {
            assert_eq!(gateway.get("/cgi-bin/hello").body, b"hello\n");
        }
        assert_eq!(gateway.get("/a.txt").body, b"alpha\n");
        gateway.settle();
        let mut counts = Vec::new();
        eventually("the number of descriptors is stable", || {
            counts.push(gateway.server.process().descriptors());
            counts.len() > 3 && counts[counts.len() - 4..].windows(2).all(|pair| pair[0] == pair[1])
        });
        gateway.rest = counts.pop().expect("some were counted");
        gateway
    }

    /// Opens a connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.server.connect()
    }

    /// Sends a GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: impl AsRef<[u8]>) -> Response {
        self.server.get(target)
    }

    /// Sends a POST on a connection of its own.
    #[track_caller]
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.server.ask(request("POST", target, "", body))
    }

    /// The response to a GET if the script prints `output`.
    #[track_caller]
    pub fn say(&self, output: impl AsRef<[u8]>) -> Response {
        self.server.ask(request("GET", "/cgi-bin/say", "", output))
    }

    /// All processes that were started by scripts of this server, including zombies.
    pub fn processes(&self) -> Vec<Found> {
        let server = self.server.process().pid().as_raw_pid();
        let (guard, launcher) = (self.guard(), self.launcher());
        let mark = mark(&self.tree).into_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("this is Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end at any time.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
            let parent = rest.split_ascii_whitespace().nth(1).and_then(|parent| parent.parse::<i32>().ok());
            let is_marked = || {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                environment.split(|&byte| byte == 0).any(|variable| variable == mark)
            };
            let is_child = parent.is_some() && [Some(server), guard, launcher].contains(&parent);
            if ![guard, launcher].contains(&Some(pid)) && (is_child || is_marked()) {
                found.push(Found { pid, name: name.to_owned(), state: rest.chars().take(40).collect() });
            }
        }
        found
    }

    /// The launcher of this server.
    pub fn launcher(&self) -> Option<i32> {
        launcher_below(self.guard()?)
    }

    /// The parent of the launcher.
    pub fn guard(&self) -> Option<i32> {
        launcher_below(self.server.process().pid().as_raw_pid())
    }

    /// Waits until `count` processes of scripts are running.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Found> {
        let mut found = Vec::new();
        eventually(&format!("{count} processes run"), || {
            found = self.processes();
            found.len() >= count
        });
        found
    }

    /// Waits until no process of a script is left.
    #[track_caller]
    pub fn wait_for_none(&self) {
        let mut found = Vec::new();
        let start = std::time::Instant::now();
        loop {
            found.clear();
            found.extend(self.processes());
            if found.is_empty() {
                return;
            }
            assert!(start.elapsed() < TIMEOUT, "processes are left: {found:?}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits until nothing is left of any script: no process, no descriptor, no temporary file.
    #[track_caller]
    pub fn settle(&self) {
        self.wait_for_none();
        eventually("all descriptors are closed", || self.server.process().descriptors() <= self.rest);
        self.no_temporary_files();
    }

    /// Waits until no temporary file of the server has a name.
    #[track_caller]
    pub fn no_temporary_files(&self) {
        let temporary = self.tree.outside().join("tmp");
        eventually("no temporary file is left", || fs::read_dir(&temporary).expect("the path exists").next().is_none());
    }

    /// The lengths of the temporary files that the server has open.
    pub fn spools(&self) -> Vec<u64> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.server.process().pid().as_raw_pid())).into_iter();
        let files = open.flatten().flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
        files.filter(|file| file.is_file() && file.nlink() == 0).map(|file| file.len()).collect()
    }

    /// The lines of the log about a script, without their prefix.
    pub fn remarks(&self, script: &str) -> Vec<String> {
        let start = format!("sanserve: /cgi-bin/{script}: ");
        let lines = self.server.process().stderr.so_far();
        lines.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// Waits for a line of the log about a script.
    #[track_caller]
    pub fn remark(&self, script: &str, remark: &str) {
        let wanted = format!("sanserve: /cgi-bin/{script}: {remark}");
        self.server.log_line(&wanted, |line| line == wanted);
    }

    /// The directory of the scripts, as they see it.
    pub fn place(&self) -> PathBuf {
        self.tree.root().canonicalize().expect("the path exists").join("cgi-bin")
    }
}

/// Bytes that a process has written so far, to any descriptor.
pub fn written(found: &Found) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", found.pid)).expect("the process is there");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("Linux tells it");
    line.parse().expect("a number")
}

/// Kills a process that a script has left behind on purpose.
pub fn end(found: &Found) {
    let pid = Pid::from_raw(found.pid).expect("a process id");
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// A request with a body and its `Content-Length`.
pub fn request(method: &str, target: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A body in chunks of `size`.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut coded = Vec::with_capacity(body.len() + body.len() / size * 10 + 20);
    for piece in body.chunks(size) {
        coded.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        coded.extend_from_slice(piece);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

/// The environment variable that marks the processes of the scripts of one tree.
fn mark(tree: &Tree) -> String {
    format!("SCRIPT_OF={}", tree.outside().display())
}

/// A tree with files, and with scripts that all users may run: a server that is root runs them as nobody.
fn scripts() -> Tree {
    let tree = Tree::plain();
    tree.folder("cgi-bin/sub/deep");
    install(&tree, "cgi-bin", SCRIPTS);
    tree.file("cgi-bin/text", "#!/bin/sh\necho secret source\n");
    for folder in ["cgi-bin/sub/deep", "cgi-bin/sub", "cgi-bin", "."] {
        fs::set_permissions(tree.path(folder), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
    }
    fs::set_permissions(tree.outside(), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
    fs::set_permissions(tree.path("cgi-bin/text"), fs::Permissions::from_mode(0o644))
        .expect("permissions can be changed");
    tree
}

/// Writes scripts into a folder of a tree. A separate process does it: a descriptor of this process could be
/// inherited for a moment by a process of another test, and a file that is open for writing cannot be executed.
pub fn install(tree: &Tree, folder: &str, scripts: &[(&str, &str)]) {
    install_in(&tree.path(folder), scripts);
}

/// Like [`install`], in any directory.
#[track_caller]
pub fn install_in(directory: &std::path::Path, scripts: &[(&str, &str)]) {
    let mut shell = Command::new("/bin/sh");
    shell.args([
        "-ec",
        "chmod 755 . ..; while [ $# -gt 0 ]; do printf %s \"$2\" > \"$1\"; chmod 755 \"$1\"; shift 2; done",
        "sh",
    ]);
    shell.args(scripts.iter().flat_map(|(name, text)| [name, text])).current_dir(directory);
    assert!(shell.stdin(Stdio::null()).status().expect("there is a shell").success());
}

/// The child of this process that is a launcher, or the guard of one.
fn launcher_below(parent: i32) -> Option<i32> {
    let mut children = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten().flat_map(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
    });
    children.find(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("launch-cgi-scripts")
    })
}

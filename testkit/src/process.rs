//! Child processes. Their output is collected line by line.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::wait::TIMEOUT;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its standard output.
    pub stdout: Lines,
    /// Its standard error.
    pub stderr: Lines,
}

impl Process {
    /// Starts a program without input.
    #[track_caller]
    pub fn start(command: &mut Command) -> Process {
        allow_many_descriptors();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // A program that was just written may be open for writing in a process that another test has forked and
                // that is not a program of its own yet.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && started.elapsed() < TIMEOUT => {
                    thread::yield_now();
                }
                Err(error) => panic!("cannot start {command:?}: {error}"),
            }
        };
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Process { child, stdout, stderr }
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the process exists");
    }

    /// Waits until the process has ended by itself and all of its output was read.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.ended_within(TIMEOUT)
    }

    /// Like [`ended`](Self::ended), with another timeout.
    #[track_caller]
    pub fn ended_within(&mut self, bound: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None => assert!(start.elapsed() < bound, "the process is still running after {bound:?}"),
            }
            thread::sleep(Duration::from_millis(2));
        };
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        status
    }

    /// Waits until the process has ended by itself, or `bound` has passed.
    pub fn wait_within(&mut self, bound: Duration) {
        let start = Instant::now();
        while self.runs() && start.elapsed() < bound {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the process if it has not ended, and collects the rest of its output.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stderr.wait_for_end();
    }

    /// Whether the process is still running.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// The number of open descriptors.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("the process exists").count()
    }

    /// The anonymous resident memory in bytes, which does not include mapped files.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process exists");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line of Linux");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The peak resident memory in bytes.
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process exists");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line of Linux");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The processor time used, in clock ticks (a hundredth of a second each).
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process exists");
        let after_name = stat.rsplit_once(')').expect("a name in parentheses").1;
        after_name.split_ascii_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum()
    }

    /// Limits the number of descriptors that the process may open from now on.
    pub fn bound_descriptors(&self, most: u64) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a lower limit is allowed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Raises the limit of descriptors, since the tests open thousands of sockets, and so do the servers that inherit the
/// limit.
fn allow_many_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}

/// The lines that a process has written so far, without line terminators.
#[derive(Clone, Debug)]
pub struct Lines(Arc<(Mutex<Written>, Condvar)>);

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = lines.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                let read = pipe.read_until(b'\n', &mut line).unwrap_or(0);
                let mut written = shared.0.0.lock().expect("no reader panics");
                written.bytes.extend_from_slice(&line);
                if read == 0 {
                    written.ended = true;
                    shared.0.1.notify_all();
                    return;
                }
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                written.lines.push(line.utf8_chunks().fold(String::new(), |mut text, chunk| {
                    text.push_str(chunk.valid());
                    text.extend(chunk.invalid().iter().map(|byte| format!("<{byte:02x}>")));
                    text
                }));
                shared.0.1.notify_all();
            }
        });
        lines
    }

    /// Waits for the first line that `wanted` accepts.
    #[track_caller]
    pub fn line(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let start = Instant::now();
        let mut seen = 0;
        let mut written = self.0.0.lock().expect("no reader panics");
        loop {
            if let Some(line) = written.lines[seen..].iter().find(|line| wanted(line)) {
                return line.clone();
            }
            seen = written.lines.len();
            let left = TIMEOUT.saturating_sub(start.elapsed());
            let over = written.ended || left.is_zero();
            assert!(!over, "no line is {what}; all output:\n{}", written.lines.join("\n"));
            written = self.0.1.wait_timeout(written, left).expect("no reader panics").0;
        }
    }

    /// All lines so far.
    pub fn so_far(&self) -> Vec<String> {
        self.0.0.lock().expect("no reader panics").lines.clone()
    }

    /// All bytes so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().expect("no reader panics").bytes.clone()
    }

    #[track_caller]
    fn wait_for_end(&self) {
        let written = self.0.0.lock().expect("no reader panics");
        let waited = self.0.1.wait_timeout_while(written, TIMEOUT, |written| !written.ended).expect("no reader panics");
        assert!(!waited.1.timed_out(), "the process has ended, but its output has not");
    }
}

//! The log: whole lines, each batch of them written with one call.
//!
//! A [`Log`] is the sink that a server shares; a [`Logger`] collects the lines of one thread or connection. Write
//! errors are ignored, because a closed stderr must not stop a server. The text of a line is produced by the core
//! ([`Entry::write`]).
//!
//! No connection waits for stderr or a file: lines are queued up to a limit, and a thread writes them (see
//! [`queue`]).

mod file;
mod queue;
#[cfg(feature = "local-time")]
mod zone;
#[cfg(not(feature = "local-time"))]
#[path = "log/utc.rs"]
mod zone;

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sanserve_core::{Entry, Policy, Wall, is_deceptive};

use file::LogFile;
use queue::Queue;
use zone::Zone;

/// Bytes that a [`Logger`] collects before it writes without a flush.
const MAX_BUFFERED: usize = 32 * 1024;

/// The length limit of a line in bytes. A longer line is cut, and ends with `\...`.
const MAX_LINE: usize = 8 * 1024;

/// How long dropping a log waits for its last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The destination of log lines. Clones share it. When the last clone is dropped, pending lines get one second to be
/// written.
///
/// ```
/// use sanserve_server::{Log, Site};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("access.log");
/// let log = Log::to_file(&path, false)?;
/// log.error("a line that is not of a request");
/// let site = Site::without_files().with_log(log);
/// drop(site); // writes what is pending
/// assert!(std::fs::read_to_string(&path)?.contains("a line that is not of a request"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    sink: Arc<Sink>,
}

struct Sink {
    out: Out,
    quiet: bool,
    /// Looked up for the first line, because the system's time zone is spread over several files.
    zone: OnceLock<Zone>,
    /// Set when the file must be reopened.
    is_stale: Option<Arc<AtomicBool>>,
}

enum Out {
    /// Lines are written by a thread.
    Queue(Arc<Queue>),
    /// Lines are written by the thread that logs.
    Own(Mutex<Box<dyn Write + Send>>),
    /// Lines become records of the crate `log`.
    #[cfg(feature = "log")]
    LogCrate,
}

/// What lines are about, which decides the level of their records in the crate `log`.
#[derive(Clone, Copy)]
enum Subject {
    /// Exchanges with a status below 500, and messages of handlers.
    Exchange,
    /// An exchange that failed, by the server's fault or a script's.
    Failure,
    /// Errors of the server, and what scripts write to stderr.
    Server,
    /// The steps of a connection.
    #[cfg(feature = "recording")]
    Trace,
}

impl Log {
    /// Logs to stderr, which may block without delaying connections. If 1 MiB of lines is pending, further lines wait
    /// for room for up to 100 ms. If stderr has accepted nothing by then, lines are lost until it does, and a line
    /// reports their number.
    #[must_use]
    pub fn stderr() -> Log {
        Log::with(Out::Queue(Arc::clone(&queue::STDERR)), false)
    }

    /// Logs to `out`. Each batch of lines is one `write_all`, so `out` needs no buffer of its own. The thread that
    /// serves a connection writes the lines, so `out` must not block: a writer that may block needs a thread of its
    /// own.
    #[must_use]
    pub fn to(out: impl Write + Send + 'static) -> Log {
        Log::with(Out::Own(Mutex::new(Box::new(out))), false)
    }

    /// Appends to the file at `path`, which is created if it does not exist. [`reopen`](Log::reopen) opens the path
    /// again, for log rotation. A thread writes the lines, so that the file may block just as [`Log::stderr`] may:
    /// with a disk that hangs, or a FIFO that is not read, lines are lost, but no connection is delayed. `quiet`: the
    /// access log is discarded.
    ///
    /// # Errors
    /// If the file cannot be opened. A FIFO that is not read is no error: it is opened once a process reads it.
    pub fn to_file(path: impl Into<PathBuf>, quiet: bool) -> io::Result<Log> {
        let is_stale = Arc::new(AtomicBool::new(false));
        let file = Mutex::new(LogFile::open(path.into(), Arc::clone(&is_stale))?);
        // Only the thread of the queue takes this lock, so that it is never contended.
        let queue = Queue::new(move |lines| file.lock().unwrap_or_else(PoisonError::into_inner).write(lines));
        Ok(Log { sink: Arc::new(Sink::new(Out::Queue(queue), quiet, Some(is_stale))) })
    }

    /// Reopens the file of [`to_file`](Log::to_file) now, before any line that is logged later. Has no effect on
    /// other logs. If the file cannot be opened, the old one is kept, and the error is logged to it.
    pub fn reopen(&self) {
        if let (Some(is_stale), Out::Queue(queue)) = (&self.sink.is_stale, &self.sink.out) {
            is_stale.store(true, Ordering::SeqCst);
            queue.wake();
        }
    }

    /// Discards the access log; errors still go to stderr.
    #[must_use]
    pub fn quiet() -> Log {
        Log::with(Out::Queue(Arc::clone(&queue::STDERR)), true)
    }

    /// Makes each line a record of the crate [`log`](::log), and so also an event of `tracing`, whose subscribers read
    /// such records. An exchange is a record with the target `sanserve::access` and the level info, or error if its
    /// status is 500 or higher; its lines are those of [`Policy::log`], which may leave out the time. A message of a
    /// handler is such a record with the level info. Errors of the server, and what scripts write to stderr, have the
    /// target `sanserve` and the level error.
    ///
    /// The records are made by the threads that serve connections, so the logger must not block.
    #[cfg(feature = "log")]
    #[must_use]
    pub fn to_log_crate() -> Log {
        Log::with(Out::LogCrate, false)
    }

    fn with(out: Out, quiet: bool) -> Log {
        Log { sink: Arc::new(Sink::new(out, quiet, None)) }
    }

    /// Returns a logger that writes to this log.
    #[must_use]
    pub fn logger(&self) -> Logger {
        Logger { log: self.clone(), lines: Vec::new(), stamp: Stamp::default() }
    }

    /// Writes `sanserve: {message}`, an error of the server itself, immediately. The caller must limit the rate.
    /// Control characters in the message, including line ends, are escaped.
    pub fn error(&self, message: impl Display) {
        let mut line = String::from("sanserve: ");
        for c in message.to_string().chars() {
            if c.is_control() || is_deceptive(c) { line.extend(c.escape_unicode()) } else { line.push(c) }
        }
        self.one(Subject::Server, &line);
    }

    /// Writes lines about a script, in the place of errors of the server.
    pub(crate) fn remark(&self, lines: &[u8]) {
        let mut text = Vec::with_capacity(lines.len() + 64);
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            text.extend_from_slice(b"sanserve: ");
            text.extend_from_slice(line);
        }
        self.write(Subject::Server, &text);
    }

    /// Writes a line of a trace unchanged.
    #[cfg(feature = "recording")]
    pub(crate) fn line(&self, line: &str) {
        self.one(Subject::Trace, line);
    }

    fn one(&self, subject: Subject, line: &str) {
        let mut line = format!("{line}\n").into_bytes();
        cut_lines(&mut line, 0);
        self.write(subject, &line);
    }

    /// Waits until the lines written so far have left the process, for at most `bound`. Returns whether they have.
    /// Lines that a [`Logger`] has only collected are not included.
    pub fn flush_within(&self, bound: Duration) -> bool {
        match &self.sink.out {
            Out::Queue(queue) => queue.flush_within(bound),
            Out::Own(_) => true,
            #[cfg(feature = "log")]
            Out::LogCrate => {
                ::log::logger().flush();
                true
            }
        }
    }

    /// Whether the lines of each exchange are written at once, since they are about that exchange only.
    fn is_by_exchange(&self) -> bool {
        match &self.sink.out {
            Out::Queue(_) | Out::Own(_) => false,
            #[cfg(feature = "log")]
            Out::LogCrate => true,
        }
    }

    fn write(&self, subject: Subject, lines: &[u8]) {
        #[cfg(not(feature = "log"))]
        let _ = subject;
        match &self.sink.out {
            Out::Queue(queue) => queue.append(lines),
            Out::Own(out) => {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = out.write_all(lines);
                let _ = out.flush();
            }
            #[cfg(feature = "log")]
            Out::LogCrate => subject.record(lines),
        }
    }
}

impl Subject {
    fn of(entry: &Entry<'_>) -> Subject {
        if entry.status >= 500 { Subject::Failure } else { Subject::Exchange }
    }

    /// Makes a record of each line.
    #[cfg(feature = "log")]
    fn record(self, lines: &[u8]) {
        let (level, target) = match self {
            Subject::Exchange => (::log::Level::Info, "sanserve::access"),
            Subject::Failure => (::log::Level::Error, "sanserve::access"),
            Subject::Server => (::log::Level::Error, "sanserve"),
            #[cfg(feature = "recording")]
            Subject::Trace => (::log::Level::Debug, "sanserve::trace"),
        };
        for line in String::from_utf8_lossy(lines).lines() {
            // The target says so already.
            let line = line.strip_prefix("sanserve: ").unwrap_or(line);
            ::log::log!(target: target, level, "{line}");
        }
    }
}

impl Sink {
    fn new(out: Out, quiet: bool, is_stale: Option<Arc<AtomicBool>>) -> Sink {
        Sink { out, quiet, zone: OnceLock::new(), is_stale }
    }

    fn zone(&self) -> &Zone {
        self.zone.get_or_init(Zone::system)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Out::Queue(queue) = &self.out {
            queue.flush_unless_stuck(LAST_WORDS);
            // The thread of stderr serves all logs, and is never ended.
            if self.is_stale.is_some() {
                queue.close();
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("quiet", &self.sink.quiet).finish_non_exhaustive()
    }
}

/// Collects lines of the access log. Dropping it writes them.
///
/// ```
/// use sanserve_core::{DefaultPolicy, Entry, Peer, Wall};
/// use sanserve_server::Log;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("access.log");
/// let log = Log::to_file(&path, false)?;
/// let mut logger = log.logger(); // one for each thread
/// let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
/// let entry = Entry::new(peer, b"GET / HTTP/1.1").with_response(200, 1_024);
/// logger.write(&entry, &DefaultPolicy, Wall(784_111_777));
/// drop((logger, log));
/// assert!(std::fs::read_to_string(&path)?.ends_with("\"GET / HTTP/1.1\" 200 1024\n"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Logger {
    log: Log,
    lines: Vec<u8>,
    stamp: Stamp,
}

impl Logger {
    /// Adds the lines for a finished exchange, in the format of the policy: by default `{ip} - - [{local time}]
    /// {message}`. If the access log is discarded, why a handler failed is an [error](Log::error).
    pub fn write(&mut self, entry: &Entry<'_>, policy: &dyn Policy, wall: Wall) {
        if self.log.sink.quiet {
            if let Some(why) = entry.failure {
                let (line, why) = (String::from_utf8_lossy(entry.line), String::from_utf8_lossy(why));
                self.log.error(format_args!("{:?}: \"{line}\": {why}", entry.peer));
            }
            return;
        }
        let stamp = self.stamp.at(wall, &self.log.sink);
        let before = self.lines.len();
        policy.log(entry, std::str::from_utf8(stamp).unwrap_or_default(), &mut self.lines);
        cut_lines(&mut self.lines, before);
        if self.log.is_by_exchange() {
            self.log.write(Subject::of(entry), &self.lines);
            self.lines.clear();
        } else if self.lines.len() > MAX_BUFFERED {
            self.flush();
        }
    }

    /// Writes the collected lines with one call. Call it at the end of each turn.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.log.write(Subject::Exchange, &self.lines);
            self.lines.clear();
            self.lines.shrink_to(MAX_BUFFERED);
        }
    }

    /// The log that the lines are written to.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}

/// Cuts the lines after `from` that are too long, so that the lines of one peer do not displace those of others.
fn cut_lines(lines: &mut Vec<u8>, from: usize) {
    const CUT: &[u8] = b"\\...";
    if lines.len() - from <= MAX_LINE {
        return;
    }
    let added = lines.split_off(from);
    for line in added.split_inclusive(|&byte| byte == b'\n') {
        if line.len() <= MAX_LINE {
            lines.extend_from_slice(line);
            continue;
        }
        // Do not cut within a UTF-8 character.
        let mut end = MAX_LINE - CUT.len() - 1;
        while line[end] & 0xc0 == 0x80 && end > 0 {
            end -= 1;
        }
        lines.extend_from_slice(&line[..end]);
        lines.extend_from_slice(CUT);
        lines.push(b'\n');
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The current second as `DD/Mon/YYYY HH:MM:SS`. The names of months are English in every locale, as in Python.
#[derive(Debug, Default)]
struct Stamp {
    wall: Option<Wall>,
    text: [u8; 20],
}

impl Stamp {
    fn at(&mut self, wall: Wall, sink: &Sink) -> &[u8] {
        if self.wall != Some(wall) {
            self.wall = Some(wall);
            self.text = sink.zone().format(wall);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use sanserve_core::Peer;

    use super::*;
    use sanserve_core::DefaultPolicy;

    /// Stores each write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn entry(peer: &str) -> Entry<'static> {
        let peer = Peer::from(peer.parse::<SocketAddr>().unwrap());
        Entry::new(peer, b"GET /a HTTP/1.1").with_response(404, 335).with_error(b"File not found")
    }

    fn log(zone: &str) -> (Log, Writes) {
        let writes = Writes::default();
        let log = Log::to(writes.clone());
        log.sink.zone.set(Zone::posix(zone)).unwrap();
        (log, writes)
    }

    #[test]
    fn a_peer_on_a_unix_socket_has_a_name() {
        let (log, writes) = log("UTC0");
        let mut logger = log.logger();
        let entry = Entry::new(Peer::unix(), b"GET /a HTTP/1.1").with_response(200, 5);
        logger.write(&entry, &DefaultPolicy, Wall(0));
        logger.flush();
        drop(logger);
        let expected = "unix: - - [01/Jan/1970 00:00:00] \"GET /a HTTP/1.1\" 200 5\n";
        assert_eq!(*writes.0.lock().unwrap(), [expected]);
    }

    #[test]
    fn lines_have_pythons_format_and_are_written_at_once() {
        let (log, writes) = log("CET-1CEST,M3.5.0,M10.5.0/3");
        let mut logger = log.logger();
        logger.write(&entry("[::ffff:127.0.0.1]:5000"), &DefaultPolicy, Wall(1_784_073_599));
        logger.write(&entry("[2001:db8::1]:5000"), &DefaultPolicy, Wall(1_767_225_600));
        logger.flush();
        logger.flush();
        drop(logger);
        let expected = "127.0.0.1 - - [15/Jul/2026 01:59:59] code 404, message File not found\n\
                        127.0.0.1 - - [15/Jul/2026 01:59:59] \"GET /a HTTP/1.1\" 404 335\n\
                        2001:db8::1 - - [01/Jan/2026 01:00:00] code 404, message File not found\n\
                        2001:db8::1 - - [01/Jan/2026 01:00:00] \"GET /a HTTP/1.1\" 404 335\n";
        assert_eq!(*writes.0.lock().unwrap(), [expected]);
    }

    #[test]
    fn a_logger_writes_when_it_is_full_and_when_it_is_dropped() {
        let (log, writes) = log("UTC0");
        let mut logger = log.logger();
        for _ in 0..1000 {
            logger.write(&entry("127.0.0.1:1"), &DefaultPolicy, Wall(0));
        }
        drop(logger);
        let writes = writes.0.lock().unwrap();
        assert!((2..20).contains(&writes.len()), "{}", writes.len());
        assert!(writes.iter().all(|lines| lines.ends_with('\n') && lines.len() < MAX_BUFFERED + 1000));
        assert_eq!(writes.iter().map(|lines| lines.lines().count()).sum::<usize>(), 2000);
    }

    #[test]
    fn quiet_silences_the_access_log_only() {
        let writes = Writes::default();
        let log = Log::with(Out::Own(Mutex::new(Box::new(writes.clone()))), true);
        log.logger().write(&entry("127.0.0.1:1"), &DefaultPolicy, Wall(0));
        log.error("out of descriptors");
        assert_eq!(*writes.0.lock().unwrap(), ["sanserve: out of descriptors\n"]);
        assert!(log.sink.zone.get().is_none(), "the time zone is not needed");
    }

    #[test]
    fn a_long_line_of_a_custom_policy_is_cut() {
        struct Long;
        impl Policy for Long {
            fn log(&self, _: &Entry<'_>, _: &str, out: &mut Vec<u8>) {
                out.extend_from_slice("short\n".as_bytes());
                out.extend_from_slice("é".repeat(20_000).as_bytes());
                out.extend_from_slice(b"\nlast\n");
            }
        }
        let (log, writes) = log("UTC0");
        let mut logger = log.logger();
        logger.write(&entry("127.0.0.1:1"), &Long, Wall(0));
        logger.flush();
        log.error("x".repeat(100_000));
        let text = writes.0.lock().unwrap().concat();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (4, "short", "last"));
        for line in [lines[1], lines[3]] {
            assert!((8_180..=8_192).contains(&(line.len() + 1)) && line.ends_with("\\..."), "{}", line.len());
        }
    }

    #[test]
    fn an_error_is_one_line() {
        let (log, writes) = log("UTC0");
        log.error("one\ntwo\x1b\u{202e}");
        assert_eq!(*writes.0.lock().unwrap(), ["sanserve: one\\u{a}two\\u{1b}\\u{202e}\n"]);
    }

    #[test]
    fn write_errors_are_ignored() {
        let log = Log::to(Broken);
        log.logger().write(&entry("127.0.0.1:1"), &DefaultPolicy, Wall(i64::MAX));
        log.error("nobody reads this");
    }
}

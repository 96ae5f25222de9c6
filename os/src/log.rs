//! The log: whole lines, each batch of them written with one call.
//!
//! A [`Log`] is the sink that a server shares; a [`Logger`] gathers the lines of one thread or
//! connection. Trouble with the sink is ignored: a closed stderr must not stop a server. How the
//! message of a line reads is the core's ([`Entry::write`]).

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sanserve_core::{Entry, Wall};

/// What a [`Logger`] gathers before it writes by itself.
const MOST_GATHERED: usize = 32 * 1024;

/// Where lines go. Clones share it.
#[derive(Clone)]
pub struct Log {
    sink: Arc<Sink>,
}

struct Sink {
    out: Mutex<Box<dyn Write + Send>>,
    quiet: bool,
    zone: TimeZone,
}

impl Log {
    /// To stderr.
    #[must_use]
    pub fn stderr() -> Log {
        Log::to(io::stderr())
    }

    /// To `out`. Lines come in one `write_all` a batch, so there should be no buffer of its own in it.
    #[must_use]
    pub fn to(out: impl Write + Send + 'static) -> Log {
        Log::with(Box::new(out), false, TimeZone::system())
    }

    /// The access log goes nowhere; errors still go to stderr.
    #[must_use]
    pub fn quiet() -> Log {
        Log::with(Box::new(io::stderr()), true, TimeZone::UTC)
    }

    fn with(out: Box<dyn Write + Send>, quiet: bool, zone: TimeZone) -> Log {
        Log { sink: Arc::new(Sink { out: Mutex::new(out), quiet, zone }) }
    }

    /// A gatherer of lines for this log.
    #[must_use]
    pub fn logger(&self) -> Logger {
        Logger { log: self.clone(), lines: Vec::new(), stamp: Stamp::default() }
    }

    /// Writes `sanserve: {message}`: trouble of the server itself, at once. How often is for the
    /// caller to limit.
    pub fn error(&self, message: impl Display) {
        self.write(format!("sanserve: {message}\n").as_bytes());
    }

    fn write(&self, lines: &[u8]) {
        let mut out = self.sink.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(lines);
        let _ = out.flush();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("quiet", &self.sink.quiet).finish_non_exhaustive()
    }
}

/// Gathers lines of the access log. What it holds when it is dropped is written.
#[derive(Debug)]
pub struct Logger {
    log: Log,
    lines: Vec<u8>,
    stamp: Stamp,
}

impl Logger {
    /// Adds the lines of an exchange that is over: `{ip} - - [{local time}] {message}`.
    pub fn write(&mut self, entry: &Entry<'_>, wall: Wall) {
        if self.log.sink.quiet {
            return;
        }
        let stamp = self.stamp.at(wall, &self.log.sink.zone);
        let ip = entry.peer.ip();
        entry.write(&mut self.lines, |out| {
            write!(out, "{ip} - - [").expect("a Vec takes all");
            out.extend_from_slice(stamp);
            out.extend_from_slice(b"] ");
        });
        if self.lines.len() > MOST_GATHERED {
            self.flush();
        }
    }

    /// Writes what was gathered, in one call. To be called at the end of each turn.
    pub fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.log.write(&self.lines);
            self.lines.clear();
            self.lines.shrink_to(MOST_GATHERED);
        }
    }

    /// The log that the lines go to.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush();
    }
}

/// `DD/Mon/YYYY HH:MM:SS` of a second. English in every locale, as in Python.
#[derive(Debug, Default)]
struct Stamp {
    wall: Option<Wall>,
    text: [u8; 20],
}

impl Stamp {
    fn at(&mut self, wall: Wall, zone: &TimeZone) -> &[u8] {
        if self.wall != Some(wall) {
            self.wall = Some(wall);
            let at = Timestamp::from_second(wall.0).unwrap_or(Timestamp::UNIX_EPOCH);
            self.text = format(zone.to_offset(at).to_datetime(at));
        }
        &self.text
    }
}

fn format(at: DateTime) -> [u8; 20] {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let mut text = *b"00/Mon/0000 00:00:00";
    let mut two = |place: usize, value: i16| {
        let value = u8::try_from(value).unwrap_or(0);
        text[place] = b'0' + value / 10 % 10;
        text[place + 1] = b'0' + value % 10;
    };
    two(0, at.day().into());
    two(7, at.year() / 100);
    two(9, at.year() % 100);
    two(12, at.hour().into());
    two(15, at.minute().into());
    two(18, at.second().into());
    text[3..6].copy_from_slice(MONTHS[usize::try_from(at.month() - 1).expect("months count from 1")]);
    text
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sanserve_core::Peer;

    use super::*;

    /// Remembers each write.
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
        Entry { peer, line: b"GET /a HTTP/1.1", status: 404, sent: 335, error: Some(b"File not found"), cut: None }
    }

    fn log(zone: &str) -> (Log, Writes) {
        let writes = Writes::default();
        (Log::with(Box::new(writes.clone()), false, TimeZone::posix(zone).unwrap()), writes)
    }

    #[test]
    fn lines_read_as_pythons_and_come_in_one_write() {
        let (log, writes) = log("CET-1CEST,M3.5.0,M10.5.0/3");
        let mut logger = log.logger();
        logger.write(&entry("[::ffff:127.0.0.1]:5000"), Wall(1_784_073_599));
        logger.write(&entry("[2001:db8::1]:5000"), Wall(1_767_225_600));
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
    fn writes_by_itself_when_much_is_gathered_and_when_dropped() {
        let (log, writes) = log("UTC0");
        let mut logger = log.logger();
        for _ in 0..1000 {
            logger.write(&entry("127.0.0.1:1"), Wall(0));
        }
        drop(logger);
        let writes = writes.0.lock().unwrap();
        assert!((2..20).contains(&writes.len()), "{}", writes.len());
        assert!(writes.iter().all(|lines| lines.ends_with('\n') && lines.len() < MOST_GATHERED + 1000));
        assert_eq!(writes.iter().map(|lines| lines.lines().count()).sum::<usize>(), 2000);
    }

    #[test]
    fn quiet_silences_the_access_log_only() {
        let writes = Writes::default();
        let log = Log::with(Box::new(writes.clone()), true, TimeZone::UTC);
        log.logger().write(&entry("127.0.0.1:1"), Wall(0));
        log.error("out of descriptors");
        assert_eq!(*writes.0.lock().unwrap(), ["sanserve: out of descriptors\n"]);
    }

    #[test]
    fn trouble_with_the_sink_is_ignored() {
        let log = Log::to(Broken);
        log.logger().write(&entry("127.0.0.1:1"), Wall(i64::MAX));
        log.error("nobody reads this");
    }
}

//! Recordings: a file for each connection, written while it lives, that can be played again
//! (`docs/transcripts.md`).
//!
//! Whoever drives a connection only gathers its events; a thread of the recording's own makes text of them and
//! writes it, a few milliseconds later. What is bounded: the size of a file, the number of files, and how much is
//! recorded in a second, so that a server under load serves about as much as without. A connection that
//! would exceed a bound goes on unrecorded.

mod writer;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use sanserve_transcript::{Event, Recorder, Settings, Transcript, What};

use crate::log::Log;
use writer::{Message, Writer};

/// Connections whose recordings are kept, by default.
const MAX: usize = 1_000;
/// Bytes of one recording, by default.
const SIZE: u64 = 1 << 20;
/// Bytes recorded in a second, by default.
const RATE: u64 = 2 << 20;
/// So many seconds' worth may come at once.
const BURST: u64 = 2;
/// Bytes that may wait to be written: a disk that hangs takes nothing, and what comes meanwhile is not recorded.
const MAX_WAITING: u64 = 8 << 20;
/// What a connection counts for beside its events: a file is made for it.
const CONNECTION: u64 = 4 * 1024;
/// How long the last one who drops a recording waits for the disk.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Events that are handed over together, unless the connection waits before there are so many.
const BATCH: usize = 64;
/// What an event counts for beside its bytes.
const EVENT: usize = 64;

/// Records connections in a directory. Clones share it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// use sanserve_server::{Log, Recording, Site};
///
/// let recording = Recording::to(directory.path().join("recordings"), Log::stderr())?.with_most(100);
/// let site = Site::new(".")?.with_recording(recording);
/// # assert!(site.observes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recording {
    shared: Arc<Shared>,
    site: String,
    size: u64,
    most: usize,
    rate: u64,
}

struct Shared {
    to_writer: Sender<Message>,
    /// Connections so far.
    count: AtomicU64,
    /// Connections that are being recorded.
    active: AtomicUsize,
    budget: Budget,
    /// Bytes that wait to be written.
    waiting: AtomicU64,
    /// The disk has refused.
    failed: AtomicBool,
}

/// Makes the directory if it is not there, and none above it.
fn make(directory: &Path) -> io::Result<()> {
    // Without a trailing `/.`, for which `mkdir` wants the directory to exist.
    let directory: PathBuf = directory.components().collect();
    let error = match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) => error,
        Ok(()) => return Ok(()),
    };
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    match error.kind() {
        io::ErrorKind::AlreadyExists if directory.is_dir() => Ok(()),
        io::ErrorKind::AlreadyExists if directory.exists() => Err(rustix::io::Errno::NOTDIR.into()),
        io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), "it is a symbolic link to what is not there".to_owned()))
        }
        // In `/proc`, say, nothing can be made.
        io::ErrorKind::NotFound if above.is_some_and(|above| !above.is_dir()) => {
            let above = above.unwrap_or(&directory).display();
            Err(io::Error::new(error.kind(), format!("there is no directory {above}, and no more than one is made")))
        }
        _ => Err(error),
    }
}

impl Recording {
    /// Records in this directory, which is made if it is not there, and readable for its owner alone. Directories
    /// above it are not made: they are more likely mistyped than meant. Files are `000001.txt` and so on, after those
    /// that are there already.
    ///
    /// # Errors
    /// If it cannot be made or written to, or if there can be no thread for it.
    pub fn to(directory: impl AsRef<Path>, log: Log) -> io::Result<Recording> {
        let directory = directory.as_ref().to_owned();
        make(&directory)?;
        let writer = Writer::new(directory)?;
        let (to_writer, messages) = mpsc::channel();
        let shared = Arc::new(Shared {
            to_writer,
            count: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            budget: Budget { start: Instant::now(), spent: AtomicU64::new(0) },
            waiting: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        });
        let of_writer = Arc::downgrade(&shared);
        thread::Builder::new().name("record".into()).spawn(move || {
            let failed = |error: &io::Error| {
                log.error(format_args!("cannot record: {error}"));
                if let Some(shared) = of_writer.upgrade() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
            };
            let taken = |bytes: u64| {
                if let Some(shared) = of_writer.upgrade() {
                    shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
            };
            writer.run(&messages, taken, failed);
        })?;
        Ok(Recording { shared, site: String::new(), size: SIZE, most: MAX, rate: RATE })
    }

    /// Keeps the recordings of so many connections; the oldest one that is complete goes first. If none is, a new
    /// connection is not recorded. Default 1,000. What an earlier server has recorded is not touched.
    #[must_use]
    pub fn with_most(self, most: usize) -> Recording {
        Recording { most, ..self }
    }

    /// Ends each recording at about so many bytes; a comment then says so. Default 1 MiB.
    #[must_use]
    pub fn with_size(self, size: u64) -> Recording {
        Recording { size, ..self }
    }

    /// Records at most so many bytes a second, twice that at once; a new connection counts for 4 KiB of them. What goes
    /// beyond is not recorded: a recording that is under way ends, and a comment says so. Default 2 MiB, some
    /// thousand requests.
    #[must_use]
    pub fn with_rate(self, rate: u64) -> Recording {
        Recording { rate: rate.max(1), ..self }
    }

    /// Names the policy and the handler in each recording, for whoever is to play it. Default: `plain`, or `handler`
    /// where there is one.
    #[must_use]
    pub fn with_site_name(self, site: impl Into<String>) -> Recording {
        Recording { site: site.into(), ..self }
    }

    /// What takes the events of another connection. `None`: a bound is reached.
    pub(crate) fn begin(&self, settings: Settings, about: String) -> Option<Box<dyn Recorder>> {
        let shared = &self.shared;
        let is_free = |active: usize| (active < self.most).then_some(active + 1);
        if shared.failed.load(Ordering::Relaxed) || !shared.budget.spend(CONNECTION, self.rate) {
            return None;
        }
        shared.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free).ok()?;
        if !shared.wait(CONNECTION) {
            shared.active.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let id = shared.count.fetch_add(1, Ordering::Relaxed);
        let site = match (self.site.as_str(), settings.config.handled) {
            ("", true) => "handler".into(),
            ("", false) => settings.site,
            (name, _) => name.into(),
        };
        let head = Transcript { about: vec![about], settings: Settings { site, ..settings }, lines: Vec::new() };
        let full = Arc::new(AtomicBool::new(false));
        let rate = self.rate;
        let reel = Reel { shared: Arc::clone(shared), id, events: Vec::new(), bytes: 0, rate, lost: false, full };
        let (size, most, full) = (self.size, self.most, Arc::clone(&reel.full));
        shared.tell(Message::Begin { id, head: Box::new(head), size, most, full });
        Some(Box::new(reel))
    }

    /// Waits until what was recorded so far is written, but no longer than `bound`. `true`: it is. The last one who
    /// drops a clone of this, or a connection that is recorded, does so too, for at most a second: it is needed only
    /// before `std::process::exit`, and where connections go on when `main` returns.
    pub fn flush_within(&self, bound: Duration) -> bool {
        self.shared.flush_within(bound)
    }
}

impl Shared {
    /// Whether so many bytes more may wait to be written.
    fn wait(&self, bytes: u64) -> bool {
        let more = |waiting: u64| waiting.checked_add(bytes).filter(|waiting| *waiting <= MAX_WAITING);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn tell(&self, message: Message) {
        // It fails only where the writer has panicked.
        let _ = self.to_writer.send(message);
    }

    fn flush_within(&self, bound: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.tell(Message::Flush(done));
        wait.recv_timeout(bound).is_ok()
    }
}

/// The process may end when its last server is gone, and what that has recorded is to be there then.
impl Drop for Shared {
    fn drop(&mut self) {
        // Where the disk has refused there is nothing to wait for, and it may be the writer who drops this.
        if !self.failed.load(Ordering::Relaxed) {
            self.flush_within(LAST_WORDS);
        }
    }
}

/// How much may be recorded: what is spent is paid off with time (a leaky bucket, as a meter).
struct Budget {
    start: Instant,
    /// When all is paid off that was spent so far, in nanoseconds from the start.
    spent: AtomicU64,
}

impl Budget {
    /// Whether so many bytes may be recorded now.
    fn spend(&self, bytes: u64, rate: u64) -> bool {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let costs = u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
        let after = |spent: u64| {
            let paid = spent.max(now).saturating_add(costs);
            (paid - now <= BURST * 1_000_000_000).then_some(paid)
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }
}

/// Gathers the events of one connection.
struct Reel {
    shared: Arc<Shared>,
    id: u64,
    events: Vec<Event>,
    bytes: u64,
    rate: u64,
    /// It would have been too much.
    lost: bool,
    full: Arc<AtomicBool>,
}

impl Reel {
    fn hand_over(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let events = std::mem::take(&mut self.events);
        let bytes = std::mem::take(&mut self.bytes);
        self.lost = self.lost || !self.shared.budget.spend(bytes, self.rate) || !self.shared.wait(bytes);
        if !self.lost {
            self.shared.tell(Message::Events { id: self.id, events, bytes });
        }
    }
}

impl Recorder for Reel {
    fn event(&mut self, event: Event) {
        self.bytes += (EVENT + size(&event.what)) as u64;
        self.events.push(event);
        if self.events.len() >= BATCH {
            self.hand_over();
        }
    }

    fn waits(&mut self) -> bool {
        self.hand_over();
        !self.lost && !self.full.load(Ordering::Relaxed) && !self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Reel {
    fn drop(&mut self) {
        self.hand_over();
        self.shared.tell(Message::End { id: self.id, lost: self.lost });
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// About what an event holds.
fn size(what: &What) -> usize {
    match what {
        What::Recv(bytes) | What::Script(bytes) | What::Feed { bytes, .. } => bytes.len(),
        What::Send(sending) => sending.head.len() + sending.tail.len(),
        What::List { entries, .. } => entries.iter().map(|(name, _)| name.len() + EVENT).sum(),
        What::Spawn { told, .. } => told.environment.iter().map(Vec::len).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sanserve_core::Input;

    use super::writer::OPEN;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn event(at: u64, what: What) -> Event {
        Event { at, joined: false, what }
    }

    fn texts(directory: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    fn recording(directory: &Path) -> Recording {
        Recording::to(directory, Log::quiet()).unwrap()
    }

    #[test]
    fn a_file_grows_while_its_connection_lives() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Recording::to(dir.path().join("a/b"), Log::quiet()).is_err(), "one directory is made, and no more");
        let dir = dir.path().join("a");
        let recording = recording(&dir);
        let mut reel = recording.begin(Settings::default(), " of a test".into()).unwrap();
        reel.event(event(0, What::Recv(b"GET".to_vec())));
        assert!(reel.waits() && recording.flush_within(PATIENCE));
        let text = "sanserve transcript 1\n# of a test\n@0 recv \"GET\"\n";
        assert_eq!(texts(&dir), [("000001.txt".to_owned(), text.to_owned())]);
        reel.event(event(7, What::Input(Input::Eof)));
        drop(reel);
        assert!(recording.flush_within(PATIENCE));
        assert_eq!(texts(&dir)[0].1, format!("{text}@7 eof\n"));
        // Another one goes on after it.
        let again = super::tests::recording(&dir);
        drop(again.begin(Settings::default(), String::new()));
        assert!(again.flush_within(PATIENCE));
        assert_eq!(texts(&dir)[1].0, "000002.txt");
    }

    /// A driver need not know of any flush: who drops last waits for the disk, the server or one of its connections.
    #[test]
    fn what_is_dropped_is_written() {
        for connection_first in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let recording = recording(dir.path());
            let mut reels: Vec<_> =
                (0..200).map(|_| recording.begin(Settings::default(), String::new()).unwrap()).collect();
            for reel in &mut reels {
                reel.event(event(7, What::Recv(b"a".to_vec())));
            }
            if connection_first {
                drop(reels);
                drop(recording);
            } else {
                drop(recording);
                drop(reels);
            }
            let texts = texts(dir.path());
            assert_eq!(texts.len(), 200);
            assert!(texts.iter().all(|(_, text)| text.ends_with("@7 recv \"a\"\n")), "{connection_first}");
        }
    }

    #[test]
    fn a_recording_ends_at_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_size(100);
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        for at in 0..9 {
            reel.event(event(at, What::Recv(b"0123456789".to_vec())));
        }
        reel.waits();
        assert!(recording.flush_within(PATIENCE));
        assert!(!reel.waits(), "it wants no more");
        drop(reel);
        assert!(recording.flush_within(PATIENCE));
        let text = &texts(dir.path())[0].1;
        let transcript = Transcript::parse(text).unwrap();
        assert_eq!(transcript.events().count(), 3, "{text}");
        assert!(text.ends_with("\n# The rest was not recorded: it is longer than 100 bytes.\n"), "{text}");
    }

    #[test]
    fn no_more_is_recorded_than_may_be_in_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_rate(CONNECTION);
        let mut first = recording.begin(Settings::default(), String::new()).unwrap();
        first.event(event(0, What::Tick));
        assert!(first.waits());
        first.event(event(1, What::Recv(vec![b'a'; 9_000])));
        assert!(!first.waits(), "two seconds' worth and more");
        drop(first);
        assert!(recording.flush_within(PATIENCE));
        let end = "@0 tick\n# The rest was not recorded: more came than may be recorded in the time.\n";
        assert!(texts(dir.path())[0].1.ends_with(end));
        assert!(recording.with_rate(1).begin(Settings::default(), String::new()).is_none());
    }

    /// A file that nobody reads, in the place of a disk that hangs: the writer blocks when it opens it.
    #[test]
    fn a_disk_that_hangs_holds_up_nobody_and_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_rate(1 << 40).with_size(1 << 40);
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        reel.event(event(0, What::Tick));
        assert!(reel.waits() && recording.flush_within(PATIENCE));
        // What is written next goes to a pipe: with as many others, this one's file is closed meanwhile.
        let path = dir.path().join("000001.txt");
        let mut others: Vec<_> = (0..OPEN).map(|_| recording.begin(Settings::default(), String::new())).collect();
        assert!(recording.flush_within(PATIENCE));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        others.push(recording.begin(Settings::default(), String::new()));
        assert!(recording.flush_within(PATIENCE));
        let mut handed_over: u64 = 0;
        while reel.waits() {
            reel.event(event(1, What::Recv(vec![b'a'; 64 * 1024])));
            handed_over += 64 * 1024;
            assert!(handed_over < 4 * MAX_WAITING, "there is no end to it");
        }
        assert!(handed_over >= MAX_WAITING, "{handed_over}");
        assert!(!recording.flush_within(Duration::from_millis(20)), "the disk hangs");
        // It goes on when the disk does.
        let reader =
            std::thread::spawn(move || std::io::copy(&mut fs::File::open(path).unwrap(), &mut std::io::sink()));
        drop(reel);
        assert!(recording.flush_within(PATIENCE));
        assert!(recording.begin(Settings::default(), String::new()).is_some());
        drop((others, recording));
        drop(reader);
    }

    #[test]
    fn what_was_spent_is_paid_off_with_time() {
        let second = Duration::from_secs(1);
        let Some(start) = Instant::now().checked_sub(5 * second) else { return };
        let budget = Budget { start, spent: AtomicU64::new(0) };
        assert!(budget.spend(200, 100), "two seconds' worth");
        assert!(!budget.spend(50, 100));
        let budget = Budget { start: start.checked_sub(second).unwrap_or(start), ..budget };
        assert!(budget.spend(50, 100) || start.checked_sub(second).is_none());
    }

    #[test]
    fn the_oldest_complete_recordings_go_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000007.txt"), "old").unwrap();
        let recording = recording(dir.path()).with_most(3);
        let begin = || recording.begin(Settings::default(), String::new());
        let (first, second, third) = (begin().unwrap(), begin().unwrap(), begin().unwrap());
        assert!(begin().is_none(), "all are being recorded");
        drop(second);
        let fourth = begin().unwrap();
        drop((third, fourth));
        let fifth = begin().unwrap();
        assert!(recording.flush_within(PATIENCE));
        let names: Vec<_> = texts(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["000007.txt", "000008.txt", "000011.txt", "000012.txt"]);
        drop((first, fifth));
    }

    #[test]
    fn many_are_recorded_with_few_open_files() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path());
        let mut reels: Vec<_> =
            (0..3 * OPEN).map(|_| recording.begin(Settings::default(), String::new()).unwrap()).collect();
        for at in 0..2 {
            for reel in &mut reels {
                reel.event(event(at, What::Tick));
                assert!(reel.waits());
            }
        }
        assert!(recording.flush_within(PATIENCE));
        let texts = texts(dir.path());
        assert_eq!(texts.len(), 3 * OPEN);
        assert!(texts.iter().all(|(_, text)| text.ends_with("#\n@0 tick\n@1 tick\n")), "{texts:?}");
    }

    #[test]
    fn where_nothing_can_be_written_there_is_no_recording() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Recording::to(dir.path().join("file"), Log::quiet()).is_err());
        assert!(Recording::to(dir.path().join("file/below"), Log::quiet()).is_err());
        // What is lost meanwhile ends it.
        let gone = dir.path().join("gone");
        let recording = recording(&gone);
        fs::remove_dir_all(&gone).unwrap();
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        reel.event(event(0, What::Tick));
        reel.waits();
        assert!(recording.flush_within(PATIENCE));
        assert!(recording.begin(Settings::default(), String::new()).is_none());
    }
}

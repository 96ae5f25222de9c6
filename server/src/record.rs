//! Recordings: one file per connection, written while the connection is open, which can be replayed
//! (`docs/transcripts.md`).
//!
//! A driver only collects the events of its connection. A thread of the recording formats and writes them a few
//! milliseconds later. There are limits for the size of a file, the number of files, and the bytes recorded per
//! second, so that recording does not slow down a server under load. A connection that would exceed a limit continues
//! without being recorded.

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

/// Default number of recordings that are kept.
const MAX: usize = 1_000;
/// Default size limit of a recording, in bytes.
const SIZE: u64 = 1 << 20;
/// Default limit of the bytes recorded per second.
const RATE: u64 = 2 << 20;
/// The burst that is permitted, in seconds of the rate.
const BURST: u64 = 2;
/// The most bytes that may wait to be written. If the disk hangs, further events are not recorded.
const MAX_WAITING: u64 = 8 << 20;
/// What a connection counts for in addition to its events, because a file is created for it.
const CONNECTION: u64 = 4 * 1024;
/// How long dropping the last reference to a recording waits for the disk.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The most events that are handed over together. Fewer are, if the connection waits first.
const BATCH: usize = 64;
/// What an event counts for in addition to its bytes.
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
    /// Connections recorded so far.
    count: AtomicU64,
    /// Connections that are being recorded now.
    active: AtomicUsize,
    budget: Budget,
    /// Bytes that are waiting to be written.
    waiting: AtomicU64,
    /// Writing has failed.
    failed: AtomicBool,
}

/// Creates the directory if it does not exist, but not its parents.
fn make(directory: &Path) -> io::Result<()> {
    // Without a trailing `/.`, because `mkdir` would then require the directory to exist.
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
            Err(io::Error::new(error.kind(), "it is a symbolic link whose target does not exist".to_owned()))
        }
        // The parent exists, but nothing can be created in it, for instance in `/proc`.
        io::ErrorKind::NotFound if above.is_some_and(|above| !above.is_dir()) => {
            let above = above.unwrap_or(&directory).display();
            Err(io::Error::new(
                error.kind(),
                format!("the parent directory {above} does not exist, and is not created"),
            ))
        }
        _ => Err(error),
    }
}

impl Recording {
    /// Records in this directory, which is created if it does not exist, readable only for its owner. Parent
    /// directories are not created, since a missing parent is more likely a typing error. Files are named
    /// `000001.txt` and so on, continuing after the existing ones.
    ///
    /// # Errors
    /// If the directory cannot be created or written to, or if the thread cannot be started.
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

    /// Keeps the recordings of the last `most` connections. The oldest complete recording is deleted first; if none
    /// is complete, a new connection is not recorded. Default 1,000. Recordings of an earlier server are never
    /// deleted.
    #[must_use]
    pub fn with_most(self, most: usize) -> Recording {
        Recording { most, ..self }
    }

    /// Ends each recording at about `size` bytes, with a comment that says so. Default 1 MiB.
    #[must_use]
    pub fn with_size(self, size: u64) -> Recording {
        Recording { size, ..self }
    }

    /// Records at most `rate` bytes per second, with bursts of twice that; a new connection counts for 4 KiB. What
    /// exceeds the rate is not recorded: a recording in progress ends with a comment that says so. Default 2 MiB,
    /// which is some thousand requests.
    #[must_use]
    pub fn with_rate(self, rate: u64) -> Recording {
        Recording { rate: rate.max(1), ..self }
    }

    /// Names the policy and the handler in each recording, for those who replay it. Default: `plain`, or `handler` if
    /// there is one.
    #[must_use]
    pub fn with_site_name(self, site: impl Into<String>) -> Recording {
        Recording { site: site.into(), ..self }
    }

    /// Returns the recorder for another connection. `None`: a limit is reached.
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
            ("", false) => settings.site.clone(),
            (name, _) => name.into(),
        };
        let head = Transcript { about: vec![about], settings: settings.with_site(site), lines: Vec::new() };
        let full = Arc::new(AtomicBool::new(false));
        let rate = self.rate;
        let reel = Reel { shared: Arc::clone(shared), id, events: Vec::new(), bytes: 0, rate, lost: false, full };
        let (size, most, full) = (self.size, self.most, Arc::clone(&reel.full));
        shared.send(Message::Begin { id, head: Box::new(head), size, most, full });
        Some(Box::new(reel))
    }

    /// Waits until everything recorded so far is written, for at most `bound`. Returns whether it is. Dropping the
    /// last clone of the recording, or the last recorded connection, does the same for at most one second. So this is
    /// only needed before `std::process::exit`, and if connections are still open when `main` returns.
    pub fn flush_within(&self, bound: Duration) -> bool {
        self.shared.flush_within(bound)
    }
}

impl Shared {
    /// Whether `bytes` more may wait to be written.
    fn wait(&self, bytes: u64) -> bool {
        let more = |waiting: u64| waiting.checked_add(bytes).filter(|waiting| *waiting <= MAX_WAITING);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn send(&self, message: Message) {
        // Fails only if the writer has panicked.
        let _ = self.to_writer.send(message);
    }

    fn flush_within(&self, bound: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.send(Message::Flush(done));
        wait.recv_timeout(bound).is_ok()
    }
}

/// Waits for the disk, since the process may end when its last server is dropped, and everything recorded should be
/// in the files then.
impl Drop for Shared {
    fn drop(&mut self) {
        // After a write error there is nothing to wait for, and this may be running on the thread of the writer.
        if !self.failed.load(Ordering::Relaxed) {
            self.flush_within(LAST_WORDS);
        }
    }
}

/// The limit of the bytes per second: a leaky bucket, as a meter.
struct Budget {
    start: Instant,
    /// When the bucket will be empty, in nanoseconds from the start.
    spent: AtomicU64,
}

impl Budget {
    /// Whether `bytes` may be recorded now.
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

/// Collects the events of one connection.
struct Reel {
    shared: Arc<Shared>,
    id: u64,
    events: Vec<Event>,
    bytes: u64,
    rate: u64,
    /// Events were dropped, because a limit was reached.
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
            self.shared.send(Message::Events { id: self.id, events, bytes });
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
        self.shared.send(Message::End { id: self.id, lost: self.lost });
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The approximate size of an event.
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

    const TIMEOUT: Duration = Duration::from_secs(20);

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
        assert!(Recording::to(dir.path().join("a/b"), Log::quiet()).is_err(), "parent directories are not created");
        let dir = dir.path().join("a");
        let recording = recording(&dir);
        let mut reel = recording.begin(Settings::default(), " of a test".into()).unwrap();
        reel.event(event(0, What::Recv(b"GET".to_vec())));
        assert!(reel.waits() && recording.flush_within(TIMEOUT));
        let text = "sanserve transcript 1\n# of a test\n@0 recv \"GET\"\n";
        assert_eq!(texts(&dir), [("000001.txt".to_owned(), text.to_owned())]);
        reel.event(event(7, What::Input(Input::Eof)));
        drop(reel);
        assert!(recording.flush_within(TIMEOUT));
        assert_eq!(texts(&dir)[0].1, format!("{text}@7 eof\n"));
        // Another recording continues the numbers.
        let again = super::tests::recording(&dir);
        drop(again.begin(Settings::default(), String::new()));
        assert!(again.flush_within(TIMEOUT));
        assert_eq!(texts(&dir)[1].0, "000002.txt");
    }

    /// A driver does not need to flush: dropping the last reference waits for the disk, whether the server or a connection
    /// has it.
    #[test]
    fn dropping_the_last_reference_waits_for_the_disk() {
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
    fn a_recording_ends_at_its_size_limit() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_size(100);
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        for at in 0..9 {
            reel.event(event(at, What::Recv(b"0123456789".to_vec())));
        }
        reel.waits();
        assert!(recording.flush_within(TIMEOUT));
        assert!(!reel.waits(), "the recorder is finished");
        drop(reel);
        assert!(recording.flush_within(TIMEOUT));
        let text = &texts(dir.path())[0].1;
        let transcript = Transcript::parse(text).unwrap();
        assert_eq!(transcript.events().count(), 3, "{text}");
        assert!(text.ends_with("\n# The rest was not recorded: it is longer than 100 bytes.\n"), "{text}");
    }

    #[test]
    fn the_rate_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_rate(CONNECTION);
        let mut first = recording.begin(Settings::default(), String::new()).unwrap();
        first.event(event(0, What::Tick));
        assert!(first.waits());
        first.event(event(1, What::Recv(vec![b'a'; 9_000])));
        assert!(!first.waits(), "the burst of two seconds is exceeded");
        drop(first);
        assert!(recording.flush_within(TIMEOUT));
        let end = "@0 tick\n# The rest was not recorded: more came than may be recorded in the time.\n";
        assert!(texts(dir.path())[0].1.ends_with(end));
        assert!(recording.with_rate(1).begin(Settings::default(), String::new()).is_none());
    }

    /// The writer opens a FIFO that is not read, which blocks it like a disk that hangs.
    #[test]
    fn a_disk_that_hangs_blocks_nothing_and_takes_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path()).with_rate(1 << 40).with_size(1 << 40);
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        reel.event(event(0, What::Tick));
        assert!(reel.waits() && recording.flush_within(TIMEOUT));
        // Replaces the file by a FIFO. The file was closed meanwhile, because so many others are open.
        let path = dir.path().join("000001.txt");
        let mut others: Vec<_> = (0..OPEN).map(|_| recording.begin(Settings::default(), String::new())).collect();
        assert!(recording.flush_within(TIMEOUT));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        others.push(recording.begin(Settings::default(), String::new()));
        assert!(recording.flush_within(TIMEOUT));
        let mut handed_over: u64 = 0;
        while reel.waits() {
            reel.event(event(1, What::Recv(vec![b'a'; 64 * 1024])));
            handed_over += 64 * 1024;
            assert!(handed_over < 4 * MAX_WAITING, "the number of pending bytes is not bounded");
        }
        assert!(handed_over >= MAX_WAITING, "{handed_over}");
        assert!(!recording.flush_within(Duration::from_millis(20)), "the disk hangs");
        // Recording continues once the disk works again.
        let reader =
            std::thread::spawn(move || std::io::copy(&mut fs::File::open(path).unwrap(), &mut std::io::sink()));
        drop(reel);
        assert!(recording.flush_within(TIMEOUT));
        assert!(recording.begin(Settings::default(), String::new()).is_some());
        drop((others, recording));
        drop(reader);
    }

    #[test]
    fn the_bucket_drains_with_time() {
        let second = Duration::from_secs(1);
        let Some(start) = Instant::now().checked_sub(5 * second) else { return };
        let budget = Budget { start, spent: AtomicU64::new(0) };
        assert!(budget.spend(200, 100), "a burst of two seconds");
        assert!(!budget.spend(50, 100));
        let budget = Budget { start: start.checked_sub(second).unwrap_or(start), ..budget };
        assert!(budget.spend(50, 100) || start.checked_sub(second).is_none());
    }

    #[test]
    fn the_oldest_complete_recordings_are_deleted_first() {
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
        assert!(recording.flush_within(TIMEOUT));
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
        assert!(recording.flush_within(TIMEOUT));
        let texts = texts(dir.path());
        assert_eq!(texts.len(), 3 * OPEN);
        assert!(texts.iter().all(|(_, text)| text.ends_with("#\n@0 tick\n@1 tick\n")), "{texts:?}");
    }

    #[test]
    fn write_errors_end_recording() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Recording::to(dir.path().join("file"), Log::quiet()).is_err());
        assert!(Recording::to(dir.path().join("file/below"), Log::quiet()).is_err());
        // A recording that has lost events meanwhile ends.
        let gone = dir.path().join("gone");
        let recording = recording(&gone);
        fs::remove_dir_all(&gone).unwrap();
        let mut reel = recording.begin(Settings::default(), String::new()).unwrap();
        reel.event(event(0, What::Tick));
        reel.waits();
        assert!(recording.flush_within(TIMEOUT));
        assert!(recording.begin(Settings::default(), String::new()).is_none());
    }
}

//! Recordings: a file for each connection, written while it lives, that can be played again
//! (`docs/transcripts.md`).
//!
//! Whoever drives a connection only gathers its events; a thread of the recording's own makes text of them and
//! writes it, a few milliseconds later. What is bounded: the size of a file, the number of files, and what
//! waits to be written. A connection that would exceed a bound goes on unrecorded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use sanserve_core::Recorder;
use sanserve_core::transcript::{Event, Settings, Transcript, What};

use crate::log::Log;

/// Connections whose recordings are kept, by default.
const MOST: usize = 1_000;
/// Bytes of one recording, by default.
const SIZE: u64 = 1 << 20;
/// Bytes that may wait to be written.
const MOST_PENDING: usize = 64 << 20;
/// Events that are handed over together, unless the connection waits before there are so many.
const BATCH: usize = 64;
/// What an event counts for beside its bytes.
const EVENT: usize = 64;
/// What the writer rests after each round, so that it is not woken for each connection.
const REST: Duration = Duration::from_millis(10);
/// Files that are open at once.
const OPEN: usize = 64;

/// Records connections in a directory. Clones share it.
#[derive(Clone)]
pub struct Recording {
    shared: Arc<Shared>,
    site: String,
    size: u64,
    most: usize,
}

struct Shared {
    to_writer: Sender<Message>,
    /// Connections so far.
    count: AtomicU64,
    /// Connections that are being recorded.
    active: AtomicUsize,
    /// Bytes that wait to be written.
    pending: AtomicUsize,
    /// The disk has refused, or the log was told that not everything is recorded.
    failed: AtomicBool,
}

enum Message {
    Begin { id: u64, head: Box<Transcript>, size: u64, most: usize, full: Arc<AtomicBool> },
    Events { id: u64, events: Vec<Event>, bytes: usize },
    End { id: u64, lost: bool },
    Flush(Sender<()>),
}

impl Recording {
    /// Records in this directory, which is made if it is not there, and readable for its owner alone. Files are
    /// `000001.txt` and so on, behind those that are there already.
    ///
    /// # Errors
    /// If it cannot be made or written to, or if there can be no thread for it.
    pub fn to(directory: impl AsRef<Path>, log: Log) -> io::Result<Recording> {
        let directory = directory.as_ref().to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut writer = Writer::new(directory)?;
        // Whether files can be made is better known now than when the first one is needed.
        let (_, probe) = writer.create()?;
        fs::remove_file(writer.path(probe))?;
        writer.last = probe - 1;
        let (to_writer, messages) = mpsc::channel();
        let shared = Arc::new(Shared {
            to_writer,
            count: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        });
        let of_writer = Arc::downgrade(&shared);
        thread::Builder::new().name("record".into()).spawn(move || {
            be_modest();
            let failed = |error: &io::Error| {
                log.error(format_args!("cannot record: {error}"));
                if let Some(shared) = of_writer.upgrade() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
            };
            let written = |bytes| {
                if let Some(shared) = of_writer.upgrade() {
                    shared.pending.fetch_sub(bytes, Ordering::Relaxed);
                }
            };
            writer.run(&messages, failed, written);
        })?;
        Ok(Recording { shared, site: String::new(), size: SIZE, most: MOST })
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

    /// Names the site and the handler in each recording, for whoever is to play it. Default: `plain`, or `handler`
    /// where there is one.
    #[must_use]
    pub fn with_site_name(self, site: impl Into<String>) -> Recording {
        Recording { site: site.into(), ..self }
    }

    /// What takes the events of another connection. `None`: a bound is reached.
    pub(crate) fn begin(&self, settings: Settings, about: String) -> Option<Box<dyn Recorder>> {
        let shared = &self.shared;
        let is_free = |active: usize| (active < self.most).then_some(active + 1);
        let may = shared.pending.load(Ordering::Relaxed) < MOST_PENDING && !shared.failed.load(Ordering::Relaxed);
        if !may || shared.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free).is_err() {
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
        let reel = Reel { shared: Arc::clone(shared), id, events: Vec::new(), bytes: 0, lost: false, full };
        let (size, most, full) = (self.size, self.most, Arc::clone(&reel.full));
        shared.tell(Message::Begin { id, head: Box::new(head), size, most, full });
        Some(Box::new(reel))
    }

    /// Waits until what was recorded so far is written, but no longer than `bound`. `true`: it is.
    pub fn flush_within(&self, bound: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.shared.tell(Message::Flush(done));
        wait.recv_timeout(bound).is_ok()
    }
}

impl Shared {
    fn tell(&self, message: Message) {
        // It fails only where the writer has panicked.
        let _ = self.to_writer.send(message);
    }
}

/// Gathers the events of one connection.
struct Reel {
    shared: Arc<Shared>,
    id: u64,
    events: Vec<Event>,
    bytes: usize,
    /// There was no room for all of it.
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
        if self.lost || self.shared.pending.load(Ordering::Relaxed) > MOST_PENDING {
            self.lost = true;
            return;
        }
        self.shared.pending.fetch_add(bytes, Ordering::Relaxed);
        self.shared.tell(Message::Events { id: self.id, events, bytes });
    }
}

impl Recorder for Reel {
    fn event(&mut self, event: Event) {
        self.bytes += EVENT + size(&event.what);
        self.events.push(event);
        if self.events.len() >= BATCH {
            self.hand_over();
        }
    }

    fn waits(&mut self) -> bool {
        self.hand_over();
        !self.lost && !self.full.load(Ordering::Relaxed)
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

/// Makes files of messages.
struct Writer {
    directory: PathBuf,
    /// Those that are being recorded.
    open: BTreeMap<u64, Tape>,
    /// The numbers of all files that were made, in order; whether they are complete.
    kept: VecDeque<(u64, bool)>,
    /// The number of the last file that is there.
    last: u64,
    /// How many have an open file.
    files: usize,
    text: String,
}

/// One recording.
struct Tape {
    number: u64,
    file: Option<File>,
    written: u64,
    size: u64,
    full: Arc<AtomicBool>,
}

impl Writer {
    fn new(directory: PathBuf) -> io::Result<Writer> {
        let last = last_number(&directory)?;
        Ok(Writer { directory, open: BTreeMap::new(), kept: VecDeque::new(), last, files: 0, text: String::new() })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:06}.txt"))
    }

    /// Makes the next file. Another server may do so in the same directory.
    fn create(&mut self) -> io::Result<(File, u64)> {
        loop {
            self.last = self.last.saturating_add(1);
            let path = self.path(self.last);
            match OpenOptions::new().append(true).create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.last < u64::MAX => {}
                file => return Ok((file?, self.last)),
            }
        }
    }

    fn run(mut self, messages: &Receiver<Message>, failed: impl Fn(&io::Error), written: impl Fn(usize)) {
        let mut is_failed = false;
        while let Ok(first) = messages.recv() {
            for message in std::iter::once(first).chain(messages.try_iter()) {
                if let Message::Events { bytes, .. } = &message {
                    written(*bytes);
                }
                let outcome = self.obey(message, is_failed);
                if let Err(error) = outcome
                    && !std::mem::replace(&mut is_failed, true)
                {
                    failed(&error);
                }
            }
            thread::sleep(REST);
        }
    }

    fn obey(&mut self, message: Message, is_failed: bool) -> io::Result<()> {
        match message {
            Message::Flush(done) => {
                let _ = done.send(());
                Ok(())
            }
            Message::Begin { full, .. } if is_failed => {
                full.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ if is_failed => Ok(()),
            Message::Begin { id, head, size, most, full } => self.begin(id, &head, size, most, full),
            Message::Events { id, events, .. } => self.write(id, &events),
            Message::End { id, lost } => self.end(id, lost),
        }
    }

    fn begin(&mut self, id: u64, head: &Transcript, size: u64, most: usize, full: Arc<AtomicBool>) -> io::Result<()> {
        while self.kept.len() >= most.max(1) {
            let Some(oldest) = self.kept.iter().position(|(_, complete)| *complete) else { break };
            let (oldest, _) = self.kept.remove(oldest).expect("it was found");
            match fs::remove_file(self.path(oldest)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let (mut file, number) = self.create()?;
        let text = head.to_text();
        file.write_all(text.as_bytes())?;
        self.kept.push_back((number, false));
        self.make_room();
        self.files += 1;
        self.open.insert(id, Tape { number, file: Some(file), written: text.len() as u64, size, full });
        Ok(())
    }

    fn write(&mut self, id: u64, events: &[Event]) -> io::Result<()> {
        let Some(tape) = self.open.get_mut(&id) else { return Ok(()) };
        if tape.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.text.clear();
        for event in events {
            let before = self.text.len();
            event.write(&mut self.text);
            self.text.push('\n');
            if tape.written + self.text.len() as u64 > tape.size {
                self.text.truncate(before);
                let size = tape.size;
                writeln!(self.text, "# The rest was not recorded: it is longer than {size} bytes.").expect("a String");
                tape.full.store(true, Ordering::Relaxed);
                break;
            }
        }
        tape.written += self.text.len() as u64;
        self.append(id)
    }

    /// Appends `text` with one call, so that whatever happens the file ends between two events.
    fn append(&mut self, id: u64) -> io::Result<()> {
        if self.open.get(&id).is_some_and(|tape| tape.file.is_none()) {
            self.make_room();
            self.files += 1;
        }
        let Some(number) = self.open.get(&id).map(|tape| tape.number) else { return Ok(()) };
        let path = self.path(number);
        let Some(tape) = self.open.get_mut(&id) else { return Ok(()) };
        let file = match &mut tape.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).open(path)?),
        };
        file.write_all(self.text.as_bytes())
    }

    fn end(&mut self, id: u64, lost: bool) -> io::Result<()> {
        let mut outcome = Ok(());
        if lost {
            self.text.clear();
            self.text.push_str("# The rest was not recorded: more came than could be written.\n");
            outcome = self.append(id);
        }
        if let Some(tape) = self.open.remove(&id) {
            self.files -= usize::from(tape.file.is_some());
            if let Some(kept) = self.kept.iter_mut().rfind(|(number, _)| *number == tape.number) {
                kept.1 = true;
            }
        }
        outcome
    }

    /// Sees to it that another file may be open.
    fn make_room(&mut self) {
        if self.files >= OPEN {
            self.open.values_mut().for_each(|tape| tape.file = None);
            self.files = 0;
        }
    }
}

/// The number of the last recording that is there.
fn last_number(directory: &Path) -> io::Result<u64> {
    let mut last = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".txt")).and_then(|name| name.parse().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(last)
}

/// Lets those who serve go first.
fn be_modest() {
    // There it is the thread that is meant, elsewhere it would be the process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(test)]
mod tests {
    use sanserve_core::Input;

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
        let dir = dir.path().join("a/b");
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
        // Another one goes on behind it.
        let again = super::tests::recording(&dir);
        drop(again.begin(Settings::default(), String::new()));
        assert!(again.flush_within(PATIENCE));
        assert_eq!(texts(&dir)[1].0, "000002.txt");
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

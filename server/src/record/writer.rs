//! The thread that writes recordings. The text of a round is written with one call for each file, so that a file
//! always ends between two events.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use sanserve_transcript::{Event, Transcript};

use sanserve_os::{RECORDING, Withheld};

/// How long the writer rests after each round, so that it is not woken for each connection.
const REST: Duration = Duration::from_millis(10);
/// The most files that are open at the same time.
pub(super) const OPEN: usize = 64;
/// Capacity that the buffer of a recording keeps between two rounds, in bytes.
const MAX_KEPT: usize = 4 * 1024;

/// The messages for the writer, which are sent in this order for each connection.
pub(super) enum Message {
    Begin { id: u64, head: Box<Transcript>, size: u64, most: usize, full: Arc<AtomicBool> },
    Events { id: u64, events: Vec<Event>, bytes: u64 },
    End { id: u64, lost: bool },
    Flush(Sender<()>),
}

/// Writes the recordings.
pub(super) struct Writer {
    directory: PathBuf,
    _withheld: Withheld,
    /// The recordings in progress.
    open: BTreeMap<u64, Tape>,
    /// The numbers of all files that were created, in order, and whether they are complete.
    kept: VecDeque<(u64, bool)>,
    /// The number of the last file in the directory.
    last: u64,
    /// How many recordings are kept.
    most: usize,
    /// How many recordings have an open file.
    files: usize,
    /// The recordings that have something to write.
    due: Vec<u64>,
}

/// A recording in progress.
struct Tape {
    number: u64,
    file: Option<File>,
    /// Text that is not written yet.
    text: String,
    /// The length in total, in bytes.
    len: u64,
    size: u64,
    full: Arc<AtomicBool>,
    /// The connection has ended.
    ended: bool,
}

impl Writer {
    pub(super) fn new(directory: PathBuf) -> io::Result<Writer> {
        let last = last_number(&directory)?;
        let withheld = Withheld::new(&directory)?;
        let (open, kept, due) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        let mut writer = Writer { directory, _withheld: withheld, open, kept, last, most: 0, files: 0, due };
        // Creates a file now, so that an error is reported before the first recording.
        let (_, probe) = writer.create()?;
        fs::remove_file(writer.path(probe))?;
        writer.last = probe - 1;
        Ok(writer)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:06}.txt"))
    }

    /// Creates the next file. Another server may record in the same directory.
    fn create(&mut self) -> io::Result<(File, u64)> {
        loop {
            self.last = self.last.saturating_add(1);
            let path = self.path(self.last);
            match OpenOptions::new().append(true).create_new(true).mode(RECORDING).open(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.last < u64::MAX => {}
                file => return Ok((file?, self.last)),
            }
        }
    }

    /// Calls `taken` with the number of bytes that were written or discarded.
    pub(super) fn run(mut self, messages: &Receiver<Message>, taken: impl Fn(u64), failed: impl Fn(&io::Error)) {
        lower_priority();
        let mut is_failed = false;
        while let Ok(first) = messages.recv() {
            let mut waiting = Vec::new();
            let mut bytes = 0;
            // All messages that have arrived are written together, with one call for each file.
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Begin { id, head, size, most, full } => {
                        bytes += super::CONNECTION;
                        self.begin(id, &head, size, most, full);
                    }
                    Message::Events { id, events, bytes: more } => {
                        bytes += more;
                        self.add(id, &events);
                    }
                    Message::End { id, lost } => self.end(id, lost),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            for id in std::mem::take(&mut self.due) {
                if is_failed {
                    self.give_up(id);
                } else if let Err(error) = self.write(id) {
                    is_failed = true;
                    failed(&error);
                }
            }
            taken(bytes);
            for done in waiting {
                let _ = done.send(());
            }
            thread::sleep(REST);
        }
    }

    fn begin(&mut self, id: u64, head: &Transcript, size: u64, most: usize, full: Arc<AtomicBool>) {
        let text = head.to_text();
        let tape = Tape { number: 0, file: None, len: text.len() as u64, text, size, full, ended: false };
        self.open.insert(id, tape);
        self.most = most;
        self.due.push(id);
    }

    fn add(&mut self, id: u64, events: &[Event]) {
        let Some(tape) = self.open.get_mut(&id) else { return };
        if tape.full.load(Ordering::Relaxed) {
            return;
        }
        if tape.text.is_empty() {
            self.due.push(id);
        }
        for event in events {
            let before = tape.text.len();
            event.write(&mut tape.text);
            tape.text.push('\n');
            tape.len += (tape.text.len() - before) as u64;
            if tape.len > tape.size {
                tape.text.truncate(before);
                let size = tape.size;
                writeln!(tape.text, "# The rest was not recorded: it is longer than {size} bytes.")
                    .expect("writing to a String cannot fail");
                tape.full.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn end(&mut self, id: u64, lost: bool) {
        let Some(tape) = self.open.get_mut(&id) else { return };
        if tape.text.is_empty() {
            self.due.push(id);
        }
        if lost {
            tape.text.push_str("# The rest was not recorded: more came than may be recorded in the time.\n");
        }
        tape.ended = true;
    }

    /// Writes the pending text with one call, so that the file ends between two events whatever happens.
    fn write(&mut self, id: u64) -> io::Result<()> {
        let Some(mut tape) = self.open.remove(&id) else { return Ok(()) };
        if tape.file.is_none() {
            self.make_room();
            let file = if tape.number == 0 {
                self.remove_oldest()?;
                let (file, number) = self.create()?;
                tape.number = number;
                self.kept.push_back((number, false));
                file
            } else {
                OpenOptions::new().append(true).open(self.path(tape.number))?
            };
            tape.file = Some(file);
            self.files += 1;
        }
        if let Some(file) = &mut tape.file {
            file.write_all(tape.text.as_bytes())?;
        }
        tape.text.clear();
        tape.text.shrink_to(MAX_KEPT);
        if tape.ended {
            self.files -= 1;
            if let Some(kept) = self.kept.iter_mut().rfind(|(number, _)| *number == tape.number) {
                kept.1 = true;
            }
        } else {
            self.open.insert(id, tape);
        }
        Ok(())
    }

    /// Deletes the oldest complete recording if there is no place for another.
    fn remove_oldest(&mut self) -> io::Result<()> {
        while self.kept.len() >= self.most.max(1) {
            let Some(oldest) = self.kept.iter().position(|(_, complete)| *complete) else { break };
            let (oldest, _) = self.kept.remove(oldest).expect("it was found");
            match fs::remove_file(self.path(oldest)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn give_up(&mut self, id: u64) {
        if let Some(tape) = self.open.remove(&id) {
            tape.full.store(true, Ordering::Relaxed);
        }
    }

    /// Closes a file if no other may be opened.
    fn make_room(&mut self) {
        if self.files >= OPEN {
            self.open.values_mut().for_each(|tape| tape.file = None);
            self.files = 0;
        }
    }
}

/// The number of the last recording in the directory.
fn last_number(directory: &Path) -> io::Result<u64> {
    let mut last = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".txt")).and_then(|name| name.parse().ok());
        last = last.max(number.unwrap_or(0));
    }
    Ok(last)
}

/// Lowers the priority of this thread below that of the threads that serve.
fn lower_priority() {
    // On Linux, this sets the priority of the thread. On other systems it would be that of the process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 19);
}

//! The file of a log. It may be renamed while it is open, and writing to it may block, so that only the thread of a
//! queue writes to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;

pub(super) struct LogFile {
    path: PathBuf,
    /// `None`: a FIFO that no process has open for reading yet. Opening it would block.
    file: Option<File>,
    /// The file must be reopened.
    is_stale: Arc<AtomicBool>,
}

impl LogFile {
    /// Opens the file without blocking.
    pub(super) fn open(path: PathBuf, is_stale: Arc<AtomicBool>) -> io::Result<LogFile> {
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("the value is in range");
        let file = match appending().custom_flags(nonblocking).open(&path) {
            Ok(file) => {
                // Writes may block, because they are done by the thread of the queue.
                fcntl_setfl(&file, OFlags::APPEND)?;
                Some(file)
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) && is_fifo(&path) => None,
            Err(error) => return Err(error),
        };
        Ok(LogFile { path, file, is_stale })
    }

    /// Writes whole lines, or discards them if that fails. Opens the file first if necessary.
    pub(super) fn write(&mut self, lines: &[u8]) {
        if self.is_stale.swap(false, Ordering::SeqCst) {
            match appending().open(&self.path) {
                Ok(file) => self.file = Some(file),
                // A line in a file that was renamed is better than no line.
                Err(error) => {
                    let path = self.path.display();
                    let line = format!("sanserve: cannot reopen the log file {path}: {error}\n");
                    self.append(line.as_bytes());
                }
            }
        }
        if !lines.is_empty() {
            self.append(lines);
        }
    }

    fn append(&mut self, lines: &[u8]) {
        if self.file.is_none() {
            self.file = appending().open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(lines);
        }
    }
}

fn appending() -> OpenOptions {
    OpenOptions::new().append(true).create(true).clone()
}

fn is_fifo(path: &std::path::Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use crate::log::Log;

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn a_file_is_reopened_or_the_old_one_contains_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let (now, then) = (dir.path().join("now"), dir.path().join("then"));
        let log = Log::to_file(&now, false).unwrap();
        let text = |path| std::fs::read_to_string(path).unwrap();
        log.error("one");
        assert!(log.flush_within(TIMEOUT));
        std::fs::rename(&now, &then).unwrap();
        log.error("two");
        assert!(log.flush_within(TIMEOUT));
        log.reopen();
        log.error("three");
        assert!(log.flush_within(TIMEOUT));
        assert_eq!((text(&then), text(&now)), ("sanserve: one\nsanserve: two\n".into(), "sanserve: three\n".into()));
        std::fs::rename(&now, &then).unwrap();
        std::fs::create_dir(&now).unwrap();
        log.reopen();
        log.error("four");
        assert!(log.flush_within(TIMEOUT));
        let text = text(&then);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("sanserve: cannot reopen the log file /"), "{text}");
        assert_eq!((lines.len(), lines[2]), (3, "sanserve: four"));
    }

    #[test]
    fn a_fifo_without_a_reader_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let log = Log::to_file(&path, false).unwrap();
        // More than the pipe and the queue hold.
        for _ in 0..1_000 {
            log.error("x".repeat(4_096));
        }
        log.reopen();
        assert!(!log.flush_within(Duration::from_millis(1)));
        let mut reader = std::fs::File::open(&path).unwrap();
        let mut first = [0; 12];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"sanserve: xx");
        drop(reader);
    }
}

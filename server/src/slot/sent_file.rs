//! The file that is being sent, and the checks that it is still the one that was opened.

use std::cmp::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fd::BorrowedFd;
use rustix::fs::fstat;
use rustix::io::pread;
use sanserve_core::{Fault, Opened};
use sanserve_os::{NotInMemory, examine, read_in_memory};

use crate::cache::OpenFile;

/// The file that is being sent, and the state of its checks.
#[derive(Debug, Default)]
pub(crate) struct SentFile {
    /// A regular file.
    pub(super) held: Option<OpenFile>,
    /// The state of the file when it was opened.
    pub(super) opened: Option<Opened>,
    /// The file has to be checked again before more is sent: a part was sent from the descriptor, or was about to be, or
    /// time has passed since the file was opened.
    pub(super) begun: bool,
    /// If a handler has attached the file: the offset after the last byte sent. At any other offset, another response
    /// or part begins.
    pub(super) attached: Option<u64>,
    pub(super) samples: Samples,
    /// Where the samples have to be taken, if they were not in memory: before the first offset, and before the second.
    pub(super) samples_due: Option<(u64, u64)>,
    /// Some of the file was not in memory.
    pub(super) is_cold: bool,
}

impl SentFile {
    /// The fault of the file, if it has changed since it was opened. `is_last`: no more of it follows.
    pub(super) fn fault(&self, file: BorrowedFd<'_>, is_last: bool) -> Option<Fault> {
        self.opened.and_then(|opened| self.samples.fault_since(&opened, file, is_last))
    }
}

/// How a file is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SendMode {
    /// With `sendfile`: the kernel sends the pages of the file.
    Sendfile,
    /// As a copy of its bytes.
    Copy,
}

/// Whether reading may wait for a disk.
#[derive(Clone, Copy)]
pub(super) enum Reads {
    Disk,
    /// It must not. The device of the file.
    Memory(u64),
}

/// How often a file with the same length and another time is checked before it counts as rewritten; this takes some
/// microseconds.
const LOOKS: usize = 32;

/// Samples of a file's content, which distinguish a file that was appended to, such as a log, from one that was
/// rewritten and is longer now.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// The last bytes that were sent.
    sent: Sample,
    /// The last bytes of the file when it was opened.
    pub(super) end: Sample,
}

impl Samples {
    /// Takes samples of the bytes before `sent`, which have been sent, and before `end`, which will be. For a settled
    /// file, the first samples are kept. Returns `false` if some are not in memory.
    #[must_use]
    pub(super) fn take(&mut self, file: BorrowedFd<'_>, sent: u64, end: u64, mode: SendMode, reads: Reads) -> bool {
        let is_new = self.end.end() != end;
        if is_new || mode == SendMode::Copy {
            let Some(sample) = Sample::before(sent, file, reads) else { return false };
            self.sent = sample;
        }
        if is_new {
            let Some(sample) = Sample::before(end, file, reads) else { return false };
            self.end = sample;
        }
        true
    }

    /// The fault of a file that is being sent, if any. A file that has only grown still has the announced bytes.
    ///
    /// Appending changes the time first and the length afterwards. So the same length with a recent time may mean
    /// either; before the `is_last` part, it counts as rewritten, unless the length changes within moments.
    pub(super) fn fault_since(&self, opened: &Opened, file: BorrowedFd<'_>, is_last: bool) -> Option<Fault> {
        let is_there = || self.sent.is_there(file) && self.end.is_there(file);
        let stamp = |opened: &Opened| (opened.modified, opened.modified_nanos);
        for _ in 0..LOOKS {
            let Some((now, _)) = fstat(file).ok().as_ref().and_then(examine) else { return Some(Fault::File) };
            match now.len.cmp(&opened.len) {
                Ordering::Less => return Some(Fault::FileShrank),
                Ordering::Equal if stamp(&now) == stamp(opened) => return None,
                Ordering::Equal if !is_last && is_of_now(&now) && is_there() => return None,
                Ordering::Equal => std::thread::yield_now(),
                Ordering::Greater if is_there() => return None,
                Ordering::Greater => return Some(Fault::FileChanged),
            }
        }
        Some(Fault::FileChanged)
    }
}

/// Whether the file was modified so recently that the modification may still be in progress.
fn is_of_now(opened: &Opened) -> bool {
    const LATELY: Duration = Duration::from_millis(50);
    let Ok(seconds) = u64::try_from(opened.modified) else { return false };
    let modified = UNIX_EPOCH.checked_add(Duration::new(seconds, opened.modified_nanos));
    modified.is_some_and(|modified| modified.elapsed().is_ok_and(|since| since < LATELY))
}

/// The length of a [`Sample`], and of the end of a body that is held back until the file was checked.
pub(super) const SAMPLE: usize = 32;

/// A few bytes of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    at: u64,
    len: usize,
    bytes: [u8; SAMPLE],
}

impl Sample {
    /// The last bytes before `end`. `None`: they are not in memory, and reading must not wait for a disk.
    pub(super) fn before(end: u64, file: BorrowedFd<'_>, reads: Reads) -> Option<Sample> {
        let mut sample = Sample { at: end.saturating_sub(SAMPLE as u64), ..Sample::default() };
        let most = usize::try_from(end - sample.at).map_or(0, |most| most.min(SAMPLE));
        let room = &mut sample.bytes[..most];
        sample.len = match reads {
            Reads::Disk => pread(file, room, sample.at).unwrap_or(0),
            Reads::Memory(dev) => match read_in_memory(file, dev, room, sample.at) {
                Ok(n) if n == most => n,
                Err(NotInMemory::Failed) => 0,
                // The bytes may be on two pages, only one of which is in memory.
                Ok(_) | Err(NotInMemory::OnDisk | NotInMemory::Unknown) => return None,
            },
        };
        Some(sample)
    }

    /// The offset after its last byte.
    pub(super) fn end(&self) -> u64 {
        self.at + self.len as u64
    }

    /// The bytes from this offset of the file on, if there are any.
    pub(super) fn since(&self, offset: u64) -> Option<&[u8]> {
        let skipped = usize::try_from(offset.checked_sub(self.at)?).ok()?;
        self.bytes[..self.len].get(skipped..).filter(|bytes| !bytes.is_empty())
    }

    /// Whether the file still has these bytes.
    fn is_there(&self, file: BorrowedFd<'_>) -> bool {
        let mut now = [0; SAMPLE];
        pread(file, &mut now[..self.len], self.at) == Ok(self.len) && now[..self.len] == self.bytes[..self.len]
    }
}

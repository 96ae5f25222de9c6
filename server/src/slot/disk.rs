//! The disk accesses of a slot on an event loop, which must not wait for them: whether the next part of a file is in
//! memory, and the work that is left to a thread if not ([`IoPool`]).
//!
//! A thread owns the descriptor that it works on, and returns it with its result. If the exchange has ended by then, the
//! thread closes it.

use std::sync::Arc;
use std::task::Waker;

use rustix::buffer::spare_capacity;
use rustix::fd::AsFd;
use rustix::io::{Errno, pread};
use sanserve_core::{Completion, EntryKind, Fault, Found, FsError, Input, Listed, Opened, Ticket, Transmit};
use sanserve_os::{Directory, MAX_SENDFILE, NotInMemory, Storage, read_in_memory};

use super::sent_file::{Reads, Samples, SendMode};
use super::{Slot, SlotEnv};
use crate::cache::{Attempt, DiskFile, OpenFile, OpenJob, OpenOutcome};
use crate::io_pool::{DiskRequest, IoPool, Pending, Place};
use crate::memory::Reserved;

/// Bytes of a file that a thread reads at once, if there is memory for them: what Linux reads ahead by default.
const PIECE: usize = 128 * 1024;
/// Bytes that it reads in any case.
const LEAST_PIECE: usize = 16 * 1024;
/// Whether a file is in memory is determined by reading one byte in so many.
const STRIDE: u64 = 128 * 1024;

/// The work of a thread for the exchange.
#[derive(Debug)]
pub(super) struct Underway {
    ticket: Ticket,
    kind: Kind,
    pending: Pending<Done>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    OpenIn,
    List,
    Find,
    Read,
}

/// The result of a thread.
#[derive(Debug)]
enum Done {
    Opened(OpenOutcome),
    Listed(Directory, Batch),
    /// With the name that was looked up.
    Found(Result<Found, FsError>, Box<[u8]>),
    Read(ReadDone),
}

/// Entries of a directory that were read and not yet listed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    names: Vec<u8>,
    /// The length of each name, and its kind.
    entries: Vec<(usize, EntryKind)>,
    listed: Option<Result<Listed, FsError>>,
}

/// Bytes of a file that were read and not yet sent.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where they begin.
    at: u64,
    bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    _memory: Option<Reserved>,
}

/// Reads a part of a file, and checks that the file is still the one that was opened.
struct ReadJob {
    file: DiskFile,
    mode: SendMode,
    opened: Option<Opened>,
    samples: Samples,
    samples_due: Option<(u64, u64)>,
    offset: u64,
    len: u64,
    /// More of the file may follow this body.
    more: bool,
    most: usize,
}

#[derive(Debug)]
struct ReadDone {
    file: OpenFile,
    samples: Samples,
    offset: u64,
    bytes: Result<Vec<u8>, Fault>,
}

impl Slot {
    /// Takes the result of the thread, if there is one.
    pub(crate) fn take_done(&mut self, env: &SlotEnv<'_>) -> Option<Input> {
        let done = self.underway.as_mut()?.pending.take()?;
        let Underway { ticket, kind, .. } = self.underway.take()?;
        let reserved = self.reserved.take();
        let completion = match (done, kind) {
            (Some(Done::Opened(outcome)), Kind::OpenIn) => {
                let found = env.files.finish(outcome);
                Completion::Opened(self.opened_in(found))
            }
            (Some(Done::Opened(outcome)), _) => {
                let path = outcome.path().to_vec();
                let found = env.files.finish(outcome);
                self.slow_directory = true;
                Completion::Opened(self.opened(&path, found))
            }
            (Some(Done::Listed(directory, batch)), _) => {
                self.directory = Some(OpenFile::Directory(directory));
                self.entries = Some(batch);
                // The entries are listed at the next request for a batch.
                Completion::Listed(Ok(Listed::More))
            }
            (Some(Done::Found(found, name)), _) => {
                // Only now: while the disk was slow, a request for the same name would have waited on the loop.
                if let Some(pool) = env.io {
                    pool.note_name(&name);
                }
                Completion::Found(found)
            }
            (Some(Done::Read(done)), _) => {
                self.take_read(done, reserved, env);
                return Some(Input::FileReady);
            }
            // The thread has panicked.
            (None, Kind::Open | Kind::OpenIn) => Completion::Opened(Err(FsError::Failed)),
            (None, Kind::List) => Completion::Listed(Err(FsError::Failed)),
            (None, Kind::Find) => Completion::Found(Err(FsError::Failed)),
            (None, Kind::Read) => {
                self.piece = Some(Err(Fault::File));
                return Some(Input::FileReady);
            }
        };
        // The thread may have opened the file some time ago.
        self.time_passed();
        Some(Input::Done(ticket, completion))
    }

    /// Wakes `waker` when the thread that the connection waits for is done. `true`: it is done already.
    #[must_use]
    pub fn wake_when_done(&self, waker: &Waker) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.pending.wake_when_done(waker))
    }

    fn start(&mut self, ticket: Ticket, kind: Kind, pending: Pending<Done>) {
        self.underway = Some(Underway { ticket, kind, pending });
    }
}

/// Acting.
impl Slot {
    /// Opens a file or directory. `None`: a thread does so.
    pub(super) fn open(&mut self, ticket: Ticket, path: &[u8], env: &SlotEnv<'_>) -> Option<Completion> {
        self.release_files();
        let found = match self.attempt(path, false, env) {
            Attempt::Done(found) => found,
            Attempt::Later(job) => {
                self.open_later(ticket, Kind::Open, job, env);
                return None;
            }
        };
        Some(Completion::Opened(self.opened(path, found)))
    }

    /// The path is resolved from the root like every other one, so the same rules and the same cache apply.
    pub(super) fn open_in(&mut self, ticket: Ticket, path: &[u8], env: &SlotEnv<'_>) -> Option<Completion> {
        self.file.held = None;
        if self.directory.is_none() {
            return Some(Completion::Opened(Err(FsError::NotFound)));
        }
        let directory = self.path.len();
        if directory > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(path);
        let attempt = self.attempt(&self.path, true, env);
        self.path.truncate(directory);
        match attempt {
            Attempt::Done(found) => Some(Completion::Opened(self.opened_in(found))),
            Attempt::Later(job) => {
                self.open_later(ticket, Kind::OpenIn, job, env);
                None
            }
        }
    }

    fn attempt(&self, path: &[u8], only_file: bool, env: &SlotEnv<'_>) -> Attempt {
        let Some(pool) = env.io else {
            return Attempt::Done(if only_file { env.files.open_file(path) } else { env.files.open(path) });
        };
        let is_slow = pool.is_slow(DiskRequest::Open(path));
        let later = if is_slow { env.files.open_later(path, only_file) } else { None };
        later.map_or_else(|| env.files.try_open(path, only_file), Attempt::Later)
    }

    fn open_later(&mut self, ticket: Ticket, kind: Kind, job: OpenJob, env: &SlotEnv<'_>) {
        let Some(pool) = env.io else { return };
        let gate = pool.gate().cloned();
        let pending = pool.start(Place::of_path(job.path()), move || {
            if let Some(gate) = gate {
                gate.wait(DiskRequest::Open(job.path()));
            }
            Done::Opened(job.run())
        });
        self.start(ticket, kind, pending);
    }

    /// Lists some entries of the open directory. `None`: a thread reads them first.
    pub(super) fn list(
        &mut self,
        ticket: Ticket,
        push: &mut dyn FnMut(&[u8], EntryKind) -> bool,
        env: &SlotEnv<'_>,
    ) -> Option<Completion> {
        let Some(OpenFile::Directory(mut directory)) = self.directory.take() else {
            return Some(Completion::Listed(Err(FsError::Failed)));
        };
        let listed = match (self.entries.take(), env.io) {
            (Some(batch), _) => batch.list(push),
            (None, Some(pool)) if self.slow_directory || pool.is_slow(DiskRequest::List(&self.path)) => {
                let gate = pool.gate().cloned().map(|gate| (gate, self.path.clone()));
                let pending = pool.start(Place::of_path(&self.path), move || {
                    if let Some((gate, path)) = gate {
                        gate.wait(DiskRequest::List(&path));
                    }
                    let batch = Batch::read(&mut directory);
                    Done::Listed(directory, batch)
                });
                self.start(ticket, Kind::List, pending);
                return None;
            }
            (None, _) => directory.list(push),
        };
        self.directory = Some(OpenFile::Directory(directory));
        Some(Completion::Listed(listed))
    }

    /// Finds a script. `None`: a thread does so.
    pub(super) fn find(&mut self, ticket: Ticket, path: &[u8], from: usize, env: &SlotEnv<'_>) -> Option<Completion> {
        let root = env.scripts.root();
        let component = path.get(from..).unwrap_or_default();
        let begin = component.iter().take_while(|&&byte| byte == b'/').count();
        let len = component[begin..].iter().position(|&byte| byte == b'/').unwrap_or(component.len() - begin);
        let name = &path[..from.min(path.len()) + begin + len];
        let pool = match env.io {
            Some(pool)
                if pool.is_slow(DiskRequest::Open(path)) || root.is_remote(name) || !pool.is_known_name(name) =>
            {
                pool
            }
            _ => return Some(Completion::Found(root.find(path, from))),
        };
        let (root, path, gate) = (Arc::clone(root), path.to_vec(), pool.gate().cloned());
        let name = name.into();
        let pending = pool.start(Place::of_path(&path), move || {
            if let Some(gate) = gate {
                gate.wait(DiskRequest::Open(&path));
            }
            Done::Found(root.find(&path, from), name)
        });
        self.start(ticket, Kind::Find, pending);
        None
    }
}

impl Batch {
    fn read(directory: &mut Directory) -> Batch {
        let mut batch = Batch::default();
        let listed = directory.list(|name, kind| {
            batch.names.extend_from_slice(name);
            batch.entries.push((name.len(), kind));
            true
        });
        batch.listed = Some(listed);
        batch
    }

    fn list(self, push: &mut dyn FnMut(&[u8], EntryKind) -> bool) -> Result<Listed, FsError> {
        let mut names = &self.names[..];
        for (len, kind) in self.entries {
            let (name, rest) = names.split_at(len);
            names = rest;
            if !push(name, kind) {
                return Ok(Listed::End);
            }
        }
        self.listed.unwrap_or(Err(FsError::Failed))
    }
}

/// Sending.
impl Slot {
    /// How many bytes of the file, from `offset` on, can be sent without waiting for a disk: any number for a cached file.
    /// `None`: they have to be read first.
    ///
    /// One byte of each [`STRIDE`] is read. If it is not in memory, some of the bytes before it may be missing as well,
    /// since the kernel may be reading them at this moment. So the stride before it does not count, and from then on a
    /// thread reads everything that is not known to be in memory.
    pub(super) fn in_memory(&mut self, offset: u64, len: u64, pool: &IoPool) -> Option<u64> {
        let Some(OpenFile::File(file) | OpenFile::Changing(file)) = &self.file.held else { return Some(u64::MAX) };
        let Some(id) = file.id else { return Some(u64::MAX) };
        if self.file.samples_due.is_some() || pool.is_slow(DiskRequest::Read(id.ino)) {
            return None;
        }
        match file.storage {
            Storage::Memory => return Some(u64::MAX),
            Storage::Remote => return None,
            Storage::Local { tells } => self.file.is_cold |= !tells,
        }
        let wanted = len.min(MAX_SENDFILE);
        let end = offset + wanted;
        let known = offset + pool.known(&id, offset).min(wanted);
        let mut at = known;
        while !self.file.is_cold && at < end {
            match read_in_memory(file.fd.as_fd(), id.dev, &mut [0], at) {
                Ok(1..) => at = (at / STRIDE + 1) * STRIDE,
                Err(NotInMemory::OnDisk | NotInMemory::Unknown) => {
                    self.file.is_cold = true;
                    at = at.saturating_sub(STRIDE).max(known);
                }
                // Sending it will report the error.
                Ok(0) | Err(NotInMemory::Failed) => return Some(wanted),
            }
        }
        let at = at.min(end);
        if at > known {
            pool.note(&id, offset, at);
        }
        (at > offset).then_some(at - offset)
    }

    /// How the loop reads from the file that is being sent.
    pub(super) fn reads(&self) -> Reads {
        match &self.file.held {
            Some(OpenFile::File(file) | OpenFile::Changing(file)) => match (file.storage, &file.id) {
                (Storage::Local { tells: true }, Some(id)) => Reads::Memory(id.dev),
                _ => Reads::Disk,
            },
            _ => Reads::Disk,
        }
    }

    /// Starts a thread that reads the bytes to send next.
    pub(super) fn read_first(&mut self, transmit: &Transmit<'_>, offset: u64, len: u64, pool: &IoPool) -> Input {
        let (file, mode) = match self.file.held.take() {
            Some(OpenFile::File(file)) => (file, SendMode::Sendfile),
            Some(OpenFile::Changing(file)) => (file, SendMode::Copy),
            other => {
                self.file.held = other;
                return Input::Broken(Fault::File);
            }
        };
        self.file.begun = true;
        self.reserved = pool.reserve(PIECE - LEAST_PIECE);
        let job = ReadJob {
            file,
            mode,
            opened: self.file.opened,
            samples: std::mem::take(&mut self.file.samples),
            samples_due: self.file.samples_due.take(),
            offset,
            len,
            more: transmit.more || self.file.attached.is_some(),
            most: if self.reserved.is_some() { PIECE } else { LEAST_PIECE },
        };
        let gate = pool.gate().cloned();
        let place = Place::device(job.file.id.as_ref().map_or(0, |id| id.dev));
        let pending = pool.start(place, move || {
            if let (Some(gate), Some(id)) = (gate, &job.file.id) {
                gate.wait(DiskRequest::Read(id.ino));
            }
            Done::Read(job.run())
        });
        self.start(Ticket::default(), Kind::Read, pending);
        Input::FilePending
    }

    fn take_read(&mut self, done: ReadDone, reserved: Option<Reserved>, env: &SlotEnv<'_>) {
        let ReadDone { file, samples, offset, bytes } = done;
        if let (OpenFile::File(DiskFile { id: Some(id), storage: Storage::Local { .. }, .. }), Ok(bytes), Some(pool)) =
            (&file, &bytes, env.io)
        {
            pool.note(id, offset, offset + bytes.len() as u64);
        }
        self.file.held = Some(file);
        self.file.samples = samples;
        self.piece = Some(bytes.map(|bytes| Piece { at: offset, bytes, sent: 0, _memory: reserved }));
    }
}

impl Piece {
    /// The bytes to send at this offset of the file, at most `len`.
    pub(super) fn at(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let bytes = self.bytes.get(self.sent..)?;
        let most = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
        (self.at + self.sent as u64 == offset && most > 0).then(|| &bytes[..most])
    }

    /// Records that `n` more were sent. `false`: none is left.
    pub(super) fn sent(&mut self, n: usize) -> bool {
        self.sent += n;
        self.sent < self.bytes.len()
    }
}

impl ReadJob {
    fn run(mut self) -> ReadDone {
        let bytes = self.read();
        let file = match self.mode {
            SendMode::Sendfile => OpenFile::File(self.file),
            SendMode::Copy => OpenFile::Changing(self.file),
        };
        ReadDone { file, samples: self.samples, offset: self.offset, bytes }
    }

    /// Bytes that are read before a check are of the version that the check finds, as in `Slot::send_copied`.
    fn read(&mut self) -> Result<Vec<u8>, Fault> {
        let ReadJob { file, mode, opened, samples, samples_due, offset, len, more, most } = self;
        let (offset, len, mode) = (*offset, *len, *mode);
        let fd = file.fd.as_fd();
        if let Some((sent, end)) = samples_due.take() {
            let _ = samples.take(fd, sent, end, mode, Reads::Disk);
        }
        let most = usize::try_from(len).map_or(*most, |len| len.min(*most));
        let mut bytes = Vec::with_capacity(most);
        while bytes.len() < most {
            let at = offset + bytes.len() as u64;
            match pread(fd, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(Fault::File),
            }
        }
        bytes.truncate(most);
        if bytes.is_empty() {
            return Err(Fault::FileShrank);
        }
        let n = bytes.len() as u64;
        if let Some(fault) = opened.and_then(|opened| samples.fault_since(&opened, fd, n == len)) {
            return Err(fault);
        }
        let end = opened.map_or(offset + len, |opened| opened.len);
        if n < len || (offset + n < end && *more) {
            let _ = samples.take(fd, offset + n, end, mode, Reads::Disk);
        }
        Ok(bytes)
    }
}

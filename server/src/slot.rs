//! The system resources of a busy connection, and carrying out its steps.
//!
//! A [`Slot`] is leased together with the core's `Buffers`, and reused for other connections. It carries out one step
//! at a time, and never loops or waits. `Call`, `Wait` and `Close` are carried out by the driver.
//!
//! **The batch.** Small responses are not sent one by one. If a response fits into the batch, it is copied there and
//! reported as sent, so that a head and its small body, or the responses to several pipelined requests, are sent with
//! one call. A response that does not fit is sent together with the batch. The driver calls [`Slot::flush`] before it
//! waits, half-closes or closes.
//!
//! **The script.** While a script is running, the driver also waits for the descriptors in [`Slot::script`], and
//! reads with [`Slot::read_script`]; see [`script`].

mod disk;
mod script;
mod sent_file;

use std::fs::File;
use std::io::IoSlice;

use disk::{Piece, Underway};
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io::pread;
use sanserve_core::{
    Action, Body, Completion, Fault, FsError, Input, Opened, Policy, Step, Ticket, Transmit, Wall, Window,
};
use sanserve_os::{MAX_SENDFILE, Stopped, Storage, examine};
use sent_file::{Reads, SAMPLE, Sample, SendMode};

use crate::cache::{DiskFile, Files, OpenFile};
use crate::io_pool::IoPool;
use crate::log::Logger;
use crate::memory::Reserved;
use crate::script::{Running, Scripts, Spool, local_address};
use crate::transport::{Io, Received};

pub(crate) use sent_file::SentFile;

/// The capacity of the batch in bytes.
pub const BATCH: usize = 16 * 1024;

/// The room that is allocated for it at first: enough for the response with a small file.
const FIRST_BATCH: usize = 2 * 1024;

/// What a [`Slot`] needs in addition; the same for all connections of a thread.
pub struct SlotEnv<'d> {
    /// Opens files.
    pub files: &'d dyn Files,
    /// The threads that wait for disks; `None`: disks are waited for here.
    pub io: Option<&'d IoPool>,
    /// Runs scripts.
    pub scripts: &'d Scripts,
    /// The log for finished exchanges. The driver flushes it at the end of a turn.
    pub log: &'d mut Logger,
    /// Formats the log lines.
    pub policy: &'d dyn Policy,
    /// The time in the log lines.
    pub wall: Wall,
    /// Bytes of a file that one step sends at most, at least 1.
    pub most: u64,
}

/// How [`Slot::flush`] ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing is left.
    Done,
    /// The socket is full. The driver passes on [`Input::Blocked`] and polls again.
    Blocked,
    /// The connection has failed, and the rest of the batch is discarded.
    Broken,
}

/// The open file, the open directory, the script and the unsent bytes of one connection.
#[derive(Debug, Default)]
pub struct Slot {
    batch: Vec<u8>,
    file: SentFile,
    /// The bytes that a thread has read of the file, or the fault that it has found.
    piece: Option<Result<Piece, Fault>>,
    directory: Option<OpenFile>,
    /// A thread had to open the directory, so one reads it too.
    slow_directory: bool,
    /// The entries that a thread has read.
    entries: Option<disk::Batch>,
    /// The work of a thread for this exchange.
    underway: Option<Underway>,
    /// Memory for the bytes that it reads.
    reserved: Option<Reserved>,
    /// The path of the directory, for opening index pages.
    path: Vec<u8>,
    /// The input of the next script.
    spool: Option<Spool>,
    script: Option<Running>,
}

impl Slot {
    /// An empty slot; it allocates when it is first used.
    #[must_use]
    pub fn new() -> Slot {
        Slot::default()
    }

    /// Carries out a step, and returns the input for the connection. `None` for steps without a result.
    ///
    /// `Call`, `Wait` and `Close` must not be passed.
    pub fn carry_out(&mut self, step: Step<'_>, io: &mut Io<'_>, env: &mut SlotEnv<'_>) -> Option<Input> {
        match step {
            Step::Send(transmit) => Some(self.send(&transmit, io, env)),
            Step::Act(ticket, action) => {
                self.act(ticket, action, io, env).map(|completion| Input::Done(ticket, completion))
            }
            Step::Finished(entry) => {
                env.log.write(&entry, env.policy, env.wall);
                self.release();
                None
            }
            Step::Shut => {
                debug_assert!(!self.has_batch(), "the batch is flushed before the half-close");
                io.shut();
                None
            }
            Step::Feed(bytes) => Some(self.feed(bytes, env.scripts, env.log.log())),
            Step::Probe(window) => Some(probe(window, io)),
            Step::Call(_) | Step::Wait(_) | Step::Close(_) => {
                debug_assert!(false, "a step of the driver");
                None
            }
        }
    }

    /// Sends the batch. Call it at `Wait`, `Shut` and `Close`.
    pub fn flush(&mut self, io: &mut Io<'_>) -> Flush {
        let sent = if self.batch.is_empty() { io.flush().map(|()| 0) } else { io.send(&self.batch, false) };
        match sent {
            Ok(n) => {
                self.unbatch(n);
                if self.batch.is_empty() && !io.transport.has_unsent() { Flush::Done } else { Flush::Blocked }
            }
            Err(Stopped::Blocked) => Flush::Blocked,
            Err(Stopped::Peer | Stopped::File) => {
                self.batch.clear();
                Flush::Broken
            }
        }
    }

    /// Whether bytes wait for [`flush`](Slot::flush).
    #[must_use]
    pub fn has_batch(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether the slot holds nothing, so that it may serve another connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
            && self.file.held.is_none()
            && self.directory.is_none()
            && self.spool.is_none()
            && self.script.is_none()
            && self.underway.is_none()
            && self.piece.is_none()
    }

    /// Releases everything, for a connection that is closed. Keeps its memory for the next one.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.release();
    }

    /// Frees the memory of an empty slot.
    pub(crate) fn free(&mut self) {
        self.batch = Vec::new();
        self.path = Vec::new();
    }

    /// Records that time has passed since the last step: the file may have changed.
    pub(crate) fn time_passed(&mut self) {
        self.file.begun = true;
    }

    /// Takes the file that is being sent out of the slot, so that the slot can serve other connections until the socket is
    /// writable. Returns `None` if there is no file, or if the slot holds anything else.
    pub(crate) fn set_aside(&mut self) -> Option<Box<SentFile>> {
        let Slot { batch, directory, spool, script, underway, piece, .. } = self;
        let has_more = directory.is_some() || spool.is_some() || script.is_some();
        if !batch.is_empty() || has_more || underway.is_some() || piece.is_some() || self.file.held.is_none() {
            return None;
        }
        Some(Box::new(std::mem::take(&mut self.file)))
    }

    /// Puts the file back into an empty slot.
    pub(crate) fn take_back(&mut self, file: SentFile) {
        debug_assert!(self.is_empty());
        self.file = file;
    }

    /// Takes the file that a handler has attached to its response: it is sent next.
    pub fn attach(&mut self, file: File) {
        self.forget_file();
        // Its identity and its storage are determined before it is sent.
        let file = DiskFile { fd: OwnedFd::from(file), id: None, storage: Storage::Local { tells: true } };
        self.file.held = Some(OpenFile::File(file));
        self.file.attached = Some(u64::MAX);
    }

    fn release(&mut self) {
        self.release_files();
        self.spool = None;
        self.script = None;
    }

    fn release_files(&mut self) {
        self.forget_file();
        self.directory = None;
        self.slow_directory = false;
        self.entries = None;
        self.path.clear();
    }

    /// Drops the file, and the work of a thread for the exchange.
    fn forget_file(&mut self) {
        self.underway = None;
        self.reserved = None;
        self.piece = None;
        self.file = SentFile::default();
    }
}

/// Reads the socket once, without blocking.
fn probe(window: &mut Window, io: &mut Io<'_>) -> Input {
    match io.receive(window, false) {
        Received::End => Input::Eof,
        Received::Bytes(_) | Received::Nothing => Input::Probed,
        Received::Broken => Input::Broken(Fault::Peer),
    }
}

/// Actions.
impl Slot {
    fn act(&mut self, ticket: Ticket, action: Action<'_>, io: &mut Io<'_>, env: &SlotEnv<'_>) -> Option<Completion> {
        Some(match action {
            Action::Open { path } => return self.open(ticket, path, env),
            Action::OpenIn { path } => return self.open_in(ticket, path, env),
            Action::List { into } => return self.list(ticket, &mut |name, kind| into.push(name, kind), env),
            Action::Find { path, from } => return self.find(ticket, path, from, env),
            Action::Spool => Completion::Spooled(self.open_spool(env.scripts, env.log.log())),
            Action::Spawn(script) => {
                let spool = self.let_script_go();
                let running = env.scripts.spawn(&script, spool, local_address(io.socket), env.log.log());
                Completion::Spawned(running.map(|running| self.script = Some(running)))
            }
            Action::EndInput => {
                self.end_input();
                return None;
            }
            Action::Log { lines } => {
                env.log.log().remark(lines);
                return None;
            }
            Action::Kill => {
                self.kill_script(env.scripts);
                return None;
            }
        })
    }

    /// Holds what was opened at `path`.
    fn opened(&mut self, path: &[u8], found: Result<(Opened, OpenFile), FsError>) -> Result<Opened, FsError> {
        let (opened, held) = found?;
        match held {
            OpenFile::Directory(_) => {
                self.path.extend_from_slice(path);
                self.directory = Some(held);
            }
            OpenFile::Cached(_) | OpenFile::File(_) | OpenFile::Changing(_) => self.hold(held, opened),
        }
        Ok(opened)
    }

    /// Holds the index page of the directory that is held.
    fn opened_in(&mut self, found: Result<(Opened, OpenFile), FsError>) -> Result<Opened, FsError> {
        let (opened, held) = match found {
            // In Python, the message for a directory that may not be searched is that of its listing.
            Err(FsError::Denied) if matches!(&self.directory, Some(OpenFile::Directory(directory)) if directory.is_closed()) =>
            {
                return Err(FsError::NotFound);
            }
            found => found?,
        };
        self.hold(held, opened);
        // There is an index page, so nothing will be listed, and the descriptor of the directory can be closed.
        self.directory = None;
        Ok(opened)
    }

    fn hold(&mut self, held: OpenFile, opened: Opened) {
        self.forget_file();
        self.file.held = Some(held);
        self.file.opened = Some(opened);
    }
}

/// Sending.
impl Slot {
    fn send(&mut self, transmit: &Transmit<'_>, io: &mut Io<'_>, env: &SlotEnv<'_>) -> Input {
        debug_assert!(!transmit.is_empty());
        let (mut most, mut reads) = (env.most, Reads::Disk);
        if let Body::File { offset, len } = transmit.body {
            if self.file.attached.is_some_and(|next| next != offset) {
                self.look_at_attached(offset);
            }
            if let Some(piece) = self.piece.take() {
                match piece {
                    Ok(piece) if piece.at(offset, len).is_some() => return self.send_piece(transmit, piece, io),
                    // A handler sends another part.
                    Ok(_) => {}
                    Err(fault) => return Input::Broken(fault),
                }
            }
            if let Some(pool) = env.io {
                match self.in_memory(offset, len, pool) {
                    Some(bytes) => (most, reads) = (most.min(bytes), self.reads()),
                    None => return self.read_first(transmit, offset, len, pool),
                }
            }
        }
        // Taken out of `self`, so that the batch can be modified while the file is borrowed.
        let file = self.file.held.take();
        let input = match (transmit.body, &file) {
            (Body::None, _) => self.send_bytes(transmit, b"", io),
            (Body::Bytes(bytes), _) => self.send_bytes(transmit, bytes, io),
            (Body::File { offset, len }, Some(OpenFile::Cached(cached))) => match part(cached.bytes(), offset, len) {
                Some(bytes) => self.send_bytes(transmit, bytes, io),
                None => Input::Broken(Fault::FileShrank),
            },
            (Body::File { offset, len }, Some(OpenFile::File(file))) => {
                self.send_from(transmit, file, SendMode::Sendfile, Part { offset, len, most, reads }, io)
            }
            (Body::File { offset, len }, Some(OpenFile::Changing(file))) => {
                self.send_from(transmit, file, SendMode::Copy, Part { offset, len, most, reads }, io)
            }
            (Body::File { .. }, Some(OpenFile::Directory(_)) | None) => Input::Broken(Fault::File),
        };
        self.file.held = file;
        input
    }

    /// Another part of a handler's file is sent. The handler may have written to it meanwhile; from here on it must not.
    fn look_at_attached(&mut self, offset: u64) {
        let Some(OpenFile::File(file)) = &mut self.file.held else { return };
        let looked = fstat(&file.fd).ok().as_ref().and_then(examine);
        if let Some((_, id)) = &looked {
            file.id = Some(*id);
            file.storage = Storage::of(file.fd.as_fd(), id.dev);
        }
        let (opened, attached) = (looked.map(|(opened, _)| opened), Some(offset));
        self.file = SentFile { opened, attached, held: self.file.held.take(), ..SentFile::default() };
    }

    /// Sends what a thread has read.
    fn send_piece(&mut self, transmit: &Transmit<'_>, mut piece: Piece, io: &mut Io<'_>) -> Input {
        let Body::File { offset, len } = transmit.body else { return Input::Broken(Fault::File) };
        let Some(bytes) = piece.at(offset, len) else { return Input::Broken(Fault::FileShrank) };
        let is_all = bytes.len() as u64 == len;
        let tail = if is_all { transmit.tail } else { b"" };
        let sent = self.send_bytes(&Transmit { tail, more: transmit.more || !is_all, ..*transmit }, bytes, io);
        let n = match sent {
            Input::Sent(n) => n.saturating_sub(transmit.head.len() as u64).min(bytes.len() as u64),
            _ => 0,
        };
        self.file.attached = self.file.attached.map(|_| offset + n);
        if piece.sent(usize::try_from(n).unwrap_or(usize::MAX)) {
            self.piece = Some(Ok(piece));
        }
        sent
    }

    /// Sends head, `body` and tail, through the batch if they fit.
    fn send_bytes(&mut self, transmit: &Transmit<'_>, body: &[u8], io: &mut Io<'_>) -> Input {
        let pieces = [transmit.head, body, transmit.tail];
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if len <= BATCH - self.batch.len() {
            self.make_room(self.batch.len() + len);
            pieces.iter().for_each(|piece| self.batch.extend_from_slice(piece));
            return Input::Sent(len as u64);
        }
        let all = [&self.batch, pieces[0], pieces[1], pieces[2]].map(IoSlice::new);
        match io.send_vectored(&all, transmit.more) {
            Ok(n) => match self.unbatch(n) {
                0 => Input::Blocked,
                n => Input::Sent(n as u64),
            },
            Err(stopped) => self.stopped(stopped),
        }
    }

    /// Allocates room for a batch of this length. It grows only as far as the responses require, since a longer one would
    /// touch more pages.
    fn make_room(&mut self, len: usize) {
        if len > self.batch.capacity() {
            let room = len.next_power_of_two().clamp(FIRST_BATCH, BATCH);
            self.batch.reserve_exact(room - self.batch.len());
        }
    }

    /// Sends the batch, the head and a bounded part of the file. The rest is requested again.
    ///
    /// A body must consist of one version of the file. So the file is checked while it is sent, and the end of a body
    /// is held back, and copied before the last check: if the file has changed, the peer never gets the announced
    /// length. Pages that `sendfile` has passed to the kernel still belong to the file until the peer has received
    /// them, so that a write in place changes them. So a file that is changing is not sent with `sendfile`.
    fn send_from(
        &mut self,
        transmit: &Transmit<'_>,
        file: &DiskFile,
        mode: SendMode,
        part: Part,
        io: &mut Io<'_>,
    ) -> Input {
        let Part { offset, len, most, reads } = part;
        let head = transmit.head;
        // Also if the socket takes none of it for now.
        let is_first = !std::mem::replace(&mut self.file.begun, true);
        let before = self.batch.len() + head.len();
        if before > 0 {
            match io.send_vectored(&[&self.batch, head].map(IoSlice::new), true) {
                Ok(n) => {
                    let of_head = self.unbatch(n);
                    if n < before {
                        return if of_head == 0 { Input::Blocked } else { Input::Sent(of_head as u64) };
                    }
                }
                Err(stopped) => return self.stopped(stopped),
            }
        }
        let fd = file.fd.as_fd();
        let sent = match mode {
            SendMode::Sendfile if is_first => io.send_file(fd, offset, len.min(most)).map_err(Unsent::Stopped),
            SendMode::Sendfile => self.send_with_sendfile(fd, part, io),
            SendMode::Copy => self.send_copied(fd, part, io),
        };
        match sent {
            Ok(0) => Input::Broken(Fault::FileShrank),
            Ok(n) => {
                self.file.attached = self.file.attached.map(|_| offset + n);
                // More of the file may follow: the rest, another range, or what a handler sends next.
                let end = self.file.opened.map_or(offset + len, |opened| opened.len);
                let more_follows = n < len || (offset + n < end && (transmit.more || self.file.attached.is_some()));
                if more_follows && !self.file.samples.take(fd, offset + n, end, mode, reads) {
                    self.file.samples_due = Some((offset + n, end));
                }
                Input::Sent(head.len() as u64 + n)
            }
            Err(Unsent::Broken(fault)) => Input::Broken(fault),
            Err(Unsent::Stopped(Stopped::Blocked)) if !head.is_empty() => Input::Sent(head.len() as u64),
            Err(Unsent::Stopped(stopped)) => self.stopped(stopped),
        }
    }

    /// Sends more of a settled file. The check comes after the bytes sent with `sendfile` and before the last few, so
    /// that one check serves for everything that the socket accepts. If much is left, each megabyte is checked too.
    fn send_with_sendfile(&self, file: BorrowedFd<'_>, part: Part, io: &mut Io<'_>) -> Result<u64, Unsent> {
        let Part { offset, len, most, .. } = part;
        let before_end = len.saturating_sub(SAMPLE as u64);
        if before_end > MAX_SENDFILE {
            self.check(file, false)?;
        }
        let sent = if before_end == 0 { 0 } else { io.send_file(file, offset, before_end.min(most))? };
        if sent < before_end {
            return Ok(sent);
        }
        match self.send_end(file, offset + before_end, offset + len, io) {
            Ok(n) => Ok(sent + n),
            // It will be tried again; the bytes sent so far count.
            Err(_) if sent > 0 => Ok(sent),
            unsent => unsent,
        }
    }

    /// Sends the last few bytes of a body.
    fn send_end(&self, file: BorrowedFd<'_>, from: u64, to: u64, io: &mut Io<'_>) -> Result<u64, Unsent> {
        let sample = (self.file.samples.end.end() == to).then_some(self.file.samples.end);
        let sample = sample.or_else(|| Sample::before(to, file, Reads::Disk)).unwrap_or_default();
        let bytes = sample.since(from).ok_or(Unsent::Broken(Fault::FileShrank))?;
        self.check(file, true)?;
        Ok(io.send(bytes, false)? as u64)
    }

    /// Sends more of a file that is changing: the bytes read before the check are of the version that the check
    /// finds.
    fn send_copied(&self, file: BorrowedFd<'_>, part: Part, io: &mut Io<'_>) -> Result<u64, Unsent> {
        let Part { offset, len, most, .. } = part;
        let most = usize::try_from(len.min(most)).map_or(MAX_COPY, |most| most.min(MAX_COPY));
        let mut copied = Vec::with_capacity(most);
        pread(file, spare_capacity(&mut copied), offset).map_err(|_| Unsent::Broken(Fault::File))?;
        copied.truncate(most);
        if copied.is_empty() {
            return Err(Unsent::Broken(Fault::FileShrank));
        }
        let is_last = copied.len() as u64 == len;
        self.check(file, is_last)?;
        Ok(io.send(&copied, !is_last)? as u64)
    }

    /// Checks that the file has not changed since it was opened. `is_last`: no more of it follows.
    fn check(&self, file: BorrowedFd<'_>, is_last: bool) -> Result<(), Unsent> {
        self.file.fault(file, is_last).map_or(Ok(()), |fault| Err(Unsent::Broken(fault)))
    }

    /// Removes `n` sent bytes, those of the batch first. Returns how many of them came after the batch.
    fn unbatch(&mut self, n: usize) -> usize {
        let of_batch = n.min(self.batch.len());
        self.batch.drain(..of_batch);
        n - of_batch
    }

    fn stopped(&mut self, stopped: Stopped) -> Input {
        match stopped {
            Stopped::Blocked => Input::Blocked,
            Stopped::File => Input::Broken(Fault::File),
            Stopped::Peer => {
                self.batch.clear();
                Input::Broken(Fault::Peer)
            }
        }
    }
}

/// The rest of a file that is to be sent.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    len: u64,
    /// The most bytes of it that this step sends, at least 1.
    most: u64,
    reads: Reads,
}

/// Why nothing of a file was sent.
enum Unsent {
    Stopped(Stopped),
    Broken(Fault),
}

impl From<Stopped> for Unsent {
    fn from(stopped: Stopped) -> Unsent {
        Unsent::Stopped(stopped)
    }
}

/// The most bytes that are copied at once of a file that is changing.
const MAX_COPY: usize = 64 * 1024;

fn part(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let offset = usize::try_from(offset).ok()?;
    let len = usize::try_from(len).ok()?;
    bytes.get(offset..)?.get(..len)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use sanserve_core::{DefaultPolicy, Entry, Kind, Listing, Peer};
    use tempfile::TempDir;

    use super::*;
    use crate::cache::{CacheLimits, Local};
    use crate::log::Log;
    use crate::script::ScriptRules;
    use crate::script::tests::Lines;
    use crate::transport::Transport;
    use sanserve_os::{Root, Symlinks};

    /// A connected pair without any buffering by the kernel in between, so that a full socket remains full. The first
    /// one does not block.
    fn still_pair() -> (UnixStream, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, peer)
    }

    /// Sends until the socket is full.
    fn fill(socket: &UnixStream) -> usize {
        std::iter::from_fn(|| sanserve_os::send(socket.as_fd(), &[b'x'; 65_536], false).ok()).sum()
    }

    /// A slot with a socket, a peer and a directory.
    struct Bench {
        slot: Slot,
        ours: UnixStream,
        peer: UnixStream,
        files: Local,
        scripts: Scripts,
        log: Logger,
        lines: Lines,
        dir: TempDir,
        most: u64,
        io: Option<IoPool>,
    }

    impl Bench {
        fn new(cached: bool) -> Bench {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("sub")).unwrap();
            fs::write(dir.path().join("ten"), "0123456789").unwrap();
            fs::write(dir.path().join("sub/index.html"), "index").unwrap();
            fs::write(dir.path().join("index.html"), "top").unwrap();
            fs::write(dir.path().join("20k"), vec![b'k'; 20_000]).unwrap();
            fs::File::create(dir.path().join("3M")).unwrap().set_len(3 << 20).unwrap();
            let limits = CacheLimits::default().with_settled(Duration::from_secs(if cached { 0 } else { 3_600 }));
            let root = Arc::new(Root::open(dir.path(), Symlinks::Follow).unwrap());
            let (ours, peer) = still_pair();
            let lines = Lines::default();
            let log = Log::to(lines.clone()).logger();
            let scripts = Scripts::new(ScriptRules::default(), Arc::clone(&root));
            Bench {
                slot: Slot::new(),
                ours,
                peer,
                files: Local::new(root, limits),
                scripts,
                log,
                lines,
                dir,
                most: u64::MAX,
                io: None,
            }
        }

        fn step(&mut self, step: Step<'_>) -> Option<Input> {
            let mut env = SlotEnv {
                files: &self.files,
                io: self.io.as_ref(),
                scripts: &self.scripts,
                policy: &DefaultPolicy,
                log: &mut self.log,
                wall: Wall(0),
                most: self.most,
            };
            self.slot.carry_out(step, &mut Transport::edge_triggered().over(self.ours.as_fd()), &mut env)
        }

        /// Waits until a thread has done what it was asked for, and leaves the result there.
        fn await_disk(&self) {
            while !self.slot.wake_when_done(std::task::Waker::noop()) {
                std::thread::yield_now();
            }
        }

        /// Takes the result of what a thread does.
        fn done(&mut self) -> Input {
            self.await_disk();
            let env = SlotEnv {
                files: &self.files,
                io: self.io.as_ref(),
                scripts: &self.scripts,
                policy: &DefaultPolicy,
                log: &mut self.log,
                wall: Wall(0),
                most: self.most,
            };
            self.slot.take_done(&env).expect("it is done")
        }

        /// Gives a file another time, as a change does.
        fn touch(&self, path: &str) {
            let file = fs::File::options().write(true).open(self.dir.path().join(path)).unwrap();
            let old = file.metadata().unwrap().modified().unwrap();
            file.set_modified(old - Duration::from_secs(9)).unwrap();
        }

        fn send(&mut self, head: &str, body: Body<'_>, tail: &str) -> Input {
            let (head, tail) = (head.as_bytes(), tail.as_bytes());
            self.step(Step::Send(Transmit { head, body, tail, more: false })).unwrap()
        }

        /// Sends a part of a response that is not the last.
        fn send_part(&mut self, body: Body<'_>) -> Input {
            self.step(Step::Send(Transmit { head: b"", body, tail: b"", more: true })).unwrap()
        }

        fn opened(&mut self, action: Action<'_>) -> Result<Opened, FsError> {
            match self.step(Step::Act(Ticket::default(), action)) {
                Some(Input::Done(_, Completion::Opened(opened))) => opened,
                other => panic!("{other:?}"),
            }
        }

        fn open(&mut self, path: &str) -> Result<Opened, FsError> {
            self.opened(Action::Open { path: path.as_bytes() })
        }

        fn open_in(&mut self, path: &str) -> Result<Opened, FsError> {
            self.opened(Action::OpenIn { path: path.as_bytes() })
        }

        fn flush(&mut self) -> Flush {
            self.slot.flush(&mut Transport::edge_triggered().over(self.ours.as_fd()))
        }

        fn received(&mut self, n: usize) -> Vec<u8> {
            let mut bytes = vec![0; n];
            self.peer.read_exact(&mut bytes).unwrap();
            bytes
        }

        /// Whether nothing can be received.
        fn silent(&self) -> bool {
            rustix::io::ioctl_fionread(&self.peer) == Ok(0)
        }
    }

    fn file(offset: u64, len: u64) -> Body<'static> {
        Body::File { offset, len }
    }

    #[test]
    fn small_responses_are_sent_together() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.open("ten").unwrap().len, 10);
        assert_eq!(bench.send("HEAD ", file(2, 3), "."), Input::Sent(9));
        assert_eq!(bench.send("", Body::Bytes(b" second"), ""), Input::Sent(7));
        assert_eq!(bench.send(" third", Body::None, ""), Input::Sent(6));
        assert!(bench.silent() && bench.slot.has_batch());
        assert_eq!(bench.flush(), Flush::Done);
        assert!(!bench.slot.has_batch());
        assert_eq!(bench.flush(), Flush::Done);
        assert_eq!(bench.received(22), b"HEAD 234. second third");
    }

    #[test]
    fn a_response_that_does_not_fit_is_sent_with_the_batch() {
        let mut bench = Bench::new(true);
        let exact = vec![b'e'; BATCH - 4];
        assert_eq!(bench.send("HEAD", Body::Bytes(&exact), ""), Input::Sent(BATCH as u64));
        assert!(bench.silent());
        assert_eq!(bench.send("x", Body::None, ""), Input::Sent(1));
        assert!(!bench.slot.has_batch(), "one byte too much: everything was sent");
        assert_eq!(bench.received(BATCH + 1).last(), Some(&b'x'));
        bench.open("20k").unwrap();
        assert_eq!(bench.send("small", Body::None, ""), Input::Sent(5));
        assert_eq!(bench.send("HEAD", file(0, 20_000), "TAIL"), Input::Sent(20_008));
        let all = bench.received(20_013);
        assert_eq!((&all[..9], &all[20_009..]), (&b"smallHEAD"[..], &b"TAIL"[..]));
    }

    #[test]
    fn a_file_from_its_descriptor_follows_its_head() {
        let mut bench = Bench::new(false);
        bench.open("ten").unwrap();
        assert_eq!(bench.send("first ", Body::None, ""), Input::Sent(6));
        assert_eq!(bench.send("HEAD ", file(2, 3), "TAIL"), Input::Sent(8));
        assert_eq!(bench.send("", Body::None, "TAIL"), Input::Sent(4));
        assert_eq!(bench.flush(), Flush::Done);
        assert_eq!(bench.received(18), b"first HEAD 234TAIL");
    }

    #[test]
    fn a_burst_is_bounded_and_continues_where_it_ended() {
        let mut bench = Bench::new(true);
        bench.open("3M").unwrap();
        let mut peer = bench.peer.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; (3 << 20) + 4];
            peer.read_exact(&mut all).unwrap();
            all
        });
        let mut sent = 0;
        while sent < (3 << 20) + 4 {
            let offset = u64::saturating_sub(sent, 4);
            let head = &"HEAD"[usize::try_from(sent).unwrap_or(4).min(4)..];
            match bench.send(head, file(offset, (3 << 20) - offset), "") {
                Input::Sent(n) => {
                    assert!((1..=MAX_SENDFILE + 4).contains(&n));
                    sent += n;
                }
                other => {
                    assert_eq!(other, Input::Blocked);
                    std::thread::yield_now();
                }
            }
        }
        assert_eq!(&reader.join().unwrap()[..5], b"HEAD\0");
    }

    #[test]
    fn a_step_sends_no_more_of_a_file_than_it_may() {
        let mut bench = Bench::new(true);
        bench.open("3M").unwrap();
        bench.most = 4_000;
        assert_eq!(bench.send("HEAD", file(0, 3 << 20), ""), Input::Sent(4_004));
        for offset in [4_000, 8_000, 12_000] {
            assert_eq!(bench.send("", file(offset, (3 << 20) - offset), ""), Input::Sent(4_000));
        }
        assert_eq!(bench.received(16_004).len(), 16_004);
        assert!(bench.silent());
        // The end of a body, which is kept back until the file was checked, does not count.
        assert_eq!(bench.send("", file((3 << 20) - 4_001, 4_001), ""), Input::Sent(4_001));
        bench.most = 1;
        assert_eq!(bench.send("", file((3 << 20) - 33, 33), ""), Input::Sent(33));
        assert_eq!(bench.send("", file((3 << 20) - 34, 34), ""), Input::Sent(1));
    }

    #[test]
    fn bytes_that_a_full_socket_refuses_are_kept() {
        let mut bench = Bench::new(false);
        bench.open("ten").unwrap();
        assert_eq!(bench.send("batched", Body::None, ""), Input::Sent(7));
        let filled = fill(&bench.ours);
        assert_eq!(bench.flush(), Flush::Blocked);
        assert_eq!(bench.send("", Body::Bytes(&[b'y'; BATCH]), ""), Input::Blocked);
        assert_eq!(bench.send("HEAD", file(0, 10), ""), Input::Blocked);
        assert!(bench.slot.has_batch());
        bench.received(filled);
        assert_eq!(bench.send("HEAD", file(0, 10), ""), Input::Sent(14));
        assert_eq!(bench.received(21), b"batchedHEAD0123456789");
    }

    #[test]
    fn a_part_of_a_large_response_does_not_count_as_batch() {
        let mut bench = Bench::new(true);
        let large = vec![b'l'; 32 << 20];
        assert_eq!(bench.send("batched", Body::None, ""), Input::Sent(7));
        let Input::Sent(n) = bench.send("HEAD", Body::Bytes(&large), "") else { panic!("nothing was sent") };
        assert!(n < 32 << 20 && !bench.slot.has_batch());
        let all = bench.received(usize::try_from(n).unwrap() + 7);
        assert_eq!(&all[..12], b"batchedHEADl");
        assert!(bench.silent());
    }

    #[test]
    fn a_file_that_ends_early_breaks_the_response() {
        let mut bench = Bench::new(false);
        bench.open("ten").unwrap();
        assert_eq!(bench.send("HEAD", file(0, 4), ""), Input::Sent(8));
        fs::write(bench.dir.path().join("ten"), "0123").unwrap();
        assert_eq!(bench.send("", file(4, 6), ""), Input::Broken(Fault::FileShrank));
        let mut bench = Bench::new(false);
        bench.open("ten").unwrap();
        fs::write(bench.dir.path().join("ten"), "0123").unwrap();
        assert_eq!(bench.send("HEAD", file(0, 10), ""), Input::Broken(Fault::FileShrank), "before any of it is sent");
        let mut bench = Bench::new(true);
        bench.open("ten").unwrap();
        assert_eq!(bench.send("HEAD", file(4, 7), ""), Input::Broken(Fault::FileShrank));
        assert_eq!(bench.send("HEAD", file(u64::MAX, 1), ""), Input::Broken(Fault::FileShrank));
        bench.slot.clear();
        assert_eq!(bench.send("HEAD", file(0, 1), ""), Input::Broken(Fault::File));
    }

    #[test]
    fn a_file_that_is_rewritten_meanwhile_breaks_the_response() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("ten");
        bench.open("ten").unwrap();
        assert_eq!(bench.send("", file(0, 5), ""), Input::Sent(5));
        let append = |text: &str| fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes());
        append("grown").unwrap();
        assert_eq!(bench.send("", file(5, 2), ""), Input::Sent(2), "the announced bytes still exist");
        fs::write(&path, "9876543210").unwrap();
        assert_eq!(bench.send("", file(7, 3), ""), Input::Broken(Fault::FileChanged));
    }

    #[test]
    fn a_file_that_is_rewritten_and_longer_breaks_the_response() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("ten");
        bench.open("ten").unwrap();
        // The whole body was requested, so that a sample is taken of the bytes sent.
        bench.slot.file.begun = true;
        let _ =
            bench.slot.file.samples.take(fs::File::open(&path).unwrap().as_fd(), 5, 10, SendMode::Copy, Reads::Disk);
        fs::write(&path, "01234bcdefghijk").unwrap();
        assert_eq!(bench.send("", file(5, 5), ""), Input::Broken(Fault::FileChanged), "the bytes sent are unchanged");
    }

    #[test]
    fn ranges_of_a_file_that_is_rewritten_and_longer_break_the_response() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("ten");
        bench.open("ten").unwrap();
        assert_eq!(bench.send_part(file(0, 2)), Input::Sent(2));
        fs::write(&path, "012345678xyz").unwrap();
        assert_eq!(bench.send("", file(8, 2), ""), Input::Broken(Fault::FileChanged));
    }

    /// Whoever asks this disk waits until the sender is gone. `slow` is not in memory.
    struct Held {
        slow: &'static [u8],
        until: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
    }

    impl crate::DiskGate for Held {
        fn is_slow(&self, request: crate::DiskRequest<'_>) -> bool {
            matches!(request, crate::DiskRequest::Open(path) if path == self.slow)
        }

        fn wait(&self, _: crate::DiskRequest<'_>) {
            assert!(self.until.lock().unwrap().recv().is_err());
        }
    }

    fn held(slow: &'static [u8]) -> (Option<IoPool>, std::sync::mpsc::Sender<()>) {
        let (sender, until) = std::sync::mpsc::channel();
        (Some(IoPool::new(2).with_gate(Arc::new(Held { slow, until: until.into() }))), sender)
    }

    #[test]
    fn a_file_that_changes_between_its_opening_and_its_first_part_breaks_the_response() {
        let opened_here = |time_passes: &dyn Fn(&mut Bench)| {
            let mut bench = Bench::new(true);
            bench.open("3M").unwrap();
            time_passes(&mut bench);
            bench.touch("3M");
            bench.send("HEAD", file(0, 5), "")
        };
        assert_eq!(opened_here(&|_| {}), Input::Sent(9), "no time has passed");
        assert_eq!(opened_here(&|bench| bench.slot.time_passed()), Input::Broken(Fault::FileChanged));
        let socket_is_full = |bench: &mut Bench| {
            let filled = fill(&bench.ours);
            assert_eq!(bench.send("HEAD", file(0, 5), ""), Input::Blocked);
            bench.received(filled);
        };
        assert_eq!(opened_here(&socket_is_full), Input::Broken(Fault::FileChanged));
        let mut bench = Bench::new(true);
        let (io, until) = held(b"3M");
        bench.io = io;
        drop(until);
        assert_eq!(bench.step(Step::Act(Ticket::default(), Action::Open { path: b"3M" })), None);
        bench.await_disk();
        bench.touch("3M");
        assert!(matches!(bench.done(), Input::Done(_, Completion::Opened(Ok(_)))));
        // It is sent without regard to what is in memory.
        bench.io = None;
        assert_eq!(bench.send("HEAD", file(0, 5), ""), Input::Broken(Fault::FileChanged));
    }

    #[test]
    fn a_name_that_a_thread_still_looks_up_is_not_looked_up_on_the_loop() {
        let mut bench = Bench::new(true);
        let (io, until) = held(b"");
        bench.io = io;
        let find = || Step::Act(Ticket::default(), Action::Find { path: b"sub/index.html", from: 0 });
        assert_eq!(bench.step(find()), None);
        let first = std::mem::take(&mut bench.slot);
        assert_eq!(bench.step(find()), None, "it may have to be waited for, too");
        drop(until);
        let is_found = |input| matches!(input, Input::Done(_, Completion::Found(Ok(_))));
        assert!(is_found(bench.done()));
        bench.slot = first;
        assert!(is_found(bench.done()));
        assert!(bench.step(find()).is_some_and(is_found), "now it is in memory");
    }

    #[test]
    fn samples_belong_to_one_file() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("ten");
        bench.open("3M").unwrap();
        let Input::Sent(n) = bench.send("", file(0, 3 << 20), "") else { panic!("nothing was sent") };
        bench.received(usize::try_from(n).unwrap());
        bench.open("ten").unwrap();
        fs::File::options().append(true).open(&path).unwrap().write_all(b"grown").unwrap();
        assert_eq!(bench.send("", file(0, 10), ""), Input::Sent(10));
        assert_eq!(bench.received(10), b"0123456789");
    }

    #[test]
    fn a_file_that_may_be_growing_is_sent_until_its_end() {
        let mut bench = Bench::new(false);
        bench.open("3M").unwrap();
        let file_itself = fs::File::options().append(true).open(bench.dir.path().join("3M")).unwrap();
        // The time counts as recent for some milliseconds only; a busy machine may need several tries.
        let continues = (0..100).any(|_| {
            file_itself.set_modified(std::time::SystemTime::now()).unwrap();
            bench.send("", file(0, 3 << 20), "") == Input::Sent(MAX_COPY as u64)
        });
        assert!(continues, "the new length may follow");
        bench.received(MAX_COPY);
        assert_eq!(
            bench.send("", file((3 << 20) - 9, 9), ""),
            Input::Broken(Fault::FileChanged),
            "the new length does not follow"
        );
        (&file_itself).write_all(b"grown").unwrap();
        assert_eq!(bench.send("", file((3 << 20) - 9, 9), ""), Input::Sent(9));
    }

    /// Sends the rest of a file from `offset` to `to`, and receives it, until the result is not `Sent`.
    fn send_rest(bench: &mut Bench, mut offset: u64, to: u64) -> (u64, Option<Input>) {
        while offset < to {
            match bench.send("", file(offset, to - offset), "") {
                Input::Sent(n) => {
                    bench.received(usize::try_from(n).unwrap());
                    offset += n;
                }
                other => return (offset, Some(other)),
            }
        }
        (offset, None)
    }

    #[test]
    fn the_end_of_a_settled_file_is_sent_after_a_check() {
        const ALL: u64 = 3 << 20;
        // A rest that is checked first, and rests of which all but the end is sent before the check.
        for (from, to) in [(0, ALL), (ALL - 900_000, ALL), (ALL - 33, ALL), (ALL - 32, ALL), (ALL - 1, ALL), (7, 9)] {
            let mut bench = Bench::new(true);
            let path = bench.dir.path().join("3M");
            let old = fs::metadata(&path).unwrap().modified().unwrap();
            let file_itself = fs::File::options().write(true).open(&path).unwrap();
            bench.open("3M").unwrap();
            assert_eq!(bench.send("", file(0, 5), ""), Input::Sent(5));
            bench.received(5);
            file_itself.set_modified(old - Duration::from_secs(9)).unwrap();
            let (sent, answer) = send_rest(&mut bench, from, to);
            assert_eq!(answer, Some(Input::Broken(Fault::FileChanged)), "{from} to {to}");
            assert!(sent < to && bench.silent());
            file_itself.set_modified(old).unwrap();
            assert_eq!(send_rest(&mut bench, sent, to), (to, None), "only the end was missing");
        }
    }

    #[test]
    fn a_settled_file_that_grows_is_sent_and_a_rewritten_one_is_not() {
        let grown = |bytes: &[u8], at| {
            let mut bench = Bench::new(true);
            bench.open("3M").unwrap();
            let Input::Sent(n) = bench.send("", file(0, 3 << 20), "") else { panic!("nothing was sent") };
            bench.received(usize::try_from(n).unwrap());
            let over = fs::File::options().write(true).open(bench.dir.path().join("3M")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&over, bytes, at).unwrap();
            send_rest(&mut bench, n, 3 << 20)
        };
        assert_eq!(grown(b"grown", 3 << 20), (3 << 20, None));
        for (bytes, at) in [(&[b'b'; 20][..], (3 << 20) - 1), (&[b'b'; (3 << 20) + 1], 0)] {
            assert_eq!(grown(bytes, at).1, Some(Input::Broken(Fault::FileChanged)));
        }
    }

    #[test]
    fn a_file_that_is_changing_is_copied() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("100k");
        fs::write(&path, [b'a'; 100_000]).unwrap();
        bench.open("100k").unwrap();
        let Input::Sent(n) = bench.send("", file(0, 100_000), "") else { panic!("nothing was sent") };
        let over = fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&over, &[b'b'; 100_000], 0).unwrap();
        let n = usize::try_from(n).unwrap();
        assert!(bench.received(n) == vec![b'a'; n]);
        assert_eq!(bench.send("", file(n as u64, 100_000 - n as u64), ""), Input::Broken(Fault::FileChanged));
    }

    #[test]
    fn a_part_of_a_handlers_file_is_of_one_version() {
        let mut bench = Bench::new(false);
        let path = bench.dir.path().join("own");
        fs::write(&path, vec![b'a'; 10_000]).unwrap();
        bench.slot.attach(fs::File::open(&path).unwrap());
        assert_eq!(bench.send("", file(0, 10), ""), Input::Sent(10));
        let old = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, vec![b'b'; 10_000]).unwrap();
        let touched = fs::File::options().write(true).open(&path).unwrap();
        touched.set_modified(old + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(bench.send("", file(10, 10), ""), Input::Broken(Fault::FileChanged), "the part continues");
        assert_eq!(bench.send("", file(100, 10), ""), Input::Sent(10), "another part");
        assert_eq!(bench.received(20), [[b'a'; 10], [b'b'; 10]].concat());
    }

    #[test]
    fn a_peer_that_disconnects_breaks_the_response() {
        let mut bench = Bench::new(false);
        bench.ours.shutdown(std::net::Shutdown::Write).unwrap();
        bench.open("ten").unwrap();
        assert_eq!(bench.send("batched", Body::None, ""), Input::Sent(7));
        assert_eq!(bench.send("HEAD", file(0, 10), ""), Input::Broken(Fault::Peer));
        assert!(!bench.slot.has_batch());
        assert_eq!(bench.send("batched", Body::None, ""), Input::Sent(7));
        assert_eq!(bench.flush(), Flush::Broken);
        assert_eq!(bench.flush(), Flush::Done);
    }

    #[test]
    fn an_index_page_is_opened_in_its_directory() {
        for cached in [true, false] {
            let mut bench = Bench::new(cached);
            assert_eq!(bench.open_in("index.html"), Err(FsError::NotFound), "no directory is held");
            assert_eq!(bench.open("sub").unwrap().kind, Kind::Directory);
            assert_eq!(bench.open_in("nope"), Err(FsError::NotFound));
            assert_eq!(bench.open_in("index.html").unwrap().len, 5);
            assert_eq!(bench.send("", file(0, 5), ""), Input::Sent(5));
            assert_eq!(bench.open("").unwrap().kind, Kind::Directory);
            assert_eq!(bench.open_in("sub"), Err(FsError::NotFound), "a directory is not an index page");
            assert_eq!(bench.open_in("index.html").unwrap().len, 3);
            assert_eq!(bench.send("", file(0, 3), ""), Input::Sent(3));
            assert_eq!(bench.flush(), Flush::Done);
            assert_eq!(bench.received(8), b"indextop");
        }
    }

    #[test]
    fn a_probe_reads_available_bytes_and_never_blocks() {
        let mut bench = Bench::new(true);
        let mut buffers = sanserve_core::Buffers::new();
        assert_eq!(bench.step(Step::Probe(&mut buffers.input)), Some(Input::Probed));
        assert_eq!(buffers.input.unread(), b"");
        std::io::Write::write_all(&mut bench.peer, b"GET /").unwrap();
        assert_eq!(bench.step(Step::Probe(&mut buffers.input)), Some(Input::Probed));
        assert_eq!(buffers.input.unread(), b"GET /");
        bench.peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.step(Step::Probe(&mut buffers.input)), Some(Input::Eof));
    }

    #[test]
    fn a_listing_needs_a_directory() {
        let mut bench = Bench::new(true);
        let mut listing = Listing::default();
        let mut list =
            |bench: &mut Bench| bench.step(Step::Act(Ticket::default(), Action::List { into: &mut listing }));
        let listed = |outcome| Some(Input::Done(Ticket::default(), Completion::Listed(outcome)));
        assert_eq!(list(&mut bench), listed(Err(FsError::Failed)));
        bench.open("").unwrap();
        // Outside of a connection, a listing accepts no names, and ends there.
        assert_eq!(list(&mut bench), listed(Ok(sanserve_core::Listed::End)));
    }

    #[test]
    fn a_finished_exchange_is_logged_and_released() {
        let mut bench = Bench::new(true);
        let peer = Peer::from("127.0.0.1:9".parse::<SocketAddr>().unwrap());
        let entry = Entry::new(peer, b"GET / HTTP/1.1").with_response(200, 5);
        for path in ["ten", "sub", "3M"] {
            bench.open(path).unwrap();
            assert!(!bench.slot.is_empty());
            assert_eq!(bench.step(Step::Finished(entry)), None);
            assert!(bench.slot.is_empty());
        }
        bench.log.flush();
        let lines = bench.lines.text();
        assert_eq!(lines.matches("] \"GET / HTTP/1.1\" 200 5\n").count(), 3, "{lines}");
    }

    #[test]
    fn a_half_close_ends_the_peers_input() {
        let mut bench = Bench::new(true);
        assert_eq!(bench.step(Step::Shut), None);
        assert_eq!(bench.peer.read(&mut [0]).unwrap(), 0);
        assert_eq!(bench.step(Step::Shut), None, "a second half-close has no effect");
    }
}

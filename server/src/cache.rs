//! The small-file cache, which never serves stale bytes, and its two variants.
//!
//! **Every use is checked.** An entry is only served if a `stat` of its path returns exactly the file that was read:
//! the same device, inode, size, and times of change to the nanosecond. Permissions are covered, because they change
//! the ctime, and so is the path, because the `stat` resolves it. If the rule for symbolic links is not
//! [`Symlinks::Follow`](sanserve_os::Symlinks), the file is opened safely instead of the `stat`.
//!
//! **One check serves many requests.** On an event loop, requests that were received are answered one after the
//! other. A check that is made after the last byte of all of them has arrived is as good as one for each: the
//! response shows a state that the file had after the request was received and before it was answered, which is all
//! that any server can promise. So the loop calls [`Local::arrived`] when it has read bytes from any peer. That
//! begins a new epoch, and a check is valid for its epoch. [`Shared`], which threads use, has no such order, and
//! checks each time.
//!
//! **Racy timestamps.** Timestamps are coarse: a file that is rewritten twice within one tick of the file system's
//! clock looks the same. So, like the index of git, the cache does not contain a file that was modified less than two
//! seconds before it is read, or in the future. Such a file is sent from its descriptor.
//!
//! Two gaps remain: writes through `mmap` change the timestamps only when the kernel writes the pages, and a clock
//! that is set back by more than two seconds can hide a change.
//!
//! Missing files and directories are not cached.
//!
//! **An event loop does not wait for a disk.** [`Files::try_open`] opens files whose names and pages are in memory.
//! Otherwise it returns an [`OpenJob`] for a thread ([`IoPool`](crate::IoPool)), and [`Files::finish`] takes the result.
//! The `stat` that checks an entry resolves names that were resolved a short time ago, so they are in memory. There are
//! two exceptions: file systems that query a server or another process (NFS, FUSE), and files that only a thread could
//! open. Such an entry ([`Entry::slow`]) is checked by a thread too, until an open in memory succeeds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::fstat;
use rustix::io::{Errno, pread};
use sanserve_core::{FsError, Kind, Opened};

use sanserve_os::Directory;
use sanserve_os::digest;
use sanserve_os::{FileId, NotInMemory, Root, Storage, examine, read_in_memory};

/// Opens the files and directories of requests.
pub trait Files {
    /// Opens a regular file or a directory; the rules for `path` are those of
    /// [`Action::Open`](sanserve_core::Action::Open).
    ///
    /// # Errors
    /// As described by [`FsError`].
    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError>;

    /// Opens a regular file; a directory counts as not found.
    ///
    /// # Errors
    /// As described by [`FsError`].
    fn open_file(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        only_file(self.open(path))
    }

    /// Opens a file or directory if that is possible without waiting for a disk. With `only_file`, a directory counts as
    /// not found. By default, it waits.
    fn try_open(&self, path: &[u8], only_file: bool) -> Attempt {
        Attempt::Done(if only_file { self.open_file(path) } else { self.open(path) })
    }

    /// A job that opens it on a thread that may wait for a disk. `None`: it has to be opened on this thread.
    fn open_later(&self, _path: &[u8], _only_file: bool) -> Option<OpenJob> {
        None
    }

    /// Takes the result of an [`OpenJob`].
    ///
    /// # Errors
    /// As described by [`FsError`].
    fn finish(&self, outcome: OpenOutcome) -> Result<(Opened, OpenFile), FsError> {
        outcome.without_cache()
    }

    /// Records that bytes of a peer have arrived, or that a handler was called: checks made before are not valid for
    /// files that are opened from now on. Call it after each read, before anything is opened for the bytes that were
    /// read.
    fn arrived(&self) {}
}

/// The result of [`Files::try_open`].
#[derive(Debug)]
pub enum Attempt {
    /// It is open, or cannot be opened.
    Done(Result<(Opened, OpenFile), FsError>),
    /// Opening it requires waiting for a disk.
    Later(OpenJob),
}

/// Opens a file on a thread that may wait for a disk, and reads it if it will be cached.
#[derive(Debug)]
pub struct OpenJob {
    root: Arc<Root>,
    limits: CacheLimits,
    path: Box<[u8]>,
    only_file: bool,
    hit: Option<Hit>,
}

/// The result of an [`OpenJob`].
#[derive(Debug)]
pub struct OpenOutcome {
    path: Box<[u8]>,
    only_file: bool,
    hit: Option<Hit>,
    found: Found,
}

impl OpenJob {
    /// The path beneath the root.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Opens the file. This waits for the disk.
    #[must_use]
    pub fn run(self) -> OpenOutcome {
        let OpenJob { root, limits, path, only_file, hit } = self;
        let found = find(&root, &limits, &path, hit.as_ref(), Wait::Yes).unwrap_or(Found::EXHAUSTED);
        if let Found::Other(Ok(
            Fresh::Read { storage: Storage::Remote, dev, .. } | Fresh::Held { storage: Storage::Remote, dev, .. },
        )) = &found
        {
            root.note_remote(&path, *dev);
        }
        OpenOutcome { path, only_file, hit, found }
    }
}

impl OpenOutcome {
    /// The path beneath the root.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The result, without a cache to update.
    fn without_cache(self) -> Result<(Opened, OpenFile), FsError> {
        let found = match (self.found, self.hit) {
            (Found::Same, Some(hit)) => Ok(in_memory(hit.cached)),
            (Found::Same, None) => Err(FsError::Failed),
            (Found::Other(fresh), _) => fresh.map(Fresh::opened),
        };
        if self.only_file { only_file(found) } else { found }
    }
}

/// Whether a disk may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

/// The result of looking at the disk.
#[derive(Debug)]
enum Found {
    /// The file that is cached.
    Same,
    Other(Result<Fresh, FsError>),
}

impl Found {
    /// Another process keeps renaming the path, or holds a lease on the file.
    const EXHAUSTED: Found = Found::Other(Err(FsError::Exhausted));
}

/// A file or directory that was just opened.
#[derive(Debug)]
enum Fresh {
    /// It was read. `wanted`: to be cached.
    Read {
        cached: Arc<Cached>,
        wanted: bool,
        storage: Storage,
        dev: u64,
    },
    Held {
        opened: Opened,
        held: OpenFile,
        storage: Storage,
        dev: u64,
    },
}

impl Fresh {
    fn opened(self) -> (Opened, OpenFile) {
        match self {
            Fresh::Read { cached, .. } => in_memory(cached),
            Fresh::Held { opened, held, .. } => (opened, held),
        }
    }
}

/// An open file or directory, for as long as an exchange needs it.
#[derive(Debug)]
pub enum OpenFile {
    /// A regular file, in memory.
    Cached(Arc<Cached>),
    /// A regular file, to be read.
    File(DiskFile),
    /// A regular file that was changed so recently that it may change again while it is sent.
    Changing(DiskFile),
    /// A directory, to be listed.
    Directory(Directory),
}

/// A regular file that is open.
#[derive(Debug)]
pub struct DiskFile {
    pub(crate) fd: OwnedFd,
    /// Its identity when it was opened. `None`: the file of a handler, which was not examined.
    pub(crate) id: Option<FileId>,
    pub(crate) storage: Storage,
}

/// A whole file in memory.
pub struct Cached {
    bytes: Box<[u8]>,
    opened: Opened,
    identity: FileId,
}

impl Cached {
    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("opened", &self.opened).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The limits of one cache.
///
/// ```
/// use std::time::Duration;
/// use sanserve_server::CacheLimits;
///
/// let limits = CacheLimits::default().with_total(64 << 20).with_settled(Duration::from_secs(3));
/// assert_eq!(limits.file, 65_536);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheLimits {
    /// Size of a file in bytes; a larger one is sent from its descriptor. Default 65,536.
    pub file: u64,
    /// Bytes of all files, paths and bookkeeping in total; if exceeded, entries are evicted. 0: no cache. Default 16
    /// MiB.
    pub total: usize,
    /// Number of files; if exceeded, entries are evicted. Default 8,192.
    pub entries: usize,
    /// How long ago a file must have been modified to count as settled: it is then cached, or sent with `sendfile`.
    /// Default 2 s, the coarsest timestamp resolution in use (FAT). A lower value is only correct if timestamps are
    /// known to be exact.
    pub settled: Duration,
}

impl CacheLimits {
    /// Sets [`file`](Self::file).
    #[must_use]
    pub fn with_file(self, file: u64) -> CacheLimits {
        CacheLimits { file, ..self }
    }

    /// Sets [`total`](Self::total).
    #[must_use]
    pub fn with_total(self, total: usize) -> CacheLimits {
        CacheLimits { total, ..self }
    }

    /// Sets [`entries`](Self::entries).
    #[must_use]
    pub fn with_entries(self, entries: usize) -> CacheLimits {
        CacheLimits { entries, ..self }
    }

    /// Sets [`settled`](Self::settled).
    #[must_use]
    pub fn with_settled(self, settled: Duration) -> CacheLimits {
        CacheLimits { settled, ..self }
    }
}

impl Default for CacheLimits {
    fn default() -> CacheLimits {
        CacheLimits { file: 65_536, total: 16 << 20, entries: 8_192, settled: Duration::from_secs(2) }
    }
}

impl CacheLimits {
    /// Whether a file that was just opened should be read into the cache: it is small, and any later change would be
    /// visible.
    fn wants(&self, identity: &FileId) -> bool {
        identity.size <= self.file && self.total > 0 && self.is_settled(identity)
    }

    /// Whether any later change would be visible in the timestamps.
    fn is_settled(&self, identity: &FileId) -> bool {
        let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
        // Signed, since a file may be older than the epoch.
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let latest = nanos(now).saturating_sub(nanos(self.settled));
        let long_ago = |(seconds, nanos): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos) <= latest;
        long_ago(identity.mtime) && long_ago(identity.ctime)
    }
}

/// Opening through a cache of its own, for one event-loop thread.
#[derive(Debug)]
pub struct Local {
    root: Arc<Root>,
    cache: RefCell<Cache>,
}

impl Local {
    /// Opens files beneath `root`.
    #[must_use]
    pub fn new(root: Arc<Root>, limits: CacheLimits) -> Local {
        Local { root, cache: RefCell::new(Cache::new(limits)) }
    }
}

/// Opens files through a cache that threads share. No system call is made under its lock.
#[derive(Debug)]
pub struct Shared {
    root: Arc<Root>,
    cache: Mutex<Cache>,
}

impl Shared {
    /// Opens files beneath `root`.
    #[must_use]
    pub fn new(root: Arc<Root>, limits: CacheLimits) -> Shared {
        Shared { root, cache: Mutex::new(Cache::new(limits)) }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            // A thread has panicked in the middle of a change. Everything in the cache can be read again.
            self.cache.clear_poison();
            let mut cache = poisoned.into_inner();
            cache.clear();
            cache
        })
    }
}

impl<C: HasCache> Files for C {
    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        open(self, path)
    }

    fn try_open(&self, path: &[u8], only_file: bool) -> Attempt {
        try_open(self, path, only_file)
    }

    fn open_later(&self, path: &[u8], only_file: bool) -> Option<OpenJob> {
        let (hit, limits) = self.with(|cache| (cache.find(path), cache.limits.clone()));
        Some(OpenJob { root: Arc::clone(self.root()), limits, path: path.into(), only_file, hit })
    }

    fn finish(&self, outcome: OpenOutcome) -> Result<(Opened, OpenFile), FsError> {
        let OpenOutcome { path, only_file: is_only_file, hit, found } = outcome;
        let found = take(self, &path, hit, found, Check::Before);
        if is_only_file { only_file(found) } else { found }
    }

    fn arrived(&self) {
        if C::EPOCHS {
            self.with(Cache::arrived);
        }
    }
}

fn only_file(found: Result<(Opened, OpenFile), FsError>) -> Result<(Opened, OpenFile), FsError> {
    match found {
        Ok((_, OpenFile::Directory(_))) => Err(FsError::NotFound),
        other => other,
    }
}

/// How the two variants access their cache.
trait HasCache {
    /// Whether checks are valid for an epoch.
    const EPOCHS: bool;
    fn root(&self) -> &Arc<Root>;
    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R;
}

impl HasCache for Local {
    const EPOCHS: bool = true;

    fn root(&self) -> &Arc<Root> {
        &self.root
    }

    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R {
        act(&mut self.cache.borrow_mut())
    }
}

impl HasCache for Shared {
    const EPOCHS: bool = false;

    fn root(&self) -> &Arc<Root> {
        &self.root
    }

    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R {
        act(&mut self.lock())
    }
}

fn open<C: HasCache>(files: &C, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
    let hit = match files.with(|cache| cache.find(path)) {
        Some(hit) if C::EPOCHS && hit.checked => return Ok(in_memory(hit.cached)),
        hit => hit,
    };
    let limits = files.with(|cache| cache.limits.clone());
    let found = find(files.root(), &limits, path, hit.as_ref(), Wait::Yes).unwrap_or(Found::EXHAUSTED);
    take(files, path, hit, found, Check::Now)
}

/// Like [`open`], without waiting for a disk.
fn try_open<C: HasCache>(files: &C, path: &[u8], is_only_file: bool) -> Attempt {
    let (hit, limits) = files.with(|cache| (cache.find(path), cache.limits.clone()));
    let hit = match hit {
        Some(hit) if C::EPOCHS && hit.checked => return Attempt::Done(Ok(in_memory(hit.cached))),
        hit => hit,
    };
    let root = files.root();
    let found = if root.is_remote_itself() { None } else { find(root, &limits, path, hit.as_ref(), Wait::No) };
    let Some(found) = found else {
        let (root, path) = (Arc::clone(root), path.into());
        return Attempt::Later(OpenJob { root, limits, path, only_file: is_only_file, hit });
    };
    let found = take(files, path, hit, found, Check::Now);
    Attempt::Done(if is_only_file { only_file(found) } else { found })
}

/// When a file was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// In this epoch, without waiting.
    Now,
    /// Before, by a thread: other requests may have arrived since.
    Before,
}

/// Updates the cache with what was found; `hit` is its entry for this path.
fn take<C: HasCache>(
    files: &C,
    path: &[u8],
    hit: Option<Hit>,
    found: Found,
    check: Check,
) -> Result<(Opened, OpenFile), FsError> {
    match (found, hit) {
        (Found::Same, Some(hit)) => {
            if check == Check::Now {
                files.with(|cache| cache.confirm(&hit));
            }
            Ok(in_memory(hit.cached))
        }
        (Found::Same, None) => Err(FsError::Failed),
        (Found::Other(fresh), hit) => {
            if let Some(hit) = hit {
                files.with(|cache| cache.forget(&hit));
            }
            let fresh = fresh?;
            if let Fresh::Read { cached, storage, wanted: true, .. } = &fresh {
                let is_slow = check == Check::Before || *storage == Storage::Remote;
                files.with(|cache| cache.insert(path, cached, check, is_slow));
            }
            Ok(fresh.opened())
        }
    }
}

/// Looks at what is at `path` now; `hit` is what was there before. If there is nothing, but the root directory was
/// replaced since it was opened, looks again in the new one. `None`: this requires waiting for a disk.
fn find(root: &Root, limits: &CacheLimits, path: &[u8], hit: Option<&Hit>, wait: Wait) -> Option<Found> {
    let now = root.now();
    root.look_up_in_time(now);
    let found = look(root, limits, path, hit, wait)?;
    if matches!(found, Found::Other(Err(FsError::NotFound))) && root.look_up_for_missing(now) {
        return look(root, limits, path, None, wait);
    }
    Some(found)
}

/// Like [`find`], without a second look.
fn look(root: &Root, limits: &CacheLimits, path: &[u8], hit: Option<&Hit>, wait: Wait) -> Option<Found> {
    let known = hit.map(|hit| hit.cached.identity);
    let is_quick = wait == Wait::Yes || hit.is_some_and(|hit| !hit.slow);
    if known.is_some() && is_quick && root.identify(path) == known {
        return Some(Found::Same);
    }
    let outcome = match wait {
        Wait::Yes => root.open_at(path),
        Wait::No => root.open_in_memory(path)?,
    };
    let (fd, opened, identity) = match outcome {
        Ok((_, _, identity)) if known == Some(identity) => return Some(Found::Same),
        Ok(outcome) => outcome,
        Err(error) => return Some(Found::Other(Err(error))),
    };
    let storage = Storage::of(fd.as_fd(), identity.dev);
    if wait == Wait::No && storage == Storage::Remote {
        return None;
    }
    let held = |opened, held| Some(Found::Other(Ok(Fresh::Held { opened, held, storage, dev: identity.dev })));
    if opened.kind == Kind::Directory {
        return held(opened, OpenFile::Directory(Directory::new(fd, root.symlinks())));
    }
    let digests = root.digests();
    let wanted = limits.wants(&identity);
    // A file that may change again within one tick of its time stamps is sent from the bytes that were hashed.
    let at_once = digests.is_some() && identity.size <= digest::AT_ONCE;
    if wanted || at_once {
        if let Some(bytes) = read_whole(&fd, &identity, storage, wait)? {
            let opened = Opened { digest: digests.map(|digests| digests.of_bytes(&bytes)), ..opened };
            let cached = Arc::new(Cached { bytes, opened, identity });
            return Some(Found::Other(Ok(Fresh::Read { cached, wanted, storage, dev: identity.dev })));
        }
    }
    let is_settled = limits.is_settled(&identity);
    let digest = digests.filter(|_| is_settled).and_then(|digests| digests.of(&fd, &identity));
    let file = DiskFile { fd, id: Some(identity), storage };
    held(Opened { digest, ..opened }, if is_settled { OpenFile::File(file) } else { OpenFile::Changing(file) })
}

fn in_memory(cached: Arc<Cached>) -> (Opened, OpenFile) {
    (cached.opened, OpenFile::Cached(cached))
}

/// The content, if the file has this identity from the first byte to the last. `None`: reading it requires waiting for a
/// disk.
fn read_whole(fd: &OwnedFd, identity: &FileId, storage: Storage, wait: Wait) -> Option<Option<Box<[u8]>>> {
    let reads = match (wait, storage) {
        (Wait::Yes, _) | (Wait::No, Storage::Memory) => Wait::Yes,
        (Wait::No, Storage::Local { tells: true }) => Wait::No,
        (Wait::No, Storage::Local { tells: false } | Storage::Remote) => return None,
    };
    let Ok(size) = usize::try_from(identity.size) else { return Some(None) };
    let mut bytes = vec![0; size].into_boxed_slice();
    let mut filled = 0;
    while filled < bytes.len() {
        let read = match reads {
            Wait::Yes => pread(fd, &mut bytes[filled..], filled as u64),
            Wait::No => match read_in_memory(fd.as_fd(), identity.dev, &mut bytes[filled..], filled as u64) {
                Err(NotInMemory::OnDisk | NotInMemory::Unknown) => return None,
                Err(NotInMemory::Failed) => Err(Errno::IO),
                Ok(n) => Ok(n),
            },
        };
        match read {
            Ok(0) => return Some(None),
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(_) => return Some(None),
        }
    }
    let after = fstat(fd).ok().as_ref().and_then(examine);
    Some(after.is_some_and(|(_, after)| after == *identity).then_some(bytes))
}

/// The entries, in a ring with a clock hand: entries that were used since the hand last passed are kept.
///
/// Invariant: `index[entries[i].path] == i` for each `i`, and nothing else is in `index`; `charged` is
/// the sum of all charges.
#[derive(Debug)]
struct Cache {
    limits: CacheLimits,
    index: HashMap<Arc<[u8]>, usize>,
    entries: Vec<Entry>,
    hand: usize,
    charged: usize,
    epoch: u64,
    /// An entry was checked in this epoch.
    checked: bool,
}

#[derive(Debug)]
struct Entry {
    path: Arc<[u8]>,
    cached: Arc<Cached>,
    /// The epoch of its last check.
    checked: u64,
    used: bool,
    /// Checking it may require waiting for a disk.
    slow: bool,
}

impl Entry {
    fn charge(&self) -> usize {
        charge(self.path.len(), self.cached.bytes.len())
    }
}

fn charge(path: usize, bytes: usize) -> usize {
    /// The approximate bookkeeping of one entry in bytes.
    const OVERHEAD: usize = 256;
    path + bytes + OVERHEAD
}

/// An entry as it was found; under [`Shared`] it may have gone meanwhile.
#[derive(Debug)]
struct Hit {
    at: usize,
    cached: Arc<Cached>,
    checked: bool,
    slow: bool,
}

impl Cache {
    fn new(limits: CacheLimits) -> Cache {
        Cache { limits, index: HashMap::new(), entries: Vec::new(), hand: 0, charged: 0, epoch: 0, checked: false }
    }

    fn arrived(&mut self) {
        if self.checked {
            self.epoch += 1;
            self.checked = false;
        }
    }

    fn find(&mut self, path: &[u8]) -> Option<Hit> {
        let at = *self.index.get(path)?;
        let entry = &mut self.entries[at];
        entry.used = true;
        let checked = self.checked && entry.checked == self.epoch;
        Some(Hit { at, cached: Arc::clone(&entry.cached), checked, slow: entry.slow })
    }

    /// Records that the file at the entry's path is still the one that was read.
    fn confirm(&mut self, hit: &Hit) {
        let epoch = self.epoch;
        if let Some(entry) = self.entry(hit) {
            entry.checked = epoch;
            // Nothing was waited for.
            entry.slow = false;
            self.checked = true;
        }
    }

    fn forget(&mut self, hit: &Hit) {
        if self.entry(hit).is_some() {
            self.remove(hit.at);
        }
    }

    fn entry(&mut self, hit: &Hit) -> Option<&mut Entry> {
        self.entries.get_mut(hit.at).filter(|entry| Arc::ptr_eq(&entry.cached, &hit.cached))
    }

    fn insert(&mut self, path: &[u8], cached: &Arc<Cached>, check: Check, slow: bool) {
        if let Some(&at) = self.index.get(path) {
            self.remove(at);
        }
        let charge = charge(path.len(), cached.bytes.len());
        if charge > self.limits.total || self.limits.entries == 0 {
            return;
        }
        while self.charged + charge > self.limits.total || self.entries.len() >= self.limits.entries {
            self.evict();
        }
        let path: Arc<[u8]> = path.into();
        self.index.insert(Arc::clone(&path), self.entries.len());
        let is_checked = check == Check::Now;
        // No epoch is the last.
        let checked = if is_checked { self.epoch } else { u64::MAX };
        self.entries.push(Entry { path, cached: Arc::clone(cached), checked, used: false, slow });
        self.charged += charge;
        self.checked |= is_checked;
    }

    /// Evicts one entry. Each entry that is passed over was used since, so its use pays the cost.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            if !std::mem::take(&mut self.entries[self.hand].used) {
                return self.remove(self.hand);
            }
            self.hand += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let entry = self.entries.swap_remove(at);
        self.index.remove(&entry.path);
        self.charged -= entry.charge();
        if let Some(moved) = self.entries.get(at) {
            *self.index.get_mut(&moved.path).expect("every entry is in the index") = at;
        }
        debug_assert_eq!(self.index.len(), self.entries.len());
    }

    fn clear(&mut self) {
        *self = Cache { epoch: self.epoch + 1, ..Cache::new(self.limits.clone()) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use sanserve_os::Symlinks;

    /// Caches files immediately, since the tests create them.
    fn eager() -> CacheLimits {
        CacheLimits::default().with_settled(Duration::ZERO)
    }

    fn dir() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "aaaa").unwrap();
        dir
    }

    fn root(dir: &TempDir, rule: Symlinks) -> Arc<Root> {
        Arc::new(Root::open(dir.path(), rule).unwrap())
    }

    fn local(dir: &TempDir, limits: CacheLimits) -> Local {
        Local::new(root(dir, Symlinks::Follow), limits)
    }

    fn cached(files: &dyn Files, path: &[u8]) -> Arc<Cached> {
        match files.open(path) {
            Ok((opened, OpenFile::Cached(cached))) => {
                assert_eq!(opened.len, cached.bytes().len() as u64);
                cached
            }
            other => panic!("not cached: {other:?}"),
        }
    }

    /// Replaces a file by another one, which differs in the inode even if the timestamps are equal.
    fn replace(dir: &TempDir, name: &str, content: &str) {
        fs::write(dir.path().join(".new"), content).unwrap();
        fs::rename(dir.path().join(".new"), dir.path().join(name)).unwrap();
    }

    #[test]
    fn a_second_open_hits_the_cache() {
        let dir = dir();
        for rule in [Symlinks::Follow, Symlinks::Inside, Symlinks::Never] {
            let local = Local::new(root(&dir, rule), eager());
            let shared = Shared::new(root(&dir, rule), eager());
            for files in [&local as &dyn Files, &shared] {
                let first = cached(files, b"a");
                assert_eq!(first.bytes(), b"aaaa");
                assert!(Arc::ptr_eq(&first, &cached(files, b"a")));
                assert!(Arc::ptr_eq(&first, &cached(files, b"a")));
            }
        }
    }

    #[test]
    fn a_changed_file_is_noticed_immediately() {
        let dir = dir();
        for rule in [Symlinks::Follow, Symlinks::Inside, Symlinks::Never] {
            let local = Local::new(root(&dir, rule), eager());
            let shared = Shared::new(root(&dir, rule), eager());
            for files in [&local as &dyn Files, &shared] {
                for content in ["bbbb", "cc", "", "dddd"] {
                    replace(&dir, "a", content);
                    local.arrived();
                    assert_eq!(cached(files, b"a").bytes(), content.as_bytes());
                }
                fs::remove_file(dir.path().join("a")).unwrap();
                local.arrived();
                assert!(matches!(files.open(b"a"), Err(FsError::NotFound)));
                fs::create_dir(dir.path().join("a")).unwrap();
                assert!(matches!(files.open(b"a"), Ok((_, OpenFile::Directory(_)))));
                assert!(matches!(files.open_file(b"a"), Err(FsError::NotFound)));
                fs::remove_dir(dir.path().join("a")).unwrap();
                fs::write(dir.path().join("a"), "aaaa").unwrap();
            }
        }
    }

    #[test]
    fn a_link_that_leads_out_is_noticed_immediately() {
        let dir = dir();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("root/in"), "in").unwrap();
        symlink("in", dir.path().join("root/link")).unwrap();
        let root = Arc::new(Root::open(&dir.path().join("root"), Symlinks::Inside).unwrap());
        let files = Local::new(root, eager());
        assert_eq!(cached(&files, b"link").bytes(), b"in");
        fs::remove_file(dir.path().join("root/link")).unwrap();
        symlink("../a", dir.path().join("root/link")).unwrap();
        files.arrived();
        assert!(matches!(files.open(b"link"), Err(FsError::Denied)));
    }

    #[test]
    fn a_check_is_valid_until_bytes_arrive() {
        let dir = dir();
        let files = local(&dir, eager());
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        files.arrived();
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        // A change after the check and before other bytes arrive: the requests in progress came earlier.
        replace(&dir, "a", "bbbb");
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        files.arrived();
        assert_eq!(cached(&files, b"a").bytes(), b"bbbb");
        // An epoch without a check need not be followed by another.
        files.arrived();
        files.arrived();
        let epoch = files.cache.borrow().epoch;
        files.arrived();
        assert_eq!(files.cache.borrow().epoch, epoch);
        // Threads have no epochs.
        let shared = Shared::new(root(&dir, Symlinks::Follow), eager());
        assert_eq!(cached(&shared, b"a").bytes(), b"bbbb");
        replace(&dir, "a", "cccc");
        assert_eq!(cached(&shared, b"a").bytes(), b"cccc");
    }

    #[test]
    fn a_file_modified_recently_or_in_the_future_is_not_cached() {
        let dir = dir();
        let files = local(&dir, CacheLimits::default().with_settled(Duration::from_secs(3_600)));
        assert!(matches!(files.open(b"a"), Ok((_, OpenFile::Changing(_)))));
        let files = local(&dir, eager());
        let file = fs::File::options().write(true).open(dir.path().join("a")).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(3_600)).unwrap();
        assert!(matches!(files.open(b"a"), Ok((_, OpenFile::Changing(_)))));
    }

    #[test]
    fn limits_hold_below_at_and_above() {
        let dir = dir();
        let caches = |limits: CacheLimits| matches!(local(&dir, limits).open(b"a"), Ok((_, OpenFile::Cached(_))));
        let file = |file| CacheLimits { file, ..eager() };
        assert_eq!([3, 4, 5].map(|n| caches(file(n))), [false, true, true]);
        assert!(!caches(CacheLimits { total: 0, ..eager() }));

        let one = charge(1, 4);
        let kept = |total| {
            let files = local(&dir, CacheLimits { total, ..eager() });
            files.open(b"a").unwrap();
            files.cache.borrow().entries.len()
        };
        assert_eq!([one - 1, one, one + 1].map(kept), [0, 1, 1]);
    }

    #[test]
    fn evicts_entries_but_keeps_used_ones() {
        let dir = dir();
        for i in 0..100 {
            fs::write(dir.path().join(i.to_string()), i.to_string()).unwrap();
        }
        let limits = CacheLimits { entries: 10, ..eager() };
        let files = local(&dir, limits);
        let hot = cached(&files, b"a");
        for i in 0..100 {
            assert_eq!(cached(&files, i.to_string().as_bytes()).bytes(), i.to_string().as_bytes());
            assert!(Arc::ptr_eq(&hot, &cached(&files, b"a")), "{i}");
        }
        let cache = files.cache.borrow();
        assert_eq!((cache.entries.len(), cache.index.len()), (10, 10));
        assert_eq!(cache.charged, cache.entries.iter().map(Entry::charge).sum());
        assert!(cache.entries.iter().enumerate().all(|(i, entry)| cache.index[&entry.path] == i));
    }

    #[test]
    fn a_poisoned_lock_is_recovered() {
        let dir = dir();
        let shared = Shared::new(root(&dir, Symlinks::Follow), eager());
        cached(&shared, b"a");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _held = shared.cache.lock().unwrap();
                std::panic::resume_unwind(Box::new("on purpose"));
            });
            assert!(thread.join().is_err());
        });
        assert_eq!(cached(&shared, b"a").bytes(), b"aaaa");
        assert!(!shared.cache.is_poisoned());
    }
}

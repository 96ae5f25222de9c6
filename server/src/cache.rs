//! The small-file cache, which never serves a stale byte, and the two ways to open through it.
//!
//! **Nothing is believed.** An entry is served only if a `stat` of its path says that the file there
//! is the very one that was read: same device, inode, size, and times of change to the nanosecond.
//! Permissions are covered, for they change the ctime, and so is the path, for the `stat` walks it.
//! Where the rule for links is not [`Symlinks::Follow`](sanserve_os::Symlinks), the safe open is the check.
//!
//! **One check serves many.** On an event loop, requests that have been received are answered one
//! after the other. A check made after the last byte of all of them had arrived is as good as one
//! made for each: the answer shows a state that the file had after the request was received and
//! before it was answered, and more no server can promise. So the loop calls [`Local::arrived`]
//! when it has read bytes from any peer; that begins a new epoch, and a check is good for its epoch.
//! [`Shared`], with its threads, has no such order, and checks each time.
//!
//! **Racy time stamps.** Stamps are coarse: a file rewritten twice within one tick of the file
//! system's clock looks the same. So, as git's index does, a file that was changed less than two
//! seconds before it is read, or in the future, is not cached but served from its descriptor.
//!
//! What is left: a process that writes through `mmap` moves the time stamps only when the kernel
//! gets to it, and a clock set back by more than those seconds can hide a change.
//!
//! That something is not there is not cached, and neither are directories.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use rustix::io::{Errno, pread};
use sanserve_core::{FsError, Kind, Opened};

use sanserve_os::Directory;
use sanserve_os::digest;
use sanserve_os::{FileId, Root, examine};

/// Opens what requests ask for.
pub trait Files {
    /// Opens a regular file or a directory; the rules for `path` are those of
    /// [`Action::Open`](sanserve_core::Action::Open).
    ///
    /// # Errors
    /// As [`FsError`] tells them apart.
    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError>;

    /// Opens a regular file; a directory counts as not found.
    ///
    /// # Errors
    /// As [`FsError`] tells them apart.
    fn open_file(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError>;

    /// Something has come of a peer, or a handler was called: checks that were made before do not count for what is
    /// opened from here on. To be called after each read and before anything is opened for what it brought.
    fn arrived(&self) {}
}

/// What was opened, kept for as long as an exchange needs it.
#[derive(Debug)]
pub enum OpenFile {
    /// A regular file, in memory.
    Cached(Arc<Cached>),
    /// A regular file, to be read.
    File(OwnedFd),
    /// The same, changed so lately that it may well change again while it is sent.
    Changing(OwnedFd),
    /// A directory, to be listed.
    Directory(Directory),
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

/// Bounds on one cache.
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
    /// Bytes of one file; a larger one is sent from its descriptor. Default 65,536.
    pub file: u64,
    /// Bytes of all files, paths and bookkeeping together; others make room. 0: no cache. Default 16 MiB.
    pub total: usize,
    /// The number of files; others make room. Default 8,192.
    pub entries: usize,
    /// For how long a file must have been left alone before it is cached, or lent to the kernel to be
    /// sent from its own memory. Default 2 s, the coarsest time stamp in use (FAT). Less is right only where
    /// stamps are known to be exact.
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

/// Opening through a cache of its own, for one event-loop thread.
#[derive(Debug)]
pub struct Local {
    root: Arc<Root>,
    cache: RefCell<Cache>,
}

impl Local {
    /// Opens beneath `root`.
    #[must_use]
    pub fn new(root: Arc<Root>, limits: CacheLimits) -> Local {
        Local { root, cache: RefCell::new(Cache::new(limits)) }
    }
}

impl Files for Local {
    fn arrived(&self) {
        self.cache.borrow_mut().arrived();
    }

    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        open(&self.root, self, path)
    }

    fn open_file(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        only_file(self.open(path))
    }
}

/// Opening through a cache that threads share. No system call is made under its lock.
#[derive(Debug)]
pub struct Shared {
    root: Arc<Root>,
    cache: Mutex<Cache>,
}

impl Shared {
    /// Opens beneath `root`.
    #[must_use]
    pub fn new(root: Arc<Root>, limits: CacheLimits) -> Shared {
        Shared { root, cache: Mutex::new(Cache::new(limits)) }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            // Somebody panicked halfway through a change. There is nothing in it that cannot be read again.
            self.cache.clear_poison();
            let mut cache = poisoned.into_inner();
            cache.clear();
            cache
        })
    }
}

impl Files for Shared {
    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        open(&self.root, self, path)
    }

    fn open_file(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        only_file(self.open(path))
    }
}

fn only_file(found: Result<(Opened, OpenFile), FsError>) -> Result<(Opened, OpenFile), FsError> {
    match found {
        Ok((_, OpenFile::Directory(_))) => Err(FsError::NotFound),
        other => other,
    }
}

/// How the two get at their cache.
trait Access {
    /// Whether the checks of an epoch count.
    const EPOCHS: bool;
    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R;
}

impl Access for Local {
    const EPOCHS: bool = true;
    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R {
        act(&mut self.cache.borrow_mut())
    }
}

impl Access for Shared {
    const EPOCHS: bool = false;
    fn with<R>(&self, act: impl FnOnce(&mut Cache) -> R) -> R {
        act(&mut self.lock())
    }
}

fn open<A: Access>(root: &Root, access: &A, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
    let hit = match access.with(|cache| cache.find(path)) {
        Some(hit) if A::EPOCHS && hit.checked => return Ok(in_memory(hit.cached)),
        hit => hit,
    };
    let now = root.now();
    root.look_up_in_time(now);
    match open_checked(root, access, path, hit) {
        Err(FsError::NotFound) if root.look_up_for_missing(now) => open_checked(root, access, path, None),
        found => found,
    }
}

/// Opens what lies at `path` now; `hit` is what is said to be there.
fn open_checked<A: Access>(
    root: &Root,
    access: &A,
    path: &[u8],
    hit: Option<Hit>,
) -> Result<(Opened, OpenFile), FsError> {
    let hit = match hit {
        Some(hit) if root.identify(path) == Some(hit.cached.identity) => {
            access.with(|cache| cache.confirm(&hit));
            return Ok(in_memory(hit.cached));
        }
        hit => hit,
    };
    let outcome = root.open_at(path);
    if let Some(hit) = hit {
        if matches!(&outcome, Ok((_, _, identity)) if *identity == hit.cached.identity) {
            access.with(|cache| cache.confirm(&hit));
            return Ok(in_memory(hit.cached));
        }
        access.with(|cache| cache.forget(&hit));
    }
    let (fd, opened, identity) = outcome?;
    if opened.kind == Kind::Directory {
        return Ok((opened, OpenFile::Directory(Directory::new(fd, root.symlinks()))));
    }
    let digests = root.digests();
    let wanted = access.with(|cache| cache.wants(&identity));
    // A file that may change again within the tick of its stamps is sent from the bytes that were hashed.
    let at_once = digests.is_some() && identity.size <= digest::AT_ONCE;
    if wanted || at_once {
        if let Some(bytes) = read_whole(&fd, &identity) {
            let opened = Opened { digest: digests.map(|_| digest::of_bytes(&bytes)), ..opened };
            let cached = Arc::new(Cached { bytes, opened, identity });
            if wanted {
                access.with(|cache| cache.insert(path, &cached));
            }
            return Ok(in_memory(cached));
        }
    }
    if !access.with(|cache| cache.is_settled(&identity)) {
        return Ok((opened, OpenFile::Changing(fd)));
    }
    let digest = digests.and_then(|digests| digests.of(&fd, &identity));
    Ok((Opened { digest, ..opened }, OpenFile::File(fd)))
}

fn in_memory(cached: Arc<Cached>) -> (Opened, OpenFile) {
    (cached.opened, OpenFile::Cached(cached))
}

/// The content, if it is that of this identity from the first byte to the last.
fn read_whole(fd: &OwnedFd, identity: &FileId) -> Option<Box<[u8]>> {
    let mut bytes = vec![0; usize::try_from(identity.size).ok()?].into_boxed_slice();
    let mut filled = 0;
    while filled < bytes.len() {
        match pread(fd, &mut bytes[filled..], filled as u64) {
            Ok(0) => return None,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    let (_, after) = examine(&fstat(fd).ok()?)?;
    (after == *identity).then_some(bytes)
}

/// The entries, in a ring that a hand goes round: what was used since it last passed stays.
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
    /// Some entry was checked in this epoch.
    checked: bool,
}

#[derive(Debug)]
struct Entry {
    path: Arc<[u8]>,
    cached: Arc<Cached>,
    /// The epoch of its last check.
    checked: u64,
    used: bool,
}

impl Entry {
    fn charge(&self) -> usize {
        charge(self.path.len(), self.cached.bytes.len())
    }
}

fn charge(path: usize, bytes: usize) -> usize {
    /// About what the bookkeeping of one entry takes.
    const OVERHEAD: usize = 256;
    path + bytes + OVERHEAD
}

/// An entry as it was found; under [`Shared`] it may have gone meanwhile.
struct Hit {
    at: usize,
    cached: Arc<Cached>,
    checked: bool,
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
        Some(Hit { at, cached: Arc::clone(&entry.cached), checked: self.checked && entry.checked == self.epoch })
    }

    /// The file at the entry's path has just been seen to be the one that was read.
    fn confirm(&mut self, hit: &Hit) {
        let epoch = self.epoch;
        if let Some(entry) = self.entry(hit) {
            entry.checked = epoch;
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

    /// Whether a file that was just opened is to be read into the cache: it is small, and a change
    /// from now on would show.
    fn wants(&self, identity: &FileId) -> bool {
        identity.size <= self.limits.file && self.limits.total > 0 && self.is_settled(identity)
    }

    /// Whether a change from now on would show.
    fn is_settled(&self, identity: &FileId) -> bool {
        let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return false };
        // Signed, since a file may be older than the epoch.
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let latest = nanos(now).saturating_sub(nanos(self.limits.settled));
        let long_ago = |(seconds, nanos): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos) <= latest;
        long_ago(identity.mtime) && long_ago(identity.ctime)
    }

    fn insert(&mut self, path: &[u8], cached: &Arc<Cached>) {
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
        self.entries.push(Entry { path, cached: Arc::clone(cached), checked: self.epoch, used: false });
        self.charged += charge;
        self.checked = true;
    }

    /// Drops one entry. Each that is passed over was used since, so the cost is paid by its use.
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

    /// Caches at once: the tests run on time stamps of now.
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

    /// Replaces a file by another one, which no time stamp has to tell apart: the inode does.
    fn replace(dir: &TempDir, name: &str, content: &str) {
        fs::write(dir.path().join(".new"), content).unwrap();
        fs::rename(dir.path().join(".new"), dir.path().join(name)).unwrap();
    }

    #[test]
    fn a_second_open_finds_the_first() {
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
    fn a_changed_file_is_seen_at_once() {
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
    fn a_link_turned_outwards_is_seen_at_once() {
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
    fn one_check_is_good_until_bytes_arrive() {
        let dir = dir();
        let files = local(&dir, eager());
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        files.arrived();
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        // After the check, and before anything else arrived: the requests in progress came before this.
        replace(&dir, "a", "bbbb");
        assert_eq!(cached(&files, b"a").bytes(), b"aaaa");
        files.arrived();
        assert_eq!(cached(&files, b"a").bytes(), b"bbbb");
        // An epoch without a check needs no other to follow.
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
    fn a_file_just_changed_or_from_the_future_is_not_cached() {
        let dir = dir();
        let files = local(&dir, CacheLimits::default().with_settled(Duration::from_secs(3_600)));
        assert!(matches!(files.open(b"a"), Ok((_, OpenFile::Changing(_)))));
        let files = local(&dir, eager());
        let file = fs::File::options().write(true).open(dir.path().join("a")).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(3_600)).unwrap();
        assert!(matches!(files.open(b"a"), Ok((_, OpenFile::Changing(_)))));
    }

    #[test]
    fn limits_hold_one_below_at_and_one_above() {
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
    fn makes_room_but_keeps_what_is_used() {
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

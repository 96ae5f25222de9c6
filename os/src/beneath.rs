//! Opening files beneath a root, under one of three rules for symbolic links.
//!
//! Paths come from the core: without a leading `/`, without empty, `.` or `..` components, without NUL, and empty for
//! the root itself. All paths, including those of index pages, are resolved from the descriptor of the root, so that
//! one rule applies to all of them. Nothing is decided by comparing path strings.
//!
//! Every open is `O_RDONLY | O_NONBLOCK | O_NOCTTY`, so that neither a FIFO nor a device blocks the server, and is
//! checked afterwards: anything but a regular file or a directory counts as not found. Reading is not done here (see
//! `cache`, `send`, `directory`).

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use sanserve_core::{FsError, Kind, Opened};

use crate::digest::Digests;
use crate::identity::{FileId, LOOK, examine};
use crate::storage::Storage;
use crate::walk;

/// Which symbolic links are followed beneath a root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// All, including those that lead out of the root. The default, as in Python.
    #[default]
    Follow,
    /// Those that stay inside the root. A link with an absolute target counts as leading out, even if the target is
    /// inside, as with `openat2(RESOLVE_BENEATH)`.
    Inside,
    /// None, neither as the last component nor on the way. The path of the root itself may contain links.
    Never,
}

/// The root directory of all served files.
///
/// The root is a *name*. It is looked up again at most a second after the last time, and also when a path beneath it
/// is missing (at a limited rate, in a flood of such requests). So a symbolic link that is changed to another tree,
/// or a directory that is removed and created again, is followed. While the name leads nowhere, all files are
/// missing.
#[derive(Debug)]
pub struct Root {
    /// The directory that the name last led to. `None`: it led nowhere.
    held: RwLock<Option<Arc<Top>>>,
    /// The absolute path; symbolic links in it are not resolved.
    path: PathBuf,
    /// Whether the path still leads to the directory that was opened, so that it can be looked up again.
    is_name: bool,
    /// When the root was opened.
    opened: Instant,
    /// When the name is due to be looked up again, in milliseconds since then.
    due: AtomicU64,
    /// When all of [`MISSES`] are available again, in milliseconds since then.
    free: AtomicU64,
    symlinks: Symlinks,
    /// Hashes of content, if enabled.
    digests: OnceLock<Digests>,
    /// `openat2` is not available (before Linux 5.6, under an old seccomp profile, on another system), so that paths
    /// are walked component by component. Determined once.
    by_hand: bool,
    /// Names can be resolved without waiting (`RESOLVE_CACHED`, Linux 5.12). Determined once.
    resolves_cached: bool,
    /// Paths that are known to be on a [remote](Storage::Remote) file system.
    remote: RwLock<RemotePaths>,
    /// There is such a path.
    has_remote: AtomicBool,
}

impl Root {
    /// Opens the root. A relative path is resolved from the current directory at this time, as in Python.
    ///
    /// # Errors
    /// If it is not a directory, or cannot be read.
    pub fn open(path: &Path, symlinks: Symlinks) -> io::Result<Root> {
        let top = Top::open(path)?;
        let by_hand = !openat2_works(top.fd.as_fd());
        let resolves_cached = !by_hand && cached_works(top.fd.as_fd());
        let absolute = name_of(path);
        // The current directory may have been removed, or its name may lead elsewhere.
        let is_name = statat(CWD, &absolute, AtFlags::empty()).is_ok_and(|stat| top.is(&stat));
        let held = RwLock::new(Some(Arc::new(top)));
        let due = AtomicU64::new(LOOK_UP_EVERY);
        Ok(Root {
            held,
            path: absolute,
            is_name,
            opened: Instant::now(),
            due,
            free: AtomicU64::new(0),
            symlinks,
            digests: OnceLock::new(),
            by_hand,
            resolves_cached,
            remote: RwLock::default(),
            has_remote: AtomicBool::new(false),
        })
    }

    /// An empty root, for a server without files.
    #[must_use]
    pub fn nothing() -> Root {
        Root {
            held: RwLock::new(None),
            path: PathBuf::new(),
            is_name: false,
            opened: Instant::now(),
            due: AtomicU64::new(0),
            free: AtomicU64::new(0),
            symlinks: Symlinks::Never,
            digests: OnceLock::new(),
            by_hand: false,
            resolves_cached: false,
            remote: RwLock::default(),
            has_remote: AtomicBool::new(false),
        }
    }

    /// Enables hashing the content of files that are opened from now on, for entity tags
    /// ([`Etag::Content`](sanserve_core::Etag)). A server calls this when it is bound, if the configuration asks for
    /// it.
    #[cfg(feature = "files")]
    pub fn hash_content(&self) {
        self.digests.get_or_init(Digests::new);
    }

    /// The hashes, if content is hashed.
    #[must_use]
    pub fn digests(&self) -> Option<&Digests> {
        self.digests.get()
    }

    fn top(&self) -> Result<Arc<Top>, Errno> {
        // The lock guards one pointer, which a panic cannot leave half changed.
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Errno::NOENT)
    }

    /// Causes the name to be looked up again with the next request, for callers that know that it has changed. Makes
    /// no system call.
    pub fn look_up_soon(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    /// The time for the two methods below: milliseconds since the root was opened. No system call on common systems.
    #[must_use]
    pub fn now(&self) -> u64 {
        if self.is_name { u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX) } else { 0 }
    }

    /// Looks the name up again if the last time was at least a second ago. Otherwise makes no system call.
    pub fn look_up_in_time(&self, now: u64) {
        if !self.is_name {
            return;
        }
        let due = self.due.load(Ordering::Relaxed);
        if now >= due
            && self.due.compare_exchange(due, now + LOOK_UP_EVERY, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.look_up();
        }
    }

    /// Looks the name up again after a path was missing. Returns `true` if it leads elsewhere now, so that another
    /// try is worthwhile.
    ///
    /// In a flood of requests for missing paths, the rate is limited: 32 look-ups in a row that find nothing new, and
    /// then one per 5 ms. While the name leads nowhere, the look-up is the only cost of a request.
    pub fn look_up_for_missing(&self, now: u64) -> bool {
        if !self.is_name {
            return false;
        }
        let led_somewhere = self.top().is_ok();
        let is_free = self.free.load(Ordering::Relaxed).saturating_sub(now) <= (MISSES - 1) * MISS_EVERY;
        if led_somewhere && !is_free {
            return false;
        }
        let leads_elsewhere = self.look_up();
        if led_somewhere && !leads_elsewhere {
            let spend = |free: u64| Some(free.max(now) + MISS_EVERY);
            let _ = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        }
        leads_elsewhere
    }

    /// Looks the name up again. Returns `true` if it leads elsewhere now.
    fn look_up(&self) -> bool {
        let held = self.top().ok();
        let found = match statat(CWD, &self.path, AtFlags::empty()) {
            Ok(stat) if held.as_ref().is_some_and(|held| held.is(&stat)) => return false,
            Ok(_) => Top::open(&self.path),
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(top) => Some(Arc::new(top)),
            Err(error) => match fs_error(error) {
                FsError::NotFound | FsError::Denied if held.is_some() => None,
                // The result is not known, so the current directory is kept.
                _ => return false,
            },
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = found;
        true
    }

    /// The name: absolute, with symbolic links not resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the directory that is served now, without symbolic links. It is passed to scripts: a program that
    /// opens a file by this path finds the one that was checked, even if the name of the root leads elsewhere by now.
    #[must_use]
    pub fn resolved_path(&self) -> PathBuf {
        let Ok(top) = self.top() else { return self.path.clone() };
        let leads_here = |path: &PathBuf| statat(CWD, path, AtFlags::empty()).is_ok_and(|stat| top.is(&stat));
        let by_descriptor = || std::fs::read_link(format!("/proc/self/fd/{}", top.fd.as_raw_fd())).ok();
        let by_name = || self.path.canonicalize().ok();
        let resolved = by_descriptor().filter(leads_here).or_else(|| by_name().filter(leads_here));
        resolved.unwrap_or_else(|| self.path.clone())
    }

    /// The rule for symbolic links.
    #[must_use]
    pub fn symlinks(&self) -> Symlinks {
        self.symlinks
    }

    /// Opens a regular file or a directory. A directory that may be searched but not read is opened too (on Linux),
    /// so that files in it can be served by name.
    ///
    /// # Errors
    /// As described by [`FsError`].
    pub fn open_at(&self, path: &[u8]) -> Result<(OwnedFd, Opened, FileId), FsError> {
        self.open_as(path, Lookup::Waits).unwrap_or(Err(fs_error(Errno::AGAIN)))
    }

    /// Like [`open_at`](Root::open_at), but only if all names in the path are in memory, so that it does not wait for a
    /// disk. `None`: they may not be, or the file is on a [remote](Storage::Remote) file system. If the system does not
    /// tell what is in memory, this waits.
    #[must_use]
    pub fn open_in_memory(&self, path: &[u8]) -> Option<Result<(OwnedFd, Opened, FileId), FsError>> {
        if self.is_remote(path) {
            return None;
        }
        let lookup = if self.resolves_cached { Lookup::Cached } else { Lookup::Waits };
        self.open_as(path, lookup)
    }

    /// `None`: this would require waiting, or another attempt.
    fn open_as(&self, path: &[u8], lookup: Lookup) -> Option<Result<(OwnedFd, Opened, FileId), FsError>> {
        let fd = match self.raw(path, READ, lookup) {
            Err(Errno::AGAIN) => return None,
            Err(Errno::ACCESS) => match self.open_unreadable(path, lookup)? {
                Ok(fd) => fd,
                Err(error) => return Some(Err(error)),
            },
            Err(error) => return Some(Err(fs_error(error))),
            Ok(fd) => fd,
        };
        Some(Root::opened(fd))
    }

    fn opened(fd: OwnedFd) -> Result<(OwnedFd, Opened, FileId), FsError> {
        let stat = fstat(&fd).map_err(fs_error)?;
        let (opened, identity) = examine(&stat).ok_or(FsError::NotFound)?;
        if opened.kind == Kind::Directory && stat.st_nlink == 0 {
            // The root itself after it was removed: it can still be opened, and is empty.
            return Err(FsError::NotFound);
        }
        Ok((fd, opened, identity))
    }

    /// Whether `path` is known to be on a [remote](Storage::Remote) file system.
    #[must_use]
    pub fn is_remote(&self, path: &[u8]) -> bool {
        self.is_remote_itself() || (self.has_remote.load(Ordering::Relaxed) && self.remote().contain(path))
    }

    /// Whether the root itself is on such a file system, so that even looking up its name may take a long time.
    #[must_use]
    pub fn is_remote_itself(&self) -> bool {
        self.top().is_ok_and(|top| top.storage == Storage::Remote)
    }

    /// Records that `path` is on such a file system, whose device is `dev`. If its directory is as well, this is assumed of
    /// everything in the directory. Waits for a disk.
    pub fn note_remote(&self, path: &[u8], dev: u64) {
        if self.is_remote(path) {
            return;
        }
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the type differs between systems")]
        let is_of_directory = self.stat(parent(path)).is_ok_and(|stat| stat.st_dev as u64 == dev);
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        let RemotePaths { paths, directories } = &mut *remote;
        let (set, of) = if is_of_directory { (directories, parent(path)) } else { (paths, path) };
        if set.len() >= MAX_REMOTE {
            set.clear();
        }
        set.insert(of.into());
        self.has_remote.store(true, Ordering::Relaxed);
    }

    fn remote(&self) -> RwLockReadGuard<'_, RemotePaths> {
        self.remote.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a regular file; a directory counts as not found.
    ///
    /// # Errors
    /// As described by [`FsError`].
    pub fn open_file_at(&self, path: &[u8]) -> Result<(OwnedFd, Opened, FileId), FsError> {
        let found = self.open_at(path)?;
        if found.1.kind == Kind::File { Ok(found) } else { Err(FsError::NotFound) }
    }

    /// The identity of the file at `path`, without opening it. `None`: it is not a file that is served, or it must be
    /// opened to find out (unless the rule is [`Symlinks::Follow`]).
    #[must_use]
    pub fn identify(&self, path: &[u8]) -> Option<FileId> {
        if self.symlinks != Symlinks::Follow {
            return None;
        }
        let stat = statat(&self.top().ok()?.fd, or_dot(path), AtFlags::empty()).ok()?;
        examine(&stat).map(|(_, identity)| identity)
    }

    /// The status of the file at `path`, of any kind. One system call if all symbolic links are followed, else two.
    pub(crate) fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        match self.symlinks {
            Symlinks::Follow => statat(&self.top()?.fd, or_dot(path), AtFlags::empty()),
            Symlinks::Inside | Symlinks::Never => fstat(self.raw(path, LOOK, Lookup::Waits)?),
        }
    }

    /// Opens a directory for entering it. It need not be readable.
    pub(crate) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.raw(path, LOOK | OFlags::DIRECTORY, Lookup::Waits)
    }

    fn raw(&self, path: &[u8], flags: OFlags, lookup: Lookup) -> Result<OwnedFd, Errno> {
        let top = self.top()?;
        let root = top.fd.as_fd();
        match self.symlinks {
            Symlinks::Follow if lookup == Lookup::Waits => openat(root, or_dot(path), flags, Mode::empty()),
            symlinks if self.by_hand => walk::open(root, path, flags, symlinks == Symlinks::Inside),
            symlinks => openat2(root, or_dot(path), flags, symlinks, lookup),
        }
    }

    /// Opens a directory that may be searched, but not read. A regular file is denied; anything else counts as not
    /// found, as if it were readable.
    #[cfg(target_os = "linux")]
    fn open_unreadable(&self, path: &[u8], lookup: Lookup) -> Option<Result<OwnedFd, FsError>> {
        let fd = match self.raw(path, LOOK, lookup) {
            Err(Errno::AGAIN) if lookup == Lookup::Cached => return None,
            Err(_) => return Some(Err(FsError::Denied)),
            Ok(fd) => fd,
        };
        let kind = fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        Some(match kind {
            Ok(FileType::Directory) => Ok(fd),
            Ok(FileType::RegularFile) | Err(_) => Err(FsError::Denied),
            Ok(_) => Err(FsError::NotFound),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn open_unreadable(&self, path: &[u8], _: Lookup) -> Option<Result<OwnedFd, FsError>> {
        Some(match self.stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile | FileType::Directory) | Err(_) => Err(FsError::Denied),
            Ok(_) => Err(FsError::NotFound),
        })
    }
}

/// Makes a path absolute, without `..`: the part up to the last `..` is resolved, including symbolic links, and
/// nothing after it.
fn name_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let parts: Vec<Component<'_>> = absolute.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else { return absolute };
    match parts[..=last].iter().collect::<PathBuf>().canonicalize() {
        Ok(resolved) => resolved.join(parts[last + 1..].iter().collect::<PathBuf>()),
        Err(_) => absolute,
    }
}

/// How often the name of a root is looked up, in milliseconds.
const LOOK_UP_EVERY: u64 = 1_000;

/// How many look-ups in a row are permitted after missing paths, while they find nothing new.
const MISSES: u64 = 32;

/// After how many milliseconds one more is permitted.
const MISS_EVERY: u64 = 5;

/// How many paths and how many directories [`Root::note_remote`] remembers. If there are more, all are forgotten.
const MAX_REMOTE: usize = 1024;

/// Paths beneath a root that are on a [remote](Storage::Remote) file system.
#[derive(Debug, Default)]
struct RemotePaths {
    paths: HashSet<Box<[u8]>>,
    /// Directories whose entries are all on such a file system.
    directories: HashSet<Box<[u8]>>,
}

impl RemotePaths {
    fn contain(&self, path: &[u8]) -> bool {
        self.directories.contains(parent(path)) || self.paths.contains(path)
    }
}

/// The directory that contains `path`.
fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &path[..slash])
}

/// How the names in a path are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// In memory, and on the disk if necessary.
    Waits,
    /// Only in memory. `EAGAIN`: a name is not there.
    Cached,
}

/// The directory that the name of a root led to.
#[derive(Debug)]
struct Top {
    fd: OwnedFd,
    dev: u64,
    ino: u64,
    storage: Storage,
}

impl Top {
    fn open(path: &Path) -> Result<Top, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let (_, FileId { dev, ino, .. }) = examine(&stat).ok_or(Errno::NOTDIR)?;
        let storage = Storage::of(fd.as_fd(), dev);
        Ok(Top { fd, dev, ino, storage })
    }

    fn is(&self, stat: &Stat) -> bool {
        examine(stat).is_some_and(|(_, identity)| (identity.dev, identity.ino) == (self.dev, self.ino))
    }
}

/// Flags of every open for reading.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn or_dot(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

#[cfg(target_os = "linux")]
fn openat2(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    symlinks: Symlinks,
    lookup: Lookup,
) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;

    /// `EAGAIN`: a rename happened during the resolution, and the kernel cannot tell whether the path stayed beneath
    /// the root. If renames never stop, the response is a 503.
    const TRIES: usize = 8;

    let rule = match symlinks {
        Symlinks::Follow => ResolveFlags::empty(),
        Symlinks::Inside => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        Symlinks::Never => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    };
    let (resolve, tries) = match lookup {
        Lookup::Waits => (rule, TRIES),
        Lookup::Cached => (rule | ResolveFlags::CACHED, 1),
    };
    let mut outcome = Err(Errno::AGAIN);
    for _ in 0..tries {
        outcome = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    outcome
}

#[cfg(not(target_os = "linux"))]
fn openat2(_: BorrowedFd<'_>, _: &[u8], _: OFlags, _: Symlinks, _: Lookup) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Tests `openat2` with the root. A seccomp filter may return `EPERM` for an unknown call.
fn openat2_works(root: BorrowedFd<'_>) -> bool {
    openat2(root, b".", READ | OFlags::DIRECTORY, Symlinks::Never, Lookup::Waits).is_ok()
}

/// Does the same in memory only. `EAGAIN`: the call works, and the name is not in memory.
fn cached_works(root: BorrowedFd<'_>) -> bool {
    let outcome = openat2(root, b".", READ | OFlags::DIRECTORY, Symlinks::Follow, Lookup::Cached);
    matches!(outcome, Ok(_) | Err(Errno::AGAIN))
}

/// Maps an error of the system to one that a response depends on.
#[must_use]
pub fn fs_error(errno: Errno) -> FsError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => FsError::NotFound,
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV => FsError::NotFound,
        // LOOP, XDEV: a symbolic link that is not followed, or leads out. It exists, whatever it leads to.
        Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::XDEV => FsError::Denied,
        // AGAIN: another process has a lease on the file, or renames never stop.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => FsError::Exhausted,
        _ => FsError::Failed,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    const RULES: [Symlinks; 3] = [Symlinks::Follow, Symlinks::Inside, Symlinks::Never];

    /// Roots with every rule, with `openat2` and without.
    pub(crate) fn roots(dir: &TempDir) -> impl Iterator<Item = Root> {
        let path = dir.path().join("root");
        RULES.into_iter().flat_map(move |rule| {
            let ours = Root::open(&path, rule).unwrap();
            let by_hand = Root { by_hand: true, ..Root::open(&path, rule).unwrap() };
            [ours, by_hand]
        })
    }

    fn tree() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/sub/deep")).unwrap();
        fs::write(at("root/a.txt"), "hello\n").unwrap();
        fs::write(at("root/sub/b.txt"), "bb").unwrap();
        fs::write(at("secret"), "secret!").unwrap();
        dir
    }

    fn len(found: Result<(OwnedFd, Opened, FileId), FsError>) -> Result<u64, FsError> {
        found.map(|(_, opened, identity)| {
            assert_eq!(opened.len, identity.size);
            assert_eq!((opened.modified, opened.modified_nanos), identity.mtime);
            opened.len
        })
    }

    #[test]
    fn opens_files_and_directories_under_every_rule() {
        let dir = tree();
        for root in roots(&dir) {
            assert_eq!(len(root.open_at(b"a.txt")), Ok(6));
            assert_eq!(len(root.open_at(b"sub/b.txt")), Ok(2));
            assert_eq!(root.open_at(b"").unwrap().1.kind, Kind::Directory);
            assert_eq!(root.open_at(b"sub/deep").unwrap().1.kind, Kind::Directory);
            for missing in [&b"nope"[..], b"nope/a.txt", b"a.txt/x", &[b'n'; 300]] {
                assert_eq!(len(root.open_at(missing)), Err(FsError::NotFound));
            }
            assert_eq!(len(root.open_file_at(b"sub")), Err(FsError::NotFound));
            assert_eq!(len(root.open_file_at(b"sub/b.txt")), Ok(2));
        }
    }

    #[test]
    fn links_follow_the_rule() {
        let dir = tree();
        let root = dir.path().join("root");
        symlink("../a.txt", root.join("sub/inside")).unwrap();
        symlink("deep/../../sub", root.join("sub/inside-dir")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink("../root/a.txt", root.join("out-and-in")).unwrap();
        symlink("..", root.join("outside-dir")).unwrap();
        symlink(root.join("a.txt"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for root in roots(&dir) {
            let open = |path: &str| len(root.open_at(path.as_bytes()));
            let refused = Err(FsError::Denied);
            let (inside, outside) = match root.symlinks() {
                Symlinks::Follow => ([Ok(6), Ok(2)], [Ok(7), Ok(6), Ok(7), Ok(6)]),
                Symlinks::Inside => ([Ok(6), Ok(2)], [refused; 4]),
                Symlinks::Never => ([refused; 2], [refused; 4]),
            };
            assert_eq!(["sub/inside", "sub/inside-dir/b.txt"].map(open), inside, "{root:?}");
            assert_eq!(["outside", "out-and-in", "outside-dir/secret", "absolute"].map(open), outside, "{root:?}");
            assert_eq!(["loop", "loop/x"].map(open), [refused; 2], "{root:?}");
            // A link that is not followed counts as existing; one that leads nowhere does not.
            let never = root.symlinks() == Symlinks::Never;
            assert_eq!(open("dangling"), if never { refused } else { Err(FsError::NotFound) }, "{root:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn special_files_are_not_found_and_never_block() {
        let dir = tree();
        let at = |name: &str| dir.path().join("root").join(name);
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        for root in roots(&dir) {
            for name in [&b"fifo"[..], b"socket", b"device"] {
                // The link to the device is refused before its target is known.
                let refused = name == b"device" && root.symlinks() != Symlinks::Follow;
                let expected = if refused { FsError::Denied } else { FsError::NotFound };
                assert_eq!(len(root.open_at(name)), Err(expected));
                assert_eq!(root.identify(name), None);
            }
        }
    }

    #[test]
    fn permissions_are_distinguished() {
        if rustix::process::geteuid().is_root() {
            return; // Permissions do not apply to root.
        }
        let dir = tree();
        let at = |name: &str| dir.path().join("root").join(name);
        fs::set_permissions(at("a.txt"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o111)).unwrap();
        for root in roots(&dir) {
            assert_eq!(len(root.open_at(b"a.txt")), Err(FsError::Denied));
            assert_eq!(len(root.open_at(b"sub/b.txt")), Ok(2));
            #[cfg(target_os = "linux")]
            assert_eq!(root.open_at(b"sub").unwrap().1.kind, Kind::Directory);
        }
        fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o600)).unwrap();
        for root in roots(&dir) {
            assert_eq!(len(root.open_at(b"sub/b.txt")), Err(FsError::Denied));
        }
        fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn an_identity_changes_with_the_file() {
        let dir = tree();
        let path = dir.path().join("root/a.txt");
        let root = Root::open(&dir.path().join("root"), Symlinks::Follow).unwrap();
        let before = root.identify(b"a.txt").unwrap();
        assert_eq!(root.open_at(b"a.txt").unwrap().2, before);
        fs::write(dir.path().join("new"), "HELLO\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(root.identify(b"a.txt").unwrap(), before);
        let before = root.identify(b"a.txt").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(root.identify(b"a.txt").unwrap().ctime, before.ctime);
    }

    #[test]
    fn a_root_must_be_a_directory() {
        let dir = tree();
        assert!(Root::open(&dir.path().join("secret"), Symlinks::Follow).is_err());
        assert!(Root::open(&dir.path().join("nope"), Symlinks::Follow).is_err());
    }

    #[test]
    fn a_root_has_an_absolute_path() {
        let dir = tree();
        symlink("root/sub", dir.path().join("link")).unwrap();
        let root = Root::open(&dir.path().join("link/../sub/deep/.."), Symlinks::Never).unwrap();
        assert_eq!(root.path(), dir.path().canonicalize().unwrap().join("root/sub"));
        assert!(Root::open(".".as_ref(), Symlinks::Follow).unwrap().path().is_absolute());
        symlink(".", dir.path().join("root/here")).unwrap();
        let root = Root::open(&dir.path().join("link/../here/sub"), Symlinks::Never).unwrap();
        assert_eq!(
            root.path(),
            dir.path().canonicalize().unwrap().join("root/here/sub"),
            "the link must not be resolved"
        );
    }

    #[test]
    fn the_name_of_a_root_is_followed() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other/new.txt"), "new").unwrap();
        symlink("root", at("current")).unwrap();
        for rule in RULES {
            let root = Root::open(&at("current"), rule).unwrap();
            assert_eq!(root.path(), at("current"));
            assert!(!root.look_up(), "the name still leads there");
            symlink("other", at("next")).unwrap();
            fs::rename(at("next"), at("current")).unwrap();
            root.look_up_in_time(LOOK_UP_EVERY - 1);
            assert_eq!(len(root.open_at(b"a.txt")), Ok(6), "the look-up is not due yet");
            root.look_up_in_time(LOOK_UP_EVERY);
            assert_eq!(len(root.open_at(b"new.txt")), Ok(3));
            fs::remove_file(at("current")).unwrap();
            assert!(root.look_up());
            assert_eq!(len(root.open_at(b"new.txt")), Err(FsError::NotFound));
            assert!(!root.look_up(), "the name still leads nowhere");
            symlink("root", at("current")).unwrap();
            assert!(root.look_up());
            assert_eq!(len(root.open_at(b"a.txt")), Ok(6));
        }
        let root = Root::open(&at("other"), Symlinks::Follow).unwrap();
        fs::remove_dir_all(at("other")).unwrap();
        assert_eq!(len(root.open_at(b"")), Err(FsError::NotFound), "a removed directory is not an empty one");
    }

    #[test]
    fn missing_paths_look_the_name_up_at_a_limited_rate() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("other")).unwrap();
        symlink("root", at("current")).unwrap();
        let turn = |to: &str| {
            symlink(to, at("next")).unwrap();
            fs::rename(at("next"), at("current")).unwrap();
        };
        let root = Root::open(&at("current"), Symlinks::Follow).unwrap();
        for _ in 1..MISSES {
            assert!(!root.look_up_for_missing(100), "the name still leads there");
        }
        for _ in 0..2 * MISSES {
            turn("other");
            assert!(root.look_up_for_missing(100), "a look-up that finds something does not count");
            turn("root");
            assert!(root.look_up_for_missing(100));
        }
        assert!(!root.look_up_for_missing(100));
        turn("other");
        for now in [100, 100 + MISS_EVERY - 1] {
            assert!(!root.look_up_for_missing(now), "a flood is limited");
        }
        assert!(root.look_up_for_missing(100 + MISS_EVERY), "one more is permitted later");
        fs::remove_file(at("current")).unwrap();
        assert!(root.look_up_for_missing(1_000));
        for _ in 0..2 * MISSES {
            assert!(!root.look_up_for_missing(1_000), "the name leads nowhere");
        }
        symlink("root", at("current")).unwrap();
        assert!(root.look_up_for_missing(1_000), "the look-up is immediate");
    }
}

//! What a `stat` says of a file: its kind, its version, and whether it is ever served.

use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use sanserve_core::{Kind, Opened};

/// The identity of one version of a file: it changes with each write, replacement by a rename, truncation and change
/// of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device of the file system.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
    /// The length in bytes.
    pub size: u64,
    /// The time of the last modification of the content: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The time of the last status change: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

/// Flags of an open for checking what is there. An executable need not be readable.
#[cfg(target_os = "linux")]
pub(crate) const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
pub(crate) const LOOK: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The mode of a recording. The sticky bit, which has no meaning for a file, marks it, and stays with the file: it is
/// not served by any server, under any path, symbolic link or hard link.
pub const RECORDING: u32 = 0o1600;

/// The directories in which this process records, by device and inode, once per recording. They are not listed.
static RECORDED: RwLock<Vec<(u64, u64)>> = RwLock::new(Vec::new());

/// A directory that this process does not serve while this value exists.
#[derive(Debug)]
pub struct Withheld {
    id: (u64, u64),
    /// While it is open, its inode number cannot be reused.
    _directory: OwnedFd,
}

impl Withheld {
    /// Excludes this directory and its recordings from being served.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the types differ between systems")]
    pub fn new(directory: &Path) -> io::Result<Withheld> {
        let directory = openat(CWD, directory, LOOK | OFlags::DIRECTORY, Mode::empty())?;
        let stat = fstat(&directory)?;
        let id = (stat.st_dev as u64, stat.st_ino as u64);
        RECORDED.write().unwrap_or_else(PoisonError::into_inner).push(id);
        Ok(Withheld { id, _directory: directory })
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        let mut all = RECORDED.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|id| *id == self.id) {
            all.swap_remove(at);
        }
    }
}

/// Interprets a `stat`. `None`: not a file that is served.
#[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the types of these fields differ between systems")]
#[must_use]
pub fn examine(stat: &Stat) -> Option<(Opened, FileId)> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode as u32 & 0o7777 == RECORDING => return None,
        FileType::RegularFile => Kind::File,
        FileType::Directory => {
            let id = (stat.st_dev as u64, stat.st_ino as u64);
            if RECORDED.read().unwrap_or_else(PoisonError::into_inner).contains(&id) {
                return None;
            }
            Kind::Directory
        }
        _ => return None,
    };
    let mtime = (stat.st_mtime as i64, stat.st_mtime_nsec as u32);
    let ctime = (stat.st_ctime as i64, stat.st_ctime_nsec as u32);
    let size = stat.st_size as u64;
    let opened = Opened { kind, len: size, modified: mtime.0, modified_nanos: mtime.1, digest: None };
    Some((opened, FileId { dev: stat.st_dev as u64, ino: stat.st_ino as u64, size, mtime, ctime }))
}

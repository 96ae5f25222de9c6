//! The kind of storage that a file is on, and reading the parts of a file that are in memory, without waiting for a disk.
//!
//! The threads that wait for disks are in `sanserve-server`.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::fd::BorrowedFd;

/// The kind of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Everything is in memory, so access never waits.
    Memory,
    /// A disk of this machine. The status of an open file is available without waiting, and so are names that were
    /// resolved a short time ago.
    Local {
        /// Whether [`read_in_memory`] works. `true` until it has failed.
        tells: bool,
    },
    /// Every access is a request to another machine (NFS) or process (FUSE).
    Remote,
}

/// The kinds of known file systems, by the number of the device.
static KNOWN: RwLock<Vec<(u64, Storage, Instant)>> = RwLock::new(Vec::new());

/// The number of devices that are remembered. If there are more, all are forgotten.
const DEVICES: usize = 64;

/// How long a kind is remembered. The number of a device that was unmounted may be used for another one.
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Storage {
    /// The storage of `file`, whose device is `dev`. Makes one system call for each device in 30 seconds.
    #[must_use]
    pub fn of(file: BorrowedFd<'_>, dev: u64) -> Storage {
        if let Some(storage) = Storage::known(dev) {
            return storage;
        }
        let storage = ask(file);
        storage.remember(dev);
        storage
    }

    fn known(dev: u64) -> Option<Storage> {
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        let (_, storage, since) = known.iter().find(|row| row.0 == dev)?;
        (since.elapsed() < ASK_AGAIN).then_some(*storage)
    }

    fn remember(self, dev: u64) {
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|row| row.0 != dev);
        if known.len() >= DEVICES {
            known.clear();
        }
        known.push((dev, self, Instant::now()));
    }
}

#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, reason = "the type differs between systems")]
fn ask(file: BorrowedFd<'_>) -> Storage {
    /// `tmpfs` and `ramfs`.
    const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
    /// ext2 to ext4, XFS, Btrfs, F2FS, Bcachefs, ZFS, overlayfs, EROFS, SquashFS, ISO 9660, UDF, FAT, exFAT, NTFS, JFS,
    /// NILFS, ReiserFS, HFS+.
    const LOCAL: [u32; 18] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0xf2f5_2010,
        0xca45_1a4e,
        0x2fc1_2fc1,
        0x794c_7630,
        0xe0f5_e1e2,
        0x7371_7368,
        0x9660,
        0x1501_3346,
        0x4d44,
        0x2011_bab0,
        0x7366_746e,
        0x3153_464a,
        0x3434,
        0x5265_4973,
        0x482b,
    ];
    match rustix::fs::fstatfs(file).map(|stat| stat.f_type as u32) {
        Ok(kind) if MEMORY.contains(&kind) => Storage::Memory,
        Ok(kind) if LOCAL.contains(&kind) => Storage::Local { tells: true },
        Ok(_) | Err(_) => Storage::Remote,
    }
}

#[cfg(not(target_os = "linux"))]
fn ask(_: BorrowedFd<'_>) -> Storage {
    Storage::Local { tells: false }
}

/// Why [`read_in_memory`] has read nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInMemory {
    /// It has to be read from the disk.
    OnDisk,
    /// The file system does not support the query.
    Unknown,
    /// Reading has failed.
    Failed,
}

/// Reads bytes at `offset` that are in memory (`preadv2` with `RWF_NOWAIT`, Linux 4.14), possibly fewer than there is
/// room for. `Ok(0)`: the file ends there. `dev` is its device: if it does not support the query, that is remembered.
///
/// # Errors
/// As described by [`NotInMemory`].
#[cfg(target_os = "linux")]
pub fn read_in_memory(file: BorrowedFd<'_>, dev: u64, room: &mut [u8], offset: u64) -> Result<usize, NotInMemory> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut rooms = [std::io::IoSliceMut::new(room)];
    match preadv2(file, &mut rooms, offset, ReadWriteFlags::NOWAIT) {
        Ok(n) => Ok(n),
        Err(errno) => {
            let reason = why(errno);
            if reason == NotInMemory::Unknown {
                Storage::Local { tells: false }.remember(dev);
            }
            Err(reason)
        }
    }
}

/// The meaning of an error of `preadv2`. A seccomp filter may return `EPERM` for an unknown call; for an open file,
/// `EPERM` has no other meaning.
#[cfg(target_os = "linux")]
fn why(errno: rustix::io::Errno) -> NotInMemory {
    use rustix::io::Errno;

    match errno {
        Errno::AGAIN | Errno::INTR => NotInMemory::OnDisk,
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM => NotInMemory::Unknown,
        _ => NotInMemory::Failed,
    }
}

/// Does not read anything, since this system does not tell what is in memory.
///
/// # Errors
/// [`NotInMemory::Unknown`].
#[cfg(not(target_os = "linux"))]
pub fn read_in_memory(_: BorrowedFd<'_>, _: u64, _: &mut [u8], _: u64) -> Result<usize, NotInMemory> {
    Err(NotInMemory::Unknown)
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn what_was_just_written_is_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let dev = fstat(&file).unwrap().st_dev;
        let storage = Storage::of(file.as_fd(), dev);
        assert_eq!(storage, Storage::of(file.as_fd(), dev), "it is remembered");
        let mut room = [0; 16];
        match read_in_memory(file.as_fd(), dev, &mut room, 2) {
            Ok(n) => assert_eq!(&room[..n], b"23456789"),
            Err(error) => assert_eq!(error, NotInMemory::Unknown, "{storage:?}"),
        }
        let directory = std::fs::File::open(".").unwrap();
        let dev = fstat(&directory).unwrap().st_dev;
        assert!(read_in_memory(directory.as_fd(), dev, &mut room, 0).is_err());
    }

    #[test]
    fn a_system_that_does_not_tell_is_no_error_of_the_file() {
        use rustix::io::Errno;

        for errno in [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP, Errno::INVAL] {
            assert_eq!(why(errno), NotInMemory::Unknown, "{errno:?}");
        }
        assert_eq!([Errno::AGAIN, Errno::IO].map(why), [NotInMemory::OnDisk, NotInMemory::Failed]);
    }

    #[test]
    fn file_systems_are_told_apart() {
        let of = |path: &str| {
            let file = std::fs::File::open(path).unwrap();
            ask(file.as_fd())
        };
        assert_eq!(of("/proc"), Storage::Remote, "what is not known may have to be waited for");
        if rustix::fs::statfs("/dev/shm").is_ok_and(|stat| stat.f_type == 0x0102_1994) {
            assert_eq!(of("/dev/shm"), Storage::Memory);
        }
    }
}

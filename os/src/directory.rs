//! Reading an open directory, a bounded batch at a time.
//!
//! Sorting, hiding and formatting entries is the task of the core.

use rustix::fd::OwnedFd;
#[cfg(target_os = "linux")]
use rustix::fs::OFlags;
use rustix::fs::{Access, AtFlags, FileType, accessat, statat};
use rustix::io::Errno;
use sanserve_core::{EntryKind, FsError, Listed};

use crate::beneath::{Symlinks, fs_error};

/// A directory that is open for listing.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    symlinks: Symlinks,
    #[cfg(not(target_os = "linux"))]
    entries: Option<rustix::fs::Dir>,
}

/// The buffer for one batch. It holds at most 1,024 entries, since no entry is shorter than 24 bytes.
#[cfg(target_os = "linux")]
const BATCH: usize = 24 * 1024;

impl Directory {
    /// The directory of `fd`, which was opened under the given rule for symbolic links.
    #[must_use]
    pub fn new(fd: OwnedFd, symlinks: Symlinks) -> Directory {
        Directory {
            fd,
            symlinks,
            #[cfg(not(target_os = "linux"))]
            entries: None,
        }
    }

    /// Whether the directory may be neither read nor searched, so that nothing in it is visible.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        #[cfg(target_os = "linux")]
        let is_unreadable = rustix::fs::fcntl_getfl(&self.fd).is_ok_and(|flags| flags.contains(OFlags::PATH));
        #[cfg(not(target_os = "linux"))]
        let is_unreadable = false;
        is_unreadable && accessat(&self.fd, c".", Access::EXEC_OK, AtFlags::EACCESS).is_err()
    }

    /// Pushes the next entries, up to 1,024. `push` returns whether it accepts more.
    ///
    /// # Errors
    /// [`FsError::Denied`] for a directory that may be searched but not read.
    #[cfg(target_os = "linux")]
    pub fn list(&mut self, mut push: impl FnMut(&[u8], EntryKind) -> bool) -> Result<Listed, FsError> {
        // On the heap: a thread keeps what it has once touched of its stack, for as long as its connection lasts.
        let mut room = Vec::<u8>::with_capacity(BATCH);
        let mut entries = rustix::fs::RawDir::new(&self.fd, room.spare_capacity_mut());
        loop {
            let entry = match entries.next() {
                None => return Ok(Listed::End),
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return end_or_error(error),
            };
            let name = entry.file_name();
            if !push(name.to_bytes(), self.kind(name, entry.file_type())) {
                return Ok(Listed::End);
            }
            // Each fill is one system call, and belongs to one batch.
            if entries.is_buffer_empty() {
                return Ok(Listed::More);
            }
        }
    }

    /// Pushes the next entries, up to 1,024. `push` returns whether it accepts more.
    ///
    /// # Errors
    /// [`FsError::Denied`] for a directory that may be searched but not read.
    #[cfg(not(target_os = "linux"))]
    pub fn list(&mut self, mut push: impl FnMut(&[u8], EntryKind) -> bool) -> Result<Listed, FsError> {
        let mut entries = match self.entries.take() {
            Some(entries) => entries,
            None => rustix::fs::Dir::read_from(&self.fd).map_err(fs_error)?,
        };
        for _ in 0..1024 {
            let entry = match entries.read() {
                None => return Ok(Listed::End),
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return end_or_error(error),
            };
            let name = entry.file_name();
            if !push(name.to_bytes(), self.kind(name, entry.file_type())) {
                return Ok(Listed::End);
            }
        }
        self.entries = Some(entries);
        Ok(Listed::More)
    }

    /// The kind of an entry. Only a symbolic link, or an entry of a file system that does not report kinds, costs a
    /// system call. Where symbolic links are restricted, their targets are not looked up: a link that is listed
    /// without a slash still works, because of the redirect.
    fn kind(&self, name: &std::ffi::CStr, told: FileType) -> EntryKind {
        let stat = |flags| statat(&self.fd, name, flags).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let file_type = match told {
            FileType::Unknown => stat(AtFlags::SYMLINK_NOFOLLOW).unwrap_or(told),
            _ => told,
        };
        match file_type {
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Link {
                directory: self.symlinks == Symlinks::Follow && stat(AtFlags::empty()) == Ok(FileType::Directory),
            },
            _ => EntryKind::File,
        }
    }
}

fn end_or_error(error: Errno) -> Result<Listed, FsError> {
    match error {
        // The directory was removed meanwhile.
        Errno::NOENT => Ok(Listed::End),
        // An O_PATH descriptor: it could not be opened for reading.
        Errno::BADF => Err(FsError::Denied),
        error => Err(fs_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    fn open(path: &Path, flags: OFlags, symlinks: Symlinks) -> Directory {
        Directory::new(openat(CWD, path, flags | OFlags::DIRECTORY, Mode::empty()).unwrap(), symlinks)
    }

    fn all(directory: &mut Directory) -> Vec<(String, EntryKind)> {
        let mut found = Vec::new();
        loop {
            let before = found.len();
            let listed = directory.list(|name, kind| {
                found.push((String::from_utf8(name.to_vec()).unwrap(), kind));
                true
            });
            assert!(found.len() - before <= 1024);
            if listed.unwrap() == Listed::End {
                break;
            }
        }
        found.retain(|(name, _)| name != "." && name != "..");
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    #[test]
    fn kinds_are_distinguished() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("dir", at("to-dir")).unwrap();
        symlink("file", at("to-file")).unwrap();
        symlink("gone", at("to-nothing")).unwrap();
        for (rule, directory) in [(Symlinks::Follow, true), (Symlinks::Inside, false), (Symlinks::Never, false)] {
            let found = all(&mut open(dir.path(), OFlags::RDONLY, rule));
            let expected = [
                ("dir", EntryKind::Directory),
                ("file", EntryKind::File),
                ("to-dir", EntryKind::Link { directory }),
                ("to-file", EntryKind::Link { directory: false }),
                ("to-nothing", EntryKind::Link { directory: false }),
            ];
            assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
        }
    }

    #[test]
    fn a_large_directory_comes_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..3000 {
            fs::write(dir.path().join(format!("{i:04}")), "").unwrap();
        }
        let found = all(&mut open(dir.path(), OFlags::RDONLY, Symlinks::Follow));
        assert!(found.iter().map(|(name, _)| name).eq(&(0..3000).map(|i| format!("{i:04}")).collect::<Vec<_>>()));
    }

    #[test]
    fn ends_when_push_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let mut calls = 0;
        let listed = open(dir.path(), OFlags::RDONLY, Symlinks::Follow).list(|_, _| {
            calls += 1;
            false
        });
        assert_eq!((listed, calls), (Ok(Listed::End), 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_unreadable_directory_is_denied() {
        let dir = tempfile::tempdir().unwrap();
        let listed = open(dir.path(), OFlags::PATH, Symlinks::Follow).list(|_, _| true);
        assert_eq!(listed, Err(FsError::Denied));
    }
}

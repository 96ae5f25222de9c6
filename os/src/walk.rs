//! Opening a path beneath a root component by component, for systems without `openat2`.
//!
//! Each component is opened relative to the descriptor of the previous one, and never through a symbolic link, so
//! that a rename or a link created meanwhile cannot lead out of the root. The targets of links are read, and walked
//! in the same way.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

/// The most symbolic links followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The most directories held open for one path. They are needed because `..` in a link goes back to them.
const MAX_DEPTH: usize = 128;

/// Opens `path` beneath `root`. `follows`: through symbolic links that stay beneath it; else through none.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, follows: bool) -> Result<OwnedFd, Errno> {
    let mut links = if follows { MAX_LINKS } else { 0 };
    let mut held: Vec<OwnedFd> = Vec::new();
    // The components still to be walked, in reverse order.
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push(&mut ahead, path);
    while let Some(name) = ahead.pop() {
        if name == b".." {
            // Above the root: the error is that of `RESOLVE_BENEATH`.
            held.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let at = held.last().map_or(root, AsFd::as_fd);
        let last = ahead.is_empty();
        let how = if last { flags } else { ON_THE_WAY };
        match openat(at, &name[..], how | OFlags::NOFOLLOW, Mode::empty()).and_then(|fd| reject_link(fd, how)) {
            Ok(fd) if last => return Ok(fd),
            Ok(_) if held.len() == MAX_DEPTH => return Err(Errno::NAMETOOLONG),
            Ok(fd) => held.push(fd),
            // A symbolic link, or with `O_DIRECTORY` anything that is not a directory, which may be a link.
            Err(error @ (Errno::LOOP | Errno::MLINK | Errno::NOTDIR)) => {
                let target = readlinkat(at, &name[..], Vec::new()).map_err(|_| error)?;
                links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                let target = target.as_bytes();
                if target.first() == Some(&b'/') {
                    return Err(Errno::XDEV);
                }
                push(&mut ahead, target);
            }
            Err(error) => return Err(error),
        }
    }
    // The path, or a link in it, ended with `..` or was the root itself.
    openat(held.last().map_or(root, AsFd::as_fd), c".", flags, Mode::empty())
}

/// `O_PATH | O_NOFOLLOW` opens a symbolic link itself. This returns the error that the same open has without
/// `O_PATH`.
#[cfg(target_os = "linux")]
fn reject_link(fd: OwnedFd, how: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::{FileType, fstat};
    let by_path_only = how.contains(OFlags::PATH) && !how.contains(OFlags::DIRECTORY);
    if by_path_only && FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    Ok(fd)
}

#[cfg(not(target_os = "linux"))]
fn reject_link(fd: OwnedFd, _: OFlags) -> Result<OwnedFd, Errno> {
    Ok(fd)
}

/// A directory on the way need not be readable.
#[cfg(target_os = "linux")]
const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const ON_THE_WAY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|&byte| byte == b'/').rev();
    ahead.extend(names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::CWD;

    use super::*;

    fn opens(dir: &Path, path: &str, follows: bool) -> Result<(), Errno> {
        let root = openat(CWD, dir, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        open(root.as_fd(), path.as_bytes(), OFlags::RDONLY | OFlags::CLOEXEC, follows).map(drop)
    }

    #[test]
    fn a_chain_of_links_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0"), "").unwrap();
        for i in 1..=MAX_LINKS + 1 {
            symlink((i - 1).to_string(), dir.path().join(i.to_string())).unwrap();
        }
        let opens = |name: usize, follows| opens(dir.path(), &name.to_string(), follows);
        assert_eq!(opens(MAX_LINKS - 1, true), Ok(()));
        assert_eq!(opens(MAX_LINKS, true), Ok(()));
        assert_eq!(opens(MAX_LINKS + 1, true), Err(Errno::LOOP));
        assert_eq!(opens(0, false), Ok(()));
        assert_eq!(opens(1, false), Err(Errno::LOOP));
    }

    #[test]
    fn dots_in_a_link_stay_beneath() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        let root = dir.path().join("root");
        symlink("b/..", root.join("a/itself")).unwrap();
        symlink("a/..", root.join("root")).unwrap();
        symlink("a/../..", root.join("above")).unwrap();
        symlink("above/root", root.join("above-and-back")).unwrap();
        assert_eq!(opens(&root, "a/itself/itself/b", true), Ok(()));
        assert_eq!(opens(&root, "root/root/a", true), Ok(()));
        assert_eq!(opens(&root, "root", true), Ok(()));
        assert_eq!(opens(&root, "above", true), Err(Errno::XDEV));
        assert_eq!(opens(&root, "above-and-back", true), Err(Errno::XDEV));
        assert_eq!(opens(&root, "a/itself/b", false), Err(Errno::LOOP));
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = vec!["d"; MAX_DEPTH + 2].join("/");
        fs::create_dir_all(dir.path().join(&path)).unwrap();
        let depth = |n: usize| opens(dir.path(), &path[..2 * n - 1], false);
        assert_eq!(depth(MAX_DEPTH), Ok(()));
        assert_eq!(depth(MAX_DEPTH + 1), Ok(()));
        assert_eq!(depth(MAX_DEPTH + 2), Err(Errno::NAMETOOLONG));
    }
}

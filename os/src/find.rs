//! Finds the script that a path leads to, and keeps its directory open.
//!
//! Each component is looked up from the root with one system call (two where symbolic links are restricted), under
//! the rule for symbolic links that every open follows. Running the script is not done here.

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;
use sanserve_core::{Found, FsError, ScriptFile};

use crate::beneath::{Root, fs_error};

/// An executable script: the directory that holds it, and its `stat`.
#[derive(Debug)]
pub struct Checked {
    /// The directory that holds the script.
    pub directory: OwnedFd,
    /// The status of the script when it was checked.
    pub stat: Stat,
}

/// Any of the three execute bits will do, as in Python: the owner of the script does not matter.
const EXECUTABLE: Mode = Mode::XUSR.union(Mode::XGRP).union(Mode::XOTH);

impl Root {
    /// Follows `path` from the component that begins at `from` while the components are directories, and returns
    /// where that ended: see [`Action::Find`](sanserve_core::Action::Find). Anything that cannot be reached, for
    /// whatever reason, counts as missing.
    ///
    /// # Errors
    /// [`FsError::Exhausted`] and [`FsError::Failed`]: the system could not find out what is there.
    pub fn find(&self, path: &[u8], from: usize) -> Result<Found, FsError> {
        let now = self.now();
        self.look_up_in_time(now);
        match self.descend(path, from) {
            Ok(Found { what: ScriptFile::Missing, .. }) if self.look_up_for_missing(now) => self.descend(path, from),
            found => found,
        }
    }

    fn descend(&self, path: &[u8], from: usize) -> Result<Found, FsError> {
        let mut end = from.min(path.len());
        loop {
            let begin = if path.get(end) == Some(&b'/') { end + 1 } else { end };
            let len = path[begin..].iter().position(|&byte| byte == b'/');
            end = len.map_or(path.len(), |len| begin + len);
            let what = match self.stat(&path[..end]).map_err(fs_error) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory if path.len() - end > 1 => continue,
                    FileType::Directory => return Ok(Found { len: path.len(), what: ScriptFile::NotPlain }),
                    FileType::RegularFile if Mode::from_raw_mode(stat.st_mode).intersects(EXECUTABLE) => {
                        ScriptFile::Runnable
                    }
                    FileType::RegularFile => ScriptFile::NotExecutable,
                    _ => ScriptFile::NotPlain,
                },
                Err(FsError::NotFound | FsError::Denied) => ScriptFile::Missing,
                Err(error) => return Err(error),
            };
            return Ok(Found { len: end, what });
        }
    }

    /// Checks a script that was found once more, since time may have passed, and opens its directory. The script is
    /// run from that directory, even if a name on the way is changed meanwhile.
    pub fn check_script(&self, path: &[u8]) -> Result<Checked, Errno> {
        let parent = last_slash(path).map_or(&b""[..], |at| &path[..at]);
        let directory = self.directory(parent)?;
        let stat = self.stat(path)?;
        let mode = stat.st_mode;
        if FileType::from_raw_mode(mode) != FileType::RegularFile || !Mode::from_raw_mode(mode).intersects(EXECUTABLE) {
            return Err(Errno::ACCESS);
        }
        Ok(Checked { directory, stat })
    }
}

fn last_slash(path: &[u8]) -> Option<usize> {
    path.iter().rposition(|&byte| byte == b'/')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::ScriptFile::{Missing, NotExecutable, NotPlain, Runnable};
    use super::*;
    use crate::beneath::Symlinks;
    use crate::beneath::tests::roots;

    fn tree() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/cgi-bin/sub/deep")).unwrap();
        let file = |name: &str, mode| {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        file("root/cgi-bin/run", 0o755);
        file("root/cgi-bin/others", 0o001);
        file("root/cgi-bin/text", 0o644);
        file("root/cgi-bin/sub/run", 0o700);
        file("outside", 0o755);
        dir
    }

    #[test]
    fn descends_until_a_component_is_not_a_directory() {
        let dir = tree();
        let table = [
            ("run", "run", Runnable),
            ("run/", "run", Runnable),
            ("run/more/of/it", "run", Runnable),
            ("run//x", "run", Runnable),
            ("others", "others", Runnable),
            ("text", "text", NotExecutable),
            ("text/x/", "text", NotExecutable),
            ("sub/run", "sub/run", Runnable),
            ("sub/run/sub/run", "sub/run", Runnable),
            ("sub/deep/nope/x", "sub/deep/nope", Missing),
            ("nope", "nope", Missing),
            ("nope/", "nope", Missing),
            ("nope/run", "nope", Missing),
            ("", "", NotPlain),
            ("sub", "sub", NotPlain),
            ("sub/", "sub/", NotPlain),
            ("sub/deep/", "sub/deep/", NotPlain),
        ];
        for root in roots(&dir) {
            for (path, name, what) in table {
                for from in [0, 8] {
                    let found = root.find(format!("cgi-bin/{path}").as_bytes(), from);
                    assert_eq!(found, Ok(Found { len: 8 + name.len(), what }), "{path} from {from}, {root:?}");
                }
            }
            assert_eq!(root.find(b"", 0), Ok(Found { len: 0, what: NotPlain }));
            assert_eq!(root.find(b"none/", 5), Ok(Found { len: 5, what: Missing }));
            assert_eq!(root.find(b"none/run/x", 5), Ok(Found { len: 8, what: Missing }));
            assert_eq!(root.find(&[b'n'; 300], 0), Ok(Found { len: 300, what: Missing }));
        }
    }

    #[test]
    fn links_follow_the_rule() {
        let dir = tree();
        let at = |name: &str| dir.path().join("root/cgi-bin").join(name);
        symlink("run", at("inside")).unwrap();
        symlink("sub", at("inside-dir")).unwrap();
        symlink("../../outside", at("outside")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for root in roots(&dir) {
            let find = |path: &str| root.find(format!("cgi-bin/{path}").as_bytes(), 8).unwrap().what;
            let found = ["inside", "inside-dir/run", "outside", "loop"].map(find);
            let expected = match root.symlinks() {
                Symlinks::Follow => [Runnable, Runnable, Runnable, Missing],
                Symlinks::Inside => [Runnable, Runnable, Missing, Missing],
                Symlinks::Never => [Missing; 4],
            };
            assert_eq!(found, expected, "{root:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fifo_is_not_plain() {
        let dir = tree();
        let fifo = dir.path().join("root/cgi-bin/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for root in roots(&dir) {
            assert_eq!(root.find(b"cgi-bin/fifo/x", 8), Ok(Found { len: 12, what: NotPlain }));
        }
    }
}

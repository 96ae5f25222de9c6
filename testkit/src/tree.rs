//! Directories to serve.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the date of all examples in RFC 9110.
pub const STAMP: u64 = 784_111_777;

/// File names that a careless server mishandles somewhere.
pub const HOSTILE: &[&[u8]] = &[
    b"\"quoted\".txt",
    b"'single'.txt",
    b"<b>&amp;.txt",
    b"a&b=c;d.txt",
    b"line\nbreak.txt",
    b"return\r.txt",
    b"tab\t.txt",
    b"\x1b[31mred.txt",
    b"not-utf8-\xff\xfe.txt",
    b"latin-\xe9.txt",
    b"cut-\xe2\x82.txt",
    b"two words.txt",
    b" leading.txt",
    b"trailing ",
    b"100%.txt",
    b"%41.txt",
    b"%2e%2e",
    "gr\u{fc}\u{df}e-\u{4f60}\u{597d}-\u{1f980}.txt".as_bytes(),
    "right\u{202e}left.txt".as_bytes(),
    b"-rf.txt",
    b"a:b.txt",
    b"javascript:alert(1)",
    b"que?ry.txt",
    b"frag#ment.txt",
    b"back\\slash.txt",
    b"..\\..\\x.txt",
    b"plus+plus.txt",
    b"~tilde.txt",
    b"$(dollar)`tick`.txt",
    b"[brackets]{braces}|.txt",
    b"...",
    b"..hidden",
    b".dotfile",
    b"\x7f\x01.txt",
    b"*",
];

/// A temporary directory that contains `root`, which is served.
#[derive(Debug)]
pub struct Tree {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Tree {
        let folder = tempfile::Builder::new().prefix("sanserve-test-").tempdir().expect("a temporary directory");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("a fresh directory");
        Tree { folder, root }
    }

    /// The small tree of most tests: `a.txt`, `b.html`, `empty`, `folder/inner.txt`, all with the time [`STAMP`].
    pub fn plain() -> Tree {
        let tree = Tree::new();
        tree.file("a.txt", "alpha\n").file("b.html", "<p>beta</p>\n").file("empty", "");
        tree.folder("folder").file("folder/inner.txt", "inner\n");
        for name in ["a.txt", "b.html", "empty", "folder/inner.txt"] {
            tree.stamp(name, STAMP);
        }
        tree
    }

    /// The directory that is served.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory around it, which must not be served.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// The path of an entry.
    pub fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root.join(OsStr::from_bytes(name.as_ref()))
    }

    /// Adds a file, or replaces its content in place.
    pub fn file(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &Tree {
        fs::write(self.path(name), content).expect("a file can be written");
        self
    }

    /// Adds a directory.
    pub fn folder(&self, name: impl AsRef<[u8]>) -> &Tree {
        fs::create_dir_all(self.path(name)).expect("a directory can be made");
        self
    }

    /// Adds a symbolic link.
    pub fn link(&self, name: impl AsRef<[u8]>, target: impl AsRef<Path>) -> &Tree {
        std::os::unix::fs::symlink(target, self.path(name)).expect("a link can be made");
        self
    }

    /// Adds a FIFO.
    pub fn fifo(&self, name: impl AsRef<[u8]>) -> &Tree {
        rustix::fs::mknodat(CWD, self.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        self
    }

    /// Adds a sparse file of `len` zeros.
    pub fn sparse(&self, name: impl AsRef<[u8]>, len: u64) -> &Tree {
        File::create(self.path(name)).and_then(|file| file.set_len(len)).expect("a file can be made");
        self
    }

    /// Adds a file with the content of [`Pattern`].
    pub fn patterned(&self, name: impl AsRef<[u8]>, len: u64) -> &Tree {
        let mut file = File::create(self.path(name)).expect("a file can be made");
        let pattern = Pattern::new();
        let mut at = 0;
        while at < len {
            let part = pattern.at(at);
            let now = part.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            file.write_all(&part[..now]).expect("there is room");
            at += now as u64;
        }
        self
    }

    /// Sets the modification time, in seconds since the epoch.
    pub fn stamp(&self, name: impl AsRef<[u8]>, seconds: u64) -> &Tree {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the file is there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).expect("a date can be set");
        self
    }

    /// Replaces a file by a new one, as editors do.
    pub fn replace(&self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &Tree {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, content).expect("a file can be written");
        fs::rename(&fresh, self.path(name)).expect("a file can be renamed");
        self
    }

    /// Truncates or extends a file in place.
    pub fn resize(&self, name: impl AsRef<[u8]>, len: u64) -> &Tree {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the file is there");
        file.set_len(len).expect("the length can be set");
        self
    }
}

/// The content of a patterned file: a repeated block whose length is not a power of two, so that a missing, doubled
/// or misplaced part never matches.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(&'static [u8]);

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern::new()
    }
}

impl Pattern {
    const PERIOD: usize = 999_983;

    /// The pattern. It is made once per process, because that takes a while without optimization.
    pub fn new() -> Pattern {
        static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut dice = crate::dice::Dice::new(1);
            let mut block: Vec<u8> = Vec::with_capacity(Pattern::PERIOD + 8);
            while block.len() < Pattern::PERIOD {
                block.extend_from_slice(&dice.roll().to_le_bytes());
            }
            block.truncate(Pattern::PERIOD);
            block
        });
        Pattern(&BLOCK)
    }

    /// The bytes from `offset` to the end of the block.
    pub fn at(&self, offset: u64) -> &[u8] {
        let start = usize::try_from(offset % Pattern::PERIOD as u64).expect("less than a period");
        &self.0[start..]
    }

    /// Asserts that `bytes` are those at `offset`.
    #[track_caller]
    pub fn check(&self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let part = self.at(offset + at as u64);
            let now = part.len().min(bytes.len() - at);
            assert!(part[..now] == bytes[at..at + now], "wrong bytes in the {now} bytes from {offset} + {at}");
            at += now;
        }
    }
}

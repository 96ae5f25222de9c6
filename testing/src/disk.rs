//! A virtual disk: files with contents and times, directories, entries that fail, and entries that are slow. It does
//! not use the file system.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanserve_core::{EntryKind, FileHandle, FsError, Kind, Opened};

use super::random::mix;
use super::script::Script;

/// The calendar time at the start of every test: `Sun, 06 Nov 1994 08:49:37 GMT`, as in transcripts.
pub const START: i64 = 784_111_777;

/// A file.
///
/// Its bytes are either given, or a function of a number and the offset. So a file can have any size, and any part of
/// it can be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    bytes: Bytes,
    /// The length in bytes.
    pub len: u64,
    /// The modification time, in seconds since the Unix epoch.
    pub modified: i64,
    /// The nanoseconds of the modification time.
    pub nanos: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bytes {
    Given(Arc<[u8]>),
    Generated(u64),
}

impl From<File> for FileHandle {
    fn from(file: File) -> FileHandle {
        FileHandle::new(file)
    }
}

impl File {
    /// Creates a file of `len` bytes. The number `version` determines its contents and times.
    #[must_use]
    pub fn new(version: u64, len: u64) -> File {
        let nanos = u32::try_from(mix(version) % 1_000_000_000).expect("less than 2^30");
        let modified = START - 1_000 - i64::try_from(version % 1_000_000).expect("small");
        File { bytes: Bytes::Generated(version), len, modified, nanos }
    }

    /// Creates a file with these bytes, which was modified a minute before [`START`].
    #[must_use]
    pub fn with(bytes: impl AsRef<[u8]>) -> File {
        let bytes = bytes.as_ref();
        File { bytes: Bytes::Given(bytes.into()), len: bytes.len() as u64, modified: START - 60, nanos: 0 }
    }

    /// Sets the modification time.
    #[must_use]
    pub fn modified(self, seconds: i64, nanos: u32) -> File {
        File { modified: seconds, nanos, ..self }
    }

    /// Appends `len` bytes from `offset`.
    ///
    /// # Panics
    /// If a file with given bytes is shorter.
    pub fn read(&self, offset: u64, len: u64, out: &mut Vec<u8>) {
        let index = |n: u64| usize::try_from(n).expect("memory");
        match &self.bytes {
            Bytes::Given(bytes) => out.extend_from_slice(&bytes[index(offset)..index(offset + len)]),
            Bytes::Generated(version) => {
                let end = offset + len;
                for n in offset / 8..end.div_ceil(8) {
                    let word = mix(version.wrapping_mul(0x1_0000_0001) ^ n).to_le_bytes();
                    let from = offset.saturating_sub(n * 8).min(8);
                    let to = (end - n * 8).min(8);
                    out.extend_from_slice(&word[index(from)..index(to)]);
                }
            }
        }
    }

    /// The result of opening the file.
    #[must_use]
    pub fn opened(&self) -> Opened {
        Opened { kind: Kind::File, len: self.len, modified: self.modified, modified_nanos: self.nanos, digest: None }
    }

    /// The entity tag that the core makes of the file.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("\"{:x}-{:x}-{:x}\"", self.modified, self.nanos, self.len)
    }
}

/// What a path refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(File),
    /// A directory with these entries.
    Directory(Vec<(Vec<u8>, EntryKind)>),
    /// An entry that cannot be opened.
    Fails(FsError),
    /// An executable file, below a directory of [`Cgi::directories`](sanserve_core::Cgi).
    Script(Script),
}

/// Files and directories below a root that exists only in memory.
///
/// ```
/// use sanserve_core::FsError;
/// use sanserve_testing::{Disk, Server};
///
/// let disk = Disk::new().file("docs/a.txt", "hello\n").fails("secret", FsError::Denied).slow("docs/a.txt", 300);
/// let mut peer = Server::new().disk(disk).connect();
/// peer.send("GET /docs/a.txt HTTP/1.1\r\nHost: x\r\n\r\n").expect_nothing().pass(300).expect_answer(200, "hello\n");
/// peer.send("GET /secret HTTP/1.1\r\nHost: x\r\n\r\n").expect_status(404);
/// peer.send("GET /docs/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("a.txt");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The entries, by path below the root, without leading or trailing slashes. The path of the root is empty.
    pub nodes: BTreeMap<Vec<u8>, Node>,
    /// How long it takes to open a path, in milliseconds.
    pub delays: BTreeMap<Vec<u8>, u64>,
}

impl Disk {
    /// Creates an empty root.
    #[must_use]
    pub fn new() -> Disk {
        Disk::default().directory("")
    }

    /// Adds a file with these bytes, and its parent directories.
    #[must_use]
    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Disk {
        self.with(path, Node::File(File::with(bytes)))
    }

    /// Adds a directory, and its parent directories.
    #[must_use]
    pub fn directory(self, path: &str) -> Disk {
        self.with(path, Node::Directory(Vec::new()))
    }

    /// Adds an entry that cannot be opened.
    #[must_use]
    pub fn fails(self, path: &str, error: FsError) -> Disk {
        self.with(path, Node::Fails(error))
    }

    /// Adds a script, and its parent directories.
    #[must_use]
    pub fn script(self, path: &str, script: Script) -> Disk {
        self.with(path, Node::Script(script))
    }

    /// Sets how many milliseconds it takes to open or list this path.
    #[must_use]
    pub fn slow(mut self, path: &str, millis: u64) -> Disk {
        self.delays.insert(path.into(), millis);
        self
    }

    /// Adds an entry, and its parent directories.
    #[must_use]
    pub fn with(mut self, path: &str, node: Node) -> Disk {
        self.put(path.as_bytes(), node);
        self
    }

    /// Replaces an entry. An existing directory keeps its entries.
    pub fn put(&mut self, path: &[u8], node: Node) {
        let is_directory = matches!(node, Node::Directory(_));
        if !path.is_empty() {
            let cut = path.iter().rposition(|&byte| byte == b'/');
            let (parent, name) = cut.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
            self.put(parent, Node::Directory(Vec::new()));
            let kind = if is_directory { EntryKind::Directory } else { EntryKind::File };
            if let Some(Node::Directory(names)) = self.nodes.get_mut(parent) {
                names.retain(|(other, _)| other != name);
                names.push((name.to_vec(), kind));
            }
        }
        match (self.nodes.get(path), &node) {
            (Some(Node::Directory(_)), Node::Directory(names)) if names.is_empty() => {}
            _ => _ = self.nodes.insert(path.to_vec(), node),
        }
    }

    /// What a path refers to.
    ///
    /// # Errors
    /// The error of the entry; [`FsError::NotFound`] if there is none.
    pub fn find(&self, path: &[u8]) -> Result<&Node, FsError> {
        match self.nodes.get(path) {
            Some(Node::Fails(error)) => Err(*error),
            Some(node) => Ok(node),
            None => Err(FsError::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_parent_directories() {
        let disk = Disk::new().file("a/b/c", "x").file("a/b/c", "yy").directory("a/b");
        let names = |path: &str| match disk.find(path.as_bytes()) {
            Ok(Node::Directory(names)) => names.clone(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(names(""), [(b"a".to_vec(), EntryKind::Directory)]);
        assert_eq!(names("a/b"), [(b"c".to_vec(), EntryKind::File)]);
        let Ok(Node::File(file)) = disk.find(b"a/b/c") else { panic!() };
        assert_eq!(file.len, 2);
    }

    #[test]
    fn any_part_of_a_generated_file_can_be_read() {
        let file = File::new(3, 1_000);
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        file.read(0, 1_000, &mut whole);
        for (offset, len) in [(0, 3), (3, 5), (8, 1), (9, 0), (9, 700), (709, 291)] {
            file.read(offset, len, &mut parts);
        }
        assert_eq!(whole, parts);
    }
}

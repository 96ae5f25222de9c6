//! A virtual disk. A file's bytes are a function of its version and the offset, so that a client can
//! check any part of any answer, and a file can be as large as it likes.

use std::collections::BTreeMap;

use sanserve_core::{EntryKind, FsError, Kind, Opened};

use super::random::mix;

/// Seconds since the epoch at the start of every world.
pub const START: i64 = 784_111_777;

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// What its bytes are made of.
    pub version: u64,
    /// How long it was when it was opened; `Opened` says this.
    pub len: u64,
    pub modified: i64,
    pub nanos: u32,
}

impl File {
    pub fn new(version: u64, len: u64) -> File {
        let nanos = u32::try_from(mix(version) % 1_000_000_000).expect("less than 2^30");
        File { version, len, modified: START - 1_000 - i64::try_from(version).expect("small"), nanos }
    }

    /// Eight bytes.
    fn word(&self, n: u64) -> [u8; 8] {
        mix(self.version.wrapping_mul(0x1_0000_0001) ^ n).to_le_bytes()
    }

    /// Appends `len` bytes from `offset`.
    pub fn read(&self, offset: u64, len: u64, out: &mut Vec<u8>) {
        let end = offset + len;
        for n in offset / 8..end.div_ceil(8) {
            let word = self.word(n);
            let from = offset.saturating_sub(n * 8).min(8) as usize;
            let to = (end - n * 8).min(8) as usize;
            out.extend_from_slice(&word[from..to]);
        }
    }

    pub fn opened(&self) -> Opened {
        Opened { kind: Kind::File, len: self.len, modified: self.modified, modified_nanos: self.nanos }
    }

    /// The entity tag, as the core makes it.
    pub fn tag(&self) -> String {
        format!("\"{:x}-{:x}-{:x}\"", self.modified, self.nanos, self.len)
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File(File),
    /// The names in it.
    Directory(Vec<(Vec<u8>, EntryKind)>),
    Fails(FsError),
}

/// Paths below the root, without slashes at the ends; the root is empty.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub nodes: BTreeMap<Vec<u8>, Node>,
}

impl Disk {
    /// The disk that the small worlds share.
    pub fn small() -> Disk {
        let mut disk = Disk::default();
        let mut file = |path: &str, version, len| {
            disk.nodes.insert(path.into(), Node::File(File::new(version, len)));
        };
        file("a", 1, 6);
        file("empty", 2, 0);
        file("big.bin", 3, 100_000);
        file("r.txt", 4, 100);
        file("index/index.html", 5, 40);
        let names =
            [("B&<b>", EntryKind::File), ("a", EntryKind::Link { directory: true }), ("c", EntryKind::Directory)];
        let names = names.map(|(name, kind)| (name.as_bytes().to_vec(), kind)).to_vec();
        for path in ["", "d", "index"] {
            disk.nodes.insert(path.into(), Node::Directory(names.clone()));
        }
        disk.nodes.insert(b"denied".to_vec(), Node::Fails(FsError::Denied));
        disk.nodes.insert(b"busy".to_vec(), Node::Fails(FsError::Exhausted));
        disk
    }

    pub fn find(&self, path: &[u8]) -> Result<&Node, FsError> {
        match self.nodes.get(path) {
            Some(Node::Fails(error)) => Err(*error),
            Some(node) => Ok(node),
            None => Err(FsError::NotFound),
        }
    }

    pub fn file(&self, path: &str) -> File {
        match self.nodes.get(path.as_bytes()) {
            Some(Node::File(file)) => *file,
            other => panic!("{path} is {other:?}"),
        }
    }
}

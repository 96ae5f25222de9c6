//! The disk of the small worlds, based on the virtual disk of the library.

use sanserve_core::{EntryKind, FsError};

pub use sanserve_testing::{Disk, File, Node, START};

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
    let names = [("B&<b>", EntryKind::File), ("a", EntryKind::Link { directory: true }), ("c", EntryKind::Directory)];
    let names = names.map(|(name, kind)| (name.as_bytes().to_vec(), kind)).to_vec();
    for path in ["", "d", "index"] {
        disk.nodes.insert(path.into(), Node::Directory(names.clone()));
    }
    disk.nodes.insert(b"denied".to_vec(), Node::Fails(FsError::Denied));
    disk.nodes.insert(b"busy".to_vec(), Node::Fails(FsError::Exhausted));
    disk
}

/// The file at a path, which must exist.
pub fn file_at(disk: &Disk, path: &str) -> File {
    match disk.nodes.get(path.as_bytes()) {
        Some(Node::File(file)) => file.clone(),
        other => panic!("{path} is {other:?}"),
    }
}

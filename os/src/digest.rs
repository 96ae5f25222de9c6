//! Hashes of file contents, for entity tags that are derived from content.
//!
//! A file that fits into the small-file cache is hashed when it is opened, which takes less than a millisecond.
//! Larger files are hashed one after the other by a background thread, and have no entity tag until that is done;
//! they are served without one meanwhile. A hash is stored under the [`FileId`] of the file, so that a modified file
//! is hashed again. A file that was modified within the last seconds is not hashed, because it could change again
//! without a change of its identity.

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use rustix::io::{Errno, pread};
use sha2::{Digest as _, Sha256};

use crate::identity::{FileId, examine};

/// The first 96 bits of SHA-256.
pub type Digest = [u8; 12];

/// Size of the largest file that is hashed when it is opened, in bytes.
pub const AT_ONCE: u64 = 65_536;

/// Size of the largest file that is hashed at all, in bytes.
const LARGEST: u64 = 4 << 30;

/// Files that may wait to be hashed. If the queue is full, a file has no tag, and is queued with a later request.
const QUEUE: usize = 64;

/// Hashes that are kept, about 2 MiB. When there are more, all are discarded.
const MOST: usize = 16_384;

/// The known hashes of large files, and the thread that computes them.
#[derive(Debug)]
pub struct Digests {
    /// `None`: the file is being hashed.
    known: Arc<Mutex<HashMap<FileId, Option<Digest>>>>,
    /// `None`: the thread could not be started.
    queue: Option<SyncSender<(OwnedFd, FileId)>>,
}

impl Digests {
    /// Starts the thread, with no known hashes.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Digests {
        let known = Arc::<Mutex<HashMap<FileId, Option<Digest>>>>::default();
        let (queue, jobs) = sync_channel::<(OwnedFd, FileId)>(QUEUE);
        let results = Arc::clone(&known);
        let thread = thread::Builder::new().name("sanserve-digest".into()).stack_size(256 * 1024).spawn(move || {
            // The iteration ends when the queue is dropped.
            for (fd, identity) in jobs {
                let digest = hash(&fd, &identity);
                let mut known = lock(&results);
                match digest {
                    Some(_) => _ = known.insert(identity, digest),
                    None => _ = known.remove(&identity),
                }
            }
        });
        // Without a thread, large files have no entity tag.
        Digests { known, queue: thread.is_ok().then_some(queue) }
    }

    /// Hashes content that is in memory.
    #[must_use]
    pub fn of_bytes(&self, bytes: &[u8]) -> Digest {
        first(&Sha256::digest(bytes))
    }

    /// The hash of this file, if it is known. If not, the file is queued to be hashed.
    pub fn of(&self, fd: &OwnedFd, identity: &FileId) -> Option<Digest> {
        let queue = self.queue.as_ref().filter(|_| identity.size <= LARGEST)?;
        let mut known = lock(&self.known);
        if let Some(digest) = known.get(identity) {
            return *digest;
        }
        if known.len() >= MOST {
            known.clear();
        }
        if queue.try_send((fd.try_clone().ok()?, *identity)).is_ok() {
            known.insert(*identity, None);
        }
        None
    }
}

fn lock(known: &Mutex<HashMap<FileId, Option<Digest>>>) -> MutexGuard<'_, HashMap<FileId, Option<Digest>>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hashes the content. `None` if the file has changed meanwhile.
fn hash(fd: &OwnedFd, identity: &FileId) -> Option<Digest> {
    let mut room = vec![0; 64 * 1024];
    let (mut hasher, mut offset) = (Sha256::new(), 0);
    while offset < identity.size {
        match pread(fd, &mut room[..], offset) {
            Ok(0) => return None,
            Ok(n) => {
                hasher.update(&room[..n]);
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    let (_, after) = examine(&fstat(fd).ok()?)?;
    (after == *identity).then(|| first(&hasher.finalize()))
}

fn first(hash: &[u8]) -> Digest {
    hash[..12].try_into().expect("SHA-256 is longer")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_large_file_is_hashed_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, vec![b'x'; 300_000]).unwrap();
        let fd = OwnedFd::from(fs::File::open(&path).unwrap());
        let (_, identity) = examine(&fstat(&fd).unwrap()).unwrap();
        let digests = Digests::new();
        let start = Instant::now();
        let digest = loop {
            if let Some(digest) = digests.of(&fd, &identity) {
                break digest;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the file is never hashed");
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(digest, digests.of_bytes(&vec![b'x'; 300_000]));
        fs::write(&path, vec![b'y'; 300_000]).unwrap();
        assert_eq!(hash(&fd, &identity), None, "the file has changed");
        assert_eq!(digests.of_bytes(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}

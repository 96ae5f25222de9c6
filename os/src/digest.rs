//! Hashes of the content of files, for entity tags that are made of it.
//!
//! A file that is as small as the largest in the small-file cache is hashed where it is opened: that takes less than a
//! millisecond. A larger one is hashed by a thread of its own, one after the other, and has no tag until that is done:
//! whoever asks meanwhile gets the file. What is known is known of an [`FileId`], so that a file that changes is
//! hashed anew; one that has changed within the last seconds may change again without another identity, and is not.

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use rustix::io::{Errno, pread};
use sha2::{Digest as _, Sha256};

use crate::beneath::{FileId, examine};

/// The first 96 bits of SHA-256.
pub type Digest = [u8; 12];

/// Bytes of the largest file that is hashed where it is opened.
pub const AT_ONCE: u64 = 65_536;

/// Bytes of the largest file that is hashed at all.
const LARGEST: u64 = 4 << 30;

/// Files that may wait to be hashed; one that finds no room has no tag, and tries again when it is asked for.
const QUEUE: usize = 64;

/// Files whose hash is known at once, some 2 MiB; when there are more, all are forgotten.
const MOST: usize = 16_384;

/// The hash of what is in memory.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    first(&Sha256::digest(bytes))
}

/// What is known of large files, and the thread that finds it out.
#[derive(Debug)]
pub struct Digests {
    /// `None`: it is being hashed.
    known: Arc<Mutex<HashMap<FileId, Option<Digest>>>>,
    /// `None`: there is no thread.
    queue: Option<SyncSender<(OwnedFd, FileId)>>,
}

impl Digests {
    /// Nothing is known yet. Starts the thread.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Digests {
        let known = Arc::<Mutex<HashMap<FileId, Option<Digest>>>>::default();
        let (queue, jobs) = sync_channel::<(OwnedFd, FileId)>(QUEUE);
        let results = Arc::clone(&known);
        let thread = thread::Builder::new().name("sanserve-digest".into()).stack_size(256 * 1024).spawn(move || {
            // It ends with the queue.
            for (fd, identity) in jobs {
                let digest = hash(&fd, &identity);
                let mut known = lock(&results);
                match digest {
                    Some(_) => _ = known.insert(identity, digest),
                    None => _ = known.remove(&identity),
                }
            }
        });
        // Where there can be no thread, large files have no tag.
        Digests { known, queue: thread.is_ok().then_some(queue) }
    }

    /// The hash of this file, if it is known. If not, it will be: ask again later.
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

/// The hash of the content, if it is that of this identity from the first byte to the last.
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
            assert!(start.elapsed() < Duration::from_secs(20), "it is never hashed");
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(digest, of_bytes(&vec![b'x'; 300_000]));
        fs::write(&path, vec![b'y'; 300_000]).unwrap();
        assert_eq!(hash(&fd, &identity), None, "it is another file by now");
        assert_eq!(of_bytes(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}

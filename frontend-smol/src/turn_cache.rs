//! A cache of the file served last within a turn, so that pipelined requests for it need one check.
//!
//! The shared cache checks a file against the disk each time. Within one turn of one connection, nothing is read from
//! the peer, so a check comes after the last byte of all requests of the turn, and is as good as one for each of
//! them. A handler may modify files, so its call resets this cache.

use std::cell::RefCell;
use std::sync::Arc;

use sanserve_core::{FsError, Opened};
use sanserve_server::{Attempt, Cached, Files, OpenFile, OpenJob, OpenOutcome, Shared};

/// The file served last. It is part of the lease, so that its memory is reused.
#[derive(Default)]
pub(crate) struct TurnCache {
    path: Vec<u8>,
    found: Option<(Opened, Arc<Cached>)>,
}

impl TurnCache {
    pub(crate) fn forget(&mut self) {
        self.found = None;
    }
}

/// Opens through the shared cache, for one turn.
pub(crate) struct TurnFiles<'t> {
    shared: &'t Shared,
    recent: RefCell<&'t mut TurnCache>,
}

impl<'t> TurnFiles<'t> {
    pub(crate) fn new(shared: &'t Shared, recent: &'t mut TurnCache) -> TurnFiles<'t> {
        recent.forget();
        TurnFiles { shared, recent: RefCell::new(recent) }
    }

    /// The file of this path, if it was the last one served in this turn.
    fn last(&self, path: &[u8]) -> Option<(Opened, OpenFile)> {
        let recent = self.recent.borrow();
        let (opened, cached) = recent.found.as_ref().filter(|_| recent.path == path)?;
        Some((*opened, OpenFile::Cached(Arc::clone(cached))))
    }

    /// Remembers what was found, if it is a file in memory.
    fn remember(&self, path: &[u8], found: &Result<(Opened, OpenFile), FsError>) {
        if let Ok((opened, OpenFile::Cached(cached))) = found {
            let mut recent = self.recent.borrow_mut();
            recent.found = Some((*opened, Arc::clone(cached)));
            recent.path.clear();
            recent.path.extend_from_slice(path);
        }
    }
}

impl Files for TurnFiles<'_> {
    fn arrived(&self) {
        self.recent.borrow_mut().forget();
    }

    fn open(&self, path: &[u8]) -> Result<(Opened, OpenFile), FsError> {
        if let Some(found) = self.last(path) {
            return Ok(found);
        }
        let found = self.shared.open(path);
        self.remember(path, &found);
        found
    }

    fn try_open(&self, path: &[u8], only_file: bool) -> Attempt {
        if let Some(found) = self.last(path) {
            return Attempt::Done(Ok(found));
        }
        let attempt = self.shared.try_open(path, only_file);
        if let Attempt::Done(found) = &attempt {
            self.remember(path, found);
        }
        attempt
    }

    fn open_later(&self, path: &[u8], only_file: bool) -> Option<OpenJob> {
        self.shared.open_later(path, only_file)
    }

    /// The file was opened before this turn, so it is not remembered.
    fn finish(&self, outcome: OpenOutcome) -> Result<(Opened, OpenFile), FsError> {
        self.shared.finish(outcome)
    }
}

impl Drop for TurnFiles<'_> {
    fn drop(&mut self) {
        self.arrived();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::fs;

    use sanserve_os::{Root, Symlinks};
    use sanserve_server::CacheLimits;

    use super::*;

    fn content(found: Result<(Opened, OpenFile), FsError>) -> Vec<u8> {
        let Ok((_, OpenFile::Cached(cached))) = found else { panic!("not cached: {found:?}") };
        cached.bytes().to_vec()
    }

    #[test]
    fn one_check_is_good_for_one_turn_and_one_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        fs::write(dir.path().join("b"), "b").unwrap();
        let root = Arc::new(Root::open(dir.path(), Symlinks::Follow).unwrap());
        let shared = Shared::new(root, CacheLimits::default().with_settled(Duration::ZERO));
        let mut recent = TurnCache::default();
        let files = TurnFiles::new(&shared, &mut recent);
        assert_eq!(content(files.open(b"a")), b"old");
        fs::write(&path, "newer").unwrap();
        assert_eq!(content(files.open_file(b"a")), b"old", "the same turn");
        assert_eq!(content(files.open(b"b")), b"b");
        assert_eq!(content(files.open(b"a")), b"newer", "another file was served in between");
        fs::write(&path, "newest of all").unwrap();
        files.arrived();
        assert_eq!(content(files.open(b"a")), b"newest of all", "a handler was called");
        fs::write(&path, "next").unwrap();
        drop(files);
        assert!(recent.found.is_none(), "nothing is held between turns");
        assert_eq!(content(TurnFiles::new(&shared, &mut recent).open(b"a")), b"next");
    }
}

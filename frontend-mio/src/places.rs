//! The bound on connections, which all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of all connections of a server. A worker takes one before it accepts and gives it
/// back when the connection has closed; requests do not come here.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) most: usize,
    taken: AtomicUsize,
    /// Workers with clients at the door and no place for them.
    pub(crate) waiting: AtomicUsize,
}

impl Places {
    pub(crate) fn new(most: usize) -> Places {
        Places { most, taken: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place that is given back when this is dropped.
pub(crate) struct Place(Arc<Places>);

impl Place {
    /// Looks after a place that was taken.
    pub(crate) fn new(places: Arc<Places>) -> Place {
        Place(places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_there_are() {
        let places = Places::new(2);
        assert_eq!([places.take(), places.take(), places.take(), places.take()], [true, true, false, false]);
        places.give_back();
        assert_eq!([places.take(), places.take()], [true, false]);
    }
}

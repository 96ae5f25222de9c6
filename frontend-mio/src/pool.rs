//! Memory for busy connections, used again.

use crate::turn::Busy;

/// Leases that are kept; what is beyond them is freed.
const MOST: usize = 128;

/// What no connection leases at the moment.
#[derive(Default)]
pub(crate) struct Pool {
    // Boxed, because a lease moves between the pool and its connection all the time.
    #[expect(clippy::vec_box)]
    free: Vec<Box<Busy>>,
}

impl Pool {
    pub(crate) fn take(&mut self) -> Option<Box<Busy>> {
        self.free.pop()
    }

    /// Takes a lease back, with as much memory as an ordinary exchange needs.
    pub(crate) fn give_back(&mut self, mut busy: Box<Busy>) {
        if self.free.len() < MOST {
            busy.buffers.recycle();
            busy.slot.clear();
            self.free.push(busy);
        }
    }
}

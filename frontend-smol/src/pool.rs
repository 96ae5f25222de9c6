//! A pool of what a busy connection leases: buffers, the slot, a logger, the time. An idle connection holds none of
//! it.
//!
//! The lease that was given back last is leased first, since it is still in the processor's cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sanserve_core::Now;
use sanserve_os::Clock;
use sanserve_server::{Logger, Site, Workspace};

use crate::lane::Pass;
use crate::script::Pipes;
use crate::turn_cache::TurnCache;
use crate::wake_flag::WakeFlag;

/// The most unused leases that are kept; further ones are freed.
pub(crate) const MAX_POOLED: usize = 64;

/// The memory of one busy connection.
pub(crate) struct Lease {
    pub(crate) space: Workspace,
    /// The script that the connection waits for.
    pub(crate) script: Option<Pipes>,
    /// Wakes the connection for its portable handler, if that has asked for a waker.
    pub(crate) wake_flag: Option<Arc<WakeFlag>>,
    /// The connection's place in the queue of tasks with long steps.
    pub(crate) pass: Option<Pass>,
    pub(crate) log: Logger,
    /// Empty between turns.
    pub(crate) recent: TurnCache,
    /// Read once per turn. Kept here, since the date in it is formatted once a second.
    pub(crate) now: Now,
}

#[derive(Default)]
pub(crate) struct Pool {
    #[allow(clippy::vec_box, reason = "a lease is passed on as a pointer, not copied")]
    free: Mutex<Vec<Box<Lease>>>,
}

impl Pool {
    pub(crate) fn lease(&self, site: &Site, clock: &Clock) -> Box<Lease> {
        let pooled = self.free().pop();
        pooled.unwrap_or_else(|| {
            Box::new(Lease {
                space: Workspace::new(site),
                script: None,
                wake_flag: None,
                pass: None,
                log: site.log().logger(),
                recent: TurnCache::default(),
                now: clock.now(),
            })
        })
    }

    /// Takes back a lease that holds nothing of a connection any more.
    pub(crate) fn give_back(&self, mut lease: Box<Lease>) {
        debug_assert!(lease.space.slot.is_empty());
        lease.log.flush();
        let mut free = self.free();
        if free.len() < MAX_POOLED {
            free.push(lease);
        }
    }

    #[allow(clippy::vec_box, reason = "as above")]
    fn free(&self) -> MutexGuard<'_, Vec<Box<Lease>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

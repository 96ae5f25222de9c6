//! A pool of memory for busy connections.

use std::cell::OnceCell;

use sanserve_server::{Session, Site, Workspace};

use crate::script::Watch;
use crate::waker::ExchangeWaker;

/// A busy connection and the memory that it leases.
pub(crate) struct Busy {
    pub(crate) session: Session,
    /// Made when the handler of the current exchange asks for a waker.
    pub(crate) conn_waker: OnceCell<ExchangeWaker>,
    /// Made when the exchange waits for a disk.
    pub(crate) disk_waker: OnceCell<ExchangeWaker>,
    pub(crate) space: Workspace,
    pub(crate) script: Watch,
}

impl Busy {
    fn new(session: Session, site: &Site) -> Busy {
        Busy {
            session,
            conn_waker: OnceCell::new(),
            disk_waker: OnceCell::new(),
            space: Workspace::new(site),
            script: Watch::default(),
        }
    }
}

/// The number of unused leases that are kept; further ones are freed.
pub(crate) const MAX_FREE: usize = 128;

/// The leases that no connection holds at the moment.
#[derive(Default)]
pub(crate) struct Pool {
    // Boxed, because a lease moves between the pool and its connection all the time.
    #[expect(clippy::vec_box)]
    free: Vec<Box<Busy>>,
}

impl Pool {
    /// Returns a lease for this connection.
    pub(crate) fn take(&mut self, session: Session, site: &Site) -> Box<Busy> {
        match self.free.pop() {
            Some(mut busy) => {
                busy.session = session;
                busy
            }
            None => Box::new(Busy::new(session, site)),
        }
    }

    /// Takes a lease back. It keeps as much memory as an ordinary exchange needs.
    pub(crate) fn give_back(&mut self, mut busy: Box<Busy>) {
        busy.session.connection.end_observation();
        if self.free.len() < MAX_FREE {
            busy.space.clear();
            busy.conn_waker.take();
            busy.disk_waker.take();
            self.free.push(busy);
        }
    }
}

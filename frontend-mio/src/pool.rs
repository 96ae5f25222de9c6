//! A pool of memory for busy connections.

use sanserve_server::{Session, Site};

use crate::parked::Busy;

/// The number of unused leases that are kept; further ones are freed.
const MOST: usize = 128;

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
        if self.free.len() < MOST {
            busy.space.clear();
            busy.conn_waker.take();
            self.free.push(busy);
        }
    }
}

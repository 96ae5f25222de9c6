//! Memory for busy connections, used again.

use sanserve_server::{Session, Site};

use crate::parked::Busy;

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
    /// A lease for this connection.
    pub(crate) fn take(&mut self, session: Session, site: &Site) -> Box<Busy> {
        match self.free.pop() {
            Some(mut busy) => {
                busy.session = session;
                busy
            }
            None => Box::new(Busy::new(session, site)),
        }
    }

    /// Takes a lease back, with as much memory as an ordinary exchange needs.
    pub(crate) fn give_back(&mut self, mut busy: Box<Busy>) {
        busy.session.connection.end_observation();
        if self.free.len() < MOST {
            busy.space.clear();
            busy.conn_waker.take();
            self.free.push(busy);
        }
    }
}

//! Memory for busy connections, used again.

use sanserve_core::Connection;
use sanserve_server::Service;

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
    pub(crate) fn take(&mut self, connection: Connection, service: &Service) -> Box<Busy> {
        match self.free.pop() {
            Some(mut busy) => {
                busy.connection = connection;
                busy
            }
            None => Box::new(Busy::new(connection, service.buffers())),
        }
    }

    /// Takes a lease back, with as much memory as an ordinary exchange needs.
    pub(crate) fn give_back(&mut self, mut busy: Box<Busy>) {
        busy.connection.end_observation();
        if self.free.len() < MOST {
            busy.buffers.recycle();
            busy.slot.clear();
            busy.alarm.take();
            self.free.push(busy);
        }
    }
}

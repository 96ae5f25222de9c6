//! Connections that are waiting while their workspace serves others.

use sanserve_core::Packed;

use crate::lifecycle::InProgress;
use crate::session::{Session, Workspace};
use crate::slot::Aside;

/// What is kept of the workspace of a connection that waits for its handler or for a slow peer: the head of its request,
/// or the first line of it, and the open file.
#[derive(Debug)]
pub struct PutAway {
    packed: Packed,
    /// Boxed, so that connections without a file are small.
    file: Option<Box<Aside>>,
    in_progress: Option<InProgress>,
}

impl Session {
    /// Reduces a connection to a few hundred bytes that has just returned [`Turn::Wait`](crate::Turn::Wait) and needs
    /// `handler` or `write` of [`Need`](sanserve_core::Need), but no `completion`, or that has just returned
    /// [`Turn::Yield`](crate::Turn::Yield). `space` can serve other connections
    /// until [`take_out`](Self::take_out). Returns `None` if the connection holds more than can be put away.
    pub fn put_away(&mut self, space: &mut Workspace) -> Option<PutAway> {
        let file = space.slot.set_aside();
        if !space.slot.is_empty() {
            return None;
        }
        let Some(packed) = self.connection.pack(&mut space.buffers) else {
            if let Some(file) = file {
                space.slot.take_back(*file);
            }
            return None;
        };
        Some(PutAway { packed, file, in_progress: space.in_progress.take() })
    }

    /// Restores what was put away into `space`, which must be empty. Call this before any other method of the session.
    pub fn take_out(&mut self, put_away: PutAway, space: &mut Workspace) {
        let PutAway { packed, file, in_progress } = put_away;
        self.connection.unpack(&packed, &mut space.buffers);
        if let Some(file) = file {
            space.slot.take_back(*file);
        }
        space.in_progress = in_progress;
    }
}

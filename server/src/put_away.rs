//! Connections that wait while their workspace serves others.

use sanserve_core::Packed;

use crate::lifecycle::InProgress;
use crate::session::{Session, Workspace};
use crate::slot::SentFile;

/// The part of a workspace that is kept for a connection that waits for its handler or for a slow peer: the head of the
/// request, or its first line, and the open file.
#[derive(Debug)]
pub struct PutAway {
    packed: Packed,
    /// Boxed, so that connections without a file are small.
    file: Option<Box<SentFile>>,
    in_progress: Option<InProgress>,
}

impl Session {
    /// Reduces a connection to a few hundred bytes, so that `space` can serve others until [`take_out`](Self::take_out).
    /// Returns `None` if the connection holds more than can be put away.
    ///
    /// Call it after [`Turn::Yield`](crate::Turn::Yield), or after a [`Turn::Wait`](crate::Turn::Wait) whose
    /// [`Need`](sanserve_core::Need) is `handler` or `write`, but not `completion`.
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

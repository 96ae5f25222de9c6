//! What is kept of a slot while the connection waits for a slow peer.

use sanserve_core::Opened;

use super::{Samples, Slot};
use crate::cache::OpenFile;

/// The file that is being sent, and the state of its checks; see [`Slot::set_aside`].
#[derive(Debug)]
pub(crate) struct Aside {
    file: OpenFile,
    opened: Option<Opened>,
    begun: bool,
    attached: Option<u64>,
    samples: Samples,
    samples_due: Option<(u64, u64)>,
    is_cold: bool,
}

impl Slot {
    /// Takes the file that is being sent out of the slot, so that the slot can serve other connections until the socket is
    /// writable. Returns `None` if there is no file, or if the slot holds anything else.
    pub(crate) fn set_aside(&mut self) -> Option<Box<Aside>> {
        let Slot { batch, directory, spool, script, underway, piece, .. } = self;
        let has_more = directory.is_some() || spool.is_some() || script.is_some();
        if !batch.is_empty() || has_more || underway.is_some() || piece.is_some() {
            return None;
        }
        let file = self.file.take()?;
        let samples = std::mem::take(&mut self.samples);
        let (samples_due, is_cold) = (self.samples_due.take(), self.is_cold);
        let Slot { opened, begun, attached, .. } = self;
        Some(Box::new(Aside {
            file,
            opened: *opened,
            begun: *begun,
            attached: *attached,
            samples,
            samples_due,
            is_cold,
        }))
    }

    /// Puts the file back into an empty slot.
    pub(crate) fn take_back(&mut self, aside: Aside) {
        debug_assert!(self.is_empty());
        let Aside { file, opened, begun, attached, samples, samples_due, is_cold } = aside;
        self.file = Some(file);
        (self.opened, self.begun, self.attached, self.samples) = (opened, begun, attached, samples);
        (self.samples_due, self.is_cold) = (samples_due, is_cold);
    }
}

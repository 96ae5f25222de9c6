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
}

impl Slot {
    /// Takes the file that is being sent out of the slot, so that the slot can serve other connections until the socket is
    /// writable. Returns `None` if there is no file, or if the slot holds anything else.
    pub(crate) fn set_aside(&mut self) -> Option<Box<Aside>> {
        let Slot { batch, directory, spool, script, .. } = self;
        if !batch.is_empty() || directory.is_some() || spool.is_some() || script.is_some() {
            return None;
        }
        let file = self.file.take()?;
        let samples = std::mem::take(&mut self.samples);
        Some(Box::new(Aside { file, opened: self.opened, begun: self.begun, attached: self.attached, samples }))
    }

    /// Puts the file back into an empty slot.
    pub(crate) fn take_back(&mut self, aside: Aside) {
        debug_assert!(self.is_empty());
        let Aside { file, opened, begun, attached, samples } = aside;
        self.file = Some(file);
        (self.opened, self.begun, self.attached, self.samples) = (opened, begun, attached, samples);
    }
}

//! Ciphertext that waits to be sent.

/// The room that is allocated at first: enough for the flights of most handshakes and for small responses.
const FIRST: usize = 4 * 1024;

/// Bytes that are put at the end and sent from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// All of it is initialized; `start..end` waits to be sent.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn sent(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Has `make` put bytes at the end, for which this much room is likely to be enough. `make` returns how many, or
    /// how much room it needs.
    pub(crate) fn put(&mut self, likely: usize, mut make: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
        let mut needed = likely;
        loop {
            self.make_room(needed);
            match make(&mut self.bytes[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return;
                }
                Err(required) => needed = required.max(needed + 1),
            }
        }
    }

    fn make_room(&mut self, room: usize) {
        if self.bytes.len() - self.end < room && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let len = self.end + room;
        if self.bytes.len() < len {
            self.bytes.resize(len.max(FIRST), 0);
        }
    }

    /// Frees the memory if nothing waits.
    pub(crate) fn shrink(&mut self) {
        if self.start == self.end {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_were_put() {
        let mut outgoing = Outgoing::default();
        let (mut put, mut sent) = (Vec::new(), Vec::new());
        for round in 0..200_usize {
            let piece = vec![round as u8; round * 37 % 5_000];
            outgoing.put(10, |room| {
                let room = room.get_mut(..piece.len()).ok_or(piece.len())?;
                room.copy_from_slice(&piece);
                Ok(piece.len())
            });
            put.extend_from_slice(&piece);
            let n = outgoing.len().min(round * 31 % 4_000);
            sent.extend_from_slice(&outgoing.unsent()[..n]);
            outgoing.sent(n);
        }
        sent.extend_from_slice(outgoing.unsent());
        outgoing.sent(outgoing.len());
        assert_eq!(put, sent);
        outgoing.shrink();
        assert_eq!(outgoing.capacity(), 0);
    }
}

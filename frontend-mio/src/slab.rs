//! Storage for connections, by number. It grows one block at a time, so that growing never copies existing
//! connections, nor doubles the memory.

/// Values by number. The numbers of removed values are reused, the latest first.
pub(crate) struct Slab<T> {
    blocks: Vec<Box<[Option<T>]>>,
    free: Vec<u32>,
    len: usize,
}

const BLOCK: usize = 64;

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { blocks: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number that the next value will get.
    pub(crate) fn vacant(&mut self) -> u32 {
        if self.free.is_empty() {
            let first = self.blocks.len() * BLOCK;
            self.blocks.push((0..BLOCK).map(|_| None).collect());
            self.free.extend(
                (first..first + BLOCK).rev().map(|at| u32::try_from(at).expect("fewer connections than descriptors")),
            );
        }
        *self.free.last().expect("a block was just added")
    }

    /// Inserts a value under the number that [`vacant`](Self::vacant) returned.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let at = self.vacant();
        self.free.pop();
        self.len += 1;
        *self.place(at).expect("a vacant place") = Some(value);
        at
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.place(at)?.as_mut()
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.place(at)?.take()?;
        self.free.push(at);
        self.len -= 1;
        Some(value)
    }

    /// The numbers of all values.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        let all = self.blocks.iter().flat_map(|block| block.iter());
        all.zip(0..).filter(|(value, _)| value.is_some()).map(|(_, at)| at).collect()
    }

    fn place(&mut self, at: u32) -> Option<&mut Option<T>> {
        self.blocks.get_mut(at as usize / BLOCK)?.get_mut(at as usize % BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_reused() {
        let mut slab = Slab::new();
        for value in 0..200 {
            let vacant = slab.vacant();
            assert_eq!(slab.insert(value), vacant);
        }
        assert_eq!(slab.len(), 200);
        assert_eq!(slab.remove(70), Some(70));
        assert_eq!(slab.remove(70), None);
        assert!(slab.get_mut(70).is_none() && slab.get_mut(1_000_000).is_none());
        assert_eq!(slab.vacant(), 70);
        assert_eq!(slab.insert(7), 70);
        assert_eq!(slab.get_mut(70), Some(&mut 7));
        assert_eq!(slab.numbers().len(), 200);
    }
}

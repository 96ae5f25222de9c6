//! Deterministic random numbers, the same on every machine: splitmix64.

/// A stream of numbers that is determined by its seed.
///
/// ```
/// use sanserve_testing::Random;
///
/// let (mut a, mut b) = (Random::new(7), Random::new(7));
/// assert_eq!((a.next(), a.within(1, 6)), (b.next(), b.within(1, 6)));
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "an endless stream of u64 needs no adapters")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number less than `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number from `low` to `high`, both inclusive.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True with a probability of 1 in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One element.
    ///
    /// # Panics
    /// If `of` is empty.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }

    /// A size from 1 to `most`. All orders of magnitude are equally likely.
    pub fn size(&mut self, most: u64) -> u64 {
        let bits = self.within(0, u64::from(u64::BITS - most.leading_zeros()));
        let highest = u32::try_from(bits).ok().and_then(|bits| 1_u64.checked_shl(bits)).unwrap_or(u64::MAX);
        self.within(1, highest.min(most))
    }

    /// `n` random bytes.
    pub fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Mixes the bits of a number.
#[must_use]
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_numbers() {
        let mut random = Random::new(1);
        assert_eq!([random.next(), random.next()], [0x1dfd_cec4_ec04_f63f, 0xd2f9_9e76_1c6d_8b30]);
    }

    #[test]
    fn sizes_are_within_their_bounds() {
        let mut random = Random::new(2);
        for most in [1, 2, 3, 1_000, u64::MAX] {
            for _ in 0..200 {
                assert!((1..=most).contains(&random.size(most)), "{most}");
            }
        }
    }
}

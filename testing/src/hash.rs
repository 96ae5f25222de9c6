//! The hash of a history: FNV-1a with 128 bits, implemented here so that it is the same on every machine and with every
//! compiler.

use std::fmt;

/// FNV-1a, 128 bits: `hash = (hash ^ byte) * prime` for each byte, starting from the offset basis of the
/// [reference](http://www.isthe.com/chongo/tech/comp/fnv/). It is not cryptographic: it only distinguishes histories
/// that differ by accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u128);

impl Fnv {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;

    /// The hash of no bytes.
    #[must_use]
    pub fn new() -> Fnv {
        Fnv(Fnv::BASIS)
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Fnv::PRIME);
        }
    }
}

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv::new()
    }
}

/// Formats the hash as 32 hexadecimal digits.
impl fmt::Display for Fnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_vectors_match() {
        let of = |text: &str| {
            let mut hash = Fnv::new();
            hash.write(text.as_bytes());
            hash.to_string()
        };
        assert_eq!(of(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(of("a"), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(of("foobar"), "343e1662793c64bf6f0d3597ba446f18");
    }
}

//! One hash over everything that was received: over each piece and its length.

use std::fmt;

use sanserve_testing::Fnv;

/// A hash in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash(Fnv);

impl Hash {
    /// Adds the length of a piece, then the piece, so that different splits give different hashes.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.0.write(&(piece.len() as u64).to_le_bytes());
        self.0.write(piece);
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Masks what differs from run to run: the value of each `Date` field.
pub(crate) fn masked(bytes: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\r\nDate: ";
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = masked[at..].windows(NAME.len()).position(|window| window == NAME) {
        at += found + NAME.len();
        let len = masked[at..].iter().position(|&byte| byte == b'\r').unwrap_or(masked.len() - at);
        masked[at..at + len].fill(b'*');
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test values of FNV-1a.
    #[test]
    fn test_values_of_fnv_1a() {
        for (text, expected) in [
            ("", "6c62272e07bb014262b821756295c58d"),
            ("a", "d228cb696f1a8caf78912b704e4a8964"),
            ("foobar", "343e1662793c64bf6f0d3597ba446f18"),
        ] {
            let mut hash = Hash::default();
            hash.0.write(text.as_bytes());
            assert_eq!(hash.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn the_split_affects_the_hash() {
        let of = |pieces: &[&str]| {
            let mut hash = Hash::default();
            pieces.iter().for_each(|piece| hash.add(piece.as_bytes()));
            hash
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["", "a"]), of(&["a", ""]));
    }

    #[test]
    fn dates_are_masked_and_nothing_else() {
        let text = b"HTTP/1.1 200 OK\r\nDate: x, y\r\nLast-Modified: z\r\n\r\nThe Date: a\r\nDate: b";
        let expected = b"HTTP/1.1 200 OK\r\nDate: ****\r\nLast-Modified: z\r\n\r\nThe Date: a\r\nDate: *";
        assert_eq!(masked(text), expected);
    }
}

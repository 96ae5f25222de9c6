//! Telling fields from bodies in what a peer sends, for those who watch the bytes go by.

use std::ops::Range;

use super::decode::Decoder;
use super::framing::Framing;
use super::head::{Head, Scan};
use crate::config::Limits;

/// Follows the bytes of a peer as a connection frames them: which are lines of heads and of trailer sections, and which
/// are of bodies.
///
/// A recorder blanks out credentials by it, in fields and nowhere else.
///
/// ```
/// use sanserve_core::{Limits, Tracker};
///
/// let mut tracker = Tracker::new(&Limits::default());
/// let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
/// assert_eq!(tracker.track(&[head, &b"Host:"[..]].concat()), (head.len(), 0..head.len()));
/// assert_eq!(tracker.track(b"Host:GET"), (5, 0..0));
/// assert!(tracker.is_between());
/// ```
pub struct Tracker {
    limits: Limits,
    reading: Reading,
}

/// What the next byte from the peer is a part of.
enum Reading {
    /// A head, of which this has come.
    Head(Vec<u8>, Scan),
    Body(Decoder),
    /// It does not matter: the connection ends after a violation.
    Anything,
}

impl Reading {
    fn anew() -> Reading {
        Reading::Head(Vec::new(), Scan::default())
    }
}

impl Tracker {
    /// At the start of a connection with these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Tracker {
        Tracker { limits: limits.clone(), reading: Reading::anew() }
    }

    /// Whether no byte of the next head has come.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(&self.reading, Reading::Head(head, _) if head.is_empty())
    }

    /// Looks at the next bytes: how many of them it has followed, and which of those may be lines of a head or of a
    /// trailer section. To be called again with the others. Behind a violation nobody knows what bytes are: all may be.
    pub fn track(&mut self, bytes: &[u8]) -> (usize, Range<usize>) {
        match &mut self.reading {
            Reading::Head(head, scan) => {
                let held = head.len();
                head.extend_from_slice(bytes);
                let (n, next) = match find_end(head, scan, &self.limits) {
                    Ok((_, None)) => (bytes.len(), None),
                    Ok((blank, Some(end))) => (blank + end - held, Some(behind(&head[..end], &self.limits))),
                    Err(()) => (bytes.len(), Some(Reading::Anything)),
                };
                if let Some(next) = next {
                    self.reading = next;
                }
                (n, 0..n)
            }
            Reading::Body(decoder) => match decoder.decode(bytes, &self.limits) {
                Ok(piece) => {
                    decoder.took(piece.data);
                    let is_over = piece.end && piece.data == 0;
                    if is_over || *decoder == Decoder::Length(0) {
                        self.reading = Reading::anew();
                    }
                    (piece.skip + piece.data, piece.trailers.min(piece.skip)..piece.skip)
                }
                Err(_) => {
                    self.reading = Reading::Anything;
                    (bytes.len(), 0..bytes.len())
                }
            },
            Reading::Anything => (bytes.len(), 0..bytes.len()),
        }
    }
}

/// Takes leading empty lines away and looks for the end of the head: how many bytes these were, and where it is.
fn find_end(head: &mut Vec<u8>, scan: &mut Scan, limits: &Limits) -> Result<(usize, Option<usize>), ()> {
    let mut blank = 0;
    while scan.blank_line(&head[blank..], limits).map_err(drop)? {
        blank += 2;
    }
    head.drain(..blank);
    Ok((blank, scan.find_end(head, limits).map_err(drop)?))
}

/// What comes after this head.
fn behind(bytes: &[u8], limits: &Limits) -> Reading {
    let mut head = Head::default();
    let framing = head.parse(bytes).map_err(drop).and_then(|()| Framing::of(&head, bytes, limits).map_err(drop));
    match framing {
        Ok(Framing::None | Framing::Length(0)) => Reading::anew(),
        Ok(Framing::Length(length)) => Reading::Body(Decoder::Length(length)),
        Ok(Framing::Chunked) => Reading::Body(Decoder::chunked(limits)),
        Err(()) => Reading::Anything,
    }
}

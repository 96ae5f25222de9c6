//! Distinguishes fields from bodies in what a peer sends, for observers of the bytes.

use std::ops::Range;

use super::decode::Decoder;
use super::framing::Framing;
use super::head::{Head, Scan};
use crate::config::Limits;

/// Follows the bytes of a peer with the framing that a connection would apply: which bytes are lines of heads or
/// trailer sections, and which are bodies.
///
/// A recorder uses it to mask credentials in fields, and nowhere else.
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

/// What the next byte from the peer belongs to.
enum Reading {
    /// A head, with what has arrived of it.
    Head(Vec<u8>, Scan),
    Body(Decoder),
    /// Unknown, after a violation. The connection closes.
    Anything,
}

impl Reading {
    fn anew() -> Reading {
        Reading::Head(Vec::new(), Scan::default())
    }
}

impl Tracker {
    /// Creates a tracker for a new connection with these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Tracker {
        Tracker { limits: limits.clone(), reading: Reading::anew() }
    }

    /// Whether no byte of the next head has arrived.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(&self.reading, Reading::Head(head, _) if head.is_empty())
    }

    /// Follows some of the bytes. Returns how many, and which of them may be lines of a head or of a trailer section.
    /// Call it again with the rest. After a violation, all bytes may be such lines.
    pub fn track(&mut self, bytes: &[u8]) -> (usize, Range<usize>) {
        match &mut self.reading {
            Reading::Head(head, scan) => {
                let held = head.len();
                head.extend_from_slice(bytes);
                let (n, next) = match find_end(head, scan, &self.limits) {
                    Ok((_, None)) => (bytes.len(), None),
                    Ok((blank, Some(end))) => (blank + end - held, Some(after(&head[..end], &self.limits))),
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

/// Removes leading empty lines and looks for the end of the head. Returns the length of the empty lines, and the
/// position of the end.
fn find_end(head: &mut Vec<u8>, scan: &mut Scan, limits: &Limits) -> Result<(usize, Option<usize>), ()> {
    let mut blank = 0;
    while scan.blank_line(&head[blank..], limits).map_err(drop)? {
        blank += 2;
    }
    head.drain(..blank);
    Ok((blank, scan.find_end(head, limits).map_err(drop)?))
}

/// What follows this head.
fn after(bytes: &[u8], limits: &Limits) -> Reading {
    let mut head = Head::default();
    let framing = head.parse(bytes).map_err(drop).and_then(|()| Framing::of(&head, bytes, limits).map_err(drop));
    match framing {
        Ok(Framing::None | Framing::Length(0)) => Reading::anew(),
        Ok(Framing::Length(length)) => Reading::Body(Decoder::Length(length)),
        Ok(Framing::Chunked) => Reading::Body(Decoder::chunked(limits)),
        Err(()) => Reading::Anything,
    }
}

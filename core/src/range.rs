//! Range requests (RFC 9110 section 14): which bytes are requested, and the framing of a multipart response. Whether a
//! range is used at all is decided in `files` and `conditional`.

use std::io::Write;

use crate::grammar::{digits, is_token_byte};
use crate::reason::{Reasons, Rule};

/// A range of bytes, both ends inclusive, as in Content-Range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl ByteRange {
    pub(crate) fn len(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The result of a Range field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The whole representation, because of this rule; `None` if there is no such field.
    Whole(Option<Rule>),
    /// The collected ranges.
    Ranges,
    /// None of the ranges can be satisfied: 416.
    Unsatisfiable,
}

/// Parses a Range field for a representation of `len` bytes, and collects the requested ranges in `ranges`, in the
/// order of the request. Ranges that overlap or are adjacent are combined. If more than `most` remain, or more than
/// [`READ_FOR_EACH`] times as many were requested, the whole representation is sent.
/// RFC 9110 section 14.2: "A server that supports range requests MAY ignore or reject a Range header field that
/// contains an invalid ranges-specifier ..., a ranges-specifier with more than two overlapping ranges, or a set of many
/// small ranges that are not listed in ascending order".
pub(crate) fn parse(value: &[u8], len: u64, most: usize, ranges: &mut Vec<ByteRange>) -> Asked {
    parse_with(value, len, most, ranges, |_, _| {})
}

/// Records how a Range field is interpreted.
pub(crate) fn explain(value: &[u8], len: u64, most: usize, reasons: &mut Reasons) {
    let asked = parse_with(value, len, most, &mut Vec::new(), |rule, item| reasons.note(rule, item));
    if let Asked::Whole(Some(rule)) = asked {
        reasons.note(rule, value);
    }
}

/// `saw` is called with a rule about a single range, and that range.
fn parse_with(value: &[u8], len: u64, most: usize, ranges: &mut Vec<ByteRange>, saw: impl FnMut(Rule, &[u8])) -> Asked {
    ranges.clear();
    match collect(value, len, most, ranges, saw) {
        Ok(()) if ranges.is_empty() => Asked::Unsatisfiable,
        Ok(()) => Asked::Ranges,
        Err(rule) => Asked::Whole(Some(rule)),
    }
}

/// The number of ranges that are parsed for each part that may be sent. Bounded, since combining ranges takes time.
const READ_FOR_EACH: usize = 4;

/// Collects the satisfiable ranges, or returns the rule by which the field is ignored.
fn collect(
    value: &[u8],
    len: u64,
    most: usize,
    ranges: &mut Vec<ByteRange>,
    mut saw: impl FnMut(Rule, &[u8]),
) -> Result<(), Rule> {
    let equals = memchr::memchr(b'=', value).ok_or(Rule::RangeInvalid)?;
    if !value[..equals].eq_ignore_ascii_case(b"bytes") {
        return Err(Rule::RangeUnit);
    }
    let mut seen = 0;
    for item in value[equals + 1..].split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        if item.is_empty() {
            continue;
        }
        seen += 1;
        if seen > most.saturating_mul(READ_FOR_EACH) {
            return Err(Rule::RangesTooMany);
        }
        let spec = Spec::parse(item).ok_or(Rule::RangeInvalid)?;
        // For an empty file, a range from the beginning is the whole file, which Content-Range cannot express. Caches
        // that fetch slices send such a range with every request.
        if len == 0 && spec.begins_at_zero() {
            return Err(Rule::RangeOfNothing);
        }
        match spec.within(len) {
            Some(range) => {
                if insert(range, ranges) {
                    saw(Rule::RangesJoined, item);
                }
                if ranges.len() > most {
                    return Err(Rule::RangesTooMany);
                }
            }
            None => saw(Rule::RangeBeyond, item),
        }
    }
    if seen > 0 { Ok(()) } else { Err(Rule::RangeInvalid) }
}

/// A range of the request (RFC 9110 section 14.1.2).
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

impl Spec {
    fn parse(item: &[u8]) -> Option<Spec> {
        let dash = memchr::memchr(b'-', item)?;
        let (first, last) = (&item[..dash], &item[dash + 1..]);
        match (first, last) {
            (b"", b"") => None,
            (b"", suffix) => Some(Spec::Suffix(saturating(suffix)?)),
            (first, b"") => Some(Spec::From { first: saturating(first)?, last: None }),
            (first, last) => {
                let (first, last) = (saturating(first)?, saturating(last)?);
                (first <= last).then_some(Spec::From { first, last: Some(last) })
            }
        }
    }

    /// Whether it includes the beginning of an empty file.
    fn begins_at_zero(&self) -> bool {
        matches!(self, Spec::From { first: 0, .. } | Spec::Suffix(1..))
    }

    /// The bytes that are requested of `len`; `None` if the range is not satisfiable.
    fn within(&self, len: u64) -> Option<ByteRange> {
        let end = len.saturating_sub(1);
        match *self {
            Spec::From { first, last } => {
                (first < len).then(|| ByteRange { first, last: last.unwrap_or(end).min(end) })
            }
            Spec::Suffix(0) => None,
            Spec::Suffix(suffix) => Some(ByteRange { first: len.saturating_sub(suffix), last: end }),
        }
    }
}

/// Parses digits. A number that does not fit in 64 bits is beyond the end of any file.
fn saturating(text: &[u8]) -> Option<u64> {
    text.iter().all(u8::is_ascii_digit).then(|| digits(text).unwrap_or(u64::MAX))
}

/// Adds a range, combined with all that it overlaps or is adjacent to, at the position of the first of them. Returns
/// whether it was combined.
fn insert(mut range: ByteRange, ranges: &mut Vec<ByteRange>) -> bool {
    let joins =
        |a: &ByteRange, b: &ByteRange| a.first <= b.last.saturating_add(1) && b.first <= a.last.saturating_add(1);
    let before = ranges.len();
    let mut place = before;
    while let Some(at) = ranges.iter().position(|other| joins(&range, other)) {
        let other = ranges.remove(at);
        place = place.min(at);
        range = ByteRange { first: range.first.min(other.first), last: range.last.max(other.last) };
    }
    ranges.insert(place.min(ranges.len()), range);
    ranges.len() <= before
}

/// Appends the value of a Content-Range field.
pub(crate) fn write_content_range(range: ByteRange, len: u64, out: &mut Vec<u8>) {
    write!(out, "bytes {}-{}/{len}", range.first, range.last).expect("writing to a Vec does not fail");
}

/// Writes the type of a response with several parts.
pub(crate) fn write_parts_type(boundary: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"multipart/byteranges; boundary=");
    out.extend_from_slice(boundary);
}

/// Appends the boundary and the header of a part of a `multipart/byteranges` body (RFC 9110 section 14.6). The boundary
/// is made from the validators of the file, so an author cannot know it in advance.
pub(crate) fn write_part_head(
    boundary: &[u8],
    kind: impl FnOnce(&mut Vec<u8>),
    range: ByteRange,
    len: u64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary);
    out.extend_from_slice(b"\r\nContent-Type: ");
    kind(out);
    out.extend_from_slice(b"\r\nContent-Range: ");
    write_content_range(range, len, out);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends the end of a `multipart/byteranges` body.
pub(crate) fn write_parts_end(boundary: &[u8], out: &mut Vec<u8>) {
    debug_assert!(boundary.iter().copied().all(is_token_byte));
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary);
    out.extend_from_slice(b"--\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str, len: u64) -> (Asked, Vec<(u64, u64)>) {
        let mut ranges = Vec::new();
        let asked = match parse(value.as_bytes(), len, 4, &mut ranges) {
            Asked::Whole(Some(_)) => Asked::Whole(None),
            asked => asked,
        };
        (asked, ranges.iter().map(|range| (range.first, range.last)).collect())
    }

    #[test]
    fn satisfiable_ranges_are_collected() {
        for (value, expected) in [
            ("bytes=0-0", vec![(0, 0)]),
            ("BYTES=0-", vec![(0, 99)]),
            ("bytes=10-1000", vec![(10, 99)]),
            ("bytes=99-", vec![(99, 99)]),
            ("bytes=-1", vec![(99, 99)]),
            ("bytes=-1000", vec![(0, 99)]),
            ("bytes=5-99999999999999999999999", vec![(5, 99)]),
            ("bytes=-99999999999999999999999", vec![(0, 99)]),
            ("bytes=0-9,90-99", vec![(0, 9), (90, 99)]),
            ("bytes=90-99 , ,0-9", vec![(90, 99), (0, 9)]),
            ("bytes=0-9,10-19", vec![(0, 19)]),
            ("bytes=0-9,20-29,5-25", vec![(0, 29)]),
            ("bytes=50-59,0-9,20-29,5-55", vec![(0, 59)]),
            ("bytes=0-9,200-", vec![(0, 9)]),
        ] {
            assert_eq!(asked(value, 100), (Asked::Ranges, expected), "{value}");
        }
    }

    #[test]
    fn other_ranges_are_ignored_or_unsatisfiable() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=9-1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "lines=0-9",
            "bytes =0-9",
            "bytes=0-1,3-4,6-7,9-10,12-13",
            "bytes=0-1,x",
            "bytes=0 - 1",
        ] {
            assert_eq!(asked(value, 100).0, Asked::Whole(None), "{value}");
        }
        assert_eq!(asked("bytes=100-", 100).0, Asked::Unsatisfiable);
        assert_eq!(asked("bytes=-0", 100).0, Asked::Unsatisfiable);
        for value in ["bytes=0-", "bytes=0-0", "bytes=0-1048575", "bytes=-5", "bytes=5-,0-", "bytes=0-0,0-0"] {
            assert_eq!(asked(value, 0).0, Asked::Whole(None), "{value}");
        }
        for value in ["bytes=1-", "bytes=5-9", "bytes=-0", "bytes=1-,2-"] {
            assert_eq!(asked(value, 0).0, Asked::Unsatisfiable, "{value}");
        }
        for (count, expected) in [(15, Asked::Ranges), (16, Asked::Ranges), (17, Asked::Whole(None))] {
            assert_eq!(asked(&format!("bytes={}", vec!["0-1"; count].join(",")), 100).0, expected, "{count}");
            let beyond = if expected == Asked::Ranges { Asked::Unsatisfiable } else { expected };
            assert_eq!(asked(&format!("bytes={}", vec!["200-"; count].join(",")), 100).0, beyond, "{count}");
        }
        assert_eq!(asked("bytes=18446744073709551615-18446744073709551615,0-0", u64::MAX).1, [(0, 0)]);
    }
}

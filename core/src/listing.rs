//! Directory listings: the names that a driver pushes in batches, and the page that is made of them.
//!
//! The work of each step is bounded: every batch is sorted when it ends, and the sorted runs are merged while the page
//! is written. So no step sorts or formats a large directory as a whole. Whether a directory is listed is decided in
//! `files`.

use std::cmp::Ordering;

use crate::share::Share;
use crate::tables::byte_table;
use crate::text::{encode_path, escape};

/// The kind of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Anything that is neither a directory nor a symbolic link.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// Whether it refers to a directory.
        directory: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Row {
    at: u32,
    len: u16,
    kind: EntryKind,
}

/// What an entry counts for, in addition to the length of its name.
const ROW: usize = size_of::<Row>();

/// A range of `rows` that is sorted and not written yet.
#[derive(Clone, Copy, Debug)]
struct Run {
    next: u32,
    end: u32,
}

/// The entries of one directory.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    rows: Vec<Row>,
    /// After the last batch, a heap with the run of the least name first.
    runs: Vec<Run>,
    /// The total length of all formatted rows.
    formatted: u64,
    scratch: Vec<u8>,
    most: usize,
    hide_dotfiles: bool,
    overflow: bool,
    /// The entry that exceeded the limit.
    refused: Option<(Vec<u8>, EntryKind)>,
    /// The memory reserved from the budget of the server.
    pub(crate) charged: usize,
}

/// The room that is reserved for a batch: bytes of names, and number of rows.
const BATCH_NAMES: usize = 32 * 1024;
const BATCH_ROWS: usize = 1_024;

impl Listing {
    /// Adds an entry. Returns `false` if the limit is reached: then no more entries are accepted, and the response is
    /// an error. `.` and `..` are skipped, and so are hidden dotfiles.
    pub fn push(&mut self, name: &[u8], kind: EntryKind) -> bool {
        if name == b"." || name == b".." || (self.hide_dotfiles && name.starts_with(b".")) {
            return true;
        }
        let at = u32::try_from(self.names.len());
        let len = u16::try_from(name.len());
        match (at, len) {
            (Ok(at), Ok(len)) if self.held() + ROW + name.len() <= self.most => {
                self.names.extend_from_slice(name);
                self.rows.push(Row { at, len, kind });
            }
            _ if self.overflow => {}
            _ => {
                self.overflow = true;
                self.refused = Some((name.to_vec(), kind));
            }
        }
        !self.overflow
    }

    /// Starts an empty listing of at most `most` bytes.
    pub(crate) fn begin(&mut self, most: usize, hide_dotfiles: bool) {
        self.clear();
        self.formatted = 0;
        self.most = most;
        self.hide_dotfiles = hide_dotfiles;
        self.overflow = false;
        self.refused = None;
    }

    /// Makes room for another batch. Returns `false` if no memory is available.
    pub(crate) fn make_room(&mut self, share: &mut Share) -> bool {
        let bytes = |listing: &Listing| listing.names.capacity() + listing.rows.capacity() * ROW;
        let room = |len: usize, capacity: usize, batch: usize| {
            if capacity - len >= batch { capacity } else { (capacity * 2).max(len + batch) }
        };
        let names = room(self.names.len(), self.names.capacity(), BATCH_NAMES);
        let rows = room(self.rows.len(), self.rows.capacity(), BATCH_ROWS);
        // Includes what the last batch has allocated beyond its reservation.
        let more = (names + rows * ROW).max(bytes(self)).saturating_sub(self.charged);
        if !share.grow(more) {
            return false;
        }
        self.charged += more;
        let has_names = self.names.try_reserve_exact(names - self.names.len()).is_ok();
        has_names && self.rows.try_reserve_exact(rows - self.rows.len()).is_ok()
    }

    /// The number of accepted entries.
    pub(crate) fn taken(&self) -> usize {
        self.rows.len()
    }

    /// The entries that were pushed after the first `taken`, including the one that exceeded the limit.
    pub(crate) fn pushed_after(&self, taken: usize) -> impl Iterator<Item = (&[u8], EntryKind)> {
        let rows = self.rows.get(taken..).unwrap_or_default();
        let rows = rows.iter().map(|row| (name(&self.names, row), row.kind));
        rows.chain(self.refused.iter().map(|(name, kind)| (name.as_slice(), *kind)))
    }

    /// The bytes that count towards the limit.
    pub(crate) fn held(&self) -> usize {
        self.names.len() + self.rows.len() * ROW
    }

    /// Whether the limit was exceeded.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Sorts the entries that were pushed since the last call, and measures the rows that `format` makes of them.
    pub(crate) fn end_batch(&mut self, mut format: impl FnMut(&[u8], EntryKind, &mut Vec<u8>)) {
        let first = self.runs.last().map_or(0, |run| run.end);
        let end = u32::try_from(self.rows.len()).expect("fewer rows than bytes of names");
        if first == end {
            return;
        }
        let names = &self.names;
        let batch = &mut self.rows[first as usize..];
        batch.sort_unstable_by(|a, b| order(name(names, a), name(names, b)));
        for row in batch {
            self.scratch.clear();
            format(name(names, row), row.kind, &mut self.scratch);
            self.formatted += self.scratch.len() as u64;
        }
        self.runs.push(Run { next: first, end });
    }

    /// Orders the runs after the last batch.
    pub(crate) fn end(&mut self) {
        for at in (0..self.runs.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    /// The total length of all formatted rows.
    pub(crate) fn formatted(&self) -> u64 {
        self.formatted
    }

    /// Writes rows with `format` until `out` has at least `enough` bytes. Returns `false` if there are no more rows.
    pub(crate) fn write(
        &mut self,
        mut format: impl FnMut(&[u8], EntryKind, &mut Vec<u8>),
        out: &mut Vec<u8>,
        enough: usize,
    ) -> bool {
        while out.len() < enough {
            let Some(run) = self.runs.first_mut() else { return false };
            let row = self.rows[run.next as usize];
            run.next += 1;
            if run.next == run.end {
                self.runs.swap_remove(0);
            }
            self.sift_down(0);
            format(name(&self.names, &row), row.kind, out);
        }
        !self.runs.is_empty()
    }

    /// Restores the heap property below `at`.
    fn sift_down(&mut self, mut at: usize) {
        let key = |run: &Run| name(&self.names, &self.rows[run.next as usize]);
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.runs.len() && order(key(&self.runs[child]), key(&self.runs[least])).is_lt() {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.runs.swap(at, least);
            at = least;
        }
    }

    fn clear(&mut self) {
        self.names.clear();
        self.rows.clear();
        self.runs.clear();
    }

    pub(crate) fn shrink(&mut self) {
        self.clear();
        self.names.shrink_to(16 * 1024);
        self.rows.shrink_to(1024);
        self.runs.shrink_to(16);
        self.scratch.shrink_to(1024);
    }
}

fn name<'n>(names: &'n [u8], row: &Row) -> &'n [u8] {
    &names[row.at as usize..][..usize::from(row.len)]
}

/// Orders by lower-case name, as Python does, and by bytes if these are equal.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    // Equal bytes are equal in lower case. After an ASCII byte, a character begins, or a byte that is not UTF-8;
    // elsewhere, the equal bytes might end within a character.
    let same = common_prefix(a, b);
    let from = a[..same].iter().rposition(u8::is_ascii).map_or(0, |last| last + 1);
    let (a, b) = (&a[from..], &b[from..]);
    order_lowered(a, b).then_with(|| a.cmp(b))
}

/// The length of the common prefix.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    let word = |eight: &[u8]| u64::from_le_bytes(eight.try_into().expect("eight bytes"));
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let differ = word(x) ^ word(y);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

/// Orders by lower-case name. Bytewise, as long as both names are ASCII.
fn order_lowered(a: &[u8], b: &[u8]) -> Ordering {
    for (at, (x, y)) in a.iter().zip(b).enumerate() {
        if !x.is_ascii() || !y.is_ascii() {
            return lowered(&a[at..]).cmp(lowered(&b[at..]));
        }
        let by_letter = x.to_ascii_lowercase().cmp(&y.to_ascii_lowercase());
        if by_letter.is_ne() {
            return by_letter;
        }
    }
    a.len().cmp(&b.len())
}

/// The code points of a name in lower case. A byte that is not UTF-8 counts as the surrogate that Python uses for it,
/// U+DC80 and up.
fn lowered(name: &[u8]) -> impl Iterator<Item = u32> {
    name.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().flat_map(char::to_lowercase).map(u32::from);
        valid.chain(chunk.invalid().iter().map(|&byte| 0xdc00 + u32::from(byte)))
    })
}

/// The bytes that need no escaping in a link or in text. Most names have no others.
static PLAIN: [bool; 256] =
    byte_table!(byte => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'~'));

/// Appends one row as Python writes it: `<li><a href="a.txt">a.txt</a></li>`, with `/` after a directory and `@` after
/// a symbolic link.
pub fn listing_row(name: &[u8], kind: EntryKind, out: &mut Vec<u8>) {
    let (text_mark, link_mark) = match kind {
        EntryKind::File => ("", ""),
        EntryKind::Directory => ("/", "/"),
        EntryKind::Link { directory: true } => ("@", "/"),
        EntryKind::Link { directory: false } => ("@", ""),
    };
    let is_plain = name.iter().all(|&byte| PLAIN[usize::from(byte)]);
    out.extend_from_slice(b"<li><a href=\"");
    if is_plain {
        out.extend_from_slice(name);
    } else {
        encode_path(name, out);
    }
    out.extend_from_slice(link_mark.as_bytes());
    out.extend_from_slice(b"\">");
    if is_plain {
        out.extend_from_slice(name);
    } else {
        escape(name, out);
    }
    out.extend_from_slice(text_mark.as_bytes());
    out.extend_from_slice(b"</a></li>\n");
}

/// Appends the part of the page before the rows; `path` is the decoded path of the target.
pub(crate) fn write_start(path: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"<!DOCTYPE HTML>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<style type=\"text/css\">\n\
          :root {\ncolor-scheme: light dark;\n}\n</style>\n<title>Directory listing for ",
    );
    escape(path, out);
    out.extend_from_slice(b"</title>\n</head>\n<body>\n<h1>Directory listing for ");
    escape(path, out);
    out.extend_from_slice(b"</h1>\n<hr>\n<ul>\n");
}

/// The part of the page after the rows.
pub(crate) const PAGE_END: &[u8] = b"</ul>\n<hr>\n</body>\n</html>\n";

#[cfg(test)]
mod tests {
    use super::*;
    fn sorted(batches: &[&[&[u8]]]) -> Vec<u8> {
        let names = |name: &[u8], _: EntryKind, out: &mut Vec<u8>| {
            out.extend_from_slice(name);
            out.push(b'\n');
        };
        let mut listing = Listing::default();
        listing.begin(1 << 20, false);
        for batch in batches {
            for name in *batch {
                assert!(listing.push(name, EntryKind::File));
            }
            listing.end_batch(names);
        }
        listing.end();
        let mut all = Vec::new();
        let mut out = Vec::new();
        loop {
            let more = listing.write(names, &mut out, 1);
            all.append(&mut out);
            if !more {
                break;
            }
        }
        assert_eq!(all.len() as u64, listing.formatted());
        all
    }

    #[test]
    fn batches_are_merged_by_lower_case_name() {
        assert_eq!(sorted(&[&[b"b", b"A", b"."], &[], &[b"a", b"C", b"B"]]), b"A\na\nB\nb\nC\n");
        assert_eq!(
            sorted(&[&["Ä".as_bytes(), b"\xff", "ä".as_bytes(), b"z"]]),
            "z\nÄ\nä\n".bytes().chain(*b"\xff\n").collect::<Vec<_>>()
        );
        assert_eq!(sorted(&[]), b"");
    }

    #[test]
    fn the_fast_order_equals_the_simple_one() {
        // Pieces that lower-case to several or to ASCII code points, and parts of characters.
        const PIECES: &[u8] = b"a A b B k K i _ [ 0 same-Part SAME-part \xff \xc3 \xa4 \x84 \xe2\x84 \xaa \
            \xed\xb3\xbf \xf0\x9f\x98 \xc4\xb0 \xcc\x87 \xe2\x84\xaa \xef\xbf\xbf\xf0\x90\x90\x80";
        let pieces: Vec<&[u8]> = PIECES.split(|&byte| byte == b' ').collect();
        assert_eq!(pieces.len() % 4, 0);
        let simple = |a: &[u8], b: &[u8]| lowered(a).cmp(lowered(b)).then_with(|| a.cmp(b));
        let mut state = 0x9e37_79b9_u64;
        let mut below = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % most
        };
        let mut ties = 0;
        for _ in 0..100_000 {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..below(8) {
                let (x, y) = (below(pieces.len()), below(pieces.len()));
                a.extend_from_slice(pieces[x]);
                // Mostly equal or similar pieces, since names that differ at once test little.
                b.extend_from_slice(pieces[if below(8) > 0 { x ^ (below(4) / 3) } else { y }]);
            }
            if below(4) == 0 {
                b.extend_from_slice(pieces[below(pieces.len())]);
            }
            ties += usize::from(a != b && lowered(&a).eq(lowered(&b)));
            assert_eq!(order(&a, &b), simple(&a, &b), "{} {}", a.escape_ascii(), b.escape_ascii());
            assert_eq!(order(&b, &a), simple(&b, &a), "{} {}", b.escape_ascii(), a.escape_ascii());
        }
        assert!(ties > 1000, "only {ties} ties");
    }

    #[test]
    fn many_runs_are_merged() {
        let names: Vec<Vec<u8>> = (0..1000).map(|i| format!("{:04}", i * 7919 % 1000).into_bytes()).collect();
        let batches: Vec<Vec<&[u8]>> = names.chunks(13).map(|c| c.iter().map(Vec::as_slice).collect()).collect();
        let batches: Vec<&[&[u8]]> = batches.iter().map(Vec::as_slice).collect();
        let expected: String = (0..1000).map(|i| format!("{i:04}\n")).collect();
        assert_eq!(sorted(&batches), expected.as_bytes());
    }

    #[test]
    fn rows_are_escaped_for_links_and_text() {
        let mut out = Vec::new();
        listing_row(b"<a&\"b'>:%\xff.txt", EntryKind::File, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<li><a href=\"%3Ca%26%22b%27%3E%3A%25%FF.txt\">&lt;a&amp;&quot;b&#x27;&gt;:%\u{fffd}.txt</a></li>\n"
        );
    }

    #[test]
    fn entries_beyond_the_limit_are_refused() {
        let mut listing = Listing::default();
        listing.begin(ROW + 4, true);
        assert!(listing.push(b".hidden", EntryKind::File));
        assert!(listing.push(b"abcd", EntryKind::File));
        assert!(!listing.push(b"e", EntryKind::File));
        assert!(listing.overflowed());
        listing.end_batch(listing_row);
        assert_eq!(listing.rows.len(), 1);
    }
}

//! Conditional requests (RFC 9110 section 13) and the validators that they compare.

use crate::context::Wall;
use crate::date;
use crate::input::Opened;
use crate::reason::{Reasons, Rule};
use crate::wire::{Head, Known};

/// What identifies one state of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    modified: i64,
    nanos: u32,
    len: u64,
}

/// The longest entity tag, quotes included.
const TAG_MAX: usize = 2 + 17 + 1 + 8 + 1 + 16;

/// An entity tag, quotes included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    text: [u8; TAG_MAX],
    len: u8,
}

impl Tag {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The tag without its quotes.
    pub(crate) fn opaque(&self) -> &[u8] {
        &self.text[1..usize::from(self.len) - 1]
    }

    fn push(&mut self, byte: u8) {
        self.text[usize::from(self.len)] = byte;
        self.len += 1;
    }

    fn push_hex(&mut self, number: u64) {
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let nibble = (number >> (4 * digit)) & 0xf;
            self.push(b"0123456789abcdef"[usize::try_from(nibble).expect("four bits")]);
        }
    }
}

/// The tag that was formatted last: most answers repeat the one before.
#[derive(Debug)]
pub(crate) struct LastTag {
    of: Validators,
    tag: Tag,
}

impl Default for LastTag {
    fn default() -> LastTag {
        let of = Validators { modified: 0, nanos: 0, len: 0 };
        LastTag { of, tag: of.tag() }
    }
}

impl LastTag {
    /// The same as [`Validators::tag`].
    pub(crate) fn format(&mut self, validators: Validators) -> Tag {
        if validators != self.of {
            *self = LastTag { of: validators, tag: validators.tag() };
        }
        self.tag
    }
}

impl From<&Opened> for Validators {
    fn from(opened: &Opened) -> Validators {
        Validators { modified: opened.modified, nanos: opened.modified_nanos, len: opened.len }
    }
}

impl Validators {
    /// The strong entity tag: it changes with the time of modification, to the nanosecond, and with
    /// the length. Not with the inode, so that copies of a tree on several machines agree.
    pub(crate) fn tag(&self) -> Tag {
        let mut tag = Tag { text: [0; TAG_MAX], len: 0 };
        tag.push(b'"');
        if self.modified < 0 {
            tag.push(b'-');
        }
        tag.push_hex(self.modified.unsigned_abs());
        tag.push(b'-');
        tag.push_hex(u64::from(self.nanos));
        tag.push(b'-');
        tag.push_hex(self.len);
        tag.push(b'"');
        tag
    }

    /// The value of `Last-Modified`: never later than the answer (RFC 9110 section 8.8.2.1).
    pub(crate) fn last_modified(&self, now: Wall) -> Wall {
        Wall(self.modified.min(now.0))
    }

    /// Notes how they were made.
    pub(crate) fn explain(&self, now: Wall, reasons: &mut Reasons) {
        let date = self.last_modified(now);
        let is_ours = date.0 == self.modified;
        reasons.note(if is_ours { Rule::LastModified } else { Rule::LastModifiedNow }, &date::imf_fixdate(date));
        reasons.note(Rule::EntityTag, self.tag().as_bytes());
    }
}

/// What the preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Perform,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 section 13.2.2. `current`
/// is `None` for a representation without validators, such as a listing.
pub(crate) fn evaluate(head: &Head, bytes: &[u8], current: Option<&Validators>, reasons: &mut Reasons) -> Verdict {
    use Rule::*;
    let is_current = |given: &Given<'_>| current.is_some_and(|current| current.tag().as_bytes() == given.tag);
    let mut note = |rule, known| reasons.note_with(rule, |out| write_values(head, bytes, known, out));
    let (match_, since) = (Known::IfMatch, Known::IfUnmodifiedSince);
    if head.has(match_) {
        let is_true = any_tag(head, bytes, match_, |given| !given.weak && is_current(given));
        note(if is_true { IfMatchTrue } else { IfMatchFalse }, match_);
        if head.has(since) {
            note(IfUnmodifiedSinceOverruled, since);
        }
        if !is_true {
            return Verdict::Failed;
        }
    } else if head.has(since) {
        let found = Since::of(head, bytes, since, current);
        note(found.rule(IfUnmodifiedSinceTrue, IfUnmodifiedSinceFalse, IfUnmodifiedSinceInvalid), since);
        if found == Since::Changed {
            return Verdict::Failed;
        }
    }
    let (match_, since) = (Known::IfNoneMatch, Known::IfModifiedSince);
    if head.has(match_) {
        let is_true = !any_tag(head, bytes, match_, is_current);
        note(if is_true { IfNoneMatchTrue } else { IfNoneMatchFalse }, match_);
        if head.has(since) {
            note(IfModifiedSinceOverruled, since);
        }
        if !is_true {
            return Verdict::NotModified;
        }
    } else if head.has(since) {
        let found = Since::of(head, bytes, since, current);
        note(found.rule(IfModifiedSinceFalse, IfModifiedSinceTrue, IfModifiedSinceInvalid), since);
        if found == Since::Unchanged {
            return Verdict::NotModified;
        }
    }
    Verdict::Perform
}

/// What a date says about a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// It has not changed since then.
    Unchanged,
    /// It has.
    Changed,
    /// The value is no date, or there is more than one (RFC 9110 sections 13.1.3 and 13.1.4): ignored.
    Invalid,
    /// The representation has no date: ignored.
    NoDate,
}

impl Since {
    fn of(head: &Head, bytes: &[u8], known: Known, current: Option<&Validators>) -> Since {
        match (head.single(known, bytes).and_then(date::parse), current) {
            (None, _) => Since::Invalid,
            (Some(_), None) => Since::NoDate,
            (Some(date), Some(current)) if current.modified > date.0 => Since::Changed,
            (Some(_), Some(_)) => Since::Unchanged,
        }
    }

    fn rule(self, unchanged: Rule, changed: Rule, invalid: Rule) -> Rule {
        match self {
            Since::Unchanged => unchanged,
            Since::Changed => changed,
            Since::Invalid => invalid,
            Since::NoDate => Rule::NoDate,
        }
    }
}

/// Appends the values of a field, as they would stand in one line.
fn write_values(head: &Head, bytes: &[u8], known: Known, out: &mut Vec<u8>) {
    for (at, value) in head.values(known, bytes).enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
    }
}

/// Whether a Range may be obeyed, as far as If-Range has a say (RFC 9110 section 13.1.5): the
/// validator must match exactly, and strongly.
pub(crate) fn if_range(head: &Head, bytes: &[u8], current: &Validators, now: Wall, reasons: &mut Reasons) -> bool {
    if !head.has(Known::IfRange) {
        return true;
    }
    let rule =
        match head.single(Known::IfRange, bytes) {
            None => Rule::IfRangeRepeated,
            Some(value) if value.starts_with(b"\"") || value.starts_with(b"W/") => {
                if value == current.tag().as_bytes() { Rule::IfRangeTag } else { Rule::IfRangeOtherTag }
            }
            Some(value) => match date::parse(value) {
                // A date is strong only if the file cannot have changed again within its second
                // (RFC 9110 section 8.8.2.2).
                Some(date) if date.0 == current.modified && current.modified < now.0 => Rule::IfRangeDate,
                Some(date) if date.0 == current.modified => Rule::IfRangeFresh,
                _ => Rule::IfRangeOtherDate,
            },
        };
    reasons.note_with(rule, |out| write_values(head, bytes, Known::IfRange, out));
    matches!(rule, Rule::IfRangeTag | Rule::IfRangeDate)
}

struct Given<'b> {
    weak: bool,
    /// With its quotes.
    tag: &'b [u8],
}

/// Whether the field is `*`, or lists a tag that `matches`.
fn any_tag(head: &Head, bytes: &[u8], known: Known, matches: impl Fn(&Given<'_>) -> bool) -> bool {
    head.values(known, bytes).any(|value| {
        let mut rest = value.trim_ascii();
        if rest == b"*" {
            return true;
        }
        while let Some((given, after)) = next_tag(rest) {
            if matches(&given) {
                return true;
            }
            rest = after;
        }
        false
    })
}

/// The next entity tag of a list (RFC 9110 section 8.8.3); what is none ends it.
fn next_tag(list: &[u8]) -> Option<(Given<'_>, &[u8])> {
    let skipped = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = &list[skipped..];
    let (weak, quoted) = match list.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, list),
    };
    let inside = quoted.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', inside)?;
    let (tag, rest) = quoted.split_at(end + 2);
    let rest = rest.trim_ascii_start();
    // Behind a tag stands a comma or nothing.
    matches!(rest, [] | [b',', ..]).then_some((Given { weak, tag }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Validators = Validators { modified: 784_111_777, nanos: 5, len: 0x10 };
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const TAG: &str = "\"2ebc98a1-5-10\"";

    fn head(fields: &str) -> (Head, Vec<u8>) {
        let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        (head, bytes)
    }

    fn verdict(fields: &str) -> Verdict {
        let (head, bytes) = head(fields);
        evaluate(&head, &bytes, Some(&FILE), &mut Reasons::default())
    }

    #[test]
    fn tags() {
        assert_eq!(FILE.tag().as_bytes(), TAG.as_bytes());
        let longest = Validators { modified: i64::MIN, nanos: u32::MAX, len: u64::MAX };
        assert_eq!(longest.tag().as_bytes().len(), TAG_MAX);
        assert_eq!(Validators { modified: 0, nanos: 0, len: 0 }.tag().opaque(), b"0-0-0");
    }

    #[test]
    fn the_order_of_preconditions() {
        use Verdict::*;
        for (fields, expected) in [
            (String::new(), Perform),
            (format!("If-None-Match: {TAG}\r\n"), NotModified),
            (format!("If-None-Match: W/{TAG}\r\n"), NotModified),
            (format!("If-None-Match: \"a\", , {TAG}\r\n"), NotModified),
            (format!("If-None-Match: \"a\"\r\nIf-None-Match: {TAG}\r\n"), NotModified),
            ("If-None-Match: *\r\n".into(), NotModified),
            ("If-None-Match: \"a,b\"\r\n".into(), Perform),
            (format!("If-None-Match: x{TAG}\r\n"), Perform),
            (format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {DATE}\r\n"), Perform),
            (format!("If-Modified-Since: {DATE}\r\n"), NotModified),
            (format!("If-Modified-Since: {BEFORE}\r\n"), Perform),
            ("If-Modified-Since: garbage\r\n".into(), Perform),
            (format!("If-Modified-Since: {DATE}\r\nIf-Modified-Since: {DATE}\r\n"), Perform),
            (format!("If-Match: {TAG}\r\n"), Perform),
            (format!("If-Match: W/{TAG}\r\n"), Failed),
            ("If-Match: *\r\n".into(), Perform),
            ("If-Match: \"a\"\r\n".into(), Failed),
            (format!("If-Match: {TAG}\r\nIf-Unmodified-Since: {BEFORE}\r\n"), Perform),
            (format!("If-Unmodified-Since: {BEFORE}\r\n"), Failed),
            (format!("If-Unmodified-Since: {DATE}\r\n"), Perform),
            ("If-Unmodified-Since: garbage\r\n".into(), Perform),
            (format!("If-Match: {TAG}\r\nIf-None-Match: {TAG}\r\n"), NotModified),
            (format!("If-Match: \"a\"\r\nIf-None-Match: {TAG}\r\n"), Failed),
        ] {
            assert_eq!(verdict(&fields), expected, "{fields}");
        }
        let (listing, bytes) = head("If-Match: \"a\"\r\n");
        assert_eq!(evaluate(&listing, &bytes, None, &mut Reasons::default()), Failed);
    }

    #[test]
    fn if_range_is_exact_and_strong() {
        let now = Wall(FILE.modified + 60);
        for (fields, now, expected) in [
            (String::new(), now, true),
            (format!("If-Range: {TAG}\r\n"), now, true),
            (format!("If-Range: W/{TAG}\r\n"), now, false),
            ("If-Range: \"a\"\r\n".into(), now, false),
            (format!("If-Range: {DATE}\r\n"), now, true),
            (format!("If-Range: {DATE}\r\n"), Wall(FILE.modified), false),
            (format!("If-Range: {BEFORE}\r\n"), now, false),
            ("If-Range: garbage\r\n".into(), now, false),
        ] {
            let (head, bytes) = head(&fields);
            assert_eq!(if_range(&head, &bytes, &FILE, now, &mut Reasons::default()), expected, "{fields}");
        }
    }
}

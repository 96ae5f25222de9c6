//! Conditional requests (RFC 9110 section 13) and the validators that they compare. What a response looks like after a
//! comparison is decided by the caller.

use crate::config::Etag;
use crate::date;
use crate::input::Opened;
use crate::reason::{Reasons, Rule};
use crate::time::Wall;
use crate::wire::{Head, HeadOut, Known};

/// What identifies one state of a representation: an entity tag (`ETag`), a date (`Last-Modified`), both, or neither.
///
/// It is for content that a handler makes: see [`Reply::answer_entity`](crate::Reply::answer_entity).
///
/// ```
/// use sanserve_core::{Validators, Wall};
///
/// // A counter that grows with each change is a strong entity tag.
/// let third = Validators::version(3).with_modified(Wall(784_111_777));
/// assert_ne!(third, Validators::version(4).with_modified(Wall(784_111_777)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators {
    modified: i64,
    nanos: u32,
    len: u64,
    digest: Option<[u8; 12]>,
    has: Has,
}

/// Which validators can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    /// A tag made of the modification time and the length, and the date.
    TagAndDate,
    /// A tag made of the content. The modification time is not used.
    Digest,
    /// Such a tag, and the date.
    DigestAndDate,
    /// Only the date.
    Date,
    /// None: other versions of the file may have the same time.
    Nothing,
}

/// Whether a modification time is a placeholder, which archivers and build tools write into every file, so that it does
/// not identify a version. These are times on the first day of 1970 (0: Bazel, OSTree, container layers; 1: Nix) or
/// before it (the zero time of Go), and the exact seconds that ZIP and reproducible builds, Gradle, and npm use.
fn is_placeholder(modified: i64, nanos: u32) -> bool {
    const ZIP: i64 = 315_532_800; // 1980-01-01T00:00:00Z
    const GRADLE: i64 = 318_211_200; // 1980-02-01T00:00:00Z
    const NPM: i64 = 499_162_500; // 1985-10-26T08:15:00Z
    modified < 86_400 || (nanos == 0 && matches!(modified, ZIP | GRADLE | NPM))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The length of the longest entity tag, including the quotes.
const TAG_MAX: usize = 2 + 17 + 1 + 8 + 1 + 16;

/// An entity tag, including the quotes.
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
            self.push(HEX[usize::try_from(nibble).expect("four bits")]);
        }
    }
}

/// The validator fields that were written last. Most responses repeat them.
#[derive(Debug, Default)]
pub(crate) struct LastValidators {
    of: Option<(Validators, Option<Wall>)>,
    lines: Vec<u8>,
}

impl LastValidators {
    /// The lines of `Last-Modified` and `ETag`, if there are any.
    pub(crate) fn lines(&mut self, validators: &Validators, now: Wall) -> &[u8] {
        let date = validators.last_modified(now);
        if self.of != Some((*validators, date)) {
            self.of = Some((*validators, date));
            self.lines.clear();
            let mut head = HeadOut::more(&mut self.lines);
            if let Some(date) = date {
                head.field("Last-Modified: ", &date::imf_fixdate(date));
            }
            if let Some(tag) = validators.tag() {
                head.field("ETag: ", tag.as_bytes());
            }
        }
        &self.lines
    }
}

impl Validators {
    pub(crate) fn new(opened: &Opened, etag: Etag) -> Validators {
        let Opened { len, modified, modified_nanos: nanos, digest, .. } = *opened;
        let has = match etag {
            Etag::Modified | Etag::Content if digest.is_some() => Has::Digest,
            Etag::Content => Has::Nothing,
            Etag::Modified | Etag::Off if is_placeholder(modified, nanos) => Has::Nothing,
            Etag::Modified => Has::TagAndDate,
            Etag::Off => Has::Date,
        };
        Validators { modified, nanos, len, digest, has }
    }

    /// The strong entity tag, if there is one.
    pub(crate) fn tag(&self) -> Option<Tag> {
        match self.has {
            Has::TagAndDate => Some(self.stamp()),
            Has::Digest | Has::DigestAndDate => {
                let mut tag = Tag { text: [0; TAG_MAX], len: 0 };
                tag.push(b'"');
                for byte in self.digest? {
                    tag.push(HEX[usize::from(byte >> 4)]);
                    tag.push(HEX[usize::from(byte & 0xf)]);
                }
                tag.push(b'"');
                Some(tag)
            }
            Has::Date | Has::Nothing => None,
        }
    }

    /// The modification time, if it can be relied on.
    fn date(&self) -> Option<i64> {
        matches!(self.has, Has::TagAndDate | Has::DigestAndDate | Has::Date).then_some(self.modified)
    }

    /// A tag that changes with the modification time, to the nanosecond, and with the length. The inode is not
    /// included, so that copies of a tree on several machines have the same tags. It also serves as a boundary where it
    /// is no tag: content does not contain it by chance, and content made to contain it only affects itself.
    pub(crate) fn stamp(&self) -> Tag {
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

    /// The value of `Last-Modified`.
    /// RFC 9110 section 8.8.2.1: "An origin server with a clock ... MUST NOT generate a Last-Modified date that is
    /// later than the server's time of message origination (Date, Section 6.6.1)."
    pub(crate) fn last_modified(&self, now: Wall) -> Option<Wall> {
        Some(Wall(self.date()?.min(now.0)))
    }

    /// Records how the validators were made.
    pub(crate) fn explain(&self, now: Wall, reasons: &mut Reasons) {
        if let Some(date) = self.last_modified(now) {
            let is_ours = date.0 == self.modified;
            reasons.note(if is_ours { Rule::LastModified } else { Rule::LastModifiedNow }, &date::imf_fixdate(date));
        }
        match (self.tag(), self.has) {
            (Some(tag), Has::Digest | Has::DigestAndDate) => reasons.note(Rule::EntityTagOfContent, tag.as_bytes()),
            (Some(tag), _) => reasons.note(Rule::EntityTag, tag.as_bytes()),
            (None, Has::Date) => reasons.note(Rule::NoEntityTag, b""),
            (None, _) => reasons.note(Rule::NoValidators, self.modified.to_string().as_bytes()),
        }
    }
}

/// For content that a handler makes.
impl Validators {
    /// No validators: such content has no conditions but `If-Match: *` and `If-None-Match: *`, and its ranges cannot be
    /// combined.
    #[must_use]
    pub const fn none() -> Validators {
        Validators { modified: 0, nanos: 0, len: 0, digest: None, has: Has::Nothing }
    }

    /// A strong entity tag made of 96 bits of a hash of the content. It must be another one for other content, with
    /// another content coding too.
    #[must_use]
    pub const fn digest(digest: [u8; 12]) -> Validators {
        Validators { digest: Some(digest), has: Has::Digest, ..Validators::none() }
    }

    /// A strong entity tag made of a number, which must be another one for other content.
    #[must_use]
    pub const fn version(version: u64) -> Validators {
        let [a, b, c, d, e, f, g, h] = version.to_be_bytes();
        Validators::digest([0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }

    /// The time of the last change, to the second.
    #[must_use]
    pub const fn modified(modified: Wall) -> Validators {
        Validators::none().with_modified(modified)
    }

    /// Adds the time of the last change, to the second. If it is in the future, the current time is sent.
    #[must_use]
    pub const fn with_modified(self, modified: Wall) -> Validators {
        let has = if self.digest.is_some() { Has::DigestAndDate } else { Has::Date };
        Validators { modified: modified.0, has, ..self }
    }
}

/// The preconditions (RFC 9110 section 13.1).
pub(crate) const CONDITIONS: [Known; 4] =
    [Known::IfMatch, Known::IfUnmodifiedSince, Known::IfNoneMatch, Known::IfModifiedSince];

/// The result of the preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All hold: continue.
    Perform,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The result of the preconditions, with the rule that applied to each field that is present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evaluation {
    pub(crate) verdict: Verdict,
    /// In the order of evaluation.
    rules: [Option<(Rule, Known)>; 4],
}

impl Evaluation {
    fn by(mut self, rule: Rule, known: Known) -> Evaluation {
        if let Some(free) = self.rules.iter_mut().find(|rule| rule.is_none()) {
            *free = Some((rule, known));
        }
        self
    }

    fn with(self, verdict: Verdict) -> Evaluation {
        Evaluation { verdict, ..self }
    }

    /// Records the rules, each with the value of its field.
    pub(crate) fn explain(&self, head: &Head, bytes: &[u8], reasons: &mut Reasons) {
        for &(rule, known) in self.rules.iter().flatten() {
            reasons.note_with(rule, |out| write_values(head, bytes, known, out));
        }
    }
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 section 13.2.2. `current` is `None` for a
/// representation without validators, such as a listing.
pub(crate) fn evaluate(head: &Head, bytes: &[u8], current: Option<&Validators>) -> Evaluation {
    use Rule::*;
    let mut evaluation = Evaluation { verdict: Verdict::Perform, rules: [None; 4] };
    // Only formatted if there is a tag to compare it with.
    let tag = current.filter(|_| head.has_any([Known::IfMatch, Known::IfNoneMatch])).and_then(Validators::tag);
    let is_current = |given: &Given<'_>| tag.as_ref().is_some_and(|tag| tag.as_bytes() == given.tag);
    let (match_, since) = (Known::IfMatch, Known::IfUnmodifiedSince);
    if head.has(match_) {
        let is_true = any_tag(head, bytes, match_, |given| !given.weak && is_current(given));
        evaluation = evaluation.by(if is_true { IfMatchTrue } else { IfMatchFalse }, match_);
        if head.has(since) {
            evaluation = evaluation.by(IfUnmodifiedSinceOverruled, since);
        }
        if !is_true {
            return evaluation.with(Verdict::Failed);
        }
    } else if head.has(since) {
        let found = Since::of(head, bytes, since, current);
        let rule = found.rule(IfUnmodifiedSinceTrue, IfUnmodifiedSinceFalse, IfUnmodifiedSinceInvalid);
        evaluation = evaluation.by(rule, since);
        if found == Since::Changed {
            return evaluation.with(Verdict::Failed);
        }
    }
    let (match_, since) = (Known::IfNoneMatch, Known::IfModifiedSince);
    if head.has(match_) {
        let is_true = !any_tag(head, bytes, match_, is_current);
        evaluation = evaluation.by(if is_true { IfNoneMatchTrue } else { IfNoneMatchFalse }, match_);
        if head.has(since) {
            evaluation = evaluation.by(IfModifiedSinceOverruled, since);
        }
        if !is_true {
            return evaluation.with(Verdict::NotModified);
        }
    } else if head.has(since) {
        let found = Since::of(head, bytes, since, current);
        evaluation =
            evaluation.by(found.rule(IfModifiedSinceFalse, IfModifiedSinceTrue, IfModifiedSinceInvalid), since);
        if found == Since::Unchanged {
            return evaluation.with(Verdict::NotModified);
        }
    }
    evaluation
}

/// How a representation relates to a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// Not modified since then.
    Unchanged,
    /// Modified since then.
    Changed,
    /// The value is not a date, or there is more than one (RFC 9110 sections 13.1.3 and 13.1.4): ignored.
    Invalid,
    /// The representation has no date: ignored.
    NoDate,
}

impl Since {
    fn of(head: &Head, bytes: &[u8], known: Known, current: Option<&Validators>) -> Since {
        match (head.single(known, bytes).and_then(date::parse), current.and_then(Validators::date)) {
            (None, _) => Since::Invalid,
            (Some(_), None) => Since::NoDate,
            (Some(date), Some(modified)) if modified > date.0 => Since::Changed,
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

/// Appends the values of a field, separated by commas.
fn write_values(head: &Head, bytes: &[u8], known: Known, out: &mut Vec<u8>) {
    for (at, value) in head.values(known, bytes).enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
    }
}

/// The rule by which If-Range permits or ignores a Range, or `None` without such a field.
/// RFC 9110 section 13.1.5: "A recipient of an If-Range header field MUST ignore the Range header field if the If-Range
/// condition evaluates as false."
pub(crate) fn if_range(head: &Head, bytes: &[u8], current: &Validators, now: Wall) -> Option<Rule> {
    if !head.has(Known::IfRange) {
        return None;
    }
    Some(match head.single(Known::IfRange, bytes) {
        None => Rule::IfRangeRepeated,
        Some(value) if value.starts_with(b"\"") || value.starts_with(b"W/") => {
            let is_current = current.tag().is_some_and(|tag| tag.as_bytes() == value);
            if is_current { Rule::IfRangeTag } else { Rule::IfRangeOtherTag }
        }
        Some(value) => match date::parse(value) {
            // RFC 9110 section 8.8.2.2: a date is a strong validator only if the file cannot have changed again within
            // the same second.
            Some(date) if Some(date.0) == current.date() && date.0 < now.0 => Rule::IfRangeDate,
            Some(date) if Some(date.0) == current.date() => Rule::IfRangeFresh,
            _ => Rule::IfRangeOtherDate,
        },
    })
}

/// Whether the decision of [`if_range`] permits a Range.
pub(crate) fn lets_range(by: Option<Rule>) -> bool {
    matches!(by, None | Some(Rule::IfRangeTag | Rule::IfRangeDate))
}

/// Records the decision of [`if_range`].
pub(crate) fn explain_if_range(by: Option<Rule>, head: &Head, bytes: &[u8], reasons: &mut Reasons) {
    if let Some(rule) = by {
        reasons.note_with(rule, |out| write_values(head, bytes, Known::IfRange, out));
    }
}

struct Given<'b> {
    weak: bool,
    /// Including the quotes.
    tag: &'b [u8],
}

/// Whether the field is `*`, or lists a tag for which `matches` returns true.
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

/// The next entity tag of a list (RFC 9110 section 8.8.3). Anything else ends the list.
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
    // A tag is followed by a comma or by nothing.
    matches!(rest, [] | [b',', ..]).then_some((Given { weak, tag }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Validators =
        Validators { modified: 784_111_777, nanos: 5, len: 0x10, digest: None, has: Has::TagAndDate };
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
        evaluate(&head, &bytes, Some(&FILE)).verdict
    }

    #[test]
    fn tags() {
        let tag =
            |validators: Validators| validators.tag().map(|tag| String::from_utf8_lossy(tag.as_bytes()).into_owned());
        assert_eq!(tag(FILE).as_deref(), Some(TAG));
        let longest = Validators { modified: i64::MIN, nanos: u32::MAX, len: u64::MAX, ..FILE };
        assert_eq!(longest.stamp().as_bytes().len(), TAG_MAX);
        assert_eq!(Validators { modified: 0, nanos: 0, len: 0, ..FILE }.stamp().opaque(), b"0-0-0");
        let of_content = Validators { digest: Some([0xa5; 12]), has: Has::Digest, ..FILE };
        assert_eq!(tag(of_content), Some(format!("\"{}\"", "a5".repeat(12))));
        let mut last = LastValidators::default();
        for (validators, now, lines) in [
            (FILE, FILE.modified, format!("Last-Modified: {DATE}\r\nETag: {TAG}\r\n")),
            (FILE, FILE.modified - 1, format!("Last-Modified: {BEFORE}\r\nETag: {TAG}\r\n")),
            (FILE, FILE.modified + 1, format!("Last-Modified: {DATE}\r\nETag: {TAG}\r\n")),
            (Validators { has: Has::Nothing, ..FILE }, FILE.modified, String::new()),
            (Validators { has: Has::Date, ..FILE }, FILE.modified, format!("Last-Modified: {DATE}\r\n")),
            (of_content, FILE.modified, format!("ETag: \"{}\"\r\n", "a5".repeat(12))),
        ] {
            assert_eq!(last.lines(&validators, Wall(now)), lines.as_bytes());
        }
    }

    #[test]
    fn placeholder_times_are_not_relied_on() {
        let opened = |modified, modified_nanos| crate::input::Opened {
            kind: crate::input::Kind::File,
            len: 1,
            modified,
            modified_nanos,
            digest: None,
        };
        for (modified, nanos, is_placeholder) in [
            (0, 0, true),
            (1, 0, true),
            (0, 7, true),
            (-1, 0, true),
            (-62_135_596_800, 0, true),
            (86_399, 0, true),
            (86_400, 0, false),
            (315_532_800, 0, true),
            (315_532_800, 1, false),
            (318_211_200, 0, true),
            (499_162_500, 0, true),
            (499_162_501, 0, false),
            (784_111_777, 0, false),
        ] {
            let has = |etag| Validators::new(&opened(modified, nanos), etag).has;
            let expected = if is_placeholder { [Has::Nothing; 2] } else { [Has::TagAndDate, Has::Date] };
            assert_eq!([has(Etag::Modified), has(Etag::Off)], expected, "{modified}.{nanos}");
            assert_eq!(has(Etag::Content), Has::Nothing, "the hash is not known");
            let hashed = crate::input::Opened { digest: Some([1; 12]), ..opened(modified, nanos) };
            assert_eq!(Validators::new(&hashed, Etag::Content).has, Has::Digest);
        }
    }

    #[test]
    fn without_validators_only_an_asterisk_matches() {
        let nothing = Validators { has: Has::Nothing, ..FILE };
        for (fields, expected) in [
            (format!("If-None-Match: {TAG}\r\n"), Verdict::Perform),
            ("If-None-Match: *\r\n".into(), Verdict::NotModified),
            (format!("If-Match: {TAG}\r\n"), Verdict::Failed),
            ("If-Match: *\r\n".into(), Verdict::Perform),
            (format!("If-Modified-Since: {DATE}\r\n"), Verdict::Perform),
            (format!("If-Unmodified-Since: {BEFORE}\r\n"), Verdict::Perform),
        ] {
            let (head, bytes) = head(&fields);
            assert_eq!(evaluate(&head, &bytes, Some(&nothing)).verdict, expected, "{fields}");
        }
        for value in [TAG, DATE] {
            let (head, bytes) = head(&format!("If-Range: {value}\r\n"));
            let now = Wall(FILE.modified + 60);
            assert!(!lets_range(if_range(&head, &bytes, &nothing, now)), "{value}");
        }
    }

    #[test]
    fn preconditions_are_evaluated_in_order() {
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
        assert_eq!(evaluate(&listing, &bytes, None).verdict, Failed);
    }

    #[test]
    fn if_range_compares_strongly() {
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
            assert_eq!(lets_range(if_range(&head, &bytes, &FILE, now)), expected, "{fields}");
        }
    }
}

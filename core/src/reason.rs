//! Why an answer is what it is: the rules that decided, noted by the code that decides, where somebody
//! has asked for it ([`Buffers::explain`](crate::Buffers::explain)). Where nobody has, a note costs one
//! comparison.
//!
//! What it leaves out: what peers do wrong. That is [`Violation`], whose table has its own words.

use crate::error::Violation;

/// More notes than any one exchange needs; what comes after them is not kept.
const MOST: usize = 256;

/// How much of a value is kept.
const VALUE: usize = 4096;

/// What a rule is about, in the order in which people want to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Topic {
    /// Version, host, body, expectation, method.
    Request,
    /// From the target to a path.
    Target,
    /// What lies at that path.
    File,
    /// What runs at that path.
    Script,
    /// Preconditions.
    Conditions,
    /// Which part of the file.
    Range,
    /// The media type.
    Type,
    /// Framing, and what becomes of the connection.
    Answer,
}

impl Topic {
    /// All of them, in order.
    pub const ALL: &'static [Topic] = &[
        Topic::Request,
        Topic::Target,
        Topic::File,
        Topic::Script,
        Topic::Conditions,
        Topic::Range,
        Topic::Type,
        Topic::Answer,
    ];

    /// Its name, in small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Request => "request",
            Topic::Target => "target",
            Topic::File => "file",
            Topic::Script => "script",
            Topic::Conditions => "conditions",
            Topic::Range => "range",
            Topic::Type => "type",
            Topic::Answer => "answer",
        }
    }
}

macro_rules! rules {
    ($($topic:ident { $($(#[doc = $doc:literal])+ $rule:ident => $name:literal, $source:literal;)* })*) => {
        /// A rule by which something was decided. Its documentation is what [`Rule::sentence`] says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Rule { $($($(#[doc = $doc])+ $rule,)*)* }

        impl Rule {
            /// Every rule there is.
            pub const ALL: &'static [Rule] = &[$($(Rule::$rule,)*)*];

            /// What it is about.
            #[must_use]
            pub const fn topic(self) -> Topic {
                match self { $($(Rule::$rule => Topic::$topic,)*)* }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Rule::$rule => $name,)*)* }
            }

            /// What it says.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $($(Rule::$rule => concat!($($doc),+),)*)* }.trim_start()
            }

            /// Where it comes from: the section of an RFC, the name in Python, the field of `Config`.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $($(Rule::$rule => $source,)*)* }
            }
        }
    };
}

rules! {
    Request {
        /// The version that is spoken here.
        Version11 => "version", "RFC 9112 section 2.3";
        /// A higher minor version is served as the highest one that is known.
        VersionLater => "version-later", "RFC 9110 section 2.5";
        /// An old version: no chunks, no 1xx.
        Version10 => "version-old", "RFC 9112 section 2.3";
        /// The Host field says who is asked; every host is served.
        HostOfField => "host", "RFC 9110 section 7.2";
        /// The authority of the target says who is asked; the Host field does not count beside it.
        HostOfTarget => "host-of-target", "RFC 9112 section 3.2.2";
        /// Before HTTP/1.1, a request need not say who is asked.
        HostOptional => "host-optional", "RFC 9112 section 3.2";
        /// The request ends with its head.
        NoBody => "no-body", "RFC 9112 section 6.3";
        /// A body of this length follows.
        BodyOfLength => "body-length", "RFC 9112 section 6.2";
        /// A body follows, in chunks.
        BodyInChunks => "body-chunked", "RFC 9112 section 7.1";
        /// Nobody wants the body: it is read and dropped before the answer.
        BodyDropped => "body-dropped", "RFC 9112 section 9.3, limits.drain";
        /// Nobody wants the body, and it is too long to be read for nothing: the connection ends instead.
        BodyUnread => "body-unread", "RFC 9112 section 9.3, limits.drain";
        /// The peer waits for 100 before it sends its body.
        ExpectContinue => "expect-continue", "RFC 9110 section 10.1.1";
        /// The final answer comes in place of 100, and whether the body still comes is the peer's choice: the connection ends.
        ExpectAnswered => "expect-answered", "RFC 9110 section 10.1.1";
        /// There is no body to wait with.
        ExpectWithoutBody => "expect-without-body", "RFC 9110 section 10.1.1";
        /// An HTTP/1.0 request expects nothing, whatever it says.
        ExpectIgnored => "expect-ignored", "RFC 9110 section 10.1.1";
        /// Files answer this method.
        MethodOfFiles => "method", "RFC 9110 section 9.3, Python's do_GET and do_HEAD";
        /// The server says which methods there are.
        MethodOptions => "method-options", "RFC 9110 section 9.3.7";
        /// Scripts answer every method but TRACE and CONNECT.
        MethodOfScripts => "method-of-scripts", "RFC 3875 section 4.3";
    }
    Target {
        /// A path, and perhaps a query.
        OriginForm => "origin-form", "RFC 9112 section 3.2.1";
        /// A whole URI: its path is served.
        AbsoluteForm => "absolute-form", "RFC 9112 section 3.2.2";
        /// Host and port, for CONNECT.
        AuthorityForm => "authority-form", "RFC 9112 section 3.2.3";
        /// The server as a whole, for OPTIONS.
        AsteriskForm => "asterisk-form", "RFC 9112 section 3.2.4";
        /// Several leading slashes count as one, so that no path reads as `//host`.
        LeadingSlashes => "leading-slashes", "Python's parse_request, gh-87389";
        /// Files do not look at the query.
        QueryCut => "query", "RFC 3986 section 3.4, Python's translate_path";
        /// A fragment is the client's own.
        FragmentCut => "fragment", "RFC 9110 section 7.1, Python's translate_path";
        /// A URI without path means the root.
        EmptyPath => "empty-path", "RFC 9110 section 4.2.3";
        /// Escapes are decoded, once.
        Decoded => "percent-decoding", "RFC 3986 section 2.4, Python's translate_path";
        /// What is no escape stays as it is.
        BadEscape => "bad-escape", "Python's unquote";
        /// `.` and `..` are resolved, also where they were escaped.
        DotSegments => "dot-segments", "RFC 3986 section 5.2.4, Python's translate_path";
        /// Nothing lies above the root: `..` stays there.
        Clamped => "clamped", "RFC 3986 section 5.2.4, Python's translate_path";
        /// Empty components are left out. Those behind a script stay in PATH_INFO.
        EmptySegments => "double-slashes", "Python's translate_path";
        /// The path asks for a directory.
        TrailingSlash => "trailing-slash", "Python's translate_path";
        /// The policy translates in a way of its own.
        PolicyTranslated => "site-path", "Policy::translate";
        /// What to look for beneath the directory that is served; a dot is that directory.
        PathBelowRoot => "path", "Python's translate_path";
        /// The path of the health check: no file, handler or script is behind it.
        HealthPath => "health", "--health";
        /// Names that begin with a dot are not there.
        HiddenDotfile => "hidden-dotfile", "--hide-dotfiles";
    }
    File {
        /// A regular file: it is the answer.
        FileServed => "file", "Python's send_head";
        /// A path with a slash after it is no file.
        FileWithSlash => "file-with-slash", "Python's send_head";
        /// A directory is sent to the same target with a slash after its path.
        SlashRedirect => "slash-redirect", "RFC 9110 section 15.4.2, Python's send_head";
        /// A page that may stand for the directory.
        IndexTried => "index-tried", "Python's index_pages";
        /// The first page that is there stands for the directory.
        IndexChosen => "index-chosen", "Python's index_pages";
        /// No page stands for the directory: it is listed.
        Listed => "listing", "Python's list_directory";
        /// The directory cannot be read.
        ListingDenied => "listing-denied", "Python's list_directory";
        /// A directory with so many names is not listed.
        ListingTooLarge => "listing-too-large", "limits.listing";
        /// Nothing that is served lies there; what must not be read is not there either.
        NotFound => "not-found", "RFC 9110 section 15.5.5, Python's send_head";
        /// The system has no descriptors or no memory left.
        Exhausted => "exhausted", "RFC 9110 section 15.6.4";
        /// The time of modification, in seconds.
        LastModified => "last-modified", "RFC 9110 section 8.8.2";
        /// A time of modification in the future becomes the time of the answer.
        LastModifiedNow => "last-modified-now", "RFC 9110 section 8.8.2.1";
        /// A strong tag: the time of modification in seconds, its nanoseconds, and the length, in hexadecimal.
        EntityTag => "entity-tag", "RFC 9110 section 8.8.3";
        /// A strong tag: a hash of the content.
        EntityTagOfContent => "entity-tag-of-content", "RFC 9110 section 8.8.3, --etag";
        /// There is no tag; the date stays.
        NoEntityTag => "no-entity-tag", "--etag";
        /// Nothing tells one state of the file from another: its time means nothing, or its hash is not known yet.
        NoValidators => "no-validators", "RFC 9110 section 8.8.1, --etag";
    }
    Script {
        /// The path lies in a directory of scripts.
        ScriptPath => "script-path", "RFC 3875 section 3.2, Python's is_cgi";
        /// The path lies in no directory of scripts.
        NotScript => "no-script", "RFC 3875 section 3.2, Python's is_cgi";
        /// This is the script; what stands after it is PATH_INFO.
        ScriptFound => "script", "RFC 3875 section 3.3, Python's run_cgi";
        /// The body, if it is small, or the beginning of it is read before the script is started, so that a slow peer takes no place.
        BodyGathered => "body-gathered", "limits.script_body";
        /// A chunked body is kept in a file first, because a script must be told its length.
        BodySpooled => "body-spooled", "RFC 3875 section 4.2";
        /// There is no answer from a script.
        ScriptRefused => "script-refused", "RFC 3875 section 6, Python's run_cgi";
    }
    Conditions {
        /// The tag is listed, or any is good: go on.
        IfMatchTrue => "if-match-true", "RFC 9110 section 13.1.1";
        /// The tag is not listed, or listed as a weak one: 412.
        IfMatchFalse => "if-match-false", "RFC 9110 section 13.1.1";
        /// Not changed since then: go on.
        IfUnmodifiedSinceTrue => "if-unmodified-since-true", "RFC 9110 section 13.1.4";
        /// Changed since then: 412.
        IfUnmodifiedSinceFalse => "if-unmodified-since-false", "RFC 9110 section 13.1.4";
        /// It is no date, or more than one: ignored.
        IfUnmodifiedSinceInvalid => "if-unmodified-since-invalid", "RFC 9110 section 13.1.4";
        /// If-Match is there too, and counts alone.
        IfUnmodifiedSinceOverruled => "if-unmodified-since-overruled", "RFC 9110 section 13.2.2";
        /// The tag is not listed: go on.
        IfNoneMatchTrue => "if-none-match-true", "RFC 9110 section 13.1.2";
        /// The tag is listed, or any counts: 304.
        IfNoneMatchFalse => "if-none-match-false", "RFC 9110 section 13.1.2";
        /// Changed since then: go on.
        IfModifiedSinceTrue => "if-modified-since-true", "RFC 9110 section 13.1.3, Python's send_head";
        /// Not changed since then: 304.
        IfModifiedSinceFalse => "if-modified-since-false", "RFC 9110 section 13.1.3, Python's send_head";
        /// It is no date, or more than one: ignored.
        IfModifiedSinceInvalid => "if-modified-since-invalid", "RFC 9110 section 13.1.3";
        /// If-None-Match is there too, and counts alone.
        IfModifiedSinceOverruled => "if-modified-since-overruled", "RFC 9110 section 13.2.2";
        /// There is no date of modification to compare with: ignored.
        NoDate => "no-date", "RFC 9110 sections 13.1.3 and 13.1.4";
        /// Conditions do not count, since the answer without them is no success.
        ConditionsUnasked => "conditions-ignored", "RFC 9110 section 13.2.1";
    }
    Range {
        /// A range counts with GET alone: ignored.
        RangeWithoutGet => "range-without-get", "RFC 9110 section 14.2";
        /// More than one field: ignored.
        RangeRepeated => "range-repeated", "RFC 9110 section 5.3";
        /// Not in bytes: ignored.
        RangeUnit => "range-unit", "RFC 9110 section 14.2";
        /// Not in the form of a range: ignored.
        RangeInvalid => "range-invalid", "RFC 9110 section 14.2";
        /// More ranges than may be: ignored.
        RangesTooMany => "ranges-too-many", "RFC 9110 section 14.2, limits.ranges";
        /// The beginning or the end of nothing is everything, which a Content-Range cannot say: ignored.
        RangeOfNothing => "range-of-nothing", "RFC 9110 section 14.1.2";
        /// The tag is the same, and strong: the range counts.
        IfRangeTag => "if-range-tag", "RFC 9110 section 13.1.5";
        /// The tag is another one, or weak: the range is ignored.
        IfRangeOtherTag => "if-range-other-tag", "RFC 9110 section 13.1.5";
        /// The date is that of the file, and old enough to be exact: the range counts.
        IfRangeDate => "if-range-date", "RFC 9110 section 13.1.5";
        /// The date is another one, or none: the range is ignored.
        IfRangeOtherDate => "if-range-other-date", "RFC 9110 section 13.1.5";
        /// The file may change again within this second, so that its date is no strong validator: the range is ignored.
        IfRangeFresh => "if-range-fresh", "RFC 9110 section 8.8.2.2";
        /// More than one field: the range is ignored.
        IfRangeRepeated => "if-range-repeated", "RFC 9110 section 5.3";
        /// Without a Range, it says nothing.
        IfRangeAlone => "if-range-alone", "RFC 9110 section 13.1.5";
        /// Nothing of it lies in the file: left out.
        RangeBeyond => "range-beyond", "RFC 9110 section 14.1.2";
        /// Ranges that overlap or touch become one.
        RangesJoined => "ranges-joined", "RFC 9110 section 14.2";
        /// These bytes are sent.
        RangeServed => "range", "RFC 9110 section 15.3.7.1";
        /// Several parts, each with its own head; time and length are the boundary.
        RangesServed => "ranges", "RFC 9110 section 15.3.7.2";
        /// Nothing that was asked for lies in the file: 416.
        RangeUnsatisfiable => "range-unsatisfiable", "RFC 9110 section 15.5.17";
    }
    Type {
        /// By the extension, from a table in the program.
        TypeOfExtension => "extension", "Python's guess_type";
        /// By the extension, where Python knows it otherwise than the general table.
        TypeOfPython => "extension-of-python", "Python's extensions_map";
        /// A compressed file is what it is: no Content-Encoding is sent.
        TypeOfCompressed => "compressed", "Python's _encodings_map_default, RFC 9110 section 8.4";
        /// By the extension, where the general table lacks it or has what nobody needs.
        TypeOfTable => "extension-of-ours", "Python's guess_type, docs/media-types.md";
        /// By definition, the content is that type in compressed form.
        TypeOfEncoded => "extension-of-encoded", "RFC 9110 section 8.4, docs/media-types.md";
        /// It is decoded before it is that type.
        ContentEncoding => "content-encoding", "RFC 9110 section 8.4";
        /// Whoever runs the server has said so.
        TypeOfConfig => "type-of-config", "--mime, --content-type";
        /// An extension that nobody knows.
        TypeUnknown => "extension-unknown", "Python's guess_type";
        /// No extension; dots at the start of a name begin none.
        TypeWithoutExtension => "extension-missing", "Python's guess_type";
        /// The policy has a type of its own for it.
        TypeOfPolicy => "site-type", "Policy::media_type";
        /// Texts are told to be in this charset.
        Charset => "charset", "Policy::charset, --charset, RFC 9110 section 8.3.2";
        /// The page of an error, of a listing.
        TypeOfPage => "page", "Python's error_content_type";
    }
    Answer {
        /// A length in front says where the answer ends.
        FramedByLength => "content-length", "RFC 9112 section 6.2";
        /// Chunks say where the answer ends, because its length is not known.
        FramedByChunks => "chunked", "RFC 9112 section 7.1";
        /// The end of the connection ends the answer, because its length is not known.
        FramedByClose => "until-close", "RFC 9112 section 6.3";
        /// An answer to HEAD has the head of GET, and no content.
        HeadAlone => "head-alone", "RFC 9110 section 9.3.2";
        /// An answer of this status has no content.
        NoContent => "no-content", "RFC 9112 section 6.3";
        /// This answer has a head alone; where a length is told, it is 0.
        Empty => "empty", "RFC 9112 section 6.2";
        /// The methods that this target answers are listed in Allow, so that the peer knows what would work.
        Allow => "allow", "RFC 9110 section 10.2.1";
        /// HTTP/1.1 goes on unless somebody ends it.
        Persists => "persistent", "RFC 9112 section 9.3";
        /// HTTP/1.0 goes on where the peer asks for it.
        PersistsAsked => "keep-alive-asked", "RFC 9112 section 9.3";
        /// The peer asks for the end.
        CloseAsked => "close-asked", "RFC 9112 section 9.6";
        /// HTTP/1.0 ends unless the peer asks otherwise.
        CloseOfOld => "close-of-1.0", "RFC 9112 section 9.3";
        /// The answers are HTTP/1.0, and each ends its connection.
        CloseOfProtocol => "close-of-protocol", "Python's protocol_version, --protocol";
        /// What was wrong puts in doubt where the next request begins.
        CloseOfViolation => "close-of-violation", "RFC 9112 section 9.6";
        /// The connection goes on after this answer.
        StaysOpen => "stays-open", "RFC 9112 section 9.3";
        /// The connection ends after this answer.
        Closes => "closes", "RFC 9112 section 9.6";
    }
}

/// What decided: a rule, or what the peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule.
    Rule(Rule),
    /// Something that the peer did wrong.
    Violation(Violation),
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// By which rule.
    pub cause: Cause,
    /// What came of it, or what it was about: any bytes, of which the first 4,096 are kept.
    pub value: Vec<u8>,
}

/// The decisions about the current exchange, if somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Option<Vec<Reason>>);

impl Reasons {
    /// From here on, decisions are noted.
    pub(crate) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Whether decisions are noted.
    pub(crate) fn are_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Forgets the decisions, not the wish to know.
    pub(crate) fn clear(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.clear();
        }
    }

    /// What was noted.
    pub(crate) fn all(&self) -> &[Reason] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Notes a decision.
    pub(crate) fn note(&mut self, rule: Rule, value: &[u8]) {
        if self.are_wanted() {
            self.push(Cause::Rule(rule), value);
        }
    }

    /// Notes a decision whose value takes work to write.
    pub(crate) fn note_with(&mut self, rule: Rule, write: impl FnOnce(&mut Vec<u8>)) {
        if self.are_wanted() {
            let mut value = Vec::new();
            write(&mut value);
            self.push(Cause::Rule(rule), &value);
        }
    }

    /// Notes what the peer did wrong.
    pub(crate) fn violated(&mut self, violation: Violation) {
        if self.are_wanted() {
            self.push(Cause::Violation(violation), violation.row().0.phrase().as_bytes());
        }
    }

    /// What is decided again in the same way is noted once.
    #[cold]
    fn push(&mut self, cause: Cause, value: &[u8]) {
        let Some(noted) = &mut self.0 else { return };
        let value = &value[..value.len().min(VALUE)];
        if noted.len() < MOST && !noted.iter().any(|reason| reason.cause == cause && reason.value == value) {
            noted.push(Reason { cause, value: value.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_says_where_it_comes_from() {
        for rule in Rule::ALL {
            assert!(rule.sentence().ends_with('.') && !rule.sentence().contains('\n'), "{rule:?}");
            let known = ["RFC ", "Python's ", "Policy::", "limits.", "--"];
            assert!(known.iter().any(|known| rule.source().starts_with(known)), "{rule:?}: {}", rule.source());
            let same = Rule::ALL.iter().filter(|other| other.name() == rule.name()).count();
            assert_eq!(same, 1, "{}", rule.name());
        }
        assert!(Topic::ALL.is_sorted());
    }

    #[test]
    fn notes_are_bounded_and_only_taken_where_they_are_wanted() {
        let mut reasons = Reasons::default();
        reasons.note(Rule::NoBody, b"x");
        assert_eq!(reasons.all(), []);
        reasons.begin();
        for n in 0..2 * MOST {
            reasons.note(Rule::NoBody, n.to_string().as_bytes());
            reasons.note(Rule::NoBody, n.to_string().as_bytes());
        }
        assert_eq!(reasons.all().len(), MOST);
        reasons.clear();
        reasons.note(Rule::NoBody, &[b'x'; 2 * VALUE]);
        assert_eq!(reasons.all()[0].value.len(), VALUE);
    }
}

//! Why a response is what it is: the rules that decided about it. The code that decides records them if the embedder
//! has enabled that ([`Buffers::explain`](crate::Buffers::explain)); otherwise, recording costs one comparison.
//!
//! Protocol errors are not listed here. They are rows of [`Violation`], which has its own sentences.

use crate::error::Violation;
use crate::tables::named;

/// The number of reasons that are kept for one exchange. No real exchange needs as many; later ones are dropped.
const MOST: usize = 256;

/// The number of bytes that are kept of a value.
const VALUE: usize = 4096;

named! {
    /// What a rule is about, in the order in which a report presents it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    #[non_exhaustive]
    Topic {
        /// Version, host, body, expectation, method.
        Request = "request",
        /// How the target becomes a path.
        Target = "target",
        /// What the path refers to.
        File = "file",
        /// The script that the path refers to.
        Script = "script",
        /// Preconditions.
        Conditions = "conditions",
        /// Which part of the file is sent.
        Range = "range",
        /// The media type.
        Type = "type",
        /// The framing of the response, and whether the connection persists.
        Answer = "answer",
    }
}

macro_rules! rules {
    ($($topic:ident { $($(#[doc = $doc:literal])+ $rule:ident => $name:literal, $source:literal;)* })*) => {
        /// A rule that decides something about a response. The documentation of each variant is its [`Rule::sentence`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Rule { $($($(#[doc = $doc])+ $rule,)*)* }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$($(Rule::$rule,)*)*];

            /// The topic of the rule.
            #[must_use]
            pub const fn topic(self) -> Topic {
                match self { $($(Rule::$rule => Topic::$topic,)*)* }
            }

            /// The name that `sanserve explain` prints.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Rule::$rule => $name,)*)* }
            }

            /// A sentence that states the rule.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $($(Rule::$rule => concat!($($doc),+),)*)* }.trim_start()
            }

            /// Where the rule comes from: a section of an RFC, a name in Python, a field of `Config`, or an option.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $($(Rule::$rule => $source,)*)* }
            }
        }
    };
}

rules! {
    Request {
        /// The version that this server implements.
        Version11 => "version", "RFC 9112 section 2.3";
        /// A higher minor version is handled as HTTP/1.1.
        VersionLater => "version-later", "RFC 9110 section 2.5";
        /// An older version: the response has neither chunks nor interim responses.
        Version10 => "version-old", "RFC 9112 section 2.3";
        /// The Host field names the host. Requests for every host are served.
        HostOfField => "host", "RFC 9110 section 7.2";
        /// The authority of the target names the host, and the Host field is ignored.
        HostOfTarget => "host-of-target", "RFC 9112 section 3.2.2";
        /// Before HTTP/1.1, the Host field is optional.
        HostOptional => "host-optional", "RFC 9112 section 3.2";
        /// The request has no body.
        NoBody => "no-body", "RFC 9112 section 6.3";
        /// A body of this length follows.
        BodyOfLength => "body-length", "RFC 9112 section 6.2";
        /// A chunked body follows.
        BodyInChunks => "body-chunked", "RFC 9112 section 7.1";
        /// The body is not used: it is read and discarded before the response is sent.
        BodyDropped => "body-dropped", "RFC 9112 section 9.3, limits.drain";
        /// The body is not used, and it is too long to be read and discarded: the connection closes instead.
        BodyUnread => "body-unread", "RFC 9112 section 9.3, limits.drain";
        /// The client waits for 100 (Continue) before it sends the body.
        ExpectContinue => "expect-continue", "RFC 9110 section 10.1.1";
        /// The final response replaces 100 (Continue), and the client may or may not send the body: the connection
        /// closes.
        ExpectAnswered => "expect-answered", "RFC 9110 section 10.1.1";
        /// The request has no body, so no 100 (Continue) is sent.
        ExpectWithoutBody => "expect-without-body", "RFC 9110 section 10.1.1";
        /// The Expect field of an HTTP/1.0 request is ignored.
        ExpectIgnored => "expect-ignored", "RFC 9110 section 10.1.1";
        /// The method is supported for files.
        MethodOfFiles => "method", "RFC 9110 section 9.3, Python's do_GET and do_HEAD";
        /// The response lists the supported methods.
        MethodOptions => "method-options", "RFC 9110 section 9.3.7";
        /// Scripts support all methods except TRACE and CONNECT.
        MethodOfScripts => "method-of-scripts", "RFC 3875 section 4.3";
        /// A browser asks whether a page of another origin may send a request.
        Preflight => "cors-preflight", "--cors";
    }
    Target {
        /// A path, with an optional query.
        OriginForm => "origin-form", "RFC 9112 section 3.2.1";
        /// A complete URI, of which the path is used.
        AbsoluteForm => "absolute-form", "RFC 9112 section 3.2.2";
        /// Host and port, used only with CONNECT.
        AuthorityForm => "authority-form", "RFC 9112 section 3.2.3";
        /// The server as a whole, used only with OPTIONS.
        AsteriskForm => "asterisk-form", "RFC 9112 section 3.2.4";
        /// The client speaks plain HTTP where HTTPS is spoken, and is redirected.
        HttpsRedirect => "https-redirect", "RFC 9110 section 15.4.9";
        /// Several leading slashes count as one, so that the path cannot be read as `//host`.
        LeadingSlashes => "leading-slashes", "Python's parse_request, gh-87389";
        /// The query is ignored for files.
        QueryCut => "query", "RFC 3986 section 3.4, Python's translate_path";
        /// The fragment is ignored: it is only meaningful to the client.
        FragmentCut => "fragment", "RFC 9110 section 7.1, Python's translate_path";
        /// A URI without a path refers to the root.
        EmptyPath => "empty-path", "RFC 9110 section 4.2.3";
        /// Percent-encoded bytes are decoded, once.
        Decoded => "percent-decoding", "RFC 3986 section 2.4, Python's translate_path";
        /// A `%` that does not begin a valid escape is kept as it is.
        BadEscape => "bad-escape", "Python's unquote";
        /// `.` and `..` are resolved, even if they were percent-encoded.
        DotSegments => "dot-segments", "RFC 3986 section 5.2.4, Python's translate_path";
        /// `..` at the root stays at the root.
        Clamped => "clamped", "RFC 3986 section 5.2.4, Python's translate_path";
        /// Empty segments are removed. After the name of a script, they are kept as part of PATH_INFO.
        EmptySegments => "double-slashes", "Python's translate_path";
        /// The path ends with a slash, so it refers to a directory.
        TrailingSlash => "trailing-slash", "Python's translate_path";
        /// The policy translates the path in its own way.
        PolicyTranslated => "site-path", "Policy::translate";
        /// The path to look up below the root directory; a dot is the root itself.
        PathBelowRoot => "path", "Python's translate_path";
        /// The path of the health check. No file, handler or script can have it.
        HealthPath => "health", "--health";
        /// Names that begin with a dot are treated as if they did not exist.
        HiddenDotfile => "hidden-dotfile", "--hide-dotfiles";
        /// The path is redirected, with its query.
        Redirected => "redirect", "--redirect";
        /// The path begins with the prefix, which is removed.
        PrefixRemoved => "route-prefix", "--route-prefix";
        /// The path does not begin with the prefix, so it refers to nothing.
        OutsidePrefix => "outside-prefix", "--route-prefix";
    }
    File {
        /// A regular file, which is served.
        FileServed => "file", "Python's send_head";
        /// The path ends with a slash, but refers to a file.
        FileWithSlash => "file-with-slash", "Python's send_head";
        /// The client is redirected to the same target with a slash after the path.
        SlashRedirect => "slash-redirect", "RFC 9110 section 15.4.2, Python's send_head";
        /// A possible index page of the directory.
        IndexTried => "index-tried", "Python's index_pages";
        /// The first index page that exists is served instead of the directory.
        IndexChosen => "index-chosen", "Python's index_pages";
        /// The directory has no index page, so it is listed.
        Listed => "listing", "Python's list_directory";
        /// Directories are not listed, so one without an index page is treated as if it did not exist.
        ListingOff => "listing-off", "--no-listing";
        /// The page whose extension the path lacks is served.
        CleanUrl => "clean-url", "--clean-urls";
        /// The client is redirected to the path without the extension.
        CleanRedirect => "clean-url-redirect", "--clean-urls";
        /// A navigation to a path without a file: the page of the application is served.
        Spa => "spa", "--spa";
        /// The client does not navigate, so the page of the application is not served.
        SpaUnasked => "spa-unasked", "--spa";
        /// This file is sent as the page of the error.
        ErrorPage => "error-page", "--error-page";
        /// This file cannot be the page of the error: it does not exist, is not served, or is too long.
        ErrorPageMissing => "error-page-missing", "--error-page, limits.error_page";
        /// The directory cannot be read.
        ListingDenied => "listing-denied", "Python's list_directory";
        /// The directory has too many entries to be listed.
        ListingTooLarge => "listing-too-large", "limits.listing";
        /// The path does not refer to anything that can be served. A file that must not be read is reported the same
        /// way.
        NotFound => "not-found", "RFC 9110 section 15.5.5, Python's send_head";
        /// The system has run out of file descriptors or memory.
        Exhausted => "exhausted", "RFC 9110 section 15.6.4";
        /// The modification time, in seconds.
        LastModified => "last-modified", "RFC 9110 section 8.8.2";
        /// The modification time is in the future, so the time of the response is sent instead.
        LastModifiedNow => "last-modified-now", "RFC 9110 section 8.8.2.1";
        /// A strong tag: the modification time in seconds, its nanoseconds, and the length, in hexadecimal.
        EntityTag => "entity-tag", "RFC 9110 section 8.8.3";
        /// A strong tag: a hash of the content.
        EntityTagOfContent => "entity-tag-of-content", "RFC 9110 section 8.8.3, --etag";
        /// No tag is sent, only the date.
        NoEntityTag => "no-entity-tag", "--etag";
        /// No validator is available: the modification time is a placeholder, or the hash is not known yet.
        NoValidators => "no-validators", "RFC 9110 section 8.8.1, --etag";
    }
    Script {
        /// The path is in a directory of scripts.
        ScriptPath => "script-path", "RFC 3875 section 3.2, Python's is_cgi";
        /// The path is not in a directory of scripts.
        NotScript => "no-script", "RFC 3875 section 3.2, Python's is_cgi";
        /// The script. The rest of the path is PATH_INFO.
        ScriptFound => "script", "RFC 3875 section 3.3, Python's run_cgi";
        /// A small body, or the beginning of a large one, is read before the script is started, so that a slow client
        /// does not occupy a script.
        BodyGathered => "body-gathered", "limits.script_body";
        /// A chunked body is first stored in a file, because a script must be given its length.
        BodySpooled => "body-spooled", "RFC 3875 section 4.2";
        /// The script could not produce a response.
        ScriptRefused => "script-refused", "RFC 3875 section 6, Python's run_cgi";
    }
    Conditions {
        /// The tag is listed, or the field is `*`: continue.
        IfMatchTrue => "if-match-true", "RFC 9110 section 13.1.1";
        /// The tag is not listed, or is only listed as a weak tag: 412.
        IfMatchFalse => "if-match-false", "RFC 9110 section 13.1.1";
        /// Not modified since this date: continue.
        IfUnmodifiedSinceTrue => "if-unmodified-since-true", "RFC 9110 section 13.1.4";
        /// Modified since this date: 412.
        IfUnmodifiedSinceFalse => "if-unmodified-since-false", "RFC 9110 section 13.1.4";
        /// Not a valid date, or more than one: ignored.
        IfUnmodifiedSinceInvalid => "if-unmodified-since-invalid", "RFC 9110 section 13.1.4";
        /// If-Match is present and takes precedence.
        IfUnmodifiedSinceOverruled => "if-unmodified-since-overruled", "RFC 9110 section 13.2.2";
        /// The tag is not listed: continue.
        IfNoneMatchTrue => "if-none-match-true", "RFC 9110 section 13.1.2";
        /// The tag is listed, or the field is `*`: 304.
        IfNoneMatchFalse => "if-none-match-false", "RFC 9110 section 13.1.2";
        /// Modified since this date: continue.
        IfModifiedSinceTrue => "if-modified-since-true", "RFC 9110 section 13.1.3, Python's send_head";
        /// Not modified since this date: 304.
        IfModifiedSinceFalse => "if-modified-since-false", "RFC 9110 section 13.1.3, Python's send_head";
        /// Not a valid date, or more than one: ignored.
        IfModifiedSinceInvalid => "if-modified-since-invalid", "RFC 9110 section 13.1.3";
        /// If-None-Match is present and takes precedence.
        IfModifiedSinceOverruled => "if-modified-since-overruled", "RFC 9110 section 13.2.2";
        /// There is no modification date to compare with: ignored.
        NoDate => "no-date", "RFC 9110 sections 13.1.3 and 13.1.4";
        /// Conditions are ignored, because the response without them would not be a success.
        ConditionsUnasked => "conditions-ignored", "RFC 9110 section 13.2.1";
    }
    Range {
        /// Range is only defined for GET: ignored.
        RangeWithoutGet => "range-without-get", "RFC 9110 section 14.2";
        /// More than one Range field: ignored.
        RangeRepeated => "range-repeated", "RFC 9110 section 5.3";
        /// The unit is not bytes: ignored.
        RangeUnit => "range-unit", "RFC 9110 section 14.2";
        /// Not a valid range: ignored.
        RangeInvalid => "range-invalid", "RFC 9110 section 14.2";
        /// Too many ranges: ignored.
        RangesTooMany => "ranges-too-many", "RFC 9110 section 14.2, limits.ranges";
        /// A range of an empty file would be the whole file, which Content-Range cannot express: ignored.
        RangeOfNothing => "range-of-nothing", "RFC 9110 section 14.1.2";
        /// The tag matches and is strong: the range is used.
        IfRangeTag => "if-range-tag", "RFC 9110 section 13.1.5";
        /// The tag does not match, or is weak: the range is ignored.
        IfRangeOtherTag => "if-range-other-tag", "RFC 9110 section 13.1.5";
        /// The date matches, and is old enough to be a strong validator: the range is used.
        IfRangeDate => "if-range-date", "RFC 9110 section 13.1.5";
        /// The date does not match, or is not valid: the range is ignored.
        IfRangeOtherDate => "if-range-other-date", "RFC 9110 section 13.1.5";
        /// The file may change again within the same second, so its date is not a strong validator: the range is
        /// ignored.
        IfRangeFresh => "if-range-fresh", "RFC 9110 section 8.8.2.2";
        /// More than one If-Range field: the range is ignored.
        IfRangeRepeated => "if-range-repeated", "RFC 9110 section 5.3";
        /// If-Range without Range has no effect.
        IfRangeAlone => "if-range-alone", "RFC 9110 section 13.1.5";
        /// The range lies beyond the end of the file: left out.
        RangeBeyond => "range-beyond", "RFC 9110 section 14.1.2";
        /// Ranges that overlap or are adjacent are combined.
        RangesJoined => "ranges-joined", "RFC 9110 section 14.2";
        /// These bytes are sent.
        RangeServed => "range", "RFC 9110 section 15.3.7.1";
        /// Several parts, each with its own header. The boundary is made from the modification time and the length.
        RangesServed => "ranges", "RFC 9110 section 15.3.7.2";
        /// No requested range lies within the file: 416.
        RangeUnsatisfiable => "range-unsatisfiable", "RFC 9110 section 15.5.17";
    }
    Type {
        /// By the extension, from the built-in table.
        TypeOfExtension => "extension", "Python's guess_type";
        /// By the extension, where Python differs from the general table.
        TypeOfPython => "extension-of-python", "Python's extensions_map";
        /// A compressed file is sent as what it is, without Content-Encoding.
        TypeOfCompressed => "compressed", "Python's _encodings_map_default, RFC 9110 section 8.4";
        /// By the extension, where the general table has no entry or an unsuitable one.
        TypeOfTable => "extension-of-ours", "Python's guess_type, docs/media-types.md";
        /// By definition, the extension stands for this type in compressed form.
        TypeOfEncoded => "extension-of-encoded", "RFC 9110 section 8.4, docs/media-types.md";
        /// The content has to be decoded to get the media type.
        ContentEncoding => "content-encoding", "RFC 9110 section 8.4";
        /// Set in the configuration of the server.
        TypeOfConfig => "type-of-config", "--mime, --content-type";
        /// By the path or name of the file.
        TypeOfHeader => "type-of-header", "--header";
        /// An unknown extension.
        TypeUnknown => "extension-unknown", "Python's guess_type";
        /// No extension. Dots at the start of a name do not begin one.
        TypeWithoutExtension => "extension-missing", "Python's guess_type";
        /// The policy chooses the type.
        TypeOfPolicy => "site-type", "Policy::media_type";
        /// The charset that is sent with text types.
        Charset => "charset", "Policy::charset, --charset, RFC 9110 section 8.3.2";
        /// The type of error pages and listings.
        TypeOfPage => "page", "Python's error_content_type";
    }
    Answer {
        /// Content-Length gives the length of the response.
        FramedByLength => "content-length", "RFC 9112 section 6.2";
        /// The response is chunked, because its length is not known.
        FramedByChunks => "chunked", "RFC 9112 section 7.1";
        /// The response ends when the connection closes, because its length is not known.
        FramedByClose => "until-close", "RFC 9112 section 6.3";
        /// The response to HEAD has the header of the response to GET, and no content.
        HeadAlone => "head-alone", "RFC 9110 section 9.3.2";
        /// A response with this status has no content.
        NoContent => "no-content", "RFC 9112 section 6.3";
        /// The response has no content. If it has a Content-Length, that is 0.
        Empty => "empty", "RFC 9112 section 6.2";
        /// Allow lists the methods that the target supports.
        Allow => "allow", "RFC 9110 section 10.2.1";
        /// A page of the server itself: browsers must neither run anything in it, nor guess another type.
        PageGuard => "page-guard", "Policy::error_page, Policy::listing_row";
        /// Browsers must not guess another type.
        Nosniff => "nosniff", "--nosniff";
        /// The page is isolated from other sites.
        Isolate => "isolate", "--isolate";
        /// Pages of other origins may read the response.
        Cors => "cors", "--cors";
        /// How long caches may keep the response.
        CacheOfRule => "cache", "--cache";
        /// A field of all responses.
        HeaderAlways => "header-always", "--header-always";
        /// A field of successful responses.
        HeaderOfRule => "header", "--header";
        /// HTTP/1.1 connections persist by default.
        Persists => "persistent", "RFC 9112 section 9.3";
        /// HTTP/1.0 connections persist if the client asks for it.
        PersistsAsked => "keep-alive-asked", "RFC 9112 section 9.3";
        /// The client asks to close the connection.
        CloseAsked => "close-asked", "RFC 9112 section 9.6";
        /// HTTP/1.0 connections close unless the client asks to keep them open.
        CloseOfOld => "close-of-1.0", "RFC 9112 section 9.3";
        /// The server speaks HTTP/1.0, and closes the connection after each response.
        CloseOfProtocol => "close-of-protocol", "Python's protocol_version, --protocol";
        /// After this error, it is uncertain where the next request begins.
        CloseOfViolation => "close-of-violation", "RFC 9112 section 9.6";
        /// The connection stays open after this response.
        StaysOpen => "stays-open", "RFC 9112 section 9.3";
        /// The connection closes after this response.
        Closes => "closes", "RFC 9112 section 9.6";
    }
}

/// What led to a decision: a rule, or a protocol error of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule.
    Rule(Rule),
    /// A protocol error of the peer.
    Violation(Violation),
}

/// One decision that was made for a response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// The rule, or the protocol error.
    pub cause: Cause,
    /// What was decided, or what it was decided about. Arbitrary bytes, truncated to 4,096.
    pub value: Vec<u8>,
}

/// The decisions about the current exchange, if they are recorded.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Option<Vec<Reason>>);

impl Reasons {
    /// Starts to record decisions.
    pub(crate) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Whether decisions are recorded.
    pub(crate) fn are_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Forgets the recorded decisions, but keeps recording.
    pub(crate) fn clear(&mut self) {
        if let Some(recorded) = &mut self.0 {
            recorded.clear();
        }
    }

    /// The recorded decisions.
    pub(crate) fn all(&self) -> &[Reason] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Records a decision.
    pub(crate) fn note(&mut self, rule: Rule, value: &[u8]) {
        if self.are_wanted() {
            self.push(Cause::Rule(rule), value);
        }
    }

    /// Records a decision. The value is only formatted if decisions are recorded.
    pub(crate) fn note_with(&mut self, rule: Rule, write: impl FnOnce(&mut Vec<u8>)) {
        if self.are_wanted() {
            let mut value = Vec::new();
            write(&mut value);
            self.push(Cause::Rule(rule), &value);
        }
    }

    /// Records a protocol error of the peer.
    pub(crate) fn violated(&mut self, violation: Violation) {
        if self.are_wanted() {
            self.push(Cause::Violation(violation), violation.row().0.phrase().as_bytes());
        }
    }

    /// Records a decision, unless the same one is recorded already.
    #[cold]
    fn push(&mut self, cause: Cause, value: &[u8]) {
        let Some(recorded) = &mut self.0 else { return };
        let value = &value[..value.len().min(VALUE)];
        if recorded.len() < MOST && !recorded.iter().any(|reason| reason.cause == cause && reason.value == value) {
            recorded.push(Reason { cause, value: value.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_source_and_a_unique_name() {
        for rule in Rule::ALL {
            assert!(rule.sentence().ends_with('.') && !rule.sentence().contains('\n'), "{rule:?}");
            let known = ["RFC ", "Python's ", "Policy::", "limits.", "--"];
            assert!(known.iter().any(|known| rule.source().starts_with(known)), "{rule:?}: {}", rule.source());
            let same = Rule::ALL.iter().filter(|other| other.name() == rule.name()).count();
            assert_eq!(same, 1, "{}", rule.name());
        }
    }

    #[test]
    fn reasons_are_bounded_and_only_recorded_if_enabled() {
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

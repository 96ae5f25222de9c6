//! Fields that rules add to responses.

use std::time::Duration;

use super::pattern::Pattern;
use super::{InvalidRule, Rules};
use crate::fields::Fields;
use crate::grammar::{is_field_value, is_token_byte};
use crate::reason::{Reasons, Rule};
use crate::status::StatusCode;

/// Fields that frame a message or belong to a connection.
const FRAMING: [&str; 9] = [
    "Connection",
    "Content-Length",
    "Content-Range",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Fields that the server compares with those of requests, or that say when it responded.
const OF_FILES: [&str; 3] = ["Date", "ETag", "Last-Modified"];

/// Fields of which a response may have several that do not exclude each other, so that none is replaced.
const LISTS: [&str; 2] = ["Set-Cookie", "Vary"];

/// How long caches may keep a response, for [`Rules::with_cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// For this time, in whole seconds: `Cache-Control: max-age=3600`. With zero, they ask again each time.
    For(Duration),
    /// Not at all: `Cache-Control: no-store`.
    Never,
    /// For a year, and they do not ask again: `Cache-Control: public, max-age=31536000, immutable`. For files whose
    /// name changes with their content.
    Immutable,
}

impl Cache {
    fn value(self) -> String {
        match self {
            Cache::For(time) => format!("max-age={}", time.as_secs()),
            Cache::Never => "no-store".into(),
            Cache::Immutable => "public, max-age=31536000, immutable".into(),
        }
    }
}

/// Which rule a field comes from. Those of a later one replace those of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Cache,
    HeaderAlways,
    Header,
}

impl Kind {
    fn rule(self) -> Rule {
        match self {
            Kind::Cache => Rule::CacheOfRule,
            Kind::HeaderAlways => Rule::HeaderAlways,
            Kind::Header => Rule::HeaderOfRule,
        }
    }
}

/// A field of responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldRule {
    pub(super) kind: Kind,
    pub(super) pattern: Option<Pattern>,
    pub(super) name: String,
    pub(super) value: String,
}

impl FieldRule {
    fn new(kind: Kind, pattern: Option<&str>, name: &str, value: &str) -> Result<FieldRule, InvalidRule> {
        let pattern = pattern.map(Pattern::new).transpose()?;
        let is = |names: &[&str]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let value = value.trim_matches([' ', '\t']);
        let why = match name {
            _ if name.is_empty() || !name.bytes().all(is_token_byte) => "not a field, such as 'X-Name: value'",
            _ if !is_field_value(value.as_bytes()) => "the value of a field has no control characters",
            _ if is(&FRAMING) => "the server itself writes the fields that frame a message or belong to a connection",
            _ if is(&OF_FILES) => "the server itself writes the dates and tags of files",
            _ => return Ok(FieldRule { kind, pattern, name: name.into(), value: value.into() }),
        };
        Err(InvalidRule(format!("{why}: {:?}", format!("{name}: {value}"))))
    }

    /// Whether another rule adds to this one instead of replacing its field.
    fn is_beside(&self, other: &FieldRule) -> bool {
        (self.kind, &self.pattern) == (other.kind, &other.pattern)
    }

    fn names(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether the field says how content is to be read. The files of this server have it in place of their own, so
    /// that it also stands with each part of several.
    fn is_of_content(&self) -> bool {
        self.names("Content-Type") || self.names("Content-Encoding")
    }

    fn is_for(&self, path: Option<&[u8]>) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| path.is_some_and(|path| pattern.matches(path)))
    }
}

impl Rules {
    /// Adds a field to responses with the statuses 200, 206 and 304, in place of one that they have already, except
    /// for `Set-Cookie` and `Vary`. `Content-Type` and `Content-Encoding` are those of files alone.
    ///
    /// A field can be added several times. With different [patterns](Rules#), the last one that matches applies.
    ///
    /// # Errors
    /// If the name is not a token, if the value has control characters, or if only the server may write the field:
    /// those that frame a message or belong to a connection, `Date`, `ETag` and `Last-Modified`.
    pub fn with_header(self, name: &str, value: &str) -> Result<Rules, InvalidRule> {
        self.with_field(Kind::Header, None, name, value)
    }

    /// As [`with_header`](Self::with_header), for what the [pattern](Rules#) selects.
    ///
    /// # Errors
    /// As [`with_header`](Self::with_header), and if the pattern is not valid.
    pub fn with_header_for(self, pattern: &str, name: &str, value: &str) -> Result<Rules, InvalidRule> {
        self.with_field(Kind::Header, Some(pattern), name, value)
    }

    /// As [`with_header`](Self::with_header), for responses with any status: errors and redirects too.
    /// [`with_header`](Self::with_header) takes precedence.
    ///
    /// # Errors
    /// As [`with_header`](Self::with_header).
    pub fn with_header_always(self, name: &str, value: &str) -> Result<Rules, InvalidRule> {
        self.with_field(Kind::HeaderAlways, None, name, value)
    }

    /// As [`with_header_always`](Self::with_header_always), for what the [pattern](Rules#) selects.
    ///
    /// # Errors
    /// As [`with_header_for`](Self::with_header_for).
    pub fn with_header_always_for(self, pattern: &str, name: &str, value: &str) -> Result<Rules, InvalidRule> {
        self.with_field(Kind::HeaderAlways, Some(pattern), name, value)
    }

    /// Sends `Cache-Control` with the statuses 200, 206 and 304. [`with_header`](Self::with_header) takes precedence.
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Rules {
        self.with_field(Kind::Cache, None, CACHE_CONTROL, &cache.value()).expect("a valid field")
    }

    /// As [`with_cache`](Self::with_cache), for what the [pattern](Rules#) selects. The last one that matches applies.
    ///
    /// # Errors
    /// If the pattern is not valid.
    pub fn with_cache_for(self, pattern: &str, cache: Cache) -> Result<Rules, InvalidRule> {
        self.with_field(Kind::Cache, Some(pattern), CACHE_CONTROL, &cache.value())
    }

    pub(super) fn with_field(
        mut self,
        kind: Kind,
        pattern: Option<&str>,
        name: &str,
        value: &str,
    ) -> Result<Rules, InvalidRule> {
        let rule = FieldRule::new(kind, pattern, name, value)?;
        let at = self.fields.partition_point(|other| other.kind <= kind);
        self.fields.insert(at, rule);
        Ok(self)
    }

    /// Adds the fields to a response: those for every response, and if it `is_usual` all others too. Patterns are
    /// compared with `path`.
    pub(crate) fn add_fields(
        &self,
        status: StatusCode,
        is_usual: bool,
        path: Option<&[u8]>,
        out: &mut Fields<'_>,
        reasons: &mut Reasons,
    ) {
        let applies = |rule: &&FieldRule| {
            (is_usual || rule.kind == Kind::HeaderAlways)
                && !rule.is_of_content()
                && !(status == StatusCode::NOT_MODIFIED && describes_content(&rule.name))
                && rule.is_for(path)
        };
        for (at, rule) in self.fields.iter().enumerate().filter(|(_, rule)| applies(rule)) {
            let is_same = |other: &&FieldRule| other.names(&rule.name) && applies(other);
            let (before, after) = (&self.fields[..at], &self.fields[at + 1..]);
            let is_list = LISTS.iter().any(|name| rule.names(name));
            if !is_list {
                if after.iter().filter(is_same).any(|later| !later.is_beside(rule)) {
                    continue;
                }
                if !before.iter().filter(is_same).any(|earlier| earlier.is_beside(rule)) {
                    out.remove(&rule.name).expect("framing fields are refused");
                }
            }
            out.append(&rule.name, rule.value.as_bytes()).expect("checked when it was set");
            reasons.note_with(rule.kind.rule(), |out| out.extend(format!("{}: {}", rule.name, rule.value).bytes()));
        }
    }

    /// The value of a field that says how the content of a file is to be read, in place of its own.
    pub(crate) fn of_content(&self, name: &str, path: &[u8]) -> Option<&str> {
        let found = self.fields.iter().rev().find(|rule| rule.names(name) && rule.is_for(Some(path)));
        found.map(|rule| rule.value.as_str())
    }
}

const CACHE_CONTROL: &str = "Cache-Control";

/// RFC 9110 section 15.4.5: "a sender SHOULD NOT generate representation metadata other than the above listed fields
/// unless said metadata exists for the purpose of guiding cache updates".
fn describes_content(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("Content-") && !starts("Content-Location") && !starts("Content-Security-Policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a response that has some already, one a line, after the rules were applied.
    fn fields(rules: &Rules, status: u16, path: &str) -> String {
        let mut out = b"Server: s\r\nCache-Control: own\r\nVary: a\r\n".to_vec();
        let mut reasons = Reasons::default();
        let status = StatusCode::new(status).unwrap();
        let is_usual = [200, 206, 304].contains(&status.code());
        rules.add_fields(status, is_usual, Some(path.as_bytes()), &mut Fields::new(&mut out, 0), &mut reasons);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    const OWN: &str = "Server: s|Cache-Control: own|Vary: a|";

    #[test]
    fn fields_are_for_successes_or_for_all() {
        let rules = Rules::new().with_header("A", "1").unwrap().with_header_always("B", "2").unwrap();
        for status in [200, 206, 304] {
            assert_eq!(fields(&rules, status, "x"), format!("{OWN}B: 2|A: 1|"), "{status}");
        }
        for status in [204, 301, 308, 404, 412, 416, 500] {
            assert_eq!(fields(&rules, status, "x"), format!("{OWN}B: 2|"), "{status}");
        }
    }

    #[test]
    fn the_last_pattern_counts() {
        let rules = Rules::new()
            .with_header("A", "1")
            .and_then(|rules| rules.with_header("a", "2"))
            .and_then(|rules| rules.with_header_for("*.x", "A", "3"))
            .and_then(|rules| rules.with_header_for("*.x", "A", "4"))
            .unwrap();
        assert_eq!(fields(&rules, 200, "a.y"), format!("{OWN}A: 1|a: 2|"));
        assert_eq!(fields(&rules, 200, "a.x"), format!("{OWN}A: 3|A: 4|"));
        let other =
            Rules::new().with_header_for("*.x", "A", "3").and_then(|rules| rules.with_header("A", "1")).unwrap();
        assert_eq!(fields(&other, 200, "a.x"), format!("{OWN}A: 1|"));
    }

    #[test]
    fn a_header_counts_more_than_a_cache_time() {
        let rules = Rules::new().with_header_for("*.x", "cache-control", "mine").unwrap();
        let rules = rules.with_cache(Cache::For(Duration::from_millis(5999)));
        let rules =
            rules.with_cache_for("*.y", Cache::Immutable).and_then(|rules| rules.with_cache_for("*.z", Cache::Never));
        let rules = rules.unwrap();
        for (path, value) in [
            ("a", "Cache-Control: max-age=5"),
            ("a.x", "cache-control: mine"),
            ("a.y", "Cache-Control: public, max-age=31536000, immutable"),
            ("a.z", "Cache-Control: no-store"),
        ] {
            assert_eq!(fields(&rules, 200, path), format!("Server: s|Vary: a|{value}|"), "{path}");
        }
        assert_eq!(fields(&rules, 404, "a"), OWN);
    }

    #[test]
    fn independent_fields_are_added() {
        let rules =
            Rules::new().with_header("Vary", "b").and_then(|rules| rules.with_header_for("*", "vary", "c")).unwrap();
        assert_eq!(fields(&rules, 200, "a"), format!("{OWN}Vary: b|vary: c|"));
        let rules = Rules::new().with_header("Server", "other").unwrap();
        assert_eq!(fields(&rules, 200, "a"), "Cache-Control: own|Vary: a|Server: other|");
    }

    #[test]
    fn what_describes_content_is_that_of_files() {
        let rules = Rules::new().with_header("Content-Language", "de").unwrap();
        let rules = rules.with_header_for("*.gz", "Content-Encoding", "gzip").unwrap();
        let rules = rules.with_header_for("*.gz", "content-type", "a/b").unwrap();
        let rules = rules.with_header("Content-Security-Policy", "default-src 'self'").unwrap();
        assert_eq!(fields(&rules, 304, "a.gz"), format!("{OWN}Content-Security-Policy: default-src 'self'|"));
        assert_eq!(
            fields(&rules, 200, "a.gz"),
            format!("{OWN}Content-Language: de|Content-Security-Policy: default-src 'self'|")
        );
        assert_eq!(rules.of_content("Content-Type", b"x.gz"), Some("a/b"));
        assert_eq!([rules.of_content("Content-Type", b"x"), rules.of_content("Content-Encoding", b"x")], [None, None]);
    }

    #[test]
    fn fields_are_checked() {
        for name in FRAMING.iter().chain(&OF_FILES) {
            assert!(Rules::new().with_header(&name.to_lowercase(), "x").is_err(), "{name}");
            assert!(Rules::new().with_header_always_for("*", name, "x").is_err(), "{name}");
        }
        for (name, value) in
            [("", "x"), ("A b", "x"), ("A:", "x"), ("A", "x\r\nB: y"), ("A", "x\ny"), ("A\n", "x"), ("A", "\0")]
        {
            assert!(Rules::new().with_header(name, value).is_err(), "{name:?} {value:?}");
        }
        assert!(Rules::new().with_header("A", " ").is_ok());
    }
}

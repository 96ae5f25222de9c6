//! Media types that an embedder configures, in addition to the built-in tables.

use std::fmt;

use crate::grammar::is_token_byte;

/// The media types of extensions, the type of unknown files, and the charset of text. Default:
/// [`media_type`](crate::media_type), `application/octet-stream`, and [`Policy::charset`](crate::Policy::charset).
///
/// All values are validated when they are set, so that they can be sent in a field.
///
/// ```
/// use sanserve_core::MediaTypes;
///
/// # fn main() -> Result<(), sanserve_core::InvalidMediaType> {
/// let types = MediaTypes::default().with(".foo", "text/x-foo")?.with_unknown("text/plain")?.with_charset(None)?;
/// assert!(types.with(".bar", "no type").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaTypes {
    extensions: Vec<(String, String)>,
    unknown: Option<String>,
    /// `None`: the one of the policy. `Some(None)`: no charset.
    charset: Option<Option<String>>,
}

impl MediaTypes {
    /// Sets the type of names that end with `extension`, in any case. It takes precedence over the tables and
    /// [`Policy::media_type`](crate::Policy::media_type). `extension` begins with a dot and may contain more of them,
    /// as `.tar.gz` does. The longest match applies; a later call replaces an earlier one.
    ///
    /// # Errors
    /// If `extension` or `media_type` is not valid.
    pub fn with(mut self, extension: &str, media_type: &str) -> Result<MediaTypes, InvalidMediaType> {
        let is_name = |byte: u8| byte > b' ' && !matches!(byte, b'/' | b'"' | 0x7f);
        if extension.len() < 2 || !extension.starts_with('.') || !extension.bytes().all(is_name) {
            return Err(InvalidMediaType::new("expected an extension such as .txt", extension));
        }
        self.extensions.retain(|(known, _)| !known.eq_ignore_ascii_case(extension));
        self.extensions.push((extension.into(), checked(media_type)?));
        Ok(self)
    }

    /// Sets the type of files that no table knows (Python 3.15's `--content-type`).
    ///
    /// # Errors
    /// If `media_type` is not valid.
    pub fn with_unknown(self, media_type: &str) -> Result<MediaTypes, InvalidMediaType> {
        Ok(MediaTypes { unknown: Some(checked(media_type)?), ..self })
    }

    /// Sets the charset of `text/*` types without parameters; `None` for no charset.
    ///
    /// # Errors
    /// If `charset` is not a token.
    pub fn with_charset(self, charset: Option<&str>) -> Result<MediaTypes, InvalidMediaType> {
        if let Some(charset) = charset.filter(|charset| !is_token(charset)) {
            return Err(InvalidMediaType::new("expected a charset such as utf-8", charset));
        }
        Ok(MediaTypes { charset: Some(charset.map(Into::into)), ..self })
    }

    /// The configured extensions and their types.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.extensions.iter().map(|(extension, kind)| (extension.as_str(), kind.as_str()))
    }

    /// The type of files that no table knows, if it is configured.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// The charset, if it is configured. Otherwise, the policy decides.
    #[must_use]
    pub fn charset(&self) -> Option<Option<&str>> {
        self.charset.as_ref().map(Option::as_deref)
    }

    /// The configured type for a path.
    #[inline]
    pub(crate) fn of(&self, path: &[u8]) -> Option<&str> {
        if self.extensions.is_empty() { None } else { self.search(path) }
    }

    fn search(&self, path: &[u8]) -> Option<&str> {
        let name = &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
        // A name that begins with a dot is not an extension.
        let has = |extension: &str| {
            name.len() > extension.len()
                && name[name.len() - extension.len()..].eq_ignore_ascii_case(extension.as_bytes())
        };
        let found = self.extensions.iter().filter(|(extension, _)| has(extension));
        found.max_by_key(|(extension, _)| extension.len()).map(|(_, kind)| kind.as_str())
    }
}

/// An invalid media type, extension or charset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMediaType {
    expected: &'static str,
    value: String,
}

impl InvalidMediaType {
    fn new(expected: &'static str, value: &str) -> InvalidMediaType {
        InvalidMediaType { expected, value: value.into() }
    }
}

impl fmt::Display for InvalidMediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, found {:?}", self.expected, self.value)
    }
}

impl std::error::Error for InvalidMediaType {}

pub(crate) fn checked(media_type: &str) -> Result<String, InvalidMediaType> {
    if is_media_type(media_type) {
        Ok(media_type.into())
    } else {
        Err(InvalidMediaType::new("expected a media type such as text/plain", media_type))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// RFC 9110 section 8.3.1: `type/subtype`, with optional parameters. A quoted string is not parsed further.
pub(crate) fn is_media_type(text: &str) -> bool {
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_kind =
        kind.trim_end_matches([' ', '\t']).split_once('/').is_some_and(|(of, sub)| is_token(of) && is_token(sub));
    let is_plain = |parameters: &str| {
        parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()).all(|parameter| {
            parameter
                .split_once('=')
                .is_some_and(|(name, value)| is_token(name) && (is_token(value) || is_quoted(value)))
        })
    };
    is_kind && !text.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) && is_plain(parameters)
}

fn is_quoted(value: &str) -> bool {
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inside.is_some_and(|inside| !inside.contains(['"', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_validated() {
        for text in
            ["text/plain", "a/b+c", "text/plain; charset=x", "text/plain;charset=x", "a/b;c=\"d e\"", "a/b ; c=d;"]
        {
            assert!(is_media_type(text), "{text}");
        }
        for text in [
            "",
            "text",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b\r\nX: y",
            "a/b\0",
            "a/b; c",
            "a/b; c=d e",
            "a/b;c=\"",
            "\u{e4}/b",
        ] {
            assert!(!is_media_type(text), "{text:?}");
        }
    }

    #[test]
    fn the_longest_extension_applies() {
        let types = MediaTypes::default().with(".gz", "a/gz").unwrap().with(".tar.gz", "a/tar").unwrap();
        for (path, kind) in [
            ("a.gz", Some("a/gz")),
            ("x.y/a.GZ", Some("a/gz")),
            ("a.tar.gz", Some("a/tar")),
            (".tar.gz", Some("a/gz")),
            (".gz", None),
            ("d/.gz", None),
            ("a.gz/b", None),
            ("gz", None),
        ] {
            assert_eq!(types.of(path.as_bytes()), kind, "{path}");
        }
        assert_eq!(types.with(".GZ", "a/z").unwrap().of(b"a.gz"), Some("a/z"));
    }

    #[test]
    fn invalid_values_are_refused() {
        let types = MediaTypes::default;
        for extension in ["", ".", "txt", ".a/b", ".a b", ".a\n"] {
            assert!(types().with(extension, "a/b").is_err(), "{extension:?}");
        }
        let error = types().with(".a", "x").unwrap_err();
        assert_eq!(error.to_string(), "expected a media type such as text/plain, found \"x\"");
        assert!(types().with_unknown("x\r\n").is_err() && types().with_charset(Some("a b")).is_err());
        assert_eq!(types().with_charset(Some("latin-1")).unwrap().charset(), Some(Some("latin-1")));
    }
}

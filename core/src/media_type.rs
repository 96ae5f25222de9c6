//! Media types by extension (Python's `guess_type`), the same on every machine.
//!
//! The general table is that of mime_guess. The rows here take precedence over it: they add common types that it lacks,
//! and correct those where Python, browsers or package managers need another one. `docs/media-types.md` has the reason
//! for each row. Types that an embedder configures are in [`MediaTypes`].

use crate::media_types::MediaTypes;
use crate::reason::{Reasons, Rule};

/// The rows that take precedence over the general table, ordered by extension.
const FIRST: &[(&str, &str, Rule)] = &[
    ("3gpp2", "video/3gpp2", Rule::TypeOfTable),
    ("3mf", "model/3mf", Rule::TypeOfTable),
    ("a", "application/octet-stream", Rule::TypeOfPython),
    ("adt", "audio/aac", Rule::TypeOfTable),
    ("aif", "audio/x-aiff", Rule::TypeOfPython),
    ("aifc", "audio/x-aiff", Rule::TypeOfPython),
    ("aiff", "audio/x-aiff", Rule::TypeOfPython),
    ("amr", "audio/amr", Rule::TypeOfTable),
    ("appinstaller", "application/appinstaller", Rule::TypeOfTable),
    ("appx", "application/appx", Rule::TypeOfTable),
    ("appxbundle", "application/appxbundle", Rule::TypeOfTable),
    ("arrow", "application/vnd.apache.arrow.file", Rule::TypeOfTable),
    ("ass", "text/x-ssa", Rule::TypeOfTable),
    ("bat", "text/plain", Rule::TypeOfPython),
    ("bib", "text/x-bibtex", Rule::TypeOfTable),
    ("br", "application/octet-stream", Rule::TypeOfCompressed),
    ("bz2", "application/x-bzip2", Rule::TypeOfCompressed),
    ("cab", "application/vnd.ms-cab-compressed", Rule::TypeOfTable),
    ("cdf", "application/x-netcdf", Rule::TypeOfPython),
    ("cjs", "text/javascript", Rule::TypeOfTable),
    ("class", "application/java-vm", Rule::TypeOfTable),
    ("cur", "image/vnd.microsoft.icon", Rule::TypeOfTable),
    ("ddeb", "application/vnd.debian.binary-package", Rule::TypeOfTable),
    ("dds", "image/vnd.ms-dds", Rule::TypeOfTable),
    ("deb", "application/vnd.debian.binary-package", Rule::TypeOfTable),
    ("dfxp", "application/ttml+xml", Rule::TypeOfTable),
    ("diff", "text/x-diff", Rule::TypeOfTable),
    ("dll", "application/octet-stream", Rule::TypeOfPython),
    ("emf", "image/emf", Rule::TypeOfTable),
    ("flatpakref", "application/vnd.flatpak.ref", Rule::TypeOfTable),
    ("flatpakrepo", "application/vnd.flatpak.repo", Rule::TypeOfTable),
    ("gz", "application/gzip", Rule::TypeOfCompressed),
    ("h5", "application/x-hdf5", Rule::TypeOfPython),
    ("har", "application/json", Rule::TypeOfTable),
    ("ico", "image/vnd.microsoft.icon", Rule::TypeOfPython),
    ("ipynb", "application/x-ipynb+json", Rule::TypeOfTable),
    ("java", "text/x-java", Rule::TypeOfTable),
    ("js", "text/javascript", Rule::TypeOfPython),
    ("jsonl", "application/x-ndjson", Rule::TypeOfTable),
    ("ksh", "text/plain", Rule::TypeOfPython),
    ("ktx2", "image/ktx2", Rule::TypeOfTable),
    ("loas", "audio/aac", Rule::TypeOfPython),
    ("lz", "application/x-lzip", Rule::TypeOfCompressed),
    ("lz4", "application/x-lz4", Rule::TypeOfCompressed),
    ("lzma", "application/x-lzma", Rule::TypeOfCompressed),
    ("m2t", "video/mp2t", Rule::TypeOfTable),
    ("m2ts", "video/mp2t", Rule::TypeOfTable),
    ("m3u", "application/vnd.apple.mpegurl", Rule::TypeOfPython),
    ("m3u8", "application/vnd.apple.mpegurl", Rule::TypeOfPython),
    ("m4a", "audio/mp4", Rule::TypeOfTable),
    ("m4b", "audio/mp4", Rule::TypeOfTable),
    ("m4p", "audio/mp4", Rule::TypeOfTable),
    ("m4s", "video/iso.segment", Rule::TypeOfTable),
    ("map", "application/json", Rule::TypeOfTable),
    ("mid", "audio/midi", Rule::TypeOfTable),
    ("midi", "audio/midi", Rule::TypeOfTable),
    ("mif", "application/x-mif", Rule::TypeOfPython),
    ("mjs", "text/javascript", Rule::TypeOfPython),
    ("mkd", "text/markdown", Rule::TypeOfTable),
    ("mobileconfig", "application/x-apple-aspen-config", Rule::TypeOfTable),
    ("mod", "text/plain", Rule::TypeOfTable),
    ("msix", "application/msix", Rule::TypeOfTable),
    ("msixbundle", "application/msixbundle", Rule::TypeOfTable),
    ("mts", "video/mp2t", Rule::TypeOfTable),
    ("mvt", "application/vnd.mapbox-vector-tile", Rule::TypeOfTable),
    ("ndjson", "application/x-ndjson", Rule::TypeOfTable),
    ("o", "application/octet-stream", Rule::TypeOfPython),
    ("obj", "application/octet-stream", Rule::TypeOfPython),
    ("opus", "audio/opus", Rule::TypeOfPython),
    ("org", "text/x-org", Rule::TypeOfTable),
    ("otf", "font/otf", Rule::TypeOfTable),
    ("patch", "text/x-diff", Rule::TypeOfTable),
    ("pbf", "application/x-protobuf", Rule::TypeOfTable),
    ("pem", "application/x-pem-file", Rule::TypeOfTable),
    ("pl", "text/plain", Rule::TypeOfPython),
    ("plist", "application/xml", Rule::TypeOfTable),
    ("pls", "audio/x-scpls", Rule::TypeOfTable),
    ("ps1", "text/plain", Rule::TypeOfTable),
    ("psd", "image/vnd.adobe.photoshop", Rule::TypeOfTable),
    ("py", "text/x-python", Rule::TypeOfPython),
    ("pyc", "application/x-python-code", Rule::TypeOfPython),
    ("pyo", "application/x-python-code", Rule::TypeOfPython),
    ("ram", "application/x-pn-realaudio", Rule::TypeOfPython),
    ("rar", "application/vnd.rar", Rule::TypeOfTable),
    ("reality", "model/vnd.reality", Rule::TypeOfTable),
    ("rpm", "application/x-rpm", Rule::TypeOfTable),
    ("rst", "text/x-rst", Rule::TypeOfPython),
    ("scr", "application/octet-stream", Rule::TypeOfTable),
    ("sgm", "text/x-sgml", Rule::TypeOfPython),
    ("sgml", "text/x-sgml", Rule::TypeOfPython),
    ("sql", "application/sql", Rule::TypeOfTable),
    ("sqlite", "application/vnd.sqlite3", Rule::TypeOfTable),
    ("sqlite3", "application/vnd.sqlite3", Rule::TypeOfTable),
    ("srt", "text/plain", Rule::TypeOfPython),
    ("ssa", "text/x-ssa", Rule::TypeOfTable),
    ("step", "model/step", Rule::TypeOfTable),
    ("stl", "model/stl", Rule::TypeOfTable),
    ("stp", "model/step", Rule::TypeOfTable),
    ("svgz", "image/svg+xml", Rule::TypeOfEncoded),
    ("taz", "application/gzip", Rule::TypeOfCompressed),
    ("tb2", "application/x-bzip2", Rule::TypeOfCompressed),
    ("tbz", "application/x-bzip2", Rule::TypeOfCompressed),
    ("tbz2", "application/x-bzip2", Rule::TypeOfCompressed),
    ("tgz", "application/gzip", Rule::TypeOfCompressed),
    ("tlz", "application/x-lzip", Rule::TypeOfCompressed),
    ("toml", "application/toml", Rule::TypeOfTable),
    ("topojson", "application/json", Rule::TypeOfTable),
    ("ts", "video/mp2t", Rule::TypeOfTable),
    ("ttml", "application/ttml+xml", Rule::TypeOfTable),
    ("tts", "video/mp2t", Rule::TypeOfTable),
    ("txz", "application/x-xz", Rule::TypeOfCompressed),
    ("tz", "application/gzip", Rule::TypeOfCompressed),
    ("tzst", "application/zstd", Rule::TypeOfCompressed),
    ("udeb", "application/vnd.debian.binary-package", Rule::TypeOfTable),
    ("usdz", "model/vnd.usdz+zip", Rule::TypeOfTable),
    ("wav", "audio/x-wav", Rule::TypeOfPython),
    ("wgsl", "text/wgsl", Rule::TypeOfTable),
    ("wmf", "image/wmf", Rule::TypeOfTable),
    ("woff", "font/woff", Rule::TypeOfTable),
    ("wsdl", "application/xml", Rule::TypeOfPython),
    ("xlb", "application/vnd.ms-excel", Rule::TypeOfPython),
    ("xpdl", "application/xml", Rule::TypeOfPython),
    ("xsl", "application/xml", Rule::TypeOfPython),
    ("xz", "application/x-xz", Rule::TypeOfCompressed),
    ("yaml", "application/yaml", Rule::TypeOfTable),
    ("yml", "application/yaml", Rule::TypeOfTable),
    ("z", "application/octet-stream", Rule::TypeOfCompressed),
    ("zst", "application/zstd", Rule::TypeOfCompressed),
    ("zsync", "application/x-zsync", Rule::TypeOfTable),
];

/// Extensions of compressed content, with the type after decoding (as in the table), and the content coding.
const ENCODED: &[(&str, &str, &str)] = &[("svgz", "image/svg+xml", "gzip")];

/// The type of a file without a known extension.
const UNKNOWN: &str = "application/octet-stream";

/// The media type for a path, without parameters.
#[must_use]
pub fn media_type(path: &[u8]) -> &'static str {
    find(path).0
}

/// The content coding (RFC 9110 section 8.4) of a file with media type `kind`. Only if `kind` is the type after
/// decoding.
pub(crate) fn content_encoding(path: &[u8], kind: &str) -> Option<&'static str> {
    // The type is compared first: that excludes nearly every file without looking at the path again.
    let (encoded, _, coding) = ENCODED.iter().find(|(_, decoded, _)| *decoded == kind)?;
    extension(path).is_some_and(|extension| extension.eq_ignore_ascii_case(encoded.as_bytes())).then_some(coding)
}

/// Whether this is the type of text, without parameters.
pub(crate) fn is_text(kind: &str) -> bool {
    match kind.as_bytes() {
        [b't' | b'T', b'e' | b'E', b'x' | b'X', b't' | b'T', b'/', rest @ ..] => rest.iter().all(|&byte| byte != b';'),
        _ => false,
    }
}

/// Writes the value of a `Content-Type` field.
#[inline]
pub(crate) fn write(kind: &str, charset: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(kind.as_bytes());
    if let Some(charset) = charset {
        out.extend_from_slice(b"; charset=");
        out.extend_from_slice(charset.as_bytes());
    }
}

/// The media type for a path, and by which rule.
fn find(path: &[u8]) -> (&'static str, Rule) {
    match extension(path) {
        Some(extension) => usual(extension).unwrap_or_else(|| search(extension)),
        None => (UNKNOWN, Rule::TypeWithoutExtension),
    }
}

/// The entries of the tables for the most frequent extensions, without a search.
fn usual(extension: &[u8]) -> Option<(&'static str, Rule)> {
    Some(match extension {
        b"html" => ("text/html", Rule::TypeOfExtension),
        b"css" => ("text/css", Rule::TypeOfExtension),
        b"js" => ("text/javascript", Rule::TypeOfPython),
        b"json" => ("application/json", Rule::TypeOfExtension),
        b"png" => ("image/png", Rule::TypeOfExtension),
        b"jpg" => ("image/jpeg", Rule::TypeOfExtension),
        b"svg" => ("image/svg+xml", Rule::TypeOfExtension),
        b"webp" => ("image/webp", Rule::TypeOfExtension),
        b"woff2" => ("font/woff2", Rule::TypeOfExtension),
        b"txt" => ("text/plain", Rule::TypeOfExtension),
        _ => return None,
    })
}

/// Searches the tables for an extension.
#[inline(never)]
fn search(extension: &[u8]) -> (&'static str, Rule) {
    let lower = || extension.iter().map(u8::to_ascii_lowercase);
    if let Ok(at) = FIRST.binary_search_by(|(known, ..)| known.bytes().cmp(lower())) {
        return (FIRST[at].1, FIRST[at].2);
    }
    let Ok(known) = std::str::from_utf8(extension) else { return (UNKNOWN, Rule::TypeWithoutExtension) };
    match mime_guess::from_ext(known).first_raw() {
        Some(kind) => (kind, Rule::TypeOfExtension),
        None => (UNKNOWN, Rule::TypeUnknown),
    }
}

/// Whether no table has the extension of this path.
pub(crate) fn is_unknown(path: &[u8]) -> bool {
    matches!(find(path).1, Rule::TypeWithoutExtension | Rule::TypeUnknown)
}

/// Records the rule that chose `kind` as the type for `path`.
pub(crate) fn explain(path: &[u8], kind: &str, types: &MediaTypes, reasons: &mut Reasons) {
    let (ours, rule) = find(path);
    let rule = match types.of(path) {
        Some(_) => Rule::TypeOfConfig,
        None if is_unknown(path) && types.unknown() == Some(kind) => Rule::TypeOfConfig,
        None if ours == kind => rule,
        None => Rule::TypeOfPolicy,
    };
    reasons.note(rule, kind.as_bytes());
}

/// What follows the last dot of the last segment, as in Python's `splitext`: leading dots do not begin an extension.
fn extension(path: &[u8]) -> Option<&[u8]> {
    let mark = path.iter().rposition(|byte| matches!(byte, b'.' | b'/'))?;
    let (before, extension) = (&path[..mark], &path[mark + 1..]);
    if let (b'.', [.., b'a'..=b'z']) = (path[mark], before) {
        return Some(extension);
    }
    let starts_name = |at: &[u8]| matches!(at, [] | [.., b'/']);
    let leading = before.iter().rev().take_while(|&&byte| byte == b'.').count();
    if path[mark] == b'/' || starts_name(&before[..before.len() - leading]) {
        return None;
    }
    Some(extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_chosen_by_extension() {
        for (path, kind) in [
            ("a.txt", "text/plain"),
            ("d.d/a", UNKNOWN),
            ("a.HTML", "text/html"),
            ("a.tar.gz", "application/gzip"),
            ("a.Z", UNKNOWN),
            ("a.tgz", "application/gzip"),
            ("a.TBZ2", "application/x-bzip2"),
            ("a.rpm", "application/x-rpm"),
            ("a.ts", "video/mp2t"),
            ("a.3gp", "video/3gpp"),
            ("a.bib", "text/x-bibtex"),
            ("a.zsync", "application/x-zsync"),
            ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ("a.svgz", "image/svg+xml"),
            ("a.svg", "image/svg+xml"),
            ("a.js", "text/javascript"),
            ("a.wasm", "application/wasm"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.no-such-thing", UNKNOWN),
            (".html", UNKNOWN),
            ("x/..html", UNKNOWN),
            ("x/.a.html", "text/html"),
            ("x/a..html", "text/html"),
            ("a.html/b", UNKNOWN),
            ("a.", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(media_type(path.as_bytes()), kind, "{path}");
        }
        assert_eq!(media_type(b"a.\xff"), UNKNOWN);
    }

    #[test]
    fn the_usual_extensions_have_the_types_of_the_tables() {
        for extension in ["html", "css", "js", "json", "png", "jpg", "svg", "webp", "woff2", "txt"] {
            assert_eq!(usual(extension.as_bytes()), Some(search(extension.as_bytes())), "{extension}");
        }
    }

    #[test]
    fn a_compressed_image_has_a_content_coding() {
        let svg = "image/svg+xml";
        assert_eq!(content_encoding(b"a.svgz", svg), Some("gzip"));
        assert_eq!(content_encoding(b"x/a.b.SVGZ", svg), Some("gzip"));
        assert_eq!(content_encoding(b"a.svgz", "application/gzip"), None, "the policy declares it as gzip");
        for (extension, kind, _) in ENCODED {
            assert_eq!(media_type(format!("a.{extension}").as_bytes()), *kind);
        }
        for path in ["a.svg", "a.svg.gz", "a.tar.gz", "a.tgz", "svgz", ".svgz"] {
            assert_eq!(content_encoding(path.as_bytes(), media_type(path.as_bytes())), None, "{path}");
        }
    }

    #[test]
    fn each_row_is_sorted_documented_and_needed() {
        assert!(FIRST.is_sorted_by(|a, b| a.0.as_bytes() < b.0.as_bytes()));
        let documented = include_str!("../../docs/media-types.md");
        for (extension, kind, rule) in FIRST {
            assert!(
                documented.contains(&format!("| `.{extension}` | `{kind}` |")),
                "docs/media-types.md: .{extension}"
            );
            let general = mime_guess::from_ext(extension).first_raw();
            assert!(*rule != Rule::TypeOfTable || general != Some(kind), "the general table has .{extension}");
            assert!(crate::media_types::is_media_type(kind), "{kind}");
        }
        let rows = documented.lines().filter(|line| line.starts_with("| `.")).count();
        assert_eq!(rows, FIRST.len(), "docs/media-types.md has other rows");
    }
}

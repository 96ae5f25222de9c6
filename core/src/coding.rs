//! Content codings (RFC 9110 section 8.4.1), and which of them to send for an `Accept-Encoding` field (section 12.5.3).
//! Nothing is encoded here.

use crate::grammar::list_items;

/// A content coding: how the bytes of a representation were compressed.
///
/// ```
/// use sanserve_core::ContentCoding;
///
/// let available = [ContentCoding::Brotli, ContentCoding::Gzip, ContentCoding::Identity];
/// let chosen = |field: &str| ContentCoding::choose([field.as_bytes()], &available);
/// assert_eq!(chosen("gzip, br"), Some(ContentCoding::Brotli)); // the first one that is available
/// assert_eq!(chosen("gzip, br;q=0.5"), Some(ContentCoding::Gzip)); // the client prefers it
/// assert_eq!(chosen("deflate"), Some(ContentCoding::Identity)); // permitted unless it is refused
/// assert_eq!(chosen("deflate, identity;q=0"), None); // 406 Not Acceptable
/// assert_eq!(ContentCoding::choose([], &available), Some(ContentCoding::Identity)); // no such field
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ContentCoding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
    /// No coding.
    Identity,
}

/// The codings with their names in `Content-Encoding`, and the extensions of files, in the order of the enum.
const CODINGS: [(ContentCoding, &str, &str); 4] = [
    (ContentCoding::Zstd, "zstd", "zst"),
    (ContentCoding::Brotli, "br", "br"),
    (ContentCoding::Gzip, "gzip", "gz"),
    (ContentCoding::Identity, "identity", ""),
];

impl ContentCoding {
    /// The name in `Content-Encoding`: `br`, `gzip`, `zstd`, or `identity`, which is never sent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        CODINGS[self as usize].1
    }

    /// What precompressed files have after their name, without the dot: `br`, `gz` or `zst`. It is empty for `Identity`.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        CODINGS[self as usize].2
    }

    /// Splits the name of a precompressed file, such as `app.js.gz`, into the name of the plain file and its coding.
    /// `None` for the name of any other file.
    #[must_use]
    pub fn of_path(path: &str) -> Option<(&str, ContentCoding)> {
        let (plain, extension) = path.rsplit_once('.')?;
        let &(coding, ..) = CODINGS.iter().find(|(_, _, known)| *known == extension && !extension.is_empty())?;
        // A name such as `.gz` is that of a hidden file.
        (!plain.is_empty() && !plain.ends_with('/')).then_some((plain, coding))
    }

    /// The coding with this name, ignoring case.
    /// RFC 9110 section 8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"."
    fn of_name(name: &[u8]) -> Option<ContentCoding> {
        let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
        CODINGS.iter().find(|(_, known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|&(coding, ..)| coding)
    }

    /// Which of the `available` codings to send, given the values of all `Accept-Encoding` fields: the one with the
    /// highest weight, and among those with the same weight, the first one of `available`. `None` if the client accepts
    /// none of them.
    ///
    /// - `identity` is accepted if the field does not refuse it, but any coding that the field lists is preferred to it.
    /// - Without the field, every coding is accepted (RFC 9110 section 12.5.3). But what does not ask for a coding, such
    ///   as `curl`, often cannot decode it, so that `identity` is chosen if it is available.
    /// - An item that is malformed is ignored. Of a coding that is listed twice, the lower weight counts.
    pub fn choose<'v>(
        accepted: impl IntoIterator<Item = &'v [u8]>,
        available: &[ContentCoding],
    ) -> Option<ContentCoding> {
        let weights = Weights::of(accepted);
        let mut best: Option<(Rank, ContentCoding)> = None;
        for &coding in available {
            let rank = weights.rank(coding);
            if rank > Rank::REFUSED && best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }
}

/// How acceptable a coding is: its weight in thousandths, above [`Rank::UNLISTED`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u16);

impl Rank {
    const REFUSED: Rank = Rank(0);
    /// Accepted without being listed.
    const UNLISTED: Rank = Rank(1);
    const MOST: Rank = Rank(1_001);
}

/// The weights of an `Accept-Encoding` field.
#[derive(Default)]
struct Weights {
    is_present: bool,
    /// In the order of [`CODINGS`].
    of: [Option<Rank>; CODINGS.len()],
    /// That of `*`.
    any: Option<Rank>,
}

impl Weights {
    fn of<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Weights {
        let mut weights = Weights::default();
        for value in values {
            weights.is_present = true;
            for item in list_items(value) {
                let Some((name, rank)) = parse(item) else { continue };
                let slot = match (name, ContentCoding::of_name(name)) {
                    (b"*", _) => &mut weights.any,
                    (_, Some(coding)) => &mut weights.of[coding as usize],
                    (_, None) => continue,
                };
                *slot = Some(slot.map_or(rank, |other| other.min(rank)));
            }
        }
        weights
    }

    /// RFC 9110 section 12.5.3: "If the representation has no content coding, then it is acceptable by default unless
    /// specifically excluded by the Accept-Encoding header field stating either "identity;q=0" or "*;q=0" without a more
    /// specific entry for "identity"."
    fn rank(&self, coding: ContentCoding) -> Rank {
        let is_identity = coding == ContentCoding::Identity;
        match self.of[coding as usize].or(self.any) {
            Some(rank) => rank,
            None if !self.is_present && is_identity => Rank::MOST,
            None if !self.is_present || is_identity => Rank::UNLISTED,
            None => Rank::REFUSED,
        }
    }
}

/// An item of the list: `codings [ OWS ";" OWS "q=" qvalue ]`.
fn parse(item: &[u8]) -> Option<(&[u8], Rank)> {
    let Some(semicolon) = memchr::memchr(b';', item) else { return Some((item, Rank::MOST)) };
    let (name, weight) = (item[..semicolon].trim_ascii_end(), item[semicolon + 1..].trim_ascii_start());
    let (b"q=" | b"Q=", value) = weight.split_at_checked(2)? else { return None };
    Some((name, qvalue(value)?))
}

/// RFC 9110 section 12.4.2: `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`.
fn qvalue(text: &[u8]) -> Option<Rank> {
    let (&whole @ (b'0' | b'1'), rest) = text.split_first()? else { return None };
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0');
    for at in 0..3 {
        let digit = decimals.get(at).map_or(Some(0), |digit| digit.is_ascii_digit().then(|| digit - b'0'))?;
        thousandths = thousandths * 10 + u16::from(digit);
    }
    match thousandths {
        0 => Some(Rank::REFUSED),
        1..=1_000 => Some(Rank(thousandths + Rank::UNLISTED.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentCoding::*;

    /// What is available in most cases, in our order.
    const ALL: &[ContentCoding] = &[Brotli, Gzip, Identity];
    const CODED: &[ContentCoding] = &[Brotli, Gzip];
    const PLAIN: &[ContentCoding] = &[Identity];

    /// The values of the field, what is available, and what is chosen.
    type Case = (&'static [&'static str], &'static [ContentCoding], Option<ContentCoding>);

    const CASES: &[Case] = &[
        // Without the field.
        (&[], ALL, Some(Identity)),
        (&[], CODED, Some(Brotli)),
        (&[], &[Gzip], Some(Gzip)),
        (&[], PLAIN, Some(Identity)),
        (&[], &[], None),
        // An empty field refuses every coding.
        (&[""], ALL, Some(Identity)),
        (&[""], CODED, None),
        (&["", ""], ALL, Some(Identity)),
        (&[" ,, ,"], ALL, Some(Identity)),
        // One coding.
        (&["br"], ALL, Some(Brotli)),
        (&["gzip"], ALL, Some(Gzip)),
        (&["gzip"], PLAIN, Some(Identity)),
        (&["gzip"], &[Brotli, Identity], Some(Identity)),
        (&["gzip"], &[Brotli], None),
        (&["zstd"], &[Zstd, Brotli, Identity], Some(Zstd)),
        (&["zstd"], ALL, Some(Identity)),
        (&["deflate"], ALL, Some(Identity)),
        (&["deflate"], CODED, None),
        (&["identity"], ALL, Some(Identity)),
        (&["identity"], CODED, None),
        (&["compress, x-compress, dcb, dcz"], ALL, Some(Identity)),
        // Names ignore case, and have an alias.
        (&["GZIP"], ALL, Some(Gzip)),
        (&["Br"], ALL, Some(Brotli)),
        (&["x-gzip"], ALL, Some(Gzip)),
        (&["X-GZip;q=0.5"], ALL, Some(Gzip)),
        (&["x-gzip;q=0, *"], &[Gzip], None),
        (&["IDENTITY;Q=0"], PLAIN, None),
        (&["brotli"], ALL, Some(Identity)),
        (&["gz"], ALL, Some(Identity)),
        // Several: our order.
        (&["gzip, deflate, br, zstd"], ALL, Some(Brotli)),
        (&["gzip, deflate, br, zstd"], &[Zstd, Brotli, Gzip, Identity], Some(Zstd)),
        (&["gzip, br"], &[Gzip, Brotli, Identity], Some(Gzip)),
        (&["gzip,br"], ALL, Some(Brotli)),
        (&["gzip", "br"], ALL, Some(Brotli)),
        (&["gzip", ""], ALL, Some(Gzip)),
        (&["identity, gzip"], ALL, Some(Gzip)),
        (&["gzip, identity"], &[Identity, Gzip], Some(Identity)),
        // Weights.
        (&["gzip;q=1.0, br;q=0.9"], ALL, Some(Gzip)),
        (&["gzip;q=0.9, br;q=0.901"], ALL, Some(Brotli)),
        (&["br;q=0.001"], ALL, Some(Brotli)),
        (&["br;q=0.5, gzip;q=0.5"], ALL, Some(Brotli)),
        (&["gzip;q=0.3, identity;q=0.5"], ALL, Some(Identity)),
        (&["gzip;q=0.5, identity;q=0.5"], ALL, Some(Gzip)),
        (&["gzip;q=0.001, identity;q=1"], CODED, Some(Gzip)),
        (&["gzip ; q=0.5 , br ;\tq=0.4"], ALL, Some(Gzip)),
        (&["gzip;q=0., br;q=1."], ALL, Some(Brotli)),
        (&["gzip;q=1.000"], ALL, Some(Gzip)),
        // Refused.
        (&["br;q=0"], ALL, Some(Identity)),
        (&["br;q=0, gzip"], ALL, Some(Gzip)),
        (&["br;q=0.0, gzip;q=0.00"], CODED, None),
        (&["br;q=0.000"], CODED, None),
        (&["identity;q=0"], ALL, None),
        (&["identity;q=0"], PLAIN, None),
        (&["identity;q=0, gzip"], ALL, Some(Gzip)),
        (&["identity;q=0, gzip"], PLAIN, None),
        (&["identity;q=0, deflate"], ALL, None),
        // Whatever is not listed.
        (&["*"], ALL, Some(Brotli)),
        (&["*"], PLAIN, Some(Identity)),
        (&["*;q=0"], ALL, None),
        (&["*;q=0"], PLAIN, None),
        (&["*;q=0, gzip"], ALL, Some(Gzip)),
        (&["*;q=0, identity"], ALL, Some(Identity)),
        (&["*;q=0, identity;q=0.1"], CODED, None),
        (&["gzip, *;q=0"], PLAIN, None),
        (&["*, br;q=0"], ALL, Some(Gzip)),
        (&["gzip;q=0.3, *;q=0.5"], ALL, Some(Brotli)),
        (&["gzip;q=0.3, br;q=0.2, *;q=0.5"], ALL, Some(Identity)),
        (&["*;q=0.5, identity;q=0"], ALL, Some(Brotli)),
        // Twice: the lower weight.
        (&["gzip, gzip;q=0"], ALL, Some(Identity)),
        (&["gzip;q=0", "gzip"], ALL, Some(Identity)),
        (&["gzip;q=0.9, x-gzip;q=0.1, br;q=0.5"], ALL, Some(Brotli)),
        (&["*;q=0, *"], CODED, None),
        // Malformed items are ignored.
        (&["gzip;q=2"], ALL, Some(Identity)),
        (&["gzip;q=1.001, br;q=0.1"], ALL, Some(Brotli)),
        (&["gzip;q=0.1234, br;q=0.1"], ALL, Some(Brotli)),
        (&["gzip;q=-1"], ALL, Some(Identity)),
        (&["gzip;q="], ALL, Some(Identity)),
        (&["gzip;q"], ALL, Some(Identity)),
        (&["gzip;"], ALL, Some(Identity)),
        (&["gzip;q=.5"], ALL, Some(Identity)),
        (&["gzip;q=0.5.5"], ALL, Some(Identity)),
        (&["gzip;q=0.5;q=1"], ALL, Some(Identity)),
        (&["gzip;level=1"], ALL, Some(Identity)),
        (&["gzip;q = 0.5"], ALL, Some(Identity)),
        (&["gzip;q=0.5x"], ALL, Some(Identity)),
        (&["gzip br"], ALL, Some(Identity)),
        (&["\"gzip\""], ALL, Some(Identity)),
        (&[";q=1"], ALL, Some(Identity)),
        (&["\u{e9}\u{fffd}, gzip"], ALL, Some(Gzip)),
        (&["identity;q=no"], PLAIN, Some(Identity)),
        // What clients send.
        (&["gzip, deflate, br, zstd, dcb, dcz"], ALL, Some(Brotli)),
        (&["gzip, deflate"], ALL, Some(Gzip)),
        (&["gzip;q=1.0,deflate;q=0.6,identity;q=0.3"], ALL, Some(Gzip)),
        (&["gzip;q=1.0,deflate;q=0.6,identity;q=0.3"], &[Brotli, Identity], Some(Identity)),
        (&["identity;q=1, *;q=0"], ALL, Some(Identity)),
        (&["compress;q=0.5, gzip;q=1.0"], ALL, Some(Gzip)),
        (&["gzip;q=1.0, identity; q=0.5, *;q=0"], &[Brotli, Identity], Some(Identity)),
    ];

    #[test]
    fn codings_are_chosen_by_weight_and_by_our_order() {
        for &(values, available, expected) in CASES {
            let chosen = ContentCoding::choose(values.iter().map(|value| value.as_bytes()), available);
            assert_eq!(chosen, expected, "{values:?} of {available:?}");
        }
        assert!(CASES.len() >= 90, "{}", CASES.len());
    }

    /// The order of what is available only matters between equal weights.
    #[test]
    fn what_is_refused_is_not_chosen_in_any_order() {
        for &(values, available, expected) in CASES {
            let reversed: Vec<ContentCoding> = available.iter().rev().copied().collect();
            let chosen = ContentCoding::choose(values.iter().map(|value| value.as_bytes()), &reversed);
            assert_eq!(chosen.is_some(), expected.is_some(), "{values:?} of {reversed:?}");
        }
    }

    #[test]
    fn each_coding_is_in_its_row() {
        for (at, &(coding, name, extension)) in CODINGS.iter().enumerate() {
            assert_eq!((coding as usize, coding.name(), coding.extension()), (at, name, extension));
            assert_eq!(ContentCoding::of_name(name.as_bytes()), Some(coding));
        }
    }

    #[test]
    fn precompressed_files_are_recognized_by_their_names() {
        for (path, expected) in [
            ("app.js.br", Some(("app.js", Brotli))),
            ("a/b.c/app.gz", Some(("a/b.c/app", Gzip))),
            ("data.tar.gz", Some(("data.tar", Gzip))),
            ("a.zst", Some(("a", Zstd))),
            ("a.GZ", None),
            ("a.js", None),
            ("a.", None),
            ("gz", None),
            (".gz", None),
            ("a/.gz", None),
            ("", None),
        ] {
            assert_eq!(ContentCoding::of_path(path), expected, "{path}");
        }
    }
}

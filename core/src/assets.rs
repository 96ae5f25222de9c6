//! Content that is part of the program, such as the pages and scripts of an application, sent by the rules of files.
//! Where the bytes come from is left to the embedder: a build script, `include_bytes!`, or a macro of another crate.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::coding::ContentCoding;
use crate::conditional::Validators;
use crate::connection::Reply;
use crate::fields::Misuse;
use crate::media_type::{is_text, media_type};
use crate::media_types::{InvalidMediaType, checked};
use crate::path::translate;
use crate::request::{Request, split_path};
use crate::response_head::ResponseHead;
use crate::status::StatusCode;
use crate::text::encode_uri;
use crate::time::Wall;

/// What a directory is represented by.
const INDEX: &[u8] = b"index.html";

/// Fields of an asset that are derived from it.
const DERIVED: [&str; 6] =
    ["Accept-Ranges", "Content-Encoding", "Content-Range", "Content-Type", "ETag", "Last-Modified"];

/// One embedded file: a path and bytes. The rest has defaults: the media type is that of the extension (with
/// `charset=utf-8` on text), the entity tag is a hash of the bytes, and there is no date.
///
/// See [`Assets`].
///
/// ```
/// use sanserve_core::Asset;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let script = Asset::new("app.3f2a91.js", b"alert('Hello')").with_field("Cache-Control", "max-age=31536000, immutable")?;
/// let feed = Asset::new("feed", b"<feed/>").with_media_type("application/atom+xml")?;
/// assert_eq!((script.path(), feed.path()), ("app.3f2a91.js", "feed"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Asset {
    path: Cow<'static, str>,
    content: Cow<'static, [u8]>,
    media_type: Option<String>,
    coding: Option<ContentCoding>,
    digest: Option<[u8; 12]>,
    modified: Option<Wall>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Asset {
    /// Creates an asset for a path such as `css/main.css`; a leading slash is ignored.
    ///
    /// A name that ends with `.br`, `.gz` or `.zst` is that of a precompressed variant if the asset with the rest of the
    /// name exists, too: `app.js.gz` is sent for `app.js` to a client that accepts `gzip`.
    #[must_use]
    pub fn new(path: impl Into<Cow<'static, str>>, content: impl Into<Cow<'static, [u8]>>) -> Asset {
        let path = match path.into() {
            Cow::Borrowed(path) => Cow::Borrowed(path.trim_start_matches('/')),
            Cow::Owned(path) => Cow::Owned(path.trim_start_matches('/').to_owned()),
        };
        let content = content.into();
        Asset { path, content, media_type: None, coding: None, digest: None, modified: None, fields: Vec::new() }
    }

    /// Sets the media type, with its parameters.
    ///
    /// # Errors
    /// If it is not a valid media type.
    pub fn with_media_type(self, media_type: &str) -> Result<Asset, InvalidMediaType> {
        Ok(Asset { media_type: Some(checked(media_type)?), ..self })
    }

    /// Says that the bytes are compressed, whatever the path: the asset is a variant of others with the same path, or the
    /// only one, for clients that accept the coding.
    #[must_use]
    pub fn with_coding(self, coding: ContentCoding) -> Asset {
        Asset { coding: Some(coding), ..self }
    }

    /// Sets 96 bits of a hash of the content, from which the entity tag is made. It must be another one for other bytes.
    /// Without it, the bytes are hashed when [`Assets`] are made.
    #[must_use]
    pub fn with_digest(self, digest: [u8; 12]) -> Asset {
        Asset { digest: Some(digest), ..self }
    }

    /// Sets the time of the last change, in seconds since 1970.
    #[must_use]
    pub fn with_modified(self, modified: Wall) -> Asset {
        Asset { modified: Some(modified), ..self }
    }

    /// Adds a field to each response with this asset, or a precompressed variant of it, such as `Cache-Control`.
    ///
    /// # Errors
    /// [`Misuse::Field`] if the name or the value is invalid, [`Misuse::ReservedHeader`] for a field that only the
    /// server may write, or that is derived from the asset: `Content-Type`, `Content-Encoding`, `Content-Range`, `ETag`,
    /// `Last-Modified`, `Accept-Ranges`.
    pub fn with_field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Asset, Misuse> {
        if DERIVED.iter().any(|derived| derived.eq_ignore_ascii_case(name)) {
            return Err(Misuse::ReservedHeader);
        }
        let value = value.as_ref();
        let _checked = ResponseHead::new(StatusCode::OK).field(name, value)?;
        self.fields.push((name.to_owned(), value.to_vec()));
        Ok(self)
    }

    /// The path, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the plain asset and the coding, if the name is that of a precompressed file.
    fn names_variant(&self) -> Option<(&str, ContentCoding)> {
        if self.coding.is_some() { None } else { ContentCoding::of_path(&self.path) }
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({:?}, {} bytes)", self.path, self.content.len())
    }
}

/// A table of embedded files, which [`Reply::send_asset`], and on std and smol `Exchange::send_asset`, sends by the rules
/// of files: conditions (304, 412), ranges (206, 416), HEAD, and precompressed variants by `Accept-Encoding`. It is cheap
/// to clone.
///
/// ```
/// use sanserve_core::{Asset, Assets, HandlerError, Reply, StatusCode};
///
/// let assets = Assets::new([
///     Asset::new("index.html", b"<script src=app.js></script>"), // usually `include_bytes!("..")`
///     Asset::new("app.js", b"alert('Hello')"),
///     Asset::new("app.js.br", b"(the same, compressed)"),
/// ]);
/// let answer = move |reply: &mut Reply<'_>| -> Result<(), HandlerError> {
///     if reply.send_asset(&assets)? { Ok(()) } else { Err(StatusCode::NOT_FOUND.into()) }
/// };
/// # let _: &dyn Fn(&mut Reply<'_>) -> Result<(), HandlerError> = &answer;
/// ```
///
/// A response holds a copy of the bytes that it sends until they are sent, within the memory of the server
/// ([`Memory`](crate::Memory)).
#[derive(Clone)]
pub struct Assets(Arc<BTreeMap<Vec<u8>, Resource>>);

/// What a path stands for.
struct Resource {
    /// In the order of `representations`.
    codings: Vec<ContentCoding>,
    /// The shortest first.
    representations: Vec<Representation>,
}

struct Representation {
    head: ResponseHead,
    validators: Validators,
    content: Arc<Cow<'static, [u8]>>,
}

/// An asset in the table, and the asset whose media type and fields it has.
struct Entry {
    coding: ContentCoding,
    own: usize,
    of: usize,
}

impl Assets {
    /// Makes the table. Of several assets with the same path and coding, the last one counts.
    ///
    /// The bytes of each asset without a [digest](Asset::with_digest) are hashed.
    pub fn new(assets: impl IntoIterator<Item = Asset>) -> Assets {
        let assets: Vec<Asset> = assets.into_iter().collect();
        // Whatever has a name of its own can be requested by it, a precompressed file too.
        let mut entries = BTreeMap::<&str, Vec<Entry>>::new();
        for (at, asset) in assets.iter().enumerate() {
            let coding = asset.coding.unwrap_or(ContentCoding::Identity);
            insert(entries.entry(&asset.path).or_default(), Entry { coding, own: at, of: at });
        }
        for (at, asset) in assets.iter().enumerate() {
            let Some((plain, coding)) = asset.names_variant() else { continue };
            let Some(others) = entries.get_mut(plain) else { continue };
            let of = others.iter().map(|entry| entry.of).next_back().expect("a path has an asset");
            insert(others, Entry { coding, own: at, of });
        }
        let contents: Vec<_> = assets.iter().map(|asset| Arc::new(asset.content.clone())).collect();
        let resources = entries.into_iter().map(|(path, entries)| {
            let resource = Resource::new(&entries, &assets, &contents);
            (path.as_bytes().to_vec(), resource)
        });
        Assets(Arc::new(resources.collect()))
    }

    /// Whether there is an asset with this path, without a leading slash.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path.as_bytes())
    }

    /// What a request is for.
    fn find(&self, request: &Request<'_>) -> Found<'_> {
        let mut path = Vec::new();
        if translate(request.path(), &mut path).is_err() {
            return Found::Nothing;
        }
        let is_directory = request.path().ends_with(b"/");
        if !is_directory {
            if let Some(resource) = self.0.get(&path) {
                return Found::Resource(resource);
            }
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(INDEX);
        match self.0.get(&path) {
            Some(resource) if is_directory => Found::Resource(resource),
            Some(_) => Found::Directory,
            None => Found::Nothing,
        }
    }
}

impl<A: Into<Asset>> FromIterator<A> for Assets {
    fn from_iter<I: IntoIterator<Item = A>>(assets: I) -> Assets {
        Assets::new(assets.into_iter().map(Into::into))
    }
}

impl<P: Into<Cow<'static, str>>, C: Into<Cow<'static, [u8]>>> From<(P, C)> for Asset {
    fn from((path, content): (P, C)) -> Asset {
        Asset::new(path, content)
    }
}

impl fmt::Debug for Assets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys().map(|path| String::from_utf8_lossy(path))).finish()
    }
}

enum Found<'a> {
    Resource(&'a Resource),
    /// A directory without its slash.
    Directory,
    Nothing,
}

fn insert(entries: &mut Vec<Entry>, entry: Entry) {
    entries.retain(|other| other.coding != entry.coding);
    entries.push(entry);
}

impl Resource {
    fn new(entries: &[Entry], assets: &[Asset], contents: &[Arc<Cow<'static, [u8]>>]) -> Resource {
        // If there is only the plain content, it is sent to everyone.
        let is_negotiated = entries.iter().any(|entry| entry.coding != ContentCoding::Identity);
        let mut entries: Vec<&Entry> = entries.iter().collect();
        entries.sort_by_key(|entry| (assets[entry.own].content.len(), entry.coding));
        let representation = |entry: &&Entry| {
            let (own, of) = (&assets[entry.own], &assets[entry.of]);
            let digest = own.digest.unwrap_or_else(|| hash(entry.coding, &own.content));
            let validators = Validators::digest(digest);
            let validators = match of.modified {
                Some(modified) => validators.with_modified(modified),
                None => validators,
            };
            let head = of.head(entry.coding, is_negotiated);
            Representation { head, validators, content: Arc::clone(&contents[entry.own]) }
        };
        let representations = entries.iter().map(representation).collect();
        Resource { codings: entries.iter().map(|entry| entry.coding).collect(), representations }
    }

    /// The representation for a client with these `Accept-Encoding` fields; `None` if it accepts none.
    fn choose(&self, request: &Request<'_>) -> Option<&Representation> {
        if let [ContentCoding::Identity] = *self.codings {
            return self.representations.first();
        }
        let fields = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"Accept-Encoding"));
        let coding = ContentCoding::choose(fields.map(|(_, value)| value), &self.codings)?;
        let at = self.codings.iter().position(|other| *other == coding)?;
        self.representations.get(at)
    }
}

impl Asset {
    /// The head of a response with this asset, or a variant of it.
    fn head(&self, coding: ContentCoding, is_negotiated: bool) -> ResponseHead {
        let media_type = self.media_type.clone().unwrap_or_else(|| {
            let guessed = media_type(self.path.as_bytes());
            if is_text(guessed) { format!("{guessed}; charset=utf-8") } else { guessed.to_owned() }
        });
        let derived = [
            Some(("Content-Type", media_type.as_bytes())),
            (coding != ContentCoding::Identity).then_some(("Content-Encoding", coding.name().as_bytes())),
            is_negotiated.then_some(("Vary", b"Accept-Encoding")),
        ];
        let own = self.fields.iter().map(|(name, value)| (&**name, &**value));
        derived.into_iter().flatten().chain(own).fold(ResponseHead::new(StatusCode::OK), |head, (name, value)| {
            head.field(name, value).expect("the fields of an asset were checked when they were set")
        })
    }
}

/// 96 bits of FNV-1a (128 bits) of the coding and the content. What is embedded is not chosen by an attacker, so the hash
/// need not be cryptographic.
fn hash(coding: ContentCoding, content: &[u8]) -> [u8; 12] {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = coding.name().bytes().chain([0]).chain(content.iter().copied());
    let hash = bytes.fold(START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    let [a, b, c, d, rest @ ..] = hash.to_be_bytes();
    let mut folded = rest;
    for (byte, high) in folded.iter_mut().zip([a, b, c, d]) {
        *byte ^= high;
    }
    folded
}

/// Embedded files.
impl Reply<'_> {
    /// Sends the asset that the path of the request names, by the rules of files: conditions, ranges, HEAD, and
    /// precompressed variants. Returns `false`, and sends nothing, if there is no such asset: then send an error, or
    /// [`decline`](Self::decline).
    ///
    /// - A path with a slash at its end stands for the `index.html` below it; without the slash, the response is a
    ///   redirect (301), as for directories.
    /// - Of the variants, the one that `Accept-Encoding` prefers is sent, and among equals the shortest. The response has
    ///   `Vary: Accept-Encoding`, and each variant its own strong entity tag. If the client accepts none, the response is
    ///   406.
    /// - The response to a method other than GET and HEAD is 405.
    ///
    /// # Errors
    /// [`Misuse::HeadOrder`] if the response has begun, [`Misuse::OutOfMemory`] if the server has no memory for a copy of
    /// the content.
    pub fn send_asset(&mut self, assets: &Assets) -> Result<bool, Misuse> {
        let request = self.request();
        match assets.find(&request) {
            Found::Nothing => Ok(false),
            Found::Resource(resource) => self.send_resource(resource).map(|()| true),
            Found::Directory => {
                let mut location = Vec::new();
                let (path, rest) = split_path(request.path_and_query());
                encode_uri(path, &mut location);
                location.push(b'/');
                encode_uri(rest, &mut location);
                self.respond(StatusCode::MOVED_PERMANENTLY)?.field("Location", location)?.body("")?;
                Ok(true)
            }
        }
    }

    /// Sends the asset with this path, whatever the path of the request: for an application whose pages are all the same
    /// `index.html`. Otherwise like [`send_asset`](Self::send_asset).
    ///
    /// # Errors
    /// As for [`send_asset`](Self::send_asset).
    pub fn send_asset_at(&mut self, assets: &Assets, path: &str) -> Result<bool, Misuse> {
        match assets.0.get(path.trim_start_matches('/').as_bytes()) {
            Some(resource) => self.send_resource(resource).map(|()| true),
            None => Ok(false),
        }
    }

    fn send_resource(&mut self, resource: &Resource) -> Result<(), Misuse> {
        let request = self.request();
        if !matches!(request.method(), b"GET" | b"HEAD") {
            return self.respond(StatusCode::METHOD_NOT_ALLOWED)?.field("Allow", "GET, HEAD")?.error(None, None);
        }
        match resource.choose(&request) {
            Some(Representation { head, validators, content }) => self.send_entity(head, validators, &**content),
            None => self.respond(StatusCode::NOT_ACCEPTABLE)?.field("Vary", "Accept-Encoding")?.error(None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_representation_has_its_own_tag() {
        let tags: Vec<[u8; 12]> = [
            hash(ContentCoding::Identity, b""),
            hash(ContentCoding::Identity, b"a"),
            hash(ContentCoding::Gzip, b"a"),
            hash(ContentCoding::Brotli, b"a"),
            hash(ContentCoding::Identity, b"a\0"),
        ]
        .into();
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(tag), "{at}");
        }
        // A tag lasts longer than a build.
        assert_eq!(hash(ContentCoding::Identity, b"a"), hash(ContentCoding::Identity, b"a"));
    }

    #[test]
    fn variants_belong_to_the_asset_with_the_rest_of_the_name() {
        let assets = Assets::new([
            Asset::new("/a.js", b"0123456789").with_field("Cache-Control", "no-cache").unwrap(),
            Asset::new("a.js.gz", b"01234567"),
            Asset::new("a.js.br", b"0123456"),
            Asset::new("data.tar.gz", b"0"),
            Asset::new("only.css", b"0").with_coding(ContentCoding::Brotli),
        ]);
        use ContentCoding::*;
        let codings = |path: &str| &*assets.0[path.as_bytes()].codings;
        assert_eq!(codings("a.js"), [Brotli, Gzip, Identity]);
        assert_eq!([codings("a.js.gz"), codings("data.tar.gz")], [[Identity]; 2]);
        assert_eq!(codings("only.css"), [Brotli]);
        assert!(assets.contains("a.js") && !assets.contains("/a.js") && !assets.contains("data.tar"));
        let head = |path: &str, at: usize| format!("{:?}", assets.0[path.as_bytes()].representations[at].head);
        assert_eq!(
            head("a.js", 0),
            r"ResponseHead(200 Content-Type: text/javascript; charset=utf-8\r\nContent-Encoding: br\r\nVary: Accept-Encoding\r\nCache-Control: no-cache\r\n)"
        );
        assert_eq!(head("data.tar.gz", 0), r"ResponseHead(200 Content-Type: application/gzip\r\n)");
        assert_eq!(format!("{:?}", Asset::new("/x", b"abc")), "Asset(\"x\", 3 bytes)");
    }

    #[test]
    fn the_last_asset_with_a_path_counts() {
        let assets: Assets =
            [("a", &b"first"[..]), ("a", b"second"), ("a.gz", b"1"), ("a.gz", b"22")].into_iter().collect();
        let representations = &assets.0[&b"a"[..]].representations;
        let contents: Vec<&[u8]> =
            representations.iter().map(|representation| &**representation.content.as_ref()).collect();
        assert_eq!(contents, [&b"22"[..], b"second"]);
        assert_eq!(assets.0.len(), 2);
    }

    #[test]
    fn invalid_values_are_refused_when_they_are_set() {
        let asset = || Asset::new("a", b"");
        assert!(asset().with_media_type("text").is_err() && asset().with_media_type("text/plain\r\n").is_err());
        for name in DERIVED.into_iter().chain(["content-type", "Content-Length", "Connection"]) {
            assert_eq!(asset().with_field(name, "x").err(), Some(Misuse::ReservedHeader), "{name}");
        }
        assert_eq!(asset().with_field("X", "a\r\nb").err(), Some(Misuse::Field));
        assert!(asset().with_field("X", "a").and_then(|asset| asset.with_field("x", "b")).is_ok());
    }
}

//! A request as a handler has it: on its own, since the connection goes on meanwhile.

use std::fmt;
use std::ops::Range;

use sanserve_core::Peer;

/// A request whose head has been read: what [`sanserve_core::Request`] tells, by the same names.
#[derive(Clone)]
pub struct Request {
    peer: Peer,
    /// All of the texts, one behind the other.
    text: Vec<u8>,
    line: Part,
    method: Part,
    target: Part,
    path: Part,
    query: Option<Part>,
    version: Part,
    host: Option<Part>,
    fields: Vec<(Part, Part)>,
    content_length: Option<u64>,
}

type Part = Range<u32>;

impl Request {
    pub(crate) fn of(request: &sanserve_core::Request<'_>) -> Request {
        let mut text = Vec::with_capacity(1024);
        let mut part = |bytes: &[u8]| {
            let start = text.len() as u32;
            text.extend_from_slice(bytes);
            start..text.len() as u32
        };
        Request {
            peer: request.peer(),
            line: part(request.line()),
            method: part(request.method()),
            target: part(request.target()),
            path: part(request.path()),
            query: request.query().map(&mut part),
            version: part(request.version()),
            host: request.host().map(&mut part),
            fields: request.fields().map(|(name, value)| (part(name), part(value))).collect(),
            content_length: request.content_length(),
            text,
        }
    }

    fn part(&self, part: &Part) -> &[u8] {
        &self.text[part.start as usize..part.end as usize]
    }

    /// The other end (Python's `client_address`).
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The request line without its line end (Python's `requestline`).
    #[must_use]
    pub fn line(&self) -> &[u8] {
        self.part(&self.line)
    }

    /// The method, case-sensitive (Python's `command`).
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.part(&self.method)
    }

    /// The target as it came, but with several leading slashes collapsed to one (Python's `path`).
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.part(&self.target)
    }

    /// The path of the target, without query, not decoded; `*` for the asterisk form.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.part(&self.path)
    }

    /// The query of the target without the `?`, not decoded; `None` if there is none.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.as_ref().map(|query| self.part(query))
    }

    /// The pairs of the query, decoded as a form is (`application/x-www-form-urlencoded`): `+` is a
    /// space, and what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query().unwrap_or_default())
    }

    /// The version as it came (Python's `request_version`).
    #[must_use]
    pub fn version(&self) -> &[u8] {
        self.part(&self.version)
    }

    /// The host that is asked: the authority of an absolute target, else the Host field.
    #[must_use]
    pub fn host(&self) -> Option<&[u8]> {
        self.host.as_ref().map(|host| self.part(host))
    }

    /// The fields in the order in which they came, names as they came (Python's `headers`).
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (self.part(name), self.part(value)))
    }

    /// The same as [`fields`](Self::fields), by the name that many look for.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields()
    }

    /// The value of the first field with that name, whatever its case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The length of the body that `Content-Length` announces; `None` if it has none, or is chunked.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.line().escape_ascii())
    }
}

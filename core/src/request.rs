//! A request: [`Request`] borrows its head from the input window until the exchange is finished, [`RequestBuf`] owns a
//! copy. The body of a request is not part of either.

use std::sync::Arc;

use crate::grammar::digits;
use crate::peer::Peer;
use crate::secured::Secured;
use crate::wire::{Head, Target, framing_host};

/// The capacity that a reused copy keeps. Few heads are longer.
const USUAL_HEAD: usize = 4 * 1024;

/// A request whose head has been read.
///
/// ```
/// use sanserve_core::{HandlerError, Reply, StatusCode};
///
/// /// `GET /greet?name=Ada`
/// fn greet(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
///     let request = reply.request();
///     if (request.method(), request.path()) != (b"GET", b"/greet") {
///         return Err(StatusCode::NOT_FOUND.into());
///     }
///     // Names of fields ignore case.
///     let is_html = request.field("accept").is_some_and(|accept| accept.starts_with(b"text/html"));
///     let mut pairs = request.query_pairs();
///     let (_, name) = pairs.find(|(key, _)| key == "name").ok_or(StatusCode::BAD_REQUEST)?;
///     let text = if is_html { format!("<p>Hello, {}", name.replace(['<', '&'], "")) } else { format!("Hello, {name}\n") };
///     let media_type = if is_html { "text/html" } else { "text/plain" };
///     Ok(reply.answer(StatusCode::OK, media_type, text)?)
/// }
/// # let _: fn(&mut Reply<'_>) -> Result<(), HandlerError> = greet;
/// ```
#[derive(Clone, Copy)]
pub struct Request<'b> {
    pub(crate) head: &'b Head,
    pub(crate) bytes: &'b [u8],
    pub(crate) peer: Peer,
    pub(crate) secured: Option<&'b Arc<Secured>>,
}

/// An owned copy of the head of a request, for use after the connection has dropped the head, or while the connection
/// continues. [`as_request`](Self::as_request) provides the same methods as [`Request`].
///
/// ```
/// use sanserve_core::{Reply, RequestBuf};
///
/// /// Hands the request to another thread.
/// fn pass_on(reply: &Reply<'_>, jobs: &std::sync::mpsc::Sender<RequestBuf>) {
///     let _ = jobs.send(reply.request().to_buf());
/// }
/// ```
#[derive(Clone)]
pub struct RequestBuf {
    head: Head,
    /// The head as received, including its empty line.
    bytes: Vec<u8>,
    peer: Peer,
    secured: Option<Arc<Secured>>,
}

impl RequestBuf {
    /// Borrows the copy as a request.
    #[must_use]
    pub fn as_request(&self) -> Request<'_> {
        Request { head: &self.head, bytes: &self.bytes, peer: self.peer, secured: self.secured.as_ref() }
    }
}

impl From<Request<'_>> for RequestBuf {
    fn from(request: Request<'_>) -> RequestBuf {
        request.to_buf()
    }
}

impl std::fmt::Debug for RequestBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_request().fmt(f)
    }
}

impl<'b> Request<'b> {
    /// Returns an owned copy. It takes two allocations: one for the bytes of the head, one for the list of fields.
    #[must_use]
    pub fn to_buf(&self) -> RequestBuf {
        RequestBuf {
            head: self.head.clone(),
            bytes: self.bytes.to_vec(),
            peer: self.peer,
            secured: self.secured.cloned(),
        }
    }

    /// Copies this request into `buf`, reusing its memory. If a head of more than 4 KiB made `buf` grow, the excess is
    /// freed.
    pub fn copy_into(&self, buf: &mut RequestBuf) {
        buf.head.clone_from(self.head);
        buf.head.shrink();
        buf.bytes.clear();
        buf.bytes.shrink_to(USUAL_HEAD.max(self.bytes.len()));
        buf.bytes.extend_from_slice(self.bytes);
        buf.peer = self.peer;
        buf.secured = self.secured.cloned();
    }

    /// The address of the client (Python's `client_address`).
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What TLS has agreed on for the connection: the version, the name that the client has asked for (SNI), and its
    /// certificates. `None`: the connection is not secured.
    #[must_use]
    pub fn secured(&self) -> Option<&'b Secured> {
        self.secured.map(|secured| &**secured)
    }

    /// `https` if the connection is secured by TLS, otherwise `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// The request line without its line end (Python's `requestline`).
    #[must_use]
    pub fn line(&self) -> &'b [u8] {
        self.head.line.of_bytes(self.bytes)
    }

    /// The method, case-sensitive (Python's `command`).
    #[must_use]
    pub fn method(&self) -> &'b [u8] {
        self.head.method_name.of_bytes(self.bytes)
    }

    /// The target as received, except that several leading slashes are collapsed into one, as in Python's `path`
    /// (gh-87389).
    #[must_use]
    pub fn target(&self) -> &'b [u8] {
        let text = self.head.target_text.of_bytes(self.bytes);
        if self.head.target == Target::Origin { collapse(text) } else { text }
    }

    /// The path of the target, without the query and not decoded; `*` for the asterisk form.
    #[must_use]
    pub fn path(&self) -> &'b [u8] {
        let text = &self.head.target_text.of_bytes(self.bytes)[..self.head.path_end as usize];
        let path = match self.head.target {
            Target::Origin => collapse(text),
            Target::Absolute { path, .. } => collapse(&text[path as usize..]),
            Target::Asterisk | Target::Authority => text,
        };
        match path {
            // RFC 9112 section 3.2.2: an absolute target with an empty path refers to `/`.
            [] => b"/",
            path => path,
        }
    }

    /// The query of the target without the `?`, not decoded; `None` if there is none.
    #[must_use]
    pub fn query(&self) -> Option<&'b [u8]> {
        let rest = split_path(self.path_and_query()).1.strip_prefix(b"?")?;
        Some(rest.split(|&byte| byte == b'#').next().unwrap_or_default())
    }

    /// The version as received (Python's `request_version`).
    #[must_use]
    pub fn version(&self) -> &'b [u8] {
        self.head.version.of_bytes(self.bytes)
    }

    /// The requested host: the authority of an absolute target, or else the Host field.
    #[must_use]
    pub fn host(&self) -> Option<&'b [u8]> {
        framing_host(self.head, self.bytes)
    }

    /// The fields in the order of the request, with names as received (Python's `headers`).
    pub fn fields(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.head.fields.iter().map(move |field| (field.name.of_bytes(bytes), field.value.of_bytes(bytes)))
    }

    /// Like [`fields`](Self::fields), under the name that is common in other libraries.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        self.fields()
    }

    /// The length of the body according to `Content-Length`; `None` if there is none, or if the body is chunked.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        // If the field is repeated, the values are equal: other requests are refused.
        self.field("Content-Length").and_then(digits)
    }

    /// The pairs of the query, decoded as `application/x-www-form-urlencoded`: `+` is a space, and invalid UTF-8
    /// becomes U+FFFD.
    #[must_use]
    pub fn query_pairs(&self) -> form_urlencoded::Parse<'b> {
        form_urlencoded::parse(self.query().unwrap_or_default())
    }

    /// The value of the first field with this name, ignoring case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The user and the password of `Authorization: Basic` (RFC 7617 section 2). **They have not been verified.**
    /// `None` if there are none, if they are malformed, or if the field is repeated, since other software may read
    /// another one of them.
    #[must_use]
    pub fn basic_credentials(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut words = self.sole_field("Authorization")?.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(scheme), Some(text), None) = (words.next(), words.next(), words.next()) else { return None };
        let mut user = decode_base64(text).filter(|_| scheme.eq_ignore_ascii_case(b"Basic"))?;
        let colon = memchr::memchr(b':', &user)?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        // RFC 7617 section 2: "The user-id and password MUST NOT contain any control characters".
        let is_plain = !user.iter().chain(&password).any(u8::is_ascii_control);
        is_plain.then_some((user, password))
    }

    /// The value of a field that must not be repeated; `None` if it is.
    pub(crate) fn sole_field(&self, name: &str) -> Option<&'b [u8]> {
        let mut values = self.fields().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value)
    }

    /// The path and query of an origin or absolute target.
    pub(crate) fn path_and_query(&self) -> &'b [u8] {
        let text = self.head.target_text.of_bytes(self.bytes);
        match self.head.target {
            Target::Origin => collapse(text),
            Target::Absolute { path, .. } => match &text[path as usize..] {
                rest @ [b'/', ..] => collapse(rest),
                rest => rest,
            },
            Target::Asterisk | Target::Authority => text,
        }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({})", self.line().escape_ascii())
    }
}

/// Collapses leading slashes, so that a path cannot be read as `//host` (gh-87389).
fn collapse(path: &[u8]) -> &[u8] {
    if !path.starts_with(b"//") {
        return path;
    }
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    &path[slashes.saturating_sub(1)..]
}

/// Splits a target into its path and the rest, which begins with `?` or `#` or is empty.
pub(crate) fn split_path(target: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    target.split_at(end)
}

/// Decodes RFC 4648 section 4. Padding may be missing.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let mut out = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for &byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn with<R>(target: &str, check: impl FnOnce(Request<'_>) -> R) -> R {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 1)));
        check(Request { head: &head, bytes: &bytes, peer, secured: None })
    }

    #[test]
    fn a_target_is_split_into_its_parts() {
        for (text, target, path, query, host) in [
            ("/a?b#c", "/a?b#c", "/a", Some("b"), "a"),
            ("///a//b", "/a//b", "/a//b", None, "a"),
            ("/a#b?c", "/a#b?c", "/a", None, "a"),
            ("http://h:1/a?", "http://h:1/a?", "/a", Some(""), "h:1"),
            ("http://h//a", "http://h//a", "/a", None, "h"),
            ("http://h", "http://h", "/", None, "h"),
            ("http://h?q", "http://h?q", "/", Some("q"), "h"),
        ] {
            with(text, |request| {
                assert_eq!(request.target(), target.as_bytes(), "{text}");
                assert_eq!(request.path(), path.as_bytes(), "{text}");
                assert_eq!(request.query(), query.map(str::as_bytes), "{text}");
                assert_eq!(request.host(), Some(host.as_bytes()), "{text}");
            });
        }
    }

    #[test]
    fn a_copy_equals_the_original() {
        let long = "y".repeat(40_000);
        let texts = [
            format!(
                "POST http://h:1//a/b?c=%20#d HTTP/1.1\r\nHost: a\r\nA:\u{e9}\r\na: \t \r\nX:  {long}\t\r\nContent-Length: 3\r\n\r\n"
            ),
            "OPTIONS * HTTP/1.0\r\n\r\n".to_owned(),
            "GET //a%20b? HTTP/1.1\r\nHost: b\r\nAuthorization: Basic YTpi\r\n\r\n".to_owned(),
        ];
        let facts = |request: Request<'_>| {
            let texts = [request.line(), request.method(), request.target(), request.path(), request.version()];
            let fields: Vec<_> = request.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let options = [request.query(), request.host()].map(|text| text.map(<[u8]>::to_vec));
            let rest = (request.content_length(), request.peer(), request.basic_credentials(), format!("{request:?}"));
            (texts.map(<[u8]>::to_vec), fields, options, rest)
        };
        let mut reused: Option<RequestBuf> = None;
        for (n, text) in texts.iter().enumerate() {
            let mut head = Head::default();
            head.parse(text.as_bytes()).unwrap();
            let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 1 + n as u16)));
            let original = Request { head: &head, bytes: text.as_bytes(), peer, secured: None };
            let (said, copy) = (facts(original), original.to_buf());
            assert_eq!(said.1.len(), [5, 0, 2][n]);
            match &mut reused {
                Some(buf) => original.copy_into(buf),
                none => *none = Some(RequestBuf::from(original)),
            }
            drop(head);
            assert_eq!(facts(copy.as_request()), said);
            assert_eq!(facts(copy.clone().as_request()), said);
            let reused = reused.as_ref().unwrap();
            assert_eq!(facts(reused.as_request()), said);
            assert!(reused.bytes.capacity() <= USUAL_HEAD.max(text.len()), "{}", reused.bytes.capacity());
        }
    }

    #[test]
    fn fields_are_found_ignoring_case() {
        with("/", |request| {
            assert_eq!(request.field("x-A"), Some(&b"1"[..]));
            assert_eq!(request.fields().count(), 3);
            assert_eq!(request.field("none"), None);
            assert_eq!(request.content_length(), None);
        });
    }

    #[test]
    fn malformed_basic_credentials_are_ignored() {
        for (fields, expected) in [
            ("Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("authorization: bASIC  QWxhZGRpbjpvcGVuIHNlc2FtZQ", Some(("Aladdin", "open sesame"))),
            ("Authorization: Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Authorization: Basic Og==", Some(("", ""))),
            ("Authorization: Basic", None),
            ("Authorization: Basic !", None),
            ("Authorization: Basic YWI=", None),
            ("Authorization: Basic a b", None),
            ("Authorization: Basic CWE6Yg==", None),
            ("Authorization: Basic YToJ", None),
            ("Authorization: Bearer YTpi", None),
            ("Authorization: Basic YTpi\r\nAuthorization: Basic YTpi", None),
            ("Proxy-Authorization: Basic YTpi", None),
            ("X: y", None),
        ] {
            let bytes = format!("GET / HTTP/1.0\r\n{fields}\r\n\r\n").into_bytes();
            let mut head = Head::default();
            head.parse(&bytes).unwrap();
            let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 1)));
            let found = Request { head: &head, bytes: &bytes, peer, secured: None }.basic_credentials();
            let expected = expected.map(|(user, password)| (user.as_bytes().to_vec(), password.as_bytes().to_vec()));
            assert_eq!(found, expected, "{fields}");
        }
    }

    #[test]
    fn a_query_is_decoded_as_a_form() {
        with("/?a=1&b=x+y%26z&c&=d&e=%ff", |request| {
            let pairs: Vec<(String, String)> = request.query_pairs().into_owned().collect();
            let expected = [("a", "1"), ("b", "x y&z"), ("c", ""), ("", "d"), ("e", "\u{fffd}")];
            assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        });
        with("/", |request| assert_eq!(request.query_pairs().count(), 0));
    }
}

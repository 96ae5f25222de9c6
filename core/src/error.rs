//! What a peer can do wrong: the table of protocol errors, each with its status, its message, and whether the
//! connection may continue.

use crate::status::StatusCode;
use crate::text::is_deceptive;

/// Whether the connection continues after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is certain where the next request begins, so the connection continues.
    GoOn,
    /// It is uncertain where the next request begins, or the peer misbehaves: nothing that follows is read as a
    /// request.
    Close,
}

macro_rules! violations {
    ($($(#[doc = $doc:literal])+ $name:ident => $status:ident, $after:ident, $message:expr;)*) => {
        /// A protocol error of the peer. The documentation of each variant is its [`Violation::sentence`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Violation { $($(#[doc = $doc])+ $name,)* }

        impl Violation {
            /// All violations.
            pub const ALL: &'static [Violation] = &[$(Violation::$name,)*];

            /// The status, the message, and whether the connection continues. If the message is `None`, it is the
            /// reason phrase of the status. `{}` in a message is replaced by the offending text, quoted.
            #[must_use]
            pub const fn row(self) -> (StatusCode, After, Option<&'static str>) {
                match self { $(Violation::$name => (StatusCode::$status, After::$after, $message),)* }
            }

            /// A sentence that says what is wrong, with the rule that it violates.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Violation::$name => concat!($($doc),+),)* }.trim_start()
            }
        }
    };
}

violations! {
    /// The request line is not three words separated by single spaces (RFC 9112 section 3), its method is not a token,
    /// or its target contains a control character.
    MalformedLine => BAD_REQUEST, Close, Some("Bad request syntax ({})");
    /// The third word is not `HTTP/` DIGIT `.` DIGIT (RFC 9112 section 2.3).
    MalformedVersion => BAD_REQUEST, Close, Some("Bad request version ({})");
    /// The major version is not 1 (RFC 9110 section 15.6.6).
    UnsupportedVersion => VERSION_NOT_SUPPORTED, Close, Some("Invalid HTTP version ({})");
    /// A line ends with LF alone (RFC 9112 section 2.2).
    BareLf => BAD_REQUEST, Close, Some("Bad request syntax: a line must end with CR LF, not with LF alone (nc has -C for it)");
    /// A CR is not followed by LF (RFC 9112 section 2.2).
    BareCr => BAD_REQUEST, Close, Some("Bad request syntax: CR without LF");
    /// Too many empty lines before the request line (RFC 9112 section 2.2).
    BlankLines => BAD_REQUEST, Close, Some("Bad request syntax: too many empty lines");
    /// The request line is longer than `limits.request_line`.
    LineTooLong => URI_TOO_LONG, Close, None;
    /// A field line is longer than `limits.field_line`.
    FieldLineTooLong => FIELDS_TOO_LARGE, Close, Some("Line too long");
    /// The head has more fields than `limits.fields`.
    TooManyFields => FIELDS_TOO_LARGE, Close, Some("Too many headers");
    /// The head is longer than `limits.head`.
    HeadTooLarge => FIELDS_TOO_LARGE, Close, Some("Headers too large");
    /// A field line begins with white space: obsolete line folding (RFC 9112 section 5.2).
    ObsFold => BAD_REQUEST, Close, Some("Bad header: a line begins with white space");
    /// White space between a field name and the colon (RFC 9112 section 5.1).
    SpaceBeforeColon => BAD_REQUEST, Close, Some("Bad header: white space before the colon");
    /// A field line has no colon, or its name is not a token (RFC 9110 section 5.1).
    MalformedField => BAD_REQUEST, Close, Some("Bad header: no valid field name");
    /// A field value contains a control character (RFC 9110 section 5.5).
    MalformedValue => BAD_REQUEST, Close, Some("Bad header: control character in a value");
    /// An HTTP/1.1 request has no Host field (RFC 9112 section 3.2).
    HostMissing => BAD_REQUEST, Close, Some("Bad request: no Host");
    /// A request has more than one Host field (RFC 9112 section 3.2).
    HostRepeated => BAD_REQUEST, Close, Some("Bad request: more than one Host");
    /// The value of Host is not `uri-host [":" port]` (RFC 9110 section 7.2).
    HostMalformed => BAD_REQUEST, Close, Some("Bad request: malformed Host");
    /// The target has none of the four forms, or one that the method does not permit (RFC 9112 section 3.2).
    MalformedTarget => BAD_REQUEST, Close, Some("Bad request target ({})");
    /// The value of Content-Length is not a decimal number, or is too large (RFC 9112 section 6.3).
    MalformedLength => BAD_REQUEST, Close, Some("Bad Content-Length");
    /// Several values of Content-Length differ (RFC 9112 section 6.3).
    LengthsDiffer => BAD_REQUEST, Close, Some("Bad Content-Length: they differ");
    /// A request has both Content-Length and Transfer-Encoding (RFC 9112 section 6.3).
    LengthWithCoding => BAD_REQUEST, Close, Some("Content-Length with Transfer-Encoding");
    /// Transfer-Encoding in an HTTP/1.0 request (RFC 9112 section 6.1).
    CodingOnOldVersion => BAD_REQUEST, Close, Some("Transfer-Encoding in HTTP/1.0");
    /// `chunked` is repeated, not last or has parameters, or the list of codings is malformed (RFC 9112 section 6.1).
    MalformedCoding => BAD_REQUEST, Close, Some("Bad Transfer-Encoding");
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownCoding => NOT_IMPLEMENTED, Close, Some("Unknown Transfer-Encoding");
    /// A chunk size is not a hexadecimal number, or is too large (RFC 9112 section 7.1).
    MalformedChunkSize => BAD_REQUEST, Close, Some("Bad chunk size");
    /// A chunk extension has no name, or is malformed in another way (RFC 9112 section 7.1.1).
    MalformedChunkExtension => BAD_REQUEST, Close, Some("Bad chunk extension");
    /// A chunk-size line is longer than `limits.chunk_line`.
    ChunkLineTooLong => BAD_REQUEST, Close, Some("Chunk line too long");
    /// The data of a chunk is not followed by CR LF (RFC 9112 section 7.1).
    ChunkEnd => BAD_REQUEST, Close, Some("Bad chunk: no CR LF at its end");
    /// A trailer field is malformed (RFC 9112 section 7.1.2).
    MalformedTrailer => BAD_REQUEST, Close, Some("Bad trailer");
    /// The trailer section is longer than `limits.trailers`.
    TrailersTooLarge => FIELDS_TOO_LARGE, Close, Some("Trailers too large");
    /// The body is longer than `limits.body`.
    BodyTooLarge => CONTENT_TOO_LARGE, Close, None;
    /// The peer half-closed the connection within a head (RFC 9112 section 8).
    IncompleteHead => BAD_REQUEST, Close, Some("Incomplete request head");
    /// The peer half-closed the connection within a body (RFC 9112 section 8).
    IncompleteBody => BAD_REQUEST, Close, Some("Incomplete request body");
    /// The head took longer than `timeouts.head`.
    HeadTimeout => REQUEST_TIMEOUT, Close, None;
    /// The body was slower than `timeouts.body`.
    BodyTimeout => REQUEST_TIMEOUT, Close, None;
    /// There is not enough memory for a head of this length (`Memory`).
    OutOfMemory => SERVICE_UNAVAILABLE, Close, Some("No memory for a head of this size");
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    UnknownExpectation => EXPECTATION_FAILED, GoOn, None;
    /// The method is not supported (RFC 9110 section 9.1).
    UnsupportedMethod => NOT_IMPLEMENTED, GoOn, Some("Unsupported method ({})");
    /// A POST to something that is not a script, on a server that has scripts.
    PostToFile => NOT_IMPLEMENTED, GoOn, Some("Can only POST to CGI scripts");
    /// A chunked body for a script, on a server that does not store such bodies (RFC 9110 section 15.5.12).
    LengthRequired => LENGTH_REQUIRED, Close, None;
    /// The path of the target contains an encoded NUL.
    NulInPath => BAD_REQUEST, GoOn, Some("Bad request path: encoded NUL");
}

/// Appends the message of a violation with `text` in place of `{}`: quoted, except where Python does not quote it.
pub(crate) fn write_message(violation: Violation, text: &[u8], out: &mut Vec<u8>) {
    let (status, _, message) = violation.row();
    let message = message.unwrap_or_else(|| status.phrase());
    fill_with(message, violation != Violation::UnsupportedVersion, text, out);
}

/// Appends a message with `text`, quoted, in place of `{}`.
pub(crate) fn fill(message: &str, text: &[u8], out: &mut Vec<u8>) {
    fill_with(message, true, text, out);
}

fn fill_with(message: &str, is_quoted: bool, text: &[u8], out: &mut Vec<u8>) {
    let Some((before, after)) = message.split_once("{}") else { return out.extend_from_slice(message.as_bytes()) };
    out.extend_from_slice(before.as_bytes());
    if is_quoted {
        quote(out, text);
    } else {
        out.extend_from_slice(text);
    }
    out.extend_from_slice(after.as_bytes());
}

/// The number of bytes that a message repeats of an offending text. A bound, so that a long request does not get a long
/// error page.
const QUOTED: usize = 256;

/// Appends `text` in the form of Python's `%r`, except for control characters outside ASCII.
fn quote(out: &mut Vec<u8>, text: &[u8]) {
    let (text, rest) = text.split_at(text.len().min(QUOTED));
    let mark = if text.contains(&b'\'') && !text.contains(&b'"') { b'"' } else { b'\'' };
    out.push(mark);
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.extend_from_slice(b"\\t"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\0'..='\x1f' | '\x7f' => out.extend_from_slice(format!("\\x{:02x}", c as u8).as_bytes()),
                // Python decodes a request as Latin-1, so none of its strings has a byte that could be mistaken for
                // U+009B.
                _ if c.is_control() || is_deceptive(c) => {
                    out.extend_from_slice(c.escape_unicode().to_string().as_bytes())
                }
                _ => {
                    if c == char::from(mark) {
                        out.push(b'\\');
                    }
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    if !rest.is_empty() {
        out.extend_from_slice(b"...");
    }
    out.push(mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_in_python() {
        for (text, quoted) in [
            (&b"GET /"[..], "'GET /'"),
            (b"it's", "\"it's\""),
            (b"'\"", "'\\'\"'"),
            (b"\t\r\n\\\x1b\xff", "'\\t\\r\\n\\\\\\x1b\\xff'"),
            (b"\x9b\xc2\x9b", "'\\x9b\\u{9b}'"),
        ] {
            let mut out = Vec::new();
            quote(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), quoted);
        }
        let mut out = Vec::new();
        quote(&mut out, &[b'a'; 1000]);
        assert_eq!(out.len(), QUOTED + 5);
    }

    #[test]
    fn every_violation_has_an_error_status() {
        for violation in Violation::ALL {
            assert!((400..600).contains(&violation.row().0.code()), "{violation:?}");
        }
    }
}

//! What a peer can do wrong: one table of violations, each with its status, its message, and
//! whether the connection can go on.

use crate::status::StatusCode;
use crate::text::is_deceptive;

/// Whether the connection survives a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Framing is sound: the next request may follow.
    GoOn,
    /// Framing is in doubt, or the peer is: nothing that follows is taken as a request.
    Close,
}

macro_rules! violations {
    ($($(#[doc = $doc:literal])+ $name:ident => $status:ident, $after:ident, $message:expr;)*) => {
        /// Something that a peer did wrong. Its documentation is what [`Violation::sentence`] says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Violation { $($(#[doc = $doc])+ $name,)* }

        impl Violation {
            /// Every violation there is.
            pub const ALL: &'static [Violation] = &[$(Violation::$name,)*];

            /// The status, the message and the fate of the connection. A message `None` is the
            /// reason phrase; `{}` in it stands for the offending text, quoted.
            #[must_use]
            pub const fn row(self) -> (StatusCode, After, Option<&'static str>) {
                match self { $(Violation::$name => (StatusCode::$status, After::$after, $message),)* }
            }

            /// What is wrong, and by which rule.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Violation::$name => concat!($($doc),+),)* }.trim_start()
            }
        }
    };
}

violations! {
    /// The request line is not three words with one space between them (RFC 9112 section 3), its
    /// method is no token or its target holds a control character.
    MalformedLine => BAD_REQUEST, Close, Some("Bad request syntax ({})");
    /// The third word is no `HTTP/` DIGIT `.` DIGIT (RFC 9112 section 2.3).
    MalformedVersion => BAD_REQUEST, Close, Some("Bad request version ({})");
    /// A major version other than 1 (RFC 9110 section 15.6.6).
    UnsupportedVersion => VERSION_NOT_SUPPORTED, Close, Some("Invalid HTTP version ({})");
    /// A line ends with LF alone (RFC 9112 section 2.2).
    BareLf => BAD_REQUEST, Close, Some("Bad request syntax: a line must end with CR LF, not with LF alone (nc has -C for it)");
    /// A CR without LF after it (RFC 9112 section 2.2).
    BareCr => BAD_REQUEST, Close, Some("Bad request syntax: CR without LF");
    /// Too many empty lines before the request line (RFC 9112 section 2.2).
    BlankLines => BAD_REQUEST, Close, Some("Bad request syntax: too many empty lines");
    /// The request line is longer than `limits.request_line`.
    LineTooLong => URI_TOO_LONG, Close, None;
    /// A field line is longer than `limits.field_line`.
    FieldLineTooLong => FIELDS_TOO_LARGE, Close, Some("Line too long");
    /// More fields than `limits.fields`.
    TooManyFields => FIELDS_TOO_LARGE, Close, Some("Too many headers");
    /// The head is longer than `limits.head`.
    HeadTooLarge => FIELDS_TOO_LARGE, Close, Some("Headers too large");
    /// A field line begins with white space: obsolete line folding (RFC 9112 section 5.2).
    ObsFold => BAD_REQUEST, Close, Some("Bad header: a line begins with white space");
    /// White space between a field name and the colon (RFC 9112 section 5.1).
    SpaceBeforeColon => BAD_REQUEST, Close, Some("Bad header: white space before the colon");
    /// A field line without colon, or a name that is no token (RFC 9110 section 5.1).
    MalformedField => BAD_REQUEST, Close, Some("Bad header: no valid field name");
    /// A control character in a field value (RFC 9110 section 5.5).
    MalformedValue => BAD_REQUEST, Close, Some("Bad header: control character in a value");
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    HostMissing => BAD_REQUEST, Close, Some("Bad request: no Host");
    /// More than one Host (RFC 9112 section 3.2).
    HostRepeated => BAD_REQUEST, Close, Some("Bad request: more than one Host");
    /// A Host that is no `uri-host [":" port]` (RFC 9110 section 7.2).
    HostMalformed => BAD_REQUEST, Close, Some("Bad request: malformed Host");
    /// A target in none of the four forms, or in one that its method cannot have (RFC 9112 section 3.2).
    MalformedTarget => BAD_REQUEST, Close, Some("Bad request target ({})");
    /// A Content-Length that is not digits, or too large to be one (RFC 9112 section 6.3).
    MalformedLength => BAD_REQUEST, Close, Some("Bad Content-Length");
    /// Two Content-Lengths that differ (RFC 9112 section 6.3).
    LengthsDiffer => BAD_REQUEST, Close, Some("Bad Content-Length: they differ");
    /// Content-Length beside Transfer-Encoding (RFC 9112 section 6.3).
    LengthWithCoding => BAD_REQUEST, Close, Some("Content-Length with Transfer-Encoding");
    /// Transfer-Encoding in an HTTP/1.0 request (RFC 9112 section 6.1).
    CodingOnOldVersion => BAD_REQUEST, Close, Some("Transfer-Encoding in HTTP/1.0");
    /// `chunked` twice, not last, with parameters, or a list that is none (RFC 9112 section 6.1).
    MalformedCoding => BAD_REQUEST, Close, Some("Bad Transfer-Encoding");
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownCoding => NOT_IMPLEMENTED, Close, Some("Unknown Transfer-Encoding");
    /// A chunk size that is not hexadecimal digits, or too large (RFC 9112 section 7.1).
    MalformedChunkSize => BAD_REQUEST, Close, Some("Bad chunk size");
    /// A chunk extension without a name, or one that breaks the grammar otherwise (RFC 9112 section 7.1.1).
    MalformedChunkExtension => BAD_REQUEST, Close, Some("Bad chunk extension");
    /// A chunk-size line longer than `limits.chunk_line`.
    ChunkLineTooLong => BAD_REQUEST, Close, Some("Chunk line too long");
    /// No CR LF where a chunk's data ends (RFC 9112 section 7.1).
    ChunkEnd => BAD_REQUEST, Close, Some("Bad chunk: no CR LF at its end");
    /// A trailer field that is none (RFC 9112 section 7.1.2).
    MalformedTrailer => BAD_REQUEST, Close, Some("Bad trailer");
    /// Trailers longer than `limits.trailers`.
    TrailersTooLarge => FIELDS_TOO_LARGE, Close, Some("Trailers too large");
    /// A body longer than `limits.body`.
    BodyTooLarge => CONTENT_TOO_LARGE, Close, None;
    /// The peer half-closed inside a head (RFC 9112 section 8).
    IncompleteHead => BAD_REQUEST, Close, Some("Incomplete request head");
    /// The peer half-closed inside a body (RFC 9112 section 8).
    IncompleteBody => BAD_REQUEST, Close, Some("Incomplete request body");
    /// The head took longer than `timeouts.head`.
    HeadTimeout => REQUEST_TIMEOUT, Close, None;
    /// The body was slower than `timeouts.body`.
    BodyTimeout => REQUEST_TIMEOUT, Close, None;
    /// The head is longer than there is memory for (`Memory`).
    OutOfMemory => SERVICE_UNAVAILABLE, Close, Some("No memory for a head of this size");
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    UnknownExpectation => EXPECTATION_FAILED, GoOn, None;
    /// A method that nothing here answers (RFC 9110 section 9.1).
    UnsupportedMethod => NOT_IMPLEMENTED, GoOn, Some("Unsupported method ({})");
    /// A POST to something that is no script, where there are scripts.
    PostToFile => NOT_IMPLEMENTED, GoOn, Some("Can only POST to CGI scripts");
    /// A chunked body for a script, where such bodies are not kept (RFC 9110 section 15.5.12).
    LengthRequired => LENGTH_REQUIRED, Close, None;
    /// A target whose path holds an encoded NUL.
    NulInPath => BAD_REQUEST, GoOn, Some("Bad request path: encoded NUL");
}

/// Appends a violation's message, `text` quoted in the place of `{}`.
pub(crate) fn write_message(violation: Violation, text: &[u8], out: &mut Vec<u8>) {
    let (status, _, message) = violation.row();
    let message = message.unwrap_or_else(|| status.phrase());
    match message.split_once("{}") {
        Some((before, after)) if violation == Violation::UnsupportedVersion => {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(text);
            out.extend_from_slice(after.as_bytes());
        }
        _ => fill(message, text, out),
    }
}

/// Appends a message, `text` quoted in the place of `{}`.
pub(crate) fn fill(message: &str, text: &[u8], out: &mut Vec<u8>) {
    let (before, after) = match message.split_once("{}") {
        Some((before, after)) => (before, Some(after)),
        None => (message, None),
    };
    out.extend_from_slice(before.as_bytes());
    if let Some(after) = after {
        quote(out, text);
        out.extend_from_slice(after.as_bytes());
    }
}

/// How much of an offending text a message repeats: a page must not grow with the attack.
const QUOTED: usize = 256;

/// Appends `text` as Python's `%r` writes a string, control characters beyond ASCII excepted.
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
                // Python's strings hold no bytes that could be mistaken for U+009B.
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
    fn quotes_as_python_does() {
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
    fn refusals_are_client_or_server_errors() {
        for violation in Violation::ALL {
            assert!((400..600).contains(&violation.row().0.code()), "{violation:?}");
        }
    }
}

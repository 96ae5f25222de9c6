//! Conversions to and from the types of the crate `http` (feature `http`).
//!
//! Framing remains the responsibility of the server: `Content-Length` and `Connection` of a response are interpreted
//! but not copied, and values that contradict the body are refused.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, SERVER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use percent_encoding::percent_encode;

use crate::connection::Reply;
use crate::fields::Misuse;
use crate::grammar::{digits, list_items};
use crate::head_writer::HeadWriter;
use crate::request::Request;
use crate::status::StatusCode;
use crate::text::NOT_IN_URIS;

/// The head of a request; [`Reply::receive`] reads the body. Values are the bytes as received. Characters of the target
/// that are not permitted in a URI are percent-encoded. The [`Peer`](crate::Peer) is one of the extensions.
impl TryFrom<Request<'_>> for http::Request<()> {
    type Error = http::Error;

    fn try_from(request: Request<'_>) -> Result<http::Request<()>, http::Error> {
        let mut out = http::Request::new(());
        *out.method_mut() = Method::from_bytes(request.method())?;
        *out.uri_mut() = uri(request.target())?;
        *out.version_mut() = if request.version() == b"HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
        for (name, value) in request.fields() {
            out.headers_mut().try_append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?)?;
        }
        out.extensions_mut().insert(request.peer());
        Ok(out)
    }
}

fn uri(target: &[u8]) -> Result<Uri, http::Error> {
    Ok(Uri::try_from(percent_encode(target, NOT_IN_URIS).to_string())?)
}

impl Reply<'_> {
    /// Sends a complete [`http::Response`].
    ///
    /// `Content-Length` is replaced by that of the server, which has the same value; `Date` and `Server` are replaced
    /// too. If the request is a HEAD, an empty body may have the `Content-Length` of the response to GET. `Connection:
    /// close` has the effect of [`close`](Self::close).
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`] for a `Content-Length` that is not that of the body, for any `Transfer-Encoding`, and
    /// for a `Connection` other than `close` and `keep-alive`; otherwise as for [`answer`](Self::answer).
    pub fn answer_http(&mut self, response: http::Response<impl AsRef<[u8]>>) -> Result<(), Misuse> {
        let (parts, body) = response.into_parts();
        let body = body.as_ref();
        let is_left_out = body.is_empty() && (self.request().method() == b"HEAD" || status(parts.status).is_bodiless());
        let (actual, announced) = (body.len() as u64, announced(&parts.headers)?);
        if announced.is_some_and(|announced| announced != actual && !is_left_out) {
            return Err(Misuse::ReservedHeader);
        }
        self.respond_http(&parts)?.length(announced.unwrap_or(actual)).body(body)
    }

    /// Begins a response with the head of an [`http::Response`]. Its body is [written](Self::write) piece by piece. A
    /// `Content-Length` is announced ([`HeadWriter::length`]).
    ///
    /// # Errors
    /// As for [`answer_http`](Self::answer_http), and [`Misuse::ReservedHeader`] for a `Content-Length` that is not a
    /// number.
    pub fn respond_http(&mut self, parts: &http::response::Parts) -> Result<HeadWriter<'_>, Misuse> {
        let length = announced(&parts.headers)?;
        let (status, closes) = (status(parts.status), closes(&parts.headers)?);
        // Fails first if no response can be sent, so that the connection is not closed either.
        self.respond(status).map(drop)?;
        if closes {
            self.close();
        }
        let mut head = self.respond(status)?;
        for (name, value) in &parts.headers {
            if ![CONTENT_LENGTH, CONNECTION, DATE, SERVER].contains(name) {
                head = head.field(name.as_str(), value.as_bytes())?;
            }
        }
        Ok(match length {
            Some(length) => head.length(length),
            None => head,
        })
    }
}

fn status(status: http::StatusCode) -> StatusCode {
    StatusCode::new(status.as_u16()).expect("both have three digits")
}

/// The announced length. `Transfer-Encoding` is refused as a reserved field.
fn announced(fields: &HeaderMap) -> Result<Option<u64>, Misuse> {
    if fields.contains_key(TRANSFER_ENCODING) {
        return Err(Misuse::ReservedHeader);
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter().map(|value| digits(value.as_bytes()));
    let Some(first) = lengths.next() else { return Ok(None) };
    let is_one = first.is_some() && lengths.all(|length| length == first);
    if is_one { Ok(first) } else { Err(Misuse::ReservedHeader) }
}

/// Whether the fields ask to close the connection.
fn closes(fields: &HeaderMap) -> Result<bool, Misuse> {
    let mut closes = false;
    for option in fields.get_all(CONNECTION).iter().flat_map(|value| list_items(value.as_bytes())) {
        match option {
            option if option.eq_ignore_ascii_case(b"close") => closes = true,
            option if option.eq_ignore_ascii_case(b"keep-alive") => {}
            _ => return Err(Misuse::ReservedHeader),
        }
    }
    Ok(closes)
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::buffers::Buffers;
    use crate::config::Config;
    use crate::connection::Connection;
    use crate::context::Context;
    use crate::date::Now;
    use crate::input::Input;
    use crate::peer::Peer;
    use crate::policy::DefaultPolicy;
    use crate::step::{Body, Call, Step};
    use crate::time::{Tick, Wall};

    /// Runs an exchange with `handler`, and returns what is sent, without `Server` and `Date`.
    fn exchange(bytes: &[u8], mut handler: impl FnMut(&mut Reply<'_>)) -> String {
        let (config, now) = (Config { handled: true, ..Config::default() }, Now::new(Tick(0), Wall(784_111_777)));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut buf = Buffers::new();
        let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
        let mut connection = Connection::new(peer, &cx);
        assert_eq!(buf.input.fill(bytes), bytes.len());
        let mut out = Vec::new();
        loop {
            match connection.poll(&mut buf, &cx) {
                Step::Call(Call::Request) => handler(&mut connection.reply(&mut buf, &cx)),
                Step::Send(transmit) => {
                    out.extend_from_slice(transmit.head);
                    if let Body::Bytes(bytes) = transmit.body {
                        out.extend_from_slice(bytes);
                    }
                    out.extend_from_slice(transmit.tail);
                    let sent = transmit.len();
                    connection.handle(Input::Sent(sent));
                }
                Step::Probe(_) => connection.handle(Input::Probed),
                Step::Wait(_) | Step::Close(_) | Step::Shut => break,
                _ => {}
            }
        }
        let text = String::from_utf8(out).unwrap();
        let kept = text
            .split_inclusive("\r\n")
            .filter(|line| !["Server: ", "Date: "].iter().any(|of_server| line.starts_with(of_server)));
        kept.collect()
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn converted(bytes: &[u8]) -> http::Request<()> {
        let mut request = None;
        exchange(bytes, |reply| {
            request = Some(http::Request::try_from(reply.request()).unwrap());
            reply.abort();
        });
        request.expect("the handler was called")
    }

    #[test]
    fn a_request_is_converted_completely() {
        let request = converted(
            b"PATCH /a%20b?c=d&e HTTP/1.1\r\nHost: h:1\r\nX-Two: one\r\nx-two: two\r\nLatin: caf\xe9\r\nEmpty:\r\n\r\n",
        );
        assert_eq!(request.method(), "PATCH");
        assert_eq!((request.uri().path(), request.uri().query()), ("/a%20b", Some("c=d&e")));
        assert_eq!(request.version(), Version::HTTP_11);
        let all: Vec<&[u8]> = request.headers().get_all("x-two").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(all, [&b"one"[..], b"two"]);
        assert_eq!(request.headers()["latin"].as_bytes(), b"caf\xe9");
        assert_eq!(request.headers()["empty"].as_bytes(), b"");
        assert_eq!(request.extensions().get::<Peer>().and_then(Peer::port), Some(4000));
    }

    #[test]
    fn all_versions_methods_and_targets_are_converted() {
        let request = converted(b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(request.version(), Version::HTTP_10);
        let request = converted(b"M-SEARCH http://h:81/x?y HTTP/1.1\r\nHost: h:81\r\n\r\n");
        assert_eq!((request.method().as_str(), request.uri().host()), ("M-SEARCH", Some("h")));
        assert_eq!(request.uri(), "http://h:81/x?y");
        let request = converted(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(request.uri(), "*");
        let request = converted(b"GET //a/\xff<\"|`^{}\\ HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(request.uri(), "/a/%FF%3C%22%7C%60%5E%7B%7D%5C");
    }

    #[test]
    fn a_response_is_sent_completely() {
        let sent = exchange(GET, |reply| {
            let response = Response::builder().status(201).header("X-A", "1").header("X-A", &b"caf\xc3\xa9"[..]);
            reply.answer_http(response.body("hello").unwrap()).unwrap();
        });
        assert_eq!(sent, "HTTP/1.1 201 Created\r\nx-a: 1\r\nx-a: caf\u{e9}\r\nContent-Length: 5\r\n\r\nhello");
        let large = vec![b'x'; 1 << 20];
        let sent = exchange(GET, |reply| reply.answer_http(Response::new(&large)).unwrap());
        assert!(sent.len() > large.len());
    }

    #[test]
    fn a_correct_length_is_sent_once_and_a_wrong_one_refused() {
        let response = |length: &str| Response::builder().header("Content-Length", length).body("hello").unwrap();
        let sent = exchange(GET, |reply| reply.answer_http(response("5")).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        for wrong in ["4", "6", "x", "+5", ""] {
            let sent = exchange(GET, |reply| {
                assert_eq!(reply.answer_http(response(wrong)), Err(Misuse::ReservedHeader), "{wrong:?}");
                reply.answer(StatusCode::OK, "a/b", "").unwrap();
            });
            assert_eq!(
                sent, "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
                "nothing of the refused response is sent"
            );
        }
        let two = Response::builder().header("Content-Length", "5").header("Content-Length", "6");
        let two = two.body("hello").unwrap();
        exchange(GET, |reply| assert_eq!(reply.answer_http(two.clone()), Err(Misuse::ReservedHeader)));
    }

    #[test]
    fn a_response_with_framing_is_refused() {
        for (name, value) in [("Transfer-Encoding", "chunked"), ("Connection", "Upgrade"), ("Connection", "close, x-a")]
        {
            let response = Response::builder().header(name, value).body("").unwrap();
            exchange(GET, |reply| {
                assert_eq!(reply.answer_http(response.clone()), Err(Misuse::ReservedHeader), "{name}: {value}");
                reply.abort();
            });
        }
        let interim = Response::builder().status(103).body("").unwrap();
        exchange(GET, |reply| assert_eq!(reply.answer_http(interim.clone()), Err(Misuse::Interim)));
    }

    #[test]
    fn the_connection_closes_if_the_response_asks_for_it() {
        let response = |value: &str| Response::builder().header("Connection", value).body("").unwrap();
        let sent = exchange(GET, |reply| reply.answer_http(response("Close")).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let sent = exchange(GET, |reply| reply.answer_http(response("keep-alive")).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn a_response_to_head_may_announce_a_length() {
        let announced = || Response::builder().header("Content-Length", "1000").body("").unwrap();
        let sent = exchange(HEAD, |reply| reply.answer_http(announced()).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        let sent = exchange(HEAD, |reply| reply.answer_http(Response::new("hello")).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let mut response = announced();
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        let sent = exchange(GET, |reply| reply.answer_http(response.clone()).unwrap());
        assert_eq!(sent, "HTTP/1.1 304 Not Modified\r\n\r\n");
    }

    #[test]
    fn fields_of_the_server_are_sent_once() {
        let response = Response::builder().header("Date", "yesterday").header("Server", "other").body("").unwrap();
        let sent = exchange(GET, |reply| reply.answer_http(response.clone()).unwrap());
        assert_eq!(sent, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn a_body_may_be_written_in_pieces() {
        let stream = |length: Option<u64>| {
            exchange(GET, |reply| {
                let mut response = Response::builder().header("X-A", "1");
                if let Some(length) = length {
                    response = response.header("Content-Length", length);
                }
                let (parts, ()) = response.body(()).unwrap().into_parts();
                reply.respond_http(&parts).unwrap().send().unwrap();
                reply.write(b"he").unwrap();
                reply.write(b"llo").unwrap();
                reply.finish().unwrap();
            })
        };
        assert_eq!(stream(Some(5)), "HTTP/1.1 200 OK\r\nx-a: 1\r\nContent-Length: 5\r\n\r\nhello");
        let chunked = "HTTP/1.1 200 OK\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        assert_eq!(stream(None), chunked);
    }
}

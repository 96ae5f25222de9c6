//! What a script is told: its arguments and its meta-variables (RFC 3875 sections 4.1 and 4.4), as data.

use std::io::Write;

use percent_encoding::percent_decode;

use crate::config::Config;
use crate::request::Request;
use crate::site::Site;
use crate::wire::list_items;

/// Fields between two neighbours (RFC 9110 section 7.6.1), and those that have variables of their own, or
/// none for a reason.
const WITHHELD: [&str; 12] = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    // It would read as the variable by which many programs are told of a proxy (CVE-2016-5385).
    "Proxy",
    // Passwords do not belong into environments (RFC 3875 section 9.2).
    "Authorization",
    "Content",
];

/// Appends the arguments, a NUL behind each: the words of a query that holds no `=` (RFC 3875
/// section 4.4).
pub(super) fn write_arguments(query: &[u8], out: &mut Vec<u8>) {
    if query.is_empty() || query.contains(&b'=') {
        return;
    }
    let start = out.len();
    for word in query.split(|&byte| byte == b'+') {
        let before = out.len();
        out.extend(percent_decode(word));
        if out[before..].contains(&0) {
            // No argument can hold it.
            return out.truncate(start);
        }
        out.push(0);
    }
}

/// What the environment says of the request beside its head.
pub(super) struct Facts<'f> {
    /// The path of the script and what follows it, decoded: `/cgi-bin/x` and `/info`.
    pub(super) script: &'f [u8],
    pub(super) info: &'f [u8],
    /// The length of the body, once decoded.
    pub(super) length: Option<u64>,
}

/// Appends the environment, a NUL behind each `NAME=VALUE`.
pub(super) fn write(request: &Request<'_>, facts: &Facts<'_>, site: &dyn Site, config: &Config, out: &mut Vec<u8>) {
    let mut variables = Variables { out };
    variables.set("GATEWAY_INTERFACE", b"CGI/1.1");
    variables.set("SERVER_SOFTWARE", site.server().as_bytes());
    variables.set("SERVER_NAME", server_name(request, config));
    variables.set("SERVER_PORT", itoa::Buffer::new().format(config.server_port).as_bytes());
    variables.set("SERVER_PROTOCOL", request.version());
    variables.set("REQUEST_METHOD", request.method());
    variables.set("QUERY_STRING", request.query().unwrap_or_default());
    variables.begin("SCRIPT_NAME").push(b'/');
    variables.out.extend_from_slice(facts.script);
    variables.out.push(0);
    if !facts.info.is_empty() {
        variables.set("PATH_INFO", facts.info);
    }
    let out = variables.begin("REMOTE_ADDR");
    write!(out, "{}", request.peer().ip()).expect("a Vec takes all");
    out.push(0);
    // Nobody looks it up; Python sets it all the same.
    variables.set("REMOTE_HOST", b"");
    if let Some(kind) = request.field("Content-Type") {
        variables.set("CONTENT_TYPE", kind);
    }
    if let Some(length) = facts.length {
        variables.set("CONTENT_LENGTH", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(authorization) = request.field("Authorization") {
        variables.authorization(authorization);
    }
    variables.fields(request);
}

/// Without the port; an IPv6 address keeps its brackets (RFC 3875 section 4.1.14).
fn server_name<'r>(request: &Request<'r>, config: &'r Config) -> &'r [u8] {
    let host = request.host().unwrap_or_default();
    let end = match host {
        [b'[', ..] => memchr::memchr(b']', host).map(|end| end + 1),
        _ => memchr::memchr(b':', host),
    };
    match &host[..end.unwrap_or(host.len())] {
        [] if config.server_name.is_empty() => b"localhost",
        [] => config.server_name.as_bytes(),
        name => name,
    }
}

struct Variables<'o> {
    out: &'o mut Vec<u8>,
}

impl Variables<'_> {
    fn begin(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'=');
        self.out
    }

    fn set(&mut self, name: &str, value: &[u8]) {
        let out = self.begin(name);
        out.extend_from_slice(value);
        out.push(0);
    }

    /// `AUTH_TYPE`, and for Basic `REMOTE_USER`, which nobody has checked: that is the script's affair,
    /// as with Python.
    fn authorization(&mut self, value: &[u8]) {
        let mut words = value.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(scheme), Some(credentials), None) = (words.next(), words.next(), words.next()) else { return };
        self.set("AUTH_TYPE", scheme);
        if scheme.eq_ignore_ascii_case(b"basic")
            && let Some(credentials) = decode_base64(credentials)
            && let Some(colon) = memchr::memchr(b':', &credentials)
            && !credentials[..colon].iter().any(u8::is_ascii_control)
        {
            self.set("REMOTE_USER", &credentials[..colon]);
        }
    }

    /// Every field that a script may see as `HTTP_NAME`, several of one name in one (RFC 3875
    /// section 4.1.18).
    fn fields(&mut self, request: &Request<'_>) {
        let is_listed = |name: &[u8]| {
            let mut values = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"Connection"));
            values.any(|(_, value)| list_items(value).any(|item| item.eq_ignore_ascii_case(name)))
        };
        for (at, (name, value)) in request.fields().enumerate() {
            let same = |&(other, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(other);
            if !is_passed(name) || is_listed(name) || request.fields().take(at).any(|field| same(&field)) {
                continue;
            }
            self.out.extend_from_slice(b"HTTP_");
            self.out.extend(name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
            self.out.push(b'=');
            self.out.extend_from_slice(value);
            // RFC 9110 section 5.3, as Python joins them, but RFC 6265 section 5.4 for cookies.
            let between: &[u8] = if name.eq_ignore_ascii_case(b"Cookie") { b"; " } else { b"," };
            for (_, value) in request.fields().skip(at + 1).filter(same) {
                self.out.extend_from_slice(between);
                self.out.extend_from_slice(value);
            }
            self.out.push(0);
        }
    }
}

/// Whether a field may be passed on at all. A name with an underscore, or another odd character, could
/// pass for a variable of another field.
fn is_passed(name: &[u8]) -> bool {
    let is_plain = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let about_body = name.len() > 8 && name[..8].eq_ignore_ascii_case(b"Content-");
    is_plain && !about_body && !WITHHELD.iter().any(|withheld| withheld.as_bytes().eq_ignore_ascii_case(name))
}

/// RFC 4648 section 4; padding may be missing.
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
    use crate::context::Peer;
    use crate::site::Plain;
    use crate::wire::Head;

    fn environment(head: &str, facts: &Facts<'_>) -> Vec<String> {
        let bytes = head.replace('\n', "\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        let peer = Peer::from(std::net::SocketAddr::from(([192, 0, 2, 1], 7)));
        let request = Request { head: &head, bytes: &bytes, peer };
        let config = Config { server_name: "here".into(), server_port: 8000, ..Config::default() };
        let mut out = Vec::new();
        write(&request, facts, &Plain, &config, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn everything_that_there_is() {
        let facts = Facts { script: b"cgi-bin/a b", info: b"/more/", length: Some(5) };
        let head = "POST /cgi-bin/a%20b/more/?x=%20&y HTTP/1.1\nHost: [::1]:81\nContent-Type: a/b\nContent-Length: 5\n\
                    Accept: a\nCookie: c=1\naccept: b\nCookie: d=2\nX-One: 1\nX_One: 2\nProxy: evil\nConnection: X-Hop\n\
                    X-Hop: h\nTE: trailers\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\nX.Dot: 1\n\
                    Content-Encoding: gzip\nUser-Agent: me\n\n";
        let software = format!("SERVER_SOFTWARE={}", Plain.server());
        assert_eq!(
            environment(head, &facts),
            [
                "GATEWAY_INTERFACE=CGI/1.1",
                &software,
                "SERVER_NAME=[::1]",
                "SERVER_PORT=8000",
                "SERVER_PROTOCOL=HTTP/1.1",
                "REQUEST_METHOD=POST",
                "QUERY_STRING=x=%20&y",
                "SCRIPT_NAME=/cgi-bin/a b",
                "PATH_INFO=/more/",
                "REMOTE_ADDR=192.0.2.1",
                "REMOTE_HOST=",
                "CONTENT_TYPE=a/b",
                "CONTENT_LENGTH=5",
                "AUTH_TYPE=Basic",
                "REMOTE_USER=Aladdin",
                "HTTP_HOST=[::1]:81",
                "HTTP_ACCEPT=a,b",
                "HTTP_COOKIE=c=1; d=2",
                "HTTP_X_ONE=1",
                "HTTP_USER_AGENT=me",
            ]
        );
    }

    #[test]
    fn what_is_absent_is_not_set() {
        let facts = Facts { script: b"cgi-bin/x", info: b"", length: None };
        let all = environment("GET /cgi-bin/x HTTP/1.0\n\n", &facts);
        assert!(all.contains(&"SERVER_NAME=here".to_owned()) && all.contains(&"QUERY_STRING=".to_owned()), "{all:?}");
        for absent in ["PATH_INFO", "CONTENT_TYPE", "CONTENT_LENGTH", "AUTH_TYPE", "REMOTE_USER", "HTTP_"] {
            assert!(!all.iter().any(|one| one.starts_with(absent)), "{absent}");
        }
    }

    #[test]
    fn credentials_that_are_none_name_nobody() {
        for authorization in ["Basic", "Basic !", "Basic YWI=", "Bearer a:b", "Basic a b", "Basic CWE6Yg=="] {
            let facts = Facts { script: b"x", info: b"", length: None };
            let all = environment(&format!("GET / HTTP/1.0\nAuthorization: {authorization}\n\n"), &facts);
            assert!(!all.iter().any(|one| one.starts_with("REMOTE_USER")), "{authorization}");
        }
    }

    #[test]
    fn arguments_are_the_words_of_a_query_without_equals_sign() {
        for (query, words) in [
            ("", &[][..]),
            ("a=b", &[]),
            ("a+b%20c+", &["a", "b c", ""]),
            ("%3d", &["="]),
            ("a%00b", &[]),
            ("-s", &["-s"]),
        ] {
            let mut out = b"kept".to_vec();
            write_arguments(query.as_bytes(), &mut out);
            let text = String::from_utf8(out).unwrap();
            let written: Vec<&str> = text[4..].split_terminator('\0').collect();
            assert_eq!(written, words, "{query}");
        }
    }
}

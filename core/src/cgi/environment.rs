//! The input of a script apart from the body: its arguments and its meta-variables (RFC 3875 sections 4.1 and 4.4).
//! They are only data here; the driver passes them to the process.

use std::io::Write;

use percent_encoding::percent_decode;

use crate::config::Config;
use crate::grammar::{is_one_of, list_items};
use crate::policy::{Authenticated, Policy};
use crate::request::Request;

/// Fields for a single connection (RFC 9110 section 7.6.1), and those that have a variable of their own, or none for a
/// reason. All other fields are passed: a script may need any of them. `Host` and `Authorization` are handled apart.
///
/// `Proxy` would become `HTTP_PROXY`, which configures a proxy in many programs (CVE-2016-5385). The last two are
/// `CONTENT_TYPE` and `CONTENT_LENGTH`: two lengths of one body could differ.
const WITHHELD: &str = "Connection Keep-Alive Proxy-Authenticate Proxy-Authorization Proxy-Connection TE Trailer \
    Transfer-Encoding Upgrade Host Authorization Proxy Content-Type Content-Length";

/// Appends the arguments, each terminated by NUL: the words of a query without `=` (RFC 3875 section 4.4).
pub(super) fn write_arguments(query: &[u8], out: &mut Vec<u8>) {
    if query.is_empty() || query.contains(&b'=') {
        return;
    }
    let start = out.len();
    for word in query.split(|&byte| byte == b'+') {
        let before = out.len();
        out.extend(percent_decode(word));
        if out[before..].contains(&0) {
            // An argument cannot contain it.
            return out.truncate(start);
        }
        out.push(0);
    }
}

/// What the environment contains in addition to the head of the request.
pub(super) struct Facts<'f> {
    /// The path of the script and the rest of the path, decoded: `/cgi-bin/x` and `/info`.
    pub(super) script: &'f [u8],
    pub(super) info: &'f [u8],
    /// The length of the decoded body.
    pub(super) length: Option<u64>,
}

/// Appends the environment, with each `NAME=VALUE` terminated by NUL.
pub(super) fn write(request: &Request<'_>, facts: &Facts<'_>, policy: &dyn Policy, config: &Config, out: &mut Vec<u8>) {
    let mut variables = Variables { out };
    variables.set("GATEWAY_INTERFACE", b"CGI/1.1");
    variables.set("SERVER_SOFTWARE", policy.server().as_bytes());
    if let Some(name) = server_name(request, config) {
        variables.set("SERVER_NAME", name);
    }
    variables.set("SERVER_PORT", itoa::Buffer::new().format(config.server_port).as_bytes());
    variables.set("SERVER_PROTOCOL", request.version());
    variables.set("REQUEST_METHOD", request.method());
    variables.set("REQUEST_SCHEME", request.scheme().as_bytes());
    if let Some(secured) = request.secured() {
        // As in Apache: programs look for it to make their links.
        variables.set("HTTPS", b"on");
        variables.set("SSL_PROTOCOL", secured.version.name().as_bytes());
        if let Some(name) = &secured.server_name {
            variables.set("SSL_TLS_SNI", name.as_bytes());
        }
    }
    variables.request_uri(request);
    variables.set("QUERY_STRING", request.query().unwrap_or_default());
    variables.begin("SCRIPT_NAME").push(b'/');
    variables.out.extend_from_slice(facts.script);
    variables.out.push(0);
    if !facts.info.is_empty() {
        variables.set("PATH_INFO", facts.info);
    }
    // php-cgi refuses to run without this variable, which shows that a server has chosen the script, not a client.
    variables.set("REDIRECT_STATUS", b"200");
    let out = variables.begin("REMOTE_ADDR");
    write!(out, "{}", request.peer()).expect("writing to a Vec does not fail");
    out.push(0);
    if let Some(port) = request.peer().port() {
        variables.set("REMOTE_PORT", itoa::Buffer::new().format(port).as_bytes());
    }
    // No name is looked up, but Python sets the variable too.
    variables.set("REMOTE_HOST", b"");
    if let Some(kind) = request.field("Content-Type") {
        variables.set("CONTENT_TYPE", kind);
    }
    if let Some(length) = facts.length {
        variables.set("CONTENT_LENGTH", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(authenticated) = policy.authenticated(request) {
        variables.authenticated(&authenticated);
    }
    variables.fields(request, config.cgi.pass_authorization);
}

/// The host without the port; an IPv6 address keeps its brackets (RFC 3875 section 4.1.14). `None` if neither the
/// request nor the server has a name, or if the server only has a wildcard address, which clients cannot connect to.
fn server_name<'r>(request: &Request<'r>, config: &'r Config) -> Option<&'r [u8]> {
    let host = request.host().unwrap_or_default();
    let end = match host {
        [b'[', ..] => memchr::memchr(b']', host).map(|end| end + 1),
        _ => memchr::memchr(b':', host),
    };
    match &host[..end.unwrap_or(host.len())] {
        [] => Some(config.server_name.as_bytes()).filter(|name| ![&b""[..], b"0.0.0.0", b"[::]"].contains(name)),
        name => Some(name),
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

    /// Sets the target as received, except that the scheme and the authority of an absolute target are removed, so that
    /// it is always a path with a query, and that it begins with a single slash, so that it cannot be read as `//host`.
    fn request_uri(&mut self, request: &Request<'_>) {
        let uri = request.path_and_query();
        let out = self.begin("REQUEST_URI");
        if !matches!(uri, [b'/' | b'*', ..]) {
            out.push(b'/');
        }
        out.extend_from_slice(uri);
        out.push(0);
    }

    /// Sets `AUTH_TYPE` and `REMOTE_USER` (RFC 3875 sections 4.1.1 and 4.1.11) to what the policy has verified, never
    /// to what the client claims. A name with control characters is not passed.
    fn authenticated(&mut self, authenticated: &Authenticated) {
        let Authenticated { scheme, user } = authenticated;
        let is_plain = |text: &str| !text.is_empty() && !text.bytes().any(|byte| byte.is_ascii_control());
        if is_plain(scheme) && is_plain(user) {
            self.set("AUTH_TYPE", scheme.as_bytes());
            self.set("REMOTE_USER", user.as_bytes());
        }
    }

    /// Sets every field that a script may see as `HTTP_NAME`. Fields with the same name are combined (RFC 3875 section
    /// 4.1.18).
    fn fields(&mut self, request: &Request<'_>, pass_authorization: bool) {
        // RFC 9112 section 3.2.2: the host of an absolute target replaces the Host field.
        if let Some(host) = request.host() {
            self.set("HTTP_HOST", host);
        }
        if pass_authorization {
            if let Some(authorization) = request.sole_field("Authorization") {
                self.set("HTTP_AUTHORIZATION", authorization);
            }
        }
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
            // RFC 9110 section 5.3, in the form that Python uses; but RFC 6265 section 5.4 for cookies.
            let between: &[u8] = if name.eq_ignore_ascii_case(b"Cookie") { b"; " } else { b"," };
            for (_, value) in request.fields().skip(at + 1).filter(same) {
                self.out.extend_from_slice(between);
                self.out.extend_from_slice(value);
            }
            self.out.push(0);
        }
    }
}

/// Whether a field is passed like any other. A name with an underscore or another special character could be taken for
/// the variable of another field.
fn is_passed(name: &[u8]) -> bool {
    let is_plain = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_plain && !is_one_of(WITHHELD.split(' '), name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cgi;
    use crate::peer::Peer;
    use crate::policy::DefaultPolicy;
    use crate::wire::Head;

    fn environment(head: &str, facts: &Facts<'_>) -> Vec<String> {
        variables(head, facts, &DefaultPolicy, Cgi::default())
    }

    fn variables(head: &str, facts: &Facts<'_>, policy: &dyn Policy, cgi: Cgi) -> Vec<String> {
        variables_for(Peer::from(([192, 0, 2, 1], 7)), head, facts, policy, cgi)
    }

    fn variables_for(peer: Peer, head: &str, facts: &Facts<'_>, policy: &dyn Policy, cgi: Cgi) -> Vec<String> {
        let bytes = head.replace('\n', "\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        let request = Request { head: &head, bytes: &bytes, peer, secured: None };
        let config = Config { server_name: "here".into(), server_port: 8000, cgi, ..Config::default() };
        let mut out = Vec::new();
        write(&request, facts, policy, &config, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_client_on_a_unix_socket_has_no_port() {
        let facts = Facts { script: b"cgi-bin/a", info: b"", length: None };
        let head = "GET /cgi-bin/a HTTP/1.1\nHost: x\n\n";
        let all = variables_for(Peer::unix(), head, &facts, &DefaultPolicy, Cgi::default());
        let remote: Vec<_> = all.iter().filter(|variable| variable.starts_with("REMOTE_")).collect();
        assert_eq!(remote, ["REMOTE_ADDR=unix:", "REMOTE_HOST="]);
    }

    #[test]
    fn all_variables_are_set() {
        let facts = Facts { script: b"cgi-bin/a b", info: b"/more/", length: Some(5) };
        let head = "POST /cgi-bin/a%20b/more/?x=%20&y HTTP/1.1\nHost: [::1]:81\nContent-Type: a/b\nContent-Length: 5\n\
                    Accept: a\nCookie: c=1\naccept: b\nCookie: d=2\nX-One: 1\nX_One: 2\nProxy: evil\nConnection: X-Hop\n\
                    X-Hop: h\nTE: trailers\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\nX.Dot: 1\n\
                    Content-Encoding: gzip\nUser-Agent: me\n\n";
        let software = format!("SERVER_SOFTWARE={}", DefaultPolicy.server());
        assert_eq!(
            environment(head, &facts),
            [
                "GATEWAY_INTERFACE=CGI/1.1",
                &software,
                "SERVER_NAME=[::1]",
                "SERVER_PORT=8000",
                "SERVER_PROTOCOL=HTTP/1.1",
                "REQUEST_METHOD=POST",
                "REQUEST_SCHEME=http",
                "REQUEST_URI=/cgi-bin/a%20b/more/?x=%20&y",
                "QUERY_STRING=x=%20&y",
                "SCRIPT_NAME=/cgi-bin/a b",
                "PATH_INFO=/more/",
                "REDIRECT_STATUS=200",
                "REMOTE_ADDR=192.0.2.1",
                "REMOTE_PORT=7",
                "REMOTE_HOST=",
                "CONTENT_TYPE=a/b",
                "CONTENT_LENGTH=5",
                "HTTP_HOST=[::1]:81",
                "HTTP_ACCEPT=a,b",
                "HTTP_COOKIE=c=1; d=2",
                "HTTP_X_ONE=1",
                "HTTP_CONTENT_ENCODING=gzip",
                "HTTP_USER_AGENT=me",
            ]
        );
    }

    #[test]
    fn absent_values_are_not_set() {
        let facts = Facts { script: b"cgi-bin/x", info: b"", length: None };
        let all = environment("GET /cgi-bin/x HTTP/1.0\n\n", &facts);
        assert!(all.contains(&"SERVER_NAME=here".to_owned()) && all.contains(&"QUERY_STRING=".to_owned()), "{all:?}");
        for absent in ["PATH_INFO", "CONTENT_TYPE", "CONTENT_LENGTH", "AUTH_TYPE", "REMOTE_USER", "HTTP_"] {
            assert!(!all.iter().any(|one| one.starts_with(absent)), "{absent}");
        }
    }

    #[test]
    fn a_wildcard_address_is_not_a_server_name() {
        let bytes = b"GET /cgi-bin/x HTTP/1.0\r\n\r\n";
        let mut head = Head::default();
        head.parse(bytes).unwrap();
        let peer = Peer::from(std::net::SocketAddr::from(([192, 0, 2, 1], 7)));
        let request = Request { head: &head, bytes, peer, secured: None };
        for (name, expected) in [
            ("", None),
            ("[::]", None),
            ("0.0.0.0", None),
            ("[::1]", Some("SERVER_NAME=[::1]")),
            ("192.0.2.2", Some("SERVER_NAME=192.0.2.2")),
            ("here", Some("SERVER_NAME=here")),
        ] {
            let config = Config { server_name: name.into(), ..Config::default() };
            let mut out = Vec::new();
            write(&request, &NO_BODY, &DefaultPolicy, &config, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split('\0').find(|variable| variable.starts_with("SERVER_NAME=")), expected, "{name}");
        }
    }

    const NO_BODY: Facts<'static> = Facts { script: b"cgi-bin/x", info: b"", length: None };

    /// Credentials that are not verified do not set a user.
    #[test]
    fn unverified_credentials_set_no_user() {
        for fields in [
            "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "AUTHORIZATION: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\nauthorization: Basic YTpi",
            "Authorization: Digest username=\"root\", uri=\"/\"",
            "Authorization: Bearer root",
            "Authorization: Negotiate YII=",
            "Authorization: root",
            "Proxy-Authorization: Basic YTpi",
            "Remote-User: root\nAuth-Type: Basic",
            "Remote_User: root\nAuth_Type: Basic\nREMOTE_USER: root",
            "Http-Remote-User: root\nRedirect-Remote-User: root\nRedirect_Remote_User: root",
        ] {
            let head = format!("GET /cgi-bin/x HTTP/1.0\n{fields}\n\n");
            for variable in environment(&head, &NO_BODY) {
                let name = variable.split('=').next().unwrap();
                assert!(!["REMOTE_USER", "AUTH_TYPE", "REDIRECT_REMOTE_USER"].contains(&name), "{fields}: {variable}");
                assert!(!name.contains("AUTHORIZATION"), "{fields}: {variable}");
            }
        }
    }

    /// A request cannot set a variable of the server with a field, in any spelling.
    #[test]
    fn fields_cannot_set_variables_of_the_server() {
        let ours = environment("GET /cgi-bin/x?q HTTP/1.0\n\n", &NO_BODY);
        let names: Vec<&str> = ours.iter().map(|variable| variable.split('=').next().unwrap()).collect();
        let others =
            ["CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "DOCUMENT_ROOT", "SCRIPT_FILENAME", "HTTPS", "PATH"];
        for name in names.into_iter().chain(others) {
            for spelled in [name.to_owned(), name.replace('_', "-"), name.to_lowercase(), format!("http_{name}")] {
                if spelled.eq_ignore_ascii_case("Content-Type") || spelled.eq_ignore_ascii_case("Content-Length") {
                    continue;
                }
                let variables = environment(&format!("GET /cgi-bin/x?q HTTP/1.0\n{spelled}: spoofed\n\n"), &NO_BODY);
                assert!(variables.starts_with(&ours), "{spelled}: {variables:?}");
                for more in &variables[ours.len()..] {
                    assert!(!spelled.contains('_') && more.starts_with("HTTP_"), "{spelled}: {more}");
                }
            }
        }
    }

    #[test]
    fn authorization_is_passed_if_configured() {
        let cgi = Cgi { pass_authorization: true, ..Cgi::default() };
        let variables =
            |fields: &str| variables(&format!("GET / HTTP/1.0\n{fields}\n\n"), &NO_BODY, &DefaultPolicy, cgi.clone());
        for value in ["Basic YTpi", "Digest username=\"a\", uri=\"/\"", "Bearer a.b-c"] {
            let variables = variables(&format!("authorization: {value}\nProxy-Authorization: p"));
            assert_eq!(variables.last(), Some(&format!("HTTP_AUTHORIZATION={value}")));
            assert!(
                !variables.iter().any(|one| one.starts_with("REMOTE_USER") || one.starts_with("AUTH_TYPE")),
                "{variables:?}"
            );
        }
        // It would be uncertain which of them counts.
        let variables = variables("Authorization: Basic YTpi\nAuthorization: Basic YTpj");
        assert!(!variables.iter().any(|one| one.contains("AUTHORIZATION")), "{variables:?}");
    }

    #[test]
    fn a_verified_user_is_passed() {
        struct Verifies(&'static str, &'static str);
        impl Policy for Verifies {
            fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
                let (user, _) = request.basic_credentials()?;
                (user == b"ada").then(|| Authenticated { scheme: self.0.into(), user: self.1.into() })
            }
        }
        let about = |policy: &Verifies, credentials: &str| {
            let head = format!("GET / HTTP/1.0\nAuthorization: Basic {credentials}\n\n");
            let variables = variables(&head, &NO_BODY, policy, Cgi::default());
            variables.into_iter().filter(|one| one.contains("REMOTE_USER") || one.contains("AUTH")).collect::<Vec<_>>()
        };
        let (ada, bob) = ("YWRhOng=", "Ym9iOng=");
        assert_eq!(about(&Verifies("Basic", "Ada L."), ada), ["AUTH_TYPE=Basic", "REMOTE_USER=Ada L."]);
        assert_eq!(about(&Verifies("Basic", "Ada L."), bob), [""; 0]);
        for (scheme, user) in
            [("Basic", ""), ("", "ada"), ("Basic", "a\0REMOTE_USER=root"), ("a\nb", "ada"), ("a", "\x7f")]
        {
            assert_eq!(about(&Verifies(scheme, user), ada), [""; 0], "{scheme:?} {user:?}");
        }
    }

    /// Only the type and the length have variables of their own.
    #[test]
    fn other_content_fields_are_passed() {
        let head = "POST / HTTP/1.0\nContent-Type: a/b\nContent-Length: 5\nContent-Encoding: gzip\nContent-Language: de\n\
                    Content-MD5: x\nContent-Range: bytes 0-4/5\nContent-Disposition: attachment\nContent: y\nContent-: z\n\
                    Content_Length: 9\nContent_Type: c/d\n\n";
        let variables = environment(head, &Facts { length: Some(5), ..NO_BODY });
        let expected = [
            "CONTENT_TYPE=a/b",
            "CONTENT_LENGTH=5",
            "HTTP_CONTENT_ENCODING=gzip",
            "HTTP_CONTENT_LANGUAGE=de",
            "HTTP_CONTENT_MD5=x",
            "HTTP_CONTENT_RANGE=bytes 0-4/5",
            "HTTP_CONTENT_DISPOSITION=attachment",
            "HTTP_CONTENT=y",
            "HTTP_CONTENT_=z",
        ];
        assert_eq!(variables[variables.len() - expected.len()..], expected);
    }

    #[test]
    fn the_request_uri_is_a_path_with_its_query() {
        for (target, uri, host) in [
            ("/cgi-bin/x", "/cgi-bin/x", "h"),
            ("/cgi-bin/../cgi-bin//x/%41?a=%20&b", "/cgi-bin/../cgi-bin//x/%41?a=%20&b", "h"),
            ("///cgi-bin/x?", "/cgi-bin/x?", "h"),
            ("http://other:81/cgi-bin/x?a", "/cgi-bin/x?a", "other:81"),
            ("http://other//cgi-bin/x", "/cgi-bin/x", "other"),
            ("http://other?a", "/?a", "other"),
            ("https://other", "/", "other"),
        ] {
            let variables = environment(&format!("GET {target} HTTP/1.1\nHost: h\n\n"), &NO_BODY);
            assert!(variables.contains(&format!("REQUEST_URI={uri}")), "{target}: {variables:?}");
            assert_eq!(variables.last(), Some(&format!("HTTP_HOST={host}")), "{target}");
            assert!(variables.contains(&format!("SERVER_NAME={}", host.split(':').next().unwrap())), "{target}");
            assert!(
                variables.contains(&"REQUEST_SCHEME=http".to_owned())
                    && !variables.iter().any(|one| one.starts_with("HTTPS"))
            );
        }
    }

    #[test]
    fn the_words_of_a_query_without_equals_sign_are_arguments() {
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

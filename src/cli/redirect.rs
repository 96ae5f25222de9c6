//! The server of `--http-redirect`: plain HTTP, where every request gets a 308 to the same URL over HTTPS, and nothing
//! else.

use std::time::Duration;

use sanserve_core::{HandlerError, Reply, Request, StatusCode};
use sanserve_server::{Log, Site};

use super::flags::Runtime;

/// How many clients are redirected at once. Each takes one exchange.
const CONNECTIONS: usize = 1_024;

/// What the server of plain HTTP serves: redirections to `port`.
pub(crate) fn site(port: u16, log: Log, grace: Duration) -> Site {
    let site = Site::without_files().with_log(log).with_grace(grace).with_connections(CONNECTIONS);
    site.with_answer(move |reply| answer(reply, port))
}

/// How many workers it has: on std, each is a connection.
pub(crate) fn workers(runtime: Runtime) -> usize {
    match runtime {
        Runtime::Std => 64,
        Runtime::Mio | Runtime::Smol => 1,
    }
}

fn answer(reply: &mut Reply<'_>, port: u16) -> Result<(), HandlerError> {
    let Some(location) = location(&reply.request(), port) else {
        // HTTP/1.0 without a Host field: there is nothing to redirect to.
        return Err(StatusCode::BAD_REQUEST.into());
    };
    Ok(reply.respond(StatusCode::PERMANENT_REDIRECT)?.field("Location", location)?.body("")?)
}

/// The URL over HTTPS. The core has checked that the host is a name or an address, with or without a port.
fn location(request: &Request<'_>, port: u16) -> Option<String> {
    let host = std::str::from_utf8(request.host()?).ok()?;
    Some(format!("https://{}{}", authority(host, port)?, target(request.path(), request.query())))
}

/// The host of a Host field with another port, which is omitted if it is the default.
fn authority(host: &str, port: u16) -> Option<String> {
    let name = match host.rsplit_once(':') {
        // Not within the brackets of an IPv6 address.
        Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    match (name, port) {
        ("", _) => None,
        (name, 443) => Some(name.to_owned()),
        (name, port) => Some(format!("{name}:{port}")),
    }
}

/// Path and query as they were sent, with bytes that are not ASCII as percent-encoding, since a URL has none.
fn target(path: &[u8], query: Option<&[u8]>) -> String {
    // The asterisk of OPTIONS is no path.
    let path = if path == b"*" { b"/" } else { path };
    let mark: &[u8] = if query.is_some() { b"?" } else { b"" };
    let bytes = path.iter().chain(mark).chain(query.unwrap_or_default());
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_replaced() {
        for (host, port, expected) in [
            ("a.example", 443, "a.example"),
            ("a.example:80", 443, "a.example"),
            ("a.example:", 8443, "a.example:8443"),
            ("a.example:8080", 8443, "a.example:8443"),
            ("192.0.2.1", 8443, "192.0.2.1:8443"),
            ("[::1]", 443, "[::1]"),
            ("[::1]:80", 8443, "[::1]:8443"),
        ] {
            assert_eq!(authority(host, port).as_deref(), Some(expected), "{host}");
        }
        assert_eq!((authority("", 443), authority(":80", 443)), (None, None));
    }

    #[test]
    fn a_target_stays_as_it_was_sent() {
        assert_eq!(target(b"/a%20b//c", Some(b"d=e&f")), "/a%20b//c?d=e&f");
        assert_eq!(target(b"/a", Some(b"")), "/a?");
        assert_eq!(target("/ä".as_bytes(), None), "/%C3%A4");
        assert_eq!(target(b"*", None), "/");
    }
}

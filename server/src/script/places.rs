//! The environment variables that the core cannot know: paths in the file system, and the address that the client has
//! reached.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fd::BorrowedFd;
use rustix::net::getsockname;

use super::Errand;

/// The names and values: `DOCUMENT_ROOT`, `SCRIPT_FILENAME` and `SERVER_ADDR`, which other servers set and programs
/// such as PHP expect, and `PATH_TRANSLATED` (RFC 3875 section 4.1.6). Paths are absolute, like `root`.
/// `SERVER_NAME`, which is required (section 4.1.14), is the address if the core has no name.
pub(super) fn variables(root: &Path, errand: &Errand<'_>) -> impl Iterator<Item = (&'static str, OsString)> {
    let translated = errand.translated.map(|path| ("PATH_TRANSLATED", beneath(root, path)));
    let address = errand.local.map(|address| ("SERVER_ADDR", address.to_string().into()));
    let places = [("DOCUMENT_ROOT", root.into()), ("SCRIPT_FILENAME", beneath(root, errand.path))];
    let is_named = errand.environment.iter().any(|(name, _)| *name == b"SERVER_NAME");
    let name = (!is_named).then(|| ("SERVER_NAME", errand.local.map_or_else(|| "localhost".into(), name_of)));
    places.into_iter().chain(translated).chain(address).chain(name)
}

fn name_of(address: IpAddr) -> OsString {
    match address {
        IpAddr::V4(address) => address.to_string().into(),
        IpAddr::V6(address) => format!("[{address}]").into(),
    }
}

/// A path beneath the root, unchanged, including a trailing slash and empty components.
fn beneath(root: &Path, path: &[u8]) -> OsString {
    let root = root.as_os_str().as_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    OsString::from_vec([root, b"/", path].concat())
}

/// The local address of a connection; an IPv4 address on an IPv6 socket is plain IPv4. `None`: the socket has another
/// family, or has failed.
pub(crate) fn local_address(socket: BorrowedFd<'_>) -> Option<IpAddr> {
    let address = std::net::SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
    Some(address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use rustix::fd::AsFd;

    use super::*;

    #[test]
    fn paths_are_kept_unchanged() {
        for (root, path, expected) in [
            ("/srv", "cgi-bin/x", "/srv/cgi-bin/x"),
            ("/srv", "", "/srv/"),
            ("/srv", "a/", "/srv/a/"),
            ("/srv", "http://a//", "/srv/http://a//"),
            ("/srv", "/a", "/srv//a"),
            ("/", "x", "/x"),
            ("/", "", "/"),
        ] {
            assert_eq!(beneath(Path::new(root), path.as_bytes()), expected, "{root} {path}");
        }
    }

    #[test]
    fn the_address_is_the_local_one() {
        for (listens, connects) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]"), ("[::]", "127.0.0.1")] {
            // IPv6 may not be available.
            let Ok(listener) = TcpListener::bind(format!("{listens}:0")) else { continue };
            let port = listener.local_addr().unwrap().port();
            let Ok(peer) = TcpStream::connect(format!("{connects}:{port}")) else { continue };
            let (socket, _) = listener.accept().unwrap();
            assert_eq!(local_address(socket.as_fd()), Some(connects.trim_matches(['[', ']']).parse().unwrap()));
            drop(peer);
        }
        assert_eq!(local_address(UnixStream::pair().unwrap().0.as_fd()), None);
    }
}

//! The other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The other end of a connection: an IP address and a port, or the other end of a Unix socket. An IPv4 address that came
/// in over an IPv6 socket is plain IPv4.
///
/// `Display` writes what the log and `REMOTE_ADDR` show: the IP address, or `unix:` as nginx does. `Debug` adds the port.
///
/// ```
/// use sanserve_core::Peer;
///
/// let peer = Peer::from(([192, 0, 2, 1], 4000));
/// assert_eq!(peer.ip(), Some([192, 0, 2, 1].into()));
/// assert_eq!((peer.port(), peer.is_local()), (Some(4000), false));
/// assert_eq!(format!("{peer} {peer:?}"), "192.0.2.1 192.0.2.1:4000");
///
/// assert_eq!(Peer::unix().ip(), None);
/// assert_eq!(Peer::unix().to_string(), "unix:");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(Address);

/// Each part is of bytes, so that a resting connection has room for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    Ip { ip: [u8; 16], port: [u8; 2] },
    Unix,
}

impl Peer {
    /// The other end of a Unix socket.
    #[must_use]
    pub const fn unix() -> Peer {
        Peer(Address::Unix)
    }

    /// The IP address, canonical. `None`: it has none, as a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The port. `None`: it has none, as a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|address| address.port())
    }

    /// The IP address and the port. `None`: it has none, as a Unix socket.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.0 {
            Address::Ip { ip, port } => {
                Some(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes(port)))
            }
            Address::Unix => None,
        }
    }

    /// Whether it is on this machine: a Unix socket, or an IP address of the loopback interface.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Peer(Address::Ip { ip: ip.octets(), port: address.port().to_be_bytes() })
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Peer {
    fn from(address: (I, u16)) -> Peer {
        SocketAddr::from(address).into()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix:"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_addr() {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{self}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_plain_ipv4() {
        let mapped = Peer::from(("::ffff:192.0.2.7".parse::<IpAddr>().unwrap(), 9));
        assert_eq!(mapped, Peer::from(([192, 0, 2, 7], 9)));
        assert_eq!(format!("{mapped:?}"), "192.0.2.7:9");
        let v6 = Peer::from((Ipv6Addr::LOCALHOST, 9));
        assert_eq!(format!("{v6} {v6:?} {}", v6.is_local()), "::1 [::1]:9 true");
    }

    #[test]
    fn a_unix_socket_has_no_address() {
        let peer = Peer::unix();
        assert_eq!((peer.ip(), peer.port(), peer.socket_addr()), (None, None, None));
        assert_eq!(format!("{peer} {peer:?} {}", peer.is_local()), "unix: unix: true");
        assert_ne!(peer, Peer::from((Ipv6Addr::UNSPECIFIED, 0)));
    }
}

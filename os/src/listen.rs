//! Listening sockets: resolving, binding, accepting, and limits of descriptors.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::SocketFlags;
use rustix::net::{self, AddressFamily, RecvFlags, SocketAddrAny, SocketType, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};

/// How many unsent bytes a socket buffers, in addition to those in flight.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 512 * 1024;

/// The length of the queue of pending connections; the system clamps it (`net.core.somaxconn`).
pub(crate) const BACKLOG: i32 = 4096;

/// The address to bind: the first of [`resolve_all`].
///
/// # Errors
/// If the host does not resolve.
pub fn resolve(host: Option<&str>, port: u16) -> io::Result<SocketAddr> {
    Ok(resolve_all(host, port)?[0])
}

/// The addresses to bind, at least one. Without a host: all addresses, IPv6 and IPv4 together if there is IPv6. With
/// a host: all addresses that it resolves to, without duplicates, in the order of the system. An IPv6 address may be
/// in brackets.
///
/// # Errors
/// If the host does not resolve.
pub fn resolve_all(host: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let there_is_ipv6 = socket(AddressFamily::INET6).is_ok_and(|fd| net::bind(fd, &any).is_ok());
        return Ok(vec![if there_is_ipv6 {
            (Ipv6Addr::UNSPECIFIED, port).into()
        } else {
            (Ipv4Addr::UNSPECIFIED, port).into()
        }]);
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    addresses_of((bare, port))
}

/// The addresses that `address` stands for, without duplicates, in the order of the system; at least one. A name is
/// looked up, which may take some seconds.
///
/// # Errors
/// If it is neither an address nor a name that resolves.
pub fn addresses_of(address: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in address.to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// The most attempts to find a port that is free at all addresses, if any port will do.
const PORTS: usize = 16;

/// Listens on all of these addresses, on one port: that of the first address, or if that is 0, one that is free at
/// all of them. Addresses that this machine does not have, such as `::1` without IPv6, are skipped, unless none is
/// left.
///
/// # Errors
/// Errors of the system, such as an address in use, which name the address: `cannot listen on [::1]:80: Permission
/// denied`. [`io::ErrorKind::InvalidInput`] if there is no address.
pub fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    bind_on_one_port(addresses, |address| bind(address, false), TcpListener::local_addr)
}

/// Like [`bind_all`], with listeners that several workers [share](SharedListener).
///
/// # Errors
/// Errors of the system, such as an address in use, even by a socket that would share it;
/// [`io::ErrorKind::InvalidInput`] if there is no address.
pub fn bind_all_shared(addresses: &[SocketAddr]) -> io::Result<Vec<SharedListener>> {
    bind_on_one_port(addresses, SharedListener::bind, |shared| Ok(shared.address))
}

fn bind_on_one_port<T>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<T>,
    local_addr: impl Fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<Vec<T>> {
    let bind_each = || {
        let mut listeners: Vec<T> = Vec::new();
        let mut missing = io::Error::from(io::ErrorKind::InvalidInput);
        for &(mut address) in addresses {
            if let Some(first) = listeners.first() {
                address.set_port(local_addr(first)?.port());
            }
            match bind(address) {
                Ok(bound) => listeners.push(bound),
                Err(error) if is_missing(&error) => missing = cannot_listen(address, &error),
                Err(error) => return Err(cannot_listen(address, &error)),
            }
        }
        if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
    };
    let mut tries = if addresses.first().is_some_and(|first| first.port() == 0) { PORTS } else { 1 };
    loop {
        tries -= 1;
        match bind_each() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
}

/// The error of an address that cannot be bound, with its kind.
pub(crate) fn cannot_listen(address: impl fmt::Display, error: &io::Error) -> io::Error {
    let text = error.to_string();
    let plain = text.split(" (os error ").next().unwrap_or(&text);
    io::Error::new(error.kind(), format!("cannot listen on {address}: {plain}"))
}

/// Whether an address cannot be bound because this machine does not have it.
fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Listens on one address. `TCP_NODELAY` is set on accepted sockets (on Linux they inherit it). The listener itself
/// is blocking; an event loop makes it non-blocking.
///
/// # Errors
/// Errors of the system, such as an address in use.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    listen(bound(address, reuse_port)?)
}

fn listen(fd: OwnedFd) -> io::Result<TcpListener> {
    sockopt::set_tcp_nodelay(&fd, true)?;
    // Bytes that the peer does not read should stay in the file, not in the socket: otherwise a slow peer would seem
    // to read nothing for minutes, and its socket would hold megabytes. Accepted sockets inherit this too.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&fd).set_tcp_notsent_lowat(UNSENT);
    net::listen(&fd, BACKLOG)?;
    Ok(TcpListener::from(fd))
}

/// An address that several workers listen on, each with a socket of its own, among which the system distributes
/// connections (`SO_REUSEPORT`). One socket listens from the beginning, so that no client is refused. The others are
/// bound now, which may need privileges that are dropped later, and listen when the number of workers is known.
#[derive(Debug)]
pub struct SharedListener {
    address: SocketAddr,
    first: TcpListener,
    others: Vec<OwnedFd>,
}

impl SharedListener {
    /// Listens for one worker. Port 0 selects a free port, the same for all workers.
    ///
    /// # Errors
    /// Errors of the system; an address is also in use if its socket would share it.
    pub fn bind(address: SocketAddr) -> io::Result<SharedListener> {
        // Without `SO_REUSEPORT`, this bind fails if any socket listens, and it holds a free port. The probe itself
        // never listens, so no connection is lost in it.
        let probe = bound(address, false)?;
        let address = SocketAddr::try_from(net::getsockname(&probe)?)?;
        Ok(SharedListener { address, first: bind(address, true)?, others: Vec::new() })
    }

    /// Binds sockets for `n` workers, at least one.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn reserve(&mut self, n: usize) -> io::Result<()> {
        self.others.truncate(n.saturating_sub(1));
        while self.others.len() + 1 < n {
            self.others.push(bound(self.address, true)?);
        }
        Ok(())
    }

    /// The listeners, one for each worker.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn listen(self) -> io::Result<Vec<TcpListener>> {
        std::iter::once(Ok(self.first)).chain(self.others.into_iter().map(listen)).collect()
    }

    /// The address, with its actual port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let fd = socket(if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET })?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    if address.is_ipv6() {
        // As in Python, a system without dual-stack sockets is not an error.
        let _ = sockopt::set_ipv6_v6only(&fd, false);
    }
    net::bind(&fd, &address)?;
    Ok(fd)
}

/// A stream socket, closed on exec.
pub(crate) fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    #[cfg(not(target_os = "linux"))]
    let fd = {
        let fd = net::socket(family, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        fd
    };
    Ok(fd)
}

/// Accepts a connection. The socket is non-blocking and closed on exec, with `TCP_NODELAY`.
///
/// # Errors
/// Errors of the system.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (fd, peer) = accepted(listener.as_fd())?;
    #[cfg(not(target_os = "linux"))]
    // Fails if the peer has disconnected already, which will be noticed.
    let _ = sockopt::set_tcp_nodelay(&fd, true);
    // On some systems, a missing address means that the peer has disconnected.
    let peer = SocketAddr::try_from(peer.ok_or(io::ErrorKind::ConnectionAborted)?)?;
    Ok((TcpStream::from(fd), peer))
}

/// Accepts a connection, without options of TCP.
pub(crate) fn accepted(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    #[cfg(target_os = "linux")]
    return Ok(net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?);
    #[cfg(not(target_os = "linux"))]
    {
        let (fd, peer) = net::acceptfrom(listener)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok((fd, peer))
    }
}

/// Whether a connection is pending.
#[must_use]
pub fn is_acceptable(listener: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Whether bytes of the peer have arrived that were not read yet. Its disconnect does not count.
#[must_use]
pub fn has_arrived(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    matches!(net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 1..)))
}

/// Raises the number of descriptors of this process to the most that the system allows, and returns it.
///
/// Scripts still get the previous limit, if a launcher starts them.
pub fn raise_nofile_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    INHERITED_NOFILE.get_or_init(|| limit.current);
    if limit.current != limit.maximum {
        let mut raised = limit;
        raised.current = limit.maximum;
        // If that is refused, the limit remains.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    nofile_limit()
}

/// The limit of descriptors of this process before it was raised. `None`: unlimited.
#[must_use]
pub fn inherited_nofile_limit() -> Option<u64> {
    *INHERITED_NOFILE.get_or_init(|| getrlimit(Resource::Nofile).current)
}

static INHERITED_NOFILE: OnceLock<Option<u64>> = OnceLock::new();

/// The limit of descriptors of this process.
#[must_use]
pub fn nofile_limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn resolves_common_notations() {
        assert_eq!(resolve(Some("127.0.0.1"), 80).unwrap(), "127.0.0.1:80".parse().unwrap());
        assert_eq!(resolve(Some("::1"), 80).unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(resolve(Some("[::1]"), 80).unwrap(), "[::1]:80".parse().unwrap());
        assert!(resolve(Some("localhost"), 80).unwrap().ip().is_loopback());
        for any in [None, Some("")] {
            let address = resolve(any, 8000).unwrap();
            assert!(address.ip().is_unspecified() && address.port() == 8000);
        }
        assert!(resolve(Some("256.256.256.256.invalid"), 80).is_err());
    }

    #[test]
    fn the_unspecified_address_accepts_both_families() {
        let listener = bind(resolve(None, 0).unwrap(), false).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _peer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_ours, from) = accept(&listener).unwrap();
        assert_eq!(from.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        if listener.local_addr().unwrap().is_ipv6() {
            let _peer = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            assert_eq!(accept(&listener).unwrap().1.ip(), Ipv6Addr::LOCALHOST);
        }
    }

    #[test]
    fn an_accepted_socket_has_its_options() {
        let listener = bind(loopback(), false).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut ours, from) = accept(&listener).unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        assert!(ours.nodelay().unwrap());
        assert!(fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(&ours).unwrap().contains(FdFlags::CLOEXEC));
        assert!(fcntl_getfd(&listener).unwrap().contains(FdFlags::CLOEXEC));
        ours.write_all(b"hi").unwrap();
        let mut bytes = [0; 2];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hi");
    }

    #[test]
    fn workers_share_a_port_that_no_other_server_uses() {
        let mut shared = SharedListener::bind(loopback()).unwrap();
        shared.reserve(3).unwrap();
        let address = shared.local_addr();
        let is_in_use = || SharedListener::bind(address).unwrap_err().kind() == io::ErrorKind::AddrInUse;
        assert!(address.port() != 0 && is_in_use());
        // Connections from before the others listen belong to the first listener.
        let early: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        let listeners = shared.listen().unwrap();
        assert!(listeners.len() == 3 && is_in_use());
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        early.iter().for_each(|_| drop(listeners[0].accept().unwrap()));
        drop(listeners);
        for n in [0, 1, 2] {
            let mut shared = SharedListener::bind(address).unwrap();
            shared.reserve(4).unwrap();
            shared.reserve(n).unwrap();
            assert_eq!(shared.listen().unwrap().len(), n.max(1));
        }
    }

    #[test]
    fn all_addresses_of_a_name_have_one_port() {
        let both = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap());
        let bound_alone = || {
            let listeners = bind_all(&both).unwrap();
            let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect::<Vec<_>>();
            (addresses, Box::new(listeners) as Box<dyn std::any::Any>)
        };
        let bound_shared = || {
            let listeners = bind_all_shared(&both).unwrap();
            let addresses = listeners.iter().map(SharedListener::local_addr).collect::<Vec<_>>();
            (addresses, Box::new(listeners) as Box<dyn std::any::Any>)
        };
        for (addresses, _bound) in [bound_alone(), bound_shared()] {
            assert_eq!(addresses.len(), 2);
            assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
            assert_ne!(addresses[0].ip(), addresses[1].ip());
            let taken = [(Ipv4Addr::new(127, 0, 0, 3), addresses[0].port()).into(), addresses[1]];
            assert_eq!(bind_all(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse, "a port in use");
            assert_eq!(bind_all_shared(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse, "a port in use");
        }
        // No machine has an address of TEST-NET-1.
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        assert_eq!(bind_all(&[elsewhere, both[0]]).unwrap().len(), 1);
        assert_eq!(bind_all(&[elsewhere]).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert!(bind_all(&[]).is_err());
        let all = resolve_all(Some("localhost"), 80).unwrap();
        assert!(all.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{all:?}");
        assert!(all.iter().enumerate().all(|(at, address)| !all[..at].contains(address)), "duplicates: {all:?}");
    }

    #[test]
    fn arrived_bytes_are_noticed_and_not_consumed() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_acceptable(&listener));
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_acceptable(&listener));
        let (mut stream, _) = accept(&listener).unwrap();
        assert!(!is_acceptable(&listener) && !has_arrived(stream.as_fd()));
        peer.write_all(b"x").unwrap();
        assert!(has_arrived(stream.as_fd()) && has_arrived(stream.as_fd()));
        assert_eq!(stream.read(&mut [0; 9]).unwrap(), 1);
        drop(peer);
        assert!(!has_arrived(stream.as_fd()), "the end does not count");
    }

    #[test]
    fn the_limit_is_raised_to_the_maximum() {
        let raised = raise_nofile_limit();
        assert!(raised >= 3);
        assert_eq!(raised, nofile_limit());
    }
}

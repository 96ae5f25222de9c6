//! Listening: resolve, bind, accept, and what to do when accepting fails.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::SocketFlags;
use rustix::net::{self, AddressFamily, RecvFlags, SocketType, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Bytes that a socket takes beyond what is on its way to the peer.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 512 * 1024;

/// Connections that may wait to be accepted; the system clamps it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// The address to bind: the first of [`resolve_all`].
///
/// # Errors
/// If the host does not resolve.
pub fn resolve(host: Option<&str>, port: u16) -> io::Result<SocketAddr> {
    Ok(resolve_all(host, port)?[0])
}

/// The addresses to bind, at least one. Without a host: every address, IPv6 and IPv4 together where there is IPv6.
/// With one, all that it resolves to, each once, in the order of the system; an IPv6 address may be in brackets.
///
/// # Errors
/// If the host does not resolve.
pub fn resolve_all(host: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let there_is_ipv6 = socket(any).is_ok_and(|fd| net::bind(fd, &any).is_ok());
        return Ok(vec![if there_is_ipv6 {
            (Ipv6Addr::UNSPECIFIED, port).into()
        } else {
            (Ipv4Addr::UNSPECIFIED, port).into()
        }]);
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    addresses_of((bare, port))
}

/// What `address` stands for, each once, in the order of the system; at least one. A name is looked up, which may take
/// some seconds.
///
/// # Errors
/// If it is no address, or a name that does not resolve.
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

/// Tries to find a port that is free at all addresses, where any will do.
const PORTS: usize = 16;

/// Listens on each of these addresses, all on one port: that of the first, and where that is 0, one that is free at all
/// of them. An address that this machine does not have, such as `::1` where there is no IPv6, is left out, as long as
/// another is left.
///
/// # Errors
/// As the system says, such as an address in use; [`io::ErrorKind::InvalidInput`] if there is none.
pub fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    bind_on_one_port(addresses, |address| bind(address, false), TcpListener::local_addr)
}

/// Like [`bind_all`], with listeners that several workers [share](SharedListener).
///
/// # Errors
/// As the system says, such as an address in use, even if its user would share it;
/// [`io::ErrorKind::InvalidInput`] if there is none.
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
                Err(error) if is_missing(&error) => missing = error,
                Err(error) => return Err(error),
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

/// Whether an address cannot be bound because this machine does not have it.
fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// Listens. The sockets accepted from it send without delay (on Linux they inherit that). The
/// listener itself blocks; an event loop makes it non-blocking.
///
/// # Errors
/// As the system says, such as an address in use.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    listen(bound(address, reuse_port)?)
}

fn listen(fd: OwnedFd) -> io::Result<TcpListener> {
    sockopt::set_tcp_nodelay(&fd, true)?;
    // What a peer does not take is to stay in the file, not in the socket: else a slow one looks like
    // one that takes nothing for minutes, and holds megabytes. Accepted sockets inherit this too.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&fd).set_tcp_notsent_lowat(UNSENT);
    net::listen(&fd, BACKLOG)?;
    Ok(TcpListener::from(fd))
}

/// An address that several workers listen on, each with a socket of its own, among which the system spreads
/// connections (`SO_REUSEPORT`). One of them listens from the beginning, so that no client is refused; the others are
/// bound, which may need privileges that are dropped later, and listen when it is known how many workers there are.
#[derive(Debug)]
pub struct SharedListener {
    address: SocketAddr,
    first: TcpListener,
    others: Vec<OwnedFd>,
}

impl SharedListener {
    /// Listens for one worker. Port 0 is a free port, the same for all workers.
    ///
    /// # Errors
    /// As the system says; an address is in use even if its user would share it.
    pub fn bind(address: SocketAddr) -> io::Result<SharedListener> {
        // Bound without SO_REUSEPORT, it fails where anybody listens, and holds a free port; it never
        // listens itself, so no connection is lost in it.
        let probe = bound(address, false)?;
        let address = SocketAddr::try_from(net::getsockname(&probe)?)?;
        Ok(SharedListener { address, first: bind(address, true)?, others: Vec::new() })
    }

    /// Has sockets for `n` workers, at least one.
    ///
    /// # Errors
    /// As the system says.
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
    /// As the system says.
    pub fn listen(self) -> io::Result<Vec<TcpListener>> {
        std::iter::once(Ok(self.first)).chain(self.others.into_iter().map(listen)).collect()
    }

    /// The address, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let fd = socket(address)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    if address.is_ipv6() {
        // As Python does: a system that cannot is left as it is.
        let _ = sockopt::set_ipv6_v6only(&fd, false);
    }
    net::bind(&fd, &address)?;
    Ok(fd)
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
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

/// Accepts a connection: non-blocking, closed on exec, sending without delay.
///
/// # Errors
/// As the system says.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    #[cfg(target_os = "linux")]
    let (fd, peer) = net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    #[cfg(not(target_os = "linux"))]
    let (fd, peer) = {
        let (fd, peer) = net::acceptfrom(listener)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        // Fails where the peer has gone already; it will be noticed.
        let _ = sockopt::set_tcp_nodelay(&fd, true);
        (fd, peer)
    };
    // Without an address the peer has gone again, on some systems.
    let peer = SocketAddr::try_from(peer.ok_or(io::ErrorKind::ConnectionAborted)?)?;
    Ok((TcpStream::from(fd), peer))
}

/// Whether somebody waits to be accepted.
#[must_use]
pub fn is_acceptable(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Whether the peer has sent what nobody has read yet. Its going away does not count.
#[must_use]
pub fn has_arrived(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    matches!(net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 1..)))
}

/// Raises the number of descriptors that this process may have to what the system allows, and
/// says what it is now.
///
/// Scripts still get the limit that was there before, if a launcher starts them.
pub fn raise_nofile_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    INHERITED_NOFILE.get_or_init(|| limit.current);
    if limit.current != limit.maximum {
        let mut raised = limit;
        raised.current = limit.maximum;
        // Where that is refused, it stays as it was.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    nofile_limit()
}

/// The number of descriptors that this process could have before that was raised. `None`: any number.
#[must_use]
pub fn inherited_nofile_limit() -> Option<u64> {
    *INHERITED_NOFILE.get_or_init(|| getrlimit(Resource::Nofile).current)
}

static INHERITED_NOFILE: OnceLock<Option<u64>> = OnceLock::new();

/// The number of descriptors that this process may have.
#[must_use]
pub fn nofile_limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{FdFlags, fcntl_getfd};

    use rustix::fd::AsFd;

    use super::*;

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn resolves_what_people_write() {
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
    fn unspecified_takes_both_families() {
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
    fn an_accepted_socket_is_made_ready() {
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
    fn many_share_one_port_and_nobody_elses() {
        let mut shared = SharedListener::bind(loopback()).unwrap();
        shared.reserve(3).unwrap();
        let address = shared.local_addr();
        let is_in_use = || SharedListener::bind(address).unwrap_err().kind() == io::ErrorKind::AddrInUse;
        assert!(address.port() != 0 && is_in_use());
        // Who connects before the others listen is nobody's but the first one's.
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
            assert_eq!(bind_all(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody else's");
            assert_eq!(bind_all_shared(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody else's");
        }
        // TEST-NET-1 is nobody's.
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        assert_eq!(bind_all(&[elsewhere, both[0]]).unwrap().len(), 1);
        assert_eq!(bind_all(&[elsewhere]).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert!(bind_all(&[]).is_err());
        let all = resolve_all(Some("localhost"), 80).unwrap();
        assert!(all.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{all:?}");
        assert!(all.iter().enumerate().all(|(at, address)| !all[..at].contains(address)), "each once: {all:?}");
    }

    #[test]
    fn what_has_arrived_is_seen_and_stays() {
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
        assert!(!has_arrived(stream.as_fd()), "the end is nothing to answer");
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = raise_nofile_limit();
        assert!(raised >= 3);
        assert_eq!(raised, nofile_limit());
    }
}

//! Sources of connections: a TCP socket, a Unix socket, or a queue of streams that the process has already.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};
use sanserve_core::Peer;

use crate::listen::{self, BACKLOG};
use crate::stream::Stream;

/// A source of connections: a TCP socket, a Unix socket, or a [channel](Listener::channel).
///
/// ```
/// use sanserve_os::Listener;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("http.sock");
/// let unix = Listener::unix_with_mode(&path, 0o660)?;
/// assert_eq!(unix.address().to_string(), format!("unix:{}", path.display()));
/// drop(unix);
/// assert!(!path.exists());
///
/// let tcp = Listener::from(std::net::TcpListener::bind("127.0.0.1:0")?);
/// assert!(tcp.address().to_ip().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    /// The file is the first field, so that it is removed before the socket is closed: until then, no other file can have
    /// its inode.
    Unix(Option<Arc<SocketFile>>, UnixListener),
    Channel(Arc<Receiver>),
}

/// The address of a [`Listener`]. `Display` writes `127.0.0.1:8000`, `unix:/run/http.sock`, or `unix:`.
///
/// ```
/// use sanserve_os::{ListenAddr, Listener};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = Listener::from(std::net::TcpListener::bind("127.0.0.1:0")?);
/// let port = listener.address().to_ip().map(|address| address.port());
/// assert_eq!(listener.address().to_string(), format!("127.0.0.1:{}", port.unwrap_or_default()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddr {
    /// The address of a TCP socket.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A channel, or a Unix socket without a path.
    Unnamed,
}

impl ListenAddr {
    /// The address and port of a TCP socket.
    #[must_use]
    pub fn to_ip(&self) -> Option<SocketAddr> {
        match self {
            ListenAddr::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// The path of a Unix socket.
    #[must_use]
    pub fn to_unix(&self) -> Option<&Path> {
        match self {
            ListenAddr::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Ip(address) => address.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddr::Unnamed => f.write_str("unix:"),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener(Source::Tcp(listener))
    }
}

impl From<UnixListener> for Listener {
    /// The owner of the socket is responsible for its file.
    fn from(listener: UnixListener) -> Listener {
        Listener(Source::Unix(None, listener))
    }
}

/// A socket that another process has opened, such as systemd or a supervisor. It is closed in programs that this one
/// executes.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use sanserve_os::Listener;
///
/// # fn main() -> std::io::Result<()> {
/// let inherited = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0")?);
/// assert!(Listener::try_from(inherited)?.address().to_ip().is_some());
///
/// let file = OwnedFd::from(std::fs::File::open("/dev/null")?);
/// assert!(Listener::try_from(file).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if it is not a TCP or Unix socket that listens; the descriptor is closed.
impl TryFrom<OwnedFd> for Listener {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Listener> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let kind = sockopt::socket_type(&fd).map_err(|_| invalid("it is not a socket"))?;
        if kind != SocketType::STREAM || !sockopt::socket_acceptconn(&fd)? {
            return Err(invalid("it is not a socket that listens"));
        }
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        match net::getsockname(&fd)?.address_family() {
            AddressFamily::INET | AddressFamily::INET6 => Ok(TcpListener::from(fd).into()),
            AddressFamily::UNIX => Ok(UnixListener::from(fd).into()),
            _ => Err(invalid("it is neither a TCP nor a Unix socket")),
        }
    }
}

impl Listener {
    /// Listens on a Unix socket at `path`, with the permissions that the umask leaves; usually, only the same user
    /// may connect. The file is removed when the listener, and all of its [clones](Self::try_clone), are dropped.
    ///
    /// A socket that a process has left behind is replaced. It counts as left behind if connections to it are refused.
    /// No other file is ever removed.
    ///
    /// # Errors
    /// They name the path. [`io::ErrorKind::AddrInUse`] if a process listens on the socket, [`io::ErrorKind::AlreadyExists`] if the path
    /// is not a socket, [`io::ErrorKind::InvalidInput`] if it is too long (more than 107 bytes on Linux), and others of
    /// the system.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Listener> {
        bind_unix(path.as_ref(), None)
    }

    /// Like [`unix`](Self::unix), with the permissions of the file: `0o666` lets everyone connect, `0o660` the user and
    /// the group. They are set before the first connection is accepted.
    ///
    /// # Errors
    /// As [`unix`](Self::unix).
    pub fn unix_with_mode(path: impl AsRef<Path>, mode: u32) -> io::Result<Listener> {
        bind_unix(path.as_ref(), Some(mode))
    }

    /// A listener whose connections are streams that this process has already: accepted by code of its own, inherited,
    /// or one end of a [`UnixStream::pair`]. They are served like others, and count towards the same limits.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use sanserve_os::Listener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (streams, listener) = Listener::channel()?;
    /// let (ours, theirs) = UnixStream::pair()?;
    /// streams.send(theirs)?;
    /// assert!(listener.is_acceptable());
    /// let stream = listener.accept()?;
    /// assert_eq!(stream.peer().to_string(), "unix:");
    /// # drop(ours);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the process is out of descriptors: it takes two.
    pub fn channel() -> io::Result<(StreamSender, Listener)> {
        let (signal, ready) = UnixStream::pair()?;
        signal.set_nonblocking(true)?;
        ready.set_nonblocking(true)?;
        let channel = Arc::new(Channel { queue: Mutex::new(Some(VecDeque::new())), signal, ready });
        let receiver = Receiver(Arc::clone(&channel));
        Ok((StreamSender(channel), Listener(Source::Channel(Arc::new(receiver)))))
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> ListenAddr {
        match &self.0 {
            Source::Tcp(listener) => listener.local_addr().map_or(ListenAddr::Unnamed, ListenAddr::Ip),
            Source::Unix(Some(file), _) => ListenAddr::Unix(file.path.clone()),
            Source::Unix(None, listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or(ListenAddr::Unnamed, |path| ListenAddr::Unix(path.to_owned()))
            }
            Source::Channel(_) => ListenAddr::Unnamed,
        }
    }

    /// Accepts a connection. Its socket is non-blocking and closed on exec, with `TCP_NODELAY` if it is TCP. Blocks
    /// unless the listener is [non-blocking](Self::set_nonblocking); a channel never does.
    ///
    /// # Errors
    /// Errors of the system; [`io::ErrorKind::WouldBlock`] if no connection is pending.
    pub fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Source::Tcp(listener) => {
                let (stream, peer) = listen::accept(listener)?;
                Ok(Stream::new(stream, Peer::from(peer)))
            }
            Source::Unix(_, listener) => Ok(Stream::new(listen::accepted(listener.as_fd())?.0, Peer::unix())),
            Source::Channel(receiver) => receiver.0.next(),
        }
    }

    /// Whether a connection is pending.
    #[must_use]
    pub fn is_acceptable(&self) -> bool {
        listen::is_acceptable(self)
    }

    /// Sets whether [`accept`](Self::accept) blocks.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.0 {
            Source::Tcp(listener) => listener.set_nonblocking(nonblocking),
            Source::Unix(_, listener) => listener.set_nonblocking(nonblocking),
            Source::Channel(_) => Ok(()),
        }
    }

    /// Sets `TCP_NODELAY`, which accepted sockets inherit on Linux. Has no effect if this is not TCP; a failure only
    /// costs speed.
    pub fn set_nodelay(&self) {
        if let Source::Tcp(listener) = &self.0 {
            let _ = net::sockopt::set_tcp_nodelay(listener, true);
        }
    }

    /// Another listener for the same connections.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Listener> {
        Ok(Listener(match &self.0 {
            Source::Tcp(listener) => Source::Tcp(listener.try_clone()?),
            Source::Unix(file, listener) => Source::Unix(file.clone(), listener.try_clone()?),
            Source::Channel(receiver) => Source::Channel(Arc::clone(receiver)),
        }))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Tcp(listener) => listener.as_fd(),
            Source::Unix(_, listener) => listener.as_fd(),
            Source::Channel(receiver) => receiver.0.ready.as_fd(),
        }
    }
}

/// The most streams that wait in a channel.
const MAX_QUEUED: usize = BACKLOG as usize;

/// Streams that wait to be accepted. A byte is in the socket pair while there are any.
#[derive(Debug)]
struct Channel {
    /// `None`: no one will accept them any more.
    queue: Mutex<Option<VecDeque<Stream>>>,
    signal: UnixStream,
    ready: UnixStream,
}

impl Channel {
    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Stream>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> io::Result<Stream> {
        let mut queue = self.queue();
        let stream = queue.as_mut().and_then(VecDeque::pop_front);
        if queue.as_ref().is_none_or(VecDeque::is_empty) {
            // There is at most one byte, and it is no error if there is none.
            let _ = (&self.ready).read(&mut [0; 2]);
        }
        stream.ok_or_else(|| Errno::AGAIN.into())
    }
}

/// The queue that all listeners of a channel share. When the last listener is dropped, streams in the queue are closed,
/// and further ones are refused.
#[derive(Debug)]
struct Receiver(Arc<Channel>);

impl Drop for Receiver {
    fn drop(&mut self) {
        let left = self.0.queue().take();
        // Closed without the lock.
        drop(left);
    }
}

/// Sends streams to the server that serves a [channel](Listener::channel). Clones send to the same server.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use sanserve_os::Listener;
///
/// # fn main() -> std::io::Result<()> {
/// let (streams, listener) = Listener::channel()?; // the listener goes to a server
/// let own = TcpListener::bind("127.0.0.1:0")?;
/// let _client = TcpStream::connect(own.local_addr()?)?;
/// let (stream, _peer) = own.accept()?;
/// streams.clone().send(stream)?; // from any thread
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StreamSender(Arc<Channel>);

impl StreamSender {
    /// Passes on a [`TcpStream`](std::net::TcpStream), a [`UnixStream`] or a [`Stream`]. It becomes non-blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if 4,096 streams are waiting, [`io::ErrorKind::BrokenPipe`] if the server has ended,
    /// or the listener was dropped, and errors of the system. The stream is closed then.
    pub fn send(&self, stream: impl Into<Stream>) -> io::Result<()> {
        let stream = stream.into();
        rustix::io::ioctl_fionbio(&stream, true)?;
        if stream.peer().socket_addr().is_some() {
            // This fails if the peer has disconnected already. Reading will report that.
            let _ = net::sockopt::set_tcp_nodelay(&stream, true);
        }
        let mut queue = self.0.queue();
        let Some(queue) = queue.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if queue.len() >= MAX_QUEUED {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if queue.is_empty() {
            (&self.0.signal).write_all(&[0])?;
        }
        queue.push_back(stream);
        Ok(())
    }
}

/// The file of a Unix socket, which is removed on drop.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file: only this file is removed.
    id: (u64, u64),
    /// Only the process that has created the file removes it.
    process: u32,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        let _lock = lock_directory(&self.path);
        if socket_at(&self.path).is_ok_and(|id| id == Some(self.id)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of a socket. `None`: the file is not a socket.
fn socket_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let found = fs::symlink_metadata(path)?;
    Ok(found.file_type().is_socket().then(|| (found.dev(), found.ino())))
}

/// The longest path of a Unix socket on Linux, including the final NUL. Other systems may have less room.
const MAX_PATH: usize = 107;

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Listener> {
    try_bind_unix(path, mode).map_err(|error| listen::cannot_listen(format_args!("unix:{}", path.display()), &error))
}

fn try_bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Listener> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the path of a Unix socket is too long");
    let address = SocketAddrUnix::new(path).map_err(|_| too_long())?;
    // Linux also binds a path without room for the final NUL, but most clients cannot connect to it.
    if path.as_os_str().len() > MAX_PATH {
        return Err(too_long());
    }
    // Between `bind` and `listen`, a socket looks like one that was left behind.
    let _lock = lock_directory(path);
    let bind = || -> io::Result<OwnedFd> {
        let fd = listen::socket(AddressFamily::UNIX)?;
        net::bind(&fd, &address)?;
        Ok(fd)
    };
    let fd = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_left_behind(path, &address)? {
                fs::remove_file(path)?;
            }
            bind()?
        }
        bound => bound?,
    };
    let id = socket_at(path)?.ok_or(io::ErrorKind::AddrInUse)?;
    let file = Arc::new(SocketFile { path: path.to_owned(), id, process: process::id() });
    if let Some(mode) = mode {
        // Nobody can connect yet.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    net::listen(&fd, BACKLOG)?;
    Ok(Listener(Source::Unix(Some(file), UnixListener::from(fd))))
}

/// Whether the file is a socket on which no process listens.
fn is_left_behind(path: &Path, address: &SocketAddrUnix) -> io::Result<bool> {
    match socket_at(path) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let client = listen::socket(AddressFamily::UNIX)?;
    // A full queue must not block.
    rustix::io::ioctl_fionbio(&client, true)?;
    match net::connect(&client, address) {
        Err(Errno::CONNREFUSED) => Ok(true),
        // Another process has removed it in the meantime.
        Err(Errno::NOENT) => Ok(false),
        Ok(()) | Err(Errno::AGAIN) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error.into()),
    }
}

/// How often, and with which pauses, to try to lock a directory.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Locks the directory of a path, so that no other server binds there while the result lives. `None`: the directory
/// cannot be locked, or another process has held the lock for a second.
fn lock_directory(path: &Path) -> Option<fs::File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = fs::File::open(parent).ok()?;
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::AGAIN | Errno::INTR) => thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        (directory, path)
    }

    #[test]
    fn a_socket_is_removed_by_its_last_owner() {
        let (_directory, path) = path();
        let listener = Listener::unix(&path).unwrap();
        let twin = listener.try_clone().unwrap();
        drop(listener);
        let _client = UnixStream::connect(&path).unwrap();
        let accepted = twin.accept().unwrap();
        assert_eq!(accepted.peer(), Peer::unix());
        assert_eq!(twin.address().to_unix(), Some(&*path));
        drop(twin);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_belongs_to_another_server_is_not_removed() {
        let (_directory, path) = path();
        let first = Listener::unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::unix(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let (directory, path) = path();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the socket behind");
        let listener = Listener::unix(&path).unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listener.is_acceptable(), "the attempt has connected");
        drop(listener);
        fs::write(&path, "precious").unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        // A symbolic link to a socket that was left behind is not replaced, nor is a directory.
        let left = directory.path().join("left");
        drop(UnixListener::bind(&left).unwrap());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&left, &link).unwrap();
        for path in [&link, &directory.path().to_owned()] {
            assert_eq!(Listener::unix(path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(left.exists() && link.exists());
    }

    #[test]
    fn of_several_servers_one_replaces_a_socket_that_was_left_behind() {
        let (_directory, path) = path();
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let bound: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| Listener::unix(&path))).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1, "{bound:?}");
            assert!(UnixStream::connect(&path).is_ok());
        }
    }

    #[test]
    fn the_mode_and_the_length_of_a_path_are_respected() {
        let (directory, path) = path();
        let _listener = Listener::unix_with_mode(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let left = MAX_PATH - directory.path().as_os_str().len() - 1;
        for longer in [1, 2, 200] {
            let long = directory.path().join("x".repeat(left + longer));
            assert_eq!(Listener::unix(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert!(!long.exists());
        }
        if cfg!(target_os = "linux") {
            let longest = directory.path().join("x".repeat(left));
            let _listener = Listener::unix(&longest).unwrap();
            // The standard library, and so most clients, connects like this.
            assert!(UnixStream::connect(&longest).is_ok());
        }
        assert_eq!(Listener::unix(directory.path().join("no/s")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_channel_is_readable_while_streams_wait() {
        let (sender, listener) = Listener::channel().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        for (_, theirs) in &pairs {
            sender.clone().send(theirs.try_clone().unwrap()).unwrap();
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        sender.send(tcp.accept().unwrap().0).unwrap();
        for _ in 0..3 {
            assert!(listener.is_acceptable());
            assert_eq!(listener.try_clone().unwrap().accept().unwrap().peer(), Peer::unix());
        }
        assert!(listener.is_acceptable());
        assert_eq!(listener.accept().unwrap().peer().socket_addr(), client.local_addr().ok());
        assert!(!listener.is_acceptable());
        assert_eq!(listener.address().to_string(), "unix:");
    }

    #[test]
    fn a_channel_ends_with_its_last_listener() {
        let (sender, listener) = Listener::channel().unwrap();
        let twin = listener.try_clone().unwrap();
        drop(listener);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        sender.send(theirs).unwrap();
        drop(twin);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "what waited is closed");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(sender.clone().send(theirs).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }
}

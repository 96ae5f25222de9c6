//! Sending on a socket. Each call sends what the socket accepts without blocking, and returns how much that was.
//!
//! Sockets must be non-blocking, as [`accept`](crate::accept) makes them, because `sendfile` has no flag for it.
//! `SIGPIPE` must be ignored, which is the default of Rust programs.

use std::io::IoSlice;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// The most that one call sends from a file, so that one fast peer does not hold up the others.
pub const MAX_SENDFILE: u64 = 1 << 20;

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The socket accepts nothing for now.
    Blocked,
    /// The connection has failed.
    Peer,
    /// The file cannot be read.
    File,
}

/// Whether the peer has reset the connection. For connections that are neither read nor written at the moment.
#[must_use]
pub fn is_reset(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let now = Timespec::try_from(Duration::ZERO).expect("zero fits");
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Sends `bytes`, or the beginning of it. `more`: other bytes follow immediately.
///
/// # Errors
/// [`Stopped::Blocked`] and [`Stopped::Peer`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], more: bool) -> Result<usize, Stopped> {
    retried(|| rustix::net::send(socket, bytes, flags(more))).map_err(of_socket)
}

/// Sends several pieces, or the beginning of them, with one call.
///
/// # Errors
/// [`Stopped::Blocked`] and [`Stopped::Peer`].
pub fn send_vectored(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>], more: bool) -> Result<usize, Stopped> {
    retried(|| sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags(more))).map_err(of_socket)
}

/// Sends a part of a file, at most [`MAX_SENDFILE`] of it. `Ok(0)`: the file ends before `offset`.
///
/// # Errors
/// Any of [`Stopped`].
pub fn send_file(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64, Stopped> {
    let len = len.min(MAX_SENDFILE);
    debug_assert_ne!(len, 0);
    #[cfg(target_os = "linux")]
    {
        let most = usize::try_from(len).expect("at most a megabyte");
        let mut at = offset;
        match retried(|| rustix::fs::sendfile(socket, file, Some(&mut at), most)) {
            // The file system does not support `sendfile`.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(of_either(error)),
            Ok(n) => return Ok(n as u64),
        }
    }
    send_file_by_hand(socket, file, offset, len)
}

/// Like `sendfile`, but with a copy. Bytes that the socket does not accept are read again later.
fn send_file_by_hand(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64, Stopped> {
    const MOST: usize = 32 * 1024;
    // On the heap: a thread keeps what it has once touched of its stack, for as long as its connection lasts.
    let mut room = vec![0; usize::try_from(len).map_or(MOST, |len| len.min(MOST))];
    let n = retried(|| rustix::io::pread(file, &mut room[..], offset)).map_err(|_| Stopped::File)?;
    if n == 0 {
        return Ok(0);
    }
    send(socket, &room[..n], n as u64 != len).map(|n| n as u64)
}

fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(target_os = "linux")]
fn flags(more: bool) -> SendFlags {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if more { flags | SendFlags::MORE } else { flags }
}

#[cfg(not(target_os = "linux"))]
fn flags(_: bool) -> SendFlags {
    SendFlags::DONTWAIT
}

fn of_socket(error: Errno) -> Stopped {
    match error {
        Errno::AGAIN => Stopped::Blocked,
        _ => Stopped::Peer,
    }
}

/// Derives from the error of a `sendfile` which side has failed.
#[cfg(target_os = "linux")]
fn of_either(error: Errno) -> Stopped {
    match error {
        Errno::AGAIN => Stopped::Blocked,
        Errno::IO | Errno::OVERFLOW | Errno::STALE | Errno::BADF | Errno::ISDIR | Errno::NXIO => Stopped::File,
        _ => Stopped::Peer,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A connected pair over loopback; the first one does not block.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, peer)
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    fn received(peer: &mut TcpStream, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A connected pair without any buffering by the kernel in between, so that a full socket remains full. The first
    /// one does not block.
    fn still_pair() -> (UnixStream, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, peer)
    }

    /// Sends until the socket is full.
    fn fill(socket: &UnixStream) -> usize {
        let mut total = 0;
        loop {
            match send(socket.as_fd(), &[b'x'; 65_536], false) {
                Ok(n) => total += n,
                Err(stopped) => {
                    assert_eq!(stopped, Stopped::Blocked);
                    return total;
                }
            }
        }
    }

    #[test]
    fn pieces_go_out_in_order() {
        let (ours, mut peer) = pair();
        assert_eq!(send(ours.as_fd(), b"one ", true), Ok(4));
        let pieces = [&b"two "[..], b"", b"three"].map(IoSlice::new);
        assert_eq!(send_vectored(ours.as_fd(), &pieces, false), Ok(9));
        assert_eq!(received(&mut peer, 13), b"one two three");
    }

    #[test]
    fn a_file_goes_out_from_its_offset_to_its_end() {
        let (ours, mut peer) = pair();
        let file = file(b"0123456789");
        for send_file in [send_file, send_file_by_hand] {
            assert_eq!(send_file(ours.as_fd(), file.as_fd(), 2, 3), Ok(3));
            assert_eq!(send_file(ours.as_fd(), file.as_fd(), 8, 5), Ok(2));
            assert_eq!(send_file(ours.as_fd(), file.as_fd(), 10, 1), Ok(0));
            assert_eq!(send(ours.as_fd(), b".", false), Ok(1));
            assert_eq!(received(&mut peer, 6), b"23489.");
        }
    }

    #[test]
    fn one_call_is_bounded() {
        let (ours, _peer) = pair();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(send_file(ours.as_fd(), file.as_fd(), 0, 1 << 30).unwrap() <= MAX_SENDFILE);
    }

    #[test]
    fn a_full_socket_does_not_block_the_caller() {
        let (ours, _peer) = still_pair();
        fill(&ours);
        let file = file(b"0123456789");
        assert_eq!(send(ours.as_fd(), b"x", false), Err(Stopped::Blocked));
        assert_eq!(send_vectored(ours.as_fd(), &[IoSlice::new(b"x")], false), Err(Stopped::Blocked));
        assert_eq!(send_file(ours.as_fd(), file.as_fd(), 0, 10), Err(Stopped::Blocked));
        assert_eq!(send_file_by_hand(ours.as_fd(), file.as_fd(), 0, 10), Err(Stopped::Blocked));
    }

    #[test]
    fn the_error_names_the_side_that_failed() {
        let (ours, _peer) = pair();
        let directory = File::open(".").unwrap();
        assert_eq!(send_file(ours.as_fd(), directory.as_fd(), 0, 10), Err(Stopped::File));
        let file = file(b"0123456789");
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(send(ours.as_fd(), b"x", false), Err(Stopped::Peer));
        assert_eq!(send_file(ours.as_fd(), file.as_fd(), 0, 10), Err(Stopped::Peer));
    }
}

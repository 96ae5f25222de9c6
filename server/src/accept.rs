//! Accepting connections: which peers are served, how errors are classified, and how long a connection keeps its
//! place when the limit of connections is reached.
//!
//! Waiting for connections, and counting them, is the task of a frontend.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use sanserve_core::{Peer, Tick};
use sanserve_os::Listener;

use crate::failure::panic_message;
use crate::site::Site;

/// How long a connection without an exchange in progress keeps its place when the limit of connections is reached and
/// a new client waits, in milliseconds. A connection that was just accepted is about to send a request, and one whose
/// exchange has just finished may send another.
pub const IDLE_GRACE: u64 = 100;

/// How long a connection keeps its place with an incomplete head, or while it waits for the peer to close, when the
/// limit of connections is reached, no connection is idle, and a new client waits, in milliseconds.
pub const UNFINISHED_GRACE: u64 = 1_000;

/// Accepts from one listener, with pauses while the system is out of descriptors.
#[derive(Clone, Debug, Default)]
pub struct Acceptor {
    /// The last pause in milliseconds; 0 after a success.
    millis: u64,
    /// When that pause ends.
    paused_until: Tick,
    /// When an error was last logged.
    logged: Option<Tick>,
}

/// The outcome of accepting.
#[derive(Debug)]
pub enum Accepted {
    /// A connection to serve. The socket is non-blocking.
    Peer(OwnedFd, Peer),
    /// A connection that has failed already, or was refused: accept the next one immediately.
    Again,
    /// No connection is pending.
    Nobody,
    /// A resource of the system is exhausted: accept nothing for this many milliseconds, that is
    /// [until then](Acceptor::paused_until).
    Pause(u64),
}

impl Acceptor {
    const FIRST: u64 = 8;
    const LONGEST: u64 = 1_000;
    const LOG_EVERY: u64 = 5_000;

    /// Accepts one connection, if one is pending and the [verify hook](Site::welcomes) of the site agrees. Errors of
    /// the system are logged, at a limited rate.
    pub fn accept(&mut self, listener: &Listener, site: &Site, now: Tick) -> Accepted {
        match listener.accept() {
            Ok(stream) => {
                self.millis = 0;
                let (socket, peer) = stream.into_parts();
                if is_welcome(site, peer) { Accepted::Peer(socket, peer) } else { Accepted::Again }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Accepted::Nobody,
                Some(error) if is_of_one_connection(error) => Accepted::Again,
                None if error.kind() == io::ErrorKind::ConnectionAborted => Accepted::Again,
                _ => Accepted::Pause(self.pause("cannot accept connections", &error, site, now)),
            },
        }
    }

    /// Returns how many milliseconds to pause after a resource of the system was exhausted. Logs the error with
    /// `what`.
    pub fn pause(&mut self, what: &str, error: &io::Error, site: &Site, now: Tick) -> u64 {
        let (millis, is_logged) = self.next_pause(now);
        if is_logged {
            site.log().error(format_args!("{what}: {error}"));
        }
        millis
    }

    /// When the pause ends, if there is one at the time `now`.
    #[must_use]
    pub fn paused_until(&self, now: Tick) -> Option<Tick> {
        (self.paused_until > now).then_some(self.paused_until)
    }

    /// Ends the pause.
    pub fn resume(&mut self) {
        self.paused_until = Tick(0);
    }

    fn next_pause(&mut self, now: Tick) -> (u64, bool) {
        self.millis = (self.millis * 2).clamp(Self::FIRST, Self::LONGEST);
        self.paused_until = now.after(self.millis);
        let is_logged = self.logged.is_none_or(|logged| now.since(logged) >= Self::LOG_EVERY);
        if is_logged {
            self.logged = Some(now);
        }
        (self.millis, is_logged)
    }
}

/// Calls the verify hook. If the hook panics, only this peer is refused.
fn is_welcome(site: &Site, peer: Peer) -> bool {
    catch_unwind(AssertUnwindSafe(|| site.welcomes(peer))).unwrap_or_else(|panic| {
        site.log().error(format_args!("{peer:?}: verifying the peer panicked: {}", panic_message(&*panic)));
        false
    })
}

/// Whether an error of `accept(2)` concerns a single connection that has failed already, or that a firewall forbids.
/// Any other error would be repeated by the next call.
fn is_of_one_connection(error: Errno) -> bool {
    #[cfg(target_os = "linux")]
    if error == Errno::NONET {
        return true;
    }
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::TIMEDOUT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::log::Log;
    use crate::script::tests::Lines;

    #[test]
    fn a_pending_connection_is_accepted_unless_the_hook_refuses() {
        let lines = Lines::default();
        let site = |verdict: fn() -> bool| {
            Site::without_files().with_log(Log::to(lines.clone())).with_verify(move |_| verdict())
        };
        let listener = sanserve_os::bind(([127, 0, 0, 1], 0).into(), false).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::from(listener);
        let mut acceptor = Acceptor::default();
        assert!(matches!(acceptor.accept(&listener, &site(|| true), Tick(0)), Accepted::Nobody));
        let peer = TcpStream::connect(address).unwrap();
        let accepted = acceptor.accept(&listener, &site(|| true), Tick(0));
        let Accepted::Peer(_, from) = accepted else { panic!("{accepted:?}") };
        assert_eq!(from.socket_addr(), peer.local_addr().ok());
        for verdict in [|| false, || panic!("on purpose")] {
            let _peer = TcpStream::connect(address).unwrap();
            assert!(matches!(acceptor.accept(&listener, &site(verdict), Tick(0)), Accepted::Again));
        }
        drop(site(|| true));
        assert_eq!(lines.text().matches("verifying the peer panicked: on purpose").count(), 1, "{}", lines.text());
    }

    #[test]
    fn pauses_grow_and_the_log_is_rate_limited() {
        let mut acceptor = Acceptor::default();
        let mut now = Tick(0);
        let (mut pauses, mut lines) = (Vec::new(), 0);
        for _ in 0..20 {
            let (millis, is_logged) = acceptor.next_pause(now);
            pauses.push(millis);
            lines += usize::from(is_logged);
            let end = now.after(millis);
            assert_eq!(acceptor.paused_until(now), Some(end));
            now = end;
            assert_eq!(acceptor.paused_until(now), None);
        }
        assert_eq!(pauses[..9], [8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        assert_eq!(lines, 3, "at 0 s, 6 s and 11 s of {now:?}");
        acceptor.millis = 0;
        assert_eq!(acceptor.next_pause(now), (8, false));
        acceptor.resume();
        assert_eq!(acceptor.paused_until(now), None);
        assert!(is_of_one_connection(Errno::CONNABORTED) && !is_of_one_connection(Errno::MFILE));
    }
}

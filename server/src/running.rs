//! A server that runs on a thread of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use sanserve_os::ListenAddr;

use crate::lifecycle::Handle;

/// A server that runs in the background, from `Server::spawn` of a frontend. Dropping it [stops](Running::stop) it, and
/// waits until it has ended.
///
/// Do not drop it in a handler of the same server: it would wait for itself.
///
/// ```
/// use std::io;
/// use sanserve_server::Running;
///
/// /// A test with a server in the background, as `Server::spawn` returns it.
/// fn check(running: Running) -> io::Result<()> {
///     let stream = std::net::TcpStream::connect(running.local_addr())?;
///     drop(stream);
///     running.shutdown() // and wait; dropping it stops it at once
/// }
/// # let _: fn(Running) -> io::Result<()> = check;
/// ```
#[must_use = "dropping it stops the server"]
pub struct Running {
    addresses: Vec<ListenAddr>,
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Calls `run` on a new thread, for a server that listens on these addresses and that `handle` shuts down. For
    /// frontends.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        addresses: Vec<ListenAddr>,
        handle: Handle,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Running> {
        let thread = thread::Builder::new().name("sanserve-run".into()).spawn(run)?;
        Ok(Running { addresses, handle, thread: Some(thread) })
    }

    /// The address that the server listens on, with its actual port; if there are several, the first.
    ///
    /// # Panics
    /// If the server listens on no IP address, only on Unix sockets. See [`addresses`](Self::addresses).
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        first_ip(&self.addresses)
    }

    /// The addresses that the server listens on.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// A handle to shut the server down, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the server has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Shuts the server down gracefully, and waits until exchanges in progress have finished, for at most the `grace` of
    /// the site. [`Handle::shutdown`] does not wait.
    ///
    /// # Errors
    /// The errors of the `run` of the server.
    pub fn shutdown(self) -> io::Result<()> {
        self.handle.shutdown();
        self.join()
    }

    /// Cuts every connection, and waits until the server has ended.
    ///
    /// # Errors
    /// As the `run` of the server.
    pub fn stop(self) -> io::Result<()> {
        self.handle.stop();
        self.join()
    }

    /// Waits until the server has ended: because of a [handle](Self::handle), or because it has failed.
    ///
    /// # Errors
    /// As the `run` of the server.
    pub fn join(mut self) -> io::Result<()> {
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}

/// The first IP address of these addresses.
///
/// # Panics
/// If there is none.
#[must_use]
#[track_caller]
pub fn first_ip(addresses: &[ListenAddr]) -> SocketAddr {
    let first = addresses.iter().find_map(ListenAddr::to_ip);
    first.expect("the server listens only on Unix sockets: see `addresses`")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        // There is no one to report a failure to.
        let _ = self.wait();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("addresses", &self.addresses)
            .field("phase", &self.handle.draining().phase())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::{Announce, Draining, Phase};

    struct Quiet;

    impl Announce for Quiet {
        fn announce(&self, _phase: Phase) {}
    }

    fn running(outcome: fn() -> io::Result<()>) -> (Running, Draining) {
        let draining = Draining::default();
        let handle = Handle::new(draining.clone(), Arc::new(Quiet));
        let ends = draining.clone();
        let address = ListenAddr::Ip(([127, 0, 0, 1], 80).into());
        let run = move || {
            ends.wait(Duration::from_secs(3_600));
            outcome()
        };
        (Running::start(vec![ListenAddr::Unnamed, address], handle, run).unwrap(), draining)
    }

    #[test]
    fn dropping_stops_and_the_others_report() {
        let (dropped, draining) = running(|| Ok(()));
        assert!(!dropped.has_ended() && dropped.local_addr().port() == 80);
        drop(dropped);
        assert_eq!(draining.phase(), Phase::Cut);
        let (failed, draining) = running(|| Err(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(failed.shutdown().unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(draining.phase(), Phase::Cut, "dropped after it has ended");
        let (panicked, _) = running(|| panic!("on purpose"));
        assert_eq!(panicked.stop().unwrap_err().to_string(), "the server panicked");
    }
}

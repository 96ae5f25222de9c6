//! The state that the threads of a server share: the site, the open connections, the connections that wait for a
//! thread, and the phase of the server.
//!
//! Listening sockets are in `accept`, and driving a connection in `driver`.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net;
use sanserve_core::{Peer, Tick};
use sanserve_os::{Clock, has_arrived};
use sanserve_server as server;
use sanserve_server::{Announce, Phase, Rank, Site, Standing};

use crate::long_steps::LongSteps;

/// How long an idle thread waits for another connection before it ends.
const IDLE_THREAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a thread that waits for a place checks again whether a connection may be closed to make room.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long drivers get to end after their connections were cut. They notice immediately, unless they are blocked in
/// a handler.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// The shared state; see the module.
pub(crate) struct Shared {
    pub(crate) site: Site,
    pub(crate) files: server::Shared,
    pub(crate) clock: Clock,
    /// Permits to continue a listing.
    pub(crate) long_steps: LongSteps,
    /// Permits to continue a large file.
    pub(crate) bulk_sends: LongSteps,
    /// Readable once the phase is beyond [`Phase::Leaving`], for waits with poll(2).
    latch: (UnixStream, UnixStream),
    registry: Mutex<Registry>,
    /// Idle threads wait here for the queue.
    work: Condvar,
    /// Threads that accept or shut down wait here for threads and connections to end.
    ended: Condvar,
    /// Counts how often connections became idle, which is the order in which they are closed to make room.
    idled: AtomicU64,
    /// A client waits for a place, so connections that become idle notify its thread.
    is_short_of_places: AtomicBool,
}

/// The connections and threads. No blocking system call is made under its lock.
#[derive(Default)]
struct Registry {
    /// All connections that were accepted and have not ended.
    live: Vec<Option<Arc<ConnHandle>>>,
    /// Free indices of `live`.
    free: Vec<usize>,
    /// Connections that wait for a thread.
    queue: VecDeque<Enrolled>,
    threads: usize,
    /// A thread accepts connections.
    listening: bool,
    /// Idle threads, which wait for the queue.
    ///
    /// Invariant: `idle <= threads`.
    idle: usize,
    /// The number of threads that wait for `ended`: if zero, it is not notified.
    awaiting: usize,
}

impl Registry {
    fn living(&self) -> usize {
        self.live.len() - self.free.len()
    }

    /// Closes a connection to make room, if more than `most` would stay and one may be closed.
    fn close_one(&self, most: usize, now: Tick) {
        let leaving = self.live.iter().flatten().filter(|live| live.leaves.load(Ordering::SeqCst)).count();
        if self.living() - leaving <= most {
            return;
        }
        // There are at most as many connections as threads, and each new client costs a thread, so checking all is
        // cheap.
        let all = self.live.iter().flatten().filter_map(|live| Some((live.standing.rank(now)?, live)));
        let mut oldest: Vec<_> = all.collect();
        oldest.sort_unstable_by_key(|(rank, _)| *rank);
        let _ = oldest.iter().any(|(rank, live)| live.leave(*rank));
    }

    /// Whether there would be a thread for another connection.
    fn has_room(&self, most: usize) -> bool {
        self.idle > self.queue.len() || self.threads < most
    }
}

/// A connection from the view of other threads.
pub(crate) struct ConnHandle {
    pub(crate) stream: OwnedFd,
    pub(crate) peer: Peer,
    /// The connection has processed the shutdown. Until then, a handler may block it.
    pub(crate) is_informed: AtomicBool,
    standing: Standing,
    /// The connection was chosen to be closed, and has not refused.
    leaves: AtomicBool,
}

impl ConnHandle {
    /// Records that the driver is about to block between two exchanges. The connection has been idle since `since`,
    /// and may have blocked before, because a `recv` only blocks for a moment.
    ///
    /// A shutdown does not wake it: it checks the phase by itself, see [`enter`](Shared::enter).
    pub(crate) fn became_idle(&self, since: Tick, shared: &Shared) {
        self.standing.idles(since, shared.idled.fetch_add(1, Ordering::Relaxed));
        // No wake-up is missed, because a thread that needs a place sets the flag before it checks for idle
        // connections.
        if shared.is_short_of_places.load(Ordering::SeqCst) {
            let _lock = shared.lock();
            shared.ended.notify_all();
        }
    }

    /// Records that the driver is about to block for a peer that has been slow since `since`, in a connection without
    /// an exchange.
    pub(crate) fn became_unfinished(&self, since: Tick) {
        self.standing.is_unfinished(since);
    }

    /// Records that the connection is busy. Returns whether its reading side was shut down, so that it is closed to
    /// make room for another.
    pub(crate) fn became_busy(&self) -> bool {
        self.standing.is_busy()
    }

    /// Records that it is not closed for now, because bytes of its peer have arrived.
    pub(crate) fn stay(&self) {
        self.leaves.store(false, Ordering::SeqCst);
    }

    /// Closes the connection to make room, if its rank is still the same and no request has arrived.
    fn leave(&self, rank: Rank) -> bool {
        if has_arrived(self.stream.as_fd()) {
            return false;
        }
        let leaves = self.standing.leave(rank);
        if leaves {
            self.leaves.store(true, Ordering::SeqCst);
            // Bytes that arrive at this moment can still be read, and are answered.
            let _ = net::shutdown(&self.stream, net::Shutdown::Read);
        }
        leaves
    }

    /// This wakes a driver that is blocked, and one that is not yet will not block.
    fn cut(&self) {
        let _ = net::shutdown(&self.stream, net::Shutdown::Both);
    }
}

/// A connection in the registry, which is removed on drop.
pub(crate) struct Enrolled {
    pub(crate) live: Arc<ConnHandle>,
    at: usize,
    shared: Arc<Shared>,
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut registry = self.shared.lock();
        registry.live[self.at] = None;
        registry.free.push(self.at);
        self.shared.notify_ended(&registry);
        // `live` is dropped after the lock, and with it the socket.
    }
}

/// A thread that was counted when it was started, until it ends in any way.
pub(crate) struct CountedThread<'s>(pub(crate) &'s Shared);

impl Drop for CountedThread<'_> {
    fn drop(&mut self) {
        let mut registry = self.0.lock();
        registry.threads -= 1;
        self.0.notify_ended(&registry);
    }
}

impl Shared {
    pub(crate) fn new(site: Site) -> io::Result<Shared> {
        Ok(Shared {
            files: server::Shared::new(Arc::clone(site.root()), site.cache().clone()),
            site,
            clock: Clock::start(),
            long_steps: LongSteps::new(),
            bulk_sends: LongSteps::to_send(),
            latch: UnixStream::pair()?,
            registry: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            idled: AtomicU64::new(0),
            is_short_of_places: AtomicBool::new(false),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.site.draining().phase()
    }

    /// Enters `phase`, unless it was reached already.
    pub(crate) fn enter(&self, phase: Phase) {
        self.site.draining().enter(phase);
        self.announce(phase);
    }

    /// Readable once the phase is beyond [`Phase::Leaving`].
    pub(crate) fn latch(&self) -> &UnixStream {
        &self.latch.1
    }

    /// Adds a connection to the registry. `None`: all connections are cut, including this one.
    ///
    /// The phase is read under the lock, and a cut takes the lock after the phase has changed: a connection is either
    /// refused here, or found by the cut.
    pub(crate) fn enroll(self: &Arc<Shared>, stream: OwnedFd, peer: Peer) -> Option<Enrolled> {
        let live = Arc::new(ConnHandle {
            stream,
            peer,
            is_informed: AtomicBool::new(false),
            standing: Standing::default(),
            leaves: AtomicBool::new(false),
        });
        let mut registry = self.lock();
        if self.phase() == Phase::Cut {
            return None;
        }
        let at = registry.free.pop().unwrap_or_else(|| {
            registry.live.push(None);
            registry.live.len() - 1
        });
        registry.live[at] = Some(Arc::clone(&live));
        Some(Enrolled { live, at, shared: Arc::clone(self) })
    }

    /// Waits until there would be a thread for another connection among `most`. To make room, the connection that has
    /// been idle for longest is closed, or, if none is idle, one that is
    /// [unfinished](sanserve_core::Connection::unfinished_since). `false`: the server shuts down, and there is no
    /// room in time.
    pub(crate) fn make_room(&self, most: usize) -> bool {
        let serving = || self.phase() < Phase::Draining;
        let mut until = None;
        let mut is_over = |registry: &Registry| {
            let mut is_late = || *until.get_or_insert_with(|| Instant::now() + self.listens_on()) <= Instant::now();
            registry.has_room(most) || self.phase() == Phase::Cut || (!serving() && is_late())
        };
        let mut registry = self.lock();
        if !is_over(&registry) {
            self.is_short_of_places.store(true, Ordering::SeqCst);
            while !is_over(&registry) {
                registry.close_one(most, self.clock.tick());
                // The connection is about to close, or has an exchange in progress after all; or none could be
                // closed, and each one that becomes idle from now on notifies this thread.
                registry.awaiting += 1;
                registry = self.ended.wait_timeout(registry, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
                registry.awaiting -= 1;
            }
            self.is_short_of_places.store(false, Ordering::SeqCst);
        }
        registry.has_room(most) && self.phase() < Phase::Cut
    }

    /// How long pending connections are accepted when the server shuts down.
    pub(crate) fn listens_on(&self) -> Duration {
        self.site.config().timeouts.drain_silence()
    }

    /// Queues a connection for an idle thread. `true`: there was none, and the caller must start one, which is
    /// counted already.
    pub(crate) fn queue(&self, enrolled: Enrolled) -> bool {
        let mut registry = self.lock();
        registry.queue.push_back(enrolled);
        let is_taken = registry.queue.len() <= registry.idle;
        if !is_taken {
            registry.threads += 1;
        }
        // Notified after the lock is released: the thread that wakes up would have to wait for it.
        drop(registry);
        if is_taken {
            self.work.notify_one();
        }
        !is_taken
    }

    /// Waits for a while after a thread could not be started. Returns whether to try again: not if a thread that
    /// became idle has taken the connection, or if the server shuts down.
    pub(crate) fn wait_for_thread(&self, pause: Duration) -> bool {
        let settled = |registry: &Registry| registry.queue.len() <= registry.idle || self.phase() >= Phase::Draining;
        let mut registry = self.lock();
        registry.threads -= 1;
        let mut registry = self.await_ended(registry, Some(pause), settled);
        if settled(&registry) {
            return false;
        }
        registry.threads += 1;
        true
    }

    /// Returns a connection for an idle thread. `None`: the thread must end. The thread counts until its
    /// [`CountedThread`] is dropped.
    pub(crate) fn next_work(&self) -> Option<Enrolled> {
        let mut registry = self.lock();
        let since = Instant::now();
        loop {
            if let Some(enrolled) = registry.queue.pop_front() {
                return Some(enrolled);
            }
            let left = IDLE_THREAD_TIMEOUT.saturating_sub(since.elapsed());
            if self.phase() >= Phase::Draining || left.is_zero() {
                return None;
            }
            registry.idle += 1;
            self.notify_ended(&registry);
            registry = self.work.wait_timeout(registry, left).unwrap_or_else(PoisonError::into_inner).0;
            registry.idle -= 1;
        }
    }

    /// Records that a thread accepts connections from here on, until [`stop_listening`](Self::stop_listening).
    pub(crate) fn listen(&self) {
        self.lock().listening = true;
    }

    /// Blocks until the server shuts down.
    pub(crate) fn wait_for_end(&self) {
        drop(self.await_ended(self.lock(), None, |_| self.phase() >= Phase::Draining));
    }

    /// Records that the listener is closed: no connection is added any more.
    pub(crate) fn stop_listening(&self) {
        let mut registry = self.lock();
        registry.listening = false;
        self.notify_ended(&registry);
    }

    /// Waits until all connections have ended: idle ones end immediately, the others when their exchange is finished
    /// or the grace has passed.
    pub(crate) fn close_down(&self) {
        debug_assert!(self.phase() >= Phase::Draining);
        let mut registry = self.lock();
        let has_none = registry.threads == 0 && !registry.listening;
        let orphans = if has_none { std::mem::take(&mut registry.queue) } else { VecDeque::new() };
        drop(registry);
        drop(orphans);

        let gone = |registry: &Registry| registry.living() == 0 && registry.threads == 0 && !registry.listening;
        let cutting = || self.phase() == Phase::Cut;
        let registry = self.await_ended(self.lock(), Some(self.site.grace()), |registry| gone(registry) || cutting());
        if gone(&registry) {
            return;
        }
        self.site.cut(registry.living());
        for live in registry.live.iter().flatten() {
            live.cut();
        }
        let registry = self.await_ended(registry, Some(AFTER_CUT), gone);
        if registry.living() > 0 {
            self.site.log().error(format_args!("{} connections are stuck in a handler", registry.living()));
        }
    }

    fn notify_ended(&self, registry: &Registry) {
        if registry.awaiting > 0 {
            self.ended.notify_all();
        }
    }

    /// Waits until `over` holds, checking whenever a connection or thread has ended, or until `until`.
    fn await_ended<'r>(
        &self,
        mut registry: MutexGuard<'r, Registry>,
        most: Option<Duration>,
        over: impl Fn(&Registry) -> bool,
    ) -> MutexGuard<'r, Registry> {
        let since = Instant::now();
        registry.awaiting += 1;
        while !over(&registry) {
            registry = match most.map(|most| most.saturating_sub(since.elapsed())) {
                None => self.ended.wait(registry).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => self.ended.wait_timeout(registry, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        registry.awaiting -= 1;
        registry
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // No change can panic in the middle.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announce for Shared {
    /// Wakes the threads that accept or wait: those that block in `recv` check the phase themselves within
    /// [`RecvTimeout::BLIND`](crate::recv_timeout::RecvTimeout::BLIND), and all others see the latch. Cut connections
    /// are woken wherever they block.
    fn announce(&self, phase: Phase) {
        if phase == Phase::Leaving {
            return;
        }
        // A second shutdown of the latch has no effect.
        let _ = self.latch.0.shutdown(Shutdown::Write);
        // The lock is held so that no thread can be between reading the phase and beginning to wait.
        let registry = self.lock();
        if phase == Phase::Cut {
            registry.live.iter().flatten().for_each(|live| live.cut());
        }
        self.work.notify_all();
        self.ended.notify_all();
    }

    fn uninformed(&self) -> usize {
        self.lock().live.iter().flatten().filter(|live| !live.is_informed.load(Ordering::SeqCst)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    fn shared() -> Arc<Shared> {
        let site = Site::new(".").unwrap().with_log(sanserve_server::Log::quiet());
        Arc::new(Shared::new(site).unwrap())
    }

    fn enrolled(shared: &Arc<Shared>) -> (Option<Enrolled>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        (shared.enroll(stream.into(), address.into()), peer)
    }

    #[test]
    fn phases_only_advance() {
        let shared = shared();
        shared.enter(Phase::Cut);
        shared.enter(Phase::Draining);
        assert_eq!(shared.phase(), Phase::Cut);
        assert_eq!(shared.latch().read(&mut [0]).unwrap(), 0, "the latch is open");
        assert!(enrolled(&shared).0.is_none());
        assert!(!shared.make_room(1));
    }

    #[test]
    fn connections_are_accepted_until_all_are_cut() {
        let shared = shared();
        shared.enter(Phase::Draining);
        assert!(enrolled(&shared).0.is_some());
        shared.enter(Phase::Cut);
        assert!(enrolled(&shared).0.is_none());
    }

    #[test]
    fn an_idle_thread_is_used_before_another_is_started() {
        let shared = shared();
        let (first, _one) = enrolled(&shared);
        assert!(shared.make_room(1));
        assert!(shared.queue(first.unwrap()), "there is no thread yet");
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let _employment = CountedThread(&shared);
                std::iter::from_fn(|| shared.next_work()).count()
            })
        };
        // There is room when the first connection has ended and its thread is idle.
        assert!(shared.make_room(1));
        let (second, _two) = enrolled(&shared);
        assert!(!shared.queue(second.unwrap()));
        assert!(shared.make_room(1));
        shared.enter(Phase::Draining);
        shared.close_down();
        assert_eq!(worker.join().unwrap(), 2);
        assert_eq!(shared.lock().living(), 0);
    }

    /// The connection that has been idle for longest is closed first, unless bytes have arrived.
    #[test]
    fn the_longest_idle_is_closed_to_make_room() {
        use std::io::Write;
        let shared = shared();
        let all: Vec<_> = (0..4).map(|_| enrolled(&shared)).collect();
        let live = |n: usize| &all[n].0.as_ref().unwrap().live;
        let asked = || {
            shared.lock().close_one(3, Tick(1 << 40));
            (0..4).for_each(|n| live(n).stay());
            (0..4).find(|&n| live(n).became_busy())
        };
        assert_eq!(asked(), None, "all connections are busy");
        for n in [2, 1, 3] {
            live(n).became_idle(Tick(7), &shared);
        }
        live(0).became_unfinished(Tick(0));
        (&all[2].1).write_all(b"GET /").unwrap();
        while !has_arrived(live(2).stream.as_fd()) {
            thread::yield_now();
        }
        shared.lock().close_one(3, Tick(1 << 40));
        shared.lock().close_one(3, Tick(1 << 40));
        live(1).stay();
        assert_eq!([0, 1, 2, 3].map(|n| live(n).became_busy()), [false, true, false, false]);
        live(0).became_unfinished(Tick((1 << 40) - 500));
        assert_eq!(asked(), None, "the grace has not passed");
        live(0).became_unfinished(Tick((1 << 40) - 1_000));
        assert_eq!(asked(), Some(0));
    }

    #[test]
    fn a_connection_without_a_thread_is_retried_and_dropped_at_the_end() {
        let shared = shared();
        let (only, mut peer) = enrolled(&shared);
        assert!(shared.queue(only.unwrap()));
        assert!(shared.wait_for_thread(Duration::from_millis(1)));
        shared.enter(Phase::Draining);
        assert!(!shared.wait_for_thread(Duration::from_secs(3_600)));
        shared.close_down();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

//! What the threads of one server have in common: the site, the connections that live, the
//! connections that wait for a thread, and the phase that ends them all.
//!
//! What it leaves out: sockets to listen on (`accept`) and what is done with a connection (`driver`).

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sanserve_core::{Peer, Tick};
use sanserve_os::{Clock, has_arrived};
use sanserve_server as server;
use sanserve_server::{Announce, Phase, Rank, Site, Standing};

use crate::long_steps::LongSteps;

/// How long a thread without work waits for another connection before it ends.
const UNEMPLOYED: Duration = Duration::from_secs(10);

/// After so long, whoever waits for a place looks again who could be closed to make room.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long drivers are waited for after their connections were cut. They notice at once, unless a
/// handler holds them.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Shared {
    pub(crate) site: Site,
    pub(crate) files: server::Shared,
    pub(crate) clock: Clock,
    pub(crate) long_steps: LongSteps,
    /// Readable from the moment the phase is beyond [`Phase::Leaving`]: for those who wait with poll(2).
    latch: (UnixStream, UnixStream),
    registry: Mutex<Registry>,
    /// Threads without work wait here for the queue.
    work: Condvar,
    /// Whoever accepts or closes down waits here for threads and connections to end.
    ended: Condvar,
    /// Counts how often connections became idle, which is the order in which they are closed to make room.
    idled: AtomicU64,
    /// A client waits for a place: whoever becomes idle is to say so.
    hungry: AtomicBool,
}

/// Who is there. No system call that could wait is made under its lock.
#[derive(Default)]
struct Registry {
    /// Every connection that was accepted and has not ended.
    live: Vec<Option<Arc<ConnHandle>>>,
    /// Where there is room in `live`.
    free: Vec<usize>,
    /// Connections that no thread has taken yet.
    queue: VecDeque<Enrolled>,
    threads: usize,
    /// Somebody accepts.
    listening: bool,
    /// Threads that wait for the queue.
    ///
    /// Invariant: `idle <= threads`.
    idle: usize,
    /// Threads that wait for `ended`: without any, nobody is told.
    awaiting: usize,
}

impl Registry {
    fn living(&self) -> usize {
        self.live.len() - self.free.len()
    }

    /// Has one give way that could go, if there are more than `most` that stay.
    fn let_one_go(&self, most: usize, now: Tick) {
        let leaving = self.live.iter().flatten().filter(|live| live.leaves.load(Ordering::SeqCst)).count();
        if self.living() - leaving <= most {
            return;
        }
        // There are as many as threads at most, and each new client costs one of those: looking at all is cheap.
        let all = self.live.iter().flatten().filter_map(|live| Some((live.standing.rank(now)?, live)));
        let mut oldest: Vec<_> = all.collect();
        oldest.sort_unstable_by_key(|(rank, _)| *rank);
        let _ = oldest.iter().any(|(rank, live)| live.leave(*rank));
    }

    /// Whether another connection would have a thread.
    fn has_room(&self, most: usize) -> bool {
        self.idle > self.queue.len() || self.threads < most
    }
}

/// One connection, as others see it.
pub(crate) struct ConnHandle {
    pub(crate) stream: TcpStream,
    pub(crate) peer: Peer,
    /// It was told that the server goes down. Until then, a handler holds it that waits by itself.
    pub(crate) is_told: AtomicBool,
    standing: Standing,
    /// It was told to be closed to make room, and has not said that it does not.
    leaves: AtomicBool,
}

impl ConnHandle {
    /// Says that its driver is about to block between two exchanges. It has been idle since then, and may have blocked
    /// before: whoever blocks in `recv` does so for a moment only.
    ///
    /// Whoever drains does not wake it: it looks for itself, see [`enter`](Shared::enter).
    pub(crate) fn lie_down(&self, since: Tick, shared: &Shared) {
        self.standing.idles(since, shared.idled.fetch_add(1, Ordering::Relaxed));
        // None is missed: whoever needs a place says so and then looks who is idle.
        if shared.hungry.load(Ordering::SeqCst) {
            let _lock = shared.lock();
            shared.ended.notify_all();
        }
    }

    /// Says that its driver is about to block for a peer that has been so slow since then, and that owes and is owed
    /// nothing.
    pub(crate) fn linger(&self, since: Tick) {
        self.standing.is_unfinished(since);
    }

    /// Says that it is busy again, and whether the reading side was shut, so that it is closed to make room for another.
    pub(crate) fn get_up(&self) -> bool {
        self.standing.is_busy()
    }

    /// It is not closed for now: there was something of its peer.
    pub(crate) fn stay(&self) {
        self.leaves.store(false, Ordering::SeqCst);
    }

    /// Has it give way, if it still is as it was. One on which a request has arrived does not.
    fn leave(&self, rank: Rank) -> bool {
        if has_arrived(self.stream.as_fd()) {
            return false;
        }
        let leaves = self.standing.leave(rank);
        if leaves {
            self.leaves.store(true, Ordering::SeqCst);
            // What arrives at this very moment can still be read, and is answered.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        leaves
    }

    /// A driver that blocks is woken by this, and one that does not block yet will not.
    fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A connection that is in the registry for as long as this lives.
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
        self.shared.tell_ended(&registry);
        // `live` goes after the lock, and with it the socket.
    }
}

/// A thread that was counted when it was started, until it ends in whatever way.
pub(crate) struct Employment<'s>(pub(crate) &'s Shared);

impl Drop for Employment<'_> {
    fn drop(&mut self) {
        let mut registry = self.0.lock();
        registry.threads -= 1;
        self.0.tell_ended(&registry);
    }
}

impl Shared {
    pub(crate) fn new(site: Site) -> io::Result<Shared> {
        Ok(Shared {
            files: server::Shared::new(Arc::clone(site.root()), site.cache().clone()),
            site,
            clock: Clock::start(),
            long_steps: LongSteps::new(),
            latch: UnixStream::pair()?,
            registry: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            idled: AtomicU64::new(0),
            hungry: AtomicBool::new(false),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.site.draining().phase()
    }

    /// Goes on to `phase`, if it is not there yet.
    pub(crate) fn enter(&self, phase: Phase) {
        self.site.draining().enter(phase);
        self.announce(phase);
    }

    /// Readable from the moment the phase is beyond [`Phase::Leaving`].
    pub(crate) fn latch(&self) -> &UnixStream {
        &self.latch.1
    }

    /// Adds a connection to the registry. `None`: every connection is cut, and so is this one.
    ///
    /// The phase is read under the lock, and whoever cuts takes the lock after the phase has changed: a connection
    /// is refused, or is found by it.
    pub(crate) fn enroll(self: &Arc<Shared>, stream: TcpStream, peer: Peer) -> Option<Enrolled> {
        let live = Arc::new(ConnHandle {
            stream,
            peer,
            is_told: AtomicBool::new(false),
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

    /// Waits until another connection would have a thread among `most`. For that, the one gives way that has been
    /// idle for longest; where none is, one that is [unfinished](sanserve_core::Connection::unfinished_since).
    /// `false`: the server goes down, and there is no room in time.
    pub(crate) fn make_room(&self, most: usize) -> bool {
        let serving = || self.phase() < Phase::Draining;
        let mut until = None;
        let mut is_over = |registry: &Registry| {
            let mut is_late = || *until.get_or_insert_with(|| Instant::now() + self.listens_on()) <= Instant::now();
            registry.has_room(most) || self.phase() == Phase::Cut || (!serving() && is_late())
        };
        let mut registry = self.lock();
        if !is_over(&registry) {
            self.hungry.store(true, Ordering::SeqCst);
            while !is_over(&registry) {
                registry.let_one_go(most, self.clock.tick());
                // It has gone in a moment, or has an exchange in progress after all; or nobody could go, and each one that is
                // idle from now on says so.
                registry.awaiting += 1;
                registry = self.ended.wait_timeout(registry, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
                registry.awaiting -= 1;
            }
            self.hungry.store(false, Ordering::SeqCst);
        }
        registry.has_room(most) && self.phase() < Phase::Cut
    }

    /// How long a listener is emptied when the server goes down: whoever has connected by then is let in.
    pub(crate) fn listens_on(&self) -> Duration {
        self.site.config().timeouts.drain_silence()
    }

    /// Leaves a connection to a thread that has no work. `true`: there was none, and the caller is to
    /// start one, which is counted already.
    pub(crate) fn queue(&self, enrolled: Enrolled) -> bool {
        let mut registry = self.lock();
        registry.queue.push_back(enrolled);
        if registry.queue.len() <= registry.idle {
            self.work.notify_one();
            return false;
        }
        registry.threads += 1;
        true
    }

    /// No thread could be started. Waits for a while, and says whether to try again: not if one that
    /// became free has taken the connection, or if the server goes down.
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

    /// A connection for a thread that has no work; `None`: it is to end. It counts until its
    /// [`Employment`] does.
    pub(crate) fn next_work(&self) -> Option<Enrolled> {
        let mut registry = self.lock();
        let since = Instant::now();
        loop {
            if let Some(enrolled) = registry.queue.pop_front() {
                return Some(enrolled);
            }
            let left = UNEMPLOYED.saturating_sub(since.elapsed());
            if self.phase() >= Phase::Draining || left.is_zero() {
                return None;
            }
            registry.idle += 1;
            self.tell_ended(&registry);
            registry = self.work.wait_timeout(registry, left).unwrap_or_else(PoisonError::into_inner).0;
            registry.idle -= 1;
        }
    }

    /// Somebody accepts from here on, until [`stop_listening`](Self::stop_listening).
    pub(crate) fn listen(&self) {
        self.lock().listening = true;
    }

    /// Blocks until the server is to go down.
    pub(crate) fn wait_for_end(&self) {
        drop(self.await_ended(self.lock(), None, |_| self.phase() >= Phase::Draining));
    }

    /// The listener is let go: nothing is enrolled any more.
    pub(crate) fn stop_listening(&self) {
        let mut registry = self.lock();
        registry.listening = false;
        self.tell_ended(&registry);
    }

    /// Waits until all connections have ended: those with nothing to read at once, the others when their exchange
    /// is finished or the grace is over.
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

    fn tell_ended(&self, registry: &Registry) {
        if registry.awaiting > 0 {
            self.ended.notify_all();
        }
    }

    /// Waits until it is `over`, looking whenever something has ended, or until the time is.
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
        // Nothing panics halfway through a change.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announce for Shared {
    /// Tells whoever accepts and whoever waits: those who block in `recv` look at the phase themselves within
    /// [`RecvTimeout::BLIND`](crate::recv_timeout::RecvTimeout::BLIND), all others see the latch. Cut connections are woken wherever
    /// they block.
    fn announce(&self, phase: Phase) {
        if phase == Phase::Leaving {
            return;
        }
        // A second time changes nothing.
        let _ = self.latch.0.shutdown(Shutdown::Write);
        // With the lock, nobody is between looking at the phase and beginning to wait.
        let registry = self.lock();
        if phase == Phase::Cut {
            registry.live.iter().flatten().for_each(|live| live.cut());
        }
        self.work.notify_all();
        self.ended.notify_all();
    }

    fn not_told(&self) -> usize {
        self.lock().live.iter().flatten().filter(|live| !live.is_told.load(Ordering::SeqCst)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
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
        (shared.enroll(stream, address.into()), peer)
    }

    #[test]
    fn a_phase_never_goes_back() {
        let shared = shared();
        shared.enter(Phase::Cut);
        shared.enter(Phase::Draining);
        assert_eq!(shared.phase(), Phase::Cut);
        assert_eq!(shared.latch().read(&mut [0]).unwrap(), 0, "the latch is open");
        assert!(enrolled(&shared).0.is_none());
        assert!(!shared.make_room(1));
    }

    #[test]
    fn who_has_connected_is_let_in_until_all_are_cut() {
        let shared = shared();
        shared.enter(Phase::Draining);
        assert!(enrolled(&shared).0.is_some());
        shared.enter(Phase::Cut);
        assert!(enrolled(&shared).0.is_none());
    }

    #[test]
    fn a_thread_without_work_is_used_before_another_is_started() {
        let shared = shared();
        let (first, _one) = enrolled(&shared);
        assert!(shared.make_room(1));
        assert!(shared.queue(first.unwrap()), "there is none yet");
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let _employment = Employment(&shared);
                std::iter::from_fn(|| shared.next_work()).count()
            })
        };
        // Room comes when the first has ended and its thread has none.
        assert!(shared.make_room(1));
        let (second, _two) = enrolled(&shared);
        assert!(!shared.queue(second.unwrap()));
        assert!(shared.make_room(1));
        shared.enter(Phase::Draining);
        shared.close_down();
        assert_eq!(worker.join().unwrap(), 2);
        assert_eq!(shared.lock().living(), 0);
    }

    /// Who is idle for longest goes first, but not if something has arrived.
    #[test]
    fn the_one_that_has_been_idle_for_longest_gives_way() {
        use std::io::Write;
        let shared = shared();
        let all: Vec<_> = (0..4).map(|_| enrolled(&shared)).collect();
        let live = |n: usize| &all[n].0.as_ref().unwrap().live;
        let asked = || {
            shared.lock().let_one_go(3, Tick(1 << 40));
            (0..4).for_each(|n| live(n).stay());
            (0..4).find(|&n| live(n).get_up())
        };
        assert_eq!(asked(), None, "all are busy");
        for n in [2, 1, 3] {
            live(n).lie_down(Tick(7), &shared);
        }
        live(0).linger(Tick(0));
        (&all[2].1).write_all(b"GET /").unwrap();
        while !has_arrived(live(2).stream.as_fd()) {
            thread::yield_now();
        }
        shared.lock().let_one_go(3, Tick(1 << 40));
        shared.lock().let_one_go(3, Tick(1 << 40));
        live(1).stay();
        assert_eq!([0, 1, 2, 3].map(|n| live(n).get_up()), [false, true, false, false]);
        live(0).linger(Tick((1 << 40) - 500));
        assert_eq!(asked(), None, "its request may be complete in a moment");
        live(0).linger(Tick((1 << 40) - 1_000));
        assert_eq!(asked(), Some(0));
    }

    #[test]
    fn what_no_thread_could_be_started_for_is_tried_again_and_dropped_at_the_end() {
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

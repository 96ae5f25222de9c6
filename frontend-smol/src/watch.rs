//! Waking connections for deadlines and for a shutdown.
//!
//! A timer per wait would cost a lock and a call of the reactor for each request. Instead, deadlines are lazy: a
//! connection has one entry in a heap, which stays when the deadline moves later, as it does with each request. When
//! the entry is due, the connection is woken, finds that its deadline is later, and enters that. One future,
//! [`Watch::keep`], sleeps until the first entry is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use async_io::Timer;
use sanserve_core::Tick;
use sanserve_os::Clock;
use sanserve_server::{Announce, Phase, Rank, Standing};

/// How late a deadline may be in milliseconds, so that one wake-up serves many.
const SLACK: u64 = 10;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    connections: AtomicUsize,
    /// The number of connections that have switched to another protocol, and whose hooks have not returned.
    upgraded: AtomicUsize,
    registry: Mutex<Registry>,
    /// Counts how often connections became idle, which is the order in which they are closed to make room.
    idled: AtomicU64,
    /// The number of connections that were chosen to be closed, and have neither ended nor refused.
    leaving: AtomicUsize,
}

/// Everything that can be woken.
///
/// Invariant: for each entry that is armed, `due` has the element `(armed, its index)`; all other elements are stale,
/// and there are at most about as many of them as entries.
#[derive(Debug, Default)]
struct Registry {
    /// One entry per connection, at the index in its [`DeadlineHandle`].
    entries: Vec<DeadlineEntry>,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<(Tick, u32)>>,
    /// The waker of the future that accepts, watches deadlines and waits for the end.
    server: Option<Waker>,
    /// The connections to close first, in reverse order, as of the last complete check.
    oldest: Vec<(Rank, u32)>,
}

/// How many of them are remembered, so that not all connections are checked each time.
const OLDEST: usize = 64;

#[derive(Debug, Default)]
struct DeadlineEntry {
    waker: Option<Waker>,
    /// The deadline that is in the heap.
    armed: Option<Tick>,
    standing: Arc<Standing>,
}

impl Watch {
    /// The number of connections that have not ended.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The number of connections that count against the limit: those that have not ended, and those that have switched
    /// to another protocol.
    pub(crate) fn taken(&self) -> usize {
        self.connections() + self.upgraded.load(Ordering::SeqCst)
    }

    /// Waits until `condition` holds. It is checked when the phase has changed and when a connection has ended. Only
    /// for the one task that serves.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        poll_fn(|cx| {
            self.set_server(cx.waker());
            if condition() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Chooses a connection to be closed, if more than `most` would stay: the one that has been idle for longest, or
    /// one that has been unfinished for too long. `false`: there is none, or one was chosen already.
    pub(crate) fn close_one(&self, most: usize, now: Tick) -> bool {
        if self.taken() <= most + self.leaving.load(Ordering::SeqCst) {
            return false;
        }
        // Counted before the connection notices.
        self.leaving.fetch_add(1, Ordering::SeqCst);
        let waker = self.registry().close_one(now);
        let is_found = waker.is_some();
        if !is_found {
            self.leaving.fetch_sub(1, Ordering::SeqCst);
        }
        waker.into_iter().for_each(Waker::wake);
        is_found
    }

    /// Wakes connections whose deadline is due, for ever. Only for the one task that serves.
    pub(crate) async fn keep(&self, clock: Clock) {
        let mut timer = Timer::never();
        let mut set_for = None;
        poll_fn(|cx| {
            loop {
                self.set_server(cx.waker());
                let now = clock.tick();
                let next = self.wake_due(now);
                if next != set_for {
                    set_for = next;
                    match next {
                        Some(next) => timer.set_after(Duration::from_millis(next.since(now).saturating_add(SLACK))),
                        None => timer = Timer::never(),
                    }
                }
                ready!(Pin::new(&mut timer).poll(cx));
                set_for = None;
            }
        })
        .await
    }

    /// Sets the waker of the task that serves.
    fn set_server(&self, waker: &Waker) {
        let server = &mut self.registry().server;
        if !server.as_ref().is_some_and(|server| server.will_wake(waker)) {
            *server = Some(waker.clone());
        }
    }

    /// Wakes the connections whose deadlines are due, and returns the next deadline.
    fn wake_due(&self, now: Tick) -> Option<Tick> {
        let mut wakers = Vec::new();
        let mut registry = self.registry();
        let next = loop {
            match registry.due.peek() {
                Some(&Reverse((tick, at))) if tick <= now => {
                    registry.due.pop();
                    wakers.extend(registry.entries[at as usize].expire(tick));
                }
                next => break next.map(|Reverse((tick, _))| *tick),
            }
        };
        drop(registry);
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announce for Watch {
    /// Wakes all connections.
    fn announce(&self, _phase: Phase) {
        let mut registry = self.registry();
        let mut wakers: Vec<_> = registry.entries.iter().filter_map(|chair| chair.waker.clone()).collect();
        wakers.extend(registry.server.take());
        drop(registry);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Registry {
    fn close_one(&mut self, now: Tick) -> Option<Waker> {
        for is_new in [false, true] {
            if is_new {
                self.oldest = self.oldest(now);
            }
            while let Some((rank, at)) = self.oldest.pop() {
                if !is_new && !rank.is_idle() {
                    // Other connections may be idle by now.
                    break;
                }
                let chair = &self.entries[at as usize];
                let waker = chair.waker.clone().filter(|_| chair.standing.leave(rank));
                if waker.is_some() {
                    return waker;
                }
            }
        }
        None
    }

    /// Some of the connections that may be closed now, the first one last.
    fn oldest(&self, now: Tick) -> Vec<(Rank, u32)> {
        let all = self.entries.iter().zip(0..).filter_map(|(chair, at)| Some((chair.standing.rank(now)?, at)));
        let mut oldest: Vec<(Rank, u32)> = Vec::with_capacity(2 * OLDEST);
        for found in all {
            oldest.push(found);
            if oldest.len() == 2 * OLDEST {
                oldest.select_nth_unstable(OLDEST);
                oldest.truncate(OLDEST);
            }
        }
        oldest.sort_unstable_by(|a, b| b.cmp(a));
        let first = oldest.len().saturating_sub(OLDEST);
        oldest.drain(..first);
        oldest
    }

    fn arm(&mut self, at: u32, deadline: Tick) -> Option<Waker> {
        self.entries[at as usize].armed = Some(deadline);
        if self.due.len() > 64 + 2 * self.entries.len() {
            let entries = &self.entries;
            self.due.retain(|Reverse((tick, at))| entries[*at as usize].armed == Some(*tick));
        }
        let first = self.due.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        self.due.push(Reverse((deadline, at)));
        if first { self.server.clone() } else { None }
    }
}

impl DeadlineEntry {
    /// Handles the entry for `tick`. Returns the waker of its connection, unless it was stale.
    fn expire(&mut self, tick: Tick) -> Option<Waker> {
        if self.armed != Some(tick) {
            return None;
        }
        self.armed = None;
        self.waker.clone()
    }
}

/// No deadline.
const NEVER: Tick = Tick(u64::MAX);

/// The entry of a connection in the watch. The connection counts until this is dropped.
#[derive(Debug)]
pub(crate) struct DeadlineHandle {
    watch: Arc<Watch>,
    at: u32,
    /// The waker is set.
    has_waker: bool,
    /// The deadline entered last, which may be past. [`NEVER`]: none was entered.
    armed: Tick,
    standing: Arc<Standing>,
    /// It is counted as chosen to be closed.
    leaving: bool,
}

impl DeadlineHandle {
    pub(crate) fn take(watch: &Arc<Watch>) -> DeadlineHandle {
        let standing = Arc::<Standing>::default();
        let mut registry = watch.registry();
        let at = registry.free.pop().unwrap_or_else(|| {
            registry.entries.push(DeadlineEntry::default());
            u32::try_from(registry.entries.len() - 1).expect("fewer connections than descriptors")
        });
        registry.entries[at as usize].standing = Arc::clone(&standing);
        drop(registry);
        watch.connections.fetch_add(1, Ordering::SeqCst);
        DeadlineHandle { watch: Arc::clone(watch), at, has_waker: false, armed: NEVER, standing, leaving: false }
    }

    /// Sets the waker of the connection's task. A task always has the same waker, so this is needed once.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !mem::replace(&mut self.has_waker, true) {
            self.watch.registry().entries[self.at as usize].waker = Some(waker.clone());
        }
    }

    /// Records that the connection is idle from now on.
    pub(crate) fn idles(&mut self, now: Tick) {
        let number = self.watch.idled.fetch_add(1, Ordering::Relaxed);
        let was_leaving = self.standing.idles(now, number);
        self.stays_if(was_leaving);
    }

    /// Records that its request has been incomplete, or that it has waited for its peer to close, since `since`.
    pub(crate) fn is_unfinished(&mut self, since: Tick) {
        let was_leaving = self.standing.is_unfinished(since);
        self.stays_if(was_leaving);
    }

    /// Records that it has an exchange in progress.
    pub(crate) fn is_busy(&mut self) {
        let was_leaving = self.standing.is_busy();
        self.stays_if(was_leaving);
    }

    /// A choice made meanwhile is no longer valid.
    fn stays_if(&mut self, was_leaving: bool) {
        if was_leaving {
            self.watch.leaving.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether it was chosen to be closed; reported once.
    pub(crate) fn leaves(&mut self) -> bool {
        let leaves = self.standing.leaves();
        if leaves {
            self.standing.is_busy();
            self.leaving = true;
        }
        leaves
    }

    /// Records that it is not closed, because bytes of its peer have arrived.
    pub(crate) fn stays(&mut self) {
        if mem::take(&mut self.leaving) {
            self.watch.leaving.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Ensures that the connection is woken at `deadline` or before, but after `now`.
    pub(crate) fn arm(&mut self, deadline: Tick, now: Tick) {
        if self.armed <= now || deadline < self.armed {
            self.armed = deadline;
            let server = self.watch.registry().arm(self.at, deadline);
            server.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the entered deadline has passed; reported once.
    pub(crate) fn is_due(&mut self, now: Tick) -> bool {
        let is_due = self.armed <= now;
        if is_due {
            self.armed = NEVER;
        }
        is_due
    }
}

impl Drop for DeadlineHandle {
    fn drop(&mut self) {
        self.is_busy();
        self.stays();
        let mut registry = self.watch.registry();
        let waker = mem::take(&mut registry.entries[self.at as usize]).waker;
        registry.free.push(self.at);
        self.watch.connections.fetch_sub(1, Ordering::SeqCst);
        let server = registry.server.clone();
        drop(registry);
        // Dropped and woken without the lock, because either may run foreign code.
        drop(waker);
        server.into_iter().for_each(Waker::wake);
    }
}

/// The place of a connection that has switched to another protocol, which is given back on drop.
pub(crate) struct UpgradedPlace(Arc<Watch>);

impl UpgradedPlace {
    pub(crate) fn take(watch: &Arc<Watch>) -> UpgradedPlace {
        watch.upgraded.fetch_add(1, Ordering::SeqCst);
        UpgradedPlace(Arc::clone(watch))
    }
}

impl Drop for UpgradedPlace {
    fn drop(&mut self) {
        self.0.upgraded.fetch_sub(1, Ordering::SeqCst);
        let server = self.0.registry().server.clone();
        server.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    fn deadline(watch: &Arc<Watch>) -> (DeadlineHandle, Arc<Count>) {
        let count = Arc::new(Count::default());
        let mut deadline = DeadlineHandle::take(watch);
        deadline.set_waker(&Waker::from(Arc::clone(&count)));
        (deadline, count)
    }

    #[test]
    fn a_deadline_that_moves_later_is_free_until_it_is_due() {
        let watch = Arc::default();
        let (mut deadline, woken) = deadline(&watch);
        for now in 0..100 {
            deadline.arm(Tick(now + 100), Tick(now));
        }
        assert_eq!(watch.registry().due.len(), 1);
        assert_eq!(watch.wake_due(Tick(99)), Some(Tick(100)));
        assert_eq!(woken.take(), 0);
        assert_eq!(watch.wake_due(Tick(100)), None);
        assert_eq!(woken.take(), 1);
        deadline.arm(Tick(199), Tick(100));
        assert_eq!(watch.wake_due(Tick(150)), Some(Tick(199)));
    }

    #[test]
    fn a_deadline_that_moves_earlier_is_met() {
        let watch = Arc::default();
        let (mut deadline, woken) = deadline(&watch);
        deadline.arm(Tick(100), Tick(0));
        deadline.arm(Tick(50), Tick(1));
        assert_eq!(watch.wake_due(Tick(50)), Some(Tick(100)));
        assert_eq!(woken.take(), 1);
        assert_eq!(watch.wake_due(Tick(100)), None);
        assert_eq!(woken.take(), 0, "the later entry was stale");
    }

    #[test]
    fn connections_that_ended_are_removed() {
        let watch = Arc::default();
        for n in 0..10_000 {
            let (mut deadline, _) = deadline(&watch);
            deadline.arm(Tick(n + 15_000), Tick(n));
        }
        assert_eq!(watch.connections(), 0);
        let registry = watch.registry();
        assert_eq!(registry.entries.len(), 1);
        assert!(registry.due.len() < 100, "{}", registry.due.len());
    }

    #[test]
    fn the_longest_idle_is_closed_to_make_room() {
        let watch = Arc::default();
        let mut all: Vec<_> = (0..300).map(|_| deadline(&watch)).collect();
        let close_one = |now| watch.close_one(299, Tick(now));
        assert!(!close_one(10_000), "all connections are busy");
        let order: Vec<usize> = (0..300).map(|n| (n * 7) % 300).collect();
        order.iter().for_each(|&n| all[n].0.idles(Tick(7)));
        // These have an exchange in progress, or did.
        all[order[0]].0.is_busy();
        all[order[3]].0.is_unfinished(Tick(5));
        all[order[7]].0.idles(Tick(7));
        assert!(!close_one(106), "the grace has not passed");
        let expected = (0..300).filter(|n| ![0, 3, 7].contains(n)).chain([7, 3]).map(|n| order[n]);
        for n in expected {
            assert!(close_one(10_000));
            assert_eq!(all[n].1.take(), 1);
            assert!(!close_one(10_000), "one was chosen already");
            assert!(all[n].0.leaves() && !all[n].0.leaves());
            assert!(!close_one(10_000), "the chosen connection has not ended yet");
            all[n].0.stays();
        }
        assert!(!close_one(10_000));
        all[1].0.is_unfinished(Tick(9_500));
        assert!(!close_one(10_000), "the grace has not passed");
        assert!(close_one(10_500));
        all[1].0.is_busy();
        assert!(
            watch.leaving.load(Ordering::SeqCst) == 0 && !all[1].0.leaves(),
            "it has an exchange in progress meanwhile"
        );
    }

    #[test]
    fn waiting_tasks_are_woken_when_the_phase_changes() {
        let watch = Arc::default();
        let (_seat, woken) = deadline(&watch);
        watch.announce(Phase::Draining);
        assert_eq!(woken.take(), 1);
        watch.announce(Phase::Cut);
        assert_eq!(woken.take(), 1);
    }
}

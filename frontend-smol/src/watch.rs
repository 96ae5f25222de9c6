//! What wakes a connection beside its socket: deadlines and the end of the server.
//!
//! A timer for each wait would cost a lock and a call of the reactor with each request. Deadlines
//! here are lazy: a connection has one entry in a heap, which stays when the deadline moves later, as
//! it does with each request. When the entry is due, the connection is woken, sees that its
//! deadline is later now, and enters that one. One future, [`Watch::keep`], sleeps until the first is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use async_io::Timer;
use sanserve_core::Tick;
use sanserve_os::Clock;

/// How many milliseconds late a deadline may be, so that many are met with one wake-up.
const SLACK: u64 = 10;

/// The life of a server. It only moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Running,
    /// Each connection ends behind the exchange in hand.
    Draining,
    /// Each connection ends now.
    Cut,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    phase: AtomicU8,
    connections: AtomicUsize,
    roster: Mutex<Roster>,
}

/// Everybody who can be woken.
///
/// Invariant: for each seat that is armed, `due` has the entry `(armed, its index)`; all other entries are
/// stale, and there are at most about as many of them as seats.
#[derive(Debug, Default)]
struct Roster {
    /// A connection each, at the index that its [`Seat`] has.
    seats: Vec<Chair>,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<(Tick, u32)>>,
    /// The future that accepts, keeps deadlines and waits for the end.
    server: Option<Waker>,
}

#[derive(Debug, Default)]
struct Chair {
    waker: Option<Waker>,
    /// The deadline that is entered.
    armed: Option<Tick>,
}

impl Watch {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Cut,
        }
    }

    /// Moves on to `phase` and wakes everybody.
    pub(crate) fn announce(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::SeqCst) < phase as u8 {
            let mut roster = self.roster();
            let mut wakers: Vec<_> = roster.seats.iter().filter_map(|chair| chair.waker.clone()).collect();
            wakers.extend(roster.server.take());
            drop(roster);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Connections that have not ended.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until `condition` holds: it is looked at when the phase has changed and when a connection has
    /// ended. Only for the one task that serves.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        poll_fn(|cx| {
            self.attend(cx.waker());
            if condition() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Wakes connections whose deadline is due, for ever. Only for the one task that serves.
    pub(crate) async fn keep(&self, clock: Clock) {
        let mut timer = Timer::never();
        let mut set_for = None;
        poll_fn(|cx| {
            loop {
                self.attend(cx.waker());
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

    /// The task that serves is to be woken by this.
    fn attend(&self, waker: &Waker) {
        let server = &mut self.roster().server;
        if !server.as_ref().is_some_and(|server| server.will_wake(waker)) {
            *server = Some(waker.clone());
        }
    }

    /// Wakes whose deadline is due, and says which one is next.
    fn wake_due(&self, now: Tick) -> Option<Tick> {
        let mut wakers = Vec::new();
        let mut roster = self.roster();
        let next = loop {
            match roster.due.peek() {
                Some(&Reverse((tick, at))) if tick <= now => {
                    roster.due.pop();
                    wakers.extend(roster.seats[at as usize].expire(tick));
                }
                next => break next.map(|Reverse((tick, _))| *tick),
            }
        };
        drop(roster);
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    fn arm(&mut self, at: u32, deadline: Tick) -> Option<Waker> {
        self.seats[at as usize].armed = Some(deadline);
        if self.due.len() > 64 + 2 * self.seats.len() {
            let seats = &self.seats;
            self.due.retain(|Reverse((tick, at))| seats[*at as usize].armed == Some(*tick));
        }
        let first = self.due.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        self.due.push(Reverse((deadline, at)));
        if first { self.server.clone() } else { None }
    }
}

impl Chair {
    /// An entry for `tick` was due. Whom to wake, if it was not stale.
    fn expire(&mut self, tick: Tick) -> Option<Waker> {
        if self.armed != Some(tick) {
            return None;
        }
        self.armed = None;
        self.waker.clone()
    }
}

/// A connection's place in the watch; it counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Seat {
    watch: Arc<Watch>,
    at: u32,
    /// The waker is known.
    seated: bool,
    /// The deadline that was entered last; it may be past.
    armed: Option<Tick>,
}

impl Seat {
    pub(crate) fn take(watch: &Arc<Watch>) -> Seat {
        let mut roster = watch.roster();
        let at = roster.free.pop().unwrap_or_else(|| {
            roster.seats.push(Chair::default());
            u32::try_from(roster.seats.len() - 1).expect("fewer connections than descriptors")
        });
        drop(roster);
        watch.connections.fetch_add(1, Ordering::SeqCst);
        Seat { watch: Arc::clone(watch), at, seated: false, armed: None }
    }

    /// The connection's task is to be woken by this. A task has the same waker for all its life, so once is
    /// enough.
    pub(crate) fn sit(&mut self, waker: &Waker) {
        if !mem::replace(&mut self.seated, true) {
            self.watch.roster().seats[self.at as usize].waker = Some(waker.clone());
        }
    }

    /// Sees to it that the connection is woken at `deadline` or before, but after `now`.
    pub(crate) fn arm(&mut self, deadline: Tick, now: Tick) {
        if self.armed.is_none_or(|armed| armed <= now || deadline < armed) {
            self.armed = Some(deadline);
            let server = self.watch.roster().arm(self.at, deadline);
            server.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the deadline that was entered has passed; once.
    pub(crate) fn is_due(&mut self, now: Tick) -> bool {
        self.armed.take_if(|armed| *armed <= now).is_some()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut roster = self.watch.roster();
        let waker = mem::take(&mut roster.seats[self.at as usize]).waker;
        roster.free.push(self.at);
        self.watch.connections.fetch_sub(1, Ordering::SeqCst);
        let server = roster.server.clone();
        drop(roster);
        // Dropped and woken outside of the lock: either may run foreign code.
        drop(waker);
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

    fn seat(watch: &Arc<Watch>) -> (Seat, Arc<Count>) {
        let count = Arc::new(Count::default());
        let mut seat = Seat::take(watch);
        seat.sit(&Waker::from(Arc::clone(&count)));
        (seat, count)
    }

    #[test]
    fn a_deadline_that_moves_later_costs_nothing_until_it_is_due() {
        let watch = Arc::default();
        let (mut seat, woken) = seat(&watch);
        for now in 0..100 {
            seat.arm(Tick(now + 100), Tick(now));
        }
        assert_eq!(watch.roster().due.len(), 1);
        assert_eq!(watch.wake_due(Tick(99)), Some(Tick(100)));
        assert_eq!(woken.take(), 0);
        assert_eq!(watch.wake_due(Tick(100)), None);
        assert_eq!(woken.take(), 1);
        seat.arm(Tick(199), Tick(100));
        assert_eq!(watch.wake_due(Tick(150)), Some(Tick(199)));
    }

    #[test]
    fn one_that_moves_earlier_is_met() {
        let watch = Arc::default();
        let (mut seat, woken) = seat(&watch);
        seat.arm(Tick(100), Tick(0));
        seat.arm(Tick(50), Tick(1));
        assert_eq!(watch.wake_due(Tick(50)), Some(Tick(100)));
        assert_eq!(woken.take(), 1);
        assert_eq!(watch.wake_due(Tick(100)), None);
        assert_eq!(woken.take(), 0, "the later entry was stale");
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let watch = Arc::default();
        for n in 0..10_000 {
            let (mut seat, _) = seat(&watch);
            seat.arm(Tick(n + 15_000), Tick(n));
        }
        assert_eq!(watch.connections(), 0);
        let roster = watch.roster();
        assert_eq!(roster.seats.len(), 1);
        assert!(roster.due.len() < 100, "{}", roster.due.len());
    }

    #[test]
    fn each_phase_is_announced_once() {
        let watch = Arc::default();
        let (_seat, woken) = seat(&watch);
        for (phase, wakes) in [(Phase::Draining, 1), (Phase::Draining, 0), (Phase::Cut, 1), (Phase::Draining, 0)] {
            watch.announce(phase);
            assert_eq!(woken.take(), wakes);
        }
        assert_eq!(watch.phase(), Phase::Cut);
    }
}

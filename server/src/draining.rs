//! Telling those who wait by themselves that the server goes down.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

/// Whether a server goes down, for whoever waits for something else meanwhile: a handler that blocks, a future, a
/// connection that speaks another protocol. Clones are the same.
///
/// ```
/// use std::time::Duration;
///
/// let draining = sanserve_server::Draining::default();
/// assert!(!draining.wait(Duration::from_millis(1)));
/// let (sender, events) = std::sync::mpsc::channel();
/// // A thread that blocks on a channel is told by that channel.
/// let watch = draining.when_begun(move || drop(sender.send("the server goes down")));
/// draining.begin();
/// assert_eq!(events.recv().unwrap(), "the server goes down");
/// assert!(draining.wait(Duration::from_secs(3_600)));
/// # drop(watch);
/// ```
#[derive(Clone, Default)]
pub struct Draining(Arc<Inner>);

#[derive(Default)]
struct Inner {
    has_begun: AtomicBool,
    /// Exchanges that were in hand when it began, and still are.
    in_hand: AtomicUsize,
    waiting: Mutex<Waiting>,
    begun: Condvar,
}

type Act = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Waiting {
    acts: Vec<(u64, Act)>,
    next: u64,
}

impl Draining {
    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::SeqCst)
    }

    /// Blocks until it begins, but no longer than `most`; whether it has. What a loop that says something every
    /// second waits with.
    pub fn wait(&self, most: Duration) -> bool {
        let until = Instant::now().checked_add(most);
        let mut waiting = self.waiting();
        while !self.has_begun() {
            let left =
                until.map_or(Duration::from_secs(3_600), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            waiting = self.0.begun.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Calls `act` when it begins, or at once if it has; on whatever thread ends the server, so it must not block.
    /// When what this gives is dropped, it is not called any more.
    pub fn when_begun(&self, act: impl FnOnce() + Send + 'static) -> DrainWatch {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        if self.has_begun() {
            drop(waiting);
            act();
        } else {
            waiting.acts.push((number, Box::new(act)));
        }
        DrainWatch { draining: self.clone(), number }
    }

    /// A future that is ready when it has begun.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        Begun { draining: self.clone(), watch: None }
    }

    /// It begins. Frontends say so when they are shut down.
    pub fn begin(&self) {
        let acts = {
            let mut waiting = self.waiting();
            self.0.has_begun.store(true, Ordering::SeqCst);
            std::mem::take(&mut waiting.acts)
        };
        self.0.begun.notify_all();
        acts.into_iter().for_each(|(_, act)| act());
    }

    /// Counts an exchange that is in hand when it begins, until what this gives is dropped.
    #[must_use]
    pub fn hold(&self) -> InHand {
        self.0.in_hand.fetch_add(1, Ordering::SeqCst);
        InHand(self.clone())
    }

    /// How many exchanges were in hand when it began and still are, as far as their connections have heard of it.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.0.in_hand.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("has_begun", &self.has_begun()).finish_non_exhaustive()
    }
}

/// What was to be done by [`Draining::when_begun`] is not, once this is dropped.
#[derive(Debug)]
pub struct DrainWatch {
    draining: Draining,
    number: u64,
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        let mut waiting = self.draining.waiting();
        let at = waiting.acts.iter().position(|(number, _)| *number == self.number);
        let act = at.map(|at| waiting.acts.swap_remove(at));
        drop(waiting);
        // Outside of the lock: it may run foreign code.
        drop(act);
    }
}

/// An exchange that is in hand while the server goes down.
#[derive(Debug)]
pub struct InHand(Draining);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.0.in_hand.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Begun {
    draining: Draining,
    watch: Option<(DrainWatch, Arc<Relay>)>,
}

/// Wakes the task that has polled last.
struct Relay(Mutex<std::task::Waker>);

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Future for Begun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.watch {
            Some((_, relay)) => relay.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker()),
            None if !self.draining.has_begun() => {
                let relay = Arc::new(Relay(Mutex::new(cx.waker().clone())));
                let woken = Arc::clone(&relay);
                let watch = self.draining.when_begun(move || woken.wake());
                self.watch = Some((watch, relay));
            }
            None => {}
        }
        if self.draining.has_begun() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_told_once() {
        let draining = Draining::default();
        let told = Arc::new(AtomicUsize::new(0));
        let count = || {
            let told = Arc::clone(&told);
            move || {
                told.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kept = draining.when_begun(count());
        drop(draining.when_begun(count()));
        draining.begin();
        draining.begin();
        assert_eq!(told.load(Ordering::SeqCst), 1);
        let late = draining.when_begun(count());
        assert_eq!(told.load(Ordering::SeqCst), 2);
        drop((kept, late));
    }

    #[test]
    fn a_thread_that_waits_is_woken() {
        let draining = Draining::default();
        let waits = draining.clone();
        let thread = std::thread::spawn(move || waits.wait(Duration::from_secs(3_600)));
        draining.begin();
        assert!(thread.join().unwrap());
        assert!(draining.wait(Duration::ZERO));
    }

    #[test]
    fn exchanges_are_counted_while_they_are_held() {
        let draining = Draining::default();
        let held = [draining.hold(), draining.clone().hold()];
        assert_eq!(draining.in_hand(), 2);
        drop(held);
        assert_eq!(draining.in_hand(), 0);
    }
}

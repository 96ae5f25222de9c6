//! The phases of a server from running to its end, and how waiting code learns of a new phase.
//!
//! Each server has one [`Draining`], which holds the [`Phase`]. A [`Handle`] advances the phase, and the frontend
//! then wakes what is waiting ([`Announce`]). A connection is informed by its [`Session`](crate::Session); handlers
//! and other code that waits on its own can query the phase, or register a callback.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

/// How far a server has shut down. A phase is never left for an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The server is running.
    #[default]
    Running,
    /// The server is running, and reports at [`Config::health`](sanserve_core::Config::health) that it is about to
    /// shut down.
    Leaving,
    /// Each connection ends after the exchange in progress.
    Draining,
    /// Each connection ends now.
    Cut,
}

impl Phase {
    fn of(number: u8) -> Phase {
        match number {
            0 => Phase::Running,
            1 => Phase::Leaving,
            2 => Phase::Draining,
            _ => Phase::Cut,
        }
    }
}

/// Shuts a server down, from any thread, before or while it runs. Clones refer to the same server. No method blocks
/// until the server has ended: that is when its `run` returns.
///
/// ```
/// use sanserve_server::Handle;
///
/// /// Shuts the server down when a line is typed. `handle` is that of `Server::handle`.
/// fn until_a_line_is_typed(handle: Handle) {
///     std::thread::spawn(move || {
///         let _ = std::io::stdin().read_line(&mut String::new());
///         handle.shutdown(); // `run` returns when all requests are answered
///     });
/// }
/// # let _: fn(Handle) = until_a_line_is_typed;
/// ```
#[derive(Clone)]
pub struct Handle {
    draining: Draining,
    frontend: Arc<dyn Announce>,
}

/// What a frontend does when a new phase is entered.
pub trait Announce: Send + Sync {
    /// Wakes everything that waits. The phase is already [`Draining::phase`] by then, which may be later than
    /// `phase`.
    fn announce(&self, phase: Phase);

    /// How many connections the shutdown has not reached yet: they may have an exchange in progress, which
    /// [`Draining::in_progress`] does not count.
    fn uninformed(&self) -> usize {
        0
    }
}

impl Handle {
    /// A handle for the server that `draining` belongs to, whose frontend wakes what is waiting.
    #[must_use]
    pub fn new(draining: Draining, frontend: Arc<dyn Announce>) -> Handle {
        Handle { draining, frontend }
    }

    /// Reports at [`Config::health`](sanserve_core::Config::health) that the server is about to shut down, and
    /// continues to serve, so that a load balancer can remove it.
    pub fn leave(&self) {
        self.enter(Phase::Leaving);
    }

    /// Accepts the connections that are already pending and no others, closes idle connections, and lets exchanges in
    /// progress finish. Exchanges that have not finished after the `grace` of the site are cut.
    pub fn shutdown(&self) {
        self.enter(Phase::Draining);
    }

    /// Cuts every connection now.
    pub fn stop(&self) {
        self.enter(Phase::Cut);
    }

    /// How many exchanges are still in progress, once the server shuts down.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.draining.in_progress() + self.frontend.uninformed()
    }

    /// Reports when the server shuts down, for code that waits on its own.
    #[must_use]
    pub fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Enters `phase`, unless the server has already reached it.
    pub fn enter(&self, phase: Phase) {
        self.draining.enter(phase);
        self.frontend.announce(phase);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("phase", &self.draining.phase()).finish_non_exhaustive()
    }
}

/// Whether a server is shutting down, for code that waits for something else meanwhile: a handler that blocks, a
/// future, a connection that has switched to another protocol. Clones refer to the same server.
///
/// ```
/// use std::time::Duration;
///
/// let draining = sanserve_server::Draining::default();
/// assert!(!draining.wait(Duration::from_millis(1)));
/// let (sender, events) = std::sync::mpsc::channel();
/// // A thread that blocks on a channel is woken by that channel.
/// let watch = draining.when_begun(move || drop(sender.send("the server is shutting down")));
/// draining.begin();
/// assert_eq!(events.recv().unwrap(), "the server is shutting down");
/// assert!(draining.wait(Duration::from_secs(3_600)));
/// # drop(watch);
/// ```
#[derive(Clone, Default)]
pub struct Draining(Arc<Inner>);

#[derive(Default)]
struct Inner {
    phase: AtomicU8,
    /// Exchanges that were in progress when the shutdown began, and still are.
    in_progress: AtomicUsize,
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
    /// Whether the shutdown has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// The phase of the server.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::of(self.0.phase.load(Ordering::SeqCst))
    }

    /// Blocks until the shutdown begins, for at most `most`. Returns whether it has begun. A loop that sends
    /// something every second can wait with this.
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

    /// Calls `act` when the shutdown begins, or immediately if it has. `act` runs on the thread that shuts the server
    /// down, so it must not block. Dropping the returned value cancels the call.
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

    /// A future that is ready when the shutdown has begun.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        Begun { draining: self.clone(), watch: None }
    }

    /// Begins the shutdown.
    pub fn begin(&self) {
        self.enter(Phase::Draining);
    }

    /// Enters `phase`, unless the server has already reached it. Returns whether it was entered.
    pub fn enter(&self, phase: Phase) -> bool {
        let (before, acts) = {
            // The lock is held so that no thread can be between reading the phase and beginning to wait.
            let mut waiting = self.waiting();
            let before = Phase::of(self.0.phase.fetch_max(phase as u8, Ordering::SeqCst));
            let begins = before < Phase::Draining && phase >= Phase::Draining;
            (before, if begins { std::mem::take(&mut waiting.acts) } else { Vec::new() })
        };
        self.0.begun.notify_all();
        acts.into_iter().for_each(|(_, act)| act());
        before < phase
    }

    /// Counts an exchange that is in progress when the shutdown begins, until the returned value is dropped.
    #[must_use]
    pub fn hold(&self) -> InProgress {
        self.0.in_progress.fetch_add(1, Ordering::SeqCst);
        InProgress(self.clone())
    }

    /// How many exchanges were in progress when the shutdown began and still are, among the connections that have
    /// processed it.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.0.in_progress.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

/// A callback of [`Draining::when_begun`]. Dropping this cancels it.
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
        // Dropped without the lock, since dropping it may run foreign code.
        drop(act);
    }
}

/// An exchange that is in progress while the server shuts down.
#[derive(Debug)]
pub struct InProgress(Draining);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.in_progress.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Begun {
    draining: Draining,
    watch: Option<(DrainWatch, Arc<TaskWaker>)>,
}

/// Wakes the task that has polled last.
struct TaskWaker(Mutex<std::task::Waker>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Future for Begun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.watch {
            Some((_, waker)) => waker.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker()),
            None if !self.draining.has_begun() => {
                let waker = Arc::new(TaskWaker(Mutex::new(cx.waker().clone())));
                let woken = Arc::clone(&waker);
                let watch = self.draining.when_begun(move || woken.wake());
                self.watch = Some((watch, waker));
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
    fn callbacks_and_futures_are_notified_once() {
        let draining = Draining::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kept = draining.when_begun(count());
        drop(draining.when_begun(count()));
        draining.begin();
        draining.begin();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let late = draining.when_begun(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop((kept, late));
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let draining = Draining::default();
        let waits = draining.clone();
        let thread = std::thread::spawn(move || waits.wait(Duration::from_secs(3_600)));
        draining.begin();
        assert!(thread.join().unwrap());
        assert!(draining.wait(Duration::ZERO));
    }

    #[test]
    fn phases_only_advance_and_each_is_announced() {
        #[derive(Default)]
        struct Announced(Mutex<Vec<Phase>>);
        impl Announce for Announced {
            fn announce(&self, phase: Phase) {
                self.0.lock().unwrap().push(phase);
            }
            fn uninformed(&self) -> usize {
                2
            }
        }
        let (draining, announced) = (Draining::default(), Arc::new(Announced::default()));
        let handle = Handle::new(draining.clone(), announced.clone());
        handle.leave();
        assert!(!draining.has_begun() && draining.phase() == Phase::Leaving);
        handle.shutdown();
        assert!(draining.has_begun() && handle.draining().phase() == Phase::Draining);
        let _held = draining.hold();
        assert_eq!(handle.in_progress(), 3);
        handle.clone().stop();
        handle.shutdown();
        assert_eq!(draining.phase(), Phase::Cut);
        assert!(!draining.enter(Phase::Cut) && Draining::default().enter(Phase::Cut));
        assert_eq!(*announced.0.lock().unwrap(), [Phase::Leaving, Phase::Draining, Phase::Cut, Phase::Draining]);
    }

    #[test]
    fn exchanges_are_counted_while_they_are_held() {
        let draining = Draining::default();
        let held = [draining.hold(), draining.clone().hold()];
        assert_eq!(draining.in_progress(), 2);
        drop(held);
        assert_eq!(draining.in_progress(), 0);
    }
}

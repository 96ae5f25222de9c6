//! The hook for recorders, tracers and tests to observe a connection.
//!
//! The whole history of a connection is the bytes that were committed, the inputs that were passed, and the times of
//! the polls. All of that passes through [`Connection`](crate::Connection), so an [`Observer`] sees it with any driver.
//!
//! The format of a recording is not defined here, but in `sanserve-transcript`. What a handler does is not observed: it
//! is either a function of its calls, or cannot be repeated.

use std::fmt;

use crate::buffers::Buffers;
use crate::date::Now;
use crate::input::Input;
use crate::listing::EntryKind;
use crate::step::{Action, Step};

/// Observes everything that happens to one connection, in order. It is dropped with the connection.
///
/// It is called on the thread that drives the connection, so it must neither block nor panic. The default
/// implementations do nothing.
///
/// ```
/// use sanserve_core::{Buffers, Config, Connection, Context, DefaultPolicy, Now, Observer, Peer, Step, Tick, Wall};
///
/// struct Steps(std::sync::mpsc::Sender<String>);
///
/// impl Observer for Steps {
///     fn step(&mut self, step: &Step<'_>, _: usize) -> bool {
///         let _ = self.0.send(format!("{step:?}"));
///         true
///     }
/// }
///
/// let (config, now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
/// let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
/// let mut connection = Connection::new(Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
/// let (sender, steps) = std::sync::mpsc::channel();
/// connection.observe(Box::new(Steps(sender)));
/// assert!(matches!(connection.poll(&mut Buffers::new(), &cx), Step::Wait(_)));
/// assert!(steps.recv().unwrap().starts_with("Wait"));
/// ```
pub trait Observer: Send {
    /// An input is passed to the connection.
    fn input(&mut self, _input: &Input) {}

    /// These bytes arrived from the peer. None of them has been used yet.
    fn received(&mut self, _bytes: &[u8]) {}

    /// These bytes arrived from the script. None of them has been used yet.
    fn script_said(&mut self, _bytes: &[u8]) {}

    /// This entry was pushed for the last [`Action::List`]. The last one may have exceeded the limit.
    fn listed(&mut self, _name: &[u8], _kind: EntryKind) {}

    /// The connection is about to be polled. Everything that arrived since the last poll has been reported.
    fn polled(&mut self, _now: &Now) {}

    /// A reservation of memory was refused during the current poll.
    fn refused(&mut self) {}

    /// The poll returns this step. `script_unread` is the number of bytes from the script that have not been used yet,
    /// including those that the step sends. Return `false` to stop observing: then the observer is dropped.
    fn step(&mut self, _step: &Step<'_>, _script_unread: usize) -> bool {
        true
    }
}

/// An observer, and how much of the buffers has been reported to it.
pub(crate) struct Observed {
    observer: Box<dyn Observer>,
    /// The numbers of bytes that had arrived in the windows.
    input: u64,
    script: u64,
    /// Whether the connection was between exchanges, so that everything in the window is new.
    empty: bool,
    /// If the last step was to list: how many entries there were before.
    listed: Option<usize>,
}

/// State of the buffers that a step borrows, which is needed after the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    script: usize,
    listed: usize,
}

impl Behind {
    pub(crate) fn of(buf: &Buffers) -> Behind {
        Behind { script: buf.script.unread().len(), listed: buf.scratch.listing.taken() }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl Observed {
    pub(crate) fn new(observer: Box<dyn Observer>) -> Observed {
        Observed { observer, input: 0, script: 0, empty: true, listed: None }
    }

    pub(crate) fn input(&mut self, input: &Input) {
        self.observer.input(input);
    }

    /// Reports what has arrived, before any of it is used.
    pub(crate) fn arrived(&mut self, buf: &Buffers) {
        let (input, script) = (buf.input.arrived(), buf.script.arrived());
        let unread = buf.input.unread();
        let new = if self.empty { unread.len() } else { input.wrapping_sub(self.input) as usize };
        if new > 0 {
            self.observer.received(&unread[unread.len().saturating_sub(new)..]);
        }
        let unread = buf.script.unread();
        let new = if self.empty { 0 } else { script.wrapping_sub(self.script) as usize };
        if new > 0 {
            self.observer.script_said(&unread[unread.len().saturating_sub(new)..]);
        }
        (self.input, self.script, self.empty) = (input, script, false);
    }

    /// The head of the current exchange was moved to other buffers.
    pub(crate) fn unpacked(&mut self, buf: &Buffers) {
        (self.input, self.script) = (buf.input.arrived(), buf.script.arrived());
    }

    #[cold]
    pub(crate) fn before(&mut self, buf: &Buffers, now: &Now) {
        self.arrived(buf);
        if let Some(listed) = self.listed.take() {
            buf.scratch.listing.pushed_after(listed).for_each(|(name, kind)| self.observer.listed(name, kind));
        }
        self.observer.polled(now);
    }

    pub(crate) fn refused(&mut self) {
        self.observer.refused();
    }

    /// Returns `false` if the observer wants no more.
    pub(crate) fn step(&mut self, step: &Step<'_>, behind: Behind) -> bool {
        match step {
            Step::Wait(wait) => self.empty = wait.idle,
            Step::Act(_, Action::List { .. }) => self.listed = Some(behind.listed),
            _ => {}
        }
        self.observer.step(step, behind.script)
    }
}

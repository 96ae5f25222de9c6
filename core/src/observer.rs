//! The hook of those who watch a connection while it lives: recorders, tracers, tests.
//!
//! The whole history of a connection is the bytes that were committed, the inputs that it was told, and when it was
//! polled. All of that passes through [`Connection`](crate::Connection), so an [`Observer`] sees it whole, whichever
//! driver there is.
//!
//! What it leaves out: what is made of it (`sanserve-transcript` writes it down), and what a handler does, which
//! is a function of what it is told, or cannot be repeated.

use std::fmt;

use crate::buffers::Buffers;
use crate::date::Now;
use crate::input::Input;
use crate::listing::EntryKind;
use crate::step::{Action, Step};

/// Sees everything that happens to one connection, in order. It is dropped with the connection.
///
/// It is called by whoever drives the connection, so it must neither wait nor panic. Every method does nothing unless it
/// is written.
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
    /// The connection is told something.
    fn input(&mut self, _input: &Input) {}

    /// These bytes have come from the peer. Nothing of them has been used yet.
    fn received(&mut self, _bytes: &[u8]) {}

    /// These bytes have come from the script. Nothing of them has been used yet.
    fn script_said(&mut self, _bytes: &[u8]) {}

    /// This entry was pushed for the last [`Action::List`]; the last one may have been too much.
    fn listed(&mut self, _name: &[u8], _kind: EntryKind) {}

    /// The connection is about to be polled. Whatever came since the last poll has been shown.
    fn polled(&mut self, _now: &Now) {}

    /// The poll under way was refused memory.
    fn refused(&mut self) {}

    /// The poll has led to this step. `script_unread`: so many bytes of what the script has said are not used yet, those
    /// that the step passes on among them. `false`: no more of the connection is wanted, and this observer is dropped.
    fn step(&mut self, _step: &Step<'_>, _script_unread: usize) -> bool {
        true
    }
}

/// An observer, and what it has been shown of the connection's buffers.
pub(crate) struct Observed {
    observer: Box<dyn Observer>,
    /// What the windows had seen arrive.
    input: u64,
    script: u64,
    /// Between exchanges: all that the window holds has arrived since.
    empty: bool,
    /// The last step was to list: so many entries had been taken before.
    listed: Option<usize>,
}

/// What a step does not say of the buffers that it borrows.
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

    /// Shows what has arrived, before anything of it can be used.
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

    /// The head of the current exchange was put into other buffers.
    pub(crate) fn unpacked(&mut self, buf: &Buffers) {
        (self.input, self.script) = (buf.input.arrived(), buf.script.arrived());
    }

    #[cold]
    pub(crate) fn before(&mut self, buf: &Buffers, now: &Now) {
        self.arrived(buf);
        if let Some(listed) = self.listed.take() {
            buf.scratch.listing.pushed_behind(listed).for_each(|(name, kind)| self.observer.listed(name, kind));
        }
        self.observer.polled(now);
    }

    pub(crate) fn refused(&mut self) {
        self.observer.refused();
    }

    /// `false`: no more is wanted.
    pub(crate) fn step(&mut self, step: &Step<'_>, behind: Behind) -> bool {
        match step {
            Step::Wait(wait) => self.empty = wait.idle,
            Step::Act(_, Action::List { .. }) => self.listed = Some(behind.listed),
            _ => {}
        }
        self.observer.step(step, behind.script)
    }
}

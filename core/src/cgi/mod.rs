//! The task that responds with the output of a script (RFC 3875): it finds the script, builds its environment, feeds it
//! the body while its response is relayed, and terminates it when its time is over.
//!
//! Everything that affects a process is an action of the driver. Nothing here blocks, so a script may write while it
//! reads, in any amount: both directions advance whenever they can, and back-pressure is passed on to the source.

mod environment;
mod output;
mod refusal;
mod run;

pub(crate) use run::find;

use crate::context::Context;
use crate::input::{Completion, Found, FsError, Input, ScriptFile, SpawnError};
use crate::step::ScriptInput;
use crate::time::Tick;
use crate::timer::{Timer, Transfer};
use crate::wire::{Decoder, Method};
use refusal::Refusal;

/// Whether scripts support a method (RFC 3875 section 4.3). TRACE would return the request, including cookies, and
/// CONNECT does not name a script.
pub(crate) fn is_method(method: Method) -> bool {
    !matches!(method, Method::Trace | Method::Connect)
}

/// Where the name of a script begins in `Scratch::path`.
pub(crate) type ScriptAt = usize;

/// The state of a response from a script.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cgi {
    state: State,
    feed: Feed,
    /// Whether SIGTERM has to be sent, or was sent.
    kill: Kill,
    /// How much of the script's head was searched for its end.
    scanned: u32,
    /// Where the search for the script begins in `Scratch::path`; later, where its name ends.
    at: u32,
    /// Where the environment begins in `Scratch::variables`.
    environment: u32,
    /// Why the script was not run, although it was reported as spawned.
    failed: Option<SpawnError>,
    /// When the time of the script is over.
    ends: Tick,
    /// When the script last wrote or read something, or when the peer half-closed.
    heard: Tick,
    /// The number of interim responses so far.
    interim: u8,
    /// Decodes the chunks of a script that writes a complete response itself.
    decoder: Option<Decoder>,
    /// Since when none of its output is sent any more, if that limits its time.
    unsent_since: Option<Tick>,
    /// The number of bytes of its output that were discarded, because they are not sent.
    dropped: u64,
    /// Whether the peer has half-closed.
    half_closed: bool,
    /// How much output had arrived when `heard` was last updated.
    arrived: u64,
    /// The progress of the body, and since when the script has held it back.
    pace: Option<(Transfer, Tick)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// An action has to be requested.
    Due(PendingAction),
    /// An action is in progress.
    Under(PendingAction),
    Found(ScriptFile),
    /// The beginning of the body has not arrived, and the script is not started before.
    Gathering,
    /// The body is stored in a file first, because it is chunked.
    Spooling,
    /// The body is complete in the file.
    Spooled,
    Spawned,
    /// The script runs, and its head has not arrived.
    Head,
    /// The head has been sent, and the body is relayed.
    Body,
    /// The script was terminated, or was never started. This response is sent as soon as the body of the request has
    /// been read or given up.
    Refused(Refusal),
    /// The response is complete, or something else has responded.
    #[default]
    Over,
}

/// An action that is requested from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingAction {
    Find,
    Spool,
    Spawn(ScriptInput),
    EndInput,
    Kill,
}

/// How the body is fed to the script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Feed {
    stage: Stage,
    taker: Taker,
    /// Whether the output of the script is complete.
    eof: bool,
    /// The number of bytes at the front of the window that are offered to the script.
    offered: u32,
    /// How many of these it has read since the last poll.
    taken: u32,
    /// The number of bytes that it has read.
    total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is fed, or nothing more.
    #[default]
    Closed,
    Open,
    /// Everything was fed, and the input has to be closed.
    End,
}

/// What reads the body: the script, or the file in which it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Taker {
    #[default]
    Ready,
    /// It is full for now.
    Blocked,
    /// It accepts nothing more.
    Closed,
    /// It accepts nothing more, because the limit on all stored bodies is reached.
    Full,
}

impl Taker {
    /// Applies [`Input::FeedBlocked`] or [`Input::Feedable`]. A taker that accepts nothing more does not become ready
    /// again.
    fn becomes(&mut self, next: Taker) {
        if matches!(self, Taker::Ready | Taker::Blocked) {
            *self = next;
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kill {
    #[default]
    No,
    Due,
    Done,
}

impl Cgi {
    /// Starts with the result of [`find`].
    pub(crate) fn start(from: ScriptAt, now: Tick) -> Box<Cgi> {
        let state = State::Due(PendingAction::Find);
        Box::new(Cgi { state, at: index(from), ends: now, heard: now, ..Cgi::default() })
    }

    /// Records an input that concerns the script.
    pub(crate) fn handle(&mut self, input: &Input) {
        match input {
            Input::Fed(n) => {
                let left = self.feed.offered - self.feed.taken;
                self.feed.taken += u32::try_from(*n).unwrap_or(u32::MAX).min(left);
            }
            Input::FeedBlocked => self.feed.taker.becomes(Taker::Blocked),
            Input::Feedable => self.feed.taker.becomes(Taker::Ready),
            Input::FeedEnd => self.feed.taker.becomes(Taker::Closed),
            Input::SpoolFull => self.feed.taker = Taker::Full,
            Input::ScriptEof if self.is_alive() => self.feed.eof = true,
            Input::ScriptFailed(error) if self.is_alive() => {
                self.feed.eof = true;
                self.failed = Some(*error);
            }
            _ => {}
        }
    }

    /// Receives the result of the action in progress.
    pub(crate) fn complete(&mut self, completion: &Completion) {
        let State::Under(pending) = self.state else { return };
        if let Completion::Found(Ok(Found { len, .. })) = completion {
            self.at = index(*len);
        }
        self.state = match (pending, completion) {
            (PendingAction::Find, Completion::Found(Ok(found))) => State::Found(found.what),
            (PendingAction::Spool, Completion::Spooled(Ok(()))) => State::Spooling,
            (PendingAction::Spool, Completion::Spooled(Err(_))) => State::Refused(Refusal::Unspoolable),
            (PendingAction::Spawn(_), Completion::Spawned(Ok(()))) => State::Spawned,
            (PendingAction::Find, Completion::Found(Err(FsError::Exhausted))) => State::Refused(Refusal::Busy),
            (_, Completion::Spawned(Err(error))) => State::Refused(Refusal::from(*error)),
            (PendingAction::Find, _) => State::Refused(Refusal::Missing),
            // The driver has passed a result that does not fit its action.
            _ => State::Refused(Refusal::Unstartable),
        };
    }

    /// The action that has to be requested. Returned once.
    pub(crate) fn take_pending(&mut self) -> Option<PendingAction> {
        if let Some(kill) = self.take_kill() {
            return Some(kill);
        }
        if self.feed.stage == Stage::End && self.runs() {
            self.feed.stage = Stage::Closed;
            return Some(PendingAction::EndInput);
        }
        let State::Due(pending) = self.state else { return None };
        self.state = State::Under(pending);
        Some(pending)
    }

    /// Gives up, because the request is invalid and another response is sent.
    pub(crate) fn give_up(&mut self) {
        self.abandon();
        self.state = State::Over;
        self.feed.stage = Stage::Closed;
    }

    /// Terminates the script, because its output is not needed any more.
    pub(crate) fn abandon(&mut self) {
        if self.is_alive() && self.kill == Kill::No {
            self.kill = Kill::Due;
        }
    }

    /// Whether the script has to be terminated. Returned once.
    pub(crate) fn take_kill(&mut self) -> Option<PendingAction> {
        if self.kill != Kill::Due {
            return None;
        }
        self.kill = Kill::Done;
        Some(PendingAction::Kill)
    }

    /// Whether an action is in progress.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Under(_))
    }

    /// Whether more of the body is needed from the peer.
    pub(crate) fn wants_body(&self) -> bool {
        let takes = matches!(self.feed.taker, Taker::Ready | Taker::Blocked);
        self.feed.stage == Stage::Open && takes && self.feed.offered == 0
    }

    /// The number of bytes to feed now.
    pub(crate) fn offered(&self) -> usize {
        let feeds = self.feed.stage == Stage::Open && self.feed.taker == Taker::Ready;
        if feeds { self.feed.offered as usize } else { 0 }
    }

    /// Whether it waits for the script to read its input.
    pub(crate) fn is_full(&self) -> bool {
        self.feed.stage == Stage::Open && self.feed.taker == Taker::Blocked && self.feed.offered > 0
    }

    /// Whether it waits for output.
    pub(crate) fn is_heard(&self) -> bool {
        self.runs() && !self.feed.eof
    }

    fn runs(&self) -> bool {
        matches!(self.state, State::Head | State::Body)
    }

    /// Whether there is a process, as far as is known.
    fn is_alive(&self) -> bool {
        self.runs() || self.state == State::Spawned
    }

    /// Keeps the progress of the body while the script holds it back, which is not the fault of the peer.
    pub(crate) fn pause(&mut self, pace: Transfer, now: Tick) {
        self.pace = Some((pace, now));
    }

    /// The progress of the body, without the time in which it was held back.
    pub(crate) fn resume(&mut self, now: Tick) -> Transfer {
        match self.pace.take() {
            Some((pace, since)) => pace.later(now.since(since)),
            None => Transfer::start(now),
        }
    }

    /// The current stage, for display.
    pub(crate) fn stage(&self) -> &'static str {
        match self.state {
            State::Due(_) => "has an action for the driver",
            State::Under(_) => "waits for the driver",
            State::Found(_) => "the script is found",
            State::Gathering => "waits for the body",
            State::Spooling => "stores the body in a file",
            State::Spooled => "the body is in a file",
            State::Spawned => "the script runs",
            State::Head => "waits for the script's head",
            State::Body => "passes the script's body on",
            State::Refused(_) => "the script is refused",
            State::Over => "the script has answered",
        }
    }

    /// The running timers. Once the output is complete, the rest depends on the peer, and none of them runs.
    pub(crate) fn timers(&self, may_be_gone: bool, cx: &Context<'_>) -> impl Iterator<Item = Timer> {
        let timeouts = &cx.config.timeouts;
        let (all, silence) = (timeouts.script.max(1), timeouts.script_silence.max(1));
        let whole = Timer { rule: "script", since: Tick(self.ends.0.saturating_sub(all)), deadline: self.ends };
        let silent = Timer { rule: "script-silence", since: self.heard, deadline: self.heard.after(silence) };
        let drained =
            self.unsent_since.map(|since| Timer { rule: "script-drain", since, deadline: drained(since, cx) });
        let heard = self.is_heard();
        let all = [Some(whole), may_be_gone.then_some(silent), drained];
        all.into_iter().flatten().filter(move |_| heard)
    }

    /// When the first timer fires; see [`Connection::may_be_gone`](crate::Connection).
    pub(crate) fn deadline(&self, may_be_gone: bool, cx: &Context<'_>) -> Option<Tick> {
        self.timers(may_be_gone, cx).map(|timer| timer.deadline).min()
    }
}

/// When the time is over of a script whose output is not sent any more.
fn drained(since: Tick, cx: &Context<'_>) -> Tick {
    since.after(cx.config.timeouts.script_drain.max(1))
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("heads and windows are far smaller than 4 GiB")
}

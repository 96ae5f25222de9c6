//! The task that answers from a script (RFC 3875): find it, tell it what there is to tell, feed it the
//! body while its answer is relayed, and end it when its time is over.
//!
//! Everything that touches a process is an action. Nothing here waits, so a script may echo while it
//! reads, at any size: both directions move whenever they can, and whatever cannot move holds back its
//! source.

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

/// Whether a method is a script's business (RFC 3875 section 4.3). TRACE is for the server to answer with what the client
/// has sent, cookies and all, and CONNECT names no script.
pub(crate) fn is_method(method: Method) -> bool {
    !matches!(method, Method::Trace | Method::Connect)
}

/// How far the answer has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cgi {
    state: State,
    feed: Feed,
    /// SIGTERM is due, or was.
    kill: Kill,
    /// How much of the script's head was searched for its end.
    scanned: u32,
    /// Where the search for the script begins in `Buffers::path`; then where its name ends.
    at: u32,
    /// Where the environment begins in `Buffers::told`.
    environment: u32,
    /// Why it was not run, though it counted as spawned.
    failed: Option<SpawnError>,
    /// When its time is over.
    ends: Tick,
    /// When it last gave or took something, or when the peer half-closed.
    heard: Tick,
    /// Heads of interim answers so far.
    interim: u8,
    /// Takes apart the chunks of a script that writes the whole answer itself.
    decoder: Option<Decoder>,
    /// Since when nothing of its output can be sent any more, where it is given little time after that.
    unsent_since: Option<Tick>,
    /// Bytes of its output that were dropped because they cannot be sent.
    dropped: u64,
    /// The peer has half-closed.
    alone: bool,
    /// What the window had seen arrive from it by then.
    arrived: u64,
    /// The pace of the body, and since when it is not the peer's.
    pace: Option<(Transfer, Tick)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An action is due.
    Due(PendingAction),
    /// An action is under way.
    Under(PendingAction),
    Found(ScriptFile),
    /// The first of the body is awaited, and no place is taken meanwhile.
    Gathering,
    /// The body goes to a file first, because it is chunked.
    Spooling,
    /// The body is there.
    Spooled,
    Spawned,
    /// It runs, and its head is awaited.
    Head,
    /// Its head is out, and its body is relayed.
    Body,
    /// It was told to end, or was never begun, and this is the answer as soon as the body of the request
    /// does not stand in its way.
    Refused(Refusal),
    /// It has answered, or something else has.
    Over,
}

/// What the machine asks of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingAction {
    Find,
    Spool,
    Spawn(ScriptInput),
    EndInput,
    Kill,
}

/// How the body goes to the script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Feed {
    stage: Stage,
    taker: Taker,
    /// Its output is complete.
    eof: bool,
    /// Bytes at the front of the window that are its.
    offered: u32,
    /// Those of them that it took since the last poll.
    taken: u32,
    /// All that it took.
    total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is fed, or nothing any more.
    #[default]
    Closed,
    Open,
    /// All was fed, and it is to be told so.
    End,
}

/// What takes the body: the script, or the file in which it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Taker {
    #[default]
    Ready,
    /// It takes no more for now.
    Blocked,
    /// It takes no more at all.
    Deaf,
    /// Nor does it, because other bodies take the room.
    Full,
}

impl Taker {
    /// What [`Input::FeedBlocked`] and [`Input::Feedable`] say; whoever takes no more at all does not become ready again.
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
    /// Begins with the script that [`find`] has found.
    pub(crate) fn new(from: usize, now: Tick) -> Cgi {
        Cgi {
            state: State::Due(PendingAction::Find),
            feed: Feed::default(),
            kill: Kill::No,
            scanned: 0,
            at: index(from),
            environment: 0,
            failed: None,
            ends: now,
            heard: now,
            interim: 0,
            decoder: None,
            unsent_since: None,
            dropped: 0,
            alone: false,
            arrived: 0,
            pace: None,
        }
    }

    /// Notes what the driver says; `false`: it says nothing of scripts.
    pub(crate) fn handle(&mut self, input: &Input) {
        match input {
            Input::Fed(n) => {
                let left = self.feed.offered - self.feed.taken;
                self.feed.taken += u32::try_from(*n).unwrap_or(u32::MAX).min(left);
            }
            Input::FeedBlocked => self.feed.taker.becomes(Taker::Blocked),
            Input::Feedable => self.feed.taker.becomes(Taker::Ready),
            Input::FeedEnd => self.feed.taker.becomes(Taker::Deaf),
            Input::SpoolFull => self.feed.taker = Taker::Full,
            Input::ScriptEof if self.is_alive() => self.feed.eof = true,
            Input::ScriptFailed(error) if self.is_alive() => {
                self.feed.eof = true;
                self.failed = Some(*error);
            }
            _ => {}
        }
    }

    /// Takes the answer to the action under way.
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
            // A driver that answers something else than it was asked.
            _ => State::Refused(Refusal::Unstartable),
        };
    }

    /// The action that is due, once.
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

    /// The response is another's now, because the request is wrong.
    pub(crate) fn give_up(&mut self) {
        self.abandon();
        self.state = State::Over;
        self.feed.stage = Stage::Closed;
    }

    /// Nobody waits for the script any more.
    pub(crate) fn abandon(&mut self) {
        if self.is_alive() && self.kill == Kill::No {
            self.kill = Kill::Due;
        }
    }

    /// Whether it is to be killed, once.
    pub(crate) fn take_kill(&mut self) -> Option<PendingAction> {
        if self.kill != Kill::Due {
            return None;
        }
        self.kill = Kill::Done;
        Some(PendingAction::Kill)
    }

    /// Whether an action is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Under(_))
    }

    /// Whether it wants more of the body from the peer.
    pub(crate) fn wants_body(&self) -> bool {
        let takes = matches!(self.feed.taker, Taker::Ready | Taker::Blocked);
        self.feed.stage == Stage::Open && takes && self.feed.offered == 0
    }

    /// What is to be fed now.
    pub(crate) fn offered(&self) -> usize {
        let feeds = self.feed.stage == Stage::Open && self.feed.taker == Taker::Ready;
        if feeds { self.feed.offered as usize } else { 0 }
    }

    /// Whether it is waited for until it takes more.
    pub(crate) fn is_full(&self) -> bool {
        self.feed.stage == Stage::Open && self.feed.taker == Taker::Blocked && self.feed.offered > 0
    }

    /// Whether its output is awaited.
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

    /// Keeps the pace of the body while the script holds it back: the peer is not to blame for that.
    pub(crate) fn pause(&mut self, pace: Transfer, now: Tick) {
        self.pace = Some((pace, now));
    }

    /// The pace of the body, as it was when it was held back.
    pub(crate) fn resume(&mut self, now: Tick) -> Transfer {
        match self.pace.take() {
            Some((pace, since)) => pace.later(now.since(since)),
            None => Transfer::start(now),
        }
    }

    /// How far it has come, for those who show it.
    pub(crate) fn stage(&self) -> &'static str {
        match self.state {
            State::Due(_) => "has something for the driver",
            State::Under(_) => "waits for the driver",
            State::Found(_) => "the script is found",
            State::Gathering => "waits for the body",
            State::Spooling => "keeps the body in a file",
            State::Spooled => "the body is in a file",
            State::Spawned => "the script runs",
            State::Head => "waits for the script's head",
            State::Body => "passes the script's body on",
            State::Refused(_) => "the script is not to answer",
            State::Over => "the script has answered",
        }
    }

    /// The clocks that run. If it has said all, what is left depends on the peer, and none does.
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

    /// When its time ends; see [`Connection::may_be_gone`](crate::Connection).
    pub(crate) fn deadline(&self, may_be_gone: bool, cx: &Context<'_>) -> Option<Tick> {
        self.timers(may_be_gone, cx).map(|timer| timer.deadline).min()
    }
}

/// When the time is over of a script of whose output nothing more is sent.
fn drained(since: Tick, cx: &Context<'_>) -> Tick {
    since.after(cx.config.timeouts.script_drain.max(1))
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("heads and windows are far smaller than 4 GiB")
}

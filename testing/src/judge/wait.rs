//! Whether a turn ends as it should: what is awaited then, and until when.

use sanserve_core::{Fault, Wait};
use sanserve_transcript::{Event, What};

use super::timers::{Timer, Turn};
use super::{Judge, Marks, Wrong, wrong};

impl Judge {
    /// The turn ends with this: what is awaited, and until when.
    pub(super) fn check_wait(&mut self, wait: Wait) -> Result<(), Wrong> {
        let need = wait.need;
        let shown = || format!(" (at {}: {})", self.now, Event { at: self.now, joined: false, what: What::Wait(wait) });
        let fail = |rule, what: &str| wrong(rule, format!("{what}{}", shown()));
        let Marks { eof, drain, cut, broken, ends, shut, asked, reading, .. } = self.marks;
        let blocked = self.timers.is_blocked();
        if cut || broken == Some(Fault::Peer) {
            return fail("open", "open behind its end");
        }
        // A handler that fails may have another answer, without the file.
        let reads = reading && (broken != Some(Fault::Handler) || need.completion);
        if need.write != blocked || need.completion != (asked || reads) {
            return fail("need", "not what is under way");
        }
        if reads && wait.deadline.is_some() && !(need.read || need.write || need.script_read || need.script_write) {
            return fail("disk", "a timer runs, and the disk alone is awaited");
        }
        if wait.deadline.is_some_and(|deadline| deadline.0 <= self.now) {
            return fail("deadline", "a deadline that is not in the future");
        }
        let by_server = need.completion || need.handler || need.script_read || need.script_write;
        if !(need.read || need.write || by_server) {
            return fail("stuck", "nothing is awaited");
        }
        let is_odd = self.requests.is_odd();
        let between = self.requests.in_progress() == 0 && !self.seen.is_open() && !shut;
        let silent = between && !blocked && !self.requests.is_partial();
        // A peer that has not asked for anything gets a moment when the server drains, and is not forgotten.
        let is_first = drain && silent && self.tally.statuses.is_empty();
        let idle = silent && !is_first;
        if !is_odd && wait.idle != idle {
            return fail("idle", if idle { "memory is held, and nothing is in hand" } else { "it is not idle" });
        }
        if ends && !shut && !blocked {
            return fail("open", "it goes on behind its last answer");
        }
        if (eof || drain) && idle && !is_odd {
            return fail("open", "it waits for a request that will not come");
        }
        let body_open = self.requests.is_body_open();
        let excused = between || shut || blocked || is_odd || by_server;
        if !(excused || body_open && need.read) {
            return fail("unanswered", "a request has no answer, and nothing is awaited");
        }
        if between && !blocked && !need.read && !eof && !is_odd {
            return fail("stuck", "the next request is not read");
        }
        self.timers.turned(&Turn {
            now: self.now,
            idle,
            first: is_first,
            partial: between && !blocked && !silent && !is_odd,
            body: body_open && need.read && !between && !shut && !self.seen.refused && !self.seen.scripts,
            read: if need.read { self.unread } else { 0 },
            // Read by nobody but whoever waits for it.
            afterwards: self.waited,
        });
        if need.read {
            self.unread = 0;
        }
        // Too much of a body that nobody wants is given up, and whether somebody wants it is not seen here.
        let too_much = self.seen.status.is_some() && self.requests.behind > self.config.limits.drain;
        let unknown = too_much.then_some(Timer::Body);
        let deadline = wait.deadline.map(|deadline| deadline.0);
        if let Some((timer, limit)) = self.timers.late(&self.config.timeouts, self.now, deadline, unknown) {
            return fail("late", &format!("{}: patience ends at {limit}", timer.name()));
        }
        if let Some(limit) = self.seen.script_limit(&self.config.timeouts) {
            if deadline.is_none_or(|deadline| deadline > limit) {
                return fail("late", &format!("script: its time ends at {limit}"));
            }
        }
        // A deadline that comes too soon is that of another clock.
        let is_unknown = is_odd || self.seen.scripts || ((self.seen.refused || too_much) && body_open);
        if let (false, Some(soonest), Some(deadline)) = (is_unknown, self.timers.soonest(&self.config), wait.deadline) {
            if deadline.0 < soonest {
                return fail("early", &format!("no patience ends before {soonest}"));
            }
        }
        // Whoever awaits the peer alone does not do so for ever.
        let for_ever = wait.deadline.is_none() && !by_server;
        if for_ever { fail("late", "no timer is armed") } else { Ok(()) }
    }
}

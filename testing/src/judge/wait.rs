//! Checks whether a turn ends correctly: what the connection waits for, and until when.

use sanserve_core::{Fault, Wait};
use sanserve_transcript::{Event, What};

use super::timers::{Timer, Turn};
use super::{Judge, Marks, Wrong, wrong};

impl Judge {
    /// Checks the wait at the end of a turn.
    pub(super) fn check_wait(&mut self, wait: Wait) -> Result<(), Wrong> {
        let need = wait.need;
        let shown = || format!(" (at {}: {})", self.now, Event { at: self.now, joined: false, what: What::Wait(wait) });
        let fail = |rule, what: &str| wrong(rule, format!("{what}{}", shown()));
        let Marks { eof, drain, cut, broken, ends, shut, asked, reading, handshake, .. } = self.marks;
        let blocked = self.timers.is_blocked();
        if cut || broken == Some(Fault::Peer) {
            return fail("open", "open after the end");
        }
        // After a failure of the handler, the response may be another one without the file.
        let reads = reading && (broken != Some(Fault::Handler) || need.completion);
        if need.write != blocked || need.completion != (asked || reads) {
            return fail("need", "not what is in progress");
        }
        if reads && wait.deadline.is_some() && !(need.read || need.write || need.script_read || need.script_write) {
            return fail("disk", "a timer runs while it only waits for the disk");
        }
        if wait.deadline.is_some_and(|deadline| deadline.0 <= self.now) {
            return fail("deadline", "a deadline that is not in the future");
        }
        let by_server = need.completion || need.handler || need.script_read || need.script_write;
        if !(need.read || need.write || by_server) {
            return fail("stuck", "it waits for nothing");
        }
        let is_odd = self.requests.is_odd();
        let between = self.requests.in_progress() == 0 && !self.seen.is_open() && !shut;
        let silent = between && !blocked && !handshake && !self.requests.is_partial();
        // When the server drains, a client without a request has a moment to send one, and its connection is not idle.
        let is_first = drain && silent && self.tally.statuses.is_empty();
        let idle = silent && !is_first;
        if !is_odd && wait.idle != idle {
            return fail(
                "idle",
                if idle { "not idle, but nothing is in progress" } else { "idle, but something is in progress" },
            );
        }
        if ends && !shut && !blocked {
            return fail("open", "it stays open after its last response");
        }
        if (eof || drain) && idle && !is_odd {
            return fail("open", "it waits for a request that will not come");
        }
        let body_open = self.requests.is_body_open();
        let excused = between || shut || blocked || is_odd || by_server;
        if !(excused || body_open && need.read) {
            return fail("unanswered", "a request has no response, and it waits for nothing");
        }
        if between && !blocked && !need.read && !eof && !is_odd {
            return fail("stuck", "the next request is not read");
        }
        self.timers.turned(&Turn {
            now: self.now,
            idle,
            first: is_first,
            partial: between && !blocked && !silent && !handshake && !is_odd,
            body: body_open && need.read && !between && !shut && !self.seen.refused && !self.seen.scripts,
            read: if need.read { self.unread } else { 0 },
            // Only read by the wait itself.
            afterwards: self.waited,
        });
        if need.read {
            self.unread = 0;
        }
        // A body that is not used is given up if it is too long. Whether it is used cannot be observed here.
        let too_much = self.seen.status.is_some() && self.requests.after_head > self.config.limits.drain;
        let unknown = too_much.then_some(Timer::Body);
        let deadline = wait.deadline.map(|deadline| deadline.0);
        if let Some((timer, limit)) = self.timers.late(&self.config.timeouts, self.now, deadline, unknown) {
            return fail("late", &format!("the {} timeout expires at {limit}", timer.name()));
        }
        if let Some(limit) = self.seen.script_limit(&self.config.timeouts) {
            if deadline.is_none_or(|deadline| deadline > limit) {
                return fail("late", &format!("the time of the script ends at {limit}"));
            }
        }
        // An earlier deadline must be that of another timer.
        let is_unknown = is_odd || self.seen.scripts || ((self.seen.refused || too_much) && body_open);
        if let (false, Some(earliest), Some(deadline)) = (is_unknown, self.timers.earliest(&self.config), wait.deadline)
        {
            if deadline.0 < earliest {
                return fail("early", &format!("no timeout expires before {earliest}"));
            }
        }
        // A wait for the client alone must have a deadline.
        let forever = wait.deadline.is_none() && !by_server;
        if forever { fail("late", "no timer is armed") } else { Ok(()) }
    }
}

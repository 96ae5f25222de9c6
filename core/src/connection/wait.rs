//! What a connection waits for when no step is due.

use super::{Connection, Life, Probe};
use crate::buffers::Buffers;
use crate::context::Context;
use crate::exchange::BodyUse;
use crate::share::Share;
use crate::step::{Need, Wait};
use crate::task::Task;
use crate::time::Tick;
use crate::timer::{ReadTimer, Transfer};
use crate::wire::{Inbound, Outbound, Scan};

impl Connection {
    pub(super) fn wait(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Wait {
        let now = cx.now.tick;
        if !self.notes.is_draining() {
            self.notes.probe = Probe::No;
        }
        let (read, idle) = self.await_peer(buf, cx);
        if idle {
            // Every exchange starts with the same room as in new buffers, so that its course does not depend on earlier
            // ones.
            buf.shrink_input();
            buf.script.shrink();
        }
        let mut deadline = self.awaited.deadline(&cx.config.timeouts, self.notes.is_draining());
        let mut no_later_than = |other: Option<Tick>| deadline = deadline.into_iter().chain(other).min();
        if let (Some(stalled), true) = (&self.stalled, self.notes.blocked) {
            no_later_than(Some(stalled.deadline(&cx.config.timeouts.write)));
        }
        if let (Task::Cgi(cgi), Life::Open) = (&self.task, self.life) {
            no_later_than(cgi.deadline(self.may_be_gone(buf), cx));
        }
        // Invariant: a driver that polls at the deadline makes progress.
        assert!(deadline.is_none_or(|deadline| deadline > now), "a deadline that does not advance: {self:?}");
        let need = Need {
            read,
            write: self.notes.blocked,
            script_read: self.reads_script(buf, cx),
            script_write: matches!(&self.task, Task::Cgi(cgi) if cgi.is_full()) && self.cycle.is_answering(),
            completion: self.awaits_file()
                || match &self.task {
                    Task::Files(files) => files.is_waiting(),
                    Task::Cgi(cgi) => cgi.is_waiting(),
                    Task::None | Task::Handler(_) => false,
                },
            handler: matches!(&self.task, Task::Handler(_)) && self.cycle.is_answering(),
        };
        Wait { need, deadline, idle }
    }

    /// Decides what is expected from the client. Returns whether to read, and whether the connection is idle.
    pub(super) fn await_peer(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> (bool, bool) {
        let now = cx.now.tick;
        if let (ReadTimer::Handshake { .. }, Life::Open) = (self.awaited, self.life) {
            // A peer that does not read its part of the handshake need not be read.
            let read = !self.notes.blocked && !self.notes.eof;
            let room = buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share);
            return (read && room, false);
        }
        let mut idle = false;
        let next = match (self.life, self.cycle.inbound, self.cycle.outbound) {
            (Life::Lingering, ..) => self.awaited,
            (Life::Open, Inbound::Head(scan), Outbound::Idle) if !self.notes.blocked => {
                let is_empty = scan == Scan::default() && buf.input.is_empty();
                // While the server drains, a connection must not rest: `Resting` does not record that.
                idle = is_empty && !self.notes.is_draining();
                match self.awaited {
                    ReadTimer::First { .. } if is_empty => self.awaited,
                    _ if is_empty && !idle => ReadTimer::First { since: now },
                    ReadTimer::Request { .. } if idle => self.awaited,
                    ReadTimer::Head { .. } if !idle => self.awaited,
                    _ if idle => ReadTimer::Request { since: now },
                    // The beginning of a head arrived behind another request (`timeout-head-pipelined`). Otherwise,
                    // `absorb_arrived` has started this timer.
                    _ => ReadTimer::Head { since: now },
                }
            }
            (Life::Open, Inbound::Body(_), outbound) if self.wants_body(outbound) => match self.awaited {
                ReadTimer::Body(_) => self.awaited,
                _ => ReadTimer::Body(match &mut self.task {
                    Task::Cgi(cgi) => cgi.resume(now),
                    _ => Transfer::start(now),
                }),
            },
            _ => ReadTimer::Nothing,
        };
        if let (ReadTimer::Body(pace), ReadTimer::Nothing, Task::Cgi(cgi)) = (self.awaited, next, &mut self.task) {
            cgi.pause(pace, now);
        }
        self.awaited = next;
        let is_busy = match &self.task {
            Task::Cgi(_) => true,
            Task::Handler(_) => !matches!(self.cycle.inbound, Inbound::Body(_)),
            Task::None | Task::Files(_) => false,
        };
        if is_busy && self.life == Life::Open && next == ReadTimer::Nothing && !self.notes.eof {
            // Nothing is expected from the client, but keep reading so that a disconnect is noticed.
            return (buf.input.make_room(0, &mut buf.share), idle);
        }
        if self.notes.blocked && matches!(&self.task, Task::Files(files) if files.has_read_head()) {
            // A client that reads slowly must not occupy memory for its request.
            buf.keep_line_only();
        }
        let read = next != ReadTimer::Nothing && !self.notes.eof;
        if read {
            self.widen_for_body(buf);
            // A head ends before the window does, or is refused. Reading a body pauses while the window is full.
            let room = buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share);
            return (room, idle);
        }
        (read, idle)
    }

    /// Makes room for more of a long body at once, if a body is expected.
    pub(super) fn widen_for_body(&self, buf: &mut Buffers) {
        if let (ReadTimer::Body(_), Inbound::Body(decoder)) = (self.awaited, &self.cycle.inbound) {
            if decoder.is_long() {
                buf.input.widen(&mut buf.share);
            }
        }
    }

    pub(super) fn wants_body(&self, outbound: Outbound) -> bool {
        match &self.task {
            Task::Handler(handler) => handler.wants_body() || matches!(outbound, Outbound::Done),
            Task::Cgi(cgi) if cgi.wants_body() && self.cycle.is_answering() => true,
            _ => self.exchange.body == BodyUse::Dropped || matches!(outbound, Outbound::Done),
        }
    }

    /// Whether to read from the script: its earlier output has been sent, and there is room.
    pub(super) fn reads_script(&self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let has_output = matches!(&self.task, Task::Cgi(cgi) if cgi.is_heard());
        has_output && !self.has_unsent(buf) && buf.script.make_room(cx.config.limits.script_head, &mut Share::default())
    }
}

//! What a connection does for its handler: when to call it, and what it may see of the body.

use crate::buffers::Buffers;
use crate::connection::{Connection, Task};
use crate::context::Context;
use crate::error::Violation;
use crate::exchange::{FilePart, Relay};
use crate::fields::Misuse;
use crate::input::{Fault, Input};
use crate::reply::Handling;
use crate::step::Call;
use crate::wire::{Cycle, Encoder, Inbound, Outbound};

impl Connection {
    /// The call that is due, once.
    pub(crate) fn take_call(&mut self, buf: &Buffers, over: bool) -> Option<Call> {
        let is_out = !self.has_unsent(buf);
        let drains = self.is_draining();
        let Task::Handler(handling) = &mut self.task else { return None };
        if over {
            let due = handling.called && !std::mem::replace(&mut handling.told_over, true);
            return due.then_some(Call::Over);
        }
        if !std::mem::replace(&mut handling.called, true) {
            return Some(Call::Request);
        }
        if !self.cycle.is_answering() {
            return None;
        }
        if drains && !handling.passed && !handling.finishes && !std::mem::replace(&mut handling.told_drain, true) {
            return Some(Call::Drain);
        }
        if std::mem::take(&mut handling.woken) {
            return Some(Call::Wake);
        }
        if handling.wants_room && is_out {
            handling.wants_room = false;
            return Some(Call::Room);
        }
        if std::mem::take(&mut handling.has_body) {
            handling.wants_body = false;
            return Some(Call::Body);
        }
        None
    }

    /// Looks for the body that the handler waits for: more of it, its end, or why there is none.
    pub(crate) fn find_body(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let waits = self.handling().is_some_and(|handling| handling.wants_body && !handling.has_body);
        if !waits {
            return false;
        }
        if self.body_available(buf, cx) == 0
            && let Inbound::Body(_) = self.cycle.inbound
        {
            if !self.is_at_end() {
                return false;
            }
            self.body_violation(Violation::IncompleteBody, buf, cx);
        }
        if let Some(handling) = self.handling() {
            handling.has_body = true;
        }
        true
    }

    /// The handler's state while it may still answer.
    pub(crate) fn handling(&mut self) -> Option<&mut Handling> {
        self.sending().map(|(_, handling)| handling)
    }

    /// The same, with the state of the answer.
    pub(crate) fn sending(&mut self) -> Option<(&mut Cycle, &mut Handling)> {
        let is_open = self.is_open();
        match &mut self.task {
            Task::Handler(handling) if is_open && !handling.told_over && !handling.passed => {
                Some((&mut self.cycle, handling))
            }
            _ => None,
        }
    }

    /// The framing of the body that the handler may add to.
    ///
    /// # Errors
    /// [`Misuse::Order`] before the head, [`Misuse::Over`] behind the end.
    pub(crate) fn body(&mut self) -> Result<(&mut Encoder, &mut Handling), Misuse> {
        let (cycle, handling) = self.sending().ok_or(Misuse::Over)?;
        match &mut cycle.outbound {
            Outbound::Body(encoder) if !handling.finishes => Ok((encoder, handling)),
            Outbound::Owed => Err(Misuse::Order),
            _ => Err(Misuse::Over),
        }
    }

    /// Whether a part of a file is on its way, behind which nothing can be put.
    pub(crate) fn sends_file(&self) -> bool {
        self.file.left > 0 || self.relay != Relay::default()
    }

    /// Names a part of the handler's file as the next bytes to send; `framed`: it is a chunk.
    pub(crate) fn send_file(&mut self, offset: u64, len: u64, framed: bool) {
        self.file = FilePart { offset, left: len };
        self.relay.tail = if framed { Relay::TAIL.len() as u8 } else { 0 };
    }

    /// Ends the body of which everything has been said.
    pub(crate) fn end_body(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        if self.cycle.outbound == Outbound::Body(Encoder::Chunked) {
            buf.output.bytes.extend_from_slice(b"0\r\n");
            buf.output.bytes.append(&mut buf.trailing);
            buf.output.bytes.extend_from_slice(b"\r\n");
        }
        self.answering(buf, cx).end();
    }

    /// Ends a body that was to end behind a file, when that is out.
    pub(crate) fn finish_handler(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let due =
            !self.has_unsent(buf) && self.handling().is_some_and(|handling| std::mem::take(&mut handling.finishes));
        if due {
            self.end_body(buf, cx);
        }
        due
    }

    /// The handler cannot keep what its head promised.
    pub(crate) fn fail_handler(&mut self) {
        self.note(Input::Broken(Fault::Handler));
    }

    /// How much of the body lies unread at the front of the window, framing removed.
    pub(crate) fn body_available(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> usize {
        let Inbound::Body(mut decoder) = self.cycle.inbound else { return 0 };
        match decoder.decode(buf.input.unread(), &cx.config.limits) {
            Ok(piece) => {
                let trailers = &buf.input.unread()[piece.trailers..piece.skip];
                buf.trailers.extend_from_slice(trailers);
                buf.input.consume(piece.skip);
                self.cycle.inbound = Inbound::Body(decoder);
                if piece.end && piece.data == 0 {
                    self.cycle.inbound_to(Inbound::Done);
                }
                piece.data
            }
            Err(violation) => {
                self.body_violation(violation, buf, cx);
                0
            }
        }
    }

    /// `n` bytes of the body were used.
    pub(crate) fn body_took(&mut self, buf: &mut Buffers, n: usize) {
        if let Inbound::Body(decoder) = &mut self.cycle.inbound {
            decoder.took(n);
            buf.input.consume(n);
        }
    }
}

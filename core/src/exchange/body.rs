//! Reading the body of a request, or deciding that nobody wants it.

use super::{Answer, BodyUse, ResponseBuilder};
use crate::error::Violation;
use crate::reason::Rule;
use crate::status::StatusCode;
use crate::wire::{Inbound, InboundEvent, Span};

impl ResponseBuilder<'_> {
    /// How much of the body lies unread at the front of the window, framing removed.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub(crate) fn available(&mut self) -> Result<usize, Violation> {
        let Inbound::Body(mut decoder) = self.cycle.inbound else { return Ok(0) };
        let piece = decoder.decode(self.buf.input.unread(), &self.cx.config.limits)?;
        let trailers = &self.buf.input.unread()[piece.trailers..piece.skip];
        self.buf.trailers.extend_from_slice(trailers);
        self.buf.input.consume(piece.skip);
        self.cycle.inbound = Inbound::Body(decoder);
        if piece.end && piece.data == 0 {
            self.cycle.receive(InboundEvent::BodyEnd);
        }
        Ok(piece.data)
    }

    /// `n` bytes of the body were used.
    pub(crate) fn took(&mut self, n: usize) {
        if let Inbound::Body(decoder) = &mut self.cycle.inbound {
            decoder.took(n);
            self.buf.input.consume(n);
        }
    }

    /// Whether a body that nobody wants stands no longer in the way of a response.
    pub(crate) fn settle_body(&mut self) -> bool {
        let Inbound::Body(decoder) = self.cycle.inbound else { return true };
        let fate = Unwanted::of(self.exchange.body, decoder.at_least(), self.cx.config.limits.drain);
        self.buf.reasons.note(fate.rule(), b"");
        match fate {
            Unwanted::Unsent | Unwanted::TooLong => {
                self.give_up_body();
                true
            }
            Unwanted::Dropped => {
                self.exchange.body = BodyUse::Dropped;
                false
            }
        }
    }

    /// What is left of the body is not read, and the connection ends after the response.
    pub(crate) fn give_up_body(&mut self) {
        self.exchange.close();
        self.exchange.body = BodyUse::Read;
        self.cycle.stop_receiving();
    }

    /// Reads and drops a body that nobody wants, as far as `limits.drain`. `Ok(false)`: nothing moved.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub(crate) fn drain(&mut self) -> Result<bool, Violation> {
        let limits = &self.cx.config.limits;
        while let Inbound::Body(mut decoder) = self.cycle.inbound {
            // No further than one byte beyond the limit, so that it does not matter how much has come.
            let unread = self.buf.input.unread();
            let most = usize::try_from(limits.drain.saturating_sub(self.exchange.drained)).unwrap_or(usize::MAX);
            let piece = decoder.decode(&unread[..unread.len().min(most.saturating_add(1))], limits)?;
            self.buf.input.consume(piece.skip + piece.data);
            if piece.data > 0 {
                decoder.took(piece.data);
            }
            self.cycle.inbound = Inbound::Body(decoder);
            self.exchange.drained += (piece.skip + piece.data) as u64;
            if self.exchange.drained > limits.drain {
                self.buf.reasons.note(Rule::BodyUnread, b"");
                self.give_up_body();
                return Ok(true);
            }
            if piece.end && piece.data == 0 {
                self.cycle.receive(InboundEvent::BodyEnd);
                self.exchange.body = BodyUse::Read;
                return Ok(true);
            }
            if piece.data == 0 {
                break;
            }
        }
        if self.eof { Err(Violation::IncompleteBody) } else { Ok(false) }
    }

    /// Whether the body is welcome that a peer waits to send (RFC 9110 section 10.1.1). If it is not, that is the
    /// response.
    pub(crate) fn may_continue(&mut self) -> bool {
        if self.exchange.body != BodyUse::AwaitsContinue || self.exchange.answer != Answer::None {
            return true;
        }
        let Err(status) = self.cx.policy.expect_continue(&self.request()) else { return true };
        self.exchange.body = BodyUse::Read;
        self.exchange.close();
        if status == StatusCode::EXPECTATION_FAILED {
            self.refuse(Violation::UnknownExpectation, Span::default());
        } else {
            self.error(status, status.phrase());
        }
        false
    }

    /// The interim response that lets a waiting peer send its body.
    pub(crate) fn send_continue(&mut self) {
        const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        if self.exchange.answer == Answer::None && self.exchange.body == BodyUse::AwaitsContinue {
            self.exchange.body = BodyUse::Read;
            self.buf.output.bytes.extend_from_slice(INTERIM);
            self.exchange.head_left += INTERIM.len() as u32;
            self.exchange.interim_left += INTERIM.len() as u32;
        }
    }
}

/// What becomes of a body that nobody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwanted {
    /// A peer that waits for 100 gets its final response instead; whether it then sends the body is its choice (RFC 9110
    /// section 10.1.1), so the connection cannot go on.
    Unsent,
    /// It is not worth reading: the connection ends instead.
    TooLong,
    /// It is read first, so that the response does not depend on how much of it has come.
    Dropped,
}

impl Unwanted {
    fn of(body: BodyUse, at_least: u64, most: u64) -> Unwanted {
        match body {
            BodyUse::AwaitsContinue => Unwanted::Unsent,
            BodyUse::Read | BodyUse::Dropped if at_least > most => Unwanted::TooLong,
            BodyUse::Read | BodyUse::Dropped => Unwanted::Dropped,
        }
    }

    fn rule(self) -> Rule {
        match self {
            Unwanted::Unsent => Rule::ExpectAnswered,
            Unwanted::TooLong => Rule::BodyUnread,
            Unwanted::Dropped => Rule::BodyDropped,
        }
    }
}

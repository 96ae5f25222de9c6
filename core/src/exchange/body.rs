//! Reads the body of a request, or decides that it is not used.

use super::{Answer, BodyUse, ResponseBuilder};
use crate::error::Violation;
use crate::reason::Rule;
use crate::status::StatusCode;
use crate::wire::{Inbound, InboundEvent, Span};

impl ResponseBuilder<'_> {
    /// How much of the body is available at the front of the window, without framing.
    ///
    /// # Errors
    /// The protocol error, if the body is invalid.
    pub(crate) fn available(&mut self) -> Result<usize, Violation> {
        let Inbound::Body(mut decoder) = self.cycle.inbound else { return Ok(0) };
        let piece = decoder.decode(self.buf.input.unread(), &self.cx.config.limits)?;
        let trailers = &self.buf.input.unread()[piece.trailers..piece.skip];
        self.buf.trailers.extend_from_slice(trailers);
        self.buf.input.consume(piece.skip);
        self.buf.account.received += piece.skip as u64;
        self.cycle.inbound = Inbound::Body(decoder);
        if piece.end && piece.data == 0 {
            self.cycle.receive(InboundEvent::BodyEnd);
        }
        Ok(piece.data)
    }

    /// Records that `n` bytes of the body were used.
    pub(crate) fn took(&mut self, n: usize) {
        if let Inbound::Body(decoder) = &mut self.cycle.inbound {
            decoder.took(n);
            self.buf.input.consume(n);
            self.buf.account.received += n as u64;
        }
    }

    /// Whether an unused body no longer prevents a response.
    pub(crate) fn settle_body(&mut self) -> bool {
        let Inbound::Body(decoder) = self.cycle.inbound else { return true };
        let rule = match self.exchange.body {
            // The client waits for 100 (Continue), and gets the final response instead. It may then send the body or not
            // (RFC 9110 section 10.1.1), so the connection cannot continue.
            BodyUse::AwaitsContinue => Rule::ExpectAnswered,
            // It is too long to be read: the connection closes instead.
            _ if decoder.at_least() > self.cx.config.limits.drain => Rule::BodyUnread,
            // It is read before the response, so that the response does not depend on how much of it has arrived.
            BodyUse::Read | BodyUse::Dropped => Rule::BodyDropped,
        };
        self.buf.reasons.note(rule, b"");
        if rule == Rule::BodyDropped {
            self.exchange.body = BodyUse::Dropped;
            return false;
        }
        self.give_up_body();
        true
    }

    /// Stops reading the body. The connection closes after the response.
    pub(crate) fn give_up_body(&mut self) {
        self.exchange.close();
        self.exchange.body = BodyUse::Read;
        self.cycle.stop_receiving();
    }

    /// Reads and discards an unused body, up to `limits.drain`. Returns whether anything has changed.
    ///
    /// # Errors
    /// The protocol error, if the body is invalid.
    pub(crate) fn drain(&mut self) -> Result<bool, Violation> {
        let limits = &self.cx.config.limits;
        while let Inbound::Body(mut decoder) = self.cycle.inbound {
            // Reads at most one byte beyond the limit, so that the result does not depend on how much has arrived.
            let unread = self.buf.input.unread();
            let most = usize::try_from(limits.drain.saturating_sub(self.exchange.drained)).unwrap_or(usize::MAX);
            let piece = decoder.decode(&unread[..unread.len().min(most.saturating_add(1))], limits)?;
            self.buf.input.consume(piece.skip + piece.data);
            if piece.data > 0 {
                decoder.took(piece.data);
            }
            self.cycle.inbound = Inbound::Body(decoder);
            self.exchange.drained += (piece.skip + piece.data) as u64;
            self.buf.account.received += (piece.skip + piece.data) as u64;
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

    /// Responds that the policy does not meet the expectation of the request.
    pub(crate) fn refuse_expectation(&mut self, status: StatusCode) {
        if status == StatusCode::EXPECTATION_FAILED {
            self.refuse(Violation::UnknownExpectation, Span::default());
        } else {
            self.error(status, status.phrase());
        }
    }

    /// Sends the interim response that lets a waiting client send its body.
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

//! The task that answers from the embedder's handler: when to call it, and with what.

use crate::error::Violation;
use crate::exchange::{BodyUse, Progress, ResponseBuilder};
use crate::step::Call;
use crate::wire::Inbound;

/// How far a handler has come with its exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandlerTask {
    stage: Stage,
    body: Body,
    /// It waits for room.
    pub(crate) wants_room: bool,
    /// The driver has passed on a wake-up.
    pub(crate) woken: bool,
    /// It has been told that the server goes down.
    told_drain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It is about to be called with the request.
    #[default]
    New,
    /// It has been called, and answers.
    Active,
    /// It has said all, and what it said last is still on its way.
    Finishing,
    /// It has handed the request on to the files.
    Declined,
    /// It has been told that the exchange is over.
    Over,
}

/// The body of the request, as the handler wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    Unasked,
    /// It waits for more.
    ReadTimer,
    /// That has come, or will not: a call is due.
    Ready,
}

impl HandlerTask {
    /// The call that is due because the exchange is over, once.
    pub(crate) fn take_last_call(&mut self) -> Option<Call> {
        if matches!(self.stage, Stage::New | Stage::Over) {
            return None;
        }
        self.stage = Stage::Over;
        Some(Call::Over)
    }

    /// The call that is due, once. `is_out`: nothing of the response is on its way.
    pub(crate) fn take_call(&mut self, answering: bool, drains: bool, is_out: bool) -> Option<Call> {
        if self.stage == Stage::New {
            self.stage = Stage::Active;
            return Some(Call::Request);
        }
        if !answering {
            return None;
        }
        if drains && self.stage == Stage::Active && !std::mem::replace(&mut self.told_drain, true) {
            return Some(Call::Drain);
        }
        if std::mem::take(&mut self.woken) {
            return Some(Call::Wake);
        }
        if self.wants_room && is_out {
            self.wants_room = false;
            return Some(Call::Room);
        }
        if self.body == Body::Ready {
            self.body = Body::Unasked;
            return Some(Call::Body);
        }
        None
    }

    /// Goes on with what the handler waits for: the body, or the end of what it has said.
    pub(crate) fn advance(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if !response.cycle.is_answering() {
            return Progress::Stalled;
        }
        match self.stage {
            Stage::Declined if response.exchange.body == BodyUse::Dropped || response.has_unsent() => Progress::Stalled,
            Stage::Declined => Progress::Serve,
            Stage::New | Stage::Active | Stage::Finishing => match self.find_body(response) {
                Progress::Stalled => self.end(response),
                progress => progress,
            },
            Stage::Over => Progress::Stalled,
        }
    }

    /// Looks for the body that the handler waits for: more of it, its end, or why there is none.
    fn find_body(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if self.body != Body::ReadTimer {
            return Progress::Stalled;
        }
        match response.available() {
            Err(violation) => return Progress::Violation(violation),
            Ok(0) if matches!(response.cycle.inbound, Inbound::Body(_)) => {
                return if response.eof { Progress::Violation(Violation::IncompleteBody) } else { Progress::Stalled };
            }
            Ok(_) => {}
        }
        self.body = Body::Ready;
        Progress::Moved
    }

    /// Ends a body that was to end after a file, when that is out.
    fn end(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if self.stage != Stage::Finishing || response.has_unsent() {
            return Progress::Stalled;
        }
        self.stage = Stage::Active;
        response.end_body();
        Progress::Moved
    }

    /// It has found nothing of the body, and waits for more.
    pub(crate) fn wait_for_body(&mut self) {
        if self.body == Body::Unasked {
            self.body = Body::ReadTimer;
        }
    }

    /// Whether it waits for the body.
    pub(crate) fn wants_body(&self) -> bool {
        self.body != Body::Unasked
    }

    /// It has said all; what it said last is still on its way.
    pub(crate) fn finish(&mut self) {
        self.stage = Stage::Finishing;
        self.wants_room = false;
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.stage == Stage::Finishing
    }

    /// Lets the files answer instead.
    pub(crate) fn decline(&mut self) {
        self.stage = Stage::Declined;
    }

    pub(crate) fn has_declined(&self) -> bool {
        self.stage == Stage::Declined
    }

    /// Whether the response is still its own.
    pub(crate) fn may_answer(&self) -> bool {
        !matches!(self.stage, Stage::Declined | Stage::Over)
    }

    /// How far it has come, for those who show it.
    pub(crate) fn stage(&self) -> &'static str {
        match self.stage {
            Stage::Declined => "lets the files answer",
            Stage::Over => "knows that the exchange is over",
            Stage::New => "is about to be called",
            Stage::Finishing => "has said all",
            Stage::Active if self.wants_body() => "waits for the body",
            Stage::Active if self.wants_room => "waits for room",
            Stage::Active => "is in charge",
        }
    }
}

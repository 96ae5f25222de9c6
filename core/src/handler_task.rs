//! The task that responds with the handler of an embedder: when to call it, and with what. What a handler can do is in
//! [`Reply`](crate::Reply).

use crate::error::Violation;
use crate::exchange::{BodyUse, Progress, ResponseBuilder};
use crate::step::Call;
use crate::wire::Inbound;

/// The state of a handler in an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandlerTask {
    stage: Stage,
    body: Body,
    /// Whether it waits for room.
    pub(crate) wants_room: bool,
    /// Whether the driver has passed a wake.
    pub(crate) woken: bool,
    /// Whether it was called with `Drain`.
    called_drain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has not been called yet.
    #[default]
    New,
    /// It has been called, and responds.
    Active,
    /// It has ended the response, and the rest is still being sent.
    Finishing,
    /// It has declined the request.
    Declined,
    /// It has been called with `Over`.
    Over,
}

/// Whether the handler waits for the body of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    Unused,
    /// It waits for more.
    Waiting,
    /// More has arrived, or will not arrive: a call is due.
    Ready,
}

impl HandlerTask {
    /// The call at the end of the exchange. Returned once.
    pub(crate) fn take_last_call(&mut self) -> Option<Call> {
        if matches!(self.stage, Stage::New | Stage::Over) {
            return None;
        }
        self.stage = Stage::Over;
        Some(Call::Over)
    }

    /// The call that is due. Returned once. `is_out`: everything of the response has been sent.
    pub(crate) fn take_call(&mut self, answering: bool, drains: bool, is_out: bool) -> Option<Call> {
        if self.stage == Stage::New {
            self.stage = Stage::Active;
            return Some(Call::Request);
        }
        if !answering {
            return None;
        }
        if drains && self.stage == Stage::Active && !std::mem::replace(&mut self.called_drain, true) {
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
            self.body = Body::Unused;
            return Some(Call::Body);
        }
        None
    }

    /// Advances what the handler waits for: the body, or the end of its response.
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

    /// Looks for the body that the handler waits for: more of it, its end, or an error.
    fn find_body(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if self.body != Body::Waiting {
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

    /// Ends a body after a part of a file has been sent.
    fn end(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if self.stage != Stage::Finishing || response.has_unsent() {
            return Progress::Stalled;
        }
        self.stage = Stage::Active;
        response.end_body();
        Progress::Moved
    }

    /// Records that the handler has found nothing of the body, and waits for more.
    pub(crate) fn wait_for_body(&mut self) {
        if self.body == Body::Unused {
            self.body = Body::Waiting;
        }
    }

    /// Whether it waits for the body.
    pub(crate) fn wants_body(&self) -> bool {
        self.body != Body::Unused
    }

    /// Records the end of the response. The rest is still being sent.
    pub(crate) fn finish(&mut self) {
        self.stage = Stage::Finishing;
        self.wants_room = false;
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.stage == Stage::Finishing
    }

    /// Declines the request.
    pub(crate) fn decline(&mut self) {
        self.stage = Stage::Declined;
    }

    pub(crate) fn has_declined(&self) -> bool {
        self.stage == Stage::Declined
    }

    /// Whether it may still respond.
    pub(crate) fn may_answer(&self) -> bool {
        !matches!(self.stage, Stage::Declined | Stage::Over)
    }

    /// The current stage, for display.
    pub(crate) fn stage(&self) -> &'static str {
        match self.stage {
            Stage::Declined => "has declined",
            Stage::Over => "is over",
            Stage::New => "is about to be called",
            Stage::Finishing => "has ended the response",
            Stage::Active if self.wants_body() => "waits for the body",
            Stage::Active if self.wants_room => "waits for room",
            Stage::Active => "responds",
        }
    }
}

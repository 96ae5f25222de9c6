//! The task for files in a build without the feature `files`: no path leads to a file.

use crate::buffers::Scratch;
use crate::error::Violation;
use crate::exchange::{Progress, ResponseBuilder};
use crate::input::Completion;
use crate::path::Forbidden;
use crate::reason::Rule;
use crate::status::StatusCode;
use crate::step::Action;
use crate::wire::Span;

/// A response from a file. There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Files {}

/// An action that is requested from the driver. There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PendingAction {}

impl Files {
    /// Refuses the request as for a file that does not exist.
    pub(crate) fn start(answer: &mut ResponseBuilder<'_>) -> Option<Files> {
        let policy = answer.cx.policy;
        let (request, Scratch { path, .. }, reasons) = answer.split();
        path.clear();
        if let Err(Forbidden::Nul) = policy.translate(request.path(), path) {
            answer.refuse(Violation::NulInPath, Span::default());
            return None;
        }
        reasons.note(Rule::NotFound, path);
        answer.error(StatusCode::NOT_FOUND, "File not found");
        None
    }

    pub(crate) fn is_written(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_read_head(&self) -> bool {
        match *self {}
    }

    pub(crate) fn stage(&self) -> &'static str {
        match *self {}
    }

    pub(crate) fn take_pending(&mut self) -> Option<PendingAction> {
        match *self {}
    }

    pub(crate) fn is_waiting(&self) -> bool {
        match *self {}
    }

    pub(crate) fn complete(&mut self, _: Completion) {
        match *self {}
    }

    pub(crate) fn action<'a>(&self, _: PendingAction, _: &'a mut Scratch) -> Action<'a> {
        match *self {}
    }

    pub(crate) fn advance(&mut self, _: &mut ResponseBuilder<'_>) -> Progress {
        match *self {}
    }
}

//! The task for scripts in a build without the feature `cgi`: no path leads to a script.

use std::convert::Infallible;
use std::iter::Empty;

use crate::buffers::Buffers;
use crate::context::Context;
use crate::exchange::{Progress, ResponseBuilder};
use crate::input::{Completion, Input};
use crate::path::Forbidden;
use crate::step::Action;
use crate::time::Tick;
use crate::timer::{Timer, Transfer};
use crate::wire::Method;

/// Where the name of a script begins in a path. There is none.
pub(crate) type ScriptAt = Infallible;

/// A response from a script. There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cgi {}

/// An action that is requested from the driver. There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PendingAction {}

/// No path is that of a script.
pub(crate) fn find(response: &mut ResponseBuilder<'_>) -> Result<Option<ScriptAt>, Forbidden> {
    response.buf.scratch.path.clear();
    Ok(None)
}

pub(crate) fn is_method(_: Method) -> bool {
    false
}

impl Cgi {
    pub(crate) fn start(from: ScriptAt, _: Tick) -> Box<Cgi> {
        match from {}
    }

    pub(crate) fn handle(&mut self, _: &Input) {
        match *self {}
    }

    pub(crate) fn complete(&mut self, _: &Completion) {
        match *self {}
    }

    pub(crate) fn take_pending(&mut self) -> Option<PendingAction> {
        match *self {}
    }

    pub(crate) fn action<'a>(&self, _: PendingAction, _: &'a Buffers, _: &Context<'_>) -> Action<'a> {
        match *self {}
    }

    pub(crate) fn give_up(&mut self) {
        match *self {}
    }

    pub(crate) fn abandon(&mut self) {
        match *self {}
    }

    pub(crate) fn take_kill(&mut self) -> Option<PendingAction> {
        match *self {}
    }

    pub(crate) fn is_waiting(&self) -> bool {
        match *self {}
    }

    pub(crate) fn wants_body(&self) -> bool {
        match *self {}
    }

    pub(crate) fn offered(&self) -> usize {
        match *self {}
    }

    pub(crate) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_heard(&self) -> bool {
        match *self {}
    }

    pub(crate) fn pause(&mut self, _: Transfer, _: Tick) {
        match *self {}
    }

    pub(crate) fn resume(&mut self, _: Tick) -> Transfer {
        match *self {}
    }

    pub(crate) fn stage(&self) -> &'static str {
        match *self {}
    }

    pub(crate) fn timers(&self, _: bool, _: &Context<'_>) -> Empty<Timer> {
        match *self {}
    }

    pub(crate) fn deadline(&self, _: bool, _: &Context<'_>) -> Option<Tick> {
        match *self {}
    }

    pub(crate) fn absorb(&mut self, _: bool, _: &mut ResponseBuilder<'_>) {
        match *self {}
    }

    pub(crate) fn expire(&mut self, _: bool, _: &mut ResponseBuilder<'_>) -> Progress {
        match *self {}
    }

    pub(crate) fn advance(&mut self, _: &mut ResponseBuilder<'_>) -> Progress {
        match *self {}
    }
}

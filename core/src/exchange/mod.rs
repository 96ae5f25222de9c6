//! One request and its response: the state of both, and the interface for tasks.
//!
//! A task (files, a script, a handler) borrows the exchange as a [`ResponseBuilder`]. With it, the task reads the body
//! of the request and writes the response. The result is a [`Progress`]. What happens to the connection is not decided
//! here.

mod body;
mod conditions;
mod response;
mod rules;

pub(crate) use response::{Page, Phrase, check_final};

use crate::buffers::{Buffers, Scratch};
use crate::context::Context;
use crate::error::Violation;
use crate::input::Fault;
use std::sync::Arc;

use crate::peer::Peer;
use crate::reason::Reasons;
use crate::request::Request;
use crate::secured::Secured;
use crate::status::StatusCode;
use crate::step::Close;
use crate::wire::Cycle;

/// The state of the current exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) asked: Asked,
    pub(crate) answer: Answer,
    pub(crate) body: BodyUse,
    pub(crate) then: Then,
    pub(crate) path: PathOf,
    /// The number of bytes in the output that are not body: the head of the response, and interim responses.
    pub(crate) head_left: u32,
    /// The number of bytes in the output that are interim responses; included in `head_left`.
    pub(crate) interim_left: u32,
    /// The number of bytes of the body that were sent.
    pub(crate) body_sent: u64,
    /// The number of bytes of an unused body that were read so far.
    pub(crate) drained: u64,
    /// Whether some of the response was sent.
    pub(crate) is_out: bool,
    /// Whether the request is a HEAD.
    pub(crate) is_head: bool,
    /// Whether the request is HTTP/1.1 or later.
    pub(crate) is_11: bool,
    /// Whether the target is the path of a script.
    pub(crate) is_script: bool,
    /// Whether `Scratch::remarks` has to be logged.
    pub(crate) has_remarks: bool,
    /// The number of local redirects so far.
    pub(crate) redirects: u8,
    /// Why the response was cut short.
    pub(crate) cut: Option<Cut>,
}

impl Exchange {
    /// Whether an exchange has begun and is not finished.
    pub(crate) fn is_open(&self) -> bool {
        self.asked != Asked::Nothing
    }

    /// Closes the connection after this response.
    pub(crate) fn close(&mut self) {
        if self.then == Then::KeepAlive {
            self.then = Then::Close;
        }
    }
}

/// What has arrived of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Nothing,
    /// Something that is invalid, or not parsed yet.
    Unparsed,
    /// A parsed head, so that the policy can be asked about the request.
    Request,
}

/// The kind of response, once its head is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    None,
    Status(StatusCode),
    /// An error page with the message in `Scratch::message`.
    Error(StatusCode),
}

impl Answer {
    pub(crate) fn status(self) -> Option<StatusCode> {
        match self {
            Answer::None => None,
            Answer::Status(status) | Answer::Error(status) => Some(status),
        }
    }

    pub(crate) fn is_error(self) -> bool {
        matches!(self, Answer::Error(_))
    }
}

/// How the body of the request is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyUse {
    /// It is read by the task, if at all.
    #[default]
    Read,
    /// The client waits for `100 Continue` before it sends the body.
    AwaitsContinue,
    /// It is not used: it is read to its end, or up to `limits.drain`, before the response.
    Dropped,
}

/// What happens to the connection after the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    KeepAlive,
    #[default]
    Close,
    /// The client asked to close the connection.
    PeerCloses,
    /// Another protocol takes over.
    Upgrade,
}

/// What `Scratch::path` refers to, for patterns of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PathOf {
    /// Nothing that the response is about.
    #[default]
    Nothing,
    /// A file that is sent.
    File,
    /// A directory that is listed.
    Directory,
    /// The page of the application, which is sent in place of a file.
    Spa,
    /// Something of the server itself, which only has the fields for every response.
    Health,
}

/// Why a response was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Fault(Fault),
    Body,
    Slow,
    Shutdown,
    Gone,
    Unsecured,
    ScriptSlow,
    ScriptShort,
    ScriptChunks,
}

impl Cut {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Cut::Fault(Fault::Peer) => "the peer went away",
            Cut::Fault(Fault::FileShrank) => "the file became shorter",
            Cut::Fault(Fault::FileChanged) => "the file was rewritten",
            Cut::Fault(Fault::File) => "the file could not be read",
            Cut::Fault(Fault::Handler) => "the handler failed",
            Cut::Body => "the request's body broke off",
            Cut::Slow => "the peer was too slow",
            Cut::Shutdown => "the server shut down",
            Cut::Gone => "the peer seems to have gone away",
            Cut::Unsecured => "it is not HTTPS",
            Cut::ScriptSlow => "the script took too long",
            Cut::ScriptChunks => "the script's chunks are malformed",
            Cut::ScriptShort => "the script ended before the length it announced",
        }
    }
}

/// A part of the open file that has to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

/// Output of a script that has to be sent from its window, and what follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passthrough {
    pub(crate) left: u32,
    /// How much of [`Passthrough::TAIL`] is missing.
    pub(crate) tail: u8,
}

impl Passthrough {
    /// The end of a chunk.
    pub(crate) const TAIL: &'static [u8] = b"\r\n";

    pub(crate) fn tail(&self) -> &'static [u8] {
        &Self::TAIL[Self::TAIL.len() - usize::from(self.tail)..]
    }
}

/// The life cycle of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    #[default]
    Stays,
    /// It reports that it is not healthy, but continues.
    Leaves,
    Drains,
}

/// The result of advancing a task.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing has changed: something has to happen first.
    Stalled,
    /// It has advanced, and may advance further.
    Moved,
    /// The rest of the request's body is invalid.
    Violation(Violation),
    /// The response cannot be completed, and the connection closes.
    Cut(Cut, Close),
    /// Files or a script have to respond instead of this task.
    Serve,
}

/// An exchange while a task advances: everything that is needed to read the body of the request and to write the
/// response.
pub(crate) struct ResponseBuilder<'t> {
    pub(crate) exchange: &'t mut Exchange,
    pub(crate) cycle: &'t mut Cycle,
    pub(crate) file: &'t mut FilePart,
    pub(crate) relay: &'t mut Passthrough,
    pub(crate) buf: &'t mut Buffers,
    pub(crate) cx: &'t Context<'t>,
    pub(crate) peer: Peer,
    pub(crate) secured: Option<&'t Arc<Secured>>,
    pub(crate) server: Server,
    /// Whether the client has half-closed.
    pub(crate) eof: bool,
}

impl ResponseBuilder<'_> {
    pub(crate) fn request(&self) -> Request<'_> {
        Request { head: &self.buf.head, bytes: self.buf.head_bytes(), peer: self.peer, secured: self.secured }
    }

    /// The request, what is derived from it, and the recorded decisions.
    pub(crate) fn split(&mut self) -> (Request<'_>, &mut Scratch, &mut Reasons) {
        self.buf.split(self.peer, self.secured)
    }

    /// Records decisions that depend on the request. `note` is only called if decisions are recorded.
    pub(crate) fn explain(&mut self, note: impl FnOnce(&Request<'_>, &Scratch, &mut Reasons)) {
        if self.buf.reasons.are_wanted() {
            let (request, scratch, reasons) = self.split();
            note(&request, scratch, reasons);
        }
    }

    /// Whether some of the response has not been sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.file.left > 0 || *self.relay != Passthrough::default() || !self.buf.output.unsent().is_empty()
    }
}

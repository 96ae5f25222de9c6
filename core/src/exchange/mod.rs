//! One request and its response: what is known of both, and the tool that a task is given to go on with them.
//!
//! A task (files, a script, a handler) borrows the exchange as a [`ResponseBuilder`]. It reads the body of the request
//! and writes the response through it, and says with [`Progress`] what came of that. What becomes of the connection
//! is not decided here.

mod body;
mod response;

pub(crate) use response::{Page, Phrase};

use crate::buffers::{Buffers, Scratch};
use crate::context::Context;
use crate::error::Violation;
use crate::input::Fault;
use crate::peer::Peer;
use crate::reason::Reasons;
use crate::request::Request;
use crate::status::StatusCode;
use crate::step::Close;
use crate::wire::Cycle;

/// What is known of the current exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) asked: Asked,
    pub(crate) answer: Answer,
    pub(crate) body: BodyUse,
    pub(crate) then: Then,
    /// Bytes in the output that are no body: the head of the answer, an interim answer.
    pub(crate) head_left: u32,
    /// Bytes in the output that are an interim answer; `head_left` counts them too.
    pub(crate) interim_left: u32,
    /// Bytes of the body that went out.
    pub(crate) body_sent: u64,
    /// Bytes of a body that nobody wants that were read so far.
    pub(crate) drained: u64,
    /// Some of the answer went out.
    pub(crate) is_out: bool,
    /// The request is a HEAD.
    pub(crate) is_head: bool,
    /// The request is HTTP/1.1 or later.
    pub(crate) is_11: bool,
    /// The target means a script.
    pub(crate) is_script: bool,
    /// `Scratch::remarks` is to be logged.
    pub(crate) has_remarks: bool,
    /// Local redirects so far.
    pub(crate) redirects: u8,
    /// Why the answer was cut short.
    pub(crate) cut: Option<Cut>,
}

impl Exchange {
    /// Whether there is one: begun, and not finished.
    pub(crate) fn is_open(&self) -> bool {
        self.asked != Asked::Nothing
    }

    /// Ends the connection after this answer.
    pub(crate) fn close(&mut self) {
        if self.then == Then::KeepAlive {
            self.then = Then::Close;
        }
    }
}

/// What has come of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    #[default]
    Nothing,
    /// Something that is not, or not yet, understood.
    Unparsed,
    /// A head that is parsed, so that the policy can be asked about the request.
    Request,
}

/// What the answer is, once its head is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    None,
    Status(StatusCode),
    /// An error page; `Scratch::message` is its message.
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

/// What becomes of the body of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyUse {
    /// It is read, if anybody reads it.
    #[default]
    Read,
    /// The peer waits for `100 Continue` before it sends it.
    AwaitsContinue,
    /// Nobody wants it: it is read to its end, or to `limits.drain`, before the answer.
    Dropped,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    KeepAlive,
    #[default]
    Close,
    /// The peer itself asked for the connection to end here.
    PeerCloses,
    /// It is another protocol's.
    Upgrade,
}

/// Why an answer was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Fault(Fault),
    Body,
    Slow,
    Shutdown,
    Gone,
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
            Cut::ScriptSlow => "the script took too long",
            Cut::ScriptChunks => "the script's chunks are malformed",
            Cut::ScriptShort => "the script ended before the length it announced",
        }
    }
}

/// A part of the driver's file that is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

/// Bytes of a script that are to be sent from where they lie, and what follows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passthrough {
    pub(crate) left: u32,
    /// How much of [`Passthrough::TAIL`] is still to come.
    pub(crate) tail: u8,
}

impl Passthrough {
    /// What ends a chunk.
    pub(crate) const TAIL: &'static [u8] = b"\r\n";

    pub(crate) fn tail(&self) -> &'static [u8] {
        &Self::TAIL[Self::TAIL.len() - usize::from(self.tail)..]
    }
}

/// What is known of the server's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    #[default]
    Stays,
    /// It says that it is not healthy, and goes on.
    Leaves,
    Drains,
}

/// What came of letting a task go on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing moved: something has to happen first.
    Stalled,
    /// It went on, and may go on further.
    Moved,
    /// The rest of the request's body is wrong.
    Violation(Violation),
    /// The response cannot be completed, and the connection ends.
    Cut(Cut, Close),
    /// The request is to be served by files or a script, in place of this task.
    Serve,
}

impl Progress {
    /// [`Progress::Moved`] if something moved.
    pub(crate) fn of(moved: bool) -> Progress {
        if moved { Progress::Moved } else { Progress::Stalled }
    }
}

/// An exchange in the hands of a task: all that it takes to read the body of the request and to write the response.
pub(crate) struct ResponseBuilder<'t> {
    pub(crate) exchange: &'t mut Exchange,
    pub(crate) cycle: &'t mut Cycle,
    pub(crate) file: &'t mut FilePart,
    pub(crate) relay: &'t mut Passthrough,
    pub(crate) buf: &'t mut Buffers,
    pub(crate) cx: &'t Context<'t>,
    pub(crate) peer: Peer,
    pub(crate) server: Server,
    /// The peer has half-closed.
    pub(crate) eof: bool,
}

impl ResponseBuilder<'_> {
    pub(crate) fn request(&self) -> Request<'_> {
        Request { head: &self.buf.head, bytes: self.buf.head_bytes(), peer: self.peer }
    }

    /// The request, what is worked out from it, and the reasons.
    pub(crate) fn split(&mut self) -> (Request<'_>, &mut Scratch, &mut Reasons) {
        self.buf.split(self.peer)
    }

    /// Notes what it takes a look at the request to know, where somebody wants to know.
    pub(crate) fn explain(&mut self, note: impl FnOnce(&Request<'_>, &Scratch, &mut Reasons)) {
        if self.buf.reasons.are_wanted() {
            let (request, scratch, reasons) = self.split();
            note(&request, scratch, reasons);
        }
    }

    /// Whether some of what was written or named has not gone out yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.file.left > 0 || *self.relay != Passthrough::default() || !self.buf.output.unsent().is_empty()
    }
}

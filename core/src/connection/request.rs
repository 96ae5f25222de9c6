//! From the bytes of a head to the task that responds, and how unused bodies are discarded. How a head is parsed is in
//! `wire`.

use super::{Connection, Life, Security};
use crate::buffers::{Account, Buffers};
use crate::config::Protocol;
use crate::context::Context;
use crate::error::{After, Violation};
use crate::exchange::{Asked, BodyUse, Cut, Exchange, Progress, Then};
use crate::grammar::is_token_byte;
use crate::reason::{Reasons, Rule};
use crate::request::Request;
use crate::status::StatusCode;
use crate::step::Close;
use crate::task::Task;
use crate::timer::ReadTimer;
use crate::wire::{
    Decoder, Expectation, Framing, Head, HeadError, Inbound, InboundEvent, Known, Outbound, OutboundEvent, Scan, Span,
    Target, Terms,
};

/// Why a request has no task.
enum Refused {
    /// Its head is invalid.
    Head(HeadError),
    /// The policy does not meet its expectation.
    Expectation(StatusCode),
}

impl From<HeadError> for Refused {
    fn from(error: HeadError) -> Refused {
        Refused::Head(error)
    }
}

impl Connection {
    fn head_of<'b>(&'b self, head: &'b Head, bytes: &'b [u8]) -> Request<'b> {
        Request { head, bytes, peer: self.peer, secured: self.secured.as_ref() }
    }

    /// Reads the next head, if it is complete.
    #[inline(always)]
    pub(super) fn read_head(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        match self.cycle.inbound {
            Inbound::Head(_) if buf.input.unread().is_empty() => self.end_between(),
            Inbound::Head(scan) => self.read_begun_head(scan, buf, cx),
            _ => false,
        }
    }

    /// The same where some of it is there.
    fn read_begun_head(&mut self, mut scan: Scan, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let limits = &cx.config.limits;
        if scan.is_new() {
            if let Some(len) = buf.head.parse_at_once(buf.input.unread(), limits) {
                self.begin(len, Ok(()), buf, cx);
                return true;
            }
        }
        let found = loop {
            let unread = buf.input.unread();
            match scan.blank_line(unread, limits) {
                Ok(true) => buf.input.consume(2),
                Ok(false) if unread.first().is_some_and(|&byte| !is_plausible(byte)) => {
                    break Err(Violation::MalformedLine);
                }
                Ok(false) => break scan.find_end(unread, limits),
                Err(violation) => break Err(violation),
            }
        };
        if let Ok(Some(len)) = found {
            let parsed = buf.head.parse(&buf.input.unread()[..len]);
            self.begin(len, parsed, buf, cx);
            return true;
        }
        let new_line = scan.line_is_new();
        self.cycle.inbound = Inbound::Head(scan);
        let line = if new_line { buf.head.parse_line(buf.input.unread()).map(drop) } else { Ok(()) };
        match (line, found) {
            // An invalid request line is refused before the rest has arrived, and before any error in the rest.
            (Err(refused), _) => self.refuse_head(refused.violation, refused.text, buf, cx),
            (Ok(()), Err(violation)) => {
                // The quoted part of an implausible line must not depend on how much has arrived.
                let first = if violation == Violation::MalformedLine { 1 } else { 0 };
                self.refuse_head(violation, Span::new(0, first), buf, cx);
            }
            (Ok(()), Ok(_)) if buf.input.unread().is_empty() => return self.end_between(),
            (Ok(()), Ok(_)) if self.notes.eof => self.refuse_head(Violation::IncompleteHead, Span::default(), buf, cx),
            (Ok(()), Ok(_)) if !buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share) => {
                self.refuse_head(Violation::OutOfMemory, Span::default(), buf, cx);
            }
            (Ok(()), Ok(_)) => return false,
        }
        true
    }

    /// Between two exchanges, without a byte of the next one: whether the connection ends here.
    pub(super) fn end_between(&mut self) -> bool {
        if self.notes.eof {
            self.life = Life::Close(Close::Done);
        } else if self.notes.is_draining() && self.served {
            self.life = Life::Close(Close::Drained);
        }
        self.life != Life::Open
    }

    /// Begins an exchange with the head of `len` bytes.
    fn begin(&mut self, len: usize, parsed: Result<(), HeadError>, buf: &mut Buffers, cx: &Context<'_>) {
        buf.input.pin(len);
        self.served = true;
        self.begin_account(buf, cx);
        self.exchange.asked = Asked::Unparsed;
        self.cycle.answer(OutboundEvent::Asked);
        match self.interpret(parsed, buf, cx) {
            interpreted if self.notes.security == Security::Unsecured => {
                return self.redirect_to_https(!matches!(interpreted, Err(Refused::Head(_))), buf, cx);
            }
            Ok(()) => {}
            Err(Refused::Head(refused)) => return self.response(buf, cx).refuse(refused.violation, refused.text),
            Err(Refused::Expectation(status)) => return self.response(buf, cx).refuse_expectation(status),
        }
        self.task = Task::of(&mut self.response(buf, cx));
    }

    /// Answers plain HTTP where HTTPS is spoken: the client may repeat the request there. Anything that names no host, and
    /// so might not be from an HTTP client, gets no answer.
    #[cold]
    fn redirect_to_https(&mut self, is_valid: bool, buf: &mut Buffers, cx: &Context<'_>) {
        self.exchange.close();
        self.cycle.stop_receiving();
        let mut response = self.response(buf, cx);
        if !is_valid || !response.redirect_to_https() {
            self.cut(Cut::Unsecured, Close::Done, buf);
        }
    }

    /// The head has been read: nothing is expected from the peer, and its exchange is counted from its first byte on.
    fn begin_account(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let since = match std::mem::replace(&mut self.awaited, ReadTimer::Nothing) {
            ReadTimer::Head { since } => since,
            _ => cx.now.tick,
        };
        buf.account = Account { began: since.after(cx.now.lag), received: 0 };
    }

    /// Applies the framing and persistence of the head.
    fn interpret(&mut self, parsed: Result<(), HeadError>, buf: &mut Buffers, cx: &Context<'_>) -> Result<(), Refused> {
        let (head, bytes) = (&buf.head, buf.input.head());
        self.exchange.is_head = is_head(bytes);
        self.exchange.is_11 = head.is_11;
        parsed?;
        self.exchange.asked = Asked::Request;
        let terms = Terms::of(head, bytes, &cx.config.limits);
        if buf.reasons.are_wanted() {
            explain(&terms, &self.head_of(head, bytes), cx.config.protocol, &mut buf.reasons);
        }
        let refused = |violation| HeadError { violation, text: Span::default() };
        terms.host.map_err(refused)?;
        let has_body = match terms.framing.map_err(refused)? {
            Framing::None => None,
            Framing::Length(length) => Some(Decoder::Length(length)),
            Framing::Chunked => Some(Decoder::chunked(&cx.config.limits)),
        };
        match has_body {
            None => self.cycle.receive(InboundEvent::HeadAlone),
            Some(decoder) => self.cycle.receive(InboundEvent::HeadAndBody(decoder)),
        }
        self.exchange.then = match cx.config.protocol {
            _ if !terms.persistence.keeps_alive() => Then::PeerCloses,
            Protocol::Http10 => Then::Close,
            Protocol::Http11 => Then::KeepAlive,
        };
        match terms.expectation {
            Expectation::None => {}
            Expectation::Continue => {
                let request = self.head_of(head, bytes);
                let accepted = cx.policy.expect_continue(&request);
                match (has_body, accepted) {
                    (Some(_), Ok(())) => self.exchange.body = BodyUse::AwaitsContinue,
                    (Some(_), Err(_)) => self.exchange.close(),
                    (None, _) => {}
                }
                accepted.map_err(Refused::Expectation)?;
            }
            Expectation::Unknown => {
                if has_body.is_some() {
                    // It is uncertain whether the body follows.
                    self.exchange.close();
                    self.cycle.stop_receiving();
                }
                return Err(refused(Violation::UnknownExpectation).into());
            }
        }
        Ok(())
    }

    /// Refuses a head that is invalid, or will never be complete; the message quotes `text`.
    pub(super) fn refuse_head(&mut self, violation: Violation, text: Span, buf: &mut Buffers, cx: &Context<'_>) {
        if self.notes.security == Security::Unsecured {
            self.life = Life::Close(Close::Done);
            return;
        }
        let unread = buf.input.unread();
        let line = match violation {
            Violation::LineTooLong => 0,
            Violation::MalformedLine => text.end(),
            _ => memchr::memchr2(b'\r', b'\n', unread).unwrap_or(unread.len()).max(text.end()).min(unread.len()),
        };
        let is_head = is_head(unread);
        buf.input.pin(line);
        self.served = true;
        buf.head.clear();
        buf.head.line = Span::new(0, line);
        self.begin_account(buf, cx);
        self.exchange = Exchange { asked: Asked::Unparsed, is_11: true, is_head, ..Exchange::default() };
        self.cycle.answer(OutboundEvent::Asked);
        let text = if line == 0 { Span::default() } else { text };
        self.response(buf, cx).refuse(violation, text);
    }

    /// Handles an invalid body: refuses the request if there is no response yet.
    pub(crate) fn body_violation(&mut self, violation: Violation, buf: &mut Buffers, cx: &Context<'_>) {
        debug_assert_eq!(violation.row().1, After::Close);
        self.response(buf, cx).give_up_body();
        match self.cycle.outbound {
            Outbound::Owed => {
                match &mut self.task {
                    Task::Files(_) => self.task = Task::None,
                    Task::Cgi(cgi) => cgi.give_up(),
                    Task::None | Task::Handler(_) => {}
                }
                self.response(buf, cx).refuse(violation, Span::default());
            }
            Outbound::Done => self.cycle.spoil(),
            // A response to an incomplete body must not look like one to a complete body.
            Outbound::Body(_) if violation == Violation::BodyTimeout => self.cut(Cut::Slow, Close::Timeout, buf),
            Outbound::Body(_) => self.cut(Cut::Body, Close::Broken, buf),
            _ => {}
        }
    }

    /// Advances the task.
    pub(super) fn advance_task(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let (task, mut response) = self.parts(buf, cx);
        match task.advance(&mut response) {
            Progress::Stalled => false,
            Progress::Moved => true,
            progress => self.follow(progress, buf, cx),
        }
    }

    /// Does what a task leaves to the connection. Returns whether anything has changed.
    #[cold]
    pub(super) fn follow(&mut self, progress: Progress, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        match progress {
            Progress::Stalled => return false,
            Progress::Moved => {}
            Progress::Violation(violation) => self.body_violation(violation, buf, cx),
            Progress::Cut(why, close) => self.cut(why, close, buf),
            Progress::Serve => {
                self.task = Task::None;
                self.task = Task::serve(&mut self.response(buf, cx));
            }
        }
        true
    }

    /// Reads and discards an unused body.
    pub(super) fn drain(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let answered = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose);
        if !(self.exchange.body == BodyUse::Dropped || answered) || !matches!(self.cycle.inbound, Inbound::Body(_)) {
            return false;
        }
        let progress = match self.response(buf, cx).drain() {
            Ok(true) => Progress::Moved,
            Ok(false) => Progress::Stalled,
            Err(violation) => Progress::Violation(violation),
        };
        self.follow(progress, buf, cx)
    }
}

/// Records how a head was interpreted, as far as it was.
#[cold]
fn explain(terms: &Terms, request: &Request<'_>, protocol: Protocol, reasons: &mut Reasons) {
    if terms.host.is_err() {
        return;
    }
    explain_line(request, reasons);
    let Ok(framing) = terms.framing else { return };
    match framing {
        Framing::None => reasons.note(Rule::NoBody, b""),
        Framing::Length(length) => reasons.note(Rule::BodyOfLength, length.to_string().as_bytes()),
        Framing::Chunked => reasons.note(Rule::BodyInChunks, b""),
    }
    reasons.note(terms.persistence.rule(), b"");
    if terms.persistence.keeps_alive() && protocol == Protocol::Http10 {
        reasons.note(Rule::CloseOfProtocol, b"");
    }
    let expectation = match terms.expectation {
        Expectation::None if request.head.has(Known::Expect) && !request.head.is_11 => Rule::ExpectIgnored,
        Expectation::Continue if framing == Framing::None => Rule::ExpectWithoutBody,
        Expectation::Continue => Rule::ExpectContinue,
        Expectation::None | Expectation::Unknown => return,
    };
    reasons.note(expectation, b"");
}

/// Records how the request line and the host were interpreted.
fn explain_line(request: &Request<'_>, reasons: &mut Reasons) {
    let version = match (request.head.is_11, request.version()) {
        (true, b"HTTP/1.1") => Rule::Version11,
        (true, _) => Rule::VersionLater,
        (false, _) => Rule::Version10,
    };
    reasons.note(version, request.version());
    let target = request.head.target_text.of_bytes(request.bytes);
    let (form, host) = match request.head.target {
        Target::Origin => (Rule::OriginForm, Rule::HostOfField),
        Target::Absolute { .. } => (Rule::AbsoluteForm, Rule::HostOfTarget),
        Target::Asterisk => (Rule::AsteriskForm, Rule::HostOfField),
        Target::Authority => (Rule::AuthorityForm, Rule::HostOfField),
    };
    reasons.note(form, target);
    match request.host() {
        Some(name) => reasons.note(host, name),
        None => reasons.note(Rule::HostOptional, b""),
    }
    if request.target().len() < target.len() {
        reasons.note(Rule::LeadingSlashes, request.target());
    }
}

/// Whether a request is a HEAD, even if its line is invalid.
fn is_head(head: &[u8]) -> bool {
    head.starts_with(b"HEAD ")
}

/// Whether a request line may begin with this byte.
fn is_plausible(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b'\r' | b'\n')
}

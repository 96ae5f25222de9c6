//! From the bytes of a head to the task that answers it, and what becomes of a body that nobody wants.

use super::{Connection, Life, Task};
use crate::buffers::Buffers;
use crate::cgi;
use crate::config::Protocol;
use crate::context::Context;
use crate::error::{After, Violation};
use crate::exchange::{Cut, Exchange};
use crate::files::Files;
use crate::grammar::is_token_byte;
use crate::path::{Forbidden, explain_path, is_same_path};
use crate::reason::{Reasons, Rule};
use crate::reply::Handling;
use crate::request::Request;
use crate::site::Route;
use crate::status::Status;
use crate::step::Close;
use crate::timer::Awaited;
use crate::wire::{
    self, Decoder, Encoder, Expectation, Framing, Inbound, Known, Method, Outbound, Persistence, Refused, Span, Target,
};

impl Connection {
    /// Reads the next head, if it is there.
    pub(super) fn read_head(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let limits = &cx.config.limits;
        let Inbound::Head(mut scan) = self.cycle.inbound else { return false };
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
        let new_line = scan.line_is_new();
        self.cycle.inbound = Inbound::Head(scan);
        match found {
            Ok(Some(len)) => self.begin(len, buf, cx),
            // A line that can never be right is refused before the rest has come, and before
            // anything that is wrong with the rest.
            _ if new_line && let Err(refused) = buf.head.parse_line(buf.input.unread()) => {
                self.refuse_head(refused.violation, refused.text, buf, cx);
            }
            Err(violation) => {
                // Of a line that cannot be one, what is quoted must not depend on how much has come.
                let first = if violation == Violation::MalformedLine { 1 } else { 0 };
                self.refuse_head(violation, Span::new(0, first), buf, cx);
            }
            Ok(None) if buf.input.unread().is_empty() => return self.end_between(),
            Ok(None) if self.notes.eof => self.refuse_head(Violation::IncompleteHead, Span::default(), buf, cx),
            Ok(None) if !buf.input.make_room(cx.config.limits.head.saturating_add(1), &mut buf.share) => {
                self.refuse_head(Violation::OutOfMemory, Span::default(), buf, cx);
            }
            Ok(None) => return false,
        }
        true
    }

    /// Between two exchanges, with nothing of the next: whether it ends here.
    pub(super) fn end_between(&mut self) -> bool {
        if self.notes.eof {
            self.life = Life::Close(Close::Done);
        } else if self.notes.is_draining() && self.served {
            self.life = Life::Close(Close::Drained);
        }
        self.life != Life::Open
    }

    /// Begins an exchange with the head of `len` bytes that has been read.
    pub(super) fn begin(&mut self, len: usize, buf: &mut Buffers, cx: &Context<'_>) {
        buf.input.pin(len);
        self.served = true;
        self.awaited = Awaited::Nothing;
        self.exchange = Exchange { open: true, ..Exchange::default() };
        self.cycle.outbound_to(Outbound::Owed);
        if let Err(refused) = self.understand(buf, cx) {
            self.answering(buf, cx).refuse(refused.violation, refused.text);
            return;
        }
        let request = Request { head: &buf.head, bytes: buf.input.head(), peer: self.peer };
        if is_health(&request, cx) {
            return self.serve(buf, cx);
        }
        match cx.site.route(&request) {
            Route::Usual if !cx.config.handled => self.serve(buf, cx),
            Route::Handler | Route::Usual => self.task = Task::Handler(Handling::default()),
            Route::Files => self.serve(buf, cx),
        }
    }

    /// Parses the head and decides about framing and persistence.
    pub(super) fn understand(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> Result<(), Refused> {
        let bytes = buf.input.head();
        let head = &mut buf.head;
        let parsed = head.parse(bytes);
        self.exchange.is_head = is_head(bytes);
        self.exchange.is_11 = head.is_11;
        parsed?;
        self.exchange.parsed = true;
        let refused = |violation| Refused { violation, text: Span::default() };
        wire::check_host(head, bytes).map_err(refused)?;
        let reasons = &mut buf.reasons;
        if reasons.are_wanted() {
            note_line(&Request { head, bytes, peer: self.peer }, reasons);
        }
        let limits = &cx.config.limits;
        let body = match Framing::of(head, bytes, limits).map_err(refused)? {
            Framing::None => {
                reasons.note(Rule::NoBody, b"");
                Inbound::Done
            }
            Framing::Length(length) => {
                reasons.note_with(Rule::BodyOfLength, |out| out.extend_from_slice(length.to_string().as_bytes()));
                Inbound::Body(Decoder::Length(length))
            }
            Framing::Chunked => {
                reasons.note(Rule::BodyInChunks, b"");
                Inbound::Body(Decoder::chunked(limits))
            }
        };
        self.cycle.inbound_to(body);
        let persistence = Persistence::of(head, bytes);
        reasons.note(persistence.rule(), b"");
        let wanted = persistence.keeps_alive();
        if wanted && cx.config.protocol == Protocol::Http10 {
            reasons.note(Rule::CloseOfProtocol, b"");
        }
        self.exchange.peer_closes = !wanted;
        self.exchange.keep_alive = wanted && cx.config.protocol == Protocol::Http11;
        match Expectation::of(head, bytes) {
            Expectation::None => {
                if head.has(Known::Expect) && !head.is_11 {
                    reasons.note(Rule::ExpectIgnored, b"");
                }
                Ok(())
            }
            Expectation::Continue => {
                self.exchange.continue_due = body != Inbound::Done;
                let has_body = self.exchange.continue_due;
                reasons.note(if has_body { Rule::ExpectContinue } else { Rule::ExpectWithoutBody }, b"");
                Ok(())
            }
            Expectation::Unknown => {
                // Whether a body follows is in doubt.
                self.exchange.keep_alive &= body == Inbound::Done;
                if body != Inbound::Done {
                    self.cycle.close_inbound();
                }
                Err(refused(Violation::UnknownExpectation))
            }
        }
    }

    /// Lets a script answer, or the files, which want no body. A small one is read first, so that the
    /// answer does not depend on how much of it has come; a large one ends the connection.
    pub(crate) fn serve(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        self.task = Task::None;
        let (method, name) = (buf.head.method, buf.head.method_name);
        let request = Request { head: &buf.head, bytes: buf.input.head(), peer: self.peer };
        if buf.moved.is_empty() && is_health(&request, cx) {
            return self.answer_health(buf, cx);
        }
        let script = match self.find_cgi(buf, cx) {
            Ok(script) => script,
            Err(Forbidden::Nul) if self.settle_body(buf, cx) => {
                return self.answering(buf, cx).refuse(Violation::NulInPath, Span::default());
            }
            Err(Forbidden::Nul) => return,
        };
        self.exchange.is_script = script.is_some();
        let script = script.filter(|_| cgi::is_method(method));
        // The body of a request that was redirected here has had its reader.
        let is_wanted = script.is_some() && buf.moved.is_empty();
        if !is_wanted && !self.settle_body(buf, cx) {
            return;
        }
        if !cx.config.cgi.directories.is_empty() {
            let Buffers { path, reasons, .. } = &mut *buf;
            reasons.note(if self.exchange.is_script { Rule::ScriptPath } else { Rule::NotScript }, path);
        }
        if let Some(from) = script {
            buf.note_method(Rule::MethodOfScripts);
            self.answering(buf, cx).explain(|answer, reasons| {
                let path = &answer.buf.path;
                explain_path(&answer.request(), path.strip_suffix(b"/").unwrap_or(path), reasons);
            });
            return self.start_cgi(from, cx);
        }
        match method {
            Method::Get | Method::Head => buf.note_method(Rule::MethodOfFiles),
            Method::Options => buf.note_method(Rule::MethodOptions),
            Method::Post | Method::Trace | Method::Connect | Method::Other => {}
        }
        let mut answer = self.answering(buf, cx);
        match method {
            Method::Get | Method::Head => {
                if let Some(files) = Files::start(&mut answer) {
                    self.task = Task::Files(files);
                }
            }
            Method::Options => {
                let allow = answer.allow();
                answer.buf.reasons.note(Rule::Allow, allow);
                answer.empty(Status::NO_CONTENT, |head| {
                    head.field("Allow", allow);
                });
            }
            Method::Post if !cx.config.cgi.directories.is_empty() => {
                answer.refuse(Violation::PostToFile, Span::default());
            }
            Method::Post | Method::Trace | Method::Connect | Method::Other => {
                answer.refuse(Violation::UnsupportedMethod, name);
            }
        }
    }

    /// Says whether the server is healthy.
    fn answer_health(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        if !self.settle_body(buf, cx) {
            return;
        }
        let (status, text): (_, &[u8]) = match self.is_leaving() {
            false => (Status::OK, b"ok\n"),
            true => (Status::SERVICE_UNAVAILABLE, b"going down\n"),
        };
        let (method, name) = (buf.head.method, buf.head.method_name);
        let mut answer = self.answering(buf, cx);
        answer.explain(|answer, reasons| reasons.note(Rule::HealthPath, answer.request().path()));
        match method {
            Method::Get | Method::Head => {
                answer.head(status, None, |head| {
                    head.field("Content-Type", b"text/plain; charset=utf-8")
                        .number("Content-Length", text.len() as u64)
                        .field("Cache-Control", b"no-store");
                });
                answer.body(Encoder::length(0));
                if !answer.exchange.is_head {
                    answer.buf.output.bytes.extend_from_slice(text);
                }
                answer.end();
            }
            Method::Options => {
                let allow = answer.allow();
                answer.buf.reasons.note(Rule::Allow, allow);
                answer.empty(Status::NO_CONTENT, |head| {
                    head.field("Allow", allow);
                });
            }
            Method::Post | Method::Connect | Method::Trace | Method::Other => {
                answer.refuse(Violation::UnsupportedMethod, name)
            }
        }
    }

    /// Whether a body that nobody wants stands no longer in the way of an answer.
    pub(crate) fn settle_body(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let Inbound::Body(decoder) = self.cycle.inbound else { return true };
        // A peer that waits for 100 gets its final answer instead; whether it then sends the body is its
        // choice (RFC 9110 section 10.1.1), so the connection cannot go on.
        if self.exchange.continue_due || decoder.at_least() > cx.config.limits.drain {
            let awaits = self.exchange.continue_due;
            buf.reasons.note(if awaits { Rule::ExpectAnswered } else { Rule::BodyUnread }, b"");
            self.give_up_body();
            return true;
        }
        buf.reasons.note(Rule::BodyDropped, b"");
        self.exchange.unwanted = true;
        false
    }

    /// What is left of the body is not read, and the connection ends behind the answer.
    pub(crate) fn give_up_body(&mut self) {
        self.exchange.keep_alive = false;
        self.exchange.unwanted = false;
        self.cycle.close_inbound();
    }

    /// Refuses a head that is not, or never will be, complete and right; the message quotes `text`.
    pub(super) fn refuse_head(&mut self, violation: Violation, text: Span, buf: &mut Buffers, cx: &Context<'_>) {
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
        self.awaited = Awaited::Nothing;
        self.exchange = Exchange { open: true, is_11: true, is_head, ..Exchange::default() };
        self.cycle.outbound_to(Outbound::Owed);
        let text = if line == 0 { Span::default() } else { text };
        self.answering(buf, cx).refuse(violation, text);
    }

    /// Something is wrong with the body: says so if there is no answer yet.
    pub(crate) fn body_violation(&mut self, violation: Violation, buf: &mut Buffers, cx: &Context<'_>) {
        debug_assert_eq!(violation.row().1, After::Close);
        self.give_up_body();
        match self.cycle.outbound {
            Outbound::Owed => {
                match &mut self.task {
                    Task::Files(_) => self.task = Task::None,
                    Task::Cgi(cgi) => {
                        cgi.abandon();
                        self.end_cgi();
                    }
                    Task::None | Task::Handler(_) => {}
                }
                self.answering(buf, cx).refuse(violation, Span::default());
            }
            Outbound::Done => self.cycle.close_outbound(),
            // An answer that was made of half a request must not look like one made of the whole.
            Outbound::Body(_) if violation == Violation::BodyTimeout => self.cut(Cut::Slow, Close::Timeout, buf),
            Outbound::Body(_) => self.cut(Cut::Body, Close::Broken, buf),
            _ => {}
        }
    }

    /// Lets the task go on with the answer.
    pub(super) fn answer(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        if !self.cycle.is_answering() || self.exchange.unwanted || self.has_unsent(buf) {
            return false;
        }
        match self.task {
            Task::Files(mut files) => {
                let moved = files.advance(&mut self.answering(buf, cx));
                self.task = Task::Files(files);
                moved
            }
            Task::Handler(Handling { passed: true, .. }) => {
                self.serve(buf, cx);
                true
            }
            Task::Handler(_) | Task::Cgi(_) => false,
            Task::None if self.cycle.outbound == Outbound::Owed => {
                self.serve(buf, cx);
                true
            }
            Task::None => false,
        }
    }

    /// Reads and drops a body that nobody wants, as far as `limits.drain`.
    pub(super) fn drain(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let answered = matches!(self.cycle.outbound, Outbound::Done | Outbound::MustClose);
        if !(self.exchange.unwanted || answered) || !matches!(self.cycle.inbound, Inbound::Body(_)) {
            return false;
        }
        let limits = &cx.config.limits;
        while let Inbound::Body(mut decoder) = self.cycle.inbound {
            // No further than one byte beyond the limit, so that it does not matter how much has come.
            let unread = buf.input.unread();
            let most = usize::try_from(limits.drain.saturating_sub(self.exchange.drained)).unwrap_or(usize::MAX);
            let piece = match decoder.decode(&unread[..unread.len().min(most.saturating_add(1))], limits) {
                Ok(piece) => piece,
                Err(violation) => {
                    self.body_violation(violation, buf, cx);
                    return true;
                }
            };
            buf.input.consume(piece.skip + piece.data);
            if piece.data > 0 {
                decoder.took(piece.data);
            }
            self.cycle.inbound = Inbound::Body(decoder);
            self.exchange.drained += (piece.skip + piece.data) as u64;
            if self.exchange.drained > limits.drain {
                buf.reasons.note(Rule::BodyUnread, b"");
                self.give_up_body();
                return true;
            }
            if piece.end && piece.data == 0 {
                self.cycle.inbound_to(Inbound::Done);
                self.exchange.unwanted = false;
                return true;
            }
            if piece.data == 0 {
                break;
            }
        }
        if self.notes.eof {
            self.body_violation(Violation::IncompleteBody, buf, cx);
            return true;
        }
        false
    }
}

/// Notes how the request line and the host were understood.
fn note_line(request: &Request<'_>, reasons: &mut Reasons) {
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

/// Whether this asks for the server's health, however its path is spelled: nothing else is behind it.
#[inline]
fn is_health(request: &Request<'_>, cx: &Context<'_>) -> bool {
    cx.config.health.as_deref().is_some_and(|path| is_same_path(request.path(), path.as_bytes()))
}

/// Whether a request is a HEAD, even where its line is not right.
fn is_head(head: &[u8]) -> bool {
    head.starts_with(b"HEAD ")
}

/// Whether a request line can begin with this byte.
fn is_plausible(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b'\r' | b'\n')
}

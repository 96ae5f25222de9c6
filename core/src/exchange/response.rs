//! Writes responses: the head, the beginning and the end of the body, and responses that need no task (refusals,
//! redirects, `OPTIONS`). How bytes are formatted is in `wire::encode`.

use super::rules::add_fields;
use super::{Answer, Asked, BodyUse, ResponseBuilder, Server, Then};
use crate::buffers::{Buffers, Scratch};
use crate::config::Protocol;
use crate::error::{After, Violation, write_message};
use crate::fields::{Fields, Misuse, has_field};
use crate::handler_error::HandlerError;
use crate::page::{self, ErrorPage};
use crate::reason::Rule;
use crate::request::Request;
use crate::response_head::{Own, ResponseHead};
use crate::status::StatusCode;
use crate::wire::{Encoder, HeadOut, Inbound, Outbound, OutboundEvent, Span};

/// The methods that files support, for `Allow`.
const ALLOW_OF_FILES: &[u8] = b"GET, HEAD, OPTIONS";

/// The methods that scripts may support, for `Allow`: those of RFC 9110 and RFC 5789. Only a script itself knows which
/// of these and other methods it supports.
const ALLOW_OF_SCRIPTS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The reason phrase of a status line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phrase<'p> {
    /// The default phrase of the status.
    Usual,
    /// The text in [`Scratch::message`].
    Message,
    Of(&'p [u8]),
}

impl<'p> From<Option<&'p [u8]>> for Phrase<'p> {
    fn from(phrase: Option<&'p [u8]>) -> Phrase<'p> {
        phrase.map_or(Phrase::Usual, Phrase::Of)
    }
}

/// The contents of an error page in addition to its status and message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page<'e> {
    /// Replaces the explanation of the status.
    pub(crate) explanation: Option<&'e str>,
    /// Whether the message quotes the client.
    pub(crate) quotes_peer: bool,
    /// The head of an embedder.
    pub(crate) head: Option<&'e ResponseHead>,
}

/// Whether a status may be that of a response, and not only of an interim response before it.
pub(crate) fn check_final(status: StatusCode) -> Result<(), Misuse> {
    if status.code() < 200 { Err(Misuse::Interim) } else { Ok(()) }
}

impl ResponseBuilder<'_> {
    /// Writes a head: status line, Server, Date, what `fields` writes, what the policy adds, and Connection if it is
    /// needed.
    pub(crate) fn head(
        &mut self,
        status: StatusCode,
        phrase: Phrase<'_>,
        fields: impl FnOnce(&mut HeadOut<'_>, &mut Scratch),
    ) {
        self.head_with(Answer::Status(status), phrase, Own::default(), fields);
    }

    /// Like [`head`](Self::head), for a head that may already have fields of the server.
    #[inline]
    pub(crate) fn head_with(
        &mut self,
        answer: Answer,
        phrase: Phrase<'_>,
        own: Own,
        fields: impl FnOnce(&mut HeadOut<'_>, &mut Scratch),
    ) {
        let (Answer::Status(status) | Answer::Error(status)) = answer else { return };
        self.exchange.answer = answer;
        // A client that was not told to continue may send its body or not.
        if self.exchange.body == BodyUse::AwaitsContinue
            // A draining server responds to everything that has arrived, and announces the close in the last response
            // (RFC 9112 section 9.6).
            || self.is_last()
            // It has neither content nor a length. The connection closes, so that no client waits for content (RFC 9112
            // section 6.3).
            || status == StatusCode::RESET_CONTENT
        {
            self.exchange.close();
        }
        let connection = self.connection();
        let Buffers { output, input, moved, head: parsed, scratch, reasons, .. } = &mut *self.buf;
        let start = output.bytes.len();
        let phrase = match phrase {
            Phrase::Usual => None,
            Phrase::Message => Some(scratch.message.as_slice()),
            Phrase::Of(phrase) => Some(phrase),
        };
        let mut head = HeadOut::start(self.cx.config, status, phrase, &mut output.bytes);
        let first = head.raw().len();
        if !own.server {
            head.field("Server: ", self.cx.policy.server().as_bytes());
        }
        if !own.date {
            head.lines(self.cx.now.date_line());
        }
        if let (true, Some(value)) = (answer.is_error(), connection) {
            head.field("Connection: ", value);
        }
        fields(&mut head, scratch);
        let mut added = Fields::new(head.raw(), first);
        let rules = self.cx.config.applied_rules().filter(|_| !own.site);
        if self.exchange.asked == Asked::Request && !own.site {
            let bytes = if moved.is_empty() { input.head() } else { moved };
            let request = Request { head: parsed, bytes, peer: self.peer, secured: self.secured };
            if let Some(rules) = rules {
                add_fields(rules, status, Some(&request), self.exchange.path, scratch, &mut added, reasons);
            }
            self.cx.policy.fields(&request, status, &mut added);
        } else if let Some(rules) = rules {
            add_fields(rules, status, None, self.exchange.path, scratch, &mut added, reasons);
        }
        if let (false, Some(value)) = (answer.is_error(), connection) {
            head.field("Connection: ", value);
        }
        head.end();
        let written = output.bytes.len() - start;
        self.exchange.head_left += u32::try_from(written).expect("heads are far smaller than 4 GiB");
    }

    /// Sends a complete response of an embedder.
    ///
    /// # Errors
    /// [`Misuse::Interim`] for a status below 200, [`Misuse::LengthMismatch`] if the head announces another length,
    /// [`Misuse::OutOfMemory`] if there is no memory for the body.
    pub(crate) fn send_response(&mut self, head: &ResponseHead, body: &[u8]) -> Result<(), Misuse> {
        let (status, len) = (head.status(), body.len() as u64);
        check_final(status)?;
        // If no content is sent, the length of the response to GET may be announced.
        let has_no_content = self.exchange.is_head || status.is_bodiless();
        let is_omitted = body.is_empty() && has_no_content;
        let announced = head.body_length().unwrap_or(len);
        if announced != len && !is_omitted {
            return Err(Misuse::LengthMismatch);
        }
        if !has_no_content && !self.buf.make_room_for_body(body.len()) {
            return Err(Misuse::OutOfMemory);
        }
        self.send_final(head, Some(announced));
        if self.cycle.outbound != Outbound::Body(Encoder::None) {
            // Not limited by `limits.output`, since the embedder has it in memory already.
            self.buf.output.bytes.extend_from_slice(body);
        }
        self.cycle.outbound = Outbound::Body(Encoder::None);
        self.end();
        Ok(())
    }

    /// Sends a head of an embedder. Its status decides what it begins.
    pub(crate) fn send_head(&mut self, head: &ResponseHead) {
        match head.status() {
            StatusCode::SWITCHING_PROTOCOLS => self.send_upgrade(head),
            status if status.code() < 200 => self.send_interim(head),
            _ => self.send_final(head, head.body_length()),
        }
    }

    /// Sends a head that begins the response, with a body of this length.
    fn send_final(&mut self, head: &ResponseHead, length: Option<u64>) {
        let encoder = if head.status().is_bodiless() { Encoder::None } else { self.framing(length) };
        self.head_with(Answer::Status(head.status()), head.own_reason().into(), head.own, |out, _| {
            out.lines(head.lines()).framing(encoder);
        });
        self.body(encoder);
    }

    /// Sends a head that ends HTTP on this connection.
    fn send_upgrade(&mut self, head: &ResponseHead) {
        self.exchange.then = Then::Upgrade;
        self.head_with(Answer::Status(head.status()), head.own_reason().into(), head.own, |out, _| {
            out.lines(head.lines());
        });
        self.body(Encoder::None);
        self.end();
    }

    /// Sends an interim response.
    /// RFC 9110 section 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client."
    fn send_interim(&mut self, head: &ResponseHead) {
        let ResponseBuilder { exchange, buf, cx, .. } = self;
        if !exchange.is_11 || cx.config.protocol == Protocol::Http10 {
            return;
        }
        let start = buf.output.bytes.len();
        let mut out = HeadOut::start(cx.config, head.status(), head.own_reason(), &mut buf.output.bytes);
        out.lines(head.lines()).end();
        let written = u32::try_from(buf.output.bytes.len() - start).expect("heads are far smaller than 4 GiB");
        exchange.head_left += written;
        exchange.interim_left += written;
    }

    /// Begins the body. This moves the outbound half.
    pub(crate) fn body(&mut self, encoder: Encoder) {
        let bodiless = self.exchange.answer.status().is_some_and(StatusCode::is_bodiless);
        let is_head = self.exchange.is_head;
        if self.buf.reasons.are_wanted() {
            let rule = match encoder {
                _ if bodiless => Rule::NoContent,
                _ if is_head => Rule::HeadAlone,
                Encoder::None => Rule::Empty,
                Encoder::Length(_) => Rule::FramedByLength,
                Encoder::Chunked => Rule::FramedByChunks,
                Encoder::Close => Rule::FramedByClose,
            };
            self.buf.reasons.note(rule, b"");
        }
        self.cycle.answer(OutboundEvent::Head(if is_head || bodiless { Encoder::None } else { encoder }));
    }

    /// Ends the response.
    pub(crate) fn end(&mut self) {
        let (done, rule) = if self.exchange.then == Then::KeepAlive {
            (OutboundEvent::End, Rule::StaysOpen)
        } else {
            (OutboundEvent::LastEnd, Rule::Closes)
        };
        if self.buf.reasons.are_wanted() {
            let field = self.connection().unwrap_or(b"(no field)");
            self.buf.reasons.note(rule, field);
        }
        self.cycle.answer(done);
    }

    /// Sends a complete body whose length the head announces, and ends the response.
    pub(crate) fn end_with(&mut self, body: &[u8]) {
        self.body(Encoder::length(0));
        if !self.exchange.is_head {
            self.buf.output.bytes.extend_from_slice(body);
        }
        self.end();
    }

    /// Ends a response whose body may be chunked and have trailers.
    pub(crate) fn end_body(&mut self) {
        if self.cycle.outbound == Outbound::Body(Encoder::Chunked) {
            self.buf.output.bytes.extend_from_slice(b"0\r\n");
            self.buf.output.bytes.append(&mut self.buf.trailing);
            self.buf.output.bytes.extend_from_slice(b"\r\n");
        }
        self.end();
    }

    /// The value of the Connection field, if it is needed (RFC 9112 section 9.6).
    fn connection(&self) -> Option<&'static [u8]> {
        match self.exchange.then {
            Then::Upgrade => Some(b"Upgrade"),
            Then::KeepAlive if self.exchange.is_11 => None,
            Then::KeepAlive => Some(b"keep-alive"),
            // HTTP/1.0 closes by default; Python only announces it with errors.
            _ if self.cx.config.protocol == Protocol::Http10 && !self.exchange.answer.is_error() => None,
            Then::Close | Then::PeerCloses => Some(b"close"),
        }
    }

    /// Refuses the request because of a protocol error; the message quotes `text`, a part of the head.
    pub(crate) fn refuse(&mut self, violation: Violation, text: Span) {
        let (status, after, message) = violation.row();
        let (request, scratch, _) = self.split();
        scratch.message.clear();
        write_message(violation, text.of_bytes(request.bytes), &mut scratch.message);
        self.buf.reasons.violated(violation);
        if after == After::Close {
            self.buf.reasons.note(Rule::CloseOfViolation, b"");
            self.exchange.close();
            self.cycle.stop_receiving();
        }
        let allow = self.allow();
        let has_allow = matches!(violation, Violation::UnsupportedMethod | Violation::PostToFile);
        if has_allow {
            self.buf.reasons.note(Rule::Allow, allow);
        }
        // What the client wrote is only quoted on the page, not in the status line.
        let page = Page { quotes_peer: message.is_some_and(|text| text.contains("{}")), ..Page::default() };
        self.error_page(status, &page, |head| {
            if has_allow {
                head.field("Allow: ", allow);
            }
        });
    }

    /// The methods that the target supports.
    pub(crate) fn allow(&self) -> &'static [u8] {
        if self.exchange.is_script { ALLOW_OF_SCRIPTS } else { ALLOW_OF_FILES }
    }

    /// The framing of a body with this length, or of unknown length.
    pub(crate) fn framing(&mut self, length: Option<u64>) -> Encoder {
        match length {
            Some(length) => Encoder::length(length),
            None if self.exchange.is_11 && self.cx.config.protocol == Protocol::Http11 => Encoder::Chunked,
            None => {
                self.exchange.close();
                Encoder::Close
            }
        }
    }

    /// Responds with the error page of a handler's error.
    pub(crate) fn failed(&mut self, error: &HandlerError) {
        self.error_response(&error.head, error.message.as_deref(), None);
    }

    /// Responds with an error page of an embedder.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] if the head announces a length: that of the page is not known to the embedder.
    /// [`Misuse::ReservedHeader`] if it has the type of another page. [`Misuse::Interim`] for a status below 200.
    pub(crate) fn send_error(
        &mut self,
        head: &ResponseHead,
        message: Option<&str>,
        explanation: Option<&str>,
    ) -> Result<(), Misuse> {
        check_final(head.status())?;
        if head.body_length().is_some() {
            return Err(Misuse::LengthMismatch);
        }
        if has_field(head.lines(), "Content-Type") {
            return Err(Misuse::ReservedHeader);
        }
        self.error_response(head, message, explanation);
        Ok(())
    }

    /// Responds with an error page, with the fields of `head`.
    fn error_response(&mut self, head: &ResponseHead, message: Option<&str>, explanation: Option<&str>) {
        self.set_message(message.unwrap_or(head.status().phrase()));
        let page = Page { explanation, head: Some(head), ..Page::default() };
        self.error_page(head.status(), &page, |_| {});
    }

    /// Responds with an error page.
    pub(crate) fn error(&mut self, status: StatusCode, message: &str) {
        self.error_with(status, message, |_| {});
    }

    /// Responds with an error page; `fields` are written after those of the page.
    pub(crate) fn error_with(&mut self, status: StatusCode, message: &str, fields: impl FnOnce(&mut HeadOut<'_>)) {
        self.set_message(message);
        self.error_page(status, &Page::default(), fields);
    }

    fn set_message(&mut self, message: &str) {
        self.buf.scratch.message.clear();
        self.buf.scratch.message.extend_from_slice(message.as_bytes());
    }

    /// Responds with an error page with the message in [`Scratch::message`]; `fields` are written after those of the
    /// page. The message is also the reason phrase, as in Python, if it is valid as one.
    pub(crate) fn error_page(&mut self, status: StatusCode, page: &Page<'_>, fields: impl FnOnce(&mut HeadOut<'_>)) {
        let policy = self.cx.policy;
        let has_request = self.exchange.asked == Asked::Request;
        let Buffers { scratch: Scratch { message, page: text, .. }, reasons, input, moved, head, .. } = &mut *self.buf;
        let bytes = if moved.is_empty() { input.head() } else { moved };
        let request = has_request.then_some(Request { head, bytes, peer: self.peer, secured: self.secured });
        let page_type = policy.error_type(request.as_ref());
        text.clear();
        if !status.is_bodiless() {
            let explanation = page.explanation.unwrap_or(status.explanation());
            reasons.note(Rule::TypeOfPage, page_type.as_bytes());
            policy.error_page(&ErrorPage { status, message, explanation, request }, text);
        }
        let is_default = page::is_default(text);
        if is_default {
            reasons.note(Rule::PageGuard, b"");
        }
        let fit = !page.quotes_peer && !message.is_empty() && message.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let phrase = match page.head.and_then(ResponseHead::own_reason) {
            Some(phrase) => Phrase::Of(phrase),
            None if fit => Phrase::Message,
            None => Phrase::Usual,
        };
        let own = page.head.map_or(Own::default(), |head| head.own);
        self.head_with(Answer::Error(status), phrase, own, |head, scratch| {
            if !status.is_bodiless() {
                let len = scratch.page.len() as u64;
                head.field("Content-Type: ", page_type.as_bytes()).number("Content-Length: ", len);
                if is_default {
                    head.lines(page::GUARD);
                }
            }
            head.lines(page.head.map_or(b"", ResponseHead::lines));
            fields(head);
        });
        self.body(Encoder::length(0));
        if !self.exchange.is_head {
            self.buf.output.bytes.extend_from_slice(&self.buf.scratch.page);
        }
        self.end();
    }

    /// Writes the head of an error whose page is a file, with the message in [`Scratch::message`].
    pub(crate) fn error_head(&mut self, status: StatusCode, fields: impl FnOnce(&mut HeadOut<'_>, &mut Scratch)) {
        self.head_with(Answer::Error(status), Phrase::Message, Own::default(), fields);
    }

    /// Responds without a body.
    pub(crate) fn empty(&mut self, status: StatusCode, fields: impl FnOnce(&mut HeadOut<'_>, &mut Scratch)) {
        self.head(status, Phrase::Usual, fields);
        self.body(Encoder::None);
        self.end();
    }

    /// Redirects to the same target of the host that the request names, with the scheme `https`. `false`: it names none,
    /// or its target is not that of a resource.
    pub(crate) fn redirect_to_https(&mut self) -> bool {
        let (request, Scratch { page: location, .. }, reasons) = self.split();
        let host = request.host().unwrap_or_default();
        let target = request.path_and_query();
        if host.is_empty() || !target.starts_with(b"/") {
            return false;
        }
        location.clear();
        location.extend_from_slice(b"https://");
        location.extend_from_slice(host);
        location.extend_from_slice(target);
        reasons.note(Rule::HttpsRedirect, location);
        // RFC 6797 section 7.2: no `Strict-Transport-Security`, nor anything else that the site says of its resources.
        let own = Own { site: true, ..Own::default() };
        self.head_with(Answer::Status(StatusCode::PERMANENT_REDIRECT), Phrase::Usual, own, |head, scratch| {
            head.field("Location: ", &scratch.page).number("Content-Length: ", 0);
        });
        self.body(Encoder::None);
        self.end();
        true
    }

    /// Whether this is the last response of a draining server: nothing of a next request has arrived.
    fn is_last(&self) -> bool {
        self.server == Server::Drains && (self.cycle.inbound != Inbound::Done || self.buf.input.unread().is_empty())
    }
}

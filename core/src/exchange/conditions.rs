//! Preconditions and ranges, and the responses to them with a representation that is in memory.

use crate::conditional::{self, Validators, Verdict};
use crate::fields::{Misuse, field_lines, has_field};
use crate::range::{self, Asked, ByteRange};
use crate::reason::Rule;
use crate::request::Request;
use crate::response_head::ResponseHead;
use crate::status::StatusCode;
use crate::wire::{Encoder, Known};

use super::{Answer, Phrase, ResponseBuilder, check_final};

/// Fields that [`ResponseBuilder::send_entity`] writes itself.
const DECIDED: [&str; 4] = ["ETag", "Last-Modified", "Accept-Ranges", "Content-Range"];

impl ResponseBuilder<'_> {
    /// Evaluates the preconditions of a GET or HEAD.
    #[inline(always)]
    pub(crate) fn evaluate(&mut self, current: Option<&Validators>) -> Verdict {
        let has_conditions = self.buf.head.has_any(conditional::CONDITIONS);
        if has_conditions { self.evaluate_conditions(current) } else { Verdict::Perform }
    }

    fn evaluate_conditions(&mut self, current: Option<&Validators>) -> Verdict {
        let evaluation = conditional::evaluate(&self.buf.head, self.buf.head_bytes(), current);
        self.explain(|request, _, reasons| evaluation.explain(request.head, request.bytes, reasons));
        evaluation.verdict
    }

    /// Which part of a representation of this length to send.
    /// RFC 9110 section 14.2: "A server MUST ignore a Range header field received with a request method that is
    /// unrecognized or for which range handling is not defined. For this specification, GET is the only method for
    /// which range handling is defined."
    #[inline(always)]
    pub(crate) fn asked(&mut self, len: u64, validators: &Validators) -> Asked {
        let has_range = self.buf.head.has_any([Known::Range, Known::IfRange]);
        if has_range { self.asked_ranges(len, validators) } else { Asked::Whole(None) }
    }

    fn asked_ranges(&mut self, len: u64, validators: &Validators) -> Asked {
        let (now, most) = (self.cx.now.wall, self.cx.config.limits.ranges);
        let is_head = self.exchange.is_head;
        let (Request { head, bytes, .. }, scratch, reasons) = self.split();
        let rule = match head.single(Known::Range, bytes) {
            _ if !head.has(Known::Range) => Rule::IfRangeAlone,
            _ if is_head => Rule::RangeWithoutGet,
            None => Rule::RangeRepeated,
            Some(value) => {
                let by = conditional::if_range(head, bytes, validators, now);
                let obeyed = conditional::lets_range(by);
                if reasons.are_wanted() {
                    conditional::explain_if_range(by, head, bytes, reasons);
                    if obeyed {
                        range::explain(value, len, most, reasons);
                    }
                }
                return if obeyed { range::parse(value, len, most, &mut scratch.ranges) } else { Asked::Whole(by) };
            }
        };
        reasons.note(rule, b"");
        Asked::Whole(Some(rule))
    }

    /// Sends an entity that is in memory, by the same rules as a file.
    ///
    /// # Errors
    /// [`Misuse::ReservedHeader`] if the head has one of the fields that are written here, and the errors of
    /// [`send_response`](Self::send_response).
    pub(crate) fn send_entity(
        &mut self,
        head: &ResponseHead,
        validators: &Validators,
        body: &[u8],
    ) -> Result<(), Misuse> {
        check_final(head.status())?;
        if DECIDED.iter().any(|name| has_field(head.lines(), name)) {
            return Err(Misuse::ReservedHeader);
        }
        let len = body.len() as u64;
        let is_get = self.exchange.is_head || self.request().method() == b"GET";
        // RFC 9110 section 13.2.1: preconditions are for responses that would be successful without them.
        if head.status() != StatusCode::OK || !is_get {
            return self.send_response(head, body);
        }
        if head.body_length().is_some_and(|announced| announced != len) {
            return Err(Misuse::LengthMismatch);
        }
        match self.evaluate(Some(validators)) {
            Verdict::Perform => {}
            Verdict::NotModified => {
                self.not_modified(head, validators);
                return Ok(());
            }
            Verdict::Failed => {
                self.precondition_failed();
                return Ok(());
            }
        }
        let asked = self.asked(len, validators);
        let ranges = &self.buf.scratch.ranges;
        let requested = || ranges.iter().map(ByteRange::len).sum::<u64>();
        let copied = match asked {
            Asked::Unsatisfiable => 0,
            _ if self.exchange.is_head => 0,
            Asked::Whole(_) => len,
            Asked::Ranges if ranges.len() == 1 => requested(),
            // The parts are assembled before their length is announced. If there is no boundary, the whole is sent.
            Asked::Ranges => requested().saturating_mul(2).max(len),
        };
        if !self.buf.make_room_for_body(usize::try_from(copied).unwrap_or(usize::MAX)) {
            return Err(Misuse::OutOfMemory);
        }
        match asked {
            Asked::Ranges => match *self.buf.scratch.ranges {
                [asked] => {
                    self.buf.reasons.note_with(Rule::RangeServed, |out| range::write_content_range(asked, len, out));
                    self.part_of(head, validators, body, Some(asked));
                }
                _ => self.many_ranges(head, validators, body),
            },
            Asked::Unsatisfiable => self.unsatisfiable(len),
            Asked::Whole(_) => self.part_of(head, validators, body, None),
        }
        Ok(())
    }

    /// Responds with 304. RFC 9110 section 15.4.5: it has the fields of the 200 that caches need, and no metadata of the
    /// content.
    fn not_modified(&mut self, head: &ResponseHead, validators: &Validators) {
        let now = self.cx.now.wall;
        self.head_with(Answer::Status(StatusCode::NOT_MODIFIED), Phrase::Usual, head.own, |out, scratch| {
            for line in field_lines(head.lines()) {
                if !has_prefix(line, b"Content-") || has_prefix(line, b"Content-Location:") {
                    out.lines(line);
                }
            }
            out.lines(scratch.validators.lines(validators, now));
        });
        self.body(Encoder::None);
        self.end();
    }

    /// Responds with the whole body, or one range.
    fn part_of(&mut self, head: &ResponseHead, validators: &Validators, body: &[u8], asked: Option<ByteRange>) {
        let (now, len) = (self.cx.now.wall, body.len() as u64);
        let (status, phrase, part) = match asked {
            None => (StatusCode::OK, head.own_reason(), body),
            Some(asked) => (StatusCode::PARTIAL_CONTENT, None, slice(body, asked)),
        };
        self.head_with(Answer::Status(status), phrase.into(), head.own, |out, scratch| {
            out.lines(head.lines()).number("Content-Length: ", part.len() as u64);
            out.lines(scratch.validators.lines(validators, now)).lines(b"Accept-Ranges: bytes\r\n");
            if let Some(asked) = asked {
                out.field_with("Content-Range: ", |out| range::write_content_range(asked, len, out));
            }
        });
        self.end_with(part);
    }

    /// Responds with `multipart/byteranges` (RFC 9110 section 15.3.7.2).
    fn many_ranges(&mut self, head: &ResponseHead, validators: &Validators, body: &[u8]) {
        let (now, len) = (self.cx.now.wall, body.len() as u64);
        let tag = validators.tag().unwrap_or_else(|| validators.stamp());
        let boundary = tag.opaque();
        if memchr::memmem::find(body, boundary).is_some() {
            // A server may ignore Range (RFC 9110 section 14.2).
            return self.part_of(head, validators, body, None);
        }
        let (_, scratch, reasons) = self.split();
        let (parts, ranges) = (&mut scratch.page, &scratch.ranges);
        parts.clear();
        for &asked in ranges {
            reasons.note_with(Rule::RangesServed, |out| range::write_content_range(asked, len, out));
            range::write_part_head(boundary, |out| write_type(head, out), asked, len, parts);
            parts.extend_from_slice(slice(body, asked));
        }
        range::write_parts_end(boundary, parts);
        self.head_with(Answer::Status(StatusCode::PARTIAL_CONTENT), Phrase::Usual, head.own, |out, scratch| {
            for line in field_lines(head.lines()) {
                if !has_prefix(line, b"Content-Type:") && !has_prefix(line, b"Content-Encoding:") {
                    out.lines(line);
                }
            }
            out.field_with("Content-Type: ", |out| range::write_parts_type(boundary, out));
            out.number("Content-Length: ", scratch.page.len() as u64);
            out.lines(scratch.validators.lines(validators, now)).lines(b"Accept-Ranges: bytes\r\n");
        });
        // Not kept: it may be as long as the body, and only the output counts against the memory of the server.
        let parts = std::mem::take(&mut self.buf.scratch.page);
        self.end_with(&parts);
    }

    /// Responds with 412.
    pub(crate) fn precondition_failed(&mut self) {
        self.error(StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_FAILED.phrase());
    }

    /// Responds with 416 and the current length (RFC 9110 section 15.5.17).
    pub(crate) fn unsatisfiable(&mut self, len: u64) {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        self.buf.reasons.note(Rule::RangeUnsatisfiable, b"");
        self.error_with(status, status.phrase(), |head| {
            head.field("Content-Range: ", format!("bytes */{len}").as_bytes());
        });
    }
}

fn slice(body: &[u8], asked: ByteRange) -> &[u8] {
    let at = |offset: u64| usize::try_from(offset).expect("within the body, which is in memory");
    &body[at(asked.first)..=at(asked.last)]
}

/// Whether a line begins with `prefix`, ignoring case.
fn has_prefix(line: &[u8], prefix: &[u8]) -> bool {
    line.get(..prefix.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(prefix))
}

/// Appends the media type of a part, and its content coding in a line of its own.
fn write_type(head: &ResponseHead, out: &mut Vec<u8>) {
    let line = |prefix: &[u8]| field_lines(head.lines()).find(|line| has_prefix(line, prefix));
    match line(b"Content-Type:") {
        Some(line) => out.extend_from_slice(line[b"Content-Type:".len()..].trim_ascii()),
        None => out.extend_from_slice(b"application/octet-stream"),
    }
    if let Some(line) = line(b"Content-Encoding:") {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(line.trim_ascii_end());
    }
}

//! How a handler answers: a view of the connection that never waits. What cannot be done now says
//! so, and the handler is called again when it can.

use crate::buffers::Buffers;
use crate::connection::Connection;
use crate::context::Context;
use crate::error::Violation;
use crate::exchange::{Answering, Page};
use crate::request::Request;
use crate::status::Status;
use crate::wire::{self, Encoder, Inbound, Outbound, is_token_byte};

/// Something a handler must not do. Nothing of it reaches the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A field name that is no token, or a value with CR, LF, NUL or another control character.
    Field,
    /// A field that frames the message or ends the connection is not the handler's to write.
    Framing,
    /// A second head, or a body before the head.
    Order,
    /// An interim status (1xx) is no answer.
    Interim,
    /// More body than the length that was announced, or a body where there is none.
    TooMuch,
    /// The exchange is over, or another task answers it.
    Over,
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misuse::Field => "a field name or value with a character that it cannot have",
            Misuse::Framing => "a field that frames the message is not the handler's to write",
            Misuse::Order => "a second head, or a body before the head",
            Misuse::Interim => "an interim status is no answer",
            Misuse::TooMuch => "more body than was announced",
            Misuse::Over => "the exchange is over",
        })
    }
}

impl std::error::Error for Misuse {}

/// What [`Reply::receive`] found of the request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'r> {
    /// These bytes; take them with [`Reply::consume`].
    Data(&'r [u8]),
    /// Nothing yet: the handler is called with `Call::Body` when there is.
    Pending,
    /// The body is complete, or there was none.
    End,
    /// The body will never be complete: the peer broke the rules, was too slow or went away. There
    /// is nothing left to answer.
    Broken,
}

/// The state of a handler's exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handling {
    /// It has been called with the request.
    pub(crate) called: bool,
    /// It waits for more of the body.
    pub(crate) wants_body: bool,
    /// That has come, or will not: the call is due.
    pub(crate) has_body: bool,
    /// It waits for room.
    pub(crate) wants_room: bool,
    /// The driver has passed on a wake-up.
    pub(crate) woken: bool,
    /// It has been told that the exchange is over.
    pub(crate) told_over: bool,
    /// It has handed the request on to the files.
    pub(crate) passed: bool,
}

/// A connection while its handler is called.
pub struct Reply<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) buf: &'a mut Buffers,
    pub(crate) cx: &'a Context<'a>,
}

impl Reply<'_> {
    /// The request.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        Request { head: &self.buf.head, bytes: self.buf.head_bytes(), peer: self.connection.peer() }
    }

    /// Begins the answer. The head goes out with the first of its body.
    pub fn respond(&mut self, status: Status) -> Result<HeadWriter<'_>, Misuse> {
        self.check_head()?;
        check_final(status)?;
        Ok(HeadWriter {
            answer: self.connection.answering(self.buf, self.cx),
            status,
            fields: Vec::new(),
            length: None,
        })
    }

    /// Answers with an error page (Python's `send_error`).
    pub fn error(&mut self, status: Status, message: Option<&str>, explanation: Option<&str>) -> Result<(), Misuse> {
        self.check_head()?;
        check_final(status)?;
        let answer = &mut self.connection.answering(self.buf, self.cx);
        answer.buf.message.clear();
        answer.buf.message.extend_from_slice(message.unwrap_or(status.phrase()).as_bytes());
        answer.error_page(status, &Page { explanation, quotes_peer: false }, |_| {});
        Ok(())
    }

    /// Appends to the body as much of `data` as there is room for, and says how much that was. If
    /// it was not all, the handler is called with `Call::Room` later.
    pub fn offer(&mut self, data: &[u8]) -> Result<usize, Misuse> {
        let limit = self.cx.config.limits.output;
        let (cycle, handling) = self.connection.sending().ok_or(Misuse::Over)?;
        let Outbound::Body(encoder) = &mut cycle.outbound else { return Err(Misuse::Order) };
        let out = &mut self.buf.output.bytes;
        let n = data.len().min(limit.saturating_sub(out.len()));
        handling.wants_room = n < data.len();
        if n == 0 {
            return Ok(0);
        }
        match encoder {
            Encoder::Length(left) => {
                *left = left.checked_sub(n as u64).ok_or(Misuse::TooMuch)?;
                out.extend_from_slice(&data[..n]);
            }
            Encoder::Chunked => wire::chunk(&data[..n], out),
            Encoder::Close => out.extend_from_slice(&data[..n]),
            // HEAD: what a GET would send is taken and dropped.
            Encoder::None => {}
        }
        Ok(n)
    }

    /// Ends the body. If less came than was announced, the answer is a 500 where none of it has gone
    /// out yet, else the connection is cut.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        let (cycle, _) = self.connection.sending().ok_or(Misuse::Over)?;
        match cycle.outbound {
            Outbound::Body(Encoder::Length(1..)) => {
                self.connection.fail_handler();
                return Err(Misuse::TooMuch);
            }
            Outbound::Body(Encoder::Chunked) => self.buf.output.bytes.extend_from_slice(wire::LAST_CHUNK),
            Outbound::Body(_) => {}
            _ => return Err(Misuse::Order),
        }
        self.connection.answering(self.buf, self.cx).end();
        Ok(())
    }

    /// What has come of the request's body.
    pub fn receive(&mut self) -> Received<'_> {
        if let Inbound::Body(_) = self.connection.cycle().inbound
            && self.connection.may_continue(self.buf, self.cx)
        {
            self.connection.send_continue(self.buf);
        }
        match (self.connection.body_available(self.buf, self.cx), self.connection.cycle().inbound) {
            (0, Inbound::Body(_)) => {
                if let Some(handling) = self.connection.handling() {
                    handling.wants_body = true;
                }
                Received::Pending
            }
            (0, Inbound::Closed) => Received::Broken,
            (0, _) => Received::End,
            (n, _) => Received::Data(&self.buf.input.unread()[..n]),
        }
    }

    /// Takes `n` bytes of what [`receive`](Self::receive) found.
    ///
    /// # Panics
    /// If that is more than was found.
    pub fn consume(&mut self, n: usize) {
        let available = self.connection.body_available(self.buf, self.cx);
        assert!(n <= available, "consumed more than was received");
        self.connection.body_took(self.buf, n);
    }

    /// Lets the files answer instead.
    pub fn pass(&mut self) -> Result<(), Misuse> {
        self.check_head()?;
        self.connection.handling().ok_or(Misuse::Over)?.passed = true;
        Ok(())
    }

    /// Lets the connection end behind this answer (Python's `close_connection`).
    pub fn close(&mut self) {
        self.connection.exchange_mut().keep_alive = false;
    }

    fn check_head(&mut self) -> Result<(), Misuse> {
        if self.connection.handling().is_none() {
            return Err(Misuse::Over);
        }
        match self.connection.cycle().outbound {
            Outbound::Owed => Ok(()),
            Outbound::Body(_) => Err(Misuse::Order),
            _ => Err(Misuse::Over),
        }
    }
}

fn check_final(status: Status) -> Result<(), Misuse> {
    if status.code() < 200 { Err(Misuse::Interim) } else { Ok(()) }
}

/// The head of an answer that is being written. Nothing goes out before [`send`](Self::send).
pub struct HeadWriter<'r> {
    answer: Answering<'r>,
    status: Status,
    fields: Vec<u8>,
    length: Option<u64>,
}

impl HeadWriter<'_> {
    /// Adds a field.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, Misuse> {
        Fields::new(&mut self.fields).add(name, value.as_ref())?;
        Ok(self)
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the
    /// connection for HTTP/1.0.
    #[must_use]
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Ends the head.
    pub fn send(mut self) -> Result<(), Misuse> {
        let encoder = if self.status.is_bodiless() { Encoder::None } else { self.answer.framing(self.length) };
        let fields = &self.fields;
        self.answer.head(self.status, None, |head| {
            head.raw().extend_from_slice(fields);
            head.framing(encoder);
        });
        self.answer.body(encoder);
        Ok(())
    }
}

/// Adds fields to a head, after checking them.
pub struct Fields<'o> {
    out: &'o mut Vec<u8>,
}

/// Fields that say where a message ends or a connection does.
const FRAMING: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Trailer"];

impl<'o> Fields<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Fields<'o> {
        Fields { out }
    }

    /// Adds a field.
    pub fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Misuse> {
        let name_fits = !name.is_empty() && name.bytes().all(is_token_byte);
        if !name_fits || !is_field_value(value) {
            return Err(Misuse::Field);
        }
        if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
            return Err(Misuse::Framing);
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Whether a value holds nothing that ends a line or that no value may hold (RFC 9110 section 5.5).
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t')
}

impl Connection {
    /// Whether the body is welcome that a peer waits to send (RFC 9110 section 10.1.1). If it is not,
    /// that is the answer.
    pub(crate) fn may_continue(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let peer = self.peer();
        let exchange = self.exchange_mut();
        if !exchange.continue_due || exchange.status.is_some() {
            return true;
        }
        let request = Request { head: &buf.head, bytes: buf.head_bytes(), peer };
        let Err(status) = cx.site.expect_continue(&request) else { return true };
        exchange.continue_due = false;
        exchange.keep_alive = false;
        let mut answer = self.answering(buf, cx);
        if status == Status::EXPECTATION_FAILED {
            answer.refuse(Violation::UnknownExpectation, wire::Span::default());
        } else {
            answer.error(status, status.phrase());
        }
        false
    }

    /// The interim answer that lets a waiting peer send its body.
    pub(crate) fn send_continue(&mut self, buf: &mut Buffers) {
        const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let exchange = self.exchange_mut();
        if exchange.status.is_none() && std::mem::take(&mut exchange.continue_due) {
            buf.output.bytes.extend_from_slice(INTERIM);
            exchange.head_left += INTERIM.len() as u32;
            exchange.interim_left = INTERIM.len() as u32;
        }
    }
}

//! The head of an answer, written field by field, each checked: what must not stand in a head never
//! reaches the wire.

use crate::config::Protocol;
use crate::exchange::{Own, Phrase, ResponseBuilder, Then};
use crate::fields::{Fields, Misuse};
use crate::status::Status;
use crate::wire::{Encoder, HeadOut};

/// What becomes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It begins the answer.
    Final,
    /// It goes before the answer (1xx).
    Interim,
    /// It ends HTTP on this connection.
    Upgrade,
}

/// The head of an answer that is being written. Nothing goes out before [`send`](Self::send).
pub struct HeadWriter<'r> {
    answer: ResponseBuilder<'r>,
    purpose: Purpose,
    status: Status,
    reason: Option<Vec<u8>>,
    fields: Vec<u8>,
    own: Own,
    length: Option<u64>,
}

impl<'r> HeadWriter<'r> {
    pub(crate) fn new(answer: ResponseBuilder<'r>, purpose: Purpose, status: Status) -> HeadWriter<'r> {
        HeadWriter { answer, purpose, status, reason: None, fields: Vec::new(), own: Own::default(), length: None }
    }

    /// Replaces the status's own phrase (the `message` of Python's `send_response`): visible ASCII and
    /// spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(mut self, reason: &str) -> Result<Self, Misuse> {
        if !reason.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Misuse::Field);
        }
        self.reason = Some(reason.as_bytes().to_vec());
        Ok(self)
    }

    /// Adds a field (Python's `send_header`). The value is bytes: text that is not ASCII goes out as it is
    /// encoded, so a value in Latin-1 is a `Vec<u8>` in Latin-1. `Server` and `Date` replace those that
    /// would be there anyway.
    ///
    /// # Errors
    /// [`Misuse::Field`] for a name that is no token or a value with a control character,
    /// [`Misuse::Framing`] for a field that is the server's to write.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, Misuse> {
        Fields::new(&mut self.fields).add(name, value.as_ref())?;
        self.own.server |= name.eq_ignore_ascii_case("Server");
        self.own.date |= name.eq_ignore_ascii_case("Date");
        Ok(self)
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the
    /// connection for HTTP/1.0.
    #[must_use]
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Ends the head (Python's `end_headers`). It goes out with the first of the body.
    ///
    /// # Errors
    /// None at present.
    pub fn send(mut self) -> Result<(), Misuse> {
        match self.purpose {
            Purpose::Interim => self.send_interim(),
            Purpose::Upgrade => self.send_upgrade(),
            Purpose::Final => self.send_final(),
        }
        Ok(())
    }

    fn send_final(&mut self) {
        let encoder = if self.status.is_bodiless() { Encoder::None } else { self.answer.framing(self.length) };
        let fields = &self.fields;
        let phrase = self.reason.as_deref().map_or(Phrase::Usual, Phrase::Of);
        self.answer.head_with(self.status, phrase, self.own, |head, _| {
            head.raw().extend_from_slice(fields);
            head.framing(encoder);
        });
        self.answer.body(encoder);
    }

    fn send_upgrade(&mut self) {
        self.answer.exchange.then = Then::Upgrade;
        let fields = &self.fields;
        let phrase = self.reason.as_deref().map_or(Phrase::Usual, Phrase::Of);
        self.answer.head_with(self.status, phrase, self.own, |head, _| head.raw().extend_from_slice(fields));
        self.answer.body(Encoder::None);
        self.answer.end();
    }

    /// RFC 9110 section 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client."
    fn send_interim(&mut self) {
        let ResponseBuilder { exchange, buf, cx, .. } = &mut self.answer;
        if !exchange.is_11 || cx.config.protocol == Protocol::Http10 {
            return;
        }
        let start = buf.output.bytes.len();
        let mut head = HeadOut::start(cx.config, self.status, self.reason.as_deref(), &mut buf.output.bytes);
        head.raw().extend_from_slice(&self.fields);
        head.end();
        let written = u32::try_from(buf.output.bytes.len() - start).expect("heads are far smaller than 4 GiB");
        exchange.head_left += written;
        exchange.interim_left += written;
    }
}

//! The head of an answer, written field by field.

use std::io;

use sanserve_core::{HeadWriter as CoreWriter, Misuse, Reply, Status};

use crate::exchange::Exchange;

/// The head of an answer that is being written, by
/// [`Exchange::respond`] or [`Exchange::inform`]. Each field is checked at once; nothing goes out
/// before [`send`](Self::send), nor if that is not called.
#[must_use = "nothing goes out before `send`"]
#[derive(Debug)]
pub struct HeadWriter<'x> {
    exchange: &'x Exchange<'x>,
    purpose: Purpose,
    status: Status,
    reason: Option<String>,
    fields: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
}

/// What becomes of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Respond,
    Inform,
}

impl Purpose {
    fn writer<'r>(self, reply: &'r mut Reply<'_>, status: Status) -> Result<CoreWriter<'r>, Misuse> {
        match self {
            Purpose::Respond => reply.respond(status),
            Purpose::Inform => reply.inform(status),
        }
    }
}

impl<'x> HeadWriter<'x> {
    pub(crate) fn begin(exchange: &'x Exchange<'x>, purpose: Purpose, status: Status) -> io::Result<HeadWriter<'x>> {
        let head = HeadWriter { exchange, purpose, status, reason: None, fields: Vec::new(), length: None };
        head.check(|writer| Ok(writer))?;
        Ok(head)
    }

    /// Tries something on a writer that writes nothing.
    fn check(&self, act: impl FnOnce(CoreWriter<'_>) -> Result<CoreWriter<'_>, Misuse>) -> io::Result<()> {
        self.exchange.reply(|reply| act(self.purpose.writer(reply, self.status)?).map(drop))
    }

    /// Replaces the status's own phrase (the `message` of Python's `send_response`): visible ASCII and
    /// spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(mut self, reason: &str) -> io::Result<Self> {
        self.check(|writer| writer.reason(reason))?;
        self.reason = Some(reason.to_owned());
        Ok(self)
    }

    /// Adds a field (Python's `send_header`). The value is bytes: text that is not ASCII goes out as it is
    /// encoded, so a value in Latin-1 is a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`] for a name that is no token or a value with a control character,
    /// [`Misuse::Framing`] for a field that is the server's to write.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        let value = value.as_ref();
        self.check(|writer| writer.field(name, value))?;
        self.fields.push((name.to_owned(), value.to_vec()));
        Ok(self)
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the
    /// connection for HTTP/1.0.
    pub fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Ends the head (Python's `end_headers`). It goes out when the handler waits for anything.
    ///
    /// # Errors
    /// [`Misuse`], if another head was sent meanwhile.
    pub fn send(self) -> io::Result<()> {
        self.exchange.reply(|reply| {
            let mut writer = self.purpose.writer(reply, self.status)?;
            if let Some(reason) = &self.reason {
                writer = writer.reason(reason)?;
            }
            for (name, value) in &self.fields {
                writer = writer.field(name, value)?;
            }
            if let Some(length) = self.length {
                writer = writer.length(length);
            }
            writer.send()
        })
    }
}

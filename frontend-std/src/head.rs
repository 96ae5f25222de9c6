//! The head of an answer, written field by field, by a handler that blocks.

use std::io;

use sanserve_core::{self as core, Misuse, Reply, Status};

use crate::driver::Line;

/// What becomes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It begins the answer.
    Respond,
    /// It goes before the answer.
    Inform,
}

impl Purpose {
    fn begin<'r>(self, reply: &'r mut Reply<'_>, status: Status) -> Result<core::HeadWriter<'r>, Misuse> {
        match self {
            Purpose::Respond => reply.respond(status),
            Purpose::Inform => reply.inform(status),
        }
    }
}

/// The head of an answer that is being written. Nothing of it goes out before [`send`](Self::send).
#[must_use = "nothing goes out before it is sent"]
pub struct HeadWriter<'e> {
    line: &'e mut Line,
    purpose: Purpose,
    status: Status,
    reason: Option<String>,
    fields: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
}

impl<'e> HeadWriter<'e> {
    pub(crate) fn begin(line: &'e mut Line, purpose: Purpose, status: Status) -> io::Result<HeadWriter<'e>> {
        line.act(|reply| purpose.begin(reply, status).map(drop))?;
        Ok(HeadWriter { line, purpose, status, reason: None, fields: Vec::new(), length: None })
    }

    /// Replaces the status's own phrase: visible ASCII and spaces.
    ///
    /// # Errors
    /// [`Misuse::Field`] for any other character.
    pub fn reason(mut self, reason: &str) -> io::Result<Self> {
        self.check(|head| head.reason(reason))?;
        self.reason = Some(reason.to_owned());
        Ok(self)
    }

    /// Adds a field (Python's `send_header`). The value is bytes: one in Latin-1 is a `Vec<u8>` in Latin-1.
    ///
    /// # Errors
    /// [`Misuse::Field`] for a name that is no token or a value with a control character, [`Misuse::Framing`] for a
    /// field that is the server's to write.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> io::Result<Self> {
        let value = value.as_ref();
        self.check(|head| head.field(name, value))?;
        self.fields.push((name.to_owned(), value.to_vec()));
        Ok(self)
    }

    /// Announces the length of the body. Without it, the body is chunked, or ends with the connection for HTTP/1.0.
    pub fn length(self, length: u64) -> Self {
        HeadWriter { length: Some(length), ..self }
    }

    /// Ends the head (Python's `end_headers`). It goes out with the first of the body; an interim one goes out at once.
    ///
    /// # Errors
    /// If the exchange is over.
    pub fn send(self) -> io::Result<()> {
        let HeadWriter { line, purpose, status, reason, fields, length } = self;
        line.not_the_peers_time();
        line.act(|reply| {
            let mut head = purpose.begin(reply, status)?;
            if let Some(reason) = &reason {
                head = head.reason(reason)?;
            }
            for (name, value) in &fields {
                head = head.field(name, value)?;
            }
            if let Some(length) = length {
                head = head.length(length);
            }
            head.send()
        })?;
        match purpose {
            Purpose::Respond => Ok(()),
            Purpose::Inform => line.push_out(),
        }
    }

    /// Lets the core check a part before it is kept.
    fn check(
        &mut self,
        add: impl FnOnce(core::HeadWriter<'_>) -> Result<core::HeadWriter<'_>, Misuse>,
    ) -> io::Result<()> {
        let HeadWriter { line, purpose, status, .. } = self;
        line.act(|reply| purpose.begin(reply, *status).and_then(add).map(drop))
    }
}

//! Answers: their heads, and the framing of their bodies (RFC 9112 sections 6 and 7.1).

use crate::config::{Config, Protocol};
use crate::status::StatusCode;

/// How the body of an answer is framed, and what of it is still to be produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// So many bytes are still to come.
    Length(Left),
    /// Chunked.
    Chunked,
    /// Until the connection closes, for HTTP/1.0.
    Close,
    /// There is none: HEAD, 204, 304.
    None,
}

impl Encoder {
    /// So many bytes are still to come.
    pub(crate) fn length(left: u64) -> Encoder {
        Encoder::Length(Left::new(left))
    }
}

/// A number of bytes, in two halves: an idle connection is to be small, and this needs to be aligned to four
/// bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left([u32; 2]);

impl Left {
    fn new(left: u64) -> Left {
        Left([(left >> 32) as u32, left as u32])
    }

    pub(crate) fn get(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }

    /// `None`: so many are not left.
    pub(crate) fn take(&mut self, n: u64) -> Option<()> {
        *self = Left::new(self.get().checked_sub(n)?);
        Some(())
    }
}

/// Writes the head of an answer into an output window.
pub(crate) struct HeadOut<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> HeadOut<'o> {
    /// Writes the status line; `reason` `None` is the status's phrase.
    #[inline]
    pub(crate) fn start(
        config: &Config,
        status: StatusCode,
        reason: Option<&[u8]>,
        out: &'o mut Vec<u8>,
    ) -> HeadOut<'o> {
        if (config.protocol, status) == (Protocol::Http11, StatusCode::OK) && reason.is_none() {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            return HeadOut { out };
        }
        HeadOut::start_any(config, status, reason, out)
    }

    fn start_any(config: &Config, status: StatusCode, reason: Option<&[u8]>, out: &'o mut Vec<u8>) -> HeadOut<'o> {
        out.extend_from_slice(match config.protocol {
            Protocol::Http10 => b"HTTP/1.0 ",
            Protocol::Http11 => b"HTTP/1.1 ",
        });
        out.extend_from_slice(itoa::Buffer::new().format(status.code()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason.unwrap_or(status.phrase().as_bytes()));
        out.extend_from_slice(b"\r\n");
        HeadOut { out }
    }

    /// Goes on with the lines of a head.
    pub(crate) fn more(out: &'o mut Vec<u8>) -> HeadOut<'o> {
        HeadOut { out }
    }

    /// Writes a field. Its name comes with what separates it from the value, since each piece costs a look at the
    /// room. Name and value are the caller's to have checked. Inlined, so that the name is written as the constant
    /// that it is.
    #[inline(always)]
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        debug_assert!(name.ends_with(": "));
        self.lines(name.as_bytes()).lines(value).lines(b"\r\n")
    }

    /// Writes lines, or a part of one.
    #[inline(always)]
    pub(crate) fn lines(&mut self, lines: &[u8]) -> &mut Self {
        self.out.extend_from_slice(lines);
        self
    }

    /// The same for a name that is not ours.
    pub(crate) fn raw_field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        self.lines(name).lines(b": ").lines(value).lines(b"\r\n")
    }

    /// Writes the field that says where the body ends.
    pub(crate) fn framing(&mut self, encoder: Encoder) -> &mut Self {
        match encoder {
            Encoder::Length(left) => self.number("Content-Length: ", left.get()),
            Encoder::Chunked => self.field("Transfer-Encoding: ", b"chunked"),
            Encoder::Close | Encoder::None => self,
        }
    }

    #[inline]
    pub(crate) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.field(name, itoa::Buffer::new().format(value).as_bytes())
    }

    /// Writes a field whose value `write` appends.
    #[inline]
    pub(crate) fn field_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.lines(name.as_bytes());
        write(self.out);
        self.lines(b"\r\n")
    }

    /// The window itself, for fields that are written elsewhere.
    pub(crate) fn raw(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Writes the empty line.
    pub(crate) fn end(&mut self) {
        self.lines(b"\r\n");
    }
}

/// Appends what comes before the data of a chunk of `len` bytes.
pub(crate) fn begin_chunk(len: usize, out: &mut Vec<u8>) {
    use std::io::Write;
    debug_assert!(len > 0, "an empty chunk would end the body");
    write!(out, "{len:x}\r\n").expect("a Vec takes all");
}

/// Appends one chunk; `data` is not empty.
pub(crate) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    begin_chunk(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The chunk that ends a body, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_counted_in_64_bits() {
        let mut left = Left::new(u64::MAX - 1);
        assert_eq!((left.take(u64::from(u32::MAX)), left.get()), (Some(()), u64::MAX - 1 - u64::from(u32::MAX)));
        assert_eq!((left.take(left.get()), left.get()), (Some(()), 0));
        assert_eq!((left.take(1), left.get()), (None, 0));
    }
}

//! The heads of responses, and the framing of their bodies (RFC 9112 sections 6 and 7.1). How a body is framed is
//! decided by the caller.

use crate::config::{Config, Protocol};
use crate::status::StatusCode;

/// How the body of a response is framed, and how much of it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// This number of bytes is missing.
    Length(Left),
    /// Chunked.
    Chunked,
    /// The body ends when the connection closes (HTTP/1.0).
    Close,
    /// There is no body: HEAD, 204, 304.
    None,
}

impl Encoder {
    /// A body of which `left` bytes are missing.
    pub(crate) fn length(left: u64) -> Encoder {
        Encoder::Length(Left::new(left))
    }
}

/// A number of bytes in two halves, which needs an alignment of only four bytes, so that an idle connection stays
/// small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left([u32; 2]);

impl Left {
    fn new(left: u64) -> Left {
        Left([(left >> 32) as u32, left as u32])
    }

    pub(crate) fn get(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }

    /// Subtracts `n`; `None` if that is more than the rest.
    pub(crate) fn take(&mut self, n: u64) -> Option<()> {
        *self = Left::new(self.get().checked_sub(n)?);
        Some(())
    }
}

/// Writes the head of a response into the output.
pub(crate) struct HeadOut<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> HeadOut<'o> {
    /// Writes the status line. If `reason` is `None`, the phrase is that of the status.
    #[inline(always)]
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

    #[inline(never)]
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

    /// Continues a head, without a status line.
    pub(crate) fn more(out: &'o mut Vec<u8>) -> HeadOut<'o> {
        HeadOut { out }
    }

    /// Writes a field. The name includes the separator, because every append checks the capacity. The caller has to
    /// validate the name and the value. Inlined, so that the name is written as a constant.
    #[inline(always)]
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        debug_assert!(name.ends_with(": "));
        self.lines(name.as_bytes()).lines(value).lines(b"\r\n")
    }

    /// Appends lines, or a part of a line.
    #[inline(always)]
    pub(crate) fn lines(&mut self, lines: &[u8]) -> &mut Self {
        self.out.extend_from_slice(lines);
        self
    }

    /// Like [`field`](Self::field), for a name that is not a constant.
    pub(crate) fn raw_field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        self.lines(name).lines(b": ").lines(value).lines(b"\r\n")
    }

    /// Writes the field that frames the body.
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
    #[inline(always)]
    pub(crate) fn field_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.lines(name.as_bytes());
        write(self.out);
        self.lines(b"\r\n")
    }

    /// The output itself, for fields that are written elsewhere.
    pub(crate) fn raw(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Writes the empty line that ends the head.
    pub(crate) fn end(&mut self) {
        self.lines(b"\r\n");
    }
}

/// Appends the size line of a chunk of `len` bytes.
pub(crate) fn begin_chunk(len: usize, out: &mut Vec<u8>) {
    use std::io::Write;
    debug_assert!(len > 0, "an empty chunk would end the body");
    write!(out, "{len:x}\r\n").expect("writing to a Vec does not fail");
}

/// Appends a chunk; `data` must not be empty.
pub(crate) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    begin_chunk(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_counted_in_64_bits() {
        let mut left = Left::new(u64::MAX - 1);
        assert_eq!((left.take(u64::from(u32::MAX)), left.get()), (Some(()), u64::MAX - 1 - u64::from(u32::MAX)));
        assert_eq!((left.take(left.get()), left.get()), (Some(()), 0));
        assert_eq!((left.take(1), left.get()), (None, 0));
    }
}

//! Decodes request bodies in place, piece by piece: by length, or chunked (RFC 9112 section 7.1).
//!
//! The decoder neither copies nor stores bytes. It returns how many bytes of framing to skip and how many bytes of data
//! follow. Every state has a limit, so that a body that makes no progress is refused.

use crate::config::Limits;
use crate::error::Violation;
use crate::grammar::is_token_byte;

/// Which part of a body the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// This number of bytes is missing.
    Length(u64),
    /// Chunked.
    Chunked(Chunked),
}

/// What some unread bytes consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The length of the framing, which comes first.
    pub(crate) skip: usize,
    /// The length of the data after it.
    pub(crate) data: usize,
    /// Whether the body ends after the framing.
    pub(crate) end: bool,
    /// Where the trailer section begins in the framing; `skip` if there is none.
    pub(crate) trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// The length of the current line, or of the trailer section, so far.
    counted: u32,
    /// The number of bytes that are missing of the chunk.
    left: u64,
    /// The number of data bytes that are still permitted in all chunks together.
    budget: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeFirst,
    Size,
    /// White space after the size.
    SizeSpace,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

/// Where in the extensions of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// After a `;`.
    Start,
    Name,
    /// White space after the name.
    NameSpace,
    /// After a `=`.
    ValueStart,
    Token,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After the quote that ends a quoted string.
    QuotedEnd,
    /// White space after the value.
    Space,
}

impl Decoder {
    pub(crate) fn chunked(limits: &Limits) -> Decoder {
        Decoder::Chunked(Chunked { state: State::SizeFirst, counted: 0, left: 0, budget: limits.body })
    }

    /// Decodes some unread bytes. If there is neither data nor the end, more bytes are needed. The caller consumes
    /// `skip` bytes, and then calls [`took`](Self::took) with the amount of data that it used.
    pub(crate) fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<Piece, Violation> {
        match self {
            Decoder::Length(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Piece { skip: 0, data, end: *left == 0, trailers: 0 })
            }
            Decoder::Chunked(chunked) => chunked.decode(bytes, limits),
        }
    }

    /// Records that `n` bytes of data were used.
    pub(crate) fn took(&mut self, n: usize) {
        match self {
            Decoder::Length(left) => *left -= n as u64,
            Decoder::Chunked(chunked) => {
                chunked.left -= n as u64;
                if chunked.left == 0 {
                    chunked.state = State::DataCr;
                }
            }
        }
    }

    /// Whether the body may exceed the initial window.
    pub(crate) fn is_long(&self) -> bool {
        match self {
            Decoder::Length(left) => *left > 4 * 1024,
            Decoder::Chunked(_) => true,
        }
    }

    /// A lower bound for the number of missing bytes.
    pub(crate) fn at_least(&self) -> u64 {
        match self {
            Decoder::Length(left) => *left,
            Decoder::Chunked(chunked) => chunked.left,
        }
    }
}

impl Chunked {
    fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<Piece, Violation> {
        let mut trailers = None;
        for (at, &byte) in bytes.iter().enumerate() {
            match self.state {
                State::Data => {
                    let rest = bytes.len() - at;
                    let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest);
                    return Ok(Piece { skip: at, data, end: false, trailers: at });
                }
                State::End => return Ok(Piece { skip: at, data: 0, end: true, trailers: trailers.unwrap_or(at) }),
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                    trailers.get_or_insert(at);
                    self.framing(byte, limits)?;
                }
                _ => self.framing(byte, limits)?,
            }
        }
        let skip = bytes.len();
        Ok(Piece { skip, data: 0, end: self.state == State::End, trailers: trailers.unwrap_or(skip) })
    }

    /// Processes a byte that is not data.
    fn framing(&mut self, byte: u8, limits: &Limits) -> Result<(), Violation> {
        self.state = match self.state {
            State::SizeFirst | State::Size | State::SizeSpace | State::Extension(_) => {
                self.count(limits.chunk_line, Violation::ChunkLineTooLong)?;
                self.size_line(byte)?
            }
            State::SizeLf => {
                lf(byte, Violation::BareCr)?;
                self.budget = self.budget.checked_sub(self.left).ok_or(Violation::BodyTooLarge)?;
                self.counted = 0;
                if self.left == 0 { State::TrailerStart } else { State::Data }
            }
            State::DataCr => match byte {
                b'\r' => State::DataLf,
                _ => return Err(Violation::ChunkEnd),
            },
            State::DataLf => {
                lf(byte, Violation::ChunkEnd)?;
                State::SizeFirst
            }
            State::TrailerStart | State::TrailerName | State::TrailerValue => {
                self.count(limits.trailers, Violation::TrailersTooLarge)?;
                self.state.trailer(byte)?
            }
            State::TrailerLf => {
                lf(byte, Violation::BareCr)?;
                State::TrailerStart
            }
            State::LastLf => {
                lf(byte, Violation::BareCr)?;
                State::End
            }
            State::Data | State::End => unreachable!("data and the end are not framing"),
        };
        Ok(())
    }

    /// Processes a byte of the line with the size of a chunk.
    fn size_line(&mut self, byte: u8) -> Result<State, Violation> {
        Ok(match (self.state, byte) {
            (State::Extension(extension), _) => return extension.next(byte),
            (_, b'\n') => return Err(Violation::BareLf),
            (State::SizeFirst | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16).expect("a hexadecimal digit"));
                let left = self.left.checked_mul(16).and_then(|left| left.checked_add(digit));
                self.left = left.ok_or(Violation::MalformedChunkSize)?;
                State::Size
            }
            (State::Size | State::SizeSpace, b';') => State::Extension(Extension::Start),
            // Other recipients disagree about white space that no extension follows, so it is refused.
            (State::Size | State::SizeSpace, b' ' | b'\t') => State::SizeSpace,
            (State::Size, b'\r') => State::SizeLf,
            _ => return Err(Violation::MalformedChunkSize),
        })
    }

    fn count(&mut self, most: usize, violation: Violation) -> Result<(), Violation> {
        self.counted += 1;
        if self.counted as usize > most { Err(violation) } else { Ok(()) }
    }
}

impl State {
    /// Processes a byte of a trailer section.
    fn trailer(self, byte: u8) -> Result<State, Violation> {
        Ok(match (self, byte) {
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::TrailerValue, b'\n') => return Err(Violation::BareLf),
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => State::TrailerValue,
            _ => return Err(Violation::MalformedTrailer),
        })
    }
}

impl Extension {
    /// Processes a byte. No extension is known here, but their syntax is checked, so that the line cannot be read in two
    /// ways.
    /// RFC 9112 section 7.1.1: "A recipient MUST ignore unrecognized chunk extensions."
    ///
    /// ```text
    /// chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
    /// ```
    fn next(self, byte: u8) -> Result<State, Violation> {
        use Extension::{Escaped, Name, NameSpace, Quoted, QuotedEnd, Space, Start, Token, ValueStart};
        let is_token = is_token_byte(byte);
        Ok(State::Extension(match (self, byte) {
            (_, b'\n') => return Err(Violation::BareLf),
            (Start, b' ' | b'\t') => Start,
            (Start | Name, _) if is_token => Name,
            (Name | NameSpace, b' ' | b'\t') => NameSpace,
            (Name | NameSpace, b'=') => ValueStart,
            (ValueStart, b' ' | b'\t') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (ValueStart | Token, _) if is_token => Token,
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            (Token | QuotedEnd | Space, b' ' | b'\t') => Space,
            (Name | NameSpace | Token | QuotedEnd | Space, b';') => Start,
            (Name | Token | QuotedEnd, b'\r') => return Ok(State::SizeLf),
            _ => return Err(Violation::MalformedChunkExtension),
        }))
    }
}

fn lf(byte: u8, otherwise: Violation) -> Result<(), Violation> {
    if byte == b'\n' { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, and what follows the body.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Decodes `text`, `step` bytes at a time; `None` if it is not complete.
    fn decode(text: &[u8], step: usize, limits: &Limits) -> Result<Option<Decoded>, Violation> {
        let mut decoder = Decoder::chunked(limits);
        let mut data = Vec::new();
        let mut unread = Vec::new();
        let mut rest = text;
        loop {
            let piece = decoder.decode(&unread, limits)?;
            unread.drain(..piece.skip);
            data.extend(unread.drain(..piece.data));
            if piece.data > 0 {
                decoder.took(piece.data);
            } else if piece.end {
                unread.extend_from_slice(rest);
                return Ok(Some((data, unread)));
            } else if rest.is_empty() {
                return Ok(None);
            } else {
                let (now, later) = rest.split_at(step.min(rest.len()));
                unread.extend_from_slice(now);
                rest = later;
            }
        }
    }

    #[test]
    fn decoding_does_not_depend_on_how_a_body_is_split() {
        let text = b"5\r\nhello\r\nA;name=\"value\"\r\n, world!!!\r\n000\r\nX-Sum: 1\r\nY:\r\n\r\nGET";
        for step in 1..=text.len() {
            let decoded = decode(text, step, &Limits::default());
            assert_eq!(decoded, Ok(Some((b"hello, world!!!".to_vec(), b"GET".to_vec()))), "step {step}");
        }
        for end in 0..text.len() - 3 {
            assert_eq!(decode(&text[..end], 7, &Limits::default()), Ok(None), "cut at {end}");
        }
    }

    /// RFC 9112 section 7.1.1, with the white space that a recipient must accept (RFC 9110 section 5.6.3).
    #[test]
    fn extensions_are_ignored() {
        for line in [
            &b"5;a"[..],
            b"5 ;a",
            b"5\t \t;a",
            b"5; a",
            b"5;a=b",
            b"5;a =b",
            b"5;a= b",
            b"5 ;\ta \t=\t b \t;\tc",
            b"5;a;b=c;d",
            b"5;a ;b = c ; d",
            b"5;a=\"\"",
            b"5;a=\"b;c=d\"",
            b"5;a=\" b\t\" ; c",
            b"5;a=\"\\\"\\\\\\;\xff\"",
            b"5;a=\"\xff\\\xff\"",
            b"5;!#$%&'*+-.^_`|~=!#$%&'*+-.^_`|~",
            b"5;5=5",
        ] {
            let text = [line, b"\r\nhello\r\n0", &line[1..], b"\r\n\r\nGET"].concat();
            for step in 1..=text.len() {
                let decoded = decode(&text, step, &Limits::default());
                assert_eq!(decoded, Ok(Some((b"hello".to_vec(), b"GET".to_vec()))), "{}", line.escape_ascii());
            }
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        use Violation::*;
        for (text, violation) in [
            (&b"\r\n"[..], MalformedChunkSize),
            (b"+5\r\n", MalformedChunkSize),
            (b"-1\r\n", MalformedChunkSize),
            (b"0x5\r\n", MalformedChunkSize),
            (b" 5\r\n", MalformedChunkSize),
            (b"5 \r\n", MalformedChunkSize),
            (b"5\t\r\n", MalformedChunkSize),
            (b"5 5\r\n", MalformedChunkSize),
            (b"5 \n", BareLf),
            (b"5_0\r\n", MalformedChunkSize),
            (b"g\r\n", MalformedChunkSize),
            (b";a\r\n", MalformedChunkSize),
            (b"10000000000000000\r\n", MalformedChunkSize),
            (b"5\n", BareLf),
            (b"5;a\n", BareLf),
            (b"5\rhello", BareCr),
            (b"5;\0\r\n", MalformedChunkExtension),
            (b"5;\r\n", MalformedChunkExtension),
            (b"5; \r\n", MalformedChunkExtension),
            (b"5;;a\r\n", MalformedChunkExtension),
            (b"5;a;\r\n", MalformedChunkExtension),
            (b"5;a; \t;b\r\n", MalformedChunkExtension),
            (b"5;=a\r\n", MalformedChunkExtension),
            (b"5;\"a\"\r\n", MalformedChunkExtension),
            (b"5;a\xff\r\n", MalformedChunkExtension),
            (b"5;a b\r\n", MalformedChunkExtension),
            (b"5;a \r\n", MalformedChunkExtension),
            (b"5;a=\r\n", MalformedChunkExtension),
            (b"5;a= ;b\r\n", MalformedChunkExtension),
            (b"5;a==b\r\n", MalformedChunkExtension),
            (b"5;a=b=c\r\n", MalformedChunkExtension),
            (b"5;a=b c\r\n", MalformedChunkExtension),
            (b"5;a=b\t\r\n", MalformedChunkExtension),
            (b"5;a=b\"c\"\r\n", MalformedChunkExtension),
            (b"5;a=\"b\"c\r\n", MalformedChunkExtension),
            (b"5;a=\"b\" \r\n", MalformedChunkExtension),
            (b"5;a=\"b\r\n\"\r\n", MalformedChunkExtension),
            (b"5;a=\"b\\\r\n", MalformedChunkExtension),
            (b"5;a=\"\x01\"\r\n", MalformedChunkExtension),
            (b"5;a=\"\x7f\"\r\n", MalformedChunkExtension),
            (b"5;a=\"\\\x7f\"\r\n", MalformedChunkExtension),
            (b"5;a=\"b\nc\"\r\n", BareLf),
            (b"5;a=\"\\\n\"\r\n", BareLf),
            (b"5;\n", BareLf),
            (b"5;a=b\n", BareLf),
            (b"5;a=b\rc", BareCr),
            (b"5;a\rb", BareCr),
            (b"5\r\nhelloXY", ChunkEnd),
            (b"5\r\nhello\n", ChunkEnd),
            (b"5\r\nhello\rX", ChunkEnd),
            (b"0\r\n X: 1\r\n", MalformedTrailer),
            (b"0\r\nX : 1\r\n", MalformedTrailer),
            (b"0\r\n: 1\r\n", MalformedTrailer),
            (b"0\r\nX: 1\n", BareLf),
            (b"0\r\nX: \x01\r\n", MalformedTrailer),
            (b"0\r\n\n", BareLf),
            (b"0\r\n\rX", BareCr),
            (b"80000001\r\n", BodyTooLarge),
        ] {
            for step in 1..=text.len() {
                assert_eq!(decode(text, step, &Limits::default()), Err(violation), "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn limits_apply_one_below_at_and_one_above() {
        let limits = Limits { chunk_line: 8, trailers: 8, body: 4, ..Limits::default() };
        assert_eq!(decode(b"4;abcd\r\nDATA\r\n0\r\n\r\n", 1, &limits).unwrap().unwrap().0, b"DATA");
        assert!(decode(b"4;abcde\r\nDATA\r\n0\r\n\r\n", 1, &limits).unwrap().is_some());
        assert_eq!(decode(b"4;abcdef\r\n", 1, &limits), Err(Violation::ChunkLineTooLong));
        assert_eq!(decode(b"0\r\nA: bcde\r\n\r\n", 1, &limits), Err(Violation::TrailersTooLarge));
        assert!(decode(b"0\r\nA: bcd\r\n\r\n", 1, &limits).unwrap().is_some());
        assert_eq!(decode(b"5\r\n", 1, &limits), Err(Violation::BodyTooLarge));
        assert_eq!(decode(b"3\r\nabc\r\n2\r\n", 1, &limits), Err(Violation::BodyTooLarge));
    }
}

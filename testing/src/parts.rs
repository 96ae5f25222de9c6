//! Parses the parts of a 206 response (RFC 9110 section 15.3.7).

use super::answers::{Answer, shown, split_crlf};

/// A part of a `multipart/byteranges` response: first byte, last byte, length of the file, bytes.
pub type Part = (u64, u64, u64, Vec<u8>);

/// Parses a 206 response, single or multipart, into its parts.
///
/// # Errors
/// A description of the error.
pub fn parts(answer: &Answer) -> Result<Vec<Part>, String> {
    let kind = answer.text("Content-Type");
    let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") else {
        let (first, last, len) = content_range(answer.text("Content-Range"))?;
        return Ok(vec![(first, last, len, answer.body.clone())]);
    };
    if answer.field("Content-Range").is_some() {
        return Err("multipart with Content-Range".into());
    }
    let mut parts = Vec::new();
    let mut rest = answer.body.as_slice();
    let (open, close) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    while rest != close.as_bytes() {
        rest = rest.strip_prefix(open.as_bytes()).ok_or_else(|| format!("no boundary: {}", shown(rest)))?;
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").ok_or("a part without head")?;
        let lines = split_crlf(&rest[..end])?;
        let range = lines.iter().find_map(|line| line.strip_prefix(b"Content-Range: ")).ok_or("no Content-Range")?;
        if !lines.iter().any(|line| line.starts_with(b"Content-Type: ")) || lines.len() != 2 {
            return Err("the fields of a part".into());
        }
        let (first, last, len) = content_range(&String::from_utf8_lossy(range))?;
        let size = usize::try_from(last - first + 1).map_err(|_| "a part too large")?;
        let data = rest.get(end + 4..end + 4 + size).ok_or("a part too short")?;
        parts.push((first, last, len, data.to_vec()));
        rest = &rest[end + 4 + size..];
    }
    Ok(parts)
}

/// The first byte, the last byte and the length of a `Content-Range`.
pub(super) fn content_range(text: &str) -> Result<(u64, u64, u64), String> {
    let read = || {
        let (range, len) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, len) = (first.parse().ok()?, last.parse().ok()?, len.parse().ok()?);
        (first <= last && last < len).then_some((first, last, len))
    };
    read().ok_or_else(|| format!("Content-Range: {text}"))
}

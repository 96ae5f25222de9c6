//! Parses responses with the strict parser of the library, and checks in addition that they contain nothing beyond what
//! `docs/python.md` describes.

pub use sanserve_testing::{Answer, parts};

/// The responses in a byte stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub answers: Vec<Answer>,
    /// The number of bytes of an incomplete head or interim response.
    pub rest: usize,
}

/// Parses a stream. `bodiless(n)` returns whether the `n`th response is to a HEAD.
pub fn read(bytes: &[u8], bodiless: impl Fn(usize) -> bool) -> Result<Stream, String> {
    let read = sanserve_testing::read_answers(bytes, bodiless)?;
    read.all.iter().try_for_each(check)?;
    Ok(Stream { answers: read.all, rest: read.rest })
}

fn check(answer: &Answer) -> Result<(), String> {
    let count = |name: &str| answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    if let Some(interim) = answer.interim.iter().find(|i| i.status != 100 || !i.fields.is_empty()) {
        return Err(format!("not a bare 100 Continue: {interim:?}"));
    }
    if !answer.trailers.is_empty() {
        return Err(format!("trailers: {:?}", answer.trailers));
    }
    for once in ["Server", "Date"] {
        if count(once) != 1 {
            return Err(format!("{once} {} times", count(once)));
        }
    }
    for (name, value) in &answer.fields {
        if count(name) != 1 || value.is_empty() {
            return Err(format!("{name} {} times, with \"{}\"", count(name), shown(value)));
        }
    }
    // A 304 has no content, and so no length.
    if answer.status == 304 && (count("Content-Length") > 0 || count("Transfer-Encoding") > 0) {
        return Err("304 with a length".into());
    }
    let due: &[&str] = match answer.status {
        301 => &["Location"],
        206 | 416 if !answer.text("Content-Type").starts_with("multipart/") => &["Content-Range"],
        405 => &["Allow"],
        _ => &[],
    };
    match due.iter().find(|name| count(name) == 0) {
        Some(name) => Err(format!("{} without {name}", answer.status)),
        None => Ok(()),
    }
}

/// Formats bytes for a message, truncated.
pub fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    format!("{}{}", short.escape_ascii(), if short.len() < bytes.len() { ".." } else { "" })
}

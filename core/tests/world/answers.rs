//! Answers, read by the library's strict reader, and stricter still: nothing that `docs/python.md` does
//! not have.

pub use sanserve_testing::{Answer, parts};

/// What stands in a stream of answers.
#[derive(Debug, Default)]
pub struct Stream {
    pub answers: Vec<Answer>,
    /// Bytes of a head, or of an interim answer, that is not complete.
    pub rest: usize,
}

/// Reads a stream. `bodiless(n)` says whether the `n`th answer is to a HEAD.
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
    // No content, and so no length, for this.
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

/// Bytes for a message, shortened.
pub fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    format!("{}{}", short.escape_ascii(), if short.len() < bytes.len() { ".." } else { "" })
}

//! Logging the stderr of a script line by line.

use crate::log::Log;

/// The length limit of a line in bytes; a longer line is truncated.
const LINE: usize = 4_096;

/// The limit for one script in bytes.
const MOST: usize = 64 * 1024;

/// Collects lines and logs them, within the limits. Counts the bytes that are not logged.
#[derive(Debug)]
pub(super) struct StderrLogger {
    log: Log,
    /// The name of the script, escaped for the log.
    name: String,
    line: Vec<u8>,
    /// Bytes that were logged or are in `line`, including line ends.
    spent: usize,
    lost: u64,
}

impl StderrLogger {
    /// `path` is the path of the script below the root.
    pub(super) fn new(log: Log, path: &[u8]) -> StderrLogger {
        let mut name = b"/".to_vec();
        sanserve_core::scrub(&mut name, path);
        let name = String::from_utf8_lossy(&name).into_owned();
        StderrLogger { log, name, line: Vec::new(), spent: 0, lost: 0 }
    }

    /// Adds bytes that the script has written.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let kept = text.len().min(LINE - self.line.len()).min(MOST - self.spent);
            self.line.extend_from_slice(&text[..kept]);
            self.spent += kept;
            self.lost += (text.len() - kept) as u64;
            if text.len() < piece.len() {
                if self.spent < MOST {
                    self.spent += 1;
                } else {
                    self.lost += 1;
                }
                self.end_line();
            }
        }
    }

    /// Ends the output.
    pub(super) fn end(&mut self) {
        self.end_line();
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => self.say(format_args!("{lost} bytes of its stderr were not logged")),
        }
    }

    /// Logs a message about the script.
    pub(super) fn say(&self, message: impl std::fmt::Display) {
        self.log.error(format_args!("{}: {message}", self.name));
    }

    /// Empty lines are not logged.
    fn end_line(&mut self) {
        if !self.line.is_empty() {
            let mut text = Vec::with_capacity(self.line.len());
            sanserve_core::scrub(&mut text, &self.line);
            self.line.clear();
            self.say(String::from_utf8_lossy(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::Lines;

    fn logged(pieces: &[&[u8]]) -> Vec<String> {
        let lines = Lines::default();
        let mut remarks = StderrLogger::new(Log::to(lines.clone()), b"cgi-bin/\x1b");
        pieces.iter().for_each(|piece| remarks.take(piece));
        remarks.end();
        let text = lines.text();
        text.lines().map(|line| line.strip_prefix("sanserve: /cgi-bin/\\x1b: ").unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_logged_however_they_arrive() {
        assert_eq!(logged(&[b"on", b"e\ntwo\n\n", b"\x1bthree"]), ["one", "two", "\\x1bthree"]);
        assert_eq!(logged(&[]), [""; 0]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = [&[b'x'; LINE + 5][..], b"\nnext\n"].concat();
        let expected = [&"x".repeat(LINE), "next", "5 bytes of its stderr were not logged"];
        assert_eq!(logged(&[&long]), expected);
        assert_eq!(logged(&[&long[..LINE], &long[LINE..]]), expected);
        assert_eq!(logged(&[&[b'x'; LINE]]), ["x".repeat(LINE)]);
    }

    #[test]
    fn excess_output_is_counted() {
        let lines = b"123456789\n".repeat(10_000);
        let logged = logged(&[&lines]);
        assert_eq!(logged.len(), MOST.div_ceil(10) + 1);
        assert_eq!(logged[MOST / 10], "123456");
        assert_eq!(logged.last().unwrap(), &format!("{} bytes of its stderr were not logged", 100_000 - MOST));
    }
}

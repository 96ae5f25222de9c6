//! What was observed of the current exchange.

use sanserve_core::{Call, Completion, FsError, Kind, Opened, Timeouts};

use super::super::answers::Answer;
use super::super::parts::content_range;
use super::{Wrong, millis, wrong};

/// What was observed of an exchange.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Whether any step belonged to it.
    pub(super) begun: bool,
    /// Whether files respond.
    pub(super) files: bool,
    /// Whether a script was looked for.
    pub(super) scripts: bool,
    /// The script that runs or has run.
    pub(super) script: Option<Script>,
    /// Whether the handler was called.
    pub(super) called: bool,
    /// Whether the handler was called with `Over`.
    pub(super) over: bool,
    /// The status of the final response that was begun.
    pub(super) status: Option<u16>,
    /// Whether it is an error after which the connection closes.
    pub(super) refused: bool,
    /// The length of the file that was opened last.
    file: Option<u64>,
    /// The parts of it that were sent: offset and length.
    parts: Vec<(u64, u64)>,
}

/// What was observed of the scripts of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// When the first script was run, and when the last.
    first: u64,
    since: u64,
    /// When it was last active.
    last: u64,
    /// Whether its output is complete, or it was terminated.
    over: bool,
}

impl Seen {
    pub(super) fn is_open(&self) -> bool {
        self.begun
    }

    pub(super) fn call(&mut self, call: Call) -> Result<(), Wrong> {
        self.begun = true;
        match call {
            Call::Request if self.called => wrong("call", "a second request before the first was over"),
            Call::Request => {
                self.called = true;
                Ok(())
            }
            _ if !self.called || self.over => wrong("call", format!("{call:?} outside of a request")),
            Call::Over => {
                self.over = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn opened(&mut self, answer: Result<Opened, FsError>) {
        self.file = answer.ok().filter(|opened| opened.kind == Kind::File).map(|opened| opened.len);
    }

    pub(super) fn completed(&mut self, completion: &Completion, now: u64) {
        match completion {
            Completion::Opened(answer) => self.opened(*answer),
            Completion::Spawned(Ok(())) => self.script_runs(now),
            _ => {}
        }
    }

    /// Records that a script was run.
    pub(super) fn script_runs(&mut self, now: u64) {
        let first = self.script.map_or(now, |script| script.first);
        self.script = Some(Script { first, since: now, last: now, over: false });
    }

    /// Records an activity of the script.
    pub(super) fn script_acts(&mut self, now: u64) {
        self.script.iter_mut().for_each(|script| script.last = now);
    }

    /// Records that the output is complete, or that the script was terminated.
    pub(super) fn script_ends(&mut self) {
        self.script.iter_mut().for_each(|script| script.over = true);
    }

    /// Whether the time of a script may be over. `gone`: the client may have disappeared.
    pub(super) fn script_is_late(&self, now: u64, gone: bool, timeouts: &Timeouts) -> bool {
        self.script.is_some_and(|script| {
            now >= script.first + millis(timeouts.script())
                || (gone && now >= script.last + millis(timeouts.script_silence()))
        })
    }

    /// When the running script must have ended.
    pub(super) fn script_limit(&self, timeouts: &Timeouts) -> Option<u64> {
        self.script.filter(|script| !script.over).map(|script| script.since + millis(timeouts.script()))
    }

    /// Records that `len` bytes of the file were offered from `offset`, and `taken` of them were accepted.
    pub(super) fn file_part(&mut self, offset: u64, len: u64, taken: u64) -> Result<(), Wrong> {
        if !self.files {
            return Ok(());
        }
        if len == 0 || self.file.is_none_or(|all| offset.saturating_add(len) > all) {
            return wrong("file", format!("{offset}+{len} of a file of {:?} bytes", self.file));
        }
        match self.parts.last_mut() {
            Some((from, length)) if *from + *length == offset => *length += taken,
            _ if taken > 0 => self.parts.push((offset, taken)),
            _ => {}
        }
        Ok(())
    }

    /// Checks whether a complete response has the parts of the file that it announces.
    /// With rules, an error may have a file as its page.
    pub(super) fn check_file(&self, answer: &Answer, is_head: bool, has_rules: bool) -> Result<(), Wrong> {
        let Some(len) = self.file.filter(|_| self.files && !is_head) else { return Ok(()) };
        let expected = match answer.status {
            200 => vec![(0, len)],
            206 if answer.text("Content-Type").starts_with("multipart/") => return Ok(()),
            206 => {
                let (first, last, _) =
                    content_range(answer.text("Content-Range")).map_err(|what| Wrong::new("file", what))?;
                vec![(first, last - first + 1)]
            }
            404 | 500 | 503 if has_rules && !self.parts.is_empty() => vec![(0, len)],
            _ => Vec::new(),
        };
        let expected: Vec<_> = expected.into_iter().filter(|part| part.1 > 0).collect();
        if expected == self.parts {
            return Ok(());
        }
        wrong("file", format!("{} with {:?} of a file of {len} bytes, not {expected:?}", answer.status, self.parts))
    }
}

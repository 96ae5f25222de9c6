//! Checks whether the history of a connection is correct. The judge sees every input and every step, in order, and no
//! state of the core: it parses the bytes of both sides itself, and computes from the `Timeouts` alone when each
//! timeout expires. So it notices a timer that fires early, late or never, a response with wrong framing, a log entry
//! that does not match, a request without a response, and a well-formed request that is refused.
//!
//! The contents of responses are not checked, since they depend on the policy, the handler and the script. Nor is it
//! checked when the time of a script ends, or of a body that it is fed, because that depends on what the script has
//! read.

mod exchange;
mod timers;
mod wait;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use exchange::Seen;
pub use timers::Timer;
use timers::Timers;

use sanserve_core::{After, Chunked, Close, Config, Fault, Input, Tick, Violation, Wait};
use sanserve_transcript::{Event, Finish, Middle, ProbeThen, Sending, Then, Transcript, What};

use super::answers::Reader;
use super::requests::Requests;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The name of the rule. A shorter history must break the same one.
    pub(super) rule: &'static str,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn new(rule: &'static str, what: impl Into<String>) -> Wrong {
        // Joined into one line, which may become a comment.
        let what: Vec<String> = what.into().lines().map(|line| line.trim().to_string()).collect();
        Wrong { rule, what: what.join("; ") }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// The reason for cutting a response whose client was too slow.
const TOO_SLOW: &str = "the peer was too slow";
/// The reason for cutting a response whose script was too slow.
const SCRIPT_TOO_SLOW: &str = "the script took too long";

/// Checks whether a history keeps the rules, without replaying it: that of a [`Peer`](super::Peer), or a recording of a
/// server.
///
/// # Errors
/// The first rule that is broken, and how.
///
/// ```
/// use sanserve_testing::judge;
/// use sanserve_transcript::Transcript;
///
/// let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@14999 tick\n@14999 close idle\n";
/// let wrong = judge(&Transcript::parse(text).unwrap()).unwrap_err();
/// assert_eq!(wrong, "keep-alive: closed as idle at 14999; the keep-alive timeout expires at 15000");
/// ```
pub fn judge(transcript: &Transcript) -> Result<(), String> {
    let mut judge = Judge::new(Rc::new(transcript.settings.config.clone()));
    let mut events = transcript.events();
    let outcome = events.try_for_each(|event| judge.see(event)).and_then(|()| judge.end());
    outcome.map_err(|wrong| wrong.to_string())
}

/// Reports a broken rule.
fn wrong<T>(rule: &'static str, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::new(rule, what))
}

/// The statistics of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The status of each finished exchange.
    pub(super) statuses: Vec<u16>,
    /// The timers that fired.
    pub(super) fired: Vec<Timer>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// What has happened to the connection as a whole.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    eof: bool,
    drain: bool,
    cut: bool,
    broken: Option<Fault>,
    /// Whether the last response announced the end of the connection, or could not announce it.
    ends: bool,
    /// Whether the connection was cut because the client was too slow.
    slow: bool,
    shut: bool,
    closed: bool,
    /// Whether an action is in progress.
    asked: bool,
    /// Whether more of the file is being read.
    reading: bool,
    /// Whether a TLS handshake is in progress.
    handshake: bool,
    /// Whether the client speaks plain HTTP in place of one.
    unsecured: bool,
}

/// The judge of one connection.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    config: Rc<Config>,
    requests: Requests,
    reader: Reader,
    seen: Seen,
    timers: Timers,
    marks: Marks,
    now: u64,
    /// The number of the last action.
    actions: u32,
    /// A wait that may be the last step of its turn.
    waits: Option<Wait>,
    /// Bytes that arrived, and perhaps have not been read.
    unread: u64,
    /// Bytes that were offered to the socket and not accepted.
    unsent: u64,
    /// Whether a wait of this turn was not its last step.
    waited: bool,
    /// Whether responses cannot be parsed any more.
    blind: bool,
    pub(super) tally: Tally,
}

impl Judge {
    /// Creates a judge for a connection that is accepted at tick 0.
    pub(super) fn new(config: Rc<Config>) -> Judge {
        Judge {
            requests: Requests::within(&config.limits),
            config,
            reader: Reader::without_bodies(),
            seen: Seen::default(),
            timers: Timers::accepted(0),
            marks: Marks::default(),
            now: 0,
            actions: 0,
            waits: None,
            unread: 0,
            unsent: 0,
            waited: false,
            blind: false,
            tally: Tally::default(),
        }
    }

    /// Processes the next event.
    pub(super) fn see(&mut self, event: &Event) -> Result<(), Wrong> {
        if event.at < self.now {
            return wrong("time", format!("{} after {}", event.at, self.now));
        }
        if self.marks.closed {
            return if event.what.is_input() { Ok(()) } else { wrong("close", "a step after Close") };
        }
        let wait = self.waits.take();
        if event.what.is_input() {
            // The previous turn has ended.
            if let Some(wait) = wait {
                self.check_wait(wait)?;
            }
            self.now = event.at;
            self.waited = false;
            self.timers.begin_turn(self.now, &self.config.timeouts);
            self.input(&event.what);
            return Ok(());
        }
        self.now = event.at;
        self.waited |= wait.is_some();
        self.step(&event.what)
    }

    /// Whether the next or current response is to a HEAD.
    pub(super) fn is_head(&self) -> bool {
        self.requests.is_head()
    }

    /// Ends the history.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        match self.waits.take() {
            Some(wait) => self.check_wait(wait),
            None => Ok(()),
        }
    }

    fn input(&mut self, what: &What) {
        match what {
            What::Recv(bytes) => {
                self.tally.bytes_in += bytes.len() as u64;
                self.unread += bytes.len() as u64;
                self.requests.feed(bytes);
            }
            What::Script(_) | What::Input(Input::Fed(1..)) => self.seen.script_acts(self.now),
            What::Input(Input::ScriptEof | Input::ScriptFailed(_)) => self.seen.script_ends(),
            What::Input(Input::Eof) => self.marks.eof = true,
            What::Input(Input::Drain) => {
                self.marks.drain = true;
                self.timers.drain(self.now, &self.config.timeouts);
            }
            What::Input(Input::Handshake) if self.requests.in_progress() == 0 && self.tally.statuses.is_empty() => {
                self.marks.handshake = true;
                self.timers.handshake();
            }
            What::Input(Input::Secured(_) | Input::Unsecured) if self.marks.handshake => {
                self.marks.handshake = false;
                self.marks.unsecured = *what == What::Input(Input::Unsecured);
                self.timers.end_handshake();
            }
            What::Input(Input::Cut) => self.marks.cut = true,
            What::Input(Input::Broken(fault)) => self.marks.broken = Some(*fault),
            What::Input(Input::Blocked) => self.timers.block(self.now),
            What::Input(Input::Writable) => {
                self.timers.unblock((self.unsent == 0 && !self.seen.files) || self.marks.reading);
            }
            What::Input(Input::FileReady) => self.marks.reading = false,
            // Late results of other actions have no effect.
            What::Input(Input::Done(ticket, completion)) if ticket.number() == self.actions => {
                self.marks.asked = false;
                self.seen.completed(completion, self.now);
            }
            _ => {}
        }
    }

    fn step(&mut self, what: &What) -> Result<(), Wrong> {
        match what {
            What::Send(sending) => self.send(sending),
            What::Open { path, answer, .. } => {
                check_path(path)?;
                // A local redirect has led to a file.
                self.seen.script_ends();
                if let Some(answer) = answer {
                    self.seen.opened(*answer);
                }
                self.acts(answer.is_none())
            }
            What::List { answer, .. } => self.acts(answer.is_none()),
            What::Find { answer, .. } => {
                // A local redirect has led to another script.
                self.seen.script_ends();
                self.acts_for_script(answer.is_none())
            }
            What::Spool { answer } => self.acts_for_script(answer.is_none()),
            What::Spawn { answer, .. } => {
                if *answer == Some(Ok(())) {
                    self.seen.script_runs(self.now);
                }
                self.acts_for_script(answer.is_none())
            }
            What::EndInput | What::Kill | What::Log(_) => {
                if *what == What::Kill {
                    self.seen.script_ends();
                }
                self.actions = self.actions.wrapping_add(1);
                Ok(())
            }
            What::Feed { taken, .. } => {
                if *taken != Some(0) {
                    self.seen.script_acts(self.now);
                }
                Ok(())
            }
            What::Probe { bytes, then } => {
                if !bytes.is_empty() {
                    self.input(&What::Recv(bytes.clone()));
                }
                match then {
                    ProbeThen::Poll | ProbeThen::Later => {}
                    ProbeThen::Eof => self.input(&What::Input(Input::Eof)),
                    ProbeThen::Broken(fault) => self.input(&What::Input(Input::Broken(*fault))),
                }
                Ok(())
            }
            What::Call(call) => self.seen.call(*call),
            What::Finished(finish) => self.finished(finish),
            What::Wait(wait) => {
                self.waits = Some(*wait);
                Ok(())
            }
            What::Shut { blocked: true } | What::Close { blocked: true, .. } => {
                self.timers.block(self.now);
                Ok(())
            }
            What::Shut { .. } => {
                if self.marks.shut || self.seen.is_open() {
                    return wrong("shut", "a half-close in the middle of an exchange, or twice");
                }
                self.marks.shut = true;
                self.timers.linger(self.now);
                Ok(())
            }
            What::Close { close, .. } => self.close(*close),
            What::Recv(_) | What::Script(_) | What::Tick | What::Clock(_) | What::Input(_) => Ok(()),
        }
    }

    fn acts(&mut self, later: bool) -> Result<(), Wrong> {
        if self.marks.asked {
            return wrong("action", "an action while another one is in progress");
        }
        self.actions = self.actions.wrapping_add(1);
        self.marks.asked = later;
        self.seen.files = true;
        self.seen.begun = true;
        Ok(())
    }

    fn acts_for_script(&mut self, later: bool) -> Result<(), Wrong> {
        self.acts(later)?;
        self.seen.files = false;
        self.seen.scripts = true;
        Ok(())
    }

    fn send(&mut self, sending: &Sending) -> Result<(), Wrong> {
        if sending.is_empty() || self.marks.shut || self.marks.ends {
            return wrong("send", "nothing to send, or sent after the end");
        }
        self.seen.begun = true;
        let len = sending.len();
        if let (true, Middle::File { .. }) = (self.marks.reading, &sending.body) {
            return wrong("disk", "a part of the file is sent while it is being read");
        }
        self.marks.reading = false;
        let taken = sending.taken.bytes.unwrap_or(len).min(len);
        self.tally.bytes_out += taken;
        self.unsent = len - taken;
        if !self.blind {
            if self.reader.answer().is_none() && self.seen.status.is_none() {
                self.begin_answer(&sending.head)?;
            }
            self.read_answer(sending, taken)?;
        }
        self.timers.sent(taken, self.now);
        match sending.taken.then {
            Then::Blocked => self.timers.block(self.now),
            Then::Pending => {
                // The time of the disk is not the fault of the client.
                self.marks.reading = matches!(sending.body, Middle::File { .. });
                self.timers.unblock(self.marks.reading);
            }
            Then::Broken(fault) => self.marks.broken = Some(fault),
            Then::Poll if self.unsent == 0 && !self.seen.files => self.timers.unblock(true),
            Then::Poll => {}
        }
        Ok(())
    }

    /// The head of a response is offered: checks whether the client can be blamed for being slow.
    fn begin_answer(&mut self, head: &[u8]) -> Result<(), Wrong> {
        let Some(status) = offered_status(head) else { return Ok(()) };
        self.seen.status = Some(status);
        // After a refusal, the body is not needed any more.
        self.seen.refused = status >= 400 && memchr::memmem::find(head, b"\r\nConnection: close\r\n").is_some();
        if status == 408 {
            let fired = self.timers.fire(&[Timer::Head, Timer::Body]);
            if fired.is_none() && !self.seen.called && !self.seen.scripts {
                return wrong(
                    "408",
                    format!("the client was not too slow at {}{}", self.now, self.timers.shown(&self.config)),
                );
            }
            self.tally.fired.extend(fired);
        }
        if self.requests.in_progress() == 0 && !self.requests.is_odd() && status < 400 {
            return wrong("answer", format!("{status} without a request"));
        }
        Ok(())
    }

    fn read_answer(&mut self, sending: &Sending, taken: u64) -> Result<(), Wrong> {
        let mut left = taken;
        let bodiless = self.requests.is_head();
        let feed = |reader: &mut Reader, bytes: &[u8], left: &mut u64| {
            let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= n as u64;
            let fed = reader.feed(&bytes[..n], bodiless)?;
            if fed < n { Err("bytes after the end of the response".to_string()) } else { Ok(()) }
        };
        let framing = |what: String| Wrong::new("framing", what);
        feed(&mut self.reader, &sending.head, &mut left).map_err(framing)?;
        match &sending.body {
            Middle::None => {}
            Middle::Bytes(bytes) => feed(&mut self.reader, bytes, &mut left).map_err(framing)?,
            Middle::File { offset, len } => {
                let n = left.min(*len);
                left -= n;
                self.seen.file_part(*offset, *len, n)?;
                if n > 0 {
                    self.reader.skip(n).map_err(framing)?;
                }
            }
        }
        feed(&mut self.reader, &sending.tail, &mut left).map_err(framing)
    }

    fn finished(&mut self, finish: &Finish) -> Result<(), Wrong> {
        let mismatch = |what: &str| wrong("log", format!("{what}: finished {} {}", finish.status, finish.sent));
        // A handler that passes on a request, which is then refused, is not called at the end.
        let is_passed = self.seen.files || self.seen.scripts || finish.error.is_some();
        if self.seen.called && !self.seen.over && !is_passed {
            return wrong("over", "the exchange is finished, but the handler was not called with `Over`");
        }
        if self.reader.rest() > 0 && finish.cut.is_none() {
            return mismatch("half a head");
        }
        self.check_cut(finish)?;
        self.check_refusal(finish)?;
        let answer = self.reader.take();
        match &answer {
            _ if self.blind => {}
            Some(answer) if answer.status != finish.status => {
                return mismatch(&format!("the response has status {}", answer.status));
            }
            Some(answer) if answer.framed != finish.sent => {
                return mismatch(&format!("the response has {} bytes after its head", answer.framed));
            }
            Some(answer) if !answer.complete && finish.cut.is_none() => return mismatch("incomplete, but not cut"),
            None if finish.cut.is_none() => return mismatch("no response, but not cut"),
            None if finish.sent != 0 => return mismatch("no response"),
            Some(answer) if finish.cut.is_none() => {
                self.seen.check_file(answer, self.requests.is_head(), self.config.rules.is_some())?
            }
            _ => {}
        }
        let half_read = self.requests.is_body_open();
        if half_read && finish.cut.is_none() && self.seen.status != Some(408) {
            self.tally.fired.extend(self.timers.fire(&[Timer::Body]));
        }
        self.tally.statuses.push(finish.status);
        self.marks.slow = matches!(finish.cut.as_deref(), Some(TOO_SLOW | SCRIPT_TOO_SLOW));
        let closes = answer.as_ref().is_none_or(|answer| answer.closes() || answer.status == 101) && !self.blind;
        let is_nothing = self.requests.in_progress() == 0;
        let is_odd = self.requests.is_odd() && is_nothing;
        self.marks.ends = closes || half_read || finish.cut.is_some() || (is_nothing && !is_odd);
        // It is not known which of the requests after an odd one are a HEAD.
        self.blind = is_odd && !self.marks.ends;
        (self.marks.asked, self.marks.reading) = (false, false);
        self.requests.finish();
        self.seen = Seen::default();
        self.timers.finished();
        self.unsent = 0;
        if self.marks.ends {
            self.reader = Reader::without_bodies();
        }
        Ok(())
    }

    /// Checks that a well-formed request within the limits is not refused, neither for its head nor for its body.
    fn check_refusal(&self, finish: &Finish) -> Result<(), Wrong> {
        let Some(message) = finish.error.as_deref().and_then(|message| std::str::from_utf8(message).ok()) else {
            return Ok(());
        };
        // A handler may send any message, but does not use the messages of the server by accident.
        let is_refusal = |violation: &Violation| match violation.row() {
            (_, After::Close, Some(text)) => {
                let (before, after) = text.split_once("{}").unwrap_or((text, ""));
                message.len() >= before.len() + after.len() && message.starts_with(before) && message.ends_with(after)
            }
            (status, After::Close, None) => status.code() == finish.status && !self.seen.called,
            (_, After::GoOn, _) => false,
        };
        let violation = Violation::ALL.iter().copied().find(is_refusal);
        let is_justified = match violation {
            None => true,
            // This is checked by the timers.
            Some(Violation::HeadTimeout | Violation::BodyTimeout | Violation::OutOfMemory) => true,
            Some(Violation::IncompleteHead | Violation::IncompleteBody) if self.marks.eof => true,
            // A body for a script has its own limit.
            Some(Violation::BodyTooLarge) if !self.config.cgi.directories.is_empty() => true,
            Some(Violation::LengthRequired) if self.config.cgi.chunked == Chunked::Refuse => true,
            Some(_) => !self.requests.is_valid(),
        };
        if is_justified {
            return Ok(());
        }
        wrong("refused", format!("{} to a well-formed request: {message}", finish.status))
    }

    /// Checks whether there was a reason to cut a response.
    fn check_cut(&mut self, finish: &Finish) -> Result<(), Wrong> {
        let Some(reason) = finish.cut.as_deref() else { return Ok(()) };
        let fault = |fault| self.marks.broken == Some(fault);
        let is_justified = match reason {
            "the peer went away" => fault(Fault::Peer),
            "the file became shorter" => fault(Fault::FileShrank),
            "the file was rewritten" => fault(Fault::FileChanged),
            "the file could not be read" => fault(Fault::File),
            "the handler failed" => fault(Fault::Handler) || self.seen.called,
            "the request's body broke off" => self.marks.eof || !self.requests.is_valid(),
            "the server shut down" => self.marks.cut,
            "it is not HTTPS" => self.marks.unsecured,
            SCRIPT_TOO_SLOW => self.seen.script_is_late(self.now, self.marks.eof, &self.config.timeouts),
            TOO_SLOW => {
                let fired = self.timers.fire(&[Timer::Write, Timer::Body]);
                self.tally.fired.extend(fired);
                if fired == Some(Timer::Body) && self.seen.status.is_none() {
                    return wrong("408", "the body was too slow, but there was no response");
                }
                fired.is_some() || self.seen.scripts
            }
            _ => self.seen.scripts,
        };
        if is_justified { Ok(()) } else { wrong("cut", format!("{reason}, at {}: this has not happened", self.now)) }
    }

    fn close(&mut self, close: Close) -> Result<(), Wrong> {
        let Marks { eof, drain, cut, broken, ends, shut, slow, unsecured, .. } = self.marks;
        self.marks.closed = true;
        if self.seen.is_open() {
            return wrong("close", "in the middle of an exchange");
        }
        // If responses cannot be parsed, the announcement is not known.
        let ends = ends || self.blind;
        let no_reason = || wrong("close", format!("{close:?} at {}, without a reason", self.now));
        let is_justified = match close {
            Close::Idle => match self.timers.fire(&[Timer::KeepAlive]) {
                Some(timer) => {
                    self.tally.fired.push(timer);
                    true
                }
                None => {
                    let shown = self.timers.shown(&self.config);
                    return wrong("keep-alive", format!("closed as idle at {}{shown}", self.now));
                }
            },
            // The reason was given when the exchange was cut.
            Close::Timeout if slow => true,
            Close::Timeout => {
                let fired = self.timers.fire(&[Timer::Handshake, Timer::Write, Timer::Linger]);
                self.tally.fired.extend(fired);
                fired.is_some() || self.timers.lingered() + self.unread > self.config.limits.linger
            }
            // RFC 9112 section 9.6: the server half-closes first if the client may still send.
            // Nothing but a redirect is sent in plain text.
            Close::Done => eof || unsecured || (ends && !shut && (self.requests.is_ended() || self.requests.is_odd())),
            Close::Broken => broken.is_some() || ends,
            Close::Drained if cut => true,
            Close::Drained => {
                self.tally.fired.extend(self.timers.fire(&[Timer::Drain]));
                drain
            }
            // `Upgraded`, and reasons that the judge does not know: only if the connection closes anyway.
            _ => ends,
        };
        if !is_justified {
            return no_reason();
        }
        // Only the client may be the reason that a request has no response. A draining server responds to everything
        // that has arrived.
        let excused = ends || cut || unsecured || broken.is_some() || close == Close::Timeout || self.requests.is_odd();
        if self.requests.in_progress() > 0 && !excused {
            return wrong(
                "unanswered",
                format!("{} requests without a response, but it closes: {close:?}", self.requests.in_progress()),
            );
        }
        Ok(())
    }
}

/// The status of the final response that begins in these bytes.
fn offered_status(mut head: &[u8]) -> Option<u16> {
    loop {
        let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
        let code: u16 = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
        if code >= 200 || code == 101 {
            return Some(code);
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
        head = &head[end + 4..];
    }
}

/// Checks the rules of [`Action::Open`](sanserve_core::Action).
fn check_path(path: &[u8]) -> Result<(), Wrong> {
    let bad = |component: &[u8]| matches!(component, b"" | b"." | b"..") || component.contains(&0);
    if !path.is_empty() && path.split(|&byte| byte == b'/').any(bad) {
        return wrong("path", format!("open {}", path.escape_ascii()));
    }
    Ok(())
}

/// Converts a time of the configuration to milliseconds, as in ticks.
fn millis(time: Duration) -> u64 {
    (Tick(0) + time).0
}

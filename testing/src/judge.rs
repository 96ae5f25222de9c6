//! Whether the history of a connection is right. The judge sees every input and every step, in order, and
//! nothing of the core's own bookkeeping: it reads the bytes of both sides itself, and knows from the
//! `Timeouts` alone when each timeout expires. So it sees a timer that fires early, late or never, an answer that
//! is framed wrong, a log entry that does not match, a request that nobody answers, a well-formed one that is refused.
//!
//! What it leaves out: what an answer says, which is the policy's, the handler's and the script's affair; and when the
//! time of a script ends, or of a body that it is fed, which depends on what it has read.

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
    /// Names the rule: a shorter history must break the same one.
    pub(super) rule: &'static str,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn new(rule: &'static str, what: impl Into<String>) -> Wrong {
        // One line, which may be a comment.
        let what: Vec<String> = what.into().lines().map(|line| line.trim().to_string()).collect();
        Wrong { rule, what: what.join("; ") }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Why an answer is cut whose peer, or whose request, was too slow.
const TOO_SLOW: &str = "the peer was too slow";
/// Why an answer is cut whose script was.
const SCRIPT_TOO_SLOW: &str = "the script took too long";

/// Whether a history keeps the rules, as it is written and without playing it: that of a
/// [`Peer`](super::Peer), or a recording of a server.
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
/// assert_eq!(wrong, "keep-alive: closed as idle at 14999; patience with keep-alive ends at 15000");
/// ```
pub fn judge(transcript: &Transcript) -> Result<(), String> {
    let mut judge = Judge::new(Rc::new(transcript.settings.config.clone()));
    let mut events = transcript.events();
    let outcome = events.try_for_each(|event| judge.see(event)).and_then(|()| judge.end());
    outcome.map_err(|wrong| wrong.to_string())
}

/// Breaks a rule.
fn wrong<T>(rule: &'static str, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::new(rule, what))
}

/// What a connection came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The status of each finished exchange.
    pub(super) statuses: Vec<u16>,
    /// The timers that have fired.
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
    /// The last answer said that the connection ends, or could not say so.
    ends: bool,
    /// It was cut because the peer was too slow.
    slow: bool,
    shut: bool,
    closed: bool,
    /// An action is under way.
    asked: bool,
    /// More of the file is being read.
    reading: bool,
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
    /// Arrived, and perhaps not yet read.
    unread: u64,
    /// Offered to the socket, and not taken.
    unsent: u64,
    /// A wait of this turn was not its last step.
    waited: bool,
    /// Answers cannot be read any more.
    blind: bool,
    pub(super) tally: Tally,
}

impl Judge {
    /// Of a connection that is accepted at tick 0.
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

    /// Takes in what happened next.
    pub(super) fn see(&mut self, event: &Event) -> Result<(), Wrong> {
        if event.at < self.now {
            return wrong("time", format!("{} behind {}", event.at, self.now));
        }
        if self.marks.closed {
            return if event.what.is_input() { Ok(()) } else { wrong("close", "a step behind Close") };
        }
        let wait = self.waits.take();
        if event.what.is_input() {
            // The turn before is over.
            if let Some(wait) = wait {
                self.check_wait(wait)?;
            }
            self.now = event.at;
            self.waited = false;
            self.timers.look(self.now, &self.config.timeouts);
            self.input(&event.what);
            return Ok(());
        }
        self.now = event.at;
        self.waited |= wait.is_some();
        self.step(&event.what)
    }

    /// Whether the request that is answered next, or is being answered, is a HEAD.
    pub(super) fn is_head(&self) -> bool {
        self.requests.is_head()
    }

    /// Nothing more happens.
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
            What::Input(Input::Cut) => self.marks.cut = true,
            What::Input(Input::Broken(fault)) => self.marks.broken = Some(*fault),
            What::Input(Input::Blocked) => self.timers.block(self.now),
            What::Input(Input::Writable) => {
                self.timers.unblock((self.unsent == 0 && !self.seen.files) || self.marks.reading);
            }
            What::Input(Input::FileReady) => self.marks.reading = false,
            // Late answers to something else change nothing.
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
                // A local redirect has made another one of it.
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
            return wrong("action", "an action while one is under way");
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
            return wrong("send", "nothing to send, or behind the end");
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
                // What the disk takes is no fault of the peer's.
                self.marks.reading = matches!(sending.body, Middle::File { .. });
                self.timers.unblock(self.marks.reading);
            }
            Then::Broken(fault) => self.marks.broken = Some(fault),
            Then::Poll if self.unsent == 0 && !self.seen.files => self.timers.unblock(true),
            Then::Poll => {}
        }
        Ok(())
    }

    /// The head of the answer is offered: whether the peer may be blamed for being slow.
    fn begin_answer(&mut self, head: &[u8]) -> Result<(), Wrong> {
        let Some(status) = offered_status(head) else { return Ok(()) };
        self.seen.status = Some(status);
        // Behind a refusal nobody waits for a body any more.
        self.seen.refused = status >= 400 && memchr::memmem::find(head, b"\r\nConnection: close\r\n").is_some();
        if status == 408 {
            let fired = self.timers.fire(&[Timer::Head, Timer::Body]);
            if fired.is_none() && !self.seen.called && !self.seen.scripts {
                return wrong("408", format!("nobody was too slow at {}{}", self.now, self.timers.shown(&self.config)));
            }
            self.tally.fired.extend(fired);
        }
        if self.requests.in_progress() == 0 && !self.requests.is_odd() && status < 400 {
            return wrong("answer", format!("{status} to no request"));
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
            if fed < n { Err("bytes behind the end of the answer".to_string()) } else { Ok(()) }
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
        let mistake = |what: &str| wrong("log", format!("{what}: finished {} {}", finish.status, finish.sent));
        // Whoever passes a request on that is then refused is not told.
        let is_passed = self.seen.files || self.seen.scripts || finish.error.is_some();
        if self.seen.called && !self.seen.over && !is_passed {
            return wrong("over", "the exchange is finished, and the handler was not told");
        }
        if self.reader.rest() > 0 && finish.cut.is_none() {
            return mistake("half a head");
        }
        self.check_cut(finish)?;
        self.check_refusal(finish)?;
        let answer = self.reader.take();
        match &answer {
            _ if self.blind => {}
            Some(answer) if answer.status != finish.status => {
                return mistake(&format!("the answer has status {}", answer.status));
            }
            Some(answer) if answer.framed != finish.sent => {
                return mistake(&format!("the answer has {} bytes behind its head", answer.framed));
            }
            Some(answer) if !answer.complete && finish.cut.is_none() => return mistake("not cut, and incomplete"),
            None if finish.cut.is_none() => return mistake("not cut, and no answer"),
            None if finish.sent != 0 => return mistake("no answer"),
            Some(answer) if finish.cut.is_none() => self.seen.check_file(answer, self.requests.is_head())?,
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
        // Which of the requests after an odd one are a HEAD nobody knows.
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

    /// A request that is well-formed and within the limits is not refused: neither its head nor its body.
    fn check_refusal(&self, finish: &Finish) -> Result<(), Wrong> {
        let Some(message) = finish.error.as_deref().and_then(|message| std::str::from_utf8(message).ok()) else {
            return Ok(());
        };
        // A handler may say what it likes, but not by chance the very words of the server.
        let is_refusal = |violation: &Violation| match violation.row() {
            (_, After::Close, Some(text)) => {
                let (before, after) = text.split_once("{}").unwrap_or((text, ""));
                message.len() >= before.len() + after.len() && message.starts_with(before) && message.ends_with(after)
            }
            (status, After::Close, None) => status.code() == finish.status && !self.seen.called,
            (_, After::GoOn, _) => false,
        };
        let violation = Violation::ALL.iter().copied().find(is_refusal);
        let is_right = match violation {
            None => true,
            // The timers know.
            Some(Violation::HeadTimeout | Violation::BodyTimeout | Violation::OutOfMemory) => true,
            Some(Violation::IncompleteHead | Violation::IncompleteBody) if self.marks.eof => true,
            // A body for a script has a limit of its own.
            Some(Violation::BodyTooLarge) if !self.config.cgi.directories.is_empty() => true,
            Some(Violation::LengthRequired) if self.config.cgi.chunked == Chunked::Refuse => true,
            Some(_) => !self.requests.is_right(),
        };
        if is_right {
            return Ok(());
        }
        wrong("refused", format!("{} to a well-formed request: {message}", finish.status))
    }

    /// Whether there was a reason to cut an answer.
    fn check_cut(&mut self, finish: &Finish) -> Result<(), Wrong> {
        let Some(reason) = finish.cut.as_deref() else { return Ok(()) };
        let fault = |fault| self.marks.broken == Some(fault);
        let is_right = match reason {
            "the peer went away" => fault(Fault::Peer),
            "the file became shorter" => fault(Fault::FileShrank),
            "the file was rewritten" => fault(Fault::FileChanged),
            "the file could not be read" => fault(Fault::File),
            "the handler failed" => fault(Fault::Handler) || self.seen.called,
            "the request's body broke off" => self.marks.eof || !self.requests.is_right(),
            "the server shut down" => self.marks.cut,
            SCRIPT_TOO_SLOW => self.seen.script_is_late(self.now, self.marks.eof, &self.config.timeouts),
            TOO_SLOW => {
                let fired = self.timers.fire(&[Timer::Write, Timer::Body]);
                self.tally.fired.extend(fired);
                if fired == Some(Timer::Body) && self.seen.status.is_none() {
                    return wrong("408", "the body was too slow, and nothing was answered");
                }
                fired.is_some() || self.seen.scripts
            }
            _ => self.seen.scripts,
        };
        if is_right { Ok(()) } else { wrong("cut", format!("{reason}, at {}: that is not so", self.now)) }
    }

    fn close(&mut self, close: Close) -> Result<(), Wrong> {
        let Marks { eof, drain, cut, broken, ends, shut, slow, .. } = self.marks;
        self.marks.closed = true;
        if self.seen.is_open() {
            return wrong("close", "in the middle of an exchange");
        }
        // Whether the last answer said so nobody knows then.
        let ends = ends || self.blind;
        let no_reason = || wrong("close", format!("{close:?} at {}, for no reason", self.now));
        let is_right = match close {
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
            // A cut exchange has said why.
            Close::Timeout if slow => true,
            Close::Timeout => {
                let fired = self.timers.fire(&[Timer::Write, Timer::Linger]);
                self.tally.fired.extend(fired);
                fired.is_some() || self.timers.lingered() + self.unread > self.config.limits.linger
            }
            // RFC 9112 section 9.6: a peer that may still send is half-closed first.
            Close::Done => eof || (ends && !shut && (self.requests.is_ended() || self.requests.is_odd())),
            Close::Broken => broken.is_some() || ends,
            Close::Drained if cut => true,
            Close::Drained => {
                self.tally.fired.extend(self.timers.fire(&[Timer::Drain]));
                drain
            }
            // `Upgraded`, and what the judge does not know: only where the connection ends anyway.
            _ => ends,
        };
        if !is_right {
            return no_reason();
        }
        // Nobody but the peer may be to blame that a request has no answer.
        // A server that drains answers all that has arrived.
        let excused = ends || cut || broken.is_some() || close == Close::Timeout || self.requests.is_odd();
        if self.requests.in_progress() > 0 && !excused {
            return wrong("unanswered", format!("{} requests, and it closes: {close:?}", self.requests.in_progress()));
        }
        Ok(())
    }
}

/// The status of the final answer that begins in these bytes.
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

/// The rules of [`Action::Open`](sanserve_core::Action).
fn check_path(path: &[u8]) -> Result<(), Wrong> {
    let bad = |component: &[u8]| matches!(component, b"" | b"." | b"..") || component.contains(&0);
    if !path.is_empty() && path.split(|&byte| byte == b'/').any(bad) {
        return wrong("path", format!("open {}", path.escape_ascii()));
    }
    Ok(())
}

/// A time of the configuration, as ticks count it.
fn millis(time: Duration) -> u64 {
    (Tick(0) + time).0
}

//! The scripts of one connection as their driver sees them: what each was fed and what it wrote, and the rules for
//! every step about them. The head of a script is parsed here a second time, from RFC 3875 section 6, in the simplest
//! way.

use sanserve_core::{Chunked, Completion, Config, Found, FsError, ScriptFile, ScriptInput, SpawnError, Wait};
use sanserve_transcript::Told;

use super::answers::shown;
use super::millis;
use super::model::{self, Asked};
use super::rig::{Done, check_path};

/// Known bugs of the core. Set a constant to `false` when the bug is fixed, so that the worlds check that it stays
/// fixed.
pub mod known {
    /// A script whose output is complete still counts as running while the client reads the rest of it.
    pub const TIME_CONTINUES_AFTER_EOF: bool = false;

    /// A script is not terminated if its exchange is given up together with the result of its `Spawn`.
    pub const NOT_KILLED_BEFORE_FIRST_TURN: bool = false;
}

/// A script that was looked for. A local redirect leads to another one.
#[derive(Clone, Default)]
pub struct Hop {
    /// The number of the exchange.
    pub exchange: usize,
    /// The path of `Find`.
    pub path: Vec<u8>,
    from: usize,
    /// The path of the script that was found.
    pub name: Vec<u8>,
    /// Why the script does not run: the status of the response.
    pub refused: Option<u16>,
    /// The input with which it was spawned.
    pub input: Option<ScriptInput>,
    /// The `CONTENT_LENGTH` that it was given.
    length: Option<u64>,
    /// Since when it runs.
    pub since: Option<u64>,
    /// Whether its exchange has had a turn since.
    has_begun: bool,
    /// Whether its body is stored in a file first.
    pub spools: bool,
    /// What `Feed` currently offers.
    pub offered: Vec<u8>,
    /// What the script or the file has read.
    pub fed: Vec<u8>,
    /// Whether it accepts no more for now, or at all.
    pub full: bool,
    closed: bool,
    /// Whether its input was closed.
    pub ended: bool,
    pub written: Vec<u8>,
    pub eof: bool,
    pub killed: bool,
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Hop { exchange, path, name, refused, input, length, since, written, fed, offered, .. } = self;
        write!(f, "{exchange}: {} {} {input:?} {length:?} {refused:?} {since:?}", shown(path), shown(name))?;
        let marks = [
            (self.spools, "spools"),
            (self.full, "full"),
            (self.closed, "closed"),
            (self.ended, "ended"),
            (self.eof, "eof"),
            (self.killed, "killed"),
        ];
        marks.iter().filter(|(is, _)| *is).try_for_each(|(_, mark)| write!(f, " {mark}"))?;
        write!(f, ", wrote {} \"{}\"", written.len(), shown(written))?;
        write!(f, ", was fed {} \"{}\" and offered {}", fed.len(), shown(fed), offered.len())
    }
}

impl Hop {
    /// Whether it runs, as far as its driver is concerned.
    pub fn is_alive(&self) -> bool {
        self.since.is_some() && !self.killed
    }

    pub fn may_be_fed(&self) -> bool {
        let open = self.spools && self.input.is_none() || self.is_alive() && self.input == Some(ScriptInput::Piped);
        open && !self.closed && !self.ended
    }

    /// Lets it read at most `most` bytes of the offer.
    pub fn take(&mut self, most: u64) -> u64 {
        let n = most.min(self.offered.len() as u64);
        self.fed.extend(self.offered.drain(..usize::try_from(n).expect("memory")));
        self.offered.clear();
        n
    }

    pub fn close_input(&mut self) {
        self.closed = true;
        if self.input.is_none() {
            self.refused = Some(507);
        }
    }

    /// The result of `Find`: the name after the directory determines it.
    pub fn find(&mut self) -> Found {
        let name = self.path[self.from..].split(|&byte| byte == b'/').next().unwrap_or_default();
        let what = match name {
            b"missing" => ScriptFile::Missing,
            b"dir" | b"" => ScriptFile::NotPlain,
            b"plain" => ScriptFile::NotExecutable,
            _ => ScriptFile::Runnable,
        };
        let found = Found { len: self.from + name.len(), what };
        self.is_found(found);
        found
    }

    /// Records the result of `Find`.
    pub fn is_found(&mut self, found: Found) {
        self.refused = match found.what {
            ScriptFile::Runnable => None,
            ScriptFile::Missing => Some(404),
            ScriptFile::NotPlain | ScriptFile::NotExecutable => Some(403),
        };
        self.name = self.path[..found.len].to_vec();
    }

    pub fn fail_find(&mut self, error: FsError) -> Completion {
        self.refused = Some(if error == FsError::Exhausted { 503 } else { 404 });
        Completion::Found(Err(error))
    }

    pub fn fail_spool(&mut self, error: FsError) -> Completion {
        self.refused = Some(507);
        Completion::Spooled(Err(error))
    }

    pub fn fail_spawn(&mut self, error: FsError) -> Completion {
        let error = match error {
            FsError::NotFound => SpawnError::Busy,
            FsError::Exhausted => SpawnError::Exhausted,
            FsError::Denied => SpawnError::Denied,
            _ => SpawnError::Failed,
        };
        self.is_refused(error);
        Completion::Spawned(Err(error))
    }

    /// Records that the script cannot be run.
    pub fn is_refused(&mut self, error: SpawnError) {
        self.refused = Some(match error {
            SpawnError::Busy | SpawnError::Exhausted => 503,
            SpawnError::Denied => 403,
            _ => 502,
        });
    }

    /// The meaning of what it has written so far.
    pub fn meaning(&self, config: &Config) -> Meaning {
        meaning(&self.written, config.limits.script_head, self.is_raw(), self.eof)
    }

    pub fn is_raw(&self) -> bool {
        self.name.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(b"nph-"))
    }

    /// Whether nothing that it still does can change the response.
    fn is_settled(&self, config: &Config) -> bool {
        self.eof
            || match self.meaning(config) {
                Meaning::More => false,
                Meaning::Wrong => true,
                Meaning::Head(head) => {
                    head.local().is_some() || head.length.is_some_and(|length| self.written.len() - head.len >= length)
                }
            }
    }
}

/// The meaning of the output of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The head is not complete.
    More,
    Wrong,
    Head(Head),
}

/// A valid head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes.
    pub len: usize,
    /// Whether there is none: everything is content.
    pub bare: bool,
    pub marked: bool,
    pub status: u16,
    has_status: bool,
    pub location: Option<String>,
    pub length: Option<usize>,
}

impl Head {
    /// The target of a local redirect.
    pub fn local(&self) -> Option<&str> {
        self.location.as_deref().filter(|to| !self.has_status && to.starts_with('/') && !to.starts_with("//"))
    }
}

fn meaning(written: &[u8], limit: usize, raw: bool, eof: bool) -> Meaning {
    let (mut at, mut end) = (0, None);
    for line in written.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        if !line.ends_with(b"\n") || at > limit {
            break;
        }
        if line.iter().all(|byte| b"\r\n".contains(byte)) {
            end = Some(at);
            break;
        }
    }
    let part = match end {
        Some(end) => &written[..end],
        None if written.len() >= limit => &written[..limit],
        None if eof => written,
        None => return Meaning::More,
    };
    let is_eof = end.is_none() && written.len() < limit;
    // Continuation lines belong to the line before.
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut at = 0;
    for line in part.split_inclusive(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line).trim_matches([' ', '\t', '\r', '\n']).to_owned();
        match lines.last_mut() {
            Some((_, last)) if line.starts_with(b" ") || line.starts_with(b"\t") => *last += &format!(" {text}"),
            _ if text.is_empty() => {}
            _ => lines.push((at, text)),
        }
        at += line.len();
    }
    let status_line = lines.first().is_some_and(|(_, line)| line.starts_with("HTTP/"));
    if raw && (!status_line || end.is_none()) {
        // No output and too much output both result in 502.
        return Meaning::Wrong;
    }
    let is_field = |(n, (_, line)): (usize, &(usize, String))| n == 0 && status_line || field(line).is_some();
    let Some(last) = lines.iter().enumerate().rposition(is_field) else {
        let is_binary = part.iter().any(|byte| *byte == 127 || *byte < 32 && !b"\t\n\r\x0c\x1b\x08".contains(byte));
        let is_cut =
            is_eof && (lines.is_empty() || !part.ends_with(b"\n") && lines.iter().all(|(_, line)| is_token(line)));
        let len = if lines.is_empty() { part.len() } else { 0 };
        return match () {
            () if is_binary || is_cut => Meaning::Wrong,
            () if len == written.len() && eof => Meaning::Wrong,
            () if len == written.len() => Meaning::More,
            () => Meaning::Head(Head {
                len,
                bare: true,
                marked: false,
                status: 200,
                has_status: true,
                location: None,
                length: None,
            }),
        };
    };
    let after =
        lines.get(last + 1).filter(|(_, line)| !raw && (line.starts_with('<') || is_eof && part.ends_with(b"\n")));
    if end.is_none() && !is_eof && after.is_none() {
        return Meaning::Wrong;
    }
    let len = after.map_or(part.len(), |(at, _)| *at);
    let Some(head) = head(lines.iter().filter(|(at, _)| *at < len).map(|(_, line)| line.as_str()), len) else {
        return Meaning::Wrong;
    };
    let is_sufficient = (head.has_status || head.location.is_some()) && part.ends_with(b"\n");
    if is_eof && after.is_none() && !is_sufficient { Meaning::Wrong } else { Meaning::Head(head) }
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end();
    (!name.is_empty() && is_token(name)).then(|| (name, value.trim_matches([' ', '\t', '\r'])))
}

/// Invalid lines are ignored; of several values the last one applies.
fn head<'l>(lines: impl Iterator<Item = &'l str>, len: usize) -> Option<Head> {
    let mut head =
        Head { len, bare: false, marked: false, status: 200, has_status: false, location: None, length: None };
    let mut lengths: Vec<Option<usize>> = Vec::new();
    for line in lines {
        if let Some(code) = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) {
            head.has_status = true;
            head.status = code.parse().ok()?;
            continue;
        }
        let Some((name, value)) = field(line) else { continue };
        if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
            continue;
        }
        match name.to_ascii_lowercase().as_str() {
            "status" => {
                let code = value.get(..3).and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
                if let Some(code) = code.filter(|_| !value[3..].starts_with(|c: char| c.is_ascii_digit())) {
                    (head.has_status, head.status) = (true, code);
                }
            }
            "location" if !value.is_empty() => head.location = Some(value.to_string()),
            "content-length" => lengths.push(value.parse().ok()),
            "x-script" => head.marked = true,
            _ => {}
        }
    }
    if let [Some(length), rest @ ..] = &lengths[..] {
        head.length = rest.iter().all(|other| *other == Some(*length)).then_some(*length);
    }
    if head.location.is_some() && !head.has_status {
        head.status = 302;
    }
    Some(head)
}

/// All scripts of a connection.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    pub all: Vec<Hop>,
    /// Whether the last one belongs to the current exchange.
    open: bool,
}

impl Hops {
    /// The script of the current exchange.
    pub fn in_progress(&self) -> Option<&Hop> {
        self.all.last().filter(|_| self.open)
    }

    /// The script of the current exchange, mutable.
    pub fn in_progress_mut(&mut self) -> Option<&mut Hop> {
        self.all.last_mut().filter(|_| self.open)
    }

    /// The script of the current exchange, which must exist.
    pub fn current(&mut self) -> &mut Hop {
        assert!(self.open, "no script is in progress");
        self.all.last_mut().expect("a script in progress")
    }

    /// The scripts of an exchange.
    pub fn of(&self, exchange: usize) -> &[Hop] {
        let from = self.all.partition_point(|hop| hop.exchange < exchange);
        let to = self.all.partition_point(|hop| hop.exchange <= exchange);
        &self.all[from..to]
    }

    fn now(&mut self, exchange: usize) -> &mut Hop {
        let hop = self.current();
        assert_eq!(hop.exchange, exchange, "a script of another exchange");
        hop
    }

    /// The connection has had its turn.
    pub fn turned(&mut self) {
        if let (true, Some(hop)) = (self.open, self.all.last_mut()) {
            hop.has_begun = hop.since.is_some();
        }
    }

    pub fn begin(&mut self, exchange: usize, path: &[u8], from: usize, config: &Config) {
        check_path(path.strip_suffix(b"/").unwrap_or(path));
        assert!(from <= path.len() && (from == 0 || path[from - 1] == b'/'), "{from} of {}", path.escape_ascii());
        let mut before = self.of(exchange).iter();
        assert!(before.len() <= usize::from(config.limits.redirects), "too many redirects");
        assert!(
            before.all(|hop| matches!(hop.meaning(config), Meaning::Head(head) if head.local().is_some())),
            "a second Find"
        );
        self.all.push(Hop { exchange, path: path.to_vec(), from, ..Hop::default() });
        self.open = true;
    }

    pub fn spool(&mut self, exchange: usize) {
        let hop = self.now(exchange);
        assert!(!hop.spools && hop.input.is_none() && hop.refused.is_none() && !hop.name.is_empty(), "Spool: {hop:?}");
    }

    pub fn spawn(&mut self, script: &Told, got: &[u8], exchange: usize, config: &Config) {
        let is_first = self.of(exchange).len() == 1;
        let hop = self.now(exchange);
        assert!(hop.input.is_none() && hop.refused.is_none() && !hop.name.is_empty(), "Spawn: {hop:?}");
        assert_eq!(script.path.escape_ascii().to_string(), hop.name.escape_ascii().to_string());
        let asked = asked(got, exchange, config);
        let input = match (is_first && asked.has_body, asked.field("Content-Length").is_some()) {
            (false, _) => ScriptInput::Empty,
            (true, true) => ScriptInput::Piped,
            (true, false) => ScriptInput::Spooled,
        };
        assert_eq!(script.input, input, "for {asked:?}");
        let value = |name: &[u8]| {
            let is_it = |variable: &&[u8]| variable.starts_with(name) && variable.get(name.len()) == Some(&b'=');
            let variable = script.environment.iter().map(Vec::as_slice).find(is_it)?;
            Some(variable[name.len() + 1..].to_vec())
        };
        let length = value(b"CONTENT_LENGTH").map(|text| String::from_utf8(text).unwrap().parse().unwrap());
        assert_eq!(length.is_some(), input != ScriptInput::Empty, "CONTENT_LENGTH");
        let method = if is_first || asked.is_head() { asked.method.clone() } else { b"GET".to_vec() };
        assert_eq!(value(b"REQUEST_METHOD"), Some(method));
        if input == ScriptInput::Spooled {
            assert!(hop.spools && config.cgi.chunked == Chunked::Spool, "spooled without Spool");
            assert!(asked.complete && asked.body == hop.fed, "spooled {} of {asked:?}", shown(&hop.fed));
            assert_eq!(length, Some(hop.fed.len() as u64));
        }
        (hop.input, hop.length) = (Some(input), length);
    }

    pub fn feed(&mut self, bytes: &[u8], exchange: usize) {
        let hop = self.now(exchange);
        assert!(!bytes.is_empty(), "nothing to feed");
        assert!(hop.may_be_fed() && !hop.full, "Feed: {hop:?}");
        hop.offered = bytes.to_vec();
    }

    pub fn end_input(&mut self, got: &[u8], exchange: usize, config: &Config) {
        let hop = self.now(exchange);
        assert!(hop.is_alive() && hop.input == Some(ScriptInput::Piped) && !hop.ended, "EndInput: {hop:?}");
        let asked = asked(got, exchange, config);
        assert!(asked.complete && asked.body == hop.fed, "EndInput after {} of {asked:?}", shown(&hop.fed));
        hop.ended = true;
    }

    pub fn kill(&mut self, exchange: usize) {
        let hop = self.now(exchange);
        assert!(hop.since.is_some() && !hop.killed, "Kill: {hop:?}");
        hop.killed = true;
    }

    /// Checks what a connection waits for. `unsent`: bytes that the socket was offered and did not accept.
    pub fn check_wait(&self, wait: Wait, unsent: u64, exchange: usize, config: &Config) {
        let need = wait.need;
        let Some(hop) = self.in_progress() else {
            assert!(!need.script_read && !need.script_write, "there is no script");
            return;
        };
        assert_eq!(hop.exchange, exchange, "a script of another exchange");
        assert!(!wait.idle, "idle with a script");
        assert!(!need.script_read || (hop.is_alive() && !hop.eof), "script_read of {hop:?}");
        assert!(!need.script_read || unsent == 0, "script_read with {unsent} bytes unsent");
        assert!(!need.script_write || (hop.full && hop.may_be_fed()), "script_write of {hop:?}");
        let whole = hop.length == Some(hop.fed.len() as u64) && hop.input == Some(ScriptInput::Piped);
        assert!(!(need.script_read && whole) || hop.ended, "everything was fed, but EndInput is missing");
        if need.script_read && hop.may_be_fed() && hop.full && !hop.offered.is_empty() {
            assert!(need.script_write, "need.script_write is missing");
        }
        if let (Some(since), false, false) = (hop.since, hop.killed, hop.is_settled(config)) {
            let latest = since + millis(config.timeouts.script());
            assert!(
                wait.deadline.is_some_and(|deadline| deadline.0 <= latest),
                "a script may run beyond its time: {wait:?}"
            );
        }
    }

    /// Checks at the end of an exchange whether its script has ended, as it should.
    pub fn finish(&mut self, done: &Done, exchange: usize, got: &[u8], config: &Config, now: u64) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let hop = self.all.last().expect("a script in progress");
        assert_eq!(hop.exchange, exchange, "a script of another exchange");
        let asked = asked(got, exchange, config);
        assert!(asked.body.starts_with(&hop.fed), "fed {} of {asked:?}", shown(&hop.fed));
        let time_is_over = hop.since.is_some_and(|since| now >= since + millis(config.timeouts.script()));
        let too_late = done.cut.as_deref() == Some("the script took too long") || (done.error && done.status == 504);
        assert!(!too_late || time_is_over, "the time is not over: {done:?} {hop:?}");
        assert!(
            !too_late || !hop.eof || known::TIME_CONTINUES_AFTER_EOF,
            "the script was over in time: {done:?} {hop:?}"
        );
        let short = done.cut.as_deref() == Some("the script ended before the length it announced");
        assert!(!short || hop.eof, "it has not ended: {done:?} {hop:?}");
        if hop.since.is_none() {
            return;
        }
        let by_error = |status| done.error && done.status == status;
        let moved = matches!(hop.meaning(config), Meaning::Head(head) if head.local().is_some()) && !by_error(502);
        let (least, most) = match &done.cut {
            // Something else has responded.
            _ if moved => (false, false),
            _ if done.error => (true, true),
            // If its output is not sent, a script that writes too much is terminated.
            None => (false, asked.is_head() || matches!(done.status, 204 | 205 | 304)),
            Some(_) => (!hop.is_settled(config) || short, true),
        };
        let least = least && (hop.has_begun || !known::NOT_KILLED_BEFORE_FIRST_TURN);
        assert!(hop.killed || !least, "the script is not killed: {done:?} {hop:?}");
        assert!(!hop.killed || most, "the script is killed: {done:?} {hop:?}");
    }
}

fn asked(got: &[u8], exchange: usize, config: &Config) -> Asked {
    let model = model::read(got, &config.limits);
    model.requests.get(exchange).unwrap_or_else(|| panic!("a script for nothing: {model:?}")).clone()
}

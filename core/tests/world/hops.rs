//! The scripts of one connection as its driver sees them: what each was fed and what it wrote, and the
//! rules that every step about them keeps. What a head means is read here a second time, from RFC 3875
//! section 6, without a thought for speed.

use sanserve_core::{Chunked, Completion, Config, Found, FsError, ScriptFile, ScriptInput, SpawnError, Wait};
use sanserve_transcript::Told;

use super::answers::shown;
use super::millis;
use super::model::{self, Asked};
use super::rig::{Done, check_path};

/// Faults of the core that are known. Set one to `false` when it is mended, and the worlds see to it that
/// it stays so.
pub mod known {
    /// A script whose output is complete is still taken to run while the peer takes the rest of it.
    pub const TIME_GOES_ON_BEHIND_EOF: bool = false;

    /// A script is not killed whose exchange is given up together with the answer to its `Spawn`.
    pub const NOT_KILLED_BEFORE_FIRST_TURN: bool = false;
}

/// One script that was looked for: a local redirect makes another of it.
#[derive(Clone, Default)]
pub struct Hop {
    /// The number of the exchange.
    pub exchange: usize,
    /// What `Find` was asked for.
    pub path: Vec<u8>,
    from: usize,
    /// What it has found.
    pub name: Vec<u8>,
    /// Why the world lets no script run: the status of the answer.
    pub refused: Option<u16>,
    /// It was told to run, with this as its input.
    pub input: Option<ScriptInput>,
    /// It was told of a body of this length.
    length: Option<u64>,
    /// Since when it runs.
    pub since: Option<u64>,
    /// Its exchange had a turn since.
    has_begun: bool,
    /// Its body goes to a file first.
    pub spools: bool,
    /// What `Feed` offers now.
    pub offered: Vec<u8>,
    /// What it, or the file, has taken.
    pub fed: Vec<u8>,
    /// It takes no more for now, or at all.
    pub full: bool,
    deaf: bool,
    /// Its input was closed.
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
            (self.deaf, "deaf"),
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
    /// It runs, as far as its driver has to do with it.
    pub fn is_alive(&self) -> bool {
        self.since.is_some() && !self.killed
    }

    pub fn may_be_fed(&self) -> bool {
        let open = self.spools && self.input.is_none() || self.is_alive() && self.input == Some(ScriptInput::Piped);
        open && !self.deaf && !self.ended
    }

    /// So much of what is offered is taken.
    pub fn take(&mut self, most: u64) -> u64 {
        let n = most.min(self.offered.len() as u64);
        self.fed.extend(self.offered.drain(..usize::try_from(n).expect("memory")));
        self.offered.clear();
        n
    }

    pub fn stop_listening(&mut self) {
        self.deaf = true;
        if self.input.is_none() {
            self.refused = Some(507);
        }
    }

    /// What the world finds: the name after the directory says what it is.
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

    /// This was found.
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

    /// It cannot be run.
    pub fn is_refused(&mut self, error: SpawnError) {
        self.refused = Some(match error {
            SpawnError::Busy | SpawnError::Exhausted => 503,
            SpawnError::Denied => 403,
            _ => 502,
        });
    }

    /// What it has written so far means.
    pub fn says(&self, config: &Config) -> Says {
        says(&self.written, config.limits.script_head, self.is_raw(), self.eof)
    }

    pub fn is_raw(&self) -> bool {
        self.name.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(b"nph-"))
    }

    /// Nothing that it could still do changes the answer.
    fn is_through(&self, config: &Config) -> bool {
        self.eof
            || match self.says(config) {
                Says::More => false,
                Says::Wrong => true,
                Says::Head(head) => {
                    head.local().is_some() || head.length.is_some_and(|length| self.written.len() - head.len >= length)
                }
            }
    }
}

/// What the output of a script means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Its head is not complete.
    More,
    Wrong,
    Head(Head),
}

/// A head that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of it in bytes.
    pub len: usize,
    /// There is none: all is content.
    pub bare: bool,
    pub marked: bool,
    pub status: u16,
    has_status: bool,
    pub location: Option<String>,
    pub length: Option<usize>,
}

impl Head {
    /// Where a local redirect leads.
    pub fn local(&self) -> Option<&str> {
        self.location.as_deref().filter(|to| !self.has_status && to.starts_with('/') && !to.starts_with("//"))
    }
}

fn says(written: &[u8], limit: usize, raw: bool, eof: bool) -> Says {
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
        None => return Says::More,
    };
    let is_eof = end.is_none() && written.len() < limit;
    // What continues a line belongs to it.
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
        // That nothing came, and that too much came, are both 502.
        return Says::Wrong;
    }
    let is_field = |(n, (_, line)): (usize, &(usize, String))| n == 0 && status_line || field(line).is_some();
    let Some(last) = lines.iter().enumerate().rposition(is_field) else {
        let is_binary = part.iter().any(|byte| *byte == 127 || *byte < 32 && !b"\t\n\r\x0c\x1b\x08".contains(byte));
        let is_cut =
            is_eof && (lines.is_empty() || !part.ends_with(b"\n") && lines.iter().all(|(_, line)| is_token(line)));
        let len = if lines.is_empty() { part.len() } else { 0 };
        return match () {
            () if is_binary || is_cut => Says::Wrong,
            () if len == written.len() && eof => Says::Wrong,
            () if len == written.len() => Says::More,
            () => Says::Head(Head {
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
    let behind =
        lines.get(last + 1).filter(|(_, line)| !raw && (line.starts_with('<') || is_eof && part.ends_with(b"\n")));
    if end.is_none() && !is_eof && behind.is_none() {
        return Says::Wrong;
    }
    let len = behind.map_or(part.len(), |(at, _)| *at);
    let Some(head) = head(lines.iter().filter(|(at, _)| *at < len).map(|(_, line)| line.as_str()), len) else {
        return Says::Wrong;
    };
    let enough = (head.has_status || head.location.is_some()) && part.ends_with(b"\n");
    if is_eof && behind.is_none() && !enough { Says::Wrong } else { Says::Head(head) }
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end();
    (!name.is_empty() && is_token(name)).then(|| (name, value.trim_matches([' ', '\t', '\r'])))
}

/// Lines that are wrong are left out; of several the last one counts.
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
    /// The last one belongs to the current exchange.
    open: bool,
}

impl Hops {
    /// The script of the current exchange.
    pub fn in_progress(&self) -> Option<&Hop> {
        self.all.last().filter(|_| self.open)
    }

    /// The same, to be told something.
    pub fn in_hand_mut(&mut self) -> Option<&mut Hop> {
        self.all.last_mut().filter(|_| self.open)
    }

    /// The same, where there must be one.
    pub fn hand(&mut self) -> &mut Hop {
        assert!(self.open, "no script is in hand");
        self.all.last_mut().expect("a script in hand")
    }

    /// Those of an exchange.
    pub fn of(&self, exchange: usize) -> &[Hop] {
        let from = self.all.partition_point(|hop| hop.exchange < exchange);
        let to = self.all.partition_point(|hop| hop.exchange <= exchange);
        &self.all[from..to]
    }

    fn now(&mut self, exchange: usize) -> &mut Hop {
        let hop = self.hand();
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
            before.all(|hop| matches!(hop.says(config), Says::Head(head) if head.local().is_some())),
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
        assert!(asked.complete && asked.body == hop.fed, "EndInput behind {} of {asked:?}", shown(&hop.fed));
        hop.ended = true;
    }

    pub fn kill(&mut self, exchange: usize) {
        let hop = self.now(exchange);
        assert!(hop.since.is_some() && !hop.killed, "Kill: {hop:?}");
        hop.killed = true;
    }

    /// What is waited for. `unsent`: so many bytes that the socket was offered did not go out.
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
        assert!(!(need.script_read && whole) || hop.ended, "all was fed, and EndInput is missing");
        if need.script_read && hop.may_be_fed() && hop.full && !hop.offered.is_empty() {
            assert!(need.script_write, "nobody waits for the script to take more");
        }
        if let (Some(since), false, false) = (hop.since, hop.killed, hop.is_through(config)) {
            let latest = since + millis(config.timeouts.script());
            assert!(
                wait.deadline.is_some_and(|deadline| deadline.0 <= latest),
                "a script may run beyond its time: {wait:?}"
            );
        }
    }

    /// An exchange is over: whether its script is too, as it should be.
    pub fn finish(&mut self, done: &Done, exchange: usize, got: &[u8], config: &Config, now: u64) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let hop = self.all.last().expect("a script in hand");
        assert_eq!(hop.exchange, exchange, "a script of another exchange");
        let asked = asked(got, exchange, config);
        assert!(asked.body.starts_with(&hop.fed), "fed {} of {asked:?}", shown(&hop.fed));
        let time_is_over = hop.since.is_some_and(|since| now >= since + millis(config.timeouts.script()));
        let too_late = done.cut.as_deref() == Some("the script took too long") || (done.error && done.status == 504);
        assert!(!too_late || time_is_over, "before its time: {done:?} {hop:?}");
        assert!(
            !too_late || !hop.eof || known::TIME_GOES_ON_BEHIND_EOF,
            "the script was over in time: {done:?} {hop:?}"
        );
        let short = done.cut.as_deref() == Some("the script ended before the length it announced");
        assert!(!short || hop.eof, "it has not ended: {done:?} {hop:?}");
        if hop.since.is_none() {
            return;
        }
        let by_error = |status| done.error && done.status == status;
        let moved = matches!(hop.says(config), Says::Head(head) if head.local().is_some()) && !by_error(502);
        let (least, most) = match &done.cut {
            // Something else has answered.
            _ if moved => (false, false),
            _ if done.error => (true, true),
            // Where nothing more of it can be sent, one that goes on is ended.
            None => (false, asked.is_head() || matches!(done.status, 204 | 205 | 304)),
            Some(_) => (!hop.is_through(config) || short, true),
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

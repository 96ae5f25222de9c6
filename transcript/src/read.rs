//! Parses transcripts: first into tokens with their line numbers, then into events. The settings are parsed in
//! `settings`.

use std::fmt;
use std::sync::Arc;

use sanserve_core::{
    Call, Close, Completion, EntryKind, Fault, Found, FsError, Input, Kind, Listed, Need, Opened, ScriptFile, Secured,
    Tick, Ticket, Wait, Wall,
};

use crate::event::{Event, FeedThen, Finish, Line, Middle, ProbeThen, Sending, Taken, Then, Told, Transcript, What};
use crate::words::{
    FAULTS, FIRST_LINE, FS_ERRORS, INPUTS, LISTED, MARKS, NEEDS, SCRIPT_FILES, SCRIPT_INPUTS, SPAWN_ERRORS,
    TLS_VERSIONS, named, unquote,
};

/// A syntax error in a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyntaxError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with the line.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for SyntaxError {}

type Result<T> = std::result::Result<T, SyntaxError>;

fn error<T>(line: usize, message: impl Into<String>) -> Result<T> {
    Err(SyntaxError { line, message: message.into() })
}

impl Transcript {
    /// Parses a transcript.
    ///
    /// # Errors
    /// The first syntax error, with its line.
    pub fn parse(text: &str) -> Result<Transcript> {
        parse(text)
    }
}

fn parse(text: &str) -> Result<Transcript> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())).peekable();
    match lines.next() {
        Some((_, FIRST_LINE)) => {}
        _ => return error(1, format!("the first line is not `{FIRST_LINE}`")),
    }
    let mut transcript = Transcript::default();
    let mut in_head = true;
    while let Some((number, line)) = lines.next() {
        in_head &= !line.starts_with('@');
        if let Some(comment) = line.strip_prefix('#') {
            if in_head {
                transcript.about.push(comment.into());
            } else {
                transcript.lines.push(Line::Comment(comment.into()));
            }
        } else if line.is_empty() {
            // Blank lines of the head are not kept.
            transcript.lines.extend((!in_head).then_some(Line::Blank));
        } else if in_head {
            transcript.settings.read(line).map_err(|message| SyntaxError { line: number, message })?;
        } else if line.starts_with('@') {
            let mut tokens = Tokens::default();
            tokens.add(number, line)?;
            while let Some((number, more)) = lines.next_if(|(_, line)| line.starts_with([' ', '\t'])) {
                tokens.add(number, more)?;
            }
            transcript.lines.push(Line::Event(tokens.event()?));
        } else {
            return error(number, "neither an event (`@..`) nor a comment (`#`)");
        }
    }
    Ok(transcript)
}

/// The longest text that a repetition may produce, which is far more than any window holds.
const LONGEST: usize = 64 << 20;

#[derive(Debug)]
enum Token {
    Word(String),
    /// Quoted text, and the mark after it.
    Text(Vec<u8>, String),
}

/// The tokens of one event.
#[derive(Debug, Default)]
struct Tokens {
    tokens: std::collections::VecDeque<(usize, Token)>,
    line: usize,
}

impl Tokens {
    fn add(&mut self, number: usize, line: &str) -> Result<()> {
        self.line = number;
        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let token;
            (token, rest) = if let Some(inside) = rest.strip_prefix('"') {
                let (mut text, after) = unquote(inside).map_err(|message| SyntaxError { line: number, message })?;
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                let mut mark = &after[..end];
                if let Some(times) = mark.strip_prefix('*') {
                    let Ok(times) = times.parse::<usize>() else {
                        return error(number, format!("not a number: {times}"));
                    };
                    if text.len().checked_mul(times).is_none_or(|len| len > LONGEST) {
                        return error(number, format!("longer than {LONGEST} bytes"));
                    }
                    text = text.repeat(times);
                    mark = "";
                }
                (Token::Text(text, mark.into()), &after[end..])
            } else {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (Token::Word(rest[..end].into()), &rest[end..])
            };
            self.tokens.push_back((number, token));
            rest = rest.trim_start();
        }
        Ok(())
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        error(self.line, message)
    }

    fn peek(&self) -> Option<&str> {
        match self.tokens.front() {
            Some((_, Token::Word(word))) => Some(word),
            _ => None,
        }
    }

    /// The next token, if it is a word.
    fn word(&mut self) -> Option<String> {
        self.peek()?;
        match self.tokens.pop_front() {
            Some((line, Token::Word(word))) => {
                self.line = line;
                Some(word)
            }
            _ => None,
        }
    }

    /// Consumes the next token if it is this word.
    fn take(&mut self, word: &str) -> bool {
        self.peek() == Some(word) && self.word().is_some()
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let word = self.word();
        match word.as_deref().map(str::parse) {
            Some(Ok(number)) => Ok(number),
            _ => self.error(format!("{what} expected")),
        }
    }

    fn of<T: Clone>(&mut self, table: &[(&str, T)]) -> Result<T> {
        let word = self.word().unwrap_or_default();
        match named(table, &word) {
            Some(value) => Ok(value),
            None => {
                let words: Vec<&str> = table.iter().map(|row| row.0).collect();
                self.error(format!("one of {} expected, not `{word}`", words.join(", ")))
            }
        }
    }

    /// The concatenation of all quoted texts that follow.
    fn text(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((line, Token::Text(text, _))) = self.tokens.front() {
            self.line = *line;
            all.extend_from_slice(text);
            self.tokens.pop_front();
        }
        all
    }

    fn event(mut self) -> Result<Event> {
        self.line = self.tokens.front().map_or(0, |token| token.0);
        let at = self.word().unwrap_or_default();
        let Ok(at) = at[1..].parse() else { return self.error(format!("not a time: {at}")) };
        let joined = self.take("+");
        let what = self.what()?;
        if joined && !what.is_input() {
            return self.error("only an input can be joined (`+`)");
        }
        if let Some((line, token)) = self.tokens.front() {
            return error(*line, format!("unexpected text: {token:?}"));
        }
        Ok(Event { at, joined, what })
    }

    fn secured(&mut self) -> Result<Secured> {
        let mut secured = Secured::new(self.of(TLS_VERSIONS)?);
        if self.take("sni") {
            let name = String::from_utf8(self.path()?);
            secured = secured.with_server_name(name.or_else(|_| self.error("a name that is not UTF-8"))?);
        }
        if self.take("alpn") {
            secured = secured.with_alpn(self.path()?);
        }
        Ok(secured)
    }

    fn what(&mut self) -> Result<What> {
        let verb = self.word().unwrap_or_default();
        if let Some(input) = named(INPUTS, &verb) {
            return Ok(What::Input(input));
        }
        Ok(match verb.as_str() {
            "recv" => What::Recv(self.text()),
            "tick" => What::Tick,
            "clock" => What::Clock(Wall(self.number("Unix time")?)),
            "secured" => What::Input(Input::Secured(Arc::new(self.secured()?))),
            "sent" => What::Input(Input::Sent(self.number("a number of bytes")?)),
            "fed" => What::Input(Input::Fed(self.number("a number of bytes")?)),
            "broken" => What::Input(Input::Broken(self.of(FAULTS)?)),
            "done" => self.done()?,
            "send" => What::Send(self.send()?),
            "open" | "open-in" => {
                let path = self.path()?;
                let answer = if self.answers() { self.opened()? } else { Some(Err(FsError::NotFound)) };
                What::Open { path, inside: verb == "open-in", answer }
            }
            "list" => {
                let answer = if self.answers() { self.listed()? } else { Some(Ok(Listed::End)) };
                What::List { answer, entries: self.entries()? }
            }
            "script" => What::Script(self.text()),
            "find" => {
                let path = self.path()?;
                if !self.take("from") {
                    return self.error("`from` expected");
                }
                let from = self.number("a place in the path")?;
                let missing = Found { len: path.len(), what: ScriptFile::Missing };
                let answer = if self.answers() { self.found()? } else { Some(Ok(missing)) };
                What::Find { path, from, answer }
            }
            "spool" => What::Spool { answer: if self.answers() { self.done_or(FS_ERRORS)? } else { Some(Ok(())) } },
            "spawn" => self.spawn()?,
            "feed" => self.feed()?,
            "end-input" => What::EndInput,
            "kill" => What::Kill,
            "log" => What::Log(self.text()),
            "call" => What::Call(self.of(Call::TABLE)?),
            "finished" => What::Finished(self.finished()?),
            "probe" => self.probe()?,
            "wait" => What::Wait(self.wait()?),
            "shut" => What::Shut { blocked: self.blocked()? },
            "close" => What::Close { close: self.of(Close::TABLE)?, blocked: self.blocked()? },
            _ => return self.error(format!("unknown verb: {verb}")),
        })
    }

    fn answers(&mut self) -> bool {
        self.take("->")
    }

    fn blocked(&mut self) -> Result<bool> {
        match self.answers() {
            true if self.take("blocked") => Ok(true),
            true => self.error("`blocked` expected"),
            false => Ok(false),
        }
    }

    fn done(&mut self) -> Result<What> {
        let ticket = Ticket::numbered(self.number("a ticket's number")?);
        let completion = match self.word().as_deref() {
            Some("open") => self.opened()?.map(Completion::Opened),
            Some("list") => self.listed()?.map(Completion::Listed),
            Some("find") => self.found()?.map(Completion::Found),
            Some("spool") => self.done_or(FS_ERRORS)?.map(Completion::Spooled),
            Some("spawn") => self.done_or(SPAWN_ERRORS)?.map(Completion::Spawned),
            _ => return self.error("`open`, `list`, `find`, `spool` or `spawn` expected"),
        };
        match completion {
            Some(completion) => Ok(What::Input(Input::Done(ticket, completion))),
            None => self.error("a completion cannot be `later`"),
        }
    }

    fn found(&mut self) -> Result<Option<std::result::Result<Found, FsError>>> {
        if self.take("later") {
            return Ok(None);
        }
        match self.peek().and_then(|word| named(SCRIPT_FILES, word)) {
            Some(what) => {
                self.word();
                Ok(Some(Ok(Found { len: self.number("a length")?, what })))
            }
            None => Ok(Some(Err(self.of(FS_ERRORS)?))),
        }
    }

    fn done_or<E: Clone>(&mut self, errors: &[(&str, E)]) -> Result<Option<std::result::Result<(), E>>> {
        if self.take("later") {
            return Ok(None);
        }
        Ok(Some(if self.take("ok") { Ok(()) } else { Err(self.of(errors)?) }))
    }

    fn spawn(&mut self) -> Result<What> {
        let path = self.path()?;
        let input = self.of(SCRIPT_INPUTS)?;
        let translated = if self.take("translated") { Some(self.path()?) } else { None };
        let mut told = Told { path, input, translated, arguments: Vec::new(), environment: Vec::new() };
        while self.take("argument") {
            told.arguments.push(self.text());
        }
        while self.take("with") {
            told.environment.push(self.text());
        }
        let answer = if self.answers() { self.done_or(SPAWN_ERRORS)? } else { Some(Ok(())) };
        Ok(What::Spawn { told, answer })
    }

    fn feed(&mut self) -> Result<What> {
        let bytes = self.text();
        let (mut taken, mut then) = (None, FeedThen::Poll);
        if self.answers() {
            taken = match self.peek() {
                Some("all") => {
                    self.word();
                    None
                }
                Some("blocked" | "end" | "full") => Some(0),
                _ => Some(self.number("`all`, a number of bytes, `blocked`, `end` or `full`")?),
            };
            if self.take("blocked") {
                then = FeedThen::Blocked;
            } else if self.take("end") {
                then = FeedThen::End;
            } else if self.take("full") {
                then = FeedThen::Full;
            }
        }
        Ok(What::Feed { bytes, taken, then })
    }

    fn probe(&mut self) -> Result<What> {
        let bytes = self.text();
        let then = match self.answers() {
            false => ProbeThen::Poll,
            true if self.take("later") => ProbeThen::Later,
            true if self.take("eof") => ProbeThen::Eof,
            true if self.take("broken") => ProbeThen::Broken(self.of(FAULTS)?),
            true => return self.error("`later`, `eof` or `broken` expected"),
        };
        Ok(What::Probe { bytes, then })
    }

    fn send(&mut self) -> Result<Sending> {
        let mut sending = Sending { more: self.take("more"), head: self.text(), ..Sending::default() };
        let is_status = |word: &str| word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit());
        if !sending.more && sending.head.is_empty() && self.peek().is_some_and(is_status) {
            sending.elided = Some(self.number("a status")?);
            if !self.take("..") {
                return self.error("`..` expected after a status");
            }
        } else if self.take("body") {
            sending.body = Middle::Bytes(self.text());
        } else if self.take("file") {
            let part = self.word().unwrap_or_default();
            let part = part.split_once('+').and_then(|(offset, len)| Some((offset.parse().ok()?, len.parse().ok()?)));
            let Some((offset, len)) = part else { return self.error("OFFSET+LENGTH expected") };
            sending.body = Middle::File { offset, len };
        }
        if self.take("tail") {
            sending.tail = self.text();
        }
        if self.answers() {
            sending.taken = self.taken()?;
        }
        Ok(sending)
    }

    fn taken(&mut self) -> Result<Taken> {
        let bytes = match self.peek() {
            Some("all") => {
                self.word();
                None
            }
            Some("blocked" | "pending" | "broken") => Some(0),
            _ => Some(self.number("`all`, a number of bytes, `blocked`, `pending` or `broken`")?),
        };
        let then = match self.word().as_deref() {
            None => Then::Poll,
            Some("blocked") => Then::Blocked,
            Some("pending") => Then::Pending,
            Some("broken") => Then::Broken(self.of::<Fault>(FAULTS)?),
            _ => return self.error("`blocked`, `pending` or `broken` expected"),
        };
        Ok(Taken { bytes, then })
    }

    fn path(&mut self) -> Result<Vec<u8>> {
        match self.tokens.front() {
            Some((_, Token::Text(..))) => Ok(self.text()),
            _ => match self.word() {
                Some(word) => Ok(word.into_bytes()),
                None => self.error("path expected"),
            },
        }
    }

    fn opened(&mut self) -> Result<Option<std::result::Result<Opened, FsError>>> {
        let kind = match self.peek() {
            Some("later") => {
                self.word();
                return Ok(None);
            }
            Some("file") => Kind::File,
            Some("directory") => Kind::Directory,
            _ => return Ok(Some(Err(self.of(FS_ERRORS)?))),
        };
        self.word();
        let mut opened = Opened { kind, len: 0, modified: 0, modified_nanos: 0, digest: None };
        if kind == Kind::File || self.peek().is_some_and(|word| !word.starts_with('@')) {
            opened.len = self.number("a length")?;
        }
        if self.peek().is_some_and(|word| word.starts_with('@')) {
            let word = self.word().unwrap_or_default();
            let (seconds, nanos) = word[1..].split_once('.').unwrap_or((&word[1..], "000000000"));
            match (seconds.parse(), nanos.parse()) {
                (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 && nanos_are_whole(&word) => {
                    (opened.modified, opened.modified_nanos) = (seconds, nanos);
                }
                _ => return self.error("@SECONDS or @SECONDS.NNNNNNNNN expected"),
            }
        }
        if let Some(digits) = self.peek().and_then(|word| word.strip_prefix("digest:")) {
            let digest = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 24);
            let Some(digest) = digest else { return self.error("digest: and 24 hexadecimal digits expected") };
            self.word();
            opened.digest = digest.to_be_bytes()[4..].try_into().ok();
        }
        Ok(Some(Ok(opened)))
    }

    fn listed(&mut self) -> Result<Option<std::result::Result<Listed, FsError>>> {
        if self.take("later") {
            return Ok(None);
        }
        match self.peek().and_then(|word| named(LISTED, word)) {
            Some(listed) => {
                self.word();
                Ok(Some(Ok(listed)))
            }
            None => Ok(Some(Err(self.of(FS_ERRORS)?))),
        }
    }

    fn entries(&mut self) -> Result<Vec<(Vec<u8>, EntryKind)>> {
        let mut entries = Vec::new();
        while let Some((line, Token::Text(name, mark))) = self.tokens.front() {
            self.line = *line;
            let Some(kind) = named(MARKS, mark) else { return self.error(format!("unknown mark: {mark}")) };
            entries.push((name.clone(), kind));
            self.tokens.pop_front();
        }
        Ok(entries)
    }

    fn finished(&mut self) -> Result<Finish> {
        let status = self.number("a status")?;
        let sent = self.number("a number of bytes")?;
        let line = self.text();
        let error = self.take("error").then(|| self.text());
        let cut = self.take("cut").then(|| self.text());
        let cut = cut.map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok(Finish { status, sent, line, error, cut })
    }

    fn wait(&mut self) -> Result<Wait> {
        let mut need = Need::default();
        let words = self.word().unwrap_or_default();
        for word in words.split('+').filter(|word| *word != "nothing") {
            match NEEDS.iter().find(|row| row.0 == word) {
                Some((_, of)) => *of(&mut need) = true,
                None => return self.error(format!("unknown event to wait for: {word}")),
            }
        }
        let deadline = if self.take("until") { Some(Tick(self.number("a time")?)) } else { None };
        Ok(Wait { need, deadline, idle: self.take("idle") })
    }
}

/// Whether a fraction has all digits of a nanosecond.
fn nanos_are_whole(word: &str) -> bool {
    word.split_once('.').is_none_or(|(_, nanos)| nanos.len() == 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_line_number() {
        for (text, line, message) in [
            ("", 1, "the first line is not `sanserve transcript 1`"),
            ("sanserve transcript 1\nlimit hea 2\n", 2, "unknown setting: limit hea"),
            ("sanserve transcript 1\nlimit head x\n", 2, "invalid value for limit head: x"),
            ("sanserve transcript 1\n@0 eof\nlimit head 2\n", 3, "neither an event (`@..`) nor a comment (`#`)"),
            ("sanserve transcript 1\n#\n@0 recv\n    \"a\n", 4, "missing closing quote"),
            ("sanserve transcript 1\n@0 recv \"\\q\"\n", 2, "unknown escape: \\q"),
            ("sanserve transcript 1\n@0 recv \"ä\"\n", 2, "'ä' must be escaped"),
            ("sanserve transcript 1\n@0 recv \"a\"*67108865\n", 2, "longer than 67108864 bytes"),
            ("sanserve transcript 1\n@0 recv \"a\"\n    more\n", 3, "unexpected text: Word(\"more\")"),
            ("sanserve transcript 1\n@x eof\n", 2, "not a time: @x"),
            ("sanserve transcript 1\n@0 jump\n", 2, "unknown verb: jump"),
            (
                "sanserve transcript 1\n@0 close x\n",
                2,
                "one of done, idle, timeout, broken, drained, upgraded expected, not `x`",
            ),
            ("sanserve transcript 1\n@0 open a -> file 5 @1.5\n", 2, "@SECONDS or @SECONDS.NNNNNNNNN expected"),
            ("sanserve transcript 1\n@0 wait bread\n", 2, "unknown event to wait for: bread"),
            ("sanserve transcript 1\n@0 send 400\n", 2, "`..` expected after a status"),
            ("sanserve transcript 1\n@0 send 400 .. \"a\"\n", 2, "unexpected text: Text([97], \"\")"),
            ("sanserve transcript 1\n@0 + shut\n", 2, "only an input can be joined (`+`)"),
        ] {
            assert_eq!(parse(text), error(line, message), "{text}");
        }
    }

    /// Every construct, in canonical form.
    const EVERYTHING: &str = r#"sanserve transcript 1
# About it.
protocol HTTP/1.0
hide-dotfiles yes
limit head 200
cgi /cgi-bin
cgi /htbin
chunked refuse
server-name here
server-port 81
@0 wait read until 15000 idle
@0 recv "GET / HTTP/1.1\r\n"
@0 + eof

# Between.
@1 recv
    "GET /"
    "a"*41
    "\r\n"
    "\x00\xff\"\\\t\r\n"
    "\r\n"
@1 open "" -> directory
@1 open-in index.html -> later
@1 wait completion
@2 done 2 open file 6 @-784111777.000000005
@2 done 3 list more
@2 done 4 open denied
@2 open a/b-c_.txt -> file 0 @5
@2 open "a b" -> exhausted
@2 list -> more "a.txt" "b\n"/ "c"@ "d"@/
@2 list -> failed
@2 send "HTTP/1.1 200 OK\r\n"
@2 send more
    "HTTP/1.1 200 OK\r\n"
    "\r\n"
    file 0+6
    tail "x"
    -> 5 blocked
@2 send "a"
    file 0+6
    -> 0 pending
@2 file-pending
@2 file-ready
@2 send "a"
    body "b"
    -> all broken file-shrank
@2 send 400 ..
@2 send 206 ..
    -> 5 blocked
@2 sent 7
@2 fed 7
@2 tick
@2 clock -784111777
@2 blocked
@2 wait nothing
@2 wait read+write+handler
@2 call over
@2 finished 404 26 "GET / HTTP/1.1"
    error "File not found"
    cut "the peer went away"
@2 finished 0 0 ""
@2 script
    "Status: 204\n"
    "\n"
@2 find cgi-bin/x/info from 8 -> runnable 9
@2 find cgi-bin/ from 8 -> later
@2 done 5 find not-plain 8
@2 done 6 find exhausted
@2 spool -> ok
@2 spool -> exhausted
@2 done 7 spool ok
@2 spawn cgi-bin/x piped
@2 spawn cgi-bin/x empty translated info
    argument "a b"
    with "A=b"
    with "C="
    -> later
@2 done 8 spawn busy
@2 feed "a"
@2 feed
    "a\n"
    "b"
    -> 1 blocked
@2 feed "b"
    -> all end
@2 end-input
@2 kill
@2 feed-end
@2 script-eof
@2 broken file-changed
@2 shut
@2 shut -> blocked
@2 broken peer
@3 close timeout -> blocked
@3 close done
"#;

    #[test]
    fn parsing_and_formatting_are_inverse() {
        let transcript = parse(EVERYTHING).unwrap();
        assert_eq!(transcript.to_text(), EVERYTHING);
        assert_eq!(parse(&transcript.to_text()), Ok(transcript));
    }

    #[test]
    fn any_bytes_can_be_written() {
        let all: Vec<u8> = (0..=255).chain((0..300).map(|i| b"aaaaaaab\n"[i / 50])).collect();
        let event = Event { at: 0, joined: false, what: What::Recv(all) };
        let transcript = Transcript { lines: vec![Line::Event(event)], ..Transcript::default() };
        assert_eq!(parse(&transcript.to_text()), Ok(transcript));
    }
}

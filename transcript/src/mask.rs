//! Masks credentials: replaces the values of certain fields byte by byte, so that nothing else changes and the
//! recording replays as before.
//!
//! The framing of requests is followed, so that bodies are not changed: they may be quoted, fed to a script or counted.
//! After a violation, when the framing is not known any more, every line that looks like such a field is masked. What
//! is recorded otherwise is decided in `recorder`.

use std::collections::VecDeque;
use std::ops::Range;

use sanserve_core::{CREDENTIALS, Limits, Tracker};

use crate::event::{Middle, Sending, What};

/// What happens to credentials in a recording: the values of the fields `Authorization`, `Proxy-Authorization`,
/// `Cookie` and `Set-Cookie`, and the CGI variables made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// They are replaced by `x`, character by character, and `AUTH_TYPE` and `REMOTE_USER` are omitted.
    #[default]
    Masked,
    /// They are recorded as they are.
    Kept,
}

/// The CGI variables with credentials (RFC 3875 section 4.1.18).
const VARIABLES: [&[u8]; 3] = [b"HTTP_AUTHORIZATION=", b"HTTP_COOKIE=", b"HTTP_SET_COOKIE="];

/// The CGI variables that a policy derives from credentials (RFC 3875 sections 4.1.1 and 4.1.11). A replay cannot
/// derive them from masked ones.
const VERIFIED: [&[u8]; 2] = [b"AUTH_TYPE=", b"REMOTE_USER="];

/// How much of a script's head is kept, to recognize an interim response.
const BEGINNING: usize = 64;

/// The length of the longest field name.
const LONGEST: usize = 32;

/// The state of masking for one connection.
pub(crate) struct Mask {
    requests: Tracker,
    input: Lines,
    script: Script,
    output: Lines,
}

/// The output of a script, and which bytes of it are masked.
#[derive(Debug, Default)]
struct Script {
    lines: Lines,
    /// Whether the current line is not empty.
    filled: bool,
    /// The beginning of the current head.
    beginning: Vec<u8>,
    /// Whether the head has ended. The body is not masked.
    is_body: bool,
    said: u64,
    masked: VecDeque<Range<u64>>,
}

/// The position of a byte stream within a line.
#[derive(Clone, Debug)]
struct Lines {
    /// The current line in lower case, as long as it may become the name of a field.
    name: Vec<u8>,
    state: State,
    /// Whether LF alone ends a line, as in the output of scripts. In a request, a secret continues until it certainly
    /// ends.
    lf_ends: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first line of a head, which is not a field, and may be quoted.
    First,
    /// In a possible field name.
    Name,
    /// In a value to be masked.
    Secret,
    /// In a line without a secret.
    Plain,
    /// After a CR in a secret, which only ends it together with LF.
    Cr,
    /// After a line with a secret, which may be continued.
    After,
}

impl Lines {
    fn in_state(state: State) -> Lines {
        Lines { name: Vec::new(), state, lf_ends: false }
    }
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { lf_ends: true, ..Lines::in_state(State::Name) }
    }
}

impl Mask {
    pub(crate) fn new(limits: &Limits) -> Mask {
        Mask {
            requests: Tracker::new(limits),
            input: Lines::in_state(State::First),
            script: Script::default(),
            output: Lines::default(),
        }
    }

    /// Masks bytes that arrived from the peer.
    pub(crate) fn input(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (n, fields) = self.requests.track(bytes);
            self.input.run(&mut bytes[fields], |_, byte| *byte = masked(*byte));
            if self.requests.is_between() {
                self.input = Lines::in_state(State::First);
            }
            bytes = &mut bytes[n..];
        }
    }

    /// Masks bytes that arrived from the script.
    pub(crate) fn script(&mut self, bytes: &mut [u8]) {
        self.script.output(bytes);
    }

    /// Masks what a step sends. `script` is the number of bytes from the script that have not been consumed.
    pub(crate) fn step(&mut self, what: &mut What, script: usize) {
        match what {
            What::Send(Sending { head, body, .. }) => {
                self.output.clone().run(head, |_, byte| *byte = masked(*byte));
                if let Middle::Bytes(bytes) = body {
                    self.script.mask_sent(bytes, script);
                }
            }
            What::Spawn { told, .. } => {
                let Script { said, masked: ranges, .. } = std::mem::take(&mut self.script);
                self.script = Script { said, masked: ranges, ..Script::default() };
                told.environment.retain(|variable| !VERIFIED.iter().any(|name| variable.starts_with(name)));
                for variable in &mut told.environment {
                    if let Some(name) = VARIABLES.iter().find(|name| variable.starts_with(name)) {
                        variable[name.len()..].iter_mut().for_each(|byte| *byte = masked(*byte));
                    }
                }
            }
            _ => {}
        }
    }

    /// Records how much of a step was sent.
    pub(crate) fn settled(&mut self, what: &What) {
        let What::Send(sending) = what else { return };
        let sent = sending.taken.bytes.unwrap_or(sending.len());
        let of_head = usize::try_from(sent).unwrap_or(usize::MAX).min(sending.head.len());
        let mut head = sending.head[..of_head].to_vec();
        self.output.run(&mut head, |_, _| {});
        if sent >= sending.len() && !sending.more {
            // What comes next beginning a line, or is not a head.
            self.output = Lines::default();
        }
    }
}

impl Script {
    fn output(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.is_body {
                self.said += bytes.len() as u64;
                return;
            }
            let end = end_of_script_head(&mut self.filled, bytes);
            let (head, rest) = bytes.split_at_mut(end.unwrap_or(bytes.len()));
            self.beginning.extend(head.iter().take(BEGINNING.saturating_sub(self.beginning.len())));
            self.mask_head(head);
            if end.is_some() {
                // An interim response is followed by another head.
                self.is_body = !is_interim(&self.beginning);
                self.beginning.clear();
                self.lines = Lines::default();
            }
            bytes = rest;
        }
    }

    fn mask_head(&mut self, head: &mut [u8]) {
        let (start, ranges) = (self.said, &mut self.masked);
        self.said += head.len() as u64;
        self.lines.run(head, |at, byte| {
            let at = start + at as u64;
            *byte = masked(*byte);
            match ranges.back_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => ranges.push_back(at..at + 1),
            }
        });
    }

    /// Masks `bytes`, which are the first of `unread`.
    fn mask_sent(&mut self, bytes: &mut [u8], unread: usize) {
        let start = self.said.saturating_sub(unread as u64);
        while self.masked.front().is_some_and(|range| range.end <= start) {
            self.masked.pop_front();
        }
        for at in self.masked.iter().flat_map(Range::clone) {
            if let Some(byte) = at.checked_sub(start).and_then(|at| bytes.get_mut(at as usize)) {
                *byte = masked(*byte);
            }
        }
    }
}

/// Where the empty line ends that ends a script's head: one without anything except CR, as the core defines it.
/// `filled`: whether the line has other bytes so far.
fn end_of_script_head(filled: &mut bool, bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        if !*filled && is_blank(&bytes[line..end]) {
            return Some(end + 1);
        }
        (*filled, line) = (false, end + 1);
    }
    *filled |= !is_blank(&bytes[line..]);
    None
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|&byte| byte == b'\r')
}

/// Whether a head that beginning like this may be that of an interim response.
fn is_interim(beginning: &[u8]) -> bool {
    let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    let status = beginning.starts_with(b"HTTP/").then(|| memchr::memchr(b' ', beginning)).flatten();
    status.is_some_and(|at| beginning[at..].trim_ascii_start().starts_with(b"1"))
}

impl Lines {
    /// Processes `bytes`, and calls `secret` with each byte of a secret and its position.
    fn run(&mut self, bytes: &mut [u8], mut secret: impl FnMut(usize, &mut u8)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            match (*byte, self.state) {
                (b'\r', State::Secret | State::Cr) => self.state = State::Cr,
                (b'\n', State::Cr) => self.state = State::After,
                (b'\n', State::Secret) if self.lf_ends => self.state = State::After,
                (b'\r' | b'\n', State::After) => {}
                // A folded line. It will be refused, but is recorded first.
                (b' ' | b'\t', State::After) => self.state = State::Secret,
                (_, State::Secret | State::Cr) => {
                    self.state = State::Secret;
                    secret(at, byte);
                }
                (b'\r' | b'\n', State::First) => {}
                (_, State::First) => self.state = State::Plain,
                (b'\r' | b'\n', _) => self.begin(),
                (b':', State::Name) => {
                    let is_secret = CREDENTIALS.contains(&self.name.as_slice());
                    self.state = if is_secret { State::Secret } else { State::Plain };
                }
                (byte, State::After) => {
                    self.begin();
                    self.named(byte);
                }
                (byte, State::Name) => self.named(byte),
                (_, State::Plain) => {}
            }
        }
    }

    /// Adds a byte to a possible field name. Bytes that are not permitted in a name are skipped: such a line will be
    /// refused, but is recorded first.
    fn named(&mut self, byte: u8) {
        if !may_be_named(byte) {
            return;
        }
        if self.name.len() < LONGEST {
            self.name.push(byte.to_ascii_lowercase());
        } else {
            self.state = State::Plain;
        }
    }

    fn begin(&mut self) {
        self.name.clear();
        self.state = State::Name;
    }
}

/// Whether a byte occurs in the names of these fields.
fn may_be_named(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Replaces a byte. Separators and characters that are not permitted are kept, so that the value is parsed in the same
/// way.
fn masked(byte: u8) -> u8 {
    match byte {
        b';' | b',' | b'=' | b' ' | b'\t' | 0..0x20 | 0x7f => byte,
        _ => b'x',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Told;
    use sanserve_core::ScriptInput;

    fn masked_in(pieces: &[&str]) -> String {
        let mut mask = Mask::new(&Limits::default());
        let mut all = Vec::new();
        for piece in pieces {
            let mut bytes = piece.as_bytes().to_vec();
            mask.input(&mut bytes);
            all.extend(bytes);
        }
        String::from_utf8(all).unwrap()
    }

    fn assert_masked(text: &str, expected: &str) {
        assert_eq!(masked_in(&[text]), expected);
        for cut in 0..text.len() {
            assert_eq!(masked_in(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
        let bytes: Vec<&str> = (0..text.len()).map(|at| &text[at..=at]).collect();
        assert_eq!(masked_in(&bytes), expected);
    }

    #[test]
    fn values_in_heads_are_masked() {
        assert_masked(
            "\r\nGET /Cookie:x HTTP/1.1\r\nHost: x\r\ncookie: a=b; c=d\r\nX-Cookie: no\r\n\
             AUTHORIZATION:Basic QQ==\r\nContent-Length: 13\r\n\r\n\nCookie: bodyGET / HTTP/1.1\r\n\
             Proxy-Authorization: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n\
             9\r\n\nCookie: \r\n0\r\nCookie: t\r\n\r\nGET / HTTP/1.1\r\nCookie: z\r\n",
            "\r\nGET /Cookie:x HTTP/1.1\r\nHost: x\r\ncookie: x=x; x=x\r\nX-Cookie: no\r\n\
             AUTHORIZATION:xxxxx xx==\r\nContent-Length: 13\r\n\r\n\nCookie: bodyGET / HTTP/1.1\r\n\
             Proxy-Authorization: x\r\nSet-Cookie: x\r\nTransfer-Encoding: chunked\r\n\r\n\
             9\r\n\nCookie: \r\n0\r\nCookie: x\r\n\r\nGET / HTTP/1.1\r\nCookie: x\r\n",
        );
    }

    #[test]
    fn lines_after_a_violation_are_masked() {
        assert_masked(
            "GET / HTTP/1.1\r\nCookie : a\r\n folded\r\n\tmore\r\nX: y\r\n\r\nlater\nCookie: b\rCookie: c",
            "GET / HTTP/1.1\r\nCookie : x\r\n xxxxxx\r\n\txxxx\r\nX: y\r\n\r\nlater\nCookie: x\rxxxxxxx x",
        );
    }

    #[test]
    fn a_secret_continues_until_its_line_ends() {
        assert_masked(
            "GET / HTTP/1.1\r\nAuthorization: a\rb\nc\x00d\x7f\r\r\ne: f\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nAuthorization: x\rx\nx\x00x\x7f\r\r\ne: f\r\nX: y\r\n\r\n",
        );
        assert_masked("GET / HTTP/1.1\rCookie: a\r\n\r\n", "GET / HTTP/1.1\rCookie: x\r\n\r\n");
        assert_masked("GET / HTTP/1.1\r\nX: y\rCookie: a", "GET / HTTP/1.1\r\nX: y\rCookie: x");
        let spaces = " ".repeat(60);
        assert_masked(
            &format!("GET / HTTP/1.1\r\n\x00Coo\tkie{spaces}: a\r\n"),
            &format!("GET / HTTP/1.1\r\n\x00Coo\tkie{spaces}: x\r\n"),
        );
    }

    #[test]
    fn output_of_a_script_is_masked_when_it_is_sent() {
        let said = b"Set-Cookie: abc\r\nX: y\n\nSet-Cookie: no";
        let expected = b"Set-Cookie: xxx\r\nX: y\n\nSet-Cookie: no";
        for cut in 0..said.len() {
            let mut mask = Mask::new(&Limits::default());
            let (mut one, mut two) = (said[..cut].to_vec(), said[cut..].to_vec());
            mask.script(&mut one);
            mask.script(&mut two);
            assert_eq!([one, two].concat(), expected, "cut at {cut}");
            for start in 0..said.len() {
                let body = Middle::Bytes(said[start..].into());
                let mut what = What::Send(Sending { body, ..Sending::default() });
                mask.step(&mut what, said.len() - start);
                let What::Send(Sending { body: Middle::Bytes(body), .. }) = what else { unreachable!() };
                assert_eq!(body, expected[start..]);
            }
        }
    }

    #[test]
    fn the_head_of_a_script_ends_where_the_core_ends_it() {
        for said in [
            " \t\r\nSet-Cookie: abc\n\nSet-Cookie: no\n",
            "\u{feff}Set-Cookie: abc\n\r\r\nSet-Cookie: no\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: abc\r\n\r\nSet-Cookie: no\n",
        ] {
            let expected = said.replace("abc", "xxx");
            for cut in 0..said.len() {
                let mut mask = Mask::new(&Limits::default());
                let (one, two) = said.as_bytes().split_at(cut);
                let (mut one, mut two) = (one.to_vec(), two.to_vec());
                mask.script(&mut one);
                mask.script(&mut two);
                assert_eq!([one, two].concat(), expected.as_bytes(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn credentials_in_the_environment_are_masked() {
        let environment =
            ["HTTP_COOKIE=a=b; c", "AUTH_TYPE=Basic", "HTTP_AUTHORIZATION=Basic QQ==", "REMOTE_USER=ada", "X=y"];
        let told = Told {
            path: b"cgi-bin/x".to_vec(),
            input: ScriptInput::Empty,
            translated: None,
            arguments: Vec::new(),
            environment: environment.map(|variable| variable.as_bytes().to_vec()).into(),
        };
        let mut what = What::Spawn { told, answer: None };
        Mask::new(&Limits::default()).step(&mut what, 0);
        let What::Spawn { told, .. } = what else { unreachable!() };
        let left: Vec<&str> = told.environment.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect();
        assert_eq!(left, ["HTTP_COOKIE=x=x; x", "HTTP_AUTHORIZATION=xxxxx xx==", "X=y"]);
    }

    #[test]
    fn a_response_is_masked_in_every_piece() {
        let head = b"HTTP/1.1 200 OK\r\nSet-Cookie: secret\r\nX: y\r\n\r\n";
        for cut in 0..head.len() {
            let mut mask = Mask::new(&Limits::default());
            let mut all = Vec::new();
            for (from, sent) in [(0, cut), (cut, head.len() - cut)] {
                let mut what = What::Send(Sending { head: head[from..].into(), ..Sending::default() });
                mask.step(&mut what, 0);
                let What::Send(sending) = &mut what else { unreachable!() };
                all.extend_from_slice(&sending.head[..sent]);
                sending.taken.bytes = Some(sent as u64);
                mask.settled(&what);
            }
            assert_eq!(all.escape_ascii().to_string(), r"HTTP/1.1 200 OK\r\nSet-Cookie: xxxxxx\r\nX: y\r\n\r\n");
        }
    }
}

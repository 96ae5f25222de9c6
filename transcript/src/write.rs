//! Formats transcripts. Bytes are split at line ends, so that a diff shows what has changed.

use std::fmt::{self, Write};

use sanserve_core::{Completion, EntryKind, Found, FsError, Input, Kind, Listed, Opened, SpawnError, Wait};

use crate::event::{Event, FeedThen, Finish, Line, Middle, ProbeThen, Sending, Taken, Then, Told, Transcript, What};
use crate::words::{
    FAULTS, FIRST_LINE, FS_ERRORS, INPUTS, LISTED, MARKS, NEEDS, SCRIPT_FILES, SCRIPT_INPUTS, SPAWN_ERRORS,
    TLS_VERSIONS, name_of, quoted, word,
};

/// The indentation of continuation lines.
const INDENT: &str = "\n    ";
/// The minimum length of a run of equal bytes that is written as a repetition.
const RUN: usize = 40;
/// The maximum length of a text that is written after its verb.
const SHORT: usize = 60;

impl Transcript {
    /// Formats the transcript in its canonical form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{FIRST_LINE}\n");
        for text in &self.about {
            line(&Line::Comment(text.clone()), &mut out);
        }
        self.settings.write(&mut out);
        for each in &self.lines {
            line(each, &mut out);
        }
        out
    }
}

impl Event {
    /// Appends the event in canonical form, without a line end.
    pub fn write(&self, out: &mut String) {
        event(self, out);
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

pub(super) fn line(line: &Line, out: &mut String) {
    match line {
        Line::Blank => {}
        Line::Comment(text) => {
            out.push('#');
            out.push_str(text);
        }
        Line::Event(each) => event(each, out),
    }
    out.push('\n');
}

fn event(event: &Event, out: &mut String) {
    write!(out, "@{} ", event.at).expect("writing to a String does not fail");
    if event.joined {
        out.push_str("+ ");
    }
    match &event.what {
        What::Recv(bytes) => {
            out.push_str("recv");
            text(bytes, out);
        }
        What::Tick => out.push_str("tick"),
        What::Clock(wall) => write!(out, "clock {}", wall.0).expect("writing to a String does not fail"),
        What::Input(each) => input(each, out),
        What::Send(sending) => send(sending, out),
        What::Open { path, inside, answer } => {
            out.push_str(if *inside { "open-in " } else { "open " });
            word(path, out);
            out.push_str(" -> ");
            match answer {
                None => out.push_str("later"),
                Some(answer) => opened(answer, out),
            }
        }
        What::List { entries, answer } => {
            out.push_str("list -> ");
            out.push_str(match answer {
                None => "later",
                Some(answer) => listed(answer),
            });
            rows(entries, out);
        }
        What::Script(bytes) => {
            out.push_str("script");
            text(bytes, out);
        }
        What::Find { path, from, answer } => {
            out.push_str("find ");
            word(path, out);
            write!(out, " from {from} -> ").expect("writing to a String does not fail");
            match answer {
                None => out.push_str("later"),
                Some(answer) => found(answer, out),
            }
        }
        What::Spool { answer } => {
            out.push_str("spool -> ");
            out.push_str(answer.map_or("later", |answer| done(&answer, FS_ERRORS)));
        }
        What::Spawn { told, answer } => spawn(told, answer, out),
        What::Feed { bytes, taken, then } => {
            out.push_str("feed");
            text(bytes, out);
            if (taken, then) != (&None, &FeedThen::Poll) {
                out.push_str(INDENT);
                out.push_str("->");
                match taken {
                    None => out.push_str(" all"),
                    Some(n) => write!(out, " {n}").expect("writing to a String does not fail"),
                }
                out.push_str(match then {
                    FeedThen::Poll => "",
                    FeedThen::Blocked => " blocked",
                    FeedThen::End => " end",
                    FeedThen::Full => " full",
                });
            }
        }
        What::EndInput => out.push_str("end-input"),
        What::Kill => out.push_str("kill"),
        What::Log(lines) => {
            out.push_str("log");
            text(lines, out);
        }
        What::Call(call) => write!(out, "call {}", call.name()).expect("writing to a String does not fail"),
        What::Finished(finish) => finished(finish, out),
        What::Probe { bytes, then } => {
            out.push_str("probe");
            text(bytes, out);
            let indent = if bytes.is_empty() { " " } else { INDENT };
            match then {
                ProbeThen::Poll => {}
                ProbeThen::Later => write!(out, "{indent}-> later").expect("writing to a String does not fail"),
                ProbeThen::Eof => write!(out, "{indent}-> eof").expect("writing to a String does not fail"),
                ProbeThen::Broken(fault) => {
                    write!(out, "{indent}-> broken {}", name_of(FAULTS, fault))
                        .expect("writing to a String does not fail");
                }
            }
        }
        What::Wait(each) => wait(each, out),
        What::Shut { blocked } => out.push_str(if *blocked { "shut -> blocked" } else { "shut" }),
        What::Close { close, blocked } => {
            write!(out, "close {}", close.name()).expect("writing to a String does not fail");
            out.push_str(if *blocked { " -> blocked" } else { "" });
        }
    }
}

fn input(input: &Input, out: &mut String) {
    match input {
        Input::Secured(secured) => {
            out.push_str("secured ");
            out.push_str(name_of(TLS_VERSIONS, &secured.version));
            if let Some(name) = &secured.server_name {
                out.push_str(" sni ");
                word(name.as_bytes(), out);
            }
            if let Some(alpn) = &secured.alpn {
                out.push_str(" alpn ");
                word(alpn, out);
            }
        }
        Input::Sent(n) => write!(out, "sent {n}").expect("writing to a String does not fail"),
        Input::Fed(n) => write!(out, "fed {n}").expect("writing to a String does not fail"),
        Input::Broken(fault) => {
            write!(out, "broken {}", name_of(FAULTS, fault)).expect("writing to a String does not fail")
        }
        Input::Done(ticket, completion) => {
            write!(out, "done {} ", ticket.number()).expect("writing to a String does not fail");
            match completion {
                Completion::Opened(answer) => {
                    out.push_str("open ");
                    opened(answer, out);
                }
                Completion::Listed(answer) => {
                    out.push_str("list ");
                    out.push_str(listed(answer));
                }
                Completion::Found(answer) => {
                    out.push_str("find ");
                    found(answer, out);
                }
                Completion::Spooled(answer) => {
                    out.push_str("spool ");
                    out.push_str(done(answer, FS_ERRORS));
                }
                Completion::Spawned(answer) => {
                    out.push_str("spawn ");
                    out.push_str(done(answer, SPAWN_ERRORS));
                }
            }
        }
        plain => out.push_str(name_of(INPUTS, plain)),
    }
}

fn send(sending: &Sending, out: &mut String) {
    match sending.elided {
        Some(status) => write!(out, "send {status} ..").expect("writing to a String does not fail"),
        None => sent(sending, out),
    }
    if sending.taken != Taken::default() {
        out.push_str(INDENT);
        out.push_str("->");
        match sending.taken.bytes {
            None => out.push_str(" all"),
            Some(n) => write!(out, " {n}").expect("writing to a String does not fail"),
        }
        match sending.taken.then {
            Then::Poll => {}
            Then::Blocked => out.push_str(" blocked"),
            Then::Pending => out.push_str(" pending"),
            Then::Broken(fault) => write!(out, " broken {}", name_of(FAULTS, &fault)).expect("a String takes all"),
        }
    }
}

fn sent(sending: &Sending, out: &mut String) {
    out.push_str(if sending.more { "send more" } else { "send" });
    text(&sending.head, out);
    match &sending.body {
        Middle::None => {}
        Middle::Bytes(bytes) => {
            out.push_str(INDENT);
            out.push_str("body");
            text(bytes, out);
        }
        Middle::File { offset, len } => {
            write!(out, "{INDENT}file {offset}+{len}").expect("writing to a String does not fail");
        }
    }
    if !sending.tail.is_empty() {
        out.push_str(INDENT);
        out.push_str("tail");
        text(&sending.tail, out);
    }
}

fn opened(answer: &Result<Opened, FsError>, out: &mut String) {
    let opened = match answer {
        Ok(opened) => opened,
        Err(error) => return out.push_str(name_of(FS_ERRORS, error)),
    };
    match opened.kind {
        Kind::File => write!(out, "file {}", opened.len).expect("writing to a String does not fail"),
        Kind::Directory if opened.len == 0 => out.push_str("directory"),
        Kind::Directory => write!(out, "directory {}", opened.len).expect("writing to a String does not fail"),
    }
    match (opened.modified, opened.modified_nanos) {
        (0, 0) => {}
        (seconds, 0) => write!(out, " @{seconds}").expect("writing to a String does not fail"),
        (seconds, nanos) => write!(out, " @{seconds}.{nanos:09}").expect("writing to a String does not fail"),
    }
    if let Some(digest) = opened.digest {
        out.push_str(" digest:");
        digest.iter().for_each(|byte| write!(out, "{byte:02x}").expect("writing to a String does not fail"));
    }
}

fn listed(answer: &Result<Listed, FsError>) -> &'static str {
    match answer {
        Ok(listed) => name_of(LISTED, listed),
        Err(error) => name_of(FS_ERRORS, error),
    }
}

fn found(answer: &Result<Found, FsError>, out: &mut String) {
    match answer {
        Ok(Found { len, what }) => {
            write!(out, "{} {len}", name_of(SCRIPT_FILES, what)).expect("writing to a String does not fail")
        }
        Err(error) => out.push_str(name_of(FS_ERRORS, error)),
    }
}

fn done<E: PartialEq>(answer: &Result<(), E>, errors: &[(&'static str, E)]) -> &'static str {
    match answer {
        Ok(()) => "ok",
        Err(error) => name_of(errors, error),
    }
}

/// Writes each argument and each variable on its own line.
fn spawn(told: &Told, answer: &Option<Result<(), SpawnError>>, out: &mut String) {
    out.push_str("spawn ");
    word(&told.path, out);
    write!(out, " {}", name_of(SCRIPT_INPUTS, &told.input)).expect("writing to a String does not fail");
    if let Some(translated) = &told.translated {
        out.push_str(" translated ");
        word(translated, out);
    }
    for (verb, items) in [("argument", &told.arguments), ("with", &told.environment)] {
        for item in items {
            out.push_str(INDENT);
            out.push_str(verb);
            out.push(' ');
            pieces(item, out, " ");
        }
    }
    if *answer != Some(Ok(())) {
        out.push_str(INDENT);
        out.push_str("-> ");
        out.push_str(answer.map_or("later", |answer| done(&answer, SPAWN_ERRORS)));
    }
}

fn rows(entries: &[(Vec<u8>, EntryKind)], out: &mut String) {
    let start = out.len();
    let mut width = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
    for (name, kind) in entries {
        let mut row = String::new();
        quoted(name, &mut row);
        row.push_str(name_of(MARKS, kind));
        if width + row.len() > 100 && out.len() > start {
            out.push_str(INDENT);
            width = 4;
        } else {
            out.push(' ');
        }
        width += row.len() + 1;
        out.push_str(&row);
    }
}

fn finished(finish: &Finish, out: &mut String) {
    write!(out, "finished {} {} ", finish.status, finish.sent).expect("writing to a String does not fail");
    pieces(&finish.line, out, " ");
    if let Some(error) = &finish.error {
        out.push_str(INDENT);
        out.push_str("error ");
        pieces(error, out, INDENT);
    }
    if let Some(cut) = &finish.cut {
        out.push_str(INDENT);
        out.push_str("cut ");
        pieces(cut.as_bytes(), out, INDENT);
    }
}

fn wait(wait: &Wait, out: &mut String) {
    let mut need = wait.need;
    let words: Vec<&str> = NEEDS.iter().filter(|(_, of)| *of(&mut need)).map(|(word, _)| *word).collect();
    write!(out, "wait {}", if words.is_empty() { "nothing".into() } else { words.join("+") })
        .expect("writing to a String does not fail");
    if let Some(deadline) = wait.deadline {
        write!(out, " until {}", deadline.0).expect("writing to a String does not fail");
    }
    out.push_str(if wait.idle { " idle" } else { "" });
}

/// Writes text after a verb: on the same line if it is short, otherwise one line for each line of the text.
fn text(bytes: &[u8], out: &mut String) {
    if bytes.is_empty() {
        return;
    }
    let mut short = String::from(" ");
    pieces(bytes, &mut short, " ");
    let one_line = memchr::memchr(b'\n', bytes).is_none_or(|at| at + 1 == bytes.len());
    if one_line && short.len() <= SHORT {
        out.push_str(&short);
    } else {
        out.push_str(INDENT);
        pieces(bytes, out, INDENT);
    }
}

/// Writes quoted text, split after each line end and around each long run of equal bytes.
fn pieces(bytes: &[u8], out: &mut String, between: &str) {
    if bytes.is_empty() {
        out.push_str("\"\"");
    }
    let mut first = true;
    let mut piece = |text: &[u8], times: usize| {
        if !text.is_empty() {
            out.push_str(if std::mem::take(&mut first) { "" } else { between });
            quoted(text, out);
        }
        if times > 1 {
            write!(out, "*{times}").expect("writing to a String does not fail");
        }
    };
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let (plain, run) = until_run(rest);
            let (text, tail) = rest.split_at(plain);
            piece(text, 1);
            piece(&tail[..run.min(1)], run);
            rest = &tail[run..];
        }
    }
}

/// The number of bytes before a long run of equal bytes, and the length of the run; 0 if there is none.
fn until_run(bytes: &[u8]) -> (usize, usize) {
    let mut start = 0;
    while start < bytes.len() {
        let run = bytes[start..].iter().take_while(|&&byte| byte == bytes[start]).count();
        if run >= RUN {
            return (start, run);
        }
        start += run;
    }
    (bytes.len(), 0)
}

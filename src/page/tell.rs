//! What an event is, for people: which arrows of the sequence diagram it is, and one sentence about it.

use sanserve::core::{
    Call, Close, Completion, Fault, FsError, Input, Kind, Listed, ScriptFile, ScriptInput, SpawnError, State, Wait,
};
use sanserve::transcript::{Event, FeedThen, Middle, ProbeThen, Sending, Then, Told, What};

/// A lifeline. The core is at the left, alone with the driver; the world is at the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Core,
    Driver,
    Peer,
    Disk,
    Script,
}

impl Who {
    /// In the order of the diagram, with what they are.
    pub(crate) const ALL: [(Who, &'static str, &'static str); 5] = [
        (Who::Core, "core", "decides"),
        (Who::Driver, "driver", "waits and acts"),
        (Who::Peer, "peer", "the socket"),
        (Who::Disk, "disk", "files"),
        (Who::Script, "script", "a process"),
    ];
}

/// One arrow: to the right the core says something, to the left it is told.
pub(crate) struct Arrow {
    pub(crate) from: Who,
    pub(crate) to: Who,
    pub(crate) label: String,
}

/// Requests of one piece that have an arrow each.
const REQUESTS: usize = 3;

/// Bytes of text in a label.
const LABEL: usize = 72;

/// The arrows of an event. `spools`: what is fed goes to a file.
pub(crate) fn arrows(event: &Event, spools: bool) -> Vec<Arrow> {
    use Who::{Core, Disk, Driver, Peer, Script};
    let to = |to: Who, label: String| Arrow { from: Core, to, label };
    let from = |from: Who, label: String| Arrow { from, to: Core, label };
    match &event.what {
        What::Recv(bytes) => {
            let requests = requests(bytes);
            let (shown, more) = requests.split_at(requests.len().min(REQUESTS));
            let mut arrows: Vec<Arrow> = shown.iter().map(|request| from(Peer, first_line(request))).collect();
            if !more.is_empty() {
                arrows.push(from(Peer, format!("and {} more requests", more.len())));
            }
            arrows
        }
        What::Tick => vec![from(Driver, "time".into())],
        What::Clock(_) => vec![from(Driver, "time, and the calendar".into())],
        What::Input(input) => {
            let who = match input {
                Input::Eof
                | Input::Probed
                | Input::Blocked
                | Input::Writable
                | Input::Sent(_)
                | Input::Broken(Fault::Peer) => Peer,
                Input::Broken(Fault::File | Fault::FileShrank | Fault::FileChanged) => Disk,
                Input::Done(_, Completion::Spawned(_)) => Script,
                Input::Done(..) => Disk,
                Input::Fed(_) if spools => Disk,
                Input::Fed(_)
                | Input::FeedBlocked
                | Input::Feedable
                | Input::FeedEnd
                | Input::SpoolFull
                | Input::ScriptEof
                | Input::ScriptFailed(_) => Script,
                _ => Driver,
            };
            vec![from(who, short(input))]
        }
        What::Send(sending) => {
            let mut arrows = vec![to(Peer, sent(sending))];
            if let Some(taken) = taken(sending) {
                arrows.push(from(Peer, taken));
            }
            arrows
        }
        What::Open { path, inside, answer } => {
            let place = if *inside { " in it" } else { "" };
            let answer = answer.as_ref().map(|answer| match answer {
                Ok(opened) if opened.kind == Kind::Directory => "directory".into(),
                Ok(opened) => format!("file, {}", size(opened.len)),
                Err(error) => fs_error(*error).into(),
            });
            asked(Disk, format!("open {}{place}", shown(path)), answer)
        }
        What::List { entries, answer } => {
            let answer = answer.map(|answer| match answer {
                Ok(Listed::More) => format!("{} entries, and more", entries.len()),
                Ok(Listed::End) => format!("{} entries, the last", entries.len()),
                Err(error) => fs_error(error).into(),
            });
            asked(Disk, "list".into(), answer)
        }
        What::Find { path, answer, .. } => {
            let answer = answer.map(|answer| match answer {
                Ok(found) => script_file(found.what).into(),
                Err(error) => fs_error(error).into(),
            });
            asked(Disk, format!("find {}", shown(path)), answer)
        }
        What::Spool { answer } => asked(
            Disk,
            "make a file for the body".into(),
            answer.map(|answer| answer.map_or_else(|error| fs_error(error).into(), |()| "ok".into())),
        ),
        What::Spawn { told, answer } => {
            let answer =
                answer.map(|answer| answer.map_or_else(|error| spawn_error(error).into(), |()| "it runs".into()));
            asked(Script, format!("run {}", shown(&told.path)), answer)
        }
        What::Feed { bytes, taken, then } => {
            let who = if spools { Disk } else { Script };
            let mut arrows = vec![to(who, format!("body, {}", size(bytes.len() as u64)))];
            if taken.is_some() || *then != FeedThen::Poll {
                let n = taken.unwrap_or(bytes.len() as u64);
                let then = match then {
                    FeedThen::Poll => "",
                    FeedThen::Blocked => ", blocked",
                    FeedThen::End => ", takes no more",
                    FeedThen::Full => ", has no room",
                };
                arrows.push(from(who, format!("took {}{then}", size(n))));
            }
            arrows
        }
        What::Script(bytes) => vec![from(Script, first_line(bytes))],
        What::EndInput => vec![to(Script, "end of the body".into())],
        What::Kill => vec![to(Script, "end it".into())],
        What::Log(lines) => vec![to(Driver, format!("log: {}", first_line(lines)))],
        What::Call(call) => vec![to(Driver, format!("call the handler: {}", call.name()))],
        What::Finished(finish) => vec![to(Driver, format!("finished: {} {}", finish.status, first_line(&finish.line)))],
        What::Probe { bytes, then } => {
            let mut arrows = vec![to(Driver, "read once, without waiting".into())];
            if !bytes.is_empty() {
                arrows.push(from(Peer, first_line(bytes)));
            }
            match then {
                ProbeThen::Poll | ProbeThen::Later => {}
                ProbeThen::Eof => arrows.push(from(Peer, "end of input".into())),
                ProbeThen::Broken(_) => arrows.push(from(Peer, "reset".into())),
            }
            arrows
        }
        What::Wait(wait) => vec![to(Driver, format!("wait: {}", needs(wait)))],
        What::Shut { blocked } => {
            let mut arrows = vec![to(Peer, "half-close".into())];
            if *blocked {
                arrows.push(from(Peer, "blocked".into()));
            }
            arrows
        }
        What::Close { close, blocked } => {
            let mut arrows = vec![to(Peer, format!("close: {}", close.name()))];
            if *blocked {
                arrows.push(from(Peer, "blocked".into()));
            }
            arrows
        }
    }
}

fn asked(whom: Who, label: String, answer: Option<String>) -> Vec<Arrow> {
    let mut arrows = vec![Arrow { from: Who::Core, to: whom, label }];
    arrows.extend(answer.map(|label| Arrow { from: whom, to: Who::Core, label }));
    arrows
}

/// One sentence about an event: what happens, and why. `state` is how the connection stands behind it, as far
/// as that is known.
pub(crate) fn sentence(event: &Event, state: Option<&State>, reads: bool, spools: bool) -> String {
    let mut text = match &event.what {
        What::Recv(bytes) if reads => {
            format!("{} arrive from the peer. The driver reads them into the connection's window.", piece(bytes))
        }
        What::Recv(bytes) => {
            format!("{} arrive from the peer. They stay in the socket: the core has not asked to read.", piece(bytes))
        }
        What::Tick => "Nothing but time has passed. The driver polls, and the core looks at its clocks.".into(),
        What::Clock(wall) => format!(
            "The driver polls. Somebody has set the calendar, to second {}: dates come from it, timeouts do not.",
            wall.0
        ),
        What::Input(input) => of_input(input).into(),
        What::Send(sending) => of_send(sending),
        What::Open { inside: true, path, answer } => {
            format!("The core asks for the index page {} in the directory that is held; {}.", shown(path), of_open(answer.as_ref().map(|answer| answer.as_ref().map(|opened| opened.kind))))
        }
        What::Open { path, answer, .. } => {
            let path = if path.is_empty() { "the root".into() } else { format!("{} beneath the root", shown(path)) };
            format!("The core asks for {path}; {}. It opens nothing itself.", of_open(answer.as_ref().map(|answer| answer.as_ref().map(|opened| opened.kind))))
        }
        What::List { entries, answer } => format!(
            "The core asks for some entries of the directory; {}.",
            match answer {
                None => "the answer comes later".into(),
                Some(Ok(Listed::More)) => format!("{} are pushed, and there may be more", entries.len()),
                Some(Ok(Listed::End)) => format!("{} are pushed, and that is all", entries.len()),
                Some(Err(error)) => format!("the disk says: {}", fs_error(*error)),
            }
        ),
        What::Find { path, answer, .. } => format!(
            "The path {} means a script. The core asks which one; {}.",
            shown(path),
            match answer {
                None => "the answer comes later".into(),
                Some(Ok(found)) => format!("the disk says: {}", script_file(found.what)),
                Some(Err(error)) => format!("the disk says: {}", fs_error(*error)),
            }
        ),
        What::Spool { .. } => "The body is chunked, and a script must be told its length before it runs: it is kept in a temporary file.".into(),
        What::Spawn { told, answer } => of_spawn(told, *answer),
        What::Feed { bytes, then, .. } => format!(
            "The core offers {} of the body to {}{}.",
            size(bytes.len() as u64),
            if spools { "the temporary file" } else { "the script" },
            match then {
                FeedThen::Poll => "",
                FeedThen::Blocked => ", which takes no more for now: so the peer is not read from either",
                FeedThen::End => ", which takes no more at all",
                FeedThen::Full => ", for which there is no room, since the bodies of others are kept",
            }
        ),
        What::EndInput => "The body is complete: the script's input is closed, so that it reads the end.".into(),
        What::Log(_) => "Something is wrong with what the script printed, and the server's log says so.".into(),
        What::Kill => "Nobody waits for the script any more, or its time is over: it is ended.".into(),
        What::Script(bytes) => format!("The script has written {}. They are read into a window of their own.", size(bytes.len() as u64)),
        What::Call(call) => of_call(*call).into(),
        What::Finished(finish) => {
            let cut = finish.cut.as_ref().map(|cut| format!(" The answer was cut: {cut}.")).unwrap_or_default();
            format!(
                "The exchange is over: status {}, {} of body. The driver logs it and lets go of what it held.{cut}",
                finish.status,
                size(finish.sent)
            )
        }
        What::Probe { bytes, then } => format!(
            "Before a timer fires, or because the server drains, the socket is read once more, without waiting: {}.",
            match then {
                ProbeThen::Later => "what is there is said later".into(),
                ProbeThen::Eof => "the peer has half-closed".into(),
                ProbeThen::Broken(_) => "the peer has reset the connection".into(),
                ProbeThen::Poll if bytes.is_empty() => "nothing is there".into(),
                ProbeThen::Poll => format!("{} have arrived meanwhile", size(bytes.len() as u64)),
            }
        ),
        What::Wait(wait) => of_wait(wait, event.at, state),
        What::Shut { blocked: false } => "The last answer is out. The core half-closes and reads on, so that no reset overtakes the answer (RFC 9112 section 9.6).".into(),
        What::Shut { blocked: true } => "The core would half-close, but the driver still holds bytes that the socket does not take. It comes again.".into(),
        What::Close { blocked: true, .. } => "The core would close, but the driver still holds bytes that the socket does not take. It comes again.".into(),
        What::Close { close, .. } => format!("The connection closes: {}.", of_close(*close)),
    };
    if event.joined {
        text.push_str(" It finds the connection in the middle of a turn, or comes together with the input before it.");
    }
    text
}

fn of_open(answer: Option<Result<Kind, &FsError>>) -> String {
    match answer {
        None => "the answer comes later".into(),
        Some(Ok(Kind::File)) => "the driver opens it and says what it found, a file".into(),
        Some(Ok(Kind::Directory)) => "the driver opens it and says what it found, a directory".into(),
        Some(Err(error)) => format!("the disk says: {}", fs_error(*error)),
    }
}

fn of_send(sending: &Sending) -> String {
    if let Some(status) = sending.elided.filter(|_| sending.is_empty()) {
        return format!("an answer with status {status}, of which the transcript tells no more");
    }
    let what = match (sending.head.is_empty(), &sending.body) {
        (false, Middle::File { len, .. }) => {
            format!(
                "{} that it has formatted, then {} of the open file, which it never sees",
                size(sending.head.len() as u64),
                size(*len)
            )
        }
        (true, Middle::File { len, .. }) => format!("what is left of the file, {}", size(*len)),
        (_, Middle::Bytes(bytes)) => {
            format!("{}, of which {} lie in the script's window", size(sending.len()), size(bytes.len() as u64))
        }
        (_, Middle::None) => size(sending.len()),
    };
    let then = match (sending.taken.bytes, sending.taken.then) {
        (None, Then::Poll) => "the driver takes all of it".into(),
        (_, Then::Broken(_)) => "the connection is beyond use".into(),
        (bytes, then) => {
            let n = size(bytes.unwrap_or(sending.len()));
            let blocked = if then == Then::Blocked { ", and is full" } else { "" };
            format!("the socket takes {n}{blocked}")
        }
    };
    format!("The core names what to send: {what}; {then}.")
}

fn of_spawn(told: &Told, answer: Option<Result<(), SpawnError>>) -> String {
    let input = match told.input {
        ScriptInput::Empty => "no input",
        ScriptInput::Piped => "the body through a pipe",
        ScriptInput::Spooled => "the body from the temporary file",
    };
    let answer = match answer {
        None => "the answer comes later".into(),
        Some(Ok(())) => "it runs".into(),
        Some(Err(error)) => format!("it does not run: {}", spawn_error(error)),
    };
    format!("The core has the script run, with {} variables and {input}; {answer}.", told.environment.len())
}

fn of_input(input: &Input) -> &'static str {
    match input {
        Input::Eof => "The peer has half-closed: it will send nothing more, but may still read.",
        Input::Sent(_) => "Bytes of a batch went out.",
        Input::Fed(_) => "The script took some of the body.",
        Input::Probed => "The socket was looked at once more.",
        Input::Blocked => "The socket takes no more for now: the write clock runs.",
        Input::FeedBlocked => "The script takes no more for now: so the peer is not read from either.",
        Input::Writable => "The socket takes bytes again.",
        Input::Feedable => "The script takes bytes again.",
        Input::FeedEnd => "The script takes no more at all: it has closed its input, or is gone.",
        Input::SpoolFull => "There is no room for the body: those that are kept already take all that they may.",
        Input::ScriptEof => "The script's output is complete.",
        Input::ScriptFailed(_) => "The script was not run after all, so it has said nothing.",
        Input::Done(..) => {
            "The late answer to an action. Its ticket says which one; a ticket that is not the latest is ignored."
        }
        Input::Wake => "Something that the handler waited for has happened.",
        Input::Broken(Fault::Peer) => "The peer has reset the connection or went away.",
        Input::Broken(Fault::FileShrank) => {
            "The file became shorter than was announced. Nothing is padded: the client shall see that the answer is incomplete."
        }
        Input::Broken(Fault::FileChanged) => "The file was rewritten while it was sent.",
        Input::Broken(Fault::File) => "The system failed to read the file.",
        Input::Broken(Fault::Handler) => "The handler failed.",
        Input::Scarce => "The server has no memory left for this connection to grow.",
        Input::Leave => "The server is about to leave, and goes on: only its health check says so.",
        Input::Drain => "The server goes down: the exchange in hand may be finished.",
        Input::Cut => "The time for going down has passed: everything is cut.",
    }
}

fn of_call(call: Call) -> &'static str {
    match call {
        Call::Request => "A request is there for the handler. The core never calls it: the driver does.",
        Call::Body => "The handler waits for the body, and there is more of it, or its end.",
        Call::Room => "The handler had more to say than there was room for, and now there is room.",
        Call::Wake => "The handler has asked to be called.",
        Call::Drain => {
            "The server goes down: the handler is told, once, so that what waits or has no end comes to one."
        }
        Call::Over => "The exchange is over, however it ended: the handler is told.",
    }
}

fn of_wait(wait: &Wait, now: u64, state: Option<&State>) -> String {
    let mut text = format!("Nothing is due. The core waits for {}", needs(wait));
    if let Some(deadline) = wait.deadline {
        text.push_str(&format!(", at most {}", millis(deadline.0.saturating_sub(now))));
        let nearest = state.and_then(|state| state.timers.iter().min_by_key(|timer| timer.deadline));
        if let Some(timer) = nearest {
            text.push_str(&format!(" ({})", timer.rule));
        }
    }
    text.push_str(if wait.idle { ". Its buffers may serve others meanwhile." } else { "." });
    text
}

/// What a rule of the timers is for.
pub(crate) fn rule(name: &str) -> &'static str {
    match name {
        "keep-alive" => "so long a connection may be silent between requests",
        "head" => "so long a head may take from its first byte, and single bytes do not stretch it",
        "body-silence" => "so long a body may be silent",
        "body-rate" => "a body must reach its least rate",
        "write-silence" => "so long the peer may take nothing",
        "write-rate" => "the peer must take at the least rate",
        "linger-silence" => "so long a closing connection may be silent",
        "linger" => "so long a closing connection is read at all",
        "script" => "so long a script may run",
        "script-drain" => "so long a script may go on of whose output nothing more is sent",
        "script-silence" => "so long a script may be silent for a peer that may be gone",
        _ => "a bound of the configuration",
    }
}

fn of_close(close: Close) -> &'static str {
    match close {
        Close::Done => "all is done",
        Close::Idle => "no request came in time",
        Close::Timeout => "it took too long",
        Close::Broken => "it is beyond use",
        Close::Drained => "the server goes down",
        Close::Upgraded => "it speaks another protocol from here on",
    }
}

fn short(input: &Input) -> String {
    match input {
        Input::Eof => "end of input".into(),
        Input::Sent(n) => format!("sent {}", size(*n)),
        Input::Fed(n) => format!("took {}", size(*n)),
        Input::Probed => "probed".into(),
        Input::Blocked => "blocked".into(),
        Input::FeedBlocked => "takes no more for now".into(),
        Input::Writable => "writable".into(),
        Input::Feedable => "takes more".into(),
        Input::FeedEnd => "takes no more".into(),
        Input::SpoolFull => "no room".into(),
        Input::ScriptEof => "end of output".into(),
        Input::ScriptFailed(error) => format!("not run: {}", spawn_error(*error)),
        Input::Done(ticket, _) => format!("answer to action {}", ticket.number()),
        Input::Wake => "wake".into(),
        Input::Broken(Fault::Peer) => "reset".into(),
        Input::Broken(Fault::Handler) => "the handler failed".into(),
        Input::Broken(Fault::FileShrank) => "file is shorter".into(),
        Input::Broken(Fault::FileChanged) => "file has changed".into(),
        Input::Broken(Fault::File) => "file cannot be read".into(),
        Input::Scarce => "no memory".into(),
        Input::Leave => "leave".into(),
        Input::Drain => "go down".into(),
        Input::Cut => "cut".into(),
    }
}

fn sent(sending: &Sending) -> String {
    if let Some(status) = sending.elided.filter(|_| sending.is_empty()) {
        return format!("{status} ..");
    }
    let begin = if sending.head.is_empty() { String::new() } else { first_line(&sending.head) };
    let body = match &sending.body {
        Middle::File { offset: 0, len } => format!("file, {}", size(*len)),
        Middle::File { offset, len } => format!("file from {offset}, {}", size(*len)),
        Middle::Bytes(bytes) => format!("body, {}", size(bytes.len() as u64)),
        Middle::None => String::new(),
    };
    match (begin.is_empty(), body.is_empty()) {
        _ if sending.tail == b"\r\n" => format!("chunk, {}", body.trim_start_matches("body, ")),
        _ if sending.head == b"0\r\n\r\n" => "the last chunk".into(),
        (_, true) => begin,
        (true, false) => body,
        (false, false) => format!("{begin} + {body}"),
    }
}

fn taken(sending: &Sending) -> Option<String> {
    let n = size(sending.taken.bytes.unwrap_or(sending.len()));
    match (sending.taken.bytes, sending.taken.then) {
        (None, Then::Poll) => None,
        (_, Then::Poll) => Some(format!("took {n}")),
        (_, Then::Blocked) => Some(format!("took {n}, blocked")),
        (_, Then::Broken(_)) => Some(format!("took {n}, broken")),
    }
}

fn needs(wait: &Wait) -> String {
    let need = wait.need;
    let words = [
        (need.read, "bytes of the peer"),
        (need.write, "room in the socket"),
        (need.script_read, "the script's output"),
        (need.script_write, "room in the script's input"),
        (need.completion, "the answer of the disk"),
        (need.handler, "the handler"),
    ];
    let words: Vec<&str> = words.iter().filter(|(is_needed, _)| *is_needed).map(|(_, word)| *word).collect();
    match words.split_last() {
        None => "nothing but the time".into(),
        Some((last, [])) => (*last).into(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn fs_error(error: FsError) -> &'static str {
    match error {
        FsError::NotFound => "not found",
        FsError::Denied => "denied",
        FsError::Exhausted => "exhausted",
        FsError::Failed => "failed",
    }
}

fn spawn_error(error: SpawnError) -> &'static str {
    match error {
        SpawnError::Busy => "too many run",
        SpawnError::Exhausted => "exhausted",
        SpawnError::Denied => "denied",
        SpawnError::Failed => "failed",
    }
}

fn script_file(what: ScriptFile) -> &'static str {
    match what {
        ScriptFile::Runnable => "a script that can be run",
        ScriptFile::Missing => "nothing is there",
        ScriptFile::NotPlain => "no plain file",
        ScriptFile::NotExecutable => "not executable",
    }
}

/// How much has come, and of how many requests.
fn piece(bytes: &[u8]) -> String {
    match requests(bytes).len() {
        0 | 1 => size(bytes.len() as u64),
        n => format!("{} with {n} requests, or parts of them,", size(bytes.len() as u64)),
    }
}

/// The bytes of the peer, cut where another request begins: behind a head, and the body whose length it says. What
/// looks like one in a chunked body is taken for one, since who sends that may want just that.
fn requests(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(end) = bytes[at..].windows(4).position(|four| four == b"\r\n\r\n").map(|found| at + found + 4) {
        let behind = end.saturating_add(content_length(&bytes[at..end])).min(bytes.len());
        if is_request_line(&bytes[behind..]) {
            pieces.push(&bytes[start..behind]);
            start = behind;
        }
        at = behind;
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// What a head says about its body; 0 if that is nothing.
fn content_length(head: &[u8]) -> usize {
    let value = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| String::from_utf8_lossy(value).trim().parse().ok())?
    });
    value.unwrap_or(0)
}

/// Whether a request begins here, as far as that can be seen.
fn is_request_line(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|&byte| byte == b'\r');
    let words: Vec<&[u8]> = bytes[..end.unwrap_or(bytes.len())].split(|&byte| byte == b' ').collect();
    let is_method = !words[0].is_empty() && words[0].iter().all(u8::is_ascii_uppercase);
    is_method && words.len() <= 3 && (end.is_none() || words.get(2).is_some_and(|word| word.starts_with(b"HTTP/")))
}

/// A number of bytes.
fn size(n: u64) -> String {
    match n {
        1 => "1 byte".into(),
        0..10_000 => format!("{n} bytes"),
        _ => {
            let digits = n.to_string();
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
            format!("{} bytes", groups.join(","))
        }
    }
}

/// A span of time.
pub(crate) fn millis(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} ms"),
        _ if n.is_multiple_of(1_000) => format!("{} s", n / 1_000),
        _ => format!("{}.{:03} s", n / 1_000, n % 1_000),
    }
}

/// The first line of bytes, fit to be shown.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    shown(if line.is_empty() { bytes } else { line })
}

/// Bytes as text, cut where they are long.
fn shown(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(LABEL)].escape_ascii();
    if bytes.len() > LABEL { format!("{text}…") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(
            [0, 1, 9_999, 10_000, 1_048_576].map(size),
            ["0 bytes", "1 byte", "9999 bytes", "10,000 bytes", "1,048,576 bytes"]
        );
        assert_eq!([0, 999, 1_000, 15_000, 1_001].map(millis), ["0 ms", "999 ms", "1 s", "15 s", "1.001 s"]);
    }

    #[test]
    fn requests_of_one_piece_are_told_apart() {
        let lines = |text: &str| requests(text.as_bytes()).into_iter().map(first_line).collect::<Vec<_>>();
        let (get, post) = ("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "POST /b HTTP/1.1\r\ncontent-LENGTH: 31\r\n\r\n");
        assert_eq!(lines(get), ["GET /a HTTP/1.1"]);
        assert_eq!(lines(&format!("{get}{get}GE")), ["GET /a HTTP/1.1", "GET /a HTTP/1.1", "GE"]);
        assert_eq!(lines(&format!("st: x\r\n\r\n{get}")), ["st: x", "GET /a HTTP/1.1"], "the end of one before");
        let body = "\r\n\r\nGET /x HTTP/1.1\r\nHost: y\r\n";
        assert_eq!(body.len(), 31 - 2 + 1);
        assert_eq!(
            lines(&format!("{post}{body}.{get}")),
            ["POST /b HTTP/1.1", "GET /a HTTP/1.1"],
            "a body is no request"
        );
        assert_eq!(lines(&format!("{post}{}", &body[..9])), ["POST /b HTTP/1.1"]);
        assert_eq!(lines("plain text\r\n\r\nmore text"), ["plain text"]);
        assert_eq!(lines(""), [""]);
        let event = Event { at: 0, joined: false, what: What::Recv(get.repeat(9).into_bytes()) };
        let labels: Vec<_> = arrows(&event, false).into_iter().map(|arrow| arrow.label).collect();
        assert_eq!(labels, ["GET /a HTTP/1.1", "GET /a HTTP/1.1", "GET /a HTTP/1.1", "and 6 more requests"]);
    }

    #[test]
    fn labels_are_one_line_without_control_characters() {
        assert_eq!(first_line(b"GET / HTTP/1.1\r\nHost: a\r\n"), "GET / HTTP/1.1");
        assert_eq!(first_line(b"\r\n"), "\\r\\n");
        assert_eq!(first_line(b"\x1b[2J\xff"), "\\x1b[2J\\xff");
        assert_eq!(first_line(&[b'a'; 100]), format!("{}…", "a".repeat(LABEL)));
    }
}

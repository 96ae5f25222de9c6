//! Describes events for people: the arrows in the sequence diagram, and a sentence or two for each.

use sanserve_core::{
    Call, Close, Completion, Fault, FsError, Input, Kind, Listed, ScriptFile, ScriptInput, SpawnError, State, Wait,
};
use sanserve_transcript::{Event, FeedThen, Middle, ProbeThen, Sending, Then, Told, What};

/// A lifeline of the diagram. The core is at the left, next to the driver; everything outside is at the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifeline {
    Core,
    Driver,
    Peer,
    Disk,
    Script,
}

impl Lifeline {
    /// All lifelines in the order of the diagram, each with its name and a short description.
    pub(crate) const ALL: [(Lifeline, &'static str, &'static str); 5] = [
        (Lifeline::Core, "core", "decides"),
        (Lifeline::Driver, "driver", "waits and acts"),
        (Lifeline::Peer, "peer", "the socket"),
        (Lifeline::Disk, "disk", "files"),
        (Lifeline::Script, "script", "a process"),
    ];
}

/// One arrow: to the right for what the core asks for, to the left for what it receives.
pub(crate) struct Arrow {
    pub(crate) from: Lifeline,
    pub(crate) to: Lifeline,
    pub(crate) label: String,
}

/// The most requests of one piece that have an arrow each.
const REQUESTS: usize = 3;

/// The most bytes of text in a label.
const LABEL: usize = 72;

/// The arrows of an event. `spools`: the request body goes to a temporary file.
pub(crate) fn arrows(event: &Event, spools: bool) -> Vec<Arrow> {
    use Lifeline::{Core, Disk, Driver, Peer, Script};
    let to = |to: Lifeline, label: String| Arrow { from: Core, to, label };
    let from = |from: Lifeline, label: String| Arrow { from, to: Core, label };
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
                Input::Handshake
                | Input::Secured(_)
                | Input::Unsecured
                | Input::Eof
                | Input::Probed
                | Input::Blocked
                | Input::Writable
                | Input::Sent(_)
                | Input::Broken(Fault::Peer) => Peer,
                Input::Broken(Fault::File | Fault::FileShrank | Fault::FileChanged) => Disk,
                Input::FilePending | Input::FileReady => Disk,
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
                let who = if sending.taken.then == Then::Pending { Disk } else { Peer };
                arrows.push(from(who, taken));
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
            request_and_result(Disk, format!("open {}{place}", shown(path)), answer)
        }
        What::List { entries, answer } => {
            let answer = answer.map(|answer| match answer {
                Ok(Listed::More) => format!("{} entries, and more", entries.len()),
                Ok(Listed::End) => format!("{} entries, the last", entries.len()),
                Err(error) => fs_error(error).into(),
            });
            request_and_result(Disk, "list".into(), answer)
        }
        What::Find { path, answer, .. } => {
            let answer = answer.map(|answer| match answer {
                Ok(found) => script_file(found.what).into(),
                Err(error) => fs_error(error).into(),
            });
            request_and_result(Disk, format!("find {}", shown(path)), answer)
        }
        What::Spool { answer } => request_and_result(
            Disk,
            "create a file for the body".into(),
            answer.map(|answer| answer.map_or_else(|error| fs_error(error).into(), |()| "ok".into())),
        ),
        What::Spawn { told, answer } => {
            let answer =
                answer.map(|answer| answer.map_or_else(|error| spawn_error(error).into(), |()| "running".into()));
            request_and_result(Script, format!("run {}", shown(&told.path)), answer)
        }
        What::Feed { bytes, taken, then } => {
            let who = if spools { Disk } else { Script };
            let mut arrows = vec![to(who, format!("body, {}", size(bytes.len() as u64)))];
            if taken.is_some() || *then != FeedThen::Poll {
                let n = taken.unwrap_or(bytes.len() as u64);
                let then = match then {
                    FeedThen::Poll => "",
                    FeedThen::Blocked => ", blocked",
                    FeedThen::End => ", accepts no more",
                    FeedThen::Full => ", no space",
                };
                arrows.push(from(who, format!("took {}{then}", size(n))));
            }
            arrows
        }
        What::Script(bytes) => vec![from(Script, first_line(bytes))],
        What::EndInput => vec![to(Script, "end of the body".into())],
        What::Kill => vec![to(Script, "terminate".into())],
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

fn request_and_result(to: Lifeline, label: String, answer: Option<String>) -> Vec<Arrow> {
    let mut arrows = vec![Arrow { from: Lifeline::Core, to, label }];
    arrows.extend(answer.map(|label| Arrow { from: to, to: Lifeline::Core, label }));
    arrows
}

/// Describes an event: what happens, and why. `state` is the state of the connection after it, if known.
pub(crate) fn sentence(event: &Event, state: Option<&State>, reads: bool, spools: bool) -> String {
    let mut text = match &event.what {
        What::Recv(bytes) if reads => {
            format!("{} arrive from the peer. The driver reads them into the input window of the connection.", piece(bytes))
        }
        What::Recv(bytes) => {
            format!("{} arrive from the peer. They stay in the socket: the core has not asked to read.", piece(bytes))
        }
        What::Tick => "Only time has passed. The driver polls, and the core checks its timers.".into(),
        What::Clock(wall) => format!(
            "The driver polls. The system clock was set, to second {}: dates depend on it, timeouts do not.",
            wall.0
        ),
        What::Input(input) => of_input(input).into(),
        What::Send(sending) => of_send(sending),
        What::Open { inside: true, path, answer } => {
            format!("The core asks for the index page {} in the open directory; {}.", shown(path), of_open(answer.as_ref().map(|answer| answer.as_ref().map(|opened| opened.kind))))
        }
        What::Open { path, answer, .. } => {
            let path = if path.is_empty() { "the root".into() } else { format!("{} beneath the root", shown(path)) };
            format!("The core asks for {path}; {}. It opens nothing itself.", of_open(answer.as_ref().map(|answer| answer.as_ref().map(|opened| opened.kind))))
        }
        What::List { entries, answer } => format!(
            "The core asks for some entries of the directory; {}.",
            match answer {
                None => "the result arrives later".into(),
                Some(Ok(Listed::More)) => format!("the driver pushes {}, and there may be more", entries.len()),
                Some(Ok(Listed::End)) => format!("the driver pushes {}, and that is all", entries.len()),
                Some(Err(error)) => format!("the result is: {}", fs_error(*error)),
            }
        ),
        What::Find { path, answer, .. } => format!(
            "The path {} is in a directory of scripts. The core asks which script it is; {}.",
            shown(path),
            match answer {
                None => "the result arrives later".into(),
                Some(Ok(found)) => format!("the result is: {}", script_file(found.what)),
                Some(Err(error)) => format!("the result is: {}", fs_error(*error)),
            }
        ),
        What::Spool { .. } => "The body is chunked, and a script must know its length before it starts: the body is stored in a temporary file.".into(),
        What::Spawn { told, answer } => of_spawn(told, *answer),
        What::Feed { bytes, then, .. } => format!(
            "The core offers {} of the body to {}{}.",
            size(bytes.len() as u64),
            if spools { "the temporary file" } else { "the script" },
            match then {
                FeedThen::Poll => "",
                FeedThen::Blocked => ", whose pipe is full for now: so the core stops reading from the peer too",
                FeedThen::End => ", which accepts no more input",
                FeedThen::Full => ", which would exceed the space for all temporary files",
            }
        ),
        What::EndInput => "The body is complete: the driver closes the script's input, so that it reads end of file.".into(),
        What::Log(_) => "The output of the script is malformed, and the server logs it.".into(),
        What::Kill => "No one needs the output of the script any more, or it timed out: it is terminated.".into(),
        What::Script(bytes) => format!("The script has written {}. They are read into the script window.", size(bytes.len() as u64)),
        What::Call(call) => of_call(*call).into(),
        What::Finished(finish) => {
            let cut = finish.cut.as_ref().map(|cut| format!(" The response was cut off: {cut}.")).unwrap_or_default();
            format!(
                "The exchange is finished: status {}, {} of body. The driver logs it and releases its resources.{cut}",
                finish.status,
                size(finish.sent)
            )
        }
        What::Probe { bytes, then } => format!(
            "Before a timer fires, or because the server is draining, the driver reads the socket once more without blocking: {}.",
            match then {
                ProbeThen::Later => "the result follows".into(),
                ProbeThen::Eof => "the peer has half-closed".into(),
                ProbeThen::Broken(_) => "the peer has reset the connection".into(),
                ProbeThen::Poll if bytes.is_empty() => "nothing has arrived".into(),
                ProbeThen::Poll => format!("{} have arrived", size(bytes.len() as u64)),
            }
        ),
        What::Wait(wait) => of_wait(wait, event.at, state),
        What::Shut { blocked: false } => "The last response is sent. The core half-closes and keeps reading, so that no reset destroys the response (RFC 9112 section 9.6).".into(),
        What::Shut { blocked: true } => "The core would half-close, but the driver still holds bytes that do not fit into the socket. The core will ask again.".into(),
        What::Close { blocked: true, .. } => "The core would close, but the driver still holds bytes that do not fit into the socket. The core will ask again.".into(),
        What::Close { close, .. } => format!("The connection closes: {}.", of_close(*close)),
    };
    if event.joined {
        text.push_str(" It arrives in the middle of a turn, or together with the input before it.");
    }
    text
}

fn of_open(answer: Option<Result<Kind, &FsError>>) -> String {
    match answer {
        None => "the result arrives later".into(),
        Some(Ok(Kind::File)) => "the driver opens it and reports a file".into(),
        Some(Ok(Kind::Directory)) => "the driver opens it and reports a directory".into(),
        Some(Err(error)) => format!("the result is: {}", fs_error(*error)),
    }
}

fn of_send(sending: &Sending) -> String {
    if let Some(status) = sending.elided.filter(|_| sending.is_empty()) {
        return format!("The core sends a response with status {status}. The transcript omits its bytes.");
    }
    let what = match (sending.head.is_empty(), &sending.body) {
        (false, Middle::File { len, .. }) => {
            format!(
                "{} that it has formatted, then {} of the open file, whose bytes it never sees",
                size(sending.head.len() as u64),
                size(*len)
            )
        }
        (true, Middle::File { len, .. }) => format!("the rest of the file, {}", size(*len)),
        (_, Middle::Bytes(bytes)) => {
            format!("{}, of which {} are in the script window", size(sending.len()), size(bytes.len() as u64))
        }
        (_, Middle::None) => size(sending.len()),
    };
    let then = match (sending.taken.bytes, sending.taken.then) {
        (None, Then::Poll) => "the driver accepts all of it".into(),
        (_, Then::Broken(_)) => "the connection is broken".into(),
        (bytes, then) => {
            let n = size(bytes.unwrap_or(sending.len()));
            match then {
                Then::Blocked => format!("the socket accepts {n}, and is then full"),
                Then::Pending => "the file is not in memory and is being read, without blocking anyone".into(),
                _ => format!("the socket accepts {n}"),
            }
        }
    };
    format!("The core asks to send {what}; {then}.")
}

fn of_spawn(told: &Told, answer: Option<Result<(), SpawnError>>) -> String {
    let input = match told.input {
        ScriptInput::Empty => "no input",
        ScriptInput::Piped => "the body through a pipe",
        ScriptInput::Spooled => "the body from the temporary file",
    };
    let answer = match answer {
        None => "the result arrives later".into(),
        Some(Ok(())) => "it is running".into(),
        Some(Err(error)) => format!("it does not start: {}", spawn_error(error)),
    };
    format!(
        "The core asks to start the script, with {} environment variables and {input}; {answer}.",
        told.environment.len()
    )
}

fn of_input(input: &Input) -> &'static str {
    match input {
        Input::Eof => "The peer half-closed: it sends nothing more, but may still read.",
        Input::Sent(_) => "Bytes of the batch were sent.",
        Input::Fed(_) => "The script accepted some of the body.",
        Input::Probed => "The socket was read once more.",
        Input::Blocked => "The socket is full: the write timeout starts.",
        Input::FeedBlocked => "The pipe to the script is full for now: so the core stops reading from the peer too.",
        Input::Writable => "The socket is writable again.",
        Input::FilePending => "The next part of the file is not in memory: it is being read.",
        Input::FileReady => "The next part of the file was read.",
        Input::Feedable => "The pipe to the script is writable again.",
        Input::FeedEnd => "The script accepts no more input: it closed its input, or has exited.",
        Input::SpoolFull => "There is no space for the body: the temporary files have reached their total limit.",
        Input::ScriptEof => "The script's output is complete.",
        Input::ScriptFailed(_) => "The script could not be started after all, so it has no output.",
        Input::Done(..) => {
            "The result of an earlier action. Its ticket says which one; a ticket that is not the latest is ignored."
        }
        Input::Wake => "The handler was woken by something that it waits for.",
        Input::Broken(Fault::Peer) => "The peer reset the connection or is gone.",
        Input::Broken(Fault::FileShrank) => {
            "The file became shorter than announced. It is not padded, so that the client can see that the response is incomplete."
        }
        Input::Broken(Fault::FileChanged) => "The file was modified while it was being sent.",
        Input::Broken(Fault::File) => "Reading the file failed.",
        Input::Broken(Fault::Handler) => "The handler failed.",
        Input::Scarce => "The server has no more memory for the buffers of this connection.",
        Input::Handshake => "The connection begins with a TLS handshake, which the driver carries out.",
        Input::Secured(_) => "The TLS handshake is complete. What is shown from here on was decrypted.",
        Input::Unsecured => {
            "The peer speaks plain HTTP where a TLS handshake was expected. It is redirected to HTTPS, or gets no answer."
        }
        Input::Leave => "A shutdown was requested, and the server keeps serving: only its health check reports it.",
        Input::Drain => "The server is shutting down: the exchange in progress may finish.",
        Input::Cut => "The time for the shutdown is over: all connections are cut.",
    }
}

fn of_call(call: Call) -> &'static str {
    match call {
        Call::Request => "There is a request for the handler. The core never calls it; the driver does.",
        Call::Body => "The handler waits for the body, and more of it, or its end, has arrived.",
        Call::Room => "The handler had more to write than fit into the output, and now there is room.",
        Call::Wake => "The handler has asked to be called again.",
        Call::Drain => {
            "The server is shutting down: the handler is called once, so that a waiting or endless response can end."
        }
        Call::Over => "The exchange is over, for whatever reason, and the handler is notified.",
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
    text.push_str(if wait.idle { ". Its buffers can serve other connections meanwhile." } else { "." });
    text
}

/// What a timer is for.
pub(crate) fn rule(name: &str) -> &'static str {
    match name {
        "keep-alive" => "how long a connection may be idle between requests",
        "head" => "how long a head may take from its first byte; more bytes do not extend it",
        "body-silence" => "how long a body may stall",
        "body-rate" => "the minimum rate of a body",
        "write-silence" => "how long the peer may read nothing",
        "write-rate" => "the minimum rate at which the peer must read",
        "linger-silence" => "how long a closing connection may be silent",
        "linger" => "how long a closing connection is read in total",
        "script" => "how long a script may run",
        "script-drain" => "how long a script may run after its output is no longer sent",
        "script-silence" => "how long a script may be silent if the peer may be gone",
        _ => "a limit of the configuration",
    }
}

fn of_close(close: Close) -> &'static str {
    match close {
        Close::Done => "everything is finished",
        Close::Idle => "no request came in time",
        Close::Timeout => "a timeout expired",
        Close::Broken => "it is broken",
        Close::Drained => "the server is shutting down",
        Close::Upgraded => "it switches to another protocol",
        _ => close.name(),
    }
}

fn short(input: &Input) -> String {
    match input {
        Input::Eof => "end of input".into(),
        Input::Sent(n) => format!("sent {}", size(*n)),
        Input::Fed(n) => format!("took {}", size(*n)),
        Input::Probed => "probed".into(),
        Input::Blocked => "blocked".into(),
        Input::FeedBlocked => "pipe full".into(),
        Input::Writable => "writable".into(),
        Input::FilePending => "file not in memory".into(),
        Input::FileReady => "file was read".into(),
        Input::Feedable => "pipe writable".into(),
        Input::FeedEnd => "accepts no more".into(),
        Input::SpoolFull => "no space".into(),
        Input::ScriptEof => "end of output".into(),
        Input::ScriptFailed(error) => format!("not started: {}", spawn_error(*error)),
        Input::Done(ticket, _) => format!("result of action {}", ticket.number()),
        Input::Wake => "wake".into(),
        Input::Broken(Fault::Peer) => "reset".into(),
        Input::Broken(Fault::Handler) => "the handler failed".into(),
        Input::Broken(Fault::FileShrank) => "file became shorter".into(),
        Input::Broken(Fault::FileChanged) => "file changed".into(),
        Input::Broken(Fault::File) => "file read error".into(),
        Input::Scarce => "no memory".into(),
        Input::Handshake => "TLS handshake".into(),
        Input::Secured(secured) => secured.version.to_string(),
        Input::Unsecured => "plain HTTP".into(),
        Input::Leave => "leave".into(),
        Input::Drain => "drain".into(),
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
        (_, Then::Pending) => Some("file not in memory".into()),
        (_, Then::Broken(_)) => Some(format!("took {n}, broken")),
    }
}

fn needs(wait: &Wait) -> String {
    let need = wait.need;
    let words = [
        (need.read, "bytes from the peer"),
        (need.write, "room in the socket"),
        (need.script_read, "the script's output"),
        (need.script_write, "room in the script's input"),
        (need.completion, "the disk"),
        (need.handler, "the handler"),
    ];
    let words: Vec<&str> = words.iter().filter(|(is_needed, _)| *is_needed).map(|(_, word)| *word).collect();
    match words.split_last() {
        None => "only the deadline".into(),
        Some((last, [])) => (*last).into(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn fs_error(error: FsError) -> &'static str {
    match error {
        FsError::NotFound => "not found",
        FsError::Denied => "denied",
        FsError::Exhausted => "exhausted",
        _ => "failed",
    }
}

fn spawn_error(error: SpawnError) -> &'static str {
    match error {
        SpawnError::Busy => "too many scripts are running",
        SpawnError::Exhausted => "exhausted",
        SpawnError::Denied => "denied",
        _ => "failed",
    }
}

fn script_file(what: ScriptFile) -> &'static str {
    match what {
        ScriptFile::Runnable => "an executable script",
        ScriptFile::Missing => "not found",
        ScriptFile::NotPlain => "not a regular file",
        ScriptFile::NotExecutable => "not executable",
    }
}

/// The size of a piece of input, and its number of requests.
fn piece(bytes: &[u8]) -> String {
    match requests(bytes).len() {
        0 | 1 => size(bytes.len() as u64),
        n => format!("{} with {n} requests, or parts of them,", size(bytes.len() as u64)),
    }
}

/// Splits the bytes of the peer where another request begins: after a head and the body whose length it gives. What
/// looks like a request inside a chunked body counts as one, since it may be an attempt at request smuggling.
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

/// The length of the body that a head gives; 0 if it gives none.
fn content_length(head: &[u8]) -> usize {
    let value = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| String::from_utf8_lossy(value).trim().parse().ok())?
    });
    value.unwrap_or(0)
}

/// Whether a request seems to begin here.
fn is_request_line(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|&byte| byte == b'\r');
    let words: Vec<&[u8]> = bytes[..end.unwrap_or(bytes.len())].split(|&byte| byte == b' ').collect();
    let is_method = !words[0].is_empty() && words[0].iter().all(u8::is_ascii_uppercase);
    is_method && words.len() <= 3 && (end.is_none() || words.get(2).is_some_and(|word| word.starts_with(b"HTTP/")))
}

/// Formats a number of bytes.
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

/// Formats a span of time, in milliseconds.
pub(crate) fn millis(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} ms"),
        _ if n % 1_000 == 0 => format!("{} s", n / 1_000),
        _ => format!("{}.{:03} s", n / 1_000, n % 1_000),
    }
}

/// The first line, escaped and truncated.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    shown(if line.is_empty() { bytes } else { line })
}

/// Bytes as escaped text, truncated if they are long.
fn shown(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(LABEL)].escape_ascii();
    if bytes.len() > LABEL { format!("{text}…") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted() {
        assert_eq!(
            [0, 1, 9_999, 10_000, 1_048_576].map(size),
            ["0 bytes", "1 byte", "9999 bytes", "10,000 bytes", "1,048,576 bytes"]
        );
        assert_eq!([0, 999, 1_000, 15_000, 1_001].map(millis), ["0 ms", "999 ms", "1 s", "15 s", "1.001 s"]);
    }

    #[test]
    fn requests_of_one_piece_are_separated() {
        let lines = |text: &str| requests(text.as_bytes()).into_iter().map(first_line).collect::<Vec<_>>();
        let (get, post) = ("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "POST /b HTTP/1.1\r\ncontent-LENGTH: 31\r\n\r\n");
        assert_eq!(lines(get), ["GET /a HTTP/1.1"]);
        assert_eq!(lines(&format!("{get}{get}GE")), ["GET /a HTTP/1.1", "GET /a HTTP/1.1", "GE"]);
        assert_eq!(
            lines(&format!("st: x\r\n\r\n{get}")),
            ["st: x", "GET /a HTTP/1.1"],
            "the end of an earlier request"
        );
        let body = "\r\n\r\nGET /x HTTP/1.1\r\nHost: y\r\n";
        assert_eq!(body.len(), 31 - 2 + 1);
        assert_eq!(
            lines(&format!("{post}{body}.{get}")),
            ["POST /b HTTP/1.1", "GET /a HTTP/1.1"],
            "a body is not a request"
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

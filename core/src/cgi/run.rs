//! How the response of a script is produced: from the path to the process, from the body to its input, from its output
//! to the response. The states are defined in the parent module.

use crate::buffers::{Buffers, Scratch};
use crate::config::{Chunked, Config, Limits};
use crate::context::Context;
use crate::error::{Violation, fill};
use crate::exchange::{Answer, Cut, Page, Passthrough, Phrase, Progress, ResponseBuilder};
use crate::grammar::is_one_of;
use crate::input::ScriptFile;
use crate::media_type;
use crate::path::{Forbidden, names_dotfile};
use crate::reason::Rule;
use crate::request::Request;
use crate::response_head::Own;
use crate::script_path;
use crate::status::StatusCode;
use crate::step::{Action, Close, Script, ScriptInput};
use crate::wire::{Decoder, Encoder, HeadOut, Inbound, LAST_CHUNK, Method, Outbound, Span, Target, begin_chunk};

use super::environment::{self, Facts};
use super::output::{self, End, Printed, Remarks, ScriptHead, Unfolded};
use super::refusal::Refusal;
use super::{Cgi, Feed, Kill, PendingAction, ScriptAt, Stage, State, Taker, index};

/// The number of interim responses before the final one. A script that prints more is refused.
const MAX_INTERIM: u8 = 16;

/// Where the script begins in the path of the target, if the path is that of a script. The path is then in
/// `Scratch::path`.
pub(crate) fn find(response: &mut ResponseBuilder<'_>) -> Result<Option<ScriptAt>, Forbidden> {
    let directories = &response.cx.config.cgi.directories;
    // `*` and `host:port` are not paths.
    if directories.is_empty() || matches!(response.buf.head.target, Target::Asterisk | Target::Authority) {
        response.buf.scratch.path.clear();
        return Ok(None);
    }
    let policy = response.cx.policy;
    let (request, Scratch { path, .. }, _) = response.split();
    path.clear();
    path.push(b'/');
    let collapsed = script_path::collapse(request.path(), path);
    let directory = policy.is_cgi(path, directories).filter(|&at| path.get(at) == Some(&b'/'));
    // From here on, it is a path below the root.
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    path.drain(..slashes);
    collapsed.map(|()| directory.map(|at| (at + 1).saturating_sub(slashes)))
}

impl Cgi {
    /// The action for the driver.
    pub(crate) fn action<'a>(&self, pending: PendingAction, buf: &'a Buffers, cx: &Context<'_>) -> Action<'a> {
        let (at, variables) = (self.at as usize, self.environment as usize);
        match pending {
            PendingAction::Find => Action::Find { path: &buf.scratch.path, from: at },
            PendingAction::Spool => Action::Spool,
            PendingAction::Spawn(input) => {
                let (path, info) = buf.scratch.path.split_at(at);
                let (arguments, environment) = buf.scratch.variables.split_at(variables);
                let timeouts = &cx.config.timeouts;
                Action::Spawn(Script {
                    path,
                    input,
                    time: timeouts.script(),
                    grace: timeouts.script_grace(),
                    drain: cx.config.limits.drain,
                    translated: info.strip_prefix(b"/"),
                    arguments,
                    environment,
                })
            }
            PendingAction::EndInput => Action::EndInput,
            PendingAction::Kill => Action::Kill,
        }
    }

    /// Accounts for what the script has read, and whether there was any activity. `moved`: some of its output was sent.
    pub(crate) fn absorb(&mut self, moved: bool, response: &mut ResponseBuilder<'_>) {
        let taken = std::mem::take(&mut self.feed.taken);
        self.feed.offered -= taken;
        self.feed.total += u64::from(taken);
        let arrived = response.buf.script.arrived();
        if taken > 0 || moved || arrived != self.arrived || response.eof != self.half_closed {
            self.heard = response.cx.now.tick;
            self.arrived = arrived;
            self.half_closed = response.eof;
        }
        if taken > 0 {
            response.took(taken as usize);
        }
    }

    /// Terminates a script whose time is over, or whose client seems to be gone.
    pub(crate) fn expire(&mut self, may_be_gone: bool, response: &mut ResponseBuilder<'_>) -> Progress {
        let now = response.cx.now.tick;
        if self.deadline(may_be_gone, response.cx).is_none_or(|deadline| deadline > now) {
            return Progress::Stalled;
        }
        if response.cycle.outbound == Outbound::Body(Encoder::None) {
            // The response is complete, and the rest of the output is not needed.
            self.abandon();
            self.end(response);
        } else if self.ends > now {
            return Progress::Cut(Cut::Gone, Close::Broken);
        } else if response.cycle.outbound == Outbound::Owed {
            self.fail(Refusal::Slow, response);
        } else {
            return Progress::Cut(Cut::ScriptSlow, Close::Timeout);
        }
        Progress::Moved
    }

    /// Advances finding, feeding and relaying.
    pub(crate) fn advance(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        if !response.cycle.is_answering() {
            return Progress::Stalled;
        }
        match self.state {
            State::Due(_) | State::Under(_) | State::Over => return Progress::Stalled,
            State::Found(found) => self.found(found, response),
            State::Gathering => return self.gather(response),
            State::Spooling if self.feed.stage == Stage::Closed => {
                self.feed.stage = Stage::Open;
                response.send_continue();
            }
            State::Spooling => return self.feed(response),
            State::Spooled => {
                let length = self.feed.total;
                self.request_spawn(ScriptInput::Spooled, Some(length), response);
            }
            State::Spawned => self.spawned(response),
            State::Refused(refusal) => {
                if !response.settle_body() {
                    return Progress::Stalled;
                }
                self.refuse(refusal, response);
            }
            State::Head | State::Body => {
                let fed = self.feed(response);
                if let Progress::Violation(_) = fed {
                    return fed;
                }
                let relayed = self.relay(response);
                return if relayed == Progress::Stalled { fed } else { relayed };
            }
        }
        Progress::Moved
    }

    fn found(&mut self, what: ScriptFile, response: &mut ResponseBuilder<'_>) {
        self.at = self.at.min(index(response.buf.scratch.path.len()));
        let name = &response.buf.scratch.path[..self.at as usize];
        let is_hidden = response.cx.config.hide_dotfiles && names_dotfile(name);
        let refusal = match what {
            _ if is_hidden => Some(Refusal::Missing),
            ScriptFile::Missing => Some(Refusal::Missing),
            ScriptFile::NotPlain => Some(Refusal::NotPlain),
            ScriptFile::NotExecutable => Some(Refusal::NotExecutable),
            ScriptFile::Runnable => None,
        };
        if let Some(refusal) = refusal {
            self.state = State::Refused(refusal);
            return;
        }
        response.buf.reasons.note(Rule::ScriptFound, name);
        let plan = Plan::of(response.cycle.inbound, response.cx.config);
        if let Some(rule) = plan.rule() {
            response.buf.reasons.note(rule, b"");
        }
        match plan {
            Plan::Nothing => self.request_spawn(ScriptInput::Empty, None, response),
            Plan::Pipe(length) => self.request_spawn(ScriptInput::Piped, Some(length), response),
            Plan::Gather => {
                self.state = State::Gathering;
                self.feed.stage = Stage::Open;
                response.send_continue();
            }
            Plan::Spool => self.state = State::Due(PendingAction::Spool),
            Plan::Refuse => {
                self.state = State::Over;
                response.refuse(Violation::LengthRequired, Span::default());
            }
        }
    }

    /// Waits for a small body, or for the beginning of a large one. Otherwise, a script that waits for a slow client
    /// would occupy one of the permitted scripts.
    fn gather(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        let available = match response.available() {
            Ok(available) => available as u64,
            Err(violation) => return Progress::Violation(violation),
        };
        let limits = &response.cx.config.limits;
        let small = limits.script_body.min(limits.head) as u64;
        match response.cycle.inbound {
            Inbound::Body(Decoder::Length(length)) if available >= if length <= small { length } else { 1 } => {
                self.request_spawn(ScriptInput::Piped, Some(length), response);
            }
            Inbound::Body(_) if response.eof => return Progress::Violation(Violation::IncompleteBody),
            Inbound::Body(_) => return Progress::Stalled,
            // The body was invalid, which has been answered.
            _ => self.state = State::Over,
        }
        Progress::Moved
    }

    /// Writes the arguments and the environment, and requests the spawn.
    fn request_spawn(&mut self, input: ScriptInput, length: Option<u64>, response: &mut ResponseBuilder<'_>) {
        let cx = response.cx;
        let (request, Scratch { variables, path, .. }, _) = response.split();
        variables.clear();
        if matches!(request.head.method, Method::Get | Method::Head) {
            environment::write_arguments(request.query().unwrap_or_default(), variables);
        }
        self.environment = index(variables.len());
        // The name of the script is resolved. The rest of the path keeps its empty segments.
        path.truncate(self.at as usize);
        let components = path.split(|&byte| byte == b'/').count();
        script_path::append_info(request.path(), components, path);
        let (script, info) = path.split_at(self.at as usize);
        // For an empty body, the length is taken from the request, if it has one.
        let facts = Facts { script, info, length: length.or(request.content_length()) };
        environment::write(&request, &facts, cx.policy, cx.config, variables);
        response.buf.script.clear();
        self.arrived = response.buf.script.arrived();
        self.feed = Feed::default();
        self.state = State::Due(PendingAction::Spawn(input));
    }

    /// The script runs: its time begins, and its input is open if there is a body.
    fn spawned(&mut self, response: &mut ResponseBuilder<'_>) {
        self.state = State::Head;
        self.ends = response.cx.now.tick.after(response.cx.config.timeouts.script.max(1));
        self.heard = response.cx.now.tick;
        if matches!(response.cycle.inbound, Inbound::Body(_)) {
            self.feed.stage = Stage::Open;
            response.send_continue();
        }
    }

    /// Offers the available part of the body to the script.
    fn feed(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        let feed = &mut self.feed;
        if feed.stage != Stage::Open {
            return Progress::Stalled;
        }
        let refusal = match feed.taker {
            Taker::Ready | Taker::Blocked => None,
            Taker::Closed => Some(Refusal::Unspoolable),
            Taker::Full => Some(Refusal::SpoolFull),
        };
        if let Some(refusal) = refusal {
            feed.stage = Stage::Closed;
            feed.offered = 0;
            if self.state == State::Spooling {
                self.fail(refusal, response);
            }
            return Progress::Moved;
        }
        if feed.offered > 0 {
            return Progress::Stalled;
        }
        let available = match response.available() {
            Ok(available) => available,
            Err(violation) => return Progress::Violation(violation),
        };
        match response.cycle.inbound {
            _ if available > 0 => feed.offered = index(available),
            Inbound::Done if self.state == State::Spooling => {
                feed.stage = Stage::Closed;
                self.state = State::Spooled;
            }
            Inbound::Done => feed.stage = Stage::End,
            Inbound::Body(_) if response.eof => return Progress::Violation(Violation::IncompleteBody),
            // The body was invalid, which has been answered.
            Inbound::Closed => feed.stage = Stage::Closed,
            _ => return Progress::Stalled,
        }
        Progress::Moved
    }

    /// Advances the response of the script.
    fn relay(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        match (self.state, response.cycle.outbound) {
            _ if response.has_unsent() => Progress::Stalled,
            (State::Head, _) => self.read_head(response),
            (State::Body, Outbound::Body(encoder)) => self.relay_body(encoder, response),
            _ => Progress::Stalled,
        }
    }

    fn read_head(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        let limit = response.cx.config.limits.script_head;
        let Buffers { script, scratch: Scratch { path, remarks, .. }, .. } = &mut *response.buf;
        let unread = script.unread();
        let (len, end) = match output::find_end(&unread[..unread.len().min(limit)], &mut self.scanned) {
            Some(len) => (len, End::Empty),
            None if unread.len() >= limit => (limit, End::Limit),
            None if self.feed.eof => match self.failed {
                // What it may have printed is not a response.
                Some(error) => {
                    self.set_refused(error.into(), response);
                    return Progress::Moved;
                }
                None => (unread.len(), End::Eof),
            },
            None => return Progress::Stalled,
        };
        let (printed, eof) = (&unread[..len], self.feed.eof);
        let name = &path[..self.at as usize];
        let raw = has_own_head(name);
        if !response.exchange.has_remarks {
            remarks.clear();
        }
        let unfolded = Unfolded::new(printed);
        let mut remarks = Remarks::new(name, remarks);
        let printed = match output::interpret(printed, end, raw, &unfolded, &mut remarks) {
            // An empty head is followed by content, if there is any.
            Printed::Content(len) if len == unread.len() && !eof => return Progress::Stalled,
            Printed::Content(len) if len == unread.len() => Printed::Incomplete,
            Printed::Content(len) => {
                let first =
                    if len > 0 { unread.get(len) } else { printed.iter().find(|byte| !byte.is_ascii_whitespace()) };
                let is_markup = first == Some(&b'<');
                remarks.say(format_args!("it printed no head; its output is sent as {}", bare_type(is_markup)), None);
                drop(remarks);
                script.consume(len);
                note_remarks(response);
                self.answer_bare(is_markup, response);
                return Progress::Moved;
            }
            printed => printed,
        };
        drop(remarks);
        note_remarks(response);
        match printed {
            Printed::Head(head, len) => {
                response.buf.script.consume(len);
                return self.answer(&head, raw, response);
            }
            Printed::Interim(len) => self.pass_over_interim(len, response),
            Printed::Incomplete => self.fail(Refusal::Incomplete, response),
            Printed::Invalid | Printed::Content(_) => self.fail(Refusal::Invalid, response),
        }
        Progress::Moved
    }

    /// Drops the head of an interim response: the server sends its own.
    fn pass_over_interim(&mut self, len: usize, response: &mut ResponseBuilder<'_>) {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return self.fail(Refusal::Invalid, response);
        }
        response.buf.script.consume(len);
        self.scanned = 0;
    }

    /// Responds with the head that the script has printed.
    fn answer(&mut self, head: &ScriptHead<'_>, raw: bool, response: &mut ResponseBuilder<'_>) -> Progress {
        if let (Some(location), false) = (head.local_redirect(), raw) {
            return self.redirect_locally(location, response);
        }
        if head.is_chunked {
            // The script decides about the length of its response.
            let limits = Limits { body: u64::MAX, ..response.cx.config.limits.clone() };
            self.decoder = Some(Decoder::chunked(&limits));
        }
        self.state = State::Body;
        write_head(head, raw, response);
        self.note_unsent(response);
        Progress::Moved
    }

    /// Responds with output that has no head.
    fn answer_bare(&mut self, is_markup: bool, response: &mut ResponseBuilder<'_>) {
        self.state = State::Body;
        let encoder = response.framing(None);
        let charset = response.cx.policy.charset().filter(|_| !is_markup);
        response.head(StatusCode::OK, Phrase::Usual, |out, _| {
            out.field_with("Content-Type: ", |out| {
                media_type::write(bare_type(is_markup), charset, out);
            });
            out.framing(encoder);
        });
        response.body(encoder);
        self.note_unsent(response);
    }

    /// Limits the time of a script after its response to HEAD. HEAD is safe, so nothing is lost if the script is
    /// terminated. One that responds to GET or POST with 204 may still have work to do, and keeps its time.
    fn note_unsent(&mut self, response: &ResponseBuilder<'_>) {
        if response.exchange.is_head && response.cycle.outbound == Outbound::Body(Encoder::None) {
            self.unsent_since = Some(response.cx.now.tick);
        }
    }

    /// Names the output that has arrived as the next bytes to send.
    fn relay_body(&mut self, encoder: Encoder, response: &mut ResponseBuilder<'_>) -> Progress {
        let script = &mut response.buf.script;
        let (mut eof, mut available) = (self.feed.eof, script.unread().len());
        if let Some(decoder) = &mut self.decoder {
            // The chunks of the script are decoded, and framed again if necessary.
            let Ok(piece) = decoder.decode(script.unread(), &response.cx.config.limits) else {
                return Progress::Cut(Cut::ScriptChunks, Close::Broken);
            };
            script.consume(piece.skip);
            available = piece.data;
            if eof && available == 0 && !piece.end {
                return Progress::Cut(Cut::ScriptShort, Close::Broken);
            }
            eof = piece.end && available == 0;
            if available > 0 {
                decoder.took(available);
            }
        }
        if self.failed.is_some()
            && eof
            && available == 0
            && !matches!(encoder, Encoder::Length(left) if left.get() == 0)
        {
            // The script was closed before it was ready to make room for another one, because its body is slow.
            return Progress::Cut(Cut::Slow, Close::Broken);
        }
        match encoder {
            // For HEAD, 204 and the like, the output is read and discarded, so that the script can finish. One that
            // writes too much is terminated.
            Encoder::None if available > 0 => {
                script.consume(available);
                self.dropped += available as u64;
                if self.dropped > response.cx.config.limits.drain {
                    self.abandon();
                    self.end(response);
                }
            }
            Encoder::Length(left) if available > 0 && left.get() > 0 => {
                let n = usize::try_from(left.get()).unwrap_or(usize::MAX).min(available);
                response.cycle.outbound = Outbound::Body(Encoder::length(left.get() - n as u64));
                *response.relay = Passthrough { left: index(n), tail: 0 };
            }
            Encoder::Chunked if available > 0 => {
                begin_chunk(available, &mut response.buf.output.bytes);
                *response.relay = Passthrough { left: index(available), tail: Passthrough::TAIL.len() as u8 };
            }
            Encoder::Close if available > 0 => *response.relay = Passthrough { left: index(available), tail: 0 },
            // Output beyond the announced length is ignored.
            Encoder::Length(left) if left.get() == 0 => self.end(response),
            Encoder::Length(_) if eof => return Progress::Cut(Cut::ScriptShort, Close::Broken),
            Encoder::Chunked if eof => {
                response.buf.output.bytes.extend_from_slice(LAST_CHUNK);
                self.end(response);
            }
            Encoder::None | Encoder::Close if eof => self.end(response),
            _ => return Progress::Stalled,
        }
        Progress::Moved
    }

    /// Completes the response.
    fn end(&mut self, response: &mut ResponseBuilder<'_>) {
        self.state = State::Over;
        response.end();
    }

    /// Serves another path, as if the request had been a GET of it (RFC 3875 section 6.2.2).
    fn redirect_locally(&mut self, location: &[u8], response: &mut ResponseBuilder<'_>) -> Progress {
        response.exchange.redirects += 1;
        if response.exchange.redirects > response.cx.config.limits.redirects {
            self.fail(Refusal::Redirects, response);
            return Progress::Moved;
        }
        let moved = moved_head(&response.request(), location, response.exchange.is_head);
        let buf = &mut *response.buf;
        buf.moved = moved;
        if buf.head.parse(&buf.moved).is_err() {
            buf.moved.clear();
            let bytes = buf.input.head();
            buf.head.parse(bytes).expect("it was right before");
            self.fail(Refusal::Invalid, response);
            return Progress::Moved;
        }
        Progress::Serve
    }

    /// Terminates the script and refuses the request.
    fn fail(&mut self, refusal: Refusal, response: &mut ResponseBuilder<'_>) {
        self.abandon();
        self.set_refused(refusal, response);
    }

    /// Refuses the request. There is no process to terminate: the script was not run, or was closed to make room for
    /// others.
    fn set_refused(&mut self, refusal: Refusal, response: &mut ResponseBuilder<'_>) {
        self.state = State::Refused(refusal);
        self.feed.stage = Stage::Closed;
        if matches!(response.cycle.inbound, Inbound::Body(_)) && (self.feed.total > 0 || self.kill != Kill::No) {
            // A part of the body is lost.
            response.give_up_body();
        }
    }

    /// Responds with an error page.
    fn refuse(&mut self, refusal: Refusal, response: &mut ResponseBuilder<'_>) {
        let (status, message) = refusal.row();
        let Buffers { scratch: Scratch { message: text, path, .. }, reasons, .. } = &mut *response.buf;
        text.clear();
        fill(message, &[b"/", &path[..self.at as usize]].concat(), text);
        reasons.note(Rule::ScriptRefused, text);
        let page = Page { quotes_peer: message.contains("{}"), ..Page::default() };
        response.error_page(status, &page, |head| {
            if matches!(refusal, Refusal::Busy | Refusal::SpoolFull) {
                head.field("Retry-After: ", b"1");
            }
        });
        self.state = State::Over;
    }
}

/// How the body of a request gets to its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// There is no body.
    Nothing,
    /// As it arrives; it has this length.
    Pipe(u64),
    /// As it arrives, once all or the beginning of it is available.
    Gather,
    /// From a file, once its length is known.
    Spool,
    Refuse,
}

impl Plan {
    fn of(inbound: Inbound, config: &Config) -> Plan {
        match inbound {
            Inbound::Body(Decoder::Length(length)) if config.limits.script_body == 0 => Plan::Pipe(length),
            Inbound::Body(Decoder::Length(_)) => Plan::Gather,
            Inbound::Body(Decoder::Chunked(_)) if config.cgi.chunked == Chunked::Refuse => Plan::Refuse,
            Inbound::Body(Decoder::Chunked(_)) => Plan::Spool,
            Inbound::Head(_) | Inbound::Done | Inbound::Closed => Plan::Nothing,
        }
    }

    fn rule(self) -> Option<Rule> {
        match self {
            Plan::Gather => Some(Rule::BodyGathered),
            Plan::Spool => Some(Rule::BodySpooled),
            Plan::Nothing | Plan::Pipe(_) | Plan::Refuse => None,
        }
    }
}

fn note_remarks(response: &mut ResponseBuilder<'_>) {
    response.exchange.has_remarks = !response.buf.scratch.remarks.is_empty();
}

/// Whether a script writes the complete response itself, according to its name.
fn has_own_head(script: &[u8]) -> bool {
    let name = script.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.starts_with(b"nph-")
}

fn write_head(head: &ScriptHead<'_>, raw: bool, answer: &mut ResponseBuilder<'_>) {
    let (status, phrase) = head.answer();
    let mut own = Own::default();
    if raw {
        // The response may be framed by the end of the connection.
        answer.exchange.close();
        own = Own { server: head.has("Server"), date: head.has("Date"), ..Own::default() };
    }
    let encoder = match head.length {
        _ if status.is_bodiless() => Encoder::None,
        None if raw && !head.is_chunked => Encoder::Close,
        length => answer.framing(length),
    };
    let write_fields = |out: &mut HeadOut<'_>, _: &mut Scratch| {
        for &(name, value) in &head.fields {
            // Without content, there is no type.
            if !(status.is_bodiless() && name.eq_ignore_ascii_case(b"Content-Type")) {
                out.raw_field(name, value);
            }
        }
        out.framing(encoder);
    };
    answer.head_with(Answer::Status(status), phrase.into(), own, write_fields);
    answer.body(encoder);
}

/// The type of output without a head, according to how it begins.
fn bare_type(is_markup: bool) -> &'static str {
    if is_markup { "text/html" } else { "text/plain" }
}

/// The head of a request for `location` that is otherwise like `request`, but has no body.
fn moved_head(request: &Request<'_>, location: &[u8], is_head: bool) -> Vec<u8> {
    // The new request has no body. Its host is that of the target, which is written separately.
    const OMITTED: [&str; 3] = ["Transfer-Encoding", "Expect", "Host"];
    const OF_BODY: &[u8] = b"Content-";
    let target = location.split(|&byte| byte == b'#').next().unwrap_or_default();
    let method: &[u8] = if is_head { b"HEAD" } else { b"GET" };
    let mut head = [method, b" "].concat();
    for byte in target {
        match byte {
            b' ' => head.extend_from_slice(b"%20"),
            b'\t' => head.extend_from_slice(b"%09"),
            _ => head.push(*byte),
        }
    }
    let mut out = HeadOut::more(&mut head);
    out.lines(b" ").lines(request.version()).lines(b"\r\n");
    if let Some(host) = request.host() {
        out.field("Host: ", host);
    }
    let is_of_body = |name: &[u8]| name.get(..OF_BODY.len()).is_some_and(|start| start.eq_ignore_ascii_case(OF_BODY));
    for (name, value) in request.fields().filter(|(name, _)| !is_of_body(name) && !is_one_of(OMITTED, name)) {
        out.raw_field(name, value);
    }
    out.end();
    head
}

//! What a connection does for its script.

use crate::buffers::Buffers;
use crate::config::{Chunked, Limits};
use crate::connection::{Connection, Task};
use crate::context::Context;
use crate::error::Violation;
use crate::exchange::{Answering, Cut, Page, Relay};
use crate::input::{ScriptFile, SpawnError};
use crate::path::{Forbidden, names_dotfile};
use crate::reason::Rule;
use crate::request::Request;
use crate::script_path;
use crate::status::Status;
use crate::step::{Action, Close, Script, ScriptInput};
use crate::time::Tick;
use crate::wire::{Decoder, Encoder, HeadOut, Inbound, Method, Outbound, Span, Target};

use super::environment::{self, Facts};
use super::output::{self, End, Printed, Remarks, ScriptHead, Unfolded};
use super::refusal::Refusal;
use super::{Cgi, Deed, Feed, Kill, Stage, State, index};

/// Heads of interim answers before the final one; more are no answer.
const MOST_INTERIM: u8 = 16;

impl Connection {
    /// Where the script begins in the path of the target, if it means one. The path is then in
    /// `Buffers::path`.
    pub(crate) fn find_cgi(&self, buf: &mut Buffers, cx: &Context<'_>) -> Result<Option<usize>, Forbidden> {
        let directories = &cx.config.cgi.directories;
        // `*` and `host:port` are no paths.
        if directories.is_empty() || matches!(buf.head.target, Target::Asterisk | Target::Authority) {
            buf.path.clear();
            return Ok(None);
        }
        let mut path = std::mem::take(&mut buf.path);
        path.clear();
        path.push(b'/');
        let request = Request { head: &buf.head, bytes: buf.head_bytes(), peer: self.peer() };
        let collapsed = script_path::collapse(request.path(), &mut path);
        let directory = cx.site.is_cgi(&path, directories).filter(|&at| path.get(at) == Some(&b'/'));
        // From here on it is a path below the root.
        let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
        path.drain(..slashes);
        buf.path = path;
        collapsed.map(|()| directory.map(|at| (at + 1).saturating_sub(slashes)))
    }

    /// Lets the script answer that was found by [`find_cgi`](Self::find_cgi).
    pub(crate) fn start_cgi(&mut self, from: usize, cx: &Context<'_>) {
        self.task = Task::Cgi(Box::new(Cgi::new(from, cx.now.tick)));
    }

    pub(crate) fn cgi_action<'a>(&self, deed: Deed, buf: &'a mut Buffers, cx: &Context<'_>) -> Action<'a> {
        let Task::Cgi(cgi) = &self.task else { return Action::Kill };
        let (at, told) = (cgi.at as usize, cgi.environment as usize);
        match deed {
            Deed::Find => Action::Find { path: &buf.path, from: at },
            Deed::Spool => Action::Spool,
            Deed::Spawn(input) => {
                let (path, info) = buf.path.split_at(at);
                let (arguments, environment) = buf.told.split_at(told);
                let timeouts = &cx.config.timeouts;
                Action::Spawn(Script {
                    input,
                    time: timeouts.script,
                    grace: timeouts.script_grace,
                    drain: cx.config.limits.drain,
                    translated: info.strip_prefix(b"/"),
                    ..Script::new(path, arguments, environment)
                })
            }
            Deed::EndInput => Action::EndInput,
            Deed::Kill => Action::Kill,
        }
    }

    /// What the script took of the body, and whether it gave a sign of life.
    pub(crate) fn absorb_script(&mut self, buf: &mut Buffers, moved: bool, now: Tick) {
        let alone = self.is_at_end();
        let Task::Cgi(cgi) = &mut self.task else { return };
        let taken = std::mem::take(&mut cgi.feed.taken);
        cgi.feed.offered -= taken;
        cgi.feed.total += u64::from(taken);
        let arrived = buf.script.arrived();
        if taken > 0 || moved || arrived != cgi.arrived || alone != cgi.alone {
            cgi.heard = now;
            cgi.arrived = arrived;
            cgi.alone = alone;
        }
        if taken > 0 {
            self.body_took(buf, taken as usize);
        }
    }

    /// Ends a script whose time is over, or whose peer seems to be gone.
    pub(crate) fn fire_script_timer(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        let (now, may_be_gone) = (cx.now.tick, self.may_be_gone(buf));
        let Task::Cgi(cgi) = &mut self.task else { return };
        if cgi.deadline(may_be_gone, cx).is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.cycle.outbound == Outbound::Body(Encoder::None) {
            // The answer is complete, and nobody is served by what the script still does.
            cgi.abandon();
            self.end_script(buf, cx);
        } else if cgi.ends > now {
            self.cut(Cut::Gone, Close::Broken, buf);
        } else if self.cycle.outbound == Outbound::Owed {
            self.fail_script(Refusal::Slow);
        } else {
            self.cut(Cut::ScriptSlow, Close::Timeout, buf);
        }
    }

    /// Goes on with finding, feeding and relaying. `false`: nothing moved.
    pub(crate) fn advance_cgi(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let Task::Cgi(cgi) = &mut self.task else { return false };
        if !self.cycle.is_answering() {
            return false;
        }
        match cgi.state {
            State::Due(_) | State::Under(_) | State::Over => false,
            State::Found(found) => {
                self.found_script(found, buf, cx);
                true
            }
            State::Gathering => self.gather_body(buf, cx),
            State::Spooling if cgi.feed.stage == Stage::Closed => {
                cgi.feed.stage = Stage::Open;
                self.send_continue(buf);
                true
            }
            State::Spooling => self.feed_script(buf, cx),
            State::Spooled => {
                let length = cgi.feed.total;
                self.tell_script(ScriptInput::Spooled, Some(length), buf, cx);
                true
            }
            State::Spawned => {
                cgi.state = State::Head;
                cgi.ends = cx.now.tick.after(cx.config.timeouts.script.max(1));
                cgi.heard = cx.now.tick;
                if matches!(self.cycle.inbound, Inbound::Body(_)) {
                    cgi.feed.stage = Stage::Open;
                    self.send_continue(buf);
                }
                true
            }
            State::Refused(refusal) => self.settle_body(buf, cx) && self.refuse_script(refusal, buf, cx),
            State::Head | State::Body => {
                let fed = self.feed_script(buf, cx);
                self.relay_script(buf, cx) || fed
            }
        }
    }

    fn found_script(&mut self, what: ScriptFile, buf: &mut Buffers, cx: &Context<'_>) {
        let Task::Cgi(cgi) = &mut self.task else { return };
        cgi.at = cgi.at.min(index(buf.path.len()));
        let name = &buf.path[..cgi.at as usize];
        let is_hidden = cx.config.hide_dotfiles && names_dotfile(name);
        let refusal = match what {
            _ if is_hidden => Some(Refusal::Missing),
            ScriptFile::Missing => Some(Refusal::Missing),
            ScriptFile::NotPlain => Some(Refusal::NotPlain),
            ScriptFile::NotExecutable => Some(Refusal::NotExecutable),
            ScriptFile::Runnable => None,
        };
        if let Some(refusal) = refusal {
            cgi.state = State::Refused(refusal);
            return;
        }
        buf.reasons.note(Rule::ScriptFound, name);
        if !self.may_continue(buf, cx) {
            return;
        }
        match self.cycle.inbound {
            Inbound::Body(Decoder::Length(length)) if cx.config.limits.script_body == 0 => {
                self.tell_script(ScriptInput::Piped, Some(length), buf, cx);
            }
            Inbound::Body(Decoder::Length(_)) => {
                buf.reasons.note(Rule::BodyGathered, b"");
                self.cgi_to(State::Gathering);
                if let Task::Cgi(cgi) = &mut self.task {
                    cgi.feed.stage = Stage::Open;
                }
                self.send_continue(buf);
            }
            Inbound::Body(Decoder::Chunked(_)) if cx.config.cgi.chunked == Chunked::Refuse => {
                self.end_cgi();
                self.answering(buf, cx).refuse(Violation::LengthRequired, Span::default());
            }
            Inbound::Body(Decoder::Chunked(_)) => {
                buf.reasons.note(Rule::BodySpooled, b"");
                self.cgi_to(State::Due(Deed::Spool));
            }
            _ => self.tell_script(ScriptInput::Empty, None, buf, cx),
        }
    }

    /// Waits for a small body, and for the beginning of a large one: a script that waits for a slow peer would hold a
    /// place for as long.
    fn gather_body(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let available = self.body_available(buf, cx) as u64;
        let limits = &cx.config.limits;
        let small = limits.script_body.min(limits.head) as u64;
        match self.cycle.inbound {
            Inbound::Body(Decoder::Length(length)) if available >= if length <= small { length } else { 1 } => {
                self.tell_script(ScriptInput::Piped, Some(length), buf, cx);
            }
            Inbound::Body(_) if self.is_at_end() => self.body_violation(Violation::IncompleteBody, buf, cx),
            Inbound::Body(_) => return false,
            // It was wrong, and that is answered.
            _ => self.end_cgi(),
        }
        true
    }

    /// Writes down what the script is told, and lets it run.
    fn tell_script(&mut self, input: ScriptInput, length: Option<u64>, buf: &mut Buffers, cx: &Context<'_>) {
        let (mut told, mut path) = (std::mem::take(&mut buf.told), std::mem::take(&mut buf.path));
        told.clear();
        let request = Request { head: &buf.head, bytes: buf.head_bytes(), peer: self.peer() };
        if matches!(buf.head.method, Method::Get | Method::Head) {
            environment::write_arguments(request.query().unwrap_or_default(), &mut told);
        }
        let Task::Cgi(cgi) = &mut self.task else { return };
        cgi.environment = index(told.len());
        // The script's name is resolved. What follows it keeps its empty segments.
        path.truncate(cgi.at as usize);
        let components = path.split(|&byte| byte == b'/').count();
        script_path::append_info(request.path(), components, &mut path);
        let (script, info) = path.split_at(cgi.at as usize);
        // A body of no bytes is none, but what the request says of it is passed on.
        let facts = Facts { script, info, length: length.or(request.content_length()) };
        environment::write(&request, &facts, cx.site, cx.config, &mut told);
        buf.told = told;
        buf.path = path;
        buf.script.clear();
        cgi.arrived = buf.script.arrived();
        cgi.feed = Feed::default();
        cgi.state = State::Due(Deed::Spawn(input));
    }

    /// Offers the script what has come of the body.
    fn feed_script(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let Task::Cgi(cgi) = &mut self.task else { return false };
        let Cgi { state, feed, .. } = &mut **cgi;
        if feed.stage != Stage::Open || feed.offered > 0 && !feed.deaf {
            return false;
        }
        if feed.deaf {
            feed.stage = Stage::Closed;
            feed.offered = 0;
            if *state == State::Spooling {
                let refusal = if feed.full { Refusal::SpoolFull } else { Refusal::Unspoolable };
                self.fail_script(refusal);
            }
            return true;
        }
        let available = self.body_available(buf, cx);
        let (inbound, at_end) = (self.cycle.inbound, self.is_at_end());
        // A body that is wrong has ended all this.
        let Task::Cgi(cgi) = &mut self.task else { return true };
        let Cgi { state, feed, .. } = &mut **cgi;
        match inbound {
            _ if available > 0 => feed.offered = index(available),
            Inbound::Done if *state == State::Spooling => {
                feed.stage = Stage::Closed;
                *state = State::Spooled;
            }
            Inbound::Done => feed.stage = Stage::End,
            Inbound::Body(_) if at_end => self.body_violation(Violation::IncompleteBody, buf, cx),
            // It was wrong, and that is answered.
            Inbound::Closed => feed.stage = Stage::Closed,
            _ => return false,
        }
        true
    }

    /// Goes on with the script's answer.
    fn relay_script(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        if self.has_unsent(buf) {
            return false;
        }
        let Task::Cgi(cgi) = &mut self.task else { return false };
        match (cgi.state, self.cycle.outbound) {
            (State::Head, _) => self.read_script_head(buf, cx),
            (State::Body, Outbound::Body(encoder)) => self.relay_body(encoder, buf, cx),
            _ => false,
        }
    }

    fn read_script_head(&mut self, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let has_remarks = self.exchange_mut().has_remarks;
        let Task::Cgi(cgi) = &mut self.task else { return false };
        let limit = cx.config.limits.script_head;
        let Buffers { script, path, remarks, .. } = &mut *buf;
        let unread = script.unread();
        let (len, end) = match output::find_end(&unread[..unread.len().min(limit)], &mut cgi.scanned) {
            Some(len) => (len, End::Empty),
            None if unread.len() >= limit => (limit, End::Limit),
            None if cgi.feed.eof => match cgi.failed {
                // What it may have printed is no answer.
                Some(error) => {
                    self.fail_spawned(error);
                    return true;
                }
                None => (unread.len(), End::Eof),
            },
            None => return false,
        };
        let (printed, eof) = (&unread[..len], cgi.feed.eof);
        let name = &path[..cgi.at as usize];
        let raw = has_own_head(name);
        if !has_remarks {
            remarks.clear();
        }
        let unfolded = Unfolded::new(printed);
        let mut remarks = Remarks::new(name, remarks);
        let printed = match output::understand(printed, end, raw, &unfolded, &mut remarks) {
            // What stands behind an empty head is content, if there is any.
            Printed::Content(len) if len == unread.len() && !eof => return false,
            Printed::Content(len) if len == unread.len() => Printed::Incomplete,
            Printed::Content(len) => {
                let first =
                    if len > 0 { unread.get(len) } else { printed.iter().find(|byte| !byte.is_ascii_whitespace()) };
                let is_markup = first == Some(&b'<');
                remarks.say(format_args!("it printed no head; its output is sent as {}", bare_type(is_markup)), None);
                drop(remarks);
                script.consume(len);
                self.note_remarks(buf);
                self.answer_bare(is_markup, buf, cx);
                return true;
            }
            printed => printed,
        };
        drop(remarks);
        self.note_remarks(buf);
        match printed {
            Printed::Head(head, len) => {
                buf.script.consume(len);
                self.answer_script(&head, raw, buf, cx);
            }
            Printed::Interim(len) => self.pass_over_interim(len, buf),
            Printed::Incomplete => self.fail_script(Refusal::Incomplete),
            Printed::Invalid | Printed::Content(_) => self.fail_script(Refusal::Invalid),
        }
        true
    }

    fn note_remarks(&mut self, buf: &Buffers) {
        self.exchange_mut().has_remarks = !buf.remarks.is_empty();
    }

    /// The head of an interim answer is dropped: it is for a hop that knows more.
    fn pass_over_interim(&mut self, len: usize, buf: &mut Buffers) {
        let Task::Cgi(cgi) = &mut self.task else { return };
        cgi.interim += 1;
        if cgi.interim > MOST_INTERIM {
            return self.fail_script(Refusal::Invalid);
        }
        buf.script.consume(len);
        cgi.scanned = 0;
    }

    /// Answers with the head that the script has printed.
    fn answer_script(&mut self, head: &ScriptHead<'_>, raw: bool, buf: &mut Buffers, cx: &Context<'_>) {
        if let (Some(location), false) = (head.local_redirect(), raw) {
            return self.redirect_locally(location, buf, cx);
        }
        if let (Task::Cgi(cgi), true) = (&mut self.task, head.is_chunked) {
            // Whether it is too long is the script's affair.
            let limits = Limits { body: u64::MAX, ..cx.config.limits.clone() };
            cgi.decoder = Some(Decoder::chunked(&limits));
        }
        self.cgi_to(State::Body);
        write_head(head, raw, &mut self.answering(buf, cx));
        self.note_unsent(cx);
    }

    /// Answers with what was printed without a head.
    fn answer_bare(&mut self, is_markup: bool, buf: &mut Buffers, cx: &Context<'_>) {
        self.cgi_to(State::Body);
        let mut answer = self.answering(buf, cx);
        let encoder = answer.framing(None);
        let charset = cx.site.charset().filter(|_| !is_markup);
        answer.head(Status::OK, None, |out| {
            out.field_with("Content-Type", |out| {
                out.extend_from_slice(bare_type(is_markup).as_bytes());
                if let Some(charset) = charset {
                    out.extend_from_slice(b"; charset=");
                    out.extend_from_slice(charset.as_bytes());
                }
            });
            out.framing(encoder);
        });
        answer.body(encoder);
        self.note_unsent(cx);
    }

    /// HEAD is safe, so nothing is lost with a script that is ended soon behind its head. One that has answered a
    /// GET or POST with 204 may have work to do, and keeps its time.
    fn note_unsent(&mut self, cx: &Context<'_>) {
        let is_head = self.exchange_mut().is_head && self.cycle.outbound == Outbound::Body(Encoder::None);
        if let (Task::Cgi(cgi), true) = (&mut self.task, is_head) {
            cgi.unsent_since = Some(cx.now.tick);
        }
    }

    /// Names what has come from the script as the next bytes to send.
    fn relay_body(&mut self, encoder: Encoder, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let Task::Cgi(cgi) = &mut self.task else { return false };
        let (mut eof, mut available) = (cgi.feed.eof, buf.script.unread().len());
        if let Some(decoder) = &mut cgi.decoder {
            // Chunks of the script's own are taken apart, and framed anew where that is due.
            match decoder.decode(buf.script.unread(), &cx.config.limits) {
                Ok(piece) => {
                    buf.script.consume(piece.skip);
                    available = piece.data;
                    if eof && available == 0 && !piece.end {
                        self.cut(Cut::ScriptShort, Close::Broken, buf);
                        return true;
                    }
                    eof = piece.end && available == 0;
                }
                Err(_) => {
                    self.cut(Cut::ScriptChunks, Close::Broken, buf);
                    return true;
                }
            }
            if available > 0 {
                decoder.took(available);
            }
        }
        if cgi.failed.is_some() && eof && available == 0 && !matches!(encoder, Encoder::Length(left) if left.get() == 0)
        {
            // It had to give way to another before it was ready, since its body is slow.
            self.cut(Cut::Slow, Close::Broken, buf);
            return true;
        }
        match encoder {
            // HEAD, 204 and the like: what the script has to say is taken and dropped, so that it can finish in
            // peace; but one that goes on and on is ended.
            Encoder::None if available > 0 => {
                buf.script.consume(available);
                cgi.dropped += available as u64;
                if cgi.dropped > cx.config.limits.drain {
                    cgi.abandon();
                    self.end_script(buf, cx);
                }
            }
            Encoder::Length(left) if available > 0 && left.get() > 0 => {
                let n = usize::try_from(left.get()).unwrap_or(usize::MAX).min(available);
                self.cycle.outbound = Outbound::Body(Encoder::length(left.get() - n as u64));
                self.relay = Relay { left: index(n), tail: 0 };
            }
            Encoder::Chunked if available > 0 => {
                crate::wire::begin_chunk(available, &mut buf.output.bytes);
                self.relay = Relay { left: index(available), tail: Relay::TAIL.len() as u8 };
            }
            Encoder::Close if available > 0 => self.relay = Relay { left: index(available), tail: 0 },
            // What it says beyond the length that it has announced is not heard.
            Encoder::Length(left) if left.get() == 0 => self.end_script(buf, cx),
            Encoder::Length(_) if eof => self.cut(Cut::ScriptShort, Close::Broken, buf),
            Encoder::Chunked if eof => {
                buf.output.bytes.extend_from_slice(crate::wire::LAST_CHUNK);
                self.end_script(buf, cx);
            }
            Encoder::None | Encoder::Close if eof => self.end_script(buf, cx),
            _ => return false,
        }
        true
    }

    fn end_script(&mut self, buf: &mut Buffers, cx: &Context<'_>) {
        self.end_cgi();
        self.answering(buf, cx).end();
    }

    /// Serves something else instead, as if the request had been for that, with GET (RFC 3875
    /// section 6.2.2).
    fn redirect_locally(&mut self, location: &[u8], buf: &mut Buffers, cx: &Context<'_>) {
        let exchange = self.exchange_mut();
        exchange.redirects += 1;
        if exchange.redirects > cx.config.limits.redirects {
            return self.fail_script(Refusal::Redirects);
        }
        let is_head = exchange.is_head;
        let request = Request { head: &buf.head, bytes: buf.head_bytes(), peer: self.peer() };
        let moved = moved_head(&request, location, is_head);
        buf.moved = moved;
        if buf.head.parse(&buf.moved).is_err() {
            buf.moved.clear();
            let bytes = buf.input.head();
            buf.head.parse(bytes).expect("it was right before");
            return self.fail_script(Refusal::Invalid);
        }
        self.serve(buf, cx);
    }

    /// Ends the script and answers for it, in place of it.
    fn fail_script(&mut self, refusal: Refusal) {
        let Task::Cgi(cgi) = &mut self.task else { return };
        cgi.abandon();
        cgi.state = State::Refused(refusal);
        cgi.feed.stage = Stage::Closed;
        if matches!(self.cycle.inbound, Inbound::Body(_)) && (cgi.feed.total > 0 || cgi.kill != Kill::No) {
            // Some of it is gone.
            self.give_up_body();
        }
    }

    /// The script was not run after all, or has ended because others need its place: there is nothing to end.
    fn fail_spawned(&mut self, error: SpawnError) {
        let Task::Cgi(cgi) = &mut self.task else { return };
        cgi.state = State::Refused(error.into());
        cgi.feed.stage = Stage::Closed;
        if matches!(self.cycle.inbound, Inbound::Body(_)) && cgi.feed.total > 0 {
            self.give_up_body();
        }
    }

    /// Answers in place of the script.
    fn refuse_script(&mut self, refusal: Refusal, buf: &mut Buffers, cx: &Context<'_>) -> bool {
        let Task::Cgi(cgi) = &mut self.task else { return false };
        let name = cgi.at as usize;
        let (status, message) = refusal.row();
        let mut answer = self.answering(buf, cx);
        answer.buf.message.clear();
        let quoted = [b"/", &answer.buf.path[..name]].concat();
        crate::error::fill(message, &quoted, &mut answer.buf.message);
        let Buffers { message: text, reasons, .. } = &mut *answer.buf;
        reasons.note(Rule::ScriptRefused, text);
        let page = Page { quotes_peer: message.contains("{}"), ..Page::default() };
        answer.error_page(status, &page, |head| {
            if matches!(refusal, Refusal::Busy | Refusal::SpoolFull) {
                head.field("Retry-After", b"1");
            }
        });
        self.end_cgi();
        true
    }

    /// Nothing more is asked of the script.
    pub(crate) fn end_cgi(&mut self) {
        self.cgi_to(State::Over);
    }

    fn cgi_to(&mut self, state: State) {
        if let Task::Cgi(cgi) = &mut self.task {
            cgi.state = state;
        }
    }
}

/// Whether a script writes the whole answer itself, by its name.
fn has_own_head(script: &[u8]) -> bool {
    let name = script.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.starts_with(b"nph-")
}

fn write_head(head: &ScriptHead<'_>, raw: bool, answer: &mut Answering<'_>) {
    let (status, phrase) = head.answer();
    if raw {
        // It has said all that there is to say, and the connection ends with it.
        answer.exchange.keep_alive = false;
        answer.exchange.has_server = head.has("Server");
        answer.exchange.has_date = head.has("Date");
    }
    let encoder = match head.length {
        _ if status.is_bodiless() => Encoder::None,
        None if raw && !head.is_chunked => Encoder::Close,
        length => answer.framing(length),
    };
    let write_fields = |out: &mut HeadOut<'_>| {
        for &(name, value) in &head.fields {
            // There is nothing that it would be the type of.
            if !(status.is_bodiless() && name.eq_ignore_ascii_case(b"Content-Type")) {
                out.raw_field(name, value);
            }
        }
        out.framing(encoder);
    };
    answer.head(status, phrase, write_fields);
    answer.body(encoder);
}

/// The type of what is printed without a head: what it looks like.
fn bare_type(is_markup: bool) -> &'static str {
    if is_markup { "text/html" } else { "text/plain" }
}

/// The head of a request for `location` that is otherwise like `request`, but has no body.
fn moved_head(request: &Request<'_>, location: &[u8], is_head: bool) -> Vec<u8> {
    /// There is no body; and the host is that of the target, if it has named one.
    const LEFT_OUT: [&str; 3] = ["Transfer-Encoding", "Expect", "Host"];
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
    head.extend_from_slice(&[b" ", request.version(), b"\r\n"].concat());
    if let Some(host) = request.host() {
        head.extend_from_slice(&[b"Host: ", host, b"\r\n"].concat());
    }
    let is_of_body = |name: &[u8]| name.get(..OF_BODY.len()).is_some_and(|start| start.eq_ignore_ascii_case(OF_BODY));
    let is_left_out = |name: &[u8]| LEFT_OUT.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(name));
    let is_kept = |name: &[u8]| !is_of_body(name) && !is_left_out(name);
    for (name, value) in request.fields().filter(|(name, _)| is_kept(name)) {
        head.extend_from_slice(name);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

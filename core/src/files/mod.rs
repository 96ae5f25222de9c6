//! The task that responds to GET and HEAD with files: open, index page or listing, conditions, ranges.
//!
//! It is a state machine. It requests actions, receives their completions, writes heads and pages to the output, and
//! names the parts of the open file that the driver sends. Which error becomes which response is in [`refusal`].

mod by_rule;
mod refusal;

use crate::buffers::{Buffers, Scratch};
use crate::conditional::{self, Validators, Verdict};
use crate::error::Violation;
use crate::exchange::{FilePart, PathOf, Phrase, Progress, ResponseBuilder};
use crate::input::{Completion, FsError, Kind, Listed, Opened};
use crate::listing;
use crate::media_type::{self as kind, media_type};
use crate::page;
use crate::path::{self, Forbidden, explain_path, names_dotfile};
use crate::range::{self, Asked, ByteRange};
use crate::reason::Rule;
use crate::request::split_path;
use crate::rules::Rules;
use crate::status::StatusCode;
use crate::step::Action;
use crate::text::encode_uri;
use crate::time::Wall;
use crate::wire::{Encoder, HeadOut, Span};
use by_rule::Aim;
use refusal::Refusal;
use std::borrow::Cow;

/// The state of a response from a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    state: State,
    opened: Kept,
    /// Where the name of the index page begins in `Scratch::path`.
    name: u32,
    /// Whether the path ends with a slash.
    has_slash: bool,
    aim: Aim,
}

/// What was opened, in less memory: if there is a digest, the time is not needed.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// As bytes, to avoid padding.
    len: [u8; 8],
    /// The modification time, or the digest.
    mark: [u8; 12],
    is_digest: bool,
    kind: Kind,
}

impl From<Opened> for Kept {
    fn from(opened: Opened) -> Kept {
        let mut mark = [0; 12];
        mark[..8].copy_from_slice(&opened.modified.to_ne_bytes());
        mark[8..].copy_from_slice(&opened.modified_nanos.to_ne_bytes());
        let (mark, is_digest) = opened.digest.map_or((mark, false), |digest| (digest, true));
        Kept { len: opened.len.to_ne_bytes(), mark, is_digest, kind: opened.kind }
    }
}

impl Kept {
    const NOTHING: Kept = Kept { len: [0; 8], mark: [0; 12], is_digest: false, kind: Kind::File };

    fn len(&self) -> u64 {
        u64::from_ne_bytes(self.len)
    }

    fn opened(&self) -> Opened {
        let &Kept { mark, is_digest, kind, .. } = self;
        let len = self.len();
        let opened = Opened { kind, len, modified: 0, modified_nanos: 0, digest: None };
        if is_digest {
            return Opened { digest: Some(mark), ..opened };
        }
        let (seconds, nanos) = mark.split_at(8);
        Opened {
            modified: i64::from_ne_bytes(seconds.try_into().expect("eight bytes")),
            modified_nanos: u32::from_ne_bytes(nanos.try_into().expect("four bytes")),
            ..opened
        }
    }
}

/// The media type of a listing.
const LISTING_TYPE: &[u8] = b"text/html; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An action has to be requested.
    Due(PendingAction),
    /// An action is in progress.
    Under(PendingAction),
    /// An action has completed with this result.
    Opened {
        index: bool,
    },
    Failed(FsError),
    NoIndex(u8),
    Listed(Listed),
    Unlisted(FsError),
    /// The rows of a listing are being written.
    Rows,
    /// The parts of a multipart response are being sent; this is the next one.
    Parts(u16),
    /// Everything is in the output, or named as a part of the file.
    Written,
}

/// An action that is requested from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PendingAction {
    Open,
    /// Try the index page with this number.
    OpenIn(u8),
    List,
}

impl Files {
    /// Starts with the current request. Refuses a path that cannot exist.
    pub(crate) fn start(answer: &mut ResponseBuilder<'_>) -> Option<Files> {
        let policy = answer.cx.policy;
        let (request, Scratch { path, .. }, reasons) = answer.split();
        path.clear();
        let asked = request.path();
        let has_slash = path::has_trailing_slash(asked);
        let translated = policy.translate(asked, path);
        if reasons.are_wanted() {
            path::explain_rest(&request, reasons);
            explain_path(&request, path, reasons);
        }
        if let Err(Forbidden::Nul) = translated {
            answer.refuse(Violation::NulInPath, Span::default());
            return None;
        }
        answer.exchange.path = PathOf::File;
        let state = State::Due(PendingAction::Open);
        let mut files = Files { state, opened: Kept::NOTHING, name: 0, has_slash, aim: Aim::Path };
        if answer.cx.config.rules.is_some() {
            files.start_by_rule(answer);
        } else if answer.cx.config.hide_dotfiles && names_dotfile(&answer.buf.scratch.path) {
            refuse(Refusal::Hidden, answer);
            return None;
        }
        Some(files)
    }

    /// Whether everything has been written or named.
    pub(crate) fn is_written(&self) -> bool {
        self.state == State::Written
    }

    /// Whether the request is no longer needed.
    pub(crate) fn has_read_head(&self) -> bool {
        matches!(self.state, State::Written | State::Rows)
    }

    /// The current stage, for display.
    pub(crate) fn stage(&self) -> &'static str {
        match self.state {
            State::Due(_) => "has something for the disk",
            State::Under(_) => "waits for the disk",
            State::Opened { .. } | State::Listed(_) => "has the disk's answer",
            State::Failed(_) | State::Unlisted(_) => "the disk refused",
            State::NoIndex(_) => "looks for an index page",
            State::Rows => "writes the listing",
            State::Parts(_) => "sends parts of the file",
            State::Written => "all is named or written",
        }
    }

    /// The action that has to be requested. Returned once.
    pub(crate) fn take_pending(&mut self) -> Option<PendingAction> {
        let State::Due(pending) = self.state else { return None };
        self.state = State::Under(pending);
        Some(pending)
    }

    /// Whether an action is in progress.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Under(_))
    }

    /// Receives the result of the action in progress.
    pub(crate) fn complete(&mut self, completion: Completion) {
        let State::Under(pending) = self.state else { return };
        self.state = match (pending, completion) {
            (PendingAction::Open, Completion::Opened(Ok(opened))) => {
                self.opened = opened.into();
                State::Opened { index: false }
            }
            (PendingAction::OpenIn(_), Completion::Opened(Ok(opened))) if opened.kind == Kind::File => {
                self.opened = opened.into();
                State::Opened { index: true }
            }
            // Only if there is no such page, the next one is tried, or the directory is listed: an index page that must
            // not be read must not reveal what is beside it.
            (PendingAction::OpenIn(at), Completion::Opened(Ok(_) | Err(FsError::NotFound))) => State::NoIndex(at),
            (PendingAction::OpenIn(_), Completion::Opened(Err(error))) => State::Failed(error),
            (PendingAction::List, Completion::Listed(Ok(listed))) => State::Listed(listed),
            (PendingAction::List, Completion::Listed(Err(error))) => State::Unlisted(error),
            (PendingAction::Open, Completion::Opened(Err(error))) => State::Failed(error),
            // The driver has passed a result that does not fit its action.
            _ => State::Failed(FsError::Failed),
        };
    }

    /// The action for the driver.
    pub(crate) fn action<'a>(&self, pending: PendingAction, scratch: &'a mut Scratch) -> Action<'a> {
        match pending {
            PendingAction::Open => Action::Open { path: &scratch.path },
            // Relative to the directory.
            PendingAction::OpenIn(_) => Action::OpenIn { path: &scratch.path[self.name as usize..] },
            PendingAction::List => Action::List { into: &mut scratch.listing },
        }
    }

    /// Advances as far as possible.
    pub(crate) fn advance(&mut self, answer: &mut ResponseBuilder<'_>) -> Progress {
        match self.state {
            State::Due(_) | State::Under(_) | State::Written => return Progress::Stalled,
            State::Failed(error) => self.failed(error, answer),
            State::Opened { index } => self.opened(index, answer),
            State::NoIndex(at) => self.try_index(at + 1, answer),
            State::Listed(listed) => self.listed(listed, answer),
            State::Unlisted(FsError::Exhausted) => self.refuse(Refusal::Exhausted, answer),
            State::Unlisted(_) => self.refuse(Refusal::Unlistable, answer),
            State::Rows => self.rows(answer),
            State::Parts(next) => self.part(next, answer),
        }
        Progress::Moved
    }

    fn failed(&mut self, error: FsError, answer: &mut ResponseBuilder<'_>) {
        if answer.cx.config.rules.is_none() || !self.failed_by_rule(error, answer) {
            self.refuse(error.into(), answer);
        }
    }

    fn refuse(&mut self, refusal: Refusal, answer: &mut ResponseBuilder<'_>) {
        if answer.cx.config.rules.is_none() || !self.refused_by_rule(refusal, answer) {
            refuse(refusal, answer);
            self.state = State::Written;
        }
    }

    fn opened(&mut self, index: bool, answer: &mut ResponseBuilder<'_>) {
        if answer.cx.config.rules.is_some() && self.opened_by_rule(answer) {
            return;
        }
        match (self.opened.kind, self.has_slash) {
            (Kind::File, _) if index && answer.cx.config.hide_dotfiles && names_dotfile(&answer.buf.scratch.path) => {
                self.refuse(Refusal::Hidden, answer);
            }
            (Kind::File, _) if index => {
                answer.buf.reasons.note(Rule::IndexChosen, &answer.buf.scratch.path);
                self.file(answer);
            }
            (Kind::File, true) => self.refuse(Refusal::FileWithSlash, answer),
            (Kind::File, false) => self.file(answer),
            (Kind::Directory, false) => self.redirect(answer),
            (Kind::Directory, true) => {
                self.name = u32::try_from(answer.buf.scratch.path.len()).expect("a path is shorter than a head");
                self.try_index(0, answer);
            }
        }
    }

    /// Redirects with 301 to the same target with a slash after its path. The query and escapes are preserved.
    fn redirect(&mut self, answer: &mut ResponseBuilder<'_>) {
        let (request, Scratch { page: location, .. }, reasons) = answer.split();
        location.clear();
        let (path, rest) = split_path(request.path_and_query());
        encode_uri(path, location);
        location.push(b'/');
        encode_uri(rest, location);
        reasons.note(Rule::SlashRedirect, location);
        self.redirect_to_page(StatusCode::MOVED_PERMANENTLY, answer);
    }

    /// Redirects to the location in `Scratch::page`.
    fn redirect_to_page(&mut self, status: StatusCode, answer: &mut ResponseBuilder<'_>) {
        answer.exchange.path = PathOf::Nothing;
        unconditional(answer);
        answer.empty(status, |head, scratch| {
            head.field("Location: ", &scratch.page).number("Content-Length: ", 0);
        });
        self.state = State::Written;
    }

    /// Requests the index page with this number, or a listing if there are no more.
    fn try_index(&mut self, at: u8, answer: &mut ResponseBuilder<'_>) {
        let dir = self.dir_len(answer);
        answer.buf.scratch.path.truncate(dir);
        let rules = answer.cx.config.rules.as_deref();
        match self.index_pages(answer).get(usize::from(at)) {
            Some(page) if at < u8::MAX => {
                if dir > 0 {
                    answer.buf.scratch.path.push(b'/');
                }
                self.name = u32::try_from(answer.buf.scratch.path.len()).expect("a path is shorter than a head");
                answer.buf.scratch.path.extend_from_slice(page.as_bytes());
                answer.buf.reasons.note(Rule::IndexTried, page.as_bytes());
                self.state = State::Due(PendingAction::OpenIn(at));
            }
            _ if rules.is_some_and(|rules| !rules.lists()) => self.refuse(Refusal::Unlisted, answer),
            _ => {
                let config = answer.cx.config;
                answer.buf.scratch.listing.begin(config.limits.listing, config.hide_dotfiles);
                self.list(answer);
            }
        }
    }

    /// The names of index pages, in order of preference.
    fn index_pages<'t>(&self, answer: &ResponseBuilder<'t>) -> &'t [Cow<'static, str>] {
        let pages = answer.cx.config.rules.as_deref().map(Rules::index).filter(|pages| !pages.is_empty());
        pages.unwrap_or_else(|| answer.cx.policy.index_pages())
    }

    /// The length of the directory's path in `Scratch::path`, which may be followed by the name of an index page.
    fn dir_len(&self, answer: &ResponseBuilder<'_>) -> usize {
        let name = self.name as usize;
        if name > 0 && name < answer.buf.scratch.path.len() {
            name - 1
        } else {
            name.min(answer.buf.scratch.path.len())
        }
    }

    /// Requests more entries, if there is memory for them.
    fn list(&mut self, answer: &mut ResponseBuilder<'_>) {
        let Buffers { scratch: Scratch { listing, .. }, share, .. } = &mut *answer.buf;
        if listing.make_room(share) {
            self.state = State::Due(PendingAction::List);
        } else {
            self.refuse(Refusal::NoMemory, answer);
        }
    }

    fn listed(&mut self, listed: Listed, answer: &mut ResponseBuilder<'_>) {
        let policy = answer.cx.policy;
        answer.buf.scratch.listing.end_batch(|name, kind, out| policy.listing_row(name, kind, out));
        if answer.buf.scratch.listing.overflowed() {
            return self.refuse(Refusal::ListingTooLarge, answer);
        }
        match listed {
            Listed::More => self.list(answer),
            Listed::End => self.listing(answer),
        }
    }

    /// Begins the page of a listing. Its length is known before its rows are written.
    fn listing(&mut self, answer: &mut ResponseBuilder<'_>) {
        self.state = State::Written;
        answer.buf.reasons.note(Rule::Listed, b"");
        match answer.evaluate(None) {
            Verdict::Perform => {}
            Verdict::NotModified => return answer.empty(StatusCode::NOT_MODIFIED, |_, _| {}),
            Verdict::Failed => return answer.precondition_failed(),
        }
        answer.buf.scratch.listing.end();
        let (request, Scratch { page, message: shown, listing, .. }, reasons) = answer.split();
        shown.clear();
        shown.extend(percent_encoding::percent_decode(request.path()));
        page.clear();
        listing::write_start(shown, page);
        let len = page.len() as u64 + listing.formatted() + listing::PAGE_END.len() as u64;
        reasons.note(Rule::TypeOfPage, LISTING_TYPE);
        reasons.note(Rule::PageGuard, b"");
        answer.exchange.path = PathOf::Directory;
        answer.head(StatusCode::OK, Phrase::Usual, |head, _| {
            head.field("Content-Type: ", LISTING_TYPE).number("Content-Length: ", len).lines(page::GUARD);
        });
        answer.body(Encoder::length(0));
        if answer.exchange.is_head {
            answer.end();
        } else {
            answer.buf.output.bytes.extend_from_slice(&answer.buf.scratch.page);
            self.state = State::Rows;
            self.rows(answer);
        }
    }

    fn rows(&mut self, answer: &mut ResponseBuilder<'_>) {
        let policy = answer.cx.policy;
        let enough = answer.buf.output_room(answer.cx.config.limits.output_room());
        let more = answer.buf.scratch.listing.write(
            |name, kind, out| policy.listing_row(name, kind, out),
            &mut answer.buf.output.bytes,
            enough,
        );
        if !more {
            answer.buf.output.bytes.extend_from_slice(listing::PAGE_END);
            answer.end();
            self.state = State::Written;
        }
    }

    /// Responds with the file: the whole, some ranges, or only a head.
    fn file(&mut self, answer: &mut ResponseBuilder<'_>) {
        self.state = State::Written;
        let validators = self.validators(answer);
        if answer.buf.reasons.are_wanted() {
            answer.buf.reasons.note(Rule::FileServed, &answer.buf.scratch.path);
            validators.explain(answer.cx.now.wall, &mut answer.buf.reasons);
        }
        match answer.evaluate(Some(&validators)) {
            Verdict::Perform => {}
            Verdict::NotModified => {
                let now = answer.cx.now.wall;
                return answer.empty(StatusCode::NOT_MODIFIED, |head, scratch| {
                    write_validators(&validators, now, scratch, head)
                });
            }
            Verdict::Failed => return answer.precondition_failed(),
        }
        match answer.asked(self.opened.len(), &validators) {
            Asked::Whole(_) => self.one_part(None, validators, answer),
            Asked::Ranges => match *answer.buf.scratch.ranges {
                [asked] => self.one_part(Some(asked), validators, answer),
                _ => self.many_ranges(validators, answer),
            },
            Asked::Unsatisfiable => answer.unsatisfiable(self.opened.len()),
        }
    }

    /// Responds with the whole file, or one range of it.
    fn one_part(&mut self, asked: Option<ByteRange>, validators: Validators, answer: &mut ResponseBuilder<'_>) {
        let (kind, len, now) = (self.kind(answer), self.opened.len(), answer.cx.now.wall);
        kind.explain(answer);
        let (status, part) = match asked {
            None => (StatusCode::OK, FilePart { offset: 0, left: len }),
            Some(asked) => {
                answer.buf.reasons.note_with(Rule::RangeServed, |out| range::write_content_range(asked, len, out));
                (StatusCode::PARTIAL_CONTENT, FilePart { offset: asked.first, left: asked.len() })
            }
        };
        answer.head(status, Phrase::Usual, |head, scratch| {
            kind.write(head);
            head.number("Content-Length: ", part.left);
            write_validators(&validators, now, scratch, head);
            head.lines(b"Accept-Ranges: bytes\r\n");
            if let Some(asked) = asked {
                head.field_with("Content-Range: ", |out| range::write_content_range(asked, len, out));
            }
        });
        Self::send_part(part, answer);
        answer.end();
    }

    fn send_part(part: FilePart, answer: &mut ResponseBuilder<'_>) {
        answer.body(Encoder::length(part.left));
        if !answer.exchange.is_head {
            *answer.file = part;
        }
    }

    /// Responds with 206 and `multipart/byteranges` (RFC 9110 section 15.3.7.2).
    fn many_ranges(&mut self, validators: Validators, answer: &mut ResponseBuilder<'_>) {
        let (kind, len, now) = (self.kind(answer), self.opened.len(), answer.cx.now.wall);
        kind.explain(answer);
        let boundary = validators.stamp();
        let (_, Scratch { page: part, ranges, .. }, reasons) = answer.split();
        let mut total = 0;
        for &asked in &*ranges {
            reasons.note_with(Rule::RangesServed, |out| range::write_content_range(asked, len, out));
            part.clear();
            range::write_part_head(boundary.opaque(), |out| kind.append_to_part(out), asked, len, part);
            total += part.len() as u64 + asked.len();
        }
        part.clear();
        range::write_parts_end(boundary.opaque(), part);
        total += part.len() as u64;
        answer.head(StatusCode::PARTIAL_CONTENT, Phrase::Usual, |head, scratch| {
            head.field_with("Content-Type: ", |out| range::write_parts_type(boundary.opaque(), out));
            head.number("Content-Length: ", total);
            write_validators(&validators, now, scratch, head);
            head.lines(b"Accept-Ranges: bytes\r\n");
        });
        answer.body(Encoder::length(0));
        self.part(0, answer);
    }

    /// Writes the header of the next part, and names the part of the file.
    fn part(&mut self, next: u16, answer: &mut ResponseBuilder<'_>) {
        let boundary = self.validators(answer).stamp();
        match answer.buf.scratch.ranges.get(usize::from(next)).copied() {
            Some(asked) => {
                let kind = self.kind(answer);
                let out = &mut answer.buf.output.bytes;
                range::write_part_head(
                    boundary.opaque(),
                    |out| kind.append_to_part(out),
                    asked,
                    self.opened.len(),
                    out,
                );
                *answer.file = FilePart { offset: asked.first, left: asked.len() };
                self.state = State::Parts(next + 1);
            }
            None => {
                range::write_parts_end(boundary.opaque(), &mut answer.buf.output.bytes);
                answer.end();
                self.state = State::Written;
            }
        }
    }

    #[inline]
    fn kind<'t>(&self, answer: &ResponseBuilder<'t>) -> MediaType<'t> {
        let (types, policy, path) = (&answer.cx.config.types, answer.cx.policy, &answer.buf.scratch.path);
        let (kind, encoding): (Cow<'t, str>, _) = match types.of(path) {
            Some(kind) => (kind.into(), None),
            None => {
                let kind = policy.media_type(path);
                let encoding = kind::content_encoding(path, &kind);
                // If neither the tables nor the policy know the type.
                match types.unknown().filter(|_| kind::is_unknown(path) && kind == media_type(path)) {
                    Some(unknown) => (unknown.into(), None),
                    None => (kind, encoding),
                }
            }
        };
        let (kind, encoding) = match answer.cx.config.rules.as_deref() {
            Some(rules) => by_rule::kind(rules, path, kind, encoding),
            None => (kind, encoding),
        };
        let is_text = kind::is_text(&kind);
        let charset = if is_text { types.charset().unwrap_or_else(|| policy.charset()) } else { None };
        MediaType { kind, charset, encoding }
    }

    #[inline]
    fn validators(&self, answer: &ResponseBuilder<'_>) -> Validators {
        Validators::new(&self.opened.opened(), answer.cx.config.etag)
    }
}

/// Responds with an error page.
fn refuse(refusal: Refusal, answer: &mut ResponseBuilder<'_>) {
    let (rule, status, message) = refusal.row();
    answer.buf.reasons.note(rule, b"");
    unconditional(answer);
    if refusal == Refusal::Exhausted {
        return answer.error_with(status, message, |head| {
            head.field("Retry-After: ", b"1");
        });
    }
    answer.error(status, message);
}

/// RFC 9110 section 13.2.1: "A server MUST ignore all received preconditions if its response to the same request
/// without those conditions, prior to processing the request content, would have been a status code other than a 2xx
/// (Successful) or 412 (Precondition Failed)."
fn unconditional(answer: &mut ResponseBuilder<'_>) {
    answer.explain(|request, _, reasons| {
        if request.head.has_any(conditional::CONDITIONS) {
            reasons.note(Rule::ConditionsUnasked, b"");
        }
    });
}

/// Writes the validator fields.
#[inline(always)]
fn write_validators(validators: &Validators, now: Wall, scratch: &mut Scratch, head: &mut HeadOut<'_>) {
    head.lines(scratch.validators.lines(validators, now));
}

/// A media type, with its charset if it is text, and the content coding.
struct MediaType<'t> {
    kind: Cow<'t, str>,
    charset: Option<&'t str>,
    encoding: Option<&'t str>,
}

impl MediaType<'_> {
    /// Records the rules that chose the type.
    #[inline(always)]
    fn explain(&self, answer: &mut ResponseBuilder<'_>) {
        let (types, rules) = (&answer.cx.config.types, answer.cx.config.rules.as_deref());
        answer.explain(|_, scratch, reasons| {
            match rules.and_then(|rules| rules.of_content("Content-Type", &scratch.path)) {
                Some(kind) => reasons.note(Rule::TypeOfHeader, kind.as_bytes()),
                None => kind::explain(&scratch.path, &self.kind, types, reasons),
            }
            if let Some(encoding) = self.encoding {
                reasons.note(Rule::ContentEncoding, encoding.as_bytes());
            }
            if let Some(charset) = self.charset {
                reasons.note(Rule::Charset, charset.as_bytes());
            }
        });
    }

    /// Writes the fields of a response with the file or one range of it.
    #[inline]
    fn write(&self, head: &mut HeadOut<'_>) {
        head.field_with("Content-Type: ", |out| self.append(out));
        if let Some(encoding) = self.encoding {
            head.field("Content-Encoding: ", encoding.as_bytes());
        }
    }

    /// Writes the fields of one part of several. The content coding is that of the part, not of the whole response.
    fn append_to_part(&self, out: &mut Vec<u8>) {
        self.append(out);
        if let Some(encoding) = self.encoding {
            out.extend_from_slice(b"\r\nContent-Encoding: ");
            out.extend_from_slice(encoding.as_bytes());
        }
    }

    #[inline]
    fn append(&self, out: &mut Vec<u8>) {
        kind::write(&self.kind, self.charset, out);
    }
}

//! What the rules of a site serve where the path of a request names no file: pages without their extension, the page of
//! an application, and files as the pages of errors. Each is opened by the same action as every other file, so that what
//! is refused stays refused.

use std::borrow::Cow;

use super::refusal::Refusal;
use super::{Files, PendingAction, State, unconditional};
use crate::exchange::{FilePart, PathOf, ResponseBuilder};
use crate::input::{FsError, Kind};
use crate::path::names_dotfile;
use crate::reason::Rule;
use crate::rules::{HTML, Rules, accepts_html};
use crate::status::StatusCode;
use crate::wire::HeadOut;

/// What is being opened, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The path of the request.
    Path,
    /// The path of the request without its extension, to see whether the page is served there.
    Bare,
    /// The path of the request, for a redirect to the one without its extension.
    Moved,
    /// The path of the request, for which there is no redirect.
    Named,
    /// The page whose extension the path lacks. There is nothing at the path itself.
    Html,
    /// The same, and there is a directory at the path itself.
    HtmlOrDirectory,
    /// The page of the application.
    Spa,
    /// The page of an error. All of this has the size of a byte, since a connection is to be small.
    ErrorPage(Refusal),
}

/// The media type and the content coding of a file, by the rules if they have one.
pub(super) fn kind<'t>(
    rules: &'t Rules,
    path: &[u8],
    kind: Cow<'t, str>,
    encoding: Option<&'t str>,
) -> (Cow<'t, str>, Option<&'t str>) {
    let own = rules.of_content("Content-Type", path);
    // The coding that goes with a type of the tables does not go with another one.
    let encoding = rules.of_content("Content-Encoding", path).or(encoding.filter(|_| own.is_none()));
    (own.map_or(kind, Cow::Borrowed), encoding)
}

impl Files {
    /// Begins with the path below the prefix.
    pub(super) fn start_by_rule(&mut self, answer: &mut ResponseBuilder<'_>) {
        let config = answer.cx.config;
        let Some(rules) = config.rules.as_deref() else { return };
        let path = &mut answer.buf.scratch.path;
        if rules.has_prefix() {
            let Some(rest) = rules.below_prefix(path).map(<[u8]>::len) else {
                return self.refuse(Refusal::Outside, answer);
            };
            path.drain(..path.len() - rest);
            answer.buf.reasons.note(Rule::PrefixRemoved, if rest == 0 { b"." } else { path });
        }
        if config.hide_dotfiles && names_dotfile(path) {
            return self.refuse(Refusal::Hidden, answer);
        }
        if rules.has_clean_urls() && !self.has_slash {
            if let Some(len) = bare(path) {
                path.truncate(len);
                self.aim = Aim::Bare;
            }
        }
    }

    /// Opens another file.
    fn aim_at(&mut self, aim: Aim) {
        self.aim = aim;
        self.state = State::Due(PendingAction::Open);
    }

    /// Decides what to do with what was opened, if that is not what is always done.
    pub(super) fn opened_by_rule(&mut self, answer: &mut ResponseBuilder<'_>) -> bool {
        let Some(rules) = answer.cx.config.rules.as_deref() else { return false };
        let kind = self.opened.kind;
        match self.aim {
            Aim::Path if kind == Kind::Directory && self.lacks_extension(rules, answer) => {
                answer.buf.scratch.path.extend_from_slice(HTML);
                self.aim_at(Aim::HtmlOrDirectory);
            }
            Aim::Path | Aim::Named => return false,
            Aim::Bare => {
                // A file at the path without the extension would hide the page.
                let aim = if kind == Kind::File { Aim::Named } else { Aim::Moved };
                answer.buf.scratch.path.extend_from_slice(HTML);
                self.aim_at(aim);
            }
            Aim::Moved => return kind == Kind::File && self.moves(rules, answer),
            Aim::Html | Aim::HtmlOrDirectory if kind == Kind::File => {
                answer.buf.reasons.note(Rule::CleanUrl, &answer.buf.scratch.path);
                self.file(answer);
            }
            Aim::Spa if kind == Kind::File => {
                answer.exchange.path = PathOf::Spa;
                answer.buf.reasons.note(Rule::Spa, &answer.buf.scratch.path);
                self.file(answer);
            }
            Aim::ErrorPage(refusal)
                if kind == Kind::File && self.opened.len() <= answer.cx.config.limits.error_page =>
            {
                self.error_page(refusal, answer);
            }
            Aim::Html | Aim::HtmlOrDirectory | Aim::Spa | Aim::ErrorPage(_) => {
                return self.failed_by_rule(FsError::NotFound, answer);
            }
        }
        true
    }

    /// Decides what to do where nothing could be opened, if that is not what is always done.
    pub(super) fn failed_by_rule(&mut self, error: FsError, answer: &mut ResponseBuilder<'_>) -> bool {
        let Some(rules) = answer.cx.config.rules.as_deref() else { return false };
        match self.aim {
            // Nothing can be opened at all.
            aim if error == FsError::Exhausted && !matches!(aim, Aim::ErrorPage(_)) => return false,
            Aim::Path if error == FsError::NotFound && self.lacks_extension(rules, answer) => {
                answer.buf.scratch.path.extend_from_slice(HTML);
                self.aim_at(Aim::Html);
            }
            Aim::Path | Aim::Named | Aim::Moved => return false,
            Aim::Bare => {
                answer.buf.scratch.path.extend_from_slice(HTML);
                self.aim_at(Aim::Moved);
            }
            Aim::Html => {
                let path = &mut answer.buf.scratch.path;
                path.truncate(path.len() - HTML.len());
                self.refuse(Refusal::Missing, answer);
            }
            Aim::HtmlOrDirectory => self.redirect(answer),
            Aim::Spa => self.refuse(Refusal::Missing, answer),
            Aim::ErrorPage(refusal) => {
                answer.buf.reasons.note(Rule::ErrorPageMissing, &answer.buf.scratch.path);
                super::refuse(refusal, answer);
                self.state = State::Written;
            }
        }
        true
    }

    /// Serves something else than the usual page of an error, if the rules say so.
    pub(super) fn refused_by_rule(&mut self, refusal: Refusal, answer: &mut ResponseBuilder<'_>) -> bool {
        let config = answer.cx.config;
        let Some(rules) = config.rules.as_deref() else { return false };
        answer.exchange.path = PathOf::Nothing;
        let is_served = |file: &str| !(config.hide_dotfiles && names_dotfile(file.as_bytes()));
        let may_be_route = matches!(refusal, Refusal::Missing | Refusal::FileWithSlash | Refusal::Unlisted);
        let page = rules.spa(&answer.buf.scratch.path).filter(|_| may_be_route && self.aim != Aim::Spa);
        if let Some(page) = page {
            let navigates = answer.request().field("Accept").is_some_and(accepts_html);
            if navigates && is_served(page) {
                self.aim_at(Aim::Spa);
                set(&mut answer.buf.scratch.path, page);
                return true;
            }
            answer.buf.reasons.note(Rule::SpaUnasked, b"");
        }
        let (_, status, _) = refusal.row();
        match rules.error_page(status) {
            Some(page) if refusal != Refusal::Exhausted && is_served(page) => {
                self.aim_at(Aim::ErrorPage(refusal));
                set(&mut answer.buf.scratch.path, page);
                true
            }
            _ => false,
        }
    }

    /// Whether the path may be that of a page without its extension.
    fn lacks_extension(&self, rules: &Rules, answer: &ResponseBuilder<'_>) -> bool {
        let path = &answer.buf.scratch.path;
        rules.has_clean_urls() && !self.has_slash && !path.is_empty() && !path.ends_with(HTML)
    }

    /// Redirects a page to its path without the extension; `false` if that would not lead to the page.
    fn moves(&mut self, rules: &Rules, answer: &mut ResponseBuilder<'_>) -> bool {
        let pages = self.index_pages(answer);
        let path = &mut answer.buf.scratch.path;
        let Some(mut len) = bare(path) else { return false };
        let name = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
        // The directory itself leads to its first index page, which is there.
        let is_index = pages.first().is_some_and(|page| page.as_bytes() == &path[name..]);
        if is_index {
            len = name;
        }
        if rules.redirects(path[..len].strip_suffix(b"/").unwrap_or(&path[..len]), is_index) {
            return false;
        }
        path.truncate(len);
        let (request, scratch, reasons) = answer.split();
        scratch.page.clear();
        rules.append_location(&scratch.path, &mut scratch.page);
        if let Some(query) = request.query() {
            scratch.page.push(b'?');
            super::encode_uri(query, &mut scratch.page);
        }
        reasons.note(Rule::CleanRedirect, &scratch.page);
        self.redirect_to_page(StatusCode::PERMANENT_REDIRECT, answer);
        true
    }

    /// Responds with the open file as the page of an error. Conditions and ranges are for successful responses.
    fn error_page(&mut self, refusal: Refusal, answer: &mut ResponseBuilder<'_>) {
        let (rule, status, message) = refusal.row();
        answer.buf.reasons.note(rule, b"");
        answer.buf.reasons.note(Rule::ErrorPage, &answer.buf.scratch.path);
        unconditional(answer);
        set(&mut answer.buf.scratch.message, message);
        let (kind, len) = (self.kind(answer), self.opened.len());
        kind.explain(answer);
        answer.error_head(status, |head: &mut HeadOut<'_>, _| {
            kind.write(head);
            head.number("Content-Length: ", len);
        });
        Files::send_part(FilePart { offset: 0, left: len }, answer);
        answer.end();
        self.state = State::Written;
    }
}

/// The length of the path of a page without its extension, unless nothing would be left of its name.
fn bare(path: &[u8]) -> Option<usize> {
    let bare = path.strip_suffix(HTML)?;
    (!bare.is_empty() && !bare.ends_with(b"/")).then_some(bare.len())
}

fn set(out: &mut Vec<u8>, text: &str) {
    out.clear();
    out.extend_from_slice(text.as_bytes());
}

//! The task that produces the response to a request: files, a script, or the handler. The choice is made here; how each
//! of them works is in its own module.

use crate::cgi::{self, Cgi, ScriptAt};
use crate::error::Violation;
use crate::exchange::{BodyUse, PathOf, Phrase, Progress, ResponseBuilder, Server};
use crate::files::Files;
use crate::handler_task::HandlerTask;
use crate::path::{Forbidden, explain_path, is_same_path};
use crate::policy::Route;
use crate::reason::Rule;
use crate::status::StatusCode;
use crate::wire::{Method, Outbound, Span};

/// What produces the response.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// The response is written already, there is no request, or its body has to be read first.
    None,
    Files(Files),
    /// Boxed: a script needs much more memory, and a connection without one should be small.
    Cgi(Box<Cgi>),
    Handler(HandlerTask),
}

impl Task {
    /// Chooses the task for a request with a valid head.
    pub(crate) fn of(response: &mut ResponseBuilder<'_>) -> Task {
        if is_health(response) || response.ruling().is_some() {
            return Task::serve(response);
        }
        match response.cx.policy.route(&response.request()) {
            Route::Handler => Task::Handler(HandlerTask::default()),
            Route::Usual if response.cx.config.handled => Task::Handler(HandlerTask::default()),
            Route::Usual | Route::Files => Task::serve(response),
        }
    }

    /// Chooses a script or files. Files do not use a body: a small one is read first, so that the response does not
    /// depend on how much of it has arrived; a large one closes the connection.
    pub(crate) fn serve(response: &mut ResponseBuilder<'_>) -> Task {
        let (method, name) = (response.buf.head.method, response.buf.head.method_name);
        if response.buf.moved.is_empty() && is_health(response) {
            respond_health(response);
            return Task::None;
        }
        if let Some(ruling) = response.ruling().filter(|_| response.buf.moved.is_empty()) {
            if response.settle_body() {
                response.respond_ruling(&ruling);
            }
            return Task::None;
        }
        let script = match cgi::find(response) {
            Ok(script) => script,
            Err(Forbidden::Nul) => {
                if response.settle_body() {
                    response.refuse(Violation::NulInPath, Span::default());
                }
                return Task::None;
            }
        };
        response.exchange.is_script = script.is_some();
        let has_scripts = !response.cx.config.cgi.directories.is_empty();
        let service = Service::of(method, script, has_scripts);
        // If the request was redirected here, its body has been read already.
        let is_wanted = matches!(service, Service::Script(_)) && response.buf.moved.is_empty();
        if !is_wanted && !response.settle_body() {
            return Task::None;
        }
        response.explain(|request, scratch, reasons| {
            if has_scripts {
                reasons.note(if script.is_some() { Rule::ScriptPath } else { Rule::NotScript }, &scratch.path);
            }
            if let Some(rule) = service.rule() {
                reasons.note(rule, request.method());
            }
            if let Service::Script(_) = service {
                explain_path(request, scratch.path.strip_suffix(b"/").unwrap_or(&scratch.path), reasons);
            }
        });
        match service {
            Service::Script(from) => return Task::Cgi(Cgi::start(from, response.cx.now.tick)),
            Service::Files => return Files::start(response).map_or(Task::None, Task::Files),
            Service::Options => respond_options(response),
            // The message quotes the method.
            Service::Refused(violation) => response.refuse(violation, name),
        }
        Task::None
    }

    /// Advances as far as possible.
    #[inline(always)]
    pub(crate) fn advance(&mut self, response: &mut ResponseBuilder<'_>) -> Progress {
        match self {
            Task::Cgi(cgi) => cgi.advance(response),
            Task::Handler(handler) => handler.advance(response),
            Task::Files(_) | Task::None
                if !response.cycle.is_answering()
                    || response.exchange.body == BodyUse::Dropped
                    || response.has_unsent() =>
            {
                Progress::Stalled
            }
            Task::Files(files) => files.advance(response),
            Task::None if response.cycle.outbound == Outbound::Owed => Progress::Serve,
            Task::None => Progress::Stalled,
        }
    }
}

/// What serves a request that is not routed to the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// The script whose name begins at this position of the path.
    Script(ScriptAt),
    Files,
    /// The server itself: a response to OPTIONS.
    Options,
    Refused(Violation),
}

impl Service {
    /// `script` is set if the target is the path of a script.
    fn of(method: Method, script: Option<ScriptAt>, has_scripts: bool) -> Service {
        match (method, script) {
            (_, Some(from)) if cgi::is_method(method) => Service::Script(from),
            (Method::Get | Method::Head, _) => Service::Files,
            (Method::Options, _) => Service::Options,
            (Method::Post, _) if has_scripts => Service::Refused(Violation::PostToFile),
            (Method::Post | Method::Trace | Method::Connect | Method::Other, _) => {
                Service::Refused(Violation::UnsupportedMethod)
            }
        }
    }

    /// The rule to record. A violation is recorded separately.
    fn rule(self) -> Option<Rule> {
        match self {
            Service::Script(_) => Some(Rule::MethodOfScripts),
            Service::Files => Some(Rule::MethodOfFiles),
            Service::Options => Some(Rule::MethodOptions),
            Service::Refused(_) => None,
        }
    }
}

/// Whether the request is for the health check, in any spelling of its path.
#[inline(always)]
fn is_health(response: &ResponseBuilder<'_>) -> bool {
    let health = response.cx.config.health.as_deref();
    health.is_some_and(|path| is_same_path(response.request().path(), path.as_bytes()))
}

/// Responds to the health check.
fn respond_health(response: &mut ResponseBuilder<'_>) {
    if !response.settle_body() {
        return;
    }
    let (status, text): (_, &[u8]) = match response.server {
        Server::Stays => (StatusCode::OK, b"ok\n"),
        Server::Leaves | Server::Drains => (StatusCode::SERVICE_UNAVAILABLE, b"going down\n"),
    };
    response.explain(|request, _, reasons| reasons.note(Rule::HealthPath, request.path()));
    response.exchange.path = PathOf::Health;
    match response.buf.head.method {
        Method::Get | Method::Head => {
            response.head(status, Phrase::Usual, |head, _| {
                head.field("Content-Type: ", b"text/plain; charset=utf-8")
                    .number("Content-Length: ", text.len() as u64)
                    .field("Cache-Control: ", b"no-store");
            });
            response.end_with(text);
        }
        Method::Options => respond_options(response),
        Method::Post | Method::Connect | Method::Trace | Method::Other => {
            response.refuse(Violation::UnsupportedMethod, response.buf.head.method_name);
        }
    }
}

fn respond_options(response: &mut ResponseBuilder<'_>) {
    let allow = response.allow();
    response.buf.reasons.note(Rule::Allow, allow);
    response.empty(StatusCode::NO_CONTENT, |head, _| {
        head.field("Allow: ", allow);
    });
}

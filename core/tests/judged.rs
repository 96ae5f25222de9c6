//! Checks the judge against the transcripts of the core, which have been reviewed: it must accept them, and reject
//! modified ones.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpus")]

mod corpus;

use sanserve_core::{Call, Fields, Handler, HandlerError, Policy, Reply, Request, Route, StatusCode, Tick, Wait};
use sanserve_testing::{Server, judge};
use sanserve_transcript::{Finish, Line, What};

/// Transcripts whose handler waits for something that never happens. A world does not permit that.
const HANGING: &[&str] = &[
    "handler-begun-in-drain",
    "handler-cut",
    "handler-drain",
    "handler-failed",
    "handler-peer-gone",
    "handler-stream-drain",
    "handler-wake",
];

/// The policy of a transcript.
struct Named(Box<dyn Policy>);

impl Policy for Named {
    fn route(&self, request: &Request<'_>) -> Route {
        self.0.route(request)
    }

    fn fields(&self, request: &Request<'_>, status: StatusCode, fields: &mut Fields<'_>) {
        self.0.fields(request, status, fields);
    }

    fn expect_continue(&self, request: &Request<'_>) -> Result<(), StatusCode> {
        self.0.expect_continue(request)
    }
}

/// The handler of a transcript.
struct Called(Box<dyn Handler>);

impl Handler for Called {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        self.0.call(call, reply)
    }
}

fn server(name: &str) -> Server<'_> {
    Server::new().policy(Named(corpus::world(name).0)).handler(|| Called(corpus::world(name).1))
}

/// All transcripts without their comments, which a replay does not have.
fn cases() -> Vec<corpus::Case> {
    let mut cases = corpus::load();
    cases.iter_mut().for_each(|case| case.transcript.lines.retain(|line| matches!(line, Line::Event(_))));
    cases
}

#[test]
fn transcripts_are_accepted_and_replayed() {
    let mut failures = Vec::new();
    for case in cases() {
        match server(&case.transcript.settings.site).replay(&case.transcript) {
            Ok(played) => {
                failures.extend(case.transcript.first_difference(&played).map(|d| format!("{}: {d}", case.name)))
            }
            Err(failure) if HANGING.contains(&case.name.as_str()) && failure.what.starts_with("handler: ") => {}
            Err(failure) => failures.push(format!("{}: {}", case.name, failure.what)),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Whether a transcript is about scripts.
fn has_scripts(case: &corpus::Case) -> bool {
    !case.transcript.settings.config.cgi.directories.is_empty()
}

/// Modifies each suitable event, one at a time, of the transcripts with or without scripts. Returns how many there
/// were, and how many were noticed.
fn modify(scripts: bool, change: impl Fn(&What) -> Option<What>) -> (usize, usize) {
    let (mut all, mut found) = (0, 0);
    for case in cases().into_iter().filter(|case| has_scripts(case) == scripts) {
        judge(&case.transcript).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        for at in 0..case.transcript.lines.len() {
            let mut modified = case.transcript.clone();
            let Line::Event(event) = &mut modified.lines[at] else { continue };
            let Some(what) = change(&event.what) else { continue };
            event.what = what;
            all += 1;
            found += usize::from(judge(&modified).is_err());
        }
    }
    (all, found)
}

/// At least 95 percent.
fn is_nearly_all(found: usize, all: usize) -> bool {
    found * 20 >= all * 19
}

/// Timers that were never armed, or are a millisecond too late or too early. After a request that the judge does not
/// model, it knows no timers, so it misses some of them.
#[test]
fn a_wrong_deadline_is_noticed() {
    let moved = |by: i64| {
        move |what: &What| match what {
            What::Wait(wait) => {
                let deadline = Some(Tick(wait.deadline?.0.saturating_add_signed(by)));
                Some(What::Wait(Wait { deadline, ..*wait }))
            }
            _ => None,
        }
    };
    let (all, found) = modify(false, moved(1));
    assert!(all > 400 && is_nearly_all(found, all), "{found} of {all}: late");
    // Only the earliest of several timers is known exactly.
    let (all, found) = modify(false, moved(-1));
    assert!(found * 5 >= all * 4, "{found} of {all}: early");
    let (all, found) = modify(false, |what| match what {
        What::Wait(wait) => wait.deadline.map(|_| What::Wait(Wait { deadline: None, ..*wait })),
        _ => None,
    });
    assert!(is_nearly_all(found, all), "{found} of {all}: never");
    // The timeout of a body that a script is fed depends on what the script has read.
    let (all, found) = modify(true, moved(1));
    assert!(all > 400 && found * 10 >= all * 9, "{found} of {all}: late, with scripts");
}

#[test]
fn a_log_entry_that_does_not_match_is_noticed() {
    for (scripts, least) in [(false, 300), (true, 130)] {
        // The judge knows less about a script's response that ends with the connection.
        let is_nearly_all =
            |found: usize, all: usize| if scripts { found * 10 >= all * 9 } else { is_nearly_all(found, all) };
        let (all, found) = modify(scripts, |what| match what {
            What::Finished(finish) => Some(What::Finished(Finish { status: finish.status ^ 1, ..finish.clone() })),
            _ => None,
        });
        assert!(all > least && is_nearly_all(found, all), "{found} of {all}: the status");
        let (all, found) = modify(scripts, |what| match what {
            What::Finished(finish) => Some(What::Finished(Finish { sent: finish.sent + 1, ..finish.clone() })),
            _ => None,
        });
        assert!(is_nearly_all(found, all), "{found} of {all}: the size");
        let (all, found) = modify(scripts, |what| match what {
            // As if the entry were missing.
            What::Finished(_) => Some(What::Tick),
            _ => None,
        });
        assert!(is_nearly_all(found, all), "{found} of {all}: the whole entry");
    }
}

/// A server that refuses a well-formed request breaks a rule, as if a decoder or the parser of heads had a bug.
#[test]
fn a_refusal_of_a_well_formed_request_is_noticed() {
    const CHUNKED: &str = "POST /h HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = |body: &str| format!("{CHUNKED}{body}");
    for (bad, good) in [
        ("GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n".into(), "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n".into()),
        ("GET /\tHTTP/1.1\r\nHost: x\r\n\r\n".into(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        ("GET / HTTP/1.1\r\nHost: x y\r\n\r\n".into(), "GET / HTTP/1.1\r\nHost: x.y:80\r\n\r\n".into()),
        ("GET / HTTP/1.1\r\nA: b\r\n\r\n".into(), "GET / HTTP/1.1\r\nHost: b\r\n\r\n".into()),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n".into(),
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n".into(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".into(),
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n".into(),
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000)),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        ),
        (chunked("x\r\n"), chunked("a\r\n")),
        (chunked("5;\r\nhello\r\n"), chunked("5;a=b;c\r\nhello\r\n")),
        (chunked("5\r\nhello!\r\n"), chunked("5\r\nhello\r\n")),
        (chunked("0\r\nA b\r\n\r\n"), chunked("0\r\nA: b\r\n\r\n")),
    ] {
        let reads = |call: Call, reply: &mut Reply<'_>| {
            if matches!(call, Call::Request | Call::Body) {
                while let sanserve_core::Received::Data(data) = reply.receive() {
                    let n = data.len();
                    reply.consume(n);
                }
            }
            Ok(())
        };
        let mut peer = Server::new().handler(move || reads).connect();
        peer.send(&bad);
        let mut transcript = peer.transcript();
        assert!(judge(&transcript).is_ok() && peer.log().len() == 1, "{bad}");
        // The same response to another request, which arrived as a whole.
        let Some(Line::Event(event)) = transcript
            .lines
            .iter_mut()
            .find(|line| matches!(line, Line::Event(event) if matches!(event.what, What::Recv(_))))
        else {
            panic!("nothing was received: {bad}")
        };
        event.what = What::Recv(good.clone().into_bytes());
        let wrong = judge(&transcript).expect_err(&good);
        assert!(wrong.starts_with("refused: 4") && wrong.contains(" to a well-formed request: "), "{good}: {wrong}");
    }
}

//! The rules that are recorded for a response: a table of requests, each with the results of the actions and the rules
//! that decide.

use std::net::SocketAddr;

use sanserve_core::{
    Action, Buffers, Cause, Cgi, Chunked, Completion, Config, Connection, Context, DefaultPolicy, EntryKind, Etag,
    FsError, Input, Kind, Listed, MediaTypes, Now, Opened, Peer, Policy, Protocol, Rule, Rules, ScriptFile, SpawnError,
    Stage, Step, Tick, Violation, Wall,
};

const NOW: i64 = 784_111_777;
const FILE: Opened = Opened { kind: Kind::File, len: 10, modified: NOW - 60, modified_nanos: 5, digest: None };
const FRESH: Opened = Opened { modified: NOW, ..FILE };
const LATER: Opened = Opened { modified: NOW + 60, ..FILE };
const NOTHING: Opened = Opened { len: 0, ..FILE };
const FOLDER: Opened = Opened { kind: Kind::Directory, ..FILE };
/// The tag of `FILE`.
const TAG: &str = "\"2ebc9865-5-a\"";
/// The date of `FILE`, the second before, and the date of `NOW`.
const DATE: &str = "Sun, 06 Nov 1994 08:48:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:48:36 GMT";
const TODAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// The result of an action.
#[derive(Clone, Copy)]
enum Outcome {
    Is(Opened),
    Fails(FsError),
    Lists(&'static [&'static str]),
    Unlisted,
    Found(ScriptFile),
    Unspawned,
    Runs,
}
use Outcome::*;

/// A request, with the configuration, the policy and the results of the actions.
struct Case<'a> {
    config: Config,
    policy: &'a dyn Policy,
    bytes: Vec<u8>,
    outcomes: &'a [Outcome],
}

/// The rules that were recorded until the exchange finished or a script would run, and the status.
fn run(case: &Case<'_>) -> (Vec<(Cause, String)>, u16) {
    let now = Now::new(Tick(0), Wall(NOW));
    let cx = Context { config: &case.config, policy: case.policy, now: &now };
    let mut buf = Buffers::new();
    buf.explain();
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
    assert_eq!(buf.input.fill(&case.bytes), case.bytes.len());
    let mut outcomes = case.outcomes.iter().copied();
    let mut status = 0;
    for _ in 0..100 {
        let input = match connection.poll(&mut buf, &cx) {
            Step::Send(transmit) => Input::Sent(transmit.len()),
            Step::Act(ticket, action) => Input::Done(
                ticket,
                match (action, outcomes.next().expect("the table has no more outcomes")) {
                    (Action::Open { .. } | Action::OpenIn { .. }, Is(opened)) => Completion::Opened(Ok(opened)),
                    (Action::Open { .. } | Action::OpenIn { .. }, Fails(error)) => Completion::Opened(Err(error)),
                    (Action::List { into }, Lists(names)) => {
                        names.iter().for_each(|name| _ = into.push(name.as_bytes(), EntryKind::File));
                        Completion::Listed(Ok(Listed::End))
                    }
                    (Action::List { .. }, Unlisted) => Completion::Listed(Err(FsError::Denied)),
                    (Action::Find { path, .. }, Found(what)) => {
                        Completion::Found(Ok(sanserve_core::Found { len: path.len(), what }))
                    }
                    (Action::Spool, Runs) => Completion::Spooled(Ok(())),
                    (Action::Spawn(_), Unspawned) => Completion::Spawned(Err(SpawnError::Failed)),
                    (action, _) => panic!("an outcome that does not fit {action:?}"),
                },
            ),
            Step::Feed(bytes) => Input::Fed(bytes.len() as u64),
            Step::Finished(entry) => {
                status = entry.status;
                break;
            }
            Step::Wait(_) => Input::Eof,
            step => panic!("{step:?}"),
        };
        connection.handle(input);
    }
    assert_ne!(status, 0, "no response to {}", case.bytes.escape_ascii());
    let recorded = buf.reasons().iter().map(|reason| (reason.cause, reason.value.escape_ascii().to_string())).collect();
    // The reasons are only those of one exchange.
    let _ = connection.poll(&mut buf, &cx);
    assert_eq!(buf.reasons(), []);
    (recorded, status)
}

/// A row: the request, the results of the actions, the status, and the rules that must be among those recorded, each
/// optionally with its value after a space.
type Row = (String, &'static [Outcome], u16, &'static [&'static str]);

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

fn file(fields: &str, status: u16, rules: &'static [&'static str]) -> Row {
    (get("/a.txt", fields), &[Is(FILE)], status, rules)
}

fn rows() -> Vec<Row> {
    vec![
        // Requests.
        file("", 200, &["version HTTP/1.1", "host h", "no-body ", "method GET", "origin-form /a.txt", "path a.txt"]),
        ("GET /a HTTP/1.3\r\nHost: h\r\n\r\n".into(), &[Is(FILE)], 200, &["version-later HTTP/1.3", "persistent "]),
        (
            "GET /a HTTP/1.0\r\n\r\n".into(),
            &[Is(FILE)],
            200,
            &["version-old", "host-optional", "close-of-1.0", "closes close"],
        ),
        (
            "GET /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: x\r\n\r\n".into(),
            &[Is(FILE)],
            200,
            &["keep-alive-asked", "expect-ignored", "stays-open keep-alive"],
        ),
        (get("http://o/a", ""), &[Is(FILE)], 200, &["absolute-form http://o/a", "host-of-target o"]),
        (get("http://o?q", ""), &[Is(FOLDER), Is(FILE)], 200, &["empty-path /", "query ?q", "path ."]),
        file("Content-Length: 3\r\n\r\nabc", 200, &["body-length 3", "body-dropped"]),
        file("Content-Length: 70000\r\n", 200, &["body-length 70000", "body-unread", "closes close"]),
        (
            get("/a", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            &[Is(FILE)],
            200,
            &["body-chunked", "body-dropped", "stays-open (no field)"],
        ),
        file(
            "Expect: 100-continue\r\nContent-Length: 3\r\n",
            200,
            &["expect-continue", "expect-answered", "closes close"],
        ),
        file("Expect: 100-continue\r\n", 200, &["expect-without-body", "stays-open"]),
        (
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            &[],
            204,
            &["asterisk-form", "method-options OPTIONS", "allow GET, HEAD, OPTIONS", "no-content"],
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n".into(), &[], 501, &["authority-form a:1", "UnsupportedMethod"]),
        // Targets.
        (
            get("///a//b/./../c/../../../d%20%zz#f", ""),
            &[Is(FILE)],
            200,
            &[
                "leading-slashes /a//b/./../c/../../../d%20%zz#f",
                "fragment #f",
                "percent-decoding /a//b/./../c/../../../d %zz",
                "bad-escape",
                "dot-segments",
                "clamped",
                "double-slashes",
                "path d %zz",
            ],
        ),
        (
            get("/a/?q=1", ""),
            &[Is(FILE)],
            404,
            &["query ?q=1", "trailing-slash", "file-with-slash", "page text/html;charset=utf-8"],
        ),
        (get("/%00", ""), &[], 400, &["NulInPath Bad Request", "stays-open"]),
        // Files.
        (get("/d", "If-Match: \"x\"\r\n"), &[Is(FOLDER)], 301, &["slash-redirect /d/", "conditions-ignored", "empty"]),
        (
            get("/d/", ""),
            &[Is(FOLDER), Fails(FsError::NotFound), Is(FILE)],
            200,
            &[
                "index-tried index.html",
                "index-tried index.htm",
                "index-chosen d/index.htm",
                "file d/index.htm",
                "extension text/html",
            ],
        ),
        (
            get("/d/", ""),
            &[Is(FOLDER), Fails(FsError::NotFound), Fails(FsError::NotFound), Lists(&["a"])],
            200,
            &["listing ", "page text/html; charset=utf-8", "content-length"],
        ),
        (
            get("/d/", "If-Modified-Since: Sun, 06 Nov 1994 08:48:37 GMT\r\n"),
            &[Is(FOLDER), Is(FOLDER), Fails(FsError::NotFound), Lists(&[])],
            200,
            &["no-date Sun, 06 Nov 1994 08:48:37 GMT"],
        ),
        (get("/d/", ""), &[Is(FOLDER), Fails(FsError::Denied)], 404, &["index-tried index.html", "not-found"]),
        (get("/d/", ""), &[Is(FOLDER), Fails(FsError::NotFound), Fails(FsError::Failed)], 404, &["not-found"]),
        (
            get("/d/", ""),
            &[Is(FOLDER), Fails(FsError::NotFound), Fails(FsError::NotFound), Unlisted],
            404,
            &["listing-denied"],
        ),
        (get("/n", "If-None-Match: *\r\n"), &[Fails(FsError::NotFound)], 404, &["not-found", "conditions-ignored"]),
        (get("/n", ""), &[Fails(FsError::Exhausted)], 503, &["exhausted"]),
        (
            get("/a", ""),
            &[Is(FILE)],
            200,
            &["file a", "last-modified Sun, 06 Nov 1994 08:48:37 GMT", "entity-tag \\\"2ebc9865-5-a\\\""],
        ),
        (get("/a", ""), &[Is(LATER)], 200, &["last-modified-now Sun, 06 Nov 1994 08:49:37 GMT"]),
        // Conditions.
        file(&format!("If-Match: \"x\", {TAG}\r\n"), 200, &["if-match-true"]),
        file(
            &format!("If-Match: W/{TAG}\r\nIf-Unmodified-Since: {BEFORE}\r\n"),
            412,
            &["if-match-false", "if-unmodified-since-overruled"],
        ),
        file(&format!("If-Unmodified-Since: {DATE}\r\n"), 200, &["if-unmodified-since-true"]),
        file(&format!("If-Unmodified-Since: {BEFORE}\r\n"), 412, &["if-unmodified-since-false"]),
        file("If-Unmodified-Since: x\r\n", 200, &["if-unmodified-since-invalid x"]),
        file(
            &format!("If-None-Match: {TAG}\r\nIf-Modified-Since: {DATE}\r\n"),
            304,
            &["if-none-match-false", "if-modified-since-overruled", "no-content"],
        ),
        file("If-None-Match: \"x\"\r\nIf-None-Match: \"y\"\r\n", 200, &["if-none-match-true \\\"x\\\", \\\"y\\\""]),
        file(&format!("If-Modified-Since: {DATE}\r\n"), 304, &["if-modified-since-false"]),
        file(&format!("If-Modified-Since: {BEFORE}\r\n"), 200, &["if-modified-since-true"]),
        file("If-Modified-Since: x\r\n", 200, &["if-modified-since-invalid"]),
        // Ranges.
        file("Range: bytes=1-3\r\n", 206, &["range bytes 1-3/10"]),
        file(
            "Range: bytes=0-1,5-6,9-,20-\r\n",
            206,
            &["ranges bytes 0-1/10", "ranges bytes 5-6/10", "ranges bytes 9-9/10", "range-beyond 20-"],
        ),
        file("Range: bytes=0-1,1-3\r\n", 206, &["ranges-joined 1-3", "range bytes 0-3/10"]),
        file("Range: bytes=10-\r\n", 416, &["range-beyond 10-", "range-unsatisfiable", "page"]),
        file("Range: lines=1-3\r\n", 200, &["range-unit lines=1-3"]),
        file("Range: bytes=3-1\r\n", 200, &["range-invalid bytes=3-1"]),
        file("Range: bytes=,\r\n", 200, &["range-invalid"]),
        file("Range: bytes=0-1\r\nRange: bytes=0-1\r\n", 200, &["range-repeated"]),
        (get("/a", "Range: bytes=-1\r\n"), &[Is(NOTHING)], 200, &["range-of-nothing"]),
        (
            "HEAD /a HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n".into(),
            &[Is(FILE)],
            200,
            &["range-without-get", "head-alone", "method HEAD"],
        ),
        file(&format!("Range: bytes=0-1\r\nIf-Range: {TAG}\r\n"), 206, &["if-range-tag", "range bytes 0-1/10"]),
        file(&format!("Range: bytes=0-1\r\nIf-Range: W/{TAG}\r\n"), 200, &["if-range-other-tag"]),
        file(&format!("Range: bytes=0-1\r\nIf-Range: {DATE}\r\n"), 206, &["if-range-date"]),
        file(&format!("Range: bytes=0-1\r\nIf-Range: {BEFORE}\r\n"), 200, &["if-range-other-date"]),
        (get("/a", &format!("Range: bytes=0-1\r\nIf-Range: {TODAY}\r\n")), &[Is(FRESH)], 200, &["if-range-fresh"]),
        file(&format!("Range: bytes=0-1\r\nIf-Range: {TAG}\r\nIf-Range: {TAG}\r\n"), 200, &["if-range-repeated"]),
        file("If-Range: x\r\n", 200, &["if-range-alone"]),
        (get("/a.txt", ""), &[Is(Opened { modified: 1, modified_nanos: 0, ..FILE })], 200, &["no-validators 1"]),
        (
            get("/a.txt", ""),
            &[Is(Opened { digest: Some([1; 12]), ..FILE })],
            200,
            &["entity-tag-of-content \\\"010101010101010101010101\\\""],
        ),
        // Types.
        file("", 200, &["extension text/plain", "charset utf-8"]),
        (get("/a.js", ""), &[Is(FILE)], 200, &["extension-of-python text/javascript"]),
        (get("/a.tar.gz", ""), &[Is(FILE)], 200, &["compressed application/gzip"]),
        (get("/a.rpm", ""), &[Is(FILE)], 200, &["extension-of-ours application/x-rpm"]),
        (get("/a.svgz", ""), &[Is(FILE)], 200, &["extension-of-encoded image/svg+xml", "content-encoding gzip"]),
        (get("/a.zzz", ""), &[Is(FILE)], 200, &["extension-unknown application/octet-stream"]),
        (get("/.a", ""), &[Is(FILE)], 200, &["extension-missing application/octet-stream"]),
        // Responses.
        file("Connection: close\r\n", 200, &["close-asked", "closes close", "content-length"]),
        file("Host: x\r\n", 400, &["HostRepeated", "close-of-violation", "closes close"]),
        ("GET /a HTTP/1.1\n\n".into(), &[], 400, &["BareLf Bad Request", "close-of-violation"]),
    ]
}

#[test]
fn each_decision_records_its_rule() {
    let mut failures = String::new();
    for (request, outcomes, status, rules) in rows() {
        check(Config::default(), &DefaultPolicy, &request, outcomes, status, rules, &mut failures);
    }
    for (config, policy, request, outcomes, status, rules) in special().into_iter().chain(ruled()) {
        check(config, policy, &request, outcomes, status, rules, &mut failures);
    }
    assert!(failures.is_empty(), "{failures}");
}

fn check(
    config: Config,
    policy: &dyn Policy,
    request: &str,
    outcomes: &[Outcome],
    status: u16,
    rules: &[&str],
    failures: &mut String,
) {
    let (recorded, answered) = run(&Case { config, policy, bytes: request.into(), outcomes });
    let recorded: Vec<String> = recorded.iter().map(|(cause, value)| format!("{} {value}", name(*cause))).collect();
    let is_recorded =
        |rule: &&str| recorded.iter().any(|recorded| recorded == rule || recorded.split(' ').next() == Some(rule));
    let missing: Vec<&&str> = rules.iter().filter(|rule| !is_recorded(rule)).collect();
    if answered != status || !missing.is_empty() {
        *failures +=
            &format!("{}\n  {answered}, not recorded: {missing:?}\n  recorded: {recorded:?}\n", request.escape_debug());
    }
}

fn name(cause: Cause) -> String {
    match cause {
        Cause::Rule(rule) => rule.name().into(),
        Cause::Violation(violation) => format!("{violation:?}"),
    }
}

type Special = (Config, &'static dyn Policy, String, &'static [Outcome], u16, &'static [&'static str]);

/// Requests that need a configuration or a policy of their own.
fn special() -> Vec<Special> {
    let config = Config::default;
    let old = || config().with_protocol(Protocol::Http10);
    let cgi = || config().with_cgi(Cgi::python());
    let mut few = config();
    (few.limits.ranges, few.limits.listing) = (1, 1);
    let health = || config().with_health("/up");
    let hidden = config().with_hide_dotfiles(true);
    let refuse = config().with_cgi(Cgi::python().with_chunked(Chunked::Refuse));
    let chunked = "POST /cgi-bin/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let types = MediaTypes::default().with(".foo", "a/foo").and_then(|types| types.with_unknown("text/x-any")).unwrap();
    let typed = || config().with_types(types.clone());
    vec![
        (
            config().with_etag(Etag::Off),
            &DefaultPolicy,
            get("/a", ""),
            &[Is(FILE)],
            200,
            &["no-entity-tag", "last-modified"],
        ),
        (typed(), &DefaultPolicy, get("/a.foo", ""), &[Is(FILE)], 200, &["type-of-config a/foo"]),
        (typed(), &DefaultPolicy, get("/a", ""), &[Is(FILE)], 200, &["type-of-config text/x-any", "charset utf-8"]),
        (typed(), &DefaultPolicy, get("/a.bin", ""), &[Is(FILE)], 200, &["extension application/octet-stream"]),
        (
            old(),
            &DefaultPolicy,
            get("/a", ""),
            &[Is(FILE)],
            200,
            &["persistent", "close-of-protocol", "closes (no field)"],
        ),
        (health(), &DefaultPolicy, get("/up?x", ""), &[], 200, &["health /up", "content-length", "stays-open"]),
        (
            health(),
            &DefaultPolicy,
            "OPTIONS /up HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            &[],
            204,
            &["health /up", "allow GET, HEAD, OPTIONS"],
        ),
        (hidden, &DefaultPolicy, get("/.a/b", ""), &[], 404, &["hidden-dotfile", "path .a/b"]),
        (
            few.clone(),
            &DefaultPolicy,
            get("/a", "Range: bytes=0-0,3-3\r\n"),
            &[Is(FILE)],
            200,
            &["ranges-too-many bytes=0-0,3-3"],
        ),
        (
            few,
            &DefaultPolicy,
            get("/d/", ""),
            &[Is(FOLDER), Fails(FsError::NotFound), Fails(FsError::NotFound), Lists(&["a"])],
            500,
            &["listing-too-large"],
        ),
        (config(), &Mine, get("/a.txt", ""), &[Is(FILE)], 200, &["site-path else", "site-type a/b"]),
        (cgi(), &DefaultPolicy, get("/a", ""), &[Is(FILE)], 200, &["no-script a"]),
        (
            cgi(),
            &DefaultPolicy,
            get("/a/../cgi-bin/%78/", ""),
            &[Found(ScriptFile::Missing)],
            404,
            &[
                "script-path cgi-bin/x/",
                "dot-segments",
                "percent-decoding /a/../cgi-bin/x/",
                "path cgi-bin/x",
                "trailing-slash",
            ],
        ),
        (
            cgi(),
            &DefaultPolicy,
            get("/cgi-bin/x", ""),
            &[Found(ScriptFile::Missing)],
            404,
            &["script-path cgi-bin/x", "method-of-scripts GET", "script-refused No such CGI script (\\'/cgi-bin/x\\')"],
        ),
        (
            cgi(),
            &DefaultPolicy,
            get("/cgi-bin/x", ""),
            &[Found(ScriptFile::Runnable), Unspawned],
            502,
            &["script cgi-bin/x", "script-refused"],
        ),
        (
            cgi(),
            &DefaultPolicy,
            chunked.into(),
            &[Found(ScriptFile::Runnable), Runs, Unspawned],
            502,
            &["body-spooled"],
        ),
        (
            cgi(),
            &DefaultPolicy,
            "POST /cgi-bin/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".into(),
            &[Found(ScriptFile::Runnable), Unspawned],
            502,
            &["body-gathered"],
        ),
        (
            refuse,
            &DefaultPolicy,
            chunked.into(),
            &[Found(ScriptFile::Runnable)],
            411,
            &["LengthRequired Length Required"],
        ),
        (
            cgi(),
            &DefaultPolicy,
            "POST /a HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            &[],
            501,
            &["PostToFile Not Implemented"],
        ),
    ]
}

const NOTHING_THERE: Outcome = Fails(FsError::NotFound);
const NAVIGATION: &str = "Accept: text/html\r\n";

/// Rules in the form of the flags of the command.
fn with(config: Config, rules: &[&str]) -> Config {
    let rules = rules.iter().try_fold(Rules::new(), |rules, rule| {
        let (name, value) = rule.split_once(' ').unwrap_or((rule, ""));
        rules.with_text(name, value)
    });
    config.with_rules(rules.expect("valid rules"))
}

/// Requests that rules of a site decide about.
fn ruled() -> Vec<Special> {
    let preflight = "OPTIONS /a HTTP/1.1\r\nHost: h\r\nOrigin: http://o\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    let row = |rules: &[&str], request: String, outcomes, status, expected| -> Special {
        (with(Config::default(), rules), &DefaultPolicy, request, outcomes, status, expected)
    };
    vec![
        row(&["cors"], preflight.into(), &[], 204, &["cors-preflight http://o", "cors Access-Control-Allow-Origin: *"]),
        row(&["redirect /a=/b"], get("/a?q", ""), &[], 308, &["redirect /b?q"]),
        row(&["route-prefix /b"], get("/b/a", ""), &[Is(FILE)], 200, &["route-prefix a", "file a"]),
        row(&["route-prefix /b"], get("/b/", ""), &[Is(FOLDER), Is(FILE)], 200, &["route-prefix ."]),
        row(&["route-prefix /b"], get("/a", ""), &[], 404, &["outside-prefix"]),
        row(
            &["no-listing"],
            get("/d/", ""),
            &[Is(FOLDER), NOTHING_THERE, NOTHING_THERE],
            404,
            &["index-tried index.htm", "listing-off", "page-guard "],
        ),
        row(&["clean-urls"], get("/a", ""), &[NOTHING_THERE, Is(FILE)], 200, &["clean-url a.html", "file a.html"]),
        row(&["clean-urls"], get("/a.html", ""), &[NOTHING_THERE, Is(FILE)], 308, &["clean-url-redirect /a"]),
        row(&["spa"], get("/a", NAVIGATION), &[NOTHING_THERE, Is(FILE)], 200, &["spa index.html"]),
        row(&["spa"], get("/a", ""), &[NOTHING_THERE], 404, &["spa-unasked", "not-found"]),
        row(
            &["error-page 404=e.html"],
            get("/a", ""),
            &[NOTHING_THERE, Is(FILE)],
            404,
            &["not-found", "error-page e.html"],
        ),
        row(
            &["error-page 404=e"],
            get("/a", ""),
            &[NOTHING_THERE, NOTHING_THERE],
            404,
            &["error-page-missing e", "not-found"],
        ),
        row(
            &["header *.x=Content-Type: a/b", "header *.x=Content-Encoding: c"],
            get("/a.x", ""),
            &[Is(FILE)],
            200,
            &["type-of-header a/b", "content-encoding c"],
        ),
        row(
            &["nosniff", "isolate", "cache 5", "header-always X-A: b", "header X-C: d"],
            get("/a", ""),
            &[Is(FILE)],
            200,
            &[
                "nosniff X-Content-Type-Options: nosniff",
                "isolate Cross-Origin-Opener-Policy: same-origin",
                "cache Cache-Control: max-age=5",
                "header-always X-A: b",
                "header X-C: d",
            ],
        ),
    ]
}

/// Of two stages that could decide, the first one does.
#[test]
fn the_first_stage_decides() {
    const ALL: [&str; 8] = [
        "cors",
        "redirect /up=/r2",
        "redirect /r=/r2",
        "route-prefix /b",
        "index main.html",
        "clean-urls",
        "spa",
        "error-page 404=404.html",
    ];
    let config = || with(Config::default().with_health("/up").with_hide_dotfiles(true).with_cgi(Cgi::python()), &ALL);
    let preflight = |path: &str| {
        format!("OPTIONS {path} HTTP/1.1\r\nHost: h\r\nOrigin: http://o\r\nAccess-Control-Request-Method: GET\r\n\r\n")
    };
    let page = |path: &str| get(path, NAVIGATION);
    let cases: &[(Stage, String, &[Outcome])] = &[
        (Stage::Health, preflight("/up"), &[]),
        (Stage::Preflight, preflight("/b/r"), &[]),
        (Stage::Redirect, page("/b/r"), &[]),
        // The handler, if there is one, is called: see below.
        (Stage::Script, page("/cgi-bin/x"), &[Found(ScriptFile::Missing)]),
        (Stage::Prefix, page("/.a/x"), &[Is(FILE)]),
        (Stage::Hidden, page("/b/.a/x.html"), &[Is(FILE)]),
        (Stage::CleanRedirect, page("/b/a.html"), &[NOTHING_THERE, Is(FILE)]),
        (Stage::File, page("/b/a"), &[Is(FILE)]),
        (Stage::CleanUrl, page("/b/a"), &[Is(FOLDER), Is(FILE)]),
        (Stage::Slash, page("/b/a"), &[Is(FOLDER), NOTHING_THERE]),
        (Stage::Index, page("/b/a/"), &[Is(FOLDER), Is(FILE)]),
        (Stage::Listing, page("/b/a/"), &[Is(FOLDER), NOTHING_THERE, Lists(&["x"])]),
        (Stage::Spa, page("/b/a"), &[NOTHING_THERE, NOTHING_THERE, Is(FILE)]),
        (Stage::ErrorPage, page("/b/a"), &[NOTHING_THERE, NOTHING_THERE, NOTHING_THERE, Is(FILE)]),
    ];
    let decides = |stage: &&Stage| **stage < Stage::Fields && **stage != Stage::Handler;
    assert!(Stage::ALL.iter().filter(decides).eq(cases.iter().map(|(stage, ..)| stage)));
    assert!(Stage::ALL.is_sorted());
    for (stage, request, outcomes) in cases {
        let case = Case { config: config(), policy: &DefaultPolicy, bytes: request.clone().into(), outcomes };
        let (recorded, _) = run(&case);
        let is_recorded = |other: &Stage| {
            recorded.iter().any(|(cause, _)| matches!(cause, Cause::Rule(rule) if rule.name() == other.rule()))
        };
        // That a file is served is recorded with the reason why it is this one. The refusals have pages.
        let others = Stage::ALL.iter().filter(decides).filter(|other| {
            let of_refusal = matches!(stage, Stage::Prefix | Stage::Hidden) && **other == Stage::ErrorPage;
            *other != stage && **other != Stage::File && !of_refusal
        });
        assert!(is_recorded(stage), "{stage:?}: {recorded:?}");
        let wrong: Vec<_> = others.filter(|other| is_recorded(other)).collect();
        assert!(wrong.is_empty(), "{stage:?} and {wrong:?}: {recorded:?}");
    }
    // Rules come before a handler, and a handler before scripts and files.
    let config = config().with_handled(true);
    let now = Now::new(Tick(0), Wall(NOW));
    let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
    for (target, is_called) in [("/b/r", false), ("/up", false), ("/cgi-bin/x", true), ("/b/a", true), ("/else", true)]
    {
        let mut buf = Buffers::new();
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        buf.input.fill(get(target, "").as_bytes());
        assert_eq!(matches!(connection.poll(&mut buf, &cx), Step::Call(_)), is_called, "{target}");
    }
}

/// Each of the later stages replaces a field of those before it, if it sets the same one.
#[test]
fn the_last_stage_has_its_fields() {
    struct Own(bool);
    impl Policy for Own {
        fn fields(
            &self,
            _: &sanserve_core::Request<'_>,
            _: sanserve_core::StatusCode,
            fields: &mut sanserve_core::Fields<'_>,
        ) {
            if self.0 {
                fields.set("Cache-Control", b"policy").unwrap();
            }
        }
    }
    const STAGES: [(Stage, &str, &str); 4] = [
        (Stage::Cache, "cache 5", "max-age=5"),
        (Stage::HeaderAlways, "header-always Cache-Control: always", "always"),
        (Stage::Header, "header Cache-Control: header", "header"),
        (Stage::Policy, "", "policy"),
    ];
    assert!(Stage::ALL.ends_with(&STAGES.map(|(stage, ..)| stage)));
    for last in 0..STAGES.len() {
        let rules: Vec<&str> =
            STAGES[..=last].iter().rev().map(|(_, rule, _)| *rule).filter(|rule| !rule.is_empty()).collect();
        let (config, now) = (with(Config::default(), &rules), Now::new(Tick(0), Wall(NOW)));
        let policy = Own(STAGES[last].0 == Stage::Policy);
        let cx = Context { config: &config, policy: &policy, now: &now };
        let mut buf = Buffers::new();
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        buf.input.fill(get("/a", "").as_bytes());
        let Step::Act(ticket, _) = connection.poll(&mut buf, &cx) else { panic!() };
        connection.handle(Input::Done(ticket, Completion::Opened(Ok(FILE))));
        let Step::Send(transmit) = connection.poll(&mut buf, &cx) else { panic!() };
        let head = String::from_utf8_lossy(transmit.head);
        let values: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("Cache-Control: ")).collect();
        assert_eq!(values, [STAGES[last].2], "{head}");
    }
}

/// A policy that chooses another path and type.
struct Mine;

impl Policy for Mine {
    fn translate(&self, _: &[u8], out: &mut Vec<u8>) -> Result<(), sanserve_core::Forbidden> {
        out.extend_from_slice(b"else");
        Ok(())
    }

    fn media_type(&self, _: &[u8]) -> std::borrow::Cow<'static, str> {
        "a/b".into()
    }
}

/// Responses from files, and of refused scripts, always have a known length. The redirect needs a port of HTTPS.
const OF_OTHER_TESTS: [Rule; 3] = [Rule::FramedByChunks, Rule::FramedByClose, Rule::HttpsRedirect];

#[test]
fn every_rule_has_a_row() {
    let listed: Vec<&str> = rows()
        .iter()
        .flat_map(|row| row.3)
        .chain(special().iter().chain(&ruled()).flat_map(|row| row.5))
        .copied()
        .collect();
    for rule in Rule::ALL.iter().filter(|rule| !OF_OTHER_TESTS.contains(rule)) {
        assert!(listed.iter().any(|listed| listed.split(' ').next() == Some(rule.name())), "{rule:?} is in no row");
    }
}

#[test]
fn the_redirect_to_https_is_recorded() {
    let (config, now) = (Config::default(), Now::new(Tick(0), Wall(NOW)));
    let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
    let mut buf = Buffers::new();
    buf.explain();
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
    connection.handle(Input::Handshake);
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Wait(_)));
    connection.handle(Input::Unsecured);
    buf.input.fill(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Send(_)));
    let redirect = buf.reasons().iter().find(|reason| reason.cause == Cause::Rule(Rule::HttpsRedirect));
    assert_eq!(redirect.expect("it is recorded").value, b"https://h/a");
}

#[test]
fn the_framing_of_a_response_of_unknown_length_is_recorded() {
    use sanserve_core::{Call, Handler, Reply, StatusCode};
    for (version, expected) in [("HTTP/1.1", Rule::FramedByChunks), ("HTTP/1.0", Rule::FramedByClose)] {
        let config = Config::default().with_handled(true);
        let now = Now::new(Tick(0), Wall(NOW));
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut buf = Buffers::new();
        buf.explain();
        let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
        buf.input.fill(format!("GET / {version}\r\nHost: h\r\n\r\n").as_bytes());
        let Step::Call(call) = connection.poll(&mut buf, &cx) else { panic!() };
        let mut handler = |_: Call, reply: &mut Reply<'_>| {
            reply.respond(StatusCode::OK)?.send()?;
            Ok(reply.finish()?)
        };
        Handler::call(&mut handler, call, &mut connection.reply(&mut buf, &cx)).unwrap();
        assert!(buf.reasons().iter().any(|reason| reason.cause == Cause::Rule(expected)), "{version}");
    }
}

/// A refusal is explained by the sentence that documents the violation.
#[test]
fn violations_have_sentences() {
    assert_eq!(
        Violation::ObsFold.sentence(),
        "A field line begins with white space: obsolete line folding (RFC 9112 section 5.2)."
    );
    assert!(Violation::ALL.iter().all(|violation| violation.sentence().ends_with('.')));
}

#[test]
fn nothing_is_recorded_unless_enabled() {
    let (config, now) = (Config::default(), Now::new(Tick(0), Wall(NOW)));
    let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
    let mut buf = Buffers::new();
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
    buf.input.fill(get("/a.txt", "").as_bytes());
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Act(..)));
    assert_eq!(buf.reasons(), []);
    // Recording ends when the buffers are recycled for another peer.
    buf.explain();
    buf.recycle();
    buf.input.fill(get("/a.txt", "").as_bytes());
    let mut connection = Connection::new(Peer::from(SocketAddr::from(([127, 0, 0, 1], 1))), &cx);
    assert!(matches!(connection.poll(&mut buf, &cx), Step::Act(..)));
    assert_eq!(buf.reasons(), []);
}

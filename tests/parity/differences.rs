//! The permitted differences from Python. The reasons are explained in `docs/python.md`.

/// A difference that occurs in many cases.
pub struct General {
    /// The part of the answer.
    pub what: &'static str,
    /// The name of the reason.
    pub reason: &'static str,
    /// The version of Python that behaves like sanserve.
    pub until: Option<(u32, u32)>,
    /// Whether Python's value and ours differ in exactly this way.
    pub explains: fn(&str, &str) -> bool,
}

/// A difference of one case.
pub struct Particular {
    /// The name of the case.
    pub case: &'static str,
    /// The part of the answer, or all status codes of Python and of ours.
    pub what: &'static str,
    /// The name of the reason.
    pub reason: &'static str,
    /// The version of Python that behaves like sanserve.
    pub until: Option<(u32, u32)>,
}

/// The names of all reasons.
pub fn reasons() -> Vec<&'static str> {
    let rules = GENERAL.iter().chain(OF_SCRIPTS).map(|rule| rule.reason);
    let all = rules.chain(PARTICULAR.iter().chain(OF_SCRIPT).map(|row| row.reason));
    let all = all.chain(TYPES.iter().map(|row| row.2));
    let mut all: Vec<&str> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}

const fn row(case: &'static str, what: &'static str, reason: &'static str) -> Particular {
    Particular { case, what, reason, until: None }
}

const fn row_until(case: &'static str, what: &'static str, reason: &'static str, until: (u32, u32)) -> Particular {
    Particular { case, what, reason, until: Some(until) }
}

/// A page of Python before 3.14, with the style sheet that was added then.
fn with_style(page: &str) -> String {
    let style = "<style type=\"text/css\">\n:root {\ncolor-scheme: light dark;\n}\n</style>\n<title>Dir";
    let page = page.replacen("<title>Dir", style, 1);
    let style = "        <style type=\"text/css\">\n            :root {\n                color-scheme: light dark;\n            }\n        </style>\n        <title>Error";
    page.replacen("        <title>Error", style, 1)
}

/// Python announces a close after every error; sanserve continues if the framing is sound.
fn only_python_closes(python: &str, ours: &str) -> bool {
    python == "close" && ours.is_empty()
}

fn only_we_say(said: &str, python: &str, ours: &str) -> bool {
    python.is_empty() && ours == said
}

/// What sanserve says about its pages.
fn guards_page(python: &str, ours: &str) -> bool {
    python.is_empty() && (ours == "nosniff" || ours.starts_with("default-src 'none'; "))
}

/// Differences that occur in many cases.
pub const GENERAL: &[General] = &[
    General {
        what: "body",
        reason: "color-scheme",
        until: Some((3, 14)),
        explains: |python, ours| with_style(python) == ours,
    },
    General {
        what: "content-type",
        reason: "charset",
        until: None,
        explains: |python, ours| python.starts_with("text/") && ours == format!("{python}; charset=utf-8"),
    },
    General {
        what: "etag",
        reason: "etag",
        until: None,
        explains: |python, ours| python.is_empty() && ours.starts_with('"'),
    },
    General {
        what: "accept-ranges",
        reason: "ranges",
        until: None,
        explains: |python, ours| only_we_say("bytes", python, ours),
    },
    General { what: "x-content-type-options", reason: "page-guard", until: None, explains: guards_page },
    General { what: "content-security-policy", reason: "page-guard", until: None, explains: guards_page },
    General { what: "connection", reason: "errors-keep-connection", until: None, explains: only_python_closes },
    General {
        what: "connection",
        reason: "close-announced",
        until: None,
        explains: |python, ours| only_we_say("close", python, ours),
    },
    General {
        what: "connection",
        reason: "keep-alive-announced",
        until: None,
        explains: |python, ours| only_we_say("keep-alive", python, ours),
    },
    General {
        what: "allow",
        reason: "allow",
        until: None,
        explains: |python, ours| only_we_say("GET, HEAD, OPTIONS", python, ours),
    },
    General {
        what: "reason",
        reason: "plain-reason-phrase",
        until: None,
        explains: |python, ours| python.contains('\'') && !ours.contains('\''),
    },
    General {
        what: "last-modified",
        reason: "validators-on-304",
        until: None,
        explains: |python, ours| python.is_empty() && ours.ends_with(" GMT"),
    },
];

/// Differences that occur in single cases.
pub const PARTICULAR: &[Particular] = &[
    row_until("/?query", "body", "listing-title", (3, 14)),
    row_until("/#fragment", "body", "listing-title", (3, 14)),
    row_until("/folder/?query", "body", "listing-title", (3, 14)),
    row_until("head-not-found", "content-length", "color-scheme", (3, 14)),
    row_until("head-listing", "content-length", "color-scheme", (3, 14)),
    row_until("/folder%2f", "301 -> 200", "encoded-slash", (3, 14)),
    row_until("request-line-65537", "reason", "newer-phrases", (3, 13)),
    row_until("request-line-65537", "body", "newer-phrases", (3, 13)),
    row("field-line-65537", "body", "long-head-explained"),
    row("fields-100", "body", "long-head-explained"),
    row("/quotes/", "body", "quotes-escaped"),
    row("/none%00", "nothing -> 400", "encoded-nul"),
    row("/a.txt%00", "nothing -> 400", "encoded-nul"),
    row("raw-not-ascii", "404 -> 200", "raw-bytes"),
    row("*", "404 -> 400", "target-forms"),
    row("a.txt", "200 -> 400", "target-forms"),
    row("http://x/a.txt", "404 -> 200", "absolute-form"),
    row("http://x/folder", "404 -> 301", "absolute-form"),
    row("http://x/", "404 -> 200", "absolute-form"),
    row("connection-list", "connection", "connection-list"),
    row("pipeline-error", "404 -> 404 200", "errors-keep-connection"),
    row("get-body", "200 404 -> 200", "bodies-passed-over"),
    row("get-chunked", "200 none -> 200", "bodies-passed-over"),
    row("if-none-match-any", "200 -> 304", "conditional"),
    row("if-match-other", "200 -> 412", "conditional"),
    row("if-unmodified-since-earlier", "200 -> 412", "conditional"),
    row("range", "200 -> 206", "ranges"),
    row("range-suffix", "200 -> 206", "ranges"),
    row("range-beyond", "200 -> 416", "ranges"),
    row("expect-continue", "100 200 -> 200", "expect"),
    row("expect-other", "200 -> 417", "expect"),
    row("second-host", "200 -> 400", "host"),
    row("no-host", "200 -> 400", "host"),
    row("space-before-colon", "200 -> 400", "field-syntax"),
    row("folded", "200 -> 400", "field-syntax"),
    row("nul", "200 -> 400", "field-syntax"),
    row("no-colon", "200 -> 400", "field-syntax"),
    row("length-malformed", "200 -> 400", "framing"),
    row("lengths-differ", "200 -> 400", "framing"),
    row("length-and-coding", "200 -> 400", "framing"),
    row("coding-unknown", "200 -> 501", "framing"),
    row("http-0.9", "none -> 400", "http-0-9"),
    row("http-0.9-post", "none -> 400", "http-0-9"),
    row("one-word", "none -> 400", "status-line"),
    row("http-2.0", "none -> 505", "status-line"),
    row("version-garbage", "none -> 400", "status-line"),
    row("version-lower-case", "none -> 400", "status-line"),
    row("version-three-parts", "none -> 400", "status-line"),
    row("version-two-digits", "200 -> 400", "version-syntax"),
    row("two-spaces", "200 -> 400", "one-space"),
    row("tabs", "200 -> 400", "one-space"),
    row("space-at-end", "200 -> 400", "one-space"),
    row("markup-method", "501 -> 400", "method-syntax"),
    row("options", "501 -> 204", "options"),
    row("bare-lf", "200 -> 400", "bare-lf"),
    row("blank-line-before", "nothing -> 200", "blank-lines"),
];

/// Differences that occur in many cases of scripts.
pub const OF_SCRIPTS: &[General] = &[
    General { what: "x-content-type-options", reason: "page-guard", until: None, explains: guards_page },
    General { what: "content-security-policy", reason: "page-guard", until: None, explains: guards_page },
    General {
        what: "reason",
        reason: "cgi-status",
        until: None,
        explains: |python, ours| python == "Script output follows" && ours == "OK",
    },
    General {
        what: "body",
        reason: "color-scheme",
        until: Some((3, 14)),
        explains: |python, ours| with_style(python) == ours,
    },
    General {
        what: "reason",
        reason: "plain-reason-phrase",
        until: None,
        explains: |python, ours| python.contains('\'') && !ours.contains('\''),
    },
    General {
        what: "allow",
        reason: "allow",
        until: None,
        explains: |python, ours| python.is_empty() && ours.ends_with(", OPTIONS"),
    },
    General {
        what: "body",
        reason: "cgi-absent",
        until: None,
        explains: |python, ours| python.is_empty() && ours == "not set",
    },
];

/// Differences that occur in single cases of scripts.
pub const OF_SCRIPT: &[Particular] = &[
    row("/cgi-bin/hello%00", "404 -> 400", "encoded-nul"),
    row("/cgi-bin/../a.txt", "accept-ranges", "ranges"),
    row("/cgi-bin/../a.txt", "content-type", "charset"),
    row("/cgi-bin/../a.txt", "etag", "etag"),
    row("/cgi-bin/path", "body", "cgi-path-info"),
    row("/cgi-bin/path?", "body", "cgi-path-info"),
    row("/cgi-bin/path?a?b", "body", "cgi-path-info"),
    row("/cgi-bin/path?a/b=/..", "body", "cgi-path-info"),
    row("/cgi-bin/arguments", "body", "cgi-arguments"),
    row("/cgi-bin/arguments?one+two", "body", "cgi-arguments"),
    row("/cgi-bin/arguments?a%20b", "body", "cgi-arguments"),
    row("cgi-post-arguments", "body", "cgi-arguments"),
    row("/cgi-bin/path/%2525", "body", "cgi-path-info"),
    row("/cgi-bin/path/a//b", "body", "cgi-path-info-empty"),
    row("cgi-put", "501 -> 200", "cgi-methods"),
    row("with fields REMOTE_USER", "body", "cgi-authentication"),
    row("with fields AUTH_TYPE", "body", "cgi-authentication"),
    row("plain REQUEST_URI", "body", "cgi-variables-of-others"),
    row("with fields REQUEST_URI", "body", "cgi-variables-of-others"),
    row("plain REQUEST_SCHEME", "body", "cgi-variables-of-others"),
    row("with fields REQUEST_SCHEME", "body", "cgi-variables-of-others"),
    row("plain DOCUMENT_ROOT", "body", "cgi-variables-of-others"),
    row("with fields DOCUMENT_ROOT", "body", "cgi-variables-of-others"),
    row("plain SCRIPT_FILENAME", "body", "cgi-variables-of-others"),
    row("with fields SCRIPT_FILENAME", "body", "cgi-variables-of-others"),
    row("plain REDIRECT_STATUS", "body", "cgi-variables-of-others"),
    row("with fields REDIRECT_STATUS", "body", "cgi-variables-of-others"),
    row("plain SERVER_ADDR", "body", "cgi-variables-of-others"),
    row("with fields SERVER_ADDR", "body", "cgi-variables-of-others"),
    row("plain REMOTE_PORT", "body", "cgi-variables-of-others"),
    row("with fields REMOTE_PORT", "body", "cgi-variables-of-others"),
    row("/cgi-bin/where", "body", "cgi-directory"),
    row("/cgi-bin/status", "200, 404 Not here -> 404", "cgi-status"),
    row("/cgi-bin/elsewhere", "200 -> 302", "cgi-status"),
    row("/cgi-bin/local", "accept-ranges", "cgi-status"),
    row("/cgi-bin/local", "body", "cgi-status"),
    row("/cgi-bin/local", "content-length", "cgi-status"),
    row("/cgi-bin/local", "content-type", "cgi-status"),
    row("/cgi-bin/local", "etag", "cgi-status"),
    row("/cgi-bin/local", "last-modified", "cgi-status"),
    row("/cgi-bin/local", "location", "cgi-status"),
    row("/cgi-bin/length", "200 none -> 200", "cgi-framing"),
    row("/cgi-bin/fields", "connection", "cgi-fields-of-the-connection"),
    row("/cgi-bin/silent", "none -> 502", "cgi-failure"),
    row("/cgi-bin/garbage", "200 -> 502", "cgi-failure"),
    row("/cgi-bin/no-interpreter", "none -> 502", "cgi-failure"),
    row("/cgi-bin/nph-whole", "200 -> 299", "cgi-nph"),
    row("cgi-head", "200 none -> 200", "cgi-head"),
    row_until("cgi-head-none", "content-length", "color-scheme", (3, 14)),
    row("plain SERVER_SOFTWARE", "body", "server-field"),
    row("with fields SERVER_SOFTWARE", "body", "server-field"),
    row("plain SERVER_NAME", "body", "cgi-server-name"),
    row("with fields SERVER_NAME", "body", "cgi-server-name"),
    row("plain SERVER_PROTOCOL", "body", "cgi-protocol"),
    row("with fields SERVER_PROTOCOL", "body", "cgi-protocol"),
    row("plain PATH_TRANSLATED", "body", "cgi-path-info"),
    row("with fields PATH_TRANSLATED", "body", "cgi-path-info"),
    row("plain CONTENT_TYPE", "body", "cgi-absent"),
    row("with fields HTTP_COOKIE", "body", "cgi-request-fields"),
    row("plain HTTP_HOST", "body", "cgi-request-fields"),
    row("with fields HTTP_HOST", "body", "cgi-request-fields"),
    row("with fields HTTP_X_A", "body", "cgi-request-fields"),
    row("plain OF_SERVER", "body", "cgi-environment"),
    row("with fields OF_SERVER", "body", "cgi-environment"),
];

/// The last version of Python whose table of media types was compared.
pub const TYPES_UP_TO: (u32, u32) = (3, 13);

/// Extensions with another media type than in Python, and the reason. `docs/media-types.md` has the details.
pub const TYPES: &[(&str, &str, &str)] = &[
    (".3g2", "video/3gpp2", "media-types"),
    (".3gp", "video/3gpp", "media-types"),
    (".3gpp", "video/3gpp", "media-types"),
    (".3gpp2", "video/3gpp2", "media-types"),
    (".ass", "text/x-ssa", "media-types"),
    (".js", "text/javascript", "media-types"),
    (".mjs", "text/javascript", "media-types"),
    (".rdf", "application/rdf+xml", "media-types"),
    (".rtf", "application/rtf", "media-types"),
    (".taz", "application/gzip", "compressed-types"),
    (".tbz2", "application/x-bzip2", "compressed-types"),
    (".tgz", "application/gzip", "compressed-types"),
    (".txz", "application/x-xz", "compressed-types"),
    (".tz", "application/gzip", "compressed-types"),
    (".webp", "image/webp", "media-types"),
];

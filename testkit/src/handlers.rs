//! What clients see of handlers that do the same on every runtime. Each check says what the handler does.

use crate::client::Client;

/// A handler fails with 415 at `/media`, with 405 and `Allow` at `/allow`, and at `/number` with 400, the message
/// `No digit`, and the reason that `x` is no digit; at `/begun` with 409 after the head. Elsewhere it says `fine`.
///
/// # Panics
/// If a response is wrong.
#[track_caller]
pub fn check_errors(client: &mut Client) {
    assert_eq!(client.get("/media").status(), 415);
    let page = client.get("/allow");
    assert_eq!((page.status(), page.text("Allow")), (405, Some("GET, PUT")));
    let page = client.get("/number");
    assert!(page.status() == 400 && page.body_text().contains("<p>Message: No digit.</p>"), "{page:?}");
    assert!(!page.body_text().contains("invalid digit"), "the reason is not for the peer");
    assert_eq!(client.get("/").body, b"fine", "the connection stays open");
    assert_eq!(client.get("/begun").status(), 409);
    assert!(client.ended());
}

/// The log of [`check_errors`], and of `others` more failures that have a reason.
///
/// # Panics
/// If a line is missing, or there are more.
#[track_caller]
pub fn check_errors_in(log: &str, others: usize) {
    assert!(log.contains("code 415, message Unsupported Media Type\n"), "{log}");
    assert!(log.contains("\"GET /number HTTP/1.1\": the handler failed: invalid digit found in string\n"), "{log}");
    let failures = log.matches(": the handler failed: ").count();
    assert_eq!(failures, 1 + others, "a status without a reason is no failure: {log}");
}

/// A handler sends a 103 with a `Link`, then a 418 with the phrase `Short`, `X-A: 1` and the body `ok`.
///
/// # Panics
/// If a response is wrong.
#[track_caller]
pub fn check_prepared_heads(client: &mut Client) {
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
        let answer = client.response();
        assert!(answer.head.starts_with("HTTP/1.1 418 Short\r\n"), "{}", answer.head);
        assert!(answer.head.contains("\r\nX-A: 1\r\nContent-Length: 2\r\n"), "{}", answer.head);
        assert_eq!((answer.text("X-B"), answer.body_text()), (None, "ok"));
    }
}

/// A handler sends three million `x` with `X-A: 1`: with 201 at `/made`, with 200 elsewhere.
///
/// # Panics
/// If a response is wrong.
#[track_caller]
pub fn check_large_bodies(client: &mut Client) {
    for (path, status) in [("/", 200), ("/made", 201), ("/", 200)] {
        let answer = client.get(path);
        assert_eq!((answer.status(), answer.text("X-A"), answer.head.length()), (status, Some("1"), Some(3_000_000)));
        assert!(answer.body.len() == 3_000_000 && answer.body.iter().all(|&byte| byte == b'x'));
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.head().length(), Some(3_000_000));
    }
}

/// Checks the responses to conditions and ranges at `/entity`, where a handler calls `answer_entity` with version 7 and
/// `0123456789`.
///
/// # Panics
/// If one of them is wrong.
#[track_caller]
pub fn check_entity(client: &mut Client) {
    let mut ask =
        |method: &str, field: &str| client.ask(format!("{method} /entity HTTP/1.1\r\nHost: x\r\n{field}\r\n"));
    const TAG: &str = "\"000000000000000000000007\"";
    let whole = ask("GET", "");
    assert_eq!((whole.status(), whole.body_text(), whole.text("ETag")), (200, "0123456789", Some(TAG)));
    assert_eq!(whole.text("Accept-Ranges"), Some("bytes"));
    assert_eq!(ask("HEAD", "").head.length(), Some(10));
    let same = ask("GET", &format!("If-None-Match: {TAG}\r\n"));
    assert_eq!((same.status(), same.text("ETag"), same.text("Content-Type")), (304, Some(TAG), None));
    assert_eq!(ask("GET", "If-Match: \"other\"\r\n").status(), 412);
    let part = ask("GET", "Range: bytes=2-4\r\n");
    assert_eq!((part.status(), part.body_text(), part.text("Content-Range")), (206, "234", Some("bytes 2-4/10")));
    let none = ask("GET", "Range: bytes=10-\r\n");
    assert_eq!((none.status(), none.text("Content-Range")), (416, Some("bytes */10")));
    assert_eq!(ask("GET", "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n").status(), 200);
    let parts = ask("GET", "Range: bytes=0-1,8-8\r\n");
    assert_eq!(parts.status(), 206);
    let boundary = TAG.trim_matches('"');
    let part = |range: &str, text: &str| {
        format!("\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{text}")
    };
    assert_eq!(parts.body_text(), format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("8-8", "8")));
    let posted = ask("POST", &format!("Content-Length: 0\r\nIf-None-Match: {TAG}\r\n"));
    assert_eq!((posted.status(), posted.text("ETag")), (200, None), "the rules are for GET and HEAD");
}

//! What content of a handler that has a version is answered with, on every runtime.

use crate::client::Client;

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

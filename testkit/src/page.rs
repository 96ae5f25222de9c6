//! The expected pages of a server, byte for byte.

use crate::response::Response;
use crate::text::escape;

/// The explanation of each status that occurs in these tests.
pub fn explanation(status: u16) -> &'static str {
    match status {
        400 => "Bad request syntax or unsupported method",
        403 => "Request forbidden -- authorization will not help",
        404 => "Nothing matches the given URI",
        408 => "Request timed out; try again later",
        411 => "Client must specify Content-Length",
        412 => "Precondition in headers is false",
        413 => "Entity is too large",
        414 => "URI is too long",
        416 => "Cannot satisfy request range",
        417 => "Expect condition could not be satisfied",
        431 => "The server is unwilling to process the request because its header fields are too large",
        500 => "Server got itself in trouble",
        501 => "Server does not support this operation",
        502 => "Invalid responses from another server/proxy",
        503 => "The server cannot process the request due to a high load",
        504 => "The gateway server did not receive a timely response",
        505 => "Cannot fulfill request",
        other => panic!("no explanation known for {other}"),
    }
}

/// The reason phrase of each status that occurs in these tests (RFC 9110 section 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        other => panic!("no phrase known for {other}"),
    }
}

/// The error page with this message, which is not escaped yet.
pub fn error(status: u16, message: &str) -> String {
    let [start, end] = around(status);
    format!("{start}{}{end}", escape(message))
}

/// The parts of an error page before and after the message.
fn around(status: u16) -> [String; 2] {
    let start = format!(
        r#"<!DOCTYPE HTML>
<html lang="en">
    <head>
        <meta charset="utf-8">
        <style type="text/css">
            :root {{
                color-scheme: light dark;
            }}
        </style>
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: {status}</p>
        <p>Message: "#
    );
    let explanation = explanation(status);
    let end = format!(
        ".</p>
        <p>Error code explanation: {status} - {explanation}.</p>
    </body>
</html>
"
    );
    [start, end]
}

/// Asserts that this is an error response with this message, in page and head.
#[track_caller]
pub fn check_error(response: &Response, status: u16, message: &str) {
    check_any_error(response, status);
    assert_eq!(response.body_text(), error(status, message));
}

/// Asserts that this is an error response with any message, and returns the message, still escaped.
#[track_caller]
pub fn check_any_error(response: &Response, status: u16) -> &str {
    let head = &response.head;
    assert_eq!(head.status, status, "{head:?}");
    assert_eq!(head.text("Content-Type"), Some("text/html;charset=utf-8"), "{head:?}");
    assert_eq!(head.length(), Some(response.body.len() as u64), "{head:?}");
    let [start, end] = around(status);
    let page = response.body_text();
    let message = page.strip_prefix(start.as_str()).and_then(|rest| rest.strip_suffix(end.as_str()));
    let message = message.unwrap_or_else(|| panic!("not an error page for {status}: {page}"));
    assert!(!message.is_empty() && !message.contains(['\n', '<', '>']), "the message {message:?}");
    // As in Python, the message may also be the reason phrase, unless it contains text of the peer, which is always
    // quoted.
    let as_message = head.reason == crate::text::unescape(message) && !message.contains(['\'', '"']);
    assert!(as_message || head.reason == phrase(status), "{head:?}");
    message
}

/// A listing with these rows (link and text, both as in the page).
pub fn listing(path: &str, rows: &[(&str, &str)]) -> String {
    let title = escape(path);
    let rows: String = rows.iter().map(|(link, text)| format!("<li><a href=\"{link}\">{text}</a></li>\n")).collect();
    format!(
        r#"<!DOCTYPE HTML>
<html lang="en">
<head>
<meta charset="utf-8">
<style type="text/css">
:root {{
color-scheme: light dark;
}}
</style>
<title>Directory listing for {title}</title>
</head>
<body>
<h1>Directory listing for {title}</h1>
<hr>
<ul>
{rows}</ul>
<hr>
</body>
</html>
"#
    )
}

/// The rows of a listing: link and text, both as in the page.
#[track_caller]
pub fn rows(page: &str) -> Vec<(&str, &str)> {
    let list = page.split_once("<ul>\n").and_then(|(_, rest)| rest.split_once("</ul>\n")).expect("a list").0;
    let row = |row| -> Option<(_, _)> { str::strip_prefix(row, "<li><a href=\"")?.split_once("\">") };
    let rows = list.split_terminator("</a></li>\n");
    rows.map(|text| row(text).unwrap_or_else(|| panic!("not a row: {text:?}"))).collect()
}

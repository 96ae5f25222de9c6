//! Parsing responses of either server without judging them.

use std::collections::BTreeMap;

/// The parts of a response that are compared, by name: `status`, `version`, `reason`, `body`, and each field in lower
/// case. Of `Date` and `Server` only their presence counts.
#[derive(Clone, Debug, Default)]
pub struct Answer(pub BTreeMap<String, String>);

/// Splits all bytes of a connection into responses. Python's responses to requests that it takes for HTTP/0.9 have no
/// head; their status is `none`.
pub fn take_apart(mut bytes: &[u8], to_head: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let mut answer = BTreeMap::new();
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (Some(head_end), true) = (head_end, bytes.starts_with(b"HTTP/")) else {
            answer.insert("status".to_owned(), "none".to_owned());
            answer.insert("body".to_owned(), text(bytes));
            answers.push(Answer(answer));
            break;
        };
        let head = text(&bytes[..head_end]);
        bytes = &bytes[head_end + 4..];
        let mut lines = head.split("\r\n");
        let mut parts = lines.next().expect("split returns at least one part").splitn(3, ' ');
        for name in ["version", "status", "reason"] {
            answer.insert(name.to_owned(), parts.next().unwrap_or_default().to_owned());
        }
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let name = name.to_ascii_lowercase();
            let value = if matches!(name.as_str(), "date" | "server") { "there" } else { value.trim() };
            let joined = answer.get(&name).map(|before: &String| format!("{before}, {value}"));
            answer.insert(name, joined.unwrap_or_else(|| value.to_owned()));
        }
        let status = answer["status"].clone();
        let has_body =
            !status.starts_with('1') && status != "204" && status != "304" && !(to_head && answers.is_empty());
        if has_body {
            let len = answer.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(bytes.len());
            let (body, rest) = bytes.split_at(len.min(bytes.len()));
            if body.len() < len {
                answer.insert("short".to_owned(), format!("{} of {len}", body.len()));
            }
            answer.insert("body".to_owned(), text(body));
            // The length is that of the body, which is compared separately.
            if answer.contains_key("content-length") && body.len() == len {
                answer.insert("content-length".to_owned(), "fits".to_owned());
            }
            bytes = rest;
        }
        answers.push(Answer(answer));
    }
    answers
}

/// The status codes in order; `nothing` without a response.
pub fn statuses(answers: &[Answer]) -> String {
    let statuses: Vec<&str> = answers.iter().map(|answer| answer.0["status"].as_str()).collect();
    if statuses.is_empty() { "nothing".to_owned() } else { statuses.join(" ") }
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

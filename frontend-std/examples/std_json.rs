//! A list of notes as a JSON API: `cargo run -p sanserve-std --example std_json`, then
//! `curl -d milk localhost:8000/notes`, `curl localhost:8000/notes`, `curl -X DELETE localhost:8000/notes/0`.
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use sanserve_std::{Exchange, Server, Site, StatusCode};

/// The state that all connections share.
type Notes = Arc<Mutex<Vec<Option<String>>>>;

fn answer(notes: &Notes, x: &mut Exchange<'_>) -> io::Result<()> {
    let path = String::from_utf8_lossy(x.path()).into_owned();
    let at = path.strip_prefix("/notes/").and_then(|at| at.parse::<usize>().ok());
    match (x.method(), at) {
        (b"GET" | b"HEAD", None) if path == "/notes" => {
            let notes = notes.lock().expect("no thread panics while it holds the lock").clone();
            let items = notes.iter().enumerate().filter_map(|(id, note)| note.as_ref().map(|note| json(id, note)));
            reply(x, StatusCode::OK, &format!("[{}]", items.collect::<Vec<_>>().join(",")))
        }
        (b"POST", None) if path == "/notes" => {
            let mut note = String::new();
            if x.take(10_000).read_to_string(&mut note).is_err() {
                return reply(x, StatusCode::BAD_REQUEST, r#"{"error":"a note is text"}"#);
            }
            let mut notes = notes.lock().expect("no thread panics while it holds the lock");
            notes.push(Some(note));
            let id = notes.len() - 1;
            let text = json(id, notes[id].as_deref().unwrap_or_default());
            // Do not hold the lock while sending to a peer.
            drop(notes);
            reply(x, StatusCode::CREATED, &text)
        }
        (b"DELETE", Some(id)) => {
            let removed =
                notes.lock().expect("no thread panics while it holds the lock").get_mut(id).and_then(Option::take);
            match removed {
                Some(_) => x.respond(StatusCode::NO_CONTENT)?.send(),
                None => reply(x, StatusCode::NOT_FOUND, r#"{"error":"no such note"}"#),
            }
        }
        _ => reply(x, StatusCode::NOT_FOUND, r#"{"error":"no such thing"}"#),
    }
}

fn reply(x: &mut Exchange<'_>, status: StatusCode, text: &str) -> io::Result<()> {
    x.answer(status, "application/json", format!("{text}\n"))
}

fn json(id: usize, note: &str) -> String {
    format!(r#"{{"id":{id},"note":{}}}"#, quoted(note))
}

/// A JSON string (RFC 8259 section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn main() -> io::Result<()> {
    let notes = Notes::default();
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    let handler = move || {
        let notes = Arc::clone(&notes);
        move |x: &mut Exchange<'_>| answer(&notes, x)
    };
    server.with_handler(handler).run()
}

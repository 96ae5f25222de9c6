//! A list of notes as a JSON API: `cargo run -p sanserve-smol --example smol_json`, then
//! `curl -d milk localhost:8000/notes`, `curl localhost:8000/notes`, `curl -X DELETE localhost:8000/notes/0`.
use std::io;
use std::sync::{Arc, Mutex};

use sanserve_smol::{Exchange, Handler, Server, Site, StatusCode};
use smol::io::AsyncReadExt;

/// The state that all connections share.
type Notes = Arc<Mutex<Vec<Option<String>>>>;

struct Api(Notes);

impl Handler for Api {
    async fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        let id = x.path().strip_prefix(b"/notes/").and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        match (x.method(), x.path(), id) {
            (b"GET" | b"HEAD", b"/notes", _) => {
                let notes = self.0.lock().expect("no thread panics while it holds the lock").clone();
                let items = notes.iter().enumerate().filter_map(|(id, note)| note.as_ref().map(|note| json(id, note)));
                reply(x, StatusCode::OK, &format!("[{}]", items.collect::<Vec<_>>().join(","))).await
            }
            (b"POST", b"/notes", _) => {
                let mut note = String::new();
                if (&mut *x).take(10_000).read_to_string(&mut note).await.is_err() {
                    return reply(x, StatusCode::BAD_REQUEST, r#"{"error":"a note is text"}"#).await;
                }
                let text = self.add(note);
                reply(x, StatusCode::CREATED, &text).await
            }
            (b"DELETE", _, Some(id)) => {
                let removed =
                    self.0.lock().expect("no thread panics while it holds the lock").get_mut(id).and_then(Option::take);
                match removed {
                    Some(_) => x.respond(StatusCode::NO_CONTENT)?.send(),
                    None => reply(x, StatusCode::NOT_FOUND, r#"{"error":"no such note"}"#).await,
                }
            }
            _ => reply(x, StatusCode::NOT_FOUND, r#"{"error":"no such thing"}"#).await,
        }
    }
}

impl Api {
    fn add(&self, note: String) -> String {
        let mut notes = self.0.lock().expect("no thread panics while it holds the lock");
        let text = json(notes.len(), &note);
        notes.push(Some(note));
        text
    }
}

async fn reply(x: &Exchange<'_>, status: StatusCode, text: &str) -> io::Result<()> {
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
    server.with_handler(move || Api(Arc::clone(&notes))).run()
}

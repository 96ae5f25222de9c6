//! A site of files with an API below `/api/`: `cargo run -p sanserve-smol --example smol_site_and_api -- DIRECTORY`, then
//! `curl localhost:8000/` and `curl localhost:8000/api/visits`.
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sanserve_smol::{Exchange, Handler, Server, Site, StatusCode};

/// Pages requested so far.
static VISITS: AtomicU64 = AtomicU64::new(0);

struct Mixed;

impl Handler for Mixed {
    async fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        match (x.method(), x.path()) {
            (b"GET" | b"HEAD", b"/api/visits") => {
                let text = format!("{{\"visits\":{}}}\n", VISITS.load(Ordering::Relaxed));
                x.answer(StatusCode::OK, "application/json", text)
            }
            (b"DELETE", b"/api/visits") => {
                VISITS.store(0, Ordering::Relaxed);
                x.respond(StatusCode::NO_CONTENT)?.send()
            }
            (_, path) if path.starts_with(b"/api/") => x.error(StatusCode::NOT_FOUND, Some("No such resource"), None),
            _ => {
                VISITS.fetch_add(1, Ordering::Relaxed);
                x.decline()
            }
        }
    }
}

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    let server = Server::bind("127.0.0.1:8000", Site::new(directory)?)?;
    server.with_handler(|| Mixed).run()
}

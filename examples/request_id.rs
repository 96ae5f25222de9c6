//! Gives each request an id, which is in the response and in the log: `cargo run --example request_id`, then
//! `curl -i localhost:8000`. An id that a proxy has given is kept.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sanserve_std::{Exchange, Server, Site, StatusCode};

/// Makes ids that are unique among those of this process, and of processes that were started in other microseconds.
pub struct Ids {
    started: u128,
    next: AtomicU64,
}

impl Ids {
    /// Starts to count.
    pub fn start() -> Ids {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        Ids { started, next: AtomicU64::new(1) }
    }

    /// The id in the request, if there is a valid one, or a new one.
    fn of(&self, x: &Exchange<'_>) -> String {
        match x.field("X-Request-Id").and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) if is_valid(id) => id.to_owned(),
            _ => format!("{:x}-{}", self.started, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Whether an id can be written to a log as it is.
fn is_valid(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Responds, and says in the log what is done for which request.
pub fn answer(ids: &Ids, x: &mut Exchange<'_>) -> io::Result<()> {
    let id = ids.of(x);
    x.log(format_args!("request {id}: {} bytes of target", x.target().len()));
    x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.field("X-Request-Id", &id)?.body("hello\n")
}

fn main() -> io::Result<()> {
    let ids = std::sync::Arc::new(Ids::start());
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    let handler = move || {
        let ids = ids.clone();
        move |x: &mut Exchange<'_>| answer(&ids, x)
    };
    server.with_handler(handler).run()
}

//! A directory of files, and an API below `/api/`. `Policy::route` decides before any handler is made. A handler that
//! finds out later that the files should respond calls `decline`, as `/api/source` does here.

use std::sync::atomic::{AtomicU64, Ordering};

use sanserve_mio::{Policy, Request, Route, Server, Site, StatusCode};

struct Mixed;

impl Policy for Mixed {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.path().starts_with(b"/api/") { Route::Handler } else { Route::Files }
    }
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or(".".into());
    let visits = AtomicU64::new(0);
    let site = Site::new(directory)?.with_policy(Mixed).with_answer(move |reply| match reply.request().path() {
        b"/api/visits" => {
            let visits = visits.fetch_add(1, Ordering::Relaxed) + 1;
            reply.answer(StatusCode::OK, "application/json", format!("{{\"visits\":{visits}}}\n"))
        }
        b"/api/source" => reply.decline(),
        _ => reply.error(StatusCode::NOT_FOUND, None, None),
    });
    Server::bind("127.0.0.1:8000", site)?.run()
}

//! A server under test.
#![allow(dead_code, reason = "each test program uses its part")]

use sanserve_mio::{Log, Misuse, Reply, Server, Site, StatusCode};
use testkit::{Client, Embedded, Tree, bound};

/// Starts a server with one worker, so that its events are in order.
pub(crate) fn start(site: Site) -> Embedded {
    start_with(site, 1)
}

/// Starts a server with `workers` workers.
pub(crate) fn start_with(site: Site, workers: usize) -> Embedded {
    Embedded::start(Tree::new(), |_, log| {
        let site = site.with_log(Log::to(log));
        bound!(Server::bind("127.0.0.1:0", site).unwrap().workers(workers))
    })
}

/// Stops a server, and returns its log.
pub(crate) fn end(server: Embedded) -> String {
    server.stop();
    server.ended()
}

/// Requests a path.
pub(crate) fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
}

/// Waits until the loop has processed all events so far. The site must respond to `/sync`.
pub(crate) fn sync(server: &Embedded) {
    for _ in 0..2 {
        assert_eq!(server.get("/sync").body, b"synced");
    }
}

/// Responds to `/sync`; `false` for any other path.
pub(crate) fn answers_sync(reply: &mut Reply<'_>) -> Result<bool, Misuse> {
    let is_sync = reply.request().path() == b"/sync";
    if is_sync {
        reply.close();
        reply.answer(StatusCode::OK, "text/plain", "synced")?;
    }
    Ok(is_sync)
}

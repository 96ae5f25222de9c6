//! A server for development: pages reload when a file is saved. `cargo run -p sanserve-smol --example smol_live_reload --
//! DIRECTORY` serves a directory, and each page in it that contains `<script src="/_reload.js"></script>` reloads.
//!
//! A task for each page waits for a change, for the page to be closed, and for the server to shut down.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sanserve_smol::core::Fields;
use sanserve_smol::smol::channel::{Receiver, Sender, bounded};
use sanserve_smol::smol::future::or;
use sanserve_smol::smol::io::{AsyncReadExt, AsyncWriteExt};
use sanserve_smol::{Exchange, Policy, Request, Server, Site, StatusCode};
use tungstenite::handshake::derive_accept_key;

const SCRIPT: &str = "new WebSocket(`ws://${location.host}/_reload`).onmessage = () => location.reload();\n";

/// What the tasks of the open pages wait for.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<Sender<()>>>>);

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Vec<Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        let mut pages = self.lock();
        pages.retain(|page| !page.is_closed());
        pages.push(sender);
        receiver
    }

    /// Each page gets one message. It connects again when it has reloaded.
    fn reload(&self) {
        for page in self.lock().drain(..) {
            // It fails if the page has been closed.
            let _ = page.try_send(());
        }
    }
}

/// Reloads the pages when files below `root` have changed, until the watcher is dropped.
fn watch(root: &Path, pages: Pages) -> notify::Result<RecommendedWatcher> {
    let (changed, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading a file is an event, too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.send(());
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    thread::spawn(move || {
        while changes.recv().is_ok() {
            // An editor saves in several steps.
            while changes.recv_timeout(Duration::from_millis(50)).is_ok() {}
            pages.reload();
        }
    });
    Ok(watcher)
}

async fn answer(x: &mut Exchange<'_>, state: Arc<State>) -> io::Result<()> {
    match x.path() {
        b"/_reload.js" => x.answer(StatusCode::OK, "text/javascript", SCRIPT),
        b"/_reload" => {
            let accept = x.field("Sec-WebSocket-Key").map(derive_accept_key).ok_or(StatusCode::BAD_REQUEST)?;
            let draining = x.draining();
            let mut socket = x.upgrade("websocket", &[("Sec-WebSocket-Accept", &accept)]).await?;
            let changes = state.pages.add();
            let changed = async { changes.recv().await.is_ok() };
            // A page sends nothing until it is closed.
            let closed = async {
                let _ = socket.read(&mut [0]).await;
                false
            };
            let ends = async {
                draining.begun().await;
                false
            };
            if or(changed, or(closed, ends)).await {
                // A text of six bytes (RFC 6455 section 5.2).
                socket.write_all(b"\x81\x06reload").await?;
            }
            Ok(())
        }
        _ => x.decline(),
    }
}

struct State {
    pages: Pages,
    /// Until the server ends.
    _watcher: RecommendedWatcher,
}

/// A browser asks whether what it has stored is current.
struct Development;

impl Policy for Development {
    fn fields(&self, _: &Request<'_>, _: StatusCode, fields: &mut Fields<'_>) {
        // Only an invalid field is an error.
        let _ = fields.append("Cache-Control", b"no-cache");
    }
}

/// Serves the directory of a site on this address.
///
/// # Errors
/// If the directory cannot be watched, or the address cannot be listened on.
pub fn server(address: &str, site: Site, root: &Path) -> io::Result<Server> {
    let pages = Pages::default();
    let watcher = watch(root, pages.clone()).map_err(io::Error::other)?;
    let server = Server::bind(address, site.with_policy(Development))?;
    Ok(server.with_state(Arc::new(State { pages, _watcher: watcher }), answer))
}

fn main() -> io::Result<()> {
    let root = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    server("127.0.0.1:8000", Site::new(&root)?, root.as_ref())?.run()
}

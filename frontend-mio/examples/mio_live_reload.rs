//! A server for development: pages reload when a file is saved. `cargo run -p sanserve-mio --example mio_live_reload --
//! DIRECTORY` serves a directory, and each page in it that contains `<script src="/_reload.js"></script>` reloads.
//!
//! The event loop switches a connection to WebSocket. Then its socket is kept until the next change; no thread waits for
//! it meanwhile.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sanserve_mio::core::Fields;
use sanserve_mio::{HandlerError, Policy, Reply, Request, Server, Site, StatusCode, Upgraded};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Message, Role, WebSocket};

const SCRIPT: &str = "new WebSocket(`ws://${location.host}/_reload`).onmessage = () => location.reload();\n";

/// The sockets of the pages that are open.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<WebSocket<TcpStream>>>>);

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Vec<WebSocket<TcpStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut pages = self.lock();
        // A page sends nothing until it is closed.
        let is_open =
            |stream: &TcpStream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        pages.retain(|page| is_open(page.get_ref()));
        pages.push(WebSocket::from_raw_socket(stream, Role::Server, None));
        Ok(())
    }

    /// Each page gets one message. It connects again when it has reloaded.
    fn reload(&self) {
        for mut page in self.lock().drain(..) {
            // It fails if the page has been closed.
            let _ = page.send(Message::text("reload"));
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

fn answer(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    match reply.request().path() {
        b"/_reload.js" => reply.answer(StatusCode::OK, "text/javascript", SCRIPT)?,
        b"/_reload" => {
            let key = reply.request().field("Sec-WebSocket-Key");
            let accept = key.map(derive_accept_key).ok_or(StatusCode::BAD_REQUEST)?;
            reply.upgrade("websocket")?.field("Sec-WebSocket-Accept", accept)?.send()?;
        }
        _ => reply.decline()?,
    }
    Ok(())
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
    let site = site.with_policy(Development).with_answer(answer).with_upgrade(move |upgraded: Upgraded| {
        let _until_the_server_ends = &watcher;
        if let Ok((stream, _)) = upgraded.into_tcp() {
            // It only fails if the page has been closed already.
            let _ = pages.add(stream);
        }
    });
    Server::bind(address, site)
}

fn main() -> io::Result<()> {
    let root = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    server("127.0.0.1:8000", Site::new(&root)?, root.as_ref())?.run()
}

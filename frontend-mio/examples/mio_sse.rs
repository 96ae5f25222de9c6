//! Server-sent events: a clock for any number of clients. `curl -N localhost:8000`.
//!
//! One thread produces the events and wakes every connection. Between two events, a connection takes a few hundred
//! bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use sanserve_mio::{Call, Handler, HandlerError, Misuse, Reply, Server, Site, StatusCode};

/// The state that the thread shares with all connections.
#[derive(Default)]
struct Clock {
    seconds: AtomicU64,
    next: AtomicU64,
    watchers: Mutex<BTreeMap<u64, Waker>>,
}

/// The state of one connection.
struct Watcher {
    clock: Arc<Clock>,
    number: u64,
}

impl Watcher {
    fn go_on(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match call {
            Call::Request => {
                reply.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?;
                self.clock.watchers.lock().unwrap().insert(self.number, reply.waker());
            }
            // The stream is endless, so it ends when the server shuts down.
            Call::Drain => reply.finish()?,
            // A client that has not received the last event misses this one, so that events do not pile up.
            Call::Wake if !reply.has_unsent() => {
                let event = format!("data: {}\n\n", self.clock.seconds.load(Ordering::Relaxed));
                reply.write(event.as_bytes())?;
            }
            Call::Over => drop(self.clock.watchers.lock().unwrap().remove(&self.number)),
            Call::Wake | Call::Body | Call::Room => {}
        }
        Ok(())
    }
}

impl Handler for Watcher {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        Ok(self.go_on(call, reply)?)
    }
}

fn main() -> std::io::Result<()> {
    let clock = Arc::new(Clock::default());
    let shared = Arc::clone(&clock);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            shared.seconds.fetch_add(1, Ordering::Relaxed);
            shared.watchers.lock().unwrap().values().for_each(Waker::wake_by_ref);
        }
    });
    let site = Site::without_files().with_handler(move || {
        let number = clock.next.fetch_add(1, Ordering::Relaxed);
        Watcher { clock: Arc::clone(&clock), number }
    });
    Server::bind("127.0.0.1:8000", site)?.run()
}

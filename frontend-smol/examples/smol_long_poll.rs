//! Long polls, answered by a worker: `curl 'localhost:8000/?3'` waits for news with a number above 3, for 30 seconds at
//! most (204), or until the server shuts down.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sanserve_smol::smol::channel::{Receiver, Sender, bounded};
use sanserve_smol::smol::{Timer, future::or};
use sanserve_smol::{Exchange, Server, Site, StatusCode};

/// A task that waits for a number above this.
type Waiting = (u64, Sender<u64>);

/// The number of the latest news, and the tasks that wait.
#[derive(Default)]
pub struct News(Mutex<(u64, Vec<Waiting>)>);

impl News {
    /// There is something new.
    pub fn publish(&self) {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.0 += 1;
        let number = news.0;
        // A task that has timed out, or whose client has gone, has closed its channel.
        news.1.retain(|(seen, task)| !task.is_closed() && (number <= *seen || task.try_send(number).is_err()));
    }

    /// The first number above `seen`.
    fn above(&self, seen: u64) -> Receiver<u64> {
        let (task, next) = bounded(1);
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match news.0 > seen {
            true => _ = task.try_send(news.0),
            false => news.1.push((seen, task)),
        }
        next
    }
}

/// Responds when there is something new.
///
/// # Errors
/// If the client has gone.
pub async fn poll(x: &mut Exchange<'_>, news: Arc<News>) -> io::Result<()> {
    let seen = x.query().and_then(|seen| std::str::from_utf8(seen).ok()?.parse().ok()).unwrap_or(0);
    let next = news.above(seen);
    let (draining, timeout) = (x.draining(), Timer::after(Duration::from_secs(30)));
    let ends = async {
        or(draining.begun(), async { _ = timeout.await }).await;
        None
    };
    match or(async { next.recv().await.ok() }, ends).await {
        Some(number) => x.answer(StatusCode::OK, "text/plain", format!("{number}\n")),
        None => x.respond(StatusCode::NO_CONTENT)?.send(),
    }
}

fn main() -> io::Result<()> {
    let news = Arc::new(News::default());
    let worker = Arc::clone(&news);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1)); // the work
            worker.publish();
        }
    });
    Server::bind("127.0.0.1:8000", Site::without_files())?.with_state(news, poll).run()
}

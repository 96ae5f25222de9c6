//! Long polls, answered by a worker: `curl 'localhost:8000/?3'` waits for news with a number above 3, for 30 seconds at
//! most (204), or until the server shuts down.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sanserve_std::{Exchange, Server, Site, StatusCode};

/// The number of the latest news, and the threads that wait for the next.
#[derive(Default)]
pub struct News(Mutex<u64>, Condvar);

impl News {
    /// There is something new.
    pub fn publish(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.1.notify_all();
    }
}

/// Responds when there is something new.
///
/// # Errors
/// If the client has gone.
pub fn poll(x: &mut Exchange<'_>, news: &Arc<News>) -> io::Result<()> {
    let seen = x.query().and_then(|seen| std::str::from_utf8(seen).ok()?.parse().ok()).unwrap_or(0);
    let (draining, woken) = (x.draining(), Arc::clone(news));
    let _watch = draining.when_begun(move || {
        // Between the check of a thread and its wait, nothing is noticed.
        drop(woken.0.lock());
        woken.1.notify_all();
    });
    let waits = |number: &mut u64| *number <= seen && !draining.has_begun();
    let number = news.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (number, _) = news.1.wait_timeout_while(number, Duration::from_secs(30), waits).expect("no thread panics");
    let number = *number;
    if number <= seen {
        return x.respond(StatusCode::NO_CONTENT)?.send();
    }
    x.answer(StatusCode::OK, "text/plain", format!("{number}\n"))
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
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_fn(move |x| poll(x, &news)).run()
}

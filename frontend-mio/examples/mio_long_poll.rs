//! Long polls, answered by a worker: `curl 'localhost:8000/?3'` waits for news with a number above 3, or until the server
//! shuts down (204). A client that waits costs less than a kilobyte, and no thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use sanserve_mio::{Call, HandlerError, Reply, Server, Site, StatusCode};

/// The number of the latest news, and the handlers that wait for the next.
#[derive(Default)]
pub struct News(Mutex<(u64, Vec<Waker>)>);

impl News {
    /// There is something new.
    pub fn publish(&self) {
        let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        news.0 += 1;
        news.1.drain(..).for_each(Waker::wake);
    }
}

/// Responds when there is something new.
///
/// # Errors
/// None: the handler misuses nothing.
pub fn poll(call: Call, reply: &mut Reply<'_>, news: &News) -> Result<(), HandlerError> {
    let seen = reply.request().query().and_then(|seen| std::str::from_utf8(seen).ok()?.parse().ok()).unwrap_or(0);
    let mut news = news.0.lock().unwrap_or_else(PoisonError::into_inner);
    match call {
        Call::Request | Call::Wake if news.0 > seen => {
            reply.answer(StatusCode::OK, "text/plain", format!("{}\n", news.0))?;
        }
        Call::Request | Call::Wake => news.1.push(reply.waker()),
        Call::Drain => reply.respond(StatusCode::NO_CONTENT)?.body("")?,
        Call::Body | Call::Room | Call::Over => {}
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let news = Arc::new(News::default());
    let worker = Arc::clone(&news);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1)); // the work
            worker.publish();
        }
    });
    let site = Site::without_files().with_handler(move || {
        let news = Arc::clone(&news);
        move |call: Call, reply: &mut Reply<'_>| poll(call, reply, &news)
    });
    Server::bind("127.0.0.1:8000", site)?.run()
}

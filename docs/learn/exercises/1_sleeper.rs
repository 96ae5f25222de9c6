//! Exercise 1. A handler on an event loop, and slow work.
//!
//! It works, but no one else is served meanwhile. Do the work on another thread: `Reply::waker` returns a `Waker`, and
//! waking it calls the handler with `Call::Wake`. `sanserve_mio::Workers` is a thread pool for that, or use your own.
//!
//! `LEARN=mine cargo test -q --test learn exercise_1`

use std::sync::Arc;

use sanserve_mio::{Call, Reply, Site, StatusCode};

/// Slow work, which may block for as long as it likes. It returns the body of the response.
pub type Work = Arc<dyn Fn() -> String + Send + Sync>;

/// Responds to `/slow` with the result of the work, and to everything else at once.
pub fn site(work: Work) -> Site {
    Site::without_files().with_handler(move || {
        let work = Arc::clone(&work);
        move |call: Call, reply: &mut Reply<'_>| {
            if call != Call::Request {
                return Ok(());
            }
            let body = if reply.request().path() == b"/slow" { work() } else { "at once\n".into() };
            reply.answer(StatusCode::OK, "text/plain", body)?;
            Ok(())
        }
    })
}

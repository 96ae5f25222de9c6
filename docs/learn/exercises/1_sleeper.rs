//! Exercise 1. A handler on an event loop, and work that takes its time.
//!
//! It works, but nobody else is served meanwhile. Let it do the work somewhere else: a `Waker` comes from
//! `Reply::waker`, and whoever wakes it has the handler called with `Call::Wake`. `sanserve::server::Workers` are
//! threads for that, or bring your own.
//!
//! `LEARN=mine cargo test -q --test learn exercise_1`

use std::sync::Arc;

use sanserve::{Call, Reply, Service, Status};

/// What takes its time: it may block for as long as it likes. It gives the body of the answer.
pub type Work = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers `/slow` with what the work gives, and everything else at once.
pub fn service(work: Work) -> Service {
    Service::without_files().with_handler(move || {
        let work = Arc::clone(&work);
        move |call: Call, reply: &mut Reply<'_>| {
            if call != Call::Request {
                return;
            }
            let body = if reply.request().path() == b"/slow" { work() } else { "at once\n".into() };
            reply.answer(Status::OK, "text/plain", body).expect("nothing was answered before");
        }
    })
}

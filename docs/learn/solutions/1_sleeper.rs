//! Exercise 1, solved: a thread of `Workers` does the work, and the connection waits for it as it waits for bytes.

use std::sync::Arc;

use sanserve_mio::{Call, Job, Reply, Site, StatusCode, Workers};

/// Slow work, which may block for as long as it likes. It returns the body of the response.
pub type Work = Arc<dyn Fn() -> String + Send + Sync>;

/// Responds to `/slow` with the result of the work, and to everything else at once.
pub fn site(work: Work) -> Site {
    let workers = Arc::new(Workers::new(4).expect("threads"));
    Site::without_files().with_handler(move || {
        let (workers, work) = (Arc::clone(&workers), Arc::clone(&work));
        let mut job: Option<Job<String>> = None;
        move |call: Call, reply: &mut Reply<'_>| {
            let body = match call {
                Call::Request if reply.request().path() == b"/slow" => {
                    let work = Arc::clone(&work);
                    match workers.run(reply.waker(), move || work()) {
                        Ok(handed_in) => job = Some(handed_in),
                        Err(_full) => return Err(StatusCode::SERVICE_UNAVAILABLE.into()),
                    }
                    return Ok(());
                }
                Call::Request => "at once\n".into(),
                // A wake-up may be spurious, so check whether the job is done.
                Call::Wake => match job.as_mut().and_then(Job::take) {
                    Some(Ok(body)) => body,
                    Some(Err(_panicked)) => return Err("the work panicked".into()),
                    None => return Ok(()),
                },
                Call::Body | Call::Room | Call::Drain | Call::Over => return Ok(()),
            };
            reply.answer(StatusCode::OK, "text/plain", body)?;
            Ok(())
        }
    })
}

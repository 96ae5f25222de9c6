//! Responses that are computed by other threads, here the number of primes below a number: `curl
//! localhost:8000/1000000`. The loop serves other connections meanwhile.

use std::sync::Arc;

use sanserve_mio::{Call, Handler, HandlerError, Job, Misuse, Reply, Server, Site, StatusCode, Workers};

/// The state of one connection.
struct Primes {
    workers: Arc<Workers>,
    job: Option<Job<usize>>,
}

fn primes_below(n: usize) -> usize {
    (2..n).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

impl Primes {
    fn go_on(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match call {
            Call::Request => {
                let text = std::str::from_utf8(&reply.request().path()[1..]).ok();
                let Some(n) = text.and_then(|text| text.parse().ok()).filter(|n| *n <= 10_000_000) else {
                    return reply.error(StatusCode::BAD_REQUEST, Some("Ask for a number up to 10000000"), None);
                };
                match self.workers.run(reply.waker(), move || primes_below(n)) {
                    Ok(job) => self.job = Some(job),
                    Err(_full) => return reply.error(StatusCode::SERVICE_UNAVAILABLE, None, None),
                }
            }
            Call::Wake => match self.job.as_mut().and_then(Job::take) {
                Some(Ok(count)) => return reply.answer(StatusCode::OK, "text/plain", format!("{count}\n")),
                Some(Err(_panicked)) => reply.abort(),
                None => {}
            },
            Call::Over => self.job = None,
            Call::Body | Call::Room | Call::Drain => {}
        }
        Ok(())
    }
}

impl Handler for Primes {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        Ok(self.go_on(call, reply)?)
    }
}

fn main() -> std::io::Result<()> {
    let workers = Arc::new(Workers::new(2)?);
    let site = Site::without_files().with_handler(move || Primes { workers: Arc::clone(&workers), job: None });
    Server::bind("127.0.0.1:8000", site)?.run()
}

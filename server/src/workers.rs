//! Threads for what blocks: the way out for handlers on an event loop.
//!
//! A handler [hands in](Workers::run) what would block, and goes on when it is woken. The number of threads
//! and of jobs that wait for one is fixed: where both are taken, the handler is told at once, and can
//! answer 503.

use std::any::Any;
use std::fmt;
use std::hint::black_box;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread;

use rustix::io::Errno;

use crate::session::panic_message;

/// Jobs that may wait for each thread, by default.
const WAITING: usize = 64;

type Work = Box<dyn FnOnce() + Send>;

/// What a server takes of addresses at least, beside its stacks: its cache, scripts, and connections.
const LEAST_MEMORY: usize = 12 << 20;
/// What a thread takes of them: the stack that Rust gives it by default, and what is around it.
const THREAD_MEMORY: usize = (2 << 20) + (128 << 10);
/// Blocks up to 32 MiB have glibc map fewer of them by themselves from then on.
const LEAST_PROBED: usize = 33 << 20;

/// Whether the system has the memory to give that a program with a server and so many threads takes: 33 MiB of
/// addresses at least. To be asked once, before anything is started: whoever starts a thread where there is no memory
/// may be aborted.
///
/// # Errors
/// As the system says.
pub fn probe_memory(threads: usize) -> io::Result<()> {
    let bytes = threads.saturating_mul(THREAD_MEMORY).saturating_add(LEAST_MEMORY).max(LEAST_PROBED);
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| Errno::NOMEM)?;
    drop(black_box(memory));
    Ok(())
}

/// Whether the system has so many threads and descriptors to give, all at once, for a server that is about to begin
/// and would not serve, or would panic somewhere else, without.
///
/// # Errors
/// As the system says.
pub fn probe_resources(threads: usize, descriptors: usize) -> io::Result<()> {
    let (held, release) = channel::<()>();
    let release = Mutex::new(release);
    // They end with `held`, whatever happens.
    let wait = || release.lock().unwrap_or_else(PoisonError::into_inner).recv();
    thread::scope(|scope| {
        let all: io::Result<Vec<_>> =
            (0..threads).map(|_| thread::Builder::new().name("probe".into()).spawn_scoped(scope, wait)).collect();
        drop(held);
        all.map(drop)
    })?;
    let held: Vec<_> = (0..descriptors.div_ceil(2)).map(|_| sanserve_os::pipe()).collect::<io::Result<_>>()?;
    drop(held);
    Ok(())
}

/// A few threads that run what handlers must not wait for. To be shared by all handlers of a server,
/// for instance in an `Arc`. When it is dropped, what was handed in is still run.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::sync::{Arc, Mutex};
/// use sanserve_core::{Call, Reply, StatusCode};
/// use sanserve_server::{Site, Workers};
///
/// let workers = Arc::new(Workers::new(4)?);
/// let site = Site::without_files().with_handler(move || {
///     let workers = Arc::clone(&workers);
///     let mut job = None;
///     move |call: Call, reply: &mut Reply<'_>| {
///         match call {
///             Call::Request => match workers.run(reply.waker(), || std::fs::read("/etc/hostname")) {
///                 Ok(handed_in) => job = Some(handed_in),
///                 Err(_full) => reply.error(StatusCode::SERVICE_UNAVAILABLE, None, None).unwrap(),
///             },
///             Call::Wake => match job.as_mut().and_then(|job| job.take()) {
///                 Some(Ok(Ok(name))) => reply.answer(StatusCode::OK, "text/plain", name).unwrap(),
///                 Some(_) => reply.abort(),
///                 None => {}
///             },
///             _ => {}
///         }
///     }
/// });
/// # assert!(site.has_handler());
/// # Ok(())
/// # }
/// ```
pub struct Workers {
    queue: SyncSender<Work>,
}

impl Workers {
    /// So many threads, at least one, and 64 jobs that may wait for each.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> io::Result<Workers> {
        Workers::with_queue(threads, threads.max(1).saturating_mul(WAITING))
    }

    /// So many threads, at least one, and so many jobs that may wait for one of them. With a queue of 0 a
    /// job is taken only where a thread stands idle.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn with_queue(threads: usize, waiting: usize) -> io::Result<Workers> {
        let (queue, jobs) = sync_channel(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 1..=threads.max(1) {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(format!("blocking-{n}")).spawn(move || work(&jobs))?;
        }
        Ok(Workers { queue })
    }

    /// Runs `job` on one of the threads, then wakes `waker`: that of the reply, so that the handler is called
    /// with `Call::Wake` and finds the result by [`Job::take`]. Never blocks. A job whose [`Job`] was dropped
    /// is run nevertheless.
    ///
    /// # Errors
    /// [`Full`] if no thread is free and as many jobs wait as may.
    pub fn run<T, F>(&self, waker: Waker, job: F) -> Result<Job<T>, Full>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let work = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| Panicked::new(&*panic));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            // Let go of before the wake-up: who is woken by it may count on having the only share.
            drop(place);
            waker.wake();
        });
        match self.queue.try_send(work) {
            Ok(()) => Ok(Job { result }),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

/// The life of a thread: job after job until nobody can hand in more.
fn work(jobs: &Mutex<Receiver<Work>>) {
    loop {
        // One of the idle threads waits for a job, the others for the lock.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // What panics here is a waker or the drop of a result nobody wants: that is no reason to have a thread less.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Something that a thread of [`Workers`] does, or has done.
#[derive(Debug)]
pub struct Job<T> {
    result: Arc<Mutex<Option<Result<T, Panicked>>>>,
}

impl<T> Job<T> {
    /// The result, once: `None` while there is none yet, and after it was taken.
    pub fn take(&mut self) -> Option<Result<T, Panicked>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// No thread is free, and as many jobs wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all threads are busy, and as many jobs wait as may")
    }
}

impl std::error::Error for Full {}

/// A job panicked; with what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked(pub String);

impl Panicked {
    fn new(panic: &(dyn Any + Send)) -> Panicked {
        Panicked(panic_message(panic).to_owned())
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::task::Wake;

    use super::*;

    /// Tells a test that it was woken.
    struct TestWaker(Mutex<std::sync::mpsc::Sender<()>>);

    impl Wake for TestWaker {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }

    fn waker() -> (Waker, Receiver<()>) {
        let (rung, rings) = channel();
        (Arc::new(TestWaker(Mutex::new(rung))).into(), rings)
    }

    #[test]
    fn a_result_is_there_when_the_waker_wakes() {
        let workers = Workers::new(0).unwrap();
        let (waker, rings) = waker();
        let (go, gone) = channel::<()>();
        let mut job = workers.run(waker, move || (gone.recv().unwrap(), 7)).unwrap();
        assert_eq!(job.take(), None);
        go.send(()).unwrap();
        rings.recv().unwrap();
        assert_eq!(job.take(), Some(Ok(((), 7))));
        assert_eq!(job.take(), None, "taken");
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_lives_on() {
        let workers = Workers::new(1).unwrap();
        let (waker, rings) = waker();
        for _ in 0..3 {
            let mut job = workers
                .run(waker.clone(), || {
                    if true {
                        panic!("on purpose")
                    }
                })
                .unwrap();
            rings.recv().unwrap();
            assert_eq!(job.take(), Some(Err(Panicked("on purpose".into()))));
        }
    }

    #[test]
    fn a_full_queue_says_so_and_takes_more_later() {
        let workers = Workers::with_queue(1, 2).unwrap();
        let (waker, rings) = waker();
        let (go, gone) = channel::<()>();
        let (begun, begins) = channel();
        let first = workers.run(waker.clone(), move || {
            begun.send(()).unwrap();
            gone.recv().unwrap();
        });
        begins.recv().unwrap();
        let waiting: Vec<_> = (0..2).map(|n| workers.run(waker.clone(), move || n).unwrap()).collect();
        assert_eq!(workers.run(waker.clone(), || ()).err(), Some(Full));
        go.send(()).unwrap();
        (0..3).for_each(|_| rings.recv().unwrap());
        assert_eq!(first.unwrap().take(), Some(Ok(())));
        assert_eq!(waiting.into_iter().map(|mut job| job.take()).collect::<Vec<_>>(), [Some(Ok(0)), Some(Ok(1))]);
        assert!(workers.run(waker, || ()).is_ok());
    }

    #[test]
    fn what_was_handed_in_is_done_when_nobody_can_hand_in_more() {
        let workers = Workers::new(2).unwrap();
        let (done, all) = channel();
        for n in 0..20 {
            let done = done.clone();
            drop(workers.run(Waker::noop().clone(), move || done.send(n).unwrap()));
        }
        drop((workers, done));
        assert_eq!(all.iter().count(), 20);
    }
}

//! A pool of threads for blocking work of handlers on an event loop.
//!
//! A handler [submits](Workers::run) a blocking job, and continues when it is woken. The numbers of threads and of
//! queued jobs are fixed: if all are in use, the handler gets an error immediately, and can respond with 503.

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

use crate::failure::panic_message;

/// Default number of jobs that may wait, per thread.
const WAITING: usize = 64;

type Work = Box<dyn FnOnce() + Send>;

/// Address space that a server needs at least, without its stacks: its cache, scripts, and connections.
const LEAST_MEMORY: usize = 12 << 20;
/// Address space that a thread needs: the default stack of Rust, and what is mapped around it.
const THREAD_MEMORY: usize = (2 << 20) + (128 << 10);
/// After a freed block of up to 32 MiB, glibc raises its threshold for mapping blocks separately; a larger one leaves
/// it unchanged.
const LEAST_PROBED: usize = 33 << 20;

/// Checks that the system provides the address space that a program with a server and `threads` threads needs, 33 MiB
/// at least. Call it once, before anything is started, because a process that starts a thread without memory may be
/// aborted.
///
/// # Errors
/// Errors of the system.
pub fn probe_memory(threads: usize) -> io::Result<()> {
    let bytes = threads.saturating_mul(THREAD_MEMORY).saturating_add(LEAST_MEMORY).max(LEAST_PROBED);
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| Errno::NOMEM)?;
    drop(black_box(memory));
    Ok(())
}

/// Checks that the system provides `threads` threads and `descriptors` descriptors at the same time, for a server
/// that is about to start, and that would otherwise fail to serve, or panic elsewhere.
///
/// # Errors
/// Errors of the system.
pub fn probe_resources(threads: usize, descriptors: usize) -> io::Result<()> {
    let (held, release) = channel::<()>();
    let release = Mutex::new(release);
    // The threads end when `held` is dropped, on every path.
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

/// A pool of threads that run what handlers must not wait for. Share it between all handlers of a server, for
/// instance in an `Arc`. When the pool is dropped, jobs that were already submitted are still run.
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
///                 Err(_full) => return Err(StatusCode::SERVICE_UNAVAILABLE.into()),
///             },
///             Call::Wake => match job.as_mut().and_then(|job| job.take()) {
///                 Some(Ok(Ok(name))) => reply.answer(StatusCode::OK, "text/plain", name)?,
///                 Some(_) => return Err("the name could not be read".into()),
///                 None => {}
///             },
///             _ => {}
///         }
///         Ok(())
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
    /// Starts `threads` threads, at least one, with a queue of 64 jobs per thread.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(threads: usize) -> io::Result<Workers> {
        Workers::with_queue(threads, threads.max(1).saturating_mul(WAITING))
    }

    /// Starts `threads` threads, at least one, with a queue of `waiting` jobs. With a queue of 0, a job is accepted
    /// only if a thread is idle.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn with_queue(threads: usize, waiting: usize) -> io::Result<Workers> {
        let (queue, jobs) = sync_channel(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 1..=threads.max(1) {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(format!("blocking-{n}")).spawn(move || work(&jobs))?;
        }
        Ok(Workers { queue })
    }

    /// Runs `job` on one of the threads, then wakes `waker`. Pass the waker of the reply, so that the handler is
    /// called with `Call::Wake` and gets the result from [`Job::take`]. Never blocks. A job is run even if its
    /// [`Job`] was dropped.
    ///
    /// # Errors
    /// [`Full`] if no thread is idle and the queue is full.
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
            // Dropped before the wake-up, so that the woken handler holds the only reference.
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

/// The body of a thread: runs jobs until the pool is dropped.
fn work(jobs: &Mutex<Receiver<Work>>) {
    loop {
        // One of the idle threads waits for a job, the others for the lock.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic here comes from a waker, or from dropping a result that is no longer wanted. The thread must
        // survive it.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// A job that a thread of [`Workers`] runs, or has run.
///
/// ```
/// use std::task::Waker;
/// use sanserve_server::Workers;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let workers = Workers::new(1)?;
/// // A handler passes `reply.waker()`, and takes the result when it is called with `Call::Wake`.
/// let mut job = workers.run(Waker::noop().clone(), || 6 * 7)?;
/// let result = loop {
///     if let Some(result) = job.take() {
///         break result;
///     }
///     std::thread::yield_now();
/// };
/// assert_eq!(result, Ok(42));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Job<T> {
    result: Arc<Mutex<Option<Result<T, Panicked>>>>,
}

impl<T> Job<T> {
    /// Returns the result once: `None` before the job is finished, and after the result was taken.
    pub fn take(&mut self) -> Option<Result<T, Panicked>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The error when no thread is idle and the queue is full.
///
/// ```
/// use sanserve_core::{HandlerError, StatusCode};
/// use sanserve_server::Full;
///
/// /// The response is 503.
/// fn busy(full: Full) -> HandlerError {
///     StatusCode::SERVICE_UNAVAILABLE.because(full)
/// }
/// # assert_eq!(busy(Full).status(), StatusCode::SERVICE_UNAVAILABLE);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all threads are busy and the queue is full")
    }
}

impl std::error::Error for Full {}

/// The job panicked, with this message.
///
/// ```
/// use sanserve_server::Panicked;
///
/// assert_eq!(Panicked("index out of bounds".into()).to_string(), "the job panicked: index out of bounds");
/// ```
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

    /// Notifies the test when it is woken.
    struct TestWaker(Mutex<std::sync::mpsc::Sender<()>>);

    impl Wake for TestWaker {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }

    fn waker() -> (Waker, Receiver<()>) {
        let (sender, receiver) = channel();
        (Arc::new(TestWaker(Mutex::new(sender))).into(), receiver)
    }

    #[test]
    fn the_result_is_available_after_the_wake_up() {
        let workers = Workers::new(0).unwrap();
        let (waker, receiver) = waker();
        let (go, gone) = channel::<()>();
        let mut job = workers.run(waker, move || (gone.recv().unwrap(), 7)).unwrap();
        assert_eq!(job.take(), None);
        go.send(()).unwrap();
        receiver.recv().unwrap();
        assert_eq!(job.take(), Some(Ok(((), 7))));
        assert_eq!(job.take(), None, "taken");
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_survives() {
        let workers = Workers::new(1).unwrap();
        let (waker, receiver) = waker();
        for _ in 0..3 {
            let mut job = workers
                .run(waker.clone(), || {
                    if true {
                        panic!("on purpose")
                    }
                })
                .unwrap();
            receiver.recv().unwrap();
            assert_eq!(job.take(), Some(Err(Panicked("on purpose".into()))));
        }
    }

    #[test]
    fn a_full_queue_is_an_error_until_there_is_room() {
        let workers = Workers::with_queue(1, 2).unwrap();
        let (waker, receiver) = waker();
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
        (0..3).for_each(|_| receiver.recv().unwrap());
        assert_eq!(first.unwrap().take(), Some(Ok(())));
        assert_eq!(waiting.into_iter().map(|mut job| job.take()).collect::<Vec<_>>(), [Some(Ok(0)), Some(Ok(1))]);
        assert!(workers.run(waker, || ()).is_ok());
    }

    #[test]
    fn submitted_jobs_are_run_after_the_pool_is_dropped() {
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

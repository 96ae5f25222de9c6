//! Threads that wait for disks, so that event loops do not.
//!
//! A connection that needs something that is not in memory passes the work to the pool ([`IoPool::start`]), and waits
//! for the [`Pending`] result; it has at most one. Threads are started when they are needed, up to a limit, and end after
//! they have been idle for a while. If no thread is free, the work waits in a queue, in order. The number of connections
//! bounds the queue: when a connection ends, its work is removed, unless a thread has begun with it.
//!
//! A file system that does not answer must not occupy all threads. So each request names its [`Place`], and of one
//! place no more requests are in progress than there are threads left for others.
//!
//! The pool also remembers which parts of large files were in memory a short time ago ([`IoPool::known`]), so that a
//! file that is sent often is examined only once in a few seconds.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use sanserve_os::FileId;

use crate::memory::{Budget, Reserved};

/// The default limit on threads. They only wait, so there may be more of them than processors. Requests of one place
/// use at most half of them.
pub const DEFAULT_IO_THREADS: usize = 32;

/// A thread ends after being idle for this long.
const IDLE: Duration = Duration::from_secs(10);

/// The stack size of a thread in bytes. The work consists of system calls with paths and descriptors.
const STACK: usize = 256 * 1024;

/// How long something that was in memory is assumed to be there. If it was evicted in the meantime, sending it waits for
/// the disk.
const STAYS_KNOWN: Duration = Duration::from_secs(10);

/// The number of files whose parts in memory are remembered. Each has one place in a table, which another file may take.
const FILES: usize = 64;

/// The number of names of scripts that are remembered, likewise.
const NAMES: usize = 256;

/// The places that are told apart. Two that have the same number share their part of the threads.
const PLACES: u64 = 256;

/// A request to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskRequest<'r> {
    /// Open this path beneath the root, or find a script there.
    Open(&'r [u8]),
    /// Read the entries of the directory with this path.
    List(&'r [u8]),
    /// Read from the file with this inode number.
    Read(u64),
}

/// Simulates a slow disk in tests: it decides what counts as not in memory, and blocks requests for it.
pub trait DiskGate: Send + Sync {
    /// Whether the requested data is not in memory.
    fn is_slow(&self, request: DiskRequest<'_>) -> bool;

    /// Blocks like a slow disk. Called before the actual request, by a thread that may block.
    fn wait(&self, request: DiskRequest<'_>);
}

/// The threads of a server that wait for disks, shared by its event loops.
pub struct IoPool {
    queue: Arc<Queue>,
    known: Mutex<Vec<Option<Known>>>,
    /// The hashes of names of scripts that were looked up, with the time.
    names: Mutex<Vec<Option<(u64, Instant)>>>,
    /// Limits the memory for bytes that were read and not sent yet.
    budget: OnceLock<Arc<Budget>>,
    gate: Option<Arc<dyn DiskGate>>,
}

type Work = Box<dyn FnOnce() + Send>;

/// What may be slow as one: a device, or a directory in the root, since it may be where another file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// The device with this number.
    pub(crate) fn device(dev: u64) -> Place {
        Place(hash_of(&dev) % PLACES)
    }

    /// Where this path beneath the root begins.
    pub(crate) fn of_path(path: &[u8]) -> Place {
        Place(hash_of(path.split(|&byte| byte == b'/').next().unwrap_or_default()) % PLACES)
    }
}

/// The state that the threads and the pool share.
struct Queue {
    state: Mutex<State>,
    /// Notified when there is work, or when the pool is dropped.
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    /// The places of which something is waiting or in progress; there are few.
    places: Vec<Requests>,
    next: u64,
    threads: usize,
    idle: usize,
    /// The requests in progress.
    busy: usize,
    closed: bool,
}

/// The requests of one place.
struct Requests {
    place: Place,
    /// By number, so in order.
    waiting: VecDeque<(u64, Work)>,
    in_progress: usize,
}

impl State {
    /// Whether another request of a place may begin, of which so many are in progress.
    fn may_begin(&self, in_progress: usize, most: usize) -> bool {
        let free = most.saturating_sub(self.busy);
        free > 0 && (in_progress == 0 || in_progress < free)
    }

    /// The place whose request is the next to begin: of those that may, the one that has waited for longest.
    fn next_place(&mut self, most: usize) -> Option<&mut Requests> {
        let may_begin = |requests: &Requests| self.may_begin(requests.in_progress, most);
        let first = |(at, requests): (usize, &Requests)| {
            let number = requests.waiting.front()?.0;
            may_begin(requests).then_some((number, at))
        };
        let (_, at) = self.places.iter().enumerate().filter_map(first).min()?;
        self.places.get_mut(at)
    }

    /// Takes the next request, which then is in progress.
    fn begin(&mut self, most: usize) -> Option<(Place, Work)> {
        let requests = self.next_place(most)?;
        let (_, work) = requests.waiting.pop_front()?;
        requests.in_progress += 1;
        let place = requests.place;
        self.busy += 1;
        Some((place, work))
    }

    fn add(&mut self, place: Place, number: u64, work: Work) {
        match self.places.iter_mut().find(|requests| requests.place == place) {
            Some(requests) => requests.waiting.push_back((number, work)),
            None => self.places.push(Requests { place, waiting: VecDeque::from([(number, work)]), in_progress: 0 }),
        }
    }

    fn end(&mut self, place: Place) {
        self.busy -= 1;
        if let Some(requests) = self.places.iter_mut().find(|requests| requests.place == place) {
            requests.in_progress -= 1;
        }
        self.forget_unused(place);
    }

    fn remove(&mut self, place: Place, number: u64) -> Option<Work> {
        let requests = self.places.iter_mut().find(|requests| requests.place == place)?;
        let at = requests.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, work) = requests.waiting.remove(at)?;
        self.forget_unused(place);
        Some(work)
    }

    fn forget_unused(&mut self, place: Place) {
        self.places.retain(|all| all.place != place || all.in_progress > 0 || !all.waiting.is_empty());
    }

    /// How many wait in places where another one may begin.
    fn ready(&self, most: usize) -> usize {
        let ready = self.places.iter().filter(|requests| self.may_begin(requests.in_progress, most));
        ready.map(|requests| requests.waiting.len()).sum()
    }
}

/// Which part of a file was in memory.
#[derive(Clone, Copy)]
struct Known {
    id: FileId,
    from: u64,
    to: u64,
    since: Instant,
}

impl IoPool {
    /// A pool of at most `threads` threads. 0: it is not used, and event loops wait for disks themselves.
    #[must_use]
    pub fn new(threads: usize) -> IoPool {
        let queue = Queue { state: Mutex::default(), changed: Condvar::new(), most: threads };
        IoPool {
            queue: Arc::new(queue),
            known: Mutex::default(),
            names: Mutex::default(),
            budget: OnceLock::new(),
            gate: None,
        }
    }

    /// Simulates a slow disk, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn DiskGate>) -> IoPool {
        self.gate = Some(gate);
        self
    }

    /// A pool for another server, with the same limit.
    pub(crate) fn for_another_server(&self) -> IoPool {
        let mut pool = IoPool::new(self.threads());
        pool.gate.clone_from(&self.gate);
        pool
    }

    /// The limit on threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.queue.most
    }

    pub(crate) fn gate(&self) -> Option<&Arc<dyn DiskGate>> {
        self.gate.as_ref()
    }

    /// Whether a simulated disk would have to be waited for.
    pub(crate) fn is_slow(&self, request: DiskRequest<'_>) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.is_slow(request))
    }

    /// Runs `work`, which waits for `place`, on a thread. If no thread can be started, it runs on this one, before this
    /// returns.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<T> {
        let outcome = Arc::new(Outcome { state: Mutex::new(Done { result: None, waker: None }) });
        let result = Arc::clone(&outcome);
        let work = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(work)).ok();
            let mut state = result.lock();
            state.result = Some(done);
            let waker = state.waker.take();
            drop(state);
            // Dropped before the wake-up, so that the woken task has the only reference.
            drop(result);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let number = Queue::push(&self.queue, place, work);
        Pending { outcome, queue: Arc::clone(&self.queue), place, number }
    }

    /// How many bytes of a file, from `offset` on, were in memory a short time ago.
    pub(crate) fn known(&self, id: &FileId, offset: u64) -> u64 {
        let all = self.lock_known();
        let known = all.get(place_of(id)).and_then(Option::as_ref);
        let known = known.filter(|known| known.id == *id && known.since.elapsed() < STAYS_KNOWN);
        known.filter(|known| known.from <= offset).map_or(0, |known| known.to.saturating_sub(offset))
    }

    /// Records that a part of a file is in memory.
    pub(crate) fn note(&self, id: &FileId, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let mut all = self.lock_known();
        if all.is_empty() {
            all.resize(FILES, None);
        }
        let place = &mut all[place_of(id)];
        match place {
            // Adjacent and overlapping parts are merged, with the time of the older one.
            Some(known)
                if known.id == *id && known.since.elapsed() < STAYS_KNOWN && from <= known.to && to >= known.from =>
            {
                known.from = known.from.min(from);
                known.to = known.to.max(to);
            }
            _ => *place = Some(Known { id: *id, from, to, since: Instant::now() }),
        }
    }

    /// Whether this name was looked up a short time ago, so that it is in memory.
    pub(crate) fn is_known_name(&self, name: &[u8]) -> bool {
        let hash = hash_of(name);
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(hash as usize % NAMES).and_then(Option::as_ref);
        known.is_some_and(|(known, since)| *known == hash && since.elapsed() < STAYS_KNOWN)
    }

    /// Records that this name was looked up.
    pub(crate) fn note_name(&self, name: &[u8]) {
        let hash = hash_of(name);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_empty() {
            names.resize(NAMES, None);
        }
        names[hash as usize % NAMES] = Some((hash, Instant::now()));
    }

    /// Counts the memory for bytes that are read against the limit of the connections.
    pub(crate) fn limit_memory(&self, budget: &Arc<Budget>) {
        let _ = self.budget.set(Arc::clone(budget));
    }

    /// Reserves memory for bytes that are read. `None`: there is none.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Reserved> {
        Reserved::take(self.budget.get()?, bytes)
    }

    fn lock_known(&self) -> MutexGuard<'_, Vec<Option<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a part of a hash is one")]
fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn place_of(id: &FileId) -> usize {
    let mixed = (id.ino ^ id.dev.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % FILES
}

impl fmt::Debug for IoPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoPool").field("threads", &self.queue.most).finish_non_exhaustive()
    }
}

/// A thread that waits for a disk ends when the disk has responded.
impl Drop for IoPool {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No change can panic in the middle.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(queue: &Arc<Queue>, place: Place, work: Work) -> u64 {
        let mut state = queue.lock();
        let number = state.next;
        state.next += 1;
        state.add(place, number, work);
        if state.idle < state.ready(queue.most) && state.threads < queue.most {
            let its = Arc::clone(queue);
            let thread = thread::Builder::new().name("sanserve-disk".into()).stack_size(STACK);
            match thread.spawn(move || its.work()) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > 0 => {}
                Err(_) => {
                    let work = state.remove(place, number);
                    drop(state);
                    work.into_iter().for_each(|work| work());
                    return number;
                }
            }
        }
        drop(state);
        queue.changed.notify_one();
        number
    }

    /// The body of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((place, work)) = state.begin(self.most) {
                drop(state);
                // The work catches its own panics. The waker may panic, too.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = self.lock();
                state.end(place);
                // This may be what requests of other places have waited for.
                self.changed.notify_one();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (woken, timeout) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.next_place(self.most).is_none() {
                break;
            }
        }
        state.threads -= 1;
    }
}

/// The result of work on a thread. If it is dropped before the work has begun, the work is removed.
pub(crate) struct Pending<T> {
    outcome: Arc<Outcome<T>>,
    queue: Arc<Queue>,
    place: Place,
    number: u64,
}

struct Outcome<T> {
    state: Mutex<Done<T>>,
}

struct Done<T> {
    /// `Some(None)`: it panicked.
    result: Option<Option<T>>,
    waker: Option<Waker>,
}

impl<T> Outcome<T> {
    fn lock(&self) -> MutexGuard<'_, Done<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Pending<T> {
    /// The result, if the work is done. `Some(None)`: it panicked.
    pub(crate) fn take(&mut self) -> Option<Option<T>> {
        self.outcome.lock().result.take()
    }

    /// Wakes `waker` when the work is done. `true`: it is done already.
    pub(crate) fn wake_when_done(&self, waker: &Waker) -> bool {
        let mut state = self.outcome.lock();
        if state.result.is_some() {
            return true;
        }
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        false
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let work = self.queue.lock().remove(self.place, self.number);
        // Dropped without the lock, since this may close a file.
        drop(work);
        self.outcome.lock().waker = None;
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::Wake;

    use super::*;

    const HERE: Place = Place(0);

    struct TestWaker(Mutex<Sender<()>>);

    impl Wake for TestWaker {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }

    fn waker() -> (Waker, Receiver<()>) {
        let (sender, receiver) = channel();
        (Arc::new(TestWaker(Mutex::new(sender))).into(), receiver)
    }

    /// Work that reports when it has begun, and continues when it is told to.
    fn gated(pool: &IoPool, place: Place, begun: &Sender<u32>, n: u32) -> (Sender<()>, Pending<u32>) {
        let (go, gone) = channel::<()>();
        let begun = begun.clone();
        let pending = pool.start(place, move || {
            begun.send(n).unwrap();
            gone.recv().unwrap();
            n
        });
        (go, pending)
    }

    fn count_waiting(pool: &IoPool) -> usize {
        pool.queue.lock().places.iter().map(|requests| requests.waiting.len()).sum()
    }

    fn result<T>(pending: &mut Pending<T>) -> Option<T> {
        let (waker, woken) = waker();
        if !pending.wake_when_done(&waker) {
            woken.recv().unwrap();
        }
        pending.take().expect("it was woken for that")
    }

    #[test]
    fn work_waits_in_order_for_as_many_threads_as_there_may_be() {
        let pool = IoPool::new(2);
        let (begun, begins) = channel();
        let mut all: Vec<_> = (0..5).map(|n| gated(&pool, Place(n.into()), &begun, n)).collect();
        let mut first = [begins.recv().unwrap(), begins.recv().unwrap()];
        first.sort_unstable();
        assert_eq!(first, [0, 1]);
        assert!(begins.try_recv().is_err() && pool.queue.lock().threads == 2);
        for (n, (go, pending)) in all.iter_mut().enumerate() {
            assert!(pending.take().is_none());
            go.send(()).unwrap();
            assert_eq!(result(pending), Some(n as u32));
            assert!(pending.take().is_none(), "it was taken");
        }
        assert_eq!(begins.iter().take(3).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(pool.queue.lock().threads, 2);
    }

    #[test]
    fn one_place_leaves_threads_for_others_and_many_places_leave_one_for_another() {
        const THREADS: usize = 8;
        let pool = IoPool::new(THREADS);
        let (begun, begins) = channel();
        let mut all = Vec::new();
        // Of three places that do not answer, 4, 2 and 1 of the requests begin.
        for (place, expected) in [(1, 4), (2, 2), (3, 1)] {
            all.extend((0..THREADS as u32).map(|n| gated(&pool, Place(place), &begun, place as u32 * 100 + n)));
            let mut numbers: Vec<u32> = begins.iter().take(expected).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..expected as u32).map(|n| place as u32 * 100 + n).collect::<Vec<_>>());
        }
        assert_eq!(pool.queue.lock().busy, 7);
        assert_eq!(count_waiting(&pool), 17);
        // One thread is left: requests of another place have it in turns.
        for n in 0..20 {
            let (go, mut pending) = gated(&pool, Place(4), &begun, n);
            assert_eq!(begins.recv().unwrap(), n);
            go.send(()).unwrap();
            assert_eq!(result(&mut pending), Some(n));
        }
        assert!(begins.try_recv().is_err());
        // Once they answer, everything is done.
        for (go, _) in &all {
            go.send(()).unwrap();
        }
        assert_eq!(begins.iter().take(17).count(), 17);
        for (_, pending) in &mut all {
            result(pending);
        }
        drop(all);
        while pool.queue.lock().busy > 0 {
            thread::yield_now();
        }
        assert!(pool.queue.lock().places.is_empty(), "nothing is kept of a place that is not used");
    }

    #[test]
    fn a_place_is_a_device_or_what_is_in_the_root() {
        assert_eq!(Place::of_path(b"mnt"), Place::of_path(b"mnt/a/b"));
        assert_ne!(Place::of_path(b"mnt/a"), Place::of_path(b"local/a"));
        assert_ne!(Place::device(1), Place::device(2));
        assert!(Place::device(u64::MAX).0 < PLACES);
    }

    #[test]
    fn work_whose_result_is_dropped_is_not_begun_and_is_freed() {
        let pool = IoPool::new(1);
        let (begun, begins) = channel();
        let (go, mut running) = gated(&pool, HERE, &begun, 0);
        begins.recv().unwrap();
        let held = Arc::new(());
        let its = Arc::clone(&held);
        let waiting = pool.start(HERE, move || drop(its));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(waiting);
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(count_waiting(&pool), 0);
        go.send(()).unwrap();
        assert_eq!(result(&mut running), Some(0));
    }

    #[test]
    fn a_dropped_result_wakes_nothing_and_is_freed() {
        let pool = IoPool::new(1);
        let (begun, begins) = channel();
        let (go, pending) = gated(&pool, HERE, &begun, 0);
        begins.recv().unwrap();
        let (waker, woken) = waker();
        assert!(!pending.wake_when_done(&waker));
        drop((pending, waker));
        go.send(()).unwrap();
        assert!(woken.recv().is_err(), "the waker is gone, and was not used");
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_continues() {
        let pool = IoPool::new(1);
        for _ in 0..3 {
            let mut pending = pool.start(HERE, || std::panic::resume_unwind(Box::new("on purpose")));
            assert_eq!(result::<()>(&mut pending), None);
        }
        assert_eq!(pool.queue.lock().threads, 1);
    }

    #[test]
    fn threads_end_with_their_pool() {
        let pool = IoPool::new(3);
        let queue = Arc::downgrade(&pool.queue);
        let (begun, begins) = channel();
        let (go, mut pending) = gated(&pool, HERE, &begun, 7);
        begins.recv().unwrap();
        drop(pool);
        go.send(()).unwrap();
        assert_eq!(result(&mut pending), Some(7), "what has begun is done");
        drop(pending);
        while queue.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn the_known_part_of_a_file_grows_and_belongs_to_one_version() {
        let pool = IoPool::new(1);
        let id = FileId { dev: 1, ino: 2, size: 1000, mtime: (0, 0), ctime: (0, 0) };
        assert_eq!(pool.known(&id, 0), 0);
        pool.note(&id, 100, 200);
        assert_eq!([0, 100, 150, 200, 300].map(|at| pool.known(&id, at)), [0, 100, 50, 0, 0]);
        pool.note(&id, 200, 300);
        pool.note(&id, 50, 100);
        assert_eq!([50, 100, 299].map(|at| pool.known(&id, at)), [250, 200, 1]);
        pool.note(&id, 800, 900);
        assert_eq!((pool.known(&id, 100), pool.known(&id, 800)), (0, 100), "a part that lies apart replaces it");
        let changed = FileId { mtime: (1, 0), ..id };
        assert_eq!(pool.known(&changed, 800), 0);
        pool.note(&changed, 0, 1000);
        assert_eq!((pool.known(&changed, 0), pool.known(&id, 800)), (1000, 0));
        pool.note(&id, 5, 5);
        assert_eq!(pool.known(&changed, 0), 1000, "nothing is not noted");
    }
}

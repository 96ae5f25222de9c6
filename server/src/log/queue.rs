//! A bounded queue of lines for a sink that may block, such as a pipe that is not read, or a terminal that was
//! stopped.
//!
//! Logging only appends to the queue. A thread of the queue writes the lines, and only this thread waits for the
//! sink. If the queue is full, an appender waits for a moment, but not if the sink has accepted nothing since an
//! appender last waited in vain.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

/// The most bytes that may wait to be written. Lines beyond that are lost and counted.
const MAX_PENDING: usize = 1 << 20;
/// How long an appender waits for room.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// With this many bytes pending, a resting writer is woken.
const PRESSING: usize = 1 << 18;
/// How long the writer rests after each write, so that it writes many lines at once under load.
const REST: Duration = Duration::from_millis(10);
/// Capacity that a buffer keeps after a write, in bytes.
const KEPT: usize = 64 * 1024;

/// The queue for stderr, shared by all logs of the process.
pub(super) static STDERR: LazyLock<Arc<Queue>> = LazyLock::new(|| Queue::new(to_stderr));

/// A bounded queue of whole lines, and the function that writes them.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Notified when the writer has something to do.
    work: Condvar,
    /// Notified when something was written.
    done: Condvar,
    /// How long an appender waits for room.
    max_wait: Duration,
    write: Box<Writes>,
}

/// Writes a batch, however long that takes, or discards it. The batch is empty after [`Queue::wake`].
type Writes = dyn Fn(&[u8]) + Send + Sync;

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that were lost since the writer last took the pending ones.
    lost: usize,
    /// Bytes appended in total, and how many of them were written.
    appended: u64,
    written: u64,
    /// The thread is running. It is started with the first line.
    started: bool,
    writer: Writer,
    /// The number of callers that wait in [`Queue::flush_within`].
    flushing: usize,
    /// A flush timed out, and nothing was written since.
    stuck: bool,
    /// An appender waited for room in vain, and nothing was written since.
    hangs: bool,
    /// The number of appenders that wait for room.
    waiting: usize,
    /// The writer must call the sink, even with no line to write.
    woken: bool,
    /// Nothing will be appended any more.
    closed: bool,
}

impl State {
    fn has_room(&self, len: usize) -> bool {
        self.pending.is_empty() || self.pending.len() + len <= MAX_PENDING
    }
}

/// What the writer is doing, so that it is only woken when necessary.
#[derive(Default, PartialEq, Eq)]
enum Writer {
    /// It is writing, or about to write, and checks the queue by itself.
    #[default]
    Busy,
    /// It has just written, and will check the queue soon.
    Rests,
    /// It is waiting for lines.
    Waits,
}

impl Queue {
    pub(super) fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> Arc<Queue> {
        Queue::with_max_wait(MAX_WAIT, write)
    }

    fn with_max_wait(max_wait: Duration, write: impl Fn(&[u8]) + Send + Sync + 'static) -> Arc<Queue> {
        let (work, done) = (Condvar::new(), Condvar::new());
        Arc::new(Queue { state: Mutex::default(), work, done, max_wait, write: Box::new(write) })
    }

    /// Appends whole lines. If there is no room, waits for a moment, unless an appender has waited in vain since the
    /// last write. If there is still no room, the lines are lost and counted.
    pub(super) fn append(self: &Arc<Self>, lines: &[u8]) {
        let mut state = self.state();
        self.start(&mut state);
        // No line is appended after a lost one, so that each gap in the log is in one place.
        if state.started && !state.hangs && state.lost == 0 && !state.has_room(lines.len()) {
            state.waiting += 1;
            let full = |state: &mut State| state.lost == 0 && !state.hangs && !state.has_room(lines.len());
            let waited = self.done.wait_timeout_while(state, self.max_wait, full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            state.hangs |= !state.has_room(lines.len());
        }
        if state.lost > 0 || !state.has_room(lines.len()) {
            state.lost += lines.iter().filter(|&&byte| byte == b'\n').count();
            return;
        }
        state.pending.extend_from_slice(lines);
        state.appended += lines.len() as u64;
        let wake = match state.writer {
            Writer::Waits => true,
            Writer::Rests => state.pending.len() >= PRESSING,
            Writer::Busy => false,
        };
        if wake {
            state.writer = Writer::Busy;
            drop(state);
            self.work.notify_one();
        }
    }

    /// Calls the sink soon, even if there is no line to write.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut state = self.state();
        self.start(&mut state);
        state.woken = true;
        drop(state);
        self.work.notify_one();
    }

    /// Ends the thread once everything is written. Nothing may be appended afterwards.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    fn start(self: &Arc<Self>, state: &mut State) {
        if !state.started {
            let queue = Arc::clone(self);
            // If the thread cannot be started, the next line tries again.
            state.started = thread::Builder::new().name("log".into()).spawn(move || queue.write_all()).is_ok();
        }
    }

    /// Waits until everything appended so far is written, for at most `bound`. Returns whether it is.
    pub(super) fn flush_within(&self, bound: Duration) -> bool {
        let mut state = self.state();
        let target = state.appended;
        if state.written < target {
            state.flushing += 1;
            self.work.notify_one();
            let waited = self.done.wait_timeout_while(state, bound, |state| state.written < target);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.flushing -= 1;
            state.stuck = state.written < target;
        }
        state.written >= target
    }

    /// Like `flush_within`, but returns immediately if a flush has timed out and nothing was written since.
    pub(super) fn flush_unless_stuck(&self, bound: Duration) {
        if !self.state().stuck {
            self.flush_within(bound);
        }
    }

    /// The body of the thread.
    fn write_all(&self) {
        let mut batch = Vec::new();
        let mut state = self.state();
        loop {
            state.writer = Writer::Waits;
            let idle = |state: &mut State| state.pending.is_empty() && !state.woken && !state.closed;
            let waited = self.work.wait_while(state, idle);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closed && state.pending.is_empty() {
                return;
            }
            (state.writer, state.woken) = (Writer::Busy, false);
            std::mem::swap(&mut batch, &mut state.pending);
            let lost = std::mem::take(&mut state.lost);
            let end = state.appended;
            if state.waiting > 0 {
                self.done.notify_all();
            }
            drop(state);
            if lost > 0 {
                writeln!(batch, "sanserve: {lost} log lines were lost").expect("writing to a Vec cannot fail");
            }
            (self.write)(&batch);
            batch.clear();
            batch.shrink_to(KEPT);
            state = self.state();
            state.written = end;
            (state.stuck, state.hangs) = (false, false);
            if state.flushing > 0 {
                self.done.notify_all();
            }
            state.writer = Writer::Rests;
            let rests = |state: &mut State| {
                state.pending.len() < PRESSING && state.flushing == 0 && !state.woken && !state.closed
            };
            let rested = self.work.wait_timeout_while(state, REST, rests);
            state = rested.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes without taking the lock of Rust's stderr, so that a panic elsewhere, or `eprintln!`, does not wait for it.
fn to_stderr(mut lines: &[u8]) {
    let stderr = io::stderr();
    while !lines.is_empty() {
        match rustix::io::write(&stderr, lines) {
            Ok(0) => return,
            Ok(n) => lines = &lines[n..],
            Err(Errno::INTR) => {}
            // Another process that shares stderr has made it non-blocking.
            Err(Errno::AGAIN) => thread::sleep(REST),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    type Written = Arc<Mutex<Vec<u8>>>;

    /// A queue whose sink accepts one batch for each `()` that is sent, and the batches that it has accepted.
    fn gated() -> (Arc<Queue>, mpsc::Sender<()>, Written) {
        let (open, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let written = Written::default();
        let taken = Arc::clone(&written);
        let queue = Queue::new(move |lines| {
            let _ = gate.lock().unwrap().recv();
            taken.lock().unwrap().extend_from_slice(lines);
        });
        (queue, open, written)
    }

    #[test]
    fn a_sink_that_blocks_does_not_block_appenders() {
        let (queue, open, written) = gated();
        queue.append(b"first\n");
        // The writer has taken the first line, and is blocked.
        let start = Instant::now();
        while !queue.state().pending.is_empty() {
            assert!(start.elapsed() < TIMEOUT);
            thread::yield_now();
        }
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..1024 + 5 {
            queue.append(&line);
        }
        queue.append(b"small\nbut late\n");
        assert!(!queue.flush_within(Duration::from_millis(20)));
        queue.flush_unless_stuck(TIMEOUT * 100);
        open.send(()).unwrap();
        open.send(()).unwrap();
        assert!(queue.flush_within(TIMEOUT));
        queue.append(b"last\n");
        open.send(()).unwrap();
        assert!(queue.flush_within(TIMEOUT));
        let written = written.lock().unwrap();
        let text = std::str::from_utf8(&written).unwrap();
        assert!(text.starts_with("first\nxxx"));
        assert!(text.ends_with("x\nsanserve: 7 log lines were lost\nlast\n"));
        assert_eq!(text.lines().count(), 1 + 1024 + 2);
        assert!(queue.state().pending.capacity() <= 2 * MAX_PENDING);
    }

    #[test]
    fn nothing_is_lost_if_the_sink_keeps_up() {
        let written = Arc::new(Mutex::new(0));
        let taken = Arc::clone(&written);
        // Slower than the lines arrive. On a busy machine, a thread may not run for longer than `MAX_WAIT`.
        let queue = Queue::with_max_wait(TIMEOUT, move |lines| {
            thread::sleep(Duration::from_millis(2));
            *taken.lock().unwrap() += lines.iter().filter(|&&byte| byte == b'\n').count();
        });
        let line = [&[b'x'; 8191][..], b"\n"].concat();
        for _ in 0..2_000 {
            queue.append(&line);
        }
        assert!(queue.flush_within(TIMEOUT));
        assert_eq!(*written.lock().unwrap(), 2_000);
    }

    #[test]
    fn lines_of_threads_stay_whole_and_in_order() {
        let written = Written::default();
        let taken = Arc::clone(&written);
        let queue = &Queue::new(move |lines| taken.lock().unwrap().extend_from_slice(lines));
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..2000 {
                        queue.append(format!("{thread} {n}\n").as_bytes());
                    }
                });
            }
        });
        assert!(queue.flush_within(TIMEOUT));
        let written = written.lock().unwrap();
        let mut next = [0; 4];
        for line in std::str::from_utf8(&written).unwrap().lines() {
            let (thread, n) = line.split_once(' ').unwrap();
            let next = &mut next[thread.parse::<usize>().unwrap()];
            assert_eq!(n.parse(), Ok(*next));
            *next += 1;
        }
        assert_eq!(next, [2000; 4]);
    }

    #[test]
    fn a_closed_queue_writes_what_is_pending_and_ends_its_thread() {
        let written = Written::default();
        let taken = Arc::clone(&written);
        let queue = Queue::new(move |lines| taken.lock().unwrap().extend_from_slice(lines));
        queue.append(b"first\n");
        assert!(queue.flush_within(TIMEOUT));
        queue.append(b"last\n");
        queue.close();
        let start = Instant::now();
        // The thread holds a reference to the queue.
        while Arc::strong_count(&queue) > 1 {
            assert!(start.elapsed() < TIMEOUT);
            thread::yield_now();
        }
        assert_eq!(*written.lock().unwrap(), b"first\nlast\n");
    }

    #[test]
    fn wake_calls_the_sink_without_a_line() {
        let (called, calls) = mpsc::channel();
        let queue = Queue::new(move |lines| drop(called.send(lines.to_vec())));
        queue.wake();
        assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), b"");
        queue.append(b"line\n");
        assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), b"line\n");
        queue.close();
    }
}

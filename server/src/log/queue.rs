//! Lines on their way to a sink that may block: a pipe that nobody reads, a terminal that was stopped.
//!
//! Whoever logs only appends, within a bound; a thread of the queue's own writes, and it alone waits for the sink.
//! Where the queue is full, who appends waits a moment for a sink that takes what it is given, and not at all for
//! one that has not taken anything since somebody waited in vain.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

/// Bytes that may wait to be written; lines beyond that are lost, and counted.
const MAX_PENDING: usize = 1 << 20;
/// How long a line waits for room.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// With so many bytes the writer is woken from its rest.
const PRESSING: usize = 1 << 18;
/// What the writer rests after each write, so that under load it takes many lines at once.
const REST: Duration = Duration::from_millis(10);
/// What a buffer keeps of its memory.
const KEPT: usize = 64 * 1024;

/// The one of stderr, for all logs of the process.
pub(super) static STDERR: LazyLock<Arc<Queue>> = LazyLock::new(|| Queue::new(to_stderr));

/// A bounded queue of whole lines, and what writes them.
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer has something to do.
    work: Condvar,
    /// Something was written.
    done: Condvar,
    write: Box<Writes>,
}

/// Writes a batch, however long it takes, or gives it up. An empty one has come from [`Queue::wake`].
type Writes = dyn Fn(&[u8]) + Send + Sync;

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that found no room since the writer last took what was pending.
    lost: usize,
    /// Bytes ever appended, and how far of them was written.
    appended: u64,
    written: u64,
    /// The thread is there. It is started when there is something to write.
    started: bool,
    writer: Writer,
    /// So many wait in [`Queue::flush_within`].
    flushing: usize,
    /// One of them waited in vain, and nothing was written since.
    stuck: bool,
    /// A line has waited for room in vain, and nothing was written since.
    hangs: bool,
    /// So many wait for room.
    waiting: usize,
    /// The writer is to call the sink, whether or not there is a line.
    woken: bool,
    /// Nothing comes any more.
    closed: bool,
}

impl State {
    fn has_room(&self, len: usize) -> bool {
        self.pending.is_empty() || self.pending.len() + len <= MAX_PENDING
    }
}

/// What the writer is up to, so that it is woken only where it has to be.
#[derive(Default, PartialEq, Eq)]
enum Writer {
    /// It writes, or is about to: it will look by itself.
    #[default]
    Busy,
    /// It has just written, and looks again soon.
    Rests,
    /// It waits for lines.
    Waits,
}

impl Queue {
    pub(super) fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> Arc<Queue> {
        let (work, done) = (Condvar::new(), Condvar::new());
        Arc::new(Queue { state: Mutex::default(), work, done, write: Box::new(write) })
    }

    /// Appends whole lines. Where there is no room, waits a moment if the sink has taken something since somebody
    /// waited in vain; then they are lost, and counted.
    pub(super) fn append(self: &Arc<Self>, lines: &[u8]) {
        let mut state = self.state();
        self.start(&mut state);
        // None is let in after one that was lost: what is missing is missing in one place.
        if state.started && !state.hangs && state.lost == 0 && !state.has_room(lines.len()) {
            state.waiting += 1;
            let full = |state: &mut State| state.lost == 0 && !state.hangs && !state.has_room(lines.len());
            let waited = self.done.wait_timeout_while(state, MAX_WAIT, full);
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

    /// Has the sink called soon, though there may be no line for it.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut state = self.state();
        self.start(&mut state);
        state.woken = true;
        drop(state);
        self.work.notify_one();
    }

    /// Lets the thread end when all is written. Nothing may be appended any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    fn start(self: &Arc<Self>, state: &mut State) {
        if !state.started {
            let queue = Arc::clone(self);
            // If the system refuses, the next one tries again.
            state.started = thread::Builder::new().name("log".into()).spawn(move || queue.write_all()).is_ok();
        }
    }

    /// Waits until what was appended so far is written, but no longer than `bound`. `true`: it is.
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

    /// The same, unless somebody has waited in vain before and nothing was written since.
    pub(super) fn flush_unless_stuck(&self, bound: Duration) {
        if !self.state().stuck {
            self.flush_within(bound);
        }
    }

    /// What the thread does.
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
                writeln!(batch, "sanserve: {lost} log lines were lost").expect("a Vec takes all");
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

/// Writes past the lock of Rust's stderr: a panic elsewhere, or `eprintln!`, need not wait for it.
fn to_stderr(mut lines: &[u8]) {
    let stderr = io::stderr();
    while !lines.is_empty() {
        match rustix::io::write(&stderr, lines) {
            Ok(0) => return,
            Ok(n) => lines = &lines[n..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it non-blocking.
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

    const PATIENCE: Duration = Duration::from_secs(20);

    type Written = Arc<Mutex<Vec<u8>>>;

    /// A queue whose sink takes a batch for each `()` that is sent, and what it took.
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
    fn a_sink_that_blocks_holds_nobody_up() {
        let (queue, open, written) = gated();
        queue.append(b"first\n");
        // The writer has it, and is stuck.
        let start = Instant::now();
        while !queue.state().pending.is_empty() {
            assert!(start.elapsed() < PATIENCE);
            thread::yield_now();
        }
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..1024 + 5 {
            queue.append(&line);
        }
        queue.append(b"small\nbut late\n");
        assert!(!queue.flush_within(Duration::from_millis(20)));
        queue.flush_unless_stuck(PATIENCE * 100);
        open.send(()).unwrap();
        open.send(()).unwrap();
        assert!(queue.flush_within(PATIENCE));
        queue.append(b"last\n");
        open.send(()).unwrap();
        assert!(queue.flush_within(PATIENCE));
        let written = written.lock().unwrap();
        let text = std::str::from_utf8(&written).unwrap();
        assert!(text.starts_with("first\nxxx"));
        assert!(text.ends_with("x\nsanserve: 7 log lines were lost\nlast\n"));
        assert_eq!(text.lines().count(), 1 + 1024 + 2);
        assert!(queue.state().pending.capacity() <= 2 * MAX_PENDING);
    }

    #[test]
    fn nothing_is_lost_where_the_sink_takes_all() {
        let written = Arc::new(Mutex::new(0));
        let taken = Arc::clone(&written);
        // Slower than the lines come, and far faster than any line waits.
        let queue = Queue::new(move |lines| {
            thread::sleep(Duration::from_millis(2));
            *taken.lock().unwrap() += lines.iter().filter(|&&byte| byte == b'\n').count();
        });
        let line = [&[b'x'; 8191][..], b"\n"].concat();
        for _ in 0..2_000 {
            queue.append(&line);
        }
        assert!(queue.flush_within(PATIENCE));
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
        assert!(queue.flush_within(PATIENCE));
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
    fn a_closed_queue_writes_what_it_holds_and_lets_its_thread_end() {
        let written = Written::default();
        let taken = Arc::clone(&written);
        let queue = Queue::new(move |lines| taken.lock().unwrap().extend_from_slice(lines));
        queue.append(b"first\n");
        assert!(queue.flush_within(PATIENCE));
        queue.append(b"last\n");
        queue.close();
        let start = Instant::now();
        // The thread holds the queue.
        while Arc::strong_count(&queue) > 1 {
            assert!(start.elapsed() < PATIENCE);
            thread::yield_now();
        }
        assert_eq!(*written.lock().unwrap(), b"first\nlast\n");
    }

    #[test]
    fn a_sink_is_called_though_there_is_no_line() {
        let (called, calls) = mpsc::channel();
        let queue = Queue::new(move |lines| drop(called.send(lines.to_vec())));
        queue.wake();
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), b"");
        queue.append(b"line\n");
        assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), b"line\n");
        queue.close();
    }
}

//! Runs an executor so that new events do not wait for several long tasks.
//!
//! [`Executor::run`] polls up to 200 tasks before the reactor checks for events. Most take a few microseconds, but a task
//! that sends half a megabyte or sorts a batch of names takes a hundred times as long. After such a task, the reactor
//! checks immediately.

use std::cell::Cell;

use smol::Executor;
use smol::future::{FutureExt as _, yield_now};

/// The most short tasks that are polled in a row.
const IN_A_ROW: usize = 200;

thread_local! {
    static TOOK_LONG: Cell<bool> = const { Cell::new(false) };
}

/// Records that the task that this thread is polling takes a long time.
pub(crate) fn takes_long() {
    TOOK_LONG.set(true);
}

/// Polls the tasks of `executor` until `future` is ready.
pub(crate) async fn run<T>(executor: &Executor<'_>, future: impl Future<Output = T>) -> T {
    let tasks = async {
        loop {
            for _ in 0..IN_A_ROW {
                executor.tick().await;
                if TOOK_LONG.take() {
                    break;
                }
            }
            yield_now().await;
        }
    };
    future.or(tasks).await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// How many of 500 tasks are polled before the executor yields.
    fn polled_in_a_row(long: impl Fn(usize) -> bool + Copy + Send + 'static) -> usize {
        let executor = Executor::new();
        let polled = Arc::new(AtomicUsize::new(0));
        for n in 0..500 {
            let polled = Arc::clone(&polled);
            let task = async move {
                polled.fetch_add(1, Ordering::Relaxed);
                if long(n) {
                    takes_long();
                }
            };
            executor.spawn(task).detach();
        }
        let mut running = pin!(run(&executor, std::future::pending::<()>()));
        assert_eq!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        let in_a_row = polled.load(Ordering::Relaxed);
        while polled.load(Ordering::Relaxed) < 500 {
            assert_eq!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        }
        in_a_row
    }

    #[test]
    fn the_executor_yields_after_a_long_task() {
        assert_eq!(polled_in_a_row(|_| false), IN_A_ROW);
        assert_eq!(polled_in_a_row(|_| true), 1);
        assert_eq!(polled_in_a_row(|n| n == 7), 8);
    }
}

//! A connection's share of the memory of a server.
//!
//! What every connection needs is small, and bounded by the number of connections. What is taken beyond that, for a
//! long head, a listing or output ahead of the socket, is accounted here, by whoever grows and before it does. The fast path grows
//! nothing and so asks nobody.

use std::fmt::Debug;
use std::sync::Arc;

/// The bound on what all connections together may hold beyond the little that each has in any case. A driver gives
/// it to its [`Buffers`](crate::Buffers).
///
/// Whatever cannot grow is refused with 503, or goes on in smaller pieces. It is asked by whoever drives a
/// connection, so it must not wait.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use sanserve_core::{Buffers, Memory};
///
/// /// The bytes that are left.
/// #[derive(Debug)]
/// struct Bound(AtomicUsize);
///
/// impl Memory for Bound {
///     fn take(&self, bytes: usize) -> bool {
///         self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
///     }
///
///     fn give_back(&self, bytes: usize) {
///         self.0.fetch_add(bytes, Relaxed);
///     }
/// }
///
/// let memory = Arc::new(Bound(AtomicUsize::new(64 << 20)));
/// let buffers = [Buffers::within(memory.clone()), Buffers::within(memory)];
/// # drop(buffers);
/// ```
pub trait Memory: Debug + Send + Sync {
    /// Takes so many bytes. `false`: that would be too much, and nothing is taken.
    fn take(&self, bytes: usize) -> bool;

    /// Gives so many back.
    fn give_back(&self, bytes: usize);
}

/// What one connection has taken. It is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    memory: Option<Arc<dyn Memory>>,
    bytes: usize,
    /// The driver has said that there is none to be had.
    denied: bool,
    /// Something was refused.
    refused: bool,
}

impl Share {
    pub(crate) fn of(memory: Arc<dyn Memory>) -> Share {
        Share { memory: Some(memory), ..Share::default() }
    }

    /// Takes so many bytes more, if they are to be had.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        if self.denied || self.memory.as_ref().is_some_and(|memory| !memory.take(bytes)) {
            self.refused = true;
            return false;
        }
        self.bytes += bytes;
        true
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        if bytes > 0 {
            debug_assert!(bytes <= self.bytes);
            self.bytes -= bytes;
            if let Some(memory) = &self.memory {
                memory.give_back(bytes);
            }
        }
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        self.shrink(self.bytes);
        (self.denied, self.refused) = (false, false);
    }

    /// From here on, nothing can be had, or as much as before.
    pub(crate) fn deny(&mut self, denied: bool) {
        self.denied = denied;
    }

    /// Whether something was refused since this was last asked.
    pub(crate) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

/// A bound for tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Bound(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl Bound {
    pub(crate) fn of(bytes: usize) -> Bound {
        Bound(bytes.into())
    }

    pub(crate) fn left(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[cfg(test)]
impl Memory for Bound {
    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, less).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, std::sync::atomic::Ordering::SeqCst);
    }
}

//! A connection's share of the memory of a server.
//!
//! Each connection needs a small amount of memory, which the number of connections bounds. Memory beyond that, for a
//! long head, a listing or buffered output, is accounted here before it is allocated. Most requests need none.

use std::fmt::Debug;
use std::sync::Arc;

/// The limit on the memory that all connections together hold, beyond the small amount that each has in any case. A
/// driver passes it to [`Buffers::within`](crate::Buffers::within).
///
/// If there is no memory, a request is refused with 503, or its response is sent in smaller pieces. The methods are
/// called while a connection is driven, so they must not wait.
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
    /// Takes `bytes`. `false`: that would exceed the limit, and nothing is taken.
    fn take(&self, bytes: usize) -> bool;

    /// Gives `bytes` back.
    fn give_back(&self, bytes: usize);
}

/// The memory that one connection has taken. It is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    memory: Option<Arc<dyn Memory>>,
    bytes: usize,
    /// The driver has reported that there is none ([`Input::Scarce`](crate::Input::Scarce)).
    denied: bool,
    /// Something was refused.
    refused: bool,
}

impl Share {
    pub(crate) fn of(memory: Arc<dyn Memory>) -> Share {
        Share { memory: Some(memory), ..Share::default() }
    }

    /// Takes `bytes` more, if there is room.
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

//! The portable, event-driven handler: it is called, does what can be done at once, and returns.

use crate::reply::Reply;

/// Why a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A request is there. Once per exchange, first.
    Request,
    /// [`Reply::receive`] said `Pending`, and now there is more of the body, or its end.
    Body,
    /// [`Reply::offer`] took less than all, and now there is room.
    Room,
    /// The driver passed on an [`Input::Wake`](crate::Input::Wake).
    Wake,
    /// The exchange is over, in whatever way. Once per exchange, last, unless the handler has passed it
    /// on; the reply takes nothing more.
    Over,
}

/// Answers requests, on any runtime. One value serves one connection, as in Python.
///
/// It must not block: on an event loop everybody waits for it.
pub trait Handler {
    /// Goes on with the exchange as far as it can.
    fn call(&mut self, call: Call, reply: &mut Reply<'_>);
}

impl<F: FnMut(Call, &mut Reply<'_>)> Handler for F {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        self(call, reply);
    }
}

//! Calling a connection's handler, the same way on every frontend.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use sanserve_core::{Buffers, Call, Connection, Context, Fault, Handler, Input};

use crate::service::Service;
use crate::slot::Slot;

/// What calling a handler takes beside its connection.
pub struct Caller<'c> {
    /// The handler, made with the first call.
    pub handler: &'c mut Option<Box<dyn Handler + Send>>,
    /// What the connection holds of the system: files that the handler attaches go there.
    pub slot: &'c mut Slot,
    /// Makes what wakes the connection.
    pub waker: &'c dyn Fn() -> Waker,
    /// The server's service.
    pub service: &'c Service,
}

/// What went wrong in a handler, for the log: to be [attached](sanserve_core::Reply::attach) to the answer before
/// it is aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Caller<'_> {
    /// Calls the handler. If it panics, that is logged, the connection is told, and the next exchange gets
    /// a new one.
    pub fn call(self, call: Call, connection: &mut Connection, buffers: &mut Buffers, cx: &Context<'_>) {
        let Caller { handler, slot, waker, service } = self;
        if call == Call::Over && handler.is_none() {
            // One that has panicked is gone, and no other needs to hear of its end.
            return;
        }
        let called = catch_unwind(AssertUnwindSafe(|| {
            let Some(make) = &service.handler else { return false };
            handler.get_or_insert_with(make).call(call, &mut connection.reply(buffers, cx).with_waker(waker));
            true
        }));
        let failure = match called {
            Ok(true) => None,
            Ok(false) => Some("a request was routed to a handler, and there is none".to_owned()),
            Err(panic) => {
                *handler = None;
                Some(format!("the handler panicked: {}", panic_message(&*panic)))
            }
        };
        let attached = buffers.take_attached().and_then(|thing| slot.attach(thing));
        match attached.map(|thing| thing.downcast::<Failure>()) {
            Some(Ok(failure)) => {
                service.log.error(format_args!("{:?}: the handler failed: {}", connection.peer(), failure.0))
            }
            // What an upgrade takes along stays where it is.
            Some(Err(thing)) => buffers.attach(thing),
            None => {}
        }
        if let Some(failure) = failure {
            service.log.error(format_args!("{:?}: {failure}", connection.peer()));
            connection.handle(Input::Broken(Fault::Handler));
        }
    }
}

/// What a panic said.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

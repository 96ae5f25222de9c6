//! Calling a connection's handler, the same way on every frontend.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sanserve_core::{Buffers, Call, Connection, Context, Fault, Handler, Input};

use crate::service::Service;

/// Calls the handler of a connection, which is made with the first call and kept in `handler`. If it
/// panics, that is logged, the connection is told, and the next exchange gets a new one.
pub fn call_handler(
    handler: &mut Option<Box<dyn Handler + Send>>,
    call: Call,
    connection: &mut Connection,
    buffers: &mut Buffers,
    cx: &Context<'_>,
    service: &Service,
) {
    if call == Call::Over && handler.is_none() {
        // One that has panicked is gone, and no other needs to hear of its end.
        return;
    }
    let called = catch_unwind(AssertUnwindSafe(|| {
        let Some(make) = &service.handler else { return false };
        handler.get_or_insert_with(make).call(call, &mut connection.reply(buffers, cx));
        true
    }));
    match called {
        Ok(true) => {}
        Ok(false) => {
            service.log.error("a request was routed to a handler, and there is none");
            connection.handle(Input::Broken(Fault::Handler));
        }
        Err(panic) => {
            *handler = None;
            let peer = connection.peer();
            service.log.error(format_args!("{peer:?}: the handler panicked: {}", panic_message(&*panic)));
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

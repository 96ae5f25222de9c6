//! The portable, event-driven handler. It is called, does what is possible without blocking, and returns.

use crate::connection::Reply;
use crate::handler_error::HandlerError;
use crate::step::Call;

/// Responds to requests, on any runtime. One value serves one connection, as in Python.
///
/// It must not block: on an event loop, all other connections would wait for it. What is not possible yet is done in a
/// later call. This handler echoes the body of the request, at the pace of the client:
///
/// ```
/// use sanserve_core::{Call, Handler, HandlerError, Misuse, Received, Reply, StatusCode};
///
/// struct Echo;
///
/// impl Echo {
///     fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
///         loop {
///             let data = match reply.receive() {
///                 Received::Data(data) => data.to_vec(),
///                 // There will be a `Call::Body`, or the exchange is over.
///                 Received::Pending | Received::Broken => return Ok(()),
///                 Received::End => return reply.finish(),
///             };
///             let taken = reply.write(&data)?;
///             reply.consume(taken);
///             if taken < data.len() {
///                 // There will be a `Call::Room`.
///                 return Ok(());
///             }
///         }
///     }
/// }
///
/// impl Handler for Echo {
///     fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
///         match call {
///             Call::Request => {
///                 reply.respond(StatusCode::OK)?.send()?;
///                 self.go_on(reply)?;
///             }
///             Call::Body | Call::Room => self.go_on(reply)?,
///             Call::Wake | Call::Drain | Call::Over => {}
///         }
///         Ok(())
///     }
/// }
/// # fn main() {
/// # let _: &dyn Handler = &Echo;
/// # }
/// ```
pub trait Handler {
    /// Advances the exchange as far as possible.
    ///
    /// # Errors
    /// Anything that prevents the handler from responding. The client gets the status of the error, or the connection
    /// is cut if the response has begun: see [`Reply::fail`].
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError>;

    /// Calls the handler, and [fails](Reply::fail) the exchange if it returns an error. For drivers.
    fn drive(&mut self, call: Call, reply: &mut Reply<'_>) {
        if let Err(error) = self.call(call, reply) {
            reply.fail(error);
        }
    }
}

impl<F: FnMut(Call, &mut Reply<'_>) -> Result<(), HandlerError>> Handler for F {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        self(call, reply)
    }
}

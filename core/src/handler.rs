//! The portable, event-driven handler. It is called, does what is possible without blocking, and returns.

use crate::connection::Reply;
use crate::step::Call;

/// Responds to requests, on any runtime. One value serves one connection, as in Python.
///
/// It must not block: on an event loop, all other connections would wait for it. What is not possible yet is done in a
/// later call. This handler echoes the body of the request, at the pace of the client:
///
/// ```
/// use sanserve_core::{Call, Handler, Misuse, Received, Reply, StatusCode};
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
///     fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
///         let outcome = match call {
///             Call::Request => reply.respond(StatusCode::OK).and_then(|head| head.send()).and_then(|()| self.go_on(reply)),
///             Call::Body | Call::Room => self.go_on(reply),
///             Call::Wake | Call::Drain | Call::Over => Ok(()),
///         };
///         if outcome.is_err() {
///             reply.abort();
///         }
///     }
/// }
/// # fn main() {
/// # let _: &dyn Handler = &Echo;
/// # }
/// ```
pub trait Handler {
    /// Advances the exchange as far as possible.
    fn call(&mut self, call: Call, reply: &mut Reply<'_>);
}

impl<F: FnMut(Call, &mut Reply<'_>)> Handler for F {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        self(call, reply);
    }
}

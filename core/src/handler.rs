//! The portable, event-driven handler: it is called, does what can be done at once, and returns.

use crate::connection::Reply;
use crate::step::Call;

/// Answers requests, on any runtime. One value serves one connection, as in Python.
///
/// It must not block: on an event loop everybody waits for it. What cannot be done at once is done in a later
/// call. This one sends back what it is sent, at the pace of both sides:
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
    /// Goes on with the exchange as far as it can.
    fn call(&mut self, call: Call, reply: &mut Reply<'_>);
}

impl<F: FnMut(Call, &mut Reply<'_>)> Handler for F {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        self(call, reply);
    }
}

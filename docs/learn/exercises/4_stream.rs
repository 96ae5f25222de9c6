//! Exercise 4. A long response for a slow reader.
//!
//! This handler makes all rows first, and then keeps them in memory for as long as the client takes to read them. Make
//! each row only when there is room for it.
//!
//! `LEARN=mine cargo test -q --test learn exercise_4`

use sanserve_core::{Call, Handler, HandlerError, Misuse, Reply, StatusCode};

/// Makes rows.
pub type Rows = Box<dyn Iterator<Item = String>>;

/// Responds with all rows.
pub struct Table {
    rows: Rows,
    /// Rows that were made and not accepted yet.
    made: Vec<u8>,
}

impl Table {
    /// A handler for one request.
    pub fn new(rows: Rows) -> Table {
        Table { rows, made: Vec::new() }
    }

    fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        self.made.extend(self.rows.by_ref().flat_map(String::into_bytes));
        let taken = reply.write(&self.made)?;
        self.made.drain(..taken);
        if self.made.is_empty() { reply.finish() } else { Ok(()) }
    }
}

impl Handler for Table {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        let outcome = match call {
            Call::Request => {
                reply.respond(StatusCode::OK).and_then(|head| head.send()).and_then(|()| self.go_on(reply))
            }
            Call::Room => self.go_on(reply),
            Call::Body | Call::Wake | Call::Drain | Call::Over => Ok(()),
        };
        Ok(outcome?)
    }
}

//! Exercise 4, solved: `Reply::write` returns how much it accepted, and `Call::Room` says when it accepts more.

use sanserve_core::{Call, Handler, HandlerError, Misuse, Reply, StatusCode};

/// Makes rows.
pub type Rows = Box<dyn Iterator<Item = String>>;

/// Responds with all rows.
pub struct Table {
    rows: Rows,
    /// The rest of a row that was not accepted yet.
    made: Vec<u8>,
}

impl Table {
    /// A handler for one request.
    pub fn new(rows: Rows) -> Table {
        Table { rows, made: Vec::new() }
    }

    fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        loop {
            if self.made.is_empty() {
                match self.rows.next() {
                    Some(row) => self.made = row.into_bytes(),
                    None => return reply.finish(),
                }
            }
            let taken = reply.write(&self.made)?;
            self.made.drain(..taken);
            if !self.made.is_empty() {
                // `Call::Room` will follow.
                return Ok(());
            }
        }
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

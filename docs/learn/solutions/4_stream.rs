//! Exercise 4, solved: `Reply::offer` says how much it took, and `Call::Room` when it takes more.

use sanserve::core::{Call, Handler, Misuse, Reply, Status};

/// Makes rows.
pub type Rows = Box<dyn Iterator<Item = String>>;

/// Answers with all rows.
pub struct Table {
    rows: Rows,
    /// What has been made and not yet been taken.
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
            let taken = reply.offer(&self.made)?;
            self.made.drain(..taken);
            if !self.made.is_empty() {
                // There will be a `Call::Room`.
                return Ok(());
            }
        }
    }
}

impl Handler for Table {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) {
        let outcome = match call {
            Call::Request => reply.respond(Status::OK).and_then(|head| head.send()).and_then(|()| self.go_on(reply)),
            Call::Room => self.go_on(reply),
            Call::Body | Call::Wake | Call::Drain | Call::Over => Ok(()),
        };
        if outcome.is_err() {
            reply.abort();
        }
    }
}

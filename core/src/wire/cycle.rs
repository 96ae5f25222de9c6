//! The two halves of an exchange as state machines, and the tables that say how they may move.
//!
//! The tables are data: every move is checked against them in debug builds and tests, and the
//! diagram in `docs/architecture.md` is printed from them.

use super::decode::Decoder;
use super::encode::Encoder;
use super::head::Scan;

/// What comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A head is awaited or arriving.
    Head(Scan),
    /// A body is arriving.
    Body(Decoder),
    /// The request has been read to its end.
    Done,
    /// Nothing more is taken as a request.
    Closed,
}

/// What goes to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outbound {
    /// No answer is owed.
    Idle,
    /// An answer is owed and not begun.
    Owed,
    /// An answer is being produced.
    Body(Encoder),
    /// The answer is complete, and the connection may go on.
    Done,
    /// The answer is complete or given up, and the connection may not go on.
    MustClose,
    /// Nothing more will be sent.
    Closed,
}

/// One permitted move: from a state, by an event, to a state.
pub type Transition = (&'static str, &'static str, &'static str);

/// How the half that comes from the peer moves.
pub const INBOUND: &[Transition] = &[
    ("Head", "head complete, a body follows", "Body"),
    ("Head", "head complete, no body", "Done"),
    ("Head", "violation, end of input, shutdown", "Closed"),
    ("Body", "last byte of the body", "Done"),
    ("Body", "violation, end of input, too much to drain", "Closed"),
    ("Done", "next exchange", "Head"),
    ("Done", "connection ends", "Closed"),
];

/// How the half that goes to the peer moves.
pub const OUTBOUND: &[Transition] = &[
    ("Idle", "head complete, or refused", "Owed"),
    ("Idle", "connection ends", "Closed"),
    ("Owed", "head of the answer", "Body"),
    ("Owed", "broken, or no answer", "MustClose"),
    ("Body", "given up before a byte of it went out", "Owed"),
    ("Body", "last byte, keep-alive", "Done"),
    ("Body", "last byte and close, or broken", "MustClose"),
    ("Done", "next exchange", "Idle"),
    ("Done", "connection ends", "Closed"),
    ("MustClose", "finished", "Closed"),
];

/// The states of both halves in which an exchange ends, and what follows.
pub const COUPLING: &[(&str, &str, &str)] = &[
    ("Done", "Done", "next exchange"),
    ("Closed", "Done", "connection ends"),
    ("any", "MustClose", "connection ends"),
];

/// Both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

impl Cycle {
    pub(crate) fn new() -> Cycle {
        Cycle { inbound: Inbound::Head(Scan::default()), outbound: Outbound::Idle }
    }

    /// Moves the inbound half.
    ///
    /// Invariant: the move stands in [`INBOUND`].
    pub(crate) fn inbound_to(&mut self, next: Inbound) {
        debug_assert!(permitted(INBOUND, self.inbound.name(), next.name()), "{self:?} to {next:?}");
        self.inbound = next;
    }

    /// Moves the outbound half.
    ///
    /// Invariant: the move stands in [`OUTBOUND`].
    pub(crate) fn outbound_to(&mut self, next: Outbound) {
        debug_assert!(permitted(OUTBOUND, self.outbound.name(), next.name()), "{self:?} to {next:?}");
        self.outbound = next;
    }

    /// Whether an answer is owed or under way.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.outbound, Outbound::Owed | Outbound::Body(_))
    }

    /// Takes no more requests.
    pub(crate) fn close_inbound(&mut self) {
        if self.inbound != Inbound::Closed {
            self.inbound_to(Inbound::Closed);
        }
    }
}

fn permitted(table: &[Transition], from: &str, to: &str) -> bool {
    table.iter().any(|row| row.0 == from && row.2 == to)
}

impl Inbound {
    fn name(&self) -> &'static str {
        match self {
            Inbound::Head(_) => "Head",
            Inbound::Body(_) => "Body",
            Inbound::Done => "Done",
            Inbound::Closed => "Closed",
        }
    }
}

impl Outbound {
    fn name(&self) -> &'static str {
        match self {
            Outbound::Idle => "Idle",
            Outbound::Owed => "Owed",
            Outbound::Body(_) => "Body",
            Outbound::Done => "Done",
            Outbound::MustClose => "MustClose",
            Outbound::Closed => "Closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_and_every_end_is_an_end() {
        for (table, start, end) in [(INBOUND, "Head", "Closed"), (OUTBOUND, "Idle", "Closed")] {
            for (from, _, to) in table {
                assert!(*to == start || table.iter().any(|row| row.2 == *to), "{to}");
                assert!(*from == start || table.iter().any(|row| row.2 == *from), "{from} is never reached");
                assert_ne!(*from, end);
            }
        }
    }
}

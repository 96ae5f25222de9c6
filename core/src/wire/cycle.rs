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
    ("Owed", "head of the answer", "Body"),
    ("Body", "given up before a byte of it went out", "Owed"),
    ("Body", "last byte, keep-alive", "Done"),
    ("Body", "last byte and close, or broken", "MustClose"),
    ("Done", "rest of the request is wrong, or the handler failed", "MustClose"),
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cycle {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    trail: Trail,
}

/// The last moves of both halves, for those who show them: a state moved to in four bits, the latest in the
/// lowest. Between two steps there are fewer than fit; older ones fall out.
#[derive(Clone, Copy, Debug, Default)]
struct Trail(u32);

/// A move that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Which half it was: that of [`INBOUND`], or else that of [`OUTBOUND`].
    pub(crate) inbound: bool,
    /// The state that it led to.
    pub(crate) to: &'static str,
}

impl Cycle {
    pub(crate) fn new() -> Cycle {
        Cycle { inbound: Inbound::Head(Scan::default()), outbound: Outbound::Idle, trail: Trail::default() }
    }

    /// Whether nothing has come of a request, and nothing is owed.
    pub(crate) fn is_new(&self) -> bool {
        (self.inbound, self.outbound) == (Inbound::Head(Scan::default()), Outbound::Idle)
    }

    /// The moves since this was last asked, in order.
    pub(crate) fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.trail).moves()
    }

    /// Moves the inbound half.
    ///
    /// Invariant: the move stands in [`INBOUND`].
    pub(crate) fn inbound_to(&mut self, next: Inbound) {
        debug_assert!(permitted(INBOUND, self.inbound.name(), next.name()), "{self:?} to {next:?}");
        self.trail.note(next.number());
        self.inbound = next;
    }

    /// Moves the outbound half.
    ///
    /// Invariant: the move stands in [`OUTBOUND`].
    pub(crate) fn outbound_to(&mut self, next: Outbound) {
        debug_assert!(permitted(OUTBOUND, self.outbound.name(), next.name()), "{self:?} to {next:?}");
        self.trail.note(next.number());
        self.outbound = next;
    }

    /// Whether an answer is owed or under way.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.outbound, Outbound::Owed | Outbound::Body(_))
    }

    /// The answer that is complete is the last one.
    pub(crate) fn close_outbound(&mut self) {
        if self.outbound == Outbound::Done {
            self.outbound_to(Outbound::MustClose);
        }
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

/// The states by number, those of the inbound half first.
const STATES: [&str; 10] = ["Head", "Body", "Done", "Closed", "Idle", "Owed", "Body", "Done", "MustClose", "Closed"];
/// How many of them are of the inbound half.
const OF_INBOUND: u32 = 4;

impl Trail {
    const BITS: u32 = 4;

    /// A state is noted as one more than its number, so that 0 is none.
    fn note(&mut self, number: u32) {
        self.0 = self.0 << Trail::BITS | (number + 1);
    }

    fn moves(self) -> Vec<Move> {
        let noted = (0..u32::BITS / Trail::BITS).rev().map(|at| self.0 >> (at * Trail::BITS) & 0xf);
        noted
            .filter_map(|noted| noted.checked_sub(1))
            .map(|number| Move { inbound: number < OF_INBOUND, to: STATES[number as usize] })
            .collect()
    }
}

impl Inbound {
    fn number(&self) -> u32 {
        match self {
            Inbound::Head(_) => 0,
            Inbound::Body(_) => 1,
            Inbound::Done => 2,
            Inbound::Closed => 3,
        }
    }

    /// The state's name in [`INBOUND`].
    pub(crate) fn name(&self) -> &'static str {
        STATES[self.number() as usize]
    }
}

impl Outbound {
    fn number(&self) -> u32 {
        OF_INBOUND
            + match self {
                Outbound::Idle => 0,
                Outbound::Owed => 1,
                Outbound::Body(_) => 2,
                Outbound::Done => 3,
                Outbound::MustClose => 4,
                Outbound::Closed => 5,
            }
    }

    /// The state's name in [`OUTBOUND`].
    pub(crate) fn name(&self) -> &'static str {
        STATES[self.number() as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_told_once_and_in_order() {
        let mut cycle = Cycle::new();
        cycle.outbound_to(Outbound::Owed);
        cycle.inbound_to(Inbound::Done);
        cycle.outbound_to(Outbound::Body(Encoder::Chunked));
        let told: Vec<_> = cycle.take_moves().iter().map(|made| (made.inbound, made.to)).collect();
        assert_eq!(told, [(false, "Owed"), (true, "Done"), (false, "Body")]);
        assert_eq!(cycle.take_moves(), []);
    }

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

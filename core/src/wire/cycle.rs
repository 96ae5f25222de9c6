//! The two halves of an exchange as state machines, and their transition tables.
//!
//! The tables are executed: [`Cycle::receive`] and [`Cycle::answer`] determine the next state with them, and an event
//! that no row permits is a bug in this crate. The diagram in `docs/architecture.md` is generated from them. What causes an event
//! is not decided here.

use super::decode::Decoder;
use super::encode::Encoder;
use super::head::Scan;

/// A permitted transition: from a state, by an event, to a state.
pub type Transition = (&'static str, &'static str, &'static str);

/// A state machine: its states, its events, and one row for each permitted transition.
macro_rules! machine {
    (
        $(#[$of_state:meta])* $state:ident / $state_kind:ident
        { $($(#[$of_name:meta])* $name:ident $(($held:ty))?,)+ }
        $(#[$of_event:meta])* $event:ident
        { $($(#[$of_happens:meta])* $happens:ident $(($brought:ty))?,)+ }
        $(#[$of_table:meta])* $table:ident
        { $($from:ident, $on:ident $(($data:ident))? => $to:ident $(($with:expr))?, $text:literal;)+ }
    ) => {
        $(#[$of_state])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $state { $($(#[$of_name])* $name $(($held))?,)+ }

        /// A state without its data.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $state_kind { $($name,)+ }

        impl $state {
            const NAMES: &[&str] = &[$(stringify!($name)),+];

            fn kind(&self) -> $state_kind {
                match self { $($state::$name { .. } => $state_kind::$name,)+ }
            }

            /// The name of the state in the table.
            pub(crate) fn name(&self) -> &'static str {
                Self::NAMES[self.kind() as usize]
            }

            /// The state after an event. `None`: no row permits it.
            #[inline]
            fn after(&self, event: $event) -> Option<$state> {
                match (self, event) {
                    $(($state::$from { .. }, $event::$on $(($data))?) => Some($state::$to $(($with))?),)+
                    _ => None,
                }
            }
        }

        $(#[$of_event])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $event { $($(#[$of_happens])* $happens $(($brought))?,)+ }

        $(#[$of_table])*
        pub const $table: &[Transition] = &[$((stringify!($from), $text, stringify!($to)),)+];
    };
}

machine! {
    /// What comes from the peer.
    Inbound / InboundKind {
        /// A head is expected or arriving.
        Head(Scan),
        /// A body is arriving.
        Body(Decoder),
        /// The request has been read completely.
        Done,
        /// No further request is read.
        Closed,
    }
    /// Events of the inbound half.
    InboundEvent {
        /// A head is complete, and this body follows.
        HeadAndBody(Decoder),
        /// A head is complete, and no body follows.
        HeadAlone,
        /// The body has been read completely.
        BodyEnd,
        /// The next exchange begins.
        Next,
        /// No further request is read.
        Stop,
    }
    /// The transitions of the inbound half.
    INBOUND {
        Head, HeadAndBody(decoder) => Body(decoder), "head complete, a body follows";
        Head, HeadAlone => Done, "head complete, no body";
        Head, Stop => Closed, "violation, end of input, shutdown";
        Body, BodyEnd => Done, "last byte of the body";
        Body, Stop => Closed, "violation, end of input, too much to drain";
        Done, Next => Head(Scan::default()), "next exchange";
        Done, Stop => Closed, "connection ends";
    }
}

machine! {
    /// What goes to the peer.
    Outbound / OutboundKind {
        /// No response is due.
        Idle,
        /// A response is due and has not begun.
        Owed,
        /// A response is being produced.
        Body(Encoder),
        /// The response is complete, and the connection may continue.
        Done,
        /// The response is complete or was abandoned, and the connection must close.
        MustClose,
        /// Nothing more is sent.
        Closed,
    }
    /// Events of the outbound half.
    OutboundEvent {
        /// A request, or something that is refused as one, has arrived.
        Asked,
        /// The head of the response is written; this body follows.
        Head(Encoder),
        /// The response is replaced by another one, before any of it was sent.
        TakenBack,
        /// The response is written completely.
        End,
        /// The response is written completely, and is the last one.
        LastEnd,
        /// The complete response is the last one after all.
        Spoiled,
        /// The next exchange begins.
        Next,
        /// The connection ends.
        Stop,
    }
    /// The transitions of the outbound half.
    OUTBOUND {
        Idle, Asked => Owed, "head complete, or refused";
        Owed, Head(encoder) => Body(encoder), "head of the response";
        Body, TakenBack => Owed, "abandoned before a byte of it was sent";
        Body, End => Done, "last byte, keep-alive";
        Body, LastEnd => MustClose, "last byte and close, or broken";
        Done, Spoiled => MustClose, "rest of the request is wrong, or the handler failed";
        Done, Next => Idle, "next exchange";
        Done, Stop => Closed, "connection ends";
        MustClose, Stop => Closed, "finished";
    }
}

/// What follows a finished exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The next one.
    Next,
    /// The end of the connection.
    Stop,
}

/// The states of both halves in which an exchange ends, and what follows; `None` stands for any state.
const ENDS: [(Option<InboundKind>, OutboundKind, Ended); 3] = [
    (Some(InboundKind::Done), OutboundKind::Done, Ended::Next),
    (Some(InboundKind::Closed), OutboundKind::Done, Ended::Stop),
    (None, OutboundKind::MustClose, Ended::Stop),
];

/// The states of both halves in which an exchange ends, and what follows.
pub const COUPLING: &[(&str, &str, &str)] = &{
    let mut rows = [("any", "", ""); ENDS.len()];
    let mut at = 0;
    while at < ENDS.len() {
        let (inbound, outbound, ended) = ENDS[at];
        if let Some(inbound) = inbound {
            rows[at].0 = Inbound::NAMES[inbound as usize];
        }
        rows[at].1 = Outbound::NAMES[outbound as usize];
        rows[at].2 = match ended {
            Ended::Next => "next exchange",
            Ended::Stop => "connection ends",
        };
        at += 1;
    }
    rows
};

/// The same table, indexed by both states.
static ENDED: [[Option<Ended>; Inbound::NAMES.len()]; Outbound::NAMES.len()] = {
    let mut table = [[None; Inbound::NAMES.len()]; Outbound::NAMES.len()];
    let mut at = 0;
    while at < ENDS.len() {
        let (inbound, outbound, ended) = ENDS[at];
        match inbound {
            Some(inbound) => table[outbound as usize][inbound as usize] = Some(ended),
            None => table[outbound as usize] = [Some(ended); Inbound::NAMES.len()],
        }
        at += 1;
    }
    table
};

/// Both halves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cycle {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    trail: Trail,
}

/// The last transitions of both halves, for display: the states, in four bits each, the latest in the lowest bits.
/// There are fewer transitions between two steps than fit; older ones are dropped.
#[derive(Clone, Copy, Debug, Default)]
struct Trail(u32);

/// A transition of one half of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Move {
    /// Whether it is the half of [`INBOUND`]; otherwise, that of [`OUTBOUND`].
    pub inbound: bool,
    /// The new state.
    pub to: &'static str,
}

impl Cycle {
    pub(crate) fn new() -> Cycle {
        Cycle { inbound: Inbound::Head(Scan::default()), outbound: Outbound::Idle, trail: Trail::default() }
    }

    /// Whether nothing of a request has arrived, and no response is due.
    pub(crate) fn is_new(&self) -> bool {
        (self.inbound, self.outbound) == (Inbound::Head(Scan::default()), Outbound::Idle)
    }

    /// The transitions since the last call, in order.
    pub(crate) fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.trail).moves()
    }

    /// Moves the inbound half according to [`INBOUND`].
    ///
    /// # Panics
    /// If no row permits the event.
    #[inline]
    pub(crate) fn receive(&mut self, event: InboundEvent) {
        let Some(next) = self.inbound.after(event) else { forbidden(self, &event) };
        self.trail.note(next.kind() as u32);
        self.inbound = next;
    }

    /// Moves the outbound half according to [`OUTBOUND`].
    ///
    /// # Panics
    /// If no row permits the event.
    #[inline]
    pub(crate) fn answer(&mut self, event: OutboundEvent) {
        let Some(next) = self.outbound.after(event) else { forbidden(self, &event) };
        self.trail.note(OF_INBOUND + next.kind() as u32);
        self.outbound = next;
    }

    /// What follows the exchange, if it has ended ([`COUPLING`]).
    pub(crate) fn ended(&self) -> Option<Ended> {
        ENDED[self.outbound.kind() as usize][self.inbound.kind() as usize]
    }

    /// Whether a response is due or in progress.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.outbound, Outbound::Owed | Outbound::Body(_))
    }

    /// Makes a complete response the last one.
    pub(crate) fn spoil(&mut self) {
        if self.outbound == Outbound::Done {
            self.answer(OutboundEvent::Spoiled);
        }
    }

    /// Reads no further requests.
    pub(crate) fn stop_receiving(&mut self) {
        if self.inbound != Inbound::Closed {
            self.receive(InboundEvent::Stop);
        }
    }
}

#[cold]
fn forbidden(cycle: &Cycle, event: &dyn std::fmt::Debug) -> ! {
    panic!("no row of the table permits {event:?}: {cycle:?}")
}

/// The number of inbound states. The outbound states are numbered after them.
const OF_INBOUND: u32 = Inbound::NAMES.len() as u32;

impl Trail {
    const BITS: u32 = 4;

    /// A state is stored as its number plus one, so that 0 means none.
    fn note(&mut self, number: u32) {
        self.0 = self.0 << Trail::BITS | (number + 1);
    }

    fn moves(self) -> Vec<Move> {
        let states = (0..u32::BITS / Trail::BITS).rev().map(|at| self.0 >> (at * Trail::BITS) & 0xf);
        states
            .filter_map(|states| states.checked_sub(1))
            .map(|number| match number.checked_sub(OF_INBOUND) {
                None => Move { inbound: true, to: Inbound::NAMES[number as usize] },
                Some(number) => Move { inbound: false, to: Outbound::NAMES[number as usize] },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_returned_once_and_in_order() {
        let mut cycle = Cycle::new();
        cycle.answer(OutboundEvent::Asked);
        cycle.receive(InboundEvent::HeadAlone);
        cycle.answer(OutboundEvent::Head(Encoder::Chunked));
        let moves: Vec<_> = cycle.take_moves().iter().map(|made| (made.inbound, made.to)).collect();
        assert_eq!(moves, [(false, "Owed"), (true, "Done"), (false, "Body")]);
        assert_eq!(cycle.take_moves(), []);
    }

    #[test]
    fn every_state_is_reachable_and_every_end_is_final() {
        for (table, start, end) in [(INBOUND, "Head", "Closed"), (OUTBOUND, "Idle", "Closed")] {
            for (from, _, to) in table {
                assert!(*to == start || table.iter().any(|row| row.2 == *to), "{to}");
                assert!(*from == start || table.iter().any(|row| row.2 == *from), "{from} is never reached");
                assert_ne!(*from, end);
            }
        }
    }

    #[test]
    #[should_panic(expected = "no row of the table permits Next")]
    fn an_event_without_a_row_panics() {
        Cycle::new().receive(InboundEvent::Next);
    }

    /// Each row of the tables is a permitted transition, and there are no others.
    #[test]
    fn the_tables_are_executed() {
        let rows = |table: &[Transition]| {
            let mut rows: Vec<_> = table.iter().map(|&(from, _, to)| (from, to)).collect();
            rows.sort_unstable();
            rows
        };
        let body = Decoder::Length(1);
        let mut moves = Vec::new();
        for from in [Inbound::Head(Scan::default()), Inbound::Body(body), Inbound::Done, Inbound::Closed] {
            use InboundEvent::{BodyEnd, HeadAlone, HeadAndBody, Next, Stop};
            let events = [HeadAndBody(body), HeadAlone, BodyEnd, Next, Stop];
            moves.extend(events.iter().filter_map(|&event| Some((from.name(), from.after(event)?.name()))));
        }
        moves.sort_unstable();
        assert_eq!(moves, rows(INBOUND));
        moves.clear();
        let encoder = Encoder::Chunked;
        for from in [
            Outbound::Idle,
            Outbound::Owed,
            Outbound::Body(encoder),
            Outbound::Done,
            Outbound::MustClose,
            Outbound::Closed,
        ] {
            use OutboundEvent::{Asked, End, Head, LastEnd, Next, Spoiled, Stop, TakenBack};
            let events = [Asked, Head(encoder), TakenBack, End, LastEnd, Spoiled, Next, Stop];
            moves.extend(events.iter().filter_map(|&event| Some((from.name(), from.after(event)?.name()))));
        }
        moves.sort_unstable();
        assert_eq!(moves, rows(OUTBOUND));
        let mut cycle = Cycle::new();
        cycle.answer(OutboundEvent::Asked);
        cycle.receive(InboundEvent::HeadAlone);
        assert_eq!(cycle.ended(), None);
        cycle.answer(OutboundEvent::Head(Encoder::None));
        cycle.answer(OutboundEvent::End);
        assert_eq!(cycle.ended(), Some(Ended::Next));
        cycle.stop_receiving();
        assert_eq!(cycle.ended(), Some(Ended::Stop));
        cycle.spoil();
        assert_eq!((cycle.ended(), cycle.outbound), (Some(Ended::Stop), Outbound::MustClose));
    }
}

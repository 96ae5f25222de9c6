//! The two halves of an exchange as state machines, and the tables by which they move.
//!
//! The tables are what runs: [`Cycle::receive`] and [`Cycle::answer`] look up where an event leads, and what no row
//! permits is a fault of this crate. The diagram in `docs/architecture.md` is printed from them.

use super::decode::Decoder;
use super::encode::Encoder;
use super::head::Scan;

/// One permitted move: from a state, by an event, to a state.
pub type Transition = (&'static str, &'static str, &'static str);

/// A machine: its states, its events, and one row for each permitted move.
macro_rules! machine {
    (
        $(#[$of_state:meta])* $state:ident / $state_kind:ident
        { $($(#[$of_name:meta])* $name:ident $(($held:ty))?,)+ }
        $(#[$of_event:meta])* $event:ident / $event_kind:ident
        { $($(#[$of_happens:meta])* $happens:ident $(($brought:ty))?,)+ }
        $(#[$of_table:meta])* $table:ident / $next:ident
        { $($from:ident, $on:ident => $to:ident, $text:literal;)+ }
    ) => {
        $(#[$of_state])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $state { $($(#[$of_name])* $name $(($held))?,)+ }

        /// A state without what it holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $state_kind { $($name,)+ }

        impl $state {
            const NAMES: &[&str] = &[$(stringify!($name)),+];

            fn kind(&self) -> $state_kind {
                match self { $($state::$name { .. } => $state_kind::$name,)+ }
            }

            /// The state's name in the table.
            pub(crate) fn name(&self) -> &'static str {
                Self::NAMES[self.kind() as usize]
            }
        }

        $(#[$of_event])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $event { $($(#[$of_happens])* $happens $(($brought))?,)+ }

        /// An event without what it brings.
        #[derive(Clone, Copy)]
        enum $event_kind { $($happens,)+ }

        impl $event {
            fn kind(&self) -> $event_kind {
                match self { $($event::$happens { .. } => $event_kind::$happens,)+ }
            }
        }

        $(#[$of_table])*
        pub const $table: &[Transition] = &[$((stringify!($from), $text, stringify!($to)),)+];

        /// The same table by state and event.
        static $next: [[Option<$state_kind>; [$(stringify!($happens)),+].len()]; $state::NAMES.len()] = {
            let mut next = [[None; [$(stringify!($happens)),+].len()]; $state::NAMES.len()];
            $(
                let at = ($state_kind::$from as usize, $event_kind::$on as usize);
                assert!(next[at.0][at.1].is_none(), "one event leads to one state");
                next[at.0][at.1] = Some($state_kind::$to);
            )+
            next
        };
    };
}

machine! {
    /// What comes from the peer.
    Inbound / InboundKind {
        /// A head is awaited or arriving.
        Head(Scan),
        /// A body is arriving.
        Body(Decoder),
        /// The request has been read to its end.
        Done,
        /// Nothing more is taken as a request.
        Closed,
    }
    /// What happens to what comes from the peer.
    InboundEvent / InboundEventKind {
        /// A head is complete, and this body follows.
        HeadAndBody(Decoder),
        /// A head is complete, and nothing follows.
        HeadAlone,
        /// The body has been read to its end.
        BodyEnd,
        /// The next exchange begins.
        Next,
        /// Nothing that still comes is taken as a request.
        Stop,
    }
    /// How the half that comes from the peer moves.
    INBOUND / INBOUND_NEXT {
        Head, HeadAndBody => Body, "head complete, a body follows";
        Head, HeadAlone => Done, "head complete, no body";
        Head, Stop => Closed, "violation, end of input, shutdown";
        Body, BodyEnd => Done, "last byte of the body";
        Body, Stop => Closed, "violation, end of input, too much to drain";
        Done, Next => Head, "next exchange";
        Done, Stop => Closed, "connection ends";
    }
}

machine! {
    /// What goes to the peer.
    Outbound / OutboundKind {
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
    /// What happens to what goes to the peer.
    OutboundEvent / OutboundEventKind {
        /// A request has come, or what is refused as one.
        Asked,
        /// The head of the answer is written; this body follows.
        Head(Encoder),
        /// None of it has gone out, and another answer takes its place.
        TakenBack,
        /// All of it is written.
        End,
        /// All of it is written, and it is the last one.
        LastEnd,
        /// The answer that is complete is the last one after all.
        Spoiled,
        /// The next exchange begins.
        Next,
        /// The connection ends.
        Stop,
    }
    /// How the half that goes to the peer moves.
    OUTBOUND / OUTBOUND_NEXT {
        Idle, Asked => Owed, "head complete, or refused";
        Owed, Head => Body, "head of the answer";
        Body, TakenBack => Owed, "given up before a byte of it went out";
        Body, End => Done, "last byte, keep-alive";
        Body, LastEnd => MustClose, "last byte and close, or broken";
        Done, Spoiled => MustClose, "rest of the request is wrong, or the handler failed";
        Done, Next => Idle, "next exchange";
        Done, Stop => Closed, "connection ends";
        MustClose, Stop => Closed, "finished";
    }
}

/// What follows an exchange that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The next one.
    Next,
    /// The end of the connection.
    Stop,
}

/// The states of both halves in which an exchange ends, and what follows; `None`: any.
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

/// The same table by both states.
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

/// The last moves of both halves, for those who show them: a state moved to in four bits, the latest in the
/// lowest. Between two steps there are fewer than fit; older ones fall out.
#[derive(Clone, Copy, Debug, Default)]
struct Trail(u32);

/// A move that one half of an exchange has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Move {
    /// Which half it was: that of [`INBOUND`], or else that of [`OUTBOUND`].
    pub inbound: bool,
    /// The state that it led to.
    pub to: &'static str,
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

    /// Moves the inbound half as [`INBOUND`] says.
    ///
    /// # Panics
    /// If it has no such row.
    #[inline]
    pub(crate) fn receive(&mut self, event: InboundEvent) {
        let Some(to) = INBOUND_NEXT[self.inbound.kind() as usize][event.kind() as usize] else {
            forbidden(self, &event)
        };
        self.trail.note(to as u32);
        self.inbound = match (to, event) {
            (InboundKind::Head, _) => Inbound::Head(Scan::default()),
            (InboundKind::Body, InboundEvent::HeadAndBody(decoder)) => Inbound::Body(decoder),
            (InboundKind::Body, _) => unreachable!("only a head brings a body"),
            (InboundKind::Done, _) => Inbound::Done,
            (InboundKind::Closed, _) => Inbound::Closed,
        };
    }

    /// Moves the outbound half as [`OUTBOUND`] says.
    ///
    /// # Panics
    /// If it has no such row.
    #[inline]
    pub(crate) fn answer(&mut self, event: OutboundEvent) {
        let Some(to) = OUTBOUND_NEXT[self.outbound.kind() as usize][event.kind() as usize] else {
            forbidden(self, &event)
        };
        self.trail.note(OF_INBOUND + to as u32);
        self.outbound = match (to, event) {
            (OutboundKind::Idle, _) => Outbound::Idle,
            (OutboundKind::Owed, _) => Outbound::Owed,
            (OutboundKind::Body, OutboundEvent::Head(encoder)) => Outbound::Body(encoder),
            (OutboundKind::Body, _) => unreachable!("only a head begins a body"),
            (OutboundKind::Done, _) => Outbound::Done,
            (OutboundKind::MustClose, _) => Outbound::MustClose,
            (OutboundKind::Closed, _) => Outbound::Closed,
        };
    }

    /// What follows the exchange, if both halves are at their end ([`COUPLING`]).
    pub(crate) fn ended(&self) -> Option<Ended> {
        ENDED[self.outbound.kind() as usize][self.inbound.kind() as usize]
    }

    /// Whether an answer is owed or under way.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.outbound, Outbound::Owed | Outbound::Body(_))
    }

    /// The answer that is complete, if there is one, is the last one.
    pub(crate) fn spoil(&mut self) {
        if self.outbound == Outbound::Done {
            self.answer(OutboundEvent::Spoiled);
        }
    }

    /// Takes no more requests.
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

/// How many states the inbound half has; those of the outbound half are numbered after them.
const OF_INBOUND: u32 = Inbound::NAMES.len() as u32;

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
    fn moves_are_told_once_and_in_order() {
        let mut cycle = Cycle::new();
        cycle.answer(OutboundEvent::Asked);
        cycle.receive(InboundEvent::HeadAlone);
        cycle.answer(OutboundEvent::Head(Encoder::Chunked));
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

    #[test]
    #[should_panic(expected = "no row of the table permits Next")]
    fn what_no_row_permits_is_not_done() {
        Cycle::new().receive(InboundEvent::Next);
    }

    /// Each row of the tables is a move that is made, and no other pair of state and event is one.
    #[test]
    fn the_tables_are_what_runs() {
        let rows = |next: &[Option<InboundKind>]| next.iter().flatten().count();
        assert_eq!(INBOUND_NEXT.iter().map(|next| rows(next)).sum::<usize>(), INBOUND.len());
        let rows = |next: &[Option<OutboundKind>]| next.iter().flatten().count();
        assert_eq!(OUTBOUND_NEXT.iter().map(|next| rows(next)).sum::<usize>(), OUTBOUND.len());
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

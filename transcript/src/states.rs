//! What a transcript does to the machine: its events, each with the state of the connection after it.
//!
//! The states are those of a real [`Connection`](crate::Connection) that plays the transcript. Leaves out how
//! they are shown.

use sanserve_core::{Handler, INBOUND, Move, OUTBOUND, Policy, State, Transition};

use super::{Difference, Event, Transcript, What, play};

/// An event that happened, and what it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What happened.
    pub event: Event,
    /// How the connection stands after it. An input is only noted there; the step that follows shows what it did.
    pub state: State,
    /// The moves that it made of what comes from the peer, in order: rows of [`INBOUND`].
    pub inbound: Vec<Transition>,
    /// The moves that it made of what goes to the peer, in order: rows of [`OUTBOUND`].
    pub outbound: Vec<Transition>,
}

impl Seen {
    fn is_end(&self) -> bool {
        matches!(self.event.what, What::Close { blocked: false, .. })
    }
}

/// What came of playing a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What is as the transcript says: all of it, or what comes before the first event that differs.
    pub seen: Vec<Seen>,
    /// What happens instead of the event after those, if something does.
    pub instead: Option<Seen>,
    /// Where the two part.
    pub difference: Option<Difference>,
}

/// Plays a transcript as [`Transcript::replay`] does, as far as it goes, and looks at the connection after each event.
pub fn trace(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Trace {
    let mut looks = Vec::new();
    let played = play::observe(transcript, policy, handler, &mut |connection, buf, cx| {
        looks.push((connection.take_moves(), connection.state(buf, cx)));
    });
    let (mut inbound, mut outbound) = (INBOUND[0].0, OUTBOUND[0].0);
    let seen = played.events().zip(looks).map(|(event, (moves, state))| Seen {
        event: event.clone(),
        state,
        inbound: rows(INBOUND, moves.iter().filter(|made| made.inbound), &mut inbound),
        outbound: rows(OUTBOUND, moves.iter().filter(|made| !made.inbound), &mut outbound),
    });
    let mut seen = seen.peekable();
    let mut told = transcript.events().peekable();
    let mut same = Vec::new();
    // What is elided was not told.
    let is_told = |told: &Event, event: &Event| match &event.what {
        What::Send(sending) if sending.elided.is_some() => told.to_string() == event.to_string(),
        _ => told == event,
    };
    while let Some(each) = seen.next_if(|each| told.peek().is_some_and(|told| is_told(told, &each.event))) {
        same.push(each);
        told.next();
    }
    let is_cut = told.peek().is_none() && !same.last().is_some_and(Seen::is_end);
    if is_cut {
        // What would come next is not known.
        return Trace { seen: same, instead: None, difference: None };
    }
    let instead = seen.next();
    let differs = instead.is_some() || told.peek().is_some();
    let difference = if differs { transcript.first_difference(&played) } else { None };
    Trace { seen: same, instead, difference }
}

/// The rows of a table that lead from state to state; `state` goes along.
fn rows<'m>(table: &[Transition], moves: impl Iterator<Item = &'m Move>, state: &mut &'static str) -> Vec<Transition> {
    moves
        .filter_map(|made| {
            let from = std::mem::replace(state, made.to);
            table.iter().find(|row| (row.0, row.2) == (from, made.to)).copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sanserve_core::Call;
    use sanserve_core::DefaultPolicy;
    use sanserve_core::Reply;

    fn traced(text: &str) -> Trace {
        trace(&Transcript::parse(text).unwrap(), &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| {})
    }

    #[test]
    fn an_event_shows_the_moves_that_it_made() {
        let trace = traced(include_str!("../../core/tests/transcripts/not-found.txt"));
        assert_eq!(trace.difference, None);
        let shown = |at: usize| {
            let names = |rows: &[Transition]| rows.iter().map(|row| format!("{}-{}", row.0, row.2)).collect::<Vec<_>>();
            [names(&trace.seen[at].inbound), names(&trace.seen[at].outbound)].concat().join(" ")
        };
        let all: Vec<_> = (0..trace.seen.len()).map(shown).filter(|moves| !moves.is_empty()).collect();
        assert_eq!(all[..3], ["Head-Done Idle-Owed", "Owed-Body Body-Done", "Done-Head Done-Idle"]);
    }

    #[test]
    fn a_recording_that_was_cut_differs_in_nothing() {
        let trace = traced("sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n");
        assert_eq!((trace.seen.len(), trace.instead, trace.difference), (2, None, None));
    }

    #[test]
    fn what_is_elided_is_played() {
        let text = |status: u16| {
            format!(
                "sanserve transcript 1\n@0 wait read until 15000 idle\n@7 recv \"x\\r\\n\\r\\n\"\n@7 send {status} ..\n"
            )
        };
        let trace = traced(&text(400));
        assert_eq!((trace.seen.len(), trace.difference), (3, None));
        let What::Send(sending) = &trace.seen[2].event.what else { panic!("{:?}", trace.seen[2]) };
        assert!(sending.head.starts_with(b"HTTP/1.1 400 "), "the bytes are there");
        let difference = traced(&text(404)).difference.unwrap();
        assert_eq!((difference.expected.as_str(), difference.actual.as_str()), ("@7 send 404 ..", "@7 send"));
    }

    #[test]
    fn what_differs_is_told_apart_from_what_is_the_same() {
        let trace = traced("sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close idle\n");
        assert_eq!(trace.seen.len(), 2);
        assert!(trace.seen[1].state.eof);
        assert_eq!(trace.instead.unwrap().event.to_string(), "@7 close done");
        assert_eq!(trace.difference.unwrap().line, 4);
    }
}

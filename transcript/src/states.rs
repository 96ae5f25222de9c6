//! Traces a transcript: its events, each with the state of the connection after it.
//!
//! The states are those of a real [`Connection`](sanserve_core::Connection) that replays the transcript. How they are
//! displayed is not decided here.

use sanserve_core::{Handler, INBOUND, Move, OUTBOUND, Policy, State, Transition};

use crate::event::{Event, Transcript, What};
use crate::play::{self, Difference};

/// An event, and its effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The event.
    pub event: Event,
    /// The state after the event. An input is only recorded by then; its effect shows after the next step.
    pub state: State,
    /// The transitions of the inbound half, in order: rows of [`INBOUND`].
    pub inbound: Vec<Transition>,
    /// The transitions of the outbound half, in order: rows of [`OUTBOUND`].
    pub outbound: Vec<Transition>,
}

impl Seen {
    fn is_end(&self) -> bool {
        matches!(self.event.what, What::Close { blocked: false, .. })
    }
}

/// The result of replaying a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The events that are as in the transcript: all, or those before the first difference.
    pub seen: Vec<Seen>,
    /// What happens instead of the next event, if anything.
    pub instead: Option<Seen>,
    /// The first difference.
    pub difference: Option<Difference>,
}

/// Replays a transcript, like [`Transcript::replay`], and records the state of the connection after each event.
pub fn trace(transcript: &Transcript, policy: &dyn Policy, handler: &mut dyn Handler) -> Trace {
    let mut states = Vec::new();
    let played = play::observe(transcript, policy, handler, &mut |connection, buf, cx| {
        states.push((connection.take_moves(), connection.state(buf, cx)));
    });
    let (mut inbound, mut outbound) = (INBOUND[0].0, OUTBOUND[0].0);
    let seen = played.events().zip(states).map(|(event, (moves, state))| Seen {
        event: event.clone(),
        state,
        inbound: rows(INBOUND, moves.iter().filter(|made| made.inbound), &mut inbound),
        outbound: rows(OUTBOUND, moves.iter().filter(|made| !made.inbound), &mut outbound),
    });
    let mut seen = seen.peekable();
    let mut recorded = transcript.events().peekable();
    let mut same = Vec::new();
    // Elided bytes are not in the transcript.
    let is_recorded = |recorded: &Event, event: &Event| match &event.what {
        What::Send(sending) if sending.elided.is_some() => recorded.to_string() == event.to_string(),
        _ => recorded == event,
    };
    while let Some(each) =
        seen.next_if(|each| recorded.peek().is_some_and(|recorded| is_recorded(recorded, &each.event)))
    {
        same.push(each);
        recorded.next();
    }
    let is_cut = recorded.peek().is_none() && !same.last().is_some_and(Seen::is_end);
    if is_cut {
        // Later events are not known.
        return Trace { seen: same, instead: None, difference: None };
    }
    let instead = seen.next();
    let differs = instead.is_some() || recorded.peek().is_some();
    let difference = if differs { transcript.first_difference(&played) } else { None };
    Trace { seen: same, instead, difference }
}

/// The rows of a table for these transitions; `state` is updated.
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
        trace(&Transcript::parse(text).unwrap(), &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()))
    }

    #[test]
    fn an_event_has_its_transitions() {
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
    fn an_incomplete_recording_has_no_difference() {
        let trace = traced("sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n");
        assert_eq!((trace.seen.len(), trace.instead, trace.difference), (2, None, None));
    }

    #[test]
    fn elided_bytes_are_replayed() {
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
    fn events_before_a_difference_are_returned() {
        let trace = traced("sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close idle\n");
        assert_eq!(trace.seen.len(), 2);
        assert!(trace.seen[1].state.eof);
        assert_eq!(trace.instead.unwrap().event.to_string(), "@7 close done");
        assert_eq!(trace.difference.unwrap().line, 4);
    }
}

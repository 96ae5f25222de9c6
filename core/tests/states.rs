//! The states that `transcript::trace` shows of a connection, over all transcripts: they follow from each other, every
//! row of the transition tables is taken, and the timers are those that the core applies.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpus")]

mod corpus;

use std::collections::BTreeSet;

use sanserve_core::{INBOUND, OUTBOUND, Transition};
use sanserve_transcript::{Seen, What, trace};

/// Each transcript with its trace.
fn all() -> Vec<(String, Vec<Seen>)> {
    let seen = corpus::load().into_iter().map(|case| {
        let (policy, mut handler) = corpus::world(&case.transcript.settings.site);
        let trace = trace(&case.transcript, &*policy, &mut *handler);
        assert_eq!(trace.difference, None, "{}", case.name);
        assert_eq!(trace.seen.len(), case.transcript.events().count(), "{}", case.name);
        (case.name, trace.seen)
    });
    seen.collect()
}

#[test]
fn transitions_lead_from_state_to_state() {
    for (name, seen) in all() {
        let (mut inbound, mut outbound) = (INBOUND[0].0, OUTBOUND[0].0);
        for each in &seen {
            let follow = |state: &mut &'static str, rows: &[Transition]| {
                for row in rows {
                    assert_eq!(row.0, *state, "{name}: {}", each.event);
                    *state = row.2;
                }
            };
            follow(&mut inbound, &each.inbound);
            follow(&mut outbound, &each.outbound);
            let shown = (each.state.inbound, each.state.outbound);
            assert_eq!(shown, (inbound, outbound), "{name}: {}", each.event);
        }
    }
}

/// A row that is never taken would not belong in the diagram.
#[test]
fn every_row_of_the_tables_is_taken() {
    let all = all();
    let taken = |of: fn(&Seen) -> &[Transition]| -> BTreeSet<Transition> {
        all.iter().flat_map(|(_, seen)| seen).flat_map(|seen| of(seen).to_vec()).collect()
    };
    let inbound = taken(|seen| &seen.inbound);
    let outbound = taken(|seen| &seen.outbound);
    let missing = INBOUND
        .iter()
        .filter(|row| !inbound.contains(row))
        .chain(OUTBOUND.iter().filter(|row| !outbound.contains(row)));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&Transition>::new());
}

#[test]
fn the_nearest_timer_is_the_deadline_of_a_wait() {
    for (name, seen) in all() {
        for each in &seen {
            if let What::Wait(wait) = &each.event.what {
                let nearest = each.state.timers.iter().map(|timer| timer.deadline).min();
                assert_eq!(nearest, wait.deadline, "{name}: {}", each.event);
            }
        }
    }
}

/// The unsent bytes that are shown after a step are those that the driver did not take.
#[test]
fn unsent_bytes_are_those_not_taken() {
    for (name, seen) in all() {
        for each in &seen {
            if let What::Send(sending) = &each.event.what {
                let left = sending.len() - sending.taken.bytes.unwrap_or(sending.len());
                assert_eq!(each.state.unsent, left, "{name}: {}", each.event);
            }
        }
    }
}

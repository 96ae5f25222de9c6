//! The states that are shown of a connection (`transcript::trace`), over all transcripts: they follow from each
//! other, the tables of the machine are taken row by row, and the clocks are those that the core obeys.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpus")]

mod corpus;

use std::collections::BTreeSet;

use sanserve_core::{INBOUND, OUTBOUND, Transition};
use sanserve_transcript::{Seen, What, trace};

/// Each transcript with what was seen of it.
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
fn the_moves_lead_from_state_to_state() {
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

/// A row that nothing takes would be drawn for nothing.
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
fn the_nearest_timer_is_what_a_wait_is_bounded_by() {
    for (name, seen) in all() {
        for each in &seen {
            if let What::Wait(wait) = &each.event.what {
                let nearest = each.state.timers.iter().map(|timer| timer.deadline).min();
                assert_eq!(nearest, wait.deadline, "{name}: {}", each.event);
            }
        }
    }
}

/// What is shown as unsent after a step is what the step did not get rid of.
#[test]
fn what_is_unsent_is_what_was_not_taken() {
    for (name, seen) in all() {
        for each in &seen {
            if let What::Send(sending) = &each.event.what {
                let left = sending.len() - sending.taken.bytes.unwrap_or(sending.len());
                assert_eq!(each.state.unsent, left, "{name}: {}", each.event);
            }
        }
    }
}

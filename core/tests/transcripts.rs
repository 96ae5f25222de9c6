//! Replays every transcript in `core/tests/transcripts` and compares each step.
//!
//! `UPDATE_TRANSCRIPTS=NAME cargo test -p sanserve-core --test transcripts` updates the transcripts whose name contains
//! NAME with the actual steps; `UPDATE_TRANSCRIPTS=1` updates all. Review the diff before you commit it: see
//! `docs/transcripts.md`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads the corpus")]

mod corpus;

use sanserve_core::{Close, Violation};
use sanserve_transcript::{Difference, Transcript, What, check};

#[test]
fn every_transcript_replays_identically() {
    let mut failures = Vec::new();
    for case in corpus::load() {
        if case.is_selected() {
            if let Some(played) = case.play()
                && played.to_text() != case.text
            {
                std::fs::write(&case.path, played.to_text()).unwrap();
            }
        } else if case.transcript.to_text() != case.text {
            failures.push(format!("{}: not in canonical form (UPDATE_TRANSCRIPTS=1 writes it)", case.name));
        } else {
            match case.play().map(|played| case.transcript.first_difference(&played)) {
                None => failures.push(format!("{}: it panicked", case.name)),
                Some(Some(difference)) => failures.push(format!("{}: {difference}", case.name)),
                Some(None) => {}
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn replaying_a_replay_changes_nothing() {
    for case in corpus::load() {
        let Some(once) = case.play() else { continue };
        let twice = corpus::Case { transcript: once.clone(), ..case };
        assert_eq!(twice.play(), Some(once), "{}", twice.name);
    }
}

#[test]
fn the_documented_example_replays() {
    let text = include_str!("../../docs/transcripts.md");
    let (_, rest) = text.split_once("```\n").expect("the first block");
    let (example, _) = rest.split_once("```\n").expect("the end of the block");
    let transcript = Transcript::parse(example).unwrap();
    assert_eq!(transcript.to_text(), example);
    let (policy, mut handler) = corpus::world("plain");
    check(&transcript, &*policy, &mut *handler).unwrap();
}

#[test]
fn a_difference_is_shown_with_both_sides() {
    let text = "sanserve transcript 1\n@0 wait read until 15000 idle\n@7 eof\n@7 close idle\n@9 eof\n";
    let (policy, mut handler) = corpus::world("plain");
    let difference = check(&Transcript::parse(text).unwrap(), &*policy, &mut *handler).unwrap_err();
    let Difference { line, event_line, event, expected, actual, .. } = difference;
    assert_eq!((line, event_line, event.as_str()), (4, 4, "@7 close idle"));
    assert_eq!((expected.as_str(), actual.as_str()), ("@7 close idle", "@7 close done"));
}

/// A transcript that shows a violation declares it: `# violation: Name`.
#[test]
fn every_violation_has_a_transcript() {
    let cases = corpus::load();
    for violation in Violation::ALL {
        let mark = format!(" violation: {violation:?}");
        let mut shown =
            cases.iter().filter(|case| case.transcript.comments().any(|comment| comment == mark)).peekable();
        assert!(shown.peek().is_some(), "no transcript has `#{mark}`");
        shown.for_each(|case| assert!(is_shown(*violation, case), "{} does not show {violation:?}", case.name));
    }
    for case in &cases {
        for comment in case.transcript.comments() {
            let Some(name) = comment.strip_prefix(" violation: ") else { continue };
            let known = Violation::ALL.iter().any(|violation| format!("{violation:?}") == name);
            assert!(known, "{}: no such violation: {name}", case.name);
        }
    }
}

fn is_shown(violation: Violation, case: &corpus::Case) -> bool {
    let (status, _, message) = violation.row();
    let message = message.unwrap_or_else(|| status.phrase());
    let (before, after) = message.split_once("{}").unwrap_or((message, ""));
    case.transcript.events().any(|event| match &event.what {
        What::Finished(finish) => finish.error.as_ref().is_some_and(|error| {
            finish.status == status.code() && error.starts_with(before.as_bytes()) && error.ends_with(after.as_bytes())
        }),
        _ => false,
    })
}

/// The hand-written corpus reaches every kind of step.
#[test]
fn the_corpus_reaches_every_step_and_every_close() {
    let cases = corpus::load();
    let happens = |wanted: &dyn Fn(&What) -> bool| {
        cases.iter().any(|case| case.transcript.events().any(|event| wanted(&event.what)))
    };
    for close in [Close::Done, Close::Idle, Close::Timeout, Close::Broken, Close::Drained] {
        assert!(happens(&|what| matches!(what, What::Close { close: c, .. } if *c == close)), "{close:?}");
    }
    assert!(happens(&|what| matches!(what, What::Shut { .. })));
    assert!(happens(&|what| matches!(what, What::List { .. })));
    for reason in ["the peer went away", "the file became shorter", "the peer was too slow", "the server shut down"] {
        assert!(
            happens(&|what| matches!(what, What::Finished(finish) if finish.cut.as_deref() == Some(reason))),
            "{reason}"
        );
    }
}

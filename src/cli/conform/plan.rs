//! What of a transcript can happen over a real socket, and what should come back.

use sanserve::core::{Call, Close, Input, Plain, Reply, SpawnError, Timeouts};
use sanserve::transcript::{Event, Line, Script, Settings, Take, Then, Transcript, What, check};

use super::hash::masked;

/// A transcript, reduced to what a client sends and what the disk and the scripts say.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// What happened up to the end that is played, all at time 0.
    pub(crate) events: Vec<Event>,
    /// All bytes of the client.
    pub(crate) input: Vec<u8>,
    /// It half-closes behind them; otherwise when `until` bytes have come.
    pub(crate) eof: bool,
    pub(crate) until: usize,
    /// What should come back, and who says so; if there are several, they should be the same.
    pub(crate) expected: Vec<(&'static str, Vec<u8>)>,
}

/// The name of the site that the program has.
const SITE: &str = "plain";

/// What a script says goes through a pipe at once, up to this.
const PIPE: usize = 60_000;

impl Plan {
    /// The plan of a transcript. `Err` says why there is none.
    pub(crate) fn of(transcript: &Transcript) -> Result<Plan, String> {
        if transcript.settings.site != SITE {
            return Err(format!("it needs the site {}", transcript.settings.site));
        }
        let events = at_once(before_the_last_tick(without_idle_ticks(transcript)));
        for event in &events {
            possible(&event.what)?;
        }
        let merged = merged(&events)?;
        let told = of_events(transcript, &events);
        let script = |events: &[Event]| Script::of(&of_events(transcript, events)).ok_or(UNPLAYABLE);
        let alone = script(&events)?;
        let core = speak(&alone);
        let told = Script::told(&told).bytes;
        let difference = check(transcript, &Plain, &mut |_: Call, _: &mut Reply<'_>| {});
        // `Date` goes with the time.
        let is_told = masked(&told) == masked(&core);
        if !is_told && difference.is_ok() {
            return Err("it depends on the moments of its inputs".into());
        }
        let eof = events.iter().any(|event| event.what == What::Input(Input::Eof));
        let until = speak(&script(&merged)?).len();
        let mut ended = merged.clone();
        if !eof {
            ended.push(Event { at: 0, joined: false, what: What::Input(Input::Eof) });
        }
        let wanted = speak(&script(&ended)?);
        let expected = if merged == events {
            // Behind what is told comes what the client's end brings.
            let rest = wanted.get(told.len()..).filter(|_| is_told).unwrap_or_default();
            vec![("told", [&told[..], rest].concat())]
        } else {
            // In chunks, what a script says looks otherwise in one piece.
            let of_told = if is_told { wanted.clone() } else { told };
            vec![("told", of_told), ("core", wanted)]
        };
        let mut settings = transcript.settings.clone();
        // Nothing that is played depends on them, and a slow machine is no difference.
        settings.config.timeouts = Timeouts::default();
        Ok(Plan { settings, events, input: alone.input, eof, until, expected })
    }
}

const UNPLAYABLE: &str = "its inputs need a world that is made up";

/// All that the core says.
fn speak(script: &Script) -> Vec<u8> {
    script.play(&[], Take::All, &Plain, &mut |_: Call, _: &mut Reply<'_>| {}).bytes
}

/// The events without those of time with which nothing happens, as a recording has them.
fn without_idle_ticks(transcript: &Transcript) -> Vec<Event> {
    let mut events: Vec<Event> = transcript.events().cloned().collect();
    for at in (0..events.len()).rev() {
        let is_time = matches!(events[at].what, What::Tick | What::Clock(_));
        let waits_on = events.get(at + 1).is_none_or(|next| next.joined || matches!(next.what, What::Wait(_)));
        if is_time && (events[at].joined || waits_on) {
            events.remove(at);
        }
    }
    events
}

/// The events before the first one of time or of a shutdown, if nothing but the end comes behind it: an
/// idle connection is ended by its client instead.
fn before_the_last_tick(events: Vec<Event>) -> Vec<Event> {
    let is_clock =
        |event: &Event| matches!(event.what, What::Tick | What::Input(Input::Leave | Input::Drain | Input::Cut));
    let Some(at) = events.iter().position(is_clock) else { return events };
    let is_end = |event: &Event| {
        is_clock(event) || matches!(event.what, What::Probe { .. } | What::Wait(_) | What::Close { .. })
    };
    if events[at..].iter().all(is_end) { events[..at].to_vec() } else { events }
}

fn at_once(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().map(|event| Event { at: 0, ..event }).collect()
}

/// Whether something can happen over a real socket, and without waiting for a clock.
fn possible(what: &What) -> Result<(), String> {
    let why = match what {
        What::Tick | What::Clock(_) | What::Probe { .. } | What::Close { close: Close::Timeout | Close::Idle, .. } => {
            "it depends on time"
        }
        What::Input(Input::Leave | Input::Drain | Input::Cut) | What::Close { close: Close::Drained, .. } => {
            "the server goes down"
        }
        What::Input(Input::Blocked | Input::Writable | Input::Sent(_)) => "it needs a full socket",
        What::Shut { blocked: true } | What::Close { blocked: true, .. } => "it needs a full socket",
        What::Send(sending) if sending.elided.is_some() => "it leaves out what is sent",
        What::Send(sending) if sending.taken.bytes.is_some() || sending.taken.then != Then::Poll => {
            "it needs a full socket"
        }
        What::Input(Input::Scarce) => "memory is short",
        What::Input(Input::Broken(_)) => "something breaks",
        What::Input(Input::Done(..)) => "the disk is slow",
        What::Input(Input::Wake) | What::Call(_) | What::Close { close: Close::Upgraded, .. } => "it needs a handler",
        What::Input(Input::Fed(_) | Input::FeedBlocked | Input::Feedable | Input::FeedEnd | Input::SpoolFull) => {
            "it needs a full pipe"
        }
        What::Spawn { answer: Some(Err(SpawnError::Busy | SpawnError::Exhausted | SpawnError::Denied)), .. } => {
            "the system runs no script"
        }
        _ => return Ok(()),
    };
    Err(why.into())
}

/// The same with all that each script says in one piece, as a pipe has it.
fn merged(events: &[Event]) -> Result<Vec<Event>, String> {
    let mut merged: Vec<Event> = Vec::new();
    let mut piece: Option<usize> = None;
    for event in events {
        match (&event.what, piece) {
            (What::Script(bytes), Some(at)) => {
                if let What::Script(before) = &mut merged[at].what {
                    before.extend_from_slice(bytes);
                }
                continue;
            }
            (What::Script(_), None) => piece = Some(merged.len()),
            (What::Spawn { .. }, _) => piece = None,
            _ => {}
        }
        merged.push(event.clone());
    }
    let is_long = |event: &Event| matches!(&event.what, What::Script(bytes) if bytes.len() > PIPE);
    if merged.iter().any(is_long) { Err("a script says more than a pipe holds".into()) } else { Ok(merged) }
}

/// A transcript of these events alone.
fn of_events(transcript: &Transcript, events: &[Event]) -> Transcript {
    let lines = events.iter().cloned().map(Line::Event).collect();
    Transcript { about: Vec::new(), settings: transcript.settings.clone(), lines }
}

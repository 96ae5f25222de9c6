//! The part of a transcript that can happen over a real socket, and the expected response.

use sanserve_core::{Call, Close, DefaultPolicy, Input, Reply, SpawnError, Timeouts};
use sanserve_transcript::{Event, Line, Script, Settings, Take, Then, Transcript, What, check};

use super::hash::masked;

/// A transcript, reduced to what the client sends, the contents of the disk and the output of scripts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// The events that are played, all at time 0.
    pub(crate) events: Vec<Event>,
    /// All bytes that the client sends.
    pub(crate) input: Vec<u8>,
    /// Whether the client half-closes right after sending; otherwise it does once `until` bytes have arrived.
    pub(crate) eof: bool,
    pub(crate) until: usize,
    /// The expected bytes, each with where they come from. If there are several, they should be the same.
    pub(crate) expected: Vec<(&'static str, Vec<u8>)>,
}

/// The name of the site that this program has.
const SITE: &str = "plain";

/// The longest output of a script that a pipe takes at once, in bytes.
const PIPE: usize = 60_000;

impl Plan {
    /// Makes the plan of a transcript. The error says why it cannot be played.
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
        let difference = check(transcript, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()));
        // `Date` depends on the time.
        let is_told = masked(&told) == masked(&core);
        if !is_told && difference.is_ok() {
            return Err("it depends on when its inputs arrive".into());
        }
        let eof = events.iter().any(|event| event.what == What::Input(Input::Eof));
        let until = speak(&script(&merged)?).len();
        let mut ended = merged.clone();
        if !eof {
            ended.push(Event { at: 0, joined: false, what: What::Input(Input::Eof) });
        }
        let wanted = speak(&script(&ended)?);
        let expected = if merged == events {
            // The end of the client's input may add to the bytes of the transcript.
            let rest = wanted.get(told.len()..).filter(|_| is_told).unwrap_or_default();
            vec![("transcript", [&told[..], rest].concat())]
        } else {
            // A chunked response differs when the output of the script arrives in one piece.
            let of_told = if is_told { wanted.clone() } else { told };
            vec![("transcript", of_told), ("core", wanted)]
        };
        let mut settings = transcript.settings.clone();
        // Nothing that is played depends on timeouts, and a slow machine should not fail.
        settings.config.timeouts = Timeouts::default();
        Ok(Plan { settings, events, input: alone.input, eof, until, expected })
    }
}

const UNPLAYABLE: &str = "its inputs cannot happen on a real system";

/// All bytes that the core sends.
fn speak(script: &Script) -> Vec<u8> {
    script.play(&[], Take::All, &DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())).bytes
}

/// The events without clock ticks that cause nothing. Recordings contain such ticks.
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

/// The events before the first timeout or shutdown, if only the end of the connection follows: the client ends an
/// idle connection instead.
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

/// Whether an event can happen over a real socket without waiting for the clock. The error says why not.
fn possible(what: &What) -> Result<(), String> {
    let why = match what {
        What::Tick | What::Clock(_) | What::Probe { .. } | What::Close { close: Close::Timeout | Close::Idle, .. } => {
            "it depends on time"
        }
        What::Input(Input::Leave | Input::Drain | Input::Cut) | What::Close { close: Close::Drained, .. } => {
            "the server shuts down"
        }
        What::Input(Input::Blocked | Input::Writable | Input::Sent(_)) => "it needs a full socket",
        What::Shut { blocked: true } | What::Close { blocked: true, .. } => "it needs a full socket",
        What::Send(sending) if sending.elided.is_some() => "it omits bytes that are sent",
        What::Send(sending) if sending.taken.then == Then::Pending => "the disk is slow",
        What::Send(sending) if sending.taken.bytes.is_some() || sending.taken.then != Then::Poll => {
            "it needs a full socket"
        }
        What::Input(Input::Scarce) => "the server is out of memory",
        What::Input(Input::Broken(_)) => "something breaks",
        What::Input(Input::Done(..) | Input::FilePending | Input::FileReady) => "the disk is slow",
        What::Input(Input::Wake) | What::Call(_) | What::Close { close: Close::Upgraded, .. } => "it needs a handler",
        What::Input(Input::Fed(_) | Input::FeedBlocked | Input::Feedable | Input::FeedEnd | Input::SpoolFull) => {
            "it needs a full pipe"
        }
        What::Spawn { answer: Some(Err(SpawnError::Busy | SpawnError::Exhausted | SpawnError::Denied)), .. } => {
            "the system cannot start a script"
        }
        _ => return Ok(()),
    };
    Err(why.into())
}

/// Merges the output of each script into one piece, as it arrives through a pipe.
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
    if merged.iter().any(is_long) { Err("a script writes more than a pipe holds".into()) } else { Ok(merged) }
}

/// A transcript with only these events.
fn of_events(transcript: &Transcript, events: &[Event]) -> Transcript {
    let lines = events.iter().cloned().map(Line::Event).collect();
    Transcript { about: Vec::new(), settings: transcript.settings.clone(), lines }
}

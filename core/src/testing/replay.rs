//! Playing a transcript to a server under test, with the judge beside it; and leaving out of a transcript
//! that breaks a rule what is not needed for that.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::disk::File;
use super::driver::{Driver, Outside};
use super::judge::{Judge, Wrong};
use super::quiet::{quietly, text};
use super::server::Server;
use super::summary::Failure;
use crate::step::Ticket;
use crate::transcript::{Event, Line, Settings, Transcript, What};

/// More replays than it takes to shorten a history well.
const MOST_REPLAYS: usize = 2_000;
/// More events than anybody wants to wait for.
const MOST_EVENTS: usize = 1_000_000;

/// What is outside stands in the transcript.
struct Recorded<'t> {
    /// What it says about the turn.
    steps: &'t [Line],
    judge: Judge,
    out: Vec<Line>,
}

impl Outside for Recorded<'_> {
    fn answer(&mut self, what: &mut What, _: Ticket) {
        let told = self.steps.iter().enumerate().find_map(|(at, line)| match line {
            Line::Event(event) if event.what.is_like(what) => Some((at, &event.what)),
            _ => None,
        });
        if let Some((at, told)) = told {
            what.take_answer(told);
            self.steps = &self.steps[at + 1..];
        }
    }

    fn attached(&mut self, _: File) {}

    fn happened(&mut self, event: &Event) -> Result<(), Wrong> {
        self.out.push(Line::Event(event.clone()));
        self.judge.see(event)
    }
}

impl Server<'_> {
    /// Plays the inputs and the answers of a transcript, as [`perform`](crate::transcript::perform) does, and
    /// checks what a [`Peer`](super::Peer) and a [`World`](super::World) check. Gives what really happens. The
    /// rules are those of the transcript; site and handler are this server's.
    ///
    /// # Errors
    /// The rule that is broken, and what has happened until then.
    ///
    /// ```
    /// use sanserve_core::testing::Server;
    /// use sanserve_core::transcript::Transcript;
    ///
    /// let text = "sanserve transcript 1\n@0 recv \"GET /a HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"\n@0 open a -> denied\n";
    /// let played = Server::new().replay(&Transcript::parse(text).unwrap()).unwrap();
    /// assert!(played.to_text().contains("finished 404"));
    /// ```
    pub fn replay(&self, transcript: &Transcript) -> Result<Transcript, Box<Failure>> {
        let (transcript, wrong) = quietly(|| replay(self, transcript));
        match wrong {
            None => Ok(transcript),
            Some(wrong) => {
                Err(Box::new(Failure { seed: None, connection: 0, what: wrong.to_string(), transcript, is_alone: true }))
            }
        }
    }
}

/// Plays the inputs and the answers of a transcript: what really happens, and the rule that it breaks.
pub(super) fn replay(server: &Server<'_>, transcript: &Transcript) -> (Transcript, Option<Wrong>) {
    let Settings { config, wall, peer, .. } = transcript.settings.clone();
    // Who is under test counts; the rules are those of the transcript.
    let server = server.clone().config(config);
    let mut outside = Recorded { steps: &[], judge: Judge::new(server.config.clone()), out: Vec::new() };
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut driver = Driver::accept(&server, peer, wall, super::driver::Pool::default());
        driver.forbids_hanging = true;
        play(&mut driver, &transcript.lines, &mut outside)
    }));
    let wrong = match played {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(Wrong::new("panic", text(&*panic))),
    };
    (Transcript { lines: outside.out, ..transcript.clone() }, wrong)
}

fn play<'t>(driver: &mut Driver<'_>, mut lines: &'t [Line], outside: &mut Recorded<'t>) -> Result<(), Wrong> {
    loop {
        let is_input = |line: &Line| matches!(line, Line::Event(event) if event.what.is_input());
        let end = lines.iter().position(is_input).unwrap_or(lines.len());
        let (steps, rest) = lines.split_at(end);
        outside.steps = steps;
        let joins = matches!(rest.first(), Some(Line::Event(event)) if event.joined);
        if !joins {
            driver.turn(outside)?;
        }
        let Some((Line::Event(event), rest)) = rest.split_first() else { break };
        if driver.closed.is_some() {
            break;
        }
        driver.input(event.at, event.joined, event.what.clone(), outside)?;
        lines = rest;
    }
    outside.judge.end()
}

/// The shortest transcript that was found to break the same rule. `None`: alone, it does not break it.
pub(super) fn shorten(server: &Server<'_>, transcript: &Transcript, rule: &str) -> Option<Transcript> {
    quietly(|| {
        let (replays, events) = (Cell::new(0), Cell::new(0));
        let fails = |tried: &Transcript| {
            replays.set(replays.get() + 1);
            events.set(events.get() + tried.lines.len());
            let (played, wrong) = replay(server, tried);
            wrong.filter(|wrong| wrong.rule == rule).map(|_| played)
        };
        let mut short = fails(transcript)?;
        let mut size = inputs(&short).len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < inputs(&short).len() {
                match fails(&without(&short, at, size)) {
                    Some(played) => short = played,
                    None => at += size,
                }
                if replays.get() > MOST_REPLAYS || events.get() > MOST_EVENTS {
                    return Some(short);
                }
            }
            if size == 1 {
                return Some(short);
            }
            size = size.div_ceil(2);
        }
    })
}

/// Where the inputs stand.
fn inputs(transcript: &Transcript) -> Vec<usize> {
    let is_input = |line: &Line| matches!(line, Line::Event(event) if event.what.is_input());
    (0..transcript.lines.len()).filter(|&at| is_input(&transcript.lines[at])).collect()
}

/// Without `n` inputs from the `at`th on. What was said behind them stays: it may be needed as an answer.
fn without(transcript: &Transcript, at: usize, n: usize) -> Transcript {
    let inputs = inputs(transcript);
    let gone = &inputs[at..(at + n).min(inputs.len())];
    let lines = transcript.lines.iter().enumerate().filter(|(line, _)| gone.binary_search(line).is_err());
    Transcript { lines: lines.map(|(_, line)| line.clone()).collect(), ..transcript.clone() }
}

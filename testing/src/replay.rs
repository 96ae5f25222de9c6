//! Replays a transcript against a server under test, with the judge; and minimizes a transcript that breaks a rule.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sanserve_core::Ticket;
use sanserve_transcript::{Event, Line, Settings, Taken, Transcript, What, driving};

use super::disk::File;
use super::driver::{Driver, Environment};
use super::holding::brief;
use super::judge::{Judge, Wrong};
use super::quiet::{quietly, text};
use super::server::Server;
use super::summary::Failure;

/// More replays than are needed to minimize a history well.
const MAX_REPLAYS: usize = 2_000;
/// The maximum number of events that are replayed to minimize a history.
const MAX_EVENTS: usize = 300_000;
/// Longer pieces are worth splitting.
const LONG: usize = 200;

/// An environment whose results are in the transcript.
struct Recorded<'t> {
    /// The lines of the transcript for this turn.
    steps: &'t [Line],
    judge: Judge,
    out: Vec<Line>,
    /// Whether bytes that were offered but not accepted are omitted.
    is_brief: bool,
}

impl Environment for Recorded<'_> {
    fn answer(&mut self, what: &mut What, _: Ticket) {
        let recorded = self.steps.iter().enumerate().find_map(|(at, line)| match line {
            Line::Event(event) if event.what.is_like(what) => Some((at, &event.what)),
            _ => None,
        });
        if let Some((at, recorded)) = recorded {
            what.take_answer(recorded);
            self.steps = &self.steps[at + 1..];
        }
    }

    fn attached(&mut self, _: File) {}

    fn happened(&mut self, event: &Event) -> Result<(), Wrong> {
        self.out.push(Line::Event(if self.is_brief { brief(event) } else { event.clone() }));
        self.judge.see(event)
    }
}

impl Server<'_> {
    /// Replays the inputs and results of a transcript, as [`perform`](sanserve_transcript::perform) does, and checks
    /// what a [`Peer`](super::Peer) and a [`World`](super::World) check. Returns what really happens. The configuration
    /// is that of the transcript; policy and handler are those of this server.
    ///
    /// # Errors
    /// The rule that is broken, and the history until then.
    ///
    /// ```
    /// use sanserve_testing::Server;
    /// use sanserve_transcript::Transcript;
    ///
    /// let text = "sanserve transcript 1\n@0 recv \"GET /a HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"\n@0 open a -> denied\n";
    /// let played = Server::new().replay(&Transcript::parse(text).unwrap()).unwrap();
    /// assert!(played.to_text().contains("finished 404"));
    /// ```
    pub fn replay(&self, transcript: &Transcript) -> Result<Transcript, Box<Failure>> {
        let (transcript, wrong) = quietly(|| replay(self, transcript, false));
        match wrong {
            None => Ok(transcript),
            Some(wrong) => Err(Box::new(Failure {
                seed: None,
                connection: 0,
                what: wrong.to_string(),
                transcript,
                is_alone: true,
            })),
        }
    }
}

/// Replays the inputs and results of a transcript. Returns what really happens, and the rule that is broken.
pub(super) fn replay(server: &Server<'_>, transcript: &Transcript, is_brief: bool) -> (Transcript, Option<Wrong>) {
    let Settings { config, wall, wall_millis, peer, .. } = transcript.settings.clone();
    // The configuration is that of the transcript.
    let server = server.with_rules(config);
    let mut environment = Recorded { steps: &[], judge: Judge::new(server.config.clone()), out: Vec::new(), is_brief };
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut driver = Driver::accept(&server, peer, (wall, wall_millis), super::driver::Pool::default());
        driver.forbids_hanging = true;
        play(&mut driver, &transcript.lines, &mut environment)
    }));
    let wrong = match played {
        Ok(outcome) => outcome.err(),
        Err(panic) => Some(Wrong::new("panic", text(&*panic))),
    };
    let played = Transcript { lines: environment.out, ..transcript.clone() };
    let wrong = wrong.or_else(|| server.breaks_rule(&played));
    (played, wrong)
}

fn play<'t>(driver: &mut Driver<'_>, mut lines: &'t [Line], environment: &mut Recorded<'t>) -> Result<(), Wrong> {
    loop {
        let (steps, joins, rest) = driving::next_turn(lines);
        environment.steps = steps;
        if joins {
            driver.part(driving::count_events(steps), environment)?;
        } else {
            driver.turn(environment)?;
        }
        let Some((Line::Event(event), rest)) = rest.split_first() else { break };
        if driver.closed.is_some() {
            break;
        }
        driver.input(event.at, event.joined, event.what.clone(), environment)?;
        lines = rest;
    }
    environment.judge.end()
}

/// The shortest transcript that was found to break the same rule. `None` if the connection alone does not break it.
pub(super) fn shorten(server: &Server<'_>, transcript: &Transcript, rule: &'static str) -> Option<Transcript> {
    quietly(|| {
        let mut search = Search { server, rule, replays: 0, events: 0 };
        let mut short = search.fails(transcript.clone())?;
        // Fewer inputs first. The rest is then simplified, which may permit even fewer.
        search.drop_some(&mut short, is_input, |_| None);
        search.drop_some(&mut short, is_dribble, |line| Some(taken_whole(line)));
        search.join_some(&mut short);
        search.drop_some(&mut short, is_long, |line| Some(part(line, |len| 0..len / 2)));
        search.drop_some(&mut short, is_long, |line| Some(part(line, |len| len / 2..len)));
        search.drop_some(&mut short, is_input, |_| None);
        Some(short)
    })
}

/// The search for a shorter transcript.
struct Search<'w, 's> {
    server: &'w Server<'s>,
    rule: &'static str,
    replays: usize,
    events: usize,
}

impl Search<'_, '_> {
    /// Returns what really happens, if that breaks the rule too.
    fn fails(&mut self, tried: Transcript) -> Option<Transcript> {
        self.replays += 1;
        self.events += tried.lines.len();
        let (played, wrong) = replay(self.server, &tried, true);
        wrong.filter(|wrong| wrong.rule == self.rule).map(|_| played)
    }

    /// Removes the lines for which `is_removable` returns true, or replaces them by something `simpler`: as many at once as
    /// possible, in ever smaller parts.
    fn drop_some(
        &mut self,
        short: &mut Transcript,
        is_removable: fn(&Line) -> bool,
        simpler: fn(&Line) -> Option<Line>,
    ) {
        let places = |short: &Transcript| -> Vec<usize> {
            (0..short.lines.len()).filter(|&at| is_removable(&short.lines[at])).collect()
        };
        let mut size = places(short).len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            loop {
                let places = places(short);
                if at >= places.len() {
                    break;
                }
                if self.replays > MAX_REPLAYS || self.events > MAX_EVENTS {
                    return;
                }
                let removed = &places[at..(at + size).min(places.len())];
                let lines = short.lines.iter().enumerate().filter_map(|(at, line)| match removed.binary_search(&at) {
                    Ok(_) => simpler(line),
                    Err(_) => Some(line.clone()),
                });
                match self.fails(Transcript { lines: lines.collect(), ..short.clone() }) {
                    Some(played) => *short = played,
                    None => at += size,
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Joins pieces that the peer sent: as many at once as possible.
    fn join_some(&mut self, short: &mut Transcript) {
        let mut size = short.lines.iter().filter(|line| is_input(line)).count();
        while size > 0 {
            let mut at = 0;
            while at < short.lines.len() && self.replays <= MAX_REPLAYS && self.events <= MAX_EVENTS {
                match joined(short, at, size).filter(|_| is_input(&short.lines[at])) {
                    Some(tried) => match self.fails(tried) {
                        Some(played) => *short = played,
                        None => at += 1,
                    },
                    None => at += 1,
                }
            }
            size /= 2;
        }
    }
}

fn is_input(line: &Line) -> bool {
    matches!(line, Line::Event(event) if event.what.is_input())
}

/// Whether this is a `Send` of which the socket did not accept everything at once.
fn is_dribble(line: &Line) -> bool {
    matches!(line, Line::Event(Event { what: What::Send(sending), .. }) if sending.taken != Taken::default())
}

fn taken_whole(line: &Line) -> Line {
    let mut line = line.clone();
    if let Line::Event(Event { what: What::Send(sending), .. }) = &mut line {
        sending.taken = Taken::default();
    }
    line
}

/// Whether this is a long piece that the peer sent.
fn is_long(line: &Line) -> bool {
    matches!(line, Line::Event(Event { what: What::Recv(bytes), .. }) if bytes.len() > LONG)
}

fn part(line: &Line, range: fn(usize) -> Range<usize>) -> Line {
    let mut line = line.clone();
    if let Line::Event(Event { what: What::Recv(bytes), .. }) = &mut line {
        *bytes = bytes[range(bytes.len())].to_vec();
    }
    line
}

/// Joins the piece at `first` with up to `n` pieces that follow without other inputs in between.
fn joined(transcript: &Transcript, first: usize, n: usize) -> Option<Transcript> {
    let mut lines = transcript.lines.clone();
    let mut all = Vec::new();
    let mut removed = Vec::new();
    for (at, line) in lines.iter().enumerate().skip(first).filter(|(_, line)| is_input(line)).take(n + 1) {
        let Line::Event(Event { what: What::Recv(bytes), .. }) = line else { break };
        all.extend_from_slice(bytes);
        removed.push(at);
    }
    let (&first, rest) = removed.split_first().filter(|(_, rest)| !rest.is_empty())?;
    if let Line::Event(Event { what: What::Recv(bytes), .. }) = &mut lines[first] {
        *bytes = all;
    }
    rest.iter().rev().for_each(|&at| _ = lines.remove(at));
    Some(Transcript { lines, ..transcript.clone() })
}

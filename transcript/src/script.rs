//! Replays the same bytes however they are split: a transcript reduced to its input and the results of actions, which
//! is replayed with any cuts of the input and with output taken in any pieces. Time is not replayed; see `play` for
//! that.

use std::collections::VecDeque;

use sanserve_core::{
    Action, Body, Buffers, Close, Completion, Connection, Context, FsError, Handler, Input, Listed, Now, Policy,
    Resting, Step, Tick,
};

use crate::event::{FeedThen, Finish, Middle, Taken, Transcript, What};
use crate::settings::Settings;

/// The input and the results of actions of a transcript, without their times.
#[derive(Clone, Debug)]
pub struct Script {
    settings: Settings,
    /// All bytes that the peer sent.
    pub input: Vec<u8>,
    eof: bool,
    /// The steps with results, in order.
    answers: Vec<What>,
    /// The output of each script, in the order in which they were run, and whether it ended.
    said: Vec<(Vec<Vec<u8>>, bool)>,
}

/// How much output the socket accepts at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Everything.
    All,
    /// This number of bytes, repeatedly.
    Bytes(u64),
    /// This number of bytes, and then it is blocked until the connection waits.
    Block(u64),
}

/// The output of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// All bytes that were sent. Byte `n` of a file is `n` modulo 251.
    pub bytes: Vec<u8>,
    /// The finished exchanges.
    pub finished: Vec<Finish>,
    /// Why the connection closed, if it did.
    pub close: Option<Close>,
}

impl Script {
    /// The script of a transcript that does not depend on the times of inputs. Requires that all events are at time 0,
    /// that no bytes follow the end of input, and that the socket accepts everything.
    #[must_use]
    pub fn of(transcript: &Transcript) -> Option<Script> {
        let mut script = Script {
            settings: transcript.settings.clone(),
            input: Vec::new(),
            eof: false,
            answers: Vec::new(),
            said: Vec::new(),
        };
        for event in transcript.events() {
            match &event.what {
                _ if event.at > 0 => return None,
                What::Recv(_) if script.eof => return None,
                What::Recv(bytes) => script.input.extend_from_slice(bytes),
                What::Input(Input::Eof) => script.eof = true,
                What::Script(bytes) => script.said.last_mut()?.0.push(bytes.clone()),
                What::Input(Input::ScriptEof) => script.said.last_mut()?.1 = true,
                What::Tick | What::Clock(_) | What::Input(_) => return None,
                What::Open { answer: None, .. } | What::List { answer: None, .. } => return None,
                What::Find { answer: None, .. } | What::Spawn { answer: None, .. } => return None,
                What::Feed { taken: Some(_), .. }
                | What::Feed { then: FeedThen::Blocked | FeedThen::End | FeedThen::Full, .. } => {
                    return None;
                }
                What::Spool { answer } if *answer != Some(Ok(())) => return None,
                What::Spawn { answer: Some(Ok(())), .. } => {
                    script.said.push((Vec::new(), false));
                    script.answers.push(event.what.clone());
                }
                What::Find { .. } | What::Spawn { .. } => script.answers.push(event.what.clone()),
                What::Shut { blocked: true } | What::Close { blocked: true, .. } => return None,
                What::Open { .. } | What::List { .. } => script.answers.push(event.what.clone()),
                What::Send(sending) if sending.taken != Taken::default() || sending.elided.is_some() => {
                    return None;
                }
                _ => {}
            }
        }
        Some(script)
    }

    /// Replays it with the input cut before each of `cuts`, which must be ascending.
    ///
    /// # Panics
    /// If the connection neither waits nor closes, or stops reading forever.
    pub fn play(&self, cuts: &[usize], take: Take, policy: &dyn Policy, handler: &mut dyn Handler) -> Spoken {
        let now = Now::new(Tick(0), self.settings.wall);
        let cx = Context { config: &self.settings.config, policy, now: &now };
        let mut connection = Connection::new(self.settings.peer, &cx);
        let mut buf = Buffers::new();
        let mut answers: VecDeque<&What> = self.answers.iter().collect();
        let mut spoken = Spoken::default();
        let mut scripts = self.said.iter();
        let (mut said, mut script_eof): (&[Vec<u8>], bool) = (&[], false);
        let mut cuts = cuts.iter().copied().chain([self.input.len()]);
        let mut next = cuts.next();
        let (mut read, mut eof) = (0, self.eof);
        loop {
            let input = match connection.poll(&mut buf, &cx) {
                Step::Send(transmit) => {
                    let most = match take {
                        Take::All => u64::MAX,
                        Take::Bytes(n) | Take::Block(n) => n.max(1),
                    };
                    let n = spoken.append(transmit.head, transmit.body, transmit.tail, most);
                    if let Take::Block(_) = take {
                        connection.handle(Input::Sent(n));
                        Input::Blocked
                    } else {
                        Input::Sent(n)
                    }
                }
                Step::Act(_, Action::EndInput | Action::Kill | Action::Log { .. }) => continue,
                Step::Act(ticket, Action::Spool) => Input::Done(ticket, Completion::Spooled(Ok(()))),
                Step::Act(ticket, action) => {
                    let done = disk(action, &mut answers);
                    if done == Completion::Spawned(Ok(())) {
                        (said, script_eof) = scripts.next().map_or((&[][..], true), |(said, eof)| (said, *eof));
                    }
                    Input::Done(ticket, done)
                }
                Step::Finished(entry) => {
                    spoken.finished.push(Finish {
                        status: entry.status,
                        sent: entry.sent,
                        line: entry.line.to_vec(),
                        error: entry.error.map(<[u8]>::to_vec),
                        cut: entry.cut.map(str::to_owned),
                    });
                    continue;
                }
                Step::Call(call) => {
                    handler.drive(call, &mut connection.reply(&mut buf, &cx));
                    continue;
                }
                Step::Wait(wait) if wait.need.write => Input::Writable,
                // Scripts write after they have received their input.
                Step::Wait(wait) if wait.need.script_read && (!wait.need.read || read == self.input.len()) => {
                    match said.split_first() {
                        Some((piece, rest)) => {
                            assert_eq!(buf.script.fill(piece), piece.len(), "a piece is larger than the window");
                            said = rest;
                            continue;
                        }
                        None if std::mem::take(&mut script_eof) => Input::ScriptEof,
                        None if std::mem::take(&mut eof) => Input::Eof,
                        None => return spoken,
                    }
                }
                Step::Wait(wait) if wait.need.read => {
                    if wait.idle {
                        // Other connections may use the memory meanwhile, so only the resting state is kept.
                        buf = Buffers::new();
                        connection = connection.rest().map_or(connection, Resting::resume);
                    }
                    while next.is_some_and(|cut| cut <= read) {
                        next = cuts.next();
                    }
                    match next {
                        Some(cut) => {
                            read += buf.input.fill(&self.input[read..cut]);
                            continue;
                        }
                        None if std::mem::take(&mut eof) => Input::Eof,
                        None => return spoken,
                    }
                }
                Step::Wait(_) if std::mem::take(&mut eof) => Input::Eof,
                Step::Wait(_) => return spoken,
                Step::Probe(_) => Input::Probed,
                Step::Shut => continue,
                Step::Close(close) => {
                    spoken.close = Some(close);
                    return spoken;
                }
                Step::Feed(bytes) => Input::Fed(bytes.len() as u64),
            };
            connection.handle(input);
        }
    }

    /// The output according to the transcript, for comparison.
    #[must_use]
    pub fn told(transcript: &Transcript) -> Spoken {
        let mut spoken = Spoken::default();
        for event in transcript.events() {
            match &event.what {
                What::Send(sending) => {
                    let body = match &sending.body {
                        Middle::None => Body::None,
                        Middle::Bytes(bytes) => Body::Bytes(bytes),
                        Middle::File { offset, len } => Body::File { offset: *offset, len: *len },
                    };
                    spoken.append(&sending.head, body, &sending.tail, u64::MAX);
                }
                What::Finished(finish) => spoken.finished.push(finish.clone()),
                What::Close { close, .. } => spoken.close = Some(*close),
                _ => {}
            }
        }
        spoken
    }
}

/// The next result of an action.
fn disk(action: Action<'_>, answers: &mut VecDeque<&What>) -> Completion {
    match (action, answers.pop_front()) {
        (Action::List { into }, Some(What::List { entries, answer: Some(answer) })) => {
            for (name, kind) in entries {
                if !into.push(name, *kind) {
                    break;
                }
            }
            Completion::Listed(*answer)
        }
        (Action::List { .. }, _) => Completion::Listed(Ok(Listed::End)),
        (Action::Find { .. }, Some(What::Find { answer: Some(answer), .. })) => Completion::Found(*answer),
        (Action::Spawn(_), Some(What::Spawn { answer: Some(answer), .. })) => Completion::Spawned(*answer),
        (_, Some(What::Open { answer: Some(answer), .. })) => Completion::Opened(*answer),
        _ => Completion::Opened(Err(FsError::NotFound)),
    }
}

impl Spoken {
    /// Appends at most `most` bytes of a transmission, and returns how many.
    fn append(&mut self, head: &[u8], body: Body<'_>, tail: &[u8], most: u64) -> u64 {
        let before = self.bytes.len();
        let left = |spoken: &Spoken| usize::try_from(most).unwrap_or(usize::MAX) - (spoken.bytes.len() - before);
        let n = left(self).min(head.len());
        self.bytes.extend_from_slice(&head[..n]);
        match body {
            Body::None => {}
            Body::Bytes(bytes) => {
                let n = left(self).min(bytes.len());
                self.bytes.extend_from_slice(&bytes[..n]);
            }
            Body::File { offset, len } => {
                let n = len.min(left(self) as u64);
                self.bytes.extend((offset..offset + n).map(|at| (at % 251) as u8));
            }
        }
        let n = left(self).min(tail.len());
        self.bytes.extend_from_slice(&tail[..n]);
        (self.bytes.len() - before) as u64
    }
}

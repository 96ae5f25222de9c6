//! How a connection stands, for those who show it: a page for teaching, a test, a log of what went wrong.
//!
//! Nothing decides by it. It leaves out what moves from step to step, which is the subject of transcripts
//! (`sanserve_transcript::trace`).

use super::{Connection, Life};
use crate::buffers::Buffers;
use crate::context::Context;
use crate::exchange::Then;
use crate::status::StatusCode;
use crate::task::Task;
use crate::timer::Timer;
use crate::wire::Move;

/// How a connection stands. Names are fixed words, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// What comes from the peer: a state of [`INBOUND`](crate::INBOUND).
    pub inbound: &'static str,
    /// What goes to the peer: a state of [`OUTBOUND`](crate::OUTBOUND).
    pub outbound: &'static str,
    /// What answers the request: `none`, `files`, `script` or `handler`.
    pub task: &'static str,
    /// How far that has come, in a few words; empty where there is nothing to say.
    pub stage: &'static str,
    /// The connection as a whole: `open`, `ending`, `shut`, `lingering`, or `closed`.
    pub life: &'static str,
    /// The clocks that run.
    pub timers: Vec<Timer>,
    /// Bytes of the peer that were read and not yet used. The head of the current request is not among them.
    pub unread: usize,
    /// Bytes of the answer that are named or formatted, and that the driver has not been seen to take.
    pub unsent: u64,
    /// Bytes of a script that were read and are not yet passed on.
    pub unheard: usize,
    /// The status of the answer, once its head is written.
    pub status: Option<u16>,
    /// Whether the connection may go on after the current exchange; `None` if there is none.
    pub keep_alive: Option<bool>,
    /// The socket takes no more for now.
    pub blocked: bool,
    /// The peer has half-closed.
    pub eof: bool,
    /// The server goes down.
    pub draining: bool,
}

impl Connection {
    /// How the connection stands. `buf` is its own; it is empty where the connection is idle.
    #[must_use]
    pub fn state(&self, buf: &Buffers, cx: &Context<'_>) -> State {
        let (task, stage) = match &self.task {
            Task::None => ("none", ""),
            Task::Files(files) => ("files", files.stage()),
            Task::Cgi(cgi) => ("script", cgi.stage()),
            Task::Handler(handler) => ("handler", handler.stage()),
        };
        let of_script = buf.script.unread().len();
        let relayed = (self.relay.left as usize).min(of_script);
        let formatted = buf.output.unsent().len() + relayed + usize::from(self.relay.tail);
        State {
            inbound: self.cycle.inbound.name(),
            outbound: self.cycle.outbound.name(),
            task,
            stage,
            life: self.life.name(),
            timers: self.timers(buf, cx),
            unread: buf.input.unread().len(),
            unsent: (formatted as u64 + self.file.left).saturating_sub(self.sent),
            unheard: of_script - relayed,
            status: self.exchange.answer.status().map(StatusCode::code),
            keep_alive: self.exchange.is_open().then_some(self.exchange.then == Then::KeepAlive),
            blocked: self.notes.blocked,
            eof: self.notes.eof,
            draining: self.notes.is_draining(),
        }
    }

    /// The moves of both halves since this was last asked, in order: the last eight, which is more than there are
    /// between two steps.
    pub fn take_moves(&mut self) -> Vec<Move> {
        self.cycle.take_moves()
    }

    /// The clocks whose deadlines `poll` obeys.
    fn timers(&self, buf: &Buffers, cx: &Context<'_>) -> Vec<Timer> {
        let timeouts = &cx.config.timeouts;
        let mut timers = self.awaited.timers(timeouts, self.notes.is_draining());
        if let (true, Some(stalled)) = (self.notes.blocked, &self.stalled) {
            timers.extend(stalled.timers("write-silence", "write-rate", &timeouts.write));
        }
        if let (Task::Cgi(cgi), Life::Open) = (&self.task, self.life) {
            timers.extend(cgi.timers(self.may_be_gone(buf), cx));
        }
        timers
    }
}

impl Life {
    fn name(self) -> &'static str {
        match self {
            Life::Open => "open",
            Life::Ending(_) | Life::Parting => "ending",
            Life::Shut => "shut",
            Life::Lingering => "lingering",
            Life::Close(_) => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::date::Now;
    use crate::input::Input;
    use crate::peer::Peer;
    use crate::policy::DefaultPolicy;
    use crate::step::Step;
    use crate::time::{Tick, Wall};

    /// Every clock that is shown is one that the wait is for, and the nearest is its deadline.
    #[test]
    fn the_nearest_timer_is_the_deadline_of_the_wait() {
        let (config, mut now) = (Config::default(), Now::new(Tick(0), Wall(784_111_777)));
        let mut buf = Buffers::new();
        let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
        let mut connection = Connection::new(Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000))), &cx);
        let mut rules = Vec::new();
        for (at, bytes) in [(0, ""), (5, "GET /"), (7, " HTTP/1.1\r\nHost: a\r\nX y\r\n"), (9, "\r\n")] {
            now = Now::new(Tick(at), Wall(784_111_777));
            let cx = Context { config: &config, policy: &DefaultPolicy, now: &now };
            buf.input.fill(bytes.as_bytes());
            loop {
                match connection.poll(&mut buf, &cx) {
                    Step::Send(transmit) => {
                        let n = transmit.len();
                        assert_eq!(connection.state(&buf, &cx).unsent, n);
                        connection.handle(Input::Sent(n));
                    }
                    Step::Wait(wait) => {
                        let state = connection.state(&buf, &cx);
                        assert_eq!(state.timers.iter().map(|timer| timer.deadline).min(), wait.deadline);
                        assert!(state.timers.iter().all(|timer| timer.since <= now.tick));
                        rules.extend(state.timers.iter().map(|timer| timer.rule));
                        break;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(rules, ["keep-alive", "head", "head", "linger-silence", "linger"]);
    }
}

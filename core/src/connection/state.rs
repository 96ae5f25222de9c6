//! The state of a connection, for display: on a page for teaching, in a test, or in an error report.
//!
//! No decision depends on it. The transitions between steps are the subject of transcripts
//! (`sanserve_transcript::trace`).

use super::{Connection, Life};
use crate::buffers::Buffers;
use crate::context::Context;
use crate::exchange::Then;
use crate::status::StatusCode;
use crate::task::Task;
use crate::timer::Timer;
use crate::wire::Move;

/// The state of a connection. The names are fixed, and suitable for display.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// The inbound half: a state of [`INBOUND`](crate::INBOUND).
    pub inbound: &'static str,
    /// The outbound half: a state of [`OUTBOUND`](crate::OUTBOUND).
    pub outbound: &'static str,
    /// What responds to the request: `none`, `files`, `script` or `handler`.
    pub task: &'static str,
    /// The stage of the task, in a few words; may be empty.
    pub stage: &'static str,
    /// The connection as a whole: `open`, `ending`, `shut`, `lingering`, or `closed`.
    pub life: &'static str,
    /// The running timers.
    pub timers: Vec<Timer>,
    /// The number of bytes from the client that were read and not used yet, without the head of the current request.
    pub unread: usize,
    /// The number of bytes of the response that the driver has not accepted yet.
    pub unsent: u64,
    /// The number of bytes from a script that were read and not relayed yet.
    pub unheard: usize,
    /// The status of the response, once its head is written.
    pub status: Option<u16>,
    /// Whether the connection may continue after the current exchange; `None` if there is none.
    pub keep_alive: Option<bool>,
    /// Whether the socket is full.
    pub blocked: bool,
    /// Whether the client has half-closed.
    pub eof: bool,
    /// Whether the server is shutting down.
    pub draining: bool,
}

impl Connection {
    /// The state of the connection. `buf` are its buffers, which are empty if the connection is idle.
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

    /// The transitions of both halves since the last call, in order; at most the last eight, which is more than occur
    /// between two steps.
    pub fn take_moves(&mut self) -> Vec<Move> {
        self.cycle.take_moves()
    }

    /// The timers whose deadlines `poll` applies.
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

    /// The wait depends on every timer that is shown, and its deadline is the nearest one.
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

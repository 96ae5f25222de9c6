//! One turn of one connection.

use std::cell::OnceCell;
use std::sync::Arc;
use std::task::Waker;

use mio::Registry;
use rustix::fd::AsFd;
use sanserve_core::{Fault, Input};
use sanserve_server::{Budget, Env, Frontend, ScriptFds, Turn};

use crate::parked::{Busy, Flags, Parked, State};
use crate::script::Watch;
use crate::waker::{ExchangeWaker, LoopWaker};

/// Steps a turn may take before others have theirs; far more than a request needs.
const TURN_STEPS: u32 = 128;
/// Bytes a turn may send before others have theirs.
const TURN_BYTES: u64 = 2 << 20;

/// What a turn takes of its event loop.
pub(crate) struct Loop<'l> {
    /// Where the loop is told what to wait for.
    pub(crate) registry: &'l Registry,
    /// What wakers ring.
    pub(crate) loop_waker: &'l Arc<LoopWaker>,
    /// The number of the connection.
    pub(crate) at: u32,
    /// Nobody else waits for a turn.
    pub(crate) alone: bool,
}

/// What an exchange has of the event loop.
struct Attached<'a> {
    script: &'a mut Watch,
    conn_waker: &'a mut OnceCell<ExchangeWaker>,
    registry: &'a Registry,
}

impl Frontend for Attached<'_> {
    fn end_script(&mut self, fds: Option<ScriptFds<'_>>) {
        self.script.end(fds, self.registry);
    }

    fn finished(&mut self, _status: u16) -> bool {
        drop(self.conn_waker.take());
        false
    }
}

impl Parked {
    /// Goes on until the connection waits, closes, or has had its share.
    pub(crate) fn turn(&mut self, event_loop: &Loop<'_>, env: &mut Env<'_>) -> Turn {
        let Parked { socket, transport, state: State::Busy(busy), handler, flags, .. } = self else {
            return Turn::Yield;
        };
        let Busy { session, conn_waker, space, script } = &mut **busy;
        let &Loop { registry, loop_waker, at, alone } = event_loop;
        let io = &mut transport.over(socket.as_fd());
        if flags.take(Flags::BROKEN) {
            session.broken(Fault::Peer, io, env.site.draining());
        }
        if flags.take(Flags::WOKEN) {
            session.connection.handle(Input::Wake);
        }
        if flags.take(Flags::LEAVES) {
            session.connection.handle(Input::Cut);
        }
        session.tell(space, env.site.draining());
        let mut budget = Budget { steps: TURN_STEPS, bytes: TURN_BYTES, scripts_are_slow: !alone };
        loop {
            let mut attached = Attached { script, conn_waker, registry };
            match session.turn(space, io, &mut attached, env, &mut budget) {
                Turn::Call(call) => {
                    let waker =
                        || Waker::from(Arc::clone(conn_waker.get_or_init(|| ExchangeWaker::new(loop_waker, at))));
                    session.call(call, handler, &waker, space, env);
                }
                Turn::Wait(wait) if script.wait(wait.need, at, space.slot.script(), registry).is_err() => {
                    // The loop cannot hear of it: its time would pass without a word.
                    session.connection.handle(Input::Broken(Fault::Handler));
                }
                turn => return turn,
            }
        }
    }
}

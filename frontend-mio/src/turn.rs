//! One turn of one connection.

use std::cell::OnceCell;
use std::sync::Arc;
use std::task::Waker;

use mio::Registry;
use rustix::fd::AsFd;
use sanserve_core::{Fault, Input};
use sanserve_server::{Budget, Env, Frontend, ScriptFds, Turn};

use crate::parked::{Flags, Parked, State};
use crate::pool::Busy;
use crate::script::Watch;
use crate::waker::{ExchangeWaker, LoopWaker};

/// The parts of the event loop that a turn uses.
pub(crate) struct Loop<'l> {
    /// For registering what to wait for.
    pub(crate) registry: &'l Registry,
    /// Interrupts the loop when a waker is used.
    pub(crate) loop_waker: &'l Arc<LoopWaker>,
    /// The number of the connection.
    pub(crate) at: u32,
}

/// The parts of the event loop that an exchange uses.
struct Attached<'a> {
    script: &'a mut Watch,
    conn_waker: &'a mut OnceCell<ExchangeWaker>,
    disk_waker: &'a mut OnceCell<ExchangeWaker>,
    registry: &'a Registry,
}

impl Frontend for Attached<'_> {
    fn end_script(&mut self, fds: Option<ScriptFds<'_>>) {
        self.script.end(fds, self.registry);
    }

    fn finished(&mut self, _status: u16) -> bool {
        drop(self.conn_waker.take());
        drop(self.disk_waker.take());
        false
    }
}

impl Parked {
    /// Runs until the connection waits, closes, or has used its share.
    pub(crate) fn turn(&mut self, event_loop: &Loop<'_>, env: &mut Env<'_>, budget: &mut Budget) -> Turn {
        let Parked { socket, transport, state: State::Busy(busy), handler, flags, .. } = self else {
            return Turn::Yield;
        };
        let Busy { session, conn_waker, disk_waker, space, script } = &mut **busy;
        let &Loop { registry, loop_waker, at } = event_loop;
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
        session.follow_phase(space, env.site.draining());
        loop {
            let mut attached = Attached { script, conn_waker, disk_waker, registry };
            match session.turn(space, io, &mut attached, env, budget) {
                Turn::Call(call) => {
                    let waker = || waker(conn_waker, loop_waker, at);
                    session.call(call, handler, &waker, space, env);
                }
                Turn::Wait(wait) if script.wait(wait.need, at, space.slot.script(), registry).is_err() => {
                    // The loop would get no events from it, and its time would pass unnoticed.
                    session.connection.handle(Input::Broken(Fault::Handler));
                }
                // If the disk has responded already, the turn continues.
                Turn::Wait(wait)
                    if wait.need.completion && space.slot.wake_when_done(&waker(disk_waker, loop_waker, at)) => {}
                turn => return turn,
            }
        }
    }
}

/// Wakes the connection with this number, for the exchange in progress.
fn waker(own: &OnceCell<ExchangeWaker>, loop_waker: &Arc<LoopWaker>, at: u32) -> Waker {
    Waker::from(Arc::clone(own.get_or_init(|| ExchangeWaker::new(loop_waker, at))))
}

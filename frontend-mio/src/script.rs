//! The script of a connection, as the event loop watches it: up to three more descriptors beside the
//! socket, edge-triggered like it.

use std::io;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::{AsRawFd, BorrowedFd};
use sanserve_core::Need;
use sanserve_server::{ScriptFds, Session};

/// Which of a connection's descriptors an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Socket,
    /// The script's output, or its exit, which ends its output.
    Output,
    /// The script's input.
    Input,
}

impl Role {
    const ALL: [Role; 3] = [Role::Socket, Role::Output, Role::Input];
    const BITS: u32 = 2;

    /// The token of this descriptor of the connection `at`.
    pub(crate) fn token(self, at: u32) -> Token {
        Token((at as usize) << Role::BITS | self as usize)
    }

    /// What a token stands for.
    pub(crate) fn of(token: Token) -> Option<(u32, Role)> {
        let role = *Role::ALL.get(token.0 & ((1 << Role::BITS) - 1))?;
        Some((u32::try_from(token.0 >> Role::BITS).ok()?, role))
    }
}

/// What is known of a script's pipes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// Its descriptors are known to the loop. When they are closed, the system forgets them by itself.
    registered: bool,
    /// The connection waits for its output.
    pub(crate) needs_output: bool,
    /// The connection waits for it to take more.
    pub(crate) needs_input: bool,
}

impl Watch {
    /// Tells the session of an event; whether the connection waits for it.
    pub(crate) fn became_ready(&self, role: Role, event: &Event, session: &mut Session) -> bool {
        let output = role == Role::Output && (event.is_readable() || event.is_read_closed() || event.is_error());
        let input = role == Role::Input && (event.is_writable() || event.is_write_closed() || event.is_error());
        session.script_became_ready(output, input);
        (output && self.needs_output) || (input && self.needs_input)
    }

    /// Sees to it that the loop hears of the script that the connection waits for.
    pub(crate) fn wait(
        &mut self,
        need: Need,
        at: u32,
        fds: Option<ScriptFds<'_>>,
        registry: &Registry,
    ) -> io::Result<()> {
        self.needs_output = need.script_read;
        self.needs_input = need.script_write;
        if self.registered || !(need.script_read || need.script_write) {
            return Ok(());
        }
        let Some(ScriptFds { output, input, exit }) = fds else { return Ok(()) };
        let register = |fd: Option<BorrowedFd<'_>>, role: Role, interest| match fd {
            Some(fd) => registry.register(&mut SourceFd(&fd.as_raw_fd()), role.token(at), interest),
            None => Ok(()),
        };
        register(output, Role::Output, Interest::READABLE)?;
        register(exit, Role::Output, Interest::READABLE)?;
        register(input, Role::Input, Interest::WRITABLE)?;
        self.registered = true;
        Ok(())
    }

    /// The connection is done with the script. Its output may stay open, for others to read.
    pub(crate) fn end(&mut self, fds: Option<ScriptFds<'_>>, registry: &Registry) {
        let output = fds.and_then(|fds| fds.output).filter(|_| self.registered);
        if let Some(output) = output {
            // It was registered, so what could fail is that it is gone.
            let _ = registry.deregister(&mut SourceFd(&output.as_raw_fd()));
        }
        *self = Watch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_what_they_were_made_of() {
        for at in [0, 1, 63, 1_000_000, u32::MAX >> Role::BITS] {
            for role in Role::ALL {
                assert_eq!(Role::of(role.token(at)), Some((at, role)));
            }
        }
        assert_eq!(Role::of(Token(3)), None);
    }
}

//! Watching the script of a connection: up to three descriptors in addition to the socket, edge-triggered like the
//! socket.

use std::io;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::{AsRawFd, BorrowedFd};
use sanserve_core::Need;
use sanserve_server::{ScriptFds, Session};

/// The descriptor of a connection that an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Socket,
    /// The script's output, or its exit, which ends the output.
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

    /// The connection and descriptor of a token.
    pub(crate) fn of(token: Token) -> Option<(u32, Role)> {
        let role = *Role::ALL.get(token.0 & ((1 << Role::BITS) - 1))?;
        Some((u32::try_from(token.0 >> Role::BITS).ok()?, role))
    }
}

/// The state of a script's pipes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// The descriptors are registered. The system removes the registration when they are closed.
    registered: bool,
    /// The connection waits for output.
    pub(crate) needs_output: bool,
    /// The connection waits until the script accepts more input.
    pub(crate) needs_input: bool,
}

impl Watch {
    /// Passes an event to the session. Returns whether the connection waits for it.
    pub(crate) fn became_ready(&self, role: Role, event: &Event, session: &mut Session) -> bool {
        let output = role == Role::Output && (event.is_readable() || event.is_read_closed() || event.is_error());
        let input = role == Role::Input && (event.is_writable() || event.is_write_closed() || event.is_error());
        session.script_became_ready(output, input);
        (output && self.needs_output) || (input && self.needs_input)
    }

    /// Ensures that the loop receives the events of the script that the connection waits for.
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

    /// Ends the watch of the script. Its output may stay open for other readers.
    pub(crate) fn end(&mut self, fds: Option<ScriptFds<'_>>, registry: &Registry) {
        let output = fds.and_then(|fds| fds.output).filter(|_| self.registered);
        if let Some(output) = output {
            // It was registered, so this only fails if the registration is gone.
            let _ = registry.deregister(&mut SourceFd(&output.as_raw_fd()));
        }
        *self = Watch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_decoded_to_what_they_were_made_of() {
        for at in [0, 1, 63, 1_000_000, u32::MAX >> Role::BITS] {
            for role in Role::ALL {
                assert_eq!(Role::of(role.token(at)), Some((at, role)));
            }
        }
        assert_eq!(Role::of(Token(3)), None);
    }
}

//! The signals that a server handles, for a thread that waits for them. How the server reacts is decided by the
//! command.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// A signal that a server handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`, from a keyboard.
    Interrupt,
    /// `SIGTERM`, from a service manager.
    Terminate,
    /// `SIGQUIT`, from a keyboard, or to stop gracefully, as in nginx.
    Quit,
    /// `SIGHUP`: the configuration has changed.
    Hangup,
    /// `SIGUSR1`: the log files were renamed.
    User1,
    /// `SIGUSR2`.
    User2,
}

/// Catches `SIGINT`, `SIGTERM`, `SIGQUIT`, `SIGHUP`, `SIGUSR1` and `SIGUSR2` for the whole process, for as long as it lives.
#[derive(Debug)]
pub struct Signals {
    caught: signal_hook::iterator::Signals,
    /// Signals that were caught together with one that was already returned.
    next: VecDeque<c_int>,
}

impl Signals {
    /// Begins to catch the signals.
    ///
    /// # Errors
    /// If the system is out of descriptors.
    pub fn new() -> io::Result<Signals> {
        let caught = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])?;
        Ok(Signals { caught, next: VecDeque::new() })
    }

    /// Blocks until a signal arrives.
    pub fn wait(&mut self) -> Signal {
        loop {
            match self.next.pop_front() {
                Some(SIGTERM) => return Signal::Terminate,
                Some(SIGQUIT) => return Signal::Quit,
                Some(SIGHUP) => return Signal::Hangup,
                Some(SIGUSR1) => return Signal::User1,
                Some(SIGUSR2) => return Signal::User2,
                Some(_) => return Signal::Interrupt,
                None => self.next.extend(self.caught.wait()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    #[test]
    fn each_signal_is_returned() {
        let mut signals = Signals::new().unwrap();
        kill_process(getpid(), Number::TERM).unwrap();
        assert_eq!(signals.wait(), Signal::Terminate);
        kill_process(getpid(), Number::INT).unwrap();
        assert_eq!(signals.wait(), Signal::Interrupt);
        for (number, signal) in [
            (Number::QUIT, Signal::Quit),
            (Number::HUP, Signal::Hangup),
            (Number::USR1, Signal::User1),
            (Number::USR2, Signal::User2),
        ] {
            kill_process(getpid(), number).unwrap();
            assert_eq!(signals.wait(), signal);
        }
        kill_process(getpid(), Number::INT).unwrap();
        kill_process(getpid(), Number::TERM).unwrap();
        let both = [signals.wait(), signals.wait()];
        assert!(both.contains(&Signal::Interrupt) && both.contains(&Signal::Terminate), "{both:?}");
    }
}

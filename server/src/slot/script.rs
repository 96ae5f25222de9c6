//! The script of a slot: feeding it, reading from it, releasing it.
//!
//! Releasing a script closes its pipes. Its process is then the task of the server's [`Scripts`].

use rustix::io::Errno;
use sanserve_core::{FsError, Input, Window};

use super::Slot;
use crate::log::Log;
use crate::script::{Scripts, Spool};
use crate::script_io::{ScriptFds, ScriptRead};
use sanserve_os::fs_error;

impl Slot {
    /// Reads once from the script's output. Call this when `output` or `exit` of [`Slot::script`] is readable and the
    /// connection needs `script_read`, so that `window`, its `Buffers::script`, has room.
    pub fn read_script(&mut self, window: &mut Window) -> ScriptRead {
        self.script.as_mut().map_or(ScriptRead::End, |script| script.read(window))
    }

    /// The descriptors of the running script, if there is one.
    #[must_use]
    pub fn script(&self) -> Option<ScriptFds<'_>> {
        self.script.as_ref().map(|script| script.fds())
    }

    /// Whether no output of a script will arrive any more: it has ended, or there is no script.
    pub(crate) fn is_script_over(&self) -> bool {
        self.script().is_none_or(|script| script.output.is_none())
    }

    pub(super) fn open_spool(&mut self, scripts: &Scripts, log: &Log) -> Result<(), FsError> {
        let spool = scripts.spool().map_err(|error| {
            log.error(format_args!("a request body cannot be kept for a CGI script: {error}"));
            match Errno::from_io_error(&error).map(fs_error) {
                Some(FsError::Exhausted) => FsError::Exhausted,
                // An error of a temporary file, such as a permission, is no error of the request.
                _ => FsError::Failed,
            }
        })?;
        self.spool = Some(spool);
        Ok(())
    }

    /// Releases the previous script, and returns the input of the next one.
    pub(super) fn let_script_go(&mut self) -> Option<Spool> {
        self.script = None;
        self.spool.take()
    }

    pub(super) fn end_input(&mut self) {
        if let Some(script) = &mut self.script {
            script.end_input();
        }
    }

    pub(super) fn kill_script(&self, scripts: &Scripts) {
        if let Some(script) = &self.script {
            scripts.kill(script);
        }
    }

    /// Writes to the spool, or without one to the script.
    pub(super) fn feed(&mut self, bytes: &[u8], scripts: &Scripts, log: &Log) -> Input {
        let Some(spool) = &mut self.spool else {
            return self.script.as_mut().map_or(Input::FeedEnd, |script| script.feed(bytes));
        };
        match scripts.write_spool(spool, bytes) {
            Some(Ok(n)) => Input::Fed(n as u64),
            None => Input::SpoolFull,
            Some(Err(error)) => {
                log.error(format_args!("a request body cannot be kept for a CGI script: {error}"));
                Input::FeedEnd
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::fd::AsFd;
    use sanserve_core::Buffers;
    use sanserve_core::{
        Action, Completion, DefaultPolicy, Entry, Found, Peer, ScriptFile, ScriptInput, Step, Ticket, Wall,
    };

    use super::*;
    use crate::cache::{CacheLimits, Local};
    use crate::script::tests::{Bench, output, until};
    use crate::slot::SlotEnv;
    use crate::transport::Transport;
    use sanserve_os::{Root, Symlinks};

    /// Carries out one step.
    fn step(slot: &mut Slot, bench: &Bench, step: Step<'_>) -> Option<Input> {
        let root = Root::open(bench.dir.path(), Symlinks::Follow).unwrap();
        let files = Local::new(root.into(), CacheLimits::default());
        let mut log = bench.log.logger();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let mut env = SlotEnv {
            files: &files,
            io: None,
            scripts: &bench.scripts,
            policy: &DefaultPolicy,
            log: &mut log,
            wall: Wall(0),
            most: u64::MAX,
        };
        slot.carry_out(step, &mut Transport::edge_triggered().over(socket.as_fd()), &mut env)
    }

    fn act(slot: &mut Slot, bench: &Bench, action: Action<'_>) -> Option<Completion> {
        step(slot, bench, Step::Act(Ticket::default(), action)).map(|input| match input {
            Input::Done(_, completion) => completion,
            other => panic!("{other:?}"),
        })
    }

    fn finished() -> Step<'static> {
        let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 9)));
        Step::Finished(Entry::new(peer, b""))
    }

    #[test]
    fn finds_beneath_the_root() {
        let (mut slot, bench) = (Slot::new(), Bench::new());
        output(&mut bench.sh("", ScriptInput::Empty));
        let found = act(&mut slot, &bench, Action::Find { path: b"cgi-bin/x/more", from: 8 });
        assert_eq!(found, Some(Completion::Found(Ok(Found { len: 9, what: ScriptFile::Runnable }))));
        assert!(slot.is_empty());
    }

    #[test]
    fn a_spool_is_the_input_of_the_next_script() {
        let (mut slot, bench) = (Slot::new(), Bench::new());
        assert_eq!(step(&mut slot, &bench, Step::Feed(b"x")), Some(Input::FeedEnd), "there is nothing to feed");
        // An earlier script does not get it.
        slot.script = Some(bench.sh("cat", ScriptInput::Piped));
        assert_eq!(act(&mut slot, &bench, Action::Spool), Some(Completion::Spooled(Ok(()))));
        assert!(!slot.is_empty());
        assert_eq!(step(&mut slot, &bench, Step::Feed(b"one ")), Some(Input::Fed(4)));
        assert_eq!(step(&mut slot, &bench, Step::Feed(b"two")), Some(Input::Fed(3)));
        let spool = slot.let_script_go();
        assert!(slot.is_empty());
        assert_eq!(output(&mut bench.spooled("cat; cat", spool).unwrap()), "one two");
        assert_eq!(act(&mut slot, &bench, Action::Spool), Some(Completion::Spooled(Ok(()))));
        assert_eq!(step(&mut slot, &bench, finished()), None);
        assert!(slot.is_empty());
    }

    #[test]
    fn a_script_is_fed_read_and_released() {
        let (mut slot, bench) = (Slot::new(), Bench::new());
        let mut buf = Buffers::new();
        assert!(slot.script().is_none());
        assert_eq!(slot.read_script(&mut buf.script), ScriptRead::End);
        slot.script = Some(bench.sh("cat", ScriptInput::Piped));
        assert!(!slot.is_empty());
        assert_eq!(slot.read_script(&mut buf.script), ScriptRead::Blocked);
        assert_eq!(step(&mut slot, &bench, Step::Feed(b"abc")), Some(Input::Fed(3)));
        until("the output arrives", || slot.read_script(&mut buf.script) == ScriptRead::Bytes(3));
        assert_eq!(buf.script.unread(), b"abc");
        let all = |slot: &Slot| slot.script().map(|fds| [fds.output, fds.input, fds.exit].map(|fd| fd.is_some()));
        assert_eq!(all(&slot), Some([true; 3]));
        assert_eq!(act(&mut slot, &bench, Action::EndInput), None);
        assert_eq!(all(&slot), Some([true, false, true]));
        until("the end", || slot.read_script(&mut buf.script) == ScriptRead::End);
        assert_eq!(all(&slot), Some([false; 3]));
        assert_eq!(step(&mut slot, &bench, finished()), None);
        assert!(slot.is_empty() && slot.script().is_none());
        assert_eq!(act(&mut slot, &bench, Action::EndInput), None);
        assert_eq!(act(&mut slot, &bench, Action::Kill), None);
    }

    #[test]
    fn a_released_script_keeps_running_and_a_killed_one_does_not() {
        let (mut slot, bench) = (Slot::new(), Bench::new());
        slot.script = Some(bench.sh("exec sleep 1000", ScriptInput::Empty));
        // Opening a file, as after a local redirect, does not release the script.
        assert!(act(&mut slot, &bench, Action::Open { path: b"" }).is_some());
        assert!(slot.script().is_some());
        assert_eq!(act(&mut slot, &bench, Action::Kill), None);
        until("the script has ended", || bench.scripts.alive() == 0);
        slot.clear();
        assert!(slot.is_empty());
        slot.script = Some(bench.sh("cat; exec sleep 1000", ScriptInput::Piped));
        slot.clear();
        assert!(slot.is_empty());
        assert_eq!(bench.scripts.alive(), 1);
    }
}

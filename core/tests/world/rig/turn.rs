//! Runs one turn of a connection: carries out its steps, and checks each of them.

use sanserve_core::{Action, Buffers, Context, Handler, Input, Step, Wait};

use super::super::handlers::Routed;
use super::super::millis;
use super::{Asked, At, Done, Node, Outgoing, Rig, Served};

/// More steps than any turn takes without sending or waiting.
const MAX_STEPS: usize = 12;

impl Rig {
    /// Polls until there is something to send, to wait for, or the end; carries out the steps before.
    pub fn turn(&mut self) {
        for _ in 0..MAX_STEPS {
            if self.step() {
                self.hops.turned();
                return;
            }
        }
        panic!("{MAX_STEPS} steps without an end of the turn: {:?}", self.connection);
    }

    /// Polls once. Returns `true` if the turn ends here.
    fn step(&mut self) -> bool {
        let was_closed = matches!(self.at, At::Close(_));
        let entries = self.directory.is_some().then(|| self.entries());
        let Rig { connection, buf, config, now, .. } = self;
        let cx = Context { config, policy: &Routed, now };
        let step = connection.poll(buf, &cx);
        assert!(!was_closed || matches!(step, Step::Close(_)), "after Close: {step:?}");
        match step {
            Step::Send(transmit) => {
                assert!(!self.shut, "a Send after Shut");
                self.outgoing = Outgoing::of(&transmit);
                assert!(
                    self.outgoing.file.is_none() || self.reading != Some(true),
                    "a Send while the file is being read"
                );
                self.reading = Some(false);
                self.unsent = self.outgoing.len();
                if let Step::Send(again) = self.connection.poll(&mut self.buf, &cx) {
                    assert_eq!(Outgoing::of(&again), self.outgoing, "Send does not repeat");
                } else {
                    panic!("Send does not repeat");
                }
                if let Some((offset, len)) = self.outgoing.file {
                    let (file, _) = self.held.as_ref().expect("a file to send is held");
                    assert!(offset + len <= file.len, "beyond the end of the file");
                }
                let most = self.config.limits.output + self.config.limits.head * 8 + 8_192;
                assert!(self.outgoing.head.len() < most, "{} bytes of output", self.outgoing.head.len());
                self.at = At::Send;
                return true;
            }
            Step::Feed(bytes) => {
                self.hops.feed(bytes, self.finished.len());
                match self.connection.poll(&mut self.buf, &cx) {
                    Step::Feed(again) => assert_eq!(again, self.hops.current().offered, "Feed does not repeat"),
                    step => panic!("Feed does not repeat: {step:?}"),
                }
                self.at = At::Feed;
                return true;
            }
            Step::Act(ticket, action) => {
                assert!(self.asked.is_none(), "an action while another one is in progress");
                let asked = match action {
                    Action::Find { path, from } => {
                        self.hops.begin(self.finished.len(), path, from, config);
                        Asked::Find
                    }
                    Action::Spool => {
                        self.hops.spool(self.finished.len());
                        Asked::Spool
                    }
                    Action::Spawn(script) => {
                        let time = (config.timeouts.script(), config.timeouts.script_grace());
                        assert_eq!((script.time, script.grace), time);
                        self.hops.spawn(&script.into(), &self.got, self.finished.len(), config);
                        Asked::Spawn
                    }
                    Action::EndInput => {
                        self.hops.end_input(&self.got, self.finished.len(), config);
                        return false;
                    }
                    Action::Log { lines } => {
                        assert!(
                            lines.ends_with(b"\n") && lines.len() <= 17 * 6 * 256,
                            "remarks: {}",
                            lines.escape_ascii()
                        );
                        return false;
                    }
                    Action::Kill => {
                        self.hops.kill(self.finished.len());
                        return false;
                    }
                    Action::Open { path } => {
                        check_path(path);
                        let is_script = |dir: &String| path.starts_with(&[&dir.as_bytes()[1..], b"/"].concat());
                        assert!(!config.cgi.directories.iter().any(is_script), "a script's source");
                        Asked::Open(path.to_vec())
                    }
                    Action::OpenIn { path } => {
                        check_path(path);
                        assert!(entries.is_some(), "OpenIn without a directory");
                        let held = self.directory.as_deref().unwrap_or_default();
                        assert!(
                            !config.cgi.directories.iter().any(|dir| dir.as_bytes()[1..] == *held),
                            "a script's source"
                        );
                        Asked::OpenIn(path.to_vec())
                    }
                    Action::List { into } => {
                        let entries = entries.expect("List without a directory");
                        // Two entries in a batch.
                        for (name, kind) in entries.iter().skip(self.listed).take(2) {
                            if !into.push(name, *kind) {
                                break;
                            }
                            let Some(Served { node: Node::Directory(rows), .. }) = self.served.last_mut() else {
                                panic!("List without a directory");
                            };
                            rows.push((name.clone(), *kind));
                        }
                        self.listed += 2;
                        Asked::List
                    }
                };
                self.asked = Some((ticket, asked));
            }
            Step::Call(call) => {
                let mut reply = connection.reply(buf, &cx);
                self.handler.drive(call, &mut reply);
            }
            Step::Finished(entry) => {
                assert!(!self.handler.open, "finished, but the handler was not called with Over");
                let done = Done {
                    line: entry.line.to_vec(),
                    status: entry.status,
                    sent: entry.sent,
                    error: entry.error.is_some(),
                    cut: entry.cut.map(str::to_owned),
                };
                self.hops.finish(&done, self.finished.len(), &self.got, config, now.tick.0);
                self.unsent = 0;
                self.finished.push(done);
                self.held = None;
                self.directory = None;
                self.reading = Some(false);
                if let Some((ticket, _)) = self.asked.take() {
                    self.spent = Some(ticket);
                }
            }
            Step::Probe(window) => {
                assert!(!window.spare().is_empty(), "a probe without room");
                match self.connection.poll(&mut self.buf, &cx) {
                    Step::Probe(_) => {}
                    step => panic!("Probe does not repeat: {step:?}"),
                }
                self.input(Input::Probed);
            }
            Step::Wait(wait) => {
                self.check_wait(wait);
                self.at = At::Wait(wait);
                return true;
            }
            Step::Shut => {
                if std::mem::take(&mut self.holds) {
                    self.input(Input::Blocked);
                } else {
                    assert!(!self.shut, "Shut twice");
                    self.shut = true;
                }
            }
            Step::Close(close) => {
                if std::mem::take(&mut self.holds) && !was_closed {
                    self.input(Input::Blocked);
                    return false;
                }
                assert!(self.asked.is_none() && !self.handler.open, "Close in the middle of an exchange");
                self.at = At::Close(close);
                return true;
            }
        }
        false
    }

    fn check_wait(&mut self, wait: Wait) {
        let cx = Context { config: &self.config, policy: &Routed, now: &self.now };
        if wait.idle {
            assert!(self.buf.input.unread().is_empty(), "idle with bytes");
            assert!(self.asked.is_none() && !self.handler.open && self.held.is_none(), "idle in an exchange");
            let resting = self.connection.rest();
            assert_eq!(resting.is_none(), self.connection.is_observed(), "an idle connection can rest");
            if let Some(resting) = &resting {
                assert_eq!(Some(resting.deadline(&cx)), wait.deadline, "resting has another deadline");
            }
            if self.swaps {
                if let Some(resting) = resting {
                    self.connection = resting.resume();
                }
                self.buf = match &self.pool {
                    None => Buffers::new(),
                    Some(pool) => {
                        let mut pool = pool.borrow_mut();
                        pool.push(std::mem::take(&mut self.buf));
                        pool.swap_remove(0)
                    }
                };
            }
        }
        match self.connection.poll(&mut self.buf, &cx) {
            Step::Wait(again) => assert_eq!(again, wait, "Wait does not repeat"),
            step => panic!("Wait does not repeat: {step:?}"),
        }
        let need = wait.need;
        let reading = *self.reading.get_or_insert(need.completion);
        assert_eq!(need.completion, self.asked.is_some() || reading, "need.completion");
        assert!(!need.handler || self.handler.open, "need.handler");
        let by_script = need.script_read || need.script_write;
        let by_peer = need.read || need.write;
        assert!(by_peer || by_script || need.completion || need.handler || wait.deadline.is_some(), "stuck");
        // Waiting for the client always has a deadline. An exception is a handler or the disk: meanwhile, only a
        // disconnect is watched for.
        let by_disk = self.hops.in_progress().is_some_and(|hop| need.completion || (need.script_write && hop.spools));
        assert!(
            !by_peer || need.handler || by_disk || wait.deadline.is_some(),
            "no timer is armed: {:?}",
            self.connection
        );
        self.hops.check_wait(wait, self.unsent, self.finished.len(), &self.config);
        let unread = self.buf.script.unread().len();
        // An empty window has room; `spare` would allocate it.
        if unread > 0 && self.hops.in_progress().is_some() {
            let room = self.buf.script.spare().len();
            assert!(!need.script_read || room > 0, "need.script_read without room");
            assert!(
                unread + room <= 64 * 1024 + self.config.limits.script_head,
                "a script window of {}",
                unread + room
            );
        }
        let longest = self.longest();
        assert!(wait.deadline.is_none_or(|d| d > self.now.tick && d.since(self.now.tick) <= longest), "deadline");
        let (unread, room) = (self.buf.input.unread().len(), self.buf.input.spare().len());
        assert!(!need.read || room > 0, "need.read without room");
        let most = (2 * (self.config.limits.head + 1)).max(16 * 1024);
        assert!(unread + room <= most, "a window of {}", unread + room);
    }

    /// No deadline is further away than this.
    pub fn longest(&self) -> u64 {
        let t = &self.config.timeouts;
        let paces = [t.body().silence(), t.write().silence()];
        [t.handshake(), t.head(), t.keep_alive(), t.drain_silence(), t.linger_silence(), t.linger(), t.script()]
            .into_iter()
            .chain(paces)
            .map(millis)
            .max()
            .unwrap()
    }
}

/// Checks the rules of [`Action::Open`].
pub fn check_path(path: &[u8]) {
    let shown = path.escape_ascii();
    assert!(!path.contains(&0), "NUL in a path: {shown}");
    if !path.is_empty() {
        for component in path.split(|&byte| byte == b'/') {
            assert!(!matches!(component, b"" | b"." | b".."), "path: {shown}");
        }
    }
}

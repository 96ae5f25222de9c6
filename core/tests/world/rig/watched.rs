//! A rig without a driver: it follows a transcript, so that the verdict can also check the worlds of the library.

use sanserve_core::{Completion, Input, Kind, Opened, SpawnError};
use sanserve_transcript::{Event, FeedThen, Middle, ProbeThen, Sending, Transcript, What};

use super::{At, Disk, Done, Rig};

impl Rig {
    /// Creates a rig that has seen all events of a transcript, with this disk.
    ///
    /// # Panics
    /// If a rule about scripts is broken.
    pub fn watching(transcript: &Transcript, disk: Disk) -> Rig {
        let mut rig = Rig::new(transcript.settings.config.clone(), disk);
        // In a world, anything may happen.
        rig.trouble.any = true;
        let mut opening = None;
        transcript.events().for_each(|event| rig.watch(event, &mut opening));
        rig
    }

    /// `opening` is the path of an action whose result comes later.
    fn watch(&mut self, event: &Event, opening: &mut Option<Vec<u8>>) {
        self.set_time(event.at.max(self.now.tick.0));
        let exchange = self.finished.len();
        match &event.what {
            What::Recv(bytes) => self.got.extend_from_slice(bytes),
            What::Probe { bytes, then } => {
                self.got.extend_from_slice(bytes);
                self.eof |= *then == ProbeThen::Eof;
            }
            What::Input(Input::Eof) => self.eof = true,
            What::Input(Input::Done(_, completion)) => match completion {
                Completion::Opened(answer) => self.opened(opening.take(), *answer),
                Completion::Found(Ok(found)) => self.update_script(|hop| hop.is_found(*found)),
                Completion::Spawned(answer) => self.spawned(*answer),
                Completion::Found(Err(_)) | Completion::Listed(_) | Completion::Spooled(_) => {}
            },
            What::Send(sending) => self.sent(sending),
            What::Open { path, inside, answer } => {
                let held = self.directory.as_deref().filter(|held| *inside && !held.is_empty());
                let path = held.map_or(path.clone(), |held| [held, b"/", path].concat());
                match answer {
                    Some(answer) => self.opened(Some(path), *answer),
                    None => *opening = Some(path),
                }
            }
            What::List { entries, .. } => {
                if let Some(super::Served { node: super::Node::Directory(rows), .. }) = self.served.last_mut() {
                    rows.extend_from_slice(entries);
                }
            }
            What::Find { path, from, answer } => {
                self.hops.begin(exchange, path, *from, &self.config);
                if let Some(answer) = answer {
                    self.hops.current().is_found(answer.expect("no disk of scripts fails"));
                }
            }
            What::Spool { .. } => {
                self.hops.spool(exchange);
                self.hops.current().spools = true;
            }
            What::Spawn { told, answer } => {
                self.hops.spawn(told, &self.got, exchange, &self.config);
                if let Some(answer) = answer {
                    self.spawned(*answer);
                }
            }
            What::Feed { bytes, taken, then } => {
                self.hops.feed(bytes, exchange);
                let hop = self.hops.current();
                hop.take(taken.unwrap_or(bytes.len() as u64));
                match then {
                    FeedThen::Poll => {}
                    FeedThen::Blocked => hop.full = true,
                    FeedThen::End | FeedThen::Full => hop.close_input(),
                }
            }
            What::Input(Input::Feedable) => self.update_script(|hop| hop.full = false),
            What::Script(bytes) => self.update_script(|hop| hop.written.extend_from_slice(bytes)),
            What::Input(Input::ScriptEof) => self.update_script(|hop| hop.eof = true),
            What::EndInput => self.hops.end_input(&self.got, exchange, &self.config),
            What::Kill => self.hops.kill(exchange),
            What::Finished(finish) => {
                let done = Done {
                    line: finish.line.clone(),
                    status: finish.status,
                    sent: finish.sent,
                    error: finish.error.is_some(),
                    cut: finish.cut.clone(),
                };
                self.hops.finish(&done, exchange, &self.got, &self.config, self.now.tick.0);
                self.finished.push(done);
                (self.held, self.directory) = (None, None);
            }
            What::Wait(wait) => {
                self.hops.check_wait(*wait, 0, exchange, &self.config);
                self.hops.turned();
                self.at = At::Wait(*wait);
            }
            What::Shut { blocked } => self.shut |= !blocked,
            What::Close { close, .. } => self.at = At::Close(*close),
            What::Tick | What::Clock(_) | What::Input(_) | What::Call(_) | What::Log(_) => {}
        }
    }

    fn opened(&mut self, path: Option<Vec<u8>>, answer: Result<Opened, sanserve_core::FsError>) {
        match (path, answer) {
            (Some(path), Ok(Opened { kind: Kind::File, .. })) => _ = self.open_file(&path),
            (Some(path), Ok(_)) => _ = self.open(&path),
            (None, _) | (_, Err(_)) => {}
        }
    }

    fn spawned(&mut self, answer: Result<(), SpawnError>) {
        let now = self.now.tick.0;
        self.update_script(|hop| match answer {
            Ok(()) => hop.since = Some(now),
            Err(error) => hop.is_refused(error),
        });
    }

    /// Updates the current script, if there is one. A minimized history may contain events of a script that is not in
    /// it.
    fn update_script(&mut self, tell: impl FnOnce(&mut super::hops::Hop)) {
        if let Some(hop) = self.hops.in_progress_mut() {
            tell(hop);
        }
    }

    /// Appends the bytes of a step that were sent.
    fn sent(&mut self, sending: &Sending) {
        let mut left = sending.taken.bytes.unwrap_or(sending.len());
        let part = |bytes: &[u8], wire: &mut Vec<u8>, left: &mut u64| {
            let n = (*left).min(bytes.len() as u64);
            wire.extend_from_slice(&bytes[..usize::try_from(n).expect("memory")]);
            *left -= n;
        };
        part(&sending.head, &mut self.wire, &mut left);
        match &sending.body {
            Middle::None => {}
            Middle::Bytes(bytes) => part(bytes, &mut self.wire, &mut left),
            Middle::File { offset, len } => {
                let n = left.min(*len);
                let (file, _) = self.held.as_ref().expect("a file to send is held");
                file.read(*offset, n, &mut self.wire);
                left -= n;
            }
        }
        part(&sending.tail, &mut self.wire, &mut left);
    }
}

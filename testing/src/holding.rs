//! What a driver holds of the virtual disk for a connection, and how it is sent.

use std::rc::Rc;

use sanserve_core::{Completion, EntryKind, Fault, Found, FsError, Input, Kind, Listed, Opened, ScriptFile};
use sanserve_transcript::{Event, FeedThen, Middle, Sending, Taken, Then, What};

use super::disk::{Disk, File, Node, START};
use super::script::{Output, Running};

/// The number of entries that are pushed at once.
const BATCH: usize = 100;

/// The file, directory or script of the current exchange.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) disk: Rc<Disk>,
    /// The open file, and its real length by now.
    held: Option<(File, u64)>,
    directory: Option<Vec<u8>>,
    listed: usize,
    /// The script that was found last.
    script: Option<Running>,
}

impl Holding {
    pub(super) fn of(disk: Rc<Disk>) -> Holding {
        Holding { disk, held: None, directory: None, listed: 0, script: None }
    }

    /// Sets the result of an action, and returns how many milliseconds it takes. `None` for an action that does not
    /// concern the disk.
    pub(super) fn act(&mut self, what: &mut What) -> Option<u64> {
        match what {
            What::Open { path, inside, answer } => {
                let path = if *inside { self.within(path) } else { path.clone() };
                *answer = Some(self.open(&path, *inside));
                Some(self.disk.delays.get(&path).copied().unwrap_or(0))
            }
            What::List { entries, answer } => {
                let path = self.directory.clone().unwrap_or_default();
                let (batch, is_end) = self.list(&path);
                *entries = batch;
                *answer = Some(Ok(if is_end { Listed::End } else { Listed::More }));
                Some(self.disk.delays.get(&path).copied().unwrap_or(0))
            }
            What::Find { path, from, answer } => {
                let found = self.find(path, *from);
                let delay = self.disk.delays.get(&path[..found.len]).copied().unwrap_or(0);
                *answer = Some(Ok(found));
                Some(delay)
            }
            What::Spawn { told, answer } => {
                *answer = Some(self.script.as_mut().map_or(Ok(()), |script| script.run(told.input)));
                Some(0)
            }
            _ => None,
        }
    }

    /// The first segment that is not a directory names the script.
    fn find(&mut self, path: &[u8], from: usize) -> Found {
        let ends = path.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        self.script = None;
        for len in ends.chain([path.len()]) {
            let what = match self.disk.find(&path[..len]) {
                Ok(Node::Directory(_)) => continue,
                Ok(Node::Script(script)) => {
                    self.script = Some(Running::found(script));
                    ScriptFile::Runnable
                }
                Ok(Node::File(_)) => ScriptFile::NotExecutable,
                _ => ScriptFile::Missing,
            };
            return Found { len, what };
        }
        Found { len: path.len(), what: ScriptFile::NotPlain }
    }

    /// Lets the script, or the file for its input, read at most `most` bytes of a `Feed`.
    pub(super) fn feed(&mut self, what: &mut What, most: usize) {
        let (What::Feed { bytes, taken, then }, Some(script)) = (what, &mut self.script) else { return };
        match script.feed(bytes, most) {
            Some(n) if n == bytes.len() => {}
            Some(n) => *taken = Some(n as u64),
            None => (*taken, *then) = (Some(0), FeedThen::End),
        }
    }

    /// The time until the script writes again, in milliseconds.
    pub(super) fn script_pause(&self) -> Option<u64> {
        self.script.as_ref()?.pause()
    }

    /// The next output of the script.
    pub(super) fn script_output(&mut self) -> Option<What> {
        self.script_pause()?;
        Some(match self.script.as_mut()?.next_output() {
            Output::Bytes(bytes) => What::Script(bytes),
            Output::End => What::Input(Input::ScriptEof),
        })
    }

    /// Updates the state after an event.
    pub(super) fn happened(&mut self, what: &What) {
        match what {
            What::EndInput => self.script.iter_mut().for_each(Running::end_input),
            What::Kill => self.script = None,
            What::Finished(_) => self.finished(),
            _ => {}
        }
    }

    fn within(&self, name: &[u8]) -> Vec<u8> {
        match self.directory.as_deref() {
            None | Some(b"") => name.to_vec(),
            Some(directory) => [directory, b"/", name].concat(),
        }
    }

    fn open(&mut self, path: &[u8], inside: bool) -> Result<Opened, FsError> {
        match self.disk.find(path)? {
            Node::File(file) => {
                self.held = Some((file.clone(), file.len));
                Ok(file.opened())
            }
            _ if inside => Err(FsError::NotFound),
            _ => {
                self.directory = Some(path.to_vec());
                self.listed = 0;
                Ok(Opened { kind: Kind::Directory, len: 4096, modified: START - 60, modified_nanos: 0, digest: None })
            }
        }
    }

    fn list(&mut self, path: &[u8]) -> (Vec<(Vec<u8>, EntryKind)>, bool) {
        let Ok(Node::Directory(names)) = self.disk.find(path) else { return (Vec::new(), true) };
        let batch: Vec<_> = names.iter().skip(self.listed).take(BATCH).cloned().collect();
        self.listed += batch.len();
        (batch, self.listed >= names.len())
    }

    /// Holds a file that the handler has attached.
    pub(super) fn attach(&mut self, file: File) {
        self.held = Some((file.clone(), file.len));
    }

    /// Truncates the open file.
    pub(super) fn shrink(&mut self, len: u64) {
        if let Some((_, real)) = &mut self.held {
            *real = (*real).min(len);
        }
    }

    /// Releases everything at the end of an exchange.
    fn finished(&mut self) {
        (self.held, self.directory, self.script) = (None, None, None);
    }

    /// Sends at most `most` bytes; with `full`, the socket is full afterwards. Sets the result of the step, and appends
    /// what was sent.
    pub(super) fn transmit(&self, sending: &mut Sending, most: u64, full: bool, out: Option<&mut Vec<u8>>) {
        let len = sending.len();
        let mut n = most.min(len);
        let mut then = if n < len && full { Then::Blocked } else { Then::Poll };
        let mut of_file = None;
        if let Middle::File { offset, len } = sending.body {
            let before = sending.head.len() as u64;
            let (file, real) = self.held.clone().unwrap_or_else(|| (File::new(0, u64::MAX), u64::MAX));
            let there = real.saturating_sub(offset).min(len);
            if there < len && n > before + there {
                n = before + there;
                then = Then::Broken(Fault::FileShrank);
            }
            of_file = Some((file, offset, n.saturating_sub(before).min(len)));
        }
        sending.taken = Taken { bytes: (n < len).then_some(n), then };
        let Some(out) = out else { return };
        let mut left = n;
        let part = |bytes: &[u8], out: &mut Vec<u8>, left: &mut u64| {
            let n = (*left).min(bytes.len() as u64);
            out.extend_from_slice(&bytes[..usize::try_from(n).expect("memory")]);
            *left -= n;
        };
        part(&sending.head, out, &mut left);
        if let Middle::Bytes(bytes) = &sending.body {
            part(bytes, out, &mut left);
        }
        if let Some((file, offset, n)) = of_file {
            file.read(offset, n, out);
            left -= n;
        }
        part(&sending.tail, out, &mut left);
    }
}

/// A copy of an event. Of a `Send`, only what was accepted is copied: the rest is offered again, and would make a
/// history much longer than its contents.
pub(super) fn brief(event: &Event) -> Event {
    let Event { at, joined, what: What::Send(sending) } = event else { return event.clone() };
    let Some(n) = sending.taken.bytes else { return event.clone() };
    let mut left = n;
    let mut part = |bytes: &[u8]| {
        let n = left.min(bytes.len() as u64);
        left -= n;
        bytes[..usize::try_from(n).expect("memory")].to_vec()
    };
    let head = part(&sending.head);
    let body = match &sending.body {
        Middle::None => Middle::None,
        Middle::Bytes(bytes) => Middle::Bytes(part(bytes)),
        Middle::File { offset, len } => {
            let n = left.min(*len);
            left -= n;
            Middle::File { offset: *offset, len: n }
        }
    };
    let tail = sending.tail[..usize::try_from(left).expect("memory")].to_vec();
    Event { at: *at, joined: *joined, what: What::Send(Sending { head, body, tail, ..*sending }) }
}

/// Takes the result of an action out of a step, to pass it later.
pub(super) fn postpone(what: &mut What) -> Option<Completion> {
    match what {
        What::Open { answer, .. } => answer.take().map(Completion::Opened),
        What::List { answer, .. } => answer.take().map(Completion::Listed),
        What::Find { answer, .. } => answer.take().map(Completion::Found),
        What::Spawn { answer, .. } => answer.take().map(Completion::Spawned),
        _ => None,
    }
}

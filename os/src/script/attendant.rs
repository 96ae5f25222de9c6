//! The one thread that looks after all scripts of a server.
//!
//! Whoever sees first that the leader of a group has exited reaps it: this thread, or the exchange when
//! it lets go of its script, which is usually sooner ([`Leader`]). No signal ever hits a process that
//! is not ours: a process id, and with it the id of the group, is free for others only once its
//! zombie was reaped.
//!
//! When the leader of a group has exited, what is left of the group is killed; a script that wants
//! to leave a daemon behind must give it a session of its own. A process that ignores `SIGCHLD` has
//! no zombies, and all this is best effort there.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use sanserve_core::SpawnError;

use super::remarks::Remarks;

/// What is read of one stderr at a time.
const ROOM: usize = 64 * 1024;

/// Readings of a stderr that somebody still writes to when the script itself is gone.
const LAST_READINGS: usize = 16;

/// How often scripts are looked at where the system does not tell that one has exited.
const LOOK: Duration = Duration::from_millis(10);

/// How long the end waits for scripts that were killed: the system may be stuck in one.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long somebody who finds no place waits for scripts that nobody reads from any more: most of
/// them have exited and are about to be reaped.
const PATIENCE: Duration = Duration::from_millis(5);

/// What the threads that spawn and the one that attends share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A place has become free.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Scripts whose leader is not reaped, and those about to be spawned.
    alive: usize,
    /// Those of them that an exchange holds.
    held: usize,
    arrivals: Vec<Ward>,
    kills: Vec<u64>,
    ending: bool,
    /// Written to when there is something here for the attendant.
    bell: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl State {
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // A full pipe has rung already.
            let _ = write(bell, b"!");
        }
    }

    fn has_news(&self) -> bool {
        !self.arrivals.is_empty() || !self.kills.is_empty()
    }
}

impl Shared {
    /// Takes one of `most` places.
    pub(super) fn admit(self: &Arc<Shared>, most: usize) -> Result<(), SpawnError> {
        let mut state = self.lock();
        if state.alive >= most && state.alive > state.held {
            let is_full = |state: &mut State| state.alive >= most && !state.ending;
            let waited = self.room.wait_timeout_while(state, PATIENCE, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.ending || state.alive >= most {
            return Err(SpawnError::Busy);
        }
        if state.thread.is_none() {
            let (bell, thread) = start(self).map_err(|_| SpawnError::Exhausted)?;
            (state.bell, state.thread) = (Some(bell), Some(thread));
        }
        state.alive += 1;
        state.held += 1;
        Ok(())
    }

    /// Gives a place back: nothing was spawned, or it was reaped.
    pub(super) fn dismiss(&self) {
        let mut state = self.lock();
        state.alive -= 1;
        if state.ending {
            state.ring();
        }
        drop(state);
        self.room.notify_one();
    }

    /// No exchange holds it any more, or ever did.
    pub(super) fn let_go(&self) {
        self.lock().held -= 1;
    }

    /// A script was spawned in its place.
    pub(super) fn entrust(&self, ward: Ward) {
        let mut state = self.lock();
        let rung = state.has_news();
        state.arrivals.push(ward);
        if !rung {
            state.ring();
        }
    }

    /// Sees to it that a script that was asked to end does so.
    pub(super) fn kill(&self, id: u64) {
        let mut state = self.lock();
        let rung = state.has_news();
        state.kills.push(id);
        if !rung {
            state.ring();
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.lock().alive
    }

    /// Kills all scripts, and waits until that is done.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let Some(thread) = state.thread.take() else { return };
        state.ending = true;
        state.ring();
        drop(state);
        let _ = thread.join();
        let mut state = self.lock();
        state.ending = false;
        state.bell = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(shared: &Arc<Shared>) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (ear, bell) = io::pipe()?;
    let (ear, bell) = (OwnedFd::from(ear), OwnedFd::from(bell));
    ioctl_fionbio(&ear, true)?;
    ioctl_fionbio(&bell, true)?;
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name("scripts".into()).spawn(move || attend(&shared, &ear))?;
    Ok((bell, thread))
}

/// The leader of a script's process group, until it is reaped and afterwards.
#[derive(Debug)]
pub(super) struct Leader {
    /// Its number, and that of the group.
    pub(super) pid: Pid,
    life: Mutex<Life>,
    /// It was sent a signal.
    asked: AtomicBool,
}

#[derive(Debug)]
enum Life {
    /// Alive, or a zombie: its number is nobody else's.
    Unreaped(Child),
    Reaped(Option<ExitStatus>),
}

impl Leader {
    pub(super) fn new(child: Child) -> Leader {
        Leader { pid: Pid::from_child(&child), life: Mutex::new(Life::Unreaped(child)), asked: AtomicBool::new(false) }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the group, if it is still ours.
    fn signal(&self, signal: Signal) {
        if let Life::Unreaped(_) = &*self.life() {
            self.asked.store(true, Ordering::Relaxed);
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// It has exited: kills what is left of its group, and reaps it. `false`: somebody has done so.
    pub(super) fn bury(&self) -> bool {
        let mut life = self.life();
        let Life::Unreaped(child) = &mut *life else { return false };
        let _ = kill_process_group(self.pid, Signal::KILL);
        *life = Life::Reaped(child.wait().ok());
        true
    }

    /// How it ended, once it is reaped.
    fn status(&self) -> Option<ExitStatus> {
        match &*self.life() {
            Life::Reaped(status) => *status,
            Life::Unreaped(_) => None,
        }
    }

    fn is_reaped(&self) -> bool {
        matches!(&*self.life(), Life::Reaped(_))
    }
}

/// A script as its attendant sees it.
#[derive(Debug)]
pub(super) struct Ward {
    pub(super) id: u64,
    pub(super) leader: Arc<Leader>,
    /// Readable when the leader has exited; where there is no such thing, it is looked at.
    pub(super) exit: Option<OwnedFd>,
    /// Closed to tell the exchange that the leader has exited, where that has no descriptor for it.
    pub(super) tell: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) remarks: Remarks,
    pub(super) stage: Stage,
    /// When the next stage comes.
    pub(super) due: Option<Instant>,
    pub(super) grace: Duration,
}

/// What was done to end a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Runs,
    Terminated,
    Killed,
}

impl Ward {
    fn terminate(&mut self, now: Instant) {
        self.leader.terminate();
        self.was_terminated(now);
    }

    fn was_terminated(&mut self, now: Instant) {
        if self.stage == Stage::Runs {
            self.stage = Stage::Terminated;
            self.due = now.checked_add(self.grace);
        }
    }

    pub(super) fn kill(&mut self) {
        if self.stage != Stage::Killed {
            self.leader.signal(Signal::KILL);
            self.stage = Stage::Killed;
            self.due = None;
        }
    }

    fn look_at_the_time(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            match self.stage {
                Stage::Runs => self.terminate(now),
                Stage::Terminated | Stage::Killed => self.kill(),
            }
        }
    }

    fn has_exited(&self, told: bool) -> bool {
        if self.exit.is_some() || self.leader.is_reaped() {
            return told || self.leader.is_reaped();
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.leader.pid), options), Ok(None) | Err(Errno::INTR))
    }

    /// Reads once from its stderr. `false`: there is nothing more for now.
    fn listen(&mut self, room: &mut [u8]) -> bool {
        let Some(stderr) = &self.stderr else { return false };
        match read(stderr, &mut *room) {
            Ok(n) if n > 0 => self.remarks.take(&room[..n]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Ok(_) | Err(_) => self.stderr = None,
        }
        self.stderr.is_some()
    }

    /// The leader has exited: kills what is left of its group, and reaps it. `false`: the exchange has
    /// done so.
    fn bury(&mut self, room: &mut [u8]) -> bool {
        let buried = self.leader.bury();
        self.tell = None;
        for _ in 0..LAST_READINGS {
            if !self.listen(room) {
                break;
            }
        }
        buried
    }

    /// Says what there is to say of one that was buried.
    fn obituary(&mut self) {
        self.remarks.end();
        let Some(status) = self.leader.status() else { return };
        let code = status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(0);
        // That it has ended by a signal is no news if it was sent one.
        let was_us = code < 0 && self.leader.asked.load(Ordering::Relaxed);
        if code != 0 && !was_us {
            self.remarks.say(format_args!("CGI script exit code {code}"));
        }
    }
}

/// What one waiting has told of a ward.
#[derive(Clone, Copy, Default)]
struct News {
    exit: bool,
    stderr: bool,
}

/// What the thread does.
fn attend(shared: &Shared, ear: &OwnedFd) {
    let mut wards: Vec<Ward> = Vec::new();
    let mut kills = Vec::new();
    let mut news = Vec::new();
    let mut room = vec![0; ROOM];
    let mut last_moment = None;
    loop {
        let mut state = shared.lock();
        wards.append(&mut state.arrivals);
        std::mem::swap(&mut kills, &mut state.kills);
        let (ending, alive) = (state.ending, state.alive);
        drop(state);

        let now = Instant::now();
        for id in kills.drain(..) {
            if let Some(ward) = wards.iter_mut().find(|ward| ward.id == id) {
                ward.was_terminated(now);
            }
        }
        if ending {
            wards.iter_mut().for_each(Ward::kill);
            // One that its exchange has reaped still has last words.
            let none = alive == 0 && wards.is_empty();
            if none || now >= *last_moment.get_or_insert(now + LAST_WAIT) {
                shared.lock().alive -= wards.iter().filter(|ward| !ward.leader.is_reaped()).count();
                return;
            }
        }
        wards.iter_mut().for_each(|ward| ward.look_at_the_time(now));

        if wait(ear, &wards, wake_up(&wards, last_moment, now), &mut news) {
            while read(ear, &mut room[..]).is_ok_and(|n| n == room.len()) {}
        }
        // From the end, so that what is swapped in has been seen.
        for at in (0..wards.len()).rev() {
            if wards[at].has_exited(news[at].exit) {
                let mut ward = wards.swap_remove(at);
                if ward.bury(&mut room) {
                    shared.dismiss();
                }
                ward.obituary();
            } else if news[at].stderr {
                wards[at].listen(&mut room);
            }
        }
    }
}

/// How long to wait at most.
fn wake_up(wards: &[Ward], last_moment: Option<Instant>, now: Instant) -> Option<Duration> {
    let due = wards.iter().filter_map(|ward| ward.due).chain(last_moment).min();
    let until = due.map(|due| due.saturating_duration_since(now));
    let look = wards.iter().any(|ward| ward.exit.is_none()).then_some(LOOK);
    [until, look].into_iter().flatten().min()
}

/// Waits, and fills in what each ward has to tell. `true`: the bell rang.
fn wait(ear: &OwnedFd, wards: &[Ward], bound: Option<Duration>, news: &mut Vec<News>) -> bool {
    // Far enough away is as good as never.
    let bound = bound.and_then(|bound| Timespec::try_from(bound).ok());
    let mut fds = Vec::with_capacity(1 + 2 * wards.len());
    fds.push(PollFd::new(ear, PollFlags::IN));
    let of_wards = wards.iter().flat_map(|ward| [&ward.exit, &ward.stderr]).flatten();
    fds.extend(of_wards.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    let polled = poll(&mut fds, bound.as_ref());
    news.clear();
    news.resize(wards.len(), News::default());
    match polled {
        Ok(0) | Err(Errno::INTR) => return false,
        Ok(_) => {}
        Err(_) => {
            // Out of memory: later, perhaps.
            thread::sleep(LOOK);
            return true;
        }
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = || ready.next().expect("one for each descriptor");
    let rang = next();
    for (ward, news) in wards.iter().zip(news) {
        news.exit = ward.exit.is_some() && next();
        news.stderr = ward.stderr.is_some() && next();
    }
    rang
}

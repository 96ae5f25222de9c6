//! The one thread that looks after all scripts of a server.
//!
//! A script that a launcher has started is the launcher's: it reaps it and signals it, and its reports come here.
//! The rest is about those that the server has started itself.
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
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use sanserve_core::SpawnError;

use super::launcher::{Ending, Launcher, Process};
use super::stderr_logger::StderrLogger;
use super::{Program, Refusal, Share};

/// What is read of one stderr at a time.
const ROOM: usize = 64 * 1024;

/// Readings of a stderr that somebody still writes to when the script itself is gone.
const LAST_READINGS: usize = 16;

/// How often scripts are looked at where the system does not tell that one has exited, and where so many come that
/// it is cheaper to look than to be told.
const LOOK: Duration = Duration::from_millis(10);

/// What is read of a script at once when it prints faster than it should be looked at.
const LOUD: usize = ROOM / 4;

/// How long the end waits for scripts that were killed: the system may be stuck in one.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long somebody who finds no place waits for scripts that nobody reads from any more: most of
/// them have exited and are about to be reaped.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long a script has its place in any case, however slow its body is.
const SAFE: Duration = Duration::from_secs(1);

/// Bytes a second from which on, on average, a body is not slow.
const SLOW: u64 = 16 * 1024;

/// What the threads that spawn and the one that attends share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held by those who ask a launcher for a script until that has arrived here. They do not wait for each other.
    asking: RwLock<()>,
    /// A place has become free.
    room: Condvar,
    launcher: Mutex<Option<Arc<Process>>>,
    /// Launchers that were started, and whose reports are to be read.
    unheard: Mutex<Vec<Arc<Process>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Scripts whose leader is not reaped, and those about to be spawned.
    alive: usize,
    /// Those of them that an exchange holds.
    held: usize,
    arrivals: Vec<ReapedChild>,
    kills: Vec<u64>,
    /// Scripts whose input is not complete.
    intakes: Vec<Arc<Intake>>,
    /// Output of scripts that nobody reads from any more.
    leftovers: Vec<(u64, OwnedFd)>,
    ending: bool,
    /// The reaper looks here within [`LOOK`] without being told.
    napping: bool,
    /// Few places are left: ends are to be known at once.
    is_crowded: bool,
    /// Who waits for a place.
    waiting: usize,
    /// Written to when there is something here for the reaper.
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

    /// Leaves something for the reaper, and rings if it would not find it soon.
    fn leave_news(&mut self, leave: impl FnOnce(&mut State)) {
        let is_known = self.napping || self.has_news();
        leave(self);
        if !is_known {
            self.ring();
        }
    }

    fn has_news(&self) -> bool {
        !self.arrivals.is_empty() || !self.kills.is_empty() || !self.leftovers.is_empty()
    }

    /// Has the script end whose body is the slowest, if one is slow. `false`: none is.
    fn turn_out(&mut self, now: Instant) -> bool {
        let slow = |intake: &Arc<Intake>| Some((intake.pace(now).filter(|pace| *pace < SLOW)?, Arc::clone(intake)));
        let Some((_, intake)) = self.intakes.iter().filter_map(slow).min_by_key(|(pace, _)| *pace) else {
            return false;
        };
        self.intakes.retain(|other| other.id != intake.id);
        intake.leader.turned_out.store(true, Ordering::Relaxed);
        intake.leader.terminate();
        self.leave_news(|state| state.kills.push(intake.id));
        true
    }
}

impl Shared {
    /// Takes one of `most` places. Where all are taken, a script gives way that waits for a slow client's body: clients
    /// that do next to nothing could keep everybody else from running scripts.
    pub(super) fn admit(self: &Arc<Shared>, most: usize) -> Result<(), SpawnError> {
        let mut state = self.lock();
        let full = state.alive >= most && !state.ending;
        if full && (state.alive > state.held || state.turn_out(Instant::now())) {
            let is_full = |state: &mut State| state.alive >= most && !state.ending;
            state.waiting += 1;
            if state.napping {
                state.ring();
            }
            let waited = self.room.wait_timeout_while(state, PATIENCE, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
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
        state.is_crowded = state.alive > most / 4 * 3;
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

    /// The input of a script begins.
    pub(super) fn take_in(&self, id: u64, leader: &Arc<Leader>) -> Arc<Intake> {
        let leader = Arc::clone(leader);
        let intake =
            Intake { id, leader, since: Instant::now(), taken: AtomicU64::new(0), is_full: AtomicBool::new(false) };
        let intake = Arc::new(intake);
        self.lock().intakes.push(Arc::clone(&intake));
        intake
    }

    /// The input of a script is complete, or given up.
    pub(super) fn taken_in(&self, id: u64) {
        self.lock().intakes.retain(|intake| intake.id != id);
    }

    /// A script was spawned in its place.
    pub(super) fn entrust(&self, child: ReapedChild) {
        self.lock().leave_news(|state| state.arrivals.push(child));
    }

    /// Has a launcher asked for a script, and if that succeeds takes it over. Until it has, no report is looked at: one
    /// could be about this script.
    pub(super) fn entrust_if(&self, child: ReapedChild, ask: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _asking = self.asking.read().unwrap_or_else(PoisonError::into_inner);
        ask()?;
        self.entrust(child);
        Ok(())
    }

    /// Sees to it that a script that was asked to end does so.
    pub(super) fn kill(&self, id: u64) {
        self.lock().leave_news(|state| state.kills.push(id));
    }

    /// Reads what a script still prints, now that nothing of it can be sent.
    pub(super) fn leave(&self, id: u64, output: Option<OwnedFd>) {
        let Some(output) = output else { return };
        self.lock().leave_news(|state| state.leftovers.push((id, output)));
    }

    /// The launcher, which is started if there is none. `None`: there is to be none.
    pub(super) fn launcher(&self, launcher: &Launcher) -> io::Result<Option<Arc<Process>>> {
        if *launcher == Launcher::None {
            return Ok(None);
        }
        let mut process = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if process.is_none() {
            *process = Process::start(launcher)?.map(Arc::new);
            // The reaper learns of it with its first script.
            self.unheard.lock().unwrap_or_else(PoisonError::into_inner).extend(process.clone());
        }
        Ok(process.clone())
    }

    /// A launcher in place of one that is gone.
    pub(super) fn another_launcher(&self, gone: &Arc<Process>, launcher: &Launcher) -> io::Result<Arc<Process>> {
        let mut process = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        process.take_if(|process| Arc::ptr_eq(process, gone));
        drop(process);
        self.launcher(launcher)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// These launchers are gone: they are reaped as soon as nobody holds them any more.
    fn forget(&self, gone: &[Arc<Process>]) {
        let mut process = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        process.take_if(|process| gone.iter().any(|gone| Arc::ptr_eq(process, gone)));
    }

    /// Whether few places are left.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().is_crowded
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
        drop(self.launcher.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut state = self.lock();
        state.ending = false;
        state.bell = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(shared: &Arc<Shared>) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (ear, bell) = sanserve_os::pipe()?;
    ioctl_fionbio(&ear, true)?;
    ioctl_fionbio(&bell, true)?;
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name("scripts".into()).spawn(move || attend(&shared, &ear))?;
    Ok((bell, thread))
}

/// How a script's input comes.
#[derive(Debug)]
pub(super) struct Intake {
    id: u64,
    leader: Arc<Leader>,
    since: Instant,
    /// Bytes that the script's pipe took.
    taken: AtomicU64,
    /// The pipe takes no more for now: its client is not what is slow.
    is_full: AtomicBool,
}

impl Intake {
    pub(super) fn took(&self, n: usize) {
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// Bytes a second on average. `None`: it is too early to tell, or a matter of the script.
    fn pace(&self, now: Instant) -> Option<u64> {
        let time = now.saturating_duration_since(self.since);
        let tells = time >= SAFE && !self.is_full.load(Ordering::Relaxed);
        tells.then(|| self.taken.load(Ordering::Relaxed) / time.as_secs().max(1))
    }
}

/// The leader of a script's process group, until it is reaped and afterwards.
#[derive(Debug)]
pub(super) struct Leader {
    life: Mutex<Life>,
    /// It was sent a signal.
    asked: AtomicBool,
    /// Because its body is slow, and another script needs its place.
    turned_out: AtomicBool,
}

#[derive(Debug)]
enum Life {
    /// Alive, or a zombie: its number is nobody else's.
    Unreaped(Child),
    /// The launcher looks after it, by this number.
    Launched(Arc<Process>, u64),
    Reaped(Option<Ending>),
}

impl Leader {
    pub(super) fn new(child: Child) -> Leader {
        Leader::with(Life::Unreaped(child))
    }

    /// Another launcher has been asked for it.
    pub(super) fn relaunched(&self, by: Arc<Process>) {
        if let Life::Launched(process, _) = &mut *self.life() {
            *process = by;
        }
    }

    pub(super) fn launched(process: Arc<Process>, id: u64) -> Leader {
        Leader::with(Life::Launched(process, id))
    }

    fn with(life: Life) -> Leader {
        Leader { life: Mutex::new(life), asked: AtomicBool::new(false), turned_out: AtomicBool::new(false) }
    }

    /// Whether it gave way to another script.
    pub(super) fn is_turned_out(&self) -> bool {
        self.turned_out.load(Ordering::Relaxed)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the group, if it is still ours.
    fn signal(&self, signal: Signal) {
        match &*self.life() {
            Life::Unreaped(child) => {
                self.asked.store(true, Ordering::Relaxed);
                let _ = kill_process_group(Pid::from_child(child), signal);
            }
            Life::Launched(process, id) => {
                self.asked.store(true, Ordering::Relaxed);
                process.signal(*id, signal);
            }
            Life::Reaped(_) => {}
        }
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// It has exited: kills what is left of its group, and reaps it. Of one that was launched `told` says that this is
    /// done. `false`: it was known, or is not told.
    pub(super) fn bury(&self, told: Option<Ending>) -> bool {
        let mut life = self.life();
        let ending = match &mut *life {
            Life::Reaped(_) => return false,
            Life::Launched(..) if told.is_none() => return false,
            Life::Launched(..) => told,
            Life::Unreaped(child) => {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                child.wait().ok().map(|status| {
                    Ending::Exited(status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(0))
                })
            }
        };
        *life = Life::Reaped(ending);
        true
    }

    /// Whether it was started by a launcher, and not reaped as far as is known.
    pub(super) fn is_launched(&self) -> bool {
        matches!(&*self.life(), Life::Launched(..))
    }

    fn is_launched_by(&self, other: &Arc<Process>) -> bool {
        matches!(&*self.life(), Life::Launched(process, _) if Arc::ptr_eq(process, other))
    }

    /// How it ended, once it is reaped.
    pub(super) fn ending(&self) -> Option<Ending> {
        match &*self.life() {
            Life::Reaped(ending) => *ending,
            Life::Unreaped(_) | Life::Launched(..) => None,
        }
    }

    /// Whether it was sent a signal.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn is_reaped(&self) -> bool {
        matches!(&*self.life(), Life::Reaped(_))
    }

    /// Whether it is a process of ours that has exited.
    fn is_zombie(&self) -> bool {
        let Life::Unreaped(child) = &*self.life() else { return false };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None) | Err(Errno::INTR))
    }
}

/// A script as its reaper sees it.
#[derive(Debug)]
pub(super) struct ReapedChild {
    pub(super) id: u64,
    pub(super) leader: Arc<Leader>,
    /// Readable when the leader has exited; where there is no such thing, it is looked at.
    pub(super) exit: Option<OwnedFd>,
    /// Closed to tell the exchange that the leader has exited, where that has no descriptor for it.
    pub(super) tell: Option<OwnedFd>,
    /// What the launcher has reported of it.
    pub(super) told: Option<Ending>,
    pub(super) stderr: Option<OwnedFd>,
    /// Its output, once nothing of it can be sent.
    pub(super) leftover: Option<OwnedFd>,
    /// How much it may still print; more, and it is ended. If nobody read it, a script that ignores `SIGPIPE` could go
    /// on printing until its time is over.
    pub(super) drain: u64,
    #[allow(dead_code, reason = "it is there to be dropped")]
    pub(super) share: Option<Share>,
    pub(super) remarks: StderrLogger,
    pub(super) program: Program,
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

impl ReapedChild {
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
        told || self.told.is_some() || self.leader.is_reaped() || self.is_looked_at() && self.leader.is_zombie()
    }

    /// Nothing tells that it has exited.
    fn is_looked_at(&self) -> bool {
        self.exit.is_none() && !self.leader.is_launched()
    }

    /// Reads once from its stderr: so many bytes. `None`: there is nothing more for now.
    fn listen(&mut self, room: &mut [u8]) -> Option<usize> {
        match read(self.stderr.as_ref()?, &mut *room) {
            Ok(n) if n > 0 => {
                self.remarks.take(&room[..n]);
                Some(n)
            }
            Err(Errno::INTR) => Some(0),
            Err(Errno::AGAIN) => None,
            Ok(_) | Err(_) => {
                self.stderr = None;
                None
            }
        }
    }

    /// Reads once from its output, of which nothing can be sent: so many bytes.
    fn drop_output(&mut self, room: &mut [u8], now: Instant) -> usize {
        let Some(output) = &self.leftover else { return 0 };
        match read(output, &mut *room) {
            Ok(n) if n > 0 && n as u64 <= self.drain => {
                self.drain -= n as u64;
                return n;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => self.leftover = None,
            Ok(_) => {
                self.leftover = None;
                self.terminate(now);
            }
        }
        0
    }

    /// The leader has exited: kills what is left of its group, and reaps it. `false`: the exchange has
    /// done so.
    fn bury(&mut self, room: &mut [u8]) -> bool {
        let buried = self.leader.bury(self.told);
        self.tell = None;
        for _ in 0..LAST_READINGS {
            if self.listen(room).is_none() {
                break;
            }
        }
        buried
    }

    /// Says what there is to say of one that was buried.
    fn obituary(&mut self) {
        self.remarks.end();
        if self.leader.is_turned_out() {
            self.remarks
                .say(format_args!("CGI script ended: its client is slow with the body, and others need its place"));
        }
        let Some(ending) = self.leader.ending() else { return };
        if let Some(Refusal { reason, .. }) = self.program.ending(ending) {
            self.remarks.say(format_args!("CGI script not run: {reason}"));
        }
        let Ending::Exited(code) = ending else { return };
        // That it has ended by a signal is no news if it was sent one.
        let was_us = code < 0 && self.leader.is_asked();
        if code != 0 && !was_us {
            self.remarks.say(format_args!("CGI script exit code {code}"));
        }
    }
}

/// What one waiting has told of a child.
#[derive(Clone, Copy, Default)]
struct News {
    exit: bool,
    stderr: bool,
    output: bool,
}

/// What the thread does.
fn attend(shared: &Shared, ear: &OwnedFd) {
    let mut children: Vec<ReapedChild> = Vec::new();
    let mut kills = Vec::new();
    let mut leftovers = Vec::new();
    let mut launchers: Vec<Arc<Process>> = Vec::new();
    let mut news = Vec::new();
    let mut room = vec![0; ROOM];
    let mut last_moment = None;
    let mut is_loud = false;
    loop {
        let mut state = shared.lock();
        // Where scripts keep coming, being told of each takes longer than all that is done for them.
        let is_urgent = state.waiting > 0 || state.is_crowded || state.ending || is_loud;
        let naps = !state.arrivals.is_empty() && !is_urgent;
        state.napping = naps;
        children.append(&mut state.arrivals);
        mem::swap(&mut kills, &mut state.kills);
        mem::swap(&mut leftovers, &mut state.leftovers);
        let (ending, alive) = (state.ending, state.alive);
        drop(state);
        launchers.append(&mut shared.unheard.lock().unwrap_or_else(PoisonError::into_inner));

        let now = Instant::now();
        for id in kills.drain(..) {
            if let Some(child) = children.iter_mut().find(|child| child.id == id) {
                child.was_terminated(now);
            }
        }
        for (id, output) in leftovers.drain(..) {
            if let Some(child) = children.iter_mut().find(|child| child.id == id) {
                child.leftover = Some(output);
            }
        }
        if ending {
            children.iter_mut().for_each(ReapedChild::kill);
            // One that its exchange has reaped still has last words.
            let none = alive == 0 && children.is_empty();
            if none || now >= *last_moment.get_or_insert(now + LAST_WAIT) {
                shared.lock().alive -= children.iter().filter(|child| !child.leader.is_reaped()).count();
                return;
            }
        }
        children.iter_mut().for_each(|child| child.look_at_the_time(now));

        let mut bound = wake_up(&children, last_moment, now);
        if naps {
            nap(ear, &launchers, bound);
            bound = Some(Duration::ZERO);
        }
        if wait(ear, &launchers, &children, bound, &mut news) {
            while read(ear, &mut room[..]).is_ok_and(|n| n == room.len()) {}
        }
        let mut reports = Vec::new();
        let mut gone = Vec::new();
        launchers.retain(|launcher| {
            let is_there = launcher.read_reports(|id, ending| reports.push((id, ending)));
            if !is_there {
                gone.push(Arc::clone(launcher));
            }
            is_there
        });
        if !reports.is_empty() || !gone.is_empty() {
            // A report may be about a script that has just arrived, or is about to.
            drop(shared.asking.write().unwrap_or_else(PoisonError::into_inner));
            children.append(&mut shared.lock().arrivals);
            news.resize(children.len(), News::default());
            take_reports(&reports, &gone, &mut children);
            shared.forget(&gone);
        }
        is_loud = false;
        // From the end, so that what is swapped in has been seen.
        for at in (0..children.len()).rev() {
            if children[at].has_exited(news[at].exit) {
                let mut child = children.swap_remove(at);
                let buried = child.bury(&mut room);
                child.obituary();
                if buried {
                    shared.dismiss();
                }
                continue;
            }
            if news[at].stderr {
                is_loud |= children[at].listen(&mut room).is_some_and(|n| n >= LOUD);
            }
            if news[at].output {
                is_loud |= children[at].drop_output(&mut room, now) >= LOUD;
            }
        }
    }
}

/// Notes what launchers have reported, and that some are gone, and their scripts with them.
fn take_reports(reports: &[(u64, Ending)], gone: &[Arc<Process>], children: &mut [ReapedChild]) {
    for (id, ending) in reports {
        if let Some(child) = children.iter_mut().find(|child| child.id == *id) {
            // A script that was not run has an exit code, too.
            child.told.get_or_insert(*ending);
        }
    }
    for child in children.iter_mut().filter(|child| gone.iter().any(|launcher| child.leader.is_launched_by(launcher))) {
        child.told.get_or_insert(Ending::Unknown);
    }
}

/// How long to wait at most.
fn wake_up(children: &[ReapedChild], last_moment: Option<Instant>, now: Instant) -> Option<Duration> {
    let due = children.iter().filter_map(|child| child.due).chain(last_moment).min();
    let until = due.map(|due| due.saturating_duration_since(now));
    let look = children.iter().any(ReapedChild::is_looked_at).then_some(LOOK);
    [until, look].into_iter().flatten().min()
}

/// Waits for [`LOOK`], or less if less is left, or until the bell rings. A script that is not run ends it as well: why
/// that is can only be told as long as its file is the same.
fn nap(ear: &OwnedFd, launchers: &[Arc<Process>], bound: Option<Duration>) {
    let bound = bound.map_or(LOOK, |bound| bound.min(LOOK));
    let bound = Timespec::try_from(bound).expect("it is short");
    let mut fds = vec![PollFd::new(ear, PollFlags::IN)];
    fds.extend(launchers.iter().map(|launcher| PollFd::new(&launcher.refusals, PollFlags::IN)));
    // Whatever comes of it: it is looked at what there is.
    let _ = poll(&mut fds, Some(&bound));
}

/// Waits, and fills in what each child has to tell. `true`: the bell rang.
fn wait(
    ear: &OwnedFd,
    launchers: &[Arc<Process>],
    children: &[ReapedChild],
    bound: Option<Duration>,
    news: &mut Vec<News>,
) -> bool {
    // Far enough away is as good as never.
    let bound = bound.and_then(|bound| Timespec::try_from(bound).ok());
    let mut fds = Vec::with_capacity(1 + launchers.len() + 3 * children.len());
    fds.push(PollFd::new(ear, PollFlags::IN));
    fds.extend(
        launchers.iter().flat_map(|launcher| launcher.fds()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
    );
    let of_wards = children.iter().flat_map(|child| [&child.exit, &child.stderr, &child.leftover]).flatten();
    fds.extend(of_wards.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    let polled = poll(&mut fds, bound.as_ref());
    news.clear();
    news.resize(children.len(), News::default());
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
    launchers.iter().flat_map(|launcher| launcher.fds()).for_each(|_| _ = next());
    for (child, news) in children.iter().zip(news) {
        news.exit = child.exit.is_some() && next();
        news.stderr = child.stderr.is_some() && next();
        news.output = child.leftover.is_some() && next();
    }
    rang
}

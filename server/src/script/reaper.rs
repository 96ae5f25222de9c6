//! The reaper: the thread that supervises all scripts of a server.
//!
//! A script that was started by a launcher is reaped and signalled by the launcher, whose reports arrive here. The
//! rest of this module is about scripts that the server has started itself.
//!
//! The leader of a group is reaped by whichever first notices that it has exited: this thread, or the exchange when
//! it releases its script, which is usually sooner ([`Leader`]). No signal ever reaches a foreign process: a process
//! id, and with it the id of the group, is not reused before its zombie was reaped.
//!
//! When the leader of a group has exited, the rest of the group is killed. A script that starts a daemon must give it
//! a session of its own. A process that ignores `SIGCHLD` has no zombies, and there all of this is best effort.

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

/// How much is read of a stderr at a time.
const ROOM: usize = 64 * 1024;

/// The most reads of a stderr that another process still writes to after the script has exited.
const LAST_READINGS: usize = 16;

/// How often scripts are polled, on systems that do not report an exit, and when so many scripts arrive that polling
/// is cheaper.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// If a script prints this much at once, it is read without naps.
const BUSY_READ: usize = ROOM / 4;

/// How long a shutdown waits for scripts that were killed: the system may hang in one.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long a new script waits for a place, if scripts were released by their exchanges: most of them have exited and
/// are about to be reaped.
const PLACE_WAIT: Duration = Duration::from_millis(5);

/// How long a script keeps its place in any case, however slow its body is.
const MIN_PLACE_TIME: Duration = Duration::from_secs(1);

/// The average rate in bytes per second below which a body counts as slow.
const SLOW_RATE: u64 = 16 * 1024;

/// What the reaper shares with the threads that start scripts.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held while a launcher is asked for a script, until the script has arrived here. These threads do not wait for
    /// each other.
    asking: RwLock<()>,
    /// Notified when a place becomes free.
    room: Condvar,
    launcher: Mutex<Option<Arc<Process>>>,
    /// Launchers that were started, and whose reports the reaper does not read yet.
    new_launchers: Mutex<Vec<Arc<Process>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Scripts whose leader is not reaped, and those about to be started.
    alive: usize,
    /// Those that an exchange holds.
    held: usize,
    arrivals: Vec<ReapedChild>,
    kills: Vec<u64>,
    /// Scripts whose input is incomplete.
    intakes: Vec<Arc<Intake>>,
    /// Output of scripts that were released by their exchanges.
    leftovers: Vec<(u64, OwnedFd)>,
    ending: bool,
    /// The reaper will check this state within [`POLL_INTERVAL`].
    napping: bool,
    /// How often the reaper has waited for [`POLL_INTERVAL`] instead of for exits.
    #[cfg(test)]
    naps: usize,
    /// Few places are left, so exits must be noticed immediately.
    is_crowded: bool,
    /// The number of threads that wait for a place.
    waiting: usize,
    /// Written to when there is work for the reaper.
    wake_pipe: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl State {
    fn wake(&self) {
        if let Some(wake_pipe) = &self.wake_pipe {
            // A full pipe wakes the reaper anyway.
            let _ = write(wake_pipe, b"!");
        }
    }

    /// Adds work for the reaper, and wakes it if it would not notice it soon.
    fn add_work(&mut self, add: impl FnOnce(&mut State)) {
        let is_known = self.napping || self.has_work();
        add(self);
        if !is_known {
            self.wake();
        }
    }

    fn has_work(&self) -> bool {
        !self.arrivals.is_empty() || !self.kills.is_empty() || !self.leftovers.is_empty()
    }

    /// Terminates the script with the slowest body, if one is slow. Returns whether one was.
    fn evict_slowest(&mut self, now: Instant) -> bool {
        let slow =
            |intake: &Arc<Intake>| Some((intake.pace(now).filter(|pace| *pace < SLOW_RATE)?, Arc::clone(intake)));
        let Some((_, intake)) = self.intakes.iter().filter_map(slow).min_by_key(|(pace, _)| *pace) else {
            return false;
        };
        self.intakes.retain(|other| other.id != intake.id);
        intake.leader.evicted.store(true, Ordering::Relaxed);
        intake.leader.terminate();
        self.add_work(|state| state.kills.push(intake.id));
        true
    }
}

impl Shared {
    /// Takes one of `most` places. If all are taken, a script that waits for the body of a slow client is terminated,
    /// because such clients could otherwise prevent all others from running scripts.
    pub(super) fn admit(self: &Arc<Shared>, most: usize) -> Result<(), SpawnError> {
        let mut state = self.lock();
        let full = state.alive >= most && !state.ending;
        if full && (state.alive > state.held || state.evict_slowest(Instant::now())) {
            let is_full = |state: &mut State| state.alive >= most && !state.ending;
            state.waiting += 1;
            if state.napping {
                state.wake();
            }
            let waited = self.room.wait_timeout_while(state, PLACE_WAIT, is_full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        if state.ending || state.alive >= most {
            return Err(SpawnError::Busy);
        }
        if state.thread.is_none() {
            let (wake_pipe, thread) = start(self).map_err(|_| SpawnError::Exhausted)?;
            (state.wake_pipe, state.thread) = (Some(wake_pipe), Some(thread));
        }
        state.alive += 1;
        state.held += 1;
        state.is_crowded = state.alive > most / 4 * 3;
        Ok(())
    }

    /// Returns a place: nothing was started, or the script was reaped.
    pub(super) fn release_place(&self) {
        let mut state = self.lock();
        state.alive -= 1;
        if state.ending {
            state.wake();
        }
        drop(state);
        self.room.notify_one();
    }

    /// The script is not held by an exchange any more.
    pub(super) fn released(&self) {
        self.lock().held -= 1;
    }

    /// Begins to track the input of a script.
    pub(super) fn begin_intake(&self, id: u64, leader: &Arc<Leader>) -> Arc<Intake> {
        let leader = Arc::clone(leader);
        let intake =
            Intake { id, leader, since: Instant::now(), taken: AtomicU64::new(0), is_full: AtomicBool::new(false) };
        let intake = Arc::new(intake);
        self.lock().intakes.push(Arc::clone(&intake));
        intake
    }

    /// Ends the tracking of a script's input.
    pub(super) fn end_intake(&self, id: u64) {
        self.lock().intakes.retain(|intake| intake.id != id);
    }

    /// Passes a started script to the reaper.
    pub(super) fn add(&self, child: ReapedChild) {
        self.lock().add_work(|state| state.arrivals.push(child));
    }

    /// Passes a script to the reaper if `ask` has a launcher start it. Until then, no reports are processed, since
    /// one could be about this script.
    pub(super) fn add_if(&self, child: ReapedChild, ask: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _asking = self.asking.read().unwrap_or_else(PoisonError::into_inner);
        ask()?;
        self.add(child);
        Ok(())
    }

    /// Ensures that a script that was signalled to terminate does.
    pub(super) fn kill(&self, id: u64) {
        self.lock().add_work(|state| state.kills.push(id));
    }

    /// Passes the output of a script to the reaper, since it cannot be sent any more.
    pub(super) fn drain_output(&self, id: u64, output: Option<OwnedFd>) {
        let Some(output) = output else { return };
        self.lock().add_work(|state| state.leftovers.push((id, output)));
    }

    /// The launcher of scripts that run as this user and group. It is started if there is none, or if that of the
    /// server has changed. `None`: the configuration has none.
    pub(super) fn launcher(&self, launcher: &Launcher, user: Option<(u32, u32)>) -> io::Result<Option<Arc<Process>>> {
        if *launcher == Launcher::None {
            return Ok(None);
        }
        let mut process = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if process.as_ref().is_none_or(|process| process.user() != user) {
            *process = Process::start(launcher, user)?.map(Arc::new);
            // The reaper takes it over with its first script.
            self.new_launchers.lock().unwrap_or_else(PoisonError::into_inner).extend(process.clone());
        }
        Ok(process.clone())
    }

    /// A new launcher after one that has ended.
    pub(super) fn another_launcher(&self, gone: &Arc<Process>, launcher: &Launcher) -> io::Result<Arc<Process>> {
        let mut process = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        process.take_if(|process| Arc::ptr_eq(process, gone));
        drop(process);
        self.launcher(launcher, gone.user())?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes launchers that have ended. Each is reaped when it is not used any more.
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

    #[cfg(test)]
    pub(super) fn naps(&self) -> usize {
        self.lock().naps
    }

    /// Kills all scripts, and waits until they have ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let Some(thread) = state.thread.take() else { return };
        state.ending = true;
        state.wake();
        drop(state);
        let _ = thread.join();
        drop(self.launcher.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.new_launchers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut state = self.lock();
        state.ending = false;
        state.wake_pipe = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(shared: &Arc<Shared>) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (wakes, wake_pipe) = sanserve_os::pipe()?;
    ioctl_fionbio(&wakes, true)?;
    ioctl_fionbio(&wake_pipe, true)?;
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name("scripts".into()).spawn(move || run(&shared, &wakes))?;
    Ok((wake_pipe, thread))
}

/// The progress of a script's input.
#[derive(Debug)]
pub(super) struct Intake {
    id: u64,
    leader: Arc<Leader>,
    since: Instant,
    /// Bytes that the script's pipe has accepted.
    taken: AtomicU64,
    /// The pipe is full for now, so the client is not what is slow.
    is_full: AtomicBool,
}

impl Intake {
    pub(super) fn took(&self, n: usize) {
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
    }

    pub(super) fn became_full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// The average rate in bytes per second. `None`: it is too early to tell, or the script is what is slow.
    fn pace(&self, now: Instant) -> Option<u64> {
        let time = now.saturating_duration_since(self.since);
        let is_known = time >= MIN_PLACE_TIME && !self.is_full.load(Ordering::Relaxed);
        is_known.then(|| self.taken.load(Ordering::Relaxed) / time.as_secs().max(1))
    }
}

/// The leader of a script's process group, before and after it was reaped.
#[derive(Debug)]
pub(super) struct Leader {
    life: Mutex<Life>,
    /// Whether it was sent a signal.
    signalled: AtomicBool,
    /// Whether it was terminated because its body is slow and another script needs its place.
    evicted: AtomicBool,
}

#[derive(Debug)]
enum Life {
    /// Running, or a zombie: its process id is not reused.
    Unreaped(Child),
    /// It belongs to the launcher, under this number.
    Launched(Arc<Process>, u64),
    Reaped(Option<Ending>),
}

impl Leader {
    pub(super) fn new(child: Child) -> Leader {
        Leader::with(Life::Unreaped(child))
    }

    /// Another launcher was asked to start it.
    pub(super) fn relaunched(&self, by: Arc<Process>) {
        if let Life::Launched(process, _) = &mut *self.life() {
            *process = by;
        }
    }

    pub(super) fn launched(process: Arc<Process>, id: u64) -> Leader {
        Leader::with(Life::Launched(process, id))
    }

    fn with(life: Life) -> Leader {
        Leader { life: Mutex::new(life), signalled: AtomicBool::new(false), evicted: AtomicBool::new(false) }
    }

    /// Whether it was terminated for another script.
    pub(super) fn was_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the group, unless it was reaped.
    fn signal(&self, signal: Signal) {
        match &*self.life() {
            Life::Unreaped(child) => {
                self.signalled.store(true, Ordering::Relaxed);
                let _ = kill_process_group(Pid::from_child(child), signal);
            }
            Life::Launched(process, id) => {
                self.signalled.store(true, Ordering::Relaxed);
                process.signal(*id, signal);
            }
            Life::Reaped(_) => {}
        }
    }

    /// Sends SIGTERM to the group.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Called when the leader has exited: kills the rest of its group, and reaps it. For a script of a launcher,
    /// `reported` is the report of that. `false`: it was known already, or not reported yet.
    pub(super) fn reap(&self, reported: Option<Ending>) -> bool {
        let mut life = self.life();
        let ending = match &mut *life {
            Life::Reaped(_) => return false,
            Life::Launched(..) if reported.is_none() => return false,
            Life::Launched(..) => reported,
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

    /// Whether it was started by a launcher, and is not known to be reaped.
    pub(super) fn is_launched(&self) -> bool {
        matches!(&*self.life(), Life::Launched(..))
    }

    fn is_launched_by(&self, other: &Arc<Process>) -> bool {
        matches!(&*self.life(), Life::Launched(process, _) if Arc::ptr_eq(process, other))
    }

    /// How it ended, once it was reaped.
    pub(super) fn ending(&self) -> Option<Ending> {
        match &*self.life() {
            Life::Reaped(ending) => *ending,
            Life::Unreaped(_) | Life::Launched(..) => None,
        }
    }

    /// Whether it was sent a signal.
    pub(super) fn was_signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    fn is_reaped(&self) -> bool {
        matches!(&*self.life(), Life::Reaped(_))
    }

    /// Whether it is a child of this process that has exited.
    fn is_zombie(&self) -> bool {
        let Life::Unreaped(child) = &*self.life() else { return false };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None) | Err(Errno::INTR))
    }
}

/// A script under the supervision of the reaper.
#[derive(Debug)]
pub(super) struct ReapedChild {
    pub(super) id: u64,
    pub(super) leader: Arc<Leader>,
    /// Readable when the leader has exited. Without it, the script is polled.
    pub(super) exit: Option<OwnedFd>,
    /// Closed to report the exit to the exchange, if that has no other descriptor for it.
    pub(super) exit_notice: Option<OwnedFd>,
    /// The report of the launcher.
    pub(super) reported: Option<Ending>,
    pub(super) stderr: Option<OwnedFd>,
    /// Its output, once that cannot be sent any more.
    pub(super) leftover: Option<OwnedFd>,
    /// How much it may still print before it is terminated. Without a limit, a script that ignores `SIGPIPE` could
    /// print until its time is up.
    pub(super) drain: u64,
    #[allow(dead_code, reason = "dropping it returns the share")]
    pub(super) share: Option<Share>,
    pub(super) remarks: StderrLogger,
    pub(super) program: Program,
    pub(super) stage: Stage,
    /// When the next stage begins.
    pub(super) due: Option<Instant>,
    pub(super) grace: Duration,
}

/// How far the termination of a script has proceeded.
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

    fn check_due(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            match self.stage {
                Stage::Runs => self.terminate(now),
                Stage::Terminated | Stage::Killed => self.kill(),
            }
        }
    }

    fn has_exited(&self, reported: bool) -> bool {
        reported || self.reported.is_some() || self.leader.is_reaped() || self.is_polled() && self.leader.is_zombie()
    }

    /// Whether its exit is not reported, so that it must be polled.
    fn is_polled(&self) -> bool {
        self.exit.is_none() && !self.leader.is_launched()
    }

    /// Reads once from its stderr, and returns the number of bytes. `None`: nothing is available for now.
    fn read_stderr(&mut self, room: &mut [u8]) -> Option<usize> {
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

    /// Reads and discards output once, and returns the number of bytes.
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

    /// Called when the leader has exited: kills the rest of its group, and reaps it. `false`: the exchange has done
    /// so.
    fn reap(&mut self, room: &mut [u8]) -> bool {
        let reaped = self.leader.reap(self.reported);
        self.exit_notice = None;
        for _ in 0..LAST_READINGS {
            if self.read_stderr(room).is_none() {
                break;
            }
        }
        reaped
    }

    /// Logs how a reaped script has ended.
    fn log_ending(&mut self) {
        self.remarks.end();
        if self.leader.was_evicted() {
            self.remarks
                .say(format_args!("CGI script ended: its client is slow with the body, and others need its place"));
        }
        let Some(ending) = self.leader.ending() else { return };
        if let Some(Refusal { reason, .. }) = self.program.ending(ending) {
            self.remarks.say(format_args!("CGI script not run: {reason}"));
        }
        let Ending::Exited(code) = ending else { return };
        // A termination by a signal is not logged if the server has sent one.
        let was_us = code < 0 && self.leader.was_signalled();
        if code != 0 && !was_us {
            self.remarks.say(format_args!("CGI script exit code {code}"));
        }
    }
}

/// The events of one script.
#[derive(Clone, Copy, Default)]
struct Events {
    exit: bool,
    stderr: bool,
    output: bool,
}

/// The body of the thread.
fn run(shared: &Shared, wakes: &OwnedFd) {
    let mut children: Vec<ReapedChild> = Vec::new();
    let mut kills = Vec::new();
    let mut leftovers = Vec::new();
    let mut launchers: Vec<Arc<Process>> = Vec::new();
    let mut events = Vec::new();
    let mut room = vec![0; ROOM];
    let mut last_moment = None;
    let mut is_loud = false;
    loop {
        let mut state = shared.lock();
        // If scripts keep arriving, being notified of each costs more than everything else.
        let is_urgent = state.waiting > 0 || state.is_crowded || state.ending || is_loud;
        let naps = !state.arrivals.is_empty() && !is_urgent;
        state.napping = naps;
        #[cfg(test)]
        {
            state.naps += usize::from(naps);
        }
        children.append(&mut state.arrivals);
        mem::swap(&mut kills, &mut state.kills);
        mem::swap(&mut leftovers, &mut state.leftovers);
        let (ending, alive) = (state.ending, state.alive);
        drop(state);
        launchers.append(&mut shared.new_launchers.lock().unwrap_or_else(PoisonError::into_inner));

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
            // A script that its exchange has reaped may still have stderr to log.
            let none = alive == 0 && children.is_empty();
            if none || now >= *last_moment.get_or_insert(now + LAST_WAIT) {
                shared.lock().alive -= children.iter().filter(|child| !child.leader.is_reaped()).count();
                return;
            }
        }
        children.iter_mut().for_each(|child| child.check_due(now));

        let mut bound = wake_up(&children, last_moment, now);
        if naps {
            nap(wakes, &launchers, bound);
            bound = Some(Duration::ZERO);
        }
        if wait(wakes, &launchers, &children, bound, &mut events) {
            while read(wakes, &mut room[..]).is_ok_and(|n| n == room.len()) {}
        }
        if let Some((reports, gone)) = new_reports(&mut launchers) {
            // A report may be about a script that has just arrived, or is about to.
            drop(shared.asking.write().unwrap_or_else(PoisonError::into_inner));
            children.append(&mut shared.lock().arrivals);
            events.resize(children.len(), Events::default());
            take_reports(&reports, &gone, &mut children);
            shared.forget(&gone);
        }
        is_loud = process(shared, &mut children, &events, &mut room, now);
    }
}

/// How scripts have ended, by their numbers.
type Reports = Vec<(u64, Ending)>;

/// Reads the reports of launchers, and removes the launchers that have ended. `None`: there are neither.
fn new_reports(launchers: &mut Vec<Arc<Process>>) -> Option<(Reports, Vec<Arc<Process>>)> {
    let (mut reports, mut gone) = (Vec::new(), Vec::new());
    launchers.retain(|launcher| {
        let is_there = launcher.read_reports(|id, ending| reports.push((id, ending)));
        if !is_there {
            gone.push(Arc::clone(launcher));
        }
        is_there
    });
    (!reports.is_empty() || !gone.is_empty()).then_some((reports, gone))
}

/// Processes the events of all scripts. Returns whether a script writes a lot.
fn process(shared: &Shared, children: &mut Vec<ReapedChild>, events: &[Events], room: &mut [u8], now: Instant) -> bool {
    let mut is_loud = false;
    // From the end, so that elements moved by `swap_remove` were already visited.
    for at in (0..children.len()).rev() {
        if children[at].has_exited(events[at].exit) {
            let mut child = children.swap_remove(at);
            let reaped = child.reap(room);
            child.log_ending();
            if reaped {
                shared.release_place();
            }
            continue;
        }
        if events[at].stderr {
            is_loud |= children[at].read_stderr(room).is_some_and(|n| n >= BUSY_READ);
        }
        if events[at].output {
            is_loud |= children[at].drop_output(room, now) >= BUSY_READ;
        }
    }
    is_loud
}

/// Records the reports of launchers. If a launcher has ended, its scripts have too.
fn take_reports(reports: &[(u64, Ending)], gone: &[Arc<Process>], children: &mut [ReapedChild]) {
    for (id, ending) in reports {
        if let Some(child) = children.iter_mut().find(|child| child.id == *id) {
            child.reported = Some(*ending);
        }
    }
    for child in children.iter_mut().filter(|child| gone.iter().any(|launcher| child.leader.is_launched_by(launcher))) {
        child.reported.get_or_insert(Ending::Unknown);
    }
}

/// The longest permitted wait.
fn wake_up(children: &[ReapedChild], last_moment: Option<Instant>, now: Instant) -> Option<Duration> {
    let due = children.iter().filter_map(|child| child.due).chain(last_moment).min();
    let until = due.map(|due| due.saturating_duration_since(now));
    let look = children.iter().any(ReapedChild::is_polled).then_some(POLL_INTERVAL);
    [until, look].into_iter().flatten().min()
}

/// Waits for [`POLL_INTERVAL`] or `bound`, whichever is shorter, or until it is woken. A script that could not be run
/// ends the wait too, because the reason can only be determined while its file is the same.
fn nap(wakes: &OwnedFd, launchers: &[Arc<Process>], bound: Option<Duration>) {
    let bound = bound.map_or(POLL_INTERVAL, |bound| bound.min(POLL_INTERVAL));
    let bound = Timespec::try_from(bound).expect("a short duration");
    let mut fds = vec![PollFd::new(wakes, PollFlags::IN)];
    fds.extend(launchers.iter().map(|launcher| PollFd::new(&launcher.refusals, PollFlags::IN)));
    // The caller checks everything in any case.
    let _ = poll(&mut fds, Some(&bound));
}

/// Waits, and fills in the events of each script. Returns whether it was woken.
fn wait(
    wakes: &OwnedFd,
    launchers: &[Arc<Process>],
    children: &[ReapedChild],
    bound: Option<Duration>,
    events: &mut Vec<Events>,
) -> bool {
    // A deadline that is out of range is never reached.
    let bound = bound.and_then(|bound| Timespec::try_from(bound).ok());
    let mut fds = Vec::with_capacity(1 + launchers.len() + 3 * children.len());
    fds.push(PollFd::new(wakes, PollFlags::IN));
    fds.extend(
        launchers.iter().flat_map(|launcher| launcher.fds()).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
    );
    let of_children = children.iter().flat_map(|child| [&child.exit, &child.stderr, &child.leftover]).flatten();
    fds.extend(of_children.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    let polled = poll(&mut fds, bound.as_ref());
    events.clear();
    events.resize(children.len(), Events::default());
    match polled {
        Ok(0) | Err(Errno::INTR) => return false,
        Ok(_) => {}
        Err(_) => {
            // Out of memory, perhaps temporarily.
            thread::sleep(POLL_INTERVAL);
            return true;
        }
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = || ready.next().expect("one for each descriptor");
    let is_woken = next();
    launchers.iter().flat_map(|launcher| launcher.fds()).for_each(|_| _ = next());
    for (child, events) in children.iter().zip(events) {
        events.exit = child.exit.is_some() && next();
        events.stderr = child.stderr.is_some() && next();
        events.output = child.leftover.is_some() && next();
    }
    is_woken
}

//! Running and supervising scripts (CGI, RFC 3875).
//!
//! The thread that serves an exchange asks the [`launcher`] to start its script, holds one end of the script's input
//! and of its output ([`Running`]), and waits for them as for its socket. Everything else is the task of one thread
//! of the server, the [`reaper`]: stderr, exits, time limits, and orphaned processes. So no script outlives its time
//! limit or the server, whatever happens to its exchange, and no other thread waits for it.
//!
//! Each script leads a process group, with a launcher in the session of that. Its environment consists of the variables from
//! the core and those of [`ScriptRules`]; it inherits neither environment nor descriptors, and if the server is root,
//! no privileges (it runs as `nobody`, as in Python). The script is looked up once more, and started from the
//! descriptor of its directory ([`Root::check_script`]).
//!
//! The variables of the request, and the meaning of the output, are the task of the core.

mod interpreter;
mod launcher;
mod places;
mod reaper;
mod running;
mod stderr_logger;
#[cfg(test)]
pub(crate) mod tests;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchown, stat, statat};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, geteuid, getuid};
use sanserve_core::{Script, ScriptInput, SpawnError};

use crate::log::Log;
use launcher::{Ending, HasNul, Packet, Process, identity};
use reaper::{Leader, ReapedChild, Shared, Stage};
use sanserve_os::Checked;
use sanserve_os::Root;
use stderr_logger::StderrLogger;

pub use launcher::Launcher;
pub(crate) use places::local_address;
pub(crate) use running::Running;

/// How much longer than its time limit a script may live, so that its exchange, if still open, ends it and responds.
const SLACK: Duration = Duration::from_millis(250);

/// The user that scripts run as if the server is root.
const NOBODY: &str = "nobody";

/// Why a server that is root and has a terminal runs no scripts without a launcher.
const SHARED_TERMINAL: &str = "the server is root, and scripts would share its terminal; call Launcher::run_if_asked \
                               first in main, or start the server without a terminal";

/// The rules for all scripts of a server.
///
/// ```
/// use sanserve_server::ScriptRules;
///
/// let rules = ScriptRules::default().with_most(16).with_variable("APP_ENV", "test");
/// assert_eq!(rules.most, 16);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptRules {
    /// The most scripts alive at the same time; beyond that, none is run ([`SpawnError::Busy`]). Default 256. Scripts
    /// may use half of the descriptors of the process, at 8 for each: if that gives a lower limit, it applies.
    pub most: usize,
    /// Environment variables for every script, in addition to the meta-variables, which take precedence. Default:
    /// `PATH`, `LANG` and `TZ` of this process; `/usr/local/bin:/usr/bin:/bin` if it has no `PATH`.
    pub environment: Vec<(OsString, OsString)>,
    /// The total size in bytes of request bodies that are stored in temporary files for scripts: those that are
    /// chunked. Beyond that: 503. Default 4 GiB.
    pub spool_total: u64,
    /// Which process starts scripts. Default: [`Launcher::default`].
    pub launcher: Launcher,
}

impl ScriptRules {
    /// Sets [`most`](Self::most).
    #[must_use]
    pub fn with_most(self, most: usize) -> ScriptRules {
        ScriptRules { most, ..self }
    }

    /// Adds one variable to [`environment`](Self::environment).
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> ScriptRules {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets [`spool_total`](Self::spool_total).
    #[must_use]
    pub fn with_spool_total(self, spool_total: u64) -> ScriptRules {
        ScriptRules { spool_total, ..self }
    }

    /// Sets [`launcher`](Self::launcher).
    #[must_use]
    pub fn with_launcher(self, launcher: Launcher) -> ScriptRules {
        ScriptRules { launcher, ..self }
    }
}

impl Default for ScriptRules {
    fn default() -> ScriptRules {
        let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut environment = vec![("PATH".into(), path)];
        environment.extend(["LANG", "TZ"].iter().filter_map(|name| Some((name.into(), env::var_os(name)?))));
        ScriptRules { most: 256, environment, spool_total: 4 << 30, launcher: Launcher::default() }
    }
}

/// The scripts of a server. Dropping this kills those that are alive; see [`Scripts::end`].
#[derive(Debug)]
pub struct Scripts {
    rules: ScriptRules,
    root: Arc<Root>,
    shared: Arc<Shared>,
    next: AtomicU64,
    /// The total size of all spools.
    spooled: Arc<AtomicU64>,
    nobody: OnceLock<Option<(u32, u32)>>,
    /// Exits are polled, as on a system without process descriptors.
    polls_exits: bool,
    /// Whether this process has a controlling terminal, which scripts would share without a launcher.
    has_terminal: fn() -> bool,
}

/// The most descriptors that a script takes on any frontend: its pipes, its exit, and duplicates.
const DESCRIPTORS: usize = 8;

/// The body of a request, in a file without a name.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    share: Share,
}

/// The share of a spool in the total size. Dropping it returns the share.
#[derive(Debug)]
struct Share {
    len: u64,
    all: Arc<AtomicU64>,
}

impl Share {
    fn give_back(&mut self, len: u64) {
        self.len -= len;
        self.all.fetch_sub(len, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.len);
    }
}

fn has_terminal() -> bool {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}

fn write_some(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}

/// A script to run, without its location.
#[derive(Clone, Debug)]
struct Errand<'a> {
    path: &'a [u8],
    input: ScriptInput,
    time: Duration,
    grace: Duration,
    drain: u64,
    translated: Option<&'a [u8]>,
    /// The local address of the connection.
    local: Option<IpAddr>,
    arguments: Vec<&'a [u8]>,
    environment: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Errand<'a> {
    fn new(script: &Script<'a>, local: Option<IpAddr>) -> Errand<'a> {
        Errand {
            path: script.path,
            input: script.input,
            time: script.time,
            grace: script.grace,
            drain: script.drain,
            translated: script.translated,
            local,
            arguments: script.arguments().collect(),
            environment: script.environment().collect(),
        }
    }
}

/// A script that was found and may be run.
struct Plan<'a> {
    errand: &'a Errand<'a>,
    root: &'a Path,
    program: Program,
    log: &'a Log,
}

impl Scripts {
    /// The scripts beneath `root`.
    #[must_use]
    pub fn new(rules: ScriptRules, root: Arc<Root>) -> Scripts {
        Scripts {
            rules,
            root,
            shared: Arc::default(),
            next: AtomicU64::new(0),
            spooled: Arc::default(),
            nobody: OnceLock::new(),
            polls_exits: !cfg!(target_os = "linux"),
            has_terminal,
        }
    }

    /// The scripts beneath `root`, with the default rules.
    pub(crate) fn beneath(root: Arc<Root>) -> Scripts {
        Scripts::new(ScriptRules::default(), root)
    }

    /// The same for another server. The end of a server ends its scripts.
    pub(crate) fn for_another_server(&self) -> Scripts {
        Scripts::new(self.rules.clone(), Arc::clone(&self.root))
    }

    /// The root directory of the scripts.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// How many scripts are alive: started, and not reaped yet.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.shared.alive()
    }

    /// How many scripts may be alive at the same time: [`ScriptRules::most`], or what the descriptors permit.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.rules.most.min(sanserve_os::nofile_limit() / 2 / DESCRIPTORS).max(1.min(self.rules.most))
    }

    /// The number of descriptors that scripts may take.
    pub(crate) fn descriptors(&self) -> usize {
        self.bound() * DESCRIPTORS
    }

    /// Creates a spool for the body of a request.
    pub(crate) fn spool(&self) -> io::Result<Spool> {
        Ok(Spool { file: tempfile::tempfile()?, share: Share { len: 0, all: Arc::clone(&self.spooled) } })
    }

    /// Writes a part of a body to its spool. `None`: the total size of all spools is reached.
    pub(crate) fn write_spool(&self, spool: &mut Spool, bytes: &[u8]) -> Option<io::Result<usize>> {
        let len = bytes.len() as u64;
        let most = self.rules.spool_total;
        let fits = |all: u64| all.checked_add(len).filter(|sum| *sum <= most);
        self.spooled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        spool.share.len += len;
        let written = write_some(&mut spool.file, bytes);
        spool.share.give_back(len - written.as_ref().map_or(0, |n| *n as u64));
        Some(written)
    }

    /// Kills all scripts with their process groups, and waits until they have ended. No script can be started
    /// meanwhile, but again afterwards.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Runs a script. `spool` is its input, if that is [`ScriptInput::Spooled`], and `local` the local address of its
    /// connection, if it has one.
    ///
    /// # Errors
    /// As described by [`SpawnError`]; the last two are logged. With a launcher, errors of the system are reported
    /// later ([`ScriptRead::Failed`]).
    pub(crate) fn spawn(
        &self,
        script: &Script<'_>,
        spool: Option<Spool>,
        local: Option<IpAddr>,
        log: &Log,
    ) -> Result<Running, SpawnError> {
        self.run(&Errand::new(script, local), spool, log)
    }

    /// Terminates a script: SIGTERM, then SIGKILL after its grace.
    pub(crate) fn kill(&self, running: &Running) {
        // Signalled now, so that it does not take the end of its input for the end of the body.
        running.leader.terminate();
        self.shared.kill(running.id);
    }

    fn run(&self, errand: &Errand<'_>, spool: Option<Spool>, log: &Log) -> Result<Running, SpawnError> {
        self.shared.admit(self.bound())?;
        let refusal = match self.start(errand, spool, log) {
            Ok(running) => return Ok(running),
            Err(refusal) => refusal,
        };
        self.shared.released();
        self.shared.release_place();
        match refusal.error {
            SpawnError::Busy | SpawnError::Exhausted => {}
            _ => {
                let remarks = StderrLogger::new(log.clone(), errand.path);
                remarks.say(format_args!("CGI script not run: {}", refusal.reason));
            }
        }
        Err(refusal.error)
    }

    fn start(&self, errand: &Errand<'_>, spool: Option<Spool>, log: &Log) -> Result<Running, Refusal> {
        let user = self.script_user()?;
        let root = self.root.resolved_path();
        let program = Program { path: root.join(OsStr::from_bytes(errand.path)), user };
        let checked = self.root.check_script(errand.path).map_err(|error| program.refusal(error))?;
        let pipes = Pipes::new(errand.input, spool, user)?;
        let plan = Plan { errand, root: &root, program, log };
        match self.shared.launcher(&self.rules.launcher, user) {
            Ok(Some(process)) => self.launch(process, plan, &checked, pipes),
            // The script could inject input into root's shell.
            Ok(None) if user.is_some() && (self.has_terminal)() => {
                Err(Refusal::new(SpawnError::Denied, SHARED_TERMINAL))
            }
            Ok(None) => {
                let child = self.command(&plan, &checked, pipes.theirs)?.spawn();
                let child = child.map_err(|error| plan.program.refused(error))?;
                Ok(self.supervise(child, plan, pipes.ours, pipes.supervised)?)
            }
            Err(error) => {
                log.error(format_args!("the launcher of CGI scripts cannot be started: {error}"));
                Err(Refusal::new(SpawnError::Exhausted, error))
            }
        }
    }

    /// Orders the launcher to start the script, without waiting for it.
    fn launch(
        &self,
        mut process: Arc<Process>,
        plan: Plan<'_>,
        checked: &Checked,
        pipes: Pipes,
    ) -> Result<Running, Refusal> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let order = self
            .order(id, &plan, checked)
            .map_err(|HasNul| Refusal::new(SpawnError::Failed, "a NUL in its arguments or environment"))?;
        let (exit, tell) = sanserve_os::pipe()?;
        ioctl_fionbio(&exit, true)?;
        let Pipes { ours, supervised, theirs } = pipes;
        let log = plan.log;
        let mut fds = vec![checked.directory.as_fd(), theirs.output.as_fd(), theirs.stderr.as_fd(), tell.as_fd()];
        fds.extend(theirs.input.as_ref().map(AsFd::as_fd));
        let leader = Arc::new(Leader::launched(Arc::clone(&process), id));
        let child = plan.child(id, &leader, supervised);
        let sent = self.shared.add_if(child, || match process.spawn(&order, &fds) {
            // A launcher that has ended is replaced, once.
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                process = self.shared.another_launcher(&process, &self.rules.launcher)?;
                leader.relaunched(Arc::clone(&process));
                process.spawn(&order, &fds).map_err(io::Error::from)
            }
            sent => sent.map_err(io::Error::from),
        });
        match sent {
            Ok(()) => Ok(self.running(id, leader, ours, exit)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                Err(Refusal::new(SpawnError::Failed, "its arguments and its environment are too long"))
            }
            Err(error) => {
                log.error(format_args!("the launcher of CGI scripts accepts no orders: {error}"));
                Err(Refusal::new(SpawnError::Exhausted, error))
            }
        }
    }

    fn order(&self, id: u64, plan: &Plan<'_>, checked: &Checked) -> Result<Packet, HasNul> {
        let Plan { errand, root, program, .. } = plan;
        let mut packet = Packet::new(id, identity(&checked.stat), self.shared.is_crowded());
        packet.text(&[program.directory().as_os_str().as_bytes()])?;
        packet.text(&[b"./", program.file_name().as_bytes()])?;
        packet.list();
        packet.text(&[program.path.as_os_str().as_bytes()])?;
        for argument in &errand.arguments {
            packet.text(&[argument])?;
        }
        let places: Vec<_> = places::variables(root, errand).collect();
        let is_defined = |name: &OsStr| {
            let mut defined = errand.environment.iter().map(|(other, _)| *other);
            defined.any(|other| other == name.as_bytes()) || places.iter().any(|(other, _)| *other == name)
        };
        packet.list();
        for (name, value) in self.rules.environment.iter().filter(|(name, _)| !is_defined(name)) {
            packet.text(&[name.as_bytes(), b"=", value.as_bytes()])?;
        }
        for (name, value) in &errand.environment {
            packet.text(&[name, b"=", value])?;
        }
        for (name, value) in &places {
            packet.text(&[name.as_bytes(), b"=", value.as_bytes()])?;
        }
        Ok(packet)
    }

    fn command(&self, plan: &Plan<'_>, checked: &Checked, theirs: Theirs) -> Result<Command, Refusal> {
        let Plan { errand, root, program, .. } = plan;
        // The directory is entered by its path, which must still lead to it.
        let place = program.directory();
        let there = rustix::fs::fstat(&checked.directory)?;
        let same =
            |stat: Result<rustix::fs::Stat, Errno>, other| stat.is_ok_and(|stat| identity(&stat) == identity(other));
        let name = program.name();
        if !same(stat(place), &there) || !same(statat(&checked.directory, &name, AtFlags::empty()), &checked.stat) {
            return Err(program.ending(Ending::Replaced).unwrap_or_else(|| Errno::NOENT.into()));
        }
        let mut command = Command::new(&name);
        command
            .current_dir(place)
            .args(errand.arguments.iter().map(|argument| OsStr::from_bytes(argument)))
            .env_clear()
            .envs(self.rules.environment.iter().map(|(name, value)| (name, value)))
            .envs(errand.environment.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))))
            .process_group(0)
            .stdin(theirs.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::from(theirs.output))
            .stderr(Stdio::from(theirs.stderr));
        command.envs(places::variables(root, errand));
        if let Some((user, group)) = program.user {
            // Switching to another user than root drops the supplementary groups, too.
            command.gid(group).uid(user);
        }
        Ok(command)
    }

    /// The user and group to switch to, if any.
    fn script_user(&self) -> Result<Option<(u32, u32)>, Refusal> {
        let denied = |reason: &str| Refusal::new(SpawnError::Denied, reason);
        if !geteuid().is_root() {
            return Ok(None);
        }
        if !getuid().is_root() {
            // The supplementary groups would not be dropped.
            return Err(denied("the server is root by its set-user-ID bit"));
        }
        let nobody = *self.nobody.get_or_init(|| user(&fs::read("/etc/passwd").ok()?, NOBODY));
        nobody.map(Some).ok_or_else(|| denied("the server is root, and there is no user nobody"))
    }

    /// Passes the process to the reaper, and keeps the pipes.
    fn supervise(
        &self,
        child: Child,
        plan: Plan<'_>,
        ours: Ours,
        supervised: Supervised,
    ) -> Result<Running, SpawnError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let pid = Pid::from_child(&child);
        let leader = Arc::new(Leader::new(child));
        let mut child = plan.child(id, &leader, supervised);
        let exit = self.prepare(&mut child, pid);
        if exit.is_err() {
            // The script has started, but its exit could not be waited for.
            child.kill();
        }
        self.shared.add(child);
        match exit {
            Ok(exit) => Ok(self.running(id, leader, ours, exit)),
            Err(_) => {
                self.shared.released();
                Err(SpawnError::Exhausted)
            }
        }
    }

    /// The running script, with the local ends of its pipes and the descriptor of its exit.
    fn running(&self, id: u64, leader: Arc<Leader>, Ours { input, output }: Ours, exit: OwnedFd) -> Running {
        let shared = Arc::clone(&self.shared);
        let intake = input.as_ref().map(|_| shared.begin_intake(id, &leader));
        Running {
            id,
            leader,
            shared,
            input,
            intake,
            full: false,
            output: Some(output),
            over: false,
            is_refused: false,
            exit,
        }
    }

    /// Creates the descriptors that report the exit of the leader to the reaper and to the exchange. There are two,
    /// because a driver must be able to close its own, which a duplicate would not remove from what it waits for.
    fn prepare(&self, child: &mut ReapedChild, pid: Pid) -> io::Result<OwnedFd> {
        if !self.polls_exits {
            match exit_of(pid) {
                Ok(exit) => {
                    child.exit = Some(exit);
                    return Ok(exit_of(pid)?);
                }
                // Before Linux 5.3, or under an old seccomp profile.
                Err(Errno::NOSYS | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (exit, tell) = sanserve_os::pipe()?;
        child.exit_notice = Some(tell);
        Ok(exit)
    }
}

impl Plan<'_> {
    /// The started script as the reaper sees it.
    fn child(self, id: u64, leader: &Arc<Leader>, Supervised { stderr, share }: Supervised) -> ReapedChild {
        let Plan { errand, program, log, .. } = self;
        ReapedChild {
            id,
            leader: Arc::clone(leader),
            exit: None,
            exit_notice: None,
            reported: None,
            stderr: Some(stderr),
            share,
            remarks: StderrLogger::new(log.clone(), errand.path),
            program,
            stage: Stage::Runs,
            due: Instant::now().checked_add(errand.time.saturating_add(SLACK)),
            grace: errand.grace,
            leftover: None,
            drain: errand.drain,
        }
    }
}

/// The pipes of a script. The local ends are non-blocking.
struct Pipes {
    ours: Ours,
    supervised: Supervised,
    theirs: Theirs,
}

/// The local ends that belong to the exchange.
struct Ours {
    input: Option<OwnedFd>,
    output: OwnedFd,
}

/// What belongs to the reaper.
struct Supervised {
    stderr: OwnedFd,
    /// The share of the spool.
    share: Option<Share>,
}

struct Theirs {
    /// `None`: there is no input.
    input: Option<OwnedFd>,
    output: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    /// Creates pipes that belong to `user`, so that a script can open `/dev/stdin` and the like.
    fn new(input: ScriptInput, spool: Option<Spool>, user: Option<(u32, u32)>) -> Result<Pipes, Refusal> {
        let give = |fd: &OwnedFd| match user {
            Some((user, group)) => fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))),
            None => Ok(()),
        };
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reads, writes) = sanserve_os::pipe()?;
            // Both ends are the same file.
            give(&reads)?;
            Ok((reads, writes))
        };
        let (output, their_output) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let mut share = None;
        let (our_input, their_input) = match input {
            ScriptInput::Empty => (None, None),
            ScriptInput::Piped => {
                let (theirs, ours) = pipe()?;
                (Some(ours), Some(theirs))
            }
            ScriptInput::Spooled => {
                let spool = spool.ok_or_else(|| Refusal::new(SpawnError::Failed, "its input is gone"))?;
                let Spool { mut file, share: of_spool } = spool;
                file.rewind()?;
                let file = OwnedFd::from(file);
                give(&file)?;
                share = Some(of_spool);
                (None, Some(file))
            }
        };
        for fd in [Some(&output), Some(&stderr), our_input.as_ref()].into_iter().flatten() {
            ioctl_fionbio(fd, true)?;
        }
        Ok(Pipes {
            ours: Ours { input: our_input, output },
            supervised: Supervised { stderr, share },
            theirs: Theirs { input: their_input, output: their_output, stderr: their_stderr },
        })
    }
}

/// A program and its user, for explaining why it could not be run.
#[derive(Debug)]
struct Program {
    /// The absolute path.
    path: PathBuf,
    /// The user that it runs as, if not that of the server.
    user: Option<(u32, u32)>,
}

impl Program {
    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Its name relative to its directory.
    fn name(&self) -> OsString {
        let mut name = OsString::from("./");
        name.push(self.file_name());
        name
    }

    fn file_name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Why it could not be run, if this ending means that.
    fn ending(&self, ending: Ending) -> Option<Refusal> {
        match ending {
            Ending::Exited(_) | Ending::Unknown => None,
            Ending::Refused(error) => Some(self.refused(io::Error::from_raw_os_error(error))),
            Ending::Unreachable => Some(self.refused(Errno::ACCESS.into())),
            Ending::Replaced => Some(Refusal::new(SpawnError::Failed, "another file has taken its place")),
        }
    }

    fn refusal(&self, error: Errno) -> Refusal {
        self.refused(error.into())
    }

    /// Why it could not be run, from the error of the system.
    fn refused(&self, error: io::Error) -> Refusal {
        let why = interpreter::explain(&self.path, &error);
        let refusal = Refusal::from(error);
        if let Some(obstacle) = self.obstacle().filter(|_| refusal.error == SpawnError::Denied) {
            return Refusal::new(refusal.error, obstacle);
        }
        match why {
            Some(why) => Refusal::new(refusal.error, format_args!("{why} ({})", refusal.reason)),
            None => refusal,
        }
    }

    /// The directory on the way that its user may not search, according to the permissions.
    fn obstacle(&self) -> Option<String> {
        let (user, group) = self.user?;
        let directories: Vec<&Path> = self.directory().ancestors().collect();
        directories.into_iter().rev().find_map(|directory| {
            let stat = stat(directory).ok()?;
            let mode = Mode::from_raw_mode(stat.st_mode);
            let needed = match (stat.st_uid == user, stat.st_gid == group) {
                (true, _) => Mode::XUSR,
                (_, true) => Mode::XGRP,
                _ => Mode::XOTH,
            };
            let shown = directory.display();
            let bits = mode.bits() & 0o7777;
            (!mode.contains(needed)).then(|| {
                format!(
                    "the user {NOBODY} ({user}) must not search the directory {shown} (mode {bits:04o}); \
                     serve another one, or allow it with chmod o+x"
                )
            })
        })
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a script could not be run, with the reason for the log.
struct Refusal {
    error: SpawnError,
    reason: String,
}

impl Refusal {
    fn new(error: SpawnError, reason: impl Display) -> Refusal {
        Refusal { error, reason: reason.to_string() }
    }
}

impl From<SpawnError> for Refusal {
    fn from(error: SpawnError) -> Refusal {
        Refusal { error, reason: String::new() }
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::new(Errno::from_io_error(&error).map_or(SpawnError::Failed, spawn_error), error)
    }
}

fn spawn_error(error: Errno) -> SpawnError {
    match error {
        Errno::ACCESS | Errno::PERM => SpawnError::Denied,
        Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => SpawnError::Exhausted,
        _ => SpawnError::Failed,
    }
}

/// Why a script could not be run, if the ending means that.
fn sort(ending: Ending) -> Option<SpawnError> {
    match ending {
        Ending::Exited(_) | Ending::Unknown => None,
        Ending::Refused(error) => Some(spawn_error(Errno::from_raw_os_error(error))),
        Ending::Unreachable => Some(SpawnError::Denied),
        Ending::Replaced => Some(SpawnError::Failed),
    }
}

#[cfg(target_os = "linux")]
fn exit_of(pid: Pid) -> Result<OwnedFd, Errno> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn exit_of(_: Pid) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// The ids of a user and its group in a file such as `/etc/passwd`. Neither may be root's.
fn user(passwd: &[u8], name: &str) -> Option<(u32, u32)> {
    let mut ids = passwd.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        let found = fields.next()? == name;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (found && user != 0 && group != 0).then_some((user, group))
    });
    ids.next()
}

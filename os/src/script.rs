//! Scripts (CGI, RFC 3875): how they are run, and who looks after them.
//!
//! A script is spawned by the thread that serves its exchange, which holds one end of its input and
//! of its output ([`Running`]) and waits for them as for its socket. Everything else is for one
//! thread of the server's, the [`attendant`]: what scripts say on their stderr, their end, their
//! time, and what they leave behind. So a script outlives neither its time nor the server, whatever
//! becomes of its exchange, and no thread waits for it.
//!
//! Each script leads a process group. It is told what the core has put together for it and what
//! [`ScriptRules`] add, and inherits nothing: no environment, no descriptor, and if the server is
//! root, no privilege (it runs as `nobody`, as Python's do).
//!
//! This module leaves out what a script is told and what its answer means: that is the core's.

mod attendant;
mod places;
mod remarks;
mod running;
#[cfg(test)]
pub(crate) mod tests;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, geteuid, getuid};
use sanserve_core::{Script, ScriptInput, SpawnError};

use crate::beneath::Root;
use crate::log::Log;
use attendant::{Leader, Shared, Stage, Ward};
use remarks::Remarks;

pub(crate) use places::local_address;
pub(crate) use running::Running;
pub use running::{ScriptFds, ScriptRead};

/// What a script lives longer than its time, so that its exchange, if it is still open, ends it and
/// answers.
const SLACK: Duration = Duration::from_millis(250);

/// Whom scripts run as if the server is root.
const NOBODY: &str = "nobody";

/// The rules for all scripts of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptRules {
    /// Scripts alive at once; beyond that, none is run ([`SpawnError::Busy`]). Default 256.
    pub most: usize,
    /// What every script is told beside the meta-variables, which go before. Default: `PATH`, `LANG`
    /// and `TZ` where this process has them; `/usr/local/bin:/usr/bin:/bin` if it has no `PATH`.
    pub environment: Vec<(OsString, OsString)>,
}

impl Default for ScriptRules {
    fn default() -> ScriptRules {
        let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut environment = vec![("PATH".into(), path)];
        environment.extend(["LANG", "TZ"].iter().filter_map(|name| Some((name.into(), env::var_os(name)?))));
        ScriptRules { most: 256, environment }
    }
}

/// The scripts of a server. When this is dropped, those that are alive are killed; see [`Scripts::end`].
#[derive(Debug)]
pub struct Scripts {
    rules: ScriptRules,
    root: Arc<Root>,
    shared: Arc<Shared>,
    next: AtomicU64,
    nobody: OnceLock<Option<(u32, u32)>>,
    /// Exits are looked for, not told: as on a system without process descriptors.
    by_looking: bool,
}

/// A script to be run, apart from where it comes from.
#[derive(Clone, Debug)]
struct Errand<'a> {
    path: &'a [u8],
    input: ScriptInput,
    time: u64,
    grace: u64,
    translated: Option<&'a [u8]>,
    /// Our end of the connection.
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
            translated: script.translated,
            local,
            arguments: script.arguments().collect(),
            environment: script.environment().collect(),
        }
    }
}

impl Scripts {
    /// Scripts beneath `root`.
    #[must_use]
    pub fn new(rules: ScriptRules, root: Arc<Root>) -> Scripts {
        Scripts {
            rules,
            root,
            shared: Arc::default(),
            next: AtomicU64::new(0),
            nobody: OnceLock::new(),
            by_looking: !cfg!(target_os = "linux"),
        }
    }

    /// The root that the scripts lie beneath.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// How many are alive: were run, and have not been reaped yet.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.shared.alive()
    }

    /// Kills all scripts, at once and with their process groups, and waits until they are gone.
    /// Meanwhile none can be run; afterwards they can.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Runs a script. `spool` is its input, if that is [`ScriptInput::Spooled`], and `local` our end of its
    /// connection, if that has an address.
    ///
    /// # Errors
    /// As [`SpawnError`] tells them apart; the last two are logged.
    pub(crate) fn spawn(
        &self,
        script: &Script<'_>,
        spool: Option<File>,
        local: Option<IpAddr>,
        log: &Log,
    ) -> Result<Running, SpawnError> {
        self.run(&Errand::new(script, local), spool, log)
    }

    /// Ends a script in time: SIGTERM, SIGKILL after its grace.
    pub(crate) fn kill(&self, running: &Running) {
        // At once, so that it does not see the end of its input and take it for the end of the body.
        running.leader.terminate();
        self.shared.kill(running.id);
    }

    fn run(&self, errand: &Errand<'_>, spool: Option<File>, log: &Log) -> Result<Running, SpawnError> {
        self.shared.admit(self.rules.most)?;
        let started = self.command(errand, spool).and_then(|mut command| command.spawn().map_err(Refusal::from));
        match started {
            Ok(child) => self.entrust(child, errand, log),
            Err(refusal) => {
                self.shared.let_go();
                self.shared.dismiss();
                let remarks = Remarks::new(log.clone(), errand.path);
                match refusal.error {
                    SpawnError::Busy | SpawnError::Exhausted => {}
                    SpawnError::Denied | SpawnError::Failed => {
                        remarks.say(format_args!("CGI script not run: {}", refusal.reason));
                    }
                }
                Err(refusal.error)
            }
        }
    }

    fn command(&self, errand: &Errand<'_>, spool: Option<File>) -> Result<Command, Refusal> {
        let program = self.root.path().join(OsStr::from_bytes(errand.path));
        let mut command = Command::new(&program);
        command
            .current_dir(program.parent().unwrap_or(self.root.path()))
            .args(errand.arguments.iter().map(|argument| OsStr::from_bytes(argument)))
            .env_clear()
            .envs(self.rules.environment.iter().map(|(name, value)| (name, value)))
            .envs(errand.environment.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))))
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(match errand.input {
                ScriptInput::Empty => Stdio::null(),
                ScriptInput::Piped => Stdio::piped(),
                ScriptInput::Spooled => {
                    let mut spool = spool.ok_or_else(|| Refusal::new(SpawnError::Failed, "its input is gone"))?;
                    spool.rewind()?;
                    spool.into()
                }
            });
        command.envs(places::variables(self.root.path(), errand));
        if let Some((user, group)) = self.person()? {
            // A user other than root's has the supplementary groups dropped, too.
            command.gid(group).uid(user);
        }
        Ok(command)
    }

    /// Whom to become, if not oneself.
    fn person(&self) -> Result<Option<(u32, u32)>, Refusal> {
        let denied = |reason: &str| Refusal::new(SpawnError::Denied, reason);
        if !geteuid().is_root() {
            return Ok(None);
        }
        if !getuid().is_root() {
            // Groups would not be dropped.
            return Err(denied("the server is root by its set-user-ID bit"));
        }
        let nobody = *self.nobody.get_or_init(|| user(&fs::read("/etc/passwd").ok()?, NOBODY));
        nobody.map(Some).ok_or_else(|| denied("the server is root, and there is no user nobody"))
    }

    /// Hands the process over to the attendant, and keeps the pipes.
    fn entrust(&self, mut child: Child, errand: &Errand<'_>, log: &Log) -> Result<Running, SpawnError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let input = child.stdin.take().map(OwnedFd::from);
        let output = child.stdout.take().map(OwnedFd::from).expect("it was piped");
        let stderr = child.stderr.take().map(OwnedFd::from);
        let leader = Arc::new(Leader::new(child));
        let mut ward = Ward {
            id,
            leader: Arc::clone(&leader),
            exit: None,
            tell: None,
            stderr,
            remarks: Remarks::new(log.clone(), errand.path),
            stage: Stage::Runs,
            due: Instant::now().checked_add(Duration::from_millis(errand.time).saturating_add(SLACK)),
            grace: Duration::from_millis(errand.grace),
        };
        let exit = self.prepare(&mut ward, &output, input.as_ref());
        if exit.is_err() {
            // It has begun, but could not be waited for.
            ward.kill();
        }
        self.shared.entrust(ward);
        match exit {
            Ok(exit) => {
                let shared = Arc::clone(&self.shared);
                Ok(Running { id, leader, shared, input, full: false, output, over: false, exit })
            }
            Err(_) => {
                self.shared.let_go();
                Err(SpawnError::Exhausted)
            }
        }
    }

    /// Makes our ends of the pipes non-blocking. Makes what tells the attendant that the leader has
    /// exited, and what tells the exchange. Those are two: where a driver closes its own, it must be
    /// gone from what the driver waits for, and a duplicate would not be.
    fn prepare(&self, ward: &mut Ward, output: &OwnedFd, input: Option<&OwnedFd>) -> io::Result<OwnedFd> {
        for fd in [Some(output), input, ward.stderr.as_ref()].into_iter().flatten() {
            ioctl_fionbio(fd, true)?;
        }
        if !self.by_looking {
            match exit_of(ward.leader.pid) {
                Ok(exit) => {
                    ward.exit = Some(exit);
                    return Ok(exit_of(ward.leader.pid)?);
                }
                // Before Linux 5.3, or under an old seccomp profile.
                Err(Errno::NOSYS | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (exit, tell) = io::pipe()?;
        ward.tell = Some(tell.into());
        Ok(exit.into())
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a script is not run, and what the log says of it.
struct Refusal {
    error: SpawnError,
    reason: String,
}

impl Refusal {
    fn new(error: SpawnError, reason: impl Display) -> Refusal {
        Refusal { error, reason: reason.to_string() }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        let sort = match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => SpawnError::Denied,
            Some(Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => SpawnError::Exhausted,
            _ => SpawnError::Failed,
        };
        Refusal::new(sort, error)
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

/// The ids of a user and its group in a file such as `/etc/passwd`. None of them may be root's.
fn user(passwd: &[u8], name: &str) -> Option<(u32, u32)> {
    let mut ids = passwd.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        let found = fields.next()? == name;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (found && user != 0 && group != 0).then_some((user, group))
    });
    ids.next()
}

//! Tests with real processes. All waits are for conditions, within [`TIMEOUT`].

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::test_kill_process;
use sanserve_core::{Buffers, Input};
use tempfile::TempDir;

use super::*;
use crate::script_io::ScriptRead;
use sanserve_os::Symlinks;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Stores the log.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which process starts scripts, and how their exits are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// A launcher, which reports exits.
    Launched,
    /// The server, with process descriptors.
    Notified,
    /// The server, with polling.
    Polled,
}

impl How {
    const ALL: [How; 3] = [How::Launched, How::Notified, How::Polled];
}

/// A directory of scripts, and the [`Scripts`] to run them.
pub(crate) struct Bench {
    pub(crate) scripts: Scripts,
    pub(crate) log: Log,
    pub(crate) lines: Lines,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(8, How::Launched)
    }

    fn with(most: usize, how: How) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        // Scripts may run as nobody.
        sh("chmod 755 . && mkdir -m 755 cgi-bin", dir.path());
        let root = Arc::new(Root::open(dir.path(), Symlinks::Follow).unwrap());
        let environment = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
        let launched = cfg!(target_os = "linux") && how == How::Launched;
        let launcher = if launched { Launcher::Own } else { Launcher::None };
        let mut scripts = Scripts::new(ScriptRules { most, environment, launcher, spool_total: 16 }, root);
        scripts.polls_exits |= how == How::Polled;
        // The tests may run on a terminal.
        scripts.has_terminal = || false;
        let lines = Lines::default();
        Bench { scripts, log: Log::to(lines.clone()), lines, dir }
    }

    fn all() -> impl Iterator<Item = Bench> {
        How::ALL.into_iter().map(|how| Bench::with(8, how))
    }

    /// Writes the script `cgi-bin/x`. A separate process does it: a descriptor of this process could be inherited for
    /// a moment by a process of another test, and then the script could not be executed. A script of that name may be
    /// about to be executed, and then its file could not be written, so the file is replaced.
    fn install(&self, text: &str) {
        let path = self.dir.path().join("cgi-bin/x");
        sh(&format!("cat > y <<'END-OF-SCRIPT'\n{text}\nEND-OF-SCRIPT\nchmod 755 y\nmv y x"), path.parent().unwrap());
    }

    /// Runs a script of these lines for `sh`.
    pub(crate) fn sh(&self, text: &str, input: ScriptInput) -> Running {
        self.install(&format!("#!/bin/sh\n{text}"));
        self.run(&Errand { input, ..errand() }, None).unwrap()
    }

    pub(crate) fn spooled(&self, text: &str, spool: Option<Spool>) -> Result<Running, SpawnError> {
        self.install(&format!("#!/bin/sh\n{text}"));
        self.run(&Errand { input: ScriptInput::Spooled, ..errand() }, spool)
    }

    fn run(&self, errand: &Errand<'_>, spool: Option<Spool>) -> Result<Running, SpawnError> {
        self.scripts.run(errand, spool, &self.log)
    }

    /// Why the script could not be run, reported immediately or later.
    fn refusal(&self) -> SpawnError {
        let mut running = match self.run(&errand(), None) {
            Ok(running) => running,
            Err(error) => return error,
        };
        let mut buf = Buffers::new();
        let mut last = ScriptRead::Blocked;
        until("the script fails", || {
            last = running.read(&mut buf.script);
            last != ScriptRead::Blocked
        });
        match last {
            ScriptRead::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// The complete output of such a script.
    fn output_of(&self, text: &str) -> String {
        output(&mut self.sh(text, ScriptInput::Empty))
    }

    fn wait_for_none(&self) {
        until("all scripts are reaped", || self.scripts.alive() == 0);
    }

    /// The log lines about scripts, when all have ended.
    fn logged(self) -> Vec<String> {
        self.wait_for_none();
        // The reaper has logged everything when it has ended.
        self.scripts.end();
        let text = self.lines.text();
        text.lines().map(|line| line.strip_prefix("sanserve: /cgi-bin/x: ").expect(line).to_owned()).collect()
    }
}

fn errand() -> Errand<'static> {
    Errand {
        path: b"cgi-bin/x",
        input: ScriptInput::Empty,
        time: Duration::from_secs(60),
        grace: Duration::from_secs(30),
        drain: 65_536,
        translated: None,
        local: None,
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

fn sh(commands: &str, dir: &Path) {
    assert!(Command::new("/bin/sh").args(["-ec", commands]).current_dir(dir).status().unwrap().success());
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until `enough` holds, or the end.
fn read_until(running: &mut Running, enough: impl Fn(&[u8]) -> bool) -> String {
    let mut all = Vec::new();
    while !enough(&all) {
        let mut buf = Buffers::new();
        match running.read(&mut buf.script) {
            ScriptRead::Bytes(n) => {
                assert_eq!(buf.script.unread().len(), n);
                all.extend_from_slice(buf.script.unread());
            }
            ScriptRead::End => break,
            ScriptRead::Failed(error) => panic!("not run: {error:?}"),
            ScriptRead::Blocked => {
                let fds = running.fds();
                let ready = [fds.output.unwrap(), fds.exit.unwrap()];
                let mut ready = ready.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
                let timeout = Timespec::try_from(TIMEOUT).unwrap();
                assert_ne!(poll(&mut ready, Some(&timeout)), Ok(0), "timed out: output");
            }
        }
    }
    String::from_utf8(all).unwrap()
}

fn line(running: &mut Running) -> String {
    read_until(running, |all| all.ends_with(b"\n"))
}

pub(crate) fn output(running: &mut Running) -> String {
    let all = read_until(running, |_| false);
    assert_eq!(running.read(&mut Buffers::new().script), ScriptRead::End, "the end is reported again");
    assert!(running.fds().output.is_none() && running.fds().exit.is_none());
    all
}

/// The user and the group that scripts switch to.
#[cfg(target_os = "linux")]
fn user_of_scripts() -> Option<(u32, u32)> {
    geteuid().is_root().then(|| user(&fs::read("/etc/passwd").unwrap(), NOBODY).unwrap())
}

fn pids(line: &str) -> Vec<Pid> {
    line.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

/// Whether a process has ended. Processes of foreign parents may remain zombies.
fn is_gone(pid: &Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    let zombie = |stat: &str| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
    match stat {
        Ok(stat) => zombie(&stat),
        Err(_) => test_kill_process(*pid).is_err(),
    }
}

fn all_gone(pids: &[Pid]) {
    until("all processes are gone", || pids.iter().all(is_gone));
}

#[test]
fn output_is_read_to_its_end() {
    for bench in Bench::all() {
        assert_eq!(bench.output_of("echo one; echo two"), "one\ntwo\n");
        assert_eq!(bench.output_of("head -c 1000000 /dev/zero").len(), 1_000_000);
        assert_eq!(bench.output_of("exec >&-; sleep 0.01"), "");
        assert_eq!(bench.logged(), [""; 0]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_environment_is_exactly_as_specified() {
    let mut bench = Bench::new();
    let rules = [("TZ", "UTC"), ("SERVER_NAME", "not this"), ("DOCUMENT_ROOT", "nor this")]
        .map(|(name, value)| (name.into(), value.into()));
    bench.scripts.rules.environment.extend(rules);
    bench.install("#!/bin/cat /proc/self/environ");
    let root = bench.dir.path().canonicalize().unwrap().into_os_string().into_string().unwrap();
    for (path, expected) in [("", "/"), ("sub/\u{e4}/", "/sub/\u{e4}/"), ("file", "/file")] {
        let environment = vec![(&b"SERVER_NAME"[..], &b"a=b"[..]), (b"REMOTE_USER", b""), (b"HTTP_X", b"\xff\n")];
        let local = Some([127, 0, 0, 1].into());
        let errand = Errand { translated: Some(path.as_bytes()), local, environment, ..errand() };
        let mut running = bench.run(&errand, None).unwrap();
        let mut all = Vec::new();
        until("the end", || {
            let mut buf = Buffers::new();
            let read = running.read(&mut buf.script);
            all.extend_from_slice(buf.script.unread());
            read == ScriptRead::End
        });
        let mut found: Vec<&[u8]> = all.split(|&byte| byte == 0).collect();
        found.pop();
        found.sort_unstable();
        let (document, script) = (format!("DOCUMENT_ROOT={root}"), format!("SCRIPT_FILENAME={root}/cgi-bin/x"));
        let translated = format!("PATH_TRANSLATED={root}{expected}");
        let path = b"PATH=/usr/local/bin:/usr/bin:/bin";
        let expected = [
            document.as_bytes(),
            b"HTTP_X=\xff\n",
            path,
            translated.as_bytes(),
            b"REMOTE_USER=",
            script.as_bytes(),
            b"SERVER_ADDR=127.0.0.1",
            b"SERVER_NAME=a=b",
            b"TZ=UTC",
        ];
        assert_eq!(found, expected);
    }
}

#[test]
fn the_default_environment_is_small() {
    let environment = ScriptRules::default().environment;
    assert_eq!(environment[0].0, "PATH");
    assert!(environment[1..].iter().all(|(name, _)| name == "LANG" || name == "TZ"));
}

#[test]
fn a_script_runs_in_its_directory_with_its_arguments() {
    let bench = Bench::new();
    bench.install("#!/bin/sh\npwd; echo \"$0\"; for a in \"$@\"; do echo \"[$a]\"; done; cat");
    let arguments = vec![&b"one"[..], b"", b"t w o\\"];
    let all = output(&mut bench.run(&Errand { arguments, ..errand() }, None).unwrap());
    let place = bench.dir.path().canonicalize().unwrap().join("cgi-bin");
    let place = place.display();
    assert_eq!(all, format!("{place}\n./x\n[one]\n[]\n[t w o\\]\n"));
}

#[test]
fn a_script_has_no_privileges() {
    let bench = Bench::new();
    let ids = bench.output_of("id -u; id -ru; id -g; id -rg; id -G");
    if geteuid().is_root() {
        let (user, group) = user(&fs::read("/etc/passwd").unwrap(), NOBODY).unwrap();
        assert_eq!(ids, format!("{user}\n{user}\n{group}\n{group}\n{group}\n"));
        #[cfg(target_os = "linux")]
        assert_eq!(bench.output_of("grep Groups: /proc/self/status").trim_end(), "Groups:", "std drops the groups");
    } else {
        let output = Command::new("/bin/sh").args(["-c", "id -u; id -ru; id -g; id -rg; id -G"]).output().unwrap();
        assert_eq!(ids.as_bytes(), output.stdout);
    }
}

#[test]
fn root_does_not_share_its_terminal() {
    for how in How::ALL {
        let mut bench = Bench::with(8, how);
        bench.scripts.has_terminal = || true;
        bench.install("#!/bin/sh\necho");
        if geteuid().is_root() && how != How::Launched {
            assert_eq!(bench.run(&errand(), None).unwrap_err(), SpawnError::Denied);
            assert!(bench.logged()[0].starts_with("CGI script not run: the server is root, and scripts would share"));
        } else {
            assert_eq!(output(&mut bench.run(&errand(), None).unwrap()), "\n");
        }
    }
}

/// However it was started, a script that ignores `SIGPIPE` and prints endlessly after it was released is terminated,
/// and one that prints little is not.
#[test]
fn a_released_script_that_keeps_printing_is_terminated() {
    for bench in Bench::all() {
        let running = bench.sh("trap '' PIPE; while :; do echo more 2>/dev/null; done", ScriptInput::Empty);
        drop(running);
        bench.wait_for_none();
        drop(bench.sh("sleep 0.1; echo some; exit 3", ScriptInput::Empty));
        assert_eq!(bench.logged(), ["CGI script exit code 3"]);
    }
}

#[test]
fn root_without_the_user_nobody_runs_nothing() {
    let bench = Bench::new();
    bench.scripts.nobody.set(None).unwrap();
    bench.install("#!/bin/sh");
    let ran = bench.run(&errand(), None).map(drop);
    if geteuid().is_root() {
        assert_eq!(ran, Err(SpawnError::Denied));
        assert_eq!(bench.logged(), ["CGI script not run: the server is root, and there is no user nobody"]);
    } else {
        assert_eq!(ran, Ok(()));
    }
}

#[test]
fn ids_are_read_from_passwd() {
    let passwd = b"root:x:0:0::/:\nbroken\n\nno:x:y:1::/:\nnobodys:x:5:6::/:\nnobody:x:65534:65533:No\xc3\xb6:/:/\n";
    assert_eq!(user(passwd, "nobody"), Some((65534, 65533)));
    assert_eq!(user(passwd, "root"), None);
    assert_eq!(user(passwd, "no"), None);
    assert_eq!(user(passwd, ""), None);
}

#[cfg(target_os = "linux")]
#[test]
fn a_script_inherits_three_descriptors() {
    let bench = Bench::new();
    let mut other = bench.sh("echo ready; cat", ScriptInput::Piped);
    assert_eq!(line(&mut other), "ready\n");
    // As the parent of the server could have left one open.
    let file = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    bench.scripts.end();
    bench.install("#!/bin/ls /proc/self/fd");
    for (input, spool) in [(ScriptInput::Empty, None), (ScriptInput::Spooled, Some(bench.scripts.spool().unwrap()))] {
        let all = output(&mut bench.run(&Errand { input, ..errand() }, spool).unwrap());
        let (_, all) = all.split_once("/proc/self/fd:\n").unwrap();
        // 3 is the directory that ls reads.
        assert_eq!(all, "0\n1\n2\n3\n");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_script_has_a_group_of_its_own_in_a_session_without_a_terminal() {
    let bench = Bench::new();
    let all = bench.output_of("cut -d' ' -f 5-7 /proc/$$/stat; echo $$; (: </dev/tty) 2>&1 | grep -c /dev/tty");
    let [stat, pid, refused] = all.lines().collect::<Vec<_>>()[..] else { panic!("{all}") };
    let session = bench.scripts.shared.launcher(&Launcher::Own, user_of_scripts()).unwrap().unwrap().pid();
    assert_eq!(stat, format!("{pid} {session} 0"), "group, session, and no terminal");
    assert_eq!(refused, "1");
}

#[cfg(target_os = "linux")]
#[test]
fn a_script_has_the_limit_that_the_server_was_started_with() {
    let before = sanserve_os::inherited_nofile_limit();
    sanserve_os::raise_nofile_limit();
    let limit = Bench::new().output_of("ulimit -Sn");
    assert_eq!(limit.trim_end(), before.map_or("unlimited".into(), |limit| limit.to_string()));
}

#[cfg(target_os = "linux")]
#[test]
fn signals_have_their_default_effect_in_a_script() {
    let bench = Bench::new();
    let masks = bench.output_of("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f 2");
    // From 32 on they are for libraries and real-time programs.
    let usual = masks.lines().map(|mask| u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff);
    assert_eq!(usual.collect::<Vec<_>>(), [0, 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_script_can_open_its_descriptors_by_name() {
    for bench in Bench::all() {
        let text = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr; cat /proc/self/fd/0";
        let mut running = bench.sh(text, ScriptInput::Piped);
        assert_eq!(running.feed(b"in\n"), Input::Fed(3));
        running.end_input();
        assert_eq!(output(&mut running), "in\nout\n");
        let mut spool = bench.scripts.spool().unwrap();
        assert_eq!(bench.scripts.write_spool(&mut spool, b"kept\n").unwrap().unwrap(), 5);
        assert_eq!(output(&mut bench.spooled("cat /dev/stdin", Some(spool)).unwrap()), "kept\n");
        assert_eq!(bench.output_of("cat /dev/stdin; echo end"), "end\n");
        assert_eq!(bench.logged(), ["err"]);
    }
}

#[test]
fn scripts_of_a_replaced_root_are_not_run() {
    for bench in Bench::all() {
        assert_eq!(bench.output_of("echo one"), "one\n");
        let (old, new) = (bench.dir.path().join("old"), bench.dir.path());
        sh("mkdir old && mv cgi-bin old && mkdir -m 755 cgi-bin", new);
        let root = Root::open(&old, Symlinks::Follow).unwrap();
        sh("mv old away && mkdir -p old/cgi-bin && chmod 755 old old/cgi-bin away", new);
        let other = old.join("cgi-bin");
        sh("printf '#!/bin/sh\necho two' > x && chmod 755 x", &other);
        let rules = bench.scripts.rules.clone();
        let launched = rules.launcher != Launcher::None;
        let scripts = Scripts::new(rules, Arc::new(root));
        match scripts.run(&errand(), None, &bench.log) {
            Ok(mut running) => assert_eq!(output(&mut running), "one\n"),
            Err(error) => {
                assert_eq!((error, launched), (SpawnError::Failed, false), "it must not be started by its path")
            }
        }
    }
}

#[test]
fn a_script_that_lost_its_permission_is_not_run() {
    for bench in Bench::all() {
        bench.install("#!/bin/sh\necho no");
        sh("chmod 644 cgi-bin/x", bench.dir.path());
        assert_eq!(bench.refusal(), SpawnError::Denied);
        sh("rm cgi-bin/x", bench.dir.path());
        assert_eq!(bench.refusal(), SpawnError::Failed);
    }
}

#[test]
fn the_error_names_a_directory_that_may_not_be_searched() {
    if !geteuid().is_root() {
        return;
    }
    for bench in Bench::all() {
        bench.install("#!/bin/sh\necho no");
        sh("mkdir -m 700 shut && mv cgi-bin shut", bench.dir.path());
        let shut = bench.dir.path().canonicalize().unwrap().join("shut");
        let scripts = Scripts::new(bench.scripts.rules.clone(), Arc::new(Root::open(&shut, Symlinks::Follow).unwrap()));
        let bench = Bench { scripts, ..bench };
        assert_eq!(bench.refusal(), SpawnError::Denied);
        let logged = bench.logged();
        let place = shut.display();
        let expected = format!("must not search the directory {place} (mode 0700)");
        assert!(logged.len() == 1 && logged[0].contains(&expected), "{logged:?}");
    }
}

#[test]
fn spools_share_their_limit() {
    let bench = Bench::new();
    let scripts = &bench.scripts;
    let (mut one, mut other) = (scripts.spool().unwrap(), scripts.spool().unwrap());
    assert_eq!(scripts.write_spool(&mut one, &[b'1'; 10]).unwrap().unwrap(), 10);
    assert_eq!(scripts.write_spool(&mut other, &[b'2'; 6]).unwrap().unwrap(), 6);
    assert!(scripts.write_spool(&mut other, b"2").is_none(), "one byte too much");
    drop(other);
    assert_eq!(scripts.write_spool(&mut one, &[b'1'; 6]).unwrap().unwrap(), 6);
    // A script holds the share of its spool until it ends.
    let mut running = bench.spooled("cat", Some(one)).unwrap();
    assert_eq!(output(&mut running), "1".repeat(16));
    drop(running);
    bench.wait_for_none();
    until("there is room again", || {
        let mut again = scripts.spool().unwrap();
        scripts.write_spool(&mut again, &[b'3'; 16]).is_some()
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_launcher_that_was_killed_is_replaced() {
    let bench = Bench::new();
    for kills_guard in [false, true] {
        let mut running = bench.sh("sleep 1000 & echo $$ $!; cat", ScriptInput::Piped);
        let all = pids(&line(&mut running));
        let guard = bench.scripts.shared.launcher(&Launcher::Own, user_of_scripts()).unwrap().unwrap().pid();
        let launcher = parent_of(all[0]);
        assert_eq!(parent_of(launcher), guard);
        let killed = if kills_guard { guard } else { launcher };
        rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
        all_gone(&all);
        assert_eq!(output(&mut running), "");
        bench.wait_for_none();
        all_gone(&[launcher, guard]);
        assert_eq!(bench.output_of("echo again"), "again\n");
    }
}

/// What a script has put into another session is not ended with the launcher.
#[cfg(target_os = "linux")]
#[test]
fn a_daemon_survives_the_launcher() {
    let bench = Bench::new();
    let mut running = bench.sh("setsid sh -c 'echo $$; exec sleep 1000' & echo $$; cat", ScriptInput::Piped);
    let all = pids(&read_until(&mut running, |all| all.iter().filter(|&&byte| byte == b'\n').count() == 2));
    let launcher = all.iter().map(|pid| parent_of(*pid)).find(|parent| !all.contains(parent)).unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
    assert_eq!(output(&mut running), "");
    bench.wait_for_none();
    bench.scripts.end();
    let (daemons, scripts): (Vec<Pid>, Vec<Pid>) = all.into_iter().partition(|pid| session_of(*pid) == Some(*pid));
    all_gone(&scripts);
    assert_eq!(daemons.len(), 1);
    assert!(!is_gone(&daemons[0]));
    rustix::process::kill_process(daemons[0], rustix::process::Signal::KILL).unwrap();
    all_gone(&daemons);
}

/// A launcher has one user, so another one is started when the user changes: when the server drops its privileges.
#[cfg(target_os = "linux")]
#[test]
fn a_launcher_has_one_user() {
    let shared = Bench::new().scripts.shared.clone();
    let launcher = |user| shared.launcher(&Launcher::Own, user).unwrap().unwrap();
    let (first, again) = (launcher(user_of_scripts()), launcher(user_of_scripts()));
    assert_eq!(first.pid(), again.pid());
    assert_ne!(launcher(Some((1, 1))).pid(), first.pid());
}

#[cfg(target_os = "linux")]
fn parent_of(pid: Pid) -> Pid {
    stat_of(pid, 1).unwrap()
}

#[cfg(target_os = "linux")]
fn session_of(pid: Pid) -> Option<Pid> {
    stat_of(pid, 3)
}

/// A field of `/proc/PID/stat` after the name.
#[cfg(target_os = "linux")]
fn stat_of(pid: Pid, field: usize) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(field)?.parse().ok()?)
}

#[cfg(target_os = "linux")]
#[test]
fn orphans_of_a_script_are_reaped() {
    let bench = Bench::new();
    let all = bench.output_of("setsid sh -c 'echo $$; exec >&- 2>&-; exec sleep 0.1' & wait");
    let pid = pids(&all)[0].as_raw_pid();
    until("the orphan is reaped", || !Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_script_has_blocking_ends() {
    let bench = Bench::new();
    // A non-blocking end would fail here, because no data was written or read yet.
    let mut running = bench.sh("echo ready; cat; head -c 300000 /dev/zero", ScriptInput::Piped);
    assert_eq!(line(&mut running), "ready\n");
    assert_eq!(running.feed(b"fed\n"), Input::Fed(4));
    assert_eq!(line(&mut running), "fed\n");
    running.end_input();
    assert!(running.fds().input.is_none());
    assert_eq!(output(&mut running).len(), 300_000);
    assert_eq!(bench.logged(), [""; 0]);
}

#[test]
fn a_failed_exit_is_logged() {
    for bench in Bench::all() {
        bench.output_of("exit 0");
        bench.wait_for_none();
        bench.output_of("exit 3");
        bench.wait_for_none();
        bench.output_of("echo unfinished >&2; printf line >&2; kill -9 $$");
        assert_eq!(bench.logged(), ["CGI script exit code 3", "unfinished", "line", "CGI script exit code -9"]);
    }
}

#[test]
fn much_stderr_is_read_and_little_is_logged() {
    let bench = Bench::new();
    assert_eq!(bench.output_of("yes 0123456 | head -c 1000000 >&2; echo done"), "done\n");
    let logged = bench.logged();
    assert_eq!(logged.len(), 65_536 / 8 + 1);
    assert_eq!(logged[8191], "0123456");
    assert_eq!(logged[8192], "934464 bytes of its stderr were not logged");
    let bench = Bench::new();
    assert_eq!(bench.output_of("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo done"), "done\n");
    assert_eq!(bench.logged(), ["x".repeat(4096), "995904 bytes of its stderr were not logged".into()]);
}

#[test]
fn a_script_that_closes_its_stderr_keeps_running() {
    let bench = Bench::new();
    let mut running = bench.sh("exec 2>&-; echo ready; cat; exit 4", ScriptInput::Piped);
    assert_eq!(line(&mut running), "ready\n");
    running.end_input();
    assert_eq!(output(&mut running), "");
    assert_eq!(bench.logged(), ["CGI script exit code 4"]);
}

#[test]
fn the_whole_group_is_killed() {
    for bench in Bench::all() {
        let mut running = bench.sh("sleep 1000 & sleep 1000 & echo $$ $! ; wait", ScriptInput::Empty);
        let pids = pids(&line(&mut running));
        assert!(!pids.iter().any(is_gone));
        bench.scripts.kill(&running);
        bench.scripts.kill(&running);
        assert_eq!(output(&mut running), "");
        all_gone(&pids);
        assert_eq!(bench.logged(), [""; 0], "a signal of the server is not logged");
    }
}

#[test]
fn a_script_may_handle_sigterm() {
    for bench in Bench::all() {
        let text = "exec 2>/dev/null; trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut running = bench.sh(text, ScriptInput::Empty);
        assert_eq!(line(&mut running), "ready\n");
        bench.scripts.kill(&running);
        assert_eq!(output(&mut running), "bye\n");
        assert_eq!(bench.logged(), ["CGI script exit code 7"], "its own exit code is logged");
    }
}

#[test]
fn a_script_that_ignores_sigterm_is_killed() {
    for bench in Bench::all() {
        bench.install("#!/bin/sh\ntrap '' TERM; echo $$; while :; do sleep 0.01; done");
        let mut running = bench.run(&Errand { grace: Duration::from_millis(200), ..errand() }, None).unwrap();
        let pids = pids(&line(&mut running));
        let start = Instant::now();
        bench.scripts.kill(&running);
        assert_eq!(output(&mut running), "");
        assert!(start.elapsed() >= Duration::from_millis(200));
        all_gone(&pids);
        assert_eq!(bench.logged(), [""; 0]);
    }
}

#[test]
fn the_time_limit_holds_without_an_exchange() {
    for bench in Bench::all() {
        bench.install("#!/bin/sh\ntrap '' TERM; echo $$; while :; do sleep 0.01; done");
        let start = Instant::now();
        let mut running = bench
            .run(&Errand { time: Duration::from_millis(50), grace: Duration::from_millis(50), ..errand() }, None)
            .unwrap();
        let pids = pids(&line(&mut running));
        drop(running);
        all_gone(&pids);
        assert!(start.elapsed() >= Duration::from_millis(50 + 250 + 50));
        assert_eq!(bench.logged(), [""; 0]);
    }
}

#[test]
fn any_time_limit_is_permitted() {
    let bench = Bench::new();
    bench.install("#!/bin/sh\necho yes");
    let mut running = bench.run(&Errand { time: Duration::MAX, grace: Duration::MAX, ..errand() }, None).unwrap();
    assert_eq!(output(&mut running), "yes\n");
    assert_eq!(bench.logged(), [""; 0]);
}

#[test]
fn a_place_is_free_when_a_script_is_reaped() {
    let bench = Bench::with(2, How::Launched);
    let mut first = bench.sh("cat", ScriptInput::Piped);
    let _second = bench.run(&Errand { input: ScriptInput::Piped, ..errand() }, None).unwrap();
    assert_eq!(bench.run(&errand(), None).map(drop), Err(SpawnError::Busy));
    assert_eq!(bench.scripts.alive(), 2);
    first.end_input();
    until("one is reaped", || bench.scripts.alive() == 1);
    assert_eq!(output(&mut bench.run(&errand(), None).unwrap()), "");
    assert_eq!(bench.lines.text(), "", "a full server is not an error");
}

/// With one place, the next script waits for the exit of the previous one, and not for the next time that the reaper
/// looks for exits. With many places, that suffices.
#[test]
fn the_exit_of_the_only_script_makes_room_at_once() {
    for (most, how) in [(1, How::Launched), (1, How::Notified), (64, How::Launched), (64, How::Notified)] {
        let bench = Bench::with(most, how);
        bench.install("#!/bin/sh\necho out");
        for _ in 0..50 {
            until("there is a place", || match bench.run(&errand(), None) {
                Ok(mut running) => {
                    // A launcher is told to wait for exits by the same value.
                    assert_eq!(bench.scripts.shared.is_crowded(), most == 1);
                    output(&mut running) == "out\n"
                }
                Err(error) => {
                    assert_eq!(error, SpawnError::Busy);
                    false
                }
            });
        }
        let naps = bench.scripts.shared.naps();
        assert_eq!(naps == 0, most == 1, "{most} {how:?}: {naps} naps");
    }
}

#[test]
fn the_rest_of_the_group_ends_with_the_script() {
    for bench in Bench::all() {
        let all = bench.output_of("sleep 1000 & echo $!");
        all_gone(&pids(&all));
        assert_eq!(bench.logged(), [""; 0]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_with_a_session_survives_and_delays_nothing() {
    for bench in Bench::all() {
        let text = "setsid sh -c 'echo hello >&2; echo $$; exec sleep 1000' & cat; exit 5";
        let mut running = bench.sh(text, ScriptInput::Piped);
        let daemon = pids(&line(&mut running));
        running.end_input();
        assert_eq!(output(&mut running), "");
        assert_eq!(bench.logged(), ["hello", "CGI script exit code 5"]);
        assert!(!is_gone(&daemon[0]));
        rustix::process::kill_process(daemon[0], rustix::process::Signal::KILL).unwrap();
        all_gone(&daemon);
    }
}

#[test]
fn errors_of_starting_are_logged() {
    let bench = Bench::new();
    let mut expected = Vec::new();
    let mut fails = |text: &str, mode: &str, error, reason: &str| {
        bench.install(text);
        sh(&format!("chmod {mode} cgi-bin/x"), bench.dir.path());
        assert_eq!(bench.refusal(), error, "{text}");
        bench.wait_for_none();
        expected.push(format!("CGI script not run: {reason}"));
    };
    fails(
        "#!/no/such/interpreter",
        "755",
        SpawnError::Failed,
        "interpreter '/no/such/interpreter' does not exist (No such file or directory (os error 2))",
    );
    fails("#!/bin/sh", "644", SpawnError::Denied, "Permission denied (os error 13)");
    fails(
        "echo",
        "755",
        SpawnError::Failed,
        "it has no #! line; its first line is to name its interpreter, such as #!/bin/sh (Exec format error (os error 8))",
    );
    fails(
        "#!/bin/sh\r\necho\r",
        "755",
        SpawnError::Failed,
        "interpreter '/bin/sh\\r' does not exist: the script has CR LF at its line ends; with LF alone its interpreter is '/bin/sh' (No such file or directory (os error 2))",
    );
    assert_eq!(bench.spooled("cat", None).map(drop), Err(SpawnError::Failed));
    expected.push("CGI script not run: its input is gone".into());
    assert_eq!(bench.logged(), expected);
}

#[test]
fn exhaustion_is_distinguished_from_failure() {
    let sort = |errno: Errno| Refusal::from(io::Error::from(errno)).error;
    assert_eq!([Errno::ACCESS, Errno::PERM].map(sort), [SpawnError::Denied; 2]);
    let want = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    assert_eq!(want.map(sort), [SpawnError::Exhausted; 4]);
    assert_eq!([Errno::NOEXEC, Errno::NOENT, Errno::TOOBIG].map(sort), [SpawnError::Failed; 3]);
}

#[test]
fn a_script_that_does_not_read_blocks_the_feed() {
    let bench = Bench::new();
    let mut running = bench.sh("echo ready; read line; cat", ScriptInput::Piped);
    assert_eq!(line(&mut running), "ready\n");
    let mut fed = 0;
    loop {
        match running.feed(&[b'\n'; 10_000]) {
            Input::Fed(n) => fed += n,
            other => break assert_eq!(other, Input::FeedBlocked),
        }
        assert!(fed <= 64 << 20);
    }
    assert!(running.fds().input.is_some());
    assert!(running.read(&mut Buffers::new().script) != ScriptRead::End);
}

#[test]
fn a_script_that_has_closed_its_input_accepts_no_more() {
    let bench = Bench::new();
    let mut running = bench.sh("exec <&-; echo ready; exec sleep 1000", ScriptInput::Piped);
    assert_eq!(line(&mut running), "ready\n");
    for _ in 0..2 {
        assert_eq!(running.feed(b"x"), Input::FeedEnd);
        assert!(running.fds().input.is_none());
    }
    let mut running = bench.sh("cat", ScriptInput::Empty);
    assert_eq!(running.feed(b"x"), Input::FeedEnd);
    assert_eq!(output(&mut running), "");
}

#[test]
fn a_server_that_ends_leaves_no_processes() {
    for bench in Bench::all() {
        let texts = ["sleep 1000 & echo $$ $!; wait", "trap '' TERM; sleep 1000 & echo $$ $!; wait", "echo $$; cat"];
        let mut running: Vec<Running> = Vec::new();
        let mut pids = Vec::new();
        for text in texts {
            running.push(bench.sh(text, ScriptInput::Piped));
            // They share a descriptor, which is read when the script has output.
            pids.extend(self::pids(&line(running.last_mut().unwrap())));
        }
        assert_eq!(pids.len(), 5);
        bench.scripts.end();
        assert_eq!(bench.scripts.alive(), 0);
        all_gone(&pids);
        bench.scripts.end();
        let mut again = bench.sh("echo $$; cat", ScriptInput::Piped);
        let pids = self::pids(&line(&mut again));
        let Bench { scripts, lines, .. } = bench;
        drop(scripts);
        all_gone(&pids);
        assert_eq!(test_kill_process(pids[0]), Err(Errno::SRCH), "the script was reaped");
        assert_eq!(lines.text(), "");
    }
}

#[test]
fn many_scripts_at_once() {
    for how in How::ALL {
        let bench = Bench::with(32, how);
        bench.install("#!/bin/sh\necho out; echo err >&2");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let mut running = loop {
                            match bench.run(&errand(), None) {
                                Ok(running) => break running,
                                Err(error) => assert_eq!(error, SpawnError::Busy),
                            }
                            thread::yield_now();
                        };
                        assert_eq!(output(&mut running), "out\n");
                    }
                });
            }
        });
        assert_eq!(bench.logged(), ["err"; 100]);
    }
}

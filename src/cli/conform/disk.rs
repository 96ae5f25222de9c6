//! The disk that a transcript describes, built in a temporary directory. The result is checked with the code that
//! opens files for a server, so that a disk that cannot be built is found here.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sanserve_core::{EntryKind, FsError, Input, Kind, Listed, Opened, ScriptFile, SpawnError, Wall};
use sanserve_os::{Root, Symlinks};
use sanserve_transcript::{Event, Middle, What};

use super::plan::Plan;

/// Files up to this size, in bytes, are written completely; of larger ones only the parts that are sent.
const WHOLE: u64 = 1 << 20;

/// Byte `n` of every file is `n` modulo this, as in `Script::play`.
const PERIOD: u64 = 251;

/// A temporary directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    root: PathBuf,
    /// Directories without read permission. They have to be made readable before they can be removed.
    closed: Vec<PathBuf>,
}

/// A fact about the disk that a transcript contains.
enum Fact<'e> {
    Opened {
        path: Vec<u8>,
        inside: bool,
        answer: Result<Opened, FsError>,
    },
    Listed {
        directory: Vec<u8>,
        entries: Vec<(&'e [u8], EntryKind)>,
        denied: bool,
    },
    Found {
        path: &'e [u8],
        from: usize,
        len: usize,
        what: ScriptFile,
    },
    /// `None`: the system cannot run it.
    Script {
        path: &'e [u8],
        says: Option<Vec<u8>>,
    },
}

impl Disk {
    /// Builds the disk of a plan. `Ok(Err(_))` says why it cannot be built.
    pub(crate) fn build(plan: &Plan) -> io::Result<Result<Disk, String>> {
        let facts = match facts(&plan.events, plan.settings.wall) {
            Ok(facts) => facts,
            Err(why) => return Ok(Err(why.into())),
        };
        let mut disk = Disk::new()?;
        let sent = sent(&plan.events);
        for number in 0..facts.len() {
            if let Err(error) = disk.make(number, &facts, &sent) {
                return Ok(Err(format!("its disk cannot be built: {error}")));
            }
        }
        for fact in &facts {
            if let Fact::Listed { directory, denied: true, .. } = fact {
                disk.close(directory)?;
            }
        }
        Ok(if disk.matches(&facts)? { Ok(disk) } else { Err("its disk cannot be built as described".into()) })
    }

    /// The directory to serve.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Resets the scripts, so that the next run is their first.
    pub(crate) fn rewind(&self) -> io::Result<()> {
        let ran = self.ran();
        if ran.exists() {
            fs::remove_dir_all(&ran)?;
        }
        fs::create_dir(&ran)?;
        // A server that runs as root runs its scripts as another user.
        fs::set_permissions(ran, Permissions::from_mode(0o777))
    }

    /// The directory in which scripts record their runs.
    fn ran(&self) -> PathBuf {
        self.path.join("ran")
    }

    fn new() -> io::Result<Disk> {
        let mut number = 0_u32;
        let path = loop {
            let path = env::temp_dir().join(format!("sanserve-conform-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
                Err(error) => return Err(error),
            }
        };
        let root = path.join("root");
        let disk = Disk { path, root, closed: Vec::new() };
        fs::create_dir(&disk.root)?;
        // A server that runs as root runs its scripts as another user.
        fs::set_permissions(&disk.path, Permissions::from_mode(0o755))?;
        fs::set_permissions(&disk.root, Permissions::from_mode(0o755))?;
        Ok(disk)
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(path)) }
    }

    fn make(&self, number: usize, facts: &[Fact<'_>], sent: &[(u64, u64)]) -> io::Result<()> {
        match &facts[number] {
            Fact::Opened { path, answer: Ok(Opened { kind: Kind::Directory, .. }), .. } => {
                fs::create_dir_all(self.at(path))
            }
            Fact::Opened { path, answer: Ok(opened), .. } => self.file(path, opened, sent),
            Fact::Opened { path, answer: Err(FsError::Denied), .. } => {
                File::create(self.placed(path)?)?.set_permissions(Permissions::from_mode(0o000))
            }
            Fact::Opened { .. } => Ok(()),
            Fact::Listed { directory, entries, .. } => {
                entries.iter().try_for_each(|(name, kind)| self.entry(&join(directory, name), *kind))
            }
            Fact::Found { path, len, what, .. } => {
                let path = path.get(..*len).unwrap_or(path);
                let place = self.placed(path)?;
                match what {
                    ScriptFile::Missing => Ok(()),
                    ScriptFile::NotPlain => fs::create_dir_all(place),
                    ScriptFile::NotExecutable => write(&place, b"", 0o644),
                    // The fact about its run writes the script with its output.
                    ScriptFile::Runnable if place.exists() => Ok(()),
                    ScriptFile::Runnable => write(&place, b"#!/bin/sh\nexit 1\n", 0o755),
                }
            }
            Fact::Script { path, says: None } => write(&self.placed(path)?, b"#!/no/such/interpreter\n", 0o755),
            Fact::Script { path, says: Some(says) } => {
                write(&self.path.join(format!("said-{number}")), says, 0o644)?;
                let numbers: Vec<String> = runs(path, facts).map(|number| number.to_string()).collect();
                let text = format!(
                    "#!/bin/sh\n\
                     # Reads its input to the end, then prints the output of its n-th run.\n\
                     cat >/dev/null\n\
                     for n in {}; do\n\
                     mkdir {ran}/$n 2>/dev/null && exec cat {said}-$n\n\
                     done\n",
                    numbers.join(" "),
                    ran = quoted(&self.ran()),
                    said = quoted(&self.path.join("said")),
                );
                write(&self.placed(path)?, text.as_bytes(), 0o755)
            }
        }
    }

    /// The place for a path. Creates its parent directory.
    fn placed(&self, path: &[u8]) -> io::Result<PathBuf> {
        let place = self.at(path);
        fs::create_dir_all(place.parent().unwrap_or(&self.root))?;
        Ok(place)
    }

    fn file(&self, path: &[u8], opened: &Opened, sent: &[(u64, u64)]) -> io::Result<()> {
        let file = File::create(self.placed(path)?)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.set_len(opened.len)?;
        let whole = [(0, opened.len)];
        for &(offset, len) in if opened.len <= WHOLE { &whole[..] } else { sent } {
            let end = offset.saturating_add(len).min(opened.len);
            if len > 64 * WHOLE {
                return Err(io::Error::other("a file is too large"));
            }
            let bytes: Vec<u8> = (offset.min(end)..end).map(|at| (at % PERIOD) as u8).collect();
            file.write_all_at(&bytes, offset.min(end))?;
        }
        file.set_modified(time(opened).ok_or_else(|| io::Error::other("a modification time is out of range"))?)
    }

    fn entry(&self, path: &[u8], kind: EntryKind) -> io::Result<()> {
        let place = self.at(path);
        match kind {
            EntryKind::Directory => fs::create_dir_all(place),
            // Another line may give its content.
            EntryKind::File => OpenOptions::new().create(true).append(true).open(place).map(drop),
            EntryKind::Link { directory } => symlink(if directory { "." } else { "nowhere" }, place),
        }
    }

    fn close(&mut self, directory: &[u8]) -> io::Result<()> {
        let place = self.at(directory);
        self.closed.push(place.clone());
        fs::set_permissions(place, Permissions::from_mode(0o311))
    }

    /// Whether a server finds what the transcript describes.
    fn matches(&self, facts: &[Fact<'_>]) -> io::Result<bool> {
        let Ok(root) = Root::open(&self.root, Symlinks::Follow) else { return Ok(false) };
        for fact in facts {
            let is_so = match fact {
                Fact::Opened { path, inside, answer } => {
                    let found = if *inside { root.open_file_at(path) } else { root.open_at(path) };
                    let found = found.map(|(_, opened, _)| opened);
                    match (found, answer) {
                        // No response depends on the times of a directory.
                        (Ok(found), Ok(told)) if told.kind == Kind::Directory => found.kind == told.kind,
                        // A directory cannot be an index page.
                        (Err(FsError::NotFound), Ok(told)) => *inside && told.kind == Kind::Directory,
                        (found, told) => found == *told,
                    }
                }
                Fact::Listed { denied: true, directory, .. } => fs::read_dir(self.at(directory)).is_err(),
                Fact::Listed { directory, entries, .. } => {
                    let told: BTreeMap<&[u8], EntryKind> = entries.iter().copied().collect();
                    names(&self.at(directory))? == told.into_iter().map(|(name, kind)| (name.to_vec(), kind)).collect()
                }
                Fact::Found { path, from, len, what } => {
                    root.find(path, *from).is_ok_and(|found| (found.len, found.what) == (*len, *what))
                }
                Fact::Script { .. } => true,
            };
            if !is_so {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for directory in &self.closed {
            let _ = fs::set_permissions(directory, Permissions::from_mode(0o755));
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The facts of a transcript about the disk and its scripts. The error says what cannot be built.
fn facts(events: &[Event], wall: Wall) -> Result<Vec<Fact<'_>>, &'static str> {
    const FAULT: &str = "a fault of the disk";
    let mut facts = Vec::new();
    // The directory that is open; the script that was started last, and its output so far.
    let mut held = Vec::new();
    let mut running: Option<(&[u8], Vec<u8>)> = None;
    for event in events {
        if !stays_inside(&event.what) {
            return Err("a path that no server opens");
        }
        match &event.what {
            What::Open { path, inside, answer: Some(answer) } => {
                let path = if *inside { join(&held, path) } else { path.clone() };
                match answer {
                    Ok(opened) if opened.kind == Kind::Directory && *inside => {}
                    Ok(opened) if opened.kind == Kind::Directory => held.clone_from(&path),
                    Ok(opened) if opened.modified >= wall.0 => {
                        return Err("a file has a modification time in the future");
                    }
                    Ok(_) | Err(FsError::NotFound | FsError::Denied) => {}
                    Err(_) => return Err(FAULT),
                }
                facts.push(Fact::Opened { path, inside: *inside, answer: *answer });
            }
            What::List { entries, answer: Some(answer) } => {
                let denied = *answer == Err(FsError::Denied);
                if matches!(answer, Err(error) if *error != FsError::Denied) {
                    return Err(FAULT);
                }
                let new: Vec<(&[u8], EntryKind)> =
                    entries.iter().map(|(name, kind)| (name.as_slice(), *kind)).collect();
                if new.iter().any(|(name, _)| name.contains(&b'/') || matches!(*name, b"" | b"." | b"..")) {
                    return Err("a name that no file can have");
                }
                match facts.last_mut() {
                    // Another batch of the same.
                    Some(Fact::Listed { directory, entries, .. }) if *directory == held => entries.extend(new),
                    _ => facts.push(Fact::Listed { directory: held.clone(), entries: new, denied }),
                }
                if *answer == Ok(Listed::End) {
                    held.clear();
                }
            }
            What::Find { path, from, answer: Some(Ok(found)) } => {
                facts.push(Fact::Found { path, from: *from, len: found.len, what: found.what });
            }
            What::Open { answer: None, .. } | What::List { answer: None, .. } | What::Find { answer: None, .. } => {
                return Err("the disk is slow");
            }
            What::Find { answer: Some(Err(_)), .. } => return Err(FAULT),
            What::Spool { answer } if *answer != Some(Ok(())) => return Err(FAULT),
            What::Spawn { told, answer } => {
                // A script that redirects locally has written its output.
                facts.extend(running.take().map(script));
                match answer {
                    Some(Ok(())) => running = Some((told.path.as_slice(), Vec::new())),
                    Some(Err(SpawnError::Failed)) => facts.push(Fact::Script { path: &told.path, says: None }),
                    _ => return Err("the system runs no script"),
                }
            }
            What::Script(bytes) => running.iter_mut().for_each(|(_, said)| said.extend_from_slice(bytes)),
            What::Input(Input::ScriptFailed(SpawnError::Failed)) => {
                facts.extend(running.take().map(|(path, _)| Fact::Script { path, says: None }));
            }
            What::Input(Input::ScriptFailed(_)) => return Err("the system runs no script"),
            What::Input(Input::ScriptEof) => facts.extend(running.take().map(script)),
            What::Finished(finish) if finish.cut.is_some() && running.is_some() => return Err("a script is cut off"),
            What::Finished(_) => facts.extend(running.take().map(script)),
            _ => {}
        }
    }
    match running {
        Some(_) => Err("a script does not end"),
        None => Ok(facts),
    }
}

fn script<'e>((path, says): (&'e [u8], Vec<u8>)) -> Fact<'e> {
    Fact::Script { path, says: Some(says) }
}

/// Whether the path in an event stays beneath the root, so that nothing is built outside of it.
fn stays_inside(what: &What) -> bool {
    let path = match what {
        What::Open { path, .. } => path.as_slice(),
        What::Find { path, answer: Some(Ok(found)), .. } => path.get(..found.len).unwrap_or(path),
        What::Spawn { told, .. } => &told.path,
        _ => return true,
    };
    let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    path.is_empty() || path.strip_suffix(b"/").unwrap_or(path).split(|&byte| byte == b'/').all(is_plain)
}

/// The numbers of the facts with the output of a script, in the order of its runs.
fn runs(script: &[u8], facts: &[Fact<'_>]) -> impl Iterator<Item = usize> {
    let is_run = move |fact: &Fact<'_>| matches!(fact, Fact::Script { path, says: Some(_) } if *path == script);
    facts.iter().enumerate().filter(move |(_, fact)| is_run(fact)).map(|(number, _)| number)
}

/// The parts of files that are sent.
fn sent(events: &[Event]) -> Vec<(u64, u64)> {
    let part = |event: &Event| match &event.what {
        What::Send(sending) => match sending.body {
            Middle::File { offset, len } => Some((offset, len)),
            _ => None,
        },
        _ => None,
    };
    events.iter().filter_map(part).collect()
}

/// The entries of a directory, as in a listing.
fn names(directory: &Path) -> io::Result<BTreeMap<Vec<u8>, EntryKind>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let kind = match (kind.is_dir(), kind.is_symlink()) {
            (true, _) => EntryKind::Directory,
            (_, true) => EntryKind::Link { directory: entry.path().is_dir() },
            _ => EntryKind::File,
        };
        names.insert(entry.file_name().into_vec(), kind);
    }
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn write(place: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::write(place, bytes)?;
    fs::set_permissions(place, Permissions::from_mode(mode))
}

fn time(opened: &Opened) -> Option<SystemTime> {
    let seconds = Duration::from_secs(opened.modified.unsigned_abs());
    let second =
        if opened.modified < 0 { UNIX_EPOCH.checked_sub(seconds)? } else { UNIX_EPOCH.checked_add(seconds)? };
    second.checked_add(Duration::from_nanos(u64::from(opened.modified_nanos)))
}

//! Takes one request through the core. Files are opened as for a peer, the response is kept instead of sent, and a
//! script is looked up but not run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use sanserve_core::{
    Action, Buffers, Cause, Completion, Connection, Etag, FsError, Input, Kind, Listed, Opened, Peer, Policy, Rule,
    Script, ScriptFile, Step, Topic, Wall, date_time_string,
};
use sanserve_os::{Clock, Root, Symlinks};
use sanserve_server::{Local, ScriptRules, Site, Slot, SlotEnv, Transport};

use super::super::plain;
use super::request::Request;

/// More steps than any request takes.
const MAX_STEPS: usize = 100_000;

/// One line of the report.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) topic: Topic,
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
    pub(crate) why: String,
}

/// What happened to the request.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) lines: Vec<Line>,
    /// The head of the response; empty if there is none.
    pub(crate) head: Vec<u8>,
    /// Whether the head is empty because a script would write it.
    pub(crate) is_scripts: bool,
    /// What the path leads to, relative to the root; empty if nothing was looked up.
    pub(crate) found: String,
    /// Bytes of the response after the head.
    pub(crate) sent: u64,
}

/// Sends `request` to a connection of `site` and follows it to its end.
pub(crate) fn walk(request: &Request, site: &Site) -> Story {
    let now = Clock::start().now();
    let cx = site.context(&now);
    if site.config().etag == Etag::Content {
        site.root().hash_content();
    }
    let files = Local::new(site.root().clone(), site.cache().clone());
    let mut log = site.log().logger();
    let (policy, scripts): (&dyn Policy, _) = (site.policy(), site.scripts());
    let mut slot = Slot::new();
    // No action needs the socket.
    let nowhere = File::open("/dev/null");
    let mut buf = Buffers::new();
    buf.explain();
    let peer = Peer::from(std::net::SocketAddr::from(([127, 0, 0, 1], 4000)));
    let mut connection = Connection::new(peer, &cx);
    let mut walk =
        Walk { story: Story::default(), noted: 0, pending: request.bytes(), has_body: false, directory: Vec::new() };
    walk.begin(request, site);
    for _ in 0..MAX_STEPS {
        let step = connection.poll(&mut buf, &cx);
        let input = match step {
            Step::Send(transmit) => {
                if !walk.story.head.ends_with(b"\r\n\r\n") {
                    let end = transmit.head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
                    walk.story.head.extend_from_slice(&transmit.head[..end.unwrap_or(transmit.head.len())]);
                }
                Input::Sent(transmit.len())
            }
            Step::Act(_, Action::Spawn(script)) => {
                let lines = spawn_lines(&script, site);
                walk.story.found = format!("script {}", text(script.path));
                walk.note(&buf);
                walk.story.lines.extend(lines);
                walk.story.is_scripts = true;
                return walk.story;
            }
            Step::Act(_, Action::Spool) => {
                walk.note(&buf);
                walk.say(
                    Topic::Script,
                    "not-run",
                    b"",
                    "a script is given the length of the body, and explain has no body",
                );
                walk.story.is_scripts = true;
                return walk.story;
            }
            Step::Act(ticket, action) => {
                let asked = Asked::of(&action);
                let Ok(nowhere) = &nowhere else { return walk.story };
                let mut env =
                    SlotEnv { files: &files, io: None, scripts, log: &mut log, policy, wall: now.wall, most: 0 };
                let done = slot.carry_out(
                    Step::Act(ticket, action),
                    &mut Transport::edge_triggered().over(nowhere.as_fd()),
                    &mut env,
                );
                walk.note(&buf);
                let Some(Input::Done(ticket, completion)) = done else { return walk.story };
                walk.acted(&asked, &completion, site);
                Input::Done(ticket, completion)
            }
            Step::Finished(entry) => {
                walk.story.sent = entry.sent;
                let sent = entry.sent.to_string();
                walk.note(&buf);
                walk.say(Topic::Answer, "body", sent.as_bytes(), "the bytes after the head");
                return walk.story;
            }
            Step::Probe(_) => Input::Probed,
            Step::Wait(wait) if wait.need.read => match walk.more(&mut buf) {
                true => continue,
                false => Input::Eof,
            },
            // Steps for handlers and running scripts, of which there are none.
            Step::Wait(_) | Step::Feed(_) | Step::Call(_) | Step::Shut | Step::Close(_) => return walk.story,
        };
        connection.handle(input);
    }
    walk.story
}

struct Walk {
    story: Story,
    /// How many of the reasons are in the story already.
    noted: usize,
    /// The bytes of the request that are still to be sent.
    pending: Vec<u8>,
    /// A placeholder body was made.
    has_body: bool,
    /// The path of the open directory, with a trailing slash.
    directory: Vec<u8>,
}

impl Walk {
    fn say(&mut self, topic: Topic, name: &str, value: &[u8], why: &str) {
        self.story.lines.push(Line { topic, name: name.into(), value: value.to_vec(), why: why.into() });
    }

    fn begin(&mut self, request: &Request, site: &Site) {
        for (at, line) in request.lines.iter().enumerate() {
            let is_ours = request.has_our_host && at + 1 == request.lines.len();
            let name = if at == 0 { "line" } else { "field" };
            self.say(
                Topic::Request,
                name,
                line,
                if is_ours { "added, because HTTP/1.1 requires Host" } else { "as given" },
            );
        }
        let root = site.root().path().as_os_str().as_encoded_bytes().to_vec();
        self.say(Topic::File, "directory", &root, "what is served (--directory)");
        let (name, why) = match site.root().symlinks() {
            Symlinks::Follow => ("follow", "symbolic links are followed anywhere (--symlinks)"),
            Symlinks::Inside => ("inside", "symbolic links must stay inside the directory (--symlinks)"),
            Symlinks::Never => ("never", "symbolic links are not followed (--symlinks)"),
        };
        self.say(Topic::File, "symlinks", name.as_bytes(), why);
    }

    /// Adds the reasons recorded since the last call.
    fn note(&mut self, buf: &Buffers) {
        for reason in &buf.reasons()[self.noted..] {
            self.story.lines.push(match reason.cause {
                Cause::Rule(rule) => Line {
                    topic: rule.topic(),
                    name: rule.name().into(),
                    value: reason.value.clone(),
                    why: format!("{} ({})", rule.sentence().trim_end_matches('.'), rule.source()),
                },
                Cause::Violation(violation) => Line {
                    topic: Topic::Request,
                    name: format!("{violation:?}"),
                    value: format!("{:?}", violation.row().0).into_bytes(),
                    why: violation.sentence().trim_end_matches('.').into(),
                },
            });
        }
        self.noted = buf.reasons().len();
    }

    /// Sends the rest of the request, or a placeholder for its body. Returns `false` if there is no more.
    fn more(&mut self, buf: &mut Buffers) -> bool {
        if self.pending.is_empty() && !self.has_body {
            self.has_body = true;
            let announced = |wanted: Rule| buf.reasons().iter().find(|reason| reason.cause == Cause::Rule(wanted));
            if announced(Rule::BodyInChunks).is_some() {
                self.pending = b"0\r\n\r\n".to_vec();
            } else if let Some(length) = announced(Rule::BodyOfLength) {
                // At most `limits.drain`: the core does not read a longer one.
                let length = std::str::from_utf8(&length.value).ok().and_then(|text| text.parse().ok());
                self.pending = vec![b'.'; length.unwrap_or_default()];
            }
            if !self.pending.is_empty() {
                self.say(
                    Topic::Request,
                    "body-made-up",
                    b"",
                    "explain sends dots, or an empty chunked body, as a placeholder",
                );
            }
        }
        let taken = buf.input.fill(&self.pending);
        self.pending.drain(..taken);
        taken > 0
    }

    fn acted(&mut self, asked: &Asked, completion: &Completion, site: &Site) {
        let path = shown(&asked.path);
        let directory = if asked.name == OPEN_IN { &self.directory[..] } else { b"" };
        let whole = [directory, &asked.path].concat();
        let (topic, answer) = match completion {
            Completion::Opened(Ok(opened)) => {
                let kind = if opened.kind == Kind::File { "file" } else { "directory" };
                self.story.found = format!("{kind} {}", text(shown(&whole)));
                (Topic::File, describe(opened))
            }
            Completion::Opened(Err(error)) => {
                let what = missing(site, &whole, *error);
                if asked.name != OPEN_IN {
                    self.story.found.clone_from(&what);
                }
                (Topic::File, what)
            }
            Completion::Listed(Err(error)) => (Topic::File, error_name(*error).into()),
            Completion::Listed(Ok(Listed::More)) => (Topic::File, "some names, more follow".into()),
            Completion::Listed(Ok(Listed::End)) => (Topic::File, "all names".into()),
            Completion::Found(Ok(found)) => {
                let what = match found.what {
                    ScriptFile::Runnable => "is executable",
                    ScriptFile::Missing => "does not exist",
                    ScriptFile::NotPlain => "is not a regular file",
                    ScriptFile::NotExecutable => "has no execute bit",
                };
                let what = format!("{} {what}", text(shown(&asked.path[..found.len])));
                self.story.found.clone_from(&what);
                (Topic::Script, what)
            }
            Completion::Found(Err(error)) => (Topic::Script, error_name(*error).into()),
            Completion::Spooled(_) | Completion::Spawned(_) => return,
        };
        self.say(topic, asked.name, path, &answer);
        let is_directory = matches!(completion, Completion::Opened(Ok(Opened { kind: Kind::Directory, .. })));
        if is_directory && asked.name != OPEN_IN {
            self.directory.clone_from(&asked.path);
            self.directory.extend(Some(b'/').filter(|_| !asked.path.is_empty()));
        }
        let is_denied = *completion == Completion::Opened(Err(FsError::Denied));
        if is_denied && is_there_by_links(site, &whole) {
            self.say(Topic::File, "symlinks-refuse", path, "it exists if symbolic links are followed (--symlinks)");
        }
    }
}

/// Whether a path leads to a file that only the policy for symbolic links excludes.
fn is_there_by_links(site: &Site, path: &[u8]) -> bool {
    site.root().symlinks() != Symlinks::Follow
        && Root::open(site.root().path(), Symlinks::Follow).is_ok_and(|root| root.open_at(path).is_ok())
}

/// An action that was carried out.
struct Asked {
    name: &'static str,
    path: Vec<u8>,
}

/// The name for opening an index page, relative to the open directory.
const OPEN_IN: &str = "open-in";

impl Asked {
    fn of(action: &Action<'_>) -> Asked {
        let (name, path): (_, &[u8]) = match action {
            Action::Open { path } => ("open", path),
            Action::OpenIn { path } => (OPEN_IN, path),
            Action::Find { path, .. } => ("find", path),
            Action::List { .. } => ("list", b""),
            Action::Spool | Action::Spawn(_) | Action::EndInput | Action::Kill | Action::Log { .. } => ("act", b""),
        };
        Asked { name, path: path.to_vec() }
    }
}

fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

fn describe(opened: &Opened) -> String {
    let Opened { kind, len, modified, modified_nanos, .. } = opened;
    match kind {
        Kind::File => {
            let date = date_time_string(Wall(*modified));
            format!("a file of {len} bytes, modified {date} and {modified_nanos} ns")
        }
        Kind::Directory => "a directory".into(),
    }
}

/// Why a path leads to nothing that is served. Looks at each component, which a server never does.
fn missing(site: &Site, path: &[u8], error: FsError) -> String {
    let mut at = site.root().path().to_owned();
    let mut below = Vec::new();
    for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        below.extend_from_slice(if below.is_empty() { b"" } else { b"/" });
        below.extend_from_slice(part);
        at.push(OsStr::from_bytes(part));
        let name = text(&below);
        let own = match fs::symlink_metadata(&at) {
            Ok(own) => own,
            Err(error) if error.kind() == ErrorKind::NotFound => return format!("{name} does not exist"),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return format!("{name} is below something that is not a directory");
            }
            Err(error) => return format!("{name} cannot be accessed: {}", plain(&error)),
        };
        if own.file_type().is_symlink() {
            let target = fs::read_link(&at).unwrap_or_default();
            let link = format!("{name} is a symbolic link to {}", text(target.as_os_str().as_bytes()));
            match site.root().symlinks() {
                Symlinks::Never => return format!("{link}, and symbolic links are not followed (--symlinks)"),
                Symlinks::Inside if error == FsError::Denied && fs::metadata(&at).is_ok() => {
                    return format!("{link}, which leads out of the directory (--symlinks)");
                }
                _ => {}
            }
            match fs::metadata(&at) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return format!("{link}, which does not exist"),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return format!("{link}, which cannot be accessed: {}", plain(&error));
                }
                Err(_) => return format!("{link}, which leads into a loop"),
            }
        }
    }
    let Ok(found) = fs::metadata(&at) else { return error_name(error).into() };
    let (kind, name) = (found.file_type(), text(&below));
    let what = match kind {
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ if error == FsError::Denied => {
            let what = if kind.is_dir() { "a directory" } else { "a file" };
            return format!(
                "{name} is {what} without read permission, mode {:03o}",
                found.permissions().mode() & 0o7777
            );
        }
        _ => return error_name(error).into(),
    };
    format!("{name} is {what}, which is never served")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn error_name(error: FsError) -> &'static str {
    match error {
        FsError::NotFound => "not found",
        FsError::Denied => "permission denied",
        FsError::Exhausted => "out of descriptors or memory",
        _ => "the system failed to open it",
    }
}

/// The arguments and environment that the script would get.
fn spawn_lines(script: &Script<'_>, site: &Site) -> Vec<Line> {
    let root = site.root().path().as_os_str().as_encoded_bytes();
    let below = |path: &[u8]| [root, b"/", path].concat();
    let mut told: Vec<(&str, Vec<u8>, &str)> = vec![("would-run", below(script.path), "explain does not run scripts")];
    told.extend(script.arguments().map(|argument| ("argument", argument.to_vec(), "RFC 3875 section 4.4")));
    for (name, value) in ScriptRules::default().environment {
        let pair = [name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat();
        told.push(("with", pair, "passed to every script"));
    }
    for (name, value) in script.environment() {
        told.push(("with", [name, b"=", value].concat(), "RFC 3875 section 4.1"));
    }
    told.push(("with", [b"DOCUMENT_ROOT=", root].concat(), "set by other servers"));
    told.push(("with", [b"SCRIPT_FILENAME=", &below(script.path)[..]].concat(), "set by other servers"));
    if let Some(path) = script.translated {
        told.push(("with", [b"PATH_TRANSLATED=", &below(path)[..]].concat(), "RFC 3875 section 4.1.6"));
    }
    told.push(("with", b"SERVER_ADDR=127.0.0.1".to_vec(), "set by other servers"));
    told.into_iter()
        .map(|(name, value, why)| Line { topic: Topic::Script, name: name.into(), value, why: why.into() })
        .collect()
}

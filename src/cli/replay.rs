//! `sanserve replay`: plays recorded connections to the core again, without a socket or a disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sanserve_server::panic_message;
use sanserve_transcript::{Difference, Replayed, Settings, Transcript};

use super::files::{self, read, unreadable, within};
use super::{SYSTEM, Side, USAGE};

pub(crate) const SIDE: Side = Side { command, run };

fn command() -> Command {
    Command::new("replay")
        .about("Plays recorded connections to the core, without socket or disk, and checks that it still does the same")
        .after_help("Exit codes: 0 if all are the same, 1 if one differs, 2 if one cannot be read or played.")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("Transcripts, or directories of them; - is standard input"),
        )
        .arg(
            Arg::new("emit-test")
                .long("emit-test")
                .action(ArgAction::SetTrue)
                .help("Print a Rust test for each, which needs the crates sanserve-core and sanserve-transcript"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let emits = matches.get_flag("emit-test");
    let mut tests = emits.then(Tests::default);
    let mut worst = 0;
    let mut say = |outcome: Result<(), Trouble>| {
        if let Err(trouble) = outcome {
            worst = worst.max(trouble.code);
            if trouble.code == USAGE || emits {
                super::print_error(trouble.text);
            } else {
                println!("{}", super::visible(&trouble.text));
            }
        }
    };
    for given in matches.get_many::<PathBuf>("file").into_iter().flatten() {
        match transcripts(given) {
            Ok(paths) => paths.iter().for_each(|path| say(play(path, &mut tests))),
            Err(error) => say(Err(Trouble { code: USAGE, text: unreadable(given, &error) })),
        }
    }
    ExitCode::from(worst)
}

/// Why replaying a file failed.
struct Trouble {
    code: u8,
    text: String,
}

/// The file itself, or the files in the directory.
fn transcripts(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let paths = within(path)?;
    if paths.is_empty() {
        return Err(io::Error::other("no transcripts (NAME.txt)"));
    }
    Ok(paths)
}

/// Plays one transcript and prints the result, or writes a test.
fn play(path: &Path, tests: &mut Option<Tests>) -> Result<(), Trouble> {
    let shown = files::shown(path);
    let recorded = read(path).map_err(|text| Trouble { code: USAGE, text })?;
    let site = &recorded.settings.site;
    let Some(world) = super::world(site).filter(|_| tests.is_none() || *site == Settings::default().site) else {
        let text = format!(
            "{shown}: made with the site {site:?}, which this program does not have: use `Transcript::replay` in a test"
        );
        return Err(Trouble { code: USAGE, text });
    };
    let play = AssertUnwindSafe(|| {
        let (site, mut handler) = world;
        recorded.replay(&*site, &mut *handler)
    });
    let replayed = quietly(|| catch_unwind(play)).map_err(|panic| {
        let text = format!("{shown}: the core panics: {}", panic_message(&*panic));
        Trouble { code: SYSTEM, text }
    })?;
    let Replayed { steps, complete } = replayed.map_err(|difference| differs(path, &difference))?;
    match tests {
        Some(tests) => print!("{}", super::visible(&tests.write(path, &recorded))),
        None => println!("{shown}: same, {steps} steps{}", if complete { "" } else { ", as far as it was recorded" }),
    }
    Ok(())
}

/// Calls a closure with the panic hook silenced. The caller catches and reports panics.
pub(super) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = act();
    set_hook(hook);
    outcome
}

fn differs(path: &Path, difference: &Difference) -> Trouble {
    let Difference { line, event_line, event, expected, actual, .. } = difference;
    let mut text = format!("{}: differs in line {line}", files::shown(path));
    if event_line < line {
        text.push_str(&format!("\n  line {event_line}: {event}"));
    }
    text.push_str(&format!("\n  recorded: {expected}\n  now:      {actual}"));
    Trouble { code: SYSTEM, text }
}

/// Writes tests that play recordings, for one source file.
#[derive(Default)]
struct Tests {
    /// The names so far, since two tests cannot have the same name.
    names: HashSet<String>,
}

impl Tests {
    /// A test that plays a recording. Before the first one, the lines for the manifest.
    fn write(&mut self, path: &Path, recorded: &Transcript) -> String {
        let head = if self.names.is_empty() { dependencies() } else { "\n".into() };
        let mut name = name(path);
        let first = name.clone();
        for n in 2.. {
            if self.names.insert(name.clone()) {
                break;
            }
            name = format!("{first}_{n}");
        }
        let text = recorded.to_text();
        // A raw string ends with a quote and as many `#` as it begins with.
        let longest = text.split('"').skip(1).map(|rest| rest.bytes().take_while(|&byte| byte == b'#').count()).max();
        let marks = "#".repeat(longest.unwrap_or(0) + 1);
        format!(
            "{head}#[test]\n\
             fn {name}() {{\n    \
                 use sanserve_core::{{Call, DefaultPolicy, Reply}};\n    \
                 use sanserve_transcript::Transcript;\n\
             \n    \
                 const RECORDED: &str = r{marks}\"{text}\"{marks};\n\
             \n    \
                 let recorded = Transcript::parse(RECORDED).expect(\"a transcript\");\n    \
                 let replayed = recorded.replay(&DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(()));\n    \
                 replayed.unwrap_or_else(|difference| panic!(\"{{difference}}\"));\n\
             }}\n"
        )
    }
}

/// The name of a test, made of the directory and the name of the recording.
fn name(path: &Path) -> String {
    let directory = path.parent().and_then(Path::file_name);
    let stem = if path.as_os_str() == "-" { Some(OsStr::new("stdin")) } else { path.file_stem() };
    let mut name = String::from("recorded");
    for part in directory.into_iter().chain(stem) {
        // Two underscores in a row are not snake case.
        for word in part.to_string_lossy().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            name.push('_');
            name.push_str(&word.to_ascii_lowercase());
        }
    }
    name
}

/// The lines for the manifest. The crates are those that this program was built from, if they still exist.
fn dependencies() -> String {
    let built = env!("CARGO_MANIFEST_DIR");
    let place = if Path::new(built).join("core/Cargo.toml").exists() { built } else { "CLONE" };
    let clone = if place == built { "" } else { "// CLONE is the directory with the sources of sanserve.\n" };
    let line = |name: &str| format!("// sanserve-{name} = {{ path = {:?} }}\n", format!("{place}/{name}"));
    format!("// In Cargo.toml, under [dev-dependencies]:\n{}{}{clone}\n", line("core"), line("transcript"))
}

//! `sanserve conform`: plays a directory of transcripts over real sockets, on each runtime. The responses must be
//! the same on all three, and the same as in the transcripts.
//!
//! A client sends what the peer of the transcript sent, to a server in this process. The server serves a temporary
//! directory that is built from what the transcript says about the disk. Nothing waits for the clock, so transcripts
//! that depend on time, a full socket or faults of the system are skipped and counted.

mod disk;
mod hash;
mod plan;
mod talk;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sanserve_transcript::Transcript;

use super::flags::Runtime;
use super::{SYSTEM, Side, USAGE, files, plain};
use disk::Disk;
use hash::Hash;
use plan::Plan;

pub(crate) const SIDE: Side = Side { command, run };

/// The runtimes, in the order of the output.
const RUNTIMES: [(&str, Runtime); 3] = [("mio", Runtime::Mio), ("std", Runtime::Std), ("smol", Runtime::Smol)];

/// How many bytes of each side a difference shows, before and after the first byte that differs.
const SHOWN: (usize, usize) = (60, 120);

fn command() -> Command {
    Command::new("conform")
        .about("Plays transcripts to all three runtimes over real sockets and compares the responses")
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Directory with transcripts, NAME.txt (docs/transcripts.md)"),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::SetTrue)
                .help("Print what is skipped, with the reason, and every difference"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let directory = matches.get_one::<PathBuf>("directory").expect("required");
    let cases = match load(directory) {
        Ok(cases) => cases,
        Err(what) => {
            super::print_error(what);
            return ExitCode::from(USAGE);
        }
    };
    let mut report = Report::default();
    for (name, transcript) in &cases {
        match play(transcript) {
            Ok(Ok(played)) => report.played(name, &played),
            Ok(Err(why)) => report.skipped.push((name.clone(), why)),
            Err(error) => {
                super::print_error(format_args!("cannot play {name}: {}", plain(&error)));
                return ExitCode::from(SYSTEM);
            }
        }
    }
    let text = report.text(matches.get_flag("verbose"));
    // The reader of the pipe may have closed it.
    let _ = io::stdout().write_all(text.as_bytes());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(SYSTEM) }
}

/// All transcripts of a directory, by name. The error is a message of one line.
fn load(directory: &Path) -> Result<Vec<(String, Transcript)>, String> {
    if directory.as_os_str() == files::INPUT {
        return Err("standard input is not a directory: conform needs a directory with transcripts (NAME.txt)".into());
    }
    let paths = files::within(directory).map_err(|error| files::unreadable(directory, &error))?;
    if paths.is_empty() {
        return Err(format!("{}: no transcripts (NAME.txt)", directory.display()));
    }
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, files::read(&path)?))
    };
    paths.into_iter().map(read).collect()
}

/// The result of one transcript.
struct Played {
    /// The expected bytes, each with where they come from. All of them should be the same.
    expected: Vec<(&'static str, Vec<u8>)>,
    /// The bytes received from each of [`RUNTIMES`].
    came: [Vec<u8>; 3],
}

/// Plays a transcript on each runtime. `Ok(Err(_))` says why it cannot be played.
fn play(transcript: &Transcript) -> io::Result<Result<Played, String>> {
    let plan = match Plan::of(transcript) {
        Ok(plan) => plan,
        Err(why) => return Ok(Err(why)),
    };
    let disk = match Disk::build(&plan)? {
        Ok(disk) => disk,
        Err(why) => return Ok(Err(why)),
    };
    let mut came = [const { Vec::new() }; 3];
    for (bytes, (_, runtime)) in came.iter_mut().zip(RUNTIMES) {
        *bytes = hash::masked(&talk::talk(runtime, &plan, &disk)?);
    }
    let expected = plan.expected.iter().map(|(of, bytes)| (*of, hash::masked(bytes))).collect();
    Ok(Ok(Played { expected, came }))
}

#[derive(Default)]
struct Report {
    hashes: [Hash; 3],
    played: usize,
    skipped: Vec<(String, String)>,
    differences: Vec<String>,
}

impl Report {
    fn played(&mut self, name: &str, played: &Played) {
        self.played += 1;
        for (hash, bytes) in self.hashes.iter_mut().zip(&played.came) {
            hash.add(name.as_bytes());
            hash.add(bytes);
        }
        let came = RUNTIMES.iter().map(|(runtime, _)| *runtime).zip(played.came.iter().map(Vec::as_slice));
        let expected = played.expected.iter().map(|(of, bytes)| (*of, bytes.as_slice()));
        let all: Vec<(&str, &[u8])> = expected.chain(came).collect();
        self.differences.extend(all.windows(2).filter_map(|pair| difference(name, pair[0], pair[1])));
    }

    fn is_good(&self) -> bool {
        self.differences.is_empty() && self.played > 0
    }

    fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for ((runtime, _), hash) in RUNTIMES.iter().zip(&self.hashes) {
            text += &format!("{runtime:<5} {hash}  {} transcripts\n", self.played);
        }
        if verbose {
            self.skipped.iter().for_each(|(name, why)| text += &format!("skipped {name}: {why}\n"));
        }
        if !self.skipped.is_empty() {
            text += &format!("{} skipped\n", self.skipped.len());
        }
        let shown = if verbose { self.differences.len() } else { 1 };
        self.differences.iter().take(shown).for_each(|difference| text += difference);
        text += &match (self.differences.len(), self.played) {
            (_, 0) => "nothing was played\n".to_owned(),
            (0, _) => "same\n".to_owned(),
            (1, _) => "1 difference\n".to_owned(),
            (n, _) => format!("{n} differences\n"),
        };
        text
    }
}

/// Where two sides differ first, with an excerpt of both, escaped for a terminal.
fn difference(name: &str, a: (&str, &[u8]), b: (&str, &[u8])) -> Option<String> {
    if a.1 == b.1 {
        return None;
    }
    let at = a.1.iter().zip(b.1).take_while(|(a, b)| a == b).count();
    let (before, behind) = SHOWN;
    let around =
        |bytes: &[u8]| bytes[at.saturating_sub(before)..bytes.len().min(at + behind)].escape_ascii().to_string();
    let width = a.0.len().max(b.0.len());
    Some(format!(
        "{name}: {} and {} differ at byte {at}\n  {:width$}  ..{}\n  {:width$}  ..{}\n",
        a.0,
        b.0,
        a.0,
        around(a.1),
        b.0,
        around(b.1)
    ))
}

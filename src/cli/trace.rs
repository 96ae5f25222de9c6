//! `sanserve trace`: writes a transcript as a page that shows it step by step.
//!
//! The states on the page are those of the core, to which the transcript is played. Where the core differs from the
//! transcript, the page shows the states up to there, and only the recorded events from then on.

use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use sanserve_server::panic_message;
use sanserve_transcript::{Difference, Settings, trace};

use super::replay::quietly;
use super::{SYSTEM, Side, USAGE, files, plain};
use crate::page;

pub(crate) const SIDE: Side = Side { command, run };

fn command() -> Command {
    Command::new("trace")
        .about("Writes a self-contained HTML page that shows a transcript step by step")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A transcript (docs/transcripts.md); - is standard input"),
        )
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("PAGE")
                .value_parser(value_parser!(PathBuf))
                .help("File to write the page to; an existing one is replaced [default: standard output]"),
        )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let path = matches.get_one::<PathBuf>("file").expect("it is required");
    let transcript = match files::read(path) {
        Ok(transcript) => transcript,
        Err(message) => return refuse(&message, USAGE),
    };
    let site = &transcript.settings.site;
    let known = super::world(site);
    let is_known = known.is_some();
    let play = AssertUnwindSafe(|| {
        // For a site that this program does not have, the plain one shows the steps that are the same.
        let (site, mut handler) = known.or_else(|| super::world(&Settings::default().site)).expect("the plain one");
        trace(&transcript, &*site, &mut *handler)
    });
    let trace = match quietly(|| catch_unwind(play)) {
        Ok(trace) => trace,
        Err(panic) => {
            let message = format!("{}: the core panics: {}", files::shown(path), panic_message(&*panic));
            return refuse(&message, SYSTEM);
        }
    };
    let shown = files::shown(path);
    let name = path.file_name().filter(|name| *name != "-").map_or(shown.into(), |name| name.to_string_lossy());
    let page = page::render(&name, &transcript, &trace);
    let output = matches.get_one::<PathBuf>("output");
    if let Err(error) = write(output, &page) {
        let shown = output.map_or("standard output".into(), |path| path.display().to_string());
        return refuse(&format!("cannot write {shown}: {}", plain(&error)), SYSTEM);
    }
    match &trace.difference {
        Some(difference) => {
            let made_with = match is_known {
                true => String::new(),
                false => format!(" (it was made with the site {site}, which this program does not have)"),
            };
            refuse(&format!("{}: {}{made_with}", files::shown(path), on_one_line(difference)), SYSTEM)
        }
        None => ExitCode::SUCCESS,
    }
}

fn write(output: Option<&PathBuf>, page: &str) -> io::Result<()> {
    match output {
        Some(path) => fs::write(path, page),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(page.as_bytes())?;
            out.flush()
        }
    }
}

fn on_one_line(difference: &Difference) -> String {
    let Difference { line, expected, actual, .. } = difference;
    format!(
        "line {line} differs, so the page shows no states from there on: expected {expected}, but the core did {actual}"
    )
}

fn refuse(message: &str, code: u8) -> ExitCode {
    super::print_error(message);
    ExitCode::from(code)
}

//! `sanserve replay`: recorded connections through the core again, without socket or disk.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sanserve::core::transcript::{Transcript, check};
use sanserve::core::{Call, Plain, Reply};

use super::{SYSTEM, Side, USAGE};

pub(crate) const SIDE: Side = Side { command, run };

fn command() -> Command {
    Command::new("replay").about("Plays transcripts to the core and says whether it still does the same").arg(
        Arg::new("file")
            .value_name("FILE")
            .required(true)
            .action(ArgAction::Append)
            .value_parser(value_parser!(PathBuf))
            .help("Transcripts (docs/transcripts.md)"),
    )
}

fn run(matches: &ArgMatches) -> ExitCode {
    let mut worst = 0;
    for path in matches.get_many::<PathBuf>("file").into_iter().flatten() {
        let shown = path.display();
        let transcript = match fs::read_to_string(path) {
            Ok(text) => Transcript::parse(&text),
            Err(error) => {
                eprintln!("sanserve: cannot read {shown}: {error}");
                worst = worst.max(USAGE);
                continue;
            }
        };
        match transcript {
            Err(error) => {
                eprintln!("sanserve: {shown}: {error}");
                worst = worst.max(USAGE);
            }
            Ok(transcript) => match check(&transcript, &Plain, &mut |_: Call, _: &mut Reply<'_>| {}) {
                Ok(()) => println!("{shown}: same"),
                Err(difference) => {
                    println!("{shown}: {difference}");
                    worst = worst.max(SYSTEM);
                }
            },
        }
    }
    ExitCode::from(worst)
}

//! The command line: flags, and the server that they ask for.

mod flags;
mod run;

use std::process::ExitCode;

/// Exit code of a usage error, as Python's.
const USAGE: u8 = 2;
/// Exit code when the system refuses.
const SYSTEM: u8 = 1;

/// Reads the command line and serves.
pub(crate) fn main() -> ExitCode {
    let flags = match flags::read() {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            // As Python's argparse has it: the usage, then one line that says what is wrong.
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            eprintln!("{}\nsanserve: error: {}", flags::USAGE, first.trim_start_matches("error: "));
            return ExitCode::from(USAGE);
        }
        Err(help_or_version) => {
            let _ = help_or_version.print();
            return ExitCode::SUCCESS;
        }
    };
    match run::serve(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sanserve: {error}");
            ExitCode::from(SYSTEM)
        }
    }
}

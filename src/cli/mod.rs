//! The command line: the flags of the server, and the subcommands that do not serve.

mod browser;
mod cert;
mod conform;
mod explain;
mod files;
mod flags;
mod https;
mod local_ca;
mod qr;
mod redirect;
mod replay;
mod run;
mod sim;
mod tls;
mod trace;
mod units;
mod urls;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use sanserve_core::{Call, DefaultPolicy, Handler, Policy, Reply, is_deceptive};
use sanserve_transcript::Settings;

use flags::Asked;

/// Exit code for a usage error, the same as Python's.
const USAGE: u8 = 2;
/// Exit code when a system call fails.
const SYSTEM: u8 = 1;

/// A subcommand that does not serve, such as `sanserve replay`.
pub(crate) struct Side {
    /// Its name, arguments and help.
    pub(crate) command: fn() -> Command,
    /// Runs it.
    pub(crate) run: fn(&ArgMatches) -> ExitCode,
}

/// All subcommands, in the order of `--help`.
pub(crate) const SIDES: &[Side] = &[replay::SIDE, trace::SIDE, explain::SIDE, sim::SIDE, conform::SIDE, cert::SIDE];

/// The site and the handler that a transcript names, if this program has them.
pub(crate) fn world(site: &str) -> Option<(Box<dyn Policy>, Box<dyn Handler>)> {
    if site == Settings::default().site {
        Some((Box::new(DefaultPolicy), Box::new(|_: Call, _: &mut Reply<'_>| Ok(()))))
    } else if site == sim::served::NAME {
        Some((Box::new(sim::served::Routed), Box::<sim::served::Busy>::default()))
    } else {
        None
    }
}

/// Parses the command line and runs what it asks for.
pub(crate) fn main() -> ExitCode {
    let asked = match flags::read() {
        Ok(asked) => asked,
        Err(error) if error.use_stderr() => {
            // The same layout as Python's argparse: the usage, then the error on one line.
            let text = error.to_string();
            // An argument may have line ends too.
            let end = ["\n\n  tip:", "\n\nUsage:", "\n\nFor more"].iter().filter_map(|more| text.find(more)).min();
            let what = text[..end.unwrap_or(text.len())].lines().map(str::trim).filter(|line| !line.is_empty());
            let what: Vec<&str> = what.collect();
            let what = what.join(" ");
            let tip = flags::similar(&error).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            eprintln!("{}", flags::usage());
            print_error(format_args!("error: {}{tip}", what.trim_start_matches("error: ")));
            return ExitCode::from(USAGE);
        }
        Err(help_or_version) => {
            let _ = help_or_version.print();
            return ExitCode::SUCCESS;
        }
    };
    let flags = match asked {
        Asked::Serve(flags) => flags,
        Asked::Side(side, matches) => return (side.run)(&matches),
    };
    match run::serve(*flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(error);
            ExitCode::from(SYSTEM)
        }
    }
}

/// Prints an error to stderr, as one message of this program.
pub(crate) fn print_error(message: impl Display) {
    eprintln!("sanserve: {}", visible(&message.to_string()));
}

/// Escapes text that comes from files and command lines, so that a terminal neither interprets nor hides any of it.
pub(crate) fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => seen.push(c),
            _ if c.is_control() || is_deceptive(c) => seen.extend(c.escape_unicode()),
            _ => seen.push(c),
        }
    }
    seen
}

/// An error message without the `(os error N)` that Rust appends.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

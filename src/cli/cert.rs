//! `sanserve cert`: shows the local CA that `--https` has made, exports its certificate for other devices, installs it
//! where clients of this machine look, and removes it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::local_ca::trust::{self, Outcome};
use super::local_ca::{Authority, Store, how_to_trust};
use super::{SYSTEM, Side, plain, print_error, visible};

pub(crate) const SIDE: Side = Side { command, run };

fn command() -> Command {
    Command::new("cert")
        .about("Shows, exports, installs or removes the local CA that --https has made")
        .subcommand(Command::new("show").about("Prints where it is, its fingerprint, and how to trust it (the default)"))
        .subcommand(
            Command::new("export").about("Writes its certificate, without the key, for other devices").arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("File to write, which is replaced [default: standard output]"),
            ),
        )
        .subcommand(
            Command::new("install")
                .about("Makes clients of this machine trust it, by the tools that are there: update-ca-certificates, update-ca-trust, trust, certutil, security"),
        )
        .subcommand(Command::new("remove").about("Removes it from where it was installed, and deletes it with its key"))
}

fn run(matches: &ArgMatches) -> ExitCode {
    let done = match matches.subcommand() {
        Some(("export", matches)) => export(matches.get_one::<PathBuf>("file").map(PathBuf::as_path)),
        Some(("install", _)) => install(),
        Some(("remove", _)) => remove(),
        _ => show(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(SYSTEM),
        Err(error) => {
            print_error(error);
            ExitCode::from(SYSTEM)
        }
    }
}

/// The CA of the user.
fn existing() -> Result<(Store, Authority), String> {
    let store = Store::of_user()?;
    match store.authority()? {
        Some(authority) => Ok((store, authority)),
        None => Err("there is no local CA: `sanserve --https` makes one".into()),
    }
}

fn show() -> Result<bool, String> {
    let (store, authority) = existing()?;
    print(&format!("{}{}", authority.describe(&store.authority_path()), how_to_trust()));
    Ok(true)
}

fn export(file: Option<&Path>) -> Result<bool, String> {
    let (_, authority) = existing()?;
    let pem = authority.certificate_pem();
    match file {
        None => print(pem),
        Some(path) => {
            fs::write(path, pem).map_err(|error| format!("cannot write {}: {}", path.display(), plain(&error)))?;
        }
    }
    Ok(true)
}

fn install() -> Result<bool, String> {
    let (store, authority) = existing()?;
    let file = store.write_certificate(&authority)?;
    let outcomes: Vec<Outcome> = trust::stores().iter().map(|store| store.install(&authority, &file)).collect();
    if outcomes.is_empty() {
        return Err("no tool to install certificates is there: `sanserve cert show` prints how to do it".into());
    }
    Ok(report("Installed", outcomes))
}

fn remove() -> Result<bool, String> {
    let store = Store::of_user()?;
    let mut is_clean = true;
    // One that is damaged cannot be found in the stores of clients, but can be deleted.
    match store.authority() {
        Ok(None) => return Err("there is no local CA".into()),
        Ok(Some(authority)) => {
            let file = store.write_certificate(&authority)?;
            let outcomes = trust::stores().iter().filter_map(|store| store.remove(&authority, &file)).collect();
            is_clean = report("Removed", outcomes);
        }
        Err(error) => print_error(error),
    }
    store.remove()?;
    print(&format!("Deleted {}\n", visible(&store.authority_path().display().to_string())));
    Ok(is_clean)
}

/// Prints what has been done. Returns whether all of it succeeded.
fn report(what: &str, outcomes: Vec<Outcome>) -> bool {
    let mut is_good = true;
    for Outcome { store, result } in outcomes {
        match result {
            Ok(()) => print(&format!("{what}: {}\n", visible(&store))),
            Err(error) => {
                is_good = false;
                print_error(format_args!("{store}: {error}"));
            }
        }
    }
    is_good
}

/// A reader that is gone is no error.
fn print(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

//! HTTPS as the command serves it: its flags, certificates from files and from the local CA, reloads, redirections, and
//! the clients that people use.

#[path = "https_command/certificates.rs"]
mod certificates;
#[path = "https_command/clients.rs"]
mod clients;
#[path = "https_command/local.rs"]
mod local;
#[path = "https_command/redirects.rs"]
mod redirects;
#[path = "https_command/session.rs"]
mod session;

use std::path::Path;
use std::process::Command;

use testkit::process::Process;
use testkit::server::program;
use testkit::{Runtime, Server, Tree};

/// A server on loopback with these flags, whose local CA, if it makes one, is kept in `home`.
#[track_caller]
fn serve(runtime: Runtime, tree: &Tree, home: &Path, flags: &[&str]) -> Server {
    Server::of(Process::start(&mut command(runtime, tree, home, flags)))
}

fn command(runtime: Runtime, tree: &Tree, home: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["-b", "127.0.0.1", "--runtime", runtime.name(), "-d"]).arg(tree.root()).args(flags).arg("0");
    command.env("HOME", home).env_remove("XDG_DATA_HOME");
    command
}

/// The first line of the banner.
fn banner(server: &Server) -> String {
    server.process().stdout.line("the banner", |line| line.starts_with("Serving"))
}

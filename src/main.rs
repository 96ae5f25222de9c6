//! The `sanserve` command.

mod cli;
mod page;

fn main() -> std::process::ExitCode {
    // CGI scripts are started by a second process that runs this same program.
    sanserve_server::Launcher::run_if_asked();
    cli::main()
}

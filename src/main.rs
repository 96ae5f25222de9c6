//! The `sanserve` command.

mod cli;
mod page;

fn main() -> std::process::ExitCode {
    // Scripts are started by a second process of this program.
    sanserve::server::Launcher::run_if_asked();
    cli::main()
}

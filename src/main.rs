//! The `sanserve` command.

mod cli;
mod page;

fn main() -> std::process::ExitCode {
    cli::main()
}

//! Opening a browser (`--open`).

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use super::{plain, print_error};

/// The program that opens a URL in the user's browser.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Opens a URL on a thread of its own, whatever becomes of it: the server runs without a browser too. A failure is
/// printed as one line.
pub(crate) fn open(url: String) {
    let opened = thread::Builder::new().name("browser".into()).spawn(move || {
        let mut command = Command::new(OPENER);
        // In a process group of its own, so that Ctrl-C in the terminal of the server does not end the browser.
        command.arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => print_error(format_args!("cannot open {url} in a browser: {OPENER} failed: {status}")),
            Err(error) => print_error(format_args!("cannot open {url} in a browser: {OPENER}: {}", plain(&error))),
        }
    });
    if let Err(error) = opened {
        print_error(format_args!("cannot open a browser: {}", plain(&error)));
    }
}

//! The launcher of the test program: the test [`launcher`], run in a separate process.

use std::env;
use std::process::Command;

/// The environment variable that makes a process the launcher.
const BE: &str = "SANSERVE_TEST_IS_LAUNCHER";

#[cfg(target_os = "linux")]
#[test]
fn launcher() {
    if env::var_os(BE).is_some() {
        super::process::run();
    }
}

/// The command that starts it.
pub(super) fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    let name = module_path!().split_once("::").map_or("", |(_, path)| path);
    command.args([&format!("{name}::launcher"), "--exact", "--nocapture", "--test-threads=1"]).env(BE, "1");
    command
}

//! Explains why the system does not run a script, and what to fix. The error itself names neither the interpreter nor
//! the line terminator that has become a part of its name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// How much of the first line Linux reads (`BINPRM_BUF_SIZE`).
const LINE: usize = 256;

/// Explains `error` for the file at `program`. `None`: there is nothing to add to the error.
pub(super) fn explain(program: &Path, error: &io::Error) -> Option<String> {
    let error = Errno::from_io_error(error)?;
    let mut head = Vec::with_capacity(LINE);
    // The script may have been replaced by a FIFO.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let file = File::options().read(true).custom_flags(flags).open(program).ok()?;
    file.take(LINE as u64).read_to_end(&mut head).ok()?;
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_text = head.iter().all(|byte| !matches!(byte, 0..=7 | 14..=26 | 28..=31));
        return match error {
            Errno::NOEXEC if head.starts_with(b"\xef\xbb\xbf#!") => {
                Some("a byte order mark stands before its #! line; save it without one".into())
            }
            Errno::NOEXEC if head.is_empty() => Some("it is empty".into()),
            Errno::NOEXEC if is_text => {
                Some("it has no #! line; its first line is to name its interpreter, such as #!/bin/sh".into())
            }
            Errno::NOEXEC => Some("it is no program for this machine".into()),
            Errno::NOENT => Some("it is there, but what loads it, or a library, is not".into()),
            _ => None,
        };
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_start();
    let name = line.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    let shown = quoted(name);
    if name.is_empty() || name == b"\r" {
        return Some("its #! line names no interpreter".into());
    }
    if let Some(bare) = name.strip_suffix(b"\r") {
        return Some(format!(
            "interpreter {shown} does not exist: the script has CR LF at its line ends; with LF alone its interpreter is {}",
            quoted(bare)
        ));
    }
    let path = Path::new(OsStr::from_bytes(name));
    Some(match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("interpreter {shown} does not exist"),
        Err(error) => format!("interpreter {shown}: {error}"),
        Ok(file) if !file.is_file() => format!("interpreter {shown} is not a file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => format!("interpreter {shown} is not executable"),
        Ok(_) if error == Errno::NOENT => format!("interpreter {shown} is there, but what loads it is not"),
        Ok(_) if matches!(error, Errno::NOEXEC | Errno::LOOP) => {
            format!("interpreter {shown} is itself no program that this system runs")
        }
        Ok(_) => return None,
    })
}

/// Escaped for a log, with `\r` for a trailing carriage return.
fn quoted(name: &[u8]) -> String {
    let mut text = b"'".to_vec();
    let (name, cr) = name.strip_suffix(b"\r").map_or((name, ""), |name| (name, "\\r"));
    sanserve_core::scrub(&mut text, name);
    text.extend_from_slice(cr.as_bytes());
    text.push(b'\'');
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_explained() {
        let dir = tempfile::tempdir().unwrap();
        let (script, plain) = (dir.path().join("x"), dir.path().join("plain"));
        fs::write(&plain, "text").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        let plain = plain.display();
        for (text, error, expected) in [
            ("#!/bin/sh\r\necho\r\n", Errno::NOENT, Some("interpreter '/bin/sh\\r' does not exist: the script has CR LF at its line ends; with LF alone its interpreter is '/bin/sh'".to_owned())),
            ("#! /usr/bin/env python3\r\n", Errno::NOENT, None),
            ("#!/no/such\n", Errno::NOENT, Some("interpreter '/no/such' does not exist".into())),
            ("#!/no/\x1b such -x", Errno::NOENT, Some("interpreter '/no/\\x1b' does not exist".into())),
            ("#!/bin\n", Errno::ACCESS, Some("interpreter '/bin' is not a file".into())),
            ("#!/dev/null/x\n", Errno::NOTDIR, Some("interpreter '/dev/null/x': Not a directory (os error 20)".into())),
            (&format!("#!{plain}\n"), Errno::ACCESS, Some(format!("interpreter '{plain}' is not executable"))),
            ("#!\n", Errno::NOEXEC, Some("its #! line names no interpreter".into())),
            ("#!\r\n", Errno::NOENT, Some("its #! line names no interpreter".into())),
            ("echo\n", Errno::NOEXEC, Some("it has no #! line; its first line is to name its interpreter, such as #!/bin/sh".into())),
            ("\u{feff}#!/bin/sh\n", Errno::NOEXEC, Some("a byte order mark stands before its #! line; save it without one".into())),
            ("", Errno::NOEXEC, Some("it is empty".into())),
            ("\x7fELF\0", Errno::NOEXEC, Some("it is no program for this machine".into())),
            ("\x7fELF\0", Errno::NOENT, Some("it is there, but what loads it, or a library, is not".into())),
        ] {
            fs::write(&script, text).unwrap();
            let found = explain(&script, &error.into());
            if let Some(expected) = expected {
                assert_eq!(found, Some(expected), "{text:?}");
            }
        }
        assert_eq!(explain(&dir.path().join("none"), &Errno::NOENT.into()), None);
    }
}

//! Transcripts from files, for the commands that play them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sanserve::core::transcript::Transcript;

use super::{plain, visible};

/// What stands for the standard input.
const INPUT: &str = "-";

/// Reads one; `-` is the standard input. `Err` says in one line why not.
pub(crate) fn read(path: &Path) -> Result<Transcript, String> {
    let bytes = match path.as_os_str() == INPUT {
        true => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        false => fs::read(path),
    };
    let bytes = bytes.map_err(|error| unreadable(path, &error))?;
    let shown = shown(path);
    let text = match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => return Err(format!("{shown}: no transcript: it is empty")),
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            return Err(format!("{shown}: no transcript: byte {at} is no text (UTF-8)"));
        }
    };
    Transcript::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

/// What a file is called in what is said of it.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str() == INPUT { "standard input".into() } else { visible(&path.display().to_string()) }
}

/// All of a directory, `NAME.txt`, in the order of their names.
pub(crate) fn within(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths = entries?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    Ok(paths)
}

/// Why something cannot be read, in one line.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", shown(path), plain(error))
}

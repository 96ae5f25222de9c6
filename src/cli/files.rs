//! Transcripts from files, for the commands that play them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sanserve::core::transcript::Transcript;

use super::plain;

/// Reads one. `Err` says in one line why not.
pub(crate) fn read(path: &Path) -> Result<Transcript, String> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Transcript::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
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
    format!("cannot read {}: {}", path.display(), plain(error))
}

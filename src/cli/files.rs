//! Reading transcripts from files, for the subcommands that play them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sanserve_transcript::{FIRST_LINE, Transcript};

use super::{plain, visible};

/// The argument that stands for standard input.
pub(crate) const INPUT: &str = "-";

/// Reads a transcript; `-` is standard input. The error is a message of one line.
pub(crate) fn read(path: &Path) -> Result<Transcript, String> {
    let bytes = match path.as_os_str() == INPUT {
        true => read_from(io::stdin().lock()),
        false => File::open(path).and_then(read_from),
    };
    let bytes = bytes.map_err(|error| unreadable(path, &error))?;
    let shown = shown(path);
    let text = match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => return Err(format!("{shown}: not a transcript: it is empty")),
        Ok(text) => text,
        // A truncated file may end within a character.
        Err(error) if error.utf8_error().error_len().is_none() => String::from_utf8_lossy(error.as_bytes()).into(),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            return Err(format!("{shown}: not a transcript: byte {at} is not UTF-8 text"));
        }
    };
    Transcript::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

/// Reads all bytes if they begin like a transcript, else only the first few: a device may have no end.
fn read_from(mut source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.by_ref().take(FIRST_LINE.len() as u64).read_to_end(&mut bytes)?;
    if bytes == FIRST_LINE.as_bytes() {
        source.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The name of a file for messages.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str() == INPUT { "standard input".into() } else { visible(&path.display().to_string()) }
}

/// All files `NAME.txt` of a directory, sorted by name.
pub(crate) fn within(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<PathBuf>> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths = entries?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    Ok(paths)
}

/// The message for a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", shown(path), plain(error))
}

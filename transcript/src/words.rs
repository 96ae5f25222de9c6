//! The words of the format, and how text is quoted, for both parsing and formatting.

use std::fmt::Write;

use sanserve_core::{EntryKind, Fault, FsError, Input, Listed, Need, ScriptFile, ScriptInput, SpawnError, TlsVersion};

/// The first line of every transcript: the format and its version.
pub const FIRST_LINE: &str = "sanserve transcript 1";

pub(crate) const FAULTS: &[(&str, Fault)] = &[
    ("peer", Fault::Peer),
    ("file-shrank", Fault::FileShrank),
    ("file-changed", Fault::FileChanged),
    ("file", Fault::File),
    ("handler", Fault::Handler),
];

pub(crate) const TLS_VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

pub(crate) const FS_ERRORS: &[(&str, FsError)] = &[
    ("not-found", FsError::NotFound),
    ("denied", FsError::Denied),
    ("exhausted", FsError::Exhausted),
    ("failed", FsError::Failed),
];

pub(crate) const LISTED: &[(&str, Listed)] = &[("more", Listed::More), ("end", Listed::End)];

pub(crate) const INPUTS: &[(&str, Input)] = &[
    ("handshake", Input::Handshake),
    ("unsecured", Input::Unsecured),
    ("eof", Input::Eof),
    ("probed", Input::Probed),
    ("blocked", Input::Blocked),
    ("writable", Input::Writable),
    ("file-pending", Input::FilePending),
    ("file-ready", Input::FileReady),
    ("wake", Input::Wake),
    ("scarce", Input::Scarce),
    ("leave", Input::Leave),
    ("drain", Input::Drain),
    ("cut", Input::Cut),
    ("feed-blocked", Input::FeedBlocked),
    ("feedable", Input::Feedable),
    ("feed-end", Input::FeedEnd),
    ("spool-full", Input::SpoolFull),
    ("script-eof", Input::ScriptEof),
    ("script-busy", Input::ScriptFailed(SpawnError::Busy)),
    ("script-exhausted", Input::ScriptFailed(SpawnError::Exhausted)),
    ("script-denied", Input::ScriptFailed(SpawnError::Denied)),
    ("script-failed", Input::ScriptFailed(SpawnError::Failed)),
];

pub(crate) const SCRIPT_FILES: &[(&str, ScriptFile)] = &[
    ("runnable", ScriptFile::Runnable),
    ("missing", ScriptFile::Missing),
    ("not-plain", ScriptFile::NotPlain),
    ("not-executable", ScriptFile::NotExecutable),
];

pub(crate) const SCRIPT_INPUTS: &[(&str, ScriptInput)] =
    &[("empty", ScriptInput::Empty), ("piped", ScriptInput::Piped), ("spooled", ScriptInput::Spooled)];

pub(crate) const SPAWN_ERRORS: &[(&str, SpawnError)] = &[
    ("busy", SpawnError::Busy),
    ("exhausted", SpawnError::Exhausted),
    ("denied", SpawnError::Denied),
    ("failed", SpawnError::Failed),
];

pub(crate) const MARKS: &[(&str, EntryKind)] = &[
    ("", EntryKind::File),
    ("/", EntryKind::Directory),
    ("@", EntryKind::Link { directory: false }),
    ("@/", EntryKind::Link { directory: true }),
];

pub(crate) fn named<T: Clone>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|row| row.0 == word).map(|row| row.1.clone())
}

pub(crate) fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|row| row.1 == *value).map_or("?", |row| row.0)
}

/// Access to a part of `Need`.
type Part = fn(&mut Need) -> &mut bool;

/// The names of the parts of `Need`, in their order.
pub(crate) const NEEDS: [(&str, Part); 6] = [
    ("read", |need| &mut need.read),
    ("write", |need| &mut need.write),
    ("script-read", |need| &mut need.script_read),
    ("script-write", |need| &mut need.script_write),
    ("completion", |need| &mut need.completion),
    ("handler", |need| &mut need.handler),
];

/// Writes a path, without quotes if it is unambiguous.
pub(crate) fn word(bytes: &[u8], out: &mut String) {
    let bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(bare) && !text.starts_with('-') => out.push_str(text),
        _ => quoted(bytes, out),
    }
}

/// Escapes bytes as in Rust byte strings.
pub(crate) fn quoted(bytes: &[u8], out: &mut String) {
    out.push('"');
    for &byte in bytes {
        match byte {
            b'\r' => out.push_str("\\r"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b'"' => out.push_str("\\\""),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => write!(out, "\\x{byte:02x}").expect("writing to a String does not fail"),
        }
    }
    out.push('"');
}

/// The text up to the closing quote, and the rest.
pub(crate) fn unquote(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let byte = match c {
            '"' => return Ok((bytes, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('"') => b'"',
                Some('\'') => b'\'',
                Some('x') => {
                    let digits = text.get(at + 2..at + 4).unwrap_or_default();
                    chars.nth(1);
                    u8::from_str_radix(digits, 16).map_err(|_| format!("unknown escape: \\x{digits}"))?
                }
                other => return Err(format!("unknown escape: \\{}", other.unwrap_or(' '))),
            },
            ' '..='~' => c as u8,
            other => return Err(format!("{other:?} must be escaped")),
        };
        bytes.push(byte);
    }
    Err("missing closing quote".into())
}

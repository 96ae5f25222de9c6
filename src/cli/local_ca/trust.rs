//! Trust in the CA on this machine: the stores of certificates that its clients read, by the tools that the system has
//! for them. Nothing here becomes another user: what needs root says so.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::make::Authority;
use crate::cli::plain;

/// A place where clients look for CAs.
pub(crate) enum TrustStore {
    /// Files in a directory, of which a program makes what clients read: curl, git, Python, and most others.
    Directory { directory: PathBuf, update: &'static str },
    /// p11-kit keeps the files itself.
    P11Kit,
    /// A database of NSS: Chromium, or a profile of Firefox.
    Nss(PathBuf),
    /// The keychain of macOS.
    Keychain,
}

/// What has been tried, and its outcome: a message of one line if it failed.
pub(crate) struct Outcome {
    pub(crate) store: String,
    pub(crate) result: Result<(), String>,
}

/// The directories of certificates on Unix systems, each with the program that reads it.
const DIRECTORIES: [(&str, &str); 3] = [
    // Debian, Alpine.
    ("/usr/local/share/ca-certificates", DEBIAN_UPDATE),
    // Fedora.
    ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
    // SUSE.
    ("/etc/pki/trust/anchors", DEBIAN_UPDATE),
];

const DEBIAN_UPDATE: &str = "update-ca-certificates";

/// The stores of this machine for which there is a tool.
pub(crate) fn stores() -> Vec<TrustStore> {
    let mut found = Vec::new();
    if cfg!(target_os = "macos") {
        found.extend(has("security").then_some(TrustStore::Keychain));
    } else {
        let directory = DIRECTORIES.iter().find(|(directory, update)| has(update) && Path::new(directory).is_dir());
        match directory {
            Some(&(directory, update)) => found.push(TrustStore::Directory { directory: directory.into(), update }),
            None => found.extend(has("trust").then_some(TrustStore::P11Kit)),
        }
    }
    if has("certutil") {
        found.extend(nss_databases().into_iter().map(TrustStore::Nss));
    }
    found
}

/// Chromium's database, which is made if it is not there, and those of the profiles of Firefox.
fn nss_databases() -> Vec<PathBuf> {
    let Some(home) = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()) else {
        return Vec::new();
    };
    let profiles =
        [".mozilla/firefox", "snap/firefox/common/.mozilla/firefox", "Library/Application Support/Firefox/Profiles"];
    let profiles = profiles.iter().flat_map(|folder| fs::read_dir(home.join(folder)).into_iter().flatten().flatten());
    let mut found: Vec<PathBuf> =
        profiles.map(|entry| entry.path()).filter(|path| path.join("cert9.db").is_file()).collect();
    found.sort();
    if !cfg!(target_os = "macos") {
        found.insert(0, home.join(".pki/nssdb"));
    }
    found
}

impl TrustStore {
    /// What it is, for people.
    fn name(&self) -> String {
        match self {
            TrustStore::Directory { directory, update } => {
                format!("the system, by {update} in {}", directory.display())
            }
            TrustStore::P11Kit => "the system, by trust".into(),
            TrustStore::Nss(path) => format!("NSS, by certutil in {}", path.display()),
            TrustStore::Keychain => "the login keychain, by security".into(),
        }
    }

    /// Makes its clients trust the CA, whose certificate is in `file`.
    pub(crate) fn install(&self, authority: &Authority, file: &Path) -> Outcome {
        let file = &*file.to_string_lossy();
        let result = match self {
            TrustStore::Directory { directory, update } => {
                let path = directory.join(file_name(authority));
                fs::write(&path, authority.certificate_pem())
                    .map_err(|error| format!("cannot write {}: {}", path.display(), as_root(&error)))
                    .and_then(|()| run(update, &[]))
            }
            TrustStore::P11Kit => run("trust", &["anchor", "--store", file]),
            TrustStore::Nss(path) => make_database(path).and_then(|()| {
                let database = format!("sql:{}", path.display());
                let name = authority.name();
                run("certutil", &["-A", "-d", &database, "-n", &name, "-t", "C,,", "-i", file])
            }),
            TrustStore::Keychain => run("security", &["add-trusted-cert", "-r", "trustRoot", file]),
        };
        Outcome { store: self.name(), result }
    }

    /// Makes its clients forget the CA, whose certificate is in `file`. `None`: they do not know it.
    pub(crate) fn remove(&self, authority: &Authority, file: &Path) -> Option<Outcome> {
        let file = &*file.to_string_lossy();
        let result = match self {
            TrustStore::Directory { directory, update } => {
                let path = directory.join(file_name(authority));
                if !path.exists() {
                    return None;
                }
                let removed = fs::remove_file(&path);
                removed
                    .map_err(|error| format!("cannot remove {}: {}", path.display(), as_root(&error)))
                    // Without `--fresh`, Debian's leaves links to the file that was removed.
                    .and_then(|()| run(update, if *update == DEBIAN_UPDATE { &["--fresh"] } else { &[] }))
            }
            TrustStore::P11Kit => run("trust", &["anchor", "--remove", file]),
            TrustStore::Nss(path) => {
                let database = format!("sql:{}", path.display());
                let name = authority.name();
                if !path.join("cert9.db").is_file() || run("certutil", &["-L", "-d", &database, "-n", &name]).is_err() {
                    return None;
                }
                run("certutil", &["-D", "-d", &database, "-n", &name])
            }
            TrustStore::Keychain => run("security", &["remove-trusted-cert", file]),
        };
        Some(Outcome { store: self.name(), result })
    }
}

fn file_name(authority: &Authority) -> String {
    // Such as `sanserve-local-CA-1A2B3C4D.crt`; Debian requires `.crt`.
    format!("{}.crt", authority.name().replace(' ', "-"))
}

fn make_database(path: &Path) -> Result<(), String> {
    if path.join("cert9.db").is_file() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|error| format!("cannot create {}: {}", path.display(), plain(&error)))?;
    run("certutil", &["-N", "--empty-password", "-d", &format!("sql:{}", path.display())])
}

/// Runs a tool. The error is what it printed, on one line.
fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {tool}: {}", plain(&error)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(if said.is_empty() { format!("{tool} failed: {}", output.status) } else { format!("{tool} failed: {said}") })
}

fn as_root(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "only root may do that".into(),
        _ => plain(error),
    }
}

/// Whether a program is on `PATH`.
fn has(tool: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|path| path.is_absolute() && path.join(tool).is_file())
}

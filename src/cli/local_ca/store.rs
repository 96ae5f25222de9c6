//! Where the CA and the certificate are kept: two files in a directory that only its owner can read, each with a
//! certificate and its key, so that one rename replaces both. A third file has the certificate of the CA alone, for other
//! devices.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::make::{Authority, Leaf};
use crate::cli::{plain, visible};

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 10;

const AUTHORITY: &str = "ca.pem";
const LEAF: &str = "server.pem";
const CERTIFICATE: &str = "ca.crt";
const LOCK: &str = "lock";

/// The directory.
pub(crate) struct Store {
    directory: PathBuf,
}

/// While this lives, no other process changes the store.
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// The directory of the user: `$XDG_DATA_HOME/sanserve`, or `~/.local/share/sanserve`. It need not exist.
    ///
    /// The error is a message of one line, as are all errors here.
    pub(crate) fn of_user() -> Result<Store, String> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // The XDG Base Directory Specification ignores relative paths.
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        let data = data.ok_or("cannot keep a local CA: neither XDG_DATA_HOME nor HOME is set")?;
        Ok(Store::at(data.join("sanserve")))
    }

    pub(crate) fn at(directory: PathBuf) -> Store {
        Store { directory }
    }

    /// The file of the CA.
    pub(crate) fn authority_path(&self) -> PathBuf {
        self.directory.join(AUTHORITY)
    }

    /// Creates the directory if it is not there, and waits until no other process has the lock.
    pub(crate) fn lock(&self) -> Result<Lock, String> {
        let failed =
            |error: io::Error| format!("cannot keep a local CA in {}: {}", shown(&self.directory), plain(&error));
        if let Some(parent) = self.directory.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let path = self.directory.join(LOCK);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Lock { _file: file })
    }

    /// The CA that is kept, if there is one.
    pub(crate) fn authority(&self) -> Result<Option<Authority>, String> {
        let text = self.read(AUTHORITY)?;
        text.map(|text| Authority::from_pem(&text).map_err(|error| self.damaged(&error))).transpose()
    }

    /// The message for a CA that cannot be used.
    pub(crate) fn damaged(&self, why: &impl Display) -> String {
        let path = self.authority_path();
        format!("cannot use the local CA {}: {why}; `sanserve cert remove` removes it", shown(&path))
    }

    /// The certificate that is kept, if there is one that can be used: another one is easily made.
    pub(crate) fn leaf(&self) -> Result<Option<Leaf>, String> {
        Ok(self.read(LEAF)?.and_then(|text| Leaf::from_pem(text).ok()))
    }

    pub(crate) fn keep_authority(&self, authority: &Authority) -> Result<(), String> {
        self.write(AUTHORITY, &authority.to_pem())?;
        self.write_certificate(authority).map(drop)
    }

    /// Writes the certificate of the CA to its own file, and returns the path of that.
    pub(crate) fn write_certificate(&self, authority: &Authority) -> Result<PathBuf, String> {
        self.write(CERTIFICATE, authority.certificate_pem())?;
        Ok(self.directory.join(CERTIFICATE))
    }

    pub(crate) fn keep_leaf(&self, leaf: &Leaf) -> Result<(), String> {
        self.write(LEAF, leaf.to_pem())
    }

    /// Removes the CA and the certificate. Returns whether there was a CA.
    pub(crate) fn remove(&self) -> Result<bool, String> {
        let mut existed = false;
        for name in [LEAF, CERTIFICATE, AUTHORITY] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Ok(()) => existed |= name == AUTHORITY,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot remove {}: {}", shown(&path), plain(&error))),
            }
        }
        Ok(existed)
    }

    /// Reads a file. `None` if it is not there.
    fn read(&self, name: &str) -> Result<Option<String>, String> {
        let path = self.directory.join(name);
        let cannot = |why: &dyn Display| format!("cannot read {}: {why}", shown(&path));
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(&plain(&error))),
        };
        if !metadata.is_file() {
            return Err(cannot(&"it is not a file"));
        }
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o777;
            return Err(cannot(&format_args!(
                "others have access to its key: its mode is {mode:03o} and should be 600"
            )));
        }
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        read.map_err(|error| cannot(&plain(&error)))?;
        Ok(Some(text))
    }

    /// Replaces a file as a whole, also if the machine fails meanwhile.
    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.directory.join(name);
        // The lock is held, so nobody else writes it. One that was left behind is replaced.
        let part = self.directory.join(format!("{name}.part"));
        let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part);
        let written = written.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.directory)?.sync_all()
        });
        written.map_err(|error| format!("cannot write {}: {}", shown(&path), plain(&error)))
    }
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    use sanserve_tls::rustls::pki_types::UnixTime;

    use super::super::{Names, ensure};
    use super::*;

    fn at(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((20_000 + days) * 86_400))
    }

    fn names(ip: &str) -> Names {
        Names::of("box", [ip.parse().expect("an address")])
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").mode() & 0o777
    }

    #[test]
    fn what_is_made_is_kept_for_its_owner() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("a/b/sanserve");
        let store = Store::at(directory.clone());
        let first = ensure(&store, &names("10.0.0.1"), at(0)).expect("made");
        assert!(first.is_new && first.identity.is_for("10.0.0.1"));
        assert_eq!((mode(&directory), mode(&directory.join("ca.pem"))), (0o700, 0o600));
        assert_eq!((mode(&directory.join("server.pem")), mode(&directory.join("lock"))), (0o600, 0o600));
        let second = ensure(&store, &names("10.0.0.1"), at(1)).expect("kept");
        assert!(!second.is_new);
        assert_eq!(second.identity.chain(), first.identity.chain());
        assert!(store.remove().expect("removed") && !store.remove().expect("nothing is left"));
        let third = ensure(&store, &names("10.0.0.1"), at(1)).expect("made");
        assert!(third.is_new && third.authority.name() != first.authority.name());
    }

    #[test]
    fn a_certificate_is_renewed_for_a_new_address_and_before_it_expires() {
        let place = tempfile::tempdir().expect("a directory");
        let store = Store::at(place.path().join("sanserve"));
        let first = ensure(&store, &names("10.0.0.1"), at(0)).expect("made");
        let moved = ensure(&store, &names("10.0.0.2"), at(0)).expect("made");
        assert!(moved.identity.chain() != first.identity.chain() && moved.identity.is_for("10.0.0.2"));
        assert!(!moved.is_new && moved.authority.fingerprint() == first.authority.fingerprint());
        for (day, is_same) in [(300, true), (365, true), (367, false)] {
            let later = ensure(&store, &names("10.0.0.2"), at(day)).expect("valid");
            assert_eq!(later.identity.chain() == moved.identity.chain(), is_same, "{day}");
        }
        // Near the end of the CA there is nothing to renew.
        let last = ensure(&store, &names("10.0.0.2"), at(3_640)).expect("valid");
        let same = ensure(&store, &names("10.0.0.2"), at(3_640)).expect("valid");
        assert_eq!(same.identity.chain(), last.identity.chain());
        let error = ensure(&store, &names("10.0.0.2"), at(3_650)).err().expect("expired");
        assert!(error.contains("expired") && error.contains("sanserve cert remove"), "{error}");
    }

    #[test]
    fn a_damaged_certificate_is_replaced_and_a_damaged_ca_is_not() {
        let place = tempfile::tempdir().expect("a directory");
        let store = Store::at(place.path().to_owned());
        ensure(&store, &names("10.0.0.1"), at(0)).expect("made");
        let (ca, leaf) = (place.path().join("ca.pem"), place.path().join("server.pem"));
        let kept = fs::read(&ca).expect("a file");
        fs::write(&leaf, "nonsense").expect("written");
        ensure(&store, &names("10.0.0.1"), at(0)).expect("made again");
        assert_eq!(fs::read(&ca).expect("a file"), kept);
        let refused = || {
            let error = ensure(&store, &names("10.0.0.1"), at(0)).err().expect("refused");
            assert!(!error.contains('\n'), "{error}");
            error
        };
        fs::write(&ca, &kept[..kept.len() / 2]).expect("written");
        assert!(refused().contains("sanserve cert remove"));
        fs::write(&ca, &kept).expect("written");
        fs::set_permissions(&ca, fs::Permissions::from_mode(0o644)).expect("the owner may");
        assert!(refused().contains("its mode is 644"));
        fs::remove_file(&ca).expect("it exists");
        fs::create_dir(&ca).expect("a directory");
        assert!(refused().contains("it is not a file"));
        let on_a_file = Store::at(leaf.join("x"));
        assert!(
            ensure(&on_a_file, &names("10.0.0.1"), at(0)).is_err_and(|error| error.contains("cannot keep a local CA"))
        );
    }

    /// What a process that died left behind is no obstacle.
    #[test]
    fn an_interrupted_run_is_no_obstacle() {
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join("ca.pem.part"), "-----BEGIN").expect("written");
        fs::write(place.path().join("server.pem"), "").expect("written");
        fs::set_permissions(place.path().join("server.pem"), fs::Permissions::from_mode(0o600)).expect("the owner may");
        assert!(ensure(&Store::at(place.path().to_owned()), &names("10.0.0.1"), at(0)).expect("made").is_new);
    }

    #[test]
    fn first_runs_at_the_same_time_make_one_ca() {
        let place = tempfile::tempdir().expect("a directory");
        let (directory, start) = (place.path().join("sanserve"), Barrier::new(8));
        let made: Vec<(bool, String)> = thread::scope(|scope| {
            let run = || {
                start.wait();
                let local = ensure(&Store::at(directory.clone()), &names("10.0.0.1"), at(0)).expect("made");
                (local.is_new, local.authority.fingerprint())
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(made.iter().filter(|(is_new, _)| *is_new).count(), 1);
        assert!(made.iter().all(|(_, fingerprint)| *fingerprint == made[0].1));
    }
}

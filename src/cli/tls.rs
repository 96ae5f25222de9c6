//! Certificates from files: `--tls-cert`, `--tls-key` and `--tls-password-file`, and their reload.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use sanserve_server::Log;
use sanserve_tls::identity::{Identities, Identity, IdentityError, certificates, private_key};
use sanserve_tls::rustls::pki_types::UnixTime;

use super::{plain, visible};

/// The largest file that is read. Chains and keys have some thousand bytes; a device may have no end.
const MAX_FILE: u64 = 1 << 20;

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    /// Without it, the key is in the file of the certificate.
    pub(crate) key: Option<PathBuf>,
    pub(crate) password: Option<PathBuf>,
}

impl Pair {
    /// Reads and checks the files. The error is a message of one line.
    pub(crate) fn load(&self, now: UnixTime) -> Result<Identity, String> {
        let certificate = shown(&self.certificate);
        let bytes = read(&self.certificate)?;
        let of_certificate = |error: IdentityError| format!("cannot use the certificate {certificate}: {error}");
        let chain = certificates(&bytes).map_err(of_certificate)?;
        let password = self.password.as_deref().map(read_password).transpose()?;
        let key_path = self.key.as_ref().unwrap_or(&self.certificate);
        let of_key = |error: IdentityError| {
            let hint = if error == IdentityError::PasswordNeeded { " (--tls-password-file)" } else { "" };
            format!("cannot use the key {}: {error}{hint}", shown(key_path))
        };
        let key = match &self.key {
            Some(path) => private_key(&read(path)?, password.as_deref()),
            None => private_key(&bytes, password.as_deref()),
        };
        let provider = sanserve_tls::provider().map_err(|error| error.to_string())?;
        let identity = Identity::new(chain, key.map_err(of_key)?, &provider).map_err(|error| match error {
            IdentityError::Mismatch => {
                format!("cannot use the certificate {certificate} with the key {}: {error}", shown(key_path))
            }
            IdentityError::BadCertificate { .. } => of_certificate(error),
            _ => of_key(error),
        })?;
        identity.check_time(now).map_err(of_certificate)?;
        Ok(identity)
    }
}

/// Loads all pairs. The error is a message of one line.
pub(crate) fn load(pairs: &[Pair]) -> Result<Vec<Identity>, String> {
    pairs.iter().map(|pair| pair.load(UnixTime::now())).collect()
}

/// Reads the password of a key. White space around it is not part of it, as in Python.
fn read_password(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read(path)?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) => text.trim().as_bytes().to_vec(),
        Err(_) => bytes.trim_ascii().to_vec(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    let read = read.and_then(|read| match read as u64 <= MAX_FILE {
        true => Ok(()),
        false => Err(io::Error::other("it is larger than 1 MiB")),
    });
    read.map_err(|error| format!("cannot read {}: {}", shown(path), plain(&error)))?;
    Ok(bytes)
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

/// Why certificates are looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody has asked for it.
    Asked,
    /// Time has passed.
    Interval,
}

/// Reloads certificates when it is asked to, on a thread of its own: opening a FIFO may take forever, and must not stop
/// the thread that handles signals.
#[derive(Clone, Debug)]
pub(crate) struct Reloader(SyncSender<()>);

impl Reloader {
    /// Starts the thread, which calls `reload` for one or more requests and, with an interval, at least so often.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(
        interval: Option<Duration>,
        mut reload: impl FnMut(Reason) + Send + 'static,
    ) -> io::Result<Reloader> {
        let (asks, asked) = mpsc::sync_channel(1);
        let wait = move || match interval {
            None => asked.recv().map(|()| Reason::Asked).map_err(|_| ()),
            Some(interval) => match asked.recv_timeout(interval) {
                Ok(()) => Ok(Reason::Asked),
                Err(RecvTimeoutError::Timeout) => Ok(Reason::Interval),
                Err(RecvTimeoutError::Disconnected) => Err(()),
            },
        };
        let run = move || {
            while let Ok(reason) = wait() {
                reload(reason);
            }
        };
        thread::Builder::new().name("certificates".into()).spawn(run)?;
        Ok(Reloader(asks))
    }

    /// Asks for a reload, and does not wait for it. If one is pending already, that one is enough.
    pub(crate) fn reload(&self) {
        let _ = self.0.try_send(());
    }
}

/// Loads all pairs again. One that cannot be used keeps what it was, and the log says why.
pub(crate) fn reload(pairs: &[Pair], identities: &Identities, log: &Log) {
    let current = identities.current();
    let loaded = pairs.iter().zip(current.iter()).map(|(pair, old)| {
        pair.load(UnixTime::now()).unwrap_or_else(|error| {
            log.error(format_args!("{error}; the one in use is kept"));
            old.clone()
        })
    });
    identities.replace(loaded.collect::<Vec<_>>());
}

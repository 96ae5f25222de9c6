//! What a server proves itself with: a chain of certificates and the private key of its first one, read from PEM or DER
//! and checked; and the choice between several of them for a connection.
//!
//! Nothing here reads a file or a clock: the bytes and the time are arguments.

mod choice;
mod error;
mod parse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

pub use choice::Identities;
pub use error::IdentityError;
pub use parse::{certificates, private_key};

/// A chain of certificates, the private key that its first certificate is for, and the time for which that is valid.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sanserve_tls::provider().is_err() { return Ok(()); }
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let (certificates, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// use rustls::pki_types::UnixTime;
/// use sanserve_tls::identity::Identity;
///
/// let identity = Identity::from_bytes(certificates.as_bytes(), Some(key.as_bytes()), None)?;
/// identity.check_time(UnixTime::now())?;
/// assert!(identity.is_for("localhost"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Identity {
    /// Reads a chain of certificates and a private key. The server's own certificate comes first, as in the files that
    /// certificate authorities hand out.
    ///
    /// `certificates` is PEM, or a single certificate in DER. `key` is PEM or DER: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`),
    /// SEC 1 (`EC PRIVATE KEY`), or encrypted PKCS#8, for which `password` is needed. Without `key`, it is in
    /// `certificates`, as PEM. A password for a key that is not encrypted is ignored.
    ///
    /// # Errors
    /// If the bytes cannot be read, or the key does not fit the first certificate. The time is not checked:
    /// [`check_time`](Identity::check_time) does that.
    pub fn from_bytes(
        certificates: &[u8],
        key: Option<&[u8]>,
        password: Option<&[u8]>,
    ) -> Result<Identity, IdentityError> {
        let chain = parse::certificates(certificates)?;
        let key = parse::private_key(key.unwrap_or(certificates), password)?;
        Identity::new(chain, key, &*crate::provider().map_err(|_| IdentityError::NoProvider)?)
    }

    /// Combines a chain of certificates and a private key that are DER already, for the cryptography of `provider`.
    ///
    /// # Errors
    /// If there is no certificate, the first one cannot be read, the provider does not support the key, or the key does
    /// not fit the first certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Identity, IdentityError> {
        let first = chain.first().ok_or(IdentityError::NoCertificate)?;
        let (not_before, not_after) = parse::validity(first).ok_or(IdentityError::BadCertificate { number: 1 })?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| IdentityError::UnsupportedKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(IdentityError::Mismatch),
            Err(_) => return Err(IdentityError::BadCertificate { number: 1 }),
        }
        Ok(Identity { certified: Arc::new(certified), not_before, not_after })
    }

    /// Checks that the first certificate is valid at this time.
    ///
    /// # Errors
    /// [`IdentityError::NotYetValid`] or [`IdentityError::Expired`].
    pub fn check_time(&self, now: UnixTime) -> Result<(), IdentityError> {
        if now < self.not_before {
            Err(IdentityError::NotYetValid { from: self.not_before, now })
        } else if now > self.not_after {
            Err(IdentityError::Expired { at: self.not_after, now })
        } else {
            Ok(())
        }
    }

    /// The first second at which the first certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last second at which the first certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// How long the first certificate is still valid. Zero if it has expired.
    #[must_use]
    pub fn remaining(&self, now: UnixTime) -> Duration {
        Duration::from_secs(self.not_after.as_secs().saturating_sub(now.as_secs()))
    }

    /// Whether the first certificate is for this DNS name or IP address, as clients check it: by its subject alternative
    /// names, of which `*.example.org` covers one label.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let parsed = self.certified.end_entity_cert().map(ParsedCertificate::try_from);
        matches!(parsed, Ok(Ok(certificate)) if verify_server_name(&certificate, &name).is_ok())
    }

    /// The chain of certificates, in DER. There is at least one.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain and the key as rustls takes them.
    #[must_use]
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.certified.cert.len())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

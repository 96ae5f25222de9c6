//! What the connections of a server share.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};

use crate::error::NoProvider;
use crate::identity::{Identities, Identity, IdentityError};
use crate::provider::provider;
use crate::server_name::Noting;

/// What the connections of a server share: its certificates and keys, the versions and ciphers, and the keys of its
/// session tickets. Clones share it.
///
/// TLS 1.2 and 1.3 are spoken. The only application protocol is `http/1.1`: a client that offers others and not this one
/// is refused; one that offers none is served. 0-RTT is never accepted, since its data can be replayed. Sessions are
/// resumed with tickets, whose keys live as long as this value and change every six hours.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sanserve_tls::provider().is_err() { return Ok(()); }
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// # let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let config = sanserve_tls::Config::from_pem(certificate.as_bytes(), key.as_bytes())?;
/// # assert!(config.identities().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Config {
    rustls: Arc<ServerConfig>,
    identities: Option<Identities>,
}

impl Config {
    /// The configuration with one certificate chain and its private key, both as PEM.
    ///
    /// # Errors
    /// Those of [`Identity::from_bytes`] and [`new`](Config::new).
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Config, ConfigError> {
        let identity = Identity::from_bytes(certificates, Some(key), None)?;
        Config::new(Identities::new([identity]))
    }

    /// The configuration with these identities, and the cryptography of [`provider`]. They can be
    /// [replaced](Identities::replace) while the server runs; open connections keep theirs.
    ///
    /// # Errors
    /// If there is no cryptography, or the system has no random numbers.
    pub fn new(identities: Identities) -> Result<Config, ConfigError> {
        Config::with(identities, None)
    }

    /// Like [`new`](Config::new), and clients are asked for a certificate, which `verifier` checks;
    /// [`rustls::server::WebPkiClientVerifier`] builds one from the certificates of authorities. Handlers see the chain
    /// of a client that has sent one.
    ///
    /// # Errors
    /// As [`new`](Config::new).
    pub fn with_client_certificates(
        identities: Identities,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<Config, ConfigError> {
        Config::with(identities, Some(verifier))
    }

    fn with(identities: Identities, verifier: Option<Arc<dyn ClientCertVerifier>>) -> Result<Config, ConfigError> {
        let provider = provider()?;
        let ticketer = ticketer(&provider)?;
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut rustls = builder.with_cert_resolver(Arc::new(identities.clone()));
        rustls.session_storage = Arc::new(NoServerSessionStorage {});
        rustls.ticketer = ticketer;
        Ok(Config { identities: Some(identities), ..Config::from_rustls(rustls) })
    }

    /// A configuration that was made with rustls, with everything that it has but for this: the application protocol is
    /// `http/1.1`, and 0-RTT is not accepted. Its session tickets are as it has them; a new [`ServerConfig`] makes none.
    #[must_use]
    pub fn from_rustls(mut rustls: ServerConfig) -> Config {
        rustls.alpn_protocols = vec![b"http/1.1".to_vec()];
        rustls.max_early_data_size = 0;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&rustls.cert_resolver);
        rustls.cert_resolver = Arc::new(Noting(resolver));
        Config { rustls: Arc::new(rustls), identities: None }
    }

    /// The certificates and keys, to replace them. `None`: the configuration was made with rustls.
    #[must_use]
    pub fn identities(&self) -> Option<&Identities> {
        self.identities.as_ref()
    }

    pub(crate) fn rustls(&self) -> &Arc<ServerConfig> {
        &self.rustls
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("identities", &self.identities).finish_non_exhaustive()
    }
}

/// Makes session tickets. Its keys never leave the process.
fn ticketer(_provider: &CryptoProvider) -> Result<Arc<dyn ProducesTickets>, ConfigError> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(rustls::crypto::aws_lc_rs::Ticketer::new()?);
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(rustls::crypto::ring::Ticketer::new()?);
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(NoProvider.into())
}

/// What is wrong with a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// No cryptography is compiled in.
    NoProvider(NoProvider),
    /// A certificate or a key cannot be used.
    Identity(IdentityError),
    /// rustls refuses it.
    Rustls(rustls::Error),
}

impl From<NoProvider> for ConfigError {
    fn from(error: NoProvider) -> ConfigError {
        ConfigError::NoProvider(error)
    }
}

impl From<IdentityError> for ConfigError {
    fn from(error: IdentityError) -> ConfigError {
        ConfigError::Identity(error)
    }
}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> ConfigError {
        ConfigError::Rustls(error)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::NoProvider(error) => error.fmt(f),
            ConfigError::Identity(error) => error.fmt(f),
            ConfigError::Rustls(error) => error.fmt(f),
        }
    }
}

impl Error for ConfigError {}

//! The choice between several identities for a connection (SNI), and their replacement while the server runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Identity;

/// The identities of a server. Clones share them, so a reload reaches every connection that begins later.
///
/// A connection gets the first identity that is for the name which the client asks for (SNI) and whose key the client
/// supports. If there is none for that name, or the client names none, it gets the first one that it supports. If it
/// supports none, the handshake fails with the alert `handshake_failure`.
#[derive(Clone)]
pub struct Identities(Arc<RwLock<Arc<[Identity]>>>);

impl Identities {
    /// The identities, of which the first is the default.
    #[must_use]
    pub fn new(identities: impl Into<Vec<Identity>>) -> Identities {
        Identities(Arc::new(RwLock::new(identities.into().into())))
    }

    /// Uses these identities for all handshakes that begin from now on. Open connections keep theirs.
    pub fn replace(&self, identities: impl Into<Vec<Identity>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identities.into().into();
    }

    /// The identities in use.
    #[must_use]
    pub fn current(&self) -> Arc<[Identity]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The identity for a client that asks for `name`, among those that it supports.
    fn choose(&self, name: Option<&str>, is_supported: impl Fn(&Identity) -> bool) -> Option<Arc<CertifiedKey>> {
        let identities = self.current();
        let mut usable = identities.iter().filter(|identity| is_supported(identity));
        let named = name.and_then(|name| usable.clone().find(|identity| identity.is_for(name)));
        // Without any, rustls would say `access_denied`; with one that does not fit, it says what the problem is.
        let chosen = named.or_else(|| usable.next()).or(identities.first());
        chosen.map(|identity| Arc::clone(identity.certified_key()))
    }
}

impl ResolvesServerCert for Identities {
    /// `None`, which ends the handshake, if there are no identities.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.choose(hello.server_name(), |identity| identity.certified_key().key.choose_scheme(schemes).is_some())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identities").field(&self.current()).finish()
    }
}

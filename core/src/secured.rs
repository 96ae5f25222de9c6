//! What TLS has agreed on for a connection, as far as HTTP is concerned. The core speaks no TLS: a driver tells.

use std::fmt;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// Its name, as in `SSL_PROTOCOL` of Apache: `TLSv1.2` or `TLSv1.3`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was agreed on in the TLS handshake of a connection: what [`Request::secured`](crate::Request::secured) tells
/// handlers. It contains no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secured {
    /// The version of TLS.
    pub version: TlsVersion,
    /// The name that the client has asked for (SNI), if any.
    pub server_name: Option<Box<str>>,
    /// The application protocol (ALPN), if both sides have one.
    pub alpn: Option<Box<[u8]>>,
    /// The verified certificates of the client in DER, its own first. Empty unless the server asks for them. They are
    /// not in transcripts.
    pub client_certificates: Vec<Vec<u8>>,
}

impl Secured {
    /// A connection with this version, and nothing else.
    ///
    /// ```
    /// use sanserve_core::{Secured, TlsVersion};
    ///
    /// let secured = Secured::new(TlsVersion::Tls13).with_server_name("example.org");
    /// assert_eq!(secured.server_name.as_deref(), Some("example.org"));
    /// ```
    #[must_use]
    pub fn new(version: TlsVersion) -> Secured {
        Secured { version, server_name: None, alpn: None, client_certificates: Vec::new() }
    }

    /// Sets the name that the client has asked for.
    #[must_use]
    pub fn with_server_name(self, name: impl Into<Box<str>>) -> Secured {
        Secured { server_name: Some(name.into()), ..self }
    }

    /// Sets the application protocol.
    #[must_use]
    pub fn with_alpn(self, alpn: impl Into<Box<[u8]>>) -> Secured {
        Secured { alpn: Some(alpn.into()), ..self }
    }

    /// Sets the certificates of the client.
    #[must_use]
    pub fn with_client_certificates(self, client_certificates: Vec<Vec<u8>>) -> Secured {
        Secured { client_certificates, ..self }
    }
}

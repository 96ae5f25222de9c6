//! Why certificates and keys are not accepted.

use std::fmt;

use der::DateTime;
use rustls::pki_types::UnixTime;

use crate::error::NoProvider;

/// Why a chain of certificates or a private key is not accepted. The text is one line, for a message such as
/// `cannot use key.pem: the password is wrong`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// There is no certificate.
    NoCertificate,
    /// There is no private key.
    NoKey,
    /// A section of PEM does not end, or is not Base64.
    BadPem {
        /// What the section is labeled, such as `CERTIFICATE`.
        label: String,
    },
    /// A certificate is not one of X.509 version 3.
    BadCertificate {
        /// Its number in the chain, from 1.
        number: usize,
    },
    /// The private key cannot be read.
    BadKey,
    /// The private key is encrypted, and there is no password.
    PasswordNeeded,
    /// The password is wrong.
    WrongPassword,
    /// The private key is encrypted in a way that is not supported.
    UnsupportedEncryption,
    /// The private key is encrypted in the way of old versions of OpenSSL, with `Proc-Type: 4,ENCRYPTED`.
    LegacyEncryption,
    /// The algorithm, the curve or the length of the private key is not supported.
    UnsupportedKey,
    /// The private key is not the one of the first certificate.
    Mismatch,
    /// The first certificate is not valid yet.
    NotYetValid {
        /// The first second at which it is valid.
        from: UnixTime,
        /// The time for which it was checked.
        now: UnixTime,
    },
    /// The first certificate has expired.
    Expired {
        /// The last second at which it was valid.
        at: UnixTime,
        /// The time for which it was checked.
        now: UnixTime,
    },
    /// This crate was compiled without cryptography: none of its features `ring` and `aws-lc-rs` is on.
    NoProvider,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdentityError::NoCertificate => "there is no certificate in it, neither as PEM nor as DER",
            IdentityError::NoKey => "there is no private key in it, neither as PEM nor as DER",
            IdentityError::BadPem { label } => {
                let label: String = label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect();
                return write!(f, "the section {label} is not valid PEM: it does not end, or is not Base64");
            }
            IdentityError::BadCertificate { number } => {
                return write!(f, "certificate {number} is not a valid X.509 certificate of version 3");
            }
            IdentityError::BadKey => "the private key is not valid",
            IdentityError::PasswordNeeded => "the private key is encrypted and needs a password",
            IdentityError::WrongPassword => "the password of the private key is wrong",
            IdentityError::UnsupportedEncryption => {
                "the private key is encrypted with an algorithm that is not supported; convert it with: \
                 openssl pkcs8 -topk8 -v2 aes-256-cbc"
            }
            IdentityError::LegacyEncryption => {
                "the private key is encrypted in the old format of OpenSSL; convert it with: \
                 openssl pkcs8 -topk8 -v2 aes-256-cbc"
            }
            IdentityError::UnsupportedKey => {
                "the private key is not supported: it must be RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519"
            }
            IdentityError::Mismatch => "the private key does not belong to the first certificate",
            IdentityError::NotYetValid { from, now } => {
                return write!(f, "the certificate is not valid before {}; it is {} now", day(*from), day(*now));
            }
            IdentityError::Expired { at, now } => {
                return write!(f, "the certificate expired at {}; it is {} now", day(*at), day(*now));
            }
            IdentityError::NoProvider => return NoProvider.fmt(f),
        })
    }
}

impl std::error::Error for IdentityError {}

/// As in `2026-11-28T09:00:00Z`.
fn day(time: UnixTime) -> String {
    let time = std::time::Duration::from_secs(time.as_secs());
    DateTime::from_unix_duration(time).map_or_else(|_| "a time after the year 9999".to_owned(), |time| time.to_string())
}

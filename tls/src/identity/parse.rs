//! PEM and DER: certificates, and private keys, of which some are encrypted.

use base64ct::{Base64, Encoding};
use der::asn1::{GeneralizedTime, OctetStringRef, UtcTime};
use der::{Decode, Reader, SliceReader, Tag};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::time::Duration;

use super::error::IdentityError;

/// The first byte of a DER sequence, as all certificates and keys are.
const SEQUENCE: u8 = 0x30;

/// Reads a chain of certificates: all that are in a PEM text, or the single one that is DER.
///
/// # Errors
/// If there is none, or one of them is not an X.509 certificate.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut chain = Vec::new();
    if bytes.first() == Some(&SEQUENCE) {
        chain.push(CertificateDer::from(bytes.to_vec()));
    }
    for section in pem_sections(bytes) {
        if matches!(section.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE") {
            chain.push(CertificateDer::from(section.decode()?));
        }
    }
    match chain.iter().position(|certificate| validity(certificate).is_none()) {
        Some(at) => Err(IdentityError::BadCertificate { number: at + 1 }),
        None if chain.is_empty() => Err(IdentityError::NoCertificate),
        None => Ok(chain),
    }
}

/// Reads a private key: the first one in a PEM text, or the one that is DER. It may be PKCS#8, PKCS#1 or SEC 1.
///
/// With the feature `encrypted-keys` it may also be encrypted PKCS#8 (PBES2 with AES-CBC or triple DES, and PBKDF2 or
/// scrypt), which needs `password`. For other keys, the password is ignored.
///
/// # Errors
/// If there is none, it cannot be read, or its password is missing or wrong.
pub fn private_key(bytes: &[u8], password: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if bytes.first() == Some(&SEQUENCE) {
        return match encrypted(bytes) {
            Some((algorithm, data)) => decrypt(algorithm, data, password),
            None => PrivateKeyDer::try_from(bytes).map(|key| key.clone_key()).map_err(|_| IdentityError::BadKey),
        };
    }
    let section = pem_sections(bytes).find(|section| {
        matches!(section.label.as_str(), "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY")
    });
    let section = section.ok_or(IdentityError::NoKey)?;
    if section.is_legacy_encrypted() {
        return Err(IdentityError::LegacyEncryption);
    }
    let der = section.decode()?;
    match section.label.as_str() {
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(der.into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(der.into())),
        "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(der.into())),
        _ => {
            let (algorithm, data) = encrypted(&der).ok_or(IdentityError::BadKey)?;
            decrypt(algorithm, data, password)
        }
    }
}

/// The algorithm and the data of an encrypted key. `None` if it is not one.
///
/// `EncryptedPrivateKeyInfo` in section 3 of RFC 5958: a sequence of an algorithm, which is a sequence that begins with an
/// object identifier, and an octet string.
fn encrypted(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der).ok()?;
    let parts = reader.sequence(|parts| {
        let algorithm = parts.tlv_bytes()?;
        let data = OctetStringRef::decode(parts)?;
        Ok((algorithm, data.as_bytes()))
    });
    parts.ok().filter(|(algorithm, _)| algorithm.first() == Some(&SEQUENCE))
}

#[cfg(feature = "encrypted-keys")]
fn decrypt(algorithm: &[u8], data: &[u8], password: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, IdentityError> {
    use pkcs5::EncryptionScheme;

    let password = password.ok_or(IdentityError::PasswordNeeded)?;
    // PBES1 is parsed, but its ciphers are not there.
    let Ok(EncryptionScheme::Pbes2(scheme)) = EncryptionScheme::from_der(algorithm) else {
        return Err(IdentityError::UnsupportedEncryption);
    };
    let key = scheme.decrypt(password, data).map_err(|error| match error {
        pkcs5::Error::UnsupportedAlgorithm { .. } => IdentityError::UnsupportedEncryption,
        _ => IdentityError::WrongPassword,
    })?;
    // For one wrong password in 256, the padding is right by chance, and the result is not a key.
    match PrivateKeyDer::try_from(key.as_slice()) {
        Ok(PrivateKeyDer::Pkcs8(_)) => Ok(PrivateKeyDer::Pkcs8(key.into())),
        _ => Err(IdentityError::WrongPassword),
    }
}

#[cfg(not(feature = "encrypted-keys"))]
fn decrypt(_: &[u8], _: &[u8], _: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, IdentityError> {
    Err(IdentityError::UnsupportedEncryption)
}

/// From when until when a certificate is valid. `None` if it cannot be read.
///
/// Section 4.1 of RFC 5280: the fields of `TBSCertificate` are the version, which may be absent, the serial number, the
/// algorithm of the signature, the issuer, and the validity.
pub(super) fn validity(certificate: &[u8]) -> Option<(UnixTime, UnixTime)> {
    let mut reader = SliceReader::new(certificate).ok()?;
    let times = reader.sequence(|certificate| {
        let times = certificate.sequence(|fields| {
            if fields.peek_byte().is_some_and(|tag| tag == 0xa0) {
                fields.tlv_bytes()?;
            }
            for _ in ["serial number", "algorithm", "issuer"] {
                fields.tlv_bytes()?;
            }
            let times = fields.sequence(|times| Ok((time(times)?, time(times)?)))?;
            while !fields.is_finished() {
                fields.tlv_bytes()?;
            }
            Ok(times)
        })?;
        for _ in ["algorithm", "signature"] {
            certificate.tlv_bytes()?;
        }
        Ok(times)
    });
    let (from, until) = times.ok()?;
    reader.is_finished().then_some((UnixTime::since_unix_epoch(from), UnixTime::since_unix_epoch(until)))
}

fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<Duration> {
    match reader.peek_header()?.tag {
        Tag::UtcTime => Ok(UtcTime::decode(reader)?.to_unix_duration()),
        _ => Ok(GeneralizedTime::decode(reader)?.to_unix_duration()),
    }
}

/// A section of a PEM text (RFC 7468), not decoded yet.
struct Section {
    label: String,
    /// Its lines. `None`: it does not end.
    lines: Option<Vec<String>>,
}

impl Section {
    /// Whether it has the header of a key that OpenSSL encrypted before version 1.0.
    fn is_legacy_encrypted(&self) -> bool {
        self.lines.iter().flatten().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
    }

    fn decode(&self) -> Result<Vec<u8>, IdentityError> {
        let base64 = self.lines.as_ref().map(|lines| lines.concat()).filter(|base64| !base64.is_empty());
        let decoded = base64.and_then(|base64| Base64::decode_vec(&base64).ok());
        decoded.ok_or_else(|| IdentityError::BadPem { label: self.label.clone() })
    }
}

/// The sections of a PEM text. What is between them is ignored.
fn pem_sections(bytes: &[u8]) -> impl Iterator<Item = Section> + '_ {
    let mut lines =
        bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(|line| String::from_utf8_lossy(line.trim_ascii()));
    std::iter::from_fn(move || {
        let label = lines
            .by_ref()
            .find_map(|line| Some(line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned()))?;
        let end = format!("-----END {label}-----");
        let mut within = Vec::new();
        for line in lines.by_ref() {
            if line == end {
                return Some(Section { label, lines: Some(within) });
            }
            if line.starts_with("-----") {
                break;
            }
            within.push(line.into_owned());
        }
        Some(Section { label, lines: None })
    })
}

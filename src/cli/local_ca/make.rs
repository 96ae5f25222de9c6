//! Making a CA and the certificates of a server. Nothing here reads a file or a clock.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, date_time_ymd,
};
use sanserve_tls::identity::{Identity, IdentityError};
use sanserve_tls::rustls::RootCertStore;
use sanserve_tls::rustls::client::WebPkiServerVerifier;
use sanserve_tls::rustls::client::danger::ServerCertVerifier;
use sanserve_tls::rustls::pki_types::{ServerName, UnixTime};

use super::names::{DOMAINS, NETWORKS, Names};
use crate::cli::visible;
use crate::page::digest::sha256;

const DAY: u64 = 86_400;
/// How long a CA is valid: longer than a machine is used.
const AUTHORITY_DAYS: u64 = 3_650;
/// How long a certificate is valid, with the day before now: what clients accept at most from any CA is 398 days.
const LEAF_DAYS: u64 = 397;
/// A certificate is replaced when it is valid for less than this.
const RENEWAL: Duration = Duration::from_secs(30 * DAY);

/// The marker between the certificate and the key in a PEM text.
const END: &str = "-----END CERTIFICATE-----";

/// A local CA: a certificate that clients may trust, and the key that it signs with.
///
/// It can only sign for local names and private addresses (name constraints, section 4.2.1.10 of RFC 5280), so whoever
/// gets the key cannot impersonate the sites of the internet.
pub(crate) struct Authority {
    identity: Identity,
    key: KeyPair,
    /// The certificate as PEM.
    pem: String,
}

impl Authority {
    /// Makes a CA for [`DOMAINS`], [`NETWORKS`], and the names of this host.
    pub(crate) fn make(names: &Names, now: UnixTime) -> Result<Authority, String> {
        let key = KeyPair::generate().map_err(|error| cannot_make(&error))?;
        let mut params = authority_params(&key);
        set_validity(&mut params, now, AUTHORITY_DAYS);
        let domains = DOMAINS.iter().map(|domain| (*domain).to_owned());
        let known = names.without_own();
        let own = names.dns.iter().filter(|name| !known.dns.contains(name)).cloned();
        let networks = NETWORKS.iter().map(|(network, length)| {
            let network: IpAddr = network.parse().expect("an address");
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network, *length))
        });
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: domains.chain(own).map(GeneralSubtree::DnsName).chain(networks).collect(),
            excluded_subtrees: Vec::new(),
        });
        let pem = params.self_signed(&key).map_err(|error| cannot_make(&error))?.pem();
        Authority::from_pem(&format!("{pem}{}", key.serialize_pem())).map_err(|error| cannot_make(&error))
    }

    /// Reads what [`to_pem`](Authority::to_pem) has written.
    pub(crate) fn from_pem(text: &str) -> Result<Authority, IdentityError> {
        let identity = Identity::from_bytes(text.as_bytes(), None, None)?;
        let key = KeyPair::from_pem(text.find("-----BEGIN PRIVATE KEY").map_or("", |at| &text[at..]));
        let end = text.find(END).ok_or(IdentityError::NoCertificate)? + END.len();
        let pem = format!("{}\n", &text[text.find("-----BEGIN").unwrap_or(0)..end]);
        Ok(Authority { identity, key: key.map_err(|_| IdentityError::BadKey)?, pem })
    }

    /// The certificate and the key.
    pub(crate) fn to_pem(&self) -> String {
        format!("{}{}", self.pem, self.key.serialize_pem())
    }

    /// The certificate, which is what clients need.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The name that clients show. It is made from the key, so that two CAs never have the same.
    pub(crate) fn name(&self) -> String {
        authority_name(&self.key)
    }

    /// The SHA-256 of the certificate, as clients show it.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.identity)
    }

    /// Its name, fingerprint and age, and where it is, for people.
    pub(crate) fn describe(&self, path: &Path) -> String {
        let until = date(self.not_after());
        let (name, path) = (self.name(), visible(&path.display().to_string()));
        format!("{name}, valid until {until}, in {path}\nSHA-256 {}\n", self.fingerprint())
    }

    /// Whether it is valid now.
    pub(crate) fn check_time(&self, now: UnixTime) -> Result<(), IdentityError> {
        self.identity.check_time(now)
    }

    /// Until when it is valid.
    pub(crate) fn not_after(&self) -> UnixTime {
        self.identity.not_after()
    }

    /// Makes a certificate for these names. Names that the CA does not vouch for, since the host had another name when it
    /// was made, are left out.
    pub(crate) fn issue(&self, names: &Names, now: UnixTime) -> Result<Leaf, String> {
        let issuer = Issuer::new(authority_params(&self.key), &self.key);
        for names in [names, &names.without_own()] {
            let key = KeyPair::generate().map_err(|error| cannot_make(&error))?;
            let days = (self.not_after().as_secs().saturating_sub(now.as_secs()) / DAY).min(LEAF_DAYS - 1) + 1;
            let params = leaf_params(names, now, days).map_err(|error| cannot_make(&error))?;
            let pem = params.signed_by(&key, &issuer).map_err(|error| cannot_make(&error))?.pem();
            let leaf = Leaf::from_pem(format!("{pem}{}", key.serialize_pem())).map_err(|error| cannot_make(&error))?;
            if self.vouches_for(leaf.identity(), now) {
                return Ok(leaf);
            }
        }
        Err("cannot make a certificate: the local CA does not permit one for localhost".into())
    }

    /// Whether a certificate is still good: clients that trust the CA accept it, and it is for all of these names which
    /// the CA permits.
    pub(crate) fn is_good(&self, identity: &Identity, names: &Names, now: UnixTime) -> bool {
        let is_for_all = |names: &Names| names.all().all(|name| identity.is_for(&name));
        (is_for_all(names) || is_for_all(&names.without_own())) && self.vouches_for(identity, now)
    }

    /// Whether a certificate expires soon, and another one would be valid for longer.
    pub(crate) fn is_due(&self, identity: &Identity, now: UnixTime) -> bool {
        let ends_with_the_authority = identity.not_after().as_secs() + 2 * DAY >= self.not_after().as_secs();
        identity.remaining(now) < RENEWAL && !ends_with_the_authority
    }

    /// Whether a client that trusts the CA accepts this certificate.
    fn vouches_for(&self, identity: &Identity, now: UnixTime) -> bool {
        let mut roots = RootCertStore::empty();
        let Ok(provider) = sanserve_tls::provider() else { return false };
        let [root, ..] = self.identity.chain() else { return false };
        let [leaf, ..] = identity.chain() else { return false };
        if roots.add(root.clone()).is_err() {
            return false;
        }
        let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
            return false;
        };
        let localhost = ServerName::try_from("localhost").expect("a name");
        verifier.verify_server_cert(leaf, &[], &localhost, &[], now).is_ok()
    }
}

/// The certificate of a server and its key.
pub(crate) struct Leaf {
    identity: Identity,
    pem: String,
}

impl Leaf {
    /// Makes a certificate that is its own issuer.
    pub(crate) fn self_signed(names: &Names, now: UnixTime) -> Result<Leaf, String> {
        let made = KeyPair::generate().and_then(|key| {
            let pem = leaf_params(names, now, LEAF_DAYS)?.self_signed(&key)?.pem();
            Ok(format!("{pem}{}", key.serialize_pem()))
        });
        Leaf::from_pem(made.map_err(|error| cannot_make(&error))?).map_err(|error| cannot_make(&error))
    }

    /// Reads what [`to_pem`](Leaf::to_pem) has written.
    pub(crate) fn from_pem(pem: String) -> Result<Leaf, IdentityError> {
        Ok(Leaf { identity: Identity::from_bytes(pem.as_bytes(), None, None)?, pem })
    }

    /// The certificate and the key.
    pub(crate) fn to_pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn into_identity(self) -> Identity {
        self.identity
    }
}

/// The SHA-256 of the first certificate, as clients show it.
pub(crate) fn fingerprint(identity: &Identity) -> String {
    let digest = identity.chain().first().map(|certificate| sha256(certificate)).unwrap_or_default();
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// The day of a time, as in `2027-12-30`.
pub(crate) fn date(time: UnixTime) -> String {
    let time = date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs());
    format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
}

fn cannot_make(error: &impl std::fmt::Display) -> String {
    format!("cannot make a certificate: {error}")
}

fn authority_name(key: &KeyPair) -> String {
    let digest = sha256(&key.subject_public_key_info());
    let number: String = digest[..4].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("sanserve local CA {number}")
}

/// What the certificate of a CA and those that it issues share.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, authority_name(key));
    // It issues to servers, and not to further CAs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(names: &Names, now: UnixTime, days: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.all().collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = names.dns.get(1).unwrap_or(&names.dns[0]);
    // A common name has 64 characters at most. Clients only read the subject alternative names.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, days);
    Ok(params)
}

/// Sets the validity: so many days from the day before now, since the clock of a client may be slow.
fn set_validity(params: &mut CertificateParams, now: UnixTime, days: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    let from = now.as_secs().saturating_sub(DAY);
    params.not_before = epoch + Duration::from_secs(from);
    // The last second counts.
    params.not_after = epoch + Duration::from_secs(from + days * DAY - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
    }

    fn names(host: &str) -> Names {
        Names::of(host, ["192.168.1.7".parse().expect("an address")])
    }

    #[test]
    fn a_certificate_is_for_the_names_and_at_most_397_days() {
        let authority = Authority::make(&names("box.example.org"), now()).expect("made");
        let leaf = authority.issue(&names("box.example.org"), now()).expect("issued");
        let identity = leaf.identity();
        for name in ["localhost", "box", "box.example.org", "box.local", "127.0.0.1", "::1", "192.168.1.7"] {
            assert!(identity.is_for(name), "{name}");
        }
        let valid = identity.not_after().as_secs() - identity.not_before().as_secs() + 1;
        assert_eq!((valid, identity.not_before().as_secs()), (397 * DAY, now().as_secs() - DAY));
        assert!(authority.is_good(identity, &names("box.example.org"), now()));
        assert!(!authority.is_good(identity, &names("other"), now()));
        let later = UnixTime::since_unix_epoch(Duration::from_secs(identity.not_after().as_secs() + 1));
        assert!(!authority.is_good(identity, &names("box"), later) && authority.is_due(identity, later));
        assert!(!authority.is_due(identity, now()));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let authority = Authority::make(&names("box"), now()).expect("made");
        let again = Authority::from_pem(&authority.to_pem()).expect("valid");
        assert_eq!((again.name(), again.fingerprint()), (authority.name(), authority.fingerprint()));
        assert_eq!(again.certificate_pem(), authority.certificate_pem());
        assert!(!again.certificate_pem().contains("PRIVATE KEY"));
        let leaf = again.issue(&names("box"), now()).expect("issued");
        assert!(authority.vouches_for(leaf.identity(), now()));
        let read = Leaf::from_pem(leaf.to_pem().to_owned()).expect("valid");
        assert_eq!(read.identity().chain(), leaf.identity().chain());
    }

    #[test]
    fn a_ca_does_not_vouch_for_others() {
        let (one, other) = (Authority::make(&names("box"), now()), Authority::make(&names("box"), now()));
        let (one, other) = (one.expect("made"), other.expect("made"));
        assert_ne!(one.name(), other.name());
        let leaf = one.issue(&names("box"), now()).expect("issued");
        assert!(!other.vouches_for(leaf.identity(), now()));
        let own = Leaf::self_signed(&names("box"), now()).expect("made");
        assert!(!one.vouches_for(own.identity(), now()) && own.identity().is_for("192.168.1.7"));
    }

    /// The CA that was made on `box` may not sign for names that it did not have then, nor for public addresses.
    #[test]
    fn a_ca_is_limited_to_local_names() {
        let authority = Authority::make(&names("box"), now()).expect("made");
        let renamed = authority.issue(&names("example.org"), now()).expect("issued without the name");
        assert!(renamed.identity().is_for("example.local") && !renamed.identity().is_for("example.org"));
        let issuer = Issuer::new(authority_params(&authority.key), &authority.key);
        for (name, is_permitted) in
            [("x.local", true), ("10.1.2.3", true), ("example.com", false), ("8.8.8.8", false), ("2003::1", false)]
        {
            let key = KeyPair::generate().unwrap();
            let mut names = names("box");
            match name.parse::<IpAddr>() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(name.into()),
            }
            let pem = leaf_params(&names, now(), 2).unwrap().signed_by(&key, &issuer).unwrap().pem();
            let leaf = Leaf::from_pem(format!("{pem}{}", key.serialize_pem())).unwrap();
            assert_eq!(authority.vouches_for(leaf.identity(), now()), is_permitted, "{name}");
        }
    }

    #[test]
    fn a_certificate_does_not_outlive_its_ca() {
        let authority = Authority::make(&names("box"), now()).expect("made");
        let late = UnixTime::since_unix_epoch(Duration::from_secs(authority.not_after().as_secs() - 10 * DAY));
        let leaf = authority.issue(&names("box"), late).expect("issued");
        assert!(leaf.identity().not_after() <= authority.not_after());
        assert!(authority.vouches_for(leaf.identity(), late));
    }

    #[test]
    fn damaged_files_are_refused() {
        let text = Authority::make(&names("box"), now()).expect("made").to_pem();
        let other = Authority::make(&names("box"), now()).expect("made").to_pem();
        let key_at = text.find("-----BEGIN PRIVATE KEY").expect("a key");
        for damaged in [
            "",
            "nonsense",
            &text[..key_at],
            &text[key_at..],
            &text[..text.len() / 2],
            &format!("{}{}", &text[..key_at], &other[other.find("-----BEGIN PRIVATE KEY").expect("a key")..]),
        ] {
            assert!(Authority::from_pem(damaged).is_err(), "{damaged}");
        }
    }
}

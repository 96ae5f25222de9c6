//! Certificates and keys of every form, made by rcgen and by OpenSSL.

#![cfg(any(feature = "ring", feature = "aws-lc-rs"))]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};
use rustls::pki_types::UnixTime;
use sanserve_tls::identity::{Identity, IdentityError, certificates};
use sanserve_tls::rustls;

/// A certificate and its key, made for one test.
struct Made {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn made_for(names: &[&str]) -> Made {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("valid names");
    Made { certificate: made.cert, key: made.signing_key }
}

impl Made {
    fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }
}

/// Runs `openssl` with this input. `None`, with a note: it is not installed.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        assert!(std::env::var_os("CI").is_none(), "CI needs openssl");
        eprintln!("keys of OpenSSL were not checked: it is not installed");
        return None;
    };
    // It may end without having read its input.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

fn read(certificates: &str, key: &str) -> Result<Identity, IdentityError> {
    Identity::from_bytes(certificates.as_bytes(), Some(key.as_bytes()), None)
}

/// The words of an error, for assertions about its text.
#[track_caller]
fn refused(outcome: Result<Identity, IdentityError>, expected: &IdentityError) {
    let error = outcome.expect_err("refused");
    assert_eq!(error, *expected);
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text:?}");
}

#[test]
fn pem_and_der_of_each_algorithm() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("supported");
        let certificate = CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let identity = read(&pem, &key_pem).expect("valid");
        assert_eq!(identity.chain(), [certificate.der().clone()]);
        assert!(identity.check_time(UnixTime::now()).is_ok());
        // Both in one text, in any order, between other text and with the line ends of Windows.
        for text in
            [format!("{pem}{key_pem}"), format!("subject=x\n\n{key_pem}\nissuer=y\n{pem}").replace('\n', "\r\n")]
        {
            let one = Identity::from_bytes(text.as_bytes(), None, None).expect("valid");
            assert_eq!(one.chain(), identity.chain());
        }
        let der = Identity::from_bytes(certificate.der(), Some(key.serialized_der()), None).expect("valid");
        assert_eq!(der.chain(), identity.chain());
        assert!(!format!("{identity:?}").contains("key"), "a debug output is without the key");
    }
}

#[test]
fn names_are_checked_as_clients_do() {
    let made = made_for(&["a.example", "*.b.example", "192.0.2.7", "fd00::7"]);
    let (certificate, key) = made.pem();
    let identity = read(&certificate, &key).expect("valid");
    for name in ["a.example", "A.EXAMPLE", "x.b.example", "192.0.2.7", "fd00::7"] {
        assert!(identity.is_for(name), "{name}");
    }
    for name in ["b.example", "x.y.b.example", "x.a.example", "192.0.2.8", "fd00::8", "", "a example"] {
        assert!(!identity.is_for(name), "{name}");
    }
}

#[test]
fn a_key_has_to_belong_to_the_first_certificate() {
    let (one, other) = (made_for(&["one.example"]), made_for(&["other.example"]));
    let ((one, one_key), (other, other_key)) = (one.pem(), other.pem());
    refused(read(&one, &other_key), &IdentityError::Mismatch);
    assert_eq!(read(&format!("{one}{other}"), &one_key).expect("valid").chain().len(), 2);
    refused(read(&format!("{one}{other}"), &other_key), &IdentityError::Mismatch);
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("supported");
    refused(read(&one, &key.serialize_pem()), &IdentityError::Mismatch);
}

#[test]
fn the_time_is_an_argument() {
    let key = KeyPair::generate().expect("supported");
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2025, 3, 1);
    params.not_after = date_time_ymd(2051, 4, 2);
    let certificate = params.self_signed(&key).unwrap();
    let identity = read(&certificate.pem(), &key.serialize_pem()).expect("valid");
    let (from, until) = (identity.not_before(), identity.not_after());
    assert_eq!((from.as_secs(), until.as_secs()), (1_740_787_200, 2_564_006_400));
    let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
    for now in [from.as_secs(), from.as_secs() + 1, until.as_secs()] {
        assert_eq!(identity.check_time(at(now)), Ok(()), "{now}");
    }
    assert_eq!(identity.remaining(at(until.as_secs() - 7)), Duration::from_secs(7));
    assert_eq!(identity.remaining(at(until.as_secs() + 7)), Duration::ZERO);
    let early = identity.check_time(at(from.as_secs() - 1)).expect_err("too early");
    assert_eq!(
        early.to_string(),
        "the certificate is not valid before 2025-03-01T00:00:00Z; it is 2025-02-28T23:59:59Z now"
    );
    let late = identity.check_time(at(until.as_secs() + 1)).expect_err("too late");
    assert_eq!(late.to_string(), "the certificate expired at 2051-04-02T00:00:00Z; it is 2051-04-02T00:00:01Z now");
    assert!(matches!((early, late), (IdentityError::NotYetValid { .. }, IdentityError::Expired { .. })));
}

#[test]
fn what_cannot_be_read_is_named() {
    let (certificate, key) = made_for(&["a.example"]).pem();
    refused(read("", &key), &IdentityError::NoCertificate);
    refused(read(&key, &key), &IdentityError::NoCertificate);
    refused(read(&certificate, ""), &IdentityError::NoKey);
    refused(read(&certificate, &certificate), &IdentityError::NoKey);
    refused(Identity::from_bytes(certificate.as_bytes(), None, None), &IdentityError::NoKey);
    let bad = |label: &str| IdentityError::BadPem { label: label.into() };
    let half = |text: &str| text[..text.len() / 2].to_owned();
    refused(read(&half(&certificate), &key), &bad("CERTIFICATE"));
    refused(read(&certificate, &half(&key)), &bad("PRIVATE KEY"));
    refused(read(&format!("{}{certificate}", half(&certificate)), &key), &bad("CERTIFICATE"));
    let middle = certificate.len() / 2;
    let other = format!("{}!{}", &certificate[..middle], &certificate[middle + 1..]);
    refused(read(&other, &key), &bad("CERTIFICATE"));
    let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    refused(read(empty, &key), &bad("CERTIFICATE"));
    let short = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    refused(read(&short("CERTIFICATE"), &key), &IdentityError::BadCertificate { number: 1 });
    let second = format!("{certificate}{}", short("CERTIFICATE"));
    refused(read(&second, &key), &IdentityError::BadCertificate { number: 2 });
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        refused(read(&certificate, &short(label)), &IdentityError::UnsupportedKey);
    }
    refused(read(&certificate, &short("ENCRYPTED PRIVATE KEY")), &IdentityError::BadKey);
    refused(Identity::from_bytes(b"0\x00", Some(key.as_bytes()), None), &IdentityError::BadCertificate { number: 1 });
    refused(Identity::from_bytes(certificate.as_bytes(), Some(b"0\x00"), None), &IdentityError::BadKey);
    refused(Identity::from_bytes(b"\x7fELF\xff", Some(key.as_bytes()), None), &IdentityError::NoCertificate);
}

/// Each prefix, and each byte replaced: an error or an identity, never a panic.
#[test]
fn damaged_input_is_refused() {
    let made = made_for(&["a.example"]);
    let (certificate, key) = (made.certificate.der().to_vec(), made.key.serialize_der());
    for at in 0..certificate.len() {
        assert!(Identity::from_bytes(&certificate[..at], Some(&key), None).is_err(), "{at}");
        for bits in [0x01, 0x80, 0xff] {
            let mut damaged = certificate.clone();
            damaged[at] ^= bits;
            let _ = Identity::from_bytes(&damaged, Some(&key), None);
        }
    }
    for at in 0..key.len() {
        assert!(Identity::from_bytes(&certificate, Some(&key[..at]), None).is_err(), "{at}");
        let mut damaged = key.clone();
        damaged[at] ^= 0xff;
        let _ = Identity::from_bytes(&certificate, Some(&damaged), None);
    }
}

#[test]
fn keys_of_openssl() {
    for (make, plain) in [
        (&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..], Some("rsa")),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], Some("ec")),
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], Some("ec")),
        (&["genpkey", "-algorithm", "ed25519"], None),
    ] {
        let Some(key) = openssl(make, b"") else { return };
        let request =
            ["req", "-x509", "-key", "/dev/stdin", "-subj", "/CN=x", "-addext", "subjectAltName=DNS:x.example"];
        let certificate = openssl(&request, &key).expect("installed");
        let identity = Identity::from_bytes(&certificate, Some(&key), None).expect("valid");
        assert!(identity.is_for("x.example"));
        assert_eq!(certificates(&certificate).expect("valid"), identity.chain());
        let der = openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &key).expect("installed");
        Identity::from_bytes(&certificate, Some(&der), None).expect("PKCS#8 in DER");
        let Some(plain) = plain else { continue };
        // PKCS#1 and SEC 1.
        let options: &[&str] = if plain == "rsa" { &["-traditional"] } else { &[] };
        for form in ["PEM", "DER"] {
            let traditional = openssl(&[&[plain, "-outform", form], options].concat(), &key).expect("installed");
            Identity::from_bytes(&certificate, Some(&traditional), None).expect("the traditional form");
        }
        if plain == "ec" {
            // With the parameters of the curve before the key, as `openssl ecparam -genkey` writes it.
            let curve = openssl(&["ec", "-param_out"], &key).expect("installed");
            let sec1 = openssl(&["ec"], &key).expect("installed");
            Identity::from_bytes(&certificate, Some(&[curve, sec1].concat()), None).expect("after its parameters");
        }
        let legacy = openssl(&[&[plain, "-aes128", "-passout", "pass:x"], options].concat(), &key).expect("installed");
        let outcome = Identity::from_bytes(&certificate, Some(&legacy), Some(b"x"));
        refused(outcome, &IdentityError::LegacyEncryption);
    }
    // Curves and lengths that are not supported.
    let Some(key) = openssl(&["genpkey", "-algorithm", "ed448"], b"") else { return };
    let certificate = openssl(&["req", "-x509", "-key", "/dev/stdin", "-subj", "/CN=x"], &key).expect("installed");
    refused(Identity::from_bytes(&certificate, Some(&key), None), &IdentityError::UnsupportedKey);
}

#[cfg(feature = "encrypted-keys")]
#[test]
fn encrypted_keys() {
    use sanserve_tls::identity::private_key;

    let made = made_for(&["a.example"]);
    let (certificate, key) = made.pem();
    let certificate = certificate.as_bytes();
    let plain = private_key(key.as_bytes(), None).expect("valid");
    for scheme in [
        &["-v2", "aes-256-cbc"][..],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
        &["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"],
        &["-v2", "des3"],
        &["-scrypt"],
    ] {
        for form in ["PEM", "DER"] {
            let arguments = [&["pkcs8", "-topk8", "-passout", "pass:open sesame", "-outform", form], scheme].concat();
            let Some(encrypted) = openssl(&arguments, key.as_bytes()) else { return };
            let found = private_key(&encrypted, Some(b"open sesame")).expect("the password is right");
            assert_eq!(found.secret_der(), plain.secret_der(), "{scheme:?} {form}");
            let identity = Identity::from_bytes(certificate, Some(&encrypted), Some(b"open sesame"));
            identity.expect("the key belongs to the certificate");
            refused(Identity::from_bytes(certificate, Some(&encrypted), None), &IdentityError::PasswordNeeded);
            refused(
                Identity::from_bytes(certificate, Some(&encrypted), Some(b"sesame")),
                &IdentityError::WrongPassword,
            );
        }
    }
    // The padding of one wrong password in 256 is right by chance.
    let arguments = ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "1", "-passout", "pass:x"];
    let encrypted = openssl(&arguments, key.as_bytes()).expect("installed");
    for number in 0..1_000 {
        let outcome = private_key(&encrypted, Some(format!("{number}").as_bytes()));
        assert_eq!(outcome.expect_err("wrong"), IdentityError::WrongPassword, "{number}");
    }
    // PBES1, which old versions of OpenSSL used.
    let provider = ["-provider", "legacy", "-provider", "default"];
    let old = [&["pkcs8", "-topk8", "-v1", "PBE-MD5-DES", "-passout", "pass:x"][..], &provider].concat();
    let encrypted = openssl(&old, key.as_bytes()).expect("installed");
    let outcome = Identity::from_bytes(certificate, Some(&encrypted), Some(b"x"));
    refused(outcome, &IdentityError::UnsupportedEncryption);
    // A password is ignored where it is not needed.
    assert_eq!(private_key(key.as_bytes(), Some(b"x")).expect("valid").secret_der(), plain.secret_der());
}

mod choice {
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use sanserve_tls::identity::Identities;

    use super::*;

    fn provider() -> Arc<CryptoProvider> {
        sanserve_tls::provider().expect("a feature of this test")
    }

    fn identity(made: &Made) -> Identity {
        let (certificate, key) = made.pem();
        read(&certificate, &key).expect("valid")
    }

    fn server(identities: &Identities) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(identities.clone())))
    }

    /// The certificate that a client gets which connects to `name` and trusts `roots`.
    fn presented(
        config: &Arc<ServerConfig>,
        name: &str,
        roots: &[&Made],
        provider: Arc<CryptoProvider>,
    ) -> Result<CertificateDer<'static>, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.certificate.der().clone()).unwrap();
        }
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let client = Arc::new(client.with_root_certificates(store).with_no_client_auth());
        let mut client = ClientConnection::new(client, ServerName::try_from(name.to_owned()).unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(config))?;
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.peer_certificates().unwrap()[0].clone().into_owned())
    }

    #[test]
    fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
        let made = [made_for(&["a.example", "192.0.2.1"]), made_for(&["*.b.example"]), made_for(&["a.example"])];
        let identities = Identities::new(made.iter().map(identity).collect::<Vec<_>>());
        let config = server(&identities);
        let roots: Vec<&Made> = made.iter().collect();
        for (name, number) in [("a.example", 0), ("x.b.example", 1), ("192.0.2.1", 0)] {
            let certificate = presented(&config, name, &roots, provider()).expect("trusted");
            assert_eq!(certificate, *made[number].certificate.der(), "{name}");
        }
        // A name that no certificate is for gets the first one, and the client decides.
        assert!(matches!(
            presented(&config, "c.example", &roots, provider()),
            Err(rustls::Error::InvalidCertificate(_))
        ));
    }

    #[test]
    fn a_client_gets_a_certificate_whose_key_it_supports() {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("supported");
        let certificate = CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (ed25519, p256) = (Made { certificate, key }, made_for(&["a.example"]));
        let config = server(&Identities::new([identity(&ed25519), identity(&p256)]));
        let both = presented(&config, "a.example", &[&ed25519, &p256], provider()).expect("trusted");
        assert_eq!(both, *ed25519.certificate.der());
        // A client without Ed25519, as browsers are.
        let mut without = CryptoProvider::clone(&provider());
        let ecdsa = without.signature_verification_algorithms.mapping;
        without.signature_verification_algorithms.mapping = ecdsa
            .iter()
            .position(|(scheme, _)| *scheme == rustls::SignatureScheme::ED25519)
            .map(|at| if at == 0 { &ecdsa[1..] } else { &ecdsa[..at] })
            .expect("supported");
        let without = Arc::new(without);
        let one = presented(&config, "a.example", &[&ed25519, &p256], Arc::clone(&without)).expect("trusted");
        assert_eq!(one, *p256.certificate.der());
        // And if there is no other certificate.
        let config = server(&Identities::new([identity(&ed25519)]));
        let refused = presented(&config, "a.example", &[&ed25519], without).expect_err("nothing in common");
        assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused}");
    }

    #[test]
    fn a_reload_reaches_later_connections() {
        let (old, new) = (made_for(&["a.example"]), made_for(&["a.example"]));
        let identities = Identities::new([identity(&old)]);
        let config = server(&identities);
        let roots = [&old, &new];
        assert_eq!(presented(&config, "a.example", &roots, provider()).unwrap(), *old.certificate.der());
        identities.replace([identity(&new)]);
        assert_eq!(presented(&config, "a.example", &roots, provider()).unwrap(), *new.certificate.der());
        assert_eq!(identities.current().len(), 1);
        identities.replace([]);
        assert!(presented(&config, "a.example", &roots, provider()).is_err());
    }
}

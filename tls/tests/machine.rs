//! The machine against a client of rustls, without a socket.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion,
};
use sanserve_tls::identity::{Identities, Identity};
use sanserve_tls::{Config, Machine, Read, Secured};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A certificate of its own authority, and its key.
struct Made {
    identity: Identity,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn make(name: &str) -> Made {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let identity =
        Identity::from_bytes(made.cert.pem().as_bytes(), Some(made.signing_key.serialize_pem().as_bytes()), None);
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Made { identity: identity.unwrap(), certificate: made.cert.der().clone(), key }
}

fn localhost() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make("localhost"))
}

fn server() -> Config {
    Config::new(Identities::new([localhost().identity.clone()])).unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    sanserve_tls::provider().unwrap()
}

fn roots(of: &[&Made]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    of.iter().for_each(|made| roots.add(made.certificate.clone()).unwrap());
    roots
}

fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    builder.with_root_certificates(roots(&[localhost()])).with_no_client_auth()
}

fn connect(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Everything that the client wants to send now.
fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Puts bytes into the machine, as far as it has room.
fn put(machine: &mut Machine, bytes: &mut &[u8]) {
    let incoming = machine.incoming(usize::MAX);
    let n = bytes.len().min(incoming.capacity() - incoming.len());
    incoming.extend_from_slice(&bytes[..n]);
    *bytes = &bytes[n..];
}

/// Has the client read what the machine has to send. Returns the plaintext.
fn pass(machine: &mut Machine, client: &mut ClientConnection) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    while !machine.unsent().is_empty() {
        let n = client.read_tls(&mut machine.unsent()).unwrap();
        machine.sent(n);
        client.process_new_packets()?;
        match client.reader().read_to_end(&mut plain) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    Ok(plain)
}

/// Reads everything.
fn read(machine: &mut Machine, plain: &mut Vec<u8>) -> Read {
    let mut room = [0; 500];
    loop {
        match machine.read(&mut room).unwrap() {
            Read::Plain(n) => plain.extend_from_slice(&room[..n]),
            other => return other,
        }
    }
}

/// A complete handshake. Returns what the machine says of it, and what the client sent in its flights.
fn shake(machine: &mut Machine, client: &mut ClientConnection) -> (Secured, Vec<Vec<u8>>) {
    let mut flights = Vec::new();
    let mut secured = None;
    for _ in 0..4 {
        let flight = sent_by(client);
        put(machine, &mut &*flight);
        flights.push(flight);
        assert_eq!(read(machine, &mut Vec::new()), Read::More);
        pass(machine, client).unwrap();
        secured = secured.or_else(|| machine.take_secured());
    }
    (secured.expect("the handshake is complete"), flights)
}

fn shaken(version: &'static SupportedProtocolVersion) -> (Machine, ClientConnection) {
    let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(client_config(version)));
    shake(&mut machine, &mut client);
    (machine, client)
}

#[test]
fn a_request_and_its_response() {
    for version in VERSIONS {
        let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(client_config(version)));
        assert!(machine.is_handshaking());
        let (secured, _) = shake(&mut machine, &mut client);
        assert!(!machine.is_handshaking());
        assert_eq!(secured.is_13, version.version == ProtocolVersion::TLSv1_3);
        assert_eq!(
            (secured.server_name.as_deref(), secured.alpn, secured.is_resumed),
            (Some("localhost"), None, false)
        );
        assert!(secured.client_certificates.is_empty());
        assert!(machine.take_secured().is_none(), "once");
        client.writer().write_all(REQUEST).unwrap();
        put(&mut machine, &mut &*sent_by(&mut client));
        let mut plain = Vec::new();
        assert_eq!(read(&mut machine, &mut plain), Read::More);
        assert_eq!(plain, REQUEST);
        assert_eq!(machine.write(b"response").unwrap(), 8);
        assert_eq!(pass(&mut machine, &mut client).unwrap(), b"response");
        machine.shrink();
        assert_eq!(machine.buffered(), 0, "an idle connection has no buffers");
    }
}

/// The bytes of the client arrive in two pieces, split at each position: the outcome is the same.
#[test]
fn every_split_of_every_flight() {
    for version in VERSIONS {
        let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(client_config(version)));
        let (_, flights) = shake(&mut machine, &mut client);
        let lengths: Vec<usize> = flights.iter().map(Vec::len).collect();
        for (number, &len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            // The ends of records are among the first bytes and around the headers; the rest is one long text.
            let step = if len > 400 { 7 } else { 1 };
            for at in (1..len).step_by(step).chain([len - 1]) {
                split_one(version, number, at);
            }
        }
    }
}

fn split_one(version: &'static SupportedProtocolVersion, number: usize, at: usize) {
    let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(client_config(version)));
    let mut plain = Vec::new();
    for flight_number in 0..4 {
        let flight = sent_by(&mut client);
        let at = if flight_number == number { at.min(flight.len()) } else { 0 };
        for piece in [&flight[..at], &flight[at..]] {
            put(&mut machine, &mut &*piece);
            assert_eq!(read(&mut machine, &mut plain), Read::More);
            machine.shrink();
        }
        pass(&mut machine, &mut client).unwrap();
    }
    assert!(machine.take_secured().is_some(), "{version:?} {number} {at}");
    client.writer().write_all(REQUEST).unwrap();
    put(&mut machine, &mut &*sent_by(&mut client));
    assert_eq!(read(&mut machine, &mut plain), Read::More);
    assert_eq!(plain, REQUEST, "{version:?} {number} {at}");
}

#[test]
fn a_handshake_and_a_request_byte_by_byte() {
    for version in VERSIONS {
        let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(client_config(version)));
        let mut plain = Vec::new();
        client.writer().write_all(REQUEST).unwrap();
        for _ in 0..4 {
            for byte in sent_by(&mut client) {
                put(&mut machine, &mut &[byte][..]);
                assert_eq!(read(&mut machine, &mut plain), Read::More);
                machine.shrink();
            }
            pass(&mut machine, &mut client).unwrap();
        }
        assert_eq!(plain, REQUEST);
    }
}

/// Several records arrive at once, and are read into little room: what is left is announced, and nothing of it is lost.
#[test]
fn plaintext_that_is_left_is_announced() {
    for version in VERSIONS {
        let (mut machine, mut client) = shaken(version);
        let mut expected = Vec::new();
        for number in 0..20_u8 {
            let piece = vec![number; 700];
            client.writer().write_all(&piece).unwrap();
            expected.extend(piece);
        }
        put(&mut machine, &mut &*sent_by(&mut client));
        let (mut plain, mut room) = (Vec::new(), [0; 300]);
        while let Read::Plain(n) = machine.read(&mut room).unwrap() {
            plain.extend_from_slice(&room[..n]);
            assert_eq!(machine.has_unread(), plain.len() < expected.len(), "{}", plain.len());
        }
        assert_eq!(plain, expected);
    }
}

#[test]
fn both_directions_at_once() {
    for version in VERSIONS {
        let (mut machine, mut client) = shaken(version);
        let (up, down) = (vec![b'u'; 300_000], vec![b'd'; 300_000]);
        let (mut to_write, mut to_send) = (&up[..], &down[..]);
        let (mut plain, mut got) = (Vec::new(), Vec::new());
        while plain.len() < up.len() || got.len() < down.len() {
            let n = client.writer().write(&to_write[..to_write.len().min(20_000)]).unwrap();
            to_write = &to_write[n..];
            let flight = sent_by(&mut client);
            let mut flight = &flight[..];
            while !flight.is_empty() {
                put(&mut machine, &mut flight);
                // While records are there that were not read.
                let n = machine.write(&to_send[..to_send.len().min(10_000)]).unwrap();
                to_send = &to_send[n..];
                assert_eq!(read(&mut machine, &mut plain), Read::More);
            }
            let n = machine.write(to_send).unwrap();
            to_send = &to_send[n..];
            got.extend(pass(&mut machine, &mut client).unwrap());
        }
        assert!(plain == up && got == down);
    }
}

/// The memory for ciphertext that is not sent is bounded: the machine takes no more plaintext.
#[test]
fn what_is_not_sent_is_bounded() {
    let (mut machine, mut client) = shaken(&rustls::version::TLS13);
    let data = vec![b'x'; 1 << 20];
    let mut taken = 0;
    loop {
        match machine.write(&data).unwrap() {
            0 => break,
            n => taken += n,
        }
    }
    assert!((60_000..200_000).contains(&machine.unsent().len()), "{}", machine.unsent().len());
    assert_eq!(pass(&mut machine, &mut client).unwrap().len(), taken);
}

#[test]
fn a_close_is_told_from_a_cut() {
    for version in VERSIONS {
        let (mut machine, mut client) = shaken(version);
        client.writer().write_all(b"all").unwrap();
        client.send_close_notify();
        let mut bytes = sent_by(&mut client);
        bytes.extend_from_slice(b"\x17\x03\x03\x00\x05later");
        put(&mut machine, &mut &*bytes);
        let mut plain = Vec::new();
        assert_eq!(read(&mut machine, &mut plain), Read::Closed, "what follows is ignored");
        assert_eq!(plain, b"all");
        assert_eq!(machine.write(b"still").unwrap(), 5, "the other direction is open");
        machine.close();
        assert_eq!(pass(&mut machine, &mut client).unwrap(), b"still");
        assert_eq!(client.reader().read(&mut [0; 9]).expect("a close_notify"), 0);

        let (mut machine, mut client) = shaken(version);
        client.writer().write_all(b"part").unwrap();
        put(&mut machine, &mut &*sent_by(&mut client));
        machine.ended();
        let mut plain = Vec::new();
        assert_eq!(read(&mut machine, &mut plain), Read::Truncated);
        assert_eq!(plain, b"part");
    }
    let mut machine = Machine::new(&server()).unwrap();
    machine.ended();
    assert_eq!(machine.read(&mut [0; 9]).unwrap(), Read::Truncated, "before the handshake");
}

/// What the machine sends for these bytes in place of a hello: an alert, after which it is over.
fn refused(bytes: &[u8]) -> Vec<u8> {
    let mut machine = Machine::new(&server()).unwrap();
    let mut bytes = bytes;
    let mut room = [0; 100];
    let failure = loop {
        put(&mut machine, &mut bytes);
        match machine.read(&mut room) {
            Ok(Read::More) if !bytes.is_empty() => {}
            Ok(other) => panic!("{other:?}"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(machine.read(&mut room).unwrap_err(), failure, "the error stays");
    assert_eq!(machine.write(b"x").unwrap_err(), failure);
    assert!(!machine.is_handshaking() && machine.take_secured().is_none() && machine.has_unread());
    machine.unsent().to_vec()
}

fn alert(description: AlertDescription) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description.into()]
}

#[test]
fn what_is_no_hello_is_refused_with_an_alert() {
    for garbage in [&[0xff; 40][..], b"\x00\x01\x02\x03\x04\x05", b"\x17\x03\x03\x00\x01x"] {
        let sent = refused(garbage);
        assert!(sent.len() == 7 && sent.starts_with(&[21, 3, 3, 0, 2, 2]), "{garbage:?}: {sent:?}");
    }
    // SSL 2.0: a length with its highest bit set, then a CLIENT-HELLO.
    let hello = b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80\x04\x00\x80\x05\x00\x80\x06\x00\x40\x07\x00\xc0\x00\x11\x22\x33\x44\x55\x66\x77\x88";
    assert_eq!(refused(hello).len(), 7);
    // A record that is longer than any may be.
    assert_eq!(refused(b"\x16\x03\x01\xff\xff").len(), 7);
    // What is too long for any message ends with an alert or without one.
    assert!(refused(b"\x16\x03\x01\x00\x05hello").len() <= 7);
    let mut huge = Vec::new();
    for number in 0..40 {
        huge.extend_from_slice(b"\x16\x03\x01\x40\x00");
        let mut record = vec![0; 1 << 14];
        if number == 0 {
            record[..4].copy_from_slice(b"\x01\xff\xff\xff");
        }
        huge.extend(record);
    }
    assert!(refused(&huge).len() <= 7);
    // Empty records without end.
    let empty = b"\x16\x03\x01\x00\x00".repeat(100);
    assert!(refused(&empty).len() <= 7);
}

/// A hello of a version that is not spoken: the extension `supported_versions` is missing, and the legacy version is low.
#[test]
fn older_versions_are_refused() {
    let mut client = connect(client_config(&rustls::version::TLS12));
    let hello = sent_by(&mut client);
    for (minor, name) in [(1, "TLS 1.0"), (2, "TLS 1.1"), (0, "SSL 3.0")] {
        let mut hello = hello.clone();
        hello[9..11].copy_from_slice(&[3, minor]);
        // `supported_versions` (43), with the one version 1.2, becomes an extension that nobody knows.
        if let Some(at) = hello.windows(7).position(|bytes| bytes == [0, 43, 0, 3, 2, 3, 3]) {
            hello[at] = 0xfa;
        }
        assert_eq!(refused(&hello), alert(AlertDescription::ProtocolVersion), "{name}");
    }
}

#[test]
fn application_protocols() {
    for version in VERSIONS {
        for (offered, agreed) in
            [(&["h2", "http/1.1"][..], Some("http/1.1")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let mut config = client_config(version);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let (secured, _) = shake(&mut Machine::new(&server()).unwrap(), &mut connect(config));
            assert_eq!(secured.alpn.as_deref(), agreed.map(str::as_bytes));
        }
        let mut config = client_config(version);
        config.alpn_protocols = vec![b"h2".to_vec(), b"spdy/3".to_vec()];
        let (mut machine, mut client) = (Machine::new(&server()).unwrap(), connect(config));
        put(&mut machine, &mut &*sent_by(&mut client));
        assert!(machine.read(&mut [0; 9]).is_err());
        let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(pass(&mut machine, &mut client), Err(alert));
    }
}

#[test]
fn plain_http_is_recognized_by_its_first_byte() {
    for request in [REQUEST, b"G", b"PRI * HTTP/2.0\r\n"] {
        let mut machine = Machine::new(&server()).unwrap();
        assert_eq!(machine.read(&mut [0; 9]).unwrap(), Read::More);
        put(&mut machine, &mut &*request);
        assert_eq!(machine.read(&mut [0; 9]).unwrap(), Read::PlainHttp);
        assert!(machine.unsent().is_empty());
        assert_eq!(machine.take_incoming(), request);
    }
}

#[test]
fn a_name_that_nobody_has_gets_the_first_certificate() {
    let (first, second) = (localhost(), make("second.example"));
    let config = Config::new(Identities::new([first.identity.clone(), second.identity.clone()])).unwrap();
    let hello = |name: &'static str| {
        let roots = roots(&[first, &second]);
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
    };
    for name in ["localhost", "second.example"] {
        let mut client = hello(name);
        let (secured, _) = shake(&mut Machine::new(&config).unwrap(), &mut client);
        assert_eq!(secured.server_name.as_deref(), Some(name));
        let shown = client.peer_certificates().unwrap();
        assert_eq!(shown, [if name == "localhost" { &first.certificate } else { &second.certificate }.clone()]);
    }
    // The client refuses the certificate, and says so.
    let (mut machine, mut client) = (Machine::new(&config).unwrap(), hello("third.example"));
    put(&mut machine, &mut &*sent_by(&mut client));
    assert_eq!(read(&mut machine, &mut Vec::new()), Read::More);
    assert!(matches!(pass(&mut machine, &mut client), Err(Error::InvalidCertificate(_))));
    put(&mut machine, &mut &*sent_by(&mut client));
    assert!(machine.read(&mut [0; 9]).unwrap_err().as_rustls().is_some());
}

#[test]
fn sessions_are_resumed_on_any_machine_of_the_configuration() {
    for version in VERSIONS {
        let server = server();
        let mut config = client_config(version);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        for is_resumed in [false, true, true] {
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let (secured, _) = shake(&mut Machine::new(&server.clone()).unwrap(), &mut client);
            assert_eq!(secured.is_resumed, is_resumed, "{version:?}");
            assert_eq!(secured.server_name.as_deref(), Some("localhost"));
            let kind = if is_resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
            assert_eq!(client.handshake_kind(), Some(kind));
        }
    }
}

/// A client that wants 0-RTT sends its data after the handshake.
#[test]
fn early_data_is_not_accepted() {
    let server = server();
    let mut config = client_config(&rustls::version::TLS13);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        assert!(client.early_data().is_none(), "no ticket permits it");
        shake(&mut Machine::new(&server).unwrap(), &mut client);
        assert!(!client.is_early_data_accepted());
    }
}

#[test]
fn certificates_of_clients() {
    let own = make("client.example");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&[&own])), provider()).build().unwrap();
    let identities = Identities::new([localhost().identity.clone()]);
    let config = Config::with_client_certificates(identities, verifier).unwrap();
    for version in VERSIONS {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots(&[localhost()]));
        let client = builder.with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key()).unwrap();
        let (secured, _) = shake(&mut Machine::new(&config).unwrap(), &mut connect(client));
        assert_eq!(secured.client_certificates, [own.certificate.to_vec()]);
        // One without a certificate is refused.
        let (mut machine, mut client) = (Machine::new(&config).unwrap(), connect(client_config(version)));
        let refused = (0..4).find_map(|_| {
            put(&mut machine, &mut &*sent_by(&mut client));
            let refused = machine.read(&mut [0; 9]).err();
            let _ = pass(&mut machine, &mut client);
            refused
        });
        assert_eq!(refused.unwrap().as_rustls(), Some(&Error::NoCertificatesPresented));
    }
}

#[test]
fn certificates_are_replaced_while_connections_go_on() {
    let config = server();
    let (mut machine, mut client) = (Machine::new(&config).unwrap(), connect(client_config(&rustls::version::TLS13)));
    shake(&mut machine, &mut client);
    let other = make("localhost");
    config.identities().unwrap().replace([other.identity.clone()]);
    client.writer().write_all(REQUEST).unwrap();
    put(&mut machine, &mut &*sent_by(&mut client));
    let mut plain = Vec::new();
    assert_eq!(read(&mut machine, &mut plain), Read::More);
    assert_eq!(plain, REQUEST);
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut client = connect(builder.with_root_certificates(roots(&[&other])).with_no_client_auth());
    shake(&mut Machine::new(&config).unwrap(), &mut client);
    assert_eq!(client.peer_certificates().unwrap(), [other.certificate]);
}

/// Keys are updated by the peer: the machine follows, and answers with its next record. A flood of updates without data
/// ends the connection.
#[test]
fn key_updates() {
    let (mut machine, mut client) = shaken(&rustls::version::TLS13);
    for _ in 0..100 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(b"x").unwrap();
        put(&mut machine, &mut &*sent_by(&mut client));
        let mut plain = Vec::new();
        assert_eq!(read(&mut machine, &mut plain), Read::More);
        assert_eq!(plain, b"x");
        assert!(machine.unsent().len() < 1_000, "{}", machine.unsent().len());
        machine.write(b"y").unwrap();
        assert_eq!(pass(&mut machine, &mut client).unwrap(), b"y");
    }
    let failure = (0..1_000).find_map(|_| {
        client.refresh_traffic_keys().unwrap();
        put(&mut machine, &mut &*sent_by(&mut client));
        assert!(machine.unsent().len() < 1_000, "{}", machine.unsent().len());
        machine.read(&mut [0; 9]).err()
    });
    assert!(matches!(failure.unwrap().as_rustls(), Some(Error::PeerMisbehaved(_))));
}

/// A record that was changed on its way ends the connection, with an alert.
#[test]
fn a_changed_record_is_refused() {
    for version in VERSIONS {
        let (mut machine, mut client) = shaken(version);
        client.writer().write_all(REQUEST).unwrap();
        let mut bytes = sent_by(&mut client);
        *bytes.last_mut().unwrap() ^= 1;
        put(&mut machine, &mut &*bytes);
        assert_eq!(machine.read(&mut [0; 9]).unwrap_err().as_rustls(), Some(&Error::DecryptError));
        assert_eq!(pass(&mut machine, &mut client), Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
    }
}

/// What was read before a record that is refused is not lost.
#[test]
fn what_comes_before_an_error_is_read() {
    let (mut machine, mut client) = shaken(&rustls::version::TLS13);
    client.writer().write_all(b"good").unwrap();
    let mut bytes = sent_by(&mut client);
    bytes.extend_from_slice(b"\x17\x03\x03\x00\x20................................");
    put(&mut machine, &mut &*bytes);
    let mut room = [0; 100];
    assert_eq!(machine.read(&mut room).unwrap(), Read::Plain(4));
    assert_eq!(&room[..4], b"good");
    assert!(machine.has_unread());
    assert!(machine.read(&mut room).is_err());
}

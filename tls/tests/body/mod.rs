//! The body of the fuzz target for the machine: it takes any bytes, and panics if something is wrong. It also compiles
//! on stable Rust, so that an ordinary test can run the corpus and random bytes through it.

#![allow(unreachable_pub, missing_docs, reason = "the fuzz target includes this module by path")]

use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use sanserve_tls::identity::{Identities, Identity};
use sanserve_tls::rustls::pki_types::ServerName;
use sanserve_tls::rustls::{ClientConfig, ClientConnection, RootCertStore, version};
use sanserve_tls::{Config, Machine, Read};

/// More than a machine ever holds: an incomplete handshake message and a record, plaintext of as much, and what it has
/// to send.
const MOST: usize = 512 * 1024;

fn configs() -> &'static (Config, [Arc<ClientConfig>; 2]) {
    static CONFIGS: OnceLock<(Config, [Arc<ClientConfig>; 2])> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let identity = Identity::from_bytes(made.cert.pem().as_bytes(), Some(key.as_bytes()), None).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = |version| {
            let builder = ClientConfig::builder_with_provider(sanserve_tls::provider().unwrap());
            let builder = builder.with_protocol_versions(&[version]).unwrap();
            Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
        };
        (Config::new(Identities::new([identity])).unwrap(), [client(&version::TLS12), client(&version::TLS13)])
    })
}

/// The machine and its peer. What the peer sends may be changed on its way.
struct Pair {
    machine: Machine,
    client: ClientConnection,
    /// What was sent to the machine, and how much of it was changed or added.
    is_changed: bool,
    /// Plaintext that the client has written and the machine has not read.
    expected: Vec<u8>,
    failed: bool,
    ended: bool,
    /// The client has seen an error, and reads nothing more.
    is_client_over: bool,
}

/// Carries out what the bytes say: two for each operation, its kind and how much.
pub fn machine(data: &[u8]) {
    let (config, clients) = configs();
    let Some((first, mut rest)) = data.split_first() else { return };
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(&clients[usize::from(first & 1)]), name).unwrap();
    let machine = Machine::new(config).unwrap();
    let mut pair = Pair {
        machine,
        client,
        is_changed: false,
        expected: Vec::new(),
        failed: false,
        ended: false,
        is_client_over: false,
    };
    let mut closed = false;
    while let [kind, much, others @ ..] = rest {
        rest = others;
        let much = usize::from(*much);
        // An assertion of rustls, in debug builds alone, forbids a second alert after a close_notify, which a record that
        // was changed would cause.
        let kind = if closed && matches!(kind % 9, 1 | 2) { 0 } else { kind % 9 };
        match kind {
            // What the client wants to send, all of it.
            0 => {
                let mut bytes = Vec::new();
                while pair.client.wants_write() {
                    pair.client.write_tls(&mut bytes).unwrap();
                }
                pair.put(&bytes);
            }
            // The same, with one byte changed.
            1 => {
                let mut bytes = Vec::new();
                while pair.client.wants_write() {
                    pair.client.write_tls(&mut bytes).unwrap();
                }
                if let Some(at) = much.checked_rem(bytes.len()) {
                    bytes[at] ^= 1 << (much % 8);
                    pair.is_changed = true;
                }
                pair.put(&bytes);
            }
            // Any bytes.
            2 => {
                let n = much.min(rest.len());
                let (bytes, others) = rest.split_at(n);
                rest = others;
                pair.is_changed |= n > 0;
                pair.put(bytes);
            }
            // Plaintext from the client.
            3 if !pair.client.is_handshaking() => {
                let bytes = vec![*much_byte(much); much * 97];
                // It writes nothing after an error.
                let n = pair.client.writer().write(&bytes).unwrap_or(0);
                pair.expected.extend_from_slice(&bytes[..n]);
            }
            4 => pair.read(much * 31 + 1),
            5 => pair.write(much * 401),
            6 => pair.pass(),
            7 => pair.machine.shrink(),
            8 => match much % 4 {
                0 => {
                    if pair.is_changed {
                        continue;
                    }
                    pair.machine.close();
                    closed = true;
                }
                1 => {
                    pair.machine.ended();
                    pair.ended = true;
                }
                2 => pair.client.send_close_notify(),
                _ => {
                    let _ = pair.client.refresh_traffic_keys();
                }
            },
            _ => {}
        }
        assert!(pair.machine.buffered() < MOST, "{:?}", pair.machine);
    }
}

fn much_byte(much: usize) -> &'static u8 {
    &b"abcdefghijklmnop"[much % 16]
}

impl Pair {
    /// Puts bytes into the machine, and reads as far as they need.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.ended {
            let incoming = self.machine.incoming(usize::MAX);
            let n = bytes.len().min(incoming.capacity() - incoming.len());
            incoming.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if n == 0 || !bytes.is_empty() {
                self.read(20_000);
            }
            if self.failed {
                return;
            }
        }
    }

    fn read(&mut self, room: usize) {
        let mut room = vec![0; room];
        let before = self.machine.has_unread();
        match self.machine.read(&mut room) {
            Ok(Read::Plain(n)) => {
                assert!(n > 0 && n <= room.len());
                let known = n.min(self.expected.len());
                // Nothing that was changed on its way is ever decrypted.
                assert!(known == n && room[..n] == self.expected[..n], "plaintext that the client has not written");
                self.expected.drain(..n);
            }
            Ok(Read::Closed | Read::Truncated) => assert!(before || self.ended || self.machine.has_unread()),
            Ok(Read::More) => assert!(!self.ended),
            Ok(Read::PlainHttp) => {
                assert!(self.is_changed && self.machine.unsent().is_empty());
                self.failed = true;
            }
            Err(failure) => {
                assert_eq!(self.machine.read(&mut room).unwrap_err(), failure, "an error stays");
                self.failed = true;
            }
        }
        let _ = self.machine.take_secured();
    }

    fn write(&mut self, n: usize) {
        let was_open = !self.machine.is_handshaking();
        if let Ok(taken) = self.machine.write(&vec![b's'; n]) {
            assert!(taken <= n && (was_open || taken == 0));
        }
    }

    /// Has the client read what the machine has to send.
    fn pass(&mut self) {
        while !self.machine.unsent().is_empty() {
            if self.is_client_over {
                let n = self.machine.unsent().len();
                return self.machine.sent(n);
            }
            let n = self.client.read_tls(&mut self.machine.unsent()).unwrap_or(0);
            if n == 0 {
                self.is_client_over = true;
                continue;
            }
            self.machine.sent(n);
            let processed = self.client.process_new_packets();
            assert!(processed.is_ok() || self.is_changed || self.failed || self.ended, "{processed:?}");
            let mut plain = Vec::new();
            let _ = self.client.reader().read_to_end(&mut plain);
            assert!(plain.iter().all(|&byte| byte == b's'), "plaintext that the machine was not given");
            self.is_client_over |= processed.is_err();
        }
    }
}

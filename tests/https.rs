//! HTTPS on every runtime, with clients of rustls and with hostile ones.

use ::std::io::{ErrorKind, Read, Write};
use ::std::net::{Shutdown, SocketAddr, TcpStream};
use ::std::os::unix::net::UnixStream;
use ::std::sync::{Arc, Mutex, OnceLock};
use ::std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use sanserve_core::{Call, Config, DefaultPolicy, HandlerError, Received, Reply, StatusCode, Timeouts};
use sanserve_server::{Listener, Log, Recording, Running, Site};
use sanserve_tls::identity::{Identities, Identity};
use sanserve_tls::rustls::pki_types::{CertificateDer, ServerName};
use sanserve_tls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    version,
};
use sanserve_transcript::Transcript;
use testkit::{LogSink, Tree};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

struct Made {
    identity: Identity,
    certificate: CertificateDer<'static>,
}

fn make(names: Vec<String>) -> Made {
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = made.signing_key.serialize_pem();
    let identity = Identity::from_bytes(made.cert.pem().as_bytes(), Some(key.as_bytes()), None).unwrap();
    Made { identity, certificate: made.cert.der().clone() }
}

fn localhost() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make(vec!["localhost".to_owned()]))
}

fn config() -> sanserve_tls::Config {
    sanserve_tls::Config::new(Identities::new([localhost().identity.clone()])).unwrap()
}

fn site(tree: &Tree, log: &LogSink) -> Site {
    Site::new(tree.root()).unwrap().with_log(Log::to(log.clone())).with_tls(config())
}

fn trusting(certificate: &CertificateDer<'static>, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(sanserve_tls::provider().unwrap());
    builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots).with_no_client_auth()
}

fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    trusting(&localhost().certificate, version)
}

/// A client over TLS.
struct Client<S> {
    tls: ClientConnection,
    socket: S,
}

impl Client<TcpStream> {
    fn connect(address: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> Client<TcpStream> {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client::over(socket, config)
    }
}

impl<S: Read + Write> Client<S> {
    fn over(socket: S, config: impl Into<Arc<ClientConfig>>) -> Client<S> {
        let name = ServerName::try_from("localhost").unwrap();
        Client { tls: ClientConnection::new(config.into(), name).unwrap(), socket }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let mut stream = sanserve_tls::rustls::Stream::new(&mut self.tls, &mut self.socket);
        stream.write_all(bytes.as_ref()).unwrap();
        stream.flush().unwrap();
    }

    /// Reads one response.
    fn response(&mut self) -> (String, Vec<u8>) {
        let mut stream = sanserve_tls::rustls::Stream::new(&mut self.tls, &mut self.socket);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn get(&mut self, target: &str) -> (String, Vec<u8>) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response()
    }

    /// Reads to the end, which the server announces.
    fn ends(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        sanserve_tls::rustls::Stream::new(&mut self.tls, &mut self.socket).read_to_end(&mut rest).unwrap();
        rest
    }
}

/// Bytes of a hello.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(client_config(&version::TLS13)), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// Everything that the server sends until it closes or resets.
fn all(mut socket: TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut room) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut room) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&room[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_open(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let found = socket.peek(&mut [0]);
    socket.set_nonblocking(false).unwrap();
    matches!(found, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Sends the request's body back.
fn echo(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        let length = reply.request().content_length().unwrap_or(0);
        reply.respond(StatusCode::OK)?.length(length).send()?;
    }
    if matches!(call, Call::Over | Call::Drain | Call::Wake) {
        return Ok(());
    }
    loop {
        let data = match reply.receive() {
            Received::Data(data) => data.to_vec(),
            Received::Pending | Received::Broken => return Ok(()),
            Received::End => return Ok(reply.finish()?),
        };
        let taken = reply.write(&data)?;
        reply.consume(taken);
        if taken < data.len() {
            return Ok(());
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

macro_rules! on_each_runtime {
    ($($runtime:ident $krate:ident)*) => {$(
        mod $runtime {
            use $krate::Server;

            use super::*;

            fn run(site: Site) -> Running {
                Server::bind("127.0.0.1:0", site).unwrap().spawn().unwrap()
            }

            #[test]
            fn files() {
                let (tree, log) = (Tree::new(), LogSink::default());
                let (middle, large) = (pattern(100_000), pattern(5_000_000));
                tree.file("small", "hello\n").file("middle", &middle).file("large", &large);
                let running = run(site(&tree, &log));
                for version in VERSIONS {
                    let mut client = Client::connect(running.local_addr(), client_config(version));
                    for _ in 0..3 {
                        assert_eq!(client.get("/small").1, b"hello\n");
                        assert!(client.get("/middle").1 == middle);
                        assert!(client.get("/large").1 == large);
                        assert!(client.get("/missing").0.starts_with("HTTP/1.1 404 "));
                    }
                    client.send("GET /large HTTP/1.1\r\nHost: localhost\r\nRange: bytes=4000000-\r\n\r\n");
                    assert!(client.response().1 == large[4_000_000..]);
                    // Several requests at once, in one record and in several.
                    client.send("GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
                    (0..100).for_each(|_| assert_eq!(client.response().1, b"hello\n"));
                    client.send("GET /small HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                    assert!(client.ends().ends_with(b"hello\n"));
                }
            }

            #[test]
            fn a_client_that_reads_late_gets_everything() {
                let (tree, log) = (Tree::new(), LogSink::default());
                let large = pattern(30_000_000);
                tree.file("large", &large);
                let running = run(site(&tree, &log));
                let mut clients: Vec<_> =
                    (0..4).map(|_| Client::connect(running.local_addr(), client_config(&version::TLS13))).collect();
                clients.iter_mut().for_each(|client| client.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                // Meanwhile all their sockets are full.
                let mut other = Client::connect(running.local_addr(), client_config(&version::TLS13));
                (0..20).for_each(|_| assert!(other.get("/missing").0.starts_with("HTTP/1.1 404 ")));
                clients.iter_mut().for_each(|client| assert!(client.response().1 == large));
            }

            #[test]
            fn uploads_and_responses_at_once() {
                let log = LogSink::default();
                let site = Site::without_files().with_log(Log::to(log.clone())).with_tls(config());
                let running = run(site.with_handler(|| echo));
                let body = pattern(3_000_000);
                for version in VERSIONS {
                    let socket = TcpStream::connect(running.local_addr()).unwrap();
                    let mut client = Client::over(socket, client_config(version));
                    for _ in 0..2 {
                        client.send(format!(
                            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        ));
                        // Less than the sockets hold, so that nobody waits for the other.
                        let mut got = Vec::new();
                        let mut head_ended = false;
                        for piece in body.chunks(20_000) {
                            client.send(piece);
                            let mut wanted = piece.len();
                            if !::std::mem::replace(&mut head_ended, true) {
                                let mut stream = sanserve_tls::rustls::Stream::new(&mut client.tls, &mut client.socket);
                                let mut head = Vec::new();
                                while !head.ends_with(b"\r\n\r\n") {
                                    let mut byte = [0];
                                    stream.read_exact(&mut byte).unwrap();
                                    head.push(byte[0]);
                                }
                            }
                            while wanted > 0 {
                                let mut room = vec![0; wanted];
                                let mut stream = sanserve_tls::rustls::Stream::new(&mut client.tls, &mut client.socket);
                                let n = stream.read(&mut room).unwrap();
                                assert!(n > 0, "it ends early");
                                got.extend_from_slice(&room[..n]);
                                wanted -= n;
                            }
                        }
                        assert!(got == body);
                    }
                }
            }

            #[test]
            fn what_was_agreed_on_is_known_to_handlers() {
                let site = Site::without_files().with_log(Log::quiet()).with_tls(config());
                let running = run(site.with_answer(|reply: &mut Reply<'_>| {
                    let request = reply.request();
                    let secured = request.secured().ok_or("it is not secured")?;
                    let text = format!("{} {} {:?}", request.scheme(), secured.version, secured.server_name);
                    reply.answer(StatusCode::OK, "text/plain", text.as_bytes()).map_err(HandlerError::from)
                }));
                for (version, expected) in VERSIONS.iter().zip(["1.2", "1.3"]) {
                    let mut client = Client::connect(running.local_addr(), client_config(version));
                    let text = String::from_utf8(client.get("/").1).unwrap();
                    assert_eq!(text, format!("https TLSv{expected} Some(\"localhost\")"));
                }
            }

            #[test]
            fn plain_http_is_redirected_and_nothing_else() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "secret");
                let running = run(site(&tree, &log));
                let ask = |text: &str| {
                    let mut socket = TcpStream::connect(running.local_addr()).unwrap();
                    socket.write_all(text.as_bytes()).unwrap();
                    socket.shutdown(Shutdown::Write).unwrap();
                    String::from_utf8(all(socket)).unwrap()
                };
                let response = ask("GET /a?b HTTP/1.1\r\nHost: example.org:8443\r\n\r\n");
                assert!(response.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{response}");
                assert!(response.contains("\r\nLocation: https://example.org:8443/a?b\r\n"), "{response}");
                for text in ["GET /a HTTP/1.0\r\n\r\n", "HELP\r\n", "GET /a HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
                    assert_eq!(ask(text), "", "{text:?}");
                }
            }

            /// Clients that say nothing, or part of a hello, cost nobody else anything.
            #[test]
            fn silent_clients() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let running = run(site(&tree, &log));
                let silent: Vec<TcpStream> =
                    (0..300).map(|_| TcpStream::connect(running.local_addr()).unwrap()).collect();
                let hello = hello();
                for (number, mut socket) in silent.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
                    socket.write_all(&hello[..1 + number % hello.len()]).unwrap();
                }
                let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                assert!(silent.iter().skip(1).step_by(3).all(is_open), "they still have time");
            }

            /// A handshake that is not complete in time ends, however much it says.
            #[test]
            fn handshakes_that_do_not_end() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let timeouts = Timeouts::default().with_handshake(Duration::from_millis(300));
                let config = Config::default().with_timeouts(timeouts);
                let running = run(site(&tree, &log).with_config(config));
                let hello = hello();
                let silent = TcpStream::connect(running.local_addr()).unwrap();
                let mut half = TcpStream::connect(running.local_addr()).unwrap();
                half.write_all(&hello[..hello.len() / 2]).unwrap();
                // It gets the server's part, and stops.
                let mut whole = TcpStream::connect(running.local_addr()).unwrap();
                whole.write_all(&hello).unwrap();
                let mut slow = TcpStream::connect(running.local_addr()).unwrap();
                slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut bytes = hello.iter();
                let ended = loop {
                    match slow.read(&mut [0; 64]) {
                        Ok(n) => break n == 0,
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(error) => break error.kind() == ErrorKind::ConnectionReset,
                    }
                    if let Some(&byte) = bytes.next() {
                        if slow.write_all(&[byte]).is_err() {
                            break true;
                        }
                    }
                };
                assert!(ended && bytes.len() > 0, "a byte at a time is not extending it");
                assert!(all(silent).is_empty() && all(half).is_empty());
                assert!(all(whole).len() > 500, "the server's part of the handshake");
                // The time for the handshake is not that of the connection.
                let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                ::std::thread::sleep(Duration::from_millis(400));
                assert_eq!(client.get("/a").1, b"served");
            }

            #[test]
            fn a_handshake_and_a_request_byte_by_byte() {
                struct Bytewise(TcpStream);
                impl Read for Bytewise {
                    fn read(&mut self, room: &mut [u8]) -> ::std::io::Result<usize> {
                        self.0.read(room)
                    }
                }
                impl Write for Bytewise {
                    fn write(&mut self, bytes: &[u8]) -> ::std::io::Result<usize> {
                        self.0.write(&bytes[..1])
                    }
                    fn flush(&mut self) -> ::std::io::Result<()> {
                        self.0.flush()
                    }
                }
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let running = run(site(&tree, &log));
                for version in VERSIONS {
                    let socket = TcpStream::connect(running.local_addr()).unwrap();
                    socket.set_nodelay(true).unwrap();
                    let mut client = Client::over(Bytewise(socket), client_config(version));
                    assert_eq!(client.get("/a").1, b"served");
                }
            }

            /// Clients that reset the connection while the server sends: each is forgotten.
            #[test]
            fn clients_that_vanish() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("large", pattern(5_000_000)).file("a", "served");
                let running = run(site(&tree, &log));
                let hello = hello();
                for n in 0..60 {
                    if n % 2 == 0 {
                        let mut socket = TcpStream::connect(running.local_addr()).unwrap();
                        socket.write_all(&hello).unwrap();
                        // With bytes unread, this is a reset.
                        socket.peek(&mut [0]).unwrap();
                    } else {
                        let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                        client.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        client.socket.peek(&mut [0]).unwrap();
                    }
                }
                let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                // It ends only if each connection has.
                running.shutdown().unwrap();
            }

            #[test]
            fn what_is_no_handshake_is_refused_with_an_alert() {
                let (tree, log) = (Tree::new(), LogSink::default());
                let running = run(site(&tree, &log));
                let ssl2 = b"\x80\x0b\x01\x00\x02\x00\x03\x00\x00\x00\x00\x01\x00\x80";
                for bytes in [&[0xff_u8; 40][..], ssl2, b"\x16\x03\x01\xff\xff", b"\x00\x00\x00"] {
                    let mut socket = TcpStream::connect(running.local_addr()).unwrap();
                    socket.write_all(bytes).unwrap();
                    let sent = all(socket);
                    assert!(sent.len() == 7 && sent.starts_with(&[21, 3]), "{bytes:?}: {sent:?}");
                }
                let mut config = client_config(&version::TLS13);
                config.alpn_protocols = vec![b"h2".to_vec()];
                let mut client = Client::connect(running.local_addr(), config);
                let error = client.tls.complete_io(&mut client.socket).unwrap_err();
                let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
                assert_eq!(error.into_inner().unwrap().downcast_ref::<Error>(), Some(&alert));
            }

            /// A peer that reads nothing blocks its own handshake only, which ends in time.
            #[test]
            fn a_handshake_that_is_blocked_by_a_full_socket() {
                let mut made: Vec<Made> = (0..60).map(|n| make(vec![format!("host{n}.example")])).collect();
                // A long chain, of which only the first counts.
                let first = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
                let mut chain = first.cert.pem();
                for one in &made {
                    let der = one.certificate.to_vec();
                    chain.push_str(&pem(&der));
                }
                made.clear();
                let key = first.signing_key.serialize_pem();
                let config = sanserve_tls::Config::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
                let (streams, channel) = Listener::channel().unwrap();
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let timeouts = Timeouts::default().with_handshake(Duration::from_millis(500));
                let site = site(&tree, &log).with_tls(config).with_config(Config::default().with_timeouts(timeouts));
                let running = Server::bind("127.0.0.1:0", site).unwrap().listen(channel).spawn().unwrap();
                let pair = || {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    set_socket_send_buffer_size(&theirs, 4_096).unwrap();
                    ours.set_read_timeout(Some(PATIENCE)).unwrap();
                    streams.send(theirs).unwrap();
                    ours
                };
                // It sends its hello and reads nothing until it is closed.
                let mut deaf = pair();
                deaf.write_all(&hello()).unwrap();
                let trusted = trusting(first.cert.der(), &version::TLS13);
                let mut client = Client::over(pair(), trusted);
                assert_eq!(client.get("/a").1, b"served", "it comes in pieces");
                ::std::thread::sleep(Duration::from_millis(600));
                let mut sent = Vec::new();
                deaf.read_to_end(&mut sent).unwrap();
                assert!((1..20_000).contains(&sent.len()), "{}", sent.len());
                drop(running);
            }

            /// A body that is cut off is never taken for complete, whether the end is announced or not.
            #[test]
            fn a_truncated_body() {
                let outcomes = Arc::new(Mutex::new(Vec::new()));
                let shared = Arc::clone(&outcomes);
                let handler = move || {
                    let outcomes = Arc::clone(&shared);
                    move |_: Call, reply: &mut Reply<'_>| -> Result<(), HandlerError> {
                        loop {
                            let n = match reply.receive() {
                                Received::Data(data) => data.len(),
                                Received::Pending => return Ok(()),
                                Received::End => {
                                    outcomes.lock().unwrap().push("end");
                                    return Ok(reply.answer(StatusCode::OK, "text/plain", b"all")?);
                                }
                                Received::Broken => {
                                    outcomes.lock().unwrap().push("broken");
                                    return Ok(());
                                }
                            };
                            reply.consume(n);
                        }
                    }
                };
                let running = run(Site::without_files().with_log(Log::quiet()).with_tls(config()).with_handler(handler));
                for announced in [true, false] {
                    let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
                    if announced {
                        client.tls.send_close_notify();
                        client.tls.write_tls(&mut client.socket).unwrap();
                    }
                    client.socket.shutdown(Shutdown::Write).unwrap();
                    let text = String::from_utf8(client.ends()).unwrap();
                    assert!(!text.starts_with("HTTP/1.1 200 "), "{text}");
                }
                assert!(!outcomes.lock().unwrap().contains(&"end"), "{outcomes:?}");
            }

            /// A client that has nothing more to ask still gets its response.
            #[test]
            fn half_closed() {
                let (tree, log) = (Tree::new(), LogSink::default());
                let large = pattern(2_000_000);
                tree.file("large", &large);
                let running = run(site(&tree, &log));
                for (version, announced) in VERSIONS.into_iter().flat_map(|version| [(version, true), (version, false)]) {
                    let mut client = Client::connect(running.local_addr(), client_config(version));
                    client.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    if announced {
                        client.tls.send_close_notify();
                        client.tls.write_tls(&mut client.socket).unwrap();
                    }
                    client.socket.shutdown(Shutdown::Write).unwrap();
                    assert!(client.response().1 == large);
                    assert!(client.ends().is_empty());
                }
            }

            #[test]
            fn sessions_are_resumed_and_certificates_replaced() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let tls = config();
                let identities = tls.identities().unwrap().clone();
                let running = run(site(&tree, &log).with_tls(tls));
                let config = Arc::new(client_config(&version::TLS13));
                for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
                    let mut client = Client::connect(running.local_addr(), Arc::clone(&config));
                    assert_eq!(client.get("/a").1, b"served");
                    assert_eq!(client.tls.handshake_kind(), Some(kind));
                }
                let mut old = Client::connect(running.local_addr(), Arc::clone(&config));
                assert_eq!(old.get("/a").1, b"served");
                let other = make(vec!["localhost".to_owned()]);
                identities.replace([other.identity.clone()]);
                let mut client =
                    Client::connect(running.local_addr(), trusting(&other.certificate, &version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                assert_eq!(old.get("/a").1, b"served", "an open connection keeps its own");
            }

            /// Another protocol is spoken over TLS too: what was read together with the request, and much at once.
            #[test]
            fn upgrades() {
                let site = Site::without_files().with_log(Log::quiet()).with_tls(config());
                let site = site.with_answer(|reply: &mut Reply<'_>| reply.upgrade("echo")?.send());
                let running = run(site.with_upgrade(|mut upgraded| {
                    assert!(upgraded.is_secured());
                    let mut all = vec![0; 1_000_005];
                    upgraded.read_exact(&mut all).unwrap();
                    upgraded.write_all(&all).unwrap();
                    upgraded.flush().unwrap();
                    assert_eq!(upgraded.read(&mut [0; 9]).unwrap(), 0, "the client has said goodbye");
                }));
                let sent = [b"early".to_vec(), pattern(1_000_000)].concat();
                for version in VERSIONS {
                    let mut client = Client::connect(running.local_addr(), client_config(version));
                    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
                    client.send([head.as_bytes(), b"early"].concat());
                    assert!(client.response().0.starts_with("HTTP/1.1 101 "));
                    client.send(&sent[5..]);
                    let mut got = vec![0; sent.len()];
                    let mut stream = sanserve_tls::rustls::Stream::new(&mut client.tls, &mut client.socket);
                    stream.read_exact(&mut got).unwrap();
                    assert!(got == sent);
                    client.tls.send_close_notify();
                    client.tls.write_tls(&mut client.socket).unwrap();
                    assert!(client.ends().is_empty());
                }
            }

            /// A recording holds plaintext and no secrets of TLS, and replays without TLS.
            #[test]
            fn recordings() {
                let (tree, log, folder) = (Tree::new(), LogSink::default(), Tree::new());
                tree.file("a", "served");
                let recording = Recording::to(folder.root(), Log::quiet()).unwrap();
                let running = run(site(&tree, &log).with_recording(recording.clone()));
                let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                assert!(client.get("/missing").0.starts_with("HTTP/1.1 404 "));
                running.shutdown().unwrap();
                assert!(recording.flush_within(PATIENCE));
                let file = ::std::fs::read_dir(folder.root()).unwrap().next().unwrap().unwrap().path();
                let text = ::std::fs::read_to_string(file).unwrap();
                assert!(text.contains(" handshake\n") && text.contains(" secured 1.3 sni localhost\n"), "{text}");
                let transcript = Transcript::parse(&text).unwrap();
                transcript.replay(&DefaultPolicy, &mut |_: Call, _: &mut Reply<'_>| Ok(())).unwrap();
            }

            /// The end of a connection is announced, when it was idle too.
            #[test]
            fn a_shutdown_says_goodbye() {
                let (tree, log) = (Tree::new(), LogSink::default());
                tree.file("a", "served");
                let running = run(site(&tree, &log));
                let mut client = Client::connect(running.local_addr(), client_config(&version::TLS13));
                assert_eq!(client.get("/a").1, b"served");
                running.shutdown().unwrap();
                assert!(client.ends().is_empty());
            }
        }
    )*};
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
            text.push(if at <= group.len() { digit } else { '=' });
        }
    }
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| ::std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

on_each_runtime! {
    mio sanserve_mio
    std sanserve_std
    smol sanserve_smol
}

//! The library as an embedder uses it: one suite, mounted once for each runtime's `Server`.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sanserve::core::{
    Authenticated, Call, Cgi, Config, Misuse, Received, Reply, Request, Route, Site, Status, Timeouts,
};
use sanserve::server::{Launcher, Log, ScriptRules, Service};
use tempfile::TempDir;
use testkit::Client;

/// Below `/api/` the handler answers, otherwise files do.
struct Api;

impl Site for Api {
    fn route(&self, request: &Request<'_>) -> Route {
        let handled = [&b"/api/"[..], b"/cgi-bin/handled"];
        if handled.iter().any(|start| request.path().starts_with(start)) { Route::Handler } else { Route::Files }
    }

    fn authenticated(&self, request: &Request<'_>) -> Option<Authenticated> {
        let (user, password) = request.basic_credentials()?;
        let is_right = user == b"ada" && password == b"Lovelace1815";
        is_right.then(|| Authenticated { scheme: "Basic".into(), user: "ada".into() })
    }

    fn server(&self) -> &str {
        "embedded/1"
    }
}

/// Answers by the path; echoes what is posted to `/api/echo`.
fn answer(call: Call, reply: &mut Reply<'_>) -> Result<(), Misuse> {
    match (call, reply.request().path()) {
        (Call::Over, _) => Ok(()),
        (_, b"/api/hello") => {
            reply.respond(Status::OK)?.field("Content-Type", "text/plain")?.length(5).send()?;
            reply.offer(b"hello")?;
            reply.finish()
        }
        (Call::Request, b"/api/later") => {
            let waker = reply.waker();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                waker.wake();
            });
            Ok(())
        }
        (_, b"/api/later") => reply.answer(Status::OK, "text/plain", "later"),
        (Call::Request, b"/api/echo") => {
            reply.respond(Status::OK)?.send()?;
            echo(reply)
        }
        (_, b"/api/echo") => echo(reply),
        (_, b"/api/file" | b"/cgi-bin/handled") => reply.pass(),
        (_, b"/api/teapot") => reply.error(Status::new(418).expect("three digits"), Some("Short <and> stout"), None),
        (Call::Request, b"/api/short") => {
            reply.respond(Status::OK)?.length(100_000).send()?;
            reply.offer(&[b'.'; 100_000]).map(|taken| assert!(taken < 100_000))
        }
        (_, b"/api/short") => reply.finish(),
        (_, b"/api/none") => {
            reply.respond(Status::OK)?.length(10).send()?;
            reply.finish()
        }
        (_, b"/api/misuse") => {
            assert_eq!(reply.respond(Status::OK)?.field("A", "b\r\nC: d").err(), Some(Misuse::Field));
            assert_eq!(reply.respond(Status::OK)?.field("Content-Length", "3").err(), Some(Misuse::Framing));
            assert_eq!(reply.offer(b"no head"), Err(Misuse::Order));
            assert_eq!(reply.respond(Status::CONTINUE).err(), Some(Misuse::Interim));
            reply.respond(Status::NO_CONTENT)?.send()?;
            assert_eq!(reply.respond(Status::OK).err(), Some(Misuse::Order));
            reply.finish()
        }
        _ => panic!("the handler fails, as it should in this test"),
    }
}

fn echo(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    loop {
        let data = match reply.receive() {
            Received::End => return reply.finish(),
            Received::Pending | Received::Broken => return Ok(()),
            Received::Data(data) => data.to_vec(),
        };
        match reply.offer(&data)? {
            0 => return Ok(()),
            taken => reply.consume(taken),
        }
    }
}

/// What every runtime's `Handle` can do.
struct Running {
    address: SocketAddr,
    shutdown: Box<dyn Fn() + Send>,
    stop: Box<dyn Fn() + Send>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
    log: Lines,
    _dir: TempDir,
}

impl Running {
    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Waits for the server to end; its log.
    fn ended(self) -> String {
        self.thread.join().expect("the server does not panic").expect("the server does not fail");
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const BIG: usize = 32 << 20;

fn service(grace: Duration) -> (Service, Lines, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "a file").unwrap();
    fs::create_dir(dir.path().join("api")).unwrap();
    fs::write(dir.path().join("api/file"), "passed").unwrap();
    fs::write(dir.path().join("big"), vec![b'b'; BIG]).unwrap();
    // A process of its own writes what is executed: a descriptor of ours could be inherited by what another test starts.
    let script = "printf 'Content-Type: text/plain\\n\\n%s %s' \"${AUTH_TYPE-nobody}\" \"${REMOTE_USER-}\"";
    let commands = "chmod 755 .; mkdir cgi-bin; cd cgi-bin; for name in who handled; do
        printf '#!/bin/sh\\n%s\\n' \"$1\" > $name; done
        printf '#!/bin/sh\\necho Location: /cgi-bin/who\\necho\\n' > moved; chmod 755 *";
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-ec", commands, "sh", script]).current_dir(dir.path());
    assert!(shell.status().unwrap().success());
    let log = Lines::default();
    let timeouts = Timeouts { script_silence: 50, ..Timeouts::default() };
    let config = Config { cgi: Cgi::python(), timeouts, ..Config::default() };
    let service = Service::new(dir.path())
        .unwrap()
        .with_site(Api)
        .with_config(config)
        .with_log(Log::to(log.clone()))
        .with_grace(grace)
        .with_handler(|| |call: Call, reply: &mut Reply<'_>| answer(call, reply).unwrap_or(()));
    (service, log, dir)
}

fn hello_error_and_pass(server: Running) {
    let mut client = server.client();
    for _ in 0..3 {
        let hello = client.get("/api/hello");
        assert_eq!((hello.status(), hello.body_text()), (200, "hello"));
        assert_eq!(hello.text("Server"), Some("embedded/1"));
        assert_eq!(client.get("/a.txt").body_text(), "a file");
        assert_eq!(client.get("/api/file").body_text(), "passed");
        let teapot = client.get("/api/teapot");
        assert_eq!(teapot.status(), 418);
        assert!(teapot.body_text().contains("<p>Message: Short &lt;and&gt; stout.</p>"));
        assert_eq!(client.get("/api/misuse").status(), 204);
    }
    (server.shutdown)();
    client.ends();
    server.ended();
}

fn a_script_is_told_whom_the_site_has_verified(server: Running) {
    if rustix::process::geteuid().is_root() && fs::File::open("/dev/tty").is_ok() {
        eprintln!("this is root at a terminal, which no script may share; nothing is tested");
        return;
    }
    let mut client = server.client();
    for path in ["/cgi-bin/who", "/cgi-bin/handled", "/cgi-bin/moved"] {
        for (credentials, expected) in [
            ("Basic YWRhOkxvdmVsYWNlMTgxNQ==", "Basic ada"),
            ("Basic YWRhOng=", "nobody "),
            ("Basic bWFsbG9yeTpMb3ZlbGFjZTE4MTU=", "nobody "),
            ("Bearer ada", "nobody "),
        ] {
            let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials}\r\n\r\n"));
            assert_eq!(answer.body_text(), expected, "{path} {credentials}");
        }
    }
    (server.shutdown)();
    client.ends();
    server.ended();
}

fn a_body_is_echoed_however_it_is_framed(server: Running) {
    let mut client = server.client();
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut chunked = b"POST /api/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7_001) {
        chunked.extend_from_slice(format!("{:x} ; ext = \"a;\\\"b\"\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nTrailer: t\r\n\r\n");
    let mut plain =
        format!("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    plain.extend_from_slice(&body);
    for request in [&chunked, &plain, &chunked] {
        let mut sender = client.twin();
        let request = request.clone();
        let sending = std::thread::spawn(move || sender.send(&request));
        let response = client.response();
        sending.join().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.body == body, "{} of {} bytes came back", response.body.len(), body.len());
    }
    let response = client.ask("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((response.status(), response.body.len()), (200, 0));
    (server.stop)();
    server.ended();
}

fn a_peer_that_waits_is_told_to_continue(server: Running) {
    let mut client = server.client();
    client.send("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 200, "the head of this echo goes first, and with it the wish to close");
    client.send("body");
    (server.stop)();
    server.ended();
}

fn a_handler_that_fails_takes_nobody_down(server: Running) {
    let mut other = server.client();
    assert_eq!(other.get("/a.txt").status(), 200);
    let mut client = server.client();
    let failed = client.get("/api/fails");
    assert_eq!(failed.status(), 500);
    assert!(failed.head.closes());
    client.ends();
    assert_eq!(server.client().get("/api/none").status(), 500, "nothing of it had gone out");
    let mut client = server.client();
    client.send("GET /api/short HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert!(client.rest_however().0.len() < 100_000, "an answer that is too short must not look complete");
    assert_eq!(other.get("/api/hello").body_text(), "hello");
    (server.shutdown)();
    let log = server.ended();
    assert!(log.contains("the handler panicked: the handler fails, as it should"), "{log}");
    assert!(log.contains("\"GET /api/fails HTTP/1.1\" 500"), "{log}");
    assert!(log.contains("bytes: the handler failed"), "{log}");
}

fn a_shutdown_finishes_what_is_in_hand(server: Running) {
    let mut idle = server.client();
    assert_eq!(idle.get("/a.txt").status(), 200);
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.head();
    assert_eq!(head.length(), Some(BIG as u64));
    (server.shutdown)();
    idle.ends();
    client.skip(BIG);
    client.ends();
    let log = server.ended();
    assert!(log.contains(&format!("\"GET /big HTTP/1.1\" 200 {BIG}")), "{log}");
    assert!(!log.contains("cut after"), "{log}");
}

fn the_bound_of_a_shutdown_holds(server: Running) {
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    (server.shutdown)();
    let log = server.ended();
    assert!(log.contains("bytes: the server shut down"), "{log}");
}

/// A handler has its time, whatever its peer has said of the connection, and all requests are answered.
fn a_half_close_is_no_farewell(server: Running) {
    let request = |fields: &str| format!("GET /api/later HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let clients = [
        ("GET /api/later HTTP/1.0\r\n\r\n".to_owned(), 1),
        (request("Connection: close\r\n"), 1),
        (request(""), 1),
        (request("").repeat(3), 3),
        (request("").repeat(2) + &request("Connection: close\r\n"), 3),
    ];
    let clients = clients.map(|(requests, answers)| {
        let mut client = Client::connect(server.address);
        client.send(&requests);
        client.half_close();
        (client, answers)
    });
    for (mut client, answers) in clients {
        for _ in 0..answers {
            assert_eq!(client.response().body, b"later");
        }
        client.ends();
    }
    (server.shutdown)();
    server.ended();
}

fn a_stop_cuts_at_once(server: Running) {
    let mut client = Client::connect_narrow(server.address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    (server.stop)();
    let log = server.ended();
    assert!(log.contains("bytes: the server shut down"), "{log}");
}

/// A program whose `main` has not called `Launcher::run_if_asked` would only do once more whatever it does.
#[test]
fn a_program_that_is_no_launcher_is_not_started_as_one() {
    let (service, log, _dir) = service(Duration::from_secs(20));
    let rules = ScriptRules { launcher: Launcher::Own, ..ScriptRules::default() };
    let server = sanserve::mio::Server::bind(([127, 0, 0, 1], 0).into(), service.with_scripts(rules)).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let thread = std::thread::spawn(move || server.run());
    assert_eq!(Client::connect(address).get("/cgi-bin/who").status(), 503);
    handle.shutdown();
    thread.join().unwrap().unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the program's main has not called Launcher::run_if_asked"), "{log}");
}

macro_rules! mount {
    ($($module:ident $runtime:ident)+) => { $(
        mod $module {
            use std::time::Duration;

            fn start(grace: Duration) -> super::Running {
                let (service, log, dir) = super::service(grace);
                let server = sanserve::$runtime::Server::bind(([127, 0, 0, 1], 0).into(), service).unwrap();
                let (address, handle, other) = (server.local_addr(), server.handle(), server.handle());
                super::Running {
                    address,
                    shutdown: Box::new(move || handle.shutdown()),
                    stop: Box::new(move || other.stop()),
                    thread: std::thread::spawn(move || server.run()),
                    log,
                    _dir: dir,
                }
            }

            mount!(@cases
                hello_error_and_pass 20_000
                a_script_is_told_whom_the_site_has_verified 20_000
                a_body_is_echoed_however_it_is_framed 20_000
                a_peer_that_waits_is_told_to_continue 20_000
                a_handler_that_fails_takes_nobody_down 20_000
                a_shutdown_finishes_what_is_in_hand 20_000
                the_bound_of_a_shutdown_holds 200
                a_stop_cuts_at_once 20_000
                a_half_close_is_no_farewell 20_000
            );
        }
    )+ };
    (@cases $($case:ident $grace:literal)+) => { $(
        #[test]
        fn $case() {
            super::$case(start(Duration::from_millis($grace)));
        }
    )+ };
}

mount!(on_mio mio on_std std on_smol smol);

//! The programs of `docs/handlers.md`, and the loop of `docs/from-tiny-http.md`: each is copied here literally, and is
//! run if it serves. The five programs of the latter page are run by `from_tiny_http.rs`.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use sanserve_server::{Log, Site};
use testkit::{Embedded, Tree, bound};

#[allow(dead_code, reason = "its `main` is not run")]
mod hello_portable {
    use sanserve_mio::{Server, Site, StatusCode};

    fn main() -> std::io::Result<()> {
        let site = Site::without_files().with_answer(|reply| reply.answer(StatusCode::OK, "text/plain", "hello\n"));
        Server::bind("127.0.0.1:8000", site)?.run()
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_answer(|reply| reply.answer(StatusCode::OK, "text/plain", "hello\n"))
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod hello_blocking {
    use sanserve_std::{Exchange, Server, Site, StatusCode};

    fn main() -> std::io::Result<()> {
        let hello = |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "hello\n");
        let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
        server.with_handler(move || hello).run()
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod tiny_http_loop {
    use sanserve_std::{Server, Site, StatusCode};

    fn main() -> std::io::Result<()> {
        for mut request in Server::bind("127.0.0.1:8000", Site::without_files())?.requests()? {
            let sent = match (request.method(), request.path()) {
                (b"GET", b"/") => request.answer(StatusCode::OK, "text/html", "<h1>Hello</h1>\n"),
                (b"POST", b"/count") => std::io::copy(&mut request, &mut std::io::sink())
                    .and_then(|n| request.answer(StatusCode::OK, "text/plain", format!("{n}\n"))),
                _ => request.error(StatusCode::NOT_FOUND, None),
            };
            if let Err(error) = sent {
                eprintln!("{error}");
            }
        }
        Ok(())
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod custom_portable {
    use sanserve_mio::{Misuse, Reply, Server, Site, StatusCode};

    const CUSTOM: StatusCode = StatusCode::new(999).expect("three digits");

    fn custom(reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match reply.request().method() {
            b"TEST" => {
                reply.close();
                reply.respond(StatusCode::NO_CONTENT)?.field("Content-Type", "text/html")?.send()?;
                reply.finish()
            }
            b"KEEP" => {
                reply.respond(StatusCode::NO_CONTENT)?.field("Content-Type", "text/html")?.send()?;
                reply.finish()
            }
            b"KEYERROR" => reply.error(CUSTOM, None, None),
            b"NOTFOUND" => reply.error(StatusCode::NOT_FOUND, None, None),
            b"EXPLAINERROR" => reply.error(CUSTOM, Some("Short Message"), Some("This is a long \n explanation")),
            b"CUSTOM" => {
                reply.close();
                reply.respond(CUSTOM)?.field("Content-Type", "text/html")?.length(0).send()?;
                reply.finish()
            }
            b"LATINONEHEADER" => {
                // Latin-1 is what the first 256 characters of Unicode are numbered by.
                let incoming = reply.request().field("X-Special-Incoming").unwrap_or_default();
                let body: String = incoming.iter().map(|&byte| char::from(byte)).collect();
                let special: Vec<u8> = "Dängerous Mind".chars().map(|c| c as u8).collect();
                reply.close();
                reply.respond(CUSTOM)?.field("X-Special", special)?.length(body.len() as u64).send()?;
                reply.write(body.as_bytes())?;
                reply.finish()
            }
            b"HEAD" | b"SEND_ERROR" => {
                let code = std::str::from_utf8(&reply.request().path()[1..]).ok().and_then(|code| code.parse().ok());
                reply.error(code.and_then(StatusCode::new).unwrap_or(StatusCode::NOT_FOUND), None, None)
            }
            _ => reply.error(StatusCode::NOT_IMPLEMENTED, None, None),
        }
    }

    fn main() -> std::io::Result<()> {
        let site = Site::without_files().with_answer(custom);
        Server::bind("127.0.0.1:8000", site)?.run()
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_answer(custom)
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod custom_blocking {
    use std::io::{self, Write};

    use sanserve_std::{Exchange, Handler, Server, Site, StatusCode};

    const CUSTOM: StatusCode = StatusCode::new(999).expect("three digits");

    struct Custom;

    impl Handler for Custom {
        fn do_head(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            let code = std::str::from_utf8(&x.path()[1..]).ok().and_then(|code| code.parse().ok());
            x.error(code.and_then(StatusCode::new).unwrap_or(StatusCode::NOT_FOUND), None, None)
        }

        fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            match x.method() {
                b"TEST" => {
                    x.close();
                    x.respond(StatusCode::NO_CONTENT)?.field("Content-Type", "text/html")?.send()
                }
                b"KEEP" => x.respond(StatusCode::NO_CONTENT)?.field("Content-Type", "text/html")?.send(),
                b"KEYERROR" => x.error(CUSTOM, None, None),
                b"NOTFOUND" => x.error(StatusCode::NOT_FOUND, None, None),
                b"EXPLAINERROR" => x.error(CUSTOM, Some("Short Message"), Some("This is a long \n explanation")),
                b"CUSTOM" => {
                    x.close();
                    x.respond(CUSTOM)?.field("Content-Type", "text/html")?.length(0).send()
                }
                b"LATINONEHEADER" => {
                    let incoming = x.field("X-Special-Incoming").unwrap_or_default();
                    let body: String = incoming.iter().map(|&byte| char::from(byte)).collect();
                    let special: Vec<u8> = "Dängerous Mind".chars().map(|c| c as u8).collect();
                    x.close();
                    x.respond(CUSTOM)?.field("X-Special", special)?.length(body.len() as u64).send()?;
                    x.write_all(body.as_bytes())
                }
                b"SEND_ERROR" => self.do_head(x),
                _ => x.unsupported(),
            }
        }
    }

    fn main() -> io::Result<()> {
        let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
        server.with_handler(|| Custom).run()
    }

    pub(super) fn handler() -> impl Handler {
        Custom
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod shout_portable {
    use sanserve_mio::{Call, Handler, HandlerError, Misuse, Received, Reply, Server, Site, StatusCode};

    #[derive(Default)]
    struct Shout(Vec<u8>);

    impl Shout {
        fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
            loop {
                match reply.receive() {
                    Received::Pending | Received::Broken => return Ok(()),
                    Received::End => {
                        let body = std::mem::take(&mut self.0);
                        return reply.answer(StatusCode::OK, "text/plain", body.to_ascii_uppercase());
                    }
                    Received::Data(data) => {
                        let n = data.len();
                        self.0.extend_from_slice(data);
                        reply.consume(n);
                    }
                }
            }
        }
    }

    impl Handler for Shout {
        fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
            if call == Call::Over {
                self.0.clear();
            } else {
                self.go_on(reply)?;
            }
            Ok(())
        }
    }

    fn main() -> std::io::Result<()> {
        let site = Site::without_files().with_handler(Shout::default);
        Server::bind("127.0.0.1:8000", site)?.run()
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_handler(Shout::default)
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod shout_blocking {
    use std::io::{self, Read};

    use sanserve_std::{Exchange, Server, Site, StatusCode};

    fn shout(x: &mut Exchange<'_>) -> io::Result<()> {
        let mut body = Vec::new();
        x.read_to_end(&mut body)?;
        x.answer(StatusCode::OK, "text/plain", body.to_ascii_uppercase())
    }

    fn main() -> io::Result<()> {
        let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
        server.with_handler(|| shout).run()
    }

    use sanserve_std::Handler;

    pub(super) fn handler() -> impl Handler {
        shout
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod decisions {
    use std::io::Write;

    use sanserve_mio::core::{Entry, Fields, scrub};
    use sanserve_mio::{Policy, Request, Server, Site, StatusCode};

    struct Mine;

    impl Policy for Mine {
        fn server(&self) -> &str {
            "Mine/1.0"
        }

        fn fields(&self, _: &Request<'_>, _: StatusCode, fields: &mut Fields<'_>) {
            let _ = fields.append("X-Frame-Options", b"DENY");
        }

        fn expect_continue(&self, _: &Request<'_>) -> Result<(), StatusCode> {
            Err(StatusCode::EXPECTATION_FAILED)
        }

        fn log(&self, entry: &Entry<'_>, time: &str, out: &mut Vec<u8>) {
            let _ = write!(out, "{time} {} {} {} ", entry.peer, entry.status, entry.sent);
            scrub(out, entry.line);
            out.push(b'\n');
        }
    }

    fn main() -> std::io::Result<()> {
        let site = Site::new(".")?.with_policy(Mine);
        Server::bind("127.0.0.1:8000", site)?.run()
    }

    pub(super) fn policy() -> impl Policy + Send + Sync {
        Mine
    }
}

mod parts_of_the_path {
    use sanserve_mio::{HandlerError, Reply, Site, StatusCode};

    fn answer(reply: &mut Reply<'_>, body: &[u8]) -> Result<(), HandlerError> {
        let request = reply.request();
        let path = std::str::from_utf8(request.path()).map_err(|_| StatusCode::NOT_FOUND)?;
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |text: &str| text.parse::<u64>().map_err(|_| StatusCode::NOT_FOUND);
        let text = match (request.method(), &parts[..]) {
            (b"GET", ["users"]) => "all users\n".to_owned(),
            (b"POST", ["users"]) => format!("a new user: {}\n", String::from_utf8_lossy(body)),
            (b"GET", ["users", id]) => format!("user {}\n", number(id)?),
            (b"GET", ["users", id, "photos", rest @ ..]) => {
                format!("photo {} of user {}\n", rest.join("/"), number(id)?)
            }
            (_, ["users", ..]) => return Err(StatusCode::METHOD_NOT_ALLOWED.into()),
            _ => return Err(StatusCode::NOT_FOUND.into()),
        };
        Ok(reply.answer(StatusCode::OK, "text/plain", text)?)
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_body_answer(65_536, answer)
    }
}

mod shout_small {
    use sanserve_mio::{Misuse, Reply, Site, StatusCode};

    fn shout(reply: &mut Reply<'_>, body: &[u8]) -> Result<(), Misuse> {
        reply.answer(StatusCode::OK, "text/plain", body.to_ascii_uppercase())
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_body_answer(65_536, shout)
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod hello_async {
    use sanserve_smol::{Exchange, Server, Site, StatusCode};

    fn main() -> std::io::Result<()> {
        let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
        let hello = async |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "hello\n");
        server.with_handler(move || hello).run()
    }
}

#[allow(dead_code, reason = "its `main` is not run")]
mod shout_async {
    use sanserve_smol::smol::io::AsyncReadExt;
    use sanserve_smol::{Exchange, Server, Site, StatusCode};

    async fn shout(x: &mut Exchange<'_>) -> std::io::Result<()> {
        let mut body = Vec::new();
        x.read_to_end(&mut body).await?;
        x.answer(StatusCode::OK, "text/plain", body.to_ascii_uppercase())
    }

    fn main() -> std::io::Result<()> {
        let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
        server.with_handler(|| shout).run()
    }

    use sanserve_smol::Handler;

    pub(super) fn handler() -> impl Handler {
        shout
    }
}

/// The lines of code in the tables of the pages, which only need to compile.
#[allow(dead_code, reason = "it is not run")]
mod tables {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::time::Duration;

    use sanserve_core as core;
    use sanserve_core::{Call, Cgi, Config, Protocol, Wall};
    use sanserve_mio::{Misuse, Received, Reply, Site, StatusCode};

    fn server(site: Site) -> io::Result<()> {
        let site = site.with_verify(|peer| peer.is_local()).with_grace(Duration::ZERO);
        let config = Config::default().with_protocol(Protocol::Http10);
        let cgi = Cgi::default().with_directories(["/cgi-bin"]);
        let site = site.with_config(config.with_cgi(cgi)).with_connections(1);
        let mut server = sanserve_std::Server::bind("127.0.0.1:0", site)?.workers(64);
        let _ = (server.local_addr(), server.server_name(), server.server_port());
        let _ = (server.handle_request(None)?, server.handle_request(Some(Duration::from_secs(5)))?);
        let handle = server.handle();
        handle.shutdown();
        handle.stop();
        let _ = (StatusCode::NOT_FOUND.phrase(), StatusCode::NOT_FOUND.explanation(), core::date_time_string(Wall(0)));
        server.one_at_a_time().run()
    }

    fn portable(call: Call, reply: &mut Reply<'_>, file: File, len: u64) -> Result<(), Misuse> {
        let request = reply.request();
        let _ = (request.peer().ip(), request.peer().port(), request.line(), request.method(), request.target());
        let _ = (request.path(), request.query(), request.query_pairs(), request.version(), request.field("X-A"));
        let _ = (request.fields(), request.content_length(), reply.waker(), call);
        if let Received::Data(data) = reply.receive() {
            let n = data.len();
            reply.consume(n);
        }
        let _ = reply.trailers().count();
        reply.close();
        let head = reply.respond(StatusCode::OK)?;
        head.reason("Fine")?.field("X-A", "1")?.length(1).send()?;
        reply.inform(StatusCode::EARLY_HINTS)?.send()?;
        reply.write(b"data")?;
        reply.attach_file(file);
        reply.offer_file(0, len)?;
        reply.finish()?;
        reply.answer(StatusCode::OK, "text/html", "page")?;
        reply.error(StatusCode::NOT_FOUND, None, None)?;
        reply.error(StatusCode::NOT_IMPLEMENTED, Some("Unsupported method ('PUT')"), None)?;
        reply.upgrade("websocket")?.send()?;
        reply.decline()?;
        reply.abort();
        Ok(())
    }

    fn blocking(x: &mut sanserve_std::Exchange<'_>, file: File, len: u64) -> io::Result<()> {
        let (mut buffer, mut body) = ([0; 10], Vec::new());
        let _ = (x.peer(), x.method(), x.target(), x.path(), x.query(), x.field("X-A"));
        let request = x.request();
        let _ = (request.line(), request.query_pairs(), request.version(), request.fields(), request.content_length());
        let _ = (x.read(&mut buffer)?, x.read_to_end(&mut body)?, x.trailers());
        x.close();
        x.respond(StatusCode::OK)?.reason("Fine")?.field("X-A", "1")?.length(1).send()?;
        x.inform(StatusCode::EARLY_HINTS)?.send()?;
        x.write_all(b"data")?;
        x.flush()?;
        x.send_file(&file, 0..len)?;
        x.finish()?;
        x.answer(StatusCode::OK, "text/html", "page")?;
        x.error(StatusCode::NOT_FOUND, None, None)?;
        let (_socket, _read) = x.upgrade("websocket", &[])?.into_tcp().expect("it is TCP");
        x.log(format_args!("{len} items"));
        x.decline()?;
        x.unsupported()
    }

    async fn asynchronous(x: &mut sanserve_smol::Exchange<'_>, file: File) -> io::Result<()> {
        use smol::io::{AsyncReadExt, AsyncWriteExt};
        let (mut buffer, mut body) = ([0; 10], Vec::new());
        let _ = (x.peer(), x.method(), x.target(), x.path(), x.query(), x.field("X-A"));
        let request = x.request();
        let _ = (request.line(), request.query_pairs(), request.version(), request.fields(), request.content_length());
        let _ = (x.read(&mut buffer).await?, x.read_to_end(&mut body).await?);
        let _ = x.trailers().count();
        sanserve_smol::Exchange::close(x);
        x.respond(StatusCode::OK)?.reason("Fine")?.field("X-A", "1")?.length(1).send()?;
        x.inform(StatusCode::EARLY_HINTS)?.send()?;
        x.write_all(b"data").await?;
        x.flush().await?;
        x.send_file(file, ..).await?;
        x.finish().await?;
        x.answer(StatusCode::OK, "text/html", "page")?;
        x.error(StatusCode::NOT_FOUND, None, None)?;
        let (_socket, _read) = x.upgrade("websocket", &[]).await?.into_tcp().expect("it is TCP");
        x.log(format_args!("items"));
        x.decline()?;
        x.unsupported()
    }

    fn http(reply: &mut Reply<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let request = http::Request::try_from(reply.request())?;
        Ok(reply.answer_http(http::Response::new(request.uri().to_string()))?)
    }
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A site on mio.
fn portable(site: Site) -> Embedded {
    Embedded::start(Tree::new(), |_, log| bound!(sanserve_mio::Server::bind(ANY, site.with_log(Log::to(log))).unwrap()))
}

/// A site on threads.
fn blocking_service(site: Site) -> Embedded {
    Embedded::start(Tree::new(), |_, log| bound!(sanserve_std::Server::bind(ANY, site.with_log(Log::to(log))).unwrap()))
}

/// A site on smol.
fn asynchronous_service(site: Site) -> Embedded {
    Embedded::start(Tree::new(), |_, log| {
        bound!(sanserve_smol::Server::bind(ANY, site.with_log(Log::to(log))).unwrap())
    })
}

/// A blocking handler.
fn blocking<H: sanserve_std::Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Embedded {
    Embedded::start(Tree::new(), |_, log| {
        let site = Site::without_files().with_log(Log::to(log));
        bound!(sanserve_std::Server::bind(ANY, site).unwrap().with_handler(make))
    })
}

/// An asynchronous handler.
fn asynchronous<H: sanserve_smol::Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Embedded {
    Embedded::start(Tree::new(), |_, log| {
        let site = Site::without_files().with_log(Log::to(log));
        bound!(sanserve_smol::Server::bind(ANY, site).unwrap().with_handler(make))
    })
}

/// All bytes sent for requests without fields; the last request closes the connection.
fn sent(server: &Embedded, requests: &[(&str, &str)]) -> String {
    let mut client = server.connect();
    for (at, (method, target)) in requests.iter().enumerate() {
        let close = if at + 1 == requests.len() { "Connection: close\r\n" } else { "" };
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{close}\r\n"));
    }
    String::from_utf8(client.rest()).unwrap()
}

/// What `test_httpservers.py` expects of its methods, as far as sanserve agrees (`docs/python.md`).
fn check_custom(server: Embedded) {
    let all = sent(&server, &[("KEEP", "/"), ("KEEP", "/"), ("TEST", "/")]);
    assert_eq!(all.matches("HTTP/1.1 204 No Content\r\n").count(), 3, "{all}");
    assert_eq!((all.matches("\r\nContent-Type: text/html\r\n").count(), all.matches("Connection:").count()), (3, 1));
    // The method itself closes the connection: what comes after it is not answered.
    let all = sent(&server, &[("TEST", "/"), ("KEEP", "/")]);
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    let all = sent(&server, &[("CUSTOM", "/"), ("KEEP", "/")]);
    assert!(all.starts_with("HTTP/1.1 999 ???\r\n") && all.matches("HTTP/1.1 ").count() == 1, "{all}");
    assert!(sent(&server, &[("KEYERROR", "/")]).starts_with("HTTP/1.1 999 ???\r\n"));
    assert!(sent(&server, &[("NOTFOUND", "/")]).starts_with("HTTP/1.1 404 Not Found\r\n"));
    let page = sent(&server, &[("EXPLAINERROR", "/")]);
    assert!(page.starts_with("HTTP/1.1 999 Short Message\r\n"), "{page}");
    assert!(page.contains("999 - This is a long \u{fffd} explanation."), "{page}");
    for code in [204, 205, 304, 404, 200] {
        for method in ["HEAD", "SEND_ERROR"] {
            let answer = sent(&server, &[(method, &format!("/{code}"))]);
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
            let is_empty = method == "HEAD" || [204, 205, 304].contains(&code);
            assert_eq!(answer.ends_with("\r\n\r\n"), is_empty, "{answer}");
        }
    }
    let mut client = server.connect();
    client.send(b"LATINONEHEADER / HTTP/1.1\r\nHost: a\r\nX-Special-Incoming: \xc4rger mit Unicode\r\n\r\n");
    let all = client.rest();
    let has = |text: &[u8]| all.windows(text.len()).any(|window| window == text);
    assert!(has(b"\r\nX-Special: D\xe4ngerous Mind\r\n"), "{}", all.escape_ascii());
    assert!(all.ends_with("\r\n\r\nÄrger mit Unicode".as_bytes()), "{}", all.escape_ascii());
    let log = server.end();
    assert!(log.contains("] code 999, message Short Message\n"), "{log}");
    assert!(log.contains("] \"EXPLAINERROR / HTTP/1.1\" 999 "), "{log}");
}

#[test]
fn the_methods_of_cpythons_tests() {
    check_custom(portable(custom_portable::site()));
    check_custom(blocking(custom_blocking::handler));
}

#[test]
fn bodies_are_read() {
    for (colour, server) in [
        ("portable", portable(shout_portable::site())),
        ("blocking", blocking(shout_blocking::handler)),
        ("async", asynchronous(shout_async::handler)),
    ] {
        let mut client = server.connect();
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
            thread::sleep(Duration::from_millis(10));
            client.send("4\r\ndefg\r\n0\r\n\r\n");
            assert_eq!(client.response().body_text(), "ABCDEFG", "{colour}");
        }
        server.end();
    }
}

#[test]
fn hello() {
    let server = portable(hello_portable::site());
    assert_eq!(server.connect().get("/").body_text(), "hello\n");
    server.end();
}

#[test]
fn the_policy_decides() {
    let server = portable(shout_portable::site().with_policy(decisions::policy()));
    let mut client = server.connect();
    let refused = client.ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(refused.status(), 417);
    assert_eq!((refused.text("Server"), refused.text("X-Frame-Options")), (Some("Mine/1.0"), Some("DENY")));
    let log = server.end();
    assert!(log.contains(" 127.0.0.1 417 ") && log.ends_with(" POST /x HTTP/1.1\n"), "{log}");
}

mod ends_portable {
    use std::task::Waker;

    use sanserve_mio::{Call, Handler, HandlerError, Reply, Site, StatusCode};

    #[derive(Default)]
    struct LongPoll(Option<Waker>);

    impl LongPoll {
        fn wait_for_news(&mut self, waker: Waker) {
            self.0 = Some(waker);
        }
    }

    impl Handler for LongPoll {
        // Portable, on every runtime: an extra call, once per exchange.
        fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
            match call {
                Call::Request => self.wait_for_news(reply.waker()),
                Call::Drain => reply.answer(StatusCode::OK, "text/plain", "no news\n").expect("the first answer"),
                _ => {}
            }
            Ok(())
        }
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_handler(LongPoll::default)
    }
}

mod ends_blocking {
    use std::io::{self, Write};
    use std::time::Duration;

    use sanserve_std::{Exchange, StatusCode};

    pub(super) fn events(x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?;
        x.flush()?;
        // Blocking: use this instead of a sleep.
        let draining = x.draining();
        while !draining.wait(Duration::from_secs(1)) {
            write!(x, "data: tick\n\n")?;
            x.flush()?;
        }
        Ok(())
    }
}

mod ends_asynchronous {
    use std::io;

    use sanserve_smol::{Exchange, StatusCode};
    use smol::io::AsyncWriteExt;

    pub(super) async fn poll(x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()?;
        x.flush().await?;
        let next_event = smol::future::pending();
        // Async: race this future with the event that it waits for.
        smol::future::or(next_event, x.draining().begun()).await;
        Ok(())
    }
}

mod fails_portable {
    use sanserve_mio::{HandlerError, Reply, Site, StatusCode};

    fn double(reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        if reply.request().method() != b"GET" {
            return Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET")?);
        }
        let number = reply.request().query().ok_or(StatusCode::BAD_REQUEST)?;
        let number = std::str::from_utf8(number).map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
        let number: u32 = number.parse().map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
        Ok(reply.answer(StatusCode::OK, "text/plain", (u64::from(number) * 2).to_string())?)
    }

    pub(super) fn site() -> Site {
        Site::without_files().with_answer(double)
    }
}

mod fails_blocking {
    use std::io;

    use sanserve_mio::HandlerError;
    use sanserve_std::{Exchange, StatusCode};

    pub(super) fn double(x: &mut Exchange<'_>) -> io::Result<()> {
        if x.method() != b"GET" {
            return Err(HandlerError::new(StatusCode::METHOD_NOT_ALLOWED).with_field("Allow", "GET")?.into());
        }
        let number = x.query().ok_or(StatusCode::BAD_REQUEST)?;
        let number = std::str::from_utf8(number).map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
        let number: u32 = number.parse().map_err(|error| StatusCode::BAD_REQUEST.because(error))?;
        x.answer(StatusCode::OK, "text/plain", (u64::from(number) * 2).to_string())
    }
}

/// The error of a handler is a status, with its reason in the log.
#[test]
fn errors_are_statuses() {
    let doubles = |server: Embedded| {
        let mut client = server.connect();
        assert_eq!(client.get("/?21").body_text(), "42");
        assert_eq!((client.get("/").status(), client.get("/?a").status()), (400, 400));
        let page = client.ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((page.status(), page.text("Allow")), (405, Some("GET")));
        server.shutdown();
        let log = server.ended();
        let line = "\"GET /?a HTTP/1.1\": the handler failed: invalid digit found in string\n";
        assert_eq!(log.matches(line).count(), 1, "{log}");
    };
    doubles(portable(fails_portable::site()));
    doubles(blocking_service(fails_portable::site()));
    doubles(asynchronous_service(fails_portable::site()));
    doubles(blocking(|| fails_blocking::double));
}

/// Handlers that wait are notified when the server shuts down, and end well before the grace has passed.
#[test]
fn waiting_handlers_end_in_time() {
    ends(portable(ends_portable::site()), 200);
    ends(blocking_service(ends_portable::site()), 200);
    ends(asynchronous_service(ends_portable::site()), 200);
    ends(blocking(|| ends_blocking::events), 200);
    ends(asynchronous(|| ends_asynchronous::poll), 200);
}

fn ends(server: Embedded, status: u16) {
    let (mut first, mut second) = (server.connect(), server.connect());
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    first.send(request);
    second.send(request);
    let start = std::time::Instant::now();
    server.shutdown();
    assert_eq!((first.response().status(), second.response().status()), (status, status));
    first.ends();
    server.ended();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Each program of the pages is contained in this file.
#[test]
fn the_programs_of_the_pages_are_tested() {
    let bare = |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let here = bare(include_str!("docs_handlers.rs"));
    for page in [include_str!("../docs/handlers.md"), include_str!("../docs/from-tiny-http.md")] {
        // What follows is tested elsewhere.
        let page = page.split("## Five programs").next().unwrap().split("## What the compiler says").next().unwrap();
        let blocks: Vec<&str> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!blocks.is_empty(), "the page contains programs");
        for block in blocks {
            let block = bare(block);
            assert!(here.contains(&block), "not tested:\n{block}");
        }
    }
}

#[test]
fn parts_of_the_path_are_matched() {
    let server = portable(parts_of_the_path::site());
    let mut client = server.connect();
    for (path, status, text) in [
        ("/users", 200, "all users\n"),
        ("/users/7", 200, "user 7\n"),
        ("/users/7/photos/a/b", 200, "photo a/b of user 7\n"),
        ("/users/x", 404, ""),
        ("/users/7/other", 405, ""),
        ("/", 404, ""),
    ] {
        let response = client.get(path);
        assert_eq!(response.status(), status, "{path}");
        assert!(response.body_text() == text || text.is_empty(), "{path}: {response:?}");
    }
    let post = "POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nAda";
    assert_eq!(client.ask(post).body_text(), "a new user: Ada\n");
    server.end();
    let server = portable(shout_small::site());
    assert_eq!(server.connect().ask(post).body_text(), "ADA");
    server.end();
}

/// What the table of `from-tiny-http.md` says of the loop over requests.
#[test]
fn the_calls_of_the_loop_in_the_table_of_tiny_http() {
    use sanserve_std::{IncomingRequest, Server, StatusCode};
    use std::fs::File;
    use std::io::{self, Write};

    fn answer(mut request: IncomingRequest) -> io::Result<()> {
        match request.path() {
            b"/head" => {
                let all = request.request();
                let (fields, length) = (all.fields().count(), all.content_length());
                let first = all.query_pairs().next().map(|(name, value)| format!("{name} {value}"));
                let text = format!("{fields} {length:?} {first:?} {}", String::from_utf8_lossy(all.version()));
                request.answer(StatusCode::OK, "text/plain; charset=utf-8", text)
            }
            b"/file" => request.respond(StatusCode::OK).file(File::open("Cargo.toml")?),
            b"/empty" => request.respond(StatusCode::NO_CONTENT).body(""),
            b"/parts" => {
                let status = StatusCode::new(299).expect("three digits");
                let mut writer = request.respond(status).field("X-A", "1")?.length(4).writer()?;
                io::copy(&mut &b"text"[..], &mut writer)?;
                writer.finish()
            }
            b"/stream" => {
                let mut writer = request.respond(StatusCode::OK).writer()?;
                writer.write_all(b"streamed")?;
                writer.finish()
            }
            b"/exchange" => {
                let n = request.with_exchange(|x| {
                    x.tag("seen");
                    Ok(7)
                })?;
                request.answer(StatusCode::OK, "text/plain", n.to_string())
            }
            _ => Ok(()),
        }
    }

    let server = Server::bind("127.0.0.1:0", Site::without_files().with_log(Log::quiet())).unwrap();
    let requests = server.requests().unwrap();
    let mut client = testkit::Client::connect(requests.local_addr());
    thread::scope(|scope| {
        scope.spawn(|| requests.into_iter().take(7).for_each(|request| answer(request).unwrap()));
        assert_eq!(client.get("/head?a=b").body_text(), "1 None Some(\"a b\") HTTP/1.1");
        assert!(client.get("/file").body_text().contains("[package]"));
        let empty = client.get("/empty");
        assert_eq!((empty.status(), empty.body.len(), empty.text("Content-Length")), (204, 0, None));
        let parts = client.get("/parts");
        assert_eq!((parts.status(), parts.text("X-A"), parts.body_text()), (299, Some("1"), "text"));
        assert_eq!(client.get("/stream").body_text(), "streamed");
        assert_eq!(client.get("/exchange").body_text(), "7");
        assert_eq!(client.get("/dropped").status(), 500);
    });
}

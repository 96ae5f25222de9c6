//! Methods, heads, and responses of all kinds.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use sanserve_core::{Config, DefaultPolicy, Policy, Protocol, Request};
use sanserve_std::{Exchange, Handler, Misuse, ResponseHead, Site, StatusCode};

use crate::support::{request, run};
use crate::{answer_with, ask, serve};

/// The methods of Python's own tests, with a count of the requests on the connection.
struct Methods(u32);

impl Handler for Methods {
    fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.0 += 1;
        x.answer(StatusCode::OK, "text/plain", format!("GET {}", self.0))
    }

    fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.answer(StatusCode::OK, "text/plain", "POST")
    }

    fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        match x.method() {
            b"SPAM" => x.answer(StatusCode::OK, "text/plain", "SPAM"),
            _ => x.unsupported(),
        }
    }
}

#[test]
fn methods_are_dispatched_and_others_are_not_implemented() {
    let server = serve(|| Methods(0));
    for _ in 0..2 {
        let mut client = server.connect();
        assert_eq!(client.get("/").body, b"GET 1");
        client.send(ask("HEAD", "/", ""));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200") && head.length() == Some(5), "{head}");
        client.send(ask("POST", "/", "Content-Length: 3\r\n"));
        client.send("abc");
        assert_eq!(client.response().body, b"POST", "a body that is not read is discarded");
        client.send(ask("SPAM", "/", ""));
        assert_eq!(client.response().body, b"SPAM");
        client.send(ask("PUT", "/", "Content-Length: 0\r\n"));
        let refused = client.response();
        assert!(refused.head.starts_with("HTTP/1.1 501 Unsupported method ('PUT')\r\n"), "{}", refused.head);
        assert_eq!(client.get("/").body, b"GET 3", "each connection has its own handler");
    }
    assert!(server.end().contains("code 501, message Unsupported method ('PUT')"));
}

#[test]
fn methods_without_an_override_are_not_implemented() {
    struct Nothing;
    impl Handler for Nothing {}
    let server = serve(|| Nothing);
    let mut client = server.connect();
    for method in ["GET", "POST", "OPTIONS"] {
        client.send(ask(method, "/a.txt", ""));
        assert_eq!(client.response().status(), 501);
    }
}

#[test]
fn some_responses_have_no_body() {
    let server = answer_with(|x| {
        let code = x.path()[1..].utf8_chunks().next().and_then(|text| text.valid().parse().ok()).unwrap();
        x.respond(StatusCode::new(code).unwrap())?.send()?;
        x.write_all(b"dropped")
    });
    for protocol in ["1.1", "1.0"] {
        let mut client = server.connect();
        for code in [204, 304] {
            client.send(format!("GET /{code} HTTP/{protocol}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"));
            let head = client.head();
            assert!(head.starts_with(&format!("HTTP/1.1 {code} ")) && !head.contains("Length"), "{head}");
            assert!(!head.contains("Transfer-Encoding"), "{head}");
        }
        client.send(request("/205"));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 205 "), "{head}");
        assert_eq!(client.rest_however().0, b"");
    }
    let mut client = server.connect();
    client.send(ask("GET", "/204", "Connection: close\r\n"));
    assert!(client.head().contains("\r\nConnection: close\r\n"));
    assert_eq!(client.rest_however().0, b"");
}

#[test]
fn error_pages_contain_the_texts_of_the_handler() {
    let server = answer_with(|x| match x.path() {
        b"/999" => x.error(StatusCode::new(999).unwrap(), Some("short"), Some("<long>")),
        b"/404" => x.error(StatusCode::NOT_FOUND, None, None),
        _ => x.error(StatusCode::NOT_MODIFIED, None, None),
    });
    let mut client = server.connect();
    let odd = client.get("/999");
    assert!(odd.head.starts_with("HTTP/1.1 999 short\r\n"), "{}", odd.head);
    let page = odd.body_text();
    assert!(page.contains("Message: short") && page.contains("999 - &lt;long&gt;"), "{page}");
    assert!(client.get("/404").body_text().contains("Nothing matches the given URI"));
    client.send(request("/304"));
    assert!(client.head().starts_with("HTTP/1.1 304 "));
    drop(client);
    assert!(server.end().contains("code 999, message short\n"));
}

#[test]
fn fields_are_bytes_in_both_directions() {
    let server = answer_with(|x| {
        let given = x.field("x-given").unwrap_or_default().to_vec();
        assert_eq!(x.query(), Some(&b"q"[..]));
        assert_eq!(x.target(), b"/p?q");
        assert_eq!(x.peer().to_string(), "127.0.0.1");
        assert_eq!(x.request().version(), b"HTTP/1.1");
        x.respond(StatusCode::OK)?.reason("Fine so far")?.field("X-Taken", given)?.length(0).send()
    });
    let mut client = server.connect();
    client.send(b"GET /p?q HTTP/1.1\r\nHost: x\r\nX-Given: \xe9t\xe9\r\n\r\n");
    assert_eq!(client.take(26), b"HTTP/1.1 200 Fine so far\r\n");
    client.half_close();
    let head = client.rest_however().0;
    assert!(head.windows(16).any(|part| part == b"\r\nX-Taken: \xe9t\xe9\r\n"), "{}", head.escape_ascii());
}

#[test]
fn misuse_is_an_error_and_is_not_sent() {
    fn misuse<T>(outcome: io::Result<T>) -> Misuse {
        let error = outcome.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        *error.get_ref().unwrap().downcast_ref().unwrap()
    }
    let server = answer_with(|x| {
        assert_eq!(misuse(x.write_all(b"early")), Misuse::HeadOrder);
        assert_eq!(misuse(x.respond(StatusCode::CONTINUE)), Misuse::Interim);
        assert_eq!(misuse(x.inform(StatusCode::OK)), Misuse::Interim);
        assert_eq!(misuse(x.respond(StatusCode::OK)?.field("A", "b\r\nC: d")), Misuse::Field);
        assert_eq!(misuse(x.respond(StatusCode::OK)?.field("Content-Length", "1")), Misuse::ReservedHeader);
        assert_eq!(misuse(x.respond(StatusCode::OK)?.reason("a\nb")), Misuse::Field);
        assert_eq!(misuse(x.upgrade("echo", &[])), Misuse::Upgrade);
        x.respond(StatusCode::OK)?.length(2).send()?;
        assert_eq!(misuse(x.respond(StatusCode::OK)), Misuse::HeadOrder);
        assert_eq!(misuse(x.decline()), Misuse::HeadOrder);
        assert_eq!(misuse(x.trailer("A", "b")), Misuse::ReservedHeader);
        x.write_all(b"ok")?;
        assert_eq!(misuse(x.write_all(b"more")), Misuse::LengthMismatch);
        x.finish()?;
        assert_eq!(misuse(x.write_all(b"late")), Misuse::ExchangeEnded);
        Ok(())
    });
    let mut client = server.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").body, b"ok");
    }
}

#[test]
fn a_prepared_head_can_be_sent_many_times() {
    let hint = ResponseHead::new(StatusCode::EARLY_HINTS).field("Link", "</a.css>; rel=preload").unwrap();
    let teapot = StatusCode::new(418).unwrap();
    let head = ResponseHead::new(teapot).reason("Short").unwrap().field("X-A", "1").unwrap().length(2);
    let server = serve(move || {
        let (hint, head) = (hint.clone(), head.clone());
        move |x: &mut Exchange<'_>| {
            for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS] {
                assert_eq!(x.send_head(&ResponseHead::new(status)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            }
            x.send_head(&hint)?;
            x.send_head(&head)?;
            assert!(x.send_head(&head).is_err() && x.send_head(&hint).is_err());
            x.write_all(b"ok")
        }
    });
    testkit::handlers::check_prepared_heads(&mut server.connect());
}

#[test]
fn a_complete_body_of_any_length_is_sent_with_fields() {
    let server = answer_with(|x| {
        let large = vec![b'x'; 3_000_000];
        for refused in
            [x.respond(StatusCode::OK)?.length(1).body(&large), x.inform(StatusCode::EARLY_HINTS)?.body(&large)]
        {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        match x.path() {
            b"/made" => x.send_response(&ResponseHead::new(StatusCode::CREATED).field("X-A", "1")?, large),
            _ => x.respond(StatusCode::OK)?.field("X-A", "1")?.body(large),
        }
    });
    testkit::handlers::check_large_bodies(&mut server.connect());
}

#[test]
fn an_interim_response_is_sent_immediately() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let server = serve(move || {
        let wait = wait.clone();
        move |x: &mut Exchange<'_>| {
            x.inform(StatusCode::EARLY_HINTS)?.field("Link", "</a.css>; rel=preload")?.send()?;
            wait.lock().unwrap().recv().unwrap();
            x.answer(StatusCode::OK, "text/plain", "done")
        }
    });
    let mut client = server.connect();
    client.send(request("/"));
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    go.send(()).unwrap();
    assert_eq!(client.response().body, b"done");
    go.send(()).unwrap();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status(), 200, "HTTP/1.0 clients get no interim response");
}

#[test]
fn parts_of_files_are_sent_between_other_bytes() {
    for len in [10_u64, 3_000_000] {
        let server = run(
            |site| site,
            |server| {
                server.with_handler(move || {
                    move |x: &mut Exchange<'_>| {
                        let mut file = tempfile::tempfile()?;
                        let content: Vec<u8> = (0..len).map(|n| ((n * n) >> 3) as u8).collect();
                        file.write_all(&content)?;
                        let head = x.respond(StatusCode::OK)?;
                        let head = if head_has_length(len) { head.length(2 * len + 1) } else { head };
                        head.send()?;
                        x.send_file(&file, 3..len)?;
                        x.send_file(&file, 0..3)?;
                        x.write_all(b"-")?;
                        assert!(x.send_file(&file, 1..len + 1).is_err(), "the range exceeds the file");
                        x.send_file(&file, 5..5)?;
                        x.send_file(&File::open("/dev/null")?, 0..0)?;
                        x.send_file(&file, 0..len)
                    }
                })
            },
        );
        let content: Vec<u8> = (0..len).map(|n| ((n * n) >> 3) as u8).collect();
        let mut client = server.connect();
        for _ in 0..2 {
            let body = if head_has_length(len) {
                client.get("/").body
            } else {
                client.send(request("/"));
                client.head();
                client.chunks().0
            };
            let expected = [&content[3..], &content[..3], b"-", &content].concat();
            assert!(body == expected, "{} bytes", body.len());
            client.send(ask("HEAD", "/", ""));
            client.head();
        }
    }
}

fn head_has_length(len: u64) -> bool {
    len > 10
}

#[test]
fn declined_requests_are_answered_by_the_files() {
    let server = answer_with(|x| match x.path() {
        b"/own" => x.answer(StatusCode::OK, "text/plain", "own"),
        _ => x.decline(),
    });
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/a.txt").body, b"hello\n");
        assert_eq!(client.get("/own").body, b"own");
        assert_eq!(client.get("/none").status(), 404);
    }
}

#[test]
fn the_order_of_building_does_not_matter_and_the_policy_routes() {
    struct Files;
    impl Policy for Files {
        fn route(&self, request: &Request<'_>) -> sanserve_core::Route {
            if request.path() == b"/a.txt" { sanserve_core::Route::Files } else { sanserve_core::Route::Usual }
        }
    }
    let portable = |site: Site| site.with_answer(|reply| reply.answer(StatusCode::OK, "text/plain", "portable"));
    let blocking = || |x: &mut Exchange<'_>| x.answer(StatusCode::OK, "text/plain", "blocking");
    let server = run(
        |site| portable(site.with_policy(Files)),
        |server| {
            drop(server.handle());
            server.with_handler(|| |x: &mut Exchange<'_>| x.unsupported()).with_handler(blocking).workers(2)
        },
    );
    let mut client = server.connect();
    assert_eq!(client.get("/").body, b"blocking");
    assert_eq!(client.get("/a.txt").body, b"hello\n");
    let server = run(|site| portable(site.with_policy(DefaultPolicy)), |server| server.one_at_a_time());
    assert_eq!(server.connect().get("/a.txt").body, b"portable");
}

#[test]
fn http_1_0_closes_where_http_1_1_continues() {
    let answer = |x: &mut Exchange<'_>| {
        x.respond(StatusCode::OK)?.send()?;
        x.write_all(b"to the end")
    };
    let server = run(
        |site| site.with_config(Config::default().with_protocol(Protocol::Http10)),
        |server| server.with_handler(move || answer),
    );
    let mut client = server.connect();
    client.send(request("/"));
    assert!(client.head().starts_with("HTTP/1.0 200"));
    assert_eq!(client.rest_however().0, b"to the end");
    let server = serve(move || answer);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(request("/"));
        client.head();
        assert_eq!(client.chunks().0, b"to the end");
    }
    let server = answer_with(|x| {
        x.close();
        x.answer(StatusCode::OK, "text/plain", "last")
    });
    let mut client = server.connect();
    let last = client.get("/");
    assert!(last.head.contains("\r\nConnection: close\r\n") && client.ended());
}

#[test]
fn one_function_may_respond_to_all_connections() {
    let count = AtomicUsize::new(0);
    let server = run(
        |site| site,
        |server| {
            server.with_fn(move |x| {
                let text = format!("{} {}", String::from_utf8_lossy(x.method()), count.fetch_add(1, Ordering::Relaxed));
                x.answer(StatusCode::OK, "text/plain", text)
            })
        },
    );
    assert_eq!(server.connect().get("/").body_text(), "GET 0");
    assert_eq!(server.connect().ask("FOO / HTTP/1.1\r\nHost: x\r\n\r\n").body_text(), "FOO 1");
}

#[test]
fn each_common_method_has_a_method_of_the_trait() {
    struct Named;
    impl Handler for Named {
        fn do_put(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "put")
        }
        fn do_patch(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "patch")
        }
        fn do_delete(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "delete")
        }
        fn do_options(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "options")
        }
        fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "other")
        }
    }
    let server = run(|site| site, |server| server.with_handler(|| Named));
    let mut client = server.connect();
    for method in ["put", "patch", "delete", "options", "other"] {
        let request = format!("{} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", method.to_uppercase());
        assert_eq!(client.ask(request).body_text(), method);
    }
}

#[test]
fn content_of_a_handler_has_conditions_and_ranges() {
    let server = answer_with(|x| x.answer_entity(&sanserve_core::Validators::version(7), "text/plain", "0123456789"));
    testkit::handlers::check_entity(&mut server.connect());
}

#[test]
fn a_reader_of_unknown_length_is_sent_whole() {
    let server = answer_with(|x| {
        let head = ResponseHead::new(StatusCode::OK).field("Content-Type", "text/plain")?;
        let length = x.send_stream(&head, io::repeat(b'x').take(200_000))?;
        x.log(format_args!("{length} bytes"));
        Ok(())
    });
    let page = server.connect().get("/");
    assert_eq!((page.body.len(), page.text("Transfer-Encoding")), (200_000, Some("chunked")));
    assert!(server.end().contains("200000 bytes"));
}

#[test]
fn a_reader_without_end_is_only_read_for_a_body_that_is_sent() {
    let server = answer_with(|x| {
        let status = if x.path() == b"/none" { StatusCode::NO_CONTENT } else { StatusCode::OK };
        let length = x.send_stream(&ResponseHead::new(status), io::repeat(b'x'))?;
        x.log(format_args!("{length} bytes"));
        Ok(())
    });
    let mut client = server.connect();
    client.send(ask("HEAD", "/", ""));
    assert_eq!(client.head().status, 200);
    client.send(ask("GET", "/none", ""));
    assert_eq!(client.head().status, 204);
    client.send("HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.rest(), b"");
    assert_eq!(server.end().matches("0 bytes").count(), 3);
}

#[test]
fn a_reader_that_fails_cuts_the_connection() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("the disk\r\nis gone\x1b[2J"))?;
            into.fill(b'x');
            Ok(into.len())
        }
    }
    let server = answer_with(|x| x.send_stream(&ResponseHead::new(StatusCode::OK), Fails(100)).map(drop));
    for version in ["1.0", "1.1"] {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
        assert_eq!(client.head().status, 200);
        assert!(!client.rest().ends_with(b"0\r\n\r\n"), "the body does not look complete");
    }
    let log = server.end();
    assert_eq!(log.matches(r"the disk\x0d\x0ais gone\x1b[2J").count(), 2, "{log}");
    assert_eq!(log.matches("cut after").count(), 2, "{log}");
}

#[test]
fn a_body_that_is_not_read_before_an_error_is_no_request() {
    let server = answer_with(|x| match x.method() {
        b"POST" => Err(StatusCode::FORBIDDEN.into()),
        _ => {
            let target = x.target().to_vec();
            x.answer(StatusCode::OK, "text/plain", target)
        }
    });
    let inner = ask("GET", "/smuggled", "");
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let mut client = server.connect();
    client.send(ask("POST", "/", &format!("Content-Length: {}\r\n", inner.len())) + &inner);
    client.send(ask("POST", "/", "Transfer-Encoding: chunked\r\n") + &chunk + &ask("GET", "/next", ""));
    assert_eq!([client.response().head.status, client.response().head.status], [403, 403]);
    assert_eq!(client.response().body, b"/next");
    assert!(!server.end().contains("smuggled"));
}

#[test]
fn embedded_assets_are_sent_like_files() {
    let assets = testkit::assets();
    let server = serve(move || {
        let assets = assets.clone();
        move |x: &mut Exchange<'_>| {
            if x.path() == b"/any/thing" {
                return x.send_asset_at(&assets, "index.html").map(|found| assert!(found));
            }
            if x.send_asset(&assets)? { Ok(()) } else { x.error(StatusCode::NOT_FOUND, Some("nothing here"), None) }
        }
    });
    testkit::check_assets(&mut server.connect());
    assert_eq!(server.connect().get("/any/thing").body_text(), "<h1>Home</h1>");
}

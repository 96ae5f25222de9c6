//! The responses of handlers.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sanserve_core::{Call, HandlerError, Policy, Reply};
use sanserve_smol::{Assets, Exchange, Handler, ResponseHead, StatusCode, handler_fn};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{run, serve};

/// Counts the requests of its connection.
struct Counting(u32, Arc<AtomicUsize>);

impl Handler for Counting {
    async fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.0 += 1;
        x.answer(StatusCode::OK, "text/plain", format!("get {}", self.0))
    }

    async fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.answer(StatusCode::OK, "text/plain", "post")
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn methods_are_dispatched_and_each_connection_has_its_own_value() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    let server = serve(move || Counting(0, Arc::clone(&count)));
    let mut peer = server.connect();
    assert_eq!(peer.get("/").body_text(), "get 1");
    assert_eq!(peer.get("/a.txt").body_text(), "get 2", "all requests are routed to the handler");
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(peer.response().body_text(), "post");
    peer.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = peer.head();
    assert!(head.contains("\r\nContent-Length: 5\r\n"), "{head}");
    peer.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let put = peer.response();
    assert!(put.head.starts_with("HTTP/1.1 501 Unsupported method ('PUT')\r\n"), "{put:?}");
    assert!(put.body_text().contains("<p>Message: Unsupported method ('PUT').</p>"), "{put:?}");
    assert_eq!(peer.get("/").body_text(), "get 4", "a HEAD is handled like a GET");
    assert_eq!(server.get("/").body_text(), "get 1");
    drop(peer);
    server.end();
    assert_eq!(dropped.load(Ordering::SeqCst), 2, "one handler per connection");
}

struct Nothing;

impl Handler for Nothing {}

#[test]
fn methods_without_an_override_are_501() {
    let server = serve(|| Nothing);
    let mut peer = server.connect();
    for method in ["GET", "POST", "DELETE"] {
        peer.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(peer.response().status(), 501);
    }
    peer.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(peer.head().starts_with("HTTP/1.1 501 Unsupported method ('HEAD')\r\n"));
    assert_eq!(peer.get("/").status(), 501, "no body after a HEAD");
}

async fn status(x: &mut Exchange<'_>) -> io::Result<()> {
    let code = std::str::from_utf8(&x.path()[1..]).unwrap().parse().unwrap();
    x.respond(StatusCode::new(code).unwrap())?.field("X-A", "b")?.send()?;
    x.write_all(b"a body that must not be sent").await?;
    x.finish().await
}

#[test]
fn responses_without_content_have_no_body() {
    let server = serve(|| status);
    let mut peer = server.connect();
    for path in ["/204", "/304", "/204"] {
        let answer = peer.get(path);
        assert!(answer.text("Content-Length").is_none() && answer.text("Transfer-Encoding").is_none(), "{answer:?}");
        assert_eq!(answer.text("X-A"), Some("b"));
        assert_eq!(answer.text("Connection"), None);
    }
    let reset = peer.get("/205");
    assert_eq!((reset.status(), reset.body.len()), (205, 0));
    assert!(peer.rest_however().0.is_empty());
    let mut peer = server.connect();
    peer.send("GET /204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(peer.response().text("Connection"), Some("close"));
    assert!(peer.rest_however().0.is_empty());
    let mut peer = server.connect();
    peer.send("GET /204 HTTP/1.0\r\n\r\n");
    assert_eq!(peer.response().status(), 204);
    assert!(peer.rest_however().0.is_empty());
}

#[test]
fn an_error_page_contains_the_texts_of_the_handler() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            x.error(StatusCode::new(999).unwrap(), Some("short & bad"), Some("long <explanation>"))
        }
    });
    let answer = server.get("/");
    assert!(answer.head.starts_with("HTTP/1.1 999 short & bad\r\n"), "{answer:?}");
    assert!(answer.body_text().contains("Message: short &amp; bad."), "{answer:?}");
    assert!(answer.body_text().contains("999 - long &lt;explanation&gt;."), "{answer:?}");
    assert!(server.end().contains("code 999, message short & bad"));
}

#[test]
fn fields_are_bytes() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            assert_eq!(x.field("x-name"), Some(&b"J\xfcrgen"[..]));
            assert_eq!((x.query(), x.target()), (Some(&b"q=1"[..]), &b"/p?q=1"[..]));
            assert_eq!(x.request().query_pairs().next().unwrap().1, "1");
            assert_eq!((x.request().host(), x.request().version()), (Some(&b"x"[..]), &b"HTTP/1.1"[..]));
            x.respond(StatusCode::OK)?.reason("Fine")?.field("X-Name", b"Andr\xe9")?.length(0).send()
        }
    });
    let mut peer = server.connect();
    peer.send(b"GET /p?q=1 HTTP/1.1\r\nHost: x\r\nX-Name: J\xfcrgen\r\n\r\n");
    let head = peer.through(b"\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 200 Fine\r\n"), "{}", head.escape_ascii());
    assert!(head.windows(17).any(|part| part == b"\r\nX-Name: Andr\xe9\r\n"), "{}", head.escape_ascii());
}

#[test]
fn invalid_parts_of_a_head_are_errors_and_not_sent() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            for (name, value) in [("A", "b\r\nC: d"), ("A b", "c"), ("Content-Length", "3")] {
                let error = x.respond(StatusCode::OK)?.field(name, value).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            }
            assert!(x.respond(StatusCode::CONTINUE).is_err() && x.inform(StatusCode::OK).is_err());
            assert!(x.write_all(b"no head").await.is_err() && x.finish().await.is_err());
            let second = x.respond(StatusCode::NOT_FOUND)?;
            x.answer(StatusCode::OK, "text/plain", "one")?;
            assert!(second.send().is_err() && x.respond(StatusCode::OK).is_err());
            Ok(())
        }
    });
    let mut peer = server.connect();
    for _ in 0..2 {
        assert_eq!(peer.get("/").body_text(), "one");
    }
    let log = server.end();
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn a_prepared_head_can_be_sent_many_times() {
    let hint = ResponseHead::new(StatusCode::EARLY_HINTS).field("Link", "</a.css>; rel=preload").unwrap();
    let teapot = StatusCode::new(418).unwrap();
    let head = ResponseHead::new(teapot).reason("Short").unwrap().field("X-A", "1").unwrap().length(2);
    let heads = Arc::new((hint, head));
    let server = serve(move || {
        let heads = heads.clone();
        handler_fn(move |x| {
            let heads = heads.clone();
            Box::pin(async move {
                let (hint, head) = &*heads;
                for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS] {
                    let error = x.send_head(&ResponseHead::new(status)).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                }
                x.send_head(hint)?;
                let late = x.respond(StatusCode::OK)?;
                x.send_head(head)?;
                // A part is refused once a head was sent.
                assert!(late.field("X-B", "2").is_err());
                assert!(x.send_head(head).is_err() && x.send_head(hint).is_err());
                x.write_all(b"ok").await
            })
        })
    });
    testkit::handlers::check_prepared_heads(&mut server.connect());
}

#[test]
fn a_complete_body_of_any_length_is_sent_with_fields() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
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
        }
    });
    testkit::handlers::check_large_bodies(&mut server.connect());
}

#[test]
fn an_interim_response_is_sent_immediately() {
    let (tell, told) = smol::channel::bounded::<()>(1);
    let server = serve(move || {
        let told = told.clone();
        handler_fn(move |x| {
            let told = told.clone();
            Box::pin(async move {
                x.inform(StatusCode::EARLY_HINTS)?.field("Link", "</style.css>; rel=preload")?.send()?;
                told.recv().await.unwrap();
                x.answer(StatusCode::OK, "text/plain", "done")
            })
        })
    });
    let mut peer = server.connect();
    peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let interim = peer.head();
    assert!(interim.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n"), "{interim}");
    tell.send_blocking(()).unwrap();
    assert_eq!(peer.response().body_text(), "done");
    peer.send("GET / HTTP/1.0\r\n\r\n");
    tell.send_blocking(()).unwrap();
    assert_eq!(peer.response().status(), 200, "HTTP/1.0 clients get no interim response");
}

#[test]
fn parts_of_files_are_sent() {
    let large: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &large).unwrap();
    let path = file.path().to_owned();
    let server = serve(move || {
        let path = path.clone();
        handler_fn(move |x| {
            let open = || fs::File::open(&path).unwrap();
            let files = [open(), open(), open(), open()];
            Box::pin(async move {
                let head = x.respond(StatusCode::OK)?;
                if x.path() == b"/length" {
                    head.length(6_000_000).send()?
                } else {
                    head.send()?
                }
                let [one, two, three, four] = files;
                assert!(one.metadata()?.len() == 6_000_000 && x.send_file(one, 5..6_000_001).await.is_err());
                x.send_file(two, ..7).await?;
                x.send_file(three, 7..7).await?;
                x.write_all(&[0; 3]).await?;
                x.send_file(four, 10..).await
            })
        })
    });
    let mut expected = large.clone();
    expected[7..10].fill(0);
    let mut peer = server.connect();
    for path in ["/length", "/chunked", "/length"] {
        assert!(peer.get(path).body == expected, "{path}");
    }
    peer.send("HEAD /length HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(peer.head().contains("Content-Length: 6000000"));
    assert!(peer.get("/length").body == expected, "after a HEAD");
    let log = server.end();
    assert!(!log.contains("failed"), "{log}");
}

#[test]
fn declined_requests_are_answered_by_the_files() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            if x.path() == b"/hello" {
                return x.answer(StatusCode::OK, "text/plain", "hello");
            }
            x.decline()?;
            assert!(x.respond(StatusCode::OK).is_err());
            smol::future::yield_now().await;
            Ok(())
        }
    });
    let mut peer = server.connect();
    for _ in 0..3 {
        assert_eq!(peer.get("/a.txt").body_text(), "a file");
        assert_eq!(peer.get("/hello").body_text(), "hello");
        assert_eq!(peer.get("/nope").status(), 404);
    }
    peer.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
    for _ in 0..20 {
        assert_eq!(peer.response().body_text(), "a file");
        assert_eq!(peer.response().body_text(), "hello");
    }
    let log = server.end();
    assert!(!log.contains("failed"), "{log}");
}

fn portable(call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
    if call == Call::Request {
        reply.answer(StatusCode::OK, "text/plain", "portable")?;
    }
    Ok(())
}

async fn own(x: &mut Exchange<'_>) -> io::Result<()> {
    x.answer(StatusCode::OK, "text/plain", "own")
}

#[test]
fn the_asynchronous_handler_takes_precedence_over_the_sites() {
    let server = run(|site| site.with_handler(|| portable), |server| server.with_handler(|| own));
    assert_eq!(server.get("/").body_text(), "own");
    let server = run(|site| site.with_handler(|| portable), |server| server);
    assert_eq!(server.get("/").body_text(), "portable");
}

#[test]
fn log_lines_have_pythons_format_and_are_escaped() {
    let server = serve(|| {
        async |x: &mut Exchange<'_>| {
            x.log(format_args!("asked for {} \x1b[31m", "it"));
            x.answer(StatusCode::OK, "text/plain", "")?;
            x.finish().await?;
            x.log(format_args!("done"));
            Ok(())
        }
    });
    server.get("/");
    let log = server.end();
    let mut lines = log.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("127.0.0.1 - - [") && first.ends_with("] asked for it \\x1b[31m"), "{log}");
    assert!(lines.next().unwrap().ends_with("\"GET / HTTP/1.1\" 200 0"), "{log}");
    assert!(lines.next().unwrap().ends_with("] done"), "{log}");
}

struct Picky;

impl Policy for Picky {
    fn expect_continue(&self, request: &sanserve_core::Request<'_>) -> Result<(), StatusCode> {
        if request.path() == b"/no" { Err(StatusCode::EXPECTATION_FAILED) } else { Ok(()) }
    }
}

#[test]
fn a_peer_that_waits_gets_100_continue_or_a_refusal() {
    use smol::io::AsyncReadExt;
    let echo = async |x: &mut Exchange<'_>| {
        let mut body = Vec::new();
        x.read_to_end(&mut body).await?;
        x.answer(StatusCode::OK, "text/plain", body)
    };
    let server = run(|site| site.with_policy(Picky), move |server| server.with_handler(move || echo));
    let mut peer = server.connect();
    let request =
        |path| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    peer.send(request("/yes"));
    assert_eq!(peer.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    peer.send("body");
    assert_eq!(peer.response().body_text(), "body");
    peer.send(request("/no"));
    assert_eq!(peer.response().status(), 417);
    assert!(peer.rest_however().0.is_empty());
    let log = server.end();
    assert!(!log.contains("failed"), "a refusal is not a failure: {log}");
}

/// Counts the requests of all connections.
async fn counting(x: &mut Exchange<'_>, count: Arc<AtomicUsize>) -> io::Result<()> {
    let text = format!("{} {}", String::from_utf8_lossy(x.method()), count.fetch_add(1, Ordering::Relaxed));
    x.answer(StatusCode::OK, "text/plain", text)
}

#[test]
fn one_function_may_respond_to_all_connections() {
    let server = run(|site| site, |server| server.with_state(Arc::new(AtomicUsize::new(0)), counting));
    assert_eq!(server.connect().get("/").body_text(), "GET 0");
    assert_eq!(server.connect().ask("FOO / HTTP/1.1\r\nHost: x\r\n\r\n").body_text(), "FOO 1");
    let closure = async |x: &mut Exchange<'_>, text: &'static str| x.answer(StatusCode::OK, "text/plain", text);
    let server = run(|site| site, |server| server.with_state("state", closure));
    assert_eq!(server.get("/").body_text(), "state");
    let server = run(|site| site, |server| server.with_fn(own));
    assert_eq!(server.get("/").body_text(), "own");
}

#[test]
fn each_common_method_has_a_method_of_the_trait() {
    struct Named;
    impl Handler for Named {
        async fn do_put(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "put")
        }
        async fn do_patch(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "patch")
        }
        async fn do_delete(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "delete")
        }
        async fn do_options(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "options")
        }
        async fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
            x.answer(StatusCode::OK, "text/plain", "other")
        }
    }
    let server = serve(|| Named);
    let mut client = server.connect();
    for method in ["put", "patch", "delete", "options", "other"] {
        let request = format!("{} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", method.to_uppercase());
        assert_eq!(client.ask(request).body_text(), method);
    }
}

async fn entity(x: &mut Exchange<'_>) -> io::Result<()> {
    x.answer_entity(&sanserve_core::Validators::version(7), "text/plain", "0123456789")
}

#[test]
fn content_of_a_handler_has_conditions_and_ranges() {
    let server = serve(|| entity);
    testkit::handlers::check_entity(&mut server.connect());
}

async fn stream(x: &mut Exchange<'_>) -> io::Result<()> {
    let head = ResponseHead::new(StatusCode::OK).field("Content-Type", "text/plain")?;
    let length = x.send_stream(&head, smol::io::repeat(b'x').take(200_000)).await?;
    x.log(format_args!("{length} bytes"));
    Ok(())
}

#[test]
fn a_reader_of_unknown_length_is_sent_whole() {
    let server = serve(|| stream);
    let page = server.connect().get("/");
    assert_eq!((page.body.len(), page.text("Transfer-Encoding")), (200_000, Some("chunked")));
    assert!(server.end().contains("200000 bytes"));
}

async fn endless(x: &mut Exchange<'_>) -> io::Result<()> {
    let status = if x.path() == b"/none" { StatusCode::NO_CONTENT } else { StatusCode::OK };
    let length = x.send_stream(&ResponseHead::new(status), smol::io::repeat(b'x')).await?;
    x.log(format_args!("{length} bytes"));
    Ok(())
}

#[test]
fn a_reader_without_end_is_only_read_for_a_body_that_is_sent() {
    let server = serve(|| endless);
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.send("GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().status, 204);
    client.send("HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.rest(), b"");
    assert_eq!(server.end().matches("0 bytes").count(), 3);
}

async fn asset(x: &mut Exchange<'_>, assets: Assets) -> io::Result<()> {
    if x.path() == b"/any/thing" {
        return x.send_asset_at(&assets, "index.html").map(|found| assert!(found));
    }
    if x.send_asset(&assets)? { Ok(()) } else { x.error(StatusCode::NOT_FOUND, Some("nothing here"), None) }
}

#[test]
fn embedded_assets_are_sent_like_files() {
    let server = run(|site| site, |server| server.with_state(testkit::assets(), asset));
    testkit::check_assets(&mut server.connect());
    assert_eq!(server.connect().get("/any/thing").body_text(), "<h1>Home</h1>");
}

//! The examples of common tasks, over real sockets; those that are portable, on each runtime.

#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/assets.rs"]
mod assets;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/basic_auth.rs"]
mod basic_auth;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/cookies.rs"]
mod cookies;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/cors.rs"]
mod cors;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/forms.rs"]
mod forms;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-mio/examples/mio_live_reload.rs"]
mod mio_live_reload;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-mio/examples/mio_long_poll.rs"]
mod mio_long_poll;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/multipart.rs"]
mod multipart;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../examples/request_id.rs"]
mod request_id;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-smol/examples/smol_live_reload.rs"]
mod smol_live_reload;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-smol/examples/smol_long_poll.rs"]
mod smol_long_poll;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-std/examples/std_live_reload.rs"]
mod std_live_reload;
#[allow(dead_code, unreachable_pub, reason = "an example is a program, whose `main` is not run here")]
#[path = "../frontend-std/examples/std_long_poll.rs"]
mod std_long_poll;

use std::path::Path;
use std::sync::Arc;

use sanserve_server::{Log, Site};
use testkit::{Embedded, Tree, bound};

const ANY: &str = "127.0.0.1:0";

/// A portable site for a directory with `a.txt`, on each runtime.
fn on_each_runtime(site: impl Fn(&Path) -> Site, check: impl Fn(&Embedded)) {
    let site = |root: &Path, log| site(root).with_log(Log::to(log));
    let servers = [
        Embedded::start(tree(), |root, log| bound!(sanserve_std::Server::bind(ANY, site(root, log)).unwrap())),
        Embedded::start(tree(), |root, log| bound!(sanserve_mio::Server::bind(ANY, site(root, log)).unwrap())),
        Embedded::start(tree(), |root, log| bound!(sanserve_smol::Server::bind(ANY, site(root, log)).unwrap())),
    ];
    for server in servers {
        check(&server);
        server.end();
    }
}

fn tree() -> Tree {
    let tree = Tree::new();
    tree.file("a.txt", "a file");
    tree
}

/// A blocking handler.
fn blocking<H: sanserve_std::Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static) -> Embedded {
    Embedded::start(Tree::new(), |_, log| {
        let site = Site::without_files().with_log(Log::to(log));
        bound!(sanserve_std::Server::bind(ANY, site).unwrap().with_handler(make))
    })
}

/// A POST with a body of this type.
fn post(media_type: &str, body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn forms() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let server = blocking(|| forms::answer);
    let mut client = server.connect();
    assert!(client.get("/").body_text().contains("<form method=post>"));
    let greeting = client.ask(post(FORM, "x=1&name=Ada+L%C3%B6velace&name=no"));
    assert_eq!((greeting.status(), greeting.body_text()), (200, "Hello, Ada Lövelace!\n"));
    let with_charset = client.ask(post("Application/X-WWW-Form-Urlencoded ;charset=utf-8", "name=%3Cb%3E"));
    assert_eq!(with_charset.body_text(), "Hello, <b>!\n");
    assert_eq!(client.ask(post(FORM, "nam=Ada")).status(), 400);
    assert_eq!(client.ask(post("text/plain", "name=Ada")).status(), 415);
    let longest = format!("name={}", "a".repeat(65_531));
    assert_eq!(client.ask(post(FORM, &longest)).status(), 200);
    assert_eq!(server.connect().ask(post(FORM, &(longest + "a"))).status(), 413);
    assert_eq!(server.connect().ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status(), 501);
    server.end();
}

#[test]
fn cookies() {
    let visit = |server: &Embedded, fields: &str| {
        let response = server.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        (response.body_text().to_owned(), response.text("Set-Cookie").expect("a cookie").to_owned())
    };
    on_each_runtime(
        |_| Site::without_files().with_answer(cookies::answer),
        |server| {
            let (text, cookie) = visit(server, "");
            assert_eq!(text, "visit 1\n");
            assert_eq!(cookie, "visits=1; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000");
            assert_eq!(visit(server, "Cookie: other=7; visits=41; visits=8\r\n").0, "visit 42\n");
            assert_eq!(visit(server, "Cookie: other=7\r\ncookie: visits=2\r\n").0, "visit 3\n");
            assert_eq!(visit(server, "Cookie: visits=many; =; \u{e9}\r\n").0, "visit 1\n");
            assert_eq!(visit(server, "Cookie: visits=4294967295\r\n").0, "visit 4294967295\n");
        },
    );
}

#[test]
fn multipart() {
    let server = Embedded::start(Tree::new(), |_, log| {
        let site = Site::without_files().with_log(Log::to(log));
        bound!(sanserve_smol::Server::bind(ANY, site).unwrap().with_handler(|| multipart::answer))
    });
    const FORM: &str = "multipart/form-data; boundary=xyz";
    let large = "0123456789".repeat(10_000);
    let body = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n\
         --xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n{large}\r\n--xyz--\r\n"
    );
    let mut client = server.connect();
    let list = client.ask(post(FORM, &body));
    assert_eq!(list.body_text(), "\"note\" (\"no file\"): 5 bytes\n\"file\" (\"a.bin\"): 100000 bytes\n");
    assert_eq!(client.ask(post("text/plain", "x")).status(), 415);
    assert_eq!(server.connect().ask(post(FORM, &body[..body.len() - 9])).status(), 400);
    assert_eq!(server.connect().ask(post(FORM, &body.replace(&large, &large.repeat(101)))).status(), 413);
    server.end();
}

#[test]
fn request_ids() {
    let ids = Arc::new(request_id::Ids::start());
    let server = blocking(move || {
        let ids = Arc::clone(&ids);
        move |x: &mut sanserve_std::Exchange<'_>| request_id::answer(&ids, x)
    });
    let mut client = server.connect();
    let mut id_for = |field: &str| {
        let response = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
        response.text("X-Request-Id").expect("an id").to_owned()
    };
    let (first, second) = (id_for(""), id_for(""));
    assert_ne!(first, second);
    assert_eq!(id_for("X-Request-Id: from-a-proxy-1\r\n"), "from-a-proxy-1");
    assert_ne!(id_for("X-Request-Id: two words\r\n"), "two words");
    let long = "a".repeat(65);
    assert_eq!(id_for(&format!("X-Request-Id: {}\r\n", &long[1..])), long[1..]);
    assert_ne!(id_for(&format!("X-Request-Id: {long}\r\n")), long);
    let log = server.end();
    for id in [&*first, &*second, "from-a-proxy-1"] {
        assert!(log.contains(&format!("request {id}: 1 bytes of target")), "{id} is not in the log:\n{log}");
    }
}

#[test]
fn cors() {
    on_each_runtime(
        |root| cors::site(root).unwrap(),
        |server| {
            let mut client = server.connect();
            let mut ask = |method: &str, fields: &str| {
                let response = client.ask(format!("{method} /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
                assert_eq!(response.text("Vary"), Some("Origin"));
                response
            };
            let permitted = ask("GET", "Origin: https://app.example\r\n");
            assert_eq!(permitted.body_text(), "a file");
            assert_eq!(permitted.text("Access-Control-Allow-Origin"), Some("https://app.example"));
            for origin in ["", "Origin: https://other.example\r\n", "Origin: null\r\n"] {
                let response = ask("GET", origin);
                assert_eq!((response.body_text(), response.text("Access-Control-Allow-Origin")), ("a file", None));
            }
            let preflight = ask("OPTIONS", "Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n");
            assert_eq!(preflight.status(), 204);
            assert_eq!(preflight.text("Access-Control-Allow-Methods"), Some("GET, HEAD"));
            assert_eq!(preflight.text("Access-Control-Allow-Origin"), Some("https://app.example"));
            let other = ask("OPTIONS", "Origin: https://app.example\r\n");
            assert_eq!((other.status(), other.text("Access-Control-Allow-Methods")), (204, None));
        },
    );
}

#[test]
fn basic_authentication() {
    on_each_runtime(
        |root| basic_auth::site(root).unwrap(),
        |server| {
            let mut client = server.connect();
            let mut ask = |fields: &str| client.ask(format!("GET /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            // ada:Lovelace1815 and grace:Hopper1906.
            for right in ["Basic YWRhOkxvdmVsYWNlMTgxNQ==", "basic Z3JhY2U6SG9wcGVyMTkwNg=="] {
                let response = ask(&format!("Authorization: {right}\r\n"));
                assert_eq!((response.status(), response.body_text()), (200, "a file"));
            }
            // Nothing, no base64, ada:Hopper1906, ada: and another scheme.
            let wrong =
                ["", "Basic ?", "Basic YWRhOkhvcHBlcjE5MDY=", "Basic YWRhOg==", "Bearer YWRhOkxvdmVsYWNlMTgxNQ=="];
            for wrong in wrong {
                let response = ask(&format!("Authorization: {wrong}\r\n"));
                assert_eq!((response.status(), response.body_text()), (401, ""));
                assert_eq!(response.text("WWW-Authenticate"), Some("Basic realm=\"files\", charset=\"UTF-8\""));
            }
        },
    );
}

#[test]
fn embedded_assets() {
    on_each_runtime(
        |_| assets::site(),
        |server| {
            let mut client = server.connect();
            let page = client.get("/");
            assert_eq!(page.body_text(), include_str!("../examples/app/index.html"));
            assert_eq!(client.get("/css/main.css").text("Content-Type"), Some("text/css; charset=utf-8"));
            assert_eq!(client.get("/app.js").body_text(), include_str!("../examples/app/app.js"));
            let script = client.ask("GET /app.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, br\r\n\r\n");
            assert_eq!(script.text("Content-Encoding"), Some("gzip"));
            assert_eq!(script.body, include_bytes!("../examples/app/app.js.gz"));
            assert!(script.body.len() < include_str!("../examples/app/app.js").len());
            assert_eq!(client.get("/a.txt").status(), 404, "there are no files");
        },
    );
}

/// The compressed file is that of the script.
#[test]
fn the_precompressed_asset_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/app");
    let output = std::process::Command::new("gzip").args(["-dc", "app.js.gz"]).current_dir(folder).output();
    let output = output.expect("gzip is installed");
    assert_eq!(output.stdout, include_bytes!("../examples/app/app.js"));
}

/// Pages of a directory reload when one of its files is saved, whichever way an editor does it.
#[test]
fn live_reload() {
    let site = |root: &Path, log| Site::new(root).unwrap().with_log(Log::to(log));
    let servers = [
        Embedded::start(tree(), |root, log| bound!(std_live_reload::server(ANY, site(root, log), root).unwrap())),
        Embedded::start(tree(), |root, log| bound!(mio_live_reload::server(ANY, site(root, log), root).unwrap())),
        Embedded::start(tree(), |root, log| bound!(smol_live_reload::server(ANY, site(root, log), root).unwrap())),
    ];
    for server in servers {
        let script = server.connect().get("/_reload.js");
        assert!(script.body_text().contains("location.reload()"), "{script:?}");
        assert_eq!(server.connect().get("/a.txt").text("Cache-Control"), Some("no-cache"));
        assert_eq!(server.connect().get("/_reload").status(), 400);
        let root = server.tree.root();
        std::fs::create_dir(root.join("below")).unwrap();
        let in_place = || std::fs::write(root.join("a.txt"), "changed").unwrap();
        let renamed = || {
            std::fs::write(root.join("below/new"), "changed").unwrap();
            std::fs::rename(root.join("below/new"), root.join("a.txt")).unwrap();
        };
        for save in [&in_place as &dyn Fn(), &renamed, &in_place] {
            // Pages that are open at the same time, and one that has been closed.
            drop(open_page(&server));
            let mut pages = [open_page(&server), open_page(&server)];
            for page in &mut pages {
                assert_eq!(saved(page, save).to_text().unwrap(), "reload");
            }
        }
        server.end();
    }
}

type Page = tungstenite::WebSocket<std::net::TcpStream>;

/// Opens the connection that the script of a page opens.
fn open_page(server: &Embedded) -> Page {
    let stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    tungstenite::client(format!("ws://{}/_reload", server.address), stream).expect("a WebSocket").0
}

/// Saves until there is a message: a page may be known to the server only a moment after it was accepted.
fn saved(page: &mut Page, save: &dyn Fn()) -> tungstenite::Message {
    let mut message = None;
    testkit::eventually("a message", || {
        save();
        message = page.read().ok();
        message.is_some()
    });
    message.expect("there is one")
}

/// Clients wait until something is published, or the server shuts down.
fn check_long_polls(server: Embedded, publish: &dyn Fn()) {
    let ask = |seen: u64| {
        let mut client = server.connect();
        client.send(format!("GET /?{seen} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    let mut waiting = [ask(0), ask(0), ask(1)];
    // A client that goes away is no trouble.
    drop(ask(0));
    assert!(waiting.iter_mut().all(testkit::Client::is_silent));
    publish();
    for client in &mut waiting[..2] {
        assert_eq!(client.response().body_text(), "1\n");
    }
    assert_eq!(ask(0).response().body_text(), "1\n", "there is something already");
    assert!(waiting[2].is_silent());
    publish();
    assert_eq!(waiting[2].response().body_text(), "2\n");
    let mut last = ask(2);
    assert!(last.is_silent());
    server.shutdown();
    assert_eq!(last.response().status(), 204);
    server.ended();
}

#[test]
fn long_polls() {
    let site = |log| Site::without_files().with_log(Log::to(log));
    let news = Arc::new(std_long_poll::News::default());
    let published = Arc::clone(&news);
    let server = Embedded::start(Tree::new(), |_, log| {
        let server = sanserve_std::Server::bind(ANY, site(log)).unwrap();
        bound!(server.with_fn(move |x| std_long_poll::poll(x, &news)))
    });
    check_long_polls(server, &|| published.publish());

    let news = Arc::new(mio_long_poll::News::default());
    let published = Arc::clone(&news);
    let server = Embedded::start(Tree::new(), |_, log| {
        let site = site(log).with_handler(move || {
            let news = Arc::clone(&news);
            move |call: sanserve_mio::Call, reply: &mut sanserve_mio::Reply<'_>| mio_long_poll::poll(call, reply, &news)
        });
        bound!(sanserve_mio::Server::bind(ANY, site).unwrap())
    });
    check_long_polls(server, &|| published.publish());

    let news = Arc::new(smol_long_poll::News::default());
    let published = Arc::clone(&news);
    let server = Embedded::start(Tree::new(), |_, log| {
        bound!(sanserve_smol::Server::bind(ANY, site(log)).unwrap().with_state(news, smol_long_poll::poll))
    });
    check_long_polls(server, &|| published.publish());
}

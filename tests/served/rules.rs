//! The rules of a site: fields, sharing with other sites, redirects, and what is served for paths without a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::{Response, Runtime, Server, Tree};

/// A site with a page, an application, styles and a hidden directory.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.file("index.html", "<title>app</title>\n")
        .file("404.html", "<title>nothing here</title>\n")
        .file("plain.txt", "plain\n")
        .folder("assets")
        .file("assets/a.css", "a { }\n")
        .file("about.html", "about\n")
        .folder("about")
        .file("about/index.html", "directory\n")
        .folder("empty")
        .folder(".git")
        .file(".git/config", "secret\n")
        .file(".git/index.html", "secret\n");
    tree
}

fn ask(server: &Server, line: &str, fields: &[&str]) -> Response {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    server.ask(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n"))
}

const NAVIGATION: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// `--header`, `--header-always` and `--cache`, by status and by pattern.
pub fn fields(rt: Runtime) {
    let tree = tree();
    let server = Server::with(
        rt,
        tree.root(),
        &[
            "-H",
            "X-One: 1",
            "--header=*.css=X-One: 2",
            "--header=/assets/*=Content-Type: text/x-own",
            "--header-always=X-All: yes",
            "--cache=60",
            "--cache=/assets/*=immutable",
        ],
    );
    let whole = ask(&server, "GET /assets/a.css", &[]);
    let tag = format!("If-None-Match: {}", whole.text("ETag").expect("a tag"));
    for (fields, status, length) in [(&[][..], 200, "6"), (&["Range: bytes=1-2"], 206, "2"), (&[tag.as_str()], 304, "")]
    {
        for method in ["GET", "HEAD"] {
            let status = if method == "HEAD" && status == 206 { 200 } else { status };
            let response = ask(&server, &format!("{method} /assets/a.css"), fields);
            assert_eq!(response.status(), status, "{method} {fields:?}");
            assert_eq!(response.head.all("X-One"), ["2"]);
            assert_eq!(response.text("X-All"), Some("yes"));
            assert_eq!(response.head.all("Cache-Control"), ["public, max-age=31536000, immutable"]);
            let is_modified = status != 304;
            assert_eq!(
                response.head.all("Content-Type"),
                if is_modified { vec!["text/x-own; charset=utf-8"] } else { vec![] }
            );
            if method == "GET" && is_modified {
                assert_eq!(response.text("Content-Length"), Some(length));
            }
        }
    }
    let listing = ask(&server, "GET /empty/", &[]);
    assert_eq!(
        (listing.status(), listing.text("X-One"), listing.text("Cache-Control")),
        (200, Some("1"), Some("max-age=60"))
    );
    for (line, status) in
        [("GET /none", 404), ("GET /empty", 301), ("PUT /", 501), ("OPTIONS /", 204), ("GET /%00", 400)]
    {
        let response = ask(&server, line, &[]);
        assert_eq!((response.status(), response.text("X-All")), (status, Some("yes")), "{line}");
        assert_eq!((response.text("X-One"), response.text("Cache-Control")), (None, None), "{line}");
    }
}

/// `--cors`: every origin or some, and preflight requests.
pub fn cors(rt: Runtime) {
    let tree = tree();
    let server = Server::with(rt, tree.root(), &["--cors"]);
    let response = ask(&server, "GET /plain.txt", &["Origin: https://app.example", "Range: bytes=0-1"]);
    assert_eq!((response.status(), response.text("Access-Control-Allow-Origin")), (206, Some("*")));
    let exposed = response.text("Access-Control-Expose-Headers").expect("fields for ranges");
    assert!(["Accept-Ranges", "Content-Range", "ETag"].iter().all(|name| exposed.contains(name)), "{exposed}");
    assert_eq!(response.text("Vary"), None);
    for line in ["GET /none", "GET /empty", "GET /empty/", "HEAD /plain.txt"] {
        assert_eq!(ask(&server, line, &[]).text("Access-Control-Allow-Origin"), Some("*"), "{line}");
    }

    let server = Server::with(rt, tree.root(), &["--cors=https://app.example", "--cors=https://b.example"]);
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let asked = "Access-Control-Request-Headers: range, if-none-match";
        ask(&server, "OPTIONS /plain.txt", &[&origin, "Access-Control-Request-Method: GET", asked])
    };
    let allowed = preflight("https://b.example");
    assert_eq!((allowed.status(), allowed.text("Access-Control-Allow-Origin")), (204, Some("https://b.example")));
    assert_eq!(allowed.text("Access-Control-Allow-Methods"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(allowed.text("Access-Control-Allow-Headers"), Some("*, Authorization"));
    assert_eq!((allowed.text("Access-Control-Max-Age"), allowed.text("Vary")), (Some("600"), Some("Origin")));
    let other = preflight("https://evil.example");
    assert_eq!(
        (other.status(), other.text("Access-Control-Allow-Origin"), other.text("Vary")),
        (204, None, Some("Origin"))
    );
    assert_eq!(other.text("Access-Control-Allow-Methods"), None);
    let body = ["Origin: https://b.example", "Access-Control-Request-Method: PUT", "Content-Length: 0"];
    assert_eq!(ask(&server, "OPTIONS /plain.txt", &body).status(), 204);
}

/// `--isolate` and `--nosniff`.
pub fn isolation(rt: Runtime) {
    let tree = tree();
    let server = Server::with(rt, tree.root(), &["--isolate", "--nosniff"]);
    for line in ["GET /index.html", "GET /plain.txt", "GET /none", "HEAD /", "GET /empty/"] {
        let response = ask(&server, line, &[]);
        let field = |name: &str| response.head.all(name);
        assert_eq!(field("Cross-Origin-Opener-Policy"), ["same-origin"], "{line}");
        assert_eq!(field("Cross-Origin-Embedder-Policy"), ["require-corp"], "{line}");
        assert_eq!(field("Cross-Origin-Resource-Policy"), ["same-origin"], "{line}");
        assert_eq!(field("X-Content-Type-Options"), ["nosniff"], "{line}");
    }
    let server = Server::with(rt, tree.root(), &["--isolate=credentialless", "--cors"]);
    let response = ask(&server, "GET /", &[]);
    assert_eq!(response.text("Cross-Origin-Embedder-Policy"), Some("credentialless"));
    assert_eq!(response.text("Cross-Origin-Resource-Policy"), Some("cross-origin"));
}

/// `--redirect` and `--route-prefix`: the query is kept, no field is injected, and nobody is sent to another server.
pub fn redirects(rt: Runtime) {
    let tree = tree();
    let flags =
        ["--redirect=/old=/new?from=old", "--redirect=/docs/*=/manual/*", "--redirect=/away/*=https://other.example/*"];
    let server = Server::with(rt, tree.root(), &flags);
    for (target, location) in [
        ("/old", "/new?from=old"),
        ("/old/?a=b", "/new?from=old&a=b"),
        ("/%6fld?a=b#c", "/new?from=old&a=b"),
        ("/docs/", "/manual/"),
        ("/docs/a%20b//c/?q", "/manual/a%20b/c/?q"),
        ("/docs//evil.example/", "/manual/evil.example/"),
        ("/docs/%0d%0aX:y", "/manual/%0D%0AX%3Ay"),
        ("/docs/%5cevil.example", "/manual/%5Cevil.example"),
        ("/x/../docs/y", "/manual/y"),
        ("/away/%2f%2fevil.example/..%2f", "https://other.example/"),
        ("http://x/away/a", "https://other.example/a"),
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let response = ask(&server, &format!("{method} {target}"), &[]);
            assert_eq!((response.status(), response.text("Location")), (308, Some(location)), "{method} {target}");
            assert_eq!((response.text("Content-Length"), response.body.len()), (Some("0"), 0), "{method} {target}");
        }
    }
    // The body of a request is read, and the connection continues.
    let mut client = server.connect();
    client.send(
        "POST /old HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /plain.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!((client.response().status(), client.response().body), (308, b"plain\n".to_vec()));
    assert_eq!(ask(&server, "GET /olds", &[]).status(), 404);

    let server = Server::with(rt, tree.root(), &["--route-prefix=/base/x", "--redirect=/old=/new", "--clean-urls"]);
    for (target, status, location) in [
        ("/base/x/old?q", 308, "/base/x/new?q"),
        ("/base/x", 301, "/base/x/"),
        ("/base/x?q", 301, "/base/x/?q"),
        ("/base/x/empty", 301, "/base/x/empty/"),
        ("/base/x/about.html", 308, "/base/x/about"),
    ] {
        let response = ask(&server, &format!("GET {target}"), &[]);
        assert_eq!((response.status(), response.text("Location")), (status, Some(location)), "{target}");
    }
    let listing = ask(&server, "GET /base/x/empty/", &[]);
    assert!(listing.body_text().contains("<h1>Directory listing for /base/x/empty/</h1>"), "{}", listing.body_text());
    for target in ["/", "/plain.txt", "/base", "/base/", "/base/xy/plain.txt", "/base/x/../plain.txt", "/old"] {
        assert_eq!(ask(&server, &format!("GET {target}"), &[]).status(), 404, "{target}");
    }
    assert_eq!(ask(&server, "GET /base/x/plain.txt", &[]).body, b"plain\n");
    assert_eq!(ask(&server, "GET /base/%78/./about/../plain.txt", &[]).body, b"plain\n");
}

/// `--clean-urls`: a page at its path without the extension, no circle, and no page that cannot be reached.
pub fn clean_urls(rt: Runtime) {
    let tree = tree();
    tree.file("both", "file\n").file("both.html", "page\n").folder("only").file("only/index.html", "only\n");
    tree.folder("dir.html").file("two words.html", "words\n").file(".html", "dot\n");
    let server = Server::with(rt, tree.root(), &["--clean-urls", "--redirect=/moved=/moved.html", "--hide-dotfiles"]);
    tree.file("moved.html", "moved\n");
    for (target, body) in [
        ("/about", "about\n"),
        ("/about/", "directory\n"),
        ("/both", "file\n"),
        ("/both.html", "page\n"),
        ("/only/", "only\n"),
        ("/two%20words", "words\n"),
        ("/moved.html", "moved\n"),
        ("/plain.txt", "plain\n"),
        ("/", "<title>app</title>\n"),
        ("/index", "<title>app</title>\n"),
        ("/about/index", "directory\n"),
    ] {
        let response = ask(&server, &format!("GET {target}"), &[]);
        assert_eq!((response.status(), response.body_text()), (200, body), "{target}");
        let head = ask(&server, &format!("HEAD {target}"), &[]);
        assert_eq!((head.status(), head.text("Content-Length")), (200, response.text("Content-Length")), "{target}");
    }
    for (target, location) in [
        ("/about.html?q=1", "/about?q=1"),
        ("/two%20words.html", "/two%20words"),
        ("/index.html?q", "/?q"),
        ("/about/index.html", "/about/"),
        ("//evil.example/../about.html", "/about"),
        ("/moved", "/moved.html"),
    ] {
        let response = ask(&server, &format!("GET {target}"), &[]);
        assert_eq!((response.status(), response.text("Location")), (308, Some(location)), "{target}");
    }
    assert_eq!(ask(&server, "GET /only", &[]).text("Location"), Some("/only/"));
    assert_eq!(ask(&server, "GET /dir.html", &[]).text("Location"), Some("/dir.html/"));
    for target in ["/none", "/none.html", "/about.html/", "/plain", "/.html", "/.git/index", "/.git/index.html"] {
        assert_eq!(ask(&server, &format!("GET {target}"), &[]).status(), 404, "{target}");
    }
    // Whoever follows redirects arrives after at most two.
    for target in ["/about.html", "/only.html", "/both.html", "/moved", "/index.html", "/dir.html", "/empty"] {
        let mut at = target.to_owned();
        for _ in 0..3 {
            let response = ask(&server, &format!("GET {at}"), &[]);
            let Some(location) = response.text("Location") else { break };
            at = location.to_owned();
        }
        assert_eq!(ask(&server, &format!("GET {at}"), &[]).text("Location"), None, "{target} leads to {at}");
    }
}

/// `--spa`: the page for navigations, and 404 for everything else.
pub fn applications(rt: Runtime) {
    let tree = tree();
    let server = Server::with(rt, tree.root(), &["--spa", "--hide-dotfiles"]);
    for target in ["/users/7", "/users/7/", "/a.b/users?tab=1", "/%75sers", "/plain.txt/x"] {
        let response = ask(&server, &format!("GET {target}"), &[NAVIGATION]);
        assert_eq!((response.status(), response.body_text()), (200, "<title>app</title>\n"), "{target}");
        assert_eq!(response.text("Vary"), Some("Accept"), "{target}");
        let head = ask(&server, &format!("HEAD {target}"), &[NAVIGATION]);
        assert_eq!((head.status(), head.text("Content-Length"), head.body.len()), (200, Some("19"), 0), "{target}");
        let tag = format!("If-None-Match: {}", response.text("ETag").expect("a tag"));
        let same = ask(&server, &format!("GET {target}"), &[NAVIGATION, &tag]);
        assert_eq!((same.status(), same.text("Vary")), (304, Some("Accept")), "{target}");
    }
    for (line, accept) in [
        ("GET /users/7", "Accept: */*"),
        ("GET /users/7", "Accept: application/json"),
        ("GET /users/7", "Accept: text/html;q=0"),
        ("GET /users/7", "X-None: 1"),
        ("GET /assets/app.js", NAVIGATION),
        ("GET /favicon.ico", NAVIGATION),
        ("GET /.git/HEAD", NAVIGATION),
        ("GET /.git/", NAVIGATION),
    ] {
        let response = ask(&server, line, &[accept]);
        assert_eq!(response.status(), 404, "{line} {accept}");
    }
    assert_eq!(ask(&server, "GET /users/7", &["Accept: */*"]).text("Vary"), Some("Accept"));
    assert_eq!(ask(&server, "POST /users/7", &[NAVIGATION]).status(), 501);
    assert_eq!(ask(&server, "GET /plain.txt", &[NAVIGATION]).body, b"plain\n");
    assert_eq!(ask(&server, "GET /empty/", &[NAVIGATION]).status(), 200);
    assert_eq!(ask(&server, "GET /empty", &[NAVIGATION]).status(), 301);
}

/// `--error-page`: the status stays, HEAD has the header of GET, and the file is bounded.
pub fn error_pages(rt: Runtime) {
    let tree = tree();
    tree.sparse("long.html", (1 << 20) + 1).sparse("limit.html", 1 << 20);
    let server = Server::with(rt, tree.root(), &["--error-page=404=404.html", "--no-listing"]);
    for target in ["/none", "/empty/", "/plain.txt/", "/none?x=1"] {
        let response = ask(&server, &format!("GET {target}"), &["Range: bytes=0-1", "If-None-Match: *"]);
        assert_eq!((response.status(), response.body_text()), (404, "<title>nothing here</title>\n"), "{target}");
        let unwanted = ["ETag", "Last-Modified", "Accept-Ranges", "Content-Range"];
        assert!(unwanted.iter().all(|name| response.text(name).is_none()), "{target}");
        let head = ask(&server, &format!("HEAD {target}"), &[]);
        assert_eq!((head.status(), head.text("Content-Length"), head.body.len()), (404, Some("28"), 0), "{target}");
        assert_eq!(head.text("Content-Type"), Some("text/html; charset=utf-8"));
    }
    // The connection stays open, and the next response is right.
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/none").status(), 404);
        assert_eq!(client.get("/plain.txt").body, b"plain\n");
    }
    for (page, len) in [("limit.html", Some("1048576")), ("long.html", None), ("none.html", None), ("assets", None)] {
        let server = Server::with(rt, tree.root(), &[&format!("--error-page=404={page}")]);
        let response = ask(&server, "HEAD /none", &[]);
        assert_eq!(response.status(), 404, "{page}");
        assert_eq!(
            response.text("Content-Length") == len,
            len.is_some(),
            "{page}: {:?}",
            response.text("Content-Length")
        );
    }
}

/// Neither an error page nor the page of an application leads to a file that is refused.
pub fn refused_files_stay_refused(rt: Runtime) {
    let tree = tree();
    let outside = tree.outside().join("secret.html");
    fs::write(&outside, "secret\n").expect("a file");
    tree.link("link.html", &outside).fifo("fifo.html").file("locked.html", "secret\n");
    fs::set_permissions(tree.path("locked.html"), fs::Permissions::from_mode(0o000))
        .expect("permissions can be changed");
    for (file, flags) in [
        (".git/index.html", &["--hide-dotfiles"][..]),
        ("link.html", &["--symlinks=inside"]),
        ("link.html", &["--symlinks=never"]),
        ("fifo.html", &[]),
        ("locked.html", &[]),
    ] {
        let of_file = [format!("--error-page=404={file}"), format!("--spa={file}"), format!("--redirect=/x=/{file}")];
        let all: Vec<&str> = of_file.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        // Root could read the file.
        let start = if file == "locked.html" { Server::unprivileged } else { Server::with };
        let server = start(rt, tree.root(), &all);
        for target in ["/none", "/none/", &format!("/{file}")] {
            let response = ask(&server, &format!("GET {target}"), &[NAVIGATION]);
            assert_eq!(response.status(), 404, "{file} {target}");
            assert!(response.body_text().contains("<p>Error code: 404</p>"), "{file} {target}");
        }
    }
}

/// `--index` and `--no-listing`.
pub fn index_pages(rt: Runtime) {
    let tree = tree();
    tree.file("assets/main.htm", "main\n").file("about/default.html", "default\n");
    let server = Server::with(rt, tree.root(), &["--index=main.htm", "--index", "default.html", "--no-listing"]);
    for (target, status, body) in
        [("/assets/", 200, "main\n"), ("/about/", 200, "default\n"), ("/about/index.html", 200, "directory\n")]
    {
        let response = ask(&server, &format!("GET {target}"), &[]);
        assert_eq!((response.status(), response.body_text()), (status, body), "{target}");
    }
    for target in ["/", "/empty/"] {
        assert_eq!(ask(&server, &format!("GET {target}"), &[NAVIGATION]).status(), 404, "{target}");
    }
}

/// The pages of the server run nothing, and are taken for nothing else. Pages of the site are its own matter.
pub fn pages_of_the_server(rt: Runtime) {
    let tree = tree();
    let server = Server::with(rt, tree.root(), &["--error-page=404=404.html"]);
    for (line, is_ours) in [
        ("GET /empty/", true),
        ("HEAD /empty/", true),
        ("PUT /", true),
        ("GET /%00", true),
        ("BAD /\t", true),
        ("GET /none", false),
        ("GET /index.html", false),
        ("GET /empty", false),
        ("OPTIONS /", false),
    ] {
        let response = ask(&server, line, &[]);
        let policy = response.text("Content-Security-Policy");
        assert_eq!(policy.is_some_and(|policy| policy.starts_with("default-src 'none'; ")), is_ours, "{line}");
        assert_eq!(response.head.all("X-Content-Type-Options").len(), usize::from(is_ours), "{line}");
    }
    let server =
        Server::with(rt, tree.root(), &["--nosniff", "--header-always=content-security-policy: default-src 'self'"]);
    for line in ["GET /empty/", "GET /none", "GET /index.html"] {
        let response = ask(&server, line, &[]);
        assert_eq!(response.head.all("X-Content-Type-Options"), ["nosniff"], "{line}");
        assert_eq!(response.head.all("Content-Security-Policy"), ["default-src 'self'"], "{line}");
    }
}

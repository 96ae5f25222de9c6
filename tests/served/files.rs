//! Files: every byte of every size, their fields, HEAD, media types, index pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::tree::{Pattern, STAMP};
use testkit::{Runtime, Server, Tree};

/// Sizes around all likely buffer sizes, on one connection.
pub fn every_size_arrives_complete(rt: Runtime) {
    let tree = Tree::new();
    let mut sizes = vec![0, 1, 2, 1 << 10, 1 << 20, (1 << 20) + 1];
    for power in [12, 13, 14, 15, 16, 17, 18] {
        sizes.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    for size in &sizes {
        tree.patterned(format!("{size}.bin"), *size);
    }
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for _ in 0..2 {
        for size in &sizes {
            let response = client.get(format!("/{size}.bin"));
            assert_eq!(response.status(), 200);
            assert_eq!(response.body.len() as u64, *size);
            Pattern::new().check(0, &response.body);
        }
    }
}

/// A download of 100 MB, compared byte by byte as it arrives.
pub fn a_hundred_megabytes_arrive_complete(rt: Runtime) {
    const SIZE: u64 = 100_000_000;
    let tree = Tree::new();
    tree.patterned("big.bin", SIZE).file("a.txt", "alpha\n");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let pattern = Pattern::new();
    let mut at = 0;
    let head = client.receive(false, |bytes| {
        pattern.check(at, bytes);
        at += bytes.len() as u64;
    });
    assert_eq!((head.status, at), (200, SIZE));
    assert_eq!(client.get("/a.txt").body, b"alpha\n", "the connection continues after it");
}

/// Several concurrent clients each get what they requested.
pub fn parallel_downloads_do_not_mix(rt: Runtime) {
    let tree = Tree::new();
    for size in [10_000, 100_000, 1_000_000, 3_000_000] {
        tree.patterned(format!("{size}.bin"), size);
    }
    let server = Server::start(rt, tree.root());
    std::thread::scope(|scope| {
        for size in [10_000, 100_000, 1_000_000, 3_000_000, 1_000_000, 10_000] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                for _ in 0..3 {
                    let response = client.get(format!("/{size}.bin"));
                    assert_eq!(response.body.len(), size);
                    Pattern::new().check(0, &response.body);
                }
            });
        }
    });
}

/// The fields of a file, in Python's order and with Python's names.
pub fn the_fields_of_a_file(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let response = server.connect().get("/a.txt");
    let head = &response.head;
    assert_eq!((head.version.as_str(), head.status, head.reason.as_str()), ("HTTP/1.1", 200, "OK"));
    let mut names = head.names();
    names.retain(|name| !["ETag", "Accept-Ranges"].contains(name));
    assert_eq!(names, ["Server", "Date", "Content-Type", "Content-Length", "Last-Modified"]);
    assert!(head.text("Server").expect("checked").starts_with("sanserve/"));
    assert_eq!(head.text("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(head.text("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

/// HEAD has the head of GET, field by field, and nothing after it.
pub fn head_is_get_without_a_body(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("indexed").file("indexed/index.html", "<p>index</p>\n").sparse("big.bin", 10 << 20);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let targets = ["/a.txt", "/empty", "/big.bin", "/", "/folder/", "/folder", "/indexed/", "/none", "/a.txt/"];
    for target in targets {
        let get = client.get(target);
        let head = client.ask(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(head.head.without_date(), get.head.without_date(), "{target}");
        assert_eq!(head.body, b"");
    }
    client.half_close();
    client.ends();
}

/// A file that grows while it is sent arrives with the announced length, and the next response is intact.
pub fn a_file_that_grows_is_sent_as_announced(rt: Runtime) {
    const SIZE: u64 = 32 << 20;
    let tree = Tree::new();
    tree.sparse("growing.bin", SIZE).file("a.txt", "alpha\n");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    client.send("GET /growing.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut received = 0;
    let head = client.receive(false, |bytes| {
        if received == 0 {
            tree.resize("growing.bin", SIZE + 100_000);
        }
        received += bytes.len() as u64;
    });
    assert_eq!((head.length(), received), (Some(SIZE), SIZE));
    assert_eq!(client.get("/a.txt").body, b"alpha\n");
}

/// The overrides, the common types, and the default for unknown extensions.
pub fn media_types(rt: Runtime) {
    let table = [
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.htm", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.TXT", "text/plain; charset=utf-8"),
        ("a.b.Html", "text/html; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.svg", "image/svg+xml"),
        ("a.mp4", "video/mp4"),
        ("a.gz", "application/gzip"),
        ("a.tar.gz", "application/gzip"),
        ("a.GZ", "application/gzip"),
        ("a.Z", "application/octet-stream"),
        ("a.bz2", "application/x-bzip2"),
        ("a.xz", "application/x-xz"),
        ("a.tgz", "application/gzip"),
        ("a.txz", "application/x-xz"),
        ("a.zst", "application/zstd"),
        ("a.rpm", "application/x-rpm"),
        ("a.deb", "application/vnd.debian.binary-package"),
        ("a.ts", "video/mp2t"),
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.woff2", "font/woff2"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.tar", "application/x-tar"),
        ("a.unknown-to-all", "application/octet-stream"),
        ("noextension", "application/octet-stream"),
        (".txt", "application/octet-stream"),
        ("dot.", "application/octet-stream"),
        ("a.txt.", "application/octet-stream"),
    ];
    let tree = Tree::new();
    for (name, _) in table {
        tree.file(name, "x");
    }
    tree.folder("folder.txt").file("folder.txt/README", "x");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (name, media_type) in table.into_iter().chain([("folder.txt/README", "application/octet-stream")]) {
        let response = client.get(format!("/{name}"));
        assert_eq!((response.status(), response.text("Content-Type")), (200, Some(media_type)), "{name}");
        assert_eq!(response.text("Content-Encoding"), None, "{name}");
    }
}

/// A compressed SVG image has `Content-Encoding`, so that clients decode it.
pub fn a_compressed_image(rt: Runtime) {
    let tree = Tree::new();
    tree.file("a.svgz", "\x1f\u{8b}compressed").file("a.svg.gz", "x").stamp("a.svgz", STAMP);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let whole = client.get("/a.svgz");
    assert_eq!((whole.text("Content-Type"), whole.text("Content-Encoding")), (Some("image/svg+xml"), Some("gzip")));
    let (tag, len) = (whole.tag(), whole.body.len() as u64);
    let mut ask = |line: &str, fields: &str| client.ask(format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    let head = ask("HEAD /a.svgz", "");
    assert_eq!((head.text("Content-Encoding"), head.head.length()), (Some("gzip"), Some(len)));
    let range = ask("GET /a.svgz", "Range: bytes=1-3\r\n");
    assert_eq!((range.status(), range.text("Content-Encoding")), (206, Some("gzip")));
    assert_eq!(range.body, whole.body[1..4], "the range applies to the compressed bytes");
    let several = ask("GET /a.svgz", "Range: bytes=0-0,2-2\r\n");
    assert_eq!(several.text("Content-Encoding"), None, "the multipart body is not compressed");
    assert_eq!(String::from_utf8_lossy(&several.body).matches("\r\nContent-Encoding: gzip\r\n").count(), 2);
    assert_eq!(ask("GET /a.svgz", &format!("If-None-Match: {tag}\r\n")).status(), 304);
    let archive = ask("GET /a.svg.gz", "");
    assert_eq!((archive.text("Content-Type"), archive.text("Content-Encoding")), (Some("application/gzip"), None));
}

/// `--mime`, `--content-type` and `--charset`.
pub fn media_types_by_flags(rt: Runtime) {
    let tree = Tree::new();
    for name in ["a.foo", "a.FOO", "a.tar.gz", "a.txt", "a.svgz", "README", "a.none", "a.bin", ".foo"] {
        tree.file(name, "x");
    }
    let types = |flags: &[&str], table: &[(&str, &str)]| {
        let server = Server::with(rt, tree.root(), flags);
        for (name, expected) in table {
            let response = server.get(format!("/{name}"));
            assert_eq!(response.text("Content-Type"), Some(*expected), "{name} with {flags:?}");
            assert_eq!(response.text("Content-Encoding"), None, "{name} with {flags:?}");
        }
    };
    let flags =
        ["--mime", ".foo=text/x-foo", "--mime=.tar.gz=a/b; c=d", "--mime", ".txt=text/x-old", "--mime=.TXT=text/x"];
    types(
        &[&flags[..], &["--mime=.svgz=image/svg+xml"]].concat(),
        &[
            ("a.foo", "text/x-foo; charset=utf-8"),
            ("a.FOO", "text/x-foo; charset=utf-8"),
            ("a.tar.gz", "a/b; c=d"),
            ("a.txt", "text/x; charset=utf-8"),
            ("a.svgz", "image/svg+xml"),
            (".foo", "application/octet-stream"),
        ],
    );
    types(
        &["--content-type", "text/plain", "--charset", "iso-8859-1"],
        &[
            ("README", "text/plain; charset=iso-8859-1"),
            ("a.none", "text/plain; charset=iso-8859-1"),
            ("a.txt", "text/plain; charset=iso-8859-1"),
            ("a.bin", "application/octet-stream"),
        ],
    );
    types(&["--charset", "off", "--content-type=text/x"], &[("a.txt", "text/plain"), ("README", "text/x")]);
}

/// `index.html`, then `index.htm`, if they are regular files; else the listing.
pub fn index_pages(rt: Runtime) {
    let tree = Tree::new();
    for folder in ["both", "second", "not-a-file", "fifo", "dangling", "linked"] {
        tree.folder(folder);
    }
    tree.file("both/index.html", "<p>first</p>").file("both/index.htm", "<p>second</p>");
    tree.file("second/index.htm", "<p>second</p>");
    tree.folder("not-a-file/index.html").file("not-a-file/index.htm", "<p>second</p>");
    tree.fifo("fifo/index.html");
    tree.link("dangling/index.html", "nowhere");
    tree.link("linked/index.html", "../both/index.html");
    tree.stamp("both/index.html", STAMP);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let first = client.get("/both/");
    assert_eq!(first.body, b"<p>first</p>");
    assert_eq!(first.text("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(first.text("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(client.get("/both/?query#fragment").body, b"<p>first</p>");
    assert_eq!(client.get("/linked/").body, b"<p>first</p>");
    assert_eq!(client.get("/second/").body, b"<p>second</p>");
    assert_eq!(client.get("/not-a-file/").body, b"<p>second</p>");
    // An index page that exists but cannot be read is no reason to list the directory.
    tree.folder("looping").file("looping/beside", "x").link("looping/index.html", "index.html");
    assert_eq!(client.get("/looping/").status(), 404);
    for folder in ["fifo", "dangling"] {
        let listing = client.get(format!("/{folder}/"));
        assert_eq!(listing.status(), 200);
        assert!(listing.body_text().contains(&format!("Directory listing for /{folder}/")), "{folder}");
    }
}

/// An index page that exists but cannot be read is a 404: neither the next page nor the listing is shown instead.
pub fn index_pages_that_may_not_be_read(rt: Runtime) {
    let tree = Tree::new();
    let bar = |name: &str| {
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(0o000)).expect("permissions can be changed");
    };
    for folder in ["first", "second", "fifo", "folder", "closed"] {
        tree.folder(folder).file(format!("{folder}/beside"), "x");
    }
    tree.file("first/index.html", "<p>").file("first/index.htm", "<p>second</p>");
    tree.file("second/index.htm", "<p>second</p>");
    tree.fifo("fifo/index.html").file("fifo/index.htm", "<p>second</p>");
    tree.folder("folder/index.html").file("folder/index.htm", "<p>second</p>");
    ["first/index.html", "second/index.htm", "fifo/index.html", "folder/index.html", "closed"]
        .into_iter()
        .for_each(bar);
    let server = Server::unprivileged(rt, tree.root(), &[]);
    let mut client = server.connect();
    for folder in ["first", "second"] {
        let response = client.get(format!("/{folder}/"));
        assert_eq!((response.status(), response.head.reason.as_str()), (404, "File not found"), "{folder}");
    }
    for folder in ["fifo", "folder"] {
        assert_eq!(client.get(format!("/{folder}/")).body, b"<p>second</p>", "{folder}");
    }
    let response = client.get("/closed/");
    assert_eq!((response.status(), response.head.reason.as_str()), (404, "No permission to list directory"));
    fs::set_permissions(tree.path("closed"), fs::Permissions::from_mode(0o755)).expect("permissions can be changed");
}

/// The rule for symbolic links applies to index pages, and a refused page still counts as existing.
pub fn index_pages_behind_links(rt: Runtime) {
    let tree = Tree::new();
    std::fs::write(tree.outside().join("page"), "<p>outside</p>").expect("a file can be written");
    tree.file("page", "<p>inside</p>");
    for (folder, target) in [("out", "../../page"), ("in", "../page"), ("gone", "nowhere"), ("loop", "index.html")] {
        tree.folder(folder).file(format!("{folder}/beside"), "x").link(format!("{folder}/index.html"), target);
    }
    let listed = |server: &Server, folder: &str| {
        let response = server.get(format!("/{folder}/"));
        match response.status() {
            200 if response.body_text().contains("beside") => "listed",
            200 if response.body.starts_with(b"<p>") => "page",
            404 => "not found",
            _ => "something else",
        }
    };
    for (policy, expected) in [
        ("follow", ["page", "page", "listed", "not found"]),
        ("inside", ["not found", "page", "listed", "not found"]),
        ("never", ["not found"; 4]),
    ] {
        let server = Server::with(rt, tree.root(), &["--symlinks", policy]);
        assert_eq!(["out", "in", "gone", "loop"].map(|folder| listed(&server, folder)), expected, "{policy}");
    }
}

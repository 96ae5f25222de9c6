//! From target to file: decoding, clamping to the root, links, and special files.

use std::fs;
use std::os::unix::net::UnixListener;

use testkit::page::{check_any_error, check_error};
use testkit::text::quote;
use testkit::{Runtime, Server, Tree};

/// Targets are decoded once, normalized, and cut at query and fragment.
pub fn decoding(rt: Runtime) {
    let tree = Tree::plain();
    tree.file("a+b", "plus").file("a b", "space").file("%41", "percent").file("A", "letter").file("100%", "sign");
    tree.file("folder/%2e%2e", "dots").file("a%zz", "invalid").file("x;y=z", "parameter").file("q?", "question");
    tree.file("h#", "hash").file("\u{fc}", "umlaut").file(b"\xfc", "latin").file("~", "tilde").file("...", "three");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (target, content) in [
        ("/a.txt", "alpha\n"),
        ("/%61%2e%74xt", "alpha\n"),
        ("/a.txt?b.html", "alpha\n"),
        ("/a.txt?", "alpha\n"),
        ("/a.txt?x?y", "alpha\n"),
        ("/a.txt?../b.html", "alpha\n"),
        ("/a.txt#b", "alpha\n"),
        ("/./a.txt", "alpha\n"),
        ("//a.txt", "alpha\n"),
        ("/folder/../a.txt", "alpha\n"),
        ("/folder/%2e%2e/a.txt", "alpha\n"),
        ("/folder/.%2E/a.txt", "alpha\n"),
        ("/none/../a.txt", "alpha\n"),
        ("/folder/inner.txt", "inner\n"),
        ("/folder//inner.txt", "inner\n"),
        ("/folder/./inner.txt", "inner\n"),
        ("/folder%2Finner.txt", "inner\n"),
        ("/folder%2f%2e%2e%2Fa.txt", "alpha\n"),
        ("/a+b", "plus"),
        ("/a%2Bb", "plus"),
        ("/a%20b", "space"),
        ("/%41", "letter"),
        ("/%2541", "percent"),
        ("/100%25", "sign"),
        ("/100%", "sign"),
        ("/a%zz", "invalid"),
        ("/folder/%252e%252e", "dots"),
        ("/x;y=z", "parameter"),
        ("/q%3F", "question"),
        ("/q%3f?x", "question"),
        ("/h%23", "hash"),
        ("/%C3%BC", "umlaut"),
        ("/%c3%bc", "umlaut"),
        ("/%FC", "latin"),
        ("/~", "tilde"),
        ("/%7e", "tilde"),
        ("/...", "three"),
    ] {
        let response = client.get(target);
        assert_eq!((response.status(), response.body_text()), (200, content), "{target}");
    }
    assert_eq!(client.get("/\u{fc}").body, b"umlaut", "raw bytes are used unchanged");
    assert_eq!(client.get(b"/\xfc").body, b"latin", "raw bytes are used unchanged");
    for target in ["/a.txt%20", "/%20a.txt", "/a.txt%2F", "/A.TXT", "/a.txt%3Fx", "/%", "/%4", "/folder/%2541"] {
        check_error(&client.get(target), 404, "File not found");
    }
}

/// An encoded NUL is refused. The connection may continue or not, but nothing is opened.
pub fn encoded_nul(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    for target in ["/a.txt%00", "/%00", "/a.txt%00.html", "/folder/%00/../inner.txt", "/%00/../a.txt"] {
        check_any_error(&server.get(target), 400);
    }
    assert_eq!(server.get("/a.txt?%00").body, b"alpha\n", "a query is not decoded");
}

/// No spelling of `..` leads out of the root.
pub fn traversal(rt: Runtime) {
    let tree = Tree::plain();
    fs::write(tree.outside().join("secret.txt"), "secret\n").expect("a file can be written");
    let server = Server::start(rt, tree.root());
    let dots = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "%252e%252e",
        "..%00",
        "...",
        "....",
        "..;",
        "%c0%ae%c0%ae",
        "%u002e%u002e",
        "%e0%80%ae%e0%80%ae",
        ". .",
        "..%20",
        "..%0d",
        "\\..",
        "%5c..",
    ];
    let slashes = ["/", "%2f", "%2F", "//", "/./", "\\", "%5c", "%252f", "%c0%af", "/folder/../"];
    let mut client = server.connect();
    for dot in dots {
        for slash in slashes {
            for depth in [1, 2, 9] {
                for prefix in ["/", "", "/folder/", "//", "http://x/"] {
                    let target = format!("{prefix}{}secret.txt", format!("{dot}{slash}").repeat(depth));
                    let response = client.get(&target);
                    let status = response.status();
                    assert!([400, 404].contains(&status), "{target}: {status}");
                    assert!(!response.body.windows(6).any(|w| w == b"secret\n"), "{target}");
                    if response.head.closes() {
                        client = server.connect();
                    }
                }
            }
        }
    }
    for target in ["/../a.txt", "/../../../../a.txt", "/%2e%2e/a.txt", "/folder/../../a.txt", "/..%2f..%2fa.txt"] {
        assert_eq!(server.get(target).body, b"alpha\n", "{target} is clamped to the root");
    }
    for (target, title) in [("/../", "/../"), ("/%2e%2e/", "/../"), ("/folder/../", "/folder/../"), ("/./", "/./")] {
        let response = server.get(target);
        assert!(response.body_text().contains(&format!("Directory listing for {title}<")), "{target}");
        assert!(response.body_text().contains("\"a.txt\""), "{target} is clamped to the root");
    }
    for target in ["/..", "/%2e%2e", "/folder/..", "/."] {
        let response = server.get(target);
        assert!(
            response.status() == 301 || response.body_text().contains("\"a.txt\""),
            "{target}: {:?}",
            response.head
        );
    }
}

/// Symbolic links are followed by default, even out of the root; broken and looping ones are a 404.
pub fn symbolic_links(rt: Runtime) {
    let tree = Tree::plain();
    fs::write(tree.outside().join("outside.txt"), "outside\n").expect("a file can be written");
    tree.link("to-a", "a.txt").link("to-folder", "folder").link("out", tree.outside().join("outside.txt"));
    tree.link("up", "..").link("broken", "nowhere").link("loop", "loop").link("chain", "to-a");
    tree.link("absolute", tree.path("folder"));
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (target, content) in [
        ("/to-a", "alpha\n"),
        ("/chain", "alpha\n"),
        ("/to-folder/inner.txt", "inner\n"),
        ("/absolute/inner.txt", "inner\n"),
        ("/out", "outside\n"),
        ("/up/outside.txt", "outside\n"),
    ] {
        let response = client.get(target);
        assert_eq!((response.status(), response.body_text()), (200, content), "{target}");
    }
    let response = client.get("/to-folder");
    assert_eq!((response.status(), response.text("Location")), (301, Some("/to-folder/")));
    for target in ["/broken", "/loop", "/loop/x", "/broken/"] {
        check_error(&client.get(target), 404, "File not found");
    }
}

/// Dotfiles are served by default.
pub fn dotfiles(rt: Runtime) {
    let tree = Tree::plain();
    tree.file(".profile", "dot").folder(".git").file(".git/config", "config");
    let server = Server::start(rt, tree.root());
    assert_eq!(server.get("/.profile").body, b"dot");
    assert_eq!(server.get("/.git/config").body, b"config");
}

/// `--hide-dotfiles` hides them in all paths, and in listings.
pub fn hidden_dotfiles(rt: Runtime) {
    let tree = Tree::plain();
    tree.file(".secret", "s").folder(".git").file(".git/config", "c").file("not.hidden", "n");
    let server = Server::with(rt, tree.root(), &["--hide-dotfiles"]);
    for target in
        ["/.secret", "/%2esecret", "/.git/", "/.git", "/.git/config", "/folder/..%2f.secret", "/.git/../.secret"]
    {
        assert_eq!(server.get(target).status(), 404, "{target}");
    }
    // A component that is resolved away is not part of the path.
    assert_eq!(server.get("/.git/../not.hidden").status(), 200);
    assert_eq!(server.get("/./not.hidden").status(), 200);
    let listing = server.get("/").body_text().to_owned();
    assert!(listing.contains("not.hidden") && !listing.contains(".secret") && !listing.contains(".git"), "{listing}");
}

/// FIFOs, sockets and devices are a 404 immediately, however they are reached, and block nothing.
pub fn special_files(rt: Runtime) {
    let tree = Tree::plain();
    tree.fifo("fifo").link("to-fifo", "fifo");
    tree.link("zero", "/dev/zero").link("null", "/dev/null").link("random", "/dev/urandom").link("dev", "/dev");
    tree.link("terminal", "/dev/tty").link("full", "/dev/full");
    let _listener = UnixListener::bind(tree.path("socket")).expect("a socket");
    let server = Server::with(rt, tree.root(), rt.alone());
    let mut client = server.connect();
    for _ in 0..20 {
        for name in ["fifo", "to-fifo", "zero", "null", "random", "socket", "terminal", "full", "dev/zero"] {
            check_error(&client.get(format!("/{name}")), 404, "File not found");
            check_error(&client.get(format!("/{name}/")), 404, "File not found");
            let head = client.ask(format!("HEAD /{name} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(head.status(), 404);
        }
    }
    assert_eq!(client.get("/a.txt").body, b"alpha\n");
}

/// A name may consist of any bytes but `/` and NUL.
pub fn names_of_any_bytes(rt: Runtime) {
    let tree = Tree::new();
    let bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for byte in &bytes {
        tree.file([b'n', *byte, b'n'], [*byte]);
    }
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for byte in &bytes {
        let response = client.get(format!("/{}", quote([b'n', *byte, b'n'])));
        assert_eq!((response.status(), response.body.as_slice()), (200, &[*byte][..]), "byte {byte:#x}");
        let response = client.get(format!("/n%{byte:02x}n"));
        assert_eq!((response.status(), response.body.as_slice()), (200, &[*byte][..]), "byte {byte:#x}");
    }
    let longest = "l".repeat(255);
    tree.file(&longest, "long");
    assert_eq!(client.get(format!("/{longest}")).body, b"long");
    assert_eq!(client.get(format!("/{longest}l")).status(), 404);
}

/// `--symlinks inside` follows links that stay below the root, and `never` follows none. A refused link is a 404,
/// also as a folder in the path, as an index page and as a link of a listing.
pub fn symbolic_link_policies(rt: Runtime) {
    let tree = Tree::plain();
    fs::write(tree.outside().join("outside.txt"), "outside\n").expect("a file can be written");
    tree.folder("indexed").link("indexed/index.html", tree.outside().join("outside.txt"));
    tree.link("to-a", "a.txt").link("to-folder", "folder").link("folder/up-to-a", "../a.txt");
    tree.link("out", "../outside.txt").link("out-absolute", tree.outside().join("outside.txt")).link("up", "..");
    tree.link("out-and-in", "../root/a.txt");
    for (policy, inside) in [("inside", 200), ("never", 404)] {
        let server = Server::with(rt, tree.root(), &["--symlinks", policy]);
        let mut client = server.connect();
        for target in ["/to-a", "/to-folder/inner.txt", "/folder/up-to-a"] {
            assert_eq!(client.get(target).status(), inside, "{policy} {target}");
        }
        for target in ["/out", "/out-absolute", "/up/outside.txt", "/up/", "/up/root/a.txt", "/out-and-in"] {
            let response = client.get(target);
            assert_eq!(response.status(), 404, "{policy} {target}");
        }
        let indexed = client.get("/indexed/");
        assert!(!indexed.body_text().contains("outside\n"), "{policy}");
        assert_eq!(client.get("/a.txt").body, b"alpha\n");
        assert_eq!(client.get("/folder/inner.txt").body, b"inner\n");
    }
    let server = Server::with(rt, tree.root(), &["--symlinks=follow"]);
    assert_eq!(server.get("/out").body, b"outside\n");
}

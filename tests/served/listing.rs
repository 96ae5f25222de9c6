//! Directory listings: the page byte for byte, hostile names, and links that lead to the named files.

use std::os::unix::net::UnixListener;

use testkit::page;
use testkit::text::{escape, quote, unescape, unquote};
use testkit::tree::HOSTILE;
use testkit::{Runtime, Server, Tree};

/// The page and the fields exactly as specified.
pub fn the_page_is_exact(rt: Runtime) {
    let tree = Tree::new();
    tree.file("b.txt", "").file("A.txt", "").file(".dot", "").file("a & <b>.txt", "").file("C", "").file("c", "");
    tree.folder("Dir").folder("dir").link("to-dir", "Dir").link("to-file", "b.txt").link("dangling", "nowhere");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let response = client.get("/");
    let rows = [
        (".dot", ".dot"),
        ("a%20%26%20%3Cb%3E.txt", "a &amp; &lt;b&gt;.txt"),
        ("A.txt", "A.txt"),
        ("b.txt", "b.txt"),
        ("C", "C"),
        ("c", "c"),
        ("dangling", "dangling@"),
        ("Dir/", "Dir/"),
        ("dir/", "dir/"),
        ("to-dir/", "to-dir@"),
        ("to-file", "to-file@"),
    ];
    assert_eq!(response.body_text(), page::listing("/", &rows));
    assert_eq!(response.head.names()[..4], ["Server", "Date", "Content-Type", "Content-Length"]);
    assert_eq!(response.text("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(client.get("/?query=1#fragment").body_text(), page::listing("/", &rows));
    assert_eq!(client.get("/Dir/").body_text(), page::listing("/Dir/", &[]), "an empty directory");
    assert_eq!(client.get("/%44ir/?x").body_text(), page::listing("/Dir/", &[]), "the title is decoded");
}

/// The title shows the decoded path, escaped.
pub fn the_title_is_escaped(rt: Runtime) {
    let tree = Tree::new();
    tree.folder("<i>&amp;").folder("two words").folder(b"b\xff");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    assert_eq!(client.get("/%3Ci%3E&amp;/").body_text(), page::listing("/<i>&amp;/", &[]));
    assert_eq!(client.get("/two%20words/").body_text(), page::listing("/two words/", &[]));
    let page = client.get("/b%FF/");
    assert_eq!(page.status(), 200);
    assert!(!page.body_text().contains("b\u{ff}"), "an invalid byte is shown as text: {}", page.body_text());
}

/// Every link of a listing of hostile names leads to the named file.
pub fn links_to_hostile_names_work(rt: Runtime) {
    let tree = Tree::new();
    for (at, name) in HOSTILE.iter().enumerate() {
        tree.file(name, format!("content {at}"));
    }
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let response = client.get("/");
    let text = response.body_text();
    let rows = page::rows(text);
    assert_eq!(rows.len(), HOSTILE.len());
    for (at, name) in HOSTILE.iter().enumerate() {
        let link = quote(name);
        let row = rows.iter().find(|row| row.0 == link).unwrap_or_else(|| panic!("no link {link} in {text}"));
        assert_eq!(unquote(row.0), *name);
        if let Ok(name) = std::str::from_utf8(name)
            && !name.contains(char::is_control)
        {
            // A character that changes the direction of text is replaced.
            assert_eq!(unescape(row.1), name.replace('\u{202e}', "\u{fffd}"));
        }
        assert!(!row.1.contains(['<', '>']), "{row:?}");
        let response = client.get(format!("/{link}"));
        assert_eq!((response.status(), response.body_text()), (200, format!("content {at}").as_str()), "{link}");
    }
}

/// The same for directories: the listing, the redirect and the file below.
pub fn hostile_directories_can_be_walked(rt: Runtime) {
    let tree = Tree::new();
    for name in HOSTILE {
        tree.folder(name).file([name, &b"/x"[..]].concat(), name);
    }
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let response = client.get("/");
    let rows = page::rows(response.body_text());
    assert_eq!(rows.len(), HOSTILE.len());
    for (link, _) in rows {
        assert!(link.ends_with('/'), "{link}");
        let name = unquote(link.trim_end_matches('/'));
        let redirect = client.get(format!("/{}", link.trim_end_matches('/')));
        assert_eq!((redirect.status(), redirect.text("Location")), (301, Some(format!("/{link}").as_str())));
        assert_eq!(page::rows(client.get(format!("/{link}")).body_text()), [("x", "x")]);
        assert_eq!(client.get(format!("/{link}x")).body, name);
    }
}

/// Entries are sorted by lower-cased name, then by bytes, even if there are more than one read returns.
pub fn three_thousand_entries_in_order(rt: Runtime) {
    let tree = Tree::new();
    let mut names: Vec<String> = (0..3000).map(|n| format!("{}{n:05}", if n % 2 == 0 { "E" } else { "e" })).collect();
    for name in &names {
        tree.file(name, "");
    }
    names.sort_by_key(|name| name.to_lowercase());
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let response = client.get("/");
    let rows: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    assert!(response.body_text() == page::listing("/", &rows), "the rows are not in order");
    let head = client.ask("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.head.without_date(), response.head.without_date());
}

/// Files that are never served are still listed as plain names, as in Python.
pub fn special_files_are_listed(rt: Runtime) {
    let tree = Tree::new();
    tree.fifo("fifo").link("zero", "/dev/zero");
    let _listener = UnixListener::bind(tree.path("socket")).expect("a socket");
    let server = Server::start(rt, tree.root());
    let rows = [("fifo", "fifo"), ("socket", "socket"), ("zero", "zero@")];
    assert_eq!(server.get("/").body_text(), page::listing("/", &rows));
}

/// A listing shows the current entries.
pub fn a_listing_is_fresh(rt: Runtime) {
    let tree = Tree::new();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let mut names: Vec<String> = Vec::new();
    for n in 0..50 {
        let name = format!("f{n:02}<");
        tree.file(&name, "");
        names.push(name);
        let rows: Vec<(String, String)> = names.iter().map(|name| (quote(name), escape(name))).collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|row| (row.0.as_str(), row.1.as_str())).collect();
        assert_eq!(client.get("/").body_text(), page::listing("/", &rows));
    }
}

//! The redirect from a directory without its slash, which must never lead to another server.

use testkit::{Client, Runtime, Server, Tree};

fn location(client: &mut Client, target: &str) -> String {
    let response = client.get(target);
    assert_eq!(response.status(), 301, "{target}");
    assert_eq!(response.body, b"", "{target}");
    assert_eq!(response.text("Content-Length"), Some("0"), "{target}");
    response.text("Location").expect("a redirect has a Location").to_owned()
}

/// The path gets a slash; the query stays; percent-encoding is kept.
pub fn to_the_slash(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("two words").folder("folder/deep").folder("a+b").folder("que?ry");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (target, expected) in [
        ("/folder", "/folder/"),
        ("/folder?x=1&y=/2", "/folder/?x=1&y=/2"),
        ("/folder?", "/folder/?"),
        ("/folder/deep", "/folder/deep/"),
        ("/two%20words?q", "/two%20words/?q"),
        ("/%66older", "/%66older/"),
        ("/a+b", "/a+b/"),
        ("/que%3Fry", "/que%3Fry/"),
        ("/folder?a?b", "/folder/?a?b"),
        ("/folder/../folder", "/folder/../folder/"),
        ("//folder", "/folder/"),
        ("////folder?x", "/folder/?x"),
        ("http://other.example/folder", "/folder/"),
        ("http://other.example:81//folder?x=/1&y", "/folder/?x=/1&y"),
        ("https://x/%66older?", "/%66older/?"),
    ] {
        assert_eq!(location(&mut client, target), expected, "{target}");
    }
    let response = client.get("/folder");
    assert_eq!(response.head.names()[..4], ["Server", "Date", "Location", "Content-Length"]);
    assert_eq!(client.get("/folder/").status(), 200);
    assert_eq!(client.get("/folder%2f").status(), 200, "an encoded slash counts as one");
}

/// Whatever the target is, `Location` stays on this server.
pub fn never_to_another_server(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("evil.example").folder("evil.example/%2e%2e").folder("\\evil.example").folder("@evil.example");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for target in [
        "//evil.example",
        "///evil.example",
        "//evil.example/..",
        "//evil.example/%2e%2e",
        "//evil.example/%2e%2e%2f",
        "/%2fevil.example",
        "/%2Fevil.example%2f..",
        "/./evil.example",
        "/.//evil.example",
        "/folder/..//evil.example",
        "/%5cevil.example",
        "/\\evil.example",
        "/@evil.example",
        "//evil.example/%2e%2e/folder",
        "//evil.example?x",
        "http://evil.example/folder",
        "http://x//evil.example",
        "http://x///evil.example?y",
        "HTTP://evil.example:80//folder/.",
        "https://user@evil.example/folder",
    ] {
        let response = client.get(target);
        assert!([200, 301, 400, 404].contains(&response.status()), "{target}: {:?}", response.head);
        if response.status() == 400 {
            client = server.connect();
        }
        if let Some(location) = response.text("Location") {
            let bytes = location.as_bytes();
            assert_eq!(bytes[0], b'/', "{target} leads to {location}");
            assert!(!matches!(bytes.get(1), Some(b'/' | b'\\')), "{target} leads to {location}");
        }
    }
}

/// No target can inject a field into the response.
pub fn no_field_is_injected(rt: Runtime) {
    let tree = Tree::plain();
    tree.folder("a\r\nInjected: yes");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let target = "/a%0d%0aInjected:%20yes";
    assert_eq!(location(&mut client, target), format!("{target}/"));
    let raw = server.get(target).head;
    assert!(raw.text("Injected").is_none(), "{raw:?}");
    for target in ["/folder?x=%0d%0aInjected:%20yes", "/folder?%0aInjected:%20yes"] {
        let response = client.get(target);
        assert!(response.text("Injected").is_none(), "{target}: {:?}", response.head);
        assert_eq!(response.text("Location"), Some(target.replace('?', "/?").as_str()));
    }
}

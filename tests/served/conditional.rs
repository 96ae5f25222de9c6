//! Conditional requests (RFC 9110 section 13): validators, the four conditions, their precedence.

use testkit::page::check_any_error;
use testkit::{Client, Response, Runtime, Server, Tree, eventually};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

/// A server of the plain tree, a connection to it, and the tag of `/a.txt`.
struct Setup {
    server: Server,
    client: Client,
    tag: String,
    _tree: Tree,
}

fn setup(rt: Runtime) -> Setup {
    let tree = Tree::plain();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let tag = client.get("/a.txt").tag();
    Setup { server, client, tag, _tree: tree }
}

impl Setup {
    /// GETs `target` with these fields.
    #[track_caller]
    fn get(&mut self, target: &str, fields: &str) -> Response {
        let fields = fields.replace("{tag}", &self.tag);
        self.client.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"))
    }

    /// Asserts the status of `/a.txt` with these fields, for GET and HEAD, and all that goes with it.
    #[track_caller]
    fn check(&mut self, fields: &str, status: u16) {
        let response = self.get("/a.txt", fields);
        assert_eq!(response.status(), status, "{fields}");
        match status {
            200 => assert_eq!(response.body, b"alpha\n", "{fields}"),
            304 => self.check_not_modified(&response),
            _ => _ = check_any_error(&response, status),
        }
        let fields = fields.replace("{tag}", &self.tag);
        let head = self.client.ask(format!("HEAD /a.txt HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"));
        assert_eq!(head.head.without_date(), response.head.without_date(), "{fields}");
    }

    /// A 304 has the fields that a 200 would have for caches, and no others (RFC 9110 section 15.4.5).
    #[track_caller]
    fn check_not_modified(&self, response: &Response) {
        assert_eq!(response.head.reason, "Not Modified");
        assert_eq!(response.text("ETag"), Some(self.tag.as_str()));
        assert_eq!(response.text("Last-Modified").unwrap_or(DATE), DATE);
        for name in ["Content-Type", "Content-Length", "Transfer-Encoding"] {
            assert_eq!(response.text(name), None, "{:?}", response.head);
        }
    }
}

/// `If-Modified-Since` in the three formats that a server must accept. Invalid dates are ignored.
pub fn if_modified_since(rt: Runtime) {
    let mut setup = setup(rt);
    for (date, status) in [
        (DATE, 304),
        (LATER, 304),
        (EARLIER, 200),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("Sunday, 06-Nov-94 08:49:38 GMT", 304),
        ("Sunday, 06-Nov-94 08:49:36 GMT", 200),
        ("Sun Nov  6 08:49:37 1994", 304),
        ("Sun Nov  6 08:49:38 1994", 304),
        ("Sun Nov  6 08:49:36 1994", 200),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("yesterday", 200),
        ("", 200),
        ("0", 200),
        ("Sun, 06 Nov 1994 08:49:37", 200),
        ("Sun, 06 Nov 1994 25:49:37 GMT", 200),
        ("Sun, 99 Nov 1994 08:49:37 GMT", 200),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 200),
        ("784111777", 200),
    ] {
        if date.contains("9999 ") {
            // A date in the future is invalid or later; both are permitted.
            let response = setup.get("/a.txt", &format!("If-Modified-Since: {date}"));
            assert!([200, 304].contains(&response.status()), "{date}");
            continue;
        }
        setup.check(&format!("If-Modified-Since: {date}"), status);
    }
}

/// `If-None-Match`: one, lists, `*`, weak comparison.
pub fn if_none_match(rt: Runtime) {
    let mut setup = setup(rt);
    for (value, status) in [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ("*", 304),
        ("\"x\", {tag}", 304),
        ("\"x\",{tag}", 304),
        ("{tag}, \"x\"", 304),
        ("\"x\" , W/\"y\",, W/{tag}", 304),
        ("\"x\"\r\nIf-None-Match: {tag}", 304),
        ("\"x\"", 200),
        ("\"\"", 200),
        ("W/\"x\"", 200),
        ("\"x\", \"y\", \"z\"", 200),
        ("\"x, {tag}", 200),
        ("garbage", 200),
        ("", 200),
    ] {
        if value == "\"x, {tag}" {
            // Malformed: any reading is permitted, but there must be a response.
            let response = setup.get("/a.txt", &format!("If-None-Match: {value}"));
            assert!([200, 304, 400].contains(&response.status()), "{value}");
            continue;
        }
        setup.check(&format!("If-None-Match: {value}"), status);
    }
    let tag = setup.tag.clone();
    setup.check(&format!("If-None-Match: {}", tag.trim_matches('"')), 200);
    let many = vec!["\"x\""; 1000].join(", ");
    setup.check(&format!("If-None-Match: {many}, {{tag}}"), 304);
}

/// `If-Match`: strong comparison, 412.
pub fn if_match(rt: Runtime) {
    let mut setup = setup(rt);
    for (value, status) in [
        ("{tag}", 200),
        ("*", 200),
        ("\"x\", {tag}", 200),
        ("{tag}, \"x\"", 200),
        ("W/{tag}", 412),
        ("\"x\"", 412),
        ("\"x\", W/{tag}", 412),
    ] {
        setup.check(&format!("If-Match: {value}"), status);
    }
}

/// `If-Unmodified-Since`: 412 if the file is newer.
pub fn if_unmodified_since(rt: Runtime) {
    let mut setup = setup(rt);
    for (date, status) in [
        (DATE, 200),
        (LATER, 200),
        (EARLIER, 412),
        ("Sun Nov  6 08:49:36 1994", 412),
        ("Sunday, 06-Nov-94 08:49:36 GMT", 412),
        ("yesterday", 200),
    ] {
        setup.check(&format!("If-Unmodified-Since: {date}"), status);
    }
}

/// The order of RFC 9110 section 13.2.2.
pub fn precedence(rt: Runtime) {
    let mut setup = setup(rt);
    for (fields, status) in [
        // If-None-Match before If-Modified-Since.
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}"), 200),
        (format!("If-Modified-Since: {DATE}\r\nIf-None-Match: \"x\""), 200),
        (format!("If-None-Match: {{tag}}\r\nIf-Modified-Since: {EARLIER}"), 304),
        // If-Match before If-Unmodified-Since.
        (format!("If-Match: {{tag}}\r\nIf-Unmodified-Since: {EARLIER}"), 200),
        (format!("If-Match: \"x\"\r\nIf-Unmodified-Since: {DATE}"), 412),
        // If-Match and If-Unmodified-Since before the other two.
        ("If-Match: \"x\"\r\nIf-None-Match: {tag}".to_owned(), 412),
        ("If-Match: {tag}\r\nIf-None-Match: {tag}".to_owned(), 304),
        ("If-Match: {tag}\r\nIf-None-Match: \"x\"".to_owned(), 200),
        (format!("If-Unmodified-Since: {EARLIER}\r\nIf-None-Match: {{tag}}"), 412),
        (format!("If-Unmodified-Since: {DATE}\r\nIf-None-Match: {{tag}}"), 304),
        (format!("If-Unmodified-Since: {EARLIER}\r\nIf-Modified-Since: {DATE}"), 412),
        (format!("If-Match: {{tag}}\r\nIf-Modified-Since: {DATE}"), 304),
    ] {
        setup.check(&fields, status);
    }
}

/// Conditions only apply if the response would be a 200 without them (RFC 9110 section 13.2.1).
pub fn not_for_other_answers(rt: Runtime) {
    let mut setup = setup(rt);
    for fields in [
        "If-None-Match: *",
        "If-Match: \"x\"",
        "If-Match: *",
        "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT",
        "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    ] {
        assert_eq!(setup.get("/none", fields).status(), 404, "{fields}");
        assert_eq!(setup.get("/folder", fields).status(), 301, "{fields}");
        let response = setup.client.ask(format!("OPTIONS /a.txt HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"));
        assert_eq!(response.status(), 204, "{fields}");
    }
}

/// An index page has the validators of its file.
pub fn of_an_index_page(rt: Runtime) {
    let tree = Tree::new();
    tree.file("index.html", "<p>index</p>").stamp("index.html", testkit::tree::STAMP);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let (page, file) = (client.get("/"), client.get("/index.html"));
    assert_eq!(page.tag(), file.tag());
    let response = client.ask(format!("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: {}\r\n\r\n", page.tag()));
    assert_eq!(response.status(), 304);
    let response = client.ask(format!("GET / HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: {DATE}\r\n\r\n"));
    assert_eq!(response.status(), 304);
}

/// Tags are strong, and depend on length and date, but not on the inode, so that replicas agree.
pub fn tags(rt: Runtime) {
    let mut setup = setup(rt);
    let tree = Tree::plain();
    tree.file("same.txt", "alpha\n").stamp("same.txt", testkit::tree::STAMP);
    tree.file("longer.txt", "alpha\n\n").stamp("longer.txt", testkit::tree::STAMP);
    tree.file("later.txt", "alpha\n").stamp("later.txt", testkit::tree::STAMP + 1);
    let other = Server::start(rt, tree.root());
    let mut client = other.connect();
    assert_eq!(client.get("/a.txt").tag(), setup.tag, "a replica");
    assert_eq!(client.get("/same.txt").tag(), setup.tag, "another inode");
    assert_ne!(client.get("/longer.txt").tag(), setup.tag);
    assert_ne!(client.get("/later.txt").tag(), setup.tag);
    assert_eq!(setup.get("/a.txt", "X: y").tag(), setup.tag, "the tag is stable");
    assert_eq!(setup.server.get("/a.txt").tag(), setup.tag, "on every connection");
}

/// A 304 does not end the connection, and has no body.
pub fn a_connection_continues_after_a_304(rt: Runtime) {
    let mut setup = setup(rt);
    let not_modified = format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {}\r\n\r\n", setup.tag);
    setup.client.send(not_modified.repeat(20));
    for _ in 0..20 {
        let response = setup.client.response();
        assert_eq!(response.status(), 304);
        setup.check_not_modified(&response);
    }
    setup.check("X: y", 200);
    let response = setup.client.ask(not_modified.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!((response.status(), response.head.closes()), (304, true));
    setup.client.ends();
}

/// A time that packaging tools write into every file is not a validator, because another version may have it too.
pub fn times_that_mean_nothing(rt: Runtime) {
    let tree = Tree::new();
    tree.file("f.txt", "aaaa");
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for stamp in [0, 1, 86_399, 315_532_800, 499_162_500] {
        tree.file("f.txt", "aaaa").stamp("f.txt", stamp);
        let first = client.get("/f.txt");
        assert_eq!((first.text("ETag"), first.text("Last-Modified")), (None, None), "{stamp}");
        tree.replace("f.txt", "bbbb").stamp("f.txt", stamp);
        let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: \"1-0-4\"";
        let again = client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\n{since}\r\n\r\n"));
        assert_eq!((again.status(), again.body_text()), (200, "bbbb"), "{stamp}");
        let since = "Range: bytes=0-1\r\nIf-Range: Thu, 01 Jan 1970 00:00:01 GMT";
        let range = client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\n{since}\r\n\r\n"));
        assert_eq!((range.status(), range.body_text()), (200, "bbbb"), "{stamp}");
        let range = client.ask("GET /f.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0,2-2\r\n\r\n");
        assert_eq!(range.status(), 206, "{stamp}");
    }
}

/// `--etag content`: the tag depends on the content only. A large file gets one when it was hashed.
pub fn tags_of_content(rt: Runtime) {
    let tree = Tree::new();
    let large = |byte: u8| vec![byte; 300_000];
    tree.file("f.txt", "aaaa").stamp("f.txt", 1).file("g.txt", "aaaa").file("large.bin", large(b'a'));
    let server = Server::with(rt, tree.root(), &["--etag", "content"]);
    let mut client = server.connect();
    let first = client.get("/f.txt");
    assert_eq!(first.text("Last-Modified"), None);
    assert_eq!(client.get("/g.txt").tag(), first.tag(), "the same content, another time");
    let same = client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {}\r\n\r\n", first.tag()));
    assert_eq!(same.status(), 304);
    for n in 0..20 {
        let content = format!("{n:04}");
        tree.file("f.txt", &content).stamp("f.txt", 1);
        let other = client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {}\r\n\r\n", first.tag()));
        assert_eq!((other.status(), other.body_text()), (200, content.as_str()));
        assert_ne!(other.tag(), first.tag());
    }
    eventually("the large file is hashed", || client.get("/large.bin").text("ETag").is_some());
    let tag = client.get("/large.bin").tag();
    let same = client.ask(format!("GET /large.bin HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert_eq!(same.status(), 304);
    tree.replace("large.bin", large(b'b'));
    let other = client.ask(format!("GET /large.bin HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert!(other.status() == 200 && other.body == large(b'b'));
    eventually("the new version is hashed", || client.get("/large.bin").text("ETag").is_some_and(|now| now != tag));
}

/// `--etag off`: only the date is a validator.
pub fn no_tags(rt: Runtime) {
    let tree = Tree::plain();
    let server = Server::with(rt, tree.root(), &["--etag=off"]);
    let mut client = server.connect();
    let response = client.get("/a.txt");
    assert_eq!(response.text("ETag"), None);
    assert_eq!(response.text("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(client.ask(format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{since}\r\n\r\n")).status(), 304);
}

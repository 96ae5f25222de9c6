//! The requests that are sent to both servers, and the tree that both serve.

use testkit::Tree;
use testkit::tree::STAMP;

/// One connection: the bytes that are sent before the half-close.
pub struct Case {
    /// The name in the tables of differences.
    pub name: String,
    /// The bytes.
    pub request: Vec<u8>,
}

/// Files of all kinds, all dated [`STAMP`].
pub fn tree() -> Tree {
    let tree = Tree::plain();
    let files: [(&str, &str); 17] = [
        ("data.bin", "\0\x01binary"),
        ("page.css", "p {}\n"),
        ("image.png", "png"),
        ("archive.gz", "gz"),
        ("archive.tar.gz", "gz"),
        ("archive.bz2", "bz2"),
        ("archive.xz", "xz"),
        ("old.Z", "Z"),
        ("no-extension", "none\n"),
        ("what.unknown-to-all", "unknown\n"),
        ("UPPER.TXT", "upper\n"),
        ("two words.txt", "words\n"),
        ("a+b.txt", "plus\n"),
        ("100%.txt", "percent\n"),
        ("<i>&.txt", "markup\n"),
        (".hidden", "dot\n"),
        ("gr\u{fc}n.txt", "green\n"),
    ];
    for (name, content) in files {
        tree.file(name, content).stamp(name, STAMP);
    }
    tree.folder("indexed").file("indexed/index.html", "<p>index</p>\n").stamp("indexed/index.html", STAMP);
    tree.folder("second").file("second/index.htm", "<p>second</p>\n").stamp("second/index.htm", STAMP);
    tree.folder("empty-folder").folder("names").folder("<b>").folder("quotes");
    for name in ["B", "a", "C", "d e", "<x>", "\u{e4}", "%41", "-", ".dot", "~", "x&y"] {
        tree.file(format!("names/{name}"), "");
    }
    tree.folder("names/sub").link("names/to-sub", "sub").link("names/to-a", "a").link("names/dangling", "nowhere");
    tree.file("quotes/it's", "").file("quotes/\"this\"", "");
    tree.link("link.txt", "a.txt").link("link-folder", "folder").link("broken", "nowhere");
    tree
}

/// GETs without other fields; the name of the case is the target.
const TARGETS: &[&str] = &[
    "/",
    "/?query",
    "/#fragment",
    "/a.txt",
    "/a.txt?query",
    "/a.txt#fragment",
    "/a.txt/",
    "/a.txt/x",
    "/b.html",
    "/empty",
    "/data.bin",
    "/page.css",
    "/image.png",
    "/archive.gz",
    "/archive.tar.gz",
    "/archive.bz2",
    "/archive.xz",
    "/old.Z",
    "/no-extension",
    "/what.unknown-to-all",
    "/UPPER.TXT",
    "/two%20words.txt",
    "/a+b.txt",
    "/a%2bb.txt",
    "/100%25.txt",
    "/100%.txt",
    "/%3Ci%3E&.txt",
    "/.hidden",
    "/gr%C3%BCn.txt",
    "/gr%c3%bcn.txt",
    "/folder",
    "/folder?query",
    "/folder?a=1&b=/2",
    "/folder/",
    "/folder/?query",
    "/folder/inner.txt",
    "/folder//inner.txt",
    "/folder/./inner.txt",
    "/folder/../a.txt",
    "/folder%2finner.txt",
    "/folder%2f",
    "/%66older",
    "/empty-folder",
    "/empty-folder/",
    "/indexed",
    "/indexed/",
    "/indexed/?query",
    "/second/",
    "/names/",
    "/quotes/",
    "/%3Cb%3E",
    "/%3Cb%3E/",
    "/link.txt",
    "/link-folder",
    "/link-folder/",
    "/link-folder/inner.txt",
    "/broken",
    "/none",
    "/none/",
    "/none?query",
    "/none%00",
    "/a.txt%00",
    "/../a.txt",
    "/../../../etc/passwd",
    "/%2e%2e/a.txt",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc%2fpasswd",
    "/.",
    "/..",
    "/./a.txt",
    "//",
    "//a.txt",
    "//folder",
    "///folder?query",
    "//evil.example/%2e%2e",
    "//evil.example/..",
    "/%",
    "/%zz",
    "/%4",
    "/%ff",
    "/a%20",
    "/;a.txt",
    "/a.txt;x",
    "*",
    "a.txt",
    "http://x/a.txt",
    "http://x/folder",
    "http://x/",
];

/// Fields for a GET of `/a.txt`, and a name for each.
const FIELDS: &[(&str, &str)] = &[
    ("close", "Connection: close\r\n"),
    ("keep-alive", "Connection: keep-alive\r\n"),
    ("connection-list", "Connection: x, close\r\n"),
    ("if-modified-since", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
    ("if-modified-since-later", "If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT\r\n"),
    ("if-modified-since-earlier", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n"),
    ("if-modified-since-rfc850", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n"),
    ("if-modified-since-asctime", "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n"),
    ("if-modified-since-garbage", "If-Modified-Since: garbage\r\n"),
    (
        "if-modified-since-and-none-match",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: \"x\"\r\n",
    ),
    ("if-none-match-any", "If-None-Match: *\r\n"),
    ("if-match-other", "If-Match: \"x\"\r\n"),
    ("if-unmodified-since-earlier", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n"),
    ("range", "Range: bytes=1-3\r\n"),
    ("range-suffix", "Range: bytes=-2\r\n"),
    ("range-beyond", "Range: bytes=100-\r\n"),
    ("range-garbage", "Range: garbage\r\n"),
    ("expect-continue", "Expect: 100-continue\r\n"),
    ("expect-other", "Expect: something\r\n"),
    ("second-host", "Host: y\r\n"),
    ("space-before-colon", "X : y\r\n"),
    ("folded", "X: y\r\n z\r\n"),
    ("nul", "X: \0\r\n"),
    ("no-colon", "X\r\n"),
    ("not-ascii", "X: \u{fc}\r\n"),
    ("length-zero", "Content-Length: 0\r\n"),
    ("length-malformed", "Content-Length: x\r\n"),
    ("lengths-differ", "Content-Length: 0\r\nContent-Length: 1\r\n"),
    ("length-and-coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    ("coding-unknown", "Transfer-Encoding: gzip\r\n"),
];

/// Complete inputs, and a name for each.
const INPUTS: &[(&str, &str)] = &[
    ("http-1.0", "GET /a.txt HTTP/1.0\r\n\r\n"),
    ("http-1.0-not-found", "GET /none HTTP/1.0\r\n\r\n"),
    ("http-1.0-listing", "GET /names/ HTTP/1.0\r\n\r\n"),
    ("http-1.0-keep-alive", "GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /a.txt HTTP/1.0\r\n\r\n"),
    ("http-1.2", "GET /a.txt HTTP/1.2\r\nHost: x\r\n\r\n"),
    ("http-2.0", "GET /a.txt HTTP/2.0\r\nHost: x\r\n\r\n"),
    ("http-0.9", "GET /a.txt\r\n"),
    ("http-0.9-post", "POST /a.txt\r\n"),
    ("no-host", "GET /a.txt HTTP/1.1\r\n\r\n"),
    ("version-garbage", "GET /a.txt garbage\r\nHost: x\r\n\r\n"),
    ("version-lower-case", "GET /a.txt http/1.1\r\nHost: x\r\n\r\n"),
    ("version-three-parts", "GET /a.txt HTTP/1.1.1\r\nHost: x\r\n\r\n"),
    ("version-two-digits", "GET /a.txt HTTP/1.01\r\nHost: x\r\n\r\n"),
    ("one-word", "GET\r\n\r\n"),
    ("four-words", "GET /a.txt x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("two-spaces", "GET  /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("tabs", "GET\t/a.txt\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    ("space-at-end", "GET /a.txt HTTP/1.1 \r\nHost: x\r\n\r\n"),
    ("bare-lf", "GET /a.txt HTTP/1.1\nHost: x\n\n"),
    ("blank-line-before", "\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("nothing", ""),
    ("head", "HEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("head-not-found", "HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("head-listing", "HEAD /names/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("head-redirect", "HEAD /folder HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("post", "POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
    ("post-body", "POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("put", "PUT /new.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
    ("delete", "DELETE /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("options", "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("connect", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("trace", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("lower-case-method", "get /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("markup-method", "<b> /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("pipeline", "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /b.html HTTP/1.1\r\nHost: x\r\n\r\n"),
    (
        "pipeline-close",
        "GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /b.html HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    ("pipeline-error", "GET /none HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("get-body", "GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("get-chunked", "GET /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
    ("raw-not-ascii", "GET /gr\u{fc}n.txt HTTP/1.1\r\nHost: x\r\n\r\n"),
];

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |name: &str, request: String| cases.push(Case { name: name.to_owned(), request: request.into_bytes() });
    for target in TARGETS {
        add(target, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for (name, fields) in FIELDS {
        add(name, format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    }
    for (name, input) in INPUTS {
        add(name, (*input).to_owned());
    }
    let line =
        |length: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "n".repeat(length - "GET / HTTP/1.1\r\n".len()));
    add("request-line-65536", line(65_536));
    add("request-line-65537", line(65_537));
    let field = |length: usize| {
        format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "v".repeat(length - "X: \r\n".len()))
    };
    add("field-line-65536", field(65_536));
    add("field-line-65537", field(65_537));
    let fields = |count: usize| format!("GET /a.txt HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    add("fields-99", fields(99));
    add("fields-100", fields(100));
    cases
}

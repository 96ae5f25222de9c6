//! Range requests (RFC 9110 section 14): single, suffix, open-ended, multiple, `If-Range`, 416.

use testkit::page::check_any_error;
use testkit::tree::{Pattern, STAMP};
use testkit::{Client, Response, Runtime, Server, Tree};

const LEN: u64 = 1000;

/// One part of a 206: first and last byte, total length, content, media type.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    first: u64,
    last: u64,
    body: Vec<u8>,
    media_type: Option<String>,
}

/// Parses a 206 in either of its two forms.
#[track_caller]
fn parts(response: &Response, whole: u64) -> Vec<Part> {
    assert_eq!((response.status(), response.head.reason.as_str()), (206, "Partial Content"));
    let media_type = response.text("Content-Type").expect("every 206 has one").to_owned();
    let parts = match media_type.strip_prefix("multipart/byteranges; boundary=") {
        None => {
            let range = response.text("Content-Range").expect("a single part has a Content-Range");
            vec![part(range, whole, &response.body, Some(media_type))]
        }
        Some(boundary) => {
            assert_eq!(response.text("Content-Range"), None, "only the parts have a Content-Range");
            multipart(boundary.trim_matches('"'), &response.body, whole)
        }
    };
    for part in &parts {
        Pattern::new().check(part.first, &part.body);
    }
    parts
}

#[track_caller]
fn part(range: &str, whole: u64, body: &[u8], media_type: Option<String>) -> Part {
    let (range, length) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).expect("Content-Range");
    let (first, last) = range.split_once('-').expect("Content-Range");
    let (first, last): (u64, u64) = (first.parse().expect("a number"), last.parse().expect("a number"));
    assert_eq!(length.parse(), Ok(whole));
    assert!(first <= last && last < whole, "{range}");
    assert_eq!(body.len() as u64, last - first + 1, "{range}");
    Part { first, last, body: body.to_vec(), media_type }
}

/// Parses a multipart body strictly (RFC 2046 section 5.1.1): nothing before, between or after the parts.
#[track_caller]
fn multipart(boundary: &str, body: &[u8], whole: u64) -> Vec<Part> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    assert!((1..=70).contains(&boundary.len()) && boundary.bytes().all(good), "boundary {boundary:?}");
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter may be at the very beginning, without its line terminator.
    let body = if body.starts_with(b"\r\n") { body.to_vec() } else { [b"\r\n", body].concat() };
    let mut rest = body.strip_prefix(delimiter.as_bytes()).expect("the body begins with a delimiter");
    let mut parts = Vec::new();
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        let head_end = after.windows(4).position(|w| w == b"\r\n\r\n").expect("a part has a head");
        let head = std::str::from_utf8(&after[..head_end]).expect("the head of a part is text");
        let field = |name: &str| {
            head.split("\r\n")
                .filter_map(|line| line.split_once(": "))
                .find(|f| f.0.eq_ignore_ascii_case(name))
                .map(|f| f.1)
        };
        let content = &after[head_end + 4..];
        let range = field("Content-Range").expect("a part has a Content-Range");
        let len = content.windows(delimiter.len()).position(|w| w == delimiter.as_bytes()).expect("a part ends");
        parts.push(part(range, whole, &content[..len], field("Content-Type").map(str::to_owned)));
        rest = &content[len + delimiter.len()..];
    }
    assert!(rest == b"--\r\n" || rest == b"--", "the end: {:?}", rest.escape_ascii().to_string());
    assert!(parts.len() <= 256, "{} parts", parts.len());
    parts
}

#[track_caller]
fn spans(response: &Response) -> Vec<(u64, u64)> {
    parts(response, LEN).iter().map(|part| (part.first, part.last)).collect()
}

fn tree() -> Tree {
    let tree = Tree::plain();
    tree.patterned("f.txt", LEN).stamp("f.txt", STAMP).patterned("big.bin", 50_000_000);
    tree
}

#[track_caller]
fn range(client: &mut Client, value: &str) -> Response {
    client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\nRange: {value}\r\n\r\n"))
}

/// One range in all its forms, and the fields of a 206.
pub fn single(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let whole = client.get("/f.txt");
    assert_eq!(whole.text("Accept-Ranges"), Some("bytes"));
    for (value, span) in [
        ("bytes=0-0", (0, 0)),
        ("bytes=0-9", (0, 9)),
        ("bytes=500-599", (500, 599)),
        ("bytes=999-999", (999, 999)),
        ("bytes=990-", (990, 999)),
        ("bytes=0-", (0, 999)),
        ("bytes=0-999", (0, 999)),
        ("bytes=0-1000", (0, 999)),
        ("bytes=990-5000", (990, 999)),
        ("bytes=0-99999999999999999999999999", (0, 999)),
        ("bytes=-1", (999, 999)),
        ("bytes=-10", (990, 999)),
        ("bytes=-1000", (0, 999)),
        ("bytes=-5000", (0, 999)),
        ("bytes=-99999999999999999999999999", (0, 999)),
        ("bytes=0000-0009", (0, 9)),
        ("Bytes=0-9", (0, 9)),
        ("BYTES=0-9", (0, 9)),
    ] {
        let response = range(&mut client, value);
        assert_eq!(spans(&response), [span], "{value}");
        for name in ["Content-Type", "ETag", "Last-Modified"] {
            assert_eq!(response.text(name), whole.text(name), "{value}: as with 200 (RFC 9110 section 15.3.7)");
        }
    }
    let response = client.ask("GET /f.txt HTTP/1.0\r\nRange: bytes=0-9\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(spans(&response), [(0, 9)]);
}

/// No byte of the file is requested: 416 with the length, and the connection continues.
pub fn not_satisfiable(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for value in [
        "bytes=1000-",
        "bytes=1000-1000",
        "bytes=5000-6000",
        "bytes=-0",
        "bytes=99999999999999999999999999-",
        "bytes=2000-2001,3000-",
        "bytes=1000-,-0",
    ] {
        let response = range(&mut client, value);
        check_any_error(&response, 416);
        assert_eq!(response.text("Content-Range"), Some("bytes */1000"), "{value}");
        assert!(!response.head.closes(), "{value}");
    }
}

/// For an empty file, a range from its beginning is the whole file, as in nginx and others; beyond it there is
/// nothing.
pub fn of_an_empty_file(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let mut ask = |value: &str| client.ask(format!("GET /empty HTTP/1.1\r\nHost: x\r\nRange: {value}\r\n\r\n"));
    for value in ["bytes=0-", "bytes=0-0", "bytes=0-1048575", "bytes=-5", "bytes=9-,0-"] {
        let response = ask(value);
        assert_eq!((response.status(), response.head.length()), (200, Some(0)), "{value}");
        assert_eq!(response.text("Content-Range"), None, "{value}");
    }
    for value in ["bytes=1-", "bytes=5-9", "bytes=-0"] {
        let response = ask(value);
        check_any_error(&response, 416);
        assert_eq!(response.text("Content-Range"), Some("bytes */0"), "{value}");
    }
}

/// Malformed ranges, and those of unknown units, are ignored.
pub fn not_a_range(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for value in [
        "bytes=",
        "bytes",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1-+2",
        "bytes=0x1-2",
        "bytes=1 -2",
        "bytes=--1",
        "bytes 0-9",
        "bytes:0-9",
        "items=0-9",
        "=0-9",
        "0-9",
        "",
        "bytes=0-9,5-2",
        "bytes=0-9;20-29",
        "bytes=0-9,a",
        "bytes=,",
        "bytes=1.5-2",
    ] {
        let response = range(&mut client, value);
        assert_eq!((response.status(), response.body.len()), (200, 1000), "{value}");
        assert_eq!(response.text("Content-Range"), None, "{value}");
    }
}

/// Several ranges: a multipart body with exactly the requested parts.
pub fn multiple(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for (value, expected) in [
        ("bytes=0-9,90-99", &[(0, 9), (90, 99)][..]),
        ("bytes=0-0,-1", &[(0, 0), (999, 999)]),
        ("bytes=0-9 , 100-109,\t200-209", &[(0, 9), (100, 109), (200, 209)]),
        ("bytes=0-9,,100-109,", &[(0, 9), (100, 109)]),
        ("bytes=100-109,5000-6000", &[(100, 109)]),
        ("bytes=5000-,100-109,200-209", &[(100, 109), (200, 209)]),
    ] {
        let response = range(&mut client, value);
        assert_eq!(spans(&response), expected, "{value}");
        if expected.len() > 1 {
            for part in parts(&response, LEN) {
                assert_eq!(part.media_type.as_deref(), Some("text/plain; charset=utf-8"), "{value}");
            }
        }
    }
    assert_eq!(client.get("/a.txt").body, b"alpha\n");
}

/// Ranges that overlap or touch are sent once.
pub fn coalesced(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    for value in ["bytes=0-9,5-19", "bytes=0-9,10-19", "bytes=0-19,0-19", "bytes=0-19,3-4", "bytes=0-4,2-9,8-19"] {
        assert_eq!(spans(&range(&mut client, value)), [(0, 19)], "{value}");
    }
}

/// 256 parts are sent in the requested order; more parts, and overlapping ones, never give more than the file.
pub fn many(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let list = |count: u64| {
        let ranges: Vec<String> = (0..count).rev().map(|n| format!("{}-{}", n * 3, n * 3 + 1)).collect();
        format!("bytes={}", ranges.join(","))
    };
    for count in [17, 20, 100, 255, 256] {
        let response = range(&mut client, &list(count));
        let expected: Vec<(u64, u64)> = (0..count).rev().map(|n| (n * 3, n * 3 + 1)).collect();
        assert_eq!(spans(&response), expected);
    }
    for count in [257, 258, 300] {
        let response = range(&mut client, &list(count));
        assert_eq!((response.status(), response.body.len()), (200, 1000), "{count} ranges");
    }
    let big =
        |count: u64| (0..count).map(|n| format!("{}-{}", n * 100_000, n * 100_000 + 9)).collect::<Vec<_>>().join(",");
    let response = client.ask(format!("GET /big.bin HTTP/1.1\r\nHost: x\r\nRange: bytes={}\r\n\r\n", big(256)));
    assert_eq!(parts(&response, 50_000_000).len(), 256);
    for value in [
        format!("bytes={}", vec!["0-"; 1000].join(",")),
        format!("bytes={}", vec!["-999"; 1000].join(",")),
        format!("bytes={}", (0..1000).map(|n| format!("{n}-")).collect::<Vec<_>>().join(",")),
        format!("bytes={}", vec!["0-"; 20_000].join(",")),
        format!("{},{}", list(255), vec!["509-509"; 7_000].join(",")),
    ] {
        let response = range(&mut client, &value);
        assert!([200, 206].contains(&response.status()));
        assert!(response.body.len() < 3000, "{} bytes of 1000", response.body.len());
    }
}

/// `If-Range`: the range only applies if the file has not changed.
pub fn if_range(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let tag = client.get("/f.txt").tag();
    for (value, status) in [
        (tag.clone(), 206),
        (format!("W/{tag}"), 200),
        ("\"x\"".to_owned(), 200),
        ("*".to_owned(), 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 206),
        ("Sunday, 06-Nov-94 08:49:37 GMT".to_owned(), 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT".to_owned(), 200),
        ("Sun, 06 Nov 1994 08:49:36 GMT".to_owned(), 200),
        ("garbage".to_owned(), 200),
        (String::new(), 200),
    ] {
        let response = range(&mut client, &format!("bytes=0-9\r\nIf-Range: {value}"));
        assert_eq!(response.status(), status, "{value}");
        let response = range(&mut client, &format!("bytes=5000-\r\nIf-Range: {value}"));
        assert_eq!(response.status(), if status == 206 { 416 } else { 200 }, "{value}");
    }
    let response = client.ask(format!("GET /f.txt HTTP/1.1\r\nHost: x\r\nIf-Range: {tag}\r\n\r\n"));
    assert_eq!(response.status(), 200, "without a Range it has no effect");
}

/// Other conditions are evaluated first (RFC 9110 section 13.2.2).
pub fn conditions_come_first(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let tag = client.get("/f.txt").tag();
    for (fields, status) in [
        (format!("If-None-Match: {tag}"), 304),
        ("If-None-Match: \"x\"".to_owned(), 206),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Match: {tag}"), 206),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 304),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT".to_owned(), 412),
        (format!("If-Match: {tag}\r\nIf-Range: {tag}"), 206),
        (format!("If-None-Match: {tag}\r\nIf-Range: \"x\""), 304),
    ] {
        assert_eq!(range(&mut client, &format!("bytes=0-9\r\n{fields}")).status(), status, "{fields}");
        let late = if status == 206 { 416 } else { status };
        assert_eq!(range(&mut client, &format!("bytes=5000-\r\n{fields}")).status(), late, "{fields}");
    }
}

/// `Range` only applies to GET of files (RFC 9110 section 14.2).
pub fn only_for_files(rt: Runtime) {
    let tree = tree();
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let head = client.ask("HEAD /f.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n");
    assert_eq!((head.status(), head.head.length()), (200, Some(LEN)), "defined for GET only");
    for (target, status) in [("/", 200), ("/folder/", 200), ("/none", 404), ("/folder", 301)] {
        let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\n\r\n"));
        assert_eq!((response.status(), response.text("Content-Range")), (status, None), "{target}");
    }
    let response = client.ask("PUT /f.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n");
    assert_eq!(response.status(), 501);
}

/// Large ranges, beyond 32 bits, for a slow reader, and a download assembled from parts.
pub fn large(rt: Runtime) {
    const HUGE: u64 = 5 << 30;
    let tree = tree();
    tree.sparse("huge.bin", HUGE);
    let server = Server::start(rt, tree.root());
    let mut client = server.connect();
    let response = client.ask(format!("GET /huge.bin HTTP/1.1\r\nHost: x\r\nRange: bytes={}-\r\n\r\n", HUGE - 10));
    assert_eq!(response.text("Content-Range"), Some("bytes 5368709110-5368709119/5368709120"));
    assert_eq!(response.body, [0; 10]);
    let mut narrow = Client::connect_narrow(server.address());
    for client in [&mut client, &mut narrow] {
        let mut at = 0;
        while at < 3_000_000 {
            let (first, last) = (at, at + 999_998);
            let fields = format!("Range: bytes={first}-{last}");
            let response = client.ask(format!("GET /big.bin HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"));
            let parts = parts(&response, 50_000_000);
            assert_eq!((parts[0].first, parts[0].last), (first, last));
            at = last + 1;
        }
        let fields = "Range: bytes=0-299999,10000000-11299999,49999999-";
        let response = client.ask(format!("GET /big.bin HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"));
        let lengths: Vec<usize> = parts(&response, 50_000_000).iter().map(|part| part.body.len()).collect();
        assert_eq!(lengths, [300_000, 1_300_000, 1]);
    }
}

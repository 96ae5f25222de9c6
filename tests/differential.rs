//! The same input gives the same output, on every runtime and however the input is split.
//!
//! Each entry of the corpus is sent to the three runtimes over the same directory, in one piece and cut in two at
//! several places. The output until the end of the connection must be the same each time, apart from the value of
//! `Date`.

use testkit::response::mask_dates;
use testkit::{Client, Dice, Runtime, Server, Tree};

/// Random cuts for each entry, in addition to those at both ends and around the first line end.
const RANDOM_CUTS: usize = 4;

fn tree() -> Tree {
    let tree = Tree::plain();
    tree.patterned("64k.bin", 65_537).patterned("1m.bin", 1_000_003).file("name with <&>.txt", "hostile\n");
    tree.folder("empty-folder").folder("indexed").file("indexed/index.html", "<p>index</p>\n");
    tree.link("link", "a.txt").fifo("fifo").file(b"\xff.bin", "x");
    for name in ["64k.bin", "1m.bin", "name with <&>.txt", "indexed/index.html"] {
        tree.stamp(name, testkit::tree::STAMP);
    }
    tree
}

/// `GET target` with these fields.
fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

/// Requests of every kind: valid, unusual, malformed, pipelined.
fn corpus() -> Vec<Vec<u8>> {
    let a = get("/a.txt", "");
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let targets = [
        "/",
        "/a.txt",
        "/b.html",
        "/empty",
        "/folder",
        "/folder/",
        "/folder/inner.txt",
        "/none",
        "/a.txt/",
        "/empty-folder/",
        "/indexed/",
        "/indexed",
        "/link",
        "/fifo",
        "/64k.bin",
        "/1m.bin",
        "/name%20with%20%3C&%3E.txt",
        "/%FF.bin",
        "/a.txt?q",
        "/folder?q=1",
        "//folder",
        "/../a.txt",
        "/%2e%2e/a.txt",
        "/%00",
        "/%",
        "/a.txt#f",
        "http://y/a.txt",
        "http://y/folder",
        "*",
        "a.txt",
        "/a\\b",
        "/<script>",
        "//evil.example/%2e%2e",
    ];
    corpus.extend(targets.map(|target| get(target, "")));
    for method in ["HEAD", "POST", "PUT", "OPTIONS", "TRACE", "get", "<b>"] {
        for target in ["/a.txt", "/none", "/folder/"] {
            corpus.push(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes());
        }
    }
    let fields = [
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "If-Modified-Since: Sun Nov  6 08:49:36 1994\r\n",
        "If-None-Match: *\r\n",
        "If-None-Match: \"x\", W/\"y\"\r\n",
        "If-Match: \"x\"\r\n",
        "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
        "Range: bytes=1-3\r\n",
        "Range: bytes=-2\r\n",
        "Range: bytes=0-0,2-3\r\n",
        "Range: bytes=100-\r\n",
        "Range: bytes=3-1\r\n",
        "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n",
        "Expect: 100-continue\r\n",
        "Expect: 100-continue\r\nContent-Length: 3\r\n",
        "Expect: something\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Host: y\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: x\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "X: a\r\n b\r\n",
        "X : a\r\n",
        "X: \0\r\n",
        "X\r\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
    ];
    corpus.extend(fields.map(|fields| [&get("/a.txt", fields)[..], &a].concat()));
    let lines: [&[u8]; 16] = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /a.txt HTTP/1.0\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\n\r\n",
        b"GET /a.txt HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/x\r\nHost: x\r\n\r\n",
        b"GET /a.txt\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\nHost: x\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\xff.bin HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.txt HTTP/1.1\r\nHost: x\r\nX: \xff\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    corpus.extend(lines.map(<[u8]>::to_vec));
    let bodies = [
        "Content-Length: 5\r\n\r\nabcde",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n00\r\nT: t\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nx\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefg0\r\n\r\n",
    ];
    for method in ["GET", "HEAD", "POST"] {
        for body in bodies {
            let first = format!("{method} /a.txt HTTP/1.1\r\nHost: x\r\n{body}").into_bytes();
            corpus.push([&first[..], &a].concat());
        }
    }
    corpus.push([get("/a.txt", ""), get("/none", ""), get("/folder/", ""), get("/64k.bin", "")].concat().repeat(5));
    corpus.push([get("/a.txt", "Connection: close\r\n"), get("/b.html", "")].concat());
    corpus.push(get(&format!("/{}", "a".repeat(65_600)), ""));
    corpus.push(get("/a.txt", &format!("X: {}\r\n", "a".repeat(65_600))));
    corpus.push(get("/a.txt", &"X: y\r\n".repeat(99)));
    corpus.push(get("/a.txt", &"X: y\r\n".repeat(98)));
    corpus
}

/// The end of a request that asks the server to close. A client must not send anything after it (RFC 9112 section
/// 9.6): if more bytes arrive separately, the server may have closed already, and a reset is a matter of chance. In
/// one piece with the request they are harmless.
fn end_of_the_last(input: &[u8]) -> Option<usize> {
    const LAST: &[u8] = b"Connection: close\r\n\r\n";
    input.windows(LAST.len()).position(|window| window == LAST).map(|at| at + LAST.len())
}

/// All bytes received, and how the connection ended.
#[track_caller]
fn answer(server: &Server, input: &[u8], cut: Option<usize>) -> String {
    let mut client = Client::connect(server.address());
    client.send_cut(input, cut.as_slice());
    client.half_close_if_open();
    let (bytes, orderly) = client.rest_however();
    let end = if orderly { "" } else { " and a reset" };
    format!("{}{end}", mask_dates(&bytes).escape_ascii())
}

#[track_caller]
fn same(input: &[u8], cut: Option<usize>, runtime: Runtime, expected: &str, got: &str) {
    let Some(at) = expected.bytes().zip(got.bytes()).position(|(a, b)| a != b).or_else(|| {
        let shorter = expected.len().min(got.len());
        (expected.len() != got.len()).then_some(shorter)
    }) else {
        return;
    };
    // The text is ASCII, because it is escaped.
    let shown = |text: &str| text[at.saturating_sub(200)..text.len().min(at + 300)].to_owned();
    let input = input.escape_ascii().to_string();
    let input: String = input.chars().take(2000).collect();
    let (expected, got) = (shown(expected), shown(got));
    panic!("{runtime:?} with a cut at {cut:?} differs at {at} for {input}\nexpected ..{expected}\ngot      ..{got}");
}

#[test]
fn three_runtimes_give_the_same_responses() {
    let tree = tree();
    let servers = Runtime::ALL.map(|runtime| (runtime, Server::start(runtime, tree.root())));
    let corpus = corpus();
    assert!(corpus.len() >= 60, "{} entries", corpus.len());
    for (seed, input) in corpus.iter().enumerate() {
        let expected = answer(&servers[0].1, input, None);
        let first_line = input.windows(2).position(|window| window == b"\r\n");
        let mut cuts = Dice::new(seed as u64).cuts(input.len(), RANDOM_CUTS);
        cuts.extend(first_line.into_iter().flat_map(|at| [at, at + 1, at + 2]));
        cuts.extend([1, input.len() - 1]);
        cuts.retain(|cut| (1..input.len()).contains(cut) && Some(*cut) != end_of_the_last(input));
        for (runtime, server) in &servers {
            for cut in [None].into_iter().chain(cuts.iter().map(|cut| Some(*cut))) {
                let got = answer(server, input, cut);
                same(input, cut, *runtime, &expected, &got);
            }
        }
    }
}

#[test]
fn every_cut_of_a_pipeline() {
    let tree = tree();
    let servers = Runtime::ALL.map(|runtime| (runtime, Server::start(runtime, tree.root())));
    let input = [
        &get("/a.txt", "")[..],
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n0\r\nT: t\r\n\r\n",
        &get("/folder", ""),
        b"HEAD /b.html HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        &get("/a.txt", "Range: bytes=1-2\r\nConnection: close\r\n"),
        b"GET /never HTTP/1.1\r\n",
    ]
    .concat();
    let expected = answer(&servers[0].1, &input, None);
    assert_eq!(expected.matches("HTTP/1.1 ").count(), 5, "{expected}");
    for (runtime, server) in &servers {
        for cut in (1..input.len()).filter(|cut| Some(*cut) != end_of_the_last(&input)) {
            same(&input, Some(cut), *runtime, &expected, &answer(server, &input, Some(cut)));
        }
    }
}
